"""Run records with random but plausible numbers, for the tests of tables and figures (no training)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from audfer.facs import ACTION_UNITS
from audfer.files import digest
from audfer.study.ablations import ABLATIONS, WITH_HEAD
from audfer.study.outputs import RecordSource, with_cells
from audfer.study.profiles import load_profile
from audfer.study.study import Study
from audfer.training.records import FORMAT, RunStore, _file_state

COUNTS = {
    "DFEW": (60, 46, 66, 54, 37, 4, 23),
    "FERV39k": (55, 52, 73, 55, 24, 17, 16),
    "MAFW": (39, 46, 36, 44, 34, 20, 20),
}


def fake_record(
    model="m3dfel",
    dataset="DFEW",
    au_ratio=0.25,
    strategy="global",
    seed=0,
    *,
    weights=None,
    reading="paper",
    fold=1,
    skill=0.5,
    counts=None,
    epochs=12,
    noise=0,
    variant="",
    au_source="",
):
    """One record; every record of a dataset has the same clips. ``skill``: how often scores lean to the truth."""
    expressions = np.repeat(np.arange(7), COUNTS[dataset] if counts is None else counts)
    cell = {
        "model": model,
        "dataset": dataset,
        "au_ratio": au_ratio,
        "strategy": strategy if au_ratio else "none",
        "weights": weights or ("knowledge" if au_ratio else "none"),
        "knowledge": "paper",
        "seed": seed,
        "size": "tiny",
        "epochs": epochs,
        "reading": reading,
        "fold": fold,
    } | {name: value for name, value in (("variant", variant), ("au_source", au_source)) if value}
    generator = np.random.default_rng([seed, noise, int(digest(cell), 16) % 2**32])
    count = len(expressions)
    easy = np.random.default_rng(7).random(
        count
    )  # some clips are hard for everybody, so networks agree as real ones do
    logits = generator.normal(size=(count, 7))
    logits[np.arange(count), expressions] += 3.0 * (0.7 * easy + 0.3 * generator.random(count) < skill)
    logits[:, 5] -= 1.0
    scores = np.exp(logits)
    scores = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    best = scores.copy()
    best[::25] = np.eye(7, dtype=np.float32)[expressions[::25]]
    features = generator.normal(size=(count, 24)) + 2.5 * skill * np.eye(24)[expressions]
    return SimpleNamespace(
        path=Path(digest(cell)),
        cell=cell,
        history=fake_history(generator, epochs, au_ratio, skill),
        # every fold has test clips of its own
        clip_ids=[f"{dataset}/{fold - 1}{i:04d}" for i in range(count)],
        expressions=expressions,
        scores=scores,
        best_scores=best,
        best_epoch=max(1, epochs - 2),
        au_scores=generator.random((count, len(ACTION_UNITS))) if au_ratio else None,
        au_labels=(generator.random((count, len(ACTION_UNITS))) < 0.4).astype(np.float32) if au_ratio else None,
        features=features.astype(np.float32),
        flops={"gflops": 0.0412, "gmacs": 0.0203, "parameters": 241_337},
        seconds=31.0,
        environment={"device": "cpu"},
    )


def fake_history(generator, epochs, au_ratio, skill):
    epoch = np.arange(1, epochs + 1)
    rise = 1 - np.exp(-epoch / (epochs / 3))
    wobble = lambda size: generator.normal(0, size, epochs)  # noqa: E731
    expression_loss = 1.95 - 0.9 * rise + wobble(0.02)
    au_loss = 2.4 - 0.8 * rise + wobble(0.03) if au_ratio else np.full(epochs, np.nan)
    loss = (1 - au_ratio) * expression_loss + au_ratio * np.nan_to_num(au_loss)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "loss": loss,
            "loss_expression": expression_loss,
            "loss_au": au_loss,
            "train_war": 0.2 + 0.6 * rise + wobble(0.01),
            "train_uar": 0.15 + 0.55 * rise + wobble(0.01),
            "test_war": 0.2 + skill * 0.7 * rise + wobble(0.02),
            "test_uar": 0.15 + skill * 0.6 * rise + wobble(0.02),
            "test_loss": 1.95 - 0.5 * rise,
            "learning_rate": 1e-3 * 0.5 * (1 + np.cos(np.pi * epoch / epochs)),
            "seconds": 2.5,
        }
    )


def fake_grid(seeds=(0,), models=("m3dfel", "mae_dfer", "former_dfer")):
    """Every cell that the tables and figures ask for."""
    records = []
    for seed in seeds:
        for m, model in enumerate(models):
            for d, dataset in enumerate(COUNTS):
                base = 0.55 - 0.05 * m - 0.05 * d
                records.append(fake_record(model, dataset, 0.0, seed=seed, skill=base))
                records.append(fake_record(model, dataset, 0.25, "global", seed=seed, skill=base + 0.06))
            records += [
                fake_record(model, "DFEW", 0.25, strategy, seed=seed, skill=0.58 - 0.05 * m)
                for strategy in ("distinct", "minor")
            ]
        for dataset in COUNTS:
            records += [
                fake_record("m3dfel", dataset, ratio, seed=seed, skill=0.6 - 0.5 * (ratio - 0.3) ** 2)
                for ratio in (0.1, 0.5, 0.75)
            ]
        records.append(fake_record("m3dfel", "DFEW", 0.25, "global", seed=seed, weights="none", skill=0.58))
    return records


def fake_ablations(seeds=(0,), knowledge=0.05, head=0.02, names=WITH_HEAD):
    """The cells of the ablations; ``head`` and ``knowledge`` are how much skill an AU head and K add."""
    records = []
    for seed in seeds:
        records.append(fake_record("former_dfer", "DFEW", 0.0, seed=seed, skill=0.5))
        for name in names:
            fields = {"strategy": "global", "weights": "knowledge", **ABLATIONS[name].fields}
            skill = (
                0.5
                + head
                + knowledge * (fields["weights"] not in ("none", "uniform") and "shuffled" not in fields["weights"])
            )
            records.append(fake_record("former_dfer", "DFEW", 0.25, seed=seed, skill=skill, **fields))
    return records


class FakeStudy(RecordSource):
    """A study of the laptop profile whose cells have these records.

    Args:
        embedded: whether its clips are rendered.
        grid: settings of the profile's grid that are others.
    """

    def __init__(self, records, embedded=True, **grid):
        profile = replace(load_profile("laptop"), keypoint=load_profile("appendices").keypoint)
        data = profile.data if embedded else replace(profile.data, source="files")
        self.profile = replace(
            profile, data=data, grid=replace(profile.grid, **{"ratio_model": "m3dfel", "au_ratio": 0.25, **grid})
        )
        self.made_of, self.figures = records, Path("nowhere")

    def records(self, *outputs):
        return self.made_of


_STUDIES = {}


def made(name, records, embedded=True, grid=None, **options):
    """The table or figure of that name from these records, made once from one list."""
    key = id(records), embedded, repr(grid)
    if key not in _STUDIES:
        _STUDIES[key] = FakeStudy(records, embedded, **(grid or {}))  # keeps the list, so that no other gets its id
    return _STUDIES[key].results(name, **options)


def write_record(store: RunStore, key: str, cell) -> None:
    """A record with plausible numbers, as ``make_record`` lays it out."""
    fake = fake_record(
        cell.model,
        cell.dataset,
        cell.au_ratio,
        cell.strategy,
        cell.seed,
        weights=cell.weights,
        epochs=cell.epochs,
        noise=len(cell.label),
        counts=(9, 8, 8, 7, 6, 5, 5),
        variant=cell.variant,
    )
    folder = store.path(key)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(3)
    aus = (
        {}
        if fake.au_scores is None
        else {
            "au_scores": fake.au_scores,
            "au_labels": (generator.random(fake.au_scores.shape) < 0.4).astype(np.float32),
            "positive_weights": generator.uniform(1, 9, (7, 18)).astype(np.float32),
        }
    )
    np.savez_compressed(
        folder / "test.npz",
        clip_ids=np.array(fake.clip_ids),
        expressions=fake.expressions,
        scores=fake.scores,
        best_scores=fake.best_scores,
        features=fake.features,
        groups=np.full(len(fake.clip_ids), ""),
        **aus,
    )
    fake.history.to_csv(folder / "history.csv", index=False)
    (folder / "record.json").write_text(
        json.dumps(
            {
                "format": FORMAT,
                "files": {path.name: _file_state(path) for path in folder.iterdir()},
                "cell": asdict(cell),
                "protocols": {"best-on-test": {"epoch": fake.best_epoch}},
                "flops": fake.flops,
                "seconds": 1.0,
                "costs": {},
                "environment": {},
            }
        )
    )


def fake_store(root: Path) -> RunStore:
    """A store with a record of every cell of the smoke profile, below ``root/work``, as a study leaves it."""
    profile = load_profile("smoke")
    profile = replace(profile, training=replace(profile.training, device="cpu", precision="float32"))
    study = Study(profile, root / "work", root)
    cells = {
        cell: f"{number:016x}"
        for number, cell in enumerate(dict.fromkeys(c for name in with_cells() for c in study.cells(name)))
    }
    for cell, key in cells.items():
        write_record(study.store, key, cell)
    study.store.note_grid(
        {"profile": study.profile.to_dict(), "device": "cpu", "precision": "float32"},
        {name: study.cells(name) for name in with_cells()},
        cells,
    )
    return study.store
