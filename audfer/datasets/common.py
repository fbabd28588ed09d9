"""What the readers share: finding folders under their many names, and saying what is missing."""

from __future__ import annotations

import inspect
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ..errors import InputError
from ..facs import EXPRESSIONS
from .manifest import COLUMNS, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Manifest, is_video

#: what a reader may do about listed clips that are not on disk
MISSING = ("error", "drop", "keep")


@dataclass
class Listing:
    """What a reader has found out before it looks at the clips themselves.

    Attributes:
        name, root, fold: the dataset.
        rows: dicts with clip_id, path, split, expression and optionally subject, start, stop; order kept.
        lists: split -> the file that names its clips (for the error sentence).
        dropped: label or reason -> clips left out.
        notes: sentences about choices that were made.
        frames: clip_id -> frames that a list promises.
        classes: names that ``expression`` indexes.
    """

    name: str
    root: Path
    fold: int = 1
    rows: list[dict] = field(default_factory=list)
    lists: dict[str, Path] = field(default_factory=dict)
    dropped: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    frames: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = EXPRESSIONS

    def add(self, clip_id: str, path: Path | str, split: str, expression: int, **more) -> None:
        """One clip; ``path`` absolute, or relative to ``root``."""
        path = os.path.relpath(path, self.root) if os.path.isabs(path) else str(path)
        self.rows.append({"clip_id": clip_id, "path": path, "split": split, "expression": expression, **more})


def listed(folder: Path, what: str = "folder") -> list[str]:
    """Names in a folder, sorted, without hidden ones.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(folder, what, error.strerror or error, "a folder that can be read") from None


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return [name for name in listed(folder) if os.path.isdir(os.path.join(folder, name))]


def dataset_folder(root: str | os.PathLike, name: str) -> Path:
    """The dataset's own folder: ``root``, or the folder in it with the dataset's name (any capitals, hyphens).

    Raises:
        InputError: ``root`` does not exist.
    """
    root = Path(root)
    if not os.path.isdir(root):
        raise InputError(root, f"folder of {name}", "no such folder", f"the folder that holds {name}")
    # absolute, so that paths of clips can be made relative to it whatever the working directory
    root = Path(os.path.abspath(root))
    return root / next((entry for entry in subfolders(root) if same_name(entry, name)), "")


def same_name(found: str, wanted: str) -> bool:
    """Folder names equal but for capitals, hyphens, underscores, blanks and brackets."""
    plain = lambda text: re.sub(r"[^a-z0-9]", "", text.lower())  # noqa: E731
    return plain(found) == plain(wanted)


def locate(base: Path, *candidates: str) -> Path | None:
    """The first of several relative paths that is a folder below ``base``, each part compared by ``same_name``.

    A folder nested in one of its own name (``clip_224x224/clip_224x224``, as archives unpack) is entered.
    """
    for candidate in candidates:
        here: Path | None = base
        for part in PurePosixPath(candidate).parts:
            found = next((e for e in subfolders(here) if same_name(e, part)), None)
            if found is None:
                here = None
                break
            here = here / found
            while inner := [e for e in listed(here) if same_name(e, part) and os.path.isdir(here / e)]:
                here = here / inner[0]
        if here is not None:
            return here
    return None


def find_folder(base: Path, *candidates: str, what: str) -> Path:
    """``locate``, or a sentence that names all candidates.

    Raises:
        InputError: none exists.
    """
    if (found := locate(base, *candidates)) is None:
        raise InputError(base, what, "no such folder", "one of " + ", ".join(candidates))
    return found


def choose_clips(base: Path, kinds: dict[str, tuple[str, ...]], choice: str, what: str) -> tuple[str, Path]:
    """(kind, folder) of the clips: the kind asked for, or the first that is there.

    Args:
        kinds: kind ("frames", "video", ...) -> relative paths where it may lie, in order of preference.
        choice: a kind, or "" for the first found.

    Raises:
        InputError: no such kind, or no folder.
    """
    if choice and choice not in kinds:
        raise InputError(base, f"clips of {what}", repr(choice), f"one of {', '.join(kinds)}")
    wanted = {choice: kinds[choice]} if choice else kinds
    for kind, candidates in wanted.items():
        if (found := locate(base, *candidates)) is not None:
            return kind, found
    raise InputError(
        base,
        f"folder of {what}",
        "no such folder",
        "one of " + ", ".join(c for group in wanted.values() for c in group),
    )


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """(line number, text) of the non-empty lines of a text file; a byte-order mark and carriage returns are dropped.

    Raises:
        InputError: no file, not text, or empty.
    """
    if not os.path.isfile(path):
        raise InputError(path, what, "no such file", "a text file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(path, what, f"not text ({error.reason} at byte {error.start})", "a text file") from None
    except OSError as error:
        raise InputError(path, what, error.strerror or error, "a file that can be read") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(path, what, "an empty file", "at least one line")
    return lines


def split_entry(path: Path, number: int, line: str, separator: str | None, example: str) -> tuple[str, str]:
    """The two parts of a split list's line (clip and label), cut at the last separator (``None``: blanks).

    Raises:
        InputError: not two parts, or a clip that no folder can be named.
    """
    parts = [part.strip() for part in line.rsplit(separator, 1)]
    if len(parts) != 2 or not all(parts):
        raise InputError(path, f"line {number}", repr(line), f'two parts as in "{example}"')
    return safe_name(parts[0], path, number), parts[1]


def safe_name(clip: str, path: Path, number: int) -> str:
    """A clip's name as it stands in a list, refused where it would leave the dataset's folder.

    Raises:
        InputError: ``..`` in it, or a character that no path can hold.
    """
    clip = clip.strip().strip("/\\")
    if not clip or not clip.isprintable() or ".." in re.split(r"[/\\]", clip):
        raise InputError(path, f"line {number}", repr(clip), "the name of a clip inside the dataset's folder")
    return clip


def bare_number(name: str) -> str:
    """A clip's number without leading zeros and suffix: ``00012.mp4`` and ``12`` are the same clip."""
    stem = PurePosixPath(name).stem if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES else name
    return stem.lstrip("0") or "0"


