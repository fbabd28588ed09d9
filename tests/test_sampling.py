"""The frame rules of the three releases, on examples worked out by hand from the SPEC's words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audfer.errors import InputError
from audfer.sampling import (
    SAMPLING,
    all_indices,
    former_dfer_indices,
    m3dfel_indices,
    mae_dfer_indices,
    mae_dfer_views,
    sample_indices,
    stored_indices,
    uniform_indices,
)


def generator(seed=0):
    return np.random.default_rng(seed)


@given(
    st.sampled_from(sorted(set(SAMPLING) - {"all"})),
    st.integers(1, 200),
    st.sampled_from((2, 8, 16)),
    st.integers(1, 5),
    st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_every_rule_gives_frames_that_exist(rule, available, wanted, stride, seed):
    index = sample_indices(rule, available, wanted, generator(seed), stride)
    assert index.shape == (2 if rule == "mae_dfer-views" else 1, wanted) and index.dtype == np.int64
    assert index.min() >= 0 and index.max() < available


@pytest.mark.parametrize("rule", sorted(set(SAMPLING) - {"all"}))
def test_a_clip_of_one_frame_gives_that_frame(rule):
    assert not sample_indices(rule, 1, 16, generator(), 4).any()


# --------------------------------------------------------------------------------------------------------- M3DFEL


@pytest.mark.parametrize("available", [5, 16, 100])
def test_m3dfel_adds_0_to_15_to_each_sixteenth_of_the_clip(available):
    drawn = np.stack([m3dfel_indices(available, 16, generator(seed)) for seed in range(2000)])
    for i in range(16):
        start = available * i // 16
        expected = {min(start + offset, available - 1) for offset in range(16)}
        assert set(drawn[:, i]) == expected


def test_m3dfel_draws_frames_out_of_order_and_mostly_the_last_one_of_a_16_frame_clip():
    drawn = np.stack([m3dfel_indices(16, 16, generator(seed)) for seed in range(4000)])
    assert (np.diff(drawn, axis=1) < 0).any(axis=1).mean() > 0.9
    # P(i + offset >= 15) = (i + 1) / 16, summed over i: 8.5; the published analysis of the release found the same
    assert (drawn == 15).sum(1).mean() == pytest.approx(8.5, abs=0.1)


# ----------------------------------------------------------------------------------------------------- Former-DFER


def test_former_dfer_test_frames_are_pairs_from_the_middle_of_eight_segments():
    # n = 33: t = 4, starts floor(2 + 4 i)
    assert former_dfer_indices(33, 16).tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31]
    # n = 16: t = 15/8, starts floor(0.9375 + 1.875 i) = 0, 2, 4, 6, 8, 10, 12, 14
    assert former_dfer_indices(16, 16).tolist() == list(range(16))
    # n = 10: t = 9/8, starts floor(0.5625 + 1.125 i) = 0, 1, 2, 3, 5, 6, 7, 8
    assert former_dfer_indices(10, 16)[::2].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("available", [2, 8, 9])
def test_former_dfer_tests_a_short_clip_on_its_first_two_frames(available):
    assert former_dfer_indices(available, 16).tolist() == [0, 1] * 8


def test_former_dfer_training_pairs_start_anywhere_in_their_segment():
    drawn = np.stack([former_dfer_indices(33, 16, generator(seed)) for seed in range(300)])
    starts, seconds = drawn[:, ::2], drawn[:, 1::2]
    assert (seconds == starts + 1).all()
    for i in range(8):  # a = floor(32 / 8) = 4
        assert set(starts[:, i]) == {4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3}
    # a = floor(15 / 8) = 1 leaves no choice, and the end of a 16-frame clip is never seen
    assert former_dfer_indices(16, 16, generator()).tolist() == [i + j for i in range(8) for j in (0, 1)]
    assert former_dfer_indices(8, 16, generator()).tolist() == [0, 1] * 8


def test_former_dfer_needs_an_even_number():
    with pytest.raises(InputError, match="num_wanted: found 7, expected an even number"):
        former_dfer_indices(30, 7)


# -------------------------------------------------------------------------------------------------------- MAE-DFER


def test_mae_dfer_takes_equidistant_frames_of_a_random_window():
    drawn = np.stack([mae_dfer_indices(100, 16, generator(seed), stride=4) for seed in range(500)])
    # a window of 64 begins at 0..36; steps are 64 / 15 rounded down or up, and the end is cut to the window
    assert set(drawn[:, 0]) == set(range(37))
    offsets = drawn - drawn[:, :1]
    assert (offsets == [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]).all()


def test_mae_dfer_repeats_the_last_frame_of_a_clip_that_fits_into_the_window():
    # n = 40, stride 4: floor(40 / 4) = 10 equidistant frames 0, 4.4, 8.9, ..., 40 (cut to 39), then 39 six times
    assert mae_dfer_indices(40, 16, generator(), 4).tolist() == [0, 4, 8, 13, 17, 22, 26, 31, 35, 39] + [39] * 6
    assert mae_dfer_indices(3, 16, generator(), 4).tolist() == [2] * 16
    assert mae_dfer_indices(16, 16, generator(), 1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]


def test_mae_dfer_views_are_the_first_and_last_sixteen_of_every_fourth_frame():
    first, last = mae_dfer_views(100, 16, 4)  # 0, 4, ..., 96: 25 frames
    assert first.tolist() == list(range(0, 64, 4)) and last.tolist() == list(range(36, 100, 4))
    short = mae_dfer_views(10, 16, 4)  # 0, 4, 8, then 8 again
    assert short.tolist() == [[0, 4] + [8] * 14] * 2
    assert mae_dfer_views(16, 16, 1).tolist() == [list(range(16))] * 2


# ------------------------------------------------------------------------------------------------ the packed store


@pytest.mark.parametrize("length, stored", [(1, 16), (9, 16), (16, 16), (17, 16), (77, 32), (300, 32)])
def test_a_release_rule_runs_over_the_clip_and_takes_the_nearest_stored_frame(length, stored):
    numbers = 1 + uniform_indices(length, stored)  # frame files count from 1
    chosen = stored_indices("mae_dfer-views", numbers, 8, stride=3)
    wanted = mae_dfer_views(length, 8, 3)
    # length is known within a frame; the nearest of T evenly spread frames lies within half their distance
    assert np.abs(numbers[chosen] - 1 - wanted).max() <= 1 + length / stored / 2
    if length <= stored:
        assert (numbers[chosen] - 1 == wanted).all()


def test_our_rules_choose_among_the_stored_frames():
    numbers = uniform_indices(300, 16)
    assert stored_indices("uniform", numbers, 8).tolist() == [[1, 3, 5, 7, 9, 11, 13, 15]]
    assert stored_indices("all", numbers, 16).tolist() == [list(range(16))]


def test_wrong_requests_are_sentences():
    with pytest.raises(InputError, match="rule: found 'every second', expected one of uniform, jittered"):
        sample_indices("every second", 10, 4)
    with pytest.raises(InputError, match="the rule 'm3dfel' is random"):
        sample_indices("m3dfel", 10, 4)
    with pytest.raises(InputError, match="stride: found 0"):
        sample_indices("mae_dfer-views", 10, 4, stride=0)
    with pytest.raises(InputError, match='frames of a clip: found 12, expected 16: the rule "all" leaves none out'):
        all_indices(12, 16)
