"""Verdicts: divergences of many shapes are found, healthy curves of many kinds raise no alarm."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.trends import ALARMS, Limits, alarm_rate, verdict, verdicts
from ckptlake.analytics.trends.excursions import memory_of, noise_of
from ckptlake.analytics.trends.judging import not_finite_from
from ckptlake.analytics.trends.tails import swing_of
from ckptlake.errors import InvalidInputError, NotEnoughDataError

REAL = Path(__file__).resolve().parents[3] / "../shared/data/speedrun.parquet"
LOG_VOCABULARY = 10.83
Rng = np.random.Generator
N = 400


def healthy(rng: Rng, n: int = N, noise: float = 0.05) -> np.ndarray:
    """A loss that falls as a power of the step from ln(vocabulary), drops in a cooldown, and is noisy."""
    place = np.arange(n) / n
    loss = 3.2 + 7.6 * (1 + place * rng.uniform(50, 400)) ** -rng.uniform(0.5, 1.0)
    cooldown = rng.uniform(0.6, 0.9)
    loss -= rng.uniform(0.0, 0.2) * np.clip((place - cooldown) / (1 - cooldown), 0, 1)
    return loss + signal.lfilter([1], [1, -rng.uniform(0, 0.6)], rng.normal(0, noise, n))


def onset_of(rng: Rng) -> int:
    return int(rng.integers(N // 5, N - N // 8))


def after(values: np.ndarray, onset: int, rise: np.ndarray | float) -> np.ndarray:
    broken = values.copy()
    broken[onset:] += rise
    return broken


def slow_blow_up(rng: Rng) -> tuple[np.ndarray, int]:
    onset = onset_of(rng)
    place = np.linspace(0, 1, N - onset)
    return after(healthy(rng), onset, rng.uniform(3, 20) * place ** rng.uniform(1, 3)), onset


def exponential_blow_up(rng: Rng) -> tuple[np.ndarray, int]:
    onset = onset_of(rng)
    return after(healthy(rng), onset, np.exp(np.arange(N - onset) * rng.uniform(0.05, 0.5)) - 1), onset


def jump_and_stay(rng: Rng) -> tuple[np.ndarray, int]:
    onset = onset_of(rng)
    return after(healthy(rng), onset, rng.uniform(3, 10)), onset


def to_log_vocabulary(rng: Rng) -> tuple[np.ndarray, int]:
    onset, broken = onset_of(rng), healthy(rng)
    rise = 1 - np.exp(-np.arange(N - onset) / rng.uniform(0.5, 5))
    broken[onset:] += (LOG_VOCABULARY - broken[onset:]) * rise
    return broken, onset


def growing_oscillation(rng: Rng) -> tuple[np.ndarray, int]:
    onset = int(rng.integers(N // 5, N // 2))
    place = np.linspace(0, 1, N - onset)
    return after(healthy(rng), onset, rng.uniform(4, 10) * place**2 * np.sin(place * rng.uniform(60, 200))), onset


def nan_for_good(rng: Rng) -> tuple[np.ndarray, int]:
    onset = onset_of(rng)
    return after(healthy(rng), onset, np.nan), onset


def infinite_for_good(rng: Rng) -> tuple[np.ndarray, int]:
    onset = onset_of(rng)
    return after(healthy(rng), onset, np.inf), onset


def overflow(rng: Rng) -> tuple[np.ndarray, int]:
    """It blows up and ends in NaN."""
    broken, onset = exponential_blow_up(rng)
    broken[onset + (N - onset) // 2 :] = np.nan
    return broken, onset + (N - onset) // 2


def climb_and_stay(rng: Rng) -> tuple[np.ndarray, int]:
    """It climbs to a level ten standard deviations of its noise higher, at once or over half of what is left."""
    onset = onset_of(rng)
    fall = 3 + rng.uniform(0, 0.4) * np.arange(1.0, N + 1) ** -0.5
    rise = 10 * 0.02 * np.minimum(np.arange(1.0, N - onset + 1) / rng.uniform(1, (N - onset) / 2), 1)
    return after(fall + rng.normal(0, 0.02, N), onset, rise), onset


def climb_to_nan(rng: Rng) -> tuple[np.ndarray, int]:
    """As that, and NaN in the end."""
    broken, onset = climb_and_stay(rng)
    lost = int(rng.integers(onset + (N - onset) // 2, N))
    broken[lost:] = np.nan
    return broken, lost


DIVERGENCES: list[Callable[[Rng], tuple[np.ndarray, int]]] = [
    slow_blow_up, exponential_blow_up, jump_and_stay, to_log_vocabulary, growing_oscillation, nan_for_good,
    infinite_for_good, overflow, climb_and_stay, climb_to_nan,
]  # fmt: skip


@pytest.mark.parametrize("shape", DIVERGENCES, ids=lambda shape: shape.__name__)
def test_divergences_are_found_with_their_onset(shape: Callable[[Rng], tuple[np.ndarray, int]]) -> None:
    rng = np.random.default_rng(0)
    n_runs, n_found, lateness = 200, 0, []
    for _ in range(n_runs):
        values, onset = shape(rng)
        found = verdict(Curve("run", np.arange(float(N)), values), "min")
        n_found += found.kind in ALARMS
        if found.kind in ALARMS and found.step is not None:
            lateness.append(found.step - onset)
    assert n_found >= 0.98 * n_runs
    late = np.array(lateness)
    if shape in (nan_for_good, infinite_for_good, overflow, climb_to_nan):
        assert (late == 0).all()
    if shape is jump_and_stay:
        assert (np.abs(late) <= 1).all()
    if shape is not growing_oscillation:
        assert np.quantile(np.abs(late), 0.9) <= N / 6


def test_healthy_curves_of_many_kinds_raise_no_alarm() -> None:
    rng = np.random.default_rng(1)
    n_alarms, n_runs = 0, 0
    for number in range(150):
        n = int(rng.integers(10, 1500))
        wander = signal.lfilter([1], [1, -rng.uniform(0, 0.9)], rng.standard_normal(n))
        for values in (healthy(rng, n, rng.choice([0.001, 0.05, 0.3])), 3 + 0.1 * wander, np.full(n, 0.1 * number)):
            found = verdict(Curve("run", np.arange(float(n)), values), "min")
            n_alarms, n_runs = n_alarms + (found.kind in ALARMS), n_runs + 1
    assert n_alarms <= 0.01 * n_runs


def departures(rng: Rng, n: int, coefficient: float, falls: bool, n_curves: int) -> float:
    """Return the share of curves without a departure of their own that are called diverged or spiked."""
    kinds = []
    for _ in range(n_curves):
        noise = signal.lfilter([np.sqrt(1 - coefficient**2)], [1, -coefficient], rng.standard_normal(n + 200))[200:]
        fall = rng.uniform(1, 60) * np.arange(1.0, n + 1) ** -rng.uniform(0.2, 0.8) if falls else 0.0
        kinds.append(verdict(Curve("run", np.arange(float(n)), noise + fall), "min").kind)
    return (kinds.count("diverged") + kinds.count("recovered")) / n_curves


def test_wandering_noise_is_no_departure() -> None:
    assert departures(np.random.default_rng(0), 200, 0.9, False, 300) <= 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("falls", [False, True], ids=["level", "falling"])
@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [200, 1000, 5000])
def test_first_order_noise_is_rarely_a_departure(n: int, coefficient: float, falls: bool) -> None:
    assert departures(np.random.default_rng(n), n, coefficient, falls, 2000) <= 0.05


@pytest.mark.parametrize("metric", ["val_loss", "train_loss"])
def test_real_runs_that_ended_well_raise_no_alarm(metric: str) -> None:
    if not REAL.exists():
        pytest.skip("the training curves of real runs are not beside the repository")
    frame = pl.read_parquet(REAL).filter(pl.col("metric") == metric)
    found = verdicts(frame, "min", run=["record", "run"])
    rate = alarm_rate(found)
    assert rate.n >= 70
    assert rate.share < 0.01
    assert set(found.counts) <= {"improving", "plateau", "undecided", "recovered"}


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_real_runs_under_way_raise_no_alarm(share: float) -> None:
    if not REAL.exists():
        pytest.skip("the training curves of real runs are not beside the repository")
    frame = pl.read_parquet(REAL).filter(
        pl.col("metric") == "train_loss", pl.col("step") < share * pl.col("total_steps")
    )
    assert alarm_rate(verdicts(frame, "min", run=["record", "run"])).n_alarms == 0


@pytest.mark.parametrize("shape", [slow_blow_up, jump_and_stay, to_log_vocabulary], ids=lambda shape: shape.__name__)
def test_real_runs_with_a_divergence_at_their_end_do(shape: Callable[[Rng], tuple[np.ndarray, int]]) -> None:
    """The rise of a synthetic divergence is laid over the last third of real training curves."""
    if not REAL.exists():
        pytest.skip("the training curves of real runs are not beside the repository")
    frame = pl.read_parquet(REAL).filter(pl.col("metric") == "train_loss")
    runs = frame.partition_by("run")
    for run in runs:
        curve = Curve.of("run", run["step"].to_numpy().astype(float), run["value"].to_numpy())
        values = curve.values.copy()
        begin = 2 * len(values) // 3
        place = np.linspace(0, 1, len(values) - begin)
        rise = {slow_blow_up: 5 * place**2, jump_and_stay: np.full_like(place, 3.0)}.get(shape)
        values[begin:] = LOG_VOCABULARY if rise is None else values[begin:] + rise
        assert verdict(Curve("run", curve.steps, values), "min").kind == "diverged"


class TestKinds:
    steps = np.arange(600.0)
    noise = np.random.default_rng(5).normal(0, 0.05, 600)

    def of(self, values: np.ndarray, direction: str = "min", **given: object):  # type: ignore[no-untyped-def]
        return verdict(Curve("run", self.steps[: len(values)], values), direction, **given)  # type: ignore[arg-type]

    def test_a_plateau_has_a_begin(self) -> None:
        """An equivalence test at 95 % with this noise finds most; what it misses is undecided, seldom a trend."""
        loss = 3 + 5 * np.clip(1 - self.steps / 200, 0, None)
        found = [self.of(loss + np.random.default_rng(seed).normal(0, 0.05, 600)) for seed in range(100)]
        level = [one for one in found if one.kind == "plateau"]
        assert len(level) >= 80
        assert sum(one.step is not None and 180 <= one.step <= 220 for one in level) >= 0.95 * len(level)
        assert all(one.confidence is not None and one.confidence >= 0.95 for one in level)
        assert sum(one.kind == "undecided" for one in found) >= 95 - len(level)

    def test_a_level_stretch_before_a_cooldown_is_no_plateau(self) -> None:
        loss = 3 + 5 * np.clip(1 - self.steps / 200, 0, None) - 0.5 * np.clip((self.steps - 450) / 150, 0, None)
        assert self.of(loss + self.noise).kind == "improving"

    def test_a_spike_that_was_recovered(self) -> None:
        loss = 3 + 5 * np.exp(-self.steps / 200) + self.noise
        loss[300:315] += 4
        found = self.of(loss)
        assert (found.kind, found.tail) == ("recovered", "improving")
        assert found.step is not None
        assert 300 <= found.step < 315
        assert found.table.row(0)[0] == "left its best level by"

    def test_one_stray_point_is_evidence_and_no_verdict(self) -> None:
        loss = 3 + 5 * np.exp(-self.steps / 200) + self.noise
        loss[300] += 4
        found = self.of(loss)
        assert found.kind == "improving"
        assert found.table.filter(seen="single points far off:")["value"].to_list() == [1.0]

    def test_a_rise_at_the_very_end_is_not_yet_a_divergence(self) -> None:
        loss = 3 + 5 * np.exp(-self.steps / 200) + self.noise
        loss[-2:] = 11
        found = self.of(loss)
        assert found.kind not in ALARMS
        assert "the last 2 points left the best level: 3 would be a divergence" in found.notes
        loss[-3:] = 11
        assert (self.of(loss).kind, self.of(loss).step) == ("diverged", 597.0)

    def test_seven_validation_points_suffice_for_a_divergence(self) -> None:
        loss = np.array([10.83, 4.5, 4.0, 3.8, 3.6, 3.4, 3.28])
        assert self.of(loss).kind == "undecided"
        loss[4:] = 7.5, 7.6, 7.4
        assert (self.of(loss).kind, self.of(loss).step) == ("diverged", 4.0)

    def test_a_regular_oscillation(self) -> None:
        found = self.of(3 + 5 * np.exp(-self.steps / 50) + 0.5 * np.sin(self.steps / 3) + self.noise)
        assert found.kind == "oscillating"
        period = found.table.filter(seen="period in steps")["value"][0]
        assert period == pytest.approx(6 * np.pi, rel=0.05)
        assert found.table.filter(seen="amplitude")["value"][0] == pytest.approx(0.5, rel=0.1)

    def test_slow_overfitting_gets_worse(self) -> None:
        loss = 3 + 2 * np.exp(-self.steps / 50) + 0.3 * np.clip((self.steps - 200) / 400, 0, None)
        assert self.of(loss + 0.2 * self.noise).kind == "worsening"

    def test_too_noisy_to_tell_says_how_many_points_it_takes(self) -> None:
        rng = np.random.default_rng(0)
        found = self.of(3 + rng.normal(0, 1, 14))
        assert found.kind == "undecided"
        assert found.confidence is None
        assert found.notes

    def test_direction_turns_a_curve_over(self) -> None:
        accuracy = 0.9 - 0.8 * np.exp(-self.steps / 100) + 0.005 * self.noise
        accuracy[400:] = 0.1
        assert (self.of(accuracy, "max").kind, self.of(accuracy, "max").step) == ("diverged", 400.0)
        turned = self.of(-accuracy, "min")
        assert (turned.kind, turned.step) == ("diverged", 400.0)

    def test_limits_are_the_callers(self) -> None:
        loss = 3 + 5 * np.exp(-self.steps / 50) + self.noise
        loss[400:] += 0.8
        assert self.of(loss).kind == "worsening"
        assert self.of(loss, limits=Limits(lost_share=0.1)).kind == "diverged"

    def test_blow_up_before_nan_is_evidence(self) -> None:
        values, onset = overflow(np.random.default_rng(0))
        found = self.of(values)
        assert (found.kind, found.step, found.confidence) == ("not finite", float(onset), 1.0)
        assert found.table["seen"].to_list()[1] == "had left its best level before, by"
        assert found.notes[0].endswith("NaN or infinite")


class TestDegenerate:
    @pytest.mark.parametrize("n", range(10))
    def test_few_points_are_undecided(self, n: int) -> None:
        found = verdict(Curve("run", np.arange(float(n)), np.linspace(5, 3, n)), "min")
        assert found.kind == "undecided"
        assert "takes 10" in found.notes[-1]
        assert "takes 10" in found.sentence() or n

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_all_values_not_finite(self, bad: float) -> None:
        found = verdict(Curve("run", np.arange(3.0), np.full(3, bad)), "min")
        assert (found.kind, found.step, found.n) == ("not finite", 0.0, 0)

    def test_a_metric_that_is_often_missing_is_not_lost(self) -> None:
        values = np.full(1000, np.nan)
        values[::10] = np.linspace(5, 3, 100)
        assert verdict(Curve("run", np.arange(1000.0), values), "min").kind == "improving"
        assert not_finite_from(Curve("run", np.arange(1000.0), values)) is None
        infinite = np.append(values[:-1], np.inf)
        assert not_finite_from(Curve("run", np.arange(1000.0), infinite)) == 991
        values[500:] = np.nan
        assert verdict(Curve("run", np.arange(1000.0), values), "min").step == 491.0

    @given(
        st.lists(st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 1e30, np.nan])), max_size=200),
        st.sampled_from(["min", "max"]),
    )
    def test_any_curve_has_a_verdict_a_row_and_a_chart(self, values: list[float], direction: str) -> None:
        curve = Curve("run", np.arange(float(len(values))), np.array(values, np.float64))
        found = verdict(curve, direction)  # type: ignore[arg-type]
        assert found.sentence().startswith("run: ")
        assert found.row()["kind"] == found.kind
        assert found.chart().spec["title"]
        assert found.confidence is None or 0 <= found.confidence <= 1
        if values and not np.isfinite(values[-1]) and np.isfinite(values[:-1]).all():
            assert found.kind == "not finite"

    @given(st.integers(0, 50), st.floats(0.01, 100), st.floats(-50, 50))
    def test_a_verdict_does_not_depend_on_the_unit(self, seed: int, scale: float, shift: float) -> None:
        rng = np.random.default_rng(seed)
        values = DIVERGENCES[seed % 5](rng)[0] if seed % 2 else healthy(rng)
        steps = np.arange(float(N))
        one = verdict(Curve("run", steps, values), "min")
        other = verdict(Curve("run", 7 * steps, values * scale + shift), "min")
        assert one.kind == other.kind
        assert other.step == (None if one.step is None else 7 * one.step)

    def test_the_direction_is_asked_for(self) -> None:
        with pytest.raises(InvalidInputError, match="'min' where lower"):
            verdict(Curve("run", np.zeros(0), np.zeros(0)), "down")  # type: ignore[arg-type]
        with pytest.raises(NotEnoughDataError, match="no rows"):
            verdicts(pl.DataFrame({"run_id": [], "step": [], "value": []}), "min")

    def test_a_million_points(self) -> None:
        rng = np.random.default_rng(0)
        values = 3 + 7 * np.exp(-np.arange(1e6) / 1e5) + rng.normal(0, 0.1, 10**6)
        found = verdict(Curve("run", np.arange(1e6), values), "min")
        assert found.kind == "plateau"
        assert len(found.chart().spec["data"]["values"]) <= 1000


class TestMany:
    def frame(self) -> pl.DataFrame:
        rng = np.random.default_rng(0)
        curves = {"good": healthy(rng), "broken": jump_and_stay(rng)[0], "lost": nan_for_good(rng)[0]}
        return pl.concat(pl.DataFrame({"run_id": n, "step": np.arange(N), "value": v}) for n, v in curves.items())

    def test_counts_and_alarms(self) -> None:
        found = verdicts(self.frame(), "min")
        assert [one.label for one in found.alarms] == ["broken", "lost"]
        assert found.counts["not finite"] == found.counts["diverged"] == 1
        assert "Lost: broken and lost." in found.sentence()
        assert found.table["run"].to_list() == ["good", "broken", "lost"]
        rate = alarm_rate(found)
        assert rate.share == pytest.approx(2 / 3)
        assert rate.interval is not None
        assert rate.share in rate.interval
        assert rate.sentence().startswith("2 of 3 curves are called lost, 66.7 %")

    @pytest.mark.slow
    def test_a_thousand_curves_of_a_thousand_points_take_seconds(self) -> None:
        rng = np.random.default_rng(0)
        values = np.concatenate([healthy(rng, 1000) for _ in range(1000)])
        frame = pl.DataFrame({"run_id": np.repeat(np.arange(1000), 1000), "step": np.tile(np.arange(1000), 1000)})
        frame = frame.with_columns(value=pl.Series(values))
        began = time.process_time()
        found = verdicts(frame, "min")
        assert found.n == 1000
        assert time.process_time() - began < 5.0


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_noise_seldom_looks_like_an_oscillation(coefficient: float) -> None:
    rng = np.random.default_rng(0)
    noise = (signal.lfilter([1], [1, -coefficient], rng.standard_normal(700))[200:] for _ in range(500))
    assert sum(swing_of(values) is not None for values in noise) <= 0.02 * 500


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_noise_is_as_wide_as_it_wanders_whatever_the_curve_does(coefficient: float) -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(100):
        noise = signal.lfilter([np.sqrt(1 - coefficient**2)], [1, -coefficient], rng.standard_normal(1200))[200:]
        fall = 60 * np.arange(1.0, 1001) ** -0.5
        fall[700:] += 10  # no part of the noise
        found.append((noise_of(noise + fall), memory_of(noise + fall)))
    assert np.median(found, axis=0) == pytest.approx((1.0, coefficient), abs=0.1)


@given(st.integers(0, 400), st.floats(1e-3, 1e3))
def test_noise_has_the_unit_of_the_values_and_a_constant_none(n: int, scale: float) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert noise_of(scale * values) == pytest.approx(scale * noise_of(values), rel=1e-9)
    assert memory_of(scale * values) == pytest.approx(memory_of(values), rel=1e-9)
    assert noise_of(np.full(n, scale)) <= 1e-12 * scale


@pytest.mark.parametrize(
    "told",
    [
        {"noise": 0.0}, {"level": 95.0}, {"lost_share": float("nan")}, {"spike_share": -0.1}, {"noise": True},
        {"plateau_share": "0.1"}, {"noise": np.inf},
    ],
)  # fmt: skip
def test_limits_that_cannot_be(told: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=rf"{next(iter(told))}="):
        Limits(**told)
