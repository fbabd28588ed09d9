"""Which frames of a clip a network sees."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


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
    """One random frame from each of ``num_wanted`` equal segments, for training; else like ``uniform_indices``.

    Args:
        generator: a NumPy generator, or a ``torch.Generator``.
    """
    _check(num_available, num_wanted)
    if isinstance(generator, np.random.Generator):
        offsets = generator.random(num_wanted)
    else:
        import torch

        offsets = torch.rand(num_wanted, generator=generator, dtype=torch.float64).numpy()
    index = ((np.arange(num_wanted) + offsets) * num_available / num_wanted).astype(np.int64)
    return np.minimum(index, num_available - 1)
