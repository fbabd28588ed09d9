"""One progress bar for all places: a widget in JupyterLab, a bar in a terminal, plain lines in a log.

``AUDFER_PROGRESS`` chooses: ``bar`` (tqdm), ``lines`` (one line about every ten seconds and one at the end), ``off``.
Unset, a terminal and an interactive notebook get the bar and everything else (pipes, papermill, worker processes
whose output goes to a file) gets lines.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator

#: seconds between two lines of one progress
INTERVAL = 10.0
WIDTH = 79


def headless() -> bool:
    """Whether nobody can move a slider or watch a bar: under papermill, nbval, or ``AUDFER_HEADLESS=1``."""
    if os.environ.get("AUDFER_HEADLESS", "") not in ("", "0"):
        return True
    if "PYTEST_CURRENT_TEST" in os.environ or "PAPERMILL" in os.environ:
        return True
    return not in_notebook()


def in_notebook() -> bool:
    """Whether this code runs in a Jupyter kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def mode() -> str:
    """``bar``, ``lines`` or ``off``, as the environment and the place say."""
    chosen = os.environ.get("AUDFER_PROGRESS", "").strip().lower()
    if chosen in ("bar", "lines", "off"):
        return chosen
    if in_notebook():
        return "lines" if headless() else "bar"
    return "bar" if sys.stderr is not None and sys.stderr.isatty() else "lines"


class LineProgress:
    """The part of tqdm's interface that this package uses, printing plain lines to standard error.

    Work that ends within the first interval prints its closing line only, so that a log stays short.
    """

    def __init__(
        self,
        iterable: Iterable | None = None,
        total: int | None = None,
        desc: str = "",
        unit: str = "it",
        interval: float = INTERVAL,
        silent: bool = False,
    ):
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)
        self.iterable, self.total, self.desc, self.unit = iterable, total, desc, unit
        self.interval, self.silent = interval, silent
        self.n, self.note, self.closed = 0, "", False
        self.left: float | None = None
        self.start = self.last = time.monotonic()

    def __iter__(self) -> Iterator:
        try:
            for item in self.iterable:
                yield item
                self.update(1)
        finally:
            self.close()

    def __len__(self) -> int:
        return self.total or 0

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """Count ``n`` more; print a line if the last one is ``interval`` seconds old."""
        self.n += n
        now = time.monotonic()
        if now - self.last >= self.interval and self.n != self.total:
            self.last = now
            self._print(now - self.start)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Show ``text`` at the end of the next lines."""
        self.note = text

    def refresh(self) -> None:
        """Print a line if the last one is ``interval`` seconds old."""
        self.update(0)

    def close(self) -> None:
        """Print the closing line, once."""
        if not self.closed:
            self.closed = True
            self._print(time.monotonic() - self.start, closing=True)

    def _print(self, seconds: float, closing: bool = False) -> None:
        if self.silent:
            return
        count = f"{self.n:g}/{self.total:g} {self.unit}" if self.total else f"{self.n:g} {self.unit}"
        parts = [count, f"{clock(seconds)}"]
        left = self.left
        if left is None and self.total and self.n:
            left = seconds * (self.total - self.n) / self.n
        if not closing and left is not None:
            parts.append(f"about {clock(left)} left")
        if self.note:
            parts.append(self.note)
        line = (f"{self.desc}: " if self.desc else "") + ", ".join(parts)
        # one write per line: lines of several worker processes do not mix
        sys.stderr.write(line[:WIDTH] + "\n")
        sys.stderr.flush()


def progress(iterable: Iterable | None = None, total: int | None = None, desc: str = "", unit: str = "it", **options):
    """Wrap an iterable, or count by hand with ``update``; a drop-in for ``tqdm.auto.tqdm``.

    Args:
        iterable: what to go through; ``None`` to call ``update`` yourself.
        total: how many steps there are; taken from ``len(iterable)`` where that exists, unknown otherwise.
        desc: text at the front.
        unit: what is counted, for example ``"clip"``.
        **options: passed to tqdm in ``bar`` mode (``leave``, ``position`` ...); ``disable=True`` silences every mode.

    Example:
        >>> with progress(total=2, desc="clips", disable=True) as bar:
        ...     bar.update(2)
    """
    chosen = mode()
    if options.pop("disable", False) or chosen == "off":
        return LineProgress(iterable, total, desc, unit, silent=True)
    if chosen == "lines":
        return LineProgress(iterable, total, desc, unit)
    from tqdm.auto import tqdm

    return tqdm(iterable, total=total, desc=desc or None, unit=unit, dynamic_ncols=True, **options)


class GridProgress:
    """How far the cells of a grid are: done, running, failed, waited for, and the time left.

    A bar that follows, or lines: one when a cell has ended, otherwise one a minute. Each is at most one line of 80
        columns.

    Args:
        total: cells.
        desc: text at the front.
    """

    #: seconds between two lines while no cell ends
    PATIENCE = 60.0

    def __init__(self, total: int, desc: str):
        # tqdm's own estimate counts cells, and cells are of different length
        shape = {"bar_format": "{l_bar}{bar}| {n_fmt}/{total_fmt}, {elapsed}{postfix}"} if mode() == "bar" else {}
        self.bar = progress(total=total, desc=desc, unit="cells", **shape)

    def __enter__(self) -> GridProgress:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def show(
        self,
        done: int,
        running: int = 0,
        failed: int = 0,
        elsewhere: int = 0,
        left: float | None = None,
        note: str = "",
    ) -> None:
        """Bring it up to date.

        Args:
            done: cells that have ended, failed ones among them.
            running: cells in training now. elsewhere: those that another run is training.
            left: seconds; ``None`` = not known yet.
            note: further text, cut where the line ends.
        """
        states = {"running": running, "failed": failed, "elsewhere": elsewhere}
        counts = [f"{count} {name}" for name, count in states.items() if count]
        if isinstance(self.bar, LineProgress):
            self.bar.left = left
            # until a cell ends there is little to say
            self.bar.interval = INTERVAL if done > self.bar.n else self.PATIENCE
            self.bar.set_postfix_str(", ".join([*counts, *[note] * bool(note)]))
        else:
            time_left = [f"{clock(left)} left"] if left is not None and done < self.bar.total else []
            # the bar itself gives way to what is said, down to nothing
            self.bar.set_postfix_str(", ".join([*time_left, *counts]), refresh=False)
        self.bar.update(done - self.bar.n)
        self.bar.refresh()


def clock(seconds: float) -> str:
    """A duration as people read it: ``8 s``, ``2 min 05 s``, ``1 h 02 min``."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
