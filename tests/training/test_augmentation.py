"""Clip augmentation: one transform a clip, the distributions of the SPEC's words, and Pillow's pictures."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import binomtest, ks_2samp, kstest

from audfer.errors import InputError
from audfer.training import augmentation
from audfer.training.augmentation import (
    MIRRORED,
    OPERATIONS,
    Augmentation,
    augment,
    augment_with_points,
    draw_erasing,
    draw_operations,
    mix,
    mixed_targets,
)
from audfer.training.recipes import RECIPES

M3DFEL, FORMER, MAE, TINY = (
    RECIPES[name].augmentation for name in ("m3dfel-paper", "former_dfer-paper", "mae_dfer-paper", "m3dfel-tiny")
)
KINDS = {"m3dfel": M3DFEL, "former_dfer": FORMER, "mae_dfer": MAE, "tiny": TINY}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plausible(successes, trials, probability):
    return binomtest(int(successes), trials, probability).pvalue > 1e-3


@pytest.fixture(scope="module")
def picture():
    """A smooth coloured picture (64, 64, 3) uint8 with all hues and some texture."""
    row, column = np.mgrid[0:64, 0:64] / 63
    waves = [
        0.5 + 0.45 * np.sin(2 * math.pi * (a * row + b * column) + c)
        for a, b, c in ((1, 0.5, 0), (0.3, 1, 2), (1.2, -0.7, 4))
    ]
    return (255 * np.stack(waves, -1)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def clips(picture):
    """(8, 3, 3, 64, 64) uint8: eight clips of three frames, all of them the same picture."""
    return torch.from_numpy(picture).permute(2, 0, 1).expand(8, 3, 3, 64, 64).contiguous()


# ------------------------------------------------------------------------------------------------- what all have


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_a_clip_move_alike_and_clips_differently(clips, kind):
    without_noise = replace(KINDS[kind], erase=0.0)
    moved = augment(clips, without_noise, generator(1))
    assert moved.shape == clips.shape and moved.dtype == torch.float32
    assert moved.min() >= 0 and moved.max() <= 1
    for frame in (1, 2):
        torch.testing.assert_close(moved[:, frame], moved[:, 0])
    assert len({tuple(clip[0].flatten()[::97].tolist()) for clip in moved}) == len(clips)


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_decides_everything(clips, kind):
    global_state = torch.get_rng_state()
    first, again, other = (augment(clips, KINDS[kind], generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(global_state, torch.get_rng_state())  # nothing is drawn behind our back


def test_nothing_asked_for_only_scales(clips):
    torch.testing.assert_close(augment(clips, Augmentation(), generator()), clips / 255)
    assert augment(clips, Augmentation(), generator(), size=32).shape[-1] == 32


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_has_the_size_that_the_network_takes(clips, kind):
    assert augment(clips, KINDS[kind], generator(), size=40).shape == (8, 3, 3, 40, 40)


def test_a_flip_is_a_mirror_image_of_half_the_clips(clips):
    moved = augment(clips.repeat(25, 1, 1, 1, 1), Augmentation("flip", flip=0.5), generator())
    flipped = (moved - clips[0].flip(-1) / 255).abs().amax((1, 2, 3, 4)) < 1e-4
    straight = (moved - clips[0] / 255).abs().amax((1, 2, 3, 4)) < 1e-4
    assert (flipped ^ straight).all() and plausible(flipped.sum(), 200, 0.5)


def test_an_unknown_crop_is_refused():
    with pytest.raises(InputError, match="crop: found 'centre', expected one of none, mild, swapped, log"):
        Augmentation(crop="centre")


# --------------------------------------------------------------------------------------------------------- crops


def random_sized_crop(side, rng):
    """The SPEC's words as a loop: "area fraction uniform 0.08..1, aspect ratio uniform 3/4..4/3, then width and height
    swapped with probability 0.5, up to 10 tries, otherwise short-side resize and random crop" (of a square: all of it).
    """
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * side * side
        aspect = rng.uniform(3 / 4, 4 / 3)
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rng.random() < 0.5:
            width, height = height, width
        if width <= side and height <= side:
            return rng.randint(0, side - width), rng.randint(0, side - height), width, height
    return 0, 0, side, side


def random_resized_crop(side, rng):
    """ "random resized crop (area 0.08..1, ratio 0.75..1.3333)": the usual one, its ratio uniform on a log scale."""
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * side * side
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if width <= side and height <= side:
            return rng.randint(0, side - width), rng.randint(0, side - height), width, height
    return 0, 0, side, side


@pytest.mark.parametrize(
    "numbers, reference", [(FORMER, random_sized_crop), (M3DFEL, random_sized_crop), (MAE, random_resized_crop)]
)
def test_crops_have_the_sizes_shapes_and_places_of_the_official_ones(numbers, reference):
    side, count = 160, 6000
    box, flipped = augmentation._draw_crops(count, side, numbers, generator(5))
    ours = (box * side).round().numpy()
    rng = random.Random(7)
    theirs = np.array([reference(side, rng) for _ in range(count)], float)
    for name, value in (
        ("width", lambda b: b[:, 2]),
        ("height", lambda b: b[:, 3]),
        ("area", lambda b: b[:, 2] * b[:, 3]),
        ("aspect", lambda b: b[:, 2] / b[:, 3]),
        ("left", lambda b: b[:, 0]),
        ("top", lambda b: b[:, 1]),
        ("right gap", lambda b: side - b[:, 0] - b[:, 2]),
    ):
        assert ks_2samp(value(ours), value(theirs)).pvalue > 1e-3, name
    assert ((ours[:, :2] >= 0) & (ours[:, :2] + ours[:, 2:] <= side)).all()
    assert plausible(flipped.sum(), count, 0.5)


def test_a_crop_that_never_fits_becomes_the_whole_picture():
    long = replace(FORMER, crop_area=(0.9, 1.0), crop_aspect=(3.9, 4.0))
    box, _ = augmentation._draw_crops(50, 100, long, generator())
    assert torch.equal(box, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(50, 4))


def test_the_mild_crop_keeps_between_85_and_100_percent_where_it_fits():
    box, flipped = augmentation._draw_crops(4000, 48, TINY, generator())
    area, aspect = box[:, 2] * box[:, 3], box[:, 2] / box[:, 3]
    whole_side = (box[:, 2:] == 1).any(1)
    assert (area[~whole_side] >= 0.85 - 1e-6).all() and (area <= 1).all()
    assert aspect.min() >= 3 / 4 - 1e-6 and aspect.max() <= 4 / 3 + 1e-6 and (box[:, :2] + box[:, 2:] <= 1 + 1e-6).all()
    assert plausible(flipped.sum(), 4000, 0.5)


def test_a_crop_shows_what_pillow_shows(picture, clips):
    box, flipped = augmentation._draw_crops(8, 64, FORMER, generator(2))
    moved = augment(clips, FORMER, generator(2), size=64)
    for clip, (x, y, width, height), mirror in zip(moved, (box * 64).round().int().tolist(), flipped, strict=True):
        crop = Image.fromarray(picture).crop((x, y, x + width, y + height)).resize((64, 64), Image.BILINEAR)
        crop = ImageOps.mirror(crop) if mirror else crop
        difference = np.abs(clip[0].permute(1, 2, 0).numpy() * 255 - np.asarray(crop))
        assert difference[2:-2, 2:-2].max() < 1.5


# ------------------------------------------------------------------------------------------------------- colours


def as_clips(picture, count=1):
    return torch.from_numpy(picture).permute(2, 0, 1).float().div(255).expand(count, 2, 3, *picture.shape[:2])


def in_bytes(clips):
    return clips[0, 0].permute(1, 2, 0).numpy() * 255


PILLOW_ADJUSTMENTS = [
    lambda image, x: ImageEnhance.Brightness(image).enhance(x),
    lambda image, x: ImageEnhance.Contrast(image).enhance(x),
    lambda image, x: ImageEnhance.Color(image).enhance(x),
]


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("factor", [0.6, 0.9, 1.4])
def test_brightness_contrast_and_saturation_are_pillows(picture, place, factor):
    ours = in_bytes(augmentation._ADJUSTMENTS[place](as_clips(picture), torch.tensor([factor])))
    theirs = np.asarray(PILLOW_ADJUSTMENTS[place](Image.fromarray(picture), factor), float)
    assert np.abs(ours - theirs).max() < 2


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.25, 0.4])
def test_the_hue_turn_is_pillows_shift_of_the_hue_channel(picture, turn):
    ours = in_bytes(augmentation._ADJUSTMENTS[3](as_clips(picture), torch.tensor([turn])))
    hue, saturation, value = Image.fromarray(picture).convert("HSV").split()
    shifted = Image.fromarray(((np.asarray(hue, int) + round(turn * 255)) % 256).astype(np.uint8))
    theirs = np.asarray(Image.merge("HSV", (shifted, saturation, value)).convert("RGB"), float)
    # Pillow rounds hue and saturation down to 255 steps: one of the hue is up to 6 of a colour's 255, and it does so
    # twice
    assert np.abs(ours - theirs).max() < 13 and np.abs(ours - theirs).mean() < 1.5


def test_jitter_draws_its_factors_and_orders_uniformly(monkeypatch):
    count, seen = 4800, []

    def spy(kind):
        def change(clips, amount):
            seen.append((kind, clips[:, 0, 0, 0, 0].long(), amount))
            return clips

        return change

    monkeypatch.setattr(augmentation, "_ADJUSTMENTS", tuple(spy(kind) for kind in range(4)))
    numbered = torch.arange(count).float().view(-1, 1, 1, 1, 1).expand(-1, 1, 3, 1, 1)
    augmentation.colour_jitter(numbered, M3DFEL, generator(8))
    order = [[] for _ in range(count)]
    for kind, who, _ in seen:
        for clip in who.tolist():
            order[clip].append(kind)
    frequency = np.unique(order, axis=0, return_counts=True)[1]
    assert len(frequency) == 24 and all(plausible(found, count, 1 / 24) for found in frequency)
    for kind in range(4):
        amounts = torch.cat([amount for found, _, amount in seen if found == kind]).numpy()
        low, width = (-0.4, 0.8) if kind == 3 else (0.6, 0.8)
        assert len(amounts) == count and kstest(amounts, "uniform", (low, width)).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------------- RandAugment


def test_rand_augment_draws_four_of_fifteen_with_replacement_and_does_half_of_them():
    assert len(OPERATIONS) == 15
    count = 15000
    kinds, level, sign = draw_operations(count, MAE, generator(4))
    assert kinds.shape == level.shape == sign.shape == (count, 4)
    done = kinds[kinds >= 0]
    assert plausible(len(done), 4 * count, 0.5)
    for kind in range(15):
        assert plausible((done == kind).sum(), len(done), 1 / 15)
    both = (kinds[:, 0] >= 0) & (kinds[:, 1] >= 0)
    assert plausible((kinds[both, 0] == kinds[both, 1]).sum(), int(both.sum()), 1 / 15)  # with replacement
    assert kstest(10 * level.flatten().numpy(), "norm", (7, 0.5)).pvalue > 1e-3 and level.max() <= 1
    assert plausible((sign > 0).sum(), sign.numel(), 0.5)


GREY = (128, 128, 128)


def warp(image, *entries):
    return image.transform(image.size, Image.AFFINE, entries, Image.BICUBIC, fillcolor=GREY)


#: level 0.7, negative sign; written with Pillow from timm's table of magnitudes
PILLOW_OPERATIONS = {
    "AutoContrast": ImageOps.autocontrast,
    "Equalize": ImageOps.equalize,
    "Invert": ImageOps.invert,
    "Rotate": lambda image: image.rotate(-21, Image.BICUBIC, fillcolor=GREY),
    "PosterizeIncreasing": lambda image: ImageOps.posterize(image, 4 - int(0.7 * 4)),
    "SolarizeIncreasing": lambda image: ImageOps.solarize(image, 256 - int(0.7 * 256)),
    "SolarizeAdd": lambda image: Image.fromarray(
        np.where(np.asarray(image) < 128, np.minimum(np.asarray(image, int) + 76, 255), np.asarray(image)).astype(
            np.uint8
        )
    ),
    "ColorIncreasing": lambda image: ImageEnhance.Color(image).enhance(1 - 0.63),
    "ContrastIncreasing": lambda image: ImageEnhance.Contrast(image).enhance(1 - 0.63),
    "BrightnessIncreasing": lambda image: ImageEnhance.Brightness(image).enhance(1 - 0.63),
    "SharpnessIncreasing": lambda image: ImageEnhance.Sharpness(image).enhance(1 - 0.63),
    "ShearX": lambda image: warp(image, 1, -0.21, 0, 0, 1, 0),
    "ShearY": lambda image: warp(image, 1, 0, 0, -0.21, 1, 0),
    "TranslateXRel": lambda image: warp(image, 1, 0, -0.315 * image.width, 0, 1, 0),
    "TranslateYRel": lambda image: warp(image, 1, 0, 0, 0, 1, -0.315 * image.height),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_shows_what_pillow_shows(picture, name):
    geometric = name.startswith(("Rotate", "Shear", "Translate"))
    dull = (40 + picture * 0.6).astype(np.uint8)  # so that stretching the contrast has something to do,
    if not geometric:
        dull[::3, ::2] += 25  # and sharpening too
    level, sign = torch.tensor([0.7]), torch.tensor([-1.0])
    ours = in_bytes(OPERATIONS[name](as_clips(dull).contiguous(), level, sign))
    theirs = np.asarray(PILLOW_OPERATIONS[name](Image.fromarray(dull)), float)
    difference = np.abs(ours - theirs)
    # at the edge of what came in, Pillow and torch mix picture and grey over a pixel; elsewhere rounding only
    assert np.quantile(difference, 0.94 if geometric else 1.0) < 3
    assert np.abs(theirs - dull).mean() > 2 * difference.mean()  # and it did do something


def test_the_strength_grows_with_the_magnitude(picture):
    clip = as_clips(picture).contiguous()
    for name in OPERATIONS:
        weak, strong = (
            float((OPERATIONS[name](clip, torch.tensor([level]), torch.tensor([-1.0])) - clip).abs().mean())
            for level in (0.2, 0.7)
        )
        if name in ("AutoContrast", "Equalize", "Invert"):
            assert weak == strong
        else:
            assert strong > weak, name


# ------------------------------------------------------------------------------------------------- random erasing


def test_a_quarter_of_the_clips_loses_a_box_of_the_official_size():
    count, side = 8000, 160
    box = draw_erasing(count, side, MAE, generator(6)).numpy()
    erased = ~np.isnan(box[:, 0])
    assert plausible(erased.sum(), count, 0.25)
    rng, theirs = random.Random(3), []
    while len(theirs) < 2000:  # "one box (area 2 %..33 %, aspect 0.3..3.3)", again until it lies inside
        area, aspect = rng.uniform(0.02, 1 / 3) * side**2, math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if width < side and height < side:
            theirs.append((rng.randint(0, side - width), rng.randint(0, side - height), width, height))
    for column in range(4):
        assert ks_2samp(box[erased, column], np.array(theirs)[:, column]).pvalue > 1e-3
    assert (box[erased, :2] + box[erased, 2:] <= side).all()


def test_erased_boxes_hold_noise_that_is_standard_normal_for_the_network(clips):
    always = Augmentation("erase", erase=1.0, erase_area=(0.3, 0.33))
    moved = augment(clips, always, generator(2))
    changed = (moved != clips / 255).any(2)  # B, T, H, W
    assert torch.equal(changed[:, 0], changed[:, 2])  # the same box in all frames,
    assert not torch.equal(moved[:, 0], moved[:, 1])  # each pixel its own noise
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    noise = (moved.permute(0, 1, 3, 4, 2)[changed] - mean) / deviation
    assert kstest(noise.flatten().numpy()[:20000], "norm").pvalue > 1e-3


# --------------------------------------------------------------------------------------------------------- mixing


def test_mixup_blends_with_the_reversed_batch():
    clips = torch.rand(4, 2, 3, 8, 8)
    mixed, share = mix(clips, 0.8, 0.0, np.random.default_rng(0))
    torch.testing.assert_close(mixed, share * clips + (1 - share) * clips.flip(0))


def test_cutmix_puts_one_box_of_the_partner_into_all_frames():
    clips = torch.arange(4).float().view(4, 1, 1, 1, 1).expand(4, 3, 3, 32, 32)
    seen = 0
    for seed in range(20):
        mixed, share = mix(clips, 0.0, 1.0, np.random.default_rng(seed))
        foreign = mixed != clips
        assert set(mixed.unique().tolist()) <= {0, 1, 2, 3} and (mixed[0][foreign[0]] == 3).all()
        assert float(foreign[0].float().mean()) == pytest.approx(1 - share)
        rows, columns = foreign[0, 0, 0].any(1).nonzero()[:, 0], foreign[0, 0, 0].any(0).nonzero()[:, 0]
        if len(rows):  # one box, the same everywhere
            assert foreign[0, :, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
            assert foreign[0, 0, 0].sum() == len(rows) * len(columns)
            seen += 1
    assert seen > 10


def test_a_batch_gets_mixup_or_cutmix_with_equal_probability_and_their_beta_shares():
    clips = torch.zeros(2, 1, 1, 64, 64)
    clips[1] = 1
    rng, shares, cut = np.random.default_rng(1), [], []
    for _ in range(1500):
        mixed, share = mix(clips, 0.8, 1.0, rng)
        cut.append(bool(((mixed == 0) | (mixed == 1)).all()))
        shares.append(share)
    cut, shares = np.array(cut), np.array(shares)
    assert plausible(cut.sum(), 1500, 0.5)
    assert kstest(shares[~cut], "beta", (0.8, 0.8)).pvalue > 1e-3


def test_without_mixing_the_clips_stay_and_nothing_is_drawn():
    clips, rng = torch.rand(2, 1, 3, 4, 4), np.random.default_rng(0)
    before = rng.bit_generator.state
    same, share = mix(clips, 0.0, 0.0, rng)
    assert same is clips and share == 1 and rng.bit_generator.state == before


def test_mixed_targets_are_soft_and_with_smoothing_equal_the_mean_of_two_losses():
    expressions = torch.tensor([0, 3, 6])
    soft = mixed_targets(expressions, 0.7)
    assert soft[0].tolist() == pytest.approx([0.7, 0, 0, 0, 0, 0, 0.3])
    assert soft[1].tolist() == pytest.approx([0, 0, 0, 1, 0, 0, 0])
    logits = torch.randn(3, 7, generator=generator())
    loss = torch.nn.functional.cross_entropy
    own, other = (loss(logits, targets, label_smoothing=0.1) for targets in (expressions, expressions.flip(0)))
    torch.testing.assert_close(loss(logits, soft, label_smoothing=0.1), 0.7 * own + 0.3 * other)


# ------------------------------------------------------------------------------------------------------- landmarks

SIDE, LEFT, RIGHT = 96, 36, 45  # the outer corners of the eyes, left and right in the picture
PLACES = {LEFT: (0.36, 0.42), RIGHT: (0.66, 0.40)}


def test_every_point_has_its_counterpart_on_the_other_half_of_the_face():
    assert sorted(MIRRORED) == list(range(68)) and all(MIRRORED[MIRRORED[i]] == i for i in range(68))
    from audfer.synth import face

    points = face.render(face.sample_identities(1, seed=0), torch.zeros(1, 18), face.neutral_scene(1), 64)[1][0]
    # a face is nearly its own mirror image: each point lies near where its counterpart's goes
    turned = points[list(MIRRORED)] * torch.tensor([-1.0, 1.0])
    away = (points - points.mean(0)) - (turned - turned.mean(0))
    assert away.norm(dim=1).max() < 2
    assert (points - points[list(MIRRORED)]).norm(dim=1).median() > 8


@pytest.fixture(scope="module")
def marked():
    """(24, 2, 3, S, S) uint8 with a red dot at the left eye's corner and a green one at the right one's; and the
    points.
    """
    row, column = (np.mgrid[0:SIDE, 0:SIDE] + 0.5) / SIDE
    picture = np.zeros((3, SIDE, SIDE))
    for colour, (x, y) in zip(picture[:2], PLACES.values(), strict=True):
        colour += 255 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 0.02**2))
    points = torch.full((24, 2, 68, 2), torch.nan)
    for name, place in PLACES.items():
        points[:, :, name] = torch.tensor(place)
    return torch.from_numpy(picture.round().astype(np.uint8)).expand(24, 2, 3, SIDE, SIDE).contiguous(), points


def middle(light):
    """Middle of a dot in a picture (S, S), units of the side; ``None`` where it is not whole."""
    light = light.double() * (light > 0.15)
    places = (torch.arange(len(light)) + 0.5) / len(light)
    edge = torch.cat((light[0], light[-1], light[:, 0], light[:, -1])).max()
    if edge > 0 or light.max() < 0.7:
        return None
    return torch.stack(((light.sum(0) * places).sum(), (light.sum(1) * places).sum())) / light.sum()


def found_again(clips, points):
    """How many dots were found at their points; the names of left and right have changed in flipped clips."""
    whole = flips = 0
    for clip, own in zip(clips, points, strict=True):
        red, green = middle(clip[1, 0]), middle(clip[1, 1])
        assert torch.equal(torch.isnan(own[0]), torch.isnan(own[1]))
        for light, name in ((red, LEFT), (green, RIGHT)):
            if light is None:
                continue
            candidates = [other for other in PLACES if (own[1, other] - light).abs().max() < 0.7 / SIDE]
            assert len(candidates) == 1, (light, own[1, [LEFT, RIGHT]])
            whole += 1
            flips += candidates[0] != name
        if red is not None and green is not None:
            assert own[1, LEFT, 0] < own[1, RIGHT, 0]  # the left one is the left one
    assert torch.isnan(points[:, :, [i for i in range(68) if i not in PLACES]]).all()
    return whole, flips


@pytest.mark.parametrize("crop", ["none", "mild", "swapped", "log"])
@pytest.mark.parametrize("size", [SIDE, 64])
def test_points_land_on_the_dots_of_flipped_and_cropped_clips(marked, crop, size):
    clips, points = marked
    kind = Augmentation("all", crop=crop, crop_area=(0.4, 1.0), flip=0.5, colour_jitter=0.1)
    moved, found = augment_with_points(clips, points, kind, generator(3), size)
    assert moved.shape[-1] == size and found.shape == points.shape
    whole, flips = found_again(moved, found)
    assert whole >= 30 and 8 <= flips <= whole - 8
    assert torch.equal(points[0, 0, LEFT], torch.tensor(PLACES[LEFT]))  # the caller's own are left alone


def test_points_that_leave_the_picture_are_unknown(marked):
    clips, points = marked
    kind = Augmentation("crop", crop="log", crop_area=(0.05, 0.15))
    moved, found = augment_with_points(clips, points, kind, generator(1))
    for colour, name in enumerate(PLACES):
        for light, place in zip(moved[:, 0, colour], found[:, 0, name], strict=True):
            row, column = divmod(int(light.argmax()), SIDE)
            if torch.isfinite(place).all():
                assert light.max() > 0.95 and (place * SIDE - torch.tensor([column, row])).abs().max() < 3
            else:  # what there is of the dot gets brighter towards the border
                assert light.max() == 0 or {row, column} & {0, SIDE - 1}
    assert torch.isnan(found[:, 0, LEFT]).any() and torch.isfinite(found[:, 0, LEFT]).any()
    assert torch.equal(torch.isnan(found[..., 0]), torch.isnan(found[..., 1]))
    known = found[torch.isfinite(found)]
    assert known.min() >= 0 and known.max() <= 1


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
def test_points_follow_the_operations_that_move_pixels(marked, name, monkeypatch):
    clips, points = marked
    # grey comes in from outside, so the dots are on grey
    clips = (128 + clips.float() * 127 / 255).round().to(torch.uint8)
    level = torch.linspace(0, 0.9, 24)[:, None]
    sign = torch.where(torch.arange(24)[:, None] % 2 > 0, 1.0, -1.0)

    def drawn(count, *_):
        # the operation, one that moves nothing, a turn, and one that is not done
        kinds = [*(list(OPERATIONS).index(each) for each in (name, "SharpnessIncreasing", "Rotate")), -1]
        return torch.tensor(kinds).repeat(count, 1), level * torch.tensor([1, 1, 0.3, 1]), sign.repeat(1, 4)

    monkeypatch.setattr(augmentation, "draw_operations", drawn)
    moved, found = augment_with_points(clips, points, Augmentation("one", operations=4), generator())
    whole, flips = found_again((moved * 255 - 128) / 127, found)
    assert whole >= 24 and flips == 0
    assert torch.isnan(found[-1, 0, LEFT]).any() or (found[-1, 0, LEFT] - points[-1, 0, LEFT]).abs().max() > 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_points_change_neither_the_clips_nor_the_draws_and_parts_move_as_in_the_whole(marked, kind):
    clips, points = marked
    ways = [generator(5), generator(5), generator(5)]
    alone = augment(clips, KINDS[kind], ways[0])
    moved, found = augment_with_points(clips, points, KINDS[kind], ways[1])
    own = np.array([2, 7, 20])
    part, part_found = augment_with_points(clips[own], points[own], KINDS[kind], ways[2], batch=(24, own))
    assert torch.equal(alone, moved) and torch.equal(alone[own], part)
    torch.testing.assert_close(part_found, found[own], equal_nan=True, rtol=0, atol=0)
    assert torch.equal(ways[0].get_state(), ways[1].get_state()) and torch.equal(
        ways[0].get_state(), ways[2].get_state()
    )
    assert augment_with_points(clips, None, KINDS[kind], generator())[1] is None
