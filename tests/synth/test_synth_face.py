"""The renderer: same bytes for the same input, AUs that act where they should, landmarks that follow the pixels."""

from __future__ import annotations

import pytest
import torch

from audfer import facs
from audfer.errors import InputError
from audfer.synth.face import au_region, neutral_scene, render, sample_identities
from audfer.synth.sheets import contact_sheet

JAW_TIP, BROW_INNER, BROW_OUTER, NOSE_TIP = 8, (21, 22), (17, 26), 30
EYE_UPPER, EYE_LOWER, MOUTH_CORNERS, LIP_IN_UP, LIP_IN_LOW = (37, 38, 43, 44), (41, 40, 47, 46), (48, 54), 62, 66


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def units(count: int = 1, **intensity: float) -> torch.Tensor:
    """(count, 18) zeros but for the AUs named."""
    rows = torch.zeros(count, 18)
    for name, value in intensity.items():
        rows[:, facs.ACTION_UNITS.index(name)] = value
    return rows


def busy_scene(count: int, seed: int = 0):
    """Everything at once: pose, light, blur, noise, occluders."""
    generator = torch.Generator().manual_seed(seed)
    scene = neutral_scene(count)
    for name, reach in (("yaw", 0.6), ("pitch", 0.3), ("roll", 0.3), ("shift_x", 0.08), ("shift_y", 0.08)):
        setattr(scene, name, reach * (2 * torch.rand(count, generator=generator) - 1))
    scene.scale = 0.8 + 0.4 * torch.rand(count, generator=generator)
    scene.blur = torch.arange(count) % 2 * 0.8
    scene.noise = torch.arange(count) % 3 * 0.02
    scene.occluder[:, 0] = torch.arange(count) % 4
    scene.occluder[:, 1:] = torch.tensor([0.5, 0.7, 0.3, 0.3])
    scene.gaze = 2 * torch.rand(count, 2, generator=generator) - 1
    return scene


def moved(size: int = 64, person: int = 0, **intensity: float) -> torch.Tensor:
    """Landmark displacement (68, 2) in pixels that an AU makes on one frontal face."""
    people = sample_identities(4, seed=1)[[person, person]]
    _, points = render(people, torch.cat([units(), units(**intensity)]), neutral_scene(2), size)
    return points[1] - points[0]


def test_same_input_gives_the_same_bytes():
    rows = 5 * torch.rand(12, 18, 2, generator=torch.Generator().manual_seed(0))
    first = render(sample_identities(12, seed=4), rows, busy_scene(12), 48)
    again = render(sample_identities(12, seed=4), rows, busy_scene(12), 48)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    other = render(sample_identities(12, seed=5), rows, busy_scene(12), 48)
    assert not torch.equal(first[0], other[0])


def test_a_frame_does_not_depend_on_its_batch_chunk_or_thread():
    people, scene = sample_identities(9, seed=4), busy_scene(9)
    rows = 5 * torch.rand(9, 18, generator=torch.Generator().manual_seed(1))
    whole, points = render(people, rows, scene, 48)
    torch.set_num_threads(2)
    parts, part_points = render(people, rows, scene, 48, chunk=2)
    torch.set_num_threads(1)
    alone, alone_points = render(people[7], rows[7:8], scene[7], 48)
    assert torch.equal(whole, parts) and torch.equal(whole[7:8], alone)
    assert torch.allclose(points, part_points, atol=1e-4) and torch.allclose(points[7:8], alone_points, atol=1e-4)


@pytest.mark.parametrize("name", facs.ACTION_UNITS)
def test_an_action_unit_changes_the_picture_monotonically_and_in_its_region(name):
    people, steps = sample_identities(12, seed=9)[[0, 3, 6, 9]], 6
    rows = torch.zeros(4, steps, 18)
    rows[:, :, facs.ACTION_UNITS.index(name)] = torch.linspace(0, 5, steps)
    images, points = render(
        people[torch.arange(4).repeat_interleave(steps)], rows.view(-1, 18), neutral_scene(4 * steps), 64
    )
    images, points = images.view(4, steps, 64, 64, 3).float(), points.view(4, steps, 68, 2)
    change = (images - images[:, :1]).abs().sum(4)
    total = change.sum((2, 3))
    assert (total.diff(dim=1) > 0).all(), total
    for person in range(4):
        region = au_region(name, points[person, 0], 64)
        assert region.float().mean() < 0.30
        share = (change[person, -1] * region).sum() / total[person, -1]
        assert share >= 0.70, f"{name}: {share:.2f} of the change inside"


