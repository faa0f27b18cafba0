"""Values of Python's own types as JSON and back: numbers, text, bytes, times, paths.

A writer returns the whole node of a value. A reader is given what stands behind the node's tag and raises TypeError,
ValueError, LookupError or ArithmeticError where that is nothing a writer has written.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath
from types import NoneType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ckptlake.checkpoints.leaves import JSON
from ckptlake.errors import InvalidInputError, MissingDependencyError

EXACT_IN_JSON = 2**53
_HEX = re.compile(r"-?0x[0-9a-f]+")
_PATHS: dict[str, type[PurePath]] = {kind.__name__: kind for kind in (PosixPath, PurePosixPath, PureWindowsPath)}


def write_int(value: int) -> JSON:
    """Return an integer as it is where every reader of JSON keeps it, else its hexadecimal text."""
    return value if -EXACT_IN_JSON <= value <= EXACT_IN_JSON else {"int": hex(value)}


def read_int(node: JSON) -> int:
    """Return the integer that `write_int` has written."""
    match node:
        case bool():
            raise TypeError("a truth value where an integer belongs")
        case int():
            return node
        case {"int": str(text)} if _HEX.fullmatch(text):
            return int(text, 16)
    raise TypeError("no integer")


def write_float(value: float) -> JSON:
    """Return a float as it is, or by name where JSON has no sign for it."""
    return value if math.isfinite(value) else {"float": str(value)}


def read_float(node: JSON) -> float:
    """Return the float that `write_float` has written."""
    match node:
        case float():
            return node
        case {"float": "nan" | "inf" | "-inf" as text}:
            return float(text)
    raise TypeError("no float")


def text_of(payload: JSON) -> str:
    """Return the payload if it is text."""
    if not isinstance(payload, str):
        raise TypeError("no text")
    return payload


def _unchanged(read: Callable[[str], object], show: Callable[[Any], str]) -> Callable[[JSON], object]:
    """Return a reader that takes only what `show` would write, though `read` may take more."""

    def reader(payload: JSON) -> object:
        value = read(text_of(payload))
        if show(value) != payload:
            raise ValueError("not the way it is written")
        return value

    return reader


def _integers(payload: JSON, count: int) -> list[int]:
    if not isinstance(payload, list) or len(payload) != count:
        raise TypeError(f"not {count} integers")
    return [read_int(item) for item in payload]


def write_bytes(value: bytes | bytearray) -> str:
    """Return bytes as text in base64."""
    return base64.b64encode(value).decode()


def read_bytes(payload: JSON) -> bytes:
    """Return the bytes that `write_bytes` has written."""
    return base64.b64decode(text_of(payload), validate=True)


def _read_complex(payload: JSON) -> complex:
    match payload:
        case [real, imaginary]:
            return complex(read_float(real), read_float(imaginary))
    raise TypeError("not two floats")


def _read_fraction(payload: JSON) -> Fraction:
    numerator, denominator = _integers(payload, 2)
    value = Fraction(numerator, denominator)
    if value.denominator != denominator:
        raise ValueError("not in lowest terms")
    return value


def _write_zone(zone: tzinfo | None) -> JSON:
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # what pickle keeps of it
        return {"timezone": [*_write_timedelta(offset), *name]}
    if type(zone) is ZoneInfo:
        if zone.key is None:
            raise InvalidInputError("a ZoneInfo without a key: make it by zoneinfo.ZoneInfo('Area/City')")
        return {"zoneinfo": zone.key}
    if zone is not None:
        raise InvalidInputError(
            f"a time in a {type(zone).__module__}.{type(zone).__qualname__}: use datetime.timezone or zoneinfo.ZoneInfo"
        )
    return None


def _read_zone(node: JSON) -> tzinfo | None:
    match node:
        case None:
            return None
        case {"timezone": payload}:
            return _read_timezone(payload)
        case {"zoneinfo": payload}:
            return _read_zoneinfo(payload)
    raise TypeError("no time zone")


def _read_timezone(payload: JSON) -> timezone:
    match payload:
        case [days, seconds, microseconds, *name] if len(name) < 2:
            offset = _read_timedelta([days, seconds, microseconds])
            return timezone(offset, *map(text_of, name))
    raise TypeError("no offset")


def _read_zoneinfo(payload: JSON) -> ZoneInfo:
    try:
        return ZoneInfo(text_of(payload))
    except ZoneInfoNotFoundError:
        raise MissingDependencyError(
            f"the time zone {payload!r:.80} is not known here: install zones by `pip install tzdata`"
        ) from None
    except OSError as error:
        raise ValueError(f"no time zone: {error}") from None


def _write_timedelta(value: timedelta) -> list[JSON]:
    return [value.days, value.seconds, value.microseconds]


def _read_timedelta(payload: JSON) -> timedelta:
    return timedelta(*_integers(payload, 3))


def _write_moment(tag: str) -> Callable[[Any], JSON]:
    def writer(value: datetime | time) -> JSON:
        return {tag: [value.replace(tzinfo=None).isoformat(), value.fold, _write_zone(value.tzinfo)]}

    return writer


def _read_moment(kind: type[datetime] | type[time]) -> Callable[[JSON], datetime | time]:
    def reader(payload: JSON) -> datetime | time:
        match payload:
            case [str(text), fold, zone]:
                value = kind.fromisoformat(text)
                if value.isoformat() == text and value.tzinfo is None:
                    return value.replace(fold=read_int(fold), tzinfo=_read_zone(zone))
        raise TypeError("no time")

    return reader


def _read_path(payload: JSON) -> PurePath:
    match payload:
        case [str(kind), str(text)] if kind in _PATHS:
            return _PATHS[kind](text)
    raise TypeError("no path")


def _write_path(value: PurePath) -> JSON:
    return {"path": [type(value).__name__, str(value)]}


WRITERS: dict[type, Callable[[Any], JSON]] = {
    NoneType: lambda value: value,
    bool: lambda value: value,
    str: lambda value: value,
    int: write_int,
    float: write_float,
    complex: lambda value: {"complex": [write_float(value.real), write_float(value.imag)]},
    bytes: lambda value: {"bytes": write_bytes(value)},
    bytearray: lambda value: {"bytearray": write_bytes(value)},
    range: lambda value: {"range": [write_int(value.start), write_int(value.stop), write_int(value.step)]},
    date: lambda value: {"date": value.isoformat()},
    datetime: _write_moment("datetime"),
    time: _write_moment("time"),
    timedelta: lambda value: {"timedelta": _write_timedelta(value)},
    timezone: _write_zone,
    ZoneInfo: _write_zone,
    Decimal: lambda value: {"decimal": str(value)},
    Fraction: lambda value: {"fraction": [write_int(value.numerator), write_int(value.denominator)]},
    UUID: lambda value: {"uuid": str(value)},
    **dict.fromkeys(_PATHS.values(), _write_path),
}
"""How each type is written, by the very type: a subclass is another matter."""

READERS: dict[str, Callable[[JSON], object]] = {
    "int": lambda payload: read_int({"int": payload}),
    "float": lambda payload: read_float({"float": payload}),
    "complex": _read_complex,
    "bytes": read_bytes,
    "bytearray": lambda payload: bytearray(read_bytes(payload)),
    "range": lambda payload: range(*_integers(payload, 3)),
    "date": _unchanged(date.fromisoformat, date.isoformat),
    "datetime": _read_moment(datetime),
    "time": _read_moment(time),
    "timedelta": _read_timedelta,
    "timezone": _read_timezone,
    "zoneinfo": _read_zoneinfo,
    "decimal": _unchanged(Decimal, str),
    "fraction": _read_fraction,
    "uuid": _unchanged(UUID, str),
    "path": _read_path,
}
"""How what stands behind each tag is read."""
