"""The regions of Table I on a face, and Table VIII: neither needs a record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ... import published
from ...facs import ACTION_UNIT_NAMES, ACTION_UNITS
from ...models.heads import weightless
from ...results.builder import Result, output
from ...results.drawing import PICTURE_DPI, legend_below, mark
from ...results.rows import text
from ...synth.face import render, sample_identities
from ...synth.scene import neutral_scene
from ..network import build_lac, lac_flops
from ..regions import BOX_SHARE, OURS, group_of, landmark_boxes
from .f1 import OWN, printed_units
from .judged import NOTEBOOK
from .plots import draw_boxes

TABLE_I = "LAC Table I"
_GROUP_COLOURS = {"upper": "#56B4E9", "middle": "#E69F00", "lower": "#CC79A7"}


def neutral_face(size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """A rendered face at rest: uint8 (size, size, 3), and its landmarks (68, 2) in units of the side."""
    pictures, landmarks = render(sample_identities(8, 0)[3], torch.zeros(1, len(ACTION_UNITS)), neutral_scene(1), size)
    return pictures[0].numpy(), landmarks[0].numpy() / size


def regions_plot(data: pd.DataFrame, picture: np.ndarray) -> Figure:
    """The two regions of every AU, drawn on one face; an AU that Table I lacks is marked.

    Args:
        data: action_unit, group, source, and the box's left, top, right and bottom in units of the side; two rows each.
        picture: (H, W, 3) uint8.
    """
    figure, grid = plt.subplots(3, 6, figsize=(8.8, 4.9))
    for axes, (unit, pair) in zip(grid.flat, data.groupby("action_unit", sort=False), strict=True):
        axes.set_axis_off()
        axes.imshow(picture, interpolation="bilinear")
        first = pair.iloc[0]
        boxes = pair[["left", "top", "right", "bottom"]].to_numpy() * picture.shape[0] - 0.5
        draw_boxes(axes, boxes, _GROUP_COLOURS.get(first["group"].split()[0].lower(), "#FFFFFF"), 1.8)
        axes.set_title(f"{unit}{'' if first['source'] == TABLE_I else ' *'}\n{ACTION_UNIT_NAMES[unit]}", fontsize=7)
    handles = [Line2D([], [], color=colour, label=f"{name} face") for name, colour in _GROUP_COLOURS.items()]
    legend_below(figure, [*handles, mark("not in Table I: chosen here", marker="$*$", color="#222222")])
    figure.set_dpi(PICTURE_DPI)
    return figure


@output("a3_regions", NOTEBOOK)
def method(study) -> Result:
    """The regions of Table I on a rendered face."""
    picture, landmarks = neutral_face()
    boxes = landmark_boxes(torch.from_numpy(landmarks)[None])[0].numpy()
    rows = [
        {
            "action_unit": unit,
            "group": group_of(unit),
            "source": "ours" if unit in OURS else TABLE_I,
            "region": number + 1,
            **dict(zip(("left", "top", "right", "bottom"), box, strict=True)),
        }
        for unit, pair in zip(ACTION_UNITS, boxes, strict=True)
        for number, box in enumerate(pair)
    ]
    caption = (
        f"The two regions of every AU on a rendered face (shares of the side in the csv): {TABLE_I}, whose 98 "
        f"landmarks are taken from 68 where they are not known; a region is {BOX_SHARE:g} distances of the eyes wide, "
        "which the paper does not say."
    )
    return Result("a3_regions", pd.DataFrame(rows), caption, draw=partial(regions_plot, picture=picture))


def cost_table(measured: Mapping[str, Mapping[str, float]], frames: int = 16) -> Result:
    """Table VIII: parameters and operations of a sequence, measured, beside the printed ones.

    Args:
        measured: method as printed ("Resnet50", "LAC (ours)") -> ``models.count_flops`` of it (``parameters``,
            ``gmacs``, ``gflops``).
        frames: of the sequence.
    """
    rows = published.load("lac_table8")
    tidy = pd.DataFrame(
        [measured.get(method, {}) for method in rows["method"]], columns=["parameters", "gmacs", "gflops"], dtype=float
    )
    tidy.insert(0, "method", rows["method"])
    tidy["paper_parameters_millions"], tidy["paper_gflops"] = rows["Params_M"], rows["FLOPs_G"]
    millions = tidy["parameters"] / 1e6
    tidy["parameters_off_percent"] = 100 * (millions / tidy["paper_parameters_millions"] - 1)
    tidy["gmacs_off_percent"] = 100 * (tidy["gmacs"] / tidy["paper_gflops"] - 1)
    shown = {
        "Parameters (M)": [text(value, digits=2) for value in millions],
        "paper's (M)": tidy["paper_parameters_millions"].map(text),
        "off (%)": [text(value, signed=True) for value in tidy["parameters_off_percent"]],
        "G multiply-adds": tidy["gmacs"].map(text),
        "GFLOPs": tidy["gflops"].map(text),
        "paper's G": tidy["paper_gflops"].map(text),
        "multiply-adds off (%)": [text(value, signed=True) for value in tidy["gmacs_off_percent"]],
    }
    caption = (
        f"LAC Table VIII: parameters and operations of a sequence of {frames} frames of 224 x 224, counted here. A "
        "multiply-add is two FLOPs; the paper prints one number and calls it FLOPs. Counted: convolutions, matrix "
        f"products and LSTMs of networks for the {len(printed_units(2))} AUs of BP4D. The other methods are not "
        "rebuilt here."
    )
    return Result("a3_table8_cost", tidy, caption, pd.DataFrame({"Method": rows["method"], **shown}))


@lru_cache(maxsize=None)
def paper_costs() -> dict[str, dict[str, float]]:
    """Paper-size networks of Table VIII that are rebuilt here, as printed there -> ``lac_flops``; for BP4D's AUs."""
    units = printed_units(2)
    with weightless():
        plain = build_lac("paper", action_units=units, lock=False, sequence=False)
        return {"Resnet50": lac_flops(plain), OWN: lac_flops(build_lac("paper", action_units=units))}


@output("a3_cost", NOTEBOOK)
def cost(study) -> Result:
    """Table VIII."""
    return cost_table(paper_costs())
