"""Panels that more than one figure of Lock and Check draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...facs import ACTION_UNITS
from ...results.drawing import spread
from .judged import MEAN


def unit_axis(axes: Axes, places: Sequence[float], names: Sequence[str] = ACTION_UNITS) -> None:
    """Names of AUs below, and horizontal lines."""
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
    axes.grid(axis="y")


def networks_by_unit(
    data: pd.DataFrame,
    value: str,
    *,
    gap: float,
    width: float,
    height: float,
    colours: Mapping[str, str],
    factor: float = 1,
) -> tuple[Figure, Axes, dict[str, float]]:
    """A dot with its interval for every AU and network; networks without a colour of their own are grey dashes.

    Args:
        data: network, action_unit, low, high, and ``value``, which are drawn times ``factor``.
        gap: before the means. width: between the first and the middle network. height: of the figure, inches.

    Returns:
        Also AU -> its place on the x axis.
    """
    units, names = (list(dict.fromkeys(data[column])) for column in ("action_unit", "network"))
    place = {unit: k + gap * unit.startswith(MEAN) for k, unit in enumerate(units)}
    figure, axes = plt.subplots(figsize=(8.6, height))
    for shift, name in zip(spread(len(names), width), names, strict=True):
        part, own = data[data["network"] == name], name in colours
        at, colour = part["action_unit"].map(place) + shift, colours.get(name, "#BBBBBB")
        axes.vlines(at, factor * part["low"], factor * part["high"], color=colour, linewidth=2, alpha=0.5)
        look = {"marker": "o" if own else "_", "markersize": 4 if own else 7, "color": colour, "label": name}
        axes.plot(at, factor * part[value], linestyle="none", **look)
    unit_axis(axes, list(place.values()), units)
    return figure, axes, place


def draw_boxes(axes: Axes, boxes: np.ndarray, colour: str, linewidth: float) -> None:
    """Frames around boxes (n, 4), x0, y0, x1, y1 in pixels."""
    for x0, y0, x1, y1 in boxes:
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=linewidth)
        axes.add_patch(frame)


def overlay(picture: np.ndarray, grown: np.ndarray, strongest: float) -> np.ndarray:
    """A face in light greys with a map laid over it, the stronger the redder: (H, W, 3) uint8.

    Args:
        picture: (H, W, 3) uint8. grown: (H, W), 0 and above. strongest: value that is drawn fully.
    """
    strength = np.clip(grown / strongest if strongest > 0 else np.zeros_like(grown), 0, 1)
    colour, cover = plt.get_cmap("YlOrRd")(0.2 + 0.8 * strength)[..., :3], strength[..., None] ** 0.5
    grey = picture.mean(axis=2, keepdims=True)
    # dark skin or a dark background would swallow the map: every face has the same lightness and contrast
    low, high = np.quantile(grey, (0.02, 0.98))
    grey = 0.35 + 0.6 * np.clip((grey - low) / max(high - low, 1), 0, 1)
    mixed = grey * (1 - cover) + colour * cover
    return np.rint(255 * np.clip(mixed, 0, 1)).astype(np.uint8)


def map_grid(
    grid: np.ndarray,
    pictures: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    boxes: np.ndarray,
    titles: Sequence[str],
    strongest: Callable[[str, int], float],
    linewidth: float,
) -> None:
    """Faces in the first row of panels, below them each network's maps over them; with the AU's regions.

    Args:
        grid: of panels, one row more than networks. pictures: n of (H, W, 3) uint8.
        maps: network -> (n, H, W). boxes: (n, 2, 4) in units of the side. titles: of the columns.
        strongest: network and column -> value of its map that is drawn fully.
        linewidth: of the regions.
    """
    for row, name in zip(grid, ("face", *maps), strict=True):
        for j, (axes, picture) in enumerate(zip(row, pictures, strict=True)):
            face, side = name == "face", picture.shape[0]
            shown = picture if face else overlay(picture, maps[name][j], strongest(name, j))
            axes.imshow(shown, interpolation="bilinear")
            draw_boxes(axes, boxes[j] * side - 0.5, "#56B4E9" if face else "#0072B2", linewidth)
            axes.set(xticks=(), yticks=(), xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, fontsize=8)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=7.5, loc="center")
