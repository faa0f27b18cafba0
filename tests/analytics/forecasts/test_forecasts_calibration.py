"""What finished runs teach, and whether intervals made of their errors hold."""

from __future__ import annotations

import numpy as np
import pytest
from analytics_forecast_curves import STEPS, cooled_runs, half

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts import calibrate, forecast
from ckptlake.analytics.forecasts.reference import FinishedRuns, ReferenceClass
from ckptlake.errors import InvalidInputError, NotEnoughDataError


def test_finished_runs_tell_of_a_drop_that_no_curve_shows_yet() -> None:
    runs, _ = cooled_runs(np.random.default_rng(0), 40)
    errors, alone = [], []
    for at in range(0, 40, 4):
        known = calibrate([run for run in runs if run is not runs[at]])
        found = forecast(half(runs[at]), 64, calibration=known)
        assert found.beats_baselines
        errors.append(abs(found.value - runs[at].values[-1]))
        alone.append(abs(forecast(half(runs[at]), 64).value - runs[at].values[-1]))
    assert np.mean(errors) < np.mean(alone) / 2


def test_errors_held_back_are_those_of_forecasts_without_the_group() -> None:
    runs, groups = cooled_runs(np.random.default_rng(1), 8, repeats=3)
    known = calibrate(runs, groups=groups)
    reference = known.at(0.5)
    errors, spreads = reference.held_back()
    for group in (0, 5):
        members = np.flatnonzero(reference.runs.groups == group)
        others = known.runs.only(known.runs.groups != group)
        # The scale of the features and the typical change stay those of all runs, as in the closed form.
        likeness = reference.places[reference.runs.groups != group]
        cross = np.exp(-((reference.places[members][:, None] - likeness[None]) ** 2).sum(-1) / 8)
        inner = np.exp(-((likeness[:, None] - likeness[None]) ** 2).sum(-1) / 8)
        solver = np.linalg.inv(inner + np.diag(np.full(len(likeness), 0.1 * 3)))
        shares = (reference.levels - reference.runs.ends) / reference.changes
        told = reference.mean[-1] + cross @ solver @ (shares[reference.runs.groups != group] - reference.mean[-1])
        assert errors[members, -1] == pytest.approx(shares[members] - told)
        variances = 1 - np.einsum("ij,jk,ik->i", cross, solver, cross) + 0.1
        assert spreads[members] == pytest.approx(np.sqrt(variances))
        assert len(others.ends) == 21


def test_a_run_exactly_like_the_finished_ones_ends_like_them() -> None:
    values = 3 + 2 * STEPS**-0.5 - 0.5 * (STEPS > 40)
    runs = [Curve.of(str(k), STEPS, values + 0.01 * k) for k in range(10)]
    found = forecast(half(runs[3]), 64, calibration=calibrate(runs))
    assert found.value == pytest.approx(values[-1] + 0.03, abs=1e-6)
    assert found.checks[0].holds is True
    # The path knows of the drop at step 40.
    path = dict(zip(found.path["step"].to_list(), found.path["value"].to_list(), strict=True))
    assert path[48.0] == pytest.approx(values[47] + 0.03, abs=0.02)


def test_a_run_unlike_all_others_is_told() -> None:
    runs, _ = cooled_runs(np.random.default_rng(0), 12)
    strange = Curve.of("strange", STEPS[:32], 50 + 9 * STEPS[:32] ** -0.2)
    check = forecast(strange, 64, calibration=calibrate(runs)).checks[0]
    assert check.holds is False
    assert "level" in check.evidence


def test_accuracies_mirror_losses() -> None:
    runs, _ = cooled_runs(np.random.default_rng(2), 15)
    turned = [Curve.of(run.label, run.steps, 1 - run.values) for run in runs]
    loss = forecast(half(runs[0]), 64, calibration=calibrate(runs[1:]))
    accuracy = forecast(half(turned[0]), 64, calibration=calibrate(turned[1:], direction="max"), direction="max")
    assert accuracy.value == pytest.approx(1 - loss.value)
    assert loss.interval is not None
    assert accuracy.interval is not None
    assert accuracy.interval.low == pytest.approx(1 - loss.interval.high)
    assert accuracy.probability_better(1 - 2.5) == pytest.approx(loss.probability_better(2.5))
    assert accuracy.best_so_far == pytest.approx(1 - loss.best_so_far)


def test_another_outcome_can_be_forecast() -> None:
    runs, _ = cooled_runs(np.random.default_rng(3), 20)
    outcomes = [2 * float(run.values[-1]) for run in runs]
    known = calibrate(runs[1:], outcomes=outcomes[1:])
    found = forecast(half(runs[0]), 64, calibration=known)
    assert found.value == pytest.approx(outcomes[0], rel=0.05)
    assert found.path.height == 1


