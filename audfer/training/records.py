"""Grids of cells and the store of their run records.

A record is one folder, named by a digest of everything that can change the result: the cell, the recipe, the data's
fingerprint and the version of the code that computes it. It is written atomically and found again by a later call,
so that a second run trains nothing, and deleting one record re-makes only that one. Several runs may use one store at
the same time: whoever trains a cell holds its lock, the others go on with other cells and then take the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from ..errors import AudferError, InputError
from ..facs import EXPRESSIONS
from ..files import (
    UNREADABLE,
    DiskFull,
    atomic_folder,
    digest,
    read_csv,
    read_json,
    read_sealed,
    remove_tree,
    write_json,
    write_sealed,
)
from ..jobs.executors import Pool, opened
from ..jobs.processes import Stopped
from ..jobs.workers import TAKEN, Run, claimed
from ..losses import AU_LOSSES
from ..models import NETWORKS
from ..plugins import versions
from ..progress import GridProgress
from ..sampling import SAMPLING
from .distributed import world_size
from .loop import Cell, CellInputs, fit

#: the trained network in a record's folder; every other file of it is small
WEIGHTS_FILE = "weights.safetensors"
#: of a record's files; counts up when something in them means something else. 1 had no number, and one protocol
FORMAT = 2
#: of ``grid.json``
GRID_FORMAT = 1
#: seconds by which a network disk may show a record late
_LATE = 30.0
#: what a cell that a budget left over has in the table of ``run_cells`` begins with
LEFT = "left for the next run"
#: a process trains one cell at a time: seeds and the number of threads are the whole process's
_ONE_CELL = threading.Lock()


@dataclass
class RunRecord:
    """What one trained cell left behind; everything that tables and figures need.

    Attributes:
        path: the record's folder; its name is the digest.
        cell: the cell's fields as a dictionary.
        history: one row per epoch: epoch, loss, loss_expression, loss_au (NaN without an AU head), train_war,
            train_uar, test_war, test_uar (shares 0..1; NaN in epochs that were not looked at), test_loss,
            learning_rate, seconds.
        clip_ids, expressions: of the test split, (N,).
            With a validation split also validation_war, validation_uar and validation_loss.
        scores: (N, 7) soft-max probabilities after the last epoch; ``best_scores`` after the epoch ``best_epoch`` with
            the highest WAR + UAR on the test split (the protocol of the official releases, kept under its own name).
        au_scores: (N, 18) AU probabilities or None; features: (N, D) what both heads see, or None where they were left
            behind (``parcels.export_records``).
        flops: ``gflops``, ``gmacs``, ``parameters`` of one clip. seconds: training time.
        environment: versions, processor, device; precision is a field of the cell.
        groups: (N,) subject of each test clip, or the video that it was cut from; the clip itself where neither is
            known. ``None`` where nothing is known of any clip.
        au_labels: (N, 18) clip AU labels (Eq. 4) of the test clips, 0, 1 or NaN = unknown; ``None`` without an AU head.
        validated_scores: (N, 7) after the epoch ``validated_epoch`` with the highest WAR + UAR on the validation split;
            both ``None`` in a cell without one.
        costs: what training took, see ``training.fit``. Timings: not for tables that are to come out the same twice.
        positive_weights: (7, 18) positive class weights that the AU loss had (Eqs. 6 to 8); ``None`` without an AU
            head.
    """

    path: Path
    cell: dict
    history: pd.DataFrame
    clip_ids: list[str]
    expressions: np.ndarray
    scores: np.ndarray
    best_scores: np.ndarray
    best_epoch: int
    features: np.ndarray | None
    flops: dict
    seconds: float
    environment: dict
    au_scores: np.ndarray | None = None
    groups: np.ndarray | None = None
    au_labels: np.ndarray | None = None
    validated_scores: np.ndarray | None = None
    validated_epoch: int | None = None
    costs: dict = field(default_factory=dict)
    positive_weights: np.ndarray | None = None

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read a record's folder.

        Raises:
            InputError: a file of the record is missing, unreadable or not what was written; or another version of
                audfer made it, in a format that this one does not know.
        """
        path = Path(path)
        try:
            meta = read_meta(path)
            with np.load(path / "test.npz", allow_pickle=False) as arrays:
                stored = {name: arrays[name] for name in arrays.files}
            clip_ids, groups = stored.pop("clip_ids"), stored.pop("groups", None)
            if groups is not None and (groups != "").any():
                # a clip of which nothing is known stands for itself
                stored["groups"] = np.where(groups == "", clip_ids, groups)
            return cls(
                path,
                history=read_csv(path / "history.csv"),
                clip_ids=clip_ids.tolist(),
                best_epoch=meta["protocols"]["best-on-test"]["epoch"],
                validated_epoch=meta["protocols"].get("best-on-validation", {}).get("epoch"),
                **{name: meta[name] for name in ("cell", "flops", "seconds", "environment", "costs")},
                **{"features": None, **stored},
            )
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(
                path,
                "run record",
                f"{type(error).__name__}: {str(error).split('. ')[0]}",
                "record.json, history.csv and test.npz; delete the folder to make it again",
            ) from None

    def load_weights(self) -> dict[str, torch.Tensor]:
        """The trained network's state dict.

        Raises:
            InputError: the file is missing, or not what was written.
        """
        file = self.path / WEIGHTS_FILE
        try:
            state, known = load_file(file), read_meta(self.path)["files"].get(WEIGHTS_FILE)
            if known and _file_state(file) != known:
                raise ValueError("its sha256 is not the recorded one")
        except UNREADABLE as error:
            found, expected = f"{type(error).__name__}: {error}", "what was written; delete the record to make it again"
            raise InputError(file, "weights", found, expected) from None
        return state


