"""Section 3.1 on a study's datasets: frames, matrices, what was planted. Methods of ``Study``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..knowledge import KnowledgeMatrix, control_matrix
from ..openface import INTENSITY_COLUMNS


def knowledge_frames(
    study, with_scores: bool = False, fold: int = 0, names: tuple[str, ...] = (), source: str = ""
) -> pd.DataFrame:
    """One row per frame of the four knowledge datasets (section 3.1): dataset, clip_id, expression, 17 intensities.

    Test clips of the evaluation sets are left out, so that nothing of them enters a loss; the paper does not say.

    Args:
        with_scores: adds ``score``, M3DFEL's probability of the frame's label, for the filter of Eq. 3.
        fold: whose test clips are left out, in datasets that have folds; 0 = the profile's first.
        names: other datasets than the profile's four.
        source: of the action units, as in ``au_table``.
    """
    parts = []
    columns = ["clip_id", "frame", "expression", *INTENSITY_COLUMNS, "dataset"]
    for name in names or study.profile.grid.knowledge_datasets:
        clips = study.manifest(name, fold if fold in study.folds(name) else 0).table
        if name in study.profile.grid.datasets:
            clips = clips[clips["split"] == "train"]
        frames = study.labelled(name, source)
        frames = frames.loc[frames["clip_id"].isin(clips["clip_id"]), columns]
        if with_scores:
            frames = frames.merge(study.frame_scores(name), on=["clip_id", "frame"], how="left")
        parts.append(frames)
    return pd.concat(parts, ignore_index=True)


def knowledge(
    study,
    variant: str = "",
    theta: float = 0.0,
    au28: str = "grand_mean",
    fold: int = 0,
    names: tuple[str, ...] = (),
    source: str = "",
    scaled: bool = False,
) -> KnowledgeMatrix:
    """The knowledge matrix; ``variant`` "" takes the profile's. With theta > 0 frames are filtered by Eq. 3.

    An expression of which a dataset has no frame borrows the other datasets' row (noted in ``settings["filled"]``).
    ``fold``, ``names`` and ``source`` as in ``knowledge_frames``; ``scaled`` as in ``KnowledgeMatrix.from_frames``.
    """
    frames = study.knowledge_frames(theta > 0, fold, names, source)
    variant = variant or study.profile.grid.knowledge
    return KnowledgeMatrix.from_frames(frames, variant=variant, theta=theta, au28=au28, missing="others", scaled=scaled)


def weight_matrix(study, weights: str, dataset: str, fold: int = 0, seed: int = 0, source: str = "") -> KnowledgeMatrix:
    """The matrix that a name of ``knowledge.WEIGHTS`` other than "none" stands for, on a fold of a dataset, from AUs of
    ``source`` (as in ``au_table``).
    """
    if weights == "train-only":
        return study.knowledge(fold=fold, names=(dataset,), source=source)
    # another fold's test clips matter only if the knowledge comes from that dataset too
    fold = fold if dataset in study.profile.grid.knowledge_datasets else 0
    return control_matrix(weights, study.knowledge(fold=fold, source=source), seed)


def planted_medians(study) -> np.ndarray:
    """(7, 17) medians of the planted intensities over the same frames as the knowledge matrix, summed over the sets.

    For judging only: nothing of it goes back into the chain.

    Raises:
        AudferError: the profile has real data, of which no truth is known.
    """
    medians = []
    for name in study.profile.grid.knowledge_datasets:
        truth = study.truth(name)
        seen = truth["split"] == "train" if name in study.profile.grid.datasets else True
        truth = truth[(truth["expression"] >= 0) & seen]
        medians.append(truth.groupby("expression")[list(INTENSITY_COLUMNS)].median().reindex(range(7)).to_numpy())
    # a dataset without an expression does not count for it, as in the matrix
    return np.nanmean(medians, axis=0) * len(medians)
