"""Tables 1 to 3 of the paper from run records, with the printed numbers beside ours.

Each function returns a ``Table``: tidy numbers (what goes to csv), a wide form to read, a caption that says what was
measured on what and how, and notes on printed cells that are known to be affected by something. Percentages are 0 to
100.

The tables take whatever the records hold: other networks, fewer datasets, several seeds. A cell without a record is
an em dash.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape

import numpy as np
import pandas as pd

from .. import published
from ..errors import InputError
from ..evaluation.statistics import (
    LEVEL,
    Comparison,
    Interval,
    Summary,
    compare,
    effective_count,
    holm,
    minimum_detectable_difference,
    summary,
)
from ..facs import EVALUATION_DATASETS, EXPRESSION_HEADINGS, EXPRESSIONS
from ..study.ablations import ABLATIONS, CONTROLS, KNOWLEDGE, NO_HEAD, PLAIN_BCE, ablation_records

#: names of ``models.build_model`` -> names as the papers print them, in the order of the paper's tables
MODEL_NAMES: dict[str, str] = {
    "m3dfel": "M3DFEL",
    "mae_dfer": "MAE-DFER",
    "former_dfer": "Former-DFER",
    "keypoint_gcn": "KP-GCN",
}
STRATEGIES: tuple[str, ...] = ("none", "global", "distinct", "minor")
STRATEGY_NAMES: dict[str, str] = {
    "none": "no AU (baseline)",
    "global": "global",
    "distinct": "distinct",
    "minor": "minor",
}
#: the network itself, in tables of its variants
FULL = "full network"
DASH = "—"


@dataclass(frozen=True)
class Table:
    """A table to read and to save (``outputs.save_table``); a notebook shows it as HTML.

    Attributes:
        tidy: one row a number.
        display: the same numbers as text, wide.
        caption: what was measured, on what, how.
        notes: lettered remarks that ``display``'s note column points at.
        digests: names of the run records the numbers come from.
    """

    tidy: pd.DataFrame
    display: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    digests: tuple[str, ...] = field(default=(), repr=False)

    def to_markdown(self) -> str:
        """Caption, table and notes as Markdown."""
        return "\n".join(
            [
                self.caption,
                "",
                markdown_table(self.display),
                *([""] if self.notes else []),
                *(f"- {note}" for note in self.notes),
                "",
            ]
        )

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"<p><b>{escape(self.caption)}</b></p>{self.display.to_html(index=False, border=0, justify='left')}" + (
            f"<ul style='font-size:smaller'>{notes}</ul>" if notes else ""
        )

    def __repr__(self) -> str:
        return f"{self.caption}\n\n{self.display.to_string(index=False)}"


def markdown_table(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table; missing values are em dashes, bars in text are escaped."""

    def cell(value) -> str:
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            return DASH
        return str(value).replace("|", "\\|")

    lines = ["| " + " | ".join(map(cell, frame.columns)) + " |", "|" + " --- |" * frame.shape[1]]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in frame.itertuples(index=False, name=None)]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ choosing records
#: cell settings that tell cells of one model and dataset apart, in the order in which ``select`` settles them
_SETTINGS = ("weights", "au_ratio", "strategy", "knowledge")


def select(records: Sequence, **settings) -> list:
    """The records of one cell (one a seed) that has these settings; an empty list if there is none.

    Args:
        records: run records.
        settings: required values of ``record.cell``, for example ``model="m3dfel", dataset="DFEW", au_ratio=0.25``; a
            function is called with the value. What is left open is settled by what is commonest among all the records
            that have an AU head, so that one odd cell of an ablation does not slip into a table.
    """

    def fits(record) -> bool:
        return all(
            value(record.cell.get(key)) if callable(value) else record.cell.get(key) == value
            for key, value in settings.items()
        )

    found = [record for record in records if fits(record)]
    with_head = [record for record in records if record.cell.get("au_ratio", 0) > 0]
    others = sorted({key for record in found for key in record.cell} - {*_SETTINGS, "seed"})
    for key in (*_SETTINGS, *others):
        values = Counter(repr(record.cell.get(key)) for record in found)
        if len(values) > 1:
            overall = Counter(repr(record.cell.get(key)) for record in with_head)
            chosen = max(values, key=lambda value: (overall[value], values[value]))
            found = [record for record in found if repr(record.cell.get(key)) == chosen]
    unique = {record.cell.get("seed", 0): record for record in found}
    return [unique[seed] for seed in sorted(unique)]


def _positive(ratio) -> bool:
    return bool(ratio) and ratio > 0


def _no_head(ratio) -> bool:
    return not ratio


def _default(choice) -> bool:
    return not choice


def baseline_records(records: Sequence, model: str, dataset: str) -> list:
    """The network alone (AU ratio 0), one record a seed."""
    return select(records, model=model, dataset=dataset, au_ratio=_no_head, variant=_default)


def au_records(
    records: Sequence, model: str, dataset: str, strategy: str | None = None, au_ratio: float | None = None
) -> list:
    """The network with the AU head and knowledge weights, one record a seed; open settings as in ``select``."""
    settings = {} if strategy is None else {"strategy": strategy}
    return select(
        records,
        model=model,
        dataset=dataset,
        au_ratio=_positive if au_ratio is None else au_ratio,
        weights=lambda weights: weights in (None, "knowledge"),
        reading=lambda reading: reading in (None, "paper"),
        variant=_default,
        au_source=_default,
        **settings,
    )


# ------------------------------------------------------------------------------------------------------------ folds
def pooled(records: Sequence) -> list:
    """Records with the folds of each cell joined: every clip judged by the network that has not seen it.

    Args:
        records: run records; those of cells with one fold stay as they are.

    Returns:
        Record-like objects. A joined one has the clips of all its folds one after the other, ``cell["fold"]`` as text
        ("1, 2, 3"), the mean history, and its ``parts``.

    Raises:
        InputError: a clip is a test clip of two folds.
    """
    cells = defaultdict(dict)
    for record in records:
        key = repr(sorted((name, value) for name, value in record.cell.items() if name != "fold"))
        cells[key][record.cell.get("fold", 1)] = record
    return [
        _joined([folds[k] for k in sorted(folds)]) if len(folds) > 1 else next(iter(folds.values()))
        for folds in cells.values()
    ]


def _joined(parts: list):
    clips = [clip for part in parts for clip in part.clip_ids]
    if len(set(clips)) < len(clips):
        twice = next(clip for clip, times in Counter(clips).items() if times > 1)
        raise InputError(
            parts[0].path,
            "test clips of the folds",
            f"{twice} in several of them",
            "every clip in one fold's test split",
        )
    whole = copy(parts[0])
    whole.parts, whole.clip_ids = tuple(parts), clips
    whole.cell = {**parts[0].cell, "fold": ", ".join(str(part.cell.get("fold", 1)) for part in parts)}
    for name in (
        "expressions",
        "scores",
        "best_scores",
        "validated_scores",
        "au_scores",
        "au_labels",
        "features",
        "groups",
    ):
        arrays = [getattr(part, name, None) for part in parts]
        setattr(whole, name, None if any(array is None for array in arrays) else np.concatenate(arrays))
    whole.history = pd.concat([part.history for part in parts]).groupby("epoch", as_index=False).mean()
    whole.best_epoch = int(np.median([part.best_epoch for part in parts]))
    whole.seconds = sum(part.seconds for part in parts)
    return whole


