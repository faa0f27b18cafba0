"""What a curve is drawn over: steps, seconds since the start, or another metric such as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.curve import Curve, curves_of
from ckptlake.analytics.frames import Columns, check_columns, grouping, label_of, names, parts_of
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import InvalidInputError


@dataclass(frozen=True, slots=True, eq=False)
class Rescaled:
    """Curves over another axis.

    Attributes:
        curves: the curves, with the values of the other metric where their steps were.
        notes: which points have no place on the new axis, and why.
    """

    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


def elapsed(frame: pl.DataFrame, *, time: str = "timestamp", run: Columns = "run_id") -> pl.DataFrame:
    """Return the frame with a column `elapsed_s`: seconds since the first row of each run.

    Args:
        frame: one row a point.
        time: the column with the times of the points.
        run: the columns that tell runs apart.

    Raises:
        InvalidInputError: a column is missing, or `time` holds no datetimes.

    Example:
        >>> from datetime import datetime
        >>> frame = pl.DataFrame({"run_id": ["a", "a"], "timestamp": [datetime(2026, 1, 1), datetime(2026, 1, 2)]})
        >>> elapsed(frame)["elapsed_s"].to_list()
        [0.0, 86400.0]
    """
    keys = names(run)
    check_columns(frame, [*keys, time])
    if not isinstance(frame.schema[time], pl.Datetime):
        raise InvalidInputError(f"the column {time!r:.100} holds {frame.schema[time]}, not datetimes: cast it first")
    since = pl.col(time) - pl.col(time).min().over(keys)
    return frame.with_columns((since.dt.total_microseconds() / 1e6).alias("elapsed_s"))


def curve_groups(
    frame: pl.DataFrame, by: Columns, *, value: str = "value", x: str = "step", run: Columns = "run_id"
) -> dict[str, tuple[Curve, ...]]:
    """Return the curves of each configuration, in the order in which configurations first appear.

    Args:
        frame: one row a point.
        by: the columns that tell configurations apart.
        value: the column with the values.
        x: the column with steps, seconds or tokens.
        run: the columns that tell the runs of a configuration apart.

    Raises:
        InvalidInputError: a column is missing or holds no numbers, or a step is null or not finite.

    Example:
        >>> frame = pl.DataFrame({"lr": [1, 1, 2], "run_id": ["a", "b", "c"], "step": [1] * 3, "value": [1.0] * 3})
        >>> {label: len(curves) for label, curves in curve_groups(frame, "lr").items()}
        {'lr=1': 2, 'lr=2': 1}
    """
    keys = grouping(by)
    return {
        label_of(keys, key): curves_of(part, value=value, x=x, run=run) for key, part in parts_of(frame, keys).items()
    }


def rescale(curves: Sequence[Curve], by: Sequence[Curve]) -> Rescaled:
    """Return curves over the values of another metric of the same run, such as loss over tokens.

    The other metric is interpolated linearly at the steps of the curve and never extrapolated. Where it stands still,
    the last of the points at one of its values counts.

    Args:
        curves: the curves to draw over another axis.
        by: the curves of that axis, over the same steps and with the same labels; their values never fall.

    Raises:
        InvalidInputError: a run has no curve in `by`, or one that falls or has no finite value.

    Example:
        >>> loss = Curve.of("a", np.array([10.0, 20.0, 30.0]), np.array([4.0, 3.0, 2.0]))
        >>> tokens = Curve.of("a", np.array([0.0, 20.0]), np.array([0.0, 1000.0]))
        >>> told = rescale([loss], [tokens])
        >>> told.curves[0].steps.tolist(), told.notes
        ([500.0, 1000.0], ('a: 1 of 3 points lie beyond steps 0 to 20 of the new axis and are left out',))
    """
    axes = {axis.label: axis for axis in by}
    found: list[Curve] = []
    notes: list[str] = []
    for curve in curves:
        axis = _rising(axes, curve.label)
        inside = (curve.steps >= axis.steps[0]) & (curve.steps <= axis.steps[-1])
        places = np.interp(curve.steps[inside], axis.steps, axis.values)
        found.append(Curve.of(curve.label, places, curve.values[inside]))
        if n_outside := curve.n - int(inside.sum()):
            notes.append(
                f"{curve.label}: {n_outside:,} of {plural(curve.n, 'point')} lie beyond steps {number(axis.steps[0])} "
                f"to {number(axis.steps[-1])} of the new axis and are left out"
            )
    return Rescaled(tuple(found), tuple(notes))


def _rising(axes: dict[str, Curve], label: str) -> Curve:
    if label not in axes:
        raise InvalidInputError(
            f"the run {label!r:.100} has no curve of the new axis; there are those of {plural(len(axes), 'run')}"
        )
    axis = axes[label].finite()
    if not axis.n:
        raise InvalidInputError(f"the new axis of the run {label!r:.100} has no finite value")
    falls = np.flatnonzero(axis.values[1:] < axis.values[:-1])
    if len(falls):
        raise InvalidInputError(
            f"the new axis of the run {label!r:.100} falls after step {number(axis.steps[falls[0]])}: "
            "an axis must never fall, as tokens or seconds do not"
        )
    return axis
