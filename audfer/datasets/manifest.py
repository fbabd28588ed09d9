"""The manifest: one row a clip, whatever the dataset; counts, checks, and reading the frames of a row."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .. import published as paper
from ..errors import InputError
from ..facs import EXPRESSIONS

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp"))
VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mkv", ".mov"))
COLUMNS = ("clip_id", "path", "start", "stop", "split", "expression", "subject")
#: the stamp that the embedded benchmark's writer leaves at the root of a dataset (``audfer.synth.STAMP``)
_RENDERED_STAMP = "audfer_synth.json"


@dataclass
class Manifest:
    """Which clips a dataset has on disk, and what they show.

    Attributes:
        name: the dataset.
        root: the folder that ``path`` is relative to.
        table: one row a clip: ``clip_id`` (str, unique), ``path`` (a folder of images or a video), ``start`` and
            ``stop`` (span of frame numbers, 0-based, half open; 0 and -1 mean all), ``split`` ("train", "test"),
            ``expression`` (index in ``EXPRESSIONS``, -1 = unknown or outside the seven), ``subject`` ("" = unknown).
        dropped: label or reason -> how many clips (or frames, where it says so) of the source are not in the table.
        fold: which of the dataset's folds.
    """

    name: str
    root: Path
    table: pd.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)
    fold: int = 1

    def __post_init__(self):
        self.root = Path(self.root)
        self.table = self.table.loc[:, list(COLUMNS)].reset_index(drop=True)
        twice = self.table["clip_id"][self.table["clip_id"].duplicated()]
        if len(twice):
            raise InputError(
                self.root,
                f"clips of {self.name}",
                f"{len(twice)} listed twice (first: {twice.iloc[0]})",
                "every clip once, in one split",
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def embedded(self) -> bool:
        """Whether this is the rendered counterpart rather than the real dataset."""
        return (self.root / _RENDERED_STAMP).is_file()

    def counts(self) -> pd.DataFrame:
        """Clips by split (rows) and expression (columns, ``EXPRESSIONS`` order, then ``total``)."""
        seven = self.table[self.table["expression"] >= 0]
        wide = pd.crosstab(seven["split"], seven["expression"]).reindex(
            index=[s for s in ("train", "test") if s in set(self.table["split"])],
            columns=range(len(EXPRESSIONS)),
            fill_value=0,
        )
        wide.columns = pd.Index(EXPRESSIONS, name="expression")
        return wide.assign(total=wide.sum(axis=1))

    def check(self, published: bool | None = None) -> pd.DataFrame:
        """Counts beside the published ones, with a verdict a row.

        Args:
            published: compare clip for clip (``True``), or only the class frequencies (``False``: expected =
                published share of the clips found here, off by at most one clip from rounding); default: frequencies
                for the embedded benchmark, else counts.

        Returns:
            Columns split, expression, found, expected, difference, verdict: "as published", "differs", "nothing
            published", or, in the embedded benchmark, "raised to the minimum" (a rare class that would have too few
            clips to be judged). RAVDESS, whose design is fixed, is compared with 8 clips an actor (neutral 4) of the
            speech channel.
        """
        if published is None:
            published = not self.embedded
        rows = []
        found = self.counts().drop(columns="total")
        for split in found.index:
            total, minimum = int(found.loc[split].sum()), None
            if not published and self.name in ("DFEW", "FERV39k", "MAFW"):
                total, minimum = self._asked(split, total)
            expected, allowed = self._expected(split, published, total)
            for expression in EXPRESSIONS:
                here = int(found.loc[split, expression])
                wanted = expected.get(expression) if expected else None
                difference = None if wanted is None else here - wanted
                verdict = (
                    "nothing published"
                    if wanted is None
                    else (
                        "as published"
                        if abs(difference) <= allowed
                        else "raised to the minimum" if minimum == here > wanted else "differs"
                    )
                )
                rows.append((split, expression, here, wanted, difference, verdict))
        table = pd.DataFrame(rows, columns=["split", "expression", "found", "expected", "difference", "verdict"])
        return table.astype({"expected": "Float64", "difference": "Float64"}).round({"expected": 2, "difference": 2})

    def _asked(self, split: str, total: int) -> tuple[int, int | None]:
        """Clips asked of the embedded benchmark before rare classes were raised to a minimum, and that minimum."""
        try:
            config = json.loads((self.root / _RENDERED_STAMP).read_text())["config"]
            return int(config["counts"][split]), int(config["minimum"][split == "test"])
        except (OSError, ValueError, KeyError):
            return total, None

    def _expected(self, split: str, exact: bool, total: int) -> tuple[dict[str, float] | None, float]:
        if self.name == "RAVDESS":
            actors = self.table.loc[self.table["split"] == split, "subject"].nunique()
            return {e: actors * (4 if e == "neutral" else 8) for e in EXPRESSIONS}, 0
        try:
            counts = paper.class_counts(self.name, split, self.fold)
        except InputError:
            return None, 0
        if exact:
            return counts, 0
        whole = sum(counts.values())
        return {expression: count / whole * total for expression, count in counts.items()}, 1

    def fingerprint(self) -> str:
        """Digest of the table, the number of frame files of each clip and their sizes: changes when the data changes.

        Sizes are read from the file system; the files are not opened.
        """
        hasher = hashlib.sha256(json.dumps([self.name, self.fold]).encode())
        hasher.update(self.table.to_csv(index=False).encode())
        for path in dict.fromkeys(self.table["path"]):
            full = self.root / path
            if full.is_dir():
                with os.scandir(full) as entries:
                    sizes = [e.stat().st_size for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES]
                hasher.update(f"{len(sizes)} {sum(sizes)};".encode())
            else:
                hasher.update(f"{full.stat().st_size};".encode())
        return hasher.hexdigest()[:16]

    def row(self, row) -> pd.Series:
        """A row of the table: by position, by clip_id, or passed through (a Series or an ``itertuples`` tuple)."""
        if isinstance(row, (int, np.integer)):
            return self.table.iloc[int(row)]
        if isinstance(row, str):
            found = self.table[self.table["clip_id"] == row]
            if found.empty:
                raise InputError(self.root, "clip_id", repr(row), f"a clip of {self.name}")
            return found.iloc[0]
        return row


def frame_number(path: str | os.PathLike) -> tuple:
    """Sort key of a frame file: its numbers ("10.jpg" after "2.jpg"; "7_12.jpg" by 7, then 12), then its name."""
    stem = Path(path).stem
    return tuple(int(digits) for digits in re.findall(r"\d+", stem)), stem


def list_frames(folder: str | os.PathLike) -> list[str]:
    """Names of the image files of a clip folder, by number; anything else in the folder is ignored."""
    with os.scandir(folder) as entries:
        names = [
            e.name for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES and not e.name.startswith(".")
        ]
    return sorted(names, key=frame_number)


@lru_cache(maxsize=65536)
def _numbered(folder: str, modified: int) -> tuple[tuple[str, int], ...]:
    """(name, last number in the name) of each frame; cached by the folder's modification time."""
    out = []
    for position, name in enumerate(list_frames(folder)):
        numbers = frame_number(name)[0]
        out.append((name, numbers[-1] if numbers else position + 1))
    return tuple(out)


