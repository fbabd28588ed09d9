"""Run the notebooks 01 to 05 and the appendices headlessly, one process each, and gather them into one report.

One after the other, but for those that no other one waits for (``BESIDE``): they use what cores the others leave idle.

Everything that can be refused is refused before a kernel starts: an unknown profile, a misspelt parameter, a
parameter of the wrong type, a disk that is nearly full, a work folder that another run is using. papermill alone only
warns about a misspelt parameter and then reports success.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

import nbformat

from ..errors import AudferError, InputError
from ..files import locked, write_json
from ..progress import clock
from ..study.profiles import Profile, load_profile

NOTEBOOKS: tuple[str, ...] = (
    "01_au_extraction",
    "02_knowledge_matrix",
    "03_training",
    "04_strategies",
    "05_visualisations",
    "A1_published_audit",
    "A2_keypoint_gcn",
    "A3_lock_and_check",
)
#: notebooks that no other one waits for, and which one has to be through before them ("": none): they run beside the
#: others
BESIDE: dict[str, str] = {
    "A1_published_audit": "",
    "04_strategies": "03_training",
    "05_visualisations": "03_training",
    "A3_lock_and_check": "03_training",
}
#: of those the ones that train: paper-size networks of two notebooks may be too much for one GPU, so then they wait
#: their turn
TRAINS = ("A3_lock_and_check",)
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

    def __reduce__(self):
        return type(self), (str(self), self.exit_code)


@dataclass
class NotebookRun:
    """What one notebook's run left behind."""

    name: str
    seconds: float
    tables: list[str] = field(default_factory=list)
    """stems of the tables (csv + md) that it wrote"""
    figures: list[str] = field(default_factory=list)
    """stems of the figures (png + svg + csv) that it wrote"""
    peak_memory_gb: float = 0.0
    """largest resident memory of the kernel and its workers, 10^9 bytes, sampled every second"""


# ---------------------------------------------------------------------------------------------------- parameters
def declared_parameters(notebook: Path) -> dict[str, object]:
    """Names and default values of a notebook's parameters cell (the code cell tagged ``parameters``).

    Raises:
        InputError: the file is missing or is no notebook, has no such cell, or the cell holds anything but plain
            ``name = literal`` lines (papermill puts its values *after* the cell, so anything computed there would
            keep the old value).
    """
    if not notebook.is_file():
        raise InputError(notebook, "notebook", "no such file", "an .ipynb file")
    try:
        content = nbformat.read(notebook, as_version=4)
    except Exception as error:  # nbformat raises many kinds for one thing: not a notebook
        raise InputError(notebook, "notebook", f"{type(error).__name__}: {error}", "a Jupyter notebook") from None
    for number, cell in enumerate(content.cells, start=1):  # noqa: B007  (named in messages below)
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            break
    else:
        raise InputError(notebook, "cell tags", "no cell tagged 'parameters'", "one code cell tagged 'parameters'")
    parameters = {}
    try:
        statements = ast.parse(cell.source).body
    except SyntaxError as error:
        raise InputError(
            notebook, f"cell {number}", f"a syntax error in line {error.lineno}", "plain `name = literal` lines"
        ) from None
    for statement in statements:
        try:
            (target,) = statement.targets
            parameters[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError, TypeError):
            raise InputError(
                notebook,
                f"cell {number} (parameters), line {statement.lineno}",
                repr(ast.unparse(statement)),
                "a plain `name = literal` line",
            ) from None
    return parameters


def check_parameters(notebooks: list[Path], given: dict[str, object]) -> dict[str, dict[str, object]]:
    """Parameters for each notebook, keyed by its stem; a notebook gets those of ``given`` that it declares.

    Raises:
        InputError: a name that none of the notebooks declares (the nearest one is suggested), or a value whose type
            is not the default's. Whole numbers are accepted for a float, anything where the default is ``None``.
    """
    declared = {path: declared_parameters(path) for path in notebooks}
    known = sorted(set().union(*declared.values())) if declared else []
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise InputError(
                ", ".join(path.stem for path in notebooks),
                "parameter",
                repr(name),
                f"one of {', '.join(known)}" + (f" (did you mean {near[0]}?)" if near else ""),
            )
    chosen = {}
    for path, defaults in declared.items():
        for name in given.keys() & defaults.keys():
            if not _fits(given[name], defaults[name]):
                raise InputError(
                    path.stem,
                    f"parameter {name}",
                    f"{given[name]!r}",
                    f"a {type(defaults[name]).__name__}; the default is {defaults[name]!r}",
                )
        chosen[path.stem] = {name: _place(name, given[name]) for name in given if name in defaults}
    return chosen


