"""Durable file operations: data, then name, then directory."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ckptlake.errors import ReadOnlyLakeError, StorageError

PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet."""
_ABANDONED_AFTER_S = 3600.0
_READ_ONLY = {"EACCES", "EPERM", "EROFS"}
GOES_ON = ", writing goes on by itself"
"""How an error ends whose rows are kept and tried again by the writer."""
_TRY_AGAIN = " and try again"


def sync_data(descriptor: int) -> None:
    """Force a file's data to the disk."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Force a closed file's data and size to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Force a directory's entries to the disk."""
    sync_file(path)


def write_all(descriptor: int, payload: bytes | memoryview) -> None:
    """Write the whole of `payload`, however many calls that takes."""
    view = memoryview(payload)
    while view:
        view = view[os.write(descriptor, view) :]


def write_once(path: Path, payload: bytes) -> bool:
    """Write a file that must not exist yet, whole or not at all; False if somebody else was first."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, payload)
        os.fsync(descriptor)
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def write_anew(path: Path, *parts: bytes | memoryview, durable: bool = True) -> None:
    """Write a file in the place of what is there, in one step; unless `durable`, a power cut may leave it torn."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for part in parts:
            write_all(descriptor, part)
        if durable:
            os.fsync(descriptor)
        partial.rename(path)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    if durable:
        sync_directory(path.parent)


def delete_abandoned(directory: Path) -> None:
    """Delete files of a directory that somebody began an hour ago and has not finished."""
    horizon = time.time() - _ABANDONED_AFTER_S
    for path in directory.glob(f".*{PARTIAL}"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < horizon:
                path.unlink()


@contextmanager
def storage_errors(action: str, path: Path, then: str = _TRY_AGAIN) -> Iterator[None]:
    """Turn the operating system's refusals into errors that say what to do, and what then.

    Raises:
        ReadOnlyLakeError: the process may not write there.
        StorageError: any other refusal, such as a full disk.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error, then) from error


def storage_error(action: str, path: Path, error: OSError, then: str = _TRY_AGAIN) -> StorageError:
    """Return the error to raise for a refusal met while doing `action` at `path`."""
    name = errno.errorcode.get(error.errno or 0, "")
    if name in _READ_ONLY:
        return ReadOnlyLakeError(
            f"cannot {action} at {path}: {error.strerror}; open a lake in a directory you may write, "
            "or mend its permissions"
        )
    remedy = "free space on that disk" if name in {"ENOSPC", "EDQUOT"} else "check that disk"
    return StorageError(f"cannot {action} at {path}: {error.strerror or error}; {remedy}{then}")
