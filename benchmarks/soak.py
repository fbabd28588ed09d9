"""Everything that can go wrong, at random and for minutes: what it leaves behind is what an undisturbed run leaves.

Commands of the whole chain run on the smoke profile, first undisturbed, then again and again under attack: killed at a
random moment (the command alone, never its children), interrupted, two of them at once, on a disk of random size that
fills up, against a server that cuts and lies. Between them inputs of every kind are spoilt at random and given to
whatever reads them. In the end every command is run through once more and compared with the undisturbed run.

What must be 0: ``lost`` (results that are missing), ``doubled`` (cells trained to their end twice), ``stale`` (results
that are not those of the undisturbed run), ``orphans`` (processes that outlive a killed command), ``tracebacks``, and
``hung`` (inputs and commands without an end).

    python benchmarks/soak.py --minutes 10 --out benchmarks/records/2026-11-28_soak.json
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from audfer.errors import AudferError
from audfer.jobs.processes import ChildEnded, OutOfTime, PythonChild, following
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
#: seconds of processor time that a command may take, or without any; and that a killed command's children may live on
LIMIT, GRACE = 420, 10
#: seconds that an input may take, of which reading it needs a fraction of one: others' work may hold the processor
PATIENCE = 120
#: a name under which something was being written
_LEFT = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")


@dataclass
class Deed:
    """A command of the chain.

    Attributes:
        arguments: folder that it works in -> command line.
        made: folder -> name of each result -> its digest, as far as there are any.
        full: sizes in MB between which a disk may be too small for it; none = not tried.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    made: Callable[[Path], dict[str, str]]
    full: tuple[float, float] | None = None
    took: float = 0.0


