"""Checkpoints of anybody: opened without running code, recognised, loaded with every key accounted for, or refused."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from official import MANIFESTS, NAMES, tiny
from safetensors.torch import save_file

from audfer.companion.cli import main
from audfer.errors import AudferError
from audfer.models import build_model, find_weights, inspect_checkpoint, load_official_state_dict, read_checkpoint
from audfer.models.checkpoint import CONTAINERS, EMA_CONTAINERS, Unopened

AU_HEADS = {"m3dfel": ("fc_au", 1024), "former_dfer": ("AU_fc", 512), "mae_dfer": ("AU_fc", 512)}
PRETRAINING = MANIFESTS["mae_dfer"]["pretraining_checkpoint"]
STAGES = {"features.0.": "stem.", **{f"features.{i}.": f"layer{i}." for i in range(1, 5)}}
KINETICS = {
    **{STAGES[key[:11]] + key[11:]: shape for key, shape in MANIFESTS["m3dfel"]["keys"].items() if key[:11] in STAGES},
    "fc.weight": [400, 512],
    "fc.bias": [400],
}


def numbered(shapes: dict, prefix: str = "") -> dict[str, torch.Tensor]:
    """A tensor of each shape that is one number everywhere, another for each key, and takes hardly any room."""
    return {
        prefix + key: torch.tensor(float(number) if "num_batches" not in key else number).expand(shape)
        for number, (key, shape) in enumerate(shapes.items(), start=1)
    }


class RecorderMeter:
    """What Former-DFER's training script pickles: a class of the script itself, with NumPy arrays."""

    def __init__(self):
        self.epoch_losses = np.zeros((100, 2), dtype=np.float32)
        self.current_epoch = 3


def of_the_script(monkeypatch, cls: type) -> type:
    """The class as if the running script had defined it."""
    cls = type(cls.__name__, (cls,), {"__module__": "__main__", "__qualname__": cls.__name__})
    monkeypatch.setattr(sys.modules["__main__"], cls.__name__, cls, raising=False)
    return cls


@pytest.fixture(scope="module")
def official_files(tmp_path_factory):
    """name -> file with the official names and shapes, in each release's own container."""
    folder = tmp_path_factory.mktemp("official")
    optimizer = {
        "state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 1e-3, "params": [0]}],
    }
    options = argparse.Namespace(dataset="DFEW", batch_size=32, output=Path("somewhere"), seed=None)
    contents = {}
    for name in NAMES:
        for aus in (0, 18):
            shapes = dict(MANIFESTS[name]["keys"])
            if aus:
                head, width = AU_HEADS[name]
                shapes |= {f"{head}.weight": [aus, width], f"{head}.bias": [aus]}
            wrapper = "" if name == "mae_dfer" else "module."
            contents[name + ("_au" if aus else "")] = numbered(shapes, wrapper)
    files = {
        "mae_pretraining": {
            "model": numbered(PRETRAINING["keys"]),
            "optimizer": optimizer,
            "epoch": 49,
            "scaler": {"scale": 1.0},
            "args": options,
        },
        "kinetics": numbered(KINETICS),
    }
    with pytest.MonkeyPatch.context() as patch:
        recorder = of_the_script(patch, RecorderMeter)()
        for key, weights in contents.items():
            files[key] = {
                "m3dfel": {
                    "epoch": 80,
                    "state_dict": weights,
                    "best_wa": np.float64(0.6925),
                    "best_ua": torch.tensor(0.56),
                    "optimizer": optimizer,
                    "args": options,
                },
                "former_dfer": {
                    "epoch": 99,
                    "state_dict": weights,
                    "best_acc": torch.tensor(66.2),
                    "optimizer": optimizer,
                    "recorder": recorder,
                },
                "mae_dfer": {
                    "model": weights,
                    "optimizer": optimizer,
                    "epoch": 99,
                    "scaler": {"scale": 65536.0},
                    "args": options,
                },
            }[key.removesuffix("_au")]
        for key, content in files.items():
            torch.save(content, folder / f"{key}.pth")
    return {key: folder / f"{key}.pth" for key in files}


def _unfilled(name):
    """The paper-size network with weights of 0: drawing them takes longer than all that is done with them here."""
    with torch.device("meta"):
        model = build_model(name)
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.zero_()
    return model


