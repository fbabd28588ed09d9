"""Official weights into the networks: recognised by their keys, renamed, loaded strictly, every key accounted for."""

from __future__ import annotations

import inspect
import math
import os
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import AudferError
from .checkpoint import Weights, counted, find_weights, read_checkpoint, some
from .output import ClipModel
from .registry import NETWORKS, Family, build_model

#: names of the AU head in the AU-DFER release; MAE-DFER's is not known there, so any of them is taken as its head
AU_HEADS = ("fc_au", "AU_fc", "head_au")


def recognise(keys) -> tuple[str, Family] | tuple[str, None]:
    """The kind of weights with these keys and the network's name; ``("", None)`` for anything else."""
    for name, network in NETWORKS.items():
        for family in network.weights:
            if all(mark in keys for mark in family.marks):
                return name, family
    return "", None


def _unwrapped(weights: Weights) -> Weights:
    """The weights without the names (Lightning's ``model.``, ``net.``) that somebody's wrappers put before every key,
    where only then they are known.
    """
    tensors, prefix = weights.tensors, weights.prefix
    while not recognise(tensors)[1]:
        wrapper = next(iter(tensors)).partition(".")[0] + "."
        if not all(key.startswith(wrapper) and key != wrapper for key in tensors):
            return weights
        tensors, prefix = {key.removeprefix(wrapper): value for key, value in tensors.items()}, prefix + wrapper
    return replace(weights, tensors=tensors, prefix=prefix)


