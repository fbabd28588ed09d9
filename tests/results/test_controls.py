"""The controls say what the numbers say: whether this run can test the claim, and which rows decide."""

import numpy as np
import pandas as pd
import pytest
from fake_records import fake_record, made

from audfer.evaluation import holm
from audfer.results.controls import CONTROLS, EXTRACTED, NEGATIVE, POSITIVE, TOGETHER, cells, together, verdict
from audfer.results.selection import baseline_records

MODELS = ("m3dfel", "mae_dfer", "former_dfer")
#: the ablations' network is on every dataset, the others on the strategies'
PLACES = (*((model, "DFEW") for model in MODELS), ("former_dfer", "FERV39k"), ("former_dfer", "MAFW"))
ALL = "former_dfer", TOGETHER


def records(planted=0.0, shuffled=0.0, extracted=0.0, seeds=(0, 1, 2), places=PLACES):
    """Every network without a head and with each control's action units, which add so much skill."""
    gains = {"planted": planted, "shuffled": shuffled, "": extracted}
    return [
        record
        for seed in seeds
        for model, dataset in places
        for record in (
            fake_record(model, dataset, 0.0, seed=seed, skill=0.5, noise=seed),
            *(
                fake_record(
                    model, dataset, 0.25, seed=seed, weights="knowledge", skill=0.5 + gain, noise=seed, au_source=source
                )
                for source, gain in gains.items()
            ),
        )
    ]


def controls(*gains, **options):
    return made("controls", records(*gains, **options), grid={"ratio_model": "former_dfer"})


def test_every_network_has_every_control_and_one_has_the_clips_of_all_datasets():
    frame = controls(0.2).frame
    assert set(zip(frame["model"], frame["dataset"], strict=True)) == {*PLACES, ALL}
    assert set(frame["variant"]) == set(CONTROLS) and len(frame) == 6 * 3 * 2 and frame["p_holm"].notna().all()
    decides = frame["decides"].astype(bool)
    assert (decides == (frame["dataset"] == TOGETHER)).all() and set(frame.loc[decides, "seeds"]) == {3}
    own = frame[(frame["model"] == ALL[0]) & ~decides & (frame["metric"] == "WAR")]
    for control, part in own.groupby("variant"):
        row = frame[decides & (frame["variant"] == control) & (frame["metric"] == "WAR")].iloc[0]
        assert row["clips"] == part["clips"].sum()
        assert row["difference"] == pytest.approx(np.average(part["difference"], weights=part["clips"]))


def test_the_rows_that_decide_are_a_family_of_tests_of_their_own():
    frame = controls(0.05).frame
    for _, family in frame.groupby(["variant", "decides"]):
        np.testing.assert_allclose(family["p_holm"].astype(float), holm(family["p"]))


@pytest.mark.parametrize(
    "gains, sentence",
    [
        ((0.3, 0.0), "can test the claim: planted action units help Former-DFER on all datasets for certain"),
        ((0.0, 0.0), "cannot test the claim: even planted action units do not help Former-DFER on all datasets"),
        ((0.3, 0.3), "cannot test the claim: action units of other clips help as well"),
        ((-0.3, 0.0), "cannot test the claim: even planted"),
    ],
)
def test_the_verdict_follows_from_the_numbers(gains, sentence):
    result = controls(*gains)
    assert sentence in verdict(result.frame) and sentence in result.caption
    decisive = NEGATIVE if gains[1] else POSITIVE
    rows = result.frame[(result.frame["dataset"] == TOGETHER) & (result.frame["variant"] == decisive)]
    assert f"{rows['difference'].iloc[0]:+.1f}" in verdict(result.frame)
    assert "Former-DFER on all datasets" in result.caption


def test_what_is_said_of_the_other_networks_stands_behind_the_gate_of_the_one_that_decides():
    said = verdict(controls(0.3).frame)
    gate, _, others = said.partition(" What is said of M3DFEL and MAE-DFER stands behind this gate of Former-DFER's; ")
    assert gate.startswith("This run can test") and others.startswith("planted action units on DFEW alone: of 4 ")
    alone = controls(0.3, places=[place for place in PLACES if place[0] == "former_dfer"])
    assert "stands behind" not in verdict(alone.frame) and "stands behind" not in verdict(controls(0.0).frame)


def test_a_control_that_is_missing_is_said():
    frame = controls(0.3).frame
    assert verdict(frame[frame["variant"] == EXTRACTED]).startswith("No control")
    assert NEGATIVE in set(frame["variant"])


@pytest.mark.parametrize(
    "gain, said",
    [(0.3, "of 2 differences, 2 are certain gains and 0 are certain losses. Gains: "), (0.0, "no certain change")],
)
def test_what_all_datasets_together_say_is_in_the_conclusions(gain, said):
    rows = controls(0.3, 0.0, gain).frame
    assert together(rows).startswith("Former-DFER, 3 seeds: ") and said in together(rows)
    best = rows[(rows["dataset"] == TOGETHER) & (rows["variant"] == POSITIVE)]["difference"].iloc[0]
    assert f"the best that there could be, change it by WAR {best:+.1f}" in together(rows)
    assert together(rows[rows["dataset"] != TOGETHER]) == ""


def test_one_dataset_is_its_own_verdict():
    frame = controls(0.3, places=PLACES[:3]).frame
    assert TOGETHER not in set(frame["dataset"]) and "can test the claim" in verdict(frame)
    assert set(frame.loc[frame["decides"].astype(bool), "model"]) == {"former_dfer"}


def test_networks_that_do_not_decide_go_without_the_negative_control(study):
    grid, sources = study.profile.grid, {}
    for cell in cells(study):
        sources.setdefault((cell.model, cell.dataset), set()).add(cell.au_source)
    decides = {place: own for place, own in sources.items() if place[0] == grid.ratio_model}
    assert set(decides) == {(grid.ratio_model, dataset) for dataset in grid.datasets}
    assert all(own == {"", "planted", "shuffled"} for own in decides.values())
    assert all(own == {"", "planted"} for place, own in sources.items() if place not in decides)


def test_other_sources_of_action_units_stay_out_of_the_network_alone():
    found = records(0.3)
    assert all(record.cell["au_ratio"] == 0 for record in baseline_records(found, "m3dfel", "DFEW"))


def test_shuffled_action_units_are_those_of_other_clips_of_the_split(study):
    clips = study.manifest("DFEW").table.set_index("clip_id")["split"]
    planted, shuffled = (study.au_table("DFEW", source).frames for source in ("planted", "shuffled"))
    assert sorted(planted["clip_id"].unique()) == sorted(shuffled["clip_id"].unique())
    units = [name for name in planted if name.endswith("_r")]
    means = [frames.groupby("clip_id")[units].mean() for frames in (planted, shuffled)]
    for split, ids in clips.groupby(clips).groups.items():
        ours, others = (np.sort(part.loc[ids].to_numpy(), axis=0) for part in means)
        np.testing.assert_allclose(ours, others, atol=1e-4, err_msg=split)  # the same action units, ...
    moved = (means[0] != means[1].reindex(means[0].index)).any(axis=1)
    assert moved.mean() > 0.8  # ... on other clips
    assert isinstance(shuffled, pd.DataFrame) and set(shuffled) == set(planted)
