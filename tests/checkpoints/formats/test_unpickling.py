"""Pickles from elsewhere: plain data comes back as it was, and nothing else happens."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import decimal
import fractions
import io
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_pickles import ATTACKS, EXTENSION
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_assembly import (
    NOTHING,
    array,
    call,
    dict_of,
    dtype,
    get,
    list_of,
    name,
    number,
    put,
    raw,
    text,
    tuple_of,
    whole,
)

import ckptlake
from ckptlake.checkpoints.formats.unpickling import REFUSE, STUB, Policy, Stub, load_pickle, state_dict_of
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, InvalidInputError, UnsafeFileError

PROTOCOLS = range(6)
CHILD = Path(__file__).with_name("unpickling_child.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ckptlake.__file__).parents[1])}
FOREIGN = os.environ.get("CKPTLAKE_FOREIGN_CHECKPOINTS")

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_policy = pytest.mark.parametrize("policy", Policy)


def read(content: bytes, policy: Policy = REFUSE) -> Any:
    return load_pickle(memoryview(content), policy).value


PLAIN = {
    "none": None,
    "truths": [True, False],
    "integers": [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, -(2**64), 2**255, -(2**2047) + 1],
    "floats": [0.0, -0.0, 1.5, 1e300, 5e-324, float("inf"), float("-inf")],
    "complex": 1.5 - 2j,
    "texts": ["", "plain", "ünïcode ✈️", "line\nbreak\\", "\ud800", "\0", "x" * 300, "y" * 70_000],
    "bytes": [b"", b"\0\xff", b"x" * 300, b"'quoted\"", bytes(range(256))],
    "bytearrays": [bytearray(), bytearray(b"\0\xff")],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": {"a": [{"b": ({"c": [1]},)}]},
    "keys": {None: 1, 1: 2, "x": 3, (1, ("y", None)): 4, 1.5: 5, b"z": 6, frozenset({1}): 7, 2**70: 8},
    "sets": [set(), {1, 2, "x"}, frozenset(), frozenset({1, (2, 3)})],
    "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "defaultdict without": collections.defaultdict(None, {"a": 1}),
    "counter": collections.Counter("abracadabra"),
    "deques": [collections.deque([1, 2]), collections.deque([1, 2], maxlen=2), collections.deque()],
    "slices": [slice(None), slice(1, None, 2)],
    "ranges": [range(5), range(10, 0, -3)],
    "ellipsis": ...,
    "classes": [int, float, list, collections.OrderedDict, np.float32],
    "namespaces": [argparse.Namespace(lr=0.1, layers=[1, 2]), types.SimpleNamespace(a=1, b=None)],
    "days": [datetime.date(2024, 2, 29), datetime.time(1, 2, 3, 4), datetime.timedelta(-1, 2, 3)],
    "moments": [
        datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
        datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "there")),
    ],
    "decimals": [decimal.Decimal("1.50"), decimal.Decimal("-Infinity"), decimal.Decimal("1E+500")],
    "fractions": [fractions.Fraction(-1, 3), fractions.Fraction(5)],
    "uuids": [uuid.UUID(int=1), uuid.uuid5(uuid.NAMESPACE_DNS, "x")],
    "pure paths": [pathlib.PurePosixPath("/a/b.c"), pathlib.PureWindowsPath("c:/x"), pathlib.PurePosixPath()],
    "Python's generator": random.Random(3).getstate(),
}


@each_protocol
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_data_comes_back_as_it_was(kind: str, protocol: int) -> None:
    content = pickle.dumps(PLAIN[kind], protocol)
    value = read(content)
    assert repr(value) == repr(PLAIN[kind])
    assert value == PLAIN[kind]
    assert type(value) is type(PLAIN[kind])


ALIGNED = np.dtype([("a", "i1"), ("b", "f8", (2,))], align=True)
TITLED = np.dtype({"names": ["a"], "formats": ["<f4"], "offsets": [4], "itemsize": 12, "titles": ["A"]})
ARRAYS = {
    "floats": np.arange(6.0).reshape(2, 3),
    "by columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "permuted": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "empty": np.zeros((0, 3)),
    "no axes": np.array(7),
    "other byte order": np.arange(3, dtype=">i4"),
    "halves": np.array([1.5, np.nan, np.inf], np.float16),
    "truths": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
    "texts": np.array(["a", "bcd", "ü✈"]),
    "bytes": np.array([b"a", b"bcd"]),
    "dates": np.array(["2024-02-29", "NaT"], "M8[D]"),
    "spans": np.array([1, 2], "m8[25us]"),
    "generic spans": np.array([1, 2], "m8"),
    "structured": np.array([(1, 2.5)], [("a", ">i2"), ("b", [("c", "f4"), ("d", "S3")])]),
    "aligned": np.zeros(2, ALIGNED),
    "titled": np.zeros(2, TITLED),
    "objects": np.array([1, "a", None, [2]], dtype=object),
    "read-only": np.frombuffer(b"abcd", "u1"),
}


@each_protocol
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_come_back_as_they_were(kind: str, protocol: int) -> None:
    content = pickle.dumps([ARRAYS[kind]] * 2, protocol)
    first, again = read(content)
    expected = pickle.loads(content)[0]
    assert first is again
    assert type(first) is np.ndarray
    assert (first.dtype, first.dtype.isalignedstruct, first.shape) == (
        expected.dtype,
        expected.dtype.isalignedstruct,
        expected.shape,
    )
    assert (first.strides, first.flags.writeable) == (expected.strides, expected.flags.writeable)
    assert first.dtype.hasobject or first.tobytes() == expected.tobytes()
    assert repr(first.tolist()) == repr(expected.tolist())


@each_protocol
def test_numpy_scalars_and_types_come_back_as_they_were(protocol: int) -> None:
    scalars = [
        np.float32(1.5),
        np.int64(-7),
        np.bool_(True),
        np.str_(""),
        np.str_("ü"),
        np.bytes_(b"x"),
        np.complex64(1j),
    ]
    scalars += [np.datetime64("2024-02-29T01:02", "ms"), np.timedelta64(5, "s"), np.longdouble(1) / 3]
    types_ = [array.dtype for array in ARRAYS.values()] + [np.dtype(("f4", (2, 3)))]
    values, dtypes = read(pickle.dumps((scalars, types_), protocol))
    assert values == scalars
    assert [type(value) for value in values] == [type(scalar) for scalar in scalars]
    assert dtypes == types_
    assert [found.isalignedstruct for found in dtypes] == [wanted.isalignedstruct for wanted in types_]
    record = read(pickle.dumps(ARRAYS["structured"][0], protocol))
    assert record.tolist() == ARRAYS["structured"][0].tolist()


@each_protocol
def test_numpy_generators_come_back_as_their_plain_state(protocol: int) -> None:
    generator, old = np.random.default_rng(3), np.random.RandomState(3)
    generator.random(5), old.normal(size=3)
    state, old_state = read(pickle.dumps((generator, old), protocol))
    assert type(state) is type(old_state) is dict
    restored = np.random.PCG64()
    restored.state = state
    assert np.random.Generator(restored).random() == generator.random()
    restored_old = np.random.RandomState()
    restored_old.set_state(old_state)
    assert restored_old.normal() == old.normal()
    legacy = np.random.RandomState(4).get_state()
    assert str(read(pickle.dumps(legacy, protocol))) == str(legacy)


@each_protocol
def test_paths_come_back_pure_and_versions_as_text(protocol: int) -> None:
    path, version = read(pickle.dumps((Path("/a/b"), torch.__version__), protocol))
    assert (path, type(path)) == (pathlib.PurePosixPath("/a/b"), pathlib.PurePosixPath)
    assert (version, type(version)) == (str(torch.__version__), str)


@pytest.mark.parametrize("protocol", range(1, 6))
def test_tensors_in_a_plain_pickle(protocol: int) -> None:
    state = {
        "weight": torch.randn(3, 4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "param": torch.nn.Parameter(torch.ones(2)),
    }
    state["view"] = state["weight"][1:, ::2]
    found = read(pickle.dumps(state, protocol))
    for key, tensor in state.items():
        assert torch.equal(found[key], tensor)
        assert (type(found[key]), found[key].requires_grad) == (type(tensor), tensor.requires_grad)


def said_by(script: str, content: bytes, folder: Path) -> str:
    """Return what a fresh process prints that reads a pickle."""
    (folder / "state.pkl").write_bytes(content)
    setting = "import sys; from ckptlake.checkpoints.formats.unpickling import REFUSE, STUB, load_pickle"
    reading = f"load_pickle(open({str(folder / 'state.pkl')!r}, 'rb'), STUB)"
    program = f"{setting}\n{script.format(reading=reading)}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=60).stdout


def test_torch_is_loaded_only_for_what_needs_it(tmp_path: Path) -> None:
    script = "{reading}; print('torch' in sys.modules)"
    assert said_by(script, pickle.dumps((PLAIN, ARRAYS)), tmp_path) == "False\n"
    assert said_by(script, pickle.dumps(torch.ones(2)), tmp_path) == "True\n"


def test_tensors_without_torch(tmp_path: Path) -> None:
    script = (
        "sys.modules['torch'] = None\ntry: {reading}\nexcept ImportError as error: print(type(error).__name__, error)"
    )
    said = said_by(script, pickle.dumps(torch.ones(2)), tmp_path)
    assert said.startswith("MissingDependencyError")
    assert "ckptlake[torch]" in said


def test_names_of_python_2_and_older_numpy() -> None:
    assert read(b"c__builtin__\nset\n((lI1\naI2\natR.") == {1, 2}
    assert read(b"ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR(dS'a'\nI1\nsb.") == (
        argparse.Namespace(a=1)
    )
    content = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in content
    assert read(content).tolist() == [0.0, 1.0, 2.0]


def test_strings_of_python_2_are_text_if_they_are_ascii_and_else_bytes() -> None:
    assert read(b"S'plain \\'\\x41\\n'\n.") == "plain 'A\n"
    assert read(b"S'\\xff\\x00'\n.") == b"\xff\x00"
    assert read(b"\x80\x02U\x02ab.") == "ab"
    assert read(b"\x80\x02T\x02\0\0\0\xc3\xbc.") == "ü".encode()
    raw_of_old_numpy = b"\x80\x02" + pickle.dumps(np.arange(2, dtype="u1"), 2)[2:]
    assert read(raw_of_old_numpy).tolist() == [0, 1]


def test_sharing_and_cycles_are_kept() -> None:
    shared = [1]
    loop: list[Any] = [shared, shared]
    loop.append(loop)
    value = read(pickle.dumps(loop))
    assert value[0] is value[1]
    assert value[2] is value


def test_files_and_mapped_bytes_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "state.pkl"
    path.write_bytes(pickle.dumps(PLAIN["nested"]))
    with path.open("rb") as file:
        assert load_pickle(file, REFUSE).value == PLAIN["nested"]
    path.write_bytes(whole(name("os", "system")))
    with path.open("rb") as file, pytest.raises(UnsafeFileError, match=r"state\.pkl"):
        load_pickle(file, REFUSE)
    assert load_pickle(io.BytesIO(pickle.dumps(3)), STUB).value == 3


def test_what_is_no_policy_refuses() -> None:
    with pytest.raises(UnsafeFileError):
        load_pickle(memoryview(whole(name("os", "system"))), "stub")  # type: ignore[arg-type]


class Widget:
    """Stands for any class of a program that is not here."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class Settings(dict[str, object]):
    pass


