"""Answers kept on disk for other processes and later ones: one sealed file an answer.

It tells the digest that the answer is kept under, and DuckDB's types of the columns.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ckptlake._internal.files import PARTIAL, storage_errors
from ckptlake._internal.sealed import read_sealed, sealed, write_sealed
from ckptlake.query.answers import Answer

logger = logging.getLogger(__name__)
_MAGIC = b"CKPTANS2"
_SUFFIX = ".answer"
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
        found = read_sealed(path, _MAGIC, {"digest": digest})
        answer = None if found is None else _answer_of(*found)
        with suppress(OSError):
            if answer is None:
                path.unlink()
                logger.debug("the cached answer %s was damaged and is deleted", path)
            else:
                os.utime(path)
        return answer

    def write(self, digest: str | None, answer: Answer) -> None:
        """Keep an answer if it is not too large and the disk takes it; those not used longest make room for it."""
        if digest is None or answer.rows.nbytes > self._max_bytes // _LARGEST_SHARE:
            return
        parts = sealed(_MAGIC, answer.rows, {"digest": digest, "kinds": answer.kinds})
        if sum(map(len, parts)) > self._max_bytes // _LARGEST_SHARE:
            return
        try:
            write_sealed(self._path(digest), parts)
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


def _answer_of(rows: pa.Table, about: dict[str, Any]) -> Answer | None:
    """Return what a file holds as an answer, or None where it does not tell the type of every column."""
    kinds = about.get("kinds")
    if not isinstance(kinds, list) or len(kinds) != rows.num_columns:
        return None
    return Answer(rows, tuple(map(str, kinds)))
