"""RAVDESS: acted, frontal, clean; the label is in the file name (field notes: DATASETS.md D.6)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..facs import EXPRESSIONS, LABEL_SPACES
from . import lists
from .common import Listing, check_fold, dataset_folder, keep_all, make_manifest
from .manifest import Manifest, is_video

FOLDS = 5
#: choice -> second field of the names
CHANNELS = {"speech": ("01",), "song": ("02",), "both": ("01", "02")}
#: choice -> first field of the names
MODALITIES = {"": "", "audio-video": "01", "video-only": "02"}


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


def read(
    root: str | os.PathLike,
    fold: int = 1,
    *,
    missing: str = "error",
    classes: str = "seven",
    channel: str = "speech",
    clips: str = "",
    splits=None,
) -> Manifest:
    """Manifest of the videos found; every fifth actor (beginning with the ``fold``-th) is the test set.

    The same trial is published with sound (01) and without (02): video-only is taken where both are there, audio-only
    (03) never. ``dropped`` counts what was left out.

    Args:
        missing: there is no list of what should be here: it matters with ``splits`` only.
        classes: "seven" leaves calm out; "all" keeps it as class 7.
        channel: "speech", "song" or "both". Song has no surprise and no disgust.
        clips: "audio-video" or "video-only"; "" takes either, each trial once.
        splits: a list or folder of lists of another project (``lists``), which then says which trials belong where.

    Raises:
        InputError: no videos, a file name that is not RAVDESS's, a fold outside 1..5, an unknown choice.
    """
    check_fold("RAVDESS", fold, FOLDS)
    every = keep_all("RAVDESS", classes)
    if channel not in CHANNELS:
        raise InputError("RAVDESS", "channel", repr(channel), f"one of {', '.join(CHANNELS)}")
    if clips not in MODALITIES:
        raise InputError("RAVDESS", "clips", repr(clips), "audio-video or video-only")
    base = dataset_folder(root, "RAVDESS")
    videos = sorted(
        Path(folder, name)
        for folder, below, names in os.walk(base)
        for name in names
        if is_video(name) and not name.startswith(".")
    )
    if not videos:
        raise InputError(base, "videos of RAVDESS", "none", "Actor_01/02-01-01-01-01-01-01.mp4 and so on")
    space = LABEL_SPACES["RAVDESS"]
    trials = {path: parse_name(path) for path in videos}
    silent = {path.stem[2:] for path, trial in trials.items() if trial.modality == "02"}
    listing = Listing("RAVDESS", base, fold, classes=space.classes if every else EXPRESSIONS)
    kept: dict[str, tuple[Path, Trial, int]] = {}
    for path, trial in trials.items():
        expression = space.parse(trial.emotion, path, every=every)
        if trial.modality == "03" or (MODALITIES[clips] and trial.modality != MODALITIES[clips]):
            listing.dropped["audio only, or another modality"] += 1
        elif (not clips and trial.modality == "01" and path.stem[2:] in silent) or path.stem in kept:
            listing.dropped["second copy of a trial"] += 1
        elif trial.channel not in CHANNELS[channel]:
            listing.dropped["song" if trial.channel == "02" else "speech"] += 1
        elif expression is None:
            listing.dropped["calm"] += 1
        else:
            kept[path.stem] = path, trial, expression
    listing.notes.append(f"channel: {channel}; calm {'kept as a class of its own' if every else 'left out'}")
    if splits is not None:
        _from_lists(listing, kept, splits, fold)
        return make_manifest(listing, missing)
    actors = sorted({trial.actor for trial in trials.values()})
    test = set(actors[(fold - 1) % min(FOLDS, len(actors)) :: FOLDS]) if len(actors) > 1 else set()
    listing.notes.append(f"test split: actors {', '.join(sorted(test)) or 'none'} (fold {fold} of {FOLDS}, by actor)")
    for clip, (path, trial, expression) in kept.items():
        split = "test" if trial.actor in test else "train"
        listing.add(clip, path, split, expression, subject=trial.actor)
    return make_manifest(listing, missing)


def _from_lists(listing: Listing, kept: dict[str, tuple[Path, Trial, int]], splits, fold: int) -> None:
    entries = lists.read_lists(splits, "RAVDESS", fold)
    names = [Path(entry.clip.replace("\\", "/")).name for entry in entries]
    trials = [parse_name(name) for name in names]  # refuses names that are none
    told = {
        id(e): LABEL_SPACES["RAVDESS"].parse(t.emotion, e.file, every=True)
        for e, t in zip(entries, trials, strict=True)
    }
    listing.notes.append(lists.expressions("RAVDESS", entries, lambda entry: told[id(entry)], fold)[1])
    # lists may name the trial with sound where the copy without is on disk: the pictures are the same
    by_trial = {clip[2:]: clip for clip in kept}
    used = set()
    for entry, name, trial in zip(entries, names, trials, strict=True):
        listing.lists[entry.split] = entry.file
        clip = os.path.splitext(name)[0]
        clip = clip if clip in kept else by_trial.get(clip[2:], clip)
        if clip in kept:
            path, trial, expression = kept[clip]
            used.add(clip)
        elif told[id(entry)] < len(listing.classes) and trial.channel in ("01", "02"):
            path, expression = listing.root / f"Actor_{trial.actor}" / f"{clip}.mp4", told[id(entry)]
        else:
            listing.dropped["calm"] += 1
            continue
        listing.add(clip, path, entry.split, expression, subject=trial.actor)
        if entry.frames is not None:
            listing.frames[clip] = entry.frames
    listing.dropped["on disk, in no list"] += len(kept) - len(used)
