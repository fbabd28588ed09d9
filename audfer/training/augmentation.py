"""Clip augmentation, batched on the device: one draw per clip, the same for all of its frames.

Equal in distribution to what the official recipes do picture by picture on the processor, in their order. All numbers
are drawn from a generator of ours, so that a seed and a saved state give the same clips again. Colours are kornia's;
crops and warps are one affine grid per clip (pixels are areas, as in Pillow), through which its frames go as channels
of one picture. What differs from the releases: values are not rounded to 1/255 between two steps; a crop that shrinks
is not smoothed first (a store is at most half as large again as the network's picture); and the ImageNet normalisation
of MAE-DFER, there between RandAugment and the crop, is done by the network itself: crop and flip do not notice, and the
noise of random erasing is drawn so that it is standard normal after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..facs import EXPRESSIONS
from ..models.mae_dfer import IMAGENET_MEAN, IMAGENET_STD
from ..recipes import Augmentation

#: place of each of the 68 iBUG points' counterpart on the other half of the face: jaw, brows, nose, eyes, lips
MIRRORED = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *range(64, 59, -1),
    *range(67, 64, -1),
)
#: tries to find a box inside the picture, in crops and random erasing
_TRIES = 10


#: how many clips the whole batch has, and the places in it (an index) of those at hand
Batch = tuple[int, np.ndarray]


def augment(
    clips: Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    size: int | None = None,
    batch: Batch | None = None,
) -> Tensor:
    """Augment a batch: RandAugment, crop and flip, colour jitter, random erasing, as far as the numbers ask for them.

    Args:
        clips: (B, T, 3, S, S) uint8.
        generator: on the CPU; everything random comes from it.
        size: side of the result; ``None`` = S. Crops are cut from the clips as they come; RandAugment gets them at
            ``size``.
        batch: of which batch these clips are a part, and where in it: what is drawn is drawn for the whole batch, so
            that each part comes out as in the whole, and the generator is left in the same state. ``None``: they are
            all.

    Returns:
        (B, T, 3, size, size) float32 on the clips' device, in [0, 1] except where random erasing put noise.
    """
    return augment_with_points(clips, None, augmentation, generator, size, batch)[0]


def augment_with_points(
    clips: Tensor,
    points: Tensor | None,
    augmentation: Augmentation,
    generator: torch.Generator,
    size: int | None = None,
    batch: Batch | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``augment``, and where facial landmarks have come to lie. The clips and the draws do not depend on the points.

    Args:
        points: (B, T, 68, 2) floating point, iBUG points in units of the side (x right, y down), NaN where unknown; or
            ``None``.
        clips, augmentation, generator, size, batch: as in ``augment``.

    Returns:
        The augmented clips, and the points on them (``None`` of ``None``): points that have left the picture are NaN,
        and in a flipped clip left and right have changed names as well as sides. Random erasing leaves the points that
        it covers.
    """
    size = size or clips.shape[-1]
    frames = clips.shape[1]
    count, own = _batch(clips, batch)
    # frames of a clip share every draw, so they travel as channels of one picture
    pictures = clips.flatten(1, 2).float().div_(255)
    if augmentation.operations:
        pictures = resize(pictures, size)
        drawn = [part[own] for part in draw_operations(count, augmentation, generator)]
        pictures = _operated(pictures.unflatten(1, (frames, 3)), *drawn).flatten(1, 2)
        points = None if points is None else _operated_points(points, *drawn)
    pictures, points = _cropped(pictures, points, augmentation, generator, size, count, own)
    clips = pictures.unflatten(1, (frames, 3))
    if augmentation.colour_jitter or augmentation.hue_jitter:
        clips = colour_jitter(clips, augmentation, generator, batch)
    if augmentation.erase:
        clips = random_erasing(clips, augmentation, generator, batch)
    return clips, points


