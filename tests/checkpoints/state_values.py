"""States to take apart and put together, and a strict comparison of what comes back."""

from __future__ import annotations

import json
import math
import struct
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptlake.checkpoints.leaves import Flat, LeafInfo
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.tree import flatten, read_bytes


def infos(flat: Flat) -> list[LeafInfo]:
    return [LeafInfo(leaf.path, leaf.dtype, leaf.shape) for leaf in flat.leaves]


def put_together(flat: Flat, map_location: object = None) -> Any:
    """Return the state of a tree that has been text, its leaves in memory of their own; each is asked for once."""
    tree = json.loads(json.dumps(flat.tree, allow_nan=False))
    asked: set[int] = set()

    def read(number: int) -> memoryview:
        assert number not in asked
        asked.add(number)
        data = read_bytes(flat.leaves[number])
        assert data.format == "B"
        assert data.ndim == 1
        assert data.contiguous
        assert data.nbytes == flat.leaves[number].nbytes
        return memoryview(bytearray(data))

    state = unflatten(tree, infos(flat), read, map_location)
    assert asked == set(range(len(flat.leaves)))
    return state


def again(state: object) -> Any:
    flat = flatten(state)
    paths = [leaf.path for leaf in flat.leaves]
    assert len(set(paths)) == len(paths)
    return put_together(flat)


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are alike in type and in every detail; NaN is like NaN."""
    if type(a) is not type(b):
        return False
    match a:
        case float():
            return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
        case complex():
            return same(a.real, b.real) and same(a.imag, b.imag)
        case dict():
            items = zip(a.items(), b.items(), strict=True) if len(a) == len(b) else ()
            extra = getattr(a, "default_factory", None) is getattr(b, "default_factory", None)
            inside = all(same(k, other) and same(v, value) for (k, v), (other, value) in items)
            return len(a) == len(b) and extra and inside and same_attributes(a, b)
        case list() | tuple() | deque():
            inside = len(a) == len(b) and all(map(same, a, b))
            return inside and getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
        case set() | frozenset():
            return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
        case slice():
            return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
        case SimpleNamespace() | Namespace():
            return same(vars(a), vars(b))
        case datetime() | time():
            return a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.fold == b.fold and same(a.tzinfo, b.tzinfo)
        case timezone():
            return repr(a) == repr(b)
        case Decimal():
            return a.as_tuple() == b.as_tuple()
        case np.ndarray():
            alike = a.dtype == b.dtype and a.dtype.isalignedstruct == b.dtype.isalignedstruct  # int64 is long long
            return alike and a.shape == b.shape and raw_bytes(a) == raw_bytes(b)
        case np.generic():
            return same(a.dtype, b.dtype) and a.tobytes() == b.tobytes()
        case np.dtype():
            return a == b and a.isalignedstruct == b.isalignedstruct and a.fields == b.fields
    return bool(a == b)


def raw_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Return the bytes of an array, those between the fields too, which `tobytes` makes up where it has to copy."""
    if not array.itemsize or array.dtype.hasobject:
        return repr(array.tolist()).encode()
    return array.view(np.dtype((np.void, array.itemsize))).tobytes()


def same_attributes(a: object, b: object) -> bool:
    return not hasattr(a, "__dict__") or same(vars(a), vars(b))


