"""Recipes by name: the published numbers, the schedules step by step, and which parameter gets which rate and decay."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from audfer.errors import AudferError, InputError
from audfer.models import NETWORKS, build_model
from audfer.published import load
from audfer.sampling import SAMPLING
from audfer.study.profiles import FOLDER, load_profile
from audfer.study.study import Study
from audfer.training.recipes import (
    RECIPES,
    Recipe,
    build_optimizer,
    learning_rate,
    recipe_name,
    recipe_table,
    set_learning_rate,
)


def test_every_network_has_its_default_recipes_and_one_of_its_own_release_if_there_is_one():
    for model in NETWORKS:
        for size in ("paper", "tiny"):
            assert recipe_name(model, size) in RECIPES
        released = any(name.startswith(f"{model}-release") for name in RECIPES)
        assert released != (model == "keypoint_gcn")  # whose authors have released nothing


@pytest.mark.parametrize(
    "quantity, found",
    [
        ("M3DFEL learning rate initial", RECIPES["m3dfel-paper"].learning_rate),
        ("M3DFEL learning rate minimum", RECIPES["m3dfel-paper"].minimum_learning_rate),
        ("M3DFEL weight decay", RECIPES["m3dfel-paper"].weight_decay),
        ("M3DFEL epochs", RECIPES["m3dfel-paper"].epochs),
        (
            "MAE-DFER learning rate initial",
            RECIPES["mae_dfer-paper"].learning_rate * 256 / RECIPES["mae_dfer-paper"].batch_size,
        ),
        ("Former-DFER weight decay", RECIPES["former_dfer-paper"].weight_decay),
        ("Former-DFER learning rate", RECIPES["former_dfer-paper"].learning_rate),
        ("Former-DFER epochs", RECIPES["former_dfer-paper"].epochs),
    ],
)
def test_the_paper_recipes_are_section_4_3(quantity, found):
    printed = load("audfer_text_settings").set_index("quantity")["printed"]
    assert found == pytest.approx(float(printed[quantity]))


def test_the_releases_of_mae_dfer_scale_the_rate_with_the_batch():
    # SPEC: "DFEW on 3 GPUs x 32 = 96 gives 3.75e-4, FERV39k 3 x 40 = 120 gives 4.6875e-4"
    dfew, ferv39k = RECIPES["mae_dfer-release-dfew"], RECIPES["mae_dfer-release-ferv39k"]
    assert (dfew.batch_size, dfew.learning_rate, dfew.frame_stride) == (96, pytest.approx(3.75e-4), 4)
    assert (ferv39k.batch_size, ferv39k.learning_rate, ferv39k.frame_stride) == (120, pytest.approx(4.6875e-4), 1)
    assert dfew.minimum_learning_rate == pytest.approx(1e-6 * 96 / 256)


def test_paper_recipes_are_tested_deterministically_and_a_release_that_is_not_says_so():
    for name, recipe in RECIPES.items():
        assert SAMPLING[recipe.test_sampling].random == (name in ("m3dfel-audfer", "m3dfel-release"))


def test_an_unknown_recipe_is_refused_with_the_nearest_one():
    with pytest.raises(
        InputError, match=r"found 'm3dfel-relase', expected one of m3dfel-paper, .*\(did you mean m3dfel-release"
    ):
        recipe_name("m3dfel", "paper", "m3dfel-relase")
    with pytest.raises(InputError, match="found 'former_dfer-paper', expected one of m3dfel-paper"):
        recipe_name("m3dfel", "paper", "former_dfer-paper")
    with pytest.raises(InputError, match="optimizer: found 'lion', expected one of adamw, adam, sgd"):
        Recipe("mine", "lion", 1e-3, 0.0)


def test_the_table_shows_recipes_side_by_side_and_only_where_they_differ():
    table = recipe_table("m3dfel-audfer", "m3dfel-release")
    assert table.columns.tolist() == ["m3dfel-audfer", "m3dfel-release"]
    assert table.loc["batch_size"].tolist() == [64, 256] and "learning_rate" not in table.index
    assert {"source", "epochs", "warmup", "selection"} == set(table.index) - {"batch_size"}
    whole = recipe_table()
    assert list(whole) == list(RECIPES) and whole.loc["augmentation.hue_jitter", "m3dfel-paper"] == 0.4
    assert "augmentation.erase" in recipe_table("mae_dfer-tiny", differing=False).index
    assert isinstance(whole, pd.DataFrame)
    with pytest.raises(InputError, match="names: found 'resnet'"):
        recipe_table("resnet")


# ---------------------------------------------------------------------------------------------------- schedules


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    recipe = Recipe("mine", "adamw", 1.0, 0.0, warmup=0.1, minimum_learning_rate=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert rates == rates[:10] + sorted(rates[10:], reverse=True)


def test_the_step_schedule_of_former_dfer_drops_after_epochs_40_and_80_of_100():
    rates = [learning_rate(RECIPES["former_dfer-paper"], epoch, 100) for epoch in (39, 40, 79, 80)]
    np.testing.assert_allclose(rates, [0.01, 0.001, 0.001, 0.0001])


def test_m3dfels_release_starts_twice_with_zero_and_falls_at_the_end_of_the_warm_up():
    recipe, steps = RECIPES["m3dfel-release"], 3000  # 10 steps an epoch: warm-up 200 steps
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert rates[:2] == [0, 0] and rates[2] == pytest.approx(5e-4 / 200)
    # one step late; then the cosine at the 200th of 3000 steps, not at its beginning
    at_200 = 5e-6 + (5e-4 - 5e-6) * 0.5 * (1 + math.cos(math.pi * 200 / 3000))
    assert rates[200] == pytest.approx(5e-4 * 199 / 200) and rates[201] == pytest.approx(at_200)
    assert at_200 < 0.995 * rates[200]
    clean = replace(recipe, cosine_ignores_warmup=False, schedule_lag=0)
    assert learning_rate(clean, 200, steps) == pytest.approx(5e-4)


def test_mae_dfers_release_rises_from_zero_over_5_of_100_epochs():
    recipe = RECIPES["mae_dfer-release-dfew"]
    assert [learning_rate(recipe, step, 1000) / recipe.learning_rate for step in (0, 25, 50)] == pytest.approx(
        [0, 0.5, 1]
    )
    assert learning_rate(recipe, 999, 1000) == pytest.approx(recipe.minimum_learning_rate, rel=0.01)


# ----------------------------------------------------------------------------------------------------- optimizer


def settings(model, recipe):
    """parameter name -> (share of the rate, weight decay), as the optimizer has them."""
    optimizer = build_optimizer(model, recipe)
    set_learning_rate(optimizer, 1.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert len(found) == len(names)  # each exactly once
    return found


def test_layer_wise_decay_and_weight_decay_of_mae_dfer_are_the_specs():
    model = build_model("mae_dfer", size="tiny", depth=16, stem=())
    found = settings(model, RECIPES["mae_dfer-release-dfew"])
    assert found["patch_embed.proj.weight"] == (pytest.approx(0.75**17), 0.05)
    assert found["blocks.0.mlp.fc1.weight"] == (pytest.approx(0.75**16), 0.05)
    assert found["blocks.15.mlp.fc1.weight"] == (pytest.approx(0.75), 0.05)
    assert found["blocks.15.mlp.fc1.bias"] == (pytest.approx(0.75), 0)
    assert found["blocks.3.first_attn.q_bias"] == (pytest.approx(0.75**13), 0)
    assert found["blocks.3.norm2.weight"] == (pytest.approx(0.75**13), 0)
    assert found["lg_region_tokens"] == (1, 0)
    assert found["head.weight"] == found["head_au.weight"] == (1, 0.05) and found["fc_norm.weight"] == (1, 0)


def test_m3dfel_and_former_dfer_decay_everything_alike():
    for name, decay in (("m3dfel", 0.05), ("former_dfer", 1e-4)):
        assert set(settings(build_model(name, size="tiny"), RECIPES[f"{name}-paper"]).values()) == {(1.0, decay)}


def test_the_optimizers_have_the_published_constants():
    model = nn.Linear(2, 2)
    sgd, adamw = (build_optimizer(model, RECIPES[name]) for name in ("former_dfer-paper", "m3dfel-paper"))
    assert (
        isinstance(sgd, torch.optim.SGD)
        and sgd.param_groups[0]["momentum"] == 0.9
        and sgd.param_groups[0]["lr"] == 0.01
    )
    assert isinstance(adamw, torch.optim.AdamW) and adamw.param_groups[0]["betas"] == (0.9, 0.999)
    assert adamw.param_groups[0]["eps"] == 1e-8


def test_frozen_parameters_are_left_out_and_layer_decay_needs_blocks():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert sum(len(group["params"]) for group in build_optimizer(model, RECIPES["m3dfel-tiny"]).param_groups) == 1
    with pytest.raises(AudferError, match="layer-wise decay 0.75: Linear has no transformer blocks"):
        build_optimizer(model, RECIPES["mae_dfer-paper"])


# ---------------------------------------------------------------------------------------------------- in a profile


def test_a_profile_names_recipes_and_a_wrong_one_is_refused(study, tmp_path):
    assert load_profile("gpu").training.recipes == {"mae_dfer": "mae_dfer-scratch"}
    text = (FOLDER / "smoke.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(
        text.replace("epochs = 2\nnum_frames", 'recipes = { m3dfel = "m3dfel-release" }\nepochs = 0\nnum_frames')
    )
    mine = Study(load_profile(str(path)), study.work, study.figures)
    assert (mine.cell("m3dfel", "DFEW").training_recipe, mine.cell("m3dfel", "DFEW").epochs) == (
        RECIPES["m3dfel-release"],
        300,
    )
    assert mine.cell("m3dfel", "DFEW", recipe="m3dfel-tiny").epochs == RECIPES["m3dfel-tiny"].epochs
    assert mine.cell("m3dfel", "DFEW").label == "m3dfel DFEW m3dfel-release"
    assert mine.cell("former_dfer", "DFEW").recipe == ""
    path.write_text(path.read_text().replace("m3dfel-release", "mae_dfer-paper"))
    with pytest.raises(
        InputError, match="training.recipes.m3dfel: found 'mae_dfer-paper', expected one of m3dfel-paper"
    ):
        load_profile(str(path))
