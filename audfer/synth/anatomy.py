"""From action units to moved anatomy: where every part of a face is, and which bumps, folds and lines it carries.

Head units: x to the right of the picture, y down, z to the viewer; the widest part of the face is near y = -0.12, the
eyes at y = -0.12, the mouth at y = 0.42, the chin ends at y = 0.80, and at scale 1 the picture spans -1..1.
Tensors of both sides have a last axis of two: the left and the right side *as seen in the picture*.
Everything here is a handful of numbers a frame; ``face.py`` turns them into pixels and landmarks.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields

import torch

from .. import facs
from .identity import Identity

SIDES = (-1.0, 1.0)
_EYE_Y, _MOUTH_Y, _WIDEST_Y, _SKULL_Y, _CHIN_Y = -0.12, 0.42, -0.12, -0.97, 0.80


@dataclass
class Skull:
    """The smooth head without its bumps: half width, half depth and forward offset of each horizontal slice."""

    width: torch.Tensor
    chin: torch.Tensor
    squareness: torch.Tensor

    def slices(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Half width, half depth, forward offset at heights ``y`` (n, k). Outside the head the width is negative."""
        low = ((y - _WIDEST_Y) / (self.chin - _WIDEST_Y)).clamp(0, 1)
        high = ((_WIDEST_Y - y) / (_WIDEST_Y - _SKULL_Y)).clamp(0, 1)
        shape = (1 - low**2.3).pow(0.57 / self.squareness) * (1 - high**2.4).sqrt()
        depth = 0.66 * shape.clamp(min=0).sqrt()
        outside = ((y > self.chin) | (y < _SKULL_Y)).float()
        rise = ((y - 0.05) / 0.75).clamp(0, 1)
        return self.width * (shape - outside), depth, 0.40 * rise * rise * (3 - 2 * rise)


@dataclass
class Bumps:
    """Gaussians on the face: centre x, y and height over the skull, the two sigmas, and what they do, each (n, k).

    ``relief`` raises the skin (head units), ``shade`` darkens it (or colours it, for blush and beard).
    """

    x: torch.Tensor
    y: torch.Tensor
    lift: torch.Tensor
    sigma_x: torch.Tensor
    sigma_y: torch.Tensor
    relief: torch.Tensor
    shade: torch.Tensor


class _List:
    """Collects Gaussians; numbers go to a template, tensors are copied into their columns once, at the end.

    (Hundreds are made for every chunk of frames, so what counts here is the number of tensor operations.)
    """

    def __init__(self, like: torch.Tensor):
        self.like, self.width, self.columns = like, 0, []
        self.template: list[list[float]] = [[] for _ in range(7)]

    def add(self, x, y, sigma_x, sigma_y, relief=0.0, shade=0.0, lift=0.0) -> None:
        """One on the midline, or several: everything broadcasts to (n, k)."""
        self._put((x, y, lift, sigma_x, sigma_y, relief, shade), (1.0,))

    def mirrored(self, x, y, sigma_x, sigma_y, relief=0.0, shade=0.0, lift=0.0) -> None:
        """``x`` is the distance from the midline; everything broadcasts to (n, 2, k)."""
        self._put((x, y, lift, sigma_x, sigma_y, relief, shade), SIDES)

    def _put(self, values, signs: tuple[float, ...]) -> None:
        many = max([v.shape[-1] for v in values if isinstance(v, torch.Tensor)], default=1)
        for row, value in enumerate(values):
            if isinstance(value, torch.Tensor):
                self.columns.append((row, self.width, many, len(signs), value))
                self.template[row] += [0.0] * (many * len(signs))
            else:
                self.template[row] += [value * (sign if row == 0 else 1.0) for sign in signs for _ in range(many)]
        self.width += many * len(signs)

    def done(self) -> Bumps:
        table = self.like.new_tensor(self.template)[:, None].repeat(1, len(self.like), 1)
        for row, start, many, sides, value in self.columns:
            target = table[row, :, start : start + many * sides]
            if sides == 1:
                target.copy_(value)
            else:
                target.unflatten(1, (2, many)).copy_(value)
                if row == 0:
                    target[:, :many].neg_()
        return Bumps(*table)


