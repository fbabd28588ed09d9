"""Child processes that end with their parent and within their time: programs, and Python workers that keep a model."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from weakref import WeakSet

from ..files import held_locks

_PR_SET_PDEATHSIG = 1
# looked up once, here: between fork and exec a child of a threaded process should do next to nothing
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None
#: variables by which numerical libraries are told to use one thread: several processes share the machine
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)

#: leaders of the process groups that live -> the thread that started each
_living: dict[int, threading.Thread] = {}
#: threads that may start no more of them
_stopped: WeakSet[threading.Thread] = WeakSet()
_children: dict[threading.Thread, PythonChild] = {}
_starting = threading.Lock()


class Stopped(Exception):
    """This work is being stopped; what the child did not finish is not its fault."""


class OutOfTime(Exception):
    """The child used up its time and was killed with its group."""


class ChildEnded(Exception):
    """The child ended without an answer: how, and the end of what it printed."""


def run_limited(
    command: Sequence[str], seconds: float, on_timeout: Callable[[], object] | None = None
) -> tuple[int, str]:
    """Run a program in a process group of its own, on one thread; kill the whole group when the time is up.

    Args:
        command: program and arguments.
        seconds: time limit.
        on_timeout: called before the kill, for what a signal does not reach (a container).

    Returns:
        The exit status (negative: the signal that ended it) and the end of what it printed (at most 2,000 characters).

    Raises:
        OutOfTime: after the group is gone.
        Stopped: ``stop_children`` of this thread.
        OSError: the program cannot be started.
    """
    with tempfile.TemporaryFile() as printed:  # a file, not a pipe: a grandchild that keeps it open cannot block us
        process = _start(command, subprocess.DEVNULL, printed, printed)
        try:
            status = process.wait(seconds)
        except BaseException as error:
            if on_timeout is not None:
                on_timeout()
            if isinstance(error, subprocess.TimeoutExpired):
                raise OutOfTime(f"no end after {seconds:g} s") from None
            raise
        finally:
            _end(process)
        if status == -signal.SIGKILL:
            _refuse_if_stopped()
        return status, _tail(printed)


def _refuse_if_stopped() -> None:
    if threading.current_thread() in _stopped:
        raise Stopped


def following() -> dict[str, object]:
    """Arguments of ``subprocess.Popen`` for a child that the kernel kills when the thread which starts it is gone
    (Linux), and that keeps our locks: none is free before the last one that writes has ended.

    Without it the children of a killed run would go on beside the next one.
    """
    parent = os.getpid()

    def bind() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before that
                os._exit(1)

    return {"preexec_fn": bind, "pass_fds": tuple(held_locks)}


def _start(command: Sequence[str], stdin, stdout, stderr) -> subprocess.Popen:
    with _starting:  # so that ``stop_children`` does not miss one that is just being started
        _refuse_if_stopped()
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # Ctrl-C is left to the parent
            **following(),
        )
        _living[process.pid] = threading.current_thread()
    return process


def _end(process: subprocess.Popen) -> None:
    """Kill what is left of a child's group, and forget it."""
    _kill_group(process.pid)
    process.wait()
    _living.pop(process.pid, None)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says "not permitted" of a group that has ended
        os.killpg(leader, signal.SIGKILL)


def _tail(printed, length: int = 2000) -> str:
    printed.seek(max(printed.seek(0, os.SEEK_END) - length, 0))
    return printed.read().decode(errors="replace").strip()


def stop_children(threads: Collection[threading.Thread]) -> None:
    """Kill the children of these threads, which start no more: whoever waits for one gets ``Stopped``."""
    with _starting:
        _stopped.update(threads)
        leaders = [leader for leader, thread in _living.items() if thread in threads]
    for leader in leaders:
        _kill_group(leader)


def own_child() -> PythonChild:
    """The Python child of this thread, the same one at every call."""
    return _children.setdefault(threading.current_thread(), PythonChild())


