"""The manifest: one row per clip, whatever the dataset; counts, checks, and reading the frames of a row."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from PIL.Image import Transpose

from .. import published as paper
from ..errors import InputError
from ..facs import EXPRESSIONS
from ..files import UNREADABLE, read_json, require_plain
from .registry import DATASETS

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
#: Pillow's names of what is opened, whatever a file is called: others may start programs (EPS: Ghostscript)
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF")
#: of a picture or a frame: a file of half a megabyte may unfold to gigabytes. A frame of an 8K video has fewer
MOST_PIXELS = 2**25
VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg"))
VIDEO_SUFFIXES |= {".mts", ".m2ts", ".ts", ".3gp", ".ogv", ".vob", ".asf", ".gif"}
#: formats of pictures that may move or have pages: which of them a frame would be is not said (MPO, phones' JPEG with a
#: second picture, is the first)
_ANIMATED = ("GIF", "WEBP", "PNG", "TIFF")
#: beginnings of names that file systems and archives leave behind: hidden (``._clip.mp4``), ``@eaDir``, ``__MACOSX``
LEFTOVERS = (".", "@", "#recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", "lost+found")
COLUMNS = ("clip_id", "path", "start", "stop", "split", "expression", "subject")
#: everything that Pillow raises about a broken file
IMAGE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)
#: EXIF's orientation -> what brings the picture upright; from 5 on its sides change places
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
#: the stamp that the embedded benchmark's writer leaves at the root of a dataset (``audfer.synth.STAMP``)
RENDERED_STAMP = "audfer_synth.json"


@dataclass
class Manifest:
    """Which clips a dataset has on disk, and what they show.

    Attributes:
        name: the dataset.
        root: the folder that ``path`` is relative to.
        table: one row per clip: ``clip_id`` (str, unique), ``path`` (a folder of images or a video), ``start`` and
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
        not_read: file among the clips -> why nobody took it for one.
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
    not_read: dict[str, str] = field(default_factory=dict)

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
        return (self.root / RENDERED_STAMP).is_file()

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

    def check(self) -> pd.DataFrame:
        """Counts beside the published ones, with a verdict per row.

        Returns:
            Columns split, expression, found, expected, difference, verdict: "as published", "differs", "nothing
            published". The embedded benchmark is compared by class frequencies (expected = published share of the clips
            that were asked for, off by at most one clip from rounding); there a verdict may also be "raised to the
            minimum" (a rare class that would have too few clips to be judged). RAVDESS, whose design is fixed, is
            compared with 8 clips per actor (neutral 4) of each channel that is there.
        """
        rows = []
        found = self.counts().drop(columns="total")
        for split in found.index:
            expected, allowed, minimum = self.expected(split) or {}, 0, None
            if self.embedded:
                total, minimum = self._asked(split, int(found.loc[split].sum()))
                whole, allowed = sum(expected.values()), 1
                expected = {expression: count / whole * total for expression, count in expected.items()}
            for expression in self.classes:
                here, wanted = int(found.loc[split, expression]), expected.get(expression)
                difference = None if wanted is None else here - wanted
                if wanted is None:
                    verdict = "nothing published"
                elif abs(difference) <= allowed:
                    verdict = "as published"
                else:
                    verdict = "raised to the minimum" if minimum == here > wanted else "differs"
                rows.append((split, expression, here, wanted, difference, verdict))
        table = pd.DataFrame(rows, columns=["split", "expression", "found", "expected", "difference", "verdict"])
        return table.astype({"expected": "Float64", "difference": "Float64"}).round({"expected": 2, "difference": 2})

    def expected(self, split: str) -> dict[str, float] | None:
        """Class -> clips that a whole copy of the dataset has; ``None`` where nothing is published."""
        own = DATASETS[self.name].expected
        return own(self, split) if own else published_counts(self.name, split, self.fold, self.classes)

    def _asked(self, split: str, total: int) -> tuple[int, int | None]:
        """Clips asked of the embedded benchmark before rare classes were raised to a minimum, and that minimum."""
        try:
            config = read_json(self.root / RENDERED_STAMP)["config"]
            return int(config["counts"][split]), int(config["minimum"][split == "test"])
        except UNREADABLE:
            return total, None

    def fingerprint(self) -> str:
        """Digest of the table and of each clip's frame files: names, sizes and times of the last change.

        Sizes and times are read from the file system; the files are not opened. Copying a dataset may therefore change
        it: steps are made again, while records, which go by the packed clips' content, stay.
        """
        hasher = hashlib.sha256(json.dumps([self.name, self.fold]).encode())
        hasher.update(self.table.to_csv(index=False).encode())
        for path, stop in dict(zip(self.table["path"], self.table["stop"], strict=True)).items():
            full = self.root / path
            try:
                if stop >= 0 and not is_video(path) and first_number(full) == 0:
                    hasher.update(b"from 0;")
                with os.scandir(full) as entries:
                    states = [(entry.name, entry.stat()) for entry in entries if is_frame(entry)]
                for name, state in sorted(states, key=itemgetter(0)):
                    hasher.update(f"{name} {state.st_size} {state.st_mtime_ns};".encode(errors="surrogateescape"))
            except NotADirectoryError:
                hasher.update(f"{full.stat().st_size} {full.stat().st_mtime_ns};".encode())
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


