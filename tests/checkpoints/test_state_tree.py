"""States of Python and numpy, taken apart and put together."""

from __future__ import annotations

import copy
import functools
import io
import json
import random
import re
import subprocess
import sys
import uuid
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_values import again, arrays, infos, keys, put_together, raw_bytes, same, states

from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.checkpoints.paths import child_names
from ckptlake.checkpoints.restore import as_array, as_leaf, unflatten
from ckptlake.checkpoints.tree import DEEPEST, flatten, read_bytes
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, MissingDependencyError

Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Config:
    lr: float = 0.1


class Stateful:
    def __init__(self, inside: object) -> None:
        self.inside = inside

    def state_dict(self) -> object:
        return self.inside


class Zone(tzinfo):
    """A time zone of a class of its own."""


class Words(list):  # type: ignore[type-arg]
    """A list of a class of its own."""


@settings(max_examples=150)
@given(states)
def test_every_state_comes_back_as_it_was(state: object) -> None:
    assert same(again(state), state)


@settings(max_examples=80)
@given(arrays)
def test_bytes_of_arrays_are_those_numpy_writes(array: np.ndarray[Any, Any]) -> None:
    (leaf,) = flatten([array]).leaves
    little = array.astype(array.dtype.newbyteorder("<")) if leaf.dtype.name != "uint8" else array
    assert bytes(read_bytes(leaf)) == (raw_bytes(little) if little.nbytes else b"")
    assert leaf.nbytes == array.nbytes


