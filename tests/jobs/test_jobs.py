"""The engine that everything runs in many pieces through, and the child processes under it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from audfer.errors import AudferError, InputError
from audfer.jobs import workers
from audfer.jobs.executors import (
    dask_client,
    import_slurm_cluster,
    job_script,
    opened,
    slurm_cluster,
    slurm_options,
)
from audfer.jobs.processes import ChildEnded, OutOfTime, PythonChild, run_limited
from audfer.jobs.workers import TAKEN, Run, WorkersDied, claimed, each

needs_slurm = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed")


def alive(pid) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


# ---- the engine


@pytest.fixture
def deeds(tmp_path, monkeypatch):
    """A module of functions that workers can import and that import nothing themselves."""
    (tmp_path / "deeds.py").write_text(
        "import os, pathlib, time\n"
        "def square(x):\n    return x * x\n"
        "def kill(x):\n    os.kill(os.getpid(), 9)\n"
        "def kill_once(path):\n"
        "    if not os.path.exists(path):\n        pathlib.Path(path).touch()\n        kill(path)\n"
        "    return os.getpid()\n"
        "def sleep(path):\n    pathlib.Path(path).write_text(str(os.getpid()))\n    time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)  # for pools that are not ours
    sys.modules.pop("deeds", None)
    import deeds

    return deeds


def answers(function, items, pool, **options) -> dict:
    with Run(function, items, pool, **options) as run:
        return dict(run)


@pytest.mark.parametrize("count", [1, 2])
def test_every_item_gives_its_answer_or_its_error(count):
    with opened(workers=count) as pool:
        found = answers(divmod, [(1, 1), (1, 0), (5, 2)], pool, arguments=lambda item: item)
    assert found.pop((1, 0)).args == ("integer division or modulo by zero",)
    assert found == {(1, 1): (1, 0), (5, 2): (2, 1)}


def test_each_takes_few_tasks_at_a_time_and_ends_at_the_first_error(deeds):
    taken = []
    results = each(deeds.square, (taken.append(x) or x for x in range(100)), workers=2)
    assert next(results) in {x * x for x in range(10)} and len(taken) < 10
    results.close()
    assert sorted(each(deeds.square, range(5), workers=2)) == [0, 1, 4, 9, 16]
    assert list(each(deeds.square, range(3))) == [0, 1, 4]
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            list(each((1).__floordiv__, [1, 0], workers=count))
    with pytest.raises(InputError, match="at least 1"):
        next(each(deeds.square, [1], workers=0))
    with pytest.raises(AudferError, match="a worker process was killed: 3 workers died .* with fewer workers"):
        list(each(deeds.kill, [1], workers=2))


def test_a_killed_worker_costs_one_item_a_second_try(deeds, tmp_path):
    with opened(workers=2) as pool:
        found = answers(deeds.kill_once, [str(tmp_path / name) for name in "abc"], pool)
    assert all(isinstance(pid, int) and pid != os.getpid() for pid in found.values())
    assert not any(map(alive, found.values()))  # they ended with the pool


def test_an_item_that_kills_every_worker_is_given_up_or_tried_in_parts(deeds):
    with opened(workers=2) as pool:
        (whole,) = answers(deeds.kill, [(1, 2)], pool).values()
        parts = answers(deeds.kill, [(1, 2)], pool, split=lambda item: [(x,) for x in item])
    assert isinstance(whole, WorkersDied) and "3 workers died with it" in str(whole) and "SIGKILL" in str(whole)
    assert set(parts) == {(1,), (2,)} and all(isinstance(part, WorkersDied) for part in parts.values())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:  # the caller's own does not mend itself
        with opened(own) as pool:
            found = answers(deeds.kill, [1, 2, 3], pool)
    assert "its worker died with it" in "".join(map(str, found.values()))
    assert all(isinstance(answer, AudferError) for answer in found.values()) and len(found) == 3


def test_ctrl_c_kills_what_runs_and_nothing_of_another_pool(deeds, tmp_path):
    other = PythonChild()
    bystander = other.call(os.getpid, seconds=20)
    places = [tmp_path / name for name in "ab"]
    started = lambda: [place.read_text() for place in places if place.is_file() and place.read_text()]  # noqa: E731

    def interrupt():
        wait_for(lambda: len(started()) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), opened(workers=2) as pool:
        answers(deeds.sleep, [*map(str, places), "never begun"], pool)
    wait_for(lambda: not any(map(alive, started())), 5)
    assert other.call(os.getpid, seconds=20) == bystander and not Path("never begun").exists()
    other.close()


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_workers_do_not_outlive_a_run_that_is_killed_whatever_they_are_at(deeds, tmp_path, late):
    """At once: they may not have begun to import what they are to do."""
    code = (
        "import sys, psutil; from audfer.jobs.executors import opened; from audfer.jobs.workers import Run\n"
        "import deeds\n"
        "with opened(workers=2) as pool, Run(deeds.sleep, sys.argv[1:], pool, tick=lambda: print(\n"
        "        *[one.pid for one in psutil.Process().children(recursive=True)], flush=True)) as run:\n"
        "    list(run)"
    )
    items = [str(tmp_path / name) for name in "ab"]
    parent = psutil.Popen([sys.executable, "-c", code, *items], stdout=-1, text=True)
    wait_for(lambda: len(parent.children(recursive=True)) >= 2)
    time.sleep(late)
    workers = parent.children(recursive=True)
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(workers, 5)[1]


def test_an_item_that_another_runner_holds_is_waited_for_and_then_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "LOOK", 0.02)
    done = []

    def work(item: str) -> str:
        with claimed(tmp_path / item) as mine:
            if mine:
                done.append(item)
            return "made" if mine else TAKEN

    def free(item: str) -> bool:
        with claimed(tmp_path / item) as mine:
            return mine

    result = {}
    with claimed(tmp_path / "a") as mine, opened() as pool:
        assert mine
        run = threading.Thread(target=lambda: result.update(answers(work, ["a", "b"], pool, free=free)))
        run.start()
        wait_for(lambda: done == ["b"])
        time.sleep(0.1)
        assert run.is_alive() and done == ["b"]
    run.join(10)
    assert result == {"a": "made", "b": "made"}


def test_what_is_no_executor_is_refused():
    with pytest.raises(InputError, match="executor: found int, expected None, a Dask client"), opened(3):
        pass


# ---- child processes


def test_a_program_is_killed_with_all_it_started(tmp_path):
    start = time.monotonic()
    with pytest.raises(OutOfTime):
        run_limited(["sh", "-c", f"sleep 60 & echo $! > {tmp_path / 'pid'}; wait"], 0.3)
    assert time.monotonic() - start < 5
    wait_for(lambda: not alive((tmp_path / "pid").read_text().strip()), 5)


def test_a_python_child_keeps_its_state_and_survives_what_it_is_asked():
    child = PythonChild()
    try:
        first = child.call(os.getpid, seconds=20)
        assert first != os.getpid() and child.call(os.getpid, seconds=20) == first
        with pytest.raises(ZeroDivisionError):
            child.call(divmod, 1, 0, seconds=20)
        assert child.call(print, "not an answer", seconds=20) is None and child.call(os.getpid, seconds=20) == first
        with pytest.raises(ChildEnded, match="exit status 3"):
            child.call(os._exit, 3, seconds=20)
        with pytest.raises(OutOfTime):
            child.call(time.sleep, 60, seconds=0.3)
        assert not alive(first) and child.call(os.getpid, seconds=20) not in (first, os.getpid())
    finally:
        child.close()


# ---- clusters


@needs_slurm
def test_a_scheduler_that_does_not_answer_and_wrong_slurm_words_are_sentences(monkeypatch):
    with pytest.raises(AudferError, match="no Dask scheduler there"), dask_client("tcp-nonsense://127.0.0.1:1"):
        pass
    assert slurm_options(["jobs=8", "walltime=04:00:00"]) == {"jobs": 8, "walltime": "04:00:00"}
    with pytest.raises(InputError, match="KEY=VALUE"):
        slurm_options(["jobs"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AudferError, match="no sbatch on PATH"), dask_client(slurm={"jobs": 1}):
        pass


@pytest.fixture
def slurm_here(tmp_path, monkeypatch):
    """Programs in SLURM's place that run a job on this machine and end it."""
    programs = {
        "sbatch": 'cp "$1" "${0%/*}/script"; setsid bash "${0%/*}/script" > "${0%/*}/out" 2>&1 &\n'
        'echo $! > "${0%/*}/job"; echo Submitted batch job $!',
        "scancel": "kill -- -$1 2>/dev/null; true",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    yield tmp_path
    with contextlib.suppress(OSError, ValueError):
        os.killpg(int((tmp_path / "job").read_text()), signal.SIGKILL)


@needs_slurm
def test_nobody_without_the_runs_certificate_can_talk_to_its_cluster(slurm_here):
    from distributed import Client

    log = slurm_here / "logs"
    before = {one.laddr for one in psutil.Process().net_connections("inet")}
    options = slurm_cluster({"jobs": 1, "memory": "1GB", "python": sys.executable}, str(log))
    with dask_client(slurm=options, log=str(log)) as client:
        assert client.submit(divmod, 7, 2).result(60) == (3, 1), (slurm_here / "out").read_text()
        opened = {one for one in psutil.Process().net_connections("inet") if one.laddr not in before}
        listening = {one.laddr.ip for one in opened if one.status == psutil.CONN_LISTEN}
        (worker,) = client.scheduler_info()["workers"].values()
        address = client.scheduler.address
        assert (
            address.startswith("tls://")
            and worker["id"]
            and client.scheduler_info()["services"].keys() <= {"dashboard"}
        )
        assert listening == {"127.0.0.1", address.split("/")[-1].rsplit(":", 1)[0]}
        (keys,) = log.glob(".tls.*")
        assert keys.stat().st_mode & 0o077 == 0
        for stranger in (address, address.replace("tls", "tcp")):
            with pytest.raises((OSError, TypeError, ValueError, TimeoutError)):
                Client(stranger, timeout=2)
    assert not list(log.glob(".tls.*"))


@needs_slurm
def test_a_cluster_leaves_ctrl_c_as_it_was():
    """Importing dask-jobqueue makes Ctrl-C end the process at once; then nothing would stop the children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for module in [name for name in sys.modules if name.split(".")[0] == "dask_jobqueue"]:
            del sys.modules[module]
        import_slurm_cluster()
        assert "dask_jobqueue.runner" in sys.modules and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@needs_slurm
def test_a_slurm_job_is_one_worker_with_one_gpu():
    script = job_script(
        {"jobs": 8, "gpus": 1, "queue": "gpu", "cores": 8, "memory": "32GB", "walltime": "12:00:00"}, "logs"
    )
    for line in ("#SBATCH -p gpu", "#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=8", "#SBATCH -t 12:00:00"):
        assert line in script
    assert "--nthreads 1" in script and "--resources GPU=1" in script and "--nworkers" not in script
    assert "gres" not in job_script({"queue": "cpu"})
    for wrong in ({"gpus": 2}, {"processes": 4}):
        with pytest.raises(InputError, match="ask for more jobs instead"):
            slurm_cluster(wrong)
    with pytest.raises(InputError, match="Got unexpected keyword argument 'quue'"):
        job_script({"quue": "gpu"})
