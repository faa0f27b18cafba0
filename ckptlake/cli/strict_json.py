"""JSON that every parser accepts, for any value a table can hold.

NaN and the infinities become the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, times ISO 8601 in UTC,
bytes base64, intervals seconds.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal


def dumps(document: object, *, ascii_only: bool = False) -> str:
    """Return a document as indented text."""
    return json.dumps(plain(document), ensure_ascii=ascii_only, allow_nan=False, indent=2)


def dumps_line(document: object, *, ascii_only: bool = False) -> str:
    """Return a document on one line.

    >>> dumps_line({"loss": float("nan")})
    '{"loss": "NaN"}'
    """
    return json.dumps(plain(document), ensure_ascii=ascii_only, allow_nan=False)


def plain(value: object) -> object:
    """Return `value` built from what JSON knows."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _not_finite(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return _scalar(value)


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _scalar(value: object) -> object:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return str(value)


def timestamp(value: datetime) -> str:
    """Return a time as ISO 8601 in UTC; one without a zone is left without."""
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _decimal(value: Decimal) -> int | float | str:
    """Return a decimal as a number where that loses nothing, else as text."""
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)