@dataclass
class Anatomy:
    """One batch of moved faces. (n,) for midline parts, (n, 2) for parts of both sides,
    distances from the midline."""

    skull: Skull
    a: dict[str, torch.Tensor]
    jaw: torch.Tensor
    eye_x: torch.Tensor
    eye_y: torch.Tensor
    eye_half: torch.Tensor
    upper_lid: torch.Tensor
    lower_lid: torch.Tensor
    closed: torch.Tensor
    eye_tilt: torch.Tensor
    brow_x: torch.Tensor
    brow_y: torch.Tensor
    brow_half: torch.Tensor
    mouth_y: torch.Tensor
    corner_x: torch.Tensor
    corner_y: torch.Tensor
    arch: torch.Tensor
    upper_lip: torch.Tensor
    lower_lip: torch.Tensor
    upper_gap: torch.Tensor
    lower_gap: torch.Tensor
    nose_y: torch.Tensor
    wing_x: torch.Tensor
    wing_y: torch.Tensor
    forms: Bumps
    blush: Bumps
    beard: Bumps


def part(m, index):
    """The frames at ``index`` of an ``Anatomy`` or of anything that it holds."""
    if isinstance(m, torch.Tensor):
        return m[index]
    if isinstance(m, dict):
        return {name: value[index] for name, value in m.items()}
    return type(m)(*[part(getattr(m, f.name), index) for f in fields(m)])


def strengths(identity: Identity, action_units: torch.Tensor) -> dict[str, torch.Tensor]:
    """Intensities (n, 18, 2) in 0..5 -> AU name -> (n, 2), about 0..1: slightly concave, so that a trace shows."""
    a = (action_units / 5).pow(0.85) * identity.expressiveness[:, :, None]
    return {name: a[:, i] for i, name in enumerate(facs.ACTION_UNITS)}


@functools.lru_cache(maxsize=64)
def _bezier(pieces: int, device: torch.device) -> torch.Tensor:
    """(4, pieces): the three weights of a quadratic Bezier curve along its length, and a fade towards its ends."""
    t = torch.linspace(0, 1, pieces)
    return torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2, torch.sin(math.pi * (0.12 + 0.76 * t))]).to(device)


