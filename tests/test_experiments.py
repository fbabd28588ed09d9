"""The run store: nothing is trained twice, nothing is half there."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from audfer.errors import AudferError, InputError
from audfer.experiments import RunRecord, RunStore, load_records, run_cells
from audfer.files import locked


@pytest.fixture(scope="module")
def cells(study):
    short = [study.cell("former_dfer", "DFEW"), study.cell("former_dfer", "DFEW", 0.25)]
    return [replace(cell, epochs=1) for cell in short]


@pytest.fixture(scope="module")
def store(tmp_path_factory, study, cells):
    store = RunStore(tmp_path_factory.mktemp("runs"))
    run_cells(cells, study.inputs, store, workers=1)
    return store


def test_a_record_holds_what_tables_need(store, study, cells):
    frame = run_cells(cells, study.inputs, store, workers=1)
    record = load_records(frame)[1]
    packed = study.packed("DFEW")
    test = packed.split("test")
    assert record.clip_ids == [packed.clip_ids[i] for i in test]
    np.testing.assert_array_equal(record.expressions, packed.expressions[test])
    np.testing.assert_allclose(record.scores.sum(1), 1, rtol=1e-5)
    assert record.scores.shape == (len(test), 7) and record.au_scores.shape == (len(test), 18)
    assert record.cell["au_ratio"] == 0.25 and len(record.history) == 1 and record.flops["parameters"] > 1000
    meta = json.loads((record.path / "record.json").read_text())
    assert meta["classes"][0] == "happy" and "middle frame" in meta["frame_sampling"]
    assert (record.path / "weights.safetensors").stat().st_size > 1000
    assert not (store.folder / ".unfinished" / meta["key"]).exists()


def test_a_second_call_trains_nothing(store, study, cells):
    times = {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.npz")}
    assert not run_cells(cells, study.inputs, store, workers=1)["trained"].any()
    assert {p: p.stat().st_mtime_ns for p in store.folder.rglob("*.npz")} == times


def test_deleting_a_record_remakes_only_that_one_with_the_same_numbers(store, study, cells):
    before = load_records(run_cells(cells, study.inputs, store, workers=1))
    shutil.rmtree(before[0].path)
    frame = run_cells(cells, study.inputs, store, workers=1)
    assert frame["trained"].tolist() == [True, False]
    np.testing.assert_array_equal(load_records(frame)[0].scores, before[0].scores)


def test_worker_processes_give_the_numbers_of_this_process(store, study, cells, tmp_path):
    frame = run_cells(cells, study.inputs, RunStore(tmp_path), workers=2)
    for here, there in zip(load_records(run_cells(cells, study.inputs, store, workers=1)), load_records(frame)):
        np.testing.assert_array_equal(here.scores, there.scores)


def test_au_labels_change_the_key_only_where_an_au_head_uses_them(store, study, cells):
    other = replace(study.inputs["DFEW"], au_fingerprint="something else")
    alone, joined = ((store.key(c, study.inputs["DFEW"]), store.key(c, other)) for c in cells)
    assert alone[0] == alone[1] and joined[0] != joined[1]
    clips = replace(study.inputs["DFEW"], fingerprint="other clips")
    assert store.key(cells[0], clips) != store.key(cells[0], study.inputs["DFEW"])


@pytest.mark.parametrize("field, value", [("seed", 1), ("epochs", 2), ("num_frames", 4), ("precision", "bf16")])
def test_every_setting_changes_the_key(store, study, cells, field, value):
    inputs = study.inputs["DFEW"]
    assert store.key(replace(cells[0], **{field: value}), inputs) != store.key(cells[0], inputs)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_cell_is_a_row_and_the_others_go_on(study, cells, tmp_path, workers):
    broken = replace(cells[0], image_size=8)  # no network takes that
    frame = run_cells([broken, cells[0]], study.inputs, RunStore(tmp_path), workers=workers)
    assert "image_size is 8" in frame["error"][0] and frame["error"].isna()[1]
    with pytest.raises(AudferError, match="1 of 2 cells failed: former_dfer DFEW"):
        load_records(frame)


def test_a_store_in_use_is_refused(study, cells, tmp_path):
    with locked(tmp_path), pytest.raises(AudferError, match="another process is using this run store"):
        run_cells(cells, study.inputs, RunStore(tmp_path), workers=1)


def test_a_damaged_record_is_named(store, study, cells, tmp_path):
    source = load_records(run_cells(cells, study.inputs, store, workers=1))[0].path
    shutil.copytree(source, tmp_path / "damaged")
    (tmp_path / "damaged" / "test.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="damaged: run record: found .*delete the folder"):
        RunRecord.load(tmp_path / "damaged")
