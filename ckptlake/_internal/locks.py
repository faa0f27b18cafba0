"""Advisory whole-file locks that a crash releases.

`flock` belongs to an open file, so a lock taken here is not lost when the same process opens and
closes the file elsewhere, and a file renamed while locked stays locked.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptlake.errors import StorageError

if sys.platform == "win32":
    raise ImportError("ckptlake writes with POSIX file locks: use Linux, macOS or WSL")

import fcntl

_HELD = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file, or return False if somebody holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


@contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file at `path` for the block.

    Raises:
        StorageError: somebody has held it for `timeout_s` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait(descriptor, path, timeout_s)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` for the block if nobody else does; yields whether it is held."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    pause = 0.0005
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            raise StorageError(
                f"the lock {path} has been held for {timeout_s:.0f} s; if no process writes to this lake, "
                "delete that file and try again"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)
