"""Summaries, the assumptions that are looked at, and corrections of p-values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ckptlake.analytics.frames import Sample
from ckptlake.analytics.statistics import (
    BCa,
    Last,
    Percentile,
    adjusted,
    equal_variances,
    normality,
    readings,
    summarise,
    summary,
)
from ckptlake.errors import InvalidInputError, NotEnoughDataError

SPEEDRUN = Path(__file__).resolve().parents[3] / "../shared/data/speedrun.parquet"
NAN = float("nan")


class TestSummaries:
    @given(st.lists(st.floats(-1e3, 1e3).map(lambda value: round(value, 2)), min_size=4, max_size=50))
    def test_figures_are_those_of_numpy_and_scipy(self, values: list[float]) -> None:
        assume(np.std(values) > 1e-3)
        found = summary(Sample("", np.array(values)))
        expected = {
            "mean": np.mean(values), "std": np.std(values, ddof=1), "sem": stats.sem(values), "min": min(values),
            "q05": np.quantile(values, 0.05), "q25": np.quantile(values, 0.25), "median": np.median(values),
            "q75": np.quantile(values, 0.75), "q95": np.quantile(values, 0.95), "max": max(values),
            "mad": stats.median_abs_deviation(values), "iqm": stats.trim_mean(values, 0.25),
            "trimmed_mean": stats.trim_mean(values, 0.1), "skewness": stats.skew(values, bias=False),
            "excess_kurtosis": stats.kurtosis(values, bias=False),
        }  # fmt: skip
        assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert found.interval is not None
        assert found.mean in found.interval

    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.none() | st.floats(allow_subnormal=False)), min_size=1, max_size=30
        )
    )
    def test_every_value_is_counted_whatever_it_is(self, rows: list[tuple[str, float | None]]) -> None:
        schema = {"c": pl.String, "v": pl.Float64}
        found = summarise(pl.DataFrame(rows, schema=schema, orient="row"), "v", by="c")
        assert found.table.select(pl.sum_horizontal("n", "n_missing", "n_nonfinite").sum()).item() == len(rows)
        for name in ("mean", "median", "iqm", "std"):
            figures = found.table[name].drop_nulls()
            assert not figures.is_nan().any()
        assert json.dumps(dict(found.chart().spec), allow_nan=False)
        assert found.sentence()

    def test_runs_that_are_not_finite_are_told(self) -> None:
        frame = pl.DataFrame({"lr": [1, 1, 1, 2], "loss": [1.0, 3.0, NAN, None]})
        found = summarise(frame, "loss", by="lr", unit="nats")
        assert found.parts[0].sentence() == (
            "lr=1: mean 2 nats (95 % interval -10.71 to 14.71, Student t) of 2 values, standard deviation 1.414; "
            "1 NaN or infinite left out."
        )
        assert found.parts[1].sentence() == "lr=2: no finite value, 0 NaN or infinite, 1 missing."
        assert found.notes == (
            "lr=1: left out 1 NaN or infinite of 3 values",
            "lr=2: left out 1 missing of 1 value",
        )
        assert found.table["mean"].to_list() == [2.0, None]

    def test_one_value_has_no_interval(self) -> None:
        found = summarise(pl.DataFrame({"loss": [1.5]}), "loss")
        assert (found.interval, found.parts[0].std, found.parts[0].mean) == (None, None, 1.5)
        assert found.notes == ("all rows: one value has no spread, so there is no interval",)

    def test_the_interval_is_around_the_centre_asked_for(self) -> None:
        values = np.random.default_rng(0).lognormal(size=40)
        found = summary(Sample("a", values), interval=BCa("iqm", resamples=500))
        assert found.estimate == stats.trim_mean(values, 0.25)
        assert found.interval == BCa("iqm", resamples=500).of(values)
        assert found.method == "iqm, expanded bootstrap BCa, 500 resamples"
        assert found.checks[0].holds

    def test_huge_and_tiny_values_have_figures(self) -> None:
        huge = summary(Sample("", np.array([1e308, 1.5e308, -1e308])))
        assert huge.mean == pytest.approx(5e307)
        assert huge.std == pytest.approx(1.3228756555e308)
        assert summary(Sample("", np.array([5e-324, 0.0]))).max == 5e-324

    def test_a_million_values_are_summarised(self) -> None:
        found = summarise(pl.DataFrame({"v": np.random.default_rng(0).normal(size=10**6)}), "v")
        assert found.interval is not None
        assert found.interval.width == pytest.approx(2 * 1.96e-3, rel=0.01)

    def test_groups_of_one_seed_draw_alike(self) -> None:
        frame = pl.DataFrame({"c": ["a"] * 30 + ["b"] * 30, "v": np.tile(np.random.default_rng(1).normal(size=30), 2)})
        first, second = summarise(frame, "v", by="c", interval=Percentile()).parts
        assert first.interval == second.interval

    def test_nothing_cannot_be_summarised(self) -> None:
        with pytest.raises(NotEnoughDataError, match="no rows"):
            summarise(pl.DataFrame({"v": []}, schema={"v": pl.Float64}), "v")

    @pytest.mark.skipif(not SPEEDRUN.exists(), reason="the speedrun runs are not beside the repository")
    def test_real_runs(self) -> None:
        points = pl.read_parquet(SPEEDRUN).filter(pl.col("metric") == "val_loss")
        last = readings(points, Last(), run=["record", "run"])
        found = summarise(last, "value", by="record")
        many = found.table.filter(pl.col("n") >= 5)
        assert many.height > 3
        assert many["std"].median() < 0.01
        assert found.n == last.filter(~pl.col("diverged")).height


ROUND = st.floats(-9, 9).map(lambda value: round(value, 2))


class TestChecks:
    @given(st.lists(st.floats(-50, 50).map(lambda value: round(value, 3)), min_size=3, max_size=60))
    def test_normality_is_that_of_scipy(self, values: list[float]) -> None:
        assume(len(set(values)) > 1)
        found = normality(Sample("a", np.array(values)))
        assert found.holds == (stats.shapiro(values).pvalue >= 0.05)

    @pytest.mark.slow
    def test_normality_errs_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(3)
        for n in (5, 20):
            rejected = [normality(Sample("", rng.normal(size=n))).holds is False for _ in range(3000)]
            assert 0.04 < np.mean(rejected) < 0.06

    def test_many_values_tell_the_size_of_the_departure(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.normal(size=20_000)
        assert normality(Sample("", values)).holds
        bent = normality(Sample("", values + 0.1 * values**2))
        assert bent.holds is False
        assert "skewness 0.5" in bent.evidence

    @pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 9])
    def test_where_normality_cannot_be_told(self, values: list[float]) -> None:
        assert normality(Sample("a", np.array(values, np.float64))).holds is None

    @given(
        st.lists(st.lists(st.floats(-9, 9).map(lambda v: round(v, 2)), min_size=3, max_size=9), min_size=2, max_size=4)
    )
    def test_equal_variances_are_those_of_scipy(self, groups: list[list[float]]) -> None:
        arrays = [np.array(group) for group in groups]
        assume(any(len(set(np.abs(each - np.median(each)).round(9))) > 1 for each in arrays))
        found = equal_variances([Sample(str(k), each) for k, each in enumerate(arrays)])
        theirs = stats.levene(*arrays, center="median").pvalue
        assume(abs(theirs - 0.05) > 1e-6)
        assert found.holds == (theirs >= 0.05)

    def test_where_equal_variances_cannot_be_told(self) -> None:
        one, flat, even = (
            Sample(name, np.array(v)) for name, v in (("a", [1.0]), ("b", [2.0] * 4), ("c", [0.0, 0, 1, 1]))
        )
        assert equal_variances([one, even]).holds is None
        assert equal_variances([flat]).holds is None
        assert equal_variances([flat, flat]).holds is None
        assert equal_variances([even, even]).holds is True
        assert equal_variances([even, flat]).holds is False
        assert "0 to 0.5774" in equal_variances([even, flat]).evidence


class TestCorrections:
    @pytest.mark.parametrize("m", [1, 2, 7, 30])
    def test_they_are_those_of_statsmodels(self, m: int) -> None:
        p_values = np.random.default_rng(m).uniform(size=m).round(1) ** 3
        for ours, theirs in (("holm", "holm"), ("bonferroni", "bonferroni"), ("benjamini-hochberg", "fdr_bh")):
            found = adjusted(p_values, ours)  # type: ignore[arg-type]
            assert found == pytest.approx(multipletests(p_values, method=theirs)[1])
            assert (found >= p_values - 1e-15).all()

    def test_holm_keeps_false_findings_rare(self) -> None:
        rng = np.random.default_rng(5)
        found = [adjusted(rng.uniform(size=10)).min() < 0.05 for _ in range(10_000)]
        assert 0.04 < np.mean(found) < 0.06

    def test_nothing_stays_nothing(self) -> None:
        assert adjusted([]).shape == (0,)

    @pytest.mark.parametrize(
        ("values", "method", "message"),
        [
            ([0.1, NAN], "holm", "without NaN"),
            ([1.2], "holm", "between 0 and 1"),
            ([0.1], "sidak", "no correction 'sidak'"),
        ],
    )
    def test_what_is_no_p_value_is_told(self, values: list[float], method: str, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            adjusted(values, method)  # type: ignore[arg-type]