def of_fold(records: Sequence, fold: int | None) -> list:
    """The records of one fold (of all datasets that have it), or for ``None`` all folds ``pooled``."""
    if fold is None:
        return pooled(records)
    several = {r.cell["dataset"] for r in records if r.cell.get("fold", 1) != 1}
    return [r for r in records if r.cell["dataset"] not in several or r.cell.get("fold", 1) == fold]


def _parts(record) -> tuple:
    return getattr(record, "parts", (record,))


def _fold_numbers(cell: list, protocol: str, metric: str) -> dict:
    """Mean and standard deviation over folds of WAR or UAR (percent); NaN for one fold."""
    by_fold = defaultdict(list)
    for record in cell:
        for part in _parts(record):
            found = summary(part, protocol)
            by_fold[part.cell.get("fold", 1)].append((found.war if metric == "WAR" else found.uar).value)
    means = [100 * np.mean(values) for values in by_fold.values()]
    several = len(means) > 1
    return {
        "folds": len(means),
        "fold_mean": np.mean(means) if several else np.nan,
        "fold_sd": np.std(means, ddof=1) if several else np.nan,
    }


def present(records: Sequence, key: str, order: Sequence[str]) -> list[str]:
    """Values of a cell field among the records: those of ``order`` first, in that order, then others by name."""
    seen = {record.cell[key] for record in records}
    return [name for name in order if name in seen] + sorted(seen - set(order))


def model_name(model: str) -> str:
    """A network's name as the papers print it."""
    return MODEL_NAMES.get(model, model)


# ------------------------------------------------------------------------------------------- the paper's own numbers
@lru_cache(maxsize=None)
def printed(model: str, variant: str, dataset: str, column: str) -> float:
    """A printed percentage, or NaN where the paper has none (``published.printed_metric``)."""
    try:
        return float(published.printed_metric(model_name(model), variant, dataset, column))
    except InputError:
        return float("nan")


def printed_strategy(model: str) -> str | None:
    """Which row of Table 3 the paper's Tables 1 and 2 show as "(+)AU-DFER" for this network (same WAR and UAR)."""
    target = [printed(model, "audfer", "DFEW", metric) for metric in ("WAR", "UAR")]
    for strategy in STRATEGIES[1:]:
        if [printed(model, strategy, "DFEW", metric) for metric in ("WAR", "UAR")] == target:
            return strategy
    return None


def _remarks(model: str, variant: str, dataset: str) -> list[str]:
    """What the audit of the printed numbers found about one own row (published/audit.csv)."""
    name, remarks = model_name(model), []
    shown = variant
    if variant == "audfer":
        shown = printed_strategy(model)
        if shown is not None:
            remarks.append(
                f"the paper's (+)AU-DFER row of {name} is its “{shown}” row of Table 3, "
                "the best of three on the test clips"
            )
    if dataset == "DFEW" and name in ("M3DFEL", "MAE-DFER"):
        remarks.append("printed row: one fold of DFEW (1 or 2, 2341 clips, 29 of them Disgust), not five")
    if dataset == "DFEW" and name == "Former-DFER":
        remarks.append(
            "printed row: pooled over DFEW's five folds (11697 clips)"
            if shown in ("baseline", "minor")
            else "printed row: neither one fold of DFEW nor the five pooled"
        )
    if variant == "baseline":
        remarks += _upstream(name, dataset)
    if dataset == "MAFW" and name in ("M3DFEL", "MAE-DFER"):
        remarks.append("printed row: MAFW's seven basic classes, one fold (1517 clips)")
    if dataset == "MAFW" and name == "Former-DFER":
        remarks.append("printed row: MAFW's seven basic classes, fold not known")
    if name == "KP-GCN" and variant == "baseline":
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
            f"over "
            f"all of them; over the seven shown its UAR would be {classes.mean():.2f}"
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
    fold = {("MAE-DFER", "DFEW"): "1", ("MAE-DFER", "FERV39k"): "reproduced", ("Former-DFER", "FERV39k"): "-"}.get(
        (name, dataset)
    )
    rows = published.load("upstream_results")
    rows = rows[(rows["method"] == name) & (rows["dataset"] == dataset) & (rows["fold"] == fold)]
    return [
        f"{name}'s authors publish WAR {row.WAR:.2f}, UAR {row.UAR:.2f} for this baseline"
        + (" (fold 1)" if fold == "1" else "")
        for row in rows.itertuples()
    ]


def _misprints(model: str, variant: str, table: int) -> list[str]:
    wrong = published.corrections()
    stored = {"audfer": "+AU-DFER", "baseline": "local replication baseline"}.get(variant, variant)
    wrong = wrong[(wrong["table"] == table) & (wrong["method"] == model_name(model)) & (wrong["variant"] == stored)]
    return [
        f"misprint in Table {table}: {row.column} {row.printed} should be {row.corrected:.2f} ({row.why})"
        for row in wrong.itertuples()
    ]


class _Notes:
    """Letters for remarks, in the order in which they are met."""

    def __init__(self):
        self.texts: list[str] = []

    def refer(self, remarks: Sequence[str]) -> str:
        for text in remarks:
            if text not in self.texts:
                self.texts.append(text)
        return " ".join(sorted(self._letter(text) for text in remarks))

    def _letter(self, text: str) -> str:
        return chr(ord("a") + self.texts.index(text))

    def lines(self) -> tuple[str, ...]:
        return tuple(f"({self._letter(text)}) {text}." for text in self.texts)


# ---------------------------------------------------------------------------------------------------- our numbers
def _number(interval: Interval | None) -> dict:
    if interval is None:
        return {"ours": np.nan, "low": np.nan, "high": np.nan, "clips": 0}
    return {
        "ours": 100 * interval.value,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "clips": interval.count,
    }


def _rows(
    base: dict,
    cell: list,
    reference: list,
    metrics: Sequence[str],
    protocol: str,
    variant: str,
    remarks: Sequence[str],
    level: float,
) -> list[dict]:
    """Tidy rows of one cell: every metric with interval, difference to ``reference`` and the printed number."""
    numbers: Summary | None = summary(cell, protocol, level) if cell else None
    difference = compare(reference, cell, protocol, level) if cell and reference else None
    rows = []
    for metric in metrics:
        interval = (
            numbers
            and {"WAR": numbers.war, "UAR": numbers.uar, **dict(zip(EXPRESSIONS, numbers.per_class, strict=True))}[
                metric
            ]
        )
        row = {
            **base,
            "metric": metric,
            **_number(interval),
            "seeds": len(numbers.seeds) if numbers else 0,
            "seed_sd": np.nan,
            "difference": np.nan,
            "difference_low": np.nan,
            "difference_high": np.nan,
            "p": np.nan,
            "p_holm": np.nan,
            "test": "",
            "detectable": np.nan,
            "folds": 0,
            "fold_mean": np.nan,
            "fold_sd": np.nan,
            "paper": printed(base["model"], variant, base["dataset"], metric),
            "note": "; ".join(remarks),
        }
        if cell and metric in ("WAR", "UAR"):
            row |= _fold_numbers(cell, protocol, metric)
        if numbers and metric in ("WAR", "UAR") and len(numbers.seeds) > 1:
            row["seed_sd"] = 100 * float(
                np.std(numbers.war_by_seed if metric == "WAR" else numbers.uar_by_seed, ddof=1)
            )
        if difference:
            delta, p, test = _difference(difference, metric)
            row |= {
                "difference": 100 * delta.value,
                "difference_low": 100 * delta.low,
                "difference_high": 100 * delta.high,
                "p": p,
                "test": test,
                "detectable": _detectable(difference, numbers, metric),
            }
        rows.append(row)
    return rows


