"""Tables 1 to 3 of the paper from run records, with the printed numbers beside ours.

Each function returns a ``Table``: tidy numbers (what goes to csv), a wide form to read, a caption that says what was
measured on what and how, and notes on printed cells that are known to be affected by something. Percentages are 0 to
100.

The tables take whatever the records hold: other networks, fewer datasets, several seeds. A cell without a record is
an em dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape

import numpy as np
import pandas as pd

from . import published
from .errors import InputError
from .evaluation import LEVEL, Interval, Summary, compare, holm, summary
from .facs import EVALUATION_DATASETS, EXPRESSION_HEADINGS, EXPRESSIONS

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
        return (
            f"<p><b>{escape(self.caption)}</b></p>{self.display.to_html(index=False, border=0, justify='left')}"
            + (f"<ul style='font-size:smaller'>{notes}</ul>" if notes else "")
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


def baseline_records(records: Sequence, model: str, dataset: str) -> list:
    """The network alone (AU ratio 0), one record a seed."""
    return select(records, model=model, dataset=dataset, au_ratio=_no_head)


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
        weights=lambda weights: weights != "none",
        **settings,
    )


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
            numbers and {"WAR": numbers.war, "UAR": numbers.uar, **dict(zip(EXPRESSIONS, numbers.per_class))}[metric]
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
            "paper": printed(base["model"], variant, base["dataset"], metric),
            "note": "; ".join(remarks),
        }
        if numbers and metric in ("WAR", "UAR") and len(numbers.seeds) > 1:
            row["seed_sd"] = 100 * float(
                np.std(numbers.war_by_seed if metric == "WAR" else numbers.uar_by_seed, ddof=1)
            )
        if difference and metric in ("WAR", "UAR"):
            delta = getattr(difference, metric.lower())
            row |= {
                "difference": 100 * delta.value,
                "difference_low": 100 * delta.low,
                "difference_high": 100 * delta.high,
                "p": getattr(difference, f"{metric.lower()}_p"),
                "test": getattr(difference, f"{metric.lower()}_test"),
            }
        rows.append(row)
    return rows


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
    "paper",
    "note",
)


def _tidy(rows: list[dict]) -> pd.DataFrame:
    tidy = pd.DataFrame(rows, columns=list(_COLUMNS))
    tidy["p_holm"] = holm(tidy["p"])
    return tidy


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
    clips = {}
    for record in records:
        clips.setdefault(record.cell["dataset"], set()).add(len(record.clip_ids))
    shown = {
        name: "/".join(map(str, sorted(clips[name]))) for name in present(records, "dataset", EVALUATION_DATASETS)
    }
    clips_text = ", ".join(f"{name} {count}" for name, count in shown.items())
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
    when = (
        f"last of {epoch_text}"
        if protocol == "last"
        else f"best of {epoch_text} on the test clips themselves (flatters)"
    )
    parts = [
        f"Ours: {where}; {' and '.join(sizes)}{'-size' if sizes else ''} networks; {seed_text}; {when}.",
        f"Brackets: {100 * LEVEL:.0f} % intervals over clips (WAR and classes: Wilson; UAR: Monte Carlo of "
        "class-wise Beta posteriors, Jeffreys prior).",
    ]
    if comparisons:
        test = "exact McNemar (WAR) and sign-flip permutation (UAR)" if len(seeds) == 1 else "sign-flip permutation"
        parts.append(
            f"Δ: paired difference in points, bootstrap within classes; p: {test}, Holm-corrected over the table's "
            f"{comparisons} comparisons."
        )
    empty = [
        EXPRESSIONS[k]
        for k in range(len(EXPRESSIONS))
        if any(not np.any(np.asarray(r.expressions) == k) for r in records)
    ]
    if empty:
        parts.append(f"Without test clips in at least one dataset, hence left out of its UAR: {', '.join(empty)}.")
    return " ".join(parts)


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
    return tuple(sorted({getattr(record.path, "name", str(record.path)) for record in records}))


# ---------------------------------------------------------------------------------------------------------- tables
def table1(
    records: Sequence,
    *,
    protocol: str = "last",
    strategy: str | None = None,
    au_ratio: float | None = None,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    embedded: bool = True,
    level: float = LEVEL,
) -> Table:
    """Table 1: WAR and UAR of every network on every dataset, without and with AU-DFER (section 5.1).

    Args:
        records: run records; those with AU ratio 0 are the networks alone, see ``au_records`` for the others.
        strategy, au_ratio: which AU cells to show; ``None`` takes the commonest among the records.
        models, datasets: rows to show; ``None`` takes those that the records hold.
        embedded: whether the clips are rendered (the caption says so).
    """
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
                **_differences(part),
                f"WAR, {heading}": paper["WAR"],
                f"UAR, {heading}": paper["UAR"],
                "Notes": letters,
            }
        )
    caption = " ".join(
        [
            f"Table 1. WAR and UAR (percent) without and with AU-DFER{_settings_text(used)}.",
            describe(used, protocol, embedded, int(tidy["p"].notna().sum())),
            _paper_sentence(embedded),
        ]
    )
    return Table(tidy, pd.DataFrame(display), caption, notes.lines(), digests_of(used))


def table2(
    records: Sequence,
    *,
    dataset: str = "DFEW",
    protocol: str = "last",
    strategy: str | None = None,
    au_ratio: float | None = None,
    models: Sequence[str] | None = None,
    embedded: bool = True,
    paper_flops: Mapping[str, Mapping[str, float]] | None = None,
    level: float = LEVEL,
) -> Table:
    """Table 2: accuracy of every expression, WAR, UAR and cost of each network, without and with AU (section 5.1).

    Args:
        dataset: the paper's table is DFEW's.
        paper_flops: network -> ``models.count_flops`` of its paper-size form (``gflops``, ``gmacs``, ``parameters``),
            to compare with the printed GFLOPs; ``None`` shows em dashes. Records carry the cost of the network that
            was trained.
        protocol, strategy, au_ratio, models, embedded, level: as in ``table1``.
    """
    models = present(records, "model", tuple(MODEL_NAMES)) if models is None else models
    rows, display, used, notes = [], [], [], _Notes()
    metrics = (*EXPRESSIONS, "WAR", "UAR")
    for model in models:
        alone = baseline_records(records, model, dataset)
        joined = au_records(records, model, dataset, strategy, au_ratio)
        for cell, variant, label in ((alone, "baseline", "without AU"), (joined, "audfer", "with AU")):
            remarks = _remarks(model, variant, dataset) + _misprints(model, variant, 2)
            base = _identity(cell, model, dataset, label)
            new = _rows(base, cell, [], metrics, protocol, variant, remarks, level)
            cost = _cost_rows(base, cell, (paper_flops or {}).get(model), printed(model, variant, dataset, "FLOPs_G"))
            rows += new + cost
            display += _class_lines(new, model, label, notes.refer(remarks), _cost_cells(cost), embedded)
            used += cell
    caption = " ".join(
        [
            f"Table 2. Accuracy (percent) of each expression, WAR, UAR and cost on {dataset}, without and with "
            f"AU-DFER{_settings_text(used)}.",
            describe(used, protocol, embedded),
            "Cost of one clip, measured: G multiply-adds / GFLOPs (a multiply-add is two operations), of the network "
            "trained here "
            "and of the paper-size one; the paper prints one number and calls it FLOPs.",
            _paper_sentence(embedded),
        ]
    )
    return Table(_tidy(rows), pd.DataFrame(display), caption, notes.lines(), digests_of(used))


def table3(
    records: Sequence,
    *,
    dataset: str = "DFEW",
    protocol: str = "last",
    au_ratio: float | None = None,
    models: Sequence[str] | None = None,
    strategies: Sequence[str] | None = None,
    embedded: bool = True,
    level: float = LEVEL,
) -> Table:
    """Table 3: the network alone and with each positive-weight strategy of Eqs. 6 to 8 (section 5.2).

    Args:
        strategies: rows a network; ``None``: baseline ("none"), global, distinct, minor.
        dataset, protocol, au_ratio, models, embedded, level: as in ``table2``.
    """
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
        display += _class_lines(part.to_dict("records"), model, label, letters, _differences(part), embedded)
    ratios = sorted({record.cell["au_ratio"] for record in used if record.cell["au_ratio"] > 0})
    setting = f", AU ratio λ = {', '.join(f'{ratio:g}' for ratio in ratios)}" if ratios else ""
    caption = " ".join(
        [
            f"Table 3. Strategies for the positive class weights (Eqs. 6 to 8) on {dataset}: percent right of each "
            "expression, "
            f"WAR, UAR{setting}; Δ is against the same network without AU.",
            describe(used, protocol, embedded, int(tidy["p"].notna().sum())),
            _paper_sentence(embedded),
        ]
    )
    return Table(tidy, pd.DataFrame(display), caption, notes.lines(), digests_of(used))


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
    """Two display lines of one cell: ours, and the paper's below it."""
    tidy = pd.DataFrame(rows)
    ours, paper = _ours(tidy), _paper(tidy)
    classes = _ours(tidy, 0)  # a class has tens of clips: tenths of a point would pretend
    headings = dict(zip(EXPRESSIONS, EXPRESSION_HEADINGS))
    first = {"Network": model_name(model), "Variant": label, "Source": "ours"}
    second = {"Network": model_name(model), "Variant": label, "Source": _paper_heading(embedded)}
    for name, heading in headings.items():
        first[heading], second[heading] = classes[name], paper[name]
    for metric in ("WAR", "UAR"):
        first[f"{metric} [95 %]"], second[f"{metric} [95 %]"] = ours[metric], paper[metric]
    printed_cost = extra.get("_printed", DASH)
    for key, value in extra.items():
        if not key.startswith("_"):
            first[key] = value
            second[key] = printed_cost if key == "Cost, paper size" else DASH
    first["Notes"], second["Notes"] = "", letters
    return [first, second]


def _cost_rows(base: dict, cell: list, paper_size: Mapping[str, float] | None, printed_gflops: float) -> list[dict]:
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
                "paper": printed_gflops if prefix and metric == "GFLOPs" else np.nan,
            }
            rows.append(row)
    return rows


def _cost_cells(rows: list[dict]) -> dict[str, str]:
    value = {row["metric"]: row["ours"] for row in rows}
    paper = next(row["paper"] for row in rows if row["metric"] == "paper-size GFLOPs")

    def both(prefix: str) -> str:
        macs, flops = value[f"{prefix}GMACs"], value[f"{prefix}GFLOPs"]
        return DASH if not np.isfinite(flops) else f"{_significant(macs)} / {_significant(flops)}"

    return {
        "Cost, trained here": both(""),
        "Cost, paper size": both("paper-size "),
        "_printed": _text(paper, digits=2),
    }


def _significant(value: float) -> str:
    return DASH if not np.isfinite(value) else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
