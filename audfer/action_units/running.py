"""An extractor over a whole manifest: each clip once, whatever crashes, hangs or is killed meanwhile.

A clip's result has a key made of the clip's files, the extractor and its options; it is one file in a store beside the
table, written whole or not at all. Whoever works on a clip, a thread here or a Dask worker elsewhere, looks there
first. So a second call, a killed worker and an interrupted run all go on from what is finished. A clip that gives
nothing is recorded with its reason and is not tried again unless asked for.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from ..datasets import Manifest, PackedClips
from ..errors import AudferError, InputError
from ..files import atomic_file, digest, locked, write_json
from ..jobs.executors import LOST_WORKERS, opened
from ..jobs.workers import Run, WorkersDied, chunks
from ..openface import AUTrack
from ..progress import LineProgress, progress
from .backends import Backend, ExtractionFailed, Landmarks
from .clips import Clip, sources
from .table import AUTable, table_writer, to_arrow, write_lists

#: counts up when a stored result means something else
_FORMAT = 1
#: clips of one Dask task: few, so that a lost worker costs little and progress is live
_TASK_CLIPS = 4


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

    def left(self) -> bool:
        """Whether there is neither a result nor a failure."""
        return not self.done() and not self.failure.is_file()

    def keep(self, tracks: dict[str, AUTrack] | pa.Table, attempts: int, seconds: float) -> None:
        """Store a result."""
        about = {"attempts": attempts, "seconds": round(seconds, 2)}
        table = tracks if isinstance(tracks, pa.Table) else to_arrow(AUTable.from_tracks(tracks).frames)
        table = table.replace_schema_metadata({"clip": json.dumps(about)})
        with atomic_file(self.path) as temporary:
            parquet.write_table(table, temporary, compression="zstd")

    def refuse(self, reason: str, attempts: int, seconds: float | None) -> None:
        """Store a failure."""
        write_json(self.failure, {"reason": reason, "attempts": attempts, "seconds": seconds and round(seconds, 2)})


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
        workers: clips at a time on this machine, each with a process of its own on one thread; default one per core.
            With a ``client`` its workers decide.
        seconds: time limit of one clip.
        retries: further attempts after a crash, a hang or no output.
        again: try the clips again that an earlier run put into quarantine.
        client: a ``distributed.Client``; the store has to lie on a disk that its workers share.

    Returns:
        One row per source: clips (names, joined by blanks), path, state ("done", "refused"), reason, attempts, seconds,
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
    name = manifest.meta["dataset"] if packed else manifest.name
    with locked(store, "store of results", "with another output"):
        jobs = _jobs(manifest, store, backend)
        if again:
            for job in jobs:
                job.failure.unlink(missing_ok=True)
        with progress(total=len(jobs), desc=f"{backend.name} {name}", unit="clip") as bar:
            _run(jobs, bar, backend, seconds, retries, workers or os.cpu_count() or 1, client)
        if missing := [job for job in jobs if job.left()]:
            raise AudferError(
                f"{store}: no result of {len(missing)} clips that workers have done (the first: "
                f"{missing[0].clip.clip_ids[0]}); the store has to lie on a disk that all workers share"
            )
        return _gather(jobs, out, backend, {} if packed else manifest.not_read)


def extract_landmarks(manifest: Manifest, folder, backend: Landmarks, **running) -> pd.DataFrame:
    """The landmarks of every clip of a manifest, in a folder of OpenFace's form: ``<clip_id>.csv``.

    Args:
        folder: to write; ``<folder>_clips/``, ``<folder>_clips.csv`` and ``<folder>_quarantine.csv`` beside it are as
            those of ``extract_manifest``, and so are the other arguments.

    Returns:
        As ``extract_manifest``.

    Raises:
        InputError: as there; or the folder holds files that this command did not write.
    """
    folder = Path(os.path.abspath(folder))
    beside = folder.with_name(f"{folder.name}.csv")  # what the engine names its lists after
    if folder.is_dir() and any(folder.iterdir()) and not folder.with_name(f"{folder.name}_clips").is_dir():
        raise InputError(folder, "folder to write", "files of another command (OpenFace's?)", "a new folder")
    return extract_manifest(manifest, beside, backend, **running)


def _jobs(clips: Manifest | PackedClips, store: Path, backend: Backend) -> list[Job]:
    """One job per source, in the manifest's order of first rows."""
    common, jobs = {"format": _FORMAT, "settings": backend.settings()}, []
    for clip in sources(clips):
        spans = [(row["clip_id"], row["start"], row["stop"]) for row in clip.rows]
        own = {"dataset": clip.dataset, "path": clip.rows[0]["path"], "rows": spans, "files": clip.state()}
        key = digest({**common, **own}, 32)
        jobs.append(Job(clip, store / key[:2] / f"{key}.parquet"))
    return jobs


