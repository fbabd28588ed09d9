"""The appendix on the key-point network: its tables from records, the printed numbers beside them, the drawings."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_records import fake_record

from audfer import evaluation, published
from audfer.errors import InputError
from audfer.keypoint_gcn import results as keypoint_results
from audfer.keypoint_gcn.network import EDGES, REGIONS
from audfer.models import NETWORKS, build_model
from audfer.results import fig8
from audfer.study.profiles import load_profile, profile_from
from audfer.study.study import Study

#: variants that are clearly worse than the full network here
WORSE = ("A", "auxiliary 0.6")


class Recorded(Study):
    """A study whose cells have made-up records."""

    lacks = ()

    def records(self, *names):
        cells = dict.fromkeys(cell for name in names for cell in self.cells(name))
        return [
            fake_record(
                cell.model,
                cell.dataset,
                cell.au_ratio,
                cell.strategy,
                cell.seed,
                weights=cell.weights,
                variant=cell.variant,
                skill=0.15 if cell.variant in WORSE else 0.6,
            )
            for cell in cells
            if cell.variant not in self.lacks
        ]


def study_of(profile="appendices", **training):
    settings = load_profile(profile)
    settings = replace(settings, training=replace(settings.training, device="cpu", precision="float32", **training))
    return Recorded(settings, Path("nowhere"), Path("nowhere"))


@pytest.fixture(scope="module")
def laptop():
    return study_of()


def test_the_printed_rows_are_those_of_the_papers_own_tables():
    assert published.kpgcn_row("DFEW")["WAR"] == published.printed_metric("KP-GCN", "baseline") == 68.73
    assert published.printed_metric("kp_gcn", "none", "FERV39k", "Hap.") == 64.90
    mafw = published.kpgcn_row("MAFW")
    assert (mafw["angry"], mafw["Contempt"], mafw["UAR"]) == (61.87, 0.0, 33.39) and len(mafw) == 13
    assert published.kpgcn_row("AFEW")["WAR"] == 55.0
    for dataset, variant in (("RAVDESS", "baseline"), ("DFEW", "audfer")):
        with pytest.raises(InputError):
            published.printed_metric("KP-GCN", variant, dataset)


def test_classes_have_ours_the_difference_and_the_printed_row(laptop):
    made = {result.name: result for result in laptop.results("keypoint_classes")}
    assert list(made) == ["a2_table3_dfew", "a2_table5_ferv39k", "a2_table7_mafw"]
    for name, table in made.items():
        assert table.display["Source"].tolist() == ["ours", "paper (other input)", "ours", "Δ against without AU"]
        assert "embedded benchmark" in table.caption and table.caption.startswith(f"Table {name[8]} of KP-GCN's paper.")
        assert "calls it FLOPs" not in table.caption  # that paper prints none
    first = made["a2_table3_dfew"]
    assert first.display.loc[1, ["Hap.", "WAR [95 %]", "Parameters, paper size"]].tolist() == ["88.42", "68.73", "17 M"]
    # the audit's points 8 and 9, counted again
    assert "1609 of the 2341 clips of one fold" in first.notes[1] and "WAR 68.99 and UAR 55.99" in first.notes[2]
    assert "WAR 48.42 and UAR 35.13" in made["a2_table5_ferv39k"].notes[1]
    assert "11 classes (contempt 0.00, anxiety 28.42" in made["a2_table7_mafw"].notes[1]
    tidy = first.frame.set_index(["variant", "metric"])
    assert tidy.loc[("without AU", "paper-size parameters"), "paper"] == 17e6
    trained = sum(weight.numel() for weight in build_model("keypoint_gcn", num_aus=None).parameters())
    assert tidy.loc[("without AU", "paper-size parameters"), "ours"] == pytest.approx(trained)


def test_afew_is_printed_only_and_says_so(laptop):
    (table,) = laptop.results("keypoint_afew")
    assert "the embedded benchmark renders no AFEW" in table.caption
    assert table.display.iloc[-1].tolist() == ["OURS", "17", "50.14", "55.00"] and len(table.display) == 13
    profile = replace(laptop.profile, grid=replace(laptop.profile.grid, datasets=("DFEW", "AFEW")))
    assert Recorded(profile, Path("nowhere"), Path("nowhere")).results("keypoint_afew") == ()


def test_modules_are_compared_with_the_full_network(laptop):
    table = laptop.results("keypoint_modules")
    assert table.display["Model"].tolist() == list("ABCDE")
    assert table.display["graph"].tolist() == ["", "✓", "✓", "", "✓"] and table.display["LSTM"].tolist() == [
        "",
        "",
        "✓",
        "",
        "",
    ]
    assert table.display["DFEW WAR, paper (other input)"].tolist() == ["64.80", "65.48", "66.72", "67.30", "68.73"]
    assert table.display["Δ WAR [95 %]"].iloc[-1] == "—" and table.frame["variant"].iloc[-1] == keypoint_results.FULL
    rows = table.frame.set_index(["variant", "metric"])
    records = {record.cell.get("variant", ""): record for record in laptop.records("keypoint_modules")}
    found = evaluation.compare([records[""]], [records["A"]])
    assert rows.loc[("A", "WAR"), "difference"] == pytest.approx(100 * found.war.value) and found.war.value < -0.1
    np.testing.assert_allclose(table.frame["p_holm"], evaluation.holm(table.frame["p"]))
    assert "8 WARs and UARs" in table.caption and rows.loc[("A", "WAR"), "p_holm"] < 0.05
    assert "10 of the 10 different DFEW values" in table.notes[1]


@pytest.mark.parametrize(
    ("name", "first", "full"),
    [
        ("keypoint_fusion", ["mean-based", "LSTM-based", "structure-based"], 2),
        ("keypoint_heads", ["6", "8", "10", "12"], 1),
        ("keypoint_depth", ["2", "3", "4", "5", "6"], 1),
    ],
)
def test_every_printed_row_has_its_variant(laptop, name, first, full):
    table = laptop.results(name)
    assert table.display.iloc[:, 0].tolist() == first
    assert table.frame["variant"].iloc[::2].tolist().index(keypoint_results.FULL) == full
    assert (
        not (table.display["WAR [95 %]"] == "—").any() and not table.display.filter(like="AFEW").isin(["—"]).any().any()
    )
    assert set(table.frame["variant"]) <= {keypoint_results.FULL, *NETWORKS["keypoint_gcn"].variants}
    printed = table.frame[(table.frame["variant"] == keypoint_results.FULL) & (table.frame["metric"] == "WAR")]
    assert printed[["DFEW WAR", "AFEW WAR"]].to_numpy().tolist() == [[68.73, 55.0]]


def test_a_variant_that_was_not_trained_is_a_dash_beside_what_is_printed():
    study = study_of()
    study.lacks = ("heads 10", "A", "B", "C", "D")
    row = study.results("keypoint_heads").display.set_index("Heads").loc["10"]
    assert row["WAR [95 %]"] == row["Parameters"] == "—" and row["DFEW WAR, paper (other input)"] == "65.70"
    assert "nothing to compare yet" in study.results("keypoint_conclusions").display["Answer"].iloc[0]


def test_the_auxiliary_weight_is_read_off_the_network(laptop):
    weights = keypoint_results.auxiliary_weights()
    assert list(weights.values()) == sorted(weights.values()) and weights[""] == 0.2 and weights["auxiliary 0.4"] == 0.4
    result = laptop.results("keypoint_auxiliary")
    assert sorted(result.frame["weight"].unique()) == [0, 0.2, 0.6]
    war = result.frame[result.frame["metric"] == "WAR"].sort_values("weight")
    line = result.plot().axes[0].get_lines()[-1]
    np.testing.assert_allclose(line.get_xydata(), war[["weight", "ours"]])
    assert line.get_linestyle() == "None", "three points are no curve"
    assert "not printed" in result.caption and "embedded benchmark" in result.caption


def test_words_name_what_is_worse(laptop):
    answers = laptop.results("keypoint_conclusions").display.set_index("Question")["Answer"]
    assert "Losses: A, UAR -" in answers["Does a part matter (Table 9)?"]
    assert "Losses: auxiliary 0.6, WAR -" in answers["The auxiliary loss (Fig. 8)?"]
    assert "no certain change" in answers["The number of heads (Table 11)?"]


def test_several_seeds_and_real_data_are_said():
    study = study_of("gpu", seeds=(0, 1))
    assert "2 seeds" in study.results("keypoint_fusion").caption
    real = study_of("paper", seeds=(0,))
    table = real.results("keypoint_fusion")
    assert "embedded" not in table.caption and "DFEW WAR, paper" in table.display
    assert "the profile has no AFEW" in real.results("keypoint_afew")[0].caption


def test_speeds_are_the_newest_of_each_device_and_missing_ones_are_said(laptop, tmp_path, monkeypatch):
    def record(name, date, device, clips, **others):
        row = {
            "model": "keypoint_gcn",
            "forward": {"ours_clips_per_second": {"median": clips}},
            "training": {"ours_clips_per_second": {"median": clips / 4}},
        }
        (tmp_path / name).write_text(
            json.dumps({"device": device, "threads": 2, "date": date, "clock": "wall", "results": [row], **others})
        )

    monkeypatch.setattr(
        keypoint_results, "measured_speeds", lambda folder=tmp_path, real=keypoint_results.measured_speeds: real(folder)
    )
    shown = laptop.results("keypoint_cost").display.set_index("Network").loc["KP-GCN"]
    assert shown["Source"].tolist() == ["printed", "not measured yet"] and shown["Samples/s, inference"].tolist() == [
        "52",
        "—",
    ]
    record("2026-01-01_model_speed.json", "2026-01-01", "cpu", 1.0)
    record("2026-02-01_model_speed.json", "2026-02-01", "cpu", 4.0)
    record("2026-01-15_model_speed_gpu.json", "2026-01-15", "Some GPU", 100.0)
    table = laptop.results("keypoint_cost")
    ours = table.frame[(table.frame["network"] == "KP-GCN") & (table.frame["source"] != "printed")].set_index("source")
    assert ours.loc["here, 2 CPU threads", "inference"] == 4 and ours.loc["here, Some GPU", "inference"] == 100
    # 80 epochs of DFEW's first fold at one clip a second
    assert ours.loc["here, 2 CPU threads", "hours"] == pytest.approx(80 * 9356 / 3600)
    assert (
        ours["parameters"].nunique() == 1 and "13 million" in table.notes[0] and "18 in its Table 3" in table.notes[0]
    )


def test_the_committed_speed_records_can_be_read():
    speeds = keypoint_results.measured_speeds()
    assert {"m3dfel", "mae_dfer", "former_dfer"} <= set(speeds["model"]) and (
        speeds["inference"] > speeds["training"]
    ).all()


def test_the_drawings_show_the_networks_own_graph():
    sheet = keypoint_results.key_point_sheet(size=64)
    data = keypoint_results.key_point_data(sheet)
    assert data["region"].value_counts().to_dict() == {name: len(members) for name, members in REGIONS.items()} | {
        "nose bridge": 2
    }
    links = {(row.point, int(other)) for row in data.itertuples() for other in row.neighbours.split(", ")}
    assert links == {pair for a, b in EDGES for pair in ((a, b), (b, a))}
    # the left of the picture is left, brows are above mouths
    assert data.loc[0, "x"] < 0.5 < data.loc[5, "x"] and data.loc[1, "y"] < data.loc[11, "y"]
    figure = keypoint_results.draw_key_points(sheet)
    coloured = (figure.axes[2].images[0].get_array() < 1).any(axis=2)
    assert coloured.sum() == 2 * len(EDGES) and (coloured == coloured.T).all()
    maps = keypoint_results.heat_map_data(sheet)
    assert np.allclose(maps.groupby("point")["value"].mean(), 1, atol=1e-4)
    heights = sheet["maps"].shape[1:]
    peak = maps.loc[maps.groupby("point")["value"].idxmax()].set_index("point")
    assert (abs((peak["column"] + 0.5) / heights[1] - data["x"]) <= 0.51 / heights[1]).all()
    assert len(keypoint_results.draw_heat_maps(sheet).axes) == 18


def test_confusions_and_features_are_the_networks_own(laptop):
    confusions = laptop.results("keypoint_confusion")
    assert [result.name for result in confusions] == ["a2_confusion_dfew", "a2_confusion_ferv39k", "a2_confusion_mafw"]
    assert set(confusions[1].frame["model"]) == {"keypoint_gcn"} and "FERV39k" in confusions[1].caption
    tsne = laptop.results("keypoint_features")
    assert len(tsne.plot().axes) == 2 and set(tsne.frame["variant"]) == set(fig8.PANELS[::2])


def test_the_same_records_give_the_same_bytes(laptop, tmp_path):
    for folder in ("first", "second"):
        for name in ("keypoint_cost", "keypoint_depth", "keypoint_auxiliary"):
            laptop.results(name).save(tmp_path / folder)
    # sidecars say how long it took
    first, second = (
        {path.name: re.sub(rb'"making": [0-9.]+', b"", path.read_bytes()) for path in (tmp_path / name).iterdir()}
        for name in ("first", "second")
    )
    assert first == second and len(first) == 3 + 3 + 4


def test_a_profile_chooses_its_variants(laptop):
    names = [cell.variant for cell in study_of("smoke").cells("keypoint_modules")]
    assert names == ["", "D"]
    every = [cell.variant for cell in study_of("gpu", seeds=(0,)).cells("keypoint_auxiliary")]
    assert every == ["", *(name for name in NETWORKS["keypoint_gcn"].variants if name.startswith("auxiliary"))]
    covered = {cell.variant for output in keypoint_results.ABLATIONS for cell in study_of("gpu").cells(output)}
    assert covered == {"", *NETWORKS["keypoint_gcn"].variants}
    wrong = laptop.profile.to_dict() | {"keypoint": {"variants": ["heads 7"]}}
    wrong = json.loads(json.dumps(wrong))
    with pytest.raises(InputError, match="keypoint.variants: found 'heads 7', expected one of A, B"):
        profile_from(wrong, Path("p.toml"))


def test_a_result_is_saved_with_its_numbers(laptop, tmp_path):
    laptop.results("keypoint_heads").save(tmp_path)
    saved = pd.read_csv(tmp_path / "a2_table11_heads.csv")
    assert len(saved) == 8 and saved["DFEW WAR"].notna().sum() == 4