def move(identity: Identity, action_units: torch.Tensor) -> Anatomy:
    """Moved anatomy for identities (n) and intensities (n, 18, 2) in 0..5."""
    a = strengths(identity, action_units)
    count, like = len(identity), identity.age
    both = like.new_ones(count, 2)
    mid = {name: value.mean(1) for name, value in a.items()}
    au01, au02, au04, au05, au06, au07, au09, au10, au12 = (a[f"AU{i:02d}"] for i in (1, 2, 4, 5, 6, 7, 9, 10, 12))
    au14, au15, au20, au23, au26, au28, au45 = (a[f"AU{i}"] for i in (14, 15, 20, 23, 26, 28, 45))
    age = identity.age

    jaw = 0.13 * mid["AU26"]
    skull = Skull(
        0.60 * identity.face_width[:, None],
        (_CHIN_Y * identity.face_length + 0.95 * jaw)[:, None],
        (1 + 0.55 * (identity.jaw - 1))[:, None].clamp(0.7, 1.4),
    )

    # eyes
    eye_x = 0.255 * (identity.eye_spacing * identity.face_width)[:, None] * both
    eye_half = 0.140 * identity.eye_size[:, None] * both
    squeeze = (0.44 * au07 + 0.20 * au06 + 0.06 * au12 + 0.10 * au09).clamp(max=0.62)
    open_upper = 0.068 * (1 + 0.72 * au05 - squeeze).clamp(min=0.2)
    open_lower = 0.043 * (1 + 0.10 * au05 - 1.15 * (0.50 * au07 + 0.46 * au06 + 0.12 * au09)).clamp(min=-0.1)
    closed = au45.clamp(0, 1)
    size = identity.eye_size[:, None]
    # the closing upper lid travels all the way to the lower one
    upper_lid = (open_upper * (1 - closed) - 0.8 * open_lower * closed) * size
    lower_lid = (open_lower * (1 - 0.2 * closed)) * size
    eye_y = _EYE_Y * both

    # brows: three points (inner, arch, outer) a side
    inner_y = -0.285 * both - 0.095 * au01 - 0.020 * au02 + 0.078 * au04 + 0.022 * au09 - 0.008 * au05
    arch_y = inner_y.new_tensor(0.0) - 0.318 * both - 0.035 * au01 - 0.080 * au02 + 0.062 * au04 + 0.010 * au09
    arch_y = arch_y - 0.020 * (identity.brow_arch[:, None] - 1)
    outer_y = -0.268 * both + 0.012 * au01 - 0.090 * au02 + 0.030 * au04
    brow_y = torch.stack([inner_y, arch_y, outer_y], 2) - 0.10 * (identity.brow_height - 1)[:, None, None]
    brow_x = torch.stack([0.105 * both - 0.042 * au04 + 0.004 * au01, 0.30 * both - 0.020 * au04, 0.425 * both], 2)
    brow_x = brow_x * (identity.eye_spacing * identity.face_width)[:, None, None]
    brow_half = 0.026 * identity.brow_thickness[:, None] * both

    # mouth: the corners of each side, what the lips' middle does, thickness of the red, gap between the lips
    width = 0.215 * identity.mouth_width[:, None] * both
    corner_x = width + 0.070 * au12 + 0.092 * au20 - 0.022 * au14 * (1 - 0.5 * au12) - 0.055 * au23 - 0.012 * au28
    corner_x = corner_x - 0.020 * au26 + 0.010 * au15
    corner_y = -0.088 * au12 + 0.072 * au15 + 0.014 * au20 - 0.014 * au14 - 0.010 * au10 + 0.030 * au26 - 0.012 * au06
    up = mid["AU17"] * 0.048 + mid["AU10"] * 0.012 + mid["AU09"] * 0.008
    arch = -up - 0.012 * mid["AU15"] + 0.016 * mid["AU12"]
    thin = (1 - 0.70 * mid["AU23"]) * (1 - 0.93 * mid["AU28"].clamp(0, 1)) * (1 - 0.36 * mid["AU20"])
    thin = (thin * (1 - 0.22 * mid["AU12"])).clamp(min=0.03)
    upper_lip = 0.046 * identity.lip_thickness * thin * (1 + 0.10 * mid["AU17"] - 0.15 * mid["AU10"])
    lower_lip = 0.064 * identity.lip_thickness * thin * (1 + 0.18 * mid["AU17"])
    parted = (mid["AU25"] + mid["AU26"]).clamp(0, 1)
    upper_gap = 0.026 * mid["AU25"] + 0.018 * mid["AU26"] + 0.026 * mid["AU10"] * parted
    lower_gap = 0.034 * mid["AU25"] + 0.125 * mid["AU26"]
    gap_stays = 1 - 0.75 * mid["AU28"].clamp(0, 1)
    upper_gap, lower_gap = upper_gap * gap_stays, lower_gap * gap_stays
    raise_upper = 0.050 * mid["AU10"] + 0.022 * mid["AU09"]
    mouth_y = _MOUTH_Y + like.new_zeros(count) - 0.55 * raise_upper + 0.10 * (identity.face_length - 1)

    # nose
    nose_y = 0.165 * identity.nose_length
    wing_x = 0.088 * identity.nose_width[:, None] + 0.012 * au09 + 0.010 * au10 + 0.008 * au12
    wing_y = (nose_y + 0.040)[:, None] - 0.040 * au09 - 0.020 * au10

    anatomy = Anatomy(
        skull=skull,
        a=a,
        jaw=jaw,
        eye_x=eye_x,
        eye_y=eye_y,
        eye_half=eye_half,
        upper_lid=upper_lid,
        lower_lid=lower_lid,
        closed=closed,
        eye_tilt=identity.eye_tilt[:, None] * both,
        brow_x=brow_x,
        brow_y=brow_y,
        brow_half=brow_half,
        mouth_y=mouth_y,
        corner_x=corner_x,
        corner_y=corner_y,
        arch=arch,
        upper_lip=upper_lip + 0.15 * raise_upper,
        lower_lip=lower_lip,
        upper_gap=upper_gap,
        lower_gap=lower_gap,
        nose_y=nose_y,
        wing_x=wing_x,
        wing_y=wing_y,
        forms=None,
        blush=None,
        beard=None,
    )
    forms, blush = _List(like), _List(like)
    _rest(anatomy, identity, forms, blush)
    _folds(anatomy, age, forms)
    anatomy.forms, anatomy.blush = forms.done(), blush.done()
    anatomy.beard = _beard(anatomy, identity)
    return anatomy