def read_meta(path: Path) -> dict:
    """A record's ``record.json`` in the present format, after a look whether it and its small files are what was
    written.

    Raises:
        InputError: another format. Any of ``UNREADABLE``: damaged.
    """
    expected = f"{FORMAT} or 1: another version of audfer made this record; use that one, or another store"
    meta = read_sealed(path / "record.json", range(1, FORMAT + 1), expected)
    if meta.get("format", 1) == 1:  # costs, groups and validation splits were not recorded
        chosen = meta["best_epoch"] if "best_epoch" in meta else meta["protocols"]["best-on-test"]["epoch"]
        meta = {"protocols": {"best-on-test": {"epoch": chosen}}, "costs": {}, "files": {}, **meta}
    if (key := meta.get("key", path.name)) != path.name:
        raise ValueError(f"it is the record {key}, in another's folder")
    if (classes := meta.get("classes", list(EXPRESSIONS))) != list(EXPRESSIONS):
        raise ValueError(f"its classes are {classes}, not those of this version")
    for name, whole in meta["files"].items():
        if name != WEIGHTS_FILE and (state := _file_state(path / name)) != whole:
            raise ValueError(f"{name} has {state['bytes']} of {whole['bytes']} bytes, or others than were written")
    return meta


def _file_state(path: Path) -> dict:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


