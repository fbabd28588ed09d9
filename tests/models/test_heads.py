"""The AU plug-in on networks that are not ours: same outputs and keys, training, compile, DDP, copies, cost."""

from __future__ import annotations

import copy
import io
import os
import re
import runpy
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from paths import ROOT
from torch import nn
from torch.utils.checkpoint import checkpoint

from audfer.errors import AudferError
from audfer.losses import AULoss, combined_loss, expression_loss
from audfer.models import attach_au_head, build_model, count_element_operations, count_flops, default_clip_shape

CLIP = (4, 3, 32, 32)


class PlainCNN(nn.Module):
    """A plain 3-D CNN with a classifier deep inside and probabilities at the end; clips (B, T, 3, H, W)."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv3d(3, 16, 3, stride=(1, 2, 2), padding=1),
            nn.BatchNorm3d(16),
            nn.ReLU(),
            nn.Conv3d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm3d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d((1, 2, 2)),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(128, 7))

    def forward(self, clips):
        return self.classifier(self.trunk(clips.transpose(1, 2))).softmax(-1)


class ClipTransformer(nn.Module):
    """torch.nn.TransformerEncoder over one token a frame, batch second, classifier on the class token; gives a
    dictionary.
    """

    def __init__(self):
        super().__init__()
        self.token = nn.Linear(3 * 8 * 8, 32)
        self.first = nn.Parameter(torch.zeros(1, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(32, 7)

    def forward(self, clips):
        batch, frames = clips.shape[:2]
        tokens = self.token(F.adaptive_avg_pool2d(clips.flatten(0, 1), 8).flatten(1)).view(batch, frames, -1)
        tokens = torch.cat((self.first.expand(batch, -1, -1), tokens), dim=1).transpose(0, 1)
        return {"logits": self.fc(input=self.encoder(tokens)[0]), "tokens": tokens}


def hugging_face(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    common = dict(
        image_size=32,
        num_frames=4,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=7,
    )
    if kind == "VideoMAE":
        config = transformers.VideoMAEConfig(patch_size=16, tubelet_size=2, **common)
        return transformers.VideoMAEForVideoClassification(config)
    if kind == "Timesformer":
        return transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(patch_size=16, **common))
    config = transformers.VivitConfig(tubelet_size=[2, 16, 16], **common)
    return transformers.VivitForVideoClassification(config)


FOREIGN = {
    "cnn": (PlainCNN, "classifier"),
    "transformer": (ClipTransformer, "fc"),
    **{kind: (lambda kind=kind: hugging_face(kind), "classifier") for kind in ("VideoMAE", "Timesformer", "Vivit")},
}


def foreign(name: str) -> tuple[nn.Module, str]:
    torch.manual_seed(0)
    build, classifier = FOREIGN[name]
    return build(), classifier


def problem(clips: int = 28, seed: int = 0):
    """Clips whose brightness pattern says the expression.

    The AUs are bits of the expression and of the clip's colour.
    """
    generator = torch.Generator().manual_seed(seed)
    expressions = torch.arange(clips) % 7
    red = torch.rand(clips, generator=generator).round()
    video = 0.1 * torch.rand(clips, *CLIP, generator=generator)
    for i, expression in enumerate(expressions.tolist()):
        video[i, :, :, 4 * expression : 4 * expression + 4] += 0.8
        video[i, :, 0] += 0.5 * red[i]
    bits = torch.stack([(expressions + 1) // 2**k % 2 for k in range(3)] * 4, dim=1).float()
    return video, expressions, torch.cat((bits, red[:, None].expand(-1, 6)), dim=1)


def raw_logits(output) -> torch.Tensor:
    """What the network itself gives, as probabilities."""
    if isinstance(output, torch.Tensor):
        return output
    return (output["logits"] if isinstance(output, dict) else output.logits).softmax(-1)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_network_keeps_its_outputs_and_keys_and_learns_both(name):
    network, classifier = foreign(name)
    keys = list(network.state_dict())
    clips, expressions, aus = problem()
    before = raw_logits(network.eval()(clips)).detach()

    model = attach_au_head(network, classifier)
    output = model(clips)
    torch.testing.assert_close(output.expression_logits.softmax(-1), before)
    assert output.au_logits.shape == (len(clips), 18)
    torch.testing.assert_close(output.au_logits, model.au_head(output.features))
    layer = model.model.get_submodule(model.classifier)
    torch.testing.assert_close(output.expression_logits, layer(output.features))
    assert list(model.model.state_dict()) == keys
    assert list(model.state_dict()) == ["model." + key for key in keys] + ["au_head.weight", "au_head.bias"]

    au_loss = AULoss(torch.full((7, 18), 0.3), torch.full((7, 18), 2.0))
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    history = []
    for _ in range(40):
        output = model(clips)
        losses = expression_loss(output.expression_logits, expressions), au_loss(output.au_logits, aus, expressions)
        optimizer.zero_grad()
        combined_loss(*losses, au_ratio=0.25).backward()
        optimizer.step()
        history.append([loss.item() for loss in losses])
    assert history[-1][0] < 0.5 * history[0][0] and history[-1][1] < 0.6 * history[0][1]

    # the trained network alone, without us
    state = copy.deepcopy(model.model.state_dict())
    fresh, _ = foreign(name)
    fresh.load_state_dict(state)
    alone = model.eval().remove()
    assert alone is network and not layer._forward_hooks and not hasattr(layer, "_au_calls")
    torch.testing.assert_close(raw_logits(alone(clips)), raw_logits(fresh.eval()(clips)))


def test_the_au_loss_alone_reaches_the_trunk_and_not_the_classifier():
    network, classifier = foreign("cnn")
    attach_au_head(network, classifier)(problem(7)[0]).au_logits.square().sum().backward()
    assert network.trunk[0].weight.grad.abs().sum() > 0
    assert network.classifier[1].weight.grad is None


def test_precision_number_of_aus_and_autocast():
    network, classifier = foreign("cnn")
    clips = problem(7)[0]
    model = attach_au_head(copy.deepcopy(network).double(), classifier, num_aus=12)
    assert model(clips.double()).au_logits.shape == (7, 12) and model.au_head.weight.dtype == torch.float64

    model = attach_au_head(network, classifier).eval()
    exact = model(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(clips)
    assert rough.au_logits.dtype == rough.expression_logits.dtype == torch.bfloat16
    torch.testing.assert_close(rough.au_logits.float(), exact.au_logits, rtol=0, atol=0.03)


def test_copies_pickles_and_attaching_twice_are_separate_and_removable():
    network, classifier = foreign("cnn")
    clips = problem(7)[0]
    model = attach_au_head(attach_au_head(network, classifier).model, classifier).eval()
    expected = model(clips)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert torch.equal(twin(clips).au_logits, expected.au_logits)
        with torch.no_grad():
            twin.model.trunk[0].weight.zero_()
        assert not torch.equal(twin(clips).features, expected.features)
        assert torch.equal(model(clips).features, expected.features)
        layer = twin.remove().classifier[1]
        assert not layer._forward_hooks and torch.equal(model(clips).au_logits, expected.au_logits)


def test_data_parallel_replicas_in_threads_see_their_own_features():
    network, classifier = foreign("cnn")
    model = attach_au_head(network, classifier).eval()

    def replicate(module):  # what nn.DataParallel does, on the CPU
        replica = module._replicate_for_data_parallel()
        for key, child in module._modules.items():
            replica._modules[key] = child and replicate(child)
        for key, parameter in module._parameters.items():
            setattr(replica, key, None if parameter is None else parameter.detach())
        return replica

    clips = problem(28)[0]
    expected, results = model(clips).au_logits, {}
    barrier = threading.Barrier(4)

    def work(index, replica):
        for _ in range(5):
            barrier.wait()
            results[index] = replica(clips[7 * index : 7 * index + 7]).au_logits

    threads = [threading.Thread(target=work, args=(i, replicate(model))) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    torch.testing.assert_close(torch.cat([results[i] for i in range(4)]), expected)


def test_compiled_forward_and_gradients_are_the_same_for_every_batch():
    network, classifier = foreign("transformer")
    model = attach_au_head(network, classifier)
    compiled = torch.compile(model, backend="aot_eager")
    for seed, count in ((0, 7), (1, 7), (2, 5)):  # a remembered first batch would show
        clips = problem(count, seed)[0]
        results = []
        for forward in (model, compiled):
            model.zero_grad()
            output = forward(clips)
            (output.au_logits.square().sum() + output.expression_logits.sum()).backward()
            results.append((*output, *(p.grad.clone() for p in model.parameters())))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert compiled._orig_mod.model.fc._au_calls is None


def test_a_network_compiled_before_gives_features_or_a_sentence_never_old_ones():
    network, _ = foreign("transformer")
    clips = problem(7)[0]
    inner = torch.compile(network, backend="eager")
    inner(clips)
    model = attach_au_head(inner, "_orig_mod.fc")
    for seed in (0, 1):
        clips = problem(7, seed)[0]
        try:
            features = model(clips).features
        except AudferError as error:
            assert "attach the AU head first" in str(error)
        else:
            torch.testing.assert_close(network.fc(features), network(clips)["logits"])
    torch._dynamo.reset()


WORKER = """
import sys, torch, torch.distributed as dist
sys.path[:0] = ["tests", "tests/models"]
torch.set_num_threads(1)
from test_heads import foreign, problem
from audfer.models import attach_au_head
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
network, classifier = foreign("transformer")
model = attach_au_head(network, classifier)
parallel = torch.nn.parallel.DistributedDataParallel(model)
clips = problem(8)[0]
for _ in range(2):
    parallel.zero_grad()
    output = parallel(clips[4 * rank:4 * rank + 4])
    (output.au_logits.square().mean() + output.expression_logits.square().mean()).backward()
