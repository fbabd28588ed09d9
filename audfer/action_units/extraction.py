"""AU tables for every clip of a manifest: from an estimator run on the frames, or from a folder of OpenFace CSVs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..datasets import Manifest, frame_numbers, load_frames
from ..errors import InputError
from ..facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from ..openface import AUTrack, read_openface
from ..progress import progress
from .estimator import ActionUnitEstimator, predict
from .table import AUTable


def extract(manifest: Manifest, estimator: ActionUnitEstimator, size: int, chunk_frames: int = 512,
            device: str = "cpu", precision: str = "float32") -> AUTable:
    """Run the estimator on every frame of every clip.

    Args:
        manifest: clips to read; frames are numbered as ``datasets.frame_numbers`` numbers them.
        size: side in pixels that the estimator was trained on; other frames are resized.
        chunk_frames: frames a forward pass; clips are gathered until there are that many.

    Returns:
        An AUTable with all frames ``ok``: the estimator gives a value for every frame and, unlike OpenFace, no
        confidence.
    """
    parts: list[pd.DataFrame] = []
    waiting: list[tuple[str, np.ndarray, np.ndarray]] = []

    def flush() -> None:
        if not waiting:
            return
        clip_ids, numbers, frames = zip(*waiting)
        images = np.concatenate(frames)
        intensity, presence = predict(estimator, images, batch_size=chunk_frames, device=device, precision=precision)
        part = pd.DataFrame({"clip_id": np.repeat(clip_ids, [len(f) for f in frames]), "frame": np.concatenate(numbers)})
        for column, name in enumerate(INTENSITY_ACTION_UNITS):
            part[f"{name}_r"] = intensity[:, column].astype(np.float32)
        for column, name in enumerate(ACTION_UNITS):
            part[f"{name}_c"] = presence[:, column].astype(np.float32)
        parts.append(part.assign(ok=True))
        waiting.clear()

    for row in progress(manifest.table.itertuples(index=False), total=len(manifest.table),
                        desc=f"AUs {manifest.name}", unit="clip"):
        waiting.append((row.clip_id, frame_numbers(manifest, row), load_frames(manifest, row, size=size)))
        if sum(len(frames) for _, _, frames in waiting) >= chunk_frames:
            flush()
    flush()
    return AUTable(pd.concat(parts, ignore_index=True))


def import_openface(manifest: Manifest, folder: str | Path, min_confidence: float | None = None) -> AUTable:
    """The AU table of a manifest from OpenFace's CSVs, one file a clip (Aff-Wild2: one a video, cut to each clip's frames).

    OpenFace counts frames from 1; the table numbers them as ``datasets.frame_numbers`` does, from 0.

    Args:
        folder: holds ``<clip_id>.csv`` (slashes of the id as folders or as underscores). Clips without a file, and frames that a
            file lacks, are left out: their AU labels are unknown, not "all active".
        min_confidence: as in ``read_openface``; ``None`` takes its default.

    Raises:
        InputError: the folder is missing, or holds no file for any clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "folder of OpenFace CSVs", "no such folder",
                         f"a folder with <clip_id>.csv for {manifest.name}")
    options = {} if min_confidence is None else {"min_confidence": min_confidence}
    tracks, path, track = {}, None, None
    for row in progress(manifest.table.itertuples(index=False), total=len(manifest), desc=f"OpenFace {manifest.name}",
                        unit="clip"):
        stem = row.clip_id.split(":")[0]  # windows of one video follow each other and share its file
        found = next((f for f in (folder / f"{stem}.csv", folder / f"{stem.replace('/', '_')}.csv") if f.is_file()), None)
        if found is None:
            continue
        if found != path:
            path, track = found, read_openface(found, **options)
        keep = np.isin(track.frame - 1, frame_numbers(manifest, row))
        tracks[row.clip_id] = AUTrack(intensity=track.intensity[keep], presence=track.presence[keep], ok=track.ok[keep],
                                      frame=track.frame[keep] - 1, timestamp=track.timestamp[keep])
    if not tracks:
        raise InputError(folder, "clips", "no CSV whose name is a clip's",
                         f"for example {manifest.table['clip_id'].iloc[0].split(':')[0]}.csv")
    return AUTable.from_tracks(tracks)
