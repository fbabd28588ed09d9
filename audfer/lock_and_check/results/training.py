"""Figs. 4 and 5: how rare AUs are, and which are found when."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...facs import ACTION_UNITS
from ...results.builder import Result, digests_of
from ...results.drawing import empty, legend_below
from .. import study as recognition
from ..training import split
from .judged import annotated_output, row_records
from .plots import unit_axis

LOSS_COLOURS: dict[str, str] = {"L_CE": "#7A7A7A", "L_WA": "#E69F00", "L_DWA": "#0072B2"}
_SPLIT_COLOURS = ("#0072B2", "#9CC9E3", "#999999")


def class_distribution(data: pd.DataFrame) -> Axes:
    """Fig. 4: how often each AU is present in the annotated set.

    Args:
        data: split ("training" or "held out"), action_unit, value (percent of the coded frames).
    """
    axes = plt.subplots(figsize=(7.6, 2.9))[1]
    parts = dict(list(data.groupby("split", sort=False)))
    width, places = 0.8 / max(1, len(parts)), np.arange(len(ACTION_UNITS))
    for k, (name, part) in enumerate(parts.items()):
        values = part.set_index("action_unit").reindex(ACTION_UNITS)["value"]
        at = places + (k - (len(parts) - 1) / 2) * width
        axes.bar(at, values, width=width, color=_SPLIT_COLOURS[k], label=name)
    unit_axis(axes, range(len(ACTION_UNITS)))
    axes.set_ylabel("frames with the AU present (%)")
    axes.set_xlim(-0.6, len(ACTION_UNITS) - 0.4)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # the bars fill the axes
    return axes


def recall_per_epoch(data: pd.DataFrame) -> Figure | Axes:
    """Fig. 5: recall of every AU over the epochs of training, one line per loss; AUs from common to rare.

    Args:
        data: loss, epoch, action_unit, recall (0 to 1), share (of the training frames that show the AU, 0 to 1).
    """
    if data.empty:
        return empty(plt.figure(figsize=(4, 3)).subplots())
    shares = data.groupby("action_unit")["share"].first().reindex(ACTION_UNITS)
    order = shares.sort_values(ascending=False, kind="stable").index
    figure, grid = plt.subplots(3, 6, figsize=(8.8, 4.8), sharex=True, sharey=True)
    colours = {name: LOSS_COLOURS.get(name, "#333333") for name in dict.fromkeys(data["loss"])}
    last = data["epoch"].max()
    look = {"linewidth": 1.4, "marker": "o" if last == 1 else None, "markersize": 3}
    for axes, unit in zip(grid.flat, order, strict=True):
        for name, colour in colours.items():
            part = data[(data["loss"] == name) & (data["action_unit"] == unit)].sort_values("epoch")
            axes.plot(part["epoch"], part["recall"], color=colour, **look)
        axes.set_title(f"{unit}, {100 * shares[unit]:.0f} %", fontsize=8)
        axes.grid(True)
    grid[0, 0].set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1), xlim=(0.5, last + 0.5))
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.supylabel("recall on the training frames (0 to 1)", fontsize=9)
    legend_below(figure, [Line2D([], [], color=colour, label=name) for name, colour in colours.items()])
    return figure


@annotated_output("a3_distribution")
def distribution(study) -> tuple[Result, ...]:
    """Fig. 4."""
    data = study.annotated_frames
    training, calibrating, held_out = split(data, recognition.folds(study)[0], study.profile.data.seed)
    drawn = []
    for name, rows in (
        ("training subjects", np.concatenate((training, calibrating))),
        ("held-out subjects", held_out),
    ):
        share = 100 * np.nanmean(data.labels[rows], axis=0)
        drawn.append(
            pd.DataFrame({"split": name, "action_unit": data.action_units, "value": share, "frames": len(rows)})
        )
    caption = f"Fig. 4. How often each AU is present in the annotated frames. {study.caption}"
    return (Result("a3_fig4_distribution", pd.concat(drawn, ignore_index=True), caption, draw=class_distribution),)


@annotated_output("a3_recall")
def recall(study) -> tuple[Result, ...]:
    """Fig. 5."""
    records = [part[0] for part in row_records(study, "lac_loss")]
    data = pd.concat(
        [
            pd.DataFrame(
                {
                    "loss": f"L_{record.cell['loss']}",
                    "epoch": np.repeat(np.arange(len(record.weights)) + 1, len(ACTION_UNITS)),
                    "action_unit": np.tile(ACTION_UNITS, len(record.weights)),
                    "recall": record.training_recall.ravel(),
                    "weight": record.weights.ravel(),
                    "share": np.tile(record.share, len(record.weights)),
                }
            )
            for record in records
        ],
        ignore_index=True,
    )
    caption = (
        "Fig. 5. Recall of every AU on the frames of each epoch, as they went by, at a probability of 0.5; beside the "
        f"AU's name its share of the training frames. The csv has the loss weights too. {study.caption}"
    )
    return (Result("a3_fig5_recall", data, caption, draw=recall_per_epoch, digests=digests_of(records)),)
