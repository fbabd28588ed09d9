"""The AU-only baseline: how far do action units alone go, without any network that sees the clip?

A clip becomes 51 numbers (mean, deviation and maximum over its frames of each of the 17 intensities); logistic
regression reads them. Everything that is learnt (what replaces a missing number, mean and spread of each feature, the
weights) is learnt from the training clips of a fold alone. Nothing is tuned: the regularisation is scikit-learn's
default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from ..errors import InputError, refuse
from ..evaluation import bootstrap, confusion_matrix, limits, mean_recall_interval, proportion_interval, ratio
from ..facs import EXPRESSIONS, INTENSITY_ACTION_UNITS
from ..openface import INTENSITY_COLUMNS
from .table import AUTable

STATISTICS: tuple[str, ...] = ("mean", "deviation", "maximum")
#: who says what in the tables below: the baseline itself, and what costs nothing
CLASSIFIERS: dict[str, str] = {"predicted": "AUs alone", "majority": "always the commonest expression"}


def clip_features(table: AUTable) -> pd.DataFrame:
    """51 numbers per clip: mean, deviation (population) and maximum of each intensity over its known frames.

    Returns:
        One row per clip in the table's order, indexed by clip_id; columns "AU01 mean" .. "AU45 maximum", float64, 0 to
        5. NaN where a clip has no frame with the AU known.
    """
    grouped = table.frames.groupby("clip_id", sort=False)[list(INTENSITY_COLUMNS)]
    parts = (grouped.mean(), grouped.std(ddof=0), grouped.max())
    for part, statistic in zip(parts, STATISTICS, strict=True):
        part.columns = [f"{au} {statistic}" for au in INTENSITY_ACTION_UNITS]
    return pd.concat(parts, axis=1).astype(np.float64)


def classifier():
    """Missing features take the training mean; features are standardised; multinomial logistic regression."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=2000))


def au_baseline(features: pd.DataFrame, clips: pd.DataFrame, by: str = "subject") -> pd.DataFrame:
    """Predictions of clips by a classifier that has not seen them.

    Args:
        features: ``clip_features``; clips of ``clips`` that it lacks are unknown in every feature.
        clips: one row per clip: clip_id, expression (index in ``EXPRESSIONS``; -1 is left out) and the column ``by``.
        by: "subject": each subject's clips are predicted from all other subjects' (leave one actor out). "split": the
            clips of "test" from those of "train".

    Returns:
        One row per predicted clip, order kept: clip_id, expression, predicted, majority (the training clips' commonest
        expression), fold (the subject, or "test").

    Raises:
        InputError: unknown ``by``, fewer than two subjects or one without a name, or no training or test clip.
    """
    clips = clips[clips["expression"] >= 0].reset_index(drop=True)
    values = features.reindex(clips["clip_id"]).to_numpy(np.float64)
    expressions = clips["expression"].to_numpy(np.int64)
    if by not in ("subject", "split") or by not in clips:
        expected = f"subject or split, and such a column among {', '.join(clips.columns)}"
        raise InputError("AU baseline", "by", repr(by), expected)
    folds = clips[by].astype(str).to_numpy()
    predicted, majority = np.full(len(clips), -1), np.full(len(clips), -1)
    for train, test in _folds(folds, by):
        majority[test] = np.bincount(expressions[train], minlength=len(EXPRESSIONS)).argmax()
        if len(np.unique(expressions[train])) == 1:  # nothing to tell apart
            predicted[test] = expressions[train][0]
        else:
            predicted[test] = classifier().fit(values[train], expressions[train]).predict(values[test])
    table = clips[["clip_id"]].assign(expression=expressions, predicted=predicted, majority=majority, fold=folds)
    return table[predicted >= 0].reset_index(drop=True)


def _folds(names: np.ndarray, by: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    train, test = names == "train", names == "test"
    alone, people = (names == "").any() or len(np.unique(names)) < 2, ", ".join(sorted(set(names))) or "none"
    counts = f"{train.sum()} training and {test.sum()} test clips"
    others = "at least two subjects, each clip with its own, for leaving one out"
    refuse(
        "AU baseline",
        [
            (by == "split" and not (train.any() and test.any()), "split", counts, "clips of both"),
            (by == "subject" and alone, "subject", people, others),
        ],
    )
    if by == "split":
        yield train, test
    else:
        for name in np.unique(names):
            yield names != name, names == name


def baseline_accuracy(predictions: pd.DataFrame, over_folds: bool = False, **identity) -> pd.DataFrame:
    """WAR and UAR with 95 % intervals over clips, of the baseline and of always saying the commonest expression.

    Args:
        predictions: from ``au_baseline``.
        over_folds: intervals over the folds (people, where one is left out at a time) instead: whole folds are drawn
            again, because clips of a person resemble each other.
        **identity: further columns, for example ``source="RAVDESS"``; they come first.

    Returns:
        One row per classifier and metric: classifier, metric, value, low, high (percent), worst, best (percent: lowest
        and highest among the folds; WAR only), clips, folds.
    """
    truth = predictions["expression"].to_numpy()
    counts = np.bincount(truth, minlength=len(EXPRESSIONS))
    rows = []
    for column, name in CLASSIFIERS.items():
        right = predictions[column].to_numpy() == truth
        by_fold = 100 * pd.Series(right).groupby(predictions["fold"].to_numpy()).mean()
        hits = np.bincount(truth, weights=right, minlength=len(EXPRESSIONS))
        intervals = proportion_interval(right.sum(), len(right)), mean_recall_interval(hits, counts)
        if over_folds:
            intervals = _over_folds(right, truth, predictions["fold"].to_numpy(), intervals)
        for metric, interval, worst, best in (
            ("WAR", intervals[0], by_fold.min(), by_fold.max()),
            ("UAR", intervals[1], np.nan, np.nan),
        ):
            percent = {end: 100 * getattr(interval, end) for end in ("value", "low", "high")}
            row = {**identity, "classifier": name, "metric": metric, **percent, "worst": worst, "best": best}
            rows.append({**row, "clips": len(right), "folds": len(by_fold)})
    return pd.DataFrame(rows)


def _over_folds(right: np.ndarray, truth: np.ndarray, folds: np.ndarray, values: tuple) -> tuple:
    """The intervals of WAR and UAR with the limits of drawing whole folds again."""
    fold, names = pd.factorize(folds)
    sums = np.zeros((len(names), len(EXPRESSIONS), 2))
    np.add.at(sums, (fold, truth), np.stack([right, np.ones(len(right))], axis=1))
    recalls = lambda some: ratio(some[..., 0], some[..., 1])  # noqa: E731
    drawn = bootstrap(lambda some: recalls(some.sum(1)), sums), bootstrap(lambda s: np.nanmean(recalls(s), 1), sums)
    return tuple(
        replace(value, low=min(low, value.value), high=max(high, value.value))
        for value, (low, high) in zip(values, map(limits, drawn), strict=True)
    )


def baseline_confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Confusion of the baseline for ``plots.confusion``: true, predicted, count, share (percent of the true class)."""
    counts = confusion_matrix(predictions["expression"], predictions["predicted"])
    share = ratio(100 * counts, counts.sum(axis=1, keepdims=True))
    return pd.DataFrame(
        {
            "true": np.repeat(EXPRESSIONS, len(EXPRESSIONS)),
            "predicted": np.tile(EXPRESSIONS, len(EXPRESSIONS)),
            "count": counts.ravel(),
            "share": share.ravel(),
        }
    )
