"""What AU-DFER costs: every paper-size network without its AU head, and what head and AU loss add, per clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch

from ..facs import ACTION_UNITS, EXPRESSIONS
from ..losses import AULoss
from ..models import build_model, count_element_operations, count_flops, default_clip_shape
from ..models.heads import weightless
from .builder import DASH, Result, output
from .printed import printed
from .rows import text
from .selection import model_name


@lru_cache(maxsize=None)
def paper_cost(model: str, aus: int | None) -> dict[str, float]:
    """``count_flops`` of one clip in a network's paper-size form.

    ``aus``: outputs of its AU head, ``None`` for none.
    """
    with weightless():
        network = build_model(model, num_aus=aus)
    return count_flops(network, default_clip_shape(model))


def paper_costs(models: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Network -> "baseline" and "audfer" (with the AU head) -> its ``paper_cost``."""
    variants = {"baseline": None, "audfer": len(ACTION_UNITS)}
    return {model: {name: dict(paper_cost(model, aus)) for name, aus in variants.items()} for model in models}


def au_loss_operations() -> dict[str, float]:
    """Element operations per clip of the AU loss, "forward" and "training", with weights of its own for every
    expression.
    """
    clips, aus = 64, len(ACTION_UNITS)
    loss = AULoss(torch.full((len(EXPRESSIONS), aus), 0.5), torch.ones(len(EXPRESSIONS), aus))
    logits = torch.zeros(clips, aus, requires_grad=True)
    batch = torch.zeros(clips, aus), torch.arange(clips) % len(EXPRESSIONS)
    return {
        "forward": count_element_operations(lambda: loss(logits, *batch)) / clips,
        "training": count_element_operations(lambda: loss(logits, *batch).backward()) / clips,
    }


def head_costs(costs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, tuple[int, int, float]]:
    """Network -> what the AU head adds: FLOPs, parameters, share of the FLOPs; ``costs`` as from ``paper_costs``."""
    heads = {}
    for model, variants in costs.items():
        alone, joined = variants["baseline"], variants["audfer"]
        flops = round(1e9 * (joined["gflops"] - alone["gflops"]))
        heads[model] = flops, int(joined["parameters"] - alone["parameters"]), flops / (1e9 * alone["gflops"])
    return heads


@output("cost", "03_training")
def cost(study) -> Result:
    """The cost of the profile's networks; needs no record."""
    return cost_table(paper_costs(study.profile.grid.models), au_loss_operations())


def cost_table(costs: Mapping[str, Mapping[str, Mapping[str, float]]], loss: Mapping[str, float]) -> Result:
    """The cost of some networks.

    Args:
        costs: as from ``paper_costs``. loss: as from ``au_loss_operations``.
    """
    rows, display = [], []
    for model, (flops, parameters, share) in head_costs(costs).items():
        alone, paper = costs[model]["baseline"], printed(model, "baseline", "DFEW", "FLOPs_G")
        loss_share = loss["training"] / (1e9 * alone["gflops"])
        for part, metric, value, theirs in (
            ("network", "parameters", alone["parameters"], np.nan),
            ("network", "GMACs", alone["gmacs"], paper),
            ("network", "GFLOPs", alone["gflops"], paper),
            ("AU head", "parameters", parameters, np.nan),
            ("AU head", "FLOPs", flops, np.nan),
            ("AU head", "percent of the network", 100 * share, np.nan),
            ("AU loss", "operations, forward", loss["forward"], np.nan),
            ("AU loss", "operations, forward and backward", loss["training"], np.nan),
            ("AU loss", "percent of the network", 100 * loss_share, np.nan),
        ):
            # counts are exact, so the csv shall not round them
            exact = int(value) if float(value).is_integer() else float(f"{value:.6g}")
            rows.append((model, part, metric, exact, theirs))
        display.append(
            {
                "Network": model_name(model),
                "Parameters": f"{int(alone['parameters']):,}",
                "G multiply-adds": significant(alone["gmacs"]),
                "GFLOPs": significant(alone["gflops"]),
                "Paper's G": text(paper, digits=2),
                "AU head: parameters": f"+{parameters:,}",
                "AU head: FLOPs": f"+{flops:,} ({percent_text(share)})",
                "AU loss: operations": f"+{loss['training']:,.0f} ({percent_text(loss_share)})",
            }
        )
    caption = (
        "Cost of one clip at paper size, measured, and what AU-DFER adds to it. FLOPs count a multiply-add as two "
        "operations and see matrix products, convolutions, attention and LSTMs. The AU loss has none of these: its "
        "operations are the elements that its forward and backward pass touch, every one counted once; it is computed "
        "in training only, its share is of the network's forward pass alone, so an upper bound. Time: "
        "benchmarks/records, au_loss_speed."
    )
    tidy = pd.DataFrame(rows, columns=["model", "part", "metric", "value", "paper"], dtype=object)
    return Result("cost", tidy, caption, pd.DataFrame(display))


def percent_text(share: float) -> str:
    """A share as a percentage with one significant digit, never in powers of ten."""
    if not np.isfinite(share) or share <= 0:
        return DASH
    digits = max(0, -int(np.floor(np.log10(100 * share))))
    return f"{100 * share:.{digits}f} %"


def significant(value: float) -> str:
    """A number with two decimals, or two digits where it is small."""
    return DASH if not np.isfinite(value) else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
