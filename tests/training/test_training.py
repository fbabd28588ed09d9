"""One cell: deterministic, resumable, and doing what its loss says."""

import json
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from killed import make_and_die
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from audfer.errors import AudferError, InputError
from audfer.facs import EXPRESSIONS
from audfer.losses import AULoss
from audfer.models import NETWORKS, Output, build_model
from audfer.training import loop as training
from audfer.training.loop import (
    Cell,
    CellTask,
    _initial_model,
    batch_losses,
    batch_targets,
    choose_frames,
    clip_groups,
    fit,
    gather_frames,
    hold_out,
    predict,
    resolve_device,
)
from audfer.training.recipes import RECIPES
from audfer.training.records import RunRecord, RunStore, make_record


@pytest.fixture(scope="module")
def baseline(study):
    cell = study.cell("former_dfer", "DFEW")
    return cell, fit(cell, study.inputs["DFEW"])


def _agree(first, second):
    """Two outcomes are the same, bit for bit, but for the time they took."""
    np.testing.assert_array_equal(first["scores"], second["scores"])
    np.testing.assert_array_equal(first["features"], second["features"])
    assert first["history"].drop(columns="seconds").equals(second["history"].drop(columns="seconds"))


def _interrupt(row):
    raise KeyboardInterrupt


def test_numbers_depend_on_the_seed_alone_and_not_on_threads_or_au_labels_without_an_au_head(study, baseline):
    cell, first = baseline
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        second = fit(cell, replace(study.inputs["DFEW"], au_labels="", knowledge=""))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    _agree(first, second)
    assert first["history"]["loss_au"].isna().all() and first["au_scores"] is None


def test_another_seed_gives_other_numbers(study, baseline):
    cell, first = baseline
    assert not np.array_equal(first["scores"], fit(replace(cell, seed=1), study.inputs["DFEW"])["scores"])


def test_an_interrupted_run_ends_with_the_numbers_it_would_have_had(study, tmp_path):
    cell = replace(study.cell("m3dfel", "DFEW", 0.25), epochs=2)
    whole = fit(cell, study.inputs["DFEW"])

    with pytest.raises(KeyboardInterrupt):
        fit(cell, study.inputs["DFEW"], tmp_path, _interrupt)
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == [1]
    epochs = []
    resumed = fit(cell, study.inputs["DFEW"], tmp_path, lambda row: epochs.append(row["epoch"]))
    assert epochs == [2]  # an epoch is reported once its state is saved
    _agree(whole, resumed)
    history = whole["history"]  # Eq. 10
    np.testing.assert_allclose(
        history["loss"], 0.75 * history["loss_expression"] + 0.25 * history["loss_au"], rtol=1e-5
    )
    assert whole["au_scores"].shape == (len(whole["expressions"]), 18)


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
    epoch = outcome["protocols"]["best-on-test"]["epoch"]
    assert total[epoch - 1] == total.max() and outcome["protocols"]["last"]["epoch"] == len(total)
    assert set(outcome["protocols"]) == {"last", "best-on-test"} and outcome["validated_scores"] is None
    guess = outcome["best_scores"].argmax(1)
    assert accuracy_score(outcome["expressions"], guess) == pytest.approx(outcome["history"]["test_war"][epoch - 1])


def test_au_labels_of_other_clips_are_refused(study, tmp_path):
    with np.load(study.inputs["DFEW"].au_labels) as stored:
        np.savez(tmp_path / "wrong.npz", clip_ids=stored["clip_ids"][::-1], labels=stored["labels"])
    with pytest.raises(InputError, match="wrong.npz: clip_ids: found other clips or another order"):
        fit(study.cell("m3dfel", "DFEW", 0.25), replace(study.inputs["DFEW"], au_labels=str(tmp_path / "wrong.npz")))


def test_a_loss_that_is_not_finite_stops_with_epoch_batch_and_clips(study, monkeypatch):
    cell, packed = study.cell("former_dfer", "DFEW"), study.packed("DFEW")
    wild = replace(RECIPES["former_dfer-tiny"], batch_size=16, learning_rate=1e30, clip_gradient=0.0, warmup=0.0)
    monkeypatch.setitem(NETWORKS["former_dfer"].recipes, "tiny", wild)
    # the first step is taken with whole weights, so the second batch is the first to fail
    second = np.random.default_rng([cell.seed, 1]).permutation(packed.split("train"))[16:32]
    with pytest.raises(AudferError) as caught:
        fit(cell, study.inputs["DFEW"])
    assert (
        f"former_dfer DFEW: the loss became nan in epoch 1, batch 2 of "
        f"{len(packed.split('train')) // wild.batch_size} (clips "
        + ", ".join(packed.clip_ids[row] for row in second)
        + ")"
    ) in str(caught.value)


