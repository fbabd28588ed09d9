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

    def __init__(self, iterable: Iterable | None = None, total: int | None = None, desc: str = "", unit: str = "it",
                 interval: float = INTERVAL, silent: bool = False):
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)
        self.iterable, self.total, self.desc, self.unit = iterable, total, desc, unit
        self.interval, self.silent = interval, silent
        self.n, self.note, self.closed = 0, "", False
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

    def set_description(self, desc: str, refresh: bool = True) -> None:
        """Change the text at the front of the next lines."""
        self.desc = desc

    def set_postfix(self, refresh: bool = True, **values) -> None:
        """Show named values at the end of the next lines."""
        self.note = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Show ``text`` at the end of the next lines."""
        self.note = text

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
        if not closing and self.total and self.n:
            parts.append(f"about {clock(seconds * (self.total - self.n) / self.n)} left")
        if self.note:
            parts.append(self.note)
        line = (f"{self.desc}: " if self.desc else "") + ", ".join(parts)
        # one write a line: lines of several worker processes do not mix
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


def clock(seconds: float) -> str:
    """A duration as people read it: ``8 s``, ``2 min 05 s``, ``1 h 02 min``."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
