"""Lock and Check: its parts on hand-made tensors, its switches, its printed cost, and ImageNet weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from audfer.errors import AudferError
from audfer.facs import ACTION_UNITS
from audfer.lock_and_check.losses import activation_loss, local_to_global_loss, localisation_loss, weighted_loss
from audfer.lock_and_check.network import (
    BACKBONES,
    LAC,
    SHARPNESS,
    Check,
    CrossGroupAttention,
    EveryOther,
    build_lac,
    lac_flops,
    load_imagenet,
)
from audfer.lock_and_check.regions import group_of, landmark_boxes
from audfer.published import load

#: the AUs of BP4D, which Table VIII is about
BP4D = tuple(dict.fromkeys(load("lac_table2").query("column != 'Avg'")["column"]))
GROUPS = ("upper", "upper", "middle", "lower", "lower")


def clips(batch: int = 2, t: int = 3, side: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (batch, t, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def random(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(seed: int = 0, **settings) -> LAC:
    torch.manual_seed(seed)
    return build_lac("tiny", **settings).eval()


# -------------------------------------------------------------------------------------------------------------- Lock


def test_similarity_is_the_cosine_and_the_first_logit_the_printed_sum():
    model = tiny(gate="paper", sequence=False)
    output = model(clips())
    features, weight = output.features.flatten(0, 1), model.classifier.weight
    maps = F.cosine_similarity(features[:, None], weight[None, :, :, None, None], dim=2)
    torch.testing.assert_close(output.similarity.flatten(0, 1), maps, atol=1e-5, rtol=0)
    locked = (maps[:, :, None] * features[:, None]).mean(dim=(-2, -1))  # F_c = M_c * F, pooled
    first = (locked * weight).sum(-1) + model.classifier.bias
    torch.testing.assert_close(output.first.flatten(0, 1), first, atol=1e-5, rtol=1e-4)
    shifted = tiny(sequence=False)(clips()).first.flatten(0, 1)
    locked = ((1 + maps[:, :, None]) / 2 * features[:, None]).mean(dim=(-2, -1))
    torch.testing.assert_close(shifted, (locked * weight).sum(-1) + model.classifier.bias, atol=1e-5, rtol=1e-4)


def test_the_printed_gate_takes_a_place_that_opposes_for_one_that_supports():
    """Why it is not the default: M and -M give the same y'."""
    for gate, same in (("paper", True), ("shifted", False)):
        model = tiny(gate=gate, sequence=False)
        features = random(1, model.classifier.in_features, 4, 4)
        model.backbone.forward = lambda frames: features
        first = model(clips(1, 1)).first
        model.backbone.forward = lambda frames: -features
        assert torch.allclose(model(clips(1, 1)).first, first, atol=1e-5) == same


def test_without_lock_it_is_average_pooling_and_a_linear_layer():
    model = tiny(lock=False, sequence=False)
    output = model(clips())
    torch.testing.assert_close(output.first, model.classifier(output.features.mean(dim=(-2, -1))))
    assert output.second is None and output.logits is output.first


def test_the_softmax_gate_reads_each_au_where_its_similarity_is_highest():
    model = tiny(gate="softmax", sequence=False)
    output = model(clips())
    weights = (SHARPNESS * output.similarity.flatten(3)).softmax(3)
    vectors = weights @ output.features.flatten(3).mT
    torch.testing.assert_close(output.first, (vectors * model.classifier.weight).sum(3) + model.classifier.bias)
    # as many places as one likes that say nothing change nothing: they are not averaged in
    features = torch.zeros(1, 64, 1, 40)
    features[0, :, 0, 0] = 3 * model.classifier.weight[4].detach()
    few, many = (float(model._judge(features[..., :count], (1, 1)).first[0, 0, 4].detach()) for count in (2, 40))
    assert many == pytest.approx(few, rel=1e-3)


