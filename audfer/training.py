"""One cell: train a network on one dataset with or without the AU head, evaluate it, leave a run record.

A *cell* is everything that can change a result (network, dataset, loss, recipe, seed). ``fit`` is deterministic under
its seed, saves its state after every epoch, goes on from there after a kill, and then ends with the numbers it would
have had without the interruption. Section 3.3 of the paper (Eqs. 5, 9, 10) for the loss, 4.3 for the recipes.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from .datasets import PackedClips, open_packed
from .datasets.sampling import jittered_indices, uniform_indices
from .errors import AudferError, InputError
from .evaluation import uar, war
from .knowledge import KnowledgeMatrix
from .losses import AULoss, combined_loss, positive_class_weight
from .models import build_model, count_flops


@dataclass(frozen=True)
class Recipe:
    """How one network is trained. The numbers of ``size="paper"`` are those of section 4.3 and the official code."""

    optimizer: str
    """"adamw" or "sgd" (momentum 0.9)"""
    learning_rate: float
    """at the start of the schedule"""
    weight_decay: float
    batch_size: int = 32
    """clips a step"""
    schedule: str = "cosine"
    """"cosine" to ``minimum_learning_rate``, or "step" (times 0.1 after 40 % and 80 % of the epochs)"""
    minimum_learning_rate: float = 0.0
    warmup: float = 0.0
    """share of all steps during which the rate rises linearly from 0"""
    label_smoothing: float = 0.0
    crop_area: tuple[float, float] = (0.08, 1.0)
    """random resized crop: share of the picture's area"""
    colour_jitter: float = 0.0
    """brightness, contrast and saturation factors are uniform in 1 - x .. 1 + x"""
    clip_gradient: float = 0.0
    """largest gradient norm; 0 = unlimited"""
    decay_norms: bool = False
    """whether weight decay also pulls on biases and norms (M3DFEL's and Former-DFER's official recipes do)"""


RECIPES: dict[tuple[str, str], Recipe] = {
    ("m3dfel", "paper"): Recipe("adamw", 5e-4, 0.05, 64, minimum_learning_rate=5e-6, warmup=0.2, label_smoothing=0.1,
                                colour_jitter=0.4, decay_norms=True),
    ("former_dfer", "paper"): Recipe("sgd", 0.01, 1e-4, schedule="step", decay_norms=True),
    # the official code takes 1e-3 x batch / 256
    ("mae_dfer", "paper"): Recipe("adamw", 1e-3 * 32 / 256, 0.05, minimum_learning_rate=1e-6 * 32 / 256, warmup=0.05,
                                  label_smoothing=0.1),
    # tiny networks see some hundred clips about ten times: many small steps, a high rate, hardly any augmentation
    **{(name, "tiny"): Recipe("adamw", 3e-3, 0.05, 16, warmup=0.1, label_smoothing=0.1, crop_area=(0.85, 1.0),
                              clip_gradient=5.0) for name in ("m3dfel", "former_dfer", "mae_dfer")},
}


