"""Frames annotated with action units, DISFA's and BP4D's, behind one table: labels, pictures, landmarks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import InputError
from ..jobs.workers import IO_THREADS
from ..openface import read_openface
from ..progress import progress as progress_bar
from . import alignment, bp4d, disfa
from .common import dataset_folder, known_name, locate, numbered_images, reader_choices
from .manifest import RENDERED_STAMP, is_video, read_image, resize_image, resized, video_frames

#: dataset -> reader of its annotated frames
READERS = {"DISFA": disfa.read_disfa, "BP4D": bp4d.read_bp4d}
#: dataset -> the AUs that the papers judge on it
EVALUATED: dict[str, tuple[str, ...]] = {"DISFA": disfa.EVALUATED, "BP4D": bp4d.EVALUATED}
#: dataset -> the code from which an AU counts as present
PRESENT_FROM = {"DISFA": disfa.PRESENT_CODE, "BP4D": 1}
#: dataset -> its folds
FOLDS = {"DISFA": disfa.FOLDS, "BP4D": bp4d.FOLDS}
_ACTION_UNIT = re.compile("AU[0-9]{2}")
#: pictures decoded at a time by the threads
_BATCH = 64


def read_annotated(name: str, root: str | os.PathLike, *, missing: str = "error", **choices) -> pd.DataFrame:
    """Every annotated frame of DISFA or BP4D.

    Args:
        name: one of ``READERS``, any capitals.
        root: the dataset's folder or the one above it.
        missing: annotated frames without a picture: "error" refuses them, "drop" leaves them out and counts them.
        **choices: ``clips`` (DISFA: "frames" or "video").

    Returns:
        One row a frame, ordered by subject, sequence and frame, indexed from 0: ``dataset``, ``subject``, ``sequence``,
        ``path`` (a video or the frame's image), ``frame``, ``fold`` (1..3, the fold in which the subject is tested: no
        subject is in two), and a column an AU: DISFA's codes 0..5, BP4D's 0 or 1, NaN where unknown. ``attrs`` says
        which fold rule and which pictures these are, and how many frames were dropped. See ``read_disfa`` and
        ``read_bp4d``.

    Raises:
        InputError: as those two; a choice that the dataset does not offer.
    """
    name = known_name(name, READERS, "read_annotated")
    return READERS[name](root, missing=missing, **reader_choices(name, READERS[name], choices))


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
    if not set(action_units) & set(table.columns):
        raise InputError(
            "annotated_labels", "action units", ", ".join(action_units), "some of " + ", ".join(action_units_of(table))
        )
    out = np.full((len(table), len(action_units)), np.nan, np.float32)
    threshold = table["dataset"].map(PRESENT_FROM).to_numpy()
    for column, unit in enumerate(action_units):
        if unit in table.columns:
            codes = table[unit].to_numpy(np.float32)
            out[:, column] = np.where(np.isnan(codes), np.nan, codes >= threshold)
    return out


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
    cuts = _Cuts(base, name, table, openface) if align else None
    paths, frames = table["path"].to_numpy(), table["frame"].to_numpy()
    shape = None if size is None else (size, size)
    with progress_bar(total=len(table), desc=f"read {name}", unit="frame", disable=not progress) as bar:
        for positions, pictures in _pictures(base, paths, frames, None if align else size):
            for rows, picture in zip(positions, pictures, strict=True):
                if cuts is not None:
                    picture = cuts.cut(picture, rows[0], size)
                if out is None:
                    shape = shape or picture.shape[1::-1]
                    out = np.empty((len(table), shape[1], shape[0], 3), np.uint8)
                if picture.shape[:2] != out.shape[1:3]:
                    picture = resize_image(Image.fromarray(picture), out.shape[2:0:-1])
                out[rows] = picture
                bar.update(len(rows))
    return out


def _pictures(base: Path, paths: np.ndarray, frames: np.ndarray, size: int | None) -> Iterator[tuple[list, list]]:
    """(rows that show each picture, pictures), a batch at a time."""
    shape = None if size is None else (size, size)
    codes, names = pd.factorize(paths)
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    images = []
    for group in groups:
        path = names[codes[group[0]]]
        if not is_video(path):
            images.append((base / path, group))
            continue
        rows_of: dict[int, list[int]] = {}
        for row in group.tolist():
            rows_of.setdefault(int(frames[row]), []).append(row)
        for number, picture in video_frames(base / path, rows_of):
            yield [rows_of[number]], [picture if size is None else resized(picture, size)]
    if images:
        with ThreadPoolExecutor(IO_THREADS) as pool:
            for start in range(0, len(images), _BATCH):
                part = images[start : start + _BATCH]
                yield [rows for _, rows in part], list(pool.map(lambda item: read_image(item[0], shape), part))


class _Cuts:
    """How the face of each row is cut out."""

    def __init__(self, base: Path, name: str, table: pd.DataFrame, openface):
        folder = openface_folder(base, name, openface)
        if folder is None:
            raise InputError(
                base, "landmarks", "no folder of OpenFace's CSVs", f"openface/{name} beside the dataset, or openface="
            )
        self.scale_turn, self.shift = np.empty(len(table), complex), np.empty(len(table), complex)
        for sequence, rows, numbers in _sequences(base, table):
            if (track := _track(folder, sequence, table["path"].iloc[rows[0]])) is None:
                raise InputError(
                    folder, f"OpenFace file of sequence {sequence}", "none", f"{sequence.replace('/', '_')}.csv"
                )
            found = alignment.align(read_openface(track, require_presence=False), numbers, track)
            self.scale_turn[rows], self.shift[rows] = found.scale_turn, found.shift

    def cut(self, picture: np.ndarray, row: int, size: int) -> np.ndarray:
        return alignment.cut(picture, self.scale_turn[row], self.shift[row], size)


# ---------------------------------------------------------------------------------------------------------- landmarks


def annotated_landmarks(
    root: str | os.PathLike, table: pd.DataFrame, *, align: bool = False, openface: str | os.PathLike | None = None
) -> np.ndarray:
    """The 68 iBUG points of every row, float32 (n, 68, 2): x and y in units of the picture's sides (0..1), NaN unknown.

    The embedded set's are those that were drawn (its truth beside it); of a real dataset OpenFace's CSVs are read, one
    a sequence (``SN001.csv`` or the video's name; ``F001_T1.csv`` or ``F001/T1.csv``). Without a CSV, or where OpenFace
    lost the face, points are unknown. Points may lie outside the picture.

    Args:
        root, table: as for ``load_annotated_frames``.
        align: in the faces that ``load_annotated_frames(align=True)`` cuts, rather than in the pictures as they are.
        openface: folder of OpenFace's CSVs (see ``openface_folder``).

    Raises:
        InputError: a folder given that does not exist, a CSV that cannot be read or has no landmarks.
        AudferError: the embedded set without its truth.
    """
    name = _dataset_of(table)
    base = dataset_folder(root, name)
    if (base / RENDERED_STAMP).is_file() and not (align or openface):
        return _drawn_landmarks(base, name, table)
    out = np.full((len(table), 68, 2), np.nan, np.float32)
    folder = openface_folder(base, name, openface)
    if folder is None:
        return out
    for sequence, rows, numbers in _sequences(base, table):
        if (path := _track(folder, sequence, table["path"].iloc[rows[0]])) is None:
            continue
        track = read_openface(path, require_presence=False)
        if track.landmarks is None:
            raise InputError(path, "columns x_0 .. y_67", "none", "landmarks: run FeatureExtraction with -2Dfp")
        place = numbers + 1 - track.frame[0]  # OpenFace counts from 1
        known = (place >= 0) & (place < len(track))
        points = track.landmarks[place[known]].astype(np.float64)
        if align:
            cuts = alignment.align(track, numbers[known], path)
            turned = cuts.scale_turn[:, None] * (points[..., 0] + 1j * points[..., 1]) + cuts.shift[:, None]
            points = np.stack([turned.real, turned.imag], axis=-1)
        else:
            points /= _picture_size(base / table["path"].to_numpy()[rows[0]])
        out[rows[known]] = points
    return out


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


def _track(folder: Path, sequence: str, path: str) -> Path | None:
    """OpenFace's file of a sequence, named by it or by its video; ``None``: there is none."""
    for name in (sequence, *((Path(path).stem,) if is_video(path) else ())):
        try:
            return alignment.find_track(folder, name)
        except InputError:
            continue
    return None


def _drawn_landmarks(base: Path, name: str, table: pd.DataFrame) -> np.ndarray:
    from ..synth import read_truth, read_truth_landmarks  # brings torch

    size = json.loads((base / RENDERED_STAMP).read_text())["config"]["image_size"]
    truth, points = read_truth(base.parent, name), read_truth_landmarks(base.parent, name)
    # the renderer counts from the picture's border, so that 0 and the side are its edges
    index = pd.MultiIndex.from_frame(truth[["clip_id", "frame"]])
    place = index.get_indexer(pd.MultiIndex.from_frame(table[["sequence", "frame"]]))
    return np.where((place >= 0)[:, None, None], points[place] / size, np.nan).astype(np.float32)


def _sequences(base: Path, table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(sequence, its rows, 0-based numbers under which OpenFace sees their frames: of a video, or position in a
    folder).
    """
    paths, frames = table["path"].to_numpy(), table["frame"].to_numpy()
    for sequence, rows in table.reset_index(drop=True).groupby("sequence", sort=False).groups.items():
        rows = rows.to_numpy()
        if is_video(paths[rows[0]]):
            yield sequence, rows, frames[rows]
            continue
        other = "right" if table["dataset"].iloc[rows[0]] == "DISFA" else ""
        images = numbered_images((base / paths[rows[0]]).parent, other)
        order = {images[number]: position for position, number in enumerate(sorted(images))}
        yield sequence, rows, np.array([order[os.path.basename(path)] for path in paths[rows].tolist()])


def _picture_size(path: Path) -> tuple[int, int]:
    """(width, height)"""
    if is_video(path):
        return next(picture.shape[1::-1] for _, picture in video_frames(path, (0,)))
    return read_image(path).shape[1::-1]


def _dataset_of(table: pd.DataFrame) -> str:
    names = table["dataset"].unique() if "dataset" in table else ()
    if len(names) != 1:
        raise InputError(
            "annotated frames", "column dataset", ", ".join(map(str, names)) or "none", "rows of one read_annotated"
        )
    return names[0]
