"""numpy's dtypes and scalars as JSON and back.

Readers raise TypeError, ValueError or OverflowError where a payload is nothing a writer has written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ckptlake.checkpoints.leaves import JSON
from ckptlake.checkpoints.plain_values import read_bytes, read_int, text_of, write_bytes
from ckptlake.errors import InvalidInputError

_DEEPEST = 16
_SIMPLE = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[qQ]|[SUV]\d{1,10}|[mM]8(?:\[\d{0,10}[A-Za-zμ]{1,7}\])?)"
)
_LONG_LONG = "qQ"  # types of their own that numpy's codes do not tell from int64 and uint64


def write_dtype(dtype: np.dtype[Any], depth: int = 0) -> JSON:
    """Return a dtype as numpy's own code, or ``{"struct": ...}`` or ``{"subarray": ...}`` of such.

    Raises:
        InvalidInputError: its elements are objects of Python, or another package made it.
    """
    if dtype.hasobject:
        raise InvalidInputError(f"of dtype {dtype}, which is objects of Python: store .tolist(), or a numeric array")
    if dtype.isbuiltin == 2:
        raise InvalidInputError(f"of dtype {dtype}, which is not numpy's own: store .view(np.uint{8 * dtype.itemsize})")
    if depth > _DEEPEST:
        raise InvalidInputError(f"of a dtype nested deeper than {_DEEPEST}: store its fields one by one")
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        return {"subarray": [write_dtype(item, depth + 1), list(shape)]}
    if dtype.names is None:
        return dtype.str[0] + dtype.char if dtype.char in _LONG_LONG else dtype.str
    if dtype.type is not np.void:
        raise InvalidInputError(f"of a dtype for {dtype.type.__name__}: store .view(np.dtype((np.void, a.dtype)))")
    fields: list[JSON] = []
    for name in dtype.names:
        item, offset, *title = dtype.fields[name]  # type: ignore[index]
        if title and not isinstance(title[0], str):
            raise InvalidInputError(f"of a dtype whose field {name!r:.60} has a title other than text: drop it")
        fields.append([name, write_dtype(item, depth + 1), offset, *title])
    return {"struct": [fields, dtype.itemsize, dtype.isalignedstruct]}


def read_dtype(node: JSON, depth: int = 0) -> np.dtype[Any]:
    """Return the dtype that `write_dtype` has written; never one of objects."""
    if depth > _DEEPEST:
        raise ValueError("a dtype nested too deep")
    match node:
        case str() if _SIMPLE.fullmatch(node):
            return np.dtype(node)
        case {"subarray": [item, list(shape)]}:
            return np.dtype((read_dtype(item, depth + 1), read_shape(shape)))
        case {"struct": [list(fields), itemsize, bool(aligned)]}:
            return _read_struct(fields, read_int(itemsize), aligned, depth)
    raise TypeError("no dtype")


def _read_struct(fields: list[JSON], itemsize: int, aligned: bool, depth: int) -> np.dtype[Any]:
    spec: dict[str, list[Any]] = {"names": [], "formats": [], "offsets": [], "titles": []}
    for field in fields:
        match field:
            case [str(name), item, offset, *title] if len(title) < 2:
                spec["names"].append(name)
                spec["formats"].append(read_dtype(item, depth + 1))
                spec["offsets"].append(read_int(offset))
                spec["titles"].append(text_of(title[0]) if title else None)
            case _:
                raise TypeError("no field")
    return np.dtype({**spec, "itemsize": itemsize}, align=aligned)  # type: ignore[call-overload, no-any-return]


def read_shape(node: JSON) -> tuple[int, ...]:
    """Return a shape: a list of integers of at least 0."""
    if not isinstance(node, list):
        raise TypeError("no shape")
    shape = tuple(read_int(size) for size in node)
    if min(shape, default=0) < 0:
        raise ValueError("a size below 0")
    return shape


def write_scalar(value: np.generic) -> JSON:
    """Return the node of a numpy scalar of any kind.

    Raises:
        InvalidInputError: its dtype cannot be kept.
    """
    match value:
        case np.str_():
            return {"np_str": str.__str__(value)}  # str(value) drops NULs at the end
        case np.bytes_():
            return {"np_bytes": write_bytes(bytes(value))}
    return {"scalar": [write_dtype(value.dtype), write_bytes(value.tobytes())]}


def read_scalar(payload: JSON) -> object:
    """Return the scalar of a dtype and its bytes."""
    match payload:
        case [described, encoded]:
            dtype, data = read_dtype(described), bytearray(read_bytes(encoded))
            if len(data) != dtype.itemsize or dtype.subdtype is not None:
                raise ValueError("not the bytes of one scalar")
            return np.ndarray((), dtype, buffer=data)[()]
    raise TypeError("no scalar")


NUMPY_READERS: dict[str, Callable[[JSON], object]] = {
    "np_str": lambda payload: np.str_(text_of(payload)),
    "np_bytes": lambda payload: np.bytes_(read_bytes(payload)),
    "scalar": read_scalar,
    "dtype": read_dtype,
}
"""How what stands behind each tag is read."""
