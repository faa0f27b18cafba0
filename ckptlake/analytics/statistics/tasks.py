"""One figure of an algorithm over many tasks with few runs each, after Agarwal et al. (2021).

Its interval resamples the runs within each task ("Deep Reinforcement Learning at the Edge of the Statistical
Precipice"). So it says how the figure would move with other seeds on these tasks, not on other tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import LARGEST, check_direction, check_level, check_not_huge, check_number
from ckptlake.analytics.charts import Axis, Chart, interval_chart
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.statistics.estimators import iqm, mean
from ckptlake.analytics.statistics.resampling import RESAMPLES, stratified_interval
from ckptlake.analytics.statistics.scores import Scores, scores_of
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction


class Figure(Protocol):
    """A figure of the scores of all runs on all tasks, along the last axis."""

    @property
    def name(self) -> str: ...

    def of(self, pooled: Floats) -> Any:
        """Map float64 of shape (..., n) to (...)."""
        ...


@dataclass(frozen=True, slots=True)
class InterquartileMean:
    """The mean of the middle half of all runs of all tasks: few runs move it less than the median or the mean."""

    @property
    def name(self) -> str:
        return "interquartile mean"

    def of(self, pooled: Floats) -> Any:
        return iqm(pooled)


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of all runs of all tasks; a few tasks with large scores can rule it."""

    @property
    def name(self) -> str:
        return "mean"

    def of(self, pooled: Floats) -> Any:
        return mean(pooled)


@dataclass(frozen=True, slots=True)
class OptimalityGap:
    """How far runs fall short of a target on average; what is better than the target does not make up for it.

    Args:
        target: the score that is good enough, such as 1 for scores normalised to a known solution.
        direction: ``"max"`` where large scores are good, ``"min"`` where small ones are.

    Example:
        >>> float(OptimalityGap(3.28, "min").of(np.array([3.30, 3.20])))
        0.010...
    """

    target: float = 1.0
    direction: Direction = "max"

    def __post_init__(self) -> None:
        check_direction(self.direction)
        check_number(self.target, "target", least=-LARGEST, most=LARGEST)

    @property
    def name(self) -> str:
        return f"optimality gap to {number(self.target)}"

    def of(self, pooled: Floats) -> Any:
        if np.isnan(pooled).any():
            raise InvalidInputError("scores have NaN, which is at no distance from a target: leave it out and tell so")
        check_not_huge(pooled, "the list of scores")
        short = self.target - pooled if self.direction == "max" else pooled - self.target
        return np.maximum(short, 0.0).mean(axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskAggregate(Result):
    """One figure of one algorithm over all tasks.

    Attributes:
        label: the algorithm.
        figure: the name of the figure.
        estimate: its value.
        tasks: over how many tasks.
    """

    label: str
    figure: str
    estimate: float
    tasks: int

    def sentence(self) -> str:
        return (
            f"{self.label}: {self.figure} {number(self.estimate)} ({self.interval}) "
            f"over {plural(self.tasks, 'task')} and {plural(self.n, 'run')}."
        )

    def chart(self) -> Chart:
        return _chart([self])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskAggregates(Result):
    """One figure of every algorithm over all tasks.

    Attributes:
        parts: one an algorithm, in the order in which algorithms first appear.
    """

    parts: tuple[TaskAggregate, ...]

    @property
    def table(self) -> pl.DataFrame:
        """One row an algorithm: `label`, `figure`, `estimate`, `low`, `high`, `level`, `n`, `tasks`."""
        columns = ("label", "figure", "estimate", "low", "high", "level", "n", "tasks")
        return pl.DataFrame([part.row() for part in self.parts]).select(columns)

    def sentence(self) -> str:
        return " ".join(part.sentence() for part in self.parts)

    def chart(self) -> Chart:
        return _chart(self.parts)


def over_tasks(
    frame: pl.DataFrame,
    value: str,
    *,
    by: str,
    task: str,
    figure: Figure | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> TaskAggregates:
    """Return a figure of each algorithm over all tasks, with its stratified bootstrap interval.

    Scores must be comparable between tasks: normalise them before. The interval is the expanded one of
    `stratified_interval`; it is not trustworthy where a single task has nearly all the variance and the interquartile
    mean cuts it off, nor on three runs a task. Where every run reaches the target, a gap of 0 has no width.

    Args:
        frame: one row a run.
        value: the column with the scores.
        by: the column with the algorithm or configuration.
        task: the column with the task, data set or size.
        figure: `InterquartileMean()`, `Mean()` or `OptimalityGap(...)`; the interquartile mean where None.
        level: the confidence, between 0 and 1.
        resamples: how many samples are drawn.
        seed: of the generator.

    Raises:
        NotEnoughDataError: an algorithm has fewer than two finite scores on a task.
        InvalidInputError: a column is missing or holds no numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> frame = pl.DataFrame(
        ...     {"alg": ["a"] * 20, "task": ["x", "y"] * 10, "score": rng.normal(1, 0.1, 20)}
        ... )
        >>> print(over_tasks(frame, "score", by="alg", task="task"))
        a: interquartile mean 0.9826 (95 % interval 0.9444 to 1.032) over 2 tasks and 20 runs.
    """
    check_level(level)
    how = InterquartileMean() if figure is None else figure
    parts = []
    for scores in scores_of(frame, value, by=by, task=task):
        strata = list(scores.by_task.values())
        interval = stratified_interval(strata, how.of, level=level, resamples=resamples, seed=seed)
        parts.append(_aggregate(scores, how, interval))
    return TaskAggregates(
        n=sum(part.n for part in parts),
        method=parts[0].method,
        checks=tuple(check for part in parts for check in part.checks),
        notes=tuple(note for part in parts for note in part.notes),
        parts=tuple(parts),
    )


def _aggregate(scores: Scores, figure: Figure, interval: Interval) -> TaskAggregate:
    return TaskAggregate(
        label=scores.label,
        figure=figure.name,
        estimate=float(figure.of(scores.pooled)),
        tasks=len(scores.by_task),
        n=scores.n,
        method=f"{figure.name} over runs and tasks, {interval.method}",
        checks=(scores.enough_runs,),
        interval=interval,
        notes=scores.pooling_notes,
    )


def _chart(parts: Sequence[TaskAggregate]) -> Chart:
    title = f"{parts[0].figure.capitalize()} over {plural(parts[0].tasks, 'task')}"
    rows = [part.row() for part in parts]
    value = Axis("estimate", parts[0].figure)
    return interval_chart(title, rows, label="label", value=value, low="low", high="high")
