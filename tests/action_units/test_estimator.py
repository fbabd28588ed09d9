"""The AU estimator: learns a toy whose answer is known, calibrates, clips like OpenFace, and is judged correctly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import small_layouts
import torch
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, precision_score

from audfer.action_units.estimator import (
    PRESENT_FROM,
    ZERO_BELOW,
    ActionUnitEstimator,
    agreement,
    augment,
    calibrate,
    evaluate_estimator,
    predict,
    train_estimator,
)
from audfer.action_units.extraction import extract
from audfer.datasets import read_dataset
from audfer.errors import AudferError
from audfer.evaluation import icc_3_1
from audfer.facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from audfer.synth.face import neutral_scene, render, sample_identities
from audfer.training.engine import threads


def toy(subjects: int = 6, frames: int = 40, side: int = 32, seed: int = 0):
    """Grey pictures on which AU12 is a white disc low down and AU01 a black bar high up, as wide as the code says."""
    generator = np.random.default_rng(seed)
    count = subjects * frames
    codes = np.zeros((count, 18))
    codes[:, [0, 8]] = generator.integers(0, 6, (count, 2))
    images = generator.normal(120, 6, (count, side, side, 3))
    rows, columns = np.mgrid[:side, :side]
    for image, code in zip(images, codes, strict=True):
        image[(rows - 23) ** 2 + (columns - 16) ** 2 < 4 * code[8]] = 220
        image[(abs(rows - 8) < 2) & (abs(columns - 16) < 2 * code[0])] = 30
    return images.clip(0, 255).astype(np.uint8), codes, np.repeat([f"s{i}" for i in range(subjects)], frames)


@pytest.fixture(scope="module")
def trained():
    images, codes, subjects = toy()
    keep = np.flatnonzero(subjects != "s5")
    estimator, history = train_estimator(
        images, codes, subjects, train_index=keep, epochs=12, batch_size=16, lr=4e-3, progress=False
    )
    return estimator, history, images, codes, subjects


def test_it_learns_a_toy_on_a_subject_it_has_not_seen(trained):
    estimator, history, images, codes, subjects = trained
    assert history["loss"].iloc[-1] < 0.6 * history["loss"].iloc[0]
    new = subjects == "s5"
    table = evaluate_estimator(estimator, images[new], codes[new], subjects[new], resamples=20).set_index("action_unit")
    for au in ("AU01", "AU12"):
        assert table.loc[au, "f1"] > 0.85 and table.loc[au, "intensity_r"] > 0.85
    assert table["n"].eq(40).all() and np.isnan(table.loc["AU28", "intensity_r"])


def test_predictions_have_openface_form_and_survive_saving(trained, tmp_path):
    estimator, _, images, _, _ = trained
    intensity, presence = predict(estimator, images[:50], batch_size=16)
    assert intensity.shape == (50, 17) and intensity.dtype == np.float32 and presence.shape == (50, 18)
    assert set(np.unique(presence)) <= {0.0, 1.0}
    assert intensity.max() <= 5 and (intensity == 0).any()
    assert not ((intensity > 0) & (intensity < ZERO_BELOW)).any()  # small values are exactly 0
    estimator.save(tmp_path)
    again = predict(ActionUnitEstimator.load(tmp_path), images[:50], batch_size=50)
    np.testing.assert_allclose(again[0], intensity, atol=1e-4)
    assert [len(part) for part in predict(estimator, images[:0])] == [0, 0]


def test_same_seed_same_estimator_and_another_seed_another():
    images, codes, subjects = toy(subjects=3, frames=16)
    weights = [
        train_estimator(images, codes, subjects, epochs=2, batch_size=8, seed=seed, progress=False)[0].state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["presence.weight"], weights[2]["presence.weight"])


def test_the_number_of_cores_changes_nothing_along_the_chain(tmp_path):
    """Rendering, training, judging and extracting with one thread and with three."""
    people, scene = sample_identities(37, seed=1), neutral_scene(37)
    moved = torch.rand(37, 18, generator=torch.Generator().manual_seed(0)) * 5
    images, codes, subjects = toy(3, 20)
    clips = read_dataset("folder", small_layouts.folder(tmp_path / "clips"))
    results = []
    for count in (1, 3):
        with threads(count):
            pixels = render(people, moved, scene, 48)[0]
            estimator, _ = train_estimator(images, codes, subjects, epochs=1, batch_size=20, progress=False)
            weights = torch.cat([value.flatten() for value in estimator.parameters()])
            quality = evaluate_estimator(estimator, images, codes, subjects, resamples=5)
            frames = extract(clips, estimator, 32).frames
            results.append((pixels, weights, quality, frames))
            assert torch.get_num_threads() == count
    for pixels, weights, quality, frames in results[1:]:
        assert torch.equal(pixels, results[0][0]) and torch.equal(weights, results[0][1])
        pd.testing.assert_frame_equal(quality, results[0][2], check_exact=True)
        pd.testing.assert_frame_equal(frames, results[0][3], check_exact=True)


def test_training_leaves_the_global_generator_alone():
    images, codes, subjects = toy(subjects=2, frames=8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_estimator(images, codes, subjects, epochs=1, batch_size=8, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_uncoded_aus_teach_nothing_and_count_nowhere():
    images, codes, subjects = toy(subjects=3, frames=16)
    codes[:, 3] = np.nan
    estimator, history = train_estimator(images, codes, subjects, epochs=1, batch_size=8, progress=False)
    assert np.isfinite(history["loss"]).all() and estimator.thresholds[3] == 0
    assert (
        evaluate_estimator(estimator, images, codes, subjects, resamples=5).set_index("action_unit").loc["AU05", "n"]
        == 0
    )


def test_bytes_fractions_and_grey_give_the_same(trained):
    estimator, _, images, _, _ = trained
    batch = torch.from_numpy(images[:4]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits, intensity = estimator(batch)
        as_float, _ = estimator(batch.float() / 255)
        grey, _ = estimator(batch.float().mean(1, keepdim=True) / 255)
    torch.testing.assert_close(as_float, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(grey, logits, atol=1e-4, rtol=1e-4)
    assert logits.shape == (4, 18) and intensity.shape == (4, 17) and intensity.min() >= 0 and intensity.max() <= 5


def test_brightness_hardly_matters(trained):
    estimator, _, images, _, _ = trained
    batch = torch.from_numpy(images[:32]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        bright, dark = estimator(batch)[1], estimator(batch * 0.6)[1]
    column = INTENSITY_ACTION_UNITS.index("AU12")
    assert pearsonr(bright[:, column], dark[:, column])[0] > 0.97


def test_calibration_by_hand():
    estimator = ActionUnitEstimator(32)
    codes = np.tile(np.array([0, 1, 2, 3, 4, 5.0])[:, None], (1, 18))
    logits = np.tile(np.array([-3, -2.5, -1.5, -1, 0, 1])[:, None], (1, 18))
    raw = np.tile((codes[:, :1] - 1) / 2, (1, 17))  # code = 2 raw + 1
    calibrate(estimator, logits, raw, codes)
    np.testing.assert_allclose(estimator.thresholds.numpy(), -2.0)  # halfway between codes 1 and 2
    np.testing.assert_allclose(estimator.gain.numpy(), 2.0, rtol=1e-6)
    np.testing.assert_allclose(estimator.offset.numpy(), 1.0, rtol=1e-6)


def test_an_au_that_cannot_be_seen_is_not_called_present_everywhere():
    estimator = ActionUnitEstimator(32)
    generator = np.random.default_rng(0)
    codes = (3 * (generator.random((1000, 18)) < 0.15)).astype(float)  # present in 15 % of frames, scores say nothing
    logits = generator.standard_normal((1000, 18))
    calibrate(estimator, logits, generator.standard_normal((1000, 17)), codes)
    called = (logits >= estimator.thresholds.numpy()).mean(axis=0)
    np.testing.assert_allclose(called, (codes >= 2).mean(axis=0), atol=1e-9)


def test_agreement_equals_scikit_learn_and_scipy():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 6, (200, 18)).astype(float)
    presence = ((codes >= PRESENT_FROM) ^ (generator.random(codes.shape) < 0.2)).astype(np.float32)
    intensity = (
        codes[:, [ACTION_UNITS.index(au) for au in INTENSITY_ACTION_UNITS]] + generator.normal(0, 1, (200, 17))
    ).clip(0, 5)
    table = agreement(intensity, presence, codes, np.repeat(np.arange(10), 20), resamples=200)
    assert table["f1"].tolist() == pytest.approx([f1_score(codes[:, a] >= 2, presence[:, a]) for a in range(18)])
    assert table["precision"].tolist() == pytest.approx(
        [precision_score(codes[:, a] >= 2, presence[:, a]) for a in range(18)]
    )
    assert table["intensity_r"][0] == pytest.approx(pearsonr(codes[:, 0], intensity[:, 0])[0])
    assert (table["f1_low"] < table["f1"]).all() and (table["f1"] < table["f1_high"]).all()


def test_icc_of_shrout_and_fleiss():
    # Shrout and Fleiss 1979, table 2, judges 1 and 2 only; ICC(3,1) = (BMS - EMS) / (BMS + EMS) worked out by hand
    first, second = np.array([9, 6, 8, 7, 10, 6]), np.array([2, 1, 4, 1, 5, 2])
    between = 2 * np.var((first + second) / 2, ddof=1)
    error = np.var(first - second, ddof=1) / 2
    assert icc_3_1(first, second) == pytest.approx((between - error) / (between + error))
    assert icc_3_1(first, first + 3) == pytest.approx(1)  # consistency: a constant shift does not count


def test_augmentation_keeps_shape_and_range_and_follows_its_generator():
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    first, again, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda i, c, s: (i.astype(float), c, s), "images: found float64"),
        (lambda i, c, s: (i, c[:, :12], s), r"intensity_codes: found the shape \(32, 12\), expected \(32, 18\)"),
        (lambda i, c, s: (i, c + 3, s), "expected FACS codes 0 to 5"),
        (lambda i, c, s: (i, c, s[:-1]), r"subjects: found the shape \(31,\)"),
        (lambda i, c, s: (i, c, np.full(32, "s0")), "at least 2 subjects"),
    ],
)
def test_wrong_input_gets_a_sentence(change, words):
    with pytest.raises(AudferError, match=words):
        train_estimator(*change(*toy(subjects=2, frames=16)), epochs=1, progress=False)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(AudferError, match="AU estimator: found no readable one"):
        ActionUnitEstimator.load(tmp_path)
