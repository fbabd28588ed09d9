"""Records travel, and a grid with a budget goes on from what has arrived."""

import json
import os
import shutil
import time
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audfer.companion.commands import needed_first
from audfer.errors import InputError
from audfer.results.builder import open_records
from audfer.study.profiles import load_profile
from audfer.study.study import Study
from audfer.training.parcels import export_records, import_records
from audfer.training.records import LEFT, RunStore, load_records, run_cells


@pytest.fixture(scope="module")
def cells(study):
    return [replace(study.cell("former_dfer", "DFEW", ratio), epochs=2) for ratio in (0.0, 0.25)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, study, cells):
    """A store that was trained in one go."""
    store = RunStore(tmp_path_factory.mktemp("whole"))
    assert run_cells(cells, study.inputs, store, workers=1)["error"].isna().all()
    return store


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def same_numbers(records, others):
    for one, other in zip(records, others, strict=True):
        timeless = [record.history.drop(columns="seconds") for record in (one, other)]
        pd.testing.assert_frame_equal(*timeless, check_exact=True)
        for name in ("scores", "best_scores", "au_scores", "au_labels", "positive_weights"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def note_fig8(store, shown):
    keys = sorted(path.parent.name for path in store.folder.glob("[!.]*/record.json"))
    grid = {"format": 1, "cells": [{"key": key} for key in keys], "outputs": {"fig8": shown}}
    store.grid_path.write_text(json.dumps(grid))
    return keys


def test_records_arrive_bit_for_bit_without_weights(whole, study, cells, tmp_path):
    files = export_records(whole, tmp_path / "out")
    there = RunStore(tmp_path / "there")
    taken, present = import_records(there, files)
    assert len(taken) == 2 and not present
    for key in taken:  # byte for byte what was written, but for the weights and what says that they are there
        for name in ("test.npz", "history.csv"):
            assert (there.path(key) / name).read_bytes() == (whole.path(key) / name).read_bytes()
        assert not (there.path(key) / "weights.safetensors").exists()
    again = export_records(there, tmp_path / "again")
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]
    frame = run_cells(cells, study.inputs, there, workers=1)  # nothing is trained for want of weights
    assert not frame["trained"].any()
    same_numbers(load_records(frame), load_records(run_cells(cells, study.inputs, whole, workers=1)))
    assert import_records(there, files) == ([], taken)


def test_features_travel_where_fig8_needs_them(whole, tmp_path):
    store = RunStore(tmp_path / "store")
    shutil.copytree(whole.folder, store.folder, ignore=shutil.ignore_patterns(".*"))
    keys = note_fig8(store, [1])
    there = RunStore(tmp_path / "there")
    import_records(there, export_records(store, tmp_path / "out"))
    assert [record.features is None for record in there.records()] == [True, False]
    assert there.grid_path.read_bytes() == store.grid_path.read_bytes()
    np.testing.assert_array_equal(there.records()[0].scores, store.records()[0].scores)
    assert all(there.has(key) for key in keys)


def test_no_file_is_larger_than_it_may_be(whole, tmp_path):
    sizes = [file.stat().st_size for file in export_records(whole, tmp_path / "out")]
    largest = sizes[0] * 3 // 4  # one record does, two do not
    files = export_records(whole, tmp_path / "out", largest)
    assert len(files) == 2 and max(file.stat().st_size for file in files) <= largest
    assert sorted((tmp_path / "out").iterdir()) == files
    with pytest.raises(InputError, match="bytes of the record"):
        export_records(whole, tmp_path / "out", 1000)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def _members(path, change):
    with zipfile.ZipFile(path) as parcel:
        files = {name: parcel.read(name) for name in parcel.namelist()}
    with zipfile.ZipFile(path, "w") as parcel:
        for name, data in change(files).items():
            parcel.writestr(name, data)


@pytest.mark.parametrize(
    "spoil",
    [
        _truncate,
        lambda path: path.write_text("no zip"),
        lambda path: path.unlink(),
        lambda path: _members(path, lambda files: files | {"../outside/record.json": b"{}"}),
        lambda path: _members(path, lambda files: files | {"0123/evil.py": b""}),
        lambda path: _members(path, lambda files: files | {"grid.json": b"{"}),
        lambda path: _members(path, lambda files: {n: d for n, d in files.items() if "history" not in n}),
        lambda path: _members(path, lambda files: {n: d[:-9] if n.endswith("npz") else d for n, d in files.items()}),
        lambda path: _members(path, lambda files: {f"9{n[1:]}": d for n, d in files.items()}),
    ],
    ids=["cut", "text", "gone", "path", "name", "grid", "file missing", "bytes missing", "another's key"],
)
def test_what_is_no_parcel_is_refused_and_leaves_nothing(spoil, whole, tmp_path):
    (file,) = export_records(whole, tmp_path / "out")
    spoil(file)
    there = RunStore(tmp_path / "there")
    with pytest.raises(InputError, match="audfer records export"):
        import_records(there, [file])
    assert not list(there.folder.glob("*/record.json")) and not (tmp_path / "outside").exists()


