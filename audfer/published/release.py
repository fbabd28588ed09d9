"""The knowledge matrices and positive class weights of the paper's released code beside the paper's own.

What is equal, shifted, permuted or copied is computed here from the numbers in ``audfer.published``; so is what each of
it does to the AU loss of Eq. 9. The loss needs no clips: it is linear in the labels, so its mean over a population in
which every expression shows each AU at its published rate follows from the rates alone.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import scipy
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import logit

from .. import published
from ..facs import ACTION_UNITS, EXPRESSIONS
from ..losses import STRATEGIES, AULoss, major_expressions

DATASETS = ("DFEW", "FERV39k")
#: variants of ``loss_effects`` that differ enough to be drawn
DRAWN = ("Fig. 4, no weights", "K0, no weights", "Fig. 4, global, mended", "Fig. 4, global, as released")
#: equal to that many digits counts as the same number
_SAME = 1e-9


# ----------------------------------------------------------------------------------------------------------- matrices
def matrices() -> dict[str, np.ndarray]:
    """Every knowledge matrix that is published, (7, 18) float64: Fig. 4, the release's K1, K2, K0, and K2 as wired."""
    found = {"Fig. 4": published.knowledge("figure")} | {name: published.knowledge(name) for name in ("K1", "K2", "K0")}
    wiring = published.load("release_wiring")
    for (version, name), rows in wiring.groupby(["version", "matrix"]):
        order = rows.set_index(rows["expression"].str.lower())["row"].str.lower()
        found[f"{name}, version {version}"] = found[name][[EXPRESSIONS.index(order[e]) for e in EXPRESSIONS]]
    return found


def relations(named: dict[str, np.ndarray] | None = None) -> pd.DataFrame:
    """How matrices hang together, pair by pair, and what is odd within each.

    Looked for between two matrices: equality after rounding to two decimals; one constant between their logits; the
    same rows in another order; a normal density of the other's logits. Within one: columns that are the same for all
    expressions, and whether such a column is the sigmoid of the mean logit of the others; single cells that are equal
    to 9 digits; logits centred on 0.

    Args:
        named: name -> (7, 18) values; default ``matrices()``.

    Returns:
        Columns first, second ("" for one matrix), relation, value (the constant, the number of cells or the
        correlation), spread (largest deviation from it), detail.
    """
    named = matrices() if named is None else named
    rows = []
    for (a, x), (b, y) in combinations(named.items(), 2):
        rows += [(a, b, *found) for found in _pair(x, y)]
    for name, values in named.items():
        rows += [(name, "", *found) for found in _alone(values)]
    return pd.DataFrame(rows, columns=["first", "second", "relation", "value", "spread", "detail"])


def _pair(x: np.ndarray, y: np.ndarray) -> list[tuple]:
    found = []
    if np.abs(x - y).max() <= 0.005 + _SAME:
        same = int((np.round(x, 2) == np.round(y, 2)).sum())
        found.append(("equal when rounded to two decimals", same, np.abs(x - y).max(), f"{same} of {x.size} cells"))
    shares = all(((m > 0) & (m < 1)).all() for m in (x, y))
    if shares:
        # which row of the second is which of the first, whatever constant lies between them?
        a, b = (m - m.mean() for m in (logit(x), logit(y)))
        order = linear_sum_assignment(np.abs(a[:, None] - b[None]).mean(-1))[1]
        shift = logit(x) - logit(y)[order]
        exact = np.ptp(shift) < _SAME
        moved = [f"{EXPRESSIONS[j]} has {EXPRESSIONS[i]}'s" for i, j in enumerate(order) if i != j]
        if exact and moved:
            found.append(("the same rows in another order", len(moved), np.ptp(shift), ", ".join(moved)))
        if exact and abs(shift.mean()) > _SAME:
            found.append(("logits differ by one constant", shift.mean(), np.ptp(shift), "first minus second"))
    for density, source in ((x, y), (y, x)):
        fit = _density(density, source)
        if fit is not None:
            found.append(fit)
    return found


def _density(values: np.ndarray, source: np.ndarray) -> tuple | None:
    """Whether ``values`` are the normal density of the logits of ``source``, in the columns where they vary."""
    if not ((source > 0) & (source < 1)).all():
        return None
    columns = np.ptp(values, axis=0) > _SAME
    scores, seen = logit(source)[:, columns], values[:, columns]
    deviations = scores.std(), scores.std(ddof=1)
    errors = [
        np.abs(scipy.stats.norm.pdf(scores, scores.mean(), deviation) / seen - 1).max() for deviation in deviations
    ]
    if min(errors) > 0.01:
        return None
    return (
        "normal density of the other's logits",
        np.corrcoef(seen.ravel(), source[:, columns].ravel())[0, 1],
        min(errors),
        f"value: correlation; spread: relative; mean {scores.mean():.5f}, deviation "
        f"{deviations[int(np.argmin(errors))]:.5f}, the {int(columns.sum())} columns that vary",
    )


