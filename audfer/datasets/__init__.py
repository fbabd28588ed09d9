"""Datasets as users have them on disk: one reader each, one manifest for all, packing, and the choice of frames."""

from __future__ import annotations

import os

from ..errors import InputError
from . import affwild2, dfew, disfa, ferv39k, mafw, ravdess, sampling
from .disfa import load_disfa_frames, read_disfa
from .manifest import Manifest, frame_numbers, list_frames, load_frames
from .packing import PackedClips, open_packed, pack

#: dataset -> its reader
READERS = {
    "DFEW": dfew.read,
    "FERV39k": ferv39k.read,
    "MAFW": mafw.read,
    "AffWild2": affwild2.read,
    "RAVDESS": ravdess.read,
    "DISFA": disfa.read,
}


def read_dataset(name: str, root: str | os.PathLike, fold: int = 1, *, missing: str = "error") -> Manifest:
    """Manifest of a dataset as it lies on disk.

    Args:
        name: one of ``READERS``, any capitals.
        root: the dataset's folder, or a folder that holds one with the dataset's name.
        fold: of DFEW and MAFW 1 to 5, RAVDESS 1 to 5 (by actor), DISFA 1 to 3 (by subject); the others have one
            split.
        missing: what to do about listed clips that are not on disk or have no frames: "error", or "drop" (they are
            counted in ``Manifest.dropped``).

    Raises:
        InputError: unknown dataset, missing folder or list, labels the dataset does not have, clips missing or
            without frames.

    Example:
        manifest = read_dataset("DFEW", "/data/DFEW", fold=1)
        manifest.check()                    # counts beside the published ones
        clips = pack(manifest, "work/DFEW_16x112", num_frames=16, size=112)
    """
    known = {key.lower(): key for key in READERS}
    if str(name).lower() not in known:
        raise InputError("read_dataset", "dataset", repr(name), f"one of {', '.join(READERS)}")
    return READERS[known[str(name).lower()]](root, fold, missing=missing)


__all__ = [
    "Manifest",
    "PackedClips",
    "READERS",
    "frame_numbers",
    "list_frames",
    "load_disfa_frames",
    "load_frames",
    "open_packed",
    "pack",
    "read_dataset",
    "read_disfa",
    "sampling",
]
