"""The script for a GPU that is lent for minutes: what it does when time is up, and when it goes on."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
from paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def card(tmp_path):
    spec = importlib.util.spec_from_file_location("card", BENCHMARKS / "card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = SimpleNamespace(
        out=tmp_path / "out", work=tmp_path / "work", cache=tmp_path / "cache", come_from=None, seconds=100.0,
        device="cpu", models=["former_dfer"], profile="smoke", set=["training.seeds=[3]"],
    )  # fmt: skip
    options.out.mkdir()
    return module, options


def states(options):
    return {
        name: stage["state"] for name, stage in json.loads((options.out / "card.json").read_text())["stages"].items()
    }


def test_each_stage_says_how_it_ended_and_those_that_are_through_are_left_out_the_next_time(card):
    module, options = card
    ran = []

    class Card(module.Card):
        def build(self, limit):
            yield lambda: ran.append("build"), limit

        def tests(self, limit):
            yield [sys.executable, "-c", "raise SystemExit(3)"], limit

        def speed(self, limit):
            yield [sys.executable, "-c", "import time; time.sleep(60)"], 1

    for name in ("build", "tests", "speed"):
        Card(options).run(name)
    assert states(options) == {"build": "done", "tests": "failed", "speed": "time was up"}
    assert "raise SystemExit(3)" in (options.out / "tests.log").read_text()
    Card(options).run("build")
    assert ran == ["build"]
    options.seconds = module.LAST + 1
    Card(options).run("input")
    assert states(options)["input"] == "no time"


def test_records_and_small_steps_are_packed_and_found_again(card, tmp_path):
    module, options = card
    here = module.Card(options)
    assert here.runs == options.work / "smoke+training.seeds=[3]" / "runs" or here.runs.name == "runs"
    study = here.runs.parent
    (study / "action_units" / "DFEW").mkdir(parents=True)
    (study / "action_units" / "DFEW" / "frames.parquet").write_bytes(b"0" * 1000)
    (study / "packed" / "DFEW").mkdir(parents=True)
    (study / "packed" / "DFEW" / "frames.npy").write_bytes(b"1")
    here.pack()
    there = SimpleNamespace(**{**vars(options), "work": tmp_path / "there", "come_from": options.out})
    module.Card(there).unpack()
    arrived = {path.name for path in (tmp_path / "there").rglob("*") if path.is_file()}
    assert arrived == {"frames.parquet"} and max(p.stat().st_size for p in options.out.iterdir()) < 2**24
    commands = [command for command, _ in module.Card(there).grid(90) if isinstance(command, list)]
    assert all("--budget" in command for command in commands) and commands[0][4:5] == ["table1"]


def test_the_speed_table_is_made_of_what_came_back(card):
    module, options = card
    assert "not measured" in module.speed_table(options.out)
    speeds = {
        name: {"median": value}
        for name, value in (("official_clips_per_second", 100.0), ("ours_clips_per_second", 200.0))
    }
    row = {"model": "m3dfel", "gflops": 10.0, "training": {**speeds, "ratio": {"median": 2.0}}}
    graphs = {"graph_clips_per_second": {"median": 300.0}, "same": True}
    files = {
        "build.json": {"device": "a card", "bf16_matrix_gflops": 90_000},
        "model_speed_m3dfel.json": {"results": [{**row, "graphs": graphs}]},
        "train_throughput.json": {"results": [{"model": "m3dfel", "fit_clips_per_second": 150.0, "input_share": 0.04}]},
    }
    for name, content in files.items():
        (options.out / name).write_text(json.dumps(content))
    # 3 x 10 GFLOP x 300 of 90,000 GFLOP/s
    assert "| m3dfel | 100.0 | 200.0 | 2.0 | 300.0 | 150.0 | 4% | 10% |" in module.speed_table(options.out)
