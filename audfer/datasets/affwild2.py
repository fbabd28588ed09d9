"""Aff-Wild2, expression track: long takes labelled frame by frame, cut into windows (DATASETS.md D.5)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..facs import EXPRESSIONS, LABEL_SPACES
from .common import Listing, dataset_folder, keep_all, listed, make_manifest, read_lines, same_name, subfolders
from .manifest import Manifest, frame_number, list_frames

#: longest window in frames
WINDOW = 16
#: the class names of the annotations' first line; early editions lack the last
HEADER = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")
_PARTS = {"train": ("Train_Set", "Training_Set", "train"), "test": ("Validation_Set", "Val_Set", "validation", "val")}


def _annotation_folder(base: Path) -> Path:
    pattern = "EXPR_Recognition_Challenge"
    for candidate in [base, *(base / e for e in subfolders(base) if not e.lower().startswith(("cropped", "batch")))]:
        for inner in [candidate, *(candidate / e for e in subfolders(candidate))]:
            if same_name(inner.name, pattern):
                return inner
    raise InputError(base, "folder of Aff-Wild2's annotations", "no such folder", f'"<N>th ABAW Annotations/{pattern}"')


def _annotation_files(annotations: Path) -> dict[str, list[Path]]:
    """Split -> its files: one a video in ``Train_Set``, or one for the whole split (``Train_Set.txt``)."""
    out = {}
    for split, names in _PARTS.items():
        for entry in listed(annotations):
            stem, suffix = os.path.splitext(entry)
            path = annotations / entry
            if os.path.isdir(path) and any(same_name(entry, name) for name in names):
                out[split] = [path / e for e in listed(path) if e.lower().endswith((".txt", ".csv"))]
                break
            if suffix.lower() in (".txt", ".csv") and any(same_name(stem, name) for name in names):
                out[split] = [path]
                break
        else:
            raise InputError(annotations / names[0], f"{split} annotations", "no such folder", "one text file a video")
    return out


def _header(path: Path, line: str) -> tuple[bool, int]:
    """(whether rows name their image, number of classes) from an annotation's first line."""
    names = [part.strip().lower() for part in line.split(",")]
    by_image = names[0] in ("image_location", "image", "image_path")
    classes = tuple(names[1:] if by_image else names)
    if classes not in (HEADER, HEADER[:-1]):
        found = repr(line[:80])
        if set(classes) in (set(HEADER), set(HEADER[:-1])):
            found += " (another label order)"
        raise InputError(path, "line 1", found, f"the class names, beginning with {','.join(HEADER[:3]).title()}")
    return by_image, len(classes)


def _labels(path: Path) -> dict[str, list[tuple[int, int, str]]]:
    """Video -> (line, 1-based frame, label as written)."""
    lines = read_lines(path, "annotation")
    by_image, classes = _header(path, lines[0][1])
    out: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for row, (number, line) in enumerate(lines[1:], 1):
        video, frame, label = path.stem, row, line
        if by_image:
            image, _, label = line.rpartition(",")
            parts = re.split(r"[/\\]", image.strip())
            numbers = frame_number(parts[-1])[0]
            if len(parts) < 2 or not parts[-2] or not numbers or ".." in parts:
                raise InputError(path, f"line {number}", repr(line[:80]), '"video/00001.jpg,label"')
            video, frame = parts[-2], numbers[-1]
            if not 0 < frame < 10_000_000:
                raise InputError(path, f"line {number}, frame", frame, "the number of a frame, from 1")
        label = label.strip()
        if label == str(classes):
            raise InputError(
                path, f"line {number}, label", repr(label), f"-1 to {classes - 1}: its header has no Other"
            )
        out[video].append((number, frame, label))
    return out


