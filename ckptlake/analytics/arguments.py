"""Arguments that many questions take, checked."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

_LARGEST, _SMALLEST = 1e75, 1e-75
"""Beyond these the squares of variances, which many tests take, are infinite or zero in float64."""


def check_not_huge(values: NDArray[np.float64], of: str) -> None:
    """Raise where finite values are too large for their variance to be told.

    Raises:
        InvalidInputError: they are.
    """
    most = float(np.abs(values).max(initial=0.0))
    if most > _LARGEST:
        raise InvalidInputError(
            f"{of} has values up to {most:.3g}, whose variance float64 cannot hold: set those of runs that diverged to "
            "inf, or divide the values by a constant"
        )


def check_magnitude(values: NDArray[np.float64], of: str) -> None:
    """Raise where finite values are too large or too small for their variance to be told.

    Raises:
        InvalidInputError: they are.
    """
    check_not_huge(values, of)
    most = float(np.abs(values).max(initial=0.0))
    if most < _SMALLEST and (values != values[:1]).any():
        raise InvalidInputError(
            f"{of} has no value above {most:.3g}, and float64 cannot hold the variance of such: multiply by a constant"
        )


def check_direction(direction: str) -> None:
    """Raise where a direction is neither ``"min"`` nor ``"max"``.

    Raises:
        InvalidInputError: it is neither.
    """
    if direction not in get_args(Direction):
        raise InvalidInputError(f"direction={direction!r:.100}: 'min' where lower is better, 'max' where higher is")


def check_level(level: float) -> None:
    """Raise unless a confidence level lies between 0 and 1.

    Raises:
        InvalidInputError: it does not.
    """
    if not 0 < level < 1:
        raise InvalidInputError(f"level={level}: a confidence lies between 0 and 1, such as 0.95")
