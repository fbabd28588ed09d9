"""What every model takes and gives: clips in, :class:`Output` out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import AudferError


class Output(NamedTuple):
    """One forward pass over a batch of clips.

    Attributes:
        expression_logits: (B, num_classes), before the soft-max.
        au_logits: (B, num_aus), before the sigmoid, in ``facs.ACTION_UNITS`` order; ``None`` for a model without AU
            head.
        features: (B, D), the vector that the expression classifier and the AU head both see.
        auxiliary_logits: (B, num_classes), of a second expression classifier that only training uses, on another vector
            (in the key-point network the mean over frames); ``None`` for a model without it.
    """

    expression_logits: Tensor
    au_logits: Tensor | None
    features: Tensor
    auxiliary_logits: Tensor | None = None


# a plain global, which torch.compile guards on; another thread that computes meanwhile only loses its shortcuts
_defining = 0


@contextmanager
def by_definition():
    """Within this context networks compute exactly as they are defined, without equal-valued shortcuts.

    For counting a network's operations, and for timing what the shortcuts gain: both are then of the published
    architecture.
    """
    global _defining
    _defining += 1
    try:
        yield
    finally:
        _defining -= 1


def shortcuts_allowed() -> bool:
    """Whether a layer may use another order of the same sums."""
    return _defining == 0


# (clips of the whole batch, places in it of the clips at hand); None: they are all
_part: tuple[int, Tensor] | None = None


@contextmanager
def part_of_batch(count: int, places: Tensor):
    """Within this context the clips that networks see are a part of a batch: what is drawn at random is drawn for all
    of it.

    Args:
        count: clips of the whole batch. places: int64 (B,), where in it the clips at hand are.
    """
    global _part
    before, _part = _part, (count, places)
    try:
        yield
    finally:
        _part = before


def whole_batch(x: Tensor) -> tuple[int, slice | Tensor]:
    """First axis of ``x`` in the whole batch: its length there, and the index of what is at hand.

    Args:
        x: (B * n, ...), n entries of each clip after one another.
    """
    if _part is None:
        return len(x), slice(None)
    count, places = _part
    each = len(x) // len(places)
    return count * each, (places.to(x.device)[:, None] * each + torch.arange(each, device=x.device)).flatten()


class ClipModel(nn.Module):
    """Base of the networks: checks clips, calls ``encode``, applies the classifier and the AU head.

    A subclass sets the class attributes and calls ``add_heads`` last in its constructor, so that the expression part of
    its state dict has the official names and order.

    Attributes:
        classifier_name: official name of the expression classifier.
        au_head_name: name of the AU head's linear layer, as in the AU-DFER release where that is known.
        memory_format: the layout its convolutions are fastest in: ``model.to(memory_format=model.memory_format)``.
        uses_landmarks: whether ``forward`` looks at its landmarks; ``encode`` then takes them too, and gives the
            auxiliary classifier's vector beside the features.
        auxiliary_weight: w of the loss (1 - w) CE(expression_logits) + w CE(auxiliary_logits); 0: no auxiliary
            classifier.
    """

    classifier_name = "fc"
    au_head_name = "fc_au"
    auxiliary_name = "fc_auxiliary"
    memory_format = torch.contiguous_format
    uses_landmarks: bool = False
    auxiliary_weight: float = 0.0

    #: local contrast normalisation of every frame instead of the official input scaling (sizes other than "paper")
    contrast: bool = False
    #: of the contrast one channel instead of three colours
    grey: bool = False
    num_frames: int
    image_size: int
    num_classes: int
    num_aus: int | None
    feature_dim: int

    def see(self, contrast: bool, grey: bool) -> None:
        """Choose what ``encode`` is given.

        Raises:
            AudferError: grey without contrast: the official input scaling is of colours.
        """
        if grey and not contrast:
            raise AudferError(
                f"{type(self).__name__}: grey is True, expected False without contrast: the official input is in colour"
            )
        self.contrast, self.grey = contrast, grey

    @property
    def colours(self) -> int:
        """Channels of a frame that ``encode`` is given."""
        return 1 if self.grey else 3

    def add_heads(self, feature_dim: int, num_classes: int, num_aus: int | None) -> None:
        """Add the expression classifier and, unless ``num_aus`` is ``None``, the AU head beside it (section 3.2).

        With an ``auxiliary_weight`` the auxiliary classifier too, for vectors of the same width.
        """
        self.feature_dim, self.num_classes, self.num_aus = feature_dim, num_classes, num_aus
        self.add_module(self.classifier_name, nn.Linear(feature_dim, num_classes))
        if self.auxiliary_weight:
            self.add_module(self.auxiliary_name, nn.Linear(feature_dim, num_classes))
        if num_aus is not None:
            self.add_module(self.au_head_name, nn.Linear(feature_dim, num_aus))

    def encode(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W) float, in [0, 1] or contrast-normalised -> features (B, feature_dim).

        Where ``uses_landmarks``: ``encode(clips, landmarks)`` -> features, and the auxiliary classifier's vector of
            that width.
        """
        raise NotImplementedError

    def forward(self, clips: Tensor, landmarks: Tensor | None = None) -> Output:
        """Expression and AU logits of clips.

        Args:
            clips: (B, T, 3, H, W), uint8 0..255 or floating point 0..1, RGB; B may be 1.
            landmarks: (B, T, 68, 2) floating point, the iBUG points in units of the frame's side (x right, y down), NaN
                where unknown. ``None``: all unknown. Networks that do not use them ignore them.

        Raises:
            AudferError: the clips or the landmarks do not have the shape or dtype that this model was built for.
        """
        return self.judge(self.prepare(clips), landmarks)

    def prepare(self, clips: Tensor) -> Tensor:
        """What ``encode`` is given of clips as ``forward`` takes them: (B, T, colours, H, W) floating point."""
        clips = check_clips(clips, self.num_frames, self.image_size, type(self).__name__)
        return local_contrast(clips, grey=self.grey) if self.contrast else clips

    def judge(self, pixels: Tensor, landmarks: Tensor | None = None) -> Output:
        """``forward`` from what ``prepare`` gave, for those who prepare clips once and show them often.

        The pixels may have another precision than the network, as half of what is kept on disk.
        """
        pixels = pixels.to(self.get_submodule(self.classifier_name).weight.dtype)
        auxiliary_logits = None
        if self.uses_landmarks:
            features, auxiliary = self.encode(pixels, check_landmarks(landmarks, pixels, type(self).__name__))
            if self.auxiliary_weight:
                auxiliary_logits = self.get_submodule(self.auxiliary_name)(auxiliary)
        else:
            features = self.encode(pixels)
        expression_logits = self.get_submodule(self.classifier_name)(features)
        au_logits = None if self.num_aus is None else self.get_submodule(self.au_head_name)(features)
        return Output(expression_logits, au_logits, features, auxiliary_logits)

    def extra_repr(self) -> str:
        return f"num_frames={self.num_frames}, image_size={self.image_size}, num_aus={self.num_aus}"


