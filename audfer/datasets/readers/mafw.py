"""MAFW: 9,172 single-labelled clips of eleven classes; here the seven basic ones (field notes: DATASETS.md D.3)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...facs import EXPRESSIONS, LABEL_SPACES
from ..common import Listing, OwnLists, bare_number, find_folder, on_disk, raw_video
from ..lists import add_clips
from ..manifest import Manifest, is_video
from ..registry import DATASETS, Dataset, Finding


def read(listing: Listing, *, clips: str = "", classes: str = "seven", splits=None) -> None:
    """One fold of the seven-class subset, or of all eleven classes.

    No split of the subset is published, so the eleven-class folds are filtered; a note says so and ``dropped`` counts
    the clips of contempt, anxiety, helplessness and disappointment. Lists are read from the uncaptioned folder:
    captions are free text with blanks.

    Args:
        clips: "faces" (the official face frames), "frames" or "video"; "" takes the first there is.
        classes: "seven" or "all" (the eleven: the other four are numbered 7 to 10).
        splits: a list or folder of lists of another project (``lists``) instead of the release's own.

    Raises:
        InputError: a label outside the eleven; no such folder or list.
    """
    every = listing.keep(classes)
    kind, folder = listing.choose_clips(clips)
    if kind != "faces":
        listing.notes.append("not the official face frames: scores on whole frames are far lower (MAE-DFER#22)")
    listing.notes.append(
        "all eleven classes"
        if every
        else "seven classes: the eleven-class folds without contempt, anxiety, helplessness and disappointment; "
        "no split of this subset is published"
    )
    add_clips(listing, _LISTS, splits, on_disk(folder))


def _files(base: Path, fold: int) -> dict[str, Path]:
    tops = ("Train & Test Set", "split", "anno")
    paths = (f"{top}/single/no_caption/set_{fold}" for top in tops)
    folder = find_folder(base, *paths, what=f"lists of MAFW's fold {fold}")
    return {split: folder / f"{split}.txt" for split in ("train", "test")}


def _clip(name: str, path: Path, line: int) -> str:
    return bare_number(PurePosixPath(name.replace("\\", "/")).name).zfill(5)


def _look(manifest: Manifest) -> list[Finding]:
    first = manifest.root / manifest.table["path"].iloc[0]
    if is_video(first) or not any(note.startswith("not the official face frames") for note in manifest.notes):
        return raw_video(manifest)
    return [Finding("clips", "whole frames: the papers used the release's face frames", 1, str(first))]


_LISTS = OwnLists(_files, _clip, "03747.mp4 anger")
_OTHERS = ("contempt", "anxiety", "helplessness", "disappointment")
DATASETS.add(
    "MAFW",
    Dataset(
        read,
        LABEL_SPACES["MAFW"],
        folds=5,
        published_folds=True,
        clips={"faces": ("data/faces", "faces"), "frames": ("data/frames", "frames"), "video": ("data/clips", "clips")},
        orders={
            "MAE-DFER": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise", *_OTHERS),
            "DFER-CLIP": (*EXPRESSIONS, *_OTHERS),
        },
        order_by_columns=("MAE-DFER", "DFER-CLIP"),
        look=_look,
    ),
)
