"""Answers kept on disk for other processes and later ones: one sealed file an answer, as Arrow IPC.

A file holds the digest it is kept under (32 bytes), the size of the Arrow stream (8 bytes, little-endian), the stream,
and DuckDB's types of the columns as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ckptlake._internal.files import storage_errors
from ckptlake._internal.sealed import PARTIAL, sealed, unsealed, write_whole
from ckptlake.query.answers import Answer

logger = logging.getLogger(__name__)
_MAGIC = b"CKPTANS1"
_HEAD_BYTES = 40
_SUFFIX = ".answer"
_ABANDONED_AFTER_S = 3600
_LARGEST_SHARE = 4
MOST_FILES = 4096
"""More would take longer to list than an answer takes to compute."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size_bytes: int
    used_ns: int


class CacheFiles:
    """A directory of answers that processes share; what cannot be read, written or counted is as if it were not there.

    The time of a file's last change is when it was last used.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def read(self, digest: str | None) -> Answer | None:
        """Return the answer kept under a digest, or None; a damaged file is deleted."""
        if digest is None:
            return None
        path = self._path(digest)
        try:
            with pa.OSFile(str(path)) as file:
                content = file.read_buffer()
        except OSError:
            return None
        answer = _unpacked(content, digest)
        with suppress(OSError):
            if answer is None:
                logger.debug("the cached answer %s is damaged and is deleted", path)
                path.unlink()
            else:
                os.utime(path)
        return answer

    def write(self, digest: str | None, answer: Answer) -> None:
        """Keep an answer if it is not too large and the disk takes it; those not used longest make room for it."""
        if digest is None or answer.rows.nbytes > self._max_bytes // _LARGEST_SHARE:
            return
        parts = _packed(answer, digest)
        if sum(map(len, parts)) > self._max_bytes // _LARGEST_SHARE:
            return
        try:
            write_whole(self._path(digest), parts)
            self._make_room()
        except OSError as refusal:
            logger.debug("an answer is not kept on disk: %s", refusal)

    def usage(self) -> tuple[int, int]:
        """Return how many answers there are, and their size in bytes."""
        files = list(self._files(_SUFFIX))
        return len(files), sum(file.size_bytes for file in files)

    def clear(self) -> None:
        """Delete every answer.

        Raises:
            StorageError: the disk refused.
        """
        with storage_errors("clear the cache", self._directory):
            for file in self._files(_SUFFIX, PARTIAL):
                file.path.unlink(missing_ok=True)

    def _make_room(self) -> None:
        long_ago_ns = time.time_ns() - _ABANDONED_AFTER_S * 10**9
        for file in self._files(PARTIAL):
            if file.used_ns < long_ago_ns:
                file.path.unlink(missing_ok=True)
        files = sorted(self._files(_SUFFIX), key=lambda file: (file.used_ns, file.path))
        size_bytes = sum(file.size_bytes for file in files)
        for at, file in enumerate(files):
            if size_bytes <= self._max_bytes and len(files) - at <= MOST_FILES:
                return
            file.path.unlink(missing_ok=True)
            size_bytes -= file.size_bytes

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest}{_SUFFIX}"

    def _files(self, *suffixes: str) -> Iterator[_File]:
        try:
            with os.scandir(self._directory) as entries:
                found = [entry for entry in entries if entry.name.endswith(suffixes)]
        except OSError:
            return
        for entry in found:
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                yield _File(Path(entry.path), status.st_size, status.st_mtime_ns)


def _packed(answer: Answer, digest: str) -> list[bytes | memoryview]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.rows.schema) as stream:
        stream.write_table(answer.rows)
    rows: memoryview = memoryview(sink.getvalue())
    head = bytes.fromhex(digest) + len(rows).to_bytes(8, "little")
    return sealed(_MAGIC, [head, rows, json.dumps(answer.kinds).encode()])


def _unpacked(content: pa.Buffer, digest: str) -> Answer | None:
    """Return the answer that a file holds, or None if it is damaged or another's."""
    body = unsealed(_MAGIC, memoryview(content))
    if body is None or body[:32] != bytes.fromhex(digest):
        return None
    rows_end = _HEAD_BYTES + int.from_bytes(body[32:_HEAD_BYTES], "little")
    try:
        with pa.ipc.open_stream(pa.py_buffer(body[_HEAD_BYTES:rows_end])) as stream:
            rows = stream.read_all()
        rows.validate(full=True)  # the file may be anybody's
        return Answer(rows, tuple(json.loads(bytes(body[rows_end:]))))
    except (pa.ArrowException, OSError, ValueError) as error:  # of another version of Arrow
        logger.debug("a cached answer cannot be read: %s", error)
        return None
