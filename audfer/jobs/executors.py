"""Where jobs run: in this process, in threads or processes of this machine, on a Dask cluster, under SLURM.

All are ``concurrent.futures`` executors, in a ``Pool`` that says what ``workers.Run`` has to know of them. A worker
that dies takes the job with it that it was doing and no other; ``lost_worker`` tells such an end from an error of the
job.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import AudferError, InputError
from ..files import scratch_folder
from .processes import ChildEnded, end_children, own_child, stop_children

#: environment variable with the address of the Dask scheduler that studies train on
SCHEDULER = "AUDFER_SCHEDULER"
#: a job is given up when this many workers have died with it; Dask counts by itself, to the same number
LOST_WORKERS = 3
_HERE = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
_NO_LIMIT = 30 * 86400.0  # seconds; ``select`` takes no infinity


class Here(Executor):
    """Does each job in this process, while ``submit`` is called."""

    def submit(self, function: Callable, /, *arguments) -> Future:
        """A future that is done; interrupts are not kept in it."""
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


class Threads(ThreadPoolExecutor):
    """Threads of this process, for jobs that start processes of their own; these end with the executor."""

    def __init__(self, workers: int):
        mine = self._mine = set()
        super().__init__(workers, "job", lambda: mine.add(threading.current_thread()))

    def stop(self) -> None:
        """Kill the processes and whatever they are doing."""
        super().shutdown(wait=False, cancel_futures=True)
        stop_children(self._mine)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes after what they are doing."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        end_children(self._mine)


class Processes(Threads):
    """Processes of this machine, each with a thread here that waits for it; one that dies is replaced for the next job.

    They are started fresh, not forked: forking after CUDA or torch's threads have started can hang.
    """

    def submit(self, function: Callable, /, *arguments) -> Future:
        """The function has to be importable; its arguments and result travel as pickles."""
        return super().submit(_in_own_child, function, arguments)


def _in_own_child(function: Callable, arguments: tuple):
    return own_child().call(function, *arguments, seconds=_NO_LIMIT)


@dataclass(frozen=True)
class Pool:
    """An executor, and what a run has to know of it.

    Attributes:
        at_once: how many jobs run at once now.
        tries: workers that may die with one job before it is given up; 1 where the executor itself tries again.
        killable: whether closing the pool after an error kills what runs.
        here: jobs run in this process, one after the other, as they are handed out.
    """

    executor: Executor
    at_once: Callable[[], int]
    tries: int = 1
    killable: bool = False

    @property
    def here(self) -> bool:
        return isinstance(self.executor, Here)


def lost_worker(error: BaseException) -> bool:
    """Whether a job ended because its worker did."""
    killed = getattr(sys.modules.get("distributed"), "KilledWorker", ())
    return isinstance(error, (BrokenExecutor, ChildEnded, killed))


@contextmanager
def opened(executor: object = None, workers: int = 1, gpu: bool = False, own_processes: bool = False) -> Iterator[Pool]:
    """A pool for jobs that each need one worker.

    Args:
        executor: ``None`` for this machine; a ``distributed.Client``, what its ``get_executor()`` gives, or the address
            of a Dask scheduler; any other ``concurrent.futures`` executor.
        workers: on this machine: 1 works in this process, more start that many.
        gpu: every job needs a GPU: Dask runs it on workers with the resource "GPU" only, as many at once as they have.
        own_processes: jobs start processes of their own, so that threads are enough for them.

    Raises:
        InputError: something that is no executor; a Dask cluster whose workers run several jobs in one process, or have
            no GPU where one is needed.
        AudferError: Dask is not installed, or nobody answers at the address.
    """
    if executor is None and workers == 1 and not own_processes:
        yield Pool(Here(), lambda: 1)
    elif executor is None:
        kind, tries = (Threads, 1) if own_processes else (Processes, LOST_WORKERS)
        with kind(workers) as own:
            try:
                yield Pool(own, lambda: workers, tries, killable=True)
            except BaseException:
                own.stop()
                raise
    elif isinstance(executor, str):
        with dask_client(executor) as client, opened(client, workers, gpu, own_processes) as pool:
            yield pool
    elif (client := getattr(executor, "_client", executor)) and hasattr(client, "scheduler_info"):
        _check_cluster(client, gpu, own_processes)
        # pure=False: Dask is not to take a job for one that it has done before
        more = {"resources": {"GPU": 1}} if gpu else {}
        yield Pool(client.get_executor(pure=False, **more), lambda: _capacity(client, gpu))
    elif hasattr(executor, "submit"):
        at_once = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        yield Pool(executor, lambda: at_once)
    else:
        raise InputError(
            "run_cells",
            "executor",
            type(executor).__name__,
            "None, a Dask client or address, or an executor of concurrent.futures",
        )


# ---------------------------------------------------------------------------------------------------------------- Dask


def _workers(client) -> list[Mapping]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _capacity(client, gpu: bool) -> int:
    return int(sum(worker["resources"].get("GPU", 0) if gpu else worker["nthreads"] for worker in _workers(client)))


def _check_cluster(client, gpu: bool, own_processes: bool) -> None:
    """Refuse what would hang or mix; workers that come later are not seen here."""
    workers = _workers(client)
    threads = max((worker["nthreads"] for worker in workers), default=1)
    if threads > 1 and not own_processes:
        raise InputError(
            "Dask cluster",
            "threads of a worker",
            threads,
            "1: dask worker --nthreads 1 (a process trains one cell at a time)",
        )
    if gpu and workers and not _capacity(client, gpu):
        raise InputError(
            "Dask cluster",
            "resources",
            f"{len(workers)} workers, none with the resource GPU",
            "workers started with --resources GPU=1, each with one GPU of its own (CUDA_VISIBLE_DEVICES)",
        )


@contextmanager
def dask_client(scheduler: str = "", slurm: Mapping[str, object] | None = None, log: str = ""):
    """A client of a running scheduler, or of a cluster that is started under SLURM for the time of the ``with`` block.

    Args:
        scheduler: address, for example ``tcp://node17:8786``.
        slurm: options of ``dask_jobqueue.SLURMCluster`` (queue, cores, memory, walltime ...), ``jobs``, how many jobs
            to ask for (default 1), and ``dashboard``, the port of Dask's dashboard on this machine alone (default:
            none). Scheduler and workers know each other by certificates (TLS) that are made for this run: whoever can
            talk to a scheduler can run code. It listens on ``interface`` if that is given, else on this machine's
            address in the default network.
        log: folder for SLURM's own output files, and for the certificates as long as the cluster lives; on a disk that
            the workers share.

    Raises:
        AudferError: Dask is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client

        if slurm is not None:
            import cryptography  # noqa: F401  (for certificates)

            SLURMCluster = import_slurm_cluster()
    except ImportError as error:
        raise AudferError(
            f"a Dask cluster needs packages that are not here ({error.name}): pip install audfer[dask]"
        ) from error
    if slurm is not None and shutil.which("sbatch") is None:
        raise AudferError("SLURM: no sbatch on PATH; start this on a machine from which jobs are submitted")
    with ExitStack() as stack:
        cluster = None
        try:
            if slurm is not None:
                options = {"cores": 1, "processes": 1, "memory": "4GB", **_logged(log), **slurm}
                jobs = int(options.pop("jobs", 1))
                keys = stack.enter_context(scratch_folder(Path(log or ".").absolute() / "tls"))
                cluster = stack.enter_context(SLURMCluster(**_private(options), **_with_certificates(keys)))
                cluster.scale(jobs=jobs)
            client = stack.enter_context(Client(scheduler if cluster is None else cluster, timeout=20))
        except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
            what = f"no Dask scheduler there ({str(error).splitlines()[0]})"
            raise AudferError(f"{scheduler or 'SLURM'}: {what}") from error
        yield client


