"""Could this run have shown an effect? Positive and negative control of AU-DFER.

Positive: action units as they were planted, with the matrix of the same; an AU head must help. Negative: the planted
action units of other clips; it must not. Every network has the first on the strategies' dataset; what decides, and is a
family of tests of its own, is the ablations' network on the clips of all datasets together. Where the first is not
certain there, or the second is, nothing that the run says about AU-DFER is evidence, and the verdicts of notebooks 03
and 04 begin by saying so.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from .selection import WITHOUT, datasets_of, joined, model_name, models_of, no_head, select
from .words import changes

POSITIVE, NEGATIVE, EXTRACTED = "planted AUs", "AUs of other clips", "AUs of the extractor"
#: control -> whose action units, what it must do, colour
CONTROLS = {
    POSITIVE: ("planted", "must help", GREEN),
    NEGATIVE: ("shuffled", "must not help", PINK),
    EXTRACTED: ("", "AU-DFER itself", BLUE),
}
#: the clips of every dataset one after the other, instead of a dataset
TOGETHER = "all datasets"


def cells(study) -> list:
    """Without an AU head and with each control's action units: the ablations' network on every dataset, with the
    ablations' seeds, and the others on the strategies' dataset, without the negative control, which they do not decide.
    """
    grid, seeds = study.profile.grid, study.profile.training.seeds
    embedded = study.profile.embedded  # nothing is planted in real clips
    wanted = {(model, grid.strategy_dataset): seeds for model in grid.models}
    if embedded:
        wanted |= {(grid.ratio_model, dataset): grid.ablation_seeds or seeds for dataset in grid.datasets}
    return [
        study.cell(model, dataset, ratio, seed=seed, au_source=source)
        for (model, dataset), chosen in wanted.items()
        for ratio, source in ((0.0, ""), *((grid.au_ratio, source) for source, _, _ in CONTROLS.values()))
        if (embedded or source == "") and (model == grid.ratio_model or source != CONTROLS[NEGATIVE][0])
        for seed in chosen
    ]


@output("controls", "04_strategies", cells=cells)
def controls(study, records, protocol: str = "last") -> Result:
    """Differences to the network without an AU head.

    Holm's correction: for each control one family of the rows that decide and one of the others.
    """
    grid, lines = study.profile.grid, []
    places = [(model, dataset) for model in models_of(records) for dataset in datasets_of(records)]
    parts = {place: _cells(records, *place, grid.au_ratio) for place in places}
    both = (WITHOUT, POSITIVE, NEGATIVE)
    own = [place[1] for place in places if place[0] == grid.ratio_model and all(parts[place][name] for name in both)]
    if len(own) > 1:
        of_one = [parts[grid.ratio_model, dataset] for dataset in own]
        parts[grid.ratio_model, TOGETHER] = {
            name: joined([part[name] for part in of_one]) if all(part[name] for part in of_one) else []
            for name in of_one[0]
        }
    deciding = grid.ratio_model, TOGETHER if len(own) > 1 else grid.strategy_dataset
    for place, cell in parts.items():
        for control in CONTROLS:
            if cell[control] and cell[WITHOUT]:
                base = identity(cell[control], *place, control) | {"decides": place == deciding}
                lines.append(Line(base, cell[control], cell[WITHOUT]))
    tidy = measured(lines, TOTALS, protocol)[0].drop(columns=["paper", "note"])
    if not lines:
        tidy["decides"] = False
    for _, family in tidy.groupby(["variant", "decides"]):
        tidy.loc[family.index, "p_holm"] = holm(family["p"])
    display = []
    for (model, dataset, control), part in tidy.groupby(["model", "dataset", "variant"], sort=False):
        line = {"Network": model_name(model), "Dataset": dataset, "Action units": control, "It": CONTROLS[control][1]}
        shown = ours(part)
        for row in part.itertuples():
            line |= {f"{row.metric} [95 %]": shown[row.metric], f"Δ {row.metric} [95 %]": difference_text(row)}
            line[f"p {row.metric}"] = p_text(row.p_holm)
        display.append(line)
    caption = sentences(
        f"Controls: what the AU head adds to the same network without one, λ = {grid.au_ratio:g}. {verdict(tidy)}",
        f"The rows that decide, chosen beforehand: {model_name(deciding[0])} on {deciding[1]}.",
        describe(records, protocol, study.profile.embedded),
        how_compared(records, "each control's rows, those that decide apart") if records else "",
        detectable_text(tidy),
    )
    drawn = f"Controls as a picture: differences to “without AU”. {describe(records, protocol, study.profile.embedded)}"
    picture = Result("controls_plot", tidy, drawn, draw=draw, digests=digests_of(records))
    shown = pd.DataFrame(display).fillna(DASH)
    return Result("controls", tidy, caption, shown, digests=digests_of(records), picture=picture)


def _cells(records: Sequence, model: str, dataset: str, ratio: float) -> dict[str, list]:
    """The network without an AU head and with each control's action units, one record per seed each."""
    cells = {WITHOUT: select(records, model=model, dataset=dataset, au_ratio=no_head)}
    for control, (source, _, _) in CONTROLS.items():
        wanted = source or (lambda value: not value)
        cells[control] = select(
            records, model=model, dataset=dataset, au_ratio=ratio, au_source=wanted, weights="knowledge"
        )
    return cells


