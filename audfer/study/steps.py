"""The one way in which a study keeps what a step has made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ..files import UNREADABLE, atomic_folder, digest, files_below, write_json

STAMP = "stamp.json"


def cached_step(folder: Path, made_of: object, make: Callable[[Path], None]) -> Path:
    """The folder of a step, made again when anything that it was made of has changed.

    Args:
        made_of: everything that can change the result, as JSON: settings, digests or ``file_states`` of what is read,
            and ``versions`` of the code.
        make: writes the files into the folder that it is given, which then takes the place of the old one.

    Returns:
        ``folder``.

    The same step of another profile in the same work folder is taken instead of making it again.
    """
    stamp = digest(made_of)
    if read_stamp(folder) != stamp and not borrow(folder, lambda other: read_stamp(other) == stamp, STAMP):
        with atomic_folder(folder, STAMP) as temporary:
            make(temporary)
            sizes = {str(path.relative_to(temporary)): path.stat().st_size for path in files_below(temporary)}
            write_json(temporary / STAMP, {"stamp": stamp, "files": sizes})
    return folder


def borrow(folder: Path, same: Callable[[Path], bool], stamp: str = "") -> Path | None:
    """Take a step from another profile's work, as hard links, where its settings were the same.

    Nothing in a work folder is ever changed in place, so both profiles can have the same files; where a disk has no
    hard links they are copied.

    Args:
        folder: ``work/<profile>/...``; one that is there already stays unless ``stamp`` names its stamp.
        same: whether the folder in the same place of another profile is what is wanted.
        stamp: name of the file by which a folder of ours is known (``atomic_folder``).

    Returns:
        Whose it was; ``None`` where nothing was taken.
    """
    if folder.exists() and not (stamp and (folder / stamp).is_file() and not same(folder)):
        return None
    for other in _elsewhere(folder):
        if same(other):
            with atomic_folder(folder, stamp) as temporary:
                shutil.copytree(other, temporary, symlinks=True, copy_function=link, dirs_exist_ok=True)
            return other
    return None


def _elsewhere(folder: Path) -> Iterator[Path]:
    """The same place in other profiles' work folders: one level up, two or three, as the step lies."""
    for depth in (1, 2, 3):
        if len(folder.parents) > depth and folder.parents[depth].is_dir():
            inside = folder.relative_to(folder.parents[depth - 1])
            for profile in sorted(folder.parents[depth].iterdir()):
                if (profile / inside).is_dir() and profile / inside != folder:
                    yield profile / inside


def link(source: str | Path, target: str | Path) -> None:
    """A second name for a file, or a copy where the disk has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def read_stamp(folder: Path) -> str:
    """The stamp of a step's folder; "" where nothing whole is there, or not every file in its full length."""
    try:
        known = json.loads((folder / STAMP).read_text())
        whole = all((folder / name).stat().st_size == size for name, size in known.get("files", {}).items())
        return known["stamp"] if whole else ""
    except UNREADABLE:
        return ""


def file_states(folder: Path) -> str:
    """Digest of the name, size and time of the last change of every file below a folder, or of one file or none."""
    paths = sorted(files_below(folder)) if folder.is_dir() else [folder]
    states = [(path, path.stat()) for path in paths if path.is_file()]
    return digest([(str(path.relative_to(folder.parent)), state.st_size, state.st_mtime_ns) for path, state in states])