def test_evaluation_takes_the_same_frames_every_time_and_training_does_not(study, baseline):
    packed, rows, (cell, _) = study.packed("DFEW"), np.arange(4), baseline
    recipe = cell.training_recipe
    once, again = (choose_frames(packed, rows, recipe.test_sampling, replace(cell, num_frames=4)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert once.shape == (1, 4, 4)
    drawn = [
        choose_frames(packed, rows, recipe.train_sampling, replace(cell, num_frames=4), np.random.default_rng(seed))
        for seed in (0, 1)
    ]
    assert not np.array_equal(*drawn)


def test_frames_are_gathered_as_stored_or_resized(study):
    packed, rows, chosen = study.packed("DFEW"), np.array([3, 5]), np.array([[0, 7], [2, 2]])
    clips = gather_frames(packed, rows, chosen, None, "cpu")
    assert clips.shape == (2, 2, 3, 48, 48) and clips.dtype == torch.uint8
    np.testing.assert_array_equal(clips[1, 0].permute(1, 2, 0), packed.frames[5][2])
    small = gather_frames(packed, rows, chosen, 24, "cpu")
    assert small.shape[-1] == 24 and small.dtype == torch.uint8
    assert float(small.float().mean()) == pytest.approx(float(clips.float().mean()), abs=1.5)


# ------------------------------------------------------------------------------------------------- recipes by name


def test_a_release_recipe_with_mixing_and_random_augment_trains_and_resumes_exactly(study, tmp_path):
    recipe = "mae_dfer-release-dfew"
    cell = replace(study.cell("mae_dfer", "DFEW", 0.25, recipe=recipe), epochs=2)
    # 42 training clips are fewer than the release's batch: one incomplete batch an epoch
    whole = fit(cell, study.inputs["DFEW"])
    assert np.isfinite(whole["history"]["loss"]).all() and whole["recipe"]["source"] == RECIPES[recipe].source

    with pytest.raises(KeyboardInterrupt):
        fit(cell, study.inputs["DFEW"], tmp_path, _interrupt)
    resumed = fit(cell, study.inputs["DFEW"], tmp_path)
    _agree(whole, resumed)


def test_the_random_test_frames_of_m3dfels_release_are_a_named_choice_and_still_reproducible(study):
    cell = study.cell("m3dfel", "DFEW", recipe="m3dfel-audfer")
    model = build_model("m3dfel", num_aus=None, size="tiny")
    packed, rows = study.packed("DFEW"), np.arange(8)
    first, again, later = (predict(model, packed, rows, cell, epoch)["scores"] for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    fixed = [predict(model, packed, rows, study.cell("m3dfel", "DFEW"), epoch)["scores"] for epoch in (0, 1)]
    np.testing.assert_array_equal(*fixed)


def test_several_views_give_the_mean_of_their_probabilities(study):
    cell = study.cell("mae_dfer", "DFEW", 0.25, recipe="mae_dfer-release-ferv39k")
    cell = replace(cell, num_frames=4)  # clips have 4 or 5 frames, so that the two views differ
    torch.manual_seed(0)
    model = build_model("mae_dfer", size="tiny", num_frames=4).eval()
    packed, rows = study.packed("DFEW"), np.arange(6)
    views = choose_frames(packed, rows, "mae_dfer-views", cell)
    assert views.shape == (2, 6, 4) and not np.array_equal(views[0], views[1])
    with torch.inference_mode():
        each = [model(gather_frames(packed, rows, view, 48, "cpu")) for view in views]
    result = predict(model, packed, rows, cell)
    np.testing.assert_allclose(
        result["scores"], sum(o.expression_logits.softmax(1) for o in each).numpy() / 2, rtol=1e-5
    )
    np.testing.assert_allclose(result["au_scores"], sum(o.au_logits.sigmoid() for o in each).numpy() / 2, rtol=1e-5)


def test_clips_that_stay_on_the_device_give_the_numbers_of_those_that_are_read(study, monkeypatch):
    # on a GPU they do; here the same code keeps them in memory, for a network that sees pixels
    monkeypatch.setattr(training, "_RESIDENT", {})
    cell = replace(study.cell("m3dfel", "DFEW", recipe="m3dfel-paper"), epochs=1)
    outcomes = [fit(cell, study.inputs["DFEW"])]
    monkeypatch.setattr(training, "resident", partial(training.resident, room=1e9))
    outcomes.append(fit(cell, study.inputs["DFEW"]))
    _agree(*outcomes)
    assert list(training._RESIDENT) == [study.packed("DFEW").content]


def test_of_several_stores_those_stay_on_the_device_that_there_is_room_for(study, monkeypatch):
    monkeypatch.setattr(training, "_RESIDENT", {})
    stores = [study.packed(name) for name in ("DFEW", "FERV39k")]
    each = max(store.frames.nbytes for store in stores)
    for room in (None, stores[0].frames.nbytes - 1):
        assert training.resident(stores[0], "cpu", room) is None
    for room, store, left in ((2 * each, 0, [0]), (2 * each, 1, [0, 1]), (2 * each, 0, [1, 0]), (each, 1, [1])):
        kept = training.resident(stores[store], "cpu", room)
        assert kept.dtype == torch.uint8 and np.array_equal(kept.numpy(), stores[store].frames)
        assert list(training._RESIDENT) == [stores[number].content for number in left]


def test_drop_path_of_the_recipe_reaches_the_network(study):
    rates = [
        _initial_model(study.cell("mae_dfer", "DFEW", recipe=recipe), study.inputs["DFEW"]).blocks[-1].drop_path.rate
        for recipe in ("", "mae_dfer-paper")
    ]
    assert rates == [0.0, 0.1]


def test_a_mixed_batch_has_soft_targets_and_its_own_au_labels_unless_asked(study, monkeypatch):
    """Quirk 23: the AU targets of the release are not mixed, and the larger share's expression weighs them."""
    torch.manual_seed(0)
    cell = study.cell("mae_dfer", "DFEW", 0.25, recipe="mae_dfer-paper")
    au_loss = AULoss(torch.rand(7, 18), torch.rand(7, 18))
    output = Output(torch.randn(2, 7), torch.randn(2, 18), torch.zeros(2, 1))
    expressions, labels = torch.tensor([0, 4]), torch.randint(0, 2, (2, 18)).float()
    labels[0, 3] = torch.nan
    targets = batch_targets(cell.training_recipe, expressions, labels, au_loss, 0.3)
    total, of_expressions, of_aus = batch_losses(cell, output, targets, au_loss)
    assert targets.shown.tolist() == [4, 0]  # 0.7 of each clip is its partner
    torch.testing.assert_close(of_aus, au_loss(output.au_logits, labels, torch.tensor([4, 0])))
    torch.testing.assert_close(total, 0.75 * of_expressions + 0.25 * of_aus)

    monkeypatch.setitem(NETWORKS["mae_dfer"].recipes, "paper", replace(RECIPES["mae_dfer-paper"], mix_aus=True))
    soft = torch.zeros(2, 7)
    soft[0, 0], soft[0, 4], soft[1, 4], soft[1, 0] = 0.3, 0.7, 0.3, 0.7
    mixed = batch_losses(cell, output, batch_targets(cell.training_recipe, expressions, labels, au_loss, 0.3), au_loss)
    torch.testing.assert_close(mixed[2], au_loss(output.au_logits, 0.3 * labels + 0.7 * labels.flip(0), soft))
    whole = batch_targets(cell.training_recipe, expressions, labels, au_loss)
    assert whole.shown is expressions
    losses = batch_losses(cell, output, whole, au_loss)
    torch.testing.assert_close(losses[2], au_loss(output.au_logits, labels, expressions))
    smoothed = torch.nn.functional.cross_entropy(output.expression_logits, expressions, label_smoothing=0.1)
    torch.testing.assert_close(losses[1], smoothed)


@pytest.mark.parametrize("reduction", ["mean", "sum_over_aus"])
def test_losses_of_parts_add_up_to_the_losses_of_the_batch_whatever_is_known_in_each(study, reduction):
    generator = torch.Generator().manual_seed(0)
    cell = replace(study.cell("m3dfel", "DFEW", 0.25), reduction=reduction)
    au_loss = AULoss(torch.rand(7, 18, generator=generator), torch.rand(7, 18, generator=generator), reduction)
    labels = torch.randint(0, 2, (9, 18), generator=generator).float()
    labels[torch.rand(9, 18, generator=generator) < 0.4] = torch.nan
    labels[:3] = torch.nan  # a part of which nothing is known
    output = Output(
        torch.randn(9, 7, generator=generator),
        torch.randn(9, 18, generator=generator),
        torch.zeros(9, 1),
        torch.randn(9, 7, generator=generator),
    )
    targets = batch_targets(cell.training_recipe, torch.arange(9) % 7, labels, au_loss)
    whole = batch_losses(cell, output, targets, au_loss, 0.2)
    torch.testing.assert_close(whole[2], au_loss(output.au_logits, labels, torch.arange(9) % 7))
    parts = [
        batch_losses(cell, Output(*(x[index] for x in output)), targets.part(index, "cpu"), au_loss, 0.2)
        for index in np.split(np.arange(9), [3, 4])
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_the_second_classifier_has_its_share_of_the_loss(study):
    cell = study.cell("keypoint_gcn", "DFEW")
    output = Output(torch.randn(4, 7), None, torch.zeros(4, 1), torch.randn(4, 7))
    expressions = torch.tensor([0, 6, 2, 2])
    targets = batch_targets(cell.training_recipe, expressions, None, None)
    smoothing = cell.training_recipe.label_smoothing
    first, second = (
        torch.nn.functional.cross_entropy(logits, expressions, label_smoothing=smoothing)
        for logits in (output.expression_logits, output.auxiliary_logits)
    )
    losses = batch_losses(cell, output, targets, None, 0.2)
    torch.testing.assert_close(losses[0], 0.8 * first + 0.2 * second)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(batch_losses(cell, output._replace(auxiliary_logits=None), targets, None)[0], first)


# ----------------------------------------------------------------------------------------------------------- landmarks


@pytest.fixture(scope="module")
def keyed(study):
    """A key-point cell of one epoch with the AU head, its inputs, and its outcome."""
    cell = replace(study.cell("keypoint_gcn", "DFEW", 0.25), epochs=2)
    inputs = study.cell_inputs([cell])[cell.source]
    return cell, inputs, fit(cell, inputs)


def test_a_key_point_cell_resumes_exactly_and_gives_what_the_others_give(study, keyed, tmp_path):
    cell, inputs, whole = keyed

    with pytest.raises(KeyboardInterrupt):
        fit(cell, inputs, tmp_path, _interrupt)
    resumed = fit(cell, inputs, tmp_path)
    _agree(whole, resumed)
    history = whole["history"]
    np.testing.assert_allclose(
        history["loss"], 0.75 * history["loss_expression"] + 0.25 * history["loss_au"], rtol=1e-5
    )
    model = build_model("keypoint_gcn", size="tiny")
    assert whole["features"].shape == (len(whole["clip_ids"]), model.feature_dim) and whole["au_scores"].shape[1] == 18
    # the features are what both heads see
    state = whole["state_dict"]
    logits = torch.from_numpy(whole["features"]) @ state["fc.weight"].T + state["fc.bias"]
    np.testing.assert_allclose(logits.softmax(1), whole["scores"], atol=1e-5)


def test_landmarks_reach_training_and_evaluation(study, keyed, tmp_path):
    cell, inputs, whole = keyed
    points = np.load(inputs.landmarks)
    packed, test = study.packed("DFEW"), study.packed("DFEW").split("test")
    model = training._initial_model(cell, inputs)
    model.load_state_dict(whole["state_dict"])
    # training saw contrast in half precision, made once for all epochs
    close = dict(rtol=0.01, atol=1e-4)
    torch.testing.assert_close(predict(model, packed, test, cell, 1, points)["scores"], whole["scores"], **close)
    prepared = training.prepared_clips(packed, model, cell)
    seen = predict(model, packed, test, cell, 1, points, prepared)["scores"]
    torch.testing.assert_close(seen, whole["scores"])
    points[test] = np.nan  # evaluation alone changes
    np.save(tmp_path / "test.npy", points)
    without = fit(cell, replace(inputs, landmarks=str(tmp_path / "test.npy")))
    np.testing.assert_array_equal(without["history"]["loss"], whole["history"]["loss"])
    assert np.isfinite(without["scores"]).all() and not np.allclose(without["scores"], whole["scores"])
    points[:] = np.nan
    np.save(tmp_path / "none.npy", points)
    none = fit(cell, replace(inputs, landmarks=str(tmp_path / "none.npy")))
    assert np.isfinite(none["history"]["loss"]).all() and not np.array_equal(
        none["history"]["loss"], whole["history"]["loss"]
    )


def test_micro_batches_have_their_own_clips_landmarks(study, keyed):
    cell, inputs, _ = keyed
    found = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        task = CellTask(replace(cell, accumulate=accumulate), inputs)
        task.batches(0)
        clips, points, targets, own = task.read(task.training[:7])
        assert points.shape == (7, 8, 68, 2)
        task.model.eval()  # batch norms would see each part for itself
        losses = task.backward((clips, points, targets, own))
        gradients = [p.grad.flatten() for p in task.model.parameters() if p.grad is not None]
        found.append((losses, torch.cat(task.guesses), torch.cat(gradients)))
    for one, cut in zip(*found, strict=True):
        torch.testing.assert_close(one, cut, atol=1e-5, rtol=1e-4)


def test_landmarks_of_other_clips_none_and_mixed_faces_are_sentences(study, keyed, tmp_path, monkeypatch):
    cell, inputs, _ = keyed
    with pytest.raises(
        InputError, match="landmarks: found none for keypoint_gcn, expected a file in CellInputs.landmarks"
    ):
        fit(cell, replace(inputs, landmarks=""))
    np.save(tmp_path / "short.npy", np.load(inputs.landmarks)[:5])
    with pytest.raises(InputError, match=r"short.npy: shape of the landmarks: found \(5, 8, 68, 2\)"):
        fit(cell, replace(inputs, landmarks=str(tmp_path / "short.npy")))
    for mixing in ("mixup", "cutmix"):
        mixed = replace(RECIPES["keypoint_gcn-paper"], **{mixing: 0.8})
        monkeypatch.setitem(NETWORKS["keypoint_gcn"].recipes, "tiny", mixed)
        with pytest.raises(
            InputError, match="'keypoint_gcn-tiny' with mixup or cutmix, expected a recipe without them"
        ):
            replace(cell, seed=1)


def test_a_variant_is_another_network(study, keyed):
    cell, inputs, _ = keyed
    plain = study.cell("keypoint_gcn", "DFEW")
    other = study.cell("keypoint_gcn", "DFEW", variant="mean fusion")
    shape = lambda cell: {name: value.shape for name, value in _initial_model(cell, inputs).state_dict().items()}  # noqa: E731
    assert shape(plain) != shape(study.cell("keypoint_gcn", "DFEW", variant="A"))
    assert other.label == "keypoint_gcn (mean fusion) DFEW" and other.source == plain.source == "DFEW"
    assert study.store.key(plain, inputs) != study.store.key(other, inputs)
    planted = study.cell("keypoint_gcn", "DFEW", 0.25, au_source="planted")
    assert planted.label.endswith(" AUs planted") and planted.source == "DFEW, AUs planted"
    assert study.store.key(planted, inputs) != study.store.key(cell, inputs)
    assert study.cell("keypoint_gcn", "DFEW", au_source="planted") == plain  # counts only where there is an AU head


# ------------------------------------------------------------------------------------------------------- micro-batches


def test_micro_batches_give_the_loss_curve_of_the_whole_batch_where_there_is_no_batch_norm(study, monkeypatch):
    # the official patch embedding has no batch norm; stochastic depth, random erasing and mixing are on
    monkeypatch.setitem(NETWORKS["mae_dfer"].sizes, "tiny", {**NETWORKS["mae_dfer"].sizes["tiny"], "stem": ()})
    cell = replace(study.cell("mae_dfer", "DFEW", 0.25, recipe="mae_dfer-release-dfew"), epochs=2)
    whole, cut = (fit(replace(cell, accumulate=n), study.inputs["DFEW"]) for n in (1, 3))
    for name in ("loss", "loss_expression", "loss_au", "test_loss"):
        np.testing.assert_allclose(cut["history"][name], whole["history"][name], atol=1e-5)
    np.testing.assert_allclose(cut["scores"], whole["scores"], atol=1e-5)


# ---------------------------------------------------------------------------------------------------- validation split


def _clips(count, **columns):
    table = pd.DataFrame(
        {
            "clip_id": [f"c{i}" for i in range(count)],
            "path": [f"p{i}" for i in range(count)],
            "subject": "",
            "expression": np.arange(count) % 7,
        }
    )
    return table.assign(**columns)


def test_whole_subjects_are_held_out_where_they_are_known_and_a_video_stands_for_one():
    people = _clips(140, subject=[f"s{i // 10}" for i in range(140)])
    rows = np.arange(7, 140)
    kept, held, by = hold_out(people, rows, 0.25, 0)
    assert by == "subject" and sorted([*kept, *held]) == rows.tolist() and 0.15 < len(held) / len(rows) < 0.4
    assert not set(people["subject"][kept]) & set(people["subject"][held])
    videos = _clips(140, path=[f"film {i // 10}.mp4" for i in range(140)])
    assert clip_groups(videos)[11] == "film 1.mp4" and set(clip_groups(_clips(5))) == {""}
    kept, held, _ = hold_out(videos, rows, 0.25, 0)
    assert not set(videos["path"][kept]) & set(videos["path"][held])
    assert not np.array_equal(held, hold_out(videos, rows, 0.25, 1)[1])
    with pytest.raises(InputError, match="validation: found 0.25 of clips of 1 subjects, expected at least 4 subjects"):
        hold_out(_clips(20, subject="s1"), np.arange(20), 0.25, 0)


def test_clips_of_nobody_in_particular_are_held_out_alike_in_every_expression():
    table = _clips(210)
    kept, held, by = hold_out(table, np.arange(210), 0.2, 0)
    assert by == "expression" and np.bincount(table["expression"][held]).tolist() == [6] * 7
    assert sorted([*kept, *held]) == list(range(210))
    assert hold_out(table, np.arange(210), 0.0, 0)[2] == "" and len(hold_out(table, np.arange(210), 0.0, 0)[1]) == 0
    with pytest.raises(InputError, match="0.01 of 21 training clips, expected a share that leaves clips on both sides"):
        hold_out(table, np.arange(21), 0.01, 0)


def test_looking_at_the_test_clips_less_often_changes_no_training(study, baseline):
    cell, every = baseline
    seldom = fit(replace(cell, evaluate_every=2), study.inputs["DFEW"])
    np.testing.assert_array_equal(seldom["scores"], every["scores"])
    seen, whole = seldom["history"], every["history"]
    assert seen["test_war"].notna().tolist() == [False, True, True]  # every second epoch, and the last
    looked = ["epoch", "train_war", "test_war", "test_uar", "test_loss"]
    assert seen[looked][1:].equals(whole[looked][1:]) and seen["loss"].equals(whole["loss"])
    assert seldom["protocols"]["best-on-test"]["epoch"] in (2, 3)


def test_held_out_clips_choose_an_epoch_and_teach_nothing(study, tmp_path):
    cell, inputs = replace(study.cell("former_dfer", "DFEW", 0.25), validation=0.25), study.inputs["DFEW"]

    def fit_on(frames, inputs):
        """With these pictures, in memory, in the store's place."""

        def other_pictures(path, _open=training.open_packed):
            found = _open(path)
            found.frames = frames
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "open_packed", other_pictures)
            return fit(cell, inputs)

    outcome = fit_on(np.array(study.packed("DFEW").frames), inputs)
    history, packed, held = outcome["history"], study.packed("DFEW"), outcome["validation"]["clip_ids"]
    total = history["validation_war"] + history["validation_uar"]
    epoch = outcome["protocols"]["best-on-validation"]["epoch"]
    assert total[epoch - 1] == total.max() and outcome["validation"]["by"] == "expression"
    assert accuracy_score(outcome["expressions"], outcome["validated_scores"].argmax(1)) == pytest.approx(
        history["test_war"][epoch - 1]
    )
    # neither their AUs nor their pictures change the network
    with np.load(inputs.au_labels) as stored:
        ids, labels = stored["clip_ids"], stored["labels"].copy()
    chosen = np.isin(ids, held)
    labels[chosen] = 1 - labels[chosen]
    np.savez(tmp_path / "labels.npz", clip_ids=ids, labels=labels)
    frames = np.array(packed.frames)
    frames[chosen] = 255 - frames[chosen]
    again = fit_on(frames, replace(inputs, au_labels=str(tmp_path / "labels.npz")))
    np.testing.assert_array_equal(again["scores"], outcome["scores"])
    assert not np.allclose(again["history"]["validation_loss"], history["validation_loss"])


# --------------------------------------------------------------------------------------------------------------- kills


@pytest.fixture(scope="module")
def uninterrupted(study, tmp_path_factory):
    """A cell, its record made in one go, and how many seconds that took."""
    cell = replace(study.cell("former_dfer", "DFEW", 0.25), validation=0.2, epochs=3)
    store = RunStore(tmp_path_factory.mktemp("whole"))
    key = store.key(cell, study.inputs["DFEW"])
    started = time.perf_counter()
    make_record(str(store.folder), key, cell, study.inputs["DFEW"])
    return cell, RunRecord.load(store.path(key)), time.perf_counter() - started


def _killed(process, after=None):
    process.start()
    if after is not None:
        process.join(after)
        process.kill()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("when", ["at random", "around every write"])
def test_a_process_killed_at_any_moment_loses_nothing(study, tmp_path, fresh_process, uninterrupted, when):
    cell, whole, took = uninterrupted
    inputs, store = study.inputs["DFEW"], RunStore(tmp_path)
    key = store.key(cell, inputs)
    arguments = (str(store.folder), key, cell, inputs)
    if when == "at random":
        for share in np.random.default_rng(0).uniform(0.05, 0.6, 3):
            assert _killed(fresh_process(make_record, arguments), share * took) == -signal.SIGKILL
    else:
        # 3 epochs have 2 states to save; the record is not there before its folder is
        for name, moment in (
            ("state.pt", "before"),
            ("state.pt", "after"),
            ("history.csv", "before"),
            ("record.json", "before"),
            (key, "before"),
            (key, "after"),
        ):
            assert not store.has(key)
            assert _killed(fresh_process(make_and_die, (*arguments, name, moment))) == -signal.SIGKILL
        assert store.has(key)
        assert len(list(store.folder.glob(f".{key}.*"))) <= 1  # what the kill before left is cleared by the next run
    make_record(*arguments)
    second = RunRecord.load(store.path(key))
    pd.testing.assert_frame_equal(
        whole.history.drop(columns="seconds"), second.history.drop(columns="seconds"), check_exact=True
    )
    with np.load(whole.path / "test.npz") as a, np.load(second.path / "test.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    assert (whole.path / "weights.safetensors").read_bytes() == (second.path / "weights.safetensors").read_bytes()
    one, other = (json.loads((record.path / "record.json").read_text()) for record in (whole, second))
    assert one["protocols"] == other["protocols"] and one["validation"] == other["validation"]
    assert [path.name for path in store.folder.iterdir() if key in path.name] == [key]


# ---------------------------------------------------------------------------------------------------------------- cost


def test_a_cell_says_what_it_cost_and_what_it_waited_for(study, baseline, monkeypatch):
    costs = baseline[1]["costs"]
    batch = baseline[0].training_recipe.batch_size
    clips = 3 * batch * (len(study.packed("DFEW").split("train")) // batch)
    assert costs["clips_per_second"] * costs["training_seconds"] == pytest.approx(clips)
    assert 0 < costs["input_share"] < 0.5 and costs["bound"] == "compute" and costs["processes"] == 1
    assert costs["training_seconds"] + costs["evaluation_seconds"] < baseline[1]["seconds"]
    assert 50 < costs["peak_memory_mb"] < 1e5
    read = training.gather_prepared
    monkeypatch.setattr(training, "gather_prepared", lambda *a: (time.sleep(0.5), read(*a))[1])
    slow = fit(replace(baseline[0], epochs=4), study.inputs["DFEW"])["costs"]
    assert slow["bound"] == "input" and slow["input_share"] * slow["training_seconds"] > 1.5


# ---------------------------------------------------------------------------------------------------- initial weights


def test_a_cell_starts_from_the_weights_that_it_names(study, baseline, tmp_path):
    cell, outcome = baseline
    torch.save(outcome["state_dict"], tmp_path / "trained.pt")
    inputs = replace(study.inputs["DFEW"], initial_weights=str(tmp_path / "trained.pt"), initial_fingerprint="abc")
    warm = replace(cell, initialisation="trained before", epochs=1)
    model = _initial_model(warm, inputs)
    for name, value in model.state_dict().items():
        assert torch.equal(value, outcome["state_dict"][name])
    assert not np.array_equal(fit(warm, inputs)["scores"], fit(replace(cell, epochs=1), inputs)["scores"])


def test_an_initialisation_without_its_file_or_with_another_networks_is_a_sentence(study, baseline, tmp_path):
    cell, outcome = baseline
    with pytest.raises(
        InputError, match="initialisation: found 'mae' without a file, expected a checkpoint in CellInputs"
    ):
        fit(replace(cell, initialisation="mae"), study.inputs["DFEW"])
    torch.save(outcome["state_dict"], tmp_path / "former.pt")
    inputs = replace(study.inputs["DFEW"], initial_weights=str(tmp_path / "former.pt"))
    with pytest.raises(
        InputError, match="former.pt: weights: found .*do not fit.* expected weights of m3dfel, size tiny"
    ):
        fit(replace(study.cell("m3dfel", "DFEW"), initialisation="official"), inputs)
    with pytest.raises(InputError, match="nowhere.pt: checkpoint: found no such file"):
        fit(replace(cell, initialisation="mae"), replace(inputs, initial_weights=str(tmp_path / "nowhere.pt")))


def test_initial_weights_for_another_order_of_classes_are_refused(study, baseline, tmp_path):
    cell, outcome = baseline
    inputs = replace(study.inputs["DFEW"], initial_weights=str(tmp_path / "w.safetensors"), initial_fingerprint="abc")
    warm = replace(cell, initialisation="weights", epochs=1)
    for classes in (EXPRESSIONS, EXPRESSIONS[::-1]):
        save_file(
            {name: value.contiguous() for name, value in outcome["state_dict"].items()},
            tmp_path / "w.safetensors",
            metadata={"classes": json.dumps(classes)},
        )
        if classes == EXPRESSIONS:
            _initial_model(warm, inputs)
        else:
            with pytest.raises(InputError, match=f"order of the classes: found {', '.join(classes)}, expected happy"):
                fit(warm, inputs)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"au_ratio": 1.0, "strategy": "global"}, "au_ratio: found 1.0"),
        ({"au_ratio": 0.2}, "strategy with au_ratio"),
        ({"strategy": "global"}, "strategy with au_ratio"),
        ({"au_ratio": 0.2, "strategy": "major"}, "found 'major', expected one of none, global, distinct, minor"),
        ({"model": "m3dfell"}, "model and size"),
        ({"size": "huge"}, "model and size: found 'm3dfel', 'huge'"),
        ({"recipe": "m3dfel-big"}, "recipe: found 'm3dfel-big', expected one of m3dfel-paper"),
        ({"recipe": "former_dfer-tiny"}, "recipe: found 'former_dfer-tiny', expected one of m3dfel-paper"),
        ({"epochs": 0}, "epochs: found 0, expected at least 1"),
        ({"initialisation": ""}, "initialisation: found ''"),
        ({"weights": "knowledge"}, "without an AU head"),
        ({"au_source": "planted"}, "without an AU head"),
        (
            {"au_source": "openface", "au_ratio": 0.2, "strategy": "global"},
            "au_source: found 'openface', expected one of '', planted, shuffled, lac",
        ),
        ({"variant": "A"}, "variant: found 'A', expected '': m3dfel has no variants"),
        ({"variant": "Z", "model": "keypoint_gcn"}, "variant: found 'Z', expected one of A, B, C, D, mean fusion"),
        ({"au_ratio": -0.1}, "au_ratio: found -0.1"),
        ({"precision": "fp16"}, "precision: found 'fp16', expected one of float32, bf16"),
        ({"device": "gpu"}, "device: found 'gpu', expected one of cpu, cuda"),
        ({"accumulate": 0}, "accumulate: found 0, expected at least 1"),
        ({"accumulate": 17}, "accumulate: found 17, expected at most 16"),
        ({"validation": 0.6}, "validation: found 0.6, expected a share of the training clips, 0 to 0.5"),
        ({"seed": -1}, "seed: found -1"),
    ],
)
def test_a_contradictory_cell_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        Cell(**{"model": "m3dfel", "dataset": "DFEW", **change})


def test_asking_for_a_missing_gpu_is_a_sentence():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(AudferError, match="found no CUDA GPU"):
        resolve_device("cuda")


def test_a_table_with_values_that_are_no_labels_is_refused_before_training(study, tmp_path):
    with np.load(study.inputs["DFEW"].au_labels) as stored:
        content = dict(stored)
    content["labels"][3, 2] = -1
    np.savez(tmp_path / "minus.npz", **content)
    inputs = replace(study.inputs["DFEW"], au_labels=str(tmp_path / "minus.npz"))
    for strategy in ("global", "plain"):
        with pytest.raises(InputError, match="minus.npz: labels: found -1, expected 0, 1 or NaN"):
            fit(study.cell("m3dfel", "DFEW", 0.25, strategy), inputs)
