"""Contact sheets: pictures from which a person can judge the renderer, as arrays that a plot function lays out."""

from __future__ import annotations

import math

import torch

from .. import facs
from .face import render, sample_identities
from .scene import neutral_scene

_INTENSITIES = (0.0, 1.0, 3.0, 5.0)


def contact_sheet(seed: int = 0, size: int = 96, identities: int = 3, moments: int = 7) -> dict:
    """Pictures of every AU at four intensities, and of every expression over time.

    Args:
        seed: chooses the people.
        size: side of a picture in pixels.
        identities: people per AU, at least 1.
        moments: pictures per expression, from onset over apex to offset, at least 2.

    Returns:
        ``action_units``: uint8 (18, identities, 4, size, size, 3), with ``action_unit_rows`` ("AU01 inner brow
        raiser", ...), ``identity_labels`` and ``intensity_columns`` (0, 1, 3, 5);
        ``expressions``: uint8 (7, moments, size, size, 3), one person each, turning a little, with
        ``expression_rows`` and ``moment_columns`` (the strength of the expression, 0..1, at each moment).
    """
    people = sample_identities(max(identities, 7) + 13, seed)
    aus, steps = len(facs.ACTION_UNITS), len(_INTENSITIES)
    chosen = torch.tensor([[(3 * au + k) % len(people) for k in range(identities)] for au in range(aus)])
    intensities = torch.zeros(aus, identities, steps, aus)
    for au in range(aus):
        intensities[au, :, :, au] = torch.tensor(_INTENSITIES)
    frames = aus * identities * steps
    pictures, _ = render(
        people[chosen[:, :, None].expand(-1, -1, steps).flatten()],
        intensities.view(frames, aus),
        neutral_scene(frames),
        size,
    )

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
    return {
        "action_units": pictures.view(aus, identities, steps, size, size, 3).numpy(),
        "action_unit_rows": [f"{au} {facs.ACTION_UNIT_NAMES[au]}" for au in facs.ACTION_UNITS],
        "identity_labels": [f"person {k + 1}" for k in range(identities)],
        "intensity_columns": [f"{value:g}" for value in _INTENSITIES],
        "expressions": films.view(len(facs.EXPRESSIONS), moments, size, size, 3).numpy(),
        "expression_rows": list(facs.EXPRESSIONS),
        "moment_columns": [f"{value:.2f}" for value in envelope.tolist()],
    }
