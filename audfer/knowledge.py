"""Section 3.1: how strongly each action unit belongs to each expression, as a 7 x 18 matrix.

Frames with an expression label and 17 AU intensities go in; per dataset the median of every (expression, AU) cell is
taken, datasets are added, and a sigmoid maps the sum into (0, 1). Two variants, because the paper's text and the
numbers it publishes disagree (reference EQUATIONS.md section 1, RELEASE_FORENSICS.md section 1):

* ``paper``, as written: each dataset's medians minus their mid-range, sigmoid; the sum of those minus 2.5, sigmoid.
* ``release``: the plain sum of medians minus its own mid-range, one sigmoid. It gives the released matrix exactly.

Rows are expressions, columns AUs, always in the orders of ``facs``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from . import published
from .errors import InputError
from .evaluation import holm
from .facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS, INTENSITY_INDEX
from .files import UNREADABLE, require_plain, write_json
from .losses import KNOWLEDGE_FACTOR
from .openface import INTENSITY_COLUMNS, MAX_INTENSITY

VARIANTS: tuple[str, ...] = ("paper", "release")
#: matrices that can weigh the AU loss of a cell: the knowledge, and controls that tell it from any other auxiliary task
WEIGHTS: dict[str, str] = {
    "knowledge": "the knowledge matrix of section 3.1",
    "none": "no matrix: plain binary cross entropy, every AU and expression weighs 1",
    "uniform": "the matrix's mean everywhere: the same scale of the loss, no knowledge",
    "shuffled-aus": "the matrix with its AU columns permuted: each AU has another one's weights",
    "shuffled-expressions": "the matrix with its rows permuted: each expression has another one's weights",
    "train-only": "the matrix of the dataset's own training clips alone",
    "figure4": "the paper's Fig. 4",
    "release": "K2 of the released code",
    "hand-written": "the prior that SSM writes by hand: an AU belongs to an expression or not",
}
#: Li et al., "Bidirectional Learning of Facial Action Units and Expressions via Structured Semantic Mapping across
#: Heterogeneous Datasets", IEEE TAFFC 2026 (arXiv 2604.10541); released code, BP4D's 12 AUs with seven expressions
HAND_WRITTEN: dict[str, tuple[str, ...]] = {
    "happy": ("AU06", "AU12"),
    "sad": ("AU01", "AU04", "AU15"),
    "neutral": (),
    "angry": ("AU04", "AU07", "AU23"),
    "surprise": ("AU01", "AU02"),
    "disgust": ("AU10", "AU17"),
    "fear": ("AU01", "AU02", "AU04", "AU07"),
}
AU28_WAYS: tuple[str, ...] = ("grand_mean", "row_mean", "presence")
#: the paper's constant: it subtracts 2.5 from a sum over four datasets
PAPER_OFFSET, PAPER_DATASETS = 2.5, 4

_AU28 = ACTION_UNITS.index("AU28")
_MEASURED = list(INTENSITY_INDEX)  # the 17 columns with a measurement behind them


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


def _mid_range(matrix) -> float:
    return float(np.max(matrix) + np.min(matrix)) / 2.0


def summed_medians(medians: Sequence[np.ndarray], variant: str) -> np.ndarray:
    """What the datasets' medians (7, 17) add up to before the last sigmoid: "paper" adds a sigmoid of each, else they
    are added.
    """
    if variant == "paper":
        return np.sum([_sigmoid(m - _mid_range(m)) for m in medians], axis=0)
    return np.sum(list(medians), axis=0)


@dataclass
class KnowledgeMatrix:
    """The knowledge matrix K with what it was made from.

    Attributes:
        values: (7, 18) float64 in (0, 1), expressions x AUs.
        medians: dataset -> (7, 17) median intensities; empty for the published matrices.
        sum: (7, 17) scores before the last constant and sigmoid, or ``None`` for the published matrices.
        variant: "paper", "release", or "figure", "K2" for published ones.
        settings: every choice made (theta, au28, interpolate, offset, missing) and the numbers of frames kept.
    """

    values: np.ndarray
    medians: dict[str, np.ndarray] = field(default_factory=dict)
    sum: np.ndarray | None = None
    variant: str = "paper"
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        self.values = np.asarray(self.values, np.float64)
        if self.values.shape != (len(EXPRESSIONS), len(ACTION_UNITS)):
            raise InputError("knowledge matrix", "shape", self.values.shape, "(7, 18), expressions x action units")
        if not ((self.values > 0) & (self.values < 1)).all():
            raise InputError(
                "knowledge matrix",
                "values",
                f"{self.values.min():g} to {self.values.max():g}",
                "numbers between 0 and 1",
            )

    # ------------------------------------------------------------------------------------------------ construction

    @classmethod
    def from_frames(
        cls,
        frames: pd.DataFrame,
        variant: str = "paper",
        theta: float = 0.0,
        au28: str = "grand_mean",
        interpolate: bool | str = True,
        offset: float | None = None,
        missing: str = "error",
        scaled: bool = False,
    ) -> KnowledgeMatrix:
        """Build the matrix from labelled frames (Eqs. 1 to 3 and the rest of section 3.1).

        Args:
            frames: one row per frame, a clip's frames together and in order: ``dataset``, ``clip_id``, ``expression``
                (index; -1 = none of the seven, not used), ``AU01_r`` ... ``AU45_r`` (0 to 5; NaN = unknown), for
                theta > 0 ``score``, for ``au28="presence"`` ``AU28_c``.
            variant: see the top of this module.
            theta: Eq. 3, keep a frame only if ``score`` (the probability that a trained expression network gives to
                the frame's label) is at least theta. 0 keeps all; the paper states no value. Interpolation comes
                first, so a rejected frame still bridges its neighbours.
            au28: OpenFace gives no intensity for AU28. "grand_mean": one number for all expressions, the mean score
                over the other 17 AUs and all expressions (the release). "row_mean": the mean of the expression's
                other 17 values (the paper's words). "presence": the measured share of frames with AU28 present, mean
                over datasets, which is on another scale.
            interpolate: True or "zeros" (exact zeros are missing values), "failed" (only unknown frames are), False
                or "none". See ``interpolate_zeros``.
            scaled: of "paper", count D datasets as the paper's four: the sum times 4 / D, minus 2.5. Without it one
                dataset's values cannot leave 0.35 to 0.59, which ``flat`` says. It changes nothing for four datasets.
            offset: constant before the last sigmoid. ``None``: "paper" 2.5, in proportion when there are not four
                datasets (2.5 D / 4); "release" the mid-range of the sum.
            missing: what to do when a dataset has no kept frame of an expression. "error"; or "others": that
                dataset's row is the mean of the other datasets' rows (noted in ``settings["filled"]``).

        Raises:
            InputError: missing columns, values out of range, an unknown choice, or an expression without a frame.

        Example:
            >>> frames = pd.DataFrame({"dataset": "d", "clip_id": [str(i) for i in range(7)], "expression": range(7),
            ...                        **{f"{au}_r": np.linspace(0.5, 2, 7) for au in INTENSITY_ACTION_UNITS}})
            >>> KnowledgeMatrix.from_frames(frames, variant="release").values[:, 0].round(3).tolist() [0.321, 0.378,
            0.438, 0.5, 0.562, 0.622, 0.679]
        """
        how = {True: "zeros", False: "none"}.get(interpolate, interpolate)
        for name, found, allowed in (
            ("variant", variant, VARIANTS),
            ("au28", au28, AU28_WAYS),
            ("interpolate", how, ("zeros", "failed", "none")),
            ("missing", missing, ("error", "others")),
        ):
            if found not in allowed:
                raise InputError("knowledge matrix", name, repr(found), f"one of {', '.join(allowed)}")
        if not 0.0 <= theta <= 1.0:
            raise InputError("knowledge matrix", "theta", theta, "a probability from 0 to 1")
        intensity = _intensity(frames, ["score"] * (theta > 0) + ["AU28_c"] * (au28 == "presence"), how)
        kept = frames["expression"].to_numpy() >= 0
        if theta > 0:
            kept &= frames["score"].to_numpy(float) >= theta  # an unknown score (NaN) is not kept
        medians, counts = _medians(frames, intensity, kept)
        filled = _fill_missing(medians, counts, missing, theta)

        total = summed_medians(list(medians.values()), variant)
        if variant == "paper":
            counted = PAPER_DATASETS if scaled else len(medians)
            total = total * (counted / len(medians))
            constant = PAPER_OFFSET * counted / PAPER_DATASETS if offset is None else float(offset)
        else:
            constant = _mid_range(total) if offset is None else float(offset)
        values = np.empty((len(EXPRESSIONS), len(ACTION_UNITS)))
        values[:, _MEASURED] = _sigmoid(total - constant)
        if au28 == "grand_mean":
            values[:, _AU28] = _sigmoid(total.mean() - constant)
        elif au28 == "row_mean":
            values[:, _AU28] = values[:, _MEASURED].mean(axis=1)
        else:
            values[:, _AU28] = _presence_share(frames, kept)
        kept_frames = {name: dict(zip(EXPRESSIONS, numbers.tolist(), strict=True)) for name, numbers in counts.items()}
        settings = {
            "theta": float(theta),
            "au28": au28,
            "interpolate": how,
            "offset": constant,
            "missing": missing,
            "filled": filled,
            "frames": kept_frames,
        }
        return cls(values, medians, total, variant, settings | ({"scaled": True} if scaled else {}))

    @classmethod
    def from_sum(cls, total, offset: float | None = None) -> KnowledgeMatrix:
        """The release's last step on scores that are already summed: sigmoid of the scores minus a constant.

        Args:
            total: (7, 17) summed medians.
            offset: the constant; ``None``: the mid-range, which gives the released K2.
        """
        total = np.asarray(total, np.float64)
        constant = _mid_range(total) if offset is None else float(offset)
        values = np.empty((len(EXPRESSIONS), len(ACTION_UNITS)))
        values[:, _MEASURED] = _sigmoid(total - constant)
        values[:, _AU28] = _sigmoid(total.mean() - constant)
        return cls(values, {}, total, "release", {"au28": "grand_mean", "offset": constant})

    @classmethod
    def published(cls) -> KnowledgeMatrix:
        """Fig. 4 as printed, two decimals."""
        return cls(published.knowledge("figure"), variant="figure", settings={"source": "Fig. 4 of the paper"})

    @classmethod
    def release(cls) -> KnowledgeMatrix:
        """K2, the matrix that most of the released code uses: Fig. 4's logits, centred on their mid-range."""
        return cls(published.knowledge("K2"), variant="K2", settings={"source": "the paper's released code"})

    @classmethod
    def hand_written(cls) -> KnowledgeMatrix:
        """The prior that SSM writes by hand (``HAND_WRITTEN``): 0.98 where an AU belongs to an expression, else 0.02.

        Its own numbers are 1.00 and 0.02; values of K lie below 1. AUs that it does not know (05, 09, 20, 25, 26, 28
        and 45 of ours) belong to no expression; its AU24 is none of OpenFace's.
        """
        values = [[0.98 if au in HAND_WRITTEN[name] else 0.02 for au in ACTION_UNITS] for name in EXPRESSIONS]
        return cls(values, variant="hand-written", settings={"of": "SSM"})

    # ---------------------------------------------------------------------------------------------------------- use

    @property
    def weights(self) -> np.ndarray:
        """(7, 18) weights of the AU loss: 5 K (``losses.AULoss`` applies the 5 itself: give it the matrix)."""
        return KNOWLEDGE_FACTOR * self.values

    @property
    def flat(self) -> str:
        """A sentence where the paper's reading of fewer than its four datasets makes K nearly constant; else ""."""
        few = len(self.medians) < PAPER_DATASETS and not self.settings.get("scaled")
        if self.variant != "paper" or not self.medians or not few:
            return ""
        printed, own = (values[:, _MEASURED] for values in (published.knowledge("figure"), self.values))
        spans = [f"{values.min():.2f} to {values.max():.2f}" for values in (own, printed)]
        return (
            f"LOOK OUT: of {len(self.medians)} dataset(s) the paper's reading gives K from {spans[0]} (Fig. 4, of 4: "
            f"{spans[1]}), at most {(own.max(axis=0) / own.min(axis=0)).max():.1f} times as much for one expression as "
            "for another: the loss hardly differs from one without a matrix. Scaled to four datasets (--scaled, "
            "scaled=True) it does"
        )

    def to_frame(self) -> pd.DataFrame:
        """The values as a table, expressions x AUs."""
        return pd.DataFrame(self.values, index=pd.Index(EXPRESSIONS, name="expression"), columns=list(ACTION_UNITS))

    def expression_scores(self, intensity) -> np.ndarray:
        """What expression the matrix alone reads from a face's action units.

        An expression's row, divided by its sum, says which share of the facial activity belongs to each AU there; a
        face's score is the softmax of sum_j x_j log(K[e, j] / sum_k K[e, k]). Only the pattern counts: the rows'
        levels differ (happy's is the highest) and would decide every face otherwise. A face at rest says nothing and
        gives 1/7 each. Not in the paper: it is for looking at the matrix (the slider panel, checks on real clips),
        not a recogniser.

        Args:
            intensity: (..., 18) in 0 to 5; NaN leaves the AU out.

        Returns:
            (..., 7) scores that sum to one.

        Raises:
            InputError: not 18 AUs.
        """
        intensity = np.nan_to_num(np.asarray(intensity, np.float64), nan=0.0)
        if intensity.shape[-1:] != (len(ACTION_UNITS),):
            raise InputError("expression_scores", "shape of intensity", intensity.shape, "(..., 18)")
        logits = intensity @ np.log(self.values / self.values.sum(axis=1, keepdims=True)).T
        scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return scores / scores.sum(axis=-1, keepdims=True)

    def rank_correlation(self, other) -> pd.Series:
        """Spearman's correlation with another matrix, over the 17 AUs that are measured (AU28 is never one).

        Args:
            other: a ``KnowledgeMatrix``, or an array (7, 18) or (7, 17): any monotone scale will do.

        Returns:
            Series: each expression (17 AUs), "overall" (all 119 cells) and "within_au": all cells' ranks after
            each AU's mean rank was taken off, so that knowing which AUs are common anywhere earns nothing. NaN where
            one side is constant.
        """
        other = np.asarray(getattr(other, "values", other), np.float64)
        if other.shape == (len(EXPRESSIONS), len(ACTION_UNITS)):
            other = other[:, _MEASURED]
        if other.shape != (len(EXPRESSIONS), len(INTENSITY_ACTION_UNITS)):
            raise InputError("rank_correlation", "shape", other.shape, "(7, 18) or (7, 17)")
        ours = self.values[:, _MEASURED]
        result = {name: _spearman(ours[i], other[i]) for i, name in enumerate(EXPRESSIONS)}
        result["overall"] = _spearman(ours.ravel(), other.ravel())
        centred = [
            ranks - ranks.mean(axis=0) for ranks in (scipy.stats.rankdata(m).reshape(m.shape) for m in (ours, other))
        ]
        result["within_au"] = _spearman(centred[0].ravel(), centred[1].ravel())
        return pd.Series(result, name="spearman")

    # ------------------------------------------------------------------------------------------------------- storage

    def save(self, path) -> None:
        """Write as JSON with the names of rows and columns, whole or not at all."""
        write_json(
            path,
            {
                "expressions": list(EXPRESSIONS),
                "action_units": list(ACTION_UNITS),
                "values": self.values.tolist(),
                "variant": self.variant,
                "settings": self.settings,
                "medians": {name: m.tolist() for name, m in self.medians.items()},
                "sum": None if self.sum is None else self.sum.tolist(),
            },
        )

    @classmethod
    def load(cls, path) -> KnowledgeMatrix:
        """Read what ``save`` wrote.

        Raises:
            InputError: no such file, not a knowledge matrix, or rows and columns in another order.
        """
        path = Path(path)
        try:
            require_plain(path)
            content = json.loads(path.read_text())
            rows, columns = tuple(content["expressions"]), tuple(content["action_units"])
            if (rows, columns) == (EXPRESSIONS, ACTION_UNITS):
                return cls(
                    np.array(content["values"], float),
                    {name: np.array(m, float) for name, m in content.get("medians", {}).items()},
                    None if content.get("sum") is None else np.array(content["sum"], float),
                    content.get("variant", ""),
                    content.get("settings", {}),
                )
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(path, "file", str(error) or type(error).__name__, "a saved knowledge matrix") from error
        raise InputError(path, "row and column names", f"{rows}, {columns}", f"{EXPRESSIONS}, {ACTION_UNITS}")


#: names of ``WEIGHTS`` that stand for one matrix, whatever the knowledge is
_FIXED = {
    "figure4": KnowledgeMatrix.published,
    "release": KnowledgeMatrix.release,
    "hand-written": KnowledgeMatrix.hand_written,
}


def control_matrix(weights: str, knowledge: KnowledgeMatrix, seed: int = 0) -> KnowledgeMatrix:
    """The matrix that a name of ``WEIGHTS`` stands for.

    Args:
        weights: "knowledge", "uniform", "shuffled-aus", "shuffled-expressions", "figure4", "release" or "hand-written";
            "none" has no matrix, and "train-only" is made from frames (``Study.knowledge``).
        knowledge: what "knowledge" is, and what is levelled or shuffled.
        seed: of a shuffle. No AU, or no expression, keeps its own place.

    Raises:
        InputError: another name.
    """
    values = knowledge.values
    if weights == "uniform":
        values = np.full(values.shape, values.mean())
    elif weights == "shuffled-aus":
        values = values[:, _derangement(values.shape[1], seed)]
    elif weights == "shuffled-expressions":
        values = values[_derangement(values.shape[0], seed)]
    elif weights in _FIXED:
        return _FIXED[weights]()
    elif weights != "knowledge":
        raise InputError(
            "control_matrix",
            "weights",
            repr(weights),
            f"one of knowledge, uniform, shuffled-aus, shuffled-expressions, {', '.join(_FIXED)}",
        )
    return KnowledgeMatrix(values, variant=weights, settings={"of": knowledge.variant, "seed": int(seed)})


def _derangement(count: int, seed: int) -> np.ndarray:
    """A random order of ``count`` places in which none is where it was."""
    generator, places = np.random.default_rng(seed), np.arange(count)
    while True:
        order = generator.permutation(count)
        if not (order == places).any():
            return order


# --------------------------------------------------------------------------------------------------------- the steps


def interpolate_zeros(intensity, clip=None, *, zeros: bool = True) -> np.ndarray:
    """Section 3.1's "sample-wise linear interpolation for 0 values".

    The sentence is ambiguous. Default, reading (a) of the reference's EQUATIONS.md, which is what the fractions in
    the released matrix look like: within each clip and each AU an exact zero is a missing value and is filled by
    linear interpolation in time between the nearest non-zero values; before the first and after the last of them it
    takes the nearest. A series that is zero throughout stays zero. It raises medians, because true absence is filled
    too.

    Unknown values (NaN) are filled the same way, whichever reading: the failed frames of OpenFace are zeros to the
    paper. A series without any non-zero value takes zero there if a zero was seen, and stays NaN if nothing was.

    Args:
        intensity: (n, K) 0 to 5, or NaN; consecutive frames.
        clip: (n,) clip of each row, equal values adjacent; ``None``: one clip.
        zeros: False is reading (b): zeros of tracked frames are measurements, only NaN is filled.

    Returns:
        A new (n, K) array of the same float type.

    Example:
        >>> interpolate_zeros(np.array([[0.0], [1.0], [0.0], [3.0], [0.0]])).ravel().tolist()
        [1.0, 1.0, 2.0, 3.0, 3.0]
    """
    intensity = np.asarray(intensity)
    if not np.issubdtype(intensity.dtype, np.floating):
        intensity = intensity.astype(np.float64)
    count = len(intensity)
    if not count:
        return intensity.copy()
    clip = np.zeros(count) if clip is None else np.asarray(clip)
    starts = np.flatnonzero(np.r_[True, clip[1:] != clip[:-1]])
    stops = np.append(starts[1:], count)
    first = np.repeat(starts, stops - starts)[:, None]  # per row: first row of its clip, one past its last
    last = np.repeat(stops, stops - starts)[:, None]
    known = ~np.isnan(intensity) & ((intensity != 0) | (not zeros))
    row = np.arange(count)[:, None]
    before = np.maximum.accumulate(np.where(known, row, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, row, count)[::-1], axis=0)[::-1]
    has_before, has_after = before >= first, after < last
    before = np.where(has_before, before, after)  # at the ends the nearest known value counts for both sides
    after = np.where(has_after, after, before)
    column = np.arange(intensity.shape[1])[None, :]
    reachable = has_before | has_after
    left = intensity[np.where(reachable, before, row), column]
    right = intensity[np.where(reachable, after, row), column]
    share = (row - before) / np.maximum(after - before, 1)
    filled = np.where(reachable & ~known, left + share * (right - left), intensity)
    seen = np.maximum.reduceat((~np.isnan(intensity)).astype(np.int8), starts, axis=0).repeat(stops - starts, axis=0)
    return np.where(np.isnan(filled) & (seen > 0), 0.0, filled).astype(intensity.dtype)


def _intensity(frames: pd.DataFrame, also: list[str], how: str) -> np.ndarray:
    """Checked, interpolated intensities, (n, 17) float64."""
    needed = dict.fromkeys(["dataset", "expression", *INTENSITY_COLUMNS, *also] + ["clip_id"] * (how != "none"))
    absent = [name for name in needed if name not in frames]
    if absent:
        raise InputError("frames", "columns", f"no {', '.join(absent)}", "all columns that from_frames names")
    expression = frames["expression"].to_numpy()
    if not len(expression):
        raise InputError("frames", "rows", "none", "labelled frames")
    if not np.isin(expression, np.arange(-1, len(EXPRESSIONS))).all():
        odd = expression[~np.isin(expression, np.arange(-1, len(EXPRESSIONS)))][0]
        raise InputError("frames", "column expression", odd, f"-1 to {len(EXPRESSIONS) - 1}")
    intensity = frames[list(INTENSITY_COLUMNS)].to_numpy(np.float64)
    wrong = (intensity < 0) | (intensity > MAX_INTENSITY)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            "frames",
            f"row {row}, column {INTENSITY_COLUMNS[column]}",
            f"{intensity[row, column]:g}",
            "an intensity from 0 to 5",
        )
    if how == "none":
        return intensity
    # the same clip name in two datasets is two clips
    clip = frames.groupby(["dataset", "clip_id"], sort=False, observed=True).ngroup().to_numpy()
    if (np.diff(clip)[np.diff(clip) != 0] != 1).any():
        raise InputError("frames", "column clip_id", "a clip in several places", "a clip's frames together, in order")
    return interpolate_zeros(intensity, clip, zeros=how == "zeros")


def _medians(frames, intensity, kept) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Per dataset the (7, 17) medians over kept frames (NaN: nothing known) and the 7 numbers of kept frames."""
    keys = [frames["dataset"].to_numpy(), frames["expression"].to_numpy()]
    table = pd.DataFrame(intensity)[kept]
    grouped = table.groupby([key[kept] for key in keys], sort=False)
    middle, size = grouped.median(), grouped.size()
    medians, counts = {}, {}
    for dataset in pd.unique(frames["dataset"]):
        rows = [(dataset, e) for e in range(len(EXPRESSIONS))]
        medians[str(dataset)] = middle.reindex(rows).to_numpy(np.float64, copy=True)
        counts[str(dataset)] = size.reindex(rows, fill_value=0).to_numpy()
    return medians, counts


def _fill_missing(medians: dict, counts: dict, missing: str, theta: float) -> list[list[str]]:
    """Fill cells without a known frame from the other datasets, in place, or refuse; returns what was filled."""
    filled = []
    stack = np.stack(list(medians.values()))
    for d, name in enumerate(medians):
        for e, a in np.argwhere(np.isnan(stack[d])):
            others = stack[:, e, a][~np.isnan(stack[:, e, a])]
            if missing == "error" or not len(others):
                wayout = '; a lower theta, or missing="others" to borrow from other datasets' if len(others) else ""
                raise InputError(
                    f"frames of {name}",
                    f"{EXPRESSIONS[e]} {INTENSITY_ACTION_UNITS[a]}",
                    f"no known value in {counts[name][e]} kept frames (theta = {theta:g})",
                    f"at least one frame of every expression in every dataset{wayout}",
                )
            medians[name][e, a] = others.mean()
            if [name, EXPRESSIONS[e]] not in filled:
                filled.append([name, EXPRESSIONS[e]])
    return filled


def _presence_share(frames: pd.DataFrame, kept: np.ndarray) -> np.ndarray:
    """(7,) share of kept frames with AU28 present, mean over datasets, kept inside (0, 1)."""
    table = frames[["dataset", "expression", "AU28_c"]][kept]
    share = table.groupby(["dataset", "expression"], observed=True)["AU28_c"].mean()
    share = share.groupby("expression").mean().reindex(range(len(EXPRESSIONS))).to_numpy(np.float64)
    if np.isnan(share).any():
        name = EXPRESSIONS[int(np.isnan(share).argmax())]
        raise InputError(
            "frames", "column AU28_c", f"no known value for {name}", "AU28's presence in frames of every expression"
        )
    return np.clip(share, 1e-6, 1 - 1e-6)


def _spearman(a, b) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(a, b).statistic)


# ------------------------------------------------------------------------------------- which AUs separate expressions


def separating_aus(
    frames: pd.DataFrame, *, interpolate: bool = False, level: float = 0.05, centre_by: str | None = None
) -> pd.DataFrame:
    """Which action units tell the seven expressions apart: Kruskal-Wallis on clip medians.

    The clip is the unit (frames of one clip are not independent): each clip gives its median intensity, the seven
    expressions' clips are compared by ranks, and p-values are corrected for 17 tests by Holm's method, per dataset.
    Clips of one person are treated as independent unless ``centre_by`` takes the person's own level off; with few
    people the p-values speak about those people only.

    Args:
        frames: as for ``KnowledgeMatrix.from_frames`` (``dataset``, ``clip_id``, ``expression``, 17 intensities).
        interpolate: fill exact zeros first, as the matrix does. Off by default: absence is a finding here.
        level: of the corrected p-value below which an AU counts as separating.
        centre_by: a column (for example "subject"); its medians over clips are subtracted first.

    Returns:
        One row a dataset and AU, the most separating first within a dataset: dataset, au, h (the statistic), epsilon2
        (share of rank variance explained, 0 to 1), p, p_holm, separates, highest and lowest (expressions by mean clip
        median), clips, expressions (how many were seen). An AU that never varies has h = 0, p = 1 and no highest or
        lowest.

    Raises:
        InputError: missing columns, or a dataset with fewer than two expressions.
    """
    names = ["dataset", "clip_id", "expression"] + [centre_by] * (centre_by is not None)
    intensity = _intensity(frames, names, "zeros" if interpolate else "none")
    table = pd.DataFrame(intensity, columns=list(INTENSITY_ACTION_UNITS))
    keys = {name: frames[name].to_numpy() for name in names}
    seen = keys["expression"] >= 0
    clips = (
        table[seen]
        .groupby(
            [pd.Series(values[seen], index=table.index[seen], name=name) for name, values in keys.items()], sort=False
        )
        .median()
        .reset_index()
    )
    if centre_by is not None:
        units = list(INTENSITY_ACTION_UNITS)
        clips[units] -= clips.groupby(["dataset", centre_by], sort=False)[units].transform("median")
    pieces = []
    for dataset, own in clips.groupby("dataset", sort=False):
        if own["expression"].nunique() < 2:
            raise InputError(f"frames of {dataset}", "expressions", f"{own['expression'].nunique()}", "at least two")
        rows = [_kruskal(own, au) for au in INTENSITY_ACTION_UNITS]
        piece = pd.DataFrame(rows)
        piece.insert(0, "dataset", dataset)
        piece["p_holm"] = holm(piece["p"].to_numpy())
        piece["separates"] = piece["p_holm"] < level
        pieces.append(piece.sort_values("epsilon2", ascending=False, kind="stable"))
    columns = [
        "dataset",
        "au",
        "h",
        "epsilon2",
        "p",
        "p_holm",
        "separates",
        "highest",
        "lowest",
        "clips",
        "expressions",
    ]
    return pd.concat(pieces, ignore_index=True)[columns]


def _kruskal(clips: pd.DataFrame, au: str) -> dict:
    values = clips[[au, "expression"]].dropna()
    groups = [group[au].to_numpy() for _, group in values.groupby("expression")]
    means = values.groupby("expression")[au].mean()
    count = len(values)
    varies = len(groups) > 1 and np.ptp(values[au]) > 0
    h, p = scipy.stats.kruskal(*groups) if varies else (0.0, 1.0)  # identical everywhere: nothing to rank
    return {
        "au": au,
        "h": float(h),
        "epsilon2": float(h) / max(count - 1, 1),
        "p": float(p),
        "clips": count,
        "expressions": len(groups),
        "highest": EXPRESSIONS[int(means.idxmax())] if varies else "",
        "lowest": EXPRESSIONS[int(means.idxmin())] if varies else "",
    }
