"""How fast and in how much memory OpenFace CSVs become an AU table: ``python benchmarks/au_import.py``.

Clip-sized files (about 100 frames, all 714 columns of OpenFace 2.x, half of them with spaced cells) are generated: some
distinct contents, copied to many names. ``audfer au import`` reads all of them with one process a core; a plain loop of
``pandas.read_csv`` over whole files reads a sample before and after, in the same run. Processor time stands beside the
clock's, because it does not grow when other work shares the machine. Memory is the sum over all processes of this run,
sampled every 20 ms (pages that processes share are counted once for each).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow

from audfer.action_units.importing import import_folder
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS

EYES = [f"eye_lmk_{axis}_{i}" for axis in ("x", "y", "X", "Y", "Z") for i in range(56)]
COLUMNS = [
    "frame",
    "face_id",
    "timestamp",
    "confidence",
    "success",
    *(f"gaze_{eye}_{axis}" for eye in "01" for axis in "xyz"),
    "gaze_angle_x",
    "gaze_angle_y",
    *EYES,
    *(f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"),
    *(f"{axis}_{i}" for axis in "xyXYZ" for i in range(68)),
    "p_scale",
    "p_rx",
    "p_ry",
    "p_rz",
    "p_tx",
    "p_ty",
    *(f"p_{i}" for i in range(34)),
    *INTENSITY_COLUMNS,
    *PRESENCE_COLUMNS,
]


def content(seed: int) -> tuple[bytes, int]:
    """One file as FeatureExtraction writes it, and its number of frames."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(90, 111))
    separator = (",", ", ")[seed % 2]
    formats = []
    for name in COLUMNS:
        digits = (
            6
            if name.startswith("gaze_") and "angle" not in name
            else 1
            if name[0] in "exyXYZ" or "pose_T" in name
            else 2
            if name.startswith(("AU", "confidence"))
            else 3
        )
        formats.append("%d" if name in ("frame", "face_id", "success") else f"%.{digits}f")
    values = rng.normal(0, 100, (frames, len(COLUMNS)))
    at = {name: i for i, name in enumerate(COLUMNS)}
    values[:, at["frame"]] = np.arange(1, frames + 1)
    values[:, at["timestamp"]] = np.arange(frames) / 30
    values[:, at["face_id"]] = 0
    values[:, at["confidence"]], values[:, at["success"]] = 0.98, 1
    lost = rng.random(frames) < 0.02
    values[:, [at[name] for name in INTENSITY_COLUMNS]] = np.clip(rng.normal(0, 1.2, (frames, 17)), 0, 5)
    values[:, [at[name] for name in PRESENCE_COLUMNS]] = rng.random((frames, 18)) < 0.3
    values[np.ix_(lost, [at["confidence"], at["success"]])] = 0
    row = separator.join(formats)
    return "\n".join([separator.join(COLUMNS), *(row % tuple(line) for line in values), ""]).encode(), frames


def generate(folder: Path, files: int, distinct: int) -> tuple[int, int]:
    """Write the files; returns rows and bytes in all."""
    contents = [content(seed) for seed in range(distinct)]
    for number in range(files):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(exist_ok=True)
        (place / f"clip_{number:05d}.csv").write_bytes(contents[number % distinct][0])
    used = [contents[number % distinct] for number in range(files)]
    return sum(frames for _, frames in used), sum(len(raw) for raw, _ in used)


class Memory(threading.Thread):
    """Largest sum of resident memory of this process and its children while the ``with`` block runs, in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.processes, self._end = 0, 0, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._end.wait(0.02):
            total, count = 0, 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total, count = total + process.memory_info().rss, count + 1
                except psutil.NoSuchProcess:
                    continue
            self.peak, self.processes = max(self.peak, total), max(self.processes, count)

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self.join()


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def plain_loop(paths: list[Path]) -> tuple[int, float, float]:
    """Rows, seconds and processor seconds of pandas.read_csv over whole files."""
    start, cpu = time.perf_counter(), processor_seconds()
    rows = sum(len(pd.read_csv(path)) for path in paths)
    return rows, time.perf_counter() - start, processor_seconds() - cpu


def main() -> None:
    """Generate, measure, delete; print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=16_000)
    parser.add_argument("--distinct", type=int, default=32, help="distinct contents among them")
    parser.add_argument("--sample", type=int, default=300, help="files of each of the two plain loops")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="where the files go for the time of the run (default: temporary)")
    parser.add_argument(
        "--out", type=Path, help="where to write the record (default: benchmarks/records, with the date)"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="au_import_", dir=arguments.folder))
    try:
        free, needed = shutil.disk_usage(folder).free, arguments.files * len(content(0)[0])
        if free < 2 * needed:
            raise SystemExit(f"{folder}: {free / 1e9:.0f} GB free, {2 * needed / 1e9:.0f} GB wanted; try fewer --files")
        (folder / "csvs").mkdir()
        rows, size = generate(folder / "csvs", arguments.files, arguments.distinct)
        paths = sorted((folder / "csvs").rglob("*.csv"))
        sample = [paths[i] for i in np.linspace(0, len(paths) - 1, 2 * arguments.sample).astype(int)]
        before = plain_loop(sample[::2])
        with Memory() as memory:
            start, cpu = time.perf_counter(), processor_seconds()
            files = import_folder(folder / "csvs", folder / "table.parquet", workers=arguments.workers)
            seconds, cpu = time.perf_counter() - start, processor_seconds() - cpu
        after = plain_loop(sample[1::2])
        assert (files["status"] == "read").all() and files["rows"].sum() == rows
        table = (folder / "table.parquet").stat().st_size
    finally:
        shutil.rmtree(folder)
    plain_rows, plain_seconds, plain_cpu = (a + b for a, b in zip(before, after, strict=True))
    record = {
        "benchmark": "au_import",
        "date": datetime.date.today().isoformat(),
        "host": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "python": platform.python_version(),
        "pandas": pd.__version__,
        "pyarrow": pyarrow.__version__,
        "files": arguments.files,
        "distinct_contents": arguments.distinct,
        "columns": len(COLUMNS),
        "rows": rows,
        "megabytes": round(size / 1e6),
        "workers": arguments.workers,
        "import": {
            "seconds": round(seconds, 1),
            "rows_per_second": round(rows / seconds),
            "rows_per_processor_second": round(rows / cpu),
            "files_per_second": round(arguments.files / seconds),
            "peak_rss_mib": round(memory.peak / 2**20),
            "processes": memory.processes,
            "table_megabytes": round(table / 1e6, 1),
        },
        "plain_loop": {
            "files": len(sample),
            "seconds": round(plain_seconds, 1),
            "rows_per_second": round(plain_rows / plain_seconds),
            "rows_per_processor_second": round(plain_rows / plain_cpu),
        },
        "ratio_rows_per_second": round(rows / seconds / (plain_rows / plain_seconds), 1),
        "ratio_rows_per_processor_second": round(rows / cpu / (plain_rows / plain_cpu), 1),
    }
    print(json.dumps(record, indent=2))
    out = arguments.out or Path(__file__).with_name("records") / f"{record['date']}_au_import.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
