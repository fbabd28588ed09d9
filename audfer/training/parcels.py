"""Run records on their way to another machine: zip files of a size that any channel takes, without weights."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import AudferError, InputError
from ..files import UNREADABLE, atomic_file, scratch_folder, write_text
from .records import WEIGHTS_FILE, RunStore, read_meta, write_meta

#: bytes of a file
LARGEST = 16 * 2**20
#: what a record's member or the list of cells may be called, and how large it may say that it is
_NAME = re.compile(r"grid\.json|([0-9a-z]+)/(record\.json|history\.csv|test\.npz)")
_LARGEST_MEMBER = 2**28
#: what an entry takes in a zip file beside its content and twice its name, at most
_ENTRY = 200


def export_records(store: RunStore, out: str | Path, largest: int = LARGEST) -> list[Path]:
    """Pack the whole records of a store; tables and figures are the same from what arrives, but nothing that needs a
    trained network.

    Features travel only with the cells that Fig. 8 needs, as far as ``grid.json`` says so (without it all do).

    Args:
        out: folder for ``records-000.zip`` and so on; existing ones are replaced. largest: bytes of one of them.

    Raises:
        InputError: no records there, one that is damaged, or one that does not fit a file.
    """
    out = Path(out)
    shown = _with_features(store)
    keys = sorted(path.parent.name for path in store.folder.glob("[!.]*/record.json"))
    if not keys:
        raise InputError(store.folder, "run records", "none", "a folder of run records, work/<profile>/runs or a copy")
    parcels: list[dict[str, bytes]] = [{}]
    if store.grid_path.is_file():
        parcels[0]["grid.json"] = store.grid_path.read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out / ".record") as scratch:
        for key in keys:
            if damage := store.damage(key, weights=False):
                raise InputError(store.path(key), "run record", damage, "a whole one; delete it, or make it again")
            files = {
                f"{key}/{name}": content
                for name, content in _light(store.path(key), scratch / key, shown is None or key in shown)
            }
            if _size(files) > largest:
                raise InputError(store.path(key), "bytes of the record", _size(files), f"at most {largest}")
            if _size(parcels[-1]) + _size(files) > largest and parcels[-1]:
                parcels.append({})
            parcels[-1] |= files
    for left in out.glob("records-[0-9][0-9][0-9].zip"):
        left.unlink()
    return [_write(out / f"records-{number:03d}.zip", files) for number, files in enumerate(parcels)]


def import_records(store: RunStore, files: list[str | Path]) -> tuple[list[str], list[str]]:
    """Take over what ``export_records`` packed; a record that is there already stays.

    Returns:
        Keys of records that were taken over, and of those that were there.

    Raises:
        InputError: no such file, or one that holds anything else or damaged records.
    """
    taken, present = [], []
    for file in map(Path, files):
        records = _read(file)
        grid = records.pop("", {}).get("grid.json")
        for key, content in records.items():
            if store.has(key, weights=False):
                present.append(key)
                continue
            with store.writing(key) as folder:
                # it becomes the record only if it is a whole one
                with scratch_folder(store.folder / ".arriving") as scratch:
                    (scratch / key).mkdir()
                    for name, data in content.items():
                        (scratch / key / name).write_bytes(data)
                    if damage := RunStore(scratch).damage(key) or _lacks(content):
                        raise InputError(file, f"record {key}", damage, "what audfer records export wrote")
                for name, data in content.items():
                    (folder / name).write_bytes(data)
            taken.append(key)
        if grid and not store.grid_path.exists():
            write_text(store.grid_path, grid.decode())
    return taken, present


def _with_features(store: RunStore) -> set[str] | None:
    """Keys of the records that Fig. 8 shows; ``None`` where nothing says which."""
    if not store.grid_path.is_file():
        return None
    grid = store.read_grid()
    return {grid["cells"][number]["key"] for number in grid["outputs"].get("fig8", ())}


def _light(record: Path, folder: Path, features: bool) -> Iterator[tuple[str, bytes]]:
    """A record's files as they travel, with a ``record.json`` that says what they are; the same twice."""
    meta = read_meta(record)
    folder.mkdir()
    for name in ("history.csv", "test.npz"):
        data = (record / name).read_bytes()
        if name == "test.npz" and not features:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                kept = {name: arrays[name] for name in arrays.files if name != "features"}
                if len(kept) < len(arrays.files):
                    np.savez_compressed(folder / name, **kept)
                    data = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
    if meta["files"].get(WEIGHTS_FILE) or not features:
        write_meta(folder, meta)
    else:  # it has travelled before
        (folder / "record.json").write_bytes((record / "record.json").read_bytes())
    for path in sorted(folder.iterdir()):
        yield path.name, path.read_bytes()


def _size(files: dict[str, bytes]) -> int:
    """Bytes of a zip file, at most; what is in it is stored as it is, or smaller."""
    return sum(len(content) + len(content) // 1000 + 2 * len(name) + _ENTRY for name, content in files.items())


def _write(path: Path, files: dict[str, bytes]) -> Path:
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as parcel:
        for name, content in files.items():  # without times: equal records make equal files
            parcel.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def _read(file: Path) -> dict[str, dict[str, bytes]]:
    """Record's key (of the list of cells: "") -> file name -> content."""
    records: dict[str, dict[str, bytes]] = {}
    expected = "a file that audfer records export wrote"
    try:
        with zipfile.ZipFile(file) as parcel:
            for member in parcel.infolist():
                name = _NAME.fullmatch(member.filename)
                if not name or member.file_size > _LARGEST_MEMBER:
                    raise InputError(file, "member", f"{member.filename} of {member.file_size} bytes", expected)
                records.setdefault(name[1] or "", {})[name[2] or "grid.json"] = parcel.read(member)
        json.loads(records.get("", {}).get("grid.json", b"{}"))
    except AudferError:
        raise
    except UNREADABLE as error:
        raise InputError(file, "records", f"{type(error).__name__}: {error}", expected) from None
    return records


def _lacks(content: dict[str, bytes]) -> str:
    missing = {"record.json", "history.csv", "test.npz"} - content.keys()
    return f"without {', '.join(sorted(missing))}" if missing else ""
