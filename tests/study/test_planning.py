"""What a grid takes, on paper: against sums by hand, and against the records that the rates are from."""

import json
import math
from dataclasses import replace

import pytest
import small_layouts
from fake_records import write_record
from paths import ROOT

from audfer.companion import cli
from audfer.files import read_csv
from audfer.models import NETWORKS
from audfer.study.planning import GPUS, RATES, clip_counts, seconds_of
from audfer.study.profiles import load_profile
from audfer.study.study import Study


def opened(root, name="gpu", **groups):
    profile = load_profile(name)
    changed = {group: replace(getattr(profile, group), **fields) for group, fields in groups.items()}
    return Study(replace(profile, **changed), root / "work", root / "figures", anywhere=True)


def rates():
    return read_csv(RATES).set_index("model")["clips_per_second"]


def test_rates_are_those_of_the_record_that_they_name():
    table = read_csv(RATES)
    assert set(table["model"]) == set(NETWORKS)
    for row in table.itertuples():
        record = json.loads((ROOT / "benchmarks" / "records" / row.record).read_text())
        (measured,) = (one for one in record["results"] if one["model"] == row.model)
        assert (row.size, row.card) == (measured["size"], record["device"])
        assert row.clips_per_second == measured["fit_clips_per_second"]


def test_a_cell_takes_its_training_clips_by_the_rate_and_a_third_of_it_a_clip_looked_at(tmp_path):
    counts = {
        "train_clips": {"DFEW": 700, "FERV39k": 7, "MAFW": 7},
        "test_clips": {"DFEW": 300, "FERV39k": 7, "MAFW": 7},
    }
    study = opened(tmp_path, data={**counts, "minimum_clips": (1, 1)}, training={"epochs": 5, "evaluate_every": 2})
    cell = study.cell("m3dfel", "DFEW", 0.25)  # looked at after epochs 2, 4 and 5
    assert seconds_of(study, [cell]) == [pytest.approx((5 * 700 + 3 * 300 / 3) / rates()["m3dfel"])]
    assert math.isnan(seconds_of(study, [replace(cell, size="tiny", device="cpu")])[0])


def test_records_of_the_network_are_believed_before_the_table(tmp_path):
    study = opened(tmp_path)
    cells = [study.cell("m3dfel", "DFEW", seed=seed) for seed in (0, 1)]
    write_record(study.store, "0" * 16, cells[0])  # a record of one second
    twice = replace(cells[1], epochs=2 * cells[1].epochs)
    assert seconds_of(study, [cells[1], twice]) == pytest.approx([1, 2])


def test_cells_go_the_longest_first_to_whoever_is_free(tmp_path):
    study = opened(
        tmp_path,
        grid={"models": ("m3dfel",), "ratio_model": "m3dfel"},
        training={"seeds": tuple(range(9)), "initialisation": "scratch"},
    )
    networks, said = study.plan("fig7")
    cells = study.cells("fig7")
    each = seconds_of(study, cells[:1])[0] / 3600  # equal cells, with and without AU head
    assert len(cells) == 18 and networks["network"].tolist() == ["m3dfel", "all"]
    for row in networks.to_dict("records"):
        assert (row["cells"], row["to train"]) == (18, 18) and row["hours"] == pytest.approx(18 * each)
        assert row[f"hours on {GPUS}"] == pytest.approx(3 * each)  # 18 equal cells on eight: two rounds and two more
    record = json.loads((ROOT / "benchmarks" / "records" / "2026-11-27_model_speed_gpu.json").read_text())
    (weights,) = (one["parameters"] for one in record["results"] if one["model"] == "m3dfel")
    assert networks["records (GB)"].tolist() == pytest.approx([18 * 4 * weights / 1e9] * 2)
    clips = [sum(clip_counts(study, name).values()) for name in study.profile.grid.datasets]
    size = study.profile.training.stored_frames * 3 * study.profile.training.image_size**2
    assert any(f"packed clips: {sum(clips) * size / 1e9:.1f} GB ({sum(clips):,} of" in sentence for sentence in said)


def test_clips_are_counted_in_the_lists_on_disk_and_without_them_as_published(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDFER_DATA", str(tmp_path / "nothing"))
    assert clip_counts(opened(tmp_path, "paper"), "DFEW", 2) == {"train": 9356, "test": 2341}
    small_layouts.dfew(tmp_path / "data" / "DFEW", folds=(1, 2), count=14)
    monkeypatch.setenv("AUDFER_DATA", str(tmp_path / "data"))
    assert clip_counts(opened(tmp_path, "paper"), "DFEW", 2) == {"train": 14, "test": 14}


@pytest.mark.parametrize("profile", ["gpu", "paper", "smoke"])
def test_a_dry_run_says_it_without_a_gpu_and_makes_nothing(profile, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AUDFER_WORK", str(tmp_path / "work"))
    monkeypatch.delenv("AUDFER_DATA", raising=False)
    assert cli.main(["grid", "table1", "--profile", profile, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    networks = load_profile(profile).grid.models
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.split()}
    assert {*networks, "all"} <= lines.keys() and "packed clips: " in shown
    assert ("unknown" in lines["all"]) == (profile == "smoke")
    assert not (tmp_path / "work").exists()
