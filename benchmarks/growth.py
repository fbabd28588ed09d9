"""Does training cost more a clip, or take more memory, where there is more of it? ``python benchmarks/growth.py``.

One tiny network at the laptop profile's sizes, one thread: processor seconds over a factor of 64 in clips and over one
of 8 in cells of a grid, and the anonymous memory (what a store's memory map shows of its file is the system's to give
and take). Every size has a process of its own, so that none finds what another one's allocator has kept; in it the
smallest size comes first, which loads libraries, then the size itself several times. Of times and of peaks the least is
kept: whatever else the machine does only adds to them.

``seconds_more_each``: what each further clip or cell took, from one size to the next; the start of a cell (building,
counting operations, test clips) is in every size alike. ``memory_mb``: the highest, by size. ``kept_mb``: what is left
of it after each repeat, when the allocator has given back what it can. "clips, first": the first time that a store is
seen, with its contrast to be made. The clips are noise.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from model_speed import arguments_for, prepare, write_record
from train_throughput import cell_for, growth, store_for

from audfer.jobs.processes import PythonChild
from audfer.training.engine import threads
from audfer.training.loop import fit
from audfer.training.records import RunStore, run_cells

CLIPS, CELLS = (1, 4, 16, 64), (1, 2, 4, 8)


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind, MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024 / 1e6


def kept_mb() -> float:
    """The same, after what nobody needs has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous_mb()


def watched(work: Callable[[], object]) -> dict[str, float]:
    """Processor seconds that ``work`` takes, the highest ``anonymous_mb`` meanwhile, and ``kept_mb`` afterwards."""
    before = kept_mb()
    highest, done = [before], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            highest.append(anonymous_mb())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    start = time.process_time()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return {"seconds": time.process_time() - start, "memory_mb": max(highest), "kept_mb": kept_mb()}


def of_clips(root: str, cell, clips: int, smallest: int, repeats: int) -> list[dict]:
    """One cell on so many training clips, the first time and several times more; after the smallest size."""
    (warm := Path(root, "warm")).mkdir(exist_ok=True)
    with threads(1):
        fit(cell, store_for(warm, smallest, cell))
        inputs = store_for(Path(root), clips, cell)
        return [watched(lambda: fit(cell, inputs)) for _ in range(1 + repeats)]


def of_cells(root: str, cell, cells: int, clips: int, repeats: int) -> list[dict]:
    """A grid of so many cells, several times; after one cell."""
    made = store_for(Path(root), clips, cell)

    def grid() -> None:
        folder = tempfile.mkdtemp(dir=root)
        seeds = [replace(cell, seed=seed) for seed in range(cells)]
        table = run_cells(seeds, {cell.source: made}, RunStore(folder), workers=1)
        assert table["error"].isna().all(), table["error"].tolist()

    with threads(1):
        fit(cell, made)
        return [watched(grid) for _ in range(repeats)]


def summary(of: str, model: str, sizes: list[int], runs: list[list[dict]]) -> dict:
    """A row of the record, of the repeats by size."""
    seconds, memory = ([min(one[name] for one in size) for size in runs] for name in ("seconds", "memory_mb"))
    more = zip(pairwise(sizes), pairwise(seconds), strict=True)
    return {
        "of": of,
        "model": model,
        **growth(sizes, seconds),
        "seconds_more_each": [round((b - a) / (n - m), 5) for (m, n), (a, b) in more],
        "memory_mb": [round(one, 1) for one in memory],
        "memory_growth": round(max(memory) / memory[0], 3),
        "kept_mb": [[round(one["kept_mb"], 1) for one in size] for size in runs],
    }


def main() -> None:
    """Measure, print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=3)
    parser.add_argument("--clips", type=int, default=32, help="training clips of the smallest size (default: 32)")
    arguments = parser.parse_args()
    arguments.device, arguments.threads, arguments.clock = "cpu", 1, "processor"
    _, _, where = prepare(arguments)
    os.environ.setdefault("AUDFER_PROGRESS", "off")
    record = {"benchmark": "growth", **where, "results": []}
    start = time.perf_counter()
    model = arguments.models[0] if len(arguments.models) == 1 else "former_dfer"
    cell = replace(cell_for(model, "cpu"), num_frames=4, recipe=f"{model}-tiny-start")
    own = import_module(Path(__file__).stem)  # processes find it by that name
    sizes = [arguments.clips * factor for factor in CLIPS]
    with tempfile.TemporaryDirectory() as root:
        for of, work, counts in (("clips", own.of_clips, sizes), ("cells", own.of_cells, list(CELLS))):
            runs = []
            for count in counts:
                child = PythonChild()
                runs.append(child.call(work, root, cell, count, sizes[0], arguments.repeats, seconds=3600))
                child.close()
            if of == "clips":
                record["results"].append(summary("clips, first", model, counts, [size[:1] for size in runs]))
                runs = [size[1:] for size in runs]
            record["results"].append(summary(of, model, counts, runs))
            print(*map(json.dumps, record["results"]), sep="\n", flush=True)
    record["load_after"] = round(os.getloadavg()[0], 2)
    write_record(record | {"seconds": round(time.perf_counter() - start)}, arguments.out)


if __name__ == "__main__":
    main()
