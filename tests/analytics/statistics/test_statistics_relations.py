"""Outliers, correlation and power."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from ckptlake.analytics.frames import Sample
from ckptlake.analytics.statistics import (
    GeneralisedESD,
    Grubbs,
    MedianDeviation,
    correlation_interval,
    correlations,
    outliers,
    seeds_for_power,
    seeds_needed,
    welch_power,
)
from ckptlake.analytics.statistics.power import noncentral_t_above
from ckptlake.errors import InvalidInputError, NotEnoughDataError

NAN = float("nan")
ROSNER = [
    -0.25, 0.68, 0.94, 1.15, 1.20, 1.26, 1.26, 1.34, 1.38, 1.43, 1.49, 1.49, 1.55, 1.56, 1.58, 1.65, 1.69, 1.70, 1.76,
    1.77, 1.81, 1.91, 1.94, 1.96, 1.99, 2.06, 2.09, 2.10, 2.14, 2.15, 2.23, 2.24, 2.26, 2.35, 2.37, 2.40, 2.47, 2.54,
    2.62, 2.64, 2.90, 2.92, 2.92, 2.93, 3.21, 3.26, 3.30, 3.59, 3.68, 4.30, 4.64, 5.34, 5.42, 6.01,
]  # fmt: skip


class TestOutliers:
    def test_rosners_own_data(self) -> None:
        """Rosner (1983) finds three outliers, which the first two of his statistics alone would not."""
        found = GeneralisedESD(most=10).distances(Sample("", np.array(ROSNER)))
        assert [ROSNER[at] for at in np.flatnonzero(found.is_outlier)] == [5.34, 5.42, 6.01]
        ordered = np.argsort(-np.array(ROSNER))[:3]
        assert found.distance[ordered] == pytest.approx([3.118, 2.942, 3.179], abs=2e-3)
        assert found.limit[ordered] == pytest.approx([3.158, 3.151, 3.143], abs=2e-3)
        assert not Grubbs().distances(Sample("", np.array(ROSNER))).is_outlier.any()

    @given(st.lists(st.floats(-9, 9).map(lambda value: round(value, 2)), min_size=3, max_size=30))
    def test_grubbs_is_the_first_step_of_rosner(self, values: list[float]) -> None:
        assume(np.std(values) > 1e-3)
        sample = Sample("", np.array(values))
        one, other = Grubbs().distances(sample), GeneralisedESD(most=1).distances(sample)
        assert (one.is_outlier == other.is_outlier).all()
        z = np.abs(stats.zscore(values, ddof=1))
        assert np.abs(one.distance).max() == pytest.approx(z.max())

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [5, 20])
    def test_grubbs_errs_as_often_as_it_says(self, n: int) -> None:
        rng = np.random.default_rng(2)
        found = [Grubbs().distances(Sample("", rng.normal(size=n))).is_outlier.any() for _ in range(4000)]
        assert 0.04 < np.mean(found) < 0.06

    @pytest.mark.slow
    def test_rosner_errs_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(3)
        found = [GeneralisedESD().distances(Sample("", rng.normal(size=30))).is_outlier.any() for _ in range(6000)]
        assert 0.04 < np.mean(found) < 0.06

    @given(st.lists(st.floats(-99, 99).map(lambda value: round(value, 1)), min_size=3, max_size=40))
    def test_distances_from_the_median_are_those_of_scipy(self, values: list[float]) -> None:
        spread = stats.median_abs_deviation(values)
        assume(spread > 0)
        found = MedianDeviation(2.0).distances(Sample("", np.array(values)))
        expected = 0.6745 * (np.array(values) - np.median(values)) / spread
        assert found.distance == pytest.approx(expected)
        assert found.notes == ()

    def test_equal_values_do_not_hide_the_one_that_differs(self) -> None:
        found = MedianDeviation().distances(Sample("", np.array([1.0] * 9 + [2.0])))
        assert np.flatnonzero(found.is_outlier).tolist() == [9]
        assert "more than half" in found.notes[0]

    @pytest.mark.parametrize("rule", [MedianDeviation(), Grubbs(), GeneralisedESD()])
    def test_runs_are_named_in_their_configuration(self, rule) -> None:  # type: ignore[no-untyped-def]
        values = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 9.0]
        frame = pl.DataFrame(
            {
                "run_id": [f"r{k}" for k in range(19)],
                "lr": [0.1] * 9 + [0.2] * 8 + [0.3] * 2,
                "loss": [*values, NAN, *(value + 8 for value in values), 1.0, 2.0],
            }
        )
        found = outliers(frame, "loss", by="lr", rule=rule)
        assert sorted(found.outliers["run_id"]) == ["r16", "r7"]
        assert found.table.height == 19
        assert found.table["is_outlier"].null_count() == 3
        assert found.n == 16
        assert "lr=0.3: not judged, fewer than 3 finite values" in found.notes
        assert "not judged, missing or not finite: r8" in found.notes
        assert found.sentence().startswith("2 outliers among 16 runs: r")
        assert len(found.chart().spec["data"]["values"]) == 16

    def test_without_outliers_it_says_so(self) -> None:
        found = outliers(pl.DataFrame({"run_id": ["a", "b", "c"], "v": [1.0, 1.0, 1.0]}), "v")
        assert found.notes == ("all runs: not judged, all values are equal",)
        assert found.sentence().startswith("No run can be judged: all runs: not judged, all values are equal")
        assert (
            outliers(pl.DataFrame({"run_id": [], "v": []}, schema={"run_id": pl.String, "v": pl.Float64}), "v").n == 0
        )

    def test_bad_rules_are_told(self) -> None:
        for make in (lambda: MedianDeviation(0), lambda: Grubbs(1.5), lambda: GeneralisedESD(0)):
            with pytest.raises(InvalidInputError, match=r"limit=0|alpha=1\.5|most=0"):
                make()


class TestCorrelation:
    @pytest.mark.parametrize("coefficient", ["pearson", "spearman", "kendall"])
    def test_pairs_are_those_of_scipy(self, coefficient) -> None:  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(1)
        x = rng.normal(size=25)
        frame = pl.DataFrame({"x": x, "y": x + rng.normal(size=25), "z": rng.integers(0, 4, 25)})
        found = correlations(frame, coefficient=coefficient, correction="bonferroni")
        test = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}[coefficient]
        for row in found.table.to_dicts():
            theirs = test(frame[row["x"]].to_numpy(), frame[row["y"]].to_numpy())
            assert (row["correlation"], row["p_value"]) == pytest.approx((theirs.statistic, theirs.pvalue))
            assert row["p_adjusted"] == pytest.approx(min(3 * theirs.pvalue, 1))
            assert row["low"] < row["correlation"] < row["high"]
        matrix = found.matrix.drop("column").to_numpy()
        assert (matrix == matrix.T).all()
        assert (np.diag(matrix) == 1).all()

    def test_pearsons_interval_is_that_of_scipy(self) -> None:
        x, y = np.random.default_rng(2).normal(size=(2, 20))
        theirs = stats.pearsonr(x, y)
        found = correlation_interval(theirs.statistic, 20, "pearson", 0.9)
        assert found is not None
        assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.9)))
        assert correlation_interval(1.0, 20, "pearson") is None
        assert correlation_interval(0.3, 4, "pearson") is None

    @pytest.mark.slow
    @pytest.mark.parametrize("coefficient", ["pearson", "spearman", "kendall"])
    def test_intervals_cover(self, coefficient) -> None:  # type: ignore[no-untyped-def]
        rho, n, rng = 0.5, 40, np.random.default_rng(4)
        truth = {
            "pearson": rho,
            "spearman": 6 / np.pi * np.arcsin(rho / 2),
            "kendall": 2 / np.pi * np.arcsin(rho),
        }[coefficient]
        test = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}[coefficient]
        held = 0
        for _ in range(2000):
            x, noise = rng.normal(size=(2, n))
            y = rho * x + np.sqrt(1 - rho**2) * noise
            interval = correlation_interval(float(test(x, y).statistic), n, coefficient)
            held += interval is not None and truth in interval
        assert 0.93 < held / 2000 < 0.97

    def test_constant_columns_and_missing_values_are_told(self) -> None:
        frame = pl.DataFrame(
            {
                "a": [1.0, 2.0, 3.0, 4.0, NAN, 6.0],
                "b": [2.0] * 6,
                "c": [2.0, 1.0, 4.0, None, 5.0, 7.0],
                "d": list("abcdef"),
            }
        )
        found = correlations(frame)
        assert found.columns == ("a", "b", "c")
        rows = {(row["x"], row["y"]): row for row in found.table.to_dicts()}
        assert rows["a", "b"]["p_adjusted"] is rows["a", "b"]["correlation"] is None
        assert rows["a", "c"]["n"] == 4
        assert found.notes[:3] == (
            "a: left out 1 missing or not finite of 6",
            "b is constant: it has no correlation",
            "c: left out 1 missing or not finite of 6",
        )
        assert "rough" in found.notes[3]
        assert found.sentence().startswith("0 of 1 pair of columns are")
        assert found.matrix["b"].to_list() == [None, 1.0, None]

    @pytest.mark.slow
    def test_false_findings_among_many_pairs_are_rare(self) -> None:
        rng = np.random.default_rng(6)
        found = []
        for _ in range(2000):
            pairs = correlations(pl.DataFrame(rng.normal(size=(30, 3))), coefficient="pearson").table
            found.append(pairs["p_adjusted"].min() < 0.05)
        assert 0.035 < np.mean(found) < 0.06

    @pytest.mark.parametrize(
        ("columns", "options", "message"),
        [
            (["a"], {}, "at least two"),
            (["a", "a"], {}, "at least two different"),
            (["a", "d"], {}, "'d' holds String"),
            (["a", "x"], {}, "no column 'x'"),
            (["a", "b"], {"coefficient": "phi"}, "no coefficient 'phi'"),
        ],
    )
    def test_bad_columns_are_told(self, columns, options, message: str) -> None:  # type: ignore[no-untyped-def]
        frame = pl.DataFrame({"a": [1, 2], "b": [1, 2], "d": ["x", "y"]})
        with pytest.raises(InvalidInputError, match=message):
            correlations(frame, columns, **options)


class TestPower:
    @pytest.mark.parametrize("degrees", [1.0, 1.7, 5.0, 40.0, 99.9, 100.0, 1e3, 1e5])
    @pytest.mark.parametrize("shift", [0.0, 0.5, 2.0, 5.0])
    def test_the_noncentral_t_is_that_of_scipy_where_scipy_has_it(self, degrees: float, shift: float) -> None:
        for critical in (1.96, 3.0, 12.7):
            expected = stats.nct.sf(critical, degrees, shift)
            assert noncentral_t_above(critical, degrees, shift) == pytest.approx(expected, abs=1e-9)
            simulated = np.random.default_rng(0).normal(shift, 1, 40_000) / np.sqrt(
                np.random.default_rng(1).chisquare(degrees, 40_000) / degrees
            )
            assert noncentral_t_above(critical, degrees, shift) == pytest.approx(
                (simulated > critical).mean(), abs=0.01
            )

    @settings(max_examples=50)
    @given(st.integers(2, 200), st.floats(0.05, 3))
    def test_equal_deviations_are_those_of_statsmodels(self, n: int, effect: float) -> None:
        theirs = TTestIndPower().power(effect, n, 0.05)
        assume(not np.isnan(theirs))
        assert welch_power(n, 2 * effect, 2.0) == pytest.approx(theirs, abs=1e-6)

    @given(st.floats(0.1, 5), st.floats(0.1, 3), st.floats(0, 3), st.floats(0.5, 0.99))
    def test_the_number_is_the_least_that_is_enough(
        self, difference: float, one: float, two: float, power: float
    ) -> None:
        n = seeds_for_power(difference, one, two, power=power)
        assert welch_power(n, difference, one, two) >= power
        assert n == 2 or welch_power(n - 1, difference, one, two) < power

    @pytest.mark.parametrize(("one", "two"), [(1.0, 1.0), (1.0, 2.5)])
    def test_simulated_runs_see_the_difference_that_often(self, one: float, two: float) -> None:
        n = seeds_for_power(1.5, one, two, power=0.8)
        rng = np.random.default_rng(8)
        x, y = rng.normal(0, one, (20_000, n)), rng.normal(1.5, two, (20_000, n))
        seen = (stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue < 0.05).mean()
        assert seen == pytest.approx(welch_power(n, 1.5, one, two), abs=0.012)
        assert 0.78 < seen < 0.85

    def test_no_difference_is_seen_as_often_as_alpha(self) -> None:
        assert welch_power(5, 0.0, 1.0) == pytest.approx(0.05)
        assert welch_power(5, 0.0, 1.0, 3.0, alpha=0.01) == pytest.approx(0.01)
        assert welch_power(100_000, 1e9, 1.0) == 1.0

    def test_how_many_more_of_each(self) -> None:
        frame = pl.DataFrame({"opt": ["adam"] * 4 + ["muon"] * 3, "loss": [3.30, 3.32, 3.31, NAN, 3.28, 3.29, 3.27]})
        found = seeds_needed(frame, "loss", by="opt", difference=0.01, unit="nats")
        assert (found.seeds, found.more_first, found.more_second) == (17, 14, 14)
        assert found.interval is not None
        factor = math.sqrt(4 / stats.chi2.ppf(0.975, 4))
        assert found.interval.low == seeds_for_power(0.01, factor * found.std_first, factor * found.std_second)
        assert found.seeds in found.interval
        assert found.notes == ("opt=adam: left out 1 NaN or infinite of 4 values",)
        assert "takes 17 seeds each (95 % interval 7 to" in found.sentence()
        drawn = [row["power"] for row in found.chart().spec["data"]["values"]]
        assert drawn == sorted(drawn)

    def test_an_upper_end_beyond_every_number_is_infinite(self) -> None:
        frame = pl.DataFrame({"c": ["a", "a", "b", "b"], "v": [0.0, 1.0, 0.0, 1.0]})
        found = seeds_needed(frame, "v", by="c", difference=0.02)
        assert found.interval is not None
        assert found.interval.high == math.inf
        assert "to inf" in found.sentence()

    def test_what_cannot_be_planned_is_told(self) -> None:
        frame = pl.DataFrame({"c": ["a", "a", "b", "b"], "v": [0.0, 0.0, 1.0, 1.0]})
        with pytest.raises(InvalidInputError, match="no spread to plan by"):
            seeds_needed(frame, "v", by="c", difference=0.1)
        with pytest.raises(NotEnoughDataError, match="c=b has 1 finite value"):
            seeds_needed(frame.head(3), "v", by="c", difference=0.1)
        with pytest.raises(InvalidInputError, match="1 configuration in the frame"):
            seeds_needed(frame.head(2), "v", by="c", difference=0.1)
        for options, message in (
            ({"difference": 0.0, "std_first": 1.0}, "difference=0"),
            ({"difference": NAN, "std_first": 1.0}, "difference=nan"),
            ({"difference": 1.0, "std_first": 0.0}, "above 0"),
            ({"difference": 1.0, "std_first": 1.0, "power": 0.01}, "power=0.01"),
            ({"difference": 1.0, "std_first": 1.0, "alpha": 0.0}, "alpha=0"),
            ({"difference": 1e-3, "std_first": 1.0}, "more than 100,000 seeds"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                seeds_for_power(**options)


def test_power_of_values_whose_variance_cannot_be_held_is_refused() -> None:
    frame = pl.DataFrame({"lr": [1, 1, 2, 2], "loss": [1e300, 2e300, 1.0, 2.0]})
    with pytest.raises(InvalidInputError, match=r"lr=1 has values up to 2e\+300"):
        seeds_needed(frame, "loss", by="lr", difference=1.0)


def test_an_outlier_so_far_out_that_the_others_vanish_beside_it() -> None:
    values = np.append(np.arange(15.0), 1e300)
    found = GeneralisedESD(most=3).distances(Sample("", values))
    assert found.is_outlier.tolist() == [False] * 15 + [True]
