"""Questions about the results of runs, asked of a lake: each is that of `ckptlake.analytics` on the right frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from quiet_lakes import quiet

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, param
from ckptlake.analytics.comparison import compare, pareto
from ckptlake.analytics.curve import curves_of
from ckptlake.analytics.curves import band, first_better, time_to_threshold
from ckptlake.analytics.forecasts import forecast_beside
from ckptlake.analytics.insight import Experiment, insights
from ckptlake.analytics.statistics import Best, MeanOfLast, Percentile, summarise
from ckptlake.analytics.trends import stalls, verdicts
from ckptlake.query.analysis import Analysis

STEPS = np.arange(60)
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Six learning rates with four seeds each, a diverged run, and one that is still on its way."""
    rng = np.random.default_rng(0)
    with ckptlake.open(tmp_path_factory.mktemp("analysed") / "lake", settings=quiet()) as lake:
        for number, lr in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6)):
            for seed in range(4):
                loss = 1 + lr + (2 + number / 3) / np.sqrt(STEPS + 1) + rng.normal(0, 0.01, 60)
                if (lr, seed) == (0.6, 3):
                    loss[40:] = np.nan
                with lake.run(
                    "sweep", f"lr {lr} seed {seed}", {"lr": lr, "seed": seed, "width": 8}, capture=Capture.nothing()
                ) as run:
                    run.define("val/loss", direction="min")
                    run.log_frame(points(loss, 1 + number / 10))
        live = lake.run("sweep", "live", {"lr": 0.1, "seed": 9, "width": 8}, run_id="alive", capture=Capture.nothing())
        live.log_frame(points(1.1 + 2 / np.sqrt(STEPS[:30] + 1) + rng.normal(0, 0.01, 30), 1.0))
        live.flush()
        yield lake


def points(loss: np.ndarray, seconds: float) -> pl.DataFrame:
    steps = STEPS[: len(loss)]
    times = [START + timedelta(seconds=float(step) * seconds) for step in steps]
    losses = pl.DataFrame({"step": steps, "ts": times, "val/loss": loss, "tokens": steps * 512.0})
    return losses.unpivot(index=["step", "ts"], variable_name="metric")


@pytest.fixture
def some(lake: Lake) -> Analysis:
    return lake.runs.where(param("lr").is_in([0.1, 0.4]), ckptlake.col("name") != "live").analyze()


def test_configurations_are_found_by_their_params(lake: Lake) -> None:
    found = lake.analysis.configurations()
    assert found.columns == ("lr",)
    assert dict(found.counts.rows()) == {"lr=0.1": 5, **{f"lr={lr}": 4 for lr in (0.2, 0.3, 0.4, 0.5, 0.6)}}
    assert lake.analysis.configurations("lr", "seed").counts.height == 1