def has_frames(folder: str | os.PathLike) -> bool:
    """Whether a folder holds at least one picture, without listing all of it."""
    with os.scandir(folder) as entries:
        return any(
            os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES and not e.name.startswith(".") for e in entries
        )


def check_fold(name: str, fold: int, folds: int) -> None:
    """Refuse a fold that the dataset does not have.

    Raises:
        InputError: not 1 to ``folds``.
    """
    if fold not in range(1, folds + 1):
        raise InputError(name, "fold", fold, f"1 to {folds}")


def keep_all(name: str, classes: str) -> bool:
    """Whether ``classes`` is "all" rather than "seven".

    Raises:
        InputError: neither.
    """
    if classes not in ("seven", "all"):
        raise InputError(name, "classes", repr(classes), "seven or all")
    return classes == "all"


def make_manifest(listing: Listing, missing: str = "error") -> Manifest:
    """A manifest from a listing, after looking whether each clip is there and has frames.

    Args:
        missing: "error" refuses absent clips and empty folders; "drop" leaves them out and counts them in
            ``dropped``; "keep" does not look at all (``check`` and ``pack`` find them later), and keeps the first of
            clips that are listed twice instead of refusing them.

    Raises:
        InputError: a split list names clips that are not on disk, or clip folders hold no frames: how many and the
            first three; no clips at all.
    """
    if missing not in MISSING:
        raise InputError("read_dataset", "missing", repr(missing), f"one of {', '.join(MISSING)}")
    rows, root, total = listing.rows, listing.root, len(listing.rows)
    dropped, repeated = Counter(listing.dropped), []
    if missing == "keep":
        first: dict[str, str] = {}
        for row in rows:
            if row["clip_id"] in first:
                repeated.append((row["clip_id"], first[row["clip_id"]], row["split"]))
            first.setdefault(row["clip_id"], row["split"])
        seen: set[str] = set()
        rows = [row for row in rows if row["clip_id"] not in seen and not seen.add(row["clip_id"])]
    else:
        absent, empty, kept = [], [], []
        whole: dict[str, int] = {}  # windows of a long take share its folder: look once
        for row in rows:
            if row["path"] not in whole:
                path = os.path.join(root, row["path"])
                there = os.path.isfile(path) if is_video(path) else os.path.isdir(path)
                whole[row["path"]] = 0 if not there else 1 if not is_video(path) and not has_frames(path) else 2
            (absent, empty, kept)[whole[row["path"]]].append(row)
        if missing == "error" and absent:
            raise InputError(
                listing.lists.get(absent[0]["split"], root),
                "clips on disk",
                f"{len(absent)} of {total} listed clips missing (first: {', '.join(r['clip_id'] for r in absent[:3])})",
                f"a folder of frames or a video for each under {root}",
            )
        if missing == "error" and empty:
            raise InputError(
                root / empty[0]["path"],
                "clip folder",
                f"no frames in {len(empty)} of {total} clip folders (first: "
                f"{', '.join(r['clip_id'] for r in empty[:3])})",
                "image files",
            )
        dropped += Counter({"not on disk": len(absent), "without frames": len(empty)})
        rows = kept
    if not rows:
        raise InputError(root, f"clips of {listing.name}", "none", "at least one clip of the seven expressions")
    table = pd.DataFrame([{"start": 0, "stop": -1, "subject": "", **row} for row in rows], columns=list(COLUMNS))
    return Manifest(
        listing.name,
        root,
        table.astype({"start": np.int64, "stop": np.int64, "expression": np.int64}),
        {key: int(count) for key, count in dropped.items() if count},
        listing.fold,
        classes=listing.classes,
        notes=tuple(listing.notes),
        repeated=tuple(repeated),
        listed_frames=listing.frames,
        lists=listing.lists,
    )


