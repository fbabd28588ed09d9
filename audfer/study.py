"""One study: a profile's whole chain from clips to run records, each step made once and found again.

Notebooks and the command line call this room and nothing deeper. Steps are lazy: asking for the knowledge matrix
makes the clips, the estimator and the AU tables if they are not there. Every step lies in the work folder under a
stamp of what it was made from, and is made again only if that changed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from . import datasets, published, synth
from .action_units.estimator import ActionUnitEstimator, evaluate_estimator, train_estimator
from .action_units.extraction import extract, import_openface
from .action_units.table import AUTable, clip_presence, interpolate_zeros
from .datasets import Manifest, PackedClips
from .errors import AudferError, InputError
from .experiments import RunRecord, RunStore, load_records, run_cells
from .facs import ACTION_UNITS, INTENSITY_ACTION_UNITS
from .figure_data import matrix, rank_correlations
from .files import atomic_file, atomic_folder, code_version, digest, write_json
from .knowledge import KnowledgeMatrix
from .losses import positive_class_weight
from .models import build_model, count_flops, default_clip_shape
from .openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from .profiles import Profile, load_profile
from .progress import progress
from .training import Cell, CellInputs, gather_frames, resolve_device, resolve_precision

ROOT = Path(__file__).resolve().parents[1]


def open_study(profile: str = "laptop", work: str = "", figures: str = "") -> Study:
    """The study of a profile.

    Args:
        profile: name or path; the environment variable ``AUDFER_PROFILE`` overrides it (how CI runs the notebooks in
            the smoke profile without touching their parameters).
        work: folder for everything that is made on the way; "" = ``AUDFER_WORK``, else ``work/`` of the repository.
        figures: folder for tables and figures; "" = ``AUDFER_FIGURES``, else ``figures/`` of the repository. A folder
            with the profile's name is made inside both.

    Raises:
        InputError: unknown profile.
    """
    settings = load_profile(os.environ.get("AUDFER_PROFILE") or profile)
    return Study(settings, Path(work or os.environ.get("AUDFER_WORK") or ROOT / "work"),
                 Path(figures or os.environ.get("AUDFER_FIGURES") or ROOT / "figures"))


class Study:
    """A profile with a place to work; see ``open_study``.

    Attributes:
        profile: its numbers. store: its run records. figures: where its tables and figures go.
    """

    def __init__(self, profile: Profile, work: Path, figures: Path):
        self.profile = profile
        self.work = Path(work).resolve() / profile.name
        self.figures = Path(figures).resolve() / profile.name
        self.store = RunStore(self.work / "runs")
        self.device = resolve_device(profile.training.device)
        self.precision = resolve_precision(profile.training.precision, self.device)
        self._manifests: dict[str, Manifest] = {}
        self._tables: dict[str, AUTable] = {}

    @property
    def caption(self) -> str:
        """What every table and figure must say about its input."""
        if self.profile.embedded:
            return (f"Embedded benchmark (rendered faces, profile {self.profile.name}); "
                    "not comparable with numbers on the real datasets.")
        return f"Real datasets, profile {self.profile.name}."

    # ---------------------------------------------------------------------------------------------------- clips

    @cached_property
    def data_root(self) -> Path:
        """Folder with one folder a dataset; renders the embedded benchmark first if it is not there."""
        if self.profile.embedded:
            root = self.work / "data"
            synth.write_benchmark(root, self.synth_config, ("DISFA", *self.dataset_names))
            return root
        root = os.environ.get("AUDFER_DATA", "")
        if not root or not Path(root).is_dir():
            raise InputError("AUDFER_DATA", "folder of the real datasets", repr(root),
                             "an existing folder that holds DFEW, FERV39k, ... (README, section Real data)")
        return Path(root)

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """All datasets of the profile: those that networks are judged on and those that the knowledge comes from."""
        return tuple(dict.fromkeys((*self.profile.grid.datasets, *self.profile.grid.knowledge_datasets)))

    @property
    def synth_config(self) -> synth.SynthConfig:
        """What the embedded benchmark of this profile consists of."""
        data = self.profile.data
        return synth.SynthConfig(
            seed=data.seed, image_size=data.render_size, frames=data.clip_frames,
            counts={name: {"train": data.train_clips[name], "test": data.test_clips[name]} for name in data.train_clips},
            ravdess_actors=data.ravdess_actors, affwild2_videos=data.affwild2_videos,
            affwild2_frames=data.affwild2_frames, disfa_subjects=data.disfa_subjects, disfa_frames=data.disfa_frames)

    def manifest(self, name: str) -> Manifest:
        """All clips of a dataset that carry one of the seven expressions, as its reader finds them on disk."""
        if name not in self._manifests:
            found = datasets.read_dataset(name, self.data_root / name)
            self._manifests[name] = replace(found, table=found.table[found.table["expression"] >= 0])
        return self._manifests[name]

    def packed(self, name: str) -> PackedClips:
        """A dataset's clips as one memory-mapped array, made on first use."""
        training = self.profile.training
        return datasets.pack(self.manifest(name), self.work / "packed" / name, training.stored_frames, training.image_size)

    def _fingerprint(self, packed: PackedClips) -> str:
        return digest({key: packed.meta[key] for key in ("fingerprint", "num_frames", "size", "rule")})

    # ------------------------------------------------------------------------------------------- action units

    @cached_property
    def _estimator(self) -> tuple[ActionUnitEstimator, pd.DataFrame, pd.DataFrame, str]:
        settings = self.profile.estimator
        root = self.data_root / "DISFA"
        annotated = datasets.read_disfa(root)
        stamp = digest({"settings": asdict(settings), "data": datasets.read_dataset("DISFA", root).fingerprint(),
                        "codes": digest(annotated.to_csv()), "precision": self.precision, "device": self.device,
                        "size": self.profile.data.render_size, "code": code_version("action_units/estimator.py")})
        folder = self.work / "estimator"
        if _stamp(folder) != stamp:
            images = datasets.load_disfa_frames(root, annotated, self.profile.data.render_size)
            codes, subjects = annotated[list(ACTION_UNITS)].to_numpy(), annotated["subject"].to_numpy()
            held_out = annotated["fold"].to_numpy() == settings.held_out_fold
            estimator, history = train_estimator(
                images, codes, subjects, train_index=np.flatnonzero(~held_out), epochs=settings.epochs,
                batch_size=settings.batch_size, lr=settings.learning_rate, seed=self.profile.data.seed,
                device=self.device, precision=self.precision)
            accuracy = evaluate_estimator(estimator, images[held_out], codes[held_out], subjects[held_out],
                                          device=self.device, precision=self.precision)
            with atomic_folder(folder) as temporary:
                estimator.save(temporary)
                accuracy.to_csv(temporary / "accuracy.csv", index=False)
                history.to_csv(temporary / "history.csv", index=False)
                _write_stamp(temporary, stamp)
        return (ActionUnitEstimator.load(folder), pd.read_csv(folder / "accuracy.csv"),
                pd.read_csv(folder / "history.csv"), stamp)

    @property
    def estimator(self) -> ActionUnitEstimator:
        """The trained AU estimator."""
        return self._estimator[0]

    @property
    def estimator_accuracy(self) -> pd.DataFrame:
        """F1 and intensity correlation of every AU on the held-out subjects."""
        return self._estimator[1]

    def au_table(self, name: str) -> AUTable:
        """AUs of every frame of a dataset: the estimator's on rendered clips, OpenFace's (``AUDFER_DATA/openface/<name>``) on real ones."""
        if name in self._tables:
            return self._tables[name]
        manifest = self.manifest(name)
        folder = self.work / "action_units" / name
        source = self._estimator[3] if self.profile.embedded else "openface"
        stamp = digest({"manifest": manifest.fingerprint(), "source": source, "code": code_version(
            "action_units/extraction.py", "action_units/table.py", "action_units/estimator.py", "openface.py")})
        if _stamp(folder) != stamp:
            if self.profile.embedded:
                table = extract(manifest, self.estimator, self.profile.data.render_size, device=self.device,
                                precision=self.precision)
            else:
                table = import_openface(manifest, self.data_root / "openface" / name)
            with atomic_folder(folder) as temporary:
                table.save(temporary / "frames.parquet")
                _write_stamp(temporary, stamp)
        self._tables[name] = AUTable.load(folder / "frames.parquet")
        return self._tables[name]

    def _labelled(self, name: str) -> pd.DataFrame:
        """A dataset's AU table with the dataset and the expression of each frame's clip."""
        return self.au_table(name).labelled(name, self.manifest(name).table.set_index("clip_id")["expression"])

    # ---------------------------------------------------------------------------------------------- knowledge

    def knowledge_frames(self, with_scores: bool = False) -> pd.DataFrame:
        """One row a frame of the four knowledge datasets (section 3.1): dataset, clip_id, expression, 17 intensities.

        Test clips of the evaluation sets are left out, so that nothing of them enters a loss; the paper does not say.

        Args:
            with_scores: adds ``score``, M3DFEL's probability of the frame's label, for the filter of Eq. 3.
        """
        parts = []
        for name in self.profile.grid.knowledge_datasets:
            clips = self.manifest(name).table
            if name in self.profile.grid.datasets:
                clips = clips[clips["split"] == "train"]
            frames = self._labelled(name)
            frames = frames.loc[frames["clip_id"].isin(clips["clip_id"]),
                                ["clip_id", "frame", "expression", *INTENSITY_COLUMNS, "dataset"]]
            if with_scores:
                frames = frames.merge(self.frame_scores(name), on=["clip_id", "frame"], how="left")
            parts.append(frames)
        return pd.concat(parts, ignore_index=True)

    def knowledge(self, variant: str = "", theta: float = 0.0, au28: str = "grand_mean") -> KnowledgeMatrix:
        """The knowledge matrix; ``variant`` "" takes the profile's. With theta > 0 frames are filtered by Eq. 3.

        An expression of which a dataset has no frame borrows the other datasets' row (noted in ``settings["filled"]``).
        """
        return KnowledgeMatrix.from_frames(self.knowledge_frames(with_scores=theta > 0),
                                           variant=variant or self.profile.grid.knowledge, theta=theta, au28=au28,
                                           missing="others")

    def frame_scores(self, name: str) -> pd.DataFrame:
        """Eq. 3's expression score of every frame: clip_id, frame, score.

        M3DFEL scores clips, the equation frames, and the paper does not say how one becomes the other. Chosen here: a
        frame's score is the probability that the trained M3DFEL (the baseline cell on DFEW) gives to the clip's label
        from the window of ``num_frames`` consecutive stored frames whose centre is nearest; windows move by a quarter
        of their length. Frames that the store skipped take their nearest stored neighbour's score.
        """
        cell = self.cell("m3dfel", "DFEW")
        record = self.run([cell])[0]
        packed = self.packed(name)
        folder = self.work / "frame_scores"
        stamp = digest({"record": record.path.name, "packed": self._fingerprint(packed), "code": code_version("study.py")})
        path = folder / f"{name}-{stamp}.parquet"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            scores = self._window_scores(name, cell, record, packed)
            with atomic_file(path) as temporary:
                scores.to_parquet(temporary)
        return pd.read_parquet(path)

    @torch.inference_mode()
    def _window_scores(self, name: str, cell: Cell, record: RunRecord, packed: PackedClips) -> pd.DataFrame:
        model = build_model(cell.model, num_aus=None, size=cell.size, num_frames=cell.num_frames,
                            image_size=cell.image_size)
        model.load_state_dict(load_file(record.path / "weights.safetensors"))
        model.to(self.device).eval()
        stored, width = packed.frames.shape[1], cell.num_frames
        starts = np.unique(np.append(np.arange(0, stored - width + 1, max(1, width // 4)), stored - width))
        centres = starts + (width - 1) / 2
        labels = packed.expressions
        parts = []
        step = max(1, 64 // len(starts))
        for begin in progress(range(0, len(labels), step), desc=f"Eq. 3 scores {name}", unit="batch"):
            rows = np.arange(begin, min(begin + step, len(labels)))
            windows = np.repeat(rows, len(starts))
            chosen = (starts[:, None] + np.arange(width))[None].repeat(len(rows), 0).reshape(-1, width)
            clips = gather_frames(packed, windows, chosen, cell.image_size, self.device)
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=cell.precision == "bf16"):
                probabilities = model(clips).expression_logits.float().softmax(1).cpu().numpy()
            parts.append(probabilities[np.arange(len(windows)), labels[windows]].reshape(len(rows), len(starts)))
        scores = np.concatenate(parts)
        frames = []
        manifest = self.manifest(name)
        for row, stored_numbers, window_scores in zip(manifest.table.itertuples(index=False), packed.frame_numbers, scores):
            numbers = datasets.frame_numbers(manifest, row)
            position = np.abs(numbers[:, None] - stored_numbers).argmin(1)  # nearest stored frame
            nearest = np.abs(position[:, None] - centres).argmin(1)
            frames.append(pd.DataFrame({"clip_id": row.clip_id, "frame": numbers, "score": window_scores[nearest]}))
        return pd.concat(frames, ignore_index=True)

    # -------------------------------------------------------------------------------------------------- cells

    def cell(self, model: str, dataset: str, au_ratio: float = 0.0, strategy: str = "", weights: str = "knowledge",
             seed: int | None = None) -> Cell:
        """A cell with the profile's numbers; ``strategy`` "" takes the profile's where there is an AU head."""
        training = self.profile.training
        # the paper's networks have sizes of their own (MAE-DFER 160 pixels, the others 112); the store keeps the largest
        side = training.image_size if training.size == "tiny" else default_clip_shape(model, training.size)[2]
        return Cell(model=model, dataset=dataset, au_ratio=au_ratio,
                    strategy=(strategy or self.profile.grid.strategy) if au_ratio else "none",
                    weights=weights if au_ratio else "none", seed=training.seeds[0] if seed is None else seed,
                    size=training.size, epochs=training.epochs, num_frames=training.num_frames, image_size=side, precision=self.precision,
                    device=self.device)

    def cells(self, output: str) -> list[Cell]:
        """The cells that a table or figure needs: "table1", "table2", "table3", "fig5", "fig6", "fig7" or "fig8"."""
        grid, seeds = self.profile.grid, self.profile.training.seeds
        ratio, place = grid.au_ratio, grid.strategy_dataset
        if output == "table1":
            wanted = [(m, d, r, "") for m in grid.models for d in grid.datasets for r in (0.0, ratio)]
        elif output in ("table2", "fig6"):
            wanted = [(m, place, r, "") for m in grid.models for r in (0.0, ratio)]
        elif output == "table3":
            wanted = [(m, place, r, s) for m in grid.models
                      for r, s in ((0.0, ""), *((ratio, s) for s in grid.strategies))]
        elif output == "fig5":
            wanted = [(grid.ratio_model, d, r, "") for d in grid.datasets for r in grid.au_ratios]
        elif output == "fig7":
            wanted = [(grid.ratio_model, place, r, "") for r in (0.0, ratio)]
        elif output == "fig8":
            cells = [self.cell(grid.ratio_model, place), self.cell(grid.ratio_model, place, ratio, weights="none"),
                     self.cell(grid.ratio_model, place, ratio)]
            return cells
        else:
            raise InputError("cells", "output", repr(output), "one of table1, table2, table3, fig5, fig6, fig7, fig8")
        return [self.cell(m, d, r, s, seed=seed) for m, d, r, s in wanted for seed in seeds]

    @cached_property
    def inputs(self) -> dict[str, CellInputs]:
        """What the cells of each evaluation dataset are trained from."""
        matrix = self.knowledge()
        folder = self.work / "inputs"
        folder.mkdir(parents=True, exist_ok=True)
        matrix.save(folder / "knowledge.json")
        return {name: self._inputs(name, matrix, folder) for name in self.profile.grid.datasets}

    def _inputs(self, name: str, matrix: KnowledgeMatrix, folder: Path) -> CellInputs:
        packed = self.packed(name)
        clip_ids = packed.clip_ids
        labels = clip_presence(self.au_table(name), clip_ids)
        np.savez(folder / f"{name}.npz", clip_ids=np.array(clip_ids), labels=labels)
        return CellInputs(packed=str(self.work / "packed" / name), au_labels=str(folder / f"{name}.npz"),
                          knowledge=str(folder / "knowledge.json"), fingerprint=self._fingerprint(packed),
                          au_fingerprint=digest({"labels": labels.tolist(), "knowledge": matrix.values.tolist()}))

    def run(self, cells: list[Cell], desc: str = "training") -> list[RunRecord]:
        """Records of the cells, training what is missing.

        Raises:
            AudferError: a cell failed, or another process uses the run store.
        """
        # a cell without an AU head needs no AU table, so the knowledge filter of Eq. 3 can ask for the baseline first
        if any(cell.uses_aus for cell in cells):
            inputs = self.inputs
        else:
            inputs = {name: CellInputs(packed=str(self.work / "packed" / name), au_labels="", knowledge="",
                                       fingerprint=self._fingerprint(self.packed(name)), au_fingerprint="")
                      for name in {cell.dataset for cell in cells}}
        return load_records(run_cells(cells, inputs, self.store, workers=self.profile.training.workers, desc=desc))

    def records(self, *outputs: str) -> list[RunRecord]:
        """Records of all cells that the named tables and figures need, without repetition."""
        cells = list(dict.fromkeys(cell for output in outputs for cell in self.cells(output)))
        return self.run(cells, desc=" ".join(outputs))

    # ------------------------------------------------------------------------- numbers behind notebook tables

    def __repr__(self) -> str:
        return (f"profile {self.profile.name}: {self.profile.summary}\n"
                f"device {self.device}, {self.precision}; work in {self.work}; figures in {self.figures}")

    def class_counts(self, split: str = "train") -> dict[str, list[int]]:
        """Dataset -> clips of each expression in one split."""
        return {name: np.bincount(t.loc[t["split"] == split, "expression"], minlength=7).tolist()
                for name in self.dataset_names for t in [self.manifest(name).table]}

    def presence_rates(self) -> pd.DataFrame:
        """Percent of frames with the AU present: source (dataset), expression, action_unit, value."""
        parts = []
        for name in self.profile.grid.knowledge_datasets:
            rates = self._labelled(name).groupby("expression")[list(PRESENCE_COLUMNS)].mean().reindex(range(7))
            parts.append(matrix(100 * rates.to_numpy(), name))
        return pd.concat(parts, ignore_index=True)

    def interpolation_example(self) -> pd.DataFrame:
        """The clip whose intensities change most by the interpolation of zeros: action_unit, frame, before, after."""
        name = self.profile.grid.knowledge_datasets[0]
        best, result = -1.0, None
        for clip_id, frames in self.au_table(name).frames.groupby("clip_id"):
            before = frames[list(INTENSITY_COLUMNS)].to_numpy(np.float32)
            after = interpolate_zeros(before)
            changed = np.abs(np.nan_to_num(after - before)).mean(0)
            if changed.sum() > best:
                best = changed.sum()
                chosen = np.sort(np.argsort(changed)[-4:])
                result = pd.concat([pd.DataFrame({
                    "clip_id": clip_id, "action_unit": INTENSITY_ACTION_UNITS[j], "frame": frames["frame"].to_numpy(),
                    "before": before[:, j], "after": after[:, j]}) for j in chosen], ignore_index=True)
        return result

    def knowledge_variants(self) -> pd.DataFrame:
        """Readings of section 3.1 side by side; rank correlations over the 17 measured AUs."""
        frames, reference = self.knowledge_frames(), self.knowledge()
        planted = self.planted_medians() if self.profile.embedded else None
        rows = []
        for variant in ("paper", "release"):
            for au28 in ("grand_mean", "row_mean"):
                for interpolate in (True, False):
                    made = KnowledgeMatrix.from_frames(frames, variant=variant, au28=au28, interpolate=interpolate,
                                                      missing="others")
                    au28_cells = made.values[:, ACTION_UNITS.index("AU28")]
                    rows.append({"variant": variant, "AU28": au28, "zeros": "interpolated" if interpolate else "kept",
                                 "rank correlation with the profile's": rank_correlations(made.values, reference.values)["overall"],
                                 "with Fig. 4": rank_correlations(made.values, published.knowledge("figure"))["overall"],
                                 **({} if planted is None else {"with the planted": rank_correlations(made.values, planted)["overall"]}),
                                 "smallest K": made.values.min(), "largest K": made.values.max(),
                                 "AU28 lowest": au28_cells.min(), "AU28 highest": au28_cells.max()})
        return pd.DataFrame(rows)

    def theta_grid(self) -> pd.DataFrame:
        """The filter of Eq. 3 over the profile's thresholds: frames kept and what becomes of the matrix."""
        frames, reference = self.knowledge_frames(with_scores=True), self.knowledge()
        planted = self.planted_medians() if self.profile.embedded else None
        rows = []
        for theta in self.profile.grid.thetas:
            kept = frames["score"] >= theta
            row = {"theta": theta, "frames": len(frames), "kept (%)": 100 * kept.mean()}
            fewest = frames[kept].groupby(["dataset", "expression"]).size().reindex(
                pd.MultiIndex.from_product([frames["dataset"].unique(), range(7)]), fill_value=0)
            row["expressions that borrow from other datasets"] = int((fewest == 0).sum())
            if (fewest.groupby(level=1).sum() > 0).all():
                made = KnowledgeMatrix.from_frames(frames, variant=self.profile.grid.knowledge, theta=theta, missing="others")
                row["rank correlation with theta 0"] = rank_correlations(made.values, reference.values)["overall"]
                if planted is not None:
                    row["with the planted"] = rank_correlations(made.values, planted)["overall"]
            rows.append(row)
        return pd.DataFrame(rows)

    def positive_class_weights(self) -> pd.DataFrame:
        """Weights of Eqs. 6 to 8 on the training clips of the strategy dataset: source (strategy), expression, action_unit, value."""
        name = self.profile.grid.strategy_dataset
        clips = self.manifest(name).table
        clips = clips[clips["split"] == "train"]
        labels, expressions = clip_presence(self.au_table(name), clips["clip_id"].tolist()), clips["expression"].to_numpy()
        parts = []
        for strategy in self.profile.grid.strategies:
            weight = positive_class_weight(labels, expressions, strategy=strategy)
            parts.append(matrix(weight.expand(7, -1).numpy(), strategy))
        return pd.concat(parts, ignore_index=True)

    def grid_summary(self, *outputs: str) -> pd.DataFrame:
        """How many cells each table or figure needs, and how many of them are in the store already."""
        rows, seen = [], set()
        for output in outputs:
            cells = self.cells(output)
            keys = [self.store.key(cell, self.inputs[cell.dataset]) for cell in cells]
            rows.append({"output": output, "cells": len(cells), "new to this table": len(set(keys) - seen),
                         "in the store": sum(map(self.store.has, keys))})
            seen |= set(keys)
        return pd.DataFrame(rows)

    def paper_flops(self) -> dict[str, dict[str, float]]:
        """Cost of one clip in the paper-size form of every network, measured."""
        return {name: count_flops(build_model(name, size="paper"), default_clip_shape(name, "paper"))
                for name in self.profile.grid.models}

    # ------------------------------------------------------------------------------------------------ recovery

    def planted_medians(self) -> np.ndarray:
        """(7, 17) medians of the planted intensities over the same frames as the knowledge matrix, summed over the sets.

        The only step that reads the planted truth; nothing of it goes back into the chain.

        Raises:
            AudferError: the profile has real data, of which no truth is known.
        """
        if not self.profile.embedded:
            raise AudferError(f"profile {self.profile.name}: the planted truth is known for the embedded benchmark only")
        medians = []
        for name in self.profile.grid.knowledge_datasets:
            truth = synth.read_truth(self.data_root, name)
            seen = truth["split"] == "train" if name in self.profile.grid.datasets else True
            truth = truth[(truth["expression"] >= 0) & seen]
            medians.append(truth.groupby("expression")[list(INTENSITY_COLUMNS)].median().reindex(range(7)).to_numpy())
        # a dataset without an expression does not count for it, as in the matrix
        return np.nanmean(medians, axis=0) * len(medians)


def _stamp(folder: Path) -> str | None:
    try:
        return json.loads((folder / "stamp.json").read_text())["stamp"]
    except (OSError, ValueError, KeyError):
        return None


def _write_stamp(folder: Path, stamp: str) -> None:
    write_json(folder / "stamp.json", {"stamp": stamp})
