"""Do two networks differ? One model for the interval and the p-value, so that the two cannot contradict each other.

* Clips and seeds are crossed random factors. The variance of a difference is that of its clips plus what the seeds'
  spread has beyond them; the interval is the difference and Student's t times its root, with Satterthwaite's degrees of
  freedom, and the p-value is that of the same t. With one seed nothing is known about training again, and the result is
  about these two trained networks only.
* The clips' variance is that of the sign-flip (paired permutation) test: if the two networks were exchangeable, the
  sign of each clip's difference would be a fair coin. Inverted it gives an interval (for WAR the asymptotic McNemar
  test's; Agresti and Min, Statistics in Medicine 24, 2005). Each measure also gets one clip on which the two differ and
  that was not seen, as Price and Bonett (Computational Statistics & Data Analysis 45, 2004) add: a class of 29 clips
  on which two networks happen to agree is not known without error. In UAR the classes share that one clip, since one
  a class would drown what was seen.
* Of subjects or videos with several clips, where they are known, the sign of the summed difference is the coin.

How often such intervals hold the truth, and such tests cry wolf, is simulated in ``benchmarks/statistics.py``. Several
comparisons in one table are corrected by Holm's method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from ..errors import InputError, refuse
from .metrics import CLASSES, Interval, checked_groups, mean_of_known, predictions, ratio
from .resampling import LEVEL

#: chance of finding a true difference that counts as being able to find it
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """The second of two networks minus the first, on the same clips.

    Attributes:
        war, uar: differences as ``Interval`` (fractions).
        war_p, uar_p: two-sided p-values; ``test`` names the test, the same one for all.
        gained, lost: clips that only the second, or only the first network gets right (mean over seeds).
        per_class: difference of each expression's recall; ``per_class_p`` its p-value. NaN for an expression without
            clips.
        discordance: share of clips that exactly one of the two gets right, mean over seeds, in [0, 1]; what
            ``minimum_detectable_difference`` needs to plan the next experiment.
        detectable: true differences in the seven classes, WAR and UAR (fractions) that this test finds four times in
            five, with as many clips and seeds as these.
        seeds: number of seeds on either side.
    """

    war: Interval
    uar: Interval
    war_p: float
    uar_p: float
    test: str
    gained: float
    lost: float
    per_class: tuple[Interval, ...]
    per_class_p: tuple[float, ...]
    discordance: float
    detectable: tuple[float, ...]
    seeds: tuple[int, int]


def compare(first, second, protocol: str = "last", level: float = LEVEL, groups=None) -> Comparison:
    """Compare two cells on the clips that both were tested on; see the module for the model.

    Seeds are compared in pairs where both sides have the same ones, else independently.

    Args:
        first, second: run records (or sequences of records that differ by seed), for example without and with AU.
        level: of the intervals.
        groups: ``(N,)`` subject or video of each clip, in the records' order. ``None`` takes the records' own
            ``groups``; without those every clip stands for itself.

    Raises:
        InputError: the two were not tested on the same clips, or ``groups`` does not fit them.

    Example:
        >>> compare(baseline, with_au).per_class[5].percent(signed=True)              # disgust     # doctest: +SKIP
        '+10.3 [-0.0, +24.1]'
    """
    a, b = predictions(first, protocol), predictions(second, protocol)
    if a.clip_ids != b.clip_ids or not np.array_equal(a.expressions, b.expressions):
        raise InputError(
            "compare",
            "clip_ids",
            f"{len(set(a.clip_ids) ^ set(b.clip_ids))} clips that only one of the two has",
            "two networks tested on the same clips in the same order",
        )
    groups = a.groups if groups is None else checked_groups(groups, len(a.expressions), "compare")
    truth, change, right = a.expressions, b.hits - a.hits, (a.right, b.right)
    values, (variance, clips_freedom) = _measures(change, truth), _clip_variance(change, truth, groups)
    # variances with the degrees of freedom that they were estimated from
    components, paired = [(variance, clips_freedom)], a.seeds == b.seeds
    several_seeds = False
    for signed in [right[1] - right[0]] if paired else right:
        if len(signed) > 1:
            own, spread = _seed_variance(signed, truth)
            variance = variance + own
            components.append((spread, len(signed) - 1))
            several_seeds = True
    freedom = _degrees_of_freedom(variance, components)
    error = np.sqrt(variance)
    reach = scipy.stats.t.ppf(0.5 + level / 2, freedom) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(np.isnan(values), np.nan, 2 * scipy.stats.t.sf(np.abs(values) / error, freedom)).tolist()

    what = "clips" if groups is None else f"{len(np.unique(groups))} subjects or videos"
    test = f"t test over seeds and {what}" if several_seeds else f"sign-flip test of {what}, normal"
    sizes = np.append(np.bincount(truth, minlength=CLASSES), [len(truth)] * 2)
    *per_class, in_war, in_uar = (
        Interval(value, low, high, int(size), f"{test}, inverted", level)
        for value, low, high, size in zip(
            values, np.clip(values - reach, -1, 1), np.clip(values + reach, -1, 1), sizes, strict=True
        )
    )
    return Comparison(
        war=in_war,
        uar=in_uar,
        war_p=p[-2],
        uar_p=p[-1],
        test=test,
        gained=float(change[change > 0].sum()),
        lost=float(-change[change < 0].sum()),
        per_class=tuple(per_class),
        per_class_p=tuple(p[:-2]),
        discordance=_discordance(*right, paired),
        detectable=tuple(reach + scipy.stats.t.ppf(POWER, freedom) * error),
        seeds=(len(a.seeds), len(b.seeds)),
    )


def _measures(change: np.ndarray, expressions: np.ndarray) -> np.ndarray:
    """Mean difference in each class, in WAR and in UAR, (9,), of clip-wise differences (N,); empty classes are NaN."""
    counts = np.bincount(expressions, minlength=CLASSES)
    by_class = ratio(np.bincount(expressions, weights=change, minlength=CLASSES), counts)
    total = ratio((np.nan_to_num(by_class) * counts).sum(), counts.sum())
    return np.array([*by_class, total, mean_of_known(by_class)])


def _weights(expressions: np.ndarray) -> np.ndarray:
    """(9, N) what each clip's difference counts in each class, in WAR and in UAR."""
    counts = np.bincount(expressions, minlength=CLASSES)
    own = (np.arange(CLASSES)[:, None] == expressions) / np.maximum(counts, 1)[:, None]
    known = max(np.count_nonzero(counts), 1)
    return np.stack([*own, np.full(len(expressions), 1 / max(len(expressions), 1)), own.sum(axis=0) / known])


