"""Metrics, intervals and comparisons, against scikit-learn, scipy and hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from fake_records import fake_record
from scipy import stats
from sklearn import metrics
from statistics import NormalDist

from audfer import evaluation, published
from audfer.errors import InputError
from audfer.facs import EXPRESSIONS


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
    guess = np.concatenate([np.where(np.arange(n) < k, c, (c + 1) % 7) for c, (k, n) in enumerate(zip(right, count))])
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


def test_sign_flip_test_with_equal_weights_is_mcnemars():
    change = np.array([1] * 9 + [-1] + [0] * 30)
    assert evaluation.sign_flip(change, np.zeros(40, int), "war") == pytest.approx(
        evaluation.mcnemar(9, 1), abs=0.006
    )


def test_holm_by_hand_and_with_gaps():
    # sorted 0.01 x 3, 0.03 x 2, 0.04 x 1 -> 0.03, 0.06, 0.06 (kept monotone)
    np.testing.assert_allclose(evaluation.holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06])
    assert evaluation.holm([0.9, 0.8]).max() == 1.0
    assert len(evaluation.holm([])) == 0


def test_comparison_of_a_record_with_itself_is_nothing():
    record = fake_record()
    same = evaluation.compare(record, record)
    assert (same.war.value, same.war.low, same.war.high, same.war_p, same.uar_p) == (0, 0, 0, 1, 1)


def test_paired_difference_equals_the_difference_of_the_summaries():
    first, second = fake_record(au_ratio=0.0, skill=0.4), fake_record(skill=0.6)
    difference = evaluation.compare(first, second)
    a, b = evaluation.summary(first), evaluation.summary(second)
    assert difference.war.value == pytest.approx(b.war.value - a.war.value)
    assert difference.uar.value == pytest.approx(b.uar.value - a.uar.value)
    assert difference.war.low < difference.war.value < difference.war.high
    assert difference.gained - difference.lost == pytest.approx(difference.war.value * len(first.clip_ids))


def test_paired_bootstrap_has_the_spread_that_theory_gives():
    # one class: the standard error of a mean of n differences
    change = np.array([1] * 30 + [-1] * 20 + [0] * 150)
    war_draws, uar_draws = evaluation._paired_bootstrap(change, np.zeros(200, int), 10_000)
    assert war_draws.std() == pytest.approx(change.std() / np.sqrt(200), rel=0.03)
    np.testing.assert_allclose(war_draws, uar_draws)


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
    assert evaluation.compare(records, records).war_test == "sign-flip permutation"


def test_protocols_read_different_epochs_and_unknown_ones_are_refused():
    record = fake_record()
    last, best = evaluation.summary(record), evaluation.summary(record, "best-on-test")
    assert (last.epochs, best.epochs) == ((12,), (10,))
    assert best.war.value > last.war.value
    with pytest.raises(InputError, match="'best'.*'last' or 'best-on-test'"):
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
