"""Anybody's own clips, a folder a class.

``<class>/<clip>``, with ``train/`` and ``test/`` above where there are any.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

from ..errors import InputError
from ..facs import EXPRESSIONS, LABEL_SPACES
from . import lists
from .common import Listing, check_fold, has_frames, keep_all, listed, make_manifest, same_name, subfolders
from .manifest import Manifest, is_video

FOLDS = 5
_PARTS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


def read(
    root: str | os.PathLike, fold: int = 1, *, missing: str = "error", classes: str = "seven", splits=None
) -> Manifest:
    """Manifest of a folder whose subfolders are classes and hold clips: videos, or folders of pictures.

    The split is, in this order: the one that ``splits`` lists give; the folders ``train`` and ``test`` (or ``val``)
        above
    the classes; where there is a folder a person between class and clip (``happy/anna/clip1``), every fifth person
    beginning with the ``fold``-th; otherwise a fifth of each class by a hash of the clip's name. A note says which.

    Args:
        missing: matters with ``splits`` only.
        classes: "seven" (class folders in any usual spelling; those of known other classes are left out and counted),
            or "all" (every folder is a class; those beyond the seven are numbered from 7 in alphabetical order).
        splits: a list or folder of lists "path label" or "path frames label", paths relative to ``root``.

    Raises:
        InputError: no classes, an unknown class (with "seven"), no clips, a fold other than 1 to 5.
    """
    check_fold("folder", fold, FOLDS)
    every = keep_all("folder", classes)
    root = Path(os.path.abspath(root))
    if not os.path.isdir(root):
        raise InputError(root, "folder of clips", "no such folder", "<class>/<clip> below it")
    tops = {
        split: [root / e for e in subfolders(root) if any(same_name(e, name) for name in names)]
        for split, names in _PARTS.items()
    }
    divided = any(tops.values())
    found: list[tuple[str, Path, str, str, str]] = []  # clip_id, path, class folder, split, person
    for split, folders in (tops if divided else {"": [root]}).items():
        for top in folders:
            for name in subfolders(top):
                for path, person in _clips(top / name):
                    clip = os.path.splitext(path.name)[0] if is_video(path.name) else path.name
                    relative = [*path.parent.relative_to(root).parts, clip]
                    found.append(("/".join(relative), path, name, split, person))
    if not found:
        raise InputError(root, "clips", "none", "<class>/<clip>, a clip being a video or a folder of pictures")
    space = LABEL_SPACES["folder"]
    known = tuple(space.mapping)
    names = {name for _, _, name, _, _ in found}
    further = sorted(n for n in names if n.lower() not in known or space.mapping[n.lower()] is None)
    if not every and (odd := [n for n in further if n.lower() not in known]):
        raise InputError(
            root / odd[0],
            "class folder",
            repr(odd[0]),
            f"one of {', '.join(known)}; or ask for all classes (--classes all) to keep it as a class of its own",
        )
    listing = Listing("folder", root, fold, classes=EXPRESSIONS + tuple(further) if every else EXPRESSIONS)
    index = {
        n: space.mapping[n.lower()] if n not in further else 7 + further.index(n) if every else None for n in names
    }
    if splits is not None:
        _from_lists(listing, found, splits, fold, index)
        return make_manifest(listing, missing)
    people = sorted({person for *_, person in found if person})
    by_person = bool(people) and all(person for *_, person in found)
    test_people = set(people[(fold - 1) % min(FOLDS, len(people)) :: FOLDS]) if by_person and len(people) > 1 else set()
    turn = _turns(found)
    for clip, path, name, split, person in found:
        if index[name] is None:
            listing.dropped[name.lower()] += 1
            continue
        if not divided:
            if by_person:
                split = "test" if person in test_people else "train"
            else:
                split = "test" if turn[clip] == fold % FOLDS else "train"
        listing.add(clip, path, split, index[name], subject=person)
    listing.notes.append(
        "split: the folders train and test"
        if divided
        else f"split: by person, test {', '.join(sorted(test_people)) or 'none'} (fold {fold} of {FOLDS})"
        if by_person
        else f"split: a fifth of each class by a hash of the clips' names (fold {fold} of {FOLDS}); one person may be "
        f"in both"
    )
    return make_manifest(listing, missing)


def _clips(folder: Path):
    """(path, person) of the clips in a class folder; a folder that holds clips rather than pictures is a person."""
    for entry in listed(folder):
        path = folder / entry
        if is_video(entry):
            yield path, ""
        elif os.path.isdir(path):
            inner = (
                []
                if has_frames(path)
                else [
                    path / e for e in listed(path) if is_video(e) or (os.path.isdir(path / e) and has_frames(path / e))
                ]
            )
            if inner:
                yield from ((clip, entry) for clip in inner)
            else:
                yield path, ""


def _turns(found) -> dict[str, int]:
    """Clip -> a number 0..4, each as often as can be in every class; by the digests of the names, not their order."""
    out, seen = {}, Counter()
    digest = lambda clip: hashlib.sha256(clip[0].encode(errors="surrogateescape")).digest()  # noqa: E731
    for clip, _, name, _, _ in sorted(found, key=digest):
        seen[name.lower()] += 1  # from 1: a class's only clip is for training in the first fold
        out[clip] = (seen[name.lower()] + 1) % FOLDS
    return out


def _from_lists(listing: Listing, found, splits, fold: int, index: dict[str, int | None]) -> None:
    entries = lists.read_lists(splits, "folder", fold)
    # by the end of the path, because lists hold paths of another machine
    by_end: dict[tuple[str, str], tuple] = {}
    for clip in found:
        by_end.setdefault((clip[2].lower(), clip[0].split("/")[-1]), clip)
    used, told, matched = set(), {}, {}
    for entry in entries:
        parts = re.split(r"[/\\]", entry.clip)
        name = os.path.splitext(parts[-1])[0] if is_video(parts[-1]) else parts[-1]
        hits = [by_end[part.lower(), name] for part in parts[:-1] if (part.lower(), name) in by_end]
        if not hits:
            raise InputError(entry.file, f"line {entry.line}", repr(entry.clip), f"a clip below {listing.root}")
        matched[id(entry)] = hits[0]
        told[id(entry)] = index[hits[0][2]]
    how = _check_labels(listing, entries, told)
    listing.notes.append(how)
    for entry in entries:
        clip, path, name, _, person = matched[id(entry)]
        used.add(clip)
        listing.lists[entry.split] = entry.file
        if told[id(entry)] is None:
            listing.dropped[name.lower()] += 1
            continue
        listing.add(clip, path, entry.split, told[id(entry)], subject=person)
        if entry.frames is not None:
            listing.frames[clip] = entry.frames
    listing.dropped["on disk, in no list"] += len(found) - len(used)


def _check_labels(listing: Listing, entries, told) -> str:
    """The class folder is the label; the list's own numbers or names must go with it one to one."""
    meaning: dict[str, int | None] = {}
    for entry in entries:
        label = told[id(entry)]
        if meaning.setdefault(entry.label.lower(), label) != label:
            raise InputError(
                entry.file,
                f"line {entry.line}, label",
                repr(entry.label),
                "one label for each class folder: this one stood for another class before",
            )
    pairs = ", ".join(f"{text} {listing.classes[i]}" for text, i in sorted(meaning.items()) if i is not None)
    return f"split and labels from lists, classes from the folders: {pairs}"
