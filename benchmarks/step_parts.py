"""What of a tiny network's training step does not depend on its clips: ``python benchmarks/step_parts.py``.

The step of the laptop profile (its recipe, 32 clips of four frames, one thread), taken apart at four sizes of batch:
reading with augmentation, forward, backward, clipping of gradients, optimizer, each the least of several processor
times. A line through the sizes gives what is fixed (its intercept) and what each clip adds. ``operations``: of PyTorch
in one step, those inside others too; ``own_share``: of the fixed part at most so much is spent in this package's own
functions, arithmetic on tensors that is written there included (by cProfile, which makes small functions look slower
than they are).
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from model_speed import arguments_for, prepare, write_record
from torch import nn
from train_throughput import cell_for, store_for

from audfer.training.engine import threads
from audfer.training.loop import CellTask

SIZES = (8, 16, 32, 64)
PARTS = ("read", "forward", "backward", "clip gradients", "optimizer")


def step(task: CellTask, optimizer, rows: np.ndarray) -> list[float]:
    """One training step; processor seconds of ``PARTS``."""
    marks = [time.process_time()]
    batch = task.read(rows)
    marks.append(time.process_time())
    losses = task.losses(batch)
    marks.append(time.process_time())
    losses[0].backward()
    marks.append(time.process_time())
    if task.recipe.clip_gradient:
        nn.utils.clip_grad_norm_(task.model.parameters(), task.recipe.clip_gradient)
    marks.append(time.process_time())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    marks.append(time.process_time())
    return np.diff(marks).tolist()


def own_share(task: CellTask, optimizer, steps: int = 10) -> float:
    """Share of a step of two clips that is spent in functions of this package."""
    watch = cProfile.Profile(time.process_time)
    watch.enable()
    for _ in range(steps):
        step(task, optimizer, task.training[:2])
    watch.disable()
    own = {where: row[2] for where, row in pstats.Stats(watch).stats.items()}
    return sum(spent for (file, _, _), spent in own.items() if "/audfer/" in file) / sum(own.values())


def measure(name: str, root: Path, repeats: int) -> dict:
    """A row of the record."""
    cell = replace(cell_for(name, "cpu"), num_frames=4, precision="float32", recipe=f"{name}-tiny-start")
    task = CellTask(cell, store_for(root, SIZES[-1], cell))
    optimizer, batch = task.optimizer(), cell.training_recipe.batch_size
    task.model.train()
    task.batches(0)
    least = {}
    for size in SIZES:
        rows = [step(task, optimizer, task.training[:size]) for _ in range(repeats + 3)][3:]
        least[size] = 1e3 * np.min(rows, axis=0)
    slopes, fixed = np.polyfit(SIZES, np.array([least[size] for size in SIZES]), 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step(task, optimizer, task.training[:batch])
    return {
        "model": name,
        "batch": batch,
        "step_ms": {size: round(float(parts.sum()), 1) for size, parts in least.items()},
        "parts_ms": dict(zip(PARTS, least[batch].round(2).tolist(), strict=True)),
        "fixed_ms": dict(zip(PARTS, fixed.round(2).tolist(), strict=True)),
        "ms_a_clip": dict(zip(PARTS, slopes.round(3).tolist(), strict=True)),
        "fixed_share": round(float(fixed.sum() / least[batch].sum()), 3),
        "operations": sum(event.count for event in seen.key_averages() if event.key.startswith("aten::")),
        "parameters": sum(1 for _ in task.model.parameters()),
        "own_share": round(own_share(task, optimizer), 3),
    }


def main() -> None:
    """Measure, print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=12)
    parser.set_defaults(models=["m3dfel", "mae_dfer", "former_dfer"])
    arguments = parser.parse_args()
    arguments.device, arguments.threads, arguments.clock = "cpu", 1, "processor"
    _, _, where = prepare(arguments)
    os.environ.setdefault("AUDFER_PROGRESS", "off")
    record = {"benchmark": "step_parts", **where, "results": []}
    with tempfile.TemporaryDirectory() as root, threads(1):
        for name in arguments.models:
            record["results"].append(row := measure(name, Path(root), arguments.repeats))
            print(json.dumps(row), flush=True)
    write_record(record | {"load_after": round(os.getloadavg()[0], 2)}, arguments.out)


if __name__ == "__main__":
    main()
