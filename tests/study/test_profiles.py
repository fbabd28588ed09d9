"""Profiles are checked before anything is computed."""

import json
import os
import re
from contextlib import suppress
from dataclasses import replace

import pytest

from audfer.errors import InputError
from audfer.study.profiles import FOLDER, available_profiles, load_profile, profile_from, with_changes, with_parameters
from audfer.study.study import Study, open_study
from audfer.training.loop import CellInputs
from audfer.training.records import RunStore


def test_all_profiles_load_and_cover_the_same_grid():
    profiles = {name: load_profile(name) for name in available_profiles()}
    assert set(profiles) == {"smoke", "laptop", "appendices", "pretrained", "gpu", "paper", "ravdess"}
    source = profiles.pop("pretrained")  # trains what ships, and shows nothing
    assert source.grid.datasets == ("DFEW",) and source.data.seed not in {p.data.seed for p in profiles.values()}
    for profile in profiles.values():
        # the key-point network belongs to an appendix
        wing = () if profile.name in ("laptop", "gpu") else ("keypoint_gcn",)
        assert profile.grid.models == ("m3dfel", "mae_dfer", "former_dfer", *wing)
        assert profile.grid.datasets == (("RAVDESS",) if profile.name == "ravdess" else ("DFEW", "FERV39k", "MAFW"))
        assert profile.grid.strategies == ("global", "distinct", "minor")
        assert {"plain BCE", "knowledge"} <= set(profile.grid.ablations)
        assert profile.grid.au_ratio in profile.grid.au_ratios and 0 in profile.grid.au_ratios


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(InputError, match="did you mean laptop"):
        load_profile("labtop")


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("[training]\nepoch = 3", "training.epoch: found an unknown key.*did you mean epochs"),
        ("[grid]\nau_ratio = 1.5", "grid.au_ratio: found 1.5"),
        ("[training]\nsize = 'tiny'\nepochs = 'three'", "training.epochs: found 'three', expected a value of type int"),
        (
            "[training]\nsize = 'huge'\nepochs=1\nnum_frames=1\nstored_frames=1\nimage_size=1",
            "training.size: found 'huge', expected one of tiny, paper",
        ),
        ("[grid]\nfolds = [1, 2]", r"grid.folds: found \(1, 2\), expected \[1\]: the embedded benchmark has one fold"),
        (
            "[grid]\nablations = ['uniform', 'knowledge']",
            "grid.ablations: found uniform, knowledge, expected plain BCE among them",
        ),
        ("[grid]\nablations = ['nothing']", "grid.ablations: found 'nothing', expected one of plain BCE"),
        ("[grid]\nstrategy_datasets = ['AFEW']", "grid.strategy_datasets: found 'AFEW', expected one of DFEW"),
        ("not toml", "TOML syntax"),
        ("[estimator]\nbatch_size = 3", "estimator.epochs: found nothing"),
        ("[estimator]\nepochs = 0", "estimator.epochs: found 0, expected a number from 1"),
        (
            "[data]\nsource = 'embedded'\nrender_size = 1000000",
            "18 frames of 1000000 pixels, expected a clip of at most 1 GB; this one has 54,000 GB",
        ),
        ("[data]\nsource = 'embedded'\nrender_size = -1", "data.render_size: found -1, expected a number from 1"),
        (
            "[data]\nsource = 'embedded'\ndisfa_frames = 1000000000",
            "data.disfa_frames: found 1000000000, expected a number from 0 to 1,000,000",
        ),
        (
            "[data]\nsource = 'embedded'\ndisfa_frames = 1000000\ndisfa_subjects = 1000000",
            "1,000,000,003,000 rendered frames, expected at most 1 TB of pixels; these have 12,288 TB",
        ),
        ("[data]\nsource = 'embedded'\nclip_frames = [3]", "data.clip_frames: found .3,., expected two lengths"),
        ("[data]\nsource = 'embedded'\nclip_frames = [9, 3]", "the shorter length first"),
        (
            "[training]\nsize='tiny'\nepochs=1\nnum_frames=1\nstored_frames=1000000\nimage_size=1000",
            "training.stored_frames and training.image_size: found 1000000 frames of 1000 pixels, .* has 3,000 GB",
        ),
        (
            "[training]\nsize='tiny'\nepochs=1\nnum_frames=1\nstored_frames=1\nimage_size=1\nseeds=[18446744073709551616]",
            "training.seeds: found 18446744073709551616",
        ),
        ("summary = " + "[" * 10_000, "TOML syntax"),
        ("summary = 'caf\udce9'", "TOML syntax: found 'utf-8' codec can't decode"),
    ],
)
def test_a_wrong_profile_file_gets_a_sentence(tmp_path, line, sentence):
    base = {
        "data": "source = 'embedded'",
        "estimator": "epochs = 1",
        "training": "size='tiny'\nepochs=1\nnum_frames=1\nstored_frames=1\nimage_size=1",
        "grid": "datasets = []\nstrategy_dataset = 'DFEW'",
    }
    given = line[1 : line.index("]")] if line.startswith("[") else None
    text = "summary = 'x'\n" + "".join(f"[{k}]\n{v}\n" for k, v in base.items() if k != given and k != "grid")
    path = tmp_path / "mine.toml"
    whole = text + ("" if given == "grid" else "[grid]\n") + "\n" + line if given else line
    path.write_bytes(os.fsencode(whole))
    with pytest.raises(InputError, match=sentence):
        load_profile(str(path))


