"""One way to do many things: a function, its items, and a pool in this process, on this machine or on a cluster.

``Run`` hands items to a pool of ``executors`` and gives each answer, or the error in its place, as it comes. Training
cells, extracting action units, importing, packing and checking all go through it. ``ahead`` only reads ahead.

Why not a library: the process pools of joblib and concurrent.futures break as a whole when one worker is killed;
pebble's do not, but do not end a worker's own children with it; Dask does, and is used where it is installed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import AudferError, InputError
from .executors import Pool, lost_worker, opened
from .processes import Stopped

#: threads that read or write picture files: more gain nothing on the disks at hand
IO_THREADS = min(8, os.cpu_count() or 1)
#: a function's answer where another runner holds the item
TAKEN = "taken"
#: seconds between two looks at items that other runners hold
LOOK = 2.0


class WorkersDied(AudferError):
    """The processes that were to do an item died with it."""


@dataclass(eq=False)
class Task:
    """An item on its way: how many workers have died with it, and when it was handed out last."""

    item: object
    lost: int = 0
    begun: float = field(default_factory=time.monotonic)


class Run:
    """Items through a function, wherever the pool works; iterate for (item, answer) in the order in which they end.

    An answer that is an exception says why there is none; the other items go on. A worker that dies takes the item with
    it that it was doing and no other: that one is tried again. Where the ``with`` block ends early, by an error or
    Ctrl-C, what runs is stopped.

    Args:
        function: importable by the pool's workers. Where several runners share a store it claims its item
            (``claimed``), and answers ``TAKEN`` if another runner has it.
        items: taken one at a time as there is room, so that they may be made lazily.
        arguments: item -> arguments of the function.
        free: whether an item that another runner held may be tried again; asked every ``LOOK`` seconds.
        split: an item with which too many workers have died -> parts of it to be tried alone.
        interrupt: asks for the end of an item that cannot be killed, because it runs on another machine.
        tick: called with nothing whenever something may have changed, and every ``LOOK`` seconds.

    Attributes:
        running, held: tasks in the pool, and those whose items another runner holds.
    """

    def __init__(
        self,
        function: Callable,
        items: Iterable,
        pool: Pool,
        *,
        arguments: Callable[[object], tuple] = lambda item: (item,),
        free: Callable[[object], bool] | None = None,
        split: Callable[[object], list] = lambda item: [item],
        interrupt: Callable[[object], None] = lambda item: None,
        tick: Callable[[], None] = lambda: None,
    ):
        self.function, self.arguments, self.pool = function, arguments, pool
        self.free, self.split, self.interrupt, self.tick = free, split, interrupt, tick
        self.running: dict[Future, Task] = {}
        self.held: list[Task] = []
        self._again: deque[Task] = deque()
        self._new = map(Task, items)
        self._looked = 0.0

    def __enter__(self) -> Run:
        return self

    def __exit__(self, error, *_) -> None:
        for future, task in self.running.items() if error else ():
            future.cancel()
            if not self.pool.killable:
                self.interrupt(task.item)

    def __iter__(self) -> Iterator[tuple[object, object]]:
        while True:
            yield from self._hand_out()
            self.tick()
            if self.running:
                done, _ = wait(self.running, LOOK, FIRST_COMPLETED)
                for future in done:
                    yield from self._ended(self.running.pop(future), future)
            elif self.held:
                time.sleep(LOOK)
            else:
                return
            if time.monotonic() - self._looked >= LOOK:
                self._looked = time.monotonic()
                freed = [task for task in self.held if self.free(task.item)]
                self.held = [task for task in self.held if task not in freed]
                self._again.extend(freed)

    def _hand_out(self) -> Iterator[tuple[object, AudferError]]:
        # one more than there is room for, so that no worker waits for us
        while len(self.running) < self.pool.at_once() + (not self.pool.here):
            task = self._again.popleft() if self._again else next(self._new, None)
            if task is None:
                return
            task.begun = time.monotonic()
            try:
                future = self.pool.executor.submit(self.function, *self.arguments(task.item))
            except BrokenExecutor as error:  # a pool of the caller's; ours mend themselves
                yield task.item, AudferError(f"the executor takes no more cells ({error}); run again with a new one")
            else:
                self.running[future] = task

    def _ended(self, task: Task, future: Future) -> Iterator[tuple[object, object]]:
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None and self.free and future.result() == TAKEN:
            self.held.append(task)
        elif error is None:
            yield task.item, future.result()
        elif lost_worker(error):
            task.lost += 1
            tries, parts = self.pool.tries, self.split(task.item)
            if task.lost < tries:
                self._again.appendleft(task)
            elif len(parts) > 1:
                self._again.extend(map(Task, parts))
            else:
                died = f"{tries} workers" if tries > 1 else "its worker"
                last = str(error).splitlines()[0]
                yield task.item, WorkersDied(f"{died} died with it (often: out of memory), the last: {last}")
        elif isinstance(error, (CancelledError, Stopped)):
            yield task.item, AudferError("stopped or cancelled by somebody else; its state is kept")
        elif isinstance(error, Exception):
            yield task.item, error
        else:
            raise error


def each(function: Callable, tasks: Iterable, workers: int = 1) -> Iterator:
    """Results of ``function(task)`` as they come, in any order; the first error ends it.

    Args:
        function: of a module, so that a process can find it.
        workers: processes; 1 works here, in order. Only as many tasks are handed out at a time as there are workers, so
            that tasks may be made lazily.

    Raises:
        AudferError: processes died.
    """
    if workers < 1:
        raise InputError("command line", "workers", workers, "at least 1")
    with opened(workers=workers) as pool, Run(function, tasks, pool) as run:
        for _, answer in run:
            if isinstance(answer, WorkersDied):
                raise AudferError(
                    f"a worker process was killed: {answer}; what was finished is kept, run the same command again, "
                    "with fewer workers if it happens again"
                )
            if isinstance(answer, Exception):
                raise answer
            yield answer


def ahead(function: Callable, items: Iterable) -> Iterator:
    """``function(item)`` of each item, in order, worked out by a few threads before it is asked for.

    For reading clips: decoders leave the interpreter free, so that several clips are decoded at once and while a
    network is at work. What an item raises is raised in its place.
    """
    pool = ThreadPoolExecutor(IO_THREADS)
    try:
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * IO_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def chunks(items: list, size: int) -> list[list]:
    """``items`` in pieces of ``size``, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Hold an item for this runner, if no other does; the claim goes with the process, however it ends.

    Args:
        lock: a file that stands for the item, on a disk that all runners share.

    Yields:
        Whether it is held now.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    # not shared by the threads of a process: each is somebody of its own
    file = FileLock(str(lock), timeout=0, thread_local=False)
    try:
        file.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        file.release()
