"""What a grid takes before anything of it is made: hours and disk by network, from measured rates.

A network's rate is that of its own records in the store, where there are some; else, on a GPU, that of ``rates.csv``
(clips a second in training, input included, of ``benchmarks/train_throughput.py``). A clip that is judged costs a third
of one that is trained on: a forward pass without its backward pass.
"""

from __future__ import annotations

import heapq
from pathlib import Path

import pandas as pd
import torch

from .. import datasets, published
from ..errors import InputError
from ..files import digest, read_csv
from ..models import build_model
from ..synth.plans import planned_counts
from ..training.loop import Cell
from ..training.records import cell_json

RATES = Path(__file__).with_name("rates.csv")
#: GPUs of the last column of ``plan``
GPUS = 8


def noted_keys(study, cells: list[Cell]) -> list[str]:
    """Keys of the cells as the study's last run noted them; of another cell a digest that no record has."""
    about = {"profile": study.profile.to_dict(), "device": study.device, "precision": study.precision}
    noted = study.store.noted_keys(about)
    return [noted.get(cell_json(cell)) or digest(cell_json(cell)) for cell in cells]


def clip_counts(study, dataset: str, fold: int = 1) -> dict[str, int] | None:
    """Training and test clips of a dataset: those that are rendered; those of its lists below ``AUDFER_DATA``; where
    it is not there those of its paper; ``None`` where nothing says how many.
    """
    if study.profile.embedded:
        return {split: sum(made.values()) for split, (made, _) in planned_counts(dataset, study.synth_config).items()}
    try:
        clips = study.manifest(dataset, fold).table["split"].value_counts()
        return {split: int(clips.get(split, 0)) for split in ("train", "test")}
    except InputError:
        pass
    splits = {"train": "train", "test": datasets.DATASETS[dataset].published_test}
    try:
        return {name: sum(published.class_counts(dataset, split, fold).values()) for name, split in splits.items()}
    except InputError:
        return None


def _counted(study, dataset: str, fold: int) -> dict[str, int] | None:
    return study.once(("clip counts", dataset, fold), lambda: clip_counts(study, dataset, fold))


def seconds_of(study, cells: list[Cell]) -> list[float]:
    """What each cell takes from its beginning to its end on one device; NaN where nothing of its kind was measured."""
    store = study.store
    spent = store.spent().groupby(["kind", "size", "device"])[["seconds", "cost"]].sum()
    rates = read_csv(RATES).set_index(["model", "size", "device"])["clips_per_second"]
    seconds = []
    for cell in cells:
        if (own := (store.kind(cell), cell.size, cell.device)) in spent.index:
            seconds.append(store.cost(cell) * spent.loc[own, "seconds"] / spent.loc[own, "cost"])
            continue
        rate = rates.get((cell.model, cell.size, cell.device))
        clips = _counted(study, cell.dataset, cell.fold)
        if rate is None or clips is None:
            seconds.append(float("nan"))
            continue
        looks = -(-cell.epochs // cell.evaluate_every)
        seconds.append((cell.epochs * clips["train"] + looks * clips["test"] / 3) / rate)
    return seconds


def plan(study, *outputs: str) -> tuple[pd.DataFrame, list[str]]:
    """What the cells of the named tables and figures take that have no record yet.

    Returns:
        A row per network and one of all: network, cells, to train, hours (on one device; NaN = unknown), hours on 8
        (each cell on one of them), records (GB, with weights). And what has to be said with it.
    """
    cells = list(dict.fromkeys(cell for output in outputs for cell in study.cells(output)))
    there = [study.store.has(key, weights=False) for key in noted_keys(study, cells)]
    frame = pd.DataFrame(
        {"network": [c.model for c in cells], "missing": [not t for t in there], "seconds": seconds_of(study, cells)}
    )
    rows = [_row(study, name, part) for name, part in frame.groupby("network", sort=False)]
    rows.append(_row(study, "all", frame, sum(row["records (GB)"] for row in rows)))
    said = [f"hours: on one {'GPU' if study.device == 'cuda' else 'core'}, and on {GPUS} that train one cell each"]
    if study.device == "cuda":
        known = read_csv(RATES)
        said[0] += f"; networks without a record here at the rates of one {known['card'][0]} ({known['record'][0]})"
    training = study.profile.training
    clips = [_counted(study, name, study.folds(name)[0]) for name in study.profile.grid.datasets]
    count = sum(sum(one.values()) for one in clips if one)
    size = training.stored_frames * 3 * training.image_size**2
    said.append(f"packed clips: {count * size / 1e9:.1f} GB ({count:,} of {size / 1e6:.1f} MB); folds share them")
    said.append("not in it: rendering or reading of clips, action units, masked pre-training")
    return pd.DataFrame(rows), said


def _row(study, name: str, part: pd.DataFrame, records: float | None = None) -> dict:
    left = part.loc[part["missing"], "seconds"]
    ends = [0.0 if left.notna().all() else float("nan")] * GPUS
    for seconds in sorted(left, reverse=True):  # the longest first, to whoever is free first
        heapq.heapreplace(ends, ends[0] + seconds)
    if records is None:
        size = study.profile.training.size
        with torch.device("meta"):  # shapes without numbers
            records = len(part) * sum(p.numel() for p in build_model(name, size=size).parameters()) * 4 / 1e9
    return {
        "network": name,
        "cells": len(part),
        "to train": int(part["missing"].sum()),
        "hours": left.sum(skipna=False) / 3600,
        f"hours on {GPUS}": max(ends) / 3600,
        "records (GB)": records,
    }
