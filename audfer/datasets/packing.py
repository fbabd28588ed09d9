"""Packed clips: some frames of every clip in one memory-mapped array, so that training opens no image files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from .. import files
from ..errors import InputError
from ..jobs.workers import ahead, chunks, each
from ..openface import measured_size
from ..plugins import versions
from ..progress import progress as progress_bar
from ..sampling import uniform_indices
from . import alignment
from .manifest import Manifest, frame_numbers, load_frames, picture_sizes

#: of the store on disk. 1: frames, frame numbers, manifest, meta; 2: with quarantine and alignment, otherwise the same
FORMAT = 2
RULE = "centres of equal segments; short clips repeat"
QUARANTINE = ("clip_id", "path", "split", "expression", "reason")
#: clips a chunk: what a killed run has to do again
CHUNK = 16
#: clips and frames a clip on the contact sheet
_SHEET = (8, 6)
#: what a store consists of
_FILES = (
    "frames.npy",
    "frame_numbers.npy",
    "manifest.parquet",
    "quarantine.csv",
    "meta.json",
    "alignment.csv",
    "contact_sheet.png",
)


@dataclass
class PackedClips:
    """Clips ready for a network.

    Attributes:
        frames: uint8 (N, T, H, W, 3), read-only memory map, RGB.
        frame_numbers: int32 (N, T), the ``frame`` of each packed frame in its clip (as in the AU table).
        manifest: the manifest's table, rows aligned with ``frames``.
        meta: format (of the store), dataset, fold, num_frames, size, rule (how frames were chosen), alignment,
            fingerprint (of the data), pixels (digest of ``frames.npy``), rows (``rows_digest``), embedded, dropped,
            classes, notes, quarantined (how many clips were left out).
        quarantine: clips that could not be read, with the reason: clip_id, path, split, expression, reason. They are in
            neither ``frames`` nor ``manifest``, so the counts of their classes are smaller by them.
    """

    frames: np.ndarray
    frame_numbers: np.ndarray
    manifest: pd.DataFrame
    meta: dict
    quarantine: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(QUARANTINE)))

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def content(self) -> str:
        """Digest of the pixels, the frame numbers and the manifest's rows: what a network can learn from.

        It does not depend on where the clips lie or when they were packed, so that records survive packing again.
        """
        pixels = self.meta.get("pixels") or files.file_digest(self.frames.filename)
        return files.digest([pixels, self.frame_numbers.tolist(), _rows(self.manifest), self.meta["rule"]])

    def split(self, name: str) -> np.ndarray:
        """Positions of one split's clips, int (n,).

        Raises:
            InputError: no clip has this split.
        """
        index = np.nonzero((self.manifest["split"] == name).to_numpy())[0]
        if not len(index):
            raise InputError(
                f"packed {self.meta['dataset']}",
                "split",
                repr(name),
                f"one of {', '.join(sorted(set(self.manifest['split'])))}",
            )
        return index

    @property
    def expressions(self) -> np.ndarray:
        """(N,) int64 index in ``meta["classes"]`` (the first seven are ``EXPRESSIONS``)."""
        return self.manifest["expression"].to_numpy(np.int64)

    @property
    def clip_ids(self) -> list[str]:
        """(N,) clip names."""
        return self.manifest["clip_id"].tolist()


def pack(
    manifest: Manifest,
    out: str | os.PathLike,
    num_frames: int,
    size: int,
    progress: bool = True,
    *,
    workers: int = 1,
    align: str | os.PathLike | None = None,
) -> PackedClips:
    """Read every clip once; store ``num_frames`` frames of it, chosen by ``uniform_indices``, at ``size`` x ``size``.

    A store that is already there from the same data and settings is opened instead. The folder appears whole or not at
    all; what a killed run had finished lies beside it (``.<name>.packing``) and the next one goes on from there. Clips
    that cannot be read are left out and listed in ``quarantine.csv``. The bytes do not depend on ``workers``.

    Args:
        manifest: what to pack; rows keep their order.
        out: folder to make: ``frames.npy``, ``frame_numbers.npy``, ``manifest.parquet``, ``quarantine.csv``,
            ``meta.json``; with ``align`` also ``alignment.csv`` and ``contact_sheet.png``.
        num_frames: frames of every clip, at least 1; shorter clips repeat frames.
        size: side in pixels.
        progress: show a bar, in clips.
        workers: processes.
        align: folder of OpenFace's CSVs with landmarks (``<clip_id>.csv``): faces are cut out by a similarity transform
            (``alignment``). Frames without landmarks take the nearest frame's; a clip without any is quarantined.

    Raises:
        InputError: no clip can be read; a number below 1; ``out`` holds something else than a packed store.
        AudferError: the disk is full; another process packs into the same folder; a worker process was killed.
    """
    if num_frames < 1 or size < 1:
        raise InputError("pack", "num_frames, size", f"{num_frames}, {size}", "numbers of at least 1")
    if align is not None and not os.path.isdir(align):
        raise InputError(align, "folder of OpenFace's CSVs", "no such folder", "a folder with <clip_id>.csv")
    out = Path(os.path.abspath(out))
    if os.path.lexists(out) and not (out / "meta.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(out, "folder to write", "something else than a packed store", "a new folder")
    files.require_replaceable(out, _FILES)  # before the work, not after it
    meta = {
        "format": FORMAT,
        "dataset": manifest.name,
        "fold": manifest.fold,
        "num_frames": num_frames,
        "size": size,
        "rule": RULE,
        "alignment": None if align is None else tracks_of(manifest, align),
        **({} if align is None else {"tracks changed": _times(manifest, align)}),
        "fingerprint": manifest.fingerprint(),
        "embedded": manifest.embedded,
        "dropped": manifest.dropped,
        "classes": list(manifest.classes),
        "notes": list(manifest.notes),
        "code": versions("packing"),
    }
    if whole := made(out, meta):
        return whole
    work = out.with_name(f".{out.name}.packing")
    with files.locked(work, "packed store", "to write"):
        if not made(out, meta):  # another process may have finished it while this one waited for the lock
            store = work / "store"
            _prepare(work, meta, (len(manifest), num_frames, size, size, 3))
            done = _pack_chunks(manifest, work, num_frames, size, align, workers, progress)
            try:
                _finish(manifest, store, meta, done, align)
            except InputError:  # nothing worth going on from
                files.remove_tree(work, out.parent)
                raise
            files.replace_folder(store, out, _FILES)
        files.remove_tree(work, out.parent)
    return open_packed(out)


def open_packed(out: str | os.PathLike) -> PackedClips:
    """Open what ``pack`` stored, without reading the frames into memory.

    Raises:
        InputError: no packed clips there, or of a format that this version does not know.
    """
    out = Path(out)
    try:
        expected = f"1 to {FORMAT}: pack the clips again, or update audfer"
        meta = files.read_sealed(out / "meta.json", range(1, FORMAT + 1), expected)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(out, "packed clips", "no meta.json", "a folder made by audfer data pack") from None
    except files.UNREADABLE as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError(out / "meta.json", "packed clips", found, "what audfer data pack wrote") from None
    if missing := [name for name in ("dataset", "rule", "classes", "fingerprint") if name not in meta]:
        raise InputError(out / "meta.json", "packed clips", f"no {', '.join(missing)}", "what audfer data pack wrote")
    try:
        frames, numbers = np.load(out / "frames.npy", mmap_mode="r"), np.load(out / "frame_numbers.npy")
        packed = PackedClips(frames, numbers, pd.read_parquet(out / "manifest.parquet"), meta)
        if (out / "quarantine.csv").is_file():
            text = {"clip_id": str, "path": str}
            lost = files.read_csv(out / "quarantine.csv", dtype=text, keep_default_na=False)
            packed.quarantine = files.from_spreadsheets(lost)
        if not len(frames) == len(numbers) == len(packed.manifest):
            raise ValueError(f"{len(frames)} clips, {len(numbers)} rows of frames, {len(packed.manifest)} of clips")
        if meta.get("rows", known := rows_digest(packed.manifest, numbers)) != known:
            raise ValueError("manifest.parquet or frame_numbers.npy is not what was written")
    except (*files.UNREADABLE, pa.ArrowException) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(out, "packed clips", found, "a whole store (audfer data pack makes one)") from None
    return packed


def rows_digest(manifest: pd.DataFrame, frame_numbers: np.ndarray) -> str:
    """Digest of which clips and frames a store holds, in which order, with which labels; kept as ``rows`` in its
    ``meta.json``.
    """
    return files.digest([frame_numbers.tolist(), _rows(manifest)])


def _rows(manifest: pd.DataFrame) -> str:
    return manifest.drop(columns=["path"], errors="ignore").to_csv(index=False)


# -------------------------------------------------------------------------------------------------------- the steps


def made(out: Path, meta: dict) -> PackedClips | None:
    """The store that is there, if its metadata hold all of ``meta`` and it is whole; a damaged one is named."""
    stored = files.read_json(out / "meta.json")
    try:
        if {key: stored.get(key) for key in meta} == meta:
            return open_packed(out)
    except InputError as error:
        print(f"{error}; it is made again", file=sys.stderr, flush=True)
    return None


def tracks_of(manifest: Manifest, folder: str | os.PathLike) -> dict:
    """What the alignment depends on: the template, and the sizes of the clips' OpenFace files and of their pictures as
    far as OpenFace noted these.
    """
    tracks = {clip_id: alignment.track_file(folder, clip_id) for clip_id in manifest.table["clip_id"]}
    sizes = {clip_id: os.path.getsize(file) if file else -1 for clip_id, file in tracks.items()}
    noted = {clip_id: size for clip_id, file in tracks.items() if file and (size := measured_size(file))}
    return {"template": alignment.TEMPLATE.tolist(), "tracks": files.digest([sizes, noted] if noted else sizes)}


def _times(manifest: Manifest, folder: str | os.PathLike) -> str:
    """When the clips' OpenFace files were last changed; not in ``tracks_of``, which a copied folder leaves equal."""
    tracks = [alignment.track_file(folder, clip_id) for clip_id in manifest.table["clip_id"]]
    return files.digest([file and os.stat(file).st_mtime_ns for file in tracks])