def published_counts(name: str, split: str, fold: int, classes: tuple[str, ...] = EXPRESSIONS) -> dict[str, int] | None:
    """Class -> clips that the papers' lists have, or ``None`` where nothing is published.

    AFEW's test set is its published validation set; with more than seven classes MAFW is compared with all eleven.
    """
    if split == "test":
        split = DATASETS[name].published_test
    try:
        counts = dict(paper.class_counts(name, split, fold))
    except InputError:
        return None
    further = classes[len(EXPRESSIONS) :]
    rows = paper.load("class_counts").set_index(["dataset", "split", "fold"]).sort_index()
    for row in rows.loc[[(name, split, str(fold))]].itertuples() if further else ():
        if row.label.lower() in further:
            counts[row.label.lower()] = int(row.clips)
    return counts if set(counts) == set(classes) else None


def frame_number(path: str | os.PathLike) -> tuple:
    """Sort key of a frame file: its numbers ("10.jpg" after "2.jpg"; "7_12.jpg" by 7, then 12), then its name."""
    stem = Path(path).stem
    # a run of digits longer than any frame number is a date or a hash: as text it would not fit an integer for ever
    return tuple(int(digits[-18:]) for digits in re.findall(r"[0-9]+", stem)), stem


def list_frames(folder: str | os.PathLike) -> list[str]:
    """Names of the image files of a clip folder, by number; anything else in the folder is ignored."""
    with os.scandir(folder) as entries:
        return sorted((entry.name for entry in entries if is_frame(entry)), key=frame_number)


def is_frame(entry: os.DirEntry) -> bool:
    """Whether an entry of a clip's folder is one of its pictures."""
    picture = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
    # of a link that leads to itself is_dir itself is an error
    folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
    return picture and not entry.name.startswith(LEFTOVERS) and not folder


def first_number(folder: str | os.PathLike) -> int:
    """What the pictures of a take are numbered from: 0 where it or a take beside it has a picture 0, else 1.

    Its own pictures alone don't tell: no face may have been seen in the first.
    """
    folder = Path(folder)
    frames = _numbered(str(folder), folder.stat().st_mtime_ns)
    if any(number == 0 for _, number in frames):
        return 0
    name = Path(frames[0][0]) if frames else Path()
    stem, numbers = re.subn(r"[0-9]+(?=[^0-9]*$)", lambda digits: "0" * len(digits[0]), name.stem)
    return 1 - (numbers > 0 and _has_picture(str(folder.parent), stem, name.suffix))


