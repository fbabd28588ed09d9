"""What training waits for, and how it grows: ``python benchmarks/train_throughput.py``.

For every network with its own recipe: clips a second of the input pipeline alone (read from the packed store, choose
    frames,
augment), of the training step alone (on a batch that is ready), and of both as ``fit`` runs them, with the share of the
time that was spent waiting for clips. Then seconds over a factor of eight in clips, and in cells of a grid: linear
growth has exponent 1. On a GPU paper-size networks in bfloat16, and the share of the card's measured bfloat16 matrix
rate that a step reaches; on a CPU the tiny ones with one thread, as cells are trained there. The clips are noise: their
content changes no time.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from model_speed import Clock, arguments_for, prepare, spread, write_record

from audfer.facs import EXPRESSIONS
from audfer.files import write_sealed
from audfer.knowledge import KnowledgeMatrix
from audfer.models import count_flops, default_clip_shape
from audfer.training import augmentation
from audfer.training.engine import threads
from audfer.training.loop import Cell, CellInputs, CellTask, fit, resolve_precision
from audfer.training.records import RunStore, run_cells

FACTORS = (1, 2, 4, 8)


def store_for(root: Path, train: int, cell: Cell) -> CellInputs:
    """A packed store of noise with ``train`` training and 14 test clips, and AU labels for them; made once."""
    frames, side, count = 2 * cell.num_frames, cell.image_size, train + 14
    folder = root / f"{train}x{frames}x{side}"
    inputs = CellInputs(
        str(folder),
        str(folder / "aus.npz"),
        str(folder / "knowledge.json"),
        folder.name,
        folder.name,
        landmarks=str(folder / "landmarks.npy"),
        landmarks_fingerprint=folder.name,
    )
    if folder.exists():
        return inputs
    folder.mkdir()
    generator = np.random.default_rng(0)
    array = np.lib.format.open_memmap(
        folder / "frames.npy", mode="w+", dtype=np.uint8, shape=(count, frames, side, side, 3)
    )
    for clip in range(count):
        array[clip] = generator.integers(0, 256, array.shape[1:], dtype=np.uint8)
    array.flush()
    ids = [f"{clip:05d}" for clip in range(count)]
    np.save(folder / "frame_numbers.npy", np.tile(np.arange(frames, dtype=np.int32), (count, 1)))
    pd.DataFrame(
        {
            "clip_id": ids,
            "path": ids,
            "start": 0,
            "stop": -1,
            "split": ["train"] * train + ["test"] * 14,
            "expression": np.arange(count) % 7,
            "subject": "",
        }
    ).to_parquet(folder / "manifest.parquet")
    meta = {"format": 2, "dataset": "noise", "num_frames": frames, "size": side, "rule": "", "pixels": folder.name}
    write_sealed(folder / "meta.json", {**meta, "classes": EXPRESSIONS, "fingerprint": folder.name})
    np.save(folder / "landmarks.npy", generator.random((count, frames, 68, 2), dtype=np.float32))
    np.savez(
        folder / "aus.npz", clip_ids=np.array(ids), labels=generator.integers(0, 2, (count, 18)).astype(np.float32)
    )
    KnowledgeMatrix.published().save(folder / "knowledge.json")
    return inputs


def cell_for(name: str, device: str) -> Cell:
    """The cell that is timed: with the AU head, one epoch."""
    size = "tiny" if device == "cpu" else "paper"
    frames, _, side, _ = default_clip_shape(name, size)
    return Cell(
        name,
        "DFEW",
        0.25,
        "global",
        "knowledge",
        size=size,
        epochs=1,
        num_frames=frames,
        image_size=side,
        precision=resolve_precision("auto", device),
        device=device,
    )


def adjusted(clips: torch.Tensor, kinds: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """One turn of the colour jitter without lists of clips: every change of every clip, of which each keeps its own.

    For a compiler, which makes one kernel of it (and one of the means of frames), where clip by clip it is 15 passes
    over the batch. Arguments as of ``augmentation._apply``.
    """
    result = clips
    for kind, change in enumerate(augmentation._ADJUSTMENTS):
        own = kinds == kind
        nothing = 0.0 if change is augmentation._ADJUSTMENTS[-1] else 1.0  # the hue is turned by it, not multiplied
        changed = change(clips, torch.where(own, amounts, nothing))
        result = torch.where(own.view(-1, 1, 1, 1, 1), changed, result)
    return result


@contextmanager
def fused_colours(compiled: bool = True):
    """A block in which colour jitter is ``adjusted``, compiled: in this benchmark alone until a card has seen it."""
    before = augmentation._apply
    change = torch.compile(adjusted, dynamic=False) if compiled else adjusted

    def apply(clips, kinds, changes, *amounts):
        if changes is not augmentation._ADJUSTMENTS:
            return before(clips, kinds, changes, *amounts)
        return change(clips, kinds.to(clips.device), amounts[0].to(clips.device))

    augmentation._apply = apply
    try:
        yield
    finally:
        augmentation._apply = before


def apart(cell: Cell, inputs: CellInputs, clock: Clock, repeats: int, fused: bool = False) -> dict:
    """Clips a second of the input pipeline and of the step, each alone; of the former also with ``fused_colours``."""
    task, order = CellTask(cell, inputs), np.random.default_rng(0)
    size = min(task.recipe.batch_size, len(task.training))
    model, optimizer = task.model.train(), task.optimizer()
    task.batches(0)

    def read(_) -> tuple:
        return task.read(order.permutation(task.training)[:size])

    batch = read(0)

    def step(_) -> None:
        optimizer.zero_grad(set_to_none=True)
        task.backward(batch)
        optimizer.step()

    seconds = {
        name: [clock.time(lambda: work(0))[0] for _ in range(repeats + 2)][2:]
        for name, work in (("input", read), ("step", step))
    }
    row = {f"{name}_clips_per_second": spread([size / spent for spent in times]) for name, times in seconds.items()}
    if fused and cell.training_recipe.augmentation.colour_jitter:
        try:
            with fused_colours():
                times = [clock.time(lambda: read(0))[0] for _ in range(repeats + 2)][2:]
                augment, frames = task.generators["augment"], task.generators["order"].bit_generator
                states = augment.get_state(), frames.state
                fast = task.read(task.training[:size])[0]
            row["fused_input_clips_per_second"] = spread([size / spent for spent in times])
            augment.set_state(states[0])
            frames.state = states[1]
            row["fused_input_difference"] = float((fast - task.read(task.training[:size])[0]).abs().max())
        except Exception as error:  # what a compiler raises; nothing that was measured is lost
            row["fused_input_failed"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    # forward and backward are three times the forward pass
    flops = 3 * size * count_flops(model, (cell.num_frames, 3, cell.image_size, cell.image_size))["gflops"]
    return {
        "model": cell.model,
        "size": cell.size,
        "precision": cell.precision,
        "batch": size,
        **row,
        "step_gflops_per_second": spread([flops / spent for spent in seconds["step"]])["median"],
    }


def matrix_rate(device: str, clock: Clock, side: int = 8192) -> float:
    """Measured GFLOP/s of a large bfloat16 matrix product."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [clock.time(lambda: left @ right)[0] for _ in range(12)][2:]
    return 2 * side**3 / 1e9 / min(times)


