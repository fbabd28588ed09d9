"""Table 1 in five numbers: interquartile means over networks and datasets, how often the AU head is better, and what it
changes on all of their clips together.
"""

from __future__ import annotations

import pandas as pd

from ..evaluation import aggregates, compare, summary
from .builder import Result, digests_of, output
from .rows import TOTALS, describe, percent, sentences
from .selection import WITH, WITHOUT, datasets_of, joined, models_of, of_fold, without_and_with

#: what ``evaluation.aggregates`` names -> how the table calls it
_COLUMNS = {
    "first": f"Interquartile mean {WITHOUT} [95 %]",
    "second": f"{WITH} [95 %]",
    "difference": "Δ [95 %]",
    "improvement": "Probability of improvement [95 %]",
    "together": "Δ on all clips together [95 %]",
}


@output("table1_aggregate", "03_training", needs=("table1",))
def aggregate(study, records, protocol: str = "last") -> Result:
    """Over all networks and datasets that have both variants."""
    whole = of_fold(records, None)
    cells = [without_and_with(whole, model, dataset) for model in models_of(whole) for dataset in datasets_of(whole)]
    cells = [cell for cell in cells if len(cell) == 2]
    rows, display = [], []
    whole = [joined([cell[variant] for cell in cells]) for variant in (WITHOUT, WITH)] if cells else [[]]
    change = compare(*whole, protocol) if all(whole) else None
    for metric in TOTALS if cells else ():
        runs = [
            [getattr(summary(cell[variant], protocol), f"{metric.lower()}_by_seed") for cell in cells]
            for variant in (WITHOUT, WITH)
        ]
        numbers = aggregates(*runs)
        count = numbers["difference"].count
        if change:
            numbers["together"] = getattr(change, metric.lower())
        for what, number in numbers.items():
            rows.append(
                {"metric": metric, "what": what, **percent(number, "value"), "tasks": len(cells), "runs": count}
            )
        signed = ("difference", "together")
        shown = {_COLUMNS[what]: number.percent(signed=what in signed) for what, number in numbers.items()}
        display.append({"Metric": metric, **shown})
    caption = sentences(
        f"Table 1 over {len(cells)} pairs of network and dataset, percent. Interquartile mean: of all runs, without "
        "the lowest and the highest quarter. Probability of improvement: that a run with AU beats one without on the "
        "same pair; 50 is none (Agarwal and others, NeurIPS 2021).",
        "These intervals draw seeds again within each pair, on the clips at hand. Last column: the paired difference "
        "on the clips of all pairs, clips and seeds as crossed random factors; what several networks say of a clip is "
        "one draw.",
        describe(records, protocol, study.profile.embedded),
    )
    return Result("table1_aggregate", pd.DataFrame(rows), caption, pd.DataFrame(display), digests=digests_of(records))
