"""Tables 1 to 3: our numbers are the records', the paper's are the transcription's, gaps are dashes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fake_records import COUNTS, FakeStudy, fake_ablations, fake_grid, fake_record, made

from audfer import evaluation, published
from audfer.errors import InputError
from audfer.facs import EXPRESSIONS
from audfer.models import NETWORKS
from audfer.results import ablations as ablation_tables
from audfer.results import conclusions, cost, selection
from audfer.results.builder import DASH, Result, markdown_table
from audfer.results.printed import printed, printed_strategy
from audfer.results.table2 import class_table
from audfer.study.ablations import ABLATIONS, CONTROLS, KNOWLEDGE, NO_HEAD, PLAIN_BCE, ablation_records


@pytest.fixture(scope="module")
def records():
    return fake_grid()


@pytest.fixture(scope="module")
def first(records):
    return made("table1", records)


def cell(tidy, **where):
    for column, value in where.items():
        tidy = tidy[tidy[column] == value]
    assert len(tidy) == 1
    return tidy.iloc[0]


def test_table_1_has_every_network_dataset_variant_and_metric(first):
    assert len(first.frame) == 3 * 3 * 2 * 2
    assert list(first.display["Dataset"].unique()) == ["DFEW", "FERV39k", "MAFW"]
    assert list(first.display["Network"].unique()) == ["M3DFEL", "MAE-DFER", "Former-DFER"]


def test_table_1_shows_the_records_own_numbers(first, records):
    record = next(
        r for r in records if r.cell["model"] == "mae_dfer" and r.cell["dataset"] == "MAFW" and r.cell["au_ratio"] == 0
    )
    expected = evaluation.war(record.expressions, record.scores.argmax(1))
    found = cell(first.frame, model="mae_dfer", dataset="MAFW", variant="without AU", metric="WAR")
    assert found["ours"] == pytest.approx(100 * expected)
    assert found["low"] < found["ours"] < found["high"]


FOUR = ("m3dfel", "mae_dfer", "former_dfer", "keypoint_gcn")


def test_the_fourth_network_is_a_block_of_its_own_with_the_numbers_that_its_own_paper_prints():
    found = fake_grid(models=FOUR)
    for table in (made(name, found) for name in ("table1", "table2", "table3")):
        assert list(table.display["Network"].unique()) == ["M3DFEL", "MAE-DFER", "Former-DFER", "KP-GCN"]
        block = table.frame[
            (table.frame["model"] == "keypoint_gcn")
            & (table.frame["dataset"] == "DFEW")
            & table.frame["metric"].isin(["WAR", "UAR"])
        ]
        alone = block[block["variant"].isin(["without AU", "none"])]
        assert (
            alone["paper"].tolist() == [68.73, 55.85]
            and alone["note"].str.contains("KP-GCN's own paper, Table 3").all()
        )
        joined = block.drop(alone.index)
        assert len(joined) >= 2 and joined["paper"].isna().all() and joined["ours"].notna().all()
    ferv = cell(
        made("table1", found).frame, model="keypoint_gcn", dataset="FERV39k", variant="without AU", metric="WAR"
    )
    assert ferv["paper"] == 47.80 and "Table 5" in ferv["note"]


def test_variants_and_other_sources_of_action_units_stay_out_of_the_tables():
    found = fake_grid(models=FOUR)
    odd = [fake_record("keypoint_gcn", "DFEW", 0.0, skill=0.9, variant=name) for name in ("A", "B", "heads 6")]
    for model in ("keypoint_gcn", "former_dfer"):
        for source in ("lac", "planted"):
            record = fake_record(model, "DFEW", 0.25, "global", skill=0.9, noise=1)
            record.cell["au_source"] = source
            odd.append(record)
    for name in ("table1", "table2", "table3"):
        pd.testing.assert_frame_equal(made(name, found).frame, made(name, [*odd, *found]).frame)


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
    assert cell(first.frame, model=model, dataset=dataset, variant=variant, metric="WAR")["paper"] == war
    assert cell(first.frame, model=model, dataset=dataset, variant=variant, metric="UAR")["paper"] == uar
    name = NETWORKS[model].title
    shown = cell(first.display, Dataset=dataset, Network=name, Variant=variant)
    assert (shown["WAR, paper (other input)"], shown["UAR, paper (other input)"]) == (f"{war:.2f}", f"{uar:.2f}")


def test_table_1_difference_belongs_to_the_row_with_au_and_is_holm_corrected(first):
    without, joined = (first.frame[first.frame["variant"] == v] for v in ("without AU", "with AU"))
    assert without["difference"].isna().all() and without["p"].isna().all()
    assert joined[["difference", "p", "p_holm"]].notna().all(axis=None)
    np.testing.assert_allclose(joined["p_holm"], evaluation.holm(joined["p"]))
    assert "18 WARs and UARs" in first.caption


def test_captions_say_what_the_input_is_and_how_it_was_measured(records):
    for table in (made(name, records) for name in ("table1", "table2", "table3")):
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
    best = made("table1", records, protocol="best-on-test").caption
    assert "best of 12 epochs on the test clips themselves" in best
    real = made("table1", records, embedded=False)
    assert "rendered" not in real.caption and "WAR, paper" in real.display.columns


PAPER_FLOPS = {
    "baseline": {"gflops": 3.32, "gmacs": 1.66, "parameters": 33_000_000},
    "audfer": {"gflops": 4.0, "gmacs": 2.0, "parameters": 33_018_450},
}


def test_cost_shows_what_head_and_loss_add():
    table = cost.cost_table({"m3dfel": PAPER_FLOPS}, {"forward": 100.0, "training": 332.0})
    value = table.frame.set_index(["part", "metric"])["value"]
    assert value["AU head", "FLOPs"] == 680_000_000 and value["AU head", "parameters"] == 18_450
    assert value["AU loss", "percent of the network"] == pytest.approx(1e-5)
    assert set(table.frame["paper"].dropna()) == {1.66}
    (row,) = table.display.to_dict("records")
    assert row["AU head: FLOPs"] == "+680,000,000 (20 %)" and row["AU loss: operations"] == "+332 (0.00001 %)"


def test_cost_of_the_real_networks_is_the_linear_layers():
    operations = cost.au_loss_operations()
    # 18 AUs, nine element operations each, some a clip, and about as many again in the backward pass
    assert 18 * 9 < operations["forward"] < operations["training"] < 18 * 100
    value = cost.cost_table(cost.paper_costs(["former_dfer"]), operations).frame.set_index(["part", "metric"])["value"]
    assert value["AU head", "FLOPs"] == 2 * 512 * 18 and value["AU head", "parameters"] == 513 * 18
    assert value["AU head", "percent of the network"] < 0.001 and value["AU loss", "percent of the network"] < 0.001


def test_table_2_has_classes_costs_and_the_papers_rows(records):
    names = ("m3dfel", "mae_dfer", "former_dfer")
    table = class_table(
        FakeStudy(records), records, "t", dataset="DFEW", models=names, costs={"m3dfel": PAPER_FLOPS}, title="Table 2"
    )
    assert cell(table.frame, model="m3dfel", variant="with AU", metric="disgust")["paper"] == 10.34
    assert cell(table.frame, model="mae_dfer", variant="with AU", metric="paper-size GFLOPs")["paper"] == 26.11
    assert cell(table.frame, model="m3dfel", variant="with AU", metric="GFLOPs")["ours"] == pytest.approx(0.0412)
    shown = table.display[(table.display["Network"] == "M3DFEL") & (table.display["Source"] == "ours")]
    assert list(shown["Cost, paper size"]) == ["1.66 / 3.32", "2.00 / 4.00"]
    assert list(shown["Parameters, paper size"]) == ["33.00 M", "33.02 M"]
    assert "The AU head adds 680,000,000 FLOPs a clip at paper size, at most 20 %." in table.caption
    record = next(
        r for r in records if r.cell["model"] == "m3dfel" and r.cell["dataset"] == "DFEW" and r.cell["au_ratio"] == 0
    )
    expected = evaluation.per_class_accuracy(record.expressions, record.scores.argmax(1))
    ours = [cell(table.frame, model="m3dfel", variant="without AU", metric=name)["ours"] for name in EXPRESSIONS]
    np.testing.assert_allclose(ours, 100 * expected)


def test_table_2_names_the_misprint_of_mae_dfers_fear(records):
    table = made("table2", records)
    notes = " ".join(table.notes)
    assert "34.35 should be 34.25" in notes
    affected = table.display[(table.display["Network"] == "MAE-DFER") & (table.display["Fea."] == "34.35")]
    letter = next(note[1] for note in table.notes if "34.35" in note)
    assert letter in affected.iloc[0]["Notes"].split()


def test_tables_say_which_strategy_the_papers_au_row_is(first):
    # Table 3 of the paper: 65.53 is M3DFEL's global row, 75.01 and 65.16 are the others' distinct rows
    assert [printed_strategy(m) for m in ("m3dfel", "mae_dfer", "former_dfer")] == [
        "global",
        "distinct",
        "distinct",
    ]
    assert any("MAE-DFER is its “distinct” row" in note for note in first.notes)


def test_table_3_has_four_rows_a_network_with_the_papers_below(records):
    table = made("table3", records)
    assert len(table.display) == 3 * (2 + 3 * 3)  # ours, the paper's and, with AU, the difference
    assert cell(table.frame, model="m3dfel", variant="minor", metric="WAR")["paper"] == 64.16
    assert cell(table.frame, model="mae_dfer", variant="global", metric="UAR")["paper"] == 60.74
    assert table.frame["p"].notna().sum() == 3 * 3 * 9
    # two families: the WARs and UARs, and the classes
    for family in (
        table.frame[table.frame["metric"].isin(("WAR", "UAR"))],
        table.frame[table.frame["metric"].isin(EXPRESSIONS)],
    ):
        np.testing.assert_allclose(family["p_holm"], evaluation.holm(family["p"]))
    assert "18 WARs and UARs" in table.caption


def test_a_missing_cell_is_a_dash_not_a_crash(records):
    some = [r for r in records if (r.cell["model"], r.cell["dataset"]) != ("mae_dfer", "DFEW")]
    table = made("table1", some)
    shown = cell(table.display, Dataset="DFEW", Network="MAE-DFER", Variant="with AU")
    assert shown["WAR [95 %]"] == shown["Δ WAR [95 %]"] == shown["p WAR"] == "—"
    assert shown["WAR, paper (other input)"] == "75.01"
    shown = made("table3", some).display.query("Network == 'MAE-DFER' and Source == 'ours'")
    assert list(shown["Hap."]) == ["—", *shown["Hap."].iloc[1:]]
    assert "nan" not in table.to_markdown().lower()


def test_a_dataset_and_a_network_that_the_paper_lacks_get_dashes():
    other = [fake_record("keypoint_gcn", "DFEW", ratio) for ratio in (0.0, 0.25)]
    for record in other:
        record.cell["dataset"] = "RAVDESS"
    table = made("table1", other)
    assert set(table.display["WAR, paper (other input)"]) == {"—"} and table.notes == ()


def test_no_records_at_all_give_an_empty_table():
    for name in ("table1", "table2", "table3"):
        table = made(name, [])
        assert table.frame.empty and "No run records" in table.caption


def test_commonest_settings_win_and_an_ablation_does_not_slip_in(records):
    chosen = selection.au_records(records, "m3dfel", "DFEW")
    assert len(chosen) == 1
    assert {k: chosen[0].cell[k] for k in ("weights", "au_ratio", "strategy")} == {
        "weights": "knowledge",
        "au_ratio": 0.25,
        "strategy": "global",
    }
    assert selection.au_records(records, "m3dfel", "DFEW", au_ratio=0.5)[0].cell["au_ratio"] == 0.5
    assert selection.au_records(records, "m3dfel", "DFEW", strategy="nothing") == []


def test_several_seeds_are_one_row_with_their_spread():
    table = made("table1", fake_grid(seeds=(0, 1, 2)))
    assert len(table.frame) == 36 and set(table.frame["seeds"]) == {3}
    assert (table.frame["seed_sd"] > 0).all()
    assert set(table.frame["clips"]) == {sum(counts) for counts in COUNTS.values()}
    assert "3 seeds (0, 1, 2) averaged clip by clip" in table.caption


def test_saved_table_is_the_tidy_numbers_and_saving_again_changes_no_byte(first, tmp_path):
    saved = first.save(tmp_path)
    assert [path.name for path in saved.paths] == ["table1_war_uar.csv", "table1_war_uar.md", "table1_war_uar.json"]
    before = [path.read_bytes() for path in saved.paths]
    first.save(tmp_path)
    assert [path.read_bytes() for path in saved.paths] == before
    back = pd.read_csv(saved.paths[0])
    np.testing.assert_allclose(back["ours"], first.frame["ours"], rtol=1e-5)
    text = saved.paths[1].read_text(encoding="utf-8")
    assert text.startswith("Table 1.") and "| DFEW | M3DFEL | without AU |" in text and "64.33" in text
    assert len(json.loads(saved.paths[2].read_text())["records"]) == 18
    assert "<table" in saved._repr_html_() and sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in saved.paths
    )


def test_a_bare_frame_is_saved_with_its_caption(tmp_path):
    frame = pd.DataFrame({"action unit": ["AU01", "AU02"], "F1": [0.51234, np.nan]})
    saved = Result("f1", frame, "F1 of every AU.").save(tmp_path)
    text = saved.paths[1].read_text(encoding="utf-8")
    assert text.startswith("F1 of every AU.") and "| AU01 | 0.512 |" in text and "| AU02 | — |" in text


def test_bars_in_text_do_not_break_a_markdown_table():
    assert markdown_table(pd.DataFrame({"a": ["x|y"]})).splitlines()[-1] == "| x\\|y |"


def test_published_misprints_are_shown_as_printed():
    assert printed("mae_dfer", "audfer", "DFEW", "fear") == 34.35
    assert np.isnan(printed("mae_dfer", "audfer", "DISFA", "WAR"))
    assert published.printed_metric("mae_dfer", "audfer", "DFEW", "fear", corrected=True) == 34.25


# -------------------------------------------------------------------------------------------------------------- folds
def folds_of(dataset, folds, **settings):
    return [
        fake_record("m3dfel", dataset, ratio, fold=fold, skill=0.5 + 0.2 * (ratio > 0), **settings)
        for fold in folds
        for ratio in (0.0, 0.25)
    ]


def test_folds_are_pooled_and_their_mean_has_its_own_name():
    records = folds_of("DFEW", (1, 2, 3)) + folds_of("FERV39k", (1,))
    table = made("table1", records)
    row = cell(table.frame, dataset="DFEW", variant="with AU", metric="UAR")
    parts = [r for r in records if r.cell["dataset"] == "DFEW" and r.cell["au_ratio"]]
    truth, guess = np.concatenate([p.expressions for p in parts]), np.concatenate([p.scores.argmax(1) for p in parts])
    assert row["ours"] == pytest.approx(100 * evaluation.uar(truth, guess)) and row["clips"] == 3 * sum(COUNTS["DFEW"])
    means = [100 * evaluation.uar(p.expressions, p.scores.argmax(1)) for p in parts]
    assert row["fold_mean"] == pytest.approx(np.mean(means)) and row["fold_sd"] == pytest.approx(np.std(means, ddof=1))
    assert row["folds"] == 3 and "pooled over folds (DFEW 1, 2, 3)" in table.caption
    shown = table.display[table.display["Variant"] == "with AU"].set_index("Dataset")["UAR, mean of folds (sd)"]
    assert shown["DFEW"] == f"{np.mean(means):.1f} ({np.std(means, ddof=1):.1f})" and shown["FERV39k"] == DASH
    assert len(table.digests) == 8
    # pooled clips tell smaller differences
    assert (
        row["detectable"]
        < cell(made("table1", records, fold=1).frame, dataset="DFEW", variant="with AU", metric="UAR")["detectable"]
    )


def test_one_fold_takes_its_records_and_those_of_datasets_without_folds():
    records = folds_of("DFEW", (1, 2)) + folds_of("FERV39k", (1,))
    for fold in (1, 2):
        table = made("table1", records, fold=fold)
        own = next(
            r for r in records if r.cell["dataset"] == "DFEW" and r.cell["fold"] == fold and not r.cell["au_ratio"]
        )
        row = cell(table.frame, dataset="DFEW", variant="without AU", metric="WAR")
        assert row["ours"] == pytest.approx(100 * evaluation.war(own.expressions, own.scores.argmax(1)))
        assert set(table.frame["dataset"]) == {"DFEW", "FERV39k"} and "pooled" not in table.caption
        assert "UAR, mean of folds (sd)" not in table.display


def test_folds_that_share_a_test_clip_are_refused():
    records = folds_of("DFEW", (1, 2))
    records[2].clip_ids[5] = records[0].clip_ids[5]
    with pytest.raises(InputError, match="DFEW/00005 in several of them"):
        selection.pooled(records)


def test_folds_and_seeds_together_keep_the_seeds_apart():
    joined = selection.pooled([r for seed in (0, 1) for r in folds_of("DFEW", (1, 2), seed=seed)])
    assert sorted((r.cell["au_ratio"], r.cell["seed"], r.cell["fold"]) for r in joined) == [
        (ratio, seed, "1, 2") for ratio in (0.0, 0.25) for seed in (0, 1)
    ]


# ----------------------------------------------------------------------------------------------------------- ablations
@pytest.fixture(scope="module")
def ablations():
    return made("ablations", fake_ablations(knowledge=0.15, head=0.0))


def test_each_variant_is_compared_with_plain_bce_and_with_no_head(ablations):
    records = fake_ablations(knowledge=0.15, head=0.0)
    chosen = {name: ablation_records(records, name, "global") for name in (KNOWLEDGE, PLAIN_BCE, NO_HEAD)}
    for against in (PLAIN_BCE, NO_HEAD):
        expected = evaluation.compare(chosen[against], chosen[KNOWLEDGE]).war
        row = cell(ablations.frame, variant=KNOWLEDGE, metric="WAR", against=against)
        assert (row["difference"], row["difference_low"]) == pytest.approx((100 * expected.value, 100 * expected.low))
    assert set(ablations.frame.loc[ablations.frame["variant"] == KNOWLEDGE, "against"]) == {
        PLAIN_BCE,
        NO_HEAD,
        *CONTROLS,
    }
    for family in ((PLAIN_BCE,), (NO_HEAD,), CONTROLS):
        part = ablations.frame[ablations.frame["against"].isin(family)]
        np.testing.assert_allclose(part["p_holm"], evaluation.holm(part["p"]))
    assert len(ablations.display) == 2 * len(ABLATIONS) and list(ablations.display["Variant"].unique()) == list(
        ABLATIONS
    )
    assert max(map(len, markdown_table(ablations.display).splitlines())) <= 130
    assert len(ablations.digests) == len(ABLATIONS)


def test_every_variant_has_records_of_its_own():
    records = fake_ablations()
    found = [ablation_records(records, name, "global") for name in ABLATIONS]
    assert [len(part) for part in found] == [1] * len(ABLATIONS)
    assert len({id(part[0]) for part in found}) == len(ABLATIONS)


def test_variants_without_a_record_are_left_out_or_dashes():
    records = fake_ablations(names=(PLAIN_BCE, KNOWLEDGE))
    assert set(made("ablations", records).display["Variant"]) == {NO_HEAD, PLAIN_BCE, KNOWLEDGE}
    alone = made("ablations", fake_ablations(names=(KNOWLEDGE,))).display
    assert set(alone.loc[alone["Variant"] == KNOWLEDGE, "Δ plain BCE [95 %]"]) == {DASH}
    assert made("ablations", []).frame.empty


# ------------------------------------------------------------------------------------------------------------ in words
def compared(*differences, metric="WAR", p=0.5, detectable=4.0, seeds=1, **others):
    columns = {"dataset": "DFEW", "model": "", "variant": "with AU", "metric": metric, "difference": np.nan}
    if not differences:
        return pd.DataFrame([columns])
    rows = [
        {
            "dataset": "DFEW",
            "model": f"network {i}",
            "variant": "with AU",
            "metric": metric,
            "difference": d,
            "difference_low": d - 3,
            "difference_high": d + 3,
            "p_holm": p,
            "detectable": detectable,
            "seeds": seeds,
            **others,
        }
        for i, d in enumerate(differences)
    ]
    return pd.DataFrame(rows)


def words(*frames, classes=None):
    table = Result("table1", pd.concat(frames, ignore_index=True), "")
    classes = Result("table2", compared(metric="fear") if classes is None else classes, "")
    return conclusions.in_words(table, classes).frame.set_index("question")["answer"]


def test_a_clear_gain_is_named_with_its_interval():
    answers = words(compared(9.0, p=0.001), compared(1.0, -2.0, p=0.9))
    help_ = answers["Did the AU head with knowledge help?"]
    assert help_.startswith(
        "On the embedded benchmark (rendered faces): of 3 differences of WAR and UAR, 1 is a certain gain and 0 are "
        "certain losses."
    )
    assert (
        "Gains: network 0 on DFEW, WAR +9.0 [+6.0, +12.0], p 0.001." in help_
        and "Open: 2, from -2.0 to +1.0 points." in help_
    )
    assert "1 of 2 pairs gain for certain in WAR or UAR, 0 lose" in answers["How many networks and datasets?"]


def test_no_difference_is_called_open_with_what_could_have_been_seen():
    answers = words(compared(1.0, p=0.8, detectable=3.5), compared(0.4, metric="UAR", p=1.0, detectable=5.25))
    assert "no certain change" in answers["Did the AU head with knowledge help?"]
    assert "gain for certain" not in answers["Did the AU head with knowledge help?"]
    sure = answers["How sure is what Tables 1 and 2 say?"]
    assert "WAR 3.5, UAR 5.2" in sure and "not shown, not absent" in sure and "One seed" in sure


def test_a_certain_loss_is_said_as_plainly_as_a_gain():
    answers = words(compared(-8.0, p=0.01))
    assert (
        "0 are certain gains and 1 is a certain loss. Losses: WAR -8.0 [-11.0, -5.0], p 0.010."
        in answers["Did the AU head with knowledge help?"]
    )
    assert "1 lose for certain" in answers["How many networks and datasets?"]


def test_expressions_and_seeds_have_sentences_of_their_own():
    answers = words(
        compared(1.0, seeds=3),
        classes=pd.concat([compared(20.0, metric="disgust", p=0.02), compared(2.0, metric="fear")], ignore_index=True),
    )
    assert "disgust +20.0 [+17.0, +23.0], p 0.020" in answers["Which expressions?"]
    assert "3 seeds: the tests cover training again" in answers["How sure is what Tables 1 and 2 say?"]


def test_questions_of_the_first_page_say_what_they_are_of(ablations):
    """Two that read alike stand there once each on the site's first page."""
    questions = [*words(compared(1.0)).index, *ablation_tables.in_words(ablations).frame["question"]]
    assert len(set(questions)) == len(questions)


