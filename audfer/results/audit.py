"""Can the printed numbers be what they say? The audit of the published tables, matrices and weights (notebook A1)."""

from __future__ import annotations

from functools import lru_cache, partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .. import published
from ..evaluation.matrices import matrices
from ..facs import EXPRESSION_HEADINGS
from ..published import audit, printed, release
from .builder import Result, output
from .drawing import GREEN, ORANGE, YELLOW, legend_below, mark, matrices_by_source

NOTEBOOK = "A1_published_audit"
_VERDICTS = {printed.BEYOND: (GREEN, "D"), printed.OPEN: (YELLOW, "o"), printed.WITHIN: (ORANGE, "X")}
_effects = lru_cache(maxsize=1)(partial(release.loss_effects, "DFEW"))


def field() -> pd.DataFrame:
    """S2D, S4D and SSM on the three datasets: their numbers, folds, selection rule, start, frames and classes."""
    return published.load("field_protocols").astype(str)


#: table -> its numbers, its caption
TABLES = {
    "a1_findings": (
        lambda: audit.audit(printed.sheets(), printed.origins()),
        "Findings of the consistency checks on the printed tables; beyond: in the printed unit.",
    ),
    "a1_protocols": (
        lambda: audit.protocols(printed.sheet("AU-DFER Table 3")),
        "Table 3 (DFEW): the test clips that turn each row's class accuracies into whole clips.",
    ),
    "a1_clip_counts": (
        printed.printed_counts,
        "Clips behind the paper's own rows on DFEW, with exact 95 % intervals in percent.",
    ),
    "a1_resolution": (
        printed.resolution,
        "Minimum detectable differences (points; 80 % power, 5 % two-sided) of each test split.",
    ),
    "a1_matrix_relations": (release.relations, "How the published knowledge matrices hang together."),
    "a1_copied_vectors": (
        release.copied_vectors,
        "Released positive class weights that equal another expression's or dataset's.",
    ),
    "a1_frames": (
        release.frames_behind,
        "Frames behind each released vector and frames of that expression (training and test together).",
    ),
    "a1_field": (
        field,
        "What came after or beside AU-DFER, with its protocol as far as its authors state it; nothing here was run.",
    ),
    "a1_loss_effects": (
        lambda: _effects()[0],
        "The AU loss (nats) under the paper's and the release's matrices and weights; shares of the untrained head's "
        "loss.",
    ),
}


def _table(study, name: str) -> Result:
    numbers, caption = TABLES[name]
    return Result(name, numbers(), caption)


for _name in TABLES:
    output(_name, NOTEBOOK, elsewhere=True)(partial(_table, name=_name))


@output("a1_matrices", NOTEBOOK, elsewhere=True)
def published_matrices(study) -> Result:
    """Is the released matrix the printed one?"""
    named = {name: values for name, values in release.matrices().items() if "version" not in name}
    caption = "Fig. 4 as printed and the three matrices found in the release."
    # K0 has two columns of 1.75, beside which the others would all look alike
    draw = partial(matrices_by_source, digits=2, high=1, label="knowledge (0 to 1; above: as written)")
    return Result("a1_matrices", matrices(named), caption, draw=draw)


@output("a1_loss_shares", NOTEBOOK, elsewhere=True)
def loss_shares(study) -> Result:
    """What the matrices and weights do to the loss."""
    shares = _effects()[1]
    caption = (
        "Which AUs and expressions the AU loss is about: shares of the untrained head's expected loss on DFEW's class "
        "counts."
    )
    draw = partial(matrices_by_source, label="share of the AU loss (%)")
    return Result("a1_loss_shares", shares[shares["source"].isin(release.DRAWN)], caption, draw=draw)


@output("a1_gains", NOTEBOOK, elsewhere=True)
def gains(study) -> Result:
    """Which printed gains exceed noise?"""
    data = printed.gains()
    caption = (
        "Printed gains of AU-DFER with exact tests: Fisher (unpaired) and McNemar under the best pairing; one training "
        "run each."
    )
    drawn = (
        "Printed gains of AU-DFER against the noise of their test clips (95 % bands around no gain); one training run "
        "each."
    )
    return Result("a1_gains", data, caption, picture=Result("a1_gains_plot", data, drawn, draw=draw_gains))


def draw_gains(data: pd.DataFrame) -> Figure:
    """The paper's gains against the noise of their test sets: Table 1 to the left, Table 2's classes to the right.

    Args:
        data: ``printed.gains()``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.2, 5.6), width_ratios=(1, 1.15))
    overall = data[data["measure"].isin(("WAR", "UAR"))]
    overall = overall.sort_values("measure", ascending=False, kind="stable")
    _gain_rows(left, overall, [f"{r.dataset}, {r.method}" for r in overall.itertuples()], "measure", "(a) Table 1")
    classes = data[data["measure"].isin(EXPRESSION_HEADINGS)]
    labels = [f"{r.measure} ({r.clips:.0f} clips)" for r in classes.itertuples()]
    _gain_rows(right, classes, labels, "method", "(b) Table 2, DFEW")
    handles = [mark(name, marker=marker, color=colour, markersize=5) for name, (colour, marker) in _VERDICTS.items()]
    bands = (("#DDDDDD", "95 % noise, unpaired"), ("#A8A8A8", "95 % noise, best pairing"))
    handles += [Patch(color=colour, label=label) for colour, label in bands]
    legend_below(figure, handles, 3)
    return figure


def _gain_rows(axes: Axes, rows: pd.DataFrame, labels: list[str], block: str, title: str) -> None:
    """Dots of gains on their noise bands, with a gap and a heading before each block."""
    place, previous, y = [], None, 0.0
    style = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.5, "fontweight": "bold"}
    for heading in rows[block]:
        if heading != previous:
            axes.text(0.01, y + 1.0, heading, **style)
            previous, y = heading, y + 1.9
        place.append(y)
        y += 0.85
    for half, colour in ((rows["unpaired"], "#DDDDDD"), (rows["best"].fillna(0), "#A8A8A8")):
        axes.barh(place, 2 * half, left=-half, height=0.62, color=colour)
    axes.axvline(0, color="#555555", linewidth=0.8)
    for row, at in zip(rows.itertuples(), place, strict=True):
        colour, marker = _VERDICTS[row.verdict]
        axes.plot(row.gain, at, marker=marker, color=colour, markersize=5, linestyle="none")
    axes.set_yticks(place, labels, fontsize=7.5)
    axes.set_ylim(y, 0.3)
    axes.set_xlabel("printed gain of AU-DFER (points)")
    axes.set_title(title)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
