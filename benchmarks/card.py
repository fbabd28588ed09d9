"""Everything that waits for a GPU, in one command: ``python benchmarks/card.py [--seconds 540] [--out FOLDER]``.

For a card that is lent for minutes. Stages in the order of what is missed most, each in a process of its own that is
ended when its time is up, so that nothing takes another stage's; what each gave is in ``--out`` the moment it ends.
Run again with what came back (``--from FOLDER``, or the same ``--out``) it goes on: stages that are through are left
out, records that are there are not trained again. A card for ten minutes twice: first ``--stages build speed input ddp
tests``, then ``--stages grid export``, as a bare machine has to render the clips before it can train.

    build      imports, the card, its bfloat16 matrix rate
    speed      benchmarks/model_speed.py: against PyTorch's defaults, eager, compiled by block, CUDA graphs of the step
    input      benchmarks/train_throughput.py: clips a second, share spent on input, share of the matrix rate
    ddp        torchrun with one process, and two processes on this GPU, against one process alone
    tests      tests/test_gpu.py
    grid       audfer grid --budget: Tables 1 to 3 and Figs. 5 to 8 of one seed, then further seeds, then KP-GCN
    export     audfer records export, and what a study keeps in small files (action units, matrix, card of pre-training)

``--device cpu`` runs all of it on a CPU with tiny sizes (and ``--profile smoke``), to see that nothing is left to think
about; times and shares mean nothing there.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parent
#: stage -> share of the seconds that it may take at most
SHARES = {"build": 0.1, "speed": 0.4, "input": 0.2, "ddp": 0.2, "tests": 0.3, "grid": 1.0, "export": 1.0}
#: seconds that are kept for what comes after training
LAST = 25
#: outputs in the order in which the grid is asked for them; () = all that there are
WANTED = (("table1", "table2", "fig6", "table3", "fig5", "fig7", "fig8", "pretraining"), ())
#: what a study keeps beside its records that is small and would differ on another card
SMALL = ("action_units", "estimator", "knowledge", "inputs")
_PARCEL = 16 * 2**20
#: environment variable by which a run of this script knows what it has started
MARK = "AUDFER_CARD"
#: of two processes that wait for each other: how long for
PATIENCE = datetime.timedelta(minutes=3)


class Card:
    """The stages and what they share."""

    def __init__(self, options):
        self.options, self.out, self.mark = options, options.out, uuid4().hex
        self.until = time.monotonic() + options.seconds
        self.state_file = self.out / "card.json"
        self.state = json.loads(self.state_file.read_text()) if self.state_file.is_file() else {"stages": {}}

    def left(self) -> float:
        return self.until - time.monotonic()

    def run(self, name: str) -> None:
        """One stage, unless it is through; what it gave is written at once."""
        if self.state["stages"].get(name, {}).get("state") == "done" and name not in ("grid", "export"):
            print(f"{name}: done before", flush=True)
            return
        begun = time.monotonic()
        limit = min(self.options.seconds * SHARES[name], self.left() - (0 if name == "export" else LAST))
        if limit < 5 and name != "export":
            self.note(name, {"state": "no time"})
            return
        print(f"{name}: at most {max(limit, LAST):.0f} s", flush=True)
        steps, state, codes = getattr(self, name)(limit), "done", []
        with open(self.out / f"{name}.log", "a") as log:
            for command, seconds in steps:
                code = self.call(command, seconds, log)
                codes.append(code)
                state = "done" if not any(codes) else "failed" if 124 not in codes else "time was up"
        self.note(name, {"state": state, "codes": codes, "seconds": round(time.monotonic() - begun, 1)})

    def note(self, name: str, about: dict) -> None:
        self.state["stages"][name] = about
        self.state_file.write_text(json.dumps(self.state, indent=1) + "\n")
        print(f"{name}: {about}", flush=True)

    def call(self, command: list[str] | Callable, seconds: float, log) -> int:
        """Exit code of a command, 124 where it was ended; its output goes to the stage's log."""
        if callable(command):
            command()
            return 0
        if seconds < 1:
            return 124
        log.write(f"\n$ {' '.join(map(str, command))}\n")
        log.flush()
        environment = {
            **os.environ,
            MARK: self.mark,
            "PYTHONFAULTHANDLER": "1",
            "AUDFER_PROGRESS": "lines",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            # what was compiled once is found again by the next process, and by the next lease where it is carried
            "TORCHINDUCTOR_CACHE_DIR": str(self.options.cache),
        }
        from audfer.jobs.processes import following

        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=environment, stdout=log, stderr=log, **following()
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            stuck = self.end(signal.SIGABRT)  # by faulthandler it says where it stands
            stage = Path(log.name).stem
            print(
                f"{stage}: ended after {seconds:.0f} s with {stuck} processes; where they stood: {log.name}", flush=True
            )
            return 124
        finally:
            while self.end(signal.SIGKILL):
                time.sleep(0.05)
            process.wait()

    def end(self, how: signal.Signals) -> int:
        """Send a signal to everything that the stage's commands have started, and that lives; how many there were.

        They are known by a word in their environment: torchrun puts its processes in sessions of their own, and those
        of a command that has ended are nobody's children.
        """
        found = 0
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if one.environ().get(MARK) == self.mark and one.status() != psutil.STATUS_ZOMBIE:
                    one.send_signal(how)
                    found += 1
        if found and how == signal.SIGABRT:
            time.sleep(2)
        return found

    # ------------------------------------------------------------------------------------------------------- stages
    # each: seconds -> commands with the seconds that each may take

    def python(self, *arguments) -> list[str]:
        return [sys.executable, *map(str, arguments)]

    def audfer(self, *arguments) -> list[str]:
        return self.python("-m", "audfer", *arguments)

    @property
    def profile(self) -> list[str]:
        return ["--profile", self.options.profile, *(word for one in self.options.set for word in ("--set", one))]

    @property
    def place(self) -> list[str]:
        return ["--device", self.options.device, "--models", *self.options.models]

    def build(self, limit: float):
        yield self.python(__file__, "--check", "build", *self.place, "--out", self.out), limit

    def tests(self, limit: float):
        yield self.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_gpu.py", "-x"), limit

    def speed(self, limit: float):
        models = self.options.models
        for number, model in enumerate(models):
            share = limit * (number + 1) / len(models)
            out = self.out / f"model_speed_{model}.json"
            small = ["--size", "tiny", "--steps", 3, "--repeats", 1, "--batch", 2]
            more = small if self.options.device == "cpu" else []
            begun = time.monotonic()
            sizes = ["--device", self.options.device, "--models", model]
            yield self.python(HERE / "model_speed.py", *sizes, "--graphs", "--out", out, *more), share
            limit -= time.monotonic() - begun

    def input(self, limit: float):
        more = ["--repeats", 1, "--clips", 8] if self.options.device == "cpu" else ["--fused"]
        yield (
            self.python(HERE / "train_throughput.py", *self.place, "--out", self.out / "train_throughput.json", *more),
            limit,
        )

    def ddp(self, limit: float):
        for how, processes in TEAMS.items():
            team = ["-m", "torch.distributed.run", "--nproc-per-node", processes, "--master-port", 29511]
            command = [*(team if processes else []), __file__, "--check", "member", "--how", how]
            begun = time.monotonic()
            yield self.python(*command, *self.place, "--out", self.out), limit
            limit -= time.monotonic() - begun
        yield self.python(__file__, "--check", "ddp", *self.place, "--out", self.out), 60

    def grid(self, limit: float):
        work = ["--work", self.options.work]
        runs = self.runs
        for parcel in sorted((self.options.come_from or self.out).glob("records-*.zip")):
            yield self.audfer("records", "import", runs, parcel), 60
        yield self.unpack, 60
        for outputs in WANTED:
            budget = self.left() - LAST
            if budget > 5:
                # the command stops by itself between epochs; the limit is for one that hangs
                yield (
                    self.audfer("grid", *outputs, *self.profile, *work, "--budget", f"{budget:.0f}"),
                    budget + LAST / 2,
                )

    @property
    def runs(self) -> Path:
        from audfer.study.profiles import load_profile, with_changes

        return self.options.work / load_profile(with_changes(self.options.profile, self.options.set)).name / "runs"

    def export(self, limit: float):
        yield self.audfer("records", "export", self.runs, self.out), 60
        yield self.pack, 60
        yield lambda: (self.out / "speed.md").write_text(speed_table(self.out)), 60

    def pack(self) -> None:
        """The small steps of the study, in tar files of at most 16 MiB, and the card of the pre-trained weights."""
        study = self.runs.parent
        for old in self.out.glob("steps-*.tar.gz"):
            old.unlink()
        files = [p for name in SMALL for p in sorted((study / name).rglob("*")) if p.is_file() and not p.is_symlink()]
        parcels: list[list[Path]] = [[]]
        for path in files:
            if sum(p.stat().st_size for p in parcels[-1]) + path.stat().st_size > _PARCEL * 0.9 and parcels[-1]:
                parcels.append([])
            if path.stat().st_size < _PARCEL * 0.9:
                parcels[-1].append(path)
        for number, parcel in enumerate(filter(None, parcels)):
            with tarfile.open(self.out / f"steps-{number:03d}.tar.gz", "w:gz") as tar:
                for path in parcel:
                    tar.add(path, path.relative_to(study))
        for card in (study / "pretraining").glob("*.json"):
            shutil.copyfile(card, self.out / f"pretraining_{card.name}")

    def unpack(self) -> None:
        """What ``pack`` wrote, where the study looks for it: the same action units and matrix, so the same keys."""
        for file in sorted((self.options.come_from or self.out).glob("steps-*.tar.gz")):
            with tarfile.open(file) as tar:
                tar.extractall(self.runs.parent, filter="data")


