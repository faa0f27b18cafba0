"""When a live run will reach a target: `forecast_step`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.arguments import check_number
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.calibration import Calibration
from ckptlake.analytics.forecasts.families import Decay
from ckptlake.analytics.forecasts.forecast import Forecast, forecast
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.wording import number, percent
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetStep(Result):
    """When a live run will reach a target.

    Attributes:
        label: the run.
        target: the value to reach.
        step: the step by which it is as likely as not to have reached it; infinite if that is after the horizon.
        probability: the probability that it reaches it by the horizon.
        reached: whether it has reached it already, at `step`.
        forecast: what this rests on.
    """

    label: str
    target: float
    step: float
    probability: float
    reached: bool
    forecast: Forecast

    def sentence(self) -> str:
        if self.reached:
            return f"{self.label} has reached {number(self.target)} at step {number(self.step)}."
        by = f"by step {number(self.forecast.horizon)}"
        told = f"{self.label} reaches {number(self.target)} {by} with probability {percent(self.probability)}"
        if np.isinf(self.step):
            return f"{told}; more likely than not it does not."
        ends = "no interval" if self.interval is None else str(self.interval)
        return f"{told}, most likely near step {number(self.step)} ({ends})."

    def chart(self) -> Chart:
        later = self.forecast
        below = [outlook.probability_below(self.target) for outlook in later.outlooks]
        better = below if later.direction == "min" else [1 - one for one in below]
        rows = [
            {"step": step, "probability": chance}
            for step, chance in zip(later.steps.tolist(), np.maximum.accumulate(better).tolist(), strict=True)
        ]
        title = f"{self.label}: probability of {number(self.target)} by a step"
        y = Axis("probability", "probability", zero=True)
        return line_chart(title, rows, x=Axis("step", "step"), y=y, levels=[0.5])


def forecast_step(
    curve: Curve,
    target: float,
    horizon: float,
    *,
    calibration: Calibration | None = None,
    schedule: Decay | None = None,
    direction: Direction = "min",
    level: float = 0.9,
    unit: str = "",
    seed: int = 0,
) -> TargetStep:
    """Return when a live run will reach a target, and how likely it does by its horizon.

    The forecast tells for each later step how likely the run is at the target or better; a target once reached counts
    as reached, so that probability does not fall again. Noisy curves reach a target by chance sooner than their level
    does, and it is the level that a calibration tells.

    Args:
        curve: what was seen of the run.
        target: the value to reach.
        horizon: the last step of the run.
        calibration, schedule, direction, unit, seed: as in `forecast`.
        level: the confidence of the interval of the step.

    Raises:
        InvalidInputError: the target is not finite, the calibration is for another outcome than the curve itself, or
            for what `forecast` refuses.
        NotEnoughDataError: as in `forecast`.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> found = forecast_step(Curve.of("live", steps[:50], 3 + 1 / np.sqrt(steps[:50])), 3.12, 100)
        >>> bool(68 < found.step < 71)
        True
    """
    check_number(target, "target")
    if calibration is not None and not calibration.own_ends:
        raise InvalidInputError(
            "a calibration on outcomes tells where runs end, not when: calibrate on curves of the metric itself"
        )
    found = forecast(
        curve, horizon, calibration=calibration, schedule=schedule, direction=direction, level=level, unit=unit,
        seed=seed,
    )  # fmt: skip
    finite = curve.finite()
    there = finite.values <= target if direction == "min" else finite.values >= target
    reached = bool(there.any())
    if reached:
        step, probability = float(finite.steps[np.argmax(there)]), 1.0
        interval = None
    else:
        below = np.array([outlook.probability_below(target) for outlook in found.outlooks])
        better = np.maximum.accumulate(below if direction == "min" else 1 - below)
        low, step, high = (_when(found, better, chance) for chance in ((1 - level) / 2, 0.5, (1 + level) / 2))
        probability = float(better[-1])
        interval = Interval(low, high, level, "probability of having reached it")
    return TargetStep(
        n=found.n,
        unit="step",
        method=found.method,
        checks=found.checks,
        interval=interval,
        notes=found.notes,
        label=curve.label,
        target=target,
        step=step,
        probability=probability,
        reached=reached,
        forecast=found,
    )


def _when(found: Forecast, better: Floats, chance: float) -> float:
    """Return the step at which a rising probability passes a chance; infinite if it does not."""
    if better[-1] < chance:
        return float("inf")
    after = int(np.argmax(better >= chance))
    if after == 0:
        return float(found.steps[0])
    low, high = better[after - 1], better[after]
    part = (chance - low) / (high - low)
    return float(found.steps[after - 1] + part * (found.steps[after] - found.steps[after - 1]))
