"""Where action units act: two regions each from facial landmarks (Table I of "Lock and Check"), and RoIAlign.

Landmarks are the 98 points of WFLW (Wu et al., "Look at boundary", CVPR 2018): 0-32 outline from the picture's left to
    its
right, 33-41 and 42-50 brows, 51-54 bridge and 55-59 base of the nose, 60-67 and 68-75 eyes, 76-87 outer and 88-95 inner
lips, 96 and 97 pupils. The 68 points of iBUG, which OpenFace and dlib give, are mapped onto them by ``WFLW_FROM_IBUG``.

Table I against that scheme: every index lies where its AU acts. Its two centres are mirror images of each other for all
    AUs
but AU09 (51 and 53, both on the bridge of the nose, one above the other), and AU26 has the picture's right side first
(83, 87).
AU12, AU14 and AU15 share their centres, and so do AU23, AU24 and AU25: regions cannot tell these apart.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..errors import AudferError
from ..facs import ACTION_UNITS
from ..published import load

#: side of a region as a share of the distance between the eyes' centres: ours, the paper does not say
BOX_SHARE = 0.5
#: sampling points a bin and direction in ``roi_align``
SAMPLES = 2

#: the face's three parts, as Table I calls them
GROUPS: tuple[str, ...] = ("Upper Face", "Middle Face", "Lower Face")
#: AUs that Table I lacks, ours: (group, landmarks whose mean is centre 1, landmarks whose mean is centre 2)
OURS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "AU05": ("Upper Face", (61, 62, 63), (69, 70, 71)),  # upper lids
    "AU20": ("Lower Face", (76,), (82,)),  # outer corners of the mouth
    "AU28": ("Lower Face", (78, 86), (80, 84)),  # both lips, beside the middle
    "AU45": ("Upper Face", tuple(range(60, 68)), tuple(range(68, 76))),  # whole eyes, as AU07
}

#: WFLW point -> iBUG points whose mean stands for it. Exact in meaning: every other outline point, the bridge and base
#: of the nose, the mouth, the corners of the eyes and the brows' upper edge. Approximations: the outline's points
#: between (midpoints); the brows' lower edge (iBUG has one line a brow: the point above is taken); the lids (iBUG has
#: two points a lid at thirds, WFLW three at quarters: the outer two are taken as they are, the middle one is their
#: midpoint); the pupils (mean of the eye).
WFLW_FROM_IBUG: tuple[tuple[int, ...], ...] = (
    *((point // 2,) if point % 2 == 0 else (point // 2, point // 2 + 1) for point in range(33)),
    *((point,) for point in (17, 18, 19, 20, 21, 21, 20, 19, 18)),
    *((point,) for point in (22, 23, 24, 25, 26, 25, 24, 23, 22)),
    *((point,) for point in range(27, 36)),
    (36,),
    (37,),
    (37, 38),
    (38,),
    (39,),
    (40,),
    (40, 41),
    (41,),
    (42,),
    (43,),
    (43, 44),
    (44,),
    (45,),
    (46,),
    (46, 47),
    (47,),
    *((point,) for point in range(48, 68)),
    tuple(range(36, 42)),
    tuple(range(42, 48)),
)
_EYES = (tuple(range(60, 68)), tuple(range(68, 76)))


@lru_cache(maxsize=None)
def _table() -> dict[str, tuple[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]]]:
    """AU -> (group, for each of its two centres the landmarks whose mean is x, and those whose mean is y)."""
    regions: dict[str, tuple[str, dict]] = {}
    for row in load("lac_table1_centers").itertuples():
        _, centres = regions.setdefault(row.au, (row.region, {}))
        centres[row.centre, row.axis] = tuple(int(point) for point in str(row.landmarks).split())
    printed = {
        au: (group, tuple((centres[number, "x"], centres[number, "y"]) for number in (1, 2)))
        for au, (group, centres) in regions.items()
    }
    return printed | {au: (group, ((first, first), (second, second))) for au, (group, first, second) in OURS.items()}


def _region(au: str):
    if au not in _table():
        raise AudferError(f"no regions are known for {au!r}, expected one of {', '.join(sorted(_table()))}")
    return _table()[au]


def group_of(action_unit: str) -> str:
    """The part of the face, one of ``GROUPS``, that Table I puts the AU in; for the AUs in ``OURS`` our choice.

    Raises:
        AudferError: an AU that neither names.
    """
    return _region(action_unit)[0]


@lru_cache(maxsize=None)
def _ibug_matrix() -> np.ndarray:
    """(98, 68): WFLW points as means of iBUG points."""
    matrix = np.zeros((98, 68), np.float32)
    for row, points in enumerate(WFLW_FROM_IBUG):
        matrix[row, list(points)] = 1 / len(points)
    return matrix


def _weights(points: tuple[tuple[int, ...], ...], count: int) -> Tensor:
    """(len(points), count): means of WFLW points as weights of ``count`` landmarks."""
    if count not in (68, 98):
        raise AudferError(f"regions need 68 (iBUG) or 98 (WFLW) landmarks, found {count}")
    matrix = np.zeros((len(points), 98), np.float32)
    for row, entries in enumerate(points):
        matrix[row, list(entries)] = 1 / len(entries)
    return torch.from_numpy(matrix if count == 98 else matrix @ _ibug_matrix())


def _combine(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sums over the last axis of ``values``; NaN only where a landmark that counts is NaN."""
    weights = weights.to(values)
    unknown = values.isnan()
    total = values.nan_to_num() @ weights.T
    return total.masked_fill((unknown.to(values.dtype) @ (weights != 0).to(values.dtype).T) > 0, torch.nan)


