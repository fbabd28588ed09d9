"""Run notebooks headlessly with papermill, at most two at a time, and gather them into one report.

Everything that can be refused is refused before a kernel starts: an unknown profile, a misspelt parameter, a
parameter of the wrong type, a disk that is nearly full, a work folder that another run is using. Each notebook has a
thread of this process, in which papermill waits for the notebook's kernel; this one watches them.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import nbformat
import papermill
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler, papermill_io
from tqdm import tqdm

from .. import __version__
from ..errors import AudferError, InputError
from ..files import UNREADABLE, checkout, locked, write_json, write_text
from ..jobs.processes import following
from ..progress import clock
from ..study.profiles import PARAMETERS, load_profile, with_parameters
from .expectation import Expectation, keep
from .notebooks import check_parameters, clean_notebook, declared_parameters, question_of
from .report import write_report

_CHAIN = ("01_au_extraction", "02_knowledge_matrix", "03_training")
#: notebook -> those that have to be through before it; in the order of the report
AFTER: dict[str, tuple[str, ...]] = {
    **{name: _CHAIN[:number] for number, name in enumerate(_CHAIN)},
    "04_strategies": _CHAIN,
    "05_visualisations": _CHAIN,
    "A1_published_audit": (),
    "A2_keypoint_gcn": _CHAIN,
    "A3_lock_and_check": _CHAIN,
}
#: the same where networks have paper size: those of two notebooks may be too much for one GPU
_ALONE = {"A3_lock_and_check": (*_CHAIN, "A2_keypoint_gcn")}
#: of those that could begin the longest goes first
_LONGEST = ("A3_lock_and_check", "A2_keypoint_gcn")
NOTEBOOKS = tuple(AFTER)
#: names that stand for several notebooks
GROUPS = {"main": NOTEBOOKS[:5], "appendices": NOTEBOOKS[5:]}
WIDTH = 79
#: seconds that an interrupted notebook is given to end by itself
GRACE = 10.0
#: an error in a cell that is one of ours is the user's to mend: exit code 2 instead of 1
_USER_ERRORS = ("AudferError", "InputError")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class NotebookFailed(AudferError):
    """A notebook did not end well; the message names it, the cell and the error."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass
class NotebookRun:
    """What one notebook's run left behind."""

    name: str
    seconds: float
    tables: list[str]
    """stems of the tables (csv + md) that it wrote"""
    figures: list[str]
    """stems of the figures (png + svg + csv) that it wrote"""
    peak_memory_gb: float
    """largest resident memory of the kernel and its workers, 10^9 bytes, sampled about every second"""


def notebook_folder() -> Path:
    """``notebooks/`` of the checkout around the package or the current folder, else those that came with the package.

    Raises:
        AudferError: there are neither.
    """
    root = checkout()
    folder = root / "notebooks" if root else Path(__file__).with_name("shipped_notebooks")
    if not folder.is_dir():
        raise AudferError("no notebooks found: run this inside a checkout of the audfer repository")
    return folder


