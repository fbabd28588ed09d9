"""Records of audfer 0.1, whose keys held digests of source files, under the keys of this version.

Nothing is trained: a record holds its cell and what it was trained from, so its key of today can be computed as long as
the packed clips that it was trained on are still there and unchanged.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..datasets import open_packed
from ..errors import AudferError, InputError
from ..files import digest, write_json
from .loop import Cell, CellInputs
from .records import RunRecord, RunStore


def migrate_store(old: str | Path, new: str | Path) -> pd.DataFrame:
    """Copy the records of an older store to a new one, under their keys of today; the older store stays as it is.

    Args:
        old: folder of records. new: folder to copy to; a record that is already there is left alone.

    Returns:
        One row per record: ``record`` (its old key), ``key`` (the new one; "" where it was refused), ``reason`` (why).

    Raises:
        InputError: ``old`` holds no records.
    """
    folders = sorted(path.parent for path in Path(old).glob("*/record.json"))
    if not folders:
        raise InputError(old, "run records", "none", "a folder with one folder per record, record.json in each")
    store, rows = RunStore(new), []
    for folder in folders:
        try:
            key = _copy(folder, store)
            rows.append((folder.name, key, ""))
        except (AudferError, OSError, ValueError, KeyError, TypeError) as error:
            rows.append((folder.name, "", str(error)))
    table = pd.DataFrame(rows, columns=["record", "key", "reason"])
    if (Path(old) / store.grid_path.name).is_file() and not store.grid_path.is_file():
        grid = json.loads((Path(old) / store.grid_path.name).read_text())
        keys = dict(zip(table["record"], table["key"], strict=True))
        cells = [{**entry, "key": keys.get(entry.get("key"))} for entry in grid["cells"]]
        write_json(store.grid_path, {**grid, "cells": cells, "made_with": ""})
    return table


def _copy(folder: Path, store: RunStore) -> str:
    RunRecord.load(folder)  # whole, and in a format that is still known
    content = json.loads((folder / "record.json").read_text())
    content.pop("digest", None)  # of the content as it was
    inputs = CellInputs(**content["inputs"])
    packed = open_packed(inputs.packed)
    then = digest({name: packed.meta[name] for name in ("fingerprint", "num_frames", "size", "rule")})
    if then != inputs.fingerprint:
        raise InputError(inputs.packed, "packed clips", "others than the record was trained on", "the same clips")
    inputs = replace(inputs, fingerprint=packed.content)
    key = store.key(Cell(**content["cell"]), inputs)
    if not store.has(key):
        with store.writing(key) as place:
            shutil.copytree(folder, place, dirs_exist_ok=True)
            content["inputs"]["fingerprint"] = inputs.fingerprint
            write_json(place / "record.json", {**content, "key": key, "migrated_from": folder.name})
    return key