def growth(sizes: list[int], seconds: list[float]) -> dict:
    """Exponent of the growth (1 = linear) and seconds a piece."""
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    return {
        "sizes": sizes,
        "seconds": [round(s, 3) for s in seconds],
        "exponent": round(float(exponent), 3),
        "seconds_each": [round(s / n, 4) for n, s in zip(sizes, seconds, strict=True)],
    }


def main() -> None:
    """Measure, print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=8)
    parser.add_argument("--clips", type=int, default=64, help="training clips of the smallest size (default: 64)")
    parser.add_argument("--fused", action="store_true", help="also read with colour jitter as one compiled function")
    arguments = parser.parse_args()
    if arguments.batch:
        parser.error("--batch: every network has its recipe's")
    arguments.threads = arguments.threads or (
        1 if arguments.device != "cuda" and not torch.cuda.is_available() else None
    )
    device, clock, where = prepare(arguments)
    os.environ.setdefault("AUDFER_PROGRESS", "off")
    record = {"benchmark": "train_throughput", **where, "results": []}
    start = time.perf_counter()
    rate = matrix_rate(device, clock) if device == "cuda" else None
    if rate:
        record["bf16_matrix_gflops"] = round(rate)
    with tempfile.TemporaryDirectory() as scratch, threads(torch.get_num_threads()):
        root = Path(scratch)
        for name in arguments.models:
            cell = cell_for(name, device)
            least = max(arguments.clips, cell.training_recipe.batch_size)
            inputs = [store_for(root, least * factor, cell) for factor in FACTORS]
            row = apart(cell, inputs[-1], clock, arguments.repeats, arguments.fused)
            fit(cell, inputs[0])  # warms up
            costs = [fit(cell, made)["costs"] for made in inputs]
            row |= {
                "fit_clips_per_second": round(costs[-1]["clips_per_second"], 1),
                "input_share": round(costs[-1]["input_share"], 4),
                "bound": costs[-1]["bound"],
                "peak_memory_mb": round(costs[-1]["peak_memory_mb"]),
                "peak_gpu_memory_mb": round(costs[-1]["peak_gpu_memory_mb"]),
                "growth_in_clips": growth(
                    [least * factor for factor in FACTORS], [c["training_seconds"] for c in costs]
                ),
            }
            if rate:
                row["share_of_matrix_rate"] = round(row["step_gflops_per_second"] / rate, 4)
            record["results"].append(row)
            print(json.dumps(row), flush=True)
        seconds = []
        cell = cell_for(arguments.models[0], device)
        made = store_for(root, max(arguments.clips, cell.training_recipe.batch_size), cell)
        for factor in FACTORS:
            cells = [replace(cell, seed=seed) for seed in range(factor)]
            spent, table = clock.time(
                lambda: run_cells(cells, {cell.source: made}, RunStore(root / f"runs{factor}"), workers=1)
            )
            assert table["error"].isna().all(), table["error"].tolist()
            seconds.append(spent)
        record["growth_in_cells"] = growth(list(FACTORS), seconds)
        print(json.dumps(record["growth_in_cells"]), flush=True)
    write_record(record | {"seconds": round(time.perf_counter() - start)}, arguments.out)


if __name__ == "__main__":
    main()