def test_the_paper_profile_has_the_papers_protocol():
    grid = load_profile("paper").grid
    assert grid.folds == (1, 2, 3, 4, 5) and set(grid.strategy_datasets) == {"DFEW", "FERV39k", "MAFW"}
    assert grid.au_ratios == (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
    # every ablation, so that the paper's question is answered where it was asked
    from audfer.study.ablations import WITH_HEAD

    assert grid.ablations == WITH_HEAD == load_profile("gpu").grid.ablations


@pytest.mark.parametrize(
    ("changes", "found", "name"),
    [
        (["training.epochs=20"], lambda p: p.training.epochs == 20, "laptop+training.epochs=20"),
        (["data.train_clips.DFEW=60"], lambda p: p.data.train_clips["DFEW"] == 60, "laptop+data.train_clips.DFEW=60"),
        (["grid.au_ratios=[0,0.5]"], lambda p: p.grid.au_ratios == (0.0, 0.5), ""),
        (["grid.strategy=minor"], lambda p: p.grid.strategy == "minor", "laptop+grid.strategy=minor"),
        (['grid.ratio_model="m3dfel"'], lambda p: p.grid.ratio_model == "m3dfel", ""),
        (
            ["training.epochs=20", "estimator.epochs=3", "training.epochs=4"],
            lambda p: (p.training.epochs, p.estimator.epochs) == (4, 3),
            "laptop+estimator.epochs=3+training.epochs=4",
        ),
        (["recipe.learning_rate=1e-3"], lambda p: p.recipe == {"learning_rate": 1e-3}, ""),
    ],
)
def test_a_field_is_changed_by_name_and_the_profile_has_a_name_of_its_own(changes, found, name):
    profile = load_profile(with_changes("laptop", changes))
    assert found(profile) and changes[-1] in profile.summary
    assert profile.name == name if name else re.fullmatch(r"laptop\+[\w.+=-]+", profile.name)
    back = profile_from(json.loads(json.dumps(profile.to_dict())), "there")
    assert back == profile  # as it stands in grid.json


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs=20", "--set: found 'epochs=20', expected GROUP.FIELD=VALUE"),
        ("training.epochs", "--set: found 'training.epochs', expected GROUP.FIELD=VALUE"),
        ("training.epoch=20", r"training.epoch: found an unknown key.*did you mean epochs\?"),
        ("trainin.epochs=20", r"trainin: found an unknown key.*did you mean training\?"),
        ("training.epochs=many", "training.epochs: found 'many', expected a value of type int"),
        ("training.epochs.more=1", "training.epochs.more: found a field of a field"),
        ("grid.strategy=best", "grid.strategy: found 'best', expected one of global"),
        ("recipe.learning_rat=1", r"recipe.learning_rat: found an unknown field.*did you mean learning_rate\?"),
        ("recipe.batch_size=0", "batch_size, epochs: found 0, 12, expected numbers of at least 1"),
        ("recipe.batch_size=1.5", "recipe.batch_size: found 1.5, expected a int"),
    ],
)
def test_a_change_is_refused_as_a_profile_would_be(change, message):
    with pytest.raises(InputError, match=message):
        load_profile(with_changes("laptop", [change]))


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        ({}, []),
        ({"model": "", "dataset": "", "au_ratio": None, "au_ratios": None, "epochs": None}, []),
        ({"model": "former_dfer"}, ['grid.models=["former_dfer"]', "grid.ratio_model=former_dfer"]),
        (
            {"dataset": "MAFW"},
            ['grid.datasets=["MAFW"]', "grid.strategy_dataset=MAFW", "grid.strategy_datasets=[]"],
        ),
        ({"au_ratio": 0, "epochs": 1}, ["grid.au_ratio=0", "training.epochs=1"]),
        ({"au_ratios": (0, 0.1)}, ["grid.au_ratios=[0, 0.1]"]),
    ],
)
@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_a_notebooks_parameters_change_what_set_changes(profile, given, changes):
    found, expected = load_profile(with_parameters(profile, **given)), load_profile(with_changes(profile, changes))
    assert replace(found, name="", summary="") == replace(expected, name="", summary="")
    assert changes or found == load_profile(profile)  # the very same study: nothing trains again