@pytest.fixture(scope="module")
def paper_models():
    return {name: _unfilled(name) for name in NAMES}


# ---------------------------------------------------------------------------- official files


@pytest.mark.parametrize("au", ["", "_au"])
@pytest.mark.parametrize("name", NAMES)
def test_an_official_fine_tuned_file_loads_without_a_leftover(official_files, paper_models, name, au):
    model = paper_models[name]
    content = read_checkpoint(official_files[name + au])
    report = load_official_state_dict(model, content)
    head = [f"{model.au_head_name}.weight", f"{model.au_head_name}.bias"]
    assert (
        report.source
        == {"m3dfel": "fine-tuned M3DFEL", "former_dfer": "fine-tuned Former-DFER", "mae_dfer": "fine-tuned MAE-DFER"}[
            name
        ]
    )
    assert report.dropped == [] and report.left_at_initialisation == ([] if au else head)
    assert (
        report.loaded
        == [*MANIFESTS[name]["keys"], *(head if au else [])]
        == list(model.state_dict())[: len(report.loaded)]
    )
    for number, (key, value) in enumerate(model.state_dict().items(), start=1):
        if key in report.loaded:
            assert (value == number).all(), key


def test_the_official_pretraining_file_is_renamed_as_the_release_does(official_files, paper_models):
    model = paper_models["mae_dfer"]
    before = {key: model.state_dict()[key].clone() for key in PRETRAINING["left_at_initialisation"]}
    report = load_official_state_dict(model, read_checkpoint(official_files["mae_pretraining"]))
    assert report.source == "MAE pre-training"
    assert report.left_at_initialisation == [*PRETRAINING["left_at_initialisation"], "head_au.weight", "head_au.bias"]
    assert sorted(report.dropped) == sorted(PRETRAINING["dropped_after_renaming"])
    assert len(report.loaded) + len(report.dropped) == len(PRETRAINING["keys"])
    state, numbers = model.state_dict(), {key: i for i, key in enumerate(PRETRAINING["keys"], start=1)}
    assert all((state[key] == numbers[f"encoder.{key}"]).all() for key in report.loaded)
    assert all(torch.equal(state[key], value) for key, value in before.items())


def test_torchvisions_kinetics_weights_fill_the_backbone(official_files, paper_models):
    model = paper_models["m3dfel"]
    report = load_official_state_dict(model, read_checkpoint(official_files["kinetics"]))
    assert report.source == "Kinetics R3D-18" and report.dropped == ["kinetics.fc.weight", "kinetics.fc.bias"]
    assert report.loaded == [key for key in model.state_dict() if key.startswith("features.")]
    assert {key.split(".")[0] for key in report.left_at_initialisation} == {
        "lstm",
        "to_qkv",
        "norm",
        "pwconv",
        "fc",
        "fc_au",
    }
    number = 1 + list(KINETICS).index("layer4.0.downsample.1.running_var")
    assert (model.state_dict()["features.4.0.downsample.1.running_var"] == number).all()


def test_the_format_before_torch_1_6_and_files_without_batch_counters(tmp_path, paper_models):
    model, shapes = paper_models["former_dfer"], MANIFESTS["former_dfer"]["keys"]
    shapes = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    torch.save(
        {"state_dict": numbered(shapes, "module."), "args": argparse.Namespace(lr=0.1)},
        tmp_path / "old.pth.tar",
        _use_new_zipfile_serialization=False,
    )
    report = load_official_state_dict(model, read_checkpoint(tmp_path / "old.pth.tar"))
    assert report.loaded == list(shapes)
    assert sum(not key.endswith("num_batches_tracked") for key in report.left_at_initialisation) == 2  # the AU head