@dataclass
class LoadReport:
    """What became of every key.

    Attributes:
        source: kind of weights: "fine-tuned M3DFEL", "MAE pre-training", "Kinetics R3D-18" and so on.
        loaded: keys of the model that got a value.
        left_at_initialisation: keys of the model that the file is known not to have (heads, LSTM and so on).
        dropped: keys of the file, renamed, that the model is known not to need (decoder, Kinetics classifier).
        ema: entry of the file with a moving average of the weights; "" where there is none.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    left_at_initialisation: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    ema: str = ""

    def __str__(self) -> str:
        lines = [f"{self.source} weights: {len(self.loaded)} entries loaded"]
        lines += counted({"left at initialisation": self.left_at_initialisation, "not needed, dropped": self.dropped})
        if self.ema:
            lines.append(f"the file also has a moving average under {self.ema!r}")
        return "; ".join(lines)


def load_official_state_dict(
    model: ClipModel, state_dict: dict, which: str = "model", heads: bool = True
) -> LoadReport:
    """Load official weights into a network. Strict: every key is used, known to be superfluous, or refused.

    Understands fine-tuned checkpoints of M3DFEL, Former-DFER and MAE-DFER (with or without AU head, with or without a
    data-parallel ``module.`` prefix, bare or inside the usual containers), MAE-DFER's pre-training checkpoint, and
    torchvision's Kinetics-400 R3D-18 for M3DFEL's backbone and ImageNet ResNet-18 for KP-GCN's, whose authors have
    released none; audfer's own files by the same rules. Entries beside the weights (optimizer, scaler, epoch, options)
    are left alone.

    Args:
        model: from ``build_model``, "paper" for official files; its AU head stays at its initial values if the file has
            none.
        state_dict: what ``read_checkpoint`` gives.
        which: "model", or "ema" for the moving average that the file may hold beside it.
        heads: ``False`` leaves the classifiers and the AU head at their initial values, to go on from a network that
            was fine-tuned on other expressions.

    Returns:
        The report; print it.

    Raises:
        AudferError: a key is missing, unknown or has another shape; nothing has been loaded then.

    Example:
        >>> model = build_model("mae_dfer")                                                       # doctest: +SKIP
        >>> print(load_official_state_dict(model, read_checkpoint("checkpoint-49.pth")))           # doctest: +SKIP
    """
    if not isinstance(model, ClipModel):
        raise AudferError(
            f"official weights are for the networks of build_model, not for {type(model).__name__}: load them "
            "before wrapping or compiling the network"
        )
    report, state, problems = _plan(model, _unwrapped(find_weights(state_dict, which)), heads)
    if problems:
        own = next((network for network in NETWORKS.values() if type(model) is network.build), None)
        fits = own and any(family.title == report.source for family in own.weights)
        hint = [own.unreleased] if own and own.unreleased and not fits else []
        raise AudferError(f"these weights do not fit {type(model).__name__}: " + "; ".join([*problems, *hint]))
    own = model.state_dict()
    nn.Module.load_state_dict(model, {key: state.get(key, own[key]) for key in own}, strict=True)
    return report


def _plan(model: ClipModel, weights: Weights, heads: bool = True) -> tuple[LoadReport, dict[str, Tensor], list[str]]:
    """What loading would do, the tensors under the model's names, and what speaks against it."""
    # keys of no known kind are taken as the model's own: what is wrong with them is then said key by key
    name, family = recognise(weights.tensors)
    family = family or Family("unknown", ())
    if name and not isinstance(model, NETWORKS[name].build):
        return LoadReport(family.title), {}, [f"they are for {NETWORKS[name].build.__name__} ({family.title})"]
    names = {key: family.rename(key) for key in weights.tensors}
    if family.title == "fine-tuned MAE-DFER":
        for key in names:
            layer, _, leaf = key.partition(".")
            if layer in AU_HEADS:
                names[key] = f"{model.au_head_name}.{leaf}"
    state = {names[key]: value for key, value in weights.tensors.items()}
    clashes = [key for key, name in names.items() if state[name] is not weights.tensors[key]]

    own = model.state_dict()
    head, au_head, auxiliary = (
        {f"{layer}.weight", f"{layer}.bias"}
        for layer in (model.classifier_name, model.au_head_name, model.auxiliary_name)
    )
    # the AU head and the auxiliary classifier, which only teaches, may be absent on either side
    may_miss = au_head | auxiliary if heads else au_head | auxiliary | head
    unneeded = may_miss - set(own) if heads else may_miss
    dropped = [
        key
        for key in state
        if key in unneeded or key not in own and family.unneeded and key.startswith(family.unneeded)
    ]
    state = {key: value for key, value in state.items() if key not in set(dropped)}
    left = [key for key in own if key not in state]
    missing = [
        key
        for key in left
        if key not in may_miss
        and not key.endswith("num_batches_tracked")  # files of torch before 0.4.1 do not count the batches
        and not (family.absent and key.startswith(family.absent))
    ]
    reshaped = [key for key in own if key in state and state[key].shape != own[key].shape]

    problems = []
    if head & set(reshaped):  # said once, of the classifier itself
        reshaped = [key for key in reshaped if key not in auxiliary]
    for layer, argument, what in (
        (model.classifier_name, "num_classes", "expressions"),
        (model.au_head_name, "num_aus", "AUs"),
    ):
        weight = f"{layer}.weight"
        if weight in reshaped and state[weight].shape[1:] == own[weight].shape[1:]:
            theirs, ours = len(state[weight]), len(own[weight])
            problems.append(
                f"{weight} is for {theirs} {what}, this network for {ours} (build it with {argument}={theirs}, "
                "or load with heads=False)"
            )
            reshaped = [key for key in reshaped if key.rpartition(".")[0] != layer]
    problems += counted(
        {
            "missing": missing,
            "unknown": [key for key in state if key not in own],
            "of another shape": [
                f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}" for key in reshaped
            ],
            "under two names": clashes,
            "with values that are not finite": [
                key for key, value in state.items() if key in own and not value.isfinite().all()
            ],
        }
    )
    loaded = [key for key in own if key in state]
    return LoadReport(family.title, loaded, left, dropped, weights.ema), state, problems


