"""Lock and Check in a study: the cells of its paper's ablations, the profile's recogniser, and what better action units
do.

Notebooks and the command line call this room; ``action_units.recognition`` trains. Everything lies in
``work/<profile>``: the packed annotated frames in ``annotated``, what frozen stages make of them in ``annotated_maps``,
a record a cell in ``recognition``, the profile's recogniser in ``lac``, AU tables in ``action_units_lac``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd

from ..action_units.estimator import predict
from ..action_units.extraction import extract_clips
from ..action_units.table import AUTable, interpolate_zeros
from ..errors import AudferError, InputError
from ..evaluation.statistics import compare, holm, summary
from ..facs import EXPRESSIONS
from ..files import atomic_file, atomic_folder, digest, file_digest
from ..knowledge import KnowledgeMatrix, summed_medians
from ..openface import INTENSITY_COLUMNS
from ..results.figure_data import rank_correlations
from ..study.study import Study, _stamp, _write_stamp
from ..training.records import run_cells
from ..versions import versions
from .training import (
    COMPONENTS,
    RECIPES,
    AnnotatedFrames,
    Recogniser,
    RecognitionCell,
    RecognitionInputs,
    RecognitionRecord,
    RecognitionStore,
    pack_annotated,
    stored_maps,
)

#: tables that are made from cells: Tables IV to VII, and the profile's recogniser
OUTPUTS = ("lac_components", "lac_window", "lac_segments", "lac_loss", "lac_final")
#: whose action units ``better_aus`` compares: name -> ``Study.au_table``'s source
SOURCES: dict[str, str] = {"baseline": "", "LAC": "lac", "planted": "planted"}
DRAWS = 200
_SEED = 20260101


# -----------------------------------------------------------------------------------------------------------------
# cells


def cell(study: Study, components: str = "LAC", **changes) -> RecognitionCell:
    """A cell with the profile's numbers.

    Args:
        components: a name in ``action_units.recognition.COMPONENTS``.
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


def folds(study: Study) -> tuple[int, ...]:
    """Folds of the annotated set that the profile judges on; the estimator's held-out one where it names none."""
    return study.profile.recognition.folds or (study.profile.estimator.held_out_fold,)


def cells(study: Study, output: str) -> list[RecognitionCell]:
    """The cells that one of ``OUTPUTS`` needs, in the order of the paper's rows; of each row all folds and seeds.

    Tables V and VI vary temporal sampling alone (the paper's best there is its row 2 of Table IV), Table VII the loss
    of LAC.

    Raises:
        InputError: another output.
    """
    chosen = study.profile.recognition
    rows = {
        "lac_components": [{"components": name} for name in COMPONENTS],
        "lac_window": [{"components": "TS", "window": window} for window in chosen.windows],
        "lac_segments": [{"components": "TS", "segments": segments} for segments in chosen.segment_counts],
        "lac_loss": [{"components": "LAC", "loss": loss} for loss in ("CE", "WA", "DWA")],
        "lac_final": [
            {"components": "LAC", "epochs": chosen.final_epochs or chosen.epochs or RECIPES[chosen.size][0].epochs}
        ],
    }
    if output not in rows:
        raise InputError("recognition", "output", repr(output), f"one of {', '.join(OUTPUTS)}")
    if output == "lac_final":
        return [cell(study, **rows[output][0])]
    return [
        cell(study, **row, fold=fold, seed=seed)
        for row in rows[output]
        for fold in folds(study)
        for seed in study.profile.training.seeds
    ]


def store(study: Study) -> RecognitionStore:
    """Where the records of the profile's cells lie."""
    return RecognitionStore(study.work / "recognition")


@lru_cache(maxsize=1)
def annotated(study: Study) -> AnnotatedFrames:
    """The profile's annotated frames, packed on first use; DISFA or, where that is not there, BP4D.

    Raises:
        InputError: the data folder has neither.
    """
    table = study.annotated_table
    size = study.profile.data.render_size if study.profile.embedded else cell(study).image_size or 224
    return pack_annotated(table, study.data_root / table.attrs["dataset"], study.work / "annotated", size)


