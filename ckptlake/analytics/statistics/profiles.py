"""Performance profiles: the share of runs beyond every score, after Agarwal et al. (2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_direction, check_level, numbers
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Result
from ckptlake.analytics.statistics.scores import Scores, scores_of
from ckptlake.analytics.statistics.shares import share_interval
from ckptlake.analytics.wording import number, percent
from ckptlake.errors import InvalidInputError, NotEnoughDataError
from ckptlake.types import Direction

_THRESHOLDS = 101


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PerformanceProfiles(Result):
    """The share of runs of all tasks with a better score than each threshold, for each algorithm.

    Attributes:
        direction: whether small or large scores are good.
        level: the confidence of the bands, at each threshold by itself.
        table: one row an algorithm and threshold: `label`, `threshold`, `share`, `low`, `high`.
    """

    direction: Direction
    level: float
    table: pl.DataFrame

    def sentence(self) -> str:
        middle = float(self.table["threshold"].median())  # type: ignore[arg-type]
        nearest = self.table.group_by("label", maintain_order=True).agg(
            pl.col("threshold", "share").sort_by((pl.col("threshold") - middle).abs()).first()
        )
        side = "above" if self.direction == "max" else "below"
        told = [f"{percent(share)} of the runs of {label}" for label, _, share in nearest.rows()]
        return f"Scores {side} {number(nearest['threshold'][0])}: {', '.join(told)}."

    def chart(self) -> Chart:
        side = "above" if self.direction == "max" else "below"
        return line_chart(
            "Performance profiles",
            self.table.rename({"label": "algorithm"}).to_dicts(),
            x=Axis("threshold", "score"),
            y=Axis("share", f"share of runs {side} it", zero=True),
            color="algorithm",
            low="low",
            high="high",
        )


def profile_of(pooled: Floats, thresholds: Floats) -> Floats:
    """Return the share of scores above each threshold.

    Args:
        pooled: float64, shape (n,), n >= 1.
        thresholds: float64, shape (t,).

    Returns:
        float64, shape (t,).

    Raises:
        NotEnoughDataError: there are no scores.
        InvalidInputError: a score or a threshold is NaN.

    Example:
        >>> profile_of(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 9.0])).tolist()
        [1.0, 0.5, 0.0]
    """
    scores, at = numbers(pooled, "the list of scores"), numbers(thresholds, "the list of thresholds")
    if not len(scores):
        raise NotEnoughDataError("there are no scores, so no share of them")
    if np.isnan(scores).any() or np.isnan(at).any():
        raise InvalidInputError("scores and thresholds must not be NaN: leave such out and tell how many")
    return 1 - np.searchsorted(np.sort(scores), at, side="right") / len(scores)


def performance_profiles(
    frame: pl.DataFrame,
    value: str,
    *,
    by: str,
    task: str,
    direction: Direction,
    thresholds: Sequence[float] | None = None,
    level: float = 0.95,
) -> PerformanceProfiles:
    """Return the performance profile of each algorithm, with a band of score intervals.

    Where one profile lies above another everywhere, that algorithm is better whatever score one asks for; where they
    cross, it depends on the score. The bands hold at each threshold by itself, not for the whole curve. They are
    Wilson's (1927), which have a width also where all runs or none are beyond; a bootstrap has none there.

    Args:
        frame: one row a run.
        value: the column with the scores, comparable between tasks.
        by: the column with the algorithm or configuration.
        task: the column with the task, data set or size.
        direction: ``"max"`` for the share of runs above a score, ``"min"`` for the share below.
        thresholds: the scores asked for; 101 evenly spaced ones from the smallest to the largest score where None.
        level: the confidence of the bands, between 0 and 1.

    Raises:
        NotEnoughDataError: an algorithm has fewer than two finite scores on a task.
        InvalidInputError: a column is missing or holds no numbers, or a threshold is not finite.

    Example:
        >>> frame = pl.DataFrame({"alg": ["a"] * 4, "task": list("xxyy"), "score": [0.1, 0.4, 0.6, 0.9]})
        >>> found = performance_profiles(
        ...     frame, "score", by="alg", task="task", direction="max", thresholds=[0.0, 0.5, 1.0]
        ... )
        >>> found.table["share"].to_list()
        [1.0, 0.5, 0.0]
    """
    check_direction(direction)
    check_level(level)
    scores = scores_of(frame, value, by=by, task=task)
    at = _thresholds(scores, thresholds)
    parts = [_banded(each, at, direction, level) for each in scores]
    return PerformanceProfiles(
        n=sum(each.n for each in scores),
        method="run-score distribution, Wilson bands at each score",
        notes=tuple(note for each in scores for note in each.pooling_notes),
        direction=direction,
        level=level,
        table=pl.concat(parts),
    )


def _thresholds(scores: Sequence[Scores], wanted: Sequence[float] | None) -> Floats:
    if wanted is None:
        pooled = np.concatenate([each.pooled for each in scores])
        return 2 * np.linspace(pooled.min() / 2, pooled.max() / 2, _THRESHOLDS)
    at = numbers(wanted, "the list of thresholds")
    if len(at) == 0 or not np.isfinite(at).all():
        raise InvalidInputError(f"thresholds={wanted!r:.200}: a list of finite scores is needed")
    return at


def _banded(scores: Scores, thresholds: Floats, direction: Direction, level: float) -> pl.DataFrame:
    sign = 1.0 if direction == "max" else -1.0
    shares = np.array([profile_of(sign * values, sign * thresholds) for values in scores.by_task.values()])
    low, high = share_interval(shares, [len(values) for values in scores.by_task.values()], level)
    share = profile_of(sign * scores.pooled, sign * thresholds)
    columns = {"threshold": thresholds, "share": share, "low": low, "high": high}
    return pl.DataFrame({"label": [scores.label] * len(thresholds), **columns})
