"""The packed format: one pack a checkpoint, with those tensors alone that the lake does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.checksums import quick_key
from ckptlake.checkpoints.index import Blob
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, RawPackWriter, Slot, header, place, tensor_name
from ckptlake.checkpoints.sources import Source
from ckptlake.checkpoints.statistics import TensorStatistics
from ckptlake.checkpoints.store import RAW_SUFFIX, CheckpointStore
from ckptlake.checkpoints.tensor_pass import ReadPrevious, Work, Write, check_source, measure_all

_SMALL_BYTES = 16 << 10
Previous = Callable[[Source], ReadPrevious | None]
"""Returns how to read the same tensor of the checkpoint before, where there is one."""


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint whose bytes and manifest are written.

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
class Item:
    """One tensor on its way: where it lies, and what is known of it."""

    source: Source
    checks: tuple[int, ...] = ()
    quick: bytes = b""
    blob: Blob | None = None
    twin: Item | None = None
    slot: Slot | None = None
    digest: str | None = None
    statistics: TensorStatistics | None = None

    def take_checks(self) -> None:
        """Read all bytes for their checksums."""
        self.checks = check_source(self.source)
        self.quick = quick_key(self.checks, self.source.leaf.nbytes)

    def slot_at(self, offset: int) -> Slot:
        """Return its place in a pack if that begins at an offset."""
        leaf = self.source.leaf
        return Slot(tensor_name(leaf.path), leaf.dtype, leaf.shape, offset, leaf.nbytes)


class PackedSave:
    """Writes one checkpoint in the packed format, with SHA-256 and statistics in the same pass.

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
        self._previous = previous
        self._shares = folder == "blobs"
        self._pack = f"{folder}/{draft.checkpoint_id}"
        self._items = [Item(source) for source in sources]
        self._padded_header_bytes: int | None = None
        self._target = store.pack_path(self._pack, RAW_SUFFIX)

    def run(self) -> Written:
        """Write everything.

        Raises:
            InvalidInputError: a tensor changed meanwhile.
            StorageError: the disk refused; nothing of the checkpoint is left.
        """
        in_parallel(Item.take_checks, self._items, lambda item: item.source.leaf.nbytes)
        self._find_known(lambda items: self._measure(items, None))
        for item in self._items:
            if item.blob is not None or item.twin is not None:
                item.source.finish()
        fresh = self._fresh()
        slots = self._place(fresh, 0)
        if not any(slot.nbytes for slot in slots) and self._shares:
            self._measure(fresh, None)
            return self._finish()
        with storage_errors("save a checkpoint", self._target):
            header_bytes = len(header(slots, metadata_of(self._manifest().encode())))
            writer = RawPackWriter(self._target, header_bytes, sum(slot.nbytes for slot in slots))
            with self._published(writer):
                self._measure(fresh, writer)
                return self._finish(writer)

    def _find_known(self, take_digests: Callable[[Sequence[Item]], None]) -> None:
        """Find out which tensors, of those without a place, are not new; SHA-256 confirms a match of checksums."""
        if not self._shares:
            return
        free = [item for item in self._items if item.slot is None and item.source.leaf.nbytes]
        known = self._store.index.find_by_quick([item.quick for item in free])
        first: dict[bytes, Item] = {}
        suspects = []
        for item in sorted(self._items, key=lambda item: item.slot is None):
            if item.slot is None and item.source.leaf.nbytes and (item.quick in known or item.quick in first):
                suspects.append(item)
            first.setdefault(item.quick, item)
        if self._big() and not any(item.source.leaf.nbytes >= _SMALL_BYTES for item in suspects):
            return  # small ones beside big ones that are all new are stored again anyway
        twins = [first[item.quick] for item in suspects if first[item.quick] is not item]
        unconfirmed = {id(item): item for item in (*suspects, *twins)}.values()
        take_digests(list(unconfirmed))
        self._match(suspects, known, first)

    def _match(self, suspects: Sequence[Item], known: Mapping[bytes, list[Blob]], first: Mapping[bytes, Item]) -> None:
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

    def _keep_apart(self) -> None:
        """Store small tensors again rather than depend on a whole pack for their sake alone.

        An optimizer's step counts are equal in many checkpoints; shared, they would keep every one of their packs.
        """
        if all(item.blob is not None for item in self._items if item.source.leaf.nbytes):
            return
        packs = {item.blob.pack for item in self._big() if item.blob is not None}
        for item in self._items:
            if item.blob is not None and item.blob.pack not in packs:
                item.blob = None

    def _big(self) -> list[Item]:
        return [item for item in self._items if item.source.leaf.nbytes >= _SMALL_BYTES]

    def _fresh(self) -> list[Item]:
        """Return the tensors that are to be written yet."""
        return [item for item in self._items if item.blob is None and item.twin is None and item.slot is None]

    def _place(self, fresh: Sequence[Item], start: int) -> list[Slot]:
        """Give tensors their places from an offset on."""
        leaves = [item.source.leaf for item in fresh]
        slots = place(((tensor_name(leaf.path), leaf.dtype, leaf.shape, leaf.nbytes) for leaf in leaves), start)
        by_name = {slot.name: slot for slot in slots}
        for item in fresh:
            item.slot = by_name[tensor_name(item.source.leaf.path)]
        return slots

    @contextmanager
    def _published(self, writer: RawPackWriter) -> Iterator[None]:
        """Leave nothing of the pack unless all of the block goes well."""
        try:
            yield
        except BaseException:
            writer.abandon()
            if not self._store.manifest_path(self._draft.checkpoint_id).exists():
                self._target.unlink(missing_ok=True)
            raise

    def _slots(self) -> list[Slot]:
        """Return the places of all tensors that have one, in the order in which a header tells of them."""
        return sorted((i.slot for i in self._items if i.slot is not None), key=lambda slot: (slot.offset, slot.nbytes))

    def _finish(self, writer: RawPackWriter | None = None) -> Written:
        """Publish the pack, where there is one, and the manifest, now that all is known."""
        manifest = self._manifest()
        payload = manifest.encode()
        if writer is not None:
            writer.publish(writer.header(self._slots(), metadata_of(payload)))
        with storage_errors("save a checkpoint", self._store.layout.checkpoints):
            self._store.publish(manifest, payload)
        statistics = {i.source.leaf.path: i.statistics for i in self._items if i.statistics is not None}
        reused = frozenset(i.source.leaf.path for i in self._items if i.blob is not None)
        return Written(manifest, 0 if writer is None else writer.size_bytes, statistics, reused)

    def _measure(self, items: Sequence[Item], writer: RawPackWriter | None) -> None:
        works = [
            Work(i.source, i.checks, None if writer is None else write_at(writer, i), self._previous(i.source))
            for i in items
        ]
        for item, measured in zip(items, measure_all(works), strict=True):
            item.digest, item.statistics = measured.digest, measured.statistics

    def _manifest(self) -> Manifest:
        return replace(
            self._draft,
            tensors=tuple(self._stored(item) for item in self._items),
            header_bytes=self._padded_header_bytes,
        )

    def _stored(self, item: Item) -> StoredTensor:
        leaf, place = item.source.leaf, item.twin or item
        if place.blob is not None:
            pack, offset = place.blob.pack, place.blob.offset
        else:
            pack, offset = self._pack, place.slot.offset if place.slot is not None else 0
        return StoredTensor(leaf.path, leaf.dtype.name, leaf.shape, item.digest, item.checks, pack, offset)


def metadata_of(payload: bytes) -> dict[str, str]:
    """Return what a pack's header tells besides tensors: an encoded manifest."""
    return {MANIFEST_KEY: payload.decode().rstrip("\n")}


def write_at(writer: RawPackWriter, item: Item) -> Write:
    """Return how to write a tensor to its place in a pack."""
    assert item.slot is not None
    start = item.slot.offset

    def write(view: memoryview, offset: int) -> None:
        writer.write(view, start + offset)

    return write
