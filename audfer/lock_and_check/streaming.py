"""Clips through Lock and Check's recogniser as they are decoded: few frames in memory, windows of many clips a forward
pass.

``Recogniser.predict`` judges the frames of one clip that are all there. Here a clip is a stream of pictures, and many
clips take turns; the windows are the same ones, so the values are the same up to rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from .training import Recogniser

#: pictures of a window (always ``length`` of them), and which of them count: they were judged by no window before
Window = tuple[list[np.ndarray], slice]


class WindowCutter:
    """Cuts the pictures of one clip as they come into the windows of ``windows.covering_windows``.

    Windows have ``length`` consecutive frames and stride ``length``. The last one is moved back so that it is whole;
    its first frames have been judged before. A clip shorter than ``length`` is one window with its last frame repeated.
    At most ``2 * length`` pictures are held.
    """

    def __init__(self, length: int):
        self.length = length
        self._before: list[np.ndarray] = []
        self._now: list[np.ndarray] = []

    def push(self, picture: np.ndarray) -> Window | None:
        """The next picture; gives a window when one is whole."""
        self._now.append(picture)
        if len(self._now) < self.length:
            return None
        self._before, self._now = self._now, []
        return self._before, slice(0, self.length)

    def end(self) -> Window | None:
        """The window of what is left after the last picture; ``None`` if every frame is in one."""
        new, self._now = self._now, []
        if not new:
            return None
        if not self._before:
            return new + new[-1:] * (self.length - len(new)), slice(0, len(new))
        return self._before[len(new) :] + new, slice(self.length - len(new), self.length)


@dataclass
class _Source:
    """One video or folder on its way: cutters, frame numbers and values so far of its clips, windows still to judge."""

    name: Hashable
    cutters: dict[Hashable, WindowCutter] = field(default_factory=dict)
    numbers: dict[Hashable, list[int]] = field(default_factory=dict)
    values: dict[Hashable, list[np.ndarray]] = field(default_factory=dict)
    waiting: int = 0

    def result(self) -> dict[Hashable, tuple[np.ndarray, np.ndarray]]:
        return {clip: (np.array(self.numbers[clip]), np.concatenate(self.values[clip])) for clip in self.cutters}


def judge_streams(
    recogniser: Recogniser,
    sources: Iterable[tuple[Hashable, Iterable]],
    *,
    device: str = "cpu",
    precision: str = "float32",
    batch: int = 8,
) -> Iterator[tuple[Hashable, dict | InputError]]:
    """Judge the frames of many sources with few of them in memory: those of ``batch`` windows and of what is being cut.

    Args:
        recogniser: a ``Recogniser``.
        sources: (name, frames) of each; frames gives (clip, frame number, picture) as
            ``datasets.manifest.stream_frames``: uint8 (side, side, 3) of the recogniser's ``image_size``, a clip's
            frames in order.
        device, precision: as in ``Recogniser.judge``.
        batch: windows a forward pass, of whichever clips.

    Yields:
        (name, what it gave), each source once and in order, when all its windows are judged. What it gave: clip ->
        (frame numbers int (n,), what ``Recogniser.judge`` gives for each, (n, ...)), or the ``InputError`` that ended
        its frames.
    """
    windows: list[tuple[_Source, Hashable, Window]] = []
    read: deque[tuple[_Source, InputError | None]] = deque()

    def judge() -> None:
        judged = recogniser.judge(np.stack([np.stack(pictures) for _, _, (pictures, _) in windows]), device, precision)
        for (source, clip, (_, counts)), values in zip(windows, judged, strict=True):
            source.values[clip].append(values[counts])
            source.waiting -= 1
        windows.clear()

    def add(source: _Source, clip: Hashable, window: Window | None) -> None:
        if window is not None:
            windows.append((source, clip, window))
            source.waiting += 1
            if len(windows) == batch:
                judge()

    def finished() -> Iterator[tuple[Hashable, dict | InputError]]:
        while read and not read[0][0].waiting:
            source, error = read.popleft()
            yield source.name, error or source.result()

    for name, frames in sources:
        source, error = _Source(name), None
        try:
            for clip, number, picture in frames:
                if clip not in source.cutters:
                    source.cutters[clip] = WindowCutter(recogniser.window)
                    source.numbers[clip], source.values[clip] = [], []
                source.numbers[clip].append(number)
                add(source, clip, source.cutters[clip].push(picture))
        except InputError as problem:
            error = problem
            windows[:] = [window for window in windows if window[0] is not source]
            source.waiting = 0
        else:
            for clip, cutter in source.cutters.items():
                add(source, clip, cutter.end())
        read.append((source, error))
        yield from finished()
    if windows:
        judge()
    yield from finished()
