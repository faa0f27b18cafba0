"""A live run forecast beside others, from what they teach where they are enough: `forecast_beside`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.calibration import Calibration, calibrate
from ckptlake.analytics.forecasts.forecast import Forecast, forecast
from ckptlake.analytics.forecasts.seen import look
from ckptlake.errors import InvalidInputError, NotEnoughDataError
from ckptlake.types import Direction


def forecast_beside(
    curve: Curve,
    others: Sequence[Curve],
    horizon: float | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    direction: Direction = "min",
    level: float = 0.9,
    unit: str = "",
    seed: int = 0,
) -> Forecast:
    """Return where a live run will end, learned from finished runs; where they are too few, the notes say so.

    Args:
        curve: what was seen of the live run.
        others: finished runs of the same metric.
        horizon: the last step of the live run; by default that at which all the others end.
        groups: which of the others are repeats of each other.
        direction: ``"min"`` for losses, ``"max"`` for accuracies.
        level: the confidence of the interval.
        unit: the unit of the values.
        seed: of what is drawn where the curve has to tell alone.

    Raises:
        InvalidInputError: no horizon was given and the others end at different steps, or `forecast` refuses the curve.
        NotEnoughDataError: the live run has fewer than eight finite values.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(1.0, 101.0)
        >>> done = [Curve.of(f"run {k}", steps, 3 + k / 20 + (1 + k / 9) / np.sqrt(steps)) for k in range(12)]
        >>> found = forecast_beside(Curve.of("live", steps[:50], 3.2 + 1.2 / np.sqrt(steps[:50])), done)
        >>> found.horizon, round(found.value, 2)
        (100.0, 3.32)
    """
    end = horizon if horizon is not None else _end_of_all(others)
    seen = look(curve, end, direction)
    known: Calibration | None = None
    notes: tuple[str, ...] = ()
    try:
        known = calibrate(others, groups=groups, direction=direction, unit=unit)
        known.at(seen.fraction)
    except NotEnoughDataError as lack:
        known, notes = None, (f"the curve had to tell alone: {lack}",)
    found = forecast(curve, end, calibration=known, direction=direction, level=level, unit=unit, seed=seed)
    return replace(found, notes=(*notes, *found.notes))


def _end_of_all(others: Sequence[Curve]) -> float:
    ends = {float(other.steps[-1]) for other in others if other.n}
    if len(ends) != 1:
        raise InvalidInputError(f"the others end at {len(ends)} different steps: pass horizon= of the live run")
    return ends.pop()
