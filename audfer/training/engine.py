"""The training loop, the only one: whatever is trained here is a ``Task`` of it.

A task says what it is made of (network, batches, losses, what to look at after an epoch); the loop does the rest:
learning rates, gradient clipping, several processes, time and memory, a loss that is not finite, and a checkpoint after
every epoch. It is deterministic under the task's seeds, and a run that goes on from a checkpoint ends with the numbers
that it would have had without the interruption.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..errors import AudferError
from ..files import UNREADABLE, atomic_file
from ..progress import progress
from ..recipes import Recipe
from . import distributed
from .recipes import build_optimizer, learning_rate, set_learning_rate

#: steps from one look at the losses to the next; a look waits for the GPU
_WATCH = 16


class Task(ABC):
    """What the loop trains.

    Attributes:
        label: what it is called in sentences.
        model: the network, on its device. recipe: how it is trained.
        epochs: passes over what it is trained on.
        device: "cpu" or "cuda".
        precision: "bf16" (autocast) or "float32".
        terms: names of its losses in the history; the first one is minimised.
        generators: everything random that it draws from, NumPy's or torch's, by name. Their states are part of the
            checkpoint, as are those of torch's global generators.
    """

    label: str
    model: nn.Module
    recipe: Recipe
    epochs: int
    device: str = "cpu"
    precision: str = "float32"
    terms: tuple[str, ...] = ("loss",)
    generators: dict[str, np.random.Generator | torch.Generator]

    @abstractmethod
    def batches(self, epoch: int) -> Sequence[np.ndarray]:
        """What each step of an epoch (from 0) is trained on: numbers of clips or pictures."""

    @abstractmethod
    def read(self, rows: np.ndarray):
        """A batch as ``losses`` takes it: read, augmented, on the device."""

    @abstractmethod
    def losses(self, batch) -> Sequence[Tensor]:
        """Its losses, scalars, in the order of ``terms``; NaN for one that this task does not have."""

    def backward(self, batch) -> Tensor:
        """Leave the gradients of a batch in the network; its losses (terms,), detached.

        Of several processes that train together each has its share of gradients and losses: they add up.
        """
        losses = self.losses(batch)
        losses[0].backward()
        return torch.stack([loss.detach() for loss in losses])

    def look(self, epoch: int) -> dict:
        """Judge the network after an epoch: further columns of the history, or other values of the loop's own."""
        return {}

    def state(self) -> dict:
        """What else a checkpoint has to hold: tensors and plain values."""
        return {}

    def load_state(self, state: dict) -> None:  # noqa: B027
        """Take up what ``state`` gave; most tasks have nothing."""

    def optimizer(self) -> torch.optim.Optimizer:
        """The recipe's, on a new network."""
        return build_optimizer(self.model, self.recipe, fused=True)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of all steps."""
        return learning_rate(self.recipe, step, steps)

    def named(self, rows: np.ndarray) -> str:
        """A batch in words, for the sentence that says with which one training failed; "" to leave it out."""
        return ""


def autocast(settings):
    """The autocast context that a task or a cell (anything with ``device`` and ``precision``) asks for."""
    kind = torch.device(settings.device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=settings.precision == "bf16")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads in the block. With one the order of floating-point sums, and so the numbers, do not depend on the
    machine's cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_threads():
    """As many threads on every machine, for work that one would be too slow for: sums over another number of them
    round otherwise. The networks here gain little from more than two.
    """
    return threads(2)


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """A block that begins with torch's global generators seeded, and puts them back as they were afterwards."""
    with torch.random.fork_rng([torch.cuda.current_device()] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def reproducible(seed: int, device: str) -> Iterator[None]:
    """``seeded``, and on a CPU with one thread."""
    with threads(1 if device == "cpu" else torch.get_num_threads()), seeded(seed, device):
        yield


@contextmanager
def epoch_bar(epochs: int, desc: str, note: Callable[[dict], str], report=None, **options) -> Iterator[Callable]:
    """A progress bar over epochs; gives the ``report`` for ``train``, which passes rows on to the caller's own.

    Args:
        note: an epoch's row -> text at the end of the bar.
    """
    with progress(total=epochs, desc=desc, unit="epoch", **options) as bar:

        def shown(row: dict) -> None:
            bar.set_postfix_str(note(row))
            bar.update(row["epoch"] - bar.n)  # a resumed run begins later
            if report:
                report(row)

        yield shown


def train(
    task: Task, scratch: str | Path | None = None, key: str = "", report: Callable[[dict], object] | None = None
) -> tuple[list[dict], dict[str, float]]:
    """Train a task to its last epoch.

    Args:
        scratch: folder for the checkpoint after every epoch but the last (``state.pt``, and ``history.csv`` to look
            at); an unfinished run found there is gone on with. Several machines need one that all of them see.
        key: digest of everything that the numbers depend on, where the folder's name is none: a checkpoint with
            another one is not gone on with.
        report: called with each epoch's history row, after the checkpoint was written.

    Returns:
        The history, one row per epoch: epoch (from 1), means of the task's ``terms`` over the steps, learning_rate of
        the last step, what ``Task.look`` adds, seconds. And what it took: input_seconds (reading and augmenting; on a
        GPU: during which it had nothing else to do), step_seconds, evaluation_seconds, clips (seen in training),
        peak_memory_mb, peak_gpu_memory_mb.

    Raises:
        AudferError: the loss stopped being finite, with the batch.
    """
    _start_memory(task.device)
    distributed.share_batch_norms(task.model)
    optimizer = task.optimizer()
    history: list[dict] = []
    measured = dict.fromkeys(
        ("input_seconds", "step_seconds", "evaluation_seconds", "clips", "peak_memory_mb", "peak_gpu_memory_mb"), 0.0
    )
    checkpoint = Path(scratch) / "state.pt" if scratch else None
    if checkpoint and checkpoint.is_file():
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except UNREADABLE as error:  # what it held can be trained again
            print(f"{checkpoint}: damaged ({type(error).__name__}), so {task.label} begins again", file=sys.stderr)
            state = {}
        if state.get("key") == key:
            _resume(task, optimizer, state)
            history, measured = state["history"], state["measured"]

    for epoch in range(len(history), task.epochs):
        started = time.perf_counter()
        task.model.train()
        sums = torch.zeros(len(task.terms), dtype=torch.float64, device=task.device)
        batches = task.batches(epoch)
        seen, watch = torch.zeros(len(batches), device=task.device), _Stopwatch(task.device)
        watch.mark()
        for number, rows in enumerate(batches):
            rate = task.rate(epoch * len(batches) + number, task.epochs * len(batches))
            set_learning_rate(optimizer, rate)
            batch = task.read(rows)
            watch.mark()
            optimizer.zero_grad(set_to_none=True)
            losses = task.backward(batch)
            distributed.add_gradients(task.model)
            if task.recipe.clip_gradient:
                nn.utils.clip_grad_norm_(task.model.parameters(), task.recipe.clip_gradient)
            optimizer.step()
            sums += losses  # stays on the device, as do the batches' losses: no synchronisation in a step
            seen[number] = losses[0]
            watch.mark()
            if (number + 1) % _WATCH == 0 or number + 1 == len(batches):
                _check_finite(task, epoch, batches, distributed.total(seen.clone()).cpu())
        means = [value / len(batches) for value in distributed.total(sums).tolist()]
        laps, trained = watch.laps(), time.perf_counter()
        row = {"epoch": epoch + 1, **dict(zip(task.terms, means, strict=True)), "learning_rate": rate}
        row |= task.look(epoch)
        ended = time.perf_counter()
        history.append(row | {"seconds": ended - started})
        measured["input_seconds"] += float(laps[0::2].sum())
        measured["step_seconds"] += float(laps[1::2].sum())
        measured["evaluation_seconds"] += ended - trained
        measured["clips"] += sum(map(len, batches))
        measured |= {name: max(measured[name], value) for name, value in _peak_memory(task.device).items()}
        with distributed.agreed():
            if checkpoint and epoch + 1 < task.epochs and distributed.rank() == 0:
                _save(checkpoint, task, optimizer, {"key": key, "history": history, "measured": measured})
        if report:
            report(history[-1])
    return history, measured


def _save(checkpoint: Path, task: Task, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Write the checkpoint of a whole epoch."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = {
        **progress,
        "model": task.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "task": task.state(),
        "generators": {
            name: one.get_state() if isinstance(one, torch.Generator) else one.bit_generator.state
            for name, one in task.generators.items()
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if task.device.startswith("cuda") else None,
    }
    with atomic_file(checkpoint) as temporary:
        torch.save(state, temporary)
    with atomic_file(checkpoint.with_name("history.csv")) as temporary:
        pd.DataFrame(state["history"]).to_csv(temporary, index=False)


def _resume(task: Task, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Put everything back to where ``_save`` was called."""
    task.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    task.load_state(state["task"])
    for name, one in task.generators.items():
        if isinstance(one, torch.Generator):
            one.set_state(state["generators"][name])
        else:
            one.bit_generator.state = state["generators"][name]
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


def _check_finite(task: Task, epoch: int, batches: Sequence[np.ndarray], losses: Tensor) -> None:
    """Stop at the first batch whose loss (of all processes) is not finite; batches to come have 0."""
    for number, value in enumerate(losses.tolist()):
        if not math.isfinite(value):
            named = task.named(batches[number])
            raise AudferError(
                f"{task.label}: the loss became {value} in epoch {epoch + 1}, batch {number + 1} of {len(batches)}"
                f"{named and f' ({named})'}; lower the learning rate (now at most {task.recipe.learning_rate:g}) "
                "or train in float32"
            )


class _Stopwatch:
    """Seconds between marks; on a GPU its own, read only once the work is done."""

    def __init__(self, device: str):
        self.on_gpu, self.marks = device.startswith("cuda"), []

    def mark(self) -> None:
        if self.on_gpu:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def laps(self) -> np.ndarray:
        """Seconds from each mark to the next."""
        if not self.on_gpu:
            return np.diff(self.marks)
        torch.cuda.synchronize()
        return np.array([a.elapsed_time(b) / 1e3 for a, b in pairwise(self.marks)])


def _start_memory(device: str) -> None:
    """Have ``_peak_memory`` count from here, as far as the system allows."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the process's peak since it began
        pass
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(device: str) -> dict[str, float]:
    """Highest resident memory of this process and, on a GPU, highest allocated memory, MB."""
    # Linux counts in kB, macOS in bytes
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
    return {"peak_memory_mb": memory / 1e6, "peak_gpu_memory_mb": gpu / 1e6}
