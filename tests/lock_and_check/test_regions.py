"""Regions of action units: Table I's centres, mirrored faces, unknown landmarks, and RoIAlign against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from audfer.errors import AudferError
from audfer.facs import ACTION_UNITS
from audfer.lock_and_check.regions import (
    BOX_SHARE,
    GROUPS,
    OURS,
    axis_weights,
    eye_distance,
    group_of,
    landmark_boxes,
    region_boxes,
    region_centres,
    roi_align,
    wflw_from_ibug,
)
from audfer.published import load
from audfer.training.augmentation import MIRRORED

TABLE_1 = tuple(dict.fromkeys(load("lac_table1_centers")["au"]))
EVERY_AU = tuple(sorted({*TABLE_1, *ACTION_UNITS}))
#: iBUG point -> the point on the other side
IBUG_MIRROR = list(MIRRORED)


def points(count: int, frames: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(frames, count, 2, generator=torch.Generator().manual_seed(seed))


def test_centres_are_what_table_1_prints():
    """Every formula of the transcription, evaluated as text."""
    landmarks = points(98)
    centres = region_centres(landmarks, TABLE_1)
    for row in load("lac_table1_centers").itertuples():
        axis = "xy".index(row.axis)
        numbers = [landmarks[:, int(index), axis] for index in row.landmarks.split()]
        expected = {
            "single": lambda: numbers[0],
            "midpoint": lambda: (numbers[0] + numbers[1]) / 2,
            "range mean": lambda: sum(numbers) / len(numbers),
        }[row.form]()
        torch.testing.assert_close(centres[:, TABLE_1.index(row.au), row.centre - 1, axis], expected)


def test_every_action_unit_has_regions_and_a_group_and_ours_are_those_that_table_1_lacks():
    assert set(OURS) == set(ACTION_UNITS) - set(TABLE_1)
    assert {group_of(au) for au in EVERY_AU} == set(GROUPS)
    printed = load("lac_table1_centers").set_index("au")["region"]
    assert all(group_of(au) == printed[au].iloc[0] for au in TABLE_1)
    with pytest.raises(AudferError, match="AU99"):
        group_of("AU99")


def to_wflw(landmarks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(wflw_from_ibug()) @ landmarks


def test_68_points_become_98():
    landmarks = points(68)
    wflw = to_wflw(landmarks)
    assert wflw.shape == (3, 98, 2)
    torch.testing.assert_close(wflw[:, 16], landmarks[:, 8])  # chin
    torch.testing.assert_close(wflw[:, 1], landmarks[:, :2].mean(1))
    torch.testing.assert_close(wflw[:, 76:96], landmarks[:, 48:68])  # mouth
    torch.testing.assert_close(wflw[:, 62], landmarks[:, 37:39].mean(1))
    torch.testing.assert_close(region_centres(wflw), region_centres(landmarks))
    assert (wflw_from_ibug() > 0).any(axis=0).all()  # every iBUG point is used


def test_boxes_are_squares_of_half_the_eyes_distance():
    landmarks = points(68)
    boxes = landmark_boxes(landmarks)
    eyes = (landmarks[:, 42:48].mean(1) - landmarks[:, 36:42].mean(1)).norm(dim=-1)
    # WFLW's eye means weigh the lids a little more than the corners
    torch.testing.assert_close(eye_distance(landmarks), eye_distance(to_wflw(landmarks)))
    assert (eye_distance(landmarks) - eyes).abs().max() < 0.1
    torch.testing.assert_close(
        (boxes[..., 2:] - boxes[..., :2]),
        (BOX_SHARE * eye_distance(landmarks))[:, None, None, None].expand(3, 18, 2, 2),
    )
    torch.testing.assert_close((boxes[..., 2:] + boxes[..., :2]) / 2, region_centres(landmarks))
    assert torch.equal(region_boxes(region_centres(landmarks), eye_distance(landmarks)), boxes)


def test_an_unknown_landmark_makes_only_the_regions_that_need_it_unknown():
    landmarks = points(98, frames=2)
    landmarks[0, 83] = torch.nan  # AU26's first centre only
    landmarks[1] = torch.nan
    centres = region_centres(landmarks)
    unknown = centres.isnan().any(dim=-1)
    assert unknown[1].all()
    assert unknown[0].nonzero().tolist() == [[ACTION_UNITS.index("AU26"), 0]]
    landmarks = points(98, frames=1)
    landmarks[0, 70] = torch.nan  # an eye: no distance, no box at all
    assert landmark_boxes(landmarks).isnan().all()


def test_a_mirrored_face_has_mirrored_boxes_in_which_left_and_right_have_changed_places():
    landmarks = points(68)
    flipped = landmarks[:, IBUG_MIRROR] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    image = landmark_boxes(landmarks, EVERY_AU)
    image[..., [0, 2]] = 1 - image[..., [2, 0]]
    found = landmark_boxes(flipped, EVERY_AU)
    for index, au in enumerate(EVERY_AU):  # AU09's boxes, both on the bridge of the nose, stay first and second
        torch.testing.assert_close(found[:, index], image[:, index] if au == "AU09" else image[:, index].flip(1))


def test_regions_lie_on_the_rendered_face_where_their_action_unit_acts():
    """On embedded faces each box overlaps the ellipses in which the renderer moves that AU."""
    from audfer.synth.face import au_region, neutral_scene, render, sample_identities

    _, landmarks = render(sample_identities(3, seed=0), torch.zeros(3, 18), neutral_scene(3), size=96)
    boxes = landmark_boxes(landmarks).round().long().clamp(0, 96)
    for person in range(3):
        for index, au in enumerate(ACTION_UNITS):
            region = au_region(au, landmarks[person], 96)
            shares = [region[y0:y1, x0:x1].float().mean() for x0, y0, x1, y1 in boxes[person, index].tolist()]
            assert min(shares) > 0.25, (au, shares)


# ----------------------------------------------------------------------------------------------------------- RoIAlign


def slow_roi_align(image: np.ndarray, box, size: int, samples: int) -> np.ndarray:
    """One map, one box, point after point, as Mask R-CNN's authors define it (aligned)."""
    height, width = image.shape

    def at(y: float, x: float) -> float:
        if y < -1 or y > height or x < -1 or x > width:
            return 0.0
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = min(int(math.floor(y)), height - 1), min(int(math.floor(x)), width - 1)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        down, across = y - top, x - left
        return (
            (1 - down) * (1 - across) * image[top, left]
            + (1 - down) * across * image[top, right]
            + down * (1 - across) * image[bottom, left]
            + down * across * image[bottom, right]
        )

    x0, y0, x1, y1 = box[0] * width - 0.5, box[1] * height - 0.5, box[2] * width - 0.5, box[3] * height - 0.5
    result = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            values = [
                at(
                    y0 + (row + (i + 0.5) / samples) * (y1 - y0) / size,
                    x0 + (column + (j + 0.5) / samples) * (x1 - x0) / size,
                )
                for i in range(samples)
                for j in range(samples)
            ]
            result[row, column] = np.mean(values)
    return result