def test_the_comparison_sees_what_differs() -> None:
    pairs: list[tuple[object, object]] = [
        (1, True), (1, 1.0), (0.0, -0.0), ([1], (1,)), ({1: 2}, {"1": 2}), (np.float32(1), np.float64(1)),
        (OrderedDict(a=1), {"a": 1}), (np.zeros(2, "<f4"), np.zeros(2, ">f4")), (deque([1], 2), deque([1])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (defaultdict(int), defaultdict(list)), (b"a", bytearray(b"a")),
    ]  # fmt: skip
    assert [pair for pair in pairs if same(*pair)] == []


@pytest.mark.parametrize("value", [1, 2**53, -(2**53), 1.5, "x", True, None, [1, [2]]], ids=repr)
def test_what_json_has_is_written_as_json(value: object) -> None:
    assert flatten(value).tree == value


@pytest.mark.parametrize(
    "make",
    [
        random.getstate,
        lambda: np.random.default_rng(1).bit_generator.state,
        lambda: np.random.Generator(np.random.MT19937(1)).bit_generator.state,
        lambda: np.random.Generator(np.random.SFC64(1)).bit_generator.state,
        lambda: np.random.RandomState(1).get_state(),
        lambda: uuid.uuid4(),
    ],
)
def test_states_of_random_generators(make: Any) -> None:
    state = make()
    assert same(again(state), state)


def test_a_generator_goes_on_where_it_was() -> None:
    first, second = np.random.default_rng(1), np.random.default_rng(2)
    state = again(first.bit_generator.state)
    expected = first.random(5)
    second.bit_generator.state = state
    assert np.array_equal(second.random(5), expected)


def test_folds_and_zones_of_times() -> None:
    from zoneinfo import ZoneInfo

    moment = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    found = again(moment)
    assert found.utcoffset() == timedelta(hours=1)
    assert found.tzinfo is moment.tzinfo


def test_metadata_of_an_ordered_dict() -> None:
    state: Any = OrderedDict(a=1)
    state._metadata = OrderedDict({"": {"version": 1}})
    assert same(again(state)._metadata, state._metadata)
    state.other = 1
    with pytest.raises(InvalidInputError, match="attributes _metadata, other"):
        flatten(state)


def test_objects_with_a_state_stand_for_it() -> None:
    assert again({"a": Stateful((1, Stateful({2: 3})))}) == {"a": (1, {2: 3})}


def test_sets_do_not_depend_on_the_order_of_hashes() -> None:
    code = (
        "import json; from ckptlake.checkpoints.tree import flatten; print(json.dumps(flatten(set('abcdefgh')).tree))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


class TestPaths:
    def test_keys_are_joined(self) -> None:
        zero = np.zeros(1)
        state = {"model": {"a/b": zero.copy(), "50%": zero.copy()}, 0: [zero.copy()], (1, 2): Namespace(w=zero.copy())}
        found = [leaf.path for leaf in flatten(state).leaves]
        assert found == ["model/a%2Fb", "model/50%25", "0/0", "(1, 2)/w"]

    def test_the_state_itself_has_an_empty_path(self) -> None:
        assert [leaf.path for leaf in flatten(np.zeros(1)).leaves] == [""]
        nested = {"": {"": np.zeros(1)}, "x": np.zeros(1)}
        assert [leaf.path for leaf in flatten(nested).leaves] == ["/", "x"]

    def test_keys_that_read_alike_differ(self) -> None:
        keys = [0, "0", 0.1, np.float32(0.1), np.float64("nan"), float("nan"), float("nan"), 10**5000, b"x", "b'x'"]
        names = child_names(keys)
        assert names[:4] == ["0%(int)", "0", "0.1", "0.1%(float32)"]
        assert len(set(names)) == len(names)
        state = {key: np.zeros(1) for key in keys}
        assert len({leaf.path for leaf in flatten(state).leaves}) == len(keys)
        assert list(again(state))[:2] == [0, "0"]

    def test_names_can_be_stored(self) -> None:
        names = child_names(["\ud800", "\0", "%00", "%ED%A0%80", "é"])
        assert names == ["%ED%A0%80", "%00", "%2500", "%25ED%25A0%2580", "é"]

    @given(st.lists(keys, max_size=5))
    def test_names_are_unique(self, some: list[object]) -> None:
        names = child_names(dict.fromkeys(some))
        assert len(set(names)) == len(names)
        assert not any("/" in name for name in names)


class TestSharedArrays:
    def test_one_array_is_one_leaf_and_one_object(self) -> None:
        array = np.arange(6.0)
        flat = flatten({"a": array, "b": [array, array.view()]})
        assert [leaf.path for leaf in flat.leaves] == ["a"]
        found = put_together(flat)
        assert found["a"] is found["b"][0]
        found["b"][1][0] = 7
        assert found["a"][0] == 7

    @pytest.mark.parametrize(
        "view",
        [
            lambda a: a.T,
            lambda a: a[1:3],
            lambda a: a[::-1, ::2],
            lambda a: a[:, 1],
            lambda a: a.reshape(-1),
            lambda a: np.broadcast_to(a[0, :1], (5,)),
            lambda a: a.diagonal(),
        ],
    )
    @pytest.mark.parametrize("first", ["view", "whole"])
    def test_views_share_the_memory(self, view: Any, first: str) -> None:
        whole = np.arange(24.0).reshape(4, 6)
        part = view(whole)
        flat = flatten({"view": part, "whole": whole} if first == "view" else {"whole": whole, "view": part})
        assert [leaf.nbytes for leaf in flat.leaves] == [whole.nbytes]
        found = put_together(flat)
        assert np.array_equal(found["view"], part)
        assert np.array_equal(found["whole"], whole)
        found["whole"][:] = np.arange(100, 124).reshape(4, 6)
        assert np.array_equal(found["view"], view(found["whole"]))

    def test_parts_that_only_overlap_are_stored_apart(self) -> None:
        whole = np.arange(10.0)
        flat = flatten([whole[:6], whole[4:]])
        assert [leaf.num_elements for leaf in flat.leaves] == [6, 6]
        assert same(put_together(flat), [whole[:6], whole[4:]])

    def test_neighbours_of_one_buffer_are_stored_apart(self) -> None:
        whole = np.arange(10.0)
        parts = [whole[i : i + 2] for i in range(0, 10, 2)]
        assert len(flatten(parts).leaves) == 5

    def test_the_same_bytes_as_another_type(self) -> None:
        times = np.array(["2026-01-01", "NaT"], "M8[ns]")
        found = again({"times": times, "again": times, "bytes": times.view(np.uint8), "ints": times.view(np.int64)})
        assert found["times"] is found["again"]
        found["bytes"][:] = 0
        assert found["times"][0] == np.datetime64(0, "ns")
        assert found["ints"][0] != 0

    def test_strided_and_big_endian_arrays_are_one_object_too(self) -> None:
        array = np.zeros((3, 4), ">f4")[:, ::2]
        flat = flatten([array, array])
        assert len(flat.leaves) == 1
        found = put_together(flat)
        assert found[0] is found[1]

    def test_bytes_between_fields_are_kept(self) -> None:
        dtype = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"]}, align=True)
        array = np.ndarray((2, 3), dtype, buffer=bytearray(b"\xab" * 96))[:, ::2]
        (leaf,) = flatten(array).leaves
        assert bytes(read_bytes(leaf)) == b"\xab" * 64

    def test_empty_arrays_are_not_mixed_up(self) -> None:
        first, second = np.zeros((0, 3)), np.zeros((0, 3))
        found = again([first, second, first])
        assert found[0] is found[2]
        assert found[0] is not found[1]

    @settings(max_examples=60)
    @given(st.data())
    def test_any_views_of_one_buffer(self, data: st.DataObject) -> None:
        buffer = np.arange(30, dtype=np.int16)
        spans = data.draw(
            st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from([1, 2, -1])), max_size=6)
        )
        state = [buffer[start:stop:step] for start, stop, step in spans]
        flat = flatten(state)
        assert same(put_together(flat), state)
        stored = {id(leaf.array) for leaf in flat.leaves}
        assert all(any(np.may_share_memory(part, leaf.array) for leaf in flat.leaves) for part in state if part.size), (
            stored
        )

    def test_live_memory_is_read_when_asked(self) -> None:
        array = np.zeros(3)
        (leaf,) = flatten([array]).leaves
        array[:] = 5
        assert np.frombuffer(read_bytes(leaf), "f8").tolist() == [5, 5, 5]
        assert np.shares_memory(np.frombuffer(read_bytes(leaf), "f8"), array)


