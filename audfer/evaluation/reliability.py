"""Is a network right as often as it says?

Expected calibration error of the top probability (Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural
networks", ICML 2017) over bins of equally many clips, so that none holds a clip or two (Nixon and others, "Measuring
calibration in deep learning", CVPR Workshops 2019), beside what a perfectly calibrated network of the same confidences
would show on as many clips (consistency resampling: Broecker and Smith, "Increasing the reliability of reliability
diagrams", Weather and Forecasting 2007), and Brier's score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from .metrics import CLASSES, Interval, predictions, ratio, wilson_interval
from .resampling import LEVEL, SEED, blocks

BINS = 15
#: clips of a bin at least, where there are so many
FEWEST = 20


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as it says.

    Attributes:
        ece: expected calibration error, mean over clips of |accuracy - confidence| of the clip's bin, in [0, 1].
        ece_if_calibrated: 95 % limit of the same number for a network that is right exactly as often as it says, on
            as many clips: an ECE below it is no evidence of anything.
        brier: Brier's score summed over the classes, 0 (best) to 2, with its interval over clips.
        bins: the reliability diagram, one row per bin: low, high (of the top probability), clips, confidence, accuracy,
            accuracy_low, accuracy_high (Wilson).
        method: how the bins were made.
    """

    ece: float
    ece_if_calibrated: float
    brier: Interval
    bins: pd.DataFrame
    method: str


def calibration(
    record, protocol: str = "last", bins: int = BINS, level: float = LEVEL, draws: int = 2000
) -> Calibration:
    """Expected calibration error, reliability diagram and Brier's score of one record or of one cell's seeds.

    The bins are parts of the clips, sorted by their top probability; clips that say the same stay together. Seeds are
    averaged (each seed's clips fill the bins, and a bin's interval counts clips, not seeds times clips).

    Args:
        record: a run record or a sequence of records that differ by seed.
        protocol: see ``predictions``.
        bins: at most; fewer where a bin would have less than ``FEWEST`` clips.
        draws: simulated perfectly calibrated networks behind ``ece_if_calibrated``.
    """
    said = predictions(record, protocol)
    scores, right, seeds = said.scores.astype(float), said.right, len(said.seeds)
    confidence = np.take_along_axis(scores, said.predicted[..., None], axis=-1)[..., 0]
    parts = np.arange(1, (bins := max(1, min(bins, confidence.shape[-1] // FEWEST))) + 1) / bins
    ends = np.unique(np.quantile(confidence, parts, method="inverted_cdf")) if confidence.size else np.ones(1)
    place, bins = np.searchsorted(ends, confidence), len(ends)

    def mean_gap(outcome: np.ndarray) -> np.ndarray:
        """ECE, mean over seeds, for outcomes (..., S, N)."""
        total = np.zeros(outcome.shape[:-2])
        for seed in range(seeds):
            sums = (outcome[..., seed, :] - confidence[seed]) @ np.eye(bins)[place[seed]]
            total = total + np.abs(sums).sum(axis=-1)
        return total / max(confidence.size, 1)

    def by_bin(values: np.ndarray) -> np.ndarray:
        """Sums of clip-wise values (S, N) in each bin, mean over seeds."""
        return np.bincount(place.ravel(), weights=values.ravel(), minlength=bins) / seeds

    generator = np.random.default_rng(SEED)
    null = [
        mean_gap(generator.random((block, *confidence.shape)) < confidence) for block in blocks(draws, confidence.size)
    ]
    clips, hits = by_bin(np.ones_like(confidence)), by_bin(right)
    low, high = wilson_interval(hits, clips, level)
    table = pd.DataFrame(
        {
            "low": np.concatenate([[confidence.min(initial=1.0)], ends[:-1]]),
            "high": ends,
            "clips": clips,
            "confidence": ratio(by_bin(confidence), clips),
            "accuracy": ratio(hits, clips),
            "accuracy_low": low,
            "accuracy_high": high,
        }
    )
    squares = ((scores - np.eye(CLASSES)[said.expressions]) ** 2).sum(axis=-1).mean(axis=0)
    return Calibration(
        ece=float(mean_gap(right)),
        ece_if_calibrated=float(np.quantile(np.concatenate(null), level)),
        brier=_mean_interval(squares, level),
        bins=table,
        method=f"{bins} bins of equally many clips, by their top probability",
    )


def _mean_interval(values: np.ndarray, level: float) -> Interval:
    """Mean of clip-wise numbers with Student's interval."""
    mean = np.mean(values) if len(values) else np.nan
    few = len(values) < 2
    half = np.nan if few else scipy.stats.t.ppf(0.5 + level / 2, len(values) - 1) * scipy.stats.sem(values)
    return Interval(mean, mean - half, mean + half, len(values), "Student's t over clips", level)
