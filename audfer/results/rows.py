"""What tables share: the numbers of each row, their text, and the sentences of captions and notes.

Percentages are 0 to 100. A cell without a record is an em dash.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy

from ..evaluation import (
    LEVEL,
    POWER,
    Comparison,
    Summary,
    compare,
    holm,
    summary,
)
from ..facs import EXPRESSION_HEADINGS, EXPRESSIONS
from .builder import DASH
from .printed import printed
from .selection import datasets_of, model_name, parts_of, pooled

TOTALS = ("WAR", "UAR")
METRICS = (*EXPRESSIONS, *TOTALS)
#: columns of tidy numbers
COLUMNS = (
    *("dataset", "model", "variant", "strategy", "au_ratio", "metric", "ours", "low", "high", "clips"),
    *("seeds", "seed_sd", "difference", "difference_low", "difference_high", "p", "p_holm", "test", "detectable"),
    *("folds", "fold_mean", "fold_sd", "paper", "note"),
)


# ---------------------------------------------------------------------------------------------------------- numbers
@dataclass
class Line:
    """One network in a table.

    Attributes:
        base: what tells its rows from others: dataset, model, variant, ... (``identity``).
        cell: its records, one per seed; empty where there are none. reference: those that it is compared with.
        printed: what the paper calls it ("baseline", "audfer", a strategy); "" where the paper has no such row.
        remarks: on the printed row. extra: rows of other things than accuracies, below its own.
    """

    base: dict
    cell: list
    reference: list = field(default_factory=list)
    printed: str = ""
    remarks: Sequence[str] = ()
    extra: Sequence[dict] = ()


def identity(cell: list, model: str, dataset: str, variant: str, strategy: str = "") -> dict:
    """The first columns of a line's rows."""
    first = cell[0].cell if cell else {}
    settings = {"strategy": first.get("strategy", strategy), "au_ratio": first.get("au_ratio", np.nan)}
    return {"dataset": dataset, "model": model, "variant": variant, **settings}


def measured(lines: Sequence[Line], metrics: Sequence[str], protocol: str) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """Tidy numbers of all lines, and those of each line.

    Holm's correction covers the WARs and UARs of all lines, and apart from it the classes.
    """
    rows = [[*_rows(line, metrics, protocol), *line.extra] for line in lines]
    known = dict.fromkeys(COLUMNS) | {name: None for line in lines for name in line.base}
    tidy = pd.DataFrame([row for some in rows for row in some], columns=list(known))
    classes = tidy["metric"].isin(EXPRESSIONS)
    tidy["p_holm"] = np.where(classes, holm(tidy["p"].where(classes)), holm(tidy["p"].where(~classes)))
    ends = np.cumsum([len(some) for some in rows], dtype=int)
    return tidy, [tidy.iloc[end - len(some) : end] for end, some in zip(ends, rows, strict=True)]


def _rows(line: Line, metrics: Sequence[str], protocol: str) -> list[dict]:
    """Every metric with interval, difference to the reference and the printed number."""
    numbers = summary(line.cell, protocol) if line.cell else None
    difference = compare(line.reference, line.cell, protocol) if line.cell and line.reference else None
    rows = []
    for metric in metrics:
        row = dict.fromkeys(COLUMNS, np.nan) | line.base
        row |= {"metric": metric, "clips": 0, "seeds": 0, "test": "", "folds": 0, "note": "; ".join(line.remarks)}
        row["paper"] = printed(line.base["model"], line.printed, line.base["dataset"], metric)
        if numbers:
            interval = _of(numbers, metric)
            row |= percent(interval) | {"clips": interval.count, "seeds": len(numbers.seeds)}
            if metric in TOTALS:
                row |= _fold_numbers(line.cell, protocol, metric)
                if len(numbers.seeds) > 1:
                    by_seed = getattr(numbers, f"{metric.lower()}_by_seed")
                    row["seed_sd"] = 100 * float(np.std(by_seed, ddof=1))
        if difference:
            row |= percent(_of(difference, metric), "difference", "difference_")
            row |= {
                "p": _of(difference, metric, "_p"),
                "test": difference.test,
                "detectable": 100 * difference.detectable[-2 + TOTALS.index(metric)] if metric in TOTALS else np.nan,
            }
        rows.append(row)
    return rows


