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
from ckptlake.analytics.statistics.resampling import stratified_interval
from ckptlake.analytics.statistics.shares import pairs_won_interval, share_interval
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


def freedom(tasks: list[np.ndarray]) -> float:
    """Return Satterthwaite's degrees of freedom of an interquartile mean of all, by leaving out each score."""
    variances = []
    for k, task in enumerate(tasks):
        left = [
            stats.trim_mean(np.concatenate([*tasks[:k], np.delete(task, at), *tasks[k + 1 :]]), 0.25)
            for at in range(len(task))
        ]
        variances.append(np.var(left) * (len(task) - 1))
    return sum(variances) ** 2 / sum(v**2 / (len(task) - 1) for v, task in zip(variances, tasks, strict=True))


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

    def test_the_interval_is_that_of_a_plain_stratified_bootstrap_expanded(self) -> None:
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
        farther = np.sqrt(10 / 9) * stats.t.ppf(0.975, freedom(tasks)) / stats.norm.ppf(0.975)
        plain = np.quantile(draws, [0.025, 0.975])
        assert ends == pytest.approx(
            found.estimate + farther * (plain - found.estimate), abs=0.08 * found.interval.width
        )
        assert found.interval.method == "expanded stratified bootstrap BCa, 10,000 resamples"

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

    def test_what_is_at_no_distance_from_a_target_is_told(self) -> None:
        with pytest.raises(InvalidInputError, match="scores have NaN"):
            OptimalityGap().of(np.array([0.5, np.nan]))
        with pytest.raises(InvalidInputError, match="values up to 1e"):
            OptimalityGap().of(np.array([0.5, 1e300]))
        for target in (float("nan"), 1.7e308):
            with pytest.raises(InvalidInputError, match="target="):
                OptimalityGap(target)


