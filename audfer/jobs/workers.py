"""Work on many clips at once: in processes, one small chunk a task, or read ahead by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context

from ..errors import AudferError, InputError

#: threads that read or write picture files: more gain nothing on the disks at hand
IO_THREADS = min(8, os.cpu_count() or 1)


def chunks(items: list, size: int) -> list[list]:
    """``items`` in pieces of ``size``, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def each(function: Callable, tasks: Iterable, workers: int = 1) -> Iterator:
    """Results of ``function(task)`` as they come, in any order.

    Args:
        function: of a module, so that a process can find it.
        workers: processes; 1 works here, in order. Only a few tasks a process are handed out at a time, so that tasks
            may be made lazily.

    Raises:
        AudferError: a process died.
    """
    if workers < 1:
        raise InputError("command line", "workers", workers, "at least 1")
    if workers == 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    # spawned, not forked: forking after torch's thread pool has started can hang
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        running = {pool.submit(function, task) for task in islice(tasks, 3 * workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(function, task) for task in islice(tasks, len(done))}
    except BrokenProcessPool:
        raise AudferError(
            "a worker process was killed (often: out of memory); what was finished is kept, "
            "run the same command again, with fewer workers if it happens again"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ahead(function: Callable, items: Iterable) -> Iterator:
    """``function(item)`` of each item, in order, worked out by a few threads before it is asked for.

    For reading clips: decoders leave the interpreter free, so that several clips are decoded at once and while a
        network is
    at work. What an item raises is raised in its place.
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
