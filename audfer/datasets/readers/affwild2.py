"""Aff-Wild2, expression track: long takes labelled frame by frame, cut into windows (DATASETS.md D.5)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...facs import LABEL_SPACES
from ..common import Listing, listed, read_lines, same_name, subfolders
from ..manifest import Manifest, first_number, frame_number, list_frames
from ..registry import DATASETS, Dataset, Finding

#: longest window in frames
WINDOW = 16
#: the class names of the annotations' first line; early editions lack the last
HEADER = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
_PARTS = {"train": ("Train_Set", "Training_Set", "train"), "test": ("Validation_Set", "Val_Set", "validation", "val")}
#: as the editions call it
_ANNOTATIONS = ("EXPR_Recognition_Challenge", "EXPR_Classification_Challenge", "EXPR_Set")


def _folders(base: Path, depth: int = 4) -> Iterator[Path]:
    """The folders below a folder, however the archives were unpacked; of those of pictures only what holds videos'."""
    for name in subfolders(base):
        yield base / name
        if depth and (not base.name.lower().startswith("cropped") or name.lower().startswith(("cropped", "batch"))):
            yield from _folders(base / name, depth - 1)


def _annotation_files(base: Path) -> tuple[Path, dict[str, list[Path]]]:
    """The annotations' folder; split -> its files: one per video in ``Train_Set``, or ``Train_Set.txt`` for all."""
    challenges = (path for path in _folders(base) if any(same_name(path.name, name) for name in _ANNOTATIONS))
    annotations = next(challenges, None)
    if annotations is None:
        expected = f'"<N>th ABAW Annotations/{" or ".join(_ANNOTATIONS)}"'
        raise InputError(base, "folder of Aff-Wild2's annotations", "no such folder", expected)
    files = {}
    is_list = lambda path: path.suffix.lower() in (".txt", ".csv")  # noqa: E731
    for split, names in _PARTS.items():
        for path in (annotations / entry for entry in listed(annotations)):
            name = path.name if path.is_dir() else path.stem if is_list(path) else ""
            if any(same_name(name, known) for known in names):
                files[split] = [path / e for e in listed(path) if is_list(path / e)] if path.is_dir() else [path]
                break
        else:
            raise InputError(annotations / names[0], f"{split} annotations", "no such folder", "one text file a video")
    return annotations, files


def _header(path: Path, line: str) -> tuple[bool, int]:
    """(whether rows name their image, number of classes) from an annotation's first line."""
    names = [part.strip().lower() for part in line.split(",")]
    by_image = names[0] in ("image_location", "image", "image_path")
    classes = tuple(names[by_image:])
    if classes not in (HEADER, HEADER[:-1]):
        reordered = set(classes) in (set(HEADER), set(HEADER[:-1]))
        found = repr(line[:80]) + " (another label order)" * reordered
        raise InputError(path, "line 1", found, f"the class names, beginning with {','.join(HEADER[:3]).title()}")
    return by_image, len(classes)


def _labels(path: Path) -> tuple[bool, dict[str, list[tuple[int, int, str]]]]:
    """Whether frames are the pictures' numbers, else the rows' from 1; video -> (line, frame, label as written)."""
    lines = read_lines(path, "annotation")
    by_image, classes = _header(path, lines[0][1])
    labels: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for row, (number, line) in enumerate(lines[1:], 1):
        video, frame, label = path.stem, row, line
        if by_image:
            image, _, label = line.rpartition(",")
            parts = re.split(r"[/\\]", image.strip())
            numbers = frame_number(parts[-1])[0]
            if len(parts) < 2 or not parts[-2] or not numbers or ".." in parts:
                raise InputError(path, f"line {number}", repr(line[:80]), '"video/00001.jpg,label"')
            video, frame = parts[-2], numbers[-1]
            if frame >= 10_000_000:
                raise InputError(path, f"line {number}, frame", frame, "the number of a frame")
        label = label.strip()
        if label == str(classes):
            allowed = f"-1 to {classes - 1}: its header has no Other"
            raise InputError(path, f"line {number}, label", repr(label), allowed)
        labels[video].append((number, frame, label))
    return by_image, labels


