"""The three networks: official names and numbers, clips of any batch, the AU plug-in, checkpoints."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from audfer.errors import AudferError
from audfer.models import (MODELS, Output, attach_au_head, build_model, count_flops, default_clip_shape,
                           load_official_state_dict, read_checkpoint)
from audfer.models.m3dfel import ShortConv3d
from audfer.models.mae_dfer import IMAGENET_MEAN, IMAGENET_STD
from audfer.models.weights import CONTAINERS

DATA = Path(__file__).parent / "data" / "models"
_spec = importlib.util.spec_from_file_location("fill", DATA / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)
GOLDENS = json.loads((DATA / "goldens.json").read_text())

NAMES = tuple(MODELS)
#: parameters of the official networks, reference/models/SPEC.md "Measured size and cost"
OFFICIAL_PARAMETERS = {"m3dfel": 46_823_384, "former_dfer": 18_031_943, "mae_dfer": 84_878_343}
OFFICIAL_GFLOPS = {"m3dfel": 86.30 + 0.08, "former_dfer": 16.59, "mae_dfer": 99.30}


def tiny(name: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, size="tiny", **settings).eval()


def tiny_clips(name: str, batch: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, *default_clip_shape(name, "tiny")), generator=generator, dtype=torch.uint8)


def relative_error(ours: torch.Tensor, golden) -> float:
    golden = torch.tensor(golden)
    return float((ours - golden).abs().max() / golden.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_paper_size_has_official_names_and_gives_the_golden_numbers(name):
    model = build_model(name, num_aus=None).eval()
    manifest = fill.load_manifest(name, DATA)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == manifest
    assert list(model.state_dict()) == list(manifest)
    assert sum(p.numel() for p in model.parameters()) == OFFICIAL_PARAMETERS[name]

    report = load_official_state_dict(model, fill.fill_state_dict(manifest, seed=GOLDENS["seed"]))
    assert (len(report.loaded), report.left_at_initialisation, report.dropped) == (len(manifest), [], [])
    clips = fill.make_clips(name, batch=2, seed=GOLDENS["seed"])
    golden = GOLDENS["models"][name]
    assert fill.checksum(clips) == golden["input_sha256"]
    with torch.no_grad():
        if name == "mae_dfer":                       # official clips are channels-first and already normalised
            features = model.encode_normalised(clips.transpose(1, 2))
            logits = model.head(features)
        else:
            logits, _, features = model(clips)
    assert relative_error(logits, golden["logits"]) < 1e-5
    assert relative_error(features[:, :16], golden["feature_first16"]) < 1e-5
    assert features.norm(dim=1).tolist() == pytest.approx(golden["feature_l2"], rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_the_paper_size_equal_the_measured_ones(name):
    cost = count_flops(build_model(name, num_aus=None), default_clip_shape(name))
    assert cost["gflops"] == pytest.approx(OFFICIAL_GFLOPS[name], abs=0.011)
    assert cost["gmacs"] == cost["gflops"] / 2
    assert cost["parameters"] == OFFICIAL_PARAMETERS[name]


def test_flops_add_the_lstm_by_hand_arithmetic():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(5, 3, num_layers=2, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.lstm(x)[0]

    # 4 steps x 2 directions x 2 x (4 gates x 3 units) x (inputs + 3 units), inputs 5 then 6
    assert count_flops(Recurrent(), (4, 5))["gflops"] * 1e9 == 4 * 2 * 2 * 12 * ((5 + 3) + (6 + 3))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_a_batch_of_one_and_order_of_the_batch(name):
    model = tiny(name)
    clips = tiny_clips(name, 5)
    with torch.no_grad():
        output = model(clips)
        alone = model(clips[3:4])
        shuffled = model(clips[[4, 3, 2, 1, 0]])
    assert isinstance(output, Output)
    assert output.expression_logits.shape == (5, 7) and output.au_logits.shape == (5, 18)
    assert output.features.shape == (5, model.feature_dim)
    torch.testing.assert_close(alone.features, output.features[3:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shuffled.au_logits, output.au_logits.flip(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_fractions_are_the_same_clip(name):
    model, clips = tiny(name), tiny_clips(name, 2)
    with torch.no_grad():
        assert torch.equal(model(clips).features, model(clips.float() / 255).features)


@pytest.mark.parametrize("name", NAMES)
def test_no_aus_means_no_head_and_the_same_expression_part(name):
    without = tiny(name, num_aus=None)
    assert without(tiny_clips(name, 2)).au_logits is None
    extra = set(tiny(name).state_dict()) - set(without.state_dict())
    head = {"m3dfel": "fc_au", "former_dfer": "AU_fc", "mae_dfer": "head_au"}[name]
    assert extra == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_training(name):
    def losses():
        model = tiny(name).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        clips, target = tiny_clips(name, 4), torch.tensor([0, 1, 2, 3])
        history = []
        for _ in range(6):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(clips)
            loss = nn.functional.cross_entropy(output.expression_logits.float(), target) + output.au_logits.float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    first = losses()
    assert first == losses()
    assert first[-1] < first[0]


@pytest.mark.parametrize("name,settings", [("m3dfel", dict(num_frames=12, image_size=40)),
                                           ("former_dfer", dict(num_frames=5, image_size=50)),
                                           ("mae_dfer", dict(num_frames=4, image_size=96))])
def test_other_sizes_where_possible(name, settings):
    model = tiny(name, **settings)
    clips = torch.zeros(2, settings["num_frames"], 3, settings["image_size"], settings["image_size"])
    assert model(clips).expression_logits.shape == (2, 7)


@pytest.mark.parametrize("build,words", [
    (lambda: build_model("m3dfel", size="tiny", num_frames=7), "num_frames is 7, expected a multiple of the instance length 2"),
    (lambda: build_model("mae_dfer", size="tiny", image_size=50), "image_size is 50, expected a multiple of"),
    (lambda: build_model("former_dfer", image_size=8), "at least 16 pixels"),
    (lambda: build_model("resnet"), "unknown model 'resnet', expected one of m3dfel, former_dfer, mae_dfer"),
    (lambda: build_model("m3dfel", size="huge"), "unknown model size 'huge', expected one of paper, tiny"),
    (lambda: build_model("m3dfel", size="tiny", depth=3), "unknown setting 'depth'"),
    (lambda: tiny("m3dfel")(torch.zeros(2, 16, 3, 48, 48)), r"shape \(2, 16, 3, 48, 48\), expected \(batch, 8, 3, 48, 48\)"),
    (lambda: tiny("m3dfel")(torch.zeros(2, 8, 3, 48, 48, dtype=torch.int64)), "type torch.int64, expected uint8"),
])
def test_impossible_requests_get_a_sentence(build, words):
    with pytest.raises(AudferError, match=words):
        build()


def test_mae_dfer_applies_the_imagenet_statistics():
    model, clips = tiny("mae_dfer", contrast=False), tiny_clips("mae_dfer", 2)
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        torch.testing.assert_close(model(clips).features, model.encode_normalised((clips / 255 - mean) / std))


@pytest.mark.parametrize("name", NAMES)
def test_tiny_sizes_do_not_see_exposure_or_a_tint(name):
    model = tiny(name)
    clips = 0.3 + 0.4 * torch.rand(2, *default_clip_shape(name, "tiny"), generator=torch.Generator().manual_seed(0))
    changed = clips * 0.8 * torch.tensor([1.0, 0.9, 0.8])[:, None, None]
    with torch.no_grad():
        features = model(clips).features
        difference = (model(changed).features - features).abs().max() / features.abs().max()
    assert difference < 0.05


def test_short_clips_equal_the_plain_3d_convolution_also_in_gradients():
    for frames, stride in ((1, 1), (2, 1), (2, 2), (1, 2)):
        torch.manual_seed(frames)
        layer = ShortConv3d(3, 4, 3, stride=stride, padding=1, bias=False).double()
        clips = torch.rand(2, 3, frames, 6, 6, dtype=torch.float64, requires_grad=True)
        plain = nn.functional.conv3d(clips, layer.weight, None, layer.stride, layer.padding)
        torch.testing.assert_close(layer(clips), plain)
        weights = torch.rand_like(plain)
        ours = torch.autograd.grad((layer(clips) * weights).sum(), (clips, layer.weight))
        theirs = torch.autograd.grad((plain * weights).sum(), (clips, layer.weight))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_gradients_are_close_to_float32(name):
    # torch 2.13's bfloat16 kernel for two-frame 3-D convolutions leaves part of the weight gradient uninitialised
    model, clips = tiny(name).train(), tiny_clips(name, 8)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = model(clips)
        (output.expression_logits.float().square().mean() + output.au_logits.float().square().mean()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.isfinite(gradients[1]).all()
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


def test_stochastic_depth_drops_in_training_only():
    model, clips = tiny("mae_dfer", drop_path=0.5), tiny_clips("mae_dfer", 2)
    with torch.no_grad():
        assert torch.equal(model(clips).features, model(clips).features)
        model.train()
        assert not torch.equal(model(clips).features, model(clips).features)


# ---------------------------------------------------------------------------- the plug-in

class Foreign(nn.Module):
    """A network that is not ours: a plain 3-D convolution, a classifier deep inside, and probabilities at the end."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(4, 7))

    def forward(self, clips):
        return self.classifier(self.trunk(clips)).softmax(-1)


