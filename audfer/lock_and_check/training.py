"""Lock and Check as a recogniser: training, judging, run records, and the calibrated network that measures action
units.

A ``RecognitionCell`` is everything that can change a result. Its record is found again by a later call, and cells are
trained side by side, by the same machinery as the networks for expressions (``experiments``). The choices that move
numbers:

- *Calibration subjects.* As with the baseline estimator about a fifth of the training subjects is set aside, the same
  ones for every cell. They watch the training, fix the calibrated thresholds and the mapping to intensities; the
  subjects of the held-out fold are judged once, after the last epoch.
- *Thresholds.* Two rules, both recorded: ``"0.5"`` calls an AU present from a probability of 0.5 on, as the paper does;
  ``"calibrated"`` is the baseline estimator's: as many frames present as were coded so on the calibration subjects. The
  ablations are read by the first, a ``Recogniser`` decides by the second.
- *Without temporal sampling* frames are drawn at random, as many in an epoch as with it.
- *Recalls* of the dynamic weights are those of the last stage on the epoch's own training frames, as they went by.
- *Size "estimator"* is for seconds on a CPU. Beside what ``models.lac`` says of it: the stages that are not trained
  have run once, over every frame and its mirror image, and cells learn from their maps (``trunk_maps``), so flips are
  the only augmentation; L_loc counts a tenth (``ETAS``), because at the paper's weight the features gather in the
  regions before they say anything about AUs; what is not the backbone learns faster (``HEAD_RATES``), because it begins
  with little; and the weight decay is the estimator's. These numbers, the gate and the residual Check were chosen on
  calibration subjects.
- *Zeros.* Intensities below the estimator's ``ZERO_BELOW`` are exactly 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..action_units.estimator import PRESENT_FROM, ZERO_BELOW, calibration_subjects, major_axis, rate_threshold
from ..datasets.annotated_frames import AnnotatedFrames, open_annotated
from ..errors import AudferError, InputError, refuse
from ..evaluation import ratio
from ..facs import ACTION_UNITS, INTENSITY_INDEX
from ..files import UNREADABLE, digest, read_csv, write_json
from ..models import read_checkpoint
from ..plugins import versions
from ..recipes import Augmentation, Recipe
from ..training.augmentation import augment_with_points, resize
from ..training.engine import Task, autocast, reproducible, train
from ..training.recipes import build_optimizer
from ..training.records import RunStore, environment, read_meta, write_meta
from .losses import (
    ETA,
    DynamicWeights,
    activation_loss,
    local_to_global_loss,
    localisation_loss,
    share_weights,
    weighted_loss,
)
from .network import LAC, build_lac, load_estimator, load_imagenet
from .regions import landmark_boxes
from .trunk_maps import TrunkMaps, trunk_maps
from .windows import covering_windows, subject_windows

#: terms of the total loss in the order of ``lac_losses.ETA``, as the history names them; one that is switched off is
#: left out
TERMS = ("localisation", "activation", "local_to_global", "first", "second")
LOSSES = ("CE", "WA", "DWA")
#: thresholds that presences are read with
RULES = ("0.5", "calibrated")
#: knots of the mapping from logits to intensities
KNOTS = 33

_PAPER_JITTER = Augmentation("flip and colours", flip=0.5, colour_jitter=0.2, hue_jitter=0.05)
_PAPER = Recipe(
    "the paper's (rate, betas, decay, epochs, batch; flips and colour jitter); ours: the jitter's strength, a "
    "constant rate",
    "adamw",
    1e-4,
    5e-4,
    decay_norms=True,
    batch_size=8,
    epochs=200,
    minimum_learning_rate=1e-4,
    augmentation=_PAPER_JITTER,
)
_TINY = Recipe(
    "ours, for small networks and seconds: a higher rate with a cosine, fewer epochs, mild crops; no colour jitter, "
    "because their "
    "contrast normalisation takes light and colour away",
    "adamw",
    3e-3,
    5e-4,
    decay_norms=True,
    batch_size=16,
    epochs=4,
    warmup=0.1,
    clip_gradient=5.0,
    augmentation=Augmentation("mild crop", crop="mild", crop_area=(0.8, 1.0), flip=0.5),
)
_WARM = Recipe(
    "ours, for trained stages and seconds: as for small networks, with flips alone, because the maps of the frozen "
    "stages are stored, and "
    "the estimator's weight decay",
    "adamw",
    6e-3,
    0.05,
    decay_norms=True,
    batch_size=8,
    epochs=6,
    warmup=0.1,
    clip_gradient=5.0,
    augmentation=Augmentation("flip", flip=0.5),
)
#: size -> recipe of windows and recipe of still frames; the paper trains 20 epochs of 64 images, or 200 of 8 clips
RECIPES: dict[str, tuple[Recipe, Recipe]] = {
    "paper": (_PAPER, replace(_PAPER, batch_size=64, epochs=20)),
    "small": (_PAPER, replace(_PAPER, batch_size=64, epochs=20)),
    "tiny": (_TINY, replace(_TINY, batch_size=64)),
    "estimator": (_WARM, replace(_WARM, batch_size=32)),
}
#: weights of ``TERMS`` in the total where they are not the paper's, by size
ETAS: dict[str, tuple[float, ...]] = {"estimator": (0.1 * ETA[0], *ETA[1:])}
#: rate of what is not the backbone as a multiple of the recipe's, by size; 1 elsewhere
HEAD_RATES: dict[str, float] = {"estimator": 5.0}

#: components of Table IV that are on or off -> fields of ``RecognitionCell``
SWITCHES = {
    "TS": "temporal_sampling",
    "L_loc": "localisation",
    "L_act": "activation",
    "L_l2g": "local_to_global",
    "ST": "check",
}


def _switched(on: Iterable[str], loss: str = "CE") -> dict:
    return {field: name in on for name, field in SWITCHES.items()} | {"loss": loss}


#: rows of Table IV: name -> fields of ``RecognitionCell``; "baseline" trains on still frames, and without DWA the loss
#: is L_CE
COMPONENTS: dict[str, dict] = {
    "baseline": _switched(()),
    **{
        name: _switched(name.split(" + "))
        for name in ("TS", "TS + ST", "TS + L_loc + L_act", "TS + L_loc + L_act + L_l2g")
    },
    "TS + L_loc + L_act + L_l2g + ST": _switched(SWITCHES),
    "LAC": _switched(SWITCHES, "DWA"),
}
#: fields of ``RecognitionCell`` -> the values that they may have, or the least one
_ALLOWED = {
    "loss": LOSSES,
    "size": tuple(RECIPES),
    "localisation_form": ("bounded", "paper"),
    "activation_form": ("balanced", "paper"),
    "precision": ("float32", "bf16"),
    "device": ("cpu", "cuda"),
}
_LEAST = {"window": 1, "segments": 1, "epochs": 1, "batch": 1, "fold": 1, "seed": 0, "image_size": 0}


@dataclass(frozen=True)
class RecognitionCell:
    """What to train. Two cells with equal fields on equal data give equal numbers.

    Attributes:
        temporal_sampling: TS, windows of ``window`` consecutive frames (Algorithm 1); else still frames drawn at
            random.
        localisation, activation, local_to_global: L_loc, L_act and L_l2g, which need regions, in training only.
        check: ST, the graph across AUs and the LSTM over the window's frames; needs ``temporal_sampling``.
        loss: "CE", "WA" (weights by class share alone) or "DWA" (by share and recall).
        window: t, frames. segments: N_sep, windows of each subject in an epoch. They also say, for still frames, how
            many.
        size: of the network, one of ``RECIPES``. epochs: passes of ``segments`` windows of each subject.
        batch: windows a step, or still frames.
        fold: of the annotated set, held out. initialisation: "scratch", or any other name for
            ``RecognitionInputs.initial_weights``.
        localisation_form: of L_loc: "bounded", or "paper" as printed, which rewards features that grow without end.
        activation_form: of L_act: "balanced", where active and inactive AUs count the same, or "paper" as printed.
        image_size: pixels, 0 = the size's own. precision: "bf16" (autocast) or "float32". device: "cpu" or "cuda".
    """

    temporal_sampling: bool = True
    localisation: bool = True
    activation: bool = True
    local_to_global: bool = True
    check: bool = True
    loss: str = "DWA"
    window: int = 16
    segments: int = 12
    size: str = "paper"
    epochs: int = 200
    batch: int = 8
    seed: int = 0
    fold: int = 1
    initialisation: str = "scratch"
    localisation_form: str = "bounded"
    activation_form: str = "balanced"
    image_size: int = 0
    precision: str = "float32"
    device: str = "cpu"

    def __post_init__(self):
        checks = [
            (value not in allowed, name, repr(value), f"one of {', '.join(allowed)}")
            for name, allowed in _ALLOWED.items()
            for value in [getattr(self, name)]
        ]
        checks += [
            (value < least, name, value, f"at least {least}")
            for name, least in _LEAST.items()
            for value in [getattr(self, name)]
        ]
        why = "temporal_sampling, because Check runs over the frames of a window"
        alone = self.check and not self.temporal_sampling
        checks.append((alone, "check without temporal_sampling", "still frames", why))
        start = "'scratch', or a name for the weights to start from"
        checks.append((not self.initialisation, "initialisation", "''", start))
        refuse("recognition cell", checks)

    @property
    def training_recipe(self) -> Recipe:
        """The size's recipe with the cell's batch and epochs."""
        return replace(
            RECIPES[self.size][0 if self.temporal_sampling else 1], batch_size=self.batch, epochs=self.epochs
        )

    @property
    def components(self) -> str:
        """Its name in ``COMPONENTS`` where it has one there, else what is switched on and the loss."""
        mine = {name: getattr(self, name) for name in COMPONENTS["LAC"]}
        parts = [*(name for name, field in SWITCHES.items() if mine[field]), f"L_{self.loss}"]
        return next((name for name, fields in COMPONENTS.items() if fields == mine), " + ".join(parts))

    @property
    def label(self) -> str:
        """Short text for progress lines."""
        fold = f" fold {self.fold}" if self.fold != 1 else ""
        return f"t {self.window} N {self.segments} {self.components}{fold}"

    @property
    def source(self) -> str:
        """Whose ``RecognitionInputs`` the cell takes: all take the annotated set's."""
        return "annotated"


