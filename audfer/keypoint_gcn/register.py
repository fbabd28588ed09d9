"""KP-GCN among the networks."""

from __future__ import annotations

from dataclasses import replace

from ..models.registry import NETWORKS, Family, Network
from ..recipes import CROP, TINY, Recipe
from .network import KeyPointGCN

_PAPER = Recipe(
    "Huang et al. 2024 (optimizer, rate and its steps, 80 epochs, batch); augmentation and frames: ours",
    "adam",
    1e-3,
    0.0,
    betas=(0.9, 0.99),
    batch_size=64,
    epochs=80,
    schedule="step",
    milestones=(0.5, 0.75),
    augmentation=CROP,
)


def _imagenet_key(key: str) -> str:
    return f"imagenet.{key}" if key.startswith("fc.") else f"backbone.{key}"


NETWORKS.add(
    "keypoint_gcn",
    Network(
        build=KeyPointGCN,
        title="KP-GCN",
        colour="#CC79A7",
        sizes={
            "paper": {},
            "tiny": dict(
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
        recipes={
            "paper": _PAPER,
            "audfer": replace(
                _PAPER,
                source="ours: keypoint_gcn-paper for AU-DFER's 100 epochs (section 4.3), with its release's selection",
                epochs=100,
                selection="best sum of test WAR and UAR",
            ),
            "tiny": TINY,
        },
        variants={
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
            **{f"auxiliary {share:g}": dict(auxiliary_weight=share) for share in (0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.8)},
        },
        weights=(
            Family("fine-tuned KP-GCN", ("backbone.conv1.weight", "triplet.height_width.conv.weight")),
            # of the whole network only the stages are the usual ones: ImageNet's 1000 classes have no place in it
            Family(
                "ImageNet ResNet-18",
                ("conv1.weight", "layer4.1.bn2.weight", "fc.weight"),
                _imagenet_key,
                ("triplet.", "whole.", "graph.", "fusion.", "time.", "fc."),
                ("imagenet.fc.",),
            ),
        ),
        unreleased="KP-GCN's authors have released no weights: what fits are audfer's own files and, for the backbone, "
        "torchvision's ImageNet ResNet-18",
    ),
)
