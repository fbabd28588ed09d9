"""MAE-DFER's fine-tuning network: the LGI-Former encoder (local-global interaction) and a linear head.

Sun et al., "MAE-DFER: Efficient Masked Autoencoder for Self-supervised Dynamic Facial Expression Recognition", ACM MM
2023. Parameter names are the official ones. Takes RGB in [0, 1] like the other models and applies the ImageNet mean and
deviation inside. The AU head of the AU-DFER release is not in any copy that can be read; here it sits on the output of
``fc_norm``, the vector that the classifier sees.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from ..recipes import CROP, TINY, TINY_SOURCE, TINY_START, Augmentation, Recipe
from .attention import attention
from .output import ClipModel, kaiming_init, shortcuts_allowed, whole_batch
from .registry import NETWORKS, Family, Network
from .resnet import residual_stage

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def sine_positions(tokens: int, dim: int) -> Tensor:
    """Fixed position table (tokens, dim): even channels sine, odd channels cosine of position / 10000^(2 floor(j/2) /
    dim).

    Computed in float64 and stored in float32: a float32 computation changes the logits by about 1e-5.
    """
    channel = torch.arange(dim, dtype=torch.float64).div(2, rounding_mode="floor")
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000 ** (2 * channel / dim)
    return torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos()).float()


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops whole entries of the first axis and rescales the survivors."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.drops = rate, rate > 0
        # a tensor, so that torch.compile makes one graph for all blocks and not one for each rate
        self.register_buffer("keep", torch.tensor(1.0 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.drops):
            return x
        # drawn for the whole batch, of which these clips may be a part
        count, own = whole_batch(x)
        mask = torch.rand(count, device=x.device)[own].view(-1, *(1,) * (x.ndim - 1)) < self.keep
        return x * (mask / self.keep).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class Attention(nn.Module):
    """Multi-head attention of queries (N, Q, dim) over sources (N, S, dim); keys have no bias."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, sources: Tensor) -> Tensor:
        key_bias = torch.zeros_like(self.v_bias)
        key, value = F.linear(sources, self.kv.weight, torch.cat((key_bias, self.v_bias))).chunk(2, -1)
        # many queries, few sources: half of the block's work on local tokens, and hardly any when folded
        few = queries.shape[1] >= 4 * sources.shape[1] and 2 * self.heads * sources.shape[1] <= queries.shape[2]
        if few and shortcuts_allowed():
            return self._folded(queries, key, value)
        query = F.linear(queries, self.q.weight, self.q_bias)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        return self.proj(attention(query, key, value).transpose(1, 2).reshape(queries.shape))

    def _folded(self, queries: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same numbers in another order: the weights of query and output go to the few sources, not to the many
        queries.

        (x Wq + b) . k = x . (Wq k) + b . k, and sum p (v Wo) = (sum p v) Wo.
        """
        batch = len(key)
        key, value = (x.unflatten(-1, (self.heads, -1)).permute(2, 0, 1, 3).flatten(1, 2) for x in (key, value))
        key = key * key.shape[-1] ** -0.5  # heads, B * S, head size
        bias = key @ self.q_bias.view(self.heads, -1, 1)  # heads, B * S, 1
        key = key @ self.q.weight.unflatten(0, (self.heads, -1))  # heads, B * S, dim
        value = value @ self.proj.weight.t().unflatten(0, (self.heads, -1))
        key, value, bias = (x.unflatten(1, (batch, -1)).transpose(0, 1).flatten(1, 2) for x in (key, value, bias))
        scores = (queries @ key.transpose(1, 2) + bias.transpose(1, 2)).unflatten(-1, (self.heads, -1))
        return scores.softmax(dim=-1).flatten(-2) @ value + self.proj.bias


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LGIBlock(nn.Module):
    """Local intra-region attention, global inter-region attention, local-global interaction, feed-forward.

    Works on (clips * regions, 1 + tokens, dim): the first token of a region is its messenger.
    """

    def __init__(self, dim: int, heads: int, hidden: int, regions: int, drop_path: float):
        super().__init__()
        self.regions = regions

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(dim, eps=1e-6)

        self.first_attn_norm0 = norm()
        self.first_attn = Attention(dim, heads)
        self.second_attn_norm0 = norm()
        self.second_attn = Attention(dim, heads)
        self.third_attn_norm0 = norm()
        self.third_attn_norm1 = norm()
        self.third_attn = Attention(dim, heads)
        self.norm2 = norm()
        self.mlp = Mlp(dim, hidden)
        # along the first axis at hand: per region in branches 1 and 4, per clip in branches 2 and 3 (as released)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, messengers_only: bool = False) -> Tensor:
        """(clips * regions, 1 + tokens, dim) -> the same shape, or (clips * regions, 1, dim): what becomes of the
        messengers.

        With ``messengers_only`` all parameters still take part, with gradients of zero where no token is left.
        """
        normed = self.first_attn_norm0(x)
        if messengers_only:
            x = x[:, :1]
        x = x + self.drop_path(self.first_attn(normed[:, : x.shape[1]], normed))

        per_clip = x.unflatten(0, (-1, self.regions))  # clips, regions, 1 + tokens, dim
        messengers, local = per_clip[:, :, 0], per_clip[:, :, 1:].flatten(1, 2)
        normed = self.second_attn_norm0(messengers)
        messengers = messengers + self.drop_path(self.second_attn(normed, normed))
        local = local + self.drop_path(self.third_attn(self.third_attn_norm0(local), self.third_attn_norm1(messengers)))
        local = local.unflatten(1, (self.regions, x.shape[1] - 1))
        x = torch.cat((messengers.unsqueeze(2), local), dim=2).flatten(0, 1)

        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Non-overlapping tubelets of a clip -> tokens (B, time * rows * columns, dim).

    Args:
        dim: width of a token.
        tubelet: (frames, height, width) of a token in the clip.
        stem: channels of a small ResNet in front, each frame on its own: a convolution and a max pooling that halve the
            side each, then stages of one residual block that halve it again; a tubelet is then cut from its output.
            Official: none. A transformer trained from scratch on little data learns far better with one (Xiao et al.,
            "Early Convolutions Help Transformers See Better", NeurIPS 2021).
    """

    def __init__(self, dim: int, tubelet: tuple[int, int, int], stem: tuple[int, ...] = ()):
        super().__init__()
        length, height, width = tubelet
        shrink = 2 ** (len(stem) + 1) if stem else 1
        if height % shrink or width % shrink:
            raise AudferError(
                f"MAE-DFER: tubelet is {tubelet}, expected a height and width that are multiples of {shrink} "
                f"(a stem of {len(stem)} widths)"
            )
        kernel = (length, height // shrink, width // shrink)
        if stem:
            first = nn.Sequential(
                nn.Conv2d(3, stem[0], 5, stride=2, padding=2, bias=False),
                nn.BatchNorm2d(stem[0]),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
            self.stem = nn.Sequential(first, *(residual_stage(stem[i - 1], stem[i], 1, 2) for i in range(1, len(stem))))
            kaiming_init(self.stem)
        else:
            self.stem = nn.Identity()
        self.proj = nn.Conv3d(stem[-1] if stem else 3, dim, kernel, stride=kernel)
        # without it what differs between clips is small beside what all tokens share, and learning is slow
        self.token_norm = nn.BatchNorm1d(dim) if stem else nn.Identity()

    def forward(self, clips: Tensor) -> Tensor:
        """clips: (B, T, 3, H, W)."""
        clips = self.stem(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        if shortcuts_allowed():
            length, height, width = self.proj.kernel_size
            # a convolution whose stride is its kernel is a matrix product over cut-out tubelets, and much faster as one
            patches = clips.unflatten(4, (-1, width)).unflatten(3, (-1, height)).unflatten(1, (-1, length))
            patches = patches.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)
            tokens = F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)
        else:
            tokens = self.proj(clips.transpose(1, 2)).flatten(2).transpose(1, 2)
        return self.token_norm(tokens.flatten(0, 1)).view_as(tokens)


class MAEDFER(ClipModel):
    """MAE-DFER's fine-tuning network on clips (B, num_frames, 3, image_size, image_size), RGB in [0, 1].

    Args:
        num_classes: expressions.
        num_aus: AUs of the extra head; ``None`` leaves it out.
        num_frames: frames of a clip; with ``tubelet`` and ``region`` it must divide evenly.
        image_size: side of a frame; the same.
        tubelet: (frames, height, width) of one token.
        region: (time, rows, columns) of tokens that attend to each other; each region has one messenger token.
        dim, depth, heads, hidden: width, blocks, attention heads and feed-forward width of the encoder.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first.
        head_scale: factor on the initial weights of the heads (the official 0.001 makes the first logits almost 0).
        init_std: standard deviation of the initial linear weights and messengers.
        stem: convolutions in front of the tubelets, see ``PatchEmbed``; official: none.
        contrast: local contrast normalisation of the frames (``local_contrast``) instead of the official input scaling;
            what the tiny size uses, trained from scratch on few clips.

    Raises:
        AudferError: sizes that do not divide.
    """

    classifier_name, au_head_name = "head", "head_au"

    def __init__(
        self,
        *,
        num_classes: int = 7,
        num_aus: int | None = 18,
        num_frames: int = 16,
        image_size: int = 160,
        tubelet: tuple[int, int, int] = (2, 16, 16),
        region: tuple[int, int, int] = (2, 5, 10),
        dim: int = 512,
        depth: int = 16,
        heads: int = 8,
        hidden: int = 2048,
        drop_path: float = 0.1,
        head_scale: float = 0.001,
        init_std: float = 0.02,
        stem: tuple[int, ...] = (),
        contrast: bool = False,
    ):
        super().__init__()
        sizes = (num_frames, image_size, image_size)
        steps = tuple(t * r for t, r in zip(tubelet, region, strict=True))
        for name, size, step in zip(("num_frames", "image_size", "image_size"), sizes, steps, strict=True):
            if size < step or size % step:
                raise AudferError(
                    f"MAE-DFER: {name} is {size}, expected a multiple of {step} (tubelet {tubelet} times "
                    f"region {region})"
                )
        self.num_frames, self.image_size, self.contrast = num_frames, image_size, contrast
        self.tubelet, self.region = tubelet, region
        self.grid = tuple(size // t for size, t in zip(sizes, tubelet, strict=True))
        self.num_regions = math.prod(size // step for size, step in zip(sizes, steps, strict=True))

        self.lg_region_tokens = nn.Parameter(torch.zeros(self.num_regions, dim))
        self.patch_embed = PatchEmbed(dim, tubelet, stem)
        self.blocks = nn.ModuleList(
            LGIBlock(dim, heads, hidden, self.num_regions, drop_path * i / max(depth - 1, 1)) for i in range(depth)
        )
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.register_buffer("positions", sine_positions(math.prod(self.grid), dim), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.add_heads(dim, num_classes, num_aus)

        # officially cut at -2 and 2, which is so many deviations away that nothing is ever cut; drawing uncut is faster
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=init_std)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.lg_region_tokens, std=init_std)
        with torch.no_grad():
            self.head.weight.mul_(head_scale)
            self.head.bias.mul_(head_scale)

    def encode(self, clips: Tensor) -> Tensor:
        return self.encode_normalised(clips if self.contrast else (clips - self.mean) / self.std)

    def encode_normalised(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W), already normalised (ImageNet mean and deviation, or contrast) -> features (B, dim)."""
        x = self.with_messengers(self.to_regions(self.patch_embed(clips) + self.positions))
        for block in self.blocks[:-1]:
            x = block(x)
        # nothing looks at the last block's local tokens; left out in training only, so that whoever opens a trained
        # network finds them
        x = self.blocks[-1](x, messengers_only=self.training and shortcuts_allowed())
        return self.fc_norm(x[:, 0].unflatten(0, (-1, self.num_regions)).mean(dim=1))

    def with_messengers(self, regions: Tensor) -> Tensor:
        """(B, regions, tokens, dim) -> (B * regions, 1 + tokens, dim)."""
        messengers = self.lg_region_tokens.to(regions.dtype).expand(len(regions), -1, -1).unsqueeze(2)
        return torch.cat((messengers, regions), dim=2).flatten(0, 1)

    def to_regions(self, tokens: Tensor) -> Tensor:
        """(B, time * rows * columns, dim) -> (B, regions, tokens of a region, dim).

        Both orders are time, row, column.
        """
        cuts = [n for grid, region in zip(self.grid, self.region, strict=True) for n in (grid // region, region)]
        x = tokens.unflatten(1, cuts)  # B, gt, rt, gh, rh, gw, rw, dim
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def _pretraining_key(key: str) -> str:
    wrapper = "backbone." if key.startswith("backbone.") else "encoder."
    return key.removeprefix(wrapper)


def _recipe(source: str, batch_size: int, **changes) -> Recipe:
    """MAE-DFER's fine-tuning; its rates are given for 256 clips a step."""
    share = batch_size / 256
    return Recipe(
        source,
        "adamw",
        1e-3 * share,
        0.05,
        no_decay=("lg_region_tokens",),
        layer_decay=0.75,
        batch_size=batch_size,
        minimum_learning_rate=1e-6 * share,
        warmup=0.05,
        warmup_from_zero=True,
        drop_path=0.1,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        augmentation=Augmentation("RandAugment", operations=4, crop="log", flip=0.5, erase=0.25),
        **changes,
    )


def _release(dataset: str, gpu_batch: int, stride: int) -> Recipe:
    return _recipe(
        f"MAE-DFER's release on {dataset}, 3 GPUs of {gpu_batch} clips",
        3 * gpu_batch,
        train_sampling="mae_dfer",
        test_sampling="mae_dfer-views",
        frame_stride=stride,
    )


_PAPER = _recipe(
    "AU-DFER section 4.3 (betas; 1e-3 read as the release's rate for 256 clips); the rest: MAE-DFER's release on one "
    "GPU; frames: ours",
    32,
)

NETWORKS.add(
    "mae_dfer",
    Network(
        build=MAEDFER,
        title="MAE-DFER",
        colour="#D55E00",
        sizes={
            "paper": {},
            "tiny": dict(
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
        },
        recipes={
            "paper": _PAPER,
            "release-dfew": _release("DFEW", 32, 4),
            "release-ferv39k": _release("FERV39k", 40, 1),
            "release-mafw": _release("MAFW", 32, 4),
            # layer-wise decay and mixing are for a pre-trained encoder: from scratch the first blocks would hardly move
            "scratch": replace(
                _PAPER,
                source="ours: mae_dfer-paper without what presumes a pre-trained encoder",
                layer_decay=1.0,
                mixup=0.0,
                cutmix=0.0,
                augmentation=CROP,
            ),
            "tiny": TINY,
            "tiny-start": replace(TINY_START, learning_rate=4e-3),
            "tiny-source": replace(TINY_SOURCE, learning_rate=4e-3, epochs=24),
        },
        weights=(
            # the encoder's final norm (norm.* after renaming) is not carried into fc_norm: the official code does not
            # either
            *(
                Family(
                    "MAE pre-training",
                    (f"{wrapper}lg_region_tokens",),
                    _pretraining_key,
                    ("fc_norm.", "head."),
                    ("decoder.", "encoder_to_decoder.", "mask_token", "norm."),
                )
                for wrapper in ("encoder.", "backbone.")
            ),
            Family("fine-tuned MAE-DFER", ("lg_region_tokens", "fc_norm.weight")),
        ),
        cost=1.8,
    ),
)
