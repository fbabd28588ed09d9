"""Recipes by name, and carrying them out: optimizer, schedule, layer-wise decay.

Each network of the paper has ``<model>-paper`` (section 4.3 of AU-DFER), the recipe of its own official release, that
of AU-DFER's release where it differs, and ``<model>-tiny`` for a laptop; they are listed in the network's file. Where
the paper is silent the release's value stands. What changes results by accident in a release (its *quirks*: frames out
of order at test time, a cosine that ignores the warm-up) is off in the ``-paper`` recipes and on in the releases'.
Choose one by name in a cell, a profile or on the command line; ``recipe_table`` shows them side by side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from difflib import get_close_matches

import pandas as pd
import torch
from torch import nn

from ..errors import AudferError, InputError
from ..models.registry import NETWORKS
from ..recipes import Recipe, changed

#: name -> class, and which of a recipe's constants it takes
OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, ("betas",)),
    "adam": (torch.optim.Adam, ("betas",)),
    "sgd": (torch.optim.SGD, ("momentum",)),
}


class _Recipes(Mapping):
    """``<model>-<name>`` -> recipe, of all networks; ``<model>-<name> +batch_size=8`` is that with a field changed."""

    def __getitem__(self, name: str) -> Recipe:
        name, *changes = name.split(" +")
        model, _, own = name.partition("-")
        values = dict(change.split("=", 1) for change in changes)
        return changed(NETWORKS[model].recipes[own], {field: json.loads(text) for field, text in values.items()})

    def __iter__(self) -> Iterator[str]:
        return (f"{model}-{own}" for model, network in NETWORKS.items() for own in network.recipes)

    def __len__(self) -> int:
        return len(list(iter(self)))


RECIPES = _Recipes()


def recipe_name(model: str, size: str, name: str = "") -> str:
    """The recipe of a cell: ``name``, or for "" the default of the network's size.

    Raises:
        InputError: no such recipe, or one of another network.
    """
    own = [known for known in RECIPES if known.startswith(f"{model}-")]
    name = name or f"{model}-{size}"
    if name.partition(" +")[0] not in own:
        near = get_close_matches(name, own, 1)
        raise InputError(
            "cell",
            "recipe",
            repr(name),
            f"one of {', '.join(own) or ', '.join(RECIPES)}" + (f" (did you mean {near[0]}?)" if near else ""),
        )
    return name


def recipe_table(*names: str, differing: bool = True) -> pd.DataFrame:
    """Recipes side by side: one row per setting, one column per recipe.

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
    own = asdict(recipe)
    augmentation = own.pop("augmentation")
    return own | {f"augmentation.{name}": value for name, value in augmentation.items()}


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
