"""The command line: help that fits, exit codes, one sentence for wrong input."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from paths import ROOT

from audfer.companion import cli
from audfer.errors import AudferError

COMMANDS = [
    ["reproduce"],
    ["report"],
    ["data", "fetch"],
    ["data", "check"],
    ["data", "pack"],
    ["data", "synth"],
    ["au", "extract"],
    ["au", "train-lac"],
    ["au", "import"],
    ["knowledge", "build"],
    ["train"],
    ["grid"],
]


@pytest.mark.parametrize("command", [[], ["data"], ["au"], ["knowledge"], *COMMANDS])
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
def test_every_command_can_reach_what_it_calls(command):
    enough = {"data": ["RAVDESS", "x", "y"], "au": ["RAVDESS", "x", "y", "z"], "knowledge": ["x"]}
    arguments = enough.get(command[0], [])
    parser = cli.build_parser()
    for count in range(len(arguments) + 1):
        try:
            assert callable(parser.parse_args([*command, *arguments[:count]]).run)
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


def test_a_dataset_folder_that_is_missing_is_refused(tmp_path, capsys):
    assert cli.main(["data", "check", "DFEW", "--root", str(tmp_path / "missing")]) == 2
    assert str(tmp_path / "missing") in capsys.readouterr().err


def test_parameter_values_are_literals_or_text():
    pairs = [("a", "3"), ("b", "0.5"), ("c", "True"), ("d", "[1, 2]"), ("e", "laptop"), ("f", "'3'"), ("g", "x=y")]
    assert cli._parameters(pairs) == {"a": 3, "b": 0.5, "c": True, "d": [1, 2], "e": "laptop", "f": "3", "g": "x=y"}


@pytest.mark.parametrize("raised, code", [(AudferError("no"), 2), (KeyboardInterrupt(), 130)])
def test_errors_and_interruption_have_their_exit_codes(raised, code, monkeypatch, capsys):
    def fail(options):
        raise raised

    monkeypatch.setattr(cli, "_report", fail)
    assert cli.main(["report"]) == code
    assert "Traceback" not in capsys.readouterr().err