def speed_table(out: Path) -> str:
    """The networks' speeds that came back, as Markdown: what stands in ``benchmarks/NOTES_GPU.md``."""

    def read(name: str) -> dict:
        return json.loads((out / name).read_text()) if (out / name).is_file() else {}

    build, inputs = read("build.json"), {row["model"]: row for row in read("train_throughput.json").get("results", ())}
    rate = build.get("bf16_matrix_gflops")
    lines = [
        f"{build.get('device', 'not measured')}, {rate or '?'} GFLOP/s in bfloat16 products of 8,192",
        "",
        "| network | PyTorch's defaults | ours | ratio | graph of the step | in `fit` | input | share of matrix rate |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for file in sorted(out.glob("model_speed_*.json")):
        for row in json.loads(file.read_text())["results"]:
            trained, graphs, fitted = row["training"], row.get("graphs", {}), inputs.get(row["model"], {})
            best = max(one["median"] for one in (trained["ours_clips_per_second"], *_medians(graphs)))
            share = f"{3 * row['gflops'] * best / rate:.0%}" if rate else "?"
            cells = (
                row["model"],
                trained["official_clips_per_second"]["median"],
                trained["ours_clips_per_second"]["median"],
                trained["ratio"]["median"],
                graphs.get("graph_clips_per_second", {}).get("median", graphs.get("failed", "")),
                fitted.get("fit_clips_per_second", ""),
                f"{fitted['input_share']:.0%}" if fitted else "",
                share,
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _medians(graphs: dict) -> list[dict]:
    return [graphs["graph_clips_per_second"]] if graphs.get("same") else []


# ------------------------------------------------------------------------------------------------------------- checks
#: how a cell is trained -> processes of torchrun; 0 = alone, without it. On one GPU two processes talk by gloo
TEAMS = {"alone": 0, "again": 0, "one": 1, "two": 2}


def check_build(options) -> None:
    """What the machine is, and how fast it multiplies."""
    import torch
    from model_speed import Clock
    from train_throughput import matrix_rate

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU here")
    rate = matrix_rate(options.device, Clock(options.device), 8192 if options.device == "cuda" else 512)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    about = {"device": device, "torch": torch.__version__, "bf16_matrix_gflops": round(rate)}
    (options.out / "build.json").write_text(json.dumps(about, indent=1) + "\n")


def check_member(options) -> None:
    """Train one cell of every network, alone or as one of several processes; rank 0 writes what came out.

    In bfloat16 and each network's own memory layout, as cells are; of noise. On a GPU also compiled by blocks.
    """
    import torch
    import torch.distributed as dist
    from train_throughput import cell_for, store_for

    from audfer.training import distributed, loop

    together = options.how in ("one", "two")
    if together:
        if sys.platform == "linux":  # torchrun, killed, would leave its processes behind
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        # nccl takes one process a GPU; two that share one talk by gloo, as processes on a CPU do
        backend = "cpu:gloo,cuda:nccl" if options.how == "one" and options.device == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        distributed.announce = lambda *_: None  # every process asks for every cell
    if options.device == "cuda":
        torch.cuda.set_device(0)
    results = {}
    noise = options.out / "noise"
    for model in options.models:
        cell = cell_for(model, options.device)
        clips = 2 * cell.training_recipe.batch_size
        if distributed.rank() == 0:
            noise.mkdir(exist_ok=True)
            store_for(noise, clips, cell)
        if together:
            dist.barrier()
        inputs = store_for(noise, clips, cell)
        outcome = loop.fit(cell, inputs)
        results[model] = {"scores": outcome["scores"], "loss": outcome["history"]["loss"].tolist()}
        if model == "mae_dfer" and options.device == "cuda":
            results["mae_dfer, compiled"] = _compiled(cell, inputs, loop)
    if distributed.rank() == 0:
        torch.save(results, options.out / f"ddp_{options.how}.pt")
    if together:
        dist.destroy_process_group()


def _compiled(cell, inputs, loop) -> dict:
    from model_speed import compiled_network

    plain = loop._initial_model
    loop._initial_model = lambda *arguments: compiled_network(plain(*arguments))
    try:
        outcome = loop.fit(cell, inputs)
    finally:
        loop._initial_model = plain
    return {"scores": outcome["scores"], "loss": outcome["history"]["loss"].tolist()}


def check_ddp(options) -> None:
    """Compare what the members have left: a team may differ from one process by a few times what two runs of one
    process differ by (a GPU's sums have no fixed order), or by what bfloat16 rounds.
    """
    import numpy as np
    import torch

    found = {
        how: torch.load(options.out / f"ddp_{how}.pt", weights_only=False)
        for how in TEAMS
        if (options.out / f"ddp_{how}.pt").is_file()
    }
    rows, failed = [], set(TEAMS) - set(found)
    for model in found.get("alone", {}):
        first = found["alone"][model]
        for how in ("again", "one", "two"):
            if model in found.get(how, {}):
                other = found[how][model]
                scores = float(np.abs(other["scores"] - first["scores"]).max())
                loss = max(abs(a / b - 1) for a, b in zip(other["loss"], first["loss"], strict=True))
                rows.append({"model": model, "how": how, "scores": scores, "loss": loss})
    for row in rows:
        usual = next(one for one in rows if one["model"] == row["model"] and one["how"] == "again")
        row["same"] = row["scores"] <= max(4 * usual["scores"], 0.02) and row["loss"] <= max(4 * usual["loss"], 0.01)
        failed |= set() if row["same"] else {f"{row['model']}, {row['how']}"}
    (options.out / "ddp.json").write_text(json.dumps({"rows": rows, "failed": sorted(failed)}, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
    sys.exit(f"not the same: {', '.join(sorted(failed))}" if failed else 0)


def main() -> None:
    """Run the stages, or one of their checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540, help="that all of it may take (default: 540)")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "work/card")), help="what comes back")
    parser.add_argument("--from", dest="come_from", type=Path, help="an earlier run's --out, to go on from")
    parser.add_argument("--work", type=Path, default=Path("work/card_study"), help="folder of the study")
    parser.add_argument("--cache", type=Path, default=Path("work/card_cache"), help="of what is compiled")
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--set", action="append", default=[], metavar="GROUP.FIELD=VALUE")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--check", choices=("build", "member", "ddp"), help=argparse.SUPPRESS)
    parser.add_argument("--how", choices=tuple(TEAMS), help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="+", default=["m3dfel", "mae_dfer", "former_dfer"])
    parser.add_argument("--stages", nargs="+", choices=list(SHARES), default=list(SHARES))
    options = parser.parse_args()
    if options.check:
        return {"build": check_build, "member": check_member, "ddp": check_ddp}[options.check](options)
    if options.device == "cuda" and not shutil.which("nvidia-smi"):
        return print("no GPU here: --device cpu --profile smoke runs everything with tiny sizes")
    # whoever ends this script ends what it has started; one that is stuck leaves no image of its memory
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in ("out", "work", "cache"):
        setattr(options, name, getattr(options, name).absolute())
        getattr(options, name).mkdir(parents=True, exist_ok=True)
    if options.come_from and (options.come_from / "card.json").is_file() and not (options.out / "card.json").is_file():
        shutil.copyfile(options.come_from / "card.json", options.out / "card.json")
    card = Card(options)
    for name in options.stages:
        card.run(name)


if __name__ == "__main__":
    main()
