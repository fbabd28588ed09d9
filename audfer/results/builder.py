"""Every table and figure that is made from run records, each by one function that notebooks and ``audfer report`` call.

A function takes a study and gives ``Result``s to save or show. A ``Study`` trains the cells that its store lacks; a
``RecordedStudy`` (``open_records``) has nothing but the store, takes what is there and tells what is missing. From one
store both make the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from weakref import WeakKeyDictionary

from ..errors import AudferError, InputError
from ..evaluation import statistics as evaluation
from ..keypoint_gcn import results as keypoint_results
from ..lock_and_check import results as recognition_results
from ..study.profiles import profile_from
from ..study.study import Study
from ..training.records import RunRecord, RunStore
from . import figure_data, plots, tables
from .outputs import Result, Saved
from .tables import Table

#: what cannot come from run records, and which notebook makes it
ELSEWHERE = {
    "01_au_extraction": "contact sheets, AU estimator, presence rates, interpolation, class frequencies, AU-only "
    "baseline",
    "02_knowledge_matrix": "Fig. 4, medians by dataset, recovery, readings, theta",
    "03_training": "the pictures of masked pre-training",
    "A1_published_audit": "the audit of the printed tables",
    "A3_lock_and_check": "Lock and Check's F1, ablations, recall, activation maps, localisation, intensity; what "
    "better AUs do",
}


class RecordedStudy(Study):
    """A study of which there are only run records: no clips, no AU tables, no training. See ``open_records``.

    Attributes:
        missing: output of ``study.OUTPUTS`` -> text -> why, for every cell that it lacks, as far as outputs were asked
            for.
    """

    def __init__(self, store: RunStore, grid: dict, figures: Path):
        self.profile = profile_from(grid["profile"], store.grid_path)
        self.store, self.grid = store, grid
        self.device, self.precision = grid["device"], grid["precision"]
        self.figures = Path(figures).resolve() / self.profile.name
        self.work = store.folder.resolve().parent
        self.missing: dict[str, dict[str, str]] = {}
        self._manifests, self._tables, self._inputs_made = {}, {}, {}
        self._loaded: dict[str, RunRecord] = {}

    @property
    def data_root(self) -> Path:
        """There is none.

        Raises:
            AudferError: always.
        """
        raise AudferError(f"{self.store.folder}: run records alone; what is asked for needs the clips")

    def records(self, *outputs: str) -> list[RunRecord]:
        """The records that there are for the named outputs; others are noted in ``missing``."""
        found = {}
        for output in outputs:
            if output not in self.grid["outputs"]:
                raise InputError(
                    self.store.grid_path, "outputs", f"no {output!r}", f"one of {', '.join(self.grid['outputs'])}"
                )
            lacks = self.missing.setdefault(output, {})
            for number in self.grid["outputs"][output]:
                entry = self.grid["cells"][number]
                try:
                    found[number] = self._record(entry["key"])
                except AudferError as error:
                    lacks[entry["label"]] = str(error)
        return list(found.values())

    def _record(self, key: str | None) -> RunRecord:
        if key not in self._loaded:
            if not key or not self.store.has(key, weights=False):
                raise AudferError(self.store.state(key) if key else "no record: not trained yet")
            self._loaded[key] = RunRecord.load(self.store.path(key))
        return self._loaded[key]

    def train(self, cells, desc="", initial_weights="", executor=None):
        """Nothing is trained here.

        Raises:
            AudferError: always.
        """
        raise AudferError(f"{self.store.folder}: run records alone; nothing is trained here")

    def __repr__(self) -> str:
        place = f"records in {self.store.folder}; figures in {self.figures}"
        return f"profile {self.profile.name}: {self.profile.summary}\n{place}"


def open_records(store: str | Path, figures: str | Path = "figures") -> RecordedStudy:
    """The study that left a store of run records behind, on any machine.

    Args:
        store: the ``runs`` folder of a study's work, or a copy of it, which may be without the networks' weights.
        figures: folder for tables and figures; a folder with the profile's name is made inside.

    Raises:
        InputError: no such folder, or no study has left its ``grid.json`` in it; or another version's.
    """
    store = RunStore(store)
    return RecordedStudy(store, store.read_grid(), Path(figures))


# ------------------------------------------------------------------------------------------------------ the results

#: tables that several results need, once a study
_made: WeakKeyDictionary[Study, dict[tuple, Table]] = WeakKeyDictionary()


def _table(study: Study, name: str, protocol: str, **chosen) -> Table:
    """``tables.<name>`` with the settings of the study's profile."""
    records, grid = study.records(name), study.profile.grid
    settings = {"protocol": protocol, "au_ratio": grid.au_ratio, "embedded": study.profile.embedded}
    if name != "table3":
        settings["strategy"] = grid.strategy
    if name != "table1":
        settings["dataset"] = grid.strategy_dataset
    if name == "table2" and "fold" not in chosen:
        settings["paper_flops"] = study.paper_flops()
    key = (name, protocol, *chosen.items(), *(record.path.name for record in records))
    made = _made.setdefault(study, {})
    if key not in made:
        made[key] = getattr(tables, name)(records, **settings | chosen)
    return made[key]


