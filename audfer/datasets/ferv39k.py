"""FERV39k: 38,935 clips from 22 scenes with one official split (field notes: DATASETS.md D.2)."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..facs import LABEL_SPACES
from .common import dataset_folder, find_folder, folder_manifest, read_lines, split_entry
from .manifest import Manifest


def _clip_folder(base: Path) -> Path:
    """``2_ClipsforFaceCrop``, also as archives unpack it (``2_ClipsforFaceCrop-002/2_ClipsforFaceCrop``)."""
    starts = lambda folder: [
        e
        for e in sorted(folder.iterdir())  # noqa: E731
        if e.is_dir() and e.name.lower().startswith("2_clipsforfacecrop")
    ]
    found = starts(base)
    if not found:
        raise InputError(base, "folder of FERV39k's clips", "no such folder", "2_ClipsforFaceCrop")
    return (starts(found[0]) or found)[0]


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error") -> Manifest:
    """Manifest of the official split (``fold`` is ignored: there is one).

    The lists have no header: the first line is a clip too (a public loader loses it). A line is "Scene/Emotion/0010
    Emotion".

    Raises:
        InputError: see ``common.folder_manifest``; a label outside the seven.
    """
    base = dataset_folder(root, "FERV39k")
    clips = _clip_folder(base)
    folder = find_folder(base, "4_setups/All_scenes", "All_scenes", what="folder of FERV39k's lists")
    rows, lists = [], {}
    for split in ("train", "test"):
        lists[split] = path = folder / f"{split}_All.csv"
        for number, line in read_lines(path, f"{split} list"):
            clip, label = split_entry(path, number, line, None, "Scene/Emotion/0010 Emotion")
            expression = LABEL_SPACES["FERV39k"].parse(label, path, f"line {number}, label")
            rows.append(
                {
                    "clip_id": clip.strip("/"),
                    "path": str((clips / clip.strip("/")).relative_to(base)),
                    "split": split,
                    "expression": expression,
                }
            )
    return folder_manifest("FERV39k", base, rows, lists, {}, 1, missing)