@dataclass(frozen=True)
class Cell:
    """What to train. Two cells with equal fields on equal data give equal numbers.

    Attributes:
        model: name for ``audfer.models.build_model``.
        dataset: "DFEW", "FERV39k" or "MAFW".
        au_ratio: lambda of Eq. 10; 0 trains the backbone alone, without an AU head.
        strategy: positive class weight of Eqs. 6 to 8: "global", "distinct", "minor"; "none" without an AU head.
        weights: "knowledge" (K of section 3.1 weighs the AU loss) or "none" (every AU weighs the same).
        reduction: of Eq. 9, "mean" (the release's) or "sum_over_aus" (the paper's).
        precision: "bf16" (autocast) or "float32".
        device: "cpu" or "cuda".
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

    def __post_init__(self):
        if not 0 <= self.au_ratio < 1:
            raise InputError("cell", "au_ratio", self.au_ratio, "lambda of Eq. 10: at least 0 and less than 1")
        if (self.au_ratio > 0) != (self.strategy != "none"):
            raise InputError("cell", "strategy with au_ratio", f"{self.strategy!r} with {self.au_ratio}",
                             "strategy 'none' exactly when au_ratio is 0 (no AU head)")
        if self.strategy not in ("none", "global", "distinct", "minor"):
            raise InputError("cell", "strategy", repr(self.strategy), "one of none, global, distinct, minor")
        if self.weights not in ("none", "knowledge"):
            raise InputError("cell", "weights", repr(self.weights), "one of none, knowledge")
        if (self.model, self.size) not in RECIPES:
            raise InputError("cell", "model and size", f"{self.model!r}, {self.size!r}",
                             "one of " + ", ".join(f"{m} {s}" for m, s in RECIPES))

    @property
    def recipe(self) -> Recipe:
        """The recipe of its network and size."""
        return RECIPES[self.model, self.size]

    @property
    def uses_aus(self) -> bool:
        """Whether the network has an AU head."""
        return self.au_ratio > 0

    @property
    def label(self) -> str:
        """Short text for progress lines: ``m3dfel DFEW +AU 0.25 global``."""
        if not self.uses_aus:
            return f"{self.model} {self.dataset}"
        weights = "" if self.weights == "knowledge" else " no K"
        return f"{self.model} {self.dataset} +AU {self.au_ratio:g} {self.strategy}{weights}"


@dataclass(frozen=True)
class CellInputs:
    """What a cell is trained from; paths, so that a worker process opens them itself.

    Attributes:
        packed: folder of a packed clip store.
        au_labels: npz with ``clip_ids`` (N,) and ``labels`` (N, 18) of 0, 1, NaN = unknown (Eq. 4); rows as in the store.
        knowledge: json of a KnowledgeMatrix.
        fingerprint: digest of the clips; ``au_fingerprint``: of the AU labels and the knowledge matrix.
    """

    packed: str
    au_labels: str
    knowledge: str
    fingerprint: str
    au_fingerprint: str


# ---------------------------------------------------------------------------------------------------------- device


def resolve_device(device: str = "auto") -> str:
    """"cuda" or "cpu"; "auto" takes the GPU where there is one.

    Raises:
        AudferError: "cuda" was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise AudferError("device: found no CUDA GPU, expected one because the profile says device = \"cuda\"; "
                          "take another profile (for example laptop) or set device = \"auto\"")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(precision: str = "auto", device: str = "cpu") -> str:
    """"bf16" or "float32"; "auto" takes bfloat16 autocast where the processor computes in it (AVX512-BF16, AMX, recent GPUs)."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "float32"


@contextmanager
def _threads(count: int):
    """One thread inside a cell: the order of floating-point sums, and so the numbers, do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------------ clips


def gather(packed: PackedClips, rows: np.ndarray, num_frames: int, image_size: int, device: str,
           generator: np.random.Generator | None = None) -> torch.Tensor:
    """Clips of a packed store as a batch.

    Args:
        rows: (B,) positions in the store.
        generator: draws one frame a segment (training); ``None`` takes each segment's middle frame (evaluation).

    Returns:
        (B, T, C, H, W) uint8.
    """
    stored = packed.frames.shape[1]
    chosen = np.stack([uniform_indices(stored, num_frames) if generator is None
                       else jittered_indices(stored, num_frames, generator) for _ in rows])
    return gather_frames(packed, rows, chosen, image_size, device)


def gather_frames(packed: PackedClips, rows: np.ndarray, chosen: np.ndarray, image_size: int, device: str) -> torch.Tensor:
    """The frames ``chosen`` (B, T) of the clips ``rows`` (B,) as a batch (B, T, C, H, W) uint8, resized if need be."""
    clips = np.stack([packed.frames[row][frames] for row, frames in zip(rows, chosen)])
    batch = torch.from_numpy(clips).to(device).permute(0, 1, 4, 2, 3)
    if batch.shape[-1] != image_size:
        flat = F.interpolate(batch.flatten(0, 1).float(), size=(image_size, image_size), mode="bilinear",
                             antialias=True, align_corners=False)
        batch = flat.round().clamp(0, 255).to(torch.uint8).unflatten(0, batch.shape[:2])
    return batch


