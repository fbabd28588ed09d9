"""Ablations that the paper leaves out: is it the knowledge that helps, or would any auxiliary AU task do?

Each is the AU-DFER cell with one thing changed. What the matrices and readings are: ``knowledge.WEIGHTS``,
``losses.READINGS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: the network alone
NO_HEAD = "without AU"
#: the AU head without knowledge, which every other variant is compared with
PLAIN_BCE = "plain BCE"
KNOWLEDGE = "knowledge"


@dataclass(frozen=True)
class Ablation:
    """One variant.

    Attributes:
        fields: of ``training.Cell`` (and ``Study.cell``), what differs from AU-DFER.
        summary: what it is, one sentence.
    """

    fields: dict[str, str]
    summary: str


ABLATIONS: dict[str, Ablation] = {
    NO_HEAD: Ablation({}, "the network alone"),
    PLAIN_BCE: Ablation({"weights": "none"}, "AU head, no matrix; positive weights as the strategy says"),
    "plain BCE, no positive weights": Ablation(
        {"weights": "none", "strategy": "plain"}, "AU head, no weights of any kind"
    ),
    "uniform": Ablation(
        {"weights": "uniform"}, "the matrix's mean everywhere: the same scale of the AU loss, no knowledge"
    ),
    "shuffled AUs": Ablation({"weights": "shuffled-aus"}, "each AU has another AU's weights"),
    "shuffled expressions": Ablation(
        {"weights": "shuffled-expressions"}, "each expression has another expression's weights"
    ),
    KNOWLEDGE: Ablation({"weights": "knowledge"}, "AU-DFER"),
    "own training split": Ablation({"weights": "train-only"}, "the matrix of this dataset's training clips alone"),
    "Fig. 4": Ablation({"weights": "figure4"}, "the paper's printed matrix"),
    "release's K2": Ablation({"weights": "release"}, "the released code's matrix"),
    "SSM's prior": Ablation({"weights": "hand-written"}, "a matrix that SSM writes by hand: 0.98 or 0.02"),
    "release's votes": Ablation(
        {"weights": "knowledge", "reading": "release-votes"},
        "AU-DFER, but AU labels (Eq. 4) are voted by the frames that the network sees",
    ),
    "release's counts": Ablation(
        {"weights": "knowledge", "reading": "release-counts"},
        "AU-DFER, but positive weights (Eqs. 6 to 8) count frames, those of test clips too",
    ),
}
#: matrices of the same scale without the knowledge's meaning
CONTROLS: tuple[str, ...] = ("uniform", "shuffled AUs", "shuffled expressions")
#: variants with an AU head, in the order of the table
WITH_HEAD: tuple[str, ...] = tuple(name for name in ABLATIONS if name != NO_HEAD)


def ablation_records(records: Sequence, name: str, strategy: str) -> list:
    """The records of one variant among those of ``Study.cells("ablations")``, one a seed.

    Args:
        strategy: of the positive class weights, where the variant does not change it.
    """
    if name == NO_HEAD:
        wanted = {"au_ratio": 0.0}
    else:
        wanted = {"strategy": strategy, "reading": "paper", **ABLATIONS[name].fields}
    found = {}
    for record in records:
        cell = {"reading": "paper", **record.cell}
        if (name == NO_HEAD) == (cell["au_ratio"] == 0) and all(cell[key] == value for key, value in wanted.items()):
            found[cell["seed"]] = record
    return [found[seed] for seed in sorted(found)]
