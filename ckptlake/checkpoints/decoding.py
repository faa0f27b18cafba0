"""The numbers that the bytes of a tensor stand for: chunks of bytes in, blocks of float32 or float64 out."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptlake.checkpoints.dtypes import DType
from ckptlake.errors import InvalidInputError

Raw = npt.NDArray[Any]
Numbers = npt.NDArray[np.floating[Any]]

_FLOAT64_BELOW = 4096


class Scratch(threading.local):
    """Arrays that one thread uses again and again, each as large as the largest that was asked for."""

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, size: int, dtype: npt.DTypeLike) -> Raw:
        """Return `size` elements of arbitrary content; the next call for `name` overwrites them."""
        nbytes = size * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            buffer = self._buffers[name] = np.empty(nbytes, np.uint8)
        return buffer[:nbytes].view(dtype)


scratch = Scratch()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the elements of one type become numbers.

    Attributes:
        raw: the numpy type under which the bytes are read.
        numbers: float32 where it holds every value, otherwise float64.
        width: numbers of one element: 2 for complex types and for two values in a byte, otherwise 1.
        is_complex: two numbers that follow each other are the parts of one.
        fill: writes the numbers of an array of `raw` into another; None where they are the bytes themselves.
    """

    raw: np.dtype[Any]
    numbers: np.dtype[Any]
    width: int = 1
    is_complex: bool = False
    fill: Callable[[Raw, Raw], None] | None = None

    @property
    def is_wide_integer(self) -> bool:
        """Whether float64 does not hold every value."""
        return self.raw.kind in "iu" and self.raw.itemsize == 8


class Block(NamedTuple):
    """Consecutive elements of a tensor, valid until the next block is asked for.

    Attributes:
        elements: under the numpy type of their bytes.
        numbers: what they stand for, `width` numbers for each.
    """

    elements: Raw
    numbers: Numbers


class Blocks:
    """Cuts consecutive chunks of a tensor at fixed positions, whatever their sizes; copies no more than it must."""

    __slots__ = ("_block_nbytes", "_decoding", "_held", "_kept", "_name", "remaining")

    def __init__(self, decoding: Decoding, num_elements: int, num_elements_of_block: int, name: str) -> None:
        """Expect `num_elements`; blocks of two objects are valid together if their names differ."""
        self._decoding = decoding
        self._name = name
        self.remaining = num_elements * decoding.raw.itemsize
        self._block_nbytes = min(num_elements, num_elements_of_block) * decoding.raw.itemsize
        self._kept: npt.NDArray[np.uint8] | None = None
        self._held = 0

    def check(self, chunk: memoryview) -> None:
        """Refuse bytes that cannot be the next ones.

        Raises:
            InvalidInputError: they are not contiguous, no whole elements, or more than are missing.
        """
        itemsize = self._decoding.raw.itemsize
        if not chunk.c_contiguous:
            raise InvalidInputError("a chunk of a tensor is not contiguous in memory; copy it first")
        if chunk.nbytes % itemsize or chunk.nbytes > self.remaining:
            raise InvalidInputError(
                f"a chunk has {chunk.nbytes} bytes where whole elements of {itemsize} bytes are needed and "
                f"{self.remaining} bytes are missing; cut between elements and give each byte once"
            )

    def cut(self, chunk: memoryview) -> Iterator[Block]:
        """Yield the blocks that `chunk` completes; what is left of it is kept for the next call."""
        rest = np.frombuffer(chunk, np.uint8)
        while rest.size:
            missing = min(self._block_nbytes - self._held, self.remaining)
            piece, rest = rest[:missing], rest[missing:]
            self.remaining -= piece.size
            if piece.size == missing and not self._held:
                yield self._block(piece)
                continue
            if self._kept is None:
                self._kept = np.empty(self._block_nbytes, np.uint8)
            self._kept[self._held : self._held + piece.size] = piece
            self._held += piece.size
            if piece.size == missing:
                whole, self._held = self._kept[: self._held], 0
                yield self._block(whole)

    def _block(self, content: npt.NDArray[np.uint8]) -> Block:
        elements = content.view(self._decoding.raw)
        if not elements.flags.aligned:
            copy = scratch.array(f"elements {self._name}", elements.size, elements.dtype)
            np.copyto(copy, elements)
            elements = copy
        if self._decoding.fill is None:
            numbers = elements.view(self._decoding.numbers)
        else:
            size = elements.size * self._decoding.width
            numbers = scratch.array(f"numbers {self._name}", size, self._decoding.numbers)
            self._decoding.fill(elements, numbers)
        # Few numbers cost the same in float64.
        return Block(elements, numbers.astype(np.float64) if numbers.size < _FLOAT64_BELOW else numbers)


