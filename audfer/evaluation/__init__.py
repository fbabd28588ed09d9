"""How good a network is, how sure we can be of it, and whether two networks differ.

Everything here works on predictions, so any table can be rebuilt from run records alone. ``metrics`` has the metrics of
the paper (section 4.2) with their intervals, ``resampling`` the one bootstrap that every interval of resampled clips,
subjects or videos comes from, ``differences`` the comparison of two networks, ``reliability`` and ``presence`` the
scores and the AU head. Each says which method it uses, and from where.
"""

# ruff: noqa: F401
from .aggregates import aggregates, interquartile_mean
from .differences import (
    POWER,
    Comparison,
    compare,
    effective_count,
    holm,
    mcnemar,
    minimum_detectable_difference,
)
from .intensity import icc_3_1, intensity_agreement
from .metrics import (
    PROTOCOLS,
    Interval,
    Predictions,
    Summary,
    confusion_matrix,
    mean_of_known,
    mean_recall_interval,
    per_class_accuracy,
    predictions,
    proportion_interval,
    ratio,
    summary,
    uar,
    war,
    wilson_interval,
)
from .presence import au_quality, compare_f1, f1_intervals, presence_counts, presence_quality
from .reliability import Calibration, calibration
from .resampling import DRAWS, LEVEL, SEED, bootstrap, equal_shares, limits, multiplicities
