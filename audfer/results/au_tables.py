"""AU tables to look at: how much they cover, how often each AU is present, whether two extractors agree."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..action_units.comparison import (
    AUClips,
    coverage,
    coverage_by_expression,
    extractor_agreement,
    presence_rates_with_intervals,
)
from ..facs import ACTION_UNIT_NAMES, ACTION_UNITS, EXPRESSIONS
from ..study.action_units import clips_with_aus
from ..study.outputs import NotShown
from .builder import Result, output
from .drawing import BLUE, EXPRESSION_COLOURS, EXPRESSION_MARKERS, GREEN, au_axis, matrices_by_source, rendered


@output("presence_rates", "01_au_extraction", elsewhere=True)
def presence_rates(study) -> Result:
    """How often each AU is present in the frames of every dataset."""
    covered = clips_with_aus(study, study.profile.grid.knowledge_datasets)
    caption = f"Share of frames in which the AU is present, by expression. {study.caption}{covered}"
    draw = partial(matrices_by_source, label="frames with the AU present (%)", digits=0, remark=rendered(study))
    return Result("presence_rates", study.presence_rates(), caption, draw=draw)


@output("au_coverage", "01_au_extraction", elsewhere=True)
def au_coverage(study, aus: AUClips | None = None) -> Result:
    """How many frames of each clip have AUs; ``aus`` from ``study.au_clips``, ``None`` = the profile's own clips."""
    aus = aus or study.au_clips()
    display = coverage_by_expression(aus.first, aus.clips).round(1)
    caption = f"Coverage of {aus.name} by {aus.extractors[0]}; the csv has a row a clip. {aus.caption}"
    return Result(f"{aus.stem}au_coverage", coverage(aus.first), caption, display)


@output("au_presence", "01_au_extraction", elsewhere=True)
def au_presence(study, aus: AUClips | None = None) -> Result:
    """How often each AU is present by expression, with 95 % intervals; ``aus`` as in ``au_coverage``."""
    aus = aus or study.au_clips()
    data = presence_rates_with_intervals(aus.first, aus.clips, aus.name, unit=aus.unit)
    caption = f"Frames with the AU present by {aus.extractors[0]}, with 95 % intervals over {aus.over}. {aus.caption}"
    return Result(f"{aus.stem}au_presence", data, caption, draw=draw_presence)


def draw_presence(data: pd.DataFrame) -> Figure:
    """One panel per AU.

    Args:
        data: expression, action_unit, value, low, high (percent).
    """
    figure, grid = plt.subplots(3, 6, figsize=(8.8, 5.6), sharex=True, sharey=True)
    for axes, au in zip(grid.flat, ACTION_UNITS, strict=True):
        for row in data[data["action_unit"] == au].dropna(subset="value").itertuples():
            colour, marker = EXPRESSION_COLOURS[row.expression], EXPRESSION_MARKERS[row.expression]
            y = EXPRESSIONS.index(row.expression)
            axes.hlines(y, row.low, row.high, color=colour, linewidth=2, alpha=0.45)
            axes.plot(row.value, y, linestyle="none", marker=marker, color=colour, markersize=4.5)
        axes.set_title(f"{au}\n{ACTION_UNIT_NAMES[au]}", fontsize=7.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    grid[0, 0].set(xlim=(-4, 104), xticks=(0, 50, 100), ylim=(len(EXPRESSIONS) - 0.5, -0.5))
    grid[0, 0].set_yticks(range(len(EXPRESSIONS)), EXPRESSIONS)
    figure.supxlabel("frames with the AU present (%)", fontsize=9)
    return figure


@output("au_agreement", "01_au_extraction", elsewhere=True)
def au_agreement(study, aus: AUClips | None = None) -> Result | NotShown:
    """How far two extractors agree; nothing where there is only one. ``aus`` as in ``au_coverage``."""
    aus = aus or study.au_clips()
    if aus.second is None:
        return NotShown("One extractor only: -p second_openface_folder FOLDER for a second one of the same clips.")
    units = aus.clips.set_index("clip_id")["subject"] if aus.unit == "subject" else None
    data = extractor_agreement(aus.first, aus.second, units=units)
    caption = f"Agreement of {' and '.join(aus.extractors)}, frame by frame. {aus.caption}"
    return Result(f"{aus.stem}au_agreement", data, caption, draw=draw_agreement)


def draw_agreement(data: pd.DataFrame) -> Figure:
    """Presence above, intensity below.

    Args:
        data: from ``comparison.extractor_agreement``.
    """
    place = np.arange(len(data))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.0, 5.2), sharex=True)
    for axes, main, name, other, other_name, colour in (
        (top, "kappa", "Cohen's kappa", "f1", "F1", BLUE),
        (bottom, "intensity_r", "Pearson r", "icc", "ICC(3,1)", GREEN),
    ):
        axes.vlines(place, data[f"{main}_low"], data[f"{main}_high"], color=colour, linewidth=2.2, alpha=0.45)
        label, white = f"{name}, 95 % interval over clips", {"markerfacecolor": "white", "markeredgecolor": "#444444"}
        axes.plot(place, data[main], linestyle="none", marker="o", color=colour, label=label)
        axes.plot(place, data[other], linestyle="none", marker="D", markersize=4, label=other_name, **white)
        lowest = np.nanmin([0, *data[[f"{main}_low", main, other]].to_numpy(float).ravel()])
        axes.set(ylim=(lowest - 0.05, 1.04))
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.grid(axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    top.set_ylabel("presence (1 = same)")
    bottom.set_ylabel("intensity (1 = same)")
    au_axis(bottom, data["action_unit"].tolist(), data["intensity_r"].isna())
    return figure