@pytest.mark.parametrize("size, samples", [(1, 1), (3, 2), (2, 4)])
def test_roi_align_equals_the_loop(size, samples):
    generator = torch.Generator().manual_seed(size)
    maps = torch.randn(2, 3, 7, 5, generator=generator, dtype=torch.float64)
    corner = torch.rand(2, 3, 2, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.4  # also partly outside
    boxes = torch.cat(
        (corner, corner + 0.05 + torch.rand(2, 3, 2, 2, generator=generator, dtype=torch.float64)), dim=-1
    )
    found = roi_align(maps, boxes, size, samples)
    assert found.shape == (2, 3, 2, size, size)
    for n in range(2):
        for c in range(3):
            for r in range(2):
                # boxes are computed with in float64 for float64 maps
                expected = slow_roi_align(maps[n, c].numpy(), boxes[n, c, r].tolist(), size, samples)
                np.testing.assert_allclose(found[n, c, r].numpy(), expected, atol=1e-12)


def test_roi_align_of_a_box_that_is_a_cell_is_the_cell():
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    box = torch.tensor([2 / 4, 1 / 3, 3 / 4, 2 / 3]).reshape(1, 1, 1, 4)
    torch.testing.assert_close(roi_align(maps, box, 1, 1).flatten(), torch.tensor([6.0]))


def test_roi_align_has_exact_gradients_no_gradient_for_boxes_and_says_nan_for_nan():
    maps = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([0.1, 0.2, 0.6, 0.9], dtype=torch.float64).repeat(1, 2, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: roi_align(m, boxes.detach(), 2), maps)
    roi_align(maps, boxes, 2).sum().backward()
    assert boxes.grad is None
    unknown = boxes.detach().clone()
    unknown[0, 0, 0, 1] = torch.nan
    nan = roi_align(maps.detach(), unknown, 2).isnan()
    assert nan[0, 0, 0].all() and not nan[0, 0, 1].any() and not nan[0, 1].any()


def test_weights_of_a_bin_inside_the_map_add_up_to_one():
    weights = axis_weights(torch.tensor([0.3]), torch.tensor([0.8]), 6, 3)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 3))


def test_other_numbers_of_landmarks_are_refused():
    with pytest.raises(AudferError, match=r"\(1, 5, 2\)"):
        region_centres(torch.zeros(1, 5, 2))
