"""How good a network is, how sure we can be of it, and whether two networks differ.

The metrics of the paper (section 4.2): WAR, the share of clips that are right, and UAR, the mean of the class
accuracies. Everything here works on predictions, so any table can be rebuilt from run records alone.

Choices, with their sources:

* **WAR and class accuracies**: Wilson's score interval (Brown, Cai and DasGupta, "Interval estimation for a binomial
  proportion", Statistical Science 2001, recommend it or Jeffreys' for small samples).
* **UAR**: the posterior of the mean of class accuracies, each class having its own Beta(hits + 1/2, misses + 1/2),
  drawn by Monte Carlo (Brodersen, Ong, Stephan and Buhmann, "The balanced accuracy and its posterior distribution",
  ICPR 2010; the 1/2 is Jeffreys' prior). A bootstrap would give a class of three clips, none of them right, no
  uncertainty at all; this does not, and a DFEW test fold has only 29 Disgust clips.
* **Two networks on the same clips**: differences clip by clip. The interval is a paired bootstrap, of clips within
  classes, or of whole subjects or videos where they are known (clips of one person are not independent). With one
  seed a side the p-value of WAR and of a class is McNemar's exact test, that of UAR the sign-flip (paired
  permutation) test of which McNemar's is the case of equal weights. Several comparisons in one table are corrected
  by Holm's method.
* **Several seeds**: seeds times clips are not so many independent observations. ``summary`` averages over seeds clip
  by clip and its intervals speak about clips. ``compare`` draws clips *and* seeds again, so that its interval and its
  p-value speak about training again as well; with few seeds Student's t widens them. With one seed nothing is known
  about training again, and the result is about these two trained networks only.
* **Calibration**: expected calibration error over 15 equal bins of the top probability (Guo, Pleiss, Sun and
  Weinberger, "On calibration of modern neural networks", ICML 2017), beside what a perfectly calibrated network of
  the same confidences would show on as many clips (consistency resampling: Broecker and Smith, "Increasing the
  reliability of reliability diagrams", Weather and Forecasting 2007), and Brier's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from ..errors import InputError
from ..facs import ACTION_UNITS, EXPRESSIONS

LEVEL = 0.95
DRAWS = 10_000
PROTOCOLS = ("last", "best-on-validation", "best-on-test")
_SEED = 20260101  # of every Monte Carlo here: the same predictions give the same digits


# ---------------------------------------------------------------------------------------------------------- metrics
def confusion_matrix(expressions, predictions, num_classes: int = len(EXPRESSIONS)) -> np.ndarray:
    """Counts of clips: row = true class, column = predicted class.

    Args:
        expressions: true classes ``(N,)``, integers from 0.
        predictions: predicted classes ``(N,)``.
        num_classes: classes without a clip keep their (empty) row.

    Returns:
        ``(num_classes, num_classes)`` int64.

    Raises:
        InputError: the lengths differ or a class lies outside ``0 .. num_classes - 1``.
    """
    truth, guess = (
        _classes(expressions, "expressions", num_classes),
        _classes(predictions, "predictions", num_classes),
    )
    if truth.shape != guess.shape:
        raise InputError(
            "confusion_matrix", "predictions", f"{len(guess)} of them", f"{len(truth)}, one for each true class"
        )
    return np.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(expressions, predictions, num_classes: int = len(EXPRESSIONS)) -> np.ndarray:
    """Share of each class's clips that are right, ``(num_classes,)`` in [0, 1]; NaN for a class without clips."""
    counts = confusion_matrix(expressions, predictions, num_classes)
    return _ratio(np.diag(counts), counts.sum(axis=1))


def war(expressions, predictions) -> float:
    """Weighted average recall: the share of clips that are right, in [0, 1]; NaN without clips (section 4.2)."""
    truth, guess = np.asarray(expressions), np.asarray(predictions)
    return float(np.mean(truth == guess)) if len(truth) else float("nan")


def uar(expressions, predictions, num_classes: int = len(EXPRESSIONS)) -> float:
    """Unweighted average recall: the mean of the class accuracies, in [0, 1] (section 4.2).

    Classes without test clips have no accuracy and are left out of the mean (``summary`` names them); NaN if none is
    left.
    """
    accuracy = per_class_accuracy(expressions, predictions, num_classes)
    return float(np.nanmean(accuracy)) if np.isfinite(accuracy).any() else float("nan")


