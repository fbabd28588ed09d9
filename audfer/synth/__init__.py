"""The embedded benchmark: faces rendered from action units, written in the layouts of the real datasets."""

from __future__ import annotations

from .layouts import STAMP, is_written, read_truth, read_truth_landmarks, write_benchmark
from .plans import ALL, SynthConfig, planned_counts
from .population import PRESENT, planted_medians, planted_presence_rates, rate_adjustments, source_presence_rates
from .truth import drawn_landmarks, embedded_points

__all__ = [
    "ALL",
    "PRESENT",
    "STAMP",
    "SynthConfig",
    "drawn_landmarks",
    "embedded_points",
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


def __getattr__(name: str):
    if name == "rendered_clips":  # what renders needs torch, which takes seconds to import
        from .batch import rendered_clips

        return rendered_clips
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
