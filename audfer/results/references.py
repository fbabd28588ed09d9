"""Table 1 beside what costs nothing and what perfect action units would give; the picture that opens the README."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..action_units.baseline import CLASSIFIERS
from ..models import NETWORKS
from .builder import Result, output
from .drawing import VARIANT_COLOURS, interval_mark, legend_below, mark
from .rows import TOTALS, describe, sentences, text
from .selection import WITH, WITHOUT, model_name, ordered
from .table1 import variant_panels
from .words import answers

#: what networks are held against -> colour of its line
REFERENCES = {
    CLASSIFIERS["majority"]: "#8C8C8C",
    "regression on the extractor's AUs": "#D55E00",
    "regression on planted AUs": "#009E73",
}


@output("table1_references", "03_training", needs=("table1",), elsewhere=True)
def references(study, records, protocol: str = "last") -> Result:
    """Rows of Table 1, and on the same test clips always the commonest expression and a regression on action units."""
    table = study.results("table1", protocol=protocol).frame
    table = table[["dataset", "model", "variant", "metric", "ours", "low", "high"]]
    found = study.au_baselines(study.au_clips())
    found = found[found["judged"] == "test clips"]
    # the same test clips twice, with each extractor's AUs: the commonest expression is the same in both
    kinds = dict(zip(dict.fromkeys(found["features"]), list(REFERENCES)[1:], strict=False))
    majority, names = found["classifier"] == CLASSIFIERS["majority"], found["features"].map(kinds)
    found = found.assign(
        variant=np.where(majority, CLASSIFIERS["majority"], names),
        model="",
        ours=found["value"],
        dataset=found["source"],
    )
    found = found.drop_duplicates(["dataset", "variant", "metric"])
    data = pd.concat([table, found[list(table)]], ignore_index=True)
    shown = data.assign(number=[text(*row) for row in data[["ours", "low", "high"]].itertuples(index=False)])
    display = (
        shown.assign(Network=shown["model"].map(lambda name: model_name(name) if name else "no network"))
        .pivot(index=["dataset", "Network", "variant"], columns="metric", values="number")
        .reindex(columns=list(TOTALS))
        .rename(columns=lambda metric: f"{metric} [95 %]")
        .reset_index()
        .rename(columns={"dataset": "Dataset", "variant": "What"})
    )
    caption = sentences(
        "Table 1 beside what needs no network: always the commonest training expression, and a logistic regression on "
        "51 numbers of each clip's action units (notebook 01), those of the extractor and those that were planted.",
        describe(records, protocol, study.profile.embedded),
    )
    return Result(
        "table1_references",
        data,
        caption,
        display,
        picture=Result("table1_references_plot", data, f"Table 1 as intervals. {caption}", draw=draw),
    )


@output("table1_gap", "03_training", needs=("table1",), elsewhere=True)
def gap(study, records, protocol: str = "last") -> Result:
    """How far the networks are from those references, in words."""
    table = study.results("table1_references", protocol=protocol)
    data, questions = table.frame, []
    for name in REFERENCES:
        said = []
        for dataset, rows in data[data["metric"] == "WAR"].groupby("dataset", sort=False):
            reference = rows.loc[rows["variant"] == name, "ours"]
            networks = rows[rows["model"] != ""]
            if len(reference) and networks["ours"].notna().any():
                best = networks.loc[networks["ours"].idxmax()]
                away = f"{best['ours'] - reference.iloc[0]:+.1f} points"
                said.append(f"{dataset}: {away} ({model_name(best['model'])} {best['variant']})")
        if said:
            questions.append((f"How far is the best network from “{name}”?", f"WAR on {'; '.join(said)}."))
    return answers("table1_gap", questions, "Networks and what needs none", table)


def draw(data: pd.DataFrame) -> Figure:
    """WAR and UAR of every network without and with AU-DFER, with 95 % intervals, and the references as lines."""

    def lines_behind(axes, part: pd.DataFrame) -> None:
        for name, colour in REFERENCES.items():
            for value in part.loc[part["variant"] == name, "ours"]:
                axes.axvline(value, color=colour, linestyle="--", linewidth=1.2)

    datasets = list(dict.fromkeys(data["dataset"]))
    models = ordered(data.loc[data["model"] != "", "model"], NETWORKS)
    figure = variant_panels(data, datasets, models, 1.7, (1.2, 0.2), lines_behind)
    handles = [interval_mark(f"network {variant}", VARIANT_COLOURS[variant]) for variant in (WITHOUT, WITH)]
    lines = [
        mark(name, color=colour, marker="|", markersize=11, markeredgewidth=2) for name, colour in REFERENCES.items()
    ]
    legend_below(figure, [*handles, *lines], 3)
    return figure
