"""Arguments that many questions take, checked."""

from __future__ import annotations

from typing import get_args

from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction


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