def _rest(m: Anatomy, identity: Identity, forms: _List, blush: _List) -> None:
    """The forms every face has: nose, sockets, brow ridge, cheeks, lips, chin."""
    col = {"nose": m.nose_y[:, None], "mouth": m.mouth_y[:, None], "chin": m.skull.chin}
    side = {name: value[:, :, None] for name, value in m.a.items()}
    mid = {name: value.mean(1)[:, None] for name, value in m.a.items()}
    wide = identity.nose_width[:, None]
    nose = col["nose"]
    # nose: bridge in three pieces that grow towards the tip, tip, wings
    forms.add(0, nose * 0 - 0.15, 0.070, 0.08, 0.012)
    forms.add(0, nose * 0.05 - 0.02, 0.064, 0.09, 0.032, lift=0.02)
    forms.add(0, nose * 0.62, 0.060, 0.075, 0.046, lift=0.05)
    forms.add(0, nose, 0.064 * wide, 0.054, 0.074, lift=0.10)
    forms.mirrored(m.wing_x[:, :, None], m.wing_y[:, :, None], 0.036, 0.036, 0.040, lift=0.03)
    forms.mirrored(
        0.044 * wide[:, :, None],
        (nose + 0.062)[:, :, None] - 0.026 * side["AU09"] - 0.010 * side["AU10"],
        0.020,
        0.014,
        shade=0.85,
        lift=0.06,
    )
    forms.add(0, nose + 0.088, 0.085 * wide, 0.022, shade=0.30, lift=0.03)
    forms.mirrored(m.wing_x[:, :, None] + 0.034, m.wing_y[:, :, None] + 0.01, 0.014, 0.028, shade=0.30)
    # sockets, brow ridge, forehead, temples
    brow = m.brow_y.mean(2)[:, :, None]
    forms.mirrored(m.eye_x[:, :, None], -0.135, 0.13, 0.075, -0.045)
    forms.mirrored(0.15, -0.13, 0.05, 0.07, -0.020)
    forms.mirrored(0.24, brow + 0.035, 0.15, 0.050, 0.022)
    forms.mirrored(0.30, -0.50, 0.16, 0.12, 0.020)
    forms.mirrored(0.145, -0.15, 0.045, 0.055, shade=0.16)
    forms.mirrored(m.eye_x[:, :, None], -0.190, 0.11, 0.030, shade=0.14)
    forms.mirrored(m.eye_x[:, :, None] - 0.01, -0.045, 0.09, 0.022, shade=0.08 + 0.12 * identity.age[:, None, None])
    # cheeks rise with AU06 and AU12
    rise = 0.090 * side["AU06"] + 0.050 * side["AU12"]
    forms.mirrored(0.335, 0.10 - rise, 0.13, 0.11, 0.040 + 0.044 * side["AU06"] + 0.024 * side["AU12"])
    blush.mirrored(0.34, 0.13 - rise, 0.15, 0.11, shade=0.16 + 0.10 * side["AU06"] + 0.05 * side["AU12"])
    blush.add(0, nose, 0.07, 0.06, shade=0.12)
    # philtrum, lips, fold under the lower lip, chin
    upper = m.upper_gap[:, None] + m.upper_lip[:, None]
    lower = m.lower_gap[:, None] + m.lower_lip[:, None]
    top = col["mouth"] + m.arch[:, None] - upper
    bottom = col["mouth"] + m.arch[:, None] + lower
    forms.add(0, 0.5 * (top + nose + 0.075), 0.022, 0.035, -0.006)
    forms.mirrored(0.036, (0.5 * (top + nose + 0.075))[:, :, None], 0.020, 0.035, 0.004)
    forms.add(0, top + 0.4 * upper, 0.13, 0.030, 0.024)
    forms.add(0, bottom - 0.45 * m.lower_lip[:, None], 0.10, 0.030, 0.028)
    forms.add(0, bottom + 0.040, 0.11, 0.028, -0.018 - 0.014 * mid["AU17"])
    forms.add(0, bottom + 0.030, 0.085, 0.020, shade=0.24 + 0.12 * mid["AU17"])
    boss = col["chin"] - 0.145 - 0.035 * mid["AU17"]
    forms.add(0, boss, 0.095, 0.065, 0.040 + 0.040 * mid["AU17"])
    forms.mirrored(
        m.corner_x[:, :, None] + 0.008, col["mouth"][:, :, None] + m.corner_y[:, :, None], 0.018, 0.018, shade=0.32
    )
    # the jaw turns under; hollow of the cheek
    forms.add(0, col["chin"] + 0.01, 0.30, 0.050, shade=0.55)
    forms.mirrored(0.42, 0.34 + 0.4 * m.jaw[:, None, None], 0.10, 0.12, -0.016 - 0.012 * side["AU26"])