# --------------------------------------------------------------------------------------------------------------- SLURM


def _private(options: Mapping[str, object]) -> dict[str, object]:
    """Options of a cluster with which nobody else can talk: one named address, no dashboard unless asked for."""
    chosen = dict(options)
    port = chosen.pop("dashboard", 0)
    where = {
        "dashboard": bool(port),
        "dashboard_address": f"127.0.0.1:{port}",
    }  # Dask serves something there in any case
    if "interface" not in chosen:
        where["host"] = _own_address()
    extra = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    return {**chosen, "scheduler_options": where, "worker_extra_args": [*chosen.get("worker_extra_args", []), *extra]}


def _with_certificates(folder: Path) -> dict[str, object]:
    from distributed import Security

    made, files = Security.temporary().get_tls_config_for_role("worker"), {}
    for name in ("ca_file", "cert", "key"):  # everybody's, and of nobody who cannot read the folder
        files[name] = str(folder / f"{name}.pem")
        Path(files[name]).write_text(made[name])
    roles = {
        f"tls_{role}_{name}": files[name] for role in ("client", "scheduler", "worker") for name in ("cert", "key")
    }
    return {
        "security": Security(tls_ca_file=files["ca_file"], require_encryption=True, **roles),
        "protocol": "tls://",
    }


