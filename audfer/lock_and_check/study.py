"""Lock and Check in a study: the cells of its paper's ablations, the profile's recogniser, and what better action units
do.

Notebooks and tables call this; ``training`` trains. Everything lies in ``work/<profile>``: the packed annotated frames
in ``annotated``, what frozen stages make of them in ``annotated_maps``, one record per cell in ``recognition``, the
profile's recogniser in ``lac``, AU tables in ``action_units_lac``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..action_units.estimator import predict
from ..action_units.extraction import extract_clips
from ..action_units.table import AUTable
from ..datasets import annotated_datasets
from ..errors import AudferError, InputError
from ..evaluation import SEED, Interval, compare, equal_shares, holm, multiplicities, summary
from ..evaluation.matrices import rank_correlations
from ..facs import EXPRESSIONS
from ..files import atomic_file, digest, file_digest, readable
from ..knowledge import KnowledgeMatrix, interpolate_zeros, summed_medians
from ..openface import INTENSITY_COLUMNS
from ..plugins import versions
from ..study.steps import cached_step, read_stamp
from ..study.study import Study
from ..training.records import run_cells
from .training import (
    COMPONENTS,
    LOSSES,
    RECIPES,
    Recogniser,
    RecognitionCell,
    RecognitionInputs,
    RecognitionRecord,
    RecognitionStore,
    stored_maps,
)

#: tables that are made from cells: Tables IV to VII, and the profile's recogniser
OUTPUTS = ("lac_components", "lac_window", "lac_segments", "lac_loss", "lac_final")
#: whose action units ``better_aus`` compares: name -> ``Study.au_table``'s source
SOURCES: dict[str, str] = {"baseline": "", "LAC": "lac", "planted": "planted"}
DRAWS = 200


# -----------------------------------------------------------------------------------------------------------------
# cells


def cell(study: Study, components: str = "LAC", **changes) -> RecognitionCell:
    """A cell with the profile's numbers.

    Args:
        components: a name in ``training.COMPONENTS``.
        **changes: fields of ``RecognitionCell`` that differ.

    Raises:
        InputError: unknown components, or a field's value that is not possible.
    """
    if components not in COMPONENTS:
        raise InputError("recognition", "components", repr(components), f"one of {', '.join(COMPONENTS)}")
    chosen, switches = study.profile.recognition, COMPONENTS[components]
    recipe = RECIPES[chosen.size][0 if switches["temporal_sampling"] else 1]
    own = {
        "window": chosen.window,
        "segments": chosen.segments,
        "size": chosen.size,
        "image_size": chosen.image_size,
        "epochs": chosen.epochs or recipe.epochs,
        "batch": recipe.batch_size,
        "seed": study.profile.training.seeds[0],
        "fold": folds(study)[0],
        "initialisation": chosen.initialisation,
        "precision": study.precision,
        "device": study.device,
    }
    return RecognitionCell(**{**switches, **own, **changes})


def has_annotated_set(study: Study) -> bool:
    """Whether the study has frames to train a recogniser on (also BP4D's, which are none for the estimator)."""
    return study.profile.embedded or any((study.data_root / name).is_dir() for name in annotated_datasets())


def folds(study: Study) -> tuple[int, ...]:
    """Folds of the annotated set that the profile judges on; the estimator's held-out one where it names none."""
    return study.profile.recognition.folds or (study.profile.estimator.held_out_fold,)


def cells(study: Study, output: str) -> list[RecognitionCell]:
    """The cells that one of ``OUTPUTS`` needs, in the order of the paper's rows; of each row all folds and seeds.

    Tables V and VI vary temporal sampling alone (the paper's best there is its row 2 of Table IV), Table VII the loss
    of LAC. The profile's recogniser is one cell.

    Raises:
        InputError: another output.
    """
    chosen = study.profile.recognition
    rows = {
        "lac_components": [{"components": name} for name in COMPONENTS],
        "lac_window": [{"components": "TS", "window": window} for window in chosen.windows],
        "lac_segments": [{"components": "TS", "segments": segments} for segments in chosen.segment_counts],
        "lac_loss": [{"loss": loss} for loss in LOSSES],
    }
    if output == "lac_final":
        return [cell(study, epochs=chosen.final_epochs or chosen.epochs or RECIPES[chosen.size][0].epochs)]
    if output not in rows:
        raise InputError("recognition", "output", repr(output), f"one of {', '.join(OUTPUTS)}")
    return [
        cell(study, **row, fold=fold, seed=seed)
        for row in rows[output]
        for fold in folds(study)
        for seed in study.profile.training.seeds
    ]


def store(study: Study) -> RecognitionStore:
    """Where the records of the profile's cells lie."""
    return RecognitionStore(study.work / "recognition")


def inputs(study: Study) -> RecognitionInputs:
    """What the profile's cells are trained from."""
    data, profile = study.annotated_frames, study.profile
    made = RecognitionInputs(str(study.work / "annotated"), data.meta["fingerprint"], profile.data.seed)
    weights, fold = profile.recognition.initialisation, 0
    if weights == "scratch":
        return made
    if weights == "estimator":
        _ = study.estimator  # trained now if it is not there
        weights, fold = study.work / "estimator" / "estimator.safetensors", profile.estimator.held_out_fold
    return replace(made, initial_weights=str(weights), initial_fingerprint=file_digest(weights), initial_fold=fold)


def train(study: Study, wanted: list[RecognitionCell], desc: str = "AU recogniser", executor=None) -> pd.DataFrame:
    """What ``experiments.run_cells`` gives for the cells: a row each, with its error where it failed."""
    made, records = inputs(study), store(study)
    missing = next((one for one in wanted if not records.has(records.key(one, made))), None)
    if missing:
        stored_maps(missing, made)  # once, before workers look for them side by side
    sources = {one.source: made for one in wanted}
    return run_cells(wanted, sources, records, executor, study.profile.training.workers, desc)


def run(study: Study, wanted: list[RecognitionCell], desc: str = "AU recogniser") -> list[RecognitionRecord]:
    """Records of the cells, training what is missing.

    Raises:
        AudferError: a cell failed.
    """
    table = train(study, wanted, desc)
    failed = [
        f"{one.label}: {error}" for one, error in zip(wanted, table["error"], strict=True) if isinstance(error, str)
    ]
    if failed:
        raise AudferError(f"{len(failed)} of {len(wanted)} cells of the AU recogniser failed: {'; '.join(failed)}")
    return [RecognitionRecord.load(path) for path in table["path"]]


def records(study: Study, *outputs: str) -> list[RecognitionRecord]:
    """Records of all cells that the named tables need, without repetition, training what is missing; none named: all
    tables'.
    """
    return run(study, list(dict.fromkeys(one for output in outputs or OUTPUTS for one in cells(study, output))), "LAC")


# ------------------------------------------------------------------------------------------------------------
# recogniser


def final_record(study: Study) -> RecognitionRecord:
    """The record that the profile's recogniser comes from."""
    return records(study, "lac_final")[0]


def recogniser(study: Study) -> Recogniser:
    """The profile's LAC, calibrated; trained on first use, and kept in ``work/<profile>/lac`` for ``audfer au extract
    --backend lac``.
    """
    record = final_record(study)
    folder = cached_step(study.work / "lac", record.path.name, Recogniser.load(record.path).save)
    return Recogniser.load(folder)


def lac_table(study: Study, dataset: str) -> AUTable:
    """AUs of every frame of a dataset as the profile's recogniser sees them, made on first use."""
    manifest, network = study.manifest(dataset), recogniser(study)

    def judge(clips: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [judged[:2] for judged in network.predict_clips(clips, study.device, study.precision)]

    def make(folder: Path) -> None:
        mode = f"windows of {network.window} frames"
        table = extract_clips(manifest, judge, network.image_size, tool="LAC", mode=mode, desc="LAC")
        table.save(folder / "frames.parquet")

    made_of = {
        "manifest": manifest.fingerprint(),
        "recogniser": read_stamp(study.work / "lac"),
        "code": versions("extraction", "lock and check"),
    }
    return AUTable.load(cached_step(study.work / "action_units_lac" / dataset, made_of, make) / "frames.parquet")


def baseline_predictions(study: Study, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the estimator of notebook 01 says about some rows of the annotated set.

    Intensity (n, 17), presence (n, 18).
    """
    data = study.annotated_frames
    stamp = digest(
        {
            "frames": data.meta,
            "rows": np.asarray(rows).tolist(),
            "estimator": file_digest(study.work / "estimator" / "estimator.safetensors") if study.estimator else "",
        }
    )
    path = study.work / "recognition" / f"baseline-{stamp}.npz"
    if not readable(path):
        intensity, presence = predict(
            study.estimator, data.frames[rows], device=study.device, precision=study.precision
        )
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, intensity=intensity, presence=presence)
    with np.load(path) as stored:
        return stored["intensity"], stored["presence"]


# ----------------------------------------------------------------------------------------------- what better AUs do


def _by_expression(study: Study, source: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each knowledge dataset: every frame's clip (its number), intensities (n, 17) and expression."""
    parts = []
    for _, own in study.knowledge_frames(source=source).groupby("dataset", sort=False):
        clip = pd.factorize(own["clip_id"])[0]
        values = interpolate_zeros(own[list(INTENSITY_COLUMNS)].to_numpy(np.float64), clip)
        parts.append((clip, values, own["expression"].to_numpy()))
    return parts


def _weighted_medians(values: np.ndarray, clips: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Medians of columns in samples of clips.

    Args:
        values: (n, 17), NaN left out. clips: (n,) number of each row's clip. times: (draws, clips) how often a sample
            has a clip.

    Returns:
        (draws, 17); NaN where a sample has no value.
    """
    out = np.full((len(times), values.shape[1]), np.nan)
    for column, own in enumerate(values.T):
        known = np.flatnonzero(~np.isnan(own))
        ordered = known[np.argsort(own[known], kind="stable")]  # the same order in every sample
        below = np.cumsum(times[:, clips[ordered]], axis=1)
        if not len(ordered) or not (some := below[:, -1] > 0).any():
            continue
        x, below, total = own[ordered], below[some], below[some, -1:]
        out[some, column] = sum(x[(below < half // 2 + 1).sum(axis=1)] for half in (total - 1, total)) / 2
    return out


def knowledge_recovery(study: Study, source: str, draws: int = DRAWS) -> tuple[np.ndarray, KnowledgeMatrix]:
    """Rank correlation of the knowledge matrix with the planted medians, in bootstrap samples of whole clips.

    Clips are drawn again within their dataset; the planted medians stay those of the frames as rendered.

    Args:
        source: as in ``Study.au_table``.

    Returns:
        (draws,) correlations over the 119 measured cells, and the matrix from all clips.
    """
    planted, medians = study.planted_medians(), []
    generator = np.random.default_rng(SEED)
    for clip, values, expression in _by_expression(study, source):
        count = int(clip.max()) + 1
        times = multiplicities(count, draws, generator, shares=equal_shares(count))
        kinds = (expression == number for number in range(len(EXPRESSIONS)))
        medians.append(np.stack([_weighted_medians(values[kind], clip[kind], times) for kind in kinds], axis=1))
    sample = []
    for stacked in np.stack(medians, axis=1):  # datasets, expressions, AUs
        # a dataset that lacks an expression borrows the others' mean, as the matrix does
        stacked = np.where(np.isnan(stacked), np.nanmean(stacked, axis=0), stacked)
        total = summed_medians(stacked, study.profile.grid.knowledge)
        sample.append(rank_correlations(total, planted)["overall"])
    return np.array(sample), study.knowledge(source=source)


def _with_ends(interval: Interval, name: str) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def better_aus(study: Study, draws: int = DRAWS) -> pd.DataFrame:
    """What better action units do for AU-DFER: the knowledge that comes out, and the expressions that are recognised.

    Networks: ``grid.ratio_model`` on ``grid.strategy_dataset`` with the profile's strategy and lambda, trained alike
    but for whose action units the knowledge matrix, the AU labels and the class weights are made of; and the network
    without AUs.

    Returns:
        One row per source ("no AUs", then ``SOURCES``): source; recovery, recovery_low, recovery_high (rank correlation
        with the planted medians; 95 % bootstrap over clips); and for war and uar, fractions: value, ``_low``,
        ``_high``, and against the baseline's AUs ``_gain``, ``_gain_low``, ``_gain_high`` (paired), ``_p`` and
        ``_p_holm`` (over the rows). Attribute ``records`` of the frame's ``attrs``: names of the records.

    Raises:
        AudferError: real data, of which no truth is known.
    """
    profile = study.profile
    if not profile.embedded:
        raise AudferError(
            f"profile {profile.name}: better_aus compares with the planted truth, which the embedded benchmark has"
        )
    grid, seeds = profile.grid, profile.training.seeds
    wanted = {"no AUs": (0.0, ""), **{name: (grid.au_ratio, source) for name, source in SOURCES.items()}}
    records = study.run(
        [
            study.cell(grid.ratio_model, grid.strategy_dataset, ratio, seed=seed, au_source=source)
            for ratio, source in wanted.values()
            for seed in seeds
        ],
        desc="better AUs",
    )
    groups = {name: records[k * len(seeds) : (k + 1) * len(seeds)] for k, name in enumerate(wanted)}
    rows = []
    for name, group in groups.items():
        row = {"source": name, **dict.fromkeys(("recovery", "recovery_low", "recovery_high"), np.nan)}
        if name in SOURCES:
            sample, matrix = knowledge_recovery(study, SOURCES[name], draws)
            value = rank_correlations(matrix.values, study.planted_medians())["overall"]
            low, high = np.quantile(sample, (0.025, 0.975))
            # medians of drawn clips repeat values, which costs ranks: limits are widened, where needed, to include the
            # value itself
            row |= {"recovery": value, "recovery_low": min(low, value), "recovery_high": max(high, value)}
        judged, change = summary(group), None if name == "baseline" else compare(groups["baseline"], group)
        for metric in ("war", "uar"):
            row |= _with_ends(getattr(judged, metric), metric)
            if change:
                gain = _with_ends(getattr(change, metric), f"{metric}_gain")
                row |= gain | {f"{metric}_p": getattr(change, f"{metric}_p")}
        rows.append(row)
    table = pd.DataFrame(rows)
    for metric in ("war", "uar"):
        table[f"{metric}_p_holm"] = holm(table[f"{metric}_p"])
    table.attrs["records"] = [record.path.name for record in records]
    return table
