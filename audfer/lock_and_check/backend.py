"""Lock and Check as an extractor: ``audfer au extract --backend lac``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..action_units.backends import estimated_track, failures, in_child, written
from ..action_units.clips import Clip
from ..errors import InputError
from ..facs import ACTION_UNITS
from ..files import digest, file_digest
from ..jobs.processes import own_child
from ..openface import AUTrack


@dataclass(frozen=True)
class LAC:
    """Lock and Check's recogniser. What faces it is for, its weights decide (``Recogniser.description``).

    Frames are judged in the windows of ``Recogniser.predict``, while the clip is decoded (``streaming``). Several clips
    are taken at once (``extract_group``), because a forward pass over windows of several clips is faster.

    Attributes:
        folder: where ``Recogniser.save`` put it.
        device, precision: as in ``Recogniser.judge``.
        batch: windows per forward pass, of several clips where they are short.
    """

    folder: str
    device: str = "cpu"
    precision: str = "float32"
    batch: int = 8
    name, packed = "lac", True

    @property
    def group(self) -> int:
        """Clips of one job: enough short ones for some full batches, few enough that a kill costs little."""
        return 4 * self.batch

    @property
    def trained_on(self) -> str:
        """What faces the weights are for."""
        from .training import Recogniser

        return Recogniser.load(self.folder).description.get("trained_on", "rendered faces")

    def settings(self) -> dict:
        # where it runs and how many windows at a time does not change the result
        weights = digest([file_digest(path) for path in sorted(Path(self.folder).glob("recogniser.*"))])
        return {"backend": self.name, "weights": weights, "precision": self.precision}

    def check(self) -> None:
        from .training import Recogniser

        if self.batch < 1:
            raise InputError("command line", "--batch", self.batch, "at least one window")
        units = Recogniser.load(self.folder).action_units
        if strange := [name for name in units if name not in ACTION_UNITS]:
            raise InputError(
                Path(self.folder, "recogniser.json"),
                "action_units",
                ", ".join(strange),
                f"those of an AU table: {', '.join(ACTION_UNITS)}",
            )

    def extract(self, clip: Clip, seconds: float) -> dict[str, AUTrack]:
        return in_child(_recognise_one, self, clip, seconds=seconds)

    def extract_group(self, clips: Sequence[Clip], seconds: float) -> Iterator[tuple[int, dict[str, AUTrack]]]:
        with failures():
            yield from own_child().stream(_recognise, self, list(clips), seconds=seconds)


@lru_cache(maxsize=2)
def _recogniser(folder: str, when: tuple[int, ...]):
    import torch

    from .training import Recogniser

    torch.set_num_threads(1)
    return Recogniser.load(folder)


def _recognise_one(backend: LAC, clip: Clip) -> dict[str, AUTrack]:
    return next(_recognise(backend, [clip], refuse=True))[1]


def _recognise(backend: LAC, clips: list[Clip], refuse: bool = False) -> Iterator[tuple[int, dict[str, AUTrack]]]:
    """Tracks of each clip as it is done; a clip that cannot be read is left out, or with ``refuse`` its error is
    raised.
    """
    from .streaming import judge_streams

    recogniser = _recogniser(backend.folder, written(backend.folder))
    streams = ((position, clip.stream(recogniser.image_size)) for position, clip in enumerate(clips))
    mode = f"windows of {recogniser.window} frames"
    for position, judged in judge_streams(
        recogniser, streams, device=backend.device, precision=backend.precision, batch=backend.batch
    ):
        if isinstance(judged, InputError):
            if refuse:
                raise judged
            continue
        yield (
            position,
            {
                name: estimated_track(*recogniser.calibrated(values)[:2], numbers, "LAC", mode)
                for name, (numbers, values) in judged.items()
            },
        )
