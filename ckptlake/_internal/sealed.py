"""Files that may go at any time: whole under a checksum, or as if they were not there.

A file starts with 8 bytes that say what it is and the xxh3_128 of all that follows. It gets its name when it is whole.
Nothing is synced: what a power cut leaves torn fails its checksum.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from xxhash import xxh3_128

from ckptlake._internal.files import write_all

PARTIAL = ".partial"
Parts = Sequence[bytes | memoryview]
_MAGIC_BYTES = 8
_HEAD_BYTES = 24


def sealed(magic: bytes, parts: Parts) -> list[bytes | memoryview]:
    """Return what a file of `parts` consists of."""
    return [magic + _checksum(parts), *parts]


def unsealed(magic: bytes, content: memoryview) -> memoryview | None:
    """Return what was sealed in the bytes of a file, or None where they are damaged or of another kind."""
    content = content.cast("B")  # Arrow's buffers are of signed bytes, which equal no others
    body = content[_HEAD_BYTES:]
    is_whole = content[:_MAGIC_BYTES] == magic and content[_MAGIC_BYTES:_HEAD_BYTES] == _checksum([body])
    return body if is_whole else None


def write_whole(path: Path, parts: Parts) -> None:
    """Write a file in the place of what is there, in one step; its directory is made if it is missing.

    Raises:
        OSError: the disk refused; what was there is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for part in parts:
                write_all(descriptor, part)
        finally:
            os.close(descriptor)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _checksum(parts: Parts) -> bytes:
    hashed = xxh3_128()
    for part in parts:
        hashed.update(part)
    return hashed.digest()