def test_one_sided_intensities_change_that_half_only():
    people = sample_identities(3, seed=2)
    rows = torch.zeros(3, 18, 2)
    rows[1:, facs.ACTION_UNITS.index("AU02"), 0] = 5
    rows[2, facs.ACTION_UNITS.index("AU02"), 1] = 5
    images, _ = render(people[[1, 1, 1]], rows, neutral_scene(3), 64)
    change = (images[1].float() - images[0].float()).abs().sum(2)
    assert change[:, :32].sum() > 20 * change[:, 32:].sum()
    both, _ = render(people[[1]], units(AU02=5), neutral_scene(1), 64)
    assert torch.equal(both[0], images[2])


def test_jaw_drop_lowers_the_chin_and_opens_the_mouth():
    shift = moved(AU26=5)
    assert shift[JAW_TIP, 1] > 2.5
    assert shift[LIP_IN_LOW, 1] - shift[LIP_IN_UP, 1] > 2.5
    assert shift[list(EYE_UPPER)].abs().max() < 0.05


def test_smile_moves_the_corners_up_and_out():
    left, right = moved(AU12=5)[list(MOUTH_CORNERS)]
    assert left[1] < -1.5 and right[1] < -1.5
    assert left[0] < -1 and right[0] > 1
    sad = moved(AU15=5)[list(MOUTH_CORNERS)]
    assert (sad[:, 1] > 1).all()


def test_brow_raisers_move_their_end_of_the_brow():
    inner, outer = moved(AU01=5), moved(AU02=5)
    assert (inner[list(BROW_INNER), 1] < -2).all() and inner[list(BROW_OUTER), 1].abs().max() < 0.6
    assert (outer[list(BROW_OUTER), 1] < -2).all() and outer[list(BROW_INNER), 1].abs().max() < 1
    lowered = moved(AU04=5)[list(BROW_INNER)]
    assert (lowered[:, 1] > 1.5).all() and lowered[0, 0] > 0.5 and lowered[1, 0] < -0.5


def test_blink_brings_the_lids_together_and_au05_moves_them_apart():
    people = sample_identities(4, seed=1)[[0, 0, 0]]
    _, points = render(people, torch.cat([units(), units(AU45=5), units(AU05=5)]), neutral_scene(3), 64)
    opening = (points[:, list(EYE_LOWER), 1] - points[:, list(EYE_UPPER), 1]).mean(1)
    assert opening[1] < 0.1 * opening[0] and opening[2] > 1.25 * opening[0]


def test_pose_moves_the_landmarks_with_the_head():
    scene = neutral_scene(5)
    scene.yaw[1], scene.pitch[2], scene.roll[3], scene.shift_x[4] = 0.4, 0.25, 0.3, 0.1
    people = sample_identities(3, seed=1)[[0] * 5]
    _, points = render(people, units(5), scene, 100)
    nose = points[:, NOSE_TIP] - points[0, NOSE_TIP]
    assert nose[1, 0] > 10 and nose[2, 1] > 5
    # the nose leads, the outline follows: that is what makes it a turn and not a shift
    assert nose[1, 0] > 2 * (points[1, [0, 16], 0] - points[0, [0, 16], 0]).mean().abs()
    eyes = points[3, 45] - points[3, 36]
    assert torch.atan2(eyes[1], eyes[0]) == pytest.approx(0.3, abs=0.03)
    assert torch.allclose(points[4] - points[0], torch.tensor([10.0, 0.0]).expand(68, 2), atol=1e-3)