class Row(collections.UserList[object]):
    pass


def test_a_refusal_names_the_class_and_the_way_out() -> None:
    with pytest.raises(UnsafeFileError, match=r"test_unpickling\.Widget.*allow_unsafe=True"):
        read(pickle.dumps({"config": Widget()}))


@each_protocol
def test_stubs_remember_what_the_file_has_and_run_nothing(protocol: int) -> None:
    inner = Widget(x=1)
    original = {"widget": Widget(inner=inner, same=inner), "settings": Settings(a=[1]), "class": Widget}
    unpickled = load_pickle(memoryview(pickle.dumps(original, protocol)), STUB)
    assert unpickled.stubs == (f"{__name__}.Settings", f"{__name__}.Widget")
    widget = unpickled.value["widget"]
    assert isinstance(widget, Stub)
    assert widget.name == f"{__name__}.Widget"
    assert widget.state["inner"] is widget.state["same"]
    assert widget.state["inner"].state == {"x": 1}
    settings_ = unpickled.value["settings"]
    assert settings_.entries == {"a": [1]} or settings_.args == ({"a": [1]},)
    assert unpickled.value["class"] == unpickled.value["class"]
    assert unpickled.value["class"].name == f"{__name__}.Widget"
    assert repr(widget) == f"Stub('{__name__}.Widget')"


