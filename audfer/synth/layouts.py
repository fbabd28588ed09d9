"""Writers of the embedded benchmark: rendered clips in the directory layouts that users of the real datasets have.

Each dataset is drawn as a whole (``population``), rendered frame by frame (``face``) and written to
``root/<dataset>`` in the layout of that dataset's own release, so that the readers, checks and packing of a real user
are the ones that run by default. What was planted goes to ``root/truth`` and nowhere else; only ``read_truth`` and
``read_truth_landmarks`` open it.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from .. import files, published
from ..errors import AudferError, InputError
from ..facs import ACTION_UNITS, EXPRESSIONS, LABEL_SPACES
from ..jobs.workers import IO_THREADS
from ..progress import progress as progress_bar
from ..versions import versions
from . import face, population
from .population import PRESENT, STYLES

#: every dataset that can be written, in the order it is written
ALL: tuple[str, ...] = ("DISFA", "DFEW", "FERV39k", "MAFW", "AffWild2", "RAVDESS")
#: file at the root of a written dataset that says it is rendered and from which settings
STAMP = "audfer_synth.json"
TRUTH = "truth"

#: labels outside the seven that some sets have, and the expression whose AU pattern their clips borrow
_BORROWED = {"contempt": "disgust", "anxiety": "fear", "helplessness": "sad", "disappointment": "sad"}
_FERV39K_SCENES = (
    "Action",
    "Anomaly",
    "Business",
    "Conflict",
    "Crime",
    "Daily",
    "Debate",
    "Family",
    "Fantasy",
    "Friendship",
    "History",
    "Horror",
    "Hospital",
    "Interview",
    "Office",
    "Romance",
    "School",
    "Sport",
    "Talkshow",
    "Travel",
    "Trial",
    "War",
)
#: Aff-Wild2 is mostly neutral. The others' shares are not the real ones (those would leave about 60 frames of fear at
#: this size) but keep their order. "7" is the class "other", "-1" frames to ignore.
_AFFWILD2_SHARES = {
    "neutral": 0.42,
    "happy": 0.16,
    "sad": 0.10,
    "surprise": 0.08,
    "angry": 0.06,
    "disgust": 0.055,
    "fear": 0.055,
    "7": 0.05,
    "-1": 0.02,
}
_BATCH = 256


@dataclass(frozen=True)
class SynthConfig:
    """Size of the embedded benchmark.

    Attributes:
        seed: of everything.
        image_size: side of the square frames, pixels.
        frames: fewest and most frames of a clip (both included).
        counts: clips of DFEW, FERV39k and MAFW for "train" and "test" (the seven classes together).
        minimum: fewest clips of a class in train and in test, reached by adding to ``counts``.
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
    ravdess_actors: int = 4
    affwild2_videos: int = 12
    affwild2_frames: int = 250
    disfa_subjects: int = 18
    disfa_frames: int = 240

    def __post_init__(self):
        object.__setattr__(self, "frames", tuple(int(n) for n in self.frames))
        object.__setattr__(self, "minimum", tuple(int(n) for n in self.minimum))
        if len(self.frames) != 2 or not 2 <= self.frames[0] <= self.frames[1]:
            raise InputError("SynthConfig", "frames", self.frames, "two numbers, 2 <= fewest <= most")
        if len(self.minimum) != 2 or min(self.minimum) < 0:
            raise InputError("SynthConfig", "minimum", self.minimum, "two numbers >= 0 (train, test)")
        if self.image_size < 16 or self.image_size % 2:
            raise InputError("SynthConfig", "image_size", self.image_size, "an even number of at least 16 pixels")
        if not 0 < self.ravdess_actors <= 24:
            raise InputError("SynthConfig", "ravdess_actors", self.ravdess_actors, "1 to 24")
        for name in ("affwild2_videos", "disfa_subjects"):
            if getattr(self, name) < 2:
                raise InputError("SynthConfig", name, getattr(self, name), "at least 2 (one on each side of a split)")
        for name in ("affwild2_frames", "disfa_frames"):
            if getattr(self, name) < 10:
                raise InputError("SynthConfig", name, getattr(self, name), "at least 10")
        for dataset, splits in self.counts.items():
            if (
                dataset not in ("DFEW", "FERV39k", "MAFW")
                or set(splits) != {"train", "test"}
                or min(splits.values()) < 1
            ):
                raise InputError(
                    "SynthConfig",
                    f"counts[{dataset!r}]",
                    splits,
                    'a positive number for "train" and "test" of DFEW, FERV39k or MAFW',
                )

    @classmethod
    def from_dict(cls, content: dict) -> SynthConfig:
        """From a profile's table; a name that is not a setting is refused.

        Raises:
            InputError: unknown name or impossible value.
        """
        known = {f.name for f in fields(cls)}
        for name in content:
            if name not in known:
                raise InputError("SynthConfig", "setting", repr(name), f"one of {', '.join(sorted(known))}")
        return cls(**content)


