"""The runner of notebooks, on tiny notebooks made here: what it refuses, what it reports, how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import nbformat
import pytest
from paths import ROOT

from audfer.companion import cli
from audfer.companion import reproduce as runner
from audfer.companion.notebooks import check_parameters, clean_notebook, declared_parameters, question_of
from audfer.companion.reproduce import AFTER, NOTEBOOKS, NotebookFailed, _find, _Lines, reproduce
from audfer.errors import AudferError, InputError
from audfer.files import locked
from audfer.progress import LineProgress, clock, mode, progress


def notebook(path: Path, *cells: tuple, parameters: str = 'profile = "laptop"\nrounds = 3') -> Path:
    """Write a notebook; a cell is ("md", text) or ("code", text)."""
    content = nbformat.v4.new_notebook()
    content.cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}")]
    if parameters:
        content.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    makers = {"md": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    content.cells += [makers[kind](text) for kind, text in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, path)
    return path


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What the person running the tests has set must not change them."""
    for name in ("AUDFER_PROGRESS", "AUDFER_PROFILE", "AUDFER_WORK", "AUDFER_FIGURES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def places(tmp_path):
    return {"source": tmp_path / "notebooks", **{name: tmp_path / name for name in ("work", "figures")}, "free_gb": 0}


@pytest.fixture
def no_kernel(monkeypatch):
    """Fails the test if any process is started."""
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process was started"))


# ------------------------------------------------------------------------------------------------ refused before
def test_a_misspelt_parameter_is_refused_before_a_kernel_starts_and_the_nearest_name_is_given(places, no_kernel):
    notebook(places["source"] / "a.ipynb", ("code", "1"))
    with pytest.raises(InputError, match="did you mean rounds") as error:
        reproduce("smoke", ("a",), {"round": 4}, **places)
    assert "a: parameter: found 'round', expected one of profile, rounds" in str(error.value)
    assert not places["work"].exists()


@pytest.mark.parametrize(
    "default, wrong, right",
    [
        ("3", "4", 4),
        ("3", True, 4),
        ("0.5", "x", 1),
        ("0.5", True, 0.25),
        ("True", 1, False),
        ('"a"', 3, "b"),
        ("[1, 2]", 3, [4]),
        ("None", None, "anything"),
    ],
)
def test_a_parameter_must_have_its_defaults_type(tmp_path, default, wrong, right):
    path = notebook(tmp_path / "a.ipynb", parameters=f"value = {default}")
    assert check_parameters([path], {"value": right}) == {"a": {"value": right}}
    if wrong is not None:
        with pytest.raises(InputError, match="parameter value"):
            check_parameters([path], {"value": wrong})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "many"}, "training.epochs: found 'many', expected a value of type int"),
        ({"au_ratio": 1}, "grid.au_ratio: found 1.0, expected lambda of Eq. 10"),
        ({"dataset": "AFEW"}, "data.train_clips.AFEW: found nothing"),
        ({"au_ratios": {0.5}}, "grid.au_ratios: found '{0.5}', expected a value of type"),
    ],
)
def test_what_readers_change_is_refused_as_set_refuses_it_before_a_kernel_starts(places, no_kernel, given, message):
    names = "\n".join(f"{name} = None" for name in given)
    notebook(places["source"] / "a.ipynb", parameters=f'profile = ""\n{names}')
    with pytest.raises(InputError, match=re.escape(message)):
        reproduce("smoke", ("a",), given, **places)
    assert not places["work"].exists()


def test_each_notebook_gets_only_the_parameters_that_it_declares(tmp_path):
    paths = [notebook(tmp_path / "a.ipynb", parameters="x = 1"), notebook(tmp_path / "b.ipynb", parameters="y = 1")]
    assert check_parameters(paths, {"y": 5}) == {"a": {}, "b": {"y": 5}}


def test_folders_given_as_parameters_are_meant_from_the_current_folder_and_must_exist(tmp_path, monkeypatch):
    path = notebook(tmp_path / "notebooks/a.ipynb", parameters='csv_folder = ""')
    (tmp_path / "csvs").mkdir()
    monkeypatch.chdir(tmp_path)
    expected = str((tmp_path / "csvs").resolve())
    assert check_parameters([path], {"csv_folder": "csvs"}) == {"a": {"csv_folder": expected}}
    with pytest.raises(InputError, match="parameter csv_folder: found 'nowhere', expected a path that exists"):
        check_parameters([path], {"csv_folder": "nowhere"})