def _folds(m: Anatomy, age: torch.Tensor, forms: _List) -> None:
    """The lines that come with age and with action units: grooves in the relief, and the shade that lies in them."""
    side = {name: value[:, :, None] for name, value in m.a.items()}
    old = age[:, None, None]
    chin = m.skull.chin[:, :, None]
    mouth = m.mouth_y[:, None, None]
    corner_x, corner_y = m.corner_x[:, :, None], mouth + m.corner_y[:, :, None]

    def line(start, control, end, pieces, sigma, groove, shade):
        """Gaussians along the quadratic Bezier curve through three (x, y) pairs, fainter towards its ends."""
        first, second, third, fade = _bezier(pieces, age.device)
        x, y = (first * p + second * q + third * r for p, q, r in zip(start, control, end, strict=True))
        forms.mirrored(x, y, *sigma, -groove * fade, shade * fade)

    # forehead: AU01 wrinkles its middle, AU02 its sides
    for k, height in enumerate((-0.415, -0.485, -0.555)):
        lift = -0.020 * side["AU01"] - 0.012 * side["AU02"]
        depth = (1.0, 0.9, 0.7)[k]
        central = depth * (side["AU01"] + 0.10 * old) * (1 - 0.5 * side["AU04"] * (1 - side["AU01"]).clamp(min=0))
        line(
            (0.0, height - 0.012 + lift),
            (0.10, height - 0.012 + lift),
            (0.19, height + 0.024 + lift),
            4,
            (0.035, 0.014),
            0.016 * central,
            0.34 * central,
        )
        lateral = depth * (side["AU02"] + 0.08 * old)
        line(
            (0.17, height + 0.020 + lift),
            (0.30, height - 0.045 + lift),
            (0.43, height + 0.035 + lift),
            5,
            (0.032, 0.014),
            0.016 * lateral,
            0.32 * lateral,
        )
    # between the brows
    frown = side["AU04"] + 0.06 * old
    line((0.030, -0.345), (0.040, -0.27), (0.034, -0.185), 4, (0.012, 0.030), 0.022 * frown, 0.55 * frown)
    forms.mirrored(0.085, -0.255 + 0.03 * side["AU04"], 0.045, 0.040, 0.030 * side["AU04"])
    forms.mirrored(0.20, m.brow_y[:, :, :1] + 0.065, 0.10, 0.022, shade=0.30 * side["AU04"])
    # crow's feet and the furrow under the eye
    feet = side["AU06"] + 0.10 * old
    ex = m.eye_x[:, :, None] + m.eye_half[:, :, None]
    for rise, reach in ((-0.070, 0.105), (-0.005, 0.125), (0.060, 0.105)):
        line(
            (ex + 0.030, _EYE_Y + 0.30 * rise),
            (ex + 0.07, _EYE_Y + 0.60 * rise),
            (ex + reach, _EYE_Y + rise),
            4,
            (0.020, 0.012),
            0.016 * feet,
            0.46 * feet,
        )
    bag = side["AU06"] + 0.15 * side["AU12"] + 0.26 * old
    line(
        (m.eye_x[:, :, None] - 0.10, -0.055),
        (m.eye_x[:, :, None], -0.005),
        (ex + 0.02, -0.045),
        6,
        (0.030, 0.014),
        0.016 * bag,
        0.40 * bag,
    )
    forms.mirrored(m.eye_x[:, :, None], -0.062, 0.085, 0.018, 0.012 * side["AU07"] + 0.008 * side["AU06"])
    forms.mirrored(m.eye_x[:, :, None], -0.030, 0.085, 0.013, shade=0.22 * side["AU07"])
    # nose wrinkles: across the root, and down its sides
    for k in range(3):
        y = -0.165 + 0.058 * k
        line(
            (0.0, y + 0.004),
            (0.030, y),
            (0.078, y + 0.036),
            4,
            (0.018, 0.0105),
            0.016 * side["AU09"],
            0.50 * side["AU09"],
        )
    line((0.085, -0.10), (0.105, -0.02), (0.125, 0.075), 5, (0.014, 0.026), 0.014 * side["AU09"], 0.34 * side["AU09"])
    # nasolabial fold: from the wing of the nose around the corner of the mouth
    fold = 0.95 * side["AU12"] + 0.95 * side["AU10"] + 0.55 * side["AU09"] + 0.12 * side["AU20"] + 0.45 * old**1.5
    fold = fold.clamp(max=1.25)
    wing = (m.wing_x[:, :, None] + 0.040, m.wing_y[:, :, None] - 0.012)
    end = (corner_x + 0.080, corner_y + 0.050 + 0.020 * side["AU12"])
    bend = (wing[0] + 0.80 * (end[0] - wing[0]), wing[1] + 0.25 * (end[1] - wing[1]) - 0.015 * side["AU12"])
    line(wing, bend, end, 12, (0.0135, 0.0175), 0.021 * fold, 0.30 * fold)
    forms.mirrored(
        0.245 + 0.035 * side["AU12"], 0.235 - 0.035 * side["AU12"], 0.055, 0.065, 0.020 * (fold - 0.45 * old**1.5)
    )
    # AU10: the upper nasolabial part and the pouch beside the nose
    line(
        (wing[0] - 0.005, wing[1] - 0.035),
        (wing[0] + 0.03, wing[1] + 0.03),
        (wing[0] + 0.055, wing[1] + 0.085),
        5,
        (0.015, 0.020),
        0.014 * side["AU10"],
        0.38 * side["AU10"],
    )
    # AU14: a pit beside each corner and the bulge around it
    line(
        (corner_x + 0.050, corner_y - 0.060),
        (corner_x + 0.082, corner_y - 0.005),
        (corner_x + 0.052, corner_y + 0.060),
        5,
        (0.0155, 0.020),
        0.026 * side["AU14"],
        0.58 * side["AU14"],
    )
    forms.mirrored(corner_x + 0.018, corner_y, 0.024, 0.034, 0.020 * side["AU14"])
    forms.mirrored(corner_x + 0.125, corner_y, 0.035, 0.060, 0.018 * side["AU14"])
    # AU15: grooves that run down from the corners, pouches under them
    line(
        (corner_x + 0.020, corner_y + 0.010),
        (corner_x + 0.045, corner_y + 0.055),
        (corner_x + 0.048, corner_y + 0.120),
        5,
        (0.015, 0.021),
        0.018 * (side["AU15"] + 0.25 * old),
        0.42 * (side["AU15"] + 0.2 * old),
    )
    forms.mirrored(corner_x - 0.035, corner_y + 0.075, 0.040, 0.032, 0.016 * side["AU15"])
    # AU17: the dimpled chin
    dots = age.new_tensor(
        [
            (0.012, -0.185),
            (0.055, -0.165),
            (0.030, -0.135),
            (0.075, -0.120),
            (0.010, -0.110),
            (0.050, -0.090),
            (0.085, -0.150),
        ]
    )
    forms.mirrored(dots[:, 0], chin + dots[:, 1] - 0.02, 0.017, 0.015, -0.012 * side["AU17"])
    forms.mirrored(dots[:, 0], chin + dots[:, 1] - 0.02, 0.017, 0.015, shade=0.26 * side["AU17"])
    line(
        (0.0, mouth + 0.100),
        (0.07, mouth + 0.100),
        (0.125, mouth + 0.150),
        4,
        (0.030, 0.014),
        0.012 * side["AU17"],
        0.28 * side["AU17"],
    )
    # AU20: lines across beside the corners, hollow cheeks
    for rise in (-0.028, 0.020, 0.068):
        line(
            (corner_x + 0.035, corner_y + 0.6 * rise),
            (corner_x + 0.065, corner_y + rise),
            (corner_x + 0.095, corner_y + 1.4 * rise + 0.010),
            3,
            (0.017, 0.013),
            0.015 * side["AU20"],
            0.42 * side["AU20"],
        )
    # AU23, AU28: lips pressed; skin bulges over and under them
    press = (side["AU23"] + side["AU28"]).clamp(max=1.3)
    forms.mirrored(0.075, mouth - 0.058, 0.060, 0.018, 0.010 * press)
    forms.mirrored(0.075, mouth + 0.066, 0.060, 0.018, 0.012 * press)
    radial = age.new_tensor([0.025, 0.075, 0.125])
    forms.mirrored(radial, mouth - 0.050, 0.010, 0.020, -0.008 * press)
    forms.mirrored(radial, mouth - 0.050, 0.010, 0.020, shade=0.38 * side["AU23"] + 0.24 * side["AU28"])
    forms.mirrored(radial, mouth + 0.060, 0.010, 0.020, shade=0.26 * side["AU23"] + 0.22 * side["AU28"])


def _beard(m: Anatomy, identity: Identity) -> Bumps:
    """Where a beard grows; it moves with the jaw and the lip."""
    beard = _List(identity.age)
    amount = identity.beard[:, None]
    chin, mouth = m.skull.chin, m.mouth_y[:, None]
    top = mouth - m.upper_gap[:, None] - m.upper_lip[:, None]
    beard.mirrored(
        identity.age.new_tensor([0.045, 0.125])[None, None],
        (top - 0.035)[:, :, None],
        0.05,
        0.022,
        shade=0.75 * amount[:, :, None],
    )
    rows = identity.age.new_tensor(
        [
            (0.06, -0.09, 0.10),
            (0.18, -0.12, 0.10),
            (0.28, -0.18, 0.09),
            (0.36, -0.26, 0.085),
            (0.43, -0.35, 0.08),
            (0.48, -0.45, 0.075),
            (0.515, -0.55, 0.07),
            (0.54, -0.65, 0.06),
            (0.26, -0.30, 0.07),
        ]
    )
    beard.mirrored(rows[:, 0], chin[:, :, None] + rows[:, 1], rows[:, 2], rows[:, 2], shade=0.75 * amount[:, :, None])
    return beard.done()


# of the 20 mouth landmarks: the place along the lips (-1 and 1 are the corners), and which line they lie on
_LIP_PLACES = (-1, -0.6, -0.25, 0, 0.25, 0.6, 1, 0.6, 0.3, 0, -0.3, -0.6, -0.88, -0.35, 0, 0.35, 0.88, 0.35, 0, -0.35)
# c corner, u and l the outer border of the upper and lower lip, U and L their inner border
_LIP_KINDS = "cuuuuuclllllcUUUcLLL"


def _lip_weights() -> torch.Tensor:
    """(7, 20): how y of both corners, arch, upper and lower gap, upper and lower lip make each mouth landmark's y."""
    rows = []
    for t, kind in zip(_LIP_PLACES, _LIP_KINDS, strict=True):
        bow, side = max(1 - t * t, 0.0), int(t > 0)
        bend = abs(t) ** 1.7
        cupid = 0.82 if t == 0 else 1.05
        rows.append(
            [
                bend * (side == 0),
                bend * (side == 1),
                bow,
                -(bow**0.6) * (kind in "uU"),
                bow**0.6 * (kind in "lL"),
                -cupid * bow**0.70 * (kind == "u"),
                bow**0.62 * (kind == "l"),
            ]
        )
    return torch.tensor(rows).T


_LIP_WEIGHTS = _lip_weights()
_EYE_PLACES, _EYE_LIDS = (-1.0, -0.36, 0.36, 1.0, 0.36, -0.36), (0, 1, 1, 0, -1, -1)


def brow_curve(u, low, arch, tail, node):
    """Height of a brow at ``u`` (0 inner, 1 outer end): the parabola through its three points, one at ``node``."""
    return (
        low * (u - node) * (u - 1) / node
        + arch * u * (u - 1) / (node * (node - 1))
        + tail * u * (u - node) / (1 - node)
    )


def points(m: Anatomy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The 68 iBUG landmarks on the moved face: x, y and height over the skull, each (n, 68), head units."""
    like, n = m.jaw, len(m.jaw)

    def const(*values):
        return like.new_tensor(values)

    xs, ys, lifts = [], [], []
    # outline from ear to ear round the chin
    angle = torch.linspace(-1, 1, 17, device=like.device)
    y = -0.10 + (m.skull.chin + 0.098) * (1 - angle.abs().pow(1.55))
    xs.append(0.985 * angle.sign() * m.skull.slices(y)[0].clamp(min=0))
    ys.append(y), lifts.append(like.new_zeros(n, 17))
    # brows, left to right
    for side in (0, 1):
        u = const(1.0, 0.75, 0.5, 0.25, 0.0) if side == 0 else const(0.0, 0.25, 0.5, 0.75, 1.0)
        inner, middle, outer = m.brow_x[:, side].split(1, 1)
        node = (middle - inner) / (outer - inner)
        xs.append(SIDES[side] * (inner + u * (outer - inner)))
        ys.append(brow_curve(u, *m.brow_y[:, side].split(1, 1), node)), lifts.append(like.new_zeros(n, 5))
    # bridge and base of the nose
    step = const(0.0, 1 / 3, 2 / 3, 1.0)
    xs.append(like.new_zeros(n, 4)), ys.append(-0.12 + (m.nose_y[:, None] + 0.12) * step)
    lifts.append((0.03 + 0.09 * step).expand(n, -1))
    share, side = const(-0.85, -0.45, 0.0, 0.45, 0.85), torch.tensor([0, 0, 0, 1, 1], device=like.device)
    wing_y = torch.cat([m.wing_y[:, [0, 0]], m.wing_y.mean(1, keepdim=True), m.wing_y[:, [1, 1]]], 1)
    xs.append(share * m.wing_x[:, side]), ys.append(wing_y + 0.020 + 0.012 * (1 - share.abs()))
    lifts.append((0.05 + 0.03 * (share == 0)).expand(n, -1))
    # each eye from the picture's left corner over the upper lid to the right one and back below
    place, lid = const(*_EYE_PLACES), const(*_EYE_LIDS)
    for side in (0, 1):
        out = place * SIDES[side]
        bow = 1 - place * place
        upper = -m.upper_lid[:, side, None] * bow.pow(0.75) * (1 - 0.10 * out)
        lower = m.lower_lid[:, side, None] * bow.pow(0.85) * (1 + 0.12 * out)
        rise = upper * (lid > 0) + lower * (lid < 0) - (m.eye_tilt[:, side, None] + 0.008) * out
        xs.append(SIDES[side] * (m.eye_x[:, side, None] + out * m.eye_half[:, side, None]))
        ys.append(m.eye_y[:, side, None] + rise), lifts.append(like.new_zeros(n, 6))
    # mouth
    place = const(*_LIP_PLACES)
    xs.append(place.clamp(max=0) * m.corner_x[:, :1] + place.clamp(min=0) * m.corner_x[:, 1:])
    parts = torch.stack([*m.corner_y.unbind(1), m.arch, m.upper_gap, m.lower_gap, m.upper_lip, m.lower_lip], 1)
    ys.append(m.mouth_y[:, None] + (parts[:, :, None] * _LIP_WEIGHTS.to(like.device)).sum(1))
    lifts.append(like.new_full((n, 20), 0.02))
    return torch.cat(xs, 1), torch.cat(ys, 1), torch.cat(lifts, 1)
