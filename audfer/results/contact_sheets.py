"""The rendered faces: every action unit at graded intensity, and the seven expressions over time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..synth.sheets import contact_sheet
from .builder import Result, output
from .drawing import heading, image_grid

_sheet = lru_cache(maxsize=1)(contact_sheet)


@output("contact_sheet_action_units", "01_au_extraction", elsewhere=True)
def contact_sheet_action_units(study, seed: int = 3) -> Result:
    """Can one name the AU from the picture? ``seed``: which identities are shown."""
    sheet = _sheet(seed)
    caption = (
        "Rendered faces: where each of the 18 AUs acts, at intensities 0, 3 and 5 (left to right in each block), on "
        "the same three people."
    )
    return Result("contact_sheet_action_units", sheet_data(sheet), caption, draw=lambda _: draw_action_units(sheet))


@output("contact_sheet_expressions", "01_au_extraction", elsewhere=True)
def contact_sheet_expressions(study, seed: int = 3) -> Result:
    """Onset, apex and offset of the seven expressions; ``seed``: which identity is shown."""
    sheet = _sheet(seed)
    caption = "Rendered faces: prototypes of the seven expressions from onset over apex to offset."
    return Result("contact_sheet_expressions", sheet_data(sheet), caption, draw=lambda _: draw_expressions(sheet))


def sheet_data(sheet: Mapping) -> pd.DataFrame:
    """What ``synth.contact_sheet``'s pictures show, and how far each differs from its row's first picture.

    Returns:
        One row per picture: kind ("action unit" or "expression"), row, person, strength (AU intensity 0 to 5, or
        strength of the expression 0 to 1), change (mean absolute difference of pixels, 0 to 255).
    """
    units, films = (np.asarray(sheet[name], np.float32) for name in ("action_units", "expressions"))
    rows = []
    for i, name in enumerate(sheet["action_unit_rows"]):
        for j, person in enumerate(sheet["identity_labels"]):
            for k, intensity in enumerate(sheet["intensity_columns"]):
                change = np.abs(units[i, j, k] - units[i, j, 0]).mean()
                rows.append(("action unit", name, person, float(intensity), float(change)))
    for i, name in enumerate(sheet["expression_rows"]):
        for k, strength in enumerate(sheet["moment_columns"]):
            change = np.abs(films[i, k] - films[i, 0]).mean()
            rows.append(("expression", name, "", float(strength), float(change)))
    return pd.DataFrame(rows, columns=["kind", "row", "person", "strength", "change"])


def draw_action_units(sheet: Mapping) -> Axes:
    """A row per AU, a block of columns per person."""
    pictures = sheet["action_units"]  # (18, people, intensities, H, W, 3)
    units, people, steps = pictures.shape[:3]
    names = [label.replace(" ", "\n", 1) for label in sheet["action_unit_rows"]]
    columns = list(sheet["intensity_columns"]) * people
    flat = pictures.reshape(units, people * steps, *pictures.shape[3:])
    axes = image_grid(flat, names, columns, cell=0.8, block=steps)
    for k, person in enumerate(sheet["identity_labels"]):
        middle = np.mean(axes.get_xticks()[k * steps : (k + 1) * steps])
        heading(axes, f"{person}, intensity (0 to 5)", middle, 18)
    return axes


def draw_expressions(sheet: Mapping) -> Axes:
    """A row per expression; column labels are the strength of the expression."""
    columns = [f"{float(value):.1f}" for value in sheet["moment_columns"]]
    axes = image_grid(sheet["expressions"], sheet["expression_rows"], columns, cell=0.95)
    axes.set_xlabel("time →   (above: strength of the expression, 0 to 1)")
    return axes
