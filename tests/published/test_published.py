"""The transcriptions and the checks on them, against the findings of the reference's AUDIT.md and hand arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from audfer import published
from audfer.errors import InputError
from audfer.facs import EXPRESSION_HEADINGS, EXPRESSIONS
from audfer.results import audit

# ---- counts and rates


@pytest.mark.parametrize(
    "dataset, split, fold, expected",
    [
        ("DFEW", "test", 1, (489, 379, 534, 435, 294, 29, 181)),
        ("DFEW", "test", 5, (489, 378, 533, 434, 293, 29, 180)),
        ("DFEW", "test", "1-5", (2445, 1894, 2669, 2173, 1469, 145, 902)),
        ("FERV39k", "test", 1, (1473, 1393, 1958, 1487, 638, 467, 431)),
    ],
)
def test_class_counts_are_those_of_the_audit(dataset, split, fold, expected):
    counts = published.class_counts(dataset, split, fold)
    assert tuple(counts) == EXPRESSIONS and tuple(counts.values()) == expected


def test_mafw_is_the_seven_class_version_in_our_order():
    counts = published.class_counts("MAFW", "test", 1)
    assert sum(counts.values()) == 1517 and counts["happy"] == 249 and counts["disgust"] == 128
    assert sum(published.class_counts("MAFW", "train", 1).values()) + 1517 == 7576


def test_totals_are_the_papers():
    assert sum(published.class_counts("DFEW", "train", 1).values()) + 2341 == 11697
    assert sum(published.class_counts("FERV39k", "train").values()) + 7847 == 38935
    happy = [published.frame_counts("FERV39k", split)["happy"] for split in ("train", "test")]
    assert sum(happy) == 207116


def test_what_is_not_published_is_named():
    for arguments in (("AffWild2",), ("DFEW", "validation"), ("DFEW", "train", 6), ("MAFW", "test", "1-5")):
        with pytest.raises(InputError, match="class_counts.csv"):
            published.class_counts(*arguments)
    with pytest.raises(InputError, match="MAFW"):
        published.presence_rates("MAFW")
    with pytest.raises(InputError, match="table name"):
        published.load("table1")


def test_presence_rates_are_the_implied_ones_with_a_mended_fear_row():
    rates = {name: published.presence_rates(name) for name in ("DFEW", "FERV39k")}
    for name, found in rates.items():
        table = published.load(f"release_pos_weight_{name.lower()}")
        table = table[table["option"] == "distinct"]
        for expression, row in zip(EXPRESSIONS, found, strict=True):
            if (name, expression) != ("DFEW", "fear"):
                own = table[table["expression"] == expression.capitalize()]
                assert np.allclose(row, own["implied_rate"], atol=1e-6)  # rows of the csv are in AU order
    assert np.array_equal(rates["DFEW"][6], rates["FERV39k"][6])
    assert rates["DFEW"][5, 16] == pytest.approx(319 / 9057)  # disgust, AU28: frames named in the csv


def test_released_weights_keep_their_faults():
    distinct = published.released_pos_weight("FERV39k", "distinct")
    minor = published.released_pos_weight("FERV39k", "minor")
    assert np.allclose(published.released_pos_weight("FERV39k", "global"), distinct[4])  # it is surprise's vector
    assert np.allclose(minor[6], distinct[2]) and (minor[:4] == 1).all()  # fear has neutral's
    assert np.allclose(published.released_pos_weight("DFEW", "minor")[6], distinct[6])  # fear has FERV39k's
    with pytest.raises(InputError, match="strategy"):
        published.released_pos_weight("DFEW", "all")


# ---- the knowledge matrices


def test_fig_4_is_k1_rounded_and_k2_is_centred():
    figure, k1, k2 = (published.knowledge(name) for name in ("figure", "K1", "K2"))
    assert figure.shape == (7, 18) and np.abs(figure - k1).max() < 0.005
    assert k2.max() + k2.min() == pytest.approx(1, abs=1e-12)
    shift = np.log(k1 / (1 - k1)) - np.log(k2 / (1 - k2))
    assert np.allclose(shift, 0.523147108, atol=1e-8)


def test_k0_is_the_density_of_k2s_logits():
    k0, k2 = published.knowledge("K0"), published.knowledge("K2")
    scores = np.log(k2 / (1 - k2))[:, :16]
    z = (scores + 0.84967) / 0.95423
    assert np.allclose(k0[:, :16], np.exp(-(z**2) / 2) / (0.95423 * math.sqrt(2 * math.pi)), rtol=2e-3)
    with pytest.raises(InputError, match="K9"):
        published.knowledge("K9")


# ---- printed results


@pytest.mark.parametrize(
    "arguments, value",
    [
        (("m3dfel", "baseline"), 64.33),
        (("M3DFEL", "audfer", "DFEW", "UAR"), 54.78),
        (("mae_dfer", "audfer", "FERV39k"), 52.45),
        (("former_dfer", "none", "MAFW", "UAR"), 19.44),
        (("M3DFEL", "minor", "DFEW", "disgust"), 17.24),
        (("Former-DFER", "global", "DFEW", "Dis."), 6.21),
        (("MAE-DFER", "audfer", "DFEW", "FLOPs_G"), 26.11),
        (("R(2+1)D18", "as printed", "DFEW", "Hap."), 79.67),
    ],
)
def test_printed_numbers_are_found(arguments, value):
    assert published.printed_metric(*arguments) == value


def test_a_dash_is_nan_and_an_absent_cell_an_error():
    assert math.isnan(published.printed_metric("STT", "as printed", "MAFW"))
    for arguments in (
        ("STT", "audfer"),
        ("m3dfel", "distinct", "MAFW"),
        ("m3dfel", "audfer", "MAFW", "Hap."),
        ("resnet", "baseline"),
    ):
        with pytest.raises(InputError, match="Tables 1 to 3"):
            published.printed_metric(*arguments)
    with pytest.raises(InputError, match="variant"):
        published.printed_metric("m3dfel", "best")


def test_misprints_stay_unless_corrections_are_asked_for():
    cell = ("MAE-DFER", "audfer", "DFEW", "fear")
    assert published.printed_metric(*cell) == 34.35 and published.printed_metric(*cell, corrected=True) == 34.25
    assert published.printed_metric("MAE-DFER", "distinct", "DFEW", "fear") == 34.25  # Table 3 prints it right
    assert published.printed_metric("S2D", "as printed", "MAFW", "WAR", corrected=True) == 57.37
    assert published.printed_metric("S2D", "as printed", "MAFW", "UAR", corrected=True) == 43.40


def test_every_correction_names_a_printed_cell_that_differs():
    table = published.corrections()
    assert not table.duplicated(["table", "method", "variant", "dataset", "column"]).any()
    assert table["printed"].notna().all()
    assert (pd.to_numeric(table["printed"]) != table["corrected"]).all()


def test_a_row_has_the_columns_that_exist():
    row = published.printed_row("m3dfel", "audfer")
    assert list(row.index) == [*EXPRESSION_HEADINGS, "WAR", "UAR", "FLOPs_G"] and row["Dis."] == 10.34
    assert list(published.printed_row("m3dfel", "audfer", "MAFW").index) == ["WAR", "UAR"]
    with pytest.raises(InputError):
        published.printed_row("m3dfel", "audfer", "AFEW")


def test_loading_gives_a_copy():
    table = published.load("audfer_table1")
    table.loc[:, "value"] = 0.0
    assert published.load("audfer_table1")["value"].max() > 0


# ---- checks


def test_integer_counts_by_hand():
    assert published.integer_count(10.34, 29) == 3 and published.integer_count(10.35, 29) is None  # 10.3448 %
    assert published.integer_count(0.0, 29) == 0 and published.integer_count(50.0, 0) is None
    assert published.integer_count(float("nan"), 29) is None
    assert published.integer_count(33.3, 3, decimals=1) == 1


def test_wars_of_own_rows_are_whole_clips_of_fold_1():
    counts = list(published.class_counts("DFEW", "test", 1).values())
    row = published.printed_row("M3DFEL", "audfer")
    diagonal = [published.integer_count(row[name], n) for name, n in zip(EXPRESSION_HEADINGS, counts, strict=True)]
    assert diagonal == [450, 238, 321, 291, 171, 3, 60]  # audit.csv
    assert round(100 * sum(diagonal) / 2341, 2) == row["WAR"]


def test_protocols_of_the_field_hold_what_the_paper_quotes_and_say_where_nothing_is_stated():
    field = audit.TABLES["a1_field"][0]()
    assert field.groupby("method").size().to_dict() == {"S2D": 3, "S4D": 3, "SSM": 3}
    assert (field.drop(columns="remark") != "").all(axis=None) and field["source"].str.contains("https://").all()
    quoted = (
        published.load("audfer_table1")
        .query("method == 'S2D'")
        .pivot(index="dataset", columns="metric", values="printed")
    )
    mine = field[field["method"] == "S2D"].set_index("dataset")
    for dataset in ("DFEW", "FERV39k"):
        assert quoted.loc[dataset, ["WAR", "UAR"]].tolist() == mine.loc[dataset, ["WAR", "UAR"]].tolist()
    # of two runs, in each other's columns
    assert (
        quoted.loc["MAFW", "WAR"] == mine.loc["MAFW", "UAR"] and quoted.loc["MAFW", "UAR"] in mine.loc["MAFW", "remark"]
    )
    numbers = field[["WAR", "UAR"]].stack()
    assert numbers.map(lambda text: text == "not stated as text" or 0 < float(text) < 100).all()


def test_the_files_say_where_they_come_from():
    sources = (published.HERE / "SOURCES.md").read_text()
    assert all(f"`{name}.csv`" in sources for name in published.TABLES)
