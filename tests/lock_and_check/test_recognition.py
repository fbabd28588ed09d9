"""Lock and Check as a recogniser: cells, training, calibration, records, windows of clips."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from audfer.action_units.estimator import ZERO_BELOW, ActionUnitEstimator, calibration_subjects
from audfer.datasets.annotated import read_annotated
from audfer.datasets.annotated_frames import open_annotated, pack_annotated
from audfer.errors import AudferError, InputError
from audfer.facs import ACTION_UNITS, INTENSITY_INDEX
from audfer.files import file_digest
from audfer.lock_and_check import training as recognition
from audfer.lock_and_check.network import build_lac, load_estimator
from audfer.lock_and_check.training import (
    COMPONENTS,
    KNOTS,
    RECIPES,
    Recogniser,
    RecognitionCell,
    RecognitionInputs,
    RecognitionRecord,
    RecognitionStore,
    batch_terms,
    build_network,
    epoch_windows,
    fit,
    frame_f1,
    intensity_knots,
    recalls,
    split,
    stored_maps,
    total_loss,
)
from audfer.synth import SynthConfig, drawn_landmarks, write_benchmark
from audfer.training.records import run_cells

SMALL = {"size": "tiny", "image_size": 32, "window": 4, "segments": 2, "epochs": 2, "batch": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """9 rendered people of 12 frames, packed at 32 pixels."""
    root = tmp_path_factory.mktemp("annotated")
    write_benchmark(root, SynthConfig(image_size=32, disfa_subjects=9, disfa_frames=12), ("DISFA",), progress=False)
    return pack_annotated(
        read_annotated("DISFA", root / "DISFA"), root / "DISFA", root / "packed", 32, drawn=drawn_landmarks
    )


@pytest.fixture(scope="module")
def inputs(data):
    return RecognitionInputs(str(data.frames.filename).rsplit("/", 1)[0], data.meta["fingerprint"])


@pytest.fixture(scope="module")
def cells():
    return [RecognitionCell(**COMPONENTS[name], **SMALL) for name in ("LAC", "baseline")]


@pytest.fixture(scope="module")
def store(tmp_path_factory, cells, inputs):
    store = RecognitionStore(tmp_path_factory.mktemp("recognition"))
    frame = run_cells(cells, {"annotated": inputs}, store, workers=1)
    assert frame["error"].isna().all() and frame["trained"].all()
    return store


@pytest.fixture(scope="module")
def records(store, cells, inputs):
    return [RecognitionRecord.load(store.path(store.key(cell, inputs))) for cell in cells]


# ---- cells


def test_table_iv_is_a_grid_of_switches():
    found = [RecognitionCell(**switches, **SMALL) for switches in COMPONENTS.values()]
    assert [cell.components for cell in found] == list(COMPONENTS) and len(set(found)) == 7
    # the published table says which row has what
    from audfer import published

    printed = published.load("lac_table4")
    for cell, row in zip(found, printed.itertuples(), strict=True):
        mine = (
            cell.temporal_sampling,
            cell.localisation,
            cell.activation,
            cell.local_to_global,
            cell.check,
            cell.loss == "DWA",
        )
        assert mine == tuple(value == "y" for value in (row.TS, row.L_loc, row.L_act, row.L_l2g, row.ST, row.L_DWA))
    assert replace(found[-1], activation=False).components == "TS + L_loc + L_l2g + ST + L_DWA"


def test_paper_recipes_have_the_printed_numbers():
    clips, stills = RECIPES["paper"]
    assert (clips.optimizer, clips.learning_rate, clips.weight_decay, clips.betas) == (
        "adamw",
        1e-4,
        5e-4,
        (0.9, 0.999),
    )
    assert (clips.epochs, clips.batch_size, stills.epochs, stills.batch_size) == (200, 8, 20, 64)
    assert clips.augmentation.flip == 0.5 and clips.augmentation.colour_jitter > 0 and clips.augmentation.crop == "none"


@pytest.mark.parametrize(
    "field, value, sentence",
    [
        ("loss", "BCE", "one of CE, WA, DWA"),
        ("window", 0, "window: found 0, expected at least 1"),
        ("size", "huge", "one of paper"),
        ("temporal_sampling", False, "check without temporal_sampling"),
        ("localisation_form", "none", "one of bounded, paper"),
        ("precision", "fp8", "one of float32, bf16"),
        ("initialisation", "", "'scratch'"),
    ],
)
def test_cells_that_cannot_be_are_sentences(field, value, sentence):
    with pytest.raises(InputError, match=sentence):
        RecognitionCell(**{**SMALL, field: value})


# ---- data and windows


def test_packed_frames_have_labels_landmarks_and_subjects(data, tmp_path):
    assert (
        data.frames.shape == (108, 32, 32, 3)
        and data.landmarks.shape == (108, 68, 2)
        and data.action_units == ACTION_UNITS
    )
    np.testing.assert_array_equal(data.labels, (data.codes >= 2).astype(np.float32))
    assert data.meta["faces"] == "rendered faces"
    with pytest.raises(InputError, match="packed annotated frames"):
        open_annotated(tmp_path)


@pytest.mark.parametrize("name", ["frames.npy", "landmarks.npy", "table.parquet"])
def test_damaged_packed_frames_are_named_and_made_again(data, tmp_path, name, capsys):
    source = Path(data.frames.filename).parent
    shutil.copytree(source, tmp_path / "packed")
    content = (source / name).read_bytes()
    (tmp_path / "packed" / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="packed annotated frames"):
        open_annotated(tmp_path / "packed")
    table = read_annotated("DISFA", source.parent / "DISFA")
    pack_annotated(table, source.parent / "DISFA", tmp_path / "packed", 32, drawn=drawn_landmarks)
    assert "made again" in capsys.readouterr().err and (tmp_path / "packed" / name).read_bytes() == content


def test_no_subject_is_in_two_splits_and_the_calibration_people_are_the_estimators(data):
    parts = [set(data.subjects[rows]) for rows in split(data, 1, 3)]
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]) and sum(map(len, parts)) == 9
    outside = np.unique(data.subjects[data.table["fold"] != 1])
    assert parts[1] == set(calibration_subjects(outside, 3)) and set(data.table["fold"][split(data, 1, 3)[2]]) == {1}
    with pytest.raises(InputError, match="subjects inside and outside of fold 7"):
        split(data, 7)


def test_still_frames_are_as_many_as_windows_have_and_every_subject_gives_equally_many_windows(data, cells):
    rows = split(data, 1)[0]
    windows = epoch_windows(cells[0], data.table, rows, np.random.default_rng(0))
    stills = epoch_windows(cells[1], data.table, rows, np.random.default_rng(0))
    assert (
        windows.size == stills.size
        and stills.shape[1] == 1
        and set(windows.ravel()) <= set(rows) >= set(stills.ravel())
    )
    assert set(np.unique(data.subjects[windows[:, 0]], return_counts=True)[1]) == {2}
    assert (np.diff(data.table["frame"].to_numpy()[windows], axis=1) == 1).all()
    assert np.unique(stills, return_counts=True)[1].max() - len(stills) // len(rows) <= 1


# ---- losses


def test_the_total_has_the_papers_weights_and_a_term_that_is_off_is_not_there(data):
    windows = split(data, 1)[0][:8].reshape(2, 4)
    frames = torch.from_numpy(data.frames[windows]).permute(0, 1, 4, 2, 3) / 255
    batch = frames, torch.from_numpy(data.landmarks[windows]), torch.from_numpy(data.labels[windows])
    network = build_lac("tiny", image_size=32, window=4)
    cell = RecognitionCell(**SMALL)
    terms, logits = batch_terms(cell, network, *batch, None)
    assert set(terms) == set(recognition.TERMS) and logits.shape == (2, 4, 18)
    expected = (
        0.5 * terms["localisation"]
        + 0.5 * terms["activation"]
        + 0.01 * terms["local_to_global"]
        + 0.5 * terms["first"]
        + terms["second"]
    )
    assert torch.allclose(total_loss(terms), expected)
    terms, _ = batch_terms(replace(cell, localisation=False, local_to_global=False), network, *batch, None)
    assert set(terms) == {"activation", "first", "second"}
    # no region is known: nothing to learn from regions, and nothing infinite
    terms, _ = batch_terms(cell, network, batch[0], torch.full_like(batch[1], torch.nan), batch[2], None)
    assert terms["localisation"] == 0 and terms["activation"] == 0 and torch.isfinite(total_loss(terms))


def test_recall_and_f1_by_hand():
    labels = np.array([[1, 0, np.nan], [1, 0, 1], [0, 0, np.nan]], np.float32)
    logits = np.array([[2, -1, 5], [-2, -1, 1], [3, -1, -4]], np.float32)
    np.testing.assert_array_equal(recalls(labels, logits), [0.5, np.nan, 1])
    np.testing.assert_array_equal(frame_f1(labels, logits), [0.5, np.nan, 1])


# ---- training


def test_training_lowers_the_loss_and_the_record_has_everything(records, cells, data):
    longer = fit(replace(cells[0], epochs=8), RecognitionInputs(str(data.frames.filename).rsplit("/", 1)[0], ""))
    assert longer["history"]["loss"].iloc[-1] < longer["history"]["loss"].iloc[0] - 0.05
    record = records[0]
    held = split(data, 1)[2]
    np.testing.assert_array_equal(record.rows, held)
    np.testing.assert_array_equal(record.labels, data.labels[held])
    assert record.probabilities.shape == (len(held), 18) and not np.isnan(record.probabilities).any()
    assert record.training_recall.shape == record.weights.shape == (2, 18) and record.intensity.shape == (len(held), 17)
    assert record.meta["frames_an_epoch"] == 2 * 4 * record.meta["subjects"]["training"]
    assert (records[1].weights == 1).all()  # L_CE has no weights
    assert np.isfinite(record.weights).all() and record.weights.std() > 0
    present = record.presence("calibrated")
    assert set(np.unique(present)) <= {0, 1} and (record.presence("0.5") == (record.probabilities >= 0.5)).all()
    with pytest.raises(InputError, match="one of 0.5, calibrated"):
        record.presence("best")


def test_the_same_seed_gives_the_same_record_and_it_is_found_again(store, records, cells, inputs, tmp_path):
    assert not run_cells(cells, {"annotated": inputs}, store, workers=1)["trained"].any()
    again = RecognitionStore(tmp_path)
    run_cells(cells[:1], {"annotated": inputs}, again, workers=1)
    other = RecognitionRecord.load(again.path(again.key(cells[0], inputs)))
    np.testing.assert_array_equal(other.logits, records[0].logits)
    pd.testing.assert_frame_equal(other.history.drop(columns="seconds"), records[0].history.drop(columns="seconds"))
    keys = {again.key(cell, inputs) for cell in (*cells, replace(cells[0], seed=1), replace(cells[0], window=2))}
    assert len(keys | {again.key(cells[0], replace(inputs, fingerprint="other"))}) == 5


def test_a_killed_training_goes_on_to_the_same_numbers(records, cells, inputs, tmp_path):
    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    with pytest.raises(Stop):
        fit(cells[0], inputs, tmp_path, stop)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1
    found = fit(cells[0], inputs, tmp_path)
    np.testing.assert_array_equal(found["logits"]["held_out"], records[0].logits)
    np.testing.assert_array_equal(found["history"]["loss"], records[0].history["loss"])


def test_a_process_that_is_killed_costs_an_epoch(records, cells, inputs, tmp_path, fresh_process):
    store = RecognitionStore(tmp_path)
    key = store.key(cells[0], inputs)
    process = fresh_process(store.make, (key, cells[0], inputs))
    process.start()
    until = time.monotonic() + 60
    while not (store.scratch(key) / "state.pt").is_file() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL or store.has(key)
    assert run_cells(cells[:1], {"annotated": inputs}, store, workers=1)["error"].isna().all()
    np.testing.assert_array_equal(RecognitionRecord.load(store.path(key)).logits, records[0].logits)


def test_a_loss_that_is_not_finite_is_a_sentence(cells, inputs, monkeypatch):
    monkeypatch.setattr(recognition, "total_loss", lambda terms, size: sum(terms.values()) * float("nan"))
    with pytest.raises(AudferError, match="the loss became nan in epoch 1, batch 1 of .* lower the learning rate"):
        fit(cells[1], inputs)


def test_weights_that_have_seen_the_held_out_subjects_are_refused(cells, inputs):
    warm = replace(cells[0], initialisation="estimator")
    with pytest.raises(InputError, match="'estimator' without a file"):
        fit(warm, inputs)
    with pytest.raises(InputError, match="weights that were trained with fold 2 held out"):
        fit(warm, replace(inputs, initial_weights="w.safetensors", initial_fold=2))


# ---- maps of the stages that are not trained


@pytest.fixture(scope="module")
def warm(inputs, tmp_path_factory):
    """A cell that starts from an estimator's weights, and its inputs."""
    folder = tmp_path_factory.mktemp("estimator")
    torch.manual_seed(0)
    ActionUnitEstimator(32).save(folder)
    weights = folder / "estimator.safetensors"
    cell = RecognitionCell(**{**SMALL, "size": "estimator", "initialisation": "estimator"})
    return cell, replace(inputs, initial_weights=str(weights), initial_fingerprint=file_digest(weights), initial_fold=1)


