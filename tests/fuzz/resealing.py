"""Checksums of changed files put right, so that what is behind them is read and not only refused."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import xxhash

from ckptlake.integrity.parity_file import HEADER_BYTES, Layout

_ENTRY, _LOCAL, _END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
_MOST_PARITY_BYTES = 256 << 10


def manifest(data: bytes) -> bytes:
    start = data.find(b'"manifest":')
    body = data[start + len(b'"manifest":') :].rstrip(b"\n")[:-1]
    check = xxhash.xxh3_64_hexdigest(body)
    return b'{"check":"' + check.encode() + b'","manifest":' + body + b"}\n"


def archive(data: bytes) -> bytes:
    """Put right the checksums of chunks and of the footer, and the footer's length where it is none."""
    *_, version, magic = struct.unpack("<QQI8s", data[-28:].rjust(28, b"\0"))
    begin = footer_begin(data)
    footer = data[begin:-28]
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        fields = json.loads(footer)
        for tensor in fields["tensors"]:
            for chunk in tensor["chunks"]:
                chunk[2] = xxhash.xxh3_64_intdigest(data[chunk[0] : chunk[0] + chunk[1]])
        footer = json.dumps(fields, separators=(",", ":")).encode()
    digest = xxhash.xxh3_64(footer)
    digest.update(struct.pack("<QI", len(footer), version))
    return data[:begin] + footer + struct.pack("<QQI8s", len(footer), digest.intdigest(), version, magic)


def footer_begin(data: bytes) -> int:
    """Return where the footer of a compressed pack begins, or would."""
    length = int.from_bytes(data[-28:-20], "little")
    place = len(data) - 28 - length
    return place if place >= 0 else max(0, data.rfind(b'{"metadata"'))


def parity(data: bytes) -> bytes:
    """Put right the checksums of both headers and of all records."""
    changed = bytearray(data)
    head = bytes(changed[: HEADER_BYTES - 16])
    changed[:HEADER_BYTES] = head + xxhash.xxh3_128_digest(head)
    layout = Layout(int.from_bytes(head[24:32], "little"))
    if not 0 < layout.parity_bytes <= _MOST_PARITY_BYTES:
        return bytes(changed)
    changed = changed.ljust(layout.parity_bytes, b"\0")
    size = layout.record.itemsize
    for start in layout.records_at:
        for column in range(layout.columns):
            place = start + column * size
            sums = bytes(changed[place : place + size - 8])
            changed[place + size - 8 : place + size] = xxhash.xxh3_64_intdigest(sums, column).to_bytes(8, "little")
    end = layout.headers_at[1]
    changed[end : end + HEADER_BYTES] = changed[:HEADER_BYTES]
    return bytes(changed)


def frames(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (magic, number, payload) of each frame of a segment, the last as long as it is."""
    offset = 0
    while offset + 20 <= len(data):
        magic, length, _, number = struct.unpack_from("<4sIIQ", data, offset)
        yield magic, number, data[offset + 20 : offset + 20 + length]
        offset += 20 + length


def framed(found: Iterator[tuple[bytes, int, bytes]] | list[tuple[bytes, int, bytes]]) -> bytes:
    parts = []
    for magic, number, payload in found:
        covered = zlib.crc32(payload, zlib.crc32(struct.pack("<IQ", len(payload), number)))
        parts += [struct.pack("<4sIIQ", magic, len(payload), covered, number), payload]
    return b"".join(parts)


def segment(data: bytes) -> bytes:
    return framed(frames(data))


def archive_of_zip(data: bytes) -> bytes:
    """Put right the CRC-32 of every entry that is stored as it is or deflated."""
    changed = bytearray(data)
    place = data.find(_ENTRY)
    while place >= 0 and place + 46 <= len(data):
        method, size, offset = _facts(data, place)
        if data[offset : offset + 4] == _LOCAL and offset + 30 <= len(data):
            start = offset + 30 + sum(struct.unpack_from("<HH", data, offset + 26))
            content = _inflated(method, data[start : start + size])
            for where in (place + 16, offset + 14):
                changed[where : where + 4] = zlib.crc32(content).to_bytes(4, "little")
        place = data.find(_ENTRY, place + 1)
    return bytes(changed)


def _facts(data: bytes, place: int) -> tuple[Any, Any, Any]:
    (method,) = struct.unpack_from("<H", data, place + 10)
    (size,) = struct.unpack_from("<I", data, place + 20)
    (offset,) = struct.unpack_from("<I", data, place + 42)
    return method, size, offset


def _inflated(method: int, content: bytes) -> bytes:
    if method != 8:
        return content
    try:
        return zlib.decompressobj(-15).decompress(content, 1 << 20)
    except zlib.error:
        return content
