"""Answers kept for the next time the same is asked of the same rows.

A snapshot never changes, and an answer is kept under the snapshots and the live rows it was made of; so it is never
out of date, and it stays until there is no more room.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ckptlake.query.answers import Answer, Key
from ckptlake.query.cache_files import CacheFiles
from ckptlake.query.row_files import RowFiles

_LARGEST_SHARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """What a cache has done since its lake was opened in this process, and what it holds.

    Attributes:
        hits: questions answered by what was kept, in memory or on disk.
        misses: questions that were computed, and could have been kept.
        uncacheable: questions that never are, because the next answer may be another.
        entries: answers in memory.
        size_bytes: the memory they take.
        max_bytes: the most they may take; 0 if the cache is switched off.
        disk_entries: answers on disk, of all processes.
        disk_bytes: the space they take.
    """

    hits: int
    misses: int
    uncacheable: int
    entries: int
    size_bytes: int
    max_bytes: int
    disk_entries: int
    disk_bytes: int


class ResultCache:
    """The answers of one opened lake that were asked for last, in memory and perhaps on disk.

    Threads may share it, and a forked child goes on with a copy of what its parent had in memory.

    Args:
        max_bytes: the memory for answers; 0 switches the cache off.
        files: where answers are kept on disk.
        rows: what is on disk to open the lake sooner.
    """

    def __init__(self, max_bytes: int, files: CacheFiles | None = None, rows: RowFiles | None = None) -> None:
        self._max_bytes = max_bytes
        self._files = files if max_bytes else None
        self._rows = rows
        self._entries: OrderedDict[bytes, tuple[Answer, int]] = OrderedDict()
        self._size_bytes = 0
        self._hits = self._misses = self._uncacheable = 0
        self._lock = threading.Lock()
        self._process = os.getpid()

    @property
    def is_on(self) -> bool:
        return self._max_bytes > 0

    def info(self) -> CacheInfo:
        """Return counts and sizes.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> for _ in range(3):
        ...     _ = lake.sql("from runs")
        >>> lake.cache.info().hits
        2
        """
        disk_entries, disk_bytes = self._files.usage() if self._files is not None else (0, 0)
        with self._own():
            return CacheInfo(
                hits=self._hits,
                misses=self._misses,
                uncacheable=self._uncacheable,
                entries=len(self._entries),
                size_bytes=self._size_bytes,
                max_bytes=self._max_bytes,
                disk_entries=disk_entries,
                disk_bytes=disk_bytes,
            )

    def clear(self) -> None:
        """Forget every answer, in memory and on disk, also those that other processes have put there.

        What lies on disk to open the lake sooner goes as well, and is made again when it is asked for often.

        Raises:
            ReadOnlyLakeError: there are files that this process may not delete.
            StorageError: the disk refused.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> _ = lake.sql("from runs")
        >>> lake.cache.clear()
        >>> lake.cache.info().entries
        0
        """
        with self._own():
            self._entries.clear()
            self._size_bytes = 0
        for files in (self._files, self._rows):
            if files is not None:
                files.clear()

    def find(self, key: Key | None) -> Answer | None:
        """Return the answer kept under a key, or None; a question without a key has none."""
        if key is None:
            with self._own():
                self._uncacheable += self.is_on
            return None
        answer = self._recall(key)
        if answer is None and self._files is not None:
            answer = self._files.read(key.file_digest())
            if answer is not None:
                self._remember(key, answer)
        with self._own():
            self._hits += answer is not None
            self._misses += answer is None
        return answer

    def keep(self, key: Key, answer: Answer) -> None:
        """Keep an answer if it is not too large; those not asked for longest make room for it."""
        self._remember(key, answer)
        if self._files is not None:
            self._files.write(key.file_digest(), answer)

    def _recall(self, key: Key) -> Answer | None:
        with self._own():
            if key.digest not in self._entries:
                return None
            self._entries.move_to_end(key.digest)
            return self._entries[key.digest][0]

    def _remember(self, key: Key, answer: Answer) -> None:
        size_bytes = answer.size_bytes
        if size_bytes > self._max_bytes // _LARGEST_SHARE:
            return
        with self._own():
            _, known_bytes = self._entries.pop(key.digest, (None, 0))
            self._entries[key.digest] = (answer, size_bytes)
            self._size_bytes += size_bytes - known_bytes
            while self._size_bytes > self._max_bytes:
                _, (_, freed_bytes) = self._entries.popitem(last=False)
                self._size_bytes -= freed_bytes

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Hold the lock; a fork may have left it with a thread that the child does not have."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()
            self._size_bytes = sum(size_bytes for _, size_bytes in self._entries.values())
        with self._lock:
            yield
