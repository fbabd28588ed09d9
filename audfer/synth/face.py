"""A batched renderer of faces driven by action units: pixels and 68 landmarks from the same moved geometry.

How a picture comes about, for a chunk of frames at a time (all arrays fit the processor's cache):

1. ``anatomy.move`` turns intensities into moved parts and a few hundred Gaussian bumps, folds and shades.
2. The skull is a stack of ellipses, so a turned head has a closed form per pixel row: silhouette, depth and slope.
3. Every Gaussian is projected to the picture and stays axis-aligned there, so that all of them together are one
   matrix product: ``sum_k a_k gy_k(y) gx_k(x)``. The slopes of the relief come the same way, exactly. A pixel's own
   width is added to every sigma, so that a small picture looks like a large one made small.
4. Eyes, brows, mouth and ears are drawn in small boxes with borders one pixel soft; hair, body and background around.
5. Roll turns the head layer, then occluders, blur and sensor noise.

Work is done in linear light; pictures are sRGB-like (gamma 2) bytes. The same input gives the same bytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from .. import facs
from ..errors import InputError
from .anatomy import SIDES, Anatomy, Bumps, brow_curve, move, part, points
from .identity import SKIN_TONES, Identity, sample_identities
from .scene import OCCLUDERS, Scene, neutral_scene

__all__ = ["OCCLUDERS", "SKIN_TONES", "Identity", "Scene", "au_region", "neutral_scene", "render", "sample_identities"]

_CHUNK_PIXELS = 64 * 64 * 64
_PIVOT_Y = 0.45  # the head rolls about the neck
_ZOOM, _CENTRE_Y = 0.95, -0.05
_ROLLED = 1e-4  # radians from which on the head layer is resampled


@dataclass
class _View:
    """Head units -> picture units, for one chunk: turned and shifted, not yet rolled."""

    size: int
    cos_yaw: torch.Tensor
    sin_yaw: torch.Tensor
    cos_pitch: torch.Tensor
    sin_pitch: torch.Tensor
    scale: torch.Tensor
    shift_x: torch.Tensor
    shift_y: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    pixel: torch.Tensor

    @classmethod
    def of(cls, scene: Scene, size: int) -> _View:
        """The picture itself."""
        return cls._window(scene, size, _ZOOM * scene.scale, scene.shift_x, scene.shift_y)

    @classmethod
    def stage(cls, scene: Scene, size: int) -> _View:
        """Where the head is drawn: the picture, or a square around the whole head in frames that will be rolled."""
        rolled = scene.roll.abs() > _ROLLED
        scale = torch.where(rolled, (_ZOOM * scene.scale).clamp(max=1.02), _ZOOM * scene.scale)
        # the middle of the whole head, hair included, is a little above the origin of head units
        middle = 0.5 * scale * (0.05 - _CENTRE_Y)
        return cls._window(
            scene, size, scale, torch.where(rolled, 0.0, scene.shift_x), torch.where(rolled, middle, scene.shift_y)
        )

    @classmethod
    def _window(cls, scene: Scene, size: int, scale, shift_x, shift_y) -> _View:
        centres = (torch.arange(size, device=scene.yaw.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
        scale, shift_x, shift_y = scale[:, None], 2 * shift_x[:, None], 2 * shift_y[:, None]
        return cls(
            size,
            scene.yaw.cos()[:, None],
            scene.yaw.sin()[:, None],
            scene.pitch.cos()[:, None],
            scene.pitch.sin()[:, None],
            scale,
            shift_x,
            shift_y,
            (centres - shift_x) / scale,
            (centres - shift_y) / scale - _CENTRE_Y,
            2 / size / scale,
        )

    def __getitem__(self, index: torch.Tensor) -> _View:
        return _View(self.size, *[getattr(self, f.name)[index] for f in fields(self)[1:]])

    def project(self, m: Anatomy, x, y, lift=0.0):
        """Points on the face (n, k) -> X, Y (n, k), foreshortening of x (n, k) and how visible they are (n, k)."""
        width, depth, offset = m.skull.slices(y)
        sine = (x / width.clamp(min=0.05)).clamp(-0.97, 0.97)
        cosine = (1 - sine * sine).sqrt()
        z = depth * cosine + offset + lift
        across = x * self.cos_yaw + z * self.sin_yaw
        down = y * self.cos_pitch + (z * self.cos_yaw - x * self.sin_yaw) * self.sin_pitch
        short = self.cos_yaw - depth / width.clamp(min=0.05) * sine / cosine * self.sin_yaw
        return across, down, short.clamp(0.15, 1.5), (short * 5).clamp(0, 1)

    def to_pixels(self, across, down, scene: Scene):
        """Picture units (n, k) -> pixel coordinates after the roll, (n, k, 2)."""
        cos, sin = scene.roll.cos()[:, None], scene.roll.sin()[:, None]
        down = down - _PIVOT_Y
        turned_x, turned_y = across * cos - down * sin, across * sin + down * cos + _PIVOT_Y
        px = (turned_x * self.scale + self.shift_x + 1) * self.size / 2
        py = ((turned_y + _CENTRE_Y) * self.scale + self.shift_y + 1) * self.size / 2
        return torch.stack([px, py], 2)


def render(
    identity: Identity, action_units: torch.Tensor, scene: Scene, size: int = 64, chunk: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render one face a frame.

    Args:
        identity: length B, already indexed per frame.
        action_units: (B, 18) intensities 0..5 in ``facs.ACTION_UNITS`` order, or (B, 18, 2) for the left and the
            right half of the face as seen in the picture; values outside 0..5 are clamped.
        scene: length B.
        size: side of the picture in pixels, at least 16.
        chunk: frames worked on at once; ``None`` takes a number that suits the processor's cache, on a GPU all. It
            changes speed only, and so does ``torch.set_num_threads``.

    Returns:
        images, uint8 (B, size, size, 3) in RGB; landmarks, float32 (B, 68, 2) in iBUG order, x and y in pixels (0 is
        the left or upper border, so the centre of the first pixel is 0.5); they may lie outside the picture.

    Raises:
        InputError: lengths or shapes do not fit, values are not finite, or the size is too small.

    Example:
        >>> people = sample_identities(2, seed=0)
        >>> images, landmarks = render(people, torch.zeros(2, 18), neutral_scene(2), size=32)
        >>> tuple(images.shape), images.dtype, tuple(landmarks.shape)
        ((2, 32, 32, 3), torch.uint8, (2, 68, 2))
    """
    action_units = _checked(identity, action_units, scene, size)
    count, device = len(identity), action_units.device
    chunk = min(chunk or (count if device.type == "cuda" else max(1, _CHUNK_PIXELS // (size * size))), count)
    images = torch.empty(count, size, size, 3, dtype=torch.uint8, device=device)
    landmarks = torch.empty(count, 68, 2, device=device)

    workers = torch.get_num_threads() if device.type == "cpu" else 1
    block = max(1, min(4, -(-count // (chunk * workers)))) * chunk

    def work(start: int) -> None:
        with torch.no_grad():
            # moving the anatomy is many operations on few numbers: cheaper for several chunks at once
            span = slice(start, min(start + block, count))
            who, frames = identity[span], scene[span]
            moved = move(who, action_units[span])
            for first in range(0, len(who), chunk):
                here = slice(first, first + chunk)
                there = slice(start + first, min(start + first + chunk, count))
                images[there], landmarks[there] = _render_chunk(part(moved, here), who[here], frames[here], size)

    starts = range(0, count, block)
    if min(workers, len(starts)) > 1:
        # whole blocks side by side: splitting each of the many small operations over threads gains next to nothing
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, starts))
    else:
        for start in starts:
            work(start)
    return images, landmarks


def _checked(identity: Identity, action_units, scene: Scene, size: int) -> torch.Tensor:
    action_units = torch.as_tensor(action_units, dtype=torch.float32, device=identity.age.device)
    count, aus = len(identity), len(facs.ACTION_UNITS)
    if action_units.shape not in ((count, aus), (count, aus, 2)):
        raise InputError(
            "render",
            "shape of action_units",
            tuple(action_units.shape),
            f"({count}, {aus}) or ({count}, {aus}, 2) for {count} identities",
        )
    if len(scene) != count:
        raise InputError("render", "length of scene", len(scene), f"{count}, that of identity")
    if count < 1:
        raise InputError("render", "number of frames", count, "at least 1")
    if size < 16:
        raise InputError("render", "size", size, "at least 16 pixels")
    if not torch.isfinite(action_units).all():
        raise InputError("render", "action_units", "a value that is not finite", "intensities from 0 to 5")
    if action_units.ndim == 2:
        action_units = action_units[:, :, None].expand(-1, -1, 2)
    return action_units.clamp(0, 5)


def _render_chunk(m: Anatomy, who: Identity, scene: Scene, size: int):
    view, picture = _View.stage(scene, size), _View.of(scene, size)
    ball = _Round(m, view)
    layer, shade = _head(m, who, scene, view, ball)
    for side in (0, 1):
        _eye(layer, m, who, scene, view, shade, side)
    _mouth(layer, m, who, view, shade)
    _hair(layer, m, who, scene, view, ball)
    _ears(layer, m, who, view)
    _spectacles(layer, m, who, view)
    layer = _roll(layer, scene, view, picture)
    image = _backdrop(m, who, scene, picture)
    image = image.mul_(1 - layer[:, 3:]).add_(layer[:, :3])
    image = image.mul_(scene.light_colour[:, :, None, None]).clamp_(0, 1).sqrt_()
    _occlude(image, who, scene)
    image = _blur(image, scene)
    image = _grain(image, scene)
    image = image.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    across, down, _, _ = picture.project(m, *points(m))
    return image, picture.to_pixels(across, down, scene)


def _gaussians(m: Anatomy, view: _View, bumps: Bumps):
    """Projected centres, inverse variances and the factor for the amplitudes of Gaussians, each (n, k, 1)."""
    across, down, short, seen = view.project(m, bumps.x, bumps.y, bumps.lift)
    footprint = 0.16 * view.pixel**2  # variance of a pixel's own width, with a little sharpness left
    true_x, true_y = bumps.sigma_x * short, bumps.sigma_y * view.cos_pitch
    inverse_x, inverse_y = (true_x**2 + footprint).reciprocal(), (true_y**2 + footprint).reciprocal()
    strength = seen * true_x * true_y * (inverse_x * inverse_y).sqrt()
    return across[:, :, None], down[:, :, None], inverse_x[:, :, None], inverse_y[:, :, None], strength[:, :, None]


def _profile(places, centre, inverse, distance, pull) -> None:
    """Write a Gaussian's values into ``distance`` and (place - centre) / variance into ``pull``.

    The exponent stops at -30: invisible, and far from the denormal numbers that would slow the product down fivefold.
    """
    torch.sub(places, centre, out=distance)
    torch.mul(distance, inverse, out=pull)
    distance.mul_(pull).mul_(-0.5).clamp_(min=-30).exp_()


def _stain(m: Anatomy, view: _View, bumps: Bumps) -> torch.Tensor:
    """The shade of Gaussians as a picture (n, S, S)."""
    across, down, inverse_x, inverse_y, strength = _gaussians(m, view, bumps)
    shape = (*across.shape[:2], view.size)
    gx, gy, spare = (across.new_empty(shape) for _ in range(3))
    _profile(view.x[:, None], across, inverse_x, gx, spare)
    _profile(view.y[:, None], down, inverse_y, gy, spare)
    return torch.bmm(gy.mul_(strength * bumps.shade[:, :, None]).transpose(1, 2), gx)


def _relief(m: Anatomy, view: _View) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slopes in x and y, and shade, of all forms on the face, each (n, S, S)."""
    across, down, inverse_x, inverse_y, strength = _gaussians(m, view, m.forms)
    raise_by, shade_by = -strength * m.forms.relief[:, :, None], strength * m.forms.shade[:, :, None]
    count, many, size = *across.shape[:2], view.size
    slope_x = across.new_empty(count, size, size)
    rest = across.new_empty(count, 2 * size, size)
    # a few frames at a time through the same buffers, which then stay in the second-level cache
    step = max(1, 512 // size)
    buffers = across.new_empty(5, step, many, size)
    left = across.new_empty(step, many, 2 * size)
    for start in range(0, count, step):
        span = slice(start, min(start + step, count))
        gx, pull_x, gy, pull_y, raised = buffers[:, : span.stop - start]
        stacked = left[: span.stop - start]
        _profile(view.x[span, None], across[span], inverse_x[span], gx, pull_x)
        _profile(view.y[span, None], down[span], inverse_y[span], gy, pull_y)
        torch.mul(gy, raise_by[span], out=raised)
        torch.mul(gy, shade_by[span], out=stacked[:, :, size:])
        torch.mul(pull_y, raised, out=stacked[:, :, :size])
        torch.bmm(stacked.transpose(1, 2), gx, out=rest[span])
        torch.bmm(raised.transpose(1, 2), pull_x.mul_(gx), out=slope_x[span])
    return slope_x, rest[:, :size], rest[:, size:]


def _linear(colour: torch.Tensor) -> torch.Tensor:
    return colour * colour


def _cover(distance, pixel):
    """Share of a pixel inside a border at signed ``distance``: a ramp one pixel wide, exactly 0 and 1 outside it."""
    return (distance / pixel + 0.5).clamp(0, 1)


class _Round:
    """The smooth head in the picture: for every row the ellipse that a slice of the skull shows.

    A slice with half width W and half depth D, turned by the yaw, has the half width R = sqrt((W cos)^2 + (D sin)^2)
    in the picture; at the share s of R from its centre its surface stands at tilt * s + bulge * sqrt(1 - s^2).
    """

    def __init__(self, m: Anatomy, view: _View):
        offset = m.skull.slices(view.y)[2]
        y = (view.y - offset * view.sin_pitch) / view.cos_pitch
        width, depth, offset = m.skull.slices(y)
        inside, width = width >= 0, width.clamp(min=0)
        radius = ((width * view.cos_yaw) ** 2 + (depth * view.sin_yaw) ** 2).sqrt().clamp(min=1e-3)
        sine, cosine = depth * view.sin_yaw / radius, width * view.cos_yaw / radius
        tilt = depth * sine * view.cos_yaw - width * cosine * view.sin_yaw
        bulge = depth * cosine * view.cos_yaw + width * sine * view.sin_yaw
        slope = torch.zeros_like(radius)
        slope[:, 1:-1] = (radius[:, 2:] - radius[:, :-2]) / (2 * view.pixel)
        self.steep = torch.rsqrt(1 + slope * slope)[:, :, None] * inside[:, :, None]
        self.y, self.radius, self.sine, self.cosine, self.tilt, self.bulge, self.offset = (
            v[:, :, None] for v in (y, radius, sine, cosine, tilt, bulge, offset)
        )
        #: distance of every pixel from its row's centre, its share of the half width, and the root of 1 - s^2
        self.distance = view.x[:, None] - (self.offset * view.sin_yaw[:, :, None])
        self.s = (self.distance / self.radius).clamp_(-0.985, 0.985)
        self.c = torch.addcmul(torch.ones((), device=self.s.device), self.s, self.s, value=-1).sqrt_()


def _head(m: Anatomy, who: Identity, scene: Scene, view: _View, ball: _Round):
    """The skin of the head: premultiplied linear colour and coverage (n, 4, S, S), and its shade (n, S, S)."""
    height = torch.addcmul(ball.offset, ball.tilt, ball.s).addcmul_(ball.bulge, ball.c)
    slope_x = torch.addcmul(ball.tilt / ball.radius, ball.s / ball.c, -0.85 * ball.bulge / ball.radius)
    slope_x.clamp_(-2.5, 2.5)
    slope_y = torch.zeros_like(slope_x)
    slope_y[:, 1:-1] = (height[:, 2:] - height[:, :-2]).mul_(0.45 / view.pixel[:, :, None])
    slope_y.clamp_(-2.5, 2.5).add_(view.sin_pitch[:, :, None])

    bumps_x, bumps_y, dark = _relief(m, view)
    slope_x += bumps_x
    slope_y += bumps_y

    light = F.normalize(scene.light, dim=1)[:, :, None, None]
    half = F.normalize(light + light.new_tensor([0.0, 0.0, 1.0])[:, None, None], dim=1)
    inverse = torch.addcmul(slope_x * slope_x, slope_y, slope_y).add_(1).rsqrt_()
    facing = torch.addcmul(light[:, 2], slope_x, light[:, 0], value=-1).addcmul_(slope_y, light[:, 1], value=-1)
    facing.mul_(inverse)
    gloss = torch.addcmul(half[:, 2], slope_x, half[:, 0], value=-1).addcmul_(slope_y, half[:, 1], value=-1)
    gloss.mul_(inverse).clamp_(min=0)
    for _ in range(5):  # to the power of 32
        gloss.mul_(gloss)
    ambient = scene.ambient[:, None, None]
    occlusion = dark.clamp(min=0).mul_(-1.1).exp_()
    shade = facing.mul_(0.86).add_(0.14).clamp_(min=0).mul_(1.12 * (1 - ambient)).add_(0.55 * ambient)
    shade = shade.addcmul_(inverse, 0.45 * ambient).mul_(occlusion)

    blush = _stain(m, view, m.blush).clamp_(0, 0.6)
    hairs = _stain(m, view, m.beard).mul_(-1.6).exp_().neg_().add_(1)
    gloss.mul_(occlusion).mul_(who.oiliness[:, None, None]).mul_(1 - 0.8 * hairs)
    skin, beard = _linear(who.skin), _linear(0.55 * who.hair + 0.12 * who.skin)
    coverage = _cover((ball.radius - ball.distance.abs()).mul_(ball.steep), view.pixel[:, :, None])
    coverage.mul_(ball.steep > 0)
    layer = torch.empty(len(who), 4, view.size, view.size, device=shade.device)
    warm = (1 - shade).clamp_(0, 1).mul_(shade)  # light that travelled under the skin reddens the turn into shadow
    for k, (redden, glow) in enumerate(((0.10, 0.14), (-0.55, -0.02), (-0.45, -0.05))):
        albedo = (blush * redden).add_(1).mul_(skin[:, k, None, None])
        albedo.lerp_(beard[:, k, None, None].expand_as(albedo), hairs)
        torch.mul(albedo.mul_(torch.add(shade, warm, alpha=glow)).add_(gloss), coverage, out=layer[:, k])
    layer[:, 3] = coverage
    return layer, shade


class _Box:
    """A small rectangle of every frame, at its own place, to be read, painted and written back.

    ``x`` and ``y`` are distances from ``across``, ``down`` in picture units; painting outside ``half`` is left alone.
    """

    def __init__(self, layer, view: _View, across, down, half_x: float, half_y: float):
        count, self.channels, size, _ = layer.shape
        reach = float(view.scale.max()) * size / 2
        wide, high = (min(size, int(2 * h * reach) + 3) for h in (half_x, half_y))
        column = torch.round((across - view.x[:, 0]) / view.pixel[:, 0] - wide / 2).long().clamp(0, size - wide)
        row = torch.round((down - view.y[:, 0]) / view.pixel[:, 0] - high / 2).long().clamp(0, size - high)
        columns = column[:, None] + torch.arange(wide, device=layer.device)
        rows = row[:, None] + torch.arange(high, device=layer.device)
        self.index = (rows[:, :, None] * size + columns[:, None]).flatten(1)
        self.shape = (count, -1, high, wide)
        self.layer = layer.view(count, self.channels, size * size)
        self.x = (torch.gather(view.x, 1, columns) - across[:, None])[:, None]
        self.y = (torch.gather(view.y, 1, rows) - down[:, None])[:, :, None]
        self.mask = ((self.x.abs() < half_x) & (self.y.abs() < half_y)).float()

    def read(self, plane: torch.Tensor) -> torch.Tensor:
        """The box's part of a (n, S, S) plane."""
        return torch.gather(plane.flatten(1), 1, self.index).view(self.shape[0], *self.shape[2:])

    def colours(self) -> torch.Tensor:
        """The box's part of the layer, (n, C, h, w)."""
        index = self.index[:, None].expand(-1, self.channels, -1)
        return torch.gather(self.layer, 2, index).view(self.shape)

    def write(self, colours: torch.Tensor) -> None:
        """Put it back."""
        index = self.index[:, None].expand(-1, self.channels, -1)
        self.layer.scatter_(2, index, colours.flatten(2))


def _paint(canvas: torch.Tensor, alpha: torch.Tensor, colour) -> torch.Tensor:
    """``colour`` (n, 3, 1 or h, 1 or w) over a premultiplied canvas (n, 4, h, w), only where that is covered."""
    alpha = alpha[:, None]
    out = canvas.clone()
    out[:, :3] = canvas[:, :3] + alpha * (colour * canvas[:, 3:] - canvas[:, :3])
    return out


def _dot(colour: torch.Tensor) -> torch.Tensor:
    return _linear(colour)[:, :, None, None]


def _eye(layer, m: Anatomy, who: Identity, scene: Scene, view: _View, shade, side: int) -> None:
    """One eye with its lids and lashes, and the brow over it."""
    sign = SIDES[side]

    def v(t):
        return t[:, side][:, None, None]

    across, down, short, seen = view.project(m, sign * m.eye_x[:, side, None], m.eye_y[:, side, None], 0.0)
    box = _Box(layer, view, across[:, 0], down[:, 0] - 0.12, 0.25, 0.25)
    pixel = view.pixel[:, :, None]
    x = box.x * (sign / short[:, :, None])  # outward, in head units
    y = (box.y - 0.12) / view.cos_pitch[:, :, None]
    canvas, light = box.colours(), box.read(shade)
    seen = seen[:, :, None] * box.mask

    half = v(m.eye_half)
    t = (x / half).clamp(-1.6, 1.6)
    bow = (1 - t * t).clamp(min=0)
    tilt = -v(m.eye_tilt) * t - 0.008 * t
    # the upper lid peaks a little towards the nose, the lower one towards the temple
    upper = -v(m.upper_lid) * bow.pow(0.75) * (1 - 0.10 * t) + tilt
    lower = v(m.lower_lid) * bow.pow(0.85) * (1 + 0.12 * t) + tilt
    ends = _cover((1 - t.abs()) * half, pixel)
    ball = _cover(y - upper, pixel) * _cover(lower - y, pixel) * ends * seen

    # lid: darker than the cheek once it is drawn over the eye, a crease above it, lashes along the border
    drawn = _cover(upper - y, pixel) * _cover(y + 0.070 * bow.sqrt(), pixel + 0.02) * ends
    shadow = _dot(0.45 * who.lips + 0.40 * who.skin) * light[:, None]
    canvas = _paint(canvas, 0.25 * v(m.closed) ** 1.5 * drawn * seen, shadow)
    lid_shade = torch.exp(-(((y - upper + 0.030 + 0.012 * v(m.closed)) / (0.011 + 0.3 * pixel)) ** 2)) * bow.sqrt()
    canvas = _paint(canvas, 0.34 * lid_shade * seen * (1 - 0.6 * ball), _dot(who.skin) * 0.30 * light[:, None])

    gaze_x = 0.035 * scene.gaze[:, 0, None, None] * sign
    gaze_y = 0.022 * scene.gaze[:, 1, None, None]
    dx, dy = x - gaze_x, y + 0.010 - gaze_y
    radius = (dx * dx + dy * dy).sqrt()
    iris = _cover(0.062 - radius, pixel)
    pupil = _cover(0.026 - radius, pixel)
    white = 0.80 - 0.22 * t * t - 0.30 * (1 - (y - upper) / 0.045).clamp(0, 1)
    white = white * (0.35 + 0.65 * light)
    eye = torch.stack([white, white * 0.95, white * 0.92], 1)
    rim = 0.35 + 1.0 * (1 - radius / 0.062).clamp(0, 1).sqrt()
    lit = (0.45 + 0.55 * light) * (0.55 + 0.45 * ((y - upper) / 0.05).clamp(0, 1)) * rim
    eye = eye + iris[:, None] * (_dot(who.iris) * 1.5 * lit[:, None] - eye)
    eye = eye * (1 - 0.97 * pupil[:, None])
    towards = F.normalize(scene.light, dim=1)
    spot_x, spot_y = 0.040 * towards[:, 0, None, None] * sign, 0.040 * towards[:, 1, None, None]
    spark = torch.exp(-((dx - spot_x) ** 2 + (dy - spot_y) ** 2) / (2 * (0.0090**2 + 0.1 * pixel**2)))
    eye = eye + 0.85 * (spark * (0.0090**2 / (0.0090**2 + 0.1 * pixel**2)) ** 0.5)[:, None]
    canvas = _paint(canvas, ball, eye)

    # the lashes of a closed eye hang below the meeting lids
    shut = v(m.closed) ** 3
    thick = 0.010 + 0.004 * bow + 0.005 * shut
    lash = _cover(thick - (y - upper + 0.002 - 0.016 * shut).abs(), pixel) * _cover((1.03 - t.abs()) * half, pixel)
    canvas = _paint(canvas, 0.85 * lash * seen, _dot(0.35 * who.brows))
    under = _cover(0.006 - (y - lower - 0.004).abs(), pixel) * ends
    canvas = _paint(canvas, 0.40 * under * seen, _dot(0.75 * who.lips) * light[:, None])

    # brow: a band along the curve through three points
    at = x + v(m.eye_x)
    inner, middle, outer = (m.brow_x[:, side, k, None, None] for k in range(3))
    low, arch, tail = (m.brow_y[:, side, k, None, None] - v(m.eye_y) for k in range(3))
    u = (at - inner) / (outer - inner)
    node = (middle - inner) / (outer - inner)
    curve = brow_curve(u, low, arch, tail, node)
    thick = v(m.brow_half) * (1 - 0.62 * u.clamp(0, 1) ** 2) * (0.55 + 0.45 * (u / 0.12).clamp(0, 1))
    soft = pixel + 0.016
    brow = _cover(thick - (y - curve).abs(), soft)
    brow = brow * _cover(u * 0.3, 0.05 + pixel) * _cover((1 - u) * 0.3, 0.04 + pixel)
    canvas = _paint(canvas, 0.88 * brow * seen, _dot(who.brows) * (0.35 + 0.65 * light)[:, None])
    box.write(canvas)


def _mouth(layer, m: Anatomy, who: Identity, view: _View, shade) -> None:
    """Lips, teeth, tongue and the dark between them."""
    zero = torch.zeros_like(m.mouth_y)[:, None]
    across, down, short, _ = view.project(m, zero, m.mouth_y[:, None], 0.02)
    box = _Box(layer, view, across[:, 0], down[:, 0] + 0.08, 0.42, 0.22)
    pixel = view.pixel[:, :, None]
    # the lips lie on the curved face: sideways the mouth shortens as the cheek turns away
    x = box.x / short[:, :, None]
    x = x * (1 + 0.9 * view.sin_yaw[:, :, None] * x)
    y = (box.y + 0.08) / view.cos_pitch[:, :, None]
    canvas, light = box.colours(), box.read(shade)

    def pick(t):
        return torch.where(x < 0, t[:, 0, None, None], t[:, 1, None, None])

    def v(t):
        return t[:, None, None]

    half = pick(m.corner_x)
    t = (x / half).abs().clamp(max=1.5)
    bow = (1 - t * t).clamp(min=0)
    line = pick(m.corner_y) * t.pow(1.7) + v(m.arch) * bow
    gap_shape = bow.pow(0.6)
    upper_gap, lower_gap = v(m.upper_gap) * gap_shape, v(m.lower_gap) * gap_shape
    inner_up, inner_low = line - upper_gap, line + lower_gap
    cupid = 1 - 0.20 * torch.exp(-((x / 0.030) ** 2)) + 0.10 * torch.exp(-(((x.abs() - 0.052) / 0.035) ** 2))
    outer_up = inner_up - v(m.upper_lip) * bow.pow(0.70) * cupid
    outer_low = inner_low + v(m.lower_lip) * bow.pow(0.62)
    ends = _cover((1 - t) * half, pixel) * box.mask
    soft = pixel + 0.008
    lips = _cover(y - outer_up, soft) * _cover(outer_low - y, soft) * ends
    above = _cover(line - y, soft)
    full = ((y - inner_low) / (v(m.lower_lip) + 0.004)).clamp(0, 1)
    shine = 4 * full * (1 - full)
    tone = (0.74 * above + (1 - above) * (0.92 + 0.30 * shine)) * light
    canvas = _paint(canvas, 0.90 * lips, _dot(who.lips) * tone[:, None])

    gap = v(m.upper_gap + m.lower_gap)
    open_ = _cover(y - inner_up, pixel) * _cover(inner_low - y, pixel) * ends * (gap / 0.010).clamp(0, 1)
    inside = _dot(torch.tensor([[0.25, 0.09, 0.08]], device=layer.device)) * (0.4 + 0.6 * light)[:, None]
    canvas = _paint(canvas, open_, inside)
    tongue = _cover(y - (inner_low - 0.40 * lower_gap), pixel + 0.02) * open_ * (t < 0.75)
    pink = _dot(torch.tensor([[0.62, 0.30, 0.29]], device=layer.device))
    canvas = _paint(canvas, 0.75 * tongue * (lower_gap / 0.08).clamp(0, 1), pink * light[:, None])
    teeth = _cover(inner_up + 0.034 * bow.sqrt() - y, pixel) * open_ * _cover(0.90 - t, 0.10)
    seams = 1 - 0.20 * _cover(0.10 - ((x / 0.034) % 1 - 0.5).abs(), pixel / 0.034)
    ivory = _dot(torch.tensor([[0.90, 0.87, 0.80]], device=layer.device))
    canvas = _paint(canvas, teeth, ivory * (seams * (0.25 + 0.65 * light) * (1 - 0.35 * t * t))[:, None])

    seam = _cover(0.0075 - (y - line).abs(), pixel + 0.004) * _cover((1.04 - t) * half, pixel) * box.mask
    seam = seam * (1 - (gap / 0.02).clamp(0, 1))
    canvas = _paint(canvas, 0.72 * seam, _dot(0.42 * who.lips) * light[:, None])
    box.write(canvas)


def _ears(layer, m: Anatomy, who: Identity, view: _View) -> None:
    """Ears at the sides of the skull: behind the face on the far side, over it on the side turned to the viewer.

    Long hair hides them.
    """
    bare = (who.hair_length < 0.6).float()[:, None, None]
    y = torch.full_like(view.scale, -0.02)
    width = m.skull.slices(y)[0]
    for sign in SIDES:
        across = sign * (width + 0.025) * view.cos_yaw
        down = y * view.cos_pitch - (sign * width * view.sin_yaw) * view.sin_pitch
        box = _Box(layer, view, across[:, 0], down[:, 0], 0.13, 0.20)
        pixel = view.pixel[:, :, None]
        turned = (-sign * view.sin_yaw)[:, :, None]  # positive: this ear faces the viewer
        wide = 0.055 + 0.050 * turned.clamp(-0.5, 1)
        x, v = box.x * sign / wide, box.y / (0.150 - 0.018 * box.x / wide * sign)
        radius = (x * x + v * v).sqrt()
        ear = _cover((1 - radius) * wide, pixel) * box.mask * bare * (turned > -0.35)
        canvas = box.colours()
        over = ear * (turned * 8).clamp(0, 1)
        tone = (0.62 + 0.30 * (radius - 0.35).clamp(0, 1)) * (0.9 - 0.15 * (radius > 0.82)) + 0.1 * turned.clamp(0, 1)
        colour = _dot(who.skin * who.skin.new_tensor([1.0, 0.93, 0.92])) * tone[:, None]
        behind = ear * (1 - canvas[:, 3])
        total = (over + (1 - over) * behind)[:, None]
        paint = torch.cat([colour, torch.ones_like(total)], 1)
        canvas = canvas + over[:, None] * (paint - canvas) + ((1 - over) * behind)[:, None] * paint
        box.write(canvas)


def _hair(layer, m: Anatomy, who: Identity, scene: Scene, view: _View, ball: _Round) -> None:
    """Hair on the skull down to the hairline and at the sides, and long hair behind the head."""
    pixel, rows, distance = view.pixel[:, :, None], ball.y, ball.distance
    side = (ball.s * ball.cosine).addcmul_(ball.c, ball.sine, value=-1)
    back = (1 - ball.c * ball.cosine).addcmul_(ball.s, ball.sine, value=-1)  # 0 at the front, 1 at the ears
    length, volume = who.hair_length[:, None, None], who.hair_volume[:, None, None]

    # strands fan out from a point above the parting
    comb = who.hair_part[:, None, None]
    fan = (view.x[:, None] - (0.25 * comb + 0.35 * view.sin_yaw[:, :, None])) / (rows + 1.25).clamp(min=0.2)
    fan.div_(fan.abs().add_(0.45))
    wave = who.hair_wave[:, None, None]
    bend = torch.sin((14 + 26 * wave) * fan + (9 + 30 * wave) * rows)
    last = who.strands.shape[1] - 1.001
    place = fan.addcmul_(bend, 0.08 * wave).add_(1).mul_(0.5 * last).clamp_(0, last)
    strand = torch.gather(who.strands, 1, place.long().flatten(1)).view_as(place)

    line = (side * (-0.05 * comb.abs())).add_(0.10 * comb).mul_(side).addcmul_(back, back, value=1.45)
    lowest = 0.02 + 0.10 * length + 1.4 * (length - 0.6).clamp(min=0)
    line = torch.minimum(line.add_(who.hairline[:, None, None]), lowest).add_(strand, alpha=0.10)
    line.addcmul_(ball.c, ball.bulge * view.sin_pitch[:, :, None])  # it stands before the axis of the nod
    grown = (length / 0.12).clamp(0, 1)
    thick = volume * (0.15 + 0.85 * grown)
    # the shell around the skull closes on the temples
    low = ((rows + 0.12) / 0.35).clamp(0, 1)
    top = -0.97 - 0.75 * thick
    crown = ((-0.12 - rows) / (-0.12 - top)).clamp(0, 1)
    skull = m.skull.width[:, :, None]
    shell = (skull + thick) * (1 - crown**2.4).sqrt() - (thick + 0.02) * low * low
    shell = shell * (view.cos_yaw**2 + (1.12 * view.sin_yaw) ** 2).sqrt()[:, :, None]
    over = _cover(torch.addcmul(shell - distance.abs(), strand, 0.05 * (1 - low)), pixel + 0.012).mul_(rows > top)
    over.mul_(_cover(line - rows, pixel + 0.030)).mul_(0.55 + 0.45 * grown)

    light = F.normalize(scene.light, dim=1)[:, :, None, None]
    round_x, round_y = (distance / (shell + 0.1)).clamp_(-1, 1), ((rows + 0.25) / 0.85).clamp(-1, 1)
    facing = torch.addcmul(round_y * light[:, 1] + 0.55 * light[:, 2], round_x, light[:, 0]).clamp_(min=0)
    ambient = scene.ambient[:, None, None]
    band = (round_x * round_x).mul_(-0.12).add_(rows + 0.70).div_(0.09)
    band = band.mul_(band).neg_().clamp_(min=-30).exp_()
    tone = torch.addcmul(ambient, 1 - ambient, facing).mul_((0.9 * strand).add_(0.85))
    sheen = band.mul_(facing).mul_(strand + 0.5)
    tone.add_(sheen, alpha=0.35).clamp_(min=0.05)
    hair = _linear(who.hair)[:, :, None, None]
    layer.mul_((1 - over)[:, None])
    layer[:, :3].addcmul_(hair, (tone * over)[:, None]).add_(sheen.mul_(over)[:, None], alpha=0.045)
    layer[:, 3].add_(over)

    # long hair falls behind the face
    falls = torch.nonzero(who.hair_length > 0.6)[:, 0]
    if not len(falls):
        return
    rows, strand, pixel = rows[falls], strand[falls], pixel[falls]
    wide = ((skull + thick) * (1 - crown**2.4).sqrt())[falls] - 0.02 + 0.12 * ((rows + 0.3) / 0.8).clamp(0, 1)
    wide = wide + 0.05 * strand
    behind = _cover(wide - (distance + 0.10 * view.sin_yaw[:, :, None])[falls].abs(), pixel + 0.02) * (rows > -0.6)
    ends = 0.10 + 1.2 * (length[falls] - 0.35)
    behind = behind.mul_(_cover(ends - rows + 0.2 * strand, 0.08)).mul_(1 - layer[falls, 3])
    part = layer[falls]
    part[:, :3].addcmul_(hair[falls], (0.62 * tone[falls]).mul_(behind)[:, None])
    part[:, 3].add_(behind)
    layer[falls] = part


def _spectacles(layer, m: Anatomy, who: Identity, view: _View) -> None:
    """Rims, bridge and the start of the arms, for those who wear glasses."""
    worn = torch.nonzero(who.glasses > 0.5)[:, 0]
    if not len(worn):
        return
    everybody, whole = view, layer
    layer, view, frame = layer[worn], view[worn], _dot(who.frame[worn])
    for side, sign in enumerate(SIDES):
        eye_x = m.eye_x.mean(1)[:, None]
        places = everybody.project(m, sign * eye_x, m.eye_y[:, side, None] + 0.02, 0.05)
        across, down, short, eye_x = (v[worn] for v in (*places[:3], eye_x))
        box = _Box(layer, view, across[:, 0], down[:, 0], 0.36, 0.20)
        pixel = view.pixel[:, :, None]
        x, y = box.x * sign / short[:, :, None], box.y / view.cos_pitch[:, :, None]
        # a rounded rectangle as the four-norm
        ring = ((x / 0.205) ** 4 + (y / 0.150) ** 4).clamp(min=1e-6).sqrt().sqrt()
        rim = _cover(0.013 - (ring - 1).abs() * 0.17, pixel)
        bridge = _cover(0.011 - (y + 0.035).abs(), pixel) * (x < -0.20) * _cover(x + eye_x[:, :, None], pixel)
        arm = _cover(0.011 - (y + 0.055).abs(), pixel) * (x > 0.20)
        alpha = torch.maximum(rim, torch.maximum(bridge, arm)) * box.mask
        canvas = box.colours()
        glass = _cover(1 - ring, 0.1) * box.mask
        glare = glass * _cover(0.020 - (x + 0.7 * y - 0.09).abs(), 0.02)
        canvas = _paint(canvas, 0.05 * glass + 0.14 * glare, torch.ones_like(canvas[:, :3]) * 0.8)
        box.write(_paint(canvas, 0.95 * alpha, frame))
    whole[worn] = layer


def _roll(layer, scene: Scene, view: _View, picture: _View):
    """Turn the head layer about the neck, from the stage into the picture, in the frames that need it."""
    turned = torch.nonzero(scene.roll.abs() > _ROLLED)[:, 0]
    if not len(turned):
        return layer
    view, picture = view[turned], picture[turned]
    cos, sin = scene.roll[turned].cos()[:, None, None], scene.roll[turned].sin()[:, None, None]
    x, y = picture.x[:, None, :], picture.y[:, :, None] - _PIVOT_Y
    from_x = (x * cos + y * sin) * view.scale[:, :, None] + view.shift_x[:, :, None]
    from_y = (y * cos - x * sin + (_PIVOT_Y + _CENTRE_Y)) * view.scale[:, :, None] + view.shift_y[:, :, None]
    layer[turned] = F.grid_sample(
        layer[turned], torch.stack([from_x, from_y], 3), mode="bilinear", padding_mode="border", align_corners=False
    )
    return layer


def _backdrop(m: Anatomy, who: Identity, scene: Scene, view: _View):
    """Background gradient, shoulders and neck, linear light (n, 3, S, S)."""
    size, pixel = view.size, view.pixel[:, :, None]
    ramp = torch.linspace(0, 1, size, device=view.x.device)
    upper, lower = _linear(scene.background[:, 0]), _linear(scene.background[:, 1])
    image = upper[:, :, None] + (lower - upper)[:, :, None] * ramp
    image = image[:, :, :, None].expand(-1, -1, -1, size).clone()
    first = size // 2
    x, y = view.x[:, None], view.y[:, first:, None]
    light = F.normalize(scene.light, dim=1)
    chin = (m.skull.chin - m.jaw[:, None])[:, :, None]
    lean = (0.10 * view.sin_yaw + 0.20 * scene.roll.sin()[:, None])[:, :, None]
    at = x - lean * (1.3 - y).clamp(0, 1)
    ambient = scene.ambient[:, None, None]
    side = (at * light[:, 0, None, None] * 1.6).clamp(-0.4, 0.4)
    wide = (0.60 * m.skull.width)[:, :, None] + 0.16 * ((y - chin) / 0.4).clamp(0, 1) ** 2
    neck = _cover(wide - at.abs(), pixel) * (y > 0.1)
    tone = (0.30 + 0.55 * ((y - chin + 0.02) / 0.34).clamp(0, 1) + side) * (0.5 + 0.5 * ambient)
    tone = tone * (1 - 0.5 * (at.abs() / wide).clamp(0, 1) ** 3)
    skin = _linear(who.skin)[:, :, None, None]
    part = image[:, :, first:]
    part += neck[:, None] * (skin * tone.clamp(min=0.03)[:, None] - part)
    shoulder = chin + 0.12 + 0.10 * at.abs() + 0.10 * (0.30 - at.abs()).clamp(min=0) * 2.0 + 0.16 * at * at
    cloth = _cover(y - shoulder, pixel)
    fold = 0.55 + side + 0.25 * ((y - shoulder) / 0.3).clamp(0, 1)
    colour = _linear(who.clothes)[:, :, None, None] * fold.clamp(min=0.05)[:, None]
    part += cloth[:, None] * (colour - part)
    return image


def _occlude(image: torch.Tensor, who: Identity, scene: Scene) -> None:
    """Paint hands, bars and microphones over the finished pictures (gamma space), in the frames that have them."""
    size = image.shape[-1]
    centres = (torch.arange(size, device=image.device) + 0.5) / size
    for kind in range(1, len(OCCLUDERS)):
        chosen = torch.nonzero(scene.occluder[:, 0].round() == kind)[:, 0]
        if not len(chosen):
            continue
        _, left, top, wide, high = (v[:, None, None] for v in scene.occluder[chosen].unbind(1))
        x = (centres[None, None, :] - left) / (wide / 2).clamp(min=1e-3)
        y = (centres[None, :, None] - top) / (high / 2).clamp(min=1e-3)
        soft = 2.0 / size / (0.5 * torch.minimum(wide, high)).clamp(min=1e-3)
        if kind == OCCLUDERS.index("dark bar"):
            alpha = _cover(1 - torch.maximum(x.abs(), y.abs()), soft)
            colour = image.new_tensor([0.06, 0.06, 0.07])[:, None, None] * torch.ones_like(alpha)[:, None]
        elif kind == OCCLUDERS.index("microphone"):
            ball = _cover(1 - (x * x + (y / 0.55 + 0.8) ** 2).sqrt(), soft)
            stick = _cover(0.30 - x.abs(), soft) * _cover(y + 0.44, soft) * _cover(1 - y, soft)
            alpha = torch.maximum(ball, stick)
            glow = (0.16 + 0.16 * (-x - 0.6 * y).clamp(-0.6, 1))[:, None]
            colour = glow.expand(-1, 3, -1, -1)
        else:
            alpha, tone = _hand(x, y, wide / high, soft)
            brightness = 0.75 + 0.25 * scene.light_colour[chosen].mean(1)
            colour = (who.skin[chosen] * brightness[:, None])[:, :, None, None] * tone[:, None]
        frame = image[chosen]
        image[chosen] = frame + alpha[:, None] * (colour - frame)


def _hand(x, y, aspect, soft):
    """Coverage and shade of a palm with four fingers pointing up; x and y run from -1 to 1 over the hand."""
    place = (2 * x + 2).clamp(0, 3.999)
    finger = place.floor()
    across = 2 * (place - finger) - 1 + 2 * (2 * x + 2 - place)
    tip = x.new_tensor([-0.72, -0.95, -1.0, -0.84])[finger.long()]
    thick = 0.25 * aspect
    beyond = (tip + thick - y).clamp(min=0) / thick
    fingers = _cover(0.25 * (0.96 - (across * across + beyond * beyond).sqrt()), soft) * (y < 0.3)
    palm = 1 - ((x / 0.97) ** 4 + ((y - 0.42) / 0.58) ** 4).clamp(min=1e-6).sqrt().sqrt()
    merge = ((y + 0.35) / 0.55).clamp(0, 1)
    tone = 0.92 - 0.10 * y - 0.05 * x - 0.38 * (1 - merge) * across.clamp(-1, 1) ** 2 - 0.16 * merge * x * x
    return torch.maximum(fingers, _cover(0.5 * palm, soft)), tone


def _blur(image: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Channels last (n, S, S, 3), with Gaussian blur as two matrix products in the frames that have some."""
    size = image.shape[-1]
    chosen = torch.nonzero(scene.blur > 0.05)[:, 0]
    if len(chosen):
        sigma = scene.blur[chosen][:, None, None] * (size / 64)
        place = torch.arange(size, device=image.device, dtype=torch.float32)
        kernel = torch.exp((-0.5 * ((place[:, None] - place) / sigma) ** 2).clamp(min=-30))
        kernel = kernel / kernel.sum(2, keepdim=True)
        rows = torch.bmm(image[chosen].view(-1, 3 * size, size), kernel.transpose(1, 2))
        image[chosen] = rows.view(-1, 3, size, size)
    image = image.permute(0, 2, 3, 1).contiguous()
    if len(chosen):
        image[chosen] = torch.bmm(kernel, image[chosen].view(-1, size, 3 * size)).view(-1, size, size, 3)
    return image


_GRAIN_STEP, _GRAIN_ROWS = 16, 65521
_grain_bank: dict[tuple[str, int], torch.Tensor] = {}


def _grain(image: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Sensor noise: a stretch of one fixed bank of normal numbers, which stretch depends on the frame's seed."""
    chosen = torch.nonzero(scene.noise > 0)[:, 0]
    if not len(chosen):
        return image
    need = image[0].numel()
    key = (str(image.device), need)
    if key not in _grain_bank:
        generator = torch.Generator().manual_seed(20)
        bank = torch.randn(_GRAIN_STEP * _GRAIN_ROWS + need, generator=generator)
        _grain_bank[key] = bank.to(image.device)
    bank = _grain_bank[key].as_strided((_GRAIN_ROWS, need), (_GRAIN_STEP, 1))
    start = (scene.seed[chosen] * 48271 + 11) % _GRAIN_ROWS
    image[chosen] += scene.noise[chosen][:, None, None, None] * bank[start].view(-1, *image.shape[1:])
    return image


#: per AU: ellipses (centre x, centre y, half width, half height) in units of half the distance between the outer eye
#: corners, x from the midline (mirrored), y from the line of the eyes; picture: brows -0.45, mouth 1.4, chin 2.3
_SITES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "AU01": ((0.0, -0.75, 0.75, 0.75), (0.45, -0.55, 0.55, 0.60)),
    "AU02": ((0.75, -0.70, 0.75, 0.75),),
    "AU04": ((0.0, -0.45, 0.75, 0.75), (0.65, -0.40, 0.65, 0.60)),
    "AU05": ((0.67, -0.05, 0.50, 0.45),),
    "AU06": ((0.80, 0.25, 0.75, 0.80),),
    "AU07": ((0.67, 0.05, 0.55, 0.45),),
    "AU09": ((0.0, 0.50, 0.85, 1.15), (0.45, -0.25, 0.75, 0.55)),
    "AU10": ((0.0, 1.15, 0.95, 0.75),),
    "AU12": ((0.0, 1.25, 1.35, 0.85), (0.80, 0.60, 0.70, 0.75)),
    "AU14": ((0.70, 1.35, 0.70, 0.60),),
    "AU15": ((0.0, 1.50, 1.05, 0.75),),
    "AU17": ((0.0, 1.80, 0.95, 0.85),),
    "AU20": ((0.0, 1.40, 1.35, 0.70),),
    "AU23": ((0.0, 1.40, 0.85, 0.60),),
    "AU25": ((0.0, 1.45, 0.80, 0.65),),
    "AU26": ((0.0, 1.95, 1.40, 1.30),),
    "AU28": ((0.0, 1.40, 0.85, 0.60),),
    "AU45": ((0.67, -0.05, 0.50, 0.45),),
}


def au_region(au_name: str, landmarks: torch.Tensor, size: int) -> torch.Tensor:
    """Where an AU may act, as anatomical ellipses around its sites.

    Args:
        au_name: one of ``facs.ACTION_UNITS``.
        landmarks: (68, 2) pixels of the same head without that AU.
        size: side of the picture in pixels.

    Returns:
        bool (size, size), true inside the region.

    Raises:
        InputError: an unknown AU or a wrong shape.
    """
    if au_name not in _SITES:
        raise InputError("au_region", "au_name", repr(au_name), f"one of {', '.join(facs.ACTION_UNITS)}")
    points = torch.as_tensor(landmarks, dtype=torch.float32)
    if points.shape != (68, 2):
        raise InputError("au_region", "shape of landmarks", tuple(points.shape), "(68, 2)")
    # axes of the face: along the eyes, and from between the eyes to the chin (they lean and shorten with the pose)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    origin = (left + right) / 2
    unit_x = (points[45] - points[36]) / 2
    unit_y = (points[8] - origin) / 2.30
    centres = torch.arange(size) + 0.5
    dx, dy = centres[None, :] - origin[0], centres[:, None] - origin[1]
    det = unit_x[0] * unit_y[1] - unit_x[1] * unit_y[0]
    u, v = (dx * unit_y[1] - dy * unit_y[0]) / det, (dy * unit_x[0] - dx * unit_x[1]) / det
    region = torch.zeros(size, size, dtype=torch.bool)
    for x, y, half_x, half_y in _SITES[au_name]:
        for sign in SIDES if x else (1.0,):
            region |= ((u - sign * x) / half_x) ** 2 + ((v - y) / half_y) ** 2 <= 1
    return region
