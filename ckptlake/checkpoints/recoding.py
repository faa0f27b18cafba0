"""One pack made smaller: what is still needed of it is compressed, decoded back and compared, then swapped in.

The new pack is encoded beside savers and gets its name alone in the store. It is recorded before the uncompressed
one goes, so a crash leaves the uncompressed pack or both, and whichever stays holds every needed byte.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ckptlake._internal.files import storage_errors, sync_directory
from ckptlake._internal.locks import lock_alone, open_lock, release
from ckptlake.checkpoints.bases import Bases
from ckptlake.checkpoints.codec.archive import Archive, ArchiveWriter
from ckptlake.checkpoints.codec.archive import StoredTensor as Entry
from ckptlake.checkpoints.manifest import StoredTensor
from ckptlake.checkpoints.marks import Ledger, Marks, microseconds, moment_after, owner_of
from ckptlake.checkpoints.needs import Content, Needs, needs_of
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, RawPack
from ckptlake.checkpoints.rows import Row, event_row, recoded_rows
from ckptlake.checkpoints.sealing import Rows
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, PARITY_SUFFIX, RAW_SUFFIX, CheckpointStore, blobs_of
from ckptlake.checkpoints.sweeping import bases_in
from ckptlake.errors import DamagedCheckpointError


@dataclass(frozen=True, slots=True)
class Recoded:
    """A pack that has been made smaller.

    Attributes:
        before_bytes: size of the file that is gone.
        after_bytes: size of the one that has taken its place.
        num_deltas: how many of its tensors are stored as differences.
    """

    pack: str
    before_bytes: int
    after_bytes: int
    num_tensors: int
    num_deltas: int


@dataclass(frozen=True, slots=True)
class Order:
    """A pack to recode.

    Attributes:
        pack: which, under ``blobs/``.
        before: tensors by path, of an earlier checkpoint, that those of the same path, type and shape may be stored
            as differences to.
        lasting: the packs that checkpoints refer to. Tensors whose base lies in another are stored anew, so that
            what is kept for its deltas alone can go.
    """

    pack: str
    before: Mapping[str, StoredTensor]
    lasting: frozenset[str]


def recode(store: CheckpointStore, ledger: Ledger, rows: Rows, order: Order) -> Recoded | None:
    """Compress one pack, or compress it anew without what nothing needs any more.

    Args:
        store: the lake's checkpoints.
        ledger: what the tables say.
        rows: where rows go.
        order: which pack, and what may serve as bases.

    Returns:
        What it has become, or None where there is nothing to do: nothing needs the pack, a digest of it is still
        deferred, it is compressed, all of it is needed and its bases last, or somebody changed it meanwhile.

    Raises:
        CheckpointNotFoundError: a checkpoint that needs it has no manifest.
        DamagedCheckpointError: a tensor is not what was written, or does not come back so; the pack stays as it is.
        StorageError: the disk refused; a try later goes on from there.
    """
    partial = store.pack_path(order.pack, ARCHIVE_SUFFIX)
    partial = partial.with_name(f".{partial.name}.{secrets.token_hex(8)}.partial")
    packs = Packs(store)
    with storage_errors("compress a pack", store.layout.blobs), one_recoding(store):
        try:
            with store.gate.together():
                task = _begun(store, ledger, packs, order)
                if task is None:
                    return None
                entries = _encode(task, packs, partial)
            with store.gate.alone():
                return _swap(store, ledger, rows, task, partial, entries)
        finally:
            packs.close()
            partial.unlink(missing_ok=True)


@contextmanager
def one_recoding(store: CheckpointStore) -> Iterator[None]:
    """Keep others from recoding for the block, so that chains of deltas and what is trimmed stay as found."""
    descriptor = open_lock(store.layout.blobs / ".recode.lock")
    try:
        lock_alone(descriptor)
        yield
    finally:
        release(descriptor)


@dataclass(frozen=True, slots=True)
class _Task:
    """A pack to recode as it was found.

    Attributes:
        source: its file.
        identity: tells that file from any that may take its place.
        needs: what is needed of it.
        rows: the rows of `tensors` of the checkpoint that wrote it, none if that was deleted.
    """

    order: Order
    source: Path
    identity: tuple[int, int, int]
    needs: Needs
    rows: tuple[Row, ...]

    @property
    def pack(self) -> str:
        return self.order.pack


def _begun(store: CheckpointStore, ledger: Ledger, packs: Packs, order: Order) -> _Task | None:
    pack = order.pack
    source = store.find_pack(pack)
    marks = ledger.marks(pack)
    owner = marks.holdings.get(owner_of(pack))
    if source is None or owner is None:
        return None
    needs = needs_of(store, marks, pack)
    opened = packs.get(pack)
    if not needs.contents or None in needs.digests:
        return None
    if not isinstance(opened, RawPack) and is_settled(opened.entries, needs, marks.bases_of(pack), order.lasting):
        return None
    rows = () if owner.is_deleted else tuple(ledger.tensors(owner))
    return _Task(order, source, _identity(source), needs, rows)


def is_settled(entries: Mapping[str, Entry], needs: Needs, recorded: Iterable[str], lasting: frozenset[str]) -> bool:
    """Tell whether all of a compressed pack is needed, and what its deltas need, or are recorded to, lasts."""
    return entries.keys() <= needs.digests and lasting.issuperset((*bases_in(entries), *recorded))


def _identity(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_ino, facts.st_mtime_ns


def _encode(task: _Task, packs: Packs, partial: Path) -> Mapping[str, Entry]:
    """Write what is needed of a pack to a new one and make sure that all of it comes back; return its entries."""
    owner = task.needs.manifests.get(owner_of(task.pack))
    writer = ArchiveWriter(partial, {} if owner is None else {MANIFEST_KEY: owner.encode().decode().rstrip("\n")})
    bases = Bases(packs, task.pack, task.order.before, task.order.lasting)
    try:
        for content in task.needs.contents:
            _add(writer, content, _read(task, packs, content), bases)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    with Archive(partial) as archive:
        for content in task.needs.contents:
            out = memoryview(bytearray(content.nbytes))
            archive.read_into(
                str(content.digest), 0, content.nbytes, out, lambda b, i, j: packs.blob(b.pack, b.digest, i, j)
            )
            if hashlib.sha256(out).hexdigest() != content.digest:
                raise _not_restored(task, packs, content)
        return archive.entries


def _read(task: _Task, packs: Packs, content: Content) -> memoryview:
    """Return the bytes of a content as they are stored."""
    if content.tensors:
        return packs.view(content.tensors[0])
    return packs.blob(task.pack, str(content.digest), 0, content.nbytes)


def _not_restored(task: _Task, packs: Packs, content: Content) -> DamagedCheckpointError:
    """Return the error to raise where what comes back is not what was saved, be it damage or a fault of the codec."""
    if hashlib.sha256(_read(task, packs, content)).hexdigest() != content.digest:
        return DamagedCheckpointError(
            f"{content.name} in {task.source} does not have the SHA-256 {content.digest} it was saved with, so the "
            "pack is not compressed: `ckptlake checkpoints repair` looks for another copy"
        )
    return DamagedCheckpointError(
        f"{content.name} of {task.pack} does not come back bit for bit from its compressed form; the pack stays as it "
        "is: please report this"
    )


def _add(writer: ArchiveWriter, content: Content, raw: memoryview, bases: Bases) -> None:
    base, other = bases.find(content) or (None, None)
    writer.add(
        str(content.digest),
        content.dtype,
        content.nbytes,
        _slices(raw),
        base,
        None if other is None else _slices(other),
    )


def _slices(view: memoryview) -> Callable[[int, int], memoryview]:
    return lambda start, stop: view[start:stop]


def _swap(
    store: CheckpointStore, ledger: Ledger, rows: Rows, task: _Task, partial: Path, entries: Mapping[str, Entry]
) -> Recoded | None:
    """Give a new pack its name, record it, and let go of the old one; the gate must be held alone."""
    bases = bases_in(entries)
    marks = ledger.marks(task.pack)
    if not _still_stands(store, marks, task, partial, entries, bases):
        return None
    owner = marks.holdings[owner_of(task.pack)]
    target = store.pack_path(task.pack, ARCHIVE_SUFFIX)
    after_bytes = partial.stat().st_size
    ts = moment_after(owner.changed_us)

    def record(needed: Iterable[str], ts: datetime) -> None:
        columns = {"location": task.pack, "stored_bytes": after_bytes, "packs": sorted(needed)}
        rows.add_rows("checkpoints", [event_row(owner, "compacted", ts, **columns)])
        rows.flush()

    recorded = set(marks.bases_of(task.pack))
    if task.source == target and not bases <= recorded:  # whichever of the two a crash leaves finds its bases
        record(bases | recorded, ts)
        ts = moment_after(microseconds(ts))
    store.index.forget_packs([task.pack])
    target.with_name(f"{target.name}{PARITY_SUFFIX}").unlink(missing_ok=True)
    partial.rename(target)
    sync_directory(target.parent)
    rows.add_rows("tensors", recoded_rows(task.rows, entries, task.pack, ts))
    record(bases, ts)
    raw = store.pack_path(task.pack, RAW_SUFFIX)
    raw.unlink(missing_ok=True)
    raw.with_name(f"{raw.name}{PARITY_SUFFIX}").unlink(missing_ok=True)
    sync_directory(target.parent)
    store.index.add(b for manifest in task.needs.manifests.values() for b in blobs_of(manifest) if b.pack == task.pack)
    num_deltas = sum(entry.codec == "delta" for entry in entries.values())
    return Recoded(task.pack, task.identity[0], after_bytes, len(entries), num_deltas)


def _still_stands(
    store: CheckpointStore,
    marks: Marks,
    task: _Task,
    partial: Path,
    entries: Mapping[str, Entry],
    bases: frozenset[str],
) -> bool:
    """Tell whether what was encoded is all that is needed now, and what it needs itself is still there."""
    return (
        task.source.exists()
        and partial.exists()
        and _identity(task.source) == task.identity
        and needs_of(store, marks, task.pack).digests <= entries.keys()
        and all(store.find_pack(base) is not None for base in bases)
    )
