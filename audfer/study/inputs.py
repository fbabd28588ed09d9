"""What a study's cells are trained from: labels, matrices, landmarks, weights. Methods of ``Study``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..action_units.table import AUTable, clip_presence
from ..datasets import PackedClips
from ..datasets.landmarks import (
    DLIB_MODEL,
    PointsOfClip,
    dlib_points,
    openface_points,
    packed_landmarks,
)
from ..datasets.packing import tracks_of
from ..errors import InputError
from ..files import atomic_file, digest, file_digest
from ..losses import PLAIN, positive_class_weight
from ..openface import PRESENCE_COLUMNS
from ..plugins import versions
from ..synth import embedded_points
from ..training.loop import Cell, CellInputs, choose_frames
from ..training.pretraining import Pretraining, pretrain
from .pretrained import shipped_weights
from .steps import cached_step, file_states


def cell_inputs(study, cells: list[Cell], initial_weights: str | Path = "") -> dict[str, CellInputs]:
    """``Cell.source`` -> what those cells are trained from. Arguments as in ``Study.run``."""
    inputs = {}
    # a cell without an AU head needs no AU table, so the knowledge filter of Eq. 3 can ask for the baseline first
    for cell in sorted(cells, key=lambda cell: cell.uses_aus):
        key = ("inputs", cell.data_source, cell.uses_aus)
        own = study.once(key, lambda cell=cell: _inputs(study, cell))
        if cell.initialisation != "scratch":
            weights = Path(initial_weights or _starting_weights(study, cell))
            # a GPU's sums have no fixed order: what is pre-trained twice is known by what it was made of, as records
            # are, so that records go on counting on another machine
            own_start = cell.initialisation == "mae" and not initial_weights
            made_of = json.loads(weights.with_suffix(".json").read_text())["key"] if own_start else file_digest(weights)
            own = replace(own, initial_weights=str(weights), initial_fingerprint=made_of)
        inputs[cell.source] = own
    for cell in cells:
        if cell.uses_landmarks and not inputs[cell.source].landmarks:
            inputs[cell.source] = replace(inputs[cell.source], **study.landmarks(cell.dataset, cell.fold))
    return inputs


def _starting_weights(study, cell: Cell) -> Path:
    return shipped_weights(cell.model) if cell.initialisation == "shipped" else study.pretrained_weights


def _inputs(study, cell: Cell) -> CellInputs:
    """What a cell is trained from; without an AU head that is clips alone, and no AU table is asked for."""
    packed = study.packed(cell.dataset, cell.fold)
    inputs = CellInputs(str(study.packed_folder(cell.dataset, cell.fold)), "", "", packed.content, "")
    if not cell.uses_aus:
        return inputs
    path = study.work / "inputs" / cell.data_source.replace(", ", "_").replace(" ", "-")
    arrays = {"clip_ids": np.array(packed.clip_ids), **_au_arrays(study, cell, packed)}
    with atomic_file(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    weights = "knowledge" if cell.weights == "none" else cell.weights
    matrix = study.weight_matrix(weights, cell.dataset, cell.fold, cell.seed, cell.au_source)
    matrix.save(path.with_suffix(".json"))
    return replace(
        inputs,
        au_labels=str(path.with_suffix(".npz")),
        knowledge=str(path.with_suffix(".json")),
        au_fingerprint=digest({name: array.tolist() for name, array in arrays.items()}),
        au_coverage=study.au_table(cell.dataset, cell.au_source).about.get("coverage"),
        knowledge_fingerprint=digest(matrix.values.tolist()),
    )


def _au_arrays(study, cell: Cell, packed: PackedClips) -> dict[str, np.ndarray]:
    """Clip AU labels as the cell reads Eq. 4, and positive class weights that are not counted on these labels."""
    table, clip_ids = study.au_table(cell.dataset, cell.au_source), packed.clip_ids
    if cell.reading == "release-votes":
        # the frames that evaluation shows; the release votes on each draw of its loader anew
        (chosen,) = choose_frames(packed, np.arange(len(packed)), "uniform", cell)
        numbers = np.take_along_axis(packed.frame_numbers, chosen, axis=1).ravel()
        seen = pd.DataFrame({"clip_id": np.repeat(clip_ids, chosen.shape[1]), "frame": numbers})
        seen = seen.drop_duplicates().merge(table.frames, on=["clip_id", "frame"], how="inner")
        table = AUTable(seen[list(table.frames)])
    labels = clip_presence(table, clip_ids)
    if cell.reading != "release-counts" or cell.strategy == PLAIN:
        return {"labels": labels}
    frames = table.frames[table.frames["clip_id"].isin(clip_ids)]
    expressions = frames["clip_id"].map(dict(zip(clip_ids, packed.expressions, strict=True))).to_numpy(np.int64)
    counts = np.bincount(packed.expressions[packed.split("train")], minlength=7)
    presence = frames[list(PRESENCE_COLUMNS)]
    weight = positive_class_weight(presence, expressions, strategy=cell.strategy, class_counts=counts)
    return {"labels": labels, "pos_weight": weight.numpy()}


# ----------------------------------------------------------------------------------------------------------- landmarks


def landmarks(study, name: str, fold: int = 0) -> dict[str, str]:
    """The landmarks of a dataset's packed clips, as ``landmarks`` and ``landmarks_fingerprint`` of ``CellInputs``;
    made on first use.

    Of rendered clips they are the renderer's, of real ones OpenFace's (``AUDFER_DATA/openface/<name>``); where that
    folder lacks clips, their points are unknown, which is said. ``Study.landmark_source`` takes the place of either: a
    folder with the dataset's CSVs, in it or in ``<name>`` below it, or dlib's model file.

    Args:
        fold: 0 = the profile's first.

    Raises:
        AudferError: a ``landmark_source`` that is not there or knows no point of any clip, or dlib is not installed.
    """
    given, folder = study.landmark_source, study.packed_folder(name, fold)
    return study.once(("landmarks", folder, given), lambda: _landmarks(study, name, fold, given))


def _landmarks(study, name: str, fold: int, given: str) -> dict[str, str]:
    packed, (text, source, points_of_clip) = study.packed(name, fold), _landmark_points(study, name, fold)

    def make(folder: Path) -> None:
        made = packed_landmarks(packed, points_of_clip())
        if made.known < 1:
            note = f"landmarks of {name}: from {text}, in {100 * made.known:.0f} % of the stored frames"
            if made.without:
                first = next(iter(made.without.values()))
                note += f"; {len(made.without)} of {len(packed)} clips have none (first: {first})"
            print(note, file=sys.stderr, flush=True)
        np.save(folder / "points.npy", made.points)

    made_of = {"source": source, "packed": packed.content, "code": versions("landmarks")}
    # each source has a folder of its own: trying another one and coming back costs nothing
    place = study.work / "landmarks" / f"{study.packed_folder(name, fold).name}-{digest(made_of)}"
    path = cached_step(place, made_of, make) / "points.npy"
    if given and np.isnan(np.load(path, mmap_mode="r")).all():
        raise InputError(given, f"landmarks of {name}", "none in any clip", f"those of its clips ({text})")
    return {"landmarks": str(path), "landmarks_fingerprint": file_digest(path)}


def _landmark_points(study, name: str, fold: int) -> tuple[str, str, Callable[[], PointsOfClip]]:
    """Where landmarks come from, in words; what they depend on beside the clips; and how to open the source."""
    packed, manifest, given = study.packed(name, fold), study.manifest(name, fold), Path(study.landmark_source)
    if not study.landmark_source and study.profile.embedded:
        size = study.profile.data.render_size
        made_of = digest(asdict(study.synth_config))
        return "the renderer", made_of, lambda: embedded_points(packed, study.data_root, size)
    if given.is_file():
        return f"dlib, {given}", file_digest(given), lambda: dlib_points(packed, given)
    if study.landmark_source and not given.exists():
        expected = f"a folder of OpenFace's CSVs, or dlib's {DLIB_MODEL}"
        raise InputError(given, "landmarks", "nothing there", expected)
    folder = (given if study.landmark_source else study.data_root / "openface") / name
    if study.landmark_source and not folder.is_dir():
        folder = given
    made_of = digest([tracks_of(manifest, folder), file_states(folder)])
    return f"OpenFace's CSVs, {folder}", made_of, lambda: openface_points(packed, manifest, folder)


# -------------------------------------------------------------------------------------------------------- pre-training


def pretraining(study) -> Pretraining:
    """The profile's self-supervised pre-training of MAE-DFER."""
    chosen, training = study.profile.pretraining, study.profile.training
    return Pretraining(
        size=training.size,
        epochs=chosen.epochs,
        num_frames=training.num_frames,
        image_size=study.cell("mae_dfer", study.profile.grid.strategy_dataset).image_size,
        mask_ratio=chosen.mask_ratio,
        motion_weight=chosen.motion_weight,
        seed=training.seeds[0],
        precision=study.precision,
        device=study.device,
    )


def pretrained_weights(study) -> Path:
    """MAE-DFER pre-trained on the training clips of all evaluation datasets, without labels; made on first use."""
    out = study.work / "pretraining" / "mae_dfer.safetensors"
    pretrain(study.pretraining, study.pretraining_stores(), out)
    return out


def pretraining_stores(study) -> list[Path]:
    """Folders of the packed clips that the profile pre-trains on."""
    for name in study.profile.grid.datasets:
        study.packed(name)
    return [study.packed_folder(name) for name in study.profile.grid.datasets]
