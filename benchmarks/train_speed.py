"""How many clips a second the networks train on and judge: ``python benchmarks/train_speed.py``.

bfloat16 autocast beside float32, the plain memory layout beside each network's own, one thread, forward and backward
and optimizer step. A time is the best of several steps; processor time is given beside the clock's, because it does not
grow when other work shares the machine. ``--size paper`` measures the official sizes (minutes).
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
import torch.nn.functional as F

from audfer.models import NETWORKS, build_model, count_flops, default_clip_shape


def measure(name: str, size: str, precision: str, own_layout: bool, batch: int, repeats: int) -> dict:
    """Clips a second of one network in one setting, and its loss after the steps on the same random batch."""
    torch.manual_seed(0)
    model = build_model(name, size=size)
    if own_layout:
        model = model.to(memory_format=model.memory_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    frames, colours, height, width = default_clip_shape(name, size)
    clips = torch.randint(0, 256, (batch, frames, height, width, colours), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    expressions, aus = torch.randint(0, 7, (batch,)), torch.rand(batch, 18).round()

    def forward():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            return model(clips)

    def step() -> float:
        output = forward()
        loss = F.cross_entropy(output.expression_logits.float(), expressions) + F.binary_cross_entropy_with_logits(
            output.au_logits.float(), aus
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    row = {"model": name, "size": size, "precision": precision, "own_layout": own_layout, "batch": batch}
    step()
    clock, processor, loss = _times(step, repeats)
    row |= {
        "train_clips_per_second": round(batch / clock, 1),
        "train_clips_per_processor_second": round(batch / processor, 1),
        "loss_after_steps": round(loss, 4),
    }
    model.eval()
    with torch.inference_mode():
        forward()
        clock, processor, _ = _times(forward, repeats)
    row |= {
        "infer_clips_per_second": round(batch / clock, 1),
        "infer_clips_per_processor_second": round(batch / processor, 1),
    }
    return row | {key: round(value, 4) for key, value in count_flops(model, (frames, colours, height, width)).items()}


def _times(work, repeats: int):
    clock, processor = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        result = work()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return min(clock), min(processor), result


def main() -> None:
    """Measure every network in four settings; print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("tiny", "paper"), default="tiny")
    parser.add_argument("--batch", type=int, help="clips a step (default: 32 for tiny, 2 for paper)")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument(
        "--out", type=Path, help="where to write the record (default: benchmarks/records, with the date)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    batch = arguments.batch or {"tiny": 32, "paper": 2}[arguments.size]
    results = []
    for name in NETWORKS:
        for precision, own_layout in (("float32", False), ("float32", True), ("bf16", False), ("bf16", True)):
            results.append(measure(name, arguments.size, precision, own_layout, batch, arguments.repeats))
            print(json.dumps(results[-1]), flush=True)
    record = {
        "benchmark": "train_speed",
        "date": datetime.date.today().isoformat(),
        "host": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
        "timing": f"best of {arguments.repeats} steps",
        "results": results,
    }
    suffix = "" if arguments.size == "tiny" else f"_{arguments.size}"
    out = arguments.out or Path(__file__).with_name("records") / f"{record['date']}_train_speed{suffix}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
