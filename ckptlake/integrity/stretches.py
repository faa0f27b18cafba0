"""Stretches of files read to be compared, without a copy where that is safe.

A stretch is mapped only where the system can bring all of it into memory first, and say so if it cannot: where a disk
does not read a sector, touching the mapped page would end the process. Everywhere else it is read, which reports that
as an error.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from ckptlake.errors import DamagedCheckpointError

BLOCK_BYTES = 512 << 10
"""What stays in a core's cache between being read and being hashed."""

_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14, which the standard library does not name


def read_stretch(path: Path, start: int, stop: int, buffer: memoryview) -> Iterator[memoryview]:
    """Yield the bytes of a file from `start` to `stop` in blocks, each valid until the next.

    Args:
        path: the file.
        start: the first byte.
        stop: one past the last.
        buffer: where they may be read to.

    Raises:
        DamagedCheckpointError: the file ends before them.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mapped = mapped_stretch(descriptor, start, stop)
        if mapped is None:
            yield from _copied(descriptor, path, start, stop, buffer)
            return
        try:
            yield memoryview(mapped)[start - stop :]
        finally:
            with contextlib.suppress(BufferError):  # whoever still looks at the block unmaps it in the end
                mapped.close()
    finally:
        os.close(descriptor)


def mapped_stretch(descriptor: int, start: int, stop: int) -> mmap.mmap | None:
    """Return a mapping that ends with these bytes of a file, all of them in memory, or None where that fails."""
    if stop <= start:
        return None
    first = start - start % mmap.ALLOCATIONGRANULARITY
    try:
        mapped = mmap.mmap(descriptor, stop - first, prot=mmap.PROT_READ, offset=first)
        mapped.madvise(_POPULATE_READ)
    except (OSError, ValueError):
        return None
    return mapped


def _copied(descriptor: int, path: Path, start: int, stop: int, buffer: memoryview) -> Iterator[memoryview]:
    while start < stop:
        got = os.preadv(descriptor, [buffer[: stop - start]], start)
        if not got:
            raise DamagedCheckpointError(f"{path} is cut short: it ends before its byte {stop}")
        yield buffer[:got]
        start += got
