"""What a curve has shown so far, and why some curves cannot be forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.arguments import LARGEST, check_direction, check_not_huge, check_number
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError
from ckptlake.types import Direction

FEWEST_POINTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The finite points of a live curve that is to be forecast.

    Attributes:
        curve: its finite points.
        horizon: the last step of the whole run.
        direction: whether lower or higher is better.
        notes: what was left out.
    """

    curve: Curve
    horizon: float
    direction: Direction
    notes: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """How much of the run has been seen."""
        return float(self.curve.steps[-1] / self.horizon)

    @property
    def last(self) -> float:
        return float(self.curve.values[-1])

    @property
    def best(self) -> float:
        return float(self.curve.values.min() if self.direction == "min" else self.curve.values.max())


def look(curve: Curve, horizon: float, direction: Direction) -> Seen:
    """Return what a curve has shown, or tell why it cannot be forecast.

    Args:
        curve: the live run.
        horizon: the step for which a value is forecast, later than all that was seen.
        direction: ``"min"`` for losses, ``"max"`` for accuracies.

    Raises:
        NotEnoughDataError: fewer than eight finite values.
        InvalidInputError: the curve has diverged, is already at its horizon, or has values whose squares are infinite.
    """
    check_direction(direction)
    check_number(horizon, "horizon", most=LARGEST)
    finite = curve.finite()
    check_not_huge(finite.values, f"the curve {curve.label!r:.100}")
    if curve.n and not np.isfinite(curve.values[-1]):
        seen = (
            f"its last finite value is {number(finite.values[-1])} at step {number(finite.steps[-1])}"
            if (finite.n)
            else "it has no finite value"
        )
        raise InvalidInputError(
            f"{curve.label!r:.100} has diverged: the value at step {number(curve.steps[-1])} is {curve.values[-1]}, "
            f"{seen}; cut it with curve.until(step) to forecast what might have been"
        )
    if finite.n < FEWEST_POINTS:
        raise NotEnoughDataError(
            f"{curve.label!r:.100} has {plural(finite.n, 'finite value')}; a forecast takes at least {FEWEST_POINTS}"
        )
    if horizon <= finite.steps[-1]:
        raise InvalidInputError(
            f"the horizon {number(horizon)} must be a step later than the last one of {curve.label!r:.100}, "
            f"{number(finite.steps[-1])}, where its value is {number(finite.values[-1])}"
        )
    if finite.steps[-1] <= 0:
        raise InvalidInputError(f"{curve.label!r:.100} has no steps above 0: steps count from the start of a run")
    _refuse_if_lost(finite, direction)
    n_left_out = curve.n - finite.n
    notes = (f"{curve.label}: left out {n_left_out:,} NaN or infinite of {curve.n:,} values",) * bool(n_left_out)
    return Seen(finite, float(horizon), direction, notes)


def _refuse_if_lost(curve: Curve, direction: Direction) -> None:
    """Raise where a curve had improved and is now worse than where it began."""
    sign = 1.0 if direction == "min" else -1.0
    blocks = np.array_split(sign * curve.values, FEWEST_POINTS)
    levels = np.array([np.median(block) for block in blocks])
    noise = float(np.median(np.abs(np.concatenate([block - np.median(block) for block in blocks]))))
    gained, lost = levels[0] - levels.min(), levels[-1] - levels[0]
    if gained > 3 * noise and lost > 3 * noise and lost > gained / 2:
        at = int(np.argmin(sign * curve.values))
        raise InvalidInputError(
            f"{curve.label!r:.100} has diverged: it began near {number(sign * levels[0])}, was best at step "
            f"{number(curve.steps[at])} with {number(curve.values[at])}, and is now near {number(sign * levels[-1])}; "
            "cut it with curve.until(step) to forecast what might have been"
        )


def window_means(steps: Floats, values: Floats, ends: Floats, width: float) -> Floats:
    """Return the mean over (end - width, end] of the straight lines between points, for each end.

    Before the first point and past the last one the curve counts as level.
    """
    area = np.concatenate([[0.0], np.cumsum(np.diff(steps) * (values[1:] + values[:-1]) / 2)])
    return (_area_until(steps, values, area, ends) - _area_until(steps, values, area, ends - width)) / width


def _area_until(steps: Floats, values: Floats, area: Floats, at: Floats) -> Floats:
    before = np.clip(np.searchsorted(steps, at, side="right") - 1, 0, len(steps) - 1)
    height = np.interp(at, steps, values)
    return area[before] + (at - steps[before]) * (values[before] + height) / 2


def averaged(curve: Curve, most: int) -> tuple[Floats, Floats, Floats]:
    """Return steps, values and counts of a curve, averaged over windows where it has more than `most` points.

    Windows are narrower where the curve begins, as it is steepest there.
    """
    if curve.n <= most:
        return curve.steps, curve.values, np.ones(curve.n)
    starts = np.unique((curve.n * (np.arange(most) / most) ** 2).astype(int))
    counts = np.diff(np.append(starts, curve.n)).astype(np.float64)
    return np.add.reduceat(curve.steps, starts) / counts, np.add.reduceat(curve.values, starts) / counts, counts