def table1(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 1 (WAR and UAR of all networks and datasets) and the same as a picture."""
    records, table = study.records("table1"), _table(study, "table1", protocol)
    return (
        Result("table1_war_uar", table),
        Result(
            "table1_plot",
            plots.accuracies(table.tidy),
            table.tidy,
            f"Table 1 as a picture. {tables.describe(records, protocol, study.profile.embedded)}",
            records,
        ),
    )


def table2(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 2: accuracy of every expression, and cost."""
    return (Result("table2_per_class", _table(study, "table2", protocol)),)


def conclusions(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """What Tables 1 and 2 say about AU-DFER, in words."""
    return (
        Result(
            "conclusions",
            tables.conclusions(
                _table(study, "table1", protocol), _table(study, "table2", protocol), embedded=study.profile.embedded
            ),
        ),
    )


def one_fold(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Tables 1 to 3 from the profile's first fold alone; nothing where it has only one."""
    if len(study.profile.grid.folds) < 2:
        return ()
    return tuple(
        Result(f"{name}_one_fold", _table(study, name, protocol, fold=study.profile.grid.folds[0]))
        for name in ("table1", "table2", "table3")
    )


def cost(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """What the AU head and the AU loss add to every paper-size network; needs no record."""
    return (Result("cost", tables.cost(study.paper_flops(), study.au_loss_operations())),)


def fig6(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Fig. 6: confusion matrices."""
    records, place = study.records("fig6"), study.profile.grid.strategy_dataset
    data = figure_data.confusion_data(records, place, protocol)
    return (
        Result(
            "fig6_confusion",
            plots.fig6(data),
            data,
            f"Fig. 6. Confusion matrices on {place}. {tables.describe(records, protocol, study.profile.embedded)}",
            records,
        ),
    )


def pretraining(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """MAE-DFER from scratch and from self-supervised pre-training."""
    return (
        Result(
            "pretraining",
            tables.pretraining(
                study.records("pretraining"),
                dataset=study.profile.grid.strategy_dataset,
                protocol=protocol,
                embedded=study.profile.embedded,
            ),
        ),
    )


def positive_class_weights(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """The positive class weights of Eqs. 6 to 8, as the cells of Table 3 had them."""
    records, place = study.records("table3"), study.profile.grid.strategy_dataset
    data = figure_data.positive_weight_data(records, place, study.profile.grid.strategies)
    if data.empty:
        return ()
    return (
        Result(
            "positive_class_weights",
            plots.positive_class_weights(data),
            data,
            f"Positive class weights of the three strategies on {place}. {study.caption}",
        ),
    )


def table3(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 3 (strategies for the positive class weight) and the same as a picture."""
    records, table, embedded = study.records("table3"), _table(study, "table3", protocol), study.profile.embedded
    return (
        Result("table3_strategies", table),
        Result(
            "table3_plot",
            plots.strategies(table.tidy, embedded=embedded),
            table.tidy,
            f"Table 3 as a picture. {tables.describe(records, protocol, embedded)}",
            records,
        ),
    )


def table3_others(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Table 3 on the profile's further datasets; the paper shows DFEW."""
    return tuple(
        Result(f"table3_strategies_{name}", _table(study, "table3", protocol, dataset=name))
        for name in study.strategy_datasets[1:]
    )


def ablations(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """What weighs the AU loss: the table, the same as a picture, and what it says in words."""
    records, grid, embedded = study.records("ablations"), study.profile.grid, study.profile.embedded
    table = tables.ablations(
        records, dataset=grid.strategy_dataset, protocol=protocol, strategy=grid.strategy, embedded=embedded
    )
    return (
        Result("ablations", table),
        Result(
            "ablations_plot",
            plots.ablations(table.tidy),
            table.tidy,
            f"Ablations as a picture: differences to plain BCE. {tables.describe(records, protocol, embedded)}",
            records,
        ),
        Result("ablation_conclusions", tables.ablation_conclusions(table, embedded=embedded)),
    )


def fig5(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Fig. 5: WAR and UAR against lambda."""
    records = study.records("fig5")
    data = figure_data.ratio_data(records, study.profile.grid.ratio_model, protocol)
    return (
        Result(
            "fig5_au_ratio",
            plots.fig5(data),
            data,
            f"Fig. 5. WAR and UAR against lambda. {tables.describe(records, protocol, study.profile.embedded)}",
            records,
        ),
    )


def loss_terms(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """The magnitudes of the two loss terms over the ratios of Fig. 5."""
    records = study.records("fig5")
    data = figure_data.loss_data(records, study.profile.grid.ratio_model)
    return (
        Result(
            "fig5_loss_terms",
            plots.loss_terms(data),
            data,
            f"Magnitude of the two loss terms after training, without and with the AU loss. {study.caption}",
            records,
        ),
    )


def fig7(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Fig. 7: the training process."""
    records, grid = study.records("fig7"), study.profile.grid
    data = figure_data.process_data(records, grid.ratio_model, grid.strategy_dataset)
    return (
        Result(
            "fig7_training",
            plots.fig7(data),
            data,
            f"Fig. 7. Training without and with AU on {grid.strategy_dataset}. {study.caption}",
            records,
        ),
    )


def fig8(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Fig. 8: t-SNE of the test clips' features."""
    records, grid = study.records("fig8"), study.profile.grid
    data = figure_data.embedding_data(records, grid.ratio_model, grid.strategy_dataset)
    return (
        Result(
            "fig8_tsne",
            plots.fig8(data),
            data,
            f"Fig. 8. t-SNE of the test features on {grid.strategy_dataset}; the "
            f"numbers are taken in feature space. {study.caption}",
            records,
        ),
    )


def au_head(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """How well the AU head finds AUs."""
    records, place = study.records("au_head"), study.profile.grid.strategy_dataset
    data = evaluation.au_quality(records)
    return (
        Result(
            "au_head",
            plots.au_head(data).figure,
            data,
            f"F1 of each AU of the AU head on {place}'s test clips, against the labels of Eq. 4. {study.caption}",
            records,
        ),
    )


def calibration(study: Study, protocol: str = "last") -> tuple[Result, ...]:
    """Whether a network is right as often as it says."""
    records, grid = study.records("calibration"), study.profile.grid
    data = figure_data.calibration_data(records, grid.ratio_model, grid.strategy_dataset, protocol)
    return (
        Result(
            "calibration",
            plots.reliability(data),
            data,
            f"Calibration without and with AU on {grid.strategy_dataset}. {study.caption}",
            records,
        ),
    )


#: every function above with the outputs of ``study.OUTPUTS`` whose records it takes, in the order of the notebooks
RESULTS: dict[Callable[..., tuple[Result, ...]], tuple[str, ...]] = (
    {
        table1: ("table1",),
        table2: ("table2",),
        conclusions: ("table1", "table2"),
        one_fold: ("table1", "table2", "table3"),
        cost: (),
        fig6: ("fig6",),
        pretraining: ("pretraining",),
        positive_class_weights: ("table3",),
        table3: ("table3",),
        table3_others: ("table3",),
        ablations: ("ablations",),
        fig5: ("fig5",),
        loss_terms: ("fig5",),
        fig7: ("fig7",),
        fig8: ("fig8",),
        au_head: ("au_head",),
        calibration: ("calibration",),
    }
    | keypoint_results.RESULTS
    | recognition_results.RESULTS
)


@dataclass(frozen=True)
class Rebuilt:
    """What ``rebuild`` made, and what it could not.

    Attributes:
        saved: what was written. incomplete: names of files -> cells missing, cells needed.
        missing: text of a cell -> (why, the outputs that lack it).
    """

    folder: Path
    saved: list[Saved]
    incomplete: dict[str, tuple[int, int]]
    missing: dict[str, tuple[str, list[str]]]

    def __str__(self) -> str:
        width = max((len(name) for name in (*self.incomplete, *(found.name for found in self.saved))), default=0)
        made = {found.name for found in self.saved}
        lines = []
        for name in [*(found.name for found in self.saved), *(name for name in self.incomplete if name not in made)]:
            lacks, needs = self.incomplete.get(name, (0, 0))
            state = (
                "made" if not lacks else f"{'made' if name in made else 'not made'}, {lacks} of {needs} cells missing"
            )
            lines.append(f"{name:{width}}  {state}")
        if self.missing:
            lines.append("\nmissing cells:")
            for cell, (why, outputs) in self.missing.items():
                lines += [
                    fill(f"{cell} ({', '.join(outputs)})", 79, initial_indent="  ", subsequent_indent="    "),
                    fill(why, 79, initial_indent="    ", subsequent_indent="    ", break_long_words=False),
                ]
        lines.append("\nnot from run records, the notebooks make them:")
        lines += [
            fill(f"{notebook}: {what}", 79, initial_indent="  ", subsequent_indent="    ")
            for notebook, what in ELSEWHERE.items()
        ]
        return "\n".join([*lines, f"\n{self.folder}"])


def rebuild(study: RecordedStudy, protocol: str = "last") -> Rebuilt:
    """Every table and figure from a store of run records, into ``study.figures``.

    One that lacks some of its cells is made from the others, with gaps; one that lacks all is not made.
    """
    saved, incomplete, missing = [], {}, {}
    for make, outputs in RESULTS.items():
        records = study.records(*outputs)
        lacks = {}
        for output in outputs:
            lacks |= study.missing[output]
            for cell, why in study.missing[output].items():
                needed_by = missing.setdefault(cell, (why, []))[1]
                if output not in needed_by:
                    needed_by.append(output)
        if outputs and not records:
            # the rooms have functions of one name: the appendix's are told apart
            name = (
                make.__name__
                if make.__module__ == __name__
                else f"{make.__module__.rpartition('.')[2]}.{make.__name__}"
            )
            incomplete[name] = len(lacks), len(lacks)
            continue
        for result in make(study, protocol):
            saved.append(result.save(study.figures))
            if lacks:
                incomplete[result.name] = len(lacks), len(lacks) + len(records)
    return Rebuilt(study.figures, saved, incomplete, missing)
