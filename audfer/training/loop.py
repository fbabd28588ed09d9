"""One cell: train a network on one dataset with or without the AU head, evaluate it, leave a run record.

A *cell* is everything that can change a result (network, dataset, loss, recipe, seed). ``fit`` is deterministic under
its seed, saves its state after every epoch, goes on from there after a kill, and then ends with the numbers it would
have had without the interruption (``engine``). Under torchrun several processes train it together (``distributed``), to
the same numbers up to rounding. Section 3.3 of the paper (Eqs. 5, 9, 10) for the loss, 4.3 for the recipes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from ..datasets import PackedClips, open_packed
from ..errors import AudferError, InputError, refuse
from ..evaluation import uar, war
from ..facs import EXPRESSIONS
from ..files import atomic_file, readable
from ..knowledge import WEIGHTS, KnowledgeMatrix
from ..losses import AU_LOSSES, PLAIN, READINGS, STRATEGIES, AULoss, check_labels, combined_loss, positive_class_weight
from ..models import (
    NETWORKS,
    ClipModel,
    Output,
    build_model,
    count_flops,
    load_official_state_dict,
    read_checkpoint,
)
from ..models.output import local_contrast, part_of_batch
from ..plugins import Registry, versions
from ..recipes import Recipe
from ..sampling import stored_indices
from . import distributed
from .augmentation import augment_with_points, crop_with_points, mix, mixed_targets, resize
from .engine import Task, autocast, reproducible, train
from .recipes import RECIPES, recipe_name

#: whose action units a cell may be trained with: name -> the AU table of a study's dataset. "" is the profile's
#: extractor, "planted" the truth of rendered clips, "shuffled" the same of other clips; plug-ins add theirs
AU_SOURCES = Registry()
AU_SOURCES.add("", lambda study, dataset: study.extracted_table(dataset))
AU_SOURCES.add("planted", lambda study, dataset: study.planted_table(dataset))
AU_SOURCES.add("shuffled", lambda study, dataset: study.shuffled_table(dataset))


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
        initialisation: "scratch"; "shipped", the weights that come with the package; "mae", a study's own masked
            pre-training; or any other name for the weights of ``CellInputs.initial_weights`` ("kinetics", "official").
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
            Lock and Check, "planted" = the truth of rendered clips (to measure what perfect action units would give),
            "shuffled" = the truth of other clips (which must not help).
        au_loss: name in ``losses.AU_LOSSES`` of an AU loss of your own; "" = Eq. 9.
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
    au_loss: str = ""

    def __post_init__(self):
        refuse("cell", self._checks())

    def _checks(self) -> Iterator[tuple[bool, str, object, str]]:
        ratio = self.au_ratio
        yield not 0 <= ratio < 1, "au_ratio", ratio, "lambda of Eq. 10: at least 0 and less than 1"
        yield (
            (ratio > 0) != (self.strategy != "none"),
            "strategy with au_ratio",
            f"{self.strategy!r} with {ratio}",
            "strategy 'none' exactly when au_ratio is 0 (no AU head)",
        )
        for name, allowed in {
            "strategy": ("none", *STRATEGIES, PLAIN),
            "weights": WEIGHTS,
            "reading": READINGS,
            "reduction": ("mean", "sum_over_aus"),
            "precision": ("float32", "bf16"),
            "device": ("cpu", "cuda"),
            "au_source": AU_SOURCES,
            "au_loss": AU_LOSSES if self.au_loss else ("",),
        }.items():
            value = getattr(self, name)
            yield value not in allowed, name, repr(value), f"one of {', '.join(one or repr(one) for one in allowed)}"
        of_aus = {name: getattr(self, name) for name in ("weights", "reading", "au_source", "au_loss")}
        yield (
            not self.uses_aus and tuple(of_aus.values()) != ("none", "paper", "", ""),
            f"{', '.join(of_aus)} without an AU head",
            ", ".join(map(repr, of_aus.values())),
            "weights 'none', reading 'paper', au_source '' and au_loss '' when au_ratio is 0",
        )
        sizes = NETWORKS[self.model if self.model in NETWORKS else "m3dfel"].sizes
        yield (
            self.model not in NETWORKS or self.size not in sizes,
            "model and size",
            f"{self.model!r}, {self.size!r}",
            f"one of {', '.join(NETWORKS)} with one of {', '.join(sizes)}",
        )
        variants = NETWORKS[self.model].variants
        yield (
            self.variant != "" and self.variant not in variants,
            "variant",
            repr(self.variant),
            f"one of {', '.join(variants)}, or '' for the network itself"
            if variants
            else f"'': {self.model} has no variants",
        )
        recipe, clips = recipe_name(self.model, self.size, self.recipe), self.training_recipe.batch_size
        for name in ("fold", "epochs", "num_frames", "image_size", "accumulate", "seed", "evaluate_every"):
            least = 0 if name == "seed" else 1
            yield getattr(self, name) < least, name, getattr(self, name), f"at least {least}"
        yield (
            self.accumulate > clips,
            "accumulate",
            self.accumulate,
            f"at most {clips}, the clips of a batch of the recipe",
        )
        yield (
            self.uses_landmarks and bool(self.training_recipe.mixup or self.training_recipe.cutmix),
            "recipe",
            f"{recipe!r} with mixup or cutmix",
            f"a recipe without them for {self.model}: two mixed faces have no one set of landmarks",
        )
        share = self.validation
        yield not 0 <= share <= 0.5, "validation", share, "a share of the training clips, 0 to 0.5"
        yield not self.initialisation, "initialisation", "''", "'scratch', or a name for the weights to start from"

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
        parts = [self.model, self.variant and f"({self.variant})", self.dataset]
        if self.uses_aus:
            shown = {"knowledge": "", "none": "no K"}.get(self.weights, self.weights)
            parts += [f"+AU {self.au_ratio:g} {self.strategy}", shown]
        parts += [
            self.recipe,
            self.initialisation if self.initialisation != "scratch" else "",
            self.reading if self.reading != "paper" else "",
            f"fold {self.fold}" if self.fold != 1 else "",
            self.au_source and f"AUs {self.au_source}",
            self.au_loss and f"loss {self.au_loss}",
        ]
        return " ".join(filter(None, parts))

    @property
    def source(self) -> str:
        """Whose ``CellInputs`` the cell takes: those of its clips and labels, and of the weights it starts from."""
        start = f"from {self.initialisation} {self.model}" if self.initialisation != "scratch" else ""
        return ", ".join(filter(None, (self.data_source, start)))

    @property
    def data_source(self) -> str:
        """Whose clips, labels and matrix the cell takes: its dataset's, or those of its fold, control matrix, reading
        or AU source.
        """
        shuffled = self.weights.startswith("shuffled")
        matrix = "" if self.weights in ("none", "knowledge") else self.weights
        parts = (
            self.dataset,
            f"fold {self.fold}" if self.fold != 1 else "",
            f"{matrix} {self.seed}".strip() if shuffled else matrix,
            f"{self.reading} {self.strategy}" if self.reading != "paper" else "",
            self.au_source and f"AUs {self.au_source}",
        )
        return ", ".join(filter(None, parts))


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
        au_coverage: how many of the dataset's clips have action units, partly, or none; for the record, of no effect.
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
    au_coverage: dict | None = None


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


# ------------------------------------------------------------------------------------------------------------ clips


#: digest of a store's content -> its frames on the GPU, for all cells of this process; the last used last
_RESIDENT: dict[str, torch.Tensor] = {}


def resident(packed: PackedClips, device: str, room: float | None = None) -> torch.Tensor | None:
    """All frames of a store on the GPU, uint8 (N, T, H, W, C), from which batches are then taken there; ``None`` on a
    CPU, which reads the store's memory map, and where there is no room. Others give way, the longest unused first.

    Args:
        room: bytes for all of them; ``None`` = a quarter of the GPU's memory.
    """
    if room is None:
        room = torch.cuda.get_device_properties("cuda").total_memory / 4 if device == "cuda" else 0
    if packed.frames.nbytes > room or not getattr(packed.frames, "filename", None):
        return None  # clips in memory have no content to be known by
    frames = _RESIDENT.pop(packed.content, None)
    while sum(other.nbytes for other in _RESIDENT.values()) + packed.frames.nbytes > room:
        del _RESIDENT[next(iter(_RESIDENT))]
    frames = torch.from_numpy(np.array(packed.frames)).to(device) if frames is None else frames
    _RESIDENT[packed.content] = frames
    return frames


def gather_frames(
    packed: PackedClips, rows: np.ndarray, chosen: np.ndarray, image_size: int | None, device: str
) -> torch.Tensor:
    """The frames ``chosen`` (B, T) of the clips ``rows`` (B,) as a batch (B, T, C, H, W) uint8.

    Args:
        image_size: side to resize to if need be; ``None`` = as stored.
    """
    if (kept := resident(packed, device)) is not None:
        clips = kept[tuple(torch.from_numpy(index).to(device) for index in (np.asarray(rows)[:, None], chosen))]
    else:
        clips = np.stack([packed.frames[row][frames] for row, frames in zip(rows, chosen, strict=True)])
        clips = torch.from_numpy(clips)
        if device == "cuda":
            clips = clips.pin_memory()  # copied while the GPU still computes the last step
    batch = clips.to(device, non_blocking=True).permute(0, 1, 4, 2, 3)
    if image_size is None or batch.shape[-1] == image_size:
        return batch
    return resize(batch.float(), image_size).round().to(torch.uint8)


def prepared_clips(packed: PackedClips, model: ClipModel, cell: Cell) -> np.ndarray | None:
    """All clips of a store as ``ClipModel.prepare`` gives them, made once for all cells; ``None`` where pixels are
    needed.

    Contrast takes a third of a small network's step, and a crop of it differs little from the contrast of a crop.
    Pixels are needed by networks that take no contrast, for augmentations of colours, mixing and erasing, and where the
    store has another size than the network.

    Returns:
        float16 (N, T, C, S, S), memory-mapped from a file beside the store, whose name says of which content it is.
    """
    recipe = cell.training_recipe
    augmentation = recipe.augmentation
    of_pixels = augmentation.operations, augmentation.colour_jitter, augmentation.hue_jitter, augmentation.erase
    if not model.contrast or any(of_pixels) or recipe.mixup or recipe.cutmix:
        return None
    if packed.frames.shape[2] != cell.image_size or not getattr(packed.frames, "filename", None):
        return None  # clips in memory have no place beside them
    store = Path(packed.frames.filename).parent
    kind = f"{'grey' if model.grey else 'colour'}-{versions('training')['training']}-{packed.content}"
    path = store.with_name(f"{store.name}-contrast-{kind}.npy")
    if not readable(path):
        shape = (*packed.frames.shape[:2], model.colours, *packed.frames.shape[2:4])
        header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
        # as np.save writes it, in blocks: memory does not grow with the store
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for rows in np.array_split(np.arange(shape[0]), math.ceil(shape[0] / 64)):
                pixels = torch.from_numpy(packed.frames[rows]).permute(0, 1, 4, 2, 3)
                contrast = local_contrast(pixels.float() / 255, grey=model.grey).numpy()
                file.write(contrast.astype(np.float16).tobytes())
    return np.load(path, mmap_mode="r")


def gather_prepared(prepared: np.ndarray, rows: np.ndarray, chosen: np.ndarray, device: str) -> torch.Tensor:
    """The frames ``chosen`` (B, T) of the clips ``rows`` (B,) of ``prepared_clips``: (B, T, C, S, S) float32."""
    clips = np.stack([prepared[row][frames] for row, frames in zip(rows, chosen, strict=True)])
    return torch.from_numpy(clips).to(device, non_blocking=True).float()


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
        shuffled = [generator.permutation(np.flatnonzero(expressions == label)) for label in np.unique(expressions)]
        held = np.concatenate([alike[: round(share * len(alike))] for alike in shuffled])
        by = "expression"
    if not 0 < len(held) < len(rows):
        raise InputError(
            "cell", "validation", f"{share:g} of {len(rows)} training clips", "a share that leaves clips on both sides"
        )
    out = np.zeros(len(rows), bool)
    out[held] = True
    return rows[~out], rows[out], by


# -------------------------------------------------------------------------------------------------------------- fit


@torch.inference_mode()
def predict(
    model: nn.Module,
    packed: PackedClips,
    rows: np.ndarray,
    cell: Cell,
    epoch: int = 0,
    landmarks: np.ndarray | None = None,
    prepared: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Evaluation without augmentation, on the frames of the recipe's test rule; over several views, means.

    Every process that trains together takes its share of the clips; all of them get the whole result.

    Args:
        epoch: for the random test rules of some releases: another draw for every seed and epoch.
        landmarks: as ``open_landmarks`` gives them, for a network that uses them.
        prepared: of ``prepared_clips``, instead of the store's pixels.

    Returns:
        ``scores`` (N, 7) soft-max probabilities, ``au_scores`` (N, 18) sigmoid or absent, ``features`` (N, D); float32.
    """
    model.eval()
    recipe, generator = cell.training_recipe, np.random.default_rng([cell.seed, 2, epoch])
    chosen = choose_frames(packed, rows, recipe.test_sampling, cell, generator)
    own = distributed.part(np.arange(len(rows)))
    parts: list[tuple[torch.Tensor, ...]] = []
    for chunk in np.array_split(own, math.ceil(len(own) / (2 * recipe.batch_size))):
        views = []
        for view in chosen[:, chunk]:
            points = gather_points(landmarks, rows[chunk], view, cell.device)
            with autocast(cell):
                if prepared is None:
                    views.append(model(gather_frames(packed, rows[chunk], view, cell.image_size, cell.device), points))
                else:
                    views.append(model.judge(gather_prepared(prepared, rows[chunk], view, cell.device), points))
        logits, au_logits, features = (
            None if part[0] is None else torch.stack(part).float() for part in list(zip(*views, strict=True))[:3]
        )
        means = logits.softmax(-1).mean(0), features.mean(0)
        parts.append(means if au_logits is None else (*means, au_logits.sigmoid().mean(0)))
    names = ("scores", "features", "au_scores")
    return {
        name: distributed.joined(np.concatenate([values.cpu().numpy() for values in part]))
        for name, part in zip(names, zip(*parts, strict=True), strict=False)
    }


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
        check_labels(inputs.au_labels, "labels", stored["labels"])
        labels = torch.from_numpy(stored["labels"].astype(np.float32))
        pos_weight = stored.get("pos_weight", None)
    expressions = torch.tensor(packed.expressions)
    if pos_weight is None and cell.strategy != PLAIN:
        pos_weight = positive_class_weight(labels[train], expressions[train], strategy=cell.strategy)
    knowledge = None if cell.weights == "none" else KnowledgeMatrix.load(inputs.knowledge)
    shown = torch.as_tensor(1.0 if pos_weight is None else pos_weight).expand(len(EXPRESSIONS), labels.shape[1])
    loss = AU_LOSSES[cell.au_loss](knowledge, pos_weight, reduction=cell.reduction)
    return loss, labels, shown.numpy().copy()


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
    with reproducible(cell.seed, cell.device), fastest_convolutions():
        task = CellTask(cell, inputs)
        history, measured = train(task, scratch, report=report)
    return task.outcome() | {
        "history": pd.DataFrame(history),
        "seconds": float(sum(row["seconds"] for row in history)),
        "costs": _costs(measured),
        "flops": count_flops(task.model, (cell.num_frames, 3, cell.image_size, cell.image_size)),
        "recipe": asdict(cell.training_recipe),
    }


