"""One cell: deterministic, resumable, and doing what its loss says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from audfer.errors import AudferError, InputError
from audfer.training import RECIPES, Cell, Recipe, _learning_rate, augment, fit, gather, resolve_device


@pytest.fixture(scope="module")
def baseline(study):
    cell = study.cell("former_dfer", "DFEW")
    return cell, fit(cell, study.inputs["DFEW"])


def test_the_same_seed_gives_identical_numbers(study, baseline):
    cell, first = baseline
    second = fit(cell, study.inputs["DFEW"])
    np.testing.assert_array_equal(first["scores"], second["scores"])
    np.testing.assert_array_equal(first["features"], second["features"])
    assert first["history"].drop(columns="seconds").equals(second["history"].drop(columns="seconds"))


def test_another_seed_gives_other_numbers(study, baseline):
    cell, first = baseline
    assert not np.array_equal(first["scores"], fit(replace(cell, seed=1), study.inputs["DFEW"])["scores"])


def test_the_numbers_do_not_depend_on_the_number_of_threads(study, baseline):
    cell, first = baseline
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        second = fit(cell, study.inputs["DFEW"])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(first["scores"], second["scores"])


@pytest.mark.parametrize("model", ["former_dfer", "m3dfel"])
def test_an_interrupted_run_ends_with_the_numbers_it_would_have_had(study, tmp_path, model):
    cell = study.cell(model, "DFEW", 0.25)
    whole = fit(cell, study.inputs["DFEW"])

    class Killed(Exception):
        pass

    def kill(row):
        if row["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(cell, study.inputs["DFEW"], tmp_path, kill)
    epochs = []
    resumed = fit(cell, study.inputs["DFEW"], tmp_path, lambda row: epochs.append(row["epoch"]))
    assert epochs == [2, 3]  # the state after epoch 1 was saved; epoch 2 was lost before it was
    np.testing.assert_array_equal(whole["scores"], resumed["scores"])
    assert whole["history"].drop(columns="seconds").equals(resumed["history"].drop(columns="seconds"))


def test_the_history_agrees_with_scikit_learn(baseline):
    _, outcome = baseline
    guess = outcome["scores"].argmax(1)
    last = outcome["history"].iloc[-1]
    assert last["test_war"] == pytest.approx(accuracy_score(outcome["expressions"], guess))
    assert last["test_uar"] == pytest.approx(balanced_accuracy_score(outcome["expressions"], guess))
    truth_scores = outcome["scores"][np.arange(len(guess)), outcome["expressions"]]
    assert last["test_loss"] == pytest.approx(-np.log(truth_scores).mean(), rel=1e-4)


def test_the_best_epoch_is_the_best_of_the_history(baseline):
    _, outcome = baseline
    total = outcome["history"]["test_war"] + outcome["history"]["test_uar"]
    assert total[outcome["best_epoch"] - 1] == total.max()
    guess = outcome["best_scores"].argmax(1)
    assert accuracy_score(outcome["expressions"], guess) == pytest.approx(
        outcome["history"]["test_war"][outcome["best_epoch"] - 1])


def test_the_total_loss_is_eq_10(study):
    outcome = fit(study.cell("former_dfer", "DFEW", 0.25), study.inputs["DFEW"])
    history = outcome["history"]
    np.testing.assert_allclose(history["loss"], 0.75 * history["loss_expression"] + 0.25 * history["loss_au"], rtol=1e-5)
    assert outcome["au_scores"].shape == (len(outcome["expressions"]), 18)


def test_a_cell_without_au_head_needs_no_au_labels_and_has_no_au_loss(study, baseline):
    cell, outcome = baseline
    without = fit(cell, replace(study.inputs["DFEW"], au_labels="", knowledge=""))
    assert outcome["history"]["loss_au"].isna().all() and outcome["au_scores"] is None
    np.testing.assert_array_equal(outcome["scores"], without["scores"])


def test_au_labels_of_other_clips_are_refused(study, tmp_path):
    with np.load(study.inputs["DFEW"].au_labels) as stored:
        np.savez(tmp_path / "wrong.npz", clip_ids=stored["clip_ids"][::-1], labels=stored["labels"])
    with pytest.raises(InputError, match="wrong.npz: clip_ids: found other clips or another order"):
        fit(study.cell("m3dfel", "DFEW", 0.25), replace(study.inputs["DFEW"], au_labels=str(tmp_path / "wrong.npz")))


def test_a_loss_that_is_not_finite_stops_with_a_sentence(study, monkeypatch):
    cell = study.cell("former_dfer", "DFEW")
    wild = replace(RECIPES[cell.model, cell.size], learning_rate=1e30, clip_gradient=0.0, warmup=0.0)
    monkeypatch.setitem(RECIPES, (cell.model, cell.size), wild)
    with pytest.raises(AudferError, match="former_dfer DFEW: the loss became (nan|inf) in epoch"):
        fit(cell, study.inputs["DFEW"])


def test_augmentation_moves_all_frames_of_a_clip_alike():
    still = torch.randint(0, 256, (3, 1, 3, 24, 24), dtype=torch.uint8).expand(-1, 4, -1, -1, -1)
    moved = augment(still, RECIPES["m3dfel", "tiny"], torch.Generator().manual_seed(0))
    assert moved.shape == still.shape and moved.min() >= 0 and moved.max() <= 1
    assert torch.equal(moved[:, 0], moved[:, 3])
    assert not torch.equal(moved[:, 0], still[:, 0] / 255)


def test_without_crop_and_jitter_augmentation_is_a_flip_or_nothing():
    clips = torch.randint(0, 256, (8, 2, 3, 16, 16), dtype=torch.uint8)
    plain = Recipe("adamw", 1e-3, 0.0, crop_area=(1.0, 1.0))
    generator = torch.Generator().manual_seed(1)
    # the aspect ratio is drawn too, so only clips whose crop is the whole picture in one direction stay: compare by flips
    moved = augment(clips, replace(plain, crop_area=(16 / 9, 16 / 9)), generator)
    straight, flipped = clips / 255, (clips / 255).flip(-1)
    kinds = [("straight" if torch.allclose(m, s, atol=1e-4) else "flipped" if torch.allclose(m, f, atol=1e-4) else "other")
             for m, s, f in zip(moved, straight, flipped)]
    assert set(kinds) == {"straight", "flipped"}


def test_evaluation_takes_the_same_frames_every_time_and_training_does_not(study):
    packed = study.packed("DFEW")
    rows = np.arange(4)
    once, again = (gather(packed, rows, 4, 48, "cpu") for _ in range(2))
    assert torch.equal(once, again) and once.shape == (4, 4, 3, 48, 48) and once.dtype == torch.uint8
    drawn = [gather(packed, rows, 4, 48, "cpu", np.random.default_rng(seed)) for seed in (0, 1)]
    assert not torch.equal(*drawn)
    assert gather(packed, rows, 4, 24, "cpu").shape[-1] == 24


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    recipe = Recipe("adamw", 1.0, 0.0, warmup=0.1, minimum_learning_rate=0.1)
    rates = [_learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert rates == rates[:10] + sorted(rates[10:], reverse=True)


def test_the_step_schedule_of_former_dfer_drops_after_epochs_40_and_80_of_100():
    recipe = RECIPES["former_dfer", "paper"]
    rates = [_learning_rate(recipe, epoch, 100) for epoch in (39, 40, 79, 80)]
    np.testing.assert_allclose(rates, [0.01, 0.001, 0.001, 0.0001])


@pytest.mark.parametrize("change, sentence", [
    ({"au_ratio": 1.0, "strategy": "global"}, "au_ratio: found 1.0"),
    ({"au_ratio": 0.2}, "strategy with au_ratio"),
    ({"strategy": "global"}, "strategy with au_ratio"),
    ({"au_ratio": 0.2, "strategy": "major"}, "found 'major', expected one of none, global, distinct, minor"),
    ({"model": "m3dfell"}, "model and size"),
])
def test_a_contradictory_cell_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        Cell(**{"model": "m3dfel", "dataset": "DFEW", **change})


def test_asking_for_a_missing_gpu_is_a_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(AudferError, match="found no CUDA GPU"):
        resolve_device("cuda")
