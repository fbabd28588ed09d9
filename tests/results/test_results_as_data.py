"""Results as data: one long table, results read back from their files, sidecars in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from fake_records import fake_store
from paths import ROOT

from audfer.companion import cli
from audfer.errors import InputError
from audfer.evaluation import summary
from audfer.results import long
from audfer.results.builder import open_records
from audfer.results.provenance import read_sidecars, why
from audfer.study.study import Study
from audfer.training.records import RunRecord, RunStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return fake_store(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def figures(store, tmp_path_factory):
    """Some of the smoke profile's tables and figures, from records alone."""
    return saved(store, tmp_path_factory.mktemp("figures"))


def saved(store, folder):
    study = open_records(store.folder, folder)
    for name in ("table1", "table2", "fig7", "ablations", "keypoint_confusion"):
        made = study.results(name)
        for result in made if isinstance(made, tuple) else (made,):
            for part in filter(None, (result, result.picture)):
                part.save()
    long.write_results(study.figures, store)
    return study.figures


def test_the_long_table_has_every_number_of_a_record(store, figures):
    table = long.read_results(figures / "results.csv")
    entry = next(entry for entry in store.read_grid()["cells"] if entry["cell"]["au_ratio"])
    record = RunRecord.load(store.path(entry["key"]))
    for protocol in ("last", "best-on-test"):
        found = summary(record, protocol)
        rows = table[
            (table["record"] == entry["key"]) & (table["protocol"] == protocol) & (table["table"] == "table1")
        ].set_index("metric")
        for metric, expected in (("WAR", found.war), ("UAR", found.uar)):
            row = rows.loc[metric]
            assert [row["value"], row["low"], row["high"]] == pytest.approx(
                [100 * expected.value, 100 * expected.low, 100 * expected.high], abs=1e-3
            )
            assert row["n"] == len(record.clip_ids) and row["seed"] == record.cell["seed"] and row["fold"] == 1
        assert ("happy" in rows.index) == (protocol == "last")
    assert set(rows["status"]) == {"trained to the end"} and set(rows["profile"]) == {"smoke"}
    assert rows["variant"].iloc[0] == "with AU, lambda 0.25, global"


def test_the_long_table_has_what_the_tables_show_and_is_the_same_as_parquet(figures):
    table = long.read_results(figures / "results.csv")
    shown = pd.read_csv(figures / "table2_per_class.csv").dropna(subset="ours")
    long_form = table[
        (table["table"] == "table2") & (table["record"] == "") & ~table["metric"].str.endswith("difference")
    ]
    assert long_form["value"].tolist() == shown["ours"].tolist() and long_form["n"].tolist() == shown["clips"].tolist()
    differences = table[(table["table"] == "table2") & (table["metric"] == "WAR difference")]
    expected = shown[(shown["metric"] == "WAR") & shown["difference"].notna()]
    assert differences["low"].tolist() == expected["difference_low"].tolist()
    pd.testing.assert_frame_equal(table, pd.read_parquet(figures / "results.parquet"))
    assert not table.duplicated().any()


def test_cells_without_a_record_are_rows_that_say_why(store, tmp_path):
    shutil.copytree(store.folder, tmp_path / "runs")
    copy = RunStore(tmp_path / "runs")
    entry = copy.read_grid()["cells"][0]
    shutil.rmtree(copy.path(entry["key"]))
    copy.note_failure(entry["key"], "AudferError: the loss became nan")
    (tmp_path / "figures").mkdir()
    table = long.read_results(long.write_results(tmp_path / "figures", copy))
    row = table[table["record"] == entry["key"]].iloc[0]
    assert row["status"] == "failed: AudferError: the loss became nan" and pd.isna(row["value"])


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            {"model": ["a"], "metric": ["WAR"], "ours": [1.0], "low": [0.0], "high": [2.0], "clips": [9]},
            [("WAR", 1, 9)],
        ),
        ({"part": ["head"], "metric": ["GMACs"], "value": [3.0], "paper": [4.0]}, [("GMACs", 3, None)]),
        ({"action_unit": ["AU01"], "f1": [0.5], "f1_low": [0.4], "f1_high": [0.6], "n": [7]}, [("f1", 0.5, 7)]),
        ({"au": ["AU01"], "share": [0.5], "low": [0.4], "high": [0.6], "p": [0.1]}, [("share", 0.5, None)]),
        ({"x": [1.0], "y": [2.0], "clip_id": ["a"]}, []),
        ({"metric": ["WAR"], "ours": [float("nan")], "low": [float("nan")], "high": [float("nan")]}, []),
    ],
)
def test_numbers_with_an_interval_or_a_named_metric_are_rows(frame, expected):
    rows = list(long.long_rows(pd.DataFrame(frame)))
    assert [(row["metric"], row["value"], row["n"]) for row in rows] == expected


def test_a_table_that_is_no_long_table_is_refused(tmp_path):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns: found a, b, expected profile, table"):
        long.read_results(tmp_path / "results.csv")
    with pytest.raises(InputError, match="none.csv: long table"):
        long.read_results(tmp_path / "none.csv")