def test_a_residual_check_adds_to_what_the_first_stage_says():
    plain, residual = tiny(), tiny(residual=True)
    mine, theirs = plain(clips()), residual(clips())
    torch.testing.assert_close(theirs.second, mine.second + mine.first)


def test_the_trunk_and_the_rest_are_the_whole_and_the_trunk_does_not_learn():
    model, frames = build_lac("estimator", image_size=48, window=3), clips()
    model.train()
    maps = model.backbone.trunk(frames.flatten(0, 1) / 255).unflatten(0, frames.shape[:2])
    assert not maps.requires_grad
    stored, whole = model.eval().from_maps(maps), model(frames)
    for one, other in zip(stored, whole, strict=True):
        assert torch.equal(one, other)
    whole.logits.sum().backward()
    learning = {name.split(".")[2] for name, value in model.backbone.named_parameters() if value.grad is not None}
    assert learning == {"0"} and {
        name.split(".")[1] for name, value in model.backbone.named_parameters() if value.grad is not None
    } == {"2"}


@pytest.mark.parametrize("sides", [(8, 8), (6, 4), (5, 6)])
def test_a_convolution_of_every_other_place_is_a_dilated_one(sides):
    torch.manual_seed(0)
    layer, x = (
        EveryOther(5, 7, 3, padding=1, bias=False).double(),
        random(3, 5, *sides, dtype=torch.float64).requires_grad_(),
    )
    wanted = F.conv2d(x, layer.weight, padding=2, dilation=2)
    torch.testing.assert_close(layer(x), wanted)
    weights = random(*wanted.shape, seed=1, dtype=torch.float64)
    for ours, theirs in zip(
        *(torch.autograd.grad((made * weights).sum(), (x, layer.weight)) for made in (layer(x), wanted)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_maps_of_a_featureless_place_are_zero_not_nan():
    model = tiny()
    features = torch.zeros(1, model.classifier.in_features, 3, 3)
    assert torch.equal(model.similarity(features), torch.zeros(1, 18, 3, 3))


# ------------------------------------------------------------------------------------------------------------- Check


def test_attention_is_the_formula_over_aus_of_the_other_groups():
    torch.manual_seed(0)
    layer = CrossGroupAttention(GROUPS, 4)
    v = random(5, 4)
    w, a = layer.project.weight, layer.score.weight
    projected = v @ w.T
    for i in range(5):
        others = [j for j in range(5) if GROUPS[j] != GROUPS[i]]
        scores = torch.stack(
            [F.leaky_relu(torch.cat((projected[i], projected[j])) @ a.reshape(-1), 0.2) for j in others]
        )
        expected = (scores.softmax(0)[:, None] * projected[others]).sum(0)
        torch.testing.assert_close(layer(v)[i], expected)
    weights = layer.attention(projected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5))
    assert weights[0, 0] == weights[0, 1] == weights[3, 4] == 0 and (weights[2, [0, 1, 3, 4]] > 0).all()


def test_aus_of_one_group_alone_have_no_neighbours_and_see_themselves():
    layer = CrossGroupAttention(("lower", "lower"), 4)
    v = random(2, 4)
    torch.testing.assert_close(layer(v), layer.project(v))


def test_a_certain_au_is_left_untouched_an_undecided_one_is_what_its_neighbours_say():
    torch.manual_seed(0)
    check = Check(GROUPS, 6, 4, 4)
    vectors = random(2, 3, 5, 4)
    first = torch.full((2, 3, 5), 100.0)
    first[..., 1] = -100.0
    first[..., 2] = 0.0
    first[..., 3] = math.log(0.75 / 0.25)  # p' = 0.75, alpha = 0.5
    mixed, asked = check.mix(vectors, first), check.attention(vectors)
    torch.testing.assert_close(mixed[..., [0, 1, 4], :], vectors[..., [0, 1, 4], :])
    torch.testing.assert_close(mixed[..., 2, :], asked[..., 2, :])
    torch.testing.assert_close(mixed[..., 3, :], (vectors + asked)[..., 3, :] / 2)


def test_the_lstm_runs_over_the_frames_of_each_au_alone():
    torch.manual_seed(0)
    check = Check(GROUPS, 6, 4, 3)
    vectors, first = random(2, 7, 5, 6), torch.full((2, 7, 5), 100.0)  # certain: no exchange between AUs
    second = check(vectors, first)
    for au in range(5):
        series, _ = check.lstm(check.reduce(vectors[1:, :, au]))
        torch.testing.assert_close(second[1, :, au], series[0] @ check.weight[au] + check.bias[au])
    # frames before are not changed by frames after, clips do not see each other
    later = vectors.clone()
    later[0, 4:] = 0
    changed = (check(later, first) - second).abs().sum(-1) > 0
    assert changed[0].tolist() == [False] * 4 + [True] * 3 and not changed[1].any()


def test_gradients_of_check_are_exact():
    torch.manual_seed(0)
    check = Check(GROUPS, 3, 2, 2).double()
    assert torch.autograd.gradcheck(
        check,
        (
            random(1, 2, 5, 3, dtype=torch.float64).requires_grad_(),
            random(1, 2, 5, seed=1, dtype=torch.float64).requires_grad_(),
        ),
    )


# ------------------------------------------------------------------------------------------------------------ network


@pytest.mark.parametrize("t", [1, 5, 16])
def test_shapes_of_any_window_and_no_regions_at_inference(t):
    model = tiny()
    output = model(clips(2, t))
    assert output.first.shape == output.second.shape == (2, t, 18) and output.logits is output.second
    assert output.features.shape == (2, t, 64, 6, 6) and output.similarity.shape == (2, t, 18, 6, 6)
    assert output.similarity.abs().max() <= 1 + 1e-5
    assert all(part.dtype == torch.float32 for part in (output.first, output.second, output.similarity))


def test_frames_are_judged_alone_by_the_first_stage_and_in_order_by_the_second():
    model, frames = tiny(), clips(1, 6)
    output, turned = model(frames), model(frames.flip(1))
    torch.testing.assert_close(turned.first.flip(1), output.first, atol=1e-5, rtol=1e-4)
    assert (turned.second.flip(1) - output.second).abs().max() > 1e-4
    torch.testing.assert_close(model(frames[:, :4]).second, output.second[:, :4], atol=1e-5, rtol=1e-4)


def test_bytes_and_shares_and_grey_frames_mean_the_same():
    model, frames = tiny(), clips(1, 2)
    expected = model(frames).logits
    torch.testing.assert_close(model(frames / 255).logits, expected)
    torch.testing.assert_close(model((frames / 255).mean(2, keepdim=True)).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sequence": False},
        {"lock": False},
        {"lock": False, "sequence": False},
        {"gate": "paper"},
        {"gate": "softmax"},
        {"residual": True},
        {"action_units": BP4D},
        {"window": 8},
    ],
)
def test_every_switch_changes_what_it_says_and_nothing_else(settings):
    full, model = tiny(), tiny(**settings)
    names = {name: value.shape for name, value in model.state_dict().items()}
    gone = {name for name in full.state_dict() if name not in names}
    assert gone == (
        {name for name in full.state_dict() if name.startswith("check.")}
        if settings.get("sequence") is False
        else set()
    )
    assert set(names) <= set(full.state_dict())
    if "action_units" in settings:
        assert names["classifier.weight"] == (12, 64) and model(clips()).logits.shape == (2, 3, 12)
        return
    model.load_state_dict({name: full.state_dict()[name] for name in names})
    mine, theirs = model(clips()), full(clips())
    assert torch.equal(mine.features, theirs.features) and torch.equal(mine.similarity, theirs.similarity)
    lock_as_it_was = settings.get("lock", True) and "gate" not in settings
    assert torch.equal(mine.first, theirs.first) == lock_as_it_was
    assert (mine.second is None) == (settings.get("sequence") is False)
    if mine.second is not None:
        assert torch.equal(mine.second, theirs.second) == (lock_as_it_was and "residual" not in settings)


