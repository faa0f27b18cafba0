"""Rows that take long to make, kept on disk for lakes opened later: one sealed file a kind of rows.

A file holds a SHA-256 of what its rows were made of (32 bytes) and the rows as an Arrow stream. A newer one takes its
place, so no kind ever has more than one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from ckptlake._internal.files import storage_errors
from ckptlake._internal.sealed import sealed, unsealed, write_whole

logger = logging.getLogger(__name__)
_MAGIC = b"CKPTROWS"
_DIGEST_BYTES = 32
Origin = tuple[object, ...]
"""What rows were made of, as JSON can tell it; the same rows are made of the same."""


class RowFiles:
    """A directory of rows; what cannot be read or written is as if it were not there.

    Args:
        directory: where they lie.
        context: what all rows depend on, such as the version of DuckDB.
    """

    def __init__(self, directory: Path, context: Mapping[str, str]) -> None:
        self._directory = directory
        self._context = dict(context)

    def read(self, name: str, origin: Origin) -> pa.Table | None:
        """Return the rows of a name, or None where those kept were not made of `origin`."""
        try:
            with pa.OSFile(str(self._path(name))) as file:
                body = unsealed(_MAGIC, memoryview(file.read_buffer()))
            if body is None or body[:_DIGEST_BYTES] != self._digest(origin):
                return None
            with pa.ipc.open_stream(pa.py_buffer(body[_DIGEST_BYTES:])) as stream:
                rows = stream.read_all()
            rows.validate(full=True)  # the file may be anybody's
            return rows
        except (OSError, pa.ArrowException, ValueError) as error:
            logger.debug("no rows are kept as %s: %s", name, error)
            return None

    def write(self, name: str, origin: Origin, rows: pa.Table) -> None:
        """Keep rows, if the disk takes them."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        try:
            write_whole(self._path(name), sealed(_MAGIC, [self._digest(origin), memoryview(sink.getvalue())]))
        except OSError as refusal:
            logger.debug("rows are not kept as %s: %s", name, refusal)

    def clear(self) -> None:
        """Delete all files of the directory.

        Raises:
            StorageError: the disk refused.
        """
        with storage_errors("clear the cache", self._directory):
            for path in self._directory.glob("*"):
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.rows"

    def _digest(self, origin: Origin) -> bytes:
        return hashlib.sha256(json.dumps([origin, self._context]).encode()).digest()
