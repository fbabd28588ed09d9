"""Tables and figures from run records alone: the same bytes anywhere, and what is missing is said."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_records import fake_store
from matplotlib import pyplot
from paths import ROOT

from audfer.companion import cli
from audfer.errors import AudferError, InputError
from audfer.results import builder as results
from audfer.study.outputs import OUTPUTS
from audfer.study.study import Study
from audfer.training.loop import Cell
from audfer.training.records import RunStore


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a record of every cell of the smoke profile, as a study leaves it."""
    return fake_store(tmp_path_factory.mktemp("records"))


def files_of(folder: Path) -> dict[str, bytes]:
    """Name -> content; of a sidecar what does not tell one run from another that gave the same files."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for name in contents:
        if name.endswith(".json"):
            about = json.loads(contents[name])
            assert about.pop("seconds").keys() == {"making", "training"} and about.pop("code") and about.pop("hardware")
            contents[name] = json.dumps(about).encode()
    return contents


def test_what_a_study_saves_comes_out_of_a_copy_of_its_store_byte_for_byte(study, tmp_path):
    """The real chain: cells trained here, notebooks' calls; then the store alone, elsewhere."""
    short = replace(study.profile, training=replace(study.profile.training, epochs=1))
    own = Study(short, study.work.parent, tmp_path / "figures")
    own.store = RunStore(tmp_path / "runs")
    for result in map(own.results, ("table1", "fig7", "au_head")):
        for part in filter(None, (result, result.picture)):
            part.save()
    shutil.move(own.store.folder, tmp_path / "elsewhere")
    for weights in (tmp_path / "elsewhere").glob("*/weights.safetensors"):  # most of a store, and no table needs them
        weights.unlink()
    made = results.rebuild(results.open_records(tmp_path / "elsewhere", tmp_path / "again"))
    first, second = files_of(own.figures), files_of(made.folder)
    assert len(first) == 15 and {name: second[name] for name in first} == first
    assert "fig8_tsne" in made.incomplete and made.missing  # nobody has trained those


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    return results.rebuild(results.open_records(made.folder, tmp_path_factory.mktemp("whole")))


def test_everything_is_made_from_a_whole_store(whole):
    assert not whole.missing and not whole.incomplete
    names = {saved.name for saved in whole.saved}
    assert {
        "table1_war_uar",
        "table1_plot",
        "table2_per_class",
        "conclusions",
        "cost",
        "fig6_confusion",
        "pretraining",
        "positive_class_weights",
        "table3_strategies",
        "table3_plot",
        "ablations",
        "ablations_plot",
        "ablation_conclusions",
        "fig5_au_ratio",
        "fig5_loss_terms",
        "fig7_training",
        "fig8_tsne",
        "au_head",
        "calibration",
    } <= names
    assert len(pd.read_csv(whole.folder / "results.csv")) > 1000
    text = str(whole)
    assert (
        "missing cells" not in text
        and re.search(r"02_knowledge_matrix: [\w, ]*\bfig4, ", text)
        and max(map(len, text.splitlines()[:-1])) < 80
    )
    assert "Embedded benchmark" in (whole.folder / "fig7_training.json").read_text()


def test_every_table_and_figure_is_shown_by_the_notebook_that_it_names():
    shown = {
        (name, path.stem)
        for path in (ROOT / "notebooks").rglob("*.py")
        for name in re.findall(r'\bresults\("(\w+)"', path.read_text())
    }
    assert {(name, one.notebook) for name, one in OUTPUTS.items()} == shown


