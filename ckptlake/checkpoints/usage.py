"""What checkpoints cost on the disk, by the sizes of the files that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ckptlake.checkpoints.marks import Holding, Ledger, closed_over_bases, owner_of
from ckptlake.checkpoints.records import CheckpointRecord
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.sweeping import StoredFile, find_orphans, scan, size_of
from ckptlake.errors import InvalidInputError

By = Literal["run", "experiment", "lake"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the checkpoints of a run, of an experiment or of the lake cost.

    Attributes:
        name: the run's id, the experiment's name or ``lake``; None for files of which no row tells whose they are.
        checkpoints: how many are there.
        logical_bytes: bytes of all their tensors, as a loaded state has them.
        stored_bytes: bytes of the files that they wrote and that are needed, by whomever. A file counts once, for
            the checkpoint that wrote it.
        lent_bytes: of those the bytes of packs that others of the same kind need too.
        orphan_bytes: bytes of files that nothing needs; a sweep deletes them.
    """

    name: str | None
    checkpoints: int
    logical_bytes: int
    stored_bytes: int
    lent_bytes: int
    orphan_bytes: int


def usage(store: CheckpointStore, ledger: Ledger, records: Iterable[CheckpointRecord], by: By) -> list[Usage]:
    """Return what each run, each experiment or the lake costs, the most expensive first.

    The sum over all is the size of all files of checkpoints; the index and the lock files are not among them.

    Raises:
        InvalidInputError: `by` is none of the three.
    """
    if by not in ("run", "experiment", "lake"):
        raise InvalidInputError(f"usage is told by 'run', 'experiment' or 'lake', not {by!r:.60}")
    files = scan(store)
    marks = ledger.marks()
    orphans = {file.path for file, _ in find_orphans(store, files, marks, grace_s=0)}

    def group(holding: Holding | None) -> str | None:
        if by == "lake":
            return "lake"
        if holding is None:
            return None
        return holding.run_id if by == "run" else holding.experiment

    def group_of(file: StoredFile) -> str | None:
        return group(marks.holdings.get(file.owner or ""))

    users: dict[str, set[str | None]] = {}
    for holding in marks.live():
        for pack in closed_over_bases(holding.packs or (), marks.bases_of):
            users.setdefault(owner_of(pack), set()).add(group(holding))
    stored: Counter[str | None] = Counter()
    lent: Counter[str | None] = Counter()
    lost: Counter[str | None] = Counter()
    for file in files:
        name = group_of(file)
        size_bytes = size_of(store, file)
        (lost if file.path in orphans else stored)[name] += size_bytes
        if file.kind in ("raw", "archive") and users.get(file.owner or "", set()) - {name}:
            lent[name] += size_bytes
    counts: Counter[str | None] = Counter()
    logical: Counter[str | None] = Counter()
    for record in records:
        name = {"run": record.run_id, "experiment": record.experiment, "lake": "lake"}[by]
        counts[name] += 1
        logical[name] += record.logical_bytes
    names = {*stored, *lost, *counts}
    found = [Usage(name, counts[name], logical[name], stored[name], lent[name], lost[name]) for name in names]
    return _largest_first(found)


def _largest_first(found: Sequence[Usage]) -> list[Usage]:
    return sorted(found, key=lambda one: (-one.stored_bytes - one.orphan_bytes, one.name or ""))