def _detectable(found: Comparison, numbers: Summary, metric: str) -> float:
    """Points of true difference in WAR or UAR that McNemar's test finds four times in five on these clips; else NaN."""
    if metric not in ("WAR", "UAR") or not found.discordance > 0:
        return np.nan
    clips = effective_count(numbers.confusion.sum(axis=1) / len(numbers.seeds), metric.lower())
    return 100 * minimum_detectable_difference(clips, found.discordance)


def _detectable_text(tidy: pd.DataFrame) -> str:
    """How small a difference the compared rows could have shown, as a sentence; "" without a comparison."""
    spans = []
    for metric in ("WAR", "UAR"):
        found = tidy.loc[tidy["metric"] == metric, "detectable"].dropna()
        if len(found):
            low, high = f"{found.min():.1f}", f"{found.max():.1f}"
            spans.append(f"{metric} {low if low == high else f'{low} to {high}'}")
    if not spans:
        return ""
    meaning = "found four times in five at the 5 % level, before Holm's correction"
    return f"Detectable with these clips ({meaning}), points: {', '.join(spans)}."


def _difference(found: Comparison, metric: str) -> tuple[Interval, float, str]:
    """Interval, p-value and test of WAR, UAR or one expression."""
    if metric in EXPRESSIONS:
        k = EXPRESSIONS.index(metric)
        return found.per_class[k], found.per_class_p[k], found.war_test
    return (found.war, found.war_p, found.war_test) if metric == "WAR" else (found.uar, found.uar_p, found.uar_test)


_COLUMNS = (
    "dataset",
    "model",
    "variant",
    "strategy",
    "au_ratio",
    "metric",
    "ours",
    "low",
    "high",
    "clips",
    "seeds",
    "seed_sd",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "test",
    "detectable",
    "folds",
    "fold_mean",
    "fold_sd",
    "paper",
    "note",
)


def _tidy(rows: list[dict]) -> pd.DataFrame:
    """Rows as a frame, with Holm's correction over the table's WARs and UARs, and apart from it over its classes."""
    tidy = pd.DataFrame(rows, columns=list(_COLUMNS))
    classes = tidy["metric"].isin(EXPRESSIONS)
    tidy["p_holm"] = np.where(classes, holm(tidy["p"].where(classes)), holm(tidy["p"].where(~classes)))
    return tidy


def _comparisons(tidy: pd.DataFrame) -> int:
    """How many WARs and UARs are compared."""
    return int(tidy.loc[tidy["metric"].isin(("WAR", "UAR")), "p"].notna().sum())


def _text(value: float, low: float = np.nan, high: float = np.nan, digits: int = 1, signed: bool = False) -> str:
    if not np.isfinite(value):
        return DASH
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if not np.isfinite(low):
        return text
    ends = (f"{x:+.{digits}f}" if signed else f"{x:.{digits}f}" for x in (low, high))
    return f"{text} [{', '.join(ends)}]"


def _ours(tidy: pd.DataFrame, digits: int = 1) -> dict[str, str]:
    return {row.metric: _text(row.ours, row.low, row.high, digits) for row in tidy.itertuples()}


def _paper(tidy: pd.DataFrame) -> dict[str, str]:
    return {row.metric: _text(row.paper, digits=2) for row in tidy.itertuples()}


def _fold_means(tidy: pd.DataFrame) -> dict[str, str]:
    """Means of folds where there are several, else nothing: the numbers beside them are then of all folds' clips
    pooled.
    """
    if tidy["fold_mean"].isna().all():
        return {}
    rows = tidy.set_index("metric")
    return {
        f"{metric}, mean of folds (sd)": f"{rows.loc[metric, 'fold_mean']:.1f} ({rows.loc[metric, 'fold_sd']:.1f})"
        if np.isfinite(rows.loc[metric, "fold_mean"])
        else DASH
        for metric in ("WAR", "UAR")
    }


def _differences(tidy: pd.DataFrame) -> dict[str, str]:
    cells = {}
    for metric in ("WAR", "UAR"):
        row = tidy[tidy["metric"] == metric].iloc[0]
        cells[f"Δ {metric} [95 %]"] = _text(
            row["difference"], row["difference_low"], row["difference_high"], signed=True
        )
        cells[f"p {metric}"] = p_text(row["p_holm"])
    return cells


