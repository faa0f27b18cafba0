"""Folds of checkpoints kept as tables of DuckDB, which reads one many times faster than it folds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptlake.query.checkpoint_views import fold
from ckptlake.query.history import Events

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = "ckptlake"


@dataclass(slots=True)
class _Folded:
    table: str
    events: Events
    readers: int = 0


class FoldedTables:
    """The newest fold in one DuckDB, and older ones for as long as they are being read."""

    def __init__(self, name: str, cursor: Callable[[], DuckDBPyConnection]) -> None:
        self._name = name
        self._cursor = cursor
        self._lock = threading.Lock()
        self._kept: list[_Folded] = []
        self._count = 0

    @contextmanager
    def lent(self, events: Events | None) -> Iterator[str | None]:
        """Yield the table with the fold of `events`, which stays there during the block; None for None."""
        if events is None:
            yield None
            return
        folded = self._take(events)
        try:
            yield folded.table
        finally:
            self._give_back(folded)

    def _take(self, events: Events) -> _Folded:
        with self._lock:
            folded = next((folded for folded in self._kept if folded.events is events), None)
            if folded is None:
                self._count += 1
                folded = _Folded(f"{SCHEMA}.{self._name}_{self._count}", events)
                with self._cursor() as cursor:
                    create_folded(cursor, folded.table, events)
                self._kept.append(folded)
            folded.readers += 1
            return folded

    def _give_back(self, folded: _Folded) -> None:
        with self._lock:
            folded.readers -= 1
            outdated = [folded for folded in self._kept[:-1] if folded.readers == 0]
            for folded in outdated:
                with self._cursor() as cursor:
                    cursor.execute(f"DROP TABLE {folded.table}")
                self._kept.remove(folded)


def create_folded(cursor: DuckDBPyConnection, table: str, events: Events) -> None:
    """Make a table with the fold of events, in the order of runs, so that few rows are read of it for one."""
    cursor.register("folded_checkpoints", events.checkpoints)
    cursor.register("folded_verifications", events.verifications)
    folded = fold("folded_checkpoints", "folded_verifications")
    cursor.execute(f"CREATE TABLE {table} AS FROM ({folded}) ORDER BY run_id, step")
    for name in ("folded_checkpoints", "folded_verifications"):
        cursor.unregister(name)