def _clip_variance(change: np.ndarray, expressions: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Variances (9,) of ``_measures`` under random signs of the clips' (or groups') differences, with one unseen clip
    each, and their degrees of freedom.
    """
    weights = _weights(expressions)
    signed, correction, freedom = weights * change, 1.0, np.inf
    if groups is not None:
        _, index = np.unique(groups, return_inverse=True)
        number = int(index.max(initial=-1)) + 1
        signed = np.stack([np.bincount(index, weights=row, minlength=number) for row in signed])
        correction, freedom = number / max(number - 1, 1), max(number - 1, 1)
    known = np.bincount(expressions, minlength=CLASSES) > 0
    unseen = weights.max(axis=1, initial=0) ** 2
    by_class = np.where(known, unseen[:CLASSES], 0)
    unseen[-1] = by_class.sum() / max(known.sum(), 1) ** 3  # one clip, the same chance in every class
    return (signed**2).sum(axis=1) * correction + unseen, freedom


def _seed_variance(signed: np.ndarray, expressions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the seeds add to the variance (9,) of the mean over seeds, and the variance (9,) between them that it was
    found in.

    Args:
        signed: (S, N) hits, or differences of hits, one row per seed.
    """
    seeds = len(signed)
    by_seed = np.nan_to_num(np.stack([_measures(row, expressions) for row in signed]))
    spread = by_seed.var(axis=0, ddof=1) / seeds
    # part of that spread is there because a seed's hits on a finite number of clips are noisy: the clips' variance has
    # it
    counts = np.bincount(expressions, minlength=CLASSES).astype(float)
    residual = signed - signed.mean(axis=0) - (by_seed - by_seed.mean(axis=0))[:, expressions]
    squares = np.bincount(expressions, weights=(residual**2).sum(axis=0), minlength=CLASSES)
    noise = np.nan_to_num(ratio(squares, (seeds - 1) * (counts - 1) * seeds * counts))
    noise = np.array([*noise, noise @ counts**2 / counts.sum() ** 2, noise.sum() / np.count_nonzero(counts) ** 2])
    return np.maximum(spread - noise, 0), spread


