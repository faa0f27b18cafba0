"""Where the search index is kept: a file that may be deleted at any time, or memory where no file can be.

The file is a derived thing, so it is not forced to the disk, and what is wrong with it is mended by making it anew.
Each use opens it for itself: nothing is held over a fork, and a file that was deleted or put in its place by others
is never taken for the one that was open before.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from ckptlake.query.search_index import FORMAT, SearchIndex

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
Work = Callable[["OpenIndex"], Answer]

_TIMEOUT_S = 120.0
_READ_TIMEOUT_S = 1.0
_REFUSALS = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""What SQLite answers where nothing is wrong with the file itself."""


class OpenIndex:
    """An index for the length of one use."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.index = SearchIndex(connection)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing the index during the block; commit at its end."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            yield


@dataclass(slots=True)
class _Memory:
    """An index in the memory of one process."""

    pid: int
    connection: sqlite3.Connection
    lock: threading.RLock = field(default_factory=threading.RLock)


class IndexFile:
    """The search index of one lake."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: _Memory | None = None

    def use(self, work: Work[Answer]) -> Answer:
        """Return what `work` returns of the index, which may be empty; it is done again where the file was damaged."""
        memory = self._memory
        if memory is None or memory.pid != os.getpid():
            for _ in range(2):
                try:
                    return self._use_file(work)
                except (OSError, sqlite3.Error) as error:
                    if isinstance(error, OSError) or _code(error) in _REFUSALS:
                        logger.info("runs are searched in memory, as %s cannot be used: %s", self._path, error)
                        break
                    logger.warning("the search index %s was damaged (%s): it is made anew", self._path, error)
            memory = self._memory = _Memory(os.getpid(), self._copied())
        with memory.lock:
            return work(OpenIndex(memory.connection))

    def _use_file(self, work: Work[Answer]) -> Answer:
        self._path.parent.mkdir(exist_ok=True)
        with closing(_connect(str(self._path), _TIMEOUT_S)) as connection:
            opened = self._identity()
            try:
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("PRAGMA journal_mode = TRUNCATE")
                connection.execute("PRAGMA cache_spill = OFF")
                _prepare(connection)
                return work(OpenIndex(connection))
            except sqlite3.Error as error:
                if _code(error) not in _REFUSALS and opened == self._identity():
                    self._discard()
                raise

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _discard(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _copied(self) -> sqlite3.Connection:
        """Return an index in memory, with what a file that can only be read holds."""
        memory = _connect(":memory:", _TIMEOUT_S)
        try:
            with closing(_connect(f"file:{quote(str(self._path))}?mode=ro", _READ_TIMEOUT_S)) as file:
                # A backup would wait for a lock for ever; one that is read already has it.
                file.execute("BEGIN")
                file.execute("SELECT count(*) FROM stamps").fetchone()
                file.backup(memory)
            _prepare(memory)
        except sqlite3.Error as error:
            logger.debug("nothing is taken over from %s: %s", self._path, error)
            memory.close()
            memory = _connect(":memory:", _TIMEOUT_S)
            _prepare(memory)
        return memory


def _connect(name: str, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        name, timeout=timeout_s, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
    )


def _prepare(connection: sqlite3.Connection) -> None:
    """Make an empty index in a new file.

    Raises:
        sqlite3.DatabaseError: the file holds something else, or an index of another format.
    """
    if _format(connection) == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        found = _format(connection)
        if found not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"its format is {found}, not {FORMAT}")
        if found == 0:
            SearchIndex.create(connection)


def _format(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; what Python itself raises has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
