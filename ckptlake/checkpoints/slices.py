"""Parts of a stored tensor, of which only the rows that are asked for are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.errors import InvalidInputError


class TensorSlice:
    """A stored tensor that is indexed like one; the first index decides which bytes are read.

    Args:
        info: what the whole tensor is.
        read: returns bytes of it.
        make: makes a tensor of bytes.
    """

    def __init__(
        self,
        info: LeafInfo,
        read: Callable[[int, int], memoryview],
        make: Callable[[LeafInfo, memoryview], Any],
    ) -> None:
        self._info = info
        self._read = read
        self._make = make

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions of the whole tensor."""
        return self._info.shape

    @property
    def dtype(self) -> str:
        """The name of its element type."""
        return self._info.dtype.name

    def __repr__(self) -> str:
        return f"TensorSlice({self._info.path!r}, {self.dtype}, {list(self.shape)})"

    def __getitem__(self, index: Any) -> Any:
        """Return what the same index gives on the whole tensor; strides are taken after reading.

        Raises:
            InvalidInputError: the tensor has no dimensions and the index is not ``...`` or ``()``.
        """
        first, *rest = (index or (...,)) if isinstance(index, tuple) else (index,)
        if not self.shape:
            if index not in ((), ...):
                raise InvalidInputError(f"tensor {self._info.path!r} has no dimensions: take it with [()]")
            return self._make(self._info, self._read(0, self._info.dtype.itemsize))
        start, stop, step = self._rows(first)
        row_bytes = math.prod(self.shape[1:]) * self._info.dtype.itemsize
        part = replace(self._info, shape=(stop - start, *self.shape[1:]))
        rows = self._make(part, self._read(start * row_bytes, stop * row_bytes))
        if isinstance(first, slice) or first is ...:
            return rows[(slice(None, None, step), *rest)] if rest or step != 1 else rows
        return rows[(0, *rest)]

    def _rows(self, first: Any) -> tuple[int, int, int]:
        """Return the first row, the one behind the last, and the distance between two."""
        if first is ...:
            return 0, self.shape[0], 1
        if isinstance(first, slice):
            start, stop, step = first.indices(self.shape[0])
            if step < 1:
                raise InvalidInputError(f"a slice needs a step of at least 1, got {step}: reverse the result instead")
            return start, max(start, stop), step
        number = int(first)
        if not -self.shape[0] <= number < self.shape[0]:
            raise IndexError(f"row {number} is outside of tensor {self._info.path!r} with {self.shape[0]} rows")
        number %= self.shape[0]
        return number, number + 1, 1