def _place(name: str, value: object) -> object:
    """Folders and files are meant as seen from here, and notebooks run in their own folder: make them absolute."""
    if not name.endswith(("_folder", "_file")) or not isinstance(value, str) or not value:
        return value
    path = Path(value).expanduser().resolve()
    if not path.exists():
        raise InputError("command line", f"parameter {name}", repr(value), "a path that exists")
    return str(path)


def _fits(value: object, default: object) -> bool:
    if default is None or value is None:
        return default is None or value is default
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple))
    return isinstance(value, type(default))


# ---------------------------------------------------------------------------------------------------- the run
def repository() -> Path:
    """The checkout that holds ``notebooks/``: around the package, or around the current folder.

    Raises:
        AudferError: neither has one (the package was installed without its repository).
    """
    for folder in (Path(__file__).resolve().parents[2], Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise AudferError("no notebooks found: run this inside a checkout of the audfer repository")


def reproduce(
    profile: str = "laptop",
    notebooks: tuple[str, ...] = NOTEBOOKS,
    parameters: dict[str, object] | None = None,
    *,
    source: str | os.PathLike | None = None,
    work: str | os.PathLike | None = None,
    figures: str | os.PathLike | None = None,
    minutes: float | None = None,
    free_gb: float = 2.0,
    update_notebooks: bool = False,
) -> Path:
    """Run notebooks in order and write ``report.html``; returns its path.

    Args:
        profile: name of a profile or path of a ``.toml`` file.
        notebooks: stems, run in this order; those of ``BESIDE`` next to the others, as soon as what they need is there.
        parameters: values for the notebooks' parameters cells; each must be declared by one of the notebooks.
        source: folder of the notebooks; ``None`` for the repository's ``notebooks/``.
        work: folder of generated work; ``None`` for ``AUDFER_WORK``, else ``work/`` in the repository. This run uses
            ``work/<profile>``: executed copies and logs go to ``notebooks/`` in it.
        figures: folder of tables and figures; ``None`` for ``AUDFER_FIGURES``, else ``figures/`` in the repository.
            This run uses ``figures/<profile>``.
        minutes: wall-clock limit of each notebook; ``None`` for 60 with tiny networks and none with paper-size ones.
        free_gb: disk space that must be free before the start, 10^9 bytes.
        update_notebooks: copy the executed notebooks, without what changes from run to run, back to ``source``.

    Raises:
        InputError, AudferError: refused before a kernel started.
        NotebookFailed: a cell raised, a kernel died, or the limit was reached.
        KeyboardInterrupt: after the notebook's processes have ended; run again to resume.
    """
    settings = load_profile(profile)
    for name in ("profile", "work", "figures"):
        if name in (parameters or {}):
            raise InputError("command line", "parameter", repr(name), f"the option --{name} for it")
    folder = Path(source) if source is not None else repository() / "notebooks"
    unknown = [name for name in notebooks if not (folder / f"{name}.ipynb").is_file()]
    if unknown:
        known = sorted(path.stem for path in folder.glob("*.ipynb"))
        raise InputError(folder, "notebook", repr(unknown[0]), f"one of {', '.join(known) or '(none there)'}")
    paths = [folder / f"{name}.ipynb" for name in notebooks]
    given = check_parameters(paths, dict(parameters or {}))
    for path in paths:
        if "profile" in declared_parameters(path):
            given[path.stem].setdefault("profile", str(profile))
    work = _folder(work, "AUDFER_WORK", "work")
    figures = _folder(figures, "AUDFER_FIGURES", "figures")
    _check_disk(work, free_gb)
    if minutes is None and settings.training.size == "tiny":
        minutes = 60.0
    environment = {
        "AUDFER_PROFILE": str(Path(profile).resolve()) if str(profile).endswith(".toml") else str(profile),
        "AUDFER_WORK": str(work),
        "AUDFER_FIGURES": str(figures),
        "AUDFER_HEADLESS": "1",
        "AUDFER_PROGRESS": "off" if os.environ.get("AUDFER_PROGRESS") == "off" else "lines",
    }
    here = work / settings.name
    with locked(here, "work folder"):
        screen = _Screen(sum(_code_cells(path) for path in paths))
        start, stopping = time.monotonic(), threading.Event()
        try:
            alone = TRAINS if settings.training.size != "tiny" else ()
            aside = {name: first for name, first in BESIDE.items() if name not in alone}
            runs = _side_by_side(
                paths,
                aside,
                lambda path: _run(
                    path, here, figures / settings.name, given[path.stem], environment, minutes, screen, stopping
                ),
                stopping,
            )
        finally:
            screen.close()
        summary = _summary(settings, runs, time.monotonic() - start)
        write_json(here / "reproduce.json", summary)
        if update_notebooks:
            for path in paths:
                nbformat.write(clean_notebook(nbformat.read(here / "notebooks" / path.name, as_version=4)), path)
        from .report import write_report

        report = write_report(
            here / "report.html", [here / "notebooks" / path.name for path in paths], figures / settings.name, summary
        )
    _print_summary(runs, summary["seconds"], report, figures / settings.name)
    return report


def rewrite_report(
    profile: str = "laptop", *, work: str | os.PathLike | None = None, figures: str | os.PathLike | None = None
) -> Path:
    """Write ``report.html`` again from what the last ``reproduce`` of a profile left; returns its path.

    Raises:
        InputError: that profile has not been run to its end in this work folder.
    """
    from .report import write_report

    settings = load_profile(profile)
    here = _folder(work, "AUDFER_WORK", "work") / settings.name
    try:
        summary = json.loads((here / "reproduce.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            here / "reproduce.json",
            "summary of a run",
            type(error).__name__,
            f"the record of a finished `audfer reproduce --profile {profile}`",
        ) from None
    paths = [here / "notebooks" / f"{run['name']}.ipynb" for run in summary["notebooks"]]
    return write_report(
        here / "report.html", paths, _folder(figures, "AUDFER_FIGURES", "figures") / settings.name, summary
    )


def _folder(given: str | os.PathLike | None, variable: str, name: str) -> Path:
    if given is None:
        given = os.environ.get(variable) or repository() / name
    return Path(given).expanduser().resolve()


def _check_disk(folder: Path, free_gb: float) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < free_gb:
        raise AudferError(
            f"{folder}: only {free:.1f} GB of disk are free, {free_gb:g} GB are needed; nothing was "
            "started: free some space, or choose another folder with AUDFER_WORK"
        )


class _Halted(Exception):
    """Another notebook has failed, or the user has had enough: this one was stopped."""


def _side_by_side(
    paths: list[Path], aside: dict[str, str], run: Callable[[Path], NotebookRun], stopping: threading.Event
) -> list[NotebookRun]:
    """``run(path)`` of every notebook, in the order of ``paths``: one after the other here, and those of ``aside`` in a
    thread.

    Args:
        aside: as ``BESIDE``.

    Raises:
        What the first one that failed raised; the other was stopped by ``stopping``, and later ones were not begun.
    """
    done = {path.stem: threading.Event() for path in paths}
    runs: dict[str, NotebookRun] = {}
    failures: list[BaseException] = []

    def go(own: list[Path]) -> None:
        try:
            for path in own:
                if (first := done.get(aside.get(path.stem, ""))) is not None:
                    while not first.wait(0.2) and not stopping.is_set():
                        pass
                if stopping.is_set():
                    return
                runs[path.stem] = run(path)
                done[path.stem].set()
        except BaseException as error:
            if not isinstance(error, _Halted):
                failures.append(error)
            stopping.set()

    # those that wait for nothing first
    second = sorted((path for path in paths if path.stem in aside), key=lambda path: aside[path.stem] in done)
    beside = threading.Thread(target=go, args=(second,))
    beside.start()
    go([path for path in paths if path.stem not in aside])
    try:
        beside.join()
    except BaseException as error:
        failures.append(error)
        stopping.set()
        beside.join()
    if failures:
        raise failures[0]
    return [runs[path.stem] for path in paths]


def _run(
    path: Path,
    work: Path,
    figures: Path,
    parameters: dict,
    environment: dict[str, str],
    minutes: float | None,
    screen: _Screen,
    stopping: threading.Event,
) -> NotebookRun:
    """Execute one notebook in its own process, follow it, and raise if it does not end well."""
    output = work / "notebooks" / path.name
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    before = _stamps(figures)
    screen.line(f"{path.stem}")
    start = time.monotonic()
    order = {"notebook": str(path), "output": str(output), "parameters": parameters}
    with log.open("w") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "audfer.companion.reproduce", json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=log_file,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env=_child_environment(environment),
            # its own session: Ctrl-C reaches this process only, which then ends the notebook in order
            start_new_session=True,
        )
        try:
            failure, peak = _follow(process, log_file, minutes, screen, path.stem.split("_")[0], stopping)
        except BaseException:
            _stop(process)
            raise
    run = NotebookRun(path.stem, time.monotonic() - start, peak_memory_gb=round(peak / 1e9, 2))
    if failure is not None:
        raise NotebookFailed(
            _explain(path, failure, process.returncode, peak, log), 2 if failure.get("ename") in _USER_ERRORS else 1
        )
    # the notebook beside this one writes there too, but this one names neither those files nor, in quotes, their stem
    after, text = _stamps(figures), output.read_text().replace("\\n", " ")
    said = set(re.findall(r"\w+\.\w+", text)) | set(re.findall(r"""["'](\w+)\\?["']""", text))
    changed = {name for name in after if after[name] != before.get(name) and {name, Path(name).stem} & said}
    run.figures = sorted(Path(name).stem for name in changed if name.endswith(".png"))
    run.tables = sorted(Path(name).stem for name in changed if name.endswith(".md"))
    return run


def _child_environment(extra: dict[str, str]) -> dict[str, str]:
    environment = {**os.environ, **extra}
    # the kernel imports this very package, wherever it starts
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    # makes tqdm.auto print text instead of a widget that no one can see (tqdm looks for names that begin like this)
    environment["SPYDER_AUDFER_TEXT_PROGRESS"] = "1"
    environment.setdefault("TQDM_MININTERVAL", "10")
    environment.setdefault("TQDM_NCOLS", "74")
    # glibc gives large blocks back after every batch and faults them in again for the next: keep them instead
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        environment.setdefault(name, str(2**30))
    environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # and ask for it in large pages
    return environment


def _follow(
    process: subprocess.Popen, log, minutes: float | None, screen: _Screen, number: str, stopping: threading.Event
) -> tuple[dict | None, float]:
    """Show a notebook's events until it ends; returns (failure event or None, peak memory in bytes).

    Args:
        number: what its lines on the screen begin with. stopping: set when it is to end.
    """
    events: queue.Queue = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            events.put(line)
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    failure, done, peak, sampled = None, False, 0.0, 0.0
    last: dict = {}
    deadline = time.monotonic() + minutes * 60 if minutes is not None else float("inf")
    while True:
        try:
            line = events.get(timeout=0.5)
        except queue.Empty:
            line = ""
        now = time.monotonic()
        if now - sampled >= 1:
            sampled, peak = now, max(peak, _memory(process))
        if line is None:
            break
        if stopping.is_set():
            raise _Halted
        if now > deadline:
            _stop(process)
            return {
                **last,
                "ename": "TimeoutError",
                "evalue": f"the limit of {minutes:g} minutes for one notebook was reached (--minutes)",
            }, peak
        screen.tick()
        if not line:
            continue
        event = json.loads(line)
        if event["kind"] == "cell":
            last = event
            screen.cell(number, event)
            log.write(f"[cell {event['cell']}] {event['question']}\n")
        elif event["kind"] == "output":
            log.write(event["text"] + "\n")
            screen.line(f"{number}        {event['text']}")
        elif event["kind"] == "error":
            failure = {**last, **event}
        elif event["kind"] == "done":
            done = True
        log.flush()
    process.wait()
    if failure is None and (not done or process.returncode):
        failure = {**last, "ename": "ProcessDied", "evalue": "the notebook's process ended without a word"}
    return failure, peak


def _memory(process: subprocess.Popen) -> float:
    import psutil

    total = 0
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for member in family:
        with contextlib.suppress(psutil.Error):
            total += member.memory_info().rss
    return float(total)


def _stop(process: subprocess.Popen) -> None:
    """End a notebook's process, its kernel and the kernel's workers: first asked, then told."""
    import psutil

    try:
        runner = psutil.Process(process.pid)
        kernels, family = runner.children(), [runner, *runner.children(recursive=True)]
    except psutil.Error:
        process.wait()
        return
    # as Ctrl-C in a terminal would: the cell and the workers see KeyboardInterrupt and can leave their files whole
    for member in family[1:]:
        _quietly(member.send_signal, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE if kernels else 0.1)
    _, alive = psutil.wait_procs(family, timeout=0.5)
    for member in alive:
        _quietly(member.terminate)
    _, alive = psutil.wait_procs(alive, timeout=3)
    for member in alive:
        _quietly(member.kill)
    process.wait()


def _quietly(action, *arguments) -> None:
    import psutil

    try:
        action(*arguments)
    except psutil.Error:
        pass  # it ended by itself in the meantime


def _explain(path: Path, failure: dict, code: int | None, peak: float, log: Path) -> str:
    where = f"{path.name}, cell {failure['cell']} of {failure['total']}" if "cell" in failure else path.name
    question = f" ({failure['question']})" if failure.get("question") else ""
    text = f"{where}{question}: {failure['ename']}: {failure['evalue']}"
    if failure["ename"] in ("DeadKernelError", "ProcessDied"):
        text += f" (exit status {code}; peak memory {peak / 1e9:.1f} GB: a kernel that dies has often run out of it)"
    return f"{text}\nlog: {log}\nexecuted so far: {log.with_suffix('.ipynb')}\nRun the same command again to resume."


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*") if path.is_file()}


def _code_cells(path: Path) -> int:
    return sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)


