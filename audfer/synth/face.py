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

Shapes: numbers of a frame are (n, 1, 1), of its rows (n, S, 1), of its columns (n, 1, S), colours (n, 3, 1, 1).
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F

from .. import facs
from ..errors import InputError
from .anatomy import SIDES, Face, brow_curve, lids, move, points
from .identity import SKIN_TONES, Batch, Identity, sample_identities, table
from .scene import OCCLUDERS, Scene, neutral_scene

__all__ = ["OCCLUDERS", "SKIN_TONES", "Identity", "Scene", "au_region", "neutral_scene", "render", "sample_identities"]

_CHUNK_PIXELS = 64 * 64 * 64
_PIVOT_Y = 0.45  # the head rolls about the neck
_ZOOM, _CENTRE_Y = 0.95, -0.05
_ROLLED = 1e-4  # radians from which on the head layer is resampled


def render(
    identity: Identity, action_units: torch.Tensor, scene: Scene, size: int = 64, chunk: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render one face per frame.

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
            moved = move(identity[span], action_units[span])
            for first in range(start, span.stop, chunk):
                here = slice(first, min(first + chunk, span.stop))
                face = moved[first - start : here.stop - start]
                images[here], landmarks[here] = _render_chunk(face, scene[here], size)

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
    count, shape = len(identity), action_units.shape
    both = (count, len(facs.ACTION_UNITS), 2)
    for right, field, value, expected in (
        (
            shape in (both, both[:2]),
            "shape of action_units",
            tuple(shape),
            f"{both[:2]} or {both} for {count} identities",
        ),
        (len(scene) == count, "length of scene", len(scene), f"{count}, that of identity"),
        (count >= 1, "number of frames", count, "at least 1"),
        (size >= 16, "size", size, "at least 16 pixels"),
        (
            torch.isfinite(action_units).all(),
            "action_units",
            "a value that is not finite",
            "intensities from 0 to 5",
        ),
    ):
        if not right:
            raise InputError("render", field, value, expected)
    return (action_units if len(shape) == 3 else action_units[:, :, None].expand(both)).clamp(0, 5)


def _render_chunk(face: Face, scene: Scene, size: int):
    for angle in ("yaw", "pitch", "roll"):
        radians = getattr(scene, angle)[:, None, None]
        setattr(face, f"cos_{angle}", radians.cos())
        setattr(face, f"sin_{angle}", radians.sin())
    face.light = F.normalize(scene.light, dim=1)[:, :, None, None]
    face.ambient = scene.ambient[:, None, None]
    face.gaze_x, face.gaze_y = scene.gaze[:, :, None, None].unbind(1)

    stage, picture = _views(scene, size)
    ball = _round(face, stage)
    layer, shade = _head(face, stage, ball)
    for side in (0, 1):
        _eye(face.half(side), SIDES[side], stage, layer, shade)
    _mouth(face, stage, layer, shade)
    _hair(face, stage, layer, ball)
    _ears(face, stage, layer)
    _spectacles(face, stage, layer)
    _roll(face, stage, picture, layer, scene.roll)
    image = _backdrop(face, picture, scene)
    image = image.mul_(1 - layer[:, 3:]).add_(layer[:, :3])
    image = image.mul_(scene.light_colour[:, :, None, None]).clamp_(0, 1).sqrt_()
    _occlude(image, face, scene)
    image = _grain(_blur(image, scene), scene)
    image = image.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return image, _pixels(face, picture, size)


def _pixels(face: Face, picture: Batch, size: int) -> torch.Tensor:
    """The landmarks in pixels, after the roll: (n, 68, 2)."""
    across, down, _, _ = face.project(*points(face))
    down = down - _PIVOT_Y
    x = across * face.cos_roll - down * face.sin_roll
    y = across * face.sin_roll + down * face.cos_roll + _PIVOT_Y
    x = (x * picture.scale + picture.shift_x + 1) * size / 2
    return torch.cat([x, ((y + _CENTRE_Y) * picture.scale + picture.shift_y + 1) * size / 2], 2)


def _views(scene: Scene, size: int) -> tuple[Batch, Batch]:
    """The stage on which the head is drawn, turned but not yet rolled, and the picture.

    The stage is the picture, or a square around the whole head in frames that will be rolled. Both hold the places of
    pixels in head units, ``x`` (n, 1, S) and ``y`` (n, S, 1), a pixel's width, scale and shift.
    """
    centres = (torch.arange(size, device=scene.yaw.device, dtype=torch.float32) + 0.5) * (2 / size) - 1

    def window(scale, shift_x, shift_y) -> Batch:
        scale, shift_x, shift_y = scale[:, None, None], 2 * shift_x[:, None, None], 2 * shift_y[:, None, None]
        return Batch(
            scale=scale,
            shift_x=shift_x,
            shift_y=shift_y,
            x=(centres - shift_x) / scale,
            y=(centres[:, None] - shift_y) / scale - _CENTRE_Y,
            pixel=2 / size / scale,
        )

    rolled, scale = scene.roll.abs() > _ROLLED, _ZOOM * scene.scale
    wide = torch.where(rolled, scale.clamp(max=1.02), scale)
    # the middle of the whole head, hair included, is a little above the origin of head units
    middle = 0.5 * wide * (0.05 - _CENTRE_Y)
    stage = window(wide, torch.where(rolled, 0.0, scene.shift_x), torch.where(rolled, middle, scene.shift_y))
    return stage, window(scale, scene.shift_x, scene.shift_y)


def _gaussians(face: Face, view: Batch, bumps: Batch):
    """Projected centres, inverse variances and the factor for the amplitudes of Gaussians, each (n, k, 1)."""
    across, down, short, seen = face.project(bumps.x, bumps.y, bumps.lift)
    footprint = 0.16 * view.pixel**2  # variance of a pixel's own width, with a little sharpness left
    true_x, true_y = bumps.sigma_x * short, bumps.sigma_y * face.cos_pitch
    inverse_x, inverse_y = (true_x**2 + footprint).reciprocal(), (true_y**2 + footprint).reciprocal()
    return across, down, inverse_x, inverse_y, seen * true_x * true_y * (inverse_x * inverse_y).sqrt()


def _profile(places, centre, inverse, distance, pull) -> None:
    """Write a Gaussian's values into ``distance`` and (place - centre) / variance into ``pull``.

    The exponent stops at -30: invisible, and far from the denormal numbers that would slow the product down fivefold.
    """
    torch.sub(places, centre, out=distance)
    torch.mul(distance, inverse, out=pull)
    distance.mul_(pull).mul_(-0.5).clamp_(min=-30).exp_()


def _stain(face: Face, view: Batch, bumps: Batch) -> torch.Tensor:
    """The shade of Gaussians as a picture (n, S, S)."""
    across, down, inverse_x, inverse_y, strength = _gaussians(face, view, bumps)
    gx, gy, spare = across.new_empty(3, *across.shape[:2], view.x.shape[2])
    _profile(view.x, across, inverse_x, gx, spare)
    _profile(view.y.mT, down, inverse_y, gy, spare)
    return torch.bmm(gy.mul_(strength * bumps.shade).mT, gx)


def _relief(face: Face, view: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slopes in x and y, and shade, of all forms on the face, each (n, S, S)."""
    across, down, inverse_x, inverse_y, strength = _gaussians(face, view, face.forms)
    raise_by, shade_by = -strength * face.forms.relief, strength * face.forms.shade
    count, many, size = *across.shape[:2], view.x.shape[2]
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
        _profile(view.x[span], across[span], inverse_x[span], gx, pull_x)
        _profile(view.y.mT[span], down[span], inverse_y[span], gy, pull_y)
        torch.mul(gy, raise_by[span], out=raised)
        torch.mul(gy, shade_by[span], out=stacked[:, :, size:])
        torch.mul(pull_y, raised, out=stacked[:, :, :size])
        torch.bmm(stacked.mT, gx, out=rest[span])
        torch.bmm(raised.mT, pull_x.mul_(gx), out=slope_x[span])
    return slope_x, rest[:, :size], rest[:, size:]


def _linear(colour: torch.Tensor) -> torch.Tensor:
    return colour * colour


def _cover(distance, pixel):
    """Share of a pixel inside a border at signed ``distance``: a ramp one pixel wide, exactly 0 and 1 outside it."""
    return (distance / pixel + 0.5).clamp(0, 1)


def _round(face: Face, view: Batch) -> Batch:
    """The smooth head in the picture: for every row the ellipse that a slice of the skull shows.

    A slice with half width W and half depth D, turned by the yaw, has the half width R = sqrt((W cos)^2 + (D sin)^2)
    in the picture; at the share s of R from its centre its surface stands at tilt * s + bulge * sqrt(1 - s^2).

    Returns:
        (n, S, 1): ``y`` on the head, ``radius`` R, ``sine`` and ``cosine`` of the slice's turn, ``tilt``, ``bulge``,
        ``offset``, ``steep`` (0 outside); (n, S, S): every pixel's ``distance`` from its row's centre, its share
        ``s`` of the half width, and ``c``, the root of 1 - s^2.
    """
    y = (view.y - face.slices(view.y)[2] * face.sin_pitch) / face.cos_pitch
    width, depth, offset = face.slices(y)
    inside, width = width >= 0, width.clamp(min=0)
    radius = ((width * face.cos_yaw) ** 2 + (depth * face.sin_yaw) ** 2).sqrt().clamp(min=1e-3)
    sine, cosine = depth * face.sin_yaw / radius, width * face.cos_yaw / radius
    slope = torch.zeros_like(radius)
    slope[:, 1:-1] = (radius[:, 2:] - radius[:, :-2]) / (2 * view.pixel)
    distance = view.x - offset * face.sin_yaw
    s = (distance / radius).clamp_(-0.985, 0.985)
    return Batch(
        y=y,
        radius=radius,
        sine=sine,
        cosine=cosine,
        tilt=depth * sine * face.cos_yaw - width * cosine * face.sin_yaw,
        bulge=depth * cosine * face.cos_yaw + width * sine * face.sin_yaw,
        offset=offset,
        steep=torch.rsqrt(1 + slope * slope) * inside,
        distance=distance,
        s=s,
        c=torch.addcmul(torch.ones((), device=s.device), s, s, value=-1).sqrt_(),
    )


def _head(face: Face, view: Batch, ball: Batch):
    """The skin of the head: premultiplied linear colour and coverage (n, 4, S, S), and its shade (n, S, S)."""
    height = torch.addcmul(ball.offset, ball.tilt, ball.s).addcmul_(ball.bulge, ball.c)
    slope_x = torch.addcmul(ball.tilt / ball.radius, ball.s / ball.c, -0.85 * ball.bulge / ball.radius)
    slope_x.clamp_(-2.5, 2.5)
    slope_y = torch.zeros_like(slope_x)
    slope_y[:, 1:-1] = (height[:, 2:] - height[:, :-2]).mul_(0.45 / view.pixel)
    slope_y.clamp_(-2.5, 2.5).add_(face.sin_pitch)

    bumps_x, bumps_y, dark = _relief(face, view)
    slope_x += bumps_x
    slope_y += bumps_y

    half = F.normalize(face.light + slope_x.new_tensor([0.0, 0.0, 1.0])[:, None, None], dim=1)
    inverse = torch.addcmul(slope_x * slope_x, slope_y, slope_y).add_(1).rsqrt_()

    def towards(direction):
        """Cosine of the angle between the skin's normal and a direction."""
        plane = torch.addcmul(direction[:, 2], slope_x, direction[:, 0], value=-1)
        return plane.addcmul_(slope_y, direction[:, 1], value=-1).mul_(inverse)

    facing, gloss = towards(face.light), towards(half).clamp_(min=0)
    for _ in range(5):  # to the power of 32
        gloss.mul_(gloss)
    ambient = face.ambient
    occlusion = dark.clamp(min=0).mul_(-1.1).exp_()
    shade = facing.mul_(0.86).add_(0.14).clamp_(min=0).mul_(1.12 * (1 - ambient)).add_(0.55 * ambient)
    shade = shade.addcmul_(inverse, 0.45 * ambient).mul_(occlusion)

    blush = _stain(face, view, face.blush).clamp_(0, 0.6)
    hairs = _stain(face, view, face.stubble).mul_(-1.6).exp_().neg_().add_(1)
    gloss.mul_(occlusion).mul_(face.oiliness).mul_(1 - 0.8 * hairs)
    skin, beard = _linear(face.skin), _linear(0.55 * face.hair + 0.12 * face.skin)
    coverage = _cover((ball.radius - ball.distance.abs()).mul_(ball.steep), view.pixel)
    coverage.mul_(ball.steep > 0)
    layer = shade.new_empty(len(shade), 4, *shade.shape[1:])
    warm = (1 - shade).clamp_(0, 1).mul_(shade)  # light that travelled under the skin reddens the turn into shadow
    for k, (redden, glow) in enumerate(((0.10, 0.14), (-0.55, -0.02), (-0.45, -0.05))):
        albedo = (blush * redden).add_(1).mul_(skin[:, k])
        albedo.lerp_(beard[:, k].expand_as(albedo), hairs)
        torch.mul(albedo.mul_(torch.add(shade, warm, alpha=glow)).add_(gloss), coverage, out=layer[:, k])
    layer[:, 3] = coverage
    return layer, shade


class _Box:
    """A small rectangle of every frame, at its own place, to be painted and written back.

    ``x`` (n, 1, w) and ``y`` (n, h, 1) are distances from ``across``, ``down`` in picture units, ``mask`` (n, h, w) is
    0 beyond ``half_x`` and ``half_y``, ``canvas`` (n, C, h, w) the box's part of the layer.
    """

    def __init__(self, layer, view: Batch, across, down, half_x: float, half_y: float):
        count, self.channels, size, _ = layer.shape
        reach = float(view.scale.max()) * size / 2
        wide, high = (min(size, int(2 * h * reach) + 3) for h in (half_x, half_y))
        column = torch.round((across - view.x[:, :, :1]) / view.pixel - wide / 2).long().clamp(0, size - wide)
        row = torch.round((down - view.y[:, :1]) / view.pixel - high / 2).long().clamp(0, size - high)
        columns = column + torch.arange(wide, device=layer.device)
        rows = row + torch.arange(high, device=layer.device)[:, None]
        self.index = (rows * size + columns).flatten(1)
        self.layer = layer.view(count, self.channels, size * size)
        self.x = torch.gather(view.x, 2, columns) - across
        self.y = torch.gather(view.y, 1, rows) - down
        self.mask = ((self.x.abs() < half_x) & (self.y.abs() < half_y)).float()
        index = self.index[:, None].expand(-1, self.channels, -1)
        self.canvas = torch.gather(self.layer, 2, index).view(count, -1, high, wide)

    def read(self, plane: torch.Tensor) -> torch.Tensor:
        """The box's part of a (n, S, S) plane."""
        return torch.gather(plane.flatten(1), 1, self.index).view(self.mask.shape)

    def paint(self, alpha: torch.Tensor, colour, tone: torch.Tensor | None = None) -> None:
        """Lay ``colour`` (linear, (n, 3, 1 or h, 1 or w)) times ``tone`` (n, h, w) over what is covered already."""
        if tone is not None:
            colour = colour * tone[:, None]
        under = self.canvas[:, :3]
        under += alpha[:, None] * (colour * self.canvas[:, 3:] - under)

    def write(self) -> None:
        """Put the canvas back into the layer."""
        index = self.index[:, None].expand(-1, self.channels, -1)
        self.layer.scatter_(2, index, self.canvas.flatten(2))


def _eye(eye: Face, sign: float, view: Batch, layer, shade) -> None:
    """One eye with its lids and lashes, and the brow over it."""
    across, down, short, seen = eye.project(sign * eye.eye_x, eye.eye_y)
    box = _Box(layer, view, across, down - 0.12, 0.25, 0.25)
    pixel, light, closed = view.pixel, box.read(shade), eye.closed
    x = box.x * (sign / short)  # outward, in head units
    y = (box.y - 0.12) / eye.cos_pitch
    seen = seen * box.mask

    t = (x / eye.eye_half).clamp(-1.6, 1.6)
    tilt = -eye.eye_tilt * t - 0.008 * t
    bow, upper, lower = lids(eye, t)
    upper, lower = upper + tilt, lower + tilt
    ends = _cover((1 - t.abs()) * eye.eye_half, pixel)
    ball = _cover(y - upper, pixel) * _cover(lower - y, pixel) * ends * seen

    # lid: darker than the cheek once it is drawn over the eye, a crease above it, lashes along the border
    drawn = _cover(upper - y, pixel) * _cover(y + 0.070 * bow.sqrt(), pixel + 0.02) * ends
    box.paint(0.25 * closed**1.5 * drawn * seen, _linear(0.45 * eye.lips + 0.40 * eye.skin), light)
    crease = torch.exp(-(((y - upper + 0.030 + 0.012 * closed) / (0.011 + 0.3 * pixel)) ** 2)) * bow.sqrt()
    box.paint(0.34 * crease * seen * (1 - 0.6 * ball), _linear(eye.skin) * 0.30, light)

    dx, dy = x - 0.035 * eye.gaze_x * sign, y + 0.010 - 0.022 * eye.gaze_y
    radius = (dx * dx + dy * dy).sqrt()
    white = 0.80 - 0.22 * t * t - 0.30 * (1 - (y - upper) / 0.045).clamp(0, 1)
    white = white * (0.35 + 0.65 * light)
    colour = torch.stack([white, white * 0.95, white * 0.92], 1)
    rim = 0.35 + 1.0 * (1 - radius / 0.062).clamp(0, 1).sqrt()
    lit = (0.45 + 0.55 * light) * (0.55 + 0.45 * ((y - upper) / 0.05).clamp(0, 1)) * rim
    iris, pupil = _cover(0.062 - radius, pixel)[:, None], _cover(0.026 - radius, pixel)[:, None]
    colour = colour + iris * (_linear(eye.iris) * 1.5 * lit[:, None] - colour)
    colour = colour * (1 - 0.97 * pupil)
    spot_x, spot_y = 0.040 * eye.light[:, 0] * sign, 0.040 * eye.light[:, 1]
    spread = 0.0090**2 + 0.1 * pixel**2
    spark = torch.exp(-((dx - spot_x) ** 2 + (dy - spot_y) ** 2) / (2 * spread))
    box.paint(ball, colour + 0.85 * (spark * (0.0090**2 / spread) ** 0.5)[:, None])

    # the lashes of a closed eye hang below the meeting lids
    shut = closed**3
    thick = 0.010 + 0.004 * bow + 0.005 * shut
    lash = _cover(thick - (y - upper + 0.002 - 0.016 * shut).abs(), pixel)
    lash = lash * _cover((1.03 - t.abs()) * eye.eye_half, pixel)
    box.paint(0.85 * lash * seen, _linear(0.35 * eye.brows))
    under = _cover(0.006 - (y - lower - 0.004).abs(), pixel) * ends
    box.paint(0.40 * under * seen, _linear(0.75 * eye.lips), light)

    # brow: a band along the curve through three points
    u = (x + eye.eye_x - eye.brow_inner_x) / (eye.brow_outer_x - eye.brow_inner_x)
    thick = eye.brow_half * (1 - 0.62 * u.clamp(0, 1) ** 2) * (0.55 + 0.45 * (u / 0.12).clamp(0, 1))
    brow = _cover(thick - (y - brow_curve(eye, u, eye.eye_y)).abs(), pixel + 0.016)
    brow = brow * _cover(u * 0.3, 0.05 + pixel) * _cover((1 - u) * 0.3, 0.04 + pixel)
    box.paint(0.88 * brow * seen, _linear(eye.brows), 0.35 + 0.65 * light)
    box.write()


def _mouth(face: Face, view: Batch, layer, shade) -> None:
    """Lips, teeth, tongue and the dark between them."""
    across, down, short, _ = face.project(0.0, face.mouth_y, 0.02)
    box = _Box(layer, view, across, down + 0.08, 0.42, 0.22)
    pixel, light = view.pixel, box.read(shade)
    # the lips lie on the curved face: sideways the mouth shortens as the cheek turns away
    x = box.x / short
    x = x * (1 + 0.9 * face.sin_yaw * x)
    y = (box.y + 0.08) / face.cos_pitch
    half, corner_y = (torch.where(x < 0, side[:, :1], side[:, 1:]) for side in (face.corner_x, face.corner_y))

    def rgb(*values: float) -> torch.Tensor:
        return _linear(layer.new_tensor(values)[:, None, None])

    t = (x / half).abs().clamp(max=1.5)
    bow = (1 - t * t).clamp(min=0)
    line = corner_y * t.pow(1.7) + face.arch * bow
    gap_shape = bow.pow(0.6)
    upper_gap, lower_gap = face.upper_gap * gap_shape, face.lower_gap * gap_shape
    inner_up, inner_low = line - upper_gap, line + lower_gap
    cupid = 1 - 0.20 * torch.exp(-((x / 0.030) ** 2)) + 0.10 * torch.exp(-(((x.abs() - 0.052) / 0.035) ** 2))
    outer_up = inner_up - face.upper_lip * bow.pow(0.70) * cupid
    outer_low = inner_low + face.lower_lip * bow.pow(0.62)
    ends = _cover((1 - t) * half, pixel) * box.mask
    soft = pixel + 0.008
    lips = _cover(y - outer_up, soft) * _cover(outer_low - y, soft) * ends
    above = _cover(line - y, soft)
    full = ((y - inner_low) / (face.lower_lip + 0.004)).clamp(0, 1)
    shine = 4 * full * (1 - full)
    box.paint(0.90 * lips, _linear(face.lips), (0.74 * above + (1 - above) * (0.92 + 0.30 * shine)) * light)

    gap = face.upper_gap + face.lower_gap
    inside = _cover(y - inner_up, pixel) * _cover(inner_low - y, pixel) * ends * (gap / 0.010).clamp(0, 1)
    box.paint(inside, rgb(0.25, 0.09, 0.08), 0.4 + 0.6 * light)
    tongue = _cover(y - (inner_low - 0.40 * lower_gap), pixel + 0.02) * inside * (t < 0.75)
    box.paint(0.75 * tongue * (lower_gap / 0.08).clamp(0, 1), rgb(0.62, 0.30, 0.29), light)
    teeth = _cover(inner_up + 0.034 * bow.sqrt() - y, pixel) * inside * _cover(0.90 - t, 0.10)
    seams = 1 - 0.20 * _cover(0.10 - ((x / 0.034) % 1 - 0.5).abs(), pixel / 0.034)
    box.paint(teeth, rgb(0.90, 0.87, 0.80), seams * (0.25 + 0.65 * light) * (1 - 0.35 * t * t))

    seam = _cover(0.0075 - (y - line).abs(), pixel + 0.004) * _cover((1.04 - t) * half, pixel) * box.mask
    seam = seam * (1 - (gap / 0.02).clamp(0, 1))
    box.paint(0.72 * seam, _linear(0.42 * face.lips), light)
    box.write()


def _ears(face: Face, view: Batch, layer) -> None:
    """Ears at the sides of the skull: behind the face on the far side, over it on the side turned to the viewer.

    Long hair hides them.
    """
    bare = (face.hair_length < 0.6).float()
    y = torch.full_like(view.scale, -0.02)
    width = face.slices(y)[0]
    for sign in SIDES:
        across = sign * (width + 0.025) * face.cos_yaw
        down = y * face.cos_pitch - (sign * width * face.sin_yaw) * face.sin_pitch
        box = _Box(layer, view, across, down, 0.13, 0.20)
        turned = -sign * face.sin_yaw  # positive: this ear faces the viewer
        wide = 0.055 + 0.050 * turned.clamp(-0.5, 1)
        x, v = box.x * sign / wide, box.y / (0.150 - 0.018 * box.x / wide * sign)
        radius = (x * x + v * v).sqrt()
        ear = _cover((1 - radius) * wide, view.pixel) * box.mask * bare * (turned > -0.35)
        over = ear * (turned * 8).clamp(0, 1)
        tone = (0.62 + 0.30 * (radius - 0.35).clamp(0, 1)) * (0.9 - 0.15 * (radius > 0.82)) + 0.1 * turned.clamp(0, 1)
        colour = _linear(face.skin * layer.new_tensor([1.0, 0.93, 0.92])[:, None, None]) * tone[:, None]
        canvas, over = box.canvas, over[:, None]
        behind = (1 - over) * (ear[:, None] * (1 - canvas[:, 3:]))
        paint = torch.cat([colour, torch.ones_like(behind)], 1)
        box.canvas = canvas + over * (paint - canvas) + behind * paint
        box.write()


def _hair(face: Face, view: Batch, layer, ball: Batch) -> None:
    """Hair on the skull down to the hairline and at the sides, and long hair behind the head."""
    rows, distance = ball.y, ball.distance
    side = (ball.s * ball.cosine).addcmul_(ball.c, ball.sine, value=-1)
    back = (1 - ball.c * ball.cosine).addcmul_(ball.s, ball.sine, value=-1)  # 0 at the front, 1 at the ears
    length, comb, wave = face.hair_length, face.hair_part, face.hair_wave

    # strands fan out from a point above the parting
    fan = (view.x - (0.25 * comb + 0.35 * face.sin_yaw)) / (rows + 1.25).clamp(min=0.2)
    fan.div_(fan.abs().add_(0.45))
    bend = torch.sin((14 + 26 * wave) * fan + (9 + 30 * wave) * rows)
    last = face.strands.shape[1] - 1.001
    place = fan.addcmul_(bend, 0.08 * wave).add_(1).mul_(0.5 * last).clamp_(0, last)
    strand = torch.gather(face.strands, 1, place.long().flatten(1)).view_as(place)

    line = (side * (-0.05 * comb.abs())).add_(0.10 * comb).mul_(side).addcmul_(back, back, value=1.45)
    lowest = 0.02 + 0.10 * length + 1.4 * (length - 0.6).clamp(min=0)
    line = torch.minimum(line.add_(face.hairline), lowest).add_(strand, alpha=0.10)
    line.addcmul_(ball.c, ball.bulge * face.sin_pitch)  # it stands before the axis of the nod
    grown = (length / 0.12).clamp(0, 1)
    thick = face.hair_volume * (0.15 + 0.85 * grown)
    # the shell around the skull closes on the temples
    low = ((rows + 0.12) / 0.35).clamp(0, 1)
    top = -0.97 - 0.75 * thick
    crown = ((-0.12 - rows) / (-0.12 - top)).clamp(0, 1)
    round_crown = (face.skull_width + thick) * (1 - crown**2.4).sqrt()
    shell = round_crown - (thick + 0.02) * low * low
    shell = shell * (face.cos_yaw**2 + (1.12 * face.sin_yaw) ** 2).sqrt()
    over = _cover(torch.addcmul(shell - distance.abs(), strand, 0.05 * (1 - low)), view.pixel + 0.012).mul_(rows > top)
    over.mul_(_cover(line - rows, view.pixel + 0.030)).mul_(0.55 + 0.45 * grown)

    light, ambient = face.light, face.ambient
    round_x, round_y = (distance / (shell + 0.1)).clamp_(-1, 1), ((rows + 0.25) / 0.85).clamp(-1, 1)
    facing = torch.addcmul(round_y * light[:, 1] + 0.55 * light[:, 2], round_x, light[:, 0]).clamp_(min=0)
    band = (round_x * round_x).mul_(-0.12).add_(rows + 0.70).div_(0.09)
    band = band.mul_(band).neg_().clamp_(min=-30).exp_()
    tone = torch.addcmul(ambient, 1 - ambient, facing).mul_((0.9 * strand).add_(0.85))
    sheen = band.mul_(facing).mul_(strand + 0.5)
    tone.add_(sheen, alpha=0.35).clamp_(min=0.05)
    hair = _linear(face.hair)
    layer.mul_((1 - over)[:, None])
    layer[:, :3].addcmul_(hair, (tone * over)[:, None]).add_(sheen.mul_(over)[:, None], alpha=0.045)
    layer[:, 3].add_(over)

    # long hair falls behind the face
    falls = torch.nonzero(length > 0.6)[:, 0]
    if not len(falls):
        return
    rows, strand = rows[falls], strand[falls]
    wide = round_crown[falls] - 0.02 + 0.12 * ((rows + 0.3) / 0.8).clamp(0, 1)
    wide = wide + 0.05 * strand
    behind = wide - (distance + 0.10 * face.sin_yaw)[falls].abs()
    behind = _cover(behind, view.pixel[falls] + 0.02) * (rows > -0.6)
    ends = 0.10 + 1.2 * (length[falls] - 0.35)
    behind = behind.mul_(_cover(ends - rows + 0.2 * strand, 0.08)).mul_(1 - layer[falls, 3])
    part = layer[falls]
    part[:, :3].addcmul_(hair[falls], (0.62 * tone[falls]).mul_(behind)[:, None])
    part[:, 3].add_(behind)
    layer[falls] = part


def _spectacles(face: Face, view: Batch, whole) -> None:
    """Rims, bridge and the start of the arms, for those who wear glasses."""
    worn = torch.nonzero(face.glasses > 0.5)[:, 0]
    if not len(worn):
        return
    face, view, layer = face[worn], view[worn], whole[worn]
    for sign in SIDES:
        across, down, short, _ = face.project(sign * face.eye_x, face.eye_y + 0.02, 0.05)
        box = _Box(layer, view, across, down, 0.36, 0.20)
        pixel, x, y = view.pixel, box.x * sign / short, box.y / face.cos_pitch
        # a rounded rectangle as the four-norm
        ring = ((x / 0.205) ** 4 + (y / 0.150) ** 4).clamp(min=1e-6).sqrt().sqrt()
        rim = _cover(0.013 - (ring - 1).abs() * 0.17, pixel)
        bridge = _cover(0.011 - (y + 0.035).abs(), pixel) * (x < -0.20) * _cover(x + face.eye_x, pixel)
        arm = _cover(0.011 - (y + 0.055).abs(), pixel) * (x > 0.20)
        glass = _cover(1 - ring, 0.1) * box.mask
        glare = glass * _cover(0.020 - (x + 0.7 * y - 0.09).abs(), 0.02)
        box.paint(0.05 * glass + 0.14 * glare, 0.8)
        box.paint(0.95 * (torch.maximum(rim, torch.maximum(bridge, arm)) * box.mask), _linear(face.frame))
        box.write()
    whole[worn] = layer


def _roll(face: Face, view: Batch, picture: Batch, layer, roll: torch.Tensor) -> None:
    """Turn the head layer about the neck, from the stage into the picture, in the frames that need it."""
    turned = torch.nonzero(roll.abs() > _ROLLED)[:, 0]
    if not len(turned):
        return
    view, cos, sin = view[turned], face.cos_roll[turned], face.sin_roll[turned]
    x, y = picture.x[turned], picture.y[turned] - _PIVOT_Y
    from_x = (x * cos + y * sin) * view.scale + view.shift_x
    from_y = (y * cos - x * sin + (_PIVOT_Y + _CENTRE_Y)) * view.scale + view.shift_y
    layer[turned] = F.grid_sample(
        layer[turned], torch.stack([from_x, from_y], 3), mode="bilinear", padding_mode="border", align_corners=False
    )


def _backdrop(face: Face, view: Batch, scene: Scene):
    """Background gradient, shoulders and neck, linear light (n, 3, S, S)."""
    size, pixel = view.x.shape[2], view.pixel
    upper, lower = _linear(scene.background)[:, :, :, None].unbind(1)
    image = upper + (lower - upper) * torch.linspace(0, 1, size, device=upper.device)
    image = image[:, :, :, None].expand(-1, -1, -1, size).clone()
    first = size // 2
    y = view.y[:, first:]
    chin = face.chin - face.jaw_drop
    lean = 0.10 * face.sin_yaw + 0.20 * face.sin_roll
    at = view.x - lean * (1.3 - y).clamp(0, 1)
    side = (at * face.light[:, 0] * 1.6).clamp(-0.4, 0.4)
    part = image[:, :, first:]

    def dress(cover, colour, tone):
        part.add_(cover[:, None] * (_linear(colour) * tone[:, None] - part))

    wide = 0.60 * face.skull_width + 0.16 * ((y - chin) / 0.4).clamp(0, 1) ** 2
    tone = (0.30 + 0.55 * ((y - chin + 0.02) / 0.34).clamp(0, 1) + side) * (0.5 + 0.5 * face.ambient)
    tone = tone * (1 - 0.5 * (at.abs() / wide).clamp(0, 1) ** 3)
    dress(_cover(wide - at.abs(), pixel) * (y > 0.1), face.skin, tone.clamp(min=0.03))
    shoulder = chin + 0.12 + 0.10 * at.abs() + 0.10 * (0.30 - at.abs()).clamp(min=0) * 2.0 + 0.16 * at * at
    fold = 0.55 + side + 0.25 * ((y - shoulder) / 0.3).clamp(0, 1)
    dress(_cover(y - shoulder, pixel), face.clothes, fold.clamp(min=0.05))
    return image


def _occlude(image: torch.Tensor, face: Face, scene: Scene) -> None:
    """Paint hands, bars and microphones over the finished pictures (gamma space), in the frames that have them."""
    size = image.shape[-1]
    centres = (torch.arange(size, device=image.device) + 0.5) / size
    for kind, name in enumerate(OCCLUDERS[1:], 1):
        chosen = torch.nonzero(scene.occluder[:, 0].round() == kind)[:, 0]
        if not len(chosen):
            continue
        _, left, top, wide, high = scene.occluder[chosen][:, :, None, None].unbind(1)
        x = (centres - left) / (wide / 2).clamp(min=1e-3)
        y = (centres[:, None] - top) / (high / 2).clamp(min=1e-3)
        soft = 2.0 / size / (0.5 * torch.minimum(wide, high)).clamp(min=1e-3)
        if name == "dark bar":
            alpha = _cover(1 - torch.maximum(x.abs(), y.abs()), soft)
            colour = image.new_tensor([0.06, 0.06, 0.07])[:, None, None]
        elif name == "microphone":
            ball = _cover(1 - (x * x + (y / 0.55 + 0.8) ** 2).sqrt(), soft)
            stick = _cover(0.30 - x.abs(), soft) * _cover(y + 0.44, soft) * _cover(1 - y, soft)
            alpha = torch.maximum(ball, stick)
            colour = (0.16 + 0.16 * (-x - 0.6 * y).clamp(-0.6, 1))[:, None]
        else:
            alpha, tone = _hand(x, y, wide / high, soft)
            brightness = 0.75 + 0.25 * scene.light_colour[chosen].mean(1)
            colour = face.skin[chosen] * brightness[:, None, None, None] * tone[:, None]
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
        rows = torch.bmm(image[chosen].view(-1, 3 * size, size), kernel.mT)
        image[chosen] = rows.view(-1, 3, size, size)
    image = image.permute(0, 2, 3, 1).contiguous()
    if len(chosen):
        image[chosen] = torch.bmm(kernel, image[chosen].view(-1, size, 3 * size)).view(-1, size, size, 3)
    return image


_GRAIN_STEP, _GRAIN_ROWS = 16, 65521


@functools.cache
def _grain_bank(device: torch.device, need: int) -> torch.Tensor:
    """(rows, need): overlapping stretches of one fixed row of normal numbers."""
    bank = torch.randn(_GRAIN_STEP * _GRAIN_ROWS + need, generator=torch.Generator().manual_seed(20))
    return bank.to(device).as_strided((_GRAIN_ROWS, need), (_GRAIN_STEP, 1))


def _grain(image: torch.Tensor, scene: Scene) -> torch.Tensor:
    """Sensor noise: a stretch of one fixed bank of normal numbers, which stretch depends on the frame's seed."""
    chosen = torch.nonzero(scene.noise > 0)[:, 0]
    if len(chosen):
        bank = _grain_bank(image.device, image[0].numel())
        noise = bank[(scene.seed[chosen] * 48271 + 11) % _GRAIN_ROWS].view(-1, *image.shape[1:])
        image[chosen] += scene.noise[chosen][:, None, None, None] * noise
    return image


def au_region(au_name: str, landmarks: torch.Tensor, size: int) -> torch.Tensor:
    """Where an AU may act, as anatomical ellipses around its sites.

    ``regions.csv`` holds the ellipses in units of half the distance between the outer eye corners: centre, x from the
    midline (mirrored) and y from the line of the eyes, and half axes; the brows are at -0.45, mouth 1.4, chin 2.3.

    Args:
        au_name: one of ``facs.ACTION_UNITS``.
        landmarks: (68, 2) pixels of the same head without that AU.
        size: side of the picture in pixels.

    Returns:
        bool (size, size), true inside the region.

    Raises:
        InputError: an unknown AU or a wrong shape.
    """
    if au_name not in facs.ACTION_UNITS:
        raise InputError("au_region", "au_name", repr(au_name), f"one of {', '.join(facs.ACTION_UNITS)}")
    places = torch.as_tensor(landmarks, dtype=torch.float32)
    if places.shape != (68, 2):
        raise InputError("au_region", "shape of landmarks", tuple(places.shape), "(68, 2)")
    # axes of the face: along the eyes, and from between the eyes to the chin (they lean and shorten with the pose)
    left, right = places[36:42].mean(0), places[42:48].mean(0)
    origin = (left + right) / 2
    unit_x = (places[45] - places[36]) / 2
    unit_y = (places[8] - origin) / 2.30
    centres = torch.arange(size) + 0.5
    dx, dy = centres[None, :] - origin[0], centres[:, None] - origin[1]
    det = unit_x[0] * unit_y[1] - unit_x[1] * unit_y[0]
    u, v = (dx * unit_y[1] - dy * unit_y[0]) / det, (dy * unit_x[0] - dx * unit_x[1]) / det
    region = torch.zeros(size, size, dtype=torch.bool)
    for row in table("regions.csv"):
        if row["au"] == au_name:
            x, y, half_x, half_y = (float(row[name]) for name in ("x", "y", "half_x", "half_y"))
            for sign in SIDES:
                region |= ((u - sign * x) / half_x) ** 2 + ((v - y) / half_y) ** 2 <= 1
    return region