def _of(found: Summary | Comparison, metric: str, what: str = ""):
    if metric in EXPRESSIONS:
        return getattr(found, f"per_class{what}")[EXPRESSIONS.index(metric)]
    return getattr(found, metric.lower() + what)


def percent(interval, value: str = "ours", prefix: str = "") -> dict[str, float]:
    """An interval of shares in percent, as columns ``value``, "low" and "high"."""
    return {
        value: 100 * interval.value,
        f"{prefix}low": 100 * interval.low,
        f"{prefix}high": 100 * interval.high,
    }


def _fold_numbers(cell: list, protocol: str, metric: str) -> dict:
    """Mean and standard deviation over folds of WAR or UAR (percent); NaN for one fold."""
    by_fold = defaultdict(list)
    for record in cell:
        for part in parts_of(record):
            by_fold[part.cell.get("fold", 1)].append(_of(summary(part, protocol), metric).value)
    means = [100 * np.mean(values) for values in by_fold.values()]
    several = len(means) > 1
    mean, spread = (np.mean(means), np.std(means, ddof=1)) if several else (np.nan, np.nan)
    return {"folds": len(means), "fold_mean": mean, "fold_sd": spread}


# ------------------------------------------------------------------------------------------------------------- text
def text(value: float, low: float = np.nan, high: float = np.nan, digits: int = 1, signed: bool = False) -> str:
    """``64.3 [60.1, 68.2]``; without known ends the value alone, an em dash for NaN."""
    if not np.isfinite(value):
        return DASH
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{value:{form}}" + (f" [{low:{form}}, {high:{form}}]" if np.isfinite(low) else "")


def p_text(p: float) -> str:
    """``0.032``, ``<0.001`` or an em dash for NaN."""
    return DASH if not np.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def difference_text(row, digits: int = 1) -> str:
    """The difference of one row with its interval."""
    return text(row.difference, row.difference_low, row.difference_high, digits, signed=True)


def ours(part: pd.DataFrame, digits: int = 1) -> dict[str, str]:
    """Metric -> our number with its interval."""
    return {row.metric: text(row.ours, row.low, row.high, digits) for row in part.itertuples()}


def paper(part: pd.DataFrame) -> dict[str, str]:
    """Metric -> the printed number."""
    return {row.metric: text(row.paper, digits=2) for row in part.itertuples()}


def totals(part: pd.DataFrame) -> dict[str, str]:
    """WAR and UAR of ours, under the headings of a table."""
    return {f"{metric} [95 %]": value for metric, value in ours(part).items() if metric in TOTALS}


def fold_means(part: pd.DataFrame) -> dict[str, str]:
    """Means of folds where there are several, else nothing: the numbers beside them are of all folds' clips pooled."""
    if part["fold_mean"].isna().all():
        return {}
    return {
        f"{row.metric}, mean of folds (sd)": f"{row.fold_mean:.1f} ({row.fold_sd:.1f})"
        if np.isfinite(row.fold_mean)
        else DASH
        for row in part.itertuples()
        if row.metric in TOTALS
    }


def differences(part: pd.DataFrame) -> dict[str, str]:
    """Difference and p-value of WAR and UAR, under the headings of a table."""
    cells = {}
    for row in part.itertuples():
        if row.metric in TOTALS:
            cells |= {f"Δ {row.metric} [95 %]": difference_text(row), f"p {row.metric}": p_text(row.p_holm)}
    return cells


