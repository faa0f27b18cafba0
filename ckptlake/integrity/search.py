"""The search for copies of what is damaged: in the lake itself, then where a person says that copies may be."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ckptlake.checkpoints.checksums import check, spans
from ckptlake.checkpoints.manifest import Manifest, PlainFile, StoredTensor
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, MANIFEST_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.errors import CkptlakeError, InvalidInputError, StorageError
from ckptlake.integrity.copies import (
    Copy,
    InArchive,
    InFile,
    InPack,
    InState,
    InTorchFile,
    entry_of,
    slots_of,
    torch_leaves,
)
from ckptlake.integrity.headers import manifest_in, read_header
from ckptlake.integrity.parity import parity_path, rebuild
from ckptlake.integrity.pieces import Piece, read_whole_manifest
from ckptlake.tables.layout import Layout

logger = logging.getLogger(__name__)
_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin"})


class Search:
    """Looks for bytes by their digest; what it returns has been read and compared.

    What repairs before have moved to quarantine is looked at too.

    Args:
        store: the lake's checkpoints.
        sources: lakes, copies of their folders, and files or folders of files in the formats ``.safetensors``,
            ``.ckpk``, ``.pt`` and ``.json`` (manifests).

    Raises:
        InvalidInputError: one of the sources does not exist.
    """

    def __init__(self, store: CheckpointStore, sources: Sequence[Path] = ()) -> None:
        for path in sources:
            if not path.exists():
                raise InvalidInputError(f"there is nothing at {path} to repair from; check the path")
        self._store = store
        self._stores = [store, *(CheckpointStore(Layout(path), "") for path in sources if _has_lake(path))]
        aside = store.layout.quarantine
        self._sources = (*sources, aside) if aside.is_dir() else tuple(sources)
        self._learnt: list[Manifest] = []
        self._found: dict[str, Copy | None] = {}
        self._torch: dict[Path, Sequence[int]] = {}

    def learn(self, manifest: Manifest) -> None:
        """Take a manifest as one of the lake's that is not there now; to be called before bytes are looked for."""
        self._learnt.append(manifest)

    # -- bytes

    def find(self, digest: str, nbytes: int) -> Copy | None:
        """Return a place where the bytes with this digest are, or None."""
        if digest not in self._found:
            self._found[digest] = None  # a base that is based on itself is not looked for without end
            self._found[digest] = next((c for c in self._candidates(digest, nbytes) if is_good(c, digest)), None)
        return self._found[digest]

    def find_for(self, piece: Piece, own: Iterable[Copy] = ()) -> Copy | None:
        """Return a place where the bytes of a damaged piece are, or None; `own` are looked at first."""
        if piece.digest is None:
            return None
        for copy in own:
            if is_good(copy, piece.digest):
                self._found[piece.digest] = copy
                return copy
        return self.find(piece.digest, piece.nbytes)

    def _candidates(self, digest: str, nbytes: int) -> Iterator[Copy]:
        for store in self._stores:
            yield from self._tensors[store.layout.root].get(digest, ())
        yield from self._indexed(digest, nbytes)
        yield from self._told_by_headers.get(digest, ())
        for path in (*self._archives_here, *self._files(ARCHIVE_SUFFIX)):
            yield from self._in_archive(path, digest, nbytes)
        for path in self._files(RAW_SUFFIX):
            yield from (slot for slot in _listed(path) if slot.nbytes == nbytes)
        for suffix in sorted(_TORCH_SUFFIXES):
            for path in self._files(suffix):
                yield from (InTorchFile(path, n) for n, size in enumerate(self._torch_sizes(path)) if size == nbytes)

    @cached_property
    def _tensors(self) -> Mapping[Path, Mapping[str, list[Copy]]]:
        """The tensors that manifests tell of, by lake and digest."""
        found: dict[Path, dict[str, list[Copy]]] = {}
        for store in self._stores:
            root = store.layout.root
            by_digest = found[root] = {}
            for manifest in (*_manifests(store), *(self._learnt if store is self._store else ())):
                for number, tensor in enumerate(manifest.tensors):
                    if tensor.digest is not None and tensor.nbytes:
                        copy = _copy_of(root, manifest, number, tensor)
                        copies = by_digest.setdefault(tensor.digest, [])
                        if copy not in copies:
                            copies.append(copy)
            for copies in by_digest.values():  # a pack is read in part, a file of another format as a whole
                copies.sort(key=lambda copy: isinstance(copy, InState))
        return found

    @cached_property
    def _told_by_headers(self) -> Mapping[str, list[InFile]]:
        """The tensors that uncompressed packs tell of themselves, by digest, under whatever name a pack stands."""
        folders = [folder for store in self._stores for folder in (store.layout.blobs, store.layout.checkpoints)]
        paths = [path for folder in folders for path in sorted(folder.glob(f"*{RAW_SUFFIX}"))]
        found: dict[str, list[InFile]] = {}
        for path in (*paths, *self._files(RAW_SUFFIX)):
            try:
                told = read_header(path)
            except (CkptlakeError, OSError) as error:
                logger.debug("%s", error)
                continue
            if told is None or told.manifest is None:
                continue
            for tensor in told.manifest.tensors:
                if tensor.digest is not None and tensor.pack.endswith(f"/{told.manifest.checkpoint_id}"):
                    place = InFile(path, len(told.payload) + tensor.offset, tensor.nbytes)
                    found.setdefault(tensor.digest, []).append(place)
        return found

    def _indexed(self, digest: str, nbytes: int) -> Iterator[Copy]:
        try:
            blob = self._store.index.find([digest]).get(digest)
        except StorageError as error:
            logger.debug("%s", error)
            return
        if blob is not None:
            yield InPack(self._store.layout.root, Piece(blob.pack, blob.offset, nbytes, digest, ()))

    @cached_property
    def _archives_here(self) -> list[Path]:
        """The compressed packs of the lakes: one may stand beside a raw one, or need a base from elsewhere."""
        return [path for store in self._stores for path in sorted(store.layout.blobs.glob(f"*{ARCHIVE_SUFFIX}"))]

    def _in_archive(self, path: Path, digest: str, nbytes: int) -> Iterator[Copy]:
        try:
            entry = entry_of(path, digest)
        except (CkptlakeError, OSError) as error:
            logger.debug("%s", error)
            return
        if entry is None or entry[0] != nbytes:
            return
        if entry[1] is None:
            yield InArchive(path, digest, nbytes)
        elif (base := self.find(entry[1].digest, nbytes)) is not None:
            yield InArchive(path, digest, nbytes, base)

    def _torch_sizes(self, path: Path) -> Sequence[int]:
        if path not in self._torch:
            self._torch[path] = ()
            try:
                self._torch[path] = [leaf.num_elements * leaf.dtype.itemsize for leaf in torch_leaves(path)]
            except (CkptlakeError, OSError) as error:
                logger.warning("no tensors are taken from %s: %s", path, error)
        return self._torch[path]

    def _files(self, suffix: str) -> Iterator[Path]:
        """Yield the files with a suffix among the sources that a person gave."""
        for source in self._sources:
            if source.is_dir():
                yield from (path for path in sorted(source.rglob(f"*{suffix}")) if path.is_file())
            elif source.suffix == suffix:
                yield source

    # -- files and manifests

    def find_file(self, plain: PlainFile) -> Path | None:
        """Return a file with the same bytes as that of a plain format, or None."""
        own = self._store.plain_path(plain.name)
        folders = [store.layout.checkpoints for store in self._stores]
        suffix = own.suffix
        candidates = [path for folder in folders for path in sorted(folder.glob(f"*{suffix}"))]
        for path in (*candidates, *self._files(suffix)):
            try:
                if path != own and path.stat().st_size == plain.size_bytes and digest_of(path) == plain.digest:
                    return path
            except OSError as error:
                logger.debug("%s cannot be read: %s", path, error)
        return None

    def find_manifests(self, checkpoint_id: str) -> Iterator[tuple[Manifest, str]]:
        """Yield copies of a manifest, each with where it was found: its own packs, other lakes, files, parity."""
        here = self._store
        yield from self._told_by_packs(here, checkpoint_id)
        for store in self._stores[1:]:
            yield from self._read(store.manifest_path(checkpoint_id), checkpoint_id)
            yield from self._told_by_packs(store, checkpoint_id)
        for path in self._files(f"{checkpoint_id}{MANIFEST_SUFFIX}"):
            yield from self._read(path, checkpoint_id)
        for suffix in (RAW_SUFFIX, ARCHIVE_SUFFIX):
            for path in self._files(f"{checkpoint_id}{suffix}"):
                yield from _told_by(path, checkpoint_id)
        yield from self._rebuilt(here.manifest_path(checkpoint_id), checkpoint_id)

    def _told_by_packs(self, store: CheckpointStore, checkpoint_id: str) -> Iterator[tuple[Manifest, str]]:
        for folder, suffix in (("blobs", RAW_SUFFIX), ("blobs", ARCHIVE_SUFFIX), ("checkpoints", RAW_SUFFIX)):
            path = store.pack_path(f"{folder}/{checkpoint_id}", suffix)
            if path.is_file():
                yield from _told_by(path, checkpoint_id)

    def _read(self, path: Path, checkpoint_id: str) -> Iterator[tuple[Manifest, str]]:
        try:
            manifest = Manifest.decode(path.read_bytes(), str(path))
        except (CkptlakeError, OSError) as error:
            logger.debug("%s", error)
            return
        if manifest.checkpoint_id == checkpoint_id:
            yield manifest, str(path)

    def _rebuilt(self, path: Path, checkpoint_id: str) -> Iterator[tuple[Manifest, str]]:
        parity = parity_path(path)
        if not parity.is_file():
            return
        with tempfile.TemporaryDirectory() as folder:
            damaged, out = Path(folder, "damaged"), Path(folder, path.name)
            try:
                damaged.write_bytes(path.read_bytes() if path.is_file() else b"")
                rebuild(damaged, parity, out)
            except (CkptlakeError, OSError) as error:
                logger.debug("%s", error)
                return
            yield from ((manifest, str(parity)) for manifest, _ in self._read(out, checkpoint_id))


