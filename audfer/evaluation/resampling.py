"""The one bootstrap: of clips, or of whole subjects or videos, paired between networks because it is seeded.

What is drawn again is a *unit*: a clip, or everything of one subject or video, because frames of a clip and clips of a
person resemble each other. A sample of units is how often each of them is in it (``multiplicities``), so that a
statistic of sums (a mean, an F1, a correlation) needs only the units' own sums, weighted by these numbers
(``bootstrap``). The same seed draws the same units for every array of as many units: differences of two networks are
then paired, and two tables about the same frames show the same limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

#: probability content of an interval
LEVEL = 0.95
DRAWS = 10_000
#: of every Monte Carlo method: the same predictions give the same digits
SEED = 20260101


def blocks(draws: int, width: int) -> Iterator[int]:
    """``draws`` in parts of about four million numbers, each draw ``width`` of them."""
    size = max(1, min(2**22 // max(width, 1), draws))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def multiplicities(
    units: int, draws: int = DRAWS, seed=SEED, *, taken: int | None = None, shares: np.ndarray | None = None
) -> np.ndarray:
    """How often each unit is in each bootstrap sample.

    Args:
        units: how many there are.
        draws: samples.
        seed: a seed, or a generator to go on with.
        taken: units in a sample; ``None``: as many as there are. One fewer leaves the variance of a mean without bias.
        shares: (units,) probability of each unit, drawn by their counts. ``None``: all alike, drawn one by one; equal
            shares have the same distribution, and other digits.

    Returns:
        (draws, units) float64; each row sums to ``taken``.
    """
    generator, taken = np.random.default_rng(seed), units if taken is None else taken
    if shares is not None:
        return generator.multinomial(taken, shares, size=draws).astype(np.float64)
    picks = generator.integers(0, max(units, 1), size=(draws, taken)) + units * np.arange(draws)[:, None]
    return np.bincount(picks.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float64)


def bootstrap(statistic: Callable, sums: np.ndarray, draws: int = DRAWS, seed=SEED, **options) -> np.ndarray:
    """A statistic in bootstrap samples of whole units.

    Args:
        statistic: from the sums of a sample (block, ...) to its values (block, ...).
        sums: (units, ...) what each unit adds to the sums.
        **options: of ``multiplicities``.

    Returns:
        (draws, ...) values.

    Example:
        >>> right = np.array([1.0, 1.0, 0.0, 1.0])                       # four clips; how sure is a share of 0.75?
        >>> limits(bootstrap(lambda hits: hits / 4, right, draws=2000)).tolist()
        [0.25, 1.0]
    """
    generator, units = np.random.default_rng(seed), len(sums)
    flat = sums.reshape(units, -1)
    return np.concatenate(
        [
            statistic((multiplicities(units, block, generator, **options) @ flat).reshape(block, *sums.shape[1:]))
            for block in blocks(draws, units)
        ]
    )


def equal_shares(units: int) -> np.ndarray:
    """(units,) the same probability for each."""
    return np.full(units, 1 / max(units, 1))


def limits(sample: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Both percentile limits along the first axis, (2, ...), of the finite values; NaN where there is none."""
    columns = sample.reshape(len(sample), -1)
    ends = np.full((2, columns.shape[1]), np.nan)
    for end, column in zip(ends.T, columns.T, strict=True):
        known = column[np.isfinite(column)]
        if len(known):
            end[:] = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2])
    return ends.reshape(2, *sample.shape[1:])
