"""Values of Python that may stand in a query."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any, Protocol, runtime_checkable

from ckptlake._internal.names import check_text
from ckptlake.errors import InvalidInputError
from ckptlake.query.nodes import Const

_SCALARS = (bool, int, float, str, bytes, date, datetime, time, timedelta)


def constant(value: Any) -> Const:
    """Return a value as a node.

    Raises:
        InvalidInputError: a query cannot hold it.
    """
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():  # a numpy or torch scalar
        value = item()
    if value is not None and not isinstance(value, _SCALARS):
        raise InvalidInputError(
            f"{value!r:.60} of type {type(value).__name__} cannot stand in a query; numbers, texts, times and None can"
        )
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise InvalidInputError(f"{value} does not fit 64 bits")
    if isinstance(value, str):
        check_text("a text in a query", value)
    return Const.of(value)


def setting(what: str, value: object) -> int:
    """Return a whole number that a function takes beside its values.

    Raises:
        InvalidInputError: it is something else.
    """
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise InvalidInputError(f"{what} takes a whole number of 32 bits, got {value!r:.40}")
    return value


@runtime_checkable
class Unfinished(Protocol):
    """Something that is written on the way to a value."""

    def finished(self) -> Any:
        """Return the expression it stands for; raises InvalidInputError where something is missing."""
        ...