def _frames_of(manifest: Manifest, row) -> tuple[list[str], np.ndarray]:
    """(image names, 0-based frame numbers) of a row whose path is a folder."""
    folder = manifest.root / row.path
    if not folder.is_dir():
        raise InputError(folder, "clip", "no such folder or video", f"the frames of clip {row.clip_id}")
    frames = _numbered(str(folder), folder.stat().st_mtime_ns)
    if row.stop < 0:
        # a whole clip: frames count by position, because releases number from 0 or from 1, sometimes with gaps
        names, numbers = [name for name, _ in frames], np.arange(len(frames))
    else:
        # a span of a long take: image n is annotation row n (from 1); a missing image is skipped, never shifted
        kept = [(name, number - 1) for name, number in frames if row.start <= number - 1 < row.stop]
        names, numbers = [name for name, _ in kept], np.array([number for _, number in kept], int)
    if not names:
        raise InputError(folder, "clip folder", "no frames", f"images of clip {row.clip_id}")
    return names, numbers


def _is_video(path: str) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _decode(path: Path, wanted: np.ndarray | None) -> np.ndarray:
    """Frames of a video, uint8 (n, H, W, 3); ``wanted``: frame numbers, any order, repeats allowed; None: all."""
    import av

    needed = None if wanted is None else set(wanted.tolist())
    pictures: dict[int, np.ndarray] = {}
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if needed is None or number in needed:
                    pictures[number] = frame.to_ndarray(format="rgb24")
                if needed is not None and len(pictures) == len(needed):
                    break
    except (OSError, ValueError, IndexError) as error:  # PyAV's errors derive from these
        raise InputError(path, "video", f"unreadable ({error})", "a video with at least one frame") from error
    if not pictures or (needed is not None and len(pictures) < len(needed)):
        raise InputError(path, "frames", f"{len(pictures)} of those wanted", "a video with all frames")
    return np.stack([pictures[n] for n in (sorted(pictures) if wanted is None else wanted.tolist())])


