"""What a flattened state is made of: a JSON tree, and the tensors and arrays that hang on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

from ckptlake.checkpoints.dtypes import DType
from ckptlake.errors import DamagedCheckpointError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


@dataclass(frozen=True, slots=True)
class LeafInfo:
    """One stored block of elements, without its bytes.

    Attributes:
        path: keys of the containers around it, joined by ``/``.
        dtype: the type of one element.
        shape: elements along each axis; ``()`` for a single number.
    """

    path: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes they take, contiguous."""
        return self.num_elements * self.dtype.itemsize

    def check(self, data: memoryview) -> None:
        """Make sure that `data` has the bytes of this shape.

        Raises:
            DamagedCheckpointError: it has more or fewer, or the shape is none.
        """
        if any(type(size) is not int or size < 0 for size in self.shape):
            raise DamagedCheckpointError(f"{self.path!r:.200} has no shape: {self.shape!s:.100}")
        if data.nbytes != self.nbytes:
            raise DamagedCheckpointError(
                f"{self.path!r:.200} of {self.dtype.name} and shape {self.shape!s:.100} takes {self.nbytes:.0f} bytes, "
                f"{data.nbytes} are there: restore the file, or load an older checkpoint"
            )


@dataclass(frozen=True, slots=True)
class Leaf(LeafInfo):
    """A block of elements that is still in the memory of the program.

    Attributes:
        array: a numpy array, or a detached torch tensor, on any device and of any strides; never a copy, so what
            the program writes into it before the bytes are read is what will be stored.
    """

    array: object = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A state taken apart; `tree` refers to `leaves` by their numbers."""

    tree: JSON
    leaves: tuple[Leaf, ...]
