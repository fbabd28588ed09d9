"""FERV39k: 38,935 clips from 22 scenes with one official split (field notes: DATASETS.md D.2)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...errors import InputError
from ...facs import EXPRESSIONS, LABEL_SPACES
from ..common import Listing, OwnLists, find_folder, subfolders
from ..lists import add_clips
from ..registry import DATASETS, Dataset

_FOLDER = "2_ClipsforFaceCrop"


def read(listing: Listing, *, splits=None) -> None:
    """The official split.

    The lists have no header: the first line is a clip too (a public loader loses it). A line is "Scene/Emotion/0010
    Emotion". Where a label contradicts the emotion in its clip's path, a note counts it.

    Args:
        splits: a list or folder of lists of another project (``lists``) instead of the official ones.

    Raises:
        InputError: a label outside the seven; no such folder or list.
    """
    # also as archives unpack it: 2_ClipsforFaceCrop-002/2_ClipsforFaceCrop
    clips = listing.root
    while inner := [name for name in subfolders(clips) if name.lower().startswith(_FOLDER.lower())]:
        clips = clips / inner[0]
    if clips == listing.root:
        raise InputError(clips, "folder of FERV39k's clips", "no such folder", _FOLDER)
    listing.notes.append(f"clips: frames, from {os.path.relpath(clips, listing.root)}")
    add_clips(listing, _LISTS, splits, lambda clip: clips / clip, known=_in_path)
    contradicting = [r for r in listing.rows if _in_path(r["clip_id"]) not in (None, r["expression"])]
    if contradicting:
        listing.notes.append(
            f"labels that contradict the emotion in the clip's path: {len(contradicting)} "
            f"(first: {contradicting[0]['clip_id']})"
        )


def _files(base: Path, fold: int) -> dict[str, Path]:
    folder = find_folder(base, "4_setups/All_scenes", "All_scenes", what="folder of FERV39k's lists")
    return {split: folder / f"{split}_All.csv" for split in ("train", "test")}


def _clip(name: str, path: Path, line: int) -> str:
    parts = re.split(r"[/\\]", name)
    if len(parts) < 3:
        raise InputError(path, f"line {line}", repr(name), "a path ending in Scene/Emotion/0010")
    return "/".join(parts[-3:])


def _in_path(clip: str) -> int | None:
    """The expression that the second part of ``Scene/Emotion/0010`` names."""
    try:
        return LABEL_SPACES["FERV39k"].parse(clip.split("/")[1], clip)
    except InputError:
        return None


_LISTS = OwnLists(_files, _clip, "Scene/Emotion/0010 Emotion")
DATASETS.add(
    "FERV39k",
    Dataset(
        read,
        LABEL_SPACES["FERV39k"],
        orders={
            "MAE-DFER and Former-DFER": EXPRESSIONS,
            "M3DFEL_replicate": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
        },
    ),
)
