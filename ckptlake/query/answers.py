"""An answer as it is kept, and what it is the answer to."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
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

    def tuples(self) -> list[tuple[Any, ...]]:
        """Return its rows as Python's values."""
        return list(zip(*(column.to_pylist() for column in self.rows.columns), strict=True))

    @property
    def size_bytes(self) -> int:
        """Return how much memory it takes, about."""
        return int(self.rows.get_total_buffer_size()) + _OVERHEAD_BYTES * (1 + len(self.kinds))


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """What an answer depends on.

    Attributes:
        digest: a SHA-256 of the SQL, the values bound, and the rows of the tables it reads.
        moment: these tables.
        context: what else tells answers apart that are kept for other processes: the lake, and versions.
    """

    digest: bytes
    moment: Moment
    context: Mapping[str, str]

    def file_digest(self) -> str | None:
        """Return what tells the answer from those of other processes and times, as hexadecimal text.

        None if rows are on their way to a commit: soon nobody will ask for such an answer again.
        """
        if not self.moment.is_settled:
            return None
        files = {name: snapshot.digest for name, snapshot in sorted(self.moment.snapshots.items())}
        return _sha256([self.digest.hex(), files, dict(self.context)]).hex()


class _NoTextError(Exception):
    """A value that has no text of its own."""


def key_of(query: str, values: Mapping[str, object], moment: Moment, context: Mapping[str, str]) -> Key | None:
    """Return what the answer to a question at a moment depends on, or None where a value cannot be told by a text."""
    bound = text_of(values)
    if bound is None:
        return None
    tables = sorted(moment.snapshots)
    return Key(_sha256([query, bound, tables, moment.position(*tables)]), moment, context)


def text_of(values: Mapping[str, object]) -> str | None:
    """Return a text that other values to bind do not have, or None where one of them cannot be told by a text."""
    try:
        return json.dumps([[name, _encoded(values[name])] for name in sorted(values)], separators=(",", ":"))
    except _NoTextError:
        return None


def _sha256(parts: Sequence[object]) -> bytes:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).digest()


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
    int: hex,
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
