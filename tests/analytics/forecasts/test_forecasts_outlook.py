"""Intervals and probabilities made of the errors that forecasts had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.forecasts.outlook import Outlook

errors = st.lists(st.floats(0, 100), min_size=1, max_size=30).map(np.array)


@given(errors, st.floats(-10, 10), st.floats(0.01, 10))
def test_intervals_and_probabilities_agree(found: np.ndarray, centre: float, spread: float) -> None:
    outlook = Outlook.of(centre, spread, found, np.ones(len(found)))
    assume(np.diff(outlook.values).min() > 1e-9)  # of values that are equal none is more likely
    for rank in outlook.ranks[len(found) + 1 :]:
        level = 2 * rank - 1
        ends = outlook.ends(level)
        assert ends is not None
        within = outlook.probability_below(ends[1]) - outlook.probability_below(ends[0])
        assert within == pytest.approx(level, abs=1e-5)
    assert outlook.ends(outlook.highest_level + 1e-6) is None


@given(errors, st.lists(st.floats(-200, 200), min_size=2, max_size=10))
def test_the_probability_rises_with_the_value(found: np.ndarray, values: list[float]) -> None:
    outlook = Outlook.of(1.0, 1.0, found, np.ones(len(found)))
    told = [outlook.probability_below(value) for value in sorted(values)]
    assert told == sorted(told)
    assert all(0 < one < 1 for one in told)


def test_ranks_of_single_errors_are_those_of_quantiles_of_the_sixth_kind() -> None:
    found = np.random.default_rng(0).exponential(size=19)
    outlook = Outlook.of(0.0, 1.0, found, np.ones(19))
    for level in (0.1, 0.5, 0.9):
        low, high = outlook.ends(level) or (0.0, 0.0)
        assert high == pytest.approx(np.quantile(found, level, method="weibull"))
        assert low == pytest.approx(-high)


def test_many_repeats_of_few_groups_tell_no_more_than_the_groups() -> None:
    found, weights = np.repeat([1.0, 2.0, 3.0, 4.0], 100), np.full(400, 0.01)
    assert Outlook.of(0.0, 1.0, found, weights).highest_level == pytest.approx(4 / 5)
    assert Outlook.of(0.0, 1.0, found, np.ones(400)).highest_level > 0.99


def test_errors_of_normal_forecasts_give_normal_intervals() -> None:
    found = np.abs(np.random.default_rng(1).normal(size=20_000))
    ends = Outlook.of(5.0, 2.0, found, np.ones(20_000)).ends(0.95)
    assert ends is not None
    assert ends[1] - 5 == pytest.approx(2 * stats.norm.ppf(0.975), rel=0.02)


def test_ends_of_lopsided_draws_leave_as_much_on_either_side() -> None:
    drawn = np.random.default_rng(2).exponential(size=20_001)
    outlook = Outlook.drawn(float(np.median(drawn)), drawn)
    ends = outlook.ends(0.9)
    assert ends is not None
    assert ends == pytest.approx(stats.expon.ppf([0.05, 0.95]), rel=0.05)
    assert outlook.probability_below(1.0) == pytest.approx(stats.expon.cdf(1.0), abs=0.01)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(np.array), st.integers(-6, 6))
def test_an_outlook_turned_tells_the_same_of_values_turned(drawn: np.ndarray, value: int) -> None:
    outlook = Outlook.drawn(0.0, drawn)
    turned = outlook.turned()
    assert turned.probability_below(-value) == pytest.approx(1 - outlook.probability_below(value))
    ends, mirrored = outlook.ends(outlook.highest_level), turned.ends(outlook.highest_level)
    assert ends is not None
    assert mirrored == pytest.approx((-ends[1], -ends[0]))


def test_no_error_at_all_tells_for_certain_what_ranks_allow() -> None:
    outlook = Outlook.of(3.0, 0.0, np.zeros(9), np.ones(9))
    assert outlook.ends(0.9) == (3.0, 3.0)
    assert outlook.probability_below(3.0) == 0.5
    assert outlook.probability_below(3.1) == pytest.approx(0.95)
