"""Pack files of compressed tensors: chunks one after another, then a footer that says what and where they are.

Every chunk can be read, checked and decoded alone, so a slice of a tensor costs the chunks it touches.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import xxhash

from ckptlake.checkpoints.codec.chunks import CHUNK_ELEMENTS, CutChunk, cut_chunk, decode_chunk, needs_base
from ckptlake.checkpoints.codec.footer import (
    TRAILER_BYTES,
    Base,
    StoredChunk,
    StoredTensor,
    chunk_bytes,
    compose,
    footer_length,
    parse,
)
from ckptlake.checkpoints.codec.planes import Memory
from ckptlake.checkpoints.dtypes import get_dtype
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

__all__ = ["Archive", "ArchiveWriter", "Base", "StoredChunk", "StoredTensor"]

Read = Callable[[int, int], memoryview]
"""Gives the raw bytes of a tensor from a first to before a last."""
ReadBase = Callable[[Base, int, int], memoryview]
"""Gives the raw bytes of a base from a first to before a last."""
Pieces = list[bytes | memoryview]

_ENCODERS = 2
_CHUNKS_IN_FLIGHT = 3


class ArchiveWriter:
    """A pack file being written; it counts once `finish` returned and the caller has given it its name.

    Errors of the operating system come as they are, since only the caller knows what the file is for.

    Examples:
        >>> weights = memoryview(bytes(4000))
        >>> writer = ArchiveWriter(Path("weights.ckpk"), {"made_by": "example"})
        >>> stored = writer.add("d1", "float32", 4000, lambda start, stop: weights[start:stop])
        >>> writer.finish()
        >>> out = bytearray(8)
        >>> with Archive(Path("weights.ckpk")) as archive:
        ...     archive.read_into("d1", 0, 8, memoryview(out), None)
        >>> bytes(out), stored.stored_bytes < 200
        (b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00', True)
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Create the file.

        Raises:
            FileExistsError: there is one already.
            InvalidInputError: the metadata are not texts.
        """
        if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
            raise InvalidInputError(f"a pack's metadata are texts by name, not {dict(metadata)!r:.120}")
        self.path = path
        self._metadata = dict(metadata)
        self._entries: dict[str, StoredTensor] = {}
        self._end = 0
        self._lock = threading.Lock()
        self._memory = Memory(CHUNK_ELEMENTS)
        self._file = path.open("xb", buffering=0)
        self._encoders = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="ckptlake-encode")

    def add(
        self,
        digest: str,
        dtype: str,
        nbytes: int,
        read: Read,
        base: Base | None = None,
        read_base: Read | None = None,
    ) -> StoredTensor:
        """Store one tensor and return what the footer will say of it.

        Both callbacks are called here, chunk by chunk in order. Chunks are cut into lanes here too, while other threads
        code the lanes of those before: the many short calls of cutting would only keep two threads waiting for each
        other. The callbacks must give memory that stays unchanged until `add` returns. A few chunks are held at a
        time. May be called from several threads at once; after an error the pack is as if the tensor had never been
        given.

        Args:
            digest: what the tensor is known by; each only once in a pack.
            dtype: the name of its element type.
            nbytes: its raw size.
            read: gives its raw bytes, little-endian.
            base: the earlier version of the tensor to store differences to. The result names it only if a chunk
                holds such differences; where they would not pay there is no base.
            read_base: gives the raw bytes of the base, which is of the same type and size.

        Raises:
            InvalidInputError: the digest is taken or empty, the type unknown, the size no whole elements, a callback
                gave another number of bytes than asked for, or only one of `base` and `read_base` was given.
        """
        self._check(digest, dtype, nbytes)
        if (base is None) != (read_base is None):
            raise InvalidInputError("a base and the way to read it are given together or not at all")
        pending: deque[tuple[CutChunk, Future[Pieces]]] = deque()
        stored: list[tuple[StoredChunk, bool]] = []
        try:
            for start, stop in _ranges(dtype, nbytes):
                raw = _exactly(read(start, stop), start, stop)
                other = None if read_base is None else _exactly(read_base(start, stop), start, stop)
                if len(pending) == _CHUNKS_IN_FLIGHT:
                    stored.append(self._store(*pending[0]))
                    pending.popleft()
                chunk = cut_chunk(raw, get_dtype(dtype), other, self._memory)
                pending.append((chunk, self._encoders.submit(chunk.packed)))
            stored.extend(self._store(*coded) for coded in pending)
        except BaseException:
            for _, future in pending:
                future.cancel()
            wait([future for _, future in pending])
            raise
        chunks = tuple(chunk for chunk, _ in stored)
        if not any(against for _, against in stored):
            base = None
        entry = StoredTensor(digest, dtype, nbytes, "planes" if base is None else "delta", base, chunks)
        with self._lock:
            if self._entries.setdefault(digest, entry) is not entry:
                raise InvalidInputError(f"tensor {digest:.60} was added by two threads at once; add it once")
        return entry

    def finish(self) -> None:
        """Write the footer, force the file to the disk and close it; on an error `abandon` it."""
        self._encoders.shutdown()
        self._write(compose(self._metadata, self._entries), self._end)
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file and delete it."""
        self._encoders.shutdown(cancel_futures=True)
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _check(self, digest: str, dtype: str, nbytes: int) -> None:
        if not digest or digest in self._entries:
            raise InvalidInputError(f"tensor {digest!r:.60} is in the pack already, or has no digest; add each once")
        if nbytes < 0 or nbytes % get_dtype(dtype).itemsize:
            raise InvalidInputError(f"{nbytes} bytes are no whole number of {dtype}")

    def _store(self, chunk: CutChunk, coded: Future[Pieces]) -> tuple[StoredChunk, bool]:
        """Write a chunk; return where, and whether it holds differences to a base."""
        pieces = coded.result()
        digest = xxhash.xxh3_64()
        for piece in pieces:
            digest.update(piece)
        length = sum(len(piece) for piece in pieces)
        with self._lock:
            offset = self._end
            self._end += length
        place = offset
        for piece in pieces:
            self._write(piece, place)
            place += len(piece)
        chunk.give_back(self._memory)
        return StoredChunk(offset, length, digest.intdigest()), needs_base(pieces[0])

    def _write(self, piece: bytes | memoryview, offset: int) -> None:
        view = memoryview(piece)
        while view:
            written = os.pwrite(self._file.fileno(), view, offset)
            view = view[written:]
            offset += written


class Archive:
    """A finished pack file, open for reading; several threads may read at once."""

    def __init__(self, path: Path) -> None:
        """Open the file and check its end.

        Raises:
            DamagedCheckpointError: the file is not a whole pack.
            LakeFormatError: a newer ckptlake wrote it.
            OSError: it cannot be opened or read.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._end = weakref.finalize(self, os.close, self._descriptor)
        try:
            before = os.fstat(self._descriptor).st_size - TRAILER_BYTES
            if before < 0:
                raise DamagedCheckpointError("it is too short to be one")
            trailer = self._read(before, TRAILER_BYTES)
            length = footer_length(trailer, before)
            metadata, entries = parse(self._read(before - length, length), trailer, before - length)
        except DamagedCheckpointError as error:
            self._end()
            raise DamagedCheckpointError(f"{path} is no whole pack: {error}; restore it from a copy") from error
        except BaseException:
            self._end()
            raise
        self.entries: Mapping[str, StoredTensor] = MappingProxyType(entries)
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)

    def read_into(self, digest: str, start: int, stop: int, out: memoryview, read_base: ReadBase | None) -> None:
        """Write the raw bytes of a tensor from `start` to before `stop` to `out`.

        Only the chunks that the range touches are read and decoded.

        Args:
            digest: the tensor.
            start: first byte, not necessarily that of an element.
            stop: one past the last byte.
            out: contiguous, writable, and of `stop - start` bytes; after an error its content means nothing.
            read_base: gives bytes of the base of a tensor whose codec is ``delta``; it is asked for the ranges of
                whole chunks. Where that base is stored as differences too, finding its own base is up to the callback.

        Raises:
            DamagedCheckpointError: the pack has no such tensor, or bytes of it are not what was written.
            InvalidInputError: the range is not within the tensor or not the size of `out`, or a base is needed and
                there is no `read_base`, or it gave another number of bytes than asked for.
            OSError: the file cannot be read.
        """
        entry = self._entry(digest)
        target = out.cast("B")
        if not 0 <= start <= stop <= entry.nbytes or len(target) != stop - start:
            raise InvalidInputError(
                f"bytes {start} to {stop} of a tensor of {entry.nbytes} do not fit {len(target)} bytes of memory"
            )
        for number, (first, last) in enumerate(_ranges(entry.dtype, entry.nbytes)):
            begin, end = max(start, first), min(stop, last)
            if begin >= end:
                continue
            part = target[begin - start : end - start]
            whole = part if len(part) == last - first else np.empty(last - first, np.uint8).data
            self._decode(entry, number, first, whole, read_base)
            if whole is not part:
                part[:] = whole[begin - first : end - first]

    def check(self, digest: str) -> list[int]:
        """Return the numbers of a tensor's chunks whose stored bytes are not what was written.

        Raises:
            DamagedCheckpointError: the pack has no such tensor.
            OSError: the file cannot be read.
        """
        chunks = self._entry(digest).chunks
        return [
            number for number, chunk in enumerate(chunks) if not _sound(self._read(chunk.offset, chunk.length), chunk)
        ]

    def close(self) -> None:
        """Close the file, which also happens when nobody refers to it; no other thread may be reading."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _entry(self, digest: str) -> StoredTensor:
        entry = self.entries.get(digest)
        if entry is None:
            raise DamagedCheckpointError(f"{self.path} holds no tensor {digest:.60}; restore the pack from a copy")
        return entry

    def _decode(
        self, entry: StoredTensor, number: int, first: int, out: memoryview, read_base: ReadBase | None
    ) -> None:
        """Write the whole of a chunk, whose raw bytes begin at `first`, to `out`."""
        chunk = entry.chunks[number]
        payload = self._read(chunk.offset, chunk.length)
        base = None
        try:
            if not _sound(payload, chunk):
                raise DamagedCheckpointError("its stored bytes fail their checksum")
            if needs_base(payload):
                if entry.base is None:
                    raise DamagedCheckpointError("it holds differences to a base, and the pack names none")
                base = None if read_base is None else read_base(entry.base, first, first + len(out))
            decode_chunk(memoryview(payload), get_dtype(entry.dtype), base, out)
        except DamagedCheckpointError as error:
            raise DamagedCheckpointError(
                f"chunk {number} of tensor {entry.digest:.60} in {self.path} cannot be restored: {error}"
            ) from error

    def _read(self, offset: int, length: int) -> bytes:
        """Return these bytes of the file, or fewer where it ends."""
        if not self._end.alive:
            raise ValueError(f"{self.path} is closed")
        return os.pread(self._descriptor, length, offset)


def _ranges(dtype: str, nbytes: int) -> Iterator[tuple[int, int]]:
    """Yield first and last of the raw bytes of each chunk."""
    full = chunk_bytes(dtype)
    return ((start, min(start + full, nbytes)) for start in range(0, nbytes, full))


def _exactly(view: memoryview, start: int, stop: int) -> memoryview:
    if view.nbytes != stop - start:
        raise InvalidInputError(
            f"bytes {start} to {stop} were asked for, and {view.nbytes} bytes given; give exactly those"
        )
    return view


def _sound(payload: bytes, chunk: StoredChunk) -> bool:
    return len(payload) == chunk.length and xxhash.xxh3_64_intdigest(payload) == chunk.xxh3
