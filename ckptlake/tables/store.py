"""One Delta table of a lake: snapshots to read, rows to append, files to replace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from ckptlake._internal.asked import WORTH_A_FILE, InARow
from ckptlake._internal.files import GOES_ON, storage_errors
from ckptlake._internal.locks import attempts, exclusive
from ckptlake.config import Settings
from ckptlake.errors import CkptlakeError, CommitConflictError, DamagedTableError, InvalidInputError
from ckptlake.tables.delta import DataFile, DeltaLog
from ckptlake.tables.kept_files import KeptFiles, read_kept, write_kept
from ckptlake.tables.offers import Offer, post, read_offers
from ckptlake.tables.parquet import STAGING, discard, publish, write_staged
from ckptlake.tables.schemas import TableSpec
from ckptlake.tables.snapshot import Snapshot
from ckptlake.tables.sorting import sort_rows, split_by_partition

MAINTENANCE_APP = "ckptlake-compact"
_COMMIT_LOCK = ".commit.lock"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to append exactly once: `number` rises over all batches of one writer."""

    writer: str
    number: int
    rows: pa.Table


class TableStore:
    """One table of a lake.

    Reading needs no permission to write. Appends and replacements are single Delta commits: a reader
    sees all of one or nothing.

    Args:
        root: the table's directory.
        spec: its columns.
        settings: how long to wait for locks.
        kept_files: where what was read of its log is kept for the next reader; without it nothing is.
    """

    def __init__(self, root: Path, spec: TableSpec, settings: Settings, kept_files: Path | None = None) -> None:
        self.name = spec.name
        self.path = root
        self.spec = spec
        self.log = DeltaLog(root, spec)
        self._settings = settings
        self._newest: Snapshot | None = None
        self._kept_files = kept_files
        self._asked = InARow()
        self._kept: tuple[KeptFiles, Snapshot] | None = None

    def version(self) -> int:
        """Return the newest version, or -1 where nothing has been committed yet."""
        return self.log.refresh()

    def snapshot(self, as_of: int | datetime | None = None, writers: Iterable[str] = ()) -> Snapshot:
        """Return the table's files at the newest version, or `as_of` a version or moment.

        For each of `writers` the snapshot says up to which frame that writer's rows are in it.

        Raises:
            VersionNotFoundError: the log holds no such version.
        """
        if as_of is not None:
            return self._past(as_of)
        writers = tuple(writers)
        if not writers and (kept := self._kept_snapshot()) is not None:
            return kept
        with self.log.held() as version:
            if version < 0:
                self._check_log_is_there()
                return Snapshot.empty(self.spec, self.path)
            known = self._newest if self._newest is not None and self._newest.version == version else None
            if known is not None and all(writer in known.transactions for writer in writers):
                self._keep_if_asked_often(known)
                return known
            actions = known.actions if known is not None else self.log.actions()
            transactions = dict(known.transactions) if known is not None else {}
            for writer in writers:
                if writer not in transactions:
                    transactions[writer] = self.log.transaction_version(writer)
            self._newest = Snapshot(self.spec, self.path, version, actions, transactions)
            return self._newest

    def _keep_if_asked_often(self, newest: Snapshot) -> None:
        if self._asked.count(newest.version) == WORTH_A_FILE and self._kept_files is not None:
            write_kept(self._kept_files, self.log.directory, newest.version, newest.actions)

    def _kept_snapshot(self) -> Snapshot | None:
        """Return the newest snapshot without opening the log, or None where only the log tells."""
        if self.log.is_open or self._kept_files is None:
            return None
        if self._kept is None or not self._kept[0].is_newest():
            self._kept = None
            if (kept := read_kept(self._kept_files, self.log.directory, self.spec)) is not None:
                self._kept = kept, Snapshot(self.spec, self.path, kept.version, kept.actions)
        return self._kept[1] if self._kept is not None else None

    def _past(self, as_of: int | datetime) -> Snapshot:
        past = self.log.at_time(as_of) if isinstance(as_of, datetime) else self.log.at_version(as_of)
        if past is None:
            return Snapshot.empty(self.spec, self.path)
        return Snapshot(self.spec, self.path, past.handle.version(), past.actions())

    def append(self, batches: Sequence[Batch], prepare: Callable[[Sequence[Batch]], pa.Table] | None = None) -> int:
        """Append each batch once: those that are in the table already are passed over.

        Args:
            batches: rows with their writer and number; a writer's batches come in order of number.
            prepare: makes sorted rows of the batches that are not in the table yet; by default their own.

        Returns:
            A version that holds the rows.

        Raises:
            StorageError: the disk refused, or the lock stayed taken; nothing was committed.
            CommitConflictError: where no lock holds others back, the same rows were committed by somebody
                else at this moment; trying again finds them there.
        """
        with storage_errors(f"write the table {self.name!r}", self.path, GOES_ON):
            self._create_if_missing()
            while True:
                version, reached, pending = self._pending(batches)
                if not pending:
                    return version
                staged = self.stage(prepare(pending) if prepare else self._sorted(pending))
                last = {batch.writer: batch.number for batch in pending}
                offer = Offer(tuple(staged), {writer: reached[writer] for writer in last}, last)
                try:
                    if (committed := self._commit_offer(offer)) is not None:
                        return committed
                finally:
                    discard(staged, self.path)

    def _check_log_is_there(self) -> None:
        """Raise where data files lie without the log that tells which of them count.

        A log comes before its data: where it is looked for once more after they were seen, a table that was
        created meanwhile is not taken for a damaged one.
        """
        data = next((self.path.glob("**/part-*.parquet")), None)
        if data is not None and data.parent.name != STAGING and self.log.refresh() < 0:
            raise DamagedTableError(
                f"the table {self.name!r} has data files but no readable log at {self.log.directory}: restore that "
                "folder from a copy"
            )

    def _create_if_missing(self) -> None:
        if self.log.refresh() < 0:
            self._check_log_is_there()
            self.path.mkdir(parents=True, exist_ok=True)
            with self.exclusive():
                self.log.create()

    def _commit_offer(self, offer: Offer) -> int | None:
        """Commit an offer, or have it committed by the lock's holder; None if it no longer fits."""
        posted: Path | None = None
        try:
            with closing(attempts(self.path / _COMMIT_LOCK, self._settings.lock_timeout_s)) as tries:
                for held in tries:
                    if held:
                        return self._commit_group(offer)
                    if posted is None:
                        posted = post(offer, self.path)
                    elif not posted.exists():
                        return self._version_reaching(offer)
        finally:
            if posted is not None:
                posted.unlink(missing_ok=True)
        return None

    def _commit_group(self, own: Offer) -> int | None:
        with self.log.held():
            if not self._fits(own):
                return None
            publish(own.files, self.path)
            files, last, taken = list(own.files), dict(own.last), []
            for place, offer in read_offers(self.path).items():
                if not last.keys() & offer.last.keys() and self._fits(offer) and self._publish_if_staged(offer):
                    files += offer.files
                    last |= offer.last
                    taken.append(place)
            version = self._commit(files, (), last, operation="append", data_change=True)
        for place in taken:
            place.unlink(missing_ok=True)
        return version

    def _publish_if_staged(self, offer: Offer) -> bool:
        """Publish an offer's files, or return False if its writer has given it up meanwhile."""
        try:
            publish(offer.files, self.path)
        except FileNotFoundError:
            return False
        return True

    def _fits(self, offer: Offer) -> bool:
        return all(self.log.transaction_version(writer) == number for writer, number in offer.reached.items())

    def _version_reaching(self, offer: Offer) -> int | None:
        with self.log.held() as version:
            reached = all(self.log.transaction_version(writer) >= number for writer, number in offer.last.items())
            return version if reached else None

    def _sorted(self, batches: Sequence[Batch]) -> pa.Table:
        return sort_rows(pa.concat_tables(batch.rows for batch in batches), self.spec)

    def _pending(self, batches: Sequence[Batch]) -> tuple[int, dict[str, int], list[Batch]]:
        """Return the newest version, each writer's last frame in it, and the batches that are not in it."""
        with self.log.held() as version:
            reached = {writer: self.log.transaction_version(writer) for writer in {b.writer for b in batches}}
        passed, pending = dict(reached), []
        for batch in batches:
            if batch.number > passed[batch.writer]:
                passed[batch.writer] = batch.number
                pending.append(batch)
        return version, reached, pending

    def stage(self, rows: pa.Table) -> list[DataFile]:
        """Write sorted rows as invisible files, one a partition, for `append` or `replace`."""
        profile = self._settings.parquet_profile
        staged: list[DataFile] = []
        try:
            for partition, part in split_by_partition(rows, self.spec):
                staged.append(write_staged(part, self.path, self.spec, partition, profile))
        except BaseException:
            discard(staged, self.path)
            raise
        return staged

    def replace(
        self,
        removes: Sequence[DataFile],
        adds: Sequence[DataFile],
        *,
        guard: int,
        operation: str,
        data_change: bool,
    ) -> int:
        """Put staged files in the place of live ones, if no other replacement came in between.

        Args:
            guard: `replacements()` as it was when the files to remove were read.

        Raises:
            CommitConflictError: another replacement came first; `adds` are deleted, nothing changed.
        """
        try:
            with storage_errors(f"rewrite the table {self.name!r}", self.path), self.exclusive():
                with self.log.held():
                    live = {file.path for file in self.snapshot().files()}
                    current = self.log.transaction_version(MAINTENANCE_APP)
                if current != guard or any(file.path not in live for file in removes):
                    raise CommitConflictError(
                        f"the files of table {self.name!r} were replaced by another process meanwhile"
                    )
                publish(adds, self.path)
                last = {MAINTENANCE_APP: guard + 1}
                return self._commit(adds, removes, last, operation=operation, data_change=data_change)
        finally:
            discard(adds, self.path)

    def _commit(
        self,
        adds: Sequence[DataFile],
        removes: Sequence[DataFile],
        last: Mapping[str, int],
        *,
        operation: str,
        data_change: bool,
    ) -> int:
        """Commit published files, or take them back if the log has refused them."""
        try:
            return self.log.commit(adds, removes, last, operation=operation, data_change=data_change)
        except CkptlakeError:
            with self.log.held():
                refused = any(self.log.transaction_version(app) < number for app, number in last.items())
            if refused:
                for file in adds:
                    (self.path / file.path).unlink(missing_ok=True)
            raise

    def replacements(self) -> int:
        """Return how many replacements the table has seen, or -1: the guard of the next one."""
        with self.log.held() as version:
            return -1 if version < 0 else self.log.transaction_version(MAINTENANCE_APP)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the table's commit lock for the block; it spares retries, correctness does not need it."""
        return exclusive(self.path / _COMMIT_LOCK, self._settings.lock_timeout_s)


def check_as_of(as_of: object) -> int | datetime | None:
    """Return `as_of` as a version or an aware moment.

    ISO text without a zone is UTC, as all times a lake shows; a datetime without one is local time, as in Python.

    Raises:
        InvalidInputError: it is neither.
    """
    if as_of is None or (isinstance(as_of, int) and not isinstance(as_of, bool) and as_of >= 0):
        return as_of
    if isinstance(as_of, str):
        try:
            as_of = datetime.fromisoformat(as_of)
            as_of = as_of if as_of.tzinfo is not None else as_of.replace(tzinfo=UTC)
        except ValueError:
            raise InvalidInputError(f"as_of {as_of!r:.60} is no ISO time such as '2026-01-31T12:00+00:00'") from None
    if isinstance(as_of, datetime):
        with suppress(ValueError, OverflowError):
            return as_of.astimezone(UTC)
        return as_of.replace(tzinfo=UTC)  # within a day of the first or last moment there is
    raise InvalidInputError(f"as_of must be a version (0, 1, …), a datetime or ISO text, got {as_of!r:.60}")