def augment(clips: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Random resized crop, horizontal flip and colour jitter; one draw a clip, shared by its frames.

    Args:
        clips: (B, T, C, H, W) uint8.

    Returns:
        (B, T, C, H, W) float32 in [0, 1]. Aspect ratio of the crop is uniform in 3/4 .. 4/3 on a log scale. The hue
        shift of M3DFEL's official recipe is left out: it turns skin green.
    """
    count = clips.shape[0]
    draw = torch.rand(count, 8, generator=generator)
    area = recipe.crop_area[0] + (recipe.crop_area[1] - recipe.crop_area[0]) * draw[:, 0]
    aspect = torch.exp((draw[:, 1] * 2 - 1) * math.log(4 / 3))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    flip = torch.where(draw[:, 4] < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2] = (draw[:, 2] * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (draw[:, 3] * 2 - 1) * (1 - height)
    side = clips.shape[-1]
    # frames of a clip share the grid, so they travel as channels of one picture
    flat = clips.flatten(1, 2).float().div_(255)
    grid = F.affine_grid(theta.to(flat.device), (count, 1, side, side), align_corners=False)
    out = F.grid_sample(flat, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    out = out.unflatten(1, clips.shape[1:3])
    if recipe.colour_jitter:
        factor = (1 + recipe.colour_jitter * (draw[:, 5:8] * 2 - 1)).to(out.device).view(count, 3, 1, 1, 1, 1)
        out = out * factor[:, 0]
        mean = out.mean(dim=(1, 2, 3, 4), keepdim=True)
        out = (out - mean) * factor[:, 1] + mean
        grey = out.mean(dim=2, keepdim=True)
        out = (out - grey) * factor[:, 2] + grey
        out = out.clamp_(0, 1)
    return out


# -------------------------------------------------------------------------------------------------------------- fit


def _autocast(cell: Cell):
    return torch.autocast(cell.device, dtype=torch.bfloat16, enabled=cell.precision == "bf16")


def _learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    warm = max(1, round(recipe.warmup * steps))
    if recipe.warmup and step < warm:
        return recipe.learning_rate * (step + 1) / warm
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** sum(step >= share * steps for share in (0.4, 0.8))
    progress = (step - (warm if recipe.warmup else 0)) / max(1, steps - (warm if recipe.warmup else 0))
    low = recipe.minimum_learning_rate
    return low + (recipe.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * progress))


@torch.inference_mode()
def predict(model: nn.Module, packed: PackedClips, rows: np.ndarray, cell: Cell) -> dict[str, np.ndarray]:
    """Deterministic evaluation: middle frame of every segment, no augmentation.

    Returns:
        ``scores`` (N, 7) soft-max probabilities, ``au_scores`` (N, 18) sigmoid or absent, ``features`` (N, D); float32.
    """
    model.eval()
    parts: dict[str, list[np.ndarray]] = {"scores": [], "au_scores": [], "features": []}
    for chunk in np.array_split(rows, max(1, math.ceil(len(rows) / (2 * cell.recipe.batch_size)))):
        clips = gather(packed, chunk, cell.num_frames, cell.image_size, cell.device)
        with _autocast(cell):
            output = model(clips)
        parts["scores"].append(output.expression_logits.float().softmax(1).cpu().numpy())
        parts["features"].append(output.features.float().cpu().numpy())
        if output.au_logits is not None:
            parts["au_scores"].append(output.au_logits.float().sigmoid().cpu().numpy())
    return {name: np.concatenate(part) for name, part in parts.items() if part}


def _au_loss(cell: Cell, inputs: CellInputs, packed: PackedClips, train: np.ndarray) -> tuple[nn.Module, torch.Tensor]:
    """The AU loss of a cell and the AU labels of every clip in the store; weights come from the training split only."""
    with np.load(inputs.au_labels, allow_pickle=False) as stored:
        if list(stored["clip_ids"]) != packed.clip_ids:
            raise InputError(inputs.au_labels, "clip_ids", "other clips or another order than the packed store",
                             f"the {len(packed.manifest)} clips of {inputs.packed}")
        labels = torch.from_numpy(stored["labels"].astype(np.float32))
    expressions = torch.tensor(packed.expressions)
    pos_weight = positive_class_weight(labels[train], expressions[train], strategy=cell.strategy)
    knowledge = KnowledgeMatrix.load(inputs.knowledge) if cell.weights == "knowledge" else None
    return AULoss(knowledge, pos_weight, reduction=cell.reduction), labels


def fit(cell: Cell, inputs: CellInputs, scratch: Path | None = None, report=None) -> dict:
    """Train and evaluate one cell.

    Args:
        scratch: folder for the state after every epoch; an unfinished run found there is gone on with.
        report: called with each epoch's history row (a dict).

    Returns:
        ``history`` DataFrame, ``scores``, ``best_scores``, ``au_scores`` or None, ``features``, ``best_epoch``,
        ``clip_ids``, ``expressions``, ``flops``, ``state_dict``, ``recipe``, ``seconds``.

    Raises:
        AudferError: the loss stopped being finite.
    """
    packed = open_packed(inputs.packed)
    train, test = packed.split("train"), packed.split("test")
    if not len(train) or not len(test):
        raise InputError(inputs.packed, "splits", f"{len(train)} training and {len(test)} test clips",
                         "at least one of each")
    with _threads(1 if cell.device == "cpu" else torch.get_num_threads()), torch.random.fork_rng():
        torch.manual_seed(cell.seed)
        model = build_model(cell.model, num_aus=18 if cell.uses_aus else None, size=cell.size,
                            num_frames=cell.num_frames, image_size=cell.image_size)
        # channels-last: the layout in which these convolutions are fastest
        model = model.to(cell.device, memory_format=model.memory_format)
        au_loss, au_labels = _au_loss(cell, inputs, packed, train) if cell.uses_aus else (None, None)
        if au_loss is not None:
            au_loss = au_loss.to(cell.device)
        return _fit(cell, model, au_loss, au_labels, packed, train, test, scratch, report)


def _fit(cell, model, au_loss, au_labels, packed, train, test, scratch, report) -> dict:
    recipe = cell.recipe
    expressions = torch.tensor(packed.expressions)
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in parameters if p.ndim > 1 or recipe.decay_norms], "weight_decay": recipe.weight_decay},
              {"params": [p for p in parameters if p.ndim <= 1 and not recipe.decay_norms], "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    order_generator = np.random.default_rng([cell.seed, 1])
    augment_generator = torch.Generator().manual_seed(cell.seed + 1)
    # an incomplete last batch would be a batch of few for the batch norms; the official loaders drop it too
    batches = max(1, len(train) // recipe.batch_size)
    steps = batches * cell.epochs
    history: list[dict] = []
    best = {"epoch": -1, "sum": -1.0, "scores": None}
    checkpoint = scratch / "state.pt" if scratch else None
    if checkpoint and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=False)  # our own file, of this machine
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        order_generator.bit_generator.state = state["order"]
        augment_generator.set_state(state["augment"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"])
        history, best = state["history"], state["best"]

    result = None
    for epoch in range(len(history), cell.epochs):
        started = time.perf_counter()
        model.train()
        sums = {"loss": 0.0, "loss_expression": 0.0, "loss_au": 0.0}
        predicted, actual = [], []
        shuffled = order_generator.permutation(train)
        for batch in range(batches):
            rows = shuffled[batch * recipe.batch_size:(batch + 1) * recipe.batch_size]
            rate = _learning_rate(recipe, epoch * batches + batch, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            clips = augment(gather(packed, rows, cell.num_frames, cell.image_size, cell.device, order_generator),
                            recipe, augment_generator)
            targets = expressions[rows].to(cell.device)
            with _autocast(cell):
                output = model(clips)
            loss_expression = F.cross_entropy(output.expression_logits.float(), targets,
                                              label_smoothing=recipe.label_smoothing)
            loss_au = torch.zeros((), device=cell.device)
            loss = loss_expression
            if au_loss is not None:
                loss_au = au_loss(output.au_logits.float(), au_labels[rows].to(cell.device), targets)
                loss = combined_loss(loss_expression, loss_au, cell.au_ratio)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip_gradient:
                nn.utils.clip_grad_norm_(parameters, recipe.clip_gradient)
            optimizer.step()
            for name, value in (("loss", loss), ("loss_expression", loss_expression), ("loss_au", loss_au)):
                sums[name] = sums[name] + value.detach()  # stays on the device: no synchronisation a step
            predicted.append(output.expression_logits.detach().argmax(1))
            actual.append(targets)
        means = {name: float(value) / batches for name, value in sums.items()}
        if not math.isfinite(means["loss"]):
            raise AudferError(f"{cell.label}: the loss became {means['loss']} in epoch {epoch + 1}; "
                              "lower the learning rate or train in float32")
        seen, right = torch.cat(predicted).cpu().numpy(), torch.cat(actual).cpu().numpy()
        result = predict(model, packed, test, cell)
        truth = expressions[test].numpy()
        guess = result["scores"].argmax(1)
        row = {"epoch": epoch + 1, **means, "learning_rate": rate, "train_war": war(right, seen),
               "train_uar": uar(right, seen), "test_war": war(truth, guess), "test_uar": uar(truth, guess),
               "test_loss": float(-np.log(np.clip(result["scores"][np.arange(len(truth)), truth], 1e-12, 1)).mean()),
               "seconds": time.perf_counter() - started}
        if au_loss is None:
            row["loss_au"] = float("nan")
        history.append(row)
        if row["test_war"] + row["test_uar"] > best["sum"]:
            best = {"epoch": epoch + 1, "sum": row["test_war"] + row["test_uar"], "scores": result["scores"]}
        if report:
            report(row)
        if checkpoint and epoch + 1 < cell.epochs:
            _save_state(checkpoint, model=model.state_dict(), optimizer=optimizer.state_dict(),
                        order=order_generator.bit_generator.state, augment=augment_generator.get_state(),
                        torch=torch.get_rng_state(), history=history, best=best,
                        cuda=torch.cuda.get_rng_state() if cell.device == "cuda" else None)
    rows = packed.manifest.iloc[test]
    return {
        "history": pd.DataFrame(history), "scores": result["scores"], "best_scores": best["scores"],
        "best_epoch": best["epoch"], "au_scores": result.get("au_scores"), "features": result["features"],
        "clip_ids": rows["clip_id"].tolist(), "expressions": rows["expression"].to_numpy(),
        "state_dict": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "flops": count_flops(model, (cell.num_frames, 3, cell.image_size, cell.image_size)),
        "recipe": asdict(recipe), "seconds": float(sum(row["seconds"] for row in history)),
    }


def _save_state(path: Path, **state) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
