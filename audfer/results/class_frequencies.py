"""How often each expression is in the training clips of every dataset, beside the published counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import published
from ..errors import InputError
from ..facs import EXPRESSION_HEADINGS, EXPRESSIONS
from .builder import Result, output
from .drawing import EXPRESSION_COLOURS, legend_below, panels, rendered


@output("class_frequencies", "01_au_extraction", elsewhere=True)
def class_frequencies(study) -> Result:
    """Clips as each dataset's reader finds them."""
    caption = f"Training clips of each expression; lines: the real datasets. {study.caption}"
    data = frequency_data(study.class_counts())
    return Result("class_frequencies", data, caption, draw=partial(draw, remark=rendered(study)))


def frequency_data(counts: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Class frequencies beside those of the published training splits.

    Args:
        counts: dataset -> clips of each expression.

    Returns:
        Columns dataset, expression, clips, share, paper_clips, paper_share (percent; NaN where no count is
        published).
    """
    rows = []
    for dataset, ours in counts.items():
        try:
            theirs = list(published.class_counts(dataset, "train").values())
        except InputError:
            theirs = [np.nan] * len(EXPRESSIONS)
        for name, mine, their in zip(EXPRESSIONS, map(int, ours), theirs, strict=True):
            share, paper_share = 100 * mine / max(1, sum(map(int, ours))), 100 * their / sum(theirs)
            rows.append((dataset, name, mine, share, their, paper_share))
    return pd.DataFrame(rows, columns=["dataset", "expression", "clips", "share", "paper_clips", "paper_share"])


def draw(data: pd.DataFrame, remark: str = "") -> Figure:
    """Share of each expression among the clips of every dataset, with the published share as a line.

    Args:
        remark: behind each dataset's name.
    """
    datasets = list(dict.fromkeys(data["dataset"]))
    figure, grid = panels(len(datasets), 3, 2.6, 2.3, (0.6, 0.5))
    place = np.arange(len(EXPRESSIONS))
    for axes, dataset in zip(grid.flat, datasets, strict=False):
        part = data[data["dataset"] == dataset].set_index("expression").reindex(list(EXPRESSIONS))
        axes.bar(place, part["share"], width=0.72, color=list(EXPRESSION_COLOURS.values()))
        axes.hlines(part["paper_share"], place - 0.42, place + 0.42, color="black", linewidth=1.4)
        axes.set_xticks(place, EXPRESSION_HEADINGS)
        axes.tick_params(axis="x", length=0)
        axes.set_title(f"{dataset}{remark} ({int(part['clips'].sum())} clips)")
        axes.grid(axis="y")
    for axes in grid[:, 0]:
        axes.set_ylabel("share of clips (%)")
    if data["paper_share"].notna().any():
        label = "published share of the real dataset"
        legend_below(figure, [Line2D([], [], color="black", linewidth=1.4, label=label)])
    return figure
