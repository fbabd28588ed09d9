"""F1 of every AU, and the paper's Tables II and III with ours below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...evaluation import LEVEL, compare_f1, f1_intervals, holm
from ...facs import ACTION_UNITS
from ...published.audit import recomputed
from ...published.printed import sheet
from ...results.builder import Result, digests_of
from ...results.rows import Notes, p_text, percent, text
from .judged import (
    LAC,
    MEAN,
    NETWORK_COLOURS,
    PAIRED,
    THRESHOLDS,
    Judged,
    all_records,
    annotated_output,
    how,
    networks_of,
    rows_of_units,
    settings_text,
    value_text,
)
from .plots import networks_by_unit

#: the paper's two results tables and what they were measured on
PRINTED: dict[int, str] = {2: "BP4D", 3: "DISFA"}
OWN = "LAC (ours)"


def printed_units(number: int) -> tuple[str, ...]:
    """The AUs of the paper's Table II (number 2, BP4D) or III (3, DISFA)."""
    return sheet(f"LAC Table {number}").classes


def printed_f1(number: int, unit: str, method: str = OWN) -> float:
    """One printed F1 in percent; NaN where the table lacks the AU. ``unit`` may be "Avg"."""
    values = sheet(f"LAC Table {number}").values
    return float(values.at[method, unit]) if unit in values else float("nan")


def _shared_units(number: int) -> list[str]:
    """The AUs of a printed table that we have."""
    return [unit for unit in printed_units(number) if unit in ACTION_UNITS]


def _measured(measure: Callable[[np.ndarray], Sequence], *counts: np.ndarray) -> dict:
    """AU or heading of a mean (of all, and of ours that the paper's two tables have) -> what is measured of it.

    Args:
        measure: from counts of some AUs to values of these AUs and, last, of their mean.
    """
    values = dict(zip((*ACTION_UNITS, f"{MEAN} of {len(ACTION_UNITS)}"), measure(*counts), strict=True))
    for number, dataset in PRINTED.items():
        units = _shared_units(number)
        columns = [ACTION_UNITS.index(unit) for unit in units]
        values[f"{MEAN} of {dataset}'s {len(units)}"] = measure(*(part[..., columns] for part in counts))[-1]
    return values


def f1_table(networks: Sequence[Judged], *, embedded: bool = True, level: float = LEVEL, more: str = "") -> Result:
    """F1 of every AU and network, LAC against the networks before it, and the printed LAC rows.

    Args:
        networks: judged on the same frames, one of them named ``LAC``.
        more: last sentence of the caption.
    """
    names, counts = [network.name for network in networks], [network.counts for network in networks]
    chosen, rows = names.index(LAC), []
    for number, (name, mine) in enumerate(zip(names, counts, strict=True)):
        gains = {}
        if number < chosen:
            gains = _measured(lambda *both: list(zip(*compare_f1(*both, level), strict=True)), mine, counts[chosen])
        for unit, interval in _measured(lambda own: f1_intervals(own, level), mine).items():
            row = {"network": name, "action_unit": unit} | percent(interval, "f1")
            if gains:
                row |= percent(gains[unit][0], "gain", "gain_") | {"p": gains[unit][1]}
            rows.append(row)
    columns = ["network", "action_unit", "f1", "low", "high", "gain", "gain_low", "gain_high", "p"]
    tidy = pd.DataFrame(rows, columns=columns)
    means = tidy["action_unit"].str.startswith(MEAN)
    tidy["p_holm"] = np.where(means, holm(tidy["p"].where(means)), holm(tidy["p"].where(~means)))
    last = networks[chosen]
    share = 100 * np.nanmean(last.labels, axis=0)
    tidy["base_rate"] = tidy["action_unit"].map(dict(zip(ACTION_UNITS, share, strict=True)))
    for number, dataset in PRINTED.items():
        tidy[f"paper_{dataset}"] = [
            printed_f1(number, "Avg" if unit.startswith(f"{MEAN} of {dataset}") else unit)
            for unit in tidy["action_unit"]
        ]

    def line(_unit: str, rows: dict) -> dict[str, str]:
        first = next(iter(rows.values()))
        cells = {"present": text(first.base_rate, digits=0)}
        cells |= {f"{name} [95 %]": value_text(row, "f1") for name, row in rows.items()}
        for name in names[:chosen]:
            cells[f"{LAC} against {name} [95 %]"] = value_text(rows[name], "gain", "gain_", signed=True)
            cells[f"p ({name})"] = p_text(rows[name].p_holm)
        return cells | {
            f"paper's LAC, {dataset}": text(getattr(first, f"paper_{dataset}")) for dataset in PRINTED.values()
        }

    missing = dict.fromkeys(unit for number in PRINTED for unit in printed_units(number) if unit not in ACTION_UNITS)
    tests = how(last, embedded, f"{PAIRED} the AUs, and apart from them over the means.")
    caption = (
        f"F1 per AU. {THRESHOLDS} {tests} Gains: {LAC} minus the other. present: share of frames (%). "
        f"Not among ours: {', '.join(missing) or 'none'}; the paper's averages include it.{more and f' {more}'}"
    )
    return Result("a3_f1", tidy, caption, rows_of_units(tidy, line), digests=digests_of(all_records(networks)))


