"""The positive class weights of Eqs. 6 to 8, as the cells of Table 3 had them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from ..evaluation.matrices import matrices
from .builder import Result, output
from .drawing import matrices_by_source

draw = partial(matrices_by_source, label="positive class weight", columns=1, digits=None, low=None, log=True)


@output("positive_class_weights", "04_strategies", needs=("table3",))
def positive_class_weights(study, records) -> Result | tuple:
    """A matrix per strategy, on a logarithmic scale; nothing where no cell of the dataset has an AU head."""
    grid = study.profile.grid
    data = weight_data(records, grid.strategy_dataset, grid.strategies)
    caption = f"Positive class weights of the three strategies on {grid.strategy_dataset}. {study.caption}"
    return Result("positive_class_weights", data, caption, draw=draw) if len(data) else ()


def weight_data(records: Sequence, dataset: str, strategies: Sequence[str]) -> pd.DataFrame:
    """Columns source (the strategy), expression, action_unit, value; a strategy without a record is left out.

    They come from the training clips alone: one record of each strategy tells, whatever its network.
    """
    weights = {
        record.cell["strategy"]: record.positive_weights
        for record in reversed(records)
        if record.cell["dataset"] == dataset and record.positive_weights is not None
    }
    return matrices({name: weights[name] for name in strategies if name in weights})