@lru_cache(maxsize=1024)
def _has_picture(takes: str, stem: str, suffix: str) -> bool:
    """Whether a folder of takes has one with this picture, its last number with or without leading zeros."""
    names = {stem + suffix, re.sub("0+(?=[^0-9]*$)", "0", stem) + suffix}
    return any(os.path.exists(os.path.join(takes, take, name)) for take in os.listdir(takes) for name in names)


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
        # a span of a long take: a missing image is skipped, never shifted
        first = first_number(folder)
        kept = [(name, number - first) for name, number in frames if row.start <= number - first < row.stop]
        names, numbers = [name for name, _ in kept], np.array([number for _, number in kept], int)
    if not names:
        raise InputError(folder, "clip folder", "no frames", f"images of clip {row.clip_id}")
    return names, numbers


def is_video(path: str | os.PathLike) -> bool:
    """Whether the name is that of a video file."""
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def video_frames(path: str | os.PathLike, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(number, picture uint8 (H, W, 3)) of a video's frames in their order, one decoded at a time.

    Args:
        wanted: 0-based numbers of the frames to give; decoding ends with the last of them. ``None``: all there are.

    Raises:
        InputError: it cannot be read, or ends before a frame that is wanted.
    """
    needed = None if wanted is None else set(wanted)
    given, number = 0, -1
    with _opened(path) as container:
        for number, frame in enumerate(container.decode(video_stream(container))):
            if needed is None or number in needed:
                yield number, _turned(frame.to_ndarray(format="rgb24"), _display_matrix(frame))
                given += 1
            if needed is not None and given == len(needed):
                break
    if needed is not None and given < len(needed):
        raise _frames_lacking(path, number + 1)


def _display_matrix(frame) -> np.ndarray:
    """How a decoded frame is to be shown, int32 (2, 2): a stored point (x, y) moves to (x, y) @ matrix."""
    known = frame.side_data.get("DISPLAYMATRIX")
    return np.eye(2, dtype=np.int32) if known is None else np.frombuffer(known, np.int32).reshape(3, 3)[:2, :2]


def _turned(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) as its display matrix wants it, to the nearest quarter turn."""
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        picture, matrix = picture.transpose(1, 0, 2), matrix[::-1]
    down, right = (-1 if turned < 0 else 1 for turned in (matrix[1, 1], matrix[0, 0]))
    return np.ascontiguousarray(picture[::down, ::right])


@contextmanager
def _opened(path: str | os.PathLike):
    """A video's container; whatever goes wrong with it is one sentence."""
    import av

    try:
        require_plain(path)
        with av.open(str(path)) as container:
            for stream in container.streams.video:
                _require_size(stream.width, stream.height)
            yield container
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, "video", f"unreadable ({error})", "a video with at least one frame") from error


def video_stream(container):
    """The video stream; a picture of the cover is none."""
    attached = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
    videos = [one for one in container.streams.video if not int(getattr(one, "disposition", 0)) & attached]
    if not videos:
        raise ValueError("no video stream in it" + ", only sound" * bool(container.streams.audio))
    return videos[0]


def _frames_lacking(path: str | os.PathLike, count: int) -> InputError:
    return InputError(path, "frames", f"{count}, fewer than are wanted", "a video with all frames")


@lru_cache(maxsize=65536)
def _length_at(path: str, modified: int) -> int:
    return video_shape(path)[0]


def video_length(path: str | os.PathLike) -> int:
    """Frames of a video as ``video_shape`` counts them; counted once for as long as the file is not written again.

    Raises:
        InputError: no such file, unreadable, or no frames.
    """
    try:
        return _length_at(str(path), os.stat(path).st_mtime_ns)
    except OSError as error:
        raise InputError(path, "video", error.strerror or error, "a video that can be read") from None


