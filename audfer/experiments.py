"""Grids of cells and the store of their run records.

A record is one folder, named by a digest of everything that can change the result: the cell, the recipe, the data's
fingerprint and the version of the code that computes it. It is written atomically and found again by a later call,
so that a second run trains nothing, and deleting one record re-makes only that one.
"""

from __future__ import annotations

import json
import platform
import shutil
from concurrent.futures import Executor, FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from .errors import AudferError, InputError
from .facs import EXPRESSIONS
from .files import atomic_folder, code_version, digest, locked, write_json
from .progress import progress
from .training import Cell, CellInputs, fit

SAMPLING_RULE = ("training: one frame drawn uniformly from each of num_frames equal segments; "
                 "evaluation: the middle frame of each segment, no augmentation")
#: what a record's numbers depend on, besides the network's own file
_CODE = ("training.py", "losses.py", "datasets/sampling.py", "models/heads.py", "models/__init__.py")


@dataclass
class RunRecord:
    """What one trained cell left behind; everything that tables and figures need.

    Attributes:
        path: the record's folder; its name is the digest.
        cell: the cell's fields as a dictionary.
        history: one row an epoch: epoch, loss, loss_expression, loss_au (NaN without an AU head), train_war,
            train_uar, test_war, test_uar (shares 0..1), test_loss, learning_rate, seconds.
        clip_ids, expressions: of the test split, (N,).
        scores: (N, 7) soft-max probabilities after the last epoch; ``best_scores`` after the epoch ``best_epoch`` with
            the highest WAR + UAR on the test split (the protocol of the official releases, kept under its own name).
        au_scores: (N, 18) AU probabilities or None; features: (N, D) what both heads see.
        flops: ``gflops``, ``gmacs``, ``parameters`` of one clip. seconds: training time.
        environment: versions, processor, device; precision is a field of the cell.
    """

    path: Path
    cell: dict
    history: pd.DataFrame
    clip_ids: list[str]
    expressions: np.ndarray
    scores: np.ndarray
    best_scores: np.ndarray
    best_epoch: int
    au_scores: np.ndarray | None
    features: np.ndarray
    flops: dict
    seconds: float
    environment: dict

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read a record's folder.

        Raises:
            InputError: a file of the record is missing or unreadable.
        """
        path = Path(path)
        try:
            meta = json.loads((path / "record.json").read_text())
            with np.load(path / "test.npz", allow_pickle=False) as arrays:
                stored = {name: arrays[name] for name in arrays.files}
            history = pd.read_csv(path / "history.csv")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(path, "run record", f"{type(error).__name__}: {error}",
                             "record.json, history.csv and test.npz; delete the folder to make it again") from None
        return cls(path=path, cell=meta["cell"], history=history, clip_ids=stored["clip_ids"].tolist(),
                   expressions=stored["expressions"], scores=stored["scores"], best_scores=stored["best_scores"],
                   best_epoch=meta["best_epoch"], au_scores=stored.get("au_scores"), features=stored["features"],
                   flops=meta["flops"], seconds=meta["seconds"], environment=meta["environment"])


class RunStore:
    """A folder of run records.

    Args:
        folder: made if missing. Records that are being made lie in ``.unfinished`` inside.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def key(self, cell: Cell, inputs: CellInputs) -> str:
        """Digest of everything that can change the cell's result; AU labels count only where an AU head uses them."""
        content = {"cell": asdict(cell), "recipe": asdict(cell.recipe), "data": inputs.fingerprint,
                   "code": code_version(*_CODE, f"models/{cell.model}.py"), "torch": torch.__version__.split("+")[0]}
        if cell.uses_aus:
            content["au"] = inputs.au_fingerprint
        return digest(content)

    def path(self, key: str) -> Path:
        """Where the record of that key lies or will lie."""
        return self.folder / key

    def has(self, key: str) -> bool:
        """Whether a whole record is there."""
        return (self.path(key) / "record.json").is_file()

    def records(self) -> list[RunRecord]:
        """All records of the store, in order of their keys."""
        return [RunRecord.load(p.parent) for p in sorted(self.folder.glob("*/record.json"))]


