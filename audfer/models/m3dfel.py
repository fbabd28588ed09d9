"""M3DFEL: a clip as a bag of short instances, a 3-D ResNet on each, then LSTM, attention gate and fusion.

Wang et al., "Rethinking the Learning Paradigm for Dynamic Facial Expression Recognition", CVPR 2023. Written from the
facts measured on the replication that AU-DFER builds on; parameter names are that replication's. Departures: a batch of
one clip keeps its batch axis (the replication squeezes it away).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from ..recipes import JITTER, TINY, TINY_SOURCE, TINY_START, Recipe
from .attention import attention
from .output import ClipModel, at_least_float32, kaiming_init, shortcuts_allowed
from .registry import NETWORKS, Family, Network


class ShortConv3d(nn.Conv3d):
    """``nn.Conv3d`` whose temporal kernel 3 (padding 1) skips the zeros beyond the ends of one- and two-frame inputs.

    The same sums, made by one 2-D convolution: the frames join the channels, and the taps that would meet padding are
    left out. Deep stages see one or two frames only, so this saves up to two thirds of the work. It is also needed:
    in torch 2.13 the bfloat16 CPU kernel leaves the weight gradient of the central tap uninitialised for two frames.
    """

    def forward(self, x: Tensor) -> Tensor:
        frames, stride = x.shape[2], self.stride[0]
        if frames > 2 or self.kernel_size[0] != 3 or self.padding[0] != 1 or not shortcuts_allowed():
            return super().forward(x)
        # output frame o sees input frame i through tap i - stride * o + 1
        out_frames = (frames - 1) // stride + 1
        taps = [self.weight[:, :, 1 - stride * o : 1 - stride * o + frames] for o in range(out_frames)]  # views
        weight = (
            torch.stack(taps, dim=1) if out_frames > 1 else taps[0].unsqueeze(1)
        )  # C', out_frames, C, frames, kH, kW
        y = F.conv2d(x.flatten(1, 2), weight.flatten(2, 3).flatten(0, 1), None, self.stride[1:], self.padding[1:])
        return y.unflatten(1, (-1, out_frames))


class BasicBlock3d(nn.Module):
    """Two 3x3x3 convolutions with a shortcut, as in R3D-18. (N, C, L, H, W) -> (N, C', L/s, H/s, W/s)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Sequential(
            ShortConv3d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(ShortConv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels))
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu_(self.conv2(self.conv1(x)).add_(shortcut))


class DynamicMultiInstanceNorm(nn.Module):
    """DMIN: a learned mixture of per-feature and per-clip statistics over the instances of a bag.

    Holds no running statistics: train and eval mode behave alike.
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, num_features, 1))
        self.bias = nn.Parameter(torch.zeros(1, num_features, 1))
        self.mean_weight = nn.Parameter(torch.ones(2))
        self.var_weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, instances, features) -> the same shape, float32 or wider."""
        x = at_least_float32(x).transpose(1, 2)  # B, features, instances
        mean = x.mean(dim=2, keepdim=True)  # B, features, 1
        var = x.var(dim=2, keepdim=True)  # unbiased, as in the replication
        layer_mean = mean.mean(dim=1, keepdim=True)  # B, 1, 1
        layer_var = (var + mean.square()).mean(dim=1, keepdim=True) - layer_mean.square()
        mean_mix, var_mix = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mean = mean_mix[0] * mean + mean_mix[1] * layer_mean
        var = var_mix[0] * var + var_mix[1] * layer_var
        x = (x - mean) * (var + self.eps).rsqrt()
        return (x * self.weight + self.bias).transpose(1, 2)


class FramePool(nn.MaxPool2d):
    """Max pooling in space of (N, C, T, H, W): frames join the batch axis, which is ten times faster on a CPU than in
    3-D.
    """

    def forward(self, x: Tensor) -> Tensor:
        count = len(x)
        x = super().forward(x.transpose(1, 2).flatten(0, 1))
        return x.unflatten(0, (count, -1)).transpose(1, 2)


