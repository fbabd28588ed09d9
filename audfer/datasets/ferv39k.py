"""FERV39k: 38,935 clips from 22 scenes with one official split (field notes: DATASETS.md D.2)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError
from ..facs import LABEL_SPACES
from . import lists
from .common import Listing, dataset_folder, find_folder, make_manifest, read_lines, split_entry, subfolders
from .manifest import Manifest


def _clip_folder(base: Path) -> Path:
    """``2_ClipsforFaceCrop``, also as archives unpack it (``2_ClipsforFaceCrop-002/2_ClipsforFaceCrop``)."""
    starts = lambda folder: [e for e in subfolders(folder) if e.lower().startswith("2_clipsforfacecrop")]  # noqa: E731
    found = starts(base)
    if not found:
        raise InputError(base, "folder of FERV39k's clips", "no such folder", "2_ClipsforFaceCrop")
    here = base / found[0]
    while inner := starts(here):
        here = here / inner[0]
    return here


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error", splits=None) -> Manifest:
    """Manifest of the official split (``fold`` is ignored: there is one).

    The lists have no header: the first line is a clip too (a public loader loses it). A line is "Scene/Emotion/0010
    Emotion". Where a label contradicts the emotion in its clip's path, a note counts it.

    Args:
        splits: a list or folder of lists of another project (``lists``) instead of the official ones.

    Raises:
        InputError: see ``common.make_manifest``; a label outside the seven.
    """
    base = dataset_folder(root, "FERV39k")
    clips = _clip_folder(base)
    listing = Listing("FERV39k", base, 1, notes=[f"clips: frames, from {os.path.relpath(clips, base)}"])
    if splits is not None:
        entries = lists.read_lists(splits, "FERV39k", fold)
        names = [_scene_path(entry) for entry in entries]
        told = dict(zip(map(id, entries), map(_in_path, names), strict=True))
        labels, how = lists.expressions("FERV39k", entries, lambda entry: told[id(entry)], fold)
        listing.notes.append(how)
        for entry, clip, label in zip(entries, names, labels, strict=True):
            listing.lists[entry.split] = entry.file
            listing.add(clip, clips / clip, entry.split, label)
            if entry.frames is not None:
                listing.frames[clip] = entry.frames
    else:
        folder = find_folder(base, "4_setups/All_scenes", "All_scenes", what="folder of FERV39k's lists")
        for split in ("train", "test"):
            listing.lists[split] = path = folder / f"{split}_All.csv"
            for number, line in read_lines(path, f"{split} list"):
                clip, label = split_entry(path, number, line, None, "Scene/Emotion/0010 Emotion")
                expression = LABEL_SPACES["FERV39k"].parse(label, path, f"line {number}, label")
                listing.add(clip, clips / clip, split, expression)
    contradicting = [r for r in listing.rows if _in_path(r["clip_id"]) not in (None, r["expression"])]
    if contradicting:
        listing.notes.append(
            f"labels that contradict the emotion in the clip's path: {len(contradicting)} "
            f"(first: {contradicting[0]['clip_id']})"
        )
    return make_manifest(listing, missing)


def _scene_path(entry: lists.Entry) -> str:
    parts = re.split(r"[/\\]", entry.clip)
    if len(parts) < 3:
        raise InputError(entry.file, f"line {entry.line}", repr(entry.clip), "a path ending in Scene/Emotion/0010")
    return "/".join(parts[-3:])


def _in_path(clip: str) -> int | None:
    """The expression that the second part of ``Scene/Emotion/0010`` names."""
    parts = clip.split("/")
    try:
        return LABEL_SPACES["FERV39k"].parse(parts[1], clip) if len(parts) == 3 else None
    except InputError:
        return None
