"""The tidy numbers behind each figure: what ``plots`` draws and what goes to csv, made from run records and arrays.

Shares stay shares here only inside records; every frame below is in percent where it says WAR, UAR or share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy

from .. import published
from ..errors import InputError
from ..evaluation.statistics import calibration, summary
from ..facs import ACTION_UNITS, EVALUATION_DATASETS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from .tables import MODEL_NAMES, au_records, baseline_records, pooled, present, select

WITHOUT, WITH = "without AU", "with AU"
#: panels of Fig. 7, in the order of its letters: history column, title, axis label
PANELS: tuple[tuple[str, str, str], ...] = (
    ("loss", "total loss", "loss (nats)"),
    ("loss_expression", "expression loss", "loss (nats)"),
    ("loss_au", "AU loss", "loss (weighted nats)"),
    ("train_war", "training WAR", "WAR (%)"),
    ("test_war", "test WAR", "WAR (%)"),
    ("test_uar", "test UAR", "UAR (%)"),
    ("learning_rate", "learning rate", "learning rate"),
)
NEIGHBOURS = 10


def matrix(values, name: str = "", column: str = "value") -> pd.DataFrame:
    """A matrix over expressions and AUs as rows ``source, expression, action_unit, value``.

    Args:
        values: ``(7, 18)`` in ``ACTION_UNITS`` order or ``(7, 17)`` in ``INTENSITY_ACTION_UNITS`` order; NaN =
            unknown.
        name: goes to ``source`` (a dataset, "ours", "paper").
    """
    array = np.asarray(values, float)
    columns = {len(ACTION_UNITS): ACTION_UNITS, len(INTENSITY_ACTION_UNITS): INTENSITY_ACTION_UNITS}
    if array.ndim != 2 or array.shape[0] != len(EXPRESSIONS) or array.shape[1] not in columns:
        raise InputError("matrix", name or "values", f"shape {array.shape}", "(7, 18) or (7, 17)")
    units = columns[array.shape[1]]
    return pd.DataFrame(
        {
            "source": name,
            "expression": np.repeat(EXPRESSIONS, len(units)),
            "action_unit": np.tile(units, len(EXPRESSIONS)),
            column: array.ravel(),
        }
    )


def matrices(named: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Several matrices below each other: ``{"DFEW": (7, 17) array, ...}`` as in ``matrix``."""
    return pd.concat([matrix(values, name) for name, values in named.items()], ignore_index=True)


def rank_correlations(first, second) -> pd.Series:
    """Spearman's rank correlation of two matrices: one an expression, and ``"overall"`` over all cells.

    AU28 is left out: its column is made up, not measured (EQUATIONS.md 1). ``(7, 18)`` or ``(7, 17)`` each; NaN where
    a row is constant or has fewer than three known cells.
    """
    a, b = (_measured(values) for values in (first, second))

    def spearman(x, y) -> float:
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
            return float("nan")
        return float(scipy.stats.spearmanr(x[known], y[known]).statistic)

    rows = {name: spearman(a[k], b[k]) for k, name in enumerate(EXPRESSIONS)}
    return pd.Series({**rows, "overall": spearman(a.ravel(), b.ravel())}, name="rank correlation")


def _measured(values) -> np.ndarray:
    array = np.asarray(values, float)
    return (
        array[:, [ACTION_UNITS.index(au) for au in INTENSITY_ACTION_UNITS]]
        if array.shape[1] == len(ACTION_UNITS)
        else array
    )


