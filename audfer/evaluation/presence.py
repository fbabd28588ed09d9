"""How well action units are found: F1 with percentile intervals over clips, subjects or videos drawn again."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import InputError
from ..facs import ACTION_UNITS
from .metrics import Interval, as_group, checked_groups, mean_of_known, ratio
from .resampling import DRAWS, LEVEL, SEED, blocks, bootstrap, limits

#: draws behind an interval of F1
F1_DRAWS = 2000


def presence_quality(labels, presence, groups=None, level: float = LEVEL, draws: int = F1_DRAWS) -> pd.DataFrame:
    """How well AUs are found: F1 of each with its interval.

    Args:
        labels: ``(N, 18)`` 0, 1 or NaN (not known, not counted).
        presence: ``(N, 18)`` predictions: 0 and 1, or probabilities (present from 0.5 on); ``(S, N, 18)`` for several
            seeds, whose F1 are averaged.
        groups: ``(N,)`` subject or video of each clip, drawn again as a whole; ``None``: every clip for itself.

    Returns:
        One row per AU: action_unit, f1, f1_low, f1_high (percentile bootstrap), precision, recall, base_rate,
        f1_always (of saying "present" always: 2 b / (1 + b)), clips (known ones). NaN where undefined: an AU that is
        neither present nor predicted has no F1.

    Raises:
        InputError: shapes that do not fit.
    """
    labels, shape = np.asarray(labels, float), np.shape(presence)[-2:]
    if labels.ndim != 2 or labels.shape[1] != len(ACTION_UNITS) or shape != labels.shape:
        raise InputError(
            "presence_quality",
            "shapes of labels and presence",
            f"{labels.shape} and {shape}",
            f"(clips, {len(ACTION_UNITS)}) both",
        )
    counts = presence_counts(labels, presence, groups)
    low, high = limits(bootstrap(f1_of, counts, draws), level)
    hits, false, missed = counts.sum(axis=0).mean(axis=1)
    known = (~np.isnan(labels)).sum(axis=0)
    base = ratio((labels > 0.5).sum(axis=0), known)
    return pd.DataFrame(
        {
            "action_unit": ACTION_UNITS,
            "f1": f1_of(counts.sum(axis=0)),
            "f1_low": low,
            "f1_high": high,
            "precision": ratio(hits, hits + false),
            "recall": ratio(hits, hits + missed),
            "base_rate": base,
            "f1_always": ratio(2 * base, 1 + base),
            "clips": known,
        }
    )


def presence_counts(labels, presence, groups=None) -> np.ndarray:
    """Hits, false alarms and misses of each group: all that a resampled F1 needs.

    Args:
        labels: ``(N, C)`` 0, 1 or NaN (not known, not counted).
        presence: ``(N, C)`` or ``(S, N, C)`` for several seeds; present from 0.5 on.
        groups: ``(N,)`` subject or video of each row; ``None``: every row for itself.

    Returns:
        ``(groups, 3, S, C)`` float64, groups in sorted order.
    """
    labels, presence = np.asarray(labels, float), np.asarray(presence, float)
    presence = presence[None] if presence.ndim == 2 else presence
    groups = np.arange(len(labels)) if groups is None else checked_groups(groups, len(labels), "presence_counts")
    unit = np.unique(groups, return_inverse=True)[1]
    known = ~np.isnan(labels)
    truth, guess = known & (labels > 0.5), known & (presence >= 0.5)
    counts = np.zeros((unit.max(initial=-1) + 1, 3, *presence.shape[::2]))
    for j, kind in enumerate((truth & guess, ~truth & guess, truth & ~guess)):
        np.add.at(counts[:, j], unit, kind.transpose(1, 0, 2))
    return counts


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 from counts (..., 3, S, C), mean over the seeds that have one: (..., C), NaN where none has."""
    hits, false, missed = np.moveaxis(counts, -3, 0)
    return mean_of_known(ratio(2 * hits, 2 * hits + false + missed), axis=-2)


