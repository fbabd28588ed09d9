"""Anybody's own clips, one folder per class: ``<class>/<clip>``, perhaps with ``train/`` and ``test/`` above."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError, legible
from ...facs import EXPRESSIONS, LABEL_SPACES
from ...files import file_digest, require_plain
from ...openface import DETAILS, OUTPUT
from ..common import NO_CLIP, Listing, has_frames, listed, people_tested, same_name, subfolders
from ..lists import add_from_lists
from ..manifest import VIDEO_SUFFIXES, is_video, list_frames
from ..registry import DATASETS, Dataset

FOLDS = 5
_ANY = f"a video ({', '.join(sorted(VIDEO_SUFFIXES))}) or a folder of pictures"
_PARTS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


class _Clip(NamedTuple):
    clip_id: str
    path: Path
    class_folder: str
    split: str
    person: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.clip_id.encode(errors="surrogateescape")).digest()


def read(listing: Listing, *, classes: str = "seven", splits=None) -> None:
    """A folder whose subfolders are classes and hold clips: videos, or folders of pictures.

    The split is, in this order: the one that ``splits`` lists give; the folders ``train`` and ``test`` (or ``val``)
    above the classes; where there is a folder per person between class and clip (``happy/anna/clip1``), every fifth
    person beginning with the ``fold``-th; otherwise a fifth of each class by a hash of the clip's name. A note says
    which. ``missing`` matters with ``splits`` only. ``dropped`` counts what is no clip.

    Args:
        classes: "seven" (class folders in any usual spelling; those of known other classes are left out and counted),
            or "all" (every folder is a class; those beyond the seven are numbered from 7 in alphabetical order).
        splits: a list or folder of lists "path label" or "path frames label", paths relative to the folder.

    Raises:
        InputError: no classes, an unknown class (with "seven"), no clips.
    """
    root, fold, known = listing.root, listing.fold, listing.labels.mapping
    tops = {
        split: [root / entry for entry in subfolders(root) if any(same_name(entry, name) for name in names)]
        for split, names in _PARTS.items()
    }
    divided = any(tops.values())
    clips = [
        clip
        for split, folders in (tops if divided else {"": [root]}).items()
        for top in folders
        for name in subfolders(top)
        for clip in _clips(listing, top / name, split)
    ]
    if not clips:
        raise InputError(root, "clips", "none", "<class>/<clip>, a clip being a video or a folder of pictures")
    names = {clip.class_folder for clip in clips}
    further = sorted(name for name in names if known.get(name.lower()) is None)
    listing.every_class = EXPRESSIONS + tuple(map(legible, further))
    odd = [name for name in further if name.lower() not in known]
    if not listing.keep(classes) and odd:
        raise InputError(
            root / odd[0],
            "class folder",
            repr(odd[0]),
            f"one of {', '.join(known)}; or ask for all classes (--classes all) to keep it as a class of its own",
        )
    label = {name: 7 + further.index(name) if name in further else known[name.lower()] for name in names}
    if splits is not None:
        _from_lists(listing, clips, splits, label)
        return
    copies = _copies([clip.path for clip in clips])
    test, turn = people_tested({clip.person for clip in clips}, fold, FOLDS), _turns(clips, copies)
    by_person = all(clip.person for clip in clips)
    for clip in clips:
        tested = clip.person in test if by_person else turn[clip.clip_id] == fold % FOLDS
        split = clip.split or ("test" if tested else "train")
        listing.add(clip.clip_id, clip.path, split, label[clip.class_folder], subject=clip.person)
    if divided:
        note = "split: the folders train and test"
    elif by_person:
        note = f"split: by person, test {', '.join(sorted(test)) or 'none'} (fold {fold} of {FOLDS})"
    else:
        note = f"split: a fifth of each class by a hash of the clips' names (fold {fold} of {FOLDS}); "
        note += "one person may be in both"
        for copy, first in list(copies.items())[:1]:
            pair = " = ".join(os.path.relpath(path, root) for path in (first, copy))
            listing.notes.append(f"copies of other clips, on the same side of the split: {len(copies)}, first: {pair}")
    listing.notes.append(note)


def _clips(listing: Listing, folder: Path, split: str) -> list[_Clip]:
    """The clips in a class folder; a folder that holds clips rather than pictures is a person.

    What else lies there is counted by its ending, and so are the videos and faces that OpenFace wrote of clips.
    """
    clips: list[_Clip] = []
    if folder.name == OUTPUT and any(entry.endswith(DETAILS) for entry in listed(folder)):
        listing.dropped["OpenFace's folder of what it wrote"] += 1
        return clips

    def add(path: Path, person: str = "") -> None:
        name = os.path.splitext(path.name)[0] if is_video(path.name) else path.name
        clip_id = "/".join([*path.parent.relative_to(listing.root).parts, name])
        clips.append(_Clip(clip_id, path, folder.name, split, person))

    def look(path: Path, person: str = "") -> None:
        if os.path.isdir(path) == is_video(path.name):
            kind = os.path.splitext(path.name)[1].lower() or "nameless"
            what = "folders named like videos" if os.path.isdir(path) else f"{kind} files, not read"
            listing.dropped[f"{folder.name}: {what}"] += 1
            listing.not_read[os.path.relpath(path, listing.root)] = NO_CLIP
        elif is_video(path.name) or has_frames(path):
            add(path, person)
        elif not person:
            before = len(clips)
            for name in listed(path):
                if not os.path.isdir(path / name) or has_frames(path / name):
                    look(path / name, path.name)
            if len(clips) == before:
                add(path)

    for entry in listed(folder):
        look(folder / entry)
    first = next((path for path in listing.not_read if (listing.root / path).is_relative_to(folder)), "")
    if first and not clips and folder.name.lower() in listing.labels.mapping:
        raise InputError(folder, "clips", f"none, and files that are not read (the first: {first})", _ANY)
    copies = {clip.path: _openface_copy(clip.path) for clip in clips}
    named = [(clip.clip_id.split("/")[-1], clip) for clip in clips]
    originals, every = {name for name, clip in named if not copies[clip.path]}, {name for name, _ in named}
    # of two videos one has to be the clip; faces are those of any
    kept = [clip for clip in clips if copies[clip.path] not in (every if clip.path.is_dir() else originals)]
    listing.dropped["OpenFace's pictures of other clips"] += len(clips) - len(kept)
    return kept


def _openface_copy(path: Path) -> str:
    """The clip of which this may be OpenFace's overlay video or folder of faces; "" where nothing says so."""
    name = path.name.removesuffix("_aligned").removesuffix(".avi")
    made = (path.parent / f"{name}{DETAILS}").is_file() or path.parent.name == OUTPUT
    made = made or (path.is_dir() and any(entry.startswith("frame_det_") for entry in listed(path)))
    return name if name != path.name and made else ""