def test_arrays_are_made_of_the_bytes_without_a_copy() -> None:
    data = bytearray(8)
    (array,) = unflatten([{"array": 0}], [LeafInfo("a", DTYPES["int32"], (2,))], lambda _: memoryview(data))
    array[1] = 1
    assert data == bytes([0, 0, 0, 0, 1, 0, 0, 0])


def test_an_array_needs_a_type_numpy_has() -> None:
    with pytest.raises(InvalidInputError, match=r"'w' is of bfloat16.*ckptlake\[torch\]"):
        as_array(LeafInfo("w", DTYPES["bfloat16"], (1,)), memoryview(bytearray(2)))
    with pytest.raises(DamagedCheckpointError, match="takes 8 bytes, 7 are there"):
        as_array(LeafInfo("w", DTYPES["float64"], (1,)), memoryview(bytearray(7)))


def test_one_leaf_alone() -> None:
    flat = flatten({"a": np.arange(3), "b": np.ones(2, np.float32)})
    found = as_leaf(flat.tree, 1, infos(flat)[1], read_bytes(flat.leaves[1]))
    assert same(found, np.ones(2, np.float32))


REFUSED: list[tuple[object, str]] = [
    (lambda: 1, "(function): store its name"),
    (functools.partial(print), "(functools.partial): store its name"),
    (json, "(module): store its name"),
    (Stateful, "(type): store its name"),
    (io.BytesIO(), "(_io.BytesIO): store its path"),
    ((n for n in [1]), "(generator): store list(...)"),
    ({1: 2}.keys(), "(dict_keys): store list(...)"),
    (Config(), "Config): store dataclasses.asdict(...)"),
    (Colour.RED, "Colour): store its .value"),
    (Level.HIGH, "Level): store its .value"),
    (Point(1, 2), "Point): store tuple(...)"),
    (Words([1]), "Words): store list(...)"),
    (np.array([object()]), "(numpy.ndarray): of dtype object"),
    (np.zeros(1, [("a", object)]), "(numpy.ndarray): of dtype [('a', 'O')]"),
    (np.array(["a"], np.dtypes.StringDType(na_object=None)), "(numpy.ndarray): of dtype StringDType"),
    (np.zeros(1, np.dtype([("a", "i4")])).view(np.recarray), "store np.asarray(...)"),
    (np.ma.masked_array([1], [True]), "store its .data and its .mask"),
    (np.random.default_rng(), "store its .bit_generator.state"),
    (np.random.PCG64(), "store its .state"),
    (np.random.RandomState(), "store its .get_state()"),
    (random.Random(), "store its .getstate()"),
    (defaultdict(lambda: 1), "its factory is"),
    (datetime(2026, 1, 1, tzinfo=Zone()), "use datetime.timezone or zoneinfo.ZoneInfo"),
    (object(), "give its class a state_dict()"),
]