class RunStore:
    """A folder of run records.

    Args:
        folder: made if missing. Inside, beside the records: ``grid.json`` (which table needs which), ``log.jsonl`` (who
            trained what and when), ``.unfinished`` (cells that are being trained), ``.failed`` (why a cell failed when
            it was last tried) and ``.locks``. Machines that share it need a disk with file locks (NFS 4, Lustre with
            flock).
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def key(self, cell: Cell, inputs: CellInputs) -> str:
        """Digest of everything that can change the cell's result.

        The recipe counts by its numbers, not by its name; AU labels only where an AU head uses them, initial weights
        only where the cell starts from them, landmarks only where the network looks at them.
        """
        settings = asdict(replace(cell, recipe=""))
        if not cell.au_loss:  # a cell of before there was a choice
            del settings["au_loss"]
        content = {
            "cell": settings,
            "recipe": asdict(cell.training_recipe),
            "data": inputs.fingerprint,
            "code": {**versions("training"), cell.model: NETWORKS[cell.model].version},
            "torch": torch.__version__.split("+")[0],
        }
        if cell.uses_aus:
            content["code"] |= versions("au loss")
            if cell.au_loss:
                content["code"][f"au loss {cell.au_loss}"] = getattr(AU_LOSSES[cell.au_loss], "version", 1)
            content["au"] = inputs.au_fingerprint
            if cell.weights != "none":
                content["knowledge"] = inputs.knowledge_fingerprint
        if cell.uses_landmarks:
            content["landmarks"] = inputs.landmarks_fingerprint
        if cell.initialisation != "scratch":
            if not inputs.initial_fingerprint:
                raise InputError(
                    "cell",
                    "initialisation",
                    f"{cell.initialisation!r} without a digest of the weights",
                    "CellInputs.initial_weights and .initial_fingerprint, or initialisation 'scratch'",
                )
            content["initial weights"] = inputs.initial_fingerprint
        return digest(content)

    def path(self, key: str) -> Path:
        """Where the record of that key lies or will lie."""
        return self.folder / key

    def has(self, key: str, weights: bool = True, cell=None) -> bool:
        """Whether a whole record is there; a damaged one is not. Arguments as of ``damage``."""
        return (self.path(key) / "record.json").is_file() and not self.damage(key, weights, cell)

    def damage(self, key: str, weights: bool = True, cell=None) -> str:
        """What is wrong with the record of that key; "" if nothing is. Of the weights only the size is looked at.

        Args:
            weights: whether the network's weights have to be there: they are most of a record, and tables need none.
            cell: that it should be of; ``None`` = any.

        Raises:
            InputError: the record is of another version's format.
        """
        path = self.path(key)
        if not path.is_dir():
            return ""
        try:
            meta = read_meta(path)
            for name in () if meta["files"] else ("test.npz", "history.csv"):
                (path / name).stat()
            whole = meta["files"].get(WEIGHTS_FILE)
            if whole and (weights or (path / WEIGHTS_FILE).is_file()):
                size = (path / WEIGHTS_FILE).stat().st_size
                if size != whole["bytes"]:
                    return f"{WEIGHTS_FILE} has {size} of {whole['bytes']} bytes"
            # a recipe counts by its numbers, not by its name
            asked = {} if cell is None else json.loads(json.dumps({**asdict(cell), "recipe": ""}))
            for name, value in meta["cell"].items():
                if asked and name != "recipe" and asked.get(name, value) != value:
                    return f"its cell has {name} {value!r}, asked for is {asked[name]!r}"
        except InputError:
            raise
        except UNREADABLE as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def failure(self, key: str) -> str:
        """Why the cell failed when it was last tried; "" if it did not."""
        return read_json(self.folder / ".failed" / f"{key}.json").get("error", "")

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder for the files of a record, which is the record once the block has ended; its unfinished state goes
        then.
        """
        for left in self.folder.glob(f".{key}.*"):  # by a process that was killed while it wrote this record
            remove_tree(left, self.folder)
        with atomic_folder(self.path(key)) as folder:
            yield folder
        remove_tree(self.scratch(key), self.folder)

    # ------------------------------------------------- what ``run_cells`` asks a store; stores of other cells have
    # their own

    def make(self, key: str, cell: Cell, inputs: CellInputs, report=None) -> None:
        """Train a cell that this process holds and write its record; ``report`` is called with each epoch's history
        row.
        """
        make_record(str(self.folder), key, cell, inputs, report)

    def cost(self, cell: Cell) -> float:
        """Rough training time relative to other cells, for the order of submission and the time that is left."""
        return NETWORKS[cell.model].cost * cell.epochs * cell.num_frames * cell.image_size**2

    def kind(self, cell: Cell) -> str:
        """Cells of one kind take times in proportion to their ``cost``."""
        return cell.model

    def said(self, history: pd.DataFrame) -> str:
        """What a line of progress says of a finished cell, before its label."""
        last = history.iloc[-1]
        return f"WAR {100 * last.test_war:.0f} UAR {100 * last.test_uar:.0f}"

    def note_failure(self, key: str, error: str) -> None:
        """Keep why a cell failed, or with "" forget it. On a full disk it is not kept."""
        path = self.folder / ".failed" / f"{key}.json"
        if not error:
            path.unlink(missing_ok=True)
            return
        with suppress(OSError, AudferError):
            write_json(path, {"error": error})

    def scratch(self, key: str) -> Path:
        """Where the state of the unfinished cell lies."""
        return self.folder / ".unfinished" / key

    def claim(self, key: str) -> AbstractContextManager[bool]:
        """Hold a cell for this process, if no other does (``jobs.workers.claimed``)."""
        return claimed(self.folder / ".locks" / key)

    @property
    def grid_path(self) -> Path:
        """What ``note_grid`` writes."""
        return self.folder / "grid.json"

    def note_grid(self, about: dict, outputs: dict[str, list[Cell]], keys: dict[Cell, str]) -> None:
        """Keep which cells each table and figure needs, so that they can be made from the store alone.

        Args:
            about: what else that takes: the study's profile, device and precision.
            outputs: name -> cells, of all tables and figures.
            keys: of cells whose key is known by now; keys noted before stay, unless code or ``about`` have changed
                since.
        """
        distinct = list(dict.fromkeys(cell for cells in outputs.values() for cell in cells))
        numbers = {cell: number for number, cell in enumerate(distinct)}
        (self.folder / ".locks").mkdir(parents=True, exist_ok=True)
        with FileLock(str(self.folder / ".locks" / "grid")):
            before, known = self._noted(), self.noted_keys(about)
            cells = [
                {
                    "cell": asdict(cell),
                    "label": f"{cell.label}, seed {cell.seed}",
                    "key": keys.get(cell) or known.get(cell_json(cell)),
                }
                for cell in distinct
            ]
            content = {
                "format": GRID_FORMAT,
                "audfer": version("audfer"),
                "made_with": _made_with(about),
                **about,
                "cells": cells,
                "outputs": {name: [numbers[cell] for cell in needed] for name, needed in outputs.items()},
            }
            content = json.loads(json.dumps(content))
            if content != before:
                write_json(self.grid_path, content)

    def _noted(self) -> dict:
        return read_json(self.grid_path)

    def noted_keys(self, about: dict) -> dict[str, str | None]:
        """``cell_json`` -> key of the cells whose key ``note_grid`` was told with the same code and ``about``."""
        before = self._noted()
        same = before.get("made_with") == _made_with(about)
        return {json.dumps(entry["cell"], sort_keys=True): entry["key"] for entry in before["cells"]} if same else {}

    def read_grid(self) -> dict:
        """What ``note_grid`` wrote last.

        Raises:
            InputError: nothing there, not readable, or another version's.
        """
        try:
            content = json.loads(self.grid_path.read_text())
            written = content["format"]
        except UNREADABLE as error:
            expected = (
                "the folder of run records that a study of this version has worked with (work/<profile>/runs), "
                "or a whole copy of it"
            )
            raise InputError(self.grid_path, "list of cells", type(error).__name__, expected) from None
        if written != GRID_FORMAT:
            expected = f"{GRID_FORMAT}: another version of audfer made this store; use that one"
            raise InputError(self.grid_path, "format", written, expected)
        return content

    def state(self, key: str) -> str:
        """Why there is no whole record of that key, in words."""
        if damage := self.damage(key):
            return f"damaged: {damage}"
        if failure := self.failure(key):
            return f"failed: {failure}"
        done = self.epochs_done(key)
        return f"unfinished, after epoch {done}" if done else "no record: not trained yet, or not copied"

    def epochs_done(self, key: str) -> int:
        """After which epoch the state of an unfinished cell was kept; 0 where there is none."""
        try:
            return len(read_csv(self.scratch(key) / "history.csv"))
        except (OSError, ValueError):
            return 0

    def spent(self) -> pd.DataFrame:
        """What records took: kind, size and device of the cell, its ``cost``, seconds; a row each."""
        rows = []
        for file in sorted(self.folder.glob("[!.]*/record.json")):
            with suppress(InputError, *UNREADABLE):
                meta = read_meta(file.parent)
                cell = Cell(**meta["cell"])
                rows.append((self.kind(cell), cell.size, cell.device, self.cost(cell), float(meta["seconds"])))
        return pd.DataFrame(rows, columns=["kind", "size", "device", "cost", "seconds"])

    def log(self, event: str, key: str, cell: Cell) -> None:
        """Add a line to ``log.jsonl``: "begin", "end", "left" or "error" of a cell's training."""
        line = json.dumps(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "event": event,
                "key": key,
                "cell": cell.label,
                "host": platform.node(),
                "pid": os.getpid(),
            }
        )
        # on a full disk there is no log: it is for looking at, and the record says why itself
        with suppress(OSError), open(self.folder / "log.jsonl", "a") as file:
            file.write(line + "\n")  # in one short write: lines of several processes do not mix

    def records(self) -> list[RunRecord]:
        """All records of the store, in order of their keys."""
        # a folder with a dot is what a killed process was writing
        return [RunRecord.load(p.parent) for p in sorted(self.folder.glob("[!.]*/record.json"))]


