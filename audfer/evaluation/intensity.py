"""How well two series of AU intensities agree: Pearson's and intraclass correlation, with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .metrics import ratio
from .presence import F1_DRAWS
from .resampling import bootstrap, limits


def intensity_agreement(
    first: np.ndarray, second: np.ndarray, groups, draws: int = F1_DRAWS, **options
) -> pd.DataFrame:
    """Agreement of two sets of intensities, column by column.

    Args:
        first, second: (n, K), NaN where unknown: a row counts for a column where both are known.
        groups: (n,) subject, video or clip of each row, drawn again as a whole.
        **options: of ``multiplicities``.

    Returns:
        K rows: intensity_r (Pearson), intensity_r_low, intensity_r_high (95 % percentile interval), icc (ICC(3,1)),
        mean_absolute_error, difference (second minus first, mean). NaN where undefined: nothing known, constant values.
    """
    unit = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, rows = np.zeros((unit.max(initial=-1) + 1, first.shape[1], 6)), []
    for j, (a, b) in enumerate(zip(first.T.astype(np.float64), second.T.astype(np.float64), strict=True)):
        known = ~np.isnan(a) & ~np.isnan(b)
        a, b = a[known], b[known]
        row = {"icc": icc_3_1(a, b), "mean_absolute_error": np.nan, "difference": np.nan}
        if len(a):
            row |= {"mean_absolute_error": np.abs(a - b).mean(), "difference": (b - a).mean()}
            # centred, so that sums of squares keep their digits; no correlation changes
            x, y = a - a.mean(), b - b.mean()
            np.add.at(sums[:, j], unit[known], np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1))
        rows.append(row)
    low, high = limits(bootstrap(_pearson, sums, draws, **options))
    return pd.DataFrame(rows).assign(intensity_r=_pearson(sums.sum(axis=0)), intensity_r_low=low, intensity_r_high=high)


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
    return ratio(n * sxy - sx * sy, np.sqrt(np.maximum((n * sxx - sx**2) * (n * syy - sy**2), 0)))


def icc_3_1(x: np.ndarray, y: np.ndarray) -> float:
    """Intraclass correlation ICC(3,1) of two raters, consistency (Shrout and Fleiss 1979); NaN for fewer than two
    targets.
    """
    ratings = np.stack((x, y), axis=1).astype(np.float64)
    n = len(ratings)
    if n < 2:
        return float("nan")
    targets, raters, mean = ratings.mean(axis=1), ratings.mean(axis=0), ratings.mean()
    between = 2 * ((targets - mean) ** 2).sum() / (n - 1)
    error = ((ratings - targets[:, None] - raters + mean) ** 2).sum() / (n - 1)
    return float(ratio(between - error, between + error))
