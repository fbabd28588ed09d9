"""The losses of "Lock and Check" (Lock: L_loc, L_act, L_l2g; classification: the dynamic weighted asymmetric loss).

The paper's total is 0.5 L_loc + 0.5 L_act + 0.01 L_l2g + 0.5 L(y') + 1 L(y'') (``ETA``). Boxes are those of
``regions``: NaN where landmarks are unknown; such a region teaches nothing, and neither does an unknown label (NaN).
With nothing known a loss is 0, with a gradient of 0. All are means, so that their size does not depend on the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudferError
from ..models.output import at_least_float32
from .regions import SAMPLES, roi_align

#: weights of L_loc, L_act, L_l2g, L(y') and L(y'') in the total, as printed
ETA: tuple[float, ...] = (0.5, 0.5, 0.01, 0.5, 1.0)
#: bins a side in which a region is sampled: ours, the paper does not say
BINS = 3
#: recalls and class shares below these count as these, so that an AU that was never found or never seen gets a large
#: weight, no infinite one
RECALL_FLOOR, SHARE_FLOOR = 0.05, 0.01


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the known entries, 0 without any; unknown entries may be NaN."""
    return values.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def _flat(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., C, h, w) and (..., C, R, 4) with one leading axis."""
    if boxes.shape[:-3] != maps.shape[:-3] or boxes.shape[-1] != 4:
        raise AudferError(
            f"boxes have the shape {tuple(boxes.shape)}, expected {(*maps.shape[:-3], 'C', 2, 4)} for maps of the "
            f"shape {tuple(maps.shape)}"
        )
    return maps.flatten(0, -4), boxes.flatten(0, -4)


def _known_variant(loss: str, variant: str, variants: tuple[str, str]) -> None:
    if variant not in variants:
        raise AudferError(f"unknown variant of {loss} {variant!r}, expected {' or '.join(map(repr, variants))}")


def _known(boxes: Tensor) -> Tensor:
    return ~boxes.sum(dim=-1).isnan()


def _similarity_inside(similarity: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean similarity inside each AU's known regions (n, C), and which AUs have one."""
    similarity, boxes = _flat(similarity, boxes)
    known = _known(boxes)
    # the mean over BINS x BINS bins is one bin with as many sampling points
    inside = roi_align(similarity, boxes.nan_to_num(), 1, BINS * SAMPLES)[..., 0, 0]
    return (inside * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1), known.any(dim=-1)


def region_cover(boxes: Tensor, height: int, width: int) -> Tensor:
    """(..., C, R, 4) -> (..., height, width): how much of each cell lies in the one of the frame's regions that covers
    it most.

    In 0..1: exact areas instead of sampling points, so that a share of energy can never exceed 1.
    """
    known = _known(boxes)
    boxes = at_least_float32(boxes).nan_to_num()

    def along(low: Tensor, high: Tensor, cells: int) -> Tensor:
        edges = torch.arange(cells + 1, device=boxes.device, dtype=boxes.dtype)
        low, high = low[..., None] * cells, high[..., None] * cells
        return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)

    rows, columns = along(boxes[..., 1], boxes[..., 3], height), along(boxes[..., 0], boxes[..., 2], width)
    cover = rows[..., :, None] * columns[..., None, :] * known[..., None, None]
    return cover.flatten(-4, -3).amax(dim=-3)


