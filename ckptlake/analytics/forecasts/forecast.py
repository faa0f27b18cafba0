"""The end of a live run: `forecast` and `forecast_many`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_level
from ckptlake.analytics.charts import Axis, Chart, interval_chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.calibration import Calibration
from ckptlake.analytics.forecasts.extrapolation import extrapolate
from ckptlake.analytics.forecasts.families import Decay
from ckptlake.analytics.forecasts.outlook import Outlook
from ckptlake.analytics.forecasts.reference import ReferenceClass, seen_features
from ckptlake.analytics.forecasts.seen import Seen, averaged, look
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Check, Interval, Result
from ckptlake.analytics.wording import listing, number, percent, plural
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

_PATH_POINTS = 32
_DRAWN_POINTS = 300
_UNCHECKED = (
    "no finished runs were given to check it; in simulations of the five families 95 % intervals hold 91 to 98 %, "
    "on the average 95 %"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast(Result):
    """Where a live run will end.

    Attributes:
        label: the run.
        value: the forecast of its value at the horizon.
        horizon: the step it is forecast for.
        last_step: the last step seen.
        last_value: the value there.
        best_so_far: the best value seen.
        direction: whether lower or higher is better.
        beats_baselines: whether forecasts of this kind were nearer, on what was held back, than both the last value
            and the best so far.
        error: their mean absolute error on what was held back.
        last_value_error: that of the last value.
        best_so_far_error: that of the best value so far.
        outlooks: where the run will be at each of `steps`, the last one the horizon.
        steps: float64, shape (m,), rising: only the horizon where another outcome than the curve's own is forecast.
        seen: the curve that was seen, averaged over windows where it has more than 300 points.
    """

    label: str
    value: float
    horizon: float
    last_step: float
    last_value: float
    best_so_far: float
    direction: Direction
    beats_baselines: bool
    error: float
    last_value_error: float
    best_so_far_error: float
    outlooks: tuple[Outlook, ...]
    steps: Floats
    seen: pl.DataFrame

    def probability_better(self, value: float) -> float:
        """Return the probability that the run ends better than a value."""
        below = self.outlooks[-1].probability_below(value)
        return below if self.direction == "min" else 1 - below

    @property
    def path(self) -> pl.DataFrame:
        """What is forecast at each step: ``step``, ``value``, ``low`` and ``high``, null where no interval holds."""
        level = 0.9 if self.interval is None else self.interval.level
        ends = [outlook.ends(level) for outlook in self.outlooks]
        return pl.DataFrame(
            {
                "step": self.steps,
                "value": [outlook.centre for outlook in self.outlooks],
                "low": [None if end is None else end[0] for end in ends],
                "high": [None if end is None else end[1] for end in ends],
            },
            schema_overrides={"low": pl.Float64, "high": pl.Float64},
        )

    def sentence(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        told = "no interval" if self.interval is None else str(self.interval)
        doubt = "no nearer than the better of them, so do not rely on it:"
        against = "nearer than" if self.beats_baselines else doubt
        return (
            f"{self.label} will be at {number(self.value)}{unit} at step {number(self.horizon)} ({told}); it is at "
            f"{number(self.last_value)} at step {number(self.last_step)}. Such forecasts were off by "
            f"{number(self.error, 2)} on what was held back, {against} the last value "
            f"({number(self.last_value_error, 2)}) and the best so far ({number(self.best_so_far_error, 2)})."
        )

    def chart(self) -> Chart:
        joint = {"step": self.seen["step"][-1], "value": self.seen["value"][-1]}
        rows = [{**row, "part": "seen", "low": None, "high": None} for row in self.seen.to_dicts()]
        rows += [{**joint, "low": joint["value"], "high": joint["value"], "part": "forecast"}]
        rows += [{**row, "part": "forecast"} for row in self.path.to_dicts()]
        title = f"{self.label}: {number(self.value)} at step {number(self.horizon)}"
        y = Axis("value", f"value ({self.unit})" if self.unit else "value")
        return line_chart(
            title, rows, x=Axis("step", "step"), y=y, color="part", low="low", high="high", marks=[self.last_step]
        )


def forecast(
    curve: Curve,
    horizon: float,
    *,
    calibration: Calibration | None = None,
    schedule: Decay | None = None,
    direction: Direction = "min",
    level: float = 0.9,
    unit: str = "",
    seed: int = 0,
) -> Forecast:
    """Return where a live run will end.

    With a calibration, its remaining change is that of finished runs that had shown the like after the same part of
    their run. Without, five families of curves are fitted (power law, exponential, log-power, Weibull and MMF: Domhan
    et al. 2015, "Speeding up automatic hyperparameter optimization of deep neural networks by extrapolation of
    learning curves"; Viering and Loog 2023, "The shape of learning curves") and weighed by Akaike's criterion; its
    interval then knows of the noise, of what the points leave open of each family, and of the choice among these
    families only, not of what no family shows, such as a learning rate that is still to fall.

    Args:
        curve: what was seen of the run; steps count from its start.
        horizon: the step to forecast, later than all that was seen.
        calibration: finished runs of the same metric, from `calibrate`.
        schedule: how the learning rate falls, where one curve is to tell alone.
        direction: ``"min"`` for losses, ``"max"`` for accuracies.
        level: the confidence of the interval.
        unit: the unit of the values; the calibration's by default.
        seed: of what is drawn where there is no calibration.

    Raises:
        NotEnoughDataError: fewer than eight finite values, or too few finished runs tell of this part of a run.
        InvalidInputError: the curve has diverged or is at its horizon, or the calibration has another direction.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> live = Curve.of("live", steps[:50], 3 + 1 / np.sqrt(steps[:50]))
        >>> found = forecast(live, 100)
        >>> round(found.value, 4), found.beats_baselines
        (3.1, True)
    """
    check_level(level)
    seen = look(curve, horizon, direction)
    if calibration is not None:
        if calibration.direction != direction:
            raise InvalidInputError(f"the calibration is for {calibration.direction!r}, the forecast for {direction!r}")
        features = seen_features(seen)
        if features is not None:
            return _from_finished(seen, calibration, features, level, unit)
    steps = np.linspace(seen.curve.steps[-1], seen.horizon, _PATH_POINTS + 1)[1:]
    told = extrapolate(seen, steps / seen.horizon, schedule, seed)
    notes = told.notes
    if calibration is not None:
        notes += ("it did not improve over the second half of what was seen, so finished runs do not tell its rest",)
    weights = listing(f"{name} {percent(weight)}" for name, weight in told.weights.items())
    return _result(
        seen, steps, told.outlooks, told.errors, level, unit,
        method=f"families of curves weighed by Akaike's criterion: {weights}",
        interval_method="posterior of the families, with redrawn residuals",
        checks=(Check("an interval that holds as often as it says", None, _UNCHECKED),),
        notes=notes,
    )  # fmt: skip


def _from_finished(
    seen: Seen, calibration: Calibration, features: tuple[float, float, Floats], level: float, unit: str
) -> Forecast:
    steps = np.linspace(seen.curve.steps[-1], seen.horizon, _PATH_POINTS + 1)[1:]
    later = steps / seen.horizon if calibration.own_ends else np.array([1.0])
    reference = calibration.at(seen.fraction, later)
    outlooks = reference.outlooks(*features)
    if seen.direction == "max":
        outlooks = [one.turned() for one in outlooks]
    notes: tuple[str, ...] = ()
    if calibration.n_diverged:
        notes = (
            f"{calibration.n_diverged:,} of {calibration.n + calibration.n_diverged:,} finished runs diverged; "
            "the forecast is for a run that does not",
        )
    return _result(
        seen, steps[-len(later) :], outlooks, reference.errors(), level, unit or calibration.unit,
        method=f"remaining change learned from {plural(len(reference.weights), 'finished run')} in "
        f"{plural(reference.n_groups, 'group')} after {seen.fraction:.1%} of a run",
        interval_method="leave-one-group-out conformal",
        checks=(_is_like_them(reference, features[2]),),
        notes=notes,
    )  # fmt: skip


def _is_like_them(reference: ReferenceClass, features: Floats) -> Check:
    outside = reference.outside(features)
    evidence = f"its {listing(outside)} outside theirs" if outside else "level, recent change and bend within theirs"
    return Check("a run like the finished ones", not outside, evidence)


def _result(
    seen: Seen,
    steps: Floats,
    outlooks: Sequence[Outlook],
    errors: tuple[float, float, float],
    level: float,
    unit: str,
    *,
    method: str,
    interval_method: str,
    checks: tuple[Check, ...],
    notes: tuple[str, ...],
) -> Forecast:
    ends = outlooks[-1].ends(level)
    if ends is None:
        notes += (
            f"no {100 * level:g} % interval: {plural(outlooks[-1].n, 'error')} of finished runs cannot tell "
            "ends so rare; calibrate with more groups or ask for a lower level",
        )
    shown = averaged(seen.curve, _DRAWN_POINTS)
    return Forecast(
        n=seen.curve.n,
        unit=unit,
        method=method,
        checks=checks,
        interval=None if ends is None else Interval(ends[0], ends[1], level, interval_method),
        notes=seen.notes + notes,
        label=seen.curve.label,
        value=outlooks[-1].centre,
        horizon=seen.horizon,
        last_step=float(seen.curve.steps[-1]),
        last_value=seen.last,
        best_so_far=seen.best,
        direction=seen.direction,
        beats_baselines=errors[0] < min(errors[1:]),
        error=errors[0],
        last_value_error=errors[1],
        best_so_far_error=errors[2],
        outlooks=tuple(outlooks),
        steps=steps,
        seen=pl.DataFrame({"step": shown[0], "value": shown[1]}),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasts(Result):
    """Where many live runs will end.

    Attributes:
        forecasts: one a run that can be forecast, in the order given.
        refused: the runs that cannot, and why.
    """

    forecasts: tuple[Forecast, ...]
    refused: dict[str, str]

    @property
    def table(self) -> pl.DataFrame:
        """One row a forecast, as `Forecast.row` tells it."""
        return pl.DataFrame([found.row() for found in self.forecasts], infer_schema_length=None)

    def sentence(self) -> str:
        told = f"{plural(len(self.forecasts), 'run')} forecast"
        if self.forecasts:
            best = max(self.forecasts, key=lambda one: -one.value if one.direction == "min" else one.value)
            told += f"; {best.label} will end best, at {number(best.value)}"
        if self.refused:
            told += f"; {plural(len(self.refused), 'run')} refused: {listing(self.refused)}"
        return f"{told}."

    def chart(self) -> Chart:
        rows = [
            {
                "run": one.label, "value": one.value,
                "low": None if one.interval is None else one.interval.low,
                "high": None if one.interval is None else one.interval.high,
            }
            for one in self.forecasts
        ]  # fmt: skip
        value = Axis("value", f"value at the end ({self.unit})" if self.unit else "value at the end")
        return interval_chart("Where runs will end", rows, label="run", value=value, low="low", high="high")


def forecast_many(
    curves: Sequence[Curve],
    horizon: float,
    *,
    calibration: Calibration | None = None,
    schedule: Decay | None = None,
    direction: Direction = "min",
    level: float = 0.9,
    unit: str = "",
    seed: int = 0,
) -> Forecasts:
    """Return where many live runs will end at the same step; runs that cannot be forecast are told with the reason.

    Args, errors and methods are those of `forecast`; what one run lacks is told in ``refused``.

    Example:
        >>> steps = np.arange(1.0, 51.0)
        >>> runs = [Curve.of("a", steps, 3 + steps**-0.5), Curve.of("b", steps[:3], 3 + steps[:3] ** -0.5)]
        >>> found = forecast_many(runs, 100)
        >>> [one.label for one in found.forecasts], list(found.refused)
        (['a'], ['b'])
    """
    found, refused = [], {}
    for curve in track(curves, "forecasting runs"):
        try:
            found.append(
                forecast(
                    curve, horizon, calibration=calibration, schedule=schedule, direction=direction, level=level,
                    unit=unit, seed=seed,
                )
            )  # fmt: skip
        except InvalidInputError as refusal:
            refused[curve.label] = str(refusal)
    return Forecasts(
        n=len(found),
        unit=found[0].unit if found else unit,
        method=found[0].method if len({one.method for one in found}) == 1 else "a forecast of each run",
        notes=tuple(note for one in found for note in one.notes),
        forecasts=tuple(found),
        refused=refused,
    )