class Soak:
    """The attacks and what they came to."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.random, self.count = folder, random.Random(seed), Counter()
        self.of = Counter()
        self.child, self.ready = PythonChild(), False
        self.inputs = folder / "inputs"

    def note(self, what: str, text: str) -> None:
        """Count something that must not be, and keep what is known of it."""
        self.count[what] += 1
        with open(self.folder / "faults.log", "a") as log:
            log.write(f"--- {what}\n{text}\n")

    # ------------------------------------------------------------------------------------------------ commands

    def start(self, deed: Deed, place: Path, before: tuple[str, ...] = ()) -> subprocess.Popen:
        place.mkdir(parents=True, exist_ok=True)
        own = {"AUDFER_WORK": place / "work", "AUDFER_FIGURES": place / "figures", "AUDFER_PROGRESS": "off"}
        command = [*before, sys.executable, "-m", "audfer", *deed.arguments(place)]
        said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by ended)
        streams = {"stdout": subprocess.DEVNULL, "stderr": said, "start_new_session": True}
        process = psutil.Popen(command, env={**os.environ, **own}, cwd=ROOT, **streams, **following())
        process.said = said
        return process

    def ended(self, deed: Deed, process, expected: tuple[int, ...]) -> None:
        """Wait for a command, and look at what it said and which of its processes are left."""
        code, idle, used = None, time.monotonic(), 0.0
        while code is None:
            with suppress(psutil.TimeoutExpired):
                code = process.wait(5)
                break
            if (now := processor_seconds(process)) > used + 0.1:
                idle, used = time.monotonic(), now
            if used > LIMIT or time.monotonic() - idle > LIMIT:
                self.note("hung", f"{deed.name}: no end after {used:.0f} s of the processor")
                self.kill(deed, process)
                break
        process.said.seek(0)
        text = process.said.read()
        process.said.close()
        if "Traceback (most recent call last)" in text:
            self.note("tracebacks", f"{deed.name}, exit status {code}\n{text}")
        elif code is not None and code not in expected:
            self.note("tracebacks", f"{deed.name}: exit status {code}, expected one of {expected}\n{text}")

    def kill(self, deed: Deed, process) -> None:
        """Kill the command alone, and count those of its processes that live on."""
        family = process.children(recursive=True)
        process.kill()
        _, left = psutil.wait_procs(family, GRACE)
        for orphan in left:
            with suppress(psutil.NoSuchProcess):
                self.note("orphans", f"{deed.name}: {' '.join(orphan.cmdline())[:200]}")
                orphan.kill()

    def killed(self, deed: Deed, place: Path) -> None:
        process = self.start(deed, place)
        with suppress(psutil.TimeoutExpired):  # it may have come to its end before that
            process.wait(self.random.uniform(0, 1.1 * deed.took))
        if process.poll() is None:
            self.count["kills"] += 1
            self.kill(deed, process)
        self.ended(deed, process, (0, 1, -signal.SIGKILL))

    def interrupted(self, deed: Deed, place: Path) -> None:
        process = self.start(deed, place)
        while process.poll() is None and processor_seconds(process) < 0.3:  # Python itself starts with tracebacks
            time.sleep(0.02)
        with suppress(psutil.TimeoutExpired):
            process.wait(self.random.uniform(0, deed.took))
        if process.poll() is None:
            self.count["interrupts"] += 1
            process.send_signal(signal.SIGINT)
        self.ended(deed, process, (0, 1, 130))

    def rivals(self, deed: Deed, place: Path) -> None:
        self.count["rivals"] += 1
        one = self.start(deed, place)
        time.sleep(self.random.uniform(0, 2))
        other = self.start(deed, place)
        for process in (one, other):
            self.ended(deed, process, (0, 1, 2))

    def full(self, deed: Deed, _: Path) -> None:
        """The same on a disk of its own that is too small: refused with a sentence, or done."""
        self.count["full disks"] += 1
        room = self.room(self.random.uniform(*deed.full))
        self.ended(deed, self.start(deed, self.folder / "disk", room), (0, 1, 2))

    def room(self, size: float) -> tuple[str, ...]:
        """What comes before a command that is to have a disk of so many MB to itself."""
        (self.folder / "disk").mkdir(exist_ok=True)
        script = f'mount -t tmpfs -o size={size * 1024:.0f}k tmpfs {self.folder / "disk"} && exec "$@"'
        return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")

    # -------------------------------------------------------------------------------------------------- inputs

    def spoilt(self) -> None:
        """An input of some kind, with some bytes of it changed, to what reads it."""
        source = self.random.choice(sorted(path for path in self.inputs.rglob("*") if path.is_file()))
        kind = source.relative_to(self.inputs).parts[0]
        copy = self.folder / "spoilt"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.inputs / kind, copy)
        target = copy / source.relative_to(self.inputs / kind)
        target.write_bytes(self.mutated(target.read_bytes()))
        self.count["inputs tried"] += 1
        self.of[kind] += 1
        try:
            if not self.ready:
                self.child.call(get_ready, seconds=2 * LIMIT)
            self.ready = True
            self.child.call(read, kind, str(copy), seconds=PATIENCE)
        except (OutOfTime, ChildEnded) as error:
            self.ready = False
            self.note("hung", f"{source}: {error}")
        except Exception as error:
            self.note("tracebacks", f"{source}\n{''.join(getattr(error, '__notes__', [repr(error)]))}")
            shutil.copytree(copy, self.folder / "kept" / f"{self.count['inputs tried']}_{kind}")

    def mutated(self, data: bytes) -> bytes:
        data = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 3, 10))):
            place = self.random.randrange(len(data) + 1)
            end = min(len(data), place + self.random.choice((1, 2, 16, 300)))
            how = self.random.randrange(6)
            if how == 0 and data:
                data[place % len(data)] ^= 1 << self.random.randrange(8)
            elif how == 1:
                del data[place:]
            elif how == 2:
                del data[place:end]
            elif how == 3:
                data[place:place] = self.random.choice(
                    (b"\0", b"\xff" * 9, b"\n", b",", b"nan", b"-1e999", b"[" * 2000, b"{}", b'"', b"\xed\xb2\x80")
                )
            elif how == 4:
                data[place:place] = data[place:end] * self.random.choice((1, 50))
            else:
                data[place:end] = self.random.randbytes(end - place)
        return bytes(data)


def processor_seconds(process: psutil.Process) -> float:
    """What a command and its processes have used so far."""
    used = 0.0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                used += sum(one.cpu_times()[:2])
    return used


def get_ready() -> None:
    """Import what ``read`` needs: no input is blamed for that."""
    from audfer import datasets, knowledge, models, training  # noqa: F401
    from audfer.companion import notebooks  # noqa: F401
    from audfer.study import profiles  # noqa: F401
    from audfer.training import records  # noqa: F401


def read(kind: str, folder: str) -> None:
    """Read an input of that kind, in a process of its own; a sentence is as good as success."""
    from audfer import datasets
    from audfer.companion.notebooks import declared_parameters
    from audfer.knowledge import KnowledgeMatrix
    from audfer.models import inspect_checkpoint
    from audfer.openface import read_openface
    from audfer.study.profiles import load_profile
    from audfer.training.records import RunRecord

    def record(place: Path) -> None:
        RunRecord.load(place).load_weights()

    def clips(place: Path) -> None:
        manifest = datasets.read_dataset("folder", place, missing="keep")
        datasets.pack(manifest, place.with_name("spoilt_pack"), 3, 16, progress=False)

    first = next(Path(folder).iterdir())
    readers = {
        "table": lambda: read_openface(first),
        "clips": lambda: clips(Path(folder)),
        "store": lambda: datasets.open_packed(folder).content,
        "record": lambda: record(first),
        "weights": lambda: inspect_checkpoint(first),
        "profile": lambda: load_profile(str(first)),
        "matrix": lambda: KnowledgeMatrix.load(first),
        "notebook": lambda: declared_parameters(first),
    }
    with suppress(AudferError):
        readers[kind]()


# ----------------------------------------------------------------------------------------------------- what is read


def write_sources(folder: Path) -> None:
    """Clips and OpenFace tables that the commands read."""
    generator = np.random.default_rng(0)
    for number in range(80):
        place = folder / "clips" / ("happy", "sad", "angry")[number % 3] / f"clip{number:02d}"
        place.mkdir(parents=True)
        for frame in range(4):
            Image.fromarray(generator.integers(0, 256, (40, 40, 3), np.uint8)).save(place / f"{frame + 1}.png")
    names = ["frame", "timestamp", "confidence", "success", *INTENSITY_COLUMNS, *PRESENCE_COLUMNS]
    (folder / "csvs").mkdir()
    for number in range(80):
        rows = 200
        table = pd.DataFrame(0.0, index=range(rows), columns=names)
        table["frame"], table["timestamp"] = np.arange(1, rows + 1), np.arange(rows) / 30
        table["confidence"], table["success"] = 0.98, 1
        table[list(INTENSITY_COLUMNS)] = generator.uniform(0, 5, (rows, len(INTENSITY_COLUMNS))).round(2)
        table.to_csv(folder / "csvs" / f"clip{number:02d}.csv", index=False)


def write_inputs(soak: Soak, whole: Path, sources: Path) -> None:
    """One or two of everything that can be spoilt, from the sources and the undisturbed run."""
    into = soak.inputs
    for kind in ("table", "weights", "profile", "matrix", "notebook", "clips/happy", "clips/sad"):
        (into / kind).mkdir(parents=True)
    shutil.copy(sources / "csvs" / "clip00.csv", into / "table")
    shutil.copytree(sources / "clips" / "happy" / "clip00", into / "clips" / "happy" / "clip00")
    shutil.copytree(sources / "clips" / "sad" / "clip01", into / "clips" / "sad" / "clip01")
    with suppress(StopIteration):
        video = next((whole / "work").rglob("*.avi"))
        shutil.copy(video, into / "clips" / "sad" / "take.avi")
    if (whole / "packed").is_dir():
        shutil.copytree(whole / "packed", into / "store")
    for record in sorted((whole / "work" / "smoke" / "runs").glob("[!.]*/record.json"))[:1]:
        shutil.copytree(record.parent, into / "record" / record.parent.name)
        shutil.copy(record.parent / "weights.safetensors", into / "weights")
    for matrix in sorted((whole / "work" / "smoke" / "inputs").glob("*.json"))[:1]:
        shutil.copy(matrix, into / "matrix")
    shutil.copy(ROOT / "audfer" / "study" / "profiles" / "smoke.toml", into / "profile")
    shutil.copy(next((ROOT / "notebooks").glob("02*.ipynb")), into / "notebook")


# ------------------------------------------------------------------------------------------------------ the commands


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Name -> digest of the files in a folder."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def of_records(place: Path) -> dict[str, str]:
    """What the cells of a store came to; without times, which no two runs have in common, and without cells that two
    processes trained, which round otherwise than one.
    """
    runs = place / "work" / "smoke" / "runs"
    metas = {path.parent: json.loads(path.read_text()) for path in runs.glob("[!.]*/record.json")}
    alone = [folder.name for folder, meta in metas.items() if meta["costs"].get("processes", 1) == 1]
    return {key: digests(runs / key, "weights.safetensors")["weights.safetensors"] for key in alone}


def deeds(sources: Path) -> list[Deed]:
    clips, csvs = str(sources / "clips"), str(sources / "csvs")
    profile = ["--profile", "smoke"]

    def pack(place: Path) -> list[str]:
        folder = ["data", "pack", "folder", str(place / "packed"), "--root", clips]
        return [*folder, "--frames", "8", "--size", "96", "--workers", "2"]

    return [
        Deed("data pack", pack, lambda place: digests(place / "packed", "*"), full=(1, 25)),
        Deed(
            "au import",
            lambda place: ["au", "import", csvs, "--out", str(place / "aus.parquet"), "--workers", "2"],
            lambda place: digests(place, "aus*"),
            full=(0.1, 3),
        ),
        Deed("grid", lambda place: ["grid", "fig5", *profile], of_records, full=(1, 40)),
        Deed(
            "train --processes 2",
            lambda place: ["train", "--model", "m3dfel", "--epochs", "3", "--processes", "2", *profile],
            lambda place: {},
        ),
        Deed(
            "reproduce",
            lambda place: ["reproduce", "--notebook", "A1_published_audit", *profile],
            lambda place: digests(place / "figures" / "smoke", "*.csv"),
        ),
    ]


def cut_links(soak: Soak) -> None:
    """A download from a server on a bad day, which ends whole or with a sentence, and then from a good one."""
    sys.path[:0] = [str(ROOT / "tests" / "datasets")]
    import threading

    from test_fetching import SPEECH, Zenodo

    from audfer.datasets import download

    server = Zenodo()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = Path(tempfile.mkdtemp(dir=soak.folder))
    ways = ("cut", "garbage", "longer", "500", "429", "hang up", "cut no range", "nothing", "wrong offset", "wait 0")
    for key in (3255102, *server.files[3255102], 1188976, *server.files[1188976]):
        server.misbehave[str(key)] = soak.random.choices(ways, k=soak.random.randrange(4))
    for _ in range(8):
        soak.count["cut links"] += 1
        try:
            got = download.fetch(download.plan("all", root, base_url=server.url, wait=0), wait=0)
        except AudferError:
            continue
        except Exception as error:
            soak.note("tracebacks", f"data fetch: {error!r}")
            continue
        if got != {"tracking": len(SPEECH), "videos": len(SPEECH)}:
            soak.note("lost", f"data fetch: {got}")
        break
    else:
        soak.note("lost", "data fetch: nothing after 8 attempts")
    server.shutdown()


def compare(soak: Soak, each: list[Deed], whole: Path, place: Path) -> None:
    """Run every command through, and count what is missing or other than in the undisturbed run."""
    for deed in each:
        soak.ended(deed, soak.start(deed, place), (0,))
        before, after = deed.made(whole), deed.made(place)
        for name in before:
            if name not in after:
                soak.note("lost", f"{deed.name}: {name}")
            elif after[name] != before[name]:
                soak.note("stale", f"{deed.name}: {name}")
    log = place / "work" / "smoke" / "runs" / "log.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    ends = Counter(line["key"] for line in map(json.loads, lines) if line["event"] == "end")
    for key, times in ends.items():
        if times > 1:
            soak.note("doubled", f"{key}: trained {times} times")
    # what was unfinished goes when its place is written again; every command has just been through
    for path in place.rglob(".*"):
        if _LEFT.fullmatch(path.name):
            soak.count["left behind"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="time for attacks, beside one run before and after")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="record to write (.json)")
    parser.add_argument("--only", action="append", help="attack this command alone (again for several; default: all)")
    parser.add_argument("--keep", help="folder to work in, which stays (default: a temporary one)")
    options = parser.parse_args()
    # a shell that starts a job in the background has it ignore Ctrl-C, and so would everything that is interrupted here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(options.keep or tempfile.mkdtemp(prefix="soak-"))
    soak, sources, whole, place = Soak(folder, options.seed), folder / "sources", folder / "whole", folder / "attacked"
    write_sources(sources)
    each = [deed for deed in deeds(sources) if not options.only or deed.name in options.only]
    for deed in each:
        began = time.monotonic()
        soak.ended(deed, soak.start(deed, whole), (0,))
        deed.took = time.monotonic() - began
        print(f"{deed.name}: {deed.took:.0f} s undisturbed", flush=True)
    write_inputs(soak, whole, sources)
    attacks = [soak.killed, soak.killed, soak.killed, soak.interrupted, soak.rivals]
    attacks += [soak.full] * (subprocess.run([*soak.room(1), "true"], capture_output=True).returncode == 0)
    until = time.monotonic() + 60 * options.minutes
    while time.monotonic() < until:
        deed, attack = soak.random.choice(each), soak.random.choice(attacks)
        if attack == soak.full and deed.full is None:
            continue
        attack(deed, place)
        for _ in range(20):
            soak.spoilt()
        if soak.random.random() < 0.2:
            cut_links(soak)
        print(" ".join(f"{name} {number}," for name, number in sorted(soak.count.items())), flush=True)
    compare(soak, each, whole, place)
    soak.child.close()
    faults = ("lost", "doubled", "stale", "orphans", "tracebacks", "hung")
    tried = ("kills", "interrupts", "rivals", "full disks", "cut links", "inputs tried")
    record = {
        "benchmark": "soak",
        "date": str(datetime.date.today()),
        "host": platform.node(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "profile": "smoke",
        "minutes": options.minutes,
        "seed": options.seed,
        "undisturbed_seconds": {deed.name: round(deed.took, 1) for deed in each},
        "tried": {name: soak.count[name] for name in tried} | {"inputs by kind": dict(sorted(soak.of.items()))},
        "found": {name: soak.count[name] for name in faults},
        "left_behind": soak.count["left behind"],
    }
    print(json.dumps(record, indent=2))
    if options.out:
        Path(options.out).write_text(json.dumps(record, indent=2) + "\n")
    bad = any(record["found"].values())
    if bad:
        print((folder / "faults.log").read_text()[-6000:], file=sys.stderr)
    elif not options.keep:
        shutil.rmtree(folder)
    sys.exit(bad)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]
    from soak import main as by_its_name  # the children import what they are to do by this name

    by_its_name()