@pytest.mark.parametrize("line", ["lr = 0.1 * 10", "import os", "a, b = 1, 2", "x: int = 3", "print(1)", "d.e = 1"])
def test_a_parameters_cell_with_anything_but_literals_is_refused(tmp_path, line):
    path = notebook(tmp_path / "a.ipynb", parameters=f"rounds = 3\n{line}")
    with pytest.raises(InputError, match=r"cell 2 \(parameters\), line 2"):
        declared_parameters(path)


def test_a_notebook_without_parameters_cell_or_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no cell tagged 'parameters'"):
        declared_parameters(notebook(tmp_path / "a.ipynb", parameters=""))
    (tmp_path / "b.ipynb").write_text("not json")
    with pytest.raises(InputError, match="a Jupyter notebook"):
        declared_parameters(tmp_path / "b.ipynb")


def test_unknown_profile_and_unknown_notebook_are_refused(places, no_kernel):
    notebook(places["source"] / "a.ipynb")
    with pytest.raises(InputError, match="did you mean smoke"):
        reproduce("smok", ("a",), **places)
    with pytest.raises(InputError, match="found 'b', expected one of a"):
        reproduce("smoke", ("b",), **places)


@pytest.mark.parametrize("name", ["profile", "work", "figures"])
def test_parameters_that_have_an_option_of_their_own_point_to_it(places, no_kernel, name):
    notebook(places["source"] / "a.ipynb", parameters=f'{name} = "x"')
    with pytest.raises(InputError, match=f"expected the option --{name} for it"):
        reproduce("smoke", ("a",), {name: "y"}, **places)


def test_too_little_disk_space_is_refused_with_a_sentence(places, no_kernel):
    notebook(places["source"] / "a.ipynb")
    with pytest.raises(AudferError, match=r"GB of disk are free, 1e\+09 GB are needed"):
        reproduce("smoke", ("a",), **{**places, "free_gb": 1e9})
    assert not places["work"].exists()


def test_a_work_folder_in_use_is_refused(places, no_kernel):
    notebook(places["source"] / "a.ipynb")
    said = "another process is using this work folder"
    with locked(places["work"] / "smoke"), pytest.raises(AudferError, match=said):
        reproduce("smoke", ("a",), **places)


# ------------------------------------------------------------------------------------------------ a run
def test_a_run_passes_parameters_streams_progress_and_ends_with_a_report(places, capfd, monkeypatch):
    notebook(
        places["source"] / "a.ipynb",
        ("md", "## How *many* clips?"),
        (
            "code",
            """
import os, sys
from pathlib import Path
from audfer.progress import progress
for _ in progress(range(3), desc="clips", unit="clip"): pass
folder = Path(os.environ["AUDFER_FIGURES"]) / profile
folder.mkdir(parents=True, exist_ok=True)
(folder / "table1_counts.md").write_text("Counts of clips.\\n\\n| a |\\n| --- |\\n| 41 |\\n")
(folder / "table1_counts.csv").write_text("a\\n41\\n")
(folder / "fig4_map.png").write_bytes(bytes.fromhex("89504e470d0a1a0a"))
(folder / "fig4_map.json").write_text('{"caption": "Where things are. More."}')
print(profile, rounds, sys.executable == os.environ["EXPECTED_PYTHON"])""",
        ),
    )
    notebook(places["source"] / "b.ipynb", ("code", "6 * 7"), parameters='profile = "laptop"')
    monkeypatch.setenv("EXPECTED_PYTHON", sys.executable)
    report = reproduce("smoke", ("a", "b"), {"rounds": 7}, **places)
    printed, progress_lines = capfd.readouterr()
    assert "a   4/4  How many clips?" in progress_lines
    assert "a        clips: 3/3 clip, 0 s" in progress_lines
    assert "a        smoke 7 True" in progress_lines  # the kernel is this interpreter
    lines = (printed + progress_lines).splitlines()
    # paths are as long as they are
    assert max(len(line) for line in lines if str(places["work"].parent) not in line) <= 80
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert rows["a"][-4:-2] == ["1", "1"] and rows["b"][-4:-2] == ["0", "0"]

    done = nbformat.read(places["work"] / "smoke/notebooks/b.ipynb", as_version=4)
    assert done.cells[-1].outputs[0].data["text/plain"] == "42"
    page, shown = report.read_text(), (places["work"] / "smoke/report/a.html").read_text()
    assert report == (places["work"] / "smoke/report.html").resolve()
    assert 'href="report/a.html#r-table1-counts"' in page and 'href="report/b.html"' in page
    assert "<td>Counts of clips</td>" in page and "<td>Where things are</td>" in page
    assert "../../figures/smoke/table1_counts.csv" in page and "smoke 7 True" in shown
    summary = json.loads((places["work"] / "smoke/reproduce.json").read_text())
    assert [run["name"] for run in summary["notebooks"]] == ["a", "b"]


