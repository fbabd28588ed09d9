"""What the readers share: finding folders under their many names, reading lists, and saying what is missing."""

from __future__ import annotations

import inspect
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ..errors import InputError, legible
from ..facs import EXPRESSIONS, LabelSpace
from .manifest import COLUMNS, IMAGE_SUFFIXES, LEFTOVERS, VIDEO_SUFFIXES, Manifest, is_frame, is_video
from .registry import DATASETS, Dataset, Finding


@dataclass
class Listing:
    """What a reader has found out before anybody looks at the clips themselves.

    Attributes:
        name, root, fold: the dataset, its own folder (absolute), and the fold asked for.
        missing: what to do about listed clips that are not on disk: "error", "drop" or "keep".
        every_class: the seven expressions, then the dataset's other classes; classes: those that are kept.
        rows: dicts with clip_id, path, split, expression and optionally subject, start, stop; order kept.
        lists: split -> the file that names its clips (for the error sentence).
        dropped: label or reason -> clips left out.
        notes: sentences about choices that were made.
        frames: clip_id -> frames that a list promises.
        not_read: file among the clips -> why it is none.
    """

    name: str
    root: Path
    fold: int = 1
    missing: str = "error"
    every_class: tuple[str, ...] = EXPRESSIONS
    classes: tuple[str, ...] = EXPRESSIONS
    rows: list[dict] = field(default_factory=list)
    lists: dict[str, Path] = field(default_factory=dict)
    dropped: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    frames: dict[str, int] = field(default_factory=dict)
    not_read: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        """The description of the dataset."""
        return DATASETS[self.name]

    @property
    def labels(self) -> LabelSpace:
        """How the dataset writes its expressions."""
        return self.dataset.labels

    def keep(self, classes: str) -> bool:
        """Keep the seven expressions ("seven") or every class ("all"); whether it is all.

        Raises:
            InputError: neither.
        """
        if classes not in ("seven", "all"):
            raise InputError(self.name, "classes", repr(classes), "seven or all")
        self.classes = self.every_class if classes == "all" else EXPRESSIONS
        return classes == "all"

    def choose_clips(self, kind: str) -> tuple[str, Path]:
        """(kind, folder) of the clips: the kind asked for or, for "", the first that is there; a note says which.

        Raises:
            InputError: no such kind, or no folder.
        """
        known, what = self.dataset.clips, f"{self.name}'s clips"
        check_choice(self.root, f"clips of {what}", kind, known)
        wanted = {kind: known[kind]} if kind else known
        for chosen, candidates in wanted.items():
            if (folder := locate(self.root, *candidates)) is not None:
                self.notes.append(f"clips: {chosen}, from {os.path.relpath(folder, self.root)}")
                return chosen, folder
        candidates = ", ".join(name for names in wanted.values() for name in names)
        raise InputError(self.root, f"folder of {what}", "no such folder", f"one of {candidates}")

    def add(
        self, clip_id: str, path: Path | str, split: str, label: int | None, frames: int | None = None, **more
    ) -> None:
        """One clip; left out and counted where its class is not kept.

        Args:
            path: absolute, or relative to ``root``.
            label: index in ``every_class``, -1 for unknown; ``None`` for one that the labels leave out.
            frames: how many a list promises.
            **more: subject, start, stop.
        """
        if label is None or label >= len(self.classes):
            self.dropped["no single label" if label is None else self.every_class[label].lower()] += 1
            return
        path = os.path.relpath(path, self.root) if os.path.isabs(path) else str(path)
        self.rows.append({"clip_id": clip_id, "path": path, "split": split, "expression": label, **more})
        if frames is not None:
            self.frames[clip_id] = frames


# -------------------------------------------------------------------------------------------------- reading a dataset


