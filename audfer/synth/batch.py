"""A batch of rendered clips in memory, for examples, benchmarks and tests that need real pictures and no files."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..facs import EXPRESSIONS
from .face import render
from .identity import sample_identities
from .population import PRESENT, sample_intensities
from .scene import neutral_scene


def rendered_clips(
    count: int, frames: int = 16, size: int = 112, seed: int = 0, landmarks: bool = False
) -> tuple[Tensor, ...]:
    """Clips whose AUs move as in the embedded DFEW; every clip another person, frontal, in plain light.

    Args:
        count: clips, at least 1; expressions take turns, so the classes are balanced.
        frames: frames of a clip.
        size: side of a frame in pixels, at least 16.
        seed: of people and movements.
        landmarks: give them too.

    Returns:
        clips, uint8 (count, frames, 3, size, size) in RGB; expressions, int64 (count,), an index in ``EXPRESSIONS``; AU
        presence, float32 (count, frames, 18), 0 or 1, as ``losses.clip_au_labels`` takes it; and the landmarks, where
        asked for, float32 (count, frames, 68, 2) in units of the side, as networks take them.

    Raises:
        InputError: a count below 1 or another impossible size.
    """
    if count < 1 or frames < 1:
        raise InputError("rendered_clips", "count, frames", f"{count}, {frames}", "at least 1")
    expressions = np.arange(count) % len(EXPRESSIONS)
    intensities, _ = sample_intensities("DFEW", expressions, np.full(count, frames), np.random.default_rng(seed))
    people = sample_identities(count, seed)[np.repeat(np.arange(count), frames)]
    pictures, points = render(people, torch.from_numpy(intensities), neutral_scene(count * frames), size)
    clips = pictures.unflatten(0, (count, frames)).permute(0, 1, 4, 2, 3).contiguous()
    presence = torch.from_numpy(intensities >= PRESENT).float().unflatten(0, (count, frames))
    expressions = torch.from_numpy(expressions)
    if landmarks:
        return clips, expressions, presence, points.unflatten(0, (count, frames)) / size
    return clips, expressions, presence
