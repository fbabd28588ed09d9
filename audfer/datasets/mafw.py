"""MAFW: 9,172 single-labelled clips of eleven classes; here the seven basic ones (field notes: DATASETS.md D.3)."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePosixPath

from ..facs import LABEL_SPACES
from .common import dataset_folder, find_folder, folder_manifest, read_lines, split_entry
from .manifest import Manifest

_LISTS = ("Train & Test Set", "split", "anno")


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error") -> Manifest:
    """Manifest of one fold of the seven-class subset.

    No split of it is published, so the eleven-class folds are filtered.

    ``dropped`` counts the clips of contempt, anxiety, helplessness and disappointment. Lists are read from the
    uncaptioned folder: captions are free text with blanks.

    Raises:
        InputError: see ``common.folder_manifest``; a label outside the eleven.
    """
    base = dataset_folder(root, "MAFW")
    clips = find_folder(base, "data/faces", "data/frames", "faces", "frames", what="folder of MAFW's face frames")
    folder = find_folder(
        base, *(f"{top}/single/no_caption/set_{fold}" for top in _LISTS), what=f"lists of MAFW's fold {fold}"
    )
    rows, dropped, lists = [], Counter(), {}
    for split in ("train", "test"):
        lists[split] = path = folder / f"{split}.txt"
        for number, line in read_lines(path, f"{split} list of fold {fold}"):
            video, label = split_entry(path, number, line, None, "03747.mp4 anger")
            expression = LABEL_SPACES["MAFW"].parse(label.lower(), path, f"line {number}, label")
            if expression is None:
                dropped[label.lower()] += 1
                continue
            clip = PurePosixPath(video).stem
            rows.append(
                {
                    "clip_id": clip,
                    "path": str((clips / clip).relative_to(base)),
                    "split": split,
                    "expression": expression,
                }
            )
    return folder_manifest("MAFW", base, rows, lists, dict(dropped), fold, missing)
