"""Reading files of ``torch.save`` without running anything in them, and without reading what is not used.

Two containers are read: the zip archive of torch 1.6 and later, and the stream of pickles before it, which
``_use_new_zipfile_serialization=False`` still writes. The pickle inside goes through
:mod:`ckptlake.checkpoints.formats.unpickling`, which also takes the protocols that ``torch.load(weights_only=True)``
does not. Storages are views of the mapped file wherever it keeps them aligned, as every zip archive of torch does.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ckptlake.checkpoints.formats.guards import Allowance
from ckptlake.checkpoints.formats.stubs import Known, Stub, shown
from ckptlake.checkpoints.formats.torch_names import STORAGES, wrap_storage
from ckptlake.checkpoints.formats.unpickling import Policy, Reading, SafeUnpickler
from ckptlake.checkpoints.formats.zip_entries import ZipEntry, check_entry, inflate, is_zip, read_entries
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, UnsafeFileError

_MAGIC, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAGIC_HEAD = re.compile(rb"L119547037146038801333356L?\n|.{2,16}\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", re.DOTALL)
_HEAD_BYTES = 64
_TAR_MARK = slice(257, 262)
_ALIGNMENT = 8
_KEY_BITS, _LONGEST_NAME = 64, 1000
_COUNT = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a file of ``torch.save`` held.

    Attributes:
        value: what was saved; its tensors may look at the file, so it must not be changed while they are used.
            Writing to them does not reach it.
        stubs: names that became stubs, sorted, each once.
        container: whether it was a zip archive or the older stream.
    """

    value: Any
    stubs: tuple[str, ...]
    container: Literal["zip", "stream"]


def read_torch_file(path: Path, policy: Policy = Policy.REFUSE) -> TorchFile:
    """Return what ``torch.save`` wrote to a file, on the CPU, running none of it.

    Tensors are views of the mapped file: gigabytes of them cost nothing until they are used. They are copied
    where the file keeps them compressed, unaligned (as streams do) or in the other byte order. Tensors that
    shared a storage share it again. Checksums of tensors are not compared: see `verify_torch_file`.

    Args:
        path: the file.
        policy: what becomes of names that are neither plain data nor torch's own.

    Raises:
        UnsafeFileError: loading it would run code, as TorchScript does, or cost more than its size can explain.
        DamagedCheckpointError: it is cut or malformed, or a tensor does not lie within its storage.
        InvalidInputError: it cannot be opened, or torch did not write it in either container.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "model.pt"
    >>> torch.save({"weight": torch.arange(3), "epoch": 7}, path)
    >>> read_torch_file(path).value
    {'weight': tensor([0, 1, 2]), 'epoch': 7}
    """
    data, source = _mapped(path), repr(str(path))
    reading = Reading(policy, Allowance(source, len(data)))
    found = reading.finish(read_container(data, reading))
    return TorchFile(found.value, found.stubs, "zip" if is_zip(data) else "stream")


def verify_torch_file(path: Path) -> None:
    """Compare every entry of a zip archive with its checksum, reading all of it.

    Streams have no checksums, and ``torch.serialization.set_crc32_options(False)`` leaves them out of archives.

    Raises:
        DamagedCheckpointError: an entry is not what was written; the message names it.
        InvalidInputError: the file cannot be opened.
    """
    data, source = _mapped(path), repr(str(path))
    if is_zip(data):
        for entry in read_entries(data, source).values():
            check_entry(inflate(data, entry, source), entry, source)


def read_container(data: memoryview, reading: Reading) -> Any:
    """Return what a whole file holds whose bytes are at hand; `read_torch_file` tells the errors."""
    source = reading.allowance.source
    if is_zip(data):
        return _read_zip(data, reading)
    if _MAGIC_HEAD.match(bytes(data[:_HEAD_BYTES])):
        return _read_stream(data, reading)
    if bytes(data[_TAR_MARK]) == b"ustar":
        raise InvalidInputError(
            f"{source} is a tar archive, as torch 0.1 wrote; load and save it again with a torch that still reads it"
        )
    raise InvalidInputError(f"{source} is no file of torch.save: it is neither its zip archive nor its older stream")


def _mapped(path: Path) -> memoryview:
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise DamagedCheckpointError(f"{str(path)!r} is empty; take an intact copy of it")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be opened: {error.strerror or error}") from error


