"""A short run of ``benchmarks/fuzzing.py``: damaged files of every kind; and that it would find faults."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # last: one is called statistics
import fuzzing  # noqa: E402


@pytest.mark.parametrize("name", list(fuzzing.KINDS))
def test_damaged_files_are_refused_in_a_sentence_or_read_as_they_are(name, monkeypatch):
    monkeypatch.setenv("AUDFER_PROGRESS", "off")
    found = fuzzing.run(name, inputs=150, seconds=20, seed=1)
    assert found.pop("examples") == {}
    assert found["tried"] > 20 and found["read"] >= len(fuzzing.KINDS[name].seeds()) and found["refused"] > 0
    assert not any(found[wrong] for wrong in fuzzing.WRONGS)


def _raising(raw, folder):
    raise IndexError("list index out of range")


def _csv(change):
    def read(raw, folder):
        track = fuzzing.read_csv(raw, folder)
        change(track)
        return track

    return read


def _second_lost(track):
    track.ok[1] = False


def _second_twice(track):
    track.frame[2] = track.frame[1]


def _rounded(track):
    track.intensity[:] = np.round(track.intensity)


@pytest.mark.parametrize(
    "name, read, wrong",
    [
        ("openface csv", _raising, "tracebacks"),
        ("openface csv", _csv(_rounded), "silently_wrong"),
        ("openface csv", _csv(_second_lost), "lost"),
        ("openface csv", _csv(_second_twice), "doubled"),
        ("labels", lambda raw, folder: fuzzing.read_labels(raw, folder)[1:], "lost"),
        ("labels", lambda raw, folder: fuzzing.read_labels(raw, folder).assign(expression=0), "silently_wrong"),
        ("split list", lambda raw, folder: fuzzing.read_split_list(raw, folder) * 2, "doubled"),
    ],
)
def test_a_reader_that_fails_is_found_out(name, read, wrong, monkeypatch):
    monkeypatch.setenv("AUDFER_PROGRESS", "off")
    kind = fuzzing.KINDS[name]
    monkeypatch.setitem(fuzzing.KINDS, name, fuzzing.Kind(kind.seeds, read, kind.judge))
    assert fuzzing.run(name, inputs=len(kind.seeds()), seconds=20)[wrong] > 0


def test_a_reader_that_does_not_end_is_stopped(monkeypatch):
    def endless(raw, folder):
        while True:
            pass

    monkeypatch.setattr(fuzzing, "SECONDS", 1)
    state, wrongs = fuzzing.attempt(fuzzing.Kind(list, endless, None), b"")
    assert state == "refused" and "not done after 1 s" in wrongs[0][1]


def test_what_only_audfer_can_read_is_counted(tmp_path):
    def judge(raw, folder, result):
        raise UnicodeDecodeError("utf-8", raw, 0, 1, "no text")
        yield

    state, wrongs = fuzzing.attempt(fuzzing.Kind(list, lambda raw, folder: None, judge), b"\xff")
    assert state == "read" and [wrong for wrong, _ in wrongs] == ["silently_wrong"]
