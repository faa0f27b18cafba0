"""Statistics of small tensors: what `Accumulator` tells, in a quarter of its time, where float64 makes that simple.

Most tensors of a model are biases and scales of a few hundred numbers, and together they hold the interpreter lock
longer than the weights do. In float64 neither the sums nor the squares of numbers that float32 holds can overflow or
vanish, so all of a small tensor's figures come from one array.
"""

from __future__ import annotations

import math

import numpy as np

from ckptlake.checkpoints.decoding import Numbers, decoding_of
from ckptlake.checkpoints.dtypes import DType
from ckptlake.checkpoints.statistics import Accumulator, TensorStatistics

SMALL_BYTES = 16 << 10


def describe_small(
    dtype: DType, num_elements: int, content: memoryview, previous: memoryview | None
) -> TensorStatistics:
    """Return the statistics of a whole tensor, and of its distance to the previous one where that is given.

    >>> from ckptlake.checkpoints.dtypes import get_dtype
    >>> found = describe_small(get_dtype("float32"), 2, memoryview(np.array([3, -4], "<f4")), None)
    >>> found.min, found.mean, found.l2_norm, found.exponent_min, found.exponent_histogram
    (-4.0, -0.5, 5.0, 1, (1, 1))
    """
    numbers = _numbers(dtype, content)
    before = None if previous is None or numbers is None else _numbers(dtype, previous)
    if numbers is None or (previous is not None and before is None):
        accumulator = Accumulator(dtype, num_elements)
        accumulator.update(content, previous)
        return accumulator.result()
    n = numbers.size
    mean = float(np.add.reduce(numbers)) / n
    centred = numbers - mean
    squares = float(numbers @ numbers)
    occupied = numbers if np.count_nonzero(numbers) == n else numbers[numbers != 0]
    exponents = np.frexp(occupied)[1]
    first = int(np.minimum.reduce(exponents)) if occupied.size else 1
    distance, cosine = (None, None) if before is None else _moved(numbers, before, squares)
    return TensorStatistics(
        min=float(np.minimum.reduce(numbers)) + 0.0,
        max=float(np.maximum.reduce(numbers)) + 0.0,
        mean=mean,
        std=math.sqrt(float(centred @ centred) / n),
        l2_norm=math.sqrt(squares),
        n_nan=0,
        n_inf=0,
        zero_fraction=1 - occupied.size / n,
        exponent_min=first - 1 if occupied.size else None,
        exponent_histogram=tuple(np.bincount(exponents - first).tolist()) if occupied.size else (),
        sample_size=n,
        l2_distance=distance,
        cosine_similarity=cosine,
    )


def _numbers(dtype: DType, content: memoryview) -> Numbers | None:
    """Return what bytes stand for as float64; None where they are not finite, wide, complex or none at all."""
    decoding = decoding_of(dtype)
    if decoding.is_complex or decoding.numbers != np.float32 or not content.nbytes:
        return None
    elements = np.frombuffer(content, np.uint8).view(decoding.raw)
    if decoding.fill is not None:
        filled = np.empty(elements.size * decoding.width, np.float32)
        decoding.fill(elements, filled)
        elements = filled
    with np.errstate(invalid="ignore"):
        numbers = elements.astype(np.float64)
    return numbers if math.isfinite(float(np.add.reduce(numbers))) else None


def _moved(numbers: Numbers, before: Numbers, squares: float) -> tuple[float, float | None]:
    """Return distance and cosine."""
    difference = numbers - before
    distance = math.sqrt(float(difference @ difference))
    if distance == 0:
        return 0.0, 1.0
    norms = math.sqrt(squares) * math.sqrt(float(before @ before))
    if norms == 0:
        return distance, None
    return distance, max(-1.0, min(1.0, float(numbers @ before) / norms))
