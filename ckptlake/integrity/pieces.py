"""The stored pieces that checkpoints are made of, and one pass over a piece that compares it with what was written.

A tensor that many checkpoints share is one piece, and so is a whole file of a plain format.
"""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import xxhash

from ckptlake.checkpoints.checksums import CHECKED_BYTES
from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.rawpack import RawPack
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError
from ckptlake.integrity.stretches import BLOCK_BYTES, read_stretch

Level = Literal["exists", "size", "fast", "digest", "loads"]
LEVELS: tuple[Level, ...] = ("exists", "size", "fast", "digest", "loads")
STRETCH_BYTES = 16 << 20
"""What is read in one go: whole spans of checksums and whole chunks of every element type."""


class FileFaultError(DamagedCheckpointError):
    """A whole file that cannot be read as one of the lake's; `is_missing` tells whether nothing is there."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a piece.

    Attributes:
        text: in words.
        is_of_file: whether the same is wrong with all of its file.
        is_missing: whether that file is gone.
    """

    text: str
    is_of_file: bool = False
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that are stored once, however many checkpoints hold them.

    Attributes:
        file: the pack, relative to the lake and without suffix, or the name of a plain format's file.
        offset: where it begins in an uncompressed pack's data, in bytes.
        nbytes: its size while it is uncompressed.
        digest: SHA-256 in hex, or None while that is deferred.
        checks: XXH3-64 of each 4 MiB.
        is_pack: whether `file` is a pack.
    """

    file: str
    offset: int
    nbytes: int
    digest: str | None
    checks: tuple[int, ...]
    is_pack: bool = True

    @classmethod
    def of(cls, tensor: StoredTensor) -> Piece:
        """Return the piece that a tensor in a pack is."""
        return cls(tensor.pack, tensor.offset, tensor.nbytes, tensor.digest, tensor.checks)

    def __str__(self) -> str:
        if not self.is_pack:
            return f"the {self.nbytes} bytes of {self.file}"
        return f"the {self.nbytes} bytes at {self.offset} of {self.file}"


def pieces_of(manifest: Manifest) -> tuple[Piece, ...]:
    """Return the pieces that a checkpoint is made of, each once, in the order of its tensors."""
    plain = manifest.file
    if plain is not None:
        return (Piece(plain.name, 0, plain.size_bytes, plain.digest, plain.checks, is_pack=False),)
    return tuple(dict.fromkeys(Piece.of(tensor) for tensor in manifest.tensors if tensor.nbytes))


def read_whole_manifest(store: CheckpointStore, checkpoint_id: str) -> Manifest:
    """Return the manifest of a checkpoint, if the file under its name is that.

    Raises:
        DamagedCheckpointError: it cannot be read, or is another checkpoint's; a FileFaultError if it is missing.
        LakeFormatError: a newer ckptlake wrote it.
    """
    path = store.manifest_path(checkpoint_id)
    try:
        check_kind(store, path)
        manifest = store.read_manifest(checkpoint_id)
    except (FileNotFoundError, CheckpointNotFoundError):
        raise FileFaultError(f"the manifest {path} is missing", is_missing=True) from None
    except OSError as error:
        raise unreadable(path, error) from error
    if manifest.checkpoint_id != checkpoint_id:
        raise DamagedCheckpointError(f"the manifest {path} is that of another checkpoint, {manifest.checkpoint_id}")
    plain = manifest.file
    if plain is not None and len(plain.checks) != -(-plain.size_bytes // CHECKED_BYTES):
        raise DamagedCheckpointError(
            f"the manifest {path} has {len(plain.checks)} checksums for {plain.size_bytes} bytes"
        )
    return manifest


def unreadable(path: Path, error: OSError) -> FileFaultError:
    """Return the fault of a file that the system will not or cannot read."""
    return FileFaultError(f"{path} cannot be read: {error.strerror or error}")


def check_kind(store: CheckpointStore, path: Path) -> None:
    """Refuse what is no file, or lies elsewhere; raises FileNotFoundError where nothing is."""
    mode = path.stat().st_mode
    if path.is_symlink() and not path.resolve().is_relative_to(store.layout.root.resolve()):
        raise FileFaultError(
            f"{path} is a link out of the lake, to {path.resolve()}, and is not followed: put the file itself there"
        )
    if not stat.S_ISREG(mode):
        raise FileFaultError(f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'something else'}, not a file")


@dataclass(frozen=True, slots=True)
class _File:
    """A file that holds pieces; the data of an archive are not read from it directly."""

    path: Path
    size_bytes: int
    data_start: int
    archive: Archive | None = None


def is_readable(store: CheckpointStore, path: Path) -> bool:
    """Tell whether a path is that of a file which may be read as one of the lake's."""
    try:
        check_kind(store, path)
        with path.open("rb") as file:
            file.read(1)
    except (FileFaultError, OSError):
        return False
    return True