def _in_turn(places, name: str, waits_for: str = "", seconds: float = 30) -> tuple[str, str]:
    """A cell that leaves a file with its name when it begins, and fails if that of another notebook does not come."""
    folder = str(places["work"].parent)
    return (
        "code",
        f"""
import time
from pathlib import Path
folder = Path({folder!r})
(folder / "{name}").write_text(str([path.name for path in folder.iterdir() if path.is_file()]))
deadline = time.monotonic() + {seconds}
while {bool(waits_for)} and not (folder / "{waits_for}").is_file():
    assert time.monotonic() < deadline, "nobody came"
    time.sleep(0.05)
(folder / "{name} is through").touch()""",
    )


def test_notebooks_run_beside_each_other_and_after_what_they_need(places):
    saves = (
        "code",
        """
import os
for kind in (".md", ".csv"):
    Path(os.environ["AUDFER_FIGURES"], "smoke").mkdir(parents=True, exist_ok=True)
    Path(os.environ["AUDFER_FIGURES"], "smoke", "table3").with_suffix(kind).write_text("| a |")""",
    )
    notebook(places["source"] / "03_training.ipynb", _in_turn(places, "03", "A1"))
    notebook(places["source"] / "04_strategies.ipynb", _in_turn(places, "04"), saves)
    notebook(places["source"] / "appendices/A1_published_audit.ipynb", _in_turn(places, "A1"))
    notebook(places["source"] / "appendices/A2_keypoint_gcn.ipynb", _in_turn(places, "A2", "04"))
    names = ("03_training", "04_strategies", "A1_published_audit", "appendices/A2_keypoint_gcn.ipynb")
    reproduce("smoke", names, **places)
    for name in ("04", "A2"):
        assert "03 is through" in (places["work"].parent / name).read_text()
    runs = json.loads((places["work"] / "smoke/reproduce.json").read_text())["notebooks"]
    assert [(run["name"], run["tables"]) for run in runs] == [
        (Path(name).stem, ["table3"] if "04" in name else []) for name in names
    ]


def test_somebodys_own_tables_are_read_by_both_notebooks_at_once(places):
    for name, other in (("01_au_extraction", "02"), ("02_knowledge_matrix", "01")):
        path = places["source"] / f"{name}.ipynb"
        notebook(path, _in_turn(places, name[:2], other), parameters='openface_folder = ""')
    reproduce(
        "smoke", ("01_au_extraction", "02_knowledge_matrix"), {"openface_folder": str(places["source"])}, **places
    )
    assert (places["work"].parent / "02 is through").exists()


def test_the_order_of_the_real_notebooks():
    assert list(_find(["appendices", "03_training", "A2_keypoint_gcn"], ROOT / "notebooks")) == [
        "A1_published_audit",
        "A2_keypoint_gcn",
        "A3_lock_and_check",
        "03_training",
    ]
    assert list(_find(NOTEBOOKS, ROOT / "notebooks")) == list(NOTEBOOKS) and len(NOTEBOOKS) == 8
    for name, before in AFTER.items():
        assert {other for one in before for other in AFTER[one]} <= set(before), "those before it name theirs, too"
        assert all(NOTEBOOKS.index(one) < NOTEBOOKS.index(name) for one in before)


def test_a_notebook_that_fails_stops_the_one_beside_it(places):
    notebook(places["source"] / "A1_published_audit.ipynb", ("code", "raise ValueError('no such number')"))
    notebook(places["source"] / "02_knowledge_matrix.ipynb", _in_turn(places, "02", "nobody", 60))
    notebook(places["source"] / "03_training.ipynb", _in_turn(places, "03"))
    begun = time.monotonic()
    with pytest.raises(NotebookFailed, match="A1_published_audit.ipynb, cell 3.*no such number"):
        reproduce("smoke", ("02_knowledge_matrix", "03_training", "A1_published_audit"), **places)
    assert time.monotonic() - begun < 40
    assert not (places["work"].parent / "02 is through").exists() and not (places["work"].parent / "03").exists()


