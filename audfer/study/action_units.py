"""Action units of a study's clips: the estimator and the AU tables. Methods of ``Study``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import datasets, synth
from ..action_units.estimator import ActionUnitEstimator, evaluate_estimator, train_estimator
from ..action_units.extraction import extract
from ..action_units.importing import coverage_words, import_openface, table_coverage
from ..action_units.table import AUTable
from ..datasets.annotated import subject_manifest
from ..datasets.annotated_frames import AnnotatedFrames, pack_annotated
from ..errors import AudferError, InputError
from ..facs import ACTION_UNITS
from ..files import file_digest, read_csv
from ..openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from ..plugins import versions
from ..synth import drawn_landmarks
from ..training.loop import AU_SOURCES
from .pretrained import EXTRACTOR, FOLDER, shipped_extractor
from .steps import cached_step, file_states, read_stamp


class TrainedEstimator(NamedTuple):
    """The AU estimator of notebook 01, how well it does on held-out subjects, its training, and its stamp."""

    network: ActionUnitEstimator
    accuracy: pd.DataFrame
    history: pd.DataFrame
    stamp: str


def annotated_table(study) -> pd.DataFrame:
    """Every annotated frame of DISFA or, where that is not there, of BP4D (``datasets.read_annotated``).

    Raises:
        InputError: the data folder has neither.
    """
    name = next((name for name in datasets.annotated_datasets() if (study.data_root / name).is_dir()), "")
    if not name:
        expected = "one of them, to learn action units from"
        raise InputError(study.data_root, "annotated frames", "neither DISFA nor BP4D", expected)
    return datasets.read_annotated(name, study.data_root / name)


def annotated_frames(study) -> AnnotatedFrames:
    """The frames of ``annotated_table``, packed with their landmarks on first use.

    Raises:
        InputError: the data folder has neither DISFA nor BP4D.
    """
    table, profile = study.annotated_table, study.profile
    size = profile.data.render_size if profile.embedded else profile.recognition.image_size or 224
    return pack_annotated(
        table, study.data_root / table.attrs["dataset"], study.work / "annotated", size, drawn=drawn_landmarks
    )


def trained_estimator(study) -> TrainedEstimator:
    """The AU estimator: the one that ships, or one trained on first use on the annotated subjects that are not held
    out; judged on subjects that it has not seen.
    """
    settings, profile = study.profile.estimator, study.profile
    if not study.has_annotated_set:
        raise InputError(study.data_root, "annotated frames", "no folder DISFA", "DISFA, to train the AU estimator on")
    root, annotated = study.data_root / "DISFA", study.annotated_table
    place = {"device": study.device, "precision": study.precision}
    shipped = settings.source == "shipped"

    def make(folder: Path) -> None:
        if profile.embedded:
            images = np.array(study.annotated_frames.frames)
        else:
            images = datasets.load_annotated_frames(root, annotated, profile.data.render_size)
        codes, subjects = annotated[list(ACTION_UNITS)].to_numpy(), annotated["subject"].to_numpy()
        if shipped:
            held_out = np.ones(len(annotated), bool)
            network, history = shipped_extractor(), read_csv(FOLDER / EXTRACTOR / "history.csv")
        else:
            held_out = annotated["fold"].to_numpy() == settings.held_out_fold
            network, history = train_estimator(
                images,
                codes,
                subjects,
                train_index=np.flatnonzero(~held_out),
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                lr=settings.learning_rate,
                seed=profile.data.seed,
                **place,
            )
        accuracy = evaluate_estimator(network, images[held_out], codes[held_out], subjects[held_out], **place)
        network.save(folder)
        accuracy.to_csv(folder / "accuracy.csv", index=False)
        history.to_csv(folder / "history.csv", index=False)

    made_of = {
        "settings": file_digest(FOLDER / EXTRACTOR / "estimator.safetensors") if shipped else asdict(settings),
        "data": subject_manifest(annotated, root).fingerprint(),
        "codes": annotated.to_csv(),
        "size": profile.data.render_size,
        "seed": profile.data.seed,
        "code": versions("annotated frames", "estimator"),
        **place,
    }
    folder = cached_step(study.work / "estimator", made_of, make)
    accuracy, history = (read_csv(folder / f"{name}.csv") for name in ("accuracy", "history"))
    return TrainedEstimator(ActionUnitEstimator.load(folder), accuracy, history, read_stamp(folder))


def has_annotated_set(study) -> bool:
    """Whether there are annotated frames (DISFA) for the estimator; the embedded benchmark always has them."""
    return study.profile.embedded or (study.data_root / "DISFA").is_dir()


def estimator(study) -> ActionUnitEstimator:
    """The trained AU estimator."""
    return study.trained_estimator.network


def estimator_accuracy(study) -> pd.DataFrame:
    """F1 and intensity correlation of every AU on the held-out subjects."""
    return study.trained_estimator.accuracy


def au_table(study, name: str, source: str = "") -> AUTable:
    """AUs of every frame of a dataset.

    Args:
        source: of ``training.AU_SOURCES``. "": the estimator's on rendered clips, OpenFace's
            (``AUDFER_DATA/openface/<name>``) on real ones; "lac": Lock and Check's; "planted": the truth of rendered
            clips.

    Raises:
        InputError: unknown source.
        AudferError: "planted" in a profile with real data.
    """
    if source not in AU_SOURCES:
        raise InputError("au_table", "source", repr(source), f"one of {', '.join(map(repr, AU_SOURCES))}")
    return study.once(("AU table", name, source), lambda: AU_SOURCES[source](study, name))


def extracted_table(study, name: str) -> AUTable:
    """What the profile's own extractor sees: the estimator on rendered clips, OpenFace on real ones."""
    clips, embedded = study.manifest(name), study.profile.embedded
    csvs, ready = (study.data_root / "openface" / file for file in (name, f"{name}.parquet"))

    def make(folder: Path) -> None:
        if embedded:
            size = study.profile.data.render_size
            table = extract(clips, study.estimator, size, device=study.device, precision=study.precision)
            table.about["coverage"] = table_coverage(clips, table)
        else:
            table = import_openface(clips, csvs)
        table.save(folder / "frames.parquet")

    made_of = {
        "manifest": clips.fingerprint(),
        "source": study.trained_estimator.stamp if embedded else [file_states(path) for path in (csvs, ready)],
        "code": versions("extraction", "import", "estimator"),
    }
    return AUTable.load(cached_step(study.work / "action_units" / name, made_of, make) / "frames.parquet")


