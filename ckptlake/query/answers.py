"""An answer as it is kept, and what it is the answer to."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from ckptlake.query.moments import Moment

_OVERHEAD_BYTES = 1024
_DEEPEST = 32


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The rows of an answer, and DuckDB's own types of its columns, of which Arrow does not have all."""

    rows: pa.Table
    kinds: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Return how much memory it takes, about."""
        return int(self.rows.get_total_buffer_size()) + _OVERHEAD_BYTES * (1 + len(self.kinds))


@dataclass(frozen=True, slots=True)
class Key:
    """What an answer depends on.

    Attributes:
        digest: a SHA-256 of the SQL, the values bound, and the rows of the tables it reads.
        file_digest: the same as hexadecimal text for all processes and times; None if rows were on their way then,
            so that nobody will ask for it much longer.
    """

    digest: bytes
    file_digest: Callable[[], str | None]


class _NoTextError(Exception):
    """A value that has no text of its own."""


def key_of(query: str, values: Mapping[str, object], moment: Moment, context: Mapping[str, str]) -> Key | None:
    """Return what the answer to a question at a moment depends on, or None where a value cannot be told by a text.

    Args:
        query: the SQL.
        values: what is bound to its parameters.
        moment: the tables it reads.
        context: what else tells answers apart that are kept for other processes, such as the lake and versions.
    """
    try:
        bound = [[name, _encoded(values[name])] for name in sorted(values)]
    except _NoTextError:
        return None
    tables = sorted(moment.snapshots)
    digest = hashlib.sha256(_text([query, bound, tables, moment.position(*tables)])).digest()

    def file_digest() -> str | None:
        if not moment.is_settled:
            return None
        files = {name: moment.snapshots[name].digest for name in tables}
        return hashlib.sha256(_text([digest.hex(), files, sorted(context.items())])).hexdigest()

    return Key(digest, file_digest)


def _text(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encoded(value: object, depth: int = 0) -> list[Any]:
    """Return a value as text with its type; values that DuckDB takes for different ones have different texts.

    Types are compared exactly: a subclass may be bound in a way of its own.
    """
    kind = type(value)
    if kind in _AS_TEXT:
        return [kind.__name__, _AS_TEXT[kind](value)]
    if depth < _DEEPEST:
        if isinstance(value, list | tuple) and kind in (list, tuple):
            return [kind.__name__, [_encoded(item, depth + 1) for item in value]]
        if isinstance(value, dict) and kind is dict:
            items = value.items()
            return ["dict", [[_encoded(name, depth + 1), _encoded(item, depth + 1)] for name, item in items]]
    raise _NoTextError


_AS_TEXT: dict[type, Callable[[Any], str]] = {
    type(None): str,
    bool: str,
    int: str,
    float: lambda value: struct.pack("<d", value).hex(),
    str: str,
    bytes: bytes.hex,
    Decimal: str,
    UUID: str,
    date: date.isoformat,
    datetime: datetime.isoformat,
    time: time.isoformat,
    timedelta: lambda value: f"{value.days} {value.seconds} {value.microseconds}",
}
