"""Metrics, intervals and comparisons, against scikit-learn, scipy and hand arithmetic."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_records import fake_record
from scipy import stats
from sklearn import metrics

from audfer import evaluation, published
from audfer.action_units.estimator import agreement
from audfer.errors import InputError
from audfer.evaluation import differences
from audfer.facs import ACTION_UNITS, EXPRESSIONS


@pytest.fixture(scope="module")
def answers():
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 7, 400)
    return truth, np.where(generator.random(400) < 0.6, truth, generator.integers(0, 7, 400))


def test_metrics_equal_scikit_learn(answers):
    truth, guess = answers
    assert evaluation.war(truth, guess) == pytest.approx(metrics.accuracy_score(truth, guess))
    assert evaluation.uar(truth, guess) == pytest.approx(metrics.balanced_accuracy_score(truth, guess))
    np.testing.assert_array_equal(evaluation.confusion_matrix(truth, guess), metrics.confusion_matrix(truth, guess))
    recall = metrics.recall_score(truth, guess, average=None)
    np.testing.assert_allclose(evaluation.per_class_accuracy(truth, guess), recall)


def test_a_printed_row_of_table_2_comes_back_from_its_clip_counts():
    # AUDIT.md: M3DFEL baseline, fold 1 of DFEW
    right, count = (
        np.array([417, 268, 310, 272, 188, 0, 51]),
        np.array(list(published.class_counts("DFEW", "test").values())),
    )
    truth = np.repeat(np.arange(7), count)
    guess = np.concatenate(
        [np.where(np.arange(n) < k, c, (c + 1) % 7) for c, (k, n) in enumerate(zip(right, count, strict=True))]
    )
    assert round(100 * evaluation.war(truth, guess), 2) == 64.33
    assert round(100 * evaluation.uar(truth, guess), 2) == 52.67


def test_classes_without_clips_are_left_out_of_uar_and_named():
    record = fake_record(counts=(10, 10, 10, 0, 10, 0, 10))
    numbers = evaluation.summary(record)
    assert numbers.classes_without_clips == ("angry", "disgust")
    assert np.isnan(numbers.per_class[3].value) and str(numbers.per_class[3]) == "—"
    seen = [numbers.per_class[k].value for k in (0, 1, 2, 4, 6)]
    assert numbers.uar.value == pytest.approx(np.mean(seen))


def test_no_clips_give_nan_not_an_error():
    assert np.isnan(evaluation.war([], [])) and np.isnan(evaluation.uar([], []))
    assert np.isnan(evaluation.mean_recall_interval(np.zeros(7), np.zeros(7)).value)


def test_classes_outside_the_seven_are_refused_with_a_sentence():
    with pytest.raises(InputError, match="expressions: found classes from 0 to 7, expected classes from 0 to 6"):
        evaluation.confusion_matrix([0, 7], [0, 1])
    with pytest.raises(InputError, match="found 1 of them, expected 2"):
        evaluation.confusion_matrix([0, 1], [0])


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (3, 3), (1, 29), (1506, 2341), (5, 10)])
def test_wilson_interval_equals_scipy(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert evaluation.wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_of_nothing_is_nan():
    assert np.isnan(evaluation.wilson_interval(0, 0)).all()


def test_uar_interval_of_one_class_is_jeffreys_interval():
    found = evaluation.mean_recall_interval([30], [40])
    expected = stats.beta(30.5, 10.5).ppf([0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.004)


def test_uar_interval_is_not_degenerate_when_a_class_has_three_clips():
    full = evaluation.mean_recall_interval([50, 0], [50, 3])
    # the first class is all but certain, so the width is that of Beta(1/2, 7/2), halved by the mean of two
    assert full.value == 0.5 and full.low <= 0.5
    assert full.high - full.value > 0.2


def test_uar_interval_contains_its_value_even_where_the_prior_pulls_away():
    found = evaluation.mean_recall_interval([0, 0, 0], [2, 2, 2])
    assert found.low <= found.value <= found.high and found.value == 0


def test_uar_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    counts = np.array([60, 46, 66, 54, 37, 4, 23])
    accuracy = np.array([0.8, 0.6, 0.6, 0.6, 0.5, 0.2, 0.3])
    hits = generator.binomial(counts, accuracy, size=(300, 7))
    found = [evaluation.mean_recall_interval(row, counts, draws=1500) for row in hits]
    covered = np.mean([i.low <= accuracy.mean() <= i.high for i in found])
    assert 0.91 <= covered <= 0.99


def test_mcnemar_by_hand():
    # nine gained, one lost: 2 * (C(10,0) + C(10,1)) / 2^10
    assert evaluation.mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 1024)
    assert evaluation.mcnemar(0, 0) == 1.0


def test_one_seed_by_hand():
    # WAR of ten clips on which the two differ, nine gained and one lost, of 40, and one clip that was not seen
    first, second = fake_record(), fake_record()
    for record in (first, second):
        record.clip_ids, record.expressions = [str(clip) for clip in range(40)], np.zeros(40, int)
        record.groups, record.best_scores = None, None
    right = np.eye(7)[np.zeros(40, int)]
    wrong = np.roll(right, 1, axis=1)
    first.scores, second.scores = right.copy(), right.copy()
    first.scores[:9], second.scores[9] = wrong[:9], wrong[9]
    change = evaluation.compare(first, second)
    error = np.sqrt(10 + 1) / 40
    assert change.war.value == pytest.approx(8 / 40) and (change.gained, change.lost) == (9, 1)
    assert change.war.low == pytest.approx(8 / 40 - NormalDist().inv_cdf(0.975) * error)
    assert change.war_p == pytest.approx(2 * NormalDist().cdf(-8 / 40 / error))
    assert change.detectable[7] == pytest.approx((NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) * error)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_interval_and_p_value_never_contradict_each_other(seeds, grouped):
    groups = np.arange(len(TRUTH)) // 4 if grouped else None
    for repeat in range(40):
        generator = np.random.default_rng([repeat, seeds])
        clips = generator.normal(size=len(TRUTH))
        sides = [
            [right_record(clips + generator.normal(size=len(TRUTH)) + gain > 0, seed, groups) for seed in range(seeds)]
            for gain in (0, 0.2)
        ]
        found = evaluation.compare(*sides)
        intervals = (*found.per_class, found.war, found.uar)
        p_values = (*found.per_class_p, found.war_p, found.uar_p)
        for interval, p in zip(intervals, p_values, strict=True):
            assert (p < 0.05) == (interval.low > 0 or interval.high < 0)
            assert interval.low < interval.value < interval.high


def test_holm_by_hand_and_with_gaps():
    # sorted 0.01 x 3, 0.03 x 2, 0.04 x 1 -> 0.03, 0.06, 0.06 (kept monotone)
    np.testing.assert_allclose(evaluation.holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])
    assert evaluation.holm([0.9, 0.8]).max() == 1.0
    assert len(evaluation.holm([])) == 0


def test_comparison_of_a_record_with_itself_is_nothing():
    record = fake_record()
    same = evaluation.compare(record, record)
    assert (same.war.value, same.war_p, same.uar_p) == (0, 1, 1)
    # that no clip was seen on which they differ does not mean that there is none
    assert same.war.low == -same.war.high < 0 and same.war.high < same.per_class[5].high


def test_paired_difference_equals_the_difference_of_the_summaries():
    first, second = fake_record(au_ratio=0.0, skill=0.4), fake_record(skill=0.6)
    difference = evaluation.compare(first, second)
    a, b = evaluation.summary(first), evaluation.summary(second)
    assert difference.war.value == pytest.approx(b.war.value - a.war.value)
    assert difference.uar.value == pytest.approx(b.uar.value - a.uar.value)
    assert difference.war.low < difference.war.value < difference.war.high
    assert difference.gained - difference.lost == pytest.approx(difference.war.value * len(first.clip_ids))


def test_groups_of_equal_clips_are_worth_one_clip_each():
    change, groups = np.repeat([1.0, -1, 0, 0, 0, 1, 0, 0], 25), np.repeat(np.arange(8), 25)
    variance, freedom = differences._clip_variance(change, np.zeros(200, int), groups)
    # three of eight groups differ; n / (n - 1) for the mean of eight, and one clip of 200 that was not seen
    assert variance[7] == pytest.approx(3 / 8**2 * 8 / 7 + 1 / 200**2) and freedom == 7


def test_a_class_on_which_two_networks_agree_is_not_known_without_error():
    difference = evaluation.compare(fake_record(), fake_record())
    disgust = difference.per_class[5]
    assert disgust.value == 0 and disgust.low < -0.1 and disgust.high > 0.1 and disgust.count == 4
    assert difference.per_class_p[5] == 1 and np.isnan(
        evaluation.compare(fake_record(counts=(9, 9, 9, 0, 9, 9, 9)), fake_record(counts=(9, 9, 9, 0, 9, 9, 9)))
        .per_class[3]
        .value
    )


def test_records_on_other_clips_are_not_compared():
    with pytest.raises(InputError, match="tested on the same clips"):
        evaluation.compare(fake_record(), fake_record(dataset="MAFW"))


def test_several_seeds_are_averaged_clip_by_clip_and_do_not_multiply_the_clips():
    records = [fake_record(seed=seed) for seed in range(3)]
    together = evaluation.summary(records)
    each = [evaluation.summary(record) for record in records]
    assert together.war.value == pytest.approx(np.mean([one.war.value for one in each]))
    assert together.uar.value == pytest.approx(np.mean([one.uar.value for one in each]))
    assert together.war.count == len(records[0].clip_ids)
    assert together.confusion.sum() == 3 * len(records[0].clip_ids)
    same = evaluation.compare(records, records)
    assert same.test == "t test over seeds and clips" and (same.war.value, same.war_p, same.seeds) == (0, 1, (3, 3))


def test_protocols_read_different_epochs_and_unknown_ones_are_refused():
    record = fake_record()
    last, best = evaluation.summary(record), evaluation.summary(record, "best-on-test")
    assert (last.epochs, best.epochs) == ((12,), (10,))
    assert best.war.value > last.war.value
    with pytest.raises(InputError, match="'best'.*'last' or 'best-on-validation' or 'best-on-test'"):
        evaluation.summary(record, "best")


def test_scores_that_are_not_finite_are_refused():
    record = fake_record()
    record.scores[0, 0] = np.nan
    with pytest.raises(InputError, match="scores: found shape .*finite: False"):
        evaluation.summary(record)


def test_same_predictions_same_digits():
    assert evaluation.summary(fake_record()).uar == evaluation.summary(fake_record()).uar


def test_interval_text_is_in_percent():
    interval = evaluation.Interval(0.6533, 0.6, 0.7012, 100, "")
    assert str(interval) == "65.3 [60.0, 70.1]"
    assert interval.percent(0, signed=True) == "+65 [+60, +70]"


def test_level_is_the_probability_content():
    low, high = evaluation.wilson_interval(50, 100, level=0.9)
    z = NormalDist().inv_cdf(0.95)
    assert high - low == pytest.approx(2 * z / (1 + z**2 / 100) * np.sqrt(0.25 / 100 + z**2 / 40000))
    assert len(EXPRESSIONS) == 7


# ---- claims about coverage and error rates, by simulation with fixed seeds

SIZES = np.array([60, 46, 66, 54, 37, 29, 40])
TRUTH = np.repeat(np.arange(7), SIZES)


def right_record(right, seed=0, groups=None):
    """A record whose clips are right or wrong as told."""
    scores = np.eye(7)[np.where(right, TRUTH, (TRUTH + 1) % 7)]
    return SimpleNamespace(
        path=Path("simulated"),
        cell={"seed": seed},
        history=pd.DataFrame({"epoch": [1]}),
        best_epoch=1,
        clip_ids=[str(i) for i in range(len(TRUTH))],
        expressions=TRUTH,
        scores=scores,
        groups=groups,
    )


def simulated(repeats, make, truth):
    """Share of repeats in which each of (7 classes, WAR, UAR) is covered, and rejected at 5 %."""
    covered, rejected = np.zeros(9), np.zeros(9)
    for repeat in range(repeats):
        found = evaluation.compare(*make(np.random.default_rng([repeat, 77])))
        covered += [i.low <= truth <= i.high for i in (*found.per_class, found.war, found.uar)]
        rejected += np.array([*found.per_class_p, found.war_p, found.uar_p]) < 0.05
    return covered / repeats, rejected / repeats


@pytest.mark.parametrize("truth", [0.0, 0.1])
def test_one_seed_interval_covers_and_test_holds_its_level(truth):
    def make(generator):  # a fifth of the clips are discordant
        draw, base = generator.random(len(TRUTH)), generator.random(len(TRUTH)) < 0.6
        up = 0.1 + truth / 2
        first = np.where(draw < up, False, np.where(draw < 0.2, True, base))
        second = np.where(draw < up, True, np.where(draw < 0.2, False, base))
        return right_record(first), right_record(second)

    covered, rejected = simulated(150, make, truth)
    assert 0.90 <= covered[7] <= 0.99 and 0.90 <= covered[8] <= 0.995 and covered[:7].min() > 0.88
    assert abs(covered[:7].mean() - 0.95) < 0.03
    if truth:
        assert rejected[7] > 0.9
    else:
        assert rejected[:8].max() <= 0.06 and 0.01 <= rejected[8] <= 0.1


def test_seeds_that_differ_are_in_the_interval():
    def make(generator):  # every training run has an effect of its own, as large as the clips' noise
        clips = generator.normal(size=len(TRUTH))
        sides = [
            [
                right_record(clips + 0.7 * generator.normal(size=len(TRUTH)) + 0.1 * generator.normal() > 0, seed)
                for seed in range(4)
            ]
            for _ in range(2)
        ]
        return sides

    covered, rejected = simulated(120, make, 0.0)
    assert covered[7] >= 0.9 and rejected[7] <= 0.1


def test_clips_of_one_subject_are_not_taken_for_independent():
    def make(generator, known=True):
        who = generator.integers(0, 30, len(TRUTH))
        clips, subject = generator.normal(size=len(TRUTH)), 0.5 * generator.normal(size=(2, 30))
        return [
            right_record(
                clips + subject[k][who] + 0.7 * generator.normal(size=len(TRUTH)) > 0, 0, who if known else None
            )
            for k in range(2)
        ]

    covered, rejected = simulated(100, make, 0.0)
    naive, wrong = simulated(100, lambda generator: make(generator, known=False), 0.0)
    assert covered[7] >= 0.89 and rejected[7] <= 0.1
    assert naive[7] < covered[7] - 0.05 and wrong[7] > 0.1  # what ignoring the subjects costs


def test_groups_are_an_argument_or_the_records_own_and_must_fit():
    first, second = fake_record(au_ratio=0.0), fake_record()
    groups = np.arange(len(first.clip_ids)) // 10
    argument = evaluation.compare(first, second, groups=groups)
    first.groups = groups
    own = evaluation.compare(first, second)
    assert (own.war, own.war_p) == (argument.war, argument.war_p) and "29 subjects or videos" in own.war.method
    assert own.test == "sign-flip test of 29 subjects or videos, normal"
    with pytest.raises(InputError, match="groups: found shape .3,., expected one subject or video per clip"):
        evaluation.compare(first, second, groups=[1, 2, 3])


# ---- the one bootstrap


@pytest.mark.parametrize("shares", [None, evaluation.equal_shares(5)])
def test_samples_have_as_many_units_as_asked_and_the_variance_of_drawing_with_replacement(shares):
    drawn = evaluation.multiplicities(5, 4000, taken=4, shares=shares)
    assert drawn.shape == (4000, 5) and (drawn.sum(axis=1) == 4).all()
    assert drawn.mean() == pytest.approx(0.8) and drawn.var(axis=0) == pytest.approx(0.64, rel=0.1)


def test_the_bootstrap_is_seeded_paired_and_the_same_in_parts(monkeypatch):
    sums = np.random.default_rng(0).normal(size=(30, 2))
    whole = evaluation.bootstrap(lambda total: total, sums, 200)
    np.testing.assert_allclose(whole[:, 0], evaluation.bootstrap(lambda total: total, sums[:, 0], 200).ravel())
    monkeypatch.setattr("audfer.evaluation.resampling.blocks", lambda draws, width: iter([70, 130]))
    np.testing.assert_allclose(evaluation.bootstrap(lambda total: total, sums, 200), whole)


def test_one_estimator_on_the_same_frames_has_one_interval_whoever_asks():
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 6, (200, 18)).astype(float)
    presence = ((codes >= 2) ^ (generator.random(codes.shape) < 0.2)).astype(np.float32)
    subjects = np.repeat(list("abcdefghij"), 20)
    table = agreement(np.zeros((200, 17)), presence, codes, subjects)
    intervals = evaluation.f1_intervals(evaluation.presence_counts(codes >= 2, presence, subjects))
    assert table[["f1", "f1_low", "f1_high"]].to_numpy().tolist() == [[i.value, i.low, i.high] for i in intervals[:18]]


# ---- how small a difference can be seen


def test_minimum_detectable_difference_inverts_connors_formula():
    z_a, z_b = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)
    d = evaluation.minimum_detectable_difference(2341, 0.15)
    assert (z_a * np.sqrt(0.15) + z_b * np.sqrt(0.15 - d**2)) ** 2 / d**2 == pytest.approx(2341)
    assert np.isnan(evaluation.minimum_detectable_difference(29, 0.1))  # not even all three discordant clips
    with pytest.raises(InputError, match="discordance"):
        evaluation.minimum_detectable_difference(100, 0)


def test_the_detectable_difference_is_detected_four_times_out_of_five():
    generator, clips, psi = np.random.default_rng(1), 800, 0.2
    d = evaluation.minimum_detectable_difference(clips, psi)
    gained, lost, _ = generator.multinomial(clips, [(psi + d) / 2, (psi - d) / 2, 1 - psi], size=1500).T
    power = np.mean([evaluation.mcnemar(int(a), int(b)) < 0.05 for a, b in zip(gained, lost, strict=True)])
    assert 0.74 <= power <= 0.84  # the exact test is a little stricter


def test_effective_count_is_that_of_the_variance_of_a_mean_of_means():
    counts = [489, 379, 534, 435, 294, 29, 181]
    assert evaluation.effective_count(counts) == 2341
    assert 0.25 / evaluation.effective_count(counts, "uar") == pytest.approx(sum(0.25 / n for n in counts) / 49)
    assert evaluation.effective_count([0, 0], "uar") == 0


# ---- calibration


def calibrated_record(generator, count=1500, sharpness=1.0):
    probabilities = generator.dirichlet(np.full(7, 0.6), size=count)
    truth = np.array([generator.choice(7, p=p) for p in probabilities])
    scores = probabilities**sharpness
    return SimpleNamespace(
        path=Path("simulated"),
        cell={"seed": 0},
        history=pd.DataFrame({"epoch": [1]}),
        best_epoch=1,
        clip_ids=[str(i) for i in range(count)],
        expressions=truth,
        scores=scores / scores.sum(1, keepdims=True),
    )


def test_a_calibrated_network_is_told_from_an_overconfident_one():
    good = evaluation.calibration(calibrated_record(np.random.default_rng(2)))
    bold = evaluation.calibration(calibrated_record(np.random.default_rng(2), sharpness=3.0))
    assert good.ece < good.ece_if_calibrated < 0.06 and bold.ece > 2 * bold.ece_if_calibrated
    assert good.brier.high < bold.brier.low and good.bins["clips"].sum() == 1500 and len(good.bins) == 15
    inside = good.bins.dropna()
    assert ((inside["low"] < inside["confidence"]) & (inside["confidence"] <= inside["high"] + 1e-9)).all()
    assert (
        (inside["accuracy_low"] <= inside["confidence"]) & (inside["confidence"] <= inside["accuracy_high"])
    ).mean() > 0.8


def of_confidence(top, right):
    """A record whose clips are of class 0, said with the probabilities ``top`` where they are right."""
    record, top = calibrated_record(np.random.default_rng(0), count=len(top)), np.asarray(top)
    record.expressions = np.where(right, 0, 1)
    record.scores = np.stack([top, 1 - top], axis=1) @ np.eye(7)[:2]
    return record


def test_calibration_by_hand():
    # 30 clips at 0.9, twenty of them right; 30 at 0.6, all right
    found = evaluation.calibration(of_confidence([0.9] * 30 + [0.6] * 30, [True] * 20 + [False] * 10 + [True] * 30))
    assert found.ece == pytest.approx(0.5 * (0.9 - 2 / 3) + 0.5 * 0.4)
    assert found.brier.value == pytest.approx((20 * 0.02 + 10 * 2 * 0.81 + 30 * 2 * 0.16) / 60)
    assert found.bins["clips"].tolist() == [30, 30] and found.bins["high"].tolist() == pytest.approx([0.6, 0.9])


@pytest.mark.parametrize(("clips", "bins"), [(3000, 15), (299, 14), (40, 2), (39, 1), (1, 1)], ids=lambda n: str(n))
def test_bins_hold_equally_many_clips_and_none_holds_few(clips, bins):
    """Most are sure, as networks are: bins of equal width would leave the low ones with a clip or none."""
    top = 0.5 + 0.5 * np.random.default_rng(clips).beta(6, 1, size=clips)
    found = evaluation.calibration(of_confidence(top, top > 0.6)).bins
    assert len(found) == bins and found["clips"].sum() == clips
    assert found["clips"].max() - found["clips"].min() <= 1 and (clips < 20 or found["clips"].min() >= 19)
    assert found.notna().all(axis=None)


# ---- AU head


def test_f1_of_aus_equals_scikit_learn_and_unknown_labels_do_not_count():
    generator = np.random.default_rng(4)
    labels = (generator.random((200, 18)) < 0.3).astype(float)
    scores = np.clip(0.6 * labels + 0.5 * generator.random((200, 18)), 0, 1)
    labels[:20, 0] = np.nan
    found = evaluation.presence_quality(labels, scores).set_index("action_unit")
    for j, name in enumerate(ACTION_UNITS):
        known = ~np.isnan(labels[:, j])
        assert found.loc[name, "f1"] == pytest.approx(metrics.f1_score(labels[known, j], scores[known, j] >= 0.5))
    assert (
        found.loc["AU01", "clips"] == 180
        and ((found["f1_low"] <= found["f1"]) & (found["f1"] <= found["f1_high"])).all()
    )
    wide = evaluation.presence_quality(labels, scores, groups=np.arange(200) // 20)
    assert (wide["f1_high"] - wide["f1_low"]).mean() < 0.5
    with pytest.raises(InputError, match="shapes of labels"):
        evaluation.presence_quality(labels, scores[:5])


def test_the_au_head_of_a_record_is_judged_by_its_own_labels_or_given_ones():
    records = [fake_record(seed=seed) for seed in range(2)]
    records[0].au_labels = None
    with pytest.raises(InputError, match="au_labels: found none"):
        evaluation.au_quality(records)
    labels = (records[0].au_scores > 0.5).astype(float)
    records[0].au_labels = labels
    assert evaluation.au_quality(records[0])["f1"].eq(1).all()
    both = evaluation.au_quality(records)["f1"]
    assert ((both > 0.6) & (both < 0.9)).all()  # one seed perfect, the other chance
    with pytest.raises(InputError, match="au_scores: found none"):
        evaluation.au_quality(fake_record(au_ratio=0.0), labels)