class TestRefusals:
    @pytest.mark.parametrize(("value", "told"), REFUSED, ids=[told for _, told in REFUSED])
    def test_what_cannot_be_kept(self, value: object, told: str) -> None:
        with pytest.raises(InvalidInputError, match=re.escape(told)) as raised:
            flatten({"a": [value]})
        assert "'a/0' (" in str(raised.value)

    def test_all_places_are_told_at_once(self) -> None:
        with pytest.raises(InvalidInputError) as raised:
            flatten({f"k{number}": object() for number in range(14)})
        message = str(raised.value)
        assert [f"'k{number}'" in message for number in range(14)] == [True] * 10 + [False] * 4
        assert message.endswith("; and 4 more")

    def test_the_state_itself(self) -> None:
        with pytest.raises(InvalidInputError, match=r"the state itself \(object\)"):
            flatten(object())

    @pytest.mark.parametrize("key", [(1, Point(1, 2)), Stateful({}), object(), Colour.RED, len])
    def test_keys(self, key: object) -> None:
        with pytest.raises(InvalidInputError, match="cannot be a key or be in a set"):
            flatten({key: 1})
        with pytest.raises(InvalidInputError, match="cannot be a key or be in a set"):
            flatten({"a": {key}})

    def test_cycles(self) -> None:
        inner: list[object] = []
        state = {"a": {"b": inner}}
        inner.append(state)
        with pytest.raises(InvalidInputError, match=r"'a/b/0' \(dict\): it contains itself"):
            flatten(state)
        loop = Stateful(None)
        loop.inside = [loop]
        with pytest.raises(InvalidInputError, match="it contains itself"):
            flatten(loop)

    def test_what_occurs_twice_is_no_cycle(self) -> None:
        inner = [1]
        assert again([inner, inner]) == [[1], [1]]

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: OrderedDict(a=v), lambda v: (v,)])
    def test_depth(self, wrap: Any) -> None:
        state = functools.reduce(lambda inside, _: wrap(inside), range(DEEPEST), 1)
        assert same(again(state), state)
        with pytest.raises(InvalidInputError, match=f"it lies in {DEEPEST} containers"):
            flatten(wrap(state))


