"""One study: a profile's whole chain from clips to run records, each step made once and found again.

Notebooks and the command line call ``open_study`` and nothing deeper. Steps are lazy: asking for the knowledge matrix
makes the clips, the estimator and the AU tables if they are not there. Every step lies in the work folder under a
stamp of what it was made from (``steps``), and is made again only if that changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path

import pandas as pd

from ..files import checkout
from ..jobs.executors import SCHEDULER
from ..models import default_clip_shape
from ..training.loop import Cell, CellInputs, resolve_device, resolve_precision
from ..training.recipes import RECIPES, recipe_name
from ..training.records import RunRecord, RunStore, load_records, run_cells
from . import action_units, clips, inputs, matrices, numbers, planning, scores
from .outputs import NotShown, RecordSource, cells_of, with_cells
from .pretrained import MASKED, ships
from .profiles import Profile, load_profile, with_parameters
from .steps import borrow

ROOT = Path(__file__).resolve().parents[2]


def open_study(profile: str = "", work: str = "", figures: str = "", anywhere: bool = False, **changed) -> Study:
    """The study of a profile.

    Args:
        profile: name or path; "" = ``AUDFER_PROFILE``, else laptop (so CI runs the notebooks in the smoke profile
            without touching their parameters).
        work: folder for everything that is made on the way; "" = ``AUDFER_WORK``, else ``work/`` of the repository,
            or of the current folder where the package was installed without it.
        figures: folder for tables and figures; "" = ``AUDFER_FIGURES``, else ``figures/`` there. A folder with the
            profile's name is made inside both.
        anywhere: nothing is going to be trained: a profile for a GPU may be opened where there is none.
        changed: fields that differ from the profile's, as ``profiles.with_parameters`` names them.

    Raises:
        InputError: unknown profile, or what is changed is refused.
        AudferError: the profile is for a GPU, and there is none.
    """
    home = checkout() or Path.cwd()
    settings = load_profile(with_parameters(profile, **changed))
    return Study(
        settings,
        Path(work or os.environ.get("AUDFER_WORK") or home / "work"),
        Path(figures or os.environ.get("AUDFER_FIGURES") or home / "figures"),
        anywhere,
    )


class Study(RecordSource):
    """A profile with a place to work; see ``open_study``. Its methods are the functions of the modules named below.

    Attributes:
        profile: its numbers. store: its run records. figures: where its tables and figures go.
        landmark_source: folder of OpenFace's CSVs, or dlib's model file, to take landmarks from; "" = none.
        tables: folder of somebody's AU tables, which alone are looked at (``look_at``); "" = none.
    """

    def __init__(self, profile: Profile, work: Path, figures: Path, anywhere: bool = False):
        self.profile = profile
        self.work = Path(work).resolve() / profile.name
        self.figures = Path(figures).resolve() / profile.name
        self.store = RunStore(self.work / "runs")
        self.device = (
            "cuda" if anywhere and profile.training.device == "cuda" else resolve_device(profile.training.device)
        )
        self.precision = resolve_precision(profile.training.precision, self.device)
        self.landmark_source = self.tables = ""
        self._kept: dict = {}

    @property
    def untouched(self) -> bool:
        """Whether there is no work folder yet."""
        return not self.work.exists()

    def once(self, key: Hashable, make: Callable):
        """What ``make`` gave when it was first called for this key; for what one process reads many times."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    # clips
    data_root = cached_property(clips.data_root)
    dataset_names = property(clips.dataset_names)
    synth_config = property(clips.synth_config)
    folds = clips.folds
    manifest = clips.manifest
    packed = clips.packed
    packed_folder = clips.packed_folder
    # action units
    annotated_table = cached_property(action_units.annotated_table)
    annotated_frames = cached_property(action_units.annotated_frames)
    has_annotated_set = property(action_units.has_annotated_set)
    trained_estimator = cached_property(action_units.trained_estimator)
    estimator = property(action_units.estimator)
    estimator_accuracy = property(action_units.estimator_accuracy)
    au_table = action_units.au_table
    extracted_table = action_units.extracted_table
    planted_table = action_units.planted_table
    shuffled_table = action_units.shuffled_table
    truth = action_units.truth
    labelled = action_units.labelled
    # knowledge
    knowledge_frames = matrices.knowledge_frames
    knowledge = matrices.knowledge
    weight_matrix = matrices.weight_matrix
    planted_medians = matrices.planted_medians
    frame_scores = scores.frame_scores
    # what cells are trained from
    cell_inputs = inputs.cell_inputs
    landmarks = inputs.landmarks
    pretraining = property(inputs.pretraining)
    pretrained_weights = cached_property(inputs.pretrained_weights)
    pretraining_stores = inputs.pretraining_stores
    # numbers behind tables
    reconstructions = numbers.reconstructions
    class_counts = numbers.class_counts
    presence_rates = numbers.presence_rates
    au_clips = numbers.au_clips
    look_at = numbers.look_at
    au_baselines = numbers.au_baselines
    au_predictions = numbers.au_predictions
    interpolation_example = numbers.interpolation_example
    knowledge_variants = numbers.knowledge_variants
    theta_grid = numbers.theta_grid
    grid_summary = numbers.grid_summary
    plan = planning.plan

    def results(self, name: str, **options):
        if self.tables and not options.keys() & {"aus", "openface_folder"}:
            return NotShown(f"{name}: not made, because only the AU tables in {self.tables} are looked at.")
        return super().results(name, **options)

    results.__doc__ = RecordSource.results.__doc__

    def cell(
        self,
        model: str,
        dataset: str,
        au_ratio: float = 0.0,
        strategy: str = "",
        *,
        weights: str = "knowledge",
        reading: str = "paper",
        au_source: str = "",
        fold: int = 0,
        seed: int | None = None,
        recipe: str = "",
        initialisation: str = "",
        **options,
    ) -> Cell:
        """A cell with the profile's numbers.

        Args:
            strategy: "" takes the profile's where there is an AU head.
            weights, reading, au_source: count only where there is an AU head.
            fold: 0 = the profile's first. seed: ``None`` = the profile's first.
            recipe: "" takes the profile's for the network, if it names one, else the default of the network's size.
            initialisation: "" takes the profile's ("scratch" where that has no weights for the network); "mae" starts
                from ``pretrained_weights``.
            options: further fields of ``Cell``.
        """
        training = self.profile.training
        recipe = recipe or training.recipes.get(model, "")
        if changes := self.profile.recipe:
            base = recipe_name(model, training.size, recipe)
            recipe = " +".join([base, *(f"{field}={json.dumps(value)}" for field, value in sorted(changes.items()))])
        # the paper's networks have sizes of their own (MAE-DFER 160 pixels, the others 112); the store keeps the
        # largest
        side = training.image_size if training.size == "tiny" else default_clip_shape(model, training.size)[2]
        head = dict(weights=weights, reading=reading, au_source=au_source) if au_ratio else {}
        same = ("size", "num_frames", "accumulate", "validation")
        usual = training.initialisation
        if usual == "shipped" and not ships(model) or usual == "mae" and model != MASKED:
            usual = "scratch"
        start = initialisation or usual
        # the curves of Fig. 7 show every epoch, whatever other cells do
        grid, plain = self.profile.grid, (weights, reading, au_source, options) == ("knowledge", "paper", "", {})
        curve = plain and (model, dataset, start) == (grid.ratio_model, grid.strategy_dataset, usual)
        curve = curve and au_ratio in (0, grid.au_ratio) and strategy in ("", grid.strategy)
        epochs = training.epochs or RECIPES[recipe_name(model, training.size, recipe)].epochs
        return Cell(
            model=model,
            dataset=dataset,
            au_ratio=au_ratio,
            strategy=(strategy or self.profile.grid.strategy) if au_ratio else "none",
            seed=training.seeds[0] if seed is None else seed,
            epochs=epochs,
            image_size=side,
            precision=self.precision,
            device=self.device,
            recipe=recipe,
            fold=fold or self.folds(dataset)[0],
            initialisation=start,
            evaluate_every=1 if curve else min(training.evaluate_every, epochs),
            **{name: getattr(training, name) for name in same},
            **head,
            **options,
        )

    def cells(self, output: str) -> list[Cell]:
        """The cells that a table or figure needs, by its name in ``outputs.OUTPUTS``."""
        return cells_of(self, output)

    @cached_property
    def inputs(self) -> dict[str, CellInputs]:
        """What the cells of each evaluation dataset are trained from."""
        grid = self.profile.grid
        cells = [self.cell(grid.models[0], name, grid.au_ratio or 0.5) for name in grid.datasets]
        made = self.cell_inputs(cells)
        return {cell.dataset: made[cell.source] for cell in cells}

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
        self,
        cells: list[Cell],
        desc: str = "training",
        initial_weights: str | Path = "",
        executor=None,
        until: float | None = None,
    ) -> pd.DataFrame:
        """What ``run_cells`` gives for the cells: a row each, with its error where it failed.

        Args:
            initial_weights: as in ``run``.
            executor: as in ``run_cells``; ``None`` = the Dask scheduler of ``AUDFER_SCHEDULER``, else this machine.
            until: as in ``run_cells``.
        """
        executor = executor or os.environ.get(SCHEDULER) or None
        inputs = self.cell_inputs(cells, initial_weights)
        for cell in cells:
            key = self.store.key(cell, inputs[cell.source])
            borrow(self.store.path(key), lambda other: RunStore(other.parent).has(other.name), "record.json")
        return run_cells(cells, inputs, self.store, executor, self.profile.training.workers, desc, until)

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
            {output: self.cells(output) for output in with_cells()},
            {cell: self.store.key(cell, inputs[cell.source]) for cell in cells},
        )
        return cells

    def __repr__(self) -> str:
        return (
            f"profile {self.profile.name}: {self.profile.summary}\n"
            f"device {self.device}, {self.precision}; work in {self.work}; figures in {self.figures}"
        )
