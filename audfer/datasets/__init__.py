"""Datasets as users have them on disk: one reader each, one manifest for all, packing, and the choice of frames."""

from __future__ import annotations

import os

from . import afew, affwild2, dfew, disfa, ferv39k, folder, mafw, ravdess
from .annotated import annotated_labels, annotated_landmarks, load_annotated_frames, read_annotated
from .check import AnnotatedCheck, DatasetCheck, check_dataset
from .common import known_name, reader_choices
from .manifest import Manifest, frame_numbers, list_frames, load_frames
from .packing import PackedClips, open_packed, pack

#: dataset -> its reader
READERS = {
    "DFEW": dfew.read,
    "FERV39k": ferv39k.read,
    "MAFW": mafw.read,
    "AFEW": afew.read,
    "AffWild2": affwild2.read,
    "RAVDESS": ravdess.read,
    "folder": folder.read,
    "DISFA": disfa.read,
}
#: dataset -> its folds; the others have one split
FOLDS = {"DFEW": dfew.FOLDS, "MAFW": mafw.FOLDS, "RAVDESS": ravdess.FOLDS, "folder": folder.FOLDS, "DISFA": disfa.FOLDS}


def dataset_name(name: str) -> str:
    """A dataset's name as ``READERS`` writes it, from any capitals.

    Raises:
        InputError: there is no reader for it.
    """
    return known_name(name, READERS, "read_dataset")


def read_dataset(
    name: str,
    root: str | os.PathLike,
    fold: int = 1,
    *,
    missing: str = "error",
    splits: str | os.PathLike | None = None,
    **choices,
) -> Manifest:
    """Manifest of a dataset as it lies on disk.

    Args:
        name: one of ``READERS``, any capitals; ``folder`` is anybody's own clips, a folder a class.
        root: the dataset's folder, or a folder that holds one with the dataset's name.
        fold: of DFEW and MAFW 1 to 5, RAVDESS 1 to 5 (by actor), DISFA 1 to 3 (by subject), folder 1 to 5; the others
            have one split.
        missing: what to do about listed clips that are not on disk or have no frames: "error"; "drop" (they are
            counted in ``Manifest.dropped``); "keep" (nothing is looked at: ``check_dataset`` and ``pack`` name them).
        splits: a split list of MAE-DFER's ("path label") or Former-DFER's ("path frames label") form, or a folder of
            such lists, instead of the dataset's own.
        **choices: what else the dataset's reader lets one choose: ``clips`` (which copy of the clips), ``classes``
            ("seven" or "all"), ``channel`` (RAVDESS), ``window`` (Aff-Wild2).

    Raises:
        InputError: unknown dataset, missing folder or list, labels the dataset does not have, clips missing or
            without frames, a choice that this dataset does not offer.

    Example:
        manifest = read_dataset("DFEW", "/data/DFEW", fold=1)
        manifest.check()                    # counts beside the published ones
        clips = pack(manifest, "work/DFEW_16x112", num_frames=16, size=112)
    """
    name = dataset_name(name)
    reader = READERS[name]
    choices = reader_choices(name, reader, {"splits": splits, **choices})
    return reader(root, fold, missing=missing, **choices)


__all__ = [
    "AnnotatedCheck",
    "DatasetCheck",
    "FOLDS",
    "Manifest",
    "PackedClips",
    "READERS",
    "annotated_labels",
    "annotated_landmarks",
    "check_dataset",
    "dataset_name",
    "frame_numbers",
    "list_frames",
    "load_annotated_frames",
    "load_frames",
    "open_packed",
    "pack",
    "read_annotated",
    "read_dataset",
    "sampling",
]
