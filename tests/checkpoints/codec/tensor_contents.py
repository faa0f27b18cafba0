"""Bytes of tensors of every element type, of the kinds that checkpoints hold and of kinds made to be awkward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckptlake.checkpoints.dtypes import DTYPES, DType

DTYPE_NAMES = sorted(DTYPES)
KINDS = ["normal", "zeros", "constant", "noise", "not numbers", "sparse", "counting", "mixed"]
# The exponent bits of one float, all set in infinities and in what is not a number.
_EXPONENTS = {"float64": 0x7FF0 << 48, "float32": 0x7F80 << 16, "float16": 0x7C00, "bfloat16": 0x7F80}
_PARTS = {"complex128": "float64", "complex64": "float32", "complex32": "float16"}


def contents(dtype: DType, elements: int, kind: str, seed: int) -> bytes:
    """Return `elements` elements of one kind."""
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return normal(dtype, elements, seed)
    if kind == "zeros":
        return bytes(elements * dtype.itemsize)
    if kind == "constant":
        return rng.bytes(dtype.itemsize) * elements
    if kind == "noise":
        return rng.bytes(elements * dtype.itemsize)
    if kind == "not numbers":
        return _not_numbers(dtype, elements, rng)
    if kind == "sparse":
        data = np.zeros((elements, dtype.itemsize), np.uint8)
        rows = rng.random(elements) < 0.03
        data[rows] = rng.integers(0, 256, (int(rows.sum()), dtype.itemsize))
        return data.tobytes()
    if kind == "counting":
        return np.arange(elements * dtype.itemsize, dtype=np.uint64).astype(np.uint8).tobytes()
    half = elements // 2
    return contents(dtype, half, "normal", seed) + contents(dtype, elements - half, "noise", seed)


def normal(dtype: DType, elements: int, seed: int, scale: float = 0.02) -> bytes:
    """Return normally distributed numbers, or what comes nearest to them in that type."""
    count = elements * (2 if dtype.kind == "complex" else 1)
    values = np.random.default_rng(seed).standard_normal(count) * scale
    name = _PARTS.get(dtype.name, dtype.name)
    if name in ("float64", "float32", "float16"):
        return values.astype(f"<f{np.dtype(name).itemsize}").tobytes()
    if name == "bfloat16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    if dtype.kind == "float":
        return (values.astype("<f2").view("<u2") >> 8).astype("u1").tobytes()
    if dtype.kind == "bool":
        return (values > 0).tobytes()
    return np.round(values * 1500).astype("<i8").astype(dtype.as_numpy()).tobytes()


def _not_numbers(dtype: DType, elements: int, rng: np.random.Generator) -> bytes:
    name = _PARTS.get(dtype.name, dtype.name)
    noise = rng.bytes(elements * dtype.itemsize)
    if name not in _EXPONENTS:
        return noise
    exponent = _EXPONENTS[name]
    words: npt.NDArray[np.unsignedinteger] = np.frombuffer(
        noise, f"<u{2 if name == 'bfloat16' else np.dtype(name).itemsize}"
    )
    return (words | words.dtype.type(exponent)).tobytes()


def changed(dtype: DType, raw: bytes, share: float, seed: int) -> bytes:
    """Return the bytes with a share of their elements moved by a few units in the last place."""
    size = dtype.itemsize // 2 if dtype.kind == "complex" else dtype.itemsize
    words = np.frombuffer(raw, f"<u{size}").copy()
    rng = np.random.default_rng(seed)
    moved = rng.random(words.size) < share
    words[moved] += rng.integers(0, 7, int(moved.sum())).astype(words.dtype) - words.dtype.type(3)
    return words.tobytes()