def localisation_loss(features: Tensor, boxes: Tensor, variant: str = "bounded") -> Tensor:
    """L_loc: the features should be strong inside the regions (no labels needed).

    - "paper": minus the sum of |F| over the regions' bins, the regions and the channels, as printed. Unbounded below:
      longer features lower it wherever they point, and regions that overlap count several times.
    - "bounded" (ours, the default): minus the share of |F|, summed over channels, that lies in the union of the
      regions, so in -1..0. Scaling the features changes nothing; only where they are counts.

    Args:
        features: (..., N, h, w), F of the backbone.
        boxes: (..., C, 2, 4), shares of the side; frames without any known box are left out.

    Returns:
        Scalar, the mean over frames.
    """
    _known_variant("L_loc", variant, ("bounded", "paper"))
    features, boxes = _flat(features, boxes)
    energy = at_least_float32(features).abs().sum(dim=-3)
    known = _known(boxes)
    if variant == "bounded":
        cover = region_cover(boxes, *energy.shape[-2:]).to(energy.dtype)
        whole = energy.sum(dim=(-2, -1))
        # of features that are all 0 no share is inside, and they get no gradient; 1 / tiny would overflow in float16
        inside = (energy * cover).sum(dim=(-2, -1)) / whole.where(whole > 0, 1)
    else:
        bins = roi_align(energy[:, None], boxes.nan_to_num().flatten(1, 2)[:, None], BINS).sum(dim=(-2, -1))
        inside = (bins[:, 0] * known.flatten(1)).sum(dim=-1)
    return -_mean(inside, known.flatten(1).any(dim=-1))


def activation_loss(similarity: Tensor, boxes: Tensor, labels: Tensor, variant: str = "balanced") -> Tensor:
    """L_act: inside an AU's regions the cosine map should be high where it is active and low where it is not.

    The mean over a region's bins instead of the printed sum: a constant factor, in -1..1 whatever the bins.

    - "paper", as printed: the mean, over frames and AUs with known label and region, of -M for active and +M for
      inactive AUs. Most are inactive, so M = -1 everywhere, whatever is seen, is nearly its minimum, and a small
      network trained from scratch goes there.
    - "balanced" (ours, the default): of each AU the mean M over the batch's inactive frames minus the mean over its
      active ones, halved, then the mean over AUs. A constant M gains nothing where both kinds are there.

    Args:
        similarity: (..., C, h, w), M in -1..1. boxes: (..., C, 2, 4). labels: (..., C) of 0, 1 and NaN.

    Returns:
        Scalar in -1..1.
    """
    _known_variant("L_act", variant, ("balanced", "paper"))
    inside, known = _similarity_inside(similarity, boxes)
    labels = labels.flatten(0, -2)
    known = known & ~labels.isnan()
    active, inactive = known & (labels > 0.5), known & (labels <= 0.5)
    if variant == "paper":
        return _mean(torch.where(active, -inside, inside), known)
    halves = [(inside * mask).sum(dim=0) / mask.sum(dim=0).clamp(min=1) for mask in (inactive, active)]
    return _mean((halves[0] - halves[1]) / 2, known.any(dim=0))


def local_to_global_loss(similarity: Tensor, boxes: Tensor) -> Tensor:
    """L_l2g: squared difference between the mean similarity inside an AU's regions and over its whole map.

    It is minimised, with a plus sign in the total: the map's mean, which the pooled features see, should say what the
    regions say. Arguments as in ``activation_loss``. Returns a scalar in 0..4, the mean over frames and AUs.
    """
    inside, known = _similarity_inside(similarity, boxes)
    whole = at_least_float32(similarity).flatten(0, -4).mean(dim=(-2, -1))
    return _mean((inside - whole).square(), known)


def share_weights(share: Tensor, floor: float = SHARE_FLOOR) -> Tensor:
    """L_WA's weights: 1 / class share, divided by their mean. ``share``: (C,) of 0..1, NaN or 0 counts as ``floor``."""
    inverse = 1 / torch.as_tensor(share).nan_to_num().clamp(min=floor)
    return inverse / inverse.mean()


