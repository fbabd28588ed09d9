"""What an extractor is given: a video, a folder of pictures, or a clip of a packed store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets.manifest import (
    Manifest,
    first_number,
    frame_number,
    frame_numbers,
    is_video,
    list_frames,
    resized,
    stream_frames,
)
from ..datasets.packing import PackedClips, open_packed
from ..errors import refuse
from ..files import digest
from ..openface import AUTrack

#: how far the last row may be from the last frame: less than 24 is from 25 frames a second; and rows after a take's
#: last picture or label, because faces may be lacking there
_SLACK, _TAIL = 0.02, 0.15


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

    def own_numbers(self) -> np.ndarray:
        """The numbers in the names of a folder's pictures, from 1, int (n,); by position where a name has none."""
        names, shift = list_frames(self.path), 1 - first_number(self.path)
        return np.array(
            [numbers[-1] + shift if (numbers := frame_number(name)[0]) else i for i, name in enumerate(names, 1)]
        )

    def rows_of_frames(self, track: AUTrack) -> tuple[np.ndarray, str]:
        """Which row of somebody's CSV belongs to each picture or video frame of the source.

        As many rows as frames belong together in order: the pictures' string order where OpenFace read a folder of
        names without leading zeros. Otherwise a row belongs to the picture of its number, if the rows end about where
        the pictures do.

        Args:
            track: of the whole file, counted from 1.

        Returns:
            (n,) numbers of rows, some of which the track may lack; and in a word how they were found.

        Raises:
            InputError: neither fits: the rows are those of another version of the clip.
        """
        source, last = track.report["path"], int(track.frame[-1])
        given, noted = track.report["source"], Path(track.report["source"]).name == self.path.name
        first = next(self.manifest().table.itertuples(index=False))
        count = len(frame_numbers(self.manifest(), first._replace(start=0, stop=-1)))
        places, how, slack = np.arange(1, count + 1), "in order", max(1, int(_SLACK * count))
        if not is_video(self.path):
            names, own = list_frames(self.path), self.own_numbers()
            holes = bool((np.diff(own) > 0).all()) and own[-1] - own[0] >= count
            offset = own[0] > 1 and not holes and abs(last - count) > slack
            of_folder = not is_video(given) and (noted or track.report["timestamp"] == "unusable")
            if last != count and (holes or offset):
                refuse(source, [(of_folder, "rows", last, f"{count}, one per picture of {self.path}")])
                places, how = own, "by number"
            # our own extraction offers pictures as links with padded names
            elif sorted(names) != names and not is_video(given) and "audfer_" not in given:
                problem = f"{last} for {count} pictures, {sorted(names)[1]} the second in string order"
                problem += "" if of_folder else ", and nothing says which order they were read in"
                expected = "one row per picture, and names padded with zeros or OpenFace's own note beside the file"
                refuse(source, [(not of_folder or last != count, "rows", problem, expected)])
                places, how = np.argsort(np.argsort(names)) + 1, "string order"
        # frames at a take's end may have no picture; rows are left out where no face was
        labels = max(row["stop"] for row in self.rows)
        end = count if last == count else max(int(places[-1]), labels)
        late = max(slack, int(_TAIL * end)) if labels >= 0 else slack
        early = end if len(track.report["faces"]) > 1 else max(slack, track.report["gaps"])
        expected = f"{end}, for the {count} frames of {self.path} (or is it another version, another frame rate?)"
        refuse(source, [(not -early <= last - end <= late, "rows", f"rows numbered up to {last}", expected)])
        return places, how

    def cut(self, track: AUTrack, places: np.ndarray | None = None) -> dict[str, AUTrack]:
        """A track of the whole source as the rows' tracks.

        Frames are numbered as ``datasets.frame_numbers`` does, from 0; those that the track lacks are left out.

        Args:
            places: (n,) which row of the track, counted from 1, belongs to each picture or video frame; default: in
                their order.
        """
        video = is_video(self.path)
        if places is None:
            places = np.arange(1, (track.frame[-1] if video else len(list_frames(self.path))) + 1)
        own = np.zeros(0) if video else self.own_numbers() - 1
        tracks = {}
        for row in self.manifest().table.itertuples(index=False):
            numbers = np.arange(len(places)) if video or row.stop < 0 else own
            here = (numbers >= row.start) & ((row.stop < 0) | (numbers < row.stop)) & np.isin(places, track.frame)
            tracks[row.clip_id] = some_rows(track, places[here] - track.frame[0], numbers[here])
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
