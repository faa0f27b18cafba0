"""How long runs take to reach a value, those that never did included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_count, check_direction, check_level, check_number
from ckptlake.analytics.charts import Axis, Chart, interval_chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.curves.survival import (
    Durations,
    Survival,
    are_comparable,
    log_rank_all,
    log_rank_pairs,
    survival,
)
from ckptlake.analytics.results import Check, Result
from ckptlake.analytics.wording import listing, number, p_value, plural
from ckptlake.errors import NotEnoughDataError
from ckptlake.types import Direction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeToThreshold(Result):
    """How long runs take to reach a value.

    Attributes:
        x: what is counted until then, such as ``"step"`` or ``"seconds"``.
        threshold: the value to reach.
        n_reached: how many runs reached it.
        median: when half of the runs have it, after Kaplan and Meier; None where fewer than half ever do.
        table: a row a run: ``run``, ``reached``, ``x`` (when it did, or how long it was watched) and ``why``.
        survival: the estimate behind the median.
    """

    x: str
    threshold: float
    n_reached: int
    median: float | None
    table: pl.DataFrame
    survival: Survival

    def sentence(self) -> str:
        found = f"{self.n_reached:,} of {plural(self.n, 'run')} reached {number(self.threshold)}"
        if not self.n_reached:
            return f"None of {plural(self.n, 'run')} reached {number(self.threshold)}, so there is no median {self.x}."
        if self.median is None:
            return f"{found}; fewer than half ever did, so there is no median {self.x}."
        return f"{found}; the median {self.x} is {number(self.median)} ({self.interval})."

    def chart(self) -> Chart:
        title = f"Runs that have not reached {number(self.threshold)}"
        y = Axis("share", "share of runs", zero=True)
        marks = [] if self.median is None else [self.median]
        rows = _stairs(self.survival)
        return line_chart(title, rows, x=Axis("x", self.x), y=y, low="low", high="high", marks=marks, levels=[0.5])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThresholdComparison(Result):
    """Whether groups of runs take equally long to reach a value.

    Attributes:
        x: what is counted until then.
        threshold: the value to reach.
        statistic: chi-squared of the log-rank test over all groups.
        p_value: of that test.
        table: a row a group: ``group``, ``runs``, ``reached``, ``median``, ``low`` and ``high``.
        pairs: a row a pair: ``first``, ``second``, ``p`` of its log-rank test and ``p_holm`` after Holm's correction.
    """

    x: str
    threshold: float
    statistic: float
    p_value: float
    table: pl.DataFrame
    pairs: pl.DataFrame

    def sentence(self) -> str:
        medians = listing(
            f"{row['group']} {'never' if row['median'] is None else number(row['median'])}"
            for row in self.table.iter_rows(named=True)
        )
        told = "differ" if self.p_value < 0.05 else "do not differ reliably"
        return (
            f"The {plural(self.table.height, 'group')} {told} in how long they take to {number(self.threshold)} "
            f"(log-rank {p_value(self.p_value)}); median {self.x}: {medians}."
        )

    def chart(self) -> Chart:
        rows = self.table.iter_rows(named=True)
        title = f"Median {self.x} to {number(self.threshold)}"
        return interval_chart(title, rows, label="group", value=Axis("median", self.x), low="low", high="high")


def time_to_threshold(
    curves: Sequence[Curve], threshold: float, direction: Direction, *, hold: int = 1, level: float = 0.95,
    x: str = "step", unit: str = "",
) -> TimeToThreshold:  # fmt: skip
    """Return how long runs take to reach a value, counting those that never did.

    A run reaches the value at the first logged point at or past it. A run that ends before is known only to take
    longer than it was watched (it is censored). A run that diverged will never get there: it stays among those who
    have not until the last step of any run, so that throwing a run away early does not look like speed.

    Source: see `ckptlake.analytics.curves.survival.survival`; for diverged runs, Fine, J. and Gray, R. (1999), J.
    American Statistical Association 94.

    Args:
        curves: one a run.
        threshold: the value to reach, in the unit of the values.
        direction: whether smaller (``"min"``) or larger (``"max"``) values are better.
        hold: how many points in a row must be at or past it; the first of them counts.
        level: the confidence of the interval of the median.
        x: what the steps count.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: there is no curve, or one without a point.
        InvalidInputError: the threshold is not finite, or `direction`, `hold` or `level` cannot be.

    Example:
        >>> fast = Curve.of("fast", np.array([0.0, 10.0, 20.0]), np.array([4.0, 3.0, 2.0]))
        >>> slow = Curve.of("slow", np.array([0.0, 10.0, 20.0]), np.array([4.0, 3.8, 3.6]))
        >>> found = time_to_threshold([fast, slow], 3.5, "min")
        >>> found.n_reached, found.median, found.table["reached"].to_list()
        (1, 10.0, [True, False])
    """
    _check(threshold, direction, hold, level)
    table, durations = _durations(curves, threshold, direction, hold)
    found = survival(durations, level)
    return TimeToThreshold(
        n=len(curves), method="Kaplan-Meier", unit=unit, checks=(_censoring(table),), notes=_notes(curves, table),
        interval=found.interval, x=x, threshold=threshold, n_reached=int(durations.ended.sum()), median=found.median,
        table=table, survival=found,
    )  # fmt: skip


def compare_times(
    groups: Mapping[str, Sequence[Curve]], threshold: float, direction: Direction, *, hold: int = 1,
    level: float = 0.95, x: str = "step", unit: str = "",
) -> ThresholdComparison:  # fmt: skip
    """Return whether groups of runs take equally long to reach a value, by the log-rank test.

    The test is strongest where one group is ahead all along, and weak where the survival curves cross.

    Source: see `ckptlake.analytics.curves.survival.log_rank` and `log_rank_pairs`.

    Args:
        groups: the curves of each group, such as those of `curve_groups`.
        threshold: the value to reach, in the unit of the values.
        direction: whether smaller (``"min"``) or larger (``"max"``) values are better.
        hold: how many points in a row must be at or past it.
        level: the confidence of the intervals of the medians.
        x: what the steps count.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: fewer than two groups, no run of any group reached the value, all did at once, or a group
            ended before any run did.
        InvalidInputError: as `time_to_threshold` raises.

    Example:
        >>> def runs(name, *ends):
        ...     return [Curve.of(f"{name}{end}", np.array([0.0, end]), np.array([4.0, 1.0])) for end in ends]
        >>> found = compare_times({"a": runs("a", 1, 2, 3, 4), "b": runs("b", 11, 12, 13, 14)}, 1.5, "min")
        >>> found.p_value < 0.05, found.table["median"].to_list()
        (True, [2.0, 12.0])
    """
    if len(groups) < 2:
        raise NotEnoughDataError(f"a comparison takes two groups or more, got {len(groups)}")
    each = {
        label: time_to_threshold(curves, threshold, direction, hold=hold, level=level, x=x, unit=unit)
        for label, curves in groups.items()
    }
    horizon = max(curve.steps[-1] for curves in groups.values() for curve in curves)
    durations = [_durations(curves, threshold, direction, hold, horizon)[1] for curves in groups.values()]
    if not any(found.ended.any() for found in durations):
        raise NotEnoughDataError(f"no run reached {number(threshold)}: choose a value that some of them do")
    if not are_comparable(durations):
        raise NotEnoughDataError(
            f"nothing tells the groups apart by {number(threshold)}: all runs were there at the same {x}, or a group "
            "ended before any run was; choose a value that is harder to reach, or leave that group out"
        )
    statistic, p = log_rank_all(durations)
    labels = list(groups)
    pairs = [
        {"first": labels[i], "second": labels[j], "p": raw, "p_holm": holm}
        for i, j, raw, holm in log_rank_pairs(durations)
    ]
    rows = [_group_row(label, found) for label, found in each.items()]
    return ThresholdComparison(
        n=sum(found.n for found in each.values()), method="log-rank test; Kaplan-Meier medians", unit=unit,
        checks=tuple(check for found in each.values() for check in found.checks if check.holds is not True),
        notes=tuple(f"{label}: {note}" for label, found in each.items() for note in found.notes), x=x,
        threshold=threshold, statistic=statistic, p_value=p, table=pl.DataFrame(rows, infer_schema_length=None),
        pairs=pl.DataFrame(pairs),
    )  # fmt: skip


def first_reached(curve: Curve, threshold: float, direction: Direction, hold: int = 1) -> float | None:
    """Return the first step at which a curve is at or past a value for `hold` points in a row, or None.

    Raises:
        InvalidInputError: the threshold is not finite, or `direction` or `hold` cannot be.

    >>> first_reached(Curve.of("a", np.arange(4.0), np.array([4.0, 2.0, 3.0, 2.0])), 2.5, "min")
    1.0
    """
    check_number(threshold, "threshold")
    check_direction(direction)
    check_count(hold, "hold")
    finite = curve.finite()
    past = finite.values <= threshold if direction == "min" else finite.values >= threshold
    if len(past) < hold:
        return None
    held = np.lib.stride_tricks.sliding_window_view(past, hold).all(axis=1)
    return float(finite.steps[np.argmax(held)]) if held.any() else None


def _check(threshold: float, direction: Direction, hold: int, level: float) -> None:
    check_number(threshold, "threshold")
    check_direction(direction)
    check_count(hold, "hold")
    check_level(level)


def _durations(
    curves: Sequence[Curve], threshold: float, direction: Direction, hold: int, horizon: float | None = None
) -> tuple[pl.DataFrame, Durations]:
    if not curves or (empty := [curve.label for curve in curves if not curve.n]):
        missing = listing(empty) if curves else "any run"
        raise NotEnoughDataError(f"there are no points of {missing}: it takes at least one a run")
    last = max(curve.steps[-1] for curve in curves) if horizon is None else horizon
    rows = []
    for curve in curves:
        when = first_reached(curve, threshold, direction, hold)
        if when is not None:
            at, why = when, "already at its first point" if when == curve.steps[0] else "reached"
        elif not curve.is_finite[-1]:
            at, why = float(last), "diverged"
        else:
            at, why = float(curve.steps[-1]), "ended before"
        rows.append({"run": curve.label, "reached": when is not None, "x": at, "why": why})
    table = pl.DataFrame(rows)
    return table, Durations(table["x"].to_numpy(), table["reached"].to_numpy())


def _censoring(table: pl.DataFrame) -> Check:
    ended = table.filter(pl.col("why") == "ended before")
    alike = ended.height == 0 or ended["x"].n_unique() == 1
    told = "no run ended early" if not ended.height else f"{plural(ended.height, 'run')} ended before reaching it"
    return Check("runs were not stopped because they were slow", True if alike else None, told)


def _notes(curves: Sequence[Curve], table: pl.DataFrame) -> tuple[str, ...]:
    gap = float(np.median([np.median(np.diff(curve.steps)) if curve.n > 1 else 0.0 for curve in curves]))
    notes = [f"known to the next logged point; points are typically {number(gap)} apart"] if gap > 0 else []
    for why, told in (
        ("diverged", "diverged, counted as never reaching it"),
        ("already at its first point", "there at the first logged point, perhaps before"),
    ):
        if found := table.filter(pl.col("why") == why)["run"].to_list():
            notes.append(f"{listing(found)}: {told}")
    return tuple(notes)


def _group_row(label: str, found: TimeToThreshold) -> dict[str, object]:
    ends = found.survival.interval
    return {
        "group": label, "runs": found.n, "reached": found.n_reached, "median": found.median, "low": ends.low,
        "high": ends.high,
    }  # fmt: skip


def _stairs(found: Survival) -> list[dict[str, float]]:
    """Return two points a time, so that lines drawn between them are steps."""
    rows: list[dict[str, float]] = []
    before = {"share": 1.0, "low": 1.0, "high": 1.0}
    for time, share, low, high in zip(found.times, found.share, found.low, found.high, strict=True):
        after = {"share": float(share), "low": float(low), "high": float(high)}
        rows += [{"x": float(time), **before}, {"x": float(time), **after}]
        before = after
    return rows