class TestResults:
    def test_summaries_of_each_configuration(self, some: Analysis) -> None:
        found = some.summarise("val/loss", at=MeanOfLast(5), interval=Percentile(), unit="nats")
        frame = some.values("val/loss", MeanOfLast(5))
        expected = summarise(frame, "val/loss", "lr", interval=Percentile(), unit="nats")
        assert found.table.drop("doubts").equals(expected.table.drop("doubts"))
        assert some.summarise("val/loss", by=()).parts[0].n == 8

    def test_a_diverged_run_is_told_not_left_out(self, lake: Lake) -> None:
        worst = lake.runs.where(param("lr") == 0.6).analyze().summarise("val/loss").parts[0]
        assert (worst.n, worst.n_nonfinite) == (3, 1)
        assert "NaN or infinite" in " ".join(worst.notes)
        assert "diverged" in str(lake.analysis.compare("val/loss", by="lr"))

    def test_comparison_uses_the_declared_direction(self, some: Analysis) -> None:
        found = some.compare("val/loss", unit="nats")
        expected = compare(some.values("val/loss"), "val/loss", by="lr", direction="min", unit="nats")
        assert str(found) == str(expected)
        assert str(found).startswith("lr=0.1 has the lower val/loss")
        assert str(some.compare("val/loss", direction="max")).startswith("lr=0.4 has the higher val/loss")

    def test_pairs_by_seed(self, some: Analysis) -> None:
        assert some.compare("val/loss", by="lr", pair_by="seed").method != some.compare("val/loss", by="lr").method

    def test_a_direction_is_not_guessed(self, some: Analysis) -> None:
        with pytest.raises(InvalidInputError, match=r"run\.define\('tokens'"):
            some.compare("tokens")

    def test_against_a_target(self, some: Analysis) -> None:
        good = some.runs.where(param("lr") == 0.1).analyze()
        assert good.against("val/loss", 1.5, level=0.99).is_reached
        assert not good.against("val/loss", 1.2).is_reached
        assert good.against("val/loss", 1.2, direction="max").is_reached

    def test_equivalence_outliers_power(self, some: Analysis) -> None:
        assert some.equivalent("val/loss", 1.0).p_value < 0.05
        assert some.equivalent("val/loss", 0.1).p_value > 0.05
        assert some.outliers("val/loss").n == 8
        assert some.seeds_needed("val/loss", 0.001).seeds > some.seeds_needed("val/loss", 0.1).seeds

    def test_correlations_are_of_metrics_and_numeric_params(self, lake: Lake) -> None:
        found = lake.runs.where(param("lr") < 0.6).analyze().correlations("val/loss", "tokens")
        assert {"val/loss", "tokens", "lr", "seed"} <= set(found.matrix.columns)
        row = found.table.filter(pl.col("x").is_in(["val/loss", "lr"]) & pl.col("y").is_in(["val/loss", "lr"]))
        assert row["correlation"].item() > 0.9

    def test_what_differs(self, lake: Lake) -> None:
        assert lake.analysis.differences("val/loss").table["column"][0] == "lr"

    def test_pareto_takes_metrics_and_columns_of_runs(self, lake: Lake) -> None:
        found = lake.analysis.pareto({"val/loss": "min", "duration_s": "min"}, at=Best("min"))
        frame = lake.analysis.values("val/loss", Best("min"))
        assert (
            found.table["run_id"].to_list()
            == pareto(frame, {"val/loss": "min", "duration_s": "min"}).table["run_id"].to_list()
        )
        assert len(lake.analysis.pareto(["val/loss"]).table) == 1


class TestCurves:
    def test_groups_and_bands(self, some: Analysis) -> None:
        groups = some.curve_groups("val/loss")
        assert {label: len(curves) for label, curves in groups.items()} == {"lr=0.1": 4, "lr=0.4": 4}
        assert groups["lr=0.1"][0].label == "lr 0.1 seed 0"
        found = some.band("val/loss", by="lr")["lr=0.1"]
        assert found.table.equals(band(groups["lr=0.1"], x="step").table)
        assert len(some.curve_groups("val/loss", by=())["all runs"]) == 8

    def test_over_time_and_over_another_metric(self, some: Analysis, caplog: pytest.LogCaptureFixture) -> None:
        by_step = some.time_to("val/loss", 2.0)
        curves = curves_of(named(some))
        assert by_step.table["x"].to_list() == time_to_threshold(curves, 2.0, "min").table["x"].to_list()
        by_time, by_tokens = (some.time_to("val/loss", 2.0, x=x).table for x in ("time", "tokens"))
        assert by_tokens["x"].to_list() == [step * 512.0 for step in by_step.table["x"]]
        seconds = [step * (1.0 if "0.1" in run else 1.3) for run, step in by_step.table.select("run", "x").rows()]
        assert by_time["x"].to_list() == pytest.approx(seconds)
        assert not caplog.records

    def test_points_beyond_another_metric_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with ckptlake.open(tmp_path / "lake", settings=quiet()) as lake:
            run = lake.run("e", "short", capture=Capture.nothing())
            for step in range(4):
                run.log({"loss": 4.0 - step}, step=step)
            run.log({"tokens": 0.0}, step=0)
            run.log({"tokens": 10.0}, step=2)
            with caplog.at_level(logging.WARNING):
                (curve,) = lake.analysis.curve_groups("loss", by=(), x="tokens")["all runs"]
        assert curve.steps.tolist() == [0.0, 5.0, 10.0]
        assert "short: 1 of 4 points lie beyond" in caplog.text

    def test_from_where_on_one_is_better(self, some: Analysis) -> None:
        groups = some.curve_groups("val/loss")
        found = some.first_better("val/loss", "lr=0.1", "lr=0.4")
        assert found.winner == "lr=0.1"
        assert found.step == first_better(groups["lr=0.1"], groups["lr=0.4"], "min").step
        with pytest.raises(InvalidInputError, match=r"'lr=0\.9'; there are lr=0\.1, lr=0\.4"):
            some.first_better("val/loss", "lr=0.9", "lr=0.4")

    def test_configurations_differ_in_how_long_they_take(self, some: Analysis) -> None:
        assert some.compare_times("val/loss", 2.0, x="time").p_value < 0.05
        assert some.areas("val/loss").table.height == 8