def test_too_few_groups_give_no_interval_and_fewer_none_at_all() -> None:
    runs, groups = cooled_runs(np.random.default_rng(4), 7, repeats=4)
    found = forecast(half(runs[0]), 64, calibration=calibrate(runs[4:], groups=groups[4:]))
    assert found.interval is None
    assert "no 90 % interval" in found.notes[-1]
    assert found.path["low"].null_count() == found.path.height
    assert "no interval" in found.sentence()
    with pytest.raises(NotEnoughDataError, match="4 groups of finished runs"):
        calibrate(runs[:16], groups=groups[:16])
    with pytest.raises(NotEnoughDataError, match=r"after 6\.2% of a run only 0 groups"):
        calibrate(runs).at(0.0625)


def test_what_is_left_out_of_finished_runs_is_told() -> None:
    runs, _ = cooled_runs(np.random.default_rng(5), 12)
    lost = Curve.of("lost", STEPS, np.where(STEPS < 50, 3.0, np.nan))
    holed = Curve.of("holed", STEPS, np.where(STEPS == 9, np.inf, 3 + STEPS**-0.5))
    short = Curve.of("short", STEPS[:5], STEPS[:5])
    known = calibrate([*runs, lost, holed, short, Curve.of("empty", STEPS[:0], STEPS[:0])])
    assert known.notes == (
        "2 of 16 finished runs diverged",
        "left out 1 finished run of fewer than 8 values",
        "left out 1 NaN or infinite values of finished runs",
    )
    assert (known.n, known.n_diverged, known.n_groups) == (13, 2, 13)
    assert "2 of 15 finished runs diverged" in forecast(half(runs[0]), 64, calibration=known).notes[0]


def test_unfitting_calibrations_are_refused() -> None:
    runs, _ = cooled_runs(np.random.default_rng(6), 12)
    with pytest.raises(InvalidInputError, match="12 curves need as many outcomes, got 1"):
        calibrate(runs, outcomes=[1.0])
    with pytest.raises(InvalidInputError, match="is for 'min', the forecast for 'max'"):
        forecast(half(runs[0]), 64, calibration=calibrate(runs), direction="max")
    with pytest.raises(InvalidInputError, match="direction='up'"):
        calibrate(runs, direction="up")  # type: ignore[arg-type]
    backwards = [Curve.of(str(k), STEPS - 100, 3 + STEPS**-0.5) for k in range(6)]
    with pytest.raises(InvalidInputError, match="ends at step 0 or before"):
        calibrate(backwards)


def test_windows_on_the_grid_are_those_of_the_curve() -> None:
    runs, _ = cooled_runs(np.random.default_rng(7), 1)
    on_grid = FinishedRuns.of(runs, np.array([runs[0].values[-1]]), np.array([0]), 1.0)
    fine = np.linspace(0, 64, 200_001)
    heights = np.interp(fine, runs[0].steps, runs[0].values)
    for end in (0.3, 0.5, 0.95):
        inside = (fine > (end - 0.05) * 64) & (fine <= end * 64)
        assert on_grid.levels(np.array([end]), 0.05)[0, 0] == pytest.approx(heights[inside].mean(), abs=2e-3)


def test_a_calibration_is_a_row_a_sentence_and_a_chart() -> None:
    runs, groups = cooled_runs(np.random.default_rng(8), 10, repeats=2)
    known = calibrate(runs, groups=groups, unit="nats")
    assert known.sentence().startswith("20 finished runs in 10 groups: from half of a run")
    table = known.table()
    assert table["fraction"].to_list() == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
    late = table.filter(table["fraction"] >= 0.5)
    assert (late["error"] < late["last_value_error"]).all()
    assert known.row()["n_groups"] == 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("groups", "repeats"), [(40, 1), (25, 3)])
def test_calibrated_intervals_hold_as_often_as_they_say(groups: int, repeats: int) -> None:
    """Of 400 projects, each with five live runs of configurations that none of its finished runs has."""
    random, inside, better = np.random.default_rng(0), [], []
    for _ in range(400):
        runs, labels = cooled_runs(random, groups + 5, repeats)
        known = calibrate(runs[5 * repeats :], groups=labels[5 * repeats :])
        for run in runs[: 5 * repeats : repeats]:
            found = forecast(half(run), 64, calibration=known, level=0.95)
            assert found.interval is not None
            inside.append(run.values[-1] in found.interval)
            better.append((found.probability_better(found.value - 0.05), run.values[-1] < found.value - 0.05))
    assert 0.93 <= np.mean(inside) <= 0.97
    told, came = np.mean(better, axis=0)
    assert told == pytest.approx(came, abs=0.03)


def test_reference_classes_of_repeats_weigh_as_one_run() -> None:
    runs, _ = cooled_runs(np.random.default_rng(9), 6)
    once = calibrate(runs).at(0.5)
    copies = calibrate([*runs, *[runs[0]] * 9], groups=[*range(6), *[0] * 9]).at(0.5)
    assert isinstance(copies, ReferenceClass)
    assert copies.mean == pytest.approx(once.mean)
    assert copies.centre == pytest.approx(once.centre)
    place = once.places[1] * once.scale + once.centre
    told = [one.outlooks(3.0, 0.2, place[None])[-1].centre for one in (once, copies)]
    assert told[0] == pytest.approx(told[1], abs=1e-9)