def known_name(name: str, known: Iterable[str], where: str) -> str:
    """A dataset's name as ``known`` writes it, from any capitals.

    Raises:
        InputError: it is none of them.
    """
    names = {key.lower(): key for key in known}
    if str(name).lower() not in names:
        raise InputError(where, "dataset", repr(name), f"one of {', '.join(names.values())}")
    return names[str(name).lower()]


def reader_choices(name: str, reader: Callable, given: dict) -> dict:
    """Those of ``given`` that were made (neither ``None`` nor ""), for ``reader(root, ..., **choices)``.

    Raises:
        InputError: the dataset's reader offers no such choice.
    """
    offered = inspect.signature(reader).parameters
    choices = {key: value for key, value in given.items() if value not in (None, "")}
    for key, value in choices.items():
        if key not in offered:
            known = ", ".join(k for k in offered if k not in ("root", "fold", "missing"))
            raise InputError(
                name, key, repr(value), f"nothing: {name} offers no such choice" + (f", only {known}" if known else "")
            )
    return choices


# --------------------------------------------------------------------------------- frames annotated with action units


def check_missing(name: str, missing: str) -> None:
    """Refuse what ``missing`` cannot be for annotated frames.

    Raises:
        InputError: neither "error" nor "drop".
    """
    if missing not in ("error", "drop"):
        raise InputError(f"read_annotated {name}", "missing", repr(missing), "error or drop")


def assign_folds(
    subjects: list[str], published: tuple[tuple[str, ...], ...], source: str
) -> tuple[dict[str, int], str]:
    """The fold (from 1) in which each subject is tested, and a sentence about the rule.

    Args:
        subjects: sorted names.
        published: the test subjects of each fold; empty where none apply (the embedded set).
        source: who published them.
    """
    folds = {subject: fold for fold, tested in enumerate(published, 1) for subject in tested}
    if folds and set(subjects) <= set(folds):
        return {
            subject: folds[subject] for subject in subjects
        }, f"the subjects tested in each fold are those of {source}"
    rule = "every third subject is tested in the same fold (audfer's rule"
    stranger = next((subject for subject in subjects if subject not in folds), "")
    rule += f": {stranger} is in no published list)" if folds else ")"
    return {subject: index % 3 + 1 for index, subject in enumerate(subjects)}, rule


_NUMBERED = re.compile(
    r"([0-9]+)[^0-9]*\.(?:" + "|".join(suffix[1:] for suffix in sorted(IMAGE_SUFFIXES)) + ")", re.IGNORECASE
)


def numbered_images(folder: Path, other: str = "") -> dict[int, str]:
    """Frame number -> name of a folder's images; the number is the last in the name, however many zeros it has.

    Args:
        folder: no folder gives nothing.
        other: a word in the names of images that are not meant (the other camera's).

    Raises:
        InputError: two images with the same number.
    """
    if not folder.is_dir():
        return {}
    out: dict[int, str] = {}
    for name in listed(folder):
        # a run of digits longer than any frame number is a date or a hash
        if (found := _NUMBERED.search(name)) is None or found.end() != len(name) or len(found[1]) > 9:
            continue
        if other and other in name.lower():
            continue
        if (twice := out.setdefault(int(found[1]), name)) != name:
            raise InputError(folder, f"image {int(found[1])}", f"{twice} and {name}", "one image a frame")
    return out
