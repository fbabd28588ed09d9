"""Packed clips: some frames of every clip in one memory-mapped array, so that training opens no image files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .. import files
from ..errors import InputError
from ..progress import progress as progress_bar
from .manifest import Manifest, frame_numbers, load_frames
from .sampling import uniform_indices

RULE = "centres of equal segments; short clips repeat"


@dataclass
class PackedClips:
    """Clips ready for a network.

    Attributes:
        frames: uint8 (N, T, H, W, 3), read-only memory map, RGB.
        frame_numbers: int32 (N, T), the ``frame`` of each packed frame in its clip (as in the AU table).
        manifest: the manifest's table, rows aligned with ``frames``.
        meta: dataset, fold, num_frames, size, rule (how frames were chosen), fingerprint (of the data), embedded,
            dropped.
    """

    frames: np.ndarray
    frame_numbers: np.ndarray
    manifest: pd.DataFrame
    meta: dict

    def __len__(self) -> int:
        return len(self.frames)

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
        """(N,) int64 index in ``EXPRESSIONS``."""
        return self.manifest["expression"].to_numpy(np.int64)

    @property
    def clip_ids(self) -> list[str]:
        """(N,) clip names."""
        return self.manifest["clip_id"].tolist()


def pack(
    manifest: Manifest, out: str | os.PathLike, num_frames: int, size: int, progress: bool = True
) -> PackedClips:
    """Read every clip once; store ``num_frames`` frames of it, chosen by ``uniform_indices``, at ``size`` x ``size``.

    A store that is already there from the same data and settings is opened instead. The folder appears whole or not
    at all.

    Args:
        manifest: what to pack; rows keep their order.
        out: folder to make: ``frames.npy``, ``frame_numbers.npy``, ``manifest.parquet``, ``meta.json``.
        num_frames: frames of every clip, at least 1; shorter clips repeat frames.
        size: side in pixels.
        progress: show a bar, in clips.

    Raises:
        InputError: a clip cannot be read; a number below 1.
        AudferError: the disk is full.
    """
    if num_frames < 1 or size < 1:
        raise InputError("pack", "num_frames, size", f"{num_frames}, {size}", "numbers of at least 1")
    out = Path(out)
    meta = {
        "dataset": manifest.name,
        "fold": manifest.fold,
        "num_frames": num_frames,
        "size": size,
        "rule": RULE,
        "fingerprint": manifest.fingerprint(),
        "embedded": manifest.embedded,
        "dropped": manifest.dropped,
        "code": files.code_version("datasets"),
    }
    if (out / "meta.json").is_file() and json.loads((out / "meta.json").read_text()) == meta:
        return open_packed(out)
    with files.atomic_folder(out) as folder:
        shape = (len(manifest), num_frames, size, size, 3)
        frames = np.lib.format.open_memmap(folder / "frames.npy", mode="w+", dtype=np.uint8, shape=shape)
        numbers = np.empty(shape[:2], np.int32)
        rows = manifest.table.itertuples(index=False)
        for index, row in enumerate(
            progress_bar(rows, total=len(manifest), desc=f"pack {manifest.name}", unit="clip", disable=not progress)
        ):
            available = frame_numbers(manifest, row)
            chosen = uniform_indices(len(available), num_frames)
            frames[index] = load_frames(manifest, row, chosen, size)
            numbers[index] = available[chosen]
        frames.flush()
        del frames
        np.save(folder / "frame_numbers.npy", numbers)
        manifest.table.to_parquet(folder / "manifest.parquet", index=False)
        files.write_json(folder / "meta.json", meta)
    return open_packed(out)


def open_packed(out: str | os.PathLike) -> PackedClips:
    """Open what ``pack`` stored, without reading the frames into memory.

    Raises:
        InputError: no packed clips there.
    """
    out = Path(out)
    if not (out / "meta.json").is_file():
        raise InputError(out, "packed clips", "no meta.json", "a folder made by audfer data pack")
    return PackedClips(
        np.load(out / "frames.npy", mmap_mode="r"),
        np.load(out / "frame_numbers.npy"),
        pd.read_parquet(out / "manifest.parquet"),
        json.loads((out / "meta.json").read_text()),
    )
