"""A plan of retention carried out, after a second look at everything that it would take away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ckptlake.catalog.ledger import TableLedger
from ckptlake.checkpoints.budgets import Directions, RetentionPlan
from ckptlake.checkpoints.candidates import protected
from ckptlake.checkpoints.compaction import compact_packs
from ckptlake.checkpoints.deleting import delete
from ckptlake.checkpoints.records import CheckpointRecord
from ckptlake.checkpoints.sealing import Rows
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.trimming import trim
from ckptlake.integrity.verification import verify


@dataclass(frozen=True, slots=True)
class Applied:
    """What has become of a plan.

    Attributes:
        deleted: ids of the checkpoints that are gone.
        trimmed: ids of those that have lost their optimizer state.
        spared: those that the plan would have changed and that stay as they are, each with the reason.
        freed_bytes: what is free on the disk now and was not before.
    """

    deleted: tuple[str, ...]
    trimmed: tuple[str, ...]
    spared: Mapping[str, str]
    freed_bytes: int

    def sentence(self) -> str:
        """Return it in words.

        >>> Applied(("c1", "c2"), (), {"c3": "it is pinned"}, 4096).sentence()
        'deleted 2 and trimmed 0 checkpoints, freeing 4,096 bytes; 1 stays as it is'
        """
        words = f"deleted {len(self.deleted):,} and trimmed {len(self.trimmed):,} checkpoints"
        words += f", freeing {self.freed_bytes:,} bytes"
        if self.spared:
            words += f"; {len(self.spared):,} stay{'s' * (len(self.spared) == 1)} as {_pronoun(self.spared)}"
        return words


def _pronoun(spared: Mapping[str, str]) -> str:
    return "it is" if len(spared) == 1 else "they are"


def apply(
    store: CheckpointStore, ledger: TableLedger, rows: Rows, directions: Directions, plan: RetentionPlan
) -> Applied:
    """Delete and trim what a plan says and nothing else.

    What is protected by now stays, and so do all of a run whose newest good checkpoint is not whole.

    Raises:
        DamagedCheckpointError: a pack that optimizer state lay in is damaged; nothing in it is lost by this.
        StorageError: the disk refused; apply again, or sweep.
    """
    run_ids = sorted({decision.run_id for decision in (*plan.delete, *plan.trim)})
    records = ledger.records(run_ids)
    doomed = [decision.checkpoint_id for decision in plan.delete]
    lean = [decision.checkpoint_id for decision in plan.trim]
    spared = _spared(store, records, directions, doomed, lean)
    changed = {record.run_id for record in records if record.id in {*doomed, *lean} - spared.keys()}
    _make_durable(store, [one for one in records if one.run_id in changed], frozenset(doomed))
    marks = ledger.marks()
    deleted = [name for name in doomed if name not in spared]
    swept = delete(store, ledger, rows, [marks.holdings[name] for name in deleted])
    packs: set[str] = set()
    trimmed = []
    for name in (name for name in lean if name not in spared):
        found = trim(store, ledger, rows, name)
        packs |= found
        trimmed += [name] if found else []
    rewritten = compact_packs(store, ledger, rows, ledger.lineages(run_ids), frozenset(packs))
    return Applied(tuple(deleted), tuple(trimmed), spared, swept.size_bytes + rewritten.freed_bytes)


def _spared(
    store: CheckpointStore,
    records: Sequence[CheckpointRecord],
    directions: Directions,
    doomed: Sequence[str],
    lean: Sequence[str],
) -> dict[str, str]:
    now = datetime.now(UTC)
    there = {record.id: record for record in records}
    unsafe = _unsafe_runs(store, records, frozenset(doomed))
    spared: dict[str, str] = {}
    for names, reasons in ((doomed, protected(records, directions, now)), (lean, protected(records, {}, now))):
        for name in names:
            if name not in there:
                spared[name] = "it is not there any more"
            elif name in reasons:
                spared[name] = f"it is protected by now: {reasons[name]}"
            elif there[name].run_id in unsafe:
                spared[name] = unsafe[there[name].run_id]
    return spared


def _unsafe_runs(store: CheckpointStore, records: Iterable[CheckpointRecord], doomed: frozenset[str]) -> dict[str, str]:
    """Return the runs whose newest good checkpoint that stays is not whole on the disk, with the reason."""
    unsafe = {}
    for run_id, stays in _newest_that_stay(records, doomed).items():
        if stays is None:
            unsafe[run_id] = "no good checkpoint of its run would stay"
        elif not (found := verify(store, stays.id, "size")).is_good:
            unsafe[run_id] = f"checkpoint {stays.id}, the newest of its run that stays, is not whole: {found.finding}"
    return unsafe


def _make_durable(store: CheckpointStore, records: Iterable[CheckpointRecord], doomed: frozenset[str]) -> None:
    """Bring the newest good checkpoint of each run to the disk, where its digests are not there yet."""
    for stays in _newest_that_stay(records, doomed).values():
        if stays is not None and stays.digest is None:
            store.sync_packs(store.read_manifest(stays.id))


def _newest_that_stay(
    records: Iterable[CheckpointRecord], doomed: frozenset[str]
) -> Mapping[str, CheckpointRecord | None]:
    """Return the newest good checkpoint of each run that stays, or None where none does."""
    newest: dict[str, CheckpointRecord | None] = {}
    for record in records:
        newest.setdefault(record.run_id, None)
        if record.id not in doomed and record.status == "good" and record.verdict in (None, "good"):
            newest[record.run_id] = record
    return newest
