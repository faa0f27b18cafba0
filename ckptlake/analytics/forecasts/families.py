"""Families of learning curves: a + b·φ(step), with a shape φ of one or two parameters, and the schedule's own term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ckptlake.analytics.arguments import check_number
from ckptlake.analytics.frames import Floats
from ckptlake.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Decay:
    """How a learning rate falls, as a part of its peak, over the fractions of a run.

    Attributes:
        kind: ``"cosine"`` or ``"linear"``.
        start: the fraction of the run at which it begins to fall; it falls to zero at the end.

    Example:
        >>> Decay("linear", start=0.6).at(np.array([0.2, 0.8, 1.0])).round(3).tolist()
        [1.0, 0.5, 0.0]
    """

    kind: Literal["cosine", "linear"]
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("cosine", "linear"):
            raise InvalidInputError(f"a learning rate decays 'cosine' or 'linear', got {self.kind!r:.100}")
        check_number(self.start, "start", least=0)
        if self.start >= 1:
            raise InvalidInputError(f"a decay starts at a fraction from 0 to below 1, got {self.start}")

    def at(self, fraction: Floats) -> Floats:
        """Return the learning rate at fractions of the run, as a part of its peak."""
        done = np.maximum((fraction - self.start) / (1 - self.start), 0.0)
        return np.asarray((1 + np.cos(np.pi * done)) / 2 if self.kind == "cosine" else 1 - done)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One shape of a curve.

    Attributes:
        name: as the literature calls it.
        shape: φ of steps, shape (n,), in units of the last one seen, and of parameters, shape (k, p): shape (k, n).
        grid: float64, shape (m, p): where the search for its parameters begins; those searched by logarithm.
        has_offset: whether the curve may level off at another value than zero.
    """

    name: str
    shape: Callable[[Floats, Floats], Floats]
    grid: Floats
    has_offset: bool = True

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """The least and the greatest parameters, by logarithm: a little beyond the grid."""
        return self.grid.min(axis=0) - 1, self.grid.max(axis=0) + 1

    def at(self, place: Floats, parameters: Floats) -> Floats:
        """Return φ at places, shape (n,), for each row of parameters, shape (k, n)."""
        return self.shape(place[None], np.exp(parameters)[:, :, None])


def _lattice(*axes: tuple[float, float, int]) -> Floats:
    lines = [np.linspace(np.log(low), np.log(high), count) for low, high, count in axes]
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _power(place: Floats, parameters: Floats) -> Floats:
    return np.asarray(place ** -parameters[:, 0])


def _exponential(place: Floats, parameters: Floats) -> Floats:
    return np.asarray(np.exp(-parameters[:, 0] * place))


def _weibull(place: Floats, parameters: Floats) -> Floats:
    return np.asarray(np.exp(-((parameters[:, 0] * place) ** parameters[:, 1])))


def _mmf(place: Floats, parameters: Floats) -> Floats:
    return np.asarray(1 / (1 + (parameters[:, 0] * place) ** parameters[:, 1]))


_POWERS = (0.2, 4.0, 10)
FAMILIES = (
    Family("power law", _power, _lattice((0.02, 3.0, 30))),
    Family("exponential", _exponential, _lattice((0.1, 60.0, 30))),
    Family("log-power", _mmf, _lattice((0.03, 100.0, 14), _POWERS), has_offset=False),
    Family("Weibull", _weibull, _lattice((0.3, 60.0, 12), _POWERS)),
    Family("MMF", _mmf, _lattice((0.3, 100.0, 12), _POWERS)),
)