def sheet_data(sheet: Mapping) -> pd.DataFrame:
    """What ``synth.contact_sheet``'s pictures show, and how far each differs from its row's first picture.

    Returns:
        One row a picture: kind ("action unit" or "expression"), row, person, strength (AU intensity 0 to 5, or
        strength of the expression 0 to 1), change (mean absolute difference of pixels, 0 to 255).
    """
    units, films = (np.asarray(sheet[name], np.float32) for name in ("action_units", "expressions"))
    rows = []
    for i, name in enumerate(sheet["action_unit_rows"]):
        for j, person in enumerate(sheet["identity_labels"]):
            for k, intensity in enumerate(sheet["intensity_columns"]):
                change = np.abs(units[i, j, k] - units[i, j, 0]).mean()
                rows.append(("action unit", name, person, float(intensity), float(change)))
    for i, name in enumerate(sheet["expression_rows"]):
        for k, strength in enumerate(sheet["moment_columns"]):
            change = np.abs(films[i, k] - films[i, 0]).mean()
            rows.append(("expression", name, "", float(strength), float(change)))
    return pd.DataFrame(rows, columns=["kind", "row", "person", "strength", "change"])


def reconstruction_data(sheet: Mapping) -> pd.DataFrame:
    """How well the hidden places of masked clips were predicted (``study.reconstructions``).

    Returns:
        One row a clip and tubelet: clip_id, expression, tubelet (from 1), hidden (share of pixels), appearance_error
            (mean
        absolute difference at hidden pixels, 0 to 255), motion_r (Pearson correlation of true and predicted change
        there, NaN where nothing moves).
    """
    rows = []
    for i, (clip, expression) in enumerate(zip(sheet["clip_ids"], sheet["expressions"], strict=True)):
        for k in range(sheet["original"].shape[1]):
            hidden = np.isfinite(sheet["predicted_motion"][i, k])
            error = np.abs(sheet["appearance"][i, k].astype(float) - sheet["original"][i, k])[hidden].mean()
            true, predicted = sheet["motion"][i, k][hidden], sheet["predicted_motion"][i, k][hidden]
            moves = true.std() > 0 and predicted.std() > 0
            rows.append(
                (clip, expression, k + 1, hidden.mean(), error, np.corrcoef(true, predicted)[0, 1] if moves else np.nan)
            )
    return pd.DataFrame(rows, columns=["clip_id", "expression", "tubelet", "hidden", "appearance_error", "motion_r"])


def fig4_data(ours) -> pd.DataFrame:
    """Our knowledge matrix and the printed one (Fig. 4), with the rank correlation of each expression's row.

    Args:
        ours: ``(7, 18)`` values of a ``KnowledgeMatrix``.

    Returns:
        Columns source ("ours", "paper"), expression, action_unit, value, rank_correlation, overall_rank_correlation.
    """
    printed = published.knowledge("figure")
    correlation = rank_correlations(ours, printed)
    data = matrices({"ours": ours, "paper": printed})
    data["rank_correlation"] = data["expression"].map(correlation)
    data["overall_rank_correlation"] = correlation["overall"]
    return data


def recovery_data(planted, recovered) -> pd.DataFrame:
    """Planted against recovered values, ``(7, 17)`` or ``(7, 18)`` each; AU28 is left out.

    Returns:
        One row a cell: expression, action_unit, planted, recovered.
    """
    columns = {"planted": _measured(planted), "recovered": _measured(recovered)}
    data = matrix(columns["planted"], column="planted").drop(columns="source")
    return data.assign(recovered=columns["recovered"].ravel())