class TestImprovement:
    @given(SCORES, SCORES)
    def test_it_counts_pairs(self, first: list[float], second: list[float]) -> None:
        won = sum(1.0 if x > y else 0.5 if x == y else 0.0 for x in first for y in second)
        found = probability_above(np.array(first), np.array(second))
        assert found == pytest.approx(won / (len(first) * len(second)))
        u = stats.mannwhitneyu(first, second, method="asymptotic" if len({*first, *second}) > 1 else "exact").statistic
        assert found == pytest.approx(u / (len(first) * len(second)))

    def test_of_many_runs_the_interval_is_that_of_a_plain_stratified_bootstrap(self) -> None:
        many = {"a": drawn(np.random.default_rng(2), 60, 4, 0.5), "b": drawn(np.random.default_rng(3), 60, 4)}
        options = {"by": "alg", "task": "task", "first": "a", "second": "b"}
        found = probability_of_improvement(frame_of(many), "score", direction="max", **options)
        rng = np.random.default_rng(5)
        draws = []
        for _ in range(2000):
            shares = [np.mean(rng.choice(many["a"][t], 60)[:, None] > rng.choice(many["b"][t], 60)) for t in many["a"]]
            draws.append(np.mean(shares))
        assert found.interval is not None
        ends = (found.interval.low, found.interval.high)
        assert ends == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.1 * found.interval.width)
        assert found.probability == pytest.approx(np.mean(list(found.by_task.values())))

    def test_where_every_pair_is_won_the_interval_still_has_a_width(self) -> None:
        scores = {"a": {"x": [3.0, 4.0, 5.0], "y": [3.0, 4.0]}, "b": {"x": [1.0, 2.0], "y": [0.0, 1.0]}}
        options = {"by": "alg", "task": "task", "first": "a", "second": "b"}
        found = probability_of_improvement(frame_of(scores), "score", direction="max", **options)
        assert found.interval is not None
        assert found.probability == found.interval.high == 1.0
        assert 0.4 < found.interval.low < 0.9

    @pytest.mark.parametrize(("first", "message"), [([], "the first sample is empty"), ([np.nan], "has NaN")])
    def test_pairs_take_a_value_of_each(self, first: list[float], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            probability_above(np.array(first), np.array([1.0]))
        assert probability_above(np.array([np.inf, 1.7e308]), np.array([-1.7e308, np.inf])) == 0.625

    def test_the_direction_turns_it_around(self) -> None:
        options = {"by": "alg", "task": "task", "first": "a", "second": "b"}
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

    @pytest.mark.parametrize("n", [2, 5, 40])
    def test_bands_of_one_task_are_the_score_intervals_of_scipy(self, n: int) -> None:
        scores = np.random.default_rng(0).normal(size=n)
        frame = pl.DataFrame({"alg": "a", "task": "x", "score": scores})
        where = {"by": "alg", "task": "task"}
        found = performance_profiles(frame, "score", **where, direction="max", thresholds=[-9.0, 0.0, 9.0], level=0.9)
        for at, low, high in found.table.select("threshold", "low", "high").rows():
            theirs = stats.binomtest(int((scores > at).sum()), n).proportion_ci(0.9, "wilson")
            assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)

    def test_bands_are_narrower_where_tasks_differ(self) -> None:
        widths = []
        for shift in (0.0, 1.5, 5.0):
            tasks = {"x": [-1.0, 1.0, -1.0, 1.0, 1.0, -1.0], "y": [-1.0, 1.0, -1.0, 1.0, 1.0, -1.0]}
            tasks = {"x": [value - shift for value in tasks["x"]], "y": [value + shift for value in tasks["y"]]}
            where = {"by": "alg", "task": "task"}
            found = performance_profiles(frame_of({"a": tasks}), "score", **where, direction="max", thresholds=[0.0])
            widths.append(found.table.select(pl.col("high") - pl.col("low")).item())
        assert widths[0] > widths[1] == widths[2] > 0.1

    def test_thresholds_of_huge_scores_do_not_overflow(self) -> None:
        frame = frame_of({"a": {"x": [-1.7e308, 1.7e308, 0.0]}})
        found = performance_profiles(frame, "score", by="alg", task="task", direction="max").table
        assert found["threshold"].is_finite().all()
        assert found["share"][0] == pytest.approx(2 / 3)

    @pytest.mark.parametrize(("scores", "at"), [([], [1.0]), ([np.nan], [1.0]), ([1.0], [np.nan])])
    def test_what_has_no_share_is_told(self, scores: list[float], at: list[float]) -> None:
        with pytest.raises(InvalidInputError, match=r"no scores|NaN"):
            profile_of(np.array(scores), np.array(at))

    def test_bad_thresholds_are_told(self) -> None:
        with pytest.raises(InvalidInputError, match="list of finite scores"):
            performance_profiles(TWO, "score", by="alg", task="task", direction="max", thresholds=[float("nan")])


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "runs"), [(1, 5), (3, 5), (5, 5), (5, 10), (26, 5)])
def test_expanded_intervals_over_tasks_hold(tasks: int, runs: int) -> None:
    """The truth is the figure of a million runs; the tasks vary differently."""
    spreads = np.resize([0.5, 1.0, 2.0], tasks)[:, None]

    def scores(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.arange(tasks)[:, None] / 2 + spreads * rng.normal(size=(tasks, n))

    rng = np.random.default_rng(11)
    for figure in (InterquartileMean(), Mean(), OptimalityGap(1.0)):
        truth = float(figure.of(scores(np.random.default_rng(1), 1_000_000 // tasks).ravel()))
        held = 0
        for seed in range(2000):
            found = stratified_interval(list(scores(rng, runs)), figure.of, resamples=500, seed=seed)
            held += truth in found
        assert 0.93 < held / 2000 < 0.97, figure


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "runs"), [(1, 5), (3, 5), (5, 5), (5, 10), (26, 5)])
def test_intervals_of_pairs_won_hold(tasks: int, runs: int) -> None:
    rng = np.random.default_rng(12)
    for shifts in ([0.0], [1.0], [2.0], [0.0, 2.0]):
        apart = np.resize(shifts, tasks)
        truth = float(stats.norm.cdf(apart / np.sqrt(2)).mean())
        held = 0
        for _ in range(2000):
            first, second = rng.normal(size=(tasks, runs)) + apart[:, None], rng.normal(size=(tasks, runs))
            won = [probability_above(ours, theirs) for ours, theirs in zip(first, second, strict=True)]
            low, high = pairs_won_interval(won, [(runs, runs)] * tasks, 0.95)
            held += low <= truth <= high
        assert 0.925 < held / 2000 < 0.98, shifts


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "runs"), [(1, 10), (3, 5), (5, 5), (5, 10), (26, 5)])
def test_profile_bands_hold_on_average_over_shares(tasks: int, runs: int) -> None:
    """Counts jump, so that no interval of a share holds the same everywhere (Agresti and Coull 1998)."""
    rng = np.random.default_rng(13)
    truths = np.clip(rng.uniform(0.02, 0.98, 4000) + rng.normal(0, 0.1, (tasks, 4000)), 0.0, 1.0)
    low, high = share_interval(rng.binomial(runs, truths) / runs, [runs] * tasks, 0.95)
    assert 0.93 < np.mean((low <= truths.mean(0)) & (truths.mean(0) <= high)) < 0.97