def reproduce(
    profile: str = "laptop",
    notebooks: Sequence[str] = NOTEBOOKS,
    parameters: dict[str, object] | None = None,
    *,
    source: str | os.PathLike | None = None,
    work: str | os.PathLike | None = None,
    figures: str | os.PathLike | None = None,
    minutes: float | None = None,
    free_gb: float = 2.0,
    update_notebooks: bool = False,
) -> Path:
    """Run notebooks and write ``report.html``; returns its path.

    Args:
        profile: name of a profile or path of a ``.toml`` file.
        notebooks: names, with or without folder and ``.ipynb``, or ``"appendices"``; run as ``AFTER`` orders them, one
            that it does not name after those before it here.
        parameters: values for the notebooks' parameters cells; each must be declared by one of the notebooks.
        source: folder of the notebooks; ``None`` for ``notebook_folder``.
        work: folder of generated work; ``None`` for ``AUDFER_WORK``, else ``work/`` in the repository or here. This run
            uses ``work/<profile>``: executed copies and logs go to ``notebooks/`` in it.
        figures: folder of tables and figures; ``None`` for ``AUDFER_FIGURES``, else ``figures/`` in the repository, or
            here. This run uses ``figures/<profile>``.
        minutes: wall-clock limit of each notebook; ``None`` for 60 with tiny networks and none with paper-size ones.
        free_gb: disk space that must be free before the start, 10^9 bytes.
        update_notebooks: copy the executed notebooks, without what changes from run to run, back to ``source``.

    Raises:
        InputError, AudferError: refused before a kernel started.
        NotebookFailed: a cell raised, a kernel died, or the limit was reached.
        KeyboardInterrupt: after the notebooks' processes have ended; run again to resume.
    """
    given = dict(parameters or {})
    profile = with_parameters(profile, **{name: given[name] for name in PARAMETERS if name in given})
    settings = load_profile(profile)
    for name in ("profile", "work", "figures"):
        if name in given:
            raise InputError("command line", "parameter", repr(name), f"the option --{name} for it")
    paths = _find(notebooks, Path(source) if source is not None else notebook_folder())
    chosen = check_parameters(list(paths.values()), given)
    work, figures = _folder(work, "work"), _folder(figures, "figures") / settings.name
    _check_disk(work, free_gb)
    figures.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=figures).close()  # now rather than in a cell
    tiny = settings.training.size == "tiny"
    if minutes is None and tiny:
        minutes = 60.0
    environment = _environment(profile, work, figures.parent)
    here = work / settings.name
    executed = {name: here / "notebooks" / path.name for name, path in paths.items()}

    def execution(name: str) -> _Execution:
        if "profile" in declared_parameters(paths[name]):
            chosen[name].setdefault("profile", str(profile))
        return _Execution(paths[name], executed[name], figures, chosen[name], environment, minutes, screen)

    with locked(here, "work folder"):
        expectation = Expectation(list(paths), here, figures)
        start, screen = time.monotonic(), _Screen(paths.values(), expectation)
        try:
            after = AFTER if tiny else {**AFTER, **_ALONE}
            if given.get("openface_folder"):  # of which each makes its own: nothing to wait for
                after = {**after, "02_knowledge_matrix": ()}
            runs = _in_order(list(paths), after, execution, screen)
        finally:
            screen.bar.close()
        seconds = time.monotonic() - start
        summary = {
            "profile": settings.name,
            "profile_summary": settings.summary,
            "embedded": settings.embedded,
            "finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": round(seconds, 1),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "versions": {"audfer": __version__, "python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy", "pandas", "scikit-learn", "matplotlib", "papermill")},
            "notebooks": [asdict(run) for run in runs],
        }
        write_json(here / "reproduce.json", summary)
        if update_notebooks:
            keep(figures, summary)
            for name, path in paths.items():
                cleaned = nbformat.writes(clean_notebook(nbformat.read(executed[name], as_version=4)))
                write_text(path, cleaned.rstrip("\n") + "\n")
        from ..results.long import write_results  # brings torch, which a refusal before the start need not wait for
        from ..training.records import RunStore

        write_results(figures, RunStore(here / "runs"))
        report = write_report(here / "report.html", list(executed.values()), figures, summary)
    _print_summary(runs, seconds, report, figures)
    return report


def rewrite_report(
    profile: str = "laptop", *, work: str | os.PathLike | None = None, figures: str | os.PathLike | None = None
) -> Path:
    """Write ``report.html`` again from what the last ``reproduce`` of a profile left; returns its path.

    Raises:
        InputError: that profile has not been run to its end in this work folder.
    """
    settings = load_profile(profile)
    here = _folder(work, "work") / settings.name
    try:
        summary = json.loads((here / "reproduce.json").read_text())
        executed = [here / "notebooks" / f"{run['name']}.ipynb" for run in summary["notebooks"]]
    except UNREADABLE as error:
        expected = f"the record of a finished `audfer reproduce --profile {profile}`"
        raise InputError(here / "reproduce.json", "summary of a run", type(error).__name__, expected) from None
    return write_report(here / "report.html", executed, _folder(figures, "figures") / settings.name, summary)