def f1_plot(data: pd.DataFrame) -> Figure:
    """F1 of every AU and network with 95 % intervals, and what the paper prints for LAC.

    Args:
        data: the frame of ``f1_table``.
    """
    figure, axes, place = networks_by_unit(data, "f1", gap=0.6, width=0.25, height=3.8, colours=NETWORK_COLOURS)
    first = data[data["network"] == data["network"].iloc[0]]
    for dataset, marker in zip(PRINTED.values(), "Ds", strict=True):
        part = first.dropna(subset=f"paper_{dataset}")
        axes.plot(
            part["action_unit"].map(place) + 0.42,
            part[f"paper_{dataset}"],
            linestyle="none",
            marker=marker,
            markersize=3.5,
            markerfacecolor="white",
            markeredgecolor="black",
            label=f"paper's LAC, {dataset} (real faces)",
        )
    axes.set(ylabel="F1 (%)", ylim=(0, 100), xlim=(-0.6, max(place.values()) + 0.8))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def printed_table(number: int, networks: Sequence[Judged], *, embedded: bool = True, level: float = LEVEL) -> Result:
    """The paper's Table II (2) or III (3) as printed, with our networks below; averages that do not add up are marked.

    Args:
        networks: ours, as in ``f1_table``.
    """
    printed, notes, rows, display = sheet(f"LAC Table {number}"), Notes(), [], []
    units, shared, dataset = printed_units(number), _shared_units(number), PRINTED[number]
    sums = recomputed(printed).set_index("row")
    for method, values in printed.values.iterrows():
        average, wrong = sums.loc[method], sums.loc[method, "mean_beyond"] > 0
        remark = (
            f"the average is misprinted: this row's AUs give {average['mean_recomputed']:.2f}, not "
            f"{average['mean_printed']:g}"
        )
        letters = notes.refer([remark] if wrong else [])
        line = {"Method": method, "Source": f"printed, {dataset}", **printed.rows.loc[method, [*units, "Avg"]]}
        display.append(line | {"Avg": line["Avg"] + (f" ({letters})" if wrong else "")})
        rows += [{"method": method, "source": "printed", "column": column, "value": values[column]} for column in units]
        rows.append(rows[-1] | {"column": "Avg", "value": values["Avg"], "recomputed": average["mean_recomputed"]})
    for network in networks:
        columns = [ACTION_UNITS.index(unit) for unit in shared]
        intervals = f1_intervals(network.counts[..., columns], level)
        ours = {unit: percent(one, "value") for unit, one in zip((*shared, "Avg"), intervals, strict=True)}
        line = {"Method": network.name, "Source": "ours, rendered" if embedded else "ours"}
        for column in (*units, "Avg"):
            numbers = ours.get(column, {"value": np.nan})
            rows.append({"method": network.name, "source": "ours", "column": column, **numbers})
            line[column] = text(*numbers.values()) if column == "Avg" else text(numbers["value"])
        display.append(line)
    missing = [unit for unit in units if unit not in ACTION_UNITS]
    without = f" Our average leaves out {', '.join(missing)}, which the rendered faces do not have." if missing else ""
    caption = (
        f"LAC Table {'II' if number == 2 else 'III'} ({dataset}) as printed, and our networks. "
        f"{THRESHOLDS} {how(networks[-1], embedded, 'Intervals of single AUs: the csv.')}{without}"
    )
    columns = ["method", "source", "column", "value", "low", "high", "recomputed"]
    return Result(
        f"a3_table{number}_{dataset.lower()}",
        pd.DataFrame(rows, columns=columns),
        caption,
        pd.DataFrame(display),
        notes=notes.lines(),
        digests=digests_of(all_records(networks)),
    )


@annotated_output("a3_f1")
def f1(study) -> tuple[Result, ...]:
    """F1 of every AU, as a table and as a picture."""
    more = settings_text(study, "lac_components")
    table = f1_table(networks_of(study), embedded=study.profile.embedded, more=more)
    caption = f"F1 per AU as a picture. {study.caption}"
    return table, Result("a3_f1_plot", table.frame, caption, draw=f1_plot, digests=table.digests)


@annotated_output("a3_printed_tables")
def printed_tables(study) -> tuple[Result, ...]:
    """Tables II and III as printed, with ours below."""
    networks = networks_of(study)
    return tuple(printed_table(number, networks, embedded=study.profile.embedded) for number in PRINTED)
