"""Fig. 5: WAR and UAR against the AU ratio lambda of Eq. 10; and how large the two terms of Eq. 10 are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..evaluation import compare, summary
from .builder import Result, digests_of, output
from .drawing import BLUE, METRIC_COLOURS, VARIANT_COLOURS, legend_below, panels
from .rows import TOTALS, describe, percent
from .selection import WITHOUT, au_records, baseline_records, cells_of, datasets_of

#: terms of Eq. 10 -> colour
TERMS: dict[str, str] = {"expression loss": "#9A9A9A", "AU loss": BLUE}


def cells(study) -> list:
    """One network with every ratio on every dataset, all seeds."""
    grid = study.profile.grid
    wanted = ((grid.ratio_model, name, ratio) for name in grid.datasets for ratio in grid.au_ratios)
    return cells_of(study, wanted, seeds=grid.ratio_seeds)


def _by_ratio(records: Sequence, model: str) -> Iterator[tuple[str, float, list]]:
    """Dataset, ratio and records of every cell of the network."""
    for dataset in datasets_of(records):
        mine = [r for r in records if r.cell["model"] == model and r.cell["dataset"] == dataset]
        for ratio in sorted({r.cell["au_ratio"] for r in mine}):
            cell = au_records(mine, model, dataset, au_ratio=ratio) if ratio else baseline_records(mine, model, dataset)
            if cell:
                yield dataset, ratio, cell


@output("fig5", "05_visualisations", cells=cells)
def fig5(study, records, protocol: str = "last") -> Result:
    """Fig. 5."""
    data = ratio_data(records, study.profile.grid.ratio_model, protocol)
    caption = f"Fig. 5. WAR and UAR against lambda. {describe(records, protocol, study.profile.embedded)}"
    return Result("fig5_au_ratio", data, caption, draw=draw, digests=digests_of(records))


def ratio_data(records: Sequence, model: str, protocol: str = "last") -> pd.DataFrame:
    """One row per dataset, ratio and metric, with columns value, low, high (percent), clips and seeds; difference,
    difference_low and difference_high (points) to the same network without an AU head.
    """
    rows, alone = [], {}
    for dataset, ratio, cell in _by_ratio(records, model):
        numbers = summary(cell, protocol)
        if not ratio:
            alone[dataset] = cell
        change = compare(alone[dataset], cell, protocol) if ratio and dataset in alone else None
        for metric in TOTALS:
            interval = getattr(numbers, metric.lower())
            row = {"dataset": dataset, "model": model, "au_ratio": ratio, "metric": metric}
            row |= percent(interval, "value") | {"clips": interval.count, "seeds": len(cell)}
            rows.append(row | (percent(getattr(change, metric.lower()), "difference", "difference_") if change else {}))
    columns = ["dataset", "model", "au_ratio", "metric", "value", "low", "high", "clips", "seeds"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "difference_low", "difference_high"])


def draw(data: pd.DataFrame) -> Figure:
    """A column of panels per dataset, WAR above UAR, with 95 % interval bands."""
    datasets, ratios = list(dict.fromkeys(data["dataset"])), sorted(set(data["au_ratio"]))
    figure, grid = panels(2 * len(datasets), len(datasets), 2.75, 2.3, (0.6, 0), sharey="row", sharex=True)
    alone_line = {"color": VARIANT_COLOURS[WITHOUT], "linestyle": "--", "linewidth": 1.1}
    for row, (metric, colour) in zip(grid, METRIC_COLOURS.items(), strict=True):
        for axes, dataset in zip(row, datasets, strict=True):
            part = data[(data["dataset"] == dataset) & (data["metric"] == metric)].sort_values("au_ratio")
            for alone in part.loc[part["au_ratio"] == 0, "value"]:
                axes.axhline(alone, **alone_line)
            axes.fill_between(part["au_ratio"], part["low"], part["high"], color=colour, alpha=0.16, linewidth=0)
            axes.plot(part["au_ratio"], part["value"], marker="o" if metric == "WAR" else "s", color=colour)
            axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
            if metric == "WAR":
                axes.set_title(f"{dataset} ({int(part['clips'].max())} test clips)")
            else:
                axes.set_xlabel("AU ratio λ (share of the AU loss)")
            axes.grid(True)
        row[0].set_ylabel(f"{metric} (%)")
    handles = [
        Line2D([], [], label=f"λ = 0: {WITHOUT}", **alone_line),
        Patch(color="#999999", alpha=0.35, linewidth=0, label="95 % interval over clips"),
    ]
    legend_below(figure, handles)
    return figure


@output("loss_terms", "05_visualisations", needs=("fig5",))
def loss_terms(study, records) -> Result:
    """The magnitudes of the two loss terms over the ratios of Fig. 5."""
    data = loss_data(records, study.profile.grid.ratio_model)
    caption = f"Magnitude of the two loss terms after training, without and with the AU loss. {study.caption}"
    return Result("fig5_loss_terms", data, caption, draw=draw_terms, digests=digests_of(records))


def loss_data(records: Sequence, model: str) -> pd.DataFrame:
    """How large each term of Eq. 10 is in the last epoch of training, for every lambda.

    Returns:
        One row per dataset, ratio and term (``TERMS``): dataset, model, au_ratio, term, loss (mean over the epoch's
        batches and over seeds, before lambda weighs it), weighted (as it enters the total loss), share (percent of the
        total), seeds. Without an AU head the AU loss is 0 of the total.
    """
    rows = []
    for dataset, ratio, cell in _by_ratio(records, model):
        last = pd.DataFrame([record.history.iloc[-1] for record in cell])[["loss_expression", "loss_au"]].mean()
        weighted = (1 - ratio) * last["loss_expression"], ratio * np.nan_to_num(last["loss_au"])
        rows += [
            (dataset, model, ratio, term, loss, part, 100 * part / sum(weighted), len(cell))
            for term, loss, part in zip(TERMS, last, weighted, strict=True)
        ]
    return pd.DataFrame(rows, columns=["dataset", "model", "au_ratio", "term", "loss", "weighted", "share", "seeds"])


def draw_terms(data: pd.DataFrame) -> Figure:
    """What the total loss of Eq. 10 is made of at the end of training, for every lambda on each dataset."""
    datasets = list(dict.fromkeys(data["dataset"]))
    figure, grid = panels(len(datasets), len(datasets), 2.75, 2.9, (0.6, 0), sharey=True)
    for axes, dataset in zip(grid[0], datasets, strict=True):
        table = data[data["dataset"] == dataset].pivot(index="au_ratio", columns="term", values=["weighted", "share"])
        place, bottom = np.arange(len(table)), np.zeros(len(table))
        for term, colour in TERMS.items():
            axes.bar(place, table["weighted", term], bottom=bottom, width=0.7, color=colour)
            bottom += table["weighted", term].to_numpy()
        for k, (top, share) in enumerate(zip(bottom, table["share", "AU loss"], strict=True)):
            if share:
                axes.text(k, top, f"{share:.0f} %", ha="center", va="bottom", fontsize=7)
        axes.set_xticks(place, [f"{ratio:g}" for ratio in table.index])
        axes.set_title(dataset)
        axes.set_xlabel("AU ratio λ")
        axes.grid(axis="y")
    grid[0, 0].set_ylabel("total loss")
    grid[0, 0].set_ylim(0, 1.1 * data.groupby(["dataset", "au_ratio"])["weighted"].sum().max())
    names = ("(1 − λ) · expression loss", "λ · AU loss, with its share")
    handles = [Patch(color=colour, linewidth=0, label=name) for name, colour in zip(names, TERMS.values(), strict=True)]
    legend_below(figure, handles)
    return figure
