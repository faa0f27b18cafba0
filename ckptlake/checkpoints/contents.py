"""Where an opened checkpoint's tensors come from: packs, or a file in another program's format."""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property
from typing import Protocol

from ckptlake.checkpoints.checksums import check, spans
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.state_format import get_format
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.tree import flatten, read_bytes
from ckptlake.errors import DamagedCheckpointError


class Contents(Protocol):
    """The bytes of a checkpoint's tensors, by their numbers."""

    def slice(self, number: int, start: int, stop: int) -> memoryview:
        """Return bytes of a tensor from `start` to `stop`."""
        ...

    def reach(self, number: int) -> None:
        """Make sure, without reading it, that a tensor is where it should be."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class PackContents:
    """Tensors in packs, or in a safetensors file that stands alone."""

    def __init__(self, store: CheckpointStore, manifest: Manifest) -> None:
        self._tensors = manifest.tensors
        self.packs = Packs(store)

    def slice(self, number: int, start: int, stop: int) -> memoryview:
        return self.packs.slice(self._tensors[number], start, stop)

    def reach(self, number: int) -> None:
        self.packs.reach(self._tensors[number])

    def close(self) -> None:
        self.packs.close()


class FileContents:
    """Tensors in a file of a plain format, which is read once, when the first is asked for.

    Raises:
        UnsafeFileError: reading the file would run code, and `allow_unsafe` is false.
    """

    def __init__(self, store: CheckpointStore, manifest: Manifest, *, allow_unsafe: bool = False) -> None:
        assert manifest.file is not None
        self._path = store.plain_path(manifest.file.name)
        self._plain = manifest.file
        self._tensors = manifest.tensors
        self._format = get_format(manifest.format)
        self._allow_unsafe = allow_unsafe
        self._lock = threading.Lock()

    @cached_property
    def state(self) -> object:
        """The state as the file holds it."""
        try:
            return self._format.read(self._path, allow_unsafe=self._allow_unsafe)
        except FileNotFoundError:
            raise DamagedCheckpointError(f"{self._path} is missing: restore it from a copy") from None

    def _views(self) -> list[memoryview]:
        with self._lock:
            return self._read

    @cached_property
    def _read(self) -> list[memoryview]:
        leaves = flatten(self.state).leaves
        if [(leaf.dtype.name, leaf.shape) for leaf in leaves] != [(t.dtype, t.shape) for t in self._tensors]:
            raise DamagedCheckpointError(f"{self._path} does not hold the tensors that its manifest lists")
        return [read_bytes(leaf) for leaf in leaves]

    def slice(self, number: int, start: int, stop: int) -> memoryview:
        return self._views()[number][start:stop]

    def reach(self, number: int) -> None:
        self.slice(number, 0, self._tensors[number].nbytes)

    def verify_file(self) -> None:
        """Compare the file with the SHA-256 it was written with.

        Raises:
            DamagedCheckpointError: it is another, or missing.
        """
        digest = hashlib.sha256()
        for number, piece in enumerate(self._pieces()):
            if check(piece) != self._plain.checks[number]:
                raise DamagedCheckpointError(f"{self._path} is damaged in its 4 MiB number {number + 1}")
            digest.update(piece)
        if digest.hexdigest() != self._plain.digest:
            raise DamagedCheckpointError(f"{self._path} does not have the SHA-256 {self._plain.digest} of its manifest")

    def _pieces(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                if size != self._plain.size_bytes:
                    raise DamagedCheckpointError(
                        f"{self._path} has {size} bytes where {self._plain.size_bytes} were written"
                    )
                file.seek(0)
                return [file.read(stop - start) for start, stop in spans(size)]
        except FileNotFoundError:
            raise DamagedCheckpointError(f"{self._path} is missing: restore it from a copy") from None

    def close(self) -> None:
        """Do nothing: what was read belongs to who asked for it."""


def open_contents(
    store: CheckpointStore, manifest: Manifest, *, allow_unsafe: bool = False
) -> PackContents | FileContents:
    """Return where the tensors of a checkpoint come from."""
    if manifest.file is None:
        return PackContents(store, manifest)
    return FileContents(store, manifest, allow_unsafe=allow_unsafe)