def video_shape(path: str | os.PathLike, decode: bool = False) -> tuple[int, tuple[int, int]]:
    """(frames, (width, height) as shown) of a video.

    Frames are its packets: the count in the header is what the writer promised, and a truncated file still promises it.
    Only the first is decoded, for its display matrix.

    Args:
        decode: decode every frame instead of counting packets.

    Raises:
        InputError: no video that can be read, or no frames.
    """
    with _opened(path) as container:
        stream = video_stream(container)
        frames = container.decode(stream) if decode else container.demux(stream)
        # an edit list cuts frames off that the decoder needs and does not show
        count = sum(decode or bool(each.size and not each.is_discard) for each in frames)
        shape = stream.width, stream.height
    if not count:
        raise InputError(path, "video", "no frames", "a video with at least one frame")
    try:
        with _opened(path) as container:
            matrix = _display_matrix(next(container.decode(video_stream(container))))
    except (InputError, StopIteration):  # damaged: whoever reads its pictures says so
        return count, shape
    return count, shape[::-1] if abs(matrix[0, 1]) > abs(matrix[0, 0]) else shape


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
    length = video_length(path)
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
        where, found = manifest.root / row.path, f"{indices.min()}..{indices.max()}"
        raise InputError(where, "frame index", found, f"0..{len(numbers) - 1}")
    path, pictures = manifest.root / row.path, {}
    if is_video(row.path):
        indices = numbers[indices]
        # resized as they come: a whole take as it is stored would not fit into memory
        for number, picture in video_frames(path, indices.tolist()):
            pictures[number] = picture if size is None else resized(picture, size)
    else:
        names, shape = _frames_of(manifest, row)[0], None if size is None else (size, size)
        for index in dict.fromkeys(indices.tolist()):
            pictures[index] = read_image(path / names[index], shape)
            shape = shape or pictures[index].shape[1::-1]
    return np.stack([pictures[index] for index in indices.tolist()])


def stream_frames(manifest: Manifest, size: int | None = None) -> Iterator[tuple[int, int, np.ndarray]]:
    """The frames of all rows of a manifest, one in memory at a time.

    The same pictures and numbers as ``load_frames`` and ``frame_numbers`` give. Rows that are cut from one video are
    read in one pass over it, so that frames of different rows may take turns; a row's own frames come in order.

    Args:
        size: side to resize to; default as stored (a folder's frames are resized to its first one's).

    Yields:
        (position of the row in ``manifest.table``, frame number, uint8 (H, W, 3) RGB).

    Raises:
        InputError: as ``load_frames``; what came before a broken frame has been given by then.
    """
    shape = None if size is None else (size, size)
    rows = list(manifest.table.itertuples(index=False))
    sources: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        sources.setdefault(row.path, []).append(position)
    for name, positions in sources.items():
        path = manifest.root / name
        if is_video(name):
            spans = [(position, frame_numbers(manifest, rows[position])) for position in positions]
            lacking = next((position for position, numbers in spans if not len(numbers)), None)
            if lacking is not None:
                raise InputError(
                    path, "frames", f"none from {rows[lacking].start} on", f"those of clip {rows[lacking].clip_id}"
                )
            ends = [(position, int(numbers[0]), int(numbers[-1])) for position, numbers in spans]
            last, found = max(end for _, _, end in ends), -1
            for found, picture in video_frames(path):
                inside = [position for position, first, end in ends if first <= found <= end]
                if inside and size is not None:
                    picture = resized(picture, size)
                yield from ((position, found, picture) for position in inside)
                if found == last:
                    break
            if found < last:  # the packets promised more
                raise _frames_lacking(path, found + 1)
            continue
        for position in positions:
            shown = shape
            names, numbers = _frames_of(manifest, rows[position])
            for file, number in zip(names, numbers.tolist(), strict=True):
                picture = read_image(path / file, shown)
                shown = shown or picture.shape[1::-1]
                yield position, number, picture


