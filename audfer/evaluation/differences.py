"""Do two networks differ? Differences clip by clip, with tests that agree with their intervals.

* The interval is a paired bootstrap, of clips within classes, or of whole subjects or videos where they are known
  (clips of one person are not independent). With one seed on either side the p-value of WAR and of a class is McNemar's
  exact test, that of UAR the sign-flip (paired permutation) test of which McNemar's is the case of equal weights.
  Several comparisons in one table are corrected by Holm's method.
* **Several seeds**: ``compare`` draws clips *and* seeds again, so that its interval and its p-value speak about
  training again as well; with few seeds Student's t widens them. With one seed nothing is known about training again,
  and the result is about these two trained networks only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from ..errors import InputError, refuse
from .metrics import CLASSES, Interval, checked_groups, mean_of_known, predictions, ratio
from .resampling import DRAWS, LEVEL, SEED, blocks, bootstrap, limits, multiplicities


@dataclass(frozen=True)
class Comparison:
    """The second of two networks minus the first, on the same clips.

    Attributes:
        war, uar: differences as ``Interval`` (fractions).
        war_p, uar_p: two-sided p-values; ``war_test`` and ``uar_test`` name the tests.
        gained, lost: clips that only the second, or only the first network gets right (mean over seeds).
        per_class: difference of each expression's recall; ``per_class_p`` its p-value (by ``war_test``). NaN for an
            expression without clips.
        discordance: share of clips that exactly one of the two gets right, mean over seeds, in [0, 1]; what
            ``minimum_detectable_difference`` needs to plan the next experiment.
        seeds: number of seeds on either side.
    """

    war: Interval
    uar: Interval
    war_p: float
    uar_p: float
    war_test: str
    uar_test: str
    gained: float
    lost: float
    per_class: tuple[Interval, ...]
    per_class_p: tuple[float, ...]
    discordance: float
    seeds: tuple[int, int]


def compare(first, second, protocol: str = "last", level: float = LEVEL, draws: int = DRAWS, groups=None) -> Comparison:
    """Compare two cells on the clips that both were tested on.

    Clips are drawn again within their classes, so that the class sizes stay what the test set's design made them; with
    ``groups`` whole subjects (or videos) are drawn again instead. A class (and UAR) also gets half a gained and half a
    lost clip that were not seen: a class of 29 clips on which two networks happen to agree is not known without error.
    Several seeds are drawn again too: in pairs where both sides have the same seeds, else independently. What the
    seeds' spread owes to the finite number of clips is taken off, so that it is not counted twice. Limits are
    widened by Student's t for the degrees of freedom that few seeds and few groups leave (Satterthwaite).

    Args:
        first, second: run records (or sequences of records that differ by seed), for example without and with AU.
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
    values, sample = _measures(change, truth), _clip_draws(change, truth, draws, groups)
    # variances with the degrees of freedom that they were estimated from
    components = [] if groups is None else [(sample.var(axis=0), len(np.unique(groups)) - 1)]
    paired, several_seeds = a.seeds == b.seeds, False
    # unpaired: the first side's spread counts as much as the second's, its sign does not matter
    for stream, signed in enumerate([right[1] - right[0]] if paired else right):
        if len(signed) > 1:
            shift, variance = _seed_draws(signed, truth, draws, stream)
            sample += shift
            components.append((variance, len(signed) - 1))
            several_seeds = True
    variance = sample.var(axis=0)
    freedom = _degrees_of_freedom(variance, components)

    upper = 0.5 + level / 2
    stretch = scipy.stats.t.ppf(upper, freedom) / scipy.stats.norm.ppf(upper)
    ends = np.clip(values + (limits(sample, level) - values) * stretch, -1, 1)
    ends = np.stack([np.minimum(ends[0], values), np.maximum(ends[1], values)])
    what = "clips within classes" if groups is None else f"{len(np.unique(groups))} subjects or videos"
    method = f"paired bootstrap of {what}{' and of seeds' if several_seeds else ''}, {draws:,} draws"
    sizes = np.append(np.bincount(truth, minlength=CLASSES), [len(truth)] * 2)
    *per_class, in_war, in_uar = (
        Interval(value, low, high, int(size), method, level)
        for value, low, high, size in zip(values, *ends, sizes, strict=True)
    )

    if len(a.seeds) == len(b.seeds) == 1:
        test = "exact McNemar" if groups is None else "sign-flip permutation of groups"
        uar_test = "sign-flip permutation" if groups is None else test

        def p_value(chosen) -> float:
            if groups is not None:
                return sign_flip(change[chosen], truth[chosen], "war", draws, groups[chosen])
            return mcnemar(int((change[chosen] > 0).sum()), int((change[chosen] < 0).sum()))

        p = [p_value(truth == k) for k in range(CLASSES)]
        p += [p_value(truth >= 0), sign_flip(change, truth, "uar", draws, groups)]
    else:
        test = uar_test = f"t test over seeds and {'clips' if groups is None else 'groups'}"
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * scipy.stats.t.sf(np.abs(values) / np.sqrt(variance), freedom)
        p = np.where(values == 0, 1.0, p)
    p = np.where(np.isnan(values), np.nan, p).tolist()
    return Comparison(
        war=in_war,
        uar=in_uar,
        war_p=p[-2],
        uar_p=p[-1],
        war_test=test,
        uar_test=uar_test,
        gained=float(change[change > 0].sum()),
        lost=float(-change[change < 0].sum()),
        per_class=tuple(per_class),
        per_class_p=tuple(p[:-2]),
        discordance=_discordance(*right, paired),
        seeds=(len(a.seeds), len(b.seeds)),
    )


