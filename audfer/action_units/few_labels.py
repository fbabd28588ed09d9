"""Few labels, and knowledge as a prior: what a matrix is worth where only some people's clips have labels.

A clip is the mean of its 17 intensities. Multinomial logistic regression with a Gaussian prior on its weights reads it:
without knowledge the prior's mean is zero, with a matrix it is what the matrix alone reads by (the logarithms of its
rows' shares, ``KnowledgeMatrix.expression_scores``). Both are as strong as scikit-learn's default. So labels move the
classifier away from the matrix as far as they say otherwise, and the more of them there are, the less it matters.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from ..errors import InputError
from ..evaluation import SEED, limits
from ..facs import EXPRESSIONS, INTENSITY_INDEX
from ..knowledge import KnowledgeMatrix, control_matrix
from ..openface import INTENSITY_COLUMNS

#: most choices of the labelled people for each number of them
DRAWS = 24
#: whose mean is what
PRIORS = {"none": "no prior", "figure": "Fig. 4", "shuffled": "Fig. 4, AUs shuffled", "other": "another set's matrix"}


def fit(values: np.ndarray, expressions: np.ndarray, prior: np.ndarray | None = None, penalty: float = 1.0):
    """Weights and biases of multinomial logistic regression with a Gaussian prior.

    Args:
        values: (n, 17) intensities. expressions: (n,) index in ``EXPRESSIONS``; not all of them need to be there.
        prior: (7, 17) mean of the weights, per unit of intensity; ``None``: zero.
        penalty: of the squared distance from it, weights taken per standard deviation of the training clips.

    Returns:
        A function from intensities (m, 17) to logits (m, 7).
    """
    middle, spread = values.mean(0), np.where(values.std(0) > 0, values.std(0), 1.0)
    centre = np.zeros((len(EXPRESSIONS), values.shape[1])) if prior is None else prior * spread
    x, truth = (values - middle) / spread, np.eye(len(EXPRESSIONS))[expressions]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[: centre.size].reshape(centre.shape), flat[centre.size :]
        logits = x @ weights.T + bias
        logits -= logits.max(1, keepdims=True)
        log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        wrong = np.exp(log_share) - truth
        # biases have no prior but must not run away where a class has no clip
        value = -(truth * log_share).sum() + penalty / 2 * ((weights - centre) ** 2).sum() + 1e-2 * (bias**2).sum()
        slope = wrong.T @ x + penalty * (weights - centre)
        return value, np.concatenate([slope.ravel(), wrong.sum(0) + 2e-2 * bias])

    start = np.concatenate([centre.ravel(), np.zeros(len(EXPRESSIONS))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    weights, bias = found[: centre.size].reshape(centre.shape), found[centre.size :]
    return lambda some: (some - middle) / spread @ weights.T + bias


def prior_weights(matrix: KnowledgeMatrix) -> np.ndarray:
    """(7, 17) what a matrix alone reads intensities by; every AU's mean over the expressions is 0."""
    weights = np.log(matrix.values / matrix.values.sum(axis=1, keepdims=True))[:, list(INTENSITY_INDEX)]
    return weights - weights.mean(axis=0)


def few_labels(
    frames: pd.DataFrame, people: pd.Series, other: KnowledgeMatrix | None = None, draws: int = DRAWS
) -> pd.DataFrame:
    """Mean recall on people without labels, by how many people have some and what is known beforehand.

    Args:
        frames: a row per frame: clip_id, expression (-1 is left out), 17 intensities.
        people: clip_id -> person.
        other: another set's matrix; ``None`` = none. Its clips should be of other people.
        draws: choices of labelled people for each number of them; all there are if that is fewer.

    Returns:
        One row per number of labelled people and prior of ``PRIORS``: labelled, prior, uar (mean over draws, percent),
        low, high (95 % of the draws, in which other people are labelled and judged), better (draws in which it is above
        no prior), draws, clips (judged in a draw, mean), people.

    Raises:
        InputError: fewer than two people, or a clip without one.
    """
    known = frames[frames["expression"] >= 0]
    grouped = known.groupby("clip_id", sort=False)
    values = grouped[list(INTENSITY_COLUMNS)].mean().fillna(0.0)
    truth, whose = grouped["expression"].first().to_numpy(), people.reindex(values.index).to_numpy()
    names = pd.unique(whose)
    if len(names) < 2 or pd.isna(whose).any() or (whose == "").any():
        expected = "two people or more, and a person for every clip (column subject or actor of labels.csv)"
        raise InputError("few labels", "people", f"{len(names)}, perhaps unknown", expected)
    figure, values, rows = KnowledgeMatrix.published(), values.to_numpy(np.float64), []
    for count in range(1, len(names)):
        for draw, labelled in enumerate(_choices(names, count, draws)):
            train = np.isin(whose, labelled)
            shuffled = control_matrix("shuffled-aus", figure, draw)
            for prior, matrix in {"none": None, "figure": figure, "shuffled": shuffled, "other": other}.items():
                if matrix is None and prior != "none":
                    continue
                read = fit(values[train], truth[train], None if matrix is None else prior_weights(matrix))
                right = read(values[~train]).argmax(1) == truth[~train]
                uar = 100 * pd.Series(right).groupby(truth[~train]).mean().mean()
                rows.append({"labelled": count, "prior": prior, "draw": draw, "uar": uar, "clips": len(right)})
    table, out = pd.DataFrame(rows), []
    base = table[table["prior"] == "none"].set_index(["labelled", "draw"])["uar"]
    for (count, prior), part in table.groupby(["labelled", "prior"], sort=False):
        low, high = limits(part["uar"].to_numpy())
        above = part.set_index(["labelled", "draw"])["uar"] > base.loc[[count]]
        row = {"labelled": count, "prior": prior, "uar": part["uar"].mean(), "low": low, "high": high}
        row |= {"better": int(above.sum()), "draws": len(part), "clips": part["clips"].mean(), "people": len(names)}
        out.append(row)
    return pd.DataFrame(out)


def _choices(names: np.ndarray, count: int, draws: int) -> list[np.ndarray]:
    """Different choices of so many people: all of them, or ``draws`` at random, the same ones every time."""
    from itertools import combinations
    from math import comb

    if comb(len(names), count) <= draws:
        return [np.array(some) for some in combinations(names, count)]
    generator, chosen = np.random.default_rng([SEED, count]), {}
    while len(chosen) < draws:
        some = np.sort(generator.choice(len(names), count, replace=False))
        chosen[tuple(some)] = names[some]
    return list(chosen.values())