def assist() -> None:
    """What the processes beside rank 0 do under torchrun: their part of every cell that rank 0 trains, until it has
    ended.
    """
    distributed.serve(fit)


def network_of(cell: Cell, **settings) -> ClipModel:
    """The cell's network or variant of it, freshly drawn; ``settings`` are of what the variant leaves open."""
    return build_model(
        cell.model,
        num_aus=18 if cell.uses_aus else None,
        size=cell.size,
        num_frames=cell.num_frames,
        image_size=cell.image_size,
        **{**settings, **NETWORKS[cell.model].variants.get(cell.variant, {})},
    )


def _initial_model(cell: Cell, inputs: CellInputs) -> ClipModel:
    """The cell's network, freshly drawn or with the weights that it starts from."""
    drop_path = cell.training_recipe.drop_path
    model = network_of(cell, **({} if drop_path is None else {"drop_path": drop_path}))
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
            # a trunk to go on from, as the field's starts are: with a trained classifier beside an untrained AU head,
            # what is compared would have been to school for different times
            load_official_state_dict(model, state, heads=cell.initialisation != "shipped")
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

    smoothing = cell.training_recipe.label_smoothing

    def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
        total = F.cross_entropy(logits.float(), targets.expressions, reduction="sum", label_smoothing=smoothing)
        return total / targets.count

    loss_expression = cross_entropy(output.expression_logits)
    if auxiliary_weight:
        second = cross_entropy(output.auxiliary_logits)
        loss_expression = (1 - auxiliary_weight) * loss_expression + auxiliary_weight * second
    if au_loss is None:
        return torch.stack((loss_expression, loss_expression, torch.zeros_like(loss_expression)))
    loss_au = au_loss(output.au_logits.float(), targets.au_labels, targets.rows, targets.units)
    return torch.stack((combined_loss(loss_expression, loss_au, cell.au_ratio), loss_expression, loss_au))


