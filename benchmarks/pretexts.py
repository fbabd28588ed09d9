"""What should tiny networks start from? Pretexts at equal time, and what each leaves for action units to add.

    python benchmarks/pretexts.py [--seconds 120] [--data-seed 101] [--work FOLDER]

Each network is trained on the rendered source set of the profile "pretrained" for the same number of seconds of one
core: on the seven expressions, on landmarks (68 points of every frame, and with them pose; free from the renderer), and
MAE-DFER on masked clips as well. From each, and from nothing, the laptop profile's cells are then trained on DFEW of
another data seed than the committed run's, without an AU head and with planted action units, three training seeds each,
and compared with one another. About 25 minutes on two cores; what lies in the work folder is not made again.

The table is shipped beside the weights (``audfer/pretrained/pretexts.csv``) and shown by notebook 03.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from audfer import open_study
from audfer.evaluation import compare, summary
from audfer.jobs.executors import opened
from audfer.results.selection import select
from audfer.study.pretrained import FOLDER
from audfer.study.profiles import with_changes
from audfer.training.engine import reproducible, train
from audfer.training.loop import CellInputs, CellTask
from audfer.training.pretraining import LandmarksTask, pretrain

DATASET = "DFEW"
#: of the cells, from whatever start
EPOCHS = 5
SCRATCH, MASKED, LANDMARKS, EXPRESSIONS = "none", "masked clips", "landmarks and pose", "expressions"
#: network -> pretexts that there are for it
PRETEXTS = {
    "m3dfel": (LANDMARKS, EXPRESSIONS),
    "mae_dfer": (MASKED, LANDMARKS, EXPRESSIONS),
    "former_dfer": (LANDMARKS, EXPRESSIONS),
}


class Expressions(CellTask):
    """The cell as it is, judged by nobody."""

    def look(self, epoch: int) -> dict:
        return {}

    def trunk(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()


def start(model: str, pretext: str, seconds: float, work: str, out: Path) -> dict:
    """Train a network on a pretext for about so many seconds, by as many epochs as fit, and write its weights."""
    torch.set_num_threads(1)
    study = open_study("pretrained", work)
    packed, folder = study.packed(DATASET), study.packed_folder(DATASET)
    cell = study.cell(model, DATASET)
    inputs = CellInputs(str(folder), "", "", packed.content, "")
    points = np.load(study.landmarks(DATASET)["landmarks"]) if pretext == LANDMARKS else None

    def run(epochs: int) -> tuple[dict | None, float]:
        begun = process_time()
        if pretext == MASKED:
            pretrain(replace(study.pretraining, epochs=epochs), [folder], out)
            return None, process_time() - begun
        with reproducible(cell.seed, "cpu"):
            own = replace(cell, epochs=epochs)
            task = LandmarksTask(own, inputs, points) if pretext == LANDMARKS else Expressions(own, inputs)
            begun = process_time()
            train(task)
        return task.trunk(), process_time() - begun

    _, once = run(1)
    epochs = max(1, round(seconds / once))
    weights, took = run(epochs)
    if weights is not None:
        save_file({name: value.contiguous() for name, value in weights.items()}, out)
    return {"model": model, "pretext": pretext, "epochs": epochs, "pretext_seconds": round(took, 1), "path": str(out)}


def judge(study, starts: list[dict]) -> pd.DataFrame:
    """One row per network and start: scores without an AU head, and what planted action units add, with intervals."""
    rows, ratio = [], study.profile.grid.au_ratio
    seeds = study.profile.training.seeds
    for one in starts:
        kind = "scratch" if one["pretext"] == SCRATCH else "shipped"
        cells = [
            replace(study.cell(one["model"], DATASET, share, seed=seed, au_source=source), initialisation=kind)
            for share, source in ((0.0, ""), (ratio, "planted"))
            for seed in seeds
        ]
        records = study.run(cells, f"{one['model']} from {one['pretext']}", one["path"])
        alone, planted = (select(records, au_ratio=share) for share in (0.0, ratio))
        found, added = summary(alone), compare(alone, planted)
        row = {key: one[key] for key in ("model", "pretext", "epochs", "pretext_seconds")}
        row |= {"cell_epochs": cells[0].epochs, "data_seed": study.profile.data.seed, "seeds": len(seeds)}
        row["n"] = found.war.count
        for metric in ("war", "uar"):
            for prefix, value in ((metric, getattr(found, metric)), (f"{metric}_planted_adds", getattr(added, metric))):
                for name, number in (("", value.value), ("_low", value.low), ("_high", value.high)):
                    row[prefix + name] = round(100 * number, 2)
        rows.append(row)
        print(row, flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="for each pretext, on one core")
    parser.add_argument("--data-seed", type=int, default=101)
    parser.add_argument("--work", default="", help="folder of generated work")
    parser.add_argument("--out", type=Path, default=FOLDER / "pretexts.csv")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    changes = [f"data.seed={options.data_seed}", f"training.epochs={EPOCHS}"]
    study = open_study(with_changes("laptop", changes), options.work)
    source = open_study("pretrained", options.work)
    source.landmarks(DATASET)  # before workers ask for it, and for the clips
    folder = source.work / "pretexts"
    folder.mkdir(parents=True, exist_ok=True)
    own = import_module(Path(__file__).stem)  # workers find it by that name, and end with this process
    with opened(workers=2) as pool:
        waiting = [
            pool.executor.submit(
                own.start,
                model,
                pretext,
                options.seconds,
                options.work,
                folder / f"{model}_{pretext.replace(' ', '_')}.safetensors",
            )
            for model, pretexts in PRETEXTS.items()
            for pretext in pretexts
        ]
        made = [one.result() for one in waiting]
    starts = [
        one
        for model in PRETEXTS
        for one in (
            {"model": model, "pretext": SCRATCH, "epochs": 0, "pretext_seconds": 0.0, "path": ""},
            *(one for one in made if one["model"] == model),
        )
    ]
    judge(study, starts).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
