"""The networks: cost, clips of any batch, sizes, precision. (test_parity.py: the official numbers; test_heads.py: the
AU plug-in.)
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from official import EVERY, MANIFESTS, NAMES, relative_error, tiny, tiny_clips
from torch import nn

from audfer.errors import AudferError
from audfer.models import Output, build_model, count_flops, default_clip_shape
from audfer.models.m3dfel import FramePool, ShortConv3d
from audfer.models.mae_dfer import IMAGENET_MEAN, IMAGENET_STD, DropPath

#: of the official networks, reference/models/SPEC.md "Measured size and cost"
OFFICIAL_GFLOPS = {"m3dfel": 86.30 + 0.08, "former_dfer": 16.59, "mae_dfer": 99.30}


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_the_paper_size_equal_the_measured_ones(name):
    cost = count_flops(build_model(name, num_aus=None), default_clip_shape(name))
    assert cost["gflops"] == pytest.approx(OFFICIAL_GFLOPS[name], abs=0.011)
    assert cost["gmacs"] == cost["gflops"] / 2
    assert cost["parameters"] == MANIFESTS[name]["parameters"]


def test_flops_add_the_lstm_by_hand_arithmetic():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(5, 3, num_layers=2, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.lstm(x)[0]

    # 4 steps x 2 directions x 2 x (4 gates x 3 units) x (inputs + 3 units), inputs 5 then 6
    assert count_flops(Recurrent(), (4, 5))["gflops"] * 1e9 == 4 * 2 * 2 * 12 * ((5 + 3) + (6 + 3))


@pytest.mark.parametrize("name", EVERY)
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


@pytest.mark.parametrize("name", EVERY)
def test_bytes_and_fractions_are_the_same_clip(name):
    model, clips = tiny(name), tiny_clips(name, 2)
    with torch.no_grad():
        assert torch.equal(model(clips).features, model(clips.float() / 255).features)


@pytest.mark.parametrize("name", EVERY)
def test_no_aus_means_no_head_and_the_same_expression_part(name):
    without = tiny(name, num_aus=None)
    assert without(tiny_clips(name, 2)).au_logits is None
    extra = set(tiny(name).state_dict()) - set(without.state_dict())
    head = {"m3dfel": "fc_au", "former_dfer": "AU_fc", "mae_dfer": "head_au", "keypoint_gcn": "fc_au"}[name]
    assert extra == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_same_training(name):
    def losses():
        model = tiny(name).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        clips, target = tiny_clips(name, 4), torch.tensor([0, 1, 2, 3])
        history = []
        for _ in range(6):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(clips)
            loss = (
                nn.functional.cross_entropy(output.expression_logits.float(), target)
                + output.au_logits.float().square().mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    first = losses()
    assert first == losses()
    assert first[-1] < first[0]


@pytest.mark.parametrize(
    "name,settings",
    [
        ("m3dfel", dict(num_frames=12, image_size=40)),
        ("former_dfer", dict(num_frames=5, image_size=50)),
        ("mae_dfer", dict(num_frames=4, image_size=96)),
        ("keypoint_gcn", dict(num_frames=5, image_size=50)),
    ],
)
def test_other_sizes_where_possible(name, settings):
    model = tiny(name, **settings)
    clips = torch.zeros(2, settings["num_frames"], 3, settings["image_size"], settings["image_size"])
    assert model(clips).expression_logits.shape == (2, 7)


@pytest.mark.parametrize(
    "build,words",
    [
        (
            lambda: build_model("m3dfel", size="tiny", num_frames=7),
            "num_frames is 7, expected a multiple of the instance length 2",
        ),
        (lambda: build_model("mae_dfer", size="tiny", image_size=50), "image_size is 50, expected a multiple of"),
        (lambda: build_model("former_dfer", image_size=8), "at least 16 pixels"),
        (lambda: build_model("resnet"), "unknown model 'resnet', expected one of m3dfel, mae_dfer, former_dfer"),
        (lambda: build_model("m3dfel", size="huge"), "unknown model size 'huge', expected one of paper, tiny"),
        (lambda: build_model("m3dfel", size="tiny", depth=3), "unknown setting 'depth'"),
        (
            lambda: tiny("m3dfel")(torch.zeros(2, 16, 3, 48, 48)),
            r"shape \(2, 16, 3, 48, 48\), expected \(batch, 8, 3, 48, 48\)",
        ),
        (lambda: tiny("m3dfel")(torch.zeros(2, 8, 3, 48, 48, dtype=torch.int64)), "type torch.int64, expected uint8"),
    ],
)
def test_impossible_requests_get_a_sentence(build, words):
    with pytest.raises(AudferError, match=words):
        build()


def test_mae_dfer_applies_the_imagenet_statistics():
    model, clips = tiny("mae_dfer", contrast=False), tiny_clips("mae_dfer", 2)
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        torch.testing.assert_close(model(clips).features, model.encode_normalised((clips / 255 - mean) / std))


@pytest.mark.parametrize("name", EVERY)
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


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_gradients_are_close_to_float32(name):
    # torch 2.13's bfloat16 kernel for two-frame 3-D convolutions leaves part of the weight gradient uninitialised
    model, clips = tiny(name).train(), tiny_clips(name, 8)
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = model(clips)
        logits = (output.expression_logits, output.au_logits, output.auxiliary_logits)
        sum(part.float().square().mean() for part in logits if part is not None).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.isfinite(gradients[1]).all()
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


def test_stochastic_depth_drops_in_training_only():
    model, clips = tiny("mae_dfer", drop_path=0.5), tiny_clips("mae_dfer", 2)
    with torch.no_grad():
        assert torch.equal(model(clips).features, model(clips).features)
        model.train()
        assert not torch.equal(model(clips).features, model(clips).features)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.7])
def test_stochastic_depth_is_its_definition_bit_for_bit(rate):
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = DropPath(rate).train()(x)
    torch.manual_seed(1)
    keep = 1 - rate
    assert torch.equal(ours, x * ((torch.rand(64, 1) < keep) / keep) if rate else x)


def test_one_graph_serves_all_blocks():
    """Compiled block by block, as benchmarks do on a GPU: one graph where nothing is dropped, one for all other rates,
    one of the last block, which looks at the messengers alone. PyTorch gives up at the eighth.
    """
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = tiny("mae_dfer", drop_path=0.5, depth=12).train()
    for block in model.blocks:
        block.compile(backend=count, fullgraph=True)
    model(tiny_clips("mae_dfer", 2)).features.sum().backward()
    assert len(graphs) == 3


def test_pooling_frame_by_frame_is_pooling_in_3d():
    clips = torch.randint(0, 3, (2, 4, 3, 9, 9)).float().to(memory_format=torch.channels_last_3d).requires_grad_()
    mine, theirs = FramePool(3, stride=2, padding=1)(clips), F.max_pool3d(clips, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    assert torch.equal(mine, theirs)
    towards = torch.randn(mine.shape)  # ties: the same one of equal neighbours is chosen
    for a, b in zip(
        torch.autograd.grad(mine, clips, towards), torch.autograd.grad(theirs, clips, towards), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["m3dfel", "former_dfer", "keypoint_gcn"])
def test_one_channel_of_contrast_instead_of_three_colours(name):
    assert tiny(name, grey=False).state_dict().keys() == tiny(name).state_dict().keys()
    with torch.no_grad():
        # a tint is an offset of the logarithm, as the light is
        clips = 0.2 + 0.6 * tiny_clips(name, 2).float() / 255
        assert (
            relative_error(
                tiny(name)(clips * torch.tensor([1.0, 0.9, 0.8]).view(3, 1, 1)).features, tiny(name)(clips).features
            )
            < 0.05
        )
    with pytest.raises(AudferError, match="grey is True, expected False without contrast"):
        build_model(name, grey=True)
