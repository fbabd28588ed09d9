"""The paper's metrics (section 4.2) with their intervals: WAR, the share of clips that are right, and UAR, the mean of
the class accuracies.

* **WAR and class accuracies**: Wilson's score interval (Brown, Cai and DasGupta, "Interval estimation for a binomial
  proportion", Statistical Science 2001, recommend it or Jeffreys' for small samples).
* **UAR**: the posterior of the mean of class accuracies, each class having its own Beta(hits + 1/2, misses + 1/2),
  drawn by Monte Carlo (Brodersen, Ong, Stephan and Buhmann, "The balanced accuracy and its posterior distribution",
  ICPR 2010; the 1/2 is Jeffreys' prior). A bootstrap would give a class of three clips, none of them right, no
  uncertainty at all; this does not, and a DFEW test fold has only 29 Disgust clips.
* **Several seeds**: seeds times clips are not so many independent observations. ``summary`` averages over seeds clip
  by clip and its intervals speak about clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from ..errors import InputError, refuse
from ..facs import EXPRESSIONS
from .resampling import DRAWS, LEVEL, SEED, limits

PROTOCOLS = ("last", "best-on-validation", "best-on-test")
CLASSES = len(EXPRESSIONS)


# ---------------------------------------------------------------------------------------------------------- metrics
def confusion_matrix(expressions, predictions, num_classes: int = CLASSES) -> np.ndarray:
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
    truth = _classes(expressions, "expressions", num_classes)
    guess = _classes(predictions, "predictions", num_classes)
    if truth.shape != guess.shape:
        raise InputError(
            "confusion_matrix", "predictions", f"{len(guess)} of them", f"{len(truth)}, one for each true class"
        )
    return np.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(expressions, predictions, num_classes: int = CLASSES) -> np.ndarray:
    """Share of each class's clips that are right, ``(num_classes,)`` in [0, 1]; NaN for a class without clips."""
    counts = confusion_matrix(expressions, predictions, num_classes)
    return ratio(np.diag(counts), counts.sum(axis=1))


def war(expressions, predictions) -> float:
    """Weighted average recall: the share of clips that are right, in [0, 1]; NaN without clips (section 4.2)."""
    right = np.asarray(expressions) == np.asarray(predictions)
    return float(np.mean(right)) if len(right) else float("nan")


def uar(expressions, predictions, num_classes: int = CLASSES) -> float:
    """Unweighted average recall: the mean of the class accuracies, in [0, 1] (section 4.2).

    Classes without test clips have no accuracy and are left out of the mean (``summary`` names them); NaN if none is
    left.
    """
    accuracy = per_class_accuracy(expressions, predictions, num_classes)
    return float(np.nanmean(accuracy)) if np.isfinite(accuracy).any() else float("nan")


def _classes(values, field: str, num_classes: int = CLASSES) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError("evaluation", field, f"an array of shape {array.shape}", "one class per clip, shape (N,)")
    if len(array) and (array.min() < 0 or array.max() >= num_classes):
        span = f"classes from {array.min()} to {array.max()}"
        raise InputError("evaluation", field, span, f"classes from 0 to {num_classes - 1}")
    return array.astype(np.int64)


def ratio(part, whole) -> np.ndarray:
    """``part / whole``, elementwise with broadcasting; NaN where ``whole`` is not above 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    empty = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=empty, where=whole > 0)[()]


def mean_of_known(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the finite values along an axis; NaN where there is none."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis))


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

    def __post_init__(self):
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))

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
    low = np.where(hits == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(hits == count, 1.0, np.clip(centre + half, 0, 1))
    return low + 0 * share, high + 0 * share


def proportion_interval(hits: float, count: int, level: float = LEVEL) -> Interval:
    """``Interval`` of a share (WAR or one class) by Wilson's method."""
    return Interval(
        ratio(hits, count), *wilson_interval(hits, count, level), int(count), "Wilson score interval", level
    )


