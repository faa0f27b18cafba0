"""The packed format under fast checksums alone: tensors are written as soon as they are seen to be new.

What is taken beforehand for SHA-256 in the same pass, a reading of everything for checksums, would cost a third of a
save here. So the place of a tensor in the pack is found when its turn comes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.checksums import spans
from ckptlake.checkpoints.packed import Item, PackedSave, Written, metadata_of, write_at
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.rawpack import ALIGNMENT, RawPackWriter, header
from ckptlake.checkpoints.tensor_pass import Work, copy, digest_all

_LONG_BYTES = 1 << 20
ROOM_BYTES = 4096
"""Left free in the header for the names of other packs that tensors turn out to lie in, some ninety of them."""


class DeferredSave(PackedSave):
    """Writes one checkpoint in the packed format; digests and statistics of new tensors are left for later.

    On return the system has it all, so that it survives the end of the process but not yet a power cut: the pack is
    not waited for. Where nothing is new, digests and statistics are there at once.
    """

    def run(self) -> Written:
        """Write everything, as soon as it is seen to be new.

        Raises:
            InvalidInputError: a tensor changed meanwhile.
            StorageError: the disk refused; nothing of the checkpoint is left.
        """
        with storage_errors("save a checkpoint", self._target):
            try:
                return self._save(ROOM_BYTES)
            except OverflowError:
                for item in self._items:
                    item.blob = item.twin = item.slot = None
                return self._save(len(self._items) * ALIGNMENT * 2)

    def _save(self, room: int) -> Written:
        """Write everything into a pack whose header has so much room for the names of others."""
        writer = RawPackWriter(self._target, self._longest_header() + room, None)
        with self._published(writer):
            self._append(writer)
            self._find_known(self._take_digests)
            appended = [item.slot for item in self._items if item.slot is not None]
            fresh = self._fresh()
            slots = self._place(fresh, writer.reserve(0))
            if self._shares and not any(slot.nbytes for slot in (*appended, *slots)):
                writer.abandon()
                self._measure(fresh, None)
                return self._finish()
            manifest = self._manifest()
            payload = manifest.encode()
            text = writer.header(appended + slots, metadata_of(payload))
            writer.reserve(sum(slot.nbytes for slot in slots))
            in_parallel(lambda item: _copy(item, writer), fresh, lambda item: item.source.leaf.nbytes)
            for item in self._items:
                item.source.finish()
            writer.publish(text)
            return self._publish(manifest, payload, writer.size_bytes)

    def _longest_header(self) -> int:
        """Return the length of a header that can tell of all tensors wherever in the pack they will lie."""
        total = sum(item.source.leaf.nbytes for item in self._items)
        for item in self._items:
            item.checks = (0,) * len(list(spans(item.source.leaf.nbytes)))
            item.slot = item.slot_at(total - item.source.leaf.nbytes)
        slots = [item.slot for item in self._items if item.slot is not None]
        longest = len(header(slots, metadata_of(self._manifest().encode())))
        for item in self._items:
            item.slot = None
        return longest

    def _append(self, writer: RawPackWriter) -> None:
        """Take the checksums of all tensors, and write those that are long, aligned and new."""
        seen: set[bytes] = set()
        lock = threading.Lock()
        questions = self._store.index.questions() if self._shares else nullcontext(lambda _: False)

        def one(item: Item) -> None:
            item.take_checks()
            leaf = item.source.leaf
            if leaf.nbytes < _LONG_BYTES or leaf.nbytes % ALIGNMENT:
                return
            with lock:
                if self._shares and (item.quick in seen or is_known(item.quick)):
                    return
                seen.add(item.quick)
            with storage_errors("save a checkpoint", self._target):
                item.slot = item.slot_at(writer.reserve(leaf.nbytes))
                _copy(item, writer)

        with questions as is_known:
            in_parallel(one, self._items, lambda item: item.source.leaf.nbytes)

    def _take_digests(self, items: Sequence[Item]) -> None:
        """Take the digests alone, unless these are all tensors: then nothing is left for later."""
        if len(items) == sum(item.source.leaf.nbytes > 0 for item in self._items):
            self._measure(items, None)
            return
        works = [Work(item.source, item.checks) for item in items]
        for item, digest in zip(items, digest_all(works), strict=True):
            item.digest = digest


def _copy(item: Item, writer: RawPackWriter) -> None:
    """Write a tensor to its place."""
    write = write_at(writer, item)
    assert write is not None
    copy(item.source, write)
