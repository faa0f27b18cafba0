"""Opcodes put together by hand into pickles, and pickles into files, as no honest pickler would write them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
NOTHING = pickle.NONE


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def raw(value: bytes) -> bytes:
    return pickle.BINBYTES + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG4 + struct.pack("<I", len(data)) + data


def real(value: float) -> bytes:
    return pickle.BINFLOAT + struct.pack(">d", value)


def tuple_of(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def list_of(*parts: bytes) -> bytes:
    return pickle.EMPTY_LIST + pickle.MARK + b"".join(parts) + pickle.APPENDS


def dict_of(*keys_and_values: bytes) -> bytes:
    return pickle.EMPTY_DICT + pickle.MARK + b"".join(keys_and_values) + pickle.SETITEMS


def name(module: str, qualified: str) -> bytes:
    """Push what a global name stands for, as protocol 4 writes it."""
    return text(module) + text(qualified) + pickle.STACK_GLOBAL


def call(function: bytes, *args: bytes) -> bytes:
    return function + tuple_of(*args) + pickle.REDUCE


def put(index: int) -> bytes:
    return pickle.LONG_BINPUT + struct.pack("<I", index)


def get(index: int) -> bytes:
    return pickle.LONG_BINGET + struct.pack("<I", index)


def whole(*parts: bytes) -> bytes:
    """Return a complete pickle of what the parts leave on the stack."""
    return b"\x80\x04" + b"".join(parts) + pickle.STOP


def doubled(start: bytes, pair: bytes, times: int) -> bytes:
    """Nest a value in a pair of itself, again and again."""
    return start + (pickle.DUP + pair) * times


def repeated(payload: bytes, each: bytes, times: int) -> bytes:
    """Remember one payload as 0, then list what the same opcodes make of it many times."""
    return whole(payload, put(0), pickle.POP, list_of(each * times))


def torch_zip(pickled: bytes, storages: dict[str, bytes], *, order: str = "little") -> bytes:
    """Return an archive as `torch.save` writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", order)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def torch_stream(pickled: bytes, storages: dict[str, tuple[int, bytes]]) -> bytes:
    """Return the older stream of `torch.save`; a storage is its count of elements and its bytes."""
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True}))
    tail = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    return head + pickled + pickle.dumps(list(storages), 2) + tail


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    """Refer to a storage of an archive."""
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + pickle.BINPERSID


def stream_storage(key: str, count: int, kind: str = "FloatStorage", view: bytes = NOTHING) -> bytes:
    """Refer to a storage of a stream."""
    parts = (text("storage"), name("torch", kind), text(key), text("cpu"), number(count), view)
    return tuple_of(*parts) + pickle.BINPERSID


def tensor(of: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Rebuild a tensor of a storage."""
    shape, steps = (tuple_of(*map(number, values)) for values in (size, stride))
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), of, number(offset), shape, steps, pickle.NEWFALSE, hooks)


def dtype(code: str, state: bytes = b"") -> bytes:
    """Rebuild a numpy element type."""
    made = call(name("numpy", "dtype"), text(code), pickle.NEWFALSE, pickle.NEWTRUE)
    return made + state + pickle.BUILD if state else made


def array(shape: bytes, of: bytes, content: bytes, *, begin: bytes = b"") -> bytes:
    """Rebuild a numpy array from its state; it begins with one empty axis unless told otherwise."""
    empty = (name("numpy", "ndarray"), begin or tuple_of(number(0)), raw(b"b"))
    state = tuple_of(number(1), shape, of, pickle.NEWFALSE, content)
    return call(name("numpy._core.multiarray", "_reconstruct"), *empty) + state + pickle.BUILD
