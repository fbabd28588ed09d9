"""Where action units act: two regions each from facial landmarks (Table I of "Lock and Check"), and RoIAlign.

Landmarks are the 98 points of WFLW (Wu et al., "Look at boundary", CVPR 2018): 0-32 outline from the picture's left to
its right, 33-41 and 42-50 brows, 51-54 bridge and 55-59 base of the nose, 60-67 and 68-75 eyes, 76-87 outer and 88-95
inner lips, 96 and 97 pupils. The 68 points of iBUG, which OpenFace and dlib give, are mapped onto them
(``wflw_from_ibug.csv``: the means of which iBUG points stand for a WFLW point). Exact in meaning are every other point
of the outline, the bridge and base of the nose, the mouth, the corners of the eyes and the brows' upper edge.
Approximations: the outline's points between (midpoints); the brows' lower edge (iBUG has one line per brow: the point
above is taken); the lids (iBUG has two points per lid at thirds, WFLW three at quarters: the outer two are taken as
they are, the middle one is their midpoint); the pupils (mean of the eye).

Table I against that scheme: every index lies where its AU acts. Its two centres are mirror images of each other for all
AUs but AU09 (51 and 53, both on the bridge of the nose, one above the other), and AU26 has the picture's right side
first (83, 87). AU12, AU14 and AU15 share their centres, and so do AU23, AU24 and AU25: regions cannot tell these apart.
The AUs that Table I lacks have regions of our own (``regions.csv``).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import AudferError
from ..facs import ACTION_UNITS
from ..published import load

#: side of a region as a share of the distance between the eyes' centres: ours, the paper does not say
BOX_SHARE = 0.5
#: sampling points of each bin and direction in ``roi_align``
SAMPLES = 2
#: the face's three parts, as Table I calls them
GROUPS: tuple[str, ...] = ("Upper Face", "Middle Face", "Lower Face")
_OWN = pd.read_csv(Path(__file__).with_name("regions.csv"))
#: AUs that Table I lacks, whose regions are ours
OURS: tuple[str, ...] = tuple(_OWN["au"].unique())
_EYES = (tuple(range(60, 68)), tuple(range(68, 76)))


@lru_cache(maxsize=None)
def _table() -> dict[str, tuple[str, tuple]]:
    """AU -> (group, for both of its centres the landmarks whose mean is x, and those whose mean is y)."""
    both = pd.concat([load("lac_table1_centers"), *(_OWN.assign(axis=axis) for axis in "xy")])
    both["points"] = [tuple(map(int, str(text).split())) for text in both["landmarks"]]
    table = {}
    for au, rows in both.groupby("au", sort=False):
        points = rows.set_index(["centre", "axis"])["points"]
        centres = tuple((points[number, "x"], points[number, "y"]) for number in (1, 2))
        table[au] = rows["region"].iloc[0], centres
    return table


def _region(au: str) -> tuple[str, tuple]:
    if au not in _table():
        raise AudferError(f"no regions are known for {au!r}, expected one of {', '.join(sorted(_table()))}")
    return _table()[au]


def group_of(action_unit: str) -> str:
    """The part of the face, one of ``GROUPS``, that Table I puts the AU in; for the AUs in ``OURS`` our choice.

    Raises:
        AudferError: an AU that neither names.
    """
    return _region(action_unit)[0]


def _means(points: tuple[tuple[int, ...], ...], count: int) -> np.ndarray:
    """(len(points), count) float32: means of some of ``count`` points as weights."""
    matrix = np.zeros((len(points), count), np.float32)
    for row, entries in zip(matrix, points, strict=True):
        row[list(entries)] = 1 / len(entries)
    return matrix


@lru_cache(maxsize=None)
def wflw_from_ibug() -> np.ndarray:
    """(98, 68) float32: WFLW points as means of iBUG points."""
    table = pd.read_csv(Path(__file__).with_name("wflw_from_ibug.csv"), dtype=str)
    return _means(tuple(tuple(map(int, text.split())) for text in table["ibug"]), 68)


def _weights(points: tuple[tuple[int, ...], ...], count: int) -> Tensor:
    """(len(points), count): means of WFLW points as weights of ``count`` landmarks."""
    matrix = _means(points, 98)
    return torch.from_numpy(matrix if count == 98 else matrix @ wflw_from_ibug())


def _combine(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sums over the last axis of ``values``; NaN only where a landmark that counts is NaN."""
    weights = weights.to(values)
    unknown = values.isnan()
    total = values.nan_to_num() @ weights.T
    return total.masked_fill((unknown.to(values.dtype) @ (weights != 0).to(values.dtype).T) > 0, torch.nan)


def _checked(landmarks: Tensor) -> Tensor:
    landmarks = torch.as_tensor(landmarks)
    if landmarks.ndim < 2 or landmarks.shape[-1] != 2 or landmarks.shape[-2] not in (68, 98):
        raise AudferError(f"landmarks have the shape {tuple(landmarks.shape)}, expected (n, 68, 2) or (n, 98, 2)")
    return landmarks if landmarks.is_floating_point() else landmarks.float()


