"""What figures share: colours, legends, and panels that more than one of them draws.

Colours belong to things, not to positions: an expression, a network, a variant has the same colour everywhere (Okabe
and Ito's palette, safe for colour-blind readers). ``Result.plot`` sets the style; nothing here loads or saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ..facs import ACTION_UNIT_NAMES, ACTION_UNITS, EXPRESSION_HEADINGS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from .selection import WITH, WITHOUT

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#7A7A7A"
EXPRESSION_COLOURS: dict[str, str] = dict(
    zip(EXPRESSIONS, (YELLOW, BLUE, "#8C8C8C", ORANGE, SKY, GREEN, PINK), strict=True)
)
#: a second cue beside colour
EXPRESSION_MARKERS: dict[str, str] = dict(zip(EXPRESSIONS, "ovs^DPX", strict=True))
VARIANT_COLOURS: dict[str, str] = {WITHOUT: GREY, WITH: BLUE, "paper": "#000000"}
METRIC_COLOURS: dict[str, str] = {"WAR": BLUE, "UAR": ORANGE}
#: how seaborn tells expressions apart
BY_EXPRESSION = {
    "hue": "expression",
    "hue_order": EXPRESSIONS,
    "palette": EXPRESSION_COLOURS,
    "style": "expression",
    "style_order": EXPRESSIONS,
    "markers": EXPRESSION_MARKERS,
}
_MAP = "YlGnBu"
#: dots per inch of figures made of pictures: about one for each pixel of a rendered face
PICTURE_DPI = 120


def empty(axes: Axes, text: str = "no records") -> Axes:
    """Say in a panel that there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color="gray", transform=axes.transAxes)
    return axes


def rendered(study) -> str:
    """What stands behind a dataset's name in a panel: the embedded benchmark has its layout and none of its clips."""
    return ", rendered" if study.profile.embedded else ""


def panels(count: int, columns: int, width: float, height: float, more: tuple[float, float], **options):
    """A grid with at least one panel; those that are too many are switched off.

    Args:
        width, height: inches of a panel; ``more``: added to the figure's.
        options: of ``plt.subplots``.

    Returns:
        The figure and the array of its rows of panels.
    """
    columns = min(columns, max(1, count))
    rows = max(1, -(-count // columns))
    size = width * columns + more[0], height * rows + more[1]
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid


def dots(axes: Axes, rows: pd.DataFrame, place, colour: str, value: str = "ours", ends: str = "") -> None:
    """Horizontal intervals with a dot each, from columns ``value``, ``{ends}low`` and ``{ends}high``."""
    axes.hlines(place, rows[f"{ends}low"], rows[f"{ends}high"], color=colour, linewidth=1.8, alpha=0.55)
    axes.plot(rows[value], place, linestyle="none", marker="o", color=colour, markersize=5)


def names_down(axes: Axes, names: Sequence[str]) -> None:
    """Names along the y axis, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def mark(label: str, **options) -> Line2D:
    """A legend's entry without a line; ``options`` of ``Line2D``."""
    return Line2D([], [], linestyle="none", label=label, **options)


def interval_mark(label: str, colour: str) -> Line2D:
    """A legend's entry of ``dots``."""
    return Line2D([], [], color=colour, marker="o", linewidth=1.8, markersize=5, label=label)


def legend_below(figure: Figure, handles: Sequence, columns: int = 0, **options) -> None:
    """A legend below all panels, in one row unless ``columns`` are given."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns or len(handles), **options)


# ------------------------------------------------------------------------------------------------- expression x AU
def wide(data: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows of expressions and AUs as a matrix, whatever their order."""
    units = [au for au in ACTION_UNITS if au in set(data["action_unit"])]
    table = data.pivot(index="expression", columns="action_unit", values=column)
    return table.reindex(index=list(EXPRESSIONS), columns=units)


def heatmap(
    data: pd.DataFrame,
    axes: Axes | None = None,
    *,
    title: str = "",
    low: float | None = None,
    high: float | None = None,
    digits: int | None = 2,
    label: str = "",
    bar: bool = True,
    size: float = 7,
    log: bool = False,
) -> Axes:
    """A matrix of expressions (rows) and AUs (columns) with its numbers in the cells.

    Args:
        data: columns expression, action_unit and value (one row per cell; NaN cells stay blank).
        low, high: ends of the colour scale; ``None``: of the data.
        digits: decimals of the numbers; ``None``: one below ten, none above.
        label: of the colour bar, with unit. bar: whether there is one.
        size: of each cell's number in points.
        log: colours by the logarithm; ``low`` must be above 0.
    """
    axes = plt.subplots(figsize=(8.6, 3.0))[1] if axes is None else axes
    matrix = wide(data, "value")
    values = matrix.to_numpy(float)
    norm = scale(values, low, high, log)
    image = axes.imshow(values, cmap=_MAP, norm=norm, aspect="auto")
    write_cells(axes, values, lambda value: _short(value, digits), norm, size)
    axes.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(EXPRESSIONS)), EXPRESSIONS)
    plain_grid(axes, values.shape)
    axes.set_title(title)
    if bar:
        colour_bar(image, axes, label, pad=0.015, fraction=0.03)
    return axes


