"""Element types of stored tensors: their names, sizes and what other formats call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ckptlake.errors import InvalidInputError

Kind = Literal["float", "int", "uint", "bool", "complex"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type; bytes are always little-endian.

    Attributes:
        name: as torch and numpy print it, such as ``bfloat16``.
        itemsize: bytes of one element.
        kind: what its elements are.
        code: its name in a safetensors header, or None where that format has none.
        numpy: its name as a numpy type, or None where numpy has none.
    """

    name: str
    itemsize: int
    kind: Kind
    code: str | None = None
    numpy: str | None = None

    def as_numpy(self) -> npt.DTypeLike:
        """Return the numpy type of the same bytes: its own, or unsigned integers of its size."""
        return np.dtype(self.numpy or f"u{self.itemsize}").newbyteorder("<")


_ALL = (
    DType("float64", 8, "float", "F64", "float64"),
    DType("float32", 4, "float", "F32", "float32"),
    DType("float16", 2, "float", "F16", "float16"),
    DType("bfloat16", 2, "float", "BF16"),
    DType("float8_e4m3fn", 1, "float", "F8_E4M3"),
    DType("float8_e5m2", 1, "float", "F8_E5M2"),
    DType("float8_e8m0fnu", 1, "float", "F8_E8M0"),
    DType("float8_e4m3fnuz", 1, "float"),
    DType("float8_e5m2fnuz", 1, "float"),
    DType("float4_e2m1fn_x2", 1, "float"),
    DType("int64", 8, "int", "I64", "int64"),
    DType("int32", 4, "int", "I32", "int32"),
    DType("int16", 2, "int", "I16", "int16"),
    DType("int8", 1, "int", "I8", "int8"),
    DType("uint64", 8, "uint", "U64", "uint64"),
    DType("uint32", 4, "uint", "U32", "uint32"),
    DType("uint16", 2, "uint", "U16", "uint16"),
    DType("uint8", 1, "uint", "U8", "uint8"),
    DType("bool", 1, "bool", "BOOL", "bool"),
    DType("complex128", 16, "complex", None, "complex128"),
    DType("complex64", 8, "complex", "C64", "complex64"),
    DType("complex32", 4, "complex"),
)
DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _ALL}
BY_CODE: dict[str, DType] = {dtype.code: dtype for dtype in _ALL if dtype.code is not None}


def get_dtype(name: str) -> DType:
    """Return the element type called `name`.

    Raises:
        InvalidInputError: there is none; the message lists those there are.
    """
    try:
        return DTYPES[name]
    except KeyError:
        raise InvalidInputError(f"no element type is called {name!r:.60}; there are {', '.join(DTYPES)}") from None
