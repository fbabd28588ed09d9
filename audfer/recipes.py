"""How a network is trained: optimizer, schedule, augmentation, mixing and frame sampling, as named recipes.

Each network of the paper has ``<model>-paper`` (section 4.3 of AU-DFER), the recipe of its own official release, that
of AU-DFER's release where it differs, and ``<model>-tiny`` for a laptop. Where the paper is silent the release's value
stands. What changes results by accident in a release (its *quirks*: frames out of order at test time, a cosine that
ignores the warm-up) is off in the ``-paper`` recipes and on in the releases'. Choose one by name in a cell, a profile
or on the command line; ``recipe_table`` shows them side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches

import pandas as pd
import torch
from torch import nn

from .augmentation import Augmentation
from .datasets.sampling import SAMPLING
from .errors import AudferError, InputError

#: name -> class, and which of a recipe's constants it takes
OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, ("betas",)),
    "adam": (torch.optim.Adam, ("betas",)),
    "sgd": (torch.optim.SGD, ("momentum",)),
}


@dataclass(frozen=True)
class Recipe:
    """How one network is trained and evaluated."""

    source: str
    """whose numbers these are, and which of them are not"""

    # optimizer
    optimizer: str
    """"adamw", "adam" or "sgd" """
    learning_rate: float
    """the highest of the schedule, for ``batch_size`` clips a step (a release's scaling with the batch is worked in)"""
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's and Adam's; their epsilon is 1e-8 everywhere"""
    momentum: float = 0.9
    """SGD's"""
    decay_norms: bool = False
    """whether weight decay also pulls on one-dimensional parameters: biases and norms"""
    no_decay: tuple[str, ...] = ()
    """names (or their last part) of further parameters that it leaves alone"""
    layer_decay: float = 1.0
    """the rate of a transformer's block i of n is multiplied by this to the power n - i, that of the patch embedding by
    the power n + 1; everything else (heads, final norm, messenger tokens) gets the full rate. 1 = all layers alike"""
    clip_gradient: float = 0.0
    """largest gradient norm; 0 = unlimited"""

    # schedule, in optimizer steps
    batch_size: int = 32
    """clips a step"""
    epochs: int = 100
    """of the official run; a cell may train shorter, the schedule then shrinks with it"""
    drop_last: bool = True
    """whether an incomplete last batch is left out"""
    schedule: str = "cosine"
    """"cosine" to ``minimum_learning_rate``, or "step" (times 0.1 after each of ``milestones``)"""
    minimum_learning_rate: float = 0.0
    milestones: tuple[float, ...] = (0.4, 0.8)
    """shares of all steps; only for "step" """
    warmup: float = 0.0
    """share of all steps during which the rate rises linearly; 0.2 is 20 of 100 epochs"""
    warmup_from_zero: bool = False
    """whether the very first step has rate 0, so that it changes nothing (the releases'), or the first rise already"""
    cosine_ignores_warmup: bool = False
    """M3DFEL's quirk: the cosine counts from step 0, so the rate falls suddenly at the end of the warm-up"""
    schedule_lag: int = 0
    """M3DFEL's quirk: by how many steps the rate comes late (1: the first two steps have the same)"""

    # regularisation
    drop_path: float | None = None
    """stochastic depth of the last block; ``None`` = the network's own"""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """alpha of mixup's Beta distribution; 0 = off. Partner of a clip: the one at its place in the reversed batch. With
    both mixup and cutmix a batch gets one of them, each with probability 0.5"""
    cutmix: float = 0.0
    """alpha of cutmix's Beta distribution; 0 = off"""
    mix_aus: bool = False
    """whether the AU labels are mixed as well. Off as in AU-DFER's release, of which the paper's numbers are: a mixed
    clip keeps the first clip's AU labels, and the larger share's expression chooses the row of K. On is the consistent
    choice: labels and rows of K are mixed in the clips' proportions, and an AU unknown in either clip is left out"""

    # what the network sees
    augmentation: Augmentation = Augmentation()
    train_sampling: str = "jittered"
    """a name of ``datasets.sampling.SAMPLING``"""
    test_sampling: str = "uniform"
    """the same; a rule with several views averages their soft-max probabilities"""
    frame_stride: int = 1
    """frames from one to the next, for the rules that have one (MAE-DFER)"""
    selection: str = "last epoch"
    """which epoch its authors report; here every record holds the last epoch and the best on the test split, each named
    """

    def __post_init__(self):
        for name, found, allowed in (
            ("optimizer", self.optimizer, tuple(OPTIMIZERS)),
            ("schedule", self.schedule, ("cosine", "step")),
            ("train_sampling", self.train_sampling, tuple(SAMPLING)),
            ("test_sampling", self.test_sampling, tuple(SAMPLING)),
        ):
            if found not in allowed:
                raise InputError("recipe", name, repr(found), f"one of {', '.join(allowed)}")
        if self.batch_size < 1 or self.epochs < 1:
            raise InputError(
                "recipe", "batch_size, epochs", f"{self.batch_size}, {self.epochs}", "numbers of at least 1"
            )


# ------------------------------------------------------------------------------------------------------- the recipes

_CROP = Augmentation("crop", crop="swapped", flip=0.5)
_JITTER = replace(_CROP, name="crop and colours", colour_jitter=0.4, hue_jitter=0.4)
_RAND = Augmentation("RandAugment", operations=4, crop="log", flip=0.5, erase=0.25)

_M3DFEL = Recipe(
    "AU-DFER section 4.3 (rates, decay, 100 epochs); batch, warm-up, smoothing and augmentation: its release; frames: "
    "ours",
    "adamw",
    5e-4,
    0.05,
    decay_norms=True,
    batch_size=64,
    minimum_learning_rate=5e-6,
    warmup=0.2,
    label_smoothing=0.1,
    augmentation=_JITTER,
)
_M3DFEL_RELEASE = replace(
    _M3DFEL,
    source="the replication of M3DFEL that AU-DFER builds on (4 GPUs), quirks included",
    batch_size=256,
    epochs=300,
    warmup=20 / 300,
    warmup_from_zero=True,
    cosine_ignores_warmup=True,
    schedule_lag=1,
    train_sampling="m3dfel",
    test_sampling="m3dfel",
    selection="best test WAR and best test UAR, each of its own epoch",
)

_FORMER = Recipe(
    "AU-DFER section 4.3 (rate, decay, 100 epochs); the rest: Former-DFER's release; frames: ours",
    "sgd",
    0.01,
    1e-4,
    decay_norms=True,
    schedule="step",
    augmentation=_CROP,
)
_FORMER_RELEASE = replace(
    _FORMER,
    source="Former-DFER's release on DFEW and FERV39k",
    train_sampling="former_dfer",
    test_sampling="former_dfer-test",
    selection="best test WAR",
)


def _mae(source: str, batch_size: int, **changes) -> Recipe:
    """MAE-DFER's fine-tuning; its rates are given for 256 clips a step."""
    share = batch_size / 256
    return Recipe(
        source,
        "adamw",
        1e-3 * share,
        0.05,
        no_decay=("lg_region_tokens",),
        layer_decay=0.75,
        batch_size=batch_size,
        minimum_learning_rate=1e-6 * share,
        warmup=0.05,
        warmup_from_zero=True,
        drop_path=0.1,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        augmentation=_RAND,
        **changes,
    )


_MAE = _mae(
    "AU-DFER section 4.3 (betas; 1e-3 read as the release's rate for 256 clips); the rest: MAE-DFER's release on one "
    "GPU; frames: ours",
    32,
)


def _mae_release(dataset: str, gpu_batch: int, stride: int) -> Recipe:
    return _mae(
        f"MAE-DFER's release on {dataset}, 3 GPUs of {gpu_batch} clips",
        3 * gpu_batch,
        train_sampling="mae_dfer",
        test_sampling="mae_dfer-views",
        frame_stride=stride,
    )


_KEYPOINT = Recipe(
    "Huang et al. 2024 (optimizer, rate and its steps, 80 epochs, batch); augmentation and frames: ours",
    "adam",
    1e-3,
    0.0,
    betas=(0.9, 0.99),
    batch_size=64,
    epochs=80,
    schedule="step",
    milestones=(0.5, 0.75),
    augmentation=_CROP,
)

# tiny networks see some hundred clips about ten times and do not come to fit them: a high rate, hardly any
# augmentation, no smoothing
_TINY = Recipe(
    "ours, for networks that train on a laptop",
    "adamw",
    3e-3,
    0.05,
    batch_size=16,
    epochs=12,
    warmup=0.1,
    clip_gradient=5.0,
    augmentation=Augmentation("mild crop", crop="mild", crop_area=(0.85, 1.0), flip=0.5),
)

RECIPES: dict[str, Recipe] = {
    "m3dfel-paper": _M3DFEL,
    "m3dfel-audfer": replace(
        _M3DFEL_RELEASE,
        source="AU-DFER's release, quirks included (one GPU, batch 64, 100 epochs)",
        batch_size=64,
        epochs=100,
        warmup=0.2,
        selection="best sum of test WAR and UAR",
    ),
    "m3dfel-release": _M3DFEL_RELEASE,
    "m3dfel-tiny": _TINY,
    "former_dfer-paper": _FORMER,
    # on DFEW that release reads the folder's files in file-system order, which is not a rule that can be followed
    "former_dfer-audfer": replace(
        _FORMER_RELEASE, source="AU-DFER's release on FERV39k", selection="best sum of test WAR and UAR"
    ),
    "former_dfer-release": _FORMER_RELEASE,
    # twice as many clips a step take two thirds more time, and it learns as much from half as many steps; the others do
    # not
    "former_dfer-tiny": replace(_TINY, learning_rate=6e-3, batch_size=32),
    "mae_dfer-paper": _MAE,
    "mae_dfer-release-dfew": _mae_release("DFEW", 32, 4),
    "mae_dfer-release-ferv39k": _mae_release("FERV39k", 40, 1),
    "mae_dfer-release-mafw": _mae_release("MAFW", 32, 4),
    # layer-wise decay and mixing are for a pre-trained encoder: from scratch the first blocks would hardly move
    "mae_dfer-scratch": replace(
        _MAE,
        source="ours: mae_dfer-paper without what presumes a pre-trained encoder",
        layer_decay=1.0,
        mixup=0.0,
        cutmix=0.0,
        augmentation=_CROP,
    ),
    "mae_dfer-tiny": _TINY,
    "keypoint_gcn-paper": _KEYPOINT,
    "keypoint_gcn-audfer": replace(
        _KEYPOINT,
        source="ours: keypoint_gcn-paper for AU-DFER's 100 epochs (section 4.3) and with its release's selection",
        epochs=100,
        selection="best sum of test WAR and UAR",
    ),
    "keypoint_gcn-tiny": _TINY,
}


def recipe_name(model: str, size: str, name: str = "") -> str:
    """The recipe of a cell: ``name``, or for "" the default of the network's size.

    Raises:
        InputError: no such recipe, or one of another network.
    """
    own = [known for known in RECIPES if known.startswith(f"{model}-")]
    found = name or f"{model}-{size}"
    if found not in own:
        near = get_close_matches(found, own, 1)
        raise InputError(
            "cell",
            "recipe",
            repr(found),
            f"one of {', '.join(own) or ', '.join(RECIPES)}" + (f" (did you mean {near[0]}?)" if near else ""),
        )
    return found


def recipe_table(*names: str, differing: bool = True) -> pd.DataFrame:
    """Recipes side by side: one row a setting, one column a recipe.

    Args:
        names: of ``RECIPES``; none = all.
        differing: leave out settings in which they agree.

    Raises:
        InputError: an unknown name.
    """
    for name in names:
        if name not in RECIPES:
            raise InputError("recipe_table", "names", repr(name), f"some of {', '.join(RECIPES)}")
    columns = {name: _flat(RECIPES[name]) for name in names or RECIPES}
    table = pd.DataFrame(columns, dtype=object)
    if differing and table.shape[1] > 1:
        table = table[table.astype(str).nunique(axis=1) > 1]
    return table


def _flat(recipe: Recipe) -> dict[str, object]:
    own = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name != "augmentation"}
    inner = {f"augmentation.{field.name}": getattr(recipe.augmentation, field.name) for field in fields(Augmentation)}
    return {**own, **inner}


