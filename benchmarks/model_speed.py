"""The four networks at paper size, trained as the official code does and as audfer does: ``python
benchmarks/model_speed.py``.

"official" (KP-GCN has no official code: its parts as printed): float32, plain memory layout, every layer as published
(explicit soft-max attention, 3-D convolutions with their padding, tubelets by convolution; ``by_definition``),
PyTorch's default optimizer. On a GPU its convolutions then use TF32, PyTorch's default. "ours": bfloat16 autocast
(float32 on a processor that does not compute in it, as audfer trains there), the network's own memory layout, fused
attention where there is a kernel for it, equal-valued shortcuts, fused optimizer, and on a GPU ``torch.compile`` and
cuDNN's trial of its convolutions. Both start from the same weights and see the same rendered clips and the same random
numbers, step by step in turns, so what else the machine does meets both. Ratios are medians of the pairs; both loss
curves are in the record.

About five minutes on two quiet cores; ``--models`` and ``--steps`` make it shorter. Runs unattended on a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from audfer.files import write_json
from audfer.losses import AULoss, clip_au_labels, combined_loss, expression_loss
from audfer.models import NETWORKS, build_model, count_flops, default_clip_shape
from audfer.models.output import by_definition
from audfer.synth import rendered_clips
from audfer.training.loop import resolve_device, resolve_precision

VARIANTS = ("official", "ours")
#: largest difference of the losses after the steps, of float32's
LOSS_TOLERANCE = 0.02


class Trainee:
    """One network in one variant on one device, with its optimizer.

    Attributes:
        step: trains on one batch and gives the loss before it, a tensor. forward: the network alone, without gradients.
    """

    def __init__(
        self,
        name: str,
        variant: str,
        device: str,
        compiled: bool,
        num_aus: int | None = 18,
        capturable: bool = False,
        size: str = "paper",
    ):
        torch.manual_seed(0)
        self.official, self.device = variant == "official", device
        self.reduced = resolve_precision("auto", device) == "bf16"
        self.model = build_model(name, num_aus=num_aus, size=size).to(device)
        if not self.official:
            self.model = self.model.to(memory_format=self.model.memory_format)
        fused = None if self.official else True
        state = {"capturable": True} if capturable and device == "cuda" else {}  # SGD's steps keep no count
        # the releases' optimizers, KP-GCN's as printed; rates for a start without warm-up and from fresh weights
        self.optimizer = (
            torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=fused)
            if name == "former_dfer"
            else torch.optim.Adam(self.model.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=fused, **state)
            if name == "keypoint_gcn"
            else torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.05, fused=fused, **state)
        )
        self.network = compiled_network(self.model) if compiled and not self.official else self.model
        self.au_loss = AULoss(torch.full((7, 18), 0.5), torch.full((7, 18), 3.0)).to(device)

    def _context(self):
        return (
            by_definition()
            if self.official
            else torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.reduced)
        )

    def loss(self, clips, landmarks, expressions, au_labels) -> torch.Tensor:
        """Eq. 10 with lambda = 0.25; Eq. 5 for a network without an AU head. Of KP-GCN with its auxiliary loss."""
        with self._context():
            output = self.network(clips, landmarks)
        first, share = expression_loss(output.expression_logits, expressions), self.model.auxiliary_weight
        if output.auxiliary_logits is not None:
            first = (1 - share) * first + share * expression_loss(output.auxiliary_logits, expressions)
        if output.au_logits is None:
            return first
        return combined_loss(first, self.au_loss(output.au_logits, au_labels, expressions), au_ratio=0.25)

    def _choose_kernels(self) -> None:
        torch.backends.cudnn.benchmark = not self.official  # as audfer.training has it; PyTorch's default is off

    def step(self, batch, seed: int) -> torch.Tensor:
        self._choose_kernels()
        torch.manual_seed(seed)  # the same paths dropped in every variant
        loss = self.loss(*batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def captured(self, batch, steps: int = 3) -> Callable:
        """``step`` as one CUDA graph: batches are copied to where the graph looks for them, and nothing of the step
        waits for Python. On a CPU the same without a graph, to see that the copying is right.

        Args:
            batch: any, for its shapes. steps: real ones before, in which kernels are chosen and state is made.
        """
        static = tuple(part.clone() for part in batch)
        self._choose_kernels()

        def whole() -> torch.Tensor:
            loss = self.loss(*static)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        graph = None
        if self.device == "cuda":
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(steps):
                    self.optimizer.zero_grad(set_to_none=True)
                    whole()
            torch.cuda.current_stream().wait_stream(beside)
            self.optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = whole()

        def step(batch, seed: int) -> torch.Tensor:
            torch.manual_seed(seed)
            for part, values in zip(static, batch, strict=True):
                part.copy_(values)
            if graph is not None:
                graph.replay()
                return kept.clone()
            self.optimizer.zero_grad(set_to_none=True)
            return whole()

        return step

    def forward(self, clips, landmarks) -> None:
        self._choose_kernels()
        with torch.inference_mode(), self._context():
            self.network(clips, landmarks)


def compiled_network(model: torch.nn.Module) -> torch.nn.Module:
    """The network compiled: as a whole, or block by block where one block repeats (MAE-DFER; as one graph it takes five
    minutes).
    """
    if not hasattr(model, "blocks"):
        return torch.compile(model)
    for block in model.blocks:
        block.compile()
    return model


class Clock:
    """Times a piece of work, with everything it puts on the GPU.

    Args:
        kind: "wall", or "processor": seconds of all cores together, which grow less when other work shares the machine.
    """

    def __init__(self, device: str, kind: str = "wall"):
        self.synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.now = time.process_time if kind == "processor" else time.perf_counter

    def time(self, work: Callable) -> tuple[float, object]:
        """Seconds that ``work()`` takes, and what it gives."""
        self.synchronize()
        start = self.now()
        result = work()
        self.synchronize()
        return self.now() - start, result


def in_turns(works: dict[str, Callable[[int], object]], repeats: int, clock: Clock, warm_up: int) -> tuple[dict, dict]:
    """Seconds and results of every work, repeat after repeat, with the order turned round each time; warm-up times left
    out.
    """
    seconds, results = {key: [] for key in works}, {key: [] for key in works}
    for repeat in range(repeats + warm_up):
        for key in list(works) if repeat % 2 == 0 else reversed(works):
            spent, result = clock.time(lambda: works[key](repeat))
            results[key].append(result)
            if repeat >= warm_up:
                seconds[key].append(spent)
    return seconds, results


def spread(values) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return {"median": float(f"{median:.4g}"), "quartiles": [float(f"{low:.4g}"), float(f"{high:.4g}")]}


def speeds(seconds: dict[str, list[float]], clips: int) -> dict:
    """Clips a second of both variants, and the ratio of each pair."""
    rows = {f"{key}_clips_per_second": spread([clips / spent for spent in values]) for key, values in seconds.items()}
    return rows | {"ratio": spread([a / b for a, b in zip(*(seconds[key] for key in VARIANTS), strict=True)])}


def batches(name: str, count: int, batch: int, device: str, size: str = "paper") -> list[tuple]:
    """``count`` batches of rendered clips with landmarks, expressions and AU labels, on the device."""
    frames, _, side, _ = default_clip_shape(name, size)
    clips, expressions, presence, landmarks = rendered_clips(count * batch, frames, side, landmarks=True)
    order = torch.randperm(count * batch, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(clip_au_labels(presence))
    return [tuple(x[rows].to(device) for x in (clips, landmarks, expressions, labels)) for rows in order.split(batch)]


def measure(
    name: str, device: str, clock: Clock, batch: int, steps: int, repeats: int, compiled: bool, size: str = "paper"
) -> dict:
    """Training steps and forward passes of one network, both variants in turns."""
    pair = {variant: Trainee(name, variant, device, compiled, size=size) for variant in VARIANTS}
    data = batches(name, steps + 1, batch, device, size)
    train = {key: lambda i, one=one: one.step(data[i], i) for key, one in pair.items()}
    seconds, losses = in_turns(train, steps - 1, clock, warm_up=1)
    for key, one in pair.items():  # after the last step, on a batch not seen yet
        torch.manual_seed(steps)
        with torch.no_grad():
            losses[key].append(one.loss(*data[steps]))
    curves = {key: [round(float(loss), 5) for loss in values] for key, values in losses.items()}
    difference = abs(curves["ours"][-1] / curves["official"][-1] - 1)

    for one in pair.values():
        one.model.eval()
    forward, _ = in_turns(
        {key: lambda i, one=one: one.forward(*data[0][:2]) for key, one in pair.items()}, repeats, clock, 1
    )
    training = speeds(seconds, batch)
    return {
        "model": name,
        "size": size,
        "batch": batch,
        "compiled": compiled,
        "training": training,
        "forward": speeds(forward, batch),
        "losses": curves,
        "loss_difference_after_steps": round(difference, 5),
        "loss_within_tolerance": difference <= LOSS_TOLERANCE,
        **count_flops(pair["ours"].model, default_clip_shape(name, size)),
    }


def graphed(name: str, device: str, clock: Clock, batch: int, steps: int, compiled: bool, size: str = "paper") -> dict:
    """The whole step as a CUDA graph, and the same steps without: clips a second of both, and both loss curves.

    The graph's warm-up steps change its weights, so the other one makes the same before.
    """
    rows, curves = {}, {}
    data = batches(name, steps, batch, device, size)
    for key in ("eager", "graph"):
        one = Trainee(name, "ours", device, compiled, capturable=True, size=size)
        if key == "graph":
            torch.manual_seed(0)
            step = one.captured(data[0])
        else:
            torch.manual_seed(0)
            for _ in range(3 if device == "cuda" else 0):
                one.optimizer.zero_grad(set_to_none=True)
                one.loss(*data[0]).backward()
                one.optimizer.step()
            step = one.step
        seconds, losses = in_turns({key: lambda i, step=step: step(data[i], i)}, steps - 1, clock, warm_up=1)
        rows[f"{key}_clips_per_second"] = spread([batch / spent for spent in seconds[key]])
        curves[key] = [round(float(loss), 5) for loss in losses[key]]
    apart = max(abs(a / b - 1) for a, b in zip(curves["graph"], curves["eager"], strict=True))
    return rows | {"losses": curves, "largest_difference": round(apart, 5), "same": apart <= LOSS_TOLERANCE}


def matmul_speed(device: str, clock: Clock, repeats: int = 20) -> dict[str, float]:
    """GFLOP/s of a product of MAE-DFER's size.

    What bfloat16 can gain at most where nothing but products is computed.
    """
    left, right = torch.randn(1616, 512, device=device), torch.randn(512, 2048, device=device)
    works = {"float32": lambda i: left @ right}
    half = left.bfloat16(), right.bfloat16()
    works["bfloat16"] = lambda i: half[0] @ half[1]
    seconds, _ = in_turns(works, repeats, clock, 3)
    work = 2 * 1616 * 512 * 2048 / 1e9
    rates = {key: spread([work / spent for spent in values])["median"] for key, values in seconds.items()}
    return rates | {"ratio": round(rates["bfloat16"] / rates["float32"], 3)}


def prepare(arguments: argparse.Namespace) -> tuple[str, Clock, dict]:
    """Device and clock that the arguments ask for, and what a record says about where and how it was made."""
    device = resolve_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return (
        device,
        Clock(device, arguments.clock),
        {
            "date": datetime.date.today().isoformat(),
            "host": platform.node(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_before": round(os.getloadavg()[0], 2),
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "bf16_on_cpu": torch.cpu._is_avx512_bf16_supported(),
            "amx_on_cpu": torch.cpu._is_amx_tile_supported(),
            "precision": resolve_precision("auto", device),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "clock": arguments.clock,
        },
    )


def arguments_for(description: str, repeats: int) -> argparse.ArgumentParser:
    """The arguments that the benchmarks of this folder share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--models", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch", type=int, help="clips a step (default: 2 on a CPU, 16 on a GPU)")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU (default: all cores)")
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor: for a CPU that other work shares; not for a GPU",
    )
    parser.add_argument(
        "--compile",
        choices=("auto", "yes", "no"),
        default="auto",
        help="torch.compile for ours; auto: on a GPU only, on a CPU it gains nothing and takes minutes",
    )
    parser.add_argument(
        "--out", type=Path, help="where to write the record (default: benchmarks/records, with the date)"
    )
    return parser


