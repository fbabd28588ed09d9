"""Summaries over several networks and datasets: interquartile mean and probability of improvement.

Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement learning at the edge of the statistical
precipice", NeurIPS 2021, sections 4.2 and 4.3, as their library rliable has them. A *task* is a network on a dataset,
a run is one seed of it; intervals draw runs again within each task, so they are about seeds, and about the clips at
hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from ..errors import refuse
from .metrics import Interval
from .resampling import DRAWS, LEVEL, SEED, limits, multiplicities

METHOD = "bootstrap of runs within tasks"


def interquartile_mean(runs, axis: int = -1) -> np.ndarray:
    """The mean without the lowest and the highest quarter of all runs, rounded down to whole runs."""
    return scipy.stats.trim_mean(runs, 0.25, axis=axis)


def aggregates(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], draws: int = DRAWS, level: float = LEVEL
) -> dict[str, Interval]:
    """What two variants reach over all tasks, and how often the second is better.

    Args:
        first, second: scores in 0..1 of every task's runs; tasks in the same order, any number of runs in each.

    Returns:
        "first" and "second", their interquartile means; "difference", second minus first; "improvement", the chance
        that a run of the second beats a run of the first on the same task, mean over tasks, ties count half.

    Raises:
        InputError: no task, another number of tasks, or a task without runs.

    Example:
        >>> found = aggregates([[0.50, 0.52], [0.60, 0.61]], [[0.55, 0.56], [0.60, 0.61]], draws=500)
        >>> found["improvement"].value                                           # 1 on the first task, 1/2 on the other
        0.75
    """
    tasks = len(first), len(second)
    problems = [
        (tasks[0] != tasks[1] or not tasks[0], "tasks", f"{tasks[0]} and {tasks[1]}", "as many of both, one or more")
    ]
    problems += [(not all(map(len, (*first, *second))), "runs", "a task without any", "one or more for each task")]
    refuse("aggregates", problems)
    generator = np.random.default_rng(SEED)

    def sample(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The runs as they are and drawn again, (draws + 1, runs), and how often each is in each."""
        times = np.vstack([np.ones(len(runs)), multiplicities(len(runs), draws, generator)])
        return np.repeat(np.tile(runs, len(times)), times.ravel().astype(int)).reshape(times.shape), times

    pairs = [
        (np.asarray(ours, np.float64), np.asarray(theirs, np.float64))
        for ours, theirs in zip(first, second, strict=True)
    ]
    means, wins = [[], []], []
    for pair in pairs:
        (drawn, times), (their_drawn, their_times) = map(sample, pair)
        means[0].append(drawn)
        means[1].append(their_drawn)
        better = (np.sign(pair[1] - pair[0][:, None]) + 1) / 2
        wins.append(((times @ better) * their_times).sum(axis=1) / better.size)
    means = [interquartile_mean(np.concatenate(variant, axis=1)) for variant in means]
    values = {
        "first": means[0],
        "second": means[1],
        "difference": means[1] - means[0],
        "improvement": np.mean(wins, axis=0),
    }
    runs = sum(map(len, (*first, *second)))
    return {
        name: Interval(every[0], *limits(every[1:], level), count=runs, method=METHOD, level=level)
        for name, every in values.items()
    }
