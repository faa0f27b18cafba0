"""Overfitting, from a training and a validation curve: when the gap began to grow, and when to have stopped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import special

from ckptlake.analytics.arguments import check_direction, check_level, check_not_huge
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Check, Interval, Result
from ckptlake.analytics.trends.excursions import noise_of
from ckptlake.analytics.trends.smoothing import median_of_neighbours
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import NotEnoughDataError
from ckptlake.types import Direction

FEWEST_POINTS = 10
_MOST_BREAKS = 400
_NOISE = 3.0


@dataclass(frozen=True, slots=True)
class Bend:
    """Two straight lines that meet.

    Attributes:
        step: where they meet.
        low: the first step at which the data let them meet.
        high: the last.
        before: the slope before.
        after: the slope after.
        bic_gain: by how much the Bayesian information criterion prefers them to one line.
    """

    step: float
    low: float
    high: float
    before: float
    after: float
    bic_gain: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overfitting(Result):
    """Whether a run overfits.

    Attributes:
        label: the run.
        overfits: whether validation got worse since its best by more than its noise, while the gap grew.
        best_step: where validation was best: the step to have stopped at.
        best_value: its value there.
        lost: how much worse validation is at the end; 0 or more.
        gap_step: from which step the gap grows faster than before, or None where one line fits as well; its interval
            is `interval`.
        gap_end: the gap at the end; positive where validation is worse.
        table: a row a validation point: ``x``, ``train`` (median of the points near it), ``val`` and ``gap``.
    """

    label: str
    overfits: bool
    best_step: float
    best_value: float
    lost: float
    gap_step: float | None
    gap_end: float
    table: pl.DataFrame

    def sentence(self) -> str:
        told = "overfits" if self.overfits else "shows no overfitting"
        gap = "the gap grows evenly" if self.gap_step is None else f"the gap bends at step {number(self.gap_step, 6)}"
        best = f"at step {number(self.best_step, 6)} ({number(self.best_value)})"
        if self.best_step == self.table["x"][-1]:
            return f"{self.label} {told}: validation is best at its end, {best}; {gap}."
        return f"{self.label} {told}: validation was best {best} and is {number(self.lost)} worse at the end; {gap}."

    def chart(self) -> Chart:
        rows = [
            {"x": row["x"], "value": row[what], "what": what}
            for what in ("train", "val")
            for row in self.table.iter_rows(named=True)
        ]
        y = Axis("value", self.unit or "value")
        title = f"Training and validation of {self.label}"
        return line_chart(title, rows, x=Axis("x", "step"), y=y, color="what", marks=[self.best_step])


def overfitting(train: Curve, val: Curve, direction: Direction, *, level: float = 0.95, unit: str = "") -> Overfitting:
    """Return whether a run overfits, when its generalisation gap began to grow, and the best step to stop at.

    The gap is validation less training, at the steps of validation that lie within training; training counts as the
    median of the points nearest each. Two lines that meet are laid through it. Not for a training metric measured
    otherwise than validation, as with dropout or augmentation: the gap then has another meaning.

    Source: Hinkley, D. (1971), "Inference in two-phase regression", J. American Statistical Association 66; Schwarz,
    G. (1978), Annals of Statistics 6, for the choice between one line and two.

    Args:
        train: the metric in training.
        val: the same metric in validation, ten finite points or more within the steps of training.
        direction: whether smaller (``"min"``) or larger (``"max"``) values are better.
        level: the confidence of the interval of `gap_step`.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: fewer than ten validation points lie within the steps of training.
        InvalidInputError: the direction or the level is none.

    Example:
        >>> steps = np.arange(100.0)
        >>> train = Curve("a", steps, 3 - 0.02 * steps)
        >>> val = Curve("a", steps, 3 - 0.02 * steps + 0.05 * np.clip(steps - 40, 0, None))
        >>> found = overfitting(train, val, "min")
        >>> found.overfits, 39 <= found.best_step <= 40, found.gap_step
        (True, True, 40.0)
    """
    check_direction(direction)
    check_level(level)
    sign = 1.0 if direction == "min" else -1.0
    ours, theirs = train.finite(), val.finite()
    inside = (theirs.steps >= ours.steps[0]) & (theirs.steps <= ours.steps[-1]) if ours.n else np.zeros(theirs.n, bool)
    steps, values = theirs.steps[inside], theirs.values[inside]
    if len(steps) < FEWEST_POINTS:
        raise NotEnoughDataError(
            f"{plural(len(steps), 'validation point')} of {val.label!r:.100} lie within training: it takes "
            f"{FEWEST_POINTS}"
        )
    for curve in (ours, theirs):
        check_not_huge(curve.values, f"the curve {curve.label!r:.100}")
    beside = _beside(ours, steps)
    gap = sign * (values - beside)
    bend = bend_of(steps, gap, level)
    is_bent = bend.bic_gain > 0
    smooth = median_of_neighbours(sign * values, 3)
    best = int(np.argmin(smooth))
    # The last few points tell more surely than the last, unless they still improve.
    lost = max(min(float(np.median(smooth[-3:])), float(smooth[-1])) - float(smooth[best]), 0.0)
    noise = noise_of(values)
    grows = gap[-1] > gap[best] or (is_bent and bend.after > max(bend.before, 0.0))
    table = pl.DataFrame({"x": steps, "train": beside, "val": values, "gap": gap})
    return Overfitting(
        n=len(steps), method="two-phase regression of the gap; best of the running median of validation", unit=unit,
        checks=(Check("the gap bends once", is_bent, f"BIC prefers two lines by {number(bend.bic_gain)}"),),
        interval=Interval(bend.low, bend.high, level, "likelihood of the bend") if is_bent else None,
        notes=_notes(train, val, int((~inside).sum())), label=val.label,
        overfits=bool(lost > _NOISE * noise and best < len(steps) - 1 and grows), best_step=float(steps[best]),
        best_value=float(values[best]), lost=lost, gap_step=bend.step if is_bent else None, gap_end=float(gap[-1]),
        table=table,
    )  # fmt: skip


def bend_of(steps: Floats, values: Floats, level: float = 0.95) -> Bend:
    """Return the two lines that meet and fit best, with the steps at which the data let them meet.

    Source: Hinkley, D. (1971), J. American Statistical Association 66.

    Args:
        steps: float64, shape (n,), rising; six or more. Of more than 400 inner steps, 400 evenly chosen ones are tried.
        values: float64, shape (n,), finite.
        level: the confidence of the range.

    Example:
        >>> found = bend_of(np.arange(20.0), np.abs(np.arange(20.0) - 12))
        >>> found.step, round(found.before, 9), round(found.after, 9)
        (12.0, -1.0, 1.0)
    """
    n = len(steps)
    place = (steps - steps[0]) / (steps[-1] - steps[0])
    inner = np.unique(np.linspace(2, n - 3, min(n - 4, _MOST_BREAKS)).round().astype(int))
    fits = [_hinge(place, values, place[k]) for k in inner]
    left = np.array([rest for rest, _ in fits])
    chosen = int(np.argmin(left))
    line = values - np.polynomial.polynomial.polyval(place, np.polynomial.polynomial.polyfit(place, values, 1))
    tiny = np.finfo(float).eps * n * max(float(np.square(values).max()), np.finfo(float).tiny)
    one, two = max(float(line @ line), tiny), max(float(left[chosen]), tiny)
    # The squared t of a normal approximation is the F of one degree of freedom.
    allowed = two * (1 + float(special.stdtrit(n - 4, (1 + level) / 2)) ** 2 / (n - 4))
    possible = steps[inner[left <= allowed]] if (left <= allowed).any() else steps[inner[[chosen]]]
    scale = float(steps[-1] - steps[0])
    before, change = fits[chosen][1]
    return Bend(
        float(steps[inner[chosen]]), float(possible[0]), float(possible[-1]), before / scale,
        (before + change) / scale, float(n * np.log(one / two) - 2 * np.log(n)),
    )  # fmt: skip


def _hinge(place: Floats, values: Floats, at: float) -> tuple[float, tuple[float, float]]:
    design = np.column_stack([np.ones(len(place)), place, np.clip(place - at, 0, None)])
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    rest = values - design @ weights
    return float(rest @ rest), (float(weights[1]), float(weights[2]))


def _beside(train: Curve, steps: Floats) -> Floats:
    """Return training at the steps of validation: the median of as many points as there are to one of validation.

    Near the ends fewer are taken, as many on either side, so that a steep start does not lean to one side.
    """
    half = train.n // len(steps) // 2
    if half == 0:
        return np.interp(steps, train.steps, train.values)
    nearest = np.interp(steps, train.steps, np.arange(train.n)).round().astype(int)
    reach = np.minimum(half, np.minimum(nearest, train.n - 1 - nearest))
    return np.array([np.median(train.values[k - r : k + r + 1]) for k, r in zip(nearest, reach, strict=True)])


def _notes(train: Curve, val: Curve, n_outside: int) -> tuple[str, ...]:
    notes = [
        f"{what}: {plural(n_bad, 'value')} of {curve.n:,} NaN or infinite"
        + ("; it diverged" if not curve.is_finite[-1] else "")
        for what, curve in (("training", train), ("validation", val))
        if (n_bad := int((~curve.is_finite).sum()))
    ]
    if n_outside:
        notes.append(f"{plural(n_outside, 'validation point')} outside the steps of training left out")
    return tuple(notes)
