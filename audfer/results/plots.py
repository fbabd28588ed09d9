"""Figures. Every function draws tidy data (from ``figure_data`` or a notebook) and neither loads nor saves.

Functions with one panel take an optional ``axes`` and return it; those with several panels return a ``Figure``.
Colours belong to things, not to positions: an expression, a network, a variant has the same colour everywhere
(Okabe and Ito's palette, safe for colour-blind readers).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from ..facs import (
    ACTION_UNIT_NAMES,
    ACTION_UNITS,
    EVALUATION_DATASETS,
    EXPRESSION_HEADINGS,
    EXPRESSIONS,
    INTENSITY_ACTION_UNITS,
)
from ..published.printed import BEYOND, OPEN, WITHIN
from ..study.ablations import KNOWLEDGE, NO_HEAD, PLAIN_BCE
from .figure_data import EMBEDDINGS, LOSS_TERMS, PANELS, WITH, WITHOUT
from .tables import MODEL_NAMES, STRATEGIES, STRATEGY_NAMES, model_name

STYLE = Path(__file__).with_name("audfer.mplstyle")
EXPRESSION_COLOURS: dict[str, str] = {
    "happy": "#E69F00",
    "sad": "#0072B2",
    "neutral": "#8C8C8C",
    "angry": "#D55E00",
    "surprise": "#56B4E9",
    "disgust": "#009E73",
    "fear": "#CC79A7",
}
#: a second cue beside colour
EXPRESSION_MARKERS: dict[str, str] = {
    "happy": "o",
    "sad": "v",
    "neutral": "s",
    "angry": "^",
    "surprise": "D",
    "disgust": "P",
    "fear": "X",
}
MODEL_COLOURS: dict[str, str] = {
    "m3dfel": "#0072B2",
    "mae_dfer": "#D55E00",
    "former_dfer": "#009E73",
    "keypoint_gcn": "#CC79A7",
}
VARIANT_COLOURS: dict[str, str] = {WITHOUT: "#7A7A7A", WITH: "#0072B2", "paper": "#000000"}
METRIC_COLOURS: dict[str, str] = {"WAR": "#0072B2", "UAR": "#D55E00"}
TERM_COLOURS: dict[str, str] = {LOSS_TERMS[0]: "#9A9A9A", LOSS_TERMS[1]: "#0072B2"}
STRATEGY_COLOURS: dict[str, str] = {"none": "#7A7A7A", "global": "#0072B2", "distinct": "#009E73", "minor": "#CC79A7"}

#: how seaborn tells expressions apart
_BY_EXPRESSION = {
    "hue": "expression",
    "hue_order": EXPRESSIONS,
    "palette": EXPRESSION_COLOURS,
    "style": "expression",
    "style_order": EXPRESSIONS,
    "markers": EXPRESSION_MARKERS,
}
_MAP = "YlGnBu"
#: dots an inch of figures made of pictures: about one for each pixel of a rendered face
PICTURE_DPI = 120


def _styled(function):
    """Draw under the package's style whatever the caller's settings are."""

    @wraps(function)
    def draw(*args, **kwargs):
        with plt.style.context(STYLE):
            return function(*args, **kwargs)

    return draw


def _axes(axes: Axes | None, size: tuple[float, float]) -> Axes:
    return plt.subplots(figsize=size)[1] if axes is None else axes


def _empty(figure_or_axes, text: str = "no records"):
    axes = figure_or_axes if isinstance(figure_or_axes, Axes) else figure_or_axes.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color="gray", transform=axes.transAxes)
    return figure_or_axes


# ------------------------------------------------------------------------------------------------- expression x AU
def _wide(data: pd.DataFrame, column: str) -> pd.DataFrame:
    units = [au for au in ACTION_UNITS if au in set(data["action_unit"])]
    return data.pivot(index="expression", columns="action_unit", values=column).reindex(
        index=list(EXPRESSIONS), columns=units
    )


@_styled
def heatmap(
    data: pd.DataFrame,
    axes: Axes | None = None,
    *,
    column: str = "value",
    title: str = "",
    low: float | None = None,
    high: float | None = None,
    digits: int | None = 2,
    label: str = "",
    colourbar: bool = True,
    numbers: float = 7,
    log: bool = False,
) -> Axes:
    """A matrix of expressions (rows) and AUs (columns) with its numbers in the cells.

    Args:
        data: columns expression, action_unit and ``column`` (one row a cell; NaN cells stay blank).
        low, high: ends of the colour scale; ``None``: of the data.
        digits: decimals of the numbers; ``None``: one below ten, none above.
        label: of the colour bar, with unit.
        numbers: size of each cell's number in points; 0 writes none.
        log: colours by the logarithm; ``low`` must be above 0.
    """
    axes = _axes(axes, (8.6, 3.0))
    wide = _wide(data, column)
    values = wide.to_numpy(float)
    norm = _norm(values, low, high, log)
    image = axes.imshow(values, cmap=_MAP, norm=norm, aspect="auto")
    if numbers:
        _cell_texts(axes, values, lambda value: _short(value, digits), norm, numbers)
    axes.set_xticks(range(wide.shape[1]), wide.columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(EXPRESSIONS)), EXPRESSIONS)
    _plain_grid(axes, values.shape)
    axes.set_title(title)
    if colourbar:
        _colourbar(image, axes, label, pad=0.015, fraction=0.03)
    return axes


def _norm(values, low: float | None, high: float | None, log: bool = False) -> Normalize:
    known = np.asarray(values, float)[np.isfinite(values)]
    if log:
        known = known[
            known > 0
        ]  # a weight of 0 (an AU that is active in every clip) has no place on a logarithmic scale
    low = (known.min() if len(known) else 0.0) if low is None else low
    high = (known.max() if len(known) else 1.0) if high is None else high
    if not low < high:  # all cells alike: any scale around the value will do
        low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
    return (LogNorm if log else Normalize)(low, high)


def _short(value: float, digits: int | None) -> str:
    return f"{value:.{digits}f}" if digits is not None else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _colourbar(image, axes, label: str, **place) -> None:
    bar = image.get_figure().colorbar(image, ax=axes, **place)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _ink(colour, dark: str, light: str) -> str:
    """The one of two text colours that can be read on ``colour``."""
    red, green, blue = to_rgb(colour)
    return dark if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else light


def _cell_texts(axes: Axes, values: np.ndarray, text, norm: Normalize, size: float, dy: float = 0.0) -> None:
    """Write ``text(value)`` of each finite value of a matrix into its cell, light on dark."""
    colours = plt.get_cmap(_MAP)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        ink = _ink(colours(float(norm(max(values[i, j], norm.vmin)))), "#1a1a1a", "white")
        axes.text(j, i + dy, text(values[i, j]), ha="center", va="center", fontsize=size, color=ink)


def _plain_grid(axes: Axes, shape: tuple[int, int]) -> None:
    """White lines between cells, no frame, no tick marks."""
    axes.set_xticks(np.arange(shape[1] - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


@_styled
def knowledge_heatmap(data: pd.DataFrame, axes: Axes | None = None, *, title: str = "Knowledge matrix K") -> Axes:
    """The knowledge matrix, 7 x 18 values in (0, 1) (section 3.1, Fig. 4); ``data`` from ``figure_data.matrix``."""
    return heatmap(data, axes, title=title, low=0, high=1, label="knowledge (0 to 1)")


@_styled
def fig4(data: pd.DataFrame) -> Figure:
    """Fig. 4: our knowledge matrix above the printed one, on one scale, with the rank correlation of each row.

    Args:
        data: from ``figure_data.fig4_data``.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.8, 5.8), sharex=True)
    sources = dict(data.groupby("source"))
    overall = data["overall_rank_correlation"].iloc[0]
    ours = "(a) ours" + (
        f"; rank correlation with (b) over all measured cells {overall:+.2f}" if np.isfinite(overall) else ""
    )
    for axes, name, title in ((top, "ours", ours), (bottom, "paper", "(b) as printed in the paper")):
        heatmap(sources[name], axes, title=title, low=0, high=1, colourbar=False)
    top.tick_params(axis="x", labelbottom=False)
    _colourbar(top.images[0], [top, bottom], "knowledge (0 to 1)", fraction=0.02, pad=0.01, aspect=45)
    by_row = sources["ours"].groupby("expression")["rank_correlation"].first()
    right = _wide(sources["ours"], "value").shape[1] - 0.3
    top.text(right + 0.55, -0.75, "by row", ha="center", va="bottom", fontsize=8)
    for k, name in enumerate(EXPRESSIONS):
        text = "—" if not np.isfinite(by_row[name]) else f"{by_row[name]:+.2f}"
        top.text(right + 0.55, k, text, ha="center", va="center", fontsize=8)
    # the column of numbers needs room between matrix and colour bar in both panels, so that cells stay aligned
    for axes in (top, bottom):
        axes.set_xlim(-0.5, right + 1.2)
    return figure


