"""Bands that hold along a whole curve: coverage by simulation, and the first step of a reliable lead."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.curves import band, first_better
from ckptlake.analytics.curves.simultaneous import difference_band, mean_band
from ckptlake.errors import InvalidInputError, NotEnoughDataError

POINTS = 40
PLACES = np.linspace(0, 1, POINTS)
_APART = np.abs(PLACES[:, None] - PLACES)
NOISE = {
    "smooth": np.exp(-((_APART / 0.2) ** 2)),
    "wandering": np.exp(-_APART / 0.2),
    "white": np.eye(POINTS),
    "both": 0.6 * np.exp(-((_APART / 0.2) ** 2)) + 0.4 * np.eye(POINTS),
}


def coverage(kind: str, sizes: tuple[int, ...], n_simulations: int, n_resamples: int = 500) -> float:
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(NOISE[kind] + 1e-9 * np.eye(POINTS))
    truth = np.sin(5 * PLACES)
    hits = 0
    for _ in range(n_simulations):
        groups = [
            rng.standard_normal((n, POINTS)) @ root.T * scale for n, scale in zip(sizes, (1.0, 2.0), strict=False)
        ]
        groups[0] += truth
        bands = mean_band if len(groups) == 1 else difference_band
        found = bands(*groups, 0.95, n_resamples, 0)
        hits += bool(((found.low <= truth) & (truth <= found.high)).all())
    return hits / n_simulations


@pytest.mark.parametrize("kind", ["smooth", "white"])
def test_a_band_of_eight_runs_covers_as_it_says(kind: str) -> None:
    assert 0.93 <= coverage(kind, (8,), 2000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("sizes", [(6,), (8,), (20,), (6, 6), (8, 12), (20, 20)], ids=str)
def test_bands_cover_as_they_say(kind: str, sizes: tuple[int, ...]) -> None:
    assert 0.93 <= coverage(kind, sizes, 2000) <= 0.97


@pytest.mark.parametrize("kind", ["smooth", "white"])
@pytest.mark.parametrize("sizes", [(3,), (5,), (3, 3), (4, 5)], ids=str)
def test_few_runs_are_covered_at_least_as_often_as_said(kind: str, sizes: tuple[int, ...]) -> None:
    """Šidák's correction is exact for independent points and wider than needed for smooth ones."""
    assert coverage(kind, sizes, 2000) >= 0.93


def test_one_point_and_few_runs_are_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=(5, 1))
    found = mean_band(values, 0.95, 100, 0)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values)[0])
    assert (found.low[0], found.high[0]) == pytest.approx((low, high))


def test_one_point_and_two_small_groups_are_welchs_interval() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(4, 1)), rng.normal(0, 3, size=(5, 1))
    found = difference_band(first, second, 0.95, 100, 0)
    oracle = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False).confidence_interval(0.95)
    assert (found.low[0], found.high[0]) == pytest.approx((oracle.low, oracle.high))


@given(st.integers(3, 14), st.integers(1, 12), st.integers(0, 5))
def test_the_band_moves_and_grows_with_the_values(n: int, m: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(n, m))
    plain, moved = (mean_band(found, 0.9, 200, 0) for found in (values, 3.0 * values + 7.0))
    assert np.allclose(moved.low, 3.0 * plain.low + 7.0)
    assert np.allclose(moved.high, 3.0 * plain.high + 7.0)
    wider = mean_band(values, 0.99, 200, 0)
    assert (wider.high >= plain.high).all()


def runs(rng: np.random.Generator, name: str, n: int, lead: float = 0.0) -> list[Curve]:
    steps = np.arange(100.0)
    mean = 3.0 - lead * np.clip(steps - 40, 0, None) / 60
    return [Curve(f"{name}{run}", steps, mean + rng.normal(0, 0.1, 100)) for run in range(n)]


