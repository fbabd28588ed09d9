"""Frames annotated with action units, DISFA's and BP4D's, behind one table: labels, pictures, landmarks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import InputError
from ..jobs.workers import IO_THREADS, chunks
from ..openface import AUTrack, read_openface
from ..progress import progress as progress_bar
from . import alignment
from .common import Listing, dataset_folder, known_name, listed, locate, make_manifest, read_lines, reader_choices
from .manifest import (
    IMAGE_SUFFIXES,
    RENDERED_STAMP,
    Manifest,
    is_video,
    read_image,
    resize_image,
    resized,
    video_frames,
)
from .registry import DATASETS, annotated_datasets

_ACTION_UNIT, _CODE = re.compile("AU[0-9]{2}"), re.compile("[0-9]{1,9}")
_NUMBERED = re.compile(
    rf"([0-9]+)[^0-9]*\.({'|'.join(suffix[1:] for suffix in sorted(IMAGE_SUFFIXES))})", re.IGNORECASE
)
#: pictures decoded at a time by the threads
_BATCH = 64


def read_annotated(name: str, root: str | os.PathLike, *, missing: str = "error", **choices) -> pd.DataFrame:
    """Every annotated frame of DISFA or BP4D.

    Args:
        name: of ``annotated_datasets``, any capitals.
        root: the dataset's folder or the one above it.
        missing: annotated frames without a picture: "error" refuses them, "drop" leaves them out and counts them.
        **choices: ``clips`` (DISFA: "frames" or "video").

    Returns:
        One row per frame, ordered by subject, sequence and frame, indexed from 0: ``dataset``, ``subject``,
        ``sequence``, ``path`` (a video or the frame's image, relative to the dataset's folder), ``frame``, ``fold``
        (1..3, the fold in which the subject is tested: no subject is in two), and one column per AU: DISFA's codes
        0..5, BP4D's 0 or 1, NaN where unknown. ``attrs``: dataset, folds (the rule), clips (which pictures these are),
        absent ((sequence, frames) without a picture), dropped (reason -> frames).

    Raises:
        InputError: as the dataset's reader; a choice that the dataset does not offer.
    """
    name = known_name(name, annotated_datasets(), "read_annotated")
    reader = DATASETS[name].annotation.read
    choices = reader_choices(name, reader, choices)
    if missing not in ("error", "drop"):
        raise InputError(f"read_annotated {name}", "missing", repr(missing), "error or drop")
    return reader(dataset_folder(root, name), missing, **choices)


def action_units_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The AUs that a table has columns for."""
    return tuple(column for column in table.columns if _ACTION_UNIT.fullmatch(column))


def annotated_labels(table: pd.DataFrame, action_units: tuple[str, ...]) -> np.ndarray:
    """Which AUs are present, (n, C) float32: 1, 0, or NaN where nobody coded it.

    DISFA: present from code 2 on, the literature's rule; BP4D: as coded. An AU without a column is unknown everywhere.

    Raises:
        InputError: a name that is no AU, or none of the AUs is annotated here.
    """
    for unit in action_units:
        if not _ACTION_UNIT.fullmatch(unit):
            raise InputError("annotated_labels", "action unit", repr(unit), "a name like AU01")
    known = action_units_of(table)
    if not set(action_units) & set(known):
        raise InputError("annotated_labels", "action units", ", ".join(action_units), f"some of {', '.join(known)}")
    thresholds = {name: DATASETS[name].annotation.present_from for name in table["dataset"].unique()}
    codes = table.reindex(columns=list(action_units)).to_numpy(np.float32)
    present = codes >= table["dataset"].map(thresholds).to_numpy()[:, None]
    return np.where(np.isnan(codes), np.nan, present).astype(np.float32)


def subject_manifest(table: pd.DataFrame, root: str | os.PathLike, fold: int = 1) -> Manifest:
    """A table's subjects as clips: one row per subject, expression -1; the test split is that of ``fold``."""
    listing = Listing(_dataset_of(table), dataset_folder(root, _dataset_of(table)), fold)
    add_subjects(listing, table)
    return make_manifest(listing)


def add_subjects(listing: Listing, table: pd.DataFrame) -> None:
    """``subject_manifest`` for a listing."""
    listing.notes += [table.attrs["folds"], table.attrs["clips"]]
    for row in table.drop_duplicates("subject").itertuples():
        path = row.path if is_video(row.path) else os.path.dirname(row.path)
        listing.add(row.subject, path, "test" if row.fold == listing.fold else "train", -1, subject=row.subject)