DAMAGED: list[object] = [
    {"unknown": 1}, {}, {"dict": [], "list": []}, {"dict": 1}, {"dict": [[1]]}, {"dict": [["a", 1], ["a", 2]]},
    {"dict": [[[1], 2]]}, {"set": [1, 1]}, {"set": [[1]]}, {"frozenset": "ab"}, {"tuple": {"a": 1}}, {"slice": [1, 2]},
    {"deque": [1, 2, 3]}, {"deque": [-1]}, {"deque": [True]}, {"deque": []}, {"deque": [{"int": "0x" + "f" * 40}]},
    {"defaultdict": ["eval"]}, {"defaultdict": ["object"]}, {"defaultdict": [["int"]]}, {"namespace": [[1, 2]]},
    {"int": "12"}, {"int": 5}, {"int": "0x"}, {"float": "1.5"}, {"float": "infinity"}, {"complex": [1]},
    {"complex": ["nan", 1]}, {"bytes": "a"}, {"bytes": "!!!!"}, {"bytes": 5}, {"bytearray": ["QQ=="]},
    {"range": [1, 2, 0]}, {"range": [1, 2]}, {"range": [1, "2", 3]}, {"date": "2026-13-01"}, {"date": "20260101"},
    {"datetime": ["2026-01-01T00:00:00+01:00", 0, None]}, {"datetime": ["2026-01-01T00:00:00", 2, None]},
    {"datetime": ["2026-01-01T00:00:00", 0, {"zoneinfo": "../../etc/passwd"}]}, {"zoneinfo": "Europe"},
    {"zoneinfo": "x" * 5000}, {"zoneinfo": "a\0b"}, {"timezone": [1, 0, 0]}, {"timezone": [0, 0, 0, 1]},
    {"timedelta": [10**12, 0, 0]}, {"timedelta": [{"int": "0x" + "f" * 400}, 0, 0]}, {"timedelta": "123"},
    {"decimal": "1_0"}, {"decimal": "1e999999999999999999999"}, {"decimal": "x"}, {"decimal": 1},
    {"fraction": [1, 0]}, {"fraction": [2, 4]}, {"uuid": 5}, {"uuid": "x"}, {"path": ["eval", "x"]},
    {"path": ["WindowsPath", "x"]}, {"np_str": 1}, {"np_bytes": "!"}, {"dtype": "O"}, {"dtype": "<f8,<f8"},
    {"dtype": "(2,3)f8"}, {"dtype": {"struct": [[["a", "O", 0]], 8, False]}}, {"dtype": "V99999999999"},
    {"dtype": {"struct": [[["a", "<f8", -8]], 8, False]}}, {"dtype": {"struct": [[["a", "<f8", 0]], 2**60, False]}},
    {"dtype": {"subarray": ["<f8", [-1]]}}, {"scalar": ["<f8", "QQ=="]}, {"scalar": ["O", "QUFBQUFBQUE="]},
    {"scalar": [{"subarray": ["|b1", [1]]}, "AA=="]}, {"strings": [[2], ["a"]]}, {"strings": [[1], ["\ud800"]]},
    {"array": 1}, {"array": -1}, {"array": "0"}, {"array": True}, {"array": None}, {"array": 0.0},
    {"array_view": [0, 0, [3], [1]]}, {"array_view": [0, -1, [1], [1]]}, {"array_view": [0, 1, [2], [-2]]},
    {"array_view": [0, 0, [2], [2**70]]}, {"array_view": [0, 0, [0], [1]]}, {"array_view": [0, 0, [1, 1], [1]]},
    {"raw": [{"array": 0}, "O", [2]]}, {"raw": [{"array": 0}, "<f8", [2]]}, {"raw": [[1], "<f8", [2]]},
    {"raw": [{"array": 2}, "<f8", [2]]}, {"raw": [{"array": 2}, "|V0", [2**70]]}, {"raw": [{"array": 2}, "<f4", [-1]]},
    {"array": 3}, {"array": 4},
]  # fmt: skip
LEAVES = [
    LeafInfo("good", DTYPES["int32"], (2,)),
    LeafInfo("unused", DTYPES["int8"], ()),
    LeafInfo("bytes", DTYPES["uint8"], (4,)),
    LeafInfo("bf16", DTYPES["bfloat16"], (2,)),
    LeafInfo("wrong", DTYPES["float32"], (2**40, 2**40)),
]
BYTES = [bytearray(8), bytearray(1), bytearray(4), bytearray(4), bytearray(16)]


def read(number: int) -> memoryview:
    return memoryview(BYTES[number])


class TestHostileTrees:
    @pytest.mark.parametrize(
        "node", [node for node in DAMAGED if node != {"array": 1}], ids=lambda node: str(node)[:60]
    )
    def test_damage_is_told(self, node: object) -> None:
        for tree in (node, [node], {"tuple": [1, node]}):
            with pytest.raises(DamagedCheckpointError):
                unflatten(tree, LEAVES, read)

    @pytest.mark.parametrize("tree", [1j, b"x", (1, 2), {1: 2}, object(), {"dict": ()}], ids=repr)
    def test_what_is_no_json(self, tree: object) -> None:
        with pytest.raises(DamagedCheckpointError):
            unflatten(tree, LEAVES, read)

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"dict": [["a", v]]}, lambda v: {"raw": [v, v, v]}])
    def test_depth(self, wrap: Any) -> None:
        tree = functools.reduce(lambda inside, _: wrap(inside), range(5000), None)
        with pytest.raises(DamagedCheckpointError):
            unflatten(tree, LEAVES, read)

    @pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
    def test_what_reading_raises_is_no_damage(self, kind: type[Exception]) -> None:
        def fail(number: int) -> memoryview:
            raise kind("the disk is gone")

        with pytest.raises(kind, match="the disk is gone"):
            unflatten([{"array": 0}], LEAVES, fail)

    def test_an_unknown_zone_may_be_installed(self) -> None:
        with pytest.raises(MissingDependencyError, match="pip install tzdata"):
            unflatten({"zoneinfo": "Europe/Atlantis"}, [], read)

    def test_names_stay_names(self) -> None:
        found = unflatten({"namespace": [["__class__", 1], ["__dict__", 2]]}, [], read)
        assert type(found) is SimpleNamespace
        assert vars(found) == {"__class__": 1, "__dict__": 2}

    def test_a_state_without_torch(self) -> None:
        code = """
import sys; sys.modules["torch"] = None
import json, numpy as np
from ckptlake.checkpoints.tree import flatten, read_bytes
from ckptlake.checkpoints.restore import LeafInfo, as_leaf, unflatten
from ckptlake.errors import MissingDependencyError
flat = flatten({"a": np.arange(3), "t": (1, 2)})
infos = [LeafInfo(leaf.path, leaf.dtype, leaf.shape) for leaf in flat.leaves]
read = lambda number: read_bytes(flat.leaves[number])
assert unflatten(flat.tree, infos, read)["a"].tolist() == [0, 1, 2]
for tree in ({"tensor": 0}, {"torch_dtype": "float32"}):
    try:
        unflatten(tree, infos, read)
    except MissingDependencyError as error:
        assert "pip install 'ckptlake[torch]'" in str(error)
    else:
        raise AssertionError(tree)
try:
    as_leaf({"tensor": 0}, 0, infos[0], read(0))
except MissingDependencyError:
    print("told")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout == "told\n", done.stderr

    def test_torch_is_not_loaded_for_nothing(self) -> None:
        code = """