def test_a_failing_notebook_is_named_with_its_cell_and_error_and_later_ones_do_not_run(places):
    notebook(
        places["source"] / "a.ipynb",
        ("md", "## Which clips?\nmore"),
        ("code", "fine = 1"),
        ("md", "How much is *nothing*?"),
        ("code", "1 / 0"),
    )
    notebook(places["source"] / "b.ipynb", ("code", "open('ran', 'w')"))
    with pytest.raises(NotebookFailed) as error:
        reproduce("smoke", ("a", "b"), **places)
    first = str(error.value).splitlines()[0]
    assert first == "a.ipynb, cell 6 of 6 (How much is nothing?): ZeroDivisionError: division by zero"
    assert error.value.exit_code == 1
    assert not (places["source"] / "ran").exists() and not (places["work"] / "smoke/report.html").exists()
    assert (places["work"] / "smoke/notebooks/a.ipynb").is_file()


def test_wrong_input_found_inside_a_notebook_ends_with_code_2(places):
    notebook(
        places["source"] / "a.ipynb",
        ("code", "from audfer.errors import InputError\nraise InputError('x.csv', 'row 3', '9', '1 to 7')"),
    )
    with pytest.raises(NotebookFailed, match="InputError: x.csv: row 3: found 9, expected 1 to 7") as error:
        reproduce("smoke", ("a",), **places)
    assert error.value.exit_code == 2


def test_a_dead_kernel_is_reported_with_its_memory(places):
    notebook(places["source"] / "a.ipynb", ("md", "Does it live?"), ("code", "import os; os._exit(9)"))
    with pytest.raises(NotebookFailed, match=r"cell 4 of 4 \(Does it live\?\): DeadKernelError.*peak memory"):
        reproduce("smoke", ("a",), **places)


def test_a_notebook_over_its_limit_is_ended(places):
    notebook(places["source"] / "a.ipynb", ("code", "import time; time.sleep(600)"))
    start = time.monotonic()
    with pytest.raises(NotebookFailed, match="the limit of 0.05 minutes"):
        reproduce("smoke", ("a",), minutes=0.05, **places)
    assert time.monotonic() - start < 25


