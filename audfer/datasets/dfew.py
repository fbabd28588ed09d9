"""DFEW: 16,372 film clips, five folds of 11,697 single-labelled ones (field notes: DATASETS.md D.1)."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..facs import LABEL_SPACES
from . import lists
from .common import (
    Listing,
    bare_number,
    check_fold,
    choose_clips,
    dataset_folder,
    find_folder,
    listed,
    make_manifest,
    read_lines,
    split_entry,
)
from .manifest import Manifest

FOLDS = 5
#: kind of clips -> where they lie; the first kind found is taken
CLIPS = {
    "frames": ("Clip/clip_224x224", "clip_224x224", "Clip/jpg_256", "jpg_256"),
    "16f": ("Clip/clip_224x224_16f", "clip_224x224_16f"),
    "video": ("Clip/original", "original", "Clip/mp4", "mp4"),
}


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error", clips: str = "", splits=None) -> Manifest:
    """Manifest of one fold. ``EmoLabel_DataSplit/<split>(single-labeled)/set_<fold>.csv`` names the clips.

    Accepts hyphens or underscores in folder names, clip folders nested twice or renamed to ``jpg_256``, clip names with
    or without leading zeros or suffix, and a first line with or without column names.

    Args:
        clips: "frames" (as extracted), "16f" (the release's 16-frame version) or "video"; "" takes the first there is.
        splits: a list or folder of lists of another project (``lists``) instead of the release's own.

    Raises:
        InputError: see ``common.make_manifest``; a label other than 0 to 7; a fold other than 1 to 5.
    """
    check_fold("DFEW", fold, FOLDS)
    base = dataset_folder(root, "DFEW")
    kind, folder = choose_clips(base, CLIPS, clips, "DFEW's clips")
    on_disk = {bare_number(name): name for name in listed(folder)}
    listing = Listing("DFEW", base, fold, notes=[f"clips: {kind}, from {os.path.relpath(folder, base)}"])

    def add(clip: str, split: str, expression: int | None) -> str:
        number = clip.zfill(5)
        if expression is None:
            listing.dropped["no single label"] += 1
        else:
            listing.add(number, folder / on_disk.get(bare_number(clip), number), split, expression)
        return number

    if splits is None:
        for split, path in _own_lists(base, fold).items():
            listing.lists[split] = path
            for clip, expression in _own_entries(path, f"{split} list of fold {fold}"):
                add(clip, split, expression)
        return make_manifest(listing, missing)
    entries = lists.read_lists(splits, "DFEW", fold)
    known = {}
    try:
        for path in _own_lists(base, fold).values():
            known.update((bare_number(clip), label) for clip, label in _own_entries(path, "list"))
    except InputError:
        pass  # only to tell the label order; the lists given are enough
    labels, how = lists.expressions("DFEW", entries, lambda e: known.get(_number(e)), fold)
    listing.notes.append(how)
    for entry, label in zip(entries, labels, strict=True):
        listing.lists[entry.split] = entry.file
        clip = add(_number(entry), entry.split, label)
        if entry.frames is not None:
            listing.frames[clip] = entry.frames
    return make_manifest(listing, missing)


def _number(entry: lists.Entry) -> str:
    """The clip's number, from the last part of a path written on another machine."""
    name = bare_number(PurePosixPath(entry.clip.replace("\\", "/")).name)
    if not (name.isascii() and name.isdigit()):
        raise InputError(entry.file, f"line {entry.line}", repr(entry.clip), "a path that ends in a clip's number")
    return name


def _own_lists(base: Path, fold: int) -> dict[str, Path]:
    out = {}
    for split in ("train", "test"):
        part = f"{split}(single-labeled)"
        folder = find_folder(base, f"EmoLabel_DataSplit/{part}", part, what=f"folder of DFEW's {split} lists")
        out[split] = folder / f"set_{fold}.csv"
    return out


def _own_entries(path: Path, what: str):
    for number, line in read_lines(path, what):
        clip, label = split_entry(path, number, line, ",", "video_name,label")
        if number == 1 and clip.lower() == "video_name":
            continue
        clip = bare_number(clip)
        if not (clip.isascii() and clip.isdigit()):
            raise InputError(path, f"line {number}, column video_name", repr(clip), "a clip's number")
        yield clip, LABEL_SPACES["DFEW"].parse(label, path, f"line {number}, column label")
