"""What a writer holds in memory, taken in portions that make a frame each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pyarrow as pa

from ckptlake.runs.frames import Keyset, Stream, pack_rows

LogCall = tuple[Stream, Keyset, int, int, tuple[object, ...]]
_POINTS_A_FRAME = 500_000
_ROWS_A_FRAME = 50
_T = TypeVar("_T")


def take_all(pending: deque[_T]) -> list[_T]:
    """Take everything; other threads may go on adding."""
    taken: list[_T] = []
    while pending:
        taken.append(pending.popleft())
    return taken


def take_calls(pending: deque[LogCall]) -> list[LogCall]:
    """Take calls of about as many points as one frame should have."""
    taken: list[LogCall] = []
    points = 0
    while pending and points < _POINTS_A_FRAME:
        taken.append(pending.popleft())
        points += len(taken[-1][1]) + 4
    return taken


def packed(table: str, rows: Sequence[dict[str, object]]) -> Iterator[pa.RecordBatch]:
    """Yield rows of a table as batches of about as many as one frame should have."""
    for start in range(0, len(rows), _ROWS_A_FRAME):
        yield pack_rows(table, rows[start : start + _ROWS_A_FRAME])