def _manifests(store: CheckpointStore) -> Iterator[Manifest]:
    """Yield the manifests of a lake that can be read."""
    for checkpoint_id in store.checkpoint_ids():
        try:
            yield read_whole_manifest(store, checkpoint_id)
        except CkptlakeError as error:
            logger.debug("%s", error)


def is_good(copy: Copy, digest: str) -> bool:
    """Tell whether a copy can be read and has a SHA-256."""
    try:
        return hashlib.sha256(copy.read()).hexdigest() == digest
    except (CkptlakeError, OSError) as error:
        logger.debug("no copy: %s", error)
        return False


def is_right(data: memoryview, piece: Piece) -> bool:
    """Tell whether bytes are those of a piece, by its SHA-256 or, while that is deferred, by its checksums."""
    if piece.digest is not None:
        return hashlib.sha256(data).hexdigest() == piece.digest
    return [check(data[start:stop]) for start, stop in spans(len(data))] == list(piece.checks)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: the system will not read it.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told_by(path: Path, checkpoint_id: str) -> Iterator[tuple[Manifest, str]]:
    try:
        manifest = manifest_in(path)
    except (CkptlakeError, OSError) as error:
        logger.debug("%s", error)
        return
    if manifest is not None and manifest.checkpoint_id == checkpoint_id:
        yield manifest, str(path)


def _copy_of(root: Path, manifest: Manifest, number: int, tensor: StoredTensor) -> Copy:
    if manifest.file is not None:
        return InState(root, manifest, number)
    return InPack(root, Piece.of(tensor))


def _listed(path: Path) -> Iterator[InFile]:
    try:
        yield from slots_of(path)
    except (CkptlakeError, OSError) as error:
        logger.warning("no tensors are taken from %s: %s", path, error)


def _has_lake(path: Path) -> bool:
    """Tell whether a folder is a lake or a copy of one's files."""
    return (path / "checkpoints").is_dir() or (path / "blobs").is_dir()