def test_landmarks_lie_on_what_they_name():
    people = sample_identities(30, seed=3)
    people = people[torch.nonzero((people.skin_tone < 4) & (people.glasses < 1))[:, 0]]
    count = len(people)
    scene = neutral_scene(count)
    scene.yaw = torch.linspace(-0.4, 0.4, count)
    scene.roll = torch.linspace(0.2, -0.2, count)
    images, points = render(people, units(count), scene, 128)
    grey = images.float().mean(3)

    def brightness(place):
        x, y = place.round().long().clamp(1, 126).unbind(1)
        rows = torch.arange(count)
        return torch.stack([grey[rows, y + i, x + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]).mean(0)

    cheek = brightness((points[:, 2] + points[:, 33]) / 2)
    for eye in (range(36, 42), range(42, 48)):
        pupil = points[:, list(eye)].mean(1)
        assert (brightness(pupil) < 0.75 * cheek).all()
    # the red of the lips: more red against green than the cheek has
    x, y = points[:, 57].round().long().unbind(1)
    lip = images[torch.arange(count), y - 2, x].float()
    cheek_x, cheek_y = ((points[:, 4] + points[:, 33]) / 2).round().long().unbind(1)
    skin = images[torch.arange(count), cheek_y, cheek_x].float()
    assert ((lip[:, 0] / lip[:, 1]) > (skin[:, 0] / skin[:, 1])).float().mean() > 0.9


def test_skin_tones_come_evenly_and_darken():
    people = sample_identities(40, seed=0)
    assert torch.bincount(people.skin_tone.long(), minlength=10).tolist() == [4] * 10
    images, points = render(people, units(40), neutral_scene(40), 64)
    cheek = ((points[:, 3] + points[:, 31]) / 2).round().long()
    light = images[torch.arange(40), cheek[:, 1], cheek[:, 0]].float().mean(1)
    means = torch.stack([light[people.skin_tone == tone].mean() for tone in range(10)])
    assert (means.diff() < 6).all() and means[0] > 2 * means[9]


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_an_occluder_covers_its_place_and_nothing_else(kind):
    scene = neutral_scene(2)
    scene.occluder[1] = torch.tensor([kind, 0.5, 0.7, 0.4, 0.3])
    images, _ = render(sample_identities(2, seed=0)[[0, 0]], units(2), scene, 64)
    change = (images[1].float() - images[0].float()).abs().sum(2) > 0
    inside = change[37:52, 21:43]
    assert inside.float().mean() > 0.35
    assert not change[:30].any() and not change[60:].any() and not change[:, :16].any() and not change[:, 48:].any()


def test_noise_depends_on_the_seed_and_has_the_given_strength():
    scene = neutral_scene(4)
    scene.noise[1:] = 0.05
    scene.seed[:] = torch.tensor([0, 7, 7, 8])
    images = render(sample_identities(1, seed=0)[[0] * 4], units(4), scene, 64)[0].float()
    assert torch.equal(images[1], images[2]) and not torch.equal(images[1], images[3])
    background = (images[1] - images[0])[5:20, :4]
    assert background.std() / 255 == pytest.approx(0.05, rel=0.2)


def test_blur_keeps_the_mean_and_removes_detail():
    scene = neutral_scene(2)
    scene.blur[1] = 1.5
    images = render(sample_identities(1, seed=0)[[0, 0]], units(2), scene, 64)[0].float()
    assert images[1].mean() == pytest.approx(images[0].mean().item(), abs=1.0)
    assert images[1].diff(n=2, dim=1).abs().mean() < 0.5 * images[0].diff(n=2, dim=1).abs().mean()


@pytest.mark.parametrize("size", [32, 48, 112])
def test_sizes_agree_after_shrinking(size):
    people, scene = sample_identities(6, seed=3), neutral_scene(6)
    scene.yaw = torch.linspace(-0.4, 0.4, 6)
    rows = 4 * torch.rand(6, 18, generator=torch.Generator().manual_seed(2))
    large, far = render(people, rows, scene, 224)
    small, near = render(people, rows, scene, size)
    shrunk = torch.nn.functional.interpolate(large.permute(0, 3, 1, 2).float(), size, mode="area").permute(0, 2, 3, 1)
    assert (shrunk - small.float()).abs().mean() < 5
    assert torch.allclose(far * size / 224, near, atol=1e-3)


def test_gaze_moves_the_iris():
    scene = neutral_scene(2)
    scene.gaze[0, 0], scene.gaze[1, 0] = -1, 1
    people = sample_identities(20, seed=3)
    person = int(torch.nonzero((people.skin_tone < 3) & (people.glasses < 1))[0])
    images, points = render(people[[person, person]], units(2), scene, 128)
    x0, x1 = points[0, 36, 0].int(), points[0, 39, 0].int() + 1
    y0, y1 = points[0, 37, 1].int(), points[0, 41, 1].int() + 1
    darkness = 255 - images[:, y0:y1, x0:x1].float().mean((1, 3))
    centre = (darkness * torch.arange(darkness.shape[1])).sum(1) / darkness.sum(1)
    assert centre[1] > centre[0] + 0.5


def test_people_and_scenes_can_be_indexed_and_repeat_with_their_seed():
    people = sample_identities(10, seed=6)
    assert len(people[torch.tensor([1, 1, 2])]) == 3 and len(people[2:5]) == 3 and len(people[4]) == 1
    assert torch.equal(people[[3]].skin, sample_identities(10, seed=6).skin[3:4])
    scene = neutral_scene(10)
    assert len(scene[torch.arange(10) > 6]) == 3 and scene[[2]].seed.tolist() == [2]


def test_contact_sheet_has_every_action_unit_and_expression():
    sheet = contact_sheet(seed=0, size=32)
    assert sheet["action_units"].shape == (18, 3, 3, 19, 32, 3)
    assert sheet["expressions"].shape == (7, 7, 32, 32, 3)
    assert len(sheet["action_unit_rows"]) == 18 and sheet["intensity_columns"] == ["0", "3", "5"]
    assert sheet["expression_rows"] == list(facs.EXPRESSIONS) and len(sheet["moment_columns"]) == 7
    rest = sheet["action_units"][:, :, 0]
    for step in (1, 2):
        assert (abs(sheet["action_units"][:, :, step].astype(int) - rest).sum((1, 2, 3, 4)) > 0).all()


def test_a_contact_sheet_shows_the_same_people_at_every_action_unit_where_it_acts():
    pictures = contact_sheet(seed=3)["action_units"].astype(int)
    share = (abs(pictures[:, :, 2] - pictures[:, :, 0]).max(-1) > 16).mean((2, 3))  # (AU, person)
    # of whole faces AU23 and AU28 change 1 %
    assert (share > 0.025).all() and (share[[4, 13, 16]] > 0.035).all(), share.min(1).round(3)
    height, names = pictures.shape[3], range(18)
    for person in range(3):
        rest = pictures[:, person, 0]
        same = {
            (i, j) for i in names for j in names for down in range(height - 8)
            if (rest[i, down:] == rest[j, : height - down]).all()
        }  # fmt: skip
        reached, new = {0}, {0}
        while new:
            new = {b for pair in same for a, b in (pair, pair[::-1]) if a in reached} - reached
            reached |= new
        assert reached == set(names), "the faces at rest are cuts of one picture"


def test_wrong_shapes_are_refused_with_a_sentence():
    people, scene = sample_identities(2, seed=0), neutral_scene(2)
    with pytest.raises(InputError, match="shape of action_units"):
        render(people, torch.zeros(2, 17), scene)
    with pytest.raises(InputError, match="shape of action_units"):
        render(people, torch.zeros(3, 18), scene)
    with pytest.raises(InputError, match="length of scene"):
        render(people, torch.zeros(2, 18), neutral_scene(3))
    with pytest.raises(InputError, match="size"):
        render(people, torch.zeros(2, 18), scene, size=8)
    with pytest.raises(InputError, match="not finite"):
        render(people, torch.full((2, 18), float("nan")), scene)
    with pytest.raises(InputError, match="au_name"):
        au_region("AU03", torch.zeros(68, 2), 64)
    with pytest.raises(InputError, match="landmarks"):
        au_region("AU01", torch.zeros(5, 2), 64)
    with pytest.raises(InputError, match="count"):
        sample_identities(0, seed=0)
