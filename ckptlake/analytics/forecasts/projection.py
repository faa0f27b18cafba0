"""Fits by variable projection: linear parameters solved inside, the shape found on a grid and refined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import leastsq

from ckptlake.analytics.forecasts.families import Family
from ckptlake.analytics.frames import Floats

HUBER = 1.345
_FLAT = 1e-10
_SMOOTH = 0.25
_HIGHEST_CORRELATION = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """What is fitted.

    Attributes:
        place: float64, shape (n,), above 0: steps in units of the last one seen.
        values: float64, shape (n,).
        counts: float64, shape (n,): how many points each value is the mean of.
        linear: float64, shape (n, q): terms that enter the curve linearly besides the offset, such as a schedule's.
    """

    place: Floats
    values: Floats
    counts: Floats
    linear: Floats

    def first(self, count: int) -> Points:
        return Points(self.place[:count], self.values[:count], self.counts[:count], self.linear[:count])


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One family fitted to points.

    Attributes:
        family: the family.
        parameters: float64, shape (p,): of its shape, by logarithm.
        coefficients: float64, shape (1 + q,) or (2 + q,): of the shape, the offset if it has one, the linear terms.
        points: what it was fitted to.
        weights: float64, shape (n,): how much each point counts after outliers were weighed down.
    """

    family: Family
    parameters: Floats
    coefficients: Floats
    points: Points
    weights: Floats

    def at(self, place: Floats, linear: Floats) -> Floats:
        """Return the fitted curve at places, shape (n,), with linear terms, shape (n, q)."""
        shape = self.family.at(place, self.parameters[None])[0]
        return np.asarray(np.column_stack([shape, others(self.family, linear)]) @ self.coefficients)

    @property
    def residuals(self) -> Floats:
        """float64, shape (n,): how far each value is from the curve, as if each were one point."""
        points = self.points
        return (points.values - self.at(points.place, points.linear)) * np.sqrt(points.counts)


def others(family: Family, linear: Floats) -> Floats:
    """Return the linear terms besides the shape: the offset first, if the family has one."""
    return np.column_stack([np.ones(len(linear)), linear]) if family.has_offset else linear


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Weighted values of a family with all linear terms but the shape's projected out.

    Attributes:
        family: the family.
        points: what it is fitted to.
        weights: float64, shape (n,): how much each point counts.
        frame: float64, shape (n, q): an orthonormal basis of the weighted terms besides the shape.
        corner: float64, shape (q, q): what takes the basis to those terms.
        pulled: float64, shape (q,): the values in this basis.
        values: float64, shape (n,): what is left of the weighted values.
        least: the squared size below which a shape is no more than those terms.
    """

    family: Family
    points: Points
    weights: Floats
    frame: Floats
    corner: Floats
    pulled: Floats
    values: Floats
    least: float

    @classmethod
    def of(cls, family: Family, points: Points, weights: Floats) -> Projection:
        frame, corner = np.linalg.qr(others(family, points.linear) * weights[:, None])
        values = points.values * weights
        pulled = frame.T @ values
        least = _FLAT * float(weights @ weights)
        return cls(family, points, weights, frame, corner, pulled, values - frame @ pulled, least)

    @property
    def freedom(self) -> int:
        """How many points are left once the linear coefficients are taken."""
        return len(self.values) - 1 - len(self.corner)

    def split(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Return each weighted shape's part in the basis, (k, q), and what is left of it, (k, n)."""
        shapes = self.family.at(self.points.place, parameters) * self.weights
        # Sums by einsum, as products so small wake the threads of a BLAS for longer than they take.
        within = np.einsum("kn,nq->kq", shapes, self.frame)
        return within, shapes - np.einsum("kq,nq->kn", within, self.frame)

    def slopes(self, rest: Floats) -> tuple[Floats, Floats]:
        """Return the least-squares slope of each shape, (k,), from what is left of it, and its squared size, (k,).

        A shape that is no more than the other terms has no slope, and an infinite size.
        """
        size, pull = np.einsum("kn,kn->k", rest, rest), np.einsum("kn,n->k", rest, self.values)
        # What is left of a level by rounding has no shape.
        rounding = 1e-13 * float(np.abs(self.points.values * self.weights).max())
        pull = np.where(np.abs(pull) > rounding * np.sqrt(size), pull, 0.0)
        size = np.where(size > self.least, size, np.inf)
        return pull / size, size

    def left(self, parameters: Floats) -> Floats:
        """Return what is left of the values for each row of parameters of the shape, (k, n)."""
        rest = self.split(parameters)[1]
        return np.asarray(self.values - self.slopes(rest)[0][:, None] * rest)

    def chosen(self) -> Floats:
        """Return the parameters of the grid that leave least."""
        left = self.left(self.family.grid)
        return np.asarray(self.family.grid[np.argmin(np.einsum("kn,kn->k", left, left))])

    def refined(self, start: Floats) -> tuple[Floats, Floats | None]:
        """Return better parameters than those to start from and their inverse curvature for values of size one, (p, p).

        Where the search leaves the bounds of the family, those it started from and no curvature.
        """
        low, high = self.family.bounds
        scale = np.sqrt(np.einsum("n,n->", self.values, self.values))
        if len(self.points.place) < len(start) + 3 or scale == 0:
            return start, None

        def left(parameters: Floats) -> Floats:
            return np.asarray(self.left(np.clip(parameters, low, high)[None])[0] / scale)

        # The flag tells why the search ended; wherever it did, the place found leaves no more than its start.
        found, curvature, *_ = leastsq(left, start, xtol=1e-10, ftol=1e-10, maxfev=80, full_output=True)
        return (np.asarray(found), curvature) if np.all((found > low) & (found < high)) else (start, None)