def test_nothing_to_compare_is_said():
    for name in ("conclusions", "ablation_conclusions"):
        assert "nothing to compare yet" in made(name, []).frame["answer"][0]


def test_the_ablations_say_whether_it_is_the_knowledge(ablations):
    answers = ablation_tables.in_words(ablations).frame.set_index("question")["answer"]
    gain = cell(ablations.frame, variant=KNOWLEDGE, metric="WAR", against=PLAIN_BCE)
    assert gain["p_holm"] < 0.05
    assert f"Gains: WAR {gain['difference']:+.1f}" in answers["Does the knowledge help, beyond plain BCE?"]
    assert "no certain change" in answers["Does an AU head help at all, on the embedded benchmark (rendered faces)?"]
    none = made("ablation_conclusions", fake_ablations(knowledge=0.0, head=0.25)).frame.set_index("question")["answer"]
    assert "no certain change" in none["Does the knowledge help, beyond plain BCE?"]
    assert "Gains: " in none["Does an AU head help at all, on the embedded benchmark (rendered faces)?"]


def test_tables_say_how_small_a_difference_they_could_have_found(records):
    table = made("table1", records)
    row = cell(table.frame, model="m3dfel", dataset="DFEW", variant="with AU", metric="WAR")
    found = evaluation.compare(
        *(
            selection.select(
                records, model="m3dfel", dataset="DFEW", au_ratio=ratio, strategy=strategy, weights=weights
            )
            for ratio, strategy, weights in ((0.0, "none", "none"), (0.25, "global", "knowledge"))
        )
    )
    assert row["detectable"] == pytest.approx(100 * found.detectable[7])
    for name in ("table1", "table2", "table3"):
        assert "Detectable with these clips" in made(name, records).caption
