"""How many faces a second the renderer makes: ``python benchmarks/render_speed.py``.

Every frame has random AUs, pose, roll, blur and noise, so nothing is skipped. A size's time is the best of three runs
(other work on the machine can only make it longer); the processor time beside it says how busy the machine was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import torch

from audfer.synth.face import neutral_scene, render, sample_identities

_FRAMES = {48: 512, 64: 512, 112: 192, 224: 48}


def measure(size: int, frames: int, repeats: int = 3) -> dict[str, float]:
    """Frames a second at one size with the present number of threads, by the clock and by processor time."""
    generator = torch.Generator().manual_seed(0)
    people, scene = sample_identities(frames, seed=0), neutral_scene(frames)
    for name, reach in (("yaw", 0.5), ("pitch", 0.2), ("roll", 0.2)):
        setattr(scene, name, reach * (2 * torch.rand(frames, generator=generator) - 1))
    scene.blur, scene.noise = torch.full((frames,), 0.6), torch.full((frames,), 0.02)
    rows = 5 * torch.rand(frames, 18, generator=generator)
    render(people[:8], rows[:8], scene[:8], size)
    clock, processor = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        render(people, rows, scene, size)
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return {
        "frames_per_second": round(frames / min(clock), 1),
        "frames_per_processor_second": round(frames / min(processor), 1),
    }


def main() -> None:
    """Measure every size with one and two threads; print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="where to write the record (default: benchmarks/records, with the date)"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results += [
            {"size": size, "threads": threads, "frames": frames, **measure(size, frames)}
            for size, frames in _FRAMES.items()
        ]
    record = {
        "benchmark": "render_speed",
        "date": datetime.date.today().isoformat(),
        "host": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timing": "best of 3 runs",
        "results": results,
    }
    text = json.dumps(record, indent=2)
    print(text)
    out = arguments.out or Path(__file__).with_name("records") / f"{record['date']}_render_speed.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