def test_its_settings_build_the_same_network():
    model = tiny(gate="paper", window=4, action_units=BP4D)
    again = LAC(**model.settings).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(clips()).logits, model(clips()).logits)


def test_bfloat16_autocast_gives_float32_logits_close_to_full_precision():
    model = tiny()
    with torch.inference_mode():
        exact = model(clips())
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(clips())
    assert rough.features.dtype == torch.bfloat16 and rough.logits.dtype == rough.similarity.dtype == torch.float32
    torch.testing.assert_close(rough.first, exact.first, atol=0.05, rtol=0.05)
    torch.testing.assert_close(rough.second, exact.second, atol=0.05, rtol=0.05)


def test_it_compiles():
    """With one graph break: PyTorch itself does not trace LSTMs."""
    model = tiny()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips()).logits, model(clips()).logits, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns_from_the_total_loss_and_the_loss_falls():
    model = tiny().train()
    frames, labels = clips(2, 4), (random(2, 4, 18, seed=3) > 0).float()
    landmarks = torch.rand(8, 68, 2, generator=torch.Generator().manual_seed(0))
    boxes = landmark_boxes(landmarks).unflatten(0, (2, 4))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(12):
        output = model(frames)
        loss = (
            0.5 * localisation_loss(output.features, boxes)
            + 0.5 * activation_loss(output.similarity, boxes, labels)
            + 0.01 * local_to_global_loss(output.similarity, boxes)
            + 0.5 * weighted_loss(output.first, labels)
            + weighted_loss(output.second, labels)
        )
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize(
    "frames, what",
    [
        (torch.zeros(3, 48, 48), "shape"),
        (torch.zeros(1, 2, 3, 40, 40), "shape"),
        (torch.zeros(1, 2, 3, 48, 48, dtype=torch.int64), "type"),
    ],
)
def test_wrong_frames_are_refused_in_a_sentence(frames, what):
    with pytest.raises(AudferError, match=what):
        tiny()(frames)