@dataclass
class CheckpointReport:
    """What a checkpoint file is and what it fits. ``print`` it: 79 columns.

    Attributes:
        path: the file.
        num_bytes: its size.
        weights: what was found inside.
        kind: "fine-tuned M3DFEL", "MAE pre-training", ..., or "unknown".
        num_parameters: learned numbers among the weights: without the batch norms' running statistics.
        num_classes: expressions of the classifier in the file; ``None`` if it has none.
        num_aus: AUs of the AU head in the file; ``None`` if it has none.
        fits: the call of ``build_model`` whose network it fits; "" if it fits none.
        load: what loading would do; ``None`` if it fits no network.
        problems: why it does not fit the network that was asked for, or that it resembles.
    """

    path: Path
    num_bytes: int
    weights: Weights
    kind: str
    num_parameters: int
    num_classes: int | None
    num_aus: int | None
    fits: str
    load: LoadReport | None
    problems: list[str]

    def __str__(self) -> str:
        weights, tensors = self.weights, self.weights.tensors.values()
        types = sorted({str(value.dtype).removeprefix("torch.") for value in tensors if value.is_floating_point()})
        kind = self.kind
        if self.num_classes is not None:
            kind += f", {self.num_classes} expressions, " + (f"{self.num_aus} AUs" if self.num_aus else "no AU head")
        where = f"under {weights.container!r}" if weights.container else "bare"
        rows = {
            "file": f"{self.path.name}, {self.num_bytes / 1e6:.1f} MB",
            "kind": kind,
            "weights": f"{where}, {len(tensors)} entries, {self.num_parameters:,} parameters, {', '.join(types)}",
            "prefix": f"{weights.prefix} (taken off every key)" if weights.prefix else "none",
            "EMA": f"under {weights.ema!r}" if weights.ema else "none",
            "beside them": "; ".join(f"{name}: {text}" for name, text in weights.others.items()) or "nothing",
            "fits": self.fits or "none of the networks",
        }
        if self.load:
            rows["loaded"] = f"{len(self.load.loaded)} entries"
            for title, keys in (("left initial", self.load.left_at_initialisation), ("dropped", self.load.dropped)):
                rows[title] = f"{len(keys)}: {some(keys)}" if keys else "nothing"
        elif self.problems:
            rows["because"] = "; ".join(self.problems)
        else:
            rows["first keys"] = some(list(weights.tensors))
        return "\n".join(
            textwrap.fill(f"{title:13}{text}", 79, subsequent_indent=" " * 13, break_on_hyphens=False)
            for title, text in rows.items()
        )


def inspect_checkpoint(path: str | os.PathLike, model: str = "") -> CheckpointReport:
    """Say what a checkpoint file is and what it fits, without loading it into a network or running code from it.

    Args:
        path: as for ``read_checkpoint``.
        model: compare it with this network; "": with the one that its keys resemble.

    Raises:
        AudferError: the file is no checkpoint or holds no weights.
    """
    content = read_checkpoint(path, mmap=True)
    try:
        weights = find_weights(content)
    except AudferError as error:
        try:
            weights = find_weights(content, "ema")
        except AudferError:
            raise AudferError(f"{path}: {error}") from error
    weights = _unwrapped(weights)
    tensors = weights.tensors
    resembled, family = recognise(tensors)
    name = model or resembled
    heads: dict[str, int] = {}
    if family and not family.absent:  # fine-tuned: the file has its classifier
        au_head = next((head for head in AU_HEADS if f"{head}.weight" in tensors), "")
        for argument, layer in (("num_classes", NETWORKS[resembled].build.classifier_name), ("num_aus", au_head)):
            weight = tensors.get(f"{layer}.weight")
            if weight is not None and weight.ndim == 2:
                heads[argument] = len(weight)

    fits, load, problems = "", None, []
    for size in NETWORKS[name].sizes if name else ():
        with torch.device("meta"):
            network = build_model(name, size=size, **heads)
        report, _, against = _plan(network, weights)
        if not against:
            defaults = inspect.signature(build_model).parameters
            settings = [
                f'"{name}"',
                *([f'size="{size}"'] if size != defaults["size"].default else []),
                *(f"{argument}={number}" for argument, number in heads.items() if number != defaults[argument].default),
            ]
            fits, load, problems = f"build_model({', '.join(settings)})", report, []
            break
        problems = problems or against
    parameters = sum(
        math.prod(value.shape)
        for key, value in tensors.items()
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    return CheckpointReport(
        Path(path),
        os.path.getsize(path),
        weights,
        family.title if family else "unknown",
        parameters,
        heads.get("num_classes"),
        heads.get("num_aus"),
        fits,
        load,
        problems,
    )
