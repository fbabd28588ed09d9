"""BP4D: spontaneous expressions of 41 people in eight tasks, AUs coded present or absent (DATASETS.md D.7)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import InputError
from ..annotated import Take, annotated_table, code_table, numbered_images, wrong_code
from ..common import find_folder, listed, locate
from ..registry import DATASETS, Annotation, Dataset

#: the AUs that the papers judge; AU24 (lip pressor) is none of ``facs.ACTION_UNITS``
EVALUATED = tuple(f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))
#: not coded
UNKNOWN = 9
_LABELS = ("AUCoding/AU_OCC", "AU_OCC", "AUCoding")
_IMAGES = ("2D+3D", "Sequences(2D+3D)", "Sequences", "Images", "img", "imgs", "frames")
_FILE = re.compile(r"([FM][0-9]{3})_(T[0-9]+)\.csv", re.IGNORECASE)


def read_frames(base: Path, missing: str) -> pd.DataFrame:
    """Every annotated frame: its image, and which AUs are present.

    Args:
        base: the dataset's folder. Labels are ``AUCoding/AU_OCC/<subject>_<task>.csv`` (first column the frame, a
            header of AU numbers), images ``<subject>/<task>/<frame>.jpg`` with any number of leading zeros, in the
            dataset's folder or in one of the folders that releases put them in (``2D+3D``, ``img`` ...).
        missing: "error" refuses annotated frames without an image; "drop" leaves them out and counts them.

    Returns:
        As ``annotated.read_annotated``: ``sequence`` is "F001/T1", ``frame`` the number in the label file, which is the
        image's; the 12 AUs of ``EVALUATED`` are float32, 1 present, 0 absent, NaN not coded (9 on disk).

    Raises:
        InputError: no labels, a header without one of the 12 AUs, a line with another number of cells, a code other
            than 0, 1 and 9, frame numbers that do not rise, two images of one number, no images.
    """
    labels = find_folder(base, *_LABELS, what="folder of BP4D's labels")
    matches = (_FILE.fullmatch(name) for name in listed(labels))
    files = [(match[1].upper(), match[2].upper(), match[0]) for match in matches if match]
    if not files:
        raise InputError(labels, "AU files", "none", "F001_T1.csv and so on")
    subjects = {subject for subject, _, _ in files}
    tops = [base, *filter(None, (locate(base, candidate) for candidate in _IMAGES))]
    top = next((top for top in tops if any(name.upper() in subjects for name in listed(top))), base)

    def takes():
        for subject, task, name in sorted(files, key=lambda file: (file[0], int(file[1][1:]))):
            frames, codes = _codes(labels / name)
            place = locate(top, f"{subject}/{task}")
            images = numbered_images(place) if place is not None else {}
            paths = [f"{place.relative_to(base)}/{images[n]}" if n in images else "" for n in frames.tolist()]
            yield Take(subject, f"{subject}/{task}", frames, dict(zip(EVALUATED, codes.T, strict=True)), paths)

    where = f"images in {top.relative_to(base)}" if top != base else "images in the dataset's folder"
    expected = f"<subject>/<task>/<frame>.jpg here or in one of {', '.join(_IMAGES)}"
    return annotated_table("BP4D", base, takes(), missing, where, "images", expected)


def _codes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(frame numbers, (n, 12) float32 0, 1 or NaN) of one label file."""
    cells, header = code_table(path, first=0)
    columns = []
    for unit in EVALUATED:
        number = int(unit[2:])
        places = [i for i, name in enumerate(header) if i and re.fullmatch(f"(AU)?0*{number}", name, re.IGNORECASE)]
        if len(places) != 1:
            numbers = ", ".join(str(int(unit[2:])) for unit in EVALUATED)
            raise InputError(path, "header", f"{len(places)} columns {number}", f"one column for each of {numbers}")
        columns += places
    codes = cells[:, columns]
    if (wrong := ~np.isin(codes, (0, 1, UNKNOWN))).any():
        row, column = np.argwhere(wrong)[0]
        raise wrong_code(path, cells, row, columns[column], EVALUATED[column], "0, 1 or 9 (not coded)", header=True)
    return cells[:, 0], np.where(codes == UNKNOWN, np.float32("nan"), codes).astype(np.float32)


DATASETS.add(
    "BP4D",
    Dataset(
        folds=3,
        published_folds=True,
        annotation=Annotation(
            read_frames,
            EVALUATED,
            subjects=tuple(
                tuple(fold.split())
                for fold in (
                    "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
                    "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
                    "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014",
                )
            ),
            source="ME-GraphAU's tool/BP4D_image_label_process.py",
            frames="images",
        ),
    ),
)
