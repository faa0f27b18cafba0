"""Chunks: a stretch of a tensor turned into fewer bytes where that can be, and back, bit for bit.

The first byte of a chunk is its method. Method 0 is followed by the raw bytes. Methods 1 and 2 are followed by the
rotation of the words' upper halves (u8), the number of lanes (u8) and for each lane its width in bytes (u8) and its
stored length (u32), then by the lanes. A lane is stored as it is where its length is what its words take, and entropy
coded where it is less. Method 2 means that the words are differences to those of a base. All numbers are
little-endian, and complex numbers count as two words each.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ckptlake.checkpoints.codec.entropy import entropies, pack, sample, unpack
from ckptlake.checkpoints.codec.planes import Cut, Memory, Words
from ckptlake.checkpoints.dtypes import DType
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

CHUNK_ELEMENTS = 1 << 20
"""Elements of every chunk of a tensor but its last."""

_RAW, _PLANES, _DELTA = range(3)
_HEAD = struct.Struct("<BBB")
_LANE = struct.Struct("<BI")
_LEAST_BYTES = 256
_NOISE_BITS = 7.7
_WORTH_A_BASE = 1 / 64
# Rotations that bring the changing part of the exponent into the highest byte. A float64 has three bits of it too
# many; those that weights never change go to the lowest byte. Half floats come out the same with and without one.
_ROTATIONS = {"float32": 1, "bfloat16": 1, "complex64": 1, "float64": 4, "complex128": 4}


@dataclass(frozen=True, slots=True)
class CutChunk:
    """A chunk between the two halves of its encoding, which take about as long as each other.

    Attributes:
        raw: its bytes as they are.
        method: how it is stored unless `raw` takes less.
        lanes: its words cut, each lane with whether coding is worth a try; none where it is stored raw.
    """

    raw: Words
    method: int
    rotation: int = 0
    lanes: Sequence[tuple[Words, bool]] = ()

    def packed(self) -> list[bytes | memoryview]:
        """Return the pieces of the chunk, as `encode_chunk` does; most of the time other threads can run."""
        if self.lanes:
            heads = [_HEAD.pack(self.method, self.rotation, len(self.lanes))]
            pieces: list[bytes | memoryview] = []
            for lane, is_worth_it in self.lanes:
                piece: bytes | memoryview = lane.view(np.uint8).data
                if is_worth_it and len(coded := pack(lane)) < len(piece):
                    piece = coded
                heads.append(_LANE.pack(lane.itemsize, len(piece)))
                pieces.append(piece)
            pieces.insert(0, b"".join(heads))
            if sum(len(piece) for piece in pieces) <= self.raw.nbytes:
                return pieces
        return [bytes([_RAW]), self.raw.view(np.uint8).data]

    def give_back(self, memory: Memory) -> None:
        """Let the lanes be used again; the pieces are not looked at any more."""
        for lane, _ in self.lanes:
            memory.give_back(lane)


def encode_chunk(raw: memoryview, dtype: DType, base: memoryview | None) -> list[bytes | memoryview]:
    """Return a chunk as pieces to write one after another, in all at most one byte more than `raw`.

    A piece may be a view of `raw`, so that must stay as it is until the pieces are written.

    Args:
        raw: the contiguous bytes of at most `CHUNK_ELEMENTS` elements.
        dtype: what they are.
        base: as many bytes of an earlier version, read only. It goes unused where it would save less than 1/64 of
            the raw bytes; `needs_base` tells.

    Raises:
        InvalidInputError: the bytes are no whole elements, too many, or not as many as those of the base.

    Examples:
        >>> from ckptlake.checkpoints.dtypes import get_dtype
        >>> weights = np.linspace(-1, 1, 1000, dtype=np.float32)
        >>> pieces = encode_chunk(weights.data, get_dtype("float32"), None)
        >>> out = np.empty_like(weights)
        >>> decode_chunk(memoryview(b"".join(pieces)), get_dtype("float32"), None, out.data)
        >>> bool((out == weights).all())
        True
    """
    return cut_chunk(raw, dtype, base).packed()


def cut_chunk(raw: memoryview, dtype: DType, base: memoryview | None, memory: Memory | None = None) -> CutChunk:
    """Do the first half of what `encode_chunk` does; its arguments and errors are the same.

    The lanes come from `memory`, and go back there by `CutChunk.give_back`.
    """
    words = _words(raw, dtype)
    others = None if base is None else _words(base, dtype)
    if words.nbytes > CHUNK_ELEMENTS * dtype.itemsize:
        raise InvalidInputError(f"{words.nbytes} bytes are more than a chunk; cut them every {CHUNK_ELEMENTS} elements")
    if others is not None and others.size != words.size:
        raise InvalidInputError(
            f"a base of {others.nbytes} bytes does not match {words.nbytes} bytes; give the same range of both"
        )
    return CutChunk(words, _RAW) if words.nbytes < _LEAST_BYTES else _cut(words, others, dtype, memory)


def needs_base(payload: bytes | memoryview) -> bool:
    """Return whether a chunk, or the first of its pieces, is of differences to a base."""
    return payload[:1] == bytes([_DELTA])


def decode_chunk(payload: memoryview, dtype: DType, base: memoryview | None, out: memoryview) -> None:
    """Write the raw bytes of a chunk to `out`, which has exactly their size.

    Memory taken on the way is at most the size of `out` and a fixed block, whatever the payload says.

    Args:
        payload: the chunk.
        dtype: the element type it was encoded as.
        base: the bytes it was encoded against; only asked for where `needs_base`.
        out: where to write; after an error its content means nothing.

    Raises:
        DamagedCheckpointError: the payload is not a chunk of that type and size.
        InvalidInputError: `base` or `out` are no whole elements, or not of the same size.
    """
    words = _words(out, dtype)
    if payload[:1] == bytes([_RAW]):
        if len(payload) != 1 + words.nbytes:
            raise DamagedCheckpointError(f"a raw chunk has {len(payload) - 1} bytes where {words.nbytes} belong")
        words.view(np.uint8)[:] = np.frombuffer(payload[1:], np.uint8)
        return
    cut, lanes = _parsed(payload, words)
    others = None
    if needs_base(payload):
        if base is None:
            raise InvalidInputError("the chunk holds differences to a base; give the base's bytes of the same range")
        others = _words(base, dtype)
        if others.size != words.size:
            raise InvalidInputError(f"the chunk has {words.nbytes} bytes, but its base {others.nbytes}")
    cut.join(lanes, others, words)


def _words(raw: memoryview, dtype: DType) -> Words:
    size = dtype.itemsize // 2 if dtype.kind == "complex" else dtype.itemsize
    if raw.nbytes % dtype.itemsize:
        raise InvalidInputError(f"{raw.nbytes} bytes are no whole number of {dtype.name}, {dtype.itemsize} bytes each")
    return np.frombuffer(raw, f"<u{size}")


def _cut(words: Words, others: Words | None, dtype: DType, memory: Memory | None) -> CutChunk:
    """Cut words, or their differences to others, as a sample promises the most of."""
    cut = Cut((), _ROTATIONS.get(dtype.name, 0))
    bits = entropies(cut.change(sample(words), None))
    if others is not None:
        fewer = entropies(Cut(()).change(sample(words), sample(others)))
        if sum(fewer) < sum(bits) - _WORTH_A_BASE * 8 * words.itemsize:
            cut, bits = Cut(()), fewer
        else:
            others = None
    # Noise of integers may still be a pattern, such as a count; to try costs little.
    noise = _NOISE_BITS if dtype.kind in ("float", "complex") else np.inf
    worth = [one <= noise for one in bits]
    if not any(worth):
        return CutChunk(words, _RAW)
    cut = Cut(_widths(worth), cut.rotation)
    starts = [sum(cut.widths[:number]) for number in range(len(cut.widths))]
    lanes = zip(cut.split(words, others, memory), (worth[start] for start in starts), strict=True)
    return CutChunk(words, _PLANES if others is None else _DELTA, cut.rotation, tuple(lanes))


def _widths(worth: Sequence[bool]) -> tuple[int, ...]:
    """Return lanes of one byte where coding is worth it, and as few as can be for the others."""
    if len(worth) == 1:
        return (1,)
    halves = worth[: len(worth) // 2], worth[len(worth) // 2 :]
    return tuple(width for half in halves for width in (_widths(half) if any(half) else (len(half),)))


def _parsed(payload: memoryview, words: Words) -> tuple[Cut, list[Words]]:
    """Return what a chunk tells of its cut, and its lanes decoded; `words` is what they will make."""
    if len(payload) < _HEAD.size:
        raise DamagedCheckpointError(f"a chunk of {len(payload)} bytes is cut short")
    method, rotation, count = _HEAD.unpack_from(payload)
    start = _HEAD.size + count * _LANE.size
    if method not in (_PLANES, _DELTA) or len(payload) < start:
        raise DamagedCheckpointError(f"a chunk begins with {bytes(payload[:8]).hex()}, which no chunk does")
    told = list(_LANE.iter_unpack(payload[_HEAD.size : start]))
    cut = Cut(tuple(width for width, _ in told), rotation)
    if not cut.suits(words.itemsize):
        raise DamagedCheckpointError(f"lanes of {cut.widths} bytes, rotated by {rotation}, make no {words.itemsize}")
    if start + sum(length for _, length in told) != len(payload):
        raise DamagedCheckpointError(f"a chunk has {len(payload)} bytes, which is not what it tells")
    lanes: list[Words] = []
    for width, length in told:
        lane = payload[start : start + length]
        if width > 1 and length != width * words.size:
            raise DamagedCheckpointError(f"a lane has {length} bytes where {width * words.size} belong")
        stored = length == width * words.size
        lanes.append(np.frombuffer(lane, f"<u{width}") if stored else unpack(lane, words.size))
        start += length
    return cut, lanes