def _prepare(work: Path, meta: dict, shape: tuple[int, ...]) -> None:
    """An empty array of the final size and a note what it is for; kept if the last run wanted the same."""
    plan = work / "plan.json"
    if files.read_json(plan) == meta:
        return
    plan.unlink(missing_ok=True)
    for name in ("store", "done"):
        files.remove_tree(work / name, work)
        (work / name).mkdir()
    try:
        files.new_array(work / "store" / "frames.npy", shape, np.uint8)  # a disk that is too small is noticed now
    except files.DiskFull:
        files.remove_tree(work, work.parent)
        raise
    files.write_json(plan, meta)


def _pack_chunks(manifest, work, num_frames, size, align, workers, progress) -> list[dict]:
    """What the chunks gave, in order; those that an earlier run finished are not read again."""
    parts = chunks(list(range(len(manifest))), CHUNK)
    marks = [work / "done" / f"{number:06d}.json" for number in range(len(parts))]
    left = [number for number, mark in enumerate(marks) if not mark.is_file()]

    def tasks() -> Iterable[tuple]:
        for number in left:
            rows = manifest.table.iloc[parts[number]]
            part = replace(manifest, table=rows, listed_frames={}, repeated=())
            yield part, parts[number][0], work, marks[number], num_frames, size, align

    with progress_bar(total=len(manifest), desc=f"pack {manifest.name}", unit="clip", disable=not progress) as bar:
        bar.update(len(manifest) - sum(len(parts[number]) for number in left))
        for count in each(_pack_chunk, tasks(), workers if len(left) > 1 else 1):
            bar.update(count)
    return [json.loads(mark.read_text()) for mark in marks]


