"""DISFA: laboratory videos with an intensity code 0..5 for every frame and AU (field notes: DATASETS.md D.7)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..facs import ACTION_UNITS
from .common import Listing, check_fold, dataset_folder, find_folder, make_manifest, read_lines
from .manifest import VIDEO_SUFFIXES, Manifest, load_frames

#: an AU counts as present from this code on
PRESENT_CODE = 2
FOLDS = 3


def _videos(base: Path) -> dict[str, Path]:
    folder = find_folder(base, "Video_LeftCamera", "Videos_LeftCamera", what="folder of DISFA's videos")
    out = {}
    for path in sorted(folder.rglob("*")):
        found = re.search(r"SN\d{3}", path.name)
        if found and path.suffix.lower() in VIDEO_SUFFIXES:
            out[found[0]] = path
    return out


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error") -> Manifest:
    """Manifest, one row a subject (expression -1: DISFA has none); ``fold`` (1 to 3) holds the test subjects.

    Raises:
        InputError: see ``read_disfa``.
    """
    table = read_disfa(root, missing=missing)
    check_fold("DISFA", fold, FOLDS)
    listing = Listing("DISFA", dataset_folder(root, "DISFA"), fold)
    for row in table.drop_duplicates("subject").itertuples():
        listing.add(row.subject, row.path, "test" if row.fold == fold else "train", -1, subject=row.subject)
    return make_manifest(listing, missing)


def read_disfa(root: str | os.PathLike, *, missing: str = "error") -> pd.DataFrame:
    """Every annotated frame: its video and its codes.

    Args:
        root: the dataset's folder or the one above it.
        missing: "error" refuses subjects without a video; "drop" leaves them out.

    Returns:
        One row a frame: ``subject``, ``path`` (relative to the dataset's folder), ``frame`` (0-based), ``fold``
        (1..3; subjects never cross
        folds: every third subject), and an integer code 0..5 for each AU that is annotated (12 in the real set, 18 in
            the embedded one),
        columns named and ordered as ``facs.ACTION_UNITS``. An AU is present where its code is at least 2.

    Raises:
        InputError: no labels, a line that is not "frame,code", a code outside 0..5, AUs of one subject with different
            frames, subjects without the same AUs, no video.
    """
    base = dataset_folder(root, "DISFA")
    labels = find_folder(base, "ActionUnit_Labels", what="folder of DISFA's labels")
    videos = _videos(base)
    subjects = sorted(e.name for e in labels.iterdir() if e.is_dir())
    if not subjects:
        raise InputError(labels, "subjects", "none", "folders SN001 and so on")
    tables, absent, units = [], [], None
    for index, subject in enumerate(subjects):
        if subject not in videos:
            absent.append(subject)
            continue
        columns, frames = {}, None
        for unit in ACTION_UNITS:
            path = labels / subject / f"{subject}_au{int(unit[2:])}.txt"
            if not path.is_file():
                continue
            numbers, columns[unit] = _codes(path)
            if frames is not None and not np.array_equal(frames, numbers):
                raise InputError(
                    path,
                    "frames",
                    f"{len(numbers)} lines",
                    f"the same {len(frames)} frames as the subject's other AUs",
                )
            frames = numbers
        if frames is None or (units is not None and units != list(columns)):
            raise InputError(
                labels / subject, "AU files", ", ".join(columns) or "none", ", ".join(units or ACTION_UNITS)
            )
        units = list(columns)
        tables.append(
            pd.DataFrame(
                {
                    "subject": subject,
                    "path": str(videos[subject].relative_to(base)),
                    "frame": frames - 1,
                    "fold": index % FOLDS + 1,
                    **columns,
                }
            )
        )
    if absent and (missing == "error" or not tables):
        raise InputError(
            base,
            "videos of DISFA",
            f"none for {len(absent)} of {len(subjects)} subjects (first: {', '.join(absent[:3])})",
            "one video a subject in Video_LeftCamera",
        )
    return pd.concat(tables, ignore_index=True)


def _codes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(frame numbers from 1, codes) of one AU file."""
    lines = read_lines(path, "AU file")
    out = np.empty((len(lines), 2), np.int64)
    for index, (number, line) in enumerate(lines):
        parts = line.split(",")
        if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
            raise InputError(path, f"line {number}", repr(line), '"frame,code"')
        out[index] = int(parts[0]), int(parts[1])
    if out[:, 1].max() > 5:
        worst = int(np.argmax(out[:, 1] > 5))
        raise InputError(path, f"line {lines[worst][0]}, code", int(out[worst, 1]), "0 to 5")
    return out[:, 0], out[:, 1].astype(np.uint8)


def load_disfa_frames(root: str | os.PathLike, table: pd.DataFrame, size: int | None = None) -> np.ndarray:
    """Pictures of the frames of ``read_disfa``'s table (all or some of its rows), uint8 (n, H, W, 3), rows aligned.

    Raises:
        InputError: a video without one of the frames.
    """
    base = dataset_folder(root, "DISFA")
    out: np.ndarray | None = None
    position = np.arange(len(table))
    for path in table["path"].unique():
        chosen = position[(table["path"] == path).to_numpy()]
        video = Listing("DISFA", base)
        video.add(path, path, "", -1)
        pictures = load_frames(make_manifest(video), 0, table["frame"].to_numpy()[chosen], size)
        if out is None:
            out = np.empty((len(table), *pictures.shape[1:]), np.uint8)
        out[chosen] = pictures
    if out is None:
        raise InputError(base, "frames", "an empty table", "rows of read_disfa")
    return out
