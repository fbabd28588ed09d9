"""How far AUs alone go: a logistic regression on numbers of each clip's AUs, judged on people it has not seen."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from ..action_units import baseline
from ..action_units.comparison import AUClips
from ..study.outputs import NotShown
from .builder import DASH, Result, output
from .drawing import BLUE, YELLOW, confusion, dots, legend_below, mark, names_down, panels, rendered, spread
from .rows import TOTALS, text

NOBODY = NotShown("No clip's subject is known, or one alone: nobody can be left out.")
COMMONEST = "always the commonest expression"


@output("au_baseline", "01_au_extraction", elsewhere=True)
def au_baseline(study, aus: AUClips | None = None) -> Result:
    """WAR and UAR of the baseline; ``aus`` from ``study.au_clips``, ``None`` = the profile's own clips."""
    aus = aus or study.au_clips()
    remark = "" if aus.stem else rendered(study)
    return accuracy_table(study.au_baselines(aus), f"{aus.stem}au_baseline", aus.caption, aus.over, remark)


def accuracy_table(accuracy: pd.DataFrame, name: str, about: str, over: str = "clips", remark: str = "") -> Result:
    """The baseline's accuracies (``study.au_baselines``), one row per set of clips and extractor.

    Args:
        about: what the captions say about the clips. over: what the intervals are over. remark: stands behind each
            set's name.
    """
    display = []
    for (source, judged, features), rows in accuracy.groupby(["source", "judged", "features"], sort=False):
        ours, commonest = (part.set_index("metric") for _, part in rows.groupby("classifier", sort=False))
        war, ends = ours.loc["WAR"], ["value", "low", "high"]
        display.append(
            {
                "Clips": f"{source}{remark}",
                "Judged on": judged,
                "AUs": features,
                **{f"{metric} [95 %]": text(*ours.loc[metric, ends]) for metric in TOTALS},
                "WAR by person": f"{war['worst']:.0f} to {war['best']:.0f}" if war["folds"] > 1 else DASH,
                "WAR, always the commonest": text(*commonest.loc["WAR", ends]),
                "Test clips": int(war["clips"]),
            }
        )
    drawn = f"AU-only baseline, 95 % intervals over {over}. {about}"
    return Result(
        name,
        accuracy,
        f"AU-only baseline (51 numbers a clip, logistic regression); intervals over {over}. {about}",
        pd.DataFrame(display),
        picture=Result(
            f"{name}_plot",
            accuracy,
            drawn,
            draw=partial(draw, remark=remark),
            nothing="no subjects known: nothing can be left out",
        ),
    )


def draw(data: pd.DataFrame, remark: str = "") -> Figure:
    """WAR and UAR with 95 % intervals; grey ticks: always the commonest expression.

    Args:
        data: source, judged, features, classifier, metric, value, low, high (percent).
        remark: stands behind each source's name.
    """
    rows = list(dict.fromkeys(zip(data["source"], data["judged"], strict=True)))
    shades = dict(zip(dict.fromkeys(data["features"]), (BLUE, YELLOW), strict=False))
    figure, (grid,) = panels(2, 2, 4.0, 0.55 * len(rows), (0, 1.1), sharey=True, sharex=True)
    commonest = data["classifier"] == COMMONEST
    for axes, metric in zip(grid, TOTALS, strict=True):
        for k, (source, judged) in enumerate(rows):
            mine = (data["source"] == source) & (data["judged"] == judged) & (data["metric"] == metric)
            axes.vlines(data.loc[mine & commonest, "value"], k - 0.32, k + 0.32, color="#8C8C8C", linewidth=2)
            for shift, (features, colour) in zip(spread(len(shades), 0.16), shades.items(), strict=True):
                chosen = data[mine & ~commonest & (data["features"] == features)]
                dots(axes, chosen, [k + shift] * len(chosen), colour, "value")
        axes.set_xlabel(f"{metric} (%)")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    grid[0].set_xlim(0, 100)
    names_down(grid[0], [f"{source}{remark}\n{judged}" for source, judged in rows])
    handles = [mark(f"AUs: {name}", color=colour, marker="o", markersize=5) for name, colour in shades.items()]
    for handle in handles:
        handle.set_linestyle("-")
    ticks = mark(COMMONEST, color="#8C8C8C", marker="|", markersize=10, markeredgewidth=2)
    legend_below(figure, [*handles, ticks], 3)
    return figure


@output("au_baseline_confusion", "01_au_extraction", elsewhere=True)
def au_baseline_confusion(study, aus: AUClips | None = None) -> Result | NotShown:
    """Which expressions the baseline mixes up; nothing where nobody can be left out. ``aus`` as in ``au_baseline``."""
    aus = aus or study.au_clips()
    if aus.people < 2:
        return NOBODY
    data = baseline.baseline_confusion(baseline.au_baseline(baseline.clip_features(aus.first), aus.clips))
    caption = f"AU-only baseline on {aus.name}, one person left out at a time; AUs: {aus.extractors[0]}. {aus.caption}"
    return Result(f"{aus.stem}au_baseline_confusion", data, caption, draw=confusion)