def dataset_name(name: str) -> str:
    """The name of a dataset with clips as ``DATASETS`` writes it, from any capitals.

    Raises:
        InputError: there is no reader for it.
    """
    return known_name(name, [known for known, dataset in DATASETS.items() if dataset.read], "read_dataset")


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
        name: of ``DATASETS``, any capitals; ``folder`` is anybody's own clips, one folder per class.
        root: the dataset's folder, or a folder that holds one with the dataset's name.
        fold: of DFEW and MAFW 1 to 5, RAVDESS 1 to 5 (by actor), DISFA 1 to 3 (by subject), folder 1 to 5; the others
            have one split and ignore it.
        missing: what to do about listed clips that are not on disk or have no frames: "error" refuses them; "drop"
            leaves them out and counts them in ``Manifest.dropped``; "keep" does not look at all (``check_dataset`` and
            ``pack`` name them later) and keeps the first of clips that are listed twice instead of refusing them.
        splits: a split list of MAE-DFER's ("path label") or Former-DFER's ("path frames label") form, or a folder of
            such lists, instead of the dataset's own.
        **choices: what else the dataset's reader lets one choose: ``clips`` (which copy of the clips), ``classes``
            ("seven" or "all"), ``channel`` (RAVDESS), ``window`` (Aff-Wild2).

    Raises:
        InputError: unknown dataset, missing folder or list, labels the dataset does not have, clips missing or
            without frames (how many, and the first three), a choice that this dataset does not offer.

    Example:
        manifest = read_dataset("DFEW", "/data/DFEW", fold=1)
        manifest.check()                    # counts beside the published ones
        clips = pack(manifest, "work/DFEW_16x112", num_frames=16, size=112)
    """
    name = dataset_name(name)
    dataset = DATASETS[name]
    choices = reader_choices(name, dataset.read, {"splits": splits, **choices})
    check_choice("read_dataset", "missing", missing, ("error", "drop", "keep"))
    if dataset.folds > 1:
        check_fold(name, fold, dataset.folds)
    listing = Listing(name, dataset_folder(root, name), fold if dataset.folds > 1 else 1, missing)
    if dataset.labels:
        listing.every_class = dataset.labels.classes
    dataset.read(listing, **choices)
    return make_manifest(listing)


def make_manifest(listing: Listing) -> Manifest:
    """A manifest from a listing, after a look whether each clip is there and has frames (see ``read_dataset``).

    Raises:
        InputError: clips that are not on disk or hold no frames; no clips at all.
    """
    rows, root, total = listing.rows, listing.root, len(listing.rows)
    repeated, dropped = [], listing.dropped
    if listing.missing == "keep":
        first: dict[str, dict] = {}
        for row in rows:
            if first.setdefault(row["clip_id"], row) is not row:
                repeated.append((row["clip_id"], first[row["clip_id"]]["split"], row["split"]))
        rows = list(first.values())
    else:
        state = {path: _state(os.path.join(root, path)) for path in dict.fromkeys(row["path"] for row in rows)}
        absent, empty, rows = ([row for row in rows if state[row["path"]] == kind] for kind in range(3))
        named = lambda some: ", ".join(row["clip_id"] for row in some[:3])  # noqa: E731
        if listing.missing == "error" and absent:
            raise InputError(
                listing.lists.get(absent[0]["split"], root),
                "clips on disk",
                f"{len(absent)} of {total} listed clips missing (first: {named(absent)})",
                f"a folder of frames or a video for each under {root}",
            )
        if listing.missing == "error" and empty:
            found = f"no frames in {len(empty)} of {total} clip folders (first: {named(empty)})"
            raise InputError(root / empty[0]["path"], "clip folder", found, "image files")
        dropped = dropped + Counter({"not on disk": len(absent), "without frames": len(empty)})
    # tables and records are UTF-8; names out of other systems' archives need not be
    written = [row for row in rows if legible(row["clip_id"] + row["path"]) == row["clip_id"] + row["path"]]
    if len(written) < len(rows):
        first = next(row["path"] for row in rows if row not in written)
        dropped = dropped + Counter({"name is no UTF-8": len(rows) - len(written)})
        listing.notes.append(f"rename clips whose names are no UTF-8 (convmv does), the first: {first}")
        rows = written
    if not rows:
        raise InputError(root, f"clips of {listing.name}", "none", "at least one clip of the seven expressions")
    table = pd.DataFrame([{"start": 0, "stop": -1, "subject": "", **row} for row in rows], columns=list(COLUMNS))
    return Manifest(
        listing.name,
        root,
        table.astype({"start": np.int64, "stop": np.int64, "expression": np.int64}),
        {legible(key): int(count) for key, count in dropped.items() if count},
        listing.fold,
        classes=listing.classes,
        notes=tuple(map(legible, listing.notes)),
        repeated=tuple(repeated),
        listed_frames=listing.frames,
        lists=listing.lists,
        not_read={legible(path): reason for path, reason in listing.not_read.items()},
    )


def any_clips(path: str | os.PathLike) -> Manifest:
    """Anybody's clips without labels: one video, or every video and every folder of pictures below a folder.

    A clip is named by its path below the folder, a video without its ending (which stays where two share the rest).

    Returns:
        The manifest; every ``expression`` is -1.

    Raises:
        InputError: nothing there, or no clip.
    """
    path = Path(os.path.abspath(path))
    if path.is_file():
        if not is_video(path):
            raise InputError(path, "clip", f"a {path.suffix or 'nameless'} file", f"a video ({_ENDINGS})")
        return _unlabelled(path.parent, [(path.stem, path.name)], {})
    if not path.is_dir():
        raise InputError(path, "clips", "nothing there", "a video, or a folder with videos or pictures")
    clips, not_read = [], {}
    for place, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith(LEFTOVERS))
        here = Path(place).relative_to(path)
        if has_frames(place):
            clips.append((path.name if here == Path() else here.as_posix(), str(here)))
        for name in sorted(names):
            if is_video(name) and not name.startswith(LEFTOVERS):
                clips.append(((here / Path(name).stem).as_posix(), str(here / name)))
            elif not name.startswith(LEFTOVERS) and os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                not_read[str(here / name)] = NO_CLIP
    if not clips:
        found = f"none, {len(not_read)} other files" + "".join(f" (the first: {name})" for name in list(not_read)[:1])
        raise InputError(path, "clips", found, f"videos ({_ENDINGS}) or folders of pictures")
    count = Counter(name for name, _ in clips)
    return _unlabelled(path, [(file if count[name] > 1 else name, file) for name, file in clips], not_read)


#: why a file among the clips is not read
NO_CLIP = "neither a video nor a folder of pictures by its name"
_ENDINGS = ", ".join(sorted(VIDEO_SUFFIXES))


def _unlabelled(root: Path, clips: list[tuple[str, str]], not_read: dict[str, str]) -> Manifest:
    rows = [{"clip_id": name, "path": file, "start": 0, "stop": -1, "subject": ""} for name, file in clips]
    return Manifest("folder", root, pd.DataFrame(rows).assign(split="", expression=-1), not_read=not_read)


def _state(path: str) -> int:
    """0: not there, 1: a folder without frames, 2: a video or a folder with frames."""
    if is_video(path):
        return 2 * os.path.isfile(path)
    return 1 + has_frames(path) if os.path.isdir(path) else 0


# ------------------------------------------------------------------------------------------------------------ choices


def check_choice(where, field: str, value, allowed: Iterable) -> None:
    """Refuse a choice that is neither made ("") nor one of those allowed.

    Raises:
        InputError: naming them.
    """
    if value not in ("", *allowed):
        raise InputError(where, field, repr(value), f"one of {', '.join(allowed)}")


def check_fold(name: str, fold: int, folds: int) -> None:
    """Refuse a fold that the dataset does not have.

    Raises:
        InputError: not 1 to ``folds``.
    """
    if fold not in range(1, folds + 1):
        raise InputError(name, "fold", fold, f"1 to {folds}")


def known_name(name: str, known: Collection[str], where: str) -> str:
    """A dataset's name as ``known`` writes it, from any capitals.

    Raises:
        InputError: it is none of them.
    """
    spelled = {key.lower(): key for key in known}
    if (plain := str(name).lower()) not in spelled:
        raise InputError(where, "dataset", repr(name), f"one of {', '.join(known)}")
    return spelled[plain]


def reader_choices(name: str, reader: Callable, given: dict) -> dict:
    """Those of ``given`` that were made (neither ``None`` nor "").

    Raises:
        InputError: the reader has no such keyword-only argument.
    """
    parameters = inspect.signature(reader).parameters.values()
    offered = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    choices = {key: value for key, value in given.items() if value not in (None, "")}
    for key, value in choices.items():
        if key not in offered:
            only = f", only {', '.join(offered)}" if offered else ""
            raise InputError(name, key, repr(value), f"nothing: {name} offers no such choice{only}")
    return choices


def raw_video(manifest: Manifest) -> list[Finding]:
    """The finding that clips are not the face frames that the papers trained on; for ``Dataset.look``."""
    first = manifest.table["path"].iloc[0]
    if manifest.embedded or not is_video(first):
        return []
    sentence = "raw video: the papers used the face frames of the release"
    return [Finding("clips", sentence, 1, os.path.join(manifest.root, first))]


def people_tested(people: Iterable[str], fold: int, folds: int) -> set[str]:
    """The test split: with five folds every fifth person, beginning with the ``fold``-th; nobody of only one."""
    people = sorted(people)
    return set(people[(fold - 1) % min(folds, len(people)) :: folds]) if len(people) > 1 else set()


# ------------------------------------------------------------------------------------------------------------ folders


def listed(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones and other ``LEFTOVERS``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(LEFTOVERS))
    except OSError as error:
        raise InputError(folder, "folder", error.strerror or error, "a folder that can be read") from None


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return [name for name in listed(folder) if os.path.isdir(os.path.join(folder, name))]


def dataset_folder(root: str | os.PathLike, name: str) -> Path:
    """The dataset's own folder: ``root``, or the folder in it with the dataset's name (any capitals, hyphens).

    Raises:
        InputError: ``root`` does not exist.
    """
    names = DATASETS[name].folders
    names, what = ((name,) if names is None else names), "clips" if names == () else name
    if not os.path.isdir(root):
        raise InputError(root, f"folder of {what}", "no such folder", f"the folder that holds {what}")
    # absolute, so that paths of clips can be made relative to it whatever the working directory
    root = Path(os.path.abspath(root))
    return root / next((entry for entry in subfolders(root) for own in names if same_name(entry, own)), "")


def same_name(one: str, other: str) -> bool:
    """Folder names equal but for capitals, hyphens, underscores, blanks and brackets."""
    one, other = (re.sub(r"[^a-z0-9]", "", text.lower()) for text in (one, other))
    return one == other


def locate(base: Path, *candidates: str) -> Path | None:
    """The first of several relative paths that is a folder below ``base``, each part compared by ``same_name``.

    A folder nested in one of its own name (``clip_224x224/clip_224x224``, as archives unpack) is entered.
    """
    for candidate in candidates:
        here = base
        for part in PurePosixPath(candidate).parts:
            inner = next((entry for entry in subfolders(here) if same_name(entry, part)), None)
            if inner is None:
                break
            while inner:
                here = here / inner
                inner = next((entry for entry in subfolders(here) if same_name(entry, part)), None)
        else:
            return here
    return None


def find_folder(base: Path, *candidates: str, what: str) -> Path:
    """``locate``, or a sentence that names all candidates.

    Raises:
        InputError: none exists.
    """
    if (folder := locate(base, *candidates)) is None:
        raise InputError(base, what, "no such folder", "one of " + ", ".join(candidates))
    return folder


def videos_below(folder: Path) -> list[Path]:
    """Video files in a folder and its folders, sorted; ``LEFTOVERS`` are not entered."""
    videos = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(LEFTOVERS)]
        videos += [Path(place, name) for name in names if is_video(name) and not name.startswith(LEFTOVERS)]
    return sorted(videos)


def has_frames(folder: str | os.PathLike) -> bool:
    """Whether a folder holds at least one picture, without listing all of it."""
    with os.scandir(folder) as entries:
        return any(map(is_frame, entries))


def on_disk(folder: Path) -> Callable[[str], Path]:
    """Clip -> its path in a folder whose entries may have other leading zeros or a suffix."""
    names = {bare_number(name): name for name in listed(folder)}
    return lambda clip: folder / names.get(bare_number(clip), clip)


def bare_number(name: str) -> str:
    """A clip's number without leading zeros and suffix: ``00012.mp4`` and ``12`` are the same clip."""
    stem = PurePosixPath(name).stem if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES else name
    return stem.lstrip("0") or "0"


