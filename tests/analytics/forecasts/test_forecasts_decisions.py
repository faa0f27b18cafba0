"""When a target is reached, whether a run is worth its rest, and how charts of it look to a renderer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import vl_convert
from analytics_forecast_curves import STEPS, cooled_runs, half

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts import calibrate, forecast, forecast_many, forecast_step, should_stop
from ckptlake.analytics.results import Result
from ckptlake.errors import InvalidInputError, NotEnoughDataError

LOSS = 3 + 2 * STEPS**-0.5
RUNS, _ = cooled_runs(np.random.default_rng(0), 30)


class TestTargets:
    def test_the_step_of_a_power_law_is_that_of_its_formula(self) -> None:
        found = forecast_step(Curve.of("a", STEPS[:32], LOSS[:32]), 3.28, 64)
        assert found.step == pytest.approx((2 / 0.28) ** 2, rel=0.01)
        assert found.probability > 0.99
        assert found.interval is not None
        assert found.step in found.interval

    def test_a_target_reached_already_is_told_with_its_step(self) -> None:
        found = forecast_step(Curve.of("a", STEPS[:32], LOSS[:32]), 4.0, 64)
        assert (found.reached, found.step, found.probability) == (True, 4.0, 1.0)
        assert found.sentence() == "a has reached 4 at step 4."

    def test_a_target_out_of_reach_is_infinitely_far(self) -> None:
        found = forecast_step(half(RUNS[0]), 0.5, 64, calibration=calibrate(RUNS[1:]))
        assert found.step == np.inf
        assert found.probability < 0.05
        assert "more likely than not it does not" in found.sentence()

    def test_accuracies_rise_to_a_target(self) -> None:
        found = forecast_step(Curve.of("a", STEPS[:32], 4 - LOSS[:32]), 0.72, 64, direction="max")
        assert found.step == pytest.approx((2 / 0.28) ** 2, rel=0.01)

    def test_intervals_of_steps_hold_with_finished_runs(self) -> None:
        random, hits, n = np.random.default_rng(1), 0, 100
        for _ in range(n):
            runs, _ = cooled_runs(random, 25)
            live, target = runs[0], float(runs[0].values[47:50].mean())
            found = forecast_step(half(live), target, 64, calibration=calibrate(runs[1:]))
            hits += found.reached or (found.interval is not None and 49 in found.interval)
        assert hits / n > 0.85

    def test_what_tells_no_steps_is_refused(self) -> None:
        ends = calibrate(RUNS, outcomes=[1.0] * len(RUNS))
        with pytest.raises(InvalidInputError, match="where runs end, not when"):
            forecast_step(half(RUNS[0]), 3.0, 64, calibration=ends)
        with pytest.raises(InvalidInputError, match="target=nan: a finite number"):
            forecast_step(half(RUNS[0]), float("nan"), 64)


class TestStopping:
    def test_a_hopeless_run_is_stopped_and_a_good_one_is_not(self) -> None:
        bad = should_stop(Curve.of("bad", STEPS[:32], LOSS[:32] + 3), RUNS)
        good = should_stop(Curve.of("good", STEPS[:32], LOSS[:32] - 1.5), RUNS)
        assert (bad.advice, good.advice) == ("stop", "continue")
        assert bad.probability < 0.05 < 0.9 < good.probability
        assert bad.target == min(run.values[-1] for run in RUNS)
        assert bad.sentence().endswith("at step 64.")
        assert "stop it" in bad.sentence()

    def test_probabilities_come_true(self) -> None:
        random, told, came = np.random.default_rng(2), [], []
        for _ in range(80):
            runs, _ = cooled_runs(random, 25)
            target = float(np.median([run.values[-1] for run in runs[1:]]))
            told.append(should_stop(half(runs[0]), runs[1:], target=target).probability)
            came.append(runs[0].values[-1] < target)
        assert np.mean(told) == pytest.approx(np.mean(came), abs=0.1)
        assert np.mean((np.array(told) - came) ** 2) < 0.05

    def test_runs_that_diverged_lower_the_probability(self) -> None:
        lost = [Curve.of(f"lost {k}", STEPS, np.where(STEPS < 60, LOSS, np.nan)) for k in range(10)]
        live = half(RUNS[0])
        calm, wild = (should_stop(live, [*RUNS[1:], *more], target=3.0) for more in ([], lost))
        assert wild.probability == pytest.approx(calm.probability * 29 / 39)

    def test_accuracies(self) -> None:
        turned = [Curve.of(run.label, STEPS, 10 - run.values) for run in RUNS]
        found = should_stop(Curve.of("bad", STEPS[:32], 7 - LOSS[:32]), turned, direction="max")
        assert found.target == max(run.values[-1] for run in turned)
        assert found.advice == "stop"

    def test_few_others_leave_the_curve_to_tell_alone(self) -> None:
        found = should_stop(Curve.of("a", STEPS[:32], LOSS[:32] + 1), RUNS[:3])
        assert found.notes[0].startswith("the curve had to tell alone: 3 groups")
        assert found.advice == "stop"

    def test_few_groups_cannot_call_a_run_hopeless(self) -> None:
        found = should_stop(Curve.of("bad", STEPS[:32], LOSS[:32] + 3), RUNS[:8])
        assert found.probability == pytest.approx(1 / 18)
        assert found.advice == "continue"
        assert "no probability below 5.56 %" in found.notes[0]

    def test_no_advice_is_given_where_forecasts_are_no_better_than_the_last_value(self) -> None:
        noise = np.random.default_rng(0).normal(size=(21, 64))
        runs = [Curve.of(str(k), STEPS, noise[k]) for k in range(20)]
        found = should_stop(Curve.of("a", STEPS[:32], np.full(32, 5.0)), runs)
        assert found.advice == "cannot tell"
        assert "let it run" in found.sentence()

    def test_what_cannot_be_asked_is_refused(self) -> None:
        live = half(RUNS[0])
        with pytest.raises(InvalidInputError, match="2 different steps: pass horizon"):
            should_stop(live, [RUNS[1], half(RUNS[2])])
        with pytest.raises(InvalidInputError, match="pass target="):
            should_stop(live, [], horizon=64)
        with pytest.raises(InvalidInputError, match="least_probability=5: a probability"):
            should_stop(live, RUNS, least_probability=5)
        with pytest.raises(NotEnoughDataError):
            should_stop(live.until(5), RUNS)


live = half(RUNS[0])
KNOWN = calibrate(RUNS[1:], unit="nats")
RESULTS: dict[str, Result] = {
    "alone": forecast(live, 64),
    "calibrated": forecast(live, 64, calibration=KNOWN),
    "many": forecast_many([half(run) for run in RUNS[:5]], 64, calibration=KNOWN),
    "calibration": KNOWN,
    "step": forecast_step(live, float(RUNS[0].values[50]), 64, calibration=KNOWN),
    "stop": should_stop(live, RUNS[1:]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_rows_sentences_and_charts(name: str) -> None:
    found = RESULTS[name]
    spec = json.dumps(found.chart().spec, allow_nan=False)
    assert vl_convert.vegalite_to_png(spec, vl_version="5.20").startswith(b"\x89PNG")
    assert found.sentence().endswith(".")
    assert "nan" not in found.sentence()
    assert {"n", "method", "notes"} <= set(found.row())
