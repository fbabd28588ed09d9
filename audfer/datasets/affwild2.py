"""Aff-Wild2, expression track: long takes labelled frame by frame, cut into windows (DATASETS.md D.5)."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..facs import LABEL_SPACES
from .common import dataset_folder, make_manifest, read_lines, same_name
from .manifest import Manifest, frame_number, list_frames

#: longest window in frames
WINDOW = 16


def _annotation_folder(base: Path) -> Path:
    pattern = "EXPR_Recognition_Challenge"
    for candidate in [base, *sorted(e for e in base.iterdir() if e.is_dir())]:
        if same_name(candidate.name, pattern):
            return candidate
        for inner in sorted(e for e in candidate.iterdir() if e.is_dir()):
            if same_name(inner.name, pattern):
                return inner
    raise InputError(
        base, "folder of Aff-Wild2's annotations", "no such folder", f'"<N>th ABAW Annotations/{pattern}"'
    )


def _windows(labels: np.ndarray, has_image: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Half-open spans of rows with one label, at most ``longest`` rows each, that begin with an image.

    A run is cut into windows of ``longest`` rows and a rest; a missing image is skipped inside a window, never
    shifted.
    """
    out = []
    edges = np.nonzero(np.diff(labels))[0] + 1
    for start, stop in zip([0, *edges], [*edges, len(labels)]):
        for first in range(start, stop, longest):
            last = min(first + longest, stop)
            if has_image[first:last].any():
                out.append((int(first), int(last)))
    return out


def read(root: str | os.PathLike, fold: int = 1, *, missing: str = "error", window: int = WINDOW) -> Manifest:
    """Manifest of windows; the split is by video (Train_Set and Validation_Set), ``fold`` is ignored.

    Row *i* of an annotation (from 1, after the header) is image ``{i:05d}.jpg``; no image means that no face was
    found. Runs of one label are cut into windows of at most ``window`` frames. Frames labelled -1 (ignore) or 7
    (other) are in no window; ``dropped`` counts them.

    Args:
        missing: "error" refuses videos without a folder of cropped images; "drop" leaves them out and counts them.

    Raises:
        InputError: no annotations, a header without the class names, a label outside -1..7, videos without images.
    """
    base = dataset_folder(root, "AffWild2")
    annotations = _annotation_folder(base)
    images = [e for e in sorted(base.iterdir()) if e.is_dir() and e.name.lower().startswith("cropped_aligned")]
    if not images:
        raise InputError(base, "folder of Aff-Wild2's face images", "no such folder", "cropped_aligned")
    space, rows, dropped, absent = LABEL_SPACES["AffWild2"], [], Counter(), []
    for split, part in (("train", "Train_Set"), ("test", "Validation_Set")):
        folder = annotations / part
        if not folder.is_dir():
            raise InputError(folder, f"{split} annotations", "no such folder", "one text file a video")
        for path in sorted(folder.glob("*.txt")):
            lines = read_lines(path, "annotation")
            if not lines[0][1].lower().startswith("neutral,"):
                raise InputError(path, "line 1", repr(lines[0][1]), "the class names, beginning with Neutral,Anger")
            clips = next((top / path.stem for top in images if (top / path.stem).is_dir()), None)
            if clips is None or not (names := list_frames(clips)):
                absent.append(path.stem)
                continue
            parsed = [(text, space.parse(text, path, f"line {number}")) for number, text in lines[1:]]
            dropped.update(
                {
                    "frames to ignore (-1)": sum(t == "-1" for t, _ in parsed),
                    "frames of other (7)": sum(t == "7" for t, _ in parsed),
                }
            )
            labels = np.array([-1 if expression is None else expression for _, expression in parsed])
            has_image = np.zeros(len(labels), bool)
            numbers = np.array([frame_number(name)[0][-1] - 1 for name in names if frame_number(name)[0]], int)
            has_image[numbers[(numbers >= 0) & (numbers < len(labels))]] = True
            dropped["labelled frames without a face image"] += int(((labels >= 0) & ~has_image).sum())
            relative = str(clips.relative_to(base))
            rows += [
                {
                    "clip_id": f"{path.stem}:{start + 1:05d}-{stop:05d}",
                    "path": relative,
                    "start": start,
                    "stop": stop,
                    "split": split,
                    "expression": int(labels[start]),
                    "subject": path.stem,
                }
                for start, stop in _windows(labels, has_image, window)
                if labels[start] >= 0
            ]
    if absent and missing == "error":
        raise InputError(
            annotations,
            "videos on disk",
            f"{len(absent)} annotated videos without images (first: " f"{', '.join(absent[:3])})",
            f"a folder of images for each under {images[0]}",
        )
    if absent:
        dropped["videos without images"] = len(absent)
    return make_manifest("AffWild2", base, rows, {k: v for k, v in dropped.items() if v}, 1)
