"""What ships trained: where it lies, and how it is made again (``make pretrained``).

The paper starts from trained parts (OpenFace, Kinetics and VoxCeleb2 weights), and so does the embedded benchmark:
``audfer/pretrained`` holds the AU extractor of rendered faces and the weights that tiny networks start from, each with
a card. They are trained in the profile "pretrained", whose people, clips and seeds are those of no other profile; the
extractor on coded faces as DISFA's, the networks on a source set rendered as the embedded DFEW: on its seven
expressions, or (``LANDMARKS``) on where the points of the faces lie. No network's start has seen an action unit, and
cells take its trunk alone: classifier and AU head are drawn anew.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from ..action_units.estimator import FINE, ActionUnitEstimator, train_estimator
from ..errors import InputError
from ..evaluation import summary
from ..facs import ACTION_UNITS
from ..files import atomic_folder, file_digest, write_json
from ..training.engine import epoch_bar, reproducible, train
from ..training.loop import Cell, CellInputs
from ..training.pretraining import LandmarksTask
from ..training.records import WEIGHTS_FILE, environment

FOLDER = Path(__file__).parents[1] / "pretrained"
EXTRACTOR = "au_extractor"
#: the profile in which all of it is trained
PROFILE = "pretrained"
CARD = "card.json"
#: the network that has a masked pre-training of its own
MASKED = "mae_dfer"
#: networks whose start has seen no expression either. Of the three only this one learns enough from points in minutes
#: (``pretexts.csv``), and it is the one of which the field trains no start on faces
LANDMARKS = ("former_dfer",)


def ships(model: str) -> bool:
    """Whether weights that this network starts from come with the package."""
    return (FOLDER / model / WEIGHTS_FILE).is_file()


def shipped_weights(model: str) -> Path:
    """The weights that a tiny network starts from.

    Raises:
        InputError: none ship for this network.
    """
    if not ships(model):
        known = sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}"))
        raise InputError(
            "cell", "initialisation", f"'shipped' for {model}", f"'scratch', or one of {', '.join(known)}, which ship"
        )
    return FOLDER / model / WEIGHTS_FILE


def shipped_extractor() -> ActionUnitEstimator:
    """The AU extractor of rendered faces, in evaluation mode.

    Raises:
        InputError: it does not ship with this installation.
    """
    return ActionUnitEstimator.load(FOLDER / EXTRACTOR)


def cards() -> pd.DataFrame:
    """One row per part that ships: name, what it was trained on, scores on people it has not seen, time, digest."""
    rows = [{"name": path.parent.name, **json.loads(path.read_text())} for path in sorted(FOLDER.glob(f"*/{CARD}"))]
    shown = ("name", "task", "trained_on", "epochs", "seed", "scores", "minutes", "parameters", "sha256")
    return pd.DataFrame([{key: row[key] for key in shown} for row in rows], columns=list(shown))


def make_extractor(study, out: Path = FOLDER) -> Path:
    """Train the AU extractor on all annotated subjects of the study and write it with its card."""
    frames = np.array(study.annotated_frames.frames)  # as they lie on disk they are read only
    table, settings = study.annotated_table, study.profile.estimator
    with atomic_folder(out / EXTRACTOR, CARD) as folder:
        network, history = train_estimator(
            frames,
            table[list(ACTION_UNITS)].to_numpy(),
            table["subject"].to_numpy(),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.learning_rate,
            seed=study.profile.data.seed,
            device=study.device,
            precision=study.precision,
            scratch=study.work / "extractor",
            **FINE,
        )
        network.save(folder)
        history.to_csv(folder / "history.csv", index=False)
        people = table["subject"].nunique()
        _write_card(
            folder,
            study,
            "AU presence and intensity of single pictures",
            f"{len(frames):,} pictures of {people:,} rendered people, coded as DISFA's; a fifth of the people sets "
            "thresholds and scales",
            epochs=settings.epochs,
            seed=study.profile.data.seed,
            minutes=history["seconds"].sum() / 60,
            parameters=sum(weight.numel() for weight in network.parameters()),
            scores={"F1 before calibration, people it was not trained on": history["calibration_f1"].iloc[-1]},
            weights=folder / "estimator.safetensors",
        )
    return out / EXTRACTOR


def make_start(study, model: str, out: Path = FOLDER) -> Path:
    """Train a network on the source set and write its weights with their card."""
    cell = study.cell(model, study.profile.grid.strategy_dataset)
    packed = study.packed(cell.dataset)
    with atomic_folder(out / model, CARD) as folder:
        if model in LANDMARKS:
            task, history = _learn_points(study, cell, folder)
            what, scores = "68 points of the face in every frame, and with them pose", task.errors()
            kept = task.trunk()
            parameters = sum(kept[name].numel() for name, _ in task.model.named_parameters() if name in kept)
        else:
            (record,) = study.run([cell], f"start of {model}")
            shutil.copyfile(record.path / WEIGHTS_FILE, folder / WEIGHTS_FILE)
            numbers, history = summary([record]), record.history
            what, parameters = "seven expressions of clips", record.flops["parameters"]
            scores = {"WAR": 100 * numbers.war.value, "UAR": 100 * numbers.uar.value, "clips": numbers.war.count}
        _write_card(
            folder,
            study,
            what,
            f"{len(packed.split('train')):,} rendered clips in the style of {cell.dataset}, of other people",
            epochs=cell.epochs,
            seed=study.profile.data.seed,
            minutes=history["seconds"].sum() / 60,
            parameters=parameters,
            scores=scores,
            weights=folder / WEIGHTS_FILE,
            cell=asdict(cell),
        )
    return out / model


def _learn_points(study, cell: Cell, folder: Path) -> tuple[LandmarksTask, pd.DataFrame]:
    """The trained task, whose trunk is written, and its history."""
    stored = str(study.packed_folder(cell.dataset))
    inputs = CellInputs(stored, "", "", study.packed(cell.dataset).content, "")
    points = np.load(study.landmarks(cell.dataset)["landmarks"])
    with reproducible(cell.seed, cell.device):
        task = LandmarksTask(cell, inputs, points)
        with epoch_bar(cell.epochs, f"start of {cell.model}", lambda row: f"loss {row['loss']:.3f}") as report:
            history, _ = train(task, report=report)
    save_file({name: value.contiguous() for name, value in task.trunk().items()}, folder / WEIGHTS_FILE)
    return task, pd.DataFrame(history)


def _write_card(folder: Path, study, task: str, trained_on: str, weights: Path, **facts) -> None:
    scores = {name: round(float(value), 3) for name, value in facts.pop("scores").items()}
    content = {
        "task": task,
        "trained_on": trained_on,
        "made_by": "make pretrained",
        "scores": scores,
        "minutes": round(float(facts.pop("minutes")), 1),
        "parameters": int(facts.pop("parameters")),
        "sha256": file_digest(weights),
        **facts,
        "profile": study.profile.to_dict(),
        "environment": environment(),
    }
    write_json(folder / CARD, content)
