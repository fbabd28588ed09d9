"""What the interpolation of zeros (section 3.1) does to a clip's intensities."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..facs import ACTION_UNIT_NAMES
from .builder import Result, output
from .drawing import BLUE, legend_below, mark, panels

_MARKS = {"marker": "o", "markeredgecolor": "#444444"}


@output("interpolation", "01_au_extraction", elsewhere=True)
def interpolation(study) -> Result:
    """The clip that changes most."""
    caption = f"One clip's AU intensities before and after the interpolation of zeros. {study.caption}"
    return Result("interpolation", study.interpolation_example(), caption, draw=draw)


def draw(data: pd.DataFrame) -> Figure:
    """One panel per AU.

    Args:
        data: action_unit, frame, before and after (0 to 5; NaN = unknown).
    """
    units = list(dict.fromkeys(data["action_unit"]))
    figure, grid = panels(len(units), 2, 4.2, 1.9, (0, 0.6), sharex=True, sharey=True)
    for axes, name in zip(grid.flat, units, strict=False):
        part = data[data["action_unit"] == name].sort_values("frame")
        axes.plot(part["frame"], part["after"], color=BLUE, linewidth=1.3, zorder=1)
        zero = part["before"] == 0
        for chosen, fill in ((part[zero], "white"), (part[~zero], "#444444")):
            style = {"linestyle": "none", "markersize": 3, "markerfacecolor": fill, "markeredgewidth": 0.6, **_MARKS}
            axes.plot(chosen["frame"], chosen["before"], **style)
        axes.set_title(f"{name} {ACTION_UNIT_NAMES.get(name, '')}")
        axes.grid(True)
    for axes in grid[:, 0]:
        axes.set_ylabel("intensity (0 to 5)")
    for axes in grid[-1]:
        axes.set_xlabel("frame")
    handles = [
        mark("measured", marker="o", markersize=4, color="#444444"),
        mark(
            "measured, exactly 0: counts as missing", marker="o", markersize=4, markerfacecolor="white", color="#444444"
        ),
        Line2D([], [], color=BLUE, linewidth=1.3, label="interpolated"),
    ]
    legend_below(figure, handles)
    return figure
