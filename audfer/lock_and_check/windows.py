"""Windows of consecutive frames: LAC's temporal sampling (Algorithm 1) for training, and windows that cover every
frame.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import InputError


def _runs(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(positions ordered by subject, sequence and frame; first of each run in that order; length of each run).

    A run is consecutive frames of one sequence: a gap in the frame numbers ends it.
    """
    subject = pd.factorize(table["subject"])[0]
    sequence = pd.factorize(table["sequence"])[0]
    frame = table["frame"].to_numpy(np.int64)
    order = np.lexsort((frame, sequence, subject))
    subject, sequence, frame = subject[order], sequence[order], frame[order]
    same = (np.diff(subject) == 0) & (np.diff(sequence) == 0)
    if (twice := np.flatnonzero(same & (np.diff(frame) == 0))).size:
        at = order[twice[0]]
        where = f"frame {frame[twice[0]]} of sequence {table['sequence'].iloc[at]}"
        raise InputError("windows", where, "twice", "every frame once")
    first = np.flatnonzero(np.concatenate(([True], ~(same & (np.diff(frame) == 1)))))[: len(order)]
    return order, first, np.diff(np.append(first, len(order)))


def _check(table: pd.DataFrame, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise InputError("windows", name, value, "at least 1")
    if not len(table):
        raise InputError("windows", "frames", "an empty table", "rows of read_annotated")


def subject_windows(table: pd.DataFrame, length: int, segments: int, generator: np.random.Generator) -> np.ndarray:
    """Temporal sampling (LAC, Algorithm 1): ``segments`` windows of every subject, one at a random place in each
    segment.

    A subject's sequences (BP4D: its tasks) are laid end to end in their order and cut into ``segments`` equal pieces;
    the window's start is drawn evenly among the places of the piece where ``length`` consecutive frames of one sequence
    follow without leaving the piece. (The printed algorithm adds no offset to the start, so that all its windows would
    lie in the first segment; the offset is meant, and here.) So no window crosses a segment, a sequence or a gap in the
    frame numbers, and every subject gives equally many, however long its video is.

    Where a piece would be too short for a window, the subject is cut into fewer, longer pieces, and each is drawn from
    equally often (up to one): still ``segments`` windows. Runs of fewer than ``length`` consecutive frames can hold no
    window and are left out; a subject that has nothing else gives its longest run, the last frame repeated.

    Args:
        table: rows of ``read_annotated`` (``subject``, ``sequence``, ``frame`` are read), any order.
        length: frames t of a window (paper: 16).
        segments: N_sep windows of each subject (paper: 12 on DISFA).
        generator: the same generator state gives the same windows.

    Returns:
        int64 (subjects * segments, length): positions of rows in ``table``, windows ordered by subject (in order of
        appearance), then segment.

    Raises:
        InputError: ``length`` or ``segments`` below 1, an empty table, a frame twice.
    """
    _check(table, length=length, segments=segments)
    order, first, lengths = _runs(table)
    subject_of_run = pd.factorize(table["subject"])[0][order[first]]
    steps = np.arange(length)
    windows = []
    for subject in range(subject_of_run.max() + 1):
        mine = subject_of_run == subject
        starts, sizes = first[mine], lengths[mine]
        long = sizes >= length
        if not long.any():
            best = int(sizes.argmax())
            rows = starts[best] + np.minimum(steps, sizes[best] - 1)
            windows.append(np.broadcast_to(rows, (segments, length)))
            continue
        starts, sizes = starts[long], sizes[long]
        ends = np.cumsum(sizes)
        total = int(ends[-1])
        # along the runs laid end to end: how many frames of its own run follow each place, itself included
        left = np.repeat(ends, sizes) - np.arange(total)
        for pieces in range(min(segments, total // length), 0, -1):
            borders = np.arange(pieces + 1) * total // pieces
            until_border = np.repeat(borders[1:], np.diff(borders)) - np.arange(total)
            possible = np.flatnonzero(np.minimum(left, until_border) >= length)
            # places of each piece lie together: [low, high) of ``possible``
            low, high = np.searchsorted(possible, borders[:-1]), np.searchsorted(possible, borders[1:])
            if (high > low).all():
                break
        piece = np.arange(segments) * pieces // segments
        place = possible[generator.integers(low[piece], high[piece])]
        run = np.searchsorted(ends, place, side="right")
        windows.append((starts + sizes - ends)[run, None] + place[:, None] + steps)
    return order[np.concatenate(windows)]


def covering_windows(table: pd.DataFrame, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows with stride ``length`` over every run of consecutive frames, so that each frame is judged exactly once.

    The last window of a run is moved back so that it, too, has ``length`` frames; what the window before has judged is
    not kept twice. A run shorter than ``length`` is one window with its last frame repeated; repeats are not kept.

    Args:
        table: rows of ``read_annotated``, any order.
        length: frames of a window.

    Returns:
        rows, int64 (W, length): positions of rows in ``table``. keep, bool (W, length): the frame's judgement counts
            here;
        ``rows[keep]`` names every row of the table exactly once.

    Raises:
        InputError: ``length`` below 1, an empty table, a frame twice.
    """
    _check(table, length=length)
    order, first, lengths = _runs(table)
    count = -(-lengths // length)
    run = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    planned = number * length
    start = np.minimum(planned, np.maximum(lengths[run] - length, 0))
    place = start[:, None] + np.arange(length)
    keep = (place >= planned[:, None]) & (place < lengths[run, None])
    return order[first[run, None] + np.minimum(place, lengths[run, None] - 1)], keep