# --------------------------------------------------------------------------------------------- what the readers share


class Take(NamedTuple):
    """One sequence of a subject: its frames' numbers (n,), codes (n,) per AU, and pictures' paths ("": none)."""

    subject: str
    sequence: str
    frames: np.ndarray
    codes: dict[str, np.ndarray]
    paths: list[str]


def annotated_table(
    name: str, base: Path, takes: Iterable[Take], missing: str, clips: str, what: str, expected: str
) -> pd.DataFrame:
    """The table of ``read_annotated``.

    Args:
        takes: ordered by subject.
        clips: which pictures these are.
        what, expected: what the pictures are called, and where they should lie.

    Raises:
        InputError: frames without a picture, unless ``missing`` is "drop" and others have one.
    """
    annotation, takes = DATASETS[name].annotation, list(takes)
    published = () if (base / RENDERED_STAMP).is_file() else annotation.subjects
    folds, rule = _folds(sorted({take.subject for take in takes}), published, annotation.source)
    tables, absent = [], []
    for take in takes:
        there = np.array([bool(path) for path in take.paths], bool)
        if not there.all():
            absent.append((take.sequence, int((~there).sum())))
        columns = {"dataset": name, "subject": take.subject, "sequence": take.sequence}
        columns |= {"path": list(filter(None, take.paths)), "frame": take.frames[there], "fold": folds[take.subject]}
        tables.append(pd.DataFrame({**columns, **{unit: codes[there] for unit, codes in take.codes.items()}}))
    lost, total = sum(count for _, count in absent), sum(len(take.frames) for take in takes)
    if absent and (missing == "error" or lost == total):
        found = f"none for {lost} of {total} annotated frames (first: {absent[0][1]} of {absent[0][0]})"
        wayout = '; missing="drop" leaves such frames out' if lost < total else ""
        raise InputError(base, f"{what} of {name}", found, expected + wayout)
    table = pd.concat(tables, ignore_index=True)
    dropped = {"frames not on disk": lost} if lost else {}
    table.attrs = {"dataset": name, "folds": rule, "clips": clips, "absent": absent, "dropped": dropped}
    return table


def _folds(subjects: list[str], published: tuple[tuple[str, ...], ...], source: str) -> tuple[dict[str, int], str]:
    """The fold (from 1) in which each subject is tested, and a sentence about the rule."""
    folds = {subject: fold for fold, tested in enumerate(published, 1) for subject in tested}
    if folds and folds.keys() >= set(subjects):
        return folds, f"the subjects tested in each fold are those of {source}"
    stranger = next((subject for subject in subjects if subject not in folds), "")
    why = f": {stranger} is in no published list)" if folds else ")"
    rule = f"every third subject is tested in the same fold (audfer's rule{why}"
    return {subject: index % 3 + 1 for index, subject in enumerate(subjects)}, rule


def numbered_images(folder: Path, other: str = "") -> dict[int, str]:
    """Frame number -> name of a folder's images; the number is the last in the name, however many zeros it has.

    Args:
        folder: no folder gives nothing.
        other: a word in the names of images that are not meant (the other camera's).

    Raises:
        InputError: two images with the same number.
    """
    images: dict[int, str] = {}
    for name in listed(folder) if folder.is_dir() else ():
        match = _NUMBERED.search(name)
        # a run of digits longer than any frame number is a date or a hash
        if match is None or match.end() != len(name) or len(match[1]) > 9 or (other and other in name.lower()):
            continue
        if (twice := images.setdefault(int(match[1]), name)) != name:
            raise InputError(folder, f"image {int(match[1])}", f"{twice} and {name}", "one image a frame")
    return images


def code_table(path: Path, first: int, columns: int = 0, line: str = "") -> tuple[np.ndarray, list[str]]:
    """A file of whole numbers whose first column is the frame: int64 (n, columns), and the names in its header.

    Args:
        first: the lowest frame number that there can be.
        columns: of a file without a header. line: what its lines look like.

    Raises:
        InputError: no such file, no frames, a line that is not so many numbers, frame numbers that do not rise.
    """
    header, lines = not columns, read_lines(path, "AU file")
    names = [name.strip() for name in lines[0][1].split(",")] if header else [""] * columns
    rows = []
    for number, text in lines[header:]:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != len(names) or not all(map(_CODE.fullmatch, parts)):
            expected = line or f"{len(names)} whole numbers: frame and AU codes"
            raise InputError(path, f"line {number}", repr(text[:60]), expected)
        rows.append([int(part) for part in parts])
    if not rows:
        raise InputError(path, "frames", "none", "one line per frame below the header")
    cells = np.array(rows, np.int64)
    if (wrong := np.diff(cells[:, 0], prepend=first - 1) < 1).any():
        allowed = f"numbers from {first}, each higher than the last"
        raise wrong_code(path, cells, int(np.argmax(wrong)), 0, "frame", allowed, header)
    return cells, names