@pytest.mark.parametrize(
    "file,lines",
    [
        (
            "m3dfel",
            [
                "kind         fine-tuned M3DFEL, 7 expressions, no AU head",
                "46,823,384 parameters, float32",
                "prefix       module. (taken off every key)",
                "best_wa: a NumPy value, not opened",
                'fits         build_model("m3dfel")',
                "loaded       145 entries",
                "left initial 2: fc_au.weight, fc_au.bias",
            ],
        ),
        (
            "former_dfer_au",
            [
                "kind         fine-tuned Former-DFER, 7 expressions, 18 AUs",
                "epoch: 99; best_acc: 66.2; optimizer: 2 entries",
                "__main__.RecorderMeter, not opened",
                "loaded       171 entries",
                "left initial nothing",
            ],
        ),
        ("mae_dfer", ["weights      under 'model', 519 entries, 84,878,343 parameters", "args:", "argparse.Namespace"]),
        (
            "mae_pretraining",
            [
                "kind         MAE pre-training\n",
                "92,760,192 parameters",
                'fits         build_model("mae_dfer")',
                "loaded       515 entries",
                "left initial 6: fc_norm.weight",
                "dropped      60: mask_token",
            ],
        ),
        (
            "kinetics",
            [
                "kind         Kinetics R3D-18\n",
                "weights      bare",
                "dropped      2: kinetics.fc.weight, kinetics.fc.bias",
            ],
        ),
    ],
)
def test_inspect_says_what_a_file_is_and_what_it_fits(official_files, file, lines, capsys):
    assert main(["weights", "inspect", str(official_files[file])]) == 0
    out = capsys.readouterr().out
    for line in lines:
        assert line in out
    assert max(map(len, out.splitlines())) <= 79


def test_inspect_answers_for_one_network_and_for_files_it_does_not_know(official_files, tmp_path, capsys):
    assert main(["weights", "inspect", str(official_files["m3dfel"]), "--model", "mae_dfer"]) == 2
    captured = capsys.readouterr()
    assert "because      they are for M3DFEL (fine-tuned M3DFEL)" in captured.out
    assert "these weights do not fit mae_dfer" in captured.err
    save_file({"conv.weight": torch.zeros(3, 2)}, tmp_path / "foreign.safetensors")
    assert main(["weights", "inspect", str(tmp_path / "foreign.safetensors")]) == 0
    assert "kind         unknown" in (out := capsys.readouterr().out) and "first keys   conv.weight" in out
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for file, words in (
        ("empty.pth", "no weights found"),
        ("broken.safetensors", "expected a whole safetensors file"),
        ("absent.pth", "no such file"),
    ):
        assert main(["weights", "inspect", str(tmp_path / file)]) == 2
        assert words in capsys.readouterr().err


def test_inspect_finds_the_size_and_the_heads_of_our_own_files(tmp_path):
    save_file(tiny("mae_dfer", num_classes=11, num_aus=12).state_dict(), tmp_path / "weights.safetensors")
    report = inspect_checkpoint(tmp_path / "weights.safetensors")
    assert report.fits == 'build_model("mae_dfer", size="tiny", num_classes=11, num_aus=12)'
    assert (report.num_classes, report.num_aus, report.load.left_at_initialisation) == (11, 12, [])


# ---------------------------------------------------------------------------- wrappers, containers, moving averages


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", ["", *CONTAINERS])
def test_containers_and_data_parallel_prefix_are_unwrapped(name, container):
    source, target = tiny(name), build_model(name, size="tiny")
    wrapped = {f"module.{key}": value for key, value in source.state_dict().items()}
    report = load_official_state_dict(target, {container: wrapped, "epoch": 3} if container else wrapped)
    assert report.left_at_initialisation == []
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


@pytest.mark.parametrize("entry", EMA_CONTAINERS)
def test_a_moving_average_is_reported_and_taken_on_request(entry):
    source, target = tiny("m3dfel"), build_model("m3dfel", size="tiny")
    average = {key: torch.full_like(value, 7) for key, value in source.state_dict().items()}
    content = {"model": source.state_dict(), entry: {"module": average, "decay": 0.999} if entry == "ema" else average}
    report = load_official_state_dict(target, content)
    assert torch.equal(target.fc.weight, source.fc.weight)
    assert report.ema == entry and f"moving average under {entry!r}" in str(report)
    load_official_state_dict(target, content, which="ema")
    assert (target.fc.weight == 7).all()
    with pytest.raises(AudferError, match=f"only a moving average of the weights found, under '{entry}'"):
        find_weights({entry: average})