def _with_mean(f1: np.ndarray) -> np.ndarray:
    """F1 of C AUs (..., C) -> (..., C + 1), the last one their mean over the AUs that have one."""
    return np.concatenate((f1, mean_of_known(f1)[..., None]), axis=-1)


def _intervals(values, sample, counts, method: str, level: float) -> list[Interval]:
    return [
        Interval(*numbers, len(counts), f"{method} over groups", level)
        for numbers in zip(values, *limits(sample, level), strict=True)
    ]


def f1_intervals(counts: np.ndarray, level: float = LEVEL, draws: int = F1_DRAWS) -> list[Interval]:
    """F1 of each AU and, last, their mean, with percentile bootstrap intervals over groups.

    Args:
        counts: from ``presence_counts``.
    """
    sample = _with_mean(bootstrap(f1_of, counts, draws))
    return _intervals(_with_mean(f1_of(counts.sum(axis=0))), sample, counts, "bootstrap", level)


def compare_f1(
    first: np.ndarray, second: np.ndarray, level: float = LEVEL, draws: int = DRAWS
) -> tuple[list[Interval], np.ndarray]:
    """F1 of ``second`` minus that of ``first`` on the same rows, for each AU and, last, for their mean.

    The interval is a paired bootstrap: the same groups are drawn for both. The p-value is that of approximate
    randomisation (Noreen, "Computer-intensive methods for testing hypotheses", Wiley 1989): if the two were
    exchangeable, which of them gave a group's predictions would be a fair coin. With one seed on either side both are
    about these trained networks only.

    Args:
        first, second: from ``presence_counts`` of the same labels and groups, with as many seeds.

    Returns:
        (C + 1 intervals, (C + 1,) two-sided p-values); NaN where one of the two has no F1.

    Raises:
        InputError: shapes that differ.
    """
    if first.shape != second.shape:
        raise InputError("compare_f1", "shape of the second counts", second.shape, f"that of the first, {first.shape}")

    def difference(both: np.ndarray) -> np.ndarray:
        # the mean of differences, not the difference of means: an AU without F1 on one side counts on neither
        return _with_mean(f1_of(both[..., 1, :, :, :]) - f1_of(both[..., 0, :, :, :]))

    both = np.stack([first, second], axis=1)
    total, value = both.sum(axis=0), difference(both.sum(axis=0))
    generator, change = np.random.default_rng(SEED), (second - first).reshape(len(first), -1)
    exceeding = np.zeros(len(value))
    for block in blocks(draws, len(first)):
        coins = generator.integers(0, 2, (block, len(first))).astype(float)
        swapped = total[0] + (coins @ change).reshape(block, *first.shape[1:])
        chance = difference(np.stack([swapped, total.sum(axis=0) - swapped], axis=1))
        exceeding += (np.abs(chance) >= np.abs(value) - 1e-12).sum(axis=0)
    p = np.where(np.isfinite(value), (1 + exceeding) / (1 + draws), np.nan)
    return _intervals(value, bootstrap(difference, both, draws), first, "paired bootstrap", level), p


def au_quality(record, labels=None, groups=None, level: float = LEVEL) -> pd.DataFrame:
    """``presence_quality`` of one cell's AU head on its test clips.

    Args:
        record: a run record, or several that differ by seed, with ``au_scores``.
        labels: ``(N, 18)`` clip AU labels of the test split (``losses.clip_au_labels``); ``None`` takes the records'
            own ``au_labels``.
        groups: as in ``compare``.

    Raises:
        InputError: a record without an AU head, or no labels.
    """
    group = as_group(record)
    for one in group:
        if one.au_scores is None:
            raise InputError(one.path, "au_scores", "none", "a record of a cell with an AU head")
    labels = getattr(group[0], "au_labels", None) if labels is None else labels
    if labels is None:
        raise InputError(group[0].path, "au_labels", "none", "clip AU labels in the record or as an argument")
    groups = getattr(group[0], "groups", None) if groups is None else groups
    return presence_quality(labels, np.stack([one.au_scores for one in group]), groups, level)