class PieceReader:
    """Reads pieces of one lake as its files were when each was first met; threads may share it."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._packs = Packs(store)
        self._paths: dict[str, Path] = {}
        self._files: dict[str, _File] = {}
        self._local = threading.local()

    def close(self) -> None:
        """Close the compressed packs, which stay open until then."""
        self._packs.close()

    def __enter__(self) -> PieceReader:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def locate(self, piece: Piece) -> Path:
        """Return the file that holds a piece now.

        Raises:
            FileFaultError: there is none, or none that may be read.
        """
        if piece.file in self._paths:
            return self._paths[piece.file]
        store = self._store
        paths = [store.pack_path(piece.file, suffix) for suffix in (RAW_SUFFIX, ARCHIVE_SUFFIX)]
        for path in paths if piece.is_pack else [store.plain_path(piece.file)]:
            try:
                check_kind(store, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(path, error) from error
            self._paths[piece.file] = path
            return path
        shown = f"the pack {store.pack_path(piece.file, '.*')}" if piece.is_pack else store.plain_path(piece.file)
        raise FileFaultError(f"{shown} is missing", is_missing=True)

    def reach(self, piece: Piece) -> Path:
        """Return the file of a piece, having seen that it is long enough or lists the piece.

        Raises:
            DamagedCheckpointError: it is not.
        """
        return self._holding(piece).path

    def blocks(self, piece: Piece, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes of a piece from `start` to `stop`; each block is valid until the next.

        Raises:
            DamagedCheckpointError: they cannot be read.
        """
        file = self._holding(piece)
        with _faults(file.path):
            if file.archive is not None:
                yield self._decoded(piece, start, stop)
            else:
                yield from self._read(file.path, file.data_start + piece.offset, start, stop)

    def _holding(self, piece: Piece) -> _File:
        file = self._files.get(piece.file)
        if file is None:
            path = self.locate(piece)
            with _faults(path):
                file = self._files[piece.file] = self._opened(path, piece)
        if file.archive is not None:
            _check_entry(file.archive, piece)
        elif not piece.is_pack and file.size_bytes != piece.nbytes:
            raise FileFaultError(f"{file.path} has {file.size_bytes} bytes where {piece.nbytes} were written")
        elif file.size_bytes < file.data_start + piece.offset + piece.nbytes:
            raise DamagedCheckpointError(f"{file.path} is cut short: it has {file.size_bytes} bytes, and {piece} more")
        return file

    def _opened(self, path: Path, piece: Piece) -> _File:
        if not piece.is_pack:
            return _File(path, path.stat().st_size, 0)
        try:
            pack = RawPack(path) if path.suffix == RAW_SUFFIX else self._packs.get(piece.file)
        except DamagedCheckpointError as error:
            raise FileFaultError(str(error)) from error
        if isinstance(pack, Archive):
            return _File(path, 0, 0, pack)
        pack.close()
        return _File(pack.path, pack.size_bytes, pack.data_start)

    def _decoded(self, piece: Piece, start: int, stop: int) -> memoryview:
        assert piece.digest is not None
        try:
            return self._packs.blob(piece.file, piece.digest, start, stop)
        except InvalidInputError as error:  # it holds differences to a base of another size
            raise DamagedCheckpointError(f"{piece} cannot be decoded: {error}") from error

    def _read(self, path: Path, place: int, start: int, stop: int) -> Iterator[memoryview]:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(BLOCK_BYTES))
        return read_stretch(path, place + start, place + stop, self._local.buffer)


