"""What the embedded counterpart of each dataset consists of: its clips, their labels, lengths and people."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from .. import published
from ..errors import refuse
from ..facs import EXPRESSIONS, LABEL_SPACES
from . import population
from .population import COUNTERPARTS

#: every dataset that can be written, in the order it is written
ALL: tuple[str, ...] = ("DISFA", "DFEW", "FERV39k", "MAFW", "AffWild2", "RAVDESS")
#: those whose size ``SynthConfig.counts`` gives
COUNTED: tuple[str, ...] = ("DFEW", "FERV39k", "MAFW")


@dataclass(frozen=True)
class SynthConfig:
    """Size of the embedded benchmark.

    Attributes:
        seed: of everything.
        image_size: side of the square frames, pixels.
        frames: fewest and most frames of a clip (both included).
        counts: clips of DFEW, FERV39k and MAFW for "train" and "test" (the seven classes together).
        minimum: fewest clips of a class in train and in test, reached by adding to ``counts``.
        test_frames: frames of a test clip of DFEW, FERV39k and MAFW that are rendered, evenly spread over it; 0 = all.
            Networks look at a few frames of a test clip, always the same ones.
        ravdess_actors: actors of RAVDESS, at most 24, each with 52 clips and eight of the class calm.
        affwild2_videos, affwild2_frames: long takes of Aff-Wild2 and the frames of each.
        disfa_subjects, disfa_frames: videos of the annotated set and the frames of each.
    """

    seed: int = 0
    image_size: int = 64
    frames: tuple[int, int] = (12, 18)
    counts: dict = field(
        default_factory=lambda: {
            "DFEW": {"train": 640, "test": 320},
            "FERV39k": {"train": 640, "test": 320},
            "MAFW": {"train": 480, "test": 240},
        }
    )
    minimum: tuple[int, int] = (6, 3)
    test_frames: int = 0
    ravdess_actors: int = 4
    affwild2_videos: int = 12
    affwild2_frames: int = 250
    disfa_subjects: int = 18
    disfa_frames: int = 240

    def __post_init__(self):
        for name in ("frames", "minimum"):
            object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
        checks = [
            (
                "frames",
                len(self.frames) == 2 and 2 <= self.frames[0] <= self.frames[1],
                "two numbers, 2 <= fewest <= most",
            ),
            ("test_frames", self.test_frames >= 0, "0 (all) or a number of frames"),
            ("minimum", len(self.minimum) == 2 and min(self.minimum) >= 0, "two numbers >= 0 (train, test)"),
            ("image_size", self.image_size >= 16 and self.image_size % 2 == 0, "an even number of at least 16 pixels"),
            ("ravdess_actors", 0 < self.ravdess_actors <= 24, "1 to 24"),
            *(
                (name, getattr(self, name) >= 2, "at least 2 (one on each side of a split)")
                for name in ("affwild2_videos", "disfa_subjects")
            ),
            *((name, getattr(self, name) >= 10, "at least 10") for name in ("affwild2_frames", "disfa_frames")),
        ]
        refuse("SynthConfig", ((not right, name, getattr(self, name), expected) for name, right, expected in checks))
        expected = 'a positive number for "train" and "test" of DFEW, FERV39k or MAFW'
        refuse(
            "SynthConfig",
            (
                (
                    name not in COUNTED or set(splits) != {"train", "test"} or min(splits.values()) < 1,
                    f"counts[{name!r}]",
                    splits,
                    expected,
                )
                for name, splits in self.counts.items()
            ),
        )

    @classmethod
    def from_dict(cls, content: dict) -> SynthConfig:
        """From a profile's table; a name that is not a setting is refused.

        Raises:
            InputError: unknown name or impossible value.
        """
        known = sorted(f.name for f in fields(cls))
        expected = f"one of {', '.join(known)}"
        refuse("SynthConfig", ((name not in known, "setting", repr(name), expected) for name in content))
        return cls(**content)


def planned_counts(dataset: str, config: SynthConfig) -> dict[str, tuple[dict[str, int], int]]:
    """Clips of each expression that ``write_benchmark`` makes of DFEW, FERV39k or MAFW.

    Fold 1's published class frequencies, scaled by largest remainder, and filled up to ``config.minimum`` per class.

    Returns:
        split -> ({expression: clips}, clips added beyond the asked total to reach the minimum).
    """
    out = {}
    for split, minimum in zip(("train", "test"), config.minimum, strict=True):
        counts = published.class_counts(dataset, split, 1)
        scaled, plus = population.scaled_counts(list(counts.values()), config.counts[dataset][split], minimum)
        out[split] = (dict(zip(counts, scaled, strict=True)), plus)
    return out


def plan(name: str, config: SynthConfig, generator: np.random.Generator) -> tuple[pd.DataFrame, int]:
    """One dataset before rendering.

    Returns:
        (one row per clip, how many people there are); the columns: ``clip_id``; ``split``; ``label`` as the dataset
        writes it; ``expression``, -1 for labels outside the seven; ``pattern``, the expression whose statistics the
        clip follows; ``second``, the one that it blends with, or -1; ``length`` in frames; ``person``, a number, and
        ``subject``, their name; ``take``, the same for parts of one continuous video.
    """
    special = {"RAVDESS": _plan_ravdess, "AffWild2": _plan_affwild2, "DISFA": _plan_disfa}
    clips, people = special[name](config, generator) if name in special else _plan_clips(name, config, generator)
    if "take" not in clips:
        clips["take"] = np.arange(len(clips))
    if "second" not in clips:
        # for the ambiguous clips the other expression, drawn evenly from the other six
        other = (clips["pattern"] + generator.integers(1, len(EXPRESSIONS), len(clips))) % len(EXPRESSIONS)
        clips["second"] = np.where(generator.random(len(clips)) < population.STYLES[name].ambiguous, other, -1)
    if "length" not in clips:
        clips["length"] = generator.integers(config.frames[0], config.frames[1] + 1, len(clips))
    return clips, people


def _plan_clips(name: str, config: SynthConfig, generator) -> tuple[pd.DataFrame, int]:
    parts, everybody = [], 0
    for split, (counts, _) in planned_counts(name, config).items():
        like = [EXPRESSIONS.index(e) for e, count in counts.items() for _ in range(count)]
        rows = [(LABEL_SPACES[name].write(e), e, e) for e in like]
        for text, pattern in COUNTERPARTS[name].get("borrowed", {}).items():
            rows += [(text, -1, EXPRESSIONS.index(pattern))] * max(1, len(like) // 80)
        # people come back, as actors do in films, but never on the other side of the split
        pool = max(4, len(rows) // 3)
        people = np.concatenate([generator.permutation(pool) for _ in range(-(-len(rows) // pool))])[: len(rows)]
        part = pd.DataFrame(rows, columns=["label", "expression", "pattern"])
        subjects = [f"{name}_{split}_{number:04d}" for number in people]
        parts.append(part.assign(split=split, person=people + everybody, subject=subjects))
        everybody += pool
    clips = pd.concat(parts, ignore_index=True)
    clips = clips.iloc[generator.permutation(len(clips))].reset_index(drop=True)
    clips["clip_id"] = [f"{index + 1:05d}" for index in clips.index]
    if "scenes" in COUNTERPARTS[name]:
        scenes = generator.choice(COUNTERPARTS[name]["scenes"], len(clips))
        numbers = clips.groupby([scenes, "label"]).cumcount() + 1
        clips["clip_id"] = [f"{s}/{label}/{n:04d}" for s, label, n in zip(scenes, clips["label"], numbers, strict=True)]
    return clips, everybody


def _plan_ravdess(config: SynthConfig, generator) -> tuple[pd.DataFrame, int]:
    rows = []
    codes, twice = LABEL_SPACES["RAVDESS"].mapping, ("01", "02")
    for actor, code, *said in itertools.product(range(config.ravdess_actors), codes, twice, twice, twice):
        if code == "01" and said[0] == "02":
            continue  # neutral has no strong intensity
        expression = -1 if codes[code] is None else codes[code]
        rows.append(
            {
                "clip_id": "-".join(["02", "01", code, *said, f"{actor + 1:02d}"]),
                "split": "",
                "label": code,
                "expression": expression,
                "pattern": expression if expression >= 0 else EXPRESSIONS.index("neutral"),
                "person": actor,
                "subject": f"{actor + 1:02d}",
            }
        )
    return pd.DataFrame(rows), config.ravdess_actors


def _plan_affwild2(config: SynthConfig, generator) -> tuple[pd.DataFrame, int]:
    """Long takes cut into runs of one label; a "clip" of the plan is one run."""
    labels, shares = (
        list(COUNTERPARTS["AffWild2"]["shares"]),
        np.array(list(COUNTERPARTS["AffWild2"]["shares"].values())),
    )
    train = max(1, round(config.affwild2_videos * 2 / 3))
    fewest, most = min(12, config.affwild2_frames // 2), min(40, config.affwild2_frames)
    rows = []
    for split, videos in (("train", range(train)), ("test", range(train, config.affwild2_videos))):
        runs: list[tuple[int, int]] = []  # (video, frames)
        for video in videos:
            left = config.affwild2_frames
            while left > 0:
                length = int(generator.integers(fewest, most + 1))
                length = left if left - length < fewest else length
                runs.append((video, length))
                left -= length
        # frames, not runs, get their shares: each run goes to the label that lacks most
        wanted = shares / shares.sum() * sum(length for _, length in runs)
        given = {}
        for run in generator.permutation(len(runs)):
            best = int(np.argmax(wanted))
            wanted[best] -= runs[run][1]
            given[run] = labels[best]
        rows += [(split, given[run], length, video) for run, (video, length) in enumerate(runs)]
    clips = pd.DataFrame(rows, columns=["split", "label", "length", "take"])
    clips["clip_id"] = [f"{video + 1}-30-1280x720" if video % 3 else f"video{video + 1}" for video in clips["take"]]
    clips["expression"] = [EXPRESSIONS.index(text) if text in EXPRESSIONS else -1 for text in clips["label"]]
    clips["pattern"] = clips["expression"].where(clips["expression"] >= 0, EXPRESSIONS.index("neutral"))
    write = LABEL_SPACES["AffWild2"].write
    clips["label"] = [write(EXPRESSIONS.index(text)) if text in EXPRESSIONS else text for text in clips["label"]]
    clips["person"] = clips["take"]
    clips["subject"] = [f"AffWild2_{video + 1:03d}" for video in clips["take"]]
    return clips, config.affwild2_videos


def _plan_disfa(config: SynthConfig, generator) -> tuple[pd.DataFrame, int]:
    count = config.disfa_subjects
    names = [f"SN{index + 1:03d}" for index in range(count)]
    clips = pd.DataFrame({"clip_id": names, "subject": names, "person": range(count), "length": config.disfa_frames})
    return clips.assign(split="", label="", expression=-1, pattern=-1, second=-1), count
