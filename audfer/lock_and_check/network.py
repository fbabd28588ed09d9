"""Lock and Check (LAC): action units from consecutive face pictures, looked for where they act and checked against each
other.

*Lock*: a backbone gives F (N x h x w); the cosine between each AU's class weights and F at every place is its
similarity map M. Training pulls M into the AU's regions (``losses``); at inference no regions are
needed. M weights F into one vector an AU, f_c, and from it comes the first logit y'. *Check*: AUs of other parts of the
face are attended to, the less certain y' is the more, and an LSTM over the frames of each AU gives the second logit
y''.

What the paper leaves open, and what is used here:

- *Sizes of Check.* Table VIII prints 27.2 M parameters against ResNet-50's 23.5 M and 66.8 G against 66.1 G for 16
  frames of 12 AUs. 0.7 G over 16 x 12 vectors is 3.7 M multiply-adds each: as many as Check has parameters. So
  everything in Check is shared by the AUs and runs once for every AU and frame. Hence: f_c is reduced from 2,048 to
  512, attention and LSTM are 512 wide. That is 27.0 M parameters and 66.1 G, both 1 % below the printed ones. The
  FLOPs' gap is that of the backbone's own figure (65.4 G here against 66.1 G; batch norms and the like, which are not
  counted here, would explain it). "G" are multiply-adds.
- *The gate.* As printed F_c = M_c * F, so y' is the mean of |w| |F| M^2 plus a bias: a place that speaks against the AU
  (M < 0) counts like one that speaks for it, and pulling M down where the AU is inactive (L_act) raises y'. The
  default, "shifted", takes (1 + M_c) / 2 instead, which lies in 0..1 and with which y' rises with M (from M = -0.5 on);
  "paper" is the printed form. "softmax" takes the soft-max of ``SHARPNESS`` M_c over the places, so that f_c is a
  weighted mean of F where M_c is high; a mean over the whole map holds little of an AU that fills a few of its places,
  and a small network does not make up for that in its short training.
- *Size "estimator"* departs from the paper in four ways, each for training in seconds: the weights of notebook 01's
  estimator, of which all but the last stage stay as they are; the gate "softmax"; ``residual``, y'' = y' + what Check
  says, so that Check begins from what the first stage knows; and numbers of its training, among them the weight of
  L_loc (``training``).
- *Neighbours* in the graph are all AUs of the other two groups; there is one attention head and no activation behind
it.
- *The classifier* behind the LSTM has its own weights for each AU, the LSTM has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from ..facs import ACTION_UNITS
from ..models.checkpoint import counted, find_weights
from ..models.heads import count_flops
from ..models.output import at_least_float32, kaiming_init, local_contrast
from ..models.resnet import BasicBlock, residual_stage
from ..models.weights import LoadReport
from .regions import group_of

#: how M weights F, see the module's docstring
GATES: tuple[str, ...] = ("shifted", "paper", "softmax")
#: of the soft-max of gate "softmax": M is in -1..1, so the best place counts at most e^40 times the worst one
SHARPNESS = 20.0
#: ImageNet's channel means and deviations, which torchvision's weights expect
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LACOutput(NamedTuple):
    """One forward pass over windows of frames.

    Attributes:
        first: (B, t, C) logits y' of each frame alone, float32.
        second: (B, t, C) logits y'' after Check, float32; ``None`` without it.
        features: (B, t, N, h, w), F.
        similarity: (B, t, C, h, w), M in -1..1, float32.
    """

    first: Tensor
    second: Tensor | None
    features: Tensor
    similarity: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, t, C): y'' where there is one, else y'."""
        return self.first if self.second is None else self.second


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a shortcut, four times as wide outside as inside; torchvision's names."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = None
        if stride != 1 or in_channels != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, 4 * channels, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.relu_(self.bn3(self.conv3(x)).add_(shortcut))


def _stage(block: type[nn.Module], in_channels: int, channels: int, count: int, stride: int) -> nn.Sequential:
    out = channels * getattr(block, "expansion", 1)
    return nn.Sequential(*(block(out if i else in_channels, channels, 1 if i else stride) for i in range(count)))


