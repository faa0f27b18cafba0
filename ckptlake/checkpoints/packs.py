"""The packs that an opened checkpoint reads from, in whichever encoding each is stored now."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.codec.footer import Base
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, RawPack
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.checkpoints.tensor_pass import check_bytes
from ckptlake.errors import DamagedCheckpointError

_DEEPEST_CHAIN = 64
Verify = Callable[[StoredTensor, memoryview], None]
"""Raises DamagedCheckpointError where bytes are not those of the tensor."""


def verify_nothing(_: StoredTensor, __: memoryview) -> None:
    """Accept all bytes."""


def verify_checks(tensor: StoredTensor, view: memoryview) -> None:
    """Compare bytes with the checksums of a tensor."""
    check_bytes(view, tensor.checks, f"tensor {tensor.path!r} in {tensor.pack}")


def verify_digest(tensor: StoredTensor, view: memoryview) -> None:
    """Compare bytes with the SHA-256 of a tensor, or with its checksums while that is deferred."""
    if tensor.digest is None:
        verify_checks(tensor, view)
    elif hashlib.sha256(view).hexdigest() != tensor.digest:
        raise DamagedCheckpointError(
            f"tensor {tensor.path!r} in {tensor.pack} does not have the SHA-256 {tensor.digest} it was saved with: "
            "`ckptlake checkpoints repair` looks for another copy"
        )


class Packs:
    """Opens packs as they are needed and keeps them open; threads may share it."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._open: dict[str, RawPack | Archive] = {}
        self._offsets: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    def get(self, pack: str) -> RawPack | Archive:
        """Return an opened pack.

        Raises:
            DamagedCheckpointError: it is missing or cannot be read.
        """
        with self._lock:
            found = self._open.get(pack)
            if found is None:
                found = self._open[pack] = self._opened(pack)
            return found

    def _opened(self, pack: str) -> RawPack | Archive:
        try:
            return RawPack(self._store.pack_path(pack, RAW_SUFFIX))
        except FileNotFoundError:
            try:
                return Archive(self._store.pack_path(pack, ARCHIVE_SUFFIX))
            except FileNotFoundError:
                raise DamagedCheckpointError(
                    f"the pack {self._store.pack_path(pack, '.*')} is missing: restore it from a copy, or let "
                    "`ckptlake checkpoints repair` look for its tensors elsewhere"
                ) from None

    def view(self, tensor: StoredTensor) -> memoryview:
        """Return the bytes of a tensor: mapped where the pack is uncompressed, else decoded."""
        return self.slice(tensor, 0, tensor.nbytes)

    def slice(self, tensor: StoredTensor, start: int, stop: int) -> memoryview:
        """Return bytes of a tensor from `start` to `stop`; only what is needed of a compressed pack is decoded."""
        if stop <= start:
            return memoryview(bytearray())
        pack = self.get(tensor.pack)
        if isinstance(pack, RawPack):
            return pack.view(tensor.offset + start, stop - start)
        if tensor.digest is None:
            raise DamagedCheckpointError(f"tensor {tensor.path!r} has no digest: {pack.path} cannot tell where it is")
        return self._decoded(pack, tensor.digest, start, stop, 0)

    def reach(self, tensor: StoredTensor) -> None:
        """Make sure, without reading it, that a tensor's pack is there and long enough.

        Raises:
            DamagedCheckpointError: it is not.
        """
        if not tensor.nbytes:
            return
        pack = self.get(tensor.pack)
        if isinstance(pack, RawPack):
            pack.view(tensor.offset, tensor.nbytes)
        elif tensor.digest not in pack.entries:
            raise DamagedCheckpointError(f"{pack.path} does not hold tensor {tensor.path!r}, digest {tensor.digest}")

    def _decoded(self, archive: Archive, digest: str, start: int, stop: int, depth: int) -> memoryview:
        if depth > _DEEPEST_CHAIN:
            raise DamagedCheckpointError(f"the deltas in {archive.path} refer to each other without end")
        out = memoryview(bytearray(stop - start))

        def read_base(base: Base, begin: int, end: int) -> memoryview:
            return self.blob(base.pack, base.digest, begin, end, depth + 1)

        archive.read_into(digest, start, stop, out, read_base)
        return out

    def blob(self, pack: str, digest: str, start: int, stop: int, depth: int = 0) -> memoryview:
        """Return bytes of the content with this digest in a pack.

        Raises:
            DamagedCheckpointError: the pack does not hold it.
        """
        opened = self.get(pack)
        if isinstance(opened, Archive):
            return self._decoded(opened, digest, start, stop, depth)
        return opened.view(self._offset(opened, pack, digest) + start, stop - start)

    def _offset(self, opened: RawPack, pack: str, digest: str) -> int:
        if pack not in self._offsets:
            text = opened.header()[1].get(MANIFEST_KEY)
            told = Manifest.decode(text, str(opened.path)).tensors if text is not None else ()
            self._offsets[pack] = {t.digest: t.offset for t in told if t.digest is not None and t.pack == pack}
        if digest in self._offsets[pack]:
            return self._offsets[pack][digest]
        blob = self._store.index.find([digest]).get(digest)
        if blob is None or blob.pack != pack:
            raise DamagedCheckpointError(f"the pack {opened.path} does not hold the content {digest}")
        return blob.offset

    def close(self) -> None:
        """Close all packs; tensors that were handed out stay valid."""
        with self._lock:
            for pack in self._open.values():
                pack.close()
            self._open.clear()


def pieces(packs: Packs, tensor: StoredTensor) -> Callable[[int, int], memoryview]:
    """Return a function that reads a tensor's bytes from `start` to `stop`."""
    return lambda start, stop: packs.slice(tensor, start, stop)


__all__ = ["Packs", "Verify", "pieces", "verify_checks", "verify_digest", "verify_nothing"]
