"""Networks for dynamic facial expression recognition, the AU plug-in, and official checkpoints.

Example:
    >>> import torch
    >>> from audfer.models import build_model
    >>> model = build_model("m3dfel", size="tiny").eval()
    >>> output = model(torch.zeros(2, 8, 3, 48, 48, dtype=torch.uint8))
    >>> tuple(output.expression_logits.shape), tuple(output.au_logits.shape)
    ((2, 7), (2, 18))
"""

from __future__ import annotations

from ..errors import AudferError
from .checkpoint import Weights, find_weights, read_checkpoint
from .former_dfer import FormerDFER
from .heads import WithAUHead, attach_au_head, count_element_operations, count_flops
from .keypoint_gcn import KeyPointGCN
from .lac import LAC, LAC_SIZES, LACOutput, build_lac, lac_flops, load_imagenet
from .m3dfel import M3DFEL
from .mae_dfer import MAEDFER
from .output import ClipModel, Output
from .weights import CheckpointReport, LoadReport, inspect_checkpoint, load_official_state_dict

__all__ = [
    "LAC",
    "LAC_SIZES",
    "MODELS",
    "SIZES",
    "VARIANTS",
    "M3DFEL",
    "FormerDFER",
    "KeyPointGCN",
    "LACOutput",
    "MAEDFER",
    "CheckpointReport",
    "ClipModel",
    "LoadReport",
    "Output",
    "Weights",
    "WithAUHead",
    "attach_au_head",
    "build_lac",
    "build_model",
    "count_element_operations",
    "count_flops",
    "default_clip_shape",
    "find_weights",
    "inspect_checkpoint",
    "lac_flops",
    "load_imagenet",
    "load_official_state_dict",
    "read_checkpoint",
]

#: name -> class
MODELS: dict[str, type[ClipModel]] = {
    "m3dfel": M3DFEL,
    "former_dfer": FormerDFER,
    "mae_dfer": MAEDFER,
    "keypoint_gcn": KeyPointGCN,
}

#: what a size means for each model; "paper" is each class's own defaults: the official network, or the printed one
SIZES: dict[str, dict[str, dict]] = {
    "paper": {"m3dfel": {}, "former_dfer": {}, "mae_dfer": {}, "keypoint_gcn": {}},
    # same parts, small enough to train on a laptop's processor, from scratch, on some hundred clips: on those a
    # narrower network that is shown them more often learns more in the same time
    "tiny": {
        "m3dfel": dict(
            num_frames=8,
            image_size=48,
            contrast=True,
            grey=True,
            instance_length=2,
            channels=(12, 24, 48, 96),
            blocks=(1, 1, 1, 1),
            stem_kernel=(3, 5, 5),
            stem_pool=True,
            hidden=48,
            lstm_layers=1,
            heads=4,
        ),
        "former_dfer": dict(
            num_frames=8,
            image_size=48,
            contrast=True,
            grey=True,
            channels=(16, 24, 48, 64),
            blocks=(1, 1, 1, 1),
            stem_kernel=5,
            spatial_heads=4,
            spatial_hidden=96,
            temporal_depth=2,
            temporal_heads=4,
            temporal_hidden=128,
        ),
        "mae_dfer": dict(
            num_frames=8,
            image_size=48,
            contrast=True,
            tubelet=(2, 16, 16),
            region=(2, 3, 3),
            stem=(8, 24, 64),
            dim=64,
            depth=2,
            heads=4,
            hidden=128,
            drop_path=0.0,
            head_scale=1.0,
            init_std=0.05,
        ),
        "keypoint_gcn": dict(
            num_frames=8,
            image_size=48,
            contrast=True,
            grey=True,
            channels=(12, 24, 32, 32),
            blocks=(0, 1, 1, 1),
            stem_kernel=5,
            triplet_kernel=3,
            sigma=0.5,
            node_dim=16,
            head_dim=8,
            temporal_hidden=64,
        ),
    },
}

#: model -> name of a variant -> keywords of the class in which it differs, for ablations; "" is the network itself
VARIANTS: dict[str, dict[str, dict]] = {
    "keypoint_gcn": {
        # Table 9; its E is the full network
        "A": dict(graph=False, time="mean"),
        "B": dict(time="mean"),
        "C": dict(time="lstm"),
        "D": dict(graph=False),
        # Table 10
        "mean fusion": dict(fusion="mean"),
        "LSTM fusion": dict(fusion="lstm"),
        # Tables 11 and 12, Fig. 8
        **{f"heads {heads}": dict(temporal_heads=heads) for heads in (6, 10, 12)},
        **{f"depth {depth}": dict(temporal_depth=depth) for depth in (2, 4, 5, 6)},
        **{f"auxiliary {weight:g}": dict(auxiliary_weight=weight) for weight in (0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.8)},
    },
}


def build_model(
    name: str,
    num_classes: int = 7,
    num_aus: int | None = 18,
    size: str = "paper",
    num_frames: int | None = None,
    image_size: int | None = None,
    **overrides,
) -> ClipModel:
    """A network with fresh weights, drawn from torch's global generator (``torch.manual_seed`` makes it repeatable).

    Args:
        name: "m3dfel", "former_dfer", "mae_dfer" or "keypoint_gcn".
        num_classes: expressions.
        num_aus: AUs of the extra head; ``None`` builds the network without it (the paper's baseline).
        size: "paper" (the official or printed network) or "tiny" (the same parts, made to train on a laptop's
            processor).
        num_frames: frames of a clip; ``None``: 16 for "paper", 8 for "tiny".
        image_size: side of a frame in pixels; ``None``: 112 (MAE-DFER 160) for "paper", 48 for "tiny".
        **overrides: any keyword of the model's class.

    Raises:
        AudferError: an unknown name, size or keyword, or sizes that the model cannot take.
    """
    if name not in MODELS:
        raise AudferError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    if size not in SIZES:
        raise AudferError(f"unknown model size {size!r}, expected one of {', '.join(SIZES)}")
    settings = {"num_classes": num_classes, "num_aus": num_aus, **SIZES[size][name]}
    settings.update(
        {key: value for key, value in (("num_frames", num_frames), ("image_size", image_size)) if value is not None}
    )
    known = MODELS[name].__init__.__kwdefaults__
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise AudferError(f"{name}: unknown setting {unknown[0]!r}, expected one of {', '.join(known)}")
    return MODELS[name](**{**settings, **overrides})


def default_clip_shape(name: str, size: str = "paper") -> tuple[int, int, int, int]:
    """(T, 3, H, W) of the clips that ``build_model(name, size=size)`` takes."""
    settings = {**MODELS[name].__init__.__kwdefaults__, **SIZES[size][name]}
    return settings["num_frames"], 3, settings["image_size"], settings["image_size"]
