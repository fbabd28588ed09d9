"""What ``audfer verify`` says of equal, close, wrong, altered and missing numbers; its certificate; codecheck.yml."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from paths import ROOT

from audfer.companion import cli
from audfer.companion import verify as verification
from audfer.companion.verify import codecheck, committed, verify
from audfer.errors import AudferError, InputError
from audfer.results.builder import Result

GENERATOR = np.random.default_rng(5)
WARS = np.round(GENERATOR.uniform(35, 60, 12), 3)
TABLE = pd.DataFrame(
    {
        "dataset": "DFEW",
        "model": [f"network {k}" for k in range(12)],
        "metric": "WAR",
        "ours": WARS,
        "low": WARS - 2.2,
        "high": WARS + 2.2,
        "clips": 2000,
        "difference": WARS - 45,
        "difference_low": WARS - 47,
        "difference_high": WARS - 43,
        "p": GENERATOR.random(12),
        "paper": WARS + 10,
    }
)
CURVES = pd.DataFrame({"epoch": np.arange(20), "panel": "loss", "value": 2 * np.exp(-np.arange(20) / 6)})
PRINTED = pd.DataFrame({"table": "table1", "printed": [65.53, 54.78], "hits": [1533, 900]})
MADE = {"made": {"output": "table1", "notebook": "03_training", "settings": "s", "profile": "laptop"}}


def folder_of(place, table=TABLE, curves=CURVES, printed=PRINTED, machine="x86_64 AVX2, here"):
    """A profile's folder with a trained table, a figure without intervals and a table of printed numbers."""
    folder = place / "laptop"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audfer.results.provenance.this_machine", lambda: machine)
        for name, frame in (("table1_war_uar", table), ("fig7_training", curves), ("a1_gains", printed)):
            digests = ("0" * 16,) if name == "table1_war_uar" else ()
            Result(name, frame, f"A caption of {name}. More.", digests=digests).placed(folder, MADE).save()
    return folder


def verdicts(certificate):
    return {verdict.name: verdict.verdict for verdict in certificate.verdicts}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("reference"))


def test_the_same_run_is_confirmed(reference, tmp_path):
    certificate = verify(folder_of(tmp_path), reference)
    assert certificate.passed and set(verdicts(certificate).values()) == {"identical"}
    place = certificate.save(tmp_path / "out")
    text, content = place.read_text(), json.loads(place.with_suffix(".json").read_text())
    assert "**Confirmed.** 3 tables and figures: 3 identical." in text and content["passed"]
    assert {row["name"] for row in content["verdicts"]} == {"table1_war_uar", "fig7_training", "a1_gains"}


def changed(frame, column, row, by):
    frame = frame.copy()
    frame[column] = frame[column].astype(object if isinstance(by, str) else float)
    frame.loc[row, column] = by if isinstance(by, str) else frame.loc[row, column] + by
    return frame


HERE, ELSEWHERE = "x86_64 AVX2, here", "x86_64 AVX512, elsewhere"
noisy = TABLE.assign(**{name: TABLE[name] + GENERATOR.normal(0, 0.8, 12) for name in ("ours", "difference")})


@pytest.mark.parametrize(
    ("what", "machine", "expected"),
    [
        ({"table": changed(TABLE, "ours", 3, 0.01)}, HERE, "table1_war_uar: differs"),
        ({"curves": changed(CURVES, "value", 3, 0.001)}, HERE, "fig7_training: differs"),
        ({"printed": changed(PRINTED, "printed", 1, 0.01)}, HERE, "a1_gains: differs"),
        ({"table": changed(TABLE, "ours", 3, 0.01)}, ELSEWHERE, ""),
        ({"table": noisy}, ELSEWHERE, ""),
        ({"table": changed(TABLE, "ours", 3, 12.0)}, ELSEWHERE, "table1_war_uar: differs"),
        ({"table": changed(TABLE, "paper", 3, 0.01)}, ELSEWHERE, "table1_war_uar: differs"),
        ({"table": changed(TABLE, "clips", 3, 1)}, ELSEWHERE, "table1_war_uar: differs"),
        ({"table": changed(TABLE, "model", 3, "another")}, ELSEWHERE, "table1_war_uar: differs"),
        ({"table": TABLE[:-1]}, ELSEWHERE, "table1_war_uar: differs"),
        ({"table": changed(TABLE, "p", 3, 0.3)}, ELSEWHERE, ""),
        ({"curves": CURVES.assign(value=CURVES["value"] * 1.05)}, ELSEWHERE, ""),
        ({"curves": changed(CURVES, "value", 3, 1.5)}, ELSEWHERE, "fig7_training: differs"),
        ({"curves": CURVES.assign(value=CURVES["value"].to_numpy()[::-1])}, ELSEWHERE, "fig7_training: differs"),
        ({"printed": changed(PRINTED, "printed", 1, 0.01)}, ELSEWHERE, "a1_gains: differs"),
    ],
)
def test_planted_numbers(reference, tmp_path, what, machine, expected):
    """``expected``: the one output that must be caught; "" = what another processor may give."""
    certificate = verify(folder_of(tmp_path, machine=machine, **what), reference)
    caught = {f"{verdict.name}: {verdict.verdict}" for verdict in certificate.verdicts if not verdict.passed}
    assert caught == ({expected} if expected else set()), certificate.to_markdown()
    assert certificate.passed == (not expected)


