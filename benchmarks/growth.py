"""Does training cost more a clip, or take more memory, where there is more of it? ``python benchmarks/growth.py``.

One tiny network, one thread: processor seconds over a factor of 64 in clips and over one of 8 in cells of a grid, with
the highest anonymous memory of each (what a store's memory map shows of its file is the system's to give and take).
``seconds_more_each`` is what each further clip or cell took, from one size to the next: the start of a cell (building,
counting operations, test clips) is in every size alike. The clips are noise.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from model_speed import arguments_for, prepare, write_record
from train_throughput import cell_for, growth, store_for

from audfer.training.engine import threads
from audfer.training.loop import fit
from audfer.training.records import RunStore, run_cells

CLIPS, CELLS = (1, 4, 16, 64), (1, 2, 4, 8)


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind, MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024 / 1e6


def watched(work: Callable[[], object]) -> tuple[object, float]:
    """What ``work`` gives, and the highest ``anonymous_mb`` meanwhile."""
    highest, done = [anonymous_mb()], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            highest.append(anonymous_mb())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        return work(), max(highest)
    finally:
        done.set()
        watcher.join()


def main() -> None:
    """Measure, print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=1)
    parser.add_argument("--clips", type=int, default=32, help="training clips of the smallest size (default: 32)")
    arguments = parser.parse_args()
    arguments.device, arguments.threads, arguments.clock = "cpu", 1, "processor"
    _, clock, where = prepare(arguments)
    os.environ.setdefault("AUDFER_PROGRESS", "off")
    record = {"benchmark": "growth", **where, "results": []}
    start = time.perf_counter()
    model = arguments.models[0] if len(arguments.models) == 1 else "former_dfer"
    cell = replace(cell_for(model, "cpu"), evaluate_every=2)
    with tempfile.TemporaryDirectory() as scratch, threads(torch.get_num_threads()):
        root, rows = Path(scratch), {"clips": [], "cells": []}
        # warms up, at a middle size: what an allocator keeps for batches it then has
        fit(cell, store_for(root, arguments.clips * CLIPS[-2], cell))
        for factor in CLIPS:
            inputs = store_for(root, arguments.clips * factor, cell)
            spent, (_, memory) = clock.time(lambda inputs=inputs: watched(lambda: fit(cell, inputs)))
            rows["clips"].append((arguments.clips * factor, spent, memory))
        made = store_for(root, arguments.clips, cell)
        for factor in CELLS:
            cells, store = [replace(cell, seed=seed) for seed in range(factor)], RunStore(root / f"runs{factor}")
            work = lambda cells=cells, store=store: run_cells(cells, {cell.source: made}, store, workers=1)  # noqa: E731
            spent, (table, memory) = clock.time(lambda work=work: watched(work))
            assert table["error"].isna().all(), table["error"].tolist()
            rows["cells"].append((factor, spent, memory))
    for what, sizes in rows.items():
        counts, seconds, memory = zip(*sizes, strict=True)
        row = {"of": what, "model": model, **growth(list(counts), list(seconds))}
        more = zip(pairwise(counts), pairwise(seconds), strict=True)
        row["seconds_more_each"] = [round((b - a) / (n - m), 5) for (m, n), (a, b) in more]
        row["memory_mb"] = [round(one) for one in memory]
        row["memory_growth"] = round(max(memory) / memory[0], 3)
        record["results"].append(row)
        print(json.dumps(row), flush=True)
    write_record(record | {"seconds": round(time.perf_counter() - start)}, arguments.out)


if __name__ == "__main__":
    main()
