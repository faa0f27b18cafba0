"""Algorithms over tasks, against plain loops and by simulation."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.statistics import (
    InterquartileMean,
    Mean,
    OptimalityGap,
    over_tasks,
    performance_profiles,
    probability_above,
    probability_of_improvement,
    profile_of,
)
from ckptlake.errors import InvalidInputError, NotEnoughDataError

SCORES = st.lists(st.floats(-5, 5).map(lambda value: round(value, 1)), min_size=2, max_size=8)


def frame_of(scores: dict[str, dict[str, list[float]]]) -> pl.DataFrame:
    rows = [
        {"alg": alg, "task": task, "score": score}
        for alg, tasks in scores.items()
        for task, values in tasks.items()
        for score in values
    ]
    return pl.DataFrame(rows)


def drawn(rng: np.random.Generator, runs: int, tasks: int, shift: float = 0.0) -> dict[str, list[float]]:
    return {f"t{task}": (rng.normal(shift + task, 1, runs)).tolist() for task in range(tasks)}


TWO = frame_of({"a": drawn(np.random.default_rng(0), 10, 4, 1.0), "b": drawn(np.random.default_rng(1), 10, 4)})


class TestAggregates:
    def test_they_are_those_of_plain_loops(self) -> None:
        for alg, part in TWO.partition_by("alg", as_dict=True).items():
            scores = sorted(part["score"].to_list())
            middle = scores[len(scores) // 4 : len(scores) - len(scores) // 4]
            expected = {
                InterquartileMean(): sum(middle) / len(middle),
                Mean(): sum(scores) / len(scores),
                OptimalityGap(2.0): sum(max(2.0 - score, 0) for score in scores) / len(scores),
                OptimalityGap(2.0, "min"): sum(max(score - 2.0, 0) for score in scores) / len(scores),
            }
            for figure, value in expected.items():
                found = over_tasks(TWO, "score", by="alg", task="task", figure=figure, resamples=10)
                estimates = {each.label: each.estimate for each in found.parts}
                assert estimates[alg[0]] == pytest.approx(value)

    def test_the_interval_is_that_of_a_plain_stratified_bootstrap(self) -> None:
        part = TWO.filter(pl.col("alg") == "a")
        tasks = [each["score"].to_numpy() for each in part.partition_by("task")]
        rng = np.random.default_rng(99)
        draws = []
        for _ in range(2000):
            pooled = [task[rng.integers(len(task))] for task in tasks for _ in task]
            draws.append(stats.trim_mean(pooled, 0.25))
        (found,) = over_tasks(part, "score", by="alg", task="task").parts
        assert found.interval is not None
        ends = (found.interval.low, found.interval.high)
        assert ends == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.08 * found.interval.width)

    def test_it_reads_as_a_row_and_a_sentence(self) -> None:
        found = over_tasks(TWO, "score", by="alg", task="task")
        assert found.table.columns == ["label", "figure", "estimate", "low", "high", "level", "n", "tasks"]
        assert found.parts[0].sentence().startswith("a: interquartile mean ")
        assert found.parts[0].sentence().endswith("over 4 tasks and 40 runs.")
        assert all(check.holds for check in found.checks)
        assert len(found.chart().spec["data"]["values"]) == 2

    def test_what_is_left_out_and_what_is_uneven_is_told(self) -> None:
        frame = frame_of({"a": {"x": [1.0, 2.0, float("nan")], "y": [1.0, 2.0, 3.0]}})
        found = over_tasks(frame, "score", by="alg", task="task")
        assert found.notes == (
            "a, task=x: left out 1 NaN or infinite of 3 values",
            "a has 2 to 3 scores a task: a task with more weighs more",
        )
        assert found.checks[0].holds is False

    def test_too_few_runs_are_told(self) -> None:
        frame = frame_of({"a": {"x": [1.0, 2.0], "y": [1.0, 2.0]}, "b": {"x": [1.0, 2.0]}})
        with pytest.raises(NotEnoughDataError, match="'b' has fewer than two finite scores on 'y'"):
            over_tasks(frame, "score", by="alg", task="task")
        with pytest.raises(NotEnoughDataError, match="no rows"):
            over_tasks(frame.clear(), "score", by="alg", task="task")
        with pytest.raises(InvalidInputError, match="'min' where lower"):
            OptimalityGap(1.0, "up")  # type: ignore[arg-type]


class TestImprovement:
    @given(SCORES, SCORES)
    def test_it_counts_pairs(self, first: list[float], second: list[float]) -> None:
        won = sum(1.0 if x > y else 0.5 if x == y else 0.0 for x in first for y in second)
        found = probability_above(np.array(first), np.array(second))
        assert found == pytest.approx(won / (len(first) * len(second)))
        u = stats.mannwhitneyu(first, second, method="asymptotic" if len({*first, *second}) > 1 else "exact").statistic
        assert found == pytest.approx(u / (len(first) * len(second)))

    def test_the_interval_is_that_of_a_plain_stratified_bootstrap(self) -> None:
        options = {"by": "alg", "task": "task", "first": "a", "second": "b"}
        found = probability_of_improvement(TWO, "score", direction="max", **options)
        parts = {key: part["score"].to_numpy() for key, part in TWO.partition_by("alg", "task", as_dict=True).items()}
        rng = np.random.default_rng(5)
        draws = []
        for _ in range(2000):
            shares = [
                np.mean([rng.choice(parts["a", t], 10)[:, None] > rng.choice(parts["b", t], 10)])
                for t in ("t0", "t1", "t2", "t3")
            ]
            draws.append(np.mean(shares))
        assert found.interval is not None
        ends = (found.interval.low, found.interval.high)
        assert ends == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.08 * found.interval.width)
        assert found.probability == pytest.approx(np.mean(list(found.by_task.values())))

    def test_the_direction_turns_it_around(self) -> None:
        options = {"by": "alg", "task": "task", "first": "a", "second": "b", "resamples": 100}
        large = probability_of_improvement(TWO, "score", direction="max", **options)
        small = probability_of_improvement(TWO, "score", direction="min", **options)
        assert large.probability > 0.6
        assert large.probability + small.probability == pytest.approx(1)
        assert "A run of a beats one of b with probability 0." in large.sentence()
        assert len(large.chart().spec["data"]["values"]) == 5

    def test_who_is_not_there_is_told(self) -> None:
        with pytest.raises(InvalidInputError, match="no scores of 'c'; there are those of a and b"):
            probability_of_improvement(TWO, "score", by="alg", task="task", first="a", second="c", direction="max")


class TestProfiles:
    @given(SCORES, st.lists(st.floats(-6, 6), min_size=1, max_size=5))
    def test_it_counts_runs_above(self, scores: list[float], thresholds: list[float]) -> None:
        expected = [sum(score > at for score in scores) / len(scores) for at in thresholds]
        assert profile_of(np.array(scores), np.array(thresholds)) == pytest.approx(expected)

    @pytest.mark.parametrize("direction", ["min", "max"])
    def test_the_frame_holds_shares_and_bands(self, direction) -> None:  # type: ignore[no-untyped-def]
        found = performance_profiles(TWO, "score", by="alg", task="task", direction=direction)
        assert found.table.height == 202
        for label, at, share, low, high in found.table.rows():
            scores = TWO.filter(pl.col("alg") == label)["score"]
            assert share == pytest.approx((scores > at).mean() if direction == "max" else (scores < at).mean())
            assert low <= high
        inside = found.table.select(((pl.col("low") <= pl.col("share")) & (pl.col("share") <= pl.col("high"))).mean())
        assert inside.item() == 1
        assert found.sentence().startswith("Scores above" if direction == "max" else "Scores below")

    def test_bands_have_the_width_of_binomial_shares(self) -> None:
        scores = np.random.default_rng(0).normal(size=400)
        frame = pl.DataFrame({"alg": "a", "task": "x", "score": scores})
        found = performance_profiles(frame, "score", by="alg", task="task", direction="max", thresholds=[0.0])
        share, low, high = found.table.select("share", "low", "high").row(0)
        assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.1)

    def test_bad_thresholds_are_told(self) -> None:
        with pytest.raises(InvalidInputError, match="list of finite scores"):
            performance_profiles(TWO, "score", by="alg", task="task", direction="max", thresholds=[float("nan")])


@pytest.mark.slow
def test_stratified_intervals_cover() -> None:
    """Twenty runs on each of five tasks; the truth is that of a million runs."""
    truth = stats.trim_mean(np.concatenate(list(drawn(np.random.default_rng(1), 200_000, 5).values())), 0.25)
    rng = np.random.default_rng(11)
    held = {"iqm": 0, "improvement": 0, "profile": 0}
    simulations = 2000
    options = {"by": "alg", "task": "task", "resamples": 1000}
    above = float(np.mean([stats.norm.sf(2.5 - task) for task in range(5)]))
    better = stats.norm.cdf(0.5 / np.sqrt(2))
    for seed in range(simulations):
        frame = frame_of({"a": drawn(rng, 20, 5), "b": drawn(rng, 20, 5, 0.5)})
        iqm = over_tasks(frame.filter(pl.col("alg") == "a"), "score", seed=seed, **options).parts[0].interval
        won = probability_of_improvement(frame, "score", direction="max", first="b", second="a", seed=seed, **options)
        profile = performance_profiles(frame, "score", direction="max", thresholds=[2.5], seed=seed, **options).table
        held["iqm"] += truth in iqm
        held["improvement"] += better in won.interval
        held["profile"] += profile["low"][0] <= above <= profile["high"][0]
    shares = {name: count / simulations for name, count in held.items()}
    assert all(0.93 < share < 0.97 for share in shares.values()), shares
