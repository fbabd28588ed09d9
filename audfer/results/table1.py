"""Table 1: WAR and UAR of every network on every dataset, without and with AU-DFER (section 5.1); and as a picture."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ..facs import EVALUATION_DATASETS
from ..models import NETWORKS
from .builder import DASH, Result, digests_of, output
from .drawing import VARIANT_COLOURS, dots, interval_mark, legend_below, names_down, panels
from .printed import remarks_on
from .rows import (
    TOTALS,
    Line,
    Notes,
    describe,
    differences,
    fold_means,
    identity,
    measured,
    paper,
    paper_heading,
    settings_text,
    table_caption,
    totals,
)
from .selection import (
    WITH,
    WITHOUT,
    au_records,
    baseline_records,
    cells_of,
    datasets_of,
    model_name,
    models_of,
    of_fold,
    ordered,
)

#: what the papers call the two variants
PRINTED = {WITHOUT: "baseline", WITH: "audfer"}


def cells(study) -> list:
    """Every network on every dataset without and with the AU head, all folds and seeds."""
    grid = study.profile.grid
    wanted = ((m, d, ratio) for m in grid.models for d in grid.datasets for ratio in (0.0, grid.au_ratio))
    return cells_of(study, wanted, every_fold=True)


@output("table1", "03_training", cells=cells)
def table1(study, records, protocol: str = "last", fold: int | None = None) -> Result:
    """Table 1.

    Args:
        fold: one fold of the datasets that have several; ``None`` pools them (and the csv also has the mean of the
            folds).
    """
    grid, embedded = study.profile.grid, study.profile.embedded
    chosen, lines, notes = of_fold(records, fold), [], Notes()
    for dataset in datasets_of(chosen):
        for model in models_of(chosen):
            alone = baseline_records(chosen, model, dataset)
            joined = au_records(chosen, model, dataset, grid.strategy, grid.au_ratio)
            for variant, cell, reference in ((WITHOUT, alone, []), (WITH, joined, alone)):
                remarks = remarks_on(model, PRINTED[variant], dataset)
                base = identity(cell, model, dataset, variant)
                lines.append(Line(base, cell, reference, PRINTED[variant], remarks))
    tidy, parts = measured(lines, TOTALS, protocol)
    display = [
        {
            "Dataset": line.base["dataset"],
            "Network": model_name(line.base["model"]),
            "Variant": line.base["variant"],
            **totals(part),
            **fold_means(part),
            **differences(part),
            **{f"{metric}, {paper_heading(embedded)}": number for metric, number in paper(part).items()},
            "Notes": notes.refer(line.remarks),
        }
        for line, part in zip(lines, parts, strict=True)
    ]
    used = [record for line in lines for record in line.cell]
    title = f"Table 1. WAR and UAR (percent) without and with AU-DFER{settings_text(used)}."
    caption = table_caption(title, used, protocol, tidy, embedded)
    drawn = f"Table 1 as a picture. {describe(records, protocol, embedded)}"
    return Result(
        "table1_war_uar",
        tidy,
        caption,
        pd.DataFrame(display).fillna(DASH),
        notes=notes.lines(),
        digests=digests_of(used),
        picture=Result("table1_plot", tidy, drawn, draw=draw, digests=digests_of(records)),
    )


def draw(data: pd.DataFrame) -> Figure:
    """WAR and UAR of every network and dataset, without and with AU, with 95 % intervals."""
    datasets, models = ordered(data["dataset"], EVALUATION_DATASETS), ordered(data["model"], NETWORKS)
    figure = variant_panels(data, datasets, models, 1.8, (1.2, 0))
    legend_below(figure, [interval_mark(variant, VARIANT_COLOURS[variant]) for variant in (WITHOUT, WITH)])
    return figure


def variant_panels(data: pd.DataFrame, datasets, models, height: float, more: tuple, behind=None) -> Figure:
    """A panel per dataset, WAR above UAR: every network's dot without and with AU, with its 95 % interval.

    Args:
        height, more: of ``panels``.
        behind: ``behind(axes, rows)`` draws what lies behind the dots of a panel, from its rows.
    """
    columns = max(1, len(datasets))
    figure, grid = panels(2 * columns, columns, 2.5, height, more, sharex="row", sharey=True)
    for row, metric in zip(grid, TOTALS, strict=True):
        for axes, dataset in zip(row, datasets, strict=False):
            part = data[(data["metric"] == metric) & (data["dataset"] == dataset)]
            if behind:
                behind(axes, part)
            for shift, variant in ((-0.16, WITHOUT), (0.16, WITH)):
                shown = part[part["variant"] == variant].set_index("model").reindex(models)
                dots(axes, shown, [k + shift for k in range(len(models))], VARIANT_COLOURS[variant])
            names_down(axes, [model_name(model) for model in models])
            axes.set_title(dataset if metric == "WAR" else "")
            axes.set_xlabel(f"{metric} (%)")
            axes.grid(axis="x")
    return figure
