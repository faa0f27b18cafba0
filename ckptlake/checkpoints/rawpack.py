"""Uncompressed packs: plain safetensors files whose header also holds the manifest.

Any program that reads safetensors opens them. Tensors whose size is a multiple of 64 bytes come first, then the
others by element size, so every tensor lies aligned without gaps, which that format forbids.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ckptlake._internal.files import sync_directory
from ckptlake.checkpoints.dtypes import BY_CODE, DType
from ckptlake.errors import DamagedCheckpointError

ALIGNMENT = 64
_LONG_BYTES = 1 << 20
_GROWN_BYTES = 64 << 20
_PLENTY = 16
_LENGTH = struct.Struct("<Q")
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
_METADATA = "__metadata__"
MANIFEST_KEY = "ckptlake.manifest"


class HeaderTooLongError(Exception):
    """A header needs more bytes than were left for it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor's place in a pack's data, as its header tells it."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def tensor_name(path: str) -> str:
    """Return what a pack's header calls the tensor at a path: the path, but for two that a header cannot hold."""
    return {"": "value", _METADATA: f"{_METADATA}%"}.get(path, path)


def place(tensors: Iterable[tuple[str, DType, tuple[int, ...], int]], start: int = 0) -> list[Slot]:
    """Return where tensors, as (name, dtype, shape, nbytes), lie one behind the other from an aligned offset on."""
    ordered = sorted(tensors, key=lambda tensor: (tensor[3] % ALIGNMENT != 0, -tensor[1].itemsize, -tensor[3]))
    slots, offset = [], start
    for name, dtype, shape, nbytes in ordered:
        slots.append(Slot(name, dtype, shape, offset, nbytes))
        offset += nbytes
    return slots