def cell_json(cell) -> str:
    """A cell's fields as text, the same for equal cells."""
    return json.dumps(asdict(cell), sort_keys=True)


def _made_with(about: dict) -> str:
    networks = {name: network.version for name, network in NETWORKS.items()}
    return digest([about, versions("training", "au loss"), networks, torch.__version__.split("+")[0]])


def make_record(store_folder: str, key: str, cell: Cell, inputs: CellInputs, report=None) -> str:
    """Train one cell and write its record; returns the record's folder. The caller holds the cell (``RunStore.claim``).

    Args:
        report: called with each epoch's history row.
    """
    store = RunStore(store_folder)
    scratch = store.scratch(key)
    scratch.mkdir(parents=True, exist_ok=True)

    outcome = fit(cell, inputs, scratch, report)
    with store.writing(key) as folder:
        arrays = ("scores", "best_scores", "validated_scores", "au_scores", "au_labels", "features", "groups")
        np.savez_compressed(
            folder / "test.npz",
            clip_ids=np.array(outcome["clip_ids"]),
            expressions=outcome["expressions"],
            **{name: outcome[name] for name in (*arrays, "positive_weights") if outcome[name] is not None},
        )
        outcome["history"].to_csv(folder / "history.csv", index=False)
        save_file(
            {k: v.contiguous() for k, v in outcome["state_dict"].items()},
            folder / WEIGHTS_FILE,
            metadata={"classes": json.dumps(EXPRESSIONS)},
        )
        rules = (
            SAMPLING[rule].summary for rule in (cell.training_recipe.train_sampling, cell.training_recipe.test_sampling)
        )
        write_meta(
            folder,
            {
                "cell": asdict(cell),
                "recipe": outcome["recipe"],
                "inputs": asdict(inputs),
                "key": key,
                "classes": list(EXPRESSIONS),
                "frame_sampling": "training: {}; evaluation: {}, no augmentation".format(*rules),
                **{name: outcome[name] for name in ("protocols", "validation", "flops", "seconds", "costs")},
                "environment": environment(cell.device),
            },
        )
    return str(store.path(key))