def mean_recall_interval(hits, counts, level: float = LEVEL, draws: int = 2 * DRAWS) -> Interval:
    """``Interval`` of UAR: the mean of class-wise Beta posteriors with Jeffreys' prior, by Monte Carlo.

    Args:
        hits: right clips of each class, ``(K,)``; may be fractional (mean over seeds).
        counts: clips of each class, ``(K,)``; classes with 0 are left out, as in ``uar``.
        draws: Monte Carlo size; 20,000 leaves about 0.05 points of noise in a limit, and the seed is fixed.

    The posterior of a small class leans towards 1/2, so limits are widened, where needed, to include the value
    itself.
    """
    hits, counts = np.asarray(hits, float), np.asarray(counts, float)
    method = "Monte Carlo of class-wise Beta posteriors, Jeffreys prior"
    hits, counts = hits[counts > 0], counts[counts > 0]
    if not len(counts):
        return Interval(np.nan, np.nan, np.nan, 0, method, level)
    value = np.mean(hits / counts)
    sample = np.random.default_rng(SEED).beta(hits + 0.5, counts - hits + 0.5, size=(draws, len(hits))).mean(axis=1)
    low, high = limits(sample, level)
    return Interval(value, min(low, value), max(high, value), int(counts.sum()), method, level)


# ------------------------------------------------------------------------------------------------------ run records
@dataclass(frozen=True)
class Predictions:
    """What one cell said about the test clips, one row per seed.

    Attributes:
        clip_ids: ``N`` names.
        expressions: true classes ``(N,)``.
        predicted: ``(S, N)`` classes, one row per seed.
        seeds: ``S`` seeds.
        epochs: ``S`` epochs (numbered as in ``history``) the predictions are from.
        groups: ``(N,)`` subject or video of each clip, or ``None`` where it is not known.
        scores: ``(S, N, 7)`` that the predictions are the largest of.
    """

    clip_ids: tuple[str, ...]
    expressions: np.ndarray
    predicted: np.ndarray
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    groups: np.ndarray | None
    scores: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """``(S, N)`` 1 where a seed got a clip right, else 0."""
        return (self.predicted == self.expressions).astype(float)

    @property
    def hits(self) -> np.ndarray:
        """``(N,)`` share of seeds that got each clip right (0 or 1 with one seed)."""
        return self.right.mean(axis=0)


def as_group(records) -> list:
    """One record, or several that differ by seed, as a list."""
    return list(records) if isinstance(records, Sequence) else [records]


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
    group = as_group(records)
    if not group:
        raise InputError("predictions", "records", "none", "at least one run record")
    clip_ids, truth = tuple(group[0].clip_ids), _classes(group[0].expressions, "expressions")
    shape, chosen = (len(truth), CLASSES), []
    for record in group:
        same = tuple(record.clip_ids) == clip_ids and np.array_equal(record.expressions, truth)
        scores, epoch = _chosen(record, protocol)
        finite = bool(np.isfinite(scores).all())
        refuse(
            record.path,
            [
                (not same, "clip_ids and expressions", "other clips than the first record's", "the same test clips"),
                (
                    scores.shape != shape or not finite,
                    "scores",
                    f"shape {scores.shape}, finite: {finite}",
                    f"finite numbers of shape {shape}",
                ),
            ],
        )
        chosen.append((scores, int(record.cell.get("seed", 0)), epoch))
    scores, seeds, epochs = zip(*chosen, strict=True)
    groups = getattr(group[0], "groups", None)
    groups = None if groups is None else checked_groups(groups, len(truth), group[0].path)
    stacked = np.stack(scores)
    return Predictions(clip_ids, truth, stacked.argmax(axis=-1), seeds, epochs, groups, stacked)


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


def checked_groups(groups, count: int, where) -> np.ndarray:
    """``groups`` as an array, refused where it is not one subject or video for each of ``count`` clips."""
    array = np.asarray(groups)
    if array.shape != (count,):
        raise InputError(where, "groups", f"shape {array.shape}", f"one subject or video per clip, shape ({count},)")
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
    counts = np.bincount(said.expressions, minlength=CLASSES)
    hits = np.bincount(said.expressions, weights=said.hits, minlength=CLASSES)
    return Summary(
        war=proportion_interval(hits.sum(), int(counts.sum()), level),
        uar=mean_recall_interval(hits, counts, level),
        per_class=tuple(proportion_interval(h, c, level) for h, c in zip(hits, counts, strict=True)),
        confusion=sum(confusion_matrix(said.expressions, row) for row in said.predicted),
        classes_without_clips=tuple(np.array(EXPRESSIONS)[counts == 0].tolist()),
        war_by_seed=tuple(war(said.expressions, row) for row in said.predicted),
        uar_by_seed=tuple(uar(said.expressions, row) for row in said.predicted),
        seeds=said.seeds,
        epochs=said.epochs,
        protocol=protocol,
    )
