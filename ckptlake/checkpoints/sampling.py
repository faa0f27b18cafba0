"""Which rows of a tensor are looked at where looking at all of them would cost too much."""

from __future__ import annotations

from collections.abc import Iterator

ROW = 1024
STRETCH = 32 * ROW
"""Elements of which one row is chosen."""


def sampled_rows(position: int, num_values: int, width: int) -> Iterator[slice]:
    """Yield where the sampled rows of a block that begins at element `position` are.

    One row of each 32 is chosen by Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): a fixed distance
    would see the same columns of a matrix again and again.
    """
    for start in range(0, num_values // width, STRETCH):
        chosen = ((position + start) // STRETCH * 0x9E3779B1 & 0xFFFFFFFF) >> 27
        first = (start + chosen * ROW) * width
        yield slice(first, first + ROW * width)