def _alone(values: np.ndarray) -> list[tuple]:
    found = []
    constant = np.ptp(values, axis=0) < _SAME
    for j in np.flatnonzero(constant):
        detail = "the same for all expressions"
        if ((values > 0) & (values < 1)).all():
            others = logit(np.delete(values, j, axis=1)).mean()
            if abs(logit(values[0, j]) - others) < 1e-6:
                detail += "; the sigmoid of the mean logit of all the other cells"
        found.append((f"{ACTION_UNITS[j]} carries no knowledge", values[0, j], np.ptp(values[:, j]), detail))
    # with two decimals equal cells are nothing odd
    if np.abs(values * 100 - np.round(values * 100)).max() > 1e-6:
        for i, row in enumerate(values):
            for j, k in combinations(np.flatnonzero(~constant), 2):
                if abs(row[j] - row[k]) < _SAME:
                    found.append(
                        (
                            "two cells are one number",
                            row[j],
                            abs(row[j] - row[k]),
                            f"{EXPRESSIONS[i]}: {ACTION_UNITS[j]} and {ACTION_UNITS[k]}",
                        )
                    )
    if ((values > 0) & (values < 1)).all():
        middle = (logit(values).max() + logit(values).min()) / 2
        if abs(middle) < _SAME:
            found.append(
                ("logits centred on their mid-range", middle, np.ptp(logit(values)), "spread: highest minus lowest")
            )
    return found


# ------------------------------------------------------------------------------------------------------------ vectors
def _vectors() -> dict[tuple[str, str, str], np.ndarray]:
    """(dataset, strategy, expression or "all") -> the release's 18 positive class weights."""
    found = {}
    for dataset in DATASETS:
        for strategy in STRATEGIES:
            weights = published.released_pos_weight(dataset, strategy)
            rows = {"all": weights} if weights.ndim == 1 else dict(zip(EXPRESSIONS, weights, strict=True))
            found |= {(dataset, strategy, name): row for name, row in rows.items()}
    return found


def copied_vectors(vectors: dict[tuple[str, str, str], np.ndarray] | None = None) -> pd.DataFrame:
    """Weight vectors that are some other expression's or dataset's.

    "minor" is "distinct" for the minor expressions (Eq. 8), so equal vectors of one dataset and expression are as they
    should be, and so are vectors of ones.

    Args:
        vectors: (dataset, strategy, expression or "all") -> (18,); default: the release's.

    Returns:
        Columns dataset, strategy, expression, is (the "distinct" vector that it equals), difference (largest,
        relative).
    """
    vectors = _vectors() if vectors is None else vectors
    rows = []
    for (dataset, strategy, expression), vector in vectors.items():
        for (other, kind, name), source in vectors.items():
            if kind != "distinct" or (other, name) == (dataset, expression) or np.allclose(vector, 1):
                continue
            difference = np.abs(vector / source - 1).max()
            if difference < _SAME:
                rows.append((dataset, strategy, expression, f"{other}, {name}", difference))
    return pd.DataFrame(rows, columns=["dataset", "strategy", "expression", "is", "difference"])


def frames_behind() -> pd.DataFrame:
    """How many frames stand behind each released vector, and how many that expression has.

    Weights are (frames - present) / present with whole numbers, which fixes the least number of frames that gives all
    eighteen; it is transcribed with them (``release_pos_weight_*.csv``). Compared with the frames of the annotation
    files, training and test together.

    Returns:
        Columns dataset, expression, frames (behind the "distinct" vector), annotated, surplus (share of annotated).
    """
    rows = []
    for dataset in DATASETS:
        table = published.load(f"release_pos_weight_{dataset.lower()}")
        table = table[table["option"] == "distinct"]
        least = table.groupby(table["expression"].str.lower())["implied_frames_minimal"].max()
        annotated = {
            e: sum(published.frame_counts(dataset, split)[e] for split in ("train", "test")) for e in EXPRESSIONS
        }
        rows += [(dataset, e, int(least[e]), annotated[e], least[e] / annotated[e] - 1) for e in EXPRESSIONS]
    return pd.DataFrame(rows, columns=["dataset", "expression", "frames", "annotated", "surplus"])


def global_vectors() -> pd.DataFrame:
    """Whether the released "global" rates can be a mixture of the "distinct" ones at all.

    Returns:
        Columns dataset, outside (AUs whose overall presence rate lies outside the range of the seven expressions'), of
        (18), action_units (their names).
    """
    rows = []
    for dataset in DATASETS:
        rate, rates = (1 / (1 + published.released_pos_weight(dataset, name)) for name in ("global", "distinct"))
        odd = (rate < rates.min(axis=0) * (1 - _SAME)) | (rate > rates.max(axis=0) * (1 + _SAME))
        rows.append((dataset, int(odd.sum()), len(rate), " ".join(np.array(ACTION_UNITS)[odd])))
    return pd.DataFrame(rows, columns=["dataset", "outside", "of", "action_units"])


