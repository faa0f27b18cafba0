"""Chunks come back bit for bit, whatever their type, size and content."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_contents import DTYPE_NAMES, KINDS, contents, normal

from ckptlake.checkpoints.codec import chunks
from ckptlake.checkpoints.codec.chunks import CHUNK_ELEMENTS, decode_chunk, encode_chunk, needs_base
from ckptlake.checkpoints.codec.planes import BLOCK_WORDS
from ckptlake.checkpoints.dtypes import DTYPES, DType, get_dtype
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

FLOATS = ["float64", "float32", "float16", "bfloat16"]
SIZES = [0, 1, 2, 3, 15, 63, 64, 127, 255, 1001, 8191, 8192, 8193]


def encoded(raw: bytes, dtype: DType, base: bytes | None = None) -> bytes:
    return b"".join(encode_chunk(memoryview(raw), dtype, None if base is None else memoryview(base)))


def decoded(payload: bytes, dtype: DType, size: int, base: bytes | None = None) -> bytes:
    out = bytearray(b"\xa5" * size)
    decode_chunk(memoryview(payload), dtype, None if base is None else memoryview(base), memoryview(out))
    return bytes(out)


def ratio(raw: bytes, dtype: DType) -> float:
    payload = encoded(raw, dtype)
    assert decoded(payload, dtype, len(raw)) == raw
    return len(payload) / len(raw)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_every_type_size_and_content_comes_back(name: str, kind: str) -> None:
    dtype = get_dtype(name)
    for size in SIZES:
        raw = contents(dtype, size, kind, seed=size)
        assert len(raw) == size * dtype.itemsize
        payload = encoded(raw, dtype)
        assert len(payload) <= len(raw) + 1
        assert decoded(payload, dtype, len(raw)) == raw


@settings(max_examples=60)
@given(
    name=st.sampled_from(DTYPE_NAMES), kind=st.sampled_from(KINDS), size=st.integers(0, 5000), seed=st.integers(0, 99)
)
def test_any_size_comes_back(name: str, kind: str, size: int, seed: int) -> None:
    dtype = get_dtype(name)
    raw = contents(dtype, size, kind, seed)
    assert decoded(encoded(raw, dtype), dtype, len(raw)) == raw


@settings(max_examples=60)
@given(name=st.sampled_from(DTYPE_NAMES), data=st.binary(max_size=2000))
def test_any_bytes_come_back(name: str, data: bytes) -> None:
    dtype = get_dtype(name)
    raw = (data * dtype.itemsize)[: len(data) * dtype.itemsize]
    assert decoded(encoded(raw, dtype), dtype, len(raw)) == raw


@pytest.mark.parametrize("elements", [BLOCK_WORDS - 1, BLOCK_WORDS + 1, CHUNK_ELEMENTS - 1, CHUNK_ELEMENTS])
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e5m2", "complex64"])
def test_chunks_as_large_as_they_get_come_back(name: str, elements: int) -> None:
    dtype = get_dtype(name)
    raw = contents(dtype, elements, "normal", 5)
    assert ratio(raw, dtype) < 0.9


@pytest.mark.parametrize("name", FLOATS)
def test_what_is_not_a_number_keeps_its_payload_and_zero_its_sign(name: str) -> None:
    dtype = get_dtype(name)
    raw = contents(dtype, 3000, "not numbers", 1) + bytes(1000 * dtype.itemsize)
    raw += (bytes(dtype.itemsize - 1) + b"\x80") * 1000
    assert ratio(raw, dtype) < 1


@pytest.mark.parametrize(
    ("name", "most"), [("float32", 0.84), ("bfloat16", 0.69), ("float16", 0.86), ("float64", 0.88), ("complex64", 0.84)]
)
def test_normal_weights_shrink_to_what_was_measured(name: str, most: float) -> None:
    assert ratio(normal(get_dtype(name), 1 << 18, seed=7), get_dtype(name)) <= most


@pytest.mark.parametrize("name", FLOATS)
def test_no_level_of_zstandard_alone_comes_near(name: str) -> None:
    raw = normal(get_dtype(name), 1 << 17, seed=7)
    assert ratio(raw, get_dtype(name)) < 0.95 * len(zstandard.ZstdCompressor(level=9).compress(raw)) / len(raw)


def test_narrow_floats_held_in_wide_ones_cost_what_the_narrow_ones_do() -> None:
    halves = normal(get_dtype("bfloat16"), 1 << 17, seed=3)
    widened = (np.frombuffer(halves, "<u2").astype("<u4") << 16).tobytes()
    narrow, wide = encoded(halves, get_dtype("bfloat16")), encoded(widened, get_dtype("float32"))
    assert len(wide) < 1.1 * len(narrow)


@pytest.mark.parametrize("name", DTYPE_NAMES)
@pytest.mark.parametrize("kind", ["zeros", "constant"])
def test_equal_elements_cost_next_to_nothing(name: str, kind: str) -> None:
    dtype = get_dtype(name)
    assert ratio(contents(dtype, 1 << 17, kind, 2), dtype) < 0.002


@pytest.mark.parametrize("name", ["int64", "uint32", "int16"])
def test_counted_integers_cost_next_to_nothing(name: str) -> None:
    dtype = get_dtype(name)
    raw = np.arange(1 << 17).astype(dtype.as_numpy()).tobytes()
    assert ratio(raw, dtype) < 0.02


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_noise_is_stored_raw_at_the_cost_of_one_byte(name: str) -> None:
    raw = contents(DTYPES[name], 20_000, "noise", 4)
    assert encoded(raw, DTYPES[name]) == b"\0" + raw


@pytest.mark.parametrize("elements", [0, 1, 5])
def test_few_elements_are_stored_raw(elements: int) -> None:
    raw = bytes(8 * elements)
    assert encoded(raw, DTYPES["float64"]) == b"\0" + raw


def test_the_layout_is_the_one_described() -> None:
    """Decode a chunk by hand, so that the format cannot change unnoticed."""
    raw = normal(DTYPES["float32"], 10_000, seed=9)
    payload = encoded(raw, DTYPES["float32"])
    method, rotation, count = struct.unpack_from("<BBB", payload)
    assert (method, rotation, count) == (1, 1, 3)
    told = [struct.unpack_from("<BI", payload, 3 + 5 * lane) for lane in range(count)]
    assert [width for width, _ in told] == [2, 1, 1]
    assert [length for _, length in told[:2]] == [20_000, 10_000]
    lanes, start = [], 3 + 5 * count
    for width, length in told:
        lane = payload[start : start + length]
        if length < width * 10_000:
            lane = zstandard.ZstdDecompressor().decompress(lane)
        lanes.append(np.frombuffer(lane, f"<u{width}").astype("<u4"))
        start += length
    assert start == len(payload)
    upper = lanes[1] | lanes[2] << 8
    words = lanes[0] | (upper >> 1 | upper << 15) << 16
    assert words.tobytes() == raw


def test_noise_is_a_view_of_what_was_given() -> None:
    raw = bytearray(np.random.default_rng(0).bytes(4096))
    _, piece = encode_chunk(memoryview(raw), DTYPES["float32"], None)
    raw[0] ^= 255
    assert bytes(piece) == raw


def test_memory_of_any_format_may_be_given() -> None:
    values = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    payload = b"".join(encode_chunk(values.data, DTYPES["float32"], None))
    out = np.empty_like(values)
    decode_chunk(memoryview(payload), DTYPES["float32"], None, out.data)
    assert out.tobytes() == values.tobytes()


def test_bytes_of_no_whole_elements_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="10 bytes are no whole number of float32"):
        encode_chunk(memoryview(bytes(10)), DTYPES["float32"], None)
    with pytest.raises(InvalidInputError, match="12 bytes are no whole number of complex64"):
        decode_chunk(memoryview(b"\0" + bytes(12)), DTYPES["complex64"], None, memoryview(bytearray(12)))


def test_more_than_a_chunk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 100)
    encode_chunk(memoryview(bytes(400)), DTYPES["float32"], None)
    with pytest.raises(InvalidInputError, match="404 bytes are more than a chunk"):
        encode_chunk(memoryview(bytes(404)), DTYPES["float32"], None)


def test_a_chunk_of_another_size_is_damage() -> None:
    raw = normal(DTYPES["float32"], 1000, 0)
    for payload in (encoded(raw, DTYPES["float32"]), b"\0" + raw):
        for size in (0, 4, 3996, 4004):
            with pytest.raises(DamagedCheckpointError):
                decoded(payload, DTYPES["float32"], size)


def test_only_a_chunk_of_differences_needs_a_base() -> None:
    raw = normal(DTYPES["float32"], 1000, 0)
    assert not needs_base(encoded(raw, DTYPES["float32"]))
    assert not needs_base(b"\0" + raw)
    assert not needs_base(b"")
    assert needs_base(encoded(raw, DTYPES["float32"], raw))