def make_record(store_folder: str, key: str, cell: Cell, inputs: CellInputs) -> str:
    """Train one cell and write its record; returns the record's folder. Runs in a worker process."""
    store = RunStore(store_folder)
    scratch = store.folder / ".unfinished" / key
    scratch.mkdir(parents=True, exist_ok=True)

    def report(row: dict) -> None:
        with (scratch / "history.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    outcome = fit(cell, inputs, scratch, report)
    with atomic_folder(store.path(key)) as folder:
        arrays = {name: outcome[name] for name in ("scores", "best_scores", "features")}
        if outcome["au_scores"] is not None:
            arrays["au_scores"] = outcome["au_scores"]
        np.savez_compressed(folder / "test.npz", clip_ids=np.array(outcome["clip_ids"]),
                            expressions=outcome["expressions"], **arrays)
        outcome["history"].to_csv(folder / "history.csv", index=False)
        save_file({k: v.contiguous() for k, v in outcome["state_dict"].items()}, folder / "weights.safetensors")
        write_json(folder / "record.json", {
            "cell": asdict(cell), "recipe": outcome["recipe"], "inputs": asdict(inputs), "key": key,
            "classes": list(EXPRESSIONS), "frame_sampling": SAMPLING_RULE, "best_epoch": outcome["best_epoch"],
            "protocol": "scores: last epoch; best_scores: epoch with the highest WAR + UAR on the test split",
            "flops": outcome["flops"], "seconds": outcome["seconds"], "environment": environment(cell.device)})
    shutil.rmtree(scratch, ignore_errors=True)
    return str(store.path(key))


def environment(device: str = "cpu") -> dict:
    """Versions, processor and device of this process, for records."""
    return {"audfer": version("audfer"), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "machine": platform.machine(), "cpu": torch.backends.cpu.get_cpu_capability(),
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}


def run_cells(cells: list[Cell], inputs: dict[str, CellInputs], store: RunStore, executor: Executor | None = None,
              workers: int = 0, desc: str = "training") -> pd.DataFrame:
    """Records of all cells; trains what the store lacks.

    Args:
        inputs: dataset -> what its cells are trained from.
        executor: anything with ``concurrent.futures``' ``submit`` (a Dask client's ``get_executor()``, submitit);
            ``None`` makes local processes.
        workers: local processes; 0 = one a core on CPU, one on a GPU; 1 = in this process.

    Returns:
        One row a cell, in the order given: the cell's fields, ``key``, ``path``, ``trained`` (bool), ``error`` (text
        or None). A cell that fails is a row with its error; the others go on.

    Raises:
        AudferError: another process is using the store.
    """
    keys = [store.key(cell, inputs[cell.dataset]) for cell in cells]
    missing = {key: cell for key, cell in zip(keys, cells) if not store.has(key)}
    errors: dict[str, str] = {}
    if missing:
        with locked(store.folder, "run store"):
            errors = _train(missing, inputs, store, executor, workers, desc)
    return pd.DataFrame([{**asdict(cell), "key": key, "path": str(store.path(key)), "trained": key in missing,
                          "error": errors.get(key)} for key, cell in zip(keys, cells)])


def _train(missing: dict[str, Cell], inputs, store: RunStore, executor, workers: int, desc: str) -> dict[str, str]:
    errors: dict[str, str] = {}
    on_gpu = any(cell.device == "cuda" for cell in missing.values())
    workers = min(workers or (1 if on_gpu else cpu_count() or 1), len(missing))
    bar = progress(total=len(missing), desc=desc, unit="cell")

    def finished(key: str, error: Exception | None) -> None:
        if error is not None:
            errors[key] = f"{type(error).__name__}: {error}"
        else:
            last = pd.read_csv(store.path(key) / "history.csv").iloc[-1]
            # numbers first: a line of a log ends at column 79
            bar.set_postfix_str(f"WAR {100 * last.test_war:.0f} UAR {100 * last.test_uar:.0f} {missing[key].label}")
        bar.update(1)

    with bar:
        if executor is None and workers == 1:
            for key, cell in missing.items():
                try:
                    make_record(str(store.folder), key, cell, inputs[cell.dataset])
                    finished(key, None)
                except Exception as error:  # a row with its error; the other cells go on
                    finished(key, error)
            return errors
        # spawned, not forked: forking after CUDA or torch's thread pool has started can hang
        own = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if executor is None else None
        try:
            # the longest cells first, so that the cores end together
            order = sorted(missing, key=lambda key: -_cost(missing[key]))
            futures = {(own or executor).submit(make_record, str(store.folder), key, missing[key],
                                                inputs[missing[key].dataset]): key for key in order}
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    finished(futures[future], future.exception())
        finally:
            if own is not None:
                own.shutdown(wait=True, cancel_futures=True)
    return errors


def _cost(cell: Cell) -> float:
    """Rough relative training time, only for the order of submission."""
    return {"mae_dfer": 1.8}.get(cell.model, 1.0) * cell.epochs * cell.num_frames * cell.image_size ** 2


def load_records(frame: pd.DataFrame) -> list[RunRecord]:
    """The records of ``run_cells``' table.

    Raises:
        AudferError: a cell failed; names the cells and their errors.
    """
    failed = frame[frame["error"].notna()]
    if len(failed):
        lines = "; ".join(f"{row.model} {row.dataset} (lambda {row.au_ratio:g}, {row.strategy}): {row.error}"
                          for row in failed.itertuples())
        raise AudferError(f"{len(failed)} of {len(frame)} cells failed: {lines}")
    return [RunRecord.load(Path(path)) for path in frame["path"]]