@_styled
def matrices_by_source(
    data: pd.DataFrame,
    *,
    column: str = "value",
    label: str = "",
    columns: int = 2,
    digits: int | None = 1,
    low: float | None = 0,
    high: float | None = None,
    log: bool = False,
) -> Figure:
    """Small multiples of expression x AU matrices, one a source (dataset), on one colour scale.

    Args:
        data: columns source, expression, action_unit and ``column``, for example ``figure_data.matrices`` of the
            medians of section 3.1, of presence rates in percent, or of planted and recovered values.
        columns: panels a row.
        label, digits, low, high, log: as in ``heatmap``.
    """
    sources = list(dict.fromkeys(data["source"]))
    columns = min(columns, max(1, len(sources)))
    rows = max(1, -(-len(sources) // columns))
    size = (8.6 if columns == 1 else 5.3 * columns, 2.2 * rows + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    norm = _norm(data[column].to_numpy(float), low, high, log)
    for k, axes in enumerate(grid.flat):
        if k >= len(sources):
            axes.set_axis_off()
            continue
        part = data[data["source"] == sources[k]]
        heatmap(
            part,
            axes,
            column=column,
            title=sources[k],
            low=norm.vmin,
            high=norm.vmax,
            digits=digits,
            log=log,
            colourbar=False,
            numbers=7 if columns == 1 else 6.2,
        )
        # shared axes: labels at the outer edge only, and also above an empty last panel
        axes.tick_params(axis="x", labelbottom=k + columns >= len(sources))
        axes.tick_params(axis="y", labelleft=k % columns == 0)
    if sources:
        _colourbar(grid.flat[0].images[0], grid, label, fraction=0.02, pad=0.012, aspect=20 * rows)
    return figure


@_styled
def knowledge_by_dataset(data: pd.DataFrame) -> Figure:
    """Median AU intensities of every dataset (section 3.1); ``data`` from ``figure_data.matrices``."""
    return matrices_by_source(data, label="median intensity (0 to 5)", digits=2)


@_styled
def presence_rates(data: pd.DataFrame) -> Figure:
    """How often each AU is present in frames of each expression; ``value`` in percent, one panel a source."""
    return matrices_by_source(data, label="frames with the AU present (%)", digits=0)


@_styled
def positive_class_weights(data: pd.DataFrame) -> Figure:
    """Positive class weights of Eqs. 6 to 8, one panel a strategy, on a logarithmic scale.

    Args:
        data: source (strategy), expression, action_unit, value (above 0; 1 leaves an AU as it is).
    """
    return matrices_by_source(data, label="positive class weight", columns=1, digits=None, low=None, log=True)


@_styled
def interpolation(data: pd.DataFrame) -> Figure:
    """What the interpolation of zeros (section 3.1) does to a clip's intensities, one panel an AU.

    Args:
        data: action_unit, frame, before and after (0 to 5; NaN = unknown).
    """
    units = list(dict.fromkeys(data["action_unit"]))
    columns = min(2, max(1, len(units)))
    rows = max(1, -(-len(units) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(8.4, 1.9 * rows + 0.6), sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, units, strict=True):
        part = data[data["action_unit"] == name].sort_values("frame")
        zero = part["before"] == 0
        axes.plot(part["frame"], part["after"], color=VARIANT_COLOURS[WITH], linewidth=1.3, zorder=1)
        for chosen, fill in ((zero, "white"), (~zero, "#444444")):
            axes.plot(
                part.loc[chosen, "frame"],
                part.loc[chosen, "before"],
                linestyle="none",
                marker="o",
                markersize=3,
                markerfacecolor=fill,
                markeredgecolor="#444444",
                markeredgewidth=0.6,
            )
        axes.set_title(f"{name} {ACTION_UNIT_NAMES.get(name, '')}")
        axes.grid(True)
    for axes in grid.flat[len(units) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("intensity (0 to 5)")
    for axes in grid[-1]:
        axes.set_xlabel("frame")
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color="#444444", label="measured"),
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor="#444444",
            label="measured, exactly 0: counts as missing",
        ),
        Line2D([], [], color=VARIANT_COLOURS[WITH], linewidth=1.3, label="interpolated"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@_styled
def recovery(
    data: pd.DataFrame,
    axes: Axes | None = None,
    *,
    planted_label: str = "planted median intensity, summed over the sets",
    recovered_label: str = "recovered knowledge (0 to 1)",
) -> Axes:
    """Recovered against planted values, a mark a cell of the matrix, with the rank correlation over all cells.

    Args:
        data: from ``figure_data.recovery_data``: expression, action_unit, planted, recovered.
    """
    axes = _axes(axes, (5.4, 4.4))
    known = data.dropna(subset=["planted", "recovered"])
    sns.scatterplot(known, x="planted", y="recovered", s=42, linewidth=0.4, ax=axes, **_BY_EXPRESSION)
    ranks = known[["planted", "recovered"]].corr(method="spearman").iloc[0, 1] if len(known) > 2 else np.nan
    axes.set_title(f"rank correlation {ranks:+.2f} ({len(known)} cells)" if np.isfinite(ranks) else "")
    axes.set(xlabel=planted_label, ylabel=recovered_label)
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


# --------------------------------------------------------------------------------------------------- AU estimator
@_styled
def estimator_accuracy(data: pd.DataFrame) -> Figure:
    """How well the estimator finds each AU on subjects it has not seen.

    Args:
        data: one row an AU: action_unit, f1, f1_low, f1_high, base_rate (shares 0 to 1) and intensity_r (-1 to 1; NaN
            for AU28, which has no intensity), with intensity_r_low and intensity_r_high where known, as
            ``evaluate_estimator`` gives.
    """
    data = data.set_index("action_unit").reindex([au for au in ACTION_UNITS if au in set(data["action_unit"])])
    place = np.arange(len(data))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.0, 5.4), sharex=True, height_ratios=(1.25, 1))
    # guessing "present" always gives F1 = 2 b / (1 + b) at base rate b: the height that costs nothing
    chance = 2 * data["base_rate"] / (1 + data["base_rate"])
    top.bar(place, data["f1"], width=0.7, color="#9CC9E3", label="F1, 95 % interval over subjects")
    top.vlines(place, data["f1_low"], data["f1_high"], color="#1f3b57", linewidth=1.4)
    top.hlines(
        chance,
        place - 0.35,
        place + 0.35,
        color=METRIC_COLOURS["UAR"],
        linewidth=1.6,
        label="always saying “present”",
    )
    top.set(ylabel="presence, F1 (0 to 1)", ylim=(0, 1.02))
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    bottom.bar(place, data["intensity_r"], width=0.7, color="#8FCBB6")
    if "intensity_r_low" in data:
        bottom.vlines(place, data["intensity_r_low"], data["intensity_r_high"], color="#1f4a3c", linewidth=1.4)
    bottom.set(ylabel="intensity, Pearson r", ylim=(min(0, np.nanmin([0, *data["intensity_r"]])), 1.02))
    for axes in (top, bottom):
        axes.grid(axis="y")
    _au_axis(bottom, data.index, data["intensity_r"].isna())
    return figure


def _au_axis(axes: Axes, units, unknown) -> None:
    """Names of AUs below; where the intensity is unknown, why."""
    for k in np.flatnonzero(unknown):
        text = "no intensity" if units[k] not in INTENSITY_ACTION_UNITS else "constant"
        axes.text(k, 0.03, text, rotation=90, ha="center", va="bottom", fontsize=7, color="gray")
    names = [f"{au}\n{ACTION_UNIT_NAMES[au]}" for au in units]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.set_xlim(-0.6, len(names) - 0.4)


# ------------------------------------------------------------------------------------------------------ AU tables
@_styled
def presence_intervals(data: pd.DataFrame) -> Figure:
    """How often each AU is present by expression, with 95 % intervals; one panel an AU.

    Args:
        data: from ``comparison.presence_rates_with_intervals``: expression, action_unit, value, low, high (percent).
    """
    place = {name: k for k, name in enumerate(EXPRESSIONS)}
    figure, grid = plt.subplots(3, 6, figsize=(8.8, 5.6), sharex=True, sharey=True)
    for axes, au in zip(grid.flat, ACTION_UNITS, strict=True):
        for row in data[data["action_unit"] == au].dropna(subset="value").itertuples():
            colour, y = EXPRESSION_COLOURS[row.expression], place[row.expression]
            axes.hlines(y, row.low, row.high, color=colour, linewidth=2, alpha=0.45)
            axes.plot(
                row.value, y, linestyle="none", marker=EXPRESSION_MARKERS[row.expression], color=colour, markersize=4.5
            )
        axes.set_title(f"{au}\n{ACTION_UNIT_NAMES[au]}", fontsize=7.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    grid[0, 0].set(xlim=(-4, 104), xticks=(0, 50, 100), ylim=(len(EXPRESSIONS) - 0.5, -0.5))
    grid[0, 0].set_yticks(range(len(EXPRESSIONS)), EXPRESSIONS)
    figure.supxlabel("frames with the AU present (%)", fontsize=9)
    return figure


@_styled
def extractor_agreement(data: pd.DataFrame) -> Figure:
    """How far two extractors agree on each AU: presence above, intensity below.

    Args:
        data: from ``comparison.extractor_agreement``.
    """
    place = np.arange(len(data))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.0, 5.2), sharex=True)
    panels = (
        (top, "kappa", "Cohen's kappa", "f1", "F1", "#0072B2"),
        (bottom, "intensity_r", "Pearson r", "icc", "ICC(3,1)", "#009E73"),
    )
    for axes, main, name, other, other_name, colour in panels:
        axes.vlines(place, data[f"{main}_low"], data[f"{main}_high"], color=colour, linewidth=2.2, alpha=0.45)
        axes.plot(
            place, data[main], linestyle="none", marker="o", color=colour, label=f"{name}, 95 % interval over clips"
        )
        axes.plot(
            place,
            data[other],
            linestyle="none",
            marker="D",
            markerfacecolor="white",
            markeredgecolor="#444444",
            markersize=4,
            label=other_name,
        )
        lowest = np.nanmin([0, *data[[f"{main}_low", main, other]].to_numpy(float).ravel()])
        axes.set(ylim=(lowest - 0.05, 1.04))
        axes.axhline(0, color="#999999", linewidth=0.8)
        axes.grid(axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    top.set_ylabel("presence (1 = same)")
    bottom.set_ylabel("intensity (1 = same)")
    _au_axis(bottom, data["action_unit"].tolist(), data["intensity_r"].isna())
    return figure


@_styled
def au_baselines(data: pd.DataFrame) -> Figure:
    """WAR and UAR of the AU-only baseline with 95 % intervals; grey ticks: always the commonest expression.

    Args:
        data: from ``study.au_baselines``: source, judged, features, classifier, metric, value, low, high (percent).
    """
    if data.empty:
        return _empty(plt.figure(figsize=(5, 1.2)), "no subjects known: nothing can be left out")
    rows = list(dict.fromkeys(zip(data["source"], data["judged"], strict=True)))
    shades = dict(zip(dict.fromkeys(data["features"]), ("#0072B2", "#E69F00"), strict=True))
    figure, grid = plt.subplots(1, 2, figsize=(8.0, 0.55 * len(rows) + 1.1), sharey=True, sharex=True)
    commonest = data["classifier"] == "always the commonest expression"
    for axes, metric in zip(grid, ("WAR", "UAR"), strict=True):
        for k, (source, judged) in enumerate(rows):
            mine = (data["source"] == source) & (data["judged"] == judged) & (data["metric"] == metric)
            axes.vlines(data.loc[mine & commonest, "value"], k - 0.32, k + 0.32, color="#8C8C8C", linewidth=2)
            for shift, (features, colour) in zip(
                np.linspace(-0.16, 0.16, len(shades)) if len(shades) > 1 else (0,), shades.items(), strict=True
            ):
                chosen = data[mine & ~commonest & (data["features"] == features)].rename(columns={"value": "ours"})
                _dots(axes, chosen, [k + shift] * len(chosen), colour)
        axes.set_xlabel(f"{metric} (%)")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    grid[0].set_xlim(0, 100)
    grid[0].set_yticks(range(len(rows)), [f"{source}\n{judged}" for source, judged in rows])
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.legend(
        handles=[
            Line2D([], [], color=colour, marker="o", markersize=5, label=f"AUs: {name}")
            for name, colour in shades.items()
        ]
        + [
            Line2D(
                [],
                [],
                color="#8C8C8C",
                linestyle="none",
                marker="|",
                markersize=10,
                markeredgewidth=2,
                label="always the commonest expression",
            )
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


# ------------------------------------------------------------------------------------------------ the embedded faces
@_styled
def image_grid(
    images: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: Axes | None = None,
    *,
    title: str = "",
    cell: float = 0.7,
    gap: int = 3,
    block: int = 0,
) -> Axes:
    """A grid of pictures with row and column labels.

    Args:
        images: ``(rows, columns, H, W, 3)`` uint8.
        rows, columns: labels.
        cell: side of a picture on paper, inches.
        gap: white pixels between pictures; after every ``block`` columns (0: never) four times as many.
    """
    images = np.asarray(images)
    count, across, height, width = images.shape[:4]
    left = np.arange(across) * (width + gap) + (3 * gap * (np.arange(across) // block) if block else 0)
    top = np.arange(count) * (height + gap)
    canvas = np.full((top[-1] + height, left[-1] + width, 3), 255, np.uint8)
    for i in range(count):
        for j in range(across):
            canvas[top[i] : top[i] + height, left[j] : left[j] + width] = images[i, j]
    longest = max(len(line) for label in rows for line in label.split("\n"))
    margin = 0.3 + 0.07 * longest  # inches for the row labels
    axes = _axes(axes, (cell * canvas.shape[1] / width + margin, cell * canvas.shape[0] / height + 0.5))
    axes.imshow(canvas, interpolation="auto")
    axes.set_xticks(left + width / 2, columns)
    axes.set_yticks(top + height / 2, rows)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, pad=16 if title else None)
    return axes


@_styled
def contact_sheet_action_units(sheet: dict) -> Figure:
    """Every action unit at graded intensity on several people: can one name the AU from the picture?

    Args:
        sheet: from ``synth.contact_sheet``.
    """
    pictures = sheet["action_units"]  # (18, people, intensities, H, W, 3)
    units, people, steps = pictures.shape[:3]
    names = [label.replace(" ", "\n", 1) for label in sheet["action_unit_rows"]]
    columns = list(sheet["intensity_columns"]) * people
    axes = image_grid(
        pictures.reshape(units, people * steps, *pictures.shape[3:]), names, columns, block=steps, cell=0.78
    )
    for k, person in enumerate(sheet["identity_labels"]):
        middle = np.mean(axes.get_xticks()[k * steps : (k + 1) * steps])
        axes.annotate(
            f"{person}, intensity (0 to 5)",
            (middle, 0),
            (0, 18),
            xycoords="data",
            textcoords="offset points",
            ha="center",
            fontweight="bold",
        )
    axes.figure.set_dpi(PICTURE_DPI)
    return axes.figure


@_styled
def contact_sheet_expressions(sheet: dict) -> Figure:
    """The seven expressions from onset over apex to offset; column labels are the strength of the expression.

    Args:
        sheet: from ``synth.contact_sheet``.
    """
    columns = [f"{float(value):.1f}" for value in sheet["moment_columns"]]
    axes = image_grid(sheet["expressions"], sheet["expression_rows"], columns, cell=0.95)
    axes.set_xlabel("time →   (above: strength of the expression, 0 to 1)")
    axes.figure.set_dpi(PICTURE_DPI)
    return axes.figure


@_styled
def reconstruction(sheet: dict, moments: int = 4) -> Figure:
    """Masked clips and what the pre-trained MAE-DFER makes of them: appearance above, motion below.

    Args:
        sheet: from ``study.reconstructions``.
        moments: pictures a clip, evenly spread over its tubelets.
    """
    clips, times = sheet["original"].shape[:2]
    chosen = np.unique(np.linspace(0, times - 1, min(moments, times)).round().astype(int))
    # one scale a clip: blue gets darker, red gets brighter
    largest = np.maximum(np.quantile(np.abs(sheet["motion"]), 0.99, axis=(1, 2, 3), keepdims=True), 1e-6)
    colours = plt.get_cmap("RdBu_r").with_extremes(bad="#D9D9D9")
    pictures = [sheet[name] for name in ("original", "masked", "appearance")]
    pictures += [
        colours(0.5 + 0.5 * sheet[name] / largest, bytes=True)[..., :3] for name in ("motion", "predicted_motion")
    ]
    grid = np.stack([picture[:, chosen].reshape(-1, *picture.shape[2:]) for picture in pictures])
    names = ["clip", "what the\nencoder sees", "appearance,\npredicted", "motion", "motion,\npredicted"]
    axes = image_grid(grid, names, [""] * grid.shape[1], block=len(chosen), cell=0.72)
    places = axes.get_xticks().reshape(clips, -1).mean(1)
    for place, expression in zip(places, sheet["expressions"], strict=True):
        axes.annotate(
            f"{expression} →",
            (place, 0),
            (0, 5),
            xycoords="data",
            textcoords="offset points",
            ha="center",
            fontweight="bold",
        )
    axes.figure.set_dpi(PICTURE_DPI)
    return axes.figure


# ------------------------------------------------------------------------------------------------------ result tables
@_styled
def accuracies(data: pd.DataFrame) -> Figure:
    """Table 1 as a picture: WAR and UAR of every network and dataset, without and with AU, with 95 % intervals.

    Args:
        data: ``tables.table1(...).tidy``.
    """
    datasets = [d for d in EVALUATION_DATASETS if d in set(data["dataset"])] + sorted(
        set(data["dataset"]) - set(EVALUATION_DATASETS)
    )
    models = [m for m in MODEL_NAMES if m in set(data["model"])]
    figure, grid = plt.subplots(
        2,
        max(1, len(datasets)),
        figsize=(2.5 * max(1, len(datasets)) + 1.2, 3.6),
        sharex="row",
        sharey=True,
        squeeze=False,
    )
    for i, metric in enumerate(("WAR", "UAR")):
        for j, dataset in enumerate(datasets):
            axes, part = grid[i, j], data[(data["metric"] == metric) & (data["dataset"] == dataset)]
            for shift, variant in ((-0.16, WITHOUT), (0.16, WITH)):
                rows = part[part["variant"] == variant].set_index("model").reindex(models)
                _dots(axes, rows, np.arange(len(models)) + shift, VARIANT_COLOURS[variant])
            axes.set_yticks(range(len(models)), [model_name(m) for m in models])
            axes.set_title(dataset if i == 0 else "")
            axes.set_xlabel(f"{metric} (%)")
            axes.grid(axis="x")
            axes.set_ylim(len(models) - 0.5, -0.5)
    _legend_below(figure, [(variant, VARIANT_COLOURS[variant]) for variant in (WITHOUT, WITH)])
    return figure


def _dots(axes: Axes, rows: pd.DataFrame, place, colour: str) -> None:
    axes.hlines(place, rows["low"], rows["high"], color=colour, linewidth=1.8, alpha=0.55)
    axes.plot(rows["ours"], place, linestyle="none", marker="o", color=colour, markersize=5)


def _legend_below(figure: Figure, entries, marker: str = "o", extra: Sequence = ()) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, linewidth=1.8, markersize=5, label=text) for text, colour in entries
    ]
    figure.legend(handles=[*handles, *extra], loc="outside lower center", ncols=len(handles) + len(extra))


@_styled
def strategies(data: pd.DataFrame, *, embedded: bool = True) -> Figure:
    """Table 3 as a picture: WAR and UAR of every network and strategy, with 95 % intervals and the paper's numbers.

    Args:
        data: ``tables.table3(...).tidy``.
        embedded: our clips are rendered, so the legend calls the paper's numbers another input.
    """
    models = [m for m in MODEL_NAMES if m in set(data["model"])]
    names = [STRATEGY_NAMES[s] for s in STRATEGIES]
    figure, grid = plt.subplots(
        2,
        max(1, len(models)),
        figsize=(2.6 * max(1, len(models)) + 1.2, 4.2),
        sharex="row",
        sharey=True,
        squeeze=False,
    )
    for i, metric in enumerate(("WAR", "UAR")):
        for j, model in enumerate(models):
            axes, part = (
                grid[i, j],
                data[(data["metric"] == metric) & (data["model"] == model)].set_index("variant").reindex(names),
            )
            for k, (strategy, name) in enumerate(zip(STRATEGIES, names, strict=True)):
                _dots(axes, part.loc[[name]], [k], STRATEGY_COLOURS[strategy])
            axes.plot(
                part["paper"],
                np.arange(len(names)),
                linestyle="none",
                marker="D",
                markerfacecolor="none",
                color="black",
                markersize=4.5,
            )
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(model_name(model) if i == 0 else "")
            axes.set_xlabel(f"{metric} (%)")
            axes.grid(axis="x")
    paper = Line2D(
        [],
        [],
        linestyle="none",
        marker="D",
        markerfacecolor="none",
        color="black",
        markersize=4.5,
        label="paper (other input)" if embedded else "paper",
    )
    ours = Line2D([], [], color="#444444", marker="o", linewidth=1.8, markersize=5, label="ours, 95 % interval")
    figure.legend(handles=[ours, paper], loc="outside lower center", ncols=2)
    return figure


# ------------------------------------------------------------------------------------------------------------ Fig. 5
@_styled
def fig5(data: pd.DataFrame) -> Figure:
    """Fig. 5: WAR and UAR against the AU ratio (lambda of Eq. 10) on each dataset, with 95 % interval bands.

    Args:
        data: from ``figure_data.ratio_data``.
    """
    datasets = list(dict.fromkeys(data["dataset"]))
    if not datasets:
        return _empty(plt.figure(figsize=(4, 3)))
    figure, grid = plt.subplots(
        2, len(datasets), figsize=(2.75 * len(datasets) + 0.6, 4.6), sharey="row", sharex=True, squeeze=False
    )
    for i, metric in enumerate(("WAR", "UAR")):
        for j, dataset in enumerate(datasets):
            axes, part = (
                grid[i, j],
                data[(data["dataset"] == dataset) & (data["metric"] == metric)].sort_values("au_ratio"),
            )
            colour, alone = METRIC_COLOURS[metric], part.loc[part["au_ratio"] == 0, "value"]
            if len(alone):
                axes.axhline(alone.iloc[0], color=VARIANT_COLOURS[WITHOUT], linestyle="--", linewidth=1.1)
            axes.fill_between(part["au_ratio"], part["low"], part["high"], color=colour, alpha=0.16, linewidth=0)
            axes.plot(part["au_ratio"], part["value"], marker="o" if metric == "WAR" else "s", color=colour)
            ratios = sorted(set(data["au_ratio"]))
            axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
            if i == 0:
                axes.set_title(f"{dataset} ({int(part['clips'].max())} test clips)")
            axes.grid(True)
        grid[i, 0].set_ylabel(f"{metric} (%)")
    for axes in grid[1]:
        axes.set_xlabel("AU ratio λ (share of the AU loss)")
    handles = [
        Line2D([], [], color=VARIANT_COLOURS[WITHOUT], linestyle="--", linewidth=1.1, label="λ = 0: no AU head"),
        Patch(color="#999999", alpha=0.35, linewidth=0, label="95 % interval over clips"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@_styled
def loss_terms(data: pd.DataFrame) -> Figure:
    """What the total loss of Eq. 10 is made of at the end of training, for every lambda on each dataset.

    Args:
        data: from ``figure_data.loss_data``.
    """
    datasets = list(dict.fromkeys(data["dataset"]))
    if not datasets:
        return _empty(plt.figure(figsize=(4, 3)))
    figure, grid = plt.subplots(1, len(datasets), figsize=(2.75 * len(datasets) + 0.6, 2.9), sharey=True, squeeze=False)
    for axes, dataset in zip(grid[0], datasets, strict=True):
        wide = data[data["dataset"] == dataset].pivot(index="au_ratio", columns="term", values=["weighted", "share"])
        place, bottom = np.arange(len(wide)), np.zeros(len(wide))
        for term in LOSS_TERMS:
            axes.bar(place, wide["weighted", term], bottom=bottom, width=0.7, color=TERM_COLOURS[term])
            bottom += wide["weighted", term].to_numpy()
        for k, (top, share) in enumerate(zip(bottom, wide["share", LOSS_TERMS[1]], strict=True)):
            if share:
                axes.text(k, top, f"{share:.0f} %", ha="center", va="bottom", fontsize=7)
        axes.set_xticks(place, [f"{ratio:g}" for ratio in wide.index])
        axes.set_title(dataset)
        axes.set_xlabel("AU ratio λ")
        axes.grid(axis="y")
    grid[0, 0].set_ylabel("total loss")
    grid[0, 0].set_ylim(0, 1.1 * data.groupby(["dataset", "au_ratio"])["weighted"].sum().max())
    names = {LOSS_TERMS[0]: "(1 − λ) · expression loss", LOSS_TERMS[1]: "λ · AU loss, with its share"}
    handles = [Patch(color=TERM_COLOURS[term], linewidth=0, label=names[term]) for term in LOSS_TERMS]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


# --------------------------------------------------------------------------------------------------------- ablations
@_styled
def ablations(data: pd.DataFrame) -> Figure:
    """Every variant of the AU loss against plain BCE: differences of WAR and UAR with 95 % intervals.

    Args:
        data: ``tables.ablations(...).tidy``.
    """
    data = data[data["against"] == PLAIN_BCE]
    names = list(dict.fromkeys(data["variant"]))
    if not names:
        return _empty(plt.figure(figsize=(4, 3)))
    figure, grid = plt.subplots(1, 2, figsize=(8.4, 0.3 * len(names) + 1.5), sharey=True)
    for axes, metric in zip(grid, ("WAR", "UAR"), strict=True):
        axes.axvline(0, color="#999999", linestyle="--", linewidth=1)
        part = data[data["metric"] == metric].set_index("variant").reindex(names)
        for k, name in enumerate(names):
            colour = (
                VARIANT_COLOURS[WITH]
                if name == KNOWLEDGE
                else VARIANT_COLOURS[WITHOUT]
                if name == NO_HEAD
                else "#333333"
            )
            axes.hlines(
                k,
                part.loc[name, "difference_low"],
                part.loc[name, "difference_high"],
                color=colour,
                linewidth=1.8,
                alpha=0.55,
            )
            axes.plot(part.loc[name, "difference"], k, marker="o", color=colour, markersize=5)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(f"{metric} minus that of plain BCE (points)")
        axes.grid(axis="x")
    for text, name in zip(grid[0].get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if name == KNOWLEDGE else "normal")
    return figure


# ------------------------------------------------------------------------------------------------------------ Fig. 6
@_styled
def confusion(data: pd.DataFrame, axes: Axes | None = None, *, title: str = "") -> Axes:
    """One confusion matrix: percent of the true class, the count of clips below it.

    Args:
        data: true, predicted, count, share (percent; NaN for a class without clips: its row stays blank).
    """
    axes = _axes(axes, (3.6, 3.4))
    share = (
        data.pivot(index="true", columns="predicted", values="share")
        .reindex(index=list(EXPRESSIONS), columns=list(EXPRESSIONS))
        .to_numpy(float)
    )
    count = (
        data.pivot(index="true", columns="predicted", values="count")
        .reindex(index=list(EXPRESSIONS), columns=list(EXPRESSIONS))
        .to_numpy(float)
    )
    norm = Normalize(0, 100)
    axes.imshow(share, cmap=_MAP, norm=norm)
    _cell_texts(axes, share, lambda value: f"{value:.0f}", norm, 8, dy=-0.12)
    colours = plt.get_cmap(_MAP)
    for i, j in zip(*np.nonzero(np.isfinite(share)), strict=True):
        ink = _ink(colours(float(norm(share[i, j]))), "#444444", "#eeeeee")
        axes.text(j, i + 0.27, f"{count[i, j]:.0f}", ha="center", va="center", fontsize=6, color=ink)
    axes.set_xticks(range(len(EXPRESSIONS)), EXPRESSION_HEADINGS)
    axes.set_yticks(range(len(EXPRESSIONS)), EXPRESSION_HEADINGS)
    axes.set(xlabel="predicted", ylabel="true")
    _plain_grid(axes, share.shape)
    axes.set_title(title)
    return axes


@_styled
def fig6(data: pd.DataFrame) -> Figure:
    """Fig. 6: confusion matrices, a column a network, without AU above and with AU below.

    Args:
        data: from ``figure_data.confusion_data``. A missing cell of the grid stays empty and says so.
    """
    models = [m for m in MODEL_NAMES if m in set(data["model"])]
    if not models:
        return _empty(plt.figure(figsize=(4, 3)))
    figure, grid = plt.subplots(2, len(models), figsize=(3.25 * len(models) + 0.2, 6.5), squeeze=False)
    letters = iter("abcdefghijklmnop")
    for i, variant in enumerate((WITHOUT, WITH)):
        for j, model in enumerate(models):
            axes, part = grid[i, j], data[(data["model"] == model) & (data["variant"] == variant)]
            letter = next(letters)
            if part.empty:
                _empty(axes, "no record").set_title(f"({letter}) {model_name(model)}, {variant}")
                continue
            confusion(part, axes, title=f"({letter}) {model_name(model)}, {variant}")
            axes.set_ylabel("true" if j == 0 else "")
            axes.set_xlabel("predicted" if i == 1 else "")
    return figure


# ------------------------------------------------------------------------------------------------------------ Fig. 7
@_styled
def fig7(data: pd.DataFrame) -> Figure:
    """Fig. 7, a to g: losses, WAR, UAR and learning rate over the epochs, without and with AU.

    The total loss with AU is another quantity (Eq. 10 mixes two losses of different scales), so its height says
    nothing about training; the expression loss is the comparable one. Several seeds: the mean, and a band from the
    lowest to the highest.

    Args:
        data: from ``figure_data.process_data``.
    """
    figure, grid = plt.subplots(2, 4, figsize=(10.4, 4.9))
    for k, (axes, (panel, title, label)) in enumerate(zip(grid.flat, PANELS, strict=True)):
        for variant, style in ((WITH, "-"), (WITHOUT, "--")):  # dashes on top: both are seen where they coincide
            part = data[(data["panel"] == panel) & (data["variant"] == variant)].dropna(subset="value")
            if part.empty:
                continue
            seeds = part.groupby("epoch")["value"].agg(["mean", "min", "max"])
            if part["seed"].nunique() > 1:
                axes.fill_between(
                    seeds.index, seeds["min"], seeds["max"], color=VARIANT_COLOURS[variant], alpha=0.18, linewidth=0
                )
            axes.plot(
                seeds.index,
                seeds["mean"],
                style,
                color=VARIANT_COLOURS[variant],
                # few epochs that were looked at: points say which
                marker="o" if len(seeds) < 6 else None,
                markersize=4,
            )
        axes.set_title(f"({'abcdefg'[k]}) {title}")
        axes.set_ylabel(label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True)
        if panel == "learning_rate":
            _power_of_ten(axes, label)
    if data.empty:
        _empty(grid[0, 0])
    legend = grid[1, 3]
    legend.set_axis_off()
    handles = [
        Line2D([], [], color=VARIANT_COLOURS[v], linestyle=s, label=v) for v, s in ((WITHOUT, "--"), (WITH, "-"))
    ]
    legend.legend(handles=handles, loc="upper left", fontsize=9)
    legend.text(
        0.02,
        0.52,
        "(a) mixes two losses when there\nis an AU head: compare (b).\n(c) exists with an AU head only.",
        transform=legend.transAxes,
        va="top",
        fontsize=8,
        color="#555555",
    )
    return figure


def _power_of_ten(axes: Axes, label: str) -> None:
    """Put the power of ten of small y values into the label, where it does not push the title away."""
    top = axes.get_ylim()[1]
    power = int(np.floor(np.log10(top))) if top > 0 else 0
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 10.0**power:g}")
    axes.set_ylabel(f"{label} ($10^{{{power}}}$)")


# ------------------------------------------------------------------------------------------------------------ Fig. 8
@_styled
def fig8(data: pd.DataFrame, variants: Sequence[str] = EMBEDDINGS) -> Figure:
    """Fig. 8: t-SNE of the test clips' features, a panel a variant, with two separation numbers taken in feature space.

    Args:
        data: from ``figure_data.embedding_data``. variants: the panels.
    """
    figure, grid = plt.subplots(1, len(variants), figsize=(3.2 * len(variants), 4.1))
    for k, (axes, variant) in enumerate(zip(grid, variants, strict=True)):
        part = data[data["variant"] == variant]
        axes.set_title(f"({'abc'[k]}) {variant}")
        if part.empty:
            _empty(axes, "no record")
            continue
        sns.scatterplot(
            part,
            x="x",
            y="y",
            s=20,
            alpha=0.8,
            linewidth=0,
            legend=False,
            rasterized=len(part) > 1000,
            ax=axes,
            **_BY_EXPRESSION,
        )
        first = part.iloc[0]
        axes.set_xlabel(
            f"{first['neighbours']:.0f}-neighbour purity {first['purity']:.1f} % (chance {first['chance']:.1f} %)\n"
            f"silhouette {first['silhouette']:+.3f}"
        )
        axes.set_ylabel("")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.set_box_aspect(1)
    handles = [
        Line2D([], [], linestyle="none", marker=EXPRESSION_MARKERS[n], color=EXPRESSION_COLOURS[n], label=n)
        for n in EXPRESSIONS
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(EXPRESSIONS), columnspacing=1.2, handletextpad=0.2
    )
    return figure


# ------------------------------------------------------------------------------------------------------------- counts
@_styled
def class_frequencies(data: pd.DataFrame) -> Figure:
    """Share of each expression among the clips of every dataset, with the published share as a line.

    Args:
        data: from ``figure_data.frequency_data``.
    """
    datasets = list(dict.fromkeys(data["dataset"]))
    columns = min(3, max(1, len(datasets)))
    rows = max(1, -(-len(datasets) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(2.6 * columns + 0.6, 2.3 * rows + 0.5), squeeze=False)
    place = np.arange(len(EXPRESSIONS))
    for axes, dataset in zip(grid.flat, datasets, strict=True):
        part = data[data["dataset"] == dataset].set_index("expression").reindex(list(EXPRESSIONS))
        axes.bar(place, part["share"], width=0.72, color=[EXPRESSION_COLOURS[name] for name in EXPRESSIONS])
        axes.hlines(part["paper_share"], place - 0.42, place + 0.42, color="black", linewidth=1.4)
        axes.set_xticks(place, EXPRESSION_HEADINGS)
        axes.tick_params(axis="x", length=0)
        axes.set_title(f"{dataset} ({int(part['clips'].sum())} clips)")
        axes.grid(axis="y")
    for axes in grid.flat[len(datasets) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("share of clips (%)")
    if data["paper_share"].notna().any():
        line = Line2D([], [], color="black", linewidth=1.4, label="published share of the real dataset")
        figure.legend(handles=[line], loc="outside lower center")
    return figure


# ------------------------------------------------------------------------------------------- calibration and the AU
# head
@_styled
def reliability(data: pd.DataFrame) -> Figure:
    """Is a network right as often as it says? Accuracy against confidence, a panel a variant, clips of each bin below.

    Args:
        data: from ``figure_data.calibration_data``.
    """
    variants = [v for v in (WITHOUT, WITH) if v in set(data["variant"])]
    if not variants:
        return _empty(plt.figure(figsize=(4, 3)))
    figure, grid = plt.subplots(
        2,
        len(variants),
        figsize=(3.1 * len(variants) + 0.5, 4.2),
        sharex=True,
        sharey="row",
        height_ratios=(3, 1),
        squeeze=False,
    )
    for (top, bottom), variant in zip(grid.T, variants, strict=True):
        part = data[data["variant"] == variant]
        filled, colour = part[part["clips"] > 0], VARIANT_COLOURS[variant]
        top.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1)
        top.vlines(
            100 * filled["confidence"],
            100 * filled["accuracy_low"],
            100 * filled["accuracy_high"],
            color=colour,
            alpha=0.5,
        )
        top.plot(
            100 * filled["confidence"], 100 * filled["accuracy"], marker="o", markersize=4, linewidth=1, color=colour
        )
        first = part.iloc[0]
        top.set_title(variant)
        # below the diagonal, where only a network that is too sure of itself has points
        top.text(
            97,
            3,
            f"ECE {100 * first['ece']:.1f} points\n(if calibrated, up to {100 * first['ece_if_calibrated']:.1f})\n"
            f"Brier {first['brier']:.2f} [{first['brier_low']:.2f}, {first['brier_high']:.2f}]",
            va="bottom",
            ha="right",
            fontsize=8,
        )
        top.set(xlim=(0, 100), ylim=(0, 100))
        top.grid(True)
        width = 100 * (part["high"] - part["low"])
        bottom.bar(100 * part["low"], part["clips"], width=0.92 * width, align="edge", color=colour, alpha=0.6)
        bottom.set_xlabel("confidence (%)")
    grid[0, 0].set_ylabel("right (%)")
    grid[1, 0].set_ylabel("clips")
    return figure


@_styled
def au_head(data: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """F1 of each AU of the AU head, with its interval and what always saying "present" would give.

    Args:
        data: from ``evaluation.au_quality``.
    """
    axes = _axes(axes, (8.0, 3.0))
    data = data.set_index("action_unit").reindex([au for au in ACTION_UNITS if au in set(data["action_unit"])])
    place = np.arange(len(data))
    axes.bar(place, data["f1"], width=0.7, color="#9CC9E3", label="F1, 95 % interval")
    axes.vlines(place, data["f1_low"], data["f1_high"], color="#1f3b57", linewidth=1.4)
    axes.hlines(
        data["f1_always"],
        place - 0.35,
        place + 0.35,
        color=METRIC_COLOURS["UAR"],
        linewidth=1.6,
        label="always saying “present”",
    )
    axes.set(ylabel="F1 (0 to 1)", ylim=(0, 1.02), xlim=(-0.6, len(data) - 0.4))
    axes.set_xticks(place, data.index, rotation=60, ha="right", rotation_mode="anchor")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    axes.grid(axis="y")
    return axes


# ------------------------------------------------------------------------------------------------------- printed
# numbers
_VERDICTS = {BEYOND: ("#009E73", "D"), OPEN: ("#E69F00", "o"), WITHIN: ("#D55E00", "X")}


@_styled
def printed_gains(data: pd.DataFrame) -> Figure:
    """The paper's printed gains against the noise of their test sets: Table 1 to the left, Table 2's classes to the
    right.

    Args:
        data: ``printed.gains()``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.2, 5.6), width_ratios=(1, 1.15))
    overall = data[data["measure"].isin(("WAR", "UAR"))]
    overall = overall.sort_values("measure", ascending=False, kind="stable")
    _gain_rows(left, overall, [f"{r.dataset}, {r.method}" for r in overall.itertuples()], "measure", "(a) Table 1")
    classes = data[data["measure"].isin(EXPRESSION_HEADINGS)]
    _gain_rows(
        right,
        classes,
        [f"{r.measure} ({r.clips:.0f} clips)" for r in classes.itertuples()],
        "method",
        "(b) Table 2, DFEW",
    )
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=5, label=name)
        for name, (colour, marker) in _VERDICTS.items()
    ]
    handles += [
        Patch(color="#DDDDDD", label="95 % noise, unpaired"),
        Patch(color="#A8A8A8", label="95 % noise, best pairing"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _gain_rows(axes: Axes, rows: pd.DataFrame, labels: list[str], block: str, title: str) -> None:
    """Dots of gains on their noise bands, with a gap and a heading before each block."""
    place, previous, y = [], None, 0.0
    for heading in rows[block]:
        if heading != previous:
            axes.text(
                0.01,
                y + 1.0,
                heading,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8.5,
                fontweight="bold",
            )
            previous, y = heading, y + 1.9
        place.append(y)
        y += 0.85
    height = 0.62
    axes.barh(place, 2 * rows["unpaired"], left=-rows["unpaired"], height=height, color="#DDDDDD")
    axes.barh(place, 2 * rows["best"].fillna(0), left=-rows["best"].fillna(0), height=height, color="#A8A8A8")
    axes.axvline(0, color="#555555", linewidth=0.8)
    for (_, row), at in zip(rows.iterrows(), place, strict=True):
        colour, marker = _VERDICTS[row["verdict"]]
        axes.plot(row["gain"], at, marker=marker, color=colour, markersize=5, linestyle="none")
    axes.set_yticks(place, labels, fontsize=7.5)
    axes.set_ylim(y, 0.3)
    axes.set_xlabel("printed gain of AU-DFER (points)")
    axes.set_title(title)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
