"""What one curve alone tells of its rest: families of curves, weighed by how well they told what was held back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.forecasts.families import FAMILIES, Decay
from ckptlake.analytics.forecasts.outlook import Outlook
from ckptlake.analytics.forecasts.projection import Fit, Points, bootstrap, fit, fit_on_grid
from ckptlake.analytics.forecasts.seen import FEWEST_POINTS, Seen, averaged
from ckptlake.analytics.frames import Floats

_MOST_POINTS = 64
_WARM_UP = 0.1
_ORIGINS = (0.5, 0.75)
_DRAWS = 300
_LEAST_WEIGHT = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Extrapolation:
    """The weighted forecast of all families.

    Attributes:
        weights: the weight of each family by its name.
        outlooks: where the curve will be at each later fraction.
        errors: the mean absolute errors on what was held back: of this forecast, of the last value, of the best so far.
        notes: what was not used.
    """

    weights: dict[str, float]
    outlooks: list[Outlook]
    errors: tuple[float, float, float]
    notes: tuple[str, ...]


def extrapolate(seen: Seen, later: Floats, schedule: Decay | None, seed: int) -> Extrapolation:
    """Return where a curve will be at later fractions of the run, from nothing but its own past."""
    points, notes = _points(seen, schedule)
    fits = [fit(family, points) for family in FAMILIES]
    held_back = _held_back(seen, points)
    weights = _weights(fits, held_back.ours)
    place = later / seen.fraction
    linear = _terms(schedule, later) if points.linear.shape[1] else np.empty((len(later), 0))
    random = np.random.default_rng(seed)
    centre = np.zeros(len(later))
    curves, drawn = [], []
    for fitted, weight in zip(fits, weights, strict=True):
        if weight:
            centre += weight * fitted.at(place, linear)
            count = max(1, round(_DRAWS * weight))
            redrawn = bootstrap(fitted, place, linear, count=count, random=random)
            curves.append(redrawn[0])
            drawn.append(redrawn[1])
    off = np.abs(np.vstack(curves) + np.concatenate(drawn)[:, None] - centre)
    ones = np.ones(len(off))
    ours = float(np.abs(held_back.ours @ weights).mean())
    return Extrapolation(
        {family.name: float(weight) for family, weight in zip(FAMILIES, weights, strict=True) if weight},
        [Outlook.of(float(at), 1.0, off[:, column], ones) for column, at in enumerate(centre)],
        (ours, float(np.abs(held_back.last).mean()), float(np.abs(held_back.best).mean())),
        notes,
    )


def fit_family(seen: Seen, name: str, schedule: Decay | None = None) -> Fit:
    """Return one family, by its name, fitted to all that was seen."""
    family = next(family for family in FAMILIES if family.name == name)
    return fit(family, _points(seen, schedule)[0])


def _weights(fits: list[Fit], errors: Floats) -> Floats:
    """Return the weight of each family.

    It falls with the family's error on what was held back, chance being told apart by the noise, and with its BIC on
    all points. The BIC counts half, as neighbouring points of a training curve are not independent.
    """
    n = len(fits[0].points.values)
    squares = np.array([float(fitted.residuals @ fitted.residuals) for fitted in fits])
    floor = n * (1e-7 * float(np.abs(fits[0].points.values).max())) ** 2 + np.finfo(float).tiny
    counts = np.array([len(fitted.coefficients) + len(fitted.parameters) for fitted in fits])
    criterion = n * np.log((squares + floor) / n) + np.log(n) * counts
    noise = (float(np.median(squares)) + floor) / n
    weights = np.exp(-(criterion - criterion.min()) / 4) / np.sqrt((errors**2).mean(axis=0) + noise)
    weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
    return np.asarray(weights / weights.sum())


def _terms(schedule: Decay | None, fractions: Floats) -> Floats:
    return np.empty((len(fractions), 0)) if schedule is None else schedule.at(fractions)[:, None]


def _points(seen: Seen, schedule: Decay | None) -> tuple[Points, tuple[str, ...]]:
    """Return what is fitted: the curve past its warm-up, averaged where it is long."""
    curve = seen.curve
    begin = min(float(_WARM_UP * curve.steps[-1]), float(curve.steps[-FEWEST_POINTS]))
    first = int(np.searchsorted(curve.steps, max(begin, np.nextafter(0, 1))))
    steps, values, counts = averaged(type(curve)(curve.label, curve.steps[first:], curve.values[first:]), _MOST_POINTS)
    linear = _terms(schedule, steps / seen.horizon)
    notes: tuple[str, ...] = ()
    if schedule is not None and np.ptp(linear) < 0.02:
        linear = np.empty((len(steps), 0))
        notes = (
            "the learning rate has not begun to fall, so one curve cannot tell how far it will lower the value: "
            "calibrate with finished runs",
        )
    return Points(steps / curve.steps[-1], values, counts, linear), notes


@dataclass(frozen=True, slots=True, eq=False)
class _HeldBack:
    """Errors of forecasts of where the curve is now, from earlier points of it: one row an origin."""

    ours: Floats
    last: Floats
    best: Floats


def _held_back(seen: Seen, points: Points) -> _HeldBack:
    n = len(points.values)
    tail = max(1, n // 20)
    now = float(np.average(points.values[-tail:], weights=points.counts[-tail:]))
    counts = sorted({max(4, int(origin * n)) for origin in _ORIGINS})
    curve = seen.curve
    better = np.minimum if seen.direction == "min" else np.maximum
    ours, last, best = [], [], []
    for count in counts:
        known = points.first(count)
        place, linear = points.place[-tail:], points.linear[-tail:]
        ours.append([float(fit_on_grid(family, known).at(place, linear).mean()) - now for family in FAMILIES])
        until = int(np.searchsorted(curve.steps, known.place[-1] * curve.steps[-1] * (1 + 1e-9), side="right"))
        last.append(float(curve.values[until - 1]) - now)
        best.append(float(better.reduce(curve.values[:until])) - now)
    return _HeldBack(np.array(ours), np.array(last), np.array(best))