def test_stubs_keep_elements_and_named_arguments() -> None:
    stub = read(
        whole(name("somewhere", "Bag"), pickle.EMPTY_TUPLE, pickle.REDUCE, pickle.MARK, number(1), pickle.APPENDS), STUB
    )
    assert (stub.args, stub.elements) == ((), [1])
    named = read(
        whole(name("somewhere", "Bag"), tuple_of(number(1)), dict_of(text("a"), number(2)), pickle.NEWOBJ_EX), STUB
    )
    assert named.args == (1, {"a": 2})
    called = read(whole(call(call(name("somewhere", "make"), number(1)), number(2))), STUB)
    assert (called.name, called.args) == ("somewhere.make", (2,))


def test_what_is_known_but_given_a_stub_is_one_itself() -> None:
    zone = call(name("zoneinfo", "ZoneInfo._unpickle"), text("Europe/Berlin"), pickle.NEWTRUE)
    moment = call(name("datetime", "datetime"), raw(bytes([7, 232, 2, 29, 0, 0, 0, 0, 0, 0])), zone)
    unpickled = load_pickle(memoryview(whole(moment)), STUB)
    assert unpickled.value.name == "datetime.datetime"
    assert unpickled.value.args[1].args == ("Europe/Berlin", True)
    assert unpickled.stubs == ("datetime.datetime", "zoneinfo.ZoneInfo._unpickle")
    made = read(whole(call(name("collections", "defaultdict"), name("somewhere", "factory"))), STUB)
    assert made.default_factory is None