ZONES = [
    UTC,
    timezone(timedelta(hours=-3, microseconds=5)),
    timezone(timedelta(hours=2), "MESZ"),
    ZoneInfo("Europe/Berlin"),
]

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=8) | st.sampled_from(
    ["", "\ud800", "a/b%", "0"]
)
integers = st.integers() | st.integers(-(2**200), 2**200) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])
floats = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324])
decimals = st.decimals() | st.sampled_from(
    [Decimal("sNaN123"), Decimal("-NaN"), Decimal("-0E-7"), Decimal("1E+999999")]
)
paths = st.sampled_from(
    [Path("/data/a"), Path(), PurePosixPath("//x/../y"), PureWindowsPath("C:/a\\b"), PurePosixPath("\udc80")]
)
times = st.datetimes(timezones=st.none() | st.sampled_from(ZONES), allow_imaginary=False)
plain = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    floats,
    st.complex_numbers(),
    texts,
    st.binary(max_size=8),
    st.builds(range, integers, integers, st.integers().filter(bool)),
    st.dates(),
    times,
    st.times(timezones=st.none() | st.sampled_from(ZONES)),
    st.timedeltas(),
    st.sampled_from(ZONES),
    decimals,
    st.fractions() | st.just(Fraction(2**90, 3)),
    st.uuids(),
    paths,
)
units = st.sampled_from(["Y", "M", "D", "h", "s", "ms", "us", "ns", "ps", "25s"])
moments = st.builds(
    lambda count, unit, kind: kind(count, unit),
    st.integers(-(2**40), 2**40),
    units,
    st.sampled_from([np.datetime64, np.timedelta64]),
)
numpy_dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(min_len=1, max_len=5),
    hnp.unicode_string_dtypes(min_len=1, max_len=5),
    hnp.array_dtypes(max_size=3),
    hnp.nested_dtypes(max_leaves=5, subtype_strategy=hnp.scalar_dtypes()),
    st.sampled_from([np.dtype("g"), np.dtype(">f4"), np.dtype("G"), np.dtype("q"), np.dtype("V7"), np.dtype([])]),
    st.just(np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "titles": ["A", None]}, align=True)),
)


def _array_of(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    count = math.prod(shape) * dtype.itemsize
    data = bytearray(np.random.default_rng(seed).integers(0, 128, count, np.uint8).tobytes())
    if dtype.kind in "bUO" or dtype.names is not None or dtype.subdtype is not None:
        data = bytearray(count)  # not every byte is a truth value or a character
    return np.ndarray(shape, dtype, buffer=data)


arrays = st.builds(
    _array_of, numpy_dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=3), st.integers(0, 99)
).map(lambda array: array[..., ::-1] if array.ndim > 1 and array.shape[0] == 2 else array)
scalars = st.one_of(
    numpy_dtypes.filter(lambda dtype: dtype.subdtype is None).map(lambda dtype: _array_of(dtype, (), 1)[()]),
    moments,
    st.sampled_from(["", "a\0", "\ud800"]).map(np.str_),
    st.binary(max_size=4).map(np.bytes_),
    st.sampled_from([np.longlong(3), np.longdouble("1.1"), np.float16("nan"), np.bool_(True)]),
).filter(lambda scalar: isinstance(scalar, np.generic))
numpy_values = st.one_of(arrays, scalars, numpy_dtypes, st.just(np.array(["ab", "\0"], np.dtypes.StringDType())))

# A signalling NaN has no hash, and bytes that can be written to have none.
hashables = (
    plain.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
    | scalars.filter(lambda scalar: not isinstance(scalar, np.void))
    | numpy_dtypes
)
keys = st.recursive(
    hashables, lambda inside: st.lists(inside, max_size=2).map(tuple) | st.frozensets(inside, max_size=2), max_leaves=3
)


def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    dicts = st.dictionaries(keys, inside, max_size=4)
    named = st.dictionaries(texts, inside, max_size=3)
    factories = st.sampled_from([int, float, list, dict, set, str, tuple, bool, None])
    return st.one_of(
        st.lists(inside, max_size=4),
        st.lists(inside, max_size=4).map(tuple),
        dicts,
        dicts.map(OrderedDict),
        dicts.map(lambda items: dict.copy(items)).map(lambda items: _counter(items)),
        st.builds(defaultdict, factories, dicts),
        st.lists(inside, max_size=3).map(deque),
        st.lists(inside, max_size=3).map(lambda values: deque(values, 3)),
        st.sets(keys, max_size=3),
        st.frozensets(keys, max_size=3),
        st.builds(slice, inside, inside, inside),
        named.map(lambda items: SimpleNamespace(**items)),
        named.map(lambda items: Namespace(**items)),
        st.binary(max_size=5).map(bytearray),
    )


def _counter(items: dict[Any, Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for key, value in items.items():
        found[key] = value
    return found


states = st.recursive(plain | numpy_values, containers, max_leaves=12)
