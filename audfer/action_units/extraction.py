"""audfer's own estimator over the clips of a manifest, in this process: what the embedded benchmark's chain runs.

``running.extract_manifest`` runs it, or another extractor, clip by clip in processes of their own.
"""

from __future__ import annotations

import numpy as np

from ..datasets import Manifest, frame_numbers, load_frames
from ..openface import AUTrack
from ..progress import progress
from .backends import estimated_track
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
    tracks: dict[str, AUTrack] = {}
    waiting: list[tuple[str, np.ndarray, np.ndarray]] = []

    def flush() -> None:
        if not waiting:
            return
        images = np.concatenate([frames for _, _, frames in waiting])
        intensity, presence = predict(estimator, images, batch_size=chunk_frames, device=device, precision=precision)
        start = 0
        for clip_id, numbers, frames in waiting:
            part = slice(start, start + len(frames))
            tracks[clip_id] = estimated_track(intensity[part], presence[part], numbers)
            start = part.stop
        waiting.clear()

    for row in progress(manifest.table.itertuples(index=False), total=len(manifest.table),
                        desc=f"AUs {manifest.name}", unit="clip"):
        waiting.append((row.clip_id, frame_numbers(manifest, row), load_frames(manifest, row, size=size)))
        if sum(len(frames) for _, _, frames in waiting) >= chunk_frames:
            flush()
    flush()
    return AUTable.from_tracks(tracks)
