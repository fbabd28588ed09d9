"""The paper's own rows: their numbers, and what is known of how they came about (published/audit.csv)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .. import published
from ..errors import InputError
from ..facs import EXPRESSIONS
from ..losses import STRATEGIES
from .selection import model_name

#: (network, dataset) -> what the printed rows of AU-DFER's Tables 1 to 3 were measured on
_MEASURED_ON = {
    ("M3DFEL", "DFEW"): "one fold of DFEW (1 or 2, 2341 clips, 29 of them Disgust), not five",
    ("MAE-DFER", "DFEW"): "one fold of DFEW (1 or 2, 2341 clips, 29 of them Disgust), not five",
    ("Former-DFER", "DFEW"): "neither one fold of DFEW nor the five pooled",
    ("M3DFEL", "MAFW"): "MAFW's seven basic classes, one fold (1517 clips)",
    ("MAE-DFER", "MAFW"): "MAFW's seven basic classes, one fold (1517 clips)",
    ("Former-DFER", "MAFW"): "MAFW's seven basic classes, fold not known",
}
#: (network, dataset) -> the upstream row whose protocol is that of the paper's baseline
_UPSTREAM_FOLDS = {("MAE-DFER", "DFEW"): "1", ("MAE-DFER", "FERV39k"): "reproduced", ("Former-DFER", "FERV39k"): "-"}


@lru_cache(maxsize=None)
def printed(model: str, variant: str, dataset: str, column: str) -> float:
    """A printed percentage, or NaN where the paper has none (``published.printed_metric``)."""
    try:
        return float(published.printed_metric(model_name(model), variant, dataset, column))
    except InputError:
        return float("nan")


def printed_strategy(model: str) -> str | None:
    """Which row of Table 3 the paper's Tables 1 and 2 show as "(+)AU-DFER" for this network (same WAR and UAR)."""

    def totals(variant: str) -> list[float]:
        return [printed(model, variant, "DFEW", metric) for metric in ("WAR", "UAR")]

    return next((strategy for strategy in STRATEGIES if totals(strategy) == totals("audfer")), None)


def remarks_on(model: str, variant: str, dataset: str) -> list[str]:
    """What the audit of the printed numbers says about one printed row."""
    name, remarks, shown = model_name(model), [], variant
    if variant == "audfer":
        shown = printed_strategy(model)
        if shown is not None:
            remarks.append(
                f"the paper's (+)AU-DFER row of {name} is its “{shown}” row of Table 3, "
                "the best of three on the test clips"
            )
    measured_on = _MEASURED_ON.get((name, dataset))
    if (name, dataset) == ("Former-DFER", "DFEW") and shown in ("baseline", "minor"):
        measured_on = "pooled over DFEW's five folds (11697 clips)"
    if measured_on:
        remarks.append(f"printed row: {measured_on}")
    if variant == "baseline":
        remarks += _upstream(name, dataset)
        if name == "KP-GCN":
            remarks += _kpgcn_remarks(dataset)
    return remarks


def _kpgcn_remarks(dataset: str) -> list[str]:
    """What the printed row of KP-GCN's own paper is, and where it does not add up."""
    if dataset not in published.KPGCN_TABLES:
        return []
    row = published.kpgcn_row(dataset)
    remarks = [f"printed row: KP-GCN's own paper, Table {published.KPGCN_TABLES[dataset]}; AU-DFER's has none"]
    others = [label for label in row if label not in (*EXPRESSIONS, "WAR", "UAR", "Params_M")]
    if not all(name in row for name in EXPRESSIONS):
        return remarks
    classes = np.array([row[name] for name in EXPRESSIONS])
    if others:
        shown = ", ".join(f"{label.lower()} {row[label]:.2f}" for label in others)
        remarks.append(
            f"the printed row has {len(EXPRESSIONS) + len(others)} classes ({shown} as well), and its WAR and UAR are "
            f"over all of them; over the seven shown its UAR would be {classes.mean():.2f}"
        )
        return remarks
    counts = np.array(list(published.class_counts(dataset, "test").values()))
    hits = published.integer_count(row["WAR"], counts.sum()) if dataset == "DFEW" else None
    if hits is not None:
        remarks.append(
            f"printed WAR: {hits} of the {counts.sum()} clips of one fold, though the paper calls it an average of five"
        )
    weighted = classes @ counts / counts.sum()
    if abs(weighted - row["WAR"]) > 0.1:
        remarks.append(
            f"the printed classes give WAR {weighted:.2f} and UAR {classes.mean():.2f}, not the {row['WAR']:.2f} and "
            f"{row['UAR']:.2f} beside them: another run's, or misprinted"
        )
    return remarks


def _upstream(name: str, dataset: str) -> list[str]:
    """The baseline as the network's own authors publish it, where the protocol is that of the paper's row."""
    fold = _UPSTREAM_FOLDS.get((name, dataset))
    rows = published.load("upstream_results")
    rows = rows[(rows["method"] == name) & (rows["dataset"] == dataset) & (rows["fold"] == fold)]
    return [
        f"{name}'s authors publish WAR {row.WAR:.2f}, UAR {row.UAR:.2f} for this baseline"
        + (" (fold 1)" if fold == "1" else "")
        for row in rows.itertuples()
    ]


def misprints(model: str, variant: str, table: int) -> list[str]:
    """The cells of a printed row that are misprinted."""
    wrong = published.corrections()
    stored = {"audfer": "+AU-DFER", "baseline": "local replication baseline"}.get(variant, variant)
    wrong = wrong[(wrong["table"] == table) & (wrong["method"] == model_name(model)) & (wrong["variant"] == stored)]
    return [
        f"misprint in Table {table}: {row.column} {row.printed} should be {row.corrected:.2f} ({row.why})"
        for row in wrong.itertuples()
    ]
