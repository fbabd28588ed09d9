"""``audfer compare``: which cells are paired, what is said of their settings, and whose numbers the differences are."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from fake_records import write_record

from audfer.companion import cli
from audfer.companion.compare import compare_runs, records_of
from audfer.errors import InputError
from audfer.evaluation import compare, summary
from audfer.training.loop import Cell
from audfer.training.records import RunStore

HEAD = {"au_ratio": 0.25, "strategy": "global", "weights": "knowledge"}
CELLS = [
    Cell(model, "DFEW", seed=seed, **head) for model in ("m3dfel", "mae_dfer") for seed in (0, 1) for head in ({}, HEAD)
]


def store_of(folder, cells, keys="k"):
    store = RunStore(folder)
    for number, cell in enumerate(cells):
        write_record(store, f"{keys}{number:03d}", cell)
        path = store.path(f"{keys}{number:03d}") / "record.json"
        meta = json.loads(path.read_text())
        path.write_text(json.dumps(meta | {"recipe": {**asdict(cell.training_recipe)}}))
    return store


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and another of more epochs with one network less."""
    work = tmp_path_factory.mktemp("work")
    store_of(work / "laptop" / "runs", CELLS)
    longer = [replace(cell, epochs=20) for cell in CELLS if cell.model == "m3dfel"]
    store_of(work / "laptop+training.epochs=20" / "runs", longer, "l")
    return work


def test_cells_are_paired_and_their_differences_are_those_of_the_evaluation(runs):
    first, second = (records_of(name, runs) for name in ("laptop", "laptop+training.epochs=20"))
    made = compare_runs(first, second)
    assert list(made.frame["variant"].unique()) == ["without AU", "with AU, lambda 0.25, global"]
    assert len(made.frame) == 4 and set(made.frame["network"]) == {"m3dfel"} and set(made.frame["seeds"]) == {2}
    sides = [[r for r in run if r.cell["model"] == "m3dfel" and not r.cell["au_ratio"]] for run in (first, second)]
    expected, row = compare(*sides), made.frame[made.frame["variant"] == "without AU"].set_index("metric").loc["UAR"]
    assert row["difference"] == pytest.approx(100 * expected.uar.value)
    assert row["difference_low"] == pytest.approx(100 * expected.uar.low) and row["p"] == expected.uar_p
    assert row["second"] == pytest.approx(100 * summary(sides[1]).uar.value)
    assert made.changed == {"epochs": ("12", "20")}
    assert len(made.alone["only in the first run"]) == 2 and not made.alone["only in the second run"]
    assert "epochs: 12 -> 20" in str(made) and "only in the first run: 2, the first MAE-DFER on DFEW" in str(made)


def test_of_two_records_of_one_cell_and_seed_the_one_written_last_counts(tmp_path):
    """A store keeps what it was trained before, with other epochs or data."""
    former = [replace(cell, epochs=3) for cell in CELLS]
    store_of(tmp_path / "runs", former, "a")
    store_of(tmp_path / "runs", CELLS, "b")
    for path in (tmp_path / "runs").glob("a*/record.json"):
        os.utime(path, (1, 1))
    records = records_of(tmp_path / "runs", tmp_path)
    made = compare_runs(records, [record for record in records if record.cell["epochs"] == CELLS[0].epochs])
    assert len(records) == 2 * len(CELLS) and not made.changed and (made.frame["difference"] == 0).all()
    assert set(made.frame["seeds"]) == {2}


def test_a_changed_ratio_is_named_and_paired_where_nothing_else_differs(runs, tmp_path):
    changed = [replace(cell, au_ratio=0.5) if cell.au_ratio else cell for cell in CELLS]
    other = store_of(tmp_path / "runs", changed).records()
    made = compare_runs(records_of(runs / "laptop", runs), other)
    assert made.changed == {"au_ratio": ("0.25", "0.5")} and len(made.frame) == 8


def test_changed_recipes_are_named_by_their_numbers(runs, tmp_path):
    changed = [replace(cell, recipe="m3dfel-tiny +batch_size=8") for cell in CELLS if cell.model == "m3dfel"]
    made = compare_runs(records_of("laptop", runs), store_of(tmp_path / "runs", changed).records())
    assert made.changed == {"recipe.batch_size": ("16", "8")}


def test_single_records_are_compared_whatever_they_are_and_other_clips_are_not(runs, tmp_path):
    store = RunStore(runs / "laptop" / "runs")
    one, other = (records_of(store.path(key), runs) for key in ("k000", "k001"))
    assert compare_runs(one, other).changed["au_ratio"] == ("0.0", "0.25")
    fold = store_of(tmp_path / "runs", [replace(CELLS[0], dataset="MAFW")]).records()
    made = compare_runs(one, fold)
    assert not len(made.frame) and len(made.alone["judged on other clips"]) == 1


def test_the_command_prints_and_writes_the_differences(runs, tmp_path, capsys):
    command = ["compare", "laptop", "laptop+training.epochs=20", "--work", str(runs), "--csv", str(tmp_path / "d.csv")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "M3DFEL" in said and "epochs: 12 -> 20" in said and max(map(len, said.splitlines())) <= 120
    table = pd.read_csv(tmp_path / "d.csv")
    np.testing.assert_allclose(table["second"] - table["first"], table["difference"], atol=1e-3)
    with pytest.raises(InputError, match="RUN: found 'nothing', expected a profile with records in"):
        records_of("nothing", runs)
