"""What a user sees of one table: its past, its files and its upkeep."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ckptlake.tables.compaction import Compaction, compact
from ckptlake.tables.delta import RETENTION_HOURS, DataFile
from ckptlake.tables.store import TableStore, check_as_of
from ckptlake.tables.vacuum import Vacuum, vacuum


class Table:
    """One Delta table of a lake; `lake.table("metrics")` returns it.

    >>> import ckptlake, tempfile
    >>> lake = ckptlake.open(tempfile.mkdtemp())
    >>> lake.table("metrics").files()
    []
    """

    def __init__(self, store: TableStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"Table({self.name!r}, version={self.version()}, files={len(self.files())})"

    @property
    def name(self) -> str:
        return self._store.name

    @property
    def path(self) -> Path:
        """The table's directory; any Delta reader opens it."""
        return self._store.path

    def version(self) -> int:
        """Return the newest version, or -1 where nothing has been committed yet."""
        return self._store.version()

    def history(self, limit: int | None = None) -> list[dict[str, object]]:
        """Return the commits still in the log, newest first.

        Each is a dict of ``version``, ``timestamp`` (UTC datetime) and ``operation``.
        """
        if self.version() < 0:
            return []
        return [
            {
                "version": entry["version"],
                "timestamp": datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                "operation": entry.get("ckptlake.operation", entry.get("operation")),
            }
            for entry in self._store.log.history(limit)
        ]

    def files(self, as_of: int | datetime | str | None = None) -> list[DataFile]:
        """Return the live files: path below the table, size in bytes, rows and partition.

        Raises:
            VersionNotFoundError: the log holds no such version.
        """
        return self._store.snapshot(check_as_of(as_of)).files()

    def compact(self) -> Compaction:
        """Merge all small files of each partition; safe beside writers and other compactions.

        Raises:
            StorageError: the disk refused; the table is unchanged.
        """
        return compact(self._store, everything=True)

    def vacuum(self, dry_run: bool = True, retention_hours: float = RETENTION_HOURS) -> Vacuum:
        """List, or with ``dry_run=False`` delete, files that no recent snapshot needs.

        Args:
            dry_run: only list.
            retention_hours: keep what was live within so many hours. A reader that is at work on an older
                snapshot fails once its files are gone; rows being written are never touched.

        Raises:
            InvalidInputError: the retention is negative.
            StorageError: the disk refused.
        """
        return vacuum(self._store, dry_run=dry_run, retention_hours=retention_hours)
