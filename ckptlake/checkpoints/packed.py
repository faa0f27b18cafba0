"""The packed format: one pack a checkpoint, with those tensors alone that the lake does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.checksums import quick_key
from ckptlake.checkpoints.index import Blob
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, RawPackWriter, Slot, place, tensor_name
from ckptlake.checkpoints.sources import Source
from ckptlake.checkpoints.statistics import TensorStatistics
from ckptlake.checkpoints.store import RAW_SUFFIX, CheckpointStore
from ckptlake.checkpoints.tensor_pass import ReadPrevious, Work, check_all, copy_all, digest_all, measure_all

_SMALL_BYTES = 16 << 10
Previous = Callable[[Source], ReadPrevious | None]
"""Returns how to read the same tensor of the checkpoint before, where there is one."""


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint whose bytes and manifest are durable.

    Attributes:
        manifest: what stands in its manifest.
        stored_bytes: bytes of its own file; what it shares with others costs nothing.
        statistics: those of each tensor by path; empty while they are deferred.
        reused: paths of the tensors that the lake had already.
    """

    manifest: Manifest
    stored_bytes: int
    statistics: Mapping[str, TensorStatistics] = field(default_factory=dict)
    reused: frozenset[str] = frozenset()


def no_previous(_: Source) -> None:
    """Say that there is no checkpoint before."""


@dataclass(slots=True)
class _Item:
    """One tensor on its way: where it lies, and what is known of it."""

    source: Source
    checks: tuple[int, ...]
    quick: bytes
    blob: Blob | None = None
    twin: _Item | None = None
    slot: Slot | None = None
    digest: str | None = None
    statistics: TensorStatistics | None = None