class M3DFEL(ClipModel):
    """M3DFEL on clips (B, num_frames, 3, image_size, image_size); RGB in [0, 1] without further normalisation.

    Args:
        num_classes: expressions.
        num_aus: AUs of the extra head; ``None`` leaves it out.
        num_frames: frames of a clip, a multiple of ``instance_length``, at least two instances. The bag size is
            baked into the weights (``pwconv``).
        image_size: side of a frame, at least 16.
        instance_length: consecutive frames that form one instance.
        channels: of the four stages.
        blocks: basic blocks of the four stages.
        stem_kernel: kernel of the first convolution (time, height, width).
        stem_pool: max pooling after it, in space; the official network has none, the tiny one trains twice as fast with
            it.
        hidden: LSTM units per direction; the clip feature has twice as many.
        lstm_layers: stacked bidirectional LSTM layers.
        heads: attention heads over instances; must divide ``2 * hidden``.
        contrast: local contrast normalisation of the frames (``local_contrast``) instead of the official input scaling;
            what the tiny size uses, trained from scratch on few clips.
        grey: one channel of contrast instead of three (only with ``contrast``).

    Raises:
        AudferError: sizes that do not fit together.
    """

    classifier_name, au_head_name = "fc", "fc_au"
    memory_format = torch.channels_last_3d

    def __init__(
        self,
        *,
        num_classes: int = 7,
        num_aus: int | None = 18,
        num_frames: int = 16,
        image_size: int = 112,
        instance_length: int = 4,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        stem_kernel: tuple[int, int, int] = (3, 7, 7),
        stem_pool: bool = False,
        hidden: int = 512,
        lstm_layers: int = 2,
        heads: int = 8,
        contrast: bool = False,
        grey: bool = False,
    ):
        super().__init__()
        if num_frames % instance_length or num_frames < 2 * instance_length:
            raise AudferError(
                f"M3DFEL: num_frames is {num_frames}, expected a multiple of the instance length "
                f"{instance_length} and at least {2 * instance_length} (two instances)"
            )
        if image_size < 16:
            raise AudferError(f"M3DFEL: image_size is {image_size}, expected at least 16 pixels")
        self.num_frames, self.image_size = num_frames, image_size
        self.see(contrast, grey)
        self.instance_length, self.heads = instance_length, heads

        stem = nn.Sequential(
            ShortConv3d(
                self.colours,
                channels[0],
                stem_kernel,
                stride=(1, 2, 2),
                padding=tuple(k // 2 for k in stem_kernel),
                bias=False,
            ),
            nn.BatchNorm3d(channels[0]),
            nn.ReLU(inplace=True),
        )
        if stem_pool:
            stem.append(FramePool(3, stride=2, padding=1))
        stages, width = [], channels[0]
        for stage, (stage_channels, depth) in enumerate(zip(channels, blocks, strict=True)):
            stages.append(
                nn.Sequential(
                    *(
                        BasicBlock3d(
                            width if block == 0 else stage_channels, stage_channels, 2 if stage and block == 0 else 1
                        )
                        for block in range(depth)
                    )
                )
            )
            width = stage_channels
        self.features = nn.Sequential(stem, *stages, nn.AdaptiveAvgPool3d(1))
        kaiming_init(self.features)

        self.lstm = nn.LSTM(width, hidden, num_layers=lstm_layers, batch_first=True, bidirectional=True)
        self.to_qkv = nn.Linear(2 * hidden, 3 * 2 * hidden, bias=False)
        self.norm = DynamicMultiInstanceNorm(2 * hidden)
        self.pwconv = nn.Conv1d(num_frames // instance_length, 1, 3, padding=1)
        self.add_heads(2 * hidden, num_classes, num_aus)

    def encode(self, clips: Tensor) -> Tensor:
        batch, frames, colours, height, width = clips.shape
        bag = frames // self.instance_length
        # instances join the batch axis; time moves behind the colours
        x = clips.reshape(batch * bag, self.instance_length, colours, height, width).transpose(1, 2)
        x = self.features(x).reshape(batch, bag, -1)  # B, bag, channels
        # in reduced precision the CPU has no fused LSTM kernel, and four steps cost nothing: always float32
        with torch.autocast(x.device.type, enabled=False):
            x, _ = self.lstm(x.to(self.lstm.weight_ih_l0.dtype))  # B, bag, 2 hidden
        query, key, value = self.to_qkv(x).reshape(batch, bag, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = attention(query, key, value)  # B, heads, bag, 2 hidden / heads
        attended = attended.transpose(1, 2).reshape(batch, bag, -1)  # B, bag, 2 hidden
        gate = torch.sigmoid(self.norm(attended))  # attention gates, it does not add
        return self.pwconv(x * gate).squeeze(1)  # instances are the channels of the fusion


def _kinetics_key(key: str) -> str:
    """torchvision's stages by name -> the replication's by number; its 400-way classifier gets a name of its own."""
    stage, _, rest = key.partition(".")
    number = "0" if stage == "stem" else stage.removeprefix("layer")
    return f"features.{number}.{rest}" if number.isdigit() else f"kinetics.{key}"


_PAPER = Recipe(
    "AU-DFER section 4.3 (rates, decay, 100 epochs); batch, warm-up, smoothing and augmentation: its release; frames: "
    "ours",
    "adamw",
    5e-4,
    0.05,
    decay_norms=True,
    batch_size=64,
    minimum_learning_rate=5e-6,
    warmup=0.2,
    label_smoothing=0.1,
    augmentation=JITTER,
)
_RELEASE = replace(
    _PAPER,
    source="the replication of M3DFEL that AU-DFER builds on (4 GPUs), quirks included",
    batch_size=256,
    epochs=300,
    warmup=20 / 300,
    warmup_from_zero=True,
    cosine_ignores_warmup=True,
    schedule_lag=1,
    train_sampling="m3dfel",
    test_sampling="m3dfel",
    selection="best test WAR and best test UAR, each of its own epoch",
)
_AUDFER = replace(
    _RELEASE,
    source="AU-DFER's release, quirks included (one GPU, batch 64, 100 epochs)",
    batch_size=64,
    epochs=100,
    warmup=0.2,
    selection="best sum of test WAR and UAR",
)

NETWORKS.add(
    "m3dfel",
    Network(
        build=M3DFEL,
        title="M3DFEL",
        colour="#0072B2",
        sizes={
            "paper": {},
            "tiny": dict(
                num_frames=8,
                image_size=48,
                contrast=True,
                grey=True,
                instance_length=2,
                channels=(8, 16, 48, 96),
                blocks=(1, 1, 1, 1),
                stem_kernel=(3, 5, 5),
                stem_pool=True,
                hidden=48,
                lstm_layers=1,
                heads=4,
            ),
        },
        recipes={
            "paper": _PAPER,
            "audfer": _AUDFER,
            "release": _RELEASE,
            "tiny": TINY,
            "tiny-start": replace(TINY_START, learning_rate=4e-3),
            "tiny-source": replace(TINY_SOURCE, learning_rate=4e-3, epochs=20),
        },
        weights=(
            Family(
                "Kinetics R3D-18",
                ("stem.0.weight", "layer4.0.conv1.0.weight"),
                _kinetics_key,
                ("lstm.", "to_qkv.", "norm.", "pwconv.", "fc."),
                ("kinetics.fc.",),
            ),
            Family("fine-tuned M3DFEL", ("features.0.0.weight", "pwconv.weight")),
        ),
        version=2,  # 2: other channels of the tiny size
    ),
)