def _pack_chunk(task: tuple) -> int:
    """Write one chunk's rows into the array, then its mark: without the mark the rows count as not written."""
    manifest, first, work, mark, num_frames, size, align = task
    block = np.zeros((len(manifest), num_frames, size, size, 3), np.uint8)
    numbers, reasons, quality = [], {}, []

    def read(row) -> tuple[np.ndarray, list[int], dict | None] | InputError:
        try:
            available = frame_numbers(manifest, row)
            chosen = uniform_indices(len(available), num_frames)
            if align is None:
                return load_frames(manifest, row, chosen, size), available[chosen].tolist(), None
            sizes = picture_sizes(manifest, row, available[chosen])
            cuts = alignment.clip_alignment(align, row.clip_id, available[chosen], sizes)
            return (
                cuts.cut(load_frames(manifest, row, chosen), size),
                available[chosen].tolist(),
                {"clip_id": row.clip_id, **cuts.quality()},
            )
        except InputError as error:
            return error

    # faces are cut out of whole video frames, which are large: one clip of them in memory at a time
    for position, found in enumerate((map if align else ahead)(read, manifest.table.itertuples(index=False))):
        if isinstance(found, InputError):
            reasons[position] = str(found)
            numbers.append([-1] * num_frames)
            continue
        block[position], listed, cut = found
        numbers.append(listed)
        if cut is not None:
            quality.append(cut)
    try:
        with open(work / "store" / "frames.npy", "r+b") as handle:
            # plain writes: a full disk then gives an error, where a memory map would kill the process
            np.lib.format.read_magic(handle)
            np.lib.format.read_array_header_1_0(handle)  # leaves the handle where the array begins
            handle.seek(first * block[0].nbytes, os.SEEK_CUR)
            handle.write(block.tobytes())
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise files.disk_error(work, error) from error
    files.write_json(mark, {"numbers": numbers, "reasons": reasons, "quality": quality})
    return len(manifest)


