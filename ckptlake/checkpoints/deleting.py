"""Checkpoints deleted: recorded first, then their files, so that a crash leaves only what a sweep finds."""

from __future__ import annotations

from collections.abc import Sequence

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.marks import Holding, Ledger, closed_over_bases, moment_after, owner_of
from ckptlake.checkpoints.rows import event_row
from ckptlake.checkpoints.sealing import Rows
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.sweeping import Sweep, sweep_within


def delete(store: CheckpointStore, ledger: Ledger, rows: Rows, doomed: Sequence[Holding]) -> Sweep:
    """Delete checkpoints with all of their files that no other checkpoint needs.

    Raises:
        StorageError: the disk refused; those that are recorded as deleted are so, and a sweep removes the rest.
    """
    if not doomed:
        return Sweep((), deleted=True)
    rows.add_rows("checkpoints", [event_row(one, "deleted", moment_after(one.changed_us)) for one in doomed])
    rows.flush()
    with storage_errors("delete a checkpoint", store.layout.blobs), store.gate.alone():
        marks = ledger.marks()
        packs = closed_over_bases((pack for one in doomed for pack in one.packs or ()), marks.bases_of)
        return sweep_within(store, marks, frozenset({one.checkpoint_id for one in doomed} | set(map(owner_of, packs))))
