"""The entries of a zip archive, found through its central directory and never unpacked to disk."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from ckptlake.errors import DamagedCheckpointError, UnsafeFileError

_LOCAL = struct.Struct("<4s22xHH")
_CENTRAL = struct.Struct("<4s4xHH4xIIIHHH8xI")
_END = struct.Struct("<4s6xHIIH")
_LOCATOR = struct.Struct("<4s4xQ4x")
_END64 = struct.Struct("<4s28xQQQ")
_LONGEST_COMMENT = 0xFFFF
_IN_EXTRA = 0xFFFFFFFF
_WIDE_SIZES = 1
_STORED, _DEFLATED, _ENCRYPTED = 0, 8, 1


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry: where its bytes lie, how they are stored, and what it says of them.

    Attributes:
        name: its path in the archive.
        start: its first stored byte, from the start of the archive.
        stored_bytes: how many bytes are stored.
        size_bytes: how many it has once inflated.
        deflated: whether it is compressed.
        crc32: the checksum of its bytes, or 0 where the writer left it out.
    """

    name: str
    start: int
    stored_bytes: int
    size_bytes: int
    deflated: bool
    crc32: int


def is_zip(data: memoryview) -> bool:
    """Tell whether a file begins as a zip archive does."""
    return bytes(data[:4]) == b"PK\x03\x04"


def read_entries(data: memoryview, source: str) -> dict[str, ZipEntry]:
    """Return the entries of an archive by name, in the order of its directory.

    Nothing is inflated. Sizes of 64 bits are understood, several disks and encryption are not.

    Args:
        data: the whole archive.
        source: how messages call it.

    Raises:
        DamagedCheckpointError: the archive is cut or malformed, or two entries have one name.
        UnsafeFileError: entries overlap, or one claims to be larger than the whole file.
    """
    try:
        count, position = _directory(data)
        entries: dict[str, ZipEntry] = {}
        for _ in range(count):
            entry, position = _entry(data, position)
            if entry.name in entries:
                raise ValueError(f"two entries called {entry.name!r:.80}")
            entries[entry.name] = entry
    except (struct.error, ValueError, LookupError, OverflowError) as error:
        raise DamagedCheckpointError(
            f"{source} is no whole zip archive of {len(data)} bytes: {error}; take an intact copy of it"
        ) from error
    for entry in entries.values():
        if max(entry.size_bytes, entry.stored_bytes) > len(data):
            raise UnsafeFileError(
                f"{source}: its entry {entry.name!r:.80} claims {entry.size_bytes} bytes, more than the whole file's "
                f"{len(data)}"
            )
        if entry.start + entry.stored_bytes > len(data):
            raise DamagedCheckpointError(f"{source}: its entry {entry.name!r:.80} reaches beyond the end of the file")
    if sum(entry.stored_bytes for entry in entries.values()) > len(data):
        raise UnsafeFileError(f"{source} is a zip archive whose entries overlap, so that little data stands for much")
    return entries


def inflate(data: memoryview, entry: ZipEntry, source: str) -> memoryview:
    """Return an entry's bytes: a view of the archive, or a copy of them inflated.

    Raises:
        DamagedCheckpointError: they are not as many as the directory says, or not deflated at all.
    """
    stored = data[entry.start : entry.start + entry.stored_bytes]
    if not entry.deflated:
        return stored
    try:
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        content = inflating.decompress(stored, entry.size_bytes + 1)
    except zlib.error as error:
        raise DamagedCheckpointError(f"{source}: its entry {entry.name!r:.80} cannot be inflated: {error}") from error
    if len(content) != entry.size_bytes:
        raise DamagedCheckpointError(
            f"{source}: its entry {entry.name!r:.80} does not inflate to the {entry.size_bytes} bytes it claims"
        )
    return memoryview(content)


def check_entry(content: memoryview, entry: ZipEntry, source: str) -> None:
    """Compare an entry's bytes with its checksum, if it has one.

    Raises:
        DamagedCheckpointError: they are not what was written.
    """
    if entry.crc32 and zlib.crc32(content) != entry.crc32:
        raise DamagedCheckpointError(
            f"{source}: the checksum of its entry {entry.name!r:.80} is wrong; take an intact copy of the file"
        )


def _directory(data: memoryview) -> tuple[int, int]:
    """Return how many entries the central directory has, and where it begins."""
    first = max(0, len(data) - _END.size - _LONGEST_COMMENT)
    at = bytes(data[first:]).rfind(b"PK\x05\x06")
    if at < 0:
        raise ValueError("it has no directory at its end")
    at += first
    _, count, _, start, comment = _END.unpack_from(data, at)
    if at + _END.size + comment != len(data):
        raise ValueError("it does not end behind its directory")
    if at >= _LOCATOR.size and bytes(data[at - _LOCATOR.size :][:4]) == b"PK\x06\x07":
        _, at = _LOCATOR.unpack_from(data, at - _LOCATOR.size)
        signature, count, _, start = _END64.unpack_from(data, at)
        if signature != b"PK\x06\x06":
            raise ValueError("its directory of 64 bits is not where it should be")
    if count * _CENTRAL.size > len(data):
        raise ValueError(f"its directory claims {count} entries")
    return count, start


def _entry(data: memoryview, position: int) -> tuple[ZipEntry, int]:
    signature, flags, method, crc32, stored, size, named, extra, comment, start = _CENTRAL.unpack_from(data, position)
    if signature != b"PK\x01\x02" or flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise ValueError(f"the entry at byte {position} of its directory is none, encrypted, or of method {method}")
    names = position + _CENTRAL.size
    name = bytes(data[names : names + named]).decode()
    size, stored, start = _sizes64(bytes(data[names + named : names + named + extra]), (size, stored, start))
    if method == _STORED and size != stored:
        raise ValueError(f"the entry {name!r:.80} is stored in {stored} bytes and has {size}")
    signature, local_named, local_extra = _LOCAL.unpack_from(data, start)
    if signature != b"PK\x03\x04":
        raise ValueError(f"the entry {name!r:.80} is not where its directory says")
    begin = start + _LOCAL.size + local_named + local_extra
    entry = ZipEntry(name, begin, stored, size, method == _DEFLATED, crc32)
    return entry, names + named + extra + comment


def _sizes64(extra: bytes, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return size, stored size and place, taking those that need 64 bits from the entry's extra field."""
    wide: list[int] = []
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _WIDE_SIZES:
            wide = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
        at += 4 + length
    found = [wide.pop(0) if number == _IN_EXTRA else number for number in sizes]
    return found[0], found[1], found[2]
