"""Chunks that nobody encoded: any payload is decoded or refused, in bounded memory."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_contents import DTYPE_NAMES, changed, normal

from ckptlake.checkpoints.codec.chunks import decode_chunk, encode_chunk
from ckptlake.checkpoints.dtypes import DTYPES, DType
from ckptlake.errors import DamagedCheckpointError

FLOAT32 = DTYPES["float32"]


def chunk(method: int, rotation: int, *lanes: tuple[int, bytes]) -> bytes:
    heads = b"".join(struct.pack("<BI", width, len(lane)) for width, lane in lanes)
    return struct.pack("<BBB", method, rotation, len(lanes)) + heads + b"".join(lane for _, lane in lanes)


def coded(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def try_to_decode(payload: bytes, dtype: DType, size: int) -> bytes | None:
    """Return what was decoded, or None where the payload was refused as it must be."""
    out = bytearray(size)
    try:
        decode_chunk(memoryview(payload), dtype, memoryview(bytes(size)), memoryview(out))
    except DamagedCheckpointError:
        return None
    return bytes(out)


@settings(max_examples=300)
@given(payload=st.binary(max_size=200), name=st.sampled_from(DTYPE_NAMES), elements=st.integers(0, 40))
def test_any_payload_is_decoded_or_refused(payload: bytes, name: str, elements: int) -> None:
    try_to_decode(payload, DTYPES[name], elements * DTYPES[name].itemsize)


@settings(max_examples=300)
@given(
    method=st.integers(0, 3),
    rotation=st.integers(0, 70),
    lanes=st.lists(
        st.tuples(
            st.sampled_from([0, 1, 1, 1, 2, 4, 8]),
            st.binary(max_size=12)
            | st.integers(0, 40).map(bytes)
            | st.integers(0, 40).map(lambda size: coded(bytes(size))),
        ),
        max_size=9,
    ),
    name=st.sampled_from(DTYPE_NAMES),
    elements=st.integers(0, 40),
)
def test_any_lanes_are_decoded_or_refused(
    method: int, rotation: int, lanes: list[tuple[int, bytes]], name: str, elements: int
) -> None:
    try_to_decode(chunk(method, rotation, *lanes), DTYPES[name], elements * DTYPES[name].itemsize)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int64", "bool", "complex64"])
@pytest.mark.parametrize("against", [False, True])
@settings(max_examples=60)
@given(data=st.data())
def test_a_chunk_with_damage_is_decoded_or_refused(name: str, against: bool, data: st.DataObject) -> None:
    dtype = DTYPES[name]
    raw = normal(dtype, 300, 1)
    base = changed(dtype, raw, 0.2, 2) if against else None
    pieces = encode_chunk(memoryview(raw), dtype, None if base is None else memoryview(base))
    payload = bytearray(b"".join(pieces))
    for _ in range(data.draw(st.integers(1, 4), "changes")):
        place = data.draw(st.integers(0, len(payload) - 1), "place")
        payload[place] = data.draw(st.integers(0, 255), "byte")
    length = data.draw(st.just(len(payload)) | st.integers(0, len(payload)), "length")
    try_to_decode(bytes(payload[:length]), dtype, len(raw))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int64", "float8_e4m3fn"])
def test_a_chunk_cut_short_or_lengthened_is_refused(name: str) -> None:
    dtype = DTYPES[name]
    raw = normal(dtype, 200, 1)
    payload = b"".join(encode_chunk(memoryview(raw), dtype, None))
    assert try_to_decode(payload, dtype, len(raw)) == raw
    for length in range(len(payload)):
        assert try_to_decode(payload[:length], dtype, len(raw)) is None
    assert try_to_decode(payload + b"\0", dtype, len(raw)) is None


LANE = bytes(100)
REFUSED = {
    "nothing": b"",
    "an unknown method": chunk(3, 0, *[(1, LANE)] * 4),
    "a rotation by the whole upper half": chunk(1, 16, *[(1, LANE)] * 4),
    "a rotated half in a lane with the other": chunk(1, 1, (4, bytes(400))),
    "a lane of parts of both halves": chunk(1, 0, (1, LANE), (2, bytes(200)), (1, LANE)),
    "no lanes": chunk(1, 0),
    "too few lanes": chunk(1, 0, *[(1, LANE)] * 3),
    "too many lanes": chunk(1, 0, *[(1, LANE)] * 5),
    "a lane of no width": chunk(1, 0, (0, b""), *[(1, LANE)] * 4),
    "a lane of three bytes": chunk(1, 0, (3, bytes(300)), (1, LANE)),
    "a lane that is too long": chunk(1, 0, *[(1, LANE)] * 3, (1, bytes(101))),
    "a lane that is too short": chunk(1, 0, *[(1, LANE)] * 3, (1, bytes(99))),
    "a wide lane that is coded": chunk(1, 0, (2, coded(bytes(200))), *[(1, LANE)] * 2),
    "a coded lane of more": chunk(1, 0, *[(1, LANE)] * 3, (1, coded(bytes(101)))),
    "a coded lane of less": chunk(1, 0, *[(1, LANE)] * 3, (1, coded(bytes(99)))),
    "a coded lane and more behind it": chunk(1, 0, *[(1, LANE)] * 3, (1, coded(LANE) + b"\0")),
    "two coded lanes in one": chunk(1, 0, *[(1, LANE)] * 3, (1, coded(LANE[:50]) * 2)),
    "a coded lane without its size": chunk(1, 0, *[(1, LANE)] * 3, (1, coded(LANE, write_content_size=False))),
    "a lane of nothing": chunk(1, 0, *[(1, LANE)] * 3, (1, b"")),
    "a frame to be skipped": chunk(1, 0, *[(1, LANE)] * 3, (1, struct.pack("<II", 0x184D2A50, 4) + bytes(4))),
    "a head cut short": chunk(1, 0, *[(1, LANE)] * 4)[:20],
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_chunk_is_refused(payload: bytes) -> None:
    assert try_to_decode(payload, FLOAT32, 400) is None


def test_the_lanes_above_are_refused_for_what_is_said_of_them() -> None:
    assert try_to_decode(chunk(1, 0, *[(1, LANE)] * 3, (1, coded(LANE))), FLOAT32, 400) == bytes(400)
    assert try_to_decode(chunk(2, 15, (2, bytes(200)), *[(1, LANE)] * 2), FLOAT32, 400) == bytes(400)


def frame(content_size: int, blocks: int, block_size: int = 1 << 16, window: int | None = None) -> bytes:
    """Return a zstandard frame that tells of `content_size` bytes and repeats one byte in blocks of its own."""
    single = window is None
    head = b"\x28\xb5\x2f\xfd" + bytes([0x80 | (0x20 if single else 0)])
    head += (b"" if window is None else bytes([(window - 10) << 3])) + struct.pack("<I", content_size)
    body = b"".join(
        (block_size << 3 | 1 << 1 | (number == blocks - 1)).to_bytes(3, "little") + b"a" for number in range(blocks)
    )
    return head + body


WORDS = 1 << 17


@pytest.mark.parametrize(
    "lane",
    [
        coded(bytes(1 << 28)),
        coded(bytes(1 << 28), write_content_size=False),
        frame(WORDS, blocks=4000),
        frame(WORDS, blocks=4000, window=27),
        frame(WORDS, blocks=1, window=31),
        frame(WORDS, blocks=1)[:-1],
        frame(WORDS, blocks=1, window=27)[:-1],
        frame(WORDS - 1, blocks=2),
        frame(1 << 31, blocks=2),
    ],
)
def test_memory_is_bounded_by_what_belongs_there(lane: bytes) -> None:
    """A small lane that would become a large one, whatever it tells of its size, is refused before it does."""
    payload = chunk(1, 0, *[(1, lane)] * 4)
    assert len(payload) < WORDS
    tracemalloc.start()
    try:
        assert try_to_decode(payload, FLOAT32, 4 * WORDS) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * 4 * WORDS
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("window", [None, 17, 24])
def test_the_frames_above_are_refused_for_what_they_tell(window: int | None) -> None:
    lane = frame(WORDS, blocks=2, window=window)
    assert try_to_decode(chunk(1, 0, *[(1, lane)] * 4), FLOAT32, 4 * WORDS) == b"a" * (4 * WORDS)


def test_a_chunk_decoded_after_a_refusal_is_right() -> None:
    """A refusal leaves nothing behind in what a thread keeps for decoding."""
    raw = normal(FLOAT32, 5000, 1)
    payload = b"".join(encode_chunk(memoryview(raw), FLOAT32, None))
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(payload)
        damaged[-int(rng.integers(1, 500))] ^= 0x55
        try_to_decode(bytes(damaged), FLOAT32, len(raw))
        assert try_to_decode(payload, FLOAT32, len(raw)) == raw
