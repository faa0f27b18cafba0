"""Sums in GF(2^8) over whole arrays of blocks: what two parity blocks can give back.

A group of blocks d1, d2, ... has two parity blocks: P, the sum of all, and Q, the sum of k·dk. Addition is XOR,
multiplication is that of polynomials over GF(2) modulo x^8 + x^4 + x^3 + x^2 + 1, as in RAID-6 (H. P. Anvin,
"The mathematics of RAID-6", 2004). There block k is weighed by 2^k; weighing it by the number k itself is as
strong, since any distinct weights are, and needs a quarter of the work: the blocks whose number has bit b set are
summed first, and only these six sums, not forty blocks, are multiplied by 2^b.

Words are 64 bits wide and hold eight elements of the field side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_POLYNOMIAL = 0x11D
_LOW_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_LOWEST_BIT = np.uint64(0x0101010101010101)
_CARRY = np.uint64(_POLYNOMIAL & 0xFF)
_ONE, _SEVEN = np.uint64(1), np.uint64(7)


def double(words: Words) -> Words:
    """Return every byte of `words`, multiplied by two.

    >>> [hex(word) for word in double(np.array([0x01, 0x80, 0xFF40], np.uint64)).tolist()]
    ['0x2', '0x1d', '0xe380']
    """
    return ((words & _LOW_SEVEN_BITS) << _ONE) ^ (((words >> _SEVEN) & _LOWEST_BIT) * _CARRY)


def multiply(words: Words, factors: npt.NDArray[np.uint8]) -> Words:
    """Return `words`, shape (columns, words), with every byte of column c multiplied by ``factors[c]``."""
    product = np.zeros_like(words)
    left = factors.astype(np.uint64)
    while left.any():
        chosen = np.uint64(0) - (left & _ONE)  # all bits of a column whose factor has this bit, or none
        product ^= words & chosen[:, None]
        words, left = double(words), left >> _ONE
    return product


def invert(factors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return what each of `factors`, none of them zero, is multiplied by to give one."""
    return _INVERSES[factors]


def _inverses() -> npt.NDArray[np.uint8]:
    powers, power = [], 1
    for _ in range(255):
        powers.append(power)
        power = power << 1 ^ (_POLYNOMIAL if power & 0x80 else 0)
    table = np.zeros(256, np.uint8)
    table[powers] = [powers[-exponent] for exponent in range(255)]
    return table


_INVERSES = _inverses()


def fold(blocks: Words) -> tuple[Words, Words]:
    """Return the sum of `blocks` over their first axis, at least two long, and the sum of k times block k.

    Blocks are added in pairs, then the pairs in pairs, and so on: what is left is the sum of all, and the odd ones
    met on the way at depth b are those whose number has bit b set.

    >>> total, weighted = fold(np.array([[7], [1], [2], [4]], np.uint64))
    >>> total.tolist() == [7 ^ 1 ^ 2 ^ 4], weighted.tolist() == [1 ^ 2 * 2 ^ (4 ^ 2 * 4)]
    (True, True)
    """
    sums_by_bit = []
    while len(blocks) > 1:
        odd = blocks[1::2]
        sums_by_bit.append(np.bitwise_xor.reduce(odd, axis=0))
        paired = np.empty((len(blocks) - len(odd), *blocks.shape[1:]), blocks.dtype)
        np.bitwise_xor(blocks[: 2 * len(odd) : 2], odd, out=paired[: len(odd)])
        if len(paired) > len(odd):
            paired[-1] = blocks[-1]
        blocks = paired
    weighted = sums_by_bit.pop()
    while sums_by_bit:
        weighted = double(weighted) ^ sums_by_bit.pop()
    return blocks[0], weighted


def encode(slots: Words) -> None:
    """Fill in the parity of every column.

    Args:
        slots: shape (data blocks + 2, columns, words); along the first axis P, the data blocks, Q.
    """
    slots[0] = 0
    slots[0], slots[-1] = fold(slots[:-1])


def recover(slots: Words, lost: Mask) -> None:
    """Solve every column for its lost blocks, in place; a lost Q is not solved for and left zero.

    P counts as block number zero: it has a place in the sum and none in the weighted sum. So one loss is the sum
    of the others, and two losses i and j are solved alike whether or not one of them is P:
    with s = di + dj and t = i·di + j·dj, di = (t + j·s) / (i + j).

    Args:
        slots: as for `encode`, shape (data blocks + 2, columns, words).
        lost: shape (data blocks + 2, columns); at most two in each column.
    """
    slots[lost] = 0
    total, weighted = fold(slots[:-1])
    weighted ^= slots[-1]
    summed = lost[:-1]
    losses = summed.sum(axis=0)
    first = summed.argmax(axis=0)
    second = len(summed) - 1 - summed[::-1].argmax(axis=0)

    one = np.flatnonzero(losses == 1)
    slots[first[one], one] = total[one]

    two = np.flatnonzero(losses == 2)
    i, j = first[two].astype(np.uint8), second[two].astype(np.uint8)
    solved = multiply(weighted[two] ^ multiply(total[two], j), invert(i ^ j))
    slots[i, two] = solved
    slots[j, two] = total[two] ^ solved