def to_wflw(landmarks: Tensor) -> Tensor:
    """68 iBUG points -> 98 WFLW points (``WFLW_FROM_IBUG`` says which are approximations); 98 points stay as they are.

    Args:
        landmarks: (..., 68 or 98, 2) floating point; NaN = unknown.

    Returns:
        (..., 98, 2), NaN where a point that is needed is unknown.
    """
    landmarks = _checked(landmarks)
    if landmarks.shape[-2] == 98:
        return landmarks
    return _combine(torch.from_numpy(_ibug_matrix()), landmarks.mT).mT


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


@lru_cache(maxsize=None)
def _mirrored_order() -> tuple[int, ...]:
    """WFLW point -> the point on the other side of the face."""
    order = list(range(98))
    pairs = [
        *((point, 32 - point) for point in range(16)),
        (33, 46),
        (34, 45),
        (35, 44),
        (36, 43),
        (37, 42),
        (38, 50),
        (39, 49),
        (40, 48),
        (41, 47),
        (55, 59),
        (56, 58),
        (60, 72),
        (61, 71),
        (62, 70),
        (63, 69),
        (64, 68),
        (65, 75),
        (66, 74),
        (67, 73),
        (76, 82),
        (77, 81),
        (78, 80),
        (83, 87),
        (84, 86),
        (88, 92),
        (89, 91),
        (93, 95),
        (96, 97),
    ]
    for left, right in pairs:
        order[left], order[right] = right, left
    return tuple(order)


@lru_cache(maxsize=None)
def _swaps(action_units: tuple[str, ...]) -> tuple[bool, ...]:
    """Whether an AU's second centre is the mirror image of its first one (not so for AU09)."""
    order = _mirrored_order()
    return tuple(
        all(
            sorted(order[point] for point in first) == sorted(second)
            for first, second in zip(*_region(au)[1], strict=True)
        )
        for au in action_units
    )


def mirror(boxes: Tensor, action_units: tuple[str, ...] = ACTION_UNITS, width: float = 1.0) -> Tensor:
    """The boxes of the picture flipped from left to right; left and right regions change places, AU09's two do not.

    Args:
        boxes: (..., C, 2, 4) from ``region_boxes``.
        action_units: their C names.
        width: of the picture, in the boxes' unit.

    Returns:
        The same shape: what ``region_boxes`` gives for the flipped picture's landmarks.
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    flipped = torch.stack((width - x1, y0, width - x0, y1), dim=-1)
    swap = torch.tensor(_swaps(tuple(action_units)), device=boxes.device)[:, None, None]
    return torch.where(swap, flipped.flip(-2), flipped)


# ----------------------------------------------------------------------------------------------------------- RoIAlign


def axis_weights(low: Tensor, high: Tensor, cells: int, size: int, samples: int = SAMPLES) -> Tensor:
    """RoIAlign along one axis: what each of ``cells`` cells counts in each of ``size`` bins between ``low`` and
    ``high``.

    Bilinear sampling is separable and so is the grid of sampling points, hence RoIAlign is ``rows @ map @ columns.T``.

    Args:
        low, high: (...) ends of the interval, shares of the map's side (0..1); NaN gives NaN.
        cells: of the map along this axis; cell i has its centre at (i + 0.5) / cells (the aligned, half-pixel
            convention).
        size: bins. samples: sampling points a bin.

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
        size: bins a side. samples: sampling points a bin and direction.

    Returns:
        (n, C, R, size, size), the maps' dtype, at least float32.
    """
    boxes = boxes.detach().to(maps.dtype if maps.dtype == torch.float64 else torch.float32)
    rows = axis_weights(boxes[..., 1], boxes[..., 3], maps.shape[-2], size, samples)
    columns = axis_weights(boxes[..., 0], boxes[..., 2], maps.shape[-1], size, samples)
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps.to(boxes.dtype)[:, :, None] @ columns.mT