def _own_address() -> str:
    """This machine's address in the default network.

    Raises:
        AudferError: it has none that others could reach.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of nobody; nothing is sent
            return probe.getsockname()[0]
        except OSError:
            raise AudferError(
                "SLURM: this machine has no default network on which its jobs could reach it; name one, for example "
                "--slurm interface=ib0 ..."
            ) from None


def import_slurm_cluster():
    """``dask_jobqueue.SLURMCluster``, with Ctrl-C left as it was: importing the package makes it end the process at
    once.

    Raises:
        ImportError: dask-jobqueue is not installed.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue import SLURMCluster
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
    return SLURMCluster


def _logged(log: str) -> dict[str, str]:
    return {"log_directory": log} if log else {}


def slurm_options(pairs: list[str]) -> dict[str, object]:
    """``KEY=VALUE`` words as options of ``dask_client``; whole numbers become numbers.

    Raises:
        InputError: a word without "=".
    """
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError("command line", "--slurm", repr(pair), "KEY=VALUE, for example walltime=04:00:00")
        options[key] = int(value) if value.isdigit() else value
    return options


def slurm_cluster(options: Mapping[str, object], log: str = "") -> dict[str, object]:
    """What ``dask_jobqueue.SLURMCluster`` is given for workers that train cells: one process and one thread each.

    Args:
        options: of ``SLURMCluster`` (queue, account, memory, walltime ...), and ``gpus=1`` for one GPU per job, which
            becomes SLURM's ``--gres`` and Dask's resource "GPU"; ``jobs`` is left as it is.
        log: folder for SLURM's own output.

    Raises:
        InputError: several GPUs or processes per job: a job is one worker, a worker one GPU.
    """
    gpus, processes = options.get("gpus", 0), options.get("processes", 1)
    if gpus not in (0, 1) or processes != 1:
        raise InputError(
            "command line",
            "--slurm",
            f"gpus={gpus} processes={processes}",
            "gpus=0 or gpus=1 and one process a job; ask for more jobs instead",
        )
    chosen = {"cores": 1, "memory": "8GB", **_logged(log), **options, "processes": 1}
    chosen.pop("gpus", None)
    extra = chosen.get("worker_extra_args", [])
    chosen["worker_extra_args"] = shlex.split(extra) if isinstance(extra, str) else list(extra)
    if gpus:
        chosen["job_extra_directives"] = [*chosen.get("job_extra_directives", []), "--gres=gpu:1"]
        chosen["worker_extra_args"] += ["--resources", "GPU=1"]
    # cores that the job asks for are the training's, for decoding and data: the worker still does one cell at a time
    return {"job_cpu": chosen["cores"], **chosen, "cores": 1}


def job_script(options: Mapping[str, object], log: str = "") -> str:
    """The script that one SLURM job of the cluster would be, to look at before anything is submitted.

    Raises:
        AudferError: dask-jobqueue is not installed. InputError: as ``slurm_cluster``, or an option that it does not
            know.
    """
    try:
        SLURMCluster = import_slurm_cluster()
    except ImportError as error:
        raise AudferError(f"SLURM needs packages that are not here ({error.name}): pip install audfer[dask]") from error
    chosen = {name: value for name, value in slurm_cluster(options, log).items() if name != "jobs"}
    try:
        chosen = _private({"interface": None, **chosen}) | {"scheduler_options": _HERE}  # nobody is to reach it
        with SLURMCluster(**chosen) as cluster:
            return cluster.job_script()
    except (TypeError, ValueError) as error:
        raise InputError(
            "command line",
            "--slurm",
            str(error).split(". ")[0].splitlines()[0],
            "options of dask_jobqueue.SLURMCluster",
        ) from error