def ratio_data(records: Sequence, model: str | None = None, protocol: str = "last") -> pd.DataFrame:
    """Fig. 5: WAR and UAR against the AU ratio lambda of Eq. 10.

    Args:
        model: the network; ``None``: the one with most different ratios among the records.

    Returns:
        One row a dataset, ratio and metric: dataset, model, au_ratio, metric, value, low, high (percent), clips,
            seeds.
    """
    if model is None:
        ratios = {
            name: {r.cell["au_ratio"] for r in records if r.cell["model"] == name}
            for name in present(records, "model", tuple(MODEL_NAMES))
        }
        model = max(ratios, key=lambda name: len(ratios[name]), default="")
    rows = []
    for dataset in present(records, "dataset", EVALUATION_DATASETS):
        mine = [r for r in records if r.cell["model"] == model and r.cell["dataset"] == dataset]
        for ratio in sorted({r.cell["au_ratio"] for r in mine}):
            cell = (
                au_records(mine, model, dataset, au_ratio=ratio)
                if ratio > 0
                else baseline_records(mine, model, dataset)
            )
            if not cell:
                continue
            numbers = summary(cell, protocol)
            for metric, interval in (("WAR", numbers.war), ("UAR", numbers.uar)):
                rows.append(
                    {
                        "dataset": dataset,
                        "model": model,
                        "au_ratio": ratio,
                        "metric": metric,
                        "value": 100 * interval.value,
                        "low": 100 * interval.low,
                        "high": 100 * interval.high,
                        "clips": interval.count,
                        "seeds": len(cell),
                    }
                )
    return pd.DataFrame(
        rows, columns=["dataset", "model", "au_ratio", "metric", "value", "low", "high", "clips", "seeds"]
    )


#: terms of Eq. 10
LOSS_TERMS = ("expression loss", "AU loss")


def loss_data(records: Sequence, model: str) -> pd.DataFrame:
    """How large each term of Eq. 10 is in the last epoch of training, for every lambda.

    Returns:
        One row a dataset, ratio and term (``LOSS_TERMS``): dataset, model, au_ratio, term, loss (mean over the epoch's
        batches and over seeds, before lambda weighs it), weighted (as it enters the total loss), share (percent of the
        total), seeds. Without an AU head the AU loss is 0 of the total.
    """
    rows = []
    for dataset in present(records, "dataset", EVALUATION_DATASETS):
        mine = [r for r in records if r.cell["model"] == model and r.cell["dataset"] == dataset]
        for ratio in sorted({r.cell["au_ratio"] for r in mine}):
            cell = (
                au_records(mine, model, dataset, au_ratio=ratio)
                if ratio > 0
                else baseline_records(mine, model, dataset)
            )
            if not cell:
                continue
            last = pd.DataFrame([record.history.iloc[-1] for record in cell])[["loss_expression", "loss_au"]].mean()
            weighted = (1 - ratio) * last["loss_expression"], ratio * np.nan_to_num(last["loss_au"])
            rows += [
                (dataset, model, ratio, term, loss, part, 100 * part / sum(weighted), len(cell))
                for term, loss, part in zip(LOSS_TERMS, last, weighted, strict=True)
            ]
    return pd.DataFrame(rows, columns=["dataset", "model", "au_ratio", "term", "loss", "weighted", "share", "seeds"])


def positive_weight_data(records: Sequence, dataset: str, strategies: Sequence[str]) -> pd.DataFrame:
    """The positive class weights of Eqs. 6 to 8 that cells on a dataset had (``RunRecord.positive_weights``).

    They come from the training clips alone: one record of each strategy tells, whatever its network.

    Returns:
        Columns source (the strategy), expression, action_unit, value; a strategy without a record is left out.
    """
    found = {
        record.cell["strategy"]: record.positive_weights
        for record in reversed(records)
        if record.cell["dataset"] == dataset and record.positive_weights is not None
    }
    columns = ["source", "expression", "action_unit", "value"]
    return (
        matrices({name: found[name] for name in strategies if name in found})
        if found
        else pd.DataFrame(columns=columns)
    )


