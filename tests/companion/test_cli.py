"""The command line: help that fits, exit codes, one sentence for wrong input."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import signal
import subprocess
import sys

import pandas as pd
import pytest
import small_layouts
from paths import ROOT

from audfer import __main__
from audfer.companion import cli, commands
from audfer.errors import AudferError, InputError
from audfer.study.profiles import available_profiles, load_profile
from audfer.study.study import open_study

COMMANDS = [
    ["reproduce"],
    ["report"],
    ["verify"],
    ["compare"],
    ["completion"],
    ["predict"],
    ["data", "fetch"],
    ["data", "check"],
    ["data", "pack"],
    ["data", "landmarks"],
    ["data", "synth"],
    ["au", "extract"],
    ["au", "train-lac"],
    ["au", "import"],
    ["knowledge", "build"],
    ["weights", "inspect"],
    ["train"],
    ["grid"],
    ["records", "list"],
    ["records", "migrate"],
]


@pytest.mark.parametrize("command", [[], ["data"], ["au"], ["knowledge"], ["weights"], ["records"], *COMMANDS])
def test_help_fits_in_80_columns(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and max(map(len, text.splitlines())) <= 80


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command[0]}" in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_it_understands(command, capsys):
    for arguments in ([], command):
        with pytest.raises(SystemExit):
            cli.main([*arguments, "--help"])
        lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
        name = f"audfer {' '.join(command)}"
        (example,) = (line for line in lines if line.removeprefix('eval "$(').startswith(name))
    words = shlex.split(re.sub(r'^eval "\$\((.*)\)"$', r"\1", example))
    assert callable(cli.command_of(cli.build_parser().parse_args(words[1:])))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["rep"], {"reproduce", "report"}),
        (["data", ""], {"fetch", "check", "pack"}),
        (["data", "check", "--de"], {"--deep"}),
        (["report", "--w"], {"--why", "--work"}),
    ],
)
def test_the_shell_completes_commands_and_options(typed, expected):
    words = " ".join(shlex.quote(word) for word in ("audfer", *typed))
    script = [cli.completion_script("bash"), f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _audfer"]
    script = "\n".join([*script, 'echo "${COMPREPLY[@]}"'])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert expected <= set(done.stdout.split()) and (len(typed[-1]) < 2 or expected == set(done.stdout.split()))


def test_dir_shows_the_parts_of_the_package():
    code = "import sys, audfer; print(*dir(audfer)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"open_study", "predict", "knowledge", "losses", "models", "facs", "__version__"} <= set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_reach_what_it_calls(command):
    enough = {
        "predict": ["x"],
        "compare": ["x", "y"],
        "completion": ["bash"],
        "data": ["RAVDESS", "x", "y"],
        "au": ["RAVDESS", "x", "y", "z"],
        "knowledge": ["x"],
        "weights": ["x"],
        "records": ["x", "y"],
    }
    arguments = enough.get(command[0], [])
    parser = cli.build_parser()
    for count in range(len(arguments) + 1):
        try:
            assert callable(cli.command_of(parser.parse_args([*command, *arguments[:count]])))
            return
        except SystemExit:
            continue
    pytest.fail("no number of arguments was accepted")


@pytest.mark.parametrize("command", [["reproduce"], ["report"], ["train"], ["knowledge", "build", "x.json"]])
def test_an_unknown_profile_is_one_sentence_and_exit_code_2(command, capsys, monkeypatch):
    monkeypatch.delenv("AUDFER_PROFILE", raising=False)
    assert cli.main([*command, "--profile", "lapto"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and errors.startswith("audfer: error: ") and "did you mean laptop?" in errors


def test_exit_code_of_the_process_itself(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "audfer.companion.cli", "reproduce", "--profile", "nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "AUDFER_WORK": str(tmp_path)},
    )
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


#: raises SIGINT just before a module is imported, when everything is done, or while Python takes itself down
_CTRL_C = """
import atexit, os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
moment = sys.argv.pop(1)

class Moment:
    @staticmethod
    def find_spec(name, *_):
        if name == moment:
            sys.meta_path.remove(Moment)
            os.kill(os.getpid(), signal.SIGINT)

class Last:
    def __del__(self, kill=os.kill, me=os.getpid(), signal=signal.SIGINT):
        kill(me, signal)

sys.meta_path.insert(0, Moment)
last = Last() if moment == "teardown" else None
try:
    runpy.run_module("audfer", run_name="__main__")
