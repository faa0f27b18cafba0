"""What one curve alone tells of its rest: families of curves, weighed by how well each fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.arguments import generator
from ckptlake.analytics.forecasts.families import FAMILIES, Decay
from ckptlake.analytics.forecasts.outlook import Outlook
from ckptlake.analytics.forecasts.posterior import Posterior, explore
from ckptlake.analytics.forecasts.projection import (
    Fit,
    Points,
    Projection,
    fit,
    fit_on_grid,
    independence,
    noise_floor,
    outlier_weights,
    solved,
)
from ckptlake.analytics.forecasts.seen import FEWEST_POINTS, Seen, averaged
from ckptlake.analytics.frames import Floats

_MOST_POINTS = 64
_WARM_UP = 0.1
_ORIGINS = (0.5, 0.75)
_DRAWS = 400
_LEAST_WEIGHT = 0.005


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
    posteriors = _posteriors(points)
    weights = _weights(posteriors)
    linear = _terms(schedule, later) if points.linear.shape[1] else np.empty((len(later), 0))
    centre, values = _drawn(posteriors, weights, later / seen.fraction, linear, generator(seed))
    held_back = _held_back(seen, points)
    ours = float(np.abs(held_back.ours @ weights).mean())
    return Extrapolation(
        {family.name: float(weight) for family, weight in zip(FAMILIES, weights, strict=True) if weight},
        [Outlook.drawn(at, drawn) for at, drawn in zip(centre.tolist(), values.T, strict=True)],
        (ours, float(np.abs(held_back.last).mean()), float(np.abs(held_back.best).mean())),
        notes,
    )


def _posteriors(points: Points) -> list[Posterior]:
    """Return what the points leave open of each family, outliers weighed down alike for all."""
    fits = [fit_on_grid(family, points) for family in FAMILIES]
    best = min(fits, key=lambda fitted: float(np.median(np.abs(fitted.residuals))))
    weights, floor = outlier_weights(points, best.residuals), noise_floor(points)
    projections = [Projection.of(fitted.family, points, weights) for fitted in fits]
    # A shape of the grid leaves bends that are no noise.
    shape = projections[fits.index(best)].refined(best.parameters)[0]
    share = independence(points, solved(best.family, shape, points, weights).residuals)
    starts = [shape if fitted is best else fitted.parameters for fitted in fits]
    return [explore(projection, start, floor, share) for projection, start in zip(projections, starts, strict=True)]


def _weights(posteriors: list[Posterior]) -> Floats:
    """Return the weight of each family by Akaike's criterion, for points that are not quite independent.

    See Burnham and Anderson 2002, "Model selection and multimodel inference", for the weights and for the criterion
    with a variance that is larger than the fit's. The BIC would be too sure: it takes the simplest family that fits
    what was seen, however the others go on.
    """
    points = posteriors[0].projection.points
    n, floor = len(points.values), noise_floor(points)
    criterion = np.array([one.share * n * np.log((one.least + floor) / n) + 2 * one.n_parameters for one in posteriors])
    weights = np.exp((criterion.min() - criterion) / 2)
    weights = np.where(weights < _LEAST_WEIGHT * weights.sum(), 0.0, weights)
    return np.asarray(weights / weights.sum())


def _drawn(
    posteriors: list[Posterior], weights: Floats, place: Floats, linear: Floats, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the median curve at places, shape (m,), and values there as likely as what will be, shape (draws, m)."""
    best = posteriors[int(np.argmax(weights))]
    points = best.projection.points
    residuals = solved(best.projection.family, best.best, points, best.projection.weights).residuals
    n, freedom = len(residuals), max(best.projection.freedom, 1)
    # Redrawn residuals keep the tails of the noise, the chi-square tells how little few points know of its size.
    unsure = np.sqrt(freedom / random.chisquare(freedom, _DRAWS))
    noise = random.choice(residuals, _DRAWS) * np.sqrt(n / freedom) * unsure
    deviation = np.sqrt(best.least / freedom / best.share)
    errors = random.normal(size=(_DRAWS, 2 + linear.shape[1])) * (deviation * unsure)[:, None]
    ranks = (np.arange(_DRAWS) + 0.5) / _DRAWS
    ends = np.concatenate([[0.0], np.cumsum(weights)])
    curves, values = np.empty((_DRAWS, len(place))), np.empty((_DRAWS, len(place)))
    for posterior, low, high in zip(posteriors, ends[:-1], ends[1:], strict=True):
        mine = (ranks >= low) & (ranks < high)
        if mine.any():
            parameters = posterior.at_ranks((ranks[mine] - low) / (high - low))
            curves[mine], values[mine] = posterior.curves(parameters, place, linear, errors[mine])
    return np.median(curves, axis=0), values + noise[:, None]


def fit_family(seen: Seen, name: str, schedule: Decay | None = None) -> Fit:
    """Return one family, by its name, fitted to all that was seen."""
    family = next(family for family in FAMILIES if family.name == name)
    return fit(family, _points(seen, schedule)[0])


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