def confusion_data(
    records: Sequence,
    dataset: str = "DFEW",
    protocol: str = "last",
    strategy: str | None = None,
    au_ratio: float | None = None,
) -> pd.DataFrame:
    """Fig. 6: confusion matrices of every network without and with AU; several folds are pooled.

    Returns:
        Columns model, variant, true, predicted, count (clips; summed over seeds), share (percent of the true class;
        NaN for a class without clips), war (percent). Cells without a record are absent.
    """
    records = pooled(records)
    rows = []
    for model in present(records, "model", tuple(MODEL_NAMES)):
        for variant, cell in (
            (WITHOUT, baseline_records(records, model, dataset)),
            (WITH, au_records(records, model, dataset, strategy, au_ratio)),
        ):
            if not cell:
                continue
            numbers = summary(cell, protocol)
            for k, true in enumerate(EXPRESSIONS):
                total = numbers.confusion[k].sum()
                for j, predicted in enumerate(EXPRESSIONS):
                    count = int(numbers.confusion[k, j])
                    rows.append(
                        {
                            "model": model,
                            "variant": variant,
                            "true": true,
                            "predicted": predicted,
                            "count": count,
                            "share": 100 * count / total if total else np.nan,
                            "war": 100 * numbers.war.value,
                        }
                    )
    return pd.DataFrame(rows, columns=["model", "variant", "true", "predicted", "count", "share", "war"])


