"""Which frames of a clip a network sees: our two rules and those of the three official releases, by name.

A packed store keeps a fixed number of evenly spread frames of every clip. Our rules choose among the stored frames. A
release's rule is about the clip's own frames (MAE-DFER takes every fourth): ``stored_indices`` runs it over the clip's
length, as far as the frame numbers in the store tell it, and takes the nearest stored frame for each one chosen. So the
rule's spread, order and repeats are kept, and frames that lie closer together than the store's may coincide.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np

from .errors import InputError


def _check(num_available: int, num_wanted: int) -> None:
    if num_available < 1:
        raise InputError("sampling", "num_available", num_available, "at least 1 frame")
    if num_wanted < 1:
        raise InputError("sampling", "num_wanted", num_wanted, "at least 1 frame")


def uniform_indices(num_available: int, num_wanted: int) -> np.ndarray:
    """Centres of ``num_wanted`` equal segments: deterministic, in order, spread over the whole clip.

    Clips shorter than wanted repeat frames evenly.

    Returns:
        int64 (num_wanted,), each in 0 .. num_available - 1, non-decreasing.

    Raises:
        InputError: either number is below 1.

    Example:
        >>> uniform_indices(8, 4).tolist(), uniform_indices(2, 4).tolist()
        ([1, 3, 5, 7], [0, 0, 1, 1])
    """
    _check(num_available, num_wanted)
    return (2 * np.arange(num_wanted) + 1) * num_available // (2 * num_wanted)


def jittered_indices(num_available: int, num_wanted: int, generator: np.random.Generator) -> np.ndarray:
    """One random frame from each of ``num_wanted`` equal segments, for training; else like ``uniform_indices``."""
    _check(num_available, num_wanted)
    index = ((np.arange(num_wanted) + generator.random(num_wanted)) * num_available / num_wanted).astype(np.int64)
    return np.minimum(index, num_available - 1)


def m3dfel_indices(num_available: int, num_wanted: int, generator: np.random.Generator) -> np.ndarray:
    """M3DFEL's rule, in training and test alike: i/k of the way through the clip, plus a random 0 .. k - 1 frames each.

    Frames may be out of order and repeat, and in a short clip most are its last one; test results change from draw to
    draw (quirk 1 of the release).

    Returns:
        int64 (num_wanted,), each in 0 .. num_available - 1.
    """
    _check(num_available, num_wanted)
    starts = np.arange(num_wanted) * num_available // num_wanted
    return np.minimum(starts + generator.integers(0, num_wanted, num_wanted), num_available - 1)


def former_dfer_indices(
    num_available: int, num_wanted: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Former-DFER's rule: k/2 segments, two consecutive frames of each.

    Args:
        num_wanted: k, an even number.
        generator: draws where in its segment a pair starts (training); ``None`` takes the middle (test). A clip without
            a whole frame a segment starts every pair at 0, at test time already one of k/2 + 1 frames (quirk 13).

    Returns:
        int64 (num_wanted,), each in 0 .. num_available - 1, non-decreasing.

    Raises:
        InputError: a number below 1, or an odd ``num_wanted``.
    """
    _check(num_available, num_wanted)
    if num_wanted % 2:
        raise InputError("sampling", "num_wanted", num_wanted, "an even number: Former-DFER takes frames in pairs")
    segments = num_wanted // 2
    starts = np.zeros(segments, np.int64)
    if generator is not None:
        length = (num_available - 1) // segments
        if length > 0:
            starts = length * np.arange(segments) + generator.integers(0, length, segments)
    elif num_available > segments + 1:
        length = (num_available - 1) / segments
        starts = np.floor(length / 2 + length * np.arange(segments)).astype(np.int64)
    return np.minimum(np.stack((starts, starts + 1), axis=1).ravel(), num_available - 1)