import sys
from ckptlake.checkpoints.tree import flatten
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.rng import collect_rng, restore_rng
unflatten(flatten({"a": [1, {2}]}).tree, [], None)
restore_rng(collect_rng())
try:
    flatten(object())
except ValueError:
    pass
print("torch" in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"

    @settings(max_examples=200)
    @given(states, st.randoms(use_true_random=False))
    def test_mutations(self, state: object, chance: random.Random) -> None:
        flat = flatten([state, np.arange(4), {1: "a"}])
        tree = mutated(json.loads(json.dumps(flat.tree)), chance)
        stored = [bytearray(read_bytes(leaf)) for leaf in flat.leaves]
        with suppress(DamagedCheckpointError, MissingDependencyError):
            unflatten(tree, infos(flat), lambda number: memoryview(stored[number]))


JUNK: list[object] = [
    None, True, 0, 1, -1, 2**31, 2**63, 2**70, 10**4000, 1.5, float("nan"), "", "int", "O", "\ud800", "cpu", [],
    [0], [[0]], [-1], [2**62, 2**62], {}, {"array": 0}, {"tensor": 0}, {"dict": []},
    {"int": "0x" + "f" * 300}, {"float": "nan"},
]  # fmt: skip
TAGS = [
    "array",
    "array_view",
    "raw",
    "dict",
    "tuple",
    "set",
    "scalar",
    "deque",
    "range",
    "timedelta",
    "datetime",
    "strings",
]


def mutated(tree: Any, chance: random.Random, tags: Sequence[str] = TAGS) -> Any:
    """Return a tree with a few places changed."""
    holder: list[Any] = [tree]
    for _ in range(chance.randint(1, 4)):
        places: list[tuple[Any, Any]] = []
        left: list[Any] = [holder]
        while left:
            node = left.pop()
            inside = list(node) if isinstance(node, dict) else range(len(node))
            places += [(node, key) for key in inside]
            left += [node[key] for key in inside if isinstance(node[key], list | dict)]
        node, key = chance.choice(places)
        change = chance.randrange(4)
        if change == 0:
            node[key] = copy.deepcopy(chance.choice(JUNK))  # what is put in may be changed next
        elif change == 1:
            other, place = chance.choice(places)
            node[key] = json.loads(json.dumps(other[place])) if other is not holder else None
        elif change == 2 and isinstance(node, dict):
            node[chance.choice(tags)] = node.pop(key)
        elif change == 3 and isinstance(node, list) and node is not holder:
            del node[key]
    return holder[0]


def test_dates_are_not_datetimes() -> None:
    assert same(again([date(1, 1, 1), datetime(1, 1, 1)]), [date(1, 1, 1), datetime(1, 1, 1)])
    assert type(again(Counter("aab"))) is Counter
