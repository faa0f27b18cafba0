"""Steps at which the mean of a series jumps (needs the `analysis` extra)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_count, check_not_huge, check_number
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.libraries import need
from ckptlake.analytics.results import Check, Result
from ckptlake.analytics.wording import listing, number, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

MOST_POINTS = 20_000
_HIGHEST_AUTOCORRELATION = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChangePoints(Result):
    """Where the mean of a curve jumps.

    Attributes:
        label: the run.
        steps: the first step of each segment but the first.
        penalty: what a change-point had to save in squared error.
        table: a row a segment: ``first`` and ``last`` step, ``points`` and ``mean``.
        curve: the finite points.
    """

    label: str
    steps: tuple[float, ...]
    penalty: float
    table: pl.DataFrame
    curve: Curve

    def sentence(self) -> str:
        if not self.steps:
            return f"{self.label}: the mean does not jump in {plural(self.n, 'point')}."
        at = listing(number(step, 6) for step in self.steps)
        where = "step" if len(self.steps) == 1 else "steps"
        return f"{self.label}: the mean jumps {plural(len(self.steps), 'time')}, at {where} {at}."

    def chart(self) -> Chart:
        rows = [{"x": float(x), "value": float(y)} for x, y in zip(self.curve.steps, self.curve.values, strict=True)]
        y = Axis("value", self.unit or "value")
        title = f"{self.label}: {plural(len(self.steps), 'change-point')}"
        return line_chart(title, rows, x=Axis("x", "step"), y=y, marks=self.steps)


def change_points(curve: Curve, *, penalty: float | None = None, fewest: int = 5, unit: str = "") -> ChangePoints:
    """Return where the mean of a curve jumps, by exact search with a penalty on each jump (PELT, `ruptures`).

    For series that are level between jumps, such as throughput, memory or a gradient norm. Not for a loss that falls:
    any slope is made of jumps. The default penalty is four times log n times the long-run variance of the noise, which
    is estimated from differences as that of a first-order process, so that neither jumps nor autocorrelation count as
    change.

    Source: Killick, R., Fearnhead, P. and Eckley, I. (2012), J. American Statistical Association 107; Yao, Y.-C.
    (1988), Statistics and Probability Letters 6, for a penalty that grows with log n.

    Args:
        curve: at most 20,000 finite points.
        penalty: what a jump must save in squared error; by default as above.
        fewest: the least number of points between jumps.
        unit: the unit of the values.

    Raises:
        MissingDependencyError: ruptures is not installed.
        NotEnoughDataError: fewer than twice `fewest` finite points, or fewer than four.
        InvalidInputError: too many points, or `penalty` or `fewest` is not positive.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 200)
        >>> change_points(Curve("a", np.arange(200.0), noise + (np.arange(200) >= 120))).steps
        (120.0,)
    """
    ruptures = need("ruptures", "a search for change-points")
    check_count(fewest, "fewest")
    if penalty is not None:
        check_number(penalty, "penalty", above=0.0)
    finite = curve.finite()
    if finite.n < max(2 * fewest, 4):
        raise NotEnoughDataError(
            f"the curve {curve.label!r:.100} has {plural(finite.n, 'finite point')}: jumps at least {fewest} apart "
            f"take {max(2 * fewest, 4)}"
        )
    if finite.n > MOST_POINTS:
        raise InvalidInputError(
            f"the curve {curve.label!r:.100} has {finite.n:,} points and the search takes at most {MOST_POINTS:,}: "
            "average blocks of it first"
        )
    check_not_huge(finite.values, f"the curve {curve.label!r:.100}")
    variance, autocorrelation = long_run_variance(finite.values)
    chosen = 4 * np.log(finite.n) * variance if penalty is None else penalty
    ends: list[int] = [finite.n]
    if np.ptp(finite.values) > 0:
        centred = (finite.values - finite.values.mean())[:, None]
        ends = ruptures.KernelCPD(kernel="linear", min_size=fewest).fit(centred).predict(pen=max(chosen, 1e-12))
    begins = [0, *ends[:-1]]
    table = pl.DataFrame(
        {
            "first": finite.steps[begins],
            "last": finite.steps[np.array(ends) - 1],
            "points": np.diff([0, *ends]),
            "mean": [float(finite.values[begin:end].mean()) for begin, end in zip(begins, ends, strict=True)],
        }
    )
    n_bad = curve.n - finite.n
    level = Check(
        "autocorrelation low enough to be told from jumps", autocorrelation < _HIGHEST_AUTOCORRELATION,
        f"first-order coefficient {number(autocorrelation, 2)}",
    )  # fmt: skip
    return ChangePoints(
        n=finite.n, method="PELT for jumps of the mean", unit=unit, checks=(level,),
        notes=(f"{plural(n_bad, 'value')} of {curve.n:,} NaN or infinite",) * bool(n_bad), label=curve.label,
        steps=tuple(float(step) for step in finite.steps[begins[1:]]), penalty=float(chosen), table=table, curve=finite,
    )  # fmt: skip


def long_run_variance(values: Floats) -> tuple[float, float]:
    """Return the long-run variance of first-order noise about a mean that jumps now and then, and its coefficient.

    Both come from differences, of which a few jumps spoil few: with coefficient r, neighbouring differences correlate
    by -(1 - r) / 2. The coefficient is taken to lie between 0 and 0.95.

    Example:
        >>> variance, coefficient = long_run_variance(np.random.default_rng(0).normal(0, 2.0, 100_000))
        >>> round(variance), round(coefficient, 1)
        (4, 0.0)
    """
    steps = np.diff(values)
    spread = 1.4826 * float(np.median(np.abs(steps - np.median(steps))))
    calm = np.abs(steps - np.median(steps)) <= 5 * spread
    used = np.where(calm, steps, 0.0)
    power = float(used @ used)
    if power == 0:
        return 0.0, 0.0
    coefficient = float(np.clip(1 + 2 * float(used[1:] @ used[:-1]) / power, 0.0, _HIGHEST_AUTOCORRELATION))
    return spread**2 * (1 + coefficient) / (2 * (1 - coefficient) ** 2), coefficient
