"""What is said of the time that a run will take."""

from __future__ import annotations

import json

import pytest

from audfer.companion import expectation, reproduce
from audfer.companion.expectation import Expectation, keep, probe

NAMES = ["01", "02", "03"]
SUMMARY = {
    "seconds": 100.0,
    "machine": "m",
    "notebooks": [{"name": name, "seconds": seconds} for name, seconds in zip(NAMES, (60.0, 30.0, 60.0), strict=True)],
}


def test_nothing_is_promised_where_nothing_is_known(tmp_path):
    known = Expectation(NAMES, tmp_path, tmp_path)
    assert not known.known and known.left({}, {"01": 5.0}) is None


def test_the_published_run_is_scaled_by_the_speed_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(expectation, "probe", lambda: 0.5)
    keep(tmp_path, SUMMARY)
    monkeypatch.setattr(expectation, "probe", lambda: 1.0)
    half_as_fast = Expectation(NAMES, tmp_path / "work", tmp_path)
    assert half_as_fast.known and half_as_fast.whole == 200 and "2.0 times as fast" in half_as_fast.source
    one = Expectation(["02"], tmp_path / "work", tmp_path)
    assert one.whole == 40 and not Expectation(["02", "04"], tmp_path / "work", tmp_path).known


def test_the_last_run_here_counts_more_than_a_published_one(tmp_path):
    keep(tmp_path, SUMMARY | {"seconds": 900.0})
    (tmp_path / "reproduce.json").write_text(json.dumps(SUMMARY))
    known = Expectation(NAMES, tmp_path, tmp_path)
    assert known.whole == 100 and known.source == "the last run here"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"notebooks": 3, "seconds": 1}', '{"notebooks": {}}'])
def test_times_that_cannot_be_read_are_none(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert not Expectation(NAMES, tmp_path, tmp_path).known


def test_the_time_left_follows_the_pace_of_this_run(tmp_path, monkeypatch):
    (tmp_path / "reproduce.json").write_text(json.dumps(SUMMARY))
    known = Expectation(NAMES, tmp_path, tmp_path)
    now = known.start
    monkeypatch.setattr(expectation.time, "monotonic", lambda: now)
    now = known.start + 10
    assert known.left({}, {"01": 10.0}) == 90  # too early for a pace
    now = known.start + 120  # half as fast as before
    assert known.left({"01": 120.0}, {"02": 15.0}) == pytest.approx(120 * (150 - 75) / 75)
    assert known.left({"01": 120.0, "02": 60.0, "03": 90.0}, {}) == 0


def test_a_probe_is_short_and_lines_name_the_time_left_first(tmp_path, monkeypatch, capsys):
    assert 0 < probe() < 5
    (tmp_path / "reproduce.json").write_text(json.dumps(SUMMARY))
    screen = reproduce._Screen([], Expectation(NAMES, tmp_path, tmp_path))
    screen.tick({"01": 60.0}, {"02": 1.0})
    screen.tick({"01": 60.0}, {"02": 2.0})
    screen.line("x" * 200)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "about 1 min 40 s, going by the last run here" and len(lines) == 3
    assert lines[1].startswith("1 of 3 notebooks, about ") and lines[2] == "x" * 79