@pytest.mark.parametrize(
    "call, what",
    [
        (dict(size="huge"), "huge"),
        (dict(size="tiny", windows=3), "windows"),
        (dict(size="tiny", backbone="vgg"), "vgg"),
        (dict(size="tiny", gate="x"), "gate"),
        (dict(size="tiny", window=0), "window"),
        (dict(size="tiny", image_size=8), "image_size"),
        (dict(size="tiny", action_units=("AU99",)), "AU99"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(call, what):
    with pytest.raises(AudferError, match=what):
        build_lac(**call)


def test_aus_are_in_table_1s_groups():
    model = tiny()
    neighbours = model.check.attention.neighbours
    groups = [group_of(au) for au in ACTION_UNITS]
    assert neighbours.tolist() == [[a != b for b in groups] for a in groups]


# --------------------------------------------------------------------------------------------- cost and official
# weights


def test_parameters_and_flops_are_the_printed_ones_within_two_percent():
    printed = load("lac_table8").set_index("method")
    for name, settings in (("LAC (ours)", {}), ("Resnet50", dict(lock=False, sequence=False))):
        with torch.device("meta"):
            model = build_lac("paper", action_units=BP4D, **settings)
        cost = lac_flops(model.to_empty(device="cpu"), 16)
        assert cost["parameters"] / 1e6 == pytest.approx(printed.loc[name, "Params_M"], rel=0.02)
        assert cost["gmacs"] == pytest.approx(printed.loc[name, "FLOPs_G"], rel=0.02)


def test_flops_count_the_lstm_of_every_au():
    one, twelve = (lac_flops(build_lac("tiny", action_units=BP4D[:count]), 4)["gflops"] for count in (1, 12))
    without = [
        lac_flops(build_lac("tiny", action_units=BP4D[:count], sequence=False), 4)["gflops"] for count in (1, 12)
    ]
    assert (twelve - without[1]) > 11 * (one - without[0])


@pytest.mark.parametrize("backbone, size, bottleneck", [("resnet18", "small", False), ("resnet50", "paper", True)])
def test_torchvisions_imagenet_weights_load_strictly(backbone, size, bottleneck):
    """Names and shapes written down here independently, as torchvision's files have them."""
    blocks = (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)
    shapes = {"conv1.weight": (64, 3, 7, 7)}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    width = 64
    for stage, (channels, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), start=1):
        for block in range(count):
            prefix, out = f"layer{stage}.{block}", channels * (4 if bottleneck else 1)
            kernels = (
                [(channels, width, 1), (channels, channels, 3), (out, channels, 1)]
                if bottleneck
                else [(channels, width, 3), (channels, channels, 3)]
            )
            for number, (to, come, kernel) in enumerate(kernels, start=1):
                shapes[f"{prefix}.conv{number}.weight"] = (to, come, kernel, kernel)
                norm(f"{prefix}.bn{number}", to)
            if block == 0 and (width != out or stage > 1):
                shapes[f"{prefix}.downsample.0.weight"] = (out, width, 1, 1)
                norm(f"{prefix}.downsample.1", out)
            width = out
    shapes |= {"fc.weight": (1000, width), "fc.bias": (1000,)}
    state = {name: torch.full(shape, 0.5) if shape else torch.tensor(7) for name, shape in shapes.items()}
    model = build_lac(size, backbone=backbone, sequence=False)
    own = sum(p.numel() for p in model.backbone.parameters())
    assert own == {"resnet18": 11_176_512, "resnet50": 23_508_032}[backbone]  # torchvision's, less the classifier
    report = load_imagenet(model, state)
    assert report.dropped == ["fc.weight", "fc.bias"] and set(report.left_at_initialisation) == {
        "classifier.weight",
        "classifier.bias",
    }
    assert (model.backbone.layer4[0].conv2.weight == 0.5).all() and "entries loaded" in str(report)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for broken, what in (
        ({key: value for key, value in state.items() if key != "layer3.1.bn2.bias"}, "missing"),
        (state | {"layer5.weight": torch.ones(1)}, "unknown"),
        (state | {"conv1.weight": torch.ones(64, 1, 7, 7)}, "shape"),
    ):
        with pytest.raises(AudferError, match=what):
            load_imagenet(model, broken)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_imagenet_weights_are_not_for_the_tiny_backbone():
    with pytest.raises(AudferError, match="tiny"):
        load_imagenet(tiny(), {"conv1.weight": torch.ones(64, 3, 7, 7)})


def test_the_small_sizes_map_is_finer_with_the_same_weights():
    fine, coarse = (BACKBONES["resnet18"](last_stride=stride) for stride in (1, 2))
    assert {name: value.shape for name, value in fine.state_dict().items()} == {
        name: value.shape for name, value in coarse.state_dict().items()
    }
    with torch.inference_mode():
        assert fine(torch.rand(1, 3, 112, 112)).shape == (1, 512, 7, 7) and coarse(
            torch.rand(1, 3, 112, 112)
        ).shape == (1, 512, 4, 4)


def test_a_place_without_features_has_cosine_and_slope_zero():
    model = build_lac("tiny", sequence=False)
    features = torch.rand(1, model.backbone.out_channels, 2, 2)
    features[..., 0, 1] = 0
    features.requires_grad_()
    similarity = model.similarity(features)
    similarity.sum().backward()
    assert (similarity[..., 0, 1] == 0).all() and (similarity[..., 0, 0] != 0).any()
    assert torch.isfinite(features.grad).all() and features.grad[..., 0, 0].any()
