"""The rows of tensors as a scan, with what the events of checkpoints tell of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.query.held import RunExperiments, with_experiment
from ckptlake.query.moments import Moment
from ckptlake.query.scans import Scan
from ckptlake.tables.schemas import CHECKPOINTS, TENSORS
from ckptlake.tables.snapshot import OneOf, Predicates

ReadEvents = Callable[[], tuple[Hashable, pa.Table]]
"""Returns the rows of `checkpoints` as they are now, and what tells them from those of another moment."""


class Tensors:
    """Knows which runs checkpoints belong to, and where a tensor may have several rows."""

    def __init__(self, read_events: ReadEvents) -> None:
        self._read_events = read_events
        self._experiments = RunExperiments()
        self._repeated: tuple[Hashable, pa.Table] | None = None

    def scan(self, moment: Moment, events: pa.Table, wanted: Sequence[Predicates]) -> Scan:
        """Return the files and live rows that hold the tensors wanted.

        Args:
            moment: the tables.
            events: the rows of `checkpoints` at that moment.
            wanted: conditions of which each row fulfils one.
        """
        snapshot = moment.snapshots[TENSORS.name]
        experiments = self._experiments.of(moment.position(CHECKPOINTS.name), lambda: events)
        wanted = [with_experiment(_with_run(predicates, events), experiments) for predicates in wanted]
        repeated = self._find_repeated(moment, events)
        return Scan(snapshot.prune(wanted), snapshot.num_files, moment.fresh(TENSORS.name), repeated)

    def _find_repeated(self, moment: Moment, events: pa.Table) -> pa.Table:
        """Return the checkpoints that the events now or then say have been recorded again.

        A commit writes tensors before the event that tells of them, so the events of the moment may miss those of
        its newest rows. Those read now, behind its snapshots, do not: the segment that brought the rows is there
        until its events are committed.
        """
        then, (now, newest) = moment.position(CHECKPOINTS.name), self._read_events()
        known = self._repeated
        if known is None or known[0] != (then, now):
            parts = [recorded_again(rows) for rows in ((newest,) if then == now else (newest, events))]
            repeated = pa.concat_tables(parts).group_by("checkpoint_id").aggregate([])
            known = self._repeated = ((then, now), repeated)
        return known[1]


def recorded_again(events: pa.Table) -> pa.Table:
    """Return the checkpoint_id of the checkpoints of which a tensor may have several rows.

    Their tensors are recorded when a checkpoint is saved with its digest or sealed, and again when it is compacted
    or trimmed, or adopted by a lake that knows it already.
    """
    kind = events.column("event")
    again = events.filter(pc.is_in(kind, value_set=pa.array(["compacted", "trimmed"])))
    recorded = pc.or_(pc.equal(kind, "sealed"), pc.and_(pc.equal(kind, "saved"), pc.is_valid(events.column("digest"))))
    times = events.filter(recorded).group_by("checkpoint_id").aggregate([([], "count_all")])
    several = times.filter(pc.greater(times.column("count_all"), 1))
    both = pa.concat_tables([again.select(["checkpoint_id"]), several.select(["checkpoint_id"])])
    return both.group_by("checkpoint_id").aggregate([])


def _with_run(predicates: Predicates, events: pa.Table) -> Predicates:
    """Return conditions on checkpoints together with the runs they belong to, by which the rows are sorted."""
    wanted = predicates.get("checkpoint_id")
    if not isinstance(wanted, OneOf) or "run_id" in predicates:
        return predicates
    ids = pa.array(sorted(map(str, wanted.values)), pa.string())
    known = events.filter(pc.is_in(events.column("checkpoint_id"), value_set=ids))
    if pc.count_distinct(known.column("checkpoint_id")).as_py() < len(ids):
        return predicates
    return {**predicates, "run_id": OneOf(frozenset(pc.unique(known.column("run_id")).to_pylist()))}