def write_meta(folder: Path, content: dict) -> None:
    """Write a record's ``record.json``, last of its files: what it is, and which files there are."""
    files = {path.name: _file_state(path) for path in sorted(folder.iterdir()) if path.name != "record.json"}
    write_sealed(folder / "record.json", {**content, "format": FORMAT, "files": files})


def environment(device: str = "cpu") -> dict:
    """Versions, processor and device of this process, for records."""
    return {
        "audfer": version("audfer"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


class LeftOver(AudferError):
    """There was no time for the cell, or for the rest of it; what is trained is kept, and the next run goes on."""


def do_cell(store: RunStore, key: str, cell: Cell, inputs: CellInputs, report=None, until: float | None = None) -> str:
    """Train one cell unless its record is there or somebody else is at it; what a worker runs.

    Args:
        until: ``time.time()`` after which no epoch may end: one that would is not begun.

    Returns:
        "made", "found", or "taken": by another process, which holds the cell.

    Raises:
        AudferError: this process's code is not that of the run which asked for it.
        LeftOver: the time was up after an epoch; its state is kept.
        Stopped: the run that asked for it was interrupted; its state is kept.
        Exception: what training raised.
    """
    if store.key(cell, inputs) != key:  # the record would be kept under a name that says something else
        raise AudferError(
            f"{platform.node()}: the worker has other versions of audfer or torch than the run that asks it to "
            f"train {cell.label}; start it from the same installation"
        )
    with store.claim(key) as mine:
        if not mine:
            return TAKEN
        if store.has(key, cell=cell):
            return "found"
        stop = store.scratch(key) / "stop"
        stop.unlink(missing_ok=True)

        def after_epoch(row: dict) -> None:
            if report:
                report(row)
            if stop.is_file():
                raise Stopped(f"{cell.label}: stopped after epoch {row['epoch']}")
            if until is not None and row["epoch"] < cell.epochs and time.time() + row["seconds"] > until:
                raise LeftOver(f"{LEFT}, after epoch {row['epoch']} of {cell.epochs}")

        with _ONE_CELL:
            store.log("begin", key, cell)
            try:
                store.make(key, cell, inputs, after_epoch)
            except BaseException as error:
                store.log("left" if isinstance(error, LeftOver) else "error", key, cell)
                raise
        store.log("end", key, cell)
        store.note_failure(key, "")
    return "made"


def cells_at_once(device: str, workers: int = 0) -> int:
    """Cells that ``run_cells`` trains side by side on this machine, with its ``workers``."""
    if world_size() > 1:  # under torchrun all processes train one cell together
        return 1
    return workers or (1 if device == "cuda" else os.cpu_count() or 1)


def run_cells(
    cells: list[Cell],
    inputs: dict[str, CellInputs],
    store: RunStore,
    executor=None,
    workers: int = 0,
    desc: str = "training",
    until: float | None = None,
) -> pd.DataFrame:
    """Records of all cells; trains what the store lacks.

    Any number of runs may do so on one store at the same time, on several machines too: a cell that another run is
    training is left to it, and its record is waited for at the end. A worker that dies costs the epoch that it was in:
    the cell goes on from its state elsewhere, and is given up when several workers have died with it.

    Args:
        inputs: ``Cell.source`` -> what those cells are trained from.
        executor: ``None`` trains on this machine. A ``distributed.Client``, its ``get_executor()`` or the address of a
            Dask scheduler: its workers train, one cell each at a time, on a disk that all of them see; cells on a GPU
            go to workers with the resource "GPU". Or any other executor of ``concurrent.futures``.
        workers: processes on this machine; 0 = one per core on CPU, one on a GPU; 1 = in this process.
        until: ``time.time()`` by which to be through. Cells are then begun in the order given, those first that fit by
            what records of their kind took; one that nothing is known of is begun, and stopped between epochs. What
            time is left goes to the first cell that does not fit. Cells left over are rows whose error begins with
            ``LEFT``.

    Returns:
        One row per cell, in the order given: the cell's fields, ``key``, ``path``, ``trained`` (bool: by this call),
        ``error`` (text or None). A cell that fails is a row with its error; the others go on, unless the disk is full.

    Raises:
        InputError: a record of the store has another version's format; a Dask cluster that cannot do it.
        KeyboardInterrupt: after the workers were stopped; what they had done is kept.
    """
    keys = [store.key(cell, inputs[cell.source]) for cell in cells]
    missing = {}
    for key, cell in zip(keys, cells, strict=True):
        if damage := store.damage(key, cell=cell):
            print(f"{store.path(key)}: damaged run record ({damage}); it is made again", file=sys.stderr, flush=True)
        if not store.has(key, cell=cell):
            missing[key] = cell
    outcomes: dict[str, str | Exception] = {}
    if missing:
        on_gpu = any(cell.device == "cuda" for cell in missing.values())
        workers = min(cells_at_once("cuda" if on_gpu else "cpu", workers), len(missing))
        with opened(executor, workers, on_gpu) as pool, GridProgress(len(missing), desc) as bar:
            outcomes = _Grid(missing, inputs, store, pool, bar, until).through()
    errors = {
        key: str(error) if isinstance(error, LeftOver) else f"{type(error).__name__}: {error}"
        for key, error in outcomes.items()
        if isinstance(error, Exception)
    }
    for key in keys:
        if key not in errors and not store.path(key).is_dir():
            errors[key] = f"its record has gone from {store.folder} while this run was at work: somebody deleted it"
    return pd.DataFrame(
        [
            {
                **asdict(cell),
                "key": key,
                "path": str(store.path(key)),
                "trained": outcomes.get(key) == "made",
                "error": errors.get(key),
            }
            for key, cell in zip(keys, cells, strict=True)
        ]
    )


class _Grid:
    """What one call of ``run_cells`` knows of the cells that its store lacks: outcomes, times, progress."""

    def __init__(
        self,
        cells: dict[str, Cell],
        inputs: dict[str, CellInputs],
        store: RunStore,
        pool: Pool,
        bar,
        until: float | None = None,
    ):
        self.cells, self.inputs, self.store, self.pool, self.bar, self.until = cells, inputs, store, pool, bar, until
        self.outcomes: dict[str, str | Exception] = {}
        self.took: dict[str, float] = {}
        self.full: DiskFull | None = None
        self.note = ""
        self.run = Run(
            do_cell,
            self.waiting(),
            pool,
            arguments=self.arguments,
            free=self.free,
            interrupt=self.interrupt,
            tick=self.show,
        )

    def through(self) -> dict[str, str | Exception]:
        with self.run as run:
            for key, answer in run:
                self.finish(key, answer)
                self.show()
        return self.outcomes

    def waiting(self) -> Iterator[str]:
        if self.until is not None:
            yield from self.fitting()
            return
        # the longest cells first, so that the workers end together
        for key in sorted(self.cells, key=lambda key: -self.store.cost(self.cells[key])):
            if self.full is None:
                yield key
            else:
                self.finish(key, AudferError(f"not begun, for {self.full}"))

    def fitting(self) -> Iterator[str]:
        """Cells that there is time for, as given; then the first one that there is not, as far as it comes."""
        # records are read once: again before each cell, their number would count twice
        before, skipped = list(self.store.spent().itertuples(index=False, name=None)), []

        def row(cell) -> tuple:
            return self.store.kind(cell), cell.size, cell.device, self.store.cost(cell)

        for key, cell in self.cells.items():
            ended = [(*row(self.cells[other]), seconds) for other, seconds in self.took.items()]
            alike = [one[3:] for one in before + ended if one[:3] == row(cell)[:3]]
            cost, seconds = map(sum, zip(*alike, strict=True)) if alike else (1.0, 0.0)
            done = self.store.epochs_done(key) / cell.epochs
            if time.time() + seconds / cost * self.store.cost(cell) * (1 - done) >= self.until:
                skipped.append(key)
                continue
            yield key
        for key in skipped:
            if time.time() < self.until and self.full is None and key == skipped[0]:
                yield key
            else:
                self.finish(key, LeftOver(LEFT))

    def arguments(self, key: str) -> tuple:
        self.show(1)
        cell = self.cells[key]
        more = [self.epoch if self.pool.here else None, self.until]
        return self.store, key, cell, self.inputs[cell.source], *(more if self.until else more[: self.pool.here])

    def epoch(self, row: dict) -> None:
        """Progress inside a cell, where it is trained in this process."""
        self.note = f"epoch {row['epoch']}"
        self.show(1)

    def free(self, key: str) -> bool:
        """Whether the run that had the cell is through with it; one that it has left is ours to try."""
        with self.store.claim(key) as mine:
            return mine or self.store.has(key)

    def interrupt(self, key: str) -> None:
        """Have a worker elsewhere stop after the epoch."""
        with suppress(OSError):  # a full disk; the cell will end by itself
            self.store.scratch(key).mkdir(parents=True, exist_ok=True)
            (self.store.scratch(key) / "stop").touch()

    def arrived(self, key: str) -> bool:
        """Whether the record is there; a network disk may show it late."""
        until = time.monotonic() + _LATE
        while not self.store.has(key):
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
        return True

    def finish(self, key: str, answer: str | Exception) -> None:
        if not isinstance(answer, Exception) and not self.arrived(key):
            answer = AudferError(
                f"a worker has trained it, but there is no record in {self.store.folder}: it has to lie on a disk "
                "that all workers share"
            )
        self.outcomes[key] = answer
        label = self.cells[key].label
        if isinstance(answer, LeftOver):
            self.note = f"no time: {label}"
        elif isinstance(answer, Exception):
            self.store.note_failure(key, f"{type(answer).__name__}: {answer}")
            self.note = f"failed: {label}"
            if isinstance(answer, DiskFull):
                self.full = answer
        else:
            history = read_csv(self.store.path(key) / "history.csv")
            self.took[key] = history["seconds"].sum()
            # numbers first: a line of a log ends at column 79
            self.note = f"{self.store.said(history)} {label}"

    def show(self, begun: int = 0) -> None:
        failed = sum(
            isinstance(outcome, Exception) and not isinstance(outcome, LeftOver) for outcome in self.outcomes.values()
        )
        running = min(len(self.run.running) + begun, self.pool.at_once())
        self.bar.show(len(self.outcomes), running, failed, len(self.run.held), self.left(), self.note)

    def left(self) -> float | None:
        """Seconds until the end, from what finished cells took for their ``cost``; ``None`` before there is one."""
        if not self.took:
            return None
        cost, kind = ({key: of(cell) for key, cell in self.cells.items()} for of in (self.store.cost, self.store.kind))
        now = time.monotonic()
        begun = {task.item: task.begun for task in self.run.running.values()}
        rates: dict[str, float] = {}
        for name in set(kind.values()):
            # a network that has not been through yet is taken to be like the others
            seen = [other for other in self.took if kind[other] == name] or list(self.took)
            rates[name] = sum(self.took[other] for other in seen) / sum(cost[other] for other in seen)
        needs = [0.0]
        for key in self.cells:
            if key not in self.outcomes:
                needs.append(max(rates[kind[key]] * cost[key] - (now - begun.get(key, now)), 0.0))
        return max(sum(needs) / max(1, self.pool.at_once()), *needs)


def load_records(frame: pd.DataFrame) -> list[RunRecord]:
    """The records of ``run_cells``' table.

    Raises:
        AudferError: a cell failed; names the cells and their errors.
    """
    failed = frame[frame["error"].notna()]
    if len(failed):
        lines = "; ".join(
            f"{row.model} {row.dataset} (lambda {row.au_ratio:g}, {row.strategy}): {row.error}"
            for row in failed.itertuples()
        )
        raise AudferError(f"{len(failed)} of {len(frame)} cells failed: {lines}")
    return [RunRecord.load(Path(path)) for path in frame["path"]]