def _windows(labels: np.ndarray, has_image: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Half-open spans of rows with one label, at most ``longest`` rows each, in which there is an image.

    A run is cut into windows of ``longest`` rows and a rest; a missing image is skipped inside a window, never
    shifted.
    """
    edges = np.nonzero(np.diff(labels))[0] + 1
    runs = zip([0, *edges], [*edges, len(labels)], strict=True)
    spans = [(first, min(first + longest, stop)) for start, stop in runs for first in range(start, stop, longest)]
    return [(int(first), int(last)) for first, last in spans if has_image[first:last].any()]


def read(listing: Listing, *, window: int = WINDOW, classes: str = "seven") -> None:
    """Windows; the split is by video (Train_Set and Validation_Set).

    Row *i* of an annotation (from 1, after the header) is image ``{i:05d}.jpg``, or the one before where images are
    numbered from 0 (``manifest.first_number``); the newer form names the image in each row. No image means that no face
    was found: it is skipped and nothing is shifted. Runs of one label are cut into windows of at most ``window``
    frames. Frames labelled -1 (ignore) or 7 (other) are in no window; ``dropped`` counts them. Images are looked for in
    ``cropped_aligned``, ``cropped_aligned_new_50_vids`` and whatever else begins so, also in ``batch1`` and the like; a
    video with two people has an annotation and a folder for each (``_left``, ``_right``). Videos without a folder of
    images are refused or, with another ``missing`` than "error", counted, the first of them named in a note.

    Args:
        window: longest window in frames, at least 1.
        classes: "seven", or "all" to keep other as class 7.

    Raises:
        InputError: no annotations, a header without the class names or in another order, a label outside -1..7, videos
            without images.
    """
    if window < 1:
        raise InputError("AffWild2", "window", window, "at least 1 frame")
    every, base = listing.keep(classes), listing.root
    annotations, files = _annotation_files(base)
    within = lambda path: path.parent if path.name.lower().startswith("batch") else path  # noqa: E731
    images = [path for path in _folders(base) if within(path).name.lower().startswith("cropped_aligned")]
    if not images:
        raise InputError(base, "folder of Aff-Wild2's face images", "no such folder", "cropped_aligned")
    folders: dict[str, Path] = {}
    for top in images:
        for video in subfolders(top):
            folders.setdefault(_plain(video), top / video)
    absent = []
    listing.notes += [
        "test split: Validation_Set, because the labels of the test set are not public",
        f"windows of at most {window} frames of one label; a frame without a face image is skipped",
    ]
    annotated = ((split, path, *_labels(path)) for split, paths in files.items() for path in paths)
    for split, path, by_image, video, lines in ((*each[:3], *item) for each in annotated for item in each[3].items()):
        parse = listing.labels.parse
        parsed = [(frame, parse(text, path, f"line {number}", every=every)) for number, frame, text in lines]
        texts = [text for *_, text in lines]
        listing.dropped["frames to ignore (-1)"] += texts.count("-1")
        if not every:
            listing.dropped["frames of other (7)"] += texts.count("7")
        clips = folders.get(_plain(video))
        names = list_frames(clips) if clips is not None else []
        if not names:
            absent.append(video)
            continue
        first = first_number(clips)
        place = first if by_image else 1
        labels = np.full(max(max(frame for frame, _ in parsed) + 1 - place, 0), -1)
        absent_first = 0
        for frame, expression in parsed:
            expression = -1 if expression is None else expression
            if frame >= place:
                labels[frame - place] = expression
            else:  # picture 0, of which no take has one
                absent_first += expression >= 0
        has_image = np.zeros(len(labels), bool)
        numbers = [frame_number(name)[0] for name in names]
        has_image[[n[-1] - first for n in numbers if n and first <= n[-1] < len(labels) + first]] = True
        lacking = absent_first + int(((labels >= 0) & ~has_image).sum())
        listing.dropped["labelled frames without a face image"] += lacking
        listing.lists[split] = path
        for start, stop in _windows(labels, has_image, window):
            if (label := int(labels[start])) >= 0:
                clip_id = f"{video}:{start + 1:05d}-{stop:05d}"
                listing.add(clip_id, clips, split, label, start=start, stop=stop, subject=video)
    if absent:
        first = ", ".join(absent[:3])
        if listing.missing == "error":
            found = f"{len(absent)} annotated videos without images (first: {first})"
            raise InputError(annotations, "videos on disk", found, f"a folder of images for each under {images[0]}")
        listing.dropped["videos without images"] = len(absent)
        listing.notes.append(f"videos without images: {first}{' ...' if len(absent) > 3 else ''}")


def _plain(video: str) -> str:
    """A video's name with hyphens, underscores and blanks alike: annotations and folders differ in them."""
    return re.sub(r"[-_ ]+", "_", video.lower())


def _look(manifest: Manifest) -> list[Finding]:
    """Videos that are lacking, and videos of two people of whom one is in each split."""
    findings, sides = [], defaultdict(set)
    if lacking := manifest.dropped.get("videos without images"):
        note = next(note for note in manifest.notes if note.startswith("videos without images"))
        findings.append(Finding("missing clip", f"{lacking} {note}", lacking))
    for subject, split in zip(manifest.table["subject"], manifest.table["split"], strict=True):
        sides[subject.replace("-", "_").removesuffix("_left").removesuffix("_right")].add(split)
    both = [video for video, splits in sides.items() if len(splits) > 1]
    if both:
        findings.append(Finding("duplicate", f"{len(both)} videos have people in both splits", len(both), both[0]))
    return findings


DATASETS.add("AffWild2", Dataset(read, LABEL_SPACES["AffWild2"], skips_frames=True, look=_look))