class DynamicWeights(nn.Module):
    """The weights of L_DWA, one per AU: hard and rare AUs count more.

    After each epoch ``w_diff = beta1 w_diff + (1 - beta1) / recall``, ``w_dist = beta2 w_dist + (1 - beta2) / share``,
    and ``w = delta w_diff + (1 - delta) w_dist``. Three things are ours because the paper leaves them open: both
    averages begin at the first values they are given (not at 0, which would make the first epochs' weights too small);
    recalls and shares are kept above ``RECALL_FLOOR`` and ``SHARE_FLOOR``; and ``weights`` is w divided by its mean
    over AUs, so that the size of the loss, and with it the learning rate, does not depend on the data
    (``normalise=False``: w as printed).

    Args:
        num_aus: C.
        beta1, beta2: of the averages of 1/recall and 1/share.
        delta: share of the difficulty.
        share: (C,) class shares known before training; the distribution's average begins with them, so that the first
            epoch is weighted by the share alone. ``None``: the first epoch is not weighted.
        normalise: divide by the mean.
    """

    def __init__(
        self,
        num_aus: int,
        beta1: float = 0.9,
        beta2: float = 0.9,
        delta: float = 0.5,
        share: Tensor | None = None,
        normalise: bool = True,
    ):
        super().__init__()
        self.beta1, self.beta2, self.delta, self.normalise = beta1, beta2, delta, normalise
        # NaN: nothing seen yet
        for name in ("difficulty", "distribution"):
            self.register_buffer(name, torch.full((num_aus,), torch.nan, dtype=torch.float64))
        if share is not None:
            self._average(self.distribution, share, SHARE_FLOOR, beta2)

    def _average(self, average: Tensor, value: Tensor, floor: float, beta: float) -> None:
        value = torch.as_tensor(value, dtype=torch.float64).to(average.device)
        if value.shape != average.shape:
            raise AudferError(
                f"dynamic weights were given values of the shape {tuple(value.shape)}, expected one for each of "
                f"{len(average)} AUs"
            )
        inverse = 1 / value.clamp(min=floor, max=1)
        new = torch.where(average.isnan(), inverse, beta * average + (1 - beta) * inverse)
        average.copy_(torch.where(value.isnan(), average, new))

    @torch.no_grad()
    def update(self, recall: Tensor, share: Tensor) -> None:
        """Take in one epoch.

        Args:
            recall: (C,) of the epoch, 0..1; NaN (no active frame) leaves that AU's average as it is.
            share: (C,) active frames over frames with a known label, 0..1; NaN as for ``recall``.
        """
        self._average(self.difficulty, recall, RECALL_FLOOR, self.beta1)
        self._average(self.distribution, share, SHARE_FLOOR, self.beta2)

    @property
    def weights(self) -> Tensor:
        """(C,) float32, finite; all 1 before anything is known."""
        # an AU of which one term is unknown takes that term's mean over the others
        terms = [
            torch.where(term.isnan(), term.nanmean().nan_to_num(1.0), term)
            for term in (self.difficulty, self.distribution)
        ]
        weights = self.delta * terms[0] + (1 - self.delta) * terms[1]
        return (weights / weights.mean() if self.normalise else weights).float()


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None, asymmetric: bool = True) -> Tensor:
    """Weighted asymmetric loss -w [y log p + (1 - y) p log(1 - p)], with the minus sign that Eqs. 12 and 16 lack.

    The factor p lets easy inactive AUs count little. It is part of the gradient, as in the field's asymmetric loss
    (ME-GraphAU).

    Args:
        logits: (..., C), p is their sigmoid; computed from the logits, so large ones neither overflow nor lose digits.
        labels: (..., C) of 0, 1 and NaN (unknown).
        weights: (C,), "L_WA": ``share_weights``, "L_DWA": ``DynamicWeights.weights``; ``None``: 1.
        asymmetric: ``False`` leaves the factor p out: with no weights the binary cross entropy ("L_CE").

    Returns:
        Scalar, the mean over the known entries.
    """
    logits = at_least_float32(logits)
    known = ~labels.isnan()
    labels = labels.nan_to_num().to(logits.dtype)
    negative = F.logsigmoid(-logits)
    if asymmetric:
        negative = logits.sigmoid() * negative
    losses = -(labels * F.logsigmoid(logits) + (1 - labels) * negative)
    return _mean(losses if weights is None else losses * weights.to(losses), known)
