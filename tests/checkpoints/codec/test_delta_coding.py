"""Chunks stored as differences to an earlier version of the tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_contents import DTYPE_NAMES, KINDS, changed, contents, normal

from ckptlake.checkpoints.codec.chunks import decode_chunk, encode_chunk, needs_base
from ckptlake.checkpoints.dtypes import DTYPES, DType, get_dtype
from ckptlake.errors import InvalidInputError

ELEMENTS = 1 << 17


def encoded(raw: bytes, dtype: DType, base: bytes | None) -> bytes:
    return b"".join(encode_chunk(memoryview(raw), dtype, None if base is None else memoryview(base)))


def decoded(payload: bytes, dtype: DType, size: int, base: bytes | None) -> bytes:
    out = bytearray(b"\xa5" * size)
    decode_chunk(memoryview(payload), dtype, None if base is None else memoryview(base), memoryview(out))
    return bytes(out)


def stepped(name: str, relative: float) -> tuple[bytes, bytes]:
    """Return weights and the same weights after steps of a relative size."""
    rng = np.random.default_rng(11)
    before = rng.standard_normal(ELEMENTS) * 0.02
    after = before * (1 + rng.standard_normal(ELEMENTS) * relative)
    if name == "bfloat16":
        first, second = ((values.astype("<f4").view("<u4") >> 16).astype("<u2") for values in (before, after))
        return first.tobytes(), second.tobytes()
    size = DTYPES[name].itemsize
    return before.astype(f"<f{size}").tobytes(), after.astype(f"<f{size}").tobytes()


@settings(max_examples=120)
@given(
    name=st.sampled_from(DTYPE_NAMES),
    kind=st.sampled_from(KINDS),
    of_base=st.sampled_from([*KINDS, "a few changed", "all changed"]),
    size=st.integers(0, 3000) | st.sampled_from([8191, 8193, 65537]),
    seed=st.integers(0, 99),
)
def test_every_type_comes_back_against_any_base(name: str, kind: str, of_base: str, size: int, seed: int) -> None:
    dtype = get_dtype(name)
    base = contents(dtype, size, kind if of_base.endswith("changed") else of_base, seed)
    if of_base.endswith("changed"):
        raw = changed(dtype, base, 0.01 if of_base == "a few changed" else 1, seed)
    else:
        raw = contents(dtype, size, kind, seed + 1)
    payload = encoded(raw, dtype, base)
    assert len(payload) <= len(raw) + 1
    assert decoded(payload, dtype, len(raw), base) == raw


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_words_at_both_ends_of_their_range_come_back(name: str) -> None:
    dtype = DTYPES[name]
    low, high = bytes(2000 * dtype.itemsize), b"\xff" * (2000 * dtype.itemsize)
    for raw, base in ((low, high), (high, low), (low, low), (high, high)):
        assert decoded(encoded(raw, dtype, base), dtype, len(raw), base) == raw


@pytest.mark.parametrize(
    ("name", "relative", "most", "of_planes"),
    [
        ("float32", 1e-3, 0.56, 0.7),
        ("float32", 1e-5, 0.33, 0.4),
        ("bfloat16", 1e-3, 0.10, 0.2),
        ("float16", 1e-3, 0.24, 0.3),
        ("float64", 1e-6, 0.55, 0.7),
    ],
)
def test_slightly_changed_weights_cost_little(name: str, relative: float, most: float, of_planes: float) -> None:
    base, raw = stepped(name, relative)
    payload = encoded(raw, DTYPES[name], base)
    assert needs_base(payload)
    assert decoded(payload, DTYPES[name], len(raw), base) == raw
    assert len(payload) / len(raw) <= most
    assert len(payload) < of_planes * len(encoded(raw, DTYPES[name], None))


def test_changed_rows_cost_what_the_rows_do() -> None:
    dtype = DTYPES["float32"]
    base = np.frombuffer(normal(dtype, ELEMENTS, 1), "<f4").reshape(-1, 256)
    raw = base.copy()
    rows = np.random.default_rng(2).choice(len(raw), len(raw) // 20, replace=False)
    raw[rows] *= np.float32(1.1)
    payload = encoded(raw.tobytes(), dtype, base.tobytes())
    assert len(payload) < 0.06 * raw.nbytes
    assert decoded(payload, dtype, raw.nbytes, base.tobytes()) == raw.tobytes()


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_an_unchanged_chunk_costs_next_to_nothing(name: str) -> None:
    raw = contents(DTYPES[name], ELEMENTS, "noise", 1)
    payload = encoded(raw, DTYPES[name], raw)
    assert needs_base(payload)
    assert len(payload) < 0.001 * len(raw)


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_a_base_that_has_nothing_to_do_with_it_goes_unused(name: str) -> None:
    dtype = DTYPES[name]
    raw, base = normal(dtype, ELEMENTS, 1), contents(dtype, ELEMENTS, "noise", 2)
    assert encoded(raw, dtype, base) == encoded(raw, dtype, None)


def test_a_chunk_that_went_without_its_base_is_read_without_it() -> None:
    dtype = DTYPES["float32"]
    raw, base = normal(dtype, 5000, 1), contents(dtype, 5000, "noise", 2)
    payload = encoded(raw, dtype, base)
    assert not needs_base(payload)
    assert decoded(payload, dtype, len(raw), None) == decoded(payload, dtype, len(raw), base) == raw


def test_another_base_gives_other_bytes() -> None:
    dtype = DTYPES["float32"]
    base, raw = normal(dtype, 5000, 1), changed(dtype, normal(dtype, 5000, 1), 0.5, 3)
    payload = encoded(raw, dtype, base)
    assert decoded(payload, dtype, len(raw), normal(dtype, 5000, 2)) != raw


def test_a_missing_or_unequal_base_is_refused() -> None:
    dtype = DTYPES["float32"]
    raw = normal(dtype, 1000, 1)
    with pytest.raises(InvalidInputError, match="a base of 3996 bytes does not match 4000"):
        encoded(raw, dtype, raw[:-4])
    payload = encoded(raw, dtype, raw)
    with pytest.raises(InvalidInputError, match="give the base's bytes"):
        decoded(payload, dtype, len(raw), None)
    with pytest.raises(InvalidInputError, match="its base 3996"):
        decoded(payload, dtype, len(raw), raw[:-4])
