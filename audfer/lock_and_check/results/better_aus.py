"""What better action units do for AU-DFER."""

from __future__ import annotations

import pandas as pd

from ...results.builder import Result
from ...results.rows import p_text
from ...results.selection import model_name
from .. import study as recognition
from .judged import annotated_output, value_text


def better_aus_table(data: pd.DataFrame, about: str = "", more: str = "") -> Result:
    """What better AUs do for AU-DFER.

    Args:
        data: from ``study.better_aus``. about: which network on which clips, for the caption. more: its last sentence.
    """
    display = []
    for row in data.itertuples():
        line = {
            "AUs from": row.source,
            "knowledge, rank correlation [95 %]": value_text(row, "recovery", "recovery_", digits=2),
        }
        for metric in ("war", "uar"):
            name, gain = metric.upper(), f"{metric}_gain"
            line[f"{name} [95 %]"] = value_text(row, metric, f"{metric}_", 100)
            line[f"Δ {name} [95 %]"] = value_text(row, gain, f"{gain}_", 100, signed=True)
            line[f"p {name}"] = p_text(getattr(row, f"{metric}_p_holm"))
        display.append(line)
    caption = (
        "What better action units do for AU-DFER: rank correlation of the knowledge matrix with what was planted "
        f"(intervals: bootstrap over clips), and accuracy{about}, with AUs of the estimator (“baseline”), of LAC, and "
        "as planted. Δ: against the baseline's AUs, paired by clip; p: Holm's correction over the "
        f"column.{more and f' {more}'}"
    )
    records = tuple(sorted(data.attrs.get("records", ())))
    return Result("a3_better_aus", data, caption, pd.DataFrame(display), digests=records)


@annotated_output("a3_better_aus")
def better_aus(study) -> tuple[Result, ...]:
    """Knowledge recovery and accuracy with AUs of the estimator, of LAC and as planted.

    The embedded benchmark's alone.
    """
    if not study.profile.embedded:
        return ()
    grid, seeds = study.profile.grid, len(study.profile.training.seeds)
    counted = f"test clips, {seeds} seed{'s' if seeds > 1 else ''}"
    about = f" of {model_name(grid.ratio_model)} on {grid.strategy_dataset} ({counted})"
    return (better_aus_table(recognition.better_aus(study), about, study.caption),)