class TestTrends:
    def test_verdicts(self, lake: Lake) -> None:
        found = lake.analysis.verdicts("val/loss")
        expected = verdicts(named(lake.analysis), "min")
        assert found.table["verdict"].to_list() == expected.table["verdict"].to_list()
        assert found.table.filter(verdict="not finite")["run"].to_list() == ["lr 0.6 seed 3"]

    def test_single_runs_go_by_name_or_id(self, lake: Lake) -> None:
        analysis = lake.analysis
        assert analysis.slope("val/loss", "live").sentence() == analysis.slope("val/loss", "alive").sentence()
        seconds = lake.analysis.stalls("val/loss", "lr 0.1 seed 0")
        assert seconds.sentence() == stalls(curves_of(elapsed_of(lake, "lr 0.1 seed 0"), value="s")[0]).sentence()
        assert not analysis.overfitting("val/loss", "val/loss", "live").overfits
        with pytest.raises(InvalidInputError, match="no run 'nobody'"):
            analysis.slope("val/loss", "nobody")

    def test_a_live_run_is_forecast_from_the_finished_ones(self, lake: Lake) -> None:
        found = lake.analysis.forecast("val/loss", "live", unit="nats")
        groups = lake.runs.where(ckptlake.col("status") == "finished").analyze().curve_groups("val/loss")
        finished = [(curve, label) for label, curves in groups.items() for curve in curves]
        live = lake.runs.where(ckptlake.col("name") == "live").analyze().curve_groups("val/loss", by=())["all runs"][0]
        curves, labels = zip(*finished, strict=True)
        assert found.value == forecast_beside(live, curves, groups=labels).value
        assert found.horizon == 59
        assert abs(found.value - (1.1 + 2 / np.sqrt(60))) < 0.05
        assert found.interval is None  # six configurations cannot tell of ends as rare as one in twenty
        assert lake.analysis.forecast("val/loss", "live", level=0.6).interval is not None

    def test_whether_it_is_worth_its_rest(self, lake: Lake) -> None:
        assert lake.analysis.should_stop("val/loss", "live", target=0.2).probability < 0.1
        assert lake.analysis.should_stop("val/loss", "live", target=2.0).advice == "continue"

    def test_a_horizon_is_asked_for_where_runs_ended_apart(self, lake: Lake) -> None:
        with pytest.raises(InvalidInputError, match="pass horizon="):
            lake.runs.where(ckptlake.col("name") == "live").analyze().forecast("val/loss", "live")


