"""What networks learn before they see an expression: MAE-DFER's masked clips (the loop around
``models.mae_pretraining``), and for any network where the points of a face lie.

Labels are never read. Deterministic under its seed, checkpointed after every epoch, resumed after a kill with the
numbers it would have had. The weights have the official pre-training checkpoint's layout, so
``models.load_official_state_dict`` takes them as it takes the official file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..datasets import PackedClips, open_packed
from ..errors import InputError, refuse
from ..files import UNREADABLE, atomic_file, digest, locked, read_json, remove_tree, write_json
from ..models import NETWORKS
from ..models.mae_pretraining import DECODERS, MAEPretraining, tube_masks
from ..plugins import versions
from ..recipes import Recipe
from ..sampling import stored_indices
from .engine import Task, autocast, epoch_bar, reproducible, train
from .loop import Cell, CellInputs, CellTask, choose_frames, gather_frames, gather_points, gather_prepared
from .recipes import build_optimizer
from .records import environment

#: how each size is pre-trained; augmentation is ``CROP_SCALES``
_TINY = Recipe(
    "ours, for networks that train on a laptop",
    "adamw",
    1e-3,
    0.05,
    betas=(0.9, 0.95),
    no_decay=("mask_token", "lg_region_tokens"),
    epochs=20,
    warmup=0.1,
    clip_gradient=5.0,
)
RECIPES: dict[str, Recipe] = {
    "paper": replace(
        _TINY,
        source="100-epoch schedule: the release of MAE-DFER; betas, decay and crops: VideoMAE; 3e-4 for 256 clips, "
        "batch and 5 epochs of warm-up: not verified, as no text that states them was at hand; frames: ours",
        learning_rate=3e-4 * 128 / 256,
        batch_size=128,
        epochs=100,
        warmup=0.05,
        clip_gradient=0.0,
    ),
    "tiny": _TINY,
}
#: sides of the crop, as shares of the frame's; VideoMAE's for the paper's size
CROP_SCALES: dict[str, tuple[float, ...]] = {"paper": (1.0, 0.875, 0.75, 0.66), "tiny": (1.0, 0.925, 0.85)}
#: where a crop may lie, as shares of the space that is left: corners, edges and centre, and half-way to the corners
_PLACES = (
    *((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1)),
    *((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)),
)
_HISTORY = ["epoch", "loss", "loss_appearance", "loss_motion", "learning_rate", "seconds"]


@dataclass(frozen=True)
class Pretraining:
    """What to pre-train. Equal settings on equal clips give equal weights.

    Attributes:
        size: "tiny" or "paper", as of ``models.build_model("mae_dfer")``.
        epochs: passes over the clips; the recipe's schedule is stretched or shrunk to them.
        num_frames: of a clip that the network sees; image_size: side of a frame in pixels.
        mask_ratio: share of places that are hidden; officially 0.9.
        motion_weight: lambda of the loss (1 - lambda) L_appearance + lambda L_motion.
        precision: "bf16" (autocast) or "float32". device: "cpu" or "cuda".
    """

    size: str = "tiny"
    epochs: int = 20
    num_frames: int = 8
    image_size: int = 48
    mask_ratio: float = 0.75
    motion_weight: float = 0.5
    seed: int = 0
    precision: str = "float32"
    device: str = "cpu"

    def __post_init__(self):
        sizes = NETWORKS["mae_dfer"].sizes
        refuse(
            "pre-training",
            (
                (self.size not in sizes, "size", repr(self.size), f"one of {', '.join(sizes)}"),
                (self.epochs < 1, "epochs", self.epochs, "at least 1"),
                (not 0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "a share above 0 and below 1"),
                (not 0 <= self.motion_weight <= 1, "motion_weight", self.motion_weight, "a share from 0 to 1"),
            ),
        )

    @property
    def recipe(self) -> Recipe:
        """Optimizer, schedule and batch of its size."""
        return RECIPES[self.size]


def build_pretraining(settings: Pretraining) -> MAEPretraining:
    """The network with fresh weights, drawn from torch's global generator."""
    return MAEPretraining(
        **DECODERS[settings.size],
        **{
            **NETWORKS["mae_dfer"].sizes[settings.size],
            "drop_path": 0.0,
            "num_frames": settings.num_frames,
            "image_size": settings.image_size,
        },
    )


