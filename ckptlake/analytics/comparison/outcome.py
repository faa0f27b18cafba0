"""What one test says of samples, and the words that name tests, directions and alternatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from ckptlake.analytics.arguments import check_not_huge, numbers
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval
from ckptlake.analytics.wording import plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

Alternative: TypeAlias = Literal["two-sided", "less", "greater"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one test says.

    Attributes:
        method: the test, in words.
        statistic: its statistic; infinite where values do not vary at all, None where it cannot be made.
        p_value: the chance of a statistic at least as far out if nothing differed; None where it cannot be told.
        df: the degrees of freedom, or None where the test has none.
        estimate: the difference or location that is tested, in the unit of the values, or None.
        interval: where that lies, or None.
        notes: what a reader must know.
    """

    method: str
    statistic: float | None
    p_value: float | None
    df: float | None = None
    estimate: float | None = None
    interval: Interval | None = None
    notes: tuple[str, ...] = ()


def check_alternative(alternative: str) -> None:
    """Raise where an alternative is none.

    Raises:
        InvalidInputError: it is none.
    """
    if alternative not in get_args(Alternative):
        raise InvalidInputError(f"alternative={alternative!r:.40}: 'two-sided', 'less' or 'greater'")


def finite_values(values: ArrayLike, *, least: int, of: str = "the sample") -> Floats:
    """Return values as a float64 array of one dimension.

    Raises:
        InvalidInputError: a value is NaN or infinite, values are too large for their variance to be told, or there is
            not one dimension.
        NotEnoughDataError: there are fewer than `least`.
    """
    array = numbers(values, of)
    n_nonfinite = int((~np.isfinite(array)).sum())
    if n_nonfinite:
        raise InvalidInputError(
            f"{of} has {plural(n_nonfinite, 'NaN or infinite value')}: count and leave them out first"
        )
    if len(array) < least:
        raise NotEnoughDataError(
            f"{of} has {plural(len(array), 'value')}, at least {least} are needed: repeat it with other seeds"
        )
    check_not_huge(array, of)
    return array
