"""Overfitting, jumps of the mean, and stalls."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.trends import change_points, overfitting, stalls
from ckptlake.analytics.trends.overfitting import bend_of
from ckptlake.errors import InvalidInputError, MissingDependencyError, NotEnoughDataError

STEPS = np.arange(0.0, 1000.0, 20.0)


def pair(seed: int, grows: float, noise: float = 0.01) -> tuple[Curve, Curve]:
    rng = np.random.default_rng(seed)
    every = np.arange(1000.0)
    train = 1 + 2 * np.exp(-every / 200) + rng.normal(0, noise, 1000)
    val = 1 + 2 * np.exp(-STEPS / 200) + grows * np.clip(STEPS - 400, 0, None) / 600 + rng.normal(0, noise, 50)
    return Curve("run", every, train), Curve("run", STEPS, val)


class TestOverfitting:
    def test_it_is_found_with_the_step_where_the_gap_bends(self) -> None:
        found = [overfitting(*pair(seed, 2.0), "min") for seed in range(40)]
        assert all(one.overfits for one in found)
        assert all(abs((one.gap_step or 0) - 400) <= 60 for one in found)
        assert all(340 <= one.best_step <= 560 for one in found)
        assert sum(one.interval is not None and 400.0 in one.interval for one in found) >= 0.9 * 40

    def test_it_is_not_seen_where_there_is_none(self) -> None:
        found = [overfitting(*pair(seed, 0.0), "min") for seed in range(100)]
        assert sum(one.overfits for one in found) <= 3
        assert sum(one.gap_step is not None for one in found) <= 15

    def test_accuracy_is_turned_over(self) -> None:
        train, val = pair(0, 2.0)
        low = overfitting(train, val, "min")
        high = overfitting(Curve("run", train.steps, -train.values), Curve("run", val.steps, -val.values), "max")
        assert (high.overfits, high.best_step, high.gap_step) == (low.overfits, low.best_step, low.gap_step)
        assert high.best_value == -low.best_value
        assert high.gap_end == pytest.approx(low.gap_end)

    def test_what_is_left_out_is_told(self) -> None:
        train, val = pair(0, 2.0)
        values = val.values.copy()
        values[-3:] = np.nan
        found = overfitting(train.until(900.0), Curve("run", val.steps, values), "min")
        assert found.notes == (
            "validation: 3 values of 50 NaN or infinite; it diverged",
            "1 validation point outside the steps of training left out",
        )
        assert found.sentence().startswith("run overfits: validation was best at step")

    def test_what_cannot_be(self) -> None:
        train, val = pair(0, 2.0)
        with pytest.raises(NotEnoughDataError, match="6 validation points of 'run' lie within training: it takes 10"):
            overfitting(train.until(100.0), val, "min")
        with pytest.raises(NotEnoughDataError, match="0 validation points"):
            overfitting(Curve("run", np.zeros(0), np.zeros(0)), val, "min")
        with pytest.raises(InvalidInputError, match="'min' where lower"):
            overfitting(train, val, "down")  # type: ignore[arg-type]

    def test_what_is_best_at_its_end_is_no_worse_there(self) -> None:
        steps = np.arange(0.0, 1000.0, 50)
        falls = Curve("run", steps, 3 + 4 / (steps + 100))
        found = overfitting(falls, falls, "min")
        assert (found.lost, found.best_step, found.overfits) == (0.0, 950.0, False)
        assert "is best at its end, at step 950" in found.sentence()

    @given(st.integers(6, 40), st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 100))
    def test_two_lines_are_found_where_they_meet(self, n: int, before: float, change: float, seed: int) -> None:
        steps = np.sort(np.random.default_rng(seed).uniform(0, 100, n))
        at = steps[n // 2]
        found = bend_of(steps, before * steps + change * np.clip(steps - at, 0, None))
        if abs(change) > 0.01:
            assert found.step == at
            assert found.before == pytest.approx(before, abs=1e-6)
            assert found.after == pytest.approx(before + change, abs=1e-6)
            assert found.low <= at <= found.high


class TestChangePoints:
    def test_jumps_are_found_where_they_are(self) -> None:
        rng = np.random.default_rng(0)
        level = np.repeat([1.0, 3.0, 2.0], [100, 150, 250])
        found = change_points(Curve("run", 10 * np.arange(500.0), level + rng.normal(0, 0.2, 500)))
        assert found.steps == pytest.approx((1000.0, 2500.0), abs=20)
        assert found.table["mean"].to_list() == pytest.approx([1.0, 3.0, 2.0], abs=0.1)
        assert found.table["points"].sum() == 500
        assert found.sentence().startswith("run: the mean jumps 2 times, at steps 1,000 and 2,500")

    @pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.8])
    def test_noise_seldom_jumps(self, coefficient: float) -> None:
        rng = np.random.default_rng(1)
        noise = (signal.lfilter([1], [1, -coefficient], rng.standard_normal(600))[100:] for _ in range(200))
        jumps = [change_points(Curve("run", np.arange(500.0), values)).steps for values in noise]
        assert sum(bool(steps) for steps in jumps) <= 0.05 * 200

    def test_degenerate_series(self) -> None:
        assert change_points(Curve("run", np.arange(20.0), np.ones(20))).steps == ()
        stairs = change_points(Curve("run", np.arange(20.0), (np.arange(20) >= 10).astype(float)))
        assert stairs.steps == (10.0,)
        with_gap = change_points(Curve("run", np.arange(20.0), np.append(np.ones(19), np.nan)))
        assert with_gap.notes == ("1 value of 20 NaN or infinite",)
        with pytest.raises(NotEnoughDataError, match="9 finite points: jumps at least 5 apart take 10"):
            change_points(Curve("run", np.arange(9.0), np.ones(9)))
        with pytest.raises(InvalidInputError, match="at most 20,000"):
            change_points(Curve("run", np.arange(20_001.0), np.ones(20_001)))
        with pytest.raises(InvalidInputError, match=r"penalty=-1\.0: a finite number is needed, above 0"):
            change_points(Curve("run", np.arange(20.0), np.ones(20)), penalty=-1.0)

    def test_without_ruptures_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ruptures", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'ckptlake\[analysis\]'"):
            change_points(Curve("run", np.arange(20.0), np.ones(20)))


class TestStalls:
    def test_gaps_and_slow_stretches(self) -> None:
        rng = np.random.default_rng(0)
        took = rng.uniform(0.9, 1.1, 300)
        took[100] = 60.0
        took[200:240] = 2.5
        curve = Curve("run", np.arange(0.0, 3010.0, 10.0), np.concatenate([[0.0], np.cumsum(took)]))
        found = stalls(curve)
        assert found.table["kind"].to_list() == ["gap", "slow"]
        assert found.table["first_step"].to_list() == pytest.approx([1000.0, 2000.0], abs=10)
        assert found.table["last_step"].to_list() == pytest.approx([1010.0, 2400.0], abs=10)
        assert found.table["duration_s"].to_list() == pytest.approx([60.0, 100.0], rel=0.05)
        assert found.steps_per_s == pytest.approx(10.0, rel=0.05)
        assert found.lost_s == pytest.approx(59 + 60, rel=0.05)
        assert "2 stalls cost" in found.sentence()

    def test_points_logged_at_uneven_steps_are_no_stall(self) -> None:
        rng = np.random.default_rng(0)
        steps = np.cumsum(rng.integers(1, 50, 200)).astype(float)
        found = stalls(Curve("run", steps, 0.3 * steps))
        assert found.table.height == 0
        assert found.sentence().endswith("does not stall in 200 points.")
        assert found.lost_s == 0

    @given(st.floats(0.01, 1e4), st.integers(0, 20))
    def test_the_clock_does_not_matter(self, scale: float, seed: int) -> None:
        took = np.random.default_rng(seed).exponential(size=60) ** 3 + 0.1
        seconds = np.cumsum(took)
        one = stalls(Curve("run", np.arange(60.0), seconds)).table
        other = stalls(Curve("run", np.arange(60.0), scale * seconds + 5)).table
        assert one["first_step"].to_list() == other["first_step"].to_list()
        assert np.allclose(scale * one["lost_s"].to_numpy(), other["lost_s"].to_numpy())

    def test_what_cannot_be(self) -> None:
        steps = np.arange(20.0)
        with pytest.raises(InvalidInputError, match="time goes back at step 11"):
            stalls(Curve("run", steps, np.where(steps > 10, steps - 10, steps)))
        with pytest.raises(InvalidInputError, match="too coarse"):
            stalls(Curve("run", steps, np.floor(steps / 5)))
        with pytest.raises(InvalidInputError, match="above 1"):
            stalls(Curve("run", steps, steps), gap=1.0)
        with pytest.raises(NotEnoughDataError, match="5 points with a time: stalls take 10"):
            stalls(Curve("run", steps[:5], steps[:5]))
