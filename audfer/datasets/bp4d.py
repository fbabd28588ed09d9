"""BP4D: spontaneous expressions of 41 people in eight tasks, AUs coded present or absent (DATASETS.md D.7)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from ..errors import InputError
from .common import (
    assign_folds,
    check_missing,
    dataset_folder,
    find_folder,
    listed,
    locate,
    numbered_images,
    read_lines,
)

FOLDS = 3
#: the AUs that the papers judge; AU24 (lip pressor) is none of ``facs.ACTION_UNITS``
EVALUATED: tuple[str, ...] = (
    "AU01",
    "AU02",
    "AU04",
    "AU06",
    "AU07",
    "AU10",
    "AU12",
    "AU14",
    "AU15",
    "AU17",
    "AU23",
    "AU24",
)
#: not coded
UNKNOWN = 9
#: the subjects tested in folds 1, 2 and 3
TEST_SUBJECTS: tuple[tuple[str, ...], ...] = (
    ("F004", "F006", "F007", "F012", "F014", "F015", "F017", "F019", "F021", "M003", "M006", "M009", "M015"),
    ("F003", "F005", "F011", "F013", "F020", "F022", "M002", "M005", "M010", "M011", "M013", "M016", "M017", "M018"),
    ("F001", "F002", "F008", "F009", "F010", "F016", "F018", "F023", "M001", "M004", "M007", "M008", "M012", "M014"),
)
SOURCE = "ME-GraphAU's tool/BP4D_image_label_process.py"
_LABELS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_IMAGES = ("2D+3D", "Sequences(2D+3D)", "Sequences", "Images", "img", "imgs", "frames")
_FILE = re.compile(r"([FM][0-9]{3})_(T[0-9]+)\.csv", re.IGNORECASE)


def read_bp4d(root: str | os.PathLike, *, missing: str = "error") -> pd.DataFrame:
    """Every annotated frame: its image, and which AUs are present.

    Args:
        root: the dataset's folder or the one above it. Labels are ``AUCoding/AU_OCC/<subject>_<task>.csv`` (first
            column the frame, a header of AU numbers), images ``<subject>/<task>/<frame>.jpg`` with any number of
            leading zeros, in the dataset's folder or in one of the folders that releases put them in (``2D+3D``,
            ``img`` ...).
        missing: "error" refuses annotated frames without an image; "drop" leaves them out and counts them in
            ``attrs["dropped"]``.

    Returns:
        One row a frame: ``dataset`` ("BP4D"), ``subject``, ``sequence`` ("F001/T1"), ``path`` (the image, relative to
            the
        dataset's folder), ``frame`` (the number in the label file, which is the image's), ``fold`` (1..3, in which the
        subject is tested), and the 12 AUs of ``EVALUATED``: float32, 1 present, 0 absent, NaN not coded (9 on disk).
        ``attrs``: dataset, folds (the rule), clips (where the images are), dropped (frames).

    Raises:
        InputError: no labels, a header without one of the 12 AUs, a line with another number of cells, a code other
            than 0, 1 and 9, frame numbers that do not rise, two images of one number, no images.
    """
    check_missing("BP4D", missing)
    base = dataset_folder(root, "BP4D")
    labels = find_folder(base, *_LABELS, what="folder of BP4D's labels")
    files = [(found[1].upper(), found[2].upper(), name) for name in listed(labels) if (found := _FILE.fullmatch(name))]
    if not files:
        raise InputError(labels, "AU files", "none", "F001_T1.csv and so on")
    images = _image_folder(base, files)
    folds, rule = assign_folds(sorted({subject for subject, _, _ in files}), TEST_SUBJECTS, SOURCE)
    tables, total, absent = [], 0, []
    for subject, task, name in sorted(files, key=lambda file: (file[0], int(file[1][1:]))):
        frames, codes = _codes(labels / name)
        total += len(frames)
        place = locate(images, f"{subject}/{task}")
        there = numbered_images(place) if place is not None else {}
        kept = np.array([frame in there for frame in frames.tolist()], bool)
        if not kept.all():
            absent.append((f"{subject}/{task}", int((~kept).sum())))
        folder = "" if place is None else str(place.relative_to(base))
        tables.append(
            pd.DataFrame(
                {
                    "dataset": "BP4D",
                    "subject": subject,
                    "sequence": f"{subject}/{task}",
                    "path": [f"{folder}/{there[frame]}" for frame in frames[kept].tolist()],
                    "frame": frames[kept],
                    "fold": folds[subject],
                    **dict(zip(EVALUATED, codes[kept].T, strict=True)),
                }
            )
        )
    lost = sum(count for _, count in absent)
    if absent and (missing == "error" or lost == total):
        raise InputError(
            base,
            "images of BP4D",
            f"none for {lost} of {total} annotated frames (first: {absent[0][1]} of {absent[0][0]})",
            "<subject>/<task>/<frame>.jpg here or in one of "
            + ", ".join(_IMAGES)
            + ('; missing="drop" leaves such frames out' if lost < total else ""),
        )
    table = pd.concat(tables, ignore_index=True)
    where = f"images in {images.relative_to(base)}" if images != base else "images in the dataset's folder"
    table.attrs = {
        "dataset": "BP4D",
        "folds": rule,
        "clips": where,
        "absent": absent,
        "dropped": {"frames not on disk": lost} if lost else {},
    }
    return table


def _image_folder(base: Path, files: list[tuple[str, str, str]]) -> Path:
    """The folder that holds a folder of one of the subjects."""
    subjects = {subject for subject, _, _ in files}
    for folder in (base, *(locate(base, candidate) for candidate in _IMAGES)):
        if folder is not None and any(name.upper() in subjects for name in listed(folder)):
            return folder
    return base


def _codes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(frame numbers, (n, 12) float32 0, 1 or NaN) of one label file."""
    try:
        table = arrow_csv.read_csv(
            path, convert_options=arrow_csv.ConvertOptions(strings_can_be_null=False, null_values=[])
        )
        cells = (
            np.stack([column.to_numpy() for column in table.columns], axis=1)
            if all(pa.types.is_integer(column.type) for column in table.columns) and len(table)
            else None
        )
        header = [str(name).strip() for name in table.column_names]
    except (pa.ArrowInvalid, OSError):
        cells = None
    line_of = lambda row: row + 2  # noqa: E731
    if cells is None:  # a line at a time, to say which one is wrong
        lines = read_lines(path, "AU file")
        header = [name.strip() for name in lines[0][1].split(",")]
        rows = []
        for number, line in lines[1:]:
            parts = [part.strip() for part in line.split(",")]
            if len(parts) != len(header) or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
                raise InputError(
                    path, f"line {number}", repr(line[:60]), f"{len(header)} whole numbers: frame and AU codes"
                )
            rows.append([int(part) for part in parts])
        if not rows:
            raise InputError(path, "frames", "none", "a line a frame below the header")
        cells, numbers = np.array(rows, np.int64), [number for number, _ in lines[1:]]
        line_of = numbers.__getitem__
    frames = cells[:, 0]
    if frames[0] < 0 or (np.diff(frames) < 1).any():
        worst = 0 if frames[0] < 0 else int(np.argmax(np.diff(frames) < 1)) + 1
        raise InputError(
            path, f"line {line_of(worst)}, frame", int(frames[worst]), "numbers from 0, each higher than the last"
        )
    columns = []
    for unit in EVALUATED:
        found = [
            index for index, name in enumerate(header) if index and re.fullmatch(f"(AU)?0*{int(unit[2:])}", name, re.I)
        ]
        if len(found) != 1:
            raise InputError(
                path, "header", f"{len(found)} columns {int(unit[2:])}", f"one column for each of {_NUMBERS}"
            )
        columns += found
    codes = cells[:, columns]
    if (bad := (codes != 0) & (codes != 1) & (codes != UNKNOWN)).any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            path, f"line {line_of(row)}, {EVALUATED[column]}", int(codes[row, column]), "0, 1 or 9 (not coded)"
        )
    return frames, np.where(codes == UNKNOWN, np.float32("nan"), codes).astype(np.float32)


_NUMBERS = ", ".join(str(int(unit[2:])) for unit in EVALUATED)
