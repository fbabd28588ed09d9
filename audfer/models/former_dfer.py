"""Former-DFER: a ResNet with a spatial transformer per frame, then a temporal transformer over frames.

Zhao and Liu, "Former-DFER: Dynamic Facial Expression Recognition Transformer", ACM MM 2021. Parameter names are the
official ones. Departures: frames, side and classes are arguments (the official code has 16, 112 and 7 in its reshapes),
so a clip of another length is refused instead of being split silently.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from ..recipes import CROP, TINY, TINY_SOURCE, TINY_START, Recipe
from .attention import attention
from .output import ClipModel, kaiming_init
from .registry import NETWORKS, Family, Network
from .resnet import residual_stage


class Attention(nn.Module):
    """Multi-head self-attention, bias-free query, key and value; (B, tokens, dim) -> the same shape.

    ``head_dim`` is the width of a head, ``None``: ``dim / heads``.
    """

    def __init__(self, dim: int, heads: int, head_dim: int | None = None):
        super().__init__()
        self.heads = heads
        inner = dim if head_dim is None else heads * head_dim
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = self.to_qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = attention(query, key, value)
        return self.to_out(x.transpose(1, 2).reshape(batch, tokens, -1))


class FeedForward(nn.Module):
    """Linear, GELU (tanh approximation), linear. Official numbering: the linears are ``net.0`` and ``net.3``."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Identity(), nn.Linear(hidden, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    """Layer norm in front of ``fn``."""

    def __init__(self, dim: int, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Residual(nn.Module):
    """``x + fn(x)``."""

    def __init__(self, fn: nn.Module):
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class Transformer(nn.Module):
    """Pre-norm layers without a final norm; (B, tokens, dim) -> the same shape."""

    def __init__(self, dim: int, depth: int, heads: int, hidden: int, head_dim: int | None = None):
        super().__init__()
        self.layers = nn.Sequential()
        for _ in range(depth):
            parts = Attention(dim, heads, head_dim), FeedForward(dim, hidden)
            self.layers.append(nn.Sequential(*(Residual(PreNorm(dim, part)) for part in parts)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SpatialFormer(nn.Module):
    """Frames (N, colours, side, side) -> one vector per frame (N, channels[3])."""

    def __init__(
        self,
        colours: int,
        image_size: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        stem_kernel: int,
        stem_pool: bool,
        depth: int,
        heads: int,
        hidden: int,
    ):
        super().__init__()
        side = math.ceil(image_size / (16 if stem_pool else 8))  # halved, rounding up: stem, pooling, stages 2 and 3
        self.pos_embedding = nn.Parameter(torch.randn(1, side * side, channels[2]))
        self.conv1 = nn.Conv2d(colours, channels[0], stem_kernel, stride=2, padding=stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem_pool else nn.Identity()
        for number, (narrow, wide) in enumerate(pairwise((channels[0], *channels))):
            self.add_module(f"layer{number + 1}", residual_stage(narrow, wide, blocks[number], 2 if number else 1))
        self.spatial_transformer = Transformer(channels[2], depth, heads, hidden)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        kaiming_init(self)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.maxpool(F.relu_(self.bn1(self.conv1(frames))))
        x = self.layer3(self.layer2(self.layer1(x)))  # N, channels, height, width
        _, _, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2) + self.pos_embedding  # N, height * width, channels
        tokens = self.spatial_transformer(tokens)  # each frame's places attend to one another
        x = tokens.transpose(1, 2).unflatten(2, (height, width))
        return self.avgpool(self.layer4(x)).flatten(1)


class TemporalFormer(nn.Module):
    """Frame vectors (B, T, dim) -> the class token's output (B, dim)."""

    def __init__(self, num_frames: int, dim: int, depth: int, heads: int, hidden: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, num_frames + 1, dim))
        self.spatial_transformer = Transformer(dim, depth, heads, hidden)  # its official name, though it runs over time

    def forward(self, x: Tensor) -> Tensor:
        cls_token = self.cls_token.expand(len(x), -1, -1).to(x.dtype)
        x = torch.cat((cls_token, x), dim=1) + self.pos_embedding  # B, 1 + T, dim: the class token comes first
        return self.spatial_transformer(x)[:, 0]