@dataclass(frozen=True)
class RecognitionInputs:
    """What cells are trained from; paths, so that a worker process opens them itself.

    Attributes:
        annotated: folder of ``pack_annotated``. fingerprint: of its content.
        calibration_seed: of the choice of calibration subjects.
        initial_weights: for cells that do not start from scratch: a safetensors file that ``LAC.load_backbone`` takes,
            its digest, and the fold that the weights have not seen (0: they have seen none of these subjects).
    """

    annotated: str
    fingerprint: str
    calibration_seed: int = 0
    initial_weights: str = ""
    initial_fingerprint: str = ""
    initial_fold: int = 0


# --------------------------------------------------------------------------------------------------------------
# training


def split(data: AnnotatedFrames, fold: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to calibrate on, and of the held-out fold; rising, no subject in two of them.

    Args:
        seed: of the choice of calibration subjects.

    Raises:
        InputError: no frames of that fold, or fewer than two subjects outside it.
    """
    held = data.table["fold"].to_numpy() == fold
    people = np.unique(data.subjects[~held])
    if not held.any() or len(people) < 2:
        raise InputError(
            data.meta["dataset"],
            f"subjects inside and outside of fold {fold}",
            f"{len(np.unique(data.subjects[held]))} and {len(people)}",
            "at least 1 and 2",
        )
    calibrating = np.isin(data.subjects, calibration_subjects(people, seed)) & ~held
    return np.flatnonzero(~held & ~calibrating), np.flatnonzero(calibrating), np.flatnonzero(held)


def build_network(cell: RecognitionCell, action_units: tuple[str, ...]) -> LAC:
    """The cell's network with fresh weights.

    Without any of Lock's losses it is the plain backbone with a linear layer.
    """
    size = {"image_size": cell.image_size} if cell.image_size else {}
    return build_lac(
        cell.size,
        action_units=action_units,
        lock=cell.localisation or cell.activation or cell.local_to_global,
        sequence=cell.check,
        window=cell.window if cell.temporal_sampling else 1,
        **size,
    )


def epoch_windows(
    cell: RecognitionCell, table: pd.DataFrame, rows: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """What one epoch is trained on, in the order of its batches.

    Args:
        rows: of ``table`` to train on.

    Returns:
        int64 (windows, t) rows of ``table``; without temporal sampling (frames, 1), as many frames, none twice while
        there are enough.
    """
    windows = rows[subject_windows(table.iloc[rows], cell.window, cell.segments, generator)]
    if not cell.temporal_sampling:
        count = windows.size
        turns = [generator.permutation(rows) for _ in range(math.ceil(count / len(rows)))]
        return np.concatenate(turns)[:count, None]
    return generator.permutation(windows)


def batch_terms(
    cell: RecognitionCell,
    network: LAC,
    frames: Tensor,
    landmarks: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    stored: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """The terms of the total loss on a batch, unweighted by eta, and the last stage's logits (B, t, C).

    Args:
        frames: (B, t, 3, S, S) in 0..1. landmarks: (B, t, 68, 2). labels: (B, t, C) of 0, 1 and NaN.
        weights: (C,) of the classification loss, ``None`` = 1.
        stored: ``frames`` are maps of ``trunk_maps``, (B, t, N, h, w).
    """
    with autocast(cell):
        output = network.from_maps(frames) if stored else network(frames)
    terms = {}
    if network.lock:
        boxes = landmark_boxes(landmarks.flatten(0, 1), network.action_units).unflatten(0, landmarks.shape[:2])
        if cell.localisation:
            terms["localisation"] = localisation_loss(output.features, boxes, cell.localisation_form)
        if cell.activation:
            terms["activation"] = activation_loss(output.similarity, boxes, labels, cell.activation_form)
        if cell.local_to_global:
            terms["local_to_global"] = local_to_global_loss(output.similarity, boxes)
    for name, logits in (("first", output.first), ("second", output.second)):
        if logits is not None:
            terms[name] = weighted_loss(logits, labels, weights, asymmetric=cell.loss != "CE")
    return terms, output.logits


def total_loss(terms: dict[str, Tensor], size: str = "paper") -> Tensor:
    """Sum of the terms with the size's eta, which is the paper's but for ``ETAS``."""
    return sum(eta * terms[name] for name, eta in zip(TERMS, ETAS.get(size, ETA), strict=True) if name in terms)


def _pictures(data: AnnotatedFrames, windows: np.ndarray, size: int, device: str) -> Tensor:
    """(B, t, 3, size, size) uint8 of windows (B, t)."""
    batch = torch.from_numpy(data.frames[windows.ravel()]).to(device).permute(0, 3, 1, 2)
    if batch.shape[-1] != size:
        batch = resize(batch.float(), size).round().to(torch.uint8)
    return batch.unflatten(0, windows.shape)


@torch.inference_mode()
def judge_rows(
    network: LAC, data: AnnotatedFrames, rows: np.ndarray, cell: RecognitionCell, maps: TrunkMaps | None = None
) -> np.ndarray:
    """Logits of some rows, float32 (len(rows), C): windows with stride t cover every frame once; from stored maps where
    given.
    """
    network.eval()
    windows, keep = covering_windows(data.table.iloc[rows], network.window)
    judged = np.full((len(rows), len(network.action_units)), np.nan, np.float32)
    step = max(1, 256 // network.window)
    for start in range(0, len(windows), step):
        part, kept = windows[start : start + step], keep[start : start + step]
        with autocast(cell):
            if maps is None:
                output = network(_pictures(data, rows[part], network.image_size, cell.device))
            else:
                output = network.from_maps(maps.take(rows[part])[0].to(cell.device))
        judged[part[kept]] = output.logits.float().cpu().numpy()[kept]
    return judged


def recalls(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(C,) share of the frames with the AU that are called present at 0.5; NaN for an AU that no frame has."""
    present = labels == 1
    return ratio((present & (logits >= 0)).sum(axis=0), present.sum(axis=0))


def frame_f1(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(C,) frame-based F1 at 0.5, unknown labels left out; NaN for an AU that is neither present nor predicted."""
    present, called = labels == 1, ~np.isnan(labels) & (logits >= 0)
    return ratio(2 * (present & called).sum(axis=0), present.sum(axis=0) + called.sum(axis=0))


def fit(cell: RecognitionCell, inputs: RecognitionInputs, scratch: Path | None = None, report=None) -> dict:
    """Train one cell, calibrate it and judge the held-out subjects.

    Deterministic under the cell's seed, and goes on from the last whole epoch after a kill, to the same numbers.

    Args:
        scratch: folder for the state after every epoch. report: called with each epoch's history row.

    Returns:
        ``network`` (on the CPU, in eval mode), ``history`` (one row per epoch: epoch, loss and its ``TERMS``,
        training_recall and calibration_f1, means over AUs at 0.5, learning_rate, seconds); ``training_recall``,
        ``calibration_recall`` and ``weights``, (epochs, C) each; ``rows`` of "training", "calibration" and "held_out",
        of the last two the ``logits``; ``share`` (C,) of the training frames with the AU; ``frames`` an epoch.

    Raises:
        InputError: weights to start from that are missing or have seen the held-out subjects.
        AudferError: the loss stopped being finite.
    """
    data = open_annotated(inputs.annotated)
    training, calibration, held_out = split(data, cell.fold, inputs.calibration_seed)
    with reproducible(cell.seed, cell.device):
        network = build_network(cell, data.action_units)
        if cell.initialisation != "scratch":
            _start_from(network, cell, inputs)
        network.to(cell.device, memory_format=torch.channels_last)
        maps = stored_maps(cell, inputs, data, network)
        task = RecognitionTask(cell, network, data, training, calibration, maps)
        history, _ = train(task, scratch, report=report)
        outcome = {
            "history": pd.DataFrame(history),
            "frames": task.windows.size,
            **{name: np.array(values, np.float32) for name, values in task.traces.items()},
        }
        outcome["rows"] = {"training": training, "calibration": calibration, "held_out": held_out}
        outcome["logits"] = {
            name: judge_rows(network, data, outcome["rows"][name], cell, maps) for name in ("calibration", "held_out")
        }
    return outcome | {"network": network.cpu().eval(), "share": np.nanmean(data.labels[training], axis=0)}


def stored_maps(
    cell: RecognitionCell, inputs: RecognitionInputs, data: AnnotatedFrames | None = None, network: LAC | None = None
) -> TrunkMaps | None:
    """The maps that the cell learns from, made if they are not there; ``None`` for cells that learn from pictures.

    They lie beside the annotated frames; cells that are trained side by side find them there if this was called once
    before.
    """
    if cell.initialisation != "estimator":
        return None
    data = data or open_annotated(inputs.annotated)
    if network is None:
        network = build_network(cell, data.action_units)
        _start_from(network, cell, inputs)
    return trunk_maps(
        network,
        data,
        Path(inputs.annotated).with_name("annotated_maps"),
        inputs.initial_fingerprint,
        device=cell.device,
        precision=cell.precision,
    )


def _start_from(network: LAC, cell: RecognitionCell, inputs: RecognitionInputs) -> None:
    without = f"{cell.initialisation!r} without a file"
    given, seen = (
        "weights in RecognitionInputs.initial_weights, or 'scratch'",
        inputs.initial_fold not in (0, cell.fold),
    )
    trained = f"weights that were trained with fold {inputs.initial_fold} held out"
    start = f"weights to start from, for fold {cell.fold}"
    checks = (
        (not inputs.initial_weights, "initialisation", without, given),
        (seen, start, trained, "weights that have not seen its subjects"),
    )
    refuse("recognition cell", checks)
    if cell.initialisation == "recogniser":
        Recogniser.load(Path(inputs.initial_weights).parent).lend_to(network)
        return
    load = load_estimator if cell.initialisation == "estimator" else load_imagenet
    load(network, read_checkpoint(inputs.initial_weights))


class RecognitionTask(Task):
    """A cell as a task of the training loop; see ``fit``."""

    terms = ("loss", *(f"loss_{name}" for name in TERMS))

    def __init__(
        self,
        cell: RecognitionCell,
        network: LAC,
        data: AnnotatedFrames,
        training: np.ndarray,
        calibration: np.ndarray,
        maps: TrunkMaps | None,
    ):
        self.cell, self.model, self.data, self.maps = cell, network, data, maps
        self.label, self.recipe, self.epochs = cell.label, cell.training_recipe, cell.epochs
        self.device, self.precision = cell.device, cell.precision
        self.training, self.calibration = training, calibration
        self.labels, self.points = torch.from_numpy(data.labels), torch.from_numpy(data.landmarks)
        self.share = torch.from_numpy(np.nanmean(data.labels[training], axis=0))
        self.dynamic = DynamicWeights(len(network.action_units), share=self.share)
        self.generators = {
            "windows": np.random.default_rng([cell.seed, 1]),
            "augment": torch.Generator().manual_seed(cell.seed + 1),
        }
        self.traces: dict[str, list] = {"training_recall": [], "calibration_recall": [], "weights": []}

    def optimizer(self) -> torch.optim.Optimizer:
        warm = self.cell.initialisation == "estimator"  # a recogniser's heads are trained
        heads = HEAD_RATES.get(self.cell.size, 1.0) if warm else 1.0
        return build_optimizer(
            self.model, self.recipe, fused=True, rate_scale=lambda name: 1.0 if name.startswith("backbone.") else heads
        )

    def batches(self, epoch: int) -> list[np.ndarray]:
        weights = {"CE": None, "WA": share_weights(self.share), "DWA": self.dynamic.weights}[self.cell.loss]
        self.weights = None if weights is None else weights.float().to(self.device)
        self.seen: list[Tensor] = []
        self.windows = epoch_windows(self.cell, self.data.table, self.training, self.generators["windows"])
        return np.array_split(self.windows, max(1, round(len(self.windows) / self.recipe.batch_size)))

    def read(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        draws, augmentation = self.generators["augment"], self.recipe.augmentation
        if self.maps is None:
            pictures = _pictures(self.data, rows, self.model.image_size, self.device)
            given, marks = augment_with_points(pictures, self.points[rows].to(self.device), augmentation, draws)
        else:
            mirrored = torch.rand(len(rows), generator=draws) < augmentation.flip
            given, marks = (part.to(self.device) for part in self.maps.take(rows, mirrored))
        return given, marks, self.labels[rows].to(self.device)

    def losses(self, batch) -> tuple[Tensor, ...]:
        terms, logits = batch_terms(self.cell, self.model, *batch, self.weights, self.maps is not None)
        self.seen.append(logits.detach().flatten(0, 1).float().cpu())
        none = torch.tensor(float("nan"), device=self.device)
        return total_loss(terms, self.cell.size), *(terms.get(name, none) for name in TERMS)

    def look(self, epoch: int) -> dict:
        truth = self.data.labels[self.windows.ravel()]
        recall = recalls(truth, torch.cat(self.seen).numpy())
        # what the epoch showed; an AU that it did not show has no share
        self.dynamic.update(torch.from_numpy(recall), torch.from_numpy(np.nanmean(truth, axis=0)))
        judged = judge_rows(self.model, self.data, self.calibration, self.cell, self.maps)
        known = self.data.labels[self.calibration]
        weights = np.ones(len(recall)) if self.weights is None else self.weights.cpu().numpy()
        for trace, values in zip(self.traces.values(), (recall, recalls(known, judged), weights), strict=True):
            trace.append([float(value) for value in values])
        return {
            "training_recall": float(np.nanmean(recall)),
            "calibration_f1": float(np.nanmean(frame_f1(known, judged))),
        }

    def state(self) -> dict:
        return {"dynamic": self.dynamic.state_dict(), "traces": self.traces}

    def load_state(self, state: dict) -> None:
        self.dynamic.load_state_dict(state["dynamic"])
        self.traces = state["traces"]

    def named(self, rows: np.ndarray) -> str:
        return f"frames of {', '.join(np.unique(self.data.subjects[rows]))}"


# ------------------------------------------------------------------------------------------------------------
# recogniser


def every_unit(values: np.ndarray, action_units: tuple[str, ...]) -> np.ndarray:
    """(..., C) of some AUs -> float32 (..., 18), NaN for the others."""
    out = np.full((*values.shape[:-1], len(ACTION_UNITS)), np.nan, np.float32)
    out[..., [ACTION_UNITS.index(name) for name in action_units]] = values
    return out


def intensity_knots(logits: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The monotone mapping from an AU's logit to its intensity, as ``KNOTS`` points between which it is straight.

    Isotonic regression of the code on the logit, smoothed by reading it at quantiles of the logits only, then the
    reduced major axis, which gives the result the mean and the spread of the codes (least squares would pull uncertain
    AUs towards their mean).

    Args:
        logits, codes: (n,), known ones, of subjects that the network was not trained on.

    Returns:
        Rising logits and never falling intensities in 0..5, float32 (KNOTS,) each; all intensities are the mean code
        where logits and codes do not rise together.
    """
    from sklearn.isotonic import IsotonicRegression

    if len(logits) < 2:
        only = codes[0] if len(codes) else 0.0
        return np.linspace(-1, 1, KNOTS, dtype=np.float32), np.full(KNOTS, only, np.float32)
    places = np.quantile(logits.astype(np.float64), np.linspace(0, 1, KNOTS))
    places = places + np.arange(KNOTS) * 1e-6 * max(1.0, np.abs(places).max())  # equal quantiles: still rising
    values = IsotonicRegression(out_of_bounds="clip").fit(logits, codes).predict(places)
    line = major_axis(np.interp(logits, places, values), codes)
    values = np.full(KNOTS, codes.mean()) if line is None else values * line[0] + line[1]
    return places.astype(np.float32), values.clip(0, 5).astype(np.float32)


class Recogniser:
    """A trained network with what makes action units of its logits: thresholds and intensities.

    Attributes:
        network: in eval mode, on the CPU between calls. action_units: that it knows, in the order of its logits.
        window: consecutive frames that it judges together. image_size: side of the pictures, pixels; others are
            resized.
        thresholds: float32 (C,) logits from which an AU counts as present.
        knots: float32 (2, C, KNOTS): logits and the intensities there (``intensity_knots``).
        description: what it was trained on and how, for people.
    """

    def __init__(
        self,
        network: LAC,
        thresholds: np.ndarray | None = None,
        knots: np.ndarray | None = None,
        description: dict | None = None,
    ):
        self.network, self.description = network.eval(), dict(description or {})
        self.action_units, self.window, self.image_size = network.action_units, network.window, network.image_size
        count = len(self.action_units)
        if thresholds is None:  # not calibrated: present from probability 0.5, the intensity is 5 times the probability
            plain = np.linspace(-8, 8, KNOTS)
            thresholds, knots = np.zeros(count), np.stack((plain, 5 / (1 + np.exp(-plain))))[:, None].repeat(count, 1)
        self.thresholds, self.knots = (np.asarray(values, np.float32) for values in (thresholds, knots))

    @classmethod
    def calibrate(
        cls, network: LAC, logits: np.ndarray, codes: np.ndarray, labels: np.ndarray, description: dict
    ) -> Recogniser:
        """Thresholds and intensities from frames of subjects that the network was not trained on.

        Args:
            logits, codes, labels: (n, C); NaN = not coded. An AU that is never, or always, present keeps threshold 0
                (probability 0.5).
        """
        count = len(network.action_units)
        thresholds, knots = np.zeros(count, np.float32), np.zeros((2, count, KNOTS), np.float32)
        for au in range(count):
            known = ~np.isnan(labels[:, au])
            present = labels[known, au] == 1
            if 0 < present.sum() < len(present):
                thresholds[au] = rate_threshold(logits[known, au], present)
            knots[:, au] = intensity_knots(logits[known, au], codes[known, au])
        return cls(network, thresholds, knots, description)

    @torch.inference_mode()
    def judge(self, windows: np.ndarray, device: str = "cpu", precision: str = "float32") -> np.ndarray:
        """Logits of windows of consecutive frames, float32 (B, t, C).

        Args:
            windows: (B, t, H, W, 3) uint8; t may be shorter than ``window`` (a short clip).
            precision: "bf16" (autocast) or "float32".
        """
        self.network.to(device, memory_format=torch.channels_last)
        frames = torch.from_numpy(np.array(windows)).to(device).permute(0, 1, 4, 2, 3)
        if frames.shape[-2:] != (self.image_size, self.image_size):
            frames = resize(frames.float(), self.image_size).round().to(torch.uint8)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return self.network(frames).logits.float().cpu().numpy()

    def calibrated(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What logits (n, C) mean.

        Returns:
            intensity (n, 17) float32 in 0..5, values below ``estimator.ZERO_BELOW`` exactly 0; presence (n, 18)
            float32, 0 or 1, by the calibrated thresholds; probability (n, 18) float32. NaN for AUs that it does not
            know.
        """
        probability = torch.from_numpy(np.asarray(logits, np.float32)).sigmoid().numpy()
        knots = self.knots.swapaxes(0, 1)
        intensity = [np.interp(values, *own) for values, own in zip(logits.T, knots, strict=True)]
        intensity = np.array(intensity, np.float32).reshape(len(knots), len(logits)).T
        intensity[intensity < ZERO_BELOW] = 0
        intensity, presence, probability = (
            every_unit(values, self.action_units) for values in (intensity, logits >= self.thresholds, probability)
        )
        return intensity[:, list(INTENSITY_INDEX)], presence, probability

    def predict(
        self, frames: np.ndarray, device: str = "cpu", precision: str = "float32", batch: int = 32
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Action units of one clip's consecutive frames (n, H, W, 3) uint8; n may be 0. Returns what ``calibrated``
        does.
        """
        return self.predict_clips([frames], device, precision, batch)[0]

    def predict_clips(
        self, clips: list[np.ndarray], device: str = "cpu", precision: str = "float32", batch: int = 32
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """``predict`` of several clips, whose windows share forward passes.

        A clip is cut into windows with stride ``window``; the last one is shifted back so that it is whole, and gives
        the frames that the others have not. A clip shorter than that is one window of its own length.

        Args:
            clips: (n, H, W, 3) uint8 each, of one size. batch: windows a forward pass.
        """
        made = [np.zeros((len(clip), len(self.action_units)), np.float32) for clip in clips]
        waiting: dict[tuple, list[tuple[int, int]]] = {}
        for number, clip in enumerate(clips):
            length = min(self.window, len(clip))
            # the shifted window first: the whole ones then write over what it repeats
            for start in dict.fromkeys((max(len(clip) - length, 0), *range(0, len(clip) - length + 1, length or 1))):
                if length:
                    waiting.setdefault((length, *clip.shape[1:]), []).append((number, start))
        for (length, *_), places in waiting.items():
            for first in range(0, len(places), batch):
                part = places[first : first + batch]
                windows = np.stack([clips[number][start : start + length] for number, start in part])
                for (number, start), logits in zip(part, self.judge(windows, device, precision), strict=True):
                    made[number][start : start + length] = logits
        self.network.cpu()
        return [self.calibrated(logits) for logits in made]

    def lend_to(self, network: LAC) -> None:
        """Copy the weights into another network, AU by AU; AUs that only it has stay as they are.

        Raises:
            InputError: another backbone, or other widths.
        """
        own, mine = network.state_dict(), self.network.state_dict()
        shared = [name for name in network.action_units if name in self.action_units]
        to, of = ([units.index(name) for name in shared] for units in (network.action_units, self.action_units))
        by_unit = ("classifier.weight", "classifier.bias", "check.weight", "check.bias")
        for key, value in own.items():
            parts = (to, of) if key in by_unit else (slice(None), slice(None))
            if key in mine and value.ndim and value[parts[0]].shape == mine[key][parts[1]].shape:
                value[parts[0]] = mine[key][parts[1]]
            elif key in mine and not value.ndim:
                value.copy_(mine[key])
            else:
                raise InputError(
                    "weights of a recogniser",
                    key,
                    tuple(mine[key].shape) if key in mine else "nothing",
                    f"{tuple(value.shape)}, as in the network that is to be trained",
                )
        network.load_state_dict(own)

    def save(self, folder: str | Path) -> None:
        """Write ``recogniser.safetensors`` and ``recogniser.json`` into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"network.{name}": value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        calibrated = {"thresholds": torch.from_numpy(self.thresholds), "knots": torch.from_numpy(self.knots)}
        save_file(tensors | calibrated, folder / "recogniser.safetensors")
        about = {"network": self.network.settings, "present_from_code": PRESENT_FROM, "zero_below": ZERO_BELOW}
        write_json(folder / "recogniser.json", self.description | about)

    @classmethod
    def load(cls, folder: str | Path) -> Recogniser:
        """Read what ``save`` wrote.

        Raises:
            InputError: no recogniser there, or one of another network.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / "recogniser.json").read_text())
            tensors = load_file(folder / "recogniser.safetensors")
            network = LAC(**description["network"])
            network.load_state_dict(
                {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
            )
            return cls(network, tensors["thresholds"].numpy(), tensors["knots"].numpy(), description)
        except (AudferError, *UNREADABLE) as error:
            raise InputError(
                folder,
                "recogniser",
                f"no readable one ({type(error).__name__}: {str(error).splitlines()[0]})",
                "recogniser.json and recogniser.safetensors of this version",
            ) from error


# ---------------------------------------------------------------------------------------------------------------
# records


@dataclass
class RecognitionRecord:
    """What one trained cell left behind.

    Frames and AUs of all arrays: the held-out subjects', one row per frame; the 18 AUs of ``facs.ACTION_UNITS``, NaN
        where not annotated.

    Attributes:
        path: the record's folder, also a ``Recogniser``'s; its name is the digest. cell: the cell's fields.
        rows: (n,) of the annotated set. subjects, frames: (n,) who and which frame. labels: (n, 18) 0, 1 or NaN. codes:
            (n, 18).
        logits: (n, 18) float32 of the last stage.
        thresholds: (18,) logits, calibrated on other subjects.
        history: one row per epoch, see ``fit``. training_recall, calibration_recall, weights: (epochs, 18).
        share: (18,) of the training frames that show the AU.
        seconds: of training. environment: versions, processor, device. meta: the whole ``record.json``.
    """

    path: Path
    cell: dict
    rows: np.ndarray
    subjects: np.ndarray
    frames: np.ndarray
    labels: np.ndarray
    codes: np.ndarray
    logits: np.ndarray
    thresholds: np.ndarray
    history: pd.DataFrame
    training_recall: np.ndarray
    calibration_recall: np.ndarray
    weights: np.ndarray
    share: np.ndarray
    seconds: float
    environment: dict
    meta: dict

    @property
    def probabilities(self) -> np.ndarray:
        """(n, 18) float32."""
        return torch.from_numpy(self.logits).sigmoid().numpy()

    def presence(self, rule: str = "0.5") -> np.ndarray:
        """(n, 18) float32 of 0 and 1 by one of ``RULES``; NaN where the network does not know the AU.

        Raises:
            InputError: another rule.
        """
        if rule not in RULES:
            raise InputError("RecognitionRecord.presence", "rule", repr(rule), f"one of {', '.join(RULES)}")
        present = (self.logits >= (0 if rule == "0.5" else self.thresholds)).astype(np.float32)
        return np.where(np.isnan(self.logits), np.float32(np.nan), present)

    @property
    def intensity(self) -> np.ndarray:
        """(n, 17) calibrated intensities of the same frames."""
        recogniser = Recogniser.load(self.path)
        return recogniser.calibrated(self.logits[:, [ACTION_UNITS.index(name) for name in recogniser.action_units]])[0]

    @classmethod
    def load(cls, path: str | Path) -> RecognitionRecord:
        """Read a record's folder.

        Raises:
            InputError: a file is missing or unreadable.
        """
        path = Path(path)
        try:
            meta = read_meta(path)
            with np.load(path / "frames.npz", allow_pickle=False) as arrays:
                stored = {name: arrays[name] for name in arrays.files}
            return cls(
                path,
                meta["cell"],
                history=read_csv(path / "history.csv"),
                seconds=meta["seconds"],
                environment=meta["environment"],
                meta=meta,
                **stored,
            )
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(
                path,
                "recognition record",
                f"{type(error).__name__}: {error}",
                "record.json, history.csv and frames.npz; delete the folder to make it again",
            ) from None


class RecognitionStore(RunStore):
    """A folder of recognition records; cells, claims, logs and unfinished states as in ``RunStore``."""

    def key(self, cell: RecognitionCell, inputs: RecognitionInputs) -> str:
        """Digest of everything that can change the cell's result."""
        content = {
            "cell": asdict(cell),
            "recipe": asdict(cell.training_recipe),
            "data": inputs.fingerprint,
            "calibration": inputs.calibration_seed,
            "code": versions("lock and check"),
            "torch": torch.__version__.split("+")[0],
        }
        if cell.initialisation != "scratch":
            content["initial weights"] = inputs.initial_fingerprint
        return digest(content)

    def make(self, key: str, cell: RecognitionCell, inputs: RecognitionInputs, report=None) -> None:
        scratch = self.scratch(key)
        scratch.mkdir(parents=True, exist_ok=True)
        outcome = fit(cell, inputs, scratch, report)
        data = open_annotated(inputs.annotated)
        network, rows = outcome["network"], outcome["rows"]
        about = {"trained_on": data.meta["faces"], "data": data.meta, "components": cell.components}
        apart, held = rows["calibration"], rows["held_out"]
        recogniser = Recogniser.calibrate(
            network,
            outcome["logits"]["calibration"],
            data.codes[apart],
            data.labels[apart],
            {**about, "cell": asdict(cell)},
        )

        units = {
            "labels": data.labels[held],
            "codes": data.codes[held],
            "logits": outcome["logits"]["held_out"],
            "thresholds": recogniser.thresholds,
            **{name: outcome[name] for name in ("share", "training_recall", "calibration_recall", "weights")},
        }
        with self.writing(key) as folder:
            np.savez_compressed(
                folder / "frames.npz",
                rows=held,
                subjects=data.subjects[held],
                frames=data.table["frame"].to_numpy()[held],
                **{name: every_unit(values, network.action_units) for name, values in units.items()},
            )
            outcome["history"].to_csv(folder / "history.csv", index=False)
            recogniser.save(folder)
            write_meta(
                folder,
                {
                    "cell": asdict(cell),
                    "recipe": asdict(cell.training_recipe),
                    "inputs": asdict(inputs),
                    "key": key,
                    "network": network.settings,
                    "subjects": {name: len(np.unique(data.subjects[part])) for name, part in rows.items()},
                    "frames_an_epoch": int(outcome["frames"]),
                    "thresholds": {
                        "0.5": "the paper's",
                        "calibrated": "as many frames present as coded so, on the calibration subjects",
                    },
                    "seconds": float(outcome["history"]["seconds"].sum()),
                    "environment": environment(cell.device),
                },
            )

    def cost(self, cell: RecognitionCell) -> float:
        return float(cell.epochs * cell.segments * cell.window)

    def kind(self, cell: RecognitionCell) -> str:
        return cell.size

    def said(self, history: pd.DataFrame) -> str:
        return f"F1 {100 * history.iloc[-1].calibration_f1:.0f}"
