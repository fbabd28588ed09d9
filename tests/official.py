"""The official networks' names, shapes and numbers (tests/data/models), and our networks filled with them."""

from __future__ import annotations

import importlib.util
import json

import torch
from paths import DATA
from torch import nn

from audfer.models import NETWORKS, build_model, default_clip_shape

MODEL_DATA = DATA / "models"
_spec = importlib.util.spec_from_file_location("fill", MODEL_DATA / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)
GOLDENS = json.loads((MODEL_DATA / "goldens.json").read_text())
#: networks with an official release, and all of them
NAMES = tuple(name for name in NETWORKS if name in GOLDENS["models"])
EVERY = tuple(NETWORKS)
MANIFESTS = {name: json.loads((MODEL_DATA / f"{name}.keys.json").read_text()) for name in NAMES}


def filled(model: nn.Module, seed: int) -> nn.Module:
    """The model in eval mode with ``fill.py``'s weights, the same for the same names and shapes."""
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    model.load_state_dict(fill.fill_state_dict(shapes, seed))
    return model.eval()


def official_forward(model: nn.Module, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and features of ``fill.make_clips``: MAE-DFER's are channels-first and already normalised."""
    if hasattr(model, "encode_normalised"):
        features = model.encode_normalised(clips.transpose(1, 2))
        return model.head(features), features
    output = model(clips)
    return output.expression_logits, output.features


def tiny(name: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, size="tiny", **settings).eval()


def tiny_clips(name: str, batch: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, *default_clip_shape(name, "tiny")), generator=generator, dtype=torch.uint8)


def relative_error(ours: torch.Tensor, theirs) -> float:
    """max|ours - theirs| / max|theirs|, the goldens' own measure."""
    theirs = torch.as_tensor(theirs, dtype=ours.dtype)
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
