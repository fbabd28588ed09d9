"""The embedded benchmark: faces rendered from action units, written in the layouts of the real datasets."""

from __future__ import annotations

from .batch import rendered_clips
from .layouts import (
    ALL,
    STAMP,
    SynthConfig,
    is_written,
    planned_counts,
    read_truth,
    read_truth_landmarks,
    write_benchmark,
)
from .population import PRESENT, planted_medians, planted_presence_rates, rate_adjustments, source_presence_rates

__all__ = [
    "ALL",
    "PRESENT",
    "STAMP",
    "SynthConfig",
    "is_written",
    "planned_counts",
    "planted_medians",
    "planted_presence_rates",
    "rate_adjustments",
    "read_truth",
    "read_truth_landmarks",
    "rendered_clips",
    "source_presence_rates",
    "write_benchmark",
]
