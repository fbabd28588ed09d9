"""What tables say, in sentences made from their numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..evaluation import LEVEL
from .builder import Result
from .rows import detectable_text, difference_text, p_text
from .selection import model_name


def answers(name: str, questions: Sequence[tuple[str, str]], title: str, *tables: Result) -> Result:
    """Questions and answers as a table.

    Args:
        title: how the caption begins.
        tables: that the answers are about.
    """
    frame = pd.DataFrame(questions, columns=["question", "answer"])
    caption = f"{title}. Sentences made from the numbers; “certain”: Holm-corrected p < {1 - LEVEL:.2f}."
    digests = tuple(sorted({digest for table in tables for digest in table.digests}))
    return Result(name, frame, caption, frame.rename(columns=str.capitalize), digests=digests)


def compared(table: pd.DataFrame, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a table that are compared with something; ``metrics``: of these alone."""
    rows = table[table["difference"].notna()]
    return rows[rows["metric"].isin(metrics)] if metrics else rows


def _verdicts(rows: pd.DataFrame) -> pd.Series:
    """ "gain", "loss" or "open" of each compared row."""
    sure = rows["p_holm"] < 1 - LEVEL
    signs = np.where(sure, np.sign(rows["difference"]), 0)
    return pd.Series(signs, index=rows.index).map({1: "gain", -1: "loss", 0: "open"})


def changes(rows: pd.DataFrame, what: str) -> str:
    """How many of the compared rows are certain gains or losses, which, and what is left open."""
    if not len(rows):
        return "nothing to compare yet."
    verdict, texts = _verdicts(rows), _row_texts(rows)
    number = verdict.value_counts().reindex(["gain", "loss", "open"], fill_value=0)
    if number["open"] == len(rows):
        if len(rows) <= 2:
            return f"no certain change. {'; '.join(texts)}."
        largest = texts[rows["difference"].abs().idxmax()]
        return f"no certain change. None of {len(rows)} {what} is certain; the largest is {largest}."
    parts = [counted(rows, what)]
    for name, heading in (("gain", "Gains"), ("loss", "Losses")):
        chosen = rows[verdict == name].sort_values("difference", ascending=name == "loss")
        if len(chosen):
            parts.append(f"{heading}: {'; '.join(texts[chosen.index])}.")
    if number["open"] == 1:
        parts.append(f"Open: {texts[verdict == 'open'].item()}.")
    elif number["open"]:
        rest = rows[verdict == "open"]["difference"]
        parts.append(f"Open: {number['open']}, from {rest.min():+.1f} to {rest.max():+.1f} points.")
    return " ".join(parts)


def counted(rows: pd.DataFrame, what: str) -> str:
    """How many of the compared rows are certain gains and losses."""
    number = _verdicts(rows).value_counts()
    counts = (
        f"{count} {f'is a certain {one}' if count == 1 else f'are certain {several}'}"
        for one, several in (("gain", "gains"), ("loss", "losses"))
        for count in [number.get(one, 0)]
    )
    return f"of {len(rows)} {what}, {' and '.join(counts)}."


def _row_texts(rows: pd.DataFrame) -> pd.Series:
    """Each difference in words; what is the same in all rows is not said."""
    several = {name for name in ("dataset", "model", "variant") if rows[name].nunique() > 1}

    def words(row) -> str:
        place = f"{model_name(row.model)} on {row.dataset}" if several & {"model", "dataset"} else ""
        name = " ".join(filter(None, [place, row.variant if "variant" in several else ""]))
        return f"{name + ', ' if name else ''}{row.metric} {difference_text(row)}, p {p_text(row.p_holm)}"

    return pd.Series([words(row) for row in rows.itertuples()], index=rows.index)


def pairs(rows: pd.DataFrame) -> str:
    """How many pairs of network and dataset gain or lose anything."""
    verdicts = rows.assign(verdict=_verdicts(rows)).groupby(["dataset", "model"])["verdict"].agg(set)
    gain, loss = (sum(name in some for some in verdicts) for name in ("gain", "loss"))
    return f"{gain} of {len(verdicts)} pairs gain for certain in WAR or UAR, {loss} lose for certain."


def certainty(rows: pd.DataFrame) -> str:
    """What could have been seen, and what a repetition would add."""
    if not len(rows):
        return "Not at all: no pair of records to compare."
    seeds = sorted(set(rows["seeds"].astype(int)))
    about = f"{'/'.join(map(str, seeds))} seeds: the tests cover training again as well."
    if seeds == [1]:
        about = (
            "One seed a network: this is about these trained networks; training again can turn open differences round."
        )
    return " ".join(filter(None, [detectable_text(rows), "“Open” means not shown, not absent.", about]))
