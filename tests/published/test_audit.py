"""The checks of printed tables: silent on clean ones, and each planted error is found as what it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from audfer import published
from audfer.evaluation import mcnemar
from audfer.facs import EXPRESSION_HEADINGS, EXPRESSIONS
from audfer.published import audit, printed, release
from audfer.results.audit import draw_gains

METHODS = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta")
#: the order in which classes are hard; large classes are the easier ones, as in the datasets
SKILL = np.array([0.85, 0.62, 0.66, 0.65, 0.52, 0.14, 0.3])


def text(value: float) -> str:
    return f"{value:.2f}"


def clean(seed: int = 0, protocol: str = "five folds pooled") -> list[audit.Sheet]:
    """Tables as a careful author prints them: counts of clips, simulated, turned into percentages."""
    generator = np.random.default_rng(seed)
    folds = {
        (f"fold {name}" if name != "1-5" else "five folds pooled"): counts
        for name, counts in published.dfew_protocols().items()
    }
    counts = np.array(folds[protocol])
    cells, overall = {}, {}
    for method in METHODS:
        skill = np.clip(SKILL + generator.normal(0, 0.04, 7), 0.02, 0.98)
        hits = generator.binomial(counts, skill)
        cells[method] = [
            *map(text, 100 * hits / counts),
            text(100 * hits.sum() / counts.sum()),
            text(100 * (hits / counts).mean()),
        ]
        other = np.array(list(published.class_counts("FERV39k", "test").values()))
        there = generator.binomial(other, 0.7 * skill)
        overall[method] = (
            cells[method][-2:],
            [text(100 * there.sum() / other.sum()), text(100 * (there / other).mean())],
        )
    columns = [*EXPRESSION_HEADINGS, "WAR", "UAR"]
    second = pd.DataFrame.from_dict(cells, orient="index", columns=columns)
    second["FLOPs_G"] = [text(1.37 * k + 2) for k in range(len(METHODS))]
    first = [pd.DataFrame([overall[m][k] for m in METHODS], index=METHODS, columns=["WAR", "UAR"]) for k in range(2)]
    totals = {name: [sum(numbers)] for name, numbers in folds.items()}
    better = max(METHODS, key=lambda m: float(cells[m][-2]) + float(cells[m][-1]))
    worse = min(METHODS, key=lambda m: max(float(cells[m][-2]), float(cells[m][-1])))
    return [
        audit.Sheet("Paper Table 1, DFEW", first[0], counts=totals, stated=(protocol,), dataset="DFEW"),
        audit.Sheet("Paper Table 1, FERV39k", first[1], counts={"official": [7847]}, dataset="FERV39k"),
        audit.Sheet(
            "Paper Table 2",
            second,
            EXPRESSION_HEADINGS,
            counts=folds,
            dataset="DFEW",
            costs=("FLOPs_G",),
            baselines={better: worse},
        ),
    ]


def planted(changes: dict, sheet: int = 2, seed: int = 0) -> list[audit.Sheet]:
    """Clean tables with some cells of one sheet replaced: (row, column) -> text, or a function of the old text."""
    sheets = clean(seed)
    rows = sheets[sheet].rows.copy()
    for (row, column), new in changes.items():
        rows.loc[row, column] = new(rows.loc[row, column]) if callable(new) else new
    sheets[sheet] = replaced(sheets[sheet], rows=rows)
    return sheets


def replaced(sheet: audit.Sheet, **changes) -> audit.Sheet:
    return dataclasses.replace(sheet, **changes)


def found(sheets, kind: str, row: str = "", column: str = "") -> pd.DataFrame:
    table = audit.audit(sheets)
    return table[
        (table["kind"] == kind)
        & table["row"].str.contains(row, regex=False)
        & table["column"].str.contains(column, regex=False)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", ["five folds pooled", "fold 3"])
def test_clean_tables_give_no_finding(seed, protocol):
    table = audit.audit(clean(seed, protocol))
    assert table.empty, table.to_string()
    assert tuple(table.columns) == audit.FINDING


def test_a_wrong_mean_is_found_with_its_size():
    (row,) = found(
        planted({("Beta", "UAR"): lambda t: text(float(t) + 0.5)}), "mean of classes", "Beta", "UAR"
    ).itertuples()
    assert row.beyond == pytest.approx(0.49, abs=0.006) and abs(float(row.printed) - float(row.expected) - 0.5) < 0.011


def test_a_wrong_weighted_mean_is_found_alone():
    table = audit.audit(planted({("Beta", "WAR"): lambda t: text(float(t) - 0.7)}))
    assert set(table.loc[table["table"] == "Paper Table 2", "kind"]) == {"count-weighted mean"}
    assert len(table[table["kind"] == "disagreement"]) == 1  # Table 1 has the right one


def test_a_misprinted_digit_is_found_and_mended():
    sheets = planted({("Gamma", "Fea."): lambda t: "8" + t[1:]})
    (row,) = found(sheets, "misprinted cell", "Gamma").itertuples()
    assert row.column == "Fea." and row.expected == clean()[2].rows.loc["Gamma", "Fea."]


def test_a_cell_that_is_no_whole_number_of_clips_is_found():
    (row,) = found(planted({("Delta", "Dis."): "12.34"}), "not whole clips", "Delta").itertuples()
    assert row.column == "Dis." and "not k of 145" in row.why and row.expected == "12.41"


def test_a_row_of_another_protocol_is_found():
    sheets, other = clean(), clean(7, "fold 1")
    rows = sheets[2].rows.copy()
    rows.loc["Eta"] = other[2].rows.loc["Eta"]
    sheets[2] = replaced(sheets[2], rows=rows)
    (row,) = found(sheets, "other protocol", "Eta").itertuples()
    assert row.printed == "fold 1 or fold 2" and row.expected == "five folds pooled"


def test_overall_values_of_other_clips_than_stated_are_found():
    generator = np.random.default_rng(1)
    rows = pd.DataFrame(
        {"WAR": [text(100 * generator.integers(1300, 1700) / 2341) for _ in range(10)]},
        index=[f"row {k}" for k in range(10)],
    )
    sheet = audit.Sheet(
        "Paper Table 9", rows, counts={"fold 1": [2341], "five folds pooled": [11697]}, stated=("five folds pooled",)
    )
    (row,) = audit.check_total(sheet).itertuples()
    assert row.kind == "other protocol" and "2341" in row.why
    assert audit.check_total(replaced(sheet, stated=("fold 1",))).empty


def test_an_average_of_folds_is_no_protocol():
    sheets = planted({("Zeta", column): lambda t: text(float(t) + 0.02) for column in EXPRESSION_HEADINGS})
    (row,) = found(sheets, "no protocol fits", "Zeta").itertuples()
    assert row.column == "all classes"


def test_swapped_war_and_uar_are_found_with_and_without_classes():
    def swap(sheet, row):
        rows = clean()[sheet].rows
        return planted({(row, "WAR"): rows.loc[row, "UAR"], (row, "UAR"): rows.loc[row, "WAR"]}, sheet)

    assert len(found(swap(2, "Alpha"), "swapped columns", "Alpha")) >= 1
    in_first = found(swap(1, "Theta"), "swapped columns", "Theta", "WAR / UAR")
    assert len(in_first) == 1 and in_first["table"].item() == "Paper Table 1, FERV39k"


def test_swapped_classes_are_found():
    rows = clean()[2].rows
    sheets = planted({("Beta", "Hap."): rows.loc["Beta", "Fea."], ("Beta", "Fea."): rows.loc["Beta", "Hap."]})
    (row,) = found(sheets, "swapped columns", "Beta").itertuples()
    assert row.column == "Hap. / Fea." and row.expected == f"{rows.loc['Beta', 'Hap.']} / {rows.loc['Beta', 'Fea.']}"


@pytest.mark.parametrize("gap", ["Sad.", "Sur."])
def test_a_shifted_row_is_found_and_the_lost_value_solved(gap):
    sheets, columns = clean(), [*EXPRESSION_HEADINGS, "WAR", "UAR"]
    rows, start = sheets[2].rows.copy(), EXPRESSION_HEADINGS.index(gap)
    right = rows.loc["Epsilon", columns].tolist()
    rows.loc["Epsilon", columns] = [*right[:start], *right[start + 1 :], "47.11"]
    sheets[2] = replaced(sheets[2], rows=rows)
    (row,) = found(sheets, "shifted row", "Epsilon").itertuples()
    assert row.column == f"{gap} to UAR" and abs(float(row.expected.split()[0]) - float(right[start])) < 0.3
    # Table 1 prints WAR and UAR where they belong
    assert len(found(sheets, "misplaced cells", "Epsilon")) == 1


def test_copied_cells_are_found():
    rows = clean()[2].rows
    sheets = planted({("Eta", column): rows.loc["Beta", column] for column in ("Neu.", "Ang.", "Sur.")})
    (row,) = found(sheets, "copied cells", "Eta = Beta").itertuples()
    assert row.column == "Neu. to Sur."
    assert len(found(planted({("Eta", "WAR"): rows.loc["Eta", "UAR"]}), "copied cells", "Eta", "UAR = WAR")) == 1
    assert (
        len(found(planted({("Eta", "FLOPs_G"): rows.loc["Beta", "FLOPs_G"]}), "copied cells", "Beta, Eta", "FLOPs_G"))
        == 1
    )


def test_two_numbers_for_one_result_are_found_whatever_the_spelling():
    sheets = planted({("Alpha", "WAR"): lambda t: text(float(t) + 0.01)}, 0)
    sheets[0] = replaced(sheets[0], methods=["ALPHA (Somebody, 2024)", *METHODS[1:]])
    (row,) = found(sheets, "disagreement", "Alpha", "WAR").itertuples()
    assert row.beyond == pytest.approx(0.01)
    coarse = planted({("Alpha", "WAR"): lambda t: f"{float(t):.1f}"}, 0)
    assert found(coarse, "disagreement", "Alpha", "WAR").empty
    assert audit.plain_method("Res+LSTM (Zhao and Liu, 2021)") == audit.plain_method("Resnet18+LSTM")


def test_the_number_of_another_dataset_is_found():
    first = clean()[0].rows
    sheets = planted({("Zeta", "UAR"): first.loc["Zeta", "UAR"]}, 1)
    extra = replaced(clean()[1], name="Other Table 5")
    assert len(found([*sheets, extra], "number of another dataset", "Zeta", "UAR")) == 1


def test_contradicted_claims_and_wrong_ranks_are_found():
    sheets = clean()
    ((better, worse),) = sheets[2].baselines.items()
    sheets[2] = replaced(sheets[2], baselines={worse: better})
    assert set(found(sheets, "claim contradicted", worse)["column"]) == {"WAR", "UAR"}
    order = sheets[0].values["WAR"].sort_values(ascending=False)
    ranks = {(order.index[0], "WAR"): 1, (order.index[3], "WAR"): 3}
    (row,) = audit.check_ranks(replaced(sheets[0], ranks=ranks)).itertuples()
    assert row.row == order.index[3] and row.expected == "rank 4"


def test_rows_below_their_baselines_original_are_found():
    sheet = audit.Sheet(
        "Paper Table 1",
        pd.DataFrame([["60.00", "50.00"], ["61.00", "52.00"]], ["M, baseline", "M, ours"], ["WAR", "UAR"]),
        dataset="DFEW",
        methods=["M", "M"],
        baselines={"M, ours": "M, baseline"},
    )
    origin = audit.Sheet("README", pd.DataFrame([["61.50", "51.00"]], ["M"], ["WAR", "UAR"]), dataset="DFEW")
    (row,) = audit.check_origin([sheet], [origin]).itertuples()
    assert row.column == "WAR" and row.beyond == pytest.approx(0.5)


# ---- on the published tables


@pytest.fixture(scope="module")
def findings():
    return audit.audit(printed.sheets(), printed.origins())


@pytest.mark.parametrize(
    ("kind", "table", "row", "column", "expected"),
    [
        ("misprinted cell", "AU-DFER Table 2", "C3D", "Fea.", "20.51"),
        ("misprinted cell", "AU-DFER Table 2", "P3D", "Sur.", "50.99"),
        ("misprinted cell", "AU-DFER Table 2", "MAE-DFER, +AU-DFER", "Fea.", "34.25"),
        ("shifted row", "AU-DFER Table 2", "EC-STFL", "Sad. to UAR", "49.05"),
        ("copied cells", "AU-DFER Table 2", "FRU-Adapter = S2D", "Sur. to UAR", ""),
        ("swapped columns", "AU-DFER Table 1, MAFW", "SVFAP-B", "WAR / UAR", "54.28 / 41.19"),
        ("number of another dataset", "AU-DFER Table 1, FERV39k", "ResNet18+LSTM", "UAR", "30.92"),
        ("other protocol", "AU-DFER Table 3", "Former-DFER, baseline", "all classes", "fold 1 or fold 2"),
        ("no protocol fits", "AU-DFER Table 3", "Former-DFER, distinct pos.", "all classes", ""),
        ("claim contradicted", "AU-DFER Table 3", "M3DFEL, minor pos.", "WAR", "above 64.33"),
        ("not above the original baseline", "AU-DFER Table 1, DFEW", "MAE-DFER, +AU-DFER", "UAR", "above 62.59"),
        ("other protocol", "KP-GCN Tables 10 to 12, AFEW", "all rows", "WAR", "383 clips"),
        ("mean of classes", "LAC Table 3", "DRML", "Avg", "26.05"),
        ("wrong rank", "LAC Table 2", "LAC (ours)", "AU24", "rank 4"),
    ],
)
def test_known_faults_of_the_published_tables_are_found(findings, kind, table, row, column, expected):
    hit = findings[
        (findings["kind"] == kind)
        & (findings["table"] == table)
        & (findings["row"] == row)
        & (findings["column"] == column)
    ]
    assert len(hit) == 1 and str(hit["expected"].item()).startswith(expected)


def test_the_findings_agree_with_the_corrections_that_the_accessors_offer(findings):
    fixed = published.corrections().query("table == 2 and method != 'EC-STFL'")
    cells = findings[findings["kind"] == "misprinted cell"]
    assert sorted(cells["expected"].astype(float)) == sorted(fixed["corrected"])


# ---- clips behind the numbers


def test_clip_counts_come_back():
    counts = {key: part.set_index("measure") for key, part in printed.printed_counts().groupby(["table", "row"])}
    row = counts["AU-DFER Table 2", "M3DFEL, +AU-DFER"]
    assert row["hits"].tolist() == [450, 238, 321, 291, 171, 3, 60, 1534] and row["exact"].all() and row["proven"].all()
    assert row.loc["WAR", "hits"] == row["hits"].iloc[:7].sum()
    former = counts["AU-DFER Table 3", "Former-DFER, minor pos."]
    assert former["clips"].iloc[-1] == 11697 and former["hits"].iloc[-1] == former["hits"].iloc[:7].sum() == 7564


@pytest.fixture(scope="module")
def gains():
    return printed.gains()


def test_disgust_of_one_fold_shows_nothing_however_the_clips_are_paired(gains):
    gains = gains.set_index(["method", "dataset", "measure"])
    disgust = gains.loc[("M3DFEL", "DFEW", "Dis.")]
    assert (disgust["hits_without"], disgust["hits_with"], disgust["clips"]) == (0, 3, 29)
    assert disgust["p_best"] == pytest.approx(mcnemar(3, 0)) == 0.25 and disgust["verdict"] == printed.WITHIN
    war = gains.loc[("M3DFEL", "DFEW", "WAR")]
    assert war["hits_with"] - war["hits_without"] == 28 and war["verdict"] == printed.OPEN
    most = round(war["may_disagree"] * 2341 / 100)
    assert mcnemar((most + 28) // 2, (most - 28) // 2) < 0.05 <= mcnemar((most + 30) // 2, (most - 26) // 2)
    assert (gains["best"].dropna() <= gains["unpaired"][gains["best"].notna()] + 0.5).all()


def test_resolution_falls_with_clips_and_rises_with_disagreement():
    table = printed.resolution().set_index(["dataset", "protocol", "measure", "discordance"])["detectable"]
    assert table["DFEW", "fold 1", "WAR", 0.2] > table["DFEW", "five folds pooled", "WAR", 0.2]
    assert (
        table["DFEW", "fold 1", "UAR", 0.2] > table["DFEW", "fold 1", "WAR", 0.2] > table["DFEW", "fold 1", "WAR", 0.1]
    )
    assert np.isnan(table["DFEW", "fold 1", "disgust", 0.1])


def test_the_figure_of_gains_is_drawn(gains):
    figure = draw_gains(gains)
    assert len(figure.axes) == 2 and len(figure.axes[0].get_yticks()) == 18 and len(figure.axes[1].get_yticks()) == 21


# ---- the release


def test_planted_relations_between_matrices_are_found_and_nothing_else():
    generator = np.random.default_rng(0)
    base = generator.uniform(0.1, 0.9, (7, 18))
    shifted = 1 / (1 + (1 / base - 1) * np.exp(0.4))
    table = release.relations(
        {"a": base, "b": shifted, "c": base[[0, 2, 1, 3, 4, 5, 6]], "d": generator.uniform(0.1, 0.9, (7, 18))}
    )
    pairs = table[table["second"] != ""].set_index(["first", "second"])["relation"].to_dict()
    assert pairs == {
        ("a", "b"): "logits differ by one constant",
        ("a", "c"): "the same rows in another order",
        ("b", "c"): "logits differ by one constant",
    }
    constant = table[(table["first"] == "a") & (table["second"] == "b")]
    assert constant["value"].item() == pytest.approx(0.4) and (table["second"] != "").all()


def test_the_releases_matrices_are_related_as_the_forensics_say():
    table = release.relations().set_index(["first", "second", "relation"])
    assert table.loc[("Fig. 4", "K1", "equal when rounded to two decimals"), "value"] == 126
    assert table.loc[("K1", "K2", "logits differ by one constant"), "value"] == pytest.approx(0.523147108)
    assert "surprise has fear's" in table.loc[("K2", "K2, version 002d390", "the same rows in another order"), "detail"]
    assert table.loc[("K2", "K0", "normal density of the other's logits"), "value"] == pytest.approx(-0.53, abs=0.005)
    assert table.loc[("K2", "", "logits centred on their mid-range"), "spread"] == pytest.approx(4.146852892)


def test_copied_vectors_are_found_in_the_release_and_not_among_different_ones():
    found = release.copied_vectors().set_index(["dataset", "strategy", "expression"])["is"].to_dict()
    assert found == {
        ("DFEW", "minor", "fear"): "FERV39k, fear",
        ("FERV39k", "global", "all"): "FERV39k, surprise",
        ("FERV39k", "minor", "fear"): "FERV39k, neutral",
    }
    generator = np.random.default_rng(0)
    other = {("DFEW", "distinct", name): generator.uniform(1, 9, 18) for name in EXPRESSIONS}
    assert release.copied_vectors(other).empty
    other["DFEW", "distinct", "fear"] = other["DFEW", "distinct", "happy"]
    assert len(release.copied_vectors(other)) == 2
    surplus = release.frames_behind().set_index(["dataset", "expression"])["surplus"]
    assert surplus["DFEW", "fear"] > 5 and surplus.drop(("DFEW", "fear")).max() < 3e-4


def test_expected_loss_is_the_mean_over_sampled_clips():
    import torch

    from audfer.losses import AULoss

    generator = np.random.default_rng(0)
    rates, counts = published.presence_rates("DFEW"), np.array([3, 1, 2, 1, 1, 1, 1])
    knowledge, weights = published.knowledge("figure"), release.mended_pos_weight("DFEW", "distinct")
    exact = release.loss_cells(knowledge, weights, rates, np.full(18, 0.4), counts).sum()
    expressions = generator.choice(7, size=40_000, p=counts / counts.sum())
    labels = (generator.random((40_000, 18)) < rates[expressions]).astype(np.float32)
    answers = torch.full((40_000, 18), float(np.log(0.4 / 0.6)))
    sampled = AULoss(knowledge, weights)(answers, torch.from_numpy(labels), torch.from_numpy(expressions)).item()
    assert exact == pytest.approx(sampled, rel=0.01)


def test_what_the_release_does_to_the_loss():
    summary, cells = release.loss_effects("DFEW")
    summary = summary.set_index("variant")
    assert summary.loc["no knowledge, no weights", "loss_untrained"] == pytest.approx(np.log(2))
    np.testing.assert_allclose(cells.groupby("source")["value"].sum(), 100)
    # a weight of (absent / present) makes present and absent AUs count alike
    assert summary.loc["Fig. 4, distinct, mended", "positive_share"] == pytest.approx(0.5)
    assert summary.loc["K0, no weights", "au28_share"] > 3 * summary.loc["Fig. 4, no weights", "au28_share"]
    assert set(release.DRAWN) <= set(cells["source"])
    assert release.global_vectors().set_index("dataset")["outside"].to_dict() == {"DFEW": 8, "FERV39k": 0}
