"""Fig. 6: confusion matrices of every network, without and with AU; several folds are pooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation import summary
from ..facs import EXPRESSIONS
from ..models import NETWORKS
from .builder import Result, digests_of, output
from .drawing import confusion, empty, panels
from .rows import describe
from .selection import WITH, WITHOUT, model_name, models_of, ordered, pooled, without_and_with
from .table2 import cells


@output("fig6", "03_training", cells=cells)
def fig6(study, records, protocol: str = "last") -> Result:
    """Fig. 6."""
    place = study.profile.grid.strategy_dataset
    data = confusion_data(records, place, protocol)
    caption = f"Fig. 6. Confusion matrices on {place}. {describe(records, protocol, study.profile.embedded)}"
    return Result("fig6_confusion", data, caption, draw=draw, digests=digests_of(records))


def confusion_data(records: Sequence, dataset: str, protocol: str = "last") -> pd.DataFrame:
    """The cells of the matrices; cells without a record are absent.

    Returns:
        Columns model, variant, true, predicted, count (clips; summed over seeds), share (percent of the true class;
        NaN for a class without clips), war (percent).
    """
    records, rows = pooled(records), []
    for model in models_of(records):
        for variant, cell in without_and_with(records, model, dataset).items():
            numbers = summary(cell, protocol)
            for k, true in enumerate(EXPRESSIONS):
                total = numbers.confusion[k].sum()
                for j, predicted in enumerate(EXPRESSIONS):
                    count = int(numbers.confusion[k, j])
                    share = 100 * count / total if total else np.nan
                    rows.append((model, variant, true, predicted, count, share, 100 * numbers.war.value))
    return pd.DataFrame(rows, columns=["model", "variant", "true", "predicted", "count", "share", "war"])


def draw(data: pd.DataFrame) -> Figure:
    """A column per network, without AU above and with AU below; a missing cell of the grid stays empty and says so."""
    models, letters = ordered(data["model"], NETWORKS), iter("abcdefghijklmnop")
    figure, grid = panels(2 * len(models), len(models), 3.25, 3.25, (0.2, 0))
    for row, variant in zip(grid, (WITHOUT, WITH), strict=True):
        for axes, model in zip(row, models, strict=True):
            part = data[(data["model"] == model) & (data["variant"] == variant)]
            title = f"({next(letters)}) {model_name(model)}, {variant}"
            if part.empty:
                empty(axes, "no record").set_title(title)
                continue
            confusion(part, axes, title=title)
            axes.set_ylabel("true" if model == models[0] else "")
            axes.set_xlabel("predicted" if variant == WITH else "")
    return figure
