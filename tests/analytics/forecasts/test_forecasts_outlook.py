"""Intervals and probabilities made of the errors that forecasts had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.forecasts.outlook import Outlook

errors = st.lists(st.floats(0, 100), min_size=1, max_size=30).map(np.array)


@given(errors, st.floats(-10, 10), st.floats(0.01, 10))
def test_intervals_and_probabilities_agree(found: np.ndarray, centre: float, spread: float) -> None:
    outlook = Outlook.of(centre, spread, found, np.ones(len(found)))
    for level in outlook.ranks:
        ends = outlook.ends(float(level))
        assert ends is not None
        if ends[1] > centre:
            within = outlook.probability_below(ends[1]) - outlook.probability_below(ends[0])
            assert within == pytest.approx(level, abs=0.02 if len(set(found)) == len(found) else 1)
    assert outlook.ends(float(outlook.ranks[-1]) + 1e-6) is None


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
        assert low == -high


def test_many_repeats_of_few_groups_tell_no_more_than_the_groups() -> None:
    found, weights = np.repeat([1.0, 2.0, 3.0, 4.0], 100), np.full(400, 0.01)
    assert Outlook.of(0.0, 1.0, found, weights).ranks[-1] == pytest.approx(4 / 5)
    assert Outlook.of(0.0, 1.0, found, np.ones(400)).ranks[-1] > 0.99


def test_errors_of_normal_forecasts_give_normal_intervals() -> None:
    found = np.abs(np.random.default_rng(1).normal(size=20_000))
    ends = Outlook.of(5.0, 2.0, found, np.ones(20_000)).ends(0.95)
    assert ends is not None
    assert ends[1] - 5 == pytest.approx(2 * stats.norm.ppf(0.975), rel=0.02)


def test_no_error_at_all_tells_for_certain_what_ranks_allow() -> None:
    outlook = Outlook.of(3.0, 0.0, np.zeros(9), np.ones(9))
    assert outlook.ends(0.9) == (3.0, 3.0)
    assert outlook.probability_below(3.0) == 0.5
    assert outlook.probability_below(3.1) == pytest.approx(0.95)
