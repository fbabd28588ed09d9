"""AFEW: film clips of the EmotiW challenges, 773 for training and 381 for validation (field notes: DATASETS.md D.4)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError
from ..facs import LABEL_SPACES
from . import lists
from .common import Listing, dataset_folder, listed, locate, make_manifest, subfolders
from .manifest import Manifest, is_video

#: our split -> names of its folder: the EmotiW release's and Former-DFER's re-cropped form
_PARTS = {"train": ("Train_AFEW", "train"), "test": ("Val_AFEW", "validation", "val")}
_FACES = ("AlignedFaces_LBPTOP_Points/Faces", "AlignedFaces_LBPTOP_Points_Val/Faces", "Faces")


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error", clips: str = "", splits=None) -> Manifest:
    """Manifest of training and validation; the labels of the test set are not public, so validation is the test split.

    Two forms are read: EmotiW's (``Train_AFEW/<Emotion>/*.avi`` with aligned faces under
    ``AlignedFaces_LBPTOP_Points/Faces/<clip>``, also doubled) and Former-DFER's (``train/<Emotion>/<clip>/``). Emotion
    folders may be Angry or Anger, Happy or Happiness, Sad or Sadness. ``fold`` is ignored.

    Args:
        clips: "frames" (aligned faces or re-cropped frames) or "video"; "" takes frames where there are any.
        splits: Former-DFER's lists (``lists``), which then say what belongs where.

    Raises:
        InputError: see ``common.make_manifest``; no emotion folders; aligned faces whose emotion nothing tells.
    """
    if clips not in ("", "frames", "video"):
        raise InputError("AFEW", "clips", repr(clips), "frames or video")
    base = dataset_folder(root, "AFEW")
    space = LABEL_SPACES["AFEW"]
    found: dict[str, tuple[Path, str, int]] = {}
    listing = Listing(
        "AFEW", base, 1, notes=["test split: the validation set, because the labels of AFEW's test set are not public"]
    )
    for split, names in _PARTS.items():
        part = locate(base, *names)
        if part is None:
            raise InputError(base, f"AFEW's {split} folder", "no such folder", f"one of {', '.join(names)}")
        videos, frames = _by_emotion(part, space)
        faces = locate(part, *_FACES)
        if faces is not None and not frames:
            nested = _by_emotion(faces, space)[1]
            frames = nested or _faces(faces, videos, listing)
        chosen = videos if clips == "video" or not frames else frames
        if clips == "frames" and not frames:
            raise InputError(part, "folder of AFEW's faces", "no such folder", " or ".join(_FACES[:2]))
        listing.lists[split] = part
        listing.notes.append(f"{split} clips: {'video' if chosen is videos else 'frames'}, from {part.name}")
        for clip, (path, expression) in sorted(chosen.items()):
            if splits is None:
                listing.add(clip, path, split, expression)
            else:
                found.setdefault(clip, (path, split, expression))
    if splits is not None:
        _from_lists(listing, found, splits, fold)
    return make_manifest(listing, missing)


def _by_emotion(part: Path, space) -> tuple[dict, dict]:
    """(videos, clip folders) below emotion folders: clip -> (path, expression)."""
    videos, frames = {}, {}
    for name in subfolders(part):
        try:
            expression = space.parse(name, part)
        except InputError:
            continue  # AlignedFaces_... and the like
        for entry in listed(part / name):
            path = part / name / entry
            if is_video(entry):
                videos[path.stem] = (path, expression)
            elif os.path.isdir(path):
                frames[entry] = (path, expression)
    return videos, frames


def _faces(faces: Path, videos: dict, listing: Listing) -> dict:
    """Aligned faces carry no emotion: the video of the same name does."""
    out = {}
    for clip in subfolders(faces):
        if clip not in videos:
            listing.dropped["aligned faces without a video that tells the emotion"] += 1
        else:
            out[clip] = (faces / clip, videos[clip][1])
    if listing.dropped and not out:
        raise InputError(
            faces,
            "emotions of the aligned faces",
            "no video of the same name for any of them",
            "<Emotion>/<clip>.avi beside them, or splits that give the labels",
        )
    for clip in videos.keys() - out.keys():  # listed by its video, so that check and pack name it
        out[clip] = (faces / clip, videos[clip][1])
    return out


def _from_lists(listing: Listing, found: dict, splits, fold: int) -> None:
    entries = lists.read_lists(splits, "AFEW", fold)
    names = [os.path.splitext(re.split(r"[/\\]", e.clip)[-1])[0] for e in entries]
    told = {id(e): found[name][2] for e, name in zip(entries, names, strict=True) if name in found}
    labels, how = lists.expressions("AFEW", entries, lambda entry: told.get(id(entry)), fold)
    listing.notes.append(how)
    for entry, name, label in zip(entries, names, labels, strict=True):
        listing.lists[entry.split] = entry.file
        path = found[name][0] if name in found else listing.root / "/".join(re.split(r"[/\\]", entry.clip)[-3:])
        listing.add(name, path, entry.split, label)
        if entry.frames is not None:
            listing.frames[name] = entry.frames
    left_out = len(found.keys() - set(names))
    listing.dropped["on disk, in no list"] += left_out