def test_torchs_own_wrappers_are_taken_off():
    source, target = tiny("former_dfer"), build_model("former_dfer", size="tiny")
    averaged = torch.optim.swa_utils.AveragedModel(source)
    averaged.update_parameters(source)
    found = find_weights({"ema": averaged.state_dict()}, "ema")
    assert found.prefix == "module." and found.others == {"n_averaged": "1"}
    parallel = torch.nn.DataParallel(source).state_dict()
    assert find_weights(parallel).prefix == "module."
    compiled = {
        key.replace("module.", "module._orig_mod."): value for key, value in parallel.items()
    }  # torch.compile's name
    assert find_weights(compiled).prefix == "module._orig_mod."
    assert load_official_state_dict(target, compiled).left_at_initialisation == []


def test_the_au_head_may_be_absent_on_either_side():
    source = tiny("m3dfel", num_aus=None)
    report = load_official_state_dict(tiny("m3dfel"), source.state_dict())
    assert report.left_at_initialisation == ["fc_au.weight", "fc_au.bias"]
    assert "2 left at initialisation: fc_au.weight, fc_au.bias" in str(report)
    assert load_official_state_dict(source, tiny("m3dfel").state_dict()).dropped == ["fc_au.weight", "fc_au.bias"]


@pytest.mark.parametrize("wrapper", ["encoder.", "backbone."])
def test_a_tiny_pretraining_file_of_ours_follows_the_official_rules(tmp_path, wrapper):
    model = tiny("mae_dfer")
    encoder = {key: value + 1 for key, value in model.state_dict().items() if not key.startswith(("fc_norm", "head"))}
    assert any("stem" in key for key in encoder) and any("token_norm" in key for key in encoder)
    save_file(
        {
            **{f"{wrapper}{key}": value for key, value in encoder.items()},
            f"{wrapper}norm.weight": torch.ones(3),
            "mask_token": torch.ones(3),
            "encoder_to_decoder.weight": torch.ones(3),
            "decoder.blocks.0.norm1.weight": torch.ones(3),
        },
        tmp_path / "pretraining.safetensors",
    )
    report = load_official_state_dict(model, read_checkpoint(tmp_path / "pretraining.safetensors"))
    assert report.source == "MAE pre-training" and len(report.loaded) == len(encoder)
    assert sorted(report.dropped) == [
        "decoder.blocks.0.norm1.weight",
        "encoder_to_decoder.weight",
        "mask_token",
        "norm.weight",
    ]
    assert report.left_at_initialisation == [
        "fc_norm.weight",
        "fc_norm.bias",
        "head.weight",
        "head.bias",
        "head_au.weight",
        "head_au.bias",
    ]
    assert all(torch.equal(model.state_dict()[key], value) for key, value in encoder.items())
    assert inspect_checkpoint(tmp_path / "pretraining.safetensors").fits == 'build_model("mae_dfer", size="tiny")'


# ---------------------------------------------------------------------------- weights that do not fit

#: of the tiny M3DFEL's features
WIDTH = tiny("m3dfel").feature_dim


