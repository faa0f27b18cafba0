"""Performance profiles: the share of runs beyond every score, after Agarwal et al. (2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_direction, check_level
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Result
from ckptlake.analytics.statistics.resampling import counted
from ckptlake.analytics.statistics.scores import Scores, scores_of
from ckptlake.analytics.wording import number, percent
from ckptlake.errors import InvalidInputError
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
        pooled: float64, shape (n,).
        thresholds: float64, shape (t,).

    Returns:
        float64, shape (t,).

    Example:
        >>> profile_of(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 9.0])).tolist()
        [1.0, 0.5, 0.0]
    """
    return 1 - np.searchsorted(np.sort(pooled), thresholds, side="right") / len(pooled)


def performance_profiles(
    frame: pl.DataFrame,
    value: str,
    *,
    by: str,
    task: str,
    direction: Direction,
    thresholds: Sequence[float] | None = None,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> PerformanceProfiles:
    """Return the performance profile of each algorithm, with bootstrap bands that resample runs within tasks.

    Where one profile lies above another everywhere, that algorithm is better whatever score one asks for; where they
    cross, it depends on the score. The bands hold at each threshold by itself, not for the whole curve.

    Args:
        frame: one row a run.
        value: the column with the scores, comparable between tasks.
        by: the column with the algorithm or configuration.
        task: the column with the task, data set or size.
        direction: ``"max"`` for the share of runs above a score, ``"min"`` for the share below.
        thresholds: the scores asked for; 101 evenly spaced ones from the smallest to the largest score where None.
        level: the confidence of the bands, between 0 and 1.
        resamples: how many samples are drawn.
        seed: of the generator.

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
    parts = [_banded(each, at, direction, level, resamples, seed) for each in scores]
    return PerformanceProfiles(
        n=sum(each.n for each in scores),
        method=f"run-score distribution, stratified bootstrap bands, {resamples:,} resamples",
        checks=tuple(each.enough_runs for each in scores),
        notes=tuple(note for each in scores for note in each.pooling_notes),
        direction=direction,
        level=level,
        table=pl.concat(parts),
    )


def _thresholds(scores: Sequence[Scores], wanted: Sequence[float] | None) -> Floats:
    if wanted is None:
        pooled = np.concatenate([each.pooled for each in scores])
        return np.linspace(pooled.min(), pooled.max(), _THRESHOLDS)
    at = np.asarray(wanted, np.float64)
    if at.ndim != 1 or len(at) == 0 or not np.isfinite(at).all():
        raise InvalidInputError(f"thresholds={wanted!r:.200}: a list of finite scores is needed")
    return at


def _banded(
    scores: Scores, thresholds: Floats, direction: Direction, level: float, resamples: int, seed: int
) -> pl.DataFrame:
    sign = 1.0 if direction == "max" else -1.0
    pooled, at = sign * scores.pooled, sign * thresholds
    beyond = (pooled[:, None] > at[None, :]).astype(np.float64)
    sizes = [len(values) for values in scores.by_task.values()]
    draws = np.concatenate([counts @ beyond for counts in counted(sizes, resamples=resamples, seed=seed)]) / scores.n
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    columns = {"threshold": thresholds, "share": profile_of(pooled, at), "low": low, "high": high}
    return pl.DataFrame({"label": [scores.label] * len(at), **columns})