finally:
    if moment == "exit":
        atexit.register(os.kill, os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("moment", ["audfer.companion", "argparse", "tomllib", "audfer.companion.commands", "exit"])
def test_ctrl_c_at_the_very_start_and_end_says_so_in_one_line(moment):
    command = [sys.executable, "-c", _CTRL_C, moment, "completion", "bash"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "RANK": "0"})
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.startswith("audfer: interrupted") and ended.stderr.count("\n") == 1


def test_ctrl_c_while_python_takes_itself_down_does_not_kill_what_has_ended():
    command = [sys.executable, "-c", _CTRL_C, "teardown", "completion", "bash"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stderr == "" and "complete" in ended.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_terminal_can_say_every_name(encoding, tmp_path, monkeypatch):
    said = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", said)
    for name in ("klüp 😀", "表情"):
        small_layouts.clip(tmp_path / "happy" / name)
    small_layouts.clip(tmp_path / "elsewhere").rename(tmp_path / "happy" / "caf\udce9")
    small_layouts.lines(tmp_path / "happy" / "数据.txt", "")
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path), "--workers", "1"]) == 1
    said.flush()
    text = said.buffer.getvalue().decode(encoding)
    assert "clips: 2 in 2 folders" in text and "caf\\udce9" in text


def test_a_dataset_folder_that_is_missing_is_refused(tmp_path, capsys):
    assert cli.main(["data", "check", "DFEW", "--root", str(tmp_path / "missing")]) == 2
    assert str(tmp_path / "missing") in capsys.readouterr().err


def test_parameter_values_are_literals_or_text():
    pairs = [("a", "3"), ("b", "0.5"), ("c", "True"), ("d", "[1, 2]"), ("e", "laptop"), ("f", "'3'"), ("g", "x=y")]
    assert commands.parameters(pairs) == {"a": 3, "b": 0.5, "c": True, "d": [1, 2], "e": "laptop", "f": "3", "g": "x=y"}


@pytest.mark.parametrize("raised, code", [(AudferError("no"), 2), (KeyboardInterrupt(), 130)])
def test_errors_and_interruption_have_their_exit_codes(raised, code, monkeypatch, capsys):
    def fail(options):
        raise raised

    monkeypatch.setattr(commands, "report", fail)
    assert cli.main(["report"]) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", [["reproduce"], ["report"], ["au", "extract"], ["knowledge", "build"], ["grid"]])
def test_help_names_every_profile_that_there_is(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"{', '.join(available_profiles())} or a .toml file" in text and "ravdess" in available_profiles()


def test_help_needs_no_torch():
    code = "import sys; from audfer.companion import cli; cli.build_parser(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_an_extractor_that_nobody_has_is_refused_with_the_names_of_those_that_are(tmp_path, capsys):
    (tmp_path / "DFEW").mkdir()
    options = cli.build_parser().parse_args(["au", "extract", "DFEW", "--backend", "mine"])
    with pytest.raises(
        InputError, match="--backend: found 'mine', expected one of openface, audfer, pyfeat, blendshapes, lac"
    ):
        commands.extractor(options)


def test_options_of_a_sub_package_stand_under_the_command_of_another(capsys):
    with pytest.raises(SystemExit):
        cli.main(["au", "extract", "--help"])
    assert "\nwith --backend lac:\n  --weights DIR" in capsys.readouterr().out


@pytest.mark.parametrize(
    "variable, flags, expected",
    [("smoke", ["--profile", "laptop"], "laptop"), ("smoke", [], "smoke"), ("", [], "laptop")],
)
@pytest.mark.parametrize(
    "command",
    [
        ["data", "synth", "x"],
        ["grid"],
        ["train"],
        ["knowledge", "build", "x"],
        ["au", "extract", "DFEW"],
        ["reproduce"],
        ["report"],
    ],
)
def test_the_flag_wins_over_the_environments_profile(command, variable, flags, expected, monkeypatch):
    monkeypatch.setenv("AUDFER_PROFILE", variable)
    assert cli.build_parser().parse_args([*command, *flags]).profile == expected
    assert open_study(expected).profile.name == expected


def test_data_synth_renders_the_flags_profile(tmp_path, monkeypatch, capsys):
    rendered = []
    monkeypatch.setenv("AUDFER_PROFILE", "smoke")
    monkeypatch.setattr("audfer.synth.write_benchmark", lambda folder, config: rendered.append(config))
    assert cli.main(["data", "synth", str(tmp_path), "--profile", "laptop"]) == 0
    assert cli.main(["data", "synth", str(tmp_path)]) == 0
    counts = [load_profile(name).data.train_clips["DFEW"] for name in ("laptop", "smoke")]
    assert [config.counts["DFEW"]["train"] for config in rendered] == counts and counts[0] != counts[1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("data", "{here}/data"), ("./a/../b", "{here}/b"), ("~/sets", "{here}/home/sets"), ("/data", "/data")],
)
def test_the_folder_of_the_datasets_is_absolute_before_anything_runs_elsewhere(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUDFER_DATA", given)
    seen = []
    monkeypatch.setattr(cli, "command_of", lambda options: lambda options: seen.append(os.environ["AUDFER_DATA"]))
    assert cli.main(["report"]) == 0
    assert seen == [expected.format(here=tmp_path)]


@pytest.mark.parametrize(
    "number", ["EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "ENOSPC", "ENOENT", "ELOOP", "EIO"]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_operating_system_refuses_is_a_sentence(command, number, monkeypatch, capsys):
    def refused(options):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)), "/somewhere/work")

    monkeypatch.setattr(cli, "command_of", lambda options: refused)
    several = {"data": ["RAVDESS", "x"], "au": ["x", "x"], "records": ["x", "y"], "compare": ["x", "y"]}
    arguments = (several | {"completion": ["bash"]}).get(command[0], ["x"])
    for count in range(3):
        try:
            code = cli.main([*command, *arguments[:count]])
            break
        except SystemExit:
            capsys.readouterr()
    errors = capsys.readouterr().err
    assert code == 2 and errors.startswith("audfer: error: /somewhere/work: file or folder: found ")
    assert errors.count("\n") == 1 and ", expected " in errors