class PackedSave:
    """Writes one checkpoint in the packed format.

    Args:
        store: the lake's checkpoints; its gate must be held, shared, until the row is committed.
        draft: the manifest without tensors.
        sources: the state's tensors in order of their numbers.
        previous: finds the same tensor in the checkpoint before.
        folder: ``blobs`` to share tensors with other checkpoints, ``checkpoints`` for a file that stands alone.
    """

    def __init__(
        self,
        store: CheckpointStore,
        draft: Manifest,
        sources: Sequence[Source],
        previous: Previous = no_previous,
        folder: str = "blobs",
    ) -> None:
        self._store = store
        self._draft = draft
        self._sources = sources
        self._previous = previous
        self._shares = folder == "blobs"
        self._pack = f"{folder}/{draft.checkpoint_id}"
        self._items: list[_Item] = []

    def run(self) -> Written:
        """Write everything, with SHA-256 and statistics in the same pass.

        Raises:
            InvalidInputError: a tensor changed meanwhile.
            StorageError: the disk refused; nothing of the checkpoint is left.
        """
        self._look_up(self._measure_all)
        return self._write(self._measure)

    def run_deferred(self) -> Written:
        """Write everything under fast checksums alone; digests of new tensors are left for later."""
        self._look_up(self._digest_all)
        return self._write(self._copy)

    def _look_up(self, take_digests: Callable[[Sequence[_Item]], None]) -> None:
        """Find out which tensors are new; a match of checksums is confirmed by SHA-256."""
        checks = check_all(self._sources)
        self._items = [
            _Item(source, found, quick_key(found, source.leaf.nbytes))
            for source, found in zip(self._sources, checks, strict=True)
        ]
        if not self._shares:
            return
        known = self._store.index.find_by_quick([item.quick for item in self._items if item.source.leaf.nbytes])
        first: dict[bytes, _Item] = {}
        suspects = []
        for item in self._items:
            if item.source.leaf.nbytes and (item.quick in known or item.quick in first):
                suspects.append(item)
            first.setdefault(item.quick, item)
        twins = [first[item.quick] for item in suspects if first[item.quick] is not item]
        unconfirmed = {id(item): item for item in (*suspects, *twins)}.values()
        take_digests(list(unconfirmed))
        self._match(suspects, known, first)

    def _match(
        self, suspects: Sequence[_Item], known: Mapping[bytes, list[Blob]], first: Mapping[bytes, _Item]
    ) -> None:
        present: dict[str, bool] = {}
        for item in suspects:
            for blob in known.get(item.quick, ()):
                if blob.digest == item.digest:
                    if blob.pack not in present:
                        present[blob.pack] = self._store.find_pack(blob.pack) is not None
                    item.blob = blob if present[blob.pack] else None
        self._keep_apart()
        for item in suspects:
            twin = first[item.quick]
            if item.blob is None and twin is not item and twin.digest == item.digest:
                item.twin = twin
            if item.blob is not None or item.twin is not None:
                item.source.finish()

    def _keep_apart(self) -> None:
        """Store small tensors again rather than depend on a whole pack for their sake alone.

        An optimizer's step counts are equal in many checkpoints; shared, they would keep every one of their packs.
        """
        if all(item.blob is not None for item in self._items if item.source.leaf.nbytes):
            return
        big = [item for item in self._items if item.source.leaf.nbytes >= _SMALL_BYTES]
        packs = {item.blob.pack for item in big if item.blob is not None}
        for item in self._items:
            if item.blob is not None and item.blob.pack not in packs:
                item.blob = None

    def _write(self, fill: Callable[[Sequence[_Item], RawPackWriter | None], None]) -> Written:
        fresh = [item for item in self._items if item.blob is None and item.twin is None]
        leaves = [item.source.leaf for item in fresh]
        slots = place((tensor_name(leaf.path), leaf.dtype, leaf.shape, leaf.nbytes) for leaf in leaves)
        by_name = {slot.name: slot for slot in slots}
        for item in fresh:
            item.slot = by_name[tensor_name(item.source.leaf.path)]
        target = self._store.pack_path(self._pack, RAW_SUFFIX)
        if not any(leaf.nbytes for leaf in leaves) and self._shares:
            fill(fresh, None)
            return self._finish(0)
        with storage_errors("save a checkpoint", target):
            writer = RawPackWriter(target, slots, self._metadata())
            try:
                fill(fresh, writer)
                writer.publish(self._metadata())
                return self._finish(writer.size_bytes)
            except BaseException:
                writer.abandon()
                self._withdraw(target)
                raise

    def _withdraw(self, target: Path) -> None:
        """Delete a published pack whose manifest could not be written."""
        if not self._store.manifest_path(self._draft.checkpoint_id).exists():
            target.unlink(missing_ok=True)

    def _finish(self, stored_bytes: int) -> Written:
        manifest = self._manifest()
        with storage_errors("save a checkpoint", self._store.layout.checkpoints):
            self._store.publish(manifest)
        statistics = {i.source.leaf.path: i.statistics for i in self._items if i.statistics is not None}
        reused = frozenset(i.source.leaf.path for i in self._items if i.blob is not None)
        return Written(manifest, stored_bytes, statistics, reused)

    def _measure_all(self, items: Sequence[_Item]) -> None:
        self._measure(items, None)

    def _measure(self, items: Sequence[_Item], writer: RawPackWriter | None) -> None:
        works = [Work(i.source, i.checks, _write_at(writer, i), self._previous(i.source)) for i in items]
        for item, measured in zip(items, measure_all(works), strict=True):
            item.digest, item.statistics = measured.digest, measured.statistics

    def _digest_all(self, items: Sequence[_Item]) -> None:
        """Take the digests alone, unless these are all tensors: then nothing is left for later."""
        if len(items) == len(self._items):
            self._measure_all(items)
            return
        works = [Work(item.source, item.checks) for item in items]
        for item, digest in zip(items, digest_all(works), strict=True):
            item.digest = digest

    def _copy(self, fresh: Sequence[_Item], writer: RawPackWriter | None) -> None:
        copy_all([Work(item.source, item.checks, _write_at(writer, item)) for item in fresh])

    def _metadata(self) -> dict[str, str]:
        return {MANIFEST_KEY: self._manifest().encode().decode().rstrip("\n")}

    def _manifest(self) -> Manifest:
        return replace(self._draft, tensors=tuple(self._stored(item) for item in self._items))

    def _stored(self, item: _Item) -> StoredTensor:
        leaf, place = item.source.leaf, item.twin or item
        if place.blob is not None:
            pack, offset = place.blob.pack, place.blob.offset
        else:
            pack, offset = self._pack, place.slot.offset if place.slot is not None else 0
        return StoredTensor(leaf.path, leaf.dtype.name, leaf.shape, item.digest, item.checks, pack, offset)


def _write_at(writer: RawPackWriter | None, item: _Item) -> Any:
    if writer is None or item.slot is None:
        return None
    start = item.slot.offset

    def write(view: memoryview, offset: int) -> None:
        writer.write(view, start + offset)

    return write
