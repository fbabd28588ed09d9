"""DISFA: laboratory videos with an intensity code 0..5 for every frame and AU (field notes: DATASETS.md D.7)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import InputError
from ...facs import ACTION_UNITS
from ..annotated import Take, add_subjects, annotated_table, code_table, numbered_images, wrong_code
from ..common import Listing, find_folder, locate, subfolders, videos_below
from ..manifest import is_video, video_length
from ..registry import DATASETS, Annotation, Dataset

_VIDEOS = ("Video_LeftCamera", "Videos_LeftCamera")
_IMAGES = ("Images_LeftCamera", "Images/Left", "Images", "img", "frames", *_VIDEOS)
_SUBJECT = re.compile(r"SN[0-9]{3,}", re.IGNORECASE)


def read(listing: Listing, *, clips: str = "") -> None:
    """One row per subject (expression -1: DISFA has none); the fold (1 to 3) holds the test subjects.

    Raises:
        InputError: see ``read_frames``.
    """
    missing = "error" if listing.missing == "error" else "drop"
    add_subjects(listing, read_frames(listing.root, missing, clips=clips))


def read_frames(base: Path, missing: str, *, clips: str = "") -> pd.DataFrame:
    """Every annotated frame: where its picture is, and its codes.

    The left camera's pictures are taken, as in the papers; the right camera's are left alone.

    Args:
        base: the dataset's folder.
        missing: "error" refuses annotated frames without a picture (a subject without a video; a video or a folder that
            ends before the annotation does); "drop" leaves them out and counts them.
        clips: "frames" (a folder of images per subject, numbered from 1, or from 0 where there is an image 0) or
            "video"; "" takes the images where there are any.

    Returns:
        As ``annotated.read_annotated``: ``sequence`` is the subject (there is one take of each), ``frame`` the 0-based
        number in the video; an integer code 0..5 for each AU that is annotated (12 in the real set, 18 in the embedded
        one). An AU is present where its code is at least 2.

    Raises:
        InputError: no labels, a line that is not "frame,code", a code outside 0..5, AUs of one subject with different
            frames, subjects without the same AUs, no pictures.
    """
    labels = find_folder(base, "ActionUnit_Labels", what="folder of DISFA's labels")
    subjects = [name for name in subfolders(labels) if _SUBJECT.fullmatch(name)]
    if not subjects:
        raise InputError(labels, "subjects", "none", "folders SN001 and so on")
    note, places = _places(base, clips)

    def takes():
        units = None
        for subject in subjects:
            frames, codes = _subject(labels / subject)
            if units is not None and units != list(codes):
                raise InputError(labels / subject, "AU files", ", ".join(codes), ", ".join(units))
            units = list(codes)
            yield Take(subject, subject, frames, codes, _paths(base, places.get(subject.upper()), frames))

    expected = f"a video a subject in {_VIDEOS[0]} or a folder of its frames"
    return annotated_table("DISFA", base, takes(), missing, note, "pictures", expected)


def _places(base: Path, clips: str) -> tuple[str, dict[str, Path]]:
    """(which pictures these are, subject -> its video or folder of images)."""
    if clips not in ("", "frames", "video"):
        raise InputError(base, "clips of DISFA", repr(clips), "frames or video")
    for candidate in _IMAGES if clips != "video" else ():
        folder, places = locate(base, candidate), {}
        for name in subfolders(folder) if folder is not None else ():
            # SN001, LeftVideoSN001_comp, SN001_left; inside it perhaps one folder a camera
            subject = _SUBJECT.search(name)
            if subject is None or "right" in name.lower():
                continue
            inside = locate(folder / name, "left", "LeftCamera") or folder / name
            if numbered_images(inside, "right"):
                places[subject[0].upper()] = inside
        if places:
            return f"images of the left camera in {folder.relative_to(base)}", places
    if clips == "frames":
        raise InputError(
            base, "folders of DISFA's images", "none", f"one folder per subject in one of {', '.join(_IMAGES)}"
        )
    folder = find_folder(base, *_VIDEOS, what="folder of DISFA's videos")
    named = ((_SUBJECT.search(path.name), path) for path in videos_below(folder))
    videos = {subject[0].upper(): path for subject, path in named if subject}
    return f"videos of the left camera in {folder.relative_to(base)}", videos


def _paths(base: Path, place: Path | None, frames: np.ndarray) -> list[str]:
    """Where the picture of each frame is; "" where there is none."""
    if place is None:
        return [""] * len(frames)
    folder = str(place.relative_to(base))
    if is_video(place):
        length = video_length(place)
        return [folder if frame < length else "" for frame in frames.tolist()]
    images = numbered_images(place, "right")
    numbers = frames + (0 not in images)
    return [f"{folder}/{images[number]}" if number in images else "" for number in numbers.tolist()]


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
            same = f"the same {len(frames)} frames as the subject's other AUs"
            raise InputError(path, "frames", f"{len(numbers)} lines", same)
        frames = numbers
    if frames is None:
        raise InputError(folder, "AU files", "none", f"{folder.name}_au1.txt and so on")
    return frames - 1, codes


def _codes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(frame numbers from 1, codes) of one AU file."""
    cells, _ = code_table(path, first=1, columns=2, line='"frame,code"')
    if (wrong := (cells[:, 1] < 0) | (cells[:, 1] > 5)).any():
        raise wrong_code(path, cells, np.argmax(wrong), 1, "code", "0 to 5")
    return cells[:, 0], cells[:, 1].astype(np.uint8)


DATASETS.add(
    "DISFA",
    Dataset(
        read,
        folds=3,
        published_folds=True,
        annotation=Annotation(
            read_frames,
            evaluated=("AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26"),
            subjects=tuple(
                tuple(f"SN{number:03d}" for number in fold)
                for fold in (
                    (3, 4, 5, 7, 8, 17, 23, 25, 29),
                    (6, 11, 12, 13, 18, 21, 24, 28, 31),
                    (1, 2, 9, 10, 16, 26, 27, 30, 32),
                )
            ),
            source="ME-GraphAU's tool/DISFA_image_label_process.py",
            present_from=2,
            other_camera="right",
        ),
    ),
)