def picture_sizes(manifest: Manifest, row, numbers: np.ndarray) -> np.ndarray:
    """(width, height) of frames of a clip as they lie on disk, int (n, 2).

    Args:
        numbers: (n,) of ``frame_numbers``, repeats allowed.

    Raises:
        InputError: no such clip, frame or picture.
    """
    row = manifest.row(row)
    if is_video(row.path):
        return np.tile(video_shape(manifest.root / row.path)[1], (len(numbers), 1))
    names, known = _frames_of(manifest, row)
    files, sizes = dict(zip(known.tolist(), names, strict=True)), {}
    for number in np.unique(numbers).tolist():
        if number not in files:
            expected = f"one of clip {row.clip_id}'s {len(files)} frames"
            raise InputError(manifest.root / row.path, "frame", number, expected)
        with _picture(manifest.root / row.path / files[number]) as image:
            sizes[number] = upright_size(image)
    return np.array([sizes[number] for number in np.asarray(numbers).tolist()])


def open_image(file) -> Image.Image:
    """A picture of which only the header has been read.

    Raises:
        ValueError: it has more pixels than ``MOST_PIXELS``. Any of ``IMAGE_ERRORS``: no picture of ``IMAGE_FORMATS``.
    """
    image = Image.open(file, formats=IMAGE_FORMATS)
    _require_size(*image.size)
    return image


def _require_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MOST_PIXELS:,}")


@contextmanager
def _picture(path: str | os.PathLike):
    """An image file; whatever goes wrong with it is one sentence."""
    try:
        require_plain(path)
        with open_image(path) as image:
            if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"{image.n_frames} pictures in one file")
            yield image
    except IMAGE_ERRORS as error:
        raise InputError(path, "image", f"unreadable ({error})", "a picture that Pillow can decode") from error


def _orientation(image: Image.Image, quick: bool = False) -> int:
    """EXIF's, 1 to 8; 1 where there is none or it is damaged; ``quick``: no PNG is decoded to look for it."""
    if quick and image.format == "PNG" and "exif" not in image.info:
        return 1
    if image.format not in ("JPEG", "MPO"):
        image.load()  # elsewhere EXIF may follow the pixels
    try:
        return image.getexif().get(0x0112, 1)
    except IMAGE_ERRORS:
        return 1


def upright_size(image: Image.Image, quick: bool = False) -> tuple[int, int]:
    """(width, height) of an opened image as it is to be looked at."""
    return image.size[::-1] if _orientation(image, quick) in (5, 6, 7, 8) else image.size


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode in RGB; 16 bits are scaled to 8, where Pillow would cut off what exceeds 255."""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"grey values from {deep.min()} to {deep.max()}, more than 16 bits")
        image = Image.fromarray((deep / 257).round().astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("grey values that are no whole numbers: what is white is not said")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def read_image(path: str | os.PathLike, shape: tuple[int, int] | None = None) -> np.ndarray:
    """One picture, upright as EXIF says, uint8 (H, W, 3) RGB, resized to ``shape`` (width, height) if given.

    Raises:
        InputError: it cannot be decoded.
    """
    with _picture(path) as image:
        orientation = _orientation(image)
        if shape is not None:
            # lets the JPEG decoder skip detail that would be averaged away
            image.draft("RGB", shape[::-1] if orientation in (5, 6, 7, 8) else shape)
        picture = _rgb(image)
        return resize_image(picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture, shape)


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 as ``load_frames`` resizes it, (size, size, 3)."""
    return picture if picture.shape[:2] == (size, size) else resize_image(Image.fromarray(picture), (size, size))


def resize_image(image: Image.Image, shape: tuple[int, int] | None) -> np.ndarray:
    """An image as uint8 (H, W, 3), of ``shape`` (width, height) if given: antialiased bilinear."""
    if shape is not None and image.size != tuple(shape):
        image = image.resize(shape, Image.Resampling.BILINEAR)  # Pillow widens the filter when it shrinks: antialiased
    return np.asarray(image)