class TestParams:
    def test_importance_by_three_methods(self, lake: Lake) -> None:
        known = lake.runs.where(param("lr") < 0.6).analyze()
        for method in ("fanova", "permutation"):
            assert known.importance("val/loss", method).table["param"][0] == "lr"
        assert known.importance("val/loss", "ped-anova").n == 21
        with pytest.raises(InvalidInputError, match="take one of 'fanova', 'permutation', 'ped-anova'"):
            known.importance("val/loss", "magic")  # type: ignore[arg-type]

    def test_response_suggestions_and_gaps(self, lake: Lake) -> None:
        known = lake.runs.where(param("lr") < 0.6).analyze()
        assert known.response("val/loss", "lr").param.name == "lr"
        assert known.suggest("val/loss", 2).table.height == 2
        assert known.unexplored(2).n == 21

    def test_insights_see_curves_checkpoints_and_speeds(self, lake: Lake) -> None:
        found = lake.analysis.insights("val/loss")
        runs = lake.analysis.values("val/loss").with_columns(
            steps_per_s=1 / (1 + (pl.col("lr") * 10 - 1).round() / 10), host=pl.lit(None, pl.String)
        )
        expected = insights(
            Experiment(
                runs=runs,
                metric="val/loss",
                direction="min",
                params=("lr", "seed"),
                curves=lake.analysis.curves("val/loss"),
                checkpoints=pl.DataFrame({"run_id": [], "step": []}, schema={"run_id": pl.String, "step": pl.Int64}),
                name="name",
                device="host",
            )
        )
        assert [insight.text for insight in found.found] == [insight.text for insight in expected.found]
        assert "lr 0.6 seed 3" in found.found[0].text

    def test_odd_runs_are_called_by_their_names(self, lake: Lake) -> None:
        found = lake.analysis.outliers("val/loss", by=())
        assert found.table.columns[:2] == ["curve", "run_id"]
        assert "not judged, missing or not finite: lr 0.6 seed 3" in found.notes


def named(analysis: Analysis) -> pl.DataFrame:
    """Return the points of runs in the order in which these were started."""
    return (
        analysis.described()
        .select("run_id")
        .join(analysis.curves("val/loss"), on="run_id", maintain_order="left_right")
    )


def elapsed_of(lake: Lake, name: str) -> pl.DataFrame:
    runs = lake.runs.where(ckptlake.col("name") == name).analyze()
    points = runs.curves("val/loss")
    return points.with_columns(s=(pl.col("ts") - pl.col("ts").min()).dt.total_microseconds() / 1e6, run_id=pl.lit(name))


def test_the_whole_lake_says_how_many_runs(lake: Lake) -> None:
    assert repr(lake.analysis) == "<Analysis of 25 runs>"


@pytest.mark.parametrize("taken", ["configuration", "curve", "steps_per_s", "n", "loss", "run_id", "a/b 'c' \"ü\""])
def test_params_of_any_name_tell_configurations_apart(tmp_path: Path, taken: str) -> None:
    with ckptlake.open(tmp_path / "lake", settings=quiet()) as lake:
        for value in (1, 2):
            for seed in range(3):
                with lake.run(
                    "names", f"{value} {seed}", {taken: value, "seed": seed}, capture=Capture.nothing()
                ) as run:
                    run.log_frame(
                        pl.DataFrame({"step": [0, 1, 2], "loss": [3.0, value + 0.01 * seed, value + 0.01 * seed]})
                    )
        asked = lake.analysis
        column = asked.params(("loss",))[taken]
        assert str(asked.compare("loss", direction="min")).startswith(
            f"{column.removeprefix('params.')}=1 has the lower"
        )
        assert [len(curves) for curves in asked.curve_groups("loss").values()] == [3, 3]
        assert asked.compare_times("loss", 1.5, direction="min").table["reached"].to_list() == [3, 0]
        assert asked.insights("loss", direction="min").n == 6


@pytest.mark.parametrize("at", [None, MeanOfLast(2)])
def test_a_metric_with_the_name_of_a_column_of_runs_is_told(tmp_path: Path, at: MeanOfLast | None) -> None:
    with ckptlake.open(tmp_path / "lake", settings=quiet()) as lake:
        with lake.run("names", capture=Capture.nothing()) as run:
            run.log_frame(pl.DataFrame({"step": [0, 1], "duration_s": [3.0, 4.0]}))
        with pytest.raises(InvalidInputError, match="the metric 'duration_s' has the name of a column"):
            lake.analysis.values("duration_s", at)


def test_columns_that_are_not_there(some: Analysis) -> None:
    for ask in (some.band, some.curve_groups):
        with pytest.raises(InvalidInputError, match="no column 'nosuch'"):
            ask("val/loss", by="nosuch")
    with pytest.raises(InvalidInputError, match="names no column"):
        some.compare("val/loss", by=())
