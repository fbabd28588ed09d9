"""Matrices over expressions (rows) and AUs (columns): as tidy rows, and how alike two of them are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy

from ..errors import InputError
from ..facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS


def matrix(values, name: str = "", column: str = "value") -> pd.DataFrame:
    """A matrix over expressions and AUs as rows ``source, expression, action_unit, value``.

    Args:
        values: ``(7, 18)`` in ``ACTION_UNITS`` order or ``(7, 17)`` in ``INTENSITY_ACTION_UNITS`` order; NaN =
            unknown.
        name: goes to ``source`` (a dataset, "ours", "paper").
    """
    array = np.asarray(values, float)
    columns = {len(ACTION_UNITS): ACTION_UNITS, len(INTENSITY_ACTION_UNITS): INTENSITY_ACTION_UNITS}
    if array.ndim != 2 or array.shape[0] != len(EXPRESSIONS) or array.shape[1] not in columns:
        raise InputError("matrix", name or "values", f"shape {array.shape}", "(7, 18) or (7, 17)")
    units = columns[array.shape[1]]
    return pd.DataFrame(
        {
            "source": name,
            "expression": np.repeat(EXPRESSIONS, len(units)),
            "action_unit": np.tile(units, len(EXPRESSIONS)),
            column: array.ravel(),
        }
    )


def matrices(named: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Several matrices below each other: ``{"DFEW": (7, 17) array, ...}`` as in ``matrix``."""
    columns = ["source", "expression", "action_unit", "value"]
    parts = [matrix(values, name) for name, values in named.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def measured(values) -> np.ndarray:
    """A ``(7, 18)`` matrix without AU28, whose column is made up, not measured (EQUATIONS.md 1); ``(7, 17)`` stay."""
    array = np.asarray(values, float)
    known = [ACTION_UNITS.index(au) for au in INTENSITY_ACTION_UNITS]
    return array[:, known] if array.shape[1] == len(ACTION_UNITS) else array


def rank_correlations(first, second) -> pd.Series:
    """Spearman's rank correlation of two matrices: one per expression, and ``"overall"`` over all ``measured`` cells.

    NaN where a row is constant or has fewer than three known cells.
    """
    a, b = measured(first), measured(second)

    def spearman(x, y) -> float:
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
            return float("nan")
        return float(scipy.stats.spearmanr(x[known], y[known]).statistic)

    rows = {name: spearman(a[k], b[k]) for k, name in enumerate(EXPRESSIONS)}
    return pd.Series({**rows, "overall": spearman(a.ravel(), b.ravel())}, name="rank correlation")
