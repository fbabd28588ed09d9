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

from .checkpoint import Weights, find_weights, read_checkpoint
from .heads import WithAUHead, attach_au_head, count_element_operations, count_flops
from .output import ClipModel, Output
from .registry import NETWORKS, Family, Network, build_model, default_clip_shape
from .weights import CheckpointReport, LoadReport, inspect_checkpoint, load_official_state_dict

__all__ = [
    "NETWORKS",
    "CheckpointReport",
    "ClipModel",
    "Family",
    "LoadReport",
    "Network",
    "Output",
    "Weights",
    "WithAUHead",
    "attach_au_head",
    "build_model",
    "count_element_operations",
    "count_flops",
    "default_clip_shape",
    "find_weights",
    "inspect_checkpoint",
    "load_official_state_dict",
    "read_checkpoint",
]