def _degrees_of_freedom(variance: np.ndarray, components: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Satterthwaite's degrees of freedom of a sum of variances; infinite where no component limits them."""
    used = np.sum([part**2 / freedom for part, freedom in components], axis=0)
    return np.divide(variance**2, used, out=np.full(variance.shape, np.inf), where=used > 0)


def _discordance(first: np.ndarray, second: np.ndarray, paired: bool) -> float:
    if not first.size:
        return float("nan")
    if paired:
        return float(np.mean(first != second))
    # any seed of the one against any of the other
    p, q = first.mean(axis=0), second.mean(axis=0)
    return float(np.mean(p * (1 - q) + q * (1 - p)))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar p-value: is the split of the clips on which two networks differ that of a fair coin?

    1.0 if they differ on none. For published counts, of which no clips are known.
    """
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values) -> np.ndarray:
    """Holm's step-down adjusted p-values (Scandinavian Journal of Statistics 1979); NaN stays NaN and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


# -------------------------------------------------------------------------------- how small a difference can be seen
def effective_count(counts, metric: str = "war") -> float:
    """Clips that a metric's standard error is worth: all of them for WAR; for UAR K^2 / sum(1 / n_k).

    A mean of K class means, each with variance v / n_k, has variance v sum(1 / n_k) / K^2. Classes without clips are
    left out, as in ``uar``; 0 if there is none.

    Example:
        >>> round(effective_count([489, 379, 534, 435, 294, 29, 181], "uar"))     # one fold of DFEW, 2341 clips
        938
    """
    counts = np.asarray(counts, float)
    counts = counts[counts > 0]
    if metric == "war" or not len(counts):
        return float(counts.sum())
    return float(len(counts) ** 2 / (1 / counts).sum())


def minimum_detectable_difference(count: float, discordance: float, power: float = 0.8, level: float = LEVEL) -> float:
    """Smallest true difference that McNemar's test finds with the given power.

    Connor's formula ("Sample size for testing differences in proportions for the paired-sample design", Biometrics
    1987), ``n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2``, solved for d:
    ``d = sqrt(psi) (z_a sqrt(n) + z_b sqrt(n + z_b^2 - z_a^2)) / (n + z_b^2)``, with psi the discordance, z_a the
    normal quantile of 1 - (1 - level) / 2 and z_b that of the power. One seed on either side; training again adds to
    it.

    Args:
        count: clips n (``effective_count``).
        discordance: psi, share of clips that exactly one of the two networks gets right, in (0, 1]. Two independent
            networks of accuracy p have 2 p (1 - p); two nearly equal ones far less (``Comparison.discordance``).
        power: chance of finding it, in (0, 1).
        level: 1 - the test's size.

    Returns:
        A fraction (0.012 is 1.2 points); NaN if even all discordant clips on one side would not be enough.

    Raises:
        InputError: discordance or power out of range.

    Example:
        >>> round(100 * minimum_detectable_difference(2341, 0.15), 1)
        2.2
    """
    options = (("discordance", discordance, 1.0), ("power", power, 0.9999))
    refuse(
        "minimum_detectable_difference",
        [(not 0 < value <= top, name, value, "a share above 0 and up to 1") for name, value, top in options],
    )
    z_a, z_b = scipy.stats.norm.ppf([0.5 + level / 2, power])
    inside = count + z_b**2 - z_a**2
    if inside <= 0:
        return float("nan")
    difference = np.sqrt(discordance) * (z_a * np.sqrt(count) + z_b * np.sqrt(inside)) / (count + z_b**2)
    return float(difference) if difference <= discordance else float("nan")