def crop_with_points(
    clips: Tensor,
    points: Tensor | None,
    augmentation: Augmentation,
    generator: torch.Generator,
    batch: Batch | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Crop and flip alone, of clips that are no pixels any more (``ClipModel.prepare``); the same draws as ``augment``.

    Args:
        clips: (B, T, C, S, S) floating point; so is the result.
        points, augmentation, generator, batch: as in ``augment_with_points``.
    """
    count, own = _batch(clips, batch)
    pictures = clips.flatten(1, 2)
    pictures, points = _cropped(pictures, points, augmentation, generator, clips.shape[-1], count, own)
    return pictures.unflatten(1, clips.shape[1:3]), points


def _cropped(pictures, points, augmentation: Augmentation, generator: torch.Generator, size: int, count: int, own):
    """Pictures (B, C, S, S) and points, cropped and flipped as far as the numbers ask for it."""
    if augmentation.crop == "none" and not augmentation.flip:
        return resize(pictures, size), points
    box, flipped = _draw_crops(count, pictures.shape[-1], augmentation, generator)
    box, flipped = box[own], flipped[own]
    return _cut(pictures, box, flipped, size), None if points is None else _cut_points(points, box, flipped)


def _batch(clips: Tensor, batch: Batch | None) -> tuple[int, slice | np.ndarray]:
    return (len(clips), slice(None)) if batch is None else batch


def resize(pictures: Tensor, size: int) -> Tensor:
    """(..., C, S, S) floating point -> (..., C, size, size), bilinear, smoothed where it shrinks.

    As it is if S = size.
    """
    if pictures.shape[-1] == size:
        return pictures
    flat = F.interpolate(
        pictures.reshape(-1, *pictures.shape[-3:]),
        size=(size, size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return flat.reshape(*pictures.shape[:-2], size, size)


# -------------------------------------------------------------------------------------------------- crop and flip
# drawn: (x, y, width, height) as shares of the side (B, 4) and whether to flip (B,)


def _draw_crops(count: int, side: int, augmentation: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if augmentation.crop == "mild":
        draw = torch.rand(count, 5, generator=generator)
        area = _between(augmentation.crop_area, draw[:, 0])
        aspect = _log_between(augmentation.crop_aspect, draw[:, 1])
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        box = torch.stack((draw[:, 2] * (1 - width), draw[:, 3] * (1 - height), width, height), dim=1)
        return box, draw[:, 4] < augmentation.flip
    # a picture is square, so the official last resort (short side to size, then a crop of that size) is all of it
    box = torch.tensor([0.0, 0.0, side, side]).repeat(count, 1)
    if augmentation.crop != "none":
        area = side**2 * _between(augmentation.crop_area, torch.rand(count, _TRIES, generator=generator))
        draw = torch.rand(count, _TRIES, generator=generator)
        if augmentation.crop == "log":
            aspect = _log_between(augmentation.crop_aspect, draw)
        else:
            aspect = _between(augmentation.crop_aspect, draw)
            swap = torch.rand(count, _TRIES, generator=generator) < 0.5
            aspect = torch.where(swap, 1 / aspect, aspect)
        width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        placed = _place(width, height, (width <= side) & (height <= side), side, generator)
        box = torch.where(placed.isnan(), box, placed)
    return box / side, torch.rand(count, generator=generator) < augmentation.flip


def _place(width: Tensor, height: Tensor, fits: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """The first of several tries (B, tries) that fits, at a random place: (B, 4) x, y, width, height; NaN where none
    does.
    """
    first = fits.int().argmax(1, keepdim=True)
    width, height = width.gather(1, first)[:, 0], height.gather(1, first)[:, 0]
    x, y = torch.rand(len(width), 2, generator=generator).T
    box = torch.stack(((x * (side - width + 1)).floor(), (y * (side - height + 1)).floor(), width, height), 1)
    return torch.where(fits.any(1, keepdim=True), box, torch.nan)


def _between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _log_between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    return bounds[0] * (bounds[1] / bounds[0]) ** draw


def _cut(pictures: Tensor, box: Tensor, flipped: Tensor, size: int) -> Tensor:
    x, y, width, height = box.T
    theta = torch.zeros(len(box), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(flipped, -width, width), height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * x + width - 1, 2 * y + height - 1
    return _warp(pictures, theta, size, "bilinear", "border")


def _cut_points(points: Tensor, box: Tensor, flipped: Tensor) -> Tensor:
    box, flipped = box.to(points)[:, None, None], flipped.to(points.device)[:, None, None, None]
    moved = (points - box[..., :2]) / box[..., 2:]
    mirrored = moved[:, :, list(MIRRORED)] * moved.new_tensor([-1, 1]) + moved.new_tensor([1, 0])
    return _inside(torch.where(flipped, mirrored, moved))


def _inside(points: Tensor) -> Tensor:
    """Points (..., 2) with NaN for those outside the picture."""
    return points.where(((points >= 0) & (points <= 1)).all(-1, keepdim=True), torch.nan)


def _warp(pictures: Tensor, theta: Tensor, size: int, mode: str, padding: str) -> Tensor:
    """Pictures (B, C, S, S) through affine maps (B, 2, 3) from places in the result to the source, -1 to 1."""
    grid = F.affine_grid(theta.to(pictures.device), (len(theta), 1, size, size), align_corners=False)
    return F.grid_sample(pictures, grid, mode=mode, padding_mode=padding, align_corners=False)


# ---------------------------------------------------------------------------------------------------------- colours


def _kornia(name: str, *arguments: Tensor) -> Tensor:
    """A function of ``kornia.enhance``, which takes half a second to import and which the tiny networks' recipes do
    without.
    """
    from kornia import enhance

    return getattr(enhance, name)(*arguments)


_BRIGHTNESS = partial(_kornia, "adjust_brightness_accumulative")
_CONTRAST = partial(_kornia, "adjust_contrast_with_mean_subtraction")
_SATURATION = partial(_kornia, "adjust_saturation_with_gray_subtraction")
_ADJUSTMENTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _BRIGHTNESS,
    _CONTRAST,
    _SATURATION,
    lambda clips, turn: _kornia("adjust_hue", clips, turn * 2 * math.pi),
)


def colour_jitter(
    clips: Tensor, augmentation: Augmentation, generator: torch.Generator, batch: Batch | None = None
) -> Tensor:
    """Brightness, contrast (about a frame's mean grey), saturation and hue, in random order.

    (B, T, 3, H, W) in [0, 1].
    """
    count, own = _batch(clips, batch)
    draw = 2 * torch.rand(count, 4, generator=generator)[own] - 1
    amounts = torch.cat((1 + augmentation.colour_jitter * draw[:, :3], augmentation.hue_jitter * draw[:, 3:]), dim=1)
    order = torch.rand(count, 4, generator=generator)[own].argsort(1)
    for turn in order.T:
        clips = _apply(clips, turn, _ADJUSTMENTS, amounts.gather(1, turn[:, None])[:, 0])
    return clips


def _apply(clips: Tensor, kinds: Tensor, changes: tuple[Callable, ...], *amounts: Tensor) -> Tensor:
    """Give each clip its own change: clips of one kind together, each with its own amounts; kind -1 = none."""
    result = clips.clone()
    for kind, change in enumerate(changes):
        index = (kinds == kind).nonzero()[:, 0]
        if len(index):
            where = index.to(clips.device)
            values = [amount[index].to(clips.device) for amount in amounts]
            result[where] = change(clips[where], *values)
    return result


# ------------------------------------------------------------------------------------------------------ RandAugment
# magnitudes to parameters as timm documents them for "inc1"


#: changes clips (n, T, 3, H, W) by a level 0..1 (n,) and a sign (n,)
Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


def _framewise(name: str) -> Operation:
    return lambda clips, level, sign: _kornia(name, clips.flatten(0, 1)).view_as(clips)


def _enhance(change: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return lambda clips, level, sign: change(clips, (1 + 0.9 * level * sign).clamp(min=0.1))


def _sharpness(clips: Tensor, factor: Tensor) -> Tensor:
    return _kornia("sharpness", clips.flatten(0, 1), factor.repeat_interleave(clips.shape[1])).view_as(clips)


def _posterize(clips: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    # kornia's shifts lose a step to rounding, so: keep the highest 4 - floor(4 level) of eight bits
    step = (2 ** (4 + (4 * level).floor())).view(-1, 1, 1, 1, 1)
    return ((clips * 255).round() / step).floor() * step / 255


def _solarize_add(clips: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    added = ((110 * level).floor() / 255).view(-1, 1, 1, 1, 1)
    return torch.where(clips < 128 / 255, (clips + added).clamp(max=1), clips)


def _geometric(name: str) -> Operation:
    def change(clips: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        # grey comes in from outside: zero about a middle of zero
        moved = _warp(clips.flatten(1, 2) - 128 / 255, _map(name, level * sign), clips.shape[-1], "bicubic", "zeros")
        return (moved + 128 / 255).clamp_(0, 1).view_as(clips)

    return change


def _map(name: str, level: Tensor) -> Tensor:
    """The affine maps (n, 2, 3) of a geometric operation, as ``_warp`` takes them, at signed levels (n,)."""
    rows = [torch.as_tensor(entry, device=level.device).expand(len(level)) for entry in _MAPS[name](level)]
    return torch.stack(rows, dim=1).view(-1, 2, 3).float()


def _rotation(level: Tensor) -> tuple:
    angle = math.radians(30) * level
    return angle.cos(), -angle.sin(), 0.0, angle.sin(), angle.cos(), 0.0


#: the operations that move pixels: the 2 x 3 map of each, row by row, from the signed level (n,)
_MAPS: dict[str, Callable[[Tensor], tuple]] = {
    "Rotate": _rotation,
    # sheared about the upper left corner, as Pillow does
    "ShearX": lambda level: (1.0, 0.3 * level, 0.3 * level, 0.0, 1.0, 0.0),
    "ShearY": lambda level: (1.0, 0.0, 0.0, 0.3 * level, 1.0, 0.3 * level),
    "TranslateXRel": lambda level: (1.0, 0.0, 2 * 0.45 * level, 0.0, 1.0, 0.0),
    "TranslateYRel": lambda level: (1.0, 0.0, 0.0, 0.0, 1.0, 2 * 0.45 * level),
}

#: the 15 "increasing" operations, in timm's names
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _framewise("normalize_min_max"),
    "Equalize": _framewise("equalize"),
    "Invert": lambda clips, level, sign: 1 - clips,
    "Rotate": _geometric("Rotate"),
    "PosterizeIncreasing": _posterize,
    "SolarizeIncreasing": lambda clips, level, sign: _kornia("solarize", clips, (256 - (256 * level).floor()) / 255),
    "SolarizeAdd": _solarize_add,
    "ColorIncreasing": _enhance(_SATURATION),
    "ContrastIncreasing": _enhance(_CONTRAST),
    "BrightnessIncreasing": _enhance(_BRIGHTNESS),
    "SharpnessIncreasing": _enhance(_sharpness),
    **{name: _geometric(name) for name in _MAPS if name != "Rotate"},
}


def draw_operations(
    count: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """RandAugment's draw for ``count`` clips, each (count, operations).

    Returns:
        Place in ``OPERATIONS`` or -1 (not done); level 0..1; sign -1 or 1.
    """
    shape = (count, augmentation.operations)
    kinds = torch.randint(len(OPERATIONS), shape, generator=generator)
    done = torch.rand(shape, generator=generator) < augmentation.operation_probability
    noise = augmentation.magnitude_deviation * torch.randn(shape, generator=generator)
    level = ((augmentation.magnitude + noise) / 10).clamp(0, 1)
    sign = torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
    return torch.where(done, kinds, -1), level, sign


def _operated(clips: Tensor, kinds: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """RandAugment (Cubuk et al. 2020) of clips (B, T, 3, S, S) in [0, 1], as timm's ``rand-m7-n4-mstd0.5-inc1``: the
    operations of ``draw_operations``, one after another."""
    changes = tuple(OPERATIONS.values())
    for kind, strength, direction in zip(kinds.T, level.T, sign.T, strict=True):
        clips = _apply(clips, kind, changes, strength, direction)
    return clips


def _operated_points(points: Tensor, kinds: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    for kind, signed in zip(kinds.T, (level * sign).T, strict=True):
        points = points.clone()
        for number, name in enumerate(OPERATIONS):
            index = (kind == number).nonzero()[:, 0]
            if name in _MAPS and len(index):
                # a map says where a place of the result was before, -1 to 1: points go the other way
                theta = _map(name, signed[index]).to(points)
                before = 2 * points[index.to(points.device)] - 1 - theta[:, None, None, :, 2]
                after = torch.einsum("nij,ntkj->ntki", torch.linalg.inv(theta[:, :, :2]), before)
                points[index.to(points.device)] = _inside((after + 1) / 2)
    return points


# --------------------------------------------------------------------------------------------------- random erasing


def draw_erasing(count: int, side: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Boxes of random erasing: (count, 4) x, y, width, height in pixels; NaN for clips that stay whole."""
    erased = torch.rand(count, 1, generator=generator) < augmentation.erase
    area = side**2 * _between(augmentation.erase_area, torch.rand(count, _TRIES, generator=generator))
    aspect = _log_between(augmentation.erase_aspect, torch.rand(count, _TRIES, generator=generator))
    height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    box = _place(width, height, (width < side) & (height < side), side, generator)
    return torch.where(erased, box, torch.nan)


def random_erasing(
    clips: Tensor, augmentation: Augmentation, generator: torch.Generator, batch: Batch | None = None
) -> Tensor:
    """Random erasing (Zhong et al. 2020) of clips (B, T, 3, S, S): noise that is standard normal after ImageNet
    normalisation.
    """
    count, own = _batch(clips, batch)
    boxes = draw_erasing(count, clips.shape[-1], augmentation, generator)[own]
    seeds = torch.randint(2**31, (count,), generator=generator)[own]
    # noise is drawn where it is needed, from a seed of the clip's own
    noise = torch.Generator(clips.device)
    mean, deviation = (
        torch.tensor(values, device=clips.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    clips = clips.clone()
    for clip, box, seed in zip(clips, boxes, seeds.tolist(), strict=True):
        if not box.isnan().any():
            noise.manual_seed(seed)
            x, y, width, height = box.int().tolist()
            part = clip[..., y : y + height, x : x + width]
            part.copy_(mean + deviation * torch.randn(part.shape, generator=noise, device=clips.device))
    return clips


# ------------------------------------------------------------------------------------------------ mixup and cutmix


def mix(clips: Tensor, mixup: float, cutmix: float, generator: np.random.Generator) -> tuple[Tensor, float]:
    """Mix a batch with itself in reverse order, one draw for the whole batch.

    Mixup (Zhang et al. 2018) blends the clips; cutmix (Yun et al. 2019) puts a box of the partner's, the same in all
    frames. With both, each has probability 0.5.

    Args:
        clips: (B, T, C, H, W) floating point.
        mixup, cutmix: alpha of Beta(alpha, alpha), of which the share is drawn; 0 = off.

    Returns:
        The mixed clips and the share of each that is its own (of the area, for cutmix); with both off, the same clips
        and 1.
    """
    if not mixup and not cutmix:
        return clips, 1.0
    boxes = cutmix > 0 and (not mixup or generator.random() < 0.5)
    share = generator.beta(cutmix, cutmix) if boxes else generator.beta(mixup, mixup)
    partner = clips.flip(0)
    if not boxes:
        return clips * share + partner * (1 - share), float(share)
    height, width = clips.shape[-2:]
    (top, bottom), (left, right) = (_span(side, math.sqrt(1 - share), generator) for side in (height, width))
    mixed = clips.clone()
    mixed[..., top:bottom, left:right] = partner[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _span(side: int, share: float, generator: np.random.Generator) -> tuple[int, int]:
    """A share of a side about a random centre, cut to the picture."""
    centre, half = int(generator.integers(side)), int(side * share) // 2
    return max(0, centre - half), min(side, centre + half)


def mixed_targets(expressions: Tensor, share: float) -> Tensor:
    """Soft targets (B, 7) of a batch that was mixed with its reverse; ``expressions`` (B,) are 0..6."""
    one_hot = F.one_hot(expressions, len(EXPRESSIONS)).float()
    return share * one_hot + (1 - share) * one_hot.flip(0)
