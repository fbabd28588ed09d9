"""What the readers share: finding folders under their many names, and saying what is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from .manifest import COLUMNS, Manifest, list_frames


def dataset_folder(root: str | os.PathLike, name: str) -> Path:
    """The dataset's own folder: ``root``, or the folder in it with the dataset's name (any capitals, hyphens).

    Raises:
        InputError: ``root`` does not exist.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, f"folder of {name}", "no such folder", f"the folder that holds {name}")
    plain = lambda text: re.sub(r"[^a-z0-9]", "", text.lower())  # noqa: E731
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and plain(entry.name) == plain(name):
            return entry
    return root


def same_name(found: str, wanted: str) -> bool:
    """Folder names equal but for capitals, and hyphens, underscores or blanks in each other's place."""
    plain = lambda text: re.sub(r"[-_ ]+", " ", text.lower()).strip()  # noqa: E731
    return plain(found) == plain(wanted)


def find_folder(base: Path, *candidates: str, what: str) -> Path:
    """The first of several relative paths that exists below ``base``, each part compared by ``same_name``.

    A folder nested in one of its own name (``clip_224x224/clip_224x224``, as archives unpack) is entered.

    Raises:
        InputError: none exists.
    """
    for candidate in candidates:
        here: Path | None = base
        for part in Path(candidate).parts:
            here = next((e for e in sorted(here.iterdir()) if e.is_dir() and same_name(e.name, part)), None)
            if here is None:
                break
        if here is not None:
            inner = [e for e in here.iterdir() if e.is_dir() and same_name(e.name, here.name)]
            return inner[0] if inner else here
    raise InputError(base, what, "no such folder", "one of " + ", ".join(candidates))


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """(line number, text) of the non-empty lines of a text file; a byte-order mark and carriage returns are dropped.

    Raises:
        InputError: no file, not text, or empty.
    """
    if not path.is_file():
        raise InputError(path, what, "no such file", "a text file")
    try:
        lines = [
            (n, line.strip())
            for n, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1)
            if line.strip()
        ]
    except UnicodeDecodeError as error:
        raise InputError(path, what, f"not text ({error.reason} at byte {error.start})", "a text file") from None
    if not lines:
        raise InputError(path, what, "an empty file", "at least one line")
    return lines


def split_entry(path: Path, number: int, line: str, separator: str | None, example: str) -> tuple[str, str]:
    """The two parts of a split list's line (clip and label), cut at the last separator (``None``: blanks).

    Raises:
        InputError: not two parts.
    """
    parts = [part.strip() for part in line.rsplit(separator, 1)]
    if len(parts) != 2 or not all(parts):
        raise InputError(path, f"line {number}", repr(line), f'two parts as in "{example}"')
    return parts[0], parts[1]


def folder_manifest(
    name: str,
    root: Path,
    rows: list[dict],
    lists: dict[str, Path],
    dropped: dict[str, int],
    fold: int,
    missing: str = "error",
) -> Manifest:
    """A manifest of clips that are folders of images, after looking whether each folder is there and has frames.

    Args:
        rows: dicts with clip_id, path, split, expression and optionally subject; order kept.
        lists: split -> the file that names its clips (for the error sentence).
        missing: "error" refuses absent clips and empty folders; "drop" leaves them out and counts them in
            ``dropped``.

    Raises:
        InputError: a split list names clips that are not on disk, or clip folders hold no frames: how many and the
            first three.
    """
    if missing not in ("error", "drop"):
        raise InputError("read_dataset", "missing", repr(missing), '"error" or "drop"')
    absent, empty, kept = [], [], []
    for row in rows:
        folder = root / row["path"]
        if not folder.is_dir():
            absent.append(row)
        elif not list_frames(folder):
            empty.append(row)
        else:
            kept.append(row)
    if missing == "error" and absent:
        split = absent[0]["split"]
        raise InputError(
            lists[split],
            "clips on disk",
            f"{len(absent)} of {len(rows)} listed clips missing (first: "
            f"{', '.join(r['clip_id'] for r in absent[:3])})",
            f"a folder of frames for each under {root}",
        )
    if missing == "error" and empty:
        raise InputError(
            root / empty[0]["path"],
            "clip folder",
            f"no frames in {len(empty)} of {len(rows)} clip folders (first: "
            f"{', '.join(r['clip_id'] for r in empty[:3])})",
            "image files",
        )
    dropped = {
        **dropped,
        **({"not on disk": len(absent)} if absent else {}),
        **({"without frames": len(empty)} if empty else {}),
    }
    return make_manifest(name, root, kept, dropped, fold)


def make_manifest(name: str, root: Path, rows: list[dict], dropped: dict[str, int], fold: int) -> Manifest:
    """A manifest from row dicts, with the usual values where a row leaves them out."""
    table = pd.DataFrame([{"start": 0, "stop": -1, "subject": "", **row} for row in rows], columns=list(COLUMNS))
    if table.empty:
        raise InputError(root, f"clips of {name}", "none", "at least one clip of the seven expressions")
    return Manifest(
        name, root, table.astype({"start": np.int64, "stop": np.int64, "expression": np.int64}), dropped, fold
    )
