"""The three networks are the official ones: names, shapes, logits, features and tensors in between; and their
gradients.
"""

from __future__ import annotations

import ast

import pytest
import torch
from official import GOLDENS, MANIFESTS, MODEL_DATA, NAMES, fill, filled, official_forward, relative_error
from paths import SHARED
from torch.autograd import gradcheck
from torch.func import functional_call

from audfer.models import build_model, load_official_state_dict
from audfer.models.output import by_definition
from audfer.training.engine import threads

REFERENCE = SHARED / "reference" / "models"
TOLERANCE = GOLDENS["tolerance"]["expected"]
#: parameters of the official networks, reference/models/SPEC.md "Measured size and cost"
OFFICIAL_PARAMETERS = {"m3dfel": 46_823_384, "former_dfer": 18_031_943, "mae_dfer": 84_878_343}
#: sizes small enough for numerical derivatives, with every part of the network in them
SMALL = {
    "m3dfel": dict(
        num_frames=6,
        image_size=16,
        instance_length=2,
        channels=(3, 4, 5, 6),
        stem_kernel=(3, 3, 3),
        hidden=4,
        lstm_layers=2,
        heads=2,
    ),
    "former_dfer": dict(
        num_frames=3,
        image_size=20,
        channels=(3, 4, 6, 8),
        stem_kernel=3,
        spatial_heads=2,
        spatial_hidden=5,
        temporal_depth=2,
        temporal_heads=2,
        temporal_hidden=7,
    ),
    "mae_dfer": dict(
        num_frames=4, image_size=24, tubelet=(2, 4, 4), region=(1, 3, 6), stem=(4,), dim=16, depth=2, heads=2, hidden=10
    ),
}


@pytest.fixture(scope="module", params=NAMES)
def paper(request):
    """(name, paper-size network with the golden weights, loaded under their official names)."""
    name = request.param
    model = build_model(name, num_aus=None).eval()
    report = load_official_state_dict(model, fill.fill_state_dict(MANIFESTS[name]["keys"], GOLDENS["seed"]))
    assert (len(report.loaded), report.left_at_initialisation, report.dropped) == (MANIFESTS[name]["entries"], [], [])
    return name, model


def test_the_reference_here_is_the_shared_one():
    if not REFERENCE.is_dir():
        pytest.skip("the shared reference folder is not here")
    for file in MODEL_DATA.glob("*.*"):
        ours, theirs = file.read_text(), (REFERENCE / file.name).read_text()
        if file.suffix == ".py":  # formatted as everything here is
            ours, theirs = ("".join(ast.unparse(ast.parse(text)).split()) for text in (ours, theirs))
        assert ours == theirs, file.name


def test_paper_size_has_the_official_names_and_shapes_in_order(paper):
    name, model = paper
    state = model.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == MANIFESTS[name]["keys"]
    assert list(state) == list(MANIFESTS[name]["keys"])
    assert sum(p.numel() for p in model.parameters()) == OFFICIAL_PARAMETERS[name] == MANIFESTS[name]["parameters"]


