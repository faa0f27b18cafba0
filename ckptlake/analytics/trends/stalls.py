"""Where training stood still or slowed down, from the times of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_not_huge, check_number
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.results import Result
from ckptlake.analytics.trends.smoothing import median_of_neighbours
from ckptlake.analytics.wording import number, percent, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

FEWEST_POINTS = 10
_SLOW_POINTS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stalls(Result):
    """When a run lost time.

    Attributes:
        label: the run.
        steps_per_s: the typical speed: the median over all pairs of neighbouring points.
        lost_s: seconds above what the same steps take at that speed, over all stalls.
        lost_share: that, as a share of the whole time.
        table: a row a stall, in order: ``kind`` (``"gap"`` or ``"slow"``), ``first_step``, ``last_step``, ``start_s``,
            ``duration_s``, ``lost_s`` and ``slowdown`` (how many times longer than typical).
        speed: steps per second, by step.
    """

    label: str
    steps_per_s: float
    lost_s: float
    lost_share: float
    table: pl.DataFrame
    speed: Curve

    def sentence(self) -> str:
        typical = f"{self.label} typically makes {number(self.steps_per_s)} steps a second"
        if not self.table.height:
            return f"{typical} and does not stall in {plural(self.n, 'point')}."
        worst = self.table.row(int(self.table["lost_s"].arg_max() or 0), named=True)
        return (
            f"{typical}; {plural(self.table.height, 'stall')} cost {number(self.lost_s)} s "
            f"({percent(self.lost_share)} of the time), the worst from step {number(worst['first_step'], 6)} "
            f"({worst['kind']}, {number(worst['duration_s'])} s)."
        )

    def chart(self) -> Chart:
        rows = [{"x": float(x), "speed": float(y)} for x, y in zip(self.speed.steps, self.speed.values, strict=True)]
        y = Axis("speed", "steps per second", zero=True)
        marks = self.table["first_step"].to_list()
        return line_chart(f"Speed of {self.label}", rows, x=Axis("x", "step"), y=y, marks=marks)


def stalls(curve: Curve, *, gap: float = 10.0, slow: float = 1.5) -> Stalls:
    """Return the gaps and the slow stretches of a run.

    A gap is one pair of neighbouring points that took `gap` times as long as typical for so many steps; checkpoints,
    evaluations and restarts look so. A slow stretch is five pairs or more whose running median took `slow` times as
    long. Typical is the median over the run, so a run that is slow for most of its length shows no stall.

    Args:
        curve: seconds over steps, such as ``curves_of(elapsed(frame), value="elapsed_s")``; ten points or more.
        gap: how many times longer than typical one pair must take, above 1.
        slow: how many times longer than typical a stretch must take, above 1.

    Raises:
        NotEnoughDataError: fewer than ten points with a time.
        InvalidInputError: time goes back, more than half of the points share their time with the one before, or a
            factor is not above 1.

    Example:
        >>> seconds = np.arange(50.0) + 30 * (np.arange(50) > 20)
        >>> stalls(Curve("a", np.arange(50.0), seconds)).table.select("kind", "first_step", "duration_s").row(0)
        ('gap', 20.0, 31.0)
    """
    check_number(gap, "gap", above=1.0)
    check_number(slow, "slow", above=1.0)
    finite = curve.finite()
    if finite.n < FEWEST_POINTS:
        raise NotEnoughDataError(
            f"the run {curve.label!r:.100} has {plural(finite.n, 'point')} with a time: stalls take {FEWEST_POINTS}"
        )
    check_not_huge(finite.values, f"the curve {curve.label!r:.100}")
    took, made = np.diff(finite.values), np.diff(finite.steps)
    if (took < 0).any():
        back = number(finite.steps[int(np.argmax(took < 0)) + 1], 6)
        raise InvalidInputError(
            f"time goes back at step {back} of {curve.label!r:.100}: cut the run there, as where it was resumed"
        )
    per_step = took / made
    typical = float(np.median(per_step))
    if typical == 0:
        raise InvalidInputError(
            f"more than half of the points of {curve.label!r:.100} have the time of the one before: it is too coarse"
        )
    is_gap = per_step > gap * typical
    is_slow = (median_of_neighbours(np.where(is_gap, typical, per_step), _SLOW_POINTS) > slow * typical) & ~is_gap
    found = [(first, first, "gap") for first in np.flatnonzero(is_gap).tolist()]
    edges = np.flatnonzero(np.diff(is_slow, prepend=False, append=False))
    found += [
        (int(first), int(end) - 1, "slow")
        for first, end in zip(edges[::2], edges[1::2], strict=True)
        if end - first >= _SLOW_POINTS
    ]
    rows = []
    for first, last, kind in sorted(found):
        duration = float(finite.values[last + 1] - finite.values[first])
        expected = typical * float(finite.steps[last + 1] - finite.steps[first])
        rows.append(
            {
                "kind": kind, "first_step": float(finite.steps[first]), "last_step": float(finite.steps[last + 1]),
                "start_s": float(finite.values[first]), "duration_s": duration, "lost_s": duration - expected,
                "slowdown": duration / expected,
            }
        )  # fmt: skip
    table = pl.DataFrame(rows, schema=_COLUMNS)
    lost = float(table["lost_s"].sum())
    n_bad = curve.n - finite.n
    moving = took > 0
    return Stalls(
        n=finite.n, method=f"pairs {gap:g} times, stretches {slow:g} times slower than the median", unit="s",
        notes=(f"{plural(n_bad, 'point')} without a time left out",) * bool(n_bad), label=curve.label,
        steps_per_s=1 / typical, lost_s=lost, lost_share=lost / float(finite.values[-1] - finite.values[0]),
        table=table, speed=Curve(curve.label, finite.steps[1:][moving], made[moving] / took[moving]),
    )  # fmt: skip


_COLUMNS = {
    "kind": pl.String, "first_step": pl.Float64, "last_step": pl.Float64, "start_s": pl.Float64,
    "duration_s": pl.Float64, "lost_s": pl.Float64, "slowdown": pl.Float64,
}  # fmt: skip
