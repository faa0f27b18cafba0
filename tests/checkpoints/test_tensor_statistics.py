"""Statistics of tensors against exact arithmetic, numpy and torch."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Context, Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.checkpoints.dtypes import DTYPES, get_dtype
from ckptlake.checkpoints.small_statistics import describe_small
from ckptlake.checkpoints.statistics import Accumulator, TensorStatistics
from ckptlake.errors import InvalidInputError

Array = npt.NDArray[Any]
FLOAT4 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
EXACT = Context(prec=120)


def describe(
    dtype: str, content: bytes, previous: bytes | None = None, cuts: list[int] | None = None
) -> TensorStatistics:
    """Return the statistics of a tensor given in pieces that end before the elements `cuts`."""
    itemsize = get_dtype(dtype).itemsize
    accumulator = Accumulator(get_dtype(dtype), len(content) // itemsize)
    edges = [0, *(cut * itemsize for cut in sorted(cuts or [])), len(content)]
    for start, stop in pairwise(edges):
        before = None if previous is None else memoryview(previous)[start:stop]
        accumulator.update(memoryview(content)[start:stop], before)
    return accumulator.result()


def parts_of(dtype: str, content: bytes) -> Array:
    """Return the numbers of a tensor as torch reads them, in float64; two for each complex element."""
    if not content:
        return np.zeros(0)
    if dtype == "float4_e2m1fn_x2":
        codes = [nibble for byte in content for nibble in (byte & 15, byte >> 4)]
        return np.array([FLOAT4[code & 7] * (-1 if code & 8 else 1) for code in codes])
    tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    if dtype == "complex32":
        tensor = tensor.view(torch.float16)
    elif dtype.startswith("complex"):
        tensor = torch.view_as_real(tensor.view(getattr(torch, dtype)))
    elif dtype == "bool":
        tensor = tensor != 0
    else:
        tensor = tensor.view(getattr(torch, dtype))
    return tensor.to(torch.float64).numpy().reshape(-1)


def values_of(dtype: str, content: bytes) -> Array:
    """Return the elements as float64; of complex ones the magnitudes."""
    parts = parts_of(dtype, content)
    if not dtype.startswith("complex"):
        return parts
    pairs = parts.reshape(-1, 2)
    with np.errstate(all="ignore"):
        magnitudes = np.hypot(pairs[:, 0], pairs[:, 1])
    magnitudes[np.isfinite(pairs).all(axis=1) & np.isinf(magnitudes)] = np.finfo(np.float64).max
    magnitudes[np.isnan(pairs).any(axis=1)] = np.nan
    return magnitudes


def integers_of(dtype: str, content: bytes) -> list[int]:
    return [int(number) for number in np.frombuffer(content, get_dtype(dtype).as_numpy())]


def moments(values: Array) -> tuple[float | None, float | None, float | None]:
    """Return mean, standard deviation and norm of finite values, calculated with 120 digits."""
    exact = [Decimal(float(value)) for value in values]
    if not exact:
        return None, None, None
    with localcontext(EXACT):
        mean = sum(exact, Decimal(0)) / len(exact)
        variance = sum(((value - mean) ** 2 for value in exact), Decimal(0)) / len(exact)
        norm = sum((value * value for value in exact), Decimal(0)).sqrt()
        return float(mean), float(variance.sqrt()), float(norm)


def movement(a: list[Decimal], b: list[Decimal]) -> tuple[float, float | None]:
    with localcontext(EXACT):
        distance = sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Decimal(0)).sqrt()
        norms = sum((x * x for x in a), Decimal(0)).sqrt() * sum((y * y for y in b), Decimal(0)).sqrt()
        if distance == 0:
            return 0.0, 1.0
        inner = sum((x * y for x, y in zip(a, b, strict=True)), Decimal(0))
        return float(distance), float(inner / norms) if norms else None


def close(found: float | None, expected: float | None, relative: float, absolute: float = 0.0) -> bool:
    if found is None or expected is None or math.isinf(expected):
        return found == expected
    return abs(found - expected) <= relative * abs(expected) + absolute + 1e-322


def histogram(exponents: list[int]) -> tuple[int | None, tuple[int, ...]]:
    counts = Counter(exponents)
    if not counts:
        return None, ()
    return min(counts), tuple(counts[exponent] for exponent in range(min(counts), max(counts) + 1))


def as_bytes(values: Any, dtype: str = "float32") -> bytes:
    return np.asarray(values, dtype).tobytes()


def contents(dtype: str, most: int = 40) -> st.SearchStrategy[bytes]:
    itemsize = get_dtype(dtype).itemsize
    return st.integers(0, most).flatmap(lambda n: st.binary(min_size=n * itemsize, max_size=n * itemsize))


def random_bytes(dtype: str, num_elements: int, seed: int) -> bytes:
    """Return elements of moderate size for wide floats, of any bits for the others."""
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(num_elements * 2)
    if dtype == "bfloat16":
        return torch.tensor(numbers[:num_elements]).to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
    if dtype == "complex32":
        return numbers.astype(np.float16).tobytes()
    if dtype in ("complex64", "complex128"):
        return numbers.view(np.complex128).astype(dtype).tobytes()
    if dtype in ("float16", "float32", "float64"):
        return numbers[:num_elements].astype(dtype).tobytes()
    return rng.bytes(num_elements * get_dtype(dtype).itemsize)


every_dtype = pytest.mark.parametrize("dtype", list(DTYPES))


class TestExactly:
    """Few elements of any bits: NaN, infinities, the largest and subnormal numbers come by themselves."""

    @every_dtype
    @settings(max_examples=40)
    @given(data=st.data())
    def test_elements(self, dtype: str, data: st.DataObject) -> None:
        content = data.draw(contents(dtype))
        found, values = describe(dtype, content), values_of(dtype, content)
        numbers, finite = values[~np.isnan(values)], values[np.isfinite(values)]
        assert found.n_nan == np.isnan(values).sum()
        assert found.n_inf == np.isinf(values).sum()
        assert close(found.min, numbers.min() if numbers.size else None, 1e-15)
        assert close(found.max, numbers.max() if numbers.size else None, 1e-15)
        mean, std, norm = moments(finite)
        peak = float(np.abs(finite).max()) if finite.size else 0.0
        assert close(found.mean, mean, 0, 1e-14 * peak)
        assert close(found.std, std, 1e-12, 1e-14 * peak)
        assert close(found.l2_norm, norm, 1e-14)

    @every_dtype
    @settings(max_examples=40)
    @given(data=st.data())
    def test_zeros_and_exponents(self, dtype: str, data: st.DataObject) -> None:
        content = data.draw(contents(dtype))
        found, values = describe(dtype, content), values_of(dtype, content)
        assert found.sample_size == values.size
        assert found.zero_fraction == ((values == 0).sum() / values.size if values.size else None)
        if dtype in ("int64", "uint64"):
            exponents = [abs(number).bit_length() - 1 for number in integers_of(dtype, content) if number]
        else:
            exponents = [math.frexp(x)[1] - 1 for x in values[np.isfinite(values) & (values != 0)].tolist()]
        assert (found.exponent_min, found.exponent_histogram) == histogram(exponents)

    @every_dtype
    @settings(max_examples=40)
    @given(data=st.data())
    def test_movement(self, dtype: str, data: st.DataObject) -> None:
        content = data.draw(contents(dtype))
        other = data.draw(st.binary(min_size=len(content), max_size=len(content)))
        known = data.draw(st.integers(0, len(content)))
        previous = other[:known] + content[known:]
        found = describe(dtype, content, previous)
        a, b = parts_of(dtype, content), parts_of(dtype, previous)
        shared = np.isfinite(a) & np.isfinite(b)
        if dtype.startswith("complex"):
            shared = np.repeat(shared.reshape(-1, 2).all(axis=1), 2)
        if not shared.any():
            same = (0.0, 1.0) if content and content == previous else (None, None)
            assert (found.l2_distance, found.cosine_similarity) == same
            return
        if dtype in ("int64", "uint64"):
            distance, cosine = movement(
                [Decimal(x) for x in integers_of(dtype, content)], [Decimal(x) for x in integers_of(dtype, previous)]
            )
        else:
            distance, cosine = movement(
                [Decimal(x) for x in a[shared].tolist()], [Decimal(x) for x in b[shared].tolist()]
            )
        assert close(found.l2_distance, distance, 1e-14)
        assert close(found.cosine_similarity, cosine, 0, 1e-13)

    @every_dtype
    @settings(max_examples=20)
    @given(data=st.data())
    def test_what_is_identical_has_not_moved(self, dtype: str, data: st.DataObject) -> None:
        content = data.draw(contents(dtype).filter(bool))
        found = describe(dtype, content, bytes(bytearray(content)))
        assert (found.l2_distance, found.cosine_similarity) == (0.0, 1.0)


class TestLarge:
    @every_dtype
    def test_agrees_with_float64(self, dtype: str) -> None:
        content, previous = random_bytes(dtype, 300_000, 1), random_bytes(dtype, 300_000, 2)
        found = describe(dtype, content, previous)
        values, a, b = values_of(dtype, content), parts_of(dtype, content), parts_of(dtype, previous)
        finite = values[np.isfinite(values)]
        assert (found.n_nan, found.n_inf) == (np.isnan(values).sum(), np.isinf(values).sum())
        assert found.min == pytest.approx(np.nanmin(values), rel=1e-15)
        assert found.max == pytest.approx(np.nanmax(values), rel=1e-15)
        assert found.mean == pytest.approx(finite.mean(), rel=1e-7, abs=1e-8 * finite.std())
        assert found.std == pytest.approx(finite.std(), rel=1e-6)
        assert found.l2_norm == pytest.approx(np.linalg.norm(finite), rel=1e-7)
        shared = np.isfinite(a) & np.isfinite(b)
        a, b = a[shared], b[shared]
        assert found.l2_distance == pytest.approx(np.linalg.norm(a - b), rel=1e-7)
        assert found.cosine_similarity == pytest.approx(
            (a @ b) / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-8, rel=0
        )

    @every_dtype
    def test_does_not_depend_on_chunks(self, dtype: str) -> None:
        n = 270_001
        rng = np.random.default_rng(3)
        content, previous = rng.bytes(n * get_dtype(dtype).itemsize), rng.bytes(n * get_dtype(dtype).itemsize)
        whole = describe(dtype, content, previous)
        assert describe(dtype, content, previous, rng.integers(0, n, 50).tolist()) == whole
        assert describe(dtype, content, previous, [1, 262_144]) == whole
        assert describe(dtype, content, previous, [0, 0, 5, 262_145, n, n]) == whole

    @every_dtype
    def test_does_not_depend_on_addresses(self, dtype: str) -> None:
        content, previous = random_bytes(dtype, 70_000, 4), random_bytes(dtype, 70_000, 5)
        whole = describe(dtype, content, previous)
        for offset in (1, 4, 8, 20):
            moved = memoryview(bytes(offset) + content)[offset:]
            accumulator = Accumulator(get_dtype(dtype), 70_000)
            accumulator.update(moved, memoryview(bytes(offset + 1) + previous)[offset + 1 :])
            assert accumulator.result() == whole

    @settings(max_examples=15)
    @given(
        st.lists(st.integers(0, 530_000), max_size=8),
        st.sampled_from([np.nan, np.inf, -np.inf, 3e38, 1e-40, 0.0]),
        st.integers(0, 529_999),
    )
    def test_does_not_depend_on_chunks_with_odd_elements(self, cuts: list[int], odd: float, at: int) -> None:
        numbers = np.random.default_rng(6).standard_normal(530_000).astype(np.float32)
        previous = as_bytes(numbers + np.float32(1e-3))
        numbers[at] = odd
        content = numbers.tobytes()
        assert describe("float32", content, previous, cuts) == describe("float32", content, previous)

    def test_takes_little_memory(self) -> None:
        content = bytes(48 << 20)
        tracemalloc.start()
        try:
            with ThreadPoolExecutor(1) as pool:  # a new thread has no scratch yet
                pool.submit(describe, "bfloat16", content, content, list(range(1, 24 << 20, 1 << 20))).result()
            assert tracemalloc.get_traced_memory()[1] < 12 << 20
        finally:
            tracemalloc.stop()

    def test_threads_do_not_mix(self) -> None:
        tensors = [random_bytes("bfloat16", 400_000, seed) for seed in range(8)]
        alone = [describe("bfloat16", a, b) for a, b in pairwise(tensors)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda pair: describe("bfloat16", *pair), pairwise(tensors)))
        assert together == alone


class TestSums:
    """Where float32 sums would lose what is asked for."""

    def test_a_small_spread_far_from_zero(self) -> None:
        values = (1e4 + 1e-2 * np.random.default_rng(0).standard_normal(1_000_000)).astype(np.float32)
        found, exact = describe("float32", values.tobytes()), values.astype(np.float64)
        assert found.std == pytest.approx(exact.std(), rel=1e-6)
        assert found.mean == pytest.approx(exact.mean(), rel=1e-12)

    def test_a_small_spread_between_blocks(self) -> None:
        values = np.repeat(np.array([1e4, 1e4 + 2**-9], np.float32), 300_000)
        assert describe("float32", values.tobytes()).std == pytest.approx(2**-10, rel=1e-5)

    def test_a_constant_has_no_spread(self) -> None:
        found = describe("float32", as_bytes(np.full(600_000, 3.0)))
        assert (found.mean, found.std) == (3.0, 0.0)

    @pytest.mark.parametrize("size", [1e-44, 1e-37, 1e-25, 1e-16, 1e15, 1e19, 1e30, 3e38])
    def test_squares_that_float32_cannot_hold(self, size: float) -> None:
        rng = np.random.default_rng(0)
        values = (rng.uniform(-1, 1, 300_000) * size).astype(np.float32)
        previous = (rng.uniform(-1, 1, 300_000) * size).astype(np.float32)
        found = describe("float32", values.tobytes(), previous.tobytes())
        a, b = values.astype(np.float64), previous.astype(np.float64)
        assert found.std == pytest.approx(a.std(), rel=1e-6)
        assert found.mean == pytest.approx(a.mean(), abs=1e-7 * size)
        assert found.l2_norm == pytest.approx(np.linalg.norm(a), rel=1e-6)
        assert found.l2_distance == pytest.approx(np.linalg.norm(a - b), rel=1e-6)
        assert found.cosine_similarity == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=0, abs=1e-7)

    @pytest.mark.parametrize("size", [1e-310, 1e-200, 1e-151, 1e140, 1e152, 1e200, 1.7e308])
    def test_squares_that_float64_cannot_hold(self, size: float) -> None:
        unit = np.random.default_rng(0).uniform(-1, 1, 300_000)
        other = np.random.default_rng(1).uniform(-1, 1, 300_000)
        found = describe("float64", (unit * size).tobytes(), (other * size).tobytes())
        assert found.std == pytest.approx(unit.std() * size, rel=1e-10)
        assert found.l2_norm == pytest.approx(float(np.linalg.norm(unit)) * size, rel=1e-10)
        assert found.l2_distance == pytest.approx(float(np.linalg.norm(unit - other)) * size, rel=1e-10)
        cosine = unit @ other / np.linalg.norm(unit) / np.linalg.norm(other)
        assert found.cosine_similarity == pytest.approx(cosine, rel=0, abs=1e-10)

    def test_blocks_of_very_different_sizes(self) -> None:
        small, large = np.full(300_000, 1e-200), np.full(300_000, 1e200)
        values, previous = np.concatenate([small, large]), np.concatenate([small, -large])
        found = describe("float64", values.tobytes(), previous.tobytes())
        assert found.mean == pytest.approx(5e199)
        assert found.std == pytest.approx(5e199)
        assert found.l2_norm == pytest.approx(1e200 * math.sqrt(300_000))
        assert found.l2_distance == pytest.approx(2e200 * math.sqrt(300_000))
        assert found.cosine_similarity == pytest.approx(-1)

    def test_blocks_whose_squares_overflow_only_together(self) -> None:
        found = describe("float64", np.full(600_000, 2.1e151).tobytes())
        assert found.l2_norm == pytest.approx(2.1e151 * math.sqrt(600_000))

    def test_opposites_whose_difference_overflows(self) -> None:
        for dtype in ("float32", "float64"):
            most = float(np.finfo(dtype).max)
            found = describe(dtype, as_bytes([most, 0.0], dtype), as_bytes([-most, 0.0], dtype))
            assert found.l2_distance == 2 * most
            assert found.cosine_similarity == pytest.approx(-1)

    def test_one_huge_element_among_ordinary_ones(self) -> None:
        values = np.ones(100_000, np.float32)
        values[77] = 3e38
        found, exact = describe("float32", values.tobytes()), values.astype(np.float64)
        assert found.mean == pytest.approx(exact.mean(), rel=1e-6)
        assert found.std == pytest.approx(exact.std(), rel=1e-6)

    def test_counters_keep_their_low_bits(self) -> None:
        found = describe("int64", as_bytes([2**60 + 1, 5], "int64"), as_bytes([2**60, 5], "int64"))
        assert found.l2_distance == 1.0
        limits = np.iinfo(np.int64)
        found = describe("int64", as_bytes([limits.max], "int64"), as_bytes([limits.min], "int64"))
        assert found.l2_distance == 2.0**64
        assert found.exponent_min == 62


class TestMovement:
    def test_nearly_identical_tensors_keep_their_angle(self) -> None:
        rng = np.random.default_rng(0)
        b = rng.standard_normal(1_000_000).astype(np.float32)
        a = b + (1e-5 * rng.standard_normal(1_000_000)).astype(np.float32)
        found = describe("float32", a.tobytes(), b.tobytes())
        x, y = a.astype(np.float64), b.astype(np.float64)
        norms, moved = (np.linalg.norm(x), np.linalg.norm(y)), np.linalg.norm(x - y)
        gap = (moved**2 - (norms[0] - norms[1]) ** 2) / (2 * norms[0] * norms[1])
        assert gap < 1e-10
        assert found.cosine_similarity is not None
        assert 1 - found.cosine_similarity == pytest.approx(gap, rel=1e-4)
        assert found.l2_distance == pytest.approx(moved, rel=1e-7)

    @pytest.mark.parametrize("ratio", [1.0, 1e-4, 1e4])
    def test_orthogonal_tensors_of_any_size(self, ratio: float) -> None:
        x = np.random.default_rng(0).standard_normal(500_000).astype(np.float32)
        a, b = np.stack([x, x], axis=1), np.stack([x, -x], axis=1) * np.float32(ratio)
        found = describe("float32", a.tobytes(), b.tobytes())
        assert found.cosine_similarity == pytest.approx(0, abs=1e-9)

    def test_zero_tensors(self) -> None:
        zero, one = as_bytes(np.zeros(5)), as_bytes(np.ones(5))
        assert describe("float32", zero, zero).cosine_similarity == 1.0
        found = describe("float32", zero, one)
        assert (found.l2_distance, found.cosine_similarity) == (math.sqrt(5), None)
        found = describe("float32", one, zero)
        assert (found.l2_distance, found.cosine_similarity) == (math.sqrt(5), None)

    def test_without_a_previous_tensor_nothing_moved(self) -> None:
        found = describe("float32", as_bytes([1.0]))
        assert (found.l2_distance, found.cosine_similarity) == (None, None)

    def test_positions_that_are_not_finite_are_left_out(self) -> None:
        found = describe("float32", as_bytes([np.nan, 3, 1, 0]), as_bytes([1, np.inf, 1, 2]))
        assert found.l2_distance == 2.0
        assert found.cosine_similarity == pytest.approx(1 / math.sqrt(5))

    def test_tensors_without_a_finite_position(self) -> None:
        nan, inf = as_bytes([np.nan] * 3), as_bytes([np.inf] * 3)
        assert describe("float32", nan, nan).l2_distance == 0.0
        found = describe("float32", nan, inf)
        assert (found.l2_distance, found.cosine_similarity) == (None, None)


class TestSample:
    def test_is_everything_of_a_small_tensor(self) -> None:
        values = np.ones(65_536, np.float32)
        values[:16_384] = 0
        found = describe("float32", values.tobytes())
        assert (found.sample_size, found.zero_fraction, found.exponent_histogram) == (65_536, 0.25, (49_152,))

    def test_is_one_row_in_32_of_a_large_tensor(self) -> None:
        found = describe("float32", bytes(4 * 32 * 32_768))
        assert (found.sample_size, found.zero_fraction, found.exponent_min) == (32 * 1024, 1.0, None)

    def test_sees_all_columns_of_a_matrix(self) -> None:
        matrix = np.ones((1024, 4096), np.float32)
        matrix[:, :1024] = 0
        assert describe("float32", matrix.tobytes()).zero_fraction == pytest.approx(0.25, abs=0.05)

    def test_holds_both_values_of_a_byte(self) -> None:
        found = describe("float4_e2m1fn_x2", b"\x20" * 1_048_576)
        assert (found.sample_size, found.zero_fraction, found.exponent_histogram) == (65_536, 0.5, (32_768,))

    def test_leaves_what_is_not_finite_out_of_the_histogram(self) -> None:
        values = np.full(131_072, np.nan, np.float32)
        values[1::2] = 4.0
        found = describe("float32", values.tobytes())
        assert (found.exponent_min, found.exponent_histogram) == (2, (found.sample_size // 2,))


class TestComplex:
    @pytest.mark.parametrize("dtype", ["complex64", "complex128"])
    def test_an_element_with_a_part_that_is_nan_is_nan(self, dtype: str) -> None:
        odd = [complex(np.inf, np.nan), complex(np.nan, 1), complex(-np.inf, 1), 3 + 4j]
        found = describe(dtype, as_bytes(odd, dtype))
        assert (found.n_nan, found.n_inf, found.min, found.max, found.mean) == (2, 1, 5.0, np.inf, 5.0)

    def test_a_finite_element_is_never_infinite(self) -> None:
        most = float(np.finfo(np.float64).max)
        found = describe("complex128", as_bytes([complex(most, most)], "complex128"))
        assert (found.n_inf, found.max) == (0, most)


class TestShapes:
    @every_dtype
    def test_an_empty_tensor(self, dtype: str) -> None:
        empty = TensorStatistics(None, None, None, None, None, 0, 0, None, None, (), 0, None, None)
        assert Accumulator(get_dtype(dtype), 0).result() == empty
        assert describe(dtype, b"", b"") == empty

    def test_a_scalar(self) -> None:
        accumulator = Accumulator(get_dtype("float64"), 1)
        accumulator.update(memoryview(np.array(-2.5)), memoryview(np.array(-2.0)))
        found = accumulator.result()
        assert (found.min, found.max, found.mean, found.std, found.l2_norm) == (-2.5, -2.5, -2.5, 0.0, 2.5)
        assert (found.exponent_min, found.exponent_histogram) == (1, (1,))
        assert (found.l2_distance, found.cosine_similarity) == (0.5, 1.0)

    def test_an_element_of_float4_is_a_byte_in_torch_too(self) -> None:
        tensor = torch.zeros(6, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
        assert (tensor.numel(), tensor.element_size()) == (6, get_dtype("float4_e2m1fn_x2").itemsize)

    def test_a_zero_has_no_sign(self) -> None:
        found = describe("float32", as_bytes([-0.0]))
        assert str(found.min) == str(found.max) == "0.0"

    def test_a_chunk_is_not_kept(self) -> None:
        view, before = memoryview(bytearray(40)), memoryview(bytearray(40))
        accumulator = Accumulator(get_dtype("float32"), 20)
        accumulator.update(view, before)
        view.release()
        before.release()


class TestRefusals:
    def test_a_negative_number(self) -> None:
        with pytest.raises(InvalidInputError, match="-1 elements"):
            Accumulator(get_dtype("int8"), -1)

    def test_broken_elements(self) -> None:
        with pytest.raises(InvalidInputError, match="7 bytes where whole elements of 4"):
            Accumulator(get_dtype("float32"), 4).update(memoryview(bytes(7)))

    def test_too_many_bytes(self) -> None:
        accumulator = Accumulator(get_dtype("float32"), 4)
        accumulator.update(memoryview(bytes(12)))
        with pytest.raises(InvalidInputError, match="4 bytes are missing"):
            accumulator.update(memoryview(bytes(8)))

    def test_missing_bytes(self) -> None:
        accumulator = Accumulator(get_dtype("float32"), 4)
        accumulator.update(memoryview(bytes(12)))
        with pytest.raises(InvalidInputError, match="4 bytes of the tensor are missing"):
            accumulator.result()

    def test_another_length_of_the_previous_tensor(self) -> None:
        with pytest.raises(InvalidInputError, match="4 bytes of the previous tensor come with 8"):
            Accumulator(get_dtype("float32"), 4).update(memoryview(bytes(8)), memoryview(bytes(4)))

    def test_a_previous_tensor_for_some_chunks(self) -> None:
        accumulator = Accumulator(get_dtype("float32"), 4)
        accumulator.update(memoryview(bytes(8)))
        with pytest.raises(InvalidInputError, match="for all or for none"):
            accumulator.update(memoryview(bytes(8)), memoryview(bytes(8)))

    def test_bytes_that_are_not_contiguous(self) -> None:
        with pytest.raises(InvalidInputError, match="not contiguous"):
            Accumulator(get_dtype("uint8"), 4).update(memoryview(bytes(8))[::2])

    def test_a_refused_chunk_changes_nothing(self) -> None:
        accumulator = Accumulator(get_dtype("float32"), 2)
        with pytest.raises(InvalidInputError):
            accumulator.update(memoryview(as_bytes([1, 2])), memoryview(bytes(4)))
        accumulator.update(memoryview(as_bytes([3, 4])))
        assert accumulator.result().l2_norm == 5.0


@settings(max_examples=400)
@given(st.data())
def test_small_tensors_are_described_as_large_ones_are(data: st.DataObject) -> None:
    dtype = get_dtype(data.draw(st.sampled_from(sorted(DTYPES)), "dtype"))
    n = data.draw(st.integers(0, 40), "n")
    size = n * dtype.itemsize
    content = data.draw(st.binary(min_size=size, max_size=size), "content")
    other = data.draw(st.none() | st.just(content) | st.binary(min_size=size, max_size=size), "previous")
    expected = describe(dtype.name, content, other)
    previous = None if other is None else memoryview(other)
    found = describe_small(dtype, n, memoryview(content), previous)
    for name in TensorStatistics.__dataclass_fields__:
        a, b = getattr(found, name), getattr(expected, name)
        if name == "cosine_similarity" and a is not None and b is not None:
            assert a == pytest.approx(b, abs=1e-7), name
        elif isinstance(a, float) and b is not None:
            largest = max(abs(expected.min or 0), abs(expected.max or 0))
            slack = 1e-9 * largest if name in ("mean", "std") else 0.0
            assert a == pytest.approx(b, rel=1e-9, abs=slack), name
        else:
            assert a == b, name
