"""Curves: the points of one metric of one run, in order and without repetitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import LARGEST, numbers
from ckptlake.analytics.frames import Columns, Floats, check_columns, floats, label_of, names, parts_of
from ckptlake.analytics.wording import plural
from ckptlake.errors import InvalidInputError


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The points of one metric of one run.

    Attributes:
        label: the run it belongs to.
        steps: float64, shape (n,), strictly increasing: steps, seconds or tokens.
        values: float64, shape (n,); NaN and infinities stay where they are.
        n_repeated: how many points were left out because a later row has the same step.
    """

    label: str
    steps: Floats
    values: Floats
    n_repeated: int = 0

    def __post_init__(self) -> None:
        if self.steps.shape != self.values.shape or self.steps.ndim != 1:
            raise InvalidInputError(
                f"the curve {self.label!r:.100} has steps of shape {self.steps.shape} and values of shape "
                f"{self.values.shape}: both must have one dimension of the same length"
            )
        if not (np.isfinite(self.steps).all() and (self.steps[1:] > self.steps[:-1]).all()):
            raise InvalidInputError(
                f"the steps of the curve {self.label!r:.100} must be finite and rise: Curve.of takes any order"
            )
        if (farthest := float(np.abs(self.steps).max(initial=0.0))) > LARGEST:
            raise InvalidInputError(
                f"the curve {self.label!r:.100} has steps up to {farthest:.3g}: count them from the start of the run"
            )
        if (nearest := float(np.diff(self.steps).min(initial=1.0))) < 1 / LARGEST:
            raise InvalidInputError(
                f"two steps of the curve {self.label!r:.100} are {nearest:.3g} apart, too near to tell a slope from: "
                "multiply the steps by a constant"
            )

    @classmethod
    def of(cls, label: str, steps: Floats, values: Floats) -> Curve:
        """Return the curve of points in any order; of points at one step the last one counts.

        Raises:
            InvalidInputError: a step is NaN or infinite, or there are not as many steps as values.

        Example:
            >>> curve = Curve.of("a", np.array([2.0, 1.0, 2.0]), np.array([0.5, 0.9, 0.4]))
            >>> curve.steps.tolist(), curve.values.tolist(), curve.n_repeated
            ([1.0, 2.0], [0.9, 0.4], 1)
        """
        steps, values = (
            numbers(row, f"the row of {what} of the curve {label!r:.100}")
            for row, what in ((steps, "steps"), (values, "values"))
        )
        if len(steps) != len(values):
            raise InvalidInputError(
                f"the curve {label!r:.100} has {plural(len(steps), 'step')} and {plural(len(values), 'value')}"
            )
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.zeros(0, bool)
        return cls(label, steps[last], values[last], int(len(steps) - last.sum()))

    @property
    def n(self) -> int:
        return len(self.steps)

    @property
    def is_finite(self) -> np.ndarray:
        """bool, shape (n,): where the value is finite."""
        return np.isfinite(self.values)

    def finite(self) -> Curve:
        """Return the curve without the points whose value is NaN or infinite."""
        keep = self.is_finite
        return self if keep.all() else Curve(self.label, self.steps[keep], self.values[keep], self.n_repeated)

    def until(self, step: float) -> Curve:
        """Return the points up to a step, that one included."""
        end = int(np.searchsorted(self.steps, step, side="right"))
        return Curve(self.label, self.steps[:end], self.values[:end], self.n_repeated)


def curves_of(
    frame: pl.DataFrame, *, value: str = "value", x: str = "step", run: Columns = "run_id"
) -> tuple[Curve, ...]:
    """Return the curves of a tidy frame, in the order in which runs first appear.

    Args:
        frame: one row a point, such as ``query.curves("val/loss").to_polars()``.
        value: the column with the values.
        x: the column with steps, seconds or tokens.
        run: the columns that tell curves apart.

    Raises:
        InvalidInputError: a column is missing or holds no numbers, or a step is null or not finite.

    Example:
        >>> frame = pl.DataFrame({"run_id": ["a", "a", "b"], "step": [1, 2, 1], "value": [3.0, 2.0, 5.0]})
        >>> [(curve.label, curve.n) for curve in curves_of(frame)]
        [('a', 2), ('b', 1)]
    """
    keys = names(run)
    check_columns(frame, [*keys, x, value])
    parts = parts_of(frame.select(*dict.fromkeys((*keys, x, value))), keys)
    return tuple(
        Curve.of(str(key[0]) if len(keys) == 1 else label_of(keys, key), floats(part, x), floats(part, value))
        for key, part in parts.items()
    )