def scale(values, low: float | None, high: float | None, log: bool = False) -> Normalize:
    """A colour scale over the known values."""
    known = np.asarray(values, float)[np.isfinite(values)]
    if log:  # a weight of 0 (an AU that is active in every clip) has no place on a logarithmic scale
        known = known[known > 0]
    low = (known.min() if len(known) else 0.0) if low is None else low
    high = (known.max() if len(known) else 1.0) if high is None else high
    if not low < high:  # all cells alike: any scale around the value will do
        low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
    return (LogNorm if log else Normalize)(low, high)


def _short(value: float, digits: int | None) -> str:
    return f"{value:.{digits}f}" if digits is not None else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def colour_bar(image, axes, label: str, **place) -> None:
    """A colour bar without a frame; ``place``: arguments of ``Figure.colorbar``."""
    bar = image.get_figure().colorbar(image, ax=axes, **place)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        bar.ax.yaxis.set_minor_formatter(NullFormatter())


def write_cells(
    axes: Axes,
    values: np.ndarray,
    text: Callable,
    norm: Normalize,
    size: float,
    dy: float = 0.0,
    shades: tuple[str, str] = ("#1a1a1a", "white"),
    shown: np.ndarray | None = None,
) -> None:
    """Write into each cell with a finite value, dark on light and light on dark colours.

    Args:
        values: what colours the cells; shown: what ``text`` turns into text, ``None`` = the same.
        shades: dark and light text colour.
    """
    colours = plt.get_cmap(_MAP)
    shown = values if shown is None else shown
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        red, green, blue = to_rgb(colours(float(norm(max(values[i, j], norm.vmin)))))
        ink = shades[0] if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else shades[1]
        axes.text(j, i + dy, text(shown[i, j]), ha="center", va="center", fontsize=size, color=ink)