def check_clips(clips: Tensor, num_frames: int, image_size: int, who: str) -> Tensor:
    """Clips as floating point in [0, 1]; refuses a wrong shape or dtype with one sentence."""
    expected = (num_frames, 3, image_size, image_size)
    if clips.ndim != 5 or tuple(clips.shape[1:]) != expected:
        raise AudferError(
            f"{who}: clips have the shape {tuple(clips.shape)}, expected (batch, {', '.join(map(str, expected))}): "
            "batch, frames, colours, height, width"
        )
    if clips.dtype == torch.uint8:
        return clips.to(torch.get_default_dtype()).div_(255)  # in place: new memory costs more than the division
    if not clips.is_floating_point():
        raise AudferError(f"{who}: clips have the type {clips.dtype}, expected uint8 (0..255) or floating point (0..1)")
    return clips


def check_landmarks(landmarks: Tensor | None, clips: Tensor, who: str) -> Tensor:
    """Landmarks of checked clips, (B, T, 68, 2) float32 or wider on the clips' device; all NaN for ``None``."""
    expected = (*clips.shape[:2], 68, 2)
    if landmarks is None:
        return clips.new_full(expected, float("nan"), dtype=at_least_float32(clips[:0]).dtype)
    if tuple(landmarks.shape) != expected or not landmarks.is_floating_point():
        raise AudferError(
            f"{who}: landmarks have the shape {tuple(landmarks.shape)} and the type {landmarks.dtype}, expected "
            f"{expected}, floating point: batch, frames, the 68 iBUG points, (x, y) in units of the frame's side"
        )
    return landmarks.to(clips.device, at_least_float32(clips[:0]).dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """For sums that half precision is too coarse for; double precision stays double."""
    return x if x.dtype == torch.float64 else x.float()


def local_contrast(frames: Tensor, floor: float = 0.08, side: int | None = None, grey: bool = False) -> Tensor:
    """Local contrast normalisation: what a face does, without its skin tone, light and exposure.

    The logarithm turns light into an offset; the Gaussian mean around each pixel (sigma: 1/24 of the side) is taken
    away and the rest divided by its local deviation (Jarrett et al., "What is the best multi-stage architecture for
    object recognition?", ICCV 2009, section 2.1). Small networks trained from scratch on few people learn several times
    faster from it.

    Args:
        frames: (..., 3, H, W) in [0, 1].
        floor: added in quadrature to the deviation, so that flat regions stay flat.
        side: of the frame that sigma is a share of, where ``frames`` are cut out of a larger one; ``None``: they are
            whole.
        grey: average the colours' logarithms first: a third of the work, and a tint is an offset like the light.

    Returns:
        The same shape, or (..., 1, H, W) for ``grey``; about -3..3, float32 or wider.
    """
    with torch.autocast(frames.device.type, enabled=False):
        logs = (at_least_float32(frames) + 0.02).log_()
        logs = logs.mean(dim=-3, keepdim=True) if grey else logs
        return contrast(logs, floor, side, lambda squares: squares.mean(dim=-3, keepdim=True))


def contrast(values: Tensor, floor: float, side: int | None = None, joined: Callable | None = None) -> Tensor:
    """Values less their Gaussian mean around each pixel, divided by their local deviation.

    Args:
        values: (..., H, W), overwritten. floor, side: as ``local_contrast``.
        joined: what channels share of their squared distances from the mean; ``None``: each has its own.
    """

    def mean_matrix(size: int) -> Tensor:
        place = torch.arange(size, device=values.device, dtype=values.dtype)
        weights = torch.exp(-0.5 * ((place[:, None] - place) * 24 / (side or size)).square())
        return weights / weights.sum(dim=1, keepdim=True)

    # a separable blur as two matrix products: several times faster than pooling on a CPU
    down, across = mean_matrix(values.shape[-2]), mean_matrix(values.shape[-1]).T
    detail = values.sub_(down @ values @ across)
    squares = detail.square() if joined is None else joined(detail.square())
    spread = (down @ squares @ across).add_(floor**2).sqrt_()
    return detail / spread


def kaiming_init(module: nn.Module) -> None:
    """Kaiming normal (fan-out, ReLU) for convolutions, 1 and 0 for batch norms: the rule of all the ResNets here."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
