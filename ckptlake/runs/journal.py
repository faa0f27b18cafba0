"""A writer's place in the write-ahead tier: batches in, acknowledged frames out, nothing lost on failure."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ckptlake._internal.files import GOES_ON, storage_errors
from ckptlake.errors import InvalidInputError
from ckptlake.runs import wal
from ckptlake.runs.wal import OpenRuns, SegmentHeader, SegmentName, SegmentWriter


class Journal:
    """The segments of one writer: at most one live, and sealed ones that wait for their commit.

    A batch given to `add` stays in memory until `sync` has it on the disk; after a refused write or sync
    it is written again under the same frame number, so a commit meets it once. Not safe between threads.
    """

    def __init__(self, directory: Path, lake_id: str, writer: str) -> None:
        self.writer = writer
        self.sealed: list[SegmentWriter] = []
        self._directory = directory
        self._lake_id = lake_id
        self._host = socket.gethostname()
        self._live: SegmentWriter | None = None
        self._sequence = 0
        self._next_frame = 1
        self._to_write: deque[pa.RecordBatch] = deque()
        self._to_sync: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch to be written at the next `sync`, in as many frames as its size asks for."""
        if batch.nbytes > wal.MAX_PAYLOAD_BYTES // 2 and batch.num_rows > 1:
            half = batch.num_rows // 2
            self.add(batch.slice(0, half))
            self.add(batch.slice(half))
        else:
            self._to_write.append(batch)

    @property
    def unsynced(self) -> bool:
        return bool(self._to_write or self._to_sync)

    @property
    def has_live_frames(self) -> bool:
        return self._live is not None and self._live.num_frames > 0

    def sync(self, open_runs: OpenRuns) -> None:
        """Write and sync all batches; when this returns they survive a crash.

        Raises:
            StorageError: the disk refused; the batches are kept and the next call tries again.
            InvalidInputError: a single row is too big for any frame; it is dropped, others are kept.
        """
        with storage_errors("write the write-ahead segment", self._directory, GOES_ON):
            while self._to_write:
                segment = self._segment(open_runs)
                try:
                    segment.append(self._to_write[0])
                except InvalidInputError:
                    self._to_write.popleft()
                    raise
                self._to_sync.append(self._to_write.popleft())
            if self._live is not None and self._to_sync:
                self._sync_live(self._live)

    def sync_all_or_none(self, batches: Sequence[pa.RecordBatch], open_runs: OpenRuns) -> None:
        """Write and sync batches of which all or none shall be kept; nothing else may be unsynced.

        Raises:
            StorageError: the disk refused. None is kept if nothing is `unsynced` now; otherwise they could not be
                taken back, and the next sync tries again.
        """
        sealed = len(self.sealed)
        for batch in batches:
            self.add(batch)
        try:
            self.sync(open_runs)
        except BaseException:
            # What was left in a sealed segment may be read by whoever commits it.
            if len(self.sealed) == sealed and (self._live is None or self._live.take_back()):
                self._to_write.clear()
                self._to_sync.clear()
            raise

    def _sync_live(self, segment: SegmentWriter) -> None:
        try:
            segment.sync()
        except OSError:
            self._begin_anew()
            raise
        self._to_sync.clear()
        self._next_frame = segment.next_frame

    def _begin_anew(self) -> None:
        """Leave the live segment as it is; what was not synced is written again to the next, numbers and all."""
        self._to_write.extendleft(reversed(self._to_sync))
        self._to_sync.clear()
        self._seal_live()

    def _segment(self, open_runs: OpenRuns) -> SegmentWriter:
        if self._live is not None and self._live.broken:
            self._begin_anew()
        if self._live is None:
            self.begin(open_runs)
        assert self._live is not None
        return self._live

    def begin(self, open_runs: OpenRuns) -> None:
        """Seal the live segment if there is one and begin another that names the open runs."""
        header = SegmentHeader(
            self._lake_id, self.writer, self._host, os.getpid(), self._next_frame + len(self._to_sync), open_runs
        )
        with storage_errors("begin a write-ahead segment", self._directory, GOES_ON):
            fresh = SegmentWriter(self._directory, SegmentName(self.writer, self._sequence), header)
        self._sequence += 1
        self._seal_live()
        self._live = fresh

    def seal(self, open_runs: OpenRuns) -> None:
        """End the live segment so that it can be committed; while runs are open another begins."""
        if self.has_live_frames and open_runs:
            self.begin(open_runs)
        elif not open_runs:
            self._seal_live()

    def _seal_live(self) -> None:
        if self._live is not None:
            self.sealed.append(self._live)
            self._live = None

    def drop(self, segment: SegmentWriter) -> None:
        """Delete a sealed segment whose rows are all committed."""
        segment.path.unlink(missing_ok=True)
        segment.release()
        self.sealed.remove(segment)

    def abandon(self) -> None:
        """Give up all locks and leave the segments to whoever recovers them."""
        self._seal_live()
        for segment in self.sealed:
            segment.release()
        self.sealed.clear()
