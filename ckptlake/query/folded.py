"""What views make of events, kept as tables of DuckDB, which reads one many times faster than it makes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from ckptlake.query.checkpoint_views import fold
from ckptlake.query.history import Events, Folding
from ckptlake.query.questions import Folds
from ckptlake.query.sources import Sources
from ckptlake.query.views import DEPENDS, OF_HELD_ROWS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = "ckptlake"
KEPT_VIEWS = ("runs", "params", "tags", "definitions", "summaries")
"""Views on rows in memory whose rows are kept when they are asked for again."""

_MOST_KEPT_ROWS = 2_000_000
_ASKED_SELDOM = 2


Create = Callable[["DuckDBPyConnection", str], None]
"""Makes a table of a given name."""


@dataclass(slots=True)
class _Kept:
    table: str
    key: Hashable
    readers: int = 0


class KeptTables:
    """The newest table of one kind in one DuckDB, and older ones for as long as they are being read.

    Args:
        name: that of the tables, with their schema, but for a number at its end.
        cursor: returns a new connection to the DuckDB.
    """

    def __init__(self, name: str, cursor: Callable[[], DuckDBPyConnection]) -> None:
        self._name = name
        self._cursor = cursor
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []
        self._count = 0
        self._asked: tuple[Hashable, int] = (None, 0)

    @contextmanager
    def lent(self, key: Hashable, create: Create) -> Iterator[str]:
        """Yield the table of what `key` stands for, which is made at need and stays there during the block."""
        kept = self._take(key, create)
        try:
            yield kept.table
        finally:
            self._give_back(kept)

    def is_asked_often(self, key: Hashable) -> bool:
        """Tell whether only `key` was asked for the last few times, so that its table is worth making."""
        asked, times = self._asked
        self._asked = key, times + 1 if asked == key else 1
        return self._asked[1] > _ASKED_SELDOM

    def _take(self, key: Hashable, create: Create) -> _Kept:
        with self._lock:
            kept = next((kept for kept in self._kept if kept.key == key), None)
            if kept is None:
                self._count += 1
                kept = _Kept(f"{self._name}_{self._count}", key)
                with self._cursor() as cursor:
                    create(cursor, kept.table)
                self._kept.append(kept)
            kept.readers += 1
            return kept

    def _give_back(self, kept: _Kept) -> None:
        with self._lock:
            kept.readers -= 1
            outdated = [kept for kept in self._kept[:-1] if kept.readers == 0]
            for kept in outdated:
                with self._cursor() as cursor:
                    cursor.execute(f"DROP TABLE {kept.table}")
                self._kept.remove(kept)


@contextmanager
def lent_folds(settled: KeptTables, recent: KeptTables, folding: Folding | None) -> Iterator[Folds]:
    """Yield the tables with the folds of checkpoints, which stay there during the block; none where none are asked."""
    with ExitStack() as stack:

        def lent(tables: KeptTables, events: Events | None) -> str | None:
            if events is None:
                return None
            return stack.enter_context(tables.lent(events, partial(create_folded, events=events)))

        yield Folds() if folding is None else Folds(lent(settled, folding.settled), lent(recent, folding.recent))


@contextmanager
def lent_views(
    tables: Mapping[str, KeptTables], sources: Sources, wanted: Iterable[str]
) -> Iterator[Mapping[str, str]]:
    """Yield the tables with the rows of those views that were asked for often, which stay there during the block."""
    with ExitStack() as stack:
        found = {}
        for view in tables.keys() & wanted:
            key, rows = sources.position(DEPENDS[view]), sources.rows[view]
            if key is not None and tables[view].is_asked_often(key) and len(rows) <= _MOST_KEPT_ROWS:
                create = partial(_create_view_rows, view=view, rows=rows)
                found[view] = stack.enter_context(tables[view].lent(key, create))
        yield found


def _create_view_rows(cursor: DuckDBPyConnection, table: str, view: str, rows: pa.Table) -> None:
    cursor.register(f"{view}_rows", rows)
    cursor.execute(f"CREATE TABLE {table} AS {OF_HELD_ROWS[view]()}")
    cursor.unregister(f"{view}_rows")


def create_folded(cursor: DuckDBPyConnection, table: str, events: Events) -> None:
    """Make a table with the fold of events, in the order of runs, so that few rows are read of it for one."""
    cursor.register("folded_checkpoints", events.checkpoints)
    cursor.register("folded_verifications", events.verifications)
    folded = fold("folded_checkpoints", "folded_verifications")
    cursor.execute(f"CREATE TABLE {table} AS FROM ({folded}) ORDER BY run_id, step")
    for name in ("folded_checkpoints", "folded_verifications"):
        cursor.unregister(name)