def inputs(study: Study) -> RecognitionInputs:
    """What the profile's cells are trained from."""
    data, chosen = annotated(study), study.profile.recognition
    made = RecognitionInputs(str(study.work / "annotated"), data.meta["fingerprint"], study.profile.data.seed)
    if chosen.initialisation == "estimator":
        _ = study.estimator  # trained now if it is not there
        weights = study.work / "estimator" / "estimator.safetensors"
        return replace(
            made,
            initial_weights=str(weights),
            initial_fingerprint=file_digest(weights),
            initial_fold=study.profile.estimator.held_out_fold,
        )
    if chosen.initialisation != "scratch":
        return replace(
            made, initial_weights=chosen.initialisation, initial_fingerprint=file_digest(chosen.initialisation)
        )
    return made


def train(study: Study, wanted: list[RecognitionCell], desc: str = "AU recogniser", executor=None) -> pd.DataFrame:
    """What ``experiments.run_cells`` gives for the cells: a row each, with its error where it failed."""
    made, found = inputs(study), store(study)
    missing = next((one for one in wanted if not found.has(found.key(one, made))), None)
    if missing:
        stored_maps(missing, made)  # once, before workers look for them side by side
    return run_cells(
        wanted, {one.source: made for one in wanted}, found, executor, study.profile.training.workers, desc
    )


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
    record, folder = final_record(study), study.work / "lac"
    if _stamp(folder) != record.path.name:
        with atomic_folder(folder) as temporary:
            Recogniser.load(record.path).save(temporary)
            _write_stamp(temporary, record.path.name)
    return Recogniser.load(folder)