def class_lines(
    part: pd.DataFrame, model: str, label: str, letters: str, extra: Mapping[str, str], embedded: bool
) -> list[dict]:
    """Display lines of one cell: ours, where there is one the difference to the network without AU, and the paper's.

    Args:
        extra: further columns of ours; those that begin with "_" are the paper's.
    """
    part = part[part["metric"].isin(METRICS)]
    headings = dict(zip(EXPRESSIONS, EXPRESSION_HEADINGS, strict=True)) | {name: f"{name} [95 %]" for name in TOTALS}
    known = {**ours(part, 0), **{name: ours(part)[name] for name in TOTALS}}  # tenths of a class would pretend
    theirs, name = paper(part), {"Network": model_name(model), "Variant": label}
    first = {**name, "Source": "ours", **{heading: known[metric] for metric, heading in headings.items()}}
    printed_cells = {heading: theirs[metric] for metric, heading in headings.items()}
    for key, value in extra.items():
        if not key.startswith("_"):
            first[key], printed_cells[key] = value, extra.get(f"_{key}", DASH)
    # where nothing is printed there is no line for it
    if all(value == DASH for value in printed_cells.values()):
        first, below = first | {"Notes": letters}, []
    else:
        second = {**name, "Source": paper_heading(embedded), **printed_cells, "Notes": letters}
        first, below = first | {"Notes": ""}, [second]
    if part["difference"].isna().all():
        return [first, *below]
    delta = dict.fromkeys(first, "") | {**name, "Source": "Δ against without AU"}
    delta |= {headings[row.metric]: difference_text(row, int(row.metric in TOTALS)) for row in part.itertuples()}
    return [first, delta, *below]


class Notes:
    """Letters for remarks, in the order in which they are met."""

    def __init__(self):
        self.texts: list[str] = []

    def refer(self, remarks: Sequence[str]) -> str:
        """The letters of some remarks."""
        self.texts += [remark for remark in dict.fromkeys(remarks) if remark not in self.texts]
        return " ".join(sorted(self._letter(remark) for remark in remarks))

    def _letter(self, remark: str) -> str:
        return chr(ord("a") + self.texts.index(remark))

    def lines(self) -> tuple[str, ...]:
        """All remarks with their letters."""
        return tuple(f"({self._letter(remark)}) {remark}." for remark in self.texts)


# --------------------------------------------------------------------------------------------------------- captions
def sentences(*parts: str) -> str:
    """Parts of a caption in one line; empty ones are left out."""
    return " ".join(filter(None, parts))


def comparisons(tidy: pd.DataFrame) -> int:
    """How many WARs and UARs are compared."""
    return int(tidy.loc[tidy["metric"].isin(TOTALS), "p"].notna().sum())


def table_caption(title: str, used: Sequence, protocol: str, tidy: pd.DataFrame, embedded: bool, more: str = "") -> str:
    """Caption of a table that has the paper's numbers beside ours; ``more`` follows on how ours were measured."""
    measured_how = describe(used, protocol, embedded, comparisons(tidy))
    return sentences(title, measured_how, more, detectable_text(tidy), paper_sentence(embedded))


