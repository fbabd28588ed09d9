"""The one way in which a study keeps what a step has made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..files import atomic_folder, digest, files_below, write_json

STAMP = "stamp.json"


def cached_step(folder: Path, made_of: object, make: Callable[[Path], None]) -> Path:
    """The folder of a step, made again when anything that it was made of has changed.

    Args:
        made_of: everything that can change the result, as JSON: settings, digests or ``file_states`` of what is read,
            and ``versions`` of the code.
        make: writes the files into the folder that it is given, which then takes the place of the old one.

    Returns:
        ``folder``.
    """
    stamp = digest(made_of)
    if read_stamp(folder) != stamp:
        with atomic_folder(folder, STAMP) as temporary:
            make(temporary)
            write_json(temporary / STAMP, {"stamp": stamp})
    return folder


def read_stamp(folder: Path) -> str:
    """The stamp of a step's folder; "" where nothing whole is there."""
    try:
        return json.loads((folder / STAMP).read_text())["stamp"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def file_states(folder: Path) -> str:
    """Digest of the name, size and time of the last change of every file below a folder, or of one file or none."""
    paths = sorted(files_below(folder)) if folder.is_dir() else [folder]
    states = [(path, path.stat()) for path in paths if path.is_file()]
    return digest([(str(path.relative_to(folder.parent)), state.st_size, state.st_mtime_ns) for path, state in states])
