"""Looking at AU tables before anything is built on them: coverage, presence rates, agreement of two extractors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import InputError
from ..evaluation import (
    SEED,
    bootstrap,
    equal_shares,
    intensity_agreement,
    limits,
    ratio,
    wilson_interval,
)
from ..facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from ..openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from .table import AUTable

DRAWS = 1000


@dataclass(frozen=True)
class AUClips:
    """AU tables of one set of clips, with what is known of the clips.

    Attributes:
        name: the set, for captions. stem: what file names begin with.
        first, second: the tables of two extractors; ``second`` is ``None`` where there is no other extractor.
        clips: clip_id, expression (index in ``EXPRESSIONS``, -1 outside the seven), subject ("" unknown).
        caption: what every table and figure must say about its input.
        remark: how the set was chosen, a sentence.
        extractors: what measured ``first`` and ``second``, for legends.
    """

    name: str
    stem: str
    first: AUTable
    second: AUTable | None
    clips: pd.DataFrame
    caption: str
    remark: str
    extractors: tuple[str, str] = ("first", "second")

    @property
    def unit(self) -> str:
        """What intervals are over: people ("subject") of real clips where they are known, else clips ("clip_id")."""
        return "subject" if self.stem and self.people > 1 else "clip_id"

    @property
    def over(self) -> str:
        """``unit`` in words."""
        return f"{self.people} people" if self.unit == "subject" else "clips"

    @property
    def people(self) -> int:
        """Subjects of the clips of the seven expressions; 0 where not every clip has one."""
        subjects = self.clips.loc[self.clips["expression"] >= 0, "subject"]
        return 0 if (subjects == "").any() else subjects.nunique()

    def __repr__(self) -> str:
        seven = self.clips[self.clips["expression"] >= 0]
        return (
            f"{self.remark}\n{self.name}: {len(self.clips)} clips, {len(seven)} of the seven expressions, "
            f"{self.people or 'unknown'} people, {len(self.first.frames)} frames; AUs: {self.extractors[0]}"
            + (f" and {self.extractors[1]}" if self.second is not None else "")
        )


# ---------------------------------------------------------------------------------------------------------- coverage


def coverage(table: AUTable) -> pd.DataFrame:
    """How much of each clip an extractor could read.

    Returns:
        One row per clip in the table's order: clip_id, frames, failed (frames without a tracked face), unknown (frames
        of which at least one AU is not known: failed ones and their smoothed neighbours), longest_gap (frames in a row
        that are unknown).
    """
    frames = table.frames
    unknown = frames[[*INTENSITY_COLUMNS, *PRESENCE_COLUMNS]].isna().any(axis=1).to_numpy() | ~frames["ok"].to_numpy()
    clip = frames["clip_id"].to_numpy()
    # a run of unknown frames ends where a frame is known or the clip does
    new_run = np.r_[True, (unknown[1:] != unknown[:-1]) | (clip[1:] != clip[:-1])] if len(frames) else np.zeros(0, bool)
    run = np.cumsum(new_run)
    length = np.bincount(run, minlength=run.max(initial=0) + 1)[run] * unknown
    data = pd.DataFrame(
        {"clip_id": clip, "frames": 1, "failed": ~frames["ok"].to_numpy(), "unknown": unknown, "longest_gap": length}
    )
    return (
        data.groupby("clip_id", sort=False)
        .agg({"frames": "sum", "failed": "sum", "unknown": "sum", "longest_gap": "max"})
        .astype(np.int64)
        .reset_index()
    )


def coverage_by_expression(table: AUTable, clips: pd.DataFrame) -> pd.DataFrame:
    """Coverage summed up, one row per expression that has clips, "other" for those outside the seven, and "all".

    Returns:
        Columns expression, clips, frames, shortest (clip, frames), median (clip, frames), failed (%), unknown (%),
        clips half unknown (number of clips of which at least half of the frames are unknown), longest gap (frames), not
        in the table (clips).
    """
    data = clips[["clip_id", "expression"]].merge(coverage(table), on="clip_id", how="left")
    names = [*EXPRESSIONS, "other"]
    data["expression"] = [names[k] for k in data["expression"]]  # -1 is the last
    rows = []
    for name in [*names, "all"]:
        every = data if name == "all" else data[data["expression"] == name]
        part = every.dropna(subset="frames")
        if every.empty:
            continue
        total = part["frames"].sum()
        rows.append(
            {
                "expression": name,
                "clips": len(every),
                "frames": int(total),
                "shortest": part["frames"].min(),
                "median": part["frames"].median(),
                "failed (%)": 100 * part["failed"].sum() / max(1, total),
                "unknown (%)": 100 * part["unknown"].sum() / max(1, total),
                "clips half unknown": int((2 * part["unknown"] >= part["frames"]).sum()),
                "longest gap": part["longest_gap"].max(),
                "not in the table": len(every) - len(part),
            }
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(("shortest", "longest gap"), "Int64"))


# ---------------------------------------------------------------------------------------------------- presence rates


def presence_rates_with_intervals(
    table: AUTable, clips: pd.DataFrame, name: str = "", draws: int = DRAWS, unit: str = "clip_id"
) -> pd.DataFrame:
    """Percent of frames in which an AU is present, by expression, with 95 % intervals.

    Frames of a clip resemble each other, so whole clips are drawn again (bootstrap), or with ``unit`` "subject" whole
    people. Where all of them agree (an AU that is never, or always, there) the bootstrap sees no uncertainty: there the
    interval is Wilson's for as many observations as there are clips or people.

    Returns:
        One row per expression with clips and AU: source, expression, action_unit, value, low, high (percent; NaN
        where unknown), clips, frames (with the AU known).
    """
    labels = clips.set_index("clip_id")["expression"]
    frames = table.frames[["clip_id", *PRESENCE_COLUMNS]]
    counts = frames.groupby("clip_id", sort=False)[list(PRESENCE_COLUMNS)].agg(["sum", "count"])
    generator = np.random.default_rng(SEED)
    parts = []
    for index, expression in enumerate(EXPRESSIONS):
        mine = counts[counts.index.map(labels).to_numpy() == index]
        if mine.empty:
            continue
        clip_count = (mine.xs("count", axis=1, level=1).to_numpy() > 0).sum(0)
        if unit != "clip_id":
            mine = mine.groupby(clips.set_index("clip_id")[unit].reindex(mine.index).to_numpy()).sum()
        present, known = (mine.xs(kind, axis=1, level=1).to_numpy(np.float64) for kind in ("sum", "count"))
        by_clip, shares = np.stack([present, known], axis=1), equal_shares(len(mine))
        low, high = limits(
            bootstrap(lambda sums: ratio(sums[:, 0], sums[:, 1]), by_clip, draws, generator, shares=shares)
        )
        value = ratio(present.sum(0), known.sum(0))
        count = (known > 0).sum(0)
        by_clips = wilson_interval(value * count, count)
        flat = low == high
        parts.append(
            pd.DataFrame(
                {
                    "source": name,
                    "expression": expression,
                    "action_unit": ACTION_UNITS,
                    "value": 100 * value,
                    "low": 100 * np.where(flat, by_clips[0], low),
                    "high": 100 * np.where(flat, by_clips[1], high),
                    "clips": clip_count,
                    "frames": known.sum(0).astype(np.int64),
                }
            )
        )
    if not parts:
        raise InputError("presence rates", "clips", "none with one of the seven expressions", "at least one")
    return pd.concat(parts, ignore_index=True)


# --------------------------------------------------------------------------------------------------------- agreement


def extractor_agreement(
    first: AUTable, second: AUTable, draws: int = DRAWS, units: pd.Series | None = None
) -> pd.DataFrame:
    """How far two extractors agree on the frames that both have; intervals: bootstrap over clips, or over ``units``
    (clip_id -> whose it is).

    Frames are matched by clip and frame number, so both tables must count frames alike.

    Returns:
        One row per AU, ``ACTION_UNITS`` order: action_unit; kappa (Cohen's, of presence), f1 (of presence; the same
        whichever is called the truth), intensity_r (Pearson), each with _low and _high (95 %); icc (ICC(3,1),
        consistency), difference (second minus first, mean intensity); rate_first, rate_second (percent of frames
        present), frames, clips (with presence known to both). NaN where undefined: intensity of AU28, an AU that
        neither finds, constant intensities.

    Raises:
        InputError: the tables share no frame.
    """
    both = first.frames.merge(second.frames, on=["clip_id", "frame"], suffixes=("", " 2"))
    if both.empty:
        shared = len(set(first.clip_ids()) & set(second.clip_ids()))
        raise InputError(
            "agreement of two extractors",
            "frames",
            f"none in common ({shared} clips have the same name)",
            "tables of the same clips whose frames are numbered alike",
        )
    clip, names = pd.factorize(both["clip_id"] if units is None else both["clip_id"].map(units))
    shares = equal_shares(len(names))
    first_present, second_present, first_strength, second_strength = (
        both[[f"{column}{end}" for column in columns]].to_numpy(float)
        for columns in (PRESENCE_COLUMNS, INTENSITY_COLUMNS)
        for end in ("", " 2")
    )
    known = ~np.isnan(first_present) & ~np.isnan(second_present)
    a, b = first_present > 0.5, second_present > 0.5
    # frames of each clip: both, first only, second only, neither; a resampled coefficient needs only their sums
    kinds = np.stack([known & a & b, known & a & ~b, known & ~a & b, known & ~a & ~b], axis=-1)
    cells = np.zeros((len(names), *kinds.shape[1:]))
    np.add.at(cells, clip, kinds)
    whole = cells.sum(axis=0)
    total = whole.sum(axis=-1)
    table = pd.DataFrame({"action_unit": ACTION_UNITS})
    for name, coefficient in (("kappa", _kappa), ("f1", _f1)):
        table[name] = coefficient(whole)
        table[f"{name}_low"], table[f"{name}_high"] = limits(bootstrap(coefficient, cells, draws, shares=shares))
    strength = intensity_agreement(first_strength, second_strength, clip, draws, shares=shares)
    columns = ["intensity_r", "intensity_r_low", "intensity_r_high", "icc", "difference"]
    table = table.merge(strength[columns].assign(action_unit=INTENSITY_ACTION_UNITS), how="left", on="action_unit")
    return table.assign(
        rate_first=100 * ratio(whole[:, 0] + whole[:, 1], total),
        rate_second=100 * ratio(whole[:, 0] + whole[:, 2], total),
        frames=total.astype(np.int64),
        clips=(cells.sum(axis=-1) > 0).sum(axis=0),
    )


def _kappa(cells: np.ndarray) -> np.ndarray:
    both, first, second, neither = np.moveaxis(cells, -1, 0)
    total = cells.sum(-1)
    seen = ratio(both + neither, total)
    chance = ratio((both + first) * (both + second) + (neither + first) * (neither + second), total**2)
    return ratio(seen - chance, 1 - chance)


def _f1(cells: np.ndarray) -> np.ndarray:
    both, first, second, _ = np.moveaxis(cells, -1, 0)
    return ratio(2 * both, 2 * both + first + second)
