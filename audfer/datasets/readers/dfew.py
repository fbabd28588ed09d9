"""DFEW: 16,372 film clips, five folds of 11,697 single-labelled ones (field notes: DATASETS.md D.1)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...errors import InputError
from ...facs import EXPRESSIONS, LABEL_SPACES
from ..common import Listing, OwnLists, bare_number, find_folder, on_disk, raw_video
from ..lists import add_clips
from ..registry import DATASETS, Dataset


def read(listing: Listing, *, clips: str = "", splits=None) -> None:
    """One fold. ``EmoLabel_DataSplit/<split>(single-labeled)/set_<fold>.csv`` names the clips.

    Accepts hyphens or underscores in folder names, clip folders nested twice or renamed to ``jpg_256``, clip names with
    or without leading zeros or suffix, and a first line with or without column names.

    Args:
        clips: "frames" (as extracted), "16f" (the release's 16-frame version) or "video"; "" takes the first there is.
        splits: a list or folder of lists of another project (``lists``) instead of the release's own.

    Raises:
        InputError: a label other than 0 to 7; a clip that is no number; no such folder or list.
    """
    _, folder = listing.choose_clips(clips)
    add_clips(listing, _LISTS, splits, on_disk(folder))


def _files(base: Path, fold: int) -> dict[str, Path]:
    folders = {}
    for split in ("train", "test"):
        part = f"{split}(single-labeled)"
        folders[split] = find_folder(base, f"EmoLabel_DataSplit/{part}", part, what=f"folder of DFEW's {split} lists")
    return {split: folder / f"set_{fold}.csv" for split, folder in folders.items()}


def _clip(name: str, path: Path, line: int) -> str:
    number = bare_number(PurePosixPath(name.replace("\\", "/")).name)
    if not (number.isascii() and number.isdigit()):
        raise InputError(path, f"line {line}", repr(name), "a clip's number, or a path that ends in one")
    return number.zfill(5)


_LISTS = OwnLists(_files, _clip, "video_name,label", ",", "video_name", "column label")
DATASETS.add(
    "DFEW",
    Dataset(
        read,
        LABEL_SPACES["DFEW"],
        folds=5,
        published_folds=True,
        clips={
            "frames": ("Clip/clip_224x224", "clip_224x224", "Clip/jpg_256", "jpg_256"),
            "16f": ("Clip/clip_224x224_16f", "clip_224x224_16f"),
            "video": ("Clip/original", "original", "Clip/mp4", "mp4"),
        },
        look=raw_video,
        orders={"MAE-DFER and Former-DFER": EXPRESSIONS, "DFEW's own, from 1": ("", *EXPRESSIONS)},
    ),
)