def _find(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Stem -> file of each notebook asked for, wherever it lies in the folder."""
    there = {path.stem: path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts}
    wanted = dict.fromkeys(stem for name in names for stem in GROUPS.get(name, (Path(name).stem,)))
    for stem in wanted:
        if stem not in there:
            raise InputError(folder, "notebook", repr(stem), f"one of {', '.join(there) or '(none there)'}")
    return {stem: there[stem] for stem in wanted}


def _folder(given: str | os.PathLike | None, name: str) -> Path:
    if given is None:
        given = os.environ.get(f"AUDFER_{name.upper()}") or (checkout() or Path.cwd()) / name
    return Path(given).expanduser().resolve()


def _check_disk(folder: Path, free_gb: float) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < free_gb:
        raise AudferError(
            f"{folder}: only {free:.1f} GB of disk are free, {free_gb:g} GB are needed; nothing was "
            "started: free some space, or choose another folder with AUDFER_WORK"
        )


def _environment(profile: str, work: Path, figures: Path) -> dict[str, str]:
    """What the kernels find in their environment."""
    # the kernel imports this very package, wherever it starts
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]
    defaults = {
        "TQDM_MININTERVAL": "10",
        "TQDM_NCOLS": "74",
        # glibc gives large blocks back after every batch and faults them in again for the next: keep them instead
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # and ask for it in large pages
    }
    return {
        **defaults,
        **os.environ,
        "AUDFER_PROFILE": str(Path(profile).resolve()) if str(profile).endswith(".toml") else str(profile),
        "AUDFER_WORK": str(work),
        "AUDFER_FIGURES": str(figures),
        "AUDFER_HEADLESS": "1",
        "AUDFER_PROGRESS": "off" if os.environ.get("AUDFER_PROGRESS") == "off" else "lines",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        # makes tqdm.auto print text instead of a widget that no one can see (tqdm looks for names that begin like this)
        "SPYDER_AUDFER_TEXT_PROGRESS": "1",
    }


# ---------------------------------------------------------------------------------------------------- the order


def _in_order(
    names: list[str], after: dict[str, tuple[str, ...]], execution: Callable[[str], _Execution], screen: _Screen
) -> list[NotebookRun]:
    """Run notebooks two at a time, each when those that it builds on are through; runs in the order of ``names``.

    Raises:
        What the first one that failed raised; the one beside it was stopped, and later ones were not begun.
    """
    order = TopologicalSorter(
        {name: {*after.get(name, names[:number])} & {*names} for number, name in enumerate(names)}
    )
    order.prepare()
    ready: list[str] = []
    running: dict[Future, _Execution] = {}
    runs: dict[str, NotebookRun] = {}
    with ThreadPoolExecutor(2) as pool:
        try:
            while order.is_active():
                ready = sorted(
                    {*ready, *order.get_ready()},
                    key=lambda name: (*(name != one for one in _LONGEST), names.index(name)),
                )
                while ready and len(running) < 2:
                    started = execution(ready.pop(0))
                    running[pool.submit(started.run)] = started
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future).path.stem
                    runs[name] = future.result()
                    order.done(name)
                for notebook in running.values():
                    notebook.watch()
                began = {one.path.stem: time.monotonic() - one.start for one in running.values()}
                screen.tick({name: run.seconds for name, run in runs.items()}, began)
        except BaseException:
            for notebook in running.values():
                notebook.stop()
            raise
    return [runs[name] for name in names]


class _Execution:
    """One notebook being executed: papermill's side of it in a thread (``run``), the rest from outside."""

    def __init__(
        self,
        path: Path,
        output: Path,
        figures: Path,
        parameters: dict,
        environment: dict[str, str],
        minutes: float | None,
        screen: _Screen,
    ):
        self.path, self.output, self.figures, self.screen = path, output, figures, screen
        self.parameters, self.environment, self.minutes = parameters, environment, minutes
        #: what its lines on the screen begin with
        self.number = path.stem.split("_")[0]
        self.start = time.monotonic()
        self.where, self.peak, self.sampled = "", 0.0, 0.0
        self.stopped = self.over_time = False
        self.manager = None

    def run(self) -> NotebookRun:
        """Execute it; raises ``NotebookFailed`` if it does not end well."""
        before = _stamps(self.figures)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.screen.line(self.path.stem)
        with self.output.with_suffix(".log").open("w", encoding="utf-8") as self.log:
            try:
                self._execute()
            except PapermillExecutionError as error:
                self._fail(error.ename, _ESCAPES.sub("", str(error.evalue)))
            except Exception as error:  # the kernel died, or did not start
                self._fail(type(error).__name__, str(error))
        # the notebook beside this one writes there too, but this one names neither those files nor their stem in quotes
        after, text = _stamps(self.figures), self.output.read_text(encoding="utf-8").replace("\\n", " ")
        said = set(re.findall(r"\w+\.\w+", text)) | set(re.findall(r"""["'](\w+)\\?["']""", text))
        changed = {name for name in after if after[name] != before.get(name) and {name, Path(name).stem} & said}
        tables, figures = (
            sorted(Path(name).stem for name in changed if name.endswith(kind)) for kind in (".md", ".png")
        )
        return NotebookRun(self.path.stem, time.monotonic() - self.start, tables, figures, round(self.peak / 1e9, 2))

    def _execute(self) -> None:
        streams = [_Lines(self._say) for _ in range(2)]
        for last in (False, True):
            try:
                papermill.execute_notebook(
                    self.path,
                    self.output,
                    self.parameters,
                    engine_name="audfer",
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    stdout_file=streams[0],
                    stderr_file=streams[1],
                    execution=self,
                )
            except PapermillExecutionError:
                raise
            except Exception:
                # Two kernels that start at once can be given one port (papermill#511): once more, if no cell has run.
                if last or self.where or self.stopped:
                    raise
            else:
                break
            finally:
                for lines in streams:
                    lines.finish()

    def begin(self, cells: list, index: int) -> None:
        """A cell begins. Cells are counted as a reader counts them, without the one that papermill adds."""
        if self.stopped:
            raise InterruptedError("stopped")
        added = [i for i, cell in enumerate(cells) if "injected-parameters" in cell.metadata.get("tags", [])]
        if index in added:
            return
        number, total = index + 1 - sum(i < index for i in added), len(cells) - len(added)
        question = question_of(cells, index)
        self.where = f", cell {number} of {total}" + (f" ({question})" if question else "")
        self.log.write(f"[cell {number}] {question}\n")
        self.log.flush()
        self.screen.cell(f"{self.number}  {number:>2}/{total}  {question}")

    def _say(self, text: str) -> None:
        self.log.write(text + "\n")
        self.log.flush()
        self.screen.line(f"{self.number}        {text}")

    def _fail(self, name: str, text: str) -> None:
        if self.over_time:
            name, text = (
                "TimeoutError",
                f"the limit of {self.minutes:g} minutes for one notebook was reached (--minutes)",
            )
        if name == "DeadKernelError":
            text += f" (peak memory {self.peak / 1e9:.1f} GB: a kernel that dies has often run out of it)"
        raise NotebookFailed(
            f"{self.path.name}{self.where}: {name}: {text}\nlog: {self.output.with_suffix('.log')}\n"
            f"executed so far: {self.output}\nRun the same command again to resume.",
            2 if name in _USER_ERRORS else 1,
        ) from None

    def _family(self) -> list[psutil.Process]:
        """The kernel and its workers."""
        try:
            kernel = psutil.Process(self.manager.provisioner.pid)
            return [kernel, *kernel.children(recursive=True)]
        except (AttributeError, TypeError, psutil.Error):  # not there yet, or no more
            return []

    def watch(self) -> None:
        """Look at the memory and the clock."""
        now = time.monotonic()
        if now - self.sampled >= 1:
            memory = 0
            for member in self._family():
                with contextlib.suppress(psutil.Error):
                    memory += member.memory_info().rss
            self.sampled, self.peak = now, max(self.peak, memory)
        if self.minutes is not None and now - self.start > 60 * self.minutes and not self.stopped:
            self.over_time = True
            self.stop()

    def stop(self) -> None:
        """End the kernel and its workers: first asked, then told.

        As with Ctrl-C in a terminal the cell and the workers see KeyboardInterrupt and can leave their files whole.
        """
        self.stopped = True
        family = self._family()
        for signal_, patience in ((signal.SIGINT, GRACE), (signal.SIGTERM, 3), (signal.SIGKILL, 1)):
            for member in family:
                with contextlib.suppress(psutil.Error):  # it ended by itself in the meantime
                    member.send_signal(signal_)
            _, family = psutil.wait_procs(family, patience)


class _ThisInterpreter(KernelSpecManager):
    """Whatever kernel specs are installed where, the kernel is this interpreter."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(**get_kernel_dict())


class _Client(PapermillNotebookClient):
    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = _ThisInterpreter()
        return manager


class _Engine(NBClientEngine):
    """papermill's engine with a kernel that an ``_Execution`` can follow and stop."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, execution, stdout_file, stderr_file, **_):
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=120,
            timeout=None,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
            on_cell_execute=lambda cell, cell_index: execution.begin(nb_man.nb.cells, cell_index),
        )
        client.km = execution.manager = client.create_kernel_manager()
        log = execution.log  # what the kernel's process itself prints
        return client.execute(
            env=execution.environment,
            cwd=str(execution.path.parent),
            stdout=log,
            stderr=log,
            cleanup_kc=True,
            **following(),  # it and its workers end with us, and hold the work folder as long as one of them lives
        )


