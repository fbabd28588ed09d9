"""Windows of consecutive frames: LAC's temporal sampling and the windows that cover every frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audfer.errors import InputError
from audfer.lock_and_check.windows import covering_windows, subject_windows


def table_of(subjects: list[list[list[int]]], shuffled: int | None = None) -> pd.DataFrame:
    """``subjects[s][q]``: lengths of the runs of sequence q of subject s; one frame is missing between two runs."""
    rows = []
    for subject, sequences in enumerate(subjects):
        for sequence, runs in enumerate(sequences):
            frame = 7
            for length in runs:
                rows += [(f"S{subject}", f"S{subject}/T{sequence}", frame + step) for step in range(length)]
                frame += length + 1
    table = pd.DataFrame(rows, columns=["subject", "sequence", "frame"])
    return table if shuffled is None else table.sample(frac=1, random_state=shuffled).reset_index(drop=True)


runs = st.lists(st.integers(1, 60), min_size=1, max_size=4)
people = st.lists(st.lists(runs, min_size=1, max_size=3), min_size=1, max_size=4)


def longest(sequences: list[list[int]]) -> int:
    return max(max(lengths) for lengths in sequences)


@settings(max_examples=80, deadline=None)
@given(people, st.integers(1, 16), st.integers(1, 12), st.integers(0, 9))
def test_every_subject_gives_equally_many_windows_of_consecutive_frames_of_one_sequence(
    subjects, length, segments, seed
):
    table = table_of(subjects, seed)
    rows = subject_windows(table, length, segments, np.random.default_rng(seed))
    assert rows.shape == (len(subjects) * segments, length) and rows.dtype == np.int64
    subject = table["subject"].to_numpy()[rows]
    sequence, frame = table["sequence"].to_numpy()[rows], table["frame"].to_numpy()[rows]
    assert (subject == subject[:, :1]).all() and (sequence == sequence[:, :1]).all()
    assert pd.Series(subject[:, 0]).value_counts().to_dict() == {f"S{s}": segments for s in range(len(subjects))}
    for name, steps, window in zip(subject[:, 0], np.diff(frame, axis=1), frame, strict=True):
        most = longest(subjects[int(name[1:])])
        if most >= length:
            assert (steps == 1).all()
        else:  # nobody's frames are enough: the longest run, its last frame repeated
            assert steps[: most - 1].tolist() == [1] * (most - 1) and (steps[most - 1 :] == 0).all()
            assert len(np.unique(window)) == most
    again = subject_windows(table, length, segments, np.random.default_rng(seed))
    assert np.array_equal(rows, again)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 16), st.integers(1, 12), st.integers(0, 9))
def test_no_window_crosses_a_segment_and_segments_get_equally_many(count, length, segments, seed):
    table = table_of([[[count]]], seed)
    rows = subject_windows(table, length, segments, np.random.default_rng(seed))
    frame = table["frame"].to_numpy()[rows] - 7
    if count < length:
        return
    # as many segments as hold a window each, at most those asked for
    pieces = max(p for p in range(1, segments + 1) if min(np.diff(np.arange(p + 1) * count // p)) >= length)
    borders = np.arange(pieces + 1) * count // pieces
    first, last = (np.searchsorted(borders, frame[:, end], side="right") - 1 for end in (0, -1))
    assert (first == last).all() and (np.diff(first) >= 0).all()
    windows = np.bincount(first, minlength=pieces)
    assert windows.min() >= 1 and windows.max() - windows.min() <= 1


def test_every_place_where_a_window_fits_is_reached_and_no_other():
    lengths, generator = [5, 9, 3, 7], np.random.default_rng(0)
    table = table_of([[[count] for count in lengths]])
    starts = {int(subject_windows(table, 4, 1, generator)[0, 0]) for _ in range(400)}
    first = np.cumsum([0, *lengths[:-1]])
    assert starts == {int(f) + k for f, count in zip(first, lengths, strict=True) for k in range(count - 3)}


def test_the_start_is_drawn_evenly_within_its_segment():
    table = table_of([[[60]]])  # three segments of 20; a window of 16 fits at five places of each
    generator = np.random.default_rng(0)
    starts = np.concatenate([subject_windows(table, 16, 3, generator)[:, 0] for _ in range(600)])
    values, counts = np.unique(starts, return_counts=True)
    assert values.tolist() == [*range(5), *range(20, 25), *range(40, 45)]
    assert counts.min() > 80 and counts.max() < 165  # 120 each


def test_a_segment_without_room_makes_fewer_and_longer_segments():
    starts = subject_windows(table_of([[[40]]]), 16, 12, np.random.default_rng(0))[:, 0]
    assert ((starts[:6] <= 4) & (starts[:6] >= 0)).all() and ((starts[6:] >= 20) & (starts[6:] <= 24)).all()


def test_runs_too_short_for_a_window_are_left_out_where_there_are_longer_ones():
    rows = subject_windows(table_of([[[3, 30, 2], [5]]]), 16, 4, np.random.default_rng(0))
    assert rows.min() >= 3 and rows.max() < 33


@settings(max_examples=80, deadline=None)
@given(people, st.integers(1, 20), st.integers(0, 9))
def test_covering_windows_keep_every_frame_exactly_once(subjects, length, seed):
    table = table_of(subjects, seed)
    rows, keep = covering_windows(table, length)
    assert (np.bincount(rows[keep], minlength=len(table)) == 1).all()
    every = [count for sequences in subjects for lengths in sequences for count in lengths]
    assert rows.shape == keep.shape == (sum(-(-count // length) for count in every), length)
    sequence, frame = table["sequence"].to_numpy()[rows], table["frame"].to_numpy()[rows]
    assert (sequence == sequence[:, :1]).all() and keep.any(axis=1).all()
    steps = np.diff(frame, axis=1)
    padded = (steps == 0).any(axis=1) if length > 1 else np.zeros(len(rows), bool)
    assert (steps[~padded] == 1).all()
    # only a run shorter than a window repeats its last frame, and the repeats are not kept
    assert padded.sum() == sum(count < length for count in every)
    assert not keep[:, 1:][steps == 0].any()


def test_the_last_window_is_moved_back_and_what_was_judged_is_not_kept_twice():
    rows, keep = covering_windows(table_of([[[10]]]), 4)
    assert rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert keep.tolist() == [[True] * 4, [True] * 4, [False, False, True, True]]


@pytest.mark.parametrize(
    "settings_, found", [({"length": 0}, "length: found 0"), ({"segments": 0}, "segments: found 0")]
)
def test_impossible_windows_are_refused(settings_, found):
    with pytest.raises(InputError, match=found):
        subject_windows(
            table_of([[[9]]]), **{"length": 4, "segments": 2, **settings_}, generator=np.random.default_rng(0)
        )


def test_empty_and_repeated_tables_are_refused():
    table = table_of([[[4]]])
    with pytest.raises(InputError, match="an empty table"):
        covering_windows(table.iloc[:0], 4)
    with pytest.raises(InputError, match="frame 8 of sequence S0/T0: found twice"):
        subject_windows(pd.concat([table, table.iloc[[1]]]), 4, 2, np.random.default_rng(0))