def _run(jobs: list[Job], bar, backend: Backend, seconds: float, retries: int, workers: int, client) -> None:
    """Do what is left: in threads, each of which waits for the process that does its clips, or on a Dask cluster."""
    left = [job for job in jobs if job.left()]
    if len(left) < len(jobs):
        bar.update(len(jobs) - len(left))
    # here as many groups as workers at least, so that nobody is idle while few clips are left
    size = max(_TASK_CLIPS, backend.group) if client else max(1, min(backend.group, -(-len(left) // workers)))
    start, states, counting = time.monotonic(), [], threading.Lock()

    def count(state: bool) -> None:
        with counting:
            states.append(state)
            speed = f"{len(states) / (time.monotonic() - start):.2g} clip/s"
            refused = f"{states.count(False)} refused"
            bar.set_postfix_str(
                ", ".join([speed] * isinstance(bar, LineProgress) + [refused] * (False in states)), refresh=False
            )
            bar.update(1)

    with (
        opened(client, workers, own_processes=True) as pool,
        Run(
            do_clips,
            chunks(left, size),
            pool,
            arguments=lambda group: (group, backend, seconds, retries, *([] if client else [count])),
            # so that only the clip that kills its workers is refused
            split=lambda group: [[job] for job in group],
        ) as run,
    ):
        for group, answer in run:
            if isinstance(answer, WorkersDied):
                group[0].refuse(str(answer), LOST_WORKERS, None)
                answer = [False]
            elif isinstance(answer, Exception):
                raise answer
            for state in answer if client else ():
                count(state)


# ----------------------------------------------------------------------------------------------------------- one clip


def do_clip(job: Job, backend: Backend, seconds: float, retries: int) -> bool:
    """Do one clip unless it is done: its result, or the reason why there is none, is in the store afterwards.

    Returns:
        Whether there is a result.
    """
    attempt, start = 0, time.monotonic()
    while job.left():
        attempt += 1
        try:
            if not job.clip.path.exists():
                raise ExtractionFailed(f"{job.clip.path}: nothing there", again=False)
            job.keep(backend.extract(job.clip, seconds), attempt, time.monotonic() - start)
        except ExtractionFailed as error:
            if not error.again or attempt > retries:
                job.refuse(str(error), attempt, time.monotonic() - start)
    return job.done()


def do_clips(
    jobs: list[Job], backend: Backend, seconds: float, retries: int, report: Callable[[bool], object] = id
) -> list[bool]:
    """Several clips: together where the extractor takes groups, and each stored as soon as it is done.

    What a group leaves out, because a clip cannot be read or the process ended, is done clip by clip: so only the clip
    that is to blame is refused.

    Args:
        report: called with every clip's state as soon as it is done.

    Returns:
        Whether there is a result, of one clip after the other, in the order in which they are done.
    """
    states, left = [], [job for job in jobs if job.left()]
    single = [job for job in jobs if job not in left]

    def note(state: bool) -> None:
        states.append(state)
        report(state)

    if backend.group > 1 and len(jobs) > 1:
        before, through = time.monotonic(), set()
        try:
            for position, tracks in backend.extract_group([job.clip for job in left], seconds):
                now = time.monotonic()
                left[position].keep(tracks, 1, now - before)
                before = now
                through.add(position)
                note(True)
        except ExtractionFailed:
            pass
        left = [job for position, job in enumerate(left) if position not in through]
    for job in (*single, *left):
        note(do_clip(job, backend, seconds, retries))
    return states


# ------------------------------------------------------------------------------------------------------------- results


def _gather(jobs: list[Job], out: Path, backend: Backend, not_read: dict[str, str]) -> pd.DataFrame:
    rows = []
    for job in jobs:
        row = {"clips": " ".join(job.clip.clip_ids), "path": job.clip.rows[0]["path"]}
        row |= {"state": "done", "reason": "", "frames": 0, "ok": 0}
        if job.done():
            try:
                table = parquet.read_table(job.path, columns=["ok"])
            except (pa.ArrowInvalid, OSError) as error:
                raise AudferError(
                    f"{job.path}: not a result ({error}); delete it and run the same command again"
                ) from error
            about = json.loads(table.schema.metadata[b"clip"])
            row |= {"frames": len(table), "ok": int(pa.compute.sum(table["ok"]).as_py() or 0)}
        else:
            about = json.loads(job.failure.read_text())
            row |= {"state": "refused", "reason": about["reason"]}
        rows.append({**row, "attempts": about["attempts"], "seconds": about["seconds"]})
    states = pd.DataFrame(rows)
    refused = states[states["state"] == "refused"]
    lost = pd.DataFrame({"clips": "", "path": list(not_read), "reason": list(not_read.values())})
    write_lists(out, "clips", states, pd.concat([refused[["clips", "path", "reason"]], lost], ignore_index=True))
    if len(refused) == len(states):
        raise InputError(
            out,
            "clips",
            f"nothing from all {len(states)}, the first: {refused['reason'].iloc[0]}",
            "action units of at least one clip",
        )
    if isinstance(backend, Landmarks):
        for job in jobs:
            if job.done():
                backend.write(out.with_suffix(""), job.clip, job.path)
        return states
    about = {"extraction": backend.settings(), "clips": len(states), "refused": len(refused)}
    with table_writer(out, json.dumps(about, sort_keys=True)) as write:
        for job in jobs:
            if job.done():
                write(parquet.read_table(job.path))
    return states
