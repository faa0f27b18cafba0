"""What one curve alone tells of its rest: families of curves, weighed by how well they told what was held back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.forecasts.families import FAMILIES, Decay
from ckptlake.analytics.forecasts.outlook import Outlook
from ckptlake.analytics.forecasts.posterior import Posterior, explore
from ckptlake.analytics.forecasts.projection import Fit, Points, Projection, fit, fit_on_grid, outlier_weights, solved
from ckptlake.analytics.forecasts.seen import FEWEST_POINTS, Seen, averaged
from ckptlake.analytics.frames import Floats

_MOST_POINTS = 64
_WARM_UP = 0.1
_ORIGINS = (0.5, 0.75)
_DRAWS = 400


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
    posteriors, residuals = _posteriors(points)
    evidence = np.array([posterior.evidence for posterior in posteriors])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    held_back = _held_back(seen, points)
    place = later / seen.fraction
    linear = _terms(schedule, later) if points.linear.shape[1] else np.empty((len(later), 0))
    random = np.random.default_rng(seed)
    n = len(residuals)
    freedom = max(n - points.linear.shape[1] - 2, 1)
    deviation = np.sqrt(float(residuals @ residuals) / freedom)
    inflated = np.sqrt(freedom / random.chisquare(freedom, _DRAWS))
    normal = random.normal(size=(_DRAWS, 2 + points.linear.shape[1]))
    noise = random.choice(residuals, _DRAWS) * np.sqrt(n / freedom) * inflated
    joint = np.concatenate([weight * posterior.weights for weight, posterior in zip(weights, posteriors, strict=True)])
    drawn = np.searchsorted(np.cumsum(joint), (np.arange(_DRAWS) + 0.5) / _DRAWS * joint.sum())
    curves, plain, start = [], [], 0
    for posterior in posteriors:
        mine = (drawn >= start) & (drawn < start + len(posterior.weights))
        chosen = drawn[mine] - start
        start += len(posterior.weights)
        if mine.any():
            spreads = deviation * inflated[mine] / np.sqrt(SHARE)
            order = random.permutation(int(mine.sum()))
            curves.append(posterior.curves(chosen[order], place, linear, normal[mine], spreads))
            plain.append(posterior.curves(chosen, place, linear, 0 * normal[mine], 0 * spreads))
    curves, plain = np.concatenate(curves), np.concatenate(plain)
    import os
    centre = np.median(plain, axis=0) if os.environ.get("CENTRE","median") == "median" else plain.mean(axis=0)
    off = np.abs(curves + noise[:, None] - centre)
    ones = np.ones(len(off))
    ours = float(np.abs(held_back.ours @ weights).mean())
    return Extrapolation(
        {family.name: float(weight) for family, weight in zip(FAMILIES, weights, strict=True) if weight > 0.005},
        [Outlook.of(float(at), 1.0, off[:, column], ones) for column, at in enumerate(centre)],
        (ours, float(np.abs(held_back.last).mean()), float(np.abs(held_back.best).mean())),
        notes,
    )

SHARE=1.0

def _posteriors(points: Points) -> tuple[list[Posterior], Floats]:
    """Return what the points leave open of each family, and the residuals of the fit of the best."""
    fits = [fit_on_grid(family, points) for family in FAMILIES]
    residuals = min((fitted.residuals for fitted in fits), key=lambda each: float(np.median(np.abs(each))))
    weights = outlier_weights(points, residuals)
    n = len(residuals)
    floor = n * (1e-7 * float(np.abs(points.values).max())) ** 2 + np.finfo(float).tiny
    posteriors = [explore(Projection.of(family, points, weights), floor, SHARE) for family in FAMILIES]
    best = max(posteriors, key=lambda one: one.evidence)
    shape = best.parameters[np.argmax(best.weights)]
    return posteriors, solved(best.projection.family, shape, points, weights).residuals


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
