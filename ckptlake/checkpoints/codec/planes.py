"""Words of a tensor cut into lanes and joined again; a lane gathers the same bytes of every word.

The bits of a float differ in worth: of trained weights the exponent takes few values, the sign is a coin toss and
the low bits of the mantissa are noise. Sorted by kind each can be treated as it deserves. So the upper half of a word
is rotated left until the exponent fills its highest byte; where an earlier version of the tensor is at hand, the word
gives way to its difference to the earlier one, taken between the bit patterns as integers and folded so that small
differences of either sign become small numbers.

A word is halved until its parts are those that the lanes gather, since shifts of half words cost half as much. All
steps run over blocks that stay in the processor's cache, in arrays that each thread keeps.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.unsignedinteger[Any]]
"""One-dimensional, little-endian unsigned integers."""

BLOCK_WORDS = 1 << 17
"""Fewer, and the calls cost as much as the work; more, and the halves leave the cache."""


class _Spare(threading.local):
    """Blocks for every thread, to be seen as words of whatever size is in use."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[Words]] = {}

    def blocks(self, size: int, count: int) -> list[Words]:
        """Return four blocks of `count` words of `size` bytes."""
        blocks = self._blocks.get(size)
        if blocks is None:
            blocks = self._blocks[size] = list(np.empty((4, BLOCK_WORDS), f"<u{size}"))
        return blocks if count == BLOCK_WORDS else [block[:count] for block in blocks]


_spare = _Spare()


