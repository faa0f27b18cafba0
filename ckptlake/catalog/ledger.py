"""What the tables say of checkpoints, for the parts that look after their bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ckptlake.checkpoints.compaction import Lineage
from ckptlake.checkpoints.marks import Holding, Marks, closed_over_bases
from ckptlake.checkpoints.records import CheckpointRecord
from ckptlake.checkpoints.rows import Row
from ckptlake.query import checkpoint_facts as facts


class TableLedger:
    """Asks the lake's views anew each time."""

    def __init__(self, ask: facts.Ask) -> None:
        self._ask = ask

    def marks(self, pack: str | None = None) -> Marks:
        """Return all marks, or those that concern one pack."""
        return facts.marks(self._ask, pack=pack)

    def tensors(self, owner: Holding) -> Sequence[Row]:
        """Return the newest row of `tensors` of each tensor of a checkpoint."""
        found = facts.tensors(self._ask, owner.checkpoint_id, owner.run_id, owner.experiment)
        return [dict(row) for row in found]

    def records(self, run_ids: Sequence[str]) -> list[CheckpointRecord]:
        """Return the checkpoints of several runs, oldest first."""
        return [CheckpointRecord.of(row) for row in facts.checkpoints_of_runs(self._ask, run_ids)]

    def lineages(self, run_ids: Sequence[str], base: str | None = None) -> list[Lineage]:
        """Return the runs with their checkpoints, each with where it began: at `base`, or where it was forked."""
        records: dict[str, list[CheckpointRecord]] = {run_id: [] for run_id in run_ids}
        for record in self.records(run_ids):
            records[record.run_id].append(record)
        return [Lineage(run_id, tuple(found), self._ancestor(run_id, base)) for run_id, found in records.items()]

    def _ancestor(self, run_id: str, base: str | None) -> Callable[[], str | None]:
        return lambda: base if base is not None else facts.fork_ancestor(self._ask, run_id)

    def sharers(self, records: Sequence[CheckpointRecord]) -> list[CheckpointRecord]:
        """Return the checkpoints beside `records` that need a pack that one of those needs."""
        marks = self.marks()
        within = {record.id for record in records}
        packs = {one.checkpoint_id: closed_over_bases(one.packs or (), marks.bases_of) for one in marks.live()}
        stored = {pack for checkpoint_id in within for pack in packs.get(checkpoint_id, ())}
        ids = {name for name, needed in packs.items() if name not in within and not stored.isdisjoint(needed)}
        run_ids = sorted({marks.holdings[name].run_id for name in ids})
        return [record for record in self.records(run_ids) if record.id in ids]