def test_stored_maps_are_the_trunks_of_the_pictures_and_of_their_mirror_images(warm, data):
    cell, inputs = warm
    maps = stored_maps(cell, inputs)
    network = build_network(cell, data.action_units)
    load_estimator(network, load_file(inputs.initial_weights))
    network.eval()
    windows = split(data, 1)[0][:12].reshape(3, 4)
    frames = torch.from_numpy(data.frames[windows]).permute(0, 1, 4, 2, 3)
    mirrored = torch.tensor([False, True, True])
    shown = torch.where(mirrored[:, None, None, None, None], frames.flip(-1), frames)
    given, points = maps.take(windows, mirrored)
    with torch.inference_mode():
        trunk = network.backbone.trunk(shown.flatten(0, 1) / 255).unflatten(0, (3, 4))
        torch.testing.assert_close(given, trunk, atol=2e-3, rtol=2e-3)  # stored in half precision
        torch.testing.assert_close(network.from_maps(given).logits, network(shown).logits, atol=5e-3, rtol=5e-3)
        assert not torch.allclose(maps.take(windows)[0][1], given[1], atol=0.1)  # a face is not its own mirror image
    own = torch.from_numpy(data.landmarks[windows])
    torch.testing.assert_close(points[0], own[0])
    # the right eye's corner has become the left one's, at the other side
    torch.testing.assert_close(points[1:, :, 45], own[1:, :, 36] * torch.tensor([-1, 1]) + torch.tensor([1, 0]))


