"""The steps of section 3.1 and what hangs on them: medians, sum, recovery of what was planted, readings, theta."""

from __future__ import annotations

from functools import partial

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from ..evaluation import intensity_agreement
from ..evaluation.matrices import matrices, matrix, measured
from ..study.action_units import clips_with_aus
from ..study.outputs import NotShown
from .builder import Result, output
from .drawing import BY_EXPRESSION, heatmap, matrices_by_source, rendered
from .rows import text


@output("knowledge_by_dataset", "02_knowledge_matrix", elsewhere=True)
def knowledge_by_dataset(study) -> Result:
    """The medians in each dataset."""
    covered = clips_with_aus(study, study.profile.grid.knowledge_datasets)
    caption = f"Median AU intensity of the frames of each expression, zeros interpolated. {study.caption}{covered}"
    draw = partial(matrices_by_source, label="median intensity (0 to 5)", digits=2, remark=rendered(study))
    return Result("knowledge_by_dataset", matrices(_knowledge(study).medians), caption, draw=draw)


def _knowledge(study):
    return study.once("knowledge", study.knowledge)


@output("knowledge_sum", "02_knowledge_matrix", elsewhere=True)
def knowledge_sum(study) -> Result:
    """The matrix S before the last step."""
    knowledge = _knowledge(study)
    caption = f"S of section 3.1 ({knowledge.variant} reading). {study.caption}"
    draw = partial(heatmap, title="S: sum over the four datasets", label="S (before the last sigmoid)")
    return Result("knowledge_sum", matrix(knowledge.sum, "sum"), caption, draw=draw)


@output("knowledge_recovery", "02_knowledge_matrix", elsewhere=True)
def knowledge_recovery(study) -> Result | NotShown:
    """Was the planted knowledge recovered? Nothing for real clips, in which nothing was planted."""
    if not study.profile.embedded:
        return NotShown("Nothing was planted in real clips.")
    data = recovery_data(study.planted_medians(), _knowledge(study).values)
    caption = (
        "Planted median intensities against the recovered knowledge matrix; the interval draws whole action units. "
        + study.caption
    )
    return Result("knowledge_recovery", data, caption, draw=draw_recovery)


def recovery_data(planted, recovered) -> pd.DataFrame:
    """Planted against recovered values, ``(7, 17)`` or ``(7, 18)`` each; AU28 is left out.

    Returns:
        One row per cell: expression, action_unit, planted, recovered.
    """
    data = matrix(measured(planted), column="planted").drop(columns="source")
    return data.assign(recovered=measured(recovered).ravel())


def recovered(data: pd.DataFrame) -> str:
    """Spearman's rank correlation over all cells of ``recovery_data`` with its 95 % interval: whole AUs drawn again."""
    known = data.dropna(subset=["planted", "recovered"])
    ranks = (known[[name]].rank().to_numpy() for name in ("planted", "recovered"))
    found = intensity_agreement(*ranks, known["action_unit"]).iloc[0]
    return text(found["intensity_r"], found["intensity_r_low"], found["intensity_r_high"], 2)


def draw_recovery(data: pd.DataFrame) -> Axes:
    """A mark per cell of the matrix, with the rank correlation over all cells."""
    axes, known = plt.subplots(figsize=(5.4, 4.4))[1], data.dropna(subset=["planted", "recovered"])
    sns.scatterplot(known, x="planted", y="recovered", s=42, linewidth=0.4, ax=axes, **BY_EXPRESSION)
    axes.set_title(f"rank correlation {recovered(known)} ({len(known)} cells)" if len(known) > 2 else "")
    axes.set(xlabel="planted median intensity, summed over the sets", ylabel="recovered knowledge (0 to 1)")
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes


@output("knowledge_variants", "02_knowledge_matrix", elsewhere=True)
def knowledge_variants(study) -> Result:
    """How much hangs on the readings."""
    caption = (
        "Readings of section 3.1: rank correlation with the profile's matrix, with Fig. 4 and with the planted truth. "
        + study.caption
    )
    return Result("knowledge_variants", study.knowledge_variants(), caption)


@output("knowledge_theta", "02_knowledge_matrix", elsewhere=True)
def knowledge_theta(study) -> Result:
    """What the filter of Eq. 3 does."""
    return Result("knowledge_theta", study.theta_grid(), f"Threshold theta of Eq. 3. {study.caption}")
