"""The packs of runs made smaller, from the oldest to the newest, each as differences to the checkpoint before."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.manifest import StoredTensor
from ckptlake.checkpoints.marks import (
    Holding,
    Ledger,
    Marks,
    Referrers,
    closed_over_bases,
    microseconds,
    owner_of,
    pack_of,
)
from ckptlake.checkpoints.needs import needs_of
from ckptlake.checkpoints.recoding import Order, Recoded, is_settled, recode
from ckptlake.checkpoints.records import CheckpointRecord
from ckptlake.checkpoints.sealing import Rows
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, PACKED, RAW_SUFFIX, CheckpointStore
from ckptlake.checkpoints.sweeping import Sweep, sweep_within
from ckptlake.errors import CheckpointNotFoundError, CkptlakeError, DamagedCheckpointError

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Told how many bytes of packs have been gone through, and of how many."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The checkpoints of one run that are there, oldest first.

    Attributes:
        find_ancestor: returns the id of the checkpoint that the run began from, or None; asked where it is needed.
    """

    run_id: str
    checkpoints: tuple[CheckpointRecord, ...]
    find_ancestor: Callable[[], str | None]

    def before(self, holding: Holding) -> str | None:
        """Return the id of the sound checkpoint that comes before another one, or None."""
        place = bisect_left(self.checkpoints, _place(holding), key=lambda one: (microseconds(one.saved_at), one.id))
        sound = (one.id for one in reversed(self.checkpoints[:place]) if _is_sound(one))
        return next(sound, None) or self.find_ancestor()


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction has done.

    Attributes:
        packs: those that were compressed, or compressed anew.
        swept: packs that only the deltas of these had needed.
    """

    packs: tuple[Recoded, ...]
    swept: Sweep

    @property
    def before_bytes(self) -> int:
        """Bytes of the files that are gone."""
        return sum(pack.before_bytes for pack in self.packs) + self.swept.size_bytes

    @property
    def after_bytes(self) -> int:
        """Bytes of the files in their place."""
        return sum(pack.after_bytes for pack in self.packs)

    @property
    def freed_bytes(self) -> int:
        """What is free on the disk now and was not before."""
        return self.before_bytes - self.after_bytes

    def sentence(self) -> str:
        """Return it in words.

        >>> Compaction((Recoded("blobs/a", 4000, 3000, 2, 1),), Sweep((), deleted=True)).sentence()
        'compressed 1 pack from 4,000 to 3,000 bytes, 1 of 2 tensors as differences'
        """
        if not self.packs:
            return "nothing to compress"
        deltas, tensors = sum(p.num_deltas for p in self.packs), sum(p.num_tensors for p in self.packs)
        return (
            f"compressed {len(self.packs):,} pack{'s' * (len(self.packs) != 1)} from {self.before_bytes:,} to "
            f"{self.after_bytes:,} bytes, {deltas:,} of {tensors:,} tensors as differences"
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """A pack, and what finds the checkpoint whose tensors may serve as bases."""

    pack: str
    find_before: Callable[[], str | None]


def tell_nobody(_: int, __: int) -> None:
    """Take what a compaction tells of its progress."""


def compact(
    store: CheckpointStore,
    ledger: Ledger,
    rows: Rows,
    lineages: Sequence[Lineage],
    *,
    keep_raw: int,
    progress: Progress = tell_nobody,
) -> Compaction:
    """Compress the packs of runs, but for the own packs of the newest `keep_raw` checkpoints of each.

    Compressed packs are compressed anew where something in them is not needed any more, or where a base of their
    deltas is kept for those alone. Safe beside saves, loads and other compactions.

    Raises:
        DamagedCheckpointError: a tensor is not what was written; its pack stays as it is, all others are done.
        StorageError: the disk refused; what was done stays done.
    """
    marks = ledger.marks()
    by_run: dict[str, list[Holding]] = {}
    for holding in marks.holdings.values():
        by_run.setdefault(holding.run_id, []).append(holding)
    campaign = _Campaign(store, ledger, rows, marks)
    works = [work for lineage in lineages for work in campaign.works(lineage, by_run.get(lineage.run_id, []), keep_raw)]
    return campaign.carry_out(works, progress)


def compact_packs(
    store: CheckpointStore, ledger: Ledger, rows: Rows, lineages: Iterable[Lineage], packs: frozenset[str]
) -> Compaction:
    """Compress these packs anew without what nothing needs any more; a pack that nothing needs goes.

    Raises:
        DamagedCheckpointError: a tensor is not what was written; its pack stays as it is, all others are done.
        StorageError: the disk refused; what was done stays done.
    """
    marks = ledger.marks()
    swept = _swept(store, ledger, packs)
    places = {lineage.run_id: lineage for lineage in lineages}
    works = []
    for holding in _in_order(marks.holdings[owner_of(pack)] for pack in packs if owner_of(pack) in marks.holdings):
        lineage = places.get(holding.run_id, Lineage(holding.run_id, (), lambda: None))
        works.append(_Work(pack_of(holding.checkpoint_id), partial(lineage.before, holding)))
    done = _Campaign(store, ledger, rows, marks).carry_out(works, tell_nobody)
    return replace(done, swept=Sweep((*swept.files, *done.swept.files), deleted=True))


class _Campaign:
    """The work of one call, as the tables were when it began; each pack is looked at again when its turn comes."""

    def __init__(self, store: CheckpointStore, ledger: Ledger, rows: Rows, marks: Marks) -> None:
        self._store, self._ledger, self._rows, self._marks = store, ledger, rows, marks
        self._referrers = Referrers(marks)
        self._lasting = frozenset(pack for holding in marks.live() for pack in holding.packs or ())
        self._newest: tuple[str | None, Mapping[str, StoredTensor]] = (None, {})

    def works(self, lineage: Lineage, holdings: Iterable[Holding], keep_raw: int) -> Iterator[_Work]:
        """Yield what there may be to do in a run, oldest first.

        A deleted checkpoint's pack that is only kept for deltas goes once those are stored anew.
        """
        older = lineage.checkpoints[: max(0, len(lineage.checkpoints) - keep_raw)]
        wanted = {record.id for record in older if _is_sound(record)}
        for holding in _in_order(holdings):
            pack = pack_of(holding.checkpoint_id)
            if self._store.pack_path(pack, RAW_SUFFIX).exists():
                is_wanted = holding.is_deleted or holding.checkpoint_id in wanted
            else:
                is_wanted = holding.is_deleted or holding.is_trimmed or not self._bases_last(pack)
            if is_wanted and (not holding.is_deleted or pack in self._lasting):
                yield _Work(pack, partial(lineage.before, holding))

    def carry_out(self, works: Sequence[_Work], progress: Progress) -> Compaction:
        """Do it, and let go of what only the deltas of the packs had needed."""
        sizes = [self._size(work.pack) for work in works]
        found: list[Recoded] = []
        refused: list[CkptlakeError] = []
        for number, work in enumerate(works):
            progress(sum(sizes[:number]), sum(sizes))
            try:
                recoded = self._recode(work)
            except (DamagedCheckpointError, CheckpointNotFoundError) as error:
                logger.warning("%s stays as it is: %s", work.pack, error)
                refused.append(error)
            else:
                found += [] if recoded is None else [recoded]
        progress(sum(sizes), sum(sizes))
        bases = closed_over_bases((work.pack for work in works), self._marks.bases_of)
        swept = _swept(self._store, self._ledger, frozenset(bases - self._lasting))
        if refused:
            more = f" (nor are {len(refused) - 1:,} others)" if len(refused) > 1 else ""
            raise DamagedCheckpointError(f"a pack is not compressed{more}: {refused[0]}") from refused[0]
        return Compaction(tuple(found), swept)

    def _recode(self, work: _Work) -> Recoded | None:
        if self._is_settled(work.pack):
            return None
        order = Order(work.pack, self._tensors_of(work.find_before()), self._lasting)
        return recode(self._store, self._ledger, self._rows, order)

    def _is_settled(self, pack: str) -> bool:
        path = self._store.pack_path(pack, ARCHIVE_SUFFIX)
        if self._store.pack_path(pack, RAW_SUFFIX).exists() or not path.exists():
            return False
        with Archive(path) as archive:
            entries = archive.entries
        needs = needs_of(self._store, self._referrers.of(pack), pack)
        return is_settled(entries, needs, self._marks.bases_of(pack), self._lasting)

    def _bases_last(self, pack: str) -> bool:
        return self._lasting.issuperset(self._marks.bases_of(pack))

    def _tensors_of(self, checkpoint_id: str | None) -> Mapping[str, StoredTensor]:
        if checkpoint_id is None:
            return {}
        if self._newest[0] != checkpoint_id:
            try:
                tensors = self._store.read_manifest(checkpoint_id).tensors
            except (DamagedCheckpointError, CheckpointNotFoundError) as error:
                logger.warning("tensors are stored without bases: %s", error)
                return {}
            self._newest = (checkpoint_id, {tensor.path: tensor for tensor in tensors})
        return self._newest[1]

    def _size(self, pack: str) -> int:
        path = self._store.find_pack(pack)
        return 0 if path is None else path.stat().st_size


def _swept(store: CheckpointStore, ledger: Ledger, packs: frozenset[str]) -> Sweep:
    """Delete those of `packs` that nothing needs."""
    if not packs:
        return Sweep((), deleted=True)
    with storage_errors("delete what no checkpoint needs", store.layout.blobs), store.gate.alone():
        return sweep_within(store, ledger.marks(), frozenset(map(owner_of, packs)))


def _in_order(holdings: Iterable[Holding]) -> list[Holding]:
    return sorted(holdings, key=_place)


def _place(holding: Holding) -> tuple[int, str]:
    return holding.saved_us, holding.checkpoint_id


def _is_sound(record: CheckpointRecord) -> bool:
    """Tell whether all digests of a packed checkpoint are known and nothing is known against it."""
    return record.format == PACKED and record.digest is not None and record.status == "good"