class FormerDFER(ClipModel):
    """Former-DFER on clips (B, num_frames, 3, image_size, image_size); RGB in [0, 1] without further normalisation.

    Args:
        num_classes: expressions.
        num_aus: AUs of the extra head; ``None`` leaves it out.
        num_frames: frames of a clip; baked into the temporal positions.
        image_size: side of a frame, at least 16; baked into the spatial positions.
        channels: of the four ResNet stages; the third is the spatial transformer's width, the last the temporal one's.
        blocks: basic blocks of the four stages.
        stem_kernel: side of the first convolution.
        stem_pool: max pooling after it, as in the official network.
        spatial_depth, spatial_heads, spatial_hidden: the transformer between stages 3 and 4.
        temporal_depth, temporal_heads, temporal_hidden: the transformer over frames.
        contrast: local contrast normalisation of the frames (``local_contrast``) instead of the official input scaling;
            what the tiny size uses, trained from scratch on few clips.
        grey: one channel of contrast instead of three (only with ``contrast``).

    Raises:
        AudferError: sizes that do not fit together.
    """

    classifier_name, au_head_name = "fc", "AU_fc"
    memory_format = torch.channels_last

    def __init__(
        self,
        *,
        num_classes: int = 7,
        num_aus: int | None = 18,
        num_frames: int = 16,
        image_size: int = 112,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        stem_kernel: int = 7,
        stem_pool: bool = True,
        spatial_depth: int = 1,
        spatial_heads: int = 8,
        spatial_hidden: int = 512,
        temporal_depth: int = 3,
        temporal_heads: int = 8,
        temporal_hidden: int = 1024,
        contrast: bool = False,
        grey: bool = False,
    ):
        super().__init__()
        if num_frames < 1:
            raise AudferError(f"Former-DFER: num_frames is {num_frames}, expected at least 1")
        if image_size < 16:
            raise AudferError(f"Former-DFER: image_size is {image_size}, expected at least 16 pixels")
        self.num_frames, self.image_size = num_frames, image_size
        self.see(contrast, grey)
        self.s_former = SpatialFormer(
            self.colours,
            image_size,
            channels,
            blocks,
            stem_kernel,
            stem_pool,
            spatial_depth,
            spatial_heads,
            spatial_hidden,
        )
        self.t_former = TemporalFormer(num_frames, channels[3], temporal_depth, temporal_heads, temporal_hidden)
        self.add_heads(channels[3], num_classes, num_aus)

    def encode(self, clips: Tensor) -> Tensor:
        batch, frames = clips.shape[:2]
        x = self.s_former(clips.flatten(0, 1))  # B * T, channels[3]
        return self.t_former(x.unflatten(0, (batch, frames)))  # B, channels[3]


_PAPER = Recipe(
    "AU-DFER section 4.3 (rate, decay, 100 epochs); the rest: Former-DFER's release; frames: ours",
    "sgd",
    0.01,
    1e-4,
    decay_norms=True,
    schedule="step",
    augmentation=CROP,
)
_RELEASE = replace(
    _PAPER,
    source="Former-DFER's release on DFEW and FERV39k",
    train_sampling="former_dfer",
    test_sampling="former_dfer-test",
    selection="best test WAR",
)

NETWORKS.add(
    "former_dfer",
    Network(
        build=FormerDFER,
        title="Former-DFER",
        colour="#009E73",
        sizes={
            "paper": {},
            "tiny": dict(
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
        },
        recipes={
            "paper": _PAPER,
            # on DFEW that release reads the folder's files in file-system order, which is no rule that can be followed
            "audfer": replace(
                _RELEASE, source="AU-DFER's release on FERV39k", selection="best sum of test WAR and UAR"
            ),
            "release": _RELEASE,
            # twice as many clips a step take two thirds more time, and it learns as much from half as many steps; the
            # others do not
            "tiny": replace(TINY, learning_rate=6e-3, batch_size=32),
            # from points of faces, which say less than expressions do, it has more to learn
            "tiny-start": replace(TINY_START, epochs=12),
            "tiny-source": replace(TINY_SOURCE, epochs=12),
        },
        weights=(Family("fine-tuned Former-DFER", ("s_former.conv1.weight", "t_former.cls_token")),),
    ),
)