def lac_table(study: Study, dataset: str) -> AUTable:
    """AUs of every frame of a dataset as the profile's recogniser sees them, made on first use."""
    manifest, found = study.manifest(dataset), recogniser(study)
    folder = study.work / "action_units_lac" / dataset
    stamp = digest(
        {
            "manifest": manifest.fingerprint(),
            "recogniser": _stamp(study.work / "lac"),
            "code": versions("extraction", "lock and check"),
        }
    )
    if _stamp(folder) != stamp:

        def judge(clips: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
            return [judged[:2] for judged in found.predict_clips(clips, study.device, study.precision)]

        table = extract_clips(
            manifest, judge, found.image_size, tool="LAC", mode=f"windows of {found.window} frames", desc="LAC"
        )
        with atomic_folder(folder) as temporary:
            table.save(temporary / "frames.parquet")
            _write_stamp(temporary, stamp)
    return AUTable.load(folder / "frames.parquet")


def baseline_predictions(study: Study, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the estimator of notebook 01 says about some rows of the annotated set.

    Intensity (n, 17), presence (n, 18).
    """
    data = annotated(study)
    stamp = digest(
        {
            "frames": data.meta,
            "rows": np.asarray(rows).tolist(),
            "estimator": file_digest(study.work / "estimator" / "estimator.safetensors") if study.estimator else "",
        }
    )
    path = study.work / "recognition" / f"baseline-{stamp}.npz"
    if not path.is_file():
        intensity, presence = predict(
            study.estimator, data.frames[rows], device=study.device, precision=study.precision
        )
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, intensity=intensity, presence=presence)
    with np.load(path) as stored:
        return stored["intensity"], stored["presence"]


# ----------------------------------------------------------------------------------------------- what better AUs do


def _expression_medians(study: Study, source: str) -> list[tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """For each knowledge dataset: clip number of each frame, then for each expression the frames' clips and intensities
    (n, 17).
    """
    frames = study.knowledge_frames(source=source)
    parts = []
    for _, own in frames.groupby("dataset", sort=False):
        clip = pd.factorize(own["clip_id"])[0]
        values = interpolate_zeros(own[list(INTENSITY_COLUMNS)].to_numpy(np.float64), clip)
        expression = own["expression"].to_numpy()
        parts.append(
            (
                clip,
                [clip[expression == e] for e in range(len(EXPRESSIONS))],
                [values[expression == e] for e in range(len(EXPRESSIONS))],
            )
        )
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
    for column, found in enumerate(values.T):
        known = np.flatnonzero(~np.isnan(found))
        ordered = known[np.argsort(found[known], kind="stable")]  # the same order in every sample
        below = np.cumsum(times[:, clips[ordered]], axis=1)
        some = below[:, -1] > 0 if len(ordered) else np.zeros(len(times), bool)
        below, total = below[some], below[some, -1:] if some.any() else 0
        if some.any():
            x = found[ordered]
            out[some, column] = (x[(below < (total - 1) // 2 + 1).sum(1)] + x[(below < total // 2 + 1).sum(1)]) / 2
    return out


def knowledge_recovery(study: Study, source: str, draws: int = DRAWS) -> tuple[np.ndarray, KnowledgeMatrix]:
    """Rank correlation of the knowledge matrix with the planted medians, in bootstrap samples of whole clips.

    Clips are drawn again within their dataset; the planted medians stay those of the frames as rendered.

    Args:
        source: as in ``Study.au_table``.

    Returns:
        (draws,) correlations over the 119 measured cells, and the matrix from all clips.
    """
    planted = study.planted_medians()
    generator = np.random.default_rng(_SEED)
    medians = []
    for clip, clips_of, values_of in _expression_medians(study, source):
        count = int(clip.max()) + 1
        times = generator.multinomial(count, np.full(count, 1 / count), draws)
        medians.append(
            np.stack(
                [_weighted_medians(values, clips, times) for clips, values in zip(clips_of, values_of, strict=True)],
                axis=1,
            )
        )
    variant, found = study.profile.grid.knowledge, []
    for stacked in np.stack(medians, axis=1):  # datasets, expressions, AUs
        # a dataset that lacks an expression borrows the others' mean, as the matrix does
        stacked = np.where(np.isnan(stacked), np.nanmean(stacked, axis=0), stacked)
        found.append(rank_correlations(summed_medians(stacked, variant), planted)["overall"])
    return np.array(found), study.knowledge(source=source)


def better_aus(study: Study, draws: int = DRAWS) -> pd.DataFrame:
    """What better action units do for AU-DFER: the knowledge that comes out, and the expressions that are recognised.

    Networks: ``grid.ratio_model`` on ``grid.strategy_dataset`` with the profile's strategy and lambda, trained alike
        but for whose
    action units the knowledge matrix, the AU labels and the class weights are made of; and the network without AUs.

    Returns:
        One row a source ("no AUs", then ``SOURCES``): source; recovery, recovery_low, recovery_high (rank correlation
            with the planted medians; 95 %
        bootstrap over clips); and for war and uar, fractions: value, ``_low``, ``_high``, and against the baseline's
        AUs ``_gain``, ``_gain_low``, ``_gain_high`` (paired), ``_p`` and ``_p_holm`` (over the rows). Attribute
        ``records`` of the frame's ``attrs``: names of the records.

    Raises:
        AudferError: real data, of which no truth is known.
    """
    if not study.profile.embedded:
        raise AudferError(
            f"profile {study.profile.name}: better_aus compares with the planted truth, which the embedded benchmark "
            f"has"
        )
    grid, seeds = study.profile.grid, study.profile.training.seeds

    def networks(ratio: float, source: str) -> list:
        return [
            study.cell(grid.ratio_model, grid.strategy_dataset, ratio, seed=seed, au_source=source) for seed in seeds
        ]

    wanted = {
        "no AUs": networks(0.0, ""),
        **{name: networks(grid.au_ratio, source) for name, source in SOURCES.items()},
    }
    found = study.run([one for group in wanted.values() for one in group], desc="better AUs")
    groups = {name: found[k * len(seeds) : (k + 1) * len(seeds)] for k, name in enumerate(wanted)}
    rows = []
    for name, group in groups.items():
        row = {"source": name, "recovery": np.nan, "recovery_low": np.nan, "recovery_high": np.nan}
        if name in SOURCES:
            sample, matrix = knowledge_recovery(study, SOURCES[name], draws)
            value = rank_correlations(matrix.values, study.planted_medians())["overall"]
            # medians of drawn clips repeat values, which costs ranks: limits are widened, where needed, to include the
            # value itself
            row |= {
                "recovery": value,
                "recovery_low": min(np.quantile(sample, 0.025), value),
                "recovery_high": max(np.quantile(sample, 0.975), value),
            }
        judged = summary(group)
        change = None if name == "baseline" else compare(groups["baseline"], group)
        for metric in ("war", "uar"):
            value = getattr(judged, metric)
            row |= {metric: value.value, f"{metric}_low": value.low, f"{metric}_high": value.high}
            gain = None if change is None else getattr(change, metric)
            row |= {
                f"{metric}_gain": np.nan if gain is None else gain.value,
                f"{metric}_gain_low": np.nan if gain is None else gain.low,
                f"{metric}_gain_high": np.nan if gain is None else gain.high,
                f"{metric}_p": np.nan if change is None else getattr(change, f"{metric}_p"),
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    for metric in ("war", "uar"):
        table[f"{metric}_p_holm"] = holm(table[f"{metric}_p"])
    table.attrs["records"] = [record.path.name for group in groups.values() for record in group]
    return table