# ---------------------------------------------------------------------------------------------------------- the task


class CellTask(Task):
    """A cell as a task of the training loop; its network's first weights are drawn from torch's global generator.

    Attributes:
        au_loss, au_labels: ``None`` without an AU head; labels (N, 18) of all clips of the store.
        positive_weights: (7, 18) of the AU loss, or ``None``.
        training: numbers of the clips to train on. splits: of those to test on, and to validate on (perhaps none).
        held_out_by: as ``hold_out`` says.
    """

    terms = ("loss", "loss_expression", "loss_au")

    def __init__(self, cell: Cell, inputs: CellInputs):
        self.cell, self.recipe, self.label, self.epochs = cell, cell.training_recipe, cell.label, cell.epochs
        self.device, self.precision = cell.device, cell.precision
        self.packed = open_packed(inputs.packed)
        self.expressions = torch.tensor(self.packed.expressions)
        self.training, held_out, self.held_out_by = hold_out(
            self.packed.manifest, self.packed.split("train"), cell.validation, cell.seed
        )
        self.splits = {"test": self.packed.split("test"), "validation": held_out}
        self.landmarks = open_landmarks(cell, inputs, self.packed)
        model = _initial_model(cell, inputs)
        # channels-last: the layout in which these convolutions are fastest
        self.model = model.to(cell.device, memory_format=model.memory_format)
        self.prepared = prepared_clips(self.packed, model, cell)
        self.au_loss = self.au_labels = self.positive_weights = None
        if cell.uses_aus:
            loss, self.au_labels, self.positive_weights = _au_loss(cell, inputs, self.packed, self.training)
            self.au_loss = loss.to(cell.device)
        self.generators = {
            "order": np.random.default_rng([cell.seed, 1]),
            "augment": torch.Generator().manual_seed(cell.seed + 1),
        }
        # chosen by -> the best epoch so far, the sum of WAR and UAR that says so, that epoch's scores of the test clips
        self.best = {split: {"epoch": -1, "sum": -1.0, "scores": torch.empty(0)} for split in self.splits}
        self.judged: dict[str, np.ndarray] = {}

    def batches(self, epoch: int) -> list[np.ndarray]:
        self.guesses, self.shown = [], []
        shuffled, size = self.generators["order"].permutation(self.training), self.recipe.batch_size
        # an incomplete last batch would be a batch of few for the batch norms; the official loaders drop it too
        count = max(1, len(shuffled) // size) if self.recipe.drop_last else math.ceil(len(shuffled) / size)
        return [shuffled[number * size : (number + 1) * size] for number in range(count)]

    def read(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None, Targets, np.ndarray]:
        """This process's clips (B, T, C, H, W), pixels or prepared, and landmarks (B, T, 68, 2) or ``None``, the whole
        batch's targets, and the places (B,) of the clips in it.
        """
        recipe, order = self.recipe, self.generators["order"]
        own = distributed.places(len(rows))
        (chosen,) = choose_frames(self.packed, rows, recipe.train_sampling, self.cell, order)
        points = gather_points(self.landmarks, rows[own], chosen[own], self.device)
        drawn = recipe.augmentation, self.generators["augment"]
        if self.prepared is not None:
            clips = gather_prepared(self.prepared, rows[own], chosen[own], self.device)
            clips, points = crop_with_points(clips, points, *drawn, (len(rows), own))
            share = 1.0
        else:
            clips = gather_frames(self.packed, rows[own], chosen[own], None, self.device)
            clips, points = augment_with_points(clips, points, *drawn, self.cell.image_size, (len(rows), own))
            if self.model.contrast and recipe.augmentation.erase:
                clips = clips.clamp_(0, 1)  # a network that takes logarithms, and noise on both sides of 0
            clips, share = mix(clips, recipe.mixup, recipe.cutmix, order)
        labels = None if self.au_loss is None else self.au_labels[rows]
        return clips, points, batch_targets(recipe, self.expressions[rows], labels, self.au_loss, share), own

    def losses(self, batch) -> torch.Tensor:
        """Losses (3,) of a batch, or of a part of one as far as they are the part's."""
        clips, points, targets, own = batch
        with autocast(self.cell):
            output = (self.model if self.prepared is None else self.model.judge)(clips, points)
        self.guesses.append(output.expression_logits.detach().argmax(1))
        part = targets.part(own, self.device)
        return batch_losses(self.cell, output, part, self.au_loss, self.model.auxiliary_weight)

    def backward(self, batch) -> torch.Tensor:
        """In ``cell.accumulate`` parts, one after another."""
        clips, points, targets, own = batch
        self.shown.append(targets.shown[own])
        parts = [index for index in np.array_split(np.arange(len(own)), self.cell.accumulate) if len(index)]
        # a part draws for the whole batch, so each begins with the same state
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        losses = []
        for index in parts:
            last, whole = index is parts[-1], len(index) == targets.count
            here = slice(index[0], index[-1] + 1)
            part = clips[here], None if points is None else points[here], targets, own[index]
            with (
                nullcontext() if last else torch.random.fork_rng(devices),
                nullcontext() if whole else part_of_batch(targets.count, torch.from_numpy(own[index])),
            ):
                losses.append(super().backward(part))
        return torch.stack(losses).sum(0)

    def look(self, epoch: int) -> dict:
        seen, right = (distributed.joined(torch.cat(part).cpu().numpy()) for part in (self.guesses, self.shown))
        row = {"train_war": war(right, seen), "train_uar": uar(right, seen)}
        if self.au_loss is None:
            row["loss_au"] = float("nan")
        looked = (epoch + 1) % self.cell.evaluate_every == 0 or epoch + 1 == self.epochs
        for split, rows in self.splits.items():
            if len(rows):
                seen = self.model, self.packed, rows, self.cell
                judged = predict(*seen, epoch, self.landmarks, self.prepared) if looked else {}
                row |= _judged(split, judged.get("scores"), self.expressions[rows].numpy())
                if split == "test":
                    self.judged = judged
        for split, best in self.best.items():
            if looked and (value := row.get(f"{split}_war", -1) + row.get(f"{split}_uar", -1)) > best["sum"]:
                best |= {"epoch": epoch + 1, "sum": value, "scores": torch.from_numpy(self.judged["scores"])}
        return row

    def state(self) -> dict:
        return self.best

    def load_state(self, state: dict) -> None:
        self.best = state

    def named(self, rows: np.ndarray) -> str:
        return f"clips {', '.join(self.packed.clip_ids[row] for row in rows)}"

    def outcome(self) -> dict:
        """What ``fit`` gives of the network, the test clips and the protocols, after the last epoch."""
        test, held_out = self.splits.values()
        clips = self.packed.manifest.iloc[test]
        protocols = {"last": {"epoch": self.epochs, "chosen": "the last epoch"}}
        for split, best in self.best.items():
            if best["epoch"] > 0:
                chosen = f"highest WAR + UAR on the {split} clips"
                protocols[f"best-on-{split}"] = {"epoch": best["epoch"], "chosen": chosen}
        return {
            **{name: self.judged.get(name) for name in ("scores", "au_scores", "features")},
            "best_scores": self.best["test"]["scores"].numpy(),
            "validated_scores": self.best["validation"]["scores"].numpy() if len(held_out) else None,
            "protocols": protocols,
            "clip_ids": clips["clip_id"].tolist(),
            "expressions": clips["expression"].to_numpy(),
            "groups": clip_groups(clips),
            "au_labels": None if self.au_labels is None else self.au_labels[test].numpy(),
            "positive_weights": self.positive_weights,
            "validation": {
                "share": self.cell.validation,
                "by": self.held_out_by,
                "clip_ids": self.packed.manifest["clip_id"].iloc[held_out].tolist(),
            },
            "state_dict": {name: value.detach().cpu() for name, value in self.model.state_dict().items()},
        }


def _judged(split: str, scores: np.ndarray | None, truth: np.ndarray) -> dict[str, float]:
    """History columns of a split; NaN where it was not looked at (``scores`` is ``None``)."""
    values = [float("nan")] * 3
    if scores is not None:
        guess = scores.argmax(1)
        likelihood = np.clip(scores[np.arange(len(truth)), truth], 1e-12, 1)
        values = war(truth, guess), uar(truth, guess), float(-np.log(likelihood).mean())
    return {f"{split}_{name}": value for name, value in zip(("war", "uar", "loss"), values, strict=True)}


def _costs(measured: dict[str, float]) -> dict:
    """The ``costs`` of ``fit`` from what the loop measured."""
    training = measured["input_seconds"] + measured["step_seconds"]
    share = measured["input_seconds"] / training
    return {
        "training_seconds": training,
        "evaluation_seconds": measured["evaluation_seconds"],
        "input_share": share,
        "bound": "input" if share > 0.5 else "compute",
        "clips_per_second": measured["clips"] / training,
        **{name: measured[name] for name in ("peak_memory_mb", "peak_gpu_memory_mb")},
        "processes": distributed.world_size(),
    }