def test_an_empty_or_damaged_store_is_not_packed(whole, tmp_path):
    with pytest.raises(InputError, match="run records"):
        export_records(RunStore(tmp_path / "none"), tmp_path / "out")
    store = RunStore(tmp_path / "store")
    shutil.copytree(whole.folder, store.folder, ignore=shutil.ignore_patterns(".*"))
    _truncate(sorted(store.folder.glob("*/test.npz"))[0])
    with pytest.raises(InputError, match="run record"):
        export_records(store, tmp_path / "out")


def test_a_budget_stops_between_epochs_and_another_machine_goes_on(whole, study, cells, tmp_path):
    # no cell is known, so the first is begun and left after an epoch, the other not begun
    here = RunStore(tmp_path / "here")
    epoch = whole.spent()["seconds"].min() / 2
    frame = run_cells(cells, study.inputs, here, workers=1, until=time.time() + epoch)
    assert frame["error"].tolist() == [f"{LEFT}, after epoch 1 of 2", LEFT] and not frame["trained"].any()
    assert here.epochs_done(frame["key"][0]) == 1 and not here.failure(frame["key"][0])
    # on the same disk it goes on; time for one cell only
    frame = run_cells(cells[:1], study.inputs, here, workers=1, until=time.time() + 600)
    assert frame["trained"].all()
    # on another machine from the records alone
    there = RunStore(tmp_path / "there")
    import_records(there, export_records(here, tmp_path / "parcels"))
    frame = run_cells(cells, study.inputs, there, workers=1, until=time.time() + 600)
    assert frame["trained"].tolist() == [False, True]
    same_numbers(load_records(frame), load_records(run_cells(cells, study.inputs, whole, workers=1)))


def test_a_budget_takes_the_cells_that_fit_in_the_order_given(whole, cells, study, tmp_path):
    """A cell far beyond the budget stands first: it waits for those that fit, and gets what time they leave."""
    store = RunStore(tmp_path)
    import_records(store, export_records(whole, tmp_path / "parcels"))
    known = store.spent()["seconds"].sum() / 4  # seconds an epoch; the records are of two epochs each
    endless, *short = (replace(cells[0], epochs=n, seed=seed) for seed, n in ((1, 100_000), (2, 2), (3, 1)))
    frame = run_cells([endless, *short], study.inputs, store, workers=1, until=time.time() + max(20 * known, 6))
    assert frame["trained"].tolist() == [False, True, True], frame["error"].tolist()
    assert frame["error"][0].startswith(LEFT)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    begun = [line["key"] for line in log if line["event"] == "begin"]
    assert begun[:2] == frame["key"][1:].tolist() and set(begun[2:]) <= {frame["key"][0]}
    assert not store.failure(frame["key"][0])


def test_a_budget_goes_to_the_first_seed_of_all_tables_before_the_next():
    gpu = Study(load_profile("gpu"), "w", "f", anywhere=True)
    outputs = ("keypoint_classes", "table1", "fig5")
    cells = list(dict.fromkeys(cell for output in outputs for cell in gpu.cells(output)))
    ordered = needed_first(cells, gpu.profile.grid.models)
    assert sorted(map(repr, ordered)) == sorted(map(repr, cells))
    first = [cell for cell in gpu.cells("table1") if cell.seed == 0]
    assert ordered[: len(first)] == first and {cell.dataset for cell in first} == set(gpu.profile.grid.datasets)
    places = [(cell.model == "keypoint_gcn", cell.seed) for cell in ordered]
    assert places == sorted(places) and {seed for _, seed in places} == {0, 1, 2}


def test_a_grid_stopped_here_and_gone_on_with_elsewhere_gives_the_tables_of_one_run(study, tmp_path):
    """Fig. 7's cells under a budget, their records in another work folder, and the rest there; against one run."""
    profile = replace(study.profile, grid=replace(study.profile.grid, ratio_model="former_dfer"))
    assert study.inputs

    def machine(name):
        # each machine makes the clips itself; here they share them, and nothing else: so far apart, no record of one
        # is another profile's for the others to borrow
        work = tmp_path / name / "somewhere" / "work"
        (work / study.profile.name).mkdir(parents=True)
        for made in study.work.iterdir():
            if made.name != "runs":
                os.symlink(made, work / study.profile.name / made.name)
        return Study(profile, work, tmp_path / "figures")

    alone, here, there = map(machine, ("alone", "here", "there"))
    records = alone.records("fig7")
    cells = here.noted_cells("fig7")
    for _ in range(5):  # until one of the two cells is through
        frame = here.train(cells, until=time.time() + records[0].seconds / 2)
        if frame["trained"].any():
            break
    assert frame["trained"].tolist() == [True, False] and frame["error"][1].startswith(LEFT), frame["error"].tolist()
    taken, _ = import_records(there.store, export_records(here.store, tmp_path / "parcels"))
    assert len(taken) == 1
    same_numbers(there.records("fig7"), records)
    tables = [open_records(one.store.folder, tmp_path).results("fig7").frame for one in (there, alone)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
