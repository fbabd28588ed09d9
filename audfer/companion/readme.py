"""README.md's numbers and codecheck.yml, from the last run's tables: ``python -m audfer.companion.readme``.

For maintainers. Nothing between the markers is typed by hand; a test compares both files with ``figures/laptop``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from ..files import atomic_file, read_csv
from ..models import NETWORKS
from ..results.builder import markdown_table
from ..results.conclusions import WHOLE
from ..results.knowledge import recovered
from ..results.rows import difference_text, text
from .verify import codecheck


def results(figures: Path) -> str:
    """The block of results: accuracies, recovery and the AU estimator of one profile's tables.

    Args:
        figures: a profile's folder of tables and figures.
    """
    figures = Path(figures)
    table = read_csv(figures / "table1_war_uar.csv")
    table = table[table["metric"].isin(["WAR", "UAR"])]
    rows = []
    for (dataset, model), part in table.groupby(["dataset", "model"], sort=False):
        row = {"dataset (rendered)": dataset, "network (tiny)": NETWORKS[model].title}
        for metric in ("WAR", "UAR"):
            for variant in ("without AU", "with AU"):
                cell = part[(part["metric"] == metric) & (part["variant"] == variant)].iloc[0]
                row[f"{metric} {variant}"] = f"{cell['ours']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]"
        rows.append(row)
    recovery = read_csv(figures / "knowledge_recovery.csv")
    estimator = read_csv(figures / "au_estimator.csv")
    gains = table[table["variant"] == "with AU"]
    ratios = read_csv(figures / "fig5_au_ratio.csv").query("metric == 'WAR' and au_ratio == au_ratio.max()")
    changed = [f"{row.dataset} {difference_text(row)}" for row in ratios.itertuples()]
    together = read_csv(figures / "table1_aggregate.csv").query("what == 'together'").set_index("metric")
    war, uar = (text(*together.loc[metric, ["value", "low", "high"]], signed=True) for metric in ("WAR", "UAR"))
    words = read_csv(figures / "ablation_conclusions.csv").set_index("question")["answer"]
    knowledge = next(answer.rstrip(".") for question, answer in words.items() if "plain BCE" in question)
    # what the controls allow to say comes first
    said = read_csv(figures / "conclusions.csv").set_index("question")["answer"]
    gate, whole = said["Can this run tell?"], said[WHOLE]
    gap = read_csv(figures / "table1_gap.csv").set_index("question")["answer"]
    away = " ".join(f"{question} {answer}" for question, answer in gap.items() if "extractor" in question)
    appendices = figures.parent / "appendices"
    recognised = read_csv(appendices / "a3_f1.csv").query("action_unit == 'mean of 18'")
    looked = read_csv(appendices / "a3_localisation.csv").query("action_unit == 'mean'")
    joined, seeds = gains.iloc[0], int(table["seeds"].max())
    return "\n".join(
        [
            f"Laptop profile, embedded benchmark: percent with 95 % intervals, last epoch, "
            f"{'one seed' if seeds == 1 else f'{seeds} seeds'}. "
            f"With AU: lambda = {joined['au_ratio']:g}, {joined['strategy']} weights. "
            "The paper's printed rows stand beside ours in [Table 1](figures/laptop/table1_war_uar.md), as another "
            "input.",
            "",
            "![Table 1 as intervals, beside always the commonest expression and regressions on action units]"
            "(figures/laptop/table1_references_plot.png)",
            "",
            markdown_table(pd.DataFrame(rows)),
            "",
            f"- {gate}",
            f"- {away}",
            f"- On the clips of all {together['tasks'].iloc[0]} pairs together the AU head changes WAR by {war} and "
            f"UAR by {uar} points ([aggregates](figures/laptop/table1_aggregate.md)); {(gains['p_holm'] < 0.05).sum()} "
            f"of the {len(gains)} differences pair by pair are significant after Holm's correction.",
            f"- {WHOLE} {whole} ([Controls](figures/laptop/controls.md))",
            f"- Is it the knowledge? On DFEW, {knowledge[0].lower() + knowledge[1:]} "
            f"([ablations](figures/laptop/ablations.md)).",
            f"- How much AU? lambda = {ratios['au_ratio'].iloc[0]:g}, the largest tried, changes WAR of "
            f"{NETWORKS[ratios['model'].iloc[0]].title} without an AU head by {', '.join(changed)} points, "
            f"{'one seed' if ratios['seeds'].max() == 1 else 'several seeds'} "
            "([Fig. 5](figures/laptop/fig5_au_ratio.png)).",
            f"- Knowledge recovered from pixels: Spearman rank correlation {recovered(recovery)} with what was "
            f"planted, over {len(recovery)} cells ([Fig. 4](figures/laptop/fig4_knowledge.png)).",
            "- AU estimator on subjects it has not seen, the least and the best of its AUs: F1 "
            f"{_span(estimator, 'f1')}; correlation of intensity "
            f"{_span(estimator, 'intensity_r')} ([table](figures/laptop/au_estimator.md)).",
            f"- Lock and Check on the same subjects, mean F1 (%): {_ranges(recognised, 'f1', 1)} "
            f"([table](figures/appendices/a3_f1.md)). Share (%) of the "
            f"activation map inside the AU's regions: {_ranges(looked, 'share', 100)} "
            f"([table](figures/appendices/a3_localisation.md)).",
        ]
    )


def _span(table: pd.DataFrame, column: str) -> str:
    """The lowest and the highest number of a column of AUs, with their intervals."""
    ends = table.dropna(subset=column).sort_values(column).iloc[[0, -1]]
    columns = [column, f"{column}_low", f"{column}_high"]
    return " to ".join(f"{text(*row[columns], 2)} ({row['action_unit']})" for _, row in ends.iterrows())


def _ranges(rows: pd.DataFrame, column: str, scale: float) -> str:
    return ", ".join(
        f"{row['network']} {scale * row[column]:.1f} [{scale * row['low']:.1f}, {scale * row['high']:.1f}]"
        for _, row in rows.iterrows()
    )


def write(readme: Path, figures: Path) -> None:
    """Fill the marked block of a README."""
    text = _fill(readme.read_text(encoding="utf-8"), "results", results(figures))
    with atomic_file(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _fill(text: str, name: str, block: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    write(root / "README.md", root / "figures" / "laptop")
    with atomic_file(root / "codecheck.yml") as temporary:
        temporary.write_text(codecheck(root / "figures" / "laptop"), encoding="utf-8")
