"""One study: a profile's whole chain from clips to run records, each step made once and found again.

Notebooks and the command line call this room and nothing deeper. Steps are lazy: asking for the knowledge matrix
makes the clips, the estimator and the AU tables if they are not there. Every step lies in the work folder under a
stamp of what it was made from, and is made again only if that changed.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from .. import datasets, published, synth
from ..action_units.baseline import au_baseline, baseline_accuracy, clip_features
from ..action_units.comparison import AUClips
from ..action_units.estimator import ActionUnitEstimator, evaluate_estimator, train_estimator
from ..action_units.extraction import extract
from ..action_units.importing import import_openface
from ..action_units.table import AUTable, clip_presence, interpolate_zeros, table_from_openface_folder
from ..datasets import Manifest, PackedClips
from ..datasets.disfa import subject_manifest
from ..datasets.landmarks import (
    DLIB_MODEL,
    PointsOfClip,
    dlib_points,
    embedded_points,
    openface_points,
    packed_landmarks,
)
from ..datasets.packing import tracks_of
from ..errors import AudferError, InputError
from ..facs import ACTION_UNITS, EXPRESSIONS, INTENSITY_ACTION_UNITS
from ..files import atomic_file, atomic_folder, digest, file_digest, write_json
from ..jobs.executors import SCHEDULER
from ..knowledge import KnowledgeMatrix, control_matrix
from ..losses import PLAIN, AULoss, positive_class_weight
from ..models import NETWORKS, build_model, count_element_operations, count_flops, default_clip_shape
from ..models.heads import weightless
from ..openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from ..progress import progress
from ..results.figure_data import matrix, rank_correlations
from ..sampling import stored_indices
from ..training.loop import (
    AU_SOURCES,
    Cell,
    CellInputs,
    choose_frames,
    gather_frames,
    resolve_device,
    resolve_precision,
)
from ..training.pretraining import Pretraining, load_pretrained, pretrain, reconstruct
from ..training.recipes import RECIPES, recipe_name
from ..training.records import WEIGHTS_FILE, RunRecord, RunStore, cells_at_once, load_records, run_cells
from ..versions import versions
from .ablations import ABLATIONS, NO_HEAD
from .profiles import Profile, load_profile

ROOT = Path(__file__).resolve().parents[2]
#: ablations of the key-point network's own paper -> the names of ``models.VARIANTS`` that each shows, as a regular
#: expression
KEYPOINT_ABLATIONS = {
    "keypoint_modules": "[A-D]",
    "keypoint_fusion": ".* fusion",
    "keypoint_heads": "heads .*",
    "keypoint_depth": "depth .*",
    "keypoint_auxiliary": "auxiliary .*",
}
#: tables and figures that are made from cells
OUTPUTS = (
    "table1",
    "table2",
    "table3",
    "fig5",
    "fig6",
    "fig7",
    "fig8",
    "ablations",
    "calibration",
    "au_head",
    "pretraining",
    "keypoint_classes",
    *KEYPOINT_ABLATIONS,
)


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
    return Study(
        settings,
        Path(work or os.environ.get("AUDFER_WORK") or ROOT / "work"),
        Path(figures or os.environ.get("AUDFER_FIGURES") or ROOT / "figures"),
    )


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
        self._manifests: dict[tuple[str, int], Manifest] = {}
        #: folder of OpenFace's CSVs, or dlib's model file, to take landmarks from; "" = see ``landmarks``
        self.landmark_source = ""
        self._inputs_made: dict[tuple[str, bool], CellInputs] = {}
        self._landmarks_made: dict[tuple[str, int, str], dict[str, str]] = {}
        self._tables: dict[tuple[str, str], AUTable] = {}

    @property
    def caption(self) -> str:
        """What every table and figure must say about its input."""
        if self.profile.embedded:
            return (
                f"Embedded benchmark (rendered faces, profile {self.profile.name}); "
                "not comparable with numbers on the real datasets."
            )
        return f"Real datasets, profile {self.profile.name}."

    # ---------------------------------------------------------------------------------------------------- clips

    @cached_property
    def data_root(self) -> Path:
        """Folder with one folder a dataset; renders the embedded benchmark first if it is not there."""
        if self.profile.embedded:
            root = self.work / "data"
            synth.write_benchmark(root, self.synth_config, ("DISFA", *self.dataset_names), device=self.device)
            return root
        root = os.environ.get("AUDFER_DATA", "")
        if not root or not Path(root).is_dir():
            raise InputError(
                "AUDFER_DATA",
                "folder of the real datasets",
                repr(root),
                "an existing folder that holds DFEW, FERV39k, ... (README, section Real data)",
            )
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
            seed=data.seed,
            image_size=data.render_size,
            frames=data.clip_frames,
            counts={
                name: {"train": data.train_clips[name], "test": data.test_clips[name]} for name in data.train_clips
            },
            ravdess_actors=data.ravdess_actors,
            affwild2_videos=data.affwild2_videos,
            affwild2_frames=data.affwild2_frames,
            disfa_subjects=data.disfa_subjects,
            disfa_frames=data.disfa_frames,
        )

    def folds(self, name: str) -> tuple[int, ...]:
        """The profile's folds of a dataset; (1,) where the dataset has one split."""
        return self.profile.grid.folds if name in datasets.FOLDS else (1,)

    def manifest(self, name: str, fold: int = 0) -> Manifest:
        """All clips of a dataset that carry one of the seven expressions, as its reader finds them on disk.

        Args:
            fold: 0 = the profile's first.
        """
        key = name, fold or self.folds(name)[0]
        if key not in self._manifests:
            found = datasets.read_dataset(name, self.data_root / name, key[1])
            self._manifests[key] = replace(found, table=found.table[found.table["expression"] >= 0])
        return self._manifests[key]

    def packed(self, name: str, fold: int = 0) -> PackedClips:
        """A dataset's clips as one memory-mapped array, made on first use.

        The folds of a dataset hold the same clips, so only the first fold's are read; the others share its frames.

        Args:
            fold: 0 = the profile's first.
        """
        training, first = self.profile.training, self.folds(name)[0]
        if fold in (0, first):
            return datasets.pack(
                self.manifest(name), self.work / "packed" / name, training.stored_frames, training.image_size
            )
        base, manifest, folder = self.packed(name), self.manifest(name, fold), self._packed_folder(name, fold)
        rows = manifest.table.set_index("clip_id")
        if set(rows.index) != set(base.clip_ids) | set(base.quarantine["clip_id"]):
            return datasets.pack(manifest, folder, training.stored_frames, training.image_size)
        meta = {
            **base.meta,
            "fold": fold,
            "notes": list(manifest.notes),
            "fingerprint": digest([base.meta["fingerprint"], manifest.fingerprint()]),
        }
        if _meta(folder) != meta:
            with atomic_folder(folder) as temporary:
                for file in ("frames.npy", "frame_numbers.npy"):
                    (temporary / file).symlink_to(Path("..") / name / file)
                rows.loc[base.clip_ids].reset_index()[list(base.manifest)].to_parquet(temporary / "manifest.parquet")
                write_json(temporary / "meta.json", meta)
        return datasets.open_packed(folder)

    def _packed_folder(self, name: str, fold: int = 0) -> Path:
        return self.work / "packed" / (name if fold in (0, self.folds(name)[0]) else f"{name}-fold{fold}")

    # ------------------------------------------------------------------------------------------- action units

    @cached_property
    def annotated_table(self) -> pd.DataFrame:
        """Every annotated frame of DISFA or, where that is not there, of BP4D (``datasets.read_annotated``).

        Raises:
            InputError: the data folder has neither.
        """
        name = next((name for name in datasets.annotated.READERS if (self.data_root / name).is_dir()), "")
        if not name:
            raise InputError(
                self.data_root, "annotated frames", "neither DISFA nor BP4D", "one of them, to learn action units from"
            )
        return datasets.read_annotated(name, self.data_root / name)

    @cached_property
    def _estimator(self) -> tuple[ActionUnitEstimator, pd.DataFrame, pd.DataFrame, str]:
        settings = self.profile.estimator
        if not self.has_annotated_set:
            raise InputError(
                self.data_root, "annotated frames", "no folder DISFA", "DISFA, to train the AU estimator on"
            )
        root, annotated = self.data_root / "DISFA", self.annotated_table
        stamp = digest(
            {
                "settings": asdict(settings),
                "data": subject_manifest(annotated, root).fingerprint(),
                "codes": digest(annotated.to_csv()),
                "precision": self.precision,
                "device": self.device,
                "size": self.profile.data.render_size,
                "code": versions("estimator"),
            }
        )
        folder = self.work / "estimator"
        if _stamp(folder) != stamp:
            if self.profile.embedded:
                from ..lock_and_check.study import annotated as packed  # what Lock and Check learns from, too

                images = np.array(packed(self).frames)
            else:
                images = datasets.load_annotated_frames(root, annotated, self.profile.data.render_size)
            codes, subjects = annotated[list(ACTION_UNITS)].to_numpy(), annotated["subject"].to_numpy()
            held_out = annotated["fold"].to_numpy() == settings.held_out_fold
            estimator, history = train_estimator(
                images,
                codes,
                subjects,
                train_index=np.flatnonzero(~held_out),
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                lr=settings.learning_rate,
                seed=self.profile.data.seed,
                device=self.device,
                precision=self.precision,
            )
            accuracy = evaluate_estimator(
                estimator,
                images[held_out],
                codes[held_out],
                subjects[held_out],
                device=self.device,
                precision=self.precision,
            )
            with atomic_folder(folder) as temporary:
                estimator.save(temporary)
                accuracy.to_csv(temporary / "accuracy.csv", index=False)
                history.to_csv(temporary / "history.csv", index=False)
                _write_stamp(temporary, stamp)
        return (
            ActionUnitEstimator.load(folder),
            pd.read_csv(folder / "accuracy.csv"),
            pd.read_csv(folder / "history.csv"),
            stamp,
        )

    @property
    def has_annotated_set(self) -> bool:
        """Whether there are annotated frames (DISFA) to train the AU estimator on; the embedded benchmark always has
        them.
        """
        return self.profile.embedded or (self.data_root / "DISFA").is_dir()

    @property
    def estimator(self) -> ActionUnitEstimator:
        """The trained AU estimator."""
        return self._estimator[0]

    @property
    def estimator_accuracy(self) -> pd.DataFrame:
        """F1 and intensity correlation of every AU on the held-out subjects."""
        return self._estimator[1]

    def au_table(self, name: str, source: str = "") -> AUTable:
        """AUs of every frame of a dataset.

        Args:
            source: of ``training.AU_SOURCES``. "": the estimator's on rendered clips, OpenFace's
                (``AUDFER_DATA/openface/<name>``) on real ones; "lac": Lock and Check's; "planted": the truth of
                rendered clips.

        Raises:
            InputError: unknown source.
            AudferError: "planted" in a profile with real data.
        """
        if source not in AU_SOURCES:
            raise InputError("au_table", "source", repr(source), f"one of {', '.join(map(repr, AU_SOURCES))}")
        if (name, source) not in self._tables:
            if source == "lac":
                from ..lock_and_check.study import lac_table  # that room works with studies

                self._tables[name, source] = lac_table(self, name)
            else:
                self._tables[name, source] = self.planted_table(name) if source else self._extracted_table(name)
        return self._tables[name, source]

    def _extracted_table(self, name: str) -> AUTable:
        manifest = self.manifest(name)
        folder = self.work / "action_units" / name
        source = self._estimator[3] if self.profile.embedded else "openface"
        stamp = digest(
            {
                "manifest": manifest.fingerprint(),
                "source": source,
                "code": versions("extraction", "import", "estimator"),
            }
        )
        if _stamp(folder) != stamp:
            if self.profile.embedded:
                table = extract(
                    manifest,
                    self.estimator,
                    self.profile.data.render_size,
                    device=self.device,
                    precision=self.precision,
                )
            else:
                table = import_openface(manifest, self.data_root / "openface" / name)
            with atomic_folder(folder) as temporary:
                table.save(temporary / "frames.parquet")
                _write_stamp(temporary, stamp)
        return AUTable.load(folder / "frames.parquet")

    def _labelled(self, name: str, source: str = "") -> pd.DataFrame:
        """A dataset's AU table with the dataset and the expression of each frame's clip."""
        return self.au_table(name, source).labelled(name, self.manifest(name).table.set_index("clip_id")["expression"])

    # ---------------------------------------------------------------------------------------------- knowledge

    def knowledge_frames(
        self, with_scores: bool = False, fold: int = 0, names: tuple[str, ...] = (), source: str = ""
    ) -> pd.DataFrame:
        """One row a frame of the four knowledge datasets (section 3.1): dataset, clip_id, expression, 17 intensities.

        Test clips of the evaluation sets are left out, so that nothing of them enters a loss; the paper does not say.

        Args:
            with_scores: adds ``score``, M3DFEL's probability of the frame's label, for the filter of Eq. 3.
            fold: whose test clips are left out, in datasets that have folds; 0 = the profile's first.
            names: other datasets than the profile's four.
            source: of the action units, as in ``au_table``.
        """
        parts = []
        for name in names or self.profile.grid.knowledge_datasets:
            clips = self.manifest(name, fold if fold in self.folds(name) else 0).table
            if name in self.profile.grid.datasets:
                clips = clips[clips["split"] == "train"]
            frames = self._labelled(name, source)
            frames = frames.loc[
                frames["clip_id"].isin(clips["clip_id"]),
                ["clip_id", "frame", "expression", *INTENSITY_COLUMNS, "dataset"],
            ]
            if with_scores:
                frames = frames.merge(self.frame_scores(name), on=["clip_id", "frame"], how="left")
            parts.append(frames)
        return pd.concat(parts, ignore_index=True)

    def knowledge(
        self,
        variant: str = "",
        theta: float = 0.0,
        au28: str = "grand_mean",
        fold: int = 0,
        names: tuple[str, ...] = (),
        source: str = "",
    ) -> KnowledgeMatrix:
        """The knowledge matrix; ``variant`` "" takes the profile's. With theta > 0 frames are filtered by Eq. 3.

        An expression of which a dataset has no frame borrows the other datasets' row (noted in ``settings["filled"]``).
        ``fold``, ``names`` and ``source`` as in ``knowledge_frames``.
        """
        return KnowledgeMatrix.from_frames(
            self.knowledge_frames(theta > 0, fold, names, source),
            variant=variant or self.profile.grid.knowledge,
            theta=theta,
            au28=au28,
            missing="others",
        )

    def frame_scores(self, name: str) -> pd.DataFrame:
        """Eq. 3's expression score of every frame: clip_id, frame, score.

        M3DFEL scores clips, the equation frames, and the paper does not say how one becomes the other. Chosen here: a
        frame's score is the probability that the trained M3DFEL (the baseline cell on the strategy dataset, DFEW) gives
        to the clip's label from the window of ``num_frames`` consecutive stored frames whose centre is nearest; windows
        move by half of their length. Frames that the store skipped take their nearest stored neighbour's score.
        """
        # where cells are trained side by side, cores that would idle meanwhile train the others' baselines: Table 1
        # needs them too
        cell, *others = (
            self.cell(model, self.profile.grid.strategy_dataset)
            for model in dict.fromkeys(("m3dfel", *self.profile.grid.models))
        )
        record = self.run([cell, *others[: cells_at_once(self.device, self.profile.training.workers) - 1]])[0]
        packed = self.packed(name)
        folder = self.work / "frame_scores"
        stamp = digest({"record": record.path.name, "packed": packed.content, "code": versions("frame scores")})
        path = folder / f"{name}-{stamp}.parquet"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            scores = self._window_scores(name, cell, record, packed)
            with atomic_file(path) as temporary:
                scores.to_parquet(temporary)
        return pd.read_parquet(path)

    @torch.inference_mode()
    def _window_scores(self, name: str, cell: Cell, record: RunRecord, packed: PackedClips) -> pd.DataFrame:
        model = build_model(
            cell.model, num_aus=None, size=cell.size, num_frames=cell.num_frames, image_size=cell.image_size
        )
        model.load_state_dict(load_file(record.path / WEIGHTS_FILE))
        model.to(self.device).eval()
        stored, width = packed.frames.shape[1], cell.num_frames
        starts = np.unique(np.append(np.arange(0, stored - width + 1, max(1, width // 2)), stored - width))
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
        for row, stored_numbers, window_scores in zip(
            packed.manifest.itertuples(index=False), packed.frame_numbers, scores, strict=True
        ):
            numbers = datasets.frame_numbers(manifest, row)
            position = np.abs(numbers[:, None] - stored_numbers).argmin(1)  # nearest stored frame
            nearest = np.abs(position[:, None] - centres).argmin(1)
            frames.append(pd.DataFrame({"clip_id": row.clip_id, "frame": numbers, "score": window_scores[nearest]}))
        return pd.concat(frames, ignore_index=True)

    # ------------------------------------------------------------------------------------------- pre-training

    @property
    def pretraining(self) -> Pretraining:
        """The profile's self-supervised pre-training of MAE-DFER."""
        chosen, training = self.profile.pretraining, self.profile.training
        return Pretraining(
            size=training.size,
            epochs=chosen.epochs,
            num_frames=training.num_frames,
            image_size=self.cell("mae_dfer", self.profile.grid.strategy_dataset).image_size,
            mask_ratio=chosen.mask_ratio,
            motion_weight=chosen.motion_weight,
            seed=training.seeds[0],
            precision=self.precision,
            device=self.device,
        )

    @cached_property
    def pretrained_weights(self) -> Path:
        """MAE-DFER pre-trained on the training clips of all evaluation datasets, without labels; made on first use."""
        out = self.work / "pretraining" / "mae_dfer.safetensors"
        pretrain(self.pretraining, self.pretraining_stores(), out)
        return out

    def pretraining_stores(self) -> list[Path]:
        """Folders of the packed clips that the profile pre-trains on."""
        for name in self.profile.grid.datasets:
            self.packed(name)
        return [self.work / "packed" / name for name in self.profile.grid.datasets]

    def reconstructions(self, clips: int = 3) -> dict:
        """What the pre-trained network makes of masked test clips of the strategy dataset, each of another expression.

        Returns:
            What ``pretraining.reconstruct`` gives, with ``clip_ids`` and ``expressions``; for ``plots.reconstruction``
            and ``figure_data.reconstruction_data``.
        """
        packed = self.packed(self.profile.grid.strategy_dataset)
        test = packed.split("test")
        seen = packed.expressions[test]
        rows = np.array([test[seen == label][0] for label in dict.fromkeys(seen)][:clips])
        settings = self.pretraining
        batch = gather_frames(
            packed,
            rows,
            np.stack([stored_indices("uniform", packed.frame_numbers[row], settings.num_frames)[0] for row in rows]),
            settings.image_size,
            self.device,
        )
        pictures = reconstruct(load_pretrained(self.pretrained_weights).to(self.device), batch, settings.mask_ratio)
        return {
            **pictures,
            "clip_ids": [packed.clip_ids[row] for row in rows],
            "expressions": [EXPRESSIONS[packed.expressions[row]] for row in rows],
        }

    # -------------------------------------------------------------------------------------------------- cells

    def cell(
        self,
        model: str,
        dataset: str,
        au_ratio: float = 0.0,
        strategy: str = "",
        weights: str = "knowledge",
        seed: int | None = None,
        recipe: str = "",
        initialisation: str = "scratch",
        fold: int = 0,
        reading: str = "paper",
        variant: str = "",
        au_source: str = "",
    ) -> Cell:
        """A cell with the profile's numbers; ``strategy`` "" takes the profile's where there is an AU head.

        ``recipe`` "" takes the profile's for the network, if it names one, else the default of the network's size.
        ``initialisation`` "mae" starts from ``pretrained_weights``. ``fold`` 0 is the profile's first. ``variant`` is
        of ``models.VARIANTS``. ``weights``, ``reading`` and ``au_source`` count only where there is an AU head.
        """
        training = self.profile.training
        recipe = recipe or training.recipes.get(model, "")
        # the paper's networks have sizes of their own (MAE-DFER 160 pixels, the others 112); the store keeps the
        # largest
        side = training.image_size if training.size == "tiny" else default_clip_shape(model, training.size)[2]
        return Cell(
            model=model,
            dataset=dataset,
            au_ratio=au_ratio,
            strategy=(strategy or self.profile.grid.strategy) if au_ratio else "none",
            weights=weights if au_ratio else "none",
            seed=training.seeds[0] if seed is None else seed,
            size=training.size,
            epochs=training.epochs or RECIPES[recipe_name(model, training.size, recipe)].epochs,
            num_frames=training.num_frames,
            image_size=side,
            precision=self.precision,
            device=self.device,
            recipe=recipe,
            initialisation=initialisation,
            fold=fold or self.folds(dataset)[0],
            reading=reading if au_ratio else "paper",
            accumulate=training.accumulate,
            validation=training.validation,
            evaluate_every=training.evaluate_every,
            variant=variant,
            au_source=au_source if au_ratio else "",
        )

    @property
    def strategy_datasets(self) -> tuple[str, ...]:
        """The datasets of Table 3: the paper's one, and those that the profile adds."""
        grid = self.profile.grid
        return tuple(dict.fromkeys((grid.strategy_dataset, *grid.strategy_datasets)))

    def cells(self, output: str) -> list[Cell]:
        """The cells that one of ``OUTPUTS`` needs. Tables and Fig. 6 take every fold of the profile, the others its
        first.
        """
        grid, seeds = self.profile.grid, self.profile.training.seeds
        ratio, place = grid.au_ratio, grid.strategy_dataset
        if output == "table1":
            wanted = [(m, d, r, "") for m in grid.models for d in grid.datasets for r in (0.0, ratio)]
        elif output in ("table2", "fig6"):
            wanted = [(m, place, r, "") for m in grid.models for r in (0.0, ratio)]
        elif output == "table3":
            wanted = [
                (m, d, r, s)
                for d in self.strategy_datasets
                for m in grid.models
                for r, s in ((0.0, ""), *((ratio, s) for s in grid.strategies))
            ]
        elif output == "fig5":
            wanted = [(grid.ratio_model, d, r, "") for d in grid.datasets for r in grid.au_ratios]
        elif output == "fig7":
            wanted = [(grid.ratio_model, place, r, "") for r in (0.0, ratio)]
        elif output == "fig8":
            return [
                self.cell(grid.ratio_model, place),
                self.cell(grid.ratio_model, place, ratio, weights="none"),
                self.cell(grid.ratio_model, place, ratio),
            ]
        elif output == "ablations":
            return [
                self.cell(
                    grid.ratio_model, place, 0.0 if name == NO_HEAD else ratio, seed=seed, **ABLATIONS[name].fields
                )
                for name in (NO_HEAD, *grid.ablations)
                for seed in seeds
            ]
        elif output in ("calibration", "au_head"):
            return list(dict.fromkeys(cell for cell in self.cells("fig7") if output == "calibration" or cell.uses_aus))
        elif output == "pretraining":
            return [
                self.cell("mae_dfer", place, r, seed=seed, initialisation=start)
                for r in (0.0, ratio)
                for start in ("scratch", "mae")
                for seed in seeds
            ]
        elif output == "keypoint_classes":
            wanted = [("keypoint_gcn", d, r, "") for d in grid.datasets for r in (0.0, ratio)]
        elif output in KEYPOINT_ABLATIONS:
            names = [
                name
                for name in self.profile.keypoint.variants or NETWORKS["keypoint_gcn"].variants
                if re.fullmatch(KEYPOINT_ABLATIONS[output], name)
            ]
            return [
                self.cell("keypoint_gcn", place, variant=name, seed=seed) for name in ("", *names) for seed in seeds
            ]
        else:
            raise InputError("cells", "output", repr(output), f"one of {', '.join(OUTPUTS)}")
        folds = (
            self.folds
            if output in ("table1", "table2", "table3", "fig6", "keypoint_classes")
            else lambda name: self.folds(name)[:1]
        )
        return [
            self.cell(m, d, r, s, seed=seed, fold=fold) for m, d, r, s in wanted for fold in folds(d) for seed in seeds
        ]

    @cached_property
    def inputs(self) -> dict[str, CellInputs]:
        """What the cells of each evaluation dataset are trained from."""
        return {
            name: self._inputs(self.cell(self.profile.grid.models[0], name, self.profile.grid.au_ratio or 0.5))
            for name in self.profile.grid.datasets
        }

    def _inputs(self, cell: Cell) -> CellInputs:
        """What a cell is trained from; without an AU head that is clips alone, and no AU table is asked for."""
        key = cell.source, cell.uses_aus
        if key in self._inputs_made:
            return self._inputs_made[key]
        packed = self.packed(cell.dataset, cell.fold)
        inputs = CellInputs(
            packed=str(self._packed_folder(cell.dataset, cell.fold)),
            au_labels="",
            knowledge="",
            fingerprint=packed.content,
            au_fingerprint="",
        )
        if cell.uses_aus:
            folder = self.work / "inputs"
            folder.mkdir(parents=True, exist_ok=True)
            stem = cell.source.replace(", ", "_").replace(" ", "-")
            arrays = {"clip_ids": np.array(packed.clip_ids), **self._au_arrays(cell, packed)}
            with atomic_file(folder / f"{stem}.npz") as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
            matrix = self.weight_matrix(
                "knowledge" if cell.weights == "none" else cell.weights,
                cell.dataset,
                cell.fold,
                cell.seed,
                cell.au_source,
            )
            matrix.save(folder / f"{stem}.json")
            inputs = replace(
                inputs,
                au_labels=str(folder / f"{stem}.npz"),
                knowledge=str(folder / f"{stem}.json"),
                au_fingerprint=digest({name: array.tolist() for name, array in arrays.items()}),
                knowledge_fingerprint=digest(matrix.values.tolist()),
            )
        self._inputs_made[key] = inputs
        return inputs

    def _au_arrays(self, cell: Cell, packed: PackedClips) -> dict[str, np.ndarray]:
        """Clip AU labels as the cell reads Eq. 4, and the positive class weights where they are not counted on these
        labels.
        """
        table, clip_ids = self.au_table(cell.dataset, cell.au_source), packed.clip_ids
        if cell.reading == "release-votes":
            # the frames that evaluation shows; the release votes on each draw of its loader anew
            rows = np.arange(len(packed))
            (chosen,) = choose_frames(packed, rows, "uniform", cell)
            seen = pd.DataFrame(
                {
                    "clip_id": np.repeat(clip_ids, chosen.shape[1]),
                    "frame": np.take_along_axis(packed.frame_numbers, chosen, axis=1).ravel(),
                }
            )
            seen = seen.drop_duplicates().merge(table.frames, on=["clip_id", "frame"], how="inner")
            return {"labels": clip_presence(AUTable(seen[list(table.frames)]), clip_ids)}
        labels = clip_presence(table, clip_ids)
        if cell.reading != "release-counts" or cell.strategy == PLAIN:
            return {"labels": labels}
        frames = table.frames[table.frames["clip_id"].isin(clip_ids)]
        expressions = frames["clip_id"].map(dict(zip(clip_ids, packed.expressions, strict=True))).to_numpy(np.int64)
        weight = positive_class_weight(
            frames[list(PRESENCE_COLUMNS)],
            expressions,
            strategy=cell.strategy,
            class_counts=np.bincount(packed.expressions[packed.split("train")], minlength=7),
        )
        return {"labels": labels, "pos_weight": weight.numpy()}

    def weight_matrix(
        self, weights: str, dataset: str, fold: int = 0, seed: int = 0, source: str = ""
    ) -> KnowledgeMatrix:
        """The matrix that a name of ``knowledge.WEIGHTS`` other than "none" stands for, on a fold of a dataset, from
        AUs of ``source`` (as in ``au_table``)."""
        if weights == "train-only":
            return self.knowledge(fold=fold, names=(dataset,), source=source)
        # another fold's test clips matter only if the knowledge comes from that dataset too
        fold = fold if dataset in self.profile.grid.knowledge_datasets else 0
        return control_matrix(weights, self.knowledge(fold=fold, source=source), seed)

    def run(self, cells: list[Cell], desc: str = "training", initial_weights: str | Path = "") -> list[RunRecord]:
        """Records of the cells, training what is missing.

        Args:
            initial_weights: checkpoint for cells that do not start from scratch; "" = the profile's
                ``pretrained_weights``.

        Raises:
            AudferError: a cell failed.
        """
        return load_records(self.train(cells, desc, initial_weights))

    def train(
        self, cells: list[Cell], desc: str = "training", initial_weights: str | Path = "", executor=None
    ) -> pd.DataFrame:
        """What ``run_cells`` gives for the cells: a row each, with its error where it failed.

        Args:
            initial_weights: as in ``run``.
            executor: as in ``run_cells``; ``None`` = the Dask scheduler of ``AUDFER_SCHEDULER``, else this machine.
        """
        executor = executor or os.environ.get(SCHEDULER) or None
        return run_cells(
            cells, self.cell_inputs(cells, initial_weights), self.store, executor, self.profile.training.workers, desc
        )

    def cell_inputs(self, cells: list[Cell], initial_weights: str | Path = "") -> dict[str, CellInputs]:
        """``Cell.source`` -> what those cells are trained from. Arguments as in ``run``."""
        # a cell without an AU head needs no AU table, so the knowledge filter of Eq. 3 can ask for the baseline first
        inputs = {cell.source: self._inputs(cell) for cell in sorted(cells, key=lambda cell: cell.uses_aus)}
        if any(cell.initialisation != "scratch" for cell in cells):
            weights = Path(initial_weights or self.pretrained_weights)
            inputs = {
                name: replace(found, initial_weights=str(weights), initial_fingerprint=file_digest(weights))
                for name, found in inputs.items()
            }
        for cell in cells:
            if cell.uses_landmarks and not inputs[cell.source].landmarks:
                inputs[cell.source] = replace(inputs[cell.source], **self.landmarks(cell.dataset, cell.fold))
        return inputs

    def landmarks(self, name: str, fold: int = 0) -> dict[str, str]:
        """The landmarks of a dataset's packed clips, as ``landmarks`` and ``landmarks_fingerprint`` of ``CellInputs``;
        made on first use.

        Of rendered clips they are the renderer's, of real ones OpenFace's (``AUDFER_DATA/openface/<name>``); where that
        folder lacks clips, their points are unknown, which is said. ``landmark_source`` takes the place of either: a
        folder with the dataset's CSVs, in it or in ``<name>`` below it, or dlib's model file.

        Args:
            fold: 0 = the profile's first.

        Raises:
            AudferError: a ``landmark_source`` that is not there or knows no point of any clip, or dlib is not
                installed.
        """
        key = name, fold or self.folds(name)[0], self.landmark_source
        if key not in self._landmarks_made:
            packed, (text, stamp, points_of_clip) = self.packed(name, fold), self._landmark_points(name, fold)
            stamp = digest(
                [
                    stamp,
                    packed.content,
                    versions("landmarks"),
                ]
            )
            path = self.work / "landmarks" / f"{self._packed_folder(name, fold).name}-{stamp}.npy"
            if not path.is_file():
                found = packed_landmarks(packed, points_of_clip())
                if found.known < 1:
                    note = f"landmarks of {name}: from {text}, in {100 * found.known:.0f} % of the stored frames"
                    if found.without:
                        first = next(iter(found.without.values()))
                        note += f"; {len(found.without)} of {len(packed)} clips have none (first: {first})"
                    print(note, file=sys.stderr, flush=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, found.points)
            if self.landmark_source and np.isnan(np.load(path, mmap_mode="r")).all():
                raise InputError(
                    self.landmark_source, f"landmarks of {name}", "none in any clip", f"those of its clips ({text})"
                )
            self._landmarks_made[key] = {"landmarks": str(path), "landmarks_fingerprint": file_digest(path)}
        return self._landmarks_made[key]

    def _landmark_points(self, name: str, fold: int) -> tuple[str, str, Callable[[], PointsOfClip]]:
        """Where landmarks come from, in words; what they depend on beside the clips; and the source, opened when it is
        called.
        """
        packed, manifest, given = self.packed(name, fold), self.manifest(name, fold), Path(self.landmark_source)
        if not self.landmark_source and self.profile.embedded:
            return (
                "the renderer",
                digest(asdict(self.synth_config)),
                lambda: embedded_points(packed, self.data_root, self.profile.data.render_size),
            )
        if given.is_file():
            return f"dlib, {given}", file_digest(given), lambda: dlib_points(packed, given)
        if self.landmark_source and not given.exists():
            raise InputError(
                given, "landmarks", "nothing there", f"a folder of OpenFace's CSVs, or dlib's {DLIB_MODEL}"
            )
        folder = (given if self.landmark_source else self.data_root / "openface") / name
        if self.landmark_source and not folder.is_dir():
            folder = given
        return (
            f"OpenFace's CSVs, {folder}",
            digest(tracks_of(manifest, folder)),
            lambda: openface_points(packed, manifest, folder),
        )

    def records(self, *outputs: str) -> list[RunRecord]:
        """Records of all cells that the named tables and figures need, without repetition."""
        return self.run(self.noted_cells(*outputs), desc=" ".join(outputs))

    def noted_cells(self, *outputs: str) -> list[Cell]:
        """The cells that the named tables and figures need, without repetition, noted in the store
        (``RunStore.note_grid``).
        """
        cells = list(dict.fromkeys(cell for output in outputs for cell in self.cells(output)))
        inputs = self.cell_inputs(cells)
        self.store.note_grid(
            {"profile": self.profile.to_dict(), "device": self.device, "precision": self.precision},
            {output: self.cells(output) for output in OUTPUTS},
            {cell: self.store.key(cell, inputs[cell.source]) for cell in cells},
        )
        return cells

    # ------------------------------------------------------------------------- numbers behind notebook tables

    def __repr__(self) -> str:
        return (
            f"profile {self.profile.name}: {self.profile.summary}\n"
            f"device {self.device}, {self.precision}; work in {self.work}; figures in {self.figures}"
        )

    def class_counts(self, split: str = "train") -> dict[str, list[int]]:
        """Dataset -> clips of each expression in one split."""
        return {
            name: np.bincount(t.loc[t["split"] == split, "expression"], minlength=7).tolist()
            for name in self.dataset_names
            for t in [self.manifest(name).table]
        }

    def presence_rates(self) -> pd.DataFrame:
        """Percent of frames with the AU present: source (dataset), expression, action_unit, value."""
        parts = []
        for name in self.profile.grid.knowledge_datasets:
            rates = self._labelled(name).groupby("expression")[list(PRESENCE_COLUMNS)].mean().reindex(range(7))
            parts.append(matrix(100 * rates.to_numpy(), name))
        return pd.concat(parts, ignore_index=True)

    def au_clips(self, openface_folder: str = "", second_folder: str = "") -> AUClips:
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
            name = "RAVDESS" if "RAVDESS" in self.dataset_names else self.profile.grid.knowledge_datasets[0]
            first = self.au_table(name)
            if not self.profile.embedded:
                return AUClips(
                    name,
                    "",
                    first,
                    None,
                    self.manifest(name).table,
                    self.caption,
                    "No openface_folder given: the profile's own clips.",
                    ("OpenFace", ""),
                )
            return AUClips(
                name,
                "",
                first,
                self.planted_table(name),
                self.manifest(name).table,
                self.caption,
                "No openface_folder given (papermill -p openface_folder FOLDER): rendered clips instead of real ones.",
                ("the estimator", "the planted truth"),
            )
        first, labels = table_from_openface_folder(openface_folder)
        second = table_from_openface_folder(second_folder)[0] if second_folder else None
        subject = next((labels[column] for column in ("subject", "actor") if column in labels), "")
        name, other = (Path(folder).resolve().name if folder else "" for folder in (openface_folder, second_folder))
        return AUClips(
            name,
            "real_",
            first,
            second,
            labels[["clip_id", "expression"]].assign(subject=subject),
            f"Real clips: OpenFace's CSVs in {openface_folder}.",
            "Real clips.",
            (name, other) if other else ("OpenFace", ""),
        )

    def planted_table(self, name: str) -> AUTable:
        """The planted action units of a rendered dataset, as an AU table: for comparison, and for cells with
        ``au_source`` "planted".

        Raises:
            AudferError: the profile has real data.
        """
        if not self.profile.embedded:
            raise AudferError(
                f"profile {self.profile.name}: the planted truth is known for the embedded benchmark only"
            )
        truth = synth.read_truth(self.data_root, name)
        # windows of a long take share its truth
        clips = self.manifest(name).table[["clip_id", "start", "stop"]]
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

    def au_baselines(self, aus: AUClips) -> pd.DataFrame:
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

        def add(source: str, judged: str, by: str, table: AUTable, features: str, clips: pd.DataFrame) -> None:
            found = au_baseline(clip_features(table), clips, by)
            parts.append(baseline_accuracy(found, source=source, features=features, judged=judged))

        for features, table in zip(aus.extractors, (aus.first, aus.second), strict=True):
            if table is not None and aus.people > 1:
                add(aus.name, "leave one person out", "subject", table, features, aus.clips)
        for name in self.profile.grid.datasets if not aus.stem else ():
            add(name, "test clips", "split", self.au_table(name), aus.extractors[0], self.manifest(name).table)
            if self.profile.embedded:
                add(name, "test clips", "split", self.planted_table(name), aus.extractors[1], self.manifest(name).table)
        return (
            pd.concat(parts, ignore_index=True)
            if parts
            else pd.DataFrame(columns=["source", "judged", "features", "classifier"])
        )

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

    def knowledge_variants(self) -> pd.DataFrame:
        """Readings of section 3.1 side by side; rank correlations over the 17 measured AUs."""
        frames, reference = self.knowledge_frames(), self.knowledge()
        planted = self.planted_medians() if self.profile.embedded else None
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

    def theta_grid(self) -> pd.DataFrame:
        """The filter of Eq. 3 over the profile's thresholds: frames kept and what becomes of the matrix."""
        frames, reference = self.knowledge_frames(with_scores=True), self.knowledge()
        planted = self.planted_medians() if self.profile.embedded else None
        rows = []
        for theta in self.profile.grid.thetas:
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
                    frames, variant=self.profile.grid.knowledge, theta=theta, missing="others"
                )
                row["rank correlation with theta 0"] = rank_correlations(made.values, reference.values)["overall"]
                if planted is not None:
                    row["with the planted"] = rank_correlations(made.values, planted)["overall"]
            rows.append(row)
        return pd.DataFrame(rows)

    def grid_summary(self, *outputs: str) -> pd.DataFrame:
        """How many cells each table or figure needs, and how many of them are in the store already."""
        rows, seen = [], set()
        for output in outputs:
            cells = self.cells(output)
            inputs = self.cell_inputs(cells)
            keys = [self.store.key(cell, inputs[cell.source]) for cell in cells]
            rows.append(
                {
                    "output": output,
                    "cells": len(cells),
                    "new to this table": len(set(keys) - seen),
                    "in the store": sum(map(self.store.has, keys)),
                }
            )
            seen |= set(keys)
        return pd.DataFrame(rows)

    def paper_flops(self) -> dict[str, dict[str, dict[str, float]]]:
        """Cost of one clip in the paper-size form of every network, measured: network, "baseline" or "audfer" (with the
        AU head).
        """
        return {
            name: {
                variant: dict(paper_cost(name, aus))
                for variant, aus in (("baseline", None), ("audfer", len(ACTION_UNITS)))
            }
            for name in self.profile.grid.models
        }

    def au_loss_operations(self) -> dict[str, float]:
        """Element operations of the AU loss with weights of its own for every expression, a clip: "forward" and
        "training".
        """
        clips, aus = 64, len(ACTION_UNITS)
        loss = AULoss(torch.full((len(EXPRESSIONS), aus), 0.5), torch.ones(len(EXPRESSIONS), aus))
        logits = torch.zeros(clips, aus, requires_grad=True)
        batch = torch.zeros(clips, aus), torch.arange(clips) % len(EXPRESSIONS)
        return {
            "forward": count_element_operations(lambda: loss(logits, *batch)) / clips,
            "training": count_element_operations(lambda: loss(logits, *batch).backward()) / clips,
        }

    # ------------------------------------------------------------------------------------------------ recovery

    def planted_medians(self) -> np.ndarray:
        """(7, 17) medians of the planted intensities over the same frames as the knowledge matrix, summed over the
        sets.

        For judging only: nothing of it goes back into the chain.

        Raises:
            AudferError: the profile has real data, of which no truth is known.
        """
        if not self.profile.embedded:
            raise AudferError(
                f"profile {self.profile.name}: the planted truth is known for the embedded benchmark only"
            )
        medians = []
        for name in self.profile.grid.knowledge_datasets:
            truth = synth.read_truth(self.data_root, name)
            seen = truth["split"] == "train" if name in self.profile.grid.datasets else True
            truth = truth[(truth["expression"] >= 0) & seen]
            medians.append(truth.groupby("expression")[list(INTENSITY_COLUMNS)].median().reindex(range(7)).to_numpy())
        # a dataset without an expression does not count for it, as in the matrix
        return np.nanmean(medians, axis=0) * len(medians)


@lru_cache(maxsize=None)
def paper_cost(model: str, aus: int | None) -> dict[str, float]:
    """``count_flops`` of one clip in a network's paper-size form.

    ``aus``: outputs of its AU head, ``None`` for none.
    """
    with weightless():
        network = build_model(model, num_aus=aus)
    return count_flops(network, default_clip_shape(model))


def _stamp(folder: Path) -> str | None:
    try:
        return json.loads((folder / "stamp.json").read_text())["stamp"]
    except (OSError, ValueError, KeyError):
        return None


def _meta(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError):
        return None


def _write_stamp(folder: Path, stamp: str) -> None:
    write_json(folder / "stamp.json", {"stamp": stamp})
