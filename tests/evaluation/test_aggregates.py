"""Interquartile mean and probability of improvement: worked examples, invariances, refusals."""

import numpy as np
import pytest

from audfer.errors import InputError
from audfer.evaluation import aggregates, interquartile_mean


def test_the_interquartile_mean_leaves_out_a_quarter_on_either_side():
    assert interquartile_mean([0.0, 0.4, 0.6, 100.0]) == pytest.approx(0.5)
    assert interquartile_mean([[1, 2, 3], [4, 5, 60]]).tolist() == [2, 23]  # less than one run is none


def test_improvement_is_the_chance_that_a_run_beats_a_run_of_the_same_task():
    first, second = [[0.1, 0.2], [0.5, 0.5, 0.5]], [[0.15, 0.3], [0.5]]
    value = aggregates(first, second, draws=50)["improvement"].value
    assert value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert aggregates(second, first, draws=50)["improvement"].value == pytest.approx(1 - value)


def test_one_run_a_task_has_no_width_and_many_have_that_of_their_mean():
    alone = aggregates([[0.4], [0.6]], [[0.5], [0.7]])["difference"]
    assert (alone.low, alone.value, alone.high) == pytest.approx((0.1, 0.1, 0.1))
    runs = np.random.default_rng(0).normal(0.5, 0.1, (1, 400))
    number = aggregates(runs, runs)["first"]
    middle = np.sort(runs[0])[100:300]
    assert number.value == pytest.approx(middle.mean())
    # the asymptotic error of a trimmed mean (Winsorised variance): 0.1 * 1.09 / sqrt(400)
    assert number.high - number.low == pytest.approx(2 * 1.96 * 0.00547, rel=0.1)


@pytest.mark.parametrize("first, second", [([], []), ([[0.5]], [[0.5], [0.5]]), ([[]], [[0.5]])])
def test_tasks_that_do_not_fit_are_refused(first, second):
    with pytest.raises(InputError, match="aggregates"):
        aggregates(first, second)