def test_a_study_is_opened_with_what_a_notebook_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDFER_PROFILE", "smoke")
    plain = open_study("", tmp_path, tmp_path)
    assert plain.profile == load_profile("smoke")
    study = open_study("", tmp_path, tmp_path, model="former_dfer", dataset="MAFW", au_ratios=[0, 0.1], epochs=1)
    assert study.work != plain.work and study.work.name.startswith("smoke+")
    cells = study.cells("fig5")
    assert {cell.au_ratio for cell in cells} == {0, 0.1} and {cell.epochs for cell in cells} == {1}
    assert {(cell.model, cell.dataset) for name in ("table1", "fig5", "fig7") for cell in study.cells(name)} == {
        ("former_dfer", "MAFW")
    }
    with pytest.raises(InputError, match="training.epochs: found 1.5, expected a value of type int"):
        open_study("", tmp_path, tmp_path, epochs=1.5)


def test_a_changed_file_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "own.toml").write_text((FOLDER / "smoke.toml").read_text())
    monkeypatch.chdir(tmp_path)
    name = with_changes("own.toml", ["training.epochs=1"])
    monkeypatch.chdir("/")
    assert load_profile(name).name == "own+training.epochs=1" and load_profile(name).training.epochs == 1


def test_changed_recipes_reach_every_cell_and_its_key(tmp_path):
    usual, other = (
        Study(load_profile(name), tmp_path, tmp_path) for name in ("smoke", "smoke+recipe.learning_rate=0.001")
    )
    cells = [study.cell("m3dfel", "DFEW") for study in (usual, other)]
    assert [cell.training_recipe.learning_rate for cell in cells] == [3e-3, 1e-3]
    assert replace(cells[1].training_recipe, learning_rate=3e-3) == cells[0].training_recipe
    inputs = CellInputs("", "", "", "data", "")
    keys = [RunStore(tmp_path).key(cell, inputs) for cell in cells]
    assert (
        keys[0]
        != keys[1]
        == RunStore(tmp_path).key(replace(cells[1], recipe="m3dfel-tiny +learning_rate=0.001"), inputs)
    )


@pytest.mark.parametrize("digits", [310, 400, 5000])
@pytest.mark.parametrize("line", ["[estimator]\nlearning_rate = {}", "[grid]\nau_ratios = [0.0, {}]"])
def test_numbers_that_no_float_holds_are_sentences(line, digits, tmp_path):
    (tmp_path / "mine.toml").write_text(f'summary = "x"\n[data]\nsource = "disk"\n{line.format("9" * digits)}\n')
    with pytest.raises(InputError, match="mine.toml"):
        load_profile(str(tmp_path / "mine.toml"))


def test_no_number_of_any_field_is_too_large_for_a_sentence(tmp_path):
    """Every whole number or list of them in the profile's tables: 400 digits are refused in words, or do no harm."""
    smoke = load_profile("smoke").to_dict()
    tried = 0
    for section, values in smoke.items():
        for field, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
                new = [*value[:-1], 10**400]
            elif isinstance(value, int) and not isinstance(value, bool):
                new = 10**400
            else:
                continue
            tried += 1
            (tmp_path / "mine.toml").write_text(
                'summary = "x"\n[data]\nsource = "disk"\n' if section != "data" else 'summary = "x"\n'
            )
            with open(tmp_path / "mine.toml", "a") as file:
                file.write(f"[{section}]\n{field} = {new}\n" + ('source = "disk"\n' if section == "data" else ""))
            with suppress(InputError):
                load_profile(str(tmp_path / "mine.toml"))
    assert tried > 20
