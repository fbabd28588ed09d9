"""An action-unit estimator from single face pictures: a small ResNet with two linear heads, trained on coded frames.

It stands where OpenFace stands on real video: its output is the same AU table (17 intensities in 0..5 with small values
at exactly 0, 18 presences). Supervision is FACS codes of an annotated set with subjects disjoint from everything else;
an AU counts as present from code 2 on, as in the DISFA literature.

Three choices, named here because they move the numbers:

- *Calibration subjects.* About a fifth of the training subjects is set aside. The network is not trained on them; they
  fix, per AU, the presence threshold (as many frames present as are coded so) and the intensity's straight line. The
  line is the reduced major axis: it gives the calibrated output the mean and the spread of the codes. Least squares
  would pull uncertain AUs towards their mean, and absent ones away from 0. Evaluation uses other subjects again.
- *Zeros.* A calibrated intensity below ``ZERO_BELOW`` becomes exactly 0, as OpenFace's clipped regressors do;
  the interpolation of section 3.1 works on these zeros.
- *Augmentation.* Training frames are changed in light, sharpness, noise, place and size, and partly covered, because
  the annotated set is filmed more evenly than the sets the estimator is applied to.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import AudferError, InputError, refuse
from ..evaluation import intensity_agreement, presence_quality, ratio
from ..facs import ACTION_UNITS, INTENSITY_ACTION_UNITS, INTENSITY_INDEX
from ..files import UNREADABLE
from ..models.output import contrast, kaiming_init, local_contrast
from ..models.resnet import residual_stage
from ..recipes import Recipe
from ..training.engine import Task, autocast, epoch_bar, reproducible, same_threads, train

#: FACS code from which an AU counts as present
PRESENT_FROM = 2
#: calibrated intensities below this are written as exactly 0
ZERO_BELOW = 0.15
CHANNELS = (16, 32, 64, 96)
#: what ships with the package: lips are told by colour, lids and lips by details of two or three pixels
FINE = {"channels": (8, 16, 32, 64), "colour": True, "stem_stride": 1, "squeezed": 24}


class ActionUnitEstimator(nn.Module):
    """Face pictures -> presence logits and intensities.

    Args:
        image_size: side of the pictures it is made for, at least 32.
        channels: of the stem and of three residual stages of one block, each at half of the side of the one before. A
            block at the stem's resolution would cost as much as all that follows and gains nothing.
        colour: whether it sees how red each place is beside how bright.
        stem_stride: 2, or 1 for a stem at the pictures' own resolution: half again the time, and lids and lips are told
            better.
        squeezed: channels of the map that keeps where something happens.

    Attributes:
        thresholds: (18,) presence logits from which an AU counts as present; 0 until calibrated.
        gain, offset: (17,) straight line from raw output to intensity; 1 and 0 until calibrated.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: tuple[int, ...] = CHANNELS,
        colour: bool = False,
        stem_stride: int = 2,
        squeezed: int = 32,
    ):
        super().__init__()
        if image_size < 32:
            raise AudferError(f"the AU estimator's image_size is {image_size}, expected at least 32 pixels")
        self.image_size = image_size
        self.form = {"channels": channels, "colour": colour, "stem_stride": stem_stride, "squeezed": squeezed}
        self.colour = colour
        self.stem = nn.Sequential(
            nn.Conv2d(1 + colour, channels[0], 5, stride=stem_stride, padding=2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(*(residual_stage(narrow, wide, 1, 2) for narrow, wide in pairwise(channels)))
        # a coarse 4 x 4 map keeps where something happens: AUs are local
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels[3], squeezed, 1, bias=False),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        features = squeezed * 16 + channels[3]
        self.dropout = nn.Dropout(0.2)
        self.presence = nn.Linear(features, len(ACTION_UNITS))
        self.intensity = nn.Linear(features, len(INTENSITY_ACTION_UNITS))
        self.register_buffer("thresholds", torch.zeros(len(ACTION_UNITS)))
        self.register_buffer("gain", torch.ones(len(INTENSITY_ACTION_UNITS)))
        self.register_buffer("offset", torch.zeros(len(INTENSITY_ACTION_UNITS)))
        kaiming_init(self)

    def see(self, images: Tensor) -> Tensor:
        """What the network works on: (B, 1, H, W) in 0..1, the mean over colours, or with ``colour`` (B, 2, H, W).

        The second channel is how red a place is, the difference of logarithms of red and of the mean of the others.

        Args:
            images: (B, 3 or 1, H, W), uint8 0..255 or floating point 0..1, RGB; grey pictures have no redness.
        """
        if not self.colour:
            return grey(images)
        logs = ((images.float() / 255 if images.dtype == torch.uint8 else images.float()) + 0.02).log()
        red = logs[:, :1] - logs[:, 1:].mean(dim=1, keepdim=True) if images.shape[1] == 3 else torch.zeros_like(logs)
        # both in about 0..1, so that ``augment`` can treat them as pictures
        return torch.cat((1 + logs.mean(dim=1, keepdim=True) / 4, 0.4 + red / 2), dim=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Presence logits (B, 18) and calibrated intensities (B, 17) in 0..5, both float32.

        Args:
            images: (B, 3, H, W), uint8 0..255 or floating point 0..1, RGB; resized if the side is another one.
        """
        logits, raw = self.raw(images)
        return logits, (raw * self.gain + self.offset).clamp(0, 5)

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Presence logits and uncalibrated, unclipped intensities; ``images`` may also be grey, (B, 1, H, W)."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise AudferError(
                f"the AU estimator was given the shape {tuple(images.shape)}, expected (batch, 3, height, width)"
            )
        return self.raw_of(self.see(images))

    def raw_of(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """``raw`` of what ``see`` gave, perhaps augmented."""
        x = seen
        if x.shape[-2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear", antialias=True)
        # brightness and redness each for itself
        x = self.stages(self.stem(contrast(x.clone(), 0.02) if self.colour else local_contrast(x)))
        features = self.dropout(torch.cat((self.squeeze(x), x.mean(dim=(2, 3))), dim=1))
        return self.presence(features).float(), self.intensity(features).float()

    def save(self, folder: str | Path) -> None:
        """Write ``estimator.safetensors`` and ``estimator.json`` into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: value.contiguous() for key, value in self.state_dict().items()}, folder / "estimator.safetensors"
        )
        description = {
            "image_size": self.image_size,
            **self.form,
            "action_units": ACTION_UNITS,
            "present_from_code": PRESENT_FROM,
            "zero_below": ZERO_BELOW,
        }
        (folder / "estimator.json").write_text(json.dumps(description, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> ActionUnitEstimator:
        """Read what ``save`` wrote; in eval mode.

        Raises:
            InputError: no estimator there, or one for other AUs.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / "estimator.json").read_text())
            if (units := tuple(description["action_units"])) != ACTION_UNITS:
                raise ValueError(f"its action units are {', '.join(units)}, expected are {', '.join(ACTION_UNITS)}")
            form = {name: description[name] for name in ("colour", "stem_stride", "squeezed") if name in description}
            estimator = cls(description["image_size"], tuple(description["channels"]), **form)
            estimator.load_state_dict(load_file(folder / "estimator.safetensors"))
        except (AudferError, *UNREADABLE) as error:
            raise InputError(
                folder, "AU estimator", f"no readable one ({error})", "estimator.json and estimator.safetensors"
            ) from error
        return estimator.eval()


# ---------------------------------------------------------------------------------------------------------- training


def grey(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 or floating point -> (B, 1, H, W) floating point in 0..1, the mean over C.

    Colour tells people and places apart, not AUs; without it everything before the network costs a third.
    """
    mean = images.float().mean(dim=1, keepdim=True)
    return mean / 255 if images.dtype == torch.uint8 else mean


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change a batch of pictures as other cameras and places would, each on its own.

    Args:
        images: (B, C, H, W) float in 0..1.
        generator: of the same device.

    Returns:
        The same shape, in 0..1: mirrored, turned, moved and zoomed, narrowed, blurred, noisy, partly covered.
    """
    batch, _, height, width = images.shape
    device = images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((batch, *shape), generator=generator, device=device)

    angle, zoom = uniform(-0.2, 0.2), uniform(0.85, 1.15)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)  # no AU here has a side
    aspect = uniform(0.9, 1.1)  # turning the head narrows the face
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    transform = torch.stack(
        (
            torch.stack((cos * mirror * aspect, -sin, uniform(-0.12, 0.12)), 1),
            torch.stack((sin * mirror * aspect, cos, uniform(-0.12, 0.12)), 1),
        ),
        1,
    )
    grid = F.affine_grid(transform, [batch, 1, height, width], align_corners=False)
    x = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    down = torch.linspace(-1, 1, height, device=device)[:, None]
    across = torch.linspace(-1, 1, width, device=device)
    # sharpness: a mixture with a 3 x 3 and with a 5 x 5 mean, for half of the pictures
    amount = uniform(0, 1, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.5)
    wide = uniform(0, 1, 1, 1, 1) < 0.4
    near = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = x + amount * (torch.where(wide, F.avg_pool2d(near, 3, 1, 1, count_include_pad=False), near) - x)

    x = x + uniform(0, 0.035, 1, 1, 1) * torch.randn(x.shape, generator=generator, device=device)

    # skin, light and exposure need no augmentation: the network's contrast normalisation removes them
    # something in front of the face, in one picture of eight
    side_y, side_x = uniform(0.1, 0.3, 1, 1, 1), uniform(0.1, 0.3, 1, 1, 1)
    covered = ((down - uniform(-1, 1, 1, 1, 1)).abs() < side_y) & ((across - uniform(-1, 1, 1, 1, 1)).abs() < side_x)
    covered &= uniform(0, 1, 1, 1, 1) < 0.125
    x = torch.where(covered, uniform(0, 0.8, 1, 1, 1), x)
    return x.clamp(0, 1)


def train_estimator(
    images: np.ndarray,
    intensity_codes: np.ndarray,
    subjects,
    *,
    train_index=None,
    epochs: int = 16,
    batch_size: int = 32,
    lr: float = 6e-3,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
    progress: bool = True,
    scratch: str | Path | None = None,
    report=None,
    **form,
) -> tuple[ActionUnitEstimator, pd.DataFrame]:
    """Train and calibrate an estimator; the same arguments give the same estimator, whatever the number of
    cores (of one kind).

    Args:
        images: (N, H, W, 3) uint8, square.
        intensity_codes: (N, 18) FACS codes 0..5, ``facs.ACTION_UNITS`` order; NaN = not coded, which teaches nothing.
        subjects: (N,) who is on each picture.
        train_index: rows to learn from (default all); a fifth of their subjects, at least one, serves calibration.
        epochs: passes over the training rows.
        batch_size: pictures per step.
        lr: largest learning rate (AdamW, one warm-up, then cosine to 0).
        seed: of initial weights, order, augmentation and choice of calibration subjects.
        device: "cpu" or "cuda".
        precision: "bf16" (autocast) or "float32".
        progress: whether to show a progress bar.
        scratch: folder for the state after every epoch; an unfinished run of the same arguments found there is gone on
            with. report: called with each epoch's history row.

    Returns:
        (estimator in eval mode on the CPU, history with one row per epoch: epoch, loss, loss_presence, loss_intensity,
        calibration_f1 (mean over AUs at threshold 0), learning_rate, seconds).

    Raises:
        AudferError: arrays that do not fit together, fewer than two subjects, or a loss that stopped being finite.
    """
    images, codes, subjects = _checked(images, intensity_codes, subjects)
    train_index = np.arange(len(images)) if train_index is None else np.asarray(train_index)
    people = np.unique(subjects[train_index])
    if len(people) < 2:
        raise AudferError(
            f"the AU estimator needs frames of at least 2 subjects to learn and calibrate, found {len(people)}"
        )
    held_in = calibration_subjects(people, seed)
    for_calibration = train_index[np.isin(subjects[train_index], held_in)]
    for_training = train_index[~np.isin(subjects[train_index], held_in)]

    # weights and dropout draw from the global generators: seeded here, and put back as they were for the caller
    with (
        reproducible(seed, device),
        epoch_bar(
            epochs,
            "AU estimator",
            lambda row: f"loss {row['loss']:.3f}, F1 {row['calibration_f1']:.3f}",
            report,
            disable=not progress,
        ) as shown,
    ):
        task = EstimatorTask(
            images, codes, for_training, for_calibration, epochs, batch_size, lr, seed, device, precision, **form
        )
        history, _ = train(task, scratch, report=shown)
        estimator = task.model
        logits, raw = _raw_outputs(estimator, images[for_calibration], 256, device, precision)
    estimator.cpu()
    calibrate(estimator, logits, raw, codes[for_calibration])
    return estimator.eval(), pd.DataFrame(history)


class EstimatorTask(Task):
    """An estimator as a task of the training loop; see ``train_estimator``."""

    label = "AU estimator"
    terms = ("loss", "loss_presence", "loss_intensity")

    def __init__(
        self,
        images: np.ndarray,
        codes: np.ndarray,
        for_training: np.ndarray,
        for_calibration: np.ndarray,
        epochs: int,
        batch_size: int,
        lr: float,
        seed: int,
        device: str,
        precision: str,
        **form,
    ):
        self.epochs, self.device, self.precision = epochs, device, precision
        self.recipe = Recipe(
            "ours", "adamw", lr, 0.05, decay_norms=True, batch_size=batch_size, epochs=epochs, clip_gradient=5.0
        )
        self.model = ActionUnitEstimator(images.shape[1], **form).to(device=device, memory_format=torch.channels_last)
        self.images, self.for_training, self.for_calibration = images, for_training, for_calibration
        self.pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.codes = torch.from_numpy(codes)
        self.presence = torch.where(self.codes.isnan(), self.codes, (self.codes >= PRESENT_FROM).float())
        # a rare AU would otherwise be answered with "never"; the root keeps thresholds and rates from drifting apart
        rate = self.presence[for_training].nanmean(dim=0).nan_to_num(0.5).clamp(0.01, 0.99)
        self.pos_weight = ((1 - rate) / rate).sqrt().to(device)
        self.generators = {
            "order": torch.Generator().manual_seed(seed + 1),
            "pictures": torch.Generator(device).manual_seed(seed + 2),
        }

    def rate(self, step: int, steps: int) -> float:
        """One warm-up, then a cosine to 0."""
        warmup = max(1, steps // 20)
        if step < warmup:
            return self.recipe.learning_rate * ((step + 1) / warmup)
        return self.recipe.learning_rate * (0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def batches(self, epoch: int) -> list[np.ndarray]:
        size = self.recipe.batch_size
        order = self.for_training[torch.randperm(len(self.for_training), generator=self.generators["order"]).numpy()]
        return [order[step * size : (step + 1) * size] for step in range(max(1, len(order) // size))]

    def read(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        pictures = augment(self.model.see(self.pictures[rows].to(self.device)), self.generators["pictures"])
        return pictures, self.presence[rows].to(self.device), self.codes[rows][:, INTENSITY_INDEX].to(self.device)

    def losses(self, batch) -> tuple[Tensor, Tensor, Tensor]:
        """Binary cross entropy and smooth L1, each the mean over the known entries, behind their sum."""
        pictures, presence, codes = batch
        with autocast(self):
            logits, raw = self.model.raw_of(pictures)
        known, coded = ~presence.isnan(), ~codes.isnan()
        first = F.binary_cross_entropy_with_logits(
            logits, presence.nan_to_num(), pos_weight=self.pos_weight, reduction="none"
        )
        second = F.smooth_l1_loss(raw, codes.nan_to_num(), reduction="none")
        first, second = ((x * mask).sum() / mask.sum().clamp(min=1) for x, mask in ((first, known), (second, coded)))
        return first + second, first, second

    def look(self, epoch: int) -> dict:
        rows = self.for_calibration
        logits, _ = _raw_outputs(self.model, self.images[rows], 256, self.device, self.precision)
        return {"calibration_f1": float(np.nanmean(_f1(self.presence[rows].numpy(), logits >= 0)))}


def calibration_subjects(people: np.ndarray, seed: int = 0) -> np.ndarray:
    """A fifth of the people of a training set, at least one: not trained on, for thresholds and intensities."""
    people = np.unique(people)
    return np.random.default_rng(seed).permutation(people)[: max(1, round(len(people) / 5))]


def calibrate(estimator: ActionUnitEstimator, logits: np.ndarray, raw: np.ndarray, codes: np.ndarray) -> None:
    """Set the estimator's presence thresholds and intensity lines from frames of subjects that it was not trained on.

    Args:
        logits: (n, 18) presence logits.
        raw: (n, 17) uncalibrated intensities.
        codes: (n, 18) FACS codes; NaN = not coded. An AU that is never, or always, present here keeps threshold 0, and
            an AU whose raw output or code does not vary keeps its line.
    """
    coded = ~np.isnan(codes)
    for au, known in enumerate(coded.T):
        present = codes[known, au] >= PRESENT_FROM
        if 0 < present.sum() < len(present):
            estimator.thresholds[au] = float(rate_threshold(logits[known, au], present))
    for column, au in enumerate(INTENSITY_INDEX):
        known = coded[:, au]
        if (line := major_axis(raw[known, column], codes[known, au])) is not None:
            estimator.gain[column], estimator.offset[column] = line


def major_axis(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """Gain and offset of the reduced major axis, which gives x the mean and the spread of y; ``None`` where x does not
    rise with y.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    if len(x) < 2 or x.std() <= 1e-6 or y.std() == 0 or np.cov(x, y)[0, 1] <= 0:
        return None
    gain = y.std() / x.std()
    return float(gain), float(y.mean() - gain * x.mean())


def rate_threshold(scores: np.ndarray, present: np.ndarray) -> float:
    """The score from which as many frames are called present as are coded present, so that precision equals recall.

    Not the score of the largest F1: for an AU that is hard to see that one calls nearly every frame present, and the
    clip labels of Eq. 4 and the weights of Eqs. 6 to 8 would say nothing.
    """
    count, falling = int(present.sum()), np.sort(scores)[::-1]
    return (falling[count - 1] + falling[count]) / 2


# --------------------------------------------------------------------------------------------------------- applying


def _raw_outputs(
    estimator: ActionUnitEstimator, images: np.ndarray, batch_size: int, device: str, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    estimator.to(device=device, memory_format=torch.channels_last).eval()
    logits, raw = [], []
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).permute(0, 3, 1, 2)
            for store, values in zip((logits, raw), estimator.raw(batch.to(device)), strict=True):
                store.append(values.cpu().numpy())
    if not logits:
        return np.empty((0, len(ACTION_UNITS)), np.float32), np.empty((0, len(INTENSITY_ACTION_UNITS)), np.float32)
    return np.concatenate(logits), np.concatenate(raw)


def predict(
    estimator: ActionUnitEstimator,
    images: np.ndarray,
    batch_size: int = 256,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[np.ndarray, np.ndarray]:
    """AUs of pictures, in the form that OpenFace gives them.

    Args:
        images: (n, H, W, 3) uint8; n may be 0.

    Returns:
        intensity (n, 17) float32 in 0..5, values below ``ZERO_BELOW`` exactly 0; presence (n, 18) float32, 0 or 1.
    """
    logits, raw = _raw_outputs(estimator, images, batch_size, device, precision)
    estimator.cpu()
    intensity = np.clip(raw * estimator.gain.numpy() + estimator.offset.numpy(), 0, 5).astype(np.float32)
    intensity[intensity < ZERO_BELOW] = 0
    return intensity, (logits >= estimator.thresholds.numpy()).astype(np.float32)


# -------------------------------------------------------------------------------------------------------- evaluation


def evaluate_estimator(
    estimator: ActionUnitEstimator,
    images: np.ndarray,
    intensity_codes: np.ndarray,
    subjects,
    *,
    resamples: int = 2000,
    batch_size: int = 256,
    device: str = "cpu",
    precision: str = "float32",
) -> pd.DataFrame:
    """How well the estimator does on subjects it has not seen.

    Args:
        images, intensity_codes, subjects: as in ``train_estimator``; all rows are evaluated.
        resamples: bootstrap draws of whole subjects for the 95 % intervals.

    Returns:
        One row per AU, ``facs.ACTION_UNITS`` order: action_unit, f1, f1_low, f1_high (95 % percentile interval over
        subjects), precision, recall, base_rate, intensity_r (Pearson), intensity_r_low, intensity_r_high, icc
        (ICC(3,1)), mean_absolute_error, n (coded frames). NaN where undefined: F1 of an AU that is neither present nor
        predicted, and intensity of AU28.
    """
    images, codes, subjects = _checked(images, intensity_codes, subjects)
    with same_threads():
        intensity, presence = predict(estimator, images, batch_size, device, precision)
    return agreement(intensity, presence, codes, subjects, resamples=resamples)


def agreement(
    intensity: np.ndarray, presence: np.ndarray, codes: np.ndarray, subjects, *, resamples: int = 2000
) -> pd.DataFrame:
    """The table of ``evaluate_estimator`` from predictions.

    Args:
        intensity: (n, 17). presence: (n, 18) of 0 and 1. codes: (n, 18), NaN = not coded. subjects: (n,).
    """
    labels = np.where(np.isnan(codes), np.nan, codes >= PRESENT_FROM)
    table = presence_quality(labels, presence, subjects, draws=resamples)
    strength = intensity_agreement(intensity, codes[:, list(INTENSITY_INDEX)], subjects, resamples)
    strength.insert(0, "action_unit", INTENSITY_ACTION_UNITS)
    ours = ["intensity_r", "intensity_r_low", "intensity_r_high", "icc", "mean_absolute_error"]
    table = table.drop(columns="f1_always").merge(strength[["action_unit", *ours]], how="left", on="action_unit")
    return table.assign(n=table.pop("clips"))


def _f1(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(18,) F1 per AU; rows whose truth is NaN are left out."""
    known = ~np.isnan(truth)
    hit = ((truth == 1) & (guess == 1)).sum(axis=0)
    return ratio(2 * hit, (truth == 1).sum(axis=0) + ((guess == 1) & known).sum(axis=0))


def _checked(images, codes, subjects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, codes, subjects = np.asarray(images), np.asarray(codes, dtype=np.float32), np.asarray(subjects).astype(str)
    square = images.ndim == 4 and images.shape[3] == 3 and images.shape[1] == images.shape[2]
    count, low, high = len(images), np.nanmin(codes, initial=0), np.nanmax(codes, initial=0)
    picture, units = f"{images.dtype} of the shape {images.shape}", (count, len(ACTION_UNITS))
    refuse(
        "AU estimator",
        (
            (not square or images.dtype != np.uint8, "images", picture, "uint8 (N, side, side, 3)"),
            (codes.shape != units, "intensity_codes", f"the shape {codes.shape}", units),
            (subjects.shape != (count,), "subjects", f"the shape {subjects.shape}", f"({count},)"),
            (low < 0 or high > 5, "intensity_codes", f"values from {low} to {high}", "FACS codes 0 to 5"),
        ),
    )
    return images, codes, subjects
