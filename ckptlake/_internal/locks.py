"""Advisory whole-file locks that a crash releases.

`flock` belongs to an open file, so a lock taken here is not lost when the same process opens and
closes the file elsewhere, and a file renamed while locked stays locked. A forked child would keep a lock
alive with its copy of the descriptor; it closes those copies at once.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ckptlake.errors import StorageError

if sys.platform == "win32":
    raise ImportError("ckptlake writes with POSIX file locks: use Linux, macOS or WSL")

import fcntl

_TAKEN_BY_OTHERS = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}
_held: set[int] = set()


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of an open file until `release`, or return False if somebody holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN_BY_OTHERS:
            return False
        raise
    _held.add(descriptor)
    return True


def lock_together(descriptor: int) -> None:
    """Take the lock of an open file together with others that share it, waiting for whoever has it alone."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _held.add(descriptor)


def lock_alone(descriptor: int) -> None:
    """Take the exclusive lock of an open file until `release`, waiting for everybody else."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    _held.add(descriptor)


def release(descriptor: int) -> None:
    """Give up the lock of an open file, if it is held, and close the file."""
    if descriptor in _held:
        _held.discard(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


@contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file at `path` for the block.

    Raises:
        StorageError: somebody has held it for `timeout_s` seconds.
    """
    with closing(attempts(path, timeout_s)) as tries:
        for held in tries:
            if held:
                yield
                return


@contextmanager
def exclusive_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` for the block if nobody else does; yields whether it is held."""
    descriptor = open_lock(path)
    try:
        yield try_lock(descriptor)
    finally:
        release(descriptor)


def attempts(path: Path, timeout_s: float) -> Generator[bool, None, None]:
    """Yield whether the lock file at `path` is held now, trying on until it is or the caller stops.

    Close the iteration to give the lock up.

    Raises:
        StorageError: somebody has held it for `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0005
    descriptor = open_lock(path)
    try:
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the lock {path} has been held for {timeout_s:.0f} s; if no process writes to this lake, "
                    "delete that file and try again"
                )
            yield False
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.01)
        yield True
    finally:
        release(descriptor)


def open_lock(path: Path) -> int:
    """Open a lock file, creating it where there is none."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _begin_child() -> None:
    # A child that collected what its parent had open in DuckDB would run destructors that end it with a signal.
    gc.freeze()
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_begin_child)