def test_missing_failed_and_damaged_cells_are_named_and_the_rest_is_made(made, whole, tmp_path, capsys):
    shutil.copytree(made.folder, tmp_path / "copy")
    store = RunStore(tmp_path / "copy")
    grid = store.read_grid()
    strategies = [
        grid["cells"][n] for n in grid["outputs"]["table3"] if grid["cells"][n]["cell"]["strategy"] == "minor"
    ]
    failed, damaged = strategies[0], grid["cells"][grid["outputs"]["fig7"][0]]
    shutil.rmtree(store.path(failed["key"]))
    store.note_failure(failed["key"], "AudferError: the loss became nan")
    (store.path(damaged["key"]) / "test.npz").write_bytes(
        bytes((store.path(damaged["key"]) / "test.npz").stat().st_size)
    )
    for number in grid["outputs"]["pretraining"]:
        if grid["cells"][number]["cell"]["initialisation"] == "mae":
            shutil.rmtree(store.path(grid["cells"][number]["key"]))
    assert cli.main(["report", "--store", str(store.folder), "--figures", str(tmp_path / "figures")]) == 1
    said = capsys.readouterr().out
    assert f"  {failed['label']} (table3)\n    failed: AudferError: the loss became nan\n" in said
    (line,) = (line for line in said.splitlines() if line.startswith(f"  {damaged['label']} ("))
    assert "table1" in line and "bytes, or others than were written" in " ".join(said.split())
    assert "no record: not trained yet, or not copied" in said
    rows = {line.split()[0]: line for line in said.splitlines() if line}
    assert "made, 2 of 16 cells missing" in rows["table3_plot"] and rows["cost"].split() == ["cost", "made"]
    # the table and its picture say it too, for those who see nothing else
    for file in ("table3_strategies.md", "table3_strategies.json", "table3_plot.json"):
        text = (tmp_path / "figures" / "smoke" / file).read_text()
        assert "Incomplete: no record of 2 of 16 cells: " in text and failed["label"] in text
    assert "Incomplete" not in (tmp_path / "figures" / "smoke" / "cost.json").read_text()
    first, second = files_of(whole.folder), files_of(tmp_path / "figures" / "smoke")
    assert second["cost.csv"] == first["cost.csv"] and second["table3_strategies.md"] != first["table3_strategies.md"]


def test_any_cell_may_be_missing(made, tmp_path):
    """Each output without its first cell, with those that have an AU head alone, and with the others alone."""
    study = results.open_records(made.folder, tmp_path)
    for name, one in OUTPUTS.items():
        if one.elsewhere:
            continue
        numbers = sorted({number for source in one.sources for number in study.grid["outputs"][source]})
        with_head = {n for n in numbers if study.grid["cells"][n]["cell"]["au_ratio"] > 0}
        for left in (set(numbers) - {numbers[0]}, with_head, set(numbers) - with_head) if numbers else ():
            if left:
                part = results.open_records(made.folder, tmp_path)
                part._loaded = study._loaded
                part.grid["outputs"] = {
                    output: [n for n in kept if n in left] for output, kept in part.grid["outputs"].items()
                }
                made_now = part.results(name)
                for result in made_now if isinstance(made_now, tuple) else (made_now,):
                    assert result.name
                pyplot.close("all")


def test_a_folder_that_no_study_has_left_is_refused(made, tmp_path):
    with pytest.raises(
        InputError, match="grid.json: list of cells: found FileNotFoundError, expected .*work/<profile>/runs"
    ):
        results.open_records(tmp_path)
    (tmp_path / "grid.json").write_text(json.dumps({**RunStore(made.folder).read_grid(), "format": 9}))
    with pytest.raises(InputError, match="format: found 9, expected 1: another version"):
        results.open_records(tmp_path)
    with pytest.raises(AudferError, match="run records alone; what is asked for needs the clips"):
        results.open_records(made.folder).results("fig4")


def test_the_list_of_cells_keeps_keys_until_something_changes(tmp_path, made):
    store, grid = RunStore(tmp_path), RunStore(made.folder).read_grid()
    about = {"profile": grid["profile"], "device": "cpu", "precision": "float32"}
    outputs = {name: [Cell(**grid["cells"][n]["cell"]) for n in grid["outputs"][name]] for name in ("table1", "fig7")}
    first, second = outputs["table1"][:2]
    store.note_grid(about, outputs, {first: "a"})
    store.note_grid(about, outputs, {second: "b"})
    assert [entry["key"] for entry in store.read_grid()["cells"][:3]] == ["a", "b", None]
    store.note_grid({**about, "precision": "bf16"}, outputs, {second: "c"})
    assert [entry["key"] for entry in store.read_grid()["cells"][:3]] == [None, "c", None]
