"""The one writer a process has for a lake: it takes rows from any thread and brings them to the tables."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence

import pyarrow as pa

from ckptlake._internal.clock import Clock
from ckptlake._internal.files import GOES_ON, storage_errors
from ckptlake._internal.ids import new_id
from ckptlake._internal.interrupts import uninterrupted
from ckptlake._internal.optional import if_imported
from ckptlake.config import Settings
from ckptlake.errors import (
    CkptlakeError,
    DamagedSegmentError,
    StorageError,
    UnreadableTensorError,
)
from ckptlake.runs.commit import Stores, commit_segments
from ckptlake.runs.frames import Block, pack_block, pack_calls
from ckptlake.runs.journal import Journal
from ckptlake.runs.pending import LogCall, packed, take_all, take_calls
from ckptlake.runs.quarantine import set_aside
from ckptlake.runs.recovery import Recovery, recover
from ckptlake.runs.scalars import split_readable
from ckptlake.runs.wal import SegmentWriter, read_segment
from ckptlake.tables.compaction import upkeep
from ckptlake.tables.layout import Layout

logger = logging.getLogger(__name__)

Row = tuple[str, dict[str, object]]
_alive: weakref.WeakSet[Writer] = weakref.WeakSet()


class Writer:
    """Brings rows from memory to the write-ahead segment every second and to Delta every minute.

    `calls.append` is all a training loop does; it is atomic and never waits. Two daemon threads do the
    rest. After a fork the child starts with nothing pending and a journal of its own, and leaves commits to
    its parent, because the Delta library does not survive a fork. While `commits_later` is set, whoever set it commits.
    """

    def __init__(self, layout: Layout, lake_id: str, stores: Stores, settings: Settings) -> None:
        self.layout = layout
        self.settings = settings
        self.clock = Clock()
        self._lake_id = lake_id
        self._stores = stores
        self._is_child = False
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self.calls: deque[LogCall] = deque()
        self._rows: deque[Row] = deque()
        self._blocks: deque[Block] = deque()
        self._open: dict[tuple[str, int, str], object] = {}
        self._participants = 0
        self._journal = Journal(self.layout.wal, self._lake_id, new_id())
        self._io_lock = threading.RLock()
        self._commit_lock = threading.RLock()
        self._start_lock = threading.Lock()
        self._flush_wanted = threading.Event()
        self._commit_wanted = threading.Event()
        self._closing = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._faults: dict[str, BaseException] = {}
        self._losses: list[BaseException] = []
        self._points_since_seal = 0
        self.commits_later = False
        self.running = False
        self.alarm = False

    @property
    def writer_id(self) -> str:
        return self._journal.writer

    def open_run(self, run_id: str, attempt: int, holder: object) -> str:
        """Name a run in every further segment, so that a crash can be told from an end; keeps its holder alive.

        Returns:
            The name under which this holder takes part in the run.
        """
        with self._start_lock:
            self._participants += 1
            participant = f"{self.writer_id}/{self._participants}"
            self._open[(run_id, attempt, participant)] = holder
        return participant

    def close_run(self, run_id: str, attempt: int, participant: str) -> None:
        """Stop naming a run; its end must be among the rows already."""
        self._open.pop((run_id, attempt, participant), None)

    @property
    def open_holders(self) -> list[object]:
        """Who has a run open, in the order they opened it."""
        return list(self._open.values())

    def add_rows(self, table: str, rows: Sequence[dict[str, object]]) -> None:
        """Take rows for any table but metrics; they are on disk within a flush interval."""
        self._rows.extend((table, row) for row in rows)
        self.ensure_started()

    def write_rows(self, groups: Sequence[tuple[str, Sequence[dict[str, object]]]], drop: Callable[[], None]) -> None:
        """Flush, then return once rows of several tables survive a crash, all of them.

        Raises:
            StorageError: the disk refused. None of the rows is kept, and `drop` has been called; but where even that
                was refused it has not, and they are kept in memory and tried again every second.
        """
        uninterrupted(lambda: self._write_rows(groups, drop))

    def _write_rows(self, groups: Sequence[tuple[str, Sequence[dict[str, object]]]], drop: Callable[[], None]) -> None:
        batches = [batch for table, rows in groups for batch in packed(table, rows)]
        self.ensure_started()
        with self._io_lock:
            is_ours = False
            try:
                self._flush()
                is_ours = True
                self._journal.sync_all_or_none(batches, tuple(self._open))
            except StorageError:
                if not (is_ours and self._journal.unsynced):
                    drop()
                raise

    def add_block(self, block: Block) -> None:
        """Take many points at once; waits for the disk while too many are pending."""
        self._blocks.append(block)
        self.ensure_started()
        if sum(len(pending.values) for pending in tuple(self._blocks)) > self.settings.max_pending_points:
            self.flush()

    def ensure_started(self) -> None:
        """Start the threads at the first row of this process, and again should one have died."""
        if self.running:
            return
        with self._start_lock:
            works = {"flush": self._flush_forever}
            if not self._is_child:
                works["commit"] = self._commit_forever
            elif not self._threads:
                _at_exit_of_child(self._leave)
            self.running = True
            for name, work in works.items():
                if name not in self._threads or not self._threads[name].is_alive():
                    self._threads[name] = self._thread(name, work)
                    self._threads[name].start()

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised at the next call, which starts the thread again
                self.running = False
                self._set_fault(name, error)

        return threading.Thread(target=guarded, name=f"ckptlake-{name}", daemon=True)

    def wake(self) -> None:
        """Ask for a flush soon, without waiting for it."""
        self._flush_wanted.set()

    def throttle(self) -> None:
        """Wait until the disk has caught up with the loop, where that is more than memory should hold.

        Raises:
            StorageError: it cannot catch up.
        """
        if len(self.calls) > self.settings.max_pending_calls:
            self.flush()

    def raise_alarm(self) -> None:
        """Raise what the threads met since the last call, once."""
        self.alarm = False
        losses, self._losses = self._losses, []
        errors = [*losses, *self._faults.values()]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"and: {other}")
            raise errors[0]

    def _set_fault(self, name: str, error: BaseException) -> None:
        is_new = name not in self._faults
        self._faults[name] = error
        if is_new:
            self.alarm = True
            logger.error("%s", error)

    def flush(self) -> None:
        """Return once everything logged so far survives a crash.

        Raises:
            StorageError: the disk refused; the rows are kept in memory and tried again every second.
        """
        uninterrupted(self._flush)

    def _flush(self) -> None:
        with self._io_lock:
            try:
                self._journal.sync(tuple(self._open))
                self._drain()
                self._journal.sync(tuple(self._open))
                if self._points_since_seal >= self.settings.commit_points:
                    self._seal()
                    self._commit_wanted.set()
            except StorageError as error:
                self._set_fault("flush", error)
                raise
            self._faults.pop("flush", None)

    def _seal(self) -> None:
        self._journal.seal(tuple(self._open))
        self._points_since_seal = 0

    def _drain(self) -> None:
        """Hand everything pending to the journal, points first: who sees a run's end sees all its points."""
        rows: dict[str, list[dict[str, object]]] = {}
        for table, row in take_all(self._rows):
            rows.setdefault(table, []).append(row)
        while chunk := take_calls(self.calls):
            try:
                batch = self._pack(chunk)
            except BaseException:
                self.calls.extendleft(reversed(chunk))
                self._rows.extendleft((table, row) for table, found in rows.items() for row in reversed(found))
                raise
            self._points_since_seal += sum(len(call[1]) for call in chunk)
            self._journal.add(batch)
        while self._blocks:
            block = self._blocks.popleft()
            self._points_since_seal += len(block.values)
            self._journal.add(pack_block(block))
        for table, found in rows.items():
            for batch in packed(table, found):
                self._journal.add(batch)

    def _pack(self, calls: list[LogCall]) -> pa.RecordBatch:
        try:
            return pack_calls(calls)
        except UnreadableTensorError:
            readable, errors = split_readable(calls)
            self._lose(*errors)
            return pack_calls(readable)

    def commit(self) -> None:
        """Flush, bring all rows of this process to the Delta tables, and look after small files.

        Raises:
            StorageError: the disk refused; the rows are safe in the write-ahead segments.
        """
        if not self.commits_later:
            uninterrupted(self._flush if self._is_child else self._commit)

    def _commit(self) -> None:
        with self._commit_lock:
            with self._io_lock:
                self._flush()
                self._seal()
                sealed = list(self._journal.sealed)
            try:
                for segment in sealed:
                    self._commit_one(segment)
            except CkptlakeError as error:
                self._set_fault("commit", error)
                raise
            self._faults.pop("commit", None)

    def _commit_one(self, segment: SegmentWriter) -> None:
        before = {name: store.version() for name, store in self._stores.items()}
        with storage_errors("commit a segment", segment.path, GOES_ON):
            touched = self._commit_contents(segment)
        with self._io_lock:
            self._journal.drop(segment)
        if self.settings.auto_compact:
            for name in touched:
                try:
                    upkeep(self._stores[name], before[name])
                except CkptlakeError as error:
                    logger.warning("small files of %s stay as they are: %s", name, error)

    def _commit_contents(self, segment: SegmentWriter) -> set[str]:
        """Commit what can be read of a segment; what the disk has let rot is set aside and raises the alarm."""
        try:
            contents = read_segment(segment.path)
        except DamagedSegmentError as error:
            set_aside(self.layout, segment.path, 0, str(error))
            self._lose(error)
            return set()
        if contents.damage is not None and not segment.broken:
            place = set_aside(self.layout, segment.path, contents.sound_bytes, contents.damage)
            self._lose(DamagedSegmentError(f"{segment.path.name}: {contents.damage}; the rest is set aside in {place}"))
        return commit_segments(self._stores, [contents])

    def _lose(self, *errors: CkptlakeError) -> None:
        for error in errors:
            self.report(error)

    def report(self, error: BaseException) -> None:
        """Have an error of the background raised at the next call, once."""
        self._losses.append(error)
        self.alarm = True

    def withdraw(self, error: BaseException) -> None:
        """Take back an error that its finder has raised already."""
        if error in self._losses:
            self._losses.remove(error)

    def recover(self) -> Recovery:
        """Commit what writers that have died left behind.

        Raises:
            StorageError: the disk refused; the segments stay for the next try.
        """
        return uninterrupted(self._recover)

    def _recover(self) -> Recovery:
        with self._commit_lock:
            return recover(self.layout, self._stores, {self.writer_id}, self._lake_id)

    def _flush_forever(self) -> None:
        while not self._closing.is_set():
            self._flush_wanted.wait(self.settings.flush_interval_s)
            self._flush_wanted.clear()
            self.clock.resync()
            with contextlib.suppress(StorageError):
                self._flush()

    def _commit_forever(self) -> None:
        self._quietly(self._recover)
        while not self._closing.is_set():
            self._commit_wanted.wait(self.settings.commit_interval_s)
            self._commit_wanted.clear()
            if not self._closing.is_set():
                self._quietly(self._commit)
                self._quietly(self._recover)

    def _quietly(self, step: Callable[[], object]) -> None:
        """Leave a failed commit or recovery to the next interval; a failed commit has set the alarm."""
        try:
            step()
        except CkptlakeError as error:
            logger.warning("%s; trying again in %.0f s", error, self.settings.commit_interval_s)

    def close(self) -> None:
        """Commit everything, stop the threads and give up the segments' locks.

        Raises:
            StorageError: the disk refused; what was flushed stays in segments for the next process.
        """
        self._closing.set()
        self._flush_wanted.set()
        self._commit_wanted.set()
        try:
            if self.running:
                self.commit()
        finally:
            with self._io_lock:
                self._journal.abandon()
        for thread in self._threads.values():
            if thread is not threading.current_thread():
                thread.join(timeout=5)
        self.running = False

    def after_fork_in_child(self) -> None:
        """Begin anew: the parent keeps its pending rows, its segment with the lock, and its threads."""
        self._is_child = True
        self._begin()

    def _leave(self) -> None:
        try:
            self.flush()
        finally:
            self._journal.abandon()


def _at_exit_of_child(leave: Callable[[], None]) -> None:
    """Run `leave` when a worker of multiprocessing ends; such a process skips `atexit`."""
    worker = if_imported("multiprocessing.util")
    if worker is not None:
        worker.Finalize(None, leave, exitpriority=0)


def _begin_children() -> None:
    for writer in tuple(_alive):
        writer.after_fork_in_child()


os.register_at_fork(after_in_child=_begin_children)
