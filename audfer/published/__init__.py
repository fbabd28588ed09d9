"""The printed numbers of the paper and its neighbours, and what the paper's released code contains.

The csv files beside this module are transcriptions (``SOURCES.md`` says from where): nothing in them is corrected.
Where a printed number is known to be wrong, ``corrections()`` lists it, and the accessors return what is *printed*
unless ``corrected=True`` is asked for. Percentages stay percentages (0 to 100).

``audfer.audit`` holds the consistency checks, ``audfer.printed`` and ``audfer.release`` point them at these tables.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..facs import ACTION_UNITS, EXPRESSION_HEADINGS, EXPRESSIONS, PRINTED_EXPRESSIONS

HERE = Path(__file__).parent
#: names that ``load`` knows
TABLES: tuple[str, ...] = tuple(sorted(path.stem for path in HERE.glob("*.csv")))
METRICS: tuple[str, ...] = ("WAR", "UAR")

#: column codes of KP-GCN's Table 7 -> labels of MAFW's eleven classes
MAFW_CODES: dict[str, str] = {
    "AN": "Anger",
    "DI": "Disgust",
    "FE": "Fear",
    "HA": "Happiness",
    "NE": "Neutral",
    "SA": "Sadness",
    "SU": "Surprise",
    "CO": "Contempt",
    "AX": "Anxiety",
    "HL": "Helplessness",
    "DS": "Disappointment",
}
#: dataset -> table with KP-GCN's results on it
KPGCN_TABLES: dict[str, int] = {"DFEW": 3, "AFEW": 4, "FERV39k": 5, "MAFW": 7}

# every spelling of a label in class_counts.csv -> ours; MAFW's four compound classes have none
_LABELS = {"Anger": "angry", "Happiness": "happy", "Sadness": "sad"} | dict(
    zip(PRINTED_EXPRESSIONS, EXPRESSIONS, strict=True)
)


@lru_cache(maxsize=None)
def _load(name: str) -> pd.DataFrame:
    table = pd.read_csv(
        HERE / f"{name}.csv",
        dtype={"printed": str, "fold": str, "ref": str, "actor": str},
        keep_default_na=False,
        na_values={
            "note": [""],
            "pos_weight": [""],
            "implied_rate": [""],
            "implied_frames_minimal": [""],
            "implied_positive_frames": [""],
            "UAR": [""],
        },
    )
    if "printed" in table:
        table["value"] = pd.to_numeric(table["printed"], errors="coerce")
    return table


def load(name: str) -> pd.DataFrame:
    """One transcribed table, for example ``load("audfer_table1")``.

    Tables with a ``printed`` column (text, exactly as printed) get a ``value`` column beside it: the number, or NaN
    where the paper prints a dash or words.

    Raises:
        InputError: no table has this name.
    """
    if name not in TABLES:
        raise InputError(HERE, "table name", repr(name), f"one of {', '.join(TABLES)}")
    return _load(name).copy()


# ---------------------------------------------------------------------------------------------- dataset statistics


def _counts(table: str, unit: str, dataset: str, split: str, fold) -> dict[str, int]:
    rows = _load(table)
    # seven-class MAFW is what the paper's own rows use (AUDIT.md 7); its eleven classes stay reachable through load()
    stored = "MAFW-7" if dataset == "MAFW" else dataset
    rows = rows[rows["dataset"] == stored]
    if rows.empty:
        known = sorted(set(_load(table)["dataset"]) - {"MAFW-7"})
        raise InputError(HERE / f"{table}.csv", "dataset", repr(dataset), f"one of {', '.join(known)}")
    rows = rows[rows["split"] == split]
    if rows.empty:
        raise InputError(HERE / f"{table}.csv", f"split of {dataset}", repr(split), "a split of that dataset")
    if set(rows["fold"]) != {"-"}:  # FERV39k and AFEW have one official split: the fold does not matter there
        found = rows[rows["fold"] == str(fold)]
        if found.empty:
            raise InputError(
                HERE / f"{table}.csv",
                f"fold of {dataset} {split}",
                repr(fold),
                f"one of {', '.join(sorted(set(rows['fold'])))}",
            )
        rows = found
    # two annotation sources hold the same clips with the same labels (AUDIT.md): take the first
    rows = rows[rows["source"] == rows["source"].iloc[0]]
    counts = dict.fromkeys(EXPRESSIONS, 0)
    for label, number in zip(rows["label"], rows[unit], strict=True):
        counts[_LABELS[label]] += int(number)
    return counts


def class_counts(dataset: str, split: str = "train", fold: int | str = 1) -> dict[str, int]:
    """Number of clips of each expression, in ``EXPRESSIONS`` order.

    Args:
        dataset: "DFEW", "FERV39k", "MAFW" (the seven basic classes) or "AFEW".
        split: "train" or "test" (AFEW: "train" or "validation").
        fold: 1 to 5; "1-5" is the union of DFEW's five test folds. FERV39k and AFEW have one split and ignore it.

    Raises:
        InputError: there is no such dataset, split or fold.

    Example:
        >>> class_counts("DFEW", "test", 1)["disgust"]
        29
    """
    return _counts("class_counts", "clips", dataset, split, fold)


def frame_counts(dataset: str, split: str = "train", fold: int | str = 1) -> dict[str, int]:
    """Number of frames of each expression ("DFEW" and "FERV39k" only); otherwise like ``class_counts``."""
    return _counts("frame_counts", "frames", dataset, split, fold)


def _release_vectors(dataset: str, option: str) -> np.ndarray:
    name = f"release_pos_weight_{dataset.lower()}"
    if name not in TABLES:
        raise InputError(HERE, "dataset", repr(dataset), "DFEW or FERV39k (the release has no weights for others)")
    rows = _load(name)
    rows = rows[rows["option"] == option]
    if rows.empty:
        raise InputError(HERE / f"{name}.csv", "strategy", repr(option), "global, distinct or minor")
    wide = rows.pivot(index="expression", columns="au", values="pos_weight")
    order = ["all"] if option == "global" else list(PRINTED_EXPRESSIONS)
    return wide.loc[order, list(ACTION_UNITS)].to_numpy(np.float64, copy=True)


def released_pos_weight(dataset: str, strategy: str) -> np.ndarray:
    """Positive class weights as the release wires them, faults included (RELEASE_FORENSICS.md section 2).

    They were computed from frames of training and test clips together, DFEW's fear row belongs to another population,
    and fear's "minor" row is another dataset's (DFEW) or another class's (FERV39k).

    Returns:
        float64, (18,) for "global", (7, 18) for "distinct" and "minor".
    """
    vectors = _release_vectors(dataset, strategy)
    return vectors[0] if strategy == "global" else vectors


def presence_rates(dataset: str) -> np.ndarray:
    """How often OpenFace finds each AU in frames of each expression: 1 / (1 + released "distinct" weight).

    DFEW's fear row was computed over a different population (372907 frames where fear has 57930), so FERV39k's fear
    row stands in for it.

    Returns:
        (7, 18) float64 in (0, 1), for "DFEW" or "FERV39k".

    Raises:
        InputError: another dataset; the release holds no weights for it.
    """
    weights = _release_vectors(dataset, "distinct")
    if dataset == "DFEW":
        fear = EXPRESSIONS.index("fear")
        weights[fear] = _release_vectors("FERV39k", "distinct")[fear]
    return 1.0 / (1.0 + weights)


def knowledge(which: str = "figure") -> np.ndarray:
    """The paper's knowledge matrix, (7, 18) float64.

    Args:
        which: "figure" is Fig. 4 as printed (two decimals), "K1" the same at full precision, "K2" the variant in the
            release whose logits are centred on the mid-range, "K0" the release's normal density of K2's logits (not
            in (0, 1)).

    Raises:
        InputError: another name.
    """
    if which == "figure":
        rows = _load("audfer_fig4_knowledge").assign(cell=lambda t: t["value"])
    else:
        rows = _load("release_knowledge")
        rows = rows[rows["matrix"] == which].assign(cell=lambda t: t["value"])
        if rows.empty:
            raise InputError(HERE / "release_knowledge.csv", "matrix", repr(which), "figure, K1, K2 or K0")
    wide = rows.pivot(index="expression", columns="au", values="cell")
    return wide.loc[list(PRINTED_EXPRESSIONS), list(ACTION_UNITS)].to_numpy(np.float64, copy=True)


# ------------------------------------------------------------------------------------------------- printed results

_VARIANTS = {  # what callers may say -> (table 1 and 2 variant, table 3 strategy); None where a table lacks it
    "baseline": ("local replication baseline", "Baseline"),
    "none": ("local replication baseline", "Baseline"),
    "local replication baseline": ("local replication baseline", "Baseline"),
    "audfer": ("+AU-DFER", None),
    "+AU-DFER": ("+AU-DFER", None),
    "as printed": ("as printed", None),
    "global": (None, "global pos."),
    "distinct": (None, "distinct pos."),
    "minor": (None, "minor pos."),
}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


@lru_cache
def _long(table: int) -> pd.DataFrame:
    """Tables 1 to 3 under one set of columns: table, method, variant, dataset, column, printed, value, key
    (``_plain``).
    """
    rows = _load(f"audfer_table{table}").rename(columns={"metric": "column", "strategy": "variant"})
    rows = rows.assign(table=table, method=rows["method"].replace("R(2+1)D", "R(2+1)D18"))
    rows = rows.assign(key=rows["method"].map(_plain))
    return rows[["table", "method", "variant", "dataset", "column", "printed", "value", "key"]]


@lru_cache(maxsize=None)
def _corrections() -> pd.DataFrame:
    keys = ["table", "method", "variant", "dataset", "column"]
    printed = pd.concat([_long(table) for table in (1, 2, 3)])
    return _load("corrections").merge(printed, on=keys, how="left")[[*keys, "printed", "corrected", "why"]]


def corrections() -> pd.DataFrame:
    """Printed result cells that are wrong beyond reasonable doubt, with the value that fits and why.

    Columns: table, method, variant, dataset, column, printed (text), corrected (float), why. FRU-Adapter's row in
    Table 2 is not here: it is assembled from other rows, so no true value can be given (see ``load("audit")``).
    """
    return _corrections().copy()


def printed_metric(
    method: str, variant: str, dataset: str = "DFEW", column: str = "WAR", *, corrected: bool = False
) -> float:
    """One result as the paper prints it, in percent.

    Args:
        method: a method's name as in the tables, any capitals or punctuation ("m3dfel", "MAE-DFER", "former_dfer").
        variant: "baseline" (the authors' local replication; also "none"; of KP-GCN its own paper's row), "audfer"
            (Tables 1 and 2), one of Table 3's strategies "global", "distinct", "minor", or "as printed" for the
            literature's rows.
        dataset: "DFEW", "FERV39k" or "MAFW"; classes, FLOPs and strategies exist for DFEW only.
        column: "WAR", "UAR", a class ("happy" or "Hap.") or "FLOPs_G".
        corrected: replace known misprints (``corrections``).

    Returns:
        The number, or NaN where the paper prints a dash.

    Raises:
        InputError: the paper has no such cell.

    Example:
        >>> printed_metric("mae_dfer", "audfer", column="fear")
        34.35
        >>> printed_metric("mae_dfer", "audfer", column="fear", corrected=True)
        34.25
    """
    if variant not in _VARIANTS:
        raise InputError("published results", "variant", repr(variant), f"one of {', '.join(_VARIANTS)}")
    in_first, in_third = _VARIANTS[variant]
    if _plain(method) == _plain("KP-GCN") and in_third == "Baseline":
        row, name = kpgcn_row(dataset), dict(zip(EXPRESSION_HEADINGS, EXPRESSIONS, strict=True)).get(column, column)
        if name in row:
            return row[name]
    if column in EXPRESSIONS:
        column = EXPRESSION_HEADINGS[EXPRESSIONS.index(column)]
    # Table 1 where it can answer (all datasets), else Table 2 (DFEW's classes and FLOPs), else Table 3
    candidates = [(1, in_first), (2, in_first), (3, in_third)]
    for table, stored in candidates:
        rows = _long(table)
        rows = rows[
            (rows["key"] == _plain(method))
            & (rows["variant"] == stored)
            & (rows["dataset"] == dataset)
            & (rows["column"] == column)
        ]
        if len(rows):
            break
    else:
        raise InputError(
            "published results", "cell", f"{method}, {variant}, {dataset}, {column}", "a cell of Tables 1 to 3"
        )
    row = rows.iloc[0]
    if corrected:
        fixed = _corrections()
        fixed = fixed[
            (fixed["table"] == table)
            & (fixed["method"] == row["method"])
            & (fixed["variant"] == row["variant"])
            & (fixed["dataset"] == dataset)
            & (fixed["column"] == column)
        ]
        if len(fixed):
            return float(fixed["corrected"].iloc[0])
    return float(row["value"])


def kpgcn_row(dataset: str) -> dict[str, float]:
    """KP-GCN's own row on a dataset as its paper prints it (Tables 3, 4, 5, 7; AU-DFER's paper has none).

    Returns:
        Percent right of each class (our name where it is one of the seven, MAFW's others as printed), WAR, UAR, and
        Params_M.
        UAR and WAR are over all classes that are printed: eleven on MAFW.

    Raises:
        InputError: another dataset.

    Example:
        >>> kpgcn_row("DFEW")["WAR"]
        68.73
    """
    if dataset not in KPGCN_TABLES:
        raise InputError("published results of KP-GCN", "dataset", repr(dataset), f"one of {', '.join(KPGCN_TABLES)}")
    rows = _load(f"kpgcn_table{KPGCN_TABLES[dataset]}")
    rows = rows[rows["method"].str.casefold() == "ours"]
    labels = [MAFW_CODES.get(column, column) for column in rows["column"]]
    return {_LABELS.get(label, label): float(value) for label, value in zip(labels, rows["value"], strict=True)}


def printed_row(method: str, variant: str, dataset: str = "DFEW", *, corrected: bool = False) -> pd.Series:
    """A whole printed row in percent: the seven classes (where printed), WAR, UAR and FLOPs_G (where printed).

    Arguments as for ``printed_metric``; the index holds the paper's column headings.

    Raises:
        InputError: the paper has no such row.
    """
    cells = {}
    for column in (*EXPRESSION_HEADINGS, *METRICS, "FLOPs_G"):
        try:
            cells[column] = printed_metric(method, variant, dataset, column, corrected=corrected)
        except InputError:
            if column in METRICS:
                raise
    return pd.Series(cells, name=f"{method} ({variant}), {dataset}", dtype=float)


# ------------------------------------------------------------------------------------------- clips behind a percentage


def integer_count(percent: float, total: int, decimals: int = 2) -> int | None:
    """The whole number of clips k with 100 k / total equal to ``percent`` at its printed precision, or ``None``.

    A percentage measured on ``total`` clips must have one, so ``None`` proves another denominator, an average, or a
    misprint. With more than 10**decimals * 100 clips every percentage has one and the test says nothing.

    Example:
        >>> integer_count(10.34, 29), integer_count(10.30, 29)
        (3, None)
    """
    if not total or np.isnan(percent):
        return None
    count = round(percent * total / 100)
    return count if abs(100 * count / total - percent) <= 0.5 * 10.0**-decimals + 1e-9 else None


def dfew_protocols() -> dict[str, list[int]]:
    """Class counts of DFEW's test folds 1 to 5 and of their union ("1-5"): what a class accuracy can be a share of."""
    return {fold: list(class_counts("DFEW", "test", fold).values()) for fold in ("1", "2", "3", "4", "5", "1-5")}