def _classes(values, field: str, num_classes: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError("evaluation", field, f"an array of shape {array.shape}", "one class a clip, shape (N,)")
    if len(array) and (array.min() < 0 or array.max() >= num_classes):
        raise InputError(
            "evaluation",
            field,
            f"classes from {array.min()} to {array.max()}",
            f"classes from 0 to {num_classes - 1}",
        )
    return array.astype(np.int64)


def _ratio(part, whole) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


# -------------------------------------------------------------------------------------------------------- intervals
@dataclass(frozen=True)
class Interval:
    """A number with its uncertainty.

    Attributes:
        value, low, high: fractions (WAR 0.653 is 65.3 %), NaN where there was no clip.
        count: clips behind it.
        method: how the limits were made.
        level: probability content.
    """

    value: float
    low: float
    high: float
    count: int
    method: str
    level: float = LEVEL

    def percent(self, digits: int = 1, signed: bool = False) -> str:
        """Text such as ``65.3 [63.3, 67.2]`` in percent (points); an em dash when there is no value."""
        if not np.isfinite(self.value):
            return "—"
        sign = "+" if signed else ""
        value, low, high = (format(100 * x, f"{sign}.{digits}f") for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return self.percent()


def wilson_interval(hits, count, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval for ``hits`` of ``count``, elementwise.

    The same numbers as ``scipy.stats.binomtest(...).proportion_ci(method="wilson")``, but for whole arrays and for
    the fractional hits that averaging over seeds gives. NaN where ``count`` is 0.
    """
    hits, count = np.asarray(hits, float), np.asarray(count, float)
    z = scipy.stats.norm.ppf(0.5 + level / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / count
        centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # rounding leaves 1e-17 instead of 0 at the ends
    return np.where(hits == 0, 0.0, np.clip(centre - half, 0, 1)) + 0 * share, np.where(
        hits == count, 1.0, np.clip(centre + half, 0, 1)
    ) + 0 * share


def exact_interval(hits, count, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's exact binomial interval for ``hits`` of ``count``, elementwise; NaN where ``count`` is 0.

    Wider than Wilson's: it never covers less often than it says, which is what judging somebody else's number asks for.
    """
    hits, count = np.asarray(hits, float), np.asarray(count, float)
    tail = (1 - level) / 2
    low = np.where(hits == 0, 0.0, scipy.stats.beta.ppf(tail, hits, count - hits + 1))
    high = np.where(hits == count, 1.0, scipy.stats.beta.ppf(1 - tail, hits + 1, count - hits))
    return np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan)


def proportion_interval(hits: float, count: int, level: float = LEVEL) -> Interval:
    """``Interval`` of a share (WAR or one class) by Wilson's method."""
    low, high = wilson_interval(hits, count, level)
    return Interval(float(_ratio(hits, count)), float(low), float(high), int(count), "Wilson score interval", level)


def mean_recall_interval(hits, counts, level: float = LEVEL, draws: int = 2 * DRAWS) -> Interval:
    """``Interval`` of UAR: the mean of class-wise Beta posteriors with Jeffreys' prior, by Monte Carlo.

    Args:
        hits: right clips a class, ``(K,)``; may be fractional (mean over seeds).
        counts: clips a class, ``(K,)``; classes with 0 are left out, as in ``uar``.
        draws: Monte Carlo size; 20,000 leaves about 0.05 points of noise in a limit, and the seed is fixed.

    The posterior of a small class leans towards 1/2, so limits are widened, where needed, to include the value
    itself.
    """
    hits, counts = np.asarray(hits, float), np.asarray(counts, float)
    seen = counts > 0
    method = "Monte Carlo of class-wise Beta posteriors, Jeffreys prior"
    if not seen.any():
        return Interval(float("nan"), float("nan"), float("nan"), 0, method, level)
    hits, counts = hits[seen], counts[seen]
    value = float(np.mean(hits / counts))
    sample = np.random.default_rng(_SEED).beta(hits + 0.5, counts - hits + 0.5, size=(draws, len(hits))).mean(axis=1)
    low, high = np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, min(float(low), value), max(float(high), value), int(counts.sum()), method, level)


# ---------------------------------------------------------------------------------------------------- run records
@dataclass(frozen=True)
class Predictions:
    """What one cell said about the test clips, one row a seed.

    Attributes:
        clip_ids: ``N`` names.
        expressions: true classes ``(N,)``.
        predicted: ``(S, N)`` classes, one row a seed.
        seeds: ``S`` seeds.
        epochs: ``S`` epochs (numbered as in ``history``) the predictions are from.
        protocol: one of ``PROTOCOLS``.
        groups: ``(N,)`` subject or video of each clip, or ``None`` where it is not known.
    """

    clip_ids: tuple[str, ...]
    expressions: np.ndarray
    predicted: np.ndarray
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    protocol: str
    groups: np.ndarray | None = None

    @property
    def hits(self) -> np.ndarray:
        """``(N,)`` share of seeds that got each clip right (0 or 1 with one seed)."""
        return (self.predicted == self.expressions).mean(axis=0)

    def class_counts(self) -> np.ndarray:
        """``(7,)`` test clips a class."""
        return np.bincount(self.expressions, minlength=len(EXPRESSIONS))

    def class_hits(self) -> np.ndarray:
        """``(7,)`` right clips a class (mean over seeds)."""
        return np.bincount(self.expressions, weights=self.hits, minlength=len(EXPRESSIONS))


def predictions(records, protocol: str = "last") -> Predictions:
    """Predictions of one cell: one record, or several that differ by seed.

    Args:
        records: a run record or a sequence of them (attributes ``clip_ids, expressions, scores, best_scores,
            best_epoch, history, cell``, and ``groups`` where subjects or videos are known).
        protocol: ``"last"`` epoch; ``"best-on-validation"``: the epoch chosen on training clips that were held out; or
            ``"best-on-test"``: chosen by looking at the test clips, which flatters; reported because the field reports
            it, always under this name.

    Raises:
        InputError: unknown protocol, no record, scores of the wrong shape or not finite, records over different
            clips, or without validation clips.
    """
    if protocol not in PROTOCOLS:
        raise InputError("predictions", "protocol", repr(protocol), " or ".join(map(repr, PROTOCOLS)))
    group = list(records) if isinstance(records, Sequence) else [records]
    if not group:
        raise InputError("predictions", "records", "none", "at least one run record")
    clip_ids, truth = tuple(group[0].clip_ids), _classes(group[0].expressions, "expressions", len(EXPRESSIONS))
    rows, seeds, epochs = [], [], []
    for record in group:
        if tuple(record.clip_ids) != clip_ids or not np.array_equal(record.expressions, truth):
            raise InputError(
                record.path, "clip_ids and expressions", "other clips than the first record's", "the same test clips"
            )
        scores, epoch = _chosen(record, protocol)
        if scores.shape != (len(truth), len(EXPRESSIONS)) or not np.isfinite(scores).all():
            raise InputError(
                record.path,
                "scores",
                f"shape {scores.shape}, finite: {bool(np.isfinite(scores).all())}",
                f"finite numbers of shape {(len(truth), len(EXPRESSIONS))}",
            )
        rows.append(scores.argmax(axis=1))
        seeds.append(int(record.cell.get("seed", 0)))
        epochs.append(epoch)
    groups = getattr(group[0], "groups", None)
    groups = None if groups is None else _groups(groups, len(truth), group[0].path)
    return Predictions(clip_ids, truth, np.stack(rows), tuple(seeds), tuple(epochs), protocol, groups)


def _chosen(record, protocol: str) -> tuple[np.ndarray, int]:
    """Test scores ``(N, 7)`` of the epoch that the protocol chooses, and that epoch."""
    if protocol == "last":
        return np.asarray(record.scores), int(record.history["epoch"].iloc[-1]) if len(record.history) else -1
    if protocol == "best-on-test":
        return np.asarray(record.best_scores), int(record.best_epoch)
    if getattr(record, "validated_scores", None) is None:
        raise InputError(
            record.path, "validation clips", "none", "a cell with validation above 0 for best-on-validation"
        )
    return np.asarray(record.validated_scores), int(record.validated_epoch)


def _groups(groups, count: int, where) -> np.ndarray:
    array = np.asarray(groups)
    if array.shape != (count,):
        raise InputError(where, "groups", f"shape {array.shape}", f"one subject or video a clip, shape ({count},)")
    return array


@dataclass(frozen=True)
class Summary:
    """Every number of one cell: see ``summary``."""

    war: Interval
    uar: Interval
    per_class: tuple[Interval, ...]
    confusion: np.ndarray
    classes_without_clips: tuple[str, ...]
    war_by_seed: tuple[float, ...]
    uar_by_seed: tuple[float, ...]
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    protocol: str

    @property
    def count(self) -> int:
        """Test clips."""
        return self.war.count


def summary(record, protocol: str = "last", level: float = LEVEL) -> Summary:
    """WAR, UAR and class accuracies with intervals, and the confusion matrix, of one record or of one cell's seeds.

    Args:
        record: a run record, or a sequence of records that differ by seed only.
        protocol: see ``predictions``.

    Returns:
        ``Summary``. ``confusion`` sums over the seeds; ``classes_without_clips`` names the classes that UAR leaves
        out.

    Example:
        >>> str(summary(record).war)                                                                # doctest: +SKIP
        '61.3 [54.4, 67.7]'
    """
    said = predictions(record, protocol)
    counts, hits = said.class_counts(), said.class_hits()
    return Summary(
        war=proportion_interval(hits.sum(), int(counts.sum()), level),
        uar=mean_recall_interval(hits, counts, level),
        per_class=tuple(proportion_interval(h, c, level) for h, c in zip(hits, counts, strict=True)),
        confusion=sum(confusion_matrix(said.expressions, row) for row in said.predicted),
        classes_without_clips=tuple(name for name, c in zip(EXPRESSIONS, counts, strict=True) if c == 0),
        war_by_seed=tuple(war(said.expressions, row) for row in said.predicted),
        uar_by_seed=tuple(uar(said.expressions, row) for row in said.predicted),
        seeds=said.seeds,
        epochs=said.epochs,
        protocol=protocol,
    )


# ------------------------------------------------------------------------------------------------------ comparisons
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
    groups = a.groups if groups is None else _groups(groups, len(a.expressions), "compare")
    truth, change = a.expressions, b.hits - a.hits
    values = _measures(change, truth)
    sample = _clip_draws(change, truth, draws, groups)
    components = []
    if groups is not None:
        components.append((sample.var(axis=0), len(np.unique(groups)) - 1))
    right = [(p.predicted == truth).astype(float) for p in (a, b)]
    paired = a.seeds == b.seeds
    for number, signed in enumerate([right[1] - right[0]] if paired else right):
        if len(signed) > 1:
            # unpaired: the first side's spread counts as much as the second's, its sign does not matter
            shift, variance = _seed_draws(signed, truth, draws, number)
            sample += shift
            components.append((variance, len(signed) - 1))
    variance = sample.var(axis=0)
    freedom = _degrees_of_freedom(variance, components)
    intervals = _intervals(values, sample, freedom, level, truth, draws, groups, len(components) > (groups is not None))

    known = np.bincount(truth, minlength=len(EXPRESSIONS)) > 0
    one_seed = len(a.seeds) == len(b.seeds) == 1
    if one_seed:
        test = "exact McNemar" if groups is None else "sign-flip permutation of groups"
        flips = "sign-flip permutation" if groups is None else test
        everywhere = np.ones(len(truth), bool)

        def counts_p(chosen) -> float:
            if groups is not None:
                return sign_flip(change[chosen], truth[chosen], "war", draws, groups[chosen])
            return mcnemar(int((change[chosen] > 0).sum()), int((change[chosen] < 0).sum()))

        p = [counts_p(truth == k) if known[k] else np.nan for k in range(len(EXPRESSIONS))]
        p += [counts_p(everywhere), sign_flip(change, truth, "uar", draws, groups)]
    else:
        test = flips = "t test over seeds and " + ("clips" if groups is None else "groups")
        p = _t_test(values, variance, freedom)
    return Comparison(
        war=intervals[-2],
        uar=intervals[-1],
        war_p=float(p[-2]),
        uar_p=float(p[-1]),
        war_test=test,
        uar_test=flips,
        gained=float(change[change > 0].sum()),
        lost=float(-change[change < 0].sum()),
        per_class=tuple(intervals[:-2]),
        per_class_p=tuple(float(value) for value in p[:-2]),
        discordance=float(_discordance(*right, paired)) if len(truth) else float("nan"),
        seeds=(len(a.seeds), len(b.seeds)),
    )


def _measures(change: np.ndarray, expressions: np.ndarray) -> np.ndarray:
    """Mean difference in each class, in WAR and in UAR, (9,), of clip-wise differences (N,)."""
    counts = np.bincount(expressions, minlength=len(EXPRESSIONS))
    return _with_totals(_ratio(np.bincount(expressions, weights=change, minlength=len(EXPRESSIONS)), counts), counts)


def _with_totals(by_class: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Class means (..., 7) with WAR and UAR appended, (..., 9); ``counts`` (..., 7) clips; empty classes are NaN."""
    seen = counts > 0
    filled = np.where(seen, by_class, 0.0)
    totals = [_ratio((filled * counts).sum(-1), counts.sum(-1)), _ratio(filled.sum(-1), seen.sum(-1))]
    return np.concatenate([np.where(seen, by_class, np.nan), np.stack(totals, axis=-1)], axis=-1)


def _clip_draws(change: np.ndarray, expressions: np.ndarray, draws: int, groups: np.ndarray | None) -> np.ndarray:
    """Bootstrap of the clips: (draws, 9) differences in the classes, WAR and UAR; see ``compare``."""
    generator = np.random.default_rng(_SEED)
    classes = len(EXPRESSIONS)
    counts = np.bincount(expressions, minlength=classes)
    if groups is None:
        means = np.zeros((draws, classes))
        for k in np.flatnonzero(counts):
            # drawing clips of a class is drawing how often each value of their difference occurs
            values, times = np.unique(change[expressions == k], return_counts=True)
            means[:, k] = generator.multinomial(counts[k], times / counts[k], size=draws) @ values / counts[k]
        sizes = np.broadcast_to(counts, means.shape)
    else:
        _, index = np.unique(groups, return_inverse=True)
        number, cell = index.max(initial=-1) + 1, index * classes + expressions
        sums = np.bincount(cell, weights=change, minlength=number * classes).reshape(number, classes)
        clips = np.bincount(cell, minlength=number * classes).reshape(number, classes)
        taken = max(number - 1, 1)  # one fewer than there are: the variance of a mean then has no bias
        pieces = []
        for size in _blocks(draws, 2**22 // max(number, 1)):
            picks = generator.integers(0, number, size=(size, taken)) + number * np.arange(size)[:, None]
            times = np.bincount(picks.ravel(), minlength=size * number).reshape(size, number).astype(float)
            pieces.append((times @ sums, times @ clips))
        total, sizes = (np.concatenate(part) for part in zip(*pieces, strict=True))
        means = _ratio(total, sizes)
    sample = _with_totals(means, sizes)
    # half a gained and half a lost clip, unseen: Poisson(1/2) each is what a multinomial with them would draw
    unseen = generator.poisson(0.5, size=(2, draws, classes))
    noise = _ratio(unseen[0] - unseen[1], np.broadcast_to(counts, means.shape))
    sample[:, :classes] += noise
    sample[:, -1] += np.nansum(noise, axis=1) / max(np.count_nonzero(counts), 1)
    # a draw of groups can miss a small class altogether: it then says nothing about that class
    return np.where(np.isnan(sample) & (counts > 0).any(), _measures(change, expressions), sample)


def _blocks(total: int, size: int) -> list[int]:
    size = max(1, min(size, total))
    return [size] * (total // size) + ([total % size] if total % size else [])


def _seed_draws(signed: np.ndarray, expressions: np.ndarray, draws: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap of the seeds: (draws, 9) deviations from the mean over seeds, and the variance (9,) of that mean.

    Args:
        signed: (S, N) hits, or differences of hits, one row a seed.
    """
    seeds = len(signed)
    by_seed = np.nan_to_num(np.stack([_measures(row, expressions) for row in signed]))
    centre, spread = by_seed.mean(axis=0), by_seed.var(axis=0, ddof=1) / seeds
    # part of that spread is there because a seed's hits on a finite number of clips are noisy: resampling clips has it
    counts = np.bincount(expressions, minlength=len(EXPRESSIONS)).astype(float)
    residual = signed - signed.mean(axis=0) - (by_seed - centre)[:, expressions]
    squares = np.bincount(expressions, weights=(residual**2).sum(axis=0), minlength=len(EXPRESSIONS))
    noise = np.nan_to_num(_ratio(squares, (seeds - 1) * (counts - 1) * seeds * counts))
    noise = np.array([*noise, noise @ counts**2 / counts.sum() ** 2, noise.sum() / np.count_nonzero(counts) ** 2])
    own = np.sqrt(np.nan_to_num(np.clip(_ratio(spread - noise, spread), 0, 1)))
    generator = np.random.default_rng([_SEED, stream])
    # S - 1 of S seeds: the variance of their mean is then that of the mean of S, without bias
    weights = generator.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws) / (seeds - 1)
    return (weights @ by_seed - centre) * own, spread


def _degrees_of_freedom(variance: np.ndarray, components: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Satterthwaite's degrees of freedom of a sum of variances; infinite where no component limits them."""
    used = sum(
        (_ratio(part**2, np.full(part.shape, max(freedom, 1.0))) for part, freedom in components),
        np.zeros(len(variance)),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(used > 0, variance**2 / used, np.inf)


def _intervals(values, sample, freedom, level, expressions, draws, groups, by_seed) -> list[Interval]:
    counts = np.bincount(expressions, minlength=len(EXPRESSIONS))
    what = "clips within classes" if groups is None else f"{len(np.unique(groups))} subjects or videos"
    method = f"paired bootstrap of {what}{' and of seeds' if by_seed else ''}, {draws:,} draws"
    upper = 0.5 + level / 2
    stretch = scipy.stats.t.ppf(upper, freedom) / scipy.stats.norm.ppf(upper)
    limits = np.quantile(sample, [1 - upper, upper], axis=0)
    limits = np.clip(values + (limits - values) * stretch, -1, 1)
    sizes = [*counts, len(expressions), len(expressions)]
    return [
        Interval(float(v), float(min(low, v)), float(max(high, v)), int(n), method, level)
        if np.isfinite(v)
        else Interval(float("nan"), float("nan"), float("nan"), 0, method, level)
        for v, low, high, n in zip(values, *limits, sizes, strict=True)
    ]


def _t_test(values, variance, freedom) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(values) / np.sqrt(variance)
    p = 2 * scipy.stats.t.sf(t, freedom)
    return np.where(np.isnan(values), np.nan, np.where(values == 0, 1.0, p))


def _discordance(first: np.ndarray, second: np.ndarray, paired: bool) -> float:
    if paired:
        return np.mean(first != second)
    # any seed of the one against any of the other
    p, q = first.mean(axis=0), second.mean(axis=0)
    return np.mean(p * (1 - q) + q * (1 - p))


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
    change, expressions = np.asarray(change, float), np.asarray(expressions)
    counts = np.bincount(expressions, minlength=1)
    weighted = change * (1 / counts[expressions] if metric == "uar" else np.ones(len(change)))
    if groups is not None:
        weighted = np.bincount(np.unique(groups, return_inverse=True)[1], weights=weighted)
    weighted = np.round(weighted, 12)
    observed = abs(weighted.sum())
    sizes, times = np.unique(np.abs(weighted[weighted != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    generator = np.random.default_rng(_SEED)
    exceeding = 0
    for block in _blocks(draws, 2**22 // len(sizes)):
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
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


# ------------------------------------------------------------------------------------- how small a difference can be
# seen
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
    if not len(counts):
        return 0.0
    return float(counts.sum() if metric == "war" else len(counts) ** 2 / (1 / counts).sum())


def minimum_detectable_difference(count: float, discordance: float, power: float = 0.8, level: float = LEVEL) -> float:
    """Smallest true difference that McNemar's test finds with the given power.

    Connor's formula ("Sample size for testing differences in proportions for the paired-sample design", Biometrics
    1987), ``n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2``, solved for d:
    ``d = sqrt(psi) (z_a sqrt(n) + z_b sqrt(n + z_b^2 - z_a^2)) / (n + z_b^2)``, with psi the discordance, z_a the
    normal quantile of 1 - (1 - level) / 2 and z_b that of the power. One seed a side; training again adds to it.

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
    for name, value, top in (("discordance", discordance, 1.0), ("power", power, 0.9999)):
        if not 0 < value <= top:
            raise InputError("minimum_detectable_difference", name, value, "a share above 0 and up to 1")
    z_a, z_b = scipy.stats.norm.ppf(0.5 + level / 2), scipy.stats.norm.ppf(power)
    inside = count + z_b**2 - z_a**2
    if inside <= 0:
        return float("nan")
    difference = np.sqrt(discordance) * (z_a * np.sqrt(count) + z_b * np.sqrt(inside)) / (count + z_b**2)
    return float(difference) if difference <= discordance else float("nan")


# -------------------------------------------------------------------------------------------------------- calibration
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as it says.

    Attributes:
        ece: expected calibration error, mean over clips of |accuracy - confidence| of the clip's bin, in [0, 1].
        ece_if_calibrated: 95 % limit of the same number for a network that is right exactly as often as it says, on
            as many clips: an ECE below it is no evidence of anything.
        brier: Brier's score summed over the classes, 0 (best) to 2, with its interval over clips.
        bins: the reliability diagram, one row a bin: low, high (of the top probability), clips, confidence, accuracy,
            accuracy_low, accuracy_high (Wilson); NaN in empty bins.
        method: how the bins were made.
    """

    ece: float
    ece_if_calibrated: float
    brier: Interval
    bins: pd.DataFrame
    method: str


def calibration(
    record, protocol: str = "last", bins: int = BINS, level: float = LEVEL, draws: int = 2000
) -> Calibration:
    """Expected calibration error, reliability diagram and Brier's score of one record or of one cell's seeds.

    The bins are equal parts of (0, 1] for the top probability. Seeds are averaged (each seed's clips fill the bins,
    and a bin's interval counts clips, not seeds times clips).

    Args:
        record: a run record or a sequence of records that differ by seed.
        protocol: see ``predictions``.
        draws: simulated perfectly calibrated networks behind ``ece_if_calibrated``.
    """
    said = predictions(record, protocol)
    group = list(record) if isinstance(record, Sequence) else [record]
    scores = np.stack([_chosen(r, protocol)[0].astype(float) for r in group])
    right = (said.predicted == said.expressions).astype(float)
    confidence = np.take_along_axis(scores, said.predicted[..., None], axis=-1)[..., 0]
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)

    def mean_gap(outcome: np.ndarray) -> np.ndarray:
        """ECE, mean over seeds, for outcomes (..., S, N)."""
        total = np.zeros(outcome.shape[:-2])
        for seed in range(len(group)):
            sums = (outcome[..., seed, :] - confidence[seed]) @ np.eye(bins)[place[seed]]
            total = total + np.abs(sums).sum(axis=-1)
        return total / max(confidence.size, 1)

    generator = np.random.default_rng(_SEED)
    null = [
        mean_gap(generator.random((block, *confidence.shape)) < confidence)
        for block in _blocks(draws, 2**22 // max(confidence.size, 1))
    ]
    number = np.bincount(place.ravel(), minlength=bins) / len(group)
    hits = np.bincount(place.ravel(), weights=right.ravel(), minlength=bins) / len(group)
    low, high = wilson_interval(hits, number, level)
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "clips": number,
            "confidence": _ratio(
                np.bincount(place.ravel(), weights=confidence.ravel(), minlength=bins) / len(group), number
            ),
            "accuracy": _ratio(hits, number),
            "accuracy_low": low,
            "accuracy_high": high,
        }
    )
    squares = ((scores - np.eye(len(EXPRESSIONS))[said.expressions]) ** 2).sum(axis=-1).mean(axis=0)
    return Calibration(
        ece=float(mean_gap(right)),
        ece_if_calibrated=float(np.quantile(np.concatenate(null), level)),
        brier=_mean_interval(squares, level),
        bins=table,
        method=f"{bins} bins of equal width of the top probability",
    )


def _mean_interval(values: np.ndarray, level: float) -> Interval:
    """Mean of clip-wise numbers with Student's interval."""
    mean = float(np.mean(values)) if len(values) else float("nan")
    half = (
        float(scipy.stats.t.ppf(0.5 + level / 2, len(values) - 1) * scipy.stats.sem(values))
        if len(values) > 1
        else float("nan")
    )
    return Interval(mean, mean - half, mean + half, len(values), "Student's t over clips", level)


# ------------------------------------------------------------------------------------------------------- AU head
def presence_quality(labels, presence, groups=None, level: float = LEVEL, draws: int = 2000) -> pd.DataFrame:
    """How well AUs are found: F1 of each with its interval.

    Args:
        labels: ``(N, 18)`` 0, 1 or NaN (not known, not counted).
        presence: ``(N, 18)`` predictions: 0 and 1, or probabilities (present from 0.5 on); ``(S, N, 18)`` for several
            seeds, whose F1 are averaged.
        groups: ``(N,)`` subject or video of each clip, drawn again as a whole; ``None``: every clip for itself.

    Returns:
        One row an AU: action_unit, f1, f1_low, f1_high (percentile bootstrap), precision, recall, base_rate,
        f1_always (of saying "present" always: 2 b / (1 + b)), clips (known ones). NaN where undefined: an AU that is
        neither present nor predicted has no F1.

    Raises:
        InputError: shapes that do not fit.
    """
    labels, presence = np.asarray(labels, float), np.asarray(presence, float)
    presence = presence[None] if presence.ndim == 2 else presence
    if labels.ndim != 2 or labels.shape[1] != len(ACTION_UNITS) or presence.shape[1:] != labels.shape:
        raise InputError(
            "presence_quality",
            "shapes of labels and presence",
            f"{labels.shape} and {presence.shape[1:]}",
            f"(clips, {len(ACTION_UNITS)}) both",
        )
    sums = presence_counts(labels, presence, groups)
    low, high = _quantiles(_resampled_f1(sums, draws), level)
    total = sums.sum(axis=0)
    hits, false, missed = total.mean(axis=1)
    known = ~np.isnan(labels)
    base = _ratio((known & (labels > 0.5)).sum(axis=0), known.sum(axis=0))
    return pd.DataFrame(
        {
            "action_unit": ACTION_UNITS,
            "f1": _f1(total),
            "f1_low": low,
            "f1_high": high,
            "precision": _ratio(hits, hits + false),
            "recall": _ratio(hits, hits + missed),
            "base_rate": base,
            "f1_always": _ratio(2 * base, 1 + base),
            "clips": known.sum(axis=0),
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
    number = len(labels)
    groups = np.arange(number) if groups is None else _groups(groups, number, "presence_counts")
    unit = np.unique(groups, return_inverse=True)[1]
    known = ~np.isnan(labels)
    truth, guess = known & (labels > 0.5), known & (presence >= 0.5)
    sums = np.zeros((unit.max(initial=-1) + 1, 3, *presence.shape[::2]))
    for j, kind in enumerate((truth & guess, ~truth & guess, truth & ~guess)):
        np.add.at(sums[:, j], unit, kind.transpose(1, 0, 2))
    return sums


def _f1(counts: np.ndarray) -> np.ndarray:
    """F1 from counts (..., 3, S, C), mean over the seeds that have one: (..., C), NaN where none has."""
    scores = _ratio(2 * counts[..., 0, :, :], 2 * counts[..., 0, :, :] + counts[..., 1, :, :] + counts[..., 2, :, :])
    defined = np.isfinite(scores)
    return _ratio(np.where(defined, scores, 0).sum(axis=-2), defined.sum(axis=-2))


def _resampled_f1(sums: np.ndarray, draws: int) -> np.ndarray:
    """(draws, C) F1 of bootstrap samples of whole groups.

    The same groups are drawn for every array of as many groups.
    """
    generator = np.random.default_rng(_SEED)
    sample = []
    for block in _blocks(draws, 2**22 // max(len(sums), 1)):
        picks = generator.integers(0, max(len(sums), 1), size=(block, len(sums)))
        picks += len(sums) * np.arange(block)[:, None]
        times = np.bincount(picks.ravel(), minlength=block * len(sums)).reshape(block, len(sums)).astype(float)
        sample.append(_f1((times @ sums.reshape(len(sums), -1)).reshape(block, *sums.shape[1:])))
    return np.concatenate(sample)


def _with_mean(f1: np.ndarray) -> np.ndarray:
    """F1 of C AUs (..., C) -> (..., C + 1), the last one their mean over the AUs that have one."""
    defined = np.isfinite(f1)
    mean = _ratio(np.where(defined, f1, 0).sum(axis=-1), defined.sum(axis=-1))
    return np.concatenate((f1, mean[..., None]), axis=-1)


def f1_intervals(counts: np.ndarray, level: float = LEVEL, draws: int = 2000) -> list[Interval]:
    """F1 of each AU and, last, their mean, with percentile bootstrap intervals over groups.

    Args:
        counts: from ``presence_counts``.
    """
    low, high = _quantiles(_with_mean(_resampled_f1(counts, draws)), level)
    return [
        Interval(float(v), float(a), float(b), len(counts), "bootstrap over groups", level)
        for v, a, b in zip(_with_mean(_f1(counts.sum(axis=0))), low, high, strict=True)
    ]


def compare_f1(
    first: np.ndarray, second: np.ndarray, level: float = LEVEL, draws: int = DRAWS
) -> tuple[list[Interval], np.ndarray]:
    """F1 of ``second`` minus that of ``first`` on the same rows, for each AU and, last, for their mean.

    The interval is a paired bootstrap: the same groups are drawn for both. The p-value is that of approximate
        randomisation
    (Noreen, "Computer-intensive methods for testing hypotheses", Wiley 1989): if the two were exchangeable, which of
    them gave a group's predictions would be a fair coin. With one seed a side both are about these trained networks
    only.

    Args:
        first, second: from ``presence_counts`` of the same labels and groups, with as many seeds.

    Returns:
        (C + 1 intervals, (C + 1,) two-sided p-values); NaN where one of the two has no F1.

    Raises:
        InputError: shapes that differ.
    """
    if first.shape != second.shape:
        raise InputError("compare_f1", "shape of the second counts", second.shape, f"that of the first, {first.shape}")
    groups = len(first)
    # the mean of differences, not the difference of means: an AU without F1 on one side counts on neither
    found = _with_mean(_f1(second.sum(axis=0)) - _f1(first.sum(axis=0)))
    low, high = _quantiles(_with_mean(_resampled_f1(second, draws) - _resampled_f1(first, draws)), level)
    generator = np.random.default_rng(_SEED)
    change, total = (second - first).reshape(groups, -1), first.sum(axis=0) + second.sum(axis=0)
    exceeding = np.zeros(len(found))
    for block in _blocks(draws, 2**22 // max(groups, 1)):
        swapped = first.sum(axis=0) + (generator.integers(0, 2, (block, groups)).astype(float) @ change).reshape(
            block, *first.shape[1:]
        )
        chance = _with_mean(_f1(total - swapped) - _f1(swapped))
        exceeding += (np.abs(chance) >= np.abs(found) - 1e-12).sum(axis=0)
    p = np.where(np.isfinite(found), (1 + exceeding) / (1 + draws), np.nan)
    return [
        Interval(float(v), float(a), float(b), groups, "paired bootstrap over groups", level)
        for v, a, b in zip(found, low, high, strict=True)
    ], p


def _quantiles(sample: np.ndarray, level: float) -> np.ndarray:
    """Both limits of each column, (2, columns), of its finite values; NaN where there is none."""
    limits = np.full((2, sample.shape[1]), np.nan)
    for j, column in enumerate(sample.T):
        finite = column[np.isfinite(column)]
        if len(finite):
            limits[:, j] = np.quantile(finite, [0.5 - level / 2, 0.5 + level / 2])
    return limits


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
    group = list(record) if isinstance(record, Sequence) else [record]
    for one in group:
        if one.au_scores is None:
            raise InputError(one.path, "au_scores", "none", "a record of a cell with an AU head")
    labels = getattr(group[0], "au_labels", None) if labels is None else labels
    if labels is None:
        raise InputError(group[0].path, "au_labels", "none", "clip AU labels in the record or as an argument")
    groups = getattr(group[0], "groups", None) if groups is None else groups
    return presence_quality(labels, np.stack([one.au_scores for one in group]), groups, level)