def mended_pos_weight(dataset: str, strategy: str) -> np.ndarray:
    """What the release's weights would be with each vector in its place, from the published presence rates.

    DFEW's fear rates are FERV39k's (``published.presence_rates``). "global" mixes the expressions by their frames;
    "minor" is 1 for the expressions that Eq. 8's rule calls major.

    Returns:
        (18,) for "global", else (7, 18).
    """
    rates = published.presence_rates(dataset)
    if strategy == "global":
        frames = np.array(
            [sum(published.frame_counts(dataset, split)[e] for split in ("train", "test")) for e in EXPRESSIONS]
        )
        rate = frames @ rates / frames.sum()
        return (1 - rate) / rate
    weights = (1 - rates) / rates
    if strategy == "minor":
        weights[major_expressions(list(published.class_counts(dataset, "train").values()))] = 1.0
    return weights


# ---------------------------------------------------------------------------------------------------- what it does
def loss_cells(knowledge, pos_weight, rates: np.ndarray, probabilities: np.ndarray, counts) -> np.ndarray:
    """The expected AU loss (Eq. 9, mean over clips and AUs) by expression and AU.

    Args:
        knowledge, pos_weight: as in ``losses.AULoss``.
        rates: (7, 18) share of clips of each expression with the AU.
        probabilities: (7, 18) or (18,) what the head answers.
        counts: 7 clips an expression.

    Returns:
        (7, 18) contributions in nats; their sum is the loss.
    """
    loss = AULoss(knowledge, pos_weight)
    cells, units = len(EXPRESSIONS), len(ACTION_UNITS)
    answers = torch.from_numpy(logit(np.broadcast_to(probabilities, (cells, units)))).float()
    share = np.asarray(counts, float) / np.sum(counts)
    result = np.zeros((cells, units))
    for i in range(cells):
        for j in range(units):
            # every other AU is unknown, so the mean over what is known is this cell's term
            label = torch.full((1, units), float("nan"))
            label[0, j] = float(rates[i, j])
            result[i, j] = loss(answers[i : i + 1], label, torch.tensor([i])).item() * share[i] / units
    return result


def _variants(dataset: str) -> dict[str, tuple]:
    """Name -> (knowledge, positive class weights): one thing changed at a time from Fig. 4 with mended weights."""
    named = matrices()
    right = {strategy: mended_pos_weight(dataset, strategy) for strategy in STRATEGIES}
    found = {"no knowledge, no weights": (None, None), "Fig. 4, no weights": (named["Fig. 4"], None)}
    found |= {f"{name}, no weights": (values, None) for name, values in named.items() if name != "Fig. 4"}
    for strategy in STRATEGIES:
        found[f"Fig. 4, {strategy}, mended"] = (named["Fig. 4"], right[strategy])
        found[f"Fig. 4, {strategy}, as released"] = (named["Fig. 4"], published.released_pos_weight(dataset, strategy))
    return found


def loss_effects(dataset: str = "DFEW") -> tuple[pd.DataFrame, pd.DataFrame]:
    """What each matrix and each set of weights does to the AU loss, on one common population.

    The population: the expressions in the proportions of the dataset's training split, each AU at its published rate
    (``published.presence_rates``). The head answers either 1/2 everywhere (untrained) or each AU's overall rate.

    Returns:
        Summary, one row a variant: variant, loss_untrained, loss_at_rates (nats), and of the untrained head's loss:
        largest_au, largest_au_share, au28_share, positive_share (from present AUs), rare_share (from the expressions
        that Eq. 8 calls minor), half_of_the_loss (AU-expression cells of 126 that hold half of it).
        Cells: source (variant), expression, action_unit, value (percent of the untrained head's loss).
    """
    rates = published.presence_rates(dataset)
    counts = np.array(list(published.class_counts(dataset, "train").values()), float)
    minor = ~major_expressions(counts)
    overall = counts @ rates / counts.sum()
    rows, cells = [], []
    for name, (knowledge, weights) in _variants(dataset).items():
        untrained = loss_cells(knowledge, weights, rates, np.full(rates.shape, 0.5), counts)
        informed = loss_cells(knowledge, weights, rates, overall, counts)
        # at 1/2 a present AU costs w log 2 and an absent one log 2: the present ones' part follows from the rates
        ratio = np.ones_like(rates) if weights is None else np.broadcast_to(weights, rates.shape)
        positive = untrained * ratio * rates / (ratio * rates + 1 - rates)
        share = untrained / untrained.sum()
        by_unit = share.sum(axis=0)
        rows.append(
            {
                "variant": name,
                "loss_untrained": untrained.sum(),
                "loss_at_rates": informed.sum(),
                "largest_au": ACTION_UNITS[by_unit.argmax()],
                "largest_au_share": by_unit.max(),
                "au28_share": by_unit[ACTION_UNITS.index("AU28")],
                "positive_share": positive.sum() / untrained.sum(),
                "rare_share": share[minor].sum(),
                "half_of_the_loss": int(np.searchsorted(np.cumsum(np.sort(share.ravel())[::-1]), 0.5) + 1),
            }
        )
        cells.append(
            pd.DataFrame(
                {
                    "source": name,
                    "expression": np.repeat(EXPRESSIONS, len(ACTION_UNITS)),
                    "action_unit": np.tile(ACTION_UNITS, len(EXPRESSIONS)),
                    "value": 100 * share.ravel(),
                }
            )
        )
    return pd.DataFrame(rows), pd.concat(cells, ignore_index=True)