def verdict(tidy: pd.DataFrame) -> str:
    """Whether this run can test the claim, from the rows that decide; then what stands behind them without controls of
    its own on all clips.
    """
    rows = tidy[tidy["decides"].astype(bool)]
    sure = rows["p_holm"] < 1 - LEVEL
    helped = sure & (rows["difference"] > 0)
    positive, negative = ((rows["variant"] == name) for name in (POSITIVE, NEGATIVE))
    if not positive.any():
        return "No control: nothing is planted in real clips." if len(rows) else ""
    texts = {
        name: ", ".join(f"{row.metric} {difference_text(row)}" for row in rows[chosen].itertuples())
        for name, chosen in ((POSITIVE, positive), (NEGATIVE, negative))
    }
    where = f"{model_name(rows['model'].iloc[0])} on {rows['dataset'].iloc[0]}"
    if not helped[positive].any():
        return (
            f"This run cannot test the claim: even planted action units do not help {where} for certain "
            f"({texts[POSITIVE]})."
        )
    if helped[negative].any():
        return (
            f"This run cannot test the claim: action units of other clips help as well ({texts[NEGATIVE]}), so that "
            "any gain may be that of a second task."
        )
    said = (
        f"This run can test the claim: planted action units help {where} for certain ({texts[POSITIVE]}), those of "
        f"other clips do not ({texts[NEGATIVE]})."
    )
    decides, others = rows["model"].iloc[0], tidy[(tidy["variant"] == POSITIVE) & tidy["difference"].notna()]
    others = others[others["model"] != decides]
    if not len(others):
        return said
    names = " and ".join(map(model_name, dict.fromkeys(others["model"])))
    places = " and ".join(dict.fromkeys(others["dataset"]))
    return (
        f"{said} What is said of {names} stands behind this gate of {model_name(decides)}'s; planted action units on "
        f"{places} alone: {changes(others, 'differences of theirs')}"
    )


def together(tidy: pd.DataFrame) -> str:
    """What AU-DFER itself does in the rows that decide, and what planted action units, the best that there could be, do
    there, in words; "" where they are not of all datasets.
    """
    rows = tidy[tidy["dataset"] == TOGETHER]
    own, best = (rows[rows["variant"] == name] for name in (EXTRACTED, POSITIVE))
    if not len(own):
        return ""
    text = f"{model_name(own['model'].iloc[0])}, {own['seeds'].max():.0f} seeds: {changes(own, 'differences')}"
    limit = ", ".join(f"{row.metric} {difference_text(row)}" for row in best.itertuples())
    return f"{text} Planted action units, the best that there could be, change it by {limit}." if limit else text


def draw(data: pd.DataFrame) -> Figure:
    """What each control adds to each network, with 95 % intervals."""
    keys = ["model", "dataset"]
    names = list(dict.fromkeys(zip(*(data[key] for key in keys), strict=True)))
    figure, (grid,) = panels(2, 2, 3.6, 0.5 * max(1, len(names)) + 0.6, (1.2, 0), sharey=True)
    for axes, metric in zip(grid, TOTALS, strict=True):
        axes.axvline(0, color="#999999", linestyle="--", linewidth=1)
        for shift, (control, (_, _, colour)) in zip((-0.22, 0, 0.22), CONTROLS.items(), strict=True):
            part = data[(data["metric"] == metric) & (data["variant"] == control)].set_index(keys).reindex(names)
            dots(axes, part, [k + shift for k in range(len(names))], colour, "difference", "difference_")
        axes.set_xlabel(f"Δ {metric} (points)")
        axes.grid(axis="x")
    names_down(grid[0], [f"{model_name(model)}, {dataset}" for model, dataset in names])
    legend_below(figure, [interval_mark(f"{name} ({must})", colour) for name, (_, must, colour) in CONTROLS.items()])
    return figure