def test_au_head_attaches_to_a_foreign_network_in_three_lines_and_trains():
    torch.manual_seed(0)
    foreign = Foreign()
    keys = list(foreign.state_dict())
    clips = torch.rand(3, 3, 4, 8, 8)
    probabilities = foreign(clips)

    model = attach_au_head(foreign, classifier="classifier.1")
    output = model(clips)
    torch.testing.assert_close(output.expression_logits.softmax(-1), probabilities)
    assert output.au_logits.shape == (3, 18) and output.features.shape == (3, 4)

    output.au_logits.sum().backward()
    assert foreign.trunk[0].weight.grad.abs().sum() > 0                     # the AU loss reaches the trunk
    assert list(model.model.state_dict()) == keys                           # its own state dict is as before
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(clips).au_logits, model(clips).au_logits)
    assert torch.equal(model.remove()(clips), probabilities)
    assert not foreign.classifier[1]._forward_hooks


def test_au_head_follows_precision_and_refuses_a_wrong_layer():
    model = attach_au_head(Foreign().double(), classifier="classifier.1", num_aus=12)
    assert model(torch.rand(2, 3, 4, 8, 8).double()).au_logits.shape == (2, 12)
    assert model.au_head.weight.dtype == torch.float64
    with pytest.raises(AudferError, match="no linear layer named 'fc', expected one of: classifier.1"):
        attach_au_head(Foreign())
    per_token = nn.Sequential(nn.Linear(4, 7))
    with pytest.raises(AudferError, match=r"shape \(2, 5, 4\), expected \(batch, features\)"):
        attach_au_head(per_token, "0")(torch.zeros(2, 5, 4))


