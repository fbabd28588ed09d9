"""The landmarks that rendered clips were drawn from, for those who would otherwise have to find them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from .layouts import STAMP, read_truth, read_truth_landmarks


def embedded_points(packed, root: str | os.PathLike, size: int) -> Callable[[int], np.ndarray]:
    """The planted landmarks of packed rendered clips, a source of ``datasets.landmarks.packed_landmarks``.

    Args:
        packed: a ``datasets.PackedClips``.
        root: where ``write_benchmark`` wrote.
        size: side of the written frames, pixels.

    Raises:
        AudferError: no truth there.
    """
    name = packed.meta["dataset"]
    truth, points = read_truth(root, name), read_truth_landmarks(root, name)
    rows = {key: row for row, key in enumerate(zip(truth["clip_id"], truth["frame"], strict=True))}

    def points_of_clip(position: int) -> np.ndarray:
        # windows of a long take share its truth
        clip = packed.clip_ids[position].split(":")[0]
        places = np.array([rows.get((clip, int(number)), -1) for number in packed.frame_numbers[position]])
        return np.where(places[:, None, None] < 0, np.nan, points[places] / size)

    return points_of_clip


def drawn_landmarks(root: str | os.PathLike, table: pd.DataFrame) -> np.ndarray:
    """The 68 points of frames of the embedded annotated set, float32 (n, 68, 2) in units of the picture's sides.

    Args:
        root: the dataset's folder, or the one above it, where ``write_benchmark`` wrote.
        table: rows of ``datasets.read_annotated``; a row that was not rendered gets NaN.

    Raises:
        AudferError: no truth there, or a dataset that is not rendered.
    """
    name = table["dataset"].iloc[0]
    root = Path(root)
    root = root if (root / name / STAMP).is_file() else root.absolute().parent
    if not (root / name / STAMP).is_file():
        raise InputError(root, f"folder of {name}", f"no {STAMP}", "the embedded benchmark")
    size = json.loads((root / name / STAMP).read_text())["config"]["image_size"]
    truth, points = read_truth(root, name), read_truth_landmarks(root, name)
    # the renderer counts from the picture's border, so that 0 and the side are its edges
    index = pd.MultiIndex.from_frame(truth[["clip_id", "frame"]])
    places = index.get_indexer(pd.MultiIndex.from_frame(table[["sequence", "frame"]]))
    return np.where((places >= 0)[:, None, None], points[places] / size, np.nan).astype(np.float32)
