"""Packs written anew with what is damaged in them taken from copies."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ckptlake.checkpoints.codec.archive import Archive, ArchiveWriter, Base, StoredTensor
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.rawpack import MANIFEST_KEY
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.errors import CkptlakeError, DamagedCheckpointError
from ckptlake.integrity.copies import ByDigest, Copy, InFile, InPack
from ckptlake.integrity.headers import RawHeader, make_header, read_header
from ckptlake.integrity.pieces import STRETCH_BYTES, Piece, examine_all, is_readable, read_whole_manifest
from ckptlake.integrity.repair_plan import MendPack
from ckptlake.integrity.replacing import replace_file
from ckptlake.integrity.search import Search, is_good, is_right

_SECTOR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Needed:
    """What checkpoints need of a pack.

    Attributes:
        types: the element types of its pieces.
        owner: the manifest of the checkpoint that wrote it, if that is there.
    """

    types: Mapping[Piece, str]
    owner: Manifest | None

    @property
    def end(self) -> int:
        """Where in the data of an uncompressed pack the last of them ends."""
        return max((piece.offset + piece.nbytes for piece in self.types), default=0)


def mend_pack(store: CheckpointStore, action: MendPack) -> None:
    """Write a pack anew; one in which nothing is damaged any more stays as it is.

    An uncompressed pack stays one if its header is known, so that it has the same bytes as before. Otherwise what is
    good of it, with what was found, becomes a compressed pack.

    Raises:
        DamagedCheckpointError: a copy is not what it was, or a tensor would be lost that is good now.
        StorageError: the disk refused; everything is as it was.
    """
    raw, archive = (store.pack_path(action.pack, suffix) for suffix in (RAW_SUFFIX, ARCHIVE_SUFFIX))
    pieces = [piece for piece, _ in action.copies]
    if pieces and not any(examine_all(store, pieces, "digest")):
        return
    action = replace(action, copies=tuple((piece, _still(store, piece, copy)) for piece, copy in action.copies))
    needed = _needed(store, action.pack)
    has_raw = os.path.lexists(raw)
    source = raw if is_readable(store, raw) else None
    header = _header_for(raw, source, needed) if has_raw or not os.path.lexists(archive) else None
    if header is not None and (source is not None or not action.lost):

        def write_raw(out: Path) -> None:
            start = _write_raw(action, header, source, out)
            _check_raw(store, action, needed, out, start)

        replace_file(store, raw, write_raw, reason=_REASON)
    else:
        replaced = raw if has_raw else None
        write = partial(_write_archive, store, action, needed)
        replace_file(store, archive, write, reason=_REASON, instead_of=replaced)


_REASON = "the pack was damaged and has been mended"


def _needed(store: CheckpointStore, pack: str) -> _Needed:
    types: dict[Piece, str] = {}
    owner = None
    for checkpoint_id in store.checkpoint_ids():
        try:
            manifest = read_whole_manifest(store, checkpoint_id)
        except DamagedCheckpointError:
            continue
        if manifest.file is None:
            types |= {Piece.of(t): t.dtype for t in manifest.tensors if t.pack == pack and t.nbytes}
        if pack.endswith(f"/{checkpoint_id}"):
            owner = manifest
    return _Needed(types, owner)


def _header_for(raw: Path, source: Path | None, needed: _Needed) -> tuple[RawHeader, int] | None:
    """Return the header that an uncompressed pack should have, and where the data begin in the file as it is."""
    told = read_header(source) if source is not None else None
    expected = make_header(needed.owner, f"{raw.parent.name}/{raw.stem}") if needed.owner is not None else None
    told_bytes = told.data_bytes if told is not None else None
    if expected is not None and needed.end <= expected.data_bytes and told_bytes in (None, expected.data_bytes):
        start = len(expected.payload)
        if told is None or source is None or source.stat().st_size == start + expected.data_bytes:
            return expected, start
        return expected, len(told.payload)
    if told is not None and needed.end <= told.data_bytes:
        return told, len(told.payload)
    return None


def _write_raw(action: MendPack, header: tuple[RawHeader, int], source: Path | None, out: Path) -> int:
    """Write an uncompressed pack: its header, the data as they are, the copies over them; return where data begin."""
    told, source_start = header
    start = len(told.payload)
    descriptor = os.open(out, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.ftruncate(descriptor, start + told.data_bytes)
        _write(descriptor, told.payload, 0)
        if source is not None:
            for offset, block in _what_is_left(source, source_start, told.data_bytes):
                _write(descriptor, block, start + offset)
        for piece, copy in action.copies:
            _write(descriptor, copy.read(), start + piece.offset)
    finally:
        os.close(descriptor)
    return start


def _check_raw(store: CheckpointStore, action: MendPack, needed: _Needed, out: Path, start: int) -> None:
    """Compare all that is needed of a new pack with what was written once.

    Raises:
        DamagedCheckpointError: a tensor is not right that is so now, or that was found elsewhere.
    """
    found = {piece for piece, _ in action.copies}
    wrong = [p for p in needed.types if not is_right(InFile(out, start + p.offset, p.nbytes).read(), p)]
    good_now = {p for p, fault in zip(wrong, examine_all(store, wrong, "digest"), strict=True) if fault is None}
    if worse := good_now | found.intersection(wrong):
        raise DamagedCheckpointError(f"{next(iter(worse))} does not come out right, so the pack stays as it is")


def _what_is_left(path: Path, start: int, nbytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the data of a file from `start` on; what the disk cannot read is left out, sector by sector."""
    with path.open("rb", buffering=0) as file:
        for offset in range(0, nbytes, STRETCH_BYTES):
            size = min(STRETCH_BYTES, nbytes - offset)
            try:
                yield offset, os.pread(file.fileno(), size, start + offset)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                place = offset
                while place < offset + size:
                    length = min(_SECTOR_BYTES - (start + place) % _SECTOR_BYTES, offset + size - place)
                    yield place, _sector(file.fileno(), start + place, length)
                    place += length


