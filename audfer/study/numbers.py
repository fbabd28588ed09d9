"""Numbers behind the notebooks' tables. Methods of ``Study``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from .. import published
from ..action_units.baseline import au_baseline, baseline_accuracy, clip_features
from ..action_units.comparison import AUClips
from ..action_units.table import table_from_openface_folder
from ..errors import InputError
from ..evaluation.matrices import matrix, rank_correlations
from ..facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from ..knowledge import KnowledgeMatrix, interpolate_zeros
from ..openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from ..sampling import stored_indices
from ..training.loop import gather_frames
from ..training.pretraining import load_pretrained, reconstruct
from .action_units import clips_with_aus
from .planning import noted_keys


def reconstructions(study, clips: int = 3) -> dict:
    """What the pre-trained network makes of masked test clips of the strategy dataset, each of another expression.

    Returns:
        What ``pretraining.reconstruct`` gives, with ``clip_ids`` and ``expressions``; for ``plots.reconstruction``
        and ``figure_data.reconstruction_data``.
    """
    packed = study.packed(study.profile.grid.strategy_dataset)
    test = packed.split("test")
    seen = packed.expressions[test]
    rows = np.array([test[seen == label][0] for label in dict.fromkeys(seen)][:clips])
    settings = study.pretraining
    batch = gather_frames(
        packed,
        rows,
        np.stack([stored_indices("uniform", packed.frame_numbers[row], settings.num_frames)[0] for row in rows]),
        settings.image_size,
        study.device,
    )
    pictures = reconstruct(load_pretrained(study.pretrained_weights).to(study.device), batch, settings.mask_ratio)
    return {
        **pictures,
        "clip_ids": [packed.clip_ids[row] for row in rows],
        "expressions": [EXPRESSIONS[packed.expressions[row]] for row in rows],
    }


def class_counts(study, split: str = "train") -> dict[str, list[int]]:
    """Dataset -> clips of each expression in one split."""
    return {
        name: np.bincount(t.loc[t["split"] == split, "expression"], minlength=7).tolist()
        for name in study.dataset_names
        for t in [study.manifest(name).table]
    }


def presence_rates(study) -> pd.DataFrame:
    """Percent of frames with the AU present: source (dataset), expression, action_unit, value."""
    parts = []
    for name in study.profile.grid.knowledge_datasets:
        rates = study.labelled(name).groupby("expression")[list(PRESENCE_COLUMNS)].mean().reindex(range(7))
        parts.append(matrix(100 * rates.to_numpy(), name))
    return pd.concat(parts, ignore_index=True)


def look_at(study, folder: str, second_folder: str = ""):
    """From now on only somebody's AU tables are looked at: nothing is rendered and nothing trained for them.

    Args:
        folder: as ``au_clips``; "" changes nothing. It and its labels are read now, so that what is wrong with them is
            said before anything else is done.

    Raises:
        InputError: as ``au_clips``.
    """
    if folder or second_folder:
        study.au_clips(folder, second_folder)
        study.tables = folder
    return study


def au_clips(study, openface_folder: str = "", second_folder: str = "") -> AUClips:
    """AU tables to look at: of a folder of OpenFace's CSVs, or, without one, of the profile's own RAVDESS.

    Args:
        openface_folder: as ``table_from_openface_folder`` reads it; "" = the profile's clips, where the second
            extractor of the embedded benchmark is the planted truth.
        second_folder: another extractor's CSVs of the same clips; "" = none.

    Raises:
        InputError: a second folder without a first, or what ``table_from_openface_folder`` raises.
    """
    if not openface_folder:
        if second_folder:
            raise InputError("notebook", "second_openface_folder", repr(second_folder), "openface_folder as well")
        name = "RAVDESS" if "RAVDESS" in study.dataset_names else study.profile.grid.knowledge_datasets[0]
        first = study.au_table(name)
        if not study.profile.embedded:
            return AUClips(
                name,
                "",
                first,
                None,
                study.manifest(name).table,
                study.caption + clips_with_aus(study, (name,)),
                "No openface_folder given: the profile's own clips.",
                ("OpenFace", ""),
            )
        return AUClips(
            name,
            "",
            first,
            study.planted_table(name),
            study.manifest(name).table,
            study.caption,
            "No openface_folder given (papermill -p openface_folder FOLDER): rendered clips instead of real ones.",
            ("the estimator", "the planted truth"),
        )
    first, labels = study.once(("real", openface_folder), lambda: table_from_openface_folder(openface_folder))
    second = table_from_openface_folder(second_folder)[0] if second_folder else None
    subject = next((labels[column] for column in ("subject", "actor") if column in labels), "")
    name, other = (Path(folder).resolve().name if folder else "" for folder in (openface_folder, second_folder))
    return AUClips(
        name,
        real_stem(openface_folder),
        first,
        second,
        labels[["clip_id", "expression"]].assign(subject=subject),
        f"Real clips: OpenFace's CSVs in {openface_folder}.",
        "Real clips.",
        (name, other) if other else ("OpenFace", ""),
    )


def real_stem(folder: str) -> str:
    """What the files of results on somebody's folder begin with: another folder's do not take their place."""
    return f"real_{re.sub(r'[^A-Za-z0-9]+', '_', Path(folder).resolve().name.removesuffix('.parquet')).strip('_')}_"


def au_baselines(study, aus: AUClips) -> pd.DataFrame:
    """AU-only baseline (``au_baseline``) on clips of people it has not seen.

    Args:
        aus: from ``au_clips``: judged by leaving one subject out. The profile's own clips are followed by the test
            clips of the evaluation datasets, judged as networks are: what a network that reads AUs as well as our
            extractor, or perfectly, gets.

    Returns:
        ``baseline_accuracy`` with source, features (the extractor) and judged; empty where no subjects are known
        and there is nothing else.
    """
    parts = []
    for features, table in zip(aus.extractors, (aus.first, aus.second), strict=True):
        if table is not None and aus.people > 1:
            identity = {"source": aus.name, "features": features, "judged": "leave one person out"}
            found = au_baseline(clip_features(table), aus.clips)
            parts.append(baseline_accuracy(found, aus.unit == "subject", **identity))
    for name in study.profile.grid.datasets if not aus.stem else ():
        for features, found in zip(aus.extractors, study.au_predictions(name), strict=False):
            parts.append(baseline_accuracy(found, source=name, features=features, judged="test clips"))
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=["source", "judged", "features", "classifier"])
    )


def au_predictions(study, name: str) -> list[pd.DataFrame]:
    """What the AU-only baseline says of a dataset's test clips (``au_baseline``): with our extractor's action units,
    and with planted ones where there are any.
    """

    def make() -> list[pd.DataFrame]:
        tables = [study.au_table(name), *([study.planted_table(name)] if study.profile.embedded else [])]
        return [au_baseline(clip_features(table), study.manifest(name).table, "split") for table in tables]

    return study.once(("AU predictions", name), make)


def interpolation_example(study) -> pd.DataFrame:
    """The clip whose intensities change most by the interpolation of zeros: action_unit, frame, before, after."""
    name = study.profile.grid.knowledge_datasets[0]
    best, result = -1.0, None
    for clip_id, frames in study.au_table(name).frames.groupby("clip_id"):
        before = frames[list(INTENSITY_COLUMNS)].to_numpy(np.float32)
        after = interpolate_zeros(before)
        changed = np.abs(np.nan_to_num(after - before)).mean(0)
        if changed.sum() > best:
            best = changed.sum()
            chosen = np.sort(np.argsort(changed)[-4:])
            result = pd.concat(
                [
                    pd.DataFrame(
                        {
                            "clip_id": clip_id,
                            "action_unit": INTENSITY_ACTION_UNITS[j],
                            "frame": frames["frame"].to_numpy(),
                            "before": before[:, j],
                            "after": after[:, j],
                        }
                    )
                    for j in chosen
                ],
                ignore_index=True,
            )
    return result


def knowledge_variants(study) -> pd.DataFrame:
    """Readings of section 3.1 side by side; rank correlations over the 17 measured AUs."""
    frames, reference = study.knowledge_frames(), study.knowledge()
    planted = study.planted_medians() if study.profile.embedded else None
    rows = []
    for variant in ("paper", "release"):
        for au28 in ("grand_mean", "row_mean"):
            for interpolate in (True, False):
                made = KnowledgeMatrix.from_frames(
                    frames, variant=variant, au28=au28, interpolate=interpolate, missing="others"
                )
                au28_cells = made.values[:, ACTION_UNITS.index("AU28")]
                rows.append(
                    {
                        "variant": variant,
                        "AU28": au28,
                        "zeros": "interpolated" if interpolate else "kept",
                        "rank correlation with the profile's": rank_correlations(made.values, reference.values)[
                            "overall"
                        ],
                        "with Fig. 4": rank_correlations(made.values, published.knowledge("figure"))["overall"],
                        **(
                            {}
                            if planted is None
                            else {"with the planted": rank_correlations(made.values, planted)["overall"]}
                        ),
                        "smallest K": made.values.min(),
                        "largest K": made.values.max(),
                        "AU28 lowest": au28_cells.min(),
                        "AU28 highest": au28_cells.max(),
                    }
                )
    return pd.DataFrame(rows)


def theta_grid(study) -> pd.DataFrame:
    """The filter of Eq. 3 over the profile's thresholds: frames kept and what becomes of the matrix."""
    frames, reference = study.knowledge_frames(with_scores=True), study.knowledge()
    planted = study.planted_medians() if study.profile.embedded else None
    rows = []
    for theta in study.profile.grid.thetas:
        kept = frames["score"] >= theta
        row = {"theta": theta, "frames": len(frames), "kept (%)": 100 * kept.mean()}
        fewest = (
            frames[kept]
            .groupby(["dataset", "expression"])
            .size()
            .reindex(pd.MultiIndex.from_product([frames["dataset"].unique(), range(7)]), fill_value=0)
        )
        row["expressions that borrow from other datasets"] = int((fewest == 0).sum())
        if (fewest.groupby(level=1).sum() > 0).all():
            made = KnowledgeMatrix.from_frames(
                frames, variant=study.profile.grid.knowledge, theta=theta, missing="others"
            )
            row["rank correlation with theta 0"] = rank_correlations(made.values, reference.values)["overall"]
            if planted is not None:
                row["with the planted"] = rank_correlations(made.values, planted)["overall"]
        rows.append(row)
    return pd.DataFrame(rows)


def grid_summary(study, *outputs: str, dry: bool = False) -> pd.DataFrame:
    """How many cells each table or figure needs, and how many of them are in the store already.

    Args:
        dry: nothing is made to know it, neither clips nor weights: the keys are those that the last run noted, and of
            a cell without one no record is known.
    """
    rows, seen = [], set()
    for output in outputs:
        cells = study.cells(output)
        if dry:
            keys = noted_keys(study, cells)
        else:
            inputs = study.cell_inputs(cells)
            keys = [study.store.key(cell, inputs[cell.source]) for cell in cells]
        rows.append(
            {
                "output": output,
                "cells": len(cells),
                "new to this table": len(set(keys) - seen),
                "in the store": sum(map(study.store.has, keys)),
            }
        )
        seen |= set(keys)
    return pd.DataFrame(rows)