def test_cells_learn_from_stored_maps_what_they_are_then_shown_pictures_with(warm, data):
    cell, inputs = warm
    maps = Path(inputs.annotated).with_name("annotated_maps")
    stored_maps(cell, inputs)
    before = (maps / "maps.npy").stat().st_mtime_ns
    outcome = fit(cell, inputs)
    assert (maps / "maps.npy").stat().st_mtime_ns == before  # found, not made again
    network, weights = outcome["network"], load_file(inputs.initial_weights)
    for name, value in network.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, weights[name]) == (not name.startswith("stages.2.")), name
    # judged from pictures: the same logits
    rows = outcome["rows"]["calibration"]
    found = recognition.judge_rows(network, data, rows, cell)
    np.testing.assert_allclose(found, outcome["logits"]["calibration"], atol=0.02)
    assert found.std() > 0.1
    # other weights, other maps
    stored_maps(cell, replace(inputs, initial_fingerprint="other"))
    assert (maps / "maps.npy").stat().st_mtime_ns > before
    assert stored_maps(replace(cell, initialisation="scratch"), inputs) is None


def test_the_estimators_size_weighs_localisation_less_and_says_so():
    terms = dict(zip(recognition.TERMS, torch.eye(5), strict=True))
    torch.testing.assert_close(total_loss(terms), torch.tensor([0.5, 0.5, 0.01, 0.5, 1.0]))
    torch.testing.assert_close(total_loss(terms, "estimator"), torch.tensor([0.05, 0.5, 0.01, 0.5, 1.0]))


