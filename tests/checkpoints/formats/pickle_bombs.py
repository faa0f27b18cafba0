"""Pickles and torch files that are cheap to write, and cost memory or time without end if they are believed."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable

from pickle_assembly import (
    NOTHING,
    array,
    call,
    dict_of,
    doubled,
    dtype,
    get,
    list_of,
    name,
    number,
    put,
    raw,
    real,
    repeated,
    storage,
    stream_storage,
    tensor,
    text,
    torch_stream,
    torch_zip,
    tuple_of,
    whole,
)

Bomb = Callable[[], bytes]
_HUGE = number(10**12)
_ONE_HASH = 2**61 - 1
_MEGABYTE = 1 << 20
_BYTEARRAY, _SET, _RANGE = (name("builtins", kind) for kind in ("bytearray", "set", "range"))
_LOAD = name("torch.storage", "_load_from_bytes")
_BLACK_HOLE = doubled(pickle.EMPTY_TUPLE, pickle.TUPLE2, 80)
_LAUGHS = pickle.EMPTY_LIST + (put(0) + pickle.POP + list_of(get(0), get(0))) * 80


def _alike(shape: bytes) -> bytes:
    """Return keys that hash alike, each made of a number by `shape`, with values."""
    return b"".join(number(_ONE_HASH * index) + shape + NOTHING for index in range(1, 20_000))


def _structures(depth: int) -> bytes:
    """Nest an element type of no bytes twice in a structure, again and again, and use it as a key."""
    made = dtype("V0") + put(0)
    for index in range(depth):
        fields = dict_of(*(text(field) + tuple_of(get(index), number(0)) for field in "ab"))
        names = tuple_of(text("a"), text("b"))
        state = tuple_of(number(3), text("|"), NOTHING, names, fields, number(0), number(1), number(16))
        made += pickle.POP + dtype("V0", state) + put(index + 1)
    return whole(made, pickle.POP, dict_of(get(depth), NOTHING))


def _files_in_files(depth: int) -> bytes:
    inner = whole(number(1))
    for _ in range(depth):
        inner = whole(call(_LOAD, raw(torch_stream(inner, {}))))
    return inner


def _deflated() -> bytes:
    """A storage of 256 MiB in 256 KiB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", whole(tensor(storage("0", 1 << 26), 0, (1 << 26,), (1,))))
        archive.writestr("archive/data/0", bytes(1 << 28))
    return file.getvalue()


def _claiming(size: int) -> bytes:
    """An archive whose first entry claims another size, by the field for sizes of 64 bits."""
    content = torch_zip(whole(number(1)), {})
    at = content.index(b"PK\x01\x02")
    entry = bytearray(content[at:])
    wide = struct.pack("<HHQQ", 1, 16, size, size)
    struct.pack_into("<II", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(wide))
    (named,) = struct.unpack_from("<H", entry, 28)
    entry[46 + named : 46 + named] = wide
    return content[:at] + bytes(entry)


def _overlapping() -> bytes:
    """An archive whose directory tells of one entry of a megabyte under a thousand names."""
    content = torch_zip(whole(number(1)), {"0000": bytes(_MEGABYTE)})
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = [entry for entry in content[start:end].split(b"PK\x01\x02") if entry]
    (payload,) = (entry for entry in entries if b"data/0000" in entry)
    entries += [payload.replace(b"data/0000", b"data/%04d" % index) for index in range(1, 1000)]
    directory = b"".join(b"PK\x01\x02" + entry for entry in entries)
    count = len(entries)
    return (
        content[:start]
        + directory
        + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    )


