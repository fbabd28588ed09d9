"""RAVDESS: acted, frontal, clean; the label is in the file name (field notes: DATASETS.md D.6)."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass

from ..errors import InputError
from ..facs import LABEL_SPACES
from .common import dataset_folder, make_manifest
from .manifest import VIDEO_SUFFIXES, Manifest

FOLDS = 5


@dataclass(frozen=True)
class Trial:
    """The seven fields of a RAVDESS name, two digits each, as text."""

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    actor: str

    @property
    def expression(self) -> int | None:
        """Index in ``EXPRESSIONS``; ``None`` for calm."""
        return LABEL_SPACES["RAVDESS"].parse(self.emotion, "RAVDESS name", "third field (emotion)")


def parse_name(path: str | os.PathLike) -> Trial:
    """The fields of a trial's file name (a video, or an OpenFace table of it).

    Raises:
        InputError: not seven two-digit fields, or an emotion outside 01..08.

    Example:
        >>> parse_name("02-01-06-01-02-01-12.mp4").actor
        '12'
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    if not re.fullmatch(r"\d\d(-\d\d){6}", stem):
        raise InputError(path, "file name", repr(stem), "seven two-digit fields as in 02-01-06-01-02-01-12")
    trial = Trial(*stem.split("-"))
    LABEL_SPACES["RAVDESS"].parse(trial.emotion, path, "third field of the name (emotion)")
    return trial


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error") -> Manifest:
    """Manifest of the videos found; every fifth actor (beginning with the ``fold``-th) is the test set.

    The same trial is published with and without sound: video-only (02) is taken where both are there, audio-only (03)
    never. Calm is outside the seven; ``dropped`` counts it. Speech and song are both read.

    Args:
        missing: accepted for uniformity; there is no list of what should be here.

    Raises:
        InputError: no videos, a file name that is not RAVDESS's, a fold outside 1..5.
    """
    if fold not in range(1, FOLDS + 1):
        raise InputError("RAVDESS", "fold", fold, f"1 to {FOLDS}")
    base = dataset_folder(root, "RAVDESS")
    videos = sorted(p for p in base.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    if not videos:
        raise InputError(base, "videos of RAVDESS", "none", "Actor_01/02-01-01-01-01-01-01.mp4 and so on")
    trials = {path: parse_name(path) for path in videos}
    silent = {path.stem[2:] for path, trial in trials.items() if trial.modality == "02"}
    actors = sorted({trial.actor for trial in trials.values()})
    test = {
        actor for index, actor in enumerate(actors) if index % FOLDS == (fold - 1) % min(FOLDS, max(1, len(actors)))
    }
    if len(actors) == 1:
        test = set()
    rows, dropped = [], Counter()
    for path, trial in trials.items():
        if trial.modality == "03" or (trial.modality == "01" and path.stem[2:] in silent):
            dropped["second copy of a trial or audio only"] += 1
        elif trial.expression is None:
            dropped["calm"] += 1
        else:
            rows.append(
                {
                    "clip_id": path.stem,
                    "path": str(path.relative_to(base)),
                    "subject": trial.actor,
                    "split": "test" if trial.actor in test else "train",
                    "expression": trial.expression,
                }
            )
    return make_manifest("RAVDESS", base, rows, dict(dropped), fold)
