"""What runs on a CUDA GPU, on one: the same numbers as on the processor up to rounding, and every step of the chain.
Skipped without.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import PROFILE
from official import EVERY, GOLDENS, MANIFESTS, NAMES, fill, official_forward, relative_error, tiny, tiny_clips
from torch import nn

from audfer.losses import AULoss, combined_loss
from audfer.models import attach_au_head, build_model, load_official_state_dict
from audfer.study.profiles import load_profile
from audfer.study.study import Study
from audfer.synth import face, population
from audfer.training.augmentation import augment
from audfer.training.loop import fit
from audfer.training.recipes import RECIPES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    """No TF32 in cuDNN's convolutions (in products it is off by default): its 10 bits of mantissa would hide a wrong
    sum.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def gpu_study(tmp_path_factory):
    root = tmp_path_factory.mktemp("gpu_study")
    profile = PROFILE.replace('device = "cpu"', 'device = "cuda"').replace(
        'precision = "float32"', 'precision = "bf16"'
    )
    (root / "gpu_tests.toml").write_text(
        profile.replace('models = ["m3dfel", "former_dfer"]', f"models = {list(EVERY)}".replace("'", '"'))
    )
    return Study(load_profile(str(root / "gpu_tests.toml")), root / "work", root / "figures")


@pytest.mark.parametrize("name", NAMES)
def test_the_official_networks_give_the_golden_logits(name):
    model = build_model(name, num_aus=None).eval()
    load_official_state_dict(model, fill.fill_state_dict(MANIFESTS[name]["keys"], GOLDENS["seed"]))
    model = model.cuda().to(memory_format=model.memory_format)
    golden = GOLDENS["models"][name]
    with torch.inference_mode():
        logits, _ = official_forward(model, fill.make_clips(name, 2, GOLDENS["seed"]).cuda())
    assert relative_error(logits.cpu(), golden["logits"]) < GOLDENS["tolerance"]["expected"]


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_and_its_gradients_are_near_float32(name):
    clips, found = tiny_clips(name, 8).cuda(), {}
    for reduced in (False, True):
        model = tiny(name).cuda()
        # in training mode, for cuDNN has no backward pass of an LSTM in the other
        model = model.to(memory_format=model.memory_format).train()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=reduced):
            output = model(clips)
        (output.expression_logits.float().square().sum() + output.au_logits.float().square().sum()).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found[reduced] = output.features.detach().float(), gradients
    for exact, rounded in zip(found[False], found[True], strict=True):
        assert torch.nn.functional.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99


def test_losses_are_the_processors():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(16, 18, generator=generator), (torch.rand(16, 18, generator=generator) < 0.3).float()
    labels[0, 3] = torch.nan
    expressions = torch.randint(0, 7, (16,), generator=generator)
    loss = AULoss(torch.rand(7, 18, generator=generator), 1 + torch.rand(7, 18, generator=generator))
    here = loss(logits, labels, expressions)
    torch.testing.assert_close(loss.cuda()(logits.cuda(), labels.cuda(), expressions.cuda()).cpu(), here)


def test_a_foreign_network_learns_compiled_and_in_bfloat16():
    torch.manual_seed(0)

    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv3d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
            self.fc = nn.Linear(8, 7)

        def forward(self, clips):
            return self.fc(self.body(clips))

    model = attach_au_head(Foreign(), classifier="fc").cuda()
    compiled, loss = torch.compile(model), AULoss(torch.full((7, 18), 0.5)).cuda()
    clips, expressions = torch.rand(8, 3, 8, 24, 24, device="cuda"), torch.arange(8, device="cuda") % 7
    labels = (torch.rand(8, 18, device="cuda") < 0.3).float()
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True), []
    for _ in range(60):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = compiled(clips)
        both = combined_loss(
            nn.functional.cross_entropy(output.expression_logits.float(), expressions),
            loss(output.au_logits, labels, expressions),
            au_ratio=0.25,
        )
        optimizer.zero_grad(set_to_none=True)
        both.backward()
        optimizer.step()
        losses.append(both.item())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("recipe", ["m3dfel-paper", "mae_dfer-paper"])
def test_augmentation_is_the_processors(recipe):
    clips = tiny_clips("m3dfel", 6)
    # of random erasing the noise is drawn where the clips are, so it differs; the boxes do not
    settings = replace(RECIPES[recipe].augmentation, erase=0.0)
    here, there = (
        augment(clips.to(device), settings, torch.Generator().manual_seed(3), 48).cpu() for device in ("cpu", "cuda")
    )
    # a pixel on the border of a bin or of a solarised range may fall on either side of it
    assert ((here - there).abs() < 2e-3).float().mean() > 0.995


def test_faces_are_rendered_as_on_the_processor():
    generator = np.random.default_rng(0)
    people = face.sample_identities(24, seed=1)
    scenes = population.sample_scenes(population.STYLES["FERV39k"], np.full(24, 1), generator, places=np.arange(24))
    scene = face.Scene(
        **{k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in scenes.items() if k != "quality"},
        seed=torch.arange(24),
    )
    intensities = torch.from_numpy(population.sample_annotated(24, generator))
    pictures, points = face.render(people, intensities, scene, size=64)
    there, points_there = face.render(people.to("cuda"), intensities.cuda(), scene.to("cuda"), size=64)
    differing = (pictures.int() - there.cpu().int()).abs()
    assert (differing <= 2).float().mean() > 0.999
    torch.testing.assert_close(points_there.cpu(), points, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", EVERY)
def test_a_cell_is_trained_interrupted_and_gone_on_with(gpu_study, tmp_path, name):
    cell = replace(gpu_study.cell(name, "DFEW", 0.25), epochs=2, recipe=f"{name}-tiny")
    inputs = gpu_study.cell_inputs([cell])[cell.source]
    whole = fit(cell, inputs)

    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cell, inputs, tmp_path, interrupt)
    resumed = fit(cell, inputs, tmp_path)
    # the GPU's sums have no fixed order: equal up to that
    np.testing.assert_allclose(resumed["scores"], whole["scores"], atol=0.1)
    assert whole["costs"]["peak_gpu_memory_mb"] > 0 and np.isfinite(whole["scores"]).all()


def test_pretraining_and_lock_and_check_run(gpu_study):
    from audfer.lock_and_check import study as recognition

    assert gpu_study.pretrained_weights.is_file()
    assert len(recognition.lac_table(gpu_study, "DFEW").frames)
