"""Table 3: the network alone and with each positive-weight strategy of Eqs. 6 to 8 (section 5.2); and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..losses import STRATEGIES
from ..models import NETWORKS
from .builder import DASH, Result, digests_of, output
from .drawing import BLUE, GREEN, PINK, dots, interval_mark, legend_below, mark, names_down, panels
from .printed import remarks_on
from .rows import (
    METRICS,
    TOTALS,
    Line,
    Notes,
    class_lines,
    describe,
    differences,
    fold_means,
    identity,
    measured,
    paper_heading,
    table_caption,
)
from .selection import WITHOUT, au_records, baseline_records, cells_of, model_name, models_of, of_fold, ordered

COLOURS: dict[str, str] = dict(zip(STRATEGIES, (BLUE, GREEN, PINK), strict=True))


def datasets(study) -> tuple[str, ...]:
    """The datasets of Table 3: the paper's one, and those that the profile adds."""
    grid = study.profile.grid
    return tuple(dict.fromkeys((grid.strategy_dataset, *grid.strategy_datasets)))


def cells(study) -> list:
    """Every network alone and with every strategy, all folds and seeds."""
    grid = study.profile.grid
    settings = ((0.0,), *((grid.au_ratio, strategy) for strategy in grid.strategies))
    wanted = ((model, name, *setting) for name in datasets(study) for model in grid.models for setting in settings)
    return cells_of(study, wanted, every_fold=True)


@output("table3", "04_strategies", cells=cells)
def table3(study, records, protocol: str = "last", fold: int | None = None) -> Result:
    """Table 3; ``fold`` as in Table 1."""
    return _table(study, records, study.profile.grid.strategy_dataset, "table3_strategies", protocol, fold)


@output("table3_others", "04_strategies", needs=("table3",))
def table3_others(study, records, protocol: str = "last") -> tuple[Result, ...]:
    """Table 3 on the profile's further datasets; the paper shows DFEW."""
    return tuple(
        _table(study, records, dataset, f"table3_strategies_{dataset}", protocol) for dataset in datasets(study)[1:]
    )


def _table(study, records: Sequence, dataset: str, name: str, protocol: str, fold: int | None = None) -> Result:
    grid, embedded = study.profile.grid, study.profile.embedded
    chosen, lines, notes = of_fold(records, fold), [], Notes()
    for model in models_of(chosen):
        alone = baseline_records(chosen, model, dataset)
        remarks = remarks_on(model, "baseline", dataset)
        lines.append(Line(identity(alone, model, dataset, WITHOUT, "none"), alone, [], "baseline", remarks))
        for strategy in STRATEGIES:
            cell = au_records(chosen, model, dataset, strategy, grid.au_ratio)
            base = identity(cell, model, dataset, strategy, strategy)
            lines.append(Line(base, cell, alone, strategy, remarks_on(model, strategy, dataset)))
    tidy, parts = measured(lines, METRICS, protocol)
    display = []
    for line, part in zip(lines, parts, strict=True):
        columns, letters = {**fold_means(part), **differences(part)}, notes.refer(line.remarks)
        display += class_lines(part, line.base["model"], line.base["variant"], letters, columns, embedded)
    used = [record for line in lines for record in line.cell]
    ratios = sorted({record.cell["au_ratio"] for record in used if record.cell["au_ratio"] > 0})
    setting = f", AU ratio λ = {', '.join(f'{ratio:g}' for ratio in ratios)}" if ratios else ""
    title = (
        f"Table 3. Strategies for the positive class weights (Eqs. 6 to 8) on {dataset}: percent right of each "
        f"expression, WAR, UAR{setting}; Δ is against the same network without AU."
    )
    drawn = f"Table 3 as a picture: what each strategy changes. {describe(records, protocol, embedded)}"
    picture = Result("table3_plot", tidy, drawn, draw=partial(draw, embedded=embedded), digests=digests_of(records))
    return Result(
        name,
        tidy,
        table_caption(title, used, protocol, tidy, embedded),
        pd.DataFrame(display).fillna(DASH),
        notes=notes.lines(),
        digests=digests_of(used),
        picture=picture if dataset == grid.strategy_dataset else None,
    )


def draw(data: pd.DataFrame, embedded: bool = True) -> Figure:
    """What every strategy changes in every network's WAR and UAR, with 95 % intervals, beside what the paper prints.

    Percentages of the paper's clips and of ours lie far apart, so they would squeeze each other; changes do not.

    Args:
        embedded: our clips are rendered, so the legend calls the paper's numbers another input.
    """
    models, names = ordered(data["model"], NETWORKS), list(COLOURS)
    columns = max(1, len(models))
    figure, grid = panels(2 * columns, columns, 2.6, 1.75, (1.2, 0), sharex="row", sharey=True)
    paper = {"marker": "D", "markerfacecolor": "none", "color": "black", "markersize": 4.5}
    for row, metric in zip(grid, TOTALS, strict=True):
        for axes, model in zip(row, models, strict=False):
            part = data[(data["metric"] == metric) & (data["model"] == model)].set_index("variant")
            printed, part = part["paper"].reindex([WITHOUT, *names]), part.reindex(names)
            axes.axvline(0, color="#999999", linestyle="--", linewidth=1)
            for k, name in enumerate(names):
                dots(axes, part.loc[[name]], [k], COLOURS[name], "difference", "difference_")
            axes.plot(printed[names] - printed[WITHOUT], np.arange(len(names)) + 0.22, linestyle="none", **paper)
            names_down(axes, names)
            axes.set_title(model_name(model) if metric == "WAR" else "")
            axes.set_xlabel(f"{metric} minus that {WITHOUT} (points)")
            axes.grid(axis="x")
    legend_below(figure, [interval_mark("ours, 95 % interval", "#444444"), mark(paper_heading(embedded), **paper)])
    return figure
