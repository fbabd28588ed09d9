"""Ablations that the paper leaves out, as a table, a picture and in words: is it the knowledge that helps, or would any
auxiliary AU task do?"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation import holm
from ..study.ablations import ABLATIONS, CONTROLS, KNOWLEDGE, NO_HEAD, PLAIN_BCE, ablation_records
from .builder import DASH, Result, digests_of, output
from .controls import verdict
from .drawing import VARIANT_COLOURS, dots, names_down
from .rows import (
    TOTALS,
    Line,
    describe,
    detectable_text,
    difference_text,
    how_compared,
    identity,
    measured,
    ours,
    p_text,
    sentences,
    settings_text,
)
from .selection import WITH, WITHOUT, model_name, models_of, pooled
from .words import answers, certainty, changes, compared

_COLOURS = {KNOWLEDGE: VARIANT_COLOURS[WITH], NO_HEAD: VARIANT_COLOURS[WITHOUT]}


def cells(study) -> list:
    """The profile's variants of AU-DFER, all seeds."""
    grid = study.profile.grid
    return [
        study.cell(
            grid.ratio_model,
            grid.strategy_dataset,
            0.0 if name == NO_HEAD else grid.au_ratio,
            seed=seed,
            **ABLATIONS[name].fields,
        )
        for name in (NO_HEAD, *grid.ablations)
        for seed in grid.ablation_seeds or study.profile.training.seeds
    ]


@output("ablations", "04_strategies", cells=cells)
def ablations(study, records, protocol: str = "last") -> Result:
    """Every variant against plain BCE and against the network without AU.

    The tidy numbers have a row per variant, metric and ``against``: "plain BCE", "without AU", and for the knowledge
    also each of ``CONTROLS``. Holm's correction: one family each for the two, and one for the controls.
    """
    grid, embedded = study.profile.grid, study.profile.embedded
    joined = pooled(records)
    variants = {name: ablation_records(joined, name, grid.strategy) for name in ABLATIONS}
    names, lines = [name for name in ABLATIONS if variants[name]], []
    for name in names:
        cell = variants[name]
        base = identity(cell, cell[0].cell["model"], grid.strategy_dataset, name)
        controls = tuple(control for control in CONTROLS if variants[control]) if name == KNOWLEDGE else ()
        others = {PLAIN_BCE: (NO_HEAD,), NO_HEAD: (PLAIN_BCE,)}.get(name, (PLAIN_BCE, NO_HEAD, *controls))
        summary = (ABLATIONS[name].summary,)
        lines += [Line(base | {"against": other}, cell, variants[other], remarks=summary) for other in others]
    tidy = measured(lines, TOTALS, protocol)[0].drop(columns="paper").rename(columns={"note": "summary"})
    if not lines:
        tidy["against"] = pd.Series(dtype=object)
    for family in ((PLAIN_BCE,), (NO_HEAD,), CONTROLS):
        chosen = tidy["against"].isin(family)
        tidy["p_holm"] = np.where(chosen, holm(tidy["p"].where(chosen)), tidy["p_holm"])
    display = []
    for (name, metric), part in tidy.groupby(["variant", "metric"], sort=False):
        line = {"Variant": name, "Metric": metric, "ours [95 %]": ours(part)[metric]}
        for against, change, p in ((PLAIN_BCE, "plain BCE", "p"), (NO_HEAD, NO_HEAD, f"p ({NO_HEAD})")):
            row = next(part[part["against"] == against].itertuples(), None)
            line[f"Δ {change} [95 %]"] = DASH if row is None else difference_text(row)
            line[p] = DASH if row is None else p_text(row.p_holm)
        display.append(line)
    used = [record for name in names for record in variants[name]]
    caption = sentences(
        f"Ablations: what weighs the AU loss of {' '.join(map(model_name, models_of(used)))} on "
        f"{grid.strategy_dataset}{settings_text(variants[KNOWLEDGE])}. Each variant is AU-DFER (“{KNOWLEDGE}”) with "
        "one thing changed.",
        describe(used, protocol, embedded),
        how_compared(used, "all rows with the same Δ") if used else "",
        detectable_text(tidy),
    )
    drawn = f"Ablations as a picture: differences to plain BCE. {describe(records, protocol, embedded)}"
    return Result(
        "ablations",
        tidy,
        caption,
        pd.DataFrame(display),
        notes=tuple(f"{name}: {ABLATIONS[name].summary}." for name in names),
        digests=digests_of(used),
        picture=Result("ablations_plot", tidy, drawn, draw=draw, digests=digests_of(records)),
    )


def draw(data: pd.DataFrame) -> Figure:
    """Every variant against plain BCE: differences of WAR and UAR with 95 % intervals."""
    data = data[data["against"] == PLAIN_BCE]
    names = list(dict.fromkeys(data["variant"]))
    figure, grid = plt.subplots(1, 2, figsize=(8.4, 0.3 * len(names) + 1.5), sharey=True)
    for axes, metric in zip(grid, TOTALS, strict=True):
        axes.axvline(0, color="#999999", linestyle="--", linewidth=1)
        part = data[data["metric"] == metric].set_index("variant").reindex(names)
        for k, name in enumerate(names):
            dots(axes, part.loc[[name]], [k], _COLOURS.get(name, "#333333"), "difference", "difference_")
        names_down(axes, names)
        axes.set_xlabel(f"{metric} minus that of plain BCE (points)")
        axes.grid(axis="x")
    for text, name in zip(grid[0].get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if name == KNOWLEDGE else "normal")
    return figure


@output("ablation_conclusions", "04_strategies", needs=("ablations", "controls"))
def ablation_conclusions(study, records, protocol: str = "last") -> Result:
    """What the ablations say: does the knowledge help, or any auxiliary AU task?"""
    gate = verdict(study.results("controls", protocol=protocol).frame)
    return in_words(study.results("ablations", protocol=protocol), study.profile.embedded, gate)


def in_words(table: Result, embedded: bool = True, gate: str = "") -> Result:
    """The conclusions from a table of ablations, behind what the controls say (``gate``)."""
    rows = compared(table.frame)
    where = "on the embedded benchmark (rendered faces)" if embedded else "on these clips"
    questions = [("Can this run tell?", gate)] if gate else []
    for question, name, against in (
        (f"Does an AU head help at all, {where}?", PLAIN_BCE, NO_HEAD),
        ("Does AU-DFER help?", KNOWLEDGE, NO_HEAD),
        ("Does the knowledge help, beyond plain BCE?", KNOWLEDGE, PLAIN_BCE),
    ):
        part = rows[(rows["variant"] == name) & (rows["against"] == against)]
        questions.append((question, f"{name} against {against}: {changes(part, 'differences')}"))
    part = rows[(rows["variant"] == KNOWLEDGE) & rows["against"].isin(CONTROLS)]
    controls = ", ".join(dict.fromkeys(part["against"])) or "its controls"
    said = changes(part.assign(variant="against " + part["against"]), "differences")
    question = "Does it matter which AU and expression has which weight?"
    questions += [
        (question, f"{KNOWLEDGE} against {controls}: {said}"),
        ("How sure is what the ablations say?", certainty(rows)),
    ]
    return answers("ablation_conclusions", questions, "What the ablations say", table)