def test_weights_of_a_pickled_module() -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.ModuleDict({"a": torch.nn.GRU(2, 3)})
    )
    module.register_buffer("passing", torch.ones(1), persistent=False)
    module.register_parameter("nothing", None)
    stub = read(pickle.dumps(module), STUB)
    found, expected = state_dict_of(stub), module.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_stub_that_is_no_module_has_no_weights() -> None:
    with pytest.raises(InvalidInputError, match="no pickled"):
        state_dict_of(Stub("somewhere.Widget"))
    empty = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    loop = Stub("somewhere.Net", state=dict(empty))
    loop.state["_modules"] = {"again": loop}
    with pytest.raises(InvalidInputError, match="contains itself"):
        state_dict_of(loop)
    lazy = Stub("somewhere.Net", state={**empty, "_parameters": {"w": Stub("somewhere.Lazy")}})
    with pytest.raises(InvalidInputError, match=r"w of .*somewhere\.Lazy"):
        state_dict_of(lazy)


@pytest.fixture
def registered() -> Iterator[None]:
    copyreg.add_extension(*EXTENSION)
    yield
    copyreg.remove_extension(*EXTENSION)


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The attacks that Python's own unpickler falls for."""
    folder = tmp_path_factory.mktemp("fallen")
    command = [sys.executable, CHILD, "attack", folder, "ATTACKS"]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=200)
    return {attack for index, attack in enumerate(ATTACKS) if (folder / f"canary{index}").exists()}