def spoiled(**changes) -> dict[str, torch.Tensor]:
    """Tiny M3DFEL's weights with keys replaced, or taken out where the value is ``None``."""
    state = tiny("m3dfel").state_dict() | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    "state,words",
    [
        (lambda: spoiled(lstm__bias_hh_l0=None), "1 missing: lstm.bias_hh_l0"),
        (lambda: spoiled(surplus=torch.zeros(2)), "1 unknown: surplus"),
        (
            lambda: spoiled(to_qkv__weight=torch.zeros(3, 4)),
            rf"1 of another shape: to_qkv.weight \(3, 4\) instead of \({3 * WIDTH}, {WIDTH}\)",
        ),
        (
            lambda: spoiled(pwconv__bias=None, pwconv__offset=torch.zeros(1)),
            "1 missing: pwconv.bias; 1 unknown: pwconv.offset",
        ),
        (
            lambda: spoiled(fc__weight=torch.zeros(11, WIDTH), fc__bias=torch.zeros(11)),
            r"fc.weight is for 11 expressions, this network for 7 \(build it with num_classes=11, or load with "
            r"heads=False\)$",
        ),
        (
            lambda: spoiled(fc_au__weight=torch.zeros(12, WIDTH), fc_au__bias=torch.zeros(12)),
            "fc_au.weight is for 12 AUs, this network for 18",
        ),
        (
            lambda: tiny("former_dfer").state_dict(),
            r"do not fit M3DFEL: they are for FormerDFER \(fine-tuned Former-DFER\)",
        ),
        (lambda: {"a": torch.zeros(1)}, "missing: features.0.0.weight"),
        (
            lambda: {"state_dict": {"a": torch.zeros(1), "b": "text"}},
            r"not only tensors among the weights: b \('text'\)",
        ),
        (lambda: {"epoch": 3, "args": None}, "no weights found.*found the entries epoch, args"),
        (lambda: {}, r"no weights found.*\(none\)"),
    ],
)
def test_wrong_weights_are_refused_whole_with_a_sentence(state, words):
    model = tiny("m3dfel")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(AudferError, match=words):
        load_official_state_dict(model, state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_another_number_of_expressions_loads_where_it_fits_or_without_heads():
    mafw = tiny("former_dfer", num_classes=11)
    with pytest.raises(AudferError, match="for 11 expressions, this network for 7"):
        load_official_state_dict(tiny("former_dfer"), mafw.state_dict())
    assert (
        load_official_state_dict(build_model("former_dfer", 11, size="tiny"), mafw.state_dict()).left_at_initialisation
        == []
    )
    model = build_model("former_dfer", size="tiny")
    before = model.fc.weight.clone()
    report = load_official_state_dict(model, mafw.state_dict(), heads=False)
    heads = ["fc.weight", "fc.bias", "AU_fc.weight", "AU_fc.bias"]
    assert report.left_at_initialisation == heads and sorted(report.dropped) == sorted(heads)
    assert torch.equal(model.fc.weight, before) and torch.equal(model.t_former.cls_token, mafw.t_former.cls_token)


def test_two_names_for_one_key_a_wrapped_network_and_an_unknown_choice():
    state = {
        f"encoder.{key}": value
        for key, value in tiny("mae_dfer").state_dict().items()
        if not key.startswith(("fc_norm", "head"))
    }
    state["patch_embed.proj.bias"] = torch.zeros(96)
    with pytest.raises(AudferError, match="1 under two names: encoder.patch_embed.proj.bias"):
        load_official_state_dict(tiny("mae_dfer"), state)
    with pytest.raises(AudferError, match="for the networks of build_model, not for DataParallel"):
        load_official_state_dict(torch.nn.DataParallel(tiny("mae_dfer")), state)
    with pytest.raises(AudferError, match="unknown weights 'best', expected model or ema"):
        find_weights({}, "best")
    with pytest.raises(AudferError, match="no moving average"):
        find_weights(state, "ema")


# ---------------------------------------------------------------------------- files that would run code


class Attack:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker: Path) -> dict:
    return {
        "os.system": Attack(os.system, f"touch {marker}"),
        "subprocess": Attack(subprocess.check_call, ["touch", str(marker)]),
        "eval": Attack(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Attack(exec, f"open({str(marker)!r}, 'w')"),
        "open": Attack(open, str(marker), "w"),
        "getattr": Attack(getattr, Path(marker), "touch"),
        "touch": Attack(Path.touch, Path(marker)),
        "torch.load": Attack(torch.load, str(marker)),
        "numpy": Attack(np.save, str(marker), 3),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "in the recorder", "in the weights"])
@pytest.mark.parametrize("kind", list(attacks(Path())))
def test_a_file_that_would_run_code_is_refused_and_nothing_runs(tmp_path, monkeypatch, kind, place, zipped):
    marker = tmp_path / "it-ran.npy"
    attack = attacks(marker)[kind]
    content = {"state_dict": {"a": torch.ones(1)}, "epoch": 3}
    if place == "beside":
        content["recorder"] = attack
    elif place == "in the recorder":
        content["recorder"] = of_the_script(monkeypatch, RecorderMeter)()
        content["recorder"].extra = {"deep": [attack]}
    else:
        content["state_dict"]["b"] = attack
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    for mmap in (False, True):
        with pytest.raises(AudferError, match="opening anything else would mean running code from the file"):
            read_checkpoint(tmp_path / "file.pth", mmap=mmap)
    assert main(["weights", "inspect", str(tmp_path / "file.pth")]) == 2
    assert not marker.exists()


