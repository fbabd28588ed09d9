"""Files are whole or not there."""

import errno
import json
import multiprocessing

import pytest

from audfer.errors import AudferError
from audfer.files import atomic_file, atomic_folder, digest, locked, write_json


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