@dataclass
class _Plan:
    """One dataset before rendering; arrays over clips unless said otherwise.

    ``expression`` is -1 for labels outside the seven; ``pattern`` is the expression whose statistics the clip
    follows; ``subject`` indexes ``subjects``; ``take`` groups clips that are parts of one continuous video.
    """

    name: str
    clip_id: list[str]
    split: list[str]
    label: list[str]
    expression: np.ndarray
    pattern: np.ndarray
    second: np.ndarray
    lengths: np.ndarray
    subject: np.ndarray
    subjects: list[str]
    take: np.ndarray


# -------------------------------------------------------------------------------------------------------------- plans


def _lengths(config: SynthConfig, count: int, generator) -> np.ndarray:
    return generator.integers(config.frames[0], config.frames[1] + 1, count)


def _second(name: str, pattern: np.ndarray, generator) -> np.ndarray:
    """For the ambiguous clips the other expression, drawn evenly from the other six; -1 for the clear ones."""
    other = (pattern + generator.integers(1, len(EXPRESSIONS), len(pattern))) % len(EXPRESSIONS)
    return np.where(generator.random(len(pattern)) < STYLES[name].ambiguous, other, -1)


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


def _plan_clips(name: str, config: SynthConfig, generator) -> _Plan:
    split, label, expression, pattern, subject = [], [], [], [], []
    subjects: list[str] = []
    space = LABEL_SPACES[name]
    for part, (counts, _) in planned_counts(name, config).items():
        chosen = [
            (space.write(EXPRESSIONS.index(e)), EXPRESSIONS.index(e), EXPRESSIONS.index(e))
            for e, count in counts.items()
            for _ in range(count)
        ]
        if name == "MAFW":
            # a few clips of the four compound classes, so that the filter to seven classes has something to filter
            extra = max(1, len(chosen) // 80)
            chosen += [(text, -1, EXPRESSIONS.index(like)) for text, like in _BORROWED.items() for _ in range(extra)]
        # people come back, as actors do in films, but never on the other side of the split
        pool = max(4, len(chosen) // 3)
        people = np.concatenate([generator.permutation(pool) for _ in range(-(-len(chosen) // pool))])[: len(chosen)]
        split += [part] * len(chosen)
        label += [c[0] for c in chosen]
        expression += [c[1] for c in chosen]
        pattern += [c[2] for c in chosen]
        subject += (people + len(subjects)).tolist()
        subjects += [f"{name}_{part}_{index:04d}" for index in range(pool)]
    order = generator.permutation(len(label))
    pick = lambda values: [values[i] for i in order]  # noqa: E731
    label, pattern = pick(label), np.array(pick(pattern))
    if name == "FERV39k":
        scene = generator.choice(_FERV39K_SCENES, len(label))
        seen: dict[tuple, int] = {}
        ids = []
        for place, text in zip(scene, label, strict=True):
            seen[place, text] = seen.get((place, text), 0) + 1
            ids.append(f"{place}/{text}/{seen[place, text]:04d}")
    else:
        ids = [f"{index + 1:05d}" for index in range(len(label))]
    return _Plan(
        name,
        ids,
        pick(split),
        label,
        np.array(pick(expression)),
        pattern,
        _second(name, pattern, generator),
        _lengths(config, len(label), generator),
        np.array(pick(subject)),
        subjects,
        np.arange(len(label)),
    )


def _plan_ravdess(config: SynthConfig, generator) -> _Plan:
    ids, label, expression, pattern, subject = [], [], [], [], []
    for actor in range(config.ravdess_actors):
        for code, index in LABEL_SPACES["RAVDESS"].mapping.items():
            for strength in ("01",) if code == "01" else ("01", "02"):  # neutral has no strong intensity
                for statement in ("01", "02"):
                    for repetition in ("01", "02"):
                        ids.append(f"02-01-{code}-{strength}-{statement}-{repetition}-{actor + 1:02d}")
                        label.append(code)
                        expression.append(-1 if index is None else index)
                        pattern.append(EXPRESSIONS.index("neutral") if index is None else index)
                        subject.append(actor)
    pattern = np.array(pattern)
    subjects = [f"{index + 1:02d}" for index in range(config.ravdess_actors)]
    return _Plan(
        "RAVDESS",
        ids,
        [""] * len(ids),
        label,
        np.array(expression),
        pattern,
        _second("RAVDESS", pattern, generator),
        _lengths(config, len(ids), generator),
        np.array(subject),
        subjects,
        np.arange(len(ids)),
    )


def _plan_affwild2(config: SynthConfig, generator) -> _Plan:
    """Long takes cut into runs of one label; a "clip" of the plan is one run."""
    labels, shares = list(_AFFWILD2_SHARES), np.array(list(_AFFWILD2_SHARES.values()))
    train = max(1, round(config.affwild2_videos * 2 / 3))
    fewest, most = min(12, config.affwild2_frames // 2), min(40, config.affwild2_frames)
    ids, split, label, lengths, take = [], [], [], [], []
    for side, videos in (("train", range(train)), ("test", range(train, config.affwild2_videos))):
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
        for run, (video, length) in enumerate(runs):
            ids.append(f"{video + 1}-30-1280x720" if video % 3 else f"video{video + 1}")
            split.append(side)
            label.append(given[run])
            lengths.append(length)
            take.append(video)
    expression = np.array([EXPRESSIONS.index(text) if text in EXPRESSIONS else -1 for text in label])
    pattern = np.where(expression < 0, EXPRESSIONS.index("neutral"), expression)
    space = LABEL_SPACES["AffWild2"]
    written = [space.write(e) if e >= 0 else text for e, text in zip(expression, label, strict=True)]
    subjects = [f"AffWild2_{index + 1:03d}" for index in range(config.affwild2_videos)]
    return _Plan(
        "AffWild2",
        ids,
        split,
        written,
        expression,
        pattern,
        _second("AffWild2", pattern, generator),
        np.array(lengths),
        np.array(take),
        subjects,
        np.array(take),
    )


def _plan_disfa(config: SynthConfig, generator) -> _Plan:
    count = config.disfa_subjects
    subjects = [f"SN{index + 1:03d}" for index in range(count)]
    none = np.full(count, -1)
    return _Plan(
        "DISFA",
        subjects,
        [""] * count,
        [""] * count,
        none,
        none,
        none,
        np.full(count, config.disfa_frames),
        np.arange(count),
        subjects,
        np.arange(count),
    )


# ---------------------------------------------------------------------------------------------------------- rendering


@dataclass
class _Drawn:
    """Everything about one dataset's frames but the pixels; arrays over frames."""

    plan: _Plan
    clip: np.ndarray
    frame: np.ndarray
    intensities: np.ndarray
    shown: np.ndarray
    scenes: dict
    people: face.Identity

    def truth(self) -> pd.DataFrame:
        """The table that ``read_truth`` returns."""
        plan, take = self.plan, self.plan.take[self.clip]
        # frames of a long take count through all its runs
        frame = pd.Series(take).groupby(take).cumcount().to_numpy()
        table = pd.DataFrame(
            {
                "clip_id": np.array(plan.clip_id, object)[self.clip],
                "frame": frame.astype(np.int32),
                "split": np.array(plan.split, object)[self.clip],
                "expression": plan.expression[self.clip].astype(np.int8),
                "subject": np.array(plan.subjects, object)[plan.subject[self.clip]],
                "ambiguous": plan.second[self.clip] >= 0,
                "second": plan.second[self.clip].astype(np.int8),
                "shown": self.shown,
            }
        )
        intensity_names, presence_names = population.frame_columns()
        return pd.concat(
            [
                table,
                pd.DataFrame(self.intensities, columns=intensity_names),
                pd.DataFrame(self.intensities >= PRESENT, columns=presence_names),
            ],
            axis=1,
        )


def _draw(name: str, config: SynthConfig) -> _Drawn:
    generator = np.random.default_rng([config.seed, ALL.index(name)])
    plan = {"RAVDESS": _plan_ravdess, "AffWild2": _plan_affwild2, "DISFA": _plan_disfa}.get(
        name, lambda c, g: _plan_clips(name, c, g)
    )(config, generator)
    if name == "DISFA":
        intensities = np.concatenate([population.sample_annotated(length, generator) for length in plan.lengths])
        shown = np.ones(len(intensities), bool)
    else:
        # clips outside the seven get groups of their own beyond the seven
        groups = np.where(plan.expression < 0, len(EXPRESSIONS) + plan.pattern, plan.expression)
        intensities, shown = population.sample_intensities(
            name, plan.pattern, plan.lengths, generator, second=plan.second, groups=groups
        )
    scenes = population.sample_scenes(STYLES[name], plan.lengths, generator, places=plan.take)
    # RAVDESS and DISFA subjects, DFEW's train and DFEW's test pool: every dataset has people of its own
    people = face.sample_identities(len(plan.subjects), seed=int(generator.integers(2**31)))
    return _Drawn(
        plan,
        np.repeat(np.arange(len(plan.lengths)), plan.lengths),
        np.concatenate([np.arange(length) for length in plan.lengths]),
        intensities,
        shown,
        scenes,
        people,
    )


def _scene(arrays: dict, frames: slice) -> face.Scene:
    values = {
        name: torch.from_numpy(np.ascontiguousarray(values[frames]))
        for name, values in arrays.items()
        if name != "quality"
    }
    return face.Scene(**values, seed=torch.arange(frames.start, frames.stop))


class _Sink:
    """Where a dataset's frames go: still images, or one video a clip, written while the next batch is rendered.

    Args:
        path_of: (clip, frame) -> path below ``folder``, or ``None`` for a frame that is not written.
    """

    def __init__(self, drawn: _Drawn, folder: Path, path_of):
        self.drawn, self.folder, self.path_of = drawn, folder, path_of
        suffix = next(path for clip in range(len(drawn.plan.lengths)) if (path := path_of(clip, 0)) is not None).suffix
        self.stills = suffix in (".jpg", ".png")
        # a video's frames go into it one after another; pictures in any order
        self.threads = IO_THREADS if self.stills else 1
        self.pool = ThreadPoolExecutor(self.threads)
        self.pending: list[Future] = []
        self.made: set[Path] = set()
        self.container = None
        self.open_path: Path | None = None

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, *raised) -> None:
        try:
            if raised[0] is None:
                self.wait()
        finally:
            self.pool.shutdown(cancel_futures=True)
            self._close()

    def write(self, first: int, images: np.ndarray) -> None:
        """Take the frames from number ``first`` on, (n, H, W, 3); returns once the batch before them is written."""
        self.wait()
        parts = np.array_split(np.arange(len(images)), self.threads)
        self.pending = [self.pool.submit(self._write_part, first, images, part) for part in parts if len(part)]

    def wait(self) -> None:
        """Wait until all that was taken is written; raises what writing raised."""
        for future in self.pending:
            future.result()
        self.pending = []

    def _write_part(self, first: int, images: np.ndarray, part: np.ndarray) -> None:
        for offset in part:
            clip, frame = self.drawn.clip[first + offset], int(self.drawn.frame[first + offset])
            path = self.path_of(clip, frame)
            if path is None:
                continue
            path = self.folder / path
            if path.parent not in self.made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.made.add(path.parent)
            if not self.stills:
                self._write_video(path, images[offset])
            elif path.suffix == ".png":
                Image.fromarray(images[offset]).save(path, compress_level=1)
            else:
                quality = int(self.drawn.scenes["quality"][clip])
                Image.fromarray(images[offset]).save(path, quality=quality, subsampling=0)

    def _write_video(self, path: Path, image: np.ndarray) -> None:
        import av

        if path != self.open_path:
            self._close()
            motion_jpeg = path.suffix == ".avi"
            self.container = av.open(str(path), "w", options={"fflags": "+bitexact"})
            self.stream = self.container.add_stream(
                "mjpeg" if motion_jpeg else "libx264", rate=20 if motion_jpeg else 30
            )
            self.stream.height, self.stream.width = image.shape[:2]
            self.stream.pix_fmt = "yuvj444p" if motion_jpeg else "yuv420p"
            self.stream.options = (
                {"qmin": "2", "qmax": "2"} if motion_jpeg else {"crf": "14", "preset": "veryfast", "threads": "1"}
            )
            self.open_path = path
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def _close(self) -> None:
        """End the video that is open."""
        if self.container is not None:
            for packet in self.stream.encode():
                self.container.mux(packet)
            self.container.close()
            self.container = self.open_path = None


def _render_all(drawn: _Drawn, sink: _Sink, config: SynthConfig, bar, device: str) -> np.ndarray:
    """Render every frame in order, hand it to ``sink``; returns landmarks (frames, 68, 2) float32, pixels."""
    landmarks = np.empty((len(drawn.clip), 68, 2), np.float32)
    people = drawn.people.to(device)
    with sink:
        for start in range(0, len(drawn.clip), _BATCH):
            frames = slice(start, min(start + _BATCH, len(drawn.clip)))
            who = torch.from_numpy(drawn.plan.subject[drawn.clip[frames]]).to(device)
            images, points = face.render(
                people[who],
                torch.from_numpy(drawn.intensities[frames]),
                _scene(drawn.scenes, frames).to(device),
                size=config.image_size,
            )
            landmarks[frames] = points.cpu().numpy()
            sink.write(start, images.cpu().numpy())
            bar.update(frames.stop - frames.start)
    return landmarks


# ------------------------------------------------------------------------------------------------------------ layouts


def _write_text(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _layout_dfew(drawn: _Drawn, folder: Path):
    plan = drawn.plan
    for split in ("train", "test"):
        rows = [
            f"{int(clip)},{label}"
            for clip, part, label in zip(plan.clip_id, plan.split, plan.label, strict=True)
            if part == split
        ]
        _write_text(
            folder / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / "set_1.csv", ["video_name,label", *rows]
        )
    return lambda clip, frame: Path("Clip", "clip_224x224", plan.clip_id[clip], f"{frame + 1}.jpg")


def _layout_ferv39k(drawn: _Drawn, folder: Path):
    plan = drawn.plan
    for split in ("train", "test"):
        _write_text(
            folder / "4_setups" / "All_scenes" / f"{split}_All.csv",
            [
                f"{clip} {label}"
                for clip, part, label in zip(plan.clip_id, plan.split, plan.label, strict=True)
                if part == split
            ],
        )
    return lambda clip, frame: Path("2_ClipsforFaceCrop", plan.clip_id[clip], f"{frame + 1}.jpg")


def _layout_mafw(drawn: _Drawn, folder: Path):
    plan = drawn.plan
    for split in ("train", "test"):
        _write_text(
            folder / "Train & Test Set" / "single" / "no_caption" / "set_1" / f"{split}.txt",
            [
                f"{clip}.mp4 {label}"
                for clip, part, label in zip(plan.clip_id, plan.split, plan.label, strict=True)
                if part == split
            ],
        )
    return lambda clip, frame: Path("data", "faces", plan.clip_id[clip], f"{frame + 1:05d}.png")


def _layout_affwild2(drawn: _Drawn, folder: Path):
    plan = drawn.plan
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    frame_label = np.array(plan.label, object)[drawn.clip]
    take, number = plan.take[drawn.clip], drawn.truth()["frame"].to_numpy() + 1
    for video in np.unique(plan.take):
        run = int(np.argmax(plan.take == video))
        part = "Train_Set" if plan.split[run] == "train" else "Validation_Set"
        _write_text(
            folder / "5th ABAW Annotations" / "EXPR_Recognition_Challenge" / part / f"{plan.clip_id[run]}.txt",
            [header, *frame_label[take == video]],
        )
    # now and then the face detector found nothing: no image, but the row stays
    missing = np.random.default_rng(len(take)).random(len(take)) < 0.01
    missing &= number > 1
    first = np.concatenate([[0], np.cumsum(plan.lengths)])

    def path_of(clip, frame):
        position = first[clip] + frame
        return None if missing[position] else Path("cropped_aligned", plan.clip_id[clip], f"{number[position]:05d}.jpg")

    return path_of


def _layout_ravdess(drawn: _Drawn, folder: Path):
    plan = drawn.plan
    return lambda clip, frame: Path(f"Actor_{plan.subjects[plan.subject[clip]]}", f"{plan.clip_id[clip]}.mp4")


def _layout_disfa(drawn: _Drawn, folder: Path):
    codes = population.codes(drawn.intensities)
    for clip, subject in enumerate(drawn.plan.clip_id):
        rows = codes[drawn.clip == clip]
        for column, name in enumerate(ACTION_UNITS):
            _write_text(
                folder / "ActionUnit_Labels" / subject / f"{subject}_au{int(name[2:])}.txt",
                [f"{frame + 1},{code}" for frame, code in enumerate(rows[:, column])],
            )
    return lambda clip, frame: Path("Video_LeftCamera", f"LeftVideo{drawn.plan.clip_id[clip]}_comp.avi")


_LAYOUTS = {
    "DFEW": _layout_dfew,
    "FERV39k": _layout_ferv39k,
    "MAFW": _layout_mafw,
    "AffWild2": _layout_affwild2,
    "RAVDESS": _layout_ravdess,
    "DISFA": _layout_disfa,
}


# ------------------------------------------------------------------------------------------------------------- public


def _signature(name: str, config: SynthConfig) -> dict:
    used = {
        "DFEW": ("counts", "minimum", "frames"),
        "FERV39k": ("counts", "minimum", "frames"),
        "MAFW": ("counts", "minimum", "frames"),
        "RAVDESS": ("ravdess_actors", "frames"),
        "AffWild2": ("affwild2_videos", "affwild2_frames"),
        "DISFA": ("disfa_subjects", "disfa_frames"),
    }[name]
    content = {key: value for key, value in asdict(config).items() if key in (*used, "seed", "image_size")}
    if "counts" in content:
        content["counts"] = content["counts"].get(name)
    return {
        "dataset": name,
        "rendered": True,
        "config": content,
        "code": versions("rendering"),
    }


def is_written(root: str | os.PathLike, name: str, config: SynthConfig) -> bool:
    """Whether ``root`` already holds this dataset, whole, as these settings and this code would write it."""
    root = Path(root)
    try:
        stamp = json.loads((root / name / STAMP).read_text())
    except (OSError, ValueError):
        return False
    wanted = json.loads(json.dumps(_signature(name, config)))
    return stamp == wanted and _truth_path(root, name).is_file() and _landmark_path(root, name).is_file()


def write_benchmark(
    root: str | os.PathLike, config: SynthConfig, datasets=ALL, progress: bool = True, device: str = "cpu"
) -> None:
    """Render the embedded benchmark into ``root``: a folder a dataset in its own layout, and the truth beside.

    Each dataset appears whole or not at all (an interrupted run leaves nothing behind and a later one goes on with
    the next dataset); one that is already there from the same settings and code is left alone. The same seed writes
    the same bytes on one device; a GPU rounds otherwise, which changes single pixels by a step.

    Args:
        root: made if missing.
        config: sizes and seed.
        datasets: names from ``ALL``.
        progress: show a bar, in frames.
        device: that faces are rendered on, "cpu" or "cuda".

    Raises:
        InputError: an unknown dataset, or one without counts in ``config``.
        AudferError: the disk is full.
    """
    root = Path(root)
    for name in datasets:
        if name not in ALL:
            raise InputError("write_benchmark", "datasets", repr(name), f"names from {', '.join(ALL)}")
        if name in ("DFEW", "FERV39k", "MAFW") and name not in config.counts:
            raise InputError("SynthConfig", "counts", f"nothing for {name}", f'{{"{name}": {{"train": n, "test": n}}}}')
    for name in ALL:
        if name not in datasets or is_written(root, name, config):
            continue
        drawn = _draw(name, config)
        with (
            files.atomic_folder(root / name, STAMP) as folder,
            progress_bar(total=len(drawn.clip), desc=f"render {name}", unit="frame", disable=not progress) as bar,
        ):
            landmarks = _render_all(drawn, _Sink(drawn, folder, _LAYOUTS[name](drawn, folder)), config, bar, device)
            # The truth first: a stamped dataset always has its own truth beside it.
            with files.atomic_file(_truth_path(root, name)) as path:
                drawn.truth().to_parquet(path, index=False)
            with files.atomic_file(_landmark_path(root, name)) as path, open(path, "wb") as handle:
                np.savez(handle, landmarks=landmarks.astype(np.float32))
            files.write_json(folder / STAMP, _signature(name, config))


def _truth_path(root: Path, dataset: str) -> Path:
    return root / TRUTH / f"{dataset}.parquet"


def _landmark_path(root: Path, dataset: str) -> Path:
    return root / TRUTH / f"{dataset}_landmarks.npz"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise AudferError(
            f"{path}: there is no planted truth here: write the embedded benchmark first (audfer data synth)"
        )
    return path


def read_truth(root: str | os.PathLike, dataset: str) -> pd.DataFrame:
    """What was planted, one row a frame. For evaluating recovery, and for cells that ask for planted action units by
    name.

    Args:
        root: where ``write_benchmark`` wrote.
        dataset: a name from ``ALL``.

    Returns:
        Columns ``clip_id`` (the manifest's; for Aff-Wild2 the video, that is the manifest's up to the colon, and for
        DISFA the subject), ``frame`` (0-based in the clip or video), ``split``, ``expression`` (-1: outside the
        seven), ``subject``, ``ambiguous``, ``second`` (the expression blended in, or -1), ``shown`` (the frame shows
        its label), 18 intensities "AU01_r" .. (0..5) and 18 presences "AU01_c" .. (bool, intensity at or above 1.5).

    Raises:
        AudferError: no truth there.
    """
    return pd.read_parquet(_existing(_truth_path(Path(root), dataset)))


def read_truth_landmarks(root: str | os.PathLike, dataset: str) -> np.ndarray:
    """(frames, 68, 2) float32 x, y in pixels of the written size, rows as in ``read_truth``.

    What a landmark detector would find without error; they may lie outside the picture.

    Raises:
        AudferError: no truth there.
    """
    with np.load(_existing(_landmark_path(Path(root), dataset))) as content:
        return content["landmarks"]
