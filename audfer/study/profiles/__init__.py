"""Profiles: one small TOML file each; a profile changes numbers, never code paths.

``smoke`` runs every code path in a few minutes, ``laptop`` (default) makes all tables and figures on the embedded
benchmark on two CPU cores, ``gpu`` does the same with paper-size networks and several seeds, ``paper`` takes the
real datasets and the paper's protocol.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ...errors import InputError, refuse
from ...facs import EVALUATION_DATASETS, KNOWLEDGE_DATASETS
from ...files import digest
from ..ablations import KNOWLEDGE, PLAIN_BCE, WITH_HEAD

FOLDER = Path(__file__).parent
#: what begins a changed field in a profile's name: laptop+training.epochs=20
_CHANGE = re.compile(r"\+(?=\w+\.[\w.\- ]+=)")
#: what a notebook calls the fields that its readers change -> each field, and what is written into it
PARAMETERS = {
    "model": {"grid.models": "[{}]", "grid.ratio_model": "{}"},
    "dataset": {"grid.datasets": "[{}]", "grid.strategy_dataset": "{}", "grid.strategy_datasets": "[]"},
    "au_ratio": {"grid.au_ratio": "{}"},
    "au_ratios": {"grid.au_ratios": "{}"},
    "epochs": {"training.epochs": "{}"},
}


@dataclass(frozen=True)
class DataSettings:
    """Where clips come from and, for the embedded benchmark, how many are rendered."""

    source: str
    """"embedded" (rendered here) or "disk" (real datasets below ``AUDFER_DATA``, one folder per dataset)"""
    render_size: int = 64
    """side of a rendered frame, pixels"""
    clip_frames: tuple[int, int] = (12, 18)
    """shortest and longest rendered clip, frames"""
    train_clips: dict[str, int] = field(default_factory=dict)
    """training clips a dataset (DFEW, FERV39k, MAFW)"""
    test_clips: dict[str, int] = field(default_factory=dict)
    """test clips a dataset"""
    minimum_clips: tuple[int, int] = (6, 3)
    """fewest clips of an expression in training and test, reached by adding clips"""
    test_frames: int = 0
    """frames of a test clip that are rendered, evenly spread, as networks look at them; 0 = all"""
    ravdess_actors: int = 4
    affwild2_videos: int = 12
    affwild2_frames: int = 250
    """frames a video"""
    disfa_subjects: int = 18
    disfa_frames: int = 240
    """frames a subject"""
    seed: int = 0


@dataclass(frozen=True)
class EstimatorSettings:
    """The action-unit estimator of notebook 01."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    held_out_fold: int = 1
    """which third of the annotated subjects is kept for evaluation (1 to 3)"""
    source: str = "trained"
    """"trained" here, on the other two thirds, or "shipped": the one that comes with the package, which has seen nobody
    of this profile and is judged on all annotated subjects"""


@dataclass(frozen=True)
class TrainingSettings:
    """How every cell is trained."""

    size: str
    """"tiny" or "paper" """
    epochs: int
    """0 = the recipe's own"""
    num_frames: int
    """frames of a clip that a network sees"""
    stored_frames: int
    """frames of a clip kept in the packed store; training draws ``num_frames`` of them with jitter"""
    image_size: int
    """pixels"""
    seeds: tuple[int, ...] = (0,)
    device: str = "auto"
    """"auto", "cpu" or "cuda" """
    precision: str = "auto"
    """"auto" (bfloat16 where the processor has it), "bf16" or "float32" """
    workers: int = 0
    """cells trained at once; 0 = one a CPU core on CPU, one on a GPU"""
    recipes: dict[str, str] = field(default_factory=dict)
    """network -> recipe of ``audfer.recipes.RECIPES``, where it is not the default of the size"""
    initialisation: str = "scratch"
    """what cells start from, as far as it has weights for their network: "scratch"; "shipped", the weights of tiny
    networks that come with the package; "mae", the profile's own masked pre-training of MAE-DFER"""
    accumulate: int = 1
    """micro-batches that each batch of a recipe is cut into, for networks that do not fit a GPU otherwise"""
    evaluate_every: int = 1
    """epochs from one look at the test clips to the next; the last is always looked at"""
    validation: float = 0.0
    """share of the training clips held out to choose an epoch by ("best-on-validation"); 0 = none"""