# ---- the recogniser


def test_the_mapping_to_intensities_rises_and_has_the_codes_mean_and_spread():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 6, 4000).astype(np.float32)
    logits = (np.exp(codes / 3) + generator.normal(0, 0.3, 4000)).astype(np.float32)  # bent, as a classifier's
    places, values = intensity_knots(logits, codes)
    assert places.shape == values.shape == (KNOTS,) and (np.diff(places) > 0).all() and (np.diff(values) >= 0).all()
    found = np.interp(logits, places, values)
    assert abs(found.mean() - codes.mean()) < 0.1 and abs(found.std() - codes.std()) < 0.1
    line = np.corrcoef(logits, codes)[0, 1]
    assert np.corrcoef(found, codes)[0, 1] > line and spearmanr(found, logits)[0] > 0.95
    # nothing to learn from: the mean code
    assert (intensity_knots(-logits, codes)[1] == np.float32(codes.mean())).all()


def test_calibrated_thresholds_call_as_many_frames_present_as_are_coded():
    generator = np.random.default_rng(0)
    network = build_lac("tiny", image_size=32, action_units=("AU12", "AU28"))
    codes = generator.integers(0, 6, (500, 2)).astype(np.float32)
    labels = (codes >= 2).astype(np.float32)
    logits = (codes - 4 + generator.normal(size=codes.shape)).astype(np.float32)
    found = Recogniser.calibrate(network, logits, codes, labels, {})
    intensity, presence, probability = found.calibrated(logits)
    assert intensity.shape == (500, 17) and presence.shape == probability.shape == (500, 18)
    known = [ACTION_UNITS.index("AU12"), ACTION_UNITS.index("AU28")]
    np.testing.assert_array_equal(presence[:, known].sum(0), labels.sum(0))
    assert np.isnan(np.delete(presence, known, axis=1)).all() and np.isnan(intensity).all(0).sum() == 16
    values = intensity[:, list(INTENSITY_INDEX).index(known[0])]
    assert (values == 0).any() and not ((values > 0) & (values < ZERO_BELOW)).any() and values.max() <= 5


