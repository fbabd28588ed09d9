"""What the records also tell: is a network right as often as it says, and does its AU head find AUs?"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation import au_quality
from ..evaluation import calibration as reliability
from .builder import Result, digests_of, output
from .drawing import VARIANT_COLOURS, by_action_unit, f1_bars, panels
from .fig7 import cells
from .selection import without_and_with

_FIRST = ["model", "dataset", "variant", "ece", "ece_if_calibrated", "brier", "brier_low", "brier_high"]


@output("calibration", "05_visualisations", cells=cells)
def calibration(study, records, protocol: str = "last") -> Result:
    """Reliability without and with AU."""
    grid = study.profile.grid
    data = calibration_data(records, grid.ratio_model, grid.strategy_dataset, protocol)
    caption = f"Calibration without and with AU on {grid.strategy_dataset}. {study.caption}"
    return Result("calibration", data, caption, draw=draw, digests=digests_of(records))


def calibration_data(records: Sequence, model: str, dataset: str, protocol: str = "last") -> pd.DataFrame:
    """The reliability diagram of one network without and with AU (``evaluation.calibration``), one row per bin.

    Returns:
        Columns model, dataset, variant, ece, ece_if_calibrated, brier, brier_low, brier_high (shares and Brier's score,
        equal in all rows of a variant) and the bins' low, high, clips, confidence, accuracy, accuracy_low,
        accuracy_high (shares).
    """
    parts = []
    for variant, cell in without_and_with(records, model, dataset).items():
        one = reliability(cell, protocol)
        brier = (one.brier.value, one.brier.low, one.brier.high)
        values = (model, dataset, variant, one.ece, one.ece_if_calibrated, *brier)
        parts.append(one.bins.assign(**dict(zip(_FIRST, values, strict=True))))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_FIRST)
    return table[_FIRST + [column for column in table if column not in _FIRST]]


def draw(data: pd.DataFrame) -> Figure:
    """Accuracy against confidence with 95 % intervals, a panel per variant; each dot is as many clips as any other."""
    variants = list(dict.fromkeys(data["variant"]))
    figure, grid = panels(len(variants), 2, 3.3, 4.2, (0.3, 0), sharey=True)
    for axes, variant in zip(grid.flat, variants, strict=False):
        part, colour = data[data["variant"] == variant], VARIANT_COLOURS[variant]
        axes.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1)
        shown = 100 * part[["confidence", "accuracy", "accuracy_low", "accuracy_high"]]
        axes.vlines(shown["confidence"], shown["accuracy_low"], shown["accuracy_high"], color=colour, alpha=0.5)
        axes.plot(shown["confidence"], shown["accuracy"], marker="o", markersize=4, linewidth=1, color=colour)
        first = part.iloc[0]
        axes.set_title(variant)
        axes.set(xlim=(0, 102), ylim=(0, 102), box_aspect=1)  # aspect would cut the titles off
        axes.set_xlabel(
            f"confidence (%), {part['clips'].mean():.0f} clips a dot\n"
            f"ECE {100 * first['ece']:.1f} points (if calibrated, up to {100 * first['ece_if_calibrated']:.1f})\n"
            f"Brier {first['brier']:.2f} [{first['brier_low']:.2f}, {first['brier_high']:.2f}]"
        )
        axes.grid(True)
    grid[0, 0].set_ylabel("right (%)")
    return figure


@output("au_head", "05_visualisations", cells=lambda study: [cell for cell in cells(study) if cell.uses_aus])
def au_head(study, records) -> Result:
    """F1 of each AU of the AU head."""
    place = study.profile.grid.strategy_dataset
    caption = f"F1 of each AU of the AU head on {place}'s test clips, against the labels of Eq. 4. {study.caption}"
    return Result("au_head", au_quality(records), caption, draw=draw_au_head, digests=digests_of(records))


def draw_au_head(data: pd.DataFrame) -> Axes:
    """F1 of each AU with its interval, and what always saying "present" would give."""
    axes, data = plt.subplots(figsize=(8.0, 3.0))[1], by_action_unit(data)
    f1_bars(axes, data, data["f1_always"], "F1, 95 % interval")
    axes.set(ylabel="F1 (0 to 1)", xlim=(-0.6, len(data) - 0.4))
    axes.set_xticks(np.arange(len(data)), data.index, rotation=60, ha="right", rotation_mode="anchor")
    return axes