# ------------------------------------------------------------------------------------------------------ read back


@pytest.fixture(scope="module")
def untouched(store, figures, tmp_path_factory):
    """A study of the same numbers that nobody has worked on, beside the figures of one that was."""
    return Study(open_records(store.folder).profile, tmp_path_factory.mktemp("nothing") / "work", figures.parent)


def test_results_are_read_from_the_files_where_nothing_was_worked_on(store, figures, untouched):
    for name in ("table1", "table2", "fig7", "ablations"):
        expected, result = open_records(store.folder).results(name), untouched.results(name)
        assert result.kept and (result.name, result.caption) == (expected.name, expected.caption)
        pd.testing.assert_frame_equal(
            result.frame.dropna(axis=1, how="all"),
            expected.frame.dropna(axis=1, how="all").replace({None: ""}),
            check_dtype=False,
            rtol=1e-5,
        )
        if expected.draw is None:
            assert result.shown.values.tolist() == expected.shown.values.tolist() and result.notes == expected.notes
            assert (result.picture and result.picture.name) == (expected.picture and expected.picture.name)
        else:
            assert result.plot().axes[0].images
        before = (figures / f"{result.name}.csv").stat().st_mtime_ns
        assert "<" in result.save()._repr_html_() and (figures / f"{result.name}.csv").stat().st_mtime_ns == before
    assert isinstance(untouched.results("keypoint_confusion"), tuple) and not untouched.work.exists()


def test_other_numbers_or_a_work_folder_are_no_reason_to_read_files(untouched, monkeypatch):
    asked = []
    monkeypatch.setattr(Study, "records", lambda self, *names: asked.append(names) or [])
    other = replace(untouched.profile, training=replace(untouched.profile.training, epochs=9))
    results = Study(other, untouched.work.parent, untouched.figures.parent)
    assert not results.results("fig7").kept and asked == [("fig7",)]
    assert untouched.results("fig7").kept and asked == [("fig7",)]


def test_a_fresh_session_reads_a_table_without_the_modules_of_other_tables(untouched):
    """Under five seconds on a quiet machine: beside torch and pandas nothing much may be imported."""
    code = (
        "import json, sys; from pathlib import Path\n"
        "from audfer.study.profiles import profile_from; from audfer.study.study import Study\n"
        "study = Study(profile_from(json.loads(sys.argv[1]), Path('p')), Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "frame = study.results('table2').frame; assert len(frame) and not study.work.exists()\n"
        "print(*(name for name in ('audfer.results.table2', 'seaborn', 'sklearn.manifold', 'papermill', 'kornia')"
        " if name in sys.modules))"
    )
    given = [json.dumps(untouched.profile.to_dict()), str(untouched.work.parent), str(untouched.figures.parent)]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# ------------------------------------------------------------------------------------------------------- sidecars


def test_a_sidecar_names_records_in_words_code_digests_hardware_and_seconds(store, figures):
    about = json.loads((figures / "table1_war_uar.json").read_text())
    (key, record), *others = about["records"].items()
    assert len(others) == 23 and (store.folder / key).is_dir()
    assert record["configuration"].startswith("M3DFEL on DFEW, fold 1, seed 0, without an AU head: tiny size, 2 epochs")
    assert record["status"] == "trained to the end" and record["seconds"] == 1.0
    assert about["outputs"].keys() == {"table1_war_uar.csv", "table1_war_uar.md"}
    assert about["made"]["command"] == "audfer reproduce --profile smoke -n 03_training"
    assert about["made"]["protocol"] == "last" and about["components"]["training"] >= 1
    assert about["seconds"]["training"] == 24.0 and about["hardware"] and about["code"]["audfer"]
    picture = json.loads((figures / "table1_plot.json").read_text())
    assert picture["made"]["picture_of"] == "table1_war_uar"


def test_a_second_run_that_gives_the_same_files_leaves_the_sidecars_as_they_are(store, figures, monkeypatch):
    before = {path.name: path.read_bytes() for path in figures.glob("*.json")}
    monkeypatch.setattr("audfer.results.provenance.code_commit", lambda: "another")
    saved(store, figures.parent)
    assert {path.name: path.read_bytes() for path in figures.glob("*.json")} == before


def test_why_tells_what_made_a_table(figures, capsys):
    text = why(figures, "table1")
    assert "M3DFEL on DFEW" in text and "24 run records:" in text and "table1_plot" in text
    assert max(map(len, text.splitlines())) <= 79
    command = ["report", "--why", "fig7_training", "--profile", "smoke", "--figures", str(figures.parent)]
    assert cli.main(command) == 0
    assert "audfer reproduce --profile smoke -n 05_visualisations" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match="table or figure: found 'table9', expected one of ablation"):
        why(figures, "table9")


def test_sidecars_of_an_output_are_found_by_its_name_and_by_their_own(figures):
    assert list(read_sidecars(figures, "table1")) == ["table1_plot", "table1_war_uar"]
    assert list(read_sidecars(figures, "table1_plot")) == ["table1_plot"]