def test_clips_judged_together_are_judged_as_each_alone_and_survive_saving(records, data, tmp_path):
    found = Recogniser.load(records[0].path)
    assert found.window == 4 and found.image_size == 32 and found.description["trained_on"] == "rendered faces"
    clips = [
        np.asarray(data.frames[start : start + count])
        for start, count in ((0, 1), (12, 3), (24, 4), (36, 9), (48, 12), (60, 0))
    ]
    together = found.predict_clips(clips, batch=3)
    for clip, mine in zip(clips, together, strict=True):
        for one, other in zip(found.predict(clip), mine, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
            assert len(one) == len(clip)
    # the second window of nine frames starts at 4, the last is shifted back to 5 and gives frame 8 alone
    raw = [found.judge(clips[3][None, start : start + 4])[0] for start in (0, 4, 5)]
    np.testing.assert_allclose(
        together[3][2], found.calibrated(np.concatenate((raw[0], raw[1], raw[2][-1:])))[2], atol=1e-5
    )
    found.save(tmp_path)
    np.testing.assert_array_equal(Recogniser.load(tmp_path).predict(clips[4])[0], together[4][0])
    bigger = np.repeat(np.repeat(clips[2], 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(found.predict(bigger)[2], together[2][2], atol=0.05)  # resized


def test_a_folder_without_a_recogniser_is_a_sentence(tmp_path, records):
    with pytest.raises(InputError, match="recogniser: found no readable one"):
        Recogniser.load(tmp_path)
    with pytest.raises(InputError, match="recognition record: found FileNotFoundError"):
        RecognitionRecord.load(tmp_path)
    meta = json.loads((records[0].path / "record.json").read_text())
    assert meta["cell"] == asdict(RecognitionCell(**COMPONENTS["LAC"], **SMALL)) and "calibrated" in meta["thresholds"]
