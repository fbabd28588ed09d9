"""What an extractor is given: a video, a folder of pictures, or a clip of a packed store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.manifest import Manifest, frame_number, is_video, list_frames, resized, stream_frames
from ..datasets.packing import PackedClips, open_packed
from ..files import digest
from ..openface import AUTrack


def some_rows(track: AUTrack, rows: np.ndarray, numbers: np.ndarray) -> AUTrack:
    """Some rows of a track, under other frame numbers."""
    kept = {name: getattr(track, name)[rows] for name in ("intensity", "presence", "ok", "timestamp")}
    return AUTrack(**kept, frame=numbers, report=track.report)


@dataclass(frozen=True)
class Clip:
    """One video or folder of pictures, and the manifest's rows that are cut from it (several windows of one take).

    Attributes:
        dataset, root: of the manifest.
        rows: the manifest's rows of this source, as dicts; all have the same ``path``.
    """

    dataset: str
    root: Path
    rows: tuple[dict, ...]

    @property
    def path(self) -> Path:
        """The video file or the folder."""
        return self.root / self.rows[0]["path"]

    @property
    def clip_ids(self) -> list[str]:
        """The manifest's names."""
        return [row["clip_id"] for row in self.rows]

    def manifest(self) -> Manifest:
        """The rows as a manifest of their own, for ``frame_numbers`` and ``load_frames``."""
        return Manifest(self.dataset, self.root, pd.DataFrame(self.rows))

    def stream(self, size: int) -> Iterator[tuple[str, int, np.ndarray]]:
        """(clip_id, frame number, picture uint8 (size, size, 3)) of every frame of the rows, one at a time."""
        names = self.clip_ids
        return ((names[row], number, picture) for row, number, picture in stream_frames(self.manifest(), size))

    def state(self) -> list:
        """Names and sizes of the files: what a result depends on."""
        if not self.path.is_dir():
            return [self.path.stat().st_size] if self.path.is_file() else []
        return [[name, os.path.getsize(self.path / name)] for name in list_frames(self.path)]

    def cut(self, track: AUTrack) -> dict[str, AUTrack]:
        """A track of the whole source, its frames counted from 1 in the order of the pictures, as the rows' tracks.

        Frames are numbered as ``datasets.frame_numbers`` does, from 0; those that the track lacks are left out.
        """
        pictures = None if is_video(self.path) else list_frames(self.path)
        tracks = {}
        for row in self.manifest().table.itertuples(index=False):
            if pictures is None:
                numbers = np.arange(row.start, track.frame[-1] if row.stop < 0 else row.stop)
                places = numbers + 1
            elif row.stop < 0:
                numbers, places = np.arange(len(pictures)), np.arange(1, len(pictures) + 1)
            else:
                last = np.array([(frame_number(name)[0] or (i + 1,))[-1] for i, name in enumerate(pictures)]) - 1
                inside = (last >= row.start) & (last < row.stop)
                numbers, places = last[inside], np.flatnonzero(inside) + 1
            here = np.isin(places, track.frame)
            at = places[here] - track.frame[0]
            tracks[row.clip_id] = some_rows(track, at, numbers[here])
        return tracks


@dataclass(frozen=True)
class PackedClip(Clip):
    """One clip of a packed store: the frames that were stored of it.

    A store keeps some frames of every clip, spread over it, and a short clip's more than once; each is judged once.

    Attributes:
        position: in the store, whose folder is ``root``.
    """

    position: int = 0

    @property
    def path(self) -> Path:
        """The store's array."""
        return self.root / "frames.npy"

    def state(self) -> list:
        store = _store(str(self.root))
        return [digest(store.meta), store.frame_numbers[self.position].tolist()]

    def stream(self, size: int) -> Iterator[tuple[str, int, np.ndarray]]:
        store = _store(str(self.root))
        numbers, places = np.unique(store.frame_numbers[self.position], return_index=True)
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            yield self.clip_ids[0], number, resized(store.frames[self.position, place], size)


@lru_cache(maxsize=4)
def _store(folder: str) -> PackedClips:
    return open_packed(folder)


def sources(clips: Manifest | PackedClips) -> list[Clip]:
    """The single sources of a dataset on disk (videos, folders) or of a packed store (its clips), in order."""
    if isinstance(clips, PackedClips):
        folder = Path(clips.frames.filename).parent.absolute()
        return [
            PackedClip(clips.meta["dataset"], folder, (row,), position)
            for position, row in enumerate(clips.manifest.to_dict("records"))
        ]
    by_path: dict[str, list[dict]] = {}
    for row in clips.table.to_dict("records"):
        by_path.setdefault(row["path"], []).append(row)
    root = Path(clips.root).absolute()
    return [Clip(clips.name, root, tuple(rows)) for rows in by_path.values()]
