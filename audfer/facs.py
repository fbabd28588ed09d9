"""Vocabularies: action units, expressions, and the one mapping from each dataset's labels to ours.

Everything that names an AU or an expression takes its order from here. Arrays over AUs are always in
``ACTION_UNITS`` order (18; OpenFace's order), arrays of intensities in ``INTENSITY_ACTION_UNITS`` order
(17: OpenFace gives no intensity for AU28), arrays over expressions in ``EXPRESSIONS`` order (DFEW's order, 0-based).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InputError

ACTION_UNIT_NAMES: dict[str, str] = {
    "AU01": "inner brow raiser",
    "AU02": "outer brow raiser",
    "AU04": "brow lowerer",
    "AU05": "upper lid raiser",
    "AU06": "cheek raiser",
    "AU07": "lid tightener",
    "AU09": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU17": "chin raiser",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU28": "lip suck",
    "AU45": "blink",
}
ACTION_UNITS: tuple[str, ...] = tuple(ACTION_UNIT_NAMES)
INTENSITY_ACTION_UNITS: tuple[str, ...] = tuple(au for au in ACTION_UNITS if au != "AU28")
#: position of each of the 17 intensity AUs among the 18
INTENSITY_INDEX: tuple[int, ...] = tuple(ACTION_UNITS.index(au) for au in INTENSITY_ACTION_UNITS)

EXPRESSIONS: tuple[str, ...] = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
#: the headings of the papers' tables, same order
EXPRESSION_HEADINGS: tuple[str, ...] = ("Hap.", "Sad.", "Neu.", "Ang.", "Sur.", "Dis.", "Fea.")
#: the paper's printed names, same order
PRINTED_EXPRESSIONS: tuple[str, ...] = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")

#: labels of each dataset, orders of its split lists, prototypes: tables that are only read
_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
#: textbook combinations (Ekman and Friesen's emotional FACS) at a visible strength, 0 to 5: for pictures and the
#: panel's buttons; no dataset and no matrix is made from them
PROTOTYPES: dict[str, dict[str, float]] = _TABLES["prototypes"]


@dataclass(frozen=True)
class LabelSpace:
    """How one dataset writes its labels on disk and what they are here.

    Attributes:
        name: the dataset.
        mapping: label as written (text) -> index in ``EXPRESSIONS``, or ``None`` for labels outside the seven
            (ignored frames, "other", MAFW's four compound classes, RAVDESS's calm).
        others: label as written -> name of a class beyond the seven, for readers that are asked to keep them.
    """

    name: str
    mapping: dict[str, int | None]
    others: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The seven expressions, then this dataset's other classes."""
        return EXPRESSIONS + tuple(dict.fromkeys(self.others.values()))

    def parse(self, label, where, field: str = "label", every: bool = False) -> int | None:
        """Index in ``EXPRESSIONS`` (or ``None``: a known label outside the seven) of a label as found on disk.

        Args:
            every: give the other classes an index in ``classes`` (7 and up) instead of ``None``.

        Raises:
            InputError: the label is not one that this dataset has.
        """
        text = str(label).strip()
        if text not in self.mapping:
            text = next((known for known in self.mapping if known.lower() == text.lower()), text)
        if text not in self.mapping:
            raise InputError(where, field, repr(text), f"one of {self.name}'s labels: {', '.join(self.mapping)}")
        if every and text in self.others:
            return self.classes.index(self.others[text])
        return self.mapping[text]

    def write(self, expression: int) -> str:
        """The label as this dataset writes it (the inverse of ``parse`` for the seven expressions)."""
        return next(text for text, index in self.mapping.items() if index == expression)

    def order(self) -> str:
        """The whole mapping in one line, for people: ``1 happy, 2 sad, ...``; left-out labels in brackets."""
        spellings: dict[int, list[str]] = {}
        for text, index in self.mapping.items():
            if index is not None:
                spellings.setdefault(index, []).append(text)
        outside = [f"({text})" for text, index in self.mapping.items() if index is None]
        return ", ".join([f"{'/'.join(texts)} {EXPRESSIONS[index]}" for index, texts in spellings.items()] + outside)


def label_space(name: str, labels: dict[str, str]) -> LabelSpace:
    """A dataset's labels from a table: label as written -> expression, another class, or "" for neither."""
    mapping = {text: EXPRESSIONS.index(label) if label in EXPRESSIONS else None for text, label in labels.items()}
    return LabelSpace(
        name, mapping, {text: labels[text] for text, index in mapping.items() if index is None and labels[text]}
    )


LABEL_SPACES: dict[str, LabelSpace] = {name: label_space(name, labels) for name, labels in _TABLES["labels"].items()}
#: the sets that the knowledge matrix is made from (section 3.1) and those that networks are judged on (section 4.1)
KNOWLEDGE_DATASETS: tuple[str, ...] = ("AffWild2", "DFEW", "FERV39k", "RAVDESS")
EVALUATION_DATASETS: tuple[str, ...] = ("DFEW", "FERV39k", "MAFW")