def mae_dfer_indices(
    num_available: int, num_wanted: int, generator: np.random.Generator, stride: int = 1
) -> np.ndarray:
    """MAE-DFER's training rule: k equidistant frames of a random window of k x stride frames.

    A clip that is not longer than the window gives n // stride equidistant frames, then its last frame again up to k.

    Returns:
        int64 (num_wanted,), each in 0 .. num_available - 1, non-decreasing.
    """
    _check(num_available, num_wanted)
    _check_stride(stride)
    window = num_wanted * stride
    if num_available > window:
        start = generator.integers(0, num_available - window + 1)
        return np.minimum(np.linspace(start, start + window, num_wanted).astype(np.int64), start + window - 1)
    spread = np.linspace(0, num_available, num_available // stride)
    index = np.concatenate((spread, np.full(num_wanted - len(spread), num_available))).astype(np.int64)
    return np.minimum(index, num_available - 1)


def mae_dfer_views(num_available: int, num_wanted: int, stride: int = 1) -> np.ndarray:
    """MAE-DFER's two temporal test views: the first and the last k of every stride-th frame.

    The release also takes two spatial crops, but of a picture that is square already, so they are the same twice.

    Returns:
        int64 (2, num_wanted), each in 0 .. num_available - 1; the last frame is repeated where there are less than k.
    """
    _check(num_available, num_wanted)
    _check_stride(stride)
    index = np.arange(0, num_available, stride)
    index = np.pad(index, (0, max(0, num_wanted - len(index))), mode="edge")
    return np.stack((index[:num_wanted], index[-num_wanted:]))


def all_indices(num_available: int, num_wanted: int) -> np.ndarray:
    """Every frame in order, for clips cut to the network's length beforehand (AU-DFER's Former-DFER on DFEW).

    Raises:
        InputError: there are not exactly ``num_wanted`` frames.
    """
    _check(num_available, num_wanted)
    if num_available != num_wanted:
        raise InputError("sampling", "frames of a clip", num_available, f'{num_wanted}: the rule "all" leaves none out')
    return np.arange(num_wanted)


def _check_stride(stride: int) -> None:
    if stride < 1:
        raise InputError("sampling", "stride", stride, "at least 1 frame")


class SamplingRule(NamedTuple):
    """One entry of ``SAMPLING``.

    Attributes:
        choose: (num_available, num_wanted, generator, stride) -> indices (num_wanted,) or (views, num_wanted).
        random: whether it needs a generator.
        stored: whether it is about the stored frames rather than the clip's own.
        summary: half a sentence, for records.
    """

    choose: Callable[[int, int, np.random.Generator | None, int], np.ndarray]
    random: bool
    stored: bool
    summary: str


SAMPLING: dict[str, SamplingRule] = {
    "uniform": SamplingRule(
        lambda n, k, generator, stride: uniform_indices(n, k),
        False,
        True,
        "the middle frame of each of num_frames equal segments",
    ),
    "jittered": SamplingRule(
        lambda n, k, generator, stride: jittered_indices(n, k, generator),
        True,
        True,
        "one frame drawn uniformly from each of num_frames equal segments",
    ),
    "all": SamplingRule(lambda n, k, generator, stride: all_indices(n, k), False, True, "every stored frame in order"),
    "m3dfel": SamplingRule(
        lambda n, k, generator, stride: m3dfel_indices(n, k, generator),
        True,
        False,
        "M3DFEL's: equal steps plus a random offset each, possibly out of order",
    ),
    "former_dfer": SamplingRule(
        lambda n, k, generator, stride: former_dfer_indices(n, k, generator),
        True,
        False,
        "Former-DFER's: two consecutive frames from a random place of each segment",
    ),
    "former_dfer-test": SamplingRule(
        lambda n, k, generator, stride: former_dfer_indices(n, k),
        False,
        False,
        "Former-DFER's: two consecutive frames from the middle of each segment",
    ),
    "mae_dfer": SamplingRule(mae_dfer_indices, True, False, "MAE-DFER's: equidistant frames of a random window"),
    "mae_dfer-views": SamplingRule(
        lambda n, k, generator, stride: mae_dfer_views(n, k, stride),
        False,
        False,
        "MAE-DFER's: two temporal views, probabilities averaged",
    ),
}


def sample_indices(
    rule: str, num_available: int, num_wanted: int, generator: np.random.Generator | None = None, stride: int = 1
) -> np.ndarray:
    """Frames of a clip by a rule's name.

    Args:
        rule: a key of ``SAMPLING``.
        generator: for the random rules.
        stride: frames from one to the next, for MAE-DFER's rules.

    Returns:
        int64 (views, num_wanted); all rules but "mae_dfer-views" have one view.

    Raises:
        InputError: unknown rule, a number below 1, or a random rule without a generator.
    """
    if rule not in SAMPLING:
        raise InputError("sampling", "rule", repr(rule), f"one of {', '.join(SAMPLING)}")
    if SAMPLING[rule].random and generator is None:
        raise InputError("sampling", "generator", "none", f"a NumPy generator: the rule {rule!r} is random")
    return np.atleast_2d(SAMPLING[rule].choose(num_available, num_wanted, generator, stride))


def stored_indices(
    rule: str, frame_numbers: np.ndarray, num_wanted: int, generator: np.random.Generator | None = None, stride: int = 1
) -> np.ndarray:
    """``sample_indices`` for a clip of a packed store; see the module's text.

    Args:
        frame_numbers: (T,) number of each stored frame in its clip, as ``pack`` stored them.

    Returns:
        int64 (views, num_wanted), positions in the store, 0 .. T - 1.
    """
    stored = len(frame_numbers)
    if rule in SAMPLING and SAMPLING[rule].stored:
        return sample_indices(rule, stored, num_wanted, generator, stride)
    # stored frames are the centres of T equal segments: from their spread follows the clip's length, within a frame
    offsets = np.asarray(frame_numbers) - frame_numbers[0]
    length = max(int(offsets[-1]) + 1, round(offsets[-1] * stored / (stored - 1)) if stored > 1 else 1)
    chosen = sample_indices(rule, length, num_wanted, generator, stride)
    places = offsets + length // (2 * stored)
    return np.abs(chosen[..., None] - places).argmin(-1)
