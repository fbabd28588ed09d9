"""Fig. 7: the training process of one network without and with AU."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .builder import Result, digests_of, output
from .drawing import VARIANT_COLOURS, empty
from .selection import WITH, WITHOUT, cells_of, without_and_with

#: panels in the order of their letters: history column -> title, axis label
PANELS: dict[str, tuple[str, str]] = {
    "loss": ("total loss", "loss (nats)"),
    "loss_expression": ("expression loss", "loss (nats)"),
    "loss_au": ("AU loss", "loss (weighted nats)"),
    "train_war": ("training WAR", "WAR (%)"),
    "test_war": ("test WAR", "WAR (%)"),
    "test_uar": ("test UAR", "UAR (%)"),
    "learning_rate": ("learning rate", "learning rate"),
}
_LINES = {WITHOUT: "--", WITH: "-"}
_REMARK = "(a) mixes two losses when there\nis an AU head: compare (b).\n(c) exists with an AU head only."


def cells(study) -> list:
    """One network on the strategy dataset, without and with the AU head, all seeds."""
    grid = study.profile.grid
    return cells_of(study, ((grid.ratio_model, grid.strategy_dataset, ratio) for ratio in (0.0, grid.au_ratio)))


@output("fig7", "05_visualisations", cells=cells)
def fig7(study, records) -> Result:
    """Fig. 7."""
    grid = study.profile.grid
    data = process_data(records, grid.ratio_model, grid.strategy_dataset)
    caption = f"Fig. 7. Training without and with AU on {grid.strategy_dataset}. {study.caption}"
    return Result("fig7_training", data, caption, draw=draw, digests=digests_of(records))


def process_data(records: Sequence, model: str, dataset: str) -> pd.DataFrame:
    """Columns variant, seed, epoch (from 1), panel (a history column), value; WAR and UAR in percent."""
    columns, parts = ["variant", "seed", "epoch", "panel", "value"], []
    for variant, cell in without_and_with(records, model, dataset).items():
        for record in cell:
            long = record.history.melt(id_vars="epoch", value_vars=list(PANELS), var_name="panel")
            percent = long["panel"].str.contains("war|uar")
            long.loc[percent, "value"] *= 100
            parts.append(long.assign(variant=variant, seed=record.cell.get("seed", 0)))
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def draw(data: pd.DataFrame) -> Figure:
    """Panels a to g: losses, WAR, UAR and learning rate over the epochs, without and with AU.

    The total loss with AU is another quantity (Eq. 10 mixes two losses of different scales), so its height says
    nothing about training; the expression loss is the comparable one. Several seeds: the mean, and a band from the
    lowest to the highest.
    """
    figure, grid = plt.subplots(2, 4, figsize=(10.4, 4.9))
    *used, legend = grid.flat
    for letter, axes, (panel, (title, label)) in zip("abcdefg", used, PANELS.items(), strict=True):
        for variant in (WITH, WITHOUT):  # dashes on top: both are seen where they coincide
            part = data[(data["panel"] == panel) & (data["variant"] == variant)].dropna(subset="value")
            if part.empty:
                continue
            colour, seeds = VARIANT_COLOURS[variant], part.groupby("epoch")["value"].agg(["mean", "min", "max"])
            if part["seed"].nunique() > 1:
                axes.fill_between(seeds.index, seeds["min"], seeds["max"], color=colour, alpha=0.18, linewidth=0)
            # few epochs that were looked at: points say which
            marker = "o" if len(seeds) < 6 else None
            axes.plot(seeds.index, seeds["mean"], _LINES[variant], color=colour, marker=marker, markersize=4)
        axes.set_title(f"({letter}) {title}")
        axes.set_ylabel(label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True)
        if panel == "learning_rate":
            _power_of_ten(axes, label)
    if data.empty:
        empty(grid[0, 0])
    legend.set_axis_off()
    handles = [Line2D([], [], color=VARIANT_COLOURS[name], linestyle=line, label=name) for name, line in _LINES.items()]
    legend.legend(handles=handles, loc="upper left", fontsize=9)
    legend.text(0.02, 0.52, _REMARK, transform=legend.transAxes, va="top", fontsize=8, color="#555555")
    return figure


def _power_of_ten(axes: Axes, label: str) -> None:
    """Put the power of ten of small y values into the label, where it does not push the title away."""
    top = axes.get_ylim()[1]
    power = int(np.floor(np.log10(top))) if top > 0 else 0
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 10.0**power:g}")
    axes.set_ylabel(f"{label} ($10^{{{power}}}$)")
