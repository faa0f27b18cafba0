"""Arguments that many questions take, checked."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ckptlake.analytics.wording import plural
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

LARGEST, _SMALLEST = 1e75, 1e-75
"""Beyond these the squares of variances, which many tests take, are infinite or zero in float64."""

_LEAST_LEVEL, _LEAST_RISK = 0.001, 1e-9
_GREATEST = float(np.finfo(np.float64).max)


def check_not_huge(values: NDArray[np.float64], of: str) -> None:
    """Raise where finite values are too large for their variance to be told.

    Raises:
        InvalidInputError: they are.
    """
    most = float(np.abs(values).max(initial=0.0))
    if most > LARGEST:
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


def numbers(values: ArrayLike, of: str, *, dimensions: int | None = 1) -> NDArray[np.float64]:
    """Return values as float64.

    Args:
        values: numbers or booleans of any kind; NaN and infinities may be among them.
        of: what they are, as it is named in errors, such as ``"the sample"``.
        dimensions: how many dimensions they must have; None for any.

    Raises:
        InvalidInputError: they are no numbers, or have another number of dimensions.

    Example:
        >>> numbers([1, True, float("inf")], "the sample").tolist()
        [1.0, 1.0, inf]
    """
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"{of} is {values!r:.100}: lists of several lengths are no numbers in rows") from error
    if dimensions is not None and found.ndim != dimensions:
        raise InvalidInputError(
            f"{of} has shape {found.shape}: numbers in {plural(dimensions, 'dimension')} are needed"
        )
    if found.size and found.dtype.kind not in "biuf":
        raise InvalidInputError(f"{of} holds {found.dtype}, such as {found.flat[0]!r:.100}: numbers are needed")
    return found.astype(np.float64, copy=False)


def check_direction(direction: str) -> None:
    """Raise where a direction is neither ``"min"`` nor ``"max"``.

    Raises:
        InvalidInputError: it is neither.
    """
    if direction not in get_args(Direction):
        raise InvalidInputError(f"direction={direction!r:.100}: 'min' where lower is better, 'max' where higher is")


def check_level(level: float) -> None:
    """Raise unless a confidence level lies between 0 and 1, so far from both that its quantiles can be told.

    Raises:
        InvalidInputError: it does not.
    """
    if not (_is_real(level) and _LEAST_LEVEL <= level <= 1 - _LEAST_RISK):
        raise InvalidInputError(
            f"level={level!r:.100}: a confidence lies between 0 and 1, such as 0.95, and so far from both that its "
            f"quantiles can be told: {_LEAST_LEVEL:g} to 1 - {_LEAST_RISK:g}"
        )


def check_probability(probability: float, name: str, example: float = 0.05) -> None:
    """Raise unless a probability lies between 0 and 1, not nearer to either than 1e-9.

    Raises:
        InvalidInputError: it does not.
    """
    if not (_is_real(probability) and _LEAST_RISK <= probability <= 1 - _LEAST_RISK):
        raise InvalidInputError(
            f"{name}={probability!r:.100}: a probability between 0 and 1 is needed, such as {example}"
        )


def check_count(count: int, name: str, *, least: int = 1, most: int | None = None) -> None:
    """Raise unless a count is a whole number in its range; True and 10.0 are none.

    Args:
        count: what was given; integers of numpy are whole numbers too.
        name: the argument, as the caller spells it.
        least: the smallest count that is accepted.
        most: the largest, None where any is.

    Raises:
        InvalidInputError: it is not.

    Example:
        >>> check_count(2.5, "resamples", least=100)
        Traceback (most recent call last):
            ...
        ckptlake.errors.InvalidInputError: resamples=2.5: a whole number is needed, 100 or more
    """
    is_whole = isinstance(count, Integral) and not isinstance(count, bool)
    if not is_whole or count < least or (most is not None and count > most):
        wanted = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
        raise InvalidInputError(f"{name}={count!r:.100}: a whole number is needed, {wanted}")


def check_number(
    number: float, name: str, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> None:
    """Raise unless a number is finite and in its range.

    Args:
        number: what was given.
        name: the argument, as the caller spells it.
        above: what it must exceed.
        least: the smallest number that is accepted.
        most: the largest.

    Raises:
        InvalidInputError: it is not.

    Example:
        >>> check_number(0, "half_life", above=0)
        Traceback (most recent call last):
            ...
        ckptlake.errors.InvalidInputError: half_life=0: a finite number is needed, above 0
    """
    if _is_real(number) and abs(number) <= _GREATEST and number > above and least <= number <= most:
        return
    wanted = [
        *([f"above {above:g}"] if above > -math.inf else []),
        *([f"at least {least:g}"] if least > -math.inf else []),
        *([f"at most {most:g}"] if most < math.inf else []),
    ]
    raise InvalidInputError(f"{name}={number!r:.100}: {', '.join(['a finite number is needed', *wanted])}")


def generator(seed: int) -> np.random.Generator:
    """Return the generator that a seed stands for.

    Raises:
        InvalidInputError: the seed is no whole number of 0 or more.
    """
    check_count(seed, "seed", least=0)
    return np.random.default_rng(seed)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