def test_ctrl_c_ends_the_notebook_and_its_workers_and_exits_with_130(places, monkeypatch, capfd):
    marker = places["source"] / "pids"
    notebook(
        places["source"] / "a.ipynb",
        (
            "code",
            f"""
import os, subprocess, time
worker = subprocess.Popen(["sleep", "600"], start_new_session=True)
open({str(marker)!r}, "w").write(f"{{os.getpid()}} {{worker.pid}} ")
time.sleep(600)""",
        ),
    )

    def press():
        deadline = time.monotonic() + 40
        while not (marker.is_file() and marker.read_text().endswith(" ")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runner, "reproduce", partial(reproduce, source=places["source"], free_gb=0))
    threading.Thread(target=press).start()
    folders = ["--work", str(places["work"]), "--figures", str(places["figures"])]
    assert cli.main(["reproduce", "--profile", "smoke", "-n", "a", *folders]) == 130
    errors = capfd.readouterr().err
    assert "run the same command again to resume" in errors and "Traceback" not in errors
    for pid in map(int, marker.read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# ------------------------------------------------------------------------------------------------ pieces
_RUNS = """
import sys
from audfer.companion.reproduce import reproduce
reproduce("smoke", ("a",), source=sys.argv[1], work=sys.argv[2], figures=sys.argv[3], free_gb=0)
"""

_WORKING = """
import os, subprocess, sys, time
from audfer.jobs.processes import PythonChild
worker = PythonChild().call(os.getpid, seconds=60)
with open(os.environ["AUDFER_WORK"] + "/pids", "w") as file:
    file.write(f"{os.getpid()} {worker}\\n")
time.sleep(120)
"""


def test_nothing_outlives_a_run_that_is_killed(places):
    """The kernel and its workers end with it, and the folder is free again once they have."""
    notebook(places["source"] / "a.ipynb", ("code", _WORKING))
    folders = [str(places[name]) for name in ("source", "work", "figures")]
    run = subprocess.Popen([sys.executable, "-c", _RUNS, *folders], env={**os.environ, "PYTHONPATH": str(ROOT)})
    told, until = places["work"] / "pids", time.monotonic() + 90
    while not (told.is_file() and told.read_text().endswith("\n")):
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    run.kill()
    run.wait()
    pids, until = told.read_text().split(), time.monotonic() + 5
    while any(Path("/proc", pid).exists() for pid in pids):
        assert time.monotonic() < until, "an orphan"
        time.sleep(0.02)
    with locked(places["work"] / "smoke"):
        pass


def test_an_executed_notebook_is_whole_when_the_disk_is_full(places, monkeypatch):
    """papermill writes the whole notebook again after every cell."""
    notebook(places["source"] / "a.ipynb", ("code", "print(1)"), ("code", "print(2)"), ("code", "print(3)"))
    written = []

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    put, output = Path.open, places["work"] / "smoke" / "notebooks" / "a.ipynb"

    def opened(path, *arguments, **options):
        if path.name.startswith(".a.ipynb.") and (written.append(path) or len(written) > 3):
            return Full()
        return put(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(NotebookFailed, match="the disk is full"):
        reproduce("smoke", ("a",), **places)
    assert len(nbformat.read(output, as_version=4).cells) == 6 and len(list(output.parent.glob("*a.ipynb*"))) == 1


def test_a_cleaned_notebook_keeps_results_and_loses_what_changes_from_run_to_run(places):
    code = "import sys; print('no' + 'ise', file=sys.stderr); print('kept')"
    path = notebook(places["source"] / "a.ipynb", ("code", code))
    identifiers = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    reproduce("smoke", ("a",), update_notebooks=True, **places)
    first = path.read_text()
    cleaned = nbformat.reads(first, as_version=4)
    assert [cell.id for cell in cleaned.cells] == identifiers
    assert "kept" in first
    for noise in ("noise", "papermill", "injected", "start_time", "iopub", str(places["source"])):
        assert noise not in first
    reproduce("smoke", ("a",), update_notebooks=True, **places)
    assert path.read_text() == first


def test_clean_notebook_renumbers_cells_from_one():
    output = nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=7)
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", execution_count=7, outputs=[output])])
    cell = clean_notebook(content).cells[0]
    assert cell.execution_count == 1 and cell.outputs[0].execution_count == 1


def test_the_question_of_a_cell_is_the_markdown_above_it_or_its_own_first_line():
    cells = [
        nbformat.v4.new_markdown_cell("**Which `AU`?** The one that moves.\ntext"),
        nbformat.v4.new_code_cell("# why\nfirst()\nsecond()"),
        nbformat.v4.new_code_cell("third()"),
    ]
    assert question_of(cells, 1) == "Which AU?"
    assert question_of(cells, 2) == "third()"


def test_a_bar_that_redraws_itself_becomes_one_line_in_ten_seconds_and_its_last(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = _Lines(lines.append)
    for seconds, text in (
        (0, "plain\nhal"),
        (1, "f\n"),
        (2, "\r  0%"),
        (9, "\r 20%"),
        (13, "\r 60%"),
        (14, "\r 80%"),
        (24, "\r\x1b[32m100%\x1b[0m"),
        (24, "\n"),
        (25, "\r  0%"),
        (26, "\r100%\n"),
        (27, "tail"),
    ):
        now[0] = seconds
        stream.write(text)
    stream.finish()
    assert lines == ["plain", "half", " 60%", "100%", "100%", "tail"]


def test_line_progress_prints_every_interval_and_at_the_end(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bar = LineProgress(total=4, desc="cells", unit="cell", interval=10)
    for _ in range(4):
        now[0] += 6
        bar.set_postfix_str("war 0.5")
        bar.update()
    bar.close()
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "cells: 2/4 cell, 12 s, about 12 s left, war 0.5",
        "cells: 4/4 cell, 24 s, war 0.5",
    ]


def test_progress_obeys_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("AUDFER_PROGRESS", "off")
    assert list(progress(range(3), desc="x")) == [0, 1, 2] and capsys.readouterr().err == ""
    monkeypatch.setenv("AUDFER_PROGRESS", "lines")
    assert list(progress(iter("ab"), desc="x")) == ["a", "b"] and capsys.readouterr().err == "x: 2 it, 0 s\n"
    monkeypatch.setenv("AUDFER_PROGRESS", "bar")
    assert mode() == "bar" and list(progress(range(2))) == [0, 1] and "2/2" in capsys.readouterr().err
    monkeypatch.delenv("AUDFER_PROGRESS")
    assert mode() == "lines"  # captured output is no terminal


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")]
)
def test_durations_are_written_as_people_read_them(seconds, text):
    assert clock(seconds) == text
