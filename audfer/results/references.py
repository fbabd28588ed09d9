"""Table 1 beside what costs nothing and what perfect action units would give; the picture that opens the README."""

from __future__ import annotations

from copy import copy

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..action_units.baseline import CLASSIFIERS
from ..evaluation import compare, holm
from ..facs import EXPRESSIONS
from ..models import NETWORKS
from .builder import Result, output
from .drawing import VARIANT_COLOURS, interval_mark, legend_below, mark
from .rows import TOTALS, describe, difference_text, percent, sentences, text
from .selection import WITH, WITHOUT, datasets_of, model_name, models_of, of_fold, ordered, without_and_with
from .table1 import variant_panels
from .words import answers, counted

_DIFFERENCE = ("difference", "difference_low", "difference_high")
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
        .rename_axis(columns=None)
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
    """How far the networks are from those references, in words: the least and the most of them on each dataset, since
    the best alone would be chosen by the clips that it is judged on.
    """
    rows = differences(study, of_fold(records, 1), protocol)
    questions = []
    for name, part in rows.groupby("against", sort=False):
        said = []
        for dataset, own in part.sort_values("difference", kind="stable").groupby("dataset"):
            ends = (
                f"{difference_text(row)} ({model_name(row.model)} {row.variant})"
                for row in own.iloc[[0, -1]].itertuples()
            )
            said.append(f"{dataset} {' to '.join(ends)}")
        answer = f"WAR on {'; '.join(said)}; {counted(part, 'differences')}"
        questions.append((f"How far are the networks from “{name}”?", answer))
    title = "Networks and what needs none, on the same test clips (of several folds, on the first's)"
    return answers("table1_gap", questions, title, study.results("table1", protocol=protocol))


def differences(study, records, protocol: str) -> pd.DataFrame:
    """WAR of every network, without and with the AU head, minus that of each reference on the same clips.

    Returns:
        One row each: dataset, model, variant, against, metric, difference with its interval (points), p_holm (over all
        rows with the same ``against``).
    """
    grid, rows = study.profile.grid, []
    for dataset in datasets_of(records):
        found = study.au_predictions(dataset)
        said = [found[0]["majority"], *(table["predicted"] for table in found)]
        for model in models_of(records):
            for variant, cell in without_and_with(records, model, dataset, grid.strategy, grid.au_ratio).items():
                for name, classes in zip(REFERENCES, said, strict=False):
                    classes = classes.set_axis(found[0]["clip_id"]).reindex(cell[0].clip_ids)
                    if classes.notna().all():
                        change = compare(_saying(cell[0], classes), cell, protocol)
                        row = {"dataset": dataset, "model": model, "variant": variant, "against": name, "metric": "WAR"}
                        rows.append(row | percent(change.war, "difference", "difference_") | {"p": change.war_p})
    table = pd.DataFrame(rows, columns=["dataset", "model", "variant", "against", "metric", *_DIFFERENCE, "p"])
    return table.assign(p_holm=table.groupby("against", sort=False)["p"].transform(holm))


def _saying(record, classes: pd.Series):
    """A record of the same clips with these answers, whichever epoch is asked."""
    other = copy(record)
    scores = np.eye(len(EXPRESSIONS))[classes.astype(int)]
    other.scores = other.best_scores = other.validated_scores = scores
    return other


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
