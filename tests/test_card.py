"""The script for a GPU that is lent for minutes: what it does when time is up, and when it goes on."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def card(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
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


#: starts a process in a session of its own, as torchrun does, notes both and goes on with what follows
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
"""


@pytest.mark.parametrize("then, code", [("time.sleep(300)", 124), ("os.kill(os.getpid(), 9)", -9), ("", 0)])
def test_a_command_that_is_stuck_killed_or_through_leaves_no_process_behind(card, tmp_path, capsys, then, code):
    module, options = card
    pids = tmp_path / "pids"
    for seconds in (3, 60) if code == 124 else (60,):  # a busy machine may need more to begin
        with open(tmp_path / "stage.log", "w") as log:
            assert module.Card(options).call([sys.executable, "-c", PARENT + then, pids], seconds, log) == code
        if pids.is_file():
            break
    for pid in map(int, pids.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    if code == 124:
        assert f"stage: ended after {seconds} s with 2 processes; where they stood: " in capsys.readouterr().out
        assert 'File "<string>", line' in (tmp_path / "stage.log").read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_the_script_ends_what_it_has_started(how, tmp_path):
    folders = [f"--{name}={tmp_path / name}" for name in ("out", "work", "cache")]
    command = [sys.executable, str(BENCHMARKS / "card.py"), "--device=cpu", "--stages=ddp", *folders]
    script = psutil.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until = time.monotonic() + 200  # of a busy machine
        while not (members := script.children()):
            assert script.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        script.send_signal(how)
        script.wait(60)
    _, left = psutil.wait_procs(members, 60)
    assert not left


def test_a_member_trains_a_store_of_noise(card):
    module, options = card
    options.how = "alone"
    module.check_member(options)
    found = torch.load(options.out / "ddp_alone.pt", weights_only=False)
    assert found["former_dfer"]["scores"].shape == (14, 7) and len(found["former_dfer"]["loss"]) == 1


def test_colours_without_lists_of_clips_are_those_of_the_recipe(card, tmp_path, monkeypatch):
    from model_speed import Clock
    from train_throughput import apart, cell_for, fused_colours, store_for

    from audfer.training.augmentation import colour_jitter
    from audfer.training.recipes import RECIPES

    jitter = RECIPES["m3dfel-paper"].augmentation
    assert jitter.colour_jitter and jitter.hue_jitter
    clips = torch.rand(8, 2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    plain = colour_jitter(clips, jitter, torch.Generator().manual_seed(1))
    with fused_colours(compiled=False):
        torch.testing.assert_close(colour_jitter(clips, jitter, torch.Generator().manual_seed(1)), plain)
    assert (plain - clips).abs().max() > 0.1
    # the benchmark that compares both; a compiler's minutes are left to the card
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    cell = replace(cell_for("m3dfel", "cpu"), recipe="m3dfel-paper", num_frames=4, image_size=24)
    row = apart(cell, store_for(tmp_path, 8, cell), Clock("cpu"), 1, fused=True)
    assert row["fused_input_difference"] < 1e-5 and row["fused_input_clips_per_second"]["median"] > 0


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