def header(slots: Sequence[Slot], metadata: Mapping[str, str], length: int = 0) -> bytes:
    """Return the header, padded so that the data begin aligned and it is at least `length` bytes long."""
    fields: dict[str, object] = {_METADATA: {"format": "pt", **metadata}}
    for slot in slots:
        code, shape = slot.dtype.code, list(slot.shape)
        if code is None:
            code, shape = "U8", [*shape, slot.dtype.itemsize]
        fields[slot.name] = {"dtype": code, "shape": shape, "data_offsets": [slot.offset, slot.offset + slot.nbytes]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    size = max(len(text), length - _LENGTH.size)
    size += -(size + _LENGTH.size) % ALIGNMENT
    return _LENGTH.pack(size) + text.ljust(size)


class _WriteBack:
    """Has the system bring to the disk what has been written, beside whoever is writing.

    Waiting for the disk then begins with the first bytes and not with the sync at the end. The advice itself can take
    as long as the disk does, so a thread of its own gives it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._written: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def begin(self, start: int, nbytes: int) -> None:
        """Begin with a stretch of the file; short ones are left to the sync."""
        if nbytes < _LONG_BYTES or not hasattr(os, "posix_fadvise"):
            return
        self._written.put((start, nbytes))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ckptlake-write-back", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Return once the descriptor is not used any more."""
        if self._thread is not None:
            self._written.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (stretch := self._written.get()) is not None:
            with contextlib.suppress(OSError):  # the sync raises what is wrong
                # Of pages that are not on the disk yet this advice only starts the writing.
                os.posix_fadvise(self._descriptor, *stretch, os.POSIX_FADV_DONTNEED)


class RawPackWriter:
    """A pack being written: data at their places in any order and from any thread, the header last.

    The file has another name until `publish`; a crash before leaves only that.

    Args:
        target: what it will be called.
        header_bytes: the length of its header, or a length that suffices.
        data_bytes: the length of its data, or None where that is found out on the way, by `reserve`.
        is_durable: whether publishing waits for the disk, which is kept at work until then.
    """

    def __init__(self, target: Path, header_bytes: int, data_bytes: int | None, *, is_durable: bool = True) -> None:
        self._target = target
        self._header_bytes = header_bytes
        self._partial = target.with_name(f".{target.name}.partial")
        self._end = self._allocated = 0
        self._is_growing = data_bytes is None
        self._growing = threading.Lock()
        self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._write_back = _WriteBack(self._descriptor) if is_durable else None
        try:
            if data_bytes is not None:
                self.reserve(data_bytes)
        except BaseException:
            self.abandon()
            raise

    @property
    def data_bytes(self) -> int:
        """Bytes of the data that was reserved."""
        return self._end

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self._header_bytes + self._end

    def reserve(self, nbytes: int) -> int:
        """Return the offset behind what was reserved before, with so much room on the disk."""
        with self._growing:
            start, self._end = self._end, self._end + nbytes
            if self.size_bytes > self._allocated and hasattr(os, "posix_fallocate"):
                self._allocate()
        return start

    def _allocate(self) -> None:
        """Have room for what is reserved; while that grows for more, if there is plenty, so that it takes few calls."""
        wanted = self.size_bytes
        if self._is_growing:
            ahead = self._end + _GROWN_BYTES
            disk = os.fstatvfs(self._descriptor)
            wanted += ahead if disk.f_bavail * disk.f_frsize > _PLENTY * ahead else 0
        os.posix_fallocate(self._descriptor, self._allocated, wanted - self._allocated)
        self._allocated = wanted

    def write(self, view: memoryview, offset: int) -> None:
        """Write bytes at an offset of the data."""
        first = place = self._header_bytes + offset
        while view:
            written = os.pwrite(self._descriptor, view, place)
            view, place = view[written:], place + written
        if self._write_back is not None:
            self._write_back.begin(first, place - first)

    def header(self, slots: Sequence[Slot], metadata: Mapping[str, str]) -> bytes:
        """Return the header for `publish`.

        Raises:
            HeaderTooLongError: it is longer than what was left for it.
        """
        text = header(slots, metadata, self._header_bytes)
        if len(text) != self._header_bytes:
            raise HeaderTooLongError(f"the header has {len(text)} bytes where {self._header_bytes} are free")
        return text

    def publish(self, text: bytes) -> None:
        """Write the header and give the file its name."""
        os.pwrite(self._descriptor, text, 0)
        if self._allocated > self.size_bytes:
            os.ftruncate(self._descriptor, self.size_bytes)
        if self._write_back is not None:
            self._write_back.end()
            os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self._partial.rename(self._target)
        if self._write_back is not None:
            sync_directory(self._target.parent)

    def abandon(self) -> None:
        """Delete what has been written, unless it is published."""
        if self._descriptor >= 0:
            if self._write_back is not None:
                self._write_back.end()
            os.close(self._descriptor)
            self._descriptor = -1
        self._partial.unlink(missing_ok=True)


class RawPack:
    """An uncompressed pack, memory-mapped: private pages, so writing to a tensor never reaches the file.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedCheckpointError: it is no whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.size_bytes = os.fstat(file.fileno()).st_size
            head = file.read(_LENGTH.size)
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
            if not 0 < length <= self.size_bytes - _LENGTH.size:
                raise DamagedCheckpointError(f"{path} is cut short: it has {self.size_bytes} bytes and no whole header")
            self.data_start = _LENGTH.size + length
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def view(self, offset: int, nbytes: int) -> memoryview:
        """Return bytes of the data, zero copy.

        Raises:
            DamagedCheckpointError: the file ends before them.
        """
        start = self.data_start + offset
        if offset < 0 or nbytes < 0 or start + nbytes > self.size_bytes:
            raise DamagedCheckpointError(
                f"{self.path} is cut short: it has {self.size_bytes} bytes, a tensor ends at {start + nbytes}"
            )
        return memoryview(self._map)[start : start + nbytes]

    def header(self) -> tuple[list[Slot], dict[str, str]]:
        """Return the places of all tensors and the metadata.

        Raises:
            DamagedCheckpointError: the header cannot be read.
        """
        try:
            fields = json.loads(bytes(self._map[_LENGTH.size : self.data_start]))
            metadata = {str(key): str(value) for key, value in (fields.pop(_METADATA, None) or {}).items()}
            return [self._slot(name, entry) for name, entry in fields.items()], metadata
        except _UNREADABLE as error:
            raise DamagedCheckpointError(f"the header of {self.path} cannot be read: {error!s:.200}") from error

    def _slot(self, name: str, entry: Mapping[str, Any]) -> Slot:
        start, end = entry["data_offsets"]
        dtype = BY_CODE[entry["dtype"]]
        shape = tuple(entry["shape"])
        size = dtype.itemsize
        for length in shape:
            if type(length) is not int or length < 0:
                raise ValueError(f"tensor {name!r:.80} has the shape {shape!r:.80}")
            size *= length
        if type(start) is not int or not 0 <= start <= end <= self.size_bytes - self.data_start or end - start != size:
            raise ValueError(f"tensor {name!r:.80} of {size} bytes lies at {start!r:.30} to {end!r:.30}")
        return Slot(name, dtype, shape, start, size)

    def close(self) -> None:
        """Unmap the file once no tensor refers to it any more."""
        with contextlib.suppress(BufferError):  # tensors handed out keep it mapped; the last of them unmaps it
            self._map.close()