def test_what_another_processor_gives_is_equivalent_only_where_that_is_shown(reference, tmp_path):
    near = verify(folder_of(tmp_path / "near", table=noisy, machine=ELSEWHERE), reference)
    assert verdicts(near)["table1_war_uar"] == "equivalent"
    wide = {"low": TABLE["ours"] - 40, "high": TABLE["ours"] + 40}
    wide |= {"difference_low": TABLE["difference"] - 40, "difference_high": TABLE["difference"] + 40}
    unsure = verify(folder_of(tmp_path / "wide", table=noisy.assign(**wide), machine=ELSEWHERE), reference)
    assert verdicts(unsure)["table1_war_uar"] == "compatible"


@pytest.mark.parametrize("side", ["run", "reference"])
@pytest.mark.parametrize("kind", ["csv", "md"])
def test_a_file_that_was_altered_by_hand_is_caught_on_either_side(tmp_path, side, kind):
    folders = {name: folder_of(tmp_path / name) for name in ("run", "reference")}
    path = folders[side] / f"table1_war_uar.{kind}"
    before = path.read_text()
    path.write_text(before.replace(f"{WARS[0]:.3g}", "99.9", 1))
    assert path.read_text() != before
    certificate = verify(folders["run"], folders["reference"])
    assert verdicts(certificate)["table1_war_uar"] == "altered" and not certificate.passed


def test_missing_outputs_are_missed_only_where_their_notebook_was_run(reference, tmp_path):
    run = folder_of(tmp_path)
    for path in run.glob("fig7_training.*"):
        path.unlink()
    assert verdicts(verify(run, reference))["fig7_training"] == "missing"
    partly = verify(run, reference, made={"01_au_extraction"})
    assert partly.passed and set(verdicts(partly).values()) == {"not made again"}
    with pytest.raises(InputError, match="tables and figures: found none"):
        verify(run, tmp_path / "nothing")


def test_the_command_says_what_differs_and_exits_with_1(reference, tmp_path, capsys):
    run = folder_of(tmp_path, table=changed(TABLE, "ours", 3, 0.5))
    options = ["--profile", "laptop", "--work", str(tmp_path)]
    command = ["verify", "--figures", str(run.parent), "--reference", str(reference.parent), *options]
    assert cli.main(command) == 1
    said = capsys.readouterr().out
    assert f"table1_war_uar: differs: row 4, ours: {WARS[3] + 0.5:g} instead of {WARS[3]:g}" in said
    assert f"NOT confirmed: {tmp_path / 'laptop' / 'certificate.md'}" in said
    assert cli.main([*command[:2], str(reference.parent), *command[3:]]) == 0
    assert "3 identical\nconfirmed: " in capsys.readouterr().out


def test_the_last_commits_files_are_the_reference(tmp_path, monkeypatch, reference):
    (tmp_path / "figures").mkdir()
    folder_of(tmp_path / "figures")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "figures"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(verification, "checkout", lambda: tmp_path)
    folder_of(tmp_path / "figures", table=changed(TABLE, "ours", 3, 0.5))
    with committed("laptop") as folder:
        assert verdicts(verify(tmp_path / "figures" / "laptop", folder))["table1_war_uar"] == "differs"
    with pytest.raises(AudferError, match="figures/paper: no committed files.*--reference"), committed("paper"):
        pass


def test_codecheck_lists_every_output_with_what_a_checker_needs(reference):
    content = yaml.safe_load(codecheck(reference))
    assert content["version"] == "https://codecheck.org.uk/spec/config/2.0/"
    # what rules-2.0 of the CODECHECK register asks for with MUST
    assert content["paper"]["title"] and content["paper"]["reference"].startswith("https://doi.org/")
    assert all(author["name"] for author in content["paper"]["authors"])
    assert content["codechecker"][0]["name"] and content["summary"] and content["certificate"] and content["report"]
    files = [entry["file"] for entry in content["manifest"]]
    assert files == [f"figures/laptop/{name}.md" for name in ("a1_gains", "fig7_training", "table1_war_uar")]
    for entry in content["manifest"]:
        assert {"comment", "command", "time", "resources"} <= entry.keys() and entry["comment"].startswith(
            "A caption of "
        )


def test_the_committed_manifest_is_that_of_the_committed_figures():
    text = (ROOT / "codecheck.yml").read_text(encoding="utf-8")
    assert text == codecheck(ROOT / "figures" / "laptop"), "run: python -m audfer.companion.readme"
    assert text.startswith("---\n")
    for entry in yaml.safe_load(text)["manifest"]:
        assert (ROOT / entry["file"]).is_file() and (ROOT / entry["numbers"]).is_file()
