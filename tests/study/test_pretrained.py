"""What ships trained: cards that say what the files are, nobody in common with other profiles, made again by code."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from audfer.errors import InputError
from audfer.files import file_digest
from audfer.models import build_model
from audfer.study import pretrained
from audfer.study.profiles import available_profiles, load_profile
from audfer.study.study import Study, open_study
from audfer.synth.layouts import _draw
from audfer.training.recipes import RECIPES

NETWORKS = ("m3dfel", "mae_dfer", "former_dfer")
PARTS = {pretrained.EXTRACTOR: "estimator.safetensors", **dict.fromkeys(NETWORKS, "weights.safetensors")}


@pytest.mark.parametrize("part", PARTS)
def test_a_card_lies_beside_every_part_and_is_about_this_file(part):
    folder = pretrained.FOLDER / part
    card = json.loads((folder / pretrained.CARD).read_text())
    assert card["sha256"] == file_digest(folder / PARTS[part])
    profile = json.loads(json.dumps(load_profile(pretrained.PROFILE).to_dict()))
    # which ablations there are by now is of no concern to what was trained
    ours, theirs = (
        {**settings, "grid": settings["grid"] | {"ablations": []}} for settings in (card["profile"], profile)
    )
    assert ours == theirs
    assert card["seed"] == card["profile"]["data"]["seed"] and card["made_by"] == "make pretrained"
    assert all(value > 0 for value in card["scores"].values())


@pytest.mark.parametrize("model", NETWORKS)
def test_a_start_fits_its_network_and_is_the_recipe_of_its_card(model):
    card = json.loads((pretrained.FOLDER / model / pretrained.CARD).read_text())
    cell = card["cell"]
    network = build_model(
        model, num_aus=None, size="tiny", num_frames=cell["num_frames"], image_size=cell["image_size"]
    )
    network.load_state_dict(load_file(pretrained.shipped_weights(model)))
    assert cell["initialisation"] == "scratch" and cell["au_ratio"] == 0  # it has seen no action unit
    assert cell["epochs"] == RECIPES[cell["recipe"]].epochs
    assert card["parameters"] == sum(weight.numel() for weight in network.parameters())


def test_the_extractor_answers_as_openface_does():
    extractor = pretrained.shipped_extractor()
    with torch.inference_mode():
        logits, intensity = extractor(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8))
    assert logits.shape == (2, 18) and intensity.shape == (2, 17)
    assert intensity.min() >= 0 and intensity.max() <= 5


def test_nobody_and_no_clip_is_shared_with_another_profile():
    def drawn(name):
        """Seeds of people and the first clips' action units of every dataset of a profile."""
        profile = load_profile(name)
        if not profile.embedded or name == "gpu":  # the GPU profile draws for minutes
            return {}
        study = Study(profile, "work", "figures")
        found = {}
        for dataset in ("DISFA", *study.dataset_names):
            one = _draw(dataset, study.synth_config)
            found[dataset] = one.seed, one.intensities[:20].tobytes()
        return found

    source = drawn(pretrained.PROFILE)
    for name in set(available_profiles()) - {pretrained.PROFILE}:
        for seed, units in drawn(name).values():
            assert seed not in {one for one, _ in source.values()} and units not in {one for _, one in source.values()}
    assert load_profile("gpu").data.seed != load_profile(pretrained.PROFILE).data.seed


def test_a_network_without_shipped_weights_starts_from_scratch_or_is_refused_by_name(tmp_path):
    study = open_study("laptop", str(tmp_path / "work"), str(tmp_path / "figures"))
    assert study.cell("former_dfer", "DFEW").initialisation == "shipped"
    assert study.cell("keypoint_gcn", "DFEW").initialisation == "scratch"
    with pytest.raises(InputError, match="'shipped' for keypoint_gcn.*former_dfer"):
        pretrained.shipped_weights("keypoint_gcn")


def test_parts_can_be_made_again(study, tmp_path):
    out = pretrained.make_start(study, "m3dfel", tmp_path)
    card = json.loads((out / pretrained.CARD).read_text())
    (record,) = study.run([study.cell("m3dfel", "DFEW")])
    kept = load_file(record.path / "weights.safetensors")
    again = load_file(out / "weights.safetensors")
    assert (
        all(torch.equal(kept[name], again[name]) for name in kept) and card["epochs"] == study.profile.training.epochs
    )
    extractor = pretrained.make_extractor(study, tmp_path)
    assert {path.name for path in extractor.iterdir()} >= {"estimator.safetensors", "history.csv", pretrained.CARD}
    assert np.isfinite(json.loads((extractor / pretrained.CARD).read_text())["minutes"])


def test_points_of_the_face_are_learned_without_a_label_and_their_start_is_a_trunk(study, tmp_path):
    """Twice the same bits, whatever the expressions are; nearer than the mean face after enough steps."""
    one = pretrained.make_start(study, "former_dfer", tmp_path / "one")
    two = pretrained.make_start(study, "former_dfer", tmp_path / "two")
    first, second = (load_file(out / "weights.safetensors") for out in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)
    card = json.loads((one / pretrained.CARD).read_text())
    assert "68 points" in card["task"] and set(card["scores"]) == {"NME", "NME of the mean face"}
    training = study.profile.training
    sizes = {"num_frames": training.num_frames, "image_size": training.image_size}
    network = build_model("former_dfer", num_aus=None, size="tiny", **sizes)
    assert {name: value.shape for name, value in first.items()} == {
        name: value.shape for name, value in network.state_dict().items()
    } and card["parameters"] == sum(weight.numel() for weight in network.parameters())
    shipped = json.loads((pretrained.FOLDER / "former_dfer" / pretrained.CARD).read_text())["scores"]
    assert shipped["NME"] < shipped["NME of the mean face"] / 2
