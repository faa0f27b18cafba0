"""Curves on one grid, over other axes, and the area under them."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import interpolate

from ckptlake.analytics.curve import Curve, curves_of
from ckptlake.analytics.curves import align, areas_under, curve_groups, elapsed, rescale
from ckptlake.errors import InvalidInputError, NotEnoughDataError


@st.composite
def runs(draw: st.DrawFn) -> list[Curve]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        steps = np.unique(draw(st.lists(st.integers(0, 50), min_size=1, max_size=20))).astype(float)
        finite = st.floats(-1e6, 1e6)
        values = draw(st.lists(st.one_of(finite, finite, st.just(np.nan)), min_size=len(steps), max_size=len(steps)))
        if np.isfinite(values).any():
            found.append(Curve(f"run {number}", steps, np.array(values)))
    return found


@given(runs())
def test_aligned_values_are_the_logged_ones_or_lie_between_them(curves: list[Curve]) -> None:
    if not curves:
        return
    found = align(curves)
    for row, curve in zip(found.values, curves, strict=True):
        finite = curve.finite()
        logged = np.searchsorted(found.grid, finite.steps)
        assert np.array_equal(row[logged], finite.values)
        inside = (found.grid >= finite.steps[0]) & (found.grid <= finite.steps[-1])
        assert np.array_equal(np.isfinite(row), inside)
        assert row[inside].min() >= finite.values.min() - 1e-6
        assert row[inside].max() <= finite.values.max() + 1e-6


def test_interpolation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    curve = Curve.of("a", rng.uniform(0, 10, 40), rng.normal(size=40))
    grid = np.linspace(-1, 11, 200)
    expected = interpolate.make_interp_spline(curve.steps, curve.values, k=1)(grid, extrapolate=False)
    assert np.allclose(align([curve], grid=grid).values[0], expected, equal_nan=True)


def test_it_is_told_where_runs_end_and_which_diverged() -> None:
    long = Curve.of("long", np.arange(10.0), np.arange(10.0))
    short = Curve.of("short", np.arange(5.0), np.array([1.0, np.nan, 1.0, 2.0, np.inf]))
    found = align([long, short], x="step")
    assert found.ends.tolist() == [9.0, 3.0]
    assert found.notes == ("short: 2 values of 5 NaN or infinite; it diverged and counts until 3",)
    assert found.sentence() == "2 runs on 10 points from step 0 to 9; the first run ends at 3."
    both = found.overlap()
    assert both.grid.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert both.notes[-1] == "only step 0 to 3 lies in every run, of 0 to 9; short ends first"
    assert found.table.filter(pl.col("run") == "short")["value"].null_count() == 6


def test_the_grid_says_what_it_is() -> None:
    rng = np.random.default_rng(1)
    few = [Curve.of(str(run), np.arange(3.0), np.ones(3)) for run in range(2)]
    assert align(few).method.endswith("all 3 distinct steps")
    many = [Curve.of(str(run), rng.uniform(size=3000), np.ones(3000)) for run in range(2)]
    assert align(many).method.endswith("500 evenly spaced points")


@pytest.mark.parametrize(
    ("curves", "grid", "told"),
    [
        ([], None, "no curve"),
        ([Curve.of("a", np.zeros(1), np.array([np.nan]))], None, "no finite value in a"),
        ([Curve.of("a", np.zeros(1), np.ones(1))] * 2, None, "several curves have the label a"),
        ([Curve.of("a", np.zeros(1), np.ones(1))], np.array([2.0, 1.0]), "a row of finite numbers that rises"),
        ([Curve.of("a", np.zeros(1), np.ones(1))], np.array([]), "a row of finite numbers that rises"),
    ],
)
def test_what_cannot_be_aligned(curves: list[Curve], grid: np.ndarray | None, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        align(curves, grid=grid)


def test_nothing_shared_names_the_runs() -> None:
    apart = [Curve.of("a", np.array([0.0, 1.0]), np.ones(2)), Curve.of("b", np.array([5.0, 6.0]), np.ones(2))]
    with pytest.raises(NotEnoughDataError, match="b begins at step 5 and a ends at step 1"):
        align(apart).overlap()
    with pytest.raises(NotEnoughDataError, match="b begins at step 5 and a ends at 1"):
        areas_under(apart)


class TestAxes:
    def test_loss_over_tokens(self) -> None:
        frame = pl.DataFrame({"run_id": ["a"] * 3, "step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "tokens": [0, 100, 100]})
        loss = curves_of(frame, value="loss")
        found = rescale(loss, curves_of(frame, value="tokens")).curves[0]
        assert found.steps.tolist() == [0.0, 100.0]
        assert found.values.tolist() == [3.0, 1.0]
        assert found.n_repeated == 1

    def test_an_axis_must_not_fall(self) -> None:
        loss = Curve.of("a", np.arange(3.0), np.ones(3))
        with pytest.raises(InvalidInputError, match="'a' falls after step 1"):
            rescale([loss], [Curve.of("a", np.arange(3.0), np.array([0.0, 2.0, 1.0]))])
        with pytest.raises(InvalidInputError, match="'a' has no curve"):
            rescale([loss], [Curve.of("b", np.arange(3.0), np.arange(3.0))])
        with pytest.raises(InvalidInputError, match="no finite value"):
            rescale([loss], [Curve.of("a", np.arange(1.0), np.array([np.nan]))])

    def test_seconds_count_from_the_start_of_each_run(self) -> None:
        start = datetime(2026, 1, 1)
        frame = pl.DataFrame(
            {"run_id": ["b", "a", "a"], "timestamp": [start, start + timedelta(1), start + timedelta(1, 1.5)]}
        )
        assert elapsed(frame)["elapsed_s"].to_list() == [0.0, 0.0, 1.5]
        with pytest.raises(InvalidInputError, match="not datetimes"):
            elapsed(pl.DataFrame({"run_id": ["a"], "timestamp": [1.0]}))

    def test_groups_keep_the_order_of_the_frame(self) -> None:
        frame = pl.DataFrame({"lr": [2, 1], "run_id": ["a", "b"], "step": [1, 1], "value": [1.0, 2.0]})
        assert {key: [run.label for run in found] for key, found in curve_groups(frame, "lr").items()} == {
            "lr=2": ["a"],
            "lr=1": ["b"],
        }


class TestAreas:
    @given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 4), st.floats(0.1, 5))
    def test_under_a_line_it_is_known(self, height: float, slope: float, start: float, width: float) -> None:
        steps = np.sort(np.random.default_rng(0).uniform(0, 10, 30))
        steps[0], steps[-1] = 0.0, 10.0
        curve = Curve.of("a", steps, height + slope * steps)
        end = start + width
        expected = height * width + slope * (end**2 - start**2) / 2
        assert areas_under([curve], start=start, end=end).table["area"][0] == pytest.approx(expected, abs=1e-9)

    def test_runs_are_compared_over_the_range_they_share(self) -> None:
        one = Curve.of("one", np.array([0.0, 10.0]), np.array([4.0, 2.0]))
        two = Curve.of("two", np.array([0.0, 5.0]), np.array([1.0, 1.0]))
        found = areas_under([one, two], unit="nats")
        assert (found.start, found.end) == (0.0, 5.0)
        assert found.table["mean"].to_list() == [3.5, 1.0]
        assert found.sentence() == "Of 2 runs from step 0 to 5 the least mean height is 1 (two), the most 3.5 (one)."
        assert areas_under([one]).sentence() == "The mean height of one from step 0 to 10 is 3."

    def test_the_range_must_be_covered(self) -> None:
        with pytest.raises(InvalidInputError, match="they cover 0 to 1"):
            areas_under([Curve.of("a", np.arange(2.0), np.ones(2))], end=2.0)
