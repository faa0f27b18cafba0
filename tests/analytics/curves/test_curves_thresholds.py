"""Times to a value: Kaplan-Meier, the log-rank test, and runs that never get there."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.curves import compare_times, first_reached, time_to_threshold
from ckptlake.analytics.curves.survival import (
    Durations,
    are_comparable,
    log_rank,
    log_rank_all,
    log_rank_pairs,
    survival,
)
from ckptlake.errors import InvalidInputError, MissingDependencyError, NotEnoughDataError


def falling(label: str, reached: float, last: float = 10.0) -> Curve:
    """A run that is at 1 from `reached` on and was watched until `last`."""
    steps = np.arange(last + 1)
    return Curve(label, steps, np.where(steps >= reached, 1.0, 5.0))


durations = st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=30)


@given(durations)
def test_the_estimate_is_that_of_statsmodels(told: list[tuple[int, bool]]) -> None:
    times, ended = np.array([time for time, _ in told], float), np.array([was for _, was in told])
    found = survival(Durations(times, ended))
    assert (np.diff(found.share) <= 0).all()
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()
    if ended.any():
        oracle = SurvfuncRight(times, ended.astype(int))
        at = np.searchsorted(found.times, oracle.surv_times)
        assert np.allclose(found.share[at], oracle.surv_prob)
    if found.median is None:
        assert found.interval.high == float("inf")
    else:
        assert found.median in found.interval


def test_the_interval_of_the_median_covers_it() -> None:
    rng = np.random.default_rng(0)
    truth, hits, n_simulations = np.log(2.0), 0, 2000
    for _ in range(n_simulations):
        times, watched = rng.exponential(size=40), rng.uniform(0.5, 4.0, 40)
        found = survival(Durations(np.minimum(times, watched), times <= watched))
        hits += truth in found.interval
    assert 0.93 <= hits / n_simulations <= 0.97


def test_log_rank_agrees_between_libraries_and_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    n_simulations, rejected = 2000, 0
    for number in range(n_simulations):
        groups = []
        for _ in range(2):
            times = rng.exponential(size=20)
            groups.append(Durations(np.minimum(times, 2.0), times <= 2.0))
        statistic, p = log_rank(*groups)
        rejected += p < 0.05
        if number < 20:
            pooled = [np.concatenate([getattr(group, name) for group in groups]) for name in ("times", "ended")]
            expected = survdiff(pooled[0], pooled[1].astype(int), np.repeat([0, 1], 20))
            assert log_rank_all(groups) == pytest.approx((statistic**2, p))
            assert (statistic**2, p) == pytest.approx(expected)
    assert 0.04 <= rejected / n_simulations <= 0.06


def test_several_groups_need_statsmodels_and_two_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("statsmodels.duration", "statsmodels.duration.survfunc"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    groups = [Durations(np.arange(1.0, 9.0) * scale, np.ones(8, bool)) for scale in (1, 5, 1)]
    assert log_rank_all(groups[:2])[1] < 0.05
    with pytest.raises(MissingDependencyError, match=r"pip install 'ckptlake\[analysis\]'"):
        log_rank_all(groups)


def test_pairs_are_corrected_after_holm() -> None:
    rng = np.random.default_rng(2)
    groups = [Durations(rng.exponential(scale, 30), np.ones(30, bool)) for scale in (1.0, 1.0, 4.0)]
    groups.append(Durations(np.ones(3), np.zeros(3, bool)))
    pairs = log_rank_pairs(groups)
    assert [(i, j) for i, j, *_ in pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    raw, holm = np.array([p for *_, p, _ in pairs]), np.array([p for *_, p in pairs])
    assert holm[np.argmin(raw)] == pytest.approx(min(raw.min() * 6, 1.0))
    nothing = Durations(np.ones(3), np.zeros(3, bool))
    assert log_rank_pairs([nothing, nothing]) == []


class TestTimeToThreshold:
    def test_runs_that_never_get_there_count(self) -> None:
        found = time_to_threshold([falling("a", 2), falling("b", 4), falling("c", 99), falling("d", 99)], 2.0, "min")
        assert (found.n, found.n_reached, found.median) == (4, 2, 4.0)
        assert found.sentence().startswith("2 of 4 runs reached 2; the median step is 4 (95 % interval 2 to inf)")
        assert found.checks[0].holds is True
        never = time_to_threshold([falling("a", 2), falling("b", 99), falling("c", 99)], 2.0, "min")
        assert never.median is None
        assert never.sentence() == "1 of 3 runs reached 2; fewer than half ever did, so there is no median step."

    def test_a_run_that_diverged_early_does_not_look_fast(self) -> None:
        """Were it censored where it broke, two of the three left would make the median 6."""
        broken = Curve("broken", np.arange(3.0), np.array([5.0, 5.0, np.nan]))
        runs = [falling("a", 6), falling("b", 6), broken, falling("c", 99)]
        found = time_to_threshold(runs, 2.0, "min")
        assert found.table.filter(run="broken").row(0) == ("broken", False, 10.0, "diverged")
        assert "broken: diverged, counted as never reaching it" in found.notes
        assert found.survival.share.tolist() == [0.5, 0.5]

    def test_a_run_stopped_early_is_told(self) -> None:
        found = time_to_threshold([falling("a", 2), falling("b", 99, last=3), falling("c", 99)], 2.0, "min")
        assert found.table["why"].to_list() == ["reached", "ended before", "ended before"]
        assert found.checks[0].holds is None

    @given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(-10, 10), st.integers(1, 4))
    def test_the_first_that_holds(self, values: list[float], threshold: float, hold: int) -> None:
        curve = Curve.of("a", np.arange(float(len(values))), np.array(values))
        expected = next(
            (
                float(i)
                for i in range(len(values) - hold + 1)
                if all(value <= threshold for value in values[i : i + hold])
            ),
            None,
        )
        assert first_reached(curve, threshold, "min", hold) == expected
        turned = Curve.of("a", curve.steps, -curve.values)
        assert first_reached(turned, -threshold, "max", hold) == expected

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"threshold": np.nan}, "finite"),
            ({"direction": "down"}, "'min' where lower"),
            ({"hold": 0}, "hold=0: a whole number is needed, 1 or more"),
            ({"level": 95.0}, "between 0 and 1"),
            ({"curves": []}, "any run"),
            ({"curves": [Curve.of("a", np.zeros(0), np.zeros(0))]}, "no points of a"),
        ],
    )
    def test_what_cannot_be(self, change: dict[str, object], told: str) -> None:
        asked = {"curves": [falling("a", 2)], "threshold": 2.0, "direction": "min", **change}
        with pytest.raises(InvalidInputError, match=told):
            time_to_threshold(**asked)  # type: ignore[arg-type]


class TestCompareTimes:
    def test_groups_that_differ(self) -> None:
        rng = np.random.default_rng(0)
        fast = [falling(f"f{run}", time) for run, time in enumerate(rng.integers(1, 5, 12))]
        slow = [falling(f"s{run}", time) for run, time in enumerate(rng.integers(4, 15, 12))]
        found = compare_times({"fast": fast, "slow": slow}, 2.0, "min", x="step")
        times = {
            name: stats.CensoredData(
                uncensored=table.filter(reached=True)["x"].to_list(), right=table.filter(reached=False)["x"].to_list()
            )
            for name, runs in (("fast", fast), ("slow", slow))
            for table in [time_to_threshold(runs, 2.0, "min").table]
        }
        assert found.p_value == pytest.approx(stats.logrank(times["fast"], times["slow"]).pvalue)
        assert found.p_value < 0.001
        assert "differ in how long they take to 2 (log-rank p < 0.001)" in found.sentence()
        assert found.pairs["p_holm"].to_list() == pytest.approx([found.p_value])

    def test_it_takes_groups_of_which_some_reach_it(self) -> None:
        with pytest.raises(NotEnoughDataError, match="two groups"):
            compare_times({"a": [falling("a", 2)]}, 2.0, "min")
        with pytest.raises(NotEnoughDataError, match="no run reached 0"):
            compare_times({"a": [falling("a", 2)], "b": [falling("b", 2)]}, 0.0, "min")

    @pytest.mark.parametrize("others", [1, 2])
    def test_groups_that_all_are_there_at_once(self, others: int) -> None:
        groups = {str(group): [falling(f"{group} {run}", 3) for run in range(4)] for group in range(1 + others)}
        with pytest.raises(NotEnoughDataError, match="all runs were there at the same step"):
            compare_times(groups, 2.0, "min")

    def test_a_group_that_ended_before_any_run_was_there(self) -> None:
        groups = {name: [falling(f"{name} {run}", 3 + run) for run in range(4)] for name in ("a", "b")}
        groups["c"] = [falling(f"c {run}", 9, last=2) for run in range(4)]
        with pytest.raises(NotEnoughDataError, match="leave that group out"):
            compare_times(groups, 2.0, "min")

    def test_a_pair_that_cannot_be_compared_is_left_out(self) -> None:
        groups = {name: [falling(f"{name} {run}", 3) for run in range(4)] for name in ("a", "b")}
        groups["c"] = [falling(f"c {run}", 6) for run in range(4)]
        found = compare_times(groups, 2.0, "min")
        assert found.pairs.select("first", "second").rows() == [("a", "c"), ("b", "c")]
        assert found.p_value < 0.05


@given(st.lists(durations, min_size=2, max_size=2))
def test_what_is_called_comparable_has_a_variance(told: list[list[tuple[int, bool]]]) -> None:
    groups = [Durations(np.array([t for t, _ in part], float), np.array([was for _, was in part])) for part in told]
    if are_comparable(groups):
        assert np.isfinite(log_rank(*groups)).all()
    elif any(group.ended.any() for group in groups):
        with pytest.warns(RuntimeWarning, match="invalid value"):
            log_rank(*groups)