papermill_engines.register("audfer", _Engine)


class _WholeFiles(LocalHandler):
    """papermill's way to local files, with notebooks that are whole whenever the disk is full or a run is killed."""

    def write(self, buf: str, path: str) -> None:
        write_text(path, buf)


papermill_io.register("/", _WholeFiles())  # absolute paths, as ours are


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------------- what is said


class _Screen:
    """What the person at the terminal sees: a bar over all cells on a terminal, plain lines everywhere else.

    Two notebooks may write to it at once; a line begins with its notebook's number.
    """

    def __init__(self, notebooks: Sequence[Path], expectation: Expectation):
        self.expectation = expectation
        cells = [cell for path in notebooks for cell in nbformat.read(path, as_version=4).cells]
        self.bar = tqdm(
            total=sum(cell.cell_type == "code" for cell in cells),
            disable=not sys.stderr.isatty() or os.environ.get("AUDFER_PROGRESS", "bar") != "bar",
            dynamic_ncols=True,
            leave=False,
            # the bar gives way to what is said, down to nothing
            bar_format="{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} cells, {elapsed}{postfix}",
        )
        if expectation.known:
            self.line(f"about {clock(expectation.whole)}, going by {expectation.source}")
        self.begun, self.through, self.lock = 0, 0, threading.Lock()

    def line(self, text: str) -> None:
        width = shutil.get_terminal_size((WIDTH + 1, 24)).columns - 1 if sys.stderr.isatty() else WIDTH
        self.bar.write(text[:width], file=sys.stderr)

    def tick(self, done: dict[str, float], running: dict[str, float]) -> None:
        """Say how much time is left; the clock of the bar runs on while a long cell says nothing."""
        left = self.expectation.left(done, running)
        if left is not None:
            self.bar.set_postfix_str(f"about {clock(left)} left", refresh=False)
            if self.bar.disable and len(done) > self.through:
                self.line(f"{len(done)} of {len(self.expectation.seconds)} notebooks, about {clock(left)} left")
        self.through = len(done)
        self.bar.refresh()

    def cell(self, text: str) -> None:
        self.line(text)
        with self.lock:
            self.bar.update(self.begun - self.bar.n)  # those before this one are done
            self.begun += 1