class Memory:
    """Arrays of one length that are used again and again: fresh memory costs more than what is done with it here.

    Arrays of other lengths are given out, and not kept.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._free: dict[int, list[Words]] = {1: [], 2: [], 4: [], 8: []}

    def take(self, length: int, width: int) -> Words:
        """Return an array of `length` words of `width` bytes and arbitrary content."""
        if length == self._length:
            with contextlib.suppress(IndexError):  # another thread may take the last at the same moment
                return self._free[width].pop()
        return np.empty(length, f"<u{width}")

    def give_back(self, words: Words) -> None:
        """Take back an array that nobody looks at any more."""
        if words.size == self._length:
            self._free[words.itemsize].append(words)


@dataclass(frozen=True, slots=True)
class Cut:
    """How words are cut into lanes.

    Attributes:
        widths: bytes of a word that each lane gathers, from the lowest on: what halving a word, and any of its halves
            again, can give. They add up to the word.
        rotation: bits by which the upper half of a word, of a word of one or two bytes all of it, is rotated left
            before; less than that has.

    Examples:
        >>> words = np.array([0x3F800001, 0xBF800002], "<u4")
        >>> [lane.tolist() for lane in Cut((2, 1, 1), rotation=1).split(words, None)]
        [[1, 2], [0, 1], [127, 127]]
    """

    widths: tuple[int, ...]
    rotation: int = 0

    @staticmethod
    def rotated_bits(itemsize: int) -> int:
        """Return how many bits of a word of `itemsize` bytes a rotation moves."""
        return 8 * itemsize if itemsize <= 2 else 4 * itemsize

    def suits(self, itemsize: int) -> bool:
        """Tell whether words of `itemsize` bytes can be cut so."""
        if self.widths == (itemsize,) and itemsize > 2 and self.rotation:
            return False  # the upper half alone cannot be rotated within one lane
        return 0 <= self.rotation < self.rotated_bits(itemsize) and _is_halved(list(self.widths), itemsize) == []

    def split(self, words: Words, others: Words | None, memory: Memory | None = None) -> list[Words]:
        """Return the lanes of `words`, each with one integer of its width for every word.

        Args:
            words: what to cut.
            others: as many words, to cut the differences to them instead.
            memory: where the lanes are taken from, and may be given back to.
        """
        memory = memory or Memory(0)
        lanes = [memory.take(words.size, width) for width in self.widths]
        for start in range(0, words.size, BLOCK_WORDS):
            part = slice(start, start + BLOCK_WORDS)
            changed = words[part] if others is None else _difference(words[part], others[part])
            self._take_apart(changed, [lane[part] for lane in lanes], is_whole=True)
        return lanes

    def change(self, words: Words, others: Words | None) -> Words:
        """Return at most a block of words as they will be cut, in memory of their own."""
        changed = words.copy() if others is None else _difference(words, others).copy()
        size = min(self.rotated_bits(words.itemsize) // 8, words.itemsize)
        upper = changed.view(f"<u{size}")[words.itemsize // size - 1 :: words.itemsize // size]
        upper[:] = self._rotated(upper.copy())
        return changed

    def join(self, lanes: Sequence[Words], others: Words | None, out: Words) -> None:
        """Write to `out` the words that `split` cut into these lanes, given the same `others`."""
        for start in range(0, out.size, BLOCK_WORDS):
            part = slice(start, start + BLOCK_WORDS)
            target = out[part]
            joined = target if others is None else _spare.blocks(out.itemsize, target.size)[0]
            self._put_together([lane[part] for lane in lanes], joined, is_whole=True)
            if others is not None:
                _add_difference(joined, others[part], target)

    def _take_apart(self, words: Words, lanes: list[Words], *, is_whole: bool) -> None:
        """Write words to the lanes that take them, and remove those from the list."""
        size, count = words.itemsize, words.size
        if is_whole and size <= 2:
            words = self._rotated(words)
        if lanes[0].itemsize == size:
            np.copyto(lanes.pop(0), words)
            return
        low, high, _, _ = _spare.blocks(size // 2, count)
        if lanes[0].itemsize == size // 2:
            np.copyto(lanes.pop(0), words, casting="unsafe")
        else:
            np.copyto(low, words, casting="unsafe")
            self._take_apart(low, lanes, is_whole=False)
        shifted = np.right_shift(words, 4 * size, out=_spare.blocks(size, count)[3])
        is_rotated = is_whole and size > 2 and self.rotation > 0
        if lanes[0].itemsize == size // 2 and not is_rotated:
            np.copyto(lanes.pop(0), shifted, casting="unsafe")
        else:
            np.copyto(high, shifted, casting="unsafe")
            self._take_apart(self._rotated(high) if is_rotated else high, lanes, is_whole=False)

    def _put_together(self, lanes: list[Words], out: Words, *, is_whole: bool) -> None:
        """Write to `out` what the first lanes hold of its words, and remove those from the list."""
        size, count = out.itemsize, out.size
        if lanes[0].itemsize == size:
            np.copyto(out, lanes.pop(0))
        else:
            low, high, _, _ = _spare.blocks(size // 2, count)
            self._put_together(lanes, low, is_whole=False)
            widened = _spare.blocks(size, count)[3]
            np.copyto(widened, low)  # before the blocks of halves are used again
            self._put_together(lanes, high, is_whole=False)
            np.copyto(out, self._rotated(high, back=True) if is_whole and size > 2 else high)
            np.left_shift(out, 4 * size, out=out)
            np.bitwise_or(out, widened, out=out)
        if is_whole and size <= 2:
            np.copyto(out, self._rotated(out, back=True))

    def _rotated(self, words: Words, *, back: bool = False) -> Words:
        """Return words rotated left by `rotation`, or right; good until this thread's next call."""
        if not self.rotation:
            return words
        bits = 8 * words.itemsize
        left = bits - self.rotation if back else self.rotation
        _, _, result, spare = _spare.blocks(words.itemsize, words.size)
        np.right_shift(words, bits - left, out=spare)
        np.left_shift(words, left, out=result)
        return np.bitwise_or(result, spare, out=result)


def _is_halved(widths: list[int], size: int) -> list[int] | None:
    """Return what is left of widths once those of a word of `size` bytes are taken, or None where they are none."""
    if not widths or size < 1:
        return None
    if widths[0] == size:
        return widths[1:]
    rest = _is_halved(widths, size // 2)
    return None if rest is None else _is_halved(rest, size // 2)


def _difference(words: Words, others: Words) -> Words:
    """Return the folded differences of at most a block of words; good until this thread's next call."""
    result, spare, _, _ = _spare.blocks(words.itemsize, words.size)
    signed = f"<i{words.itemsize}"
    np.subtract(words, others, out=result)
    np.right_shift(result.view(signed), 8 * words.itemsize - 1, out=spare.view(signed))
    np.left_shift(result, 1, out=result)
    return np.bitwise_xor(result, spare, out=result)


def _add_difference(folded: Words, others: Words, out: Words) -> None:
    """Write to `out` the words that have these folded differences to others."""
    _, spare, _, _ = _spare.blocks(folded.itemsize, folded.size)
    np.bitwise_and(folded, 1, out=spare)
    np.negative(spare, out=spare)
    np.right_shift(folded, 1, out=folded)
    np.bitwise_xor(folded, spare, out=folded)
    np.add(folded, others, out=out)
