"""Memory that lies on a disk: for tensors that have to be put together and may be larger than what is free."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

from ckptlake._internal.files import storage_errors

_ARENA_BYTES = 64 << 20
_ALIGNMENT = 64


class Scratch:
    """Hands out writable memory over files that have no name and go away with the last use of it.

    Args:
        directory: on whose disk the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._arena = memoryview(b"")
        self._used = 0

    def take(self, size_bytes: int) -> memoryview:
        """Return `size_bytes` of zeros, aligned.

        Raises:
            StorageError: the disk has no room for them.
        """
        start = self._used + -self._used % _ALIGNMENT
        if start + size_bytes > len(self._arena):
            self._arena, start = self._begin(max(size_bytes, _ARENA_BYTES)), 0
        self._used = start + size_bytes
        return self._arena[start : self._used]

    def copy(self, content: memoryview) -> memoryview:
        """Return a copy of bytes that may be written to."""
        taken = self.take(content.nbytes)
        taken[:] = content
        return taken

    def _begin(self, size_bytes: int) -> memoryview:
        with (
            storage_errors("put tensors together", self._directory),
            tempfile.TemporaryFile(dir=self._directory) as file,
        ):
            if hasattr(os, "posix_fallocate"):  # a hole that cannot be filled later would end the process
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            else:
                os.ftruncate(file.fileno(), size_bytes)
            return memoryview(mmap.mmap(file.fileno(), size_bytes))