@pytest.mark.parametrize("profile", [["--profile", "smoke"]])
@pytest.mark.parametrize("command", [["grid", "table1"], ["data", "synth", "{}/x"], ["train"]])
def test_a_file_in_the_work_folders_place_is_a_sentence(command, profile, tmp_path, monkeypatch, capsys):
    place = tmp_path / "file"
    place.touch()
    monkeypatch.setenv("AUDFER_WORK", str(place))
    assert cli.main([part.format(place) for part in command] + profile) == 2
    errors = capsys.readouterr().err
    assert f"audfer: error: {place}/" in errors and "AUDFER_WORK" in errors and place.read_bytes() == b""


@pytest.mark.parametrize(
    "way",
    ["import swallowing", "__import__('swallowing')", "import_module('swallowing')", "from swallowing import done"],
)
def test_ctrl_c_amid_an_import_that_swallows_it_ends_the_command(way, tmp_path, monkeypatch, capsys):
    (tmp_path / "swallowing.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    sum(range(100))\n"
        "except BaseException:\n    pass\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "swallowing", raising=False)
    monkeypatch.setattr(sys, "argv", ["audfer", "report"])
    namespace, went_on = {}, []
    exec(f"from importlib import import_module\ndef load():\n    {way}\n    return 1\n", namespace)
    monkeypatch.setattr(commands, "report", lambda options: went_on.append(namespace["load"]()))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert __main__.main() == 130 and not went_on and "swallowing" in sys.modules
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_commands_called_from_python_leave_signals_alone(capsys):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert cli.main(["completion", "bash"]) == 0
    assert before == {number: signal.getsignal(number) for number in before}


def test_a_package_without_its_repository_writes_below_the_current_folder(tmp_path, monkeypatch):
    for name in ("AUDFER_WORK", "AUDFER_FIGURES"):
        monkeypatch.delenv(name, raising=False)
    installed = tmp_path / "venv" / "site-packages" / "audfer" / "files.py"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setattr("audfer.files.__file__", str(installed))
    monkeypatch.chdir(here)
    study = open_study("smoke")
    assert study.work == here / "work" / "smoke" and here / "figures" in (study.figures, study.figures.parent)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert open_study("smoke").work == tmp_path / "work" / "smoke"  # inside a checkout: as reproduce does


def test_records_that_were_refused_are_named(monkeypatch, capsys):
    table = pd.DataFrame({"record": ["a", "b"], "key": ["k", ""], "reason": ["", "other clips"]})
    monkeypatch.setattr("audfer.training.migration.migrate_store", lambda old, new: table)
    assert cli.main(["records", "migrate", "old", "new"]) == 1
    said = capsys.readouterr()
    assert said.out == "new: 1 of 2 records taken over\n" and said.err == "refused: b: other clips\n"
    monkeypatch.setattr("audfer.training.migration.migrate_store", lambda old, new: table[:1])
    assert cli.main(["records", "migrate", "old", "new"]) == 0


def test_a_folder_without_records_is_refused(tmp_path, capsys):
    assert cli.main(["records", "migrate", str(tmp_path), str(tmp_path / "new")]) == 2
    assert "run records: found none" in capsys.readouterr().err and not (tmp_path / "new").exists()
