"""The tables as they stood together at one moment, committed and live."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from ckptlake.tables.snapshot import Snapshot


class LiveRows(Protocol):
    """Rows that are acknowledged and not committed yet."""

    @property
    def writers(self) -> frozenset[str]: ...

    def position(self, table: str) -> tuple[tuple[str, int], ...]: ...

    def rows(self, table: str, committed: Mapping[str, int]) -> pa.Table | None: ...


@dataclass(frozen=True, slots=True)
class Moment:
    """Snapshots of tables, and the rows beyond them; a moment in the past has none of those."""

    snapshots: Mapping[str, Snapshot]
    live: LiveRows | None

    def fresh(self, table: str) -> pa.Table | None:
        """Return the rows of a table that its snapshot does not hold."""
        return None if self.live is None else self.live.rows(table, self.snapshots[table].transactions)

    def position(self, *tables: str) -> Hashable:
        """Return what tells the rows of tables from what they are at other moments."""
        live = self.live
        return tuple((self.snapshots[name].version, live and live.position(name)) for name in tables)

    @property
    def is_settled(self) -> bool:
        """Whether all rows are committed, so that other processes will find the same for as long as nobody writes."""
        return self.live is None or not any(self.live.position(name) for name in self.snapshots)
