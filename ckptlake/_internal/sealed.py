"""Tables in files that may go at any time: whole under a checksum, or as if they were not there.

A file starts with 8 bytes that say what it is and the xxh3_128 of all that follows, which is an Arrow stream. What is
told about the rows lies in the metadata of their schema. Nothing is synced: what a power cut leaves torn fails its
checksum.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from xxhash import xxh3_128_digest

from ckptlake._internal.files import delete_abandoned, write_anew

logger = logging.getLogger(__name__)
_HEAD_BYTES = 24
_ABOUT = b"ckptlake"


def sealed(magic: bytes, rows: pa.Table, about: Mapping[str, Any]) -> tuple[bytes, memoryview]:
    """Return the head and the body of a file with rows and what is told about them, which JSON can hold."""
    told = {**(rows.schema.metadata or {}), _ABOUT: json.dumps(dict(about)).encode()}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.with_metadata(told)) as stream:
        stream.write_table(rows)
    body = memoryview(sink.getvalue())
    return magic + xxh3_128_digest(body), body


def write_sealed(path: Path, parts: tuple[bytes, memoryview]) -> None:
    """Write what was sealed in the place of what is there; its directory is made if it is missing.

    Raises:
        OSError: the disk refused; what was there is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_anew(path, *parts, durable=False)
    delete_abandoned(path.parent)


def read_sealed(path: Path, magic: bytes, expected: Mapping[str, Any]) -> tuple[pa.Table, dict[str, Any]] | None:
    """Return the rows of a file and what is told about them, or None where it is missing, damaged or of another kind.

    The file may be anybody's: the rows are checked to be what Arrow says they are, and may be any rows.

    Args:
        path: the file.
        magic: of which kind it must be.
        expected: what must be told about the rows; where something else is, they are not read.
    """
    try:
        with pa.OSFile(str(path)) as file:
            head = file.read(_HEAD_BYTES)
            about = _about(file)
            if any(about.get(name) != value for name, value in expected.items()):
                return None
            file.seek(_HEAD_BYTES)
            body = file.read_buffer()
        if head != magic + xxh3_128_digest(memoryview(body)):
            return None
        with pa.ipc.open_stream(body) as stream:
            rows = stream.read_all()
        rows.validate(full=True)
    except OSError:
        return None
    except (pa.ArrowException, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.debug("%s was written by another version, or is damaged: %s", path, error)
        return None
    told = {name: value for name, value in rows.schema.metadata.items() if name != _ABOUT}
    return rows.replace_schema_metadata(told or None), about


def _about(file: pa.NativeFile) -> dict[str, Any]:
    with pa.ipc.open_stream(file) as stream:
        return dict(json.loads(stream.schema.metadata[_ABOUT]))
