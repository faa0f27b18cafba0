"""Which tensors a lake has already, by content; made anew from the manifests if it is lost or damaged.

One SQLite file beside the packs. It is a derived thing: an entry only says where to look, the pack named there
must exist to count, so the index is not forced to the disk and may be deleted at any time.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckptlake._internal.files import storage_errors
from ckptlake.errors import StorageError

logger = logging.getLogger(__name__)
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS blobs (digest BLOB PRIMARY KEY, quick BLOB, pack TEXT, offset INTEGER) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS blobs_by_quick ON blobs (quick);
    CREATE INDEX IF NOT EXISTS blobs_by_pack ON blobs (pack);
    CREATE TABLE IF NOT EXISTS state (complete INTEGER);
"""
_ASKED_AT_ONCE = 500
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Blob:
    """A tensor's content and where it lies.

    Attributes:
        digest: SHA-256 in hex.
        quick: its `quick_key`.
        pack: the pack that holds it, relative to the lake and without suffix.
        offset: its place in the data of that pack while it is uncompressed.
    """

    digest: str
    quick: bytes
    pack: str
    offset: int


class BlobIndex:
    """The index of one lake; `scan` yields all its blobs, to fill an index that is not there."""

    def __init__(self, path: Path, scan: Callable[[], Iterable[Blob]]) -> None:
        self._path = path
        self._scan = scan
        self._lock = threading.RLock()
        self._connection: tuple[int, sqlite3.Connection] | None = None

    def find_by_quick(self, keys: Sequence[bytes]) -> dict[bytes, list[Blob]]:
        """Return the blobs that may have the content of each key."""
        found: dict[bytes, list[Blob]] = {}
        for row in self._select("quick", keys):
            found.setdefault(row.quick, []).append(row)
        return found

    def may_have(self, key: bytes) -> bool:
        """Tell whether some blob may have the content of a key."""
        with self._opened() as connection:
            return connection.execute("SELECT 1 FROM blobs WHERE quick = ?", [key]).fetchone() is not None

    def find(self, digests: Sequence[str]) -> dict[str, Blob]:
        """Return the blobs with these digests, those that there are."""
        return {row.digest: row for row in self._select("digest", [bytes.fromhex(digest) for digest in digests])}

    def _select(self, column: str, keys: Sequence[bytes]) -> list[Blob]:
        with self._opened() as connection:
            rows: list[tuple[bytes, bytes, str, int]] = []
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                asked = keys[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(asked))
                query = f"SELECT digest, quick, pack, offset FROM blobs WHERE {column} IN ({marks})"  # noqa: S608
                rows += connection.execute(query, asked).fetchall()
            return [Blob(digest.hex(), quick, pack, offset) for digest, quick, pack, offset in rows]

    def knows(self, pack: str) -> bool:
        """Tell whether some blob is said to lie in a pack."""
        with self._opened() as connection:
            return connection.execute("SELECT 1 FROM blobs WHERE pack = ? LIMIT 1", [pack]).fetchone() is not None

    def add(self, blobs: Iterable[Blob]) -> None:
        """Add blobs; one whose digest is there already stays where it is."""
        with self._opened() as connection, connection:
            _insert(connection, blobs)

    def forget_packs(self, packs: Iterable[str]) -> None:
        """Forget everything that lies in these packs."""
        self._forget("pack", packs)

    def forget(self, digests: Iterable[str]) -> None:
        """Forget blobs, such as damaged ones: a later save then stores their content again."""
        self._forget("digest", map(bytes.fromhex, digests))

    def _forget(self, column: str, keys: Iterable[object]) -> None:
        """Delete rows, or the whole index where there is no room for that: what is forgotten makes room elsewhere."""
        try:
            with self._opened() as connection, connection:
                connection.executemany(f"DELETE FROM blobs WHERE {column} = ?", [(key,) for key in keys])  # noqa: S608
        except StorageError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ENOSPC:
                raise
            logger.info("the blob index is made anew at the next save: %s", error)
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock, storage_errors("use the blob index", self._path):
            connection = self._connect()
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                self.close()
                if isinstance(error, sqlite3.OperationalError) and "disk I/O" not in str(error):
                    raise _refusal(error) from error
                self._path.unlink(missing_ok=True)
                message = f"the blob index was damaged ({error}) and is made anew at the next save"
                raise OSError(None, message) from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._connection[0] == os.getpid() and self._path.exists():
            return self._connection[1]
        try:
            connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _refusal(error) from error
            logger.warning("the blob index %s is damaged (%s): it is made anew", self._path, error)
            self._path.unlink(missing_ok=True)
            connection = self._open()
        self._connection = (os.getpid(), connection)
        return connection

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_TIMEOUT_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.executescript(_SCHEMA)
            if connection.execute("SELECT count(*) FROM state").fetchone()[0] == 0:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    _insert(connection, self._scan())
                    connection.execute("INSERT INTO state VALUES (1)")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._lock:
            if self._connection is not None and self._connection[0] == os.getpid():
                with closing(self._connection[1]):
                    self._connection = None


def _refusal(error: sqlite3.OperationalError) -> OSError:
    """Return what SQLite was refused as what the system would have said."""
    number = errno.ENOSPC if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL else None
    return OSError(number, f"the blob index says: {error}")


def _insert(connection: sqlite3.Connection, blobs: Iterable[Blob]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO blobs VALUES (?, ?, ?, ?)",
        ((bytes.fromhex(blob.digest), blob.quick, blob.pack, blob.offset) for blob in blobs),
    )