def region_centres(landmarks: Tensor, action_units: tuple[str, ...] = ACTION_UNITS) -> Tensor:
    """The two centres of each AU's regions (Table I; the AUs in ``OURS`` are ours).

    Args:
        landmarks: (n, 68 or 98, 2) x right, y down, in any unit; NaN = unknown.
        action_units: C names.

    Returns:
        (n, C, 2, 2): frame, AU, centre, x and y, in the landmarks' unit; NaN where a landmark that is needed is
        unknown.

    Raises:
        AudferError: another number of landmarks, or an AU without regions.
    """
    landmarks = _checked(landmarks)
    count = landmarks.shape[-2]
    axes = [
        _combine(
            _weights(tuple(centre[axis] for au in action_units for centre in _region(au)[1]), count),
            landmarks[..., axis],
        )
        for axis in (0, 1)
    ]
    return torch.stack(axes, dim=-1).unflatten(-2, (len(action_units), 2))


def eye_distance(landmarks: Tensor) -> Tensor:
    """Distance between the centres of the eyes, (n,), in the landmarks' unit.

    ``landmarks`` as in ``region_centres``.
    """
    landmarks = _checked(landmarks)
    eyes = _combine(_weights(_EYES, landmarks.shape[-2]), landmarks.mT).mT
    return (eyes[..., 1, :] - eyes[..., 0, :]).norm(dim=-1)


def region_boxes(centres: Tensor, distance: Tensor, share: float = BOX_SHARE) -> Tensor:
    """Square boxes around centres.

    Args:
        centres: (n, C, 2, 2) from ``region_centres``.
        distance: (n,) from ``eye_distance``.
        share: side of a box in distances of the eyes.

    Returns:
        (n, C, 2, 4): x0, y0, x1, y1 in the same unit; NaN where the centre or the distance is. Boxes may reach out of
        the picture.
    """
    half = (share / 2 * distance)[:, None, None, None]
    return torch.cat((centres - half, centres + half), dim=-1)


def landmark_boxes(landmarks: Tensor, action_units: tuple[str, ...] = ACTION_UNITS, share: float = BOX_SHARE) -> Tensor:
    """``region_boxes`` straight from landmarks: (n, 68 or 98, 2) -> (n, C, 2, 4)."""
    return region_boxes(region_centres(landmarks, action_units), eye_distance(landmarks), share)


# ----------------------------------------------------------------------------------------------------------- RoIAlign


def axis_weights(low: Tensor, high: Tensor, cells: int, size: int, samples: int = SAMPLES) -> Tensor:
    """RoIAlign along one axis: what each of ``cells`` cells counts in each of ``size`` bins between ``low`` and
    ``high``.

    Bilinear sampling is separable and so is the grid of sampling points, hence RoIAlign is ``rows @ map @ columns.T``.

    Args:
        low, high: (...) ends of the interval, shares of the map's side (0..1); NaN gives NaN.
        cells: of the map along this axis; cell i has its centre at (i + 0.5) / cells (the aligned, half-pixel
            convention).
        size: bins. samples: sampling points per bin.

    Returns:
        (..., size, cells); a bin's weights add up to 1 where it lies inside the map. Sampling points up to half a cell
        outside count as the border, those beyond as nothing (as in torchvision's operator).
    """
    steps = (torch.arange(size * samples, device=low.device, dtype=low.dtype) + 0.5) / (size * samples)
    place = (low[..., None] + (high - low)[..., None] * steps) * cells - 0.5
    inside = ((place >= -1) & (place <= cells)).to(place.dtype)
    place = place.clamp(0, cells - 1)[..., None]
    centres = torch.arange(cells, device=low.device, dtype=low.dtype)
    hats = (1 - (place - centres).abs()).clamp(min=0) * inside[..., None]
    return hats.unflatten(-2, (size, samples)).mean(dim=-2)


def roi_align(maps: Tensor, boxes: Tensor, size: int, samples: int = SAMPLES) -> Tensor:
    """RoIAlign (He et al., "Mask R-CNN", 2017), aligned, for boxes of their own in every map. Two small matrix
    products.

    No indexing: deterministic on every device, exact gradients of any order.

    Args:
        maps: (n, C, h, w).
        boxes: (n, C, R, 4) x0, y0, x1, y1 as shares of the side; a box with a NaN gives NaN. No gradient flows into
            boxes.
        size: bins per side. samples: sampling points per bin and direction.

    Returns:
        (n, C, R, size, size), the maps' dtype, at least float32.
    """
    boxes = boxes.detach().to(maps.dtype if maps.dtype == torch.float64 else torch.float32)
    rows = axis_weights(boxes[..., 1], boxes[..., 3], maps.shape[-2], size, samples)
    columns = axis_weights(boxes[..., 0], boxes[..., 2], maps.shape[-1], size, samples)
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps.to(boxes.dtype)[:, :, None] @ columns.mT