def process_data(
    records: Sequence,
    model: str = "m3dfel",
    dataset: str = "DFEW",
    strategy: str | None = None,
    au_ratio: float | None = None,
) -> pd.DataFrame:
    """Fig. 7: the training process of one network without and with AU.

    Returns:
        Columns variant, seed, epoch (from 1), panel (a history column), value; WAR and UAR in percent.
    """
    parts = []
    for variant, cell in (
        (WITHOUT, baseline_records(records, model, dataset)),
        (WITH, au_records(records, model, dataset, strategy, au_ratio)),
    ):
        for record in cell:
            long = record.history.melt(id_vars="epoch", value_vars=[name for name, *_ in PANELS], var_name="panel")
            percent = long["panel"].str.contains("war|uar")
            long.loc[percent, "value"] *= 100
            parts.append(long.assign(variant=variant, seed=record.cell.get("seed", 0)))
    columns = ["variant", "seed", "epoch", "panel", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


#: panels of Fig. 8
EMBEDDINGS = ("backbone alone", "AU head without knowledge", "AU-DFER")


def embedding_data(
    records: Sequence,
    model: str = "m3dfel",
    dataset: str = "DFEW",
    strategy: str | None = None,
    au_ratio: float | None = None,
) -> pd.DataFrame:
    """Fig. 8: t-SNE of the test clips' features: backbone alone, AU head without knowledge weights, AU-DFER.

    t-SNE (perplexity 30 or a third of the clips, PCA start, fixed seed, one thread, so the picture is repeatable) is
    for looking; the two numbers are taken in the feature space itself, each feature standardised: ``purity``, the
    share of a clip's 10 nearest neighbours that have its expression (percent; ``chance`` is what random
    neighbours would give), and ``silhouette`` (-1 to 1). Of several seeds the first is shown.

    Returns:
        Columns variant, clip_id, expression, x, y, purity, chance, silhouette, neighbours.
    """
    head = {} if strategy is None else {"strategy": strategy}
    ratio = (lambda value: value > 0) if au_ratio is None else au_ratio
    cells = (
        baseline_records(records, model, dataset),
        select(records, model=model, dataset=dataset, au_ratio=ratio, weights="none", **head),
        au_records(records, model, dataset, strategy, au_ratio),
    )
    parts = []
    for variant, cell in zip(EMBEDDINGS, cells, strict=True):
        if not cell:
            continue
        record = cell[0]
        features, expressions = np.asarray(record.features, float), np.asarray(record.expressions)
        spread = features.std(axis=0)
        features = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
        purity, silhouette, neighbours = cluster_scores(features, expressions)
        sizes = np.bincount(expressions)
        chance = 100 * float((sizes * (sizes - 1)).sum() / max(1, len(expressions) * (len(expressions) - 1)))
        place = _tsne(features)
        parts.append(
            pd.DataFrame(
                {
                    "variant": variant,
                    "clip_id": list(record.clip_ids),
                    "expression": [EXPRESSIONS[k] for k in expressions],
                    "x": place[:, 0],
                    "y": place[:, 1],
                    "purity": purity,
                    "chance": chance,
                    "silhouette": silhouette,
                    "neighbours": neighbours,
                }
            )
        )
    columns = ["variant", "clip_id", "expression", "x", "y", "purity", "chance", "silhouette", "neighbours"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def cluster_scores(features, expressions) -> tuple[float, float, int]:
    """How well features separate expressions: (neighbour purity in percent, silhouette, neighbours used).

    Args:
        features: ``(N, D)``; expressions: ``(N,)``. NaN where there are too few clips or classes.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    features, expressions = np.asarray(features, float), np.asarray(expressions)
    neighbours = min(NEIGHBOURS, len(features) - 1)
    if neighbours < 1:
        return float("nan"), float("nan"), 0
    # kneighbors without an argument leaves each point itself out
    index = NearestNeighbors(n_neighbors=neighbours).fit(features).kneighbors(return_distance=False)
    purity = 100 * float(np.mean(expressions[index] == expressions[:, None]))
    classes = len(np.unique(expressions))
    silhouette = float(silhouette_score(features, expressions)) if 1 < classes < len(features) else float("nan")
    return purity, silhouette, neighbours


def _tsne(features: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(features) < 3:
        return np.zeros((len(features), 2))
    with threadpool_limits(1):  # sums in one order, so that the picture does not depend on the number of cores
        return TSNE(
            n_components=2, perplexity=min(30, (len(features) - 1) / 3), init="pca", random_state=0
        ).fit_transform(features)


def frequency_data(counts: Mapping[str, Mapping[str, int] | Sequence[int]], split: str = "train") -> pd.DataFrame:
    """Class frequencies beside the published ones.

    Args:
        counts: dataset -> clips of each expression (mapping by name, or seven numbers).
        split: which published split to compare with.

    Returns:
        Columns dataset, expression, clips, share, paper_clips, paper_share (percent; NaN where no count is
        published).
    """
    rows = []
    for dataset, found in counts.items():
        ours = [int(found[name]) for name in EXPRESSIONS] if isinstance(found, Mapping) else [int(n) for n in found]
        try:
            theirs = list(published.class_counts(dataset, split).values())
        except InputError:
            theirs = [np.nan] * len(EXPRESSIONS)
        for name, mine, their in zip(EXPRESSIONS, ours, theirs, strict=True):
            rows.append(
                {
                    "dataset": dataset,
                    "expression": name,
                    "clips": mine,
                    "share": 100 * mine / max(1, sum(ours)),
                    "paper_clips": their,
                    "paper_share": 100 * their / sum(theirs),
                }
            )
    return pd.DataFrame(rows)


def calibration_data(records: Sequence, model: str, dataset: str, protocol: str = "last") -> pd.DataFrame:
    """The reliability diagram of one network without and with AU (``evaluation.calibration``), a row a bin.

    Returns:
        Columns model, dataset, variant, ece, ece_if_calibrated, brier, brier_low, brier_high (shares and Brier's score,
        equal in all rows of a variant) and the bins' low, high, clips, confidence, accuracy, accuracy_low,
        accuracy_high (shares).
    """
    parts = []
    for variant, cell in (
        (WITHOUT, baseline_records(records, model, dataset)),
        (WITH, au_records(records, model, dataset)),
    ):
        if cell:
            found = calibration(cell, protocol)
            parts.append(
                found.bins.assign(
                    model=model,
                    dataset=dataset,
                    variant=variant,
                    ece=found.ece,
                    ece_if_calibrated=found.ece_if_calibrated,
                    brier=found.brier.value,
                    brier_low=found.brier.low,
                    brier_high=found.brier.high,
                )
            )
    first = ["model", "dataset", "variant", "ece", "ece_if_calibrated", "brier", "brier_low", "brier_high"]
    if not parts:
        return pd.DataFrame(
            columns=[*first, "low", "high", "clips", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
        )
    table = pd.concat(parts, ignore_index=True)
    return table[first + [c for c in table if c not in first]]