def test_every_attack_is_one(fallen: set[str]) -> None:
    assert fallen == set(ATTACKS)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_stubs_of_them_are_inert(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    monkeypatch.syspath_prepend(tmp_path)
    content = ATTACKS[attack](canary)
    modules = set(sys.modules)
    with pytest.raises(UnsafeFileError):
        read(content)
    try:
        unpickled = load_pickle(memoryview(content), STUB)
    except CkptlakeError:
        assert attack == "extension registry"
    else:
        assert unpickled.stubs
    assert not canary.exists()
    assert {module for module in set(sys.modules) - modules if module.startswith("evil")} == set()


def patched(target: bytes, attribute: str) -> bytes:
    return whole(target, dict_of(text(attribute), number(1)), pickle.BUILD)


@each_policy
@pytest.mark.parametrize(
    ("target", "attribute"),
    [
        (call(name("collections", "OrderedDict")), "items"),
        (call(name("collections", "OrderedDict")), "__class__"),
        (call(name("argparse", "Namespace")), "__eq__"),
        (call(name("argparse", "Namespace")), "_get_kwargs"),
        (call(name("types", "SimpleNamespace")), "__class__"),
        (name("argparse", "Namespace"), "__eq__"),
        (name("collections", "OrderedDict"), "items"),
        (name("numpy", "dtype"), "build"),
        (name("_codecs", "encode"), "build"),
        (call(name("collections", "Counter")), "update"),
        (call(name("decimal", "Decimal"), text("1")), "_exp"),
        (pickle.EMPTY_SET, "add"),
        (pickle.EMPTY_LIST, "append"),
        (pickle.EMPTY_DICT, "get"),
    ],
)
def test_no_attribute_of_a_class_is_replaced(target: bytes, attribute: str, policy: Policy) -> None:
    before = vars(argparse.Namespace).copy()
    with pytest.raises((UnsafeFileError, DamagedCheckpointError)):
        read(patched(target, attribute), policy)
    assert vars(argparse.Namespace) == before


def test_numpys_own_element_types_are_never_changed() -> None:
    state = tuple_of(number(3), text(">"), pickle.NONE * 3, number(-1), number(-1), number(0))
    big = read(whole(dtype("f4", state)))
    assert (big, np.dtype("f4")) == (np.dtype(">f4"), np.dtype("<f4"))
    changed_later = whole(
        dtype("u4"), put(0), pickle.POP, array(tuple_of(number(1)), get(0), raw(b"\1\0\0\0")), put(1), pickle.POP,
        get(0), state, pickle.BUILD, pickle.POP, get(1),
    )  # fmt: skip
    assert read(changed_later).tolist() == [1]


def structure(code: str, *parts: bytes, flags: int = 16) -> bytes:
    """A numpy element type of fields or of an inner shape."""
    return whole(dtype(code, tuple_of(number(3), text("|"), *parts, number(flags))))


def one_field(of: bytes, offset: int) -> bytes:
    return tuple_of(text("a")) + dict_of(text("a"), tuple_of(of, number(offset)))


WORDS_NOT_TO_TAKE = {
    "a field outside": structure("V4", NOTHING, one_field(dtype("f8"), 2), number(4), number(1)),
    "a field of pointers": structure("V8", NOTHING, one_field(dtype("O8"), 0), number(8), number(1)),
    "an inner shape outside": structure(
        "V4", tuple_of(dtype("f4"), tuple_of(number(9))), NOTHING, NOTHING, number(4), number(4), flags=0
    ),
    "a scalar of a pointer": whole(call(name("numpy._core.multiarray", "scalar"), dtype("O8"), raw(bytes(8)))),
    "an array of pointers": whole(array(tuple_of(number(1)), dtype("O8"), raw(bytes(8)))),
    "a buffer of pointers": whole(
        call(name("numpy._core.numeric", "_frombuffer"), raw(bytes(8)), dtype("O8"), tuple_of(number(1)), text("C"))
    ),
    "no such character": whole(array(tuple_of(number(1)), dtype("U1"), raw(b"\xff" * 4))),
    "a negative size": whole(array(tuple_of(number(-1)), dtype("u1"), raw(b""))),
    "bytes twice": whole(
        array(tuple_of(number(2)), dtype("u1"), raw(b"ab")),
        tuple_of(tuple_of(number(3)), dtype("u1"), pickle.NEWFALSE, raw(b"abc")),
        pickle.BUILD,
    ),
}


@pytest.mark.parametrize("word", WORDS_NOT_TO_TAKE)
def test_memory_is_never_read_by_the_files_word(word: str) -> None:
    with pytest.raises(DamagedCheckpointError):
        read(WORDS_NOT_TO_TAKE[word])


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is bounded by Linux's own means")
def test_bombs_go_off_without_noise() -> None:
    """No bomb costs more than a small multiple of its own bytes, a hang, or an error of Python's own."""
    command = [sys.executable, CHILD, "bombs", "BOMBS"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (results[-1:], done.stderr[-2000:])
    assert [result for result in results if result[1] == "REFUSE" and result[2] == "value"] == []
    assert [result for result in results if result[-1] > 100 * result[-2] + (32 << 20)] == []


@pytest.mark.parametrize("end", ["", "garbage", "pickle"])
def test_a_pickle_ends_where_the_file_does(end: str) -> None:
    content = pickle.dumps([1]) + {"": b"", "garbage": b"\0", "pickle": pickle.dumps(2)}[end]
    if not end:
        assert read(content) == [1]
        return
    with pytest.raises(DamagedCheckpointError, match="bytes behind its end"):
        read(content)


@each_protocol
def test_a_pickle_cut_anywhere_is_damaged(protocol: int) -> None:
    content = pickle.dumps({"a": [1.5, (None, "text", b"bytes")], "b": np.arange(3), "c": {4}}, protocol)
    for size in range(len(content)):
        with pytest.raises(DamagedCheckpointError):
            read(content[:size])


MALFORMED = [
    b"", b".", b"0.", b"(.", b"a.", b"1.", b"h\0.", b"\x80\x06N.", b"\x80\x04\x97.", b"Pid\n.", b"NNs.", b"(Nd.",
    b"]Nb.", b"I\n.", b"Ixyz\n.", b"Fnothing\n.", b"Sunquoted\n.", b"S'\\q'\n.", b"\x85.", b"NR.", b"NN\x81.", b"\xff",
    b"\x93.",
]  # fmt: skip


@pytest.mark.parametrize("content", MALFORMED)
@each_policy
def test_malformed_pickles_are_damaged(content: bytes, policy: Policy) -> None:
    with pytest.raises(CkptlakeError) as caught:
        read(content, policy)
    assert isinstance(caught.value, DamagedCheckpointError | UnsafeFileError)


def test_a_deep_value_is_refused_and_a_modestly_deep_one_is_not() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    assert read(pickle.dumps(deep)) == deep
    for _ in range(60):
        deep = [deep]
    with pytest.raises(UnsafeFileError, match="nests deeper"):
        read(pickle.dumps(deep))


def test_depth_is_measured_along_the_longest_way() -> None:
    """Shared values seen first near the top must not hide how deep they are below."""
    chain: list[list[Any]] = [[]]
    for _ in range(300):
        chain.append([chain[-1]])
    with pytest.raises(UnsafeFileError, match="nests deeper"):
        read(pickle.dumps(chain))


def test_names_left_as_values_are_refused_or_reported() -> None:
    content = whole(list_of(name("_codecs", "encode")))
    with pytest.raises(UnsafeFileError, match=r"_codecs\.encode"):
        read(content)
    assert load_pickle(memoryview(content), STUB).stubs == ("_codecs.encode",)


keys = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.tuples(st.integers(), st.text()))
leaves = st.one_of(keys, st.floats(allow_nan=False), st.complex_numbers(allow_nan=False), st.dates(), st.datetimes())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(keys, inner), st.tuples(inner, inner), st.frozensets(keys), st.sets(keys)
    ),
    max_leaves=20,
)