@cache
def decoding_of(dtype: DType) -> Decoding:
    """Return how the elements of `dtype` become numbers.

    The formats of 8 and fewer bits are those of the Open Compute Project (OFP8 1.0 for e4m3fn and e5m2, MX 1.0 for
    e8m0fnu and e2m1fn) and of Noune et al., "8-bit numerical formats for deep neural networks", 2022 (both fnuz).
    A byte of `float4_e2m1fn_x2` holds two values, the first in its low half.
    """
    raw, f4, f8 = np.dtype(dtype.as_numpy()), np.dtype(np.float32), np.dtype(np.float64)
    if dtype.name == "complex32":
        return Decoding(raw, f4, 2, is_complex=True, fill=_from_table(_float16_values(), np.uint16))
    if dtype.kind == "complex":
        return Decoding(raw, f4 if dtype.itemsize == 8 else f8, 2, is_complex=True)
    if dtype.name in ("float32", "float64"):
        return Decoding(raw, raw)
    if dtype.kind in ("int", "uint"):
        return Decoding(raw, f4 if dtype.itemsize <= 2 else f8, fill=_convert)
    if dtype.kind == "bool":
        return Decoding(raw, f4, fill=_is_set)
    if dtype.name == "bfloat16":
        return Decoding(raw, f4, fill=_widen_bfloat16)
    if dtype.name == "float16":
        return Decoding(raw, f4, fill=_from_table(_float16_values(), np.uint16))
    if dtype.name == "float4_e2m1fn_x2":
        return Decoding(raw, f4, 2, fill=_from_table(_pairs_of_float4(), np.uint8))
    return Decoding(raw, f4, fill=_from_table(_SMALL_FLOATS[dtype.name](), np.uint8))


def absolute_difference(a: Raw, b: Raw) -> Numbers:
    """Return the distance of each pair of 64-bit integers, of which float64 would lose the low bits, as float64."""
    larger, smaller = np.maximum(a, b).view(np.uint64), np.minimum(a, b).view(np.uint64)
    return np.subtract(larger, smaller).astype(np.float64)


def leading_bits(integers: Raw) -> Numbers:
    """Return a float64 of the same leading bit as each 64-bit integer; conversion alone may round up to the next."""
    magnitude = np.abs(integers).view(np.uint64)
    return (magnitude & ~(magnitude >> np.uint64(1))).astype(np.float64)


def magnitudes(parts: Numbers) -> Numbers:
    """Return the absolute values of complex numbers as float64, in scratch; NaN where a part is.

    Those of finite numbers are finite: float64's largest where it ends before them.
    """
    elements = parts.view(f"c{2 * parts.itemsize}")
    found = scratch.array("magnitudes", elements.size, np.float64)
    np.absolute(elements, out=found, dtype=np.float64)
    if not math.isfinite(found.max()):
        found[np.isfinite(elements) & np.isinf(found)] = sys.float_info.max
        found[np.isnan(elements)] = np.nan
    return found


def _convert(raw: Raw, out: Raw) -> None:
    np.copyto(out, raw, casting="unsafe")


def _is_set(raw: Raw, out: Raw) -> None:
    np.copyto(out, raw.view(np.uint8) != 0)


def _widen_bfloat16(raw: Raw, out: Raw) -> None:
    np.left_shift(raw, 16, out=out.view(np.uint32), dtype=np.uint32)


def _from_table(table: Raw, codes: type[np.unsignedinteger[Any]]) -> Callable[[Raw, Raw], None]:
    def fill(raw: Raw, out: Raw) -> None:
        # Every code is inside the table; "clip" spares the copy of `out` that "raise" would make.
        np.take(table, raw.view(codes), out=out.view(table.dtype), mode="clip")

    return fill


def _float16_values() -> Numbers:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _float8_e4m3fn() -> Numbers:
    values = _small_float(exponent_bits=4, mantissa_bits=3, bias=7)
    values[[0x7F, 0xFF]] = np.nan
    return values


def _float8_e5m2() -> Numbers:
    values = _small_float(exponent_bits=5, mantissa_bits=2, bias=15)
    values[[0x7C, 0xFC]] = np.inf, -np.inf
    values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return values


def _float8_e4m3fnuz() -> Numbers:
    values = _small_float(exponent_bits=4, mantissa_bits=3, bias=8)
    values[0x80] = np.nan
    return values


def _float8_e5m2fnuz() -> Numbers:
    values = _small_float(exponent_bits=5, mantissa_bits=2, bias=16)
    values[0x80] = np.nan
    return values


def _float8_e8m0fnu() -> Numbers:
    powers = np.ldexp(np.ones(255, np.float32), np.arange(255) - 127)
    return np.append(powers, np.float32(np.nan))


def _pairs_of_float4() -> npt.NDArray[np.uint64]:
    values = _small_float(exponent_bits=2, mantissa_bits=1, bias=1)
    codes = np.arange(256)
    pairs = np.stack([values[codes & 15], values[codes >> 4]], axis=1)
    return pairs.view(np.uint64).reshape(-1)


def _small_float(exponent_bits: int, mantissa_bits: int, bias: int) -> Numbers:
    """Return the value of each code of sign, exponent and mantissa as if none stood for an infinity or a NaN."""
    codes = np.arange(2 << (exponent_bits + mantissa_bits))
    mantissa = codes & ((1 << mantissa_bits) - 1)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    significand = np.where(exponent > 0, mantissa + (1 << mantissa_bits), mantissa)
    values: Numbers = np.ldexp(significand.astype(np.float32), np.maximum(exponent, 1) - bias - mantissa_bits)
    values[codes.size // 2 :] *= -1
    return values


_SMALL_FLOATS: dict[str, Callable[[], Numbers]] = {
    "float8_e4m3fn": _float8_e4m3fn,
    "float8_e5m2": _float8_e5m2,
    "float8_e8m0fnu": _float8_e8m0fnu,
    "float8_e4m3fnuz": _float8_e4m3fnuz,
    "float8_e5m2fnuz": _float8_e5m2fnuz,
}
