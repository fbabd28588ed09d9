"""What the tables of Lock and Check share: judged networks, their numbers as text, and the sentences of captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps

import numpy as np
import pandas as pd

from ...evaluation import presence_counts
from ...facs import ACTION_UNIT_NAMES, ACTION_UNITS
from ...results.builder import output
from ...results.rows import text
from .. import study as recognition
from ..training import COMPONENTS

NOTEBOOK = "A3_lock_and_check"
#: names of the networks that are compared, with their colours
ESTIMATOR, BASELINE, LAC, LONGER = "estimator", "LAC's baseline", "LAC", "LAC, trained longer"
NETWORK_COLOURS: dict[str, str] = {ESTIMATOR: "#7A7A7A", BASELINE: "#E69F00", LAC: "#0072B2", LONGER: "#56B4E9"}
MEAN = "mean"
PAIRED = (
    "Differences: paired over subjects (same bootstrap draws); p: approximate randomisation over subjects, "
    "Holm's correction over"
)
THRESHOLDS = (
    "Each AU is present from a threshold on that calls as many frames present as were coded so, set on subjects that "
    "are neither trained on nor judged here."
)


@dataclass(frozen=True)
class Judged:
    """What a network says about frames of people it has not seen, beside their codes.

    Attributes:
        name: of the network. labels: (n, 18) 0, 1 or NaN. presence: (S, n, 18) 0 or 1, one per seed. subjects: (n,).
        codes: (n, 18) FACS codes 0 to 5, NaN = not coded; ``None`` where there are no codes.
        intensity: (S, n, 17) 0 to 5; ``None`` without.
        records: what it comes from.
    """

    name: str
    labels: np.ndarray
    presence: np.ndarray
    subjects: np.ndarray
    codes: np.ndarray | None = None
    intensity: np.ndarray | None = None
    records: Sequence = field(default=(), repr=False)

    @property
    def counts(self) -> np.ndarray:
        """Hits, false alarms and misses of each subject (``evaluation.presence_counts``)."""
        return presence_counts(self.labels, self.presence, self.subjects)

    @property
    def text(self) -> str:
        """What was judged, for captions."""
        seeds, subjects = len(self.presence), len(np.unique(self.subjects))
        return f"{len(self.labels):,} frames of {subjects} held-out subjects, {seeds} seed{'s' if seeds > 1 else ''}"


def faces_text(embedded: bool) -> str:
    """What faces our numbers are about."""
    return "Embedded benchmark (rendered faces)" if embedded else "Real faces"


def how(judged: Judged, embedded: bool, tests: str) -> str:
    """The part of a caption that says what our numbers are."""
    theirs = (
        "The paper's numbers were measured on real faces, of other networks and sizes: they stand beside ours for "
        "orientation and cannot be compared."
    )
    ours = f"{faces_text(embedded)}: {judged.text}, frame-based F1 in percent; [ ]: 95 % bootstrap over subjects."
    return f"{ours} {tests} {theirs if embedded else ''}"


def all_records(networks: Sequence[Judged]) -> list:
    """The records behind several networks."""
    return [record for network in networks for record in network.records]


# ---------------------------------------------------------------------------------------------------------- numbers
def value_text(row, name: str, ends: str = "", factor: float = 1, digits: int = 1, signed: bool = False) -> str:
    """A row's value with its interval, from columns ``name``, ``{ends}low`` and ``{ends}high``."""
    return text(*(factor * getattr(row, column) for column in (name, f"{ends}low", f"{ends}high")), digits, signed)


def rows_of_units(tidy: pd.DataFrame, columns: Callable[[str, dict], dict]) -> pd.DataFrame:
    """Numbers as text, one row per AU (or mean of AUs).

    Args:
        tidy: one row per network and AU.
        columns: the AU and its row of each network, by name -> heading -> text.
    """
    lines = []
    for unit, part in tidy.groupby("action_unit", sort=False):
        name = f"{unit} {ACTION_UNIT_NAMES[unit]}" if unit in ACTION_UNITS else unit
        lines.append({"AU": name} | columns(unit, {row.network: row for row in part.itertuples()}))
    return pd.DataFrame(lines)


# ------------------------------------------------------------------------------------------------------ from records
def annotated_output(name: str) -> Callable:
    """Register the function below as ``builder.output`` does; it is asked only where there are annotated frames."""

    def register(make: Callable) -> Callable:
        @output(name, NOTEBOOK, elsewhere=True)
        @wraps(make)
        def made(study) -> tuple:
            return make(study) if recognition.has_annotated_set(study) else ()

        return made

    return register


def judged_of(name: str, records: Sequence, rule: str = "calibrated", intensity: bool = False) -> Judged:
    """What one cell's records say: folds one after the other, seeds beside each other.

    Args:
        records: ``RecognitionRecord``s that differ by seed and fold only, each seed with the same folds.
        rule: of ``training.RULES``. intensity: whether intensities are wanted too.
    """
    seeds: dict[int, list] = {}
    for record in sorted(records, key=lambda record: record.cell["fold"]):
        seeds.setdefault(record.cell["seed"], []).append(record)
    order = list(dict.fromkeys(record.cell["seed"] for record in records))

    def joined(values: Callable, seed: int = order[0]) -> np.ndarray:
        return np.concatenate([values(record) for record in seeds[seed]])

    return Judged(
        name,
        joined(lambda record: record.labels),
        np.stack([joined(lambda record: record.presence(rule), seed) for seed in order]),
        joined(lambda record: record.subjects),
        joined(lambda record: record.codes),
        np.stack([joined(lambda record: record.intensity, seed) for seed in order]) if intensity else None,
        tuple(records),
    )


def row_records(study, output: str) -> list[list]:
    """The records of each row of one of ``study.OUTPUTS``."""
    records = recognition.records(study, output)
    each = len(recognition.folds(study)) * len(study.profile.training.seeds)
    return [records[k : k + each] for k in range(0, len(records), each)]


def components_records(study) -> dict[str, list]:
    """The records of each row of Table IV, by its name in ``COMPONENTS``."""
    return dict(zip(COMPONENTS, row_records(study, "lac_components"), strict=True))


def networks_of(study, intensity: bool = False) -> list[Judged]:
    """The estimator (where it can be judged: not where it has learned from some of the frames), LAC's baseline and LAC,
    trained alike, and the profile's recogniser where it is another.
    """
    rows = components_records(study)
    networks = [
        judged_of(BASELINE, rows["baseline"], intensity=intensity),
        judged_of(LAC, rows["LAC"], intensity=intensity),
    ]
    like = networks[0]
    final = recognition.final_record(study)
    if len(rows["LAC"]) == 1 and final.path != rows["LAC"][0].path:
        networks.append(judged_of(LONGER, [final], intensity=intensity))
    if recognition.folds(study) == (study.profile.estimator.held_out_fold,):
        values, presence = recognition.baseline_predictions(study, like.records[0].rows)
        networks.insert(0, Judged(ESTIMATOR, like.labels, presence[None], like.subjects, like.codes, values[None]))
    return networks


def settings_text(study, output: str) -> str:
    """What was trained, for captions."""
    cell = recognition.cells(study, output)[-1]
    starts = {"scratch": "", "estimator": ", from the estimator's weights"}
    return (
        f"Network “{cell.size}”{starts.get(cell.initialisation, ', from ImageNet weights')}: {cell.epochs} "
        f"epoch{'s' if cell.epochs > 1 else ''} of N_sep = {cell.segments} windows of t = {cell.window} a subject."
    )
