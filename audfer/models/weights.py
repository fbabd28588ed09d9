"""Official checkpoints: open safely, rename, load strictly, and say what happened to every key."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import AudferError, InputError
from .m3dfel import M3DFEL
from .mae_dfer import MAEDFER
from .output import ClipModel

#: top-level entries under which the releases keep their weights, tried in this order
CONTAINERS = ("state_dict", "model", "module", "model_state_dict")


@dataclass
class LoadReport:
    """What became of every key.

    Attributes:
        source: kind of file: "fine-tuned", "MAE pre-training" or "Kinetics R3D-18".
        loaded: keys of the model that got a value.
        left_at_initialisation: keys of the model that the file is known not to have (heads, LSTM and so on).
        dropped: keys of the file that the model is known not to need (decoder, Kinetics classifier).
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    left_at_initialisation: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.source} weights: {len(self.loaded)} entries loaded"]
        for title, keys in (("left at initialisation", self.left_at_initialisation), ("not needed, dropped", self.dropped)):
            if keys:
                lines.append(f"{len(keys)} {title}: {_some(keys)}")
        return "; ".join(lines)


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Open a checkpoint without running any code from it (``weights_only=True``); safetensors files too.

    Raises:
        InputError: not a checkpoint, or one that can only be opened by running code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "checkpoint", "no such file", "a .pth, .pt or .safetensors file")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(path, "checkpoint", f"an object other than tensors ({str(error).splitlines()[0]})",
                         "tensors only: opening it would mean running code from the file") from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise InputError(path, "checkpoint", str(error).splitlines()[0], "a file written by torch.save") from error


def load_official_state_dict(model: ClipModel, state_dict: dict) -> LoadReport:
    """Load official weights into a paper-size model. Strict: every key is used, known to be superfluous, or refused.

    Understands fine-tuned checkpoints of M3DFEL, Former-DFER and MAE-DFER (with or without AU head, with or without a
    data-parallel ``module.`` prefix, bare or inside the usual containers), MAE-DFER's pre-training checkpoint, and
    torchvision's Kinetics-400 R3D-18 for M3DFEL's backbone.

    Args:
        model: from ``build_model``; its AU head stays at its initial values if the file has none.
        state_dict: what ``read_checkpoint`` or ``torch.load`` gives.

    Returns:
        The report; print it.

    Raises:
        AudferError: a key is missing, unknown or has another shape; nothing has been loaded then.
    """
    state = _unwrap(state_dict)
    own = model.state_dict()
    head_keys = [f"{model.classifier_name}.{leaf}" for leaf in ("weight", "bias")]
    au_keys = [] if model.num_aus is None else [f"{model.au_head_name}.{leaf}" for leaf in ("weight", "bias")]
    report = LoadReport("fine-tuned")
    may_miss, droppable = set(au_keys), ()

    if isinstance(model, MAEDFER) and any(key.startswith(("encoder.", "backbone.")) for key in state):
        report.source = "MAE pre-training"
        state = {key.removeprefix("backbone." if key.startswith("backbone.") else "encoder."): value
                 for key, value in state.items()}
        may_miss |= {"fc_norm.weight", "fc_norm.bias", *head_keys}
        # the encoder's final norm is not carried into fc_norm: so does the official code
        droppable = ("decoder.", "encoder_to_decoder.", "mask_token", "norm.")
    elif isinstance(model, M3DFEL) and "stem.0.weight" in state:
        report.source = "Kinetics R3D-18"
        renamed = {}
        for key, value in state.items():
            stage, _, rest = key.partition(".")
            number = "0" if stage == "stem" else stage.removeprefix("layer")
            renamed[f"features.{number}.{rest}" if number.isdigit() else f"classifier.{key}"] = value
        state = renamed
        may_miss |= {key for key in own if not key.startswith("features.")}
        droppable = ("classifier.fc.",)
    if not au_keys:
        droppable += (f"{model.au_head_name}.",)

    report.dropped = [key for key in state if key not in own and key.startswith(droppable)] if droppable else []
    unknown = [key for key in state if key not in own and key not in set(report.dropped)]
    missing = [key for key in own if key not in state and key not in may_miss]
    shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
              for key in own if key in state and state[key].shape != own[key].shape]
    problems = [f"{len(keys)} {title}: {_some(keys)}"
                for title, keys in (("missing", missing), ("unknown", unknown), ("of another shape", shapes)) if keys]
    if problems:
        raise AudferError(f"these weights do not fit {type(model).__name__}: " + "; ".join(problems))
    report.loaded = [key for key in own if key in state]
    report.left_at_initialisation = [key for key in own if key not in state]
    nn.Module.load_state_dict(model, {key: state.get(key, own[key]) for key in own}, strict=True)
    return report


def _unwrap(content: dict) -> dict[str, Tensor]:
    """The weights inside a checkpoint, without the data-parallel prefix."""
    for name in CONTAINERS:
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    wrong = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if wrong or not content:
        raise AudferError(f"no weights found: expected a dictionary of tensors, bare or under one of {', '.join(CONTAINERS)}, "
                          f"found the entries {_some([str(key) for key in content]) or '(none)'}")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _some(keys: list[str], limit: int = 6) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
