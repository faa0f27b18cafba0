"""One value a run, read from its curve: the last, the best, the one at a step, the mean of the last few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_count, check_direction, check_number
from ckptlake.analytics.frames import Columns, check_columns, floats, names
from ckptlake.errors import InvalidInputError

_MOST_POINTS = 2**31 - 1


class Reading(Protocol):
    """Which value of a curve stands for its run."""

    def step_and_value(self, step: pl.Expr, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        """Return expressions over the points of one run, in order of steps and without nulls."""
        ...


@dataclass(frozen=True, slots=True)
class Last:
    """The value at the last step, NaN or infinite if the run ended so."""

    def step_and_value(self, step: pl.Expr, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        return step.last(), value.last()


@dataclass(frozen=True, slots=True)
class Best:
    """The smallest or largest finite value at its first step; NaN where a run has no finite value.

    The best of many noisy points is better than the run: compare runs of one length alone, logged equally often.

    Args:
        direction: ``"min"`` or ``"max"``, whichever is better.
    """

    direction: Literal["min", "max"]

    def __post_init__(self) -> None:
        check_direction(self.direction)

    def step_and_value(self, step: pl.Expr, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        finite = value.filter(value.is_finite())
        best = finite.min() if self.direction == "min" else finite.max()
        return step.filter(value == best).first(), pl.when(value.len() > 0).then(best.fill_null(float("nan")))


@dataclass(frozen=True, slots=True)
class AtStep:
    """The value at a step; null for a run without it, such as one that ended earlier.

    Args:
        step: the step, in the unit of the column `x`.
        within: how much older a point may be that stands in for one at `step`, 0 for none.
    """

    step: float
    within: float = 0

    def __post_init__(self) -> None:
        check_number(self.step, "step")
        check_number(self.within, "within", least=0.0)

    def step_and_value(self, step: pl.Expr, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        near = (step <= self.step) & (step >= self.step - self.within)
        return step.filter(near).last(), value.filter(near).last()


@dataclass(frozen=True, slots=True)
class MeanOfLast:
    """The mean of the last k points, NaN if one of them is; null for a run with fewer points.

    Args:
        k: how many points, at least 1.
    """

    k: int

    def __post_init__(self) -> None:
        check_count(self.k, "k", most=_MOST_POINTS)

    def step_and_value(self, step: pl.Expr, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        enough = value.len() >= self.k
        return pl.when(enough).then(step.last()), pl.when(enough).then(value.tail(self.k).mean())


def readings(
    frame: pl.DataFrame,
    at: Reading | None = None,
    *,
    value: str = "value",
    x: str = "step",
    run: Columns = "run_id",
) -> pl.DataFrame:
    """Return one value for each run of a tidy frame of curves.

    Of points at one step the last row counts. A null value is no point. A run that diverged stays, told by the column
    `diverged`, whatever value was read from it.

    Args:
        frame: one row a point, in any order, such as ``query.curves("val/loss").to_polars()``.
        at: `Last()`, `Best("min")`, `AtStep(1000)`, `MeanOfLast(10)`; the last value where None.
        value: the column with the values.
        x: the column with steps, seconds or tokens.
        run: the columns that tell runs apart. Columns that are constant within a run, such as params, may be among
            them and so come along.

    Returns:
        The columns `run` in the order in which runs first appear; `x`, the step that was read, null where none was;
        `value` as Float64, null where there was nothing to read; `diverged`, whether the last value of the run is NaN
        or infinite.

    Raises:
        InvalidInputError: a column is missing or holds no numbers, or a step is null or not finite.

    Example:
        >>> frame = pl.DataFrame(
        ...     {"run_id": ["a", "a", "b", "b"], "step": [1, 2, 1, 2], "value": [3.0, 2.0, 2.5, float("nan")]}
        ... )
        >>> readings(frame, Best("min")).rows()
        [('a', 2, 2.0, False), ('b', 1, 2.5, True)]
    """
    keys = names(run)
    check_columns(frame, [*keys, x, value])
    if not np.isfinite(floats(frame, x)).all():
        raise InvalidInputError(f"the column {x!r:.100} has steps that are null or not finite: leave those rows out")
    measured = pl.Series(value, floats(frame, value)).set(frame[value].is_null(), None)
    points = frame.select(*keys, x, measured)
    ordered = points.drop_nulls(value).unique([*keys, x], keep="last", maintain_order=True).sort(x, maintain_order=True)
    step_read, value_read = (Last() if at is None else at).step_and_value(pl.col(x), pl.col(value))
    found = ordered.group_by(keys).agg(
        step_read.alias(x), value_read.alias(value), pl.col(value).last().is_finite().not_().alias("diverged")
    )
    runs = points.select(keys).unique(maintain_order=True)
    return runs.join(found, on=keys, how="left", nulls_equal=True, maintain_order="left").with_columns(
        pl.col("diverged").fill_null(False)
    )
