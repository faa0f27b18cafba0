"""Rows that take long to make, kept on disk for lakes opened later: one sealed file a kind of rows.

It tells what its rows were made of, by a SHA-256. A newer file takes its place, so no kind ever has more than one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from ckptlake._internal.files import storage_errors
from ckptlake._internal.sealed import read_sealed, sealed, write_sealed

logger = logging.getLogger(__name__)
_MAGIC = b"CKPTROWS"
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
        found = read_sealed(self._path(name), _MAGIC, self._made_of(origin))
        return None if found is None else found[0]

    def write(self, name: str, origin: Origin, rows: pa.Table) -> None:
        """Keep rows, if the disk takes them."""
        try:
            write_sealed(self._path(name), sealed(_MAGIC, rows, self._made_of(origin)))
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

    def _made_of(self, origin: Origin) -> dict[str, str]:
        return {"made_of": hashlib.sha256(json.dumps([origin, self._context]).encode()).hexdigest()}