class _Lines:
    """Turns pieces of text into whole lines; a bar that redraws itself gives one line in ten seconds and its last."""

    def __init__(self, emit: Callable[[str], None], interval: float = 10.0):
        self.emit, self.interval, self.buffer, self.drawn, self.last = emit, interval, "", None, ""

    def write(self, text: str) -> None:
        """Take a piece of text."""
        *lines, self.buffer = (self.buffer + text).split("\n")
        for line in lines:
            line = line.rstrip("\r").split("\r")[-1]
            if self.drawn is None or line != self.last:
                self._line(line)
            self.drawn = None
        if "\r" in self.buffer:
            self.buffer, now = self.buffer.split("\r")[-1], time.monotonic()
            if self.drawn is None:  # a bar begins; one that is soon done needs no line but its last
                self.drawn, self.last = now, ""
            elif self.buffer.strip() and now - self.drawn >= self.interval:
                self.drawn, self.last = now, self.buffer
                self._line(self.buffer)

    def flush(self) -> None:
        """Nothing: papermill flushes after every piece, and a piece may be half a line."""

    def finish(self) -> None:
        """Emit what is left."""
        if self.buffer and (self.drawn is None or self.buffer != self.last):
            self._line(self.buffer)
        self.buffer, self.drawn = "", None

    def _line(self, line: str) -> None:
        line = _ESCAPES.sub("", line).rstrip()
        if line:
            self.emit(line)


def _print_summary(runs: list[NotebookRun], seconds: float, report: Path, figures: Path) -> None:
    def row(name: str, seconds: float, tables: Sequence, figures: Sequence, memory: str = "") -> None:
        print(f"{name[:23]:<24}{clock(seconds):>14}{len(tables):>8}{len(figures):>9}{memory:>10}")

    print(f"\n{'notebook':<24}{'time':>14}{'tables':>8}{'figures':>9}{'memory':>10}")
    for run in runs:
        row(run.name, run.seconds, run.tables, run.figures, f"{run.peak_memory_gb:.1f} GB")
    row("all", seconds, {t for run in runs for t in run.tables}, {f for run in runs for f in run.figures})
    shown = [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in (figures, report)]
    with contextlib.suppress(OSError, ValueError, IndexError):
        question, answer = next(csv.reader((figures / "conclusions.csv").read_text(encoding="utf-8").splitlines()[1:]))
        print("\n" + fill(f"{question} {answer}", WIDTH, break_long_words=False))
    print(f"\ntables and figures: {shown[0]}\nreport: {shown[1]}", flush=True)