def wrong_code(
    path: Path, cells: np.ndarray, row: int, column: int, what: str, allowed: str, header: bool = False
) -> InputError:
    """The error about one cell of ``code_table``."""
    line = read_lines(path, "AU file")[row + header][0]
    return InputError(path, f"line {line}, {what}", int(cells[row, column]), allowed)


# ----------------------------------------------------------------------------------------------------------- pictures


def load_annotated_frames(
    root: str | os.PathLike,
    table: pd.DataFrame,
    size: int | None = None,
    *,
    align: bool = False,
    openface: str | os.PathLike | None = None,
    out: np.ndarray | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Pictures of a table's rows (all of ``read_annotated``'s or some, any order), uint8 (n, H, W, 3), rows aligned.

    A video is decoded once however many of its frames are wanted; images are read by several threads.

    Args:
        root: as for ``read_annotated``.
        size: side to resize to (antialiased; pictures that are not square are squeezed); default as stored (pictures of
            other sizes are resized to the first one's).
        align: cut the faces out with OpenFace's landmarks (``alignment.TEMPLATE``); DISFA's videos and BP4D's images
            show head and shoulders. Needs ``size``; frames without landmarks borrow the nearest frame's.
        openface: folder of OpenFace's CSVs (see ``openface_folder``).
        out: an array to write into, (n, size, size, 3), for example a memory map: all of DISFA at 224 pixels is 20 GB.
        progress: show a bar, in frames.

    Raises:
        InputError: a picture that is missing or cannot be decoded, ``align`` without ``size`` or without landmarks.
    """
    if not len(table):
        raise InputError(root, "frames", "an empty table", "rows of read_annotated")
    name = _dataset_of(table)
    base = dataset_folder(root, name)
    if align and size is None:
        raise InputError("load_annotated_frames", "size", "none with align", "the side to cut faces to")
    cuts = _cuts(base, name, table, openface) if align else None
    with progress_bar(total=len(table), desc=f"read {name}", unit="frame", disable=not progress) as bar:
        for rows, picture in _pictures(base, table["path"], table["frame"].to_numpy(), None if align else size):
            if cuts is not None:
                picture = alignment.cut(picture, *cuts[:, rows[0]], size)
            if out is None:
                height, width = (size, size) if size else picture.shape[:2]
                out = np.empty((len(table), height, width, 3), np.uint8)
            if picture.shape[:2] != out.shape[1:3]:
                picture = resize_image(Image.fromarray(picture), out.shape[2:0:-1])
            out[rows] = picture
            bar.update(len(rows))
    return out


def _pictures(base: Path, paths: pd.Series, frames: np.ndarray, size: int | None) -> Iterator[tuple[list, np.ndarray]]:
    """(rows that show it, picture) of every picture."""
    shape, images = None if size is None else (size, size), []
    for path, group in paths.reset_index(drop=True).groupby(paths.to_numpy(), sort=False).groups.items():
        if not is_video(path):
            images.append((base / path, group.to_numpy()))
            continue
        rows_of: dict[int, list[int]] = {}
        for row in group.tolist():
            rows_of.setdefault(int(frames[row]), []).append(row)
        for number, picture in video_frames(base / path, rows_of):
            yield rows_of[number], picture if size is None else resized(picture, size)
    with ThreadPoolExecutor(IO_THREADS) as pool:
        for part in chunks(images, _BATCH):
            pictures = pool.map(lambda item: read_image(item[0], shape), part)
            yield from ((rows, picture) for (_, rows), picture in zip(part, list(pictures), strict=True))


# ---------------------------------------------------------------------------------------------------------- landmarks


def annotated_landmarks(
    root: str | os.PathLike, table: pd.DataFrame, *, align: bool = False, openface: str | os.PathLike | None = None
) -> np.ndarray:
    """The 68 iBUG points of every row, float32 (n, 68, 2): x and y in units of the picture's sides (0..1), NaN unknown.

    They come from OpenFace's CSVs, one per sequence (``SN001.csv`` or the video's name; ``F001_T1.csv`` or
    ``F001/T1.csv``). Without a CSV, or where OpenFace lost the face, points are unknown. Points may lie outside the
    picture. Those that the embedded set was drawn from: ``synth.drawn_landmarks``.

    Args:
        root, table: as for ``load_annotated_frames``.
        align: in the faces that ``load_annotated_frames(align=True)`` cuts, rather than in the pictures as they are.
        openface: folder of OpenFace's CSVs (see ``openface_folder``).

    Raises:
        InputError: a folder given that does not exist, a CSV that cannot be read or has no landmarks.
    """
    name = _dataset_of(table)
    base = dataset_folder(root, name)
    landmarks = np.full((len(table), 68, 2), np.nan, np.float32)
    folder = openface_folder(base, name, openface)
    for _, rows, numbers, path in _tracks(base, table, folder) if folder else ():
        if path is None:
            continue
        track, size = _fitted(path, base / table["path"].iloc[rows[0]])
        known, points = alignment.points_of(track, numbers, path)
        points = points.astype(np.float64)
        if align:
            points = alignment.align(track, numbers[known], path).move(points)
        else:
            alignment.require_inside(points, size, path)
            points /= size
        landmarks[rows[known]] = points
    return landmarks


def openface_folder(base: Path, name: str, given: str | os.PathLike | None = None) -> Path | None:
    """The folder of OpenFace's CSVs: ``given``, or ``openface/<dataset>`` beside the dataset, or ``openface`` in it.

    Raises:
        InputError: the folder given does not exist.
    """
    if given is not None:
        if not os.path.isdir(given):
            raise InputError(given, "folder of OpenFace CSVs", "no such folder", "a folder with one CSV a sequence")
        return Path(given)
    return locate(base.parent, f"openface/{name}") or locate(base, "openface")


def _cuts(base: Path, name: str, table: pd.DataFrame, openface) -> np.ndarray:
    """How the face of each row is cut out, complex (2, n): ``Alignment.scale_turn`` and ``shift``."""
    folder = openface_folder(base, name, openface)
    if folder is None:
        expected = f"openface/{name} beside the dataset, or openface="
        raise InputError(base, "landmarks", "no folder of OpenFace's CSVs", expected)
    cuts = np.empty((2, len(table)), complex)
    for sequence, rows, numbers, path in _tracks(base, table, folder):
        if path is None:
            expected = f"{sequence.replace('/', '_')}.csv"
            raise InputError(folder, f"OpenFace file of sequence {sequence}", "none", expected)
        found = alignment.align(_fitted(path, base / table["path"].iloc[rows[0]])[0], numbers, path)
        cuts[:, rows] = found.scale_turn, found.shift
    return cuts


def _fitted(path: Path, picture: Path) -> tuple[AUTrack, tuple[int, int]]:
    """A sequence's file, its landmarks in pixels of its first picture; and this one's (width, height)."""
    first = next(video_frames(picture, (0,)))[1] if is_video(picture) else read_image(picture)
    size = first.shape[1::-1]
    return alignment.fitted(read_openface(path, require_presence=False), size, path), size


def _tracks(base: Path, table: pd.DataFrame, folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, Path | None]]:
    """(sequence, its rows, 0-based numbers under which OpenFace sees their frames: of a video, or position in a
    folder; OpenFace's file, named by the sequence or its video, or ``None``).
    """
    paths, frames = table["path"].to_numpy(), table["frame"].to_numpy()
    other = DATASETS[_dataset_of(table)].annotation.other_camera
    for sequence, rows in table.reset_index(drop=True).groupby("sequence", sort=False).groups.items():
        rows, first = rows.to_numpy(), Path(paths[rows[0]])
        file = alignment.track_file(folder, sequence)
        if is_video(first):
            yield sequence, rows, frames[rows], file or alignment.track_file(folder, first.stem)
            continue
        images = numbered_images((base / first).parent, other)
        order = {images[number]: position for position, number in enumerate(sorted(images))}
        yield sequence, rows, np.array([order[os.path.basename(path)] for path in paths[rows].tolist()]), file


def _dataset_of(table: pd.DataFrame) -> str:
    names = table["dataset"].unique() if "dataset" in table else ()
    if len(names) != 1:
        found = ", ".join(map(str, names)) or "none"
        raise InputError("annotated frames", "column dataset", found, "rows of one read_annotated")
    return names[0]
