"""Durable file operations: data, then name, then directory."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptlake.errors import ReadOnlyLakeError, StorageError

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
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
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


def write_anew(path: Path, payload: bytes) -> None:
    """Write a file in the place of what is there, in one step."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, payload)
        os.fsync(descriptor)
        partial.rename(path)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


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