def _finish(manifest: Manifest, store: Path, meta: dict, done: list[dict], align) -> None:
    """Everything beside the pictures; the metadata last."""
    reasons = {
        number * CHUNK + int(position): reason
        for number, chunk in enumerate(done)
        for position, reason in chunk["reasons"].items()
    }
    numbers = np.array([row for chunk in done for row in chunk["numbers"]], np.int32)
    kept = np.array([row for row in range(len(manifest)) if row not in reasons], int)
    if not len(kept):
        raise InputError(
            manifest.root,
            f"clips of {manifest.name}",
            f"none of {len(manifest)} can be read (first: {reasons[0]})",
            "at least one",
        )
    table = manifest.table.iloc[kept].reset_index(drop=True)
    lost = manifest.table.iloc[sorted(reasons)].assign(reason=[reasons[row] for row in sorted(reasons)])
    if reasons and len(np.load(store / "frames.npy", mmap_mode="r")) == len(manifest):
        # a new file rather than moving rows: a run killed here can do it again
        with files.atomic_file(store / "frames.npy") as temporary:
            whole = np.load(store / "frames.npy", mmap_mode="r")
            with open(temporary, "wb") as handle:
                shape = (len(kept), *whole.shape[1:])
                header = {"descr": np.lib.format.dtype_to_descr(whole.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(handle, header)
                for part in chunks(kept.tolist(), CHUNK):
                    handle.write(whole[part].tobytes())
    np.save(store / "frame_numbers.npy", numbers[kept])
    table.to_parquet(store / "manifest.parquet", index=False)
    files.for_spreadsheets(lost[list(QUARANTINE)]).to_csv(store / "quarantine.csv", index=False)
    if align is not None:
        quality = alignment.quality_table([row for chunk in done for row in chunk["quality"]])
        files.for_spreadsheets(quality).to_csv(store / "alignment.csv", index=False)
        _contact_sheet(replace(manifest, table=table, listed_frames={}), store, numbers[kept], align)
    pixels = files.file_digest(store / "frames.npy")
    known = {"quarantined": len(reasons), "pixels": pixels, "rows": rows_digest(table, numbers[kept])}
    files.write_sealed(store / "meta.json", {**meta, **known})


def _contact_sheet(manifest: Manifest, store: Path, numbers: np.ndarray, align) -> None:
    stored = np.load(store / "frames.npy", mmap_mode="r")
    clips, moments = _SHEET
    rows = []
    for index in np.unique(np.linspace(0, len(manifest) - 1, clips).round().astype(int)):
        row = manifest.row(int(index))
        shown = np.unique(np.linspace(0, numbers.shape[1] - 1, moments).round().astype(int))
        sizes = picture_sizes(manifest, row, numbers[index, shown])
        cuts = alignment.clip_alignment(align, row.clip_id, numbers[index, shown], sizes)
        position = np.searchsorted(frame_numbers(manifest, row), numbers[index, shown])
        quality = cuts.quality()
        title = (
            f"{row.clip_id}: eyes {quality['eye_distance']:.0f} px apart, "
            f"{quality['without_landmarks']} of {quality['frames']} without landmarks"
        )
        rows.append((title, load_frames(manifest, row, position), stored[index][shown], cuts))
    with files.atomic_file(store / "contact_sheet.png") as path:
        alignment.contact_sheet(rows).save(path)
