"""Which of the blocks met in a state share memory, and which of them are therefore stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ckptlake.checkpoints.dtypes import DType
from ckptlake.checkpoints.leaves import JSON, Leaf


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Strided elements in the memory of the program, found somewhere in a state.

    Attributes:
        path: where in the state.
        tags: what its node says if it is stored, and if it is a view of what is stored.
        array: what a leaf would hold.
        source: the value found in the state; holding on to it keeps its identity from being given to another.
        dtype: the type of one element.
        shape: elements along each axis.
        strides: bytes from one element to the next along each axis.
        address: where the first element is, or 0 where that cannot be told.
        space: blocks share memory only if their spaces are equal.
        node: its node in the tree, empty until `place` knows what to say.
    """

    path: str
    tags: tuple[str, str]
    array: object
    source: object
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    address: int
    space: Hashable
    node: dict[str, JSON]

    def span(self, *, is_contiguous: bool) -> tuple[int, int]:
        """Return the addresses of the first byte its elements touch, and of the one after the last."""
        if is_contiguous:
            return self.address, self.address + math.prod(self.shape) * self.dtype.itemsize
        reach = [(size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)]
        low = self.address + sum(step for step in reach if step < 0)
        return low, self.address + sum(step for step in reach if step > 0) + self.dtype.itemsize

    def is_contiguous(self) -> bool:
        """Tell whether its elements follow each other in the order of its axes."""
        expected = self.dtype.itemsize
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def identity(self) -> Hashable:
        """Return what two blocks have in common if and only if they are the same elements."""
        if self.address == 0 or 0 in self.shape:
            return self.space, id(self.source), self.shape
        return self.space, self.address, self.shape, self.strides

    def is_aligned_with(self, holder: Block) -> bool:
        """Tell whether its elements, where they lie in those of `holder`, begin where those begin."""
        itemsize = self.dtype.itemsize
        steps = (self.address - holder.address, *self.strides)
        return not any(step % itemsize for step in steps)


Add: TypeAlias = Callable[[Block], None]


def place(blocks: Sequence[Block]) -> tuple[Leaf, ...]:
    """Choose what to store, number it in the order given, and fill the nodes of all blocks.

    Of blocks that share memory the largest contiguous one is stored, and those within it become views of it.
    A block that fits into none is stored by itself. Takes time proportional to n log n of the blocks.
    """
    holders = _holders(blocks)
    stored = [index for index, holder in enumerate(holders) if holder == index]
    numbers = {index: number for number, index in enumerate(stored)}
    for block, index in zip(blocks, holders, strict=True):
        block.node.update(_node(block, blocks[index], numbers[index]))
    return tuple(Leaf(block.path, block.dtype, block.shape, block.array) for block in (blocks[i] for i in stored))


def _holders(blocks: Sequence[Block]) -> list[int]:
    """Return for each block the index of the one that holds its elements, often its own."""
    first: dict[Hashable, int] = {}
    holders = [first.setdefault(block.identity(), index) for index, block in enumerate(blocks)]
    spaces: dict[Hashable, list[int]] = {}
    for index in first.values():
        if blocks[index].address != 0 and 0 not in blocks[index].shape:
            spaces.setdefault(blocks[index].space, []).append(index)
    found: dict[int, int] = {}
    for members in spaces.values():
        _sweep(blocks, members, found)
    return [found.get(index, index) for index in holders]


def _sweep(blocks: Sequence[Block], members: list[int], found: dict[int, int]) -> None:
    """Go through blocks of one space by address, the longer first, and note which lies in which."""
    order = []
    for index in members:
        is_contiguous = blocks[index].is_contiguous()
        low, high = blocks[index].span(is_contiguous=is_contiguous)
        order.append((low, -high, not is_contiguous, index))
    holder, reach = -1, 0
    for _, minus_high, is_strided, index in sorted(order):
        if -minus_high <= reach and blocks[index].is_aligned_with(blocks[holder]):
            found[index] = holder
        elif not is_strided and -minus_high > reach:
            holder, reach = index, -minus_high


def _node(block: Block, holder: Block, number: int) -> dict[str, JSON]:
    stored, view = block.tags
    if block is holder or block.identity() == holder.identity():
        return {stored: number}
    itemsize = block.dtype.itemsize
    offset = (block.address - holder.address) // itemsize
    strides: list[JSON] = [stride // itemsize for stride in block.strides]
    return {view: [number, offset, list(block.shape), strides]}
