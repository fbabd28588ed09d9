"""Annotated frames, landmarks and codes as memory-mapped arrays, made once for all that learn from them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import InputError
from ..facs import ACTION_UNITS
from ..files import UNREADABLE, atomic_folder, digest, new_array, read_json, read_sealed, write_sealed
from ..plugins import versions
from .annotated import annotated_labels, annotated_landmarks, load_annotated_frames
from .common import dataset_folder
from .manifest import RENDERED_STAMP


@dataclass(frozen=True)
class AnnotatedFrames:
    """The frames of an annotated set, packed.

    Attributes:
        frames: uint8 (n, side, side, 3), memory-mapped.
        table: one row per frame, as ``annotated.read_annotated`` gives it.
        landmarks: float32 (n, 68, 2) in 0..1 of the side, NaN unknown.
        meta: dataset, size, fingerprint, and faces ("rendered faces" or the dataset).
    """

    frames: np.ndarray
    table: pd.DataFrame
    landmarks: np.ndarray
    meta: dict

    @property
    def action_units(self) -> tuple[str, ...]:
        """The AUs that are annotated, in ``facs.ACTION_UNITS`` order."""
        return tuple(name for name in ACTION_UNITS if name in self.table)

    @cached_property
    def labels(self) -> np.ndarray:
        """float32 (n, AUs): 0, 1 or NaN = unknown."""
        return annotated_labels(self.table, self.action_units)

    @cached_property
    def codes(self) -> np.ndarray:
        """float32 (n, AUs), as annotated: 0 to 5, or 0 and 1 where the set has no intensities; NaN = unknown."""
        return self.table[list(self.action_units)].to_numpy(np.float32)

    @cached_property
    def subjects(self) -> np.ndarray:
        """Who is on each frame, text (n,)."""
        return self.table["subject"].to_numpy().astype(str)


def is_rendered(root: str | Path, dataset: str) -> bool:
    """Whether the set at ``root`` (or in the folder with its name below) is the embedded benchmark's."""
    return (dataset_folder(root, dataset) / RENDERED_STAMP).is_file()


def pack_annotated(
    table: pd.DataFrame,
    root: str | Path,
    folder: str | Path,
    size: int,
    *,
    align: bool = False,
    openface: str | Path | None = None,
    drawn: Callable[[str | Path, pd.DataFrame], np.ndarray],
) -> AnnotatedFrames:
    """The annotated frames of a set as one memory-mapped array with their landmarks, made if they are not there.

    Args:
        table: from ``annotated.read_annotated`` (all its rows or some).
        root: folder of the set. folder: where the packed frames go. size: side of the pictures, pixels.
        align, openface: cut the faces out of the pictures; as in ``annotated.load_annotated_frames``.
        drawn: (root, table) -> landmarks of rendered frames that are not cut (``synth.drawn_landmarks``).
    """
    folder, dataset = Path(folder), table.attrs.get("dataset", "annotated")
    fingerprint = digest(
        [
            dataset,
            size,
            digest(table.to_csv(index=False)),
            versions("annotated frames"),
            *[str(openface)] * bool(openface),
            *["aligned"] * align,
        ]
    )
    rendered = is_rendered(root, dataset)
    faces = "rendered faces" if rendered else dataset
    meta = {"dataset": dataset, "size": size, "fingerprint": fingerprint, "faces": faces}
    if read_json(folder / "meta.json") == meta:
        try:
            return open_annotated(folder)
        except InputError as error:
            print(f"{error}: they are made again", file=sys.stderr, flush=True)
    table = table.reset_index(drop=True)
    with atomic_folder(folder) as temporary:
        frames = new_array(temporary / "frames.npy", (len(table), size, size, 3), np.uint8)
        load_annotated_frames(root, table, size, align=align, openface=openface, out=frames, progress=True)
        frames.flush()
        if rendered and not (align or openface):
            points = drawn(root, table)
        else:
            points = annotated_landmarks(root, table, align=align, openface=openface)
        np.save(temporary / "landmarks.npy", points)
        table.to_parquet(temporary / "table.parquet")
        write_sealed(temporary / "meta.json", meta)
    return open_annotated(folder)


def open_annotated(folder: str | Path) -> AnnotatedFrames:
    """What ``pack_annotated`` made.

    Raises:
        InputError: nothing there, or not whole.
    """
    folder = Path(folder)
    try:
        packed = AnnotatedFrames(
            np.load(folder / "frames.npy", mmap_mode="r"),
            pd.read_parquet(folder / "table.parquet"),
            np.load(folder / "landmarks.npy"),
            read_sealed(folder / "meta.json"),
        )
        if not len(packed.frames) == len(packed.table) == len(packed.landmarks):
            raise ValueError(
                f"{len(packed.frames)} frames, {len(packed.table)} rows, {len(packed.landmarks)} of landmarks"
            )
        return packed
    except (*UNREADABLE, pa.ArrowException) as error:
        raise InputError(
            folder,
            "packed annotated frames",
            f"{type(error).__name__}: {error}",
            "frames.npy, landmarks.npy, table.parquet and meta.json; delete the folder to make them again",
        ) from None
