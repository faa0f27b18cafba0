"""What a metric's value may be: everything a float64 holds exactly is kept bit for bit, all else is refused."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, Run
from ckptlake.runs.scalars import as_scalar

SMALLEST = 5e-324
LARGEST = 1.7976931348623157e308


class Celsius(float):
    """A float with a meaning of its own."""


class Count(int):
    """An int with a meaning of its own."""


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("values") / "lake") as lake:
        yield lake


@pytest.fixture(scope="module")
def run(lake: Lake) -> Run:
    return lake.run("values", capture=Capture.nothing())


def read_back(lake: Lake, run: Run, metric: str) -> list[float]:
    lake.flush()
    query = "SELECT value FROM metrics WHERE run_id = $run AND metric = $metric ORDER BY step"
    return [value for (value,) in lake.sql(query, run=run.id, metric=metric).fetchall()]


FLOATS = [
    0.0,
    -0.0,
    1.5,
    -1e300,
    1e300,
    LARGEST,
    SMALLEST,
    -SMALLEST,
    2.2250738585072014e-308,
    math.nextafter(1.0, 2.0),
    math.pi,
    math.inf,
    -math.inf,
    math.nan,
]


class TestFloats:
    @pytest.mark.parametrize("finish", [False, True], ids=["live", "committed"])
    def test_are_kept_bit_for_bit(self, lake: Lake, finish: bool) -> None:
        run = lake.run("values", capture=Capture.nothing())
        for step, value in enumerate(FLOATS):
            run.log({"x": value}, step=step)
        if finish:
            run.finish()
        found = read_back(lake, run, "x")
        run.finish()
        assert [bits(value) for value in found] == [bits(value) for value in FLOATS]

    def test_all_nans_are_nan(self, lake: Lake) -> None:
        quiet, negative, payload = (
            struct.unpack("<d", struct.pack("<Q", pattern))[0]
            for pattern in (0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000123)
        )
        with lake.run("values", capture=Capture.nothing()) as run:
            for step, value in enumerate((quiet, negative, payload)):
                run.log({"x": value}, step=step)
        assert all(math.isnan(value) for value in read_back(lake, run, "x"))

    @given(st.floats(width=64))
    def test_of_any_bits_stay_what_they_are(self, value: float) -> None:
        assert bits(float(as_scalar("x", value))) == bits(value)

    def test_subclasses_become_plain_floats(self) -> None:
        for value in (Celsius(36.6), np.float64(36.6)):
            scalar = as_scalar("x", value)
            assert type(scalar) is float
            assert scalar == 36.6


ACCEPTED: list[tuple[Any, float]] = [
    (3, 3.0),
    (-7, -7.0),
    (True, 1.0),
    (False, 0.0),
    (Count(5), 5.0),
    (2**53, float(2**53)),
    (-(2**53), -float(2**53)),
    (2**60, float(2**60)),
    (2**53 + 2, float(2**53 + 2)),
    (10**22, 1e22),
    (2**1023, float(2**1023)),
    (np.bool_(True), 1.0),
    (np.int8(-128), -128.0),
    (np.int16(-32768), -32768.0),
    (np.int32(-(2**31)), -float(2**31)),
    (np.int64(-(2**63)), -float(2**63)),
    (np.uint8(255), 255.0),
    (np.uint16(65535), 65535.0),
    (np.uint32(2**32 - 1), float(2**32 - 1)),
    (np.uint64(2**63), float(2**63)),
    (np.float16(0.1), 0.0999755859375),
    (np.float16(6e-8), 2.0**-24),
    (np.float32(0.1), 0.10000000149011612),
    (np.float32(1e-45), 2.0**-149),
    (np.float64(0.1), 0.1),
    (np.longdouble(0.5), 0.5),
    (np.float32(math.inf), math.inf),
    (np.float16(math.nan), math.nan),
    (np.longdouble(math.nan), math.nan),
    (np.float32(-0.0), -0.0),
    (np.array(2.5), 2.5),
    (np.array(2, dtype=np.uint8), 2.0),
    (np.array(True), 1.0),
    (np.array(0.1, dtype=np.float16), 0.0999755859375),
    (np.array(0.1, dtype=">f8"), 0.1),
]

TORCH_FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
TORCH_INTEGERS = [
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


class TestAccepted:
    @pytest.mark.parametrize(("value", "expected"), ACCEPTED, ids=lambda value: f"{type(value).__name__}:{value!r:.20}")
    def test_keeps_its_exact_value(self, value: Any, expected: float) -> None:
        scalar = as_scalar("x", value)
        assert type(scalar) is float
        assert bits(scalar) == bits(expected)

    def test_reaches_the_lake(self, lake: Lake) -> None:
        with lake.run("values", capture=Capture.nothing()) as run:
            for step, (value, _) in enumerate(ACCEPTED):
                run.log({"x": value}, step=step)
        assert [bits(value) for value in read_back(lake, run, "x")] == [bits(expected) for _, expected in ACCEPTED]

    @pytest.mark.parametrize("dtype", TORCH_FLOATS, ids=str)
    @pytest.mark.parametrize("value", [0.1, -0.0, 448.0, math.nan])
    def test_float_tensors(self, dtype: torch.dtype, value: float) -> None:
        tensor = torch.tensor(value, dtype=torch.float64).to(dtype)
        assert bits(float(as_scalar("x", tensor))) == bits(float(tensor.to(torch.float64).numpy()))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_infinite_tensors(self, dtype: torch.dtype) -> None:
        assert as_scalar("x", torch.tensor(-math.inf, dtype=dtype)) == -math.inf

    @pytest.mark.parametrize("dtype", TORCH_INTEGERS, ids=str)
    def test_integer_tensors(self, dtype: torch.dtype) -> None:
        assert bits(float(as_scalar("x", torch.tensor(101, dtype=dtype)))) == bits(101.0)

    def test_a_tensor_of_bools(self) -> None:
        assert [as_scalar("x", torch.tensor(flag)) for flag in (True, False)] == [1.0, 0.0]

    def test_a_tensor_with_a_gradient(self, lake: Lake) -> None:
        weight = torch.tensor(3.0, requires_grad=True)
        loss = weight * weight
        with lake.run("values", capture=Capture.nothing()) as run:
            run.log({"leaf": weight, "loss": loss, "parameter": torch.nn.Parameter(torch.tensor(0.5))})
        assert [read_back(lake, run, name) for name in ("leaf", "loss", "parameter")] == [[3.0], [9.0], [0.5]]
        loss.backward()
        assert weight.grad is not None

    def test_a_tensor_is_read_at_the_call(self, lake: Lake) -> None:
        value = torch.tensor(1.0)
        with lake.run("values", capture=Capture.nothing()) as run:
            run.log({"x": value}, step=0)
            value.fill_(99.0)
            array = np.array(2.0)
            run.log({"x": array}, step=1)
            array[()] = 99.0
        assert read_back(lake, run, "x") == [1.0, 2.0]


TOO_FINE: list[Any] = [
    2**53 + 1,
    -(2**53) - 1,
    10**23 + 1,
    2**1024,
    -(10**400),
    np.int64(2**63 - 1),
    np.uint64(2**64 - 1),
    np.array(2**53 + 1),
    np.longdouble(1) + np.finfo(np.longdouble).eps,
    torch.tensor(2**53 + 1),
    torch.tensor(2**64 - 1, dtype=torch.uint64),
]

REFUSED: list[tuple[Any, str]] = [
    (None, "NoneType"),
    ("0.5", "str"),
    (b"0.5", "bytes"),
    ([0.5], "list"),
    ((0.5,), "tuple"),
    ({}, "dict"),
    (1j, "complex"),
    (Decimal("0.1"), "Decimal"),
    (Fraction(1, 2), "Fraction"),
    (datetime.datetime(2026, 1, 1), "datetime"),
    (datetime.date(2026, 1, 1), "date"),
    (datetime.timedelta(seconds=1), "timedelta"),
    (object(), "object"),
    (lambda: 1.0, "function"),
    (np.complex128(1), "complex128"),
    (np.str_("1"), "str_"),
    (np.datetime64("2026-01-01"), "datetime64"),
    (np.timedelta64(5, "s"), "timedelta64"),
    (np.array(5, dtype="timedelta64[s]"), "timedelta64"),
    (np.array([0.5]), "ndarray"),
    (np.zeros((1, 1)), "ndarray"),
    (np.array([]), "ndarray"),
    (np.ma.masked, "Masked"),
    (pd.NA, "NAType"),
    (pd.NaT, "NaT"),
    (pd.Series([0.5]), "Series"),
    (torch.tensor([0.5]), "Tensor"),
    (torch.zeros(1, 1), "Tensor"),
    (torch.tensor(1j), "Tensor"),
    (torch.empty((), device="meta"), "Tensor"),
]


class TestRefused:
    @pytest.mark.parametrize("value", TOO_FINE, ids=lambda value: f"{type(value).__name__}:{value!s:.24}")
    def test_integers_that_would_be_rounded(self, run: Run, value: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"'loss/total'.*cannot be kept exactly as a float64"):
            run.log({"loss/total": value})

    @pytest.mark.parametrize(("value", "kind"), REFUSED, ids=lambda value: f"{type(value).__name__}:{value!r:.12}")
    def test_names_the_key_the_type_and_what_is_accepted(self, run: Run, value: Any, kind: str) -> None:
        with pytest.raises(InvalidInputError, match=rf"(?s)'val/loss'.*{kind}.*int, float, bool, a numpy scalar"):
            run.log({"val": {"loss": value}})

    def test_integers_too_long_to_print(self, run: Run) -> None:
        with pytest.raises(InvalidInputError, match="'n'"):
            run.log({"n": 10**5000})

    @pytest.mark.parametrize("bad", [None, [1.0], 2**53 + 1, torch.zeros(2)], ids=repr)
    def test_records_nothing_of_the_call(self, lake: Lake, bad: Any) -> None:
        with lake.run("values", capture=Capture.nothing()) as run:
            run.log({"good": 1.0, "bad": 1.0})
            with pytest.raises(InvalidInputError):
                run.log({"good": 2.0, "bad": bad})
            run.log({"good": 3.0})
        query = "SELECT metric, step, value FROM metrics WHERE run_id = $run ORDER BY ALL"
        assert lake.sql(query, run=run.id).fetchall() == [("bad", 0, 1.0), ("good", 0, 1.0), ("good", 1, 3.0)]

    @pytest.mark.parametrize("metrics", [None, [("a", 1.0)], "a", 1.0, {"a"}], ids=repr)
    def test_what_is_no_dict(self, run: Run, metrics: Any) -> None:
        with pytest.raises(InvalidInputError, match="log takes a dict of metrics by name"):
            run.log(metrics)


class TestKeysSeenBefore:
    """The second call with known keys takes a shorter way; it must not remember anything of the first."""

    @pytest.mark.parametrize(
        "first", [{"a": 1, "b": 2}, {"a": np.float32(1), "b": True}, {"a": 1.0, "b": 2.0}], ids=repr
    )
    def test_floats_after_others(self, lake: Lake, first: dict[str, Any]) -> None:
        with lake.run("values", capture=Capture.nothing()) as run:
            run.log(first)
            run.log({"a": 10.0, "b": 20.0})
            run.log({"b": 200.0, "a": 100.0})
        assert read_back(lake, run, "a")[1:] == [10.0, 100.0]
        assert read_back(lake, run, "b")[1:] == [20.0, 200.0]

    def test_nested_and_flat_in_turn(self, lake: Lake) -> None:
        with lake.run("values", capture=Capture.nothing()) as run:
            run.log({"a": {"b": 1, "c": 2}, "d": 3})
            run.log({"a": 4.0, "d": 5.0})
            run.log({"a": {"b": 6.0, "c": 7.0}, "d": 8.0})
            run.log({"a/b": 9.0, "a/c": 10.0, "d": 11.0})
            run.log({"a": 12.0, "d": {"e": 13.0}})
        found = {name: read_back(lake, run, name) for name in ("a", "a/b", "a/c", "d", "d/e")}
        assert found == {
            "a": [4.0, 12.0],
            "a/b": [1.0, 6.0, 9.0],
            "a/c": [2.0, 7.0, 10.0],
            "d": [3.0, 5.0, 8.0, 11.0],
            "d/e": [13.0],
        }

    def test_a_bad_value_among_known_keys(self, run: Run) -> None:
        run.log({"k": 1.0})
        run.log({"k": 2.0})
        with pytest.raises(InvalidInputError, match="'k'"):
            run.log({"k": "3"})

    def test_numpy_floats_are_read_at_the_call(self, lake: Lake) -> None:
        with lake.run("values", capture=Capture.nothing()) as run:
            run.log({"x": 1.0})
            cell = np.array(2.0)
            run.log({"x": cell})
            cell[()] = 99.0
        assert read_back(lake, run, "x") == [1.0, 2.0]
