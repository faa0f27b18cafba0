"""What views make of events, kept as tables of DuckDB, which reads one many times faster than it makes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from ckptlake._internal.asked import WORTH_A_FILE, InARow
from ckptlake.query.checkpoint_views import fold
from ckptlake.query.history import Events, Folding
from ckptlake.query.questions import Folds
from ckptlake.query.row_files import Origin, RowFiles
from ckptlake.query.sources import Sources
from ckptlake.query.views import DEPENDS, OF_HELD_ROWS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = "ckptlake"
_FOLDED = ("runs", "params", "tags", "definitions")
KEPT_VIEWS = (*_FOLDED, "summaries")
"""Views on rows in memory whose rows are kept when they are asked for again."""

_MOST_KEPT_ROWS = 2_000_000
_WORTH_A_TABLE = 3
"""How often the same rows are asked for in a row until a table in DuckDB holds them."""

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
        self.asked = InARow()

    @contextmanager
    def lent(self, key: Hashable, create: Create) -> Iterator[str]:
        """Yield the table of what `key` stands for, which is made at need and stays there during the block."""
        kept = self._take(key, create)
        try:
            yield kept.table
        finally:
            self._give_back(kept)

    def rows(self, table: str) -> pa.Table:
        """Return the rows of a table that is lent."""
        with self._cursor() as cursor:
            return cursor.sql(f"FROM {table}").to_arrow_table()

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
    tables: Mapping[str, KeptTables], files: RowFiles | None, sources: Sources, wanted: Iterable[str]
) -> Iterator[Mapping[str, str | pa.Table]]:
    """Yield the rows of views as far as they need not be made: in tables, which stay during the block, or read.

    A view gets a table when it is asked for often; until then its file is read, if there is one.
    """
    with ExitStack() as stack:
        found: dict[str, str | pa.Table] = {}
        for view in tables.keys() & wanted:
            key, rows = sources.position(DEPENDS[view]), sources.rows[view]
            if key is None or len(rows) > _MOST_KEPT_ROWS:
                continue
            maker, times = _Maker(view, sources, files), tables[view].asked.count(key)
            if times >= _WORTH_A_TABLE:
                found[view] = table = stack.enter_context(tables[view].lent(key, maker.create))
                if times == WORTH_A_FILE:
                    maker.keep(partial(tables[view].rows, table))
            elif (read := maker.read()) is not None:
                found[view] = read
        yield found


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the rows of one view, or reads them where they were made before and kept."""

    view: str
    sources: Sources
    files: RowFiles | None

    def read(self) -> pa.Table | None:
        """Return the rows that were kept, or None."""
        origin = self._origin()
        return None if self.files is None or origin is None else self.files.read(self.view, origin)

    def create(self, cursor: DuckDBPyConnection, table: str) -> None:
        """Make a table of the rows."""
        known = self.read()
        rows, text = f"{self.view}_rows", OF_HELD_ROWS[self.view]()
        cursor.register(rows, self.sources.rows[self.view] if known is None else known)
        cursor.execute(f"CREATE TABLE {table} AS {text if known is None else f'FROM {rows}'}")
        cursor.unregister(rows)

    def keep(self, made: Callable[[], pa.Table]) -> None:
        """Keep the rows made, if they are not kept yet."""
        origin = self._origin()
        if self.files is not None and origin is not None and self.read() is None:
            self.files.write(self.view, origin, made())

    def _origin(self) -> Origin | None:
        """Return what the rows are made of, or None where that will be other rows soon or making them takes no time."""
        moment = self.sources.moment
        if self.view not in _FOLDED or moment is None or not moment.is_settled:
            return None
        files = [moment.snapshots[table].digest for table in DEPENDS[self.view]]
        return (OF_HELD_ROWS[self.view](), *files)


def create_folded(cursor: DuckDBPyConnection, table: str, events: Events) -> None:
    """Make a table with the fold of events, in the order of runs, so that few rows are read of it for one."""
    cursor.register("folded_checkpoints", events.checkpoints)
    cursor.register("folded_verifications", events.verifications)
    folded = fold("folded_checkpoints", "folded_verifications")
    cursor.execute(f"CREATE TABLE {table} AS FROM ({folded}) ORDER BY run_id, step")
    for name in ("folded_checkpoints", "folded_verifications"):
        cursor.unregister(name)
