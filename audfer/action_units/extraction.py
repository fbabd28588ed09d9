"""audfer's own networks over the clips of a manifest, in this process: what the embedded benchmark's chain runs.

``running.extract_manifest`` runs it, or another extractor, clip by clip in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..datasets import Manifest, frame_numbers, load_frames
from ..jobs.workers import ahead
from ..progress import progress
from ..training.engine import same_threads
from .backends import estimated_track
from .estimator import ActionUnitEstimator, predict
from .table import AUTable


def extract(
    manifest: Manifest,
    estimator: ActionUnitEstimator,
    size: int,
    chunk_frames: int = 512,
    device: str = "cpu",
    precision: str = "float32",
) -> AUTable:
    """Run the estimator on every frame of every clip.

    Args:
        manifest: clips to read; frames are numbered as ``datasets.frame_numbers`` numbers them.
        size: side in pixels that the estimator was trained on; other frames are resized.
        chunk_frames: frames per forward pass; clips are gathered until there are that many.

    Returns:
        An AUTable with all frames ``ok``: the estimator gives a value for every frame and, unlike OpenFace, no
        confidence.
    """

    def judge(clips: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        judged = predict(estimator, np.concatenate(clips), batch_size=chunk_frames, device=device, precision=precision)
        ends = np.cumsum([len(frames) for frames in clips])[:-1]
        return list(zip(*(np.split(part, ends) for part in judged), strict=True))

    return extract_clips(manifest, judge, size, chunk_frames)


def extract_clips(
    manifest: Manifest,
    judge: Callable[[list[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]],
    size: int,
    chunk_frames: int = 512,
    tool: str = "audfer",
    mode: str = "frame by frame",
    desc: str = "AUs",
) -> AUTable:
    """``extract`` with any network.

    Args:
        judge: frames (n, size, size, 3) uint8 of some clips -> intensity (n, 17) and presence (n, 18) of each.
        tool, mode: for the table's provenance. desc: what the progress bar says before the dataset.
    """

    def read(row) -> tuple[str, np.ndarray, np.ndarray]:
        return row.clip_id, frame_numbers(manifest, row), load_frames(manifest, row, size=size)

    def gathered(clips) -> Iterator[tuple]:
        waiting = []
        for clip in clips:
            waiting.append(clip)
            if sum(len(frames) for _, _, frames in waiting) >= chunk_frames:
                yield zip(*waiting, strict=True)
                waiting = []
        if waiting:
            yield zip(*waiting, strict=True)

    rows = manifest.table.itertuples(index=False)
    clips = progress(ahead(read, rows), total=len(manifest.table), desc=f"{desc} {manifest.name}", unit="clip")
    with same_threads():
        return AUTable.from_tracks(
            {
                name: estimated_track(*values, numbers, tool, mode)
                for names, every, frames in gathered(clips)
                for name, numbers, values in zip(names, every, judge(list(frames)), strict=True)
            }
        )
