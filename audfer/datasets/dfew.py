"""DFEW: 16,372 film clips, five folds of 11,697 single-labelled ones (field notes: DATASETS.md D.1)."""

from __future__ import annotations

import os
from collections import Counter

from ..errors import InputError
from ..facs import LABEL_SPACES
from .common import dataset_folder, find_folder, folder_manifest, read_lines, split_entry
from .manifest import Manifest

_CLIPS = ("Clip/clip_224x224", "clip_224x224", "Clip/jpg_256", "jpg_256", "Clip/clip_224x224_16f", "clip_224x224_16f")


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error") -> Manifest:
    """Manifest of one fold. ``EmoLabel_DataSplit/<split>(single-labeled)/set_<fold>.csv`` names the clips.

    Accepts hyphens or underscores in folder names, clip folders nested twice, renamed to ``jpg_256``, or the 16-frame
    version (used only where the full one is absent), clip folders with or without leading zeros, and a first line
    with or without column names.

    Raises:
        InputError: see ``common.folder_manifest``; a label other than 0 to 7.
    """
    base = dataset_folder(root, "DFEW")
    clips = find_folder(base, *_CLIPS, what="folder of DFEW's clips")
    space, rows, dropped, lists = LABEL_SPACES["DFEW"], [], Counter(), {}
    names = {entry.lstrip("0") or "0": entry for entry in os.listdir(clips)}
    for split in ("train", "test"):
        part = f"{split}(single-labeled)"
        folder = find_folder(base, f"EmoLabel_DataSplit/{part}", part, what=f"folder of DFEW's {split} lists")
        lists[split] = path = folder / f"set_{fold}.csv"
        for number, line in read_lines(path, f"{split} list of fold {fold}"):
            clip, label = split_entry(path, number, line, ",", "video_name,label")
            if number == 1 and clip.lower() == "video_name":
                continue
            if not clip.isdigit():
                raise InputError(path, f"line {number}, column video_name", repr(clip), "a clip's number")
            expression = space.parse(label, path, f"line {number}, column label")
            if expression is None:
                dropped["no single label"] += 1
                continue
            name = names.get(clip.lstrip("0") or "0", clip.zfill(5))
            rows.append(
                {
                    "clip_id": clip.zfill(5),
                    "path": str((clips / name).relative_to(base)),
                    "split": split,
                    "expression": expression,
                }
            )
    return folder_manifest("DFEW", base, rows, lists, dict(dropped), fold, missing)
