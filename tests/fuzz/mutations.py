"""Changes to valid files: of their bytes, of the JSON in them, and of the parts they are made of."""

from __future__ import annotations

import copy
import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from tests.fuzz import resealing

NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 63, 64, 127, 128, 255, 256, 4095, 4096, 32767, 32768, 65535, 65536,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 64, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "a", "/", "..", "blobs/../x", "\ud800", "\0", "F32", "float32", "0x" + "f" * 50,
    "9" * 5000, [], [[]], {}, {"a": 1}, [0] * 70, [2**62, 2**62, 0], {"tuple": []}, {"array": 0}, {"tensor": 0},
)  # fmt: skip
_SHAPELESS = (
    ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, StopIteration, EOFError,
    NotImplementedError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_WIDTHS = ("<B", "<H", "<I", "<Q")


class Change(NamedTuple):
    """One change: what kind of, and three numbers that say where and to what; any of them does something."""

    kind: int
    where: int
    what: int
    other: int


class Form(NamedTuple):
    """What a file is made of: `parts` takes it apart, `whole` puts parts in the place of those of the file."""

    parts: Callable[[bytes], Any]
    whole: Callable[[bytes, Any], bytes]


def mutated(data: bytes, changes: Sequence[Change], others: Sequence[bytes], form: Form | None) -> bytes:
    """Return a file changed; every second kind of change is of its parts where it has a form that can be read."""
    for change in changes:
        if form is not None and change.kind % 2:
            try:
                parts = form.parts(data)
                data = form.whole(data, _parts_changed(parts, change._replace(kind=change.kind // 2)))
                continue
            except _SHAPELESS:
                pass  # what it is made of cannot be told any more
        donor = others[change.other % len(others)]
        data = _bytes_changed(data, change._replace(kind=change.kind // 2), donor)
    return data


def _bytes_changed(data: bytes, change: Change, donor: bytes) -> bytes:
    place = change.where % (len(data) + 1)
    stop = min(len(data), place + 1 + change.other % 64)
    match change.kind % 8:
        case 0:
            return (
                data[:place]
                + bytes(byte ^ 1 << change.what % 8 for byte in data[place : place + 1])
                + data[place + 1 :]
            )
        case 1:
            return data[:place] + bytes([change.what % 256]) + data[place + 1 :]
        case 2:
            layout = _WIDTHS[change.other % 4]
            number = (*NUMBERS, len(data), len(data) - 1, len(data) + 1)[change.what % (len(NUMBERS) + 3)]
            size = struct.calcsize(layout)
            return data[:place] + struct.pack(layout, number % 256**size) + data[place + size :]
        case 3:
            return data[:place]
        case 4:
            return data[:place] + data[stop:]
        case 5:
            return data[:stop] + data[place:stop] + data[stop:]
        case 6:
            begin = change.what % (len(donor) + 1)
            return data[:place] + donor[begin : begin + stop - place] + data[stop:]
        case _:
            return data + (bytes(1 + change.what % 100) if change.other % 2 else donor[-(1 + change.what % 100) :])


def _parts_changed(parts: Any, change: Change) -> Any:
    if isinstance(parts, list) and all(isinstance(part, bytes) for part in parts) and parts:
        return _list_changed(list(parts), change)
    return _json_changed(parts, change)


def _list_changed(parts: list[bytes], change: Change) -> list[bytes]:
    here, there = change.where % len(parts), change.what % len(parts)
    match change.kind % 5:
        case 0:
            del parts[here]
        case 1:
            parts.insert(here, parts[there])
        case 2:
            parts[here], parts[there] = parts[there], parts[here]
        case 3:
            parts[here] = parts[there]
        case _:
            parts[here] = _bytes_changed(parts[here], change._replace(kind=change.other), parts[there])
    return parts


def _json_changed(tree: Any, change: Change) -> Any:
    """Return JSON with one of its values changed, taken away, or put somewhere else too."""
    tree = copy.deepcopy(tree)
    nodes = _nodes(tree)
    if not nodes:
        return VALUES[change.what % len(VALUES)]
    inside, key = nodes[change.where % len(nodes)]
    match change.kind % 5:
        case 0 | 1:
            inside[key] = VALUES[change.what % len(VALUES)]
        case 2:
            del inside[key]
        case 3:
            other, name = nodes[change.what % len(nodes)]
            inside[key] = copy.deepcopy(other[name])
        case _:
            inside[key] = [inside[key]] if change.what % 2 else {"tuple": [inside[key]]}
    return tree


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Return where in JSON each value is, as (container, key)."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            found.append((node, key))
            pending.append(value)
    return found


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _header_of(data: bytes) -> Any:
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length])


def _with_header(data: bytes, fields: Any) -> bytes:
    (length,) = struct.unpack_from("<Q", data)
    text = _dumped(fields)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _with_footer(data: bytes, fields: Any) -> bytes:
    text = _dumped(fields)
    return data[: resealing.footer_begin(data)] + text + struct.pack("<Q", len(text)) + data[-20:]


def _with_frames(data: bytes, payloads: list[bytes]) -> bytes:
    found = list(resealing.frames(data))
    named = [(magic, number) for magic, number, _ in found]
    named += [(found[-1][0], found[-1][1] + more) for more in range(1, len(payloads) - len(found) + 1)]
    return resealing.framed([(*name, payload) for name, payload in zip(named, payloads, strict=False)])


def _segment_header(data: bytes) -> Any:
    return json.loads(next(resealing.frames(data))[2])


def _with_segment_header(data: bytes, fields: Any) -> bytes:
    (magic, number, _), *rest = resealing.frames(data)
    return resealing.framed([(magic, number, _dumped(fields)), *rest])


def _operations(data: bytes) -> list[bytes]:
    """Return the opcodes of a pickle with their arguments, one after the other."""
    places = [place for _, _, place in pickletools.genops(data) if place is not None]
    return [data[begin:end] for begin, end in zip(places, [*places[1:], len(data)], strict=True)]


def _pickle_in_zip(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return _operations(archive.read(name))


def _zip_with_pickle(data: bytes, operations: list[bytes]) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as written:
        for name in archive.namelist():
            content = b"".join(operations) if name.endswith("/data.pkl") else archive.read(name)
            written.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


JSON_FILE = Form(json.loads, lambda _, tree: _dumped(tree))
MANIFEST = Form(
    lambda data: json.loads(data)["manifest"], lambda _, fields: b'{"check":"","manifest":' + _dumped(fields) + b"}\n"
)
HEADER = Form(_header_of, _with_header)
FOOTER = Form(lambda data: json.loads(data[resealing.footer_begin(data) : -28]), _with_footer)
FRAMES = Form(lambda data: [payload for _, _, payload in resealing.frames(data)], _with_frames)
SEGMENT_HEADER = Form(_segment_header, _with_segment_header)
PICKLE = Form(_operations, lambda _, operations: b"".join(operations))
TORCH_ZIP = Form(_pickle_in_zip, _zip_with_pickle)
