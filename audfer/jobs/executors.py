"""Where the cells of a grid are trained: in this process, in processes of this machine, or on a Dask cluster.

All are used as ``concurrent.futures`` executors. A worker that dies takes the job with it that it was doing and no
other; ``lost_worker`` tells such an end from an error of the job itself.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager

from ..action_units.running import import_slurm_cluster
from ..errors import AudferError, InputError
from .processes import ChildEnded, PythonChild, Stopped, allow_children, stop_children

#: environment variable with the address of the Dask scheduler that studies train on
SCHEDULER = "AUDFER_SCHEDULER"
#: a job is given up when this many workers have died with it; Dask counts by itself, to the same number
LOST_WORKERS = 3
_NO_LIMIT = 30 * 86400.0  # seconds; ``select`` takes no infinity


class Here(Executor):
    """Does each job in this process, while ``submit`` is called."""

    def submit(self, function: Callable, /, *arguments, **more) -> Future:
        """A future that is done; interrupts are not kept in it."""
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **more))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(Executor):
    """Processes of this machine, each with a thread here that waits for it; one that dies is replaced for the next job.

    Args:
        workers: how many. They are started fresh, not forked: forking after CUDA or torch's threads have started can
            hang.
    """

    def __init__(self, workers: int):
        allow_children()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="cell")
        self._own = threading.local()
        self._children: list[PythonChild] = []

    def submit(self, function: Callable, /, *arguments) -> Future:
        """The function has to be importable; its arguments and result travel as pickles."""
        return self._threads.submit(self._call, function, arguments)

    def _call(self, function: Callable, arguments: tuple):
        if not hasattr(self._own, "child"):
            self._own.child = PythonChild()
            self._children.append(self._own.child)
        return self._own.child.call(function, *arguments, seconds=_NO_LIMIT)

    def stop(self) -> None:
        """Kill the processes and whatever they are doing."""
        stop_children()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes after what they are doing."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        for child in self._children:
            child.close()


def lost_worker(error: BaseException) -> bool:
    """Whether a job ended because its worker did."""
    killed = getattr(sys.modules.get("distributed"), "KilledWorker", ())
    return isinstance(error, (BrokenExecutor, ChildEnded, killed))


def was_stopped(error: BaseException) -> bool:
    """Whether a job ended because somebody stopped or cancelled it."""
    return isinstance(error, (CancelledError, Stopped))


@contextmanager
def opened(
    executor: object = None, workers: int = 1, gpu: bool = False
) -> Iterator[tuple[Executor, Callable[[], int], int]]:
    """An executor for jobs that each need one worker.

    Args:
        executor: ``None`` for this machine; a ``distributed.Client``, what its ``get_executor()`` gives, or the address
            of a Dask scheduler; any other ``concurrent.futures`` executor.
        workers: on this machine: 1 works in this process, more start that many.
        gpu: every job needs a GPU: Dask runs it on workers with the resource "GPU" only, as many at once as they have.

    Yields:
        The executor, a function that gives how many jobs run at once now, and how many workers may be lost with one job
        before the caller gives it up (1 where the executor itself tries again).

    Raises:
        InputError: something that is no executor; a Dask cluster whose workers run several jobs in one process, or have
            no GPU where one is needed.
        AudferError: Dask is not installed, or nobody answers at the address.
    """
    if executor is None and workers == 1:
        yield Here(), lambda: 1, 1
    elif executor is None:
        own = Processes(workers)
        try:
            yield own, lambda: workers, LOST_WORKERS
        except BaseException:
            own.stop()
            raise
        finally:
            own.shutdown()
    elif isinstance(executor, str):
        from ..action_units.running import dask_client

        with dask_client(executor) as client, opened(client, workers, gpu) as found:
            yield found
    elif (client := getattr(executor, "_client", executor)) and hasattr(client, "scheduler_info"):
        _check_cluster(client, gpu)
        # pure=False: Dask is not to take a job for one that it has done before
        more = {"resources": {"GPU": 1}} if gpu else {}
        yield client.get_executor(pure=False, **more), lambda: _capacity(client, gpu), 1
    elif hasattr(executor, "submit"):
        at_once = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        yield executor, lambda: at_once, 1
    else:
        raise InputError(
            "run_cells",
            "executor",
            type(executor).__name__,
            "None, a Dask client or address, or an executor of concurrent.futures",
        )


def _workers(client) -> list[Mapping]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _capacity(client, gpu: bool) -> int:
    if gpu:
        return int(sum(worker["resources"].get("GPU", 0) for worker in _workers(client)))
    return sum(worker["nthreads"] for worker in _workers(client))


def _check_cluster(client, gpu: bool) -> None:
    """Refuse what would hang or mix; workers that come later are not seen here."""
    workers = _workers(client)
    if any(worker["nthreads"] > 1 for worker in workers):
        raise InputError(
            "Dask cluster",
            "threads of a worker",
            max(worker["nthreads"] for worker in workers),
            "1: dask worker --nthreads 1 (a process trains one cell at a time)",
        )
    if gpu and workers and not _capacity(client, gpu):
        raise InputError(
            "Dask cluster",
            "resources",
            f"{len(workers)} workers, none with the resource GPU",
            "workers started with --resources GPU=1, each with one GPU of its own (CUDA_VISIBLE_DEVICES)",
        )


# --------------------------------------------------------------------------------------------------------------- SLURM


def slurm_cluster(options: Mapping[str, object], log: str = "") -> dict[str, object]:
    """What ``dask_jobqueue.SLURMCluster`` is given for workers that train cells: one process and one thread a worker.

    Args:
        options: of ``SLURMCluster`` (queue, account, memory, walltime ...), and ``gpus=1`` for one GPU a job, which
            becomes SLURM's ``--gres`` and Dask's resource "GPU"; ``jobs`` is left as it is.
        log: folder for SLURM's own output.

    Raises:
        InputError: several GPUs or processes a job: a job is one worker, a worker one GPU.
    """
    chosen = {"cores": 1, "memory": "8GB", **({"log_directory": log} if log else {}), **options, "processes": 1}
    gpus = chosen.pop("gpus", 0)
    if gpus not in (0, 1) or options.get("processes", 1) != 1:
        raise InputError(
            "command line",
            "--slurm",
            f"gpus={gpus} processes={options.get('processes', 1)}",
            "gpus=0 or gpus=1 and one process a job; ask for more jobs instead",
        )
    extra = chosen.pop("worker_extra_args", [])
    arguments = shlex.split(extra) if isinstance(extra, str) else list(extra)
    if gpus:
        chosen["job_extra_directives"] = [*chosen.get("job_extra_directives", []), "--gres=gpu:1"]
        arguments += ["--resources", "GPU=1"]
    # cores that the job asks for are the training's, for decoding and data: the worker still does one cell at a time
    chosen["job_cpu"] = chosen.get("job_cpu", chosen["cores"])
    chosen["cores"] = 1
    return {**chosen, "worker_extra_args": arguments}


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
    chosen = slurm_cluster(options, log)
    chosen.pop("jobs", None)
    try:
        with SLURMCluster(**chosen, scheduler_options={"dashboard_address": None}) as cluster:
            return cluster.job_script()
    except (TypeError, ValueError) as error:
        raise InputError(
            "command line",
            "--slurm",
            str(error).split(". ")[0].splitlines()[0],
            "options of dask_jobqueue.SLURMCluster",
        ) from error