class _Screen:
    """What the person at the terminal sees: a bar over all cells on a terminal, plain lines everywhere else.

    Two notebooks may write to it at once; a line begins with its notebook's number.
    """

    def __init__(self, cells: int):
        self.bar, self.begun, self.lock = None, 0, threading.RLock()
        if sys.stderr.isatty() and os.environ.get("AUDFER_PROGRESS", "bar") == "bar":
            from tqdm import tqdm

            self.bar = tqdm(
                total=cells,
                dynamic_ncols=True,
                leave=False,
                bar_format="{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} cells, {elapsed}",
            )

    def line(self, text: str) -> None:
        text = text[:WIDTH]
        with self.lock:
            if self.bar is not None:
                self.bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)

    def cell(self, number: str, event: dict) -> None:
        with self.lock:
            self.line(f"{number}  {event['cell']:>2}/{event['total']}  {event['question']}")
            if self.bar is not None:
                self.bar.update(self.begun - self.bar.n)  # those before this one are done
            self.begun += 1

    def tick(self) -> None:
        """Keep the clock of the bar running while a long cell says nothing."""
        with self.lock:
            if self.bar is not None:
                self.bar.refresh()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _summary(settings: Profile, runs: list[NotebookRun], seconds: float) -> dict:
    packages = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib", "papermill")
    return {
        "profile": settings.name,
        "profile_summary": settings.summary,
        "embedded": settings.embedded,
        "finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "audfer": _own_version(),
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "notebooks": [asdict(run) for run in runs],
    }


