"""The one door to delta-rs: a table's transaction log, its commits and its past."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import unquote

import deltalake
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from ckptlake._internal.files import sync_directory, sync_file
from ckptlake.errors import CommitConflictError, DamagedTableError, StorageError, VersionNotFoundError
from ckptlake.tables.schemas import TableSpec

CHECKPOINT_INTERVAL = 100
RETENTION_HOURS = 24
_MAX_COMMIT_RETRIES = 50
_CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),
    "delta.logRetentionDuration": f"interval {RETENTION_HOURS} hours",
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS} hours",
    "delta.enableExpiredLogCleanup": "true",
}
LIBRARY_VERSION = deltalake.__version__
_ENTRY = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table: its path below the table, as on disk, and what the log says of it."""

    path: str
    size_bytes: int
    num_records: int
    partition: str | None
    stats_json: str
    modified_ms: int


class DeltaLog:
    """The log of one table; a handle kept fresh cheaply and shared between threads under a lock."""

    def __init__(self, root: Path, spec: TableSpec) -> None:
        self.root = root
        self.directory = root / "_delta_log"
        self._spec = spec
        self._handle: DeltaTable | None = None
        self._checkpoint_mark: tuple[int, int] | None = None
        self._synced_version = -1
        self._reached: tuple[int, dict[str, int]] = (-1, {})
        self._lock = RLock()

    def exists(self) -> bool:
        return self.directory.is_dir()

    @property
    def is_open(self) -> bool:
        """Whether its entries have been read before, so that only news are left to read."""
        return self._handle is not None

    def create(self) -> None:
        """Create the table; the caller holds its lock and has seen that it is not there."""
        if self.refresh() < 0:
            try:
                DeltaTable.create(
                    self.root,
                    schema=self._spec.schema,
                    mode="ignore",
                    partition_by=self._spec.partition_by,
                    configuration=_CONFIGURATION,
                )
            except DeltaError as error:
                if self.refresh() < 0:
                    raise StorageError(f"cannot create the table {self.root}: {error}; check that disk") from error
            self._sync_entries(self.refresh())
            for directory in (self.root, self.root.parent, self.root.parent.parent):
                sync_directory(directory)

    def _sync_entries(self, version: int) -> None:
        """Force the log up to `version` to the disk, also what others wrote: each entry needs those before it."""
        first = max(self._synced_version + 1, version // CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL - 1, 0)
        for number in range(first, version + 1):
            with suppress(FileNotFoundError):
                sync_file(log_entry(self.directory, number))
        sync_directory(self.directory)
        self._synced_version = version

    def refresh(self) -> int:
        """Move to the newest version and return it; -1 where the table does not exist yet.

        When nothing has been committed since the last call this costs two look-ups of file names.
        """
        with self._lock:
            mark = self._mark()
            if self._handle is None or mark != self._checkpoint_mark:
                handle = self._open()
                if handle is None:
                    return -1
                self._handle, self._checkpoint_mark = handle, mark
            elif log_entry(self.directory, self._handle.version() + 1).exists():
                try:
                    self._handle.update_incremental()
                except DeltaError as error:
                    raise self._damaged(error) from error
            return self._handle.version()

    def _damaged(self, error: DeltaError) -> DamagedTableError:
        return DamagedTableError(
            f"the log of table {self._spec.name!r} at {self.directory} cannot be read: {error}; restore that "
            "folder from a copy"
        )

    def _open(self) -> DeltaTable | None:
        if not self.directory.exists():
            return None
        if not self.directory.is_dir():
            raise DamagedTableError(f"{self.directory} is a file where the table's log should be: move it away")
        try:
            return DeltaTable(self.root)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise self._damaged(error) from error

    def _mark(self) -> tuple[int, int] | None:
        try:
            status = (self.directory / "_last_checkpoint").stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_mtime_ns, status.st_ino

    @property
    def handle(self) -> DeltaTable:
        if self._handle is None:
            raise AssertionError(f"the table {self.root} was used before `refresh` found it")
        return self._handle

    def transaction_version(self, app_id: str) -> int:
        """Return the highest number committed under `app_id`, or -1."""
        with self._lock:
            version = self.handle.version()
            if self._reached[0] != version:
                self._reached = (version, {})
            known = self._reached[1]
            if app_id not in known:
                number = self.handle.transaction_version(app_id)
                known[app_id] = -1 if number is None else int(number)
            return known[app_id]

    def actions(self) -> pa.Table:
        """Return the live files with their statistics, one row each."""
        with self._lock:
            return pa.table(self.handle.get_add_actions(flatten=True))

    @contextmanager
    def held(self) -> Iterator[int]:
        """Keep other threads from moving the handle during the block; yields its newest version."""
        with self._lock:
            yield self.refresh()

    def commit(
        self,
        adds: Sequence[DataFile],
        removes: Sequence[DataFile],
        transactions: Mapping[str, int],
        *,
        operation: str,
        data_change: bool,
    ) -> int:
        """Commit on top of the snapshot last refreshed, make the log entry durable, return its version.

        Raises:
            CommitConflictError: another process has since committed one of `transactions`.
        """
        with self._lock:
            actions: list[AddAction | RemoveAction] = [self._add(file, data_change) for file in adds]
            actions += [self._remove(file, data_change) for file in removes]
            properties = CommitProperties(
                custom_metadata={"ckptlake.operation": operation},
                max_commit_retries=_MAX_COMMIT_RETRIES,
                app_transactions=[Transaction(app, number) for app, number in transactions.items()],
            )
            partition_by = [self._spec.partition_by] if self._spec.partition_by else None
            try:
                self.handle.create_write_transaction(
                    actions, "append", self.handle.schema(), partition_by, commit_properties=properties
                )
            except CommitFailedError as error:
                raise CommitConflictError(f"commit to {self.root.name} refused: {error}") from error
            except DeltaError as error:
                raise StorageError(
                    f"cannot commit to {self.root}: {error}; check that disk, the rows are safe meanwhile"
                ) from error
            version = self.refresh()
            self._sync_entries(version)
            return version

    def checkpoint(self) -> None:
        """Write down what all entries up to now come to, so that whoever opens the table need not read them one by one.

        Raises:
            StorageError: the disk refused; the table is as readable as before.
        """
        with self.held() as version:
            try:
                self.handle.create_checkpoint()
            except DeltaError as error:
                raise StorageError(f"cannot write a checkpoint of the log of {self.root}: {error}") from error
            sync_file(self.directory / f"{version:020}.checkpoint.parquet")
            self._checkpoint_mark = self._mark()

    def _add(self, file: DataFile, data_change: bool) -> AddAction:
        partition = self._partition_values(file)
        return AddAction(file.path, file.size_bytes, partition, file.modified_ms, data_change, file.stats_json)

    def _remove(self, file: DataFile, data_change: bool) -> RemoveAction:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        return RemoveAction(file.path, data_change, now_ms, file.size_bytes, self._partition_values(file))

    def _partition_values(self, file: DataFile) -> dict[str, str | None]:
        return {self._spec.partition_by: file.partition} if self._spec.partition_by else {}

    def at_version(self, version: int) -> DeltaLog:
        """Return the log as it was at `version`.

        Raises:
            VersionNotFoundError: no such version, or its log entries have been cleaned away.
        """
        newest = self.refresh()
        if newest < 0:
            raise VersionNotFoundError(
                f"the table {self._spec.name!r} cannot be read at version {version}: nothing has been committed yet"
            )
        past = DeltaLog(self.root, self._spec)
        try:
            # The library would search long for a version far off.
            past._handle = DeltaTable(self.root, version=version) if version <= newest else None
        except (DeltaError, TableNotFoundError):
            past._handle = None
        if past._handle is None:
            raise VersionNotFoundError(
                f"the table {self._spec.name!r} cannot be read at version {version}: the newest is {newest}, "
                f"the oldest kept is {self.oldest_version()}"
            )
        return past

    def at_time(self, moment: datetime) -> DeltaLog | None:
        """Return the log as it was at `moment`, or None if the table did not exist then.

        Raises:
            VersionNotFoundError: the log no longer reaches back that far.
        """
        if self.refresh() < 0:
            return None
        entries = self.history()
        moment_ms = moment.timestamp() * 1000
        past = [entry["version"] for entry in entries if entry["timestamp"] <= moment_ms]
        if past:
            return self.at_version(max(past))
        oldest = min(entry["version"] for entry in entries)
        if oldest == 0:
            return None
        raise VersionNotFoundError(
            f"the table {self._spec.name!r} cannot be read as of {moment.isoformat()}: its log reaches back to "
            f"version {oldest}; commits older than {RETENTION_HOURS} hours may be cleaned away"
        )

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the commits the log still holds, newest first; `timestamp` in milliseconds."""
        with self._lock:
            return list(self.handle.history(limit))

    def entry_versions(self) -> list[int]:
        """Return the versions whose log entries still exist, in order."""
        found = (_ENTRY.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def oldest_version(self) -> int:
        """Return the oldest version that can still be read."""
        versions = self.entry_versions()
        if versions and versions[0] == 0:
            return 0
        checkpoints = [int(path.name[:20]) for path in self.directory.glob("*.checkpoint.parquet")]
        return min((v for v in checkpoints if not versions or v >= versions[0] - 1), default=self.refresh())

    def expired_files(self, retention_hours: float, *, dry_run: bool) -> list[str]:
        """Return (and unless `dry_run` delete) files that no snapshot younger than the retention needs."""
        with self._lock:
            found = self.handle.vacuum(
                retention_hours=math.ceil(retention_hours),
                dry_run=dry_run,
                enforce_retention_duration=False,
                full=True,
            )
            self._sync_entries(self.refresh())
            return [str(path) for path in found]


def log_entry(directory: Path, version: int) -> Path:
    """Return where the entry of a version lies in the directory of a log."""
    return directory / f"{version:020}.json"


def disk_path(logged: str) -> str:
    """Return the path on disk of a path as the log writes it."""
    return unquote(logged)