# -------------------------------------------------------------------------------------------------------------- lists


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
    # not splitlines: it ends lines at further characters
    lines = [(n, line.strip()) for n, line in enumerate(re.split(r"\r\n|\r|\n", text), 1) if line.strip()]
    if not lines:
        raise InputError(path, what, "an empty file", "at least one line")
    return lines


def safe_name(clip: str, path: Path, number: int) -> str:
    """A clip's name as it stands in a list, refused where it would leave the dataset's folder.

    Raises:
        InputError: ``..`` in it, or a character that no path can hold.
    """
    clip = clip.strip().strip("/\\")
    if not clip or not clip.isprintable() or ".." in re.split(r"[/\\]", clip):
        raise InputError(path, f"line {number}", repr(clip), "the name of a clip inside the dataset's folder")
    return clip


@dataclass(frozen=True)
class OwnLists:
    """How a dataset's own split lists are written.

    Attributes:
        files: (dataset's folder, fold) -> split -> list.
        clip: (name in a list of this or another project, list, line) -> clip_id.
        example: a line.
        separator: between clip and label, the last one counts; ``None``: blanks.
        header: first column's name where the first line may name the columns.
        label: what the label's column is called.
    """

    files: Callable[[Path, int], dict[str, Path]]
    clip: Callable[[str, Path, int], str]
    example: str
    separator: str | None = None
    header: str = ""
    label: str = "label"

    def entries(self, listing: Listing) -> Iterator[tuple[str, Path, str, int | None]]:
        """(split, list, clip_id, index in ``every_class`` or ``None``) of every line.

        Raises:
            InputError: a list that is missing, a line that is not clip and label, an unknown label.
        """
        for split, path in self.files(listing.root, listing.fold).items():
            for number, line in read_lines(path, f"{split} list of fold {listing.fold}"):
                parts = [part.strip() for part in line.rsplit(self.separator, 1)]
                if len(parts) != 2 or not all(parts):
                    raise InputError(path, f"line {number}", repr(line), f'two parts as in "{self.example}"')
                name, label = safe_name(parts[0], path, number), parts[1]
                if number == 1 and self.header and name.lower() == self.header:
                    continue
                label = listing.labels.parse(label, path, f"line {number}, {self.label}", every=True)
                yield split, path, self.clip(name, path, number), label