@dataclass(frozen=True)
class PretrainingSettings:
    """MAE-DFER's self-supervised pre-training (notebook 03's appendix) on the training clips of all evaluation
    datasets.
    """

    epochs: int = 50
    """50 of a 100-epoch schedule is what the official fine-tuning starts from"""
    mask_ratio: float = 0.9
    """share of places that are hidden, the official one"""
    motion_weight: float = 0.5
    """lambda of (1 - lambda) L_appearance + lambda L_motion"""


@dataclass(frozen=True)
class GridSettings:
    """Which cells the tables and figures need."""

    models: tuple[str, ...] = field(default_factory=lambda: _own_networks())
    """networks of the tables; by default all that come with the package"""
    datasets: tuple[str, ...] = EVALUATION_DATASETS
    knowledge_datasets: tuple[str, ...] = KNOWLEDGE_DATASETS
    strategies: tuple[str, ...] = ("global", "distinct", "minor")
    strategy: str = "global"
    """the strategy of Tables 1 and 2; the paper shows each network's best of three there (M3DFEL global, the others
    distinct)
    """
    strategy_dataset: str = "DFEW"
    """the dataset of Tables 2 and 3, Figs. 6 to 8 and the ablations"""
    strategy_datasets: tuple[str, ...] = ()
    """further datasets for Table 3"""
    folds: tuple[int, ...] = (1,)
    """folds of Tables 1 to 3 on datasets that have several; figures and ablations take the first"""
    ablations: tuple[str, ...] = WITH_HEAD
    """variants of ``audfer.ablations`` besides the network alone"""
    ablation_seeds: tuple[int, ...] = ()
    """seeds of the ablations; () = ``training.seeds``"""
    ratio_seeds: tuple[int, ...] = ()
    """seeds of Fig. 5; () = ``training.seeds``"""
    starts: tuple[str, ...] = ("scratch", "mae")
    """what networks of notebook 03's comparison start from: "scratch", "shipped", "mae" (MAE-DFER alone)"""
    au_ratio: float = 0.25
    """lambda of Eq. 10; the paper gives none, its release defaults to 0.25"""
    au_ratios: tuple[float, ...] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75)
    """lambdas of Fig. 5"""
    ratio_model: str = "m3dfel"
    """network of Figs. 5, 7 and 8"""
    knowledge: str = "paper"
    """"paper" or "release" reading of section 3.1"""
    thetas: tuple[float, ...] = (0.0, 0.3, 0.5)
    """thresholds of Eq. 3 that notebook 02 compares"""


@dataclass(frozen=True)
class KeypointSettings:
    """The key-point network's own ablations (notebook A2), on ``GridSettings.strategy_dataset``."""

    variants: tuple[str, ...] = ()
    """names of ``models.NETWORKS["keypoint_gcn"].variants``; () = all"""


@dataclass(frozen=True)
class RecognitionSettings:
    """Lock and Check (appendix A3): its network, and which cells its paper's tables need.

    The defaults are the paper's.
    """

    size: str = "paper"
    """of ``action_units.recognition.RECIPES``"""
    image_size: int = 0
    """pixels; 0 = the size's own"""
    initialisation: str = "scratch"
    """"scratch"; "estimator" (size "estimator": the weights of the estimator of notebook 01); or the path of ImageNet
    weights in torchvision's naming"""
    window: int = 16
    """t, frames of a window"""
    segments: int = 12
    """N_sep, windows of each subject in an epoch"""
    epochs: int = 0
    """of the cells of the tables; 0 = the recipe's"""
    final_epochs: int = 0
    """of the profile's recogniser; 0 = as the cells"""
    windows: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """of Table V"""
    segment_counts: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    """of Table VI"""
    folds: tuple[int, ...] = ()
    """of the annotated set that are held out in turn; () = the estimator's held-out one"""


@dataclass(frozen=True)
class Profile:
    """All numbers of one run; see the groups."""

    name: str
    summary: str
    data: DataSettings
    estimator: EstimatorSettings
    training: TrainingSettings
    grid: GridSettings
    recipe: dict[str, Any] = field(default_factory=dict)
    """fields of ``audfer.recipes.Recipe`` that differ from every network's recipe: learning_rate, batch_size ..."""
    pretraining: PretrainingSettings = PretrainingSettings()
    keypoint: KeypointSettings = KeypointSettings()
    recognition: RecognitionSettings = RecognitionSettings()

    @property
    def embedded(self) -> bool:
        """Whether the clips are rendered (then every caption says so)."""
        return self.data.source == "embedded"

    def to_dict(self) -> dict:
        """Plain nested dictionary, for records."""
        return asdict(self)