def _check_entry(archive: Archive, piece: Piece) -> None:
    if piece.digest is None:
        raise DamagedCheckpointError(f"{archive.path} knows tensors by digest, and that of {piece} is not known")
    entry = archive.entries.get(piece.digest)
    if entry is None or entry.nbytes != piece.nbytes:
        raise DamagedCheckpointError(f"{archive.path} does not hold {piece}, whose digest is {piece.digest}")


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileFaultError(f"{path} is missing", is_missing=True) from None
    except OSError as error:
        raise unreadable(path, error) from error


class Pass:
    """One pass over a piece, front to back, a stretch at a time.

    Args:
        reader: reads the piece.
        piece: what to compare.
        level: ``fast`` compares every 4 MiB with its checksum, others the whole with its SHA-256. A piece whose
            digest is not known yet is compared with its checksums.
        position: where to begin, a multiple of 4 MiB; 0 unless only checksums are compared.
    """

    def __init__(self, reader: PieceReader, piece: Piece, level: Level, position: int = 0) -> None:
        self._reader = reader
        self._piece = piece
        self._digest = None if level == "fast" or piece.digest is None else hashlib.sha256()
        self.position = position

    @property
    def is_done(self) -> bool:
        """Whether everything has been compared."""
        return self.position >= self._piece.nbytes

    def advance(self) -> int:
        """Compare the next `STRETCH_BYTES` and return how many bytes that were.

        Raises:
            DamagedCheckpointError: they are missing or not what was written.
        """
        start, stop = self.position, min(self.position + STRETCH_BYTES, self._piece.nbytes)
        blocks = self._reader.blocks(self._piece, start, stop)
        if self._digest is None:
            self._compare_checks(blocks, start)
        else:
            for block in blocks:
                self._digest.update(block)
        self.position = stop
        if self.is_done and self._digest is not None and self._digest.hexdigest() != self._piece.digest:
            raise DamagedCheckpointError(f"{self._piece} do not have the SHA-256 {self._piece.digest} of its manifest")
        return stop - start

    def _compare_checks(self, blocks: Iterator[memoryview], position: int) -> None:
        running = xxhash.xxh3_64()
        for block in blocks:
            rest = block
            while rest:
                room = CHECKED_BYTES - position % CHECKED_BYTES
                running.update(rest[:room])
                position += len(rest[:room])
                rest = rest[room:]
                if position % CHECKED_BYTES == 0 or position == self._piece.nbytes:
                    self._compare_check(running.intdigest(), (position - 1) // CHECKED_BYTES)
                    running.reset()

    def _compare_check(self, found: int, number: int) -> None:
        if found != self._piece.checks[number]:
            start = number * CHECKED_BYTES
            stop = min(start + CHECKED_BYTES, self._piece.nbytes)
            raise DamagedCheckpointError(f"{self._piece} are damaged between {start} and {stop} of them")


def examine(reader: PieceReader, piece: Piece, level: Level) -> Fault | None:
    """Return what is wrong with a piece, or None.

    Raises:
        LakeFormatError: a newer ckptlake wrote its pack.
    """
    try:
        if level == "exists":
            reader.locate(piece)
        elif level == "size":
            reader.reach(piece)
        else:
            reading = Pass(reader, piece, level)
            while not reading.is_done:
                reading.advance()
    except FileFaultError as error:
        return Fault(str(error), is_of_file=True, is_missing=error.is_missing)
    except DamagedCheckpointError as error:
        return Fault(str(error))
    return None


def examine_all(store: CheckpointStore, pieces: Sequence[Piece], level: Level) -> list[Fault | None]:
    """Return what is wrong with each of some pieces, read by two threads.

    Raises:
        LakeFormatError: a newer ckptlake wrote a pack.
    """
    with PieceReader(store) as reader:
        return in_parallel(lambda piece: examine(reader, piece, level), pieces, lambda piece: piece.nbytes)