def p_text(p: float) -> str:
    """``0.032``, ``<0.001`` or an em dash for NaN."""
    if not np.isfinite(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def describe(records: Sequence, protocol: str = "last", embedded: bool = True, comparisons: int = 0) -> str:
    """The part of a caption that says what our numbers are: input, clips, seeds, epochs, intervals, tests.

    Args:
        records: the run records that are shown.
        comparisons: how many p-values Holm's correction covers; 0 if the table or figure has none.
    """
    if not records:
        return "No run records yet."
    records = pooled(records)
    clips = {}
    for record in records:
        clips.setdefault(record.cell["dataset"], set()).add(len(record.clip_ids))
    shown = {name: "/".join(map(str, sorted(clips[name]))) for name in present(records, "dataset", EVALUATION_DATASETS)}
    clips_text = ", ".join(f"{name} {count}" for name, count in shown.items())
    joined = {f"{record.cell['dataset']} {record.cell['fold']}" for record in records if len(_parts(record)) > 1}
    if joined:
        clips_text += f", pooled over folds ({'; '.join(sorted(joined))})"
    seeds = sorted({record.cell.get("seed", 0) for record in records})
    sizes = sorted({str(record.cell.get("size", "")) for record in records} - {""})
    epochs = sorted({len(record.history) for record in records})
    where = (
        f"embedded benchmark (rendered faces in the datasets' layouts, not the datasets); test clips: {clips_text}"
        if embedded
        else f"test clips: {clips_text}"
    )
    seed_text = (
        f"seed {seeds[0]}"
        if len(seeds) == 1
        else f"{len(seeds)} seeds ({', '.join(map(str, seeds))}) averaged clip by clip"
    )
    epoch_text = "/".join(map(str, epochs)) + (" epoch" if epochs == [1] else " epochs")
    when = {
        "last": f"last of {epoch_text}",
        "best-on-validation": f"best of {epoch_text} on held-out training clips",
        "best-on-test": f"best of {epoch_text} on the test clips themselves (flatters)",
    }[protocol]
    parts = [
        f"Ours: {where}; {' and '.join(sizes)}{'-size' if sizes else ''} networks; {seed_text}; {when}.",
        f"Brackets: {100 * LEVEL:.0f} % intervals over clips (WAR and classes: Wilson; UAR: Monte Carlo of "
        "class-wise Beta posteriors, Jeffreys prior).",
    ]
    if comparisons:
        over = f"the table's {comparisons} WARs and UARs (its classes apart, in the csv)"
        parts.append(_how_compared(records, over))
    empty = [
        EXPRESSIONS[k]
        for k in range(len(EXPRESSIONS))
        if any(not np.any(np.asarray(r.expressions) == k) for r in records)
    ]
    if empty:
        parts.append(f"Without test clips in at least one dataset, hence left out of its UAR: {', '.join(empty)}.")
    return " ".join(parts)


def _how_compared(records: Sequence, over: str) -> str:
    """What differences and p-values are; ``over``: what Holm's correction covers."""
    seeds = {record.cell.get("seed", 0) for record in records}
    grouped = any(getattr(record, "groups", None) is not None for record in records)
    clips = "subjects or videos" if grouped else "clips within classes"
    if len(seeds) == 1:
        test = (
            "sign-flip permutation of subjects or videos" if grouped else "exact McNemar (UAR: sign-flip permutation)"
        )
        reach = " One seed: about these trained networks, not about training again."
    else:
        test, reach = f"t test over seeds and {'subjects or videos' if grouped else 'clips'}", ""
    return (
        f"Δ: paired difference in points, bootstrap of {clips}{'' if len(seeds) == 1 else ' and of seeds'}; p: {test}, "
        f"Holm-corrected over {over}.{reach}"
    )


def _paper_sentence(embedded: bool) -> str:
    return (
        "The paper's numbers are for the real datasets: another input, shown for orientation, not comparable."
        if embedded
        else "The paper's numbers are as printed; its folds are mixed (see the notes)."
    )


def _paper_heading(embedded: bool) -> str:
    return "paper (other input)" if embedded else "paper"


def digests_of(records: Sequence) -> tuple[str, ...]:
    """Names of the records' folders, sorted."""
    return tuple(sorted({getattr(part.path, "name", str(part.path)) for record in records for part in _parts(record)}))


# ---------------------------------------------------------------------------------------------------------- tables
def table1(
    records: Sequence,
    *,
    protocol: str = "last",
    strategy: str | None = None,
    au_ratio: float | None = None,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    fold: int | None = None,
    embedded: bool = True,
    level: float = LEVEL,
) -> Table:
    """Table 1: WAR and UAR of every network on every dataset, without and with AU-DFER (section 5.1).

    Args:
        records: run records; those with AU ratio 0 are the networks alone, see ``au_records`` for the others.
        strategy, au_ratio: which AU cells to show; ``None`` takes the commonest among the records.
        models, datasets: rows to show; ``None`` takes those that the records hold.
        fold: one fold of the datasets that have several; ``None`` pools them (and the csv also has the mean of the
            folds).
        embedded: whether the clips are rendered (the caption says so).
    """
    records = of_fold(records, fold)
    models = present(records, "model", tuple(MODEL_NAMES)) if models is None else models
    datasets = present(records, "dataset", EVALUATION_DATASETS) if datasets is None else datasets
    rows, lines, used, notes = [], [], [], _Notes()
    for dataset in datasets:
        for model in models:
            alone = baseline_records(records, model, dataset)
            joined = au_records(records, model, dataset, strategy, au_ratio)
            for cell, reference, variant, label in (
                (alone, [], "baseline", "without AU"),
                (joined, alone, "audfer", "with AU"),
            ):
                remarks = _remarks(model, variant, dataset)
                rows += _rows(
                    _identity(cell, model, dataset, label),
                    cell,
                    reference,
                    ("WAR", "UAR"),
                    protocol,
                    variant,
                    remarks,
                    level,
                )
                lines.append((dataset, model, label, notes.refer(remarks)))
                used += cell
    tidy, display = _tidy(rows), []
    for dataset, model, label, letters in lines:
        part = tidy[(tidy["dataset"] == dataset) & (tidy["model"] == model) & (tidy["variant"] == label)]
        ours, paper = _ours(part), _paper(part)
        heading = _paper_heading(embedded)
        display.append(
            {
                "Dataset": dataset,
                "Network": model_name(model),
                "Variant": label,
                "WAR [95 %]": ours["WAR"],
                "UAR [95 %]": ours["UAR"],
                **_fold_means(part),
                **_differences(part),
                f"WAR, {heading}": paper["WAR"],
                f"UAR, {heading}": paper["UAR"],
                "Notes": letters,
            }
        )
    caption = " ".join(
        [
            f"Table 1. WAR and UAR (percent) without and with AU-DFER{_settings_text(used)}.",
            describe(used, protocol, embedded, _comparisons(tidy)),
            *filter(None, [_detectable_text(tidy)]),
            _paper_sentence(embedded),
        ]
    )
    return Table(tidy, pd.DataFrame(display).fillna(DASH), caption, notes.lines(), digests_of(used))


def table2(
    records: Sequence,
    *,
    dataset: str = "DFEW",
    protocol: str = "last",
    strategy: str | None = None,
    au_ratio: float | None = None,
    models: Sequence[str] | None = None,
    fold: int | None = None,
    embedded: bool = True,
    paper_flops: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    level: float = LEVEL,
    title: str = "Table 2",
) -> Table:
    """Table 2: accuracy of every expression, WAR, UAR and cost of each network, without and with AU (section 5.1).

    Args:
        dataset: the paper's table is DFEW's.
        paper_flops: network -> "baseline" and "audfer" (with the AU head) -> ``models.count_flops`` of its paper-size
            form (``gflops``, ``gmacs``, ``parameters``), as ``Study.paper_flops`` gives it, to compare with the printed
            GFLOPs; ``None`` shows em dashes. Records carry the cost of the network that was trained.
        title: how the caption begins.
        protocol, strategy, au_ratio, models, fold, embedded, level: as in ``table1``.
    """
    records = of_fold(records, fold)
    models = present(records, "model", tuple(MODEL_NAMES)) if models is None else models
    rows, display, used, notes = [], [], [], _Notes()
    metrics = (*EXPRESSIONS, "WAR", "UAR")
    for model in models:
        alone = baseline_records(records, model, dataset)
        joined = au_records(records, model, dataset, strategy, au_ratio)
        for cell, variant, label in ((alone, "baseline", "without AU"), (joined, "audfer", "with AU")):
            remarks = _remarks(model, variant, dataset) + _misprints(model, variant, 2)
            base = _identity(cell, model, dataset, label)
            new = _rows(base, cell, alone if cell is joined else [], metrics, protocol, variant, remarks, level)
            cost = _cost_rows(
                base,
                cell,
                (paper_flops or {}).get(model, {}).get(variant),
                {
                    "GFLOPs": printed(model, variant, dataset, "FLOPs_G"),
                    "parameters": 1e6 * printed(model, variant, dataset, "Params_M"),
                },
            )
            rows += new + cost
            means = _fold_means(pd.DataFrame(new))
            display += _class_lines(new, model, label, notes.refer(remarks), {**means, **_cost_cells(cost)}, embedded)
            used += cell
    tidy = _tidy(rows)
    flops_printed = (tidy["metric"] == "paper-size GFLOPs") & tidy["paper"].notna()
    caption = " ".join(
        [
            f"{title}. Accuracy (percent) of each expression, WAR, UAR and cost on {dataset}, without and with "
            f"AU-DFER{_settings_text(used)}.",
            describe(used, protocol, embedded, _comparisons(tidy)),
            "Cost of one clip, measured: G multiply-adds / GFLOPs (a multiply-add is two operations), of the network "
            "trained here "
            f"and of the paper-size "
            f"one{'; the paper prints one number and calls it FLOPs' if flops_printed.any() else ''}."
            + _head_sentence(paper_flops or {}),
            *filter(None, [_detectable_text(tidy)]),
            _paper_sentence(embedded),
        ]
    )
    return Table(tidy, pd.DataFrame(display).fillna(DASH), caption, notes.lines(), digests_of(used))


def table3(
    records: Sequence,
    *,
    dataset: str = "DFEW",
    protocol: str = "last",
    au_ratio: float | None = None,
    models: Sequence[str] | None = None,
    strategies: Sequence[str] | None = None,
    fold: int | None = None,
    embedded: bool = True,
    level: float = LEVEL,
) -> Table:
    """Table 3: the network alone and with each positive-weight strategy of Eqs. 6 to 8 (section 5.2).

    Args:
        strategies: rows a network; ``None``: baseline ("none"), global, distinct, minor.
        dataset, protocol, au_ratio, models, fold, embedded, level: as in ``table2``.
    """
    records = of_fold(records, fold)
    models = present(records, "model", tuple(MODEL_NAMES)) if models is None else models
    strategies = STRATEGIES if strategies is None else strategies
    rows, lines, used, notes = [], [], [], _Notes()
    for model in models:
        alone = baseline_records(records, model, dataset)
        for strategy in strategies:
            cell = alone if strategy == "none" else au_records(records, model, dataset, strategy, au_ratio)
            variant = "baseline" if strategy == "none" else strategy
            remarks = _remarks(model, variant, dataset)
            label = STRATEGY_NAMES.get(strategy, strategy)
            rows += _rows(
                _identity(cell, model, dataset, label, strategy),
                cell,
                [] if strategy == "none" else alone,
                (*EXPRESSIONS, "WAR", "UAR"),
                protocol,
                variant,
                remarks,
                level,
            )
            lines.append((model, label, notes.refer(remarks)))
            used += cell
    tidy, display = _tidy(rows), []
    for model, label, letters in lines:
        part = tidy[(tidy["model"] == model) & (tidy["variant"] == label)]
        display += _class_lines(
            part.to_dict("records"), model, label, letters, {**_fold_means(part), **_differences(part)}, embedded
        )
    ratios = sorted({record.cell["au_ratio"] for record in used if record.cell["au_ratio"] > 0})
    setting = f", AU ratio λ = {', '.join(f'{ratio:g}' for ratio in ratios)}" if ratios else ""
    caption = " ".join(
        [
            f"Table 3. Strategies for the positive class weights (Eqs. 6 to 8) on {dataset}: percent right of each "
            "expression, "
            f"WAR, UAR{setting}; Δ is against the same network without AU.",
            describe(used, protocol, embedded, _comparisons(tidy)),
            *filter(None, [_detectable_text(tidy)]),
            _paper_sentence(embedded),
        ]
    )
    return Table(tidy, pd.DataFrame(display).fillna(DASH), caption, notes.lines(), digests_of(used))


def pretraining(
    records: Sequence, *, dataset: str = "DFEW", protocol: str = "last", embedded: bool = True, level: float = LEVEL
) -> Table:
    """MAE-DFER from scratch and from its self-supervised pre-training, without and with AU: what does pre-training
    bring?

    Args:
        records: run records of ``study.records("pretraining")``.
        dataset, protocol, embedded, level: as in ``table2``.
    """
    rows, display, used = [], [], []
    for variant, label, ratio in (("baseline", "without AU", _no_head), ("audfer", "with AU", _positive)):
        scratch, started = (
            select(records, model="mae_dfer", dataset=dataset, au_ratio=ratio, initialisation=start)
            for start in ("scratch", "mae")
        )
        for start, cell, reference in (("scratch", scratch, []), ("pre-trained", started, scratch)):
            base = {**_identity(cell, "mae_dfer", dataset, label), "start": start}
            rows += _rows(base, cell, reference, ("WAR", "UAR"), protocol, variant, (), level)
            used += cell
    tidy = pd.DataFrame(rows)
    tidy["p_holm"] = holm(tidy["p"])
    first = ["dataset", "model", "variant", "start"]
    tidy = tidy[first + [column for column in _COLUMNS if column in tidy and column not in (*first, "paper", "note")]]
    for (label, start), part in tidy.groupby(["variant", "start"], sort=False):
        ours = _ours(part)
        display.append(
            {
                "Dataset": dataset,
                "Variant": label,
                "Start": start,
                "WAR [95 %]": ours["WAR"],
                "UAR [95 %]": ours["UAR"],
                **_differences(part),
            }
        )
    caption = " ".join(
        [
            f"MAE-DFER on {dataset} from random weights and from self-supervised pre-training on the training clips "
            f"of all datasets "
            f"(masked appearance and motion, no labels){_settings_text(used)}; Δ: pre-trained minus scratch, same "
            f"head.",
            describe(used, protocol, embedded, _comparisons(tidy)),
        ]
    )
    return Table(tidy, pd.DataFrame(display), caption, (), digests_of(used))


def ablations(
    records: Sequence,
    *,
    dataset: str = "DFEW",
    protocol: str = "last",
    strategy: str = "global",
    names: Sequence[str] | None = None,
    embedded: bool = True,
    level: float = LEVEL,
) -> Table:
    """Is it the knowledge, or would any auxiliary AU task do? Every variant against plain BCE and against no AU head.

    Args:
        records: run records of ``study.cells("ablations")``.
        strategy: of the positive class weights, where a variant does not change it.
        names: rows, of ``ablations.ABLATIONS``; ``None``: those that the records hold.
        dataset, protocol, embedded, level: as in ``table2``.

    Returns:
        ``Table``; its tidy numbers have a row a variant, metric and ``against``: "plain BCE", "no AU head", and for the
        knowledge also each of ``ablations.CONTROLS``. Holm's correction: one family each for the two, and one for the
        controls.
    """
    found = {name: ablation_records(of_fold(records, None), name, strategy) for name in ABLATIONS}
    names = [name for name in ABLATIONS if found[name]] if names is None else names
    rows, used = [], []
    for name in names:
        cell = found[name]
        first = cell[0].cell if cell else {}
        base = {
            "dataset": dataset,
            "model": first.get("model", ""),
            "variant": name,
            "strategy": first.get("strategy", ""),
            "au_ratio": first.get("au_ratio", np.nan),
        }
        controls = tuple(control for control in CONTROLS if found[control]) if name == KNOWLEDGE else ()
        for against in {PLAIN_BCE: (NO_HEAD,), NO_HEAD: (PLAIN_BCE,)}.get(name, (PLAIN_BCE, NO_HEAD, *controls)):
            new = _rows(base, cell, found[against], ("WAR", "UAR"), protocol, "", (ABLATIONS[name].summary,), level)
            rows += [{**row, "against": against} for row in new]
        used += cell
    tidy = pd.DataFrame(rows, columns=[*_COLUMNS, "against"]).drop(columns="paper").rename(columns={"note": "summary"})
    for family in ((PLAIN_BCE,), (NO_HEAD,), CONTROLS):
        chosen = tidy["against"].isin(family)
        tidy["p_holm"] = np.where(chosen, holm(tidy["p"].where(chosen)), tidy["p_holm"])
    display = []
    for (name, metric), part in tidy.groupby(["variant", "metric"], sort=False):
        line = {"Variant": name, "Metric": metric, "ours [95 %]": _ours(part)[metric]}
        for against, heading in ((PLAIN_BCE, "Δ plain BCE [95 %]"), (NO_HEAD, "Δ no head [95 %]")):
            row = next(part[part["against"] == against].itertuples(), None)
            line[heading] = (
                DASH if row is None else _text(row.difference, row.difference_low, row.difference_high, signed=True)
            )
            line["p" if against == PLAIN_BCE else "p (no head)"] = DASH if row is None else p_text(row.p_holm)
        display.append(line)
    caption = " ".join(
        [
            f"Ablations: what weighs the AU loss of "
            f"{' '.join(map(model_name, present(used, 'model', tuple(MODEL_NAMES))))} on {dataset}"
            f"{_settings_text(found[KNOWLEDGE])}. Each variant is AU-DFER (“{KNOWLEDGE}”) with one thing changed.",
            describe(used, protocol, embedded),
            _how_compared(used, "all rows with the same Δ") if used else "",
            *filter(None, [_detectable_text(tidy)]),
        ]
    )
    notes = tuple(f"{name}: {ABLATIONS[name].summary}." for name in names)
    return Table(tidy, pd.DataFrame(display), caption, notes, digests_of(used))


@dataclass(frozen=True)
class Shown:
    """One row of ``variants``.

    Attributes:
        name: of ``models.VARIANTS``; "" is the full network, which the others are compared with.
        cells: heading -> what the first columns say. paper: heading -> printed percentage.
    """

    name: str
    cells: Mapping[str, str]
    paper: Mapping[str, float]


def variants(
    records: Sequence,
    shown: Sequence[Shown],
    *,
    model: str,
    title: str,
    dataset: str = "DFEW",
    protocol: str = "last",
    embedded: bool = True,
    notes: Sequence[str] = (),
    level: float = LEVEL,
) -> Table:
    """Ablations of a network as its own paper has them: every variant with its difference to the full network.

    Args:
        records: run records of the network without an AU head, its variants and itself.
        shown: the rows; one without a record has em dashes beside what is printed. Printed columns are the first row's.
        title: how the caption begins. notes: remarks on the whole table.
        dataset, protocol, embedded, level: as in ``table2``.

    Returns:
        ``Table``; its tidy numbers have a row a variant and metric, with "parameters" (of the network trained here) and
        a column for every printed heading (numbers beside WAR only; the papers' ablations print no UAR).
    """
    found = {
        row.name: select(
            records,
            model=model,
            dataset=dataset,
            au_ratio=_no_head,
            variant=lambda value, name=row.name: (value or "") == name,
        )
        for row in shown
    }
    full = found.get("", [])
    headings, rows, display, used = list(shown[0].paper), [], [], []
    for row in shown:
        cell = found[row.name]
        parameters = (cell[0].flops or {}).get("parameters") if cell else None
        base = _identity(cell, model, dataset, row.name or FULL) | {"parameters": parameters}
        new = _rows(base, cell, full if row.name else [], ("WAR", "UAR"), protocol, "", (), level)
        rows += [line | (dict(row.paper) if line["metric"] == "WAR" else {}) for line in new]
        used += cell
    corrected = _tidy(rows)
    first = ["dataset", "model", "variant", "parameters"]
    tidy = pd.DataFrame(rows, columns=[*first, *(c for c in _COLUMNS if c not in (*first, "paper", "note")), *headings])
    tidy = tidy.assign(p_holm=corrected["p_holm"])
    for row in shown:
        part = tidy[tidy["variant"] == (row.name or FULL)]
        ours, parameters = _ours(part), part["parameters"].iloc[0]
        display.append(
            {
                **row.cells,
                "WAR [95 %]": ours["WAR"],
                "UAR [95 %]": ours["UAR"],
                **_differences(part),
                "Parameters": f"{int(parameters):,}" if pd.notna(parameters) else DASH,
                **{
                    f"{heading}, {_paper_heading(embedded)}": _text(row.paper[heading], digits=2)
                    for heading in headings
                },
            }
        )
    caption = " ".join(
        [
            f"{title} on {dataset}. Δ is against the full network, without an AU head all of them; parameters of the "
            f"networks "
            "trained here.",
            describe(used, protocol, embedded, _comparisons(tidy)),
            *filter(None, [_detectable_text(tidy)]),
            _paper_sentence(embedded),
        ]
    )
    return Table(tidy, pd.DataFrame(display), caption, tuple(notes), digests_of(used))


# ---------------------------------------------------------------------------------------------------- in words
def variant_conclusions(named: Mapping[str, Table], title: str) -> Table:
    """What several tables of ``variants`` say, in words.

    Args:
        named: question -> the table that answers it.
        title: how the caption begins.

    Returns:
        As ``conclusions``.
    """
    rows = {question: table.tidy[table.tidy["difference"].notna()] for question, table in named.items()}
    answers = [(question, _found(part, "differences to the full network")) for question, part in rows.items()]
    known = [part for part in rows.values() if len(part)]
    answers.append(("How sure is that?", _certainty(pd.concat(known) if known else pd.DataFrame())))
    return _answers(answers, title, *named.values())


def conclusions(table: Table, classes: Table | None = None, *, embedded: bool = True) -> Table:
    """What the numbers say, in words: did AU-DFER help, which expressions, and how sure is that?

    Args:
        table: from ``table1`` (or ``table3``): every comparison of WAR and UAR in it.
        classes: from ``table2`` or ``table3``: the expressions.

    Returns:
        ``Table`` of questions and answers; tidy columns question, answer.
    """
    rows = table.tidy[table.tidy["difference"].notna() & table.tidy["metric"].isin(("WAR", "UAR"))]
    where = "On the embedded benchmark (rendered faces)" if embedded else "On these clips"
    answers = [("Did the AU head with knowledge help?", f"{where}: {_found(rows, 'differences of WAR and UAR')}")]
    if len(rows):
        answers.append(("How many networks and datasets?", _pairs(rows)))
    if classes is not None:
        own = classes.tidy[classes.tidy["difference"].notna() & classes.tidy["metric"].isin(EXPRESSIONS)]
        answers.append(("Which expressions?", _found(own, "differences of single expressions")))
    answers.append(("How sure is that?", _certainty(rows)))
    return _answers(answers, "What the numbers say about AU-DFER", table, classes)


def ablation_conclusions(table: Table, *, embedded: bool = True) -> Table:
    """What ``ablations`` says, in words: does the knowledge help, or any auxiliary AU task?

    Returns:
        As ``conclusions``.
    """
    rows = table.tidy[table.tidy["difference"].notna()]
    where = "on the embedded benchmark (rendered faces)" if embedded else "on these clips"
    answers = []
    for question, name, against in (
        (f"Does an AU head help at all, {where}?", PLAIN_BCE, NO_HEAD),
        ("Does AU-DFER help?", KNOWLEDGE, NO_HEAD),
        ("Does the knowledge help, beyond plain BCE?", KNOWLEDGE, PLAIN_BCE),
    ):
        part = rows[(rows["variant"] == name) & (rows["against"] == against)]
        answers.append((question, f"{name} against {against}: {_found(part, 'differences')}"))
    part = rows[(rows["variant"] == KNOWLEDGE) & rows["against"].isin(CONTROLS)]
    controls = ", ".join(dict.fromkeys(part["against"])) or "its controls"
    part = part.assign(variant="against " + part["against"])
    answers.append(
        (
            "Does it matter which AU and expression has which weight?",
            f"{KNOWLEDGE} against {controls}: {_found(part, 'differences')}",
        )
    )
    answers.append(("How sure is that?", _certainty(rows)))
    return _answers(answers, "What the ablations say", table)


def _answers(answers: list[tuple[str, str]], title: str, *tables: Table | None) -> Table:
    tidy = pd.DataFrame(answers, columns=["question", "answer"])
    caption = f"{title}. Sentences made from the numbers; “certain”: Holm-corrected p < {1 - LEVEL:.2f}."
    digests = tuple(sorted({digest for table in tables if table for digest in table.digests}))
    return Table(tidy, tidy.rename(columns=str.capitalize), caption, (), digests)


def _verdicts(rows: pd.DataFrame) -> pd.Series:
    """ "gain", "loss" or "open" of each compared row."""
    sure = rows["p_holm"] < 1 - LEVEL
    return pd.Series(
        np.where(sure & (rows["difference"] > 0), "gain", np.where(sure & (rows["difference"] < 0), "loss", "open")),
        index=rows.index,
    )


def _found(rows: pd.DataFrame, what: str) -> str:
    """How many of the compared rows are certain gains or losses, which, and what is left open."""
    if not len(rows):
        return "nothing to compare yet."
    verdict = _verdicts(rows)
    number = {name: int((verdict == name).sum()) for name in ("gain", "loss", "open")}
    texts = _row_texts(rows)
    if number["open"] == len(rows):
        if len(rows) <= 2:
            return f"no certain change. {'; '.join(texts)}."
        largest = texts[rows["difference"].abs().idxmax()]
        return f"no certain change. None of {len(rows)} {what} is certain; the largest is {largest}."
    parts = [
        f"of {len(rows)} {what}, {number['gain']} "
        f"{'is a certain gain' if number['gain'] == 1 else 'are certain gains'} "
        f"and {number['loss']} {'is a certain loss' if number['loss'] == 1 else 'are certain losses'}."
    ]
    for name, heading in (("gain", "Gains"), ("loss", "Losses")):
        chosen = rows[verdict == name].sort_values("difference", ascending=name == "loss")
        if len(chosen):
            parts.append(f"{heading}: {'; '.join(texts[chosen.index])}.")
    if number["open"] == 1:
        parts.append(f"Open: {texts[verdict == 'open'].item()}.")
    elif number["open"]:
        rest = rows[verdict == "open"]["difference"]
        parts.append(f"Open: {number['open']}, from {rest.min():+.1f} to {rest.max():+.1f} points.")
    return " ".join(parts)


def _row_texts(rows: pd.DataFrame) -> pd.Series:
    """Each difference in words; what is the same in all rows is not said."""
    several = {name for name in ("dataset", "model", "variant") if rows[name].nunique() > 1}

    def text(row) -> str:
        place = f"{model_name(row.model)} on {row.dataset}" if several & {"model", "dataset"} else ""
        name = " ".join(filter(None, [place, row.variant if "variant" in several else ""]))
        return (
            f"{name + ', ' if name else ''}{row.metric} "
            f"{_text(row.difference, row.difference_low, row.difference_high, signed=True)}, p {p_text(row.p_holm)}"
        )

    return pd.Series([text(row) for row in rows.itertuples()], index=rows.index)


def _pairs(rows: pd.DataFrame) -> str:
    """How many pairs of network and dataset gain or lose anything."""
    verdict = _verdicts(rows)
    pairs = rows.assign(verdict=verdict).groupby(["dataset", "model"])["verdict"].agg(set)
    gain, loss = (sum(name in found for found in pairs) for name in ("gain", "loss"))
    up = int((rows["difference"] > 0).sum())
    return (
        f"{gain} of {len(pairs)} pairs gain for certain in WAR or UAR, {loss} lose for certain; {up} of {len(rows)} "
        "differences are above 0, whether certain or not."
    )


def _certainty(rows: pd.DataFrame) -> str:
    """What could have been seen, and what a repetition would add."""
    if not len(rows):
        return "Not at all: no pair of records to compare."
    seeds = sorted(set(rows["seeds"].astype(int)))
    about = (
        "One seed a network: this is about these trained networks; training again can turn open differences round."
        if seeds == [1]
        else f"{'/'.join(map(str, seeds))} seeds: the tests cover training again as well."
    )
    return " ".join(filter(None, [_detectable_text(rows), "“Open” means not shown, not absent.", about]))


def baseline_table(accuracy: pd.DataFrame, caption: str) -> Table:
    """The AU-only baseline (``study.au_baselines``) to read: a row a set of clips and extractor."""
    display = []
    for (source, judged, features), rows in accuracy.groupby(["source", "judged", "features"], sort=False):
        baseline, commonest = (part.set_index("metric") for _, part in rows.groupby("classifier", sort=False))
        war = baseline.loc["WAR"]
        display.append(
            {
                "Clips": source,
                "Judged on": judged,
                "AUs": features,
                **{f"{m} [95 %]": _text(*baseline.loc[m, ["value", "low", "high"]]) for m in ("WAR", "UAR")},
                "WAR by person": f"{war['worst']:.0f} to {war['best']:.0f}" if war["folds"] > 1 else DASH,
                "WAR, always the commonest": _text(*commonest.loc["WAR", ["value", "low", "high"]]),
                "Test clips": int(war["clips"]),
            }
        )
    return Table(accuracy, pd.DataFrame(display), caption)


def _identity(cell: list, model: str, dataset: str, variant: str, strategy: str | None = None) -> dict:
    first = cell[0].cell if cell else {}
    return {
        "dataset": dataset,
        "model": model,
        "variant": variant,
        "strategy": first.get("strategy", strategy or ""),
        "au_ratio": first.get("au_ratio", np.nan),
    }


def _settings_text(records: Sequence) -> str:
    """`` (λ = 0.25, "global" positive weights)`` of the AU cells among the records."""
    heads = [record.cell for record in records if record.cell["au_ratio"] > 0]
    if not heads:
        return ""
    ratios = ", ".join(f"{ratio:g}" for ratio in sorted({cell["au_ratio"] for cell in heads}))
    strategies = ", ".join(f"“{name}”" for name in sorted({cell["strategy"] for cell in heads}))
    return f" (λ = {ratios}, {strategies} positive weights)"


def _class_lines(
    rows: list[dict], model: str, label: str, letters: str, extra: Mapping[str, str], embedded: bool
) -> list[dict]:
    """Display lines of one cell: ours, where there is one the difference to the network without AU, and the paper's."""
    tidy = pd.DataFrame(rows)
    ours, paper = _ours(tidy), _paper(tidy)
    classes = _ours(tidy, 0)  # a class has tens of clips: tenths of a point would pretend
    headings = dict(zip(EXPRESSIONS, EXPRESSION_HEADINGS, strict=True))
    first = {"Network": model_name(model), "Variant": label, "Source": "ours"}
    second = {"Network": model_name(model), "Variant": label, "Source": _paper_heading(embedded)}
    for name, heading in headings.items():
        first[heading], second[heading] = classes[name], paper[name]
    for metric in ("WAR", "UAR"):
        first[f"{metric} [95 %]"], second[f"{metric} [95 %]"] = ours[metric], paper[metric]
    for key, value in extra.items():
        if not key.startswith("_"):
            first[key], second[key] = value, extra.get(f"_{key}", DASH)
    # where nothing is printed there is no line for it
    nothing = all(second[key] == DASH for key in second if key not in ("Network", "Variant", "Source"))
    first["Notes"], second["Notes"] = (letters, "") if nothing else ("", letters)
    below = [] if nothing else [second]
    if tidy["difference"].isna().all():
        return [first, *below]
    delta = dict.fromkeys(first, "") | {"Network": first["Network"], "Variant": label, "Source": "Δ against without AU"}
    for row in tidy.itertuples():
        column = headings.get(row.metric, f"{row.metric} [95 %]")
        delta[column] = _text(
            row.difference, row.difference_low, row.difference_high, 0 if row.metric in headings else 1, True
        )
    return [first, delta, *below]


def _cost_rows(
    base: dict, cell: list, paper_size: Mapping[str, float] | None, paper: Mapping[str, float]
) -> list[dict]:
    """Tidy rows of what a network costs; ``paper``: what is printed of its paper-size form, NaN where nothing is."""
    rows = []
    trained = cell[0].flops if cell else {}
    for prefix, cost in (("", trained or {}), ("paper-size ", paper_size or {})):
        for metric, key in (("GFLOPs", "gflops"), ("GMACs", "gmacs"), ("parameters", "parameters")):
            row = dict.fromkeys(_COLUMNS, np.nan) | base
            row |= {
                "metric": prefix + metric,
                "ours": float(cost.get(key, np.nan)),
                "clips": 0,
                "seeds": 0,
                "test": "",
                "note": "",
                "paper": paper.get(metric, np.nan) if prefix else np.nan,
            }
            rows.append(row)
    return rows


def _cost_cells(rows: list[dict]) -> dict[str, str]:
    value = {row["metric"]: row["ours"] for row in rows}
    paper = {row["metric"]: row["paper"] for row in rows}

    def both(prefix: str) -> str:
        macs, flops = value[f"{prefix}GMACs"], value[f"{prefix}GFLOPs"]
        return DASH if not np.isfinite(flops) else f"{_significant(macs)} / {_significant(flops)}"

    parameters = value["paper-size parameters"]
    return {
        "Cost, trained here": both(""),
        "Cost, paper size": both("paper-size "),
        "Parameters, paper size": f"{parameters / 1e6:.2f} M" if np.isfinite(parameters) else DASH,
        # what the line of the paper's row shows in the same columns
        "_Cost, paper size": _text(paper["paper-size GFLOPs"], digits=2),
        "_Parameters, paper size": f"{paper['paper-size parameters'] / 1e6:.0f} M"
        if paper["paper-size parameters"] > 0
        else DASH,
    }


def _head_costs(paper_flops: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, tuple[int, int, float]]:
    """network -> what the AU head adds: FLOPs, parameters, share of the FLOPs."""
    found = {}
    for model, variants in paper_flops.items():
        if {"baseline", "audfer"} <= set(variants):
            alone, joined = variants["baseline"], variants["audfer"]
            flops = round(1e9 * (joined["gflops"] - alone["gflops"]))
            found[model] = flops, int(joined["parameters"] - alone["parameters"]), flops / (1e9 * alone["gflops"])
    return found


def _head_sentence(paper_flops: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    heads = _head_costs(paper_flops).values()
    if not heads:
        return ""
    low, high = min(flops for flops, _, _ in heads), max(flops for flops, _, _ in heads)
    span = f"{low:,} to {high:,}" if low < high else f"{low:,}"
    return (
        f" The AU head adds {span} FLOPs a clip at paper size, at most {_percent(max(share for _, _, share in heads))}."
    )


def cost(
    paper_flops: Mapping[str, Mapping[str, Mapping[str, float]]], loss_operations: Mapping[str, float] | None = None
) -> Table:
    """What AU-DFER costs: every paper-size network without its AU head, and what head and AU loss add, per clip.

    Args:
        paper_flops: as in ``table2``.
        loss_operations: "forward" and "training" -> element operations of the AU loss a clip
            (``Study.au_loss_operations``); ``None`` shows em dashes.
    """
    rows, display = [], []
    training = float((loss_operations or {}).get("training", np.nan))
    for model, (flops, parameters, share) in _head_costs(paper_flops).items():
        alone, paper = paper_flops[model]["baseline"], printed(model, "baseline", "DFEW", "FLOPs_G")
        numbers = (
            ("network", "parameters", alone["parameters"], np.nan),
            ("network", "GMACs", alone["gmacs"], paper),
            ("network", "GFLOPs", alone["gflops"], paper),
            ("AU head", "parameters", parameters, np.nan),
            ("AU head", "FLOPs", flops, np.nan),
            ("AU head", "percent of the network", 100 * share, np.nan),
            ("AU loss", "operations, forward", float((loss_operations or {}).get("forward", np.nan)), np.nan),
            ("AU loss", "operations, forward and backward", training, np.nan),
            ("AU loss", "percent of the network", 100 * training / (1e9 * alone["gflops"]), np.nan),
        )
        rows += [
            {
                "model": model,
                "part": part,
                "metric": metric,
                "paper": paper_value,
                # counts are exact, so the csv shall not round them
                "value": int(value) if float(value).is_integer() else float(f"{value:.6g}"),
            }
            for part, metric, value, paper_value in numbers
        ]
        display.append(
            {
                "Network": model_name(model),
                "Parameters": f"{int(alone['parameters']):,}",
                "G multiply-adds": _significant(alone["gmacs"]),
                "GFLOPs": _significant(alone["gflops"]),
                "Paper's G": _text(paper, digits=2),
                "AU head: parameters": f"+{parameters:,}",
                "AU head: FLOPs": f"+{flops:,} ({_percent(share)})",
                "AU loss: operations": f"+{training:,.0f} ({_percent(training / (1e9 * alone['gflops']))})"
                if np.isfinite(training)
                else DASH,
            }
        )
    caption = (
        "Cost of one clip at paper size, measured, and what AU-DFER adds to it. FLOPs count a multiply-add as two "
        "operations and "
        "see matrix products, convolutions, attention and LSTMs. The AU loss has none of these: its operations are "
        "the elements "
        "that its forward and backward pass touch, every one counted once; it is computed in training only, its share "
        "is of the "
        "network's forward pass alone, so an upper bound. Time: benchmarks/records, au_loss_speed."
    )
    columns = ["model", "part", "metric", "value", "paper"]
    return Table(pd.DataFrame(rows, columns=columns, dtype=object), pd.DataFrame(display), caption)


def _percent(share: float) -> str:
    """A share as a percentage with one significant digit, never in powers of ten."""
    if not np.isfinite(share) or share <= 0:
        return DASH
    digits = max(0, -int(np.floor(np.log10(100 * share))))
    return f"{100 * share:.{digits}f} %"


def _significant(value: float) -> str:
    return DASH if not np.isfinite(value) else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
