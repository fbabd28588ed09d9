"""The soak test counts what it is there to find: one fault of each kind, planted."""

import json
import sys

import psutil
import pytest
from paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: one is called statistics

import soak  # noqa: E402

from audfer.jobs.processes import OutOfTime  # noqa: E402

TRACEBACK = "echo 'Traceback (most recent call last)' >&2; exit 1"
ORPHAN = "setsid sleep 60 & sleep 60"


def deed(made: dict[str, str]) -> soak.Deed:
    return soak.Deed(
        "completion", lambda place: ["completion", "bash"], lambda place: made if "attacked" in place.name else MADE
    )


MADE = {"a": "1", "b": "2"}


@pytest.fixture
def job(tmp_path):
    job = soak.Soak(tmp_path, 0)
    yield job
    job.child.close()


def found(job) -> dict[str, int]:
    return {name: count for name, count in job.count.items() if count}


@pytest.mark.parametrize(
    ("made", "expected"),
    [(MADE, {}), ({"a": "1"}, {"lost": 1}), ({"a": "1", "b": "3"}, {"stale": 1}), ({}, {"lost": 2})],
)
def test_results_that_are_missing_or_other_ones_are_counted(job, tmp_path, made, expected):
    soak.compare(job, [deed(made)], tmp_path / "whole", tmp_path / "attacked")
    assert found(job) == expected


def test_cells_that_were_trained_twice_are_counted(job, tmp_path):
    log = tmp_path / "attacked" / "work" / "smoke" / "runs" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"key": key, "event": "end"}) + "\n" for key in "aab"))
    soak.compare(job, [], tmp_path / "whole", tmp_path / "attacked")
    assert found(job) == {"doubled": 1}


@pytest.mark.parametrize(
    ("script", "expected"), [(TRACEBACK, {"tracebacks": 1}), ("exit 7", {"tracebacks": 1}), ("exit 0", {})]
)
def test_tracebacks_and_exit_codes_that_nobody_expects_are_counted(job, tmp_path, script, expected):
    job.ended(deed(MADE), job.start(deed(MADE), tmp_path, ("sh", "-c", script)), (0, 1))
    assert found(job) == expected


def test_processes_that_outlive_a_killed_command_are_counted_and_ended(job, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "GRACE", 0.5)
    process = job.start(deed(MADE), tmp_path, ("sh", "-c", ORPHAN))
    while len(family := process.children(recursive=True)) < 2:
        pass
    job.kill(deed(MADE), process)
    job.ended(deed(MADE), process, (-9,))
    assert found(job) == {"orphans": 2} and not psutil.wait_procs(family, 10)[1]


def test_a_command_without_an_end_is_counted_however_busy_others_are(job, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "LIMIT", 1)
    job.ended(deed(MADE), job.start(deed(MADE), tmp_path, ("sh", "-c", "sleep 60")), (0,))
    assert job.count["hung"] == 1


class BrokenReaders:
    """A child in whose place every reader fails in its own way."""

    def __init__(self, raised: Exception):
        self.raised = raised

    def call(self, function, *_, seconds: float):
        if function is soak.read:
            raise self.raised

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("raised", "kind"), [(KeyError("a"), "tracebacks"), (OutOfTime("no end"), "hung")])
def test_inputs_that_end_in_anything_but_a_sentence_are_counted(job, raised, kind):
    (job.inputs / "nothing").mkdir(parents=True)
    (job.inputs / "nothing" / "file").write_bytes(b"1")
    job.child = BrokenReaders(raised)
    job.spoilt()
    assert found(job) == {"inputs tried": 1, kind: 1}
