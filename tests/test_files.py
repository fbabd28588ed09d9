"""Files are whole or not there."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from audfer.errors import AudferError
from audfer.files import DiskFull, atomic_file, atomic_folder, digest, locked, new_array, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path):
    with atomic_folder(tmp_path / "r") as temporary:
        (temporary / "one").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "r") as temporary:
        (temporary / "two").write_text("2")
        raise KeyboardInterrupt
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["one", "r"]


def test_a_full_disk_is_a_sentence(tmp_path):
    with pytest.raises(AudferError, match="disk is full.*nothing was half-written"), atomic_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_digest_ignores_key_order_and_sees_values():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def _try_lock(folder, queue):
    try:
        with locked(folder):
            queue.put("got it")
    except AudferError as error:
        queue.put(str(error))


def test_a_store_in_use_is_refused_with_its_path(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with locked(tmp_path):
        other = context.Process(target=_try_lock, args=(tmp_path, queue))
        other.start()
        answer = queue.get(timeout=60)
        other.join()
    assert str(tmp_path) in answer and "another process is using this run store" in answer


# ---- what the dead leave behind

_DIES = """
import os, sys
from audfer.files import *
with {how}:
    print("writing", flush=True)
    {then}
"""


def _dying(tmp_path, how: str, then: str = "os.kill(os.getpid(), 9)", **options) -> subprocess.Popen:
    code = _DIES.format(how=how, then=then)
    return subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    "how, write",
    [
        ("atomic_folder('a') as t, open(t / 'x', 'w')", lambda p: atomic_folder(p)),
        ("atomic_file('a') as t", lambda p: atomic_file(p)),
        ("atomic_file('a.npy') as t", lambda p: atomic_file(p.with_suffix(".npy"))),
    ],
)
def test_what_a_killed_process_was_writing_goes_with_the_next_write_and_what_a_living_one_writes_stays(
    tmp_path, how, write
):
    living = _dying(tmp_path, how, "sys.stdin.read()", stdin=subprocess.PIPE)
    living.stdout.readline()
    (of_the_living,) = os.listdir(tmp_path)
    assert _dying(tmp_path, how).wait() == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2
    (tmp_path / ".a.notes").write_text("the user's own")
    with write(tmp_path / "a"):
        pass
    written = {"a", "a.npy"} & set(os.listdir(tmp_path))
    assert set(os.listdir(tmp_path)) == {of_the_living, ".a.notes"} | written and written
    living.communicate()
    assert living.returncode == 0


def test_a_lock_is_held_until_the_last_child_that_writes_has_ended(tmp_path):
    """A killed parent's lock is not free as long as a child of its lives."""
    then = (
        "import subprocess\n    from audfer.jobs.processes import following\n"
        "    more = {**following(), 'preexec_fn': None}\n"  # as on systems where children do not end with their parent
        "    print(subprocess.Popen(['sleep', '60'], start_new_session=True, **more).pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)"
    )
    parent = _dying(tmp_path, "locked('a')", then)
    _, child = parent.stdout.readline(), int(parent.stdout.readline())
    assert parent.wait() == -signal.SIGKILL
    with pytest.raises(AudferError, match="another process is using this run store"), locked(tmp_path / "a"):
        pass
    os.kill(child, signal.SIGKILL)
    time.sleep(0.1)
    with locked(tmp_path / "a"):
        pass


# ---- room on the disk


def test_an_array_without_room_is_a_sentence_before_it_is_mapped(tmp_path):
    array = new_array(tmp_path / "a.npy", (3, 5), np.float16)
    array[:] = 1
    del array
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.ones((3, 5), np.float16))
    assert os.stat(tmp_path / "a.npy").st_blocks > 0
    with pytest.raises(DiskFull, match="nothing was half-written"):
        new_array(tmp_path / "b.npy", (1 << 50,), np.uint8)
    assert os.listdir(tmp_path) == ["a.npy"]


def test_no_array_is_mapped_for_writing_but_by_new_array():
    """Elsewhere a full disk kills the process; what lies in memory or is only read may be mapped."""
    from paths import ROOT

    lines = [
        (path.name, line.strip())
        for path in (ROOT / "audfer").rglob("*.py")
        for line in path.read_text().splitlines()
        if "memmap(" in line and "def " not in line
    ]
    assert [name for name, _ in lines] == ["files.py"]