def end_children(threads: Collection[threading.Thread]) -> None:
    """End the Python children of threads that have ended."""
    for thread in threads:
        if child := _children.pop(thread, None):
            child.close()


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class PythonChild:
    """A Python process that keeps what it loaded, and answers one call at a time within a time limit.

    A call that hangs or crashes takes only this process with it, and the next call starts a new one. Functions and
    arguments travel as pickles; what the functions print goes to a file.
    """

    def __init__(self):
        self._process: subprocess.Popen | None = None

    def call(self, function: Callable, *arguments, seconds: float):
        """``function(*arguments)`` in the child.

        Raises:
            OutOfTime, ChildEnded, Stopped: no answer.
            Exception: what the function raised.
        """
        (answer,) = self._answers(function, arguments, seconds, 1)
        return answer

    def stream(self, function: Callable, *arguments, seconds: float) -> Iterator:
        """What a generator function yields in the child, as it comes; ``seconds`` for each item.

        A caller that stops before the end ends the child.

        Raises:
            OutOfTime, ChildEnded, Stopped, Exception: as ``call``, after the items that came before.
        """
        yield from self._answers(function, arguments, seconds, None)

    def _answers(self, function: Callable, arguments: tuple, seconds: float, count: int | None) -> Iterator:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._printed, self._unread = tempfile.TemporaryFile(), b""  # noqa: SIM115  (closed in close)
            # it finds the modules that this process finds
            serve = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _serve; _serve()"
            self._process = _start([sys.executable, "-c", serve], subprocess.PIPE, subprocess.PIPE, self._printed)
        try:
            _send(self._process.stdin, (function, arguments, count is None))
            while count != 0:
                # BrokenPipeError and EOFError: the child is gone; anything else in the answer is the function's own
                kind, answer = self._answer(time.monotonic() + seconds, seconds)
                if kind != "gave":
                    break
                count = None if count is None else count - 1
                yield answer
        except (BrokenPipeError, EOFError):
            status = self._process.wait()
            _refuse_if_stopped()
            last = _tail(self._printed).splitlines()[-1:] or [""]
            raise ChildEnded(f"{how_it_ended(status)}{': ' if last[0] else ''}{last[0]}") from None
        except BaseException:
            self.close()
            raise
        if kind == "raised":
            raise answer

    def _answer(self, until: float, seconds: float):
        (length,) = struct.unpack("<q", self._read(8, until, seconds))
        return pickle.loads(self._read(length, until, seconds))

    def _read(self, length: int, until: float, seconds: float) -> bytes:
        """The next bytes of the answers; what was read beyond them is kept for the next call."""
        stream = self._process.stdout.fileno()
        while len(self._unread) < length:
            ready, _, _ = select.select([stream], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise OutOfTime(f"no end after {seconds:g} s")
            block = os.read(stream, 1 << 20)
            if not block:
                raise EOFError
            self._unread += block
        content, self._unread = self._unread[:length], self._unread[length:]
        return content

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            _end(self._process)
            for stream in (self._process.stdin, self._process.stdout, self._printed):
                with suppress(BrokenPipeError):  # a call that the child has not read
                    stream.close()
            self._process = None


def _send(stream, content) -> None:
    data = pickle.dumps(content)
    stream.write(struct.pack("<q", len(data)) + data)
    stream.flush()


def _serve() -> None:
    """The child's side: calls come in on standard input, answers go out where standard output was."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what packages print must not mix with the answers
    calls = sys.stdin.buffer
    while header := calls.read(8):
        function, arguments, several = pickle.loads(calls.read(struct.unpack("<q", header)[0]))
        try:
            for result in function(*arguments) if several else (function(*arguments),):
                _send(answers, ("gave", result))
            answer = ("end", None) if several else None
        except Exception as error:  # it goes back to the caller, who decides; so does an answer that cannot be pickled
            error.add_note(f"in a child process:\n{traceback.format_exc()}")
            answer = ("raised", error)
        if answer is not None:
            try:
                _send(answers, answer)
            except Exception as error:
                _send(answers, ("raised", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]} ({error})")))