def test_those_attacks_would_work_on_an_unsafe_reader(tmp_path):
    for number, kind in enumerate(("os.system", "subprocess", "eval", "exec", "open", "touch", "numpy")):
        marker = tmp_path / f"{number}.npy"
        torch.save({"recorder": attacks(marker)[kind]}, tmp_path / "file.pth")
        torch.load(tmp_path / "file.pth", weights_only=False)
        assert marker.exists(), kind


def test_classes_are_neither_imported_nor_called(tmp_path, monkeypatch):
    """A script's class is replaced, whatever the file wants done with it.

    A class of another module is refused unseen.
    """
    marker = tmp_path / "it-ran"
    (tmp_path / "training_tools.py").write_text("class Meter:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import training_tools

    torch.save({"meter": training_tools.Meter(), "w": torch.ones(1)}, tmp_path / "foreign.pth")
    monkeypatch.delitem(sys.modules, "training_tools")
    (tmp_path / "training_tools.py").write_text(f"open({str(marker)!r}, 'w')\nclass Meter:\n    pass\n")
    with pytest.raises(AudferError, match="found the object training_tools.Meter"):
        read_checkpoint(tmp_path / "foreign.pth")
    assert "training_tools" not in sys.modules

    def in_the_script(*arguments):
        marker.touch()

    in_the_script.__module__, in_the_script.__qualname__ = "__main__", "in_the_script"
    monkeypatch.setattr(sys.modules["__main__"], "in_the_script", in_the_script, raising=False)
    torch.save({"call": Attack(in_the_script, 1, 2), "w": torch.ones(1)}, tmp_path / "called.pth")
    stand_in = read_checkpoint(tmp_path / "called.pth")["call"]
    assert isinstance(stand_in, Unopened) and repr(stand_in) == "__main__.in_the_script, not opened"
    assert not vars(type(stand_in)).get("__dict__") and not marker.exists()
    with pytest.raises(pickle.UnpicklingError):  # the stand-ins are gone after reading
        torch.load(tmp_path / "called.pth", weights_only=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:Detected pickle protocol 4:UserWarning")
def test_files_of_other_formats_are_refused_with_a_sentence(tmp_path):
    good = tmp_path / "good.pth"
    torch.save({"w": torch.arange(4000.0)}, good)
    assert read_checkpoint(good)["w"][-1] == 3999 and read_checkpoint(good, mmap=True)["w"][-1] == 3999
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:9000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Too many requests</html>")
    for name in ("pointer.pth", "pointer.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    (tmp_path / "annex.pth").write_text("/annex/objects/MD5-s4--00.pth\n")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"w": 3}, protocol=4))
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "script.pth")
    torch.save({"w": torch.ones(1), "a": argparse.Namespace(x=1)}, tmp_path / "protocol4.pth", pickle_protocol=4)
    with tarfile.open(tmp_path / "old.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "damaged.pth").write_bytes(b"\x80\x02}q\x00(")
    with zipfile.ZipFile(tmp_path / "clips.pth", "w") as archive:
        archive.writestr("clip.mp4", "")
    for name, words in {
        "cut.pth": "a zip archive without its end",
        "empty.pth": "an empty file",
        "text.pth": "something that begins with b'hello'",
        "page.pth": "a web page instead of the file",
        "pointer.pth": "a Git LFS pointer instead of the file",
        "pointer.safetensors": "a Git LFS pointer",
        "annex.pth": "a git-annex pointer",
        "plain.pth": "a pickle that the safe reader does not follow",
        "protocol4.pth": "a pickle that the safe reader does not follow",
        "tensor.pth": r"one object \(Tensor\)",
        "network.pth": "the object torch.nn.modules.linear.Linear",
        "script.pth": "a TorchScript program",
        "old.pth.tar": "a tar archive",
        "folder.pth": "not a plain file but a folder",
        "damaged.pth": "damage",
        "clips.pth": "another zip archive",
    }.items():
        with pytest.raises(AudferError, match=f"{name}: checkpoint: found {words}.*, expected") as caught:
            read_checkpoint(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1, name


# ---------------------------------------------------------------------------- wrappers, diverged weights


def test_tensors_that_are_not_what_was_written_are_refused_where_there_are_checksums(tmp_path):
    state = {"a": torch.arange(6.0), "b": torch.ones(3)}
    before = torch.serialization.get_crc32_options()
    try:
        for checksums in (True, False):
            torch.serialization.set_crc32_options(checksums)
            torch.save(state, tmp_path / "weights.pth")
            assert read_checkpoint(tmp_path / "weights.pth")["a"].tolist() == state["a"].tolist()
            if checksums:
                raw = (tmp_path / "weights.pth").read_bytes()
                five = np.float32(5).tobytes()
                assert raw.count(five) == 1
                (tmp_path / "weights.pth").write_bytes(raw.replace(five, np.float32(4).tobytes()))
                with pytest.raises(AudferError, match="weights/data/0 with another checksum"):
                    read_checkpoint(tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(before)


def _as_checkpoint(program: bytes) -> bytes:
    """A file of ``torch.save`` whose pickle is that program."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (
            ("data.pkl", b"\x80\x02" + program + b"."),
            ("version", b"3\n"),
            ("byteorder", b"little"),
        ):
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def _text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


#: as pickles: dictionaries in dictionaries, one in itself, many names for one at every level, and keys nested likewise
_WITHOUT_END = {
    "an entry": (b"}" + _text("a")) * 100_000 + b"}" + b"s" * 100_000,
    "a container": (b"}" + _text("state_dict")) * 100_000 + b"}" + b"s" * 100_000,
    "itself": b"}q\0" + _text("model") + b"h\0s",
    "one many times": b"}q\0"
    + b"".join(
        b"}" + b"".join(_text(name) + b"h" + bytes([k]) + b"s" for name in CONTAINERS) + b"q" + bytes([k + 1])
        for k in range(60)
    ),
    "a list": b"}" + _text("a") + b"]" * 100_000 + b"a" * 99_999 + b"s",
    "a key": b"})" + b"\x85" * 100_000 + b"K\1s",
}


@pytest.mark.parametrize("program", _WITHOUT_END.values(), ids=list(_WITHOUT_END))
def test_a_pickle_that_nests_without_end_is_refused_at_once(tmp_path, program):
    (tmp_path / "deep.pth").write_bytes(_as_checkpoint(program))
    with pytest.raises(AudferError, match="no weights found|checkpoint: found"):
        inspect_checkpoint(tmp_path / "deep.pth")


@pytest.mark.parametrize("name", ["m3dfel", "former_dfer", "mae_dfer"])
@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "_forward_module.module.", "learner.student.backbone_model.", "0."]
)
def test_a_prefix_that_all_keys_share_is_taken_off_where_the_rest_is_known(tmp_path, name, prefix):
    state = tiny(name).state_dict()
    content = {"state_dict": {prefix + key: value for key, value in state.items()}, "epoch": 3}
    torch.save(content, tmp_path / "wrapped.ckpt")
    report = inspect_checkpoint(tmp_path / "wrapped.ckpt")
    assert name in report.fits and report.weights.prefix == prefix
    network = tiny(name)
    load_official_state_dict(network, content)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("state", [{"fc.weight": torch.ones(7, 4), "fc.bias": torch.ones(7)}, {"model": torch.ones(1)}])
def test_a_prefix_stays_where_nothing_is_known_without_it(tmp_path, state):
    torch.save(state, tmp_path / "foreign.pth")
    report = inspect_checkpoint(tmp_path / "foreign.pth")
    assert report.kind == "unknown" and list(report.weights.tensors) == list(state) and report.weights.prefix == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_named_and_not_loaded(tmp_path, value, dtype):
    state = {key: entry.to(dtype) if entry.is_floating_point() else entry for key, entry in _former().items()}
    key = next(key for key in state if key.endswith("running_var"))
    state[key] = state[key].clone()
    state[key][0] = value
    torch.save(state, tmp_path / "diverged.pth")
    report = inspect_checkpoint(tmp_path / "diverged.pth")
    assert not report.fits and f"1 with values that are not finite: {key}" in "; ".join(report.problems)
    with pytest.raises(AudferError, match="not finite"):
        load_official_state_dict(tiny("former_dfer"), state)


def _former() -> dict[str, torch.Tensor]:
    return tiny("former_dfer").state_dict()
