"""The verdict on a training curve: how it ended, since which step, and what in the data says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from scipy import stats

from ckptlake.analytics.arguments import check_direction, check_level
from ckptlake.analytics.curve import Curve, curves_of
from ckptlake.analytics.frames import Columns
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Interval
from ckptlake.analytics.trends.excursions import Limits, course
from ckptlake.analytics.trends.judgements import AlarmRate, Verdict, Verdicts
from ckptlake.analytics.trends.judging import Case, diverged, ended, not_finite, not_finite_from, too_short
from ckptlake.analytics.trends.tails import FEWEST_POINTS
from ckptlake.analytics.wording import plural
from ckptlake.errors import NotEnoughDataError
from ckptlake.types import Direction

_HUGE = 1e150


def verdict(curve: Curve, direction: Direction, *, limits: Limits | None = None, unit: str = "") -> Verdict:
    """Return how a curve ended, since which step, and what says so.

    The gravest kind that holds is the verdict, in this order:

    - *not finite*: its last values are NaN or infinite, in a longer row than any it came back from.
    - *diverged*: it left its best level and ended away from it by a quarter of all it had gained and by 8 standard
      deviations of its noise, or it swings ever farther. A divergence is told from three points on.
    - *oscillating*: one frequency makes up half of the variance of its last half.
    - *recovered*: it left its best level for two points or more and came back; `tail` says what it does since.
    - *improving*, *plateau*, *worsening*: what its last quarter does.
    - *undecided*: noise or too few points hide it; the notes say how many would do.

    Only the last quarter is asked about a plateau, so a level stretch before a learning-rate decay is none. The
    figures are those of `limits`, set on synthetic curves and checked on real ones; they are conventions, not laws.

    Source: `tail_of`, `swing_of` and `monotone` name those of their tests; Mann, H. and Whitney, D. (1947), Annals of
    Mathematical Statistics 18, for the confidence of a departure.

    Args:
        curve: any; ten finite points or more for a verdict on its end.
        direction: whether smaller (``"min"``) or larger (``"max"``) values are better.
        limits: what counts as how much.
        unit: the unit of the values.

    Raises:
        InvalidInputError: the direction is neither.

    Example:
        >>> steps = np.arange(200.0)
        >>> loss = 3 + 5 * np.exp(-steps / 20)
        >>> verdict(Curve("a", steps, np.where(steps < 120, loss, 10.8)), "min").kind
        'diverged'
        >>> found = verdict(Curve("b", steps, loss), "min")
        >>> found.kind, 50 < found.step < 150
        ('plateau', True)
    """
    check_direction(direction)
    curve, n_huge = _bounded(curve)
    finite = curve.finite()
    if not curve.n:
        notes: tuple[str, ...] = (f"there are no points: a verdict on the end takes {FEWEST_POINTS}",)
    else:
        notes = _notes(curve, n_huge)
    sign = 1.0 if direction == "min" else -1.0
    case = Case(curve, finite, sign, Limits() if limits is None else limits, unit, notes)
    went = course(sign * finite.values, case.limits) if finite.n else None
    if (place := not_finite_from(curve)) is not None:
        return not_finite(case, place, went)
    if went is None:
        return case.verdict("undecided", ())
    if went.has_diverged or went.swings_apart:
        return diverged(case, went)
    return too_short(case, went) if finite.n < FEWEST_POINTS else ended(case, went)


def verdicts(
    frame: pl.DataFrame, direction: Direction, *, value: str = "value", x: str = "step", run: Columns = "run_id",
    limits: Limits | None = None, unit: str = "",
) -> Verdicts:  # fmt: skip
    """Return the verdict on every curve of a tidy frame.

    Args:
        frame: one row a point.
        direction: whether smaller (``"min"``) or larger (``"max"``) values are better.
        value: the column with the values.
        x: the column with the steps.
        run: the columns that tell curves apart.
        limits: what counts as how much.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: the frame has no rows.
        InvalidInputError: as `curves_of` and `verdict` raise.

    Example:
        >>> frame = pl.DataFrame({"run_id": "a", "step": range(4), "value": [3.0, 2.0, float("nan"), float("nan")]})
        >>> verdicts(frame, "min").table.select("run", "verdict", "step").row(0)
        ('a', 'not finite', 2.0)
    """
    curves = curves_of(frame, value=value, x=x, run=run)
    if not curves:
        raise NotEnoughDataError("the frame has no rows: a verdict takes a curve")
    found = tuple(verdict(curve, direction, limits=limits, unit=unit) for curve in track(curves, "judging curves"))
    return Verdicts(n=len(found), method="a verdict on each curve", unit=unit, verdicts=found)


def alarm_rate(found: Verdicts, *, level: float = 0.95) -> AlarmRate:
    """Return the share of curves called lost: false alarms where all are known to have ended well.

    Source: Clopper, C. and Pearson, E. (1934), Biometrika 26, for the interval.

    Args:
        found: the verdicts.
        level: the confidence of the interval.

    Example:
        >>> frame = pl.DataFrame({"run_id": "a", "step": range(4), "value": [3.0, 2.0, 1.0, float("nan")]})
        >>> alarm_rate(verdicts(frame, "min")).n_alarms
        1
    """
    check_level(level)
    n_alarms = len(found.alarms)
    ends = stats.binomtest(n_alarms, found.n).proportion_ci(level, "exact")
    interval = Interval(float(ends.low), float(ends.high), level, "Clopper-Pearson")
    return AlarmRate(
        n=found.n, method="share of curves called diverged or not finite", interval=interval,
        share=n_alarms / found.n, n_alarms=n_alarms, alarms=found.alarms,
    )  # fmt: skip


def _bounded(curve: Curve) -> tuple[Curve, int]:
    """Return the curve with values that squares would overflow as infinities, and how many they are."""
    huge = curve.is_finite & (np.abs(curve.values) > _HUGE)
    if not huge.any():
        return curve, 0
    return replace(curve, values=np.where(huge, np.copysign(np.inf, curve.values), curve.values)), int(huge.sum())


def _notes(curve: Curve, n_huge: int) -> tuple[str, ...]:
    notes = []
    if n_huge:
        notes.append(f"{plural(n_huge, 'value')} beyond {_HUGE:g} count as infinite")
    if n_bad := int((~curve.is_finite).sum()):
        notes.append(f"{plural(n_bad, 'value')} of {curve.n:,} NaN or infinite")
    if curve.n_repeated:
        notes.append(f"{plural(curve.n_repeated, 'point')} overwritten by later ones at the same step")
    return tuple(notes)
