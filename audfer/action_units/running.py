"""An extractor over a whole manifest: each clip once, whatever crashes, hangs or is killed meanwhile.

A clip's result has a key made of the clip's files, the extractor and its options; it is one file in a store beside the
table, written whole or not at all. Whoever works on a clip, a thread here or a Dask worker elsewhere, looks there
first. So a second call, a killed worker and an interrupted run all go on from what is finished. A clip that gives
nothing is recorded with its reason and is not tried again unless asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..datasets import Manifest, PackedClips
from ..errors import AudferError, InputError
from ..files import atomic_file, digest, locked, write_json
from ..jobs.processes import Stopped, allow_children, stop_children
from ..jobs.workers import chunks
from ..openface import AUTrack
from ..progress import LineProgress, progress
from .backends import Backend, Clip, ExtractionFailed, sources
from .table import AUTable, table_writer, to_arrow

#: counts up when a stored result means something else
_FORMAT = 1
#: clips of one Dask task: few, so that a lost worker costs little and progress is live
_TASK_CLIPS = 4
#: workers that may die with a task before Dask gives it up
_LOST_WORKERS = 3


@dataclass(frozen=True)
class Job:
    """One clip to do, and where its result belongs.

    Attributes:
        clip: the clip.
        path: its result in the store (.parquet); a failure is the same name with .json.
    """

    clip: Clip
    path: Path

    @property
    def failure(self) -> Path:
        """Where a failure is recorded."""
        return self.path.with_suffix(".json")

    def done(self) -> bool:
        """Whether there is a result."""
        return self.path.is_file()


def extract_manifest(
    manifest: Manifest | PackedClips,
    out,
    backend: Backend,
    *,
    workers: int | None = None,
    seconds: float = 600.0,
    retries: int = 1,
    again: bool = False,
    client=None,
) -> pd.DataFrame:
    """Action units of every clip of a manifest, in one table.

    Args:
        manifest: the clips; windows of one take are cut from one extraction. Or a packed store: then the table has the
            stored frames only.
        out: the AU table to write (.parquet). Beside it: ``<out>_clips/`` (the store of single results; keep it to be
            able to go on), ``<out>_clips.csv`` (every clip's state) and ``<out>_quarantine.csv`` (clip, reason) where
            clips gave nothing.
        backend: what measures (``backends``).
        workers: clips at a time on this machine, each with a process of its own on one thread; default one a core. With
            a ``client`` its workers decide.
        seconds: time limit of one clip.
        retries: further attempts after a crash, a hang or no output.
        again: try the clips again that an earlier run put into quarantine.
        client: a ``distributed.Client``; the store has to lie on a disk that its workers share.

    Returns:
        One row a source: clips (names, joined by blanks), path, state ("done", "refused"), reason, attempts, seconds,
        frames, ok.

    Raises:
        InputError: the extractor cannot run here, or no clip gave anything.
        AudferError: another run uses the store; the workers do not see it.
    """
    out = Path(out)
    if workers is not None and workers < 1 or seconds <= 0 or retries < 0:
        raise InputError(
            "extraction",
            "workers, seconds, retries",
            f"{workers}, {seconds}, {retries}",
            "at least one worker, a positive time, no negative number of retries",
        )
    packed = isinstance(manifest, PackedClips)
    name = manifest.meta["dataset"] if packed else manifest.name
    if packed and not backend.packed:
        raise InputError(
            Path(manifest.frames.filename).parent,
            f"clips for {backend.name}",
            "a packed store",
            "videos or folders of pictures, which it opens itself; or --backend lac",
        )
    if client is None:
        backend.check()
    store = out.with_name(f"{out.stem}_clips").absolute()
    with locked(store, "store of results", "with another output"):
        jobs = _jobs(manifest, store, backend)
        if again:
            for job in jobs:
                job.failure.unlink(missing_ok=True)
        todo = [job for job in jobs if not job.done() and not job.failure.is_file()]
        with progress(total=len(jobs), desc=f"{backend.name} {name}", unit="clip") as bar:
            _show(bar, len(jobs) - len(todo), [])
            work = (
                _local(todo, backend, seconds, retries, workers or os.cpu_count() or 1)
                if client is None
                else _cluster(todo, backend, seconds, retries, client)
            )
            start, new, failed = time.monotonic(), 0, 0
            for states in work:
                new, failed = new + len(states), failed + states.count(False)
                _show(
                    bar,
                    len(states),
                    [f"{new / (time.monotonic() - start):.2g} clip/s"] * isinstance(bar, LineProgress)
                    + [f"{failed} refused"] * bool(failed),
                )
        missing = [job for job in jobs if not job.done() and not job.failure.is_file()]
        if missing:
            raise AudferError(
                f"{store}: no result of {len(missing)} clips that workers have done (the first: "
                f"{missing[0].clip.clip_ids[0]}); the store has to lie on a disk that all workers share"
            )
        return _gather(jobs, out, backend)


def _show(bar, count: int, notes: list[str]) -> None:
    if notes:
        bar.set_postfix_str(", ".join(notes), refresh=False)
    if count:
        bar.update(count)


def _jobs(clips: Manifest | PackedClips, store: Path, backend: Backend) -> list[Job]:
    """One job a source, in the manifest's order of first rows."""
    common, jobs = {"format": _FORMAT, "settings": backend.settings()}, []
    for clip in sources(clips):
        spans = [(row["clip_id"], row["start"], row["stop"]) for row in clip.rows]
        key = digest(
            {**common, "dataset": clip.dataset, "path": clip.rows[0]["path"], "rows": spans, "files": clip.state()}, 32
        )
        jobs.append(Job(clip, store / key[:2] / f"{key}.parquet"))
    return jobs


# ----------------------------------------------------------------------------------------------------------- one clip


def do_clip(job: Job, backend: Backend, seconds: float, retries: int) -> bool:
    """Do one clip unless it is done: its result, or the reason why there is none, is in the store afterwards.

    Returns:
        Whether there is a result.
    """
    if job.done() or job.failure.is_file():
        return job.done()
    start, reasons = time.monotonic(), []
    for attempt in range(1, retries + 2):
        try:
            if not job.clip.path.exists():
                raise ExtractionFailed(f"{job.clip.path}: nothing there", again=False)
            tracks = backend.extract(job.clip, seconds)
        except ExtractionFailed as error:
            reasons.append(str(error))
            if error.again and attempt <= retries:
                continue
            write_json(
                job.failure, {"reason": reasons[-1], "attempts": attempt, "seconds": round(time.monotonic() - start, 2)}
            )
            return False
        _keep(job, tracks, attempt, time.monotonic() - start)
        return True
    raise AssertionError("unreachable")


def _keep(job: Job, tracks: dict[str, AUTrack], attempts: int, seconds: float) -> None:
    about = {"attempts": attempts, "seconds": round(seconds, 2)}
    table = to_arrow(AUTable.from_tracks(tracks).frames).replace_schema_metadata({"clip": json.dumps(about)})
    with atomic_file(job.path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def do_group(jobs: list[Job], backend: Backend, seconds: float, retries: int) -> Iterator[bool]:
    """Several clips: together where the extractor takes groups, and each stored as soon as it is done.

    What a group leaves out, because a clip cannot be read or the process ended, is done clip by clip: so only the clip
        that
    is to blame is refused.

    Yields:
        Whether there is a result, of one clip after the other, in the order in which they are done.
    """
    left = dict(enumerate(jobs))
    if backend.group > 1 and len(jobs) > 1:
        open_jobs = {at: job for at, job in left.items() if not job.done() and not job.failure.is_file()}
        places, before = list(open_jobs), time.monotonic()
        group = backend.extract_group([job.clip for job in open_jobs.values()], seconds)
        try:
            for position, tracks in group:
                now = time.monotonic()
                _keep(left.pop(places[position]), tracks, 1, now - before)
                before = now
                yield True
        except ExtractionFailed:
            pass
    for job in left.values():
        yield do_clip(job, backend, seconds, retries)


def do_clips(jobs: list[Job], backend: Backend, seconds: float, retries: int) -> list[bool]:
    """``do_group``, all at once: the task of a Dask worker."""
    return list(do_group(jobs, backend, seconds, retries))


# ---------------------------------------------------------------------------------------------------------- executors


def _local(jobs: list[Job], backend: Backend, seconds: float, retries: int, workers: int) -> Iterator[list[bool]]:
    """Threads of this process: each waits for the process that does its clips."""
    allow_children()
    ended: SimpleQueue[bool | Future] = (
        SimpleQueue()
    )  # a state for every clip, and every group's future when it is through

    def work(group: list[Job]) -> None:
        for state in do_group(group, backend, seconds, retries):
            ended.put(state)

    # as many groups as workers at least, so that nobody is idle while few clips are left
    groups = chunks(jobs, max(1, min(backend.group, -(-len(jobs) // workers))))
    with ThreadPoolExecutor(workers, thread_name_prefix="extract") as pool:
        futures = [pool.submit(work, group) for group in groups]
        for future in futures:
            future.add_done_callback(ended.put)
        try:
            left = len(futures)
            while left:
                item = ended.get()
                if isinstance(item, Future):
                    item.result()
                    left -= 1
                else:
                    yield [item]
        except BaseException:
            # no clip is to blame for being interrupted: the threads see Stopped, and record nothing
            for future in futures:
                future.cancel()
            stop_children()
            raise


def _cluster(jobs: list[Job], backend: Backend, seconds: float, retries: int, client) -> Iterator[list[bool]]:
    """A Dask cluster. A task whose workers keep dying is done clip by clip, so that only the clip that kills is
    refused.
    """
    from distributed import KilledWorker
    from distributed import as_completed as completed

    waiting = {}

    def submit(group: list[Job]) -> None:
        future = client.submit(
            do_clips,
            group,
            backend,
            seconds,
            retries,
            pure=False,
            key=f"extract-{digest(time.time())}-{group[0].path.stem}-{len(group)}",
        )
        waiting[future] = group
        running.add(future)

    running = completed()
    for group in chunks(jobs, max(_TASK_CLIPS, backend.group)):
        submit(group)
    try:
        for future in running:
            group = waiting.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            elif isinstance(error, KilledWorker) and len(group) > 1:
                for job in group:
                    submit([job])
            elif isinstance(error, KilledWorker):
                write_json(
                    group[0].failure,
                    {
                        "reason": f"its worker died: {error}".splitlines()[0][:300],
                        "attempts": _LOST_WORKERS,
                        "seconds": None,
                    },
                )
                yield [False]
            elif isinstance(error, Stopped):  # a worker that was shut down in an orderly way
                submit(group)
            else:
                raise error
    except BaseException:
        client.cancel(list(waiting), force=True)
        raise


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


@contextmanager
def dask_client(scheduler: str = "", slurm: dict[str, object] | None = None, log: str = ""):
    """A client of a running scheduler, or of a cluster that is started under SLURM for the time of the ``with`` block.

    Args:
        scheduler: address, for example ``tcp://node17:8786``.
        slurm: options of ``dask_jobqueue.SLURMCluster`` (queue, cores, memory, walltime ...) and ``jobs``, how many
            jobs to ask for (default 1).
        log: folder for SLURM's own output files.

    Raises:
        AudferError: Dask is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client

        SLURMCluster = import_slurm_cluster() if slurm is not None else None
    except ImportError as error:
        raise AudferError(
            f"a Dask cluster needs packages that are not here ({error.name}): pip install audfer[dask]"
        ) from error
    cluster = None
    if slurm is not None and shutil.which("sbatch") is None:
        raise AudferError("SLURM: no sbatch on PATH; start this on a machine from which jobs are submitted")
    try:
        if slurm is not None:
            options = dict(slurm)
            jobs = int(options.pop("jobs", 1))
            cluster = SLURMCluster(
                **{"cores": 1, "processes": 1, "memory": "4GB", **({"log_directory": log} if log else {}), **options}
            )
            cluster.scale(jobs=jobs)
        client = Client(cluster if cluster is not None else scheduler, timeout=20)
    except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
        if cluster is not None:
            cluster.close()
        raise AudferError(f"{scheduler or 'SLURM'}: no Dask scheduler there ({str(error).splitlines()[0]})") from error
    try:
        yield client
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


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


# ------------------------------------------------------------------------------------------------------------- results


def _gather(jobs: list[Job], out: Path, backend: Backend) -> pd.DataFrame:
    rows = []
    for job in jobs:
        row = {
            "clips": " ".join(job.clip.clip_ids),
            "path": job.clip.rows[0]["path"],
            "state": "done",
            "reason": "",
            "frames": 0,
            "ok": 0,
        }
        if job.done():
            try:
                table = parquet.read_table(job.path, columns=["ok"])
            except (pa.ArrowInvalid, OSError) as error:
                raise AudferError(
                    f"{job.path}: not a result ({error}); delete it and run the same command again"
                ) from error
            known = json.loads(table.schema.metadata[b"clip"])
            row |= {"frames": len(table), "ok": int(pa.compute.sum(table["ok"]).as_py() or 0)}
        else:
            known = json.loads(job.failure.read_text())
            row |= {"state": "refused", "reason": known["reason"]}
        rows.append({**row, "attempts": known["attempts"], "seconds": known["seconds"]})
    states = pd.DataFrame(rows)
    refused = states[states["state"] == "refused"]
    quarantine = out.with_name(f"{out.stem}_quarantine.csv")
    for path, table in (
        (out.with_name(f"{out.stem}_clips.csv"), states),
        (quarantine, refused[["clips", "path", "reason"]]),
    ):
        with atomic_file(path) as temporary:
            table.to_csv(temporary, index=False)
    if refused.empty:
        quarantine.unlink()
    if len(refused) == len(states):
        raise InputError(
            out,
            "clips",
            f"nothing from all {len(states)}, the first: {refused['reason'].iloc[0]}",
            "action units of at least one clip",
        )
    about = {"extraction": backend.settings(), "clips": len(states), "refused": len(refused)}
    with table_writer(out, json.dumps(about, sort_keys=True)) as write:
        for job in jobs:
            if job.done():
                write(parquet.read_table(job.path))
    return states
