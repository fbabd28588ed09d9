"""Intensities beside the codes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ...action_units.estimator import agreement
from ...facs import INTENSITY_ACTION_UNITS
from ...results.builder import Result, digests_of
from ...results.rows import text
from .judged import MEAN, Judged, annotated_output, faces_text, networks_of, rows_of_units, value_text

_COLUMNS = ["intensity_r", "intensity_r_low", "intensity_r_high", "icc", "mean_absolute_error", "n"]


def intensity_table(accuracies: Mapping[str, pd.DataFrame], judged: Judged, *, embedded: bool = True) -> Result:
    """Correlation of intensities with the codes, network beside network.

    Args:
        accuracies: network -> what ``estimator.agreement`` gives (one row per AU) on the same frames.
        judged: any of the networks, for the caption.
    """
    parts = [table.assign(network=name) for name, table in accuracies.items()]
    tidy = pd.concat(parts, ignore_index=True)[["network", "action_unit", *_COLUMNS]]
    tidy = tidy[tidy["action_unit"].isin(INTENSITY_ACTION_UNITS)].reset_index(drop=True)

    def line(_unit: str, rows: dict) -> dict[str, str]:
        cells = {}
        for name, row in rows.items():
            cells[f"r, {name} [95 %]"] = value_text(row, "intensity_r", "intensity_r_", digits=2)
            cells[f"mean error, {name}"] = text(row.mean_absolute_error, digits=2)
        return cells

    display = rows_of_units(tidy, line)
    means = {"AU": f"{MEAN} of {len(INTENSITY_ACTION_UNITS)}"}
    for name, row in tidy.groupby("network", sort=False)[["intensity_r", "mean_absolute_error"]].mean().iterrows():
        means[f"r, {name} [95 %]"] = text(row["intensity_r"], digits=2)
        means[f"mean error, {name}"] = text(row["mean_absolute_error"], digits=2)
    caption = (
        "Intensity, 0 to 5: Pearson correlation with the codes, [ ]: 95 % bootstrap over subjects, and mean absolute "
        f"error. {faces_text(embedded)}: {judged.text}. LAC classifies; its intensities are a monotone map of its "
        "probabilities, fitted on subjects that are neither trained on nor judged here."
    )
    shown = pd.concat([display, pd.DataFrame([means])], ignore_index=True)
    return Result("a3_intensity", tidy, caption, shown, digests=digests_of(judged.records))


@annotated_output("a3_intensity")
def intensity(study) -> tuple[Result, ...]:
    """Correlation of intensities with the codes, LAC's beside the baselines'; nothing for a set without intensities."""
    networks = networks_of(study, intensity=True)
    if np.nanmax(networks[-1].codes) <= 1:
        return ()
    accuracies = {one.name: agreement(one.intensity[0], one.presence[0], one.codes, one.subjects) for one in networks}
    return (intensity_table(accuracies, networks[-1], embedded=study.profile.embedded),)
