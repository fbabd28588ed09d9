"""AFEW: film clips of the EmotiW challenges, 773 for training and 381 for validation (field notes: DATASETS.md D.4)."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError
from ...facs import EXPRESSIONS, LABEL_SPACES
from ..common import Listing, check_choice, listed, locate, raw_video, subfolders
from ..lists import add_from_lists
from ..manifest import is_video
from ..registry import DATASETS, Dataset

#: our split -> names of its folder: the EmotiW release's and Former-DFER's re-cropped form
_PARTS = {"train": ("Train_AFEW", "train"), "test": ("Val_AFEW", "validation", "val")}
_FACES = ("AlignedFaces_LBPTOP_Points/Faces", "AlignedFaces_LBPTOP_Points_Val/Faces", "Faces")


def read(listing: Listing, *, clips: str = "", splits=None) -> None:
    """Training and validation; the labels of the test set are not public, so validation is the test split.

    Two forms are read: EmotiW's (``Train_AFEW/<Emotion>/*.avi`` with aligned faces under
    ``AlignedFaces_LBPTOP_Points/Faces/<clip>``, also doubled) and Former-DFER's (``train/<Emotion>/<clip>/``). Emotion
    folders may be Angry or Anger, Happy or Happiness, Sad or Sadness.

    Args:
        clips: "frames" (aligned faces or re-cropped frames) or "video"; "" takes frames where there are any.
        splits: Former-DFER's lists (``lists``), which then say what belongs where.

    Raises:
        InputError: no emotion folders; aligned faces whose emotion nothing tells; no faces where they are asked for.
    """
    check_choice("AFEW", "clips", clips, ("frames", "video"))
    listing.notes.append("test split: the validation set, because the labels of AFEW's test set are not public")
    on_disk: dict[str, tuple[Path, str, int]] = {}
    for split, names in _PARTS.items():
        part = locate(listing.root, *names)
        if part is None:
            raise InputError(listing.root, f"AFEW's {split} folder", "no such folder", f"one of {', '.join(names)}")
        videos, frames = _by_emotion(part)
        faces = locate(part, *_FACES)
        if faces is not None and not frames:
            frames = _by_emotion(faces)[1] or _faces(faces, videos, listing)
        chosen = videos if clips == "video" or not frames else frames
        if clips == "frames" and not frames:
            raise InputError(part, "folder of AFEW's faces", "no such folder", " or ".join(_FACES[:2]))
        listing.lists[split] = part
        listing.notes.append(f"{split} clips: {'video' if chosen is videos else 'frames'}, from {part.name}")
        for clip, (path, label) in sorted(chosen.items()):
            if splits is None:
                listing.add(clip, path, split, label)
            on_disk.setdefault(clip, (path, split, label))
    if splits is not None:

        def place(clip, entry) -> dict:
            return {"path": on_disk[clip][0] if clip in on_disk else listing.root / "/".join(entry.parts[-3:])}

        known = lambda clip: on_disk[clip][2] if clip in on_disk else None  # noqa: E731
        add_from_lists(listing, splits, lambda entry: os.path.splitext(entry.name)[0], known, place, on_disk)


def _by_emotion(part: Path) -> tuple[dict, dict]:
    """(videos, clip folders) below emotion folders: clip -> (path, expression)."""
    videos, frames = {}, {}
    for name in subfolders(part):
        try:
            label = LABEL_SPACES["AFEW"].parse(name, part)
        except InputError:
            continue  # AlignedFaces_... and the like
        for entry in listed(part / name):
            path = part / name / entry
            if is_video(entry):
                videos[path.stem] = (path, label)
            elif os.path.isdir(path):
                frames[entry] = (path, label)
    return videos, frames


def _faces(faces: Path, videos: dict, listing: Listing) -> dict:
    """Aligned faces carry no emotion: the video of the same name does."""
    clips = subfolders(faces)
    if lone := [clip for clip in clips if clip not in videos]:
        listing.dropped["aligned faces without a video that tells the emotion"] += len(lone)
        if len(lone) == len(clips):
            raise InputError(
                faces,
                "emotions of the aligned faces",
                "no video of the same name for any of them",
                "<Emotion>/<clip>.avi beside them, or splits that give the labels",
            )
    # a video without faces is listed as well, so that check and pack name it
    return {clip: (faces / clip, label) for clip, (_, label) in videos.items()}


DATASETS.add(
    "AFEW",
    Dataset(
        read,
        LABEL_SPACES["AFEW"],
        published_test="validation",
        orders={"Former-DFER": EXPRESSIONS},
        look=raw_video,
    ),
)
