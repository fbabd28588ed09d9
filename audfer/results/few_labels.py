"""What a knowledge matrix is worth as a prior, by how many people's clips have labels."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from ..action_units.few_labels import PRIORS, few_labels
from ..knowledge import KnowledgeMatrix
from ..study.numbers import real_stem
from ..study.outputs import NotShown
from .au_baseline import NOBODY
from .builder import Result, output
from .drawing import BLUE, GREEN, GREY, ORANGE
from .fig4 import NO_FOLDER

_LOOKS = {"none": (GREY, "o"), "figure": (BLUE, "s"), "shuffled": (ORANGE, "X"), "other": (GREEN, "D")}


@output("few_labels", "02_knowledge_matrix", elsewhere=True)
def few_labels_figure(study, openface_folder: str = "", other_matrix: str = "") -> Result | NotShown:
    """Accuracy against labelled people, on somebody's OpenFace CSVs; nothing without a folder with two people.

    Args:
        other_matrix: a saved matrix of another set (``audfer knowledge build``); "" = none.
    """
    if not openface_folder:
        return NO_FOLDER
    aus = study.au_clips(openface_folder)
    if aus.people < 2:
        return NOBODY
    labels = aus.clips.set_index("clip_id")
    other = KnowledgeMatrix.load(other_matrix) if other_matrix else None
    data = few_labels(aus.first.labelled("real", labels["expression"]), labels["subject"], other)
    caption = (
        f"Mean recall on people without labels, by how many of {aus.people} people have some: logistic regression on "
        "clip means of 17 AUs, the prior of its weights about zero, Fig. 4, Fig. 4 with shuffled AU columns or another "
        f"set's matrix. Bars: 95 % of the draws of labelled people; all of it rests on {aus.people} people. "
        + aus.caption
    )
    return Result(f"{real_stem(openface_folder)}few_labels", data, caption, draw=draw)


def draw(data: pd.DataFrame) -> Axes:
    """One line per prior, shifted a little so that the bars can be told apart."""
    axes, shown = plt.subplots(figsize=(6.0, 3.6))[1], list(dict.fromkeys(data["prior"]))
    for place, prior in enumerate(shown):
        part, (colour, marker) = data[data["prior"] == prior], _LOOKS[prior]
        x = part["labelled"] + 0.08 * (place - (len(shown) - 1) / 2)
        axes.vlines(x, part["low"], part["high"], color=colour, linewidth=1.8, alpha=0.55)
        axes.plot(x, part["uar"], color=colour, marker=marker, markersize=5, label=PRIORS[prior])
    axes.axhline(100 / 7, color="#8C8C8C", linewidth=0.8, linestyle="--", label="guessing")
    axes.set(xlabel="people with labels", ylabel="UAR on the others (%)", ylim=(0, 100))
    axes.set_xticks(sorted(set(data["labelled"])))
    axes.grid(axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes
