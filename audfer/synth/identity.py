"""Who is in the picture: the traits of a rendered face, and how they are drawn by chance.

An identity is a bag of numbers, nothing is stored as a picture. Every trait is a float32 tensor whose first axis
counts people, so that a batch of frames is rendered from ``identity[subject_of_each_frame]``.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from .. import facs
from ..errors import InputError


class Batch(SimpleNamespace):
    """Tensors (or further batches) that share their first axis, as attributes: people, frames, points of a picture."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self, index):
        """Those at ``index``: an int tensor or array, a mask, a list, a slice, or one int (the first axis stays)."""
        if not isinstance(index, slice):
            index = torch.as_tensor([index] if isinstance(index, int) else index)
            index = index if index.dtype == torch.bool else index.long()
        return type(self)(**{name: value[index] for name, value in vars(self).items()})

    def to(self, device):
        """The same on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


@functools.cache
def table(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file beside this one."""
    with open(Path(__file__).with_name(name), newline="") as file:
        return list(csv.DictReader(file))


def _palette(name: str) -> tuple[tuple[float, ...], ...]:
    """Colours of ``palettes.csv``, sRGB 0..1."""
    colours = [row for row in table("palettes.csv") if row["palette"] == name]
    return tuple(tuple(float(row[channel]) for channel in ("red", "green", "blue")) for row in colours)


#: ten skin tones from light to dark (sRGB 0..1), spaced like the Monk skin tone scale and a little warmer than it,
#: because that scale's swatches are colours of lit skin while these are multiplied by a light
SKIN_TONES: tuple[tuple[float, ...], ...] = _palette("skin")
_STRANDS = 96


@dataclass
class Identity(Batch):
    """Traits of ``n`` people: float32 tensors with first axis ``n``. Factors are around 1, colours are sRGB in 0..1.

    Attributes:
        skin_tone: (n,) index 0..9 in ``SKIN_TONES``, light to dark.
        skin, lips, hair, brows, iris, clothes, frame: (n, 3) colours; ``frame`` is that of the glasses.
        age: (n,) 0 (young) to 1 (old): lines at rest, grey hair, softer skin.
        face_width, face_length, jaw, brow_height, brow_thickness, brow_arch, eye_size, eye_spacing, nose_width,
        nose_length, mouth_width, lip_thickness: (n,) factors.
        eye_tilt: (n,) height of the outer above the inner eye corner, in head units.
        hairline: (n,) height of the hairline on the midline, in head units (more negative is higher).
        hair_length: (n,) 0 shorn, 0.3 short, above 0.6 falls beside the face.
        hair_volume: (n,) thickness of the hair over the skull, in head units.
        hair_part: (n,) -1..1 to which side the hair is combed.
        hair_wave: (n,) 0 straight, 0.5 wavy, 1 curly.
        beard: (n,) 0 none, 0.4 stubble, 1 full.
        glasses: (n,) 0 or 1.
        oiliness: (n,) strength of the highlight on the skin.
        expressiveness: (n, 18) how strongly each AU shows on this person, around 1.
        strands: (n, 96) the light and dark of the hair across the head, around 0.
    """

    skin_tone: torch.Tensor
    skin: torch.Tensor
    lips: torch.Tensor
    hair: torch.Tensor
    brows: torch.Tensor
    iris: torch.Tensor
    clothes: torch.Tensor
    frame: torch.Tensor
    age: torch.Tensor
    face_width: torch.Tensor
    face_length: torch.Tensor
    jaw: torch.Tensor
    brow_height: torch.Tensor
    brow_thickness: torch.Tensor
    brow_arch: torch.Tensor
    eye_size: torch.Tensor
    eye_spacing: torch.Tensor
    eye_tilt: torch.Tensor
    nose_width: torch.Tensor
    nose_length: torch.Tensor
    mouth_width: torch.Tensor
    lip_thickness: torch.Tensor
    hairline: torch.Tensor
    hair_length: torch.Tensor
    hair_volume: torch.Tensor
    hair_part: torch.Tensor
    hair_wave: torch.Tensor
    beard: torch.Tensor
    glasses: torch.Tensor
    oiliness: torch.Tensor
    expressiveness: torch.Tensor
    strands: torch.Tensor


def sample_identities(count: int, seed: int) -> Identity:
    """Draw ``count`` people; the ten skin tones come evenly (each tone ``count // 10`` or one more time).

    Args:
        count: how many, at least 1.
        seed: the same seed gives the same people.

    Raises:
        InputError: ``count`` is below 1.

    Example:
        >>> people = sample_identities(20, seed=0)
        >>> len(people), int((people.skin_tone == 3).sum())
        (20, 2)
    """
    if count < 1:
        raise InputError("sample_identities", "count", count, "at least 1")
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def around(mean: float, spread: float, *shape: int) -> torch.Tensor:
        # the sum of three uniform numbers: bell-shaped, and never outside mean +- 1.5 spread
        return mean + spread * (torch.rand(3, count, *shape, generator=generator).sum(0) - 1.5)

    tone = (torch.arange(count) % len(SKIN_TONES))[torch.randperm(count, generator=generator)]
    darkness = tone.float()[:, None] / 9
    skin = (torch.tensor(SKIN_TONES)[tone] * around(1.0, 0.03, 3)).clamp(0.08, 0.97)
    age = uniform(0, 1) ** 1.4
    # dark skin goes with dark hair and eyes, light skin with any
    reach = (1 - 0.9 * darkness[:, 0]).clamp(0.15, 1)
    hair = torch.tensor(_palette("hair"))[(uniform(0, 1) ** 1.2 * reach * 6.99).long()] * around(1, 0.1)[:, None]
    grey = ((age - 0.62) * 3).clamp(0, 0.95)[:, None] * (uniform(0, 1) > 0.25).float()[:, None]
    hair = hair + grey * (torch.tensor(_palette("grey")) - hair)
    iris = torch.tensor(_palette("iris"))[(uniform(0, 1) * reach**2 * 5.99).long()]
    rouge = (uniform(0, 1) > 0.55).float()[:, None]
    lips = skin * torch.tensor([0.89, 0.63, 0.65]) * (1 - 0.05 * darkness)
    lips = lips + rouge * torch.tensor([0.02, -0.06, -0.04])
    bearded = (rouge[:, 0] == 0).float() * (uniform(0, 1) > 0.35).float()
    long_hair = torch.where(rouge[:, 0] > 0, uniform(0.35, 1.1), uniform(0.0, 0.62))
    expressiveness = around(1.0, 0.12, 18)
    # a blink closes the eye and a lip suck hides the red on everybody
    expressiveness[:, [facs.ACTION_UNITS.index("AU28"), facs.ACTION_UNITS.index("AU45")]] = 1.0
    wave = (uniform(0, 1) ** 1.7 + darkness[:, 0] * uniform(0, 0.9)).clamp(max=1)
    volume = uniform(0.03, 0.13) + 0.09 * ((wave - 0.6) / 0.4).clamp(0, 1)  # curls stand off the head
    return Identity(
        skin_tone=tone.float(),
        skin=skin,
        lips=lips.clamp(0.06, 0.95),
        hair=hair.clamp(0.03, 0.9),
        brows=(0.72 * hair + 0.04).clamp(0.05, 0.6),
        iris=iris.clamp(0, 1),
        clothes=uniform(0.08, 0.8, 3),
        frame=uniform(0.04, 0.30, 1).expand(-1, 3) * torch.tensor([1.0, 0.85, 0.8]),
        age=age,
        face_width=around(1.0, 0.07),
        face_length=around(1.0, 0.06),
        jaw=around(1.0, 0.22),
        brow_height=around(1.0, 0.12),
        brow_thickness=around(1.0, 0.30) - 0.15 * rouge[:, 0],
        brow_arch=around(1.0, 0.45),
        eye_size=around(1.0, 0.09),
        eye_spacing=around(1.0, 0.05),
        eye_tilt=around(0.008, 0.018),
        nose_width=around(1.0, 0.16) + 0.10 * darkness[:, 0],
        nose_length=around(1.0, 0.08),
        mouth_width=around(1.0, 0.09),
        lip_thickness=around(0.95, 0.22) + 0.25 * darkness[:, 0],
        hairline=around(-0.62, 0.07) - 0.10 * age * bearded,
        hair_length=long_hair,
        hair_volume=volume,
        hair_part=uniform(-1, 1),
        hair_wave=wave,
        beard=bearded * uniform(0.15, 1.0),
        glasses=(uniform(0, 1) > 0.80).float(),
        oiliness=uniform(0.05, 0.22),
        expressiveness=expressiveness,
        strands=_strands(count, generator),
    )


def _strands(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 96): noise of several widths across the head, so that locks and single hairs both show."""
    total = torch.zeros(count, 1, _STRANDS)
    for knots, strength in ((9, 0.5), (25, 0.6), (60, 0.5)):
        noise = torch.rand(count, 1, knots, generator=generator) - 0.5
        total = total + strength * torch.nn.functional.interpolate(noise, _STRANDS, mode="linear", align_corners=True)
    return total[:, 0]