# ------------------------------------------------------------------------------------------- optimizer and schedule


def build_optimizer(
    model: nn.Module, recipe: Recipe, fused: bool | None = None, rate_scale: Callable[[str], float] | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over a network's trainable parameters.

    Parameters that share weight decay and learning rate form a group; a group's ``rate_scale`` is its share of the
    recipe's learning rate (layer-wise decay). Set the rate of a step with ``set_learning_rate``.

    Args:
        model: any network; layer-wise decay needs one with ``blocks`` and ``patch_embed``.
        fused: torch's fused kernel; ``None`` leaves the choice to torch.
        rate_scale: a parameter's name -> its share of the learning rate, instead of layer-wise decay.

    Raises:
        AudferError: layer-wise decay for a network without blocks.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = (
                parameter.ndim > 1
                and not name.endswith(".bias")
                and not name.endswith(recipe.no_decay)
                or recipe.decay_norms
            )
            scale = rate_scale(name) if rate_scale else _rate_scale(model, name, recipe.layer_decay)
            key = scale, recipe.weight_decay if decays else 0.0
            groups.setdefault(key, []).append(parameter)
    listed = [
        {"params": parameters, "lr": recipe.learning_rate * scale, "weight_decay": decay, "rate_scale": scale}
        for (scale, decay), parameters in groups.items()
    ]
    kind, constants = OPTIMIZERS[recipe.optimizer]
    return kind(listed, lr=recipe.learning_rate, fused=fused, **{name: getattr(recipe, name) for name in constants})


def _rate_scale(model: nn.Module, name: str, decay: float) -> float:
    if decay == 1:
        return 1.0
    if not hasattr(model, "blocks"):
        raise AudferError(
            f"layer-wise decay {decay}: {type(model).__name__} has no transformer blocks; take a recipe with "
            "layer_decay = 1"
        )
    depth = len(model.blocks)
    part, _, rest = name.partition(".")
    if part == "blocks":
        return decay ** (depth - int(rest.partition(".")[0]))
    return decay ** (depth + 1) if part == "patch_embed" else 1.0


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of one optimizer step, before layer-wise decay.

    Args:
        step: 0 .. steps - 1. steps: of the whole training.

    Example:
        >>> recipe = replace(RECIPES["m3dfel-tiny"], learning_rate=1.0)
        >>> [round(learning_rate(recipe, step, 100), 2) for step in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    step = max(0, step - recipe.schedule_lag)
    warm = max(1, round(recipe.warmup * steps)) if recipe.warmup else 0
    if step < warm:
        return recipe.learning_rate * (step + (0 if recipe.warmup_from_zero else 1)) / warm
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** sum(step >= share * steps for share in recipe.milestones)
    start = 0 if recipe.cosine_ignores_warmup else warm
    progress = (step - start) / max(1, steps - start)
    low = recipe.minimum_learning_rate
    return low + (recipe.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``; for optimizers of ``build_optimizer``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