class TestBand:
    def test_runs_that_start_alike(self) -> None:
        curves = [Curve(str(run), np.arange(3.0), np.array([5.0, 4.0 + run, 3.0 - run])) for run in range(7)]
        found = band(curves)
        assert found.table["low"][0] == found.table["high"][0] == 5.0
        assert found.notes == ("at 1 grid point all runs have one value, and the band no width",)
        flat = band([Curve(str(run), np.arange(3.0), np.full(3, 0.1)) for run in range(12)])
        assert flat.table["high"].to_list() == pytest.approx([0.1] * 3)

    def test_it_ends_where_the_first_run_ends(self) -> None:
        rng = np.random.default_rng(0)
        curves = runs(rng, "a", 5)
        curves[2] = curves[2].until(50.0)
        found = band(curves)
        assert found.table["x"].max() == 50.0
        assert "a2 ends first" in found.notes[0]
        assert found.method == "Student t with Šidák's correction"
        assert band(runs(rng, "b", 6)).method == "sup-t bootstrap with sign flips"

    def test_the_seed_decides(self) -> None:
        curves = runs(np.random.default_rng(0), "a", 15)
        one, same, other = (band(curves, seed=seed, n_resamples=200).table for seed in (0, 0, 1))
        assert one.equals(same)
        assert not one.equals(other)

    @pytest.mark.parametrize("change", [{"level": 1.0}, {"n_resamples": 10}])
    def test_what_cannot_be(self, change: dict[str, float]) -> None:
        with pytest.raises(InvalidInputError):
            band(runs(np.random.default_rng(0), "a", 5), **change)  # type: ignore[arg-type]

    def test_two_runs_are_too_few(self) -> None:
        with pytest.raises(NotEnoughDataError, match="3 runs or more in a group, got 2"):
            band(runs(np.random.default_rng(0), "a", 2))


class TestFirstBetter:
    @pytest.mark.parametrize("n", [4, 10])
    def test_a_lead_is_found_after_it_began(self, n: int) -> None:
        rng = np.random.default_rng(3)
        ahead, behind = runs(rng, "run", n, lead=2.0), runs(rng, "run", n)
        found = first_better(ahead, behind, "min", labels=("ahead", "behind"))
        assert found.winner == "ahead"
        assert found.step is not None
        assert 40 < found.step < 80
        late = found.table.filter(pl.col("x") >= found.step)
        assert (late["high"] < 0).all()
        assert found.table.filter(pl.col("x") < found.step)["high"][-1] >= 0
        assert "ahead is reliably better than behind from step" in found.sentence()
        turned = first_better(behind, ahead, "min", labels=("behind", "ahead"))
        assert (turned.winner, turned.step) == ("ahead", found.step)
        assert first_better(ahead, behind, "max", labels=("ahead", "behind")).winner == "behind"

    def test_a_lead_that_is_lost_does_not_count(self) -> None:
        rng = np.random.default_rng(0)
        bump = np.where((np.arange(100) > 20) & (np.arange(100) < 60), -2.0, 0.0)
        early = [Curve(run.label, run.steps, run.values + bump) for run in runs(rng, "a", 8)]
        found = first_better(early, runs(rng, "b", 8), "min")
        assert (found.winner, found.step) == (None, None)
        assert found.sentence().startswith("Neither A nor B is reliably better at step 99")

    def test_equal_groups_are_seldom_told_apart(self) -> None:
        rng = np.random.default_rng(0)
        found = [first_better(runs(rng, "a", 6), runs(rng, "b", 6), "min", n_resamples=200) for _ in range(200)]
        assert sum(result.winner is not None for result in found) <= 0.05 * 200

    def test_direction_is_asked_for(self) -> None:
        with pytest.raises(InvalidInputError, match="'min' where lower"):
            first_better([], [], "down")  # type: ignore[arg-type]


def test_a_band_around_values_whose_variance_cannot_be_held_is_refused() -> None:
    curves = [Curve(str(run), np.arange(5.0), 1e300 + 1e299 * np.arange(5.0) * run) for run in range(6)]
    with pytest.raises(InvalidInputError, match="set those of runs that diverged to inf"):
        band(curves)
