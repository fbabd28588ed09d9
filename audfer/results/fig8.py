"""Fig. 8: t-SNE of the test clips' features: without AU, AU head without knowledge weights, AU-DFER."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..evaluation import bootstrap, limits
from ..facs import EXPRESSIONS
from .builder import Result, digests_of, output
from .drawing import BY_EXPRESSION, EXPRESSION_COLOURS, EXPRESSION_MARKERS, empty, legend_below, mark
from .rows import text
from .selection import WITHOUT, au_records, baseline_records, has_head, select

PANELS = (WITHOUT, "AU head without knowledge", "AU-DFER")
NEIGHBOURS = 10
_COLUMNS = ("variant", "clip_id", "expression", "x", "y", "purity", "low", "high", "chance", "silhouette", "neighbours")


def cells(study) -> list:
    """One network on the strategy dataset: alone, with an AU head without knowledge, and AU-DFER; the first seed."""
    model, place, ratio = (getattr(study.profile.grid, key) for key in ("ratio_model", "strategy_dataset", "au_ratio"))
    return [
        study.cell(model, place),
        study.cell(model, place, ratio, weights="none"),
        study.cell(model, place, ratio),
    ]


@output("fig8", "05_visualisations", cells=cells)
def fig8(study, records) -> Result:
    """Fig. 8."""
    model, place = study.profile.grid.ratio_model, study.profile.grid.strategy_dataset
    caption = f"Fig. 8. t-SNE of the test features on {place}; the numbers are taken in feature space. {study.caption}"
    data = embedding_data(records, model, place)
    return Result("fig8_tsne", data, caption, draw=draw, digests=digests_of(records))


def embedding_data(records: Sequence, model: str, dataset: str) -> pd.DataFrame:
    """Where each test clip lies, and how well the features separate the expressions.

    t-SNE (perplexity 30 or a third of the clips, PCA start, fixed seed, one thread, so the picture is repeatable) is
    for looking; the two numbers are taken in the feature space itself, each feature standardised: ``purity``, the
    share of a clip's 10 nearest neighbours that have its expression (percent; ``chance`` is what random
    neighbours would give; ``low`` and ``high``: 95 % by bootstrap of clips, each with its neighbours), and
    ``silhouette`` (-1 to 1). Of several seeds the first is shown.

    Returns:
        Columns variant, clip_id, expression, x, y, purity, low, high, chance, silhouette, neighbours.
    """
    variants = (
        baseline_records(records, model, dataset),
        select(records, model=model, dataset=dataset, au_ratio=has_head, weights="none"),
        au_records(records, model, dataset),
    )
    parts = []
    for variant, cell in zip(PANELS, variants, strict=True):
        if not cell or cell[0].features is None:  # records travel without features
            continue
        record = cell[0]
        features, expressions = np.asarray(record.features, float), np.asarray(record.expressions)
        spread = features.std(axis=0)
        features = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
        purity, ends, silhouette, neighbours = cluster_scores(features, expressions)
        sizes = np.bincount(expressions)
        chance = 100 * float((sizes * (sizes - 1)).sum() / max(1, len(expressions) * (len(expressions) - 1)))
        names, (x, y) = [EXPRESSIONS[k] for k in expressions], _tsne(features).T
        values = (variant, list(record.clip_ids), names, x, y, purity, *ends, chance, silhouette, neighbours)
        parts.append(pd.DataFrame(dict(zip(_COLUMNS, values, strict=True))))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_COLUMNS))


def cluster_scores(features, expressions) -> tuple[float, np.ndarray, float, int]:
    """How well features separate expressions: (neighbour purity in percent, its limits, silhouette, neighbours used).

    Args:
        features: ``(N, D)``; expressions: ``(N,)``. NaN where there are too few clips or classes.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    features, expressions = np.asarray(features, float), np.asarray(expressions)
    neighbours = min(NEIGHBOURS, len(features) - 1)
    if neighbours < 1:
        return float("nan"), np.full(2, np.nan), float("nan"), 0
    # kneighbors without an argument leaves each point itself out
    index = NearestNeighbors(n_neighbors=neighbours).fit(features).kneighbors(return_distance=False)
    shares = 100 * np.mean(expressions[index] == expressions[:, None], axis=1)
    ends = limits(bootstrap(lambda sums: sums / len(shares), shares))
    classes = len(np.unique(expressions))
    silhouette = float(silhouette_score(features, expressions)) if 1 < classes < len(features) else float("nan")
    return float(shares.mean()), ends, silhouette, neighbours


def _tsne(features: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(features) < 3:
        return np.zeros((len(features), 2))
    perplexity = min(30, (len(features) - 1) / 3)
    with threadpool_limits(1):  # sums in one order, so that the picture does not depend on the number of cores
        return TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


def draw(data: pd.DataFrame, variants: Sequence[str] = PANELS) -> Figure:
    """A panel per variant, with the two separation numbers below."""
    figure, grid = plt.subplots(1, len(variants), figsize=(3.2 * len(variants), 4.1))
    for letter, axes, variant in zip("abc", grid, variants, strict=False):
        part = data[data["variant"] == variant]
        axes.set_title(f"({letter}) {variant}")
        if part.empty:
            empty(axes, "no record")
            continue
        dots = {"s": 20, "alpha": 0.8, "linewidth": 0, "legend": False, "rasterized": len(part) > 1000}
        sns.scatterplot(part, x="x", y="y", ax=axes, **dots, **BY_EXPRESSION)
        first = part.iloc[0]
        axes.set_xlabel(
            f"{first['neighbours']:.0f}-neighbour purity (%) {text(*first.reindex(['purity', 'low', 'high']))}\n"
            f"chance {first['chance']:.1f} %, silhouette {first['silhouette']:+.3f}"
        )
        axes.set_ylabel("")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.set_box_aspect(1)
    handles = [mark(name, marker=EXPRESSION_MARKERS[name], color=EXPRESSION_COLOURS[name]) for name in EXPRESSIONS]
    legend_below(figure, handles, columnspacing=1.2, handletextpad=0.2)
    return figure
