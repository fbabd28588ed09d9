"""Table 2: accuracy of every expression, WAR, UAR and cost of each network, without and with AU (section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .builder import DASH, Result, digests_of, output
from .cost import head_costs, paper_costs, percent_text, significant
from .printed import misprints, printed, remarks_on
from .rows import (
    COLUMNS,
    METRICS,
    Line,
    Notes,
    class_lines,
    fold_means,
    identity,
    measured,
    settings_text,
    table_caption,
    text,
)
from .selection import WITH, WITHOUT, au_records, baseline_records, cells_of, models_of, of_fold
from .table1 import PRINTED

#: what is counted -> its key in ``models.count_flops``
_COSTS = {"GFLOPs": "gflops", "GMACs": "gmacs", "parameters": "parameters"}


def cells(study) -> list:
    """Every network on the strategy dataset without and with the AU head, all folds and seeds."""
    grid = study.profile.grid
    wanted = ((model, grid.strategy_dataset, ratio) for model in grid.models for ratio in (0.0, grid.au_ratio))
    return cells_of(study, wanted, every_fold=True)


@output("table2", "03_training", cells=cells)
def table2(study, records, protocol: str = "last", fold: int | None = None) -> Result:
    """Table 2; ``fold`` as in Table 1."""
    chosen = of_fold(records, fold)
    return class_table(
        study,
        chosen,
        "table2_per_class",
        dataset=study.profile.grid.strategy_dataset,
        models=models_of(chosen),
        costs=paper_costs(study.profile.grid.models),
        title="Table 2",
        protocol=protocol,
    )


def class_table(
    study,
    records: Sequence,
    name: str,
    *,
    dataset: str,
    models: Sequence[str],
    costs: Mapping[str, Mapping[str, Mapping[str, float]]],
    title: str,
    protocol: str = "last",
) -> Result:
    """Accuracy of every expression, WAR, UAR and cost of some networks on one dataset.

    Args:
        records: of one fold, or ``pooled``.
        costs: network -> "baseline" and "audfer" (with the AU head) -> ``models.count_flops`` of its paper-size form,
            to compare with the printed GFLOPs; records carry the cost of the network that was trained.
        title: how the caption begins.
    """
    grid, embedded, lines, notes = study.profile.grid, study.profile.embedded, [], Notes()
    for model in models:
        alone = baseline_records(records, model, dataset)
        joined = au_records(records, model, dataset, grid.strategy, grid.au_ratio)
        for variant, cell, reference in ((WITHOUT, alone, []), (WITH, joined, alone)):
            called = PRINTED[variant]
            remarks = remarks_on(model, called, dataset) + misprints(model, called, 2)
            base = identity(cell, model, dataset, variant)
            extra = _cost_rows(base, cell, costs.get(model, {}).get(called, {}), called)
            lines.append(Line(base, cell, reference, called, remarks, extra))
    tidy, parts = measured(lines, METRICS, protocol)
    display = []
    for line, part in zip(lines, parts, strict=True):
        columns = {**fold_means(part), **_cost_cells(line.extra)}
        letters = notes.refer(line.remarks)
        display += class_lines(part, line.base["model"], line.base["variant"], letters, columns, embedded)
    used = [record for line in lines for record in line.cell]
    prints_flops = ((tidy["metric"] == "paper-size GFLOPs") & tidy["paper"].notna()).any()
    caption = table_caption(
        f"{title}. Accuracy (percent) of each expression, WAR, UAR and cost on {dataset}, without and with "
        f"AU-DFER{settings_text(used)}.",
        used,
        protocol,
        tidy,
        embedded,
        "Cost of one clip, measured: G multiply-adds / GFLOPs (a multiply-add is two operations), of the network "
        "trained here and of the paper-size one"
        f"{'; the paper prints one number and calls it FLOPs' if prints_flops else ''}.{_head_sentence(costs)}",
    )
    shown = pd.DataFrame(display).fillna(DASH)
    return Result(name, tidy, caption, shown, notes=notes.lines(), digests=digests_of(used))


def _cost_rows(base: dict, cell: list, paper_size: Mapping[str, float], called: str) -> list[dict]:
    """Tidy rows of what a network costs, trained here and in its paper-size form."""
    model, dataset = base["model"], base["dataset"]
    paper = {
        "GFLOPs": printed(model, called, dataset, "FLOPs_G"),
        "parameters": 1e6 * printed(model, called, dataset, "Params_M"),
    }
    trained = (cell[0].flops if cell else None) or {}
    return [
        dict.fromkeys(COLUMNS, np.nan)
        | base
        | {
            "metric": prefix + metric,
            "ours": float(cost.get(key, np.nan)),
            "clips": 0,
            "seeds": 0,
            "test": "",
            "note": "",
            "paper": paper.get(metric, np.nan) if prefix else np.nan,
        }
        for prefix, cost in (("", trained), ("paper-size ", paper_size))
        for metric, key in _COSTS.items()
    ]


def _cost_cells(rows: Sequence[dict]) -> dict[str, str]:
    value = {row["metric"]: row["ours"] for row in rows}
    paper = {row["metric"]: row["paper"] for row in rows}

    def both(prefix: str) -> str:
        macs, flops = value[f"{prefix}GMACs"], value[f"{prefix}GFLOPs"]
        return DASH if not np.isfinite(flops) else f"{significant(macs)} / {significant(flops)}"

    parameters, theirs = value["paper-size parameters"], paper["paper-size parameters"]
    return {
        "Cost, trained here": both(""),
        "Cost, paper size": both("paper-size "),
        "Parameters, paper size": f"{parameters / 1e6:.2f} M" if np.isfinite(parameters) else DASH,
        # what the line of the paper's row shows in the same columns
        "_Cost, paper size": text(paper["paper-size GFLOPs"], digits=2),
        "_Parameters, paper size": f"{theirs / 1e6:.0f} M" if theirs > 0 else DASH,
    }


def _head_sentence(costs: Mapping) -> str:
    heads = head_costs(costs).values()
    if not heads:
        return ""
    ends = dict.fromkeys(end(flops for flops, _, _ in heads) for end in (min, max))
    most = percent_text(max(share for _, _, share in heads))
    return (
        f" The AU head adds {' to '.join(f'{flops:,}' for flops in ends)} FLOPs a clip at paper size, at most {most}."
    )
