"""Fig. 4: the knowledge matrix, and the printed one below."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import published
from ..action_units.table import table_from_openface_folder
from ..evaluation.matrices import matrices, rank_correlations
from ..facs import EXPRESSIONS
from ..knowledge import KnowledgeMatrix, separating_aus
from ..study.numbers import real_stem
from ..study.outputs import NotShown
from .builder import DASH, Result, output
from .drawing import colour_bar, heatmap, wide

NO_FOLDER = NotShown("No folder given: audfer reproduce -p openface_folder FOLDER.")


@output("fig4", "02_knowledge_matrix", elsewhere=True)
def fig4(study) -> Result:
    """Fig. 4."""
    matrix = study.once("knowledge", study.knowledge)
    caption = (
        f"Fig. 4. Knowledge matrix ({matrix.variant} reading), ours above and the paper's printed one below. "
        f"AU28 has no intensity behind it and is left out of the rank correlations. {study.caption}"
    ) + f" {matrix.flat}." * bool(matrix.flat)
    return Result("fig4_knowledge", fig4_data(matrix.values), caption, draw=draw)


def _real(study, folder: str) -> pd.DataFrame:
    """One row per frame of somebody's OpenFace CSVs, or of the table that was made of them."""
    table, labels = study.once(("real", folder), lambda: table_from_openface_folder(folder))
    return table.labelled("real", labels.set_index("clip_id")["expression"])


@output("real_knowledge", "02_knowledge_matrix", elsewhere=True)
def real_knowledge(study, openface_folder: str = "") -> Result | NotShown:
    """Fig. 4 from a folder of OpenFace's CSVs of real clips; nothing without a folder."""
    if not openface_folder:
        return NO_FOLDER
    matrix = KnowledgeMatrix.from_frames(_real(study, openface_folder), variant=study.profile.grid.knowledge)
    caption = f"Knowledge matrix of the real OpenFace CSVs in {openface_folder}, above the paper's Fig. 4."
    caption += f" {matrix.flat}." * bool(matrix.flat)
    return Result(f"{real_stem(openface_folder)}knowledge", fig4_data(matrix.values), caption, draw=draw)


@output("real_separating_aus", "02_knowledge_matrix", elsewhere=True)
def real_separating_aus(study, openface_folder: str = "") -> Result | NotShown:
    """Which AUs separate the seven expressions there; nothing without a folder."""
    if not openface_folder:
        return NO_FOLDER
    caption = f"AUs that separate the expressions in {openface_folder}."
    return Result(f"{real_stem(openface_folder)}separating_aus", separating_aus(_real(study, openface_folder)), caption)


def fig4_data(ours) -> pd.DataFrame:
    """Our knowledge matrix and the printed one, with the rank correlation of each expression's row.

    Args:
        ours: ``(7, 18)`` values of a ``KnowledgeMatrix``.

    Returns:
        Columns source ("ours", "paper"), expression, action_unit, value, rank_correlation, overall_rank_correlation.
    """
    printed = published.knowledge("figure")
    correlation = rank_correlations(ours, printed)
    data = matrices({"ours": ours, "paper": printed})
    data["rank_correlation"] = data["expression"].map(correlation)
    data["overall_rank_correlation"] = correlation["overall"]
    return data


def draw(data: pd.DataFrame) -> Figure:
    """Ours above the printed one, on one scale, with the rank correlation of each row."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.8, 5.8), sharex=True)
    sources, overall = dict(iter(data.groupby("source"))), data["overall_rank_correlation"].iloc[0]
    known = f"; rank correlation with (b) over all measured cells {overall:+.2f}" if np.isfinite(overall) else ""
    titles = {"ours": f"(a) ours{known}", "paper": "(b) as printed in the paper"}
    for axes, (name, title) in zip((top, bottom), titles.items(), strict=True):
        heatmap(sources[name], axes, title=title, low=0, high=1, bar=False)
    top.tick_params(axis="x", labelbottom=False)
    colour_bar(top.images[0], [top, bottom], "knowledge (0 to 1)", fraction=0.02, pad=0.01, aspect=45)
    by_row = sources["ours"].groupby("expression")["rank_correlation"].first()
    right = wide(sources["ours"], "value").shape[1] - 0.3
    top.text(right + 0.55, -0.75, "by row", ha="center", va="bottom", fontsize=8)
    for k, name in enumerate(EXPRESSIONS):
        text = f"{by_row[name]:+.2f}" if np.isfinite(by_row[name]) else DASH
        top.text(right + 0.55, k, text, ha="center", va="center", fontsize=8)
    # the column of numbers needs room between matrix and colour bar in both panels, so that cells stay aligned
    for axes in (top, bottom):
        axes.set_xlim(-0.5, right + 1.2)
    return figure