def _own_networks() -> tuple[str, ...]:
    from ...models import NETWORKS  # brings torch, which most of this file does without

    return tuple(name for name, network in NETWORKS.items() if network.build.__module__.startswith("audfer."))


def available_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """Read a profile by name, or from a path that ends in ``.toml``.

    Fields may be changed behind it: "laptop+training.epochs=20", values as in a profile's file. A changed profile has
    a name, hence folders, of its own.

    Raises:
        InputError: unknown name, unknown or missing key, or a value of the wrong type; the sentence names the nearest
            valid name.
    """
    name, *changes = _CHANGE.split(str(name))
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        near = get_close_matches(str(name), available_profiles(), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            "profile",
            "name",
            repr(str(name)),
            f"one of {', '.join(available_profiles())}, or a path ending in .toml{hint}",
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are no TOML error
        raise InputError(path, "TOML syntax", str(error), "a valid TOML file in UTF-8") from None
    return profile_from(_changed({"name": path.stem, **content}, changes), path)


def with_changes(profile: str, changes: Sequence[str]) -> str:
    """The name of a profile with fields changed, "training.epochs=20" each; a path is made absolute.

    Raises:
        InputError: a change that is not FIELD=VALUE with the field's group.
    """
    for change in changes:
        if not _CHANGE.match(f"+{change}"):
            raise InputError("command line", "--set", repr(change), "GROUP.FIELD=VALUE, for example training.epochs=20")
    base, *before = _CHANGE.split(profile)
    base = str(Path(base).expanduser().resolve()) if base.endswith(".toml") else base
    return "+".join([base, *before, *changes])


def with_parameters(profile: str, **given) -> str:
    """The name of a profile with what a notebook's parameters change.

    Args:
        profile: "" = ``AUDFER_PROFILE``, else laptop.
        given: model, dataset, au_ratio, au_ratios (a list), epochs; "" or ``None`` leaves the profile's.

    Raises:
        InputError: as ``with_changes``.
    """
    values = {name: json.dumps(value, default=str) for name, value in given.items() if value not in ("", None)}
    changes = [f"{field}={text.format(v)}" for name, v in values.items() for field, text in PARAMETERS[name].items()]
    return with_changes(str(profile or os.environ.get("AUDFER_PROFILE") or "laptop"), changes)


def _changed(content: dict, changes: Sequence[str]) -> dict:
    if not changes:
        return content
    chosen = sorted(dict(change.split("=", 1) for change in changes).items())  # the last of one field counts
    texts = [f"{name}={value}" for name, value in chosen]
    for name, text in chosen:
        *groups, last = name.split(".")
        place = content
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise InputError("profile", name, "a field of a field", f"GROUP.FIELD; {group} is no group")
        try:
            place[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[last] = text
    name = f"{content['name']}+{'+'.join(texts)}"
    if len(name) > 80 or re.search(r"[^\w.+=-]", name):  # for folders
        name = f"{content['name']}+{digest(texts, 8)}"
    return {**content, "name": name, "summary": f"{content.get('summary', '')}; with {', '.join(texts)}"}


def profile_from(content: dict, path: Path) -> Profile:
    """A profile from a nested dictionary (``Profile.to_dict``); ``path`` is where it is from, for errors.

    Raises:
        InputError: as ``load_profile``.
    """
    profile = _build(Profile, content, path, "")
    _check(profile, path)
    return profile


def _build(kind: type, content: dict, path: Path, prefix: str) -> Any:
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in content:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise InputError(
                path,
                prefix + key,
                "an unknown key",
                f"one of {', '.join(known)}" + (f" (did you mean {near[0]}?)" if near else ""),
            )
    values = {}
    for key, spec in known.items():
        if key not in content:
            if spec.default is MISSING and spec.default_factory is MISSING:
                raise InputError(path, prefix + key, "nothing", "a value: this key has no default")
            continue
        values[key] = _value(hints[key], content[key], path, prefix + key)
    return kind(**values)


def _value(hint: Any, found: Any, path: Path, name: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(found, dict):
            raise InputError(path, name, repr(found), f"a table [{name}]")
        return _build(hint, found, path, name + ".")
    origin = get_origin(hint)
    if hint is Any:
        return found
    if origin is UnionType:
        hint, origin = next((a, get_origin(a)) for a in get_args(hint) if a is not type(None))
    if origin is tuple and isinstance(found, list):
        return tuple(_value(get_args(hint)[0], item, path, name) for item in found)
    if origin is dict and isinstance(found, dict):
        return {str(k): _value(get_args(hint)[1], v, path, f"{name}.{k}") for k, v in found.items()}
    if hint is float and isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**1000:
        return float(found)
    if origin is None and isinstance(found, hint) and not (hint is int and isinstance(found, bool)):
        return found
    raise InputError(path, name, repr(found), f"a value of type {getattr(hint, '__name__', hint)}")


def _sizes(profile: Profile) -> Iterator[tuple[bool, str, object, str]]:
    """Numbers too small to mean anything, or so large that memory or disk would end the run somewhere in the middle."""
    data, training, recognition = profile.data, profile.training, profile.recognition
    for name, least in {
        **dict.fromkeys(("estimator.epochs", "estimator.batch_size", "data.render_size", "data.clip_frames"), 1),
        **dict.fromkeys((f"training.{name}" for name in ("num_frames", "stored_frames", "image_size")), 1),
        **dict.fromkeys(("training.epochs", "training.workers", "training.seeds", "recognition.image_size"), 0),
        **dict.fromkeys(("data.ravdess_actors", "data.affwild2_videos", "data.affwild2_frames"), 0),
        **dict.fromkeys(("recognition.window", "recognition.windows"), 1),
        **dict.fromkeys(("data.disfa_subjects", "data.disfa_frames", "data.train_clips", "data.test_clips"), 0),
    }.items():
        value = attrgetter(name)(profile)
        values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for one in values:
            most = 2**32 - 1 if name == "training.seeds" else 1_000_000
            yield not least <= one <= most, name, one, f"a number from {least} to {most:,}"
    yield len(data.clip_frames) != 2, "data.clip_frames", data.clip_frames, "two lengths"
    shortest, longest = data.clip_frames
    yield shortest > longest, "data.clip_frames", data.clip_frames, "the shorter length first"
    windows = max(recognition.window, *recognition.windows, 1)
    for names, frames, side in (
        ("training.stored_frames and training.image_size", training.stored_frames, training.image_size),
        ("data.clip_frames and data.render_size", longest, data.render_size),
        ("recognition.windows and recognition.image_size", windows, recognition.image_size),
    ):
        need = frames * side**2 * 3 / 1e9
        yield (
            need > 1,
            names,
            f"{frames} frames of {side} pixels",
            f"a clip of at most 1 GB; this one has {need:,.0f} GB",
        )
    clips = (sum(data.train_clips.values()) + sum(data.test_clips.values())) * longest
    pictures = clips + data.affwild2_videos * data.affwild2_frames + data.disfa_subjects * data.disfa_frames
    need = pictures * data.render_size**2 * 3 / 1e12 * profile.embedded
    yield need > 1, "data", f"{pictures:,} rendered frames", f"at most 1 TB of pixels; these have {need:,.0f} TB"


def _check(profile: Profile, path: Path) -> None:
    """Refuse values that are of the right type and still mean nothing, and settings that contradict each other."""
    refuse(path, _sizes(profile))
    data, training, grid, recognition = profile.data, profile.training, profile.grid, profile.recognition
    held_out = (profile.estimator.held_out_fold,)
    allowed = [
        ("data.source", (data.source,), ("embedded", "disk")),
        ("training.size", (training.size,), ("tiny", "paper")),
        ("training.device", (training.device,), ("auto", "cpu", "cuda")),
        ("training.initialisation", (training.initialisation,), ("scratch", "shipped", "mae")),
        ("estimator.source", (profile.estimator.source,), ("trained", "shipped")),
        ("training.precision", (training.precision,), ("auto", "bf16", "float32")),
        ("recognition.size", (recognition.size,), ("paper", "small", "tiny", "estimator")),
        ("recognition.folds", recognition.folds, held_out if recognition.size == "estimator" else (1, 2, 3)),
        ("estimator.held_out_fold", held_out, (1, 2, 3)),
        ("grid.knowledge", (grid.knowledge,), ("paper", "release")),
        ("grid.strategy", (grid.strategy,), grid.strategies),
        ("grid.strategy_dataset", (grid.strategy_dataset,), grid.datasets),
        ("grid.strategy_datasets", grid.strategy_datasets, grid.datasets),
        ("grid.ablations", grid.ablations, WITH_HEAD),
        ("grid.ratio_model", (grid.ratio_model,), grid.models),
    ]
    if training.recipes:
        from ...training.recipes import RECIPES  # as in _own_networks

        for model, recipe in training.recipes.items():
            own = [name for name in RECIPES if name.startswith(f"{model}-")]
            allowed.append((f"training.recipes.{model}", (recipe,), own))
    if profile.recipe:
        from ...recipes import TINY, changed

        changed(TINY, profile.recipe, str(path))
    if profile.keypoint.variants:
        from ...models import NETWORKS  # as in _own_networks

        if "keypoint_gcn" in NETWORKS:  # a wing, which may be away
            allowed.append(("keypoint.variants", profile.keypoint.variants, NETWORKS["keypoint_gcn"].variants))
    for name, values, known in allowed:
        for value in values:
            if value not in known:
                raise InputError(path, name, repr(value), "one of " + ", ".join(map(str, known)))

    pretraining, ratios = profile.pretraining, (grid.au_ratio, *grid.au_ratios)
    compared = [name for name in (PLAIN_BCE, KNOWLEDGE) if grid.ablations and name not in grid.ablations]
    unlisted = [name for name in grid.datasets if not {name} <= data.train_clips.keys() & data.test_clips.keys()]
    of_estimator = recognition.initialisation == "estimator", recognition.size == "estimator"
    rules = [
        (
            len(set(of_estimator)) == 1,
            "recognition.initialisation",
            repr(recognition.initialisation),
            '"estimator" exactly with size "estimator", whose backbone takes those weights',
        ),
        *(
            (min(*several, one) >= 1, f"recognition.{name}", one, "numbers of at least 1")
            for name, one, several in (
                ("window", recognition.window, (1, *recognition.windows)),
                ("segments", recognition.segments, (1, *recognition.segment_counts)),
            )
        ),
        (
            pretraining.epochs >= 1 and 0 < pretraining.mask_ratio < 1 and 0 <= pretraining.motion_weight <= 1,
            "pretraining",
            f"{pretraining}",
            "at least 1 epoch, a mask ratio between 0 and 1, and a motion weight from 0 to 1",
        ),
        (
            not compared,
            "grid.ablations",
            ", ".join(grid.ablations),
            f"{compared and compared[0]} among them: others are compared with it",
        ),
        (
            grid.folds and min(grid.folds) >= 1 and len(set(grid.folds)) == len(grid.folds),
            "grid.folds",
            grid.folds,
            "at least one fold, numbered from 1, each once",
        ),
        (
            not profile.embedded or grid.folds == (1,),
            "grid.folds",
            grid.folds,
            "[1]: the embedded benchmark has one fold",
        ),
        (
            all(0 <= ratio < 1 for ratio in ratios),
            "grid.au_ratio",
            next((ratio for ratio in ratios if not 0 <= ratio < 1), None),
            "lambda of Eq. 10, at least 0 and less than 1",
        ),
        (
            training.accumulate >= 1 and training.evaluate_every >= 1 and 0 <= training.validation <= 0.5,
            "training.accumulate, evaluate_every, validation",
            f"{training.accumulate}, {training.evaluate_every}, {training.validation}",
            "at least 1 micro-batch, at least 1 epoch, and a share from 0 to 0.5",
        ),
        (
            training.stored_frames >= training.num_frames,
            "training.stored_frames",
            training.stored_frames,
            f"at least training.num_frames ({training.num_frames})",
        ),
        (
            not profile.embedded or not unlisted,
            f"data.train_clips.{(unlisted or [''])[0]}",
            "nothing",
            "how many clips to render",
        ),
    ]
    for holds, name, value, expected in rules:
        if not holds:
            raise InputError(path, name, value, expected)
