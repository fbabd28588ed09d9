"""Eight things that a reader wants, each by the words of README.md alone: the lines are taken from there and carried
out where that takes seconds; what trains is looked at up to the cells that would be trained. One's own network, one
video, Table 2 as a DataFrame and a comparison of runs are carried out in test_readme, test_predict,
test_results_as_data and test_compare.
"""

import re
import shlex
import time

import numpy as np
import pytest
import yaml
from paths import ROOT

from audfer.companion import cli
from audfer.facs import EXPRESSIONS
from audfer.knowledge import KnowledgeMatrix
from audfer.openface import INTENSITY_COLUMNS, PRESENCE_COLUMNS
from audfer.study.profiles import with_changes
from audfer.study.study import open_study

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = TEXT[TEXT.index("## Quick starts") : TEXT.index("## The input")]


def line(start: str) -> list[str]:
    """The arguments of the README's one command that begins so, without its remark."""
    found = set(re.findall(rf"^(?:.*`)?({re.escape(start)}[^`\n]*)", QUICK, re.MULTILINE))
    assert len(found) == 1, (start, found)
    return shlex.split(found.pop(), comments=True)[1:]


@pytest.mark.parametrize(
    "start",
    [
        "make reproduce",
        "audfer knowledge build",
        "audfer predict",
        "audfer report --why table1",
        "audfer reproduce -n 05_visualisations",
        "audfer train --model",
        "audfer reproduce --set training.epochs",
        "audfer compare",
    ],
)
def test_every_task_has_one_line_among_the_quick_starts(start):
    assert line(start)


def test_a_matrix_from_a_folder_of_csvs(tmp_path, monkeypatch, capsys):
    folder, generator = tmp_path / "csvs", np.random.default_rng(0)
    folder.mkdir()
    labels = ["file,expression"]
    for k, expression in enumerate(EXPRESSIONS):
        header = ["frame", " confidence", " success", *(f" {name}" for name in (*INTENSITY_COLUMNS, *PRESENCE_COLUMNS))]
        rows = [
            [n, 0.98, 1, *generator.uniform(0.1, 2 + k / 3, 17).round(2), *generator.integers(0, 2, 18)]
            for n in range(1, 31)
        ]
        (folder / f"{k}.csv").write_text("\n".join(", ".join(map(str, row)) for row in [header, *rows]))
        labels.append(f"{k}.csv,{expression}")
    (folder / "labels.csv").write_text("\n".join([*labels, ""]))
    monkeypatch.chdir(tmp_path)
    begun = time.process_time()
    arguments = [str(folder) if part == "/path/to/csvs" else part for part in line("audfer knowledge build")]
    assert not cli.main(arguments) and time.process_time() - begun < 60
    assert KnowledgeMatrix.load(tmp_path / "matrix.json").values.shape == (7, 18)
    assert "happy" in capsys.readouterr().out


def test_how_a_row_of_table_1_was_trained(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for name in ("AUDFER_PROFILE", "AUDFER_FIGURES", "AUDFER_WORK"):
        monkeypatch.delenv(name, raising=False)
    begun = time.process_time()
    assert not cli.main(line("audfer report --why table1")) and time.process_time() - begun < 60
    said = " ".join(capsys.readouterr().out.split())
    for wanted in ("Former-DFER on DFEW, fold 1, seed 0", "recipe former_dfer-", "of training", "code audfer"):
        assert wanted in said, wanted


def test_fig_5_with_other_lambdas_trains_those_and_no_others(tmp_path):
    arguments = line("audfer reproduce -n 05_visualisations")
    profile = with_changes("laptop", [arguments[arguments.index("--set") + 1]])
    cells = open_study(profile, work=tmp_path, figures=tmp_path).cells("fig5")
    assert {cell.au_ratio for cell in cells} == {0, 0.1, 0.9}
    assert len({cell.dataset for cell in cells}) == 3 and len({cell.model for cell in cells}) == 1


def test_one_changed_hyper_parameter_changes_that_alone(tmp_path):
    arguments = line("audfer reproduce --set training.epochs")
    changed, plain = (
        open_study(profile, work=tmp_path, figures=tmp_path).cells("table1")
        for profile in (with_changes("laptop", [arguments[arguments.index("--set") + 1]]), "laptop")
    )
    assert {cell.epochs for cell in changed} == {20} and len(changed) == len(plain)
    different = {
        name for a, b in zip(changed, plain, strict=True) for name in vars(a) if getattr(a, name) != getattr(b, name)
    }
    assert different == {"epochs", "evaluate_every"}  # the last epoch alone is looked at, whichever it is


def test_what_is_compared_is_what_was_trained_with_one_thing_changed():
    train, compare = line("audfer train --model"), line("audfer compare")
    assert compare[1:] == ["laptop", with_changes("laptop", [train[train.index("--set") + 1]])]


def test_how_to_cite():
    entry = re.search(r"```bibtex\n(.*?)\n```", TEXT, re.DOTALL)[1]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = cited.get("preferred-citation") or cited["references"][0]
    assert entry.startswith("@inproceedings{") and paper["title"] in entry and "arXiv:2507.07678" in entry
    assert all(author["family-names"] in entry for author in paper["authors"])