# ---------------------------------------------------------------------------- checkpoints

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_and_data_parallel_prefix_are_unwrapped(name, container):
    source, target = tiny(name), build_model(name, size="tiny")
    content = {container: {f"module.{key}": value for key, value in source.state_dict().items()}, "epoch": 3}
    report = load_official_state_dict(target, content)
    assert report.left_at_initialisation == []
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


def test_a_checkpoint_without_au_head_leaves_it_and_one_with_it_fits_a_model_without():
    source = tiny("m3dfel", num_aus=None)
    report = load_official_state_dict(tiny("m3dfel"), source.state_dict())
    assert report.left_at_initialisation == ["fc_au.weight", "fc_au.bias"]
    assert load_official_state_dict(source, tiny("m3dfel").state_dict()).dropped == ["fc_au.weight", "fc_au.bias"]


def test_wrong_weights_are_refused_whole():
    model = tiny("m3dfel")
    before = copy.deepcopy(model.state_dict())
    state = copy.deepcopy(before)
    state["surplus"] = state.pop("pwconv.bias")
    state["fc.weight"] = torch.zeros(11, 128)
    with pytest.raises(AudferError, match=r"1 missing: pwconv.bias; 1 unknown: surplus; 1 of another shape: "
                                          r"fc.weight \(11, 128\) instead of \(7, 128\)"):
        load_official_state_dict(model, state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_mae_pretraining_checkpoint_is_renamed_as_the_release_does():
    model = tiny("mae_dfer")
    encoder = {key: value + 1 for key, value in model.state_dict().items() if not key.startswith(("fc_norm", "head"))}
    content = {"model": {**{f"encoder.{key}": value for key, value in encoder.items()},
                         "encoder.norm.weight": torch.ones(3), "mask_token": torch.ones(3),
                         "encoder_to_decoder.weight": torch.ones(3), "decoder.blocks.0.norm1.weight": torch.ones(3)}}
    report = load_official_state_dict(model, content)
    assert report.source == "MAE pre-training" and len(report.loaded) == len(encoder)
    assert sorted(report.dropped) == ["decoder.blocks.0.norm1.weight", "encoder_to_decoder.weight", "mask_token", "norm.weight"]
    assert report.left_at_initialisation == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias",
                                             "head_au.weight", "head_au.bias"]
    assert torch.equal(model.lg_region_tokens, encoder["lg_region_tokens"])


def test_kinetics_weights_of_torchvision_fill_the_backbone():
    model = tiny("m3dfel")
    names = {"0": "stem", "1": "layer1", "2": "layer2", "3": "layer3", "4": "layer4"}
    kinetics = {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)}
    for key, value in model.state_dict().items():
        if key.startswith("features."):
            _, stage, rest = key.split(".", 2)
            kinetics[f"{names[stage]}.{rest}"] = value + 1
    report = load_official_state_dict(model, kinetics)
    assert report.source == "Kinetics R3D-18" and report.dropped == ["classifier.fc.weight", "classifier.fc.bias"]
    assert torch.equal(model.state_dict()["features.4.0.conv1.0.weight"], kinetics["layer4.0.conv1.0.weight"])
    assert "lstm.weight_ih_l0" in report.left_at_initialisation


class _Bomb:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/audfer-bomb-went-off"),)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "recorder": _Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(AudferError, match="opening it would mean running code from the file"):
        read_checkpoint(tmp_path / "bomb.pth")
    assert not Path("/tmp/audfer-bomb-went-off").exists()
    torch.save({"a": torch.ones(2)}, tmp_path / "fine.pth")
    assert read_checkpoint(tmp_path / "fine.pth")["a"].tolist() == [1, 1]
    with pytest.raises(AudferError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
