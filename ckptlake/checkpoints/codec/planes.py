"""Words of a tensor cut into lanes and joined again; a lane gathers the same bytes of every word.

The bits of a float differ in worth: of trained weights the exponent takes few values, the sign is a coin toss and
the low bits of the mantissa are noise. Sorted by kind each can be treated as it deserves. So a word is rotated
left until its exponent fills its highest byte; where an earlier version of the tensor is at hand, the word gives
way to its difference to the earlier one, taken between the bit patterns as integers and folded so that small
differences of either sign become small numbers.

All steps run over blocks that stay in the processor's cache, in arrays that each thread keeps.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.unsignedinteger[Any]]
"""One-dimensional, little-endian unsigned integers."""

BLOCK_WORDS = 1 << 16


class _Spare(threading.local):
    """Two blocks for every thread, to be seen as words of whatever size is in use."""

    def __init__(self) -> None:
        self._blocks = np.empty((2, BLOCK_WORDS), np.uint64)

    def blocks(self, like: Words) -> tuple[Words, Words]:
        first, second = (block.view(like.dtype)[: like.size] for block in self._blocks)
        return first, second


_spare = _Spare()


@dataclass(frozen=True, slots=True)
class Cut:
    """How words are cut into lanes.

    Attributes:
        widths: bytes of a word that each lane gathers, 1, 2 or 4, from the lowest on; they add up to the word.
        rotation: bits by which a word is rotated left before, less than it has.

    Examples:
        >>> words = np.array([0x3F800001, 0xBF800002], "<u4")
        >>> [lane.tolist() for lane in Cut((2, 1, 1), rotation=1).split(words, None)]
        [[2, 5], [0, 0], [127, 127]]
    """

    widths: tuple[int, ...]
    rotation: int = 0

    def split(self, words: Words, others: Words | None) -> list[Words]:
        """Return the lanes of `words`, each with one integer of its width for every word.

        Args:
            words: what to cut.
            others: as many words, to cut the differences to them instead.
        """
        lanes: list[Words] = [np.empty(words.size, f"<u{width}") for width in self.widths]
        for start in range(0, words.size, BLOCK_WORDS):
            part = slice(start, start + BLOCK_WORDS)
            changed = self.change(words[part], None if others is None else others[part])
            _, spare = _spare.blocks(changed)
            shift = 0
            for lane in lanes:
                shifted = np.right_shift(changed, shift, out=spare) if shift else changed
                np.copyto(lane[part], shifted, casting="unsafe")
                shift += 8 * lane.itemsize
        return lanes

    def change(self, words: Words, others: Words | None) -> Words:
        """Return at most a block of words as they will be cut; good until this thread's next call."""
        bits = 8 * words.itemsize
        result, spare = _spare.blocks(words)
        changed = words
        if others is not None:
            signed = f"<i{words.itemsize}"
            np.subtract(words, others, out=result)
            np.right_shift(result.view(signed), bits - 1, out=spare.view(signed))
            np.left_shift(result, 1, out=result)
            changed = np.bitwise_xor(result, spare, out=result)
        if self.rotation:
            np.right_shift(changed, bits - self.rotation, out=spare)
            np.left_shift(changed, self.rotation, out=result)
            changed = np.bitwise_or(result, spare, out=result)
        return changed

    def join(self, lanes: Sequence[Words], others: Words | None, out: Words) -> None:
        """Write to `out` the words that `split` cut into these lanes, given the same `others`."""
        for start in range(0, out.size, BLOCK_WORDS):
            part = slice(start, start + BLOCK_WORDS)
            target = out[part]
            joined, spare = _spare.blocks(target)
            shift = 0
            for lane in lanes:
                np.copyto(spare if shift else joined, lane[part])
                if shift:
                    np.left_shift(spare, shift, out=spare)
                    np.bitwise_or(joined, spare, out=joined)
                shift += 8 * lane.itemsize
            self._restore(joined, spare, None if others is None else others[part], target)

    def _restore(self, joined: Words, spare: Words, others: Words | None, out: Words) -> None:
        """Undo `change`, with both of the thread's blocks in use."""
        if self.rotation:
            np.right_shift(joined, self.rotation, out=spare)
            np.left_shift(joined, 8 * out.itemsize - self.rotation, out=joined)
            np.bitwise_or(joined, spare, out=joined if others is not None else out)
        elif others is None:
            np.copyto(out, joined)
        if others is not None:
            np.bitwise_and(joined, 1, out=spare)
            np.negative(spare, out=spare)
            np.right_shift(joined, 1, out=joined)
            np.bitwise_xor(joined, spare, out=joined)
            np.add(joined, others, out=out)