def describe(records: Sequence, protocol: str = "last", embedded: bool = True, comparisons: int = 0) -> str:
    """The part of a caption that says what our numbers are: input, clips, seeds, epochs, intervals, tests.

    Args:
        records: the run records that are shown.
        comparisons: how many p-values Holm's correction covers; 0 if the table or figure has none.
    """
    if not records:
        return "No run records yet."
    records = pooled(records)
    clips = defaultdict(set)
    for record in records:
        clips[record.cell["dataset"]].add(len(record.clip_ids))
    clips_text = ", ".join(f"{name} {_slashed(clips[name])}" for name in datasets_of(records))
    joined = {f"{record.cell['dataset']} {record.cell['fold']}" for record in records if len(parts_of(record)) > 1}
    if joined:
        clips_text += f", pooled over folds ({'; '.join(sorted(joined))})"
    where = "embedded benchmark (rendered faces in the datasets' layouts, not the datasets); " if embedded else ""
    sizes = sorted({str(record.cell.get("size", "")) for record in records} - {""})
    networks = f"{' and '.join(sizes)}{'-size' if sizes else ''} networks"
    seeds = sorted({record.cell.get("seed", 0) for record in records})
    seed_text = f"{len(seeds)} seeds ({', '.join(map(str, seeds))}) averaged clip by clip"
    if len(seeds) == 1:
        seed_text = f"seed {seeds[0]}"
    epochs = {len(record.history) for record in records}
    epoch_text = _slashed(epochs) + (" epoch" if epochs == {1} else " epochs")
    when = {
        "last": f"last of {epoch_text}",
        "best-on-validation": f"best of {epoch_text} on held-out training clips",
        "best-on-test": f"best of {epoch_text} on the test clips themselves (flatters)",
    }[protocol]
    empty = [
        name
        for k, name in enumerate(EXPRESSIONS)
        if any(not np.any(np.asarray(record.expressions) == k) for record in records)
    ]
    return sentences(
        f"Ours: {where}test clips: {clips_text}; {networks}; {seed_text}; {when}.",
        f"Brackets: {100 * LEVEL:.0f} % intervals over clips (WAR and classes: Wilson; UAR: Monte Carlo of class-wise "
        "Beta posteriors, Jeffreys prior).",
        how_compared(records, f"the table's {comparisons} WARs and UARs (its classes apart, in the csv)")
        if comparisons
        else "",
        f"Without test clips in at least one dataset, hence left out of its UAR: {', '.join(empty)}." if empty else "",
    )


def _slashed(numbers: Iterable[int]) -> str:
    return "/".join(map(str, sorted(numbers)))


def how_compared(records: Sequence, over: str) -> str:
    """What differences and p-values are; ``over``: what Holm's correction covers."""
    several = len({record.cell.get("seed", 0) for record in records}) > 1
    grouped = any(getattr(record, "groups", None) is not None for record in records)
    units = "subjects or videos" if grouped else "clips"
    how = f"{units} and seeds as crossed random factors, Student's t" if several else f"random signs of {units}, normal"
    reach = "" if several else " One seed: about these trained networks, not about training again."
    return (
        f"Δ: paired difference in points with the 95 % interval of the test that gives p ({how}); p is Holm-corrected "
        f"over {over}.{reach}"
    )


def detectable_text(tidy: pd.DataFrame) -> str:
    """How small a difference the compared rows could have shown, as a sentence; "" without a comparison."""
    spans = []
    for metric in TOTALS:
        points = tidy.loc[tidy["metric"] == metric, "detectable"].dropna()
        if len(points):
            ends = dict.fromkeys((f"{points.min():.1f}", f"{points.max():.1f}"))
            spans.append(f"{metric} {' to '.join(ends)}")
    if not spans:
        return ""
    tests = int(tidy.loc[tidy["metric"].isin(TOTALS), "detectable"].notna().sum())
    z = scipy.stats.norm.ppf
    after = (z(1 - (1 - LEVEL) / 2 / max(tests, 1)) + z(POWER)) / (z(0.5 + LEVEL / 2) + z(POWER))
    return (
        f"Detectable with these clips and seeds (four times in five at the 5 % level), points: {', '.join(spans)}; "
        f"{after:.2f} times that for the first of {tests} after Holm's correction."
    )


def paper_sentence(embedded: bool) -> str:
    """What a caption says about the printed numbers."""
    if embedded:
        return "The paper's numbers are for the real datasets: another input, shown for orientation, not comparable."
    return "The paper's numbers are as printed; its folds are mixed (see the notes)."


def paper_heading(embedded: bool) -> str:
    """How the printed numbers are called in a table."""
    return "paper (other input)" if embedded else "paper"


def settings_text(records: Sequence) -> str:
    """`` (λ = 0.25, "global" positive weights)`` of the AU cells among the records."""
    heads = [record.cell for record in records if record.cell["au_ratio"] > 0]
    if not heads:
        return ""
    ratios = ", ".join(f"{ratio:g}" for ratio in sorted({cell["au_ratio"] for cell in heads}))
    strategies = ", ".join(f"“{name}”" for name in sorted({cell["strategy"] for cell in heads}))
    return f" (λ = {ratios}, {strategies} positive weights)"