def _turns(clips: list[_Clip], copies: dict[Path, Path]) -> dict[str, int]:
    """Clip -> a number 0..4, each as often as can be in every class; by the digests of the names, not their order.

    Copies have the number of the clip that they are copies of: nobody is tested with what another was trained on.
    """
    turns, seen, ids = {}, Counter(), {clip.path: clip.clip_id for clip in clips}
    for clip in sorted(clips, key=lambda clip: (clip.path in copies, clip.digest)):
        if clip.path in copies:
            turns[clip.clip_id] = turns[ids[copies[clip.path]]]
            continue
        seen[clip.class_folder.lower()] += 1  # from 1: a class's only clip is for training in the first fold
        turns[clip.clip_id] = (seen[clip.class_folder.lower()] + 1) % FOLDS
    return turns


def _copies(paths: list[Path]) -> dict[Path, Path]:
    """Clip -> the first one that has the same bytes, for all but the first; only clips of one size are read."""
    alike, copies = defaultdict(list), {}
    for path in sorted(paths):
        with suppress(OSError):
            files = [path] if is_video(path.name) else [path / name for name in list_frames(path)]
            for file in files[:1]:
                require_plain(file)
                alike[len(files), file.stat().st_size, files[-1].stat().st_size].append((path, files))
    for group in alike.values():
        firsts = {}
        for path, files in group if len(group) > 1 else ():
            with suppress(OSError):
                same = tuple(file_digest(file) for file in files)
                if (first := firsts.setdefault(same, path)) != path:
                    copies[path] = first
    return copies


def _from_lists(listing: Listing, clips: list[_Clip], splits, label: dict[str, int]) -> None:
    """The class folder is the label; the lists' own numbers or names must go with it one to one."""
    by_id = {clip.clip_id: clip for clip in clips}
    # by the end of the path, because lists hold paths of another machine
    by_end = {(clip.class_folder.lower(), clip.clip_id.split("/")[-1]): clip for clip in reversed(clips)}

    def clip_of(entry) -> str:
        name = os.path.splitext(entry.name)[0] if is_video(entry.name) else entry.name
        for part in entry.parts[:-1]:
            if (part.lower(), name) in by_end:
                return by_end[part.lower(), name].clip_id
        raise entry.wrong(f"a clip below {listing.root}")

    def place(clip, entry) -> dict:
        return {"path": by_id[clip].path, "subject": by_id[clip].person}

    add_from_lists(listing, splits, clip_of, lambda clip: label[by_id[clip].class_folder], place, by_id)


DATASETS.add("folder", Dataset(read, LABEL_SPACES["folder"], folds=FOLDS, folders=()))