def _sector(descriptor: int, place: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, place)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _write(descriptor: int, payload: bytes | memoryview, place: int) -> None:
    view = memoryview(payload)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written


def _still(store: CheckpointStore, piece: Piece, copy: Copy) -> Copy:
    """Return a copy that is as it was planned, or where its file has been repaired since, what that held before.

    Raises:
        DamagedCheckpointError: there is none any more.
    """
    assert piece.digest is not None
    if is_good(copy, piece.digest):
        return copy
    other = Search(store).find(piece.digest, piece.nbytes)
    if other is None:
        raise DamagedCheckpointError(f"what {copy} held of {piece} has changed since the repair was planned")
    return other


@dataclass(frozen=True, slots=True)
class _Content:
    """A tensor to write to a compressed pack."""

    dtype: str
    nbytes: int
    copy: Copy
    base: Base | None = None


def _write_archive(store: CheckpointStore, action: MendPack, needed: _Needed, out: Path) -> None:
    """Write a compressed pack of all that is good, and of what was found elsewhere."""
    old = _opened(store.pack_path(action.pack, ARCHIVE_SUFFIX))
    contents = _contents(store, action, needed, old)
    metadata = dict(old.metadata) if old is not None else {}
    if not metadata and needed.owner is not None:
        metadata = {MANIFEST_KEY: needed.owner.encode().decode().rstrip("\n")}
    if old is not None:
        old.close()
    with closing(Packs(store)) as packs:
        writer = ArchiveWriter(out, metadata)
        try:
            for digest, content in contents.items():
                _add(writer, packs, digest, content)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        with Archive(out) as written:
            for digest, content in contents.items():
                data = memoryview(bytearray(content.nbytes))
                written.read_into(digest, 0, content.nbytes, data, lambda b, i, j: packs.blob(b.pack, b.digest, i, j))
                if hashlib.sha256(data).hexdigest() != digest:
                    raise DamagedCheckpointError(f"digest {digest} does not come back from {out}: please report this")


def _opened(path: Path) -> Archive | None:
    try:
        return Archive(path)
    except (DamagedCheckpointError, OSError):
        return None


def _contents(store: CheckpointStore, action: MendPack, needed: _Needed, old: Archive | None) -> dict[str, _Content]:
    """Return what goes into a compressed pack by digest: what was found, and what can be read where it is.

    Raises:
        DamagedCheckpointError: a good tensor has no digest, so a compressed pack could not tell where it is.
    """
    root = store.layout.root
    found = {piece.digest: copy for piece, copy in action.copies}
    contents: dict[str, _Content] = {}
    for piece, dtype in needed.types.items():
        if piece.digest is None and piece not in action.lost:
            raise DamagedCheckpointError(f"{piece} has no digest yet: verify its checkpoint first, then repair")
        if piece.digest is not None:
            copy = found.get(piece.digest) or InPack(root, piece)
            contents[piece.digest] = _Content(dtype, piece.nbytes, copy)
    for digest, entry in _entries(store, action.pack, old).items():
        copy = found.get(digest) or ByDigest(root, action.pack, digest, entry.nbytes)
        base = entry.base if old is not None and digest in old.entries and digest not in found else None
        contents[digest] = _Content(entry.dtype, entry.nbytes, copy, base)
    return {digest: content for digest, content in contents.items() if is_good(content.copy, digest)}


def _entries(store: CheckpointStore, pack: str, old: Archive | None) -> dict[str, StoredTensor]:
    """Return what a compressed pack lists, and what deltas in others need of a pack."""
    found: dict[str, StoredTensor] = dict(old.entries) if old is not None else {}
    for path in store.layout.blobs.glob(f"*{ARCHIVE_SUFFIX}"):
        other = _opened(path)
        if other is None:
            continue
        with other:
            based = (entry for entry in other.entries.values() if entry.base is not None and entry.base.pack == pack)
            for entry in based:
                assert entry.base is not None
                found.setdefault(entry.base.digest, entry)
    return found


def _add(writer: ArchiveWriter, packs: Packs, digest: str, content: _Content) -> None:
    data = content.copy.read()
    base = content.base
    if base is not None:
        try:
            other = packs.blob(base.pack, base.digest, 0, content.nbytes)
        except CkptlakeError:
            base = None
    if base is None:
        writer.add(digest, content.dtype, content.nbytes, lambda start, stop: data[start:stop])
    else:
        writer.add(
            digest,
            content.dtype,
            content.nbytes,
            lambda start, stop: data[start:stop],
            base,
            lambda start, stop: other[start:stop],
        )