class _TorchUnpickler(SafeUnpickler):
    """Answers references to storages."""

    def __init__(self, data: memoryview, reading: Reading, storage: Callable[[Any], Any], position: int = 0) -> None:
        super().__init__(data, reading, position)
        self._storage = storage

    def refer(self, identifier: Any) -> Any:
        return self._storage(identifier)


def _memory(data: memoryview, reading: Reading) -> torch.UntypedStorage:
    """Return bytes as a storage: the same memory if tensors may live there, else a copy."""
    if not data:
        return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
    if not data.readonly:
        there = torch.frombuffer(data, dtype=torch.uint8)
        if there.data_ptr() % _ALIGNMENT == 0:
            return there.untyped_storage()
    reading.allowance.spend(len(data))
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()


def _check_reference(identifier: Any, source: str) -> None:
    """Refuse what protocol 0 leaves of references to storages: their text, in which the element type is lost."""
    if isinstance(identifier, str):
        raise InvalidInputError(
            f"{source} was written with pickle protocol 0, which does not keep its tensors' storages; save it "
            "again with another"
        )
    if not isinstance(identifier, tuple) or not identifier:
        raise TypeError(f"a reference by {shown(identifier)} to something that is no storage")


def _described(kind: Any, count: Any) -> tuple[torch.dtype, int]:
    """Return the element type and the bytes of a storage that a pickle refers to."""
    if not isinstance(kind, Known) or kind.detail is None or type(count) is not int or count < 0:
        raise TypeError(f"a storage of {shown(count)} elements of {shown(kind)}")
    dtype = getattr(torch, kind.detail)
    return dtype, count * dtype.itemsize


class _ZipStorages:
    """The storages of an archive, each made when it is first referred to."""

    def __init__(self, data: memoryview, entries: dict[str, ZipEntry], prefix: str, reading: Reading) -> None:
        self._data, self._entries, self._prefix, self._reading = data, entries, prefix, reading
        self._found: dict[tuple[str, torch.dtype | None], torch.UntypedStorage] = {}
        order = bytes(self.content("byteorder")) if f"{prefix}byteorder" in entries else b"little"
        if order not in (b"little", b"big"):
            raise DamagedCheckpointError(f"{reading.allowance.source} has the byte order {shown(order)}")
        self._swapped = order.decode() != sys.byteorder

    def content(self, name: str) -> memoryview:
        entry, source = self._entries[f"{self._prefix}{name}"], self._reading.allowance.source
        if entry.deflated:
            self._reading.allowance.spend(entry.size_bytes)
        content = inflate(self._data, entry, source)
        if not name.startswith("data/"):
            check_entry(content, entry, source)
        return content

    def __call__(self, identifier: Any) -> torch.storage.TypedStorage:
        _check_reference(identifier, self._reading.allowance.source)
        tag, kind, key, _, count = identifier
        dtype, size = _described(kind, count)
        if tag != "storage" or type(key) is not str:
            raise TypeError(f"a reference by {shown(identifier)} to something that is no storage")
        place = (key, dtype if self._swapped else None)
        if place not in self._found:
            content = self.content(f"data/{key}")
            self._found[place] = self._swap(content, kind, dtype) if self._swapped else _memory(content, self._reading)
        memory = self._found[place]
        if size > memory.nbytes():
            raise DamagedCheckpointError(
                f"{self._reading.allowance.source}: its storage {shown(key)} has {memory.nbytes()} bytes, but {size} "
                "are referred to; take an intact copy of it"
            )
        return wrap_storage(memory, dtype)

    def _swap(self, content: memoryview, kind: Known, dtype: torch.dtype) -> torch.UntypedStorage:
        if "Untyped" in kind.name:
            raise InvalidInputError(
                f"{self._reading.allowance.source} comes from a machine of the other byte order, and does not tell the "
                "element type of its storages; load and save it again on such a machine"
            )
        width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        self._reading.allowance.spend(2 * len(content))
        swapped = np.frombuffer(content, f"u{width}").byteswap()
        return _memory(swapped.data.cast("B"), self._reading)


