"""Equations 4 to 10: clip AU labels, positive class weights, the knowledge-weighted AU loss and the total loss.

Where the paper and its release differ (reference EQUATIONS.md), the defaults here are: labels over *all* known frames
of a clip (Eq. 4), weights counted on *clips of the training split* (Eqs. 6 to 8), the AU loss averaged over clips
**and** AUs (the release's convention, with which it uses lambda = 0.25; Eq. 9 as printed sums over the 18 AUs), plain
cross entropy (Eq. 5's factor 5 inside the logarithm shifts the value by a constant and changes no gradient).

A clip or an AU without a record is *unknown* (NaN) and takes no part in anything; it is never "active" and never
"inactive".
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import InputError
from .facs import ACTION_UNITS, EXPRESSIONS
from .plugins import Registry

#: how the positive class weights are made (Eqs. 6, 7, 8)
STRATEGIES: tuple[str, ...] = ("global", "distinct", "minor")
#: no positive class weights: plain binary cross entropy
PLAIN = "plain"
#: what Eq. 4 votes on and Eqs. 6 to 8 count: the paper's words, or what the released code does in either place
READINGS: dict[str, str] = {
    "paper": "a clip's AU labels are voted by all its known frames; weights count training clips",
    "release-votes": "as the paper, but a clip's AU labels are voted only by the frames that the network sees",
    "release-counts": "as the paper, but weights count frames, and those of test clips too",
}
#: section 3.1: "multiplied by 5 in the loss"
KNOWLEDGE_FACTOR = 5.0
#: above every weight found in the release (its largest is 164, for AU28)
DEFAULT_CAP = 200.0


def check_labels(where, field: str, labels: np.ndarray, mixed: bool = False) -> None:
    """Refuse what is no AU label: -1 or 9 for unknown, intensities.

    Args:
        mixed: take what lies between 0 and 1, too.

    Raises:
        InputError: values other than 0, 1 and NaN.
    """
    odd = (labels < 0) | (labels > 1) if mixed else (labels != 0) & (labels != 1) & (labels == labels)
    if odd.any():
        expected = f"{'0 to 1' if mixed else '0, 1'} or NaN (unknown)"
        raise InputError(where, field, f"{labels[odd][0]:g}", expected)


# ------------------------------------------------------------------------------------------------------------ Eq. 4


def clip_au_labels(presence, unknown: str = "ignored") -> np.ndarray:
    """Eq. 4: an AU is active in a clip when it is present in at least half of the frames (ties count as active).

    Args:
        presence: (..., n, 18) 0, 1 or NaN (unknown frame), array or CPU tensor.
        unknown: what an unknown frame is. "ignored": half of the *known* frames decide. "inactive": it counts as a
            frame without the AU, as in a file where OpenFace wrote zeros for a failed frame (the literal "all n
            frames").

    Returns:
        (..., 18) float32: 1, 0, or NaN where no frame at all is known (also for n = 0).

    Raises:
        InputError: values other than 0, 1 and NaN, or another ``unknown``.

    Example:
        >>> presence = np.zeros((4, 18)); presence[:2, 0] = 1                  # AU01 in two frames of four
        >>> clip_au_labels(presence)[:2] array([1., 0.], dtype=float32)
    """
    presence = np.asarray(presence, dtype=np.float64)
    check_labels("clip_au_labels", "presence", presence)
    known = ~np.isnan(presence)
    if unknown not in ("ignored", "inactive"):
        raise InputError("clip_au_labels", "unknown", repr(unknown), '"ignored" or "inactive"')
    any_known = known.sum(axis=-2)
    frames = any_known if unknown == "ignored" else presence.shape[-2]
    active = np.nansum(presence, axis=-2)
    return np.where(any_known > 0, 2 * active >= frames, np.nan).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ Eqs. 6 to 8


def positive_class_weight(
    au_labels,
    expressions,
    strategy: str = "global",
    *,
    cap: float = DEFAULT_CAP,
    smoothing: float = 0.0,
    class_counts=None,
) -> Tensor:
    """Eqs. 6 to 8: inactive over active, so that rare AUs are not drowned.

    "global" (Eq. 6) counts over all clips, "distinct" (Eq. 7) over the clips of each expression, "minor" (Eq. 8) is
    "distinct" for the minor expressions and 1 for the major ones, those with more than one seventh of all samples.

    Args:
        au_labels: (N, 18) 0, 1 or NaN (unknown, not counted): clip labels of the *training* split for the paper's
            reading, or one row per frame for the release's.
        expressions: (N,) int, an index in ``EXPRESSIONS``; -1 (none of the seven) is not counted.
        strategy: one of ``STRATEGIES``.
        cap: largest weight. An AU that is never active has no finite weight and gets the cap.
        smoothing: added to both counts, (inactive + s) / (active + s); 0 is the paper's formula.
        class_counts: 7 numbers that decide which expressions are major; default: counted from ``expressions`` (all of
            them, whether their AUs are known or not). Needed when rows are frames and the rule is to be about clips.

    Returns:
        float32: (18,) for "global", else (7, 18). An expression without any known clip gets the global row, an AU
        without any known label 1.

    Raises:
        InputError: another strategy, shapes or labels that do not fit, a non-positive cap, negative smoothing.

    Example:
        >>> labels = np.zeros((4, 18)); labels[0, :] = 1                      # every AU active in one clip of four
        >>> float(positive_class_weight(labels, np.zeros(4, int))[0]) 3.0
    """
    if strategy not in STRATEGIES:
        raise InputError("positive_class_weight", "strategy", repr(strategy), f"one of {', '.join(STRATEGIES)}")
    if not cap > 0 or not smoothing >= 0:
        raise InputError("positive_class_weight", "cap, smoothing", f"{cap}, {smoothing}", "cap > 0 and smoothing >= 0")
    labels, expressions = np.asarray(au_labels, np.float64), np.asarray(expressions)
    if labels.shape != (len(expressions), len(ACTION_UNITS)):
        raise InputError(
            "positive_class_weight",
            "shape of au_labels",
            labels.shape,
            f"({len(expressions)}, {len(ACTION_UNITS)}): one row per expression label, one column per AU",
        )
    if len(expressions) and (expressions.min() < -1 or expressions.max() >= len(EXPRESSIONS)):
        raise InputError(
            "positive_class_weight",
            "expressions",
            f"{expressions.min()} to {expressions.max()}",
            f"-1 to {len(EXPRESSIONS) - 1}",
        )
    check_labels("positive_class_weight", "au_labels", labels)
    one_hot = expressions[:, None] == np.arange(len(EXPRESSIONS))  # (N, 7); -1 belongs nowhere
    active = one_hot.T.astype(float) @ (labels == 1)
    inactive = one_hot.T.astype(float) @ (labels == 0)
    everywhere = _ratio(active.sum(0), inactive.sum(0), cap, smoothing, np.ones(len(ACTION_UNITS)))
    if strategy == "global":
        return torch.from_numpy(everywhere).float()
    weights = _ratio(active, inactive, cap, smoothing, everywhere)
    if strategy == "minor":
        counts = one_hot.sum(0) if class_counts is None else np.asarray(class_counts, np.float64)
        weights[major_expressions(counts)] = 1.0
    return torch.from_numpy(weights).float()


def major_expressions(counts) -> np.ndarray:
    """Eq. 8's rule: which classes hold *more* than one seventh (1/K) of all samples.

    Args:
        counts: K class counts in ``EXPRESSIONS`` order.

    Returns:
        (K,) bool; all False when every count is zero.
    """
    counts = np.asarray(counts, np.float64)
    return counts * len(counts) > counts.sum()


def _ratio(active, inactive, cap, smoothing, unseen) -> np.ndarray:
    """(inactive + s) / (active + s), capped; ``unseen`` where nothing was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (inactive + smoothing) / (active + smoothing)
    return np.where(active + inactive > 0, np.minimum(ratio, cap), unseen)


# ------------------------------------------------------------------------------------------------------------ Eq. 9


class AULoss(nn.Module):
    """Eq. 9: binary cross entropy over the AUs, weighted by the knowledge row of each clip's expression.

    For a clip with expression y, AU j, logit x and label t the term is

        -5 K[y, j] * (pw[y, j] * t * log(sigmoid(x)) + (1 - t) * log(1 - sigmoid(x)))

    so the positive class weight touches the positive part only. Buffers, (7, 18), that follow ``.to`` and are saved
    with a state dict: ``negative`` = 5 K and ``positive`` = 5 K pw. The loss is a dozen operations on some hundred
        numbers, so
    that its cost is how many there are: what can be prepared is, and nothing is done twice.

    Args:
        knowledge: (7, 18) in (0, 1), a tensor, array or ``KnowledgeMatrix``; the factor 5 is applied here. ``None``:
            every weight is one (an AU head without knowledge), without the factor.
        pos_weight: (18,) or (7, 18) from ``positive_class_weight``; ``None``: ones.
        reduction: "mean" over the known (clip, AU) pairs; "sum_over_aus" sums over AUs and averages over
            clips that have at least one known AU, as Eq. 9 is printed (18 times larger when all AUs are known).

    Example:
        >>> loss = AULoss(torch.full((7, 18), 0.2), None)                      # 5 * 0.2 = 1: plain cross entropy
        >>> round(loss(torch.zeros(2, 18), torch.ones(2, 18), torch.tensor([0, 6])).item(), 4)
        0.6931
    """

    def __init__(self, knowledge=None, pos_weight=None, reduction: str = "mean"):
        super().__init__()
        if reduction not in ("mean", "sum_over_aus"):
            raise InputError("AULoss", "reduction", repr(reduction), '"mean" or "sum_over_aus"')
        self.reduction, self._looked = reduction, False
        shape = (len(EXPRESSIONS), len(ACTION_UNITS))
        if knowledge is None:
            negative = torch.ones(shape)
        else:
            negative = KNOWLEDGE_FACTOR * _matrix(knowledge, "knowledge", (shape,))
        ratio = torch.ones(shape) if pos_weight is None else _matrix(pos_weight, "pos_weight", (shape, shape[1:]))
        self.register_buffer("negative", negative)
        self.register_buffer("positive", negative * ratio)
        self.register_buffer("table", torch.empty(0), persistent=False)
        self._tabulate()

    def _tabulate(self) -> None:
        # both weights of an expression in one row: one look-up a batch instead of two
        self.table = torch.cat((self.negative, _quotient(self.positive, self.negative)), dim=1)

    def _load_from_state_dict(self, *arguments) -> None:
        super()._load_from_state_dict(*arguments)
        self._tabulate()

    def forward(self, au_logits: Tensor, au_labels: Tensor, expressions: Tensor, units: Tensor | None = None) -> Tensor:
        """The loss as a scalar, computed in float32 also under autocast.

        Args:
            au_logits: (B, 18), any floating type.
            au_labels: (B, 18), 0 to 1 (mixed labels are fine); NaN = unknown, left out of sums and means. They are
                looked at unless ``units`` are given (training has looked at the whole table before); on a GPU, where
                looking means waiting for it, those of the first batch only.
            expressions: (B,) integer ground truth; -1 leaves the clip out. Or (B, 7) soft targets (mixup): the loss
                is then its expectation over the expressions, i.e. rows of both weights are mixed in those
                proportions.
            units: what to divide by instead of what is known here: ``self.units`` of the whole batch of which these
                clips are a part (of several processes or micro-batches). The parts' losses then add up to the whole's.

        Returns:
            A float32 scalar; exactly 0 with a gradient of zeros when nothing in the batch is known.

        Raises:
            InputError: labels below 0 or above 1.
        """
        if units is None and not (self._looked and au_labels.is_cuda):
            self._looked = True
            # NumPy's, not torch's: operations on tensors are counted as the loss's cost
            check_labels("AULoss", "au_labels", au_labels.detach().float().cpu().numpy(), mixed=True)
        known = self._known(au_labels, expressions)
        negative, ratio = self._rows(expressions)
        total = F.binary_cross_entropy_with_logits(
            au_logits.float(),
            au_labels.float().nan_to_num(nan=0.0),
            weight=negative * known,
            pos_weight=ratio,
            reduction="sum",
        )
        return total / (self._count(known) if units is None else units).clamp(min=1)

    def _rows(self, expressions: Tensor) -> tuple[Tensor, Tensor]:
        """Each clip's negative weights and positive class weights, (B, 18) float32; of a clip without an expression
        any.
        """
        if not expressions.is_floating_point():
            return self.table[expressions].float().chunk(2, dim=1)
        # matmul is an autocast operation: the weights must not be rounded to half precision
        with torch.autocast(expressions.device.type, enabled=False):
            mix = expressions.to(self.negative.dtype)
            negative, positive = mix @ self.negative, mix @ self.positive
        return negative.float(), _quotient(positive, negative).float()

    def units(self, au_labels: Tensor, expressions: Tensor) -> Tensor:
        """What the sum is divided by: known (clip, AU) pairs, or clips with a known AU, as ``reduction`` says; int64
        scalar.
        """
        return self._count(self._known(au_labels, expressions))

    def _count(self, known: Tensor) -> Tensor:
        return known.sum() if self.reduction == "mean" else known.any(dim=1).sum()

    @staticmethod
    def _known(au_labels: Tensor, expressions: Tensor) -> Tensor:
        known = ~torch.isnan(au_labels)
        return known if expressions.is_floating_point() else known & (expressions >= 0)[:, None]

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _quotient(positive: Tensor, negative: Tensor) -> Tensor:
    """Where the negative weight is 0 so is the positive one, and the ratio does not matter."""
    return positive / negative.clamp(min=torch.finfo(negative.dtype).tiny)


def _matrix(values, name: str, shapes: tuple) -> Tensor:
    values = getattr(values, "values", values) if not isinstance(values, Tensor) else values
    tensor = torch.as_tensor(values).detach().clone().float()
    if tuple(tensor.shape) not in shapes:
        raise InputError("AULoss", f"shape of {name}", tuple(tensor.shape), " or ".join(map(str, shapes)))
    if not torch.isfinite(tensor).all() or (tensor < 0).any():
        raise InputError("AULoss", name, "negative or non-finite values", "finite weights of at least 0")
    return tensor


#: name -> AU loss that a cell may be trained with (``Cell.au_loss``). One of your own is called as ``AULoss`` is, has
#: its ``units``, and is entered with ``AU_LOSSES.add``; the easiest is a subclass with a ``forward`` of its own. Raise
#: its ``version`` (1 if it has none) when it behaves differently: records of the one before are then not taken for it.
AU_LOSSES = Registry()
AU_LOSSES.add("", AULoss)


# ----------------------------------------------------------------------------------------------------- Eqs. 5 and 10


def expression_loss(
    logits: Tensor, expressions: Tensor, *, label_smoothing: float = 0.0, printed_offset: bool = False
) -> Tensor:
    """Eq. 5: cross entropy of the expression head.

    Args:
        logits: (B, K).
        expressions: (B,) integer, or (B, K) soft targets.
        label_smoothing: as in ``torch.nn.functional.cross_entropy`` (the release's M3DFEL uses 0.1).
        printed_offset: report the value of Eq. 5 as printed, -log(5 p): lower by log 5 = 1.609, with the same
            gradient.

    Returns:
        A scalar, the mean over the batch.
    """
    loss = F.cross_entropy(logits.float(), expressions, label_smoothing=label_smoothing)
    return loss - math.log(5.0) if printed_offset else loss


def combined_loss(expression_loss: Tensor, au_loss: Tensor, au_ratio: float) -> Tensor:
    """Eq. 10: L = (1 - lambda) L_e + lambda L_AU.

    Args:
        expression_loss: L_e, a scalar.
        au_loss: L_AU, a scalar.
        au_ratio: lambda in [0, 1]; the paper gives no value, the release uses 0.25 (AU : expression = 1 : 3).

    Raises:
        InputError: lambda outside [0, 1].
    """
    if not 0.0 <= au_ratio <= 1.0:
        raise InputError("combined_loss", "au_ratio", au_ratio, "a number from 0 to 1")
    return (1.0 - au_ratio) * expression_loss + au_ratio * au_loss
