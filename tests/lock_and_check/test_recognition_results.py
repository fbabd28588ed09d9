"""Tables and figures of the appendix on Lock and Check: the numbers that are shown are those of the arrays they are
made from.
"""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from audfer import published
from audfer.action_units.estimator import agreement
from audfer.errors import InputError
from audfer.evaluation import compare_f1, f1_intervals, holm, presence_counts
from audfer.facs import ACTION_UNITS, INTENSITY_INDEX
from audfer.lock_and_check import study as recognition
from audfer.lock_and_check.activation_maps import FLAT, localisation
from audfer.lock_and_check.regions import OURS
from audfer.lock_and_check.results import ablations, better_aus, f1, intensity, maps, method, plots, training
from audfer.lock_and_check.results import judged as shared
from audfer.results.builder import Result
from audfer.study.outputs import OUTPUTS

C = len(ACTION_UNITS)
SUBJECTS = np.repeat([f"SN{k:03d}" for k in range(20)], 12)
TRUTH = np.random.default_rng(1).integers(0, 6, (len(SUBJECTS), C)).astype(float)
LABELS = (TRUTH >= 2).astype(float)
LABELS[:12, 0] = np.nan


def judged(name, errors, seed=0):
    """A network that is wrong on a share of the entries."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(LABELS.shape) < errors
    presence = np.where(wrong, 1 - (TRUTH >= 2), TRUTH >= 2).astype(float)
    noise = generator.normal(0, 4 * errors, TRUTH.shape)
    return shared.Judged(
        name, LABELS, presence[None], SUBJECTS, TRUTH, np.clip(TRUTH + noise, 0, 5)[None, :, list(INTENSITY_INDEX)]
    )


@pytest.fixture(scope="module")
def networks():
    return [judged(shared.ESTIMATOR, 0.3, 1), judged(shared.BASELINE, 0.25, 2), judged(shared.LAC, 0.15, 3)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# --------------------------------------------------------------------------------------------------------- F1 per AU
def test_f1_is_sklearns_and_unknown_labels_do_not_count(networks):
    table = f1.f1_table(networks).frame.set_index(["network", "action_unit"])
    for network in networks:
        expected = []
        for c, unit in enumerate(ACTION_UNITS):
            known = ~np.isnan(LABELS[:, c])
            expected.append(100 * metrics.f1_score(LABELS[known, c], network.presence[0, known, c]))
            row = table.loc[(network.name, unit)]
            assert row.f1 == pytest.approx(expected[-1]) and row.low <= row.f1 <= row.high
        assert table.loc[(network.name, "mean of 18"), "f1"] == pytest.approx(np.mean(expected))
        shared = [ACTION_UNITS.index(au) for au in f1.printed_units(3)]
        assert table.loc[(network.name, "mean of DISFA's 8"), "f1"] == pytest.approx(
            np.mean(np.array(expected)[shared])
        )


def test_the_last_network_is_compared_with_each_of_the_others(networks):
    table = f1.f1_table(networks)
    tidy = table.frame.set_index(["network", "action_unit"])
    for name in (shared.ESTIMATOR, shared.BASELINE):
        row = tidy.loc[(name, "mean of 18")]
        assert row.gain == pytest.approx(tidy.loc[(shared.LAC, "mean of 18"), "f1"] - row.f1)
        assert 0 < row.gain_low < row.gain < row.gain_high and row.p_holm < 0.01
    assert tidy.loc[shared.LAC]["gain"].isna().all()
    means = table.frame["action_unit"].str.startswith("mean")
    np.testing.assert_allclose(table.frame.loc[~means, "p_holm"], holm(table.frame.loc[~means, "p"]))
    assert "cannot be compared" in table.caption and "AU24" in table.caption and "20 held-out subjects" in table.caption


def test_printed_numbers_are_the_papers(networks):
    tidy = f1.f1_table(networks).frame
    for number, dataset in f1.PRINTED.items():
        rows = published.load(f"lac_table{number}").query("method == 'LAC (ours)'").set_index("column")["value"]
        mine = tidy[tidy["network"] == shared.LAC].set_index("action_unit")[f"paper_{dataset}"]
        for unit in ACTION_UNITS:
            assert mine[unit] == pytest.approx(rows.get(unit, np.nan), nan_ok=True)
        assert mine[[name for name in mine.index if name.startswith(f"mean of {dataset}")]].item() == rows["Avg"]


@pytest.mark.parametrize("number", (2, 3))
def test_only_misprinted_averages_are_marked(networks, number):
    table = f1.printed_table(number, networks)
    marked = table.display[table.display["Avg"].str.contains(r"\(a\)")]
    assert marked["Method"].tolist() == ["DRML"] and len(table.notes) == 1
    printed = published.load(f"lac_table{number}").query("method == 'DRML'")
    assert f"{printed[printed['column'] != 'Avg']['value'].mean():.2f}" in table.notes[0]
    assert table.display["Method"].tolist()[-3:] == [network.name for network in networks]
    assert len(table.display) == 15 + 3


def test_our_average_leaves_out_what_rendered_faces_lack(networks):
    table = f1.printed_table(2, networks)
    mine = table.frame[table.frame["method"] == shared.LAC].set_index("column")["value"]
    assert np.isnan(mine["AU24"]) and table.display.iloc[-1]["AU24"] == "—"
    assert mine["Avg"] == pytest.approx(mine.drop(["Avg", "AU24"]).mean()) and "AU24" in table.caption
    assert "leaves out" not in f1.printed_table(3, networks).caption


# -------------------------------------------------------------------------------------------------------- statistics
def test_a_network_does_not_differ_from_itself(networks):
    counts = networks[0].counts
    change, p = compare_f1(counts, counts)
    assert all((c.value, c.low, c.high) == (0, 0, 0) for c in change) and (p == 1).all()
    with pytest.raises(InputError, match="second counts"):
        compare_f1(counts, counts[:5])


def test_the_comparison_is_antisymmetric_and_its_mean_is_that_of_the_aus(networks):
    first, second = networks[0].counts, networks[2].counts
    forth, p = compare_f1(first, second)
    back, q = compare_f1(second, first)
    np.testing.assert_allclose([c.value for c in forth], [-c.value for c in back])
    np.testing.assert_allclose([c.low for c in forth], [-c.high for c in back], atol=1e-12)
    np.testing.assert_allclose(p, q, atol=0.02)
    assert forth[-1].value == pytest.approx(np.mean([c.value for c in forth[:-1]]))


def test_equally_good_networks_are_seldom_told_apart():
    found = [
        compare_f1(judged("a", 0.3, seed).counts[..., :3], judged("b", 0.3, 1000 + seed).counts[..., :3], draws=200)[1][
            -1
        ]
        for seed in range(80)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.13 and np.mean(found) == pytest.approx(0.5, abs=0.12)


def test_an_au_without_f1_on_one_side_is_left_out_of_the_mean_on_both():
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    quiet, loud = np.array([[1.0, 0], [0, 0], [0, 0]]), np.array([[1.0, 0], [1, 0], [0, 1]])
    change, _ = compare_f1(presence_counts(labels, quiet), presence_counts(labels, loud))
    assert np.isnan(change[1].value) and change[-1].value == change[0].value == pytest.approx(1 - 2 / 3)


def test_f1_intervals_hold_the_bootstrap_of_sklearns_f1(networks):
    counts, generator = networks[1].counts, np.random.default_rng(0)
    people = np.unique(SUBJECTS)
    sample = []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(who == SUBJECTS) for who in generator.choice(people, len(people))])
        sample.append(metrics.f1_score(LABELS[rows, 5], networks[1].presence[0, rows, 5]))
    found = f1_intervals(counts)[5]
    np.testing.assert_allclose((found.low, found.high), np.quantile(sample, (0.025, 0.975)), atol=0.01)


# --------------------------------------------------------------------------------------------------------- ablations
def test_table_iv_compares_each_row_with_the_one_that_it_extends():
    rows = [found for found, _ in ablations.printed_components()]
    assert [ablations.extended_row(rows, k) for k in range(len(rows))] == [None, 0, 1, 1, 3, 4, 5]


def test_components_table_shows_ours_and_printed_side_by_side(networks):
    found = [{"0.5": judged("r", 0.4 - 0.03 * k, k), "calibrated": judged("r", 0.3, k)} for k in range(7)]
    found[3] = {}
    table = ablations.components_table(found)
    assert len(table.frame) == 14
    tidy = table.frame[table.frame["rule"] == "0.5"]
    assert tidy["paper"].tolist() == published.load("lac_table4")["F1_BP4D"].tolist()
    assert tidy.loc[6, "paper_difference"] == pytest.approx(67.3 - 66.5)
    assert tidy.loc[1, "difference"] == pytest.approx(tidy.loc[1, "f1"] - tidy.loc[0, "f1"])
    assert (
        np.isnan(tidy.loc[3, "f1"])
        and np.isnan(tidy.loc[4, "difference"])
        and table.display.loc[3, "F1, 0.5 [95 %]"] == "—"
    )
    assert table.display.loc[2, "against"] == "2" and table.display.loc[0, "against"] == "—"
    np.testing.assert_allclose(tidy["p_holm"], holm(tidy["p"]))


@pytest.mark.parametrize(("number", "key", "chosen"), ((5, "t", "16"), (6, "N_sep", "12"), (7, "loss", "L_CE")))
def test_values_are_compared_with_the_papers_choice(number, key, chosen):
    printed = published.load(f"lac_table{number}")[key].astype(str).tolist()
    table = ablations.values_table(number, {value: {"0.5": judged(value, 0.3, k)} for k, value in enumerate(printed)})
    tidy = table.frame.set_index(key)
    assert (
        list(tidy.index) == printed
        and set(tidy.drop(chosen)["against"]) == {chosen}
        and tidy.loc[chosen, "against"] == ""
    )
    assert tidy["paper"].notna().all() and tidy.drop(chosen)["p"].notna().all()


def test_a_value_of_ours_that_the_paper_lacks_finds_its_place():
    table = ablations.values_table(5, {"3": {"0.5": judged("a", 0.2)}, "16": {"0.5": judged("b", 0.2, 1)}})
    assert table.frame["t"].tolist() == ["2", "3", "4", "8", "16", "32", "64"]
    assert np.isnan(table.frame.loc[1, "paper"]) and np.isfinite(table.frame.loc[1, "difference"])
    own = ablations.values_table(
        5, {"3": {"0.5": judged("a", 0.2)}, "16": {"0.5": judged("b", 0.2, 1)}}, "3"
    ).frame.set_index("t")
    assert (
        own.loc["16", "difference"] == pytest.approx(-table.frame.loc[1, "difference"])
        and own.loc["16", "against"] == "3"
    )
    with pytest.raises(InputError, match="5, 6 or 7"):
        ablations.values_table(4, {})
    with pytest.raises(InputError, match="at least one"):
        ablations.values_table(5, {})


# ---------------------------------------------------------------------------------------------------- cost, intensity
def test_cost_says_how_far_off_the_printed_numbers_are():
    table = method.cost_table({"LAC (ours)": {"parameters": 27.2e6 * 1.02, "gmacs": 66.8, "gflops": 133.6}})
    row = table.frame.set_index("method").loc["LAC (ours)"]
    assert row.parameters_off_percent == pytest.approx(2) and row.gmacs_off_percent == pytest.approx(0)
    assert table.display["Parameters (M)"].tolist()[:4] == ["—"] * 4


def test_intensity_table_keeps_the_networks_apart(networks):
    found = {n.name: agreement(n.intensity[0], n.presence[0], TRUTH, SUBJECTS, resamples=50) for n in networks[1:]}
    table = intensity.intensity_table(found, networks[-1])
    assert len(table.display) == 18 and "AU28" not in " ".join(table.display["AU"])
    rows = table.frame.set_index(["network", "action_unit"])
    expected = np.corrcoef(networks[1].intensity[0, :, 0], TRUTH[:, 0])[0, 1]
    assert rows.loc[(shared.BASELINE, "AU01"), "intensity_r"] == pytest.approx(expected, abs=1e-6)
    assert rows.loc[shared.LAC]["intensity_r"].mean() > rows.loc[shared.BASELINE]["intensity_r"].mean()


# ------------------------------------------------------------------------------------------------------------- plots
def test_localisation_table_and_plot_show_percent():
    generator = np.random.default_rng(4)
    first = generator.uniform(0.1, 0.3, LABELS.shape)
    data = localisation(
        {shared.BASELINE: first, shared.LAC: first + 0.2, FLAT: np.full(first.shape, 0.1)}, LABELS, SUBJECTS
    )
    table = maps.localisation_table(data)
    line = table.display[table.display["AU"] == "mean"].iloc[0]
    assert line["Δ LAC [95 %]"].startswith("+20.0") and line["the same everywhere [95 %]"].startswith("10.0")
    axes = maps.localisation_plot(data).axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(drawn[shared.LAC], 100 * data[data["network"] == shared.LAC]["share"])


def test_f1_plot_draws_the_table(networks):
    table = f1.f1_table(networks)
    axes = f1.f1_plot(table.frame).axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(drawn[shared.LAC], table.frame[table.frame["network"] == shared.LAC]["f1"])
    assert len(drawn["paper's LAC, DISFA (real faces)"]) == 9


def test_recall_panels_go_from_common_to_rare():
    data = pd.DataFrame(
        [
            {"loss": loss, "epoch": epoch, "action_unit": au, "recall": 0.1 * epoch, "share": c / 20}
            for loss in ("L_CE", "L_DWA")
            for epoch in (1, 2, 3)
            for c, au in enumerate(ACTION_UNITS)
        ]
    )
    figure = training.recall_per_epoch(data)
    assert figure.axes[0].get_title().startswith("AU45") and len(figure.axes[0].lines) == 2


def test_overlay_shows_the_face_where_nothing_is_and_the_colour_where_it_is_strongest():
    picture = np.full((4, 4, 3), 200, np.uint8)
    grown = np.zeros((4, 4))
    grown[0, 0] = 2.0
    mixed = plots.overlay(picture, grown, 2.0)
    assert (mixed[1:, 1:] == mixed[1, 1, 0]).all() and not (mixed[0, 0] == mixed[0, 0, 0]).all()
    assert (plots.overlay(picture, np.zeros((4, 4)), 0.0) == mixed[1, 1]).all()


@pytest.mark.parametrize("lightness", [0.15, 0.5, 1.0])
def test_a_dark_face_is_shown_as_light_as_any_other_and_keeps_its_features(lightness):
    face = np.random.default_rng(0).integers(0, 256, (24, 24, 1)).repeat(3, axis=2)
    shown = plots.overlay((lightness * face).astype(np.uint8), np.zeros((24, 24)), 0.0)
    assert shown.min() > 80 and shown.mean() == pytest.approx(165, abs=10) and shown.std() > 40


def test_figures_are_saved_the_same_twice(tmp_path):
    def save(folder):
        data = pd.DataFrame({"split": "training", "action_unit": ACTION_UNITS, "value": np.linspace(1, 60, C)})
        Result("lac_fig4", data, "Fig. 4.", draw=training.class_distribution).save(folder)
        return [(folder / f"lac_fig4.{kind}").read_bytes() for kind in ("png", "svg", "csv")]

    assert save(tmp_path / "a") == save(tmp_path / "b")


# --------------------------------------------------------------------------------------------------- what is looked at
def test_strongest_frames_show_other_people_where_codes_are_equal():
    codes = np.zeros((4, C))
    codes[[0, 1], 0] = 4  # AU01: both people
    codes[[0, 1], 1] = 3  # AU02: both again
    codes[2, 2], codes[0, 2] = 5, 4  # AU04: the first person has the highest code
    rows = maps.strongest_frames(codes, ["p", "q", "p", "q"], ("AU01", "AU02", "AU04"))
    assert rows.tolist() == [0, 1, 2]


def test_the_subtle_sequence_shows_the_au_absent_and_barely_present():
    sequences, frames = np.repeat(["a", "b"], 6), np.tile([5, 4, 3, 2, 1, 0], 2)  # rows lie backwards in time
    codes = np.zeros((12, C))
    codes[:6, 3] = [5, 4, 3, 2, 1, 0]  # strong
    codes[6:, 4] = [2, 2, 2, 2, 2, 0]  # subtle, but hardly absent
    codes[:6, 5] = [2, 2, 2, 0, 0, 0]
    codes[6:, 6] = [2, 2, 2, 2, 0, 0]
    rows, unit = maps.subtle_sequence(codes, sequences, frames)
    assert unit == ACTION_UNITS[5] and rows.tolist() == [5, 4, 3, 2, 1, 0]
    with pytest.raises(InputError, match="comes up"):
        maps.subtle_sequence(np.zeros((12, C)), sequences, frames)


def test_regions_of_every_au_are_drawn_with_ours_marked():
    figure = method.method(None).plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split("\n")[0] for title in titles if "*" in title] == [
        f"{au} *" for au in ACTION_UNITS if au in OURS
    ]
    assert all(len(axes.patches) == 2 for axes in figure.axes[:C])


# --------------------------------------------------------------------------------------------------------- from records
class FakeRecord:
    """The fields of a ``RecognitionRecord`` that the tables read."""

    def __init__(self, fold, seed, rows):
        generator = np.random.default_rng([fold, seed])
        self.path, self.cell = ablations.Row, {"fold": fold, "seed": seed}
        self.labels, self.codes, self.subjects = LABELS[rows], TRUTH[rows], SUBJECTS[rows]
        self.logits = generator.normal(size=(len(rows), C))

    def presence(self, rule):
        return (self.logits >= {"0.5": 0, "calibrated": 0.3}[rule]).astype(float)


def test_folds_are_joined_and_seeds_stand_beside_each_other_whatever_the_order():
    halves = {1: np.arange(120), 2: np.arange(120, 240)}
    records = [FakeRecord(fold, seed, halves[fold]) for fold, seed in ((2, 5), (1, 7), (1, 5), (2, 7))]
    found = shared.judged_of("x", records, "calibrated")
    np.testing.assert_array_equal(found.labels, LABELS)
    assert (
        found.subjects.tolist() == SUBJECTS.tolist() and found.presence.shape == (2, 240, C) and found.intensity is None
    )
    np.testing.assert_array_equal(found.presence[0, :120], records[2].logits >= 0.3)  # seed 5, fold 1
    np.testing.assert_array_equal(found.presence[1, 120:], records[3].logits >= 0.3)  # seed 7, fold 2
    assert found.text == "240 frames of 20 held-out subjects, 2 seeds"
    assert shared.judged_of("x", records, "0.5").presence.sum() > found.presence.sum()


def test_better_aus_are_shown_in_percent_with_the_baseline_compared_with_nothing():
    number = {
        "recovery": 0.6,
        "recovery_low": 0.5,
        "recovery_high": 0.7,
        "war": 0.4,
        "war_low": 0.3,
        "war_high": 0.5,
        "uar": 0.3,
        "uar_low": 0.2,
        "uar_high": 0.4,
    }
    gain = {
        f"{m}_{k}": v
        for m in ("war", "uar")
        for k, v in (("gain", 0.02), ("gain_low", -0.01), ("gain_high", 0.05), ("p", 0.2), ("p_holm", 0.4))
    }
    data = pd.DataFrame(
        [{"source": "baseline", **number, **dict.fromkeys(gain, np.nan)}, {"source": "LAC", **number, **gain}]
    )
    table = better_aus.better_aus_table(data)
    assert table.display.loc[0, "Δ WAR [95 %]"] == "—" and table.display.loc[1, "Δ WAR [95 %]"] == "+2.0 [-1.0, +5.0]"
    assert table.display.loc[0, "WAR [95 %]"] == "40.0 [30.0, 50.0]" and table.display.loc[1, "p UAR"] == "0.400"
    assert table.display.loc[0, "knowledge, rank correlation [95 %]"] == "0.60 [0.50, 0.70]"


def test_a_study_without_annotated_frames_has_no_results(tmp_path):
    from types import SimpleNamespace

    study = SimpleNamespace(profile=SimpleNamespace(embedded=False), data_root=tmp_path)
    makers = (
        *(f1.f1, f1.printed_tables, ablations.components, ablations.windows, ablations.segments, ablations.losses),
        *(training.distribution, training.recall, maps.faces, maps.sequence, maps.localise),
        *(intensity.intensity, better_aus.better_aus),
    )
    assert not recognition.has_annotated_set(study) and all(make(study) == () for make in makers)
    registered = {name for name, one in OUTPUTS.items() if one.notebook == shared.NOTEBOOK}
    assert len(registered) == len(makers) + 2 and not any(OUTPUTS[name].sources for name in registered)
    (tmp_path / "BP4D").mkdir()
    assert recognition.has_annotated_set(study)
