"""RAVDESS: acted, frontal, clean; the label is in the file name (field notes: DATASETS.md D.6)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...facs import LABEL_SPACES
from ..common import Listing, check_choice, people_tested, videos_below
from ..lists import add_from_lists
from ..manifest import Manifest
from ..registry import DATASETS, Dataset, Finding

FOLDS = 5
#: choice -> second field of the names
CHANNELS = {"speech": ("01",), "song": ("02",), "both": ("01", "02")}
#: choice -> first field of the names
MODALITIES = {"audio-video": "01", "video-only": "02"}


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
    def label(self) -> int:
        """Index in ``EXPRESSIONS``; calm is 7."""
        return LABEL_SPACES["RAVDESS"].parse(self.emotion, "RAVDESS name", "third field (emotion)", every=True)

    @property
    def expression(self) -> int | None:
        """Index in ``EXPRESSIONS``; ``None`` for calm."""
        return self.label if self.label < 7 else None


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


def read(listing: Listing, *, classes: str = "seven", channel: str = "speech", clips: str = "", splits=None) -> None:
    """The videos that are there; every fifth actor (beginning with the ``fold``-th) is the test set.

    The same trial is published with sound (01) and without (02): video-only is taken where both are there, audio-only
    (03) never. ``dropped`` counts what was left out. There is no list of what should be here: ``missing`` matters with
    ``splits`` only.

    Args:
        classes: "seven" leaves calm out; "all" keeps it as class 7.
        channel: "speech", "song" or "both". Song has no surprise and no disgust.
        clips: "audio-video" or "video-only"; "" takes either, each trial once.
        splits: a list or folder of lists of another project (``lists``), which then says which trials belong where.

    Raises:
        InputError: no videos, a file name that is not RAVDESS's, an unknown choice.
    """
    every = listing.keep(classes)
    check_choice("RAVDESS", "channel", channel, CHANNELS)
    check_choice("RAVDESS", "clips", clips, MODALITIES)
    videos = videos_below(listing.root)
    if not videos:
        raise InputError(listing.root, "videos of RAVDESS", "none", "Actor_01/02-01-01-01-01-01-01.mp4 and so on")
    trials = {path: parse_name(path) for path in videos}
    silent = {path.stem[2:] for path, trial in trials.items() if trial.modality == "02"}
    kept: dict[str, tuple[Path, Trial]] = {}
    for path, trial in trials.items():
        if trial.modality == "03" or (clips and trial.modality != MODALITIES[clips]):
            reason = "audio only, or another modality"
        elif (not clips and trial.modality == "01" and path.stem[2:] in silent) or path.stem in kept:
            reason = "second copy of a trial"
        elif trial.channel not in CHANNELS[channel]:
            reason = "song" if trial.channel == "02" else "speech"
        elif trial.label >= len(listing.classes):
            reason = "calm"
        else:
            kept[path.stem] = path, trial
            continue
        listing.dropped[reason] += 1
    listing.notes.append(f"channel: {channel}; calm {'kept as a class of its own' if every else 'left out'}")
    if splits is not None:
        _from_lists(listing, kept, splits)
        return
    fold = listing.fold
    test = people_tested({trial.actor for trial in trials.values()}, fold, FOLDS)
    listing.notes.append(f"test split: actors {', '.join(sorted(test)) or 'none'} (fold {fold} of {FOLDS}, by actor)")
    for clip, (path, trial) in kept.items():
        listing.add(clip, path, "test" if trial.actor in test else "train", trial.label, subject=trial.actor)


def _from_lists(listing: Listing, kept: dict[str, tuple[Path, Trial]], splits) -> None:
    # lists may name the trial with sound where the copy without is on disk: the pictures are the same
    by_trial = {clip[2:]: clip for clip in kept}

    def clip_of(entry) -> str:
        parse_name(entry.name)  # refuses names that are none
        clip = os.path.splitext(entry.name)[0]
        return clip if clip in kept else by_trial.get(clip[2:], clip)

    def place(clip, entry) -> dict:
        actor = parse_name(clip).actor
        return {
            "path": kept[clip][0] if clip in kept else listing.root / f"Actor_{actor}" / f"{clip}.mp4",
            "subject": actor,
        }

    add_from_lists(listing, splits, clip_of, lambda clip: parse_name(clip).label, place, kept)


def _design(manifest: Manifest, split: str) -> dict[str, int]:
    """8 clips per actor (neutral 4) of each channel that is there; song has no surprise and no disgust."""
    rows = manifest.table[manifest.table["split"] == split]
    expected = dict.fromkeys(manifest.classes, 0)
    for channel, silent in (("01", ()), ("02", ("surprise", "disgust"))):
        actors = rows.loc[rows["clip_id"].str[3:5] == channel, "subject"].nunique()
        for name in set(manifest.classes) - set(silent):
            expected[name] += actors * (4 if name == "neutral" else 8)
    return expected


def _look(manifest: Manifest) -> list[Finding]:
    sung = manifest.table["clip_id"].str[3:5].eq("02").all()
    actors, wanted = manifest.table["subject"].nunique(), 23 if sung else 24  # actor 18 sang nothing
    if actors == wanted or manifest.embedded:
        return []
    return [Finding("counts", f"{actors} of {wanted} actors", wanted - actors, str(manifest.root))]


DATASETS.add("RAVDESS", Dataset(read, LABEL_SPACES["RAVDESS"], folds=FOLDS, expected=_design, look=_look))