mine = {name: p.grad.clone() for name, p in model.named_parameters()}
model.zero_grad()
output = model(clips)
(output.au_logits.square().mean() + output.expression_logits.square().mean()).backward()
for name, p in model.named_parameters():
    torch.testing.assert_close(mine[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)
print("same", mine["au_head.weight"].abs().sum().item() > 0)
dist.destroy_process_group()
"""


def test_ddp_averages_the_gradients_of_both_heads(tmp_path):
    # each of two processes has half a batch; the averaged gradient is that of the whole batch
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "meet")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        out, error = worker.communicate(timeout=120)
        assert out.strip() == "same True", error


class Views(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 7)
        self.shared = nn.ModuleDict({"head": nn.Sequential(nn.LayerNorm(4), self.fc)})
        self.towers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.conv = nn.Conv3d(4, 7, 1)

    def forward(self, x):
        return self.fc(x) + self.fc(x.flip(0))


def test_what_cannot_be_right_gets_a_sentence():
    with pytest.raises(AudferError, match="PlainCNN has no linear layer named 'fc', expected one of: classifier.1"):
        attach_au_head(PlainCNN())
    with pytest.raises(
        AudferError, match="named 'conv', but a Conv3d, expected one of: fc, shared.head.1, towers.0, towers.1"
    ):
        attach_au_head(Views(), "conv")
    with pytest.raises(AudferError, match="named 'towers', but a Sequential, expected one of: towers.0, towers.1"):
        attach_au_head(Views(), "towers")
    with pytest.raises(AudferError, match="called its layer 'fc' 2 times, expected once"):
        attach_au_head(Views())(torch.zeros(2, 4))
    assert attach_au_head(Views(), "shared.head").classifier == "shared.head.1"  # the same layer by its other name
    with pytest.raises(AudferError, match="called its layer 'towers.0' 0 times, expected once: name the layer"):
        attach_au_head(Views(), "towers.0")(torch.zeros(2, 4))
    with pytest.raises(AudferError, match="does not know its sizes yet; run one batch"):
        attach_au_head(nn.Sequential(nn.LazyLinear(7)), "0")
    with pytest.raises(AudferError, match="pool is 'max', expected None or 'mean'"):
        attach_au_head(Views(), pool="max")


def test_an_error_in_the_network_leaves_nothing_behind():
    network, classifier = foreign("cnn")
    model = attach_au_head(network, classifier)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 4, 5, 8, 8))
    network(problem(7)[0])
    assert network.classifier[1]._au_calls is None
    assert model(problem(7)[0]).au_logits.shape == (7, 18)


def test_per_token_classifiers_need_the_mean():
    network = nn.Sequential(nn.Linear(4, 7))
    tokens = torch.rand(2, 5, 3, 4)
    with pytest.raises(AudferError, match=r"shape \(2, 5, 3, 4\), expected \(batch, features\).*pool='mean'"):
        attach_au_head(network, "0")(tokens)
    output = attach_au_head(network, "0", pool="mean")(tokens)
    torch.testing.assert_close(output.features, tokens.mean(dim=(1, 2)))
    torch.testing.assert_close(output.expression_logits, network(tokens).mean(dim=(1, 2)))


class FrameWise(nn.Module):
    """A 2-D network that classifies every frame, (B, T, 3, H, W) or (B, 3, T, H, W), and gives ``how`` of that."""

    def __init__(self, how: str, time: int = 1):
        super().__init__()
        self.how, self.time, self.fc = how, time, nn.Linear(3, 7)

    def forward(self, clips):
        clips = clips if self.time == 1 else clips.transpose(1, 2)
        frames = self.fc(clips.flatten(0, 1).mean(dim=(2, 3)))
        mean = frames.unflatten(0, clips.shape[:2]).mean(dim=1)
        return {"mean": mean, "frames": frames, "dict": {"logits": mean}, "both": (frames, mean), "loss": mean.sum()}[
            self.how
        ]


@pytest.mark.parametrize("how", ["mean", "frames", "dict", "both", "loss"])
@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_frame_wise_classifiers_need_the_mean(how, time, batch):
    clips = torch.rand(batch, 5, 3, 8, 8) if time == 1 else torch.rand(batch, 3, 5, 8, 8)
    network = FrameWise(how, time)
    with pytest.raises(AudferError, match=f"'fc' sees {5 * batch} vectors for {batch} clips.*; pool='mean' averages"):
        attach_au_head(network)(clips)
    output = attach_au_head(network, pool="mean")(clips)
    assert output.au_logits.shape == (batch, 18)
    torch.testing.assert_close(output.expression_logits, FrameWise.forward(_with(network, "mean"), clips))


def _with(network: FrameWise, how: str) -> FrameWise:
    network.how = how
    return network


def test_one_frame_a_clip_and_other_tensors_of_its_width_are_no_frame_wise_classifier():
    class Prototypes(FrameWise):
        def forward(self, clips):
            return {"logits": super().forward(clips), "prototypes": self.fc.weight @ self.fc.weight.T}

    clips = torch.rand(14, 1, 3, 8, 8)
    for network in (FrameWise("mean"), FrameWise("loss"), Prototypes("mean")):
        for pool in (None, "mean"):
            assert attach_au_head(network, pool=pool)(clips).au_logits.shape == (14, 18)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_network_learns_or_says_why_not(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, _ = foreign("cnn")

        def forward(self, clips):
            return checkpoint(self.network, clips, use_reentrant=reentrant)

    model = attach_au_head(Checkpointed(), "network.classifier")
    clips = problem(7)[0]
    if reentrant:
        with pytest.raises(AudferError, match="ran without gradients"):
            model(clips.requires_grad_())
        return
    model(clips).au_logits.square().sum().backward()
    got = model.model.network.trunk[0].weight.grad.clone()
    plain = attach_au_head(foreign("cnn")[0], "classifier")
    plain.au_head.load_state_dict(model.au_head.state_dict())
    plain(clips).au_logits.square().sum().backward()
    torch.testing.assert_close(got, plain.model.trunk[0].weight.grad)
    assert model.model.network.classifier[1]._au_calls is None


# ---------------------------------------------------------------------------- cost


@pytest.mark.parametrize("name", ["cnn", "VideoMAE"])
def test_the_head_costs_two_operations_a_weight(name):
    network, classifier = foreign(name)
    alone = count_flops(network, CLIP)
    model = attach_au_head(network, classifier)
    joined = count_flops(model, CLIP)
    features = model.au_head.in_features
    assert round(1e9 * (joined["gflops"] - alone["gflops"])) == 2 * 18 * features
    assert joined["parameters"] - alone["parameters"] == 18 * (features + 1)


def test_element_operations_by_hand():
    x = torch.ones(3, 4, requires_grad=True)
    # forward: exp 12, sum reads 12; backward: the gradient's one 1, its expansion a view, times exp 12
    assert count_element_operations(lambda: x.exp().sum()) == 24
    assert count_element_operations(lambda: x.t().view(4, 3)) == 0
    loss = AULoss(torch.full((7, 18), 0.3))
    batch = torch.zeros(8, 18), torch.zeros(8, 18), torch.zeros(8, dtype=torch.int64)
    assert 8 * 18 * 5 < count_element_operations(lambda: loss(*batch)) < 8 * 18 * 40


def test_shortcuts_of_mae_dfer_change_neither_numbers_nor_gradients():
    from audfer.models.output import by_definition

    torch.manual_seed(0)
    model = build_model("mae_dfer", size="tiny", drop_path=0.3, depth=3).double().train()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    clips, results = torch.rand(3, *default_clip_shape("mae_dfer", "tiny"), dtype=torch.float64), []
    for exact in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        if exact:
            with by_definition():
                output = model(clips)
        else:
            output = model(clips)
        (output.expression_logits.square().sum() + output.au_logits.sum()).backward()
        results.append((output.features.detach(), *(p.grad.clone() for p in model.parameters())))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------------------- the documented example


def test_the_example_runs_as_it_stands_and_both_heads_learn(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["your_network.py", "--steps", "25", "--clips", "14"])
    runpy.run_path(str(ROOT / "examples" / "your_network.py"), run_name="__main__")
    before, after, network = capsys.readouterr().out.splitlines()
    losses = [[float(x) for x in re.findall(r"loss ([\d.]+)", line)] for line in (before, after)]
    assert all(last < 0.8 * first for first, last in zip(*losses, strict=True))
    assert network.startswith("YourNetwork: 24 tensors")
