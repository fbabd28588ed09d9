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
* **Two networks on the same clips**: differences clip by clip. The interval is a paired bootstrap within classes; the
  p-value of WAR is McNemar's exact test, that of UAR the sign-flip (paired permutation) test of which McNemar's is
  the case of equal weights. Several comparisons in one table are corrected by Holm's method.
* **Several seeds**: predictions are averaged clip by clip first, because the clip is what was sampled; seeds times
  clips are not so many independent observations. The intervals therefore speak about clips, not about seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .errors import InputError
from .facs import EXPRESSIONS

LEVEL = 0.95
DRAWS = 10_000
PROTOCOLS = ("last", "best-on-test")
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
    z = stats.norm.ppf(0.5 + level / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / count
        centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # rounding leaves 1e-17 instead of 0 at the ends
    return np.where(hits == 0, 0.0, np.clip(centre - half, 0, 1)) + 0 * share, np.where(
        hits == count, 1.0, np.clip(centre + half, 0, 1)
    ) + 0 * share


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
        protocol: ``"last"`` or ``"best-on-test"``.
    """

    clip_ids: tuple[str, ...]
    expressions: np.ndarray
    predicted: np.ndarray
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    protocol: str

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
            best_epoch, history, cell``).
        protocol: ``"last"`` epoch, or ``"best-on-test"``: the epoch chosen by looking at the test clips, which
            flatters; reported because the field reports it, always under this name.

    Raises:
        InputError: unknown protocol, no record, scores of the wrong shape or not finite, or records over different
            clips.
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
        scores = np.asarray(record.scores if protocol == "last" else record.best_scores)
        if scores.shape != (len(truth), len(EXPRESSIONS)) or not np.isfinite(scores).all():
            raise InputError(
                record.path,
                "scores",
                f"shape {scores.shape}, finite: {bool(np.isfinite(scores).all())}",
                f"finite numbers of shape {(len(truth), len(EXPRESSIONS))}",
            )
        rows.append(scores.argmax(axis=1))
        seeds.append(int(record.cell.get("seed", 0)))
        last = int(record.history["epoch"].iloc[-1]) if len(record.history) else -1
        epochs.append(last if protocol == "last" else int(record.best_epoch))
    return Predictions(clip_ids, truth, np.stack(rows), tuple(seeds), tuple(epochs), protocol)


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
        per_class=tuple(proportion_interval(h, c, level) for h, c in zip(hits, counts)),
        confusion=sum(confusion_matrix(said.expressions, row) for row in said.predicted),
        classes_without_clips=tuple(name for name, c in zip(EXPRESSIONS, counts) if c == 0),
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
    """

    war: Interval
    uar: Interval
    war_p: float
    uar_p: float
    war_test: str
    uar_test: str
    gained: float
    lost: float


def compare(first, second, protocol: str = "last", level: float = LEVEL, draws: int = DRAWS) -> Comparison:
    """Compare two cells on the clips that both were tested on.

    The interval is a paired bootstrap within classes: clips of a class are drawn again from that class, so that the
    class sizes stay what the test set's design made them. Drawing clips of a class is the same as drawing how often
    each value of the clip-wise difference occurs, so all draws are one multinomial call a class. With very few clips
    in a class, all
    tied, the bootstrap sees no uncertainty there: read the UAR interval together with the p-value.

    Args:
        first, second: run records (or sequences of records that differ by seed), for example without and with AU.

    Raises:
        InputError: the two were not tested on the same clips.
    """
    a, b = predictions(first, protocol), predictions(second, protocol)
    if a.clip_ids != b.clip_ids or not np.array_equal(a.expressions, b.expressions):
        raise InputError(
            "compare",
            "clip_ids",
            f"{len(set(a.clip_ids) ^ set(b.clip_ids))} clips that only one of the two has",
            "two networks tested on the same clips in the same order",
        )
    change = b.hits - a.hits
    war_draws, uar_draws = _paired_bootstrap(change, a.expressions, draws)
    counts = np.bincount(a.expressions, minlength=len(EXPRESSIONS))
    by_class = _ratio(np.bincount(a.expressions, weights=change, minlength=len(EXPRESSIONS)), counts)
    method = f"paired bootstrap within classes, {draws:,} draws"

    def interval(value, sample):
        low, high = np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2])
        return Interval(
            float(value), min(float(low), float(value)), max(float(high), float(value)), len(change), method, level
        )

    one_seed = len(a.seeds) == len(b.seeds) == 1
    gained, lost = float(change[change > 0].sum()), float(-change[change < 0].sum())
    return Comparison(
        war=interval(change.mean(), war_draws),
        uar=interval(np.nanmean(by_class), uar_draws),
        war_p=mcnemar(int(gained), int(lost)) if one_seed else sign_flip(change, a.expressions, "war", draws),
        uar_p=sign_flip(change, a.expressions, "uar", draws),
        war_test="exact McNemar" if one_seed else "sign-flip permutation",
        uar_test="sign-flip permutation",
        gained=gained,
        lost=lost,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar p-value: is the split of the clips on which two networks differ that of a fair coin?

    1.0 if they differ on none.
    """
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flip(change, expressions, metric: str = "uar", draws: int = DRAWS) -> float:
    """Two-sided paired permutation p-value of a WAR or UAR difference.

    If the two networks were exchangeable, the sign of each clip's difference would be a fair coin. Clips of one class
    with the
    same absolute difference count alike, so a draw needs only how many of them are positive: a binomial.

    Args:
        change: clip-wise difference of hits ``(N,)`` in [-1, 1].
        expressions: true classes ``(N,)``.
        metric: ``"war"`` weights clips equally, ``"uar"`` weights classes equally.
    """
    change, expressions = np.asarray(change, float), np.asarray(expressions)
    counts = np.bincount(expressions, minlength=1)
    weight = 1 / counts[expressions] if metric == "uar" else np.ones(len(change))
    weighted = np.round(change * weight, 12)
    observed = abs(weighted.sum())
    sizes, groups = np.unique(np.abs(weighted[weighted != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    positive = np.random.default_rng(_SEED).binomial(groups, 0.5, size=(draws, len(groups)))
    null = np.abs(((2 * positive - groups) * sizes).sum(axis=1))
    return float((1 + np.sum(null >= observed - 1e-9)) / (1 + draws))


def _paired_bootstrap(change: np.ndarray, expressions: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences in WAR and UAR, ``(draws,)`` each, for clips drawn again within their classes."""
    generator = np.random.default_rng(_SEED)
    war_draws, uar_draws = np.zeros(draws), np.zeros(draws)
    classes = np.unique(expressions)
    for expression in classes:
        values, times = np.unique(change[expressions == expression], return_counts=True)
        count = times.sum()
        total = generator.multinomial(count, times / count, size=draws) @ values
        war_draws += total / len(change)
        uar_draws += total / count / len(classes)
    return war_draws, uar_draws


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