SIZES: dict[str, Bomb] = {
    "bytearray": lambda: whole(call(_BYTEARRAY, _HUGE)),
    "bytes": lambda: whole(call(name("builtins", "bytes"), _HUGE)),
    "list of a range": lambda: whole(call(name("builtins", "list"), call(_RANGE, _HUGE))),
    "set of a range": lambda: whole(call(_SET, call(_RANGE, _HUGE))),
    "deque of a range": lambda: whole(call(name("collections", "deque"), call(_RANGE, _HUGE))),
    "Counter of a range": lambda: whole(call(name("collections", "Counter"), call(_RANGE, _HUGE))),
    "a text times a number": lambda: whole(call(name("operator", "mul"), text("x"), _HUGE)),
    "a power": lambda: whole(call(name("operator", "pow"), number(10), _HUGE)),
    "a memo index": lambda: whole(NOTHING, put(0xFFFFFFFF), get(0xFFFFFFFE)),
    "a memo index as text": lambda: b"Np" + b"9" * 18 + b"\ng1\n.",
    "BINBYTES8": lambda: whole(pickle.BINBYTES8, struct.pack("<Q", 1 << 40)),
    "BYTEARRAY8": lambda: whole(pickle.BYTEARRAY8, struct.pack("<Q", 1 << 40)),
    "BINUNICODE8": lambda: whole(pickle.BINUNICODE8, struct.pack("<Q", (1 << 64) - 1)),
    "BINSTRING": lambda: whole(pickle.BINSTRING, struct.pack("<I", (1 << 32) - 1)),
    "LONG4": lambda: whole(pickle.LONG4, struct.pack("<I", (1 << 32) - 1)),
    "FRAME": lambda: whole(pickle.FRAME, struct.pack("<Q", 1 << 62)),
    "numpy.zeros": lambda: whole(call(name("numpy", "zeros"), _HUGE)),
    "numpy.ndarray": lambda: whole(call(name("numpy", "ndarray"), tuple_of(_HUGE))),
    "an array that begins large": lambda: whole(array(tuple_of(_HUGE), dtype("u1"), raw(b"x"), begin=tuple_of(_HUGE))),
    "an array of few bytes": lambda: whole(array(tuple_of(_HUGE), dtype("u1"), raw(b"x"))),
    "an array of no bytes each": lambda: whole(array(tuple_of(_HUGE), dtype("U0"), raw(b""))),
    "an array of objects": lambda: whole(array(tuple_of(_HUGE), dtype("O8"), pickle.EMPTY_LIST)),
    "an array of many axes": lambda: whole(array(tuple_of(*[number(1 << 62)] * 100_000), dtype("u1"), raw(b"x"))),
    "a buffer of few bytes": lambda: whole(
        call(name("numpy._core.numeric", "_frombuffer"), raw(b"x"), dtype("u1"), tuple_of(_HUGE), text("C"))
    ),
    "a scalar": lambda: whole(call(name("numpy._core.multiarray", "scalar"), dtype("V999999999"), raw(b"x"))),
}
COPIES: dict[str, Bomb] = {
    "copies of bytes": lambda: repeated(raw(bytes(_MEGABYTE)), call(_BYTEARRAY, get(0)), 5000),
    "texts encoded": lambda: repeated(
        text("x" * _MEGABYTE), call(name("_codecs", "encode"), get(0), text("latin1")), 2000
    ),
    "sets of a list": lambda: repeated(list_of(*map(number, range(50_000))), call(_SET, get(0)), 2000),
    "paths of long parts": lambda: repeated(
        text("a/" * 100_000), call(name("pathlib", "PurePosixPath"), *[get(0)] * 200), 50
    ),
    "scalars of one payload": lambda: repeated(
        raw(bytes(_MEGABYTE)), call(name("numpy._core.multiarray", "scalar"), dtype(f"S{_MEGABYTE}"), get(0)), 2000
    ),
    "arguments by the million": lambda: repeated(
        pickle.MARK + NOTHING * 300_000 + pickle.TUPLE,
        name("builtins", "complex") + get(0) + dict_of(text("x"), NOTHING) + pickle.NEWOBJ_EX,
        5000,
    ),
    "a class of a class of a class": lambda: whole(
        name("copyreg", "__newobj__"), put(0), pickle.MARK, get(0) * 200_000, pickle.TUPLE, pickle.REDUCE
    ),
    "long names": lambda: repeated(text("x" * _MEGABYTE), get(0) + get(0) + pickle.STACK_GLOBAL, 2000),
    "empty sets": lambda: whole(list_of(pickle.EMPTY_SET * 1_000_000)),
    "objects by the million": lambda: repeated(
        name("collections", "OrderedDict"), get(0) + pickle.EMPTY_TUPLE + pickle.REDUCE, 1_000_000
    ),
}
WORK: dict[str, Bomb] = {
    "int of many digits": lambda: whole(call(name("builtins", "int"), text("9" * 400_000))),
    "LONG of many digits": lambda: b"L" + b"9" * 400_000 + b"L\n.",
    "INT of many digits": lambda: b"I" + b"9" * 400_000 + b"\n.",
    "a fraction of an exponent": lambda: whole(call(name("fractions", "Fraction"), text("1e999999999"))),
    "a fraction of huge numbers": lambda: whole(
        call(name("fractions", "Fraction"), number(3 << 8_000_000), number(2**8_000_001 - 1))
    ),
    "a decimal of many digits": lambda: whole(call(name("decimal", "Decimal"), text("9" * 400_000))),
    "a pair of pairs as a key": lambda: whole(_BLACK_HOLE, put(0), dict_of(get(0), NOTHING)),
    "a pair of pairs in a set": lambda: whole(pickle.EMPTY_SET, pickle.MARK, _BLACK_HOLE, pickle.ADDITEMS),
    "a pair of pairs in a frozenset": lambda: whole(pickle.MARK, _BLACK_HOLE, pickle.FROZENSET),
    "a pair of pairs looked up": lambda: whole(call(name("torch.serialization", "_get_layout"), _BLACK_HOLE)),
    "a pair of pairs as a field": lambda: whole(
        dtype(
            "V4",
            tuple_of(
                number(3),
                text("|"),
                NOTHING,
                tuple_of(_BLACK_HOLE),
                pickle.EMPTY_DICT,
                number(4),
                number(1),
                number(16),
            ),
        )
    ),
    "a list of lists": lambda: whole(_LAUGHS),
    "a list of lists in a message": lambda: whole(_LAUGHS, pickle.BINPERSID),
    "a list of lists as a shape": lambda: whole(array(_LAUGHS, dtype("u1"), raw(b"x"))),
    "a long text many times": lambda: repeated(text("x" * _MEGABYTE), get(0), 100_000),
    "keys of one hash": lambda: whole(dict_of(_alike(b""))),
    "keys in tuples of one hash": lambda: whole(dict_of(_alike(pickle.TUPLE1))),
    "structures in structures": lambda: _structures(60),
    "deep lists": lambda: whole(pickle.EMPTY_LIST * 100_000, pickle.APPEND * 99_999),
    "deep tuples": lambda: whole(pickle.EMPTY_TUPLE, pickle.TUPLE1 * 100_000),
    "deep marks": lambda: whole(pickle.MARK * 100_000, pickle.LIST * 100_000),
}
BOMBS: dict[str, Bomb] = {**SIZES, **COPIES, **WORK}
TORCH_BOMBS: dict[str, Bomb] = {
    "files in files": lambda: torch_zip(_files_in_files(60), {}),
    "one file many times": lambda: torch_zip(
        repeated(raw(torch_stream(whole(list_of(NOTHING * 5000)), {})), call(_LOAD, get(0)), 20_000), {}
    ),
    "a storage larger than its entry": lambda: torch_zip(
        whole(tensor(storage("0", 10**12), 0, (10**12,), (1,))), {"0": bytes(64)}
    ),
    "a storage larger than the stream": lambda: torch_stream(
        whole(tensor(stream_storage("0", 10**12), 0, (10**12,), (1,))), {"0": (10**12, bytes(64))}
    ),
    "one element expanded": lambda: torch_zip(
        whole(tensor(storage("0", 1), 0, (10**6, 10**6), (0, 0))), {"0": bytes(4)}
    ),
    "one element expanded many times": lambda: torch_zip(
        whole(storage("0", 1), put(0), list_of(*(tensor(get(0), 0, (250_000 + i,), (0,)) for i in range(100)))),
        {"0": bytes(4)},
    ),
    "windows that overlap": lambda: torch_zip(
        whole(tensor(storage("0", 1 << 16), 0, (1 << 15, 1 << 15), (1, 1))), {"0": bytes(4 << 16)}
    ),
    "sizes that overflow": lambda: torch_zip(
        whole(tensor(storage("0", 1), 0, (1 << 32, 1 << 32), (0, 0))), {"0": bytes(4)}
    ),
    "no elements of endless sizes": lambda: torch_zip(
        whole(tensor(storage("0", 1), 0, (0, 1 << 62, 1 << 62), (1, 1, 1))), {"0": bytes(4)}
    ),
    "a tensor without a storage": lambda: torch_zip(
        whole(
            call(
                name("torch._utils", "_rebuild_meta_tensor_no_storage"),
                name("torch", "float32"),
                tuple_of(_HUGE),
                tuple_of(number(1)),
                pickle.NEWFALSE,
            )
        ),
        {},
    ),
    "a quantized tensor": lambda: torch_zip(
        whole(
            call(
                name("torch._utils", "_rebuild_qtensor"),
                storage("0", 1, "QInt8Storage"),
                number(0),
                tuple_of(_HUGE),
                tuple_of(number(0)),
                tuple_of(name("torch", "per_tensor_affine"), real(0.1), number(0)),
                pickle.NEWFALSE,
                NOTHING,
            )
        ),
        {"0": bytes(1)},
    ),
    "torch.zeros": lambda: torch_zip(whole(call(name("torch", "zeros"), _HUGE)), {}),
    "a storage that inflates": _deflated,
    "an entry that claims a size": lambda: _claiming(1 << 40),
    "entries that overlap": _overlapping,
    "a directory that claims entries": lambda: torch_zip(whole(number(1)), {})[:-12] + b"\xff\xff" + bytes(10),
}