def load_pretrained(path: str | Path) -> MAEPretraining:
    """The network that ``pretrain`` wrote, decoder included, in evaluation mode.

    Raises:
        InputError: the file or the json beside it is missing or of something else.
    """
    path = Path(path)
    try:
        settings = Pretraining(**json.loads(path.with_suffix(".json").read_text())["settings"])
        state = load_file(path)
    except UNREADABLE as error:
        raise InputError(
            path,
            "pre-trained weights",
            f"{type(error).__name__}: {error}",
            "a .safetensors file of audfer train --objective mae, with its .json beside it",
        ) from None
    model = build_pretraining(settings)
    model.load_state_dict(state)
    return model.eval()


def multi_scale_crop(clips: Tensor, scales: Sequence[float], generator: torch.Generator, image_size: int) -> Tensor:
    """VideoMAE's crop: a rectangle whose sides are neighbouring scales, at one of 13 places, resized.

    One draw per clip.

    Args:
        clips: (B, T, 3, H, W) uint8.
        scales: shares of the frame's side, falling.
        generator: CPU generator of the draw.

    Returns:
        (B, T, 3, image_size, image_size) float32 in [0, 1].
    """
    count = len(clips)
    pairs = [(w, h) for i, w in enumerate(scales) for j, h in enumerate(scales) if abs(i - j) <= 1]
    sides = torch.tensor(pairs)[torch.randint(len(pairs), (count,), generator=generator)]
    places = torch.tensor(_PLACES)[torch.randint(len(_PLACES), (count,), generator=generator)]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = sides.T
    theta[:, :, 2] = (2 * places - 1) * (1 - sides)
    # frames of a clip share the grid, so they travel as channels of one picture
    flat = clips.flatten(1, 2).float().div_(255)
    grid = F.affine_grid(theta.to(flat.device), (count, 1, image_size, image_size), align_corners=False)
    return F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False).unflatten(
        1, clips.shape[1:3]
    )


class _Clips:
    """Clips of several packed stores under one numbering, without those of test splits."""

    def __init__(self, folders: Sequence[str | Path]):
        if not folders:
            raise InputError("pre-training", "clips", "no packed store", "at least one folder made by audfer data pack")
        self.stores: list[PackedClips] = [open_packed(folder) for folder in folders]
        self.rows = [
            (number, row)
            for number, store in enumerate(self.stores)
            for row in np.flatnonzero(store.manifest["split"].to_numpy() != "test")
        ]
        if not self.rows:
            raise InputError(folders[0], "clips", "test clips only", "clips to pre-train on")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        return digest([store.content for store in self.stores])

    def batch(self, numbers: np.ndarray, settings: Pretraining, generator: np.random.Generator) -> Tensor:
        """Clips (B, T, 3, H, W) uint8, as stored, their frames drawn with jitter."""
        parts = []
        for number, store in enumerate(self.stores):
            rows = np.array([self.rows[n][1] for n in numbers if self.rows[n][0] == number], int)
            if len(rows):
                rule = settings.recipe.train_sampling
                chosen = np.concatenate(
                    [stored_indices(rule, store.frame_numbers[row], settings.num_frames, generator) for row in rows]
                )
                # stores may differ in size; one of them needs no resizing before the crop
                side = None if len({store.frames.shape[2] for store in self.stores}) == 1 else settings.image_size
                parts.append(gather_frames(store, rows, chosen, side, settings.device))
        return torch.cat(parts)