def _measures(change: np.ndarray, expressions: np.ndarray) -> np.ndarray:
    """Mean difference in each class, in WAR and in UAR, (9,), of clip-wise differences (N,)."""
    counts = np.bincount(expressions, minlength=CLASSES)
    return _with_totals(ratio(np.bincount(expressions, weights=change, minlength=CLASSES), counts), counts)


def _with_totals(by_class: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Class means (..., 7) with WAR and UAR appended, (..., 9); ``counts`` (..., 7) clips; empty classes are NaN."""
    by_class = np.where(counts > 0, by_class, np.nan)
    total = ratio((np.nan_to_num(by_class) * counts).sum(-1), counts.sum(-1))
    return np.concatenate([by_class, np.stack([total, mean_of_known(by_class)], axis=-1)], axis=-1)


def _clip_draws(change: np.ndarray, expressions: np.ndarray, draws: int, groups: np.ndarray | None) -> np.ndarray:
    """Bootstrap of the clips: (draws, 9) differences in the classes, WAR and UAR; see ``compare``."""
    generator = np.random.default_rng(SEED)
    counts = np.bincount(expressions, minlength=CLASSES)
    if groups is None:
        means = np.zeros((draws, CLASSES))
        for k in np.flatnonzero(counts):
            # drawing clips of a class is drawing how often each value of their difference occurs
            values, times = np.unique(change[expressions == k], return_counts=True)
            drawn = multiplicities(len(values), draws, generator, taken=counts[k], shares=times / counts[k])
            means[:, k] = drawn @ values / counts[k]
        sizes = np.broadcast_to(counts, means.shape)
    else:
        _, index = np.unique(groups, return_inverse=True)
        number, cell = index.max(initial=-1) + 1, index * CLASSES + expressions
        sums, clips = (
            np.bincount(cell, weights=weights, minlength=number * CLASSES).reshape(number, CLASSES)
            for weights in (change, None)
        )
        taken = max(number - 1, 1)  # one fewer than there are: the variance of a mean then has no bias
        pairs = bootstrap(lambda both: both, np.stack([sums, clips], axis=1), draws, generator, taken=taken)
        means, sizes = ratio(pairs[:, 0], pairs[:, 1]), pairs[:, 1]
    sample = _with_totals(means, sizes)
    # half a gained and half a lost clip, unseen: Poisson(1/2) each is what a multinomial with them would draw
    unseen = generator.poisson(0.5, size=(2, draws, CLASSES))
    noise = ratio(unseen[0] - unseen[1], counts)
    sample[:, :CLASSES] += noise
    sample[:, -1] += np.nansum(noise, axis=1) / max(np.count_nonzero(counts), 1)
    # a draw of groups can miss a small class altogether: it then says nothing about that class
    return np.where(np.isnan(sample) & (counts > 0).any(), _measures(change, expressions), sample)


def _seed_draws(signed: np.ndarray, expressions: np.ndarray, draws: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap of the seeds: (draws, 9) deviations from the mean over seeds, and the variance (9,) of that mean.

    Args:
        signed: (S, N) hits, or differences of hits, one row per seed.
    """
    seeds = len(signed)
    by_seed = np.nan_to_num(np.stack([_measures(row, expressions) for row in signed]))
    centre, spread = by_seed.mean(axis=0), by_seed.var(axis=0, ddof=1) / seeds
    # part of that spread is there because a seed's hits on a finite number of clips are noisy: resampling clips has it
    counts = np.bincount(expressions, minlength=CLASSES).astype(float)
    residual = signed - signed.mean(axis=0) - (by_seed - centre)[:, expressions]
    squares = np.bincount(expressions, weights=(residual**2).sum(axis=0), minlength=CLASSES)
    noise = np.nan_to_num(ratio(squares, (seeds - 1) * (counts - 1) * seeds * counts))
    noise = np.array([*noise, noise @ counts**2 / counts.sum() ** 2, noise.sum() / np.count_nonzero(counts) ** 2])
    own = np.sqrt(np.nan_to_num(np.clip(ratio(spread - noise, spread), 0, 1)))
    # S - 1 of S seeds: the variance of their mean is then that of the mean of S, without bias
    weights = multiplicities(seeds, draws, [SEED, stream], taken=seeds - 1, shares=np.full(seeds, 1 / seeds))
    return (weights / (seeds - 1) @ by_seed - centre) * own, spread


def _degrees_of_freedom(variance: np.ndarray, components: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Satterthwaite's degrees of freedom of a sum of variances; infinite where no component limits them."""
    used = np.sum([part**2 / max(freedom, 1.0) for part, freedom in components], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(used > 0, variance**2 / used, np.inf)


def _discordance(first: np.ndarray, second: np.ndarray, paired: bool) -> float:
    if not first.size:
        return float("nan")
    if paired:
        return float(np.mean(first != second))
    # any seed of the one against any of the other
    p, q = first.mean(axis=0), second.mean(axis=0)
    return float(np.mean(p * (1 - q) + q * (1 - p)))


# ------------------------------------------------------------------------------------------------------------ tests
def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar p-value: is the split of the clips on which two networks differ that of a fair coin?

    1.0 if they differ on none.
    """
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flip(change, expressions, metric: str = "uar", draws: int = DRAWS, groups=None) -> float:
    """Two-sided paired permutation p-value of a WAR or UAR difference.

    If the two networks were exchangeable, the sign of each clip's difference would be a fair coin. Clips with the same
    absolute weighted difference count alike, so a draw needs only how many of them are positive: a binomial. With
    ``groups`` it is the sign of each subject's (or video's) summed difference.

    Args:
        change: clip-wise difference of hits ``(N,)`` in [-1, 1].
        expressions: true classes ``(N,)``.
        metric: ``"war"`` weights clips equally, ``"uar"`` weights classes equally.
        groups: ``(N,)`` subject or video of each clip.
    """
    weighted, expressions = np.asarray(change, float), np.asarray(expressions)
    if metric == "uar":
        weighted = weighted * (1 / np.bincount(expressions, minlength=1)[expressions])
    if groups is not None:
        weighted = np.bincount(np.unique(groups, return_inverse=True)[1], weights=weighted)
    weighted = np.round(weighted, 12)
    observed = abs(weighted.sum())
    sizes, times = np.unique(np.abs(weighted[weighted != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    generator, exceeding = np.random.default_rng(SEED), 0
    for block in blocks(draws, len(sizes)):
        positive = generator.binomial(times, 0.5, size=(block, len(times)))
        exceeding += np.sum(np.abs((2 * positive - times) @ sizes) >= observed - 1e-9)
    return float((1 + exceeding) / (1 + draws))


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
