"""Eq. 3's expression score of every frame. The first function is a method of ``Study``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..datasets import PackedClips, frame_numbers
from ..plugins import versions
from ..progress import progress
from ..training.engine import same_threads
from ..training.loop import Cell, gather_frames, network_of
from ..training.records import RunRecord, cells_at_once
from .steps import cached_step

#: windows in one forward pass
_BATCH = 64


def frame_scores(study, name: str) -> pd.DataFrame:
    """Eq. 3's expression score of every frame: clip_id, frame, score.

    M3DFEL scores clips, the equation frames, and the paper does not say how one becomes the other. Chosen here: a
    frame's score is the probability that the trained M3DFEL (the baseline cell on the strategy dataset, DFEW) gives to
    the clip's label from the window of ``num_frames`` consecutive stored frames whose centre is nearest; windows move
    by half of their length. Frames that the store skipped take their nearest stored neighbour's score.
    """
    # where cells are trained side by side, cores that would idle meanwhile train the others' baselines: Table 1 needs
    # them too
    grid, at_once = study.profile.grid, cells_at_once(study.device, study.profile.training.workers)
    cells = [study.cell(model, grid.strategy_dataset) for model in dict.fromkeys(("m3dfel", *grid.models))]
    record, packed = study.run(cells[:at_once])[0], study.packed(name)

    def make(folder: Path) -> None:
        with same_threads():
            starts, scores = _window_scores(cells[0], record, packed, study.device, f"Eq. 3 scores {name}")
        table = _scores_of_frames(study.manifest(name), packed, starts + (cells[0].num_frames - 1) / 2, scores)
        table.to_parquet(folder / "scores.parquet")

    made_of = {"record": record.path.name, "packed": packed.content, "code": versions("frame scores")}
    return pd.read_parquet(cached_step(study.work / "frame_scores" / name, made_of, make) / "scores.parquet")


@torch.inference_mode()
def _window_scores(
    cell: Cell, record: RunRecord, packed: PackedClips, device: str, desc: str
) -> tuple[np.ndarray, np.ndarray]:
    """First stored frames of the windows (W,), and the probability of the clip's label in each, (clips, W)."""
    model = network_of(cell)
    model.load_state_dict(record.load_weights())
    model.to(device).eval()
    stored, width, labels = packed.frames.shape[1], cell.num_frames, packed.expressions
    starts = np.unique(np.append(np.arange(0, stored - width + 1, max(1, width // 2)), stored - width))
    parts, step = [], max(1, _BATCH // len(starts))
    for begin in progress(range(0, len(labels), step), desc=desc, unit="batch"):
        rows = np.arange(begin, min(begin + step, len(labels)))
        windows = np.repeat(rows, len(starts))
        chosen = (starts[:, None] + np.arange(width))[None].repeat(len(rows), 0).reshape(-1, width)
        clips = gather_frames(packed, windows, chosen, cell.image_size, device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=cell.precision == "bf16"):
            probabilities = model(clips).expression_logits.float().softmax(1).cpu().numpy()
        parts.append(probabilities[np.arange(len(windows)), labels[windows]].reshape(len(rows), len(starts)))
    return starts, np.concatenate(parts)


def _scores_of_frames(manifest, packed: PackedClips, centres: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Each frame takes its nearest stored frame's window, and of the windows the one whose centre is nearest."""
    parts = []
    clips = packed.manifest.itertuples(index=False)
    for clip, stored, of_windows in zip(clips, packed.frame_numbers, scores, strict=True):
        numbers = frame_numbers(manifest, clip)
        position = np.abs(numbers[:, None] - stored).argmin(1)
        nearest = np.abs(position[:, None] - centres).argmin(1)
        parts.append(pd.DataFrame({"clip_id": clip.clip_id, "frame": numbers, "score": of_windows[nearest]}))
    return pd.concat(parts, ignore_index=True)
