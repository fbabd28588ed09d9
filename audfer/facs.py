"""Vocabularies: action units, expressions, and the one mapping from each dataset's labels to ours.

Everything that names an AU or an expression takes its order from here. Arrays over AUs are always in
``ACTION_UNITS`` order (18; OpenFace's order), arrays of intensities in ``INTENSITY_ACTION_UNITS`` order
(17: OpenFace gives no intensity for AU28), arrays over expressions in ``EXPRESSIONS`` order (DFEW's order, 0-based).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import InputError

ACTION_UNITS: tuple[str, ...] = (
    "AU01",
    "AU02",
    "AU04",
    "AU05",
    "AU06",
    "AU07",
    "AU09",
    "AU10",
    "AU12",
    "AU14",
    "AU15",
    "AU17",
    "AU20",
    "AU23",
    "AU25",
    "AU26",
    "AU28",
    "AU45",
)
INTENSITY_ACTION_UNITS: tuple[str, ...] = tuple(au for au in ACTION_UNITS if au != "AU28")
#: position of each of the 17 intensity AUs among the 18
INTENSITY_INDEX: tuple[int, ...] = tuple(ACTION_UNITS.index(au) for au in INTENSITY_ACTION_UNITS)

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

EXPRESSIONS: tuple[str, ...] = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
#: the headings of the papers' tables, same order
EXPRESSION_HEADINGS: tuple[str, ...] = ("Hap.", "Sad.", "Neu.", "Ang.", "Sur.", "Dis.", "Fea.")
#: the paper's printed names, same order
PRINTED_EXPRESSIONS: tuple[str, ...] = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")


#: textbook combinations (Ekman and Friesen's emotional FACS) at a visible strength, 0 to 5: for pictures and the
#: panel's buttons; no dataset and no matrix is made from them
PROTOTYPES: dict[str, dict[str, float]] = {
    "happy": {"AU06": 4, "AU12": 5, "AU25": 3.5},
    "sad": {"AU01": 4.5, "AU04": 2.5, "AU15": 4.5, "AU17": 2},
    "neutral": {},
    "angry": {"AU04": 5, "AU05": 2, "AU07": 3.5, "AU23": 4.5},
    "surprise": {"AU01": 4.5, "AU02": 5, "AU05": 4.5, "AU25": 3, "AU26": 4.5},
    "disgust": {"AU04": 1.5, "AU09": 5, "AU10": 4, "AU17": 2.5},
    "fear": {"AU01": 5, "AU02": 3, "AU04": 3, "AU05": 5, "AU20": 4.5, "AU25": 2.5},
}


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


def _space(name: str, /, **labels: str | None) -> LabelSpace:
    known = {text: label for text, label in labels.items() if label is None or label in EXPRESSIONS}
    others = {text: label for text, label in labels.items() if text not in known}
    return LabelSpace(
        name, {text: EXPRESSIONS.index(known[text]) if known.get(text) else None for text in labels}, others
    )


LABEL_SPACES: dict[str, LabelSpace] = {
    # 1-based on disk; 0 = no single label (field/DATASETS D.0)
    "DFEW": _space(
        "DFEW",
        **{
            "1": "happy",
            "2": "sad",
            "3": "neutral",
            "4": "angry",
            "5": "surprise",
            "6": "disgust",
            "7": "fear",
            "0": None,
        },
    ),
    "FERV39k": _space(
        "FERV39k",
        Happy="happy",
        Sad="sad",
        Neutral="neutral",
        Angry="angry",
        Surprise="surprise",
        Disgust="disgust",
        Fear="fear",
    ),
    "MAFW": _space(
        "MAFW",
        anger="angry",
        disgust="disgust",
        fear="fear",
        happiness="happy",
        neutral="neutral",
        sadness="sad",
        surprise="surprise",
        contempt="contempt",
        anxiety="anxiety",
        helplessness="helplessness",
        disappointment="disappointment",
    ),
    # folder names: every spelling that its copies have
    "AFEW": _space(
        "AFEW",
        Happy="happy",
        Happiness="happy",
        Sad="sad",
        Sadness="sad",
        Neutral="neutral",
        Angry="angry",
        Anger="angry",
        Surprise="surprise",
        Disgust="disgust",
        Fear="fear",
    ),
    "AffWild2": _space(
        "AffWild2",
        **{
            "0": "neutral",
            "1": "angry",
            "2": "disgust",
            "3": "fear",
            "4": "happy",
            "5": "sad",
            "6": "surprise",
            "7": "other",
            "-1": None,
        },
    ),
    "RAVDESS": _space(
        "RAVDESS",
        **{
            "01": "neutral",
            "02": "calm",
            "03": "happy",
            "04": "sad",
            "05": "angry",
            "06": "fear",
            "07": "disgust",
            "08": "surprise",
        },
    ),
    # anybody's own clips, one folder a class
    "folder": _space(
        "folder",
        happy="happy",
        happiness="happy",
        joy="happy",
        sad="sad",
        sadness="sad",
        neutral="neutral",
        angry="angry",
        anger="angry",
        surprise="surprise",
        surprised="surprise",
        disgust="disgust",
        disgusted="disgust",
        fear="fear",
        fearful="fear",
        contempt="contempt",
        calm="calm",
        anxiety="anxiety",
        helplessness="helplessness",
        disappointment="disappointment",
        other="other",
    ),
}
_MAFW_BASIC = {
    "MAE-DFER": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "DFER-CLIP": ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"),
}
#: dataset -> project -> its classes in the order in which its split lists number them, from 0 (field/DATASETS D.0); the
#: first is the usual one
LIST_ORDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "DFEW": {"MAE-DFER and Former-DFER": EXPRESSIONS},
    "FERV39k": {
        "MAE-DFER and Former-DFER": EXPRESSIONS,
        "M3DFEL_replicate": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    },
    "MAFW": {
        project: basic + ("contempt", "anxiety", "helplessness", "disappointment")
        for project, basic in _MAFW_BASIC.items()
    },
    "AFEW": {"Former-DFER": EXPRESSIONS},
}
#: the sets that the knowledge matrix is made from (section 3.1) and those that networks are judged on (section 4.1)
KNOWLEDGE_DATASETS: tuple[str, ...] = ("AffWild2", "DFEW", "FERV39k", "RAVDESS")
EVALUATION_DATASETS: tuple[str, ...] = ("DFEW", "FERV39k", "MAFW")
