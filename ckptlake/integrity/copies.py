"""Where the bytes of a tensor may be found once more, and how they are read there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.codec.footer import Base
from ckptlake.checkpoints.contents import open_contents
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.checkpoints.leaves import Leaf
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.rawpack import RawPack
from ckptlake.checkpoints.state_format import get_format
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.tree import flatten, read_bytes
from ckptlake.errors import DamagedCheckpointError
from ckptlake.integrity.pieces import Piece, PieceReader
from ckptlake.tables.layout import Layout


class Copy(Protocol):
    """One place where bytes may be; whoever reads them compares them with the digest they should have."""

    def read(self) -> memoryview:
        """Return the bytes.

        Raises:
            CkptlakeError: they are not there, or cannot be read.
            OSError: the system will not read the file.
        """
        ...

    def __str__(self) -> str:
        """Say where that is."""
        ...


@dataclass(frozen=True, slots=True)
class InPack:
    """Bytes in a pack of a lake, whichever its encoding."""

    root: Path
    piece: Piece

    def read(self) -> memoryview:
        data = bytearray(self.piece.nbytes)
        at = 0
        with PieceReader(CheckpointStore(Layout(self.root), "")) as reader:
            for block in reader.blocks(self.piece, 0, self.piece.nbytes):
                data[at : at + len(block)] = block
                at += len(block)
        return memoryview(data)

    def __str__(self) -> str:
        return f"{self.root / self.piece.file}"


@dataclass(frozen=True, slots=True)
class InState:
    """The tensor of this number in a checkpoint of a plain format."""

    root: Path
    manifest: Manifest
    number: int

    def read(self) -> memoryview:
        contents = open_contents(CheckpointStore(Layout(self.root), ""), self.manifest)
        return contents.slice(self.number, 0, self.manifest.tensors[self.number].nbytes)

    def __str__(self) -> str:
        return f"checkpoint {self.manifest.checkpoint_id} in {self.root}"


@dataclass(frozen=True, slots=True)
class InFile:
    """Bytes that stand as they are in a file, from `offset` on."""

    path: Path
    offset: int
    nbytes: int

    def read(self) -> memoryview:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.nbytes)
        if len(data) != self.nbytes:
            raise DamagedCheckpointError(f"{self.path} ends before its byte {self.offset + self.nbytes}")
        return memoryview(data)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class InArchive:
    """A tensor of a compressed pack that stands anywhere, with the copy of the base it is based on, if any."""

    path: Path
    digest: str
    nbytes: int
    base: Copy | None = None

    def read(self) -> memoryview:
        base = self.base.read() if self.base is not None else None

        def read_base(told: Base, start: int, stop: int) -> memoryview:
            if base is None:
                raise DamagedCheckpointError(f"{self.path} holds differences to {told.digest}, which is not found")
            return base[start:stop]

        out = memoryview(bytearray(self.nbytes))
        with Archive(self.path) as archive:
            archive.read_into(self.digest, 0, self.nbytes, out, read_base)
        return out

    def __str__(self) -> str:
        return str(self.path) if self.base is None else f"{self.path} and its base in {self.base}"


@dataclass(frozen=True, slots=True)
class InTorchFile:
    """The tensor of this number in a file of ``torch.save``, counted as they are met in its state."""

    path: Path
    number: int

    def read(self) -> memoryview:
        return read_bytes(torch_leaves(self.path)[self.number])

    def __str__(self) -> str:
        return str(self.path)


def torch_leaves(path: Path) -> tuple[Leaf, ...]:
    """Return the tensors in a file of ``torch.save``; nothing in it is run.

    Raises:
        CkptlakeError: it is none, cannot be read, would run code, or torch is not installed.
    """
    with needing_torch(f"reading {path}"):
        return flatten(get_format("torch").read(path, allow_unsafe=False)).leaves


def slots_of(path: Path) -> Iterator[InFile]:
    """Yield the tensors of a safetensors file.

    Raises:
        DamagedCheckpointError: it is none.
        OSError: the system will not read it.
    """
    with closing(RawPack(path)) as pack:
        for slot in pack.header()[0]:
            yield InFile(path, pack.data_start + slot.offset, slot.nbytes)


def entry_of(path: Path, digest: str) -> tuple[int, Base | None] | None:
    """Return the size of a tensor in a compressed pack and its base, or None where the pack does not hold it."""
    with Archive(path) as archive:
        entry = archive.entries.get(digest)
        return None if entry is None else (entry.nbytes, entry.base)


@dataclass(frozen=True, slots=True)
class ByDigest:
    """Bytes in a pack of a lake that are known by their digest alone."""

    root: Path
    pack: str
    digest: str
    nbytes: int

    def read(self) -> memoryview:
        packs = Packs(CheckpointStore(Layout(self.root), ""))
        try:
            return packs.blob(self.pack, self.digest, 0, self.nbytes)
        finally:
            packs.close()

    def __str__(self) -> str:
        return f"{self.root / self.pack}"
