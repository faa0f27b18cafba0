"""Whether a live run is worth its rest: `should_stop`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ckptlake.analytics.arguments import check_number, check_probability
from ckptlake.analytics.charts import Chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.beside import forecast_beside
from ckptlake.analytics.forecasts.forecast import Forecast
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import number, percent
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StopAdvice(Result):
    """How likely a live run ends better than a target.

    Attributes:
        label: the run.
        target: the value to beat.
        probability: that it ends better.
        least_probability: the probability below which a run is not worth its rest.
        advice: ``"stop"``, ``"continue"``, or ``"cannot tell"`` where forecasts do not beat the baselines.
        forecast: what this rests on.
    """

    label: str
    target: float
    probability: float
    least_probability: float
    advice: Literal["stop", "continue", "cannot tell"]
    forecast: Forecast

    def sentence(self) -> str:
        words = {
            "stop": f"below {percent(self.least_probability)}: stop it",
            "continue": f"not below {percent(self.least_probability)}: let it run",
            "cannot tell": "but such forecasts are no better than the last value or the best so far: let it run",
        }
        return (
            f"{self.label} ends better than {number(self.target)} with probability {percent(self.probability)}, "
            f"{words[self.advice]}. It is at {number(self.forecast.last_value)} and will be at "
            f"{number(self.forecast.value)} at step {number(self.forecast.horizon)}."
        )

    def chart(self) -> Chart:
        drawn = self.forecast.chart()
        rule = {"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"y": {"datum": self.target}}}
        title = f"{self.label}: {percent(self.probability)} to end better than {number(self.target)}"
        return Chart({**drawn.spec, "title": title, "layer": [*drawn.spec["layer"], rule]})


def should_stop(
    curve: Curve,
    others: Sequence[Curve],
    *,
    target: float | None = None,
    direction: Direction = "min",
    horizon: float | None = None,
    groups: Sequence[Hashable] | None = None,
    least_probability: float = 0.05,
    unit: str = "",
    seed: int = 0,
) -> StopAdvice:
    """Return how likely a live run ends better than the best so far, and what to do about it.

    Args:
        curve: what was seen of the live run.
        others: finished runs of the same metric; the more unlike configurations among them, the better it tells.
        target: the value to beat; the best end of the others by default.
        direction: ``"min"`` for losses, ``"max"`` for accuracies.
        horizon: the last step of the live run; that of the others where all end at the same step.
        groups: which of the others are repeats of each other.
        least_probability: the probability of ending better below which a run is not worth its rest.
        unit: the unit of the values.
        seed: of what is drawn where too few others tell.

    Raises:
        InvalidInputError: no horizon was given and the others end at different steps, no other run has a finite end
            and no target was given, or `forecast` refuses the curve.
        NotEnoughDataError: the live run has fewer than eight finite values.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> done = [Curve.of(f"run {k}", steps, 3 + k / 20 + (1 + k / 9) / np.sqrt(steps)) for k in range(12)]
        >>> advice = should_stop(Curve.of("live", steps[:50], 4 + 1.2 / np.sqrt(steps[:50])), done)
        >>> advice.advice, advice.probability < 0.05
        ('stop', True)
    """
    check_probability(least_probability, "least_probability")
    if target is not None:
        check_number(target, "target")
    ends = [float(other.values[-1]) for other in others if other.n and np.isfinite(other.values[-1])]
    if target is None:
        if not ends:
            raise InvalidInputError("no other run has a finite end to beat: pass target=")
        target = min(ends) if direction == "min" else max(ends)
    found = forecast_beside(curve, others, horizon, groups=groups, direction=direction, unit=unit, seed=seed)
    diverged_share = sum(not (other.n and np.isfinite(other.values[-1])) for other in others) / max(len(others), 1)
    notes: tuple[str, ...] = ()
    probability = found.probability_better(target) * (1 - diverged_share)
    rarest = (1 - found.outlooks[-1].highest_level) / 2
    if rarest >= least_probability:
        notes += (f"so few finished runs tell of no probability below {percent(rarest)}, so none is called hopeless",)
    if not found.beats_baselines:
        advice: Literal["stop", "continue", "cannot tell"] = "cannot tell"
    else:
        advice = "stop" if probability < least_probability else "continue"
    return StopAdvice(
        n=len(others),
        unit=found.unit,
        method=found.method,
        checks=found.checks,
        interval=found.interval,
        notes=(*notes, *found.notes),
        label=curve.label,
        target=target,
        probability=probability,
        least_probability=least_probability,
        advice=advice,
        forecast=found,
    )
