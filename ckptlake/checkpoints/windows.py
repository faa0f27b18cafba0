"""Views of a leaf as the tree tells them, checked before any memory is touched."""

from __future__ import annotations

from dataclasses import dataclass

from ckptlake.checkpoints.leaves import JSON
from ckptlake.checkpoints.numpy_types import read_shape
from ckptlake.checkpoints.plain_values import read_int


@dataclass(frozen=True, slots=True)
class Window:
    """Some elements of a leaf; `offset` and `strides` count elements."""

    leaf: JSON
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def check(self, count: int) -> None:
        """Raise ValueError unless all its elements are among the `count` elements of the leaf."""
        reach = [(size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)]
        first = self.offset + sum(step for step in reach if step < 0)
        last = self.offset + sum(step for step in reach if step > 0)
        if 0 in self.shape or first < 0 or last >= count:
            raise ValueError("a view that reaches beyond its leaf")


def read_window(payload: JSON) -> Window:
    """Return the window of ``[leaf, offset, shape, strides]``; raises as a plain reader does."""
    match payload:
        case [leaf, offset, shape, list(strides)]:
            return Window(leaf, read_int(offset), read_shape(shape), tuple(read_int(stride) for stride in strides))
    raise TypeError("no view")
