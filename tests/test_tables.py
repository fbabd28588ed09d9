"""Tables 1 to 3: our numbers are the records', the paper's are the transcription's, gaps are dashes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_records import COUNTS, fake_grid, fake_record

from audfer import evaluation, outputs, published, tables
from audfer.facs import EXPRESSIONS


@pytest.fixture(scope="module")
def records():
    return fake_grid()


@pytest.fixture(scope="module")
def first(records):
    return tables.table1(records)


def cell(tidy, **where):
    for column, value in where.items():
        tidy = tidy[tidy[column] == value]
    assert len(tidy) == 1
    return tidy.iloc[0]


def test_table_1_has_every_network_dataset_variant_and_metric(first):
    assert len(first.tidy) == 3 * 3 * 2 * 2
    assert list(first.display["Dataset"].unique()) == ["DFEW", "FERV39k", "MAFW"]
    assert list(first.display["Network"].unique()) == ["M3DFEL", "MAE-DFER", "Former-DFER"]


def test_table_1_shows_the_records_own_numbers(first, records):
    record = next(
        r
        for r in records
        if r.cell["model"] == "mae_dfer" and r.cell["dataset"] == "MAFW" and r.cell["au_ratio"] == 0
    )
    expected = evaluation.war(record.expressions, record.scores.argmax(1))
    found = cell(first.tidy, model="mae_dfer", dataset="MAFW", variant="without AU", metric="WAR")
    assert found["ours"] == pytest.approx(100 * expected)
    assert found["low"] < found["ours"] < found["high"]


# read off the paper's Table 1
@pytest.mark.parametrize(
    ("model", "dataset", "variant", "war", "uar"),
    [
        ("m3dfel", "DFEW", "without AU", 64.33, 52.67),
        ("m3dfel", "DFEW", "with AU", 65.53, 54.78),
        ("mae_dfer", "FERV39k", "with AU", 52.45, 42.48),
        ("former_dfer", "MAFW", "without AU", 28.89, 19.44),
    ],
)
def test_table_1_prints_the_papers_numbers_beside_ours(first, model, dataset, variant, war, uar):
    assert cell(first.tidy, model=model, dataset=dataset, variant=variant, metric="WAR")["paper"] == war
    assert cell(first.tidy, model=model, dataset=dataset, variant=variant, metric="UAR")["paper"] == uar
    name = tables.MODEL_NAMES[model]
    shown = cell(first.display, Dataset=dataset, Network=name, Variant=variant)
    assert (shown["WAR, paper (other input)"], shown["UAR, paper (other input)"]) == (f"{war:.2f}", f"{uar:.2f}")


def test_table_1_difference_belongs_to_the_row_with_au_and_is_holm_corrected(first):
    without, joined = (first.tidy[first.tidy["variant"] == v] for v in ("without AU", "with AU"))
    assert without["difference"].isna().all() and without["p"].isna().all()
    assert joined[["difference", "p", "p_holm"]].notna().all(axis=None)
    np.testing.assert_allclose(joined["p_holm"], evaluation.holm(joined["p"]))
    assert "18 comparisons" in first.caption


def test_captions_say_what_the_input_is_and_how_it_was_measured(records):
    for table in (tables.table1(records), tables.table2(records), tables.table3(records)):
        for words in (
            "embedded benchmark",
            "rendered faces",
            "test clips",
            "DFEW 290",
            "seed 0",
            "last of 12 epochs",
            "Wilson",
            "not comparable",
        ):
            assert words in table.caption
    best = tables.table1(records, protocol="best-on-test").caption
    assert "best of 12 epochs on the test clips themselves" in best
    real = tables.table1(records, embedded=False)
    assert "rendered" not in real.caption and "WAR, paper" in real.display.columns


def test_table_2_has_classes_costs_and_the_papers_rows(records):
    table = tables.table2(records, paper_flops={"m3dfel": {"gflops": 3.3, "gmacs": 1.66, "parameters": 33e6}})
    assert cell(table.tidy, model="m3dfel", variant="with AU", metric="disgust")["paper"] == 10.34
    assert cell(table.tidy, model="mae_dfer", variant="with AU", metric="paper-size GFLOPs")["paper"] == 26.11
    assert cell(table.tidy, model="m3dfel", variant="with AU", metric="GFLOPs")["ours"] == pytest.approx(0.0412)
    shown = table.display[(table.display["Network"] == "M3DFEL") & (table.display["Source"] == "ours")]
    assert set(shown["Cost, paper size"]) == {"1.66 / 3.30"}
    record = next(
        r for r in records if r.cell["model"] == "m3dfel" and r.cell["dataset"] == "DFEW" and r.cell["au_ratio"] == 0
    )
    expected = evaluation.per_class_accuracy(record.expressions, record.scores.argmax(1))
    ours = [cell(table.tidy, model="m3dfel", variant="without AU", metric=name)["ours"] for name in EXPRESSIONS]
    np.testing.assert_allclose(ours, 100 * expected)


def test_table_2_names_the_misprint_of_mae_dfers_fear(records):
    table = tables.table2(records)
    notes = " ".join(table.notes)
    assert "34.35 should be 34.25" in notes
    affected = table.display[(table.display["Network"] == "MAE-DFER") & (table.display["Fea."] == "34.35")]
    letter = next(note[1] for note in table.notes if "34.35" in note)
    assert letter in affected.iloc[0]["Notes"].split()


def test_tables_say_which_strategy_the_papers_au_row_is(first):
    # Table 3 of the paper: 65.53 is M3DFEL's global row, 75.01 and 65.16 are the others' distinct rows
    assert [tables.printed_strategy(m) for m in ("m3dfel", "mae_dfer", "former_dfer")] == [
        "global",
        "distinct",
        "distinct",
    ]
    assert any("MAE-DFER is its “distinct” row" in note for note in first.notes)


def test_table_3_has_four_rows_a_network_with_the_papers_below(records):
    table = tables.table3(records)
    assert len(table.display) == 3 * 4 * 2
    assert cell(table.tidy, model="m3dfel", variant="minor", metric="WAR")["paper"] == 64.16
    assert cell(table.tidy, model="mae_dfer", variant="global", metric="UAR")["paper"] == 60.74
    assert table.tidy["p"].notna().sum() == 3 * 3 * 2


def test_a_missing_cell_is_a_dash_not_a_crash(records):
    some = [r for r in records if (r.cell["model"], r.cell["dataset"]) != ("mae_dfer", "DFEW")]
    table = tables.table1(some)
    shown = cell(table.display, Dataset="DFEW", Network="MAE-DFER", Variant="with AU")
    assert shown["WAR [95 %]"] == shown["Δ WAR [95 %]"] == shown["p WAR"] == "—"
    assert shown["WAR, paper (other input)"] == "75.01"
    assert (tables.table3(some, models=["mae_dfer"]).display["Hap."].iloc[::2] == "—").all()
    assert "nan" not in table.to_markdown().lower()


def test_a_dataset_and_a_network_that_the_paper_lacks_get_dashes():
    other = [fake_record("keypoint_gcn", "DFEW", ratio) for ratio in (0.0, 0.25)]
    for record in other:
        record.cell["dataset"] = "AFEW"
    table = tables.table1(other)
    assert set(table.display["WAR, paper (other input)"]) == {"—"} and table.notes == ()


def test_no_records_at_all_give_an_empty_table():
    for make in (tables.table1, tables.table2, tables.table3):
        table = make([])
        assert table.tidy.empty and "No run records" in table.caption


def test_commonest_settings_win_and_an_ablation_does_not_slip_in(records):
    chosen = tables.au_records(records, "m3dfel", "DFEW")
    assert len(chosen) == 1
    assert {k: chosen[0].cell[k] for k in ("weights", "au_ratio", "strategy")} == {
        "weights": "knowledge",
        "au_ratio": 0.25,
        "strategy": "global",
    }
    assert tables.au_records(records, "m3dfel", "DFEW", au_ratio=0.5)[0].cell["au_ratio"] == 0.5
    assert tables.au_records(records, "m3dfel", "DFEW", strategy="nothing") == []


def test_several_seeds_are_one_row_with_their_spread():
    table = tables.table1(fake_grid(seeds=(0, 1, 2)))
    assert len(table.tidy) == 36 and set(table.tidy["seeds"]) == {3}
    assert (table.tidy["seed_sd"] > 0).all()
    assert set(table.tidy["clips"]) == {sum(counts) for counts in COUNTS.values()}
    assert "3 seeds (0, 1, 2) averaged clip by clip" in table.caption


def test_saved_table_is_the_tidy_numbers_and_saving_again_changes_no_byte(first, tmp_path):
    saved = outputs.save_table(first, "table1", tmp_path)
    assert [path.name for path in saved.paths] == ["table1.csv", "table1.md", "table1.json"]
    before = [path.read_bytes() for path in saved.paths]
    outputs.save_table(first, "table1", tmp_path)
    assert [path.read_bytes() for path in saved.paths] == before
    back = pd.read_csv(saved.paths[0])
    np.testing.assert_allclose(back["ours"], first.tidy["ours"], rtol=1e-5)
    text = saved.paths[1].read_text(encoding="utf-8")
    assert text.startswith("Table 1.") and "| DFEW | M3DFEL | without AU |" in text and "64.33" in text
    assert len(json.loads(saved.paths[2].read_text())["records"]) == 18
    assert "<table" in saved._repr_html_() and sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in saved.paths
    )


def test_a_bare_frame_is_saved_with_its_caption(tmp_path):
    saved = outputs.save_table(
        pd.DataFrame({"action unit": ["AU01", "AU02"], "F1": [0.51234, np.nan]}), "f1", tmp_path, "F1 of every AU."
    )
    text = saved.paths[1].read_text(encoding="utf-8")
    assert text.startswith("F1 of every AU.") and "| AU01 | 0.512 |" in text and "| AU02 | — |" in text


def test_bars_in_text_do_not_break_a_markdown_table():
    assert tables.markdown_table(pd.DataFrame({"a": ["x|y"]})).splitlines()[-1] == "| x\\|y |"


def test_published_misprints_are_shown_as_printed():
    assert tables.printed("mae_dfer", "audfer", "DFEW", "fear") == 34.35
    assert np.isnan(tables.printed("mae_dfer", "audfer", "DISFA", "WAR"))
    assert published.printed_metric("mae_dfer", "audfer", "DFEW", "fear", corrected=True) == 34.25
