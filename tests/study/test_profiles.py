"""Profiles are checked before anything is computed."""

import pytest

from audfer.errors import InputError
from audfer.study.profiles import available_profiles, load_profile


def test_all_profiles_load_and_cover_the_same_grid():
    profiles = {name: load_profile(name) for name in available_profiles()}
    assert set(profiles) == {"smoke", "laptop", "gpu", "paper", "ravdess"}
    for profile in profiles.values():
        assert profile.grid.models == ("m3dfel", "mae_dfer", "former_dfer", "keypoint_gcn")
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
    path.write_text(text + ("" if given == "grid" else "[grid]\n") + "\n" + line if given else line)
    with pytest.raises(InputError, match=sentence):
        load_profile(str(path))


def test_the_paper_profile_has_the_papers_protocol():
    grid = load_profile("paper").grid
    assert grid.folds == (1, 2, 3, 4, 5) and set(grid.strategy_datasets) == {"DFEW", "FERV39k", "MAFW"}
    assert grid.au_ratios == (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
    # every ablation, so that the paper's question is answered where it was asked
    from audfer.study.ablations import WITH_HEAD

    assert grid.ablations == WITH_HEAD == load_profile("gpu").grid.ablations