def fit(family: Family, points: Points) -> Fit:
    """Return the least-squares fit of one family, with outliers weighed down.

    The linear parameters are projected out (Golub and Pereyra 1973, "The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate"), so that only the shape is searched: on the whole grid
    at once, then by Levenberg-Marquardt from its best place. Outliers get Huber's weights (Huber 1964).
    """
    first = fit_on_grid(family, points)
    weights = outlier_weights(points, first.residuals)
    return solved(family, Projection.of(family, points, weights).refined(first.parameters)[0], points, weights)


def fit_on_grid(family: Family, points: Points) -> Fit:
    """Return the least-squares fit of one family among the shapes of its grid."""
    weights = np.sqrt(points.counts)
    return solved(family, Projection.of(family, points, weights).chosen(), points, weights)


def outlier_weights(points: Points, residuals: Floats) -> Floats:
    """Return how much each point counts, those with large residuals less, by Huber's rule."""
    return np.sqrt(points.counts) * _kept(points, residuals)


def independence(points: Points, residuals: Floats) -> float:
    """Return how much of one independent point each point tells, at most 1.

    Weights leave smaller squares than the noise has, which makes a fit look surer than Huber's estimate is (Huber
    1964, "Robust estimation of a location parameter", for its variance). Neighbours that depend on each other tell
    less than others: (1 - r) / (1 + r) at a correlation r (Bayley and Hammersley 1946, "The effective number of
    independent observations in an autocorrelated time series").

    Args:
        points: what was fitted.
        residuals: float64, shape (n,): what the fit leaves, as if each value were one point.
    """
    kept = _kept(points, residuals)
    counted = kept**2 * residuals
    squares = float(counted @ counted)
    if squares <= noise_floor(points):
        return 1.0
    claimed = float(counted @ residuals) / float(kept @ kept)
    robust = squares / len(kept) / float(np.mean(kept == 1)) ** 2
    correlation = min(max(float(counted[1:] @ counted[:-1]) / squares, 0.0), _HIGHEST_CORRELATION)
    bends = np.diff(counted, 2)
    # First-order noise has second differences of this size; what is far smoother is a shape no family has, not noise.
    if float(bends @ bends) < _SMOOTH * 2 * (1 - correlation) * (3 - correlation) * squares:
        correlation = 0.0
    return min(claimed / robust, 1.0) * (1 - correlation) / (1 + correlation)


def noise_floor(points: Points) -> float:
    """Return a sum of squares too small to tell from none."""
    least = 1e-7 * float(np.abs(points.values).max())
    return len(points.values) * least**2 + float(np.finfo(float).tiny)


def _kept(points: Points, residuals: Floats) -> Floats:
    """Return by how much each point is weighed down, 1 where it is not."""
    off = np.abs(residuals)
    limit = HUBER * 1.4826 * float(np.median(off))
    if limit <= 1e-12 * (1 + float(np.abs(points.values).max())):
        return np.ones(len(off))
    return np.asarray(np.sqrt(limit / np.maximum(off, limit)))


def solved(family: Family, parameters: Floats, points: Points, weights: Floats) -> Fit:
    """Return the fit of a family whose shape is known."""
    shape = family.at(points.place, parameters[None])[0]
    terms = np.column_stack([shape, others(family, points.linear)])
    size = np.linalg.norm(terms * weights[:, None], axis=0)
    size = np.where(size > _FLAT, size, 1.0)
    found = np.linalg.lstsq(terms * weights[:, None] / size, points.values * weights, rcond=1e-12)[0]
    return Fit(family, parameters, found / size, points, weights)