@pytest.mark.parametrize("batch,num_threads", [(1, 2), (2, 2), (3, 1)])
def test_logits_features_and_taps_are_the_golden_ones(paper, batch, num_threads):
    name, model = paper
    golden = GOLDENS["models"][name]
    clips = fill.make_clips(name, batch, GOLDENS["seed"])
    if batch == 2:
        assert fill.checksum(clips) == golden["input_sha256"]

    # a tap is a module's output under the module's official name, which is its name here too; the LSTM also gives its
    # state
    seen = {}
    hooks = [
        model.get_submodule(tap["official_module"]).register_forward_hook(
            lambda module, inputs, output, key=tap["official_module"]: seen.update(
                {key: output[0] if isinstance(output, tuple) else output}
            )
        )
        for tap in golden["taps"]
    ]
    try:
        with torch.inference_mode(), threads(num_threads):
            logits, features = official_forward(model, clips)
    finally:
        for hook in hooks:
            hook.remove()

    rows = min(batch, 2)  # the goldens have two clips
    for tap in golden["taps"]:
        whole, shape = seen[tap["official_module"]], tap["clip0_shape"]
        assert list(whole.shape) == [tap["shape_full_batch"][0] * batch // 2, *tap["shape_full_batch"][1:]]
        ours = whole[: shape[0]]
        scale = ours.abs().max()
        assert list(ours.shape) == shape
        assert (ours.flatten()[:8] - torch.tensor(tap["clip0_first8"])).abs().max() < TOLERANCE * scale, tap["where"]
        assert ours.norm().item() == pytest.approx(tap["clip0_l2"], rel=TOLERANCE), tap["where"]
        assert abs(ours.double().mean() - tap["clip0_mean"]) < TOLERANCE * scale, tap["where"]
    assert features.shape == (batch, golden["feature_dim"])
    assert relative_error(features[:rows, :16], golden["feature_first16"][:rows]) < TOLERANCE
    assert features[:rows].norm(dim=1).tolist() == pytest.approx(golden["feature_l2"][:rows], rel=TOLERANCE)
    assert relative_error(logits[:rows], golden["logits"][:rows]) < TOLERANCE


def test_other_weights_give_one_answer_at_paper_size(paper):
    """Whatever the batch, the number of threads, and whether layers take their shortcuts."""
    name, model = paper
    state = fill.fill_state_dict(MANIFESTS[name]["keys"], seed=1)
    clips = fill.make_clips("m3dfel", 2, seed=1, size=model.image_size)  # what every network's forward takes
    with torch.inference_mode():
        with threads(1):
            both = functional_call(model, state, (clips,))
        with threads(2), by_definition():
            alone = functional_call(model, state, (clips[1:],))
    assert relative_error(alone.expression_logits, both.expression_logits[1:]) < TOLERANCE
    assert relative_error(alone.features, both.features[1:]) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_give_one_answer_in_double_precision(name):
    model = filled(build_model(name, size="tiny", **SMALL[name]), seed=2).double()
    clips = fill.make_clips(name, 3, seed=2, frames=model.num_frames, size=model.image_size).double()
    with torch.inference_mode():
        features = official_forward(model, clips)[1]
        assert features.dtype == torch.float64 and features.abs().max() > 0.1
        for batch in (1, 2, 3):
            for number in (1, 2):
                with threads(number):
                    assert relative_error(official_forward(model, clips[:batch])[1], features[:batch]) < 1e-12
        with by_definition():
            assert relative_error(official_forward(model, clips)[1], features) < 1e-12


@pytest.mark.parametrize("name,settings", [*((name, {}) for name in NAMES), ("mae_dfer", dict(drop_path=0.5))])
def test_gradients_in_training_are_the_numerical_ones(name, settings):
    """In double precision: of all outputs with regard to the clips and to every parameter, batch norms in training
    mode.
    """
    model = filled(build_model(name, size="tiny", **SMALL[name], **settings), seed=3).double().train()
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(
        2, model.num_frames, 3, model.image_size, model.image_size, generator=generator, dtype=torch.float64
    )
    parameters = dict(model.named_parameters())

    def forward(clips, *values):
        torch.manual_seed(0)  # the same paths are dropped every time
        outputs = functional_call(model, dict(zip(parameters, values, strict=True)), (clips,))
        return tuple(output for output in outputs if output is not None)

    inputs = tuple(tensor.detach().clone().requires_grad_() for tensor in (clips, *parameters.values()))
    assert gradcheck(forward, inputs, fast_mode=True)

    def gradients():
        return torch.autograd.grad(sum(output.square().sum() for output in forward(*inputs)), inputs)

    shortened = gradients()
    with by_definition():
        defined = gradients()
    for (key, ours), theirs in zip(zip(("clips", *parameters), shortened, strict=True), defined, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=key)
