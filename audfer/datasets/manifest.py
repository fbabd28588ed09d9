"""The manifest: one row a clip, whatever the dataset; counts, checks, and reading the frames of a row."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
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
#: everything that Pillow raises about a broken file
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error,
                Image.DecompressionBombError)
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
            ``expression`` (index in ``classes``, -1 = unknown or outside them), ``subject`` ("" = unknown).
        dropped: label or reason -> how many clips (or frames, where it says so) of the source are not in the table.
        fold: which of the dataset's folds.
        classes: ``EXPRESSIONS``, and after them the further classes where a reader was asked to keep them.
        notes: what the reader chose, a sentence each (which subset, which split, which copy of the clips).
        repeated: (clip_id, split, split) of clips that a list names again; only with ``missing="keep"``, otherwise
            they are refused.
        listed_frames: clip_id -> number of frames that a split list promises, where it does.
        lists: split -> the file or folder that says which clips it has.
    """

    name: str
    root: Path
    table: pd.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)
    fold: int = 1
    classes: tuple[str, ...] = EXPRESSIONS
    notes: tuple[str, ...] = ()
    repeated: tuple[tuple[str, str, str], ...] = ()
    listed_frames: dict[str, int] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)

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
        """Clips by split (rows) and class (columns, ``classes`` order, then ``total``)."""
        known = self.table[self.table["expression"] >= 0]
        wide = pd.crosstab(known["split"], known["expression"]).reindex(
            index=[s for s in ("train", "test") if s in set(self.table["split"])],
            columns=range(len(self.classes)),
            fill_value=0,
        )
        wide.columns = pd.Index(self.classes, name="expression")
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
            clips to be judged). RAVDESS, whose design is fixed, is compared with 8 clips an actor (neutral 4) of
            each channel that is there (song has no surprise and no disgust, and actor 18 sang nothing).
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
            for expression in self.classes:
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
            return self._ravdess_design(split), 0
        counts = published_counts(self.name, split, self.fold, self.classes)
        if counts is None or exact:
            return counts, 0
        whole = sum(counts.values())
        return {expression: count / whole * total for expression, count in counts.items()}, 1

    def _ravdess_design(self, split: str) -> dict[str, int]:
        rows = self.table[self.table["split"] == split]
        channel = rows["clip_id"].str[3:5]
        expected = dict.fromkeys(self.classes, 0)
        for code, silent in (("01", ()), ("02", ("surprise", "disgust"))):
            actors = rows.loc[channel == code, "subject"].nunique()
            for name in set(self.classes) - set(silent):
                expected[name] += actors * (4 if name == "neutral" else 8)
        return expected

    def fingerprint(self) -> str:
        """Digest of the table, the number of frame files of each clip and their sizes: changes when the data changes.

        Sizes are read from the file system; the files are not opened.
        """
        hasher = hashlib.sha256(json.dumps([self.name, self.fold]).encode())
        hasher.update(self.table.to_csv(index=False).encode())
        for path in dict.fromkeys(self.table["path"]):
            full = self.root / path
            try:
                with os.scandir(full) as entries:
                    sizes = [
                        e.stat().st_size for e in entries if os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES
                    ]
                hasher.update(f"{len(sizes)} {sum(sizes)};".encode())
            except NotADirectoryError:
                hasher.update(f"{full.stat().st_size};".encode())
            except OSError:
                hasher.update(b"absent;")
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


def published_counts(
    name: str, split: str, fold: int, classes: tuple[str, ...] = EXPRESSIONS
) -> dict[str, int] | None:
    """Class -> clips that the papers' lists have, or ``None`` where nothing is published.

    AFEW's test set is its published validation set; with more than seven classes MAFW is compared with all eleven.
    """
    published_split = "validation" if (name, split) == ("AFEW", "test") else split
    try:
        counts = dict(paper.class_counts(name, published_split, fold))
    except InputError:
        return None
    further = classes[len(EXPRESSIONS) :]
    if further:
        rows = paper.load("class_counts")
        rows = rows[(rows["dataset"] == name) & (rows["split"] == split) & (rows["fold"] == str(fold))]
        for label, clips in zip(rows["label"].str.lower(), rows["clips"]):
            if label in further:
                counts[label] = int(clips)
    return counts if set(counts) == set(classes) else None


def frame_number(path: str | os.PathLike) -> tuple:
    """Sort key of a frame file: its numbers ("10.jpg" after "2.jpg"; "7_12.jpg" by 7, then 12), then its name."""
    stem = Path(path).stem
    # a run of digits longer than any frame number is a date or a hash: as text it would not fit an integer for ever
    return tuple(int(digits[-18:]) for digits in re.findall(r"[0-9]+", stem)), stem


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
    if not os.path.isdir(folder):
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


def is_video(path: str | os.PathLike) -> bool:
    """Whether the name is that of a video file."""
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


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
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise InputError(path, "video", f"unreadable ({error})", "a video with at least one frame") from error
    if not pictures or (needed is not None and len(pictures) < len(needed)):
        raise InputError(path, "frames", f"{len(pictures)} of those wanted", "a video with all frames")
    return np.stack([pictures[n] for n in (sorted(pictures) if wanted is None else wanted.tolist())])


@lru_cache(maxsize=65536)
def _video_length(path: str, modified: int) -> int:
    return video_shape(path)[0]


def video_shape(path: str | os.PathLike, decode: bool = False) -> tuple[int, tuple[int, int]]:
    """(frames, (width, height)) of a video.

    Frames are its packets: the count in the header is what the writer promised, and a truncated file still promises it.

    Args:
        decode: decode every frame instead of counting packets.

    Raises:
        InputError: no video that can be read, or no frames.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            shape = stream.width, stream.height
            if decode:
                count = sum(1 for _ in container.decode(stream))
            else:
                count = sum(1 for packet in container.demux(stream) if packet.size)
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise InputError(path, "video", f"unreadable ({error})", "a video with at least one frame") from error
    if not count:
        raise InputError(path, "video", "no frames", "a video with at least one frame")
    return count, shape


def frame_numbers(manifest: Manifest, row) -> np.ndarray:
    """0-based numbers of the frames that a clip really has, int (n,).

    For a whole clip 0..n-1 in order; for a span of a long take (Aff-Wild2) the frame's number in the take, missing
    ones left out. This is the ``frame`` under which the clip's AU records are stored.

    Raises:
        InputError: no folder, no frames, unreadable video.
    """
    row = manifest.row(row)
    if not is_video(row.path):
        return _frames_of(manifest, row)[1]
    path = manifest.root / row.path
    if not os.path.isfile(path):
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
    if is_video(row.path):
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
            cache[index] = read_image(path, shape)
            shape = shape or cache[index].shape[1::-1]
    return np.stack([cache[index] for index in indices.tolist()])


def read_image(path: str | os.PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """One picture, uint8 (H, W, 3) RGB, resized to ``shape`` (width, height) if given.

    Raises:
        InputError: it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if shape is not None:
                image.draft("RGB", shape)  # lets the JPEG decoder skip detail that would be averaged away
            return _resize(image.convert("RGB"), shape)
    except IMAGE_ERRORS as error:
        raise InputError(path, "image", f"unreadable ({error})", "a picture that Pillow can decode") from error


def _resize(image: Image.Image, shape: tuple[int, int] | None) -> np.ndarray:
    if shape is not None and image.size != tuple(shape):
        image = image.resize(
            shape, Image.Resampling.BILINEAR
        )  # Pillow widens the filter when it shrinks: antialiased
    return np.asarray(image)
