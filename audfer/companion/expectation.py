"""How long a run will take: before it starts, and while it goes.

What is known is how long each notebook took in an earlier run: the last one here (``reproduce.json``), or the one that
is committed with a profile's figures (``run.json``), made by maintainers on a machine whose speed stands beside it. A
probe of a second or two says how much faster or slower this machine is.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from ..files import write_json

#: file in a profile's figures that keeps the times of the run that made them
RUN = "run.json"


def probe() -> float:
    """Seconds that this machine takes for a fixed piece of arithmetic: the fastest of three, about a second in all."""
    generator = np.random.default_rng(0)
    frames = generator.random((64, 48 * 48), dtype=np.float32)
    weights = generator.random((48 * 48, 256), dtype=np.float32)

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(60):
            seen = np.maximum(frames @ weights, 0)
            np.sort((seen * 0.5 + seen**2).ravel())
        return time.perf_counter() - begin

    return min(once() for _ in range(3))


def keep(figures: Path, summary: dict) -> None:
    """Write a run's times beside its figures, for other machines.

    Args:
        summary: what ``reproduce`` recorded.
    """
    took = {run["name"]: round(run["seconds"], 1) for run in summary["notebooks"]}
    content = {
        "notebooks": took,
        "seconds": summary["seconds"],
        "machine": summary["machine"],
        "probe": round(probe(), 3),
    }
    write_json(figures / RUN, content)


class Expectation:
    """The time that a run will take, kept up to date by what its notebooks really take.

    Args:
        names: notebooks of this run.
        here: the profile's work folder. figures: its tables and figures.
    """

    def __init__(self, names: list[str], here: Path, figures: Path):
        before = _times(here / "reproduce.json")
        self.source = "the last run here" if before else ""
        if not before and (before := _times(figures / RUN)):
            speed = before.pop("probe", 0.0)
            share = probe() / speed if speed else 1.0
            before = {name: share * seconds for name, seconds in before.items()}
            self.source = (
                f"the published run on a machine {share:.1f} times as fast as this one" if speed else "another run"
            )
        whole, sums = before.pop("", 0.0), sum(before.values())
        self.seconds = {name: before[name] for name in names if name in before}
        self.known = len(self.seconds) == len(names) and sums > 0
        #: of the whole run, by the clock; notebooks run side by side
        self.whole = whole * sum(self.seconds.values()) / sums if self.known else 0.0
        self.start = time.monotonic()

    def left(self, done: dict[str, float], running: dict[str, float]) -> float | None:
        """Seconds until the end; ``None`` where nothing is known.

        Args:
            done: notebook -> seconds that it took. running: notebook -> seconds since it began.
        """
        if not self.known:
            return None
        elapsed, total = time.monotonic() - self.start, sum(self.seconds.values())
        through = sum(self.seconds[name] for name in done)
        through += sum(min(seconds, 0.95 * self.seconds[name]) for name, seconds in running.items())
        share = through / total if total else 1.0
        if share < 0.2:  # too early to go by this run's own pace
            return max(self.whole - elapsed, 0.0)
        return elapsed * (1 - share) / share


def _times(path: Path) -> dict[str, float]:
    """Notebook -> seconds, "" -> of the whole run, "probe" -> of the machine; {} where nothing readable is there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        took = content["notebooks"]
        took = took if isinstance(took, dict) else {run["name"]: run["seconds"] for run in took}
        return {**took, "": float(content["seconds"]), **({"probe": content["probe"]} if "probe" in content else {})}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