def plain_grid(axes: Axes, shape: tuple[int, int], colour: str = "white", linewidth: float = 0.8) -> None:
    """Lines between the cells of a matrix, no frame, no tick marks."""
    axes.set_xticks(np.arange(shape[1] - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=colour, linewidth=linewidth)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def matrices_by_source(
    data: pd.DataFrame,
    *,
    label: str = "",
    columns: int = 2,
    digits: int | None = 1,
    low: float | None = 0,
    high: float | None = None,
    log: bool = False,
    remark: str = "",
) -> Figure:
    """Small multiples of expression x AU matrices, one per source, on one colour scale.

    Args:
        data: columns source, expression, action_unit, value.
        columns: panels per row.
        label, digits, low, high, log: as in ``heatmap``; cells above ``high`` have a colour of their own.
        remark: behind each source's name.
    """
    sources = list(dict.fromkeys(data["source"]))
    columns = min(columns, max(1, len(sources)))
    one = columns == 1
    figure, grid = panels(len(sources), columns, 8.6 if one else 5.3, 2.2, (0, 0.4), sharex=True, sharey=True)
    norm = scale(data["value"].to_numpy(float), low, high, log)
    ends = {"low": norm.vmin, "high": norm.vmax, "digits": digits, "log": log, "bar": False, "size": 7 if one else 6.2}
    for k, (axes, source) in enumerate(zip(grid.flat, sources, strict=False)):
        heatmap(data[data["source"] == source], axes, title=f"{source}{remark}", **ends)
        # shared axes: labels at the outer edge only, and also above an empty last panel
        axes.tick_params(axis="x", labelbottom=k + columns >= len(sources))
        axes.tick_params(axis="y", labelleft=k % columns == 0)
    if sources:
        place = {
            "fraction": 0.02,
            "pad": 0.012,
            "aspect": 20 * len(grid),
            "extend": "neither" if high is None else "max",
        }
        colour_bar(grid.flat[0].images[0], grid, label, **place)
    return figure


def confusion(data: pd.DataFrame, axes: Axes | None = None, *, title: str = "") -> Axes:
    """One confusion matrix: percent of the true class, the count of clips below it.

    Args:
        data: true, predicted, count, share (percent; NaN for a class without clips: its row stays blank). A class that
            is never predicted is a grey column that says so.
    """
    axes = plt.subplots(figsize=(3.6, 3.4))[1] if axes is None else axes
    table = data.pivot(index="true", columns="predicted").reindex(index=list(EXPRESSIONS))
    share, count = (table[name].reindex(columns=list(EXPRESSIONS)).to_numpy(float) for name in ("share", "count"))
    norm, never = Normalize(0, 100), count.sum(axis=0) == 0
    share = np.where(never, np.nan, share)
    axes.imshow(share, cmap=_MAP, norm=norm)
    for k in np.flatnonzero(never):
        axes.axvspan(k - 0.5, k + 0.5, color="#EEEEEE", zorder=0)
        middle = (len(EXPRESSIONS) - 1) / 2
        axes.text(k, middle, "never predicted", rotation=90, ha="center", va="center", fontsize=8, color="#777777")
    write_cells(axes, share, "{:.0f}".format, norm, 8, dy=-0.12)
    write_cells(axes, share, "{:.0f}".format, norm, 6, dy=0.27, shades=("#444444", "#eeeeee"), shown=count)
    axes.set_xticks(range(len(EXPRESSIONS)), EXPRESSION_HEADINGS)
    axes.set_yticks(range(len(EXPRESSIONS)), EXPRESSION_HEADINGS)
    axes.set(xlabel="predicted", ylabel="true")
    plain_grid(axes, share.shape)
    axes.set_title(title)
    return axes


# -------------------------------------------------------------------------------------------------------- along AUs
def by_action_unit(data: pd.DataFrame) -> pd.DataFrame:
    """A table with one row per AU, in their order."""
    return data.set_index("action_unit").reindex([au for au in ACTION_UNITS if au in set(data["action_unit"])])


def f1_bars(axes: Axes, data: pd.DataFrame, chance, label: str) -> None:
    """F1 of each AU with its interval, and as a line what always saying "present" would give.

    Args:
        data: f1, f1_low, f1_high (shares); chance: F1 of each row.
        label: of the bars.
    """
    place = np.arange(len(data))
    axes.bar(place, data["f1"], width=0.7, color="#9CC9E3", label=label)
    axes.vlines(place, data["f1_low"], data["f1_high"], color="#1f3b57", linewidth=1.4)
    axes.hlines(chance, place - 0.35, place + 0.35, color=ORANGE, linewidth=1.6, label="always saying “present”")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    axes.grid(axis="y")


def au_axis(axes: Axes, units: Sequence[str], unknown) -> None:
    """Names of AUs below; where the intensity is unknown, why."""
    for k in np.flatnonzero(unknown):
        text = "no intensity" if units[k] not in INTENSITY_ACTION_UNITS else "constant"
        axes.text(k, 0.03, text, rotation=90, ha="center", va="bottom", fontsize=7, color="gray")
    names = [f"{au}\n{ACTION_UNIT_NAMES[au]}" for au in units]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.set_xlim(-0.6, len(names) - 0.4)


# --------------------------------------------------------------------------------------------------------- pictures
def image_grid(
    images: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, cell: float, block: int = 0, gap: int = 3
) -> Axes:
    """A grid of pictures with row and column labels.

    Args:
        images: ``(rows, columns, H, W, 3)`` uint8.
        cell: width of a picture on paper, inches.
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
    size = (cell * canvas.shape[1] / width + margin, cell * canvas.shape[0] / width + 0.5)
    figure, axes = plt.subplots(figsize=size)
    axes.imshow(canvas, interpolation="auto")
    axes.set_xticks(left + width / 2, columns)
    axes.set_yticks(top + height / 2, rows)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.set_dpi(PICTURE_DPI)
    return axes


def heading(axes: Axes, text: str, place: float, up: float) -> None:
    """A bold text over some columns of an ``image_grid``, ``up`` points above it."""
    axes.annotate(
        text, (place, 0), (0, up), xycoords="data", textcoords="offset points", ha="center", fontweight="bold"
    )


def spread(count: int, width: float) -> Sequence[float]:
    """Where ``count`` things stand side by side, from ``-width`` to ``width``; one stands in the middle."""
    return np.linspace(-width, width, count) if count > 1 else (0.0,)