def clips_with_aus(study, names: tuple[str, ...]) -> str:
    """How many of the datasets' clips have action units, a sentence each for a caption; "" of rendered clips."""
    tables = () if study.profile.embedded else (study.au_table(name) for name in names)
    return "".join(f" {coverage_words(table.about['coverage'])}." for table in tables if "coverage" in table.about)


def planted_table(study, name: str) -> AUTable:
    """The planted action units of a rendered dataset, as an AU table: for comparison, and for cells with
    ``au_source`` "planted".

    Raises:
        AudferError: the profile has real data.
    """
    truth = study.truth(name)
    # windows of a long take share its truth
    clips = study.manifest(name).table[["clip_id", "start", "stop"]]
    truth = truth.rename(columns={"clip_id": "take"}).merge(
        clips.assign(take=clips["clip_id"].str.split(":").str[0]), on="take"
    )
    truth = truth[(truth["frame"] >= truth["start"]) & ((truth["stop"] < 0) | (truth["frame"] < truth["stop"]))]
    return AUTable(
        truth[["clip_id", "frame", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS]]
        .assign(ok=True)
        .astype(dict.fromkeys((*INTENSITY_COLUMNS, *PRESENCE_COLUMNS), np.float32))
        .reset_index(drop=True)
    )


def shuffled_table(study, name: str) -> AUTable:
    """Action units of other clips of the same split: the negative control of cells with ``au_source`` "shuffled".

    Planted ones where they are known, else the extractor's.
    """
    table = study.planted_table(name) if study.profile.embedded else study.extracted_table(name)
    clips, others = study.manifest(name).table, {}
    for _, part in clips.groupby("split"):
        ids = part["clip_id"].to_numpy()
        others |= dict(zip(ids, np.random.default_rng(len(ids)).permutation(ids), strict=True))
    return AUTable(table.frames.assign(clip_id=table.frames["clip_id"].map(others)).dropna(subset=["clip_id"]))


def truth(study, name: str) -> pd.DataFrame:
    """What was planted in a rendered dataset (``synth.read_truth``); for judging, nothing of it enters the chain.

    Raises:
        AudferError: the profile has real data.
    """
    if not study.profile.embedded:
        raise AudferError(f"profile {study.profile.name}: the planted truth is known for the embedded benchmark only")
    return synth.read_truth(study.data_root, name)


def labelled(study, name: str, source: str = "") -> pd.DataFrame:
    """A dataset's AU table with the dataset and the expression of each frame's clip."""
    expressions = study.manifest(name).table.set_index("clip_id")["expression"]
    return study.au_table(name, source).labelled(name, expressions)
