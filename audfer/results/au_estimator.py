"""How well the AU estimator finds each AU on people that it has not seen."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..study.outputs import NotShown
from .builder import Result, output
from .drawing import au_axis, by_action_unit, f1_bars


@output("au_estimator", "01_au_extraction", elsewhere=True)
def au_estimator(study) -> Result | NotShown:
    """F1 of presence and correlation of intensity; nothing where there is no annotated set to train on."""
    if not study.has_annotated_set:
        return NotShown("No DISFA below AUDFER_DATA: no estimator is trained.")
    data = study.estimator_accuracy
    caption = (
        "AU estimator on held-out subjects: F1 of presence (code of at least 2, DISFA's rule), correlation of "
        f"intensity; intervals: bootstrap over subjects. {study.caption}"
    )
    drawn = f"AU estimator on held-out subjects. {study.caption}"
    return Result("au_estimator", data, caption, picture=Result("au_estimator_plot", data, drawn, draw=draw))


def draw(data: pd.DataFrame) -> Figure:
    """F1 beside what always saying "present" would give, and the correlation of intensities.

    Args:
        data: one row per AU: action_unit, f1, f1_low, f1_high, base_rate (shares 0 to 1) and intensity_r (-1 to 1; NaN
            for AU28, which has no intensity), with intensity_r_low and intensity_r_high where known, as
            ``evaluate_estimator`` gives.
    """
    data = by_action_unit(data)
    place = np.arange(len(data))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.0, 5.4), sharex=True, height_ratios=(1.25, 1))
    # guessing "present" always gives F1 = 2 b / (1 + b) at base rate b: the height that costs nothing
    f1_bars(top, data, 2 * data["base_rate"] / (1 + data["base_rate"]), "F1, 95 % interval over subjects")
    top.set_ylabel("presence, F1 (0 to 1)")
    bottom.bar(place, data["intensity_r"], width=0.7, color="#8FCBB6")
    if "intensity_r_low" in data:
        bottom.vlines(place, data["intensity_r_low"], data["intensity_r_high"], color="#1f4a3c", linewidth=1.4)
    bottom.set(ylabel="intensity, Pearson r", ylim=(min(0, np.nanmin([0, *data["intensity_r"]])), 1.02))
    bottom.grid(axis="y")
    au_axis(bottom, data.index, data["intensity_r"].isna())
    return figure
