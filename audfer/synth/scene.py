"""Where, how and in what light a face is seen: all of a frame that is neither the person nor the expression."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import InputError
from .identity import Batch

#: what ``Scene.occluder[:, 0]`` may be
OCCLUDERS: tuple[str, ...] = ("none", "hand", "dark bar", "microphone")


@dataclass
class Scene(Batch):
    """Conditions of ``B`` frames: tensors with first axis ``B``, float32 but for ``seed``.

    Attributes:
        yaw: (B,) radians, positive turns the nose to the right of the picture; made for -0.6..0.6.
        pitch: (B,) radians, positive turns the nose down; made for -0.35..0.35.
        roll: (B,) radians, positive turns the head clockwise in the picture.
        shift_x, shift_y: (B,) fraction of the image side, positive to the right and down.
        scale: (B,) size of the head: at 1 the whole head with its hair fits, at 1.2 the crown is cut off as in a face
            detector's crops and a dropped jaw still fits.
        light: (B, 3) direction towards the light (x right, y down, z to the viewer), any length.
        light_colour: (B, 3) factors, 1 is white.
        ambient: (B,) share of light from everywhere, 0..1.
        background: (B, 2, 3) sRGB colours 0..1 at the upper and lower edge.
        gaze: (B, 2) where the eyes look, -1..1 to the right and down.
        blur: (B,) Gaussian sigma in pixels of a 64 px picture (it scales with the size); 0 is sharp.
        noise: (B,) standard deviation of the sensor noise on a scale of 0..1.
        occluder: (B, 5) kind (index in ``OCCLUDERS``), centre x and y, width, height as fractions of the image side.
        seed: (B,) int64: which noise; the same seed gives the same noise.
    """

    yaw: torch.Tensor
    pitch: torch.Tensor
    roll: torch.Tensor
    shift_x: torch.Tensor
    shift_y: torch.Tensor
    scale: torch.Tensor
    light: torch.Tensor
    light_colour: torch.Tensor
    ambient: torch.Tensor
    background: torch.Tensor
    gaze: torch.Tensor
    blur: torch.Tensor
    noise: torch.Tensor
    occluder: torch.Tensor
    seed: torch.Tensor


def neutral_scene(count: int) -> Scene:
    """``count`` frames of a frontal head, cropped as a face detector does, in plain light from above left.

    Grey background, sharp, no noise, nothing in front.

    Raises:
        InputError: ``count`` is below 1.
    """
    if count < 1:
        raise InputError("neutral_scene", "count", count, "at least 1")
    plain = ("yaw", "pitch", "roll", "shift_x", "shift_y", "blur", "noise")
    return Scene(
        **{name: torch.zeros(count) for name in plain},
        scale=torch.full((count,), 1.2),
        light=torch.tensor([-0.40, -0.62, 0.80]).repeat(count, 1),
        light_colour=torch.ones(count, 3),
        ambient=torch.full((count,), 0.36),
        background=torch.tensor([[0.52, 0.57, 0.62], [0.40, 0.44, 0.48]]).repeat(count, 1, 1),
        gaze=torch.zeros(count, 2),
        occluder=torch.zeros(count, 5),
        seed=torch.arange(count),
    )
