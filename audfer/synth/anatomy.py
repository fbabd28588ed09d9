"""From action units to moved anatomy: where every part of a face is, and which bumps, folds and lines it carries.

Head units: x to the right of the picture, y down, z to the viewer; the widest part of the face is near y = -0.12, the
eyes at y = -0.12, the mouth at y = 0.42, the chin ends at y = 0.80, and at scale 1 the picture spans -1..1.
Sides are the left and the right *as seen in the picture*; x of parts of both sides is their distance from the midline.

The numbers lie in two tables beside this file. Their cells are sums of products of numbers and named quantities, as in
"0.42 - 0.55 upper_rise", worked out from left to right:

* ``parts.csv``: one row per quantity, in the order in which they are worked out, of the midline or of each side;
* ``bumps.csv``: one row per Gaussian, per few (cells with semicolons), or per line (``pieces`` Gaussians along the
  quadratic Bezier curve through three places, fainter towards its ends). Rows of two sides are mirrored.

The names are traits of ``Identity``, action units at about 0..1 (their mean on the midline), and parts. Everything here
is a handful of numbers per frame; ``face.py`` turns them into pixels and landmarks.
"""

from __future__ import annotations

import functools
import math
import re
from collections import ChainMap

import torch

from .. import facs
from .identity import Batch, Identity, table

SIDES = (-1.0, 1.0)
_EYE_Y, _WIDEST_Y, _SKULL_Y = -0.12, -0.12, -0.97
#: of a Gaussian: centre x, y and height over the skull, the two sigmas, and what it does: ``relief`` raises the skin
#: (head units), ``shade`` darkens it (or colours it, for blush and stubble)
_BUMP = ("x", "y", "lift", "sigma_x", "sigma_y", "relief", "shade")


