"""One cell: train a network on one dataset with or without the AU head, evaluate it, leave a run record.

A *cell* is everything that can change a result (network, dataset, loss, recipe, seed). ``fit`` is deterministic under
its seed, saves its state after every epoch, goes on from there after a kill, and then ends with the numbers it would
have had without the interruption. Under torchrun several processes train it together (``distributed``), to the same
numbers up to rounding. Section 3.3 of the paper (Eqs. 5, 9, 10) for the loss, 4.3 for the recipes.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from ..datasets import PackedClips, open_packed
from ..errors import AudferError, InputError
from ..evaluation.statistics import uar, war
from ..facs import EXPRESSIONS
from ..files import atomic_file
from ..knowledge import WEIGHTS, KnowledgeMatrix
from ..losses import PLAIN, READINGS, STRATEGIES, AULoss, combined_loss, positive_class_weight
from ..models import (
    NETWORKS,
    ClipModel,
    Output,
    build_model,
    count_flops,
    load_official_state_dict,
    read_checkpoint,
)
from ..models.output import part_of_batch
from ..recipes import Recipe
from ..sampling import stored_indices
from . import distributed
from .augmentation import augment_with_points, mix, mixed_targets, resize
from .recipes import RECIPES, build_optimizer, learning_rate, recipe_name, set_learning_rate

#: whose action units a cell may be trained with: the profile's extractor, Lock and Check, or (rendered clips) the
#: planted ones
AU_SOURCES = ("", "lac", "planted")
#: steps from one look at the losses to the next; a look waits for the GPU
_WATCH = 16


@dataclass(frozen=True)
class Cell:
    """What to train. Two cells with equal fields on equal data give equal numbers.

    Attributes:
        model: name for ``audfer.models.build_model``.
        dataset: "DFEW", "FERV39k" or "MAFW".
        au_ratio: lambda of Eq. 10; 0 trains the backbone alone, without an AU head.
        strategy: positive class weight of Eqs. 6 to 8: "global", "distinct", "minor", or "plain" (all 1); "none"
            without an AU head.
        weights: which matrix weighs the AU loss, one of ``knowledge.WEIGHTS``: "knowledge" is K of section 3.1, "none"
            none (every AU weighs the same), the others are controls.
        reduction: of Eq. 9, "mean" (the release's) or "sum_over_aus" (the paper's).
        epochs: passes over the training clips; the recipe's schedule is stretched or shrunk to them.
        precision: "bf16" (autocast) or "float32".
        device: "cpu" or "cuda".
        recipe: name in ``recipes.RECIPES``; "" = ``<model>-<size>``.
        initialisation: "scratch", or any other name for the weights of ``CellInputs.initial_weights`` ("mae",
            "kinetics", "official").
        fold: of the dataset.
        reading: of Eqs. 4 and 6 to 8, one of ``losses.READINGS``.
        accumulate: micro-batches that a batch of the recipe is cut into, each with a backward pass of its own, for
            networks that do not fit a device otherwise. The optimizer's steps are the same ones: in networks without
            batch norm to rounding, while batch norms see each micro-batch for itself.
        validation: share of the training clips, 0 to 0.5, that is not trained on but chooses an epoch
            ("best-on-validation"); see ``hold_out``.
        variant: name in ``models.NETWORKS[model].variants``, for ablations of a network; "" = the network itself.
        evaluate_every: epochs from one look at the test (and validation) clips to the next; the last epoch is always
            looked at. "Best-on-test" and "best-on-validation" are the best of those looked at.
        au_source: whose action units both AU labels and knowledge are made of: "" = the profile's extractor, "lac" =
            Lock and Check, "planted" = the truth of rendered clips (to measure what perfect action units would give).
    """

    model: str
    dataset: str
    au_ratio: float = 0.0
    strategy: str = "none"
    weights: str = "none"
    reduction: str = "mean"
    seed: int = 0
    size: str = "tiny"
    epochs: int = 12
    num_frames: int = 8
    image_size: int = 48
    precision: str = "float32"
    device: str = "cpu"
    recipe: str = ""
    initialisation: str = "scratch"
    fold: int = 1
    reading: str = "paper"
    accumulate: int = 1
    validation: float = 0.0
    variant: str = ""
    au_source: str = ""
    evaluate_every: int = 1

    def __post_init__(self):
        if not 0 <= self.au_ratio < 1:
            raise InputError("cell", "au_ratio", self.au_ratio, "lambda of Eq. 10: at least 0 and less than 1")
        if (self.au_ratio > 0) != (self.strategy != "none"):
            raise InputError(
                "cell",
                "strategy with au_ratio",
                f"{self.strategy!r} with {self.au_ratio}",
                "strategy 'none' exactly when au_ratio is 0 (no AU head)",
            )
        for name, allowed in (
            ("strategy", ("none", *STRATEGIES, PLAIN)),
            ("weights", WEIGHTS),
            ("reading", READINGS),
            ("reduction", ("mean", "sum_over_aus")),
            ("precision", ("float32", "bf16")),
            ("device", ("cpu", "cuda")),
            ("au_source", AU_SOURCES),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    "cell",
                    name,
                    repr(getattr(self, name)),
                    f"one of {', '.join(value or repr(value) for value in allowed)}",
                )
        if not self.uses_aus and (self.weights, self.reading, self.au_source) != ("none", "paper", ""):
            raise InputError(
                "cell",
                "weights, reading and au_source without an AU head",
                f"{self.weights!r}, {self.reading!r}, {self.au_source!r}",
                "weights 'none', reading 'paper' and au_source '' when au_ratio is 0",
            )
        if self.model not in NETWORKS or self.size not in NETWORKS[self.model].sizes:
            sizes = NETWORKS[self.model if self.model in NETWORKS else "m3dfel"].sizes
            raise InputError(
                "cell",
                "model and size",
                f"{self.model!r}, {self.size!r}",
                f"one of {', '.join(NETWORKS)} with one of {', '.join(sizes)}",
            )
        variants = NETWORKS[self.model].variants
        if self.variant and self.variant not in variants:
            raise InputError(
                "cell",
                "variant",
                repr(self.variant),
                f"one of {', '.join(variants)}, or '' for the network itself"
                if variants
                else f"'': {self.model} has no variants",
            )
        recipe_name(self.model, self.size, self.recipe)
        for name, least in (
            ("fold", 1),
            ("epochs", 1),
            ("num_frames", 1),
            ("image_size", 1),
            ("accumulate", 1),
            ("seed", 0),
            ("evaluate_every", 1),
        ):
            if getattr(self, name) < least:
                raise InputError("cell", name, getattr(self, name), f"at least {least}")
        if self.accumulate > self.training_recipe.batch_size:
            raise InputError(
                "cell",
                "accumulate",
                self.accumulate,
                f"at most {self.training_recipe.batch_size}, the clips of a batch of the recipe",
            )
        if self.uses_landmarks and (self.training_recipe.mixup or self.training_recipe.cutmix):
            raise InputError(
                "cell",
                "recipe",
                f"{recipe_name(self.model, self.size, self.recipe)!r} with mixup or cutmix",
                f"a recipe without them for {self.model}: two mixed faces have no one set of landmarks",
            )
        if not 0 <= self.validation <= 0.5:
            raise InputError("cell", "validation", self.validation, "a share of the training clips, 0 to 0.5")
        if not self.initialisation:
            raise InputError("cell", "initialisation", "''", "'scratch', or a name for the weights to start from")

    @property
    def training_recipe(self) -> Recipe:
        """The recipe itself."""
        return RECIPES[recipe_name(self.model, self.size, self.recipe)]

    @property
    def uses_aus(self) -> bool:
        """Whether the network has an AU head."""
        return self.au_ratio > 0

    @property
    def uses_landmarks(self) -> bool:
        """Whether the network takes facial landmarks beside the clips."""
        return NETWORKS[self.model].build.uses_landmarks

    @property
    def label(self) -> str:
        """Short text for progress lines: ``m3dfel DFEW +AU 0.25 global``, and what is not the default."""
        text = f"{self.model}{f' ({self.variant})' if self.variant else ''} {self.dataset}"
        if self.uses_aus:
            shown = {"knowledge": "", "none": " no K"}.get(self.weights, f" {self.weights}")
            text += f" +AU {self.au_ratio:g} {self.strategy}{shown}"
        others = (
            self.recipe,
            self.initialisation,
            self.reading,
            f"fold {self.fold}",
            self.au_source and f"AUs {self.au_source}",
        )
        return " ".join([text, *(name for name in others if name not in ("", "scratch", "paper", "fold 1"))])

    @property
    def source(self) -> str:
        """Whose ``CellInputs`` the cell takes: its dataset's, or those of its fold, control matrix, reading or AU
        source.
        """
        parts = [self.dataset]
        if self.fold != 1:
            parts.append(f"fold {self.fold}")
        if self.weights not in ("none", "knowledge"):
            parts.append(f"{self.weights} {self.seed}" if self.weights.startswith("shuffled") else self.weights)
        if self.reading != "paper":
            parts.append(f"{self.reading} {self.strategy}")
        if self.au_source:
            parts.append(f"AUs {self.au_source}")
        return ", ".join(parts)


@dataclass(frozen=True)
class CellInputs:
    """What a cell is trained from; paths, so that a worker process opens them itself.

    Attributes:
        packed: folder of a packed clip store.
        au_labels: npz with ``clip_ids`` (N,) and ``labels`` (N, 18) of 0, 1, NaN = unknown (Eq. 4); rows as in the
            store. With ``pos_weight`` in it that takes the place of Eqs. 6 to 8 on these labels (the release's
            reading).
        knowledge: json of the KnowledgeMatrix that the cell's ``weights`` name.
        fingerprint: digest of the clips; ``au_fingerprint``: of the content of ``au_labels``;
            ``knowledge_fingerprint``: of the matrix.
        initial_weights: checkpoint that a cell with another initialisation than "scratch" starts from: anything that
            ``models.load_official_state_dict`` takes. ``initial_fingerprint``: its digest.
        landmarks: .npy of ``landmarks.packed_landmarks``, float32 (N, T, 68, 2), rows and frames as in the store, for
            networks that use them; "" = none. ``landmarks_fingerprint``: its digest.
    """

    packed: str
    au_labels: str
    knowledge: str
    fingerprint: str
    au_fingerprint: str
    initial_weights: str = ""
    initial_fingerprint: str = ""
    knowledge_fingerprint: str = ""
    landmarks: str = ""
    landmarks_fingerprint: str = ""


# ---------------------------------------------------------------------------------------------------------- device


def resolve_device(device: str = "auto") -> str:
    """ "cuda" or "cpu"; "auto" takes the GPU where there is one.

    Raises:
        AudferError: "cuda" was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise AudferError(
            'device: found no CUDA GPU, expected one because the profile says device = "cuda"; '
            'take another profile (for example laptop) or set device = "auto"'
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(precision: str = "auto", device: str = "cpu") -> str:
    """ "bf16" or "float32"; "auto" takes bfloat16 autocast where the processor computes in it (AVX512-BF16, AMX, recent
    GPUs).
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "float32"


@contextmanager
def fastest_convolutions():
    """On a GPU, have cuDNN try its ways to compute each convolution once and keep the fastest: shapes do not change in
    a cell.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def threads(count: int):
    """One thread inside a cell: the order of floating-point sums, and so the numbers, do not depend on the machine's
    cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------------ clips


def gather_frames(
    packed: PackedClips, rows: np.ndarray, chosen: np.ndarray, image_size: int | None, device: str
) -> torch.Tensor:
    """The frames ``chosen`` (B, T) of the clips ``rows`` (B,) as a batch (B, T, C, H, W) uint8.

    Args:
        image_size: side to resize to if need be; ``None`` = as stored.
    """
    clips = torch.from_numpy(np.stack([packed.frames[row][frames] for row, frames in zip(rows, chosen, strict=True)]))
    if device == "cuda":
        clips = clips.pin_memory()  # copied while the GPU still computes the last step
    batch = clips.to(device, non_blocking=True).permute(0, 1, 4, 2, 3)
    if image_size is None or batch.shape[-1] == image_size:
        return batch
    return resize(batch.float(), image_size).round().to(torch.uint8)


def gather_points(
    landmarks: np.ndarray | None, rows: np.ndarray, chosen: np.ndarray, device: str
) -> torch.Tensor | None:
    """Landmarks of the frames that ``gather_frames`` gives: float32 (B, T, 68, 2) in units of the side; ``None`` of
    ``None``.

    Args:
        landmarks: (N, T', 68, 2), rows and frames as in the store.
    """
    if landmarks is None:
        return None
    return torch.from_numpy(np.stack([landmarks[row][frames] for row, frames in zip(rows, chosen, strict=True)])).to(
        device, non_blocking=True
    )


def open_landmarks(cell: Cell, inputs: CellInputs, packed: PackedClips) -> np.ndarray | None:
    """The landmarks of a cell's clips, memory-mapped; ``None`` for networks without.

    Raises:
        InputError: the network needs them and there is no file, or one of other clips.
    """
    if not cell.uses_landmarks:
        return None
    if not inputs.landmarks:
        raise InputError(
            "cell",
            "landmarks",
            f"none for {cell.model}",
            "a file in CellInputs.landmarks (landmarks.packed_landmarks; NaN where unknown)",
        )
    landmarks = np.load(inputs.landmarks, mmap_mode="r")
    if landmarks.shape != (*packed.frames.shape[:2], 68, 2):
        raise InputError(
            inputs.landmarks,
            "shape of the landmarks",
            landmarks.shape,
            f"{(*packed.frames.shape[:2], 68, 2)}, as the clips of {inputs.packed}",
        )
    return landmarks


def choose_frames(
    packed: PackedClips, rows: np.ndarray, rule: str, cell: Cell, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Positions of frames in the store, int64 (views, B, num_frames), by a rule of ``sampling.SAMPLING``."""
    stride = cell.training_recipe.frame_stride
    chosen = [
        stored_indices(rule, numbers, cell.num_frames, generator, stride) for numbers in packed.frame_numbers[rows]
    ]
    return np.stack(chosen, axis=1)


def clip_groups(clips: pd.DataFrame) -> np.ndarray:
    """Who clips are of: the subject, else the video that several clips of the table were cut from, else "" (str, (N,)).

    Args:
        clips: a manifest's table.
    """
    shared = clips["path"].duplicated(keep=False)
    return np.where(clips["subject"] != "", clips["subject"], np.where(shared, clips["path"], "")).astype(str)


def hold_out(clips: pd.DataFrame, rows: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Carve a validation split from training clips.

    Whole subjects (or videos) where ``clip_groups`` knows them, so that nobody is on both sides; else clips of each
    expression in equal shares. The same seed gives the same split for every network.

    Args:
        clips: a manifest's table. rows: positions of the training clips in it.
        share: about how much of them is held out; 0 = nothing.

    Returns:
        Positions kept and held out, rising, and by what: "subject", "expression", or "" for nothing held out.

    Raises:
        InputError: a side would be empty, or the clips are of one subject.
    """
    if not share:
        return rows, rows[:0], ""
    from sklearn.model_selection import StratifiedGroupKFold

    table = clips.iloc[rows]
    groups, expressions = clip_groups(table), table["expression"].to_numpy()
    if (groups != "").any():
        units = np.where(groups == "", table["clip_id"], groups)
        folds = max(2, round(1 / share))
        if len(np.unique(units)) < folds:
            raise InputError(
                "cell",
                "validation",
                f"{share:g} of clips of {len(np.unique(units))} subjects",
                f"at least {folds} subjects, so that those held out are others than those trained on",
            )
        cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        _, held = next(iter(cut.split(rows, expressions, units)))
        by = "subject"
    else:
        generator = np.random.default_rng([seed, 3])
        held = np.concatenate(
            [
                found[: round(share * len(found))]
                for label in np.unique(expressions)
                for found in [generator.permutation(np.flatnonzero(expressions == label))]
            ]
        )
        by = "expression"
    if not 0 < len(held) < len(rows):
        raise InputError(
            "cell", "validation", f"{share:g} of {len(rows)} training clips", "a share that leaves clips on both sides"
        )
    out = np.zeros(len(rows), bool)
    out[held] = True
    return rows[~out], rows[out], by


# -------------------------------------------------------------------------------------------------------------- fit


def autocast(cell: Cell):
    """The autocast context that a cell (anything with ``device`` and ``precision``) asks for."""
    return torch.autocast(cell.device, dtype=torch.bfloat16, enabled=cell.precision == "bf16")


@torch.inference_mode()
def predict(
    model: nn.Module,
    packed: PackedClips,
    rows: np.ndarray,
    cell: Cell,
    epoch: int = 0,
    landmarks: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Evaluation without augmentation, on the frames of the recipe's test rule; over several views, means.

    Every process that trains together takes its share of the clips; all of them get the whole result.

    Args:
        epoch: for the random test rules of some releases: another draw for every seed and epoch.
        landmarks: as ``open_landmarks`` gives them, for a network that uses them.

    Returns:
        ``scores`` (N, 7) soft-max probabilities, ``au_scores`` (N, 18) sigmoid or absent, ``features`` (N, D); float32.
    """
    model.eval()
    recipe, generator = cell.training_recipe, np.random.default_rng([cell.seed, 2, epoch])
    parts: dict[str, list[np.ndarray]] = {"scores": [], "au_scores": [], "features": []}
    chosen = choose_frames(packed, rows, recipe.test_sampling, cell, generator)
    own = distributed.part(np.arange(len(rows)))
    for chunk in np.array_split(own, math.ceil(len(own) / (2 * recipe.batch_size))):
        views = []
        for view in chosen[:, chunk]:
            clips = gather_frames(packed, rows[chunk], view, cell.image_size, cell.device)
            with autocast(cell):
                views.append(_forward(model, clips, gather_points(landmarks, rows[chunk], view, cell.device)))
        logits, au_logits, features = (
            None if part[0] is None else torch.stack(part).float() for part in list(zip(*views, strict=True))[:3]
        )
        parts["scores"].append(logits.softmax(-1).mean(0).cpu().numpy())
        parts["features"].append(features.mean(0).cpu().numpy())
        if au_logits is not None:
            parts["au_scores"].append(au_logits.sigmoid().mean(0).cpu().numpy())
    return {name: distributed.joined(np.concatenate(part)) for name, part in parts.items() if part}


def _forward(model: nn.Module, clips: torch.Tensor, points: torch.Tensor | None) -> Output:
    return model(clips) if points is None else model(clips, points)


def _au_loss(
    cell: Cell, inputs: CellInputs, packed: PackedClips, train: np.ndarray
) -> tuple[nn.Module, torch.Tensor, np.ndarray]:
    """The AU loss of a cell, the AU labels of every clip in the store, and the (7, 18) positive class weights of the
    loss.

    Weights come from the training split only.
    """
    with np.load(inputs.au_labels, allow_pickle=False) as stored:
        if list(stored["clip_ids"]) != packed.clip_ids:
            raise InputError(
                inputs.au_labels,
                "clip_ids",
                "other clips or another order than the packed store",
                f"the {len(packed.manifest)} clips of {inputs.packed}",
            )
        labels = torch.from_numpy(stored["labels"].astype(np.float32))
        pos_weight = stored.get("pos_weight", None)
    expressions = torch.tensor(packed.expressions)
    if pos_weight is None and cell.strategy != PLAIN:
        pos_weight = positive_class_weight(labels[train], expressions[train], strategy=cell.strategy)
    knowledge = None if cell.weights == "none" else KnowledgeMatrix.load(inputs.knowledge)
    shown = torch.as_tensor(1.0 if pos_weight is None else pos_weight).expand(len(EXPRESSIONS), labels.shape[1])
    return AULoss(knowledge, pos_weight, reduction=cell.reduction), labels, shown.numpy().copy()


def fit(cell: Cell, inputs: CellInputs, scratch: Path | None = None, report=None) -> dict:
    """Train and evaluate one cell.

    Under torchrun rank 0 calls this, and the other processes (in ``assist``) do their part of it.

    Args:
        scratch: folder for the state after every epoch (``state.pt``, and ``history.csv`` to look at); an unfinished
            run found there is gone on with. Several machines need one that all of them see.
        report: called with each epoch's history row (a dict), after its state was saved.

    Returns:
        ``history`` DataFrame; of the test split ``clip_ids``, ``expressions``, ``groups`` (``clip_groups``),
        ``au_labels`` (N, 18) or None, ``positive_weights`` (7, 18) or None, and after the last epoch ``scores``,
        ``au_scores`` or None, ``features``; ``best_scores`` and ``validated_scores`` (or None) of the epochs that
        ``protocols`` names, with how each was chosen; ``validation`` (share, by, clip_ids); ``flops``, ``state_dict``,
        ``recipe``, ``seconds``. ``costs``: seconds of training and of evaluation; of training the share spent waiting
        for clips to be read and augmented (on a GPU: during which it had nothing else to do), and "input" or "compute"
        for what more than half of it went into; clips_per_second trained; peak memory of the (first) process and of its
        GPU in MB; processes.

    Raises:
        InputError: no clips to train on or to test, initial weights of another network or order of classes, or no
            landmarks for a network that uses them.
        AudferError: the loss stopped being finite, with the batch; too few clips for so many processes.
    """
    distributed.announce(cell, inputs, scratch)
    packed = open_packed(inputs.packed)
    train, test = packed.split("train"), packed.split("test")
    train, held_out, by = hold_out(packed.manifest, train, cell.validation, cell.seed)
    landmarks = open_landmarks(cell, inputs, packed)
    with (
        threads(1 if cell.device == "cpu" else torch.get_num_threads()),
        torch.random.fork_rng(),
        fastest_convolutions(),
    ):
        torch.manual_seed(cell.seed)
        model = _initial_model(cell, inputs)
        # channels-last: the layout in which these convolutions are fastest
        model = model.to(cell.device, memory_format=model.memory_format)
        au_loss, au_labels, weights = _au_loss(cell, inputs, packed, train) if cell.uses_aus else (None, None, None)
        if au_loss is not None:
            au_loss = au_loss.to(cell.device)
        outcome = _fit(cell, model, au_loss, au_labels, packed, landmarks, train, test, held_out, scratch, report)
    clips = packed.manifest.iloc[test]
    return outcome | {
        "clip_ids": clips["clip_id"].tolist(),
        "expressions": clips["expression"].to_numpy(),
        "groups": clip_groups(clips),
        "au_labels": None if au_labels is None else au_labels[test].numpy(),
        "positive_weights": weights,
        "validation": {
            "share": cell.validation,
            "by": by,
            "clip_ids": packed.manifest["clip_id"].iloc[held_out].tolist(),
        },
        "state_dict": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "flops": count_flops(model, (cell.num_frames, 3, cell.image_size, cell.image_size)),
        "recipe": asdict(cell.training_recipe),
    }


def assist() -> None:
    """What the processes beside rank 0 do under torchrun: their part of every cell that rank 0 trains, until it has
    ended.
    """
    distributed.serve(fit)


def _initial_model(cell: Cell, inputs: CellInputs) -> ClipModel:
    """The cell's network or variant of it, freshly drawn or with the weights that it starts from."""
    drop_path = cell.training_recipe.drop_path
    overrides = {
        **({} if drop_path is None else {"drop_path": drop_path}),
        **NETWORKS[cell.model].variants.get(cell.variant, {}),
    }
    model = build_model(
        cell.model,
        num_aus=18 if cell.uses_aus else None,
        size=cell.size,
        num_frames=cell.num_frames,
        image_size=cell.image_size,
        **overrides,
    )
    if cell.initialisation != "scratch":
        if not inputs.initial_weights:
            raise InputError(
                "cell",
                "initialisation",
                f"{cell.initialisation!r} without a file",
                "a checkpoint in CellInputs.initial_weights, or initialisation 'scratch'",
            )
        state = read_checkpoint(inputs.initial_weights)
        classes = _classes(inputs.initial_weights, state)
        if classes and tuple(classes) != EXPRESSIONS:
            raise InputError(
                inputs.initial_weights, "order of the classes", ", ".join(map(str, classes)), ", ".join(EXPRESSIONS)
            )
        try:
            load_official_state_dict(model, state)
        except AudferError as error:
            raise InputError(
                inputs.initial_weights, "weights", str(error), f"weights of {cell.model}, size {cell.size}"
            ) from error
    return model


def _classes(path: str, state: dict) -> list[str]:
    """What a checkpoint says its classifier's outputs are, as audfer's own do; empty where it does not say."""
    if Path(path).suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("classes", "[]"))
    return list(state.get("classes", ()))


# ------------------------------------------------------------------------------------------------------------ batches


class Targets(NamedTuple):
    """What the losses of one batch, or of a part of it, are computed from.

    Attributes:
        count: clips of the whole batch; units: what its AU loss is divided by (``AULoss.units``), or ``None``.
        expressions: (B,) classes or, mixed, (B, 7) shares.
        shown: (B,) the expression that each clip shows most of.
        au_labels: (B, 18) or ``None``.
        rows: which row of K weighs a clip: ``expressions`` or ``shown``.
    """

    count: int
    units: torch.Tensor | None
    expressions: torch.Tensor
    shown: torch.Tensor
    au_labels: torch.Tensor | None
    rows: torch.Tensor

    def part(self, index: np.ndarray | slice, device: str) -> Targets:
        """Those of some clips, on the device; ``count`` and ``units`` stay the whole batch's."""
        moved = (None if values is None else values[index].to(device, non_blocking=True) for values in self[2:])
        return Targets(self.count, self.units, *moved)


def batch_targets(
    recipe: Recipe,
    expressions: torch.Tensor,
    au_labels: torch.Tensor | None,
    au_loss: AULoss | None,
    share: float = 1.0,
) -> Targets:
    """Targets of a whole batch that may be mixed with its reverse.

    Args:
        expressions: (B,). au_labels: (B, 18), 0, 1 or NaN; ``None`` without an AU head.
        share: what each clip kept of itself; 1 = not mixed.
    """
    targets = shown = expressions
    if share < 1:
        targets = mixed_targets(expressions, share)
        shown = targets.argmax(1)
    rows = targets if recipe.mix_aus else shown
    if au_loss is None:
        return Targets(len(expressions), None, targets, shown, None, rows)
    if share < 1 and recipe.mix_aus:
        au_labels = share * au_labels + (1 - share) * au_labels.flip(0)
    return Targets(len(expressions), au_loss.units(au_labels, rows), targets, shown, au_labels, rows)


def batch_losses(
    cell: Cell, output: Output, targets: Targets, au_loss: AULoss | None, auxiliary_weight: float = 0.0
) -> torch.Tensor:
    """Eqs. 10, 5 and 9 on a batch, or the share of them that is a part's: (3,) total, of the expressions, of the AUs.

    Args:
        auxiliary_weight: w of a network with a second expression classifier (``Output.auxiliary_logits``): the loss of
            the expressions is then (1 - w) times that of the first plus w times that of the second.
    """

    def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
        return (
            F.cross_entropy(
                logits.float(),
                targets.expressions,
                reduction="sum",
                label_smoothing=cell.training_recipe.label_smoothing,
            )
            / targets.count
        )

    loss_expression = cross_entropy(output.expression_logits)
    if auxiliary_weight:
        loss_expression = (1 - auxiliary_weight) * loss_expression + auxiliary_weight * cross_entropy(
            output.auxiliary_logits
        )
    if au_loss is None:
        return torch.stack((loss_expression, loss_expression, torch.zeros_like(loss_expression)))
    loss_au = au_loss(output.au_logits.float(), targets.au_labels, targets.rows, targets.units)
    return torch.stack((combined_loss(loss_expression, loss_au, cell.au_ratio), loss_expression, loss_au))


class _NonFinite:
    """The first batch of an epoch whose loss is not finite, noted on the device: a step need not wait to be told."""

    def __init__(self, batches: int, device: str):
        self.batches = batches
        self.first = torch.tensor(batches, device=device)
        self.value = torch.zeros((), device=device)

    def note(self, batch: int, loss: torch.Tensor) -> None:
        found = (self.first == self.batches) & ~torch.isfinite(loss)
        self.first = torch.where(found, batch, self.first)
        self.value = torch.where(found, loss, self.value)

    def look(self) -> tuple[int, float] | None:
        """(batch, its loss) if there was one, in any of the processes."""
        first = int(distributed.total(self.first.clone(), "min"))
        value = float(distributed.total(self.value.clone()))
        return (first, value) if first < self.batches else None


# --------------------------------------------------------------------------------------------------------------- cost


class _Stopwatch:
    """Seconds between marks; on a GPU its own, read only once the work is done."""

    def __init__(self, device: str):
        self.on_gpu, self.marks = device == "cuda", []

    def mark(self) -> None:
        if self.on_gpu:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def laps(self) -> np.ndarray:
        """Seconds from each mark to the next."""
        if not self.on_gpu:
            return np.diff(self.marks)
        torch.cuda.synchronize()
        return np.array([a.elapsed_time(b) / 1e3 for a, b in pairwise(self.marks)])


def _start_memory(device: str) -> None:
    """Have ``_peak_memory`` count from here, as far as the system allows."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the process's peak since it began
        pass
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(device: str) -> dict[str, float]:
    """Highest resident memory of this process and, on a GPU, highest allocated memory, MB."""
    # Linux counts in kB, macOS in bytes
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"peak_memory_mb": memory / 1e6, "peak_gpu_memory_mb": gpu / 1e6}


def _costs(measured: dict[str, float]) -> dict:
    """The ``costs`` of ``fit`` from what ``_fit`` added up."""
    training = measured["input_seconds"] + measured["step_seconds"]
    share = measured["input_seconds"] / training
    return {
        "training_seconds": training,
        "evaluation_seconds": measured["evaluation_seconds"],
        "input_share": share,
        "bound": "input" if share > 0.5 else "compute",
        "clips_per_second": measured["clips"] / training,
        "peak_memory_mb": measured["peak_memory_mb"],
        "peak_gpu_memory_mb": measured["peak_gpu_memory_mb"],
        "processes": distributed.world_size(),
    }


# -------------------------------------------------------------------------------------------------------- the training


def _fit(cell, model, au_loss, au_labels, packed, landmarks, train, test, held_out, scratch, report) -> dict:
    recipe, device = cell.training_recipe, cell.device
    expressions = torch.tensor(packed.expressions)
    _start_memory(device)
    distributed.share_batch_norms(model)
    optimizer = build_optimizer(model, recipe, fused=True)
    order_generator = np.random.default_rng([cell.seed, 1])
    augment_generator = torch.Generator().manual_seed(cell.seed + 1)
    # an incomplete last batch would be a batch of few for the batch norms; the official loaders drop it too
    batches = max(1, len(train) // recipe.batch_size) if recipe.drop_last else math.ceil(len(train) / recipe.batch_size)
    steps = batches * cell.epochs
    history: list[dict] = []
    # chosen by -> the best epoch so far, the sum of WAR and UAR that says so, and that epoch's scores of the test clips
    best = {split: {"epoch": -1, "sum": -1.0, "scores": torch.empty(0)} for split in ("test", "validation")}
    measured = dict.fromkeys(
        ("input_seconds", "step_seconds", "evaluation_seconds", "clips", "peak_memory_mb", "peak_gpu_memory_mb"), 0.0
    )
    checkpoint = Path(scratch) / "state.pt" if scratch else None
    if checkpoint and checkpoint.is_file():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        order_generator.bit_generator.state = state["order"]
        augment_generator.set_state(state["augment"])
        torch.set_rng_state(state["torch"])
        if device == "cuda":
            torch.cuda.set_rng_state(state["cuda"])
        history, best, measured = state["history"], state["best"], state["measured"]

    result = None
    for epoch in range(len(history), cell.epochs):
        started = time.perf_counter()
        model.train()
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        watch, trouble = _Stopwatch(device), _NonFinite(batches, device)
        predicted, actual = [], []
        shuffled = order_generator.permutation(train)
        watch.mark()
        for batch in range(batches):
            rows = shuffled[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            rate = learning_rate(recipe, epoch * batches + batch, steps)
            set_learning_rate(optimizer, rate)
            own = distributed.places(len(rows))
            (chosen,) = choose_frames(packed, rows, recipe.train_sampling, cell, order_generator)
            clips = gather_frames(packed, rows[own], chosen[own], None, device)
            points = gather_points(landmarks, rows[own], chosen[own], device)
            clips, points = augment_with_points(
                clips, points, recipe.augmentation, augment_generator, cell.image_size, (len(rows), own)
            )
            if model.contrast and recipe.augmentation.erase:
                clips = clips.clamp_(0, 1)  # a network that takes logarithms, and noise on both sides of 0
            clips, share = mix(clips, recipe.mixup, recipe.cutmix, order_generator)
            targets = batch_targets(
                recipe, expressions[rows], None if au_loss is None else au_labels[rows], au_loss, share
            )
            watch.mark()
            optimizer.zero_grad(set_to_none=True)
            losses, guesses = _backward(cell, model, au_loss, clips, points, targets, own)
            distributed.add_gradients(model)
            if recipe.clip_gradient:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_gradient)
            optimizer.step()
            sums += losses  # stays on the device: no synchronisation a step
            trouble.note(batch, losses[0])
            predicted.append(guesses)
            actual.append(targets.shown[own])
            watch.mark()
            if ((batch + 1) % _WATCH == 0 or batch + 1 == batches) and (found := trouble.look()):
                raise _not_finite(cell, packed, epoch, batches, *found, shuffled)
        means = dict(
            zip(("loss", "loss_expression", "loss_au"), (distributed.total(sums) / batches).tolist(), strict=True)
        )
        if au_loss is None:
            means["loss_au"] = float("nan")
        seen, right = (distributed.joined(torch.cat(part).cpu().numpy()) for part in (predicted, actual))
        laps = watch.laps()
        trained = time.perf_counter()
        row = {
            "epoch": epoch + 1,
            **means,
            "learning_rate": rate,
            "train_war": war(right, seen),
            "train_uar": uar(right, seen),
        }
        looked = (epoch + 1) % cell.evaluate_every == 0 or epoch + 1 == cell.epochs
        for split, rows in (("test", test), ("validation", held_out)):
            if not len(rows):
                continue
            found = predict(model, packed, rows, cell, epoch, landmarks) if looked else None
            row |= _judged(split, found["scores"] if found else None, expressions[rows].numpy())
            if split == "test":
                result = found
        ended = time.perf_counter()
        history.append(row | {"seconds": ended - started})
        for split, held in best.items():
            if looked and (value := row.get(f"{split}_war", -1) + row.get(f"{split}_uar", -1)) > held["sum"]:
                held |= {"epoch": epoch + 1, "sum": value, "scores": torch.from_numpy(result["scores"])}
        for name, value in (
            ("input_seconds", laps[0::2].sum()),
            ("step_seconds", laps[1::2].sum()),
            ("evaluation_seconds", ended - trained),
            ("clips", len(seen)),
        ):
            measured[name] += float(value)
        measured |= {name: max(measured[name], value) for name, value in _peak_memory(device).items()}
        with distributed.agreed():
            if checkpoint and epoch + 1 < cell.epochs and distributed.rank() == 0:
                checkpoint.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(checkpoint) as temporary:
                    torch.save(
                        {
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "order": order_generator.bit_generator.state,
                            "augment": augment_generator.get_state(),
                            "torch": torch.get_rng_state(),
                            "history": history,
                            "best": best,
                            "measured": measured,
                            "cuda": torch.cuda.get_rng_state() if device == "cuda" else None,
                        },
                        temporary,
                    )
                with atomic_file(checkpoint.with_name("history.csv")) as temporary:
                    pd.DataFrame(history).to_csv(temporary, index=False)
        if report:
            report(history[-1])
    protocols = {"last": {"epoch": cell.epochs, "chosen": "the last epoch"}}
    for split, held in best.items():
        if held["epoch"] > 0:
            protocols[f"best-on-{split}"] = {
                "epoch": held["epoch"],
                "chosen": f"highest WAR + UAR on the {split} clips",
            }
    return {
        "history": pd.DataFrame(history),
        "scores": result["scores"],
        "au_scores": result.get("au_scores"),
        "features": result["features"],
        "best_scores": best["test"]["scores"].numpy(),
        "validated_scores": best["validation"]["scores"].numpy() if len(held_out) else None,
        "protocols": protocols,
        "seconds": float(sum(row["seconds"] for row in history)),
        "costs": _costs(measured),
    }


def _backward(
    cell: Cell,
    model: ClipModel,
    au_loss: AULoss | None,
    clips: torch.Tensor,
    points: torch.Tensor | None,
    targets: Targets,
    own: np.ndarray,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of one batch, in ``cell.accumulate`` parts; this process's losses (3,) and guesses (B,), on the device.

    Args:
        clips: of this process, (B, T, 3, H, W). points: their landmarks (B, T, 68, 2) or ``None``. targets: of the
            whole batch.
        own: places (B,) of the clips in it.
    """
    parts = [index for index in np.array_split(np.arange(len(own)), cell.accumulate) if len(index)]
    losses, guesses = [], []
    drawn = (
        (torch.get_rng_state(), torch.cuda.get_rng_state() if cell.device == "cuda" else None) if len(parts) > 1 else ()
    )
    for number, index in enumerate(parts):
        if number:  # a part draws for the whole batch, so the next one draws the same again
            torch.set_rng_state(drawn[0])
            if cell.device == "cuda":
                torch.cuda.set_rng_state(drawn[1])
        whole = len(index) == targets.count
        with nullcontext() if whole else part_of_batch(targets.count, torch.from_numpy(own[index])), autocast(cell):
            here = slice(index[0], index[-1] + 1)
            output = _forward(model, clips[here], None if points is None else points[here])
        found = batch_losses(cell, output, targets.part(own[index], cell.device), au_loss, model.auxiliary_weight)
        found[0].backward()
        losses.append(found.detach())
        guesses.append(output.expression_logits.detach().argmax(1))
    return torch.stack(losses).sum(0), torch.cat(guesses)


def _judged(split: str, scores: np.ndarray | None, truth: np.ndarray) -> dict[str, float]:
    """History columns of a split; NaN where it was not looked at (``scores`` is ``None``)."""
    if scores is None:
        return dict.fromkeys((f"{split}_war", f"{split}_uar", f"{split}_loss"), float("nan"))
    guess = scores.argmax(1)
    likelihood = np.clip(scores[np.arange(len(truth)), truth], 1e-12, 1)
    return {
        f"{split}_war": war(truth, guess),
        f"{split}_uar": uar(truth, guess),
        f"{split}_loss": float(-np.log(likelihood).mean()),
    }


def _not_finite(
    cell: Cell, packed: PackedClips, epoch: int, batches: int, batch: int, value: float, shuffled
) -> AudferError:
    size = cell.training_recipe.batch_size
    clips = ", ".join(packed.clip_ids[row] for row in shuffled[batch * size : (batch + 1) * size])
    return AudferError(
        f"{cell.label}: the loss became {value} in epoch {epoch + 1}, batch {batch + 1} of {batches} "
        f"(clips {clips}); lower the learning rate or train in float32"
    )
