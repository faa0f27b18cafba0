"""The end of a pack file: what tensors it holds and where, and a trailer that tells whether the file is whole.

The footer is JSON. The trailer behind it has a fixed size: the footer's length (u64), the XXH3-64 of the footer,
its length and the version (u64), the format version (u32) and eight bytes that end every pack, all little-endian.
A hostile file may carry any footer with a fitting checksum, so nothing in one is believed before it was checked
against the size of the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import xxhash

from ckptlake.checkpoints.codec.chunks import CHUNK_ELEMENTS
from ckptlake.checkpoints.dtypes import get_dtype
from ckptlake.errors import DamagedCheckpointError, LakeFormatError

FORMAT_VERSION = 1
TRAILER_BYTES = 28
_TRAILER = struct.Struct("<QQI8s")
_COVERED = struct.Struct("<QI")
_MAGIC = b"CKPKends"
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Base:
    """The tensor that another is stored as differences to, and the name of the pack that holds it."""

    digest: str
    pack: str


class StoredChunk(NamedTuple):
    """Where in its file a chunk lies, in bytes, and the XXH3-64 of those bytes."""

    offset: int
    length: int
    xxh3: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a pack holds of one tensor.

    Attributes:
        digest: what it is known by.
        dtype: the name of its element type.
        nbytes: size of its raw bytes.
        codec: ``planes``, or ``delta`` if some chunk holds differences to the base.
        base: the tensor those are differences to; None for ``planes``.
        chunks: its chunks in order, `CHUNK_ELEMENTS` elements in each but the last.
    """

    digest: str
    dtype: str
    nbytes: int
    codec: Literal["planes", "delta"]
    base: Base | None
    chunks: tuple[StoredChunk, ...]

    @property
    def stored_bytes(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


def chunk_bytes(dtype: str) -> int:
    """Return the raw size of a full chunk of an element type."""
    return CHUNK_ELEMENTS * get_dtype(dtype).itemsize


def compose(metadata: Mapping[str, str], tensors: Mapping[str, StoredTensor]) -> bytes:
    """Return footer and trailer, to be written behind the chunks."""
    fields = {"metadata": dict(metadata), "tensors": [_as_json(tensor) for tensor in tensors.values()]}
    footer = json.dumps(fields, separators=(",", ":")).encode()
    checksum = _checksum(footer, FORMAT_VERSION)
    return footer + _TRAILER.pack(len(footer), checksum, FORMAT_VERSION, _MAGIC)


def footer_length(trailer: bytes, before: int) -> int:
    """Return the length of the footer that a trailer tells of, with `before` bytes in front of the trailer.

    Raises:
        DamagedCheckpointError: it is no trailer, or the footer would be larger than that.
    """
    if len(trailer) != TRAILER_BYTES or trailer[-len(_MAGIC) :] != _MAGIC:
        raise DamagedCheckpointError("it does not end as a pack does")
    length: int = _TRAILER.unpack(trailer)[0]
    if length > before:
        raise DamagedCheckpointError(f"it tells of a footer of {length} bytes, but only {before} are there")
    return length


def parse(footer: bytes, trailer: bytes, before: int) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """Return the metadata and the tensors, by digest, that a footer tells of.

    Args:
        footer: as many bytes as `footer_length` says.
        trailer: the bytes behind it.
        before: the bytes in front of it, where all chunks must lie.

    Raises:
        DamagedCheckpointError: the footer is not what was written, or tells what cannot be.
        LakeFormatError: a newer ckptlake wrote it.
    """
    _, checksum, version, _ = _TRAILER.unpack(trailer)
    if _checksum(footer, version) != checksum:
        raise DamagedCheckpointError("its footer fails its checksum")
    if version > FORMAT_VERSION:
        raise LakeFormatError(
            f"pack format {version} is newer than this ckptlake reads; update it with `pip install --upgrade ckptlake`"
        )
    try:
        fields = json.loads(footer)
        metadata = {_text(name): _text(value) for name, value in fields["metadata"].items()}
        tensors = [_from_json(told, before) for told in fields["tensors"]]
    except _UNREADABLE as error:
        raise DamagedCheckpointError(f"its footer cannot be read: {error!r:.200}") from error
    by_digest = {tensor.digest: tensor for tensor in tensors}
    if len(by_digest) != len(tensors):
        raise DamagedCheckpointError("its footer tells of one tensor twice")
    return metadata, by_digest


def _checksum(footer: bytes, version: int) -> int:
    digest = xxhash.xxh3_64(footer)
    digest.update(_COVERED.pack(len(footer), version))
    return digest.intdigest()


def _as_json(tensor: StoredTensor) -> dict[str, Any]:
    return {
        "digest": tensor.digest,
        "dtype": tensor.dtype,
        "nbytes": tensor.nbytes,
        "codec": tensor.codec,
        "base": None if tensor.base is None else {"digest": tensor.base.digest, "pack": tensor.base.pack},
        "chunks": tensor.chunks,
    }


def _from_json(told: dict[str, Any], end: int) -> StoredTensor:
    """Return one tensor of a footer, if it can be a true one.

    Raises:
        ValueError: it cannot (or another of the errors expected there).
    """
    dtype, nbytes = _text(told["dtype"]), _whole(told["nbytes"], 2**62)
    full = chunk_bytes(dtype)
    chunks = tuple(StoredChunk(_whole(a, end), _whole(b, end), _whole(c, 2**64 - 1)) for a, b, c in told["chunks"])
    if nbytes % get_dtype(dtype).itemsize or len(chunks) != -(-nbytes // full):
        raise ValueError(f"{len(chunks)} chunks of {dtype} for {nbytes} bytes")
    sizes = [min(full, nbytes - start) for start in range(0, nbytes, full)]
    for chunk, size in zip(chunks, sizes, strict=True):
        if not 0 < chunk.length <= size + 1 or chunk.offset + chunk.length > end:
            raise ValueError(f"a chunk of {chunk.length} bytes at {chunk.offset} for {size} raw ones")
    base = None if told["base"] is None else Base(_text(told["base"]["digest"]), _text(told["base"]["pack"]))
    codec: Literal["planes", "delta"] = "planes" if base is None else "delta"
    if told["codec"] != codec:
        raise ValueError(f"codec {told['codec']!r:.60} where {codec} belongs")
    return StoredTensor(_text(told["digest"]), dtype, nbytes, codec, base, chunks)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} where a text should be")
    return value


def _whole(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise TypeError(f"{value!r:.60} where a number from 0 to {most} should be")
    return value