@lru_cache(maxsize=65536)
def _video_length(path: str, modified: int) -> int:
    import av

    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            # the header's count is what the muxer wrote; where it has none, count packets without decoding
            return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(path, "video", f"unreadable ({error})", "a video with at least one frame") from error


def frame_numbers(manifest: Manifest, row) -> np.ndarray:
    """0-based numbers of the frames that a clip really has, int (n,).

    For a whole clip 0..n-1 in order; for a span of a long take (Aff-Wild2) the frame's number in the take, missing
    ones left out. This is the ``frame`` under which the clip's AU records are stored.

    Raises:
        InputError: no folder, no frames, unreadable video.
    """
    row = manifest.row(row)
    if not _is_video(row.path):
        return _frames_of(manifest, row)[1]
    path = manifest.root / row.path
    if not path.is_file():
        raise InputError(path, "clip", "no such folder or video", f"the frames of clip {row.clip_id}")
    length = _video_length(str(path), path.stat().st_mtime_ns)
    return np.arange(row.start, length if row.stop < 0 else min(row.stop, length))


def load_frames(manifest: Manifest, row, indices=None, size: int | None = None) -> np.ndarray:
    """Frames of one clip.

    Args:
        manifest: the dataset.
        row: position in ``manifest.table``, clip_id, or a row of it.
        indices: positions among the clip's frames (0 .. n-1, any order, repeats allowed); default all.
        size: side to resize to (antialiased bilinear); default as stored (frames of other sizes are resized to the
            first one's).

    Returns:
        uint8 (n, H, W, 3), RGB.

    Raises:
        InputError: missing folder or video, no frames, an image that cannot be decoded, an index outside the clip.
    """
    row = manifest.row(row)
    numbers = frame_numbers(manifest, row)
    indices = np.arange(len(numbers)) if indices is None else np.asarray(indices, int)
    if len(indices) and (indices.min() < 0 or indices.max() >= len(numbers)):
        raise InputError(
            manifest.root / row.path, "frame index", f"{indices.min()}..{indices.max()}", f"0..{len(numbers) - 1}"
        )
    if _is_video(row.path):
        pictures = _decode(manifest.root / row.path, numbers[indices])
        if size is None or pictures.shape[1:3] == (size, size):
            return pictures
        return np.stack([_resize(Image.fromarray(picture), (size, size)) for picture in pictures])
    names = _frames_of(manifest, row)[0]
    cache: dict[int, np.ndarray] = {}
    shape = None if size is None else (size, size)
    for index in indices.tolist():
        if index not in cache:
            path = manifest.root / row.path / names[index]
            try:
                with Image.open(path) as image:
                    if shape is not None:
                        image.draft("RGB", shape)  # lets the JPEG decoder skip detail that would be averaged away
                    cache[index] = _resize(image.convert("RGB"), shape)
            except (OSError, ValueError, SyntaxError) as error:
                raise InputError(
                    path, "image", f"unreadable ({error})", "a picture that Pillow can decode"
                ) from error
            shape = shape or cache[index].shape[1::-1]
    return np.stack([cache[index] for index in indices.tolist()])


def _resize(image: Image.Image, shape: tuple[int, int] | None) -> np.ndarray:
    if shape is not None and image.size != tuple(shape):
        image = image.resize(
            shape, Image.Resampling.BILINEAR
        )  # Pillow widens the filter when it shrinks: antialiased
    return np.asarray(image)