@settings(max_examples=150)
@given(values, st.sampled_from(PROTOCOLS))
def test_any_plain_value_comes_back(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


SEEDS = [
    pickle.dumps(value, protocol)
    for protocol in (0, 2, 4, 5)
    for value in (PLAIN, ARRAYS, {"t": torch.arange(3), "m": torch.nn.Linear(2, 2), "w": Widget(a=1)})
]
edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.one_of(st.none(), st.integers(0, 255))), min_size=1, max_size=6)


def edited(content: bytes, changes: list[tuple[int, int | None]]) -> bytes:
    """Set bytes, or cut the content where the byte is None."""
    data = bytearray(content)
    for place, byte in changes:
        if byte is None:
            del data[place % (len(data) + 1) :]
        elif data:
            data[place % len(data)] = byte
    return bytes(data)


@settings(max_examples=400)
@given(st.sampled_from(SEEDS), edits, st.sampled_from(Policy))
def test_damage_is_told_or_harmless(content: bytes, changes: list[tuple[int, int | None]], policy: Policy) -> None:
    with suppress(UnsafeFileError, DamagedCheckpointError, InvalidInputError):
        load_pickle(memoryview(edited(content, changes)), policy)


opcodes = st.sampled_from([bytes([code]) for code in range(40, 152)])
programs = st.lists(st.one_of(opcodes, st.binary(max_size=8), leaves.map(lambda leaf: pickle.dumps(leaf, 4)[2:-1])))


@settings(max_examples=400)
@given(programs, st.sampled_from(Policy))
def test_programs_at_random_are_told_or_harmless(program: list[bytes], policy: Policy) -> None:
    with suppress(UnsafeFileError, DamagedCheckpointError, InvalidInputError):
        load_pickle(memoryview(whole(*program)), policy)


@pytest.mark.skipif(FOREIGN is None, reason="CKPTLAKE_FOREIGN_CHECKPOINTS names no folder of other programs' files")
def test_real_pickles_are_read_and_real_attacks_are_not() -> None:
    paths = sorted(Path(str(FOREIGN)).rglob("*.pkl"))
    assert len(paths) >= 20
    for path in paths:
        with path.open("rb") as file:
            stubbed = load_pickle(file, STUB)
        assert {"model", "optimizer"} <= set(stubbed.value)
        with path.open("rb") as file:
            if not stubbed.stubs:
                assert set(load_pickle(file, REFUSE).value) == set(stubbed.value)
                continue
            with pytest.raises(UnsafeFileError):
                load_pickle(file, REFUSE)
        if "torch.nn.modules.linear.Linear" in stubbed.stubs:
            assert set(state_dict_of(stubbed.value["model"])) == {"weight", "bias"}
    assert not Path("legacy_canary_PWNED").exists()
