"""Could this run have shown an effect? Positive and negative control of AU-DFER, network by network and all together.

Positive: action units as they were planted, with the matrix of the same; an AU head must help. Negative: the planted
action units of other clips; it must not. Where the first is not certain, or the second is, nothing that the run says
about AU-DFER is evidence, and the verdicts of notebooks 03 and 04 begin by saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation import LEVEL, holm
from .builder import DASH, Result, digests_of, output
from .drawing import BLUE, GREEN, PINK, dots, interval_mark, legend_below, names_down, panels
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
)
from .selection import model_name, models_of, no_head, select

POSITIVE, NEGATIVE, EXTRACTED = "planted AUs", "AUs of other clips", "AUs of the extractor"
#: control -> whose action units, what it must do, colour
CONTROLS = {
    POSITIVE: ("planted", "must help", GREEN),
    NEGATIVE: ("shuffled", "must not help", PINK),
    EXTRACTED: ("", "AU-DFER itself", BLUE),
}
#: all networks of the table together: their runs are drawn as seeds are
TOGETHER = "all networks"


def cells(study) -> list:
    """Every network on the strategy dataset without an AU head and with each control's action units, all seeds."""
    grid = study.profile.grid
    sources = [source for source, _, _ in CONTROLS.values() if study.profile.embedded or source == ""]
    return [
        study.cell(model, grid.strategy_dataset, ratio, seed=seed, au_source=source)
        for model in grid.models
        for ratio, source in ((0.0, ""), *((grid.au_ratio, source) for source in sources))
        for seed in study.profile.training.seeds
    ]


@output("controls", "04_strategies", cells=cells)
def controls(study, records, protocol: str = "last") -> Result:
    """Differences to the network without an AU head; Holm's correction: one family for each control."""
    grid, lines = study.profile.grid, []
    networks = [[model] for model in models_of(records)]
    networks += [models_of(records)] if len(networks) > 1 else []
    for models in networks:
        parts = [_records(records, models, grid.strategy_dataset, au_ratio=no_head)]
        for source, _, _ in CONTROLS.values():
            own = source or (lambda value: not value)
            with_source = {"au_ratio": grid.au_ratio, "au_source": own, "weights": "knowledge"}
            parts.append(_records(records, models, grid.strategy_dataset, **with_source))
        name = models[0] if len(models) == 1 else TOGETHER
        for control, cell in zip(CONTROLS, parts[1:], strict=True):
            base = identity(cell, name, grid.strategy_dataset, control)
            lines += [Line(base, cell, parts[0])] if cell and parts[0] else []
    tidy = measured(lines, TOTALS, protocol)[0].drop(columns=["paper", "note"])
    for control in CONTROLS:
        chosen = tidy["variant"] == control
        tidy["p_holm"] = np.where(chosen, holm(tidy["p"].where(chosen)), tidy["p_holm"])
    display = []
    for (model, control), part in tidy.groupby(["model", "variant"], sort=False):
        line = {"Network": model_name(model), "Action units": control, "It": CONTROLS[control][1]}
        shown = ours(part)
        for row in part.itertuples():
            line |= {f"{row.metric} [95 %]": shown[row.metric], f"Δ {row.metric} [95 %]": difference_text(row)}
            line[f"p {row.metric}"] = p_text(row.p_holm)
        display.append(line)
    caption = sentences(
        f"Controls on {grid.strategy_dataset}: what the AU head adds to the same network without one, λ = "
        f"{grid.au_ratio:g}. {verdict(tidy)}",
        describe(records, protocol, study.profile.embedded),
        how_compared(records, "each control's rows") if records else "",
        detectable_text(tidy),
    )
    drawn = f"Controls as a picture: differences to no AU head. {describe(records, protocol, study.profile.embedded)}"
    picture = Result("controls_plot", tidy, drawn, draw=draw, digests=digests_of(records))
    shown = pd.DataFrame(display).fillna(DASH)
    return Result("controls", tidy, caption, shown, digests=digests_of(records), picture=picture)


def _records(records: Sequence, models: Sequence[str], dataset: str, **settings) -> list:
    """One record per seed; of several networks, one per network and seed, each as a seed of its own."""
    out = []
    for model in models:
        for record in select(records, model=model, dataset=dataset, **settings):
            if len(models) > 1:
                record = copy(record)
                record.cell = record.cell | {"seed": 1000 * len(out) + record.cell["seed"]}
            out.append(record)
    return out


def verdict(tidy: pd.DataFrame) -> str:
    """Whether this run can test the claim, in one sentence, from the rows of all networks together (else the one
    network's).
    """
    rows = tidy[tidy["model"] == TOGETHER] if (tidy["model"] == TOGETHER).any() else tidy
    sure = rows["p_holm"] < 1 - LEVEL
    helped = sure & (rows["difference"] > 0)
    positive, negative = ((rows["variant"] == name) for name in (POSITIVE, NEGATIVE))
    if not positive.any():
        return "No control: nothing is planted in real clips." if len(rows) else ""
    texts = {
        name: ", ".join(f"{row.metric} {difference_text(row)}" for row in rows[chosen].itertuples())
        for name, chosen in ((POSITIVE, positive), (NEGATIVE, negative))
    }
    if not helped[positive].any():
        return f"This run cannot test the claim: even planted action units do not help for certain ({texts[POSITIVE]})."
    if helped[negative].any():
        return (
            f"This run cannot test the claim: action units of other clips help as well ({texts[NEGATIVE]}), so that "
            "any gain may be that of a second task."
        )
    return (
        f"This run can test the claim: planted action units help for certain ({texts[POSITIVE]}), those of other clips "
        f"do not ({texts[NEGATIVE]})."
    )


def draw(data: pd.DataFrame) -> Figure:
    """What each control adds to each network, with 95 % intervals."""
    names = list(dict.fromkeys(data["model"]))
    figure, (grid,) = panels(2, 2, 3.6, 0.5 * max(1, len(names)) + 0.6, (1.2, 0), sharey=True)
    for axes, metric in zip(grid, TOTALS, strict=True):
        axes.axvline(0, color="#999999", linestyle="--", linewidth=1)
        for shift, (control, (_, _, colour)) in zip((-0.22, 0, 0.22), CONTROLS.items(), strict=True):
            part = data[(data["metric"] == metric) & (data["variant"] == control)].set_index("model").reindex(names)
            dots(axes, part, [k + shift for k in range(len(names))], colour, "difference", "difference_")
        axes.set_xlabel(f"Δ {metric} (points)")
        axes.grid(axis="x")
    names_down(grid[0], [model_name(name) for name in names])
    legend_below(figure, [interval_mark(f"{name} ({must})", colour) for name, (_, must, colour) in CONTROLS.items()])
    return figure