class ResNet(nn.Module):
    """A residual network's feature map, without its classifier; parameters as torchvision names them.

    Args:
        block: ``BasicBlock`` (ResNet-18) or ``Bottleneck`` (ResNet-50).
        blocks: in each of the four stages.
        last_stride: of the fourth stage; 1 doubles the map's side for small pictures and fits the same weights.
    """

    def __init__(self, block: type[nn.Module], blocks: tuple[int, ...], last_stride: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width, expansion = 64, getattr(block, "expansion", 1)
        for number, (channels, count, stride) in enumerate(
            zip((64, 128, 256, 512), blocks, (1, 2, 2, last_stride), strict=True), start=1
        ):
            self.add_module(f"layer{number}", _stage(block, width, channels, count, stride))
            width = channels * expansion
        self.out_channels = width
        kaiming_init(self)

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3 or 1, H, W) in 0..1 -> (n, out_channels, H/32, W/32)."""
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        x = F.relu_(self.bn1(self.conv1(((frames - mean) / std).to(self.conv1.weight.dtype))))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return x


class TinyBackbone(nn.Module):
    """Grey, locally contrast-normalised pictures through three small residual stages, to an eighth of the side.

    The map stays fine enough (8 x 8 for 64 pixels) for an AU's region to be several cells. A learned picture of
    positions is added
    before the last stage: a network this small does not learn from the zero padding where on the face it is.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.layer1 = _stage(BasicBlock, channels[0], channels[0], 1, 2)
        self.layer2 = _stage(BasicBlock, channels[0], channels[1], 1, 2)
        self.layer3 = _stage(BasicBlock, channels[1], channels[2], 1, 1)
        self.position = nn.Parameter(0.5 * torch.randn(1, channels[1], 8, 8))
        self.out_channels = channels[2]
        kaiming_init(self)

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3 or 1, H, W) in 0..1 -> (n, out_channels, H/8, W/8)."""
        x = local_contrast(frames.mean(dim=1, keepdim=True)).to(self.conv1.weight.dtype)
        x = self.layer2(self.layer1(F.relu_(self.bn1(self.conv1(x)))))
        position = self.position
        if x.shape[-2:] != position.shape[-2:]:
            position = F.interpolate(position, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.layer3(x + position.to(x.dtype))


class EveryOther(nn.Conv2d):
    """A 3 x 3 convolution whose taps step over every other place (a trous).

    Of maps with even sides the four interleaved ones are convolved side by side: the same products as with
        ``dilation=2``, whose
    derivative takes twice the time on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, C', h, w)."""
        count, _, height, width = x.shape
        if height % 2 or width % 2:
            return F.conv2d(x, self.weight, self.bias, padding=2, dilation=2)
        parts = x.permute(0, 2, 3, 1).reshape(count, height // 2, 2, width // 2, 2, -1).permute(0, 2, 4, 5, 1, 3)
        made = super().forward(parts.flatten(0, 2)).unflatten(0, (count, 2, 2))
        return made.permute(0, 4, 1, 5, 2, 3).reshape(count, height, width, -1).permute(0, 3, 1, 2)


class EstimatorBackbone(nn.Module):
    """The convolutions of notebook 01's estimator (``action_units.estimator``), whose weights fit: ``load_estimator``.

    The last stage does not halve the map: it steps over every other place instead (a trous), so that the estimator's
        own features
    lie on every other place of a map of an eighth of the side.

    Args:
        channels: the estimator's.
        frozen: of the stem and the first stages, how many are not trained; their batch norms then use what they were
            given.
    """

    def __init__(self, channels: tuple[int, int, int, int] = (16, 32, 64, 96), frozen: int = 0):
        super().__init__()
        convolution = nn.Conv2d(1, channels[0], 5, stride=2, padding=2, bias=False)
        self.stem = nn.Sequential(convolution, nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        widths = zip(pairwise(channels), (2, 2, 1), strict=True)
        self.stages = nn.Sequential(*(residual_stage(*pair, 1, stride) for pair, stride in widths))
        self.stages[2][0].conv2 = EveryOther(channels[3], channels[3], 3, padding=1, bias=False)
        self.out_channels = channels[3]
        kaiming_init(self)
        self.frozen = (self.stem, *self.stages)[:frozen]
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> EstimatorBackbone:
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def trunk(self, frames: Tensor) -> Tensor:
        """(n, 3 or 1, H, W) in 0..1 -> the maps (n, N, h, w) behind the frozen parts, which ``rest`` takes; they never
        change.
        """
        x = local_contrast(frames.mean(dim=1, keepdim=True)).to(self.stem[0].weight.dtype)
        for part in self.frozen:
            x = part(x)
        return x

    def rest(self, maps: Tensor) -> Tensor:
        """What ``trunk`` gave -> (n, out_channels, H/8, W/8)."""
        for part in (self.stem, *self.stages)[len(self.frozen) :]:
            maps = part(maps)
        return maps

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3 or 1, H, W) in 0..1 -> (n, out_channels, H/8, W/8)."""
        return self.rest(self.trunk(frames))


#: name -> its maker, which takes further keywords
BACKBONES = {
    "resnet50": lambda **options: ResNet(Bottleneck, (3, 4, 6, 3), **options),
    "resnet18": lambda **options: ResNet(BasicBlock, (2, 2, 2, 2), **options),
    "tiny": TinyBackbone,
    "estimator": EstimatorBackbone,
}


class CrossGroupAttention(nn.Module):
    """Graph attention between the AUs of different parts of the face.

    An AU's neighbours are all AUs of the other groups, not itself; the weight of neighbour j is the soft-max over the
    neighbours of LeakyReLU(a [W v_i || W v_j]), and the result is the weighted sum of the W v_j. An AU without
    neighbours gets its own W v_i.

    Args:
        groups: name of the group of each of the C AUs.
        dim: of the vectors.
        slope: of LeakyReLU, as in GAT (Velickovic et al. 2018).
    """

    def __init__(self, groups: tuple[str, ...], dim: int, slope: float = 0.2):
        super().__init__()
        self.slope = slope
        self.project = nn.Linear(dim, dim, bias=False)
        self.score = nn.Linear(dim, 2, bias=False)  # the two halves of a
        apart = torch.tensor([[mine != other for other in groups] for mine in groups])
        self.register_buffer("neighbours", apart | torch.diag(~apart.any(dim=1)), persistent=False)

    def attention(self, projected: Tensor) -> Tensor:
        """(..., C, dim) -> (..., C, C), rows add up to 1."""
        own, other = at_least_float32(self.score(projected)).unbind(-1)
        scores = F.leaky_relu(own[..., :, None] + other[..., None, :], self.slope)
        return scores.masked_fill(~self.neighbours, -torch.inf).softmax(dim=-1)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., C, dim) -> the same shape."""
        projected = self.project(vectors)
        return self.attention(projected).to(projected.dtype) @ projected


class Check(nn.Module):
    """AU vectors of consecutive frames and first logits -> second logits.

    f' = f alpha + GAT(f) (1 - alpha) with alpha = |p' - 0.5| / 0.5 (p' the sigmoid of y'): an AU that the first stage
    is certain of stays as it is. Then an LSTM over the frames of each AU, and a linear layer an AU.

    Args:
        groups: name of the group of each of the C AUs.
        in_dim: of f_c. dim: that it is reduced to, and of attention. hidden: of the LSTM.
    """

    def __init__(self, groups: tuple[str, ...], in_dim: int, dim: int, hidden: int):
        super().__init__()
        self.reduce = nn.Linear(in_dim, dim)
        self.attention = CrossGroupAttention(groups, dim)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.weight = nn.Parameter(torch.empty(len(groups), hidden))
        self.bias = nn.Parameter(torch.zeros(len(groups)))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def mix(self, vectors: Tensor, first: Tensor) -> Tensor:
        """(..., C, dim) and y' (..., C) -> f' of the first one's shape."""
        certainty = ((first.sigmoid() - 0.5).abs() / 0.5)[..., None].to(vectors.dtype)
        return vectors * certainty + self.attention(vectors) * (1 - certainty)

    def forward(self, vectors: Tensor, first: Tensor) -> Tensor:
        """(B, t, C, in_dim) and y' (B, t, C) -> y'' (B, t, C) float32; t may be any number of frames, also 1."""
        mixed = self.mix(self.reduce(vectors), first)
        series, _ = self.lstm(mixed.transpose(1, 2).flatten(0, 1))
        series = at_least_float32(series.unflatten(0, (len(first), -1)))  # (B, C, t, hidden)
        return ((series * self.weight[:, None]).sum(dim=-1) + self.bias[:, None]).transpose(1, 2)


class LAC(nn.Module):
    """Lock and Check.

    Args:
        action_units: C names, the order of every output.
        backbone: "resnet50" (the paper's), "resnet18", "tiny" or "estimator" (notebook 01's, to start from its
            weights).
        image_size: side of the frames.
        lock: ``False``: y' is a linear layer on the average of F (the paper's baseline), and f_c the average times the
            class weights.
        gate: "shifted": F_c = (1 + M_c) / 2 * F. "paper": F_c = M_c * F. "softmax": F_c = softmax over places of
            ``SHARPNESS`` M_c, times F and the number of places.
        sequence: ``False`` leaves Check out: every frame is judged alone.
        residual: y'' is what Check says plus y' (ours).
        window: t, frames that it is trained with; any number may be given.
        dim, hidden: widths of Check.
        backbone_options: further keywords of the backbone.

    Attributes:
        classifier: the linear layer with w_c.
    """

    def __init__(
        self,
        *,
        action_units: tuple[str, ...] = ACTION_UNITS,
        backbone: str = "resnet50",
        image_size: int = 224,
        lock: bool = True,
        gate: str = "shifted",
        sequence: bool = True,
        residual: bool = False,
        window: int = 16,
        dim: int = 512,
        hidden: int = 512,
        backbone_options: Mapping | None = None,
    ):
        given = locals()
        super().__init__()
        if backbone not in BACKBONES:
            raise AudferError(f"unknown backbone {backbone!r}, expected one of {', '.join(BACKBONES)}")
        if image_size < 32:
            raise AudferError(f"LAC's image_size is {image_size}, expected at least 32 pixels")
        if window < 1:
            raise AudferError(f"LAC's window is {window} frames, expected at least 1")
        if gate not in GATES:
            raise AudferError(f"unknown gate of LAC {gate!r}, expected one of {', '.join(GATES)}")
        self.action_units, self.image_size, self.window = tuple(action_units), image_size, window
        self.lock, self.gate, self.residual = lock, gate, residual
        #: keywords that build the same network
        self.settings = {name: given[name] for name in type(self).__init__.__kwdefaults__}
        self.settings |= {"action_units": list(action_units), "backbone_options": dict(backbone_options or {})}
        groups = tuple(group_of(au) for au in self.action_units)
        self.backbone = BACKBONES[backbone](**(backbone_options or {}))
        self.classifier = nn.Linear(self.backbone.out_channels, len(groups))
        self.check = Check(groups, self.backbone.out_channels, dim, hidden) if sequence else None

    def similarity(self, features: Tensor) -> Tensor:
        """Cosine maps M = cos(w_c, F): (n, N, h, w) -> (n, C, h, w) float32 in -1..1; 0 where F is 0."""
        directions = F.normalize(self.classifier.weight, dim=1)[..., None, None].to(features.dtype)
        products = at_least_float32(F.conv2d(features, directions))
        # bounded before the root, whose slope at 0 is infinite
        length = at_least_float32(features).square().sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
        return products / length

    def forward(self, frames: Tensor) -> LACOutput:
        """Logits of windows of consecutive frames.

        Args:
            frames: (B, t, 3, H, W), uint8 0..255 or floating point 0..1, RGB; the colour axis may be 1 (grey). t may be
                shorter or longer than ``window``; without Check it only is a second batch axis.

        Raises:
            AudferError: another shape or dtype.
        """
        side = self.image_size
        if frames.ndim != 5 or frames.shape[2] not in (1, 3) or tuple(frames.shape[3:]) != (side, side):
            raise AudferError(
                f"LAC: frames have the shape {tuple(frames.shape)}, expected (batch, t, 3, {side}, {side}): "
                "batch, frames, colours, height, width"
            )
        if frames.dtype == torch.uint8:
            frames = frames.to(torch.get_default_dtype()) / 255
        elif not frames.is_floating_point():
            raise AudferError(
                f"LAC: frames have the type {frames.dtype}, expected uint8 (0..255) or floating point (0..1)"
            )
        return self._judge(self.backbone(frames.flatten(0, 1)), frames.shape[:2])

    def from_maps(self, maps: Tensor) -> LACOutput:
        """As ``forward``, from what the backbone's ``trunk`` made of the frames: (B, t, N, h, w); only backbone
        "estimator" has one.
        """
        return self._judge(self.backbone.rest(maps.flatten(0, 1)), maps.shape[:2])

    def _judge(self, features: Tensor, batch_and_time: torch.Size) -> LACOutput:
        similarity = self.similarity(features)
        flat = features.flatten(2)  # (n, N, hw)
        if self.lock:
            # the mean over places of F_c, without making its C maps
            attention = similarity.flatten(2)
            if self.gate == "softmax":
                vectors = (SHARPNESS * attention).softmax(dim=2).to(flat.dtype) @ flat.mT
            else:
                attention = (1 + attention) / 2 if self.gate == "shifted" else attention
                vectors = (attention.to(flat.dtype) @ flat.mT) / flat.shape[2]
        else:
            vectors = flat.mean(dim=2)[:, None]
        vectors = at_least_float32(vectors)  # (n, C or 1, N)
        first = (vectors * self.classifier.weight).sum(dim=-1) + self.classifier.bias
        first, second = first.unflatten(0, batch_and_time), None
        if self.check is not None:
            if not self.lock:
                vectors = vectors * self.classifier.weight
            second = self.check(vectors.unflatten(0, batch_and_time), first)
            if self.residual:
                second = second + first
        return LACOutput(first, second, *(part.unflatten(0, batch_and_time) for part in (features, similarity)))

    def extra_repr(self) -> str:
        shown = ("image_size", "lock", "gate", "window")
        own = ", ".join(f"{name}={self.settings[name]!r}" for name in shown)
        return f"action_units={len(self.action_units)}, {own}"


#: what a size means; "paper" is the class's own defaults
LAC_SIZES: dict[str, dict] = {
    "paper": {},
    "small": dict(backbone="resnet18", image_size=112, dim=256, hidden=256, backbone_options=dict(last_stride=1)),
    "tiny": dict(backbone="tiny", image_size=48, dim=32, hidden=32),
    "estimator": dict(
        backbone="estimator",
        image_size=64,
        gate="softmax",
        residual=True,
        dim=48,
        hidden=48,
        backbone_options=dict(frozen=3),
    ),
}


def build_lac(size: str = "paper", **overrides) -> LAC:
    """LAC with fresh weights, drawn from torch's global generator.

    Args:
        size: "paper" (ResNet-50, 224 pixels), "small" (ResNet-18, 112), "tiny" (for the embedded set on a laptop, 48,
            from scratch) or "estimator" (the same from the AU estimator's weights, 64).
        **overrides: any keyword of :class:`LAC`.

    Raises:
        AudferError: an unknown size or keyword.
    """
    if size not in LAC_SIZES:
        raise AudferError(f"unknown size of LAC {size!r}, expected one of {', '.join(LAC_SIZES)}")
    known = LAC.__init__.__kwdefaults__
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise AudferError(f"LAC: unknown setting {unknown[0]!r}, expected one of {', '.join(known)}")
    return LAC(**{**LAC_SIZES[size], **overrides})


def lac_flops(model: LAC, frames: int = 16) -> dict[str, float]:
    """``count_flops`` of one window of ``frames`` frames: "gflops", "gmacs" (what the paper prints as "G") and
    "parameters".
    """
    return count_flops(model, (frames, 3, model.image_size, model.image_size))


def load_imagenet(model: LAC, state_dict: Mapping) -> LoadReport:
    """ImageNet weights in torchvision's naming into LAC's ResNet backbone. Strict: every key is used or is the
    classifier's.

    Args:
        model: with backbone "resnet50" or "resnet18".
        state_dict: what ``read_checkpoint`` gives for torchvision's file, or the bare state dict.

    Returns:
        The report; print it.

    Raises:
        AudferError: a key is missing, unknown or of another shape; nothing has been loaded then.
    """
    if not isinstance(model.backbone, ResNet):
        raise AudferError("ImageNet weights are for LAC's ResNet backbones, not for the tiny one")
    tensors = find_weights(state_dict).tensors
    own = model.backbone.state_dict()
    dropped = [key for key in tensors if key.startswith("fc.")]
    given = {key: value for key, value in tensors.items() if key not in set(dropped)}
    both = [key for key in own if key in given]
    different = {
        "missing": [key for key in own if key not in given and not key.endswith("num_batches_tracked")],
        "unknown": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
            for key in both
            if given[key].shape != own[key].shape
        ],
    }
    if problems := counted(different):
        raise AudferError("these weights do not fit LAC's backbone: " + "; ".join(problems))
    model.backbone.load_state_dict({key: given.get(key, own[key]) for key in own})
    loaded = [f"backbone.{key}" for key in both]
    left = [key for key in model.state_dict() if key not in set(loaded)]
    return LoadReport("ImageNet ResNet", loaded, left, dropped)


def load_estimator(model: LAC, state_dict: Mapping[str, Tensor]) -> None:
    """The stem and stages of a trained ``ActionUnitEstimator`` into the backbone "estimator", and its presence head's
    weights of the average map into the classifier.

    Raises:
        AudferError: another backbone, or weights of another network.
    """
    if not isinstance(model.backbone, EstimatorBackbone):
        raise AudferError("the AU estimator's weights are for LAC's backbone \"estimator\"")
    given = {key: value for key, value in state_dict.items() if key.startswith(("stem.", "stages."))}
    try:
        model.backbone.load_state_dict(given)
        places = [ACTION_UNITS.index(name) for name in model.action_units]
        with torch.no_grad():  # the part of the presence head that reads the average of the map
            model.classifier.weight.copy_(state_dict["presence.weight"][places, -model.backbone.out_channels :])
            model.classifier.bias.copy_(state_dict["presence.bias"][places])
    except (RuntimeError, KeyError) as error:
        raise AudferError(f"these weights are not the AU estimator's: {str(error).splitlines()[-1].strip()}") from error
