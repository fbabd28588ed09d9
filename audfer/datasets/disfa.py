"""DISFA: laboratory videos with an intensity code 0..5 for every frame and AU (field notes: DATASETS.md D.7)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..facs import ACTION_UNITS
from .common import (
    Listing,
    assign_folds,
    check_fold,
    check_missing,
    dataset_folder,
    find_folder,
    locate,
    make_manifest,
    numbered_images,
    read_lines,
    subfolders,
)
from .manifest import RENDERED_STAMP, VIDEO_SUFFIXES, Manifest, is_video, video_length

#: an AU counts as present from this code on
PRESENT_CODE = 2
FOLDS = 3
#: the AUs that the papers judge, of the 12 that are annotated
EVALUATED: tuple[str, ...] = ("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26")
#: the subjects tested in folds 1, 2 and 3
TEST_SUBJECTS: tuple[tuple[str, ...], ...] = (
    ("SN003", "SN004", "SN005", "SN007", "SN008", "SN017", "SN023", "SN025", "SN029"),
    ("SN006", "SN011", "SN012", "SN013", "SN018", "SN021", "SN024", "SN028", "SN031"),
    ("SN001", "SN002", "SN009", "SN010", "SN016", "SN026", "SN027", "SN030", "SN032"),
)
SOURCE = "ME-GraphAU's tool/DISFA_image_label_process.py"
_VIDEOS = ("Video_LeftCamera", "Videos_LeftCamera")
_IMAGES = ("Images_LeftCamera", "Images/Left", "Images", "img", "frames", *_VIDEOS)
_SUBJECT = re.compile(r"SN[0-9]{3}", re.IGNORECASE)
_LINES = re.compile(rb"(?:[0-9]{1,9},[0-9]{1,9}\r?\n)*[0-9]{1,9},[0-9]{1,9}(?:\r?\n)*")


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error", clips: str = "") -> Manifest:
    """Manifest, one row a subject (expression -1: DISFA has none); ``fold`` (1 to 3) holds the test subjects.

    Raises:
        InputError: see ``read_disfa``.
    """
    table = read_disfa(root, missing="error" if missing == "error" else "drop", clips=clips)
    return subject_manifest(table, root, fold, missing=missing)


def subject_manifest(
    table: pd.DataFrame, root: str | os.PathLike, fold: int = 1, *, missing: str = "error"
) -> Manifest:
    """``read`` for a table that ``read_disfa`` has given already: the embedded set has thousands of label files."""
    check_fold("DISFA", fold, FOLDS)
    listing = Listing("DISFA", dataset_folder(root, "DISFA"), fold, notes=[table.attrs["folds"], table.attrs["clips"]])
    for row in table.drop_duplicates("subject").itertuples():
        path = row.path if is_video(row.path) else os.path.dirname(row.path)
        listing.add(row.subject, path, "test" if row.fold == fold else "train", -1, subject=row.subject)
    return make_manifest(listing, missing)


def read_disfa(root: str | os.PathLike, *, missing: str = "error", clips: str = "") -> pd.DataFrame:
    """Every annotated frame: where its picture is, and its codes.

    The left camera's pictures are taken, as in the papers; the right camera's are left alone.

    Args:
        root: the dataset's folder or the one above it.
        missing: "error" refuses annotated frames without a picture (a subject without a video; a video or a folder that
            ends before the annotation does); "drop" leaves them out and counts them in ``attrs["dropped"]``.
        clips: "frames" (a folder of images a subject, numbered from 1, or from 0 where there is an image 0) or "video";
            "" takes the images where there are any.

    Returns:
        One row a frame: ``dataset`` ("DISFA"), ``subject``, ``sequence`` (the subject: there is one take of each),
        ``path`` (the video, or the frame's image; relative to the dataset's folder), ``frame`` (0-based number in the
        video), ``fold`` (1..3, in which the subject is tested), and an integer code 0..5 for each AU that is annotated
        (12 in the real set, 18 in the embedded one), columns named and ordered as ``facs.ACTION_UNITS``. An AU is
        present where its code is at least 2. ``attrs``: dataset, folds (the rule), clips (which pictures), dropped
        (frames).

    Raises:
        InputError: no labels, a line that is not "frame,code", a code outside 0..5, AUs of one subject with different
            frames, subjects without the same AUs, no pictures.
    """
    check_missing("DISFA", missing)
    base = dataset_folder(root, "DISFA")
    labels = find_folder(base, "ActionUnit_Labels", what="folder of DISFA's labels")
    subjects = [name for name in subfolders(labels) if _SUBJECT.fullmatch(name)]
    if not subjects:
        raise InputError(labels, "subjects", "none", "folders SN001 and so on")
    note, places = _places(base, clips)
    embedded = (base / RENDERED_STAMP).is_file()
    folds, rule = assign_folds(subjects, () if embedded else TEST_SUBJECTS, SOURCE)
    tables, units, total, absent = [], None, 0, []
    for subject in subjects:
        frames, codes = _subject(labels / subject)
        if units is not None and units != list(codes):
            raise InputError(labels / subject, "AU files", ", ".join(codes), ", ".join(units))
        units = list(codes)
        total += len(frames)
        there, paths = _paths(base, places.get(subject.upper()), frames)
        if not there.all():
            absent.append((subject, int((~there).sum())))
        tables.append(
            pd.DataFrame(
                {
                    "dataset": "DISFA",
                    "subject": subject,
                    "sequence": subject,
                    "path": paths,
                    "frame": frames[there],
                    "fold": folds[subject],
                    **{unit: code[there] for unit, code in codes.items()},
                }
            )
        )
    lost = sum(count for _, count in absent)
    if absent and (missing == "error" or lost == total):
        raise InputError(
            base,
            "pictures of DISFA",
            f"none for {lost} of {total} annotated frames (first: {absent[0][1]} of {absent[0][0]})",
            f"a video a subject in {_VIDEOS[0]} or a folder of its frames"
            + ('; missing="drop" leaves such frames out' if lost < total else ""),
        )
    table = pd.concat(tables, ignore_index=True)
    table.attrs = {
        "dataset": "DISFA",
        "folds": rule,
        "clips": note,
        "absent": absent,
        "dropped": {"frames not on disk": lost} if lost else {},
    }
    return table


def _places(base: Path, clips: str) -> tuple[str, dict[str, Path]]:
    """(which pictures these are, subject -> its video or folder of images)."""
    if clips not in ("", "frames", "video"):
        raise InputError(base, "clips of DISFA", repr(clips), "frames or video")
    if clips != "video":
        for candidate in _IMAGES:
            folder = locate(base, candidate)
            found = {}
            for name in subfolders(folder) if folder is not None else ():
                # SN001, LeftVideoSN001_comp, SN001_left; inside it perhaps one folder a camera
                subject = _SUBJECT.search(name)
                if subject is None or "right" in name.lower():
                    continue
                inside = locate(folder / name, "left", "LeftCamera") or folder / name
                if numbered_images(inside, "right"):
                    found[subject[0].upper()] = inside
            if found:
                return f"images of the left camera in {folder.relative_to(base)}", found
        if clips:
            raise InputError(
                base, "folders of DISFA's images", "none", "a folder a subject in one of " + ", ".join(_IMAGES)
            )
    folder = find_folder(base, *_VIDEOS, what="folder of DISFA's videos")
    videos = {}
    for path in sorted(folder.rglob("*")):
        subject = _SUBJECT.search(path.name)
        if subject and path.suffix.lower() in VIDEO_SUFFIXES:
            videos[subject[0].upper()] = path
    return f"videos of the left camera in {folder.relative_to(base)}", videos


def _paths(base: Path, place: Path | None, frames: np.ndarray) -> tuple[np.ndarray, list[str] | str]:
    """((n,) whether a picture is there, its path for those that are)."""
    if place is None:
        return np.zeros(len(frames), bool), []
    folder = str(place.relative_to(base))
    if is_video(place):
        return frames < video_length(place), folder
    images = numbered_images(place, "right")
    numbers = (frames + (0 not in images)).tolist()
    there = np.array([number in images for number in numbers], bool)
    return there, [f"{folder}/{images[number]}" for number in numbers if number in images]


def _subject(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(0-based frame numbers, AU -> codes) of one subject's files."""
    codes: dict[str, np.ndarray] = {}
    frames = None
    for unit in ACTION_UNITS:
        path = folder / f"{folder.name}_au{int(unit[2:])}.txt"
        if not path.is_file():
            continue
        numbers, codes[unit] = _codes(path)
        if frames is not None and not np.array_equal(frames, numbers):
            raise InputError(
                path, "frames", f"{len(numbers)} lines", f"the same {len(frames)} frames as the subject's other AUs"
            )
        frames = numbers
    if frames is None:
        raise InputError(folder, "AU files", "none", f"{folder.name}_au1.txt and so on")
    return frames - 1, codes