def _windows(labels: np.ndarray, has_image: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Half-open spans of rows with one label, at most ``longest`` rows each, that begin with an image.

    A run is cut into windows of ``longest`` rows and a rest; a missing image is skipped inside a window, never
    shifted.
    """
    out = []
    edges = np.nonzero(np.diff(labels))[0] + 1
    for start, stop in zip([0, *edges], [*edges, len(labels)], strict=True):
        for first in range(start, stop, longest):
            last = min(first + longest, stop)
            if has_image[first:last].any():
                out.append((int(first), int(last)))
    return out


def read(
    root: str | os.PathLike, fold: int = 1, *, missing: str = "error", window: int = WINDOW, classes: str = "seven"
) -> Manifest:
    """Manifest of windows; the split is by video (Train_Set and Validation_Set), ``fold`` is ignored.

    Row *i* of an annotation (from 1, after the header) is image ``{i:05d}.jpg``; the newer form names the image in each
    row. No image means that no face was found: it is skipped and nothing is shifted. Runs of one label are cut into
    windows of at most ``window`` frames. Frames labelled -1 (ignore) or 7 (other) are in no window; ``dropped`` counts
    them. Images are looked for in ``cropped_aligned``, ``cropped_aligned_new_50_vids`` and whatever else begins so; a
    video with two people has an annotation and a folder for each (``_left``, ``_right``).

    Args:
        missing: "error" refuses videos without a folder of cropped images; "drop" and "keep" leave them out, count them
            and name the first in a note.
        window: longest window in frames, at least 1.
        classes: "seven", or "all" to keep other as class 7.

    Raises:
        InputError: no annotations, a header without the class names or in another order, a label outside -1..7, videos
            without images.
    """
    if window < 1:
        raise InputError("AffWild2", "window", window, "at least 1 frame")
    every = keep_all("AffWild2", classes)
    base = dataset_folder(root, "AffWild2")
    annotations = _annotation_folder(base)
    images = [base / e for e in subfolders(base) if e.lower().startswith("cropped_aligned")]
    if not images:
        raise InputError(base, "folder of Aff-Wild2's face images", "no such folder", "cropped_aligned")
    folders: dict[str, Path] = {}
    for top in images:
        inner = top / top.name if os.path.isdir(top / top.name) else top  # as archives unpack it
        for video in subfolders(inner):
            folders.setdefault(_plain(video), inner / video)
    space, absent = LABEL_SPACES["AffWild2"], []
    listing = Listing(
        "AffWild2",
        base,
        1,
        classes=space.classes if every else EXPRESSIONS,
        notes=[
            "test split: Validation_Set, because the labels of the test set are not public",
            f"windows of at most {window} frames of one label; a frame without a face image is skipped",
        ],
    )
    for split, files in _annotation_files(annotations).items():
        for path in files:
            for video, lines in _labels(path).items():
                parsed = [
                    (frame, space.parse(text, path, f"line {number}", every=every)) for number, frame, text in lines
                ]
                listing.dropped["frames to ignore (-1)"] += sum(text == "-1" for _, _, text in lines)
                if not every:
                    listing.dropped["frames of other (7)"] += sum(text == "7" for _, _, text in lines)
                clips = folders.get(_plain(video))
                names = list_frames(clips) if clips is not None else []
                if not names:
                    absent.append(video)
                    continue
                labels = np.full(max(frame for frame, _ in parsed), -1)
                for frame, expression in parsed:
                    labels[frame - 1] = -1 if expression is None else expression
                has_image = np.zeros(len(labels), bool)
                found = [frame_number(name)[0] for name in names]
                numbers = np.array([n[-1] - 1 for n in found if n and 0 < n[-1] <= len(labels)], int)
                has_image[numbers] = True
                listing.dropped["labelled frames without a face image"] += int(((labels >= 0) & ~has_image).sum())
                listing.lists[split] = path
                for start, stop in _windows(labels, has_image, window):
                    if labels[start] >= 0:
                        listing.add(
                            f"{video}:{start + 1:05d}-{stop:05d}",
                            clips,
                            split,
                            int(labels[start]),
                            start=start,
                            stop=stop,
                            subject=video,
                        )
    if absent and missing == "error":
        raise InputError(
            annotations,
            "videos on disk",
            f"{len(absent)} annotated videos without images (first: {', '.join(absent[:3])})",
            f"a folder of images for each under {images[0]}",
        )
    if absent:
        listing.dropped["videos without images"] = len(absent)
        listing.notes.append(f"videos without images: {', '.join(absent[:3])}{' ...' if len(absent) > 3 else ''}")
    return make_manifest(listing, missing)


def _plain(video: str) -> str:
    """A video's name with hyphens, underscores and blanks alike: annotations and folders differ in them."""
    return re.sub(r"[-_ ]+", "_", video.lower())
