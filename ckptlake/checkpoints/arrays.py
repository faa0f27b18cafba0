"""numpy's arrays as nodes and bytes, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.dtypes import StringDType

from ckptlake.checkpoints.dtypes import DTYPES, DType
from ckptlake.checkpoints.leaves import JSON, LeafInfo
from ckptlake.checkpoints.numpy_types import read_dtype, read_shape, write_dtype
from ckptlake.checkpoints.plain_values import text_of
from ckptlake.checkpoints.sharing import Add, Block
from ckptlake.checkpoints.windows import Window
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

NATIVE: dict[str, DType] = {
    np.dtype(dtype.as_numpy()).str: dtype for dtype in DTYPES.values() if dtype.numpy is not None
}
"""Element types whose arrays are stored as what they are, by numpy's code; others are stored as bytes.

numpy's two names for one integer, such as ``long`` and ``long long``, are one of them.
"""

_BYTE = DTYPES["uint8"]


def write_array(array: npt.NDArray[Any], path: str, add: Add) -> JSON:
    """Return the node of an array and `add` the block of its elements.

    Raises:
        InvalidInputError: its elements are objects of Python.
    """
    if isinstance(array.dtype, StringDType):
        return _write_strings(array)
    dtype = NATIVE.get(array.dtype.str) if array.dtype.names is None else None
    if dtype is not None:
        return _add(array, array, dtype, path, add)
    described = write_dtype(array.dtype)
    data = np.empty(0, np.uint8)
    if array.nbytes:
        opaque = array.view(np.dtype((np.void, array.itemsize)))  # whose copies keep the bytes between fields
        data = np.ascontiguousarray(opaque).reshape(-1).view(np.uint8)
    return {"raw": [_add(data, array, _BYTE, path, add), described, list(array.shape)]}


def _add(array: npt.NDArray[Any], source: npt.NDArray[Any], dtype: DType, path: str, add: Add) -> JSON:
    node: dict[str, JSON] = {}
    is_its_memory = np.may_share_memory(array, source)
    add(
        Block(
            path=path,
            tags=("array", "array_view"),
            array=array,
            source=source,
            dtype=dtype,
            shape=array.shape,
            strides=array.strides,
            address=array.__array_interface__["data"][0] if is_its_memory else 0,
            space=("numpy", dtype.name),
            node=node,
        )
    )
    return node


def _write_strings(array: npt.NDArray[Any]) -> JSON:
    if array.dtype != StringDType():
        raise InvalidInputError(f"of dtype {array.dtype!r}: store .astype(np.dtypes.StringDType())")
    return {"strings": [list(array.shape), array.reshape(-1).tolist()]}


def read_strings(payload: JSON) -> npt.NDArray[Any]:
    """Return the array of strings of any length that `write_array` has written; raises as a plain reader does."""
    match payload:
        case [shape, list(texts)]:
            return np.array([text_of(text) for text in texts], StringDType()).reshape(read_shape(shape))
    raise TypeError("no strings")


def array_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the elements as contiguous little-endian bytes, without a copy where they are that already."""
    flat = np.ascontiguousarray(array).reshape(-1)
    little = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
    return little.view(np.uint8).data


def as_array(info: LeafInfo, data: memoryview) -> npt.NDArray[Any]:
    """Return an array over bytes, without a copy.

    Args:
        info: element type and shape.
        data: contiguous little-endian bytes; the array can be written if they can.

    Raises:
        InvalidInputError: numpy has no such element type.
        DamagedCheckpointError: there are more or fewer bytes than the shape takes, or numpy has no such shape.

    >>> as_array(LeafInfo("w", DTYPES["float32"], (2,)), memoryview(bytes(4) + b"\\0\\0\\x80?")).tolist()
    [0.0, 1.0]
    """
    if info.dtype.numpy is None:
        raise InvalidInputError(
            f"{info.path!r:.200} is of {info.dtype.name}, which numpy does not have: load it as a tensor with "
            "`pip install 'ckptlake[torch]'`, or read its bytes"
        )
    info.check(data)
    return over(data, np.dtype(info.dtype.as_numpy()), info.shape)


def over(data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an array over bytes whose count has been checked; it holds on to the memory they are in.

    Raises:
        DamagedCheckpointError: numpy has no such shape.
    """
    # Given a memoryview, `ndarray` would keep what that looks at, but not keep it from being closed: a mapped file
    # would be gone from under the array.
    held = np.frombuffer(data, np.uint8)
    try:
        return np.ndarray(shape, dtype, buffer=held)
    except (ValueError, OverflowError) as error:
        raise DamagedCheckpointError(f"no array has {dtype} and the shape {shape!s:.100}: {error}") from None


def view_within(array: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """Return the elements of a contiguous array that are in a window which has been checked."""
    steps = tuple(stride * array.itemsize for stride in window.strides)
    return np.lib.stride_tricks.as_strided(array.reshape(-1)[window.offset :], window.shape, steps)


def reinterpret(array: npt.NDArray[Any], described: JSON, shape: JSON) -> npt.NDArray[Any]:
    """Return bytes as the array of another dtype that they were; raises as a plain reader does."""
    dtype, sizes = read_dtype(described), read_shape(shape)
    if array.dtype != np.uint8 or math.prod(sizes) * dtype.itemsize != array.nbytes or dtype.subdtype is not None:
        raise ValueError("not the bytes of that dtype and shape")
    return over(array.data, dtype, sizes)