def _codes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(frame numbers from 1, codes) of one AU file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, "AU file", error.strerror or error, "a file that can be read") from None
    if _LINES.fullmatch(data):
        out = np.fromstring(data.replace(b"\n", b","), np.int64, count=2 * data.count(b","), sep=",").reshape(-1, 2)
        number_of = range(1, len(out) + 1)
    else:  # anything else a line at a time, to say which one is wrong
        lines = read_lines(path, "AU file")
        out, number_of = np.empty((len(lines), 2), np.int64), [number for number, _ in lines]
        for index, (number, line) in enumerate(lines):
            parts = [part.strip() for part in line.split(",")]
            if len(parts) != 2 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
                raise InputError(path, f"line {number}", repr(line), '"frame,code"')
            out[index] = int(parts[0]), int(parts[1])
    if out[:, 1].max() > 5:
        worst = int(np.argmax(out[:, 1] > 5))
        raise InputError(path, f"line {number_of[worst]}, code", int(out[worst, 1]), "0 to 5")
    if out[0, 0] < 1 or (np.diff(out[:, 0]) < 1).any():
        worst = 0 if out[0, 0] < 1 else int(np.argmax(np.diff(out[:, 0]) < 1)) + 1
        raise InputError(
            path, f"line {number_of[worst]}, frame", int(out[worst, 0]), "numbers from 1, each higher than the last"
        )
    return out[:, 0], out[:, 1].astype(np.uint8)