def _own_version() -> str:
    from .. import __version__

    return __version__


def _print_summary(runs: list[NotebookRun], seconds: float, report: Path, figures: Path) -> None:
    print(f"\n{'notebook':<24}{'time':>14}{'tables':>8}{'figures':>9}{'memory':>10}")
    for run in runs:
        print(
            f"{run.name[:23]:<24}{clock(run.seconds):>14}{len(run.tables):>8}{len(run.figures):>9}"
            f"{run.peak_memory_gb:>7.1f} GB"
        )
    tables, pictures = {t for r in runs for t in r.tables}, {f for r in runs for f in r.figures}
    print(f"{'all':<24}{clock(seconds):>14}{len(tables):>8}{len(pictures):>9}")
    print(f"tables and figures: {_short(figures)}\nreport: {_short(report)}", flush=True)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without what changes from run to run, so that a committed copy changes only when its results do.

    Removes papermill's times, paths and injected cell, execution timestamps, progress lines (standard error), the
    path of this checkout and the interpreter's patch version; keeps results, cell identifiers, tags and jupytext's
    pairing.
    """
    checkout = str(Path(__file__).resolve().parents[2]) + os.sep
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags or "papermill-error-cell-tag" in tags:
            continue
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if not (output.output_type == "stream" and output.name == "stderr")
            ]
            for output in cell.outputs:
                for holder, key in ((output, "text"), (output.get("data", {}), "text/plain")):
                    if key in holder:
                        holder[key] = holder[key].replace(checkout, "")
        cells.append(cell)
    notebook.cells = cells
    for number, cell in enumerate((c for c in cells if c.cell_type == "code"), start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


# ---------------------------------------------------------------------------------------------------- the child
def question_of(cells: list, index: int) -> str:
    """The question that a code cell answers: the one in the Markdown above it, else its own first line of code."""
    for cell in reversed(cells[:index]):
        if cell.cell_type == "markdown" and cell.source.strip():
            line = re.sub(r"[*_`]", "", cell.source.strip().splitlines()[0].lstrip("# ").strip())
            return line.partition("?")[0] + "?" if "?" in line else line
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", []):
            break
    lines = [line.strip() for line in cells[index].source.splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


class _Lines:
    """Turns pieces of text into whole lines; a bar that redraws itself gives one line in ten seconds and its last."""

    def __init__(self, emit, interval: float = 10.0):
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


def _execute(order: dict) -> int:
    """Execute one notebook with papermill and report on standard output, one JSON object a line (child process)."""
    # The kernel inherits this process's standard output; events keep a private copy so that nothing mixes with them.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def emit(**event) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    import papermill
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    class ThisInterpreter(KernelSpecManager):
        """Whatever kernel specs are installed where, the kernel is this interpreter."""

        def get_kernel_spec(self, kernel_name):
            return KernelSpec(**get_kernel_dict())

    started = {}
    streams = [_Lines(lambda text: emit(kind="output", text=text)) for _ in range(2)]

    class Client(PapermillNotebookClient):
        def create_kernel_manager(self):
            manager = super().create_kernel_manager()
            manager.kernel_spec_manager = ThisInterpreter()
            return manager

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, stdout_file, stderr_file, **_):
            # cells are counted as a reader counts them: all cells, without the one that papermill adds
            added = [i for i, c in enumerate(nb_man.nb.cells) if "injected-parameters" in c.metadata.get("tags", [])]

            def begin(cell, cell_index):
                for lines in streams:
                    lines.finish()
                if cell_index in added:
                    return
                started.update(cell=cell_index + 1 - sum(i < cell_index for i in added))
                emit(
                    kind="cell",
                    cell=started["cell"],
                    total=len(nb_man.nb.cells) - len(added),
                    question=question_of(nb_man.nb.cells, cell_index),
                )

            return Client(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=120,
                timeout=None,
                stdout_file=stdout_file,
                stderr_file=stderr_file,
                on_cell_execute=begin,
            ).execute()

    papermill_engines.register("audfer", Engine)
    for attempt in (1, 2):
        try:
            papermill.execute_notebook(
                order["notebook"],
                order["output"],
                order["parameters"],
                engine_name="audfer",
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=streams[0],
                stderr_file=streams[1],
                cwd=str(Path(order["notebook"]).parent),
            )
        except PapermillExecutionError as error:
            emit(kind="error", ename=error.ename, evalue=_ESCAPES.sub("", str(error.evalue)))
            return 1
        except Exception as error:
            # Two kernels that start at once can be given one port (papermill#511): once more, if no cell has run.
            if attempt == 1 and not started:
                continue
            emit(kind="error", ename=type(error).__name__, evalue=str(error))
            return 1
        break
    for lines in streams:
        lines.finish()
    emit(kind="done")
    return 0


if __name__ == "__main__":
    sys.exit(_execute(json.loads(sys.argv[1])))
