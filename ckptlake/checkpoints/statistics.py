"""What the elements of a tensor look like, and how far it moved since the previous checkpoint.

Sums are taken over blocks of 512 K elements in rows of 1024: in float32 inside a row, in float64 from there on. Blocks
and rows lie at fixed positions of the tensor, so results do not depend on how its bytes were cut into chunks.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ckptlake.checkpoints.decoding import (
    Block,
    Blocks,
    Numbers,
    Raw,
    absolute_difference,
    decoding_of,
    leading_bits,
    magnitudes,
    scratch,
)
from ckptlake.checkpoints.dtypes import DType
from ckptlake.checkpoints.sampling import ROW, STRETCH, sampled_rows
from ckptlake.errors import InvalidInputError

_BLOCK = 16 * STRETCH  # smaller ones have two threads wait for each other, larger ones leave the processor's cache
_LOOKED_AT_WHOLE = 65_536
_LOWEST_EXPONENT = -1074
_NUM_EXPONENTS = 1024 - _LOWEST_EXPONENT
_ONES = {np.dtype(dtype): np.ones(ROW, dtype) for dtype in (np.float32, np.float64)}


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """What the elements of one tensor look like; of complex elements, what their magnitudes look like.

    A figure is None where no element has a say in it.

    Attributes:
        min: the smallest element that is not NaN, as float64.
        max: the largest.
        mean: of the finite elements.
        std: of the finite elements, of the population (divided by their number).
        l2_norm: the root of the sum of squares of the finite elements; infinite where float64 ends before it.
        n_nan: elements that are NaN; complex ones where a part is.
        n_inf: elements that are infinite.
        zero_fraction: the part of the sample that is zero.
        exponent_min: floor(log2(abs(x))) of the first bin of `exponent_histogram`.
        exponent_histogram: the finite elements of the sample that are not zero, counted by floor(log2(abs(x))), from
            the lowest to the highest that occurs.
        sample_size: the numbers that `zero_fraction` and the histogram looked at: all of a tensor of up to 65 536
            elements, otherwise one row of 1024 in each 32, at positions that depend on nothing else.
        l2_distance: the norm of the difference to the previous checkpoint, over positions where both are finite.
        cosine_similarity: the cosine of the angle between both, over the same positions; of complex ones as vectors
            of their parts. None where only one of them is zero.
    """

    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    l2_norm: float | None
    n_nan: int
    n_inf: int
    zero_fraction: float | None
    exponent_min: int | None
    exponent_histogram: tuple[int, ...]
    sample_size: int
    l2_distance: float | None
    cosine_similarity: float | None


class Accumulator:
    """Takes the bytes of one tensor chunk by chunk and tells its statistics at the end.

    Numbers are added up as float32 within rows of 1024 for types that float32 holds (float32 and below, integers of up
    to 16 bits), as float64 for the others; sums of squares are good to about 1e-7 of themselves. Blocks are combined as
    in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979. Each
    accumulator belongs to one thread at a time.

    >>> from ckptlake.checkpoints.dtypes import get_dtype
    >>> accumulator = Accumulator(get_dtype("float32"), 3)
    >>> accumulator.update(memoryview(np.array([3.0, -4.0, np.nan], "<f4")))
    >>> found = accumulator.result()
    >>> found.min, found.l2_norm, found.n_nan
    (-4.0, 5.0, 1)
    """

    __slots__ = (
        "_before", "_blocks", "_decoding", "_exponents", "_high", "_is_compared", "_is_same", "_likenesses",
        "_low", "_n_inf", "_n_nan", "_n_zero", "_now", "_num_elements", "_position", "_sample_size",
    )  # fmt: skip

    def __init__(self, dtype: DType, num_elements: int) -> None:
        """Expect `num_elements` elements of `dtype`; of float4_e2m1fn_x2 an element is a byte, as torch has it.

        Raises:
            InvalidInputError: the number is negative.
        """
        if num_elements < 0:
            raise InvalidInputError(f"a tensor cannot have {num_elements} elements; give the product of its shape")
        self._decoding = decoding_of(dtype)
        self._num_elements = num_elements
        self._now = Blocks(self._decoding, num_elements, _BLOCK, "now")
        self._before = Blocks(self._decoding, num_elements, _BLOCK, "before")
        self._is_compared: bool | None = None
        self._position = 0
        self._blocks: list[_Moments] = []
        self._likenesses: list[_Likeness] = []
        self._is_same = True
        self._low, self._high = math.inf, -math.inf
        self._n_nan = self._n_inf = self._n_zero = self._sample_size = 0
        self._exponents = np.zeros(_NUM_EXPONENTS, np.int64)

    def update(self, chunk: memoryview, previous: memoryview | None = None) -> None:
        """Take the next bytes of the tensor, and the same bytes of the previous checkpoint's.

        Args:
            chunk: contiguous little-endian elements at any address; not kept.
            previous: as many bytes of a tensor of the same type and shape, given for all chunks or for none.

        Raises:
            InvalidInputError: bytes that are no whole elements, are too many, or do not match those before them.
        """
        self._check(chunk, previous)
        with np.errstate(all="ignore"):
            if previous is None:
                for block in self._now.cut(chunk):
                    self._describe(block)
            else:
                for block, before in zip(self._now.cut(chunk), self._before.cut(previous), strict=True):
                    self._compare(block, before, self._describe(block))

    def result(self) -> TensorStatistics:
        """Return the statistics of all elements.

        Raises:
            InvalidInputError: bytes are still missing.
        """
        if self._now.remaining:
            raise InvalidInputError(
                f"{self._now.remaining} bytes of the tensor are missing; update the accumulator with all of them"
            )
        has_numbers = self._low <= self._high
        mean, std, l2_norm = _combined(self._blocks)
        distance, cosine = self._moved()
        occupied = np.flatnonzero(self._exponents)
        first, end = (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, 0)
        return TensorStatistics(
            min=self._low if has_numbers else None,
            max=self._high if has_numbers else None,
            mean=mean,
            std=std,
            l2_norm=l2_norm,
            n_nan=self._n_nan,
            n_inf=self._n_inf,
            zero_fraction=self._n_zero / self._sample_size if self._sample_size else None,
            exponent_min=first + _LOWEST_EXPONENT if occupied.size else None,
            exponent_histogram=tuple(self._exponents[first:end].tolist()),
            sample_size=self._sample_size,
            l2_distance=distance,
            cosine_similarity=cosine,
        )

    def _check(self, chunk: memoryview, previous: memoryview | None) -> None:
        self._now.check(chunk)
        if previous is not None:
            self._before.check(previous)
        if previous is not None and previous.nbytes != chunk.nbytes:
            raise InvalidInputError(
                f"{previous.nbytes} bytes of the previous tensor come with {chunk.nbytes} of this one; give the same "
                "stretch of a tensor of the same type and shape"
            )
        if self._is_compared not in (None, previous is not None):
            raise InvalidInputError(
                "the previous tensor is given for some chunks and not for others; give it for all or for none"
            )
        self._is_compared = previous is not None

    def _describe(self, block: Block) -> _Squares | None:
        """Add a block; return the sum of squares of its numbers where that is known."""
        values = magnitudes(block.numbers) if self._decoding.is_complex else block.numbers
        low, high = _range(values)
        finite = values
        if not (math.isfinite(low) and math.isfinite(high)):
            known = values[~np.isnan(values)]
            finite = known[np.isfinite(known)]
            self._n_nan += values.size - known.size
            self._n_inf += known.size - finite.size
            low, high = _range(known)
        self._low, self._high = min(self._low, low + 0.0), max(self._high, high + 0.0)
        if finite.size:
            self._blocks.append(_moments(finite))
        self._look_at(block.elements if self._decoding.is_wide_integer else values, values.size // block.elements.size)
        self._position += block.elements.size
        return self._blocks[-1].squares if finite is block.numbers else None

    def _compare(self, block: Block, before: Block, squares: _Squares | None) -> None:
        a, b = block.numbers, before.numbers
        if self._decoding.is_wide_integer:
            difference = absolute_difference(block.elements, before.elements)
        else:
            difference = np.subtract(a, b, out=scratch.array("difference", a.size, a.dtype))
        distance = _squares(difference)
        if not math.isfinite(distance.total):
            self._is_same = self._is_same and block.elements.tobytes() == before.elements.tobytes()
            both = np.isfinite(a) & np.isfinite(b)
            if self._decoding.is_complex:
                both = np.repeat(both.reshape(-1, 2).all(axis=1), 2)
            a, b = a[both].astype(np.float64), b[both].astype(np.float64)
            if not a.size:
                return
            distance, squares = _squares(a - b), None
        self._likenesses.append(_likeness(a, b, distance, squares or _squares(a)))

    def _moved(self) -> tuple[float | None, float | None]:
        """Return distance and cosine of all blocks."""
        if not self._is_compared or not self._num_elements:
            return None, None
        if not self._likenesses:
            return (0.0, 1.0) if self._is_same else (None, None)
        distance = _norm([likeness.distance for likeness in self._likenesses])
        if distance == 0:
            return 0.0, 1.0
        if len(self._likenesses) == 1:
            (only,) = self._likenesses
            return distance, max(-1.0, min(1.0, only.cosine)) if only.squares.total and only.before.total else None
        shares = _shares([likeness.squares for likeness in self._likenesses])
        shares_before = _shares([likeness.before for likeness in self._likenesses])
        if not shares.any() or not shares_before.any():
            return distance, None
        cosines = np.array([likeness.cosine for likeness in self._likenesses])
        return distance, max(-1.0, min(1.0, float(np.sum(shares * shares_before * cosines))))

    def _look_at(self, values: Numbers | Raw, width: int) -> None:
        """Count zeros and exponents of the sampled rows of a block, whose elements are `width` values each."""
        sample = values
        if self._num_elements > _LOOKED_AT_WHOLE:
            sample = np.concatenate([values[rows] for rows in sampled_rows(self._position, values.size, width)])
        self._sample_size += sample.size
        numbers = leading_bits(sample) if sample.dtype.kind in "iu" else sample
        finite = np.isfinite(numbers)
        if not finite.all():
            numbers = numbers[finite]
        n_zero = numbers.size - int(np.count_nonzero(numbers))
        exponents = np.frexp(numbers)[1] - (_LOWEST_EXPONENT + 1)
        self._exponents += np.bincount(exponents, minlength=_NUM_EXPONENTS)
        self._exponents[-1 - _LOWEST_EXPONENT] -= n_zero  # frexp says that zero is 0.0 * 2**0
        self._n_zero += n_zero


def _range(values: Numbers) -> tuple[float, float]:
    return float(np.minimum.reduce(values, initial=np.inf)), float(np.maximum.reduce(values, initial=-np.inf))


class _Squares(NamedTuple):
    """A sum of squares, `total * 4**exponent`, as float64 may not hold it; the exponent is 0 where it does."""

    total: float
    exponent: int

    def root_mean(self, n: int) -> float:
        return min(math.sqrt(self.total / n) * 2.0**self.exponent, sys.float_info.max)


class _Moments(NamedTuple):
    """The finite numbers of a block."""

    n: int
    mean: float
    deviation: float
    squares: _Squares


class _Likeness(NamedTuple):
    """The numbers of a block that are finite here and before."""

    squares: _Squares
    before: _Squares
    distance: _Squares
    cosine: float


def _dot(x: Numbers, y: Numbers) -> float:
    """Return the inner product, rows of 1024 in the type of `x` and their sum in float64."""
    whole = x.size - x.size % ROW
    rows = np.vecdot(x[:whole].reshape(-1, ROW), y[:whole].reshape(-1, ROW))
    rest = float(np.vecdot(x[whole:], y[whole:])) if whole < x.size else 0.0
    return float(rows.sum(dtype=np.float64)) + rest


def _mean(x: Numbers) -> float:
    whole = x.size - x.size % ROW
    ones = _ONES[x.dtype]
    rows = np.vecdot(x[:whole].reshape(-1, ROW), ones)
    rest = float(np.vecdot(x[whole:], ones[: x.size - whole])) if whole < x.size else 0.0
    return (float(rows.sum(dtype=np.float64)) + rest) / x.size


def _squares(x: Numbers) -> _Squares:
    """Return the sum of squares even where squares leave the range of the type; not finite if an element is not."""
    limits = np.finfo(x.dtype)
    total = _dot(x, x)
    # From there on at most 2**-20 of it is lost to underflow; below the other end blocks can be added up.
    if x.size * float(limits.tiny) * 2**20 <= total < float(limits.max) * 2**-64:
        return _Squares(total, 0)
    peak = float(np.maximum.reduce(np.abs(x)))
    if peak == 0 or not math.isfinite(peak):
        return _Squares(peak, 0)
    most = int(limits.maxexp) - 2
    exponent = max(-most, min(most, math.frexp(peak)[1]))
    scaled = x * 2.0**-exponent
    return _Squares(_dot(scaled, scaled), exponent)


def _moments(x: Numbers) -> _Moments:
    squares = _squares(x)
    rms = squares.root_mean(x.size)
    if rms > float(np.finfo(x.dtype).max) * 2**-40:  # sums and differences could leave the range of the type
        most = sys.float_info.max
        _, mean, deviation, _ = _moments(x * 2.0**-64)
        return _Moments(x.size, max(-most, min(most, mean * 2.0**64)), min(most, deviation * 2.0**64), squares)
    mean = _mean(x)
    spread = 1 - (mean / rms) ** 2 if rms else 0.0
    if spread > 1 / 8 or rms == 0:  # otherwise too many digits cancel
        return _Moments(x.size, mean, rms * math.sqrt(spread), squares)
    centre = x.dtype.type(mean)
    centred = np.subtract(x, centre, out=scratch.array("difference", x.size, x.dtype))
    rest, deviation = _mean(centred), _squares(centred).root_mean(x.size)
    if deviation:
        deviation *= math.sqrt(max(0.0, 1 - (rest / deviation) ** 2))
    return _Moments(x.size, float(centre) + rest, deviation, squares)


def _likeness(a: Numbers, b: Numbers, distance: _Squares, squares: _Squares) -> _Likeness:
    """Compare a block with its previous state `b`, given the sums of squares of their difference and of `a`."""
    before = _squares(b) if distance.total else squares
    if squares.total == 0 or before.total == 0:
        return _Likeness(squares, before, distance, 0.0)
    rms, rms_before = squares.root_mean(a.size), before.root_mean(a.size)
    ratio, way = rms_before / rms, distance.root_mean(a.size) / rms
    reach = 2.0 ** (int(np.finfo(a.dtype).maxexp) // 2 - 14)  # so far from 1 products of both stay in range
    if way < 0.5:  # the cosine rule: errors of the norms cancel where both tensors are nearly the same
        cosine = (1 + ratio * ratio - way * way) / (2 * ratio)
    elif 1 / reach < min(rms, rms_before) and max(rms, rms_before) < reach:
        cosine = _dot(a, b) / a.size / rms / rms_before
    else:
        cosine = _dot(a.astype(np.float64) / rms, b.astype(np.float64) / rms_before) / a.size
    return _Likeness(squares, before, distance, cosine)


def _totals(squares: list[_Squares]) -> tuple[npt.NDArray[np.float64], int]:
    """Return sums of squares under one exponent, and that exponent."""
    exponent = max((each.exponent for each in squares if each.total), default=0)
    return np.array([math.ldexp(each.total, 2 * (each.exponent - exponent)) for each in squares]), exponent


def _norm(squares: list[_Squares]) -> float:
    totals, exponent = _totals(squares)
    return math.sqrt(math.fsum(totals)) * 2.0**exponent


def _shares(squares: list[_Squares]) -> npt.NDArray[np.float64]:
    """Return the norm of each block over that of all; zeros if that is zero."""
    totals, _ = _totals(squares)
    return np.sqrt(totals / (math.fsum(totals) or 1.0))


def _combined(blocks: list[_Moments]) -> tuple[float | None, float | None, float | None]:
    """Return mean, standard deviation and norm of all blocks."""
    if not blocks:
        return None, None, None
    if len(blocks) == 1:
        (only,) = blocks
        return only.mean, only.deviation, _norm([only.squares])
    weights = np.array([block.n for block in blocks]) / sum(block.n for block in blocks)
    means = np.array([block.mean for block in blocks])
    deviations = np.array([block.deviation for block in blocks])
    mean = math.fsum(weights * means)
    exponent = math.frexp(max(deviations.max(), np.abs(means).max()))[1] - 1
    offsets = np.ldexp(means, -exponent) - math.ldexp(mean, -exponent)
    variance = np.sum(weights * (np.ldexp(deviations, -exponent) ** 2 + offsets**2))
    std = min(sys.float_info.max, 2 * math.ldexp(math.sqrt(variance), exponent - 1))
    return mean, std, _norm([block.squares for block in blocks])
