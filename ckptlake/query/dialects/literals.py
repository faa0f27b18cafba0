"""Values written into SQL, for text that is read or run elsewhere; what is run here has its values bound."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

from ckptlake.errors import InvalidInputError
from ckptlake.query.names import literal
from ckptlake.query.nodes import Const

_MICROSECOND = timedelta(microseconds=1)


class Literals:
    """How values of Python are written in SQL.

    >>> Literals().literal("p0", Const.of("it's")), Literals().literal("p0", Const.of(0.1))
    ("'it''s'", '0.1e0')
    """

    def literal(self, name: str, const: Const) -> str:
        """Return a value as SQL.

        Raises:
            InvalidInputError: SQL has no way to write it.
        """
        value = const.value
        if isinstance(value, tuple):
            return f"({', '.join(self.literal(name, Const.of(member)) for member in value) or 'NULL'})"
        if value is None or isinstance(value, bool):
            return {None: "NULL", True: "TRUE", False: "FALSE"}[value]
        if isinstance(value, int):
            return self.integer(value)
        if isinstance(value, float):
            return self.number(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.binary(value)
        if isinstance(value, datetime):
            return self.time(as_utc(value))
        if isinstance(value, date):
            return f"DATE '{value.isoformat()}'"
        if isinstance(value, timedelta):
            return self.interval(value // _MICROSECOND)
        raise InvalidInputError(f"{value!r:.60} cannot be written into SQL of this engine; bind it as a parameter")

    def integer(self, value: int) -> str:
        """Return an integer as SQL of 64 bits; the bare digits would be the place of a column after ORDER BY."""
        return f"BIGINT '{value:d}'"

    def number(self, value: float) -> str:
        """Return a float as SQL."""
        if not math.isfinite(value):
            return f"CAST('{'NaN' if math.isnan(value) else 'Infinity' if value > 0 else '-Infinity'}' AS DOUBLE)"
        return repr(value) if "e" in repr(value) else f"{value!r}e0"

    def text(self, value: str) -> str:
        """Return a text as SQL."""
        return literal(value)

    def binary(self, value: bytes) -> str:
        """Return bytes as SQL."""
        return f"X'{value.hex()}'"

    def time(self, moment: datetime) -> str:
        """Return a moment, in UTC, as SQL."""
        return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f} UTC'"

    def interval(self, microseconds: int) -> str:
        """Return a duration as SQL."""
        sign = "-" if microseconds < 0 else ""
        seconds, rest = divmod(abs(microseconds), 1_000_000)
        return f"INTERVAL '{sign}{seconds}.{rest:06d}' SECOND"


def as_utc(moment: datetime) -> datetime:
    """Return a moment in UTC; one without a zone is in it already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