def pretrain(settings: Pretraining, stores: Sequence[str | Path], out: str | Path, report=None) -> pd.DataFrame:
    """Pre-train and write the weights, or find them written.

    Args:
        stores: folders of packed clips (``audfer data pack``); their test splits are left out.
        out: file to write, ``.safetensors``; beside it ``.json`` with settings, recipe, fingerprint of the clips,
            history and environment. Both appear whole. An unfinished run with equal settings, clips and code is gone on
            with.
        report: called with each epoch's row (a dict).

    Returns:
        One row per epoch: epoch, loss, loss_appearance, loss_motion, learning_rate, seconds.

    Raises:
        InputError: no clips, or another file name.
        AudferError: the loss stopped being finite, or another process writes the same file.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise InputError(out, "file to write", repr(out.suffix), "a name that ends in .safetensors")
    clips = _Clips(stores)
    key = digest(
        {
            "settings": asdict(settings),
            "recipe": asdict(settings.recipe),
            "crops": CROP_SCALES[settings.size],
            "clips": clips.fingerprint,
            "code": versions("pretraining"),
            "torch": torch.__version__.split("+")[0],
        }
    )
    record = out.with_suffix(".json")
    if out.is_file() and (known := read_json(record)).get("key") == key:
        return pd.DataFrame(known["history"], columns=_HISTORY)
    scratch = out.parent / f".{out.stem}.unfinished"
    with (
        locked(scratch, "pre-training", "with --out"),
        reproducible(settings.seed, settings.device),
        epoch_bar(
            settings.epochs,
            "pre-train mae_dfer",
            lambda row: f"loss {row['loss_appearance']:.2f} + {row['loss_motion']:.2f}",
            report,
        ) as shown,
    ):
        task = PretrainingTask(settings, clips)
        history, _ = train(task, scratch, key, shown)
        record.unlink(missing_ok=True)  # a record never stands beside weights that it does not describe
        with atomic_file(out) as temporary:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in task.model.state_dict().items()}, temporary
            )
        write_json(
            record,
            {
                "key": key,
                "settings": asdict(settings),
                "recipe": asdict(settings.recipe),
                "crop_scales": CROP_SCALES[settings.size],
                "clips": {
                    "fingerprint": clips.fingerprint,
                    "count": len(clips),
                    "stores": [store.meta["dataset"] for store in clips.stores],
                    "embedded": [bool(store.meta["embedded"]) for store in clips.stores],
                },
                "parameters": sum(p.numel() for p in task.model.parameters()),
                "history": history,
                "environment": environment(settings.device),
            },
        )
    remove_tree(scratch, out.parent)
    return pd.DataFrame(history, columns=_HISTORY)


class PretrainingTask(Task):
    """Masked pre-training as a task of the training loop."""

    label = "pre-training"
    terms = ("loss", "loss_appearance", "loss_motion")

    def __init__(self, settings: Pretraining, clips: _Clips):
        self.settings, self.clips, self.model = settings, clips, build_pretraining(settings).to(settings.device)
        self.recipe, self.epochs = settings.recipe, settings.epochs
        self.device, self.precision = settings.device, settings.precision
        self.generators = {
            "order": np.random.default_rng([settings.seed, 1]),
            "draws": torch.Generator().manual_seed(settings.seed + 1),  # crops and masks
        }

    def optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.model, self.recipe)

    def batches(self, epoch: int) -> list[np.ndarray]:
        size = min(self.recipe.batch_size, len(self.clips))
        shuffled = self.generators["order"].permutation(len(self.clips))
        return list(shuffled[: len(shuffled) // size * size].reshape(-1, size))

    def read(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        settings, draws = self.settings, self.generators["draws"]
        clips = self.clips.batch(rows, settings, self.generators["order"])
        clips = multi_scale_crop(clips, CROP_SCALES[settings.size], draws, settings.image_size)
        return clips, tube_masks(self.model, len(clips), settings.mask_ratio, draws).to(self.device)

    def losses(self, batch) -> tuple[Tensor, ...]:
        clips, visible = batch
        with autocast(self):
            made = self.model(clips, visible)
        appearance, motion = self.model.losses(clips, made)
        weight = self.settings.motion_weight
        return (1 - weight) * appearance + weight * motion, appearance, motion


@torch.inference_mode()
def reconstruct(model: MAEPretraining, clips: Tensor, mask_ratio: float, seed: int = 0) -> dict[str, np.ndarray]:
    """What a pre-trained network makes of masked clips, as pictures: one per tubelet in time.

    A hidden token's prediction is put back into pixels with its true mean and deviation, which the network was not
    asked for.

    Args:
        clips: (B, T, 3, H, W) uint8.
        seed: of the masks.

    Returns:
        ``original``, ``masked`` (hidden places grey), ``appearance`` (predicted at hidden places, else original): uint8
        (B, tubelets, H, W, 3), the first frame of each tubelet; ``motion`` and ``predicted_motion``: float32 of the
        same shape without colours, change to the tubelet's next frame in shares of white, mean of the colours; the
        prediction is NaN where nothing was hidden.
    """
    encoder = model.encoder
    visible = tube_masks(model, len(clips), mask_ratio, torch.Generator().manual_seed(seed)).to(clips.device)
    made = model(clips, visible)
    tubelets = encoder.tubelets(model.checked(clips))
    mean, deviation, change = (scale[:, :, 0] for scale in model.scales(tubelets))
    shape = tubelets.shape[3:]  # 3, height, width of a token
    chosen = made.masked[..., None]

    def filled(values: Tensor, predicted: Tensor) -> Tensor:
        return (
            values.flatten(2)
            .scatter(1, chosen.expand(-1, -1, predicted.shape[-1]), predicted.float())
            .unflatten(2, shape)
        )

    def picture(tokens: Tensor) -> np.ndarray:
        times, rows, columns = encoder.grid
        x = tokens.unflatten(1, (times, rows, columns)).permute(0, 1, 2, 5, 3, 6, 4)
        return x.flatten(4, 5).flatten(2, 3).cpu().numpy()  # B, tubelets, H, W, 3

    def colours(tokens: Tensor) -> np.ndarray:
        return (picture(tokens).clip(0, 1) * 255).round().astype(np.uint8)

    first, step = tubelets[:, :, 0], tubelets[:, :, 1] - tubelets[:, :, 0]
    values = math.prod(shape)
    grey = first.new_full((), 0.5).expand(*made.masked.shape, values)
    unknown = torch.full_like(step, float("nan"))
    return {
        "original": colours(first),
        "masked": colours(filled(first, grey)),
        "appearance": colours(filled((first - mean) / deviation, made.appearance) * deviation + mean),
        "motion": picture(step).mean(-1),
        "predicted_motion": picture(filled(unknown, made.motion[..., :values]) * change).mean(-1),
    }


# ------------------------------------------------------------------------------------------------ landmarks and pose


class LandmarksTask(CellTask):
    """A cell's clips, crops and network, trained to say where the 68 points of each frame lie (and with them how the
    head is turned), relative to the mean face and in units of each coordinate's deviation. Of networks whose clips are
    prepared (``prepared_clips``), as those of the tiny size are.

    Attributes:
        landmarks: float32 (N, T, 68, 2) of all stored frames of the cell's clips, shares of the picture's side; NaN
            where a frame has none.
    """

    terms = ("loss",)

    def __init__(self, cell: Cell, inputs: CellInputs, landmarks: np.ndarray):
        super().__init__(cell, inputs)
        self.landmarks = landmarks
        known = torch.from_numpy(landmarks[self.training])
        self.mean, self.scale = known.nanmean((0, 1)), torch.from_numpy(np.nanstd(known.numpy(), (0, 1)))
        self.model.points = nn.Linear(self.model.feature_dim, cell.num_frames * 68 * 2)

    def _guesses(self, clips: Tensor) -> Tensor:
        return self.model.points(self.model.encode(clips.float()))

    def losses(self, batch) -> list[Tensor]:
        clips, points, _, _ = batch
        target = ((points - self.mean) / self.scale).flatten(1)
        guess = self._guesses(clips)
        known = target.isfinite()
        return [F.smooth_l1_loss(guess[known], target[known])]

    def look(self, epoch: int) -> dict:
        return {}

    @torch.inference_mode()
    def errors(self) -> dict[str, float]:
        """Mean distance of the points on the test clips in % of the distance of the eyes' outer corners (normalised
        mean error), as the network says them and as the mean face has them.
        """
        self.model.eval()
        rows = self.splits["test"]
        rng = np.random.default_rng([self.cell.seed, 2, 0])
        chosen = choose_frames(self.packed, rows, self.recipe.test_sampling, self.cell, rng)[0]
        distances = {"NME": [], "NME of the mean face": []}
        for part in np.array_split(np.arange(len(rows)), math.ceil(len(rows) / (2 * self.recipe.batch_size))):
            seen = rows[part], chosen[part]
            points = gather_points(self.landmarks, *seen, self.device)
            guess = self._guesses(gather_prepared(self.prepared, *seen, self.device)).view(points.shape)
            eyes = (points[..., 36, :] - points[..., 45, :]).norm(dim=-1, keepdim=True)
            for name, said in zip(distances, (guess * self.scale + self.mean, self.mean), strict=True):
                distances[name].append(((said - points).norm(dim=-1) / eyes).flatten())
        return {name: 100 * float(torch.cat(parts).nanmean()) for name, parts in distances.items()}

    def trunk(self) -> dict[str, Tensor]:
        """The network's weights without what says where the points lie."""
        return {name: value for name, value in self.model.state_dict().items() if not name.startswith("points.")}
