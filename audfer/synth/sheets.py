"""Contact sheets: pictures from which a person can judge the renderer, as arrays that a plot function lays out."""

from __future__ import annotations

import math

import numpy as np
import torch

from .. import facs
from .face import au_region, render, sample_identities
from .scene import neutral_scene

_INTENSITIES = (0.0, 3.0, 5.0)
#: width of what is shown of a face around an AU, and its height, in shares of the picture's side
_WINDOW = (0.60, 0.36)


def contact_sheet(seed: int = 0, size: int = 96, identities: int = 3, moments: int = 7) -> dict:
    """Pictures of every AU at three intensities, and of every expression over time.

    Args:
        seed: chooses the people.
        size: side of a picture in pixels; AUs are cut out of larger ones.
        identities: people, the same for every AU; without glasses, from light to dark skin; at least 1.
        moments: pictures per expression, from onset over apex to offset, at least 2.

    Returns:
        ``action_units``: uint8 (18, identities, 3, height, size, 3), the part of the face where the AU acts, with
        ``action_unit_rows`` ("AU01 inner brow raiser", ...), ``identity_labels`` and ``intensity_columns`` (0, 3, 5);
        ``expressions``: uint8 (7, moments, size, size, 3), one person each, turning a little, with
        ``expression_rows`` and ``moment_columns`` (the strength of the expression, 0..1, at each moment).
    """
    people = sample_identities(max(identities, 7) + 13, seed)
    films, envelope = _expressions(people, size, moments)
    return {
        "action_units": _action_units(people, size, identities),
        "action_unit_rows": [f"{au} {facs.ACTION_UNIT_NAMES[au]}" for au in facs.ACTION_UNITS],
        "identity_labels": [f"person {k + 1}" for k in range(identities)],
        "intensity_columns": [f"{value:g}" for value in _INTENSITIES],
        "expressions": films,
        "expression_rows": list(facs.EXPRESSIONS),
        "moment_columns": [f"{value:.2f}" for value in envelope.tolist()],
    }


def _action_units(people, size: int, identities: int) -> np.ndarray:
    """Every AU on the same people (18, identities, 3, height, size, 3), cut out around the places where it acts."""
    bare = people[people.glasses == 0] if identities <= int((people.glasses == 0).sum()) else people
    light = bare.skin.mean(1).argsort(descending=True)
    bare = bare[light[torch.linspace(0, len(bare) - 1, identities).round().long()]]
    aus, steps, side = len(facs.ACTION_UNITS), len(_INTENSITIES), round(size / _WINDOW[0])
    who = torch.arange(identities)[None, :, None].expand(aus, -1, steps).flatten()
    values = torch.einsum("au,s->asu", torch.eye(aus), torch.tensor(_INTENSITIES))
    values = values[:, None].expand(-1, identities, -1, -1).reshape(-1, aus)
    pictures, points = render(bare[who], values, neutral_scene(len(who)), side)
    pictures = pictures.view(aus, identities, steps, side, side, 3)
    points = points.view(aus, identities, steps, 68, 2)[:, :, 0]
    height, left = round(_WINDOW[1] * side), (side - size) // 2
    cut = torch.empty(aus, identities, steps, height, size, 3, dtype=torch.uint8)
    for j, au in enumerate(facs.ACTION_UNITS):
        for k in range(identities):
            rows = au_region(au, points[j, k], side).any(1).nonzero()
            top = min(max(int(rows.float().mean() - height / 2), 0), side - height)
            cut[j, k] = pictures[j, k, :, top : top + height, left : left + size]
    return cut.numpy()


def _expressions(people, size: int, moments: int) -> tuple[np.ndarray, torch.Tensor]:
    """Every expression over time (7, moments, size, size, 3), and its strength at each moment."""
    aus = len(facs.ACTION_UNITS)
    # a quick onset, a held apex and a slower offset
    time = torch.linspace(0, 1, moments)
    envelope = torch.minimum((time / 0.40).clamp(0, 1), ((1.12 - time) / 0.42).clamp(0, 1))
    envelope = 0.5 - 0.5 * torch.cos(math.pi * envelope)
    rows = torch.zeros(len(facs.EXPRESSIONS), moments, aus)
    for row, expression in enumerate(facs.EXPRESSIONS):
        for au, intensity in facs.PROTOTYPES[expression].items():
            rows[row, :, facs.ACTION_UNITS.index(au)] = intensity * envelope
    scene = neutral_scene(rows.shape[0] * moments)
    who = torch.arange(len(facs.EXPRESSIONS))[:, None].expand(-1, moments)
    turn = torch.sin(2 * math.pi * (time[None] + who / 7))
    scene.yaw, scene.pitch, scene.roll = ((share * turn).flatten() for share in (0.30, -0.06, 0.08))
    films, _ = render(people[who.flatten()], rows.view(-1, aus), scene, size)
    return films.view(len(facs.EXPRESSIONS), moments, size, size, 3).numpy(), envelope