def write_record(record: dict, out: Path | None) -> None:
    """Write the record to ``out``, or with its date and kind of device to the records folder."""
    suffix = "" if record["device"] == "cpu" else "_gpu"
    path = out or Path(__file__).with_name("records") / f"{record['date']}_{record['benchmark']}{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    print(f"record: {path}")


def main() -> None:
    """Measure every network; print and write the record."""
    parser = arguments_for(__doc__.splitlines()[0], repeats=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps of each variant")
    parser.add_argument("--size", choices=("paper", "tiny"), default="paper", help="tiny: to try this script")
    parser.add_argument("--graphs", action="store_true", help="also the whole step as one CUDA graph")
    arguments = parser.parse_args()
    device, clock, where = prepare(arguments)
    compiled = arguments.compile == "yes" or arguments.compile == "auto" and device == "cuda"
    record = {
        "benchmark": "model_speed",
        **where,
        "matmul_gflops": matmul_speed(device, clock),
        "timing": f"in turns; medians and quartiles of {arguments.steps - 1} steps and {arguments.repeats} forward "
        f"passes",
        "optimizer": "AdamW 1e-4 (M3DFEL, MAE-DFER), SGD 0.01 (Former-DFER), Adam 1e-4 (KP-GCN); official: default, "
        "ours: fused",
        "results": [],
    }
    start = time.perf_counter()
    for name in arguments.models:
        batch = arguments.batch or (16 if device == "cuda" else 2)
        row = measure(name, device, clock, batch, arguments.steps, arguments.repeats, compiled, arguments.size)
        record["results"].append(row)
        print(json.dumps({key: value for key, value in row.items() if key != "losses"}), flush=True)
        if arguments.graphs:
            write_record(record, arguments.out)  # a graph that cannot be captured costs nothing that was measured
            try:
                row["graphs"] = graphed(name, device, clock, batch, arguments.steps, compiled, arguments.size)
            except RuntimeError as error:
                row["graphs"] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            print(json.dumps(row["graphs"]), flush=True)
        write_record(
            record | {"seconds": round(time.perf_counter() - start)}, arguments.out
        )  # a lease that ends keeps what there is


if __name__ == "__main__":
    main()