class Face(Batch):
    """Moved faces, and how they are seen.

    Attributes:
        all parts of ``parts.csv`` and all traits of ``Identity``: (n, 1, 1), of both sides (n, 2, 1), colours
            (n, 3, 1, 1), in head units or sRGB 0..1.
        forms, blush, stubble: ``Batch`` of the k Gaussians of a layer of ``bumps.csv``, each value (n, k, 1).
        cos_yaw, sin_yaw and those of pitch and roll, ambient, gaze_x, gaze_y: (n, 1, 1), and light (n, 3, 1, 1), of
            unit length; where ``face.py`` has joined the scene.
    """

    def half(self, side: int) -> Face:
        """The same with the parts of one side only, (n, 1, 1) like those of the midline."""
        return Face(
            **{
                name: value[:, side : side + 1] if getattr(value, "shape", ())[1:] == (2, 1) else value
                for name, value in vars(self).items()
            }
        )

    def slices(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The smooth skull at heights ``y`` (n, k, 1): half width (negative outside the head), half depth, forward
        offset.
        """
        low = ((y - _WIDEST_Y) / (self.chin - _WIDEST_Y)).clamp(0, 1)
        high = ((_WIDEST_Y - y) / (_WIDEST_Y - _SKULL_Y)).clamp(0, 1)
        shape = (1 - low**2.3).pow(0.57 / self.squareness) * (1 - high**2.4).sqrt()
        depth = 0.66 * shape.clamp(min=0).sqrt()
        outside = ((y > self.chin) | (y < _SKULL_Y)).float()
        rise = ((y - 0.05) / 0.75).clamp(0, 1)
        return self.skull_width * (shape - outside), depth, 0.40 * rise * rise * (3 - 2 * rise)

    def project(self, x, y, lift=0.0):
        """Points on the face -> X, Y, foreshortening of x, and how visible they are, all (n, k, 1)."""
        width, depth, offset = self.slices(y)
        sine = (x / width.clamp(min=0.05)).clamp(-0.97, 0.97)
        cosine = (1 - sine * sine).sqrt()
        z = depth * cosine + offset + lift
        across = x * self.cos_yaw + z * self.sin_yaw
        down = y * self.cos_pitch + (z * self.cos_yaw - x * self.sin_yaw) * self.sin_pitch
        short = self.cos_yaw - depth / width.clamp(min=0.05) * sine / cosine * self.sin_yaw
        return across, down, short.clamp(0.15, 1.5), (short * 5).clamp(0, 1)


@functools.cache
def _terms(text: str) -> list[tuple[str, list]]:
    """A sum as (sign, factors) of each term; factors are numbers or names."""
    pieces = ["+", *re.split(r" ([+-]) ", text)]
    return [
        (sign, [word if word[0].isalpha() else float(word) for word in term.split()])
        for sign, term in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _sum(text: str, scope) -> torch.Tensor | float:
    """Value of a cell: its terms from left to right, as rounding depends on the order."""
    total = None
    for sign, factors in _terms(text):
        value = functools.reduce(lambda a, b: a * b, [scope[f] if isinstance(f, str) else f for f in factors])
        total = value if total is None else total + value if sign == "+" else total - value
    return total


def move(identity: Identity, action_units: torch.Tensor) -> Face:
    """Moved faces of identities (n) with intensities (n, 18, 2) in 0..5."""
    # slightly concave, so that a trace shows
    strengths = (action_units / 5).pow(0.85) * identity.expressiveness[:, :, None]
    side = {name: strengths[:, index, :, None] for index, name in enumerate(facs.ACTION_UNITS)}
    mid = {name: value.mean(1, keepdim=True) for name, value in side.items()}
    for name, value in vars(identity).items():
        mid[name] = (
            value[:, None, None] if value.ndim == 1 else value[:, :, None, None] if value.shape[1] == 3 else value
        )
    mid["eye_y"] = torch.full_like(mid["age"], _EYE_Y)
    mid["aged"] = mid["age"] ** 1.5
    both = ChainMap(side, mid)
    for row in table("parts.csv"):
        value = _sum(row["sum"], both if row["of"] == "side" else mid)
        limits = {end: float(row[column]) for end, column in (("min", "lowest"), ("max", "highest")) if row[column]}
        (side if row["of"] == "side" else mid)[row["part"]] = value.clamp(**limits) if limits else value
    side["brow_y"] = torch.cat([side[f"brow_{point}_y"] for point in ("inner", "middle", "outer")], 2).mean(2, True)
    layers = {layer: _bumps(layer, mid, both) for layer in ("forms", "blush", "stubble")}
    return Face(**{**mid, **side, **layers})


@functools.cache
def _bump_plan(layer: str) -> tuple[list[list[float]], list[tuple]]:
    """What ``bumps.csv`` says of one layer: the numbers that are the same for every face, 7 values by k Gaussians, and
    the cells that are not: (which value, first Gaussian, Gaussians per side, sides, sums, pieces of a line or 0).
    """
    constant, cells = [[] for _ in _BUMP], []
    for row in table("bumps.csv"):
        if row["layer"] != layer:
            continue
        sums = [(row[name] or "0").split("; ") for name in _BUMP]
        pieces, sides = int(row["pieces"] or 0), int(row["sides"])
        many, first = pieces or max(map(len, sums)), len(constant[0])
        for index, texts in enumerate(sums):
            numbers = [float(text) for text in texts if not re.search("[a-zA-Z]", text)]
            if len(numbers) < len(texts) or pieces and len(texts) > 1:
                cells.append((index, first, many, sides, texts, pieces))
                numbers = [0.0]
            across = [-number for number in numbers] if index == 0 and sides == 2 else numbers
            for values in (across, numbers)[-sides:]:
                constant[index] += values * (many // len(values))
    return constant, cells


@functools.cache
def _bezier(pieces: int, device: torch.device) -> torch.Tensor:
    """(4, pieces): the three weights of a quadratic Bezier curve along its length, and a fade towards its ends."""
    t = torch.linspace(0, 1, pieces)
    return torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2, torch.sin(math.pi * (0.12 + 0.76 * t))]).to(device)


def _bumps(layer: str, mid, both) -> Batch:
    """The Gaussians of one layer."""
    constant, cells = _bump_plan(layer)
    age = mid["age"]
    # constants at once, and only what depends on the face by itself: the number of tensor operations is what costs
    values = age.new_tensor(constant)[:, None].repeat(1, len(age), 1)
    for index, first, many, sides, texts, pieces in cells:
        parts = [_sum(text, both if sides == 2 else mid) for text in texts]
        if pieces:
            *weights, fade = _bezier(pieces, age.device)
            value = parts[0] * fade if len(parts) == 1 else sum(w * p for w, p in zip(weights, parts, strict=True))
        else:
            value = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        target = values[index, :, first : first + many * sides].unflatten(1, (sides, many))
        target.copy_(value)
        if index == 0 and sides == 2:
            target[:, 0].neg_()
    return Batch(**dict(zip(_BUMP, values[..., None], strict=True)))


# of the 20 mouth landmarks: the place along the lips (-1 and 1 are the corners), and which line they lie on
_LIP_PLACES = (-1, -0.6, -0.25, 0, 0.25, 0.6, 1, 0.6, 0.3, 0, -0.3, -0.6, -0.88, -0.35, 0, 0.35, 0.88, 0.35, 0, -0.35)
# c corner, u and l the outer border of the upper and lower lip, U and L their inner border
_LIP_KINDS = "cuuuuuclllllcUUUcLLL"


@functools.cache
def _lip_weights() -> torch.Tensor:
    """(7, 20): how y of both corners, arch, upper and lower gap, upper and lower lip make each mouth landmark's y."""
    rows = []
    for t, kind in zip(_LIP_PLACES, _LIP_KINDS, strict=True):
        bow, bend = max(1 - t * t, 0.0), abs(t) ** 1.7
        cupid = 0.82 if t == 0 else 1.05
        gap_up, gap_low = -(bow**0.6) * (kind in "uU"), bow**0.6 * (kind in "lL")
        lip_up, lip_low = -cupid * bow**0.70 * (kind == "u"), bow**0.62 * (kind == "l")
        rows.append([bend * (t <= 0), bend * (t > 0), bow, gap_up, gap_low, lip_up, lip_low])
    return torch.tensor(rows).T


def lids(half: Face, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """At ``t`` along an eye (-1 inner, 1 outer corner): how far it bows, y of the upper and of the lower lid."""
    bow = (1 - t * t).clamp(min=0)
    # the upper lid peaks a little towards the nose, the lower one towards the temple
    return bow, -half.upper_lid * bow.pow(0.75) * (1 - 0.10 * t), half.lower_lid * bow.pow(0.85) * (1 + 0.12 * t)


def brow_curve(half: Face, u: torch.Tensor, origin=0.0) -> torch.Tensor:
    """y of a brow, less ``origin``, at ``u`` (0 inner, 1 outer end): the parabola through its three points."""
    node = (half.brow_middle_x - half.brow_inner_x) / (half.brow_outer_x - half.brow_inner_x)
    low, arch, tail = half.brow_inner_y - origin, half.brow_middle_y - origin, half.brow_outer_y - origin
    return (
        low * (u - node) * (u - 1) / node
        + arch * u * (u - 1) / (node * (node - 1))
        + tail * u * (u - node) / (1 - node)
    )


def points(face: Face) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The 68 iBUG landmarks on the moved face: x, y and height over the skull, each (n, 68, 1), head units."""

    def column(*values: float) -> torch.Tensor:
        return face.jaw_drop.new_tensor(values)[:, None]

    halves = tuple(zip(SIDES, map(face.half, (0, 1)), strict=True))
    # outline from ear to ear round the chin
    angle = torch.linspace(-1, 1, 17, device=face.jaw_drop.device)[:, None]
    y = -0.10 + (face.chin + 0.098) * (1 - angle.abs().pow(1.55))
    places = [(0.985 * angle.sign() * face.slices(y)[0].clamp(min=0), y, 0.0)]
    # brows, left to right
    along = column(0.0, 0.25, 0.5, 0.75, 1.0)
    for sign, half in halves:
        u = along.flip(0) if sign < 0 else along
        x = half.brow_inner_x + u * (half.brow_outer_x - half.brow_inner_x)
        places.append((sign * x, brow_curve(half, u), 0.0))
    # bridge and base of the nose
    step = column(0.0, 1 / 3, 2 / 3, 1.0)
    places.append((0.0, -0.12 + (face.nose_y + 0.12) * step, 0.03 + 0.09 * step))
    share, wing = column(-0.85, -0.45, 0.0, 0.45, 0.85), face.wing_y
    y = torch.cat([wing[:, [0, 0]], wing.mean(1, keepdim=True), wing[:, [1, 1]]], 1) + 0.020 + 0.012 * (1 - share.abs())
    places.append((share * face.wing_x[:, [0, 0, 0, 1, 1]], y, 0.05 + 0.03 * (share == 0)))
    # each eye from the picture's left corner over the upper lid to the right one and back below
    place, lid = column(-1.0, -0.36, 0.36, 1.0, 0.36, -0.36), column(0, 1, 1, 0, -1, -1)
    for sign, half in halves:
        out = place * sign
        _, upper, lower = lids(half, out)
        rise = upper * (lid > 0) + lower * (lid < 0) - (half.eye_tilt + 0.008) * out
        places.append((sign * (half.eye_x + out * half.eye_half), half.eye_y + rise, 0.0))
    # mouth
    place, corner_x = column(*_LIP_PLACES), face.corner_x
    shape = torch.cat(
        [face.corner_y, face.arch, face.upper_gap, face.lower_gap, face.upper_lip, face.lower_lip], 1
    ) * _lip_weights().to(place.device)
    x = place.clamp(max=0) * corner_x[:, :1] + place.clamp(min=0) * corner_x[:, 1:]
    places.append((x, face.mouth_y + shape.sum(1)[:, :, None], 0.02))
    return tuple(torch.cat([torch.zeros_like(row[1]) + row[k] for row in places], 1) for k in range(3))