def _read_zip(data: memoryview, reading: Reading) -> Any:
    source = reading.allowance.source
    entries = read_entries(data, source)
    prefix = next(iter(entries), "").partition("/")[0] + "/"
    if any(name.startswith((f"{prefix}constants.pkl", f"{prefix}code/")) for name in entries):
        raise UnsafeFileError(
            f"{source} is a TorchScript archive, which is a program; load it where it is trusted and save its "
            "state_dict() with torch.save"
        )
    if f"{prefix}data.pkl" not in entries:
        raise InvalidInputError(f"{source} is a zip archive, but not of torch.save: it has no {prefix[:60]}data.pkl")
    storages = _ZipStorages(data, entries, prefix, reading)
    reader = _TorchUnpickler(storages.content("data.pkl"), reading, storages)
    value = reader.run()
    reader.check_end(reader.position)
    return value


class _Survey(SafeUnpickler):
    """Runs a stream's pickle with nothing but stubs, to learn what storages it refers to.

    Their bytes follow behind it, so that tensors cannot be made before, and checked, without knowing how large
    each storage is.
    """

    def __init__(self, data: memoryview, source: str, position: int) -> None:
        super().__init__(data, Reading(Policy.STUB, Allowance(source, len(data))), position)
        self.widths: dict[Any, int] = {}

    def find(self, module: str, name: str) -> Any:
        return STORAGES.get(f"{module[:_LONGEST_NAME]}.{name[:_LONGEST_NAME]}") or self.reading.refuse("anything")

    def refer(self, identifier: Any) -> Any:
        _check_reference(identifier, self.allowance.source)
        if identifier[0] == "storage":
            dtype, _ = _described(identifier[1], identifier[4])
            self.widths[_key(identifier[2])] = dtype.itemsize
        return Stub("a storage")


def _key(key: Any) -> Any:
    if type(key) is not str and (type(key) is not int or key.bit_length() > _KEY_BITS):
        raise TypeError(f"a storage called {shown(key)}")
    return key


class _StreamStorages:
    """The storages of a stream, by the bytes that each of them has in it."""

    def __init__(self, places: dict[Any, memoryview], reading: Reading) -> None:
        self._places, self._reading = places, reading
        self._found: dict[Any, torch.UntypedStorage] = {}

    def __call__(self, identifier: Any) -> Any:
        if identifier[0] == "module":
            return identifier[1]
        tag, kind, key, _, count, view = identifier
        dtype, size = _described(kind, count)
        if tag != "storage" or size > len(self._places[_key(key)]):
            raise ValueError(f"a storage of {size} bytes that is not there")
        if key not in self._found:
            self._found[key] = _memory(self._places[key], self._reading)
        memory = self._found[key]
        if view is not None:
            _, start, count = view
            _, first = _described(kind, start)
            _, size = _described(kind, count)
            if first + size > memory.nbytes():
                raise ValueError(f"a view of {size} bytes from byte {first} of a storage of {memory.nbytes()}")
            memory = memory[first : first + size]
        return wrap_storage(memory, dtype)


def _read_stream(data: memoryview, reading: Reading) -> Any:
    position, header = 0, []
    for _ in range(3):
        head = SafeUnpickler(data, reading, position)
        header.append(head.run())
        position = head.position
    if any(type(part) is not int for part in header[:2]) or header[:2] != [_MAGIC, _STREAM_VERSION]:
        raise InvalidInputError(
            f"{reading.allowance.source} is a stream of torch.save of version {shown(header[1])}; "
            f"only {_STREAM_VERSION} can be read"
        )
    survey = _Survey(data, reading.allowance.source, position)
    survey.run()
    key_reader = SafeUnpickler(data, reading, survey.position)
    keys = key_reader.run()
    try:
        places, end = _stream_places(data, keys, survey.widths, key_reader.position)
    except (struct.error, LookupError, TypeError, ValueError, OverflowError) as error:
        raise DamagedCheckpointError(
            f"{reading.allowance.source} does not hold the storages its pickle refers to ({error!s:.200}); take an "
            "intact copy of it"
        ) from error
    key_reader.check_end(end)
    return _TorchUnpickler(data, reading, _StreamStorages(places, reading), position).run()


def _stream_places(
    data: memoryview, keys: Any, widths: dict[Any, int], position: int
) -> tuple[dict[Any, memoryview], int]:
    """Return the bytes of each storage, and where the last ends: a count of elements comes before each."""
    places: dict[Any, memoryview] = {}
    for key in map(_key, keys):
        (count,) = _COUNT.unpack_from(data, position)
        start = position + _COUNT.size
        position = start + count * widths[key]
        if count < 0 or position > len(data) or key in places:
            raise ValueError(f"storage {shown(key)} of {count} elements from byte {start} of {len(data)}")
        places[key] = data[start:position]
    return places, position
