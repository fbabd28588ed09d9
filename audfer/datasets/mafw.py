"""MAFW: 9,172 single-labelled clips of eleven classes; here the seven basic ones (field notes: DATASETS.md D.3)."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..facs import EXPRESSIONS, LABEL_SPACES
from . import lists
from .common import (
    Listing,
    bare_number,
    check_fold,
    choose_clips,
    dataset_folder,
    find_folder,
    keep_all,
    listed,
    make_manifest,
    read_lines,
    split_entry,
)
from .manifest import Manifest

FOLDS = 5
_LISTS = ("Train & Test Set", "split", "anno")
CLIPS = {"faces": ("data/faces", "faces"), "frames": ("data/frames", "frames"), "video": ("data/clips", "clips")}


def read(
    root: str | os.PathLike,
    fold: int = 1,
    *,
    missing: str = "error",
    clips: str = "",
    classes: str = "seven",
    splits=None,
) -> Manifest:
    """Manifest of one fold of the seven-class subset, or of all eleven classes.

    No split of the subset is published, so the eleven-class folds are filtered; a note says so and ``dropped`` counts
    the clips of contempt, anxiety, helplessness and disappointment. Lists are read from the uncaptioned folder:
    captions are free text with blanks.

    Args:
        clips: "faces" (the official face frames), "frames" or "video"; "" takes the first there is.
        classes: "seven" or "all" (the eleven: the other four are numbered 7 to 10).
        splits: a list or folder of lists of another project (``lists``) instead of the release's own.

    Raises:
        InputError: see ``common.make_manifest``; a label outside the eleven; a fold other than 1 to 5.
    """
    check_fold("MAFW", fold, FOLDS)
    space = LABEL_SPACES["MAFW"]
    every = keep_all("MAFW", classes)
    base = dataset_folder(root, "MAFW")
    kind, folder = choose_clips(base, CLIPS, clips, "MAFW's face frames")
    on_disk = {bare_number(name): name for name in listed(folder)}
    listing = Listing(
        "MAFW",
        base,
        fold,
        classes=space.classes if every else EXPRESSIONS,
        notes=[f"clips: {kind}, from {os.path.relpath(folder, base)}"],
    )
    if kind != "faces":
        listing.notes.append("not the official face frames: scores on whole frames are far lower (MAE-DFER#22)")
    listing.notes.append(
        "all eleven classes"
        if every
        else "seven classes: the eleven-class folds without contempt, anxiety, helplessness and disappointment; "
        "no split of this subset is published"
    )

    def add(clip: str, split: str, expression: int | None, name: str) -> None:
        if expression is None or (not every and expression >= len(EXPRESSIONS)):
            listing.dropped[name] += 1
        else:
            listing.add(clip, folder / on_disk.get(bare_number(clip), clip), split, expression)

    if splits is None:
        for split, path in _own_lists(base, fold).items():
            listing.lists[split] = path
            for clip, label in _own_entries(path, f"{split} list of fold {fold}"):
                add(clip, split, label, space.classes[label])
        return make_manifest(listing, missing)
    entries = lists.read_lists(splits, "MAFW", fold)
    known = {}
    try:
        for path in _own_lists(base, fold).values():
            known.update(_own_entries(path, "list"))
    except InputError:
        pass  # only to tell the label order; the lists given are enough
    labels, how = lists.expressions("MAFW", entries, lambda entry: known.get(_clip(entry.clip)), fold)
    listing.notes.append(how)
    for entry, label in zip(entries, labels, strict=True):
        listing.lists[entry.split] = entry.file
        add(_clip(entry.clip), entry.split, label, space.classes[label])
        if entry.frames is not None:
            listing.frames[_clip(entry.clip)] = entry.frames
    return make_manifest(listing, missing)


def _clip(path: str) -> str:
    return bare_number(PurePosixPath(path.replace("\\", "/")).name).zfill(5)


def _own_lists(base: Path, fold: int) -> dict[str, Path]:
    folder = find_folder(
        base, *(f"{top}/single/no_caption/set_{fold}" for top in _LISTS), what=f"lists of MAFW's fold {fold}"
    )
    return {split: folder / f"{split}.txt" for split in ("train", "test")}


def _own_entries(path: Path, what: str):
    for number, line in read_lines(path, what):
        video, label = split_entry(path, number, line, None, "03747.mp4 anger")
        yield _clip(video), LABEL_SPACES["MAFW"].parse(label, path, f"line {number}, label", every=True)
