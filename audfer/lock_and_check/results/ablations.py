"""Tables IV to VII: components, frames of a window, segments and losses, ours beside the printed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ... import published
from ...errors import InputError
from ...evaluation import LEVEL, compare_f1, f1_intervals, holm
from ...facs import ACTION_UNITS
from ...results.builder import DASH, Result, digests_of
from ...results.rows import p_text, percent, text
from ..training import RULES
from .judged import (
    PAIRED,
    Judged,
    all_records,
    annotated_output,
    components_records,
    how,
    judged_of,
    row_records,
    settings_text,
    value_text,
)

#: columns of Table IV beside the backbone
TICKS: tuple[str, ...] = ("TS", "L_loc", "L_act", "L_l2g", "ST", "L_DWA")


@dataclass(frozen=True)
class Row:
    """One row of an ablation.

    Attributes:
        columns: what is shown first, heading -> text; the first one names the row.
        judged: rule of ``training.RULES`` -> what the network says by it; empty where there is no record.
        printed: the paper's F1 in percent; NaN where it has none.
        against: number of the row that it is compared with; ``None``: not compared.
    """

    columns: Mapping[str, str]
    judged: Mapping[str, Judged]
    printed: float = float("nan")
    against: int | None = None


@dataclass(frozen=True)
class Values:
    """A table that varies one setting.

    Attributes:
        name: of the output, and of its files behind the number. key: heading in the paper. dataset: of its numbers.
        title: how the caption begins. field: of ``RecognitionCell``. chosen: that others are compared with; "" = the
            paper's best.
    """

    name: str
    key: str
    dataset: str
    title: str
    field: str
    chosen: str = ""


VALUES: dict[int, Values] = {
    5: Values("lac_window", "t", "BP4D", "LAC Table V: frames t of a window.", "window"),
    6: Values(
        "lac_segments",
        "N_sep",
        "DISFA",
        "LAC Table VI: segments N_sep that each subject's sequence is cut into.",
        "segments",
    ),
    7: Values("lac_loss", "loss", "BP4D", "LAC Table VII: losses.", "loss", "L_CE"),
}


def ablation_table(
    name: str,
    title: str,
    rows: Sequence[Row],
    dataset: str,
    *,
    embedded: bool = True,
    level: float = LEVEL,
    more: str = "",
) -> Result:
    """Mean F1 of each variant with its difference to the one that it changes, by both rules, and the printed numbers.

    Args:
        name: of the result. title, more: first and last sentence of the caption.
        rows: in the printed order; all judged on the same frames.
        dataset: that the paper's column was measured on.

    Raises:
        InputError: no row is judged.
    """
    rules = list(dict.fromkeys(rule for row in rows for rule in row.judged))
    if not rules:
        raise InputError("ablation_table", "records", "none", "at least one judged row")
    counts = [{rule: judged.counts for rule, judged in row.judged.items()} for row in rows]
    parts, display = [], [dict(row.columns) for row in rows]
    for rule in rules:
        lines = []
        for row, mine in zip(rows, counts, strict=True):
            line = {**row.columns, "rule": rule, "against": "", "paper": row.printed}
            if rule in mine:
                line |= percent(f1_intervals(mine[rule], level)[-1], "f1")
            if row.against is not None:
                other, theirs = rows[row.against], counts[row.against]
                line |= {"against": next(iter(other.columns.values())), "paper_difference": row.printed - other.printed}
                if rule in mine and rule in theirs:
                    change, p = compare_f1(theirs[rule], mine[rule], level)
                    line |= percent(change[-1], "difference", "difference_") | {"p": p[-1]}
            lines.append(line)
        numbers = ["difference", "difference_low", "difference_high", "p", "paper", "paper_difference"]
        part = pd.DataFrame(lines, columns=[*rows[0].columns, "rule", "f1", "low", "high", "against", *numbers])
        parts.append(part.assign(p_holm=holm(part["p"].to_numpy(float))))
        for shown, line in zip(display, parts[-1].itertuples(), strict=True):
            shown |= {
                f"F1, {rule} [95 %]": value_text(line, "f1"),
                "against": line.against or DASH,
                f"Δ, {rule} [95 %]": value_text(line, "difference", "difference_", signed=True),
                f"p, {rule}": p_text(line.p_holm),
            }
    for shown, line in zip(display, parts[-1].itertuples(), strict=True):
        shown |= {f"paper's F1, {dataset}": text(line.paper), "paper's Δ": text(line.paper_difference, signed=True)}
    judged = [one for row in rows for one in row.judged.values()]
    caption = (
        f"{title} Mean F1 over {len(ACTION_UNITS)} AUs, present from a probability of 0.5 on, as in the paper, and "
        "from calibrated thresholds on (as many frames as coded). "
        f"{how(judged[0], embedded, f'{PAIRED} the column.')}{more and f' {more}'}"
    )
    tidy = pd.concat(parts, ignore_index=True)
    return Result(name, tidy, caption, pd.DataFrame(display), digests=digests_of(all_records(judged)))


def printed_components() -> list[tuple[dict[str, bool], float]]:
    """The rows of Table IV: component -> whether it is on, and the printed F1."""
    return [
        ({name: getattr(row, name) == "y" for name in TICKS}, float(row.F1_BP4D))
        for row in published.load("lac_table4").itertuples()
    ]


def extended_row(rows: Sequence[Mapping[str, bool]], number: int) -> int | None:
    """Which earlier row a row of Table IV extends: the largest one whose components it all has.

    ``None`` for the first.
    """
    parts = [{name for name, on in row.items() if on} for row in rows[: number + 1]]
    inside = [k for k in range(number) if parts[k] < parts[number]]
    return max(inside, key=lambda k: (len(parts[k]), -k)) if inside else None


def components_table(judged: Sequence[Mapping[str, Judged]], **options) -> Result:
    """Table IV: every component against the row that lacks only it (and what comes with it).

    Args:
        judged: for each printed row what ``Row.judged`` takes. options: of ``ablation_table``.
    """
    printed = printed_components()
    switches = [row for row, _ in printed]
    rows = [
        Row(
            {"Row": str(k + 1), **{name: "✓" if on else "" for name, on in row.items()}},
            judged[k],
            value,
            extended_row(switches, k),
        )
        for k, (row, value) in enumerate(printed)
    ]
    title = (
        "LAC Table IV: components. Row 1 is the backbone with a linear layer; each row is compared with the row that "
        "it extends."
    )
    return ablation_table("a3_table4_components", title, rows, "BP4D", **options)


def values_table(number: int, judged: Mapping[str, Mapping[str, Judged]], chosen: str = "", **options) -> Result:
    """Table V (5: window t), VI (6: segments N_sep) or VII (7: loss).

    Args:
        judged: value as printed (text) -> what ``Row.judged`` takes. Values of ours that the paper lacks are added,
            without printed numbers.
        chosen: value that the others are compared with; "" = the paper's choice, of losses L_CE.
        options: of ``ablation_table``.

    Raises:
        InputError: another table.
    """
    if number not in VALUES:
        raise InputError("values_table", "number", number, "5, 6 or 7")
    about, table = VALUES[number], published.load(f"lac_table{number}")
    printed = dict(zip(table[about.key].astype(str), table[f"F1_{about.dataset}"].astype(float), strict=True))
    values = list(dict.fromkeys((*printed, *judged)))
    if number != 7:
        values.sort(key=int)
    chosen = chosen or about.chosen or max(printed, key=printed.get)
    rows = [
        Row(
            {about.key: value},
            judged.get(value, {}),
            printed.get(value, np.nan),
            None if value == chosen else values.index(chosen),
        )
        for value in values
    ]
    title = f"{about.title} Compared with {about.key} = {chosen}."
    return ablation_table(f"a3_table{number}_{about.field}", title, rows, about.dataset, **options)


def _by_rule(name: str, records: Sequence) -> dict[str, Judged]:
    return {rule: judged_of(name, records, rule) for rule in RULES}


@annotated_output("a3_components")
def components(study) -> tuple[Result, ...]:
    """Table IV."""
    judged = [_by_rule(name, records) for name, records in components_records(study).items()]
    more = settings_text(study, "lac_components")
    return (components_table(judged, embedded=study.profile.embedded, more=more),)


def _values(study, number: int) -> tuple[Result, ...]:
    """One of ``VALUES``, compared with the profile's own value where it is there."""
    about, judged = VALUES[number], {}
    for records in row_records(study, about.name):
        value = f"{'L_' if number == 7 else ''}{records[0].cell[about.field]}"
        judged[value] = _by_rule(value, records)
    own = about.chosen or str(getattr(study.profile.recognition, about.field))
    options = {"embedded": study.profile.embedded, "more": settings_text(study, about.name)}
    return (values_table(number, judged, own if own in judged else "", **options),)


@annotated_output("a3_windows")
def windows(study) -> tuple[Result, ...]:
    """Table V, against the profile's own t."""
    return _values(study, 5)


@annotated_output("a3_segments")
def segments(study) -> tuple[Result, ...]:
    """Table VI, against the profile's own N_sep."""
    return _values(study, 6)


@annotated_output("a3_losses")
def losses(study) -> tuple[Result, ...]:
    """Table VII."""
    return _values(study, 7)
