"""The points of metrics as a scan, and one exact summary a curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake._internal.asked import WORTH_A_FILE, InARow
from ckptlake.query.held import RunExperiments, with_experiment
from ckptlake.query.moments import Moment
from ckptlake.query.row_files import Origin, RowFiles
from ckptlake.query.scans import Scan
from ckptlake.tables.reading import read_file
from ckptlake.tables.schemas import METRICS, SUMMARIES
from ckptlake.tables.snapshot import OneOf, Predicates, Snapshot
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.summaries import is_merged, merge_summaries, summarise

RunPoints = Callable[[Scan], pa.Table]
"""Returns the points of the curves with repeated steps, the newest of each step."""


class Curves:
    """Keeps the summaries of a lake merged, and exact where steps are repeated."""

    def __init__(self, run_points: RunPoints, files: RowFiles) -> None:
        self._run_points = run_points
        self._merged = _MergedSummaries(files)
        self._experiments = RunExperiments()
        self._exact: tuple[object, pa.Table] | None = None
        self._repeated: tuple[pa.Table, pa.Table] | None = None

    def read(self, snapshot: Snapshot) -> None:
        """Read the summaries of a snapshot, for questions to come."""
        self._merged.rows(snapshot)

    def points(self, moment: Moment, wanted: Sequence[Predicates], repeated: pa.Table | None) -> Scan:
        """Return the files and live rows that hold the points wanted."""
        snapshot, summaries = moment.snapshots[METRICS.name], moment.snapshots.get(SUMMARIES.name)
        if summaries is not None:
            experiments = self._experiments.of(summaries.version, lambda: self._merged.rows(summaries))
            wanted = [with_experiment(predicates, experiments) for predicates in wanted]
        return Scan(snapshot.prune(wanted), snapshot.num_files, moment.fresh(METRICS.name), repeated)

    def summaries(self, moment: Moment) -> tuple[pa.Table, pa.Table]:
        """Return one exact row a curve, and run_id and metric of the curves in which a step may occur twice."""
        merged = self._with_live(moment)
        repeated = self._repeated_in(merged)
        if repeated.num_rows:
            merged = self._with_exact(merged, repeated, moment)
        return merged, repeated

    def _with_live(self, moment: Moment) -> pa.Table:
        merged, fresh = self._merged.rows(moment.snapshots[SUMMARIES.name]), moment.fresh(SUMMARIES.name)
        if fresh is None:
            return merged
        touched = pc.is_in(merged.column("run_id"), value_set=pc.unique(fresh.column("run_id")))
        again = merge_summaries(pa.concat_tables([merged.filter(touched), fresh]))
        return pa.concat_tables([merged.filter(pc.invert(touched)), again])

    def _repeated_in(self, merged: pa.Table) -> pa.Table:
        known = self._repeated
        if known is None or known[0] is not merged:
            repeated = merged.filter(pc.invert(merged.column("steps_unique"))).select(["run_id", "metric"])
            known = self._repeated = (merged, repeated)
        return known[1]

    def _with_exact(self, merged: pa.Table, repeated: pa.Table, moment: Moment) -> pa.Table:
        """Replace the rows of repeated curves by what their own points say."""
        key, known = moment.position(METRICS.name, SUMMARIES.name), self._exact
        if known is None or known[0] != key:
            runs = frozenset(repeated.column("run_id").to_pylist())
            snapshot = moment.snapshots[METRICS.name]
            files = snapshot.prune([{"run_id": OneOf(runs)}])
            newest = self._run_points(Scan(files, snapshot.num_files, moment.fresh(METRICS.name), repeated))
            known = self._exact = (key, summarise(sort_points(newest)))
        return pa.concat_tables([merged.filter(merged.column("steps_unique")), known[1]])


class _MergedSummaries:
    """The summaries of a table merged to one row a curve, kept current by merging in what is new."""

    def __init__(self, files: RowFiles) -> None:
        self._files = files
        self._known: tuple[frozenset[str], pa.Table] = (frozenset(), SUMMARIES.schema.empty_table())
        self._asked = InARow()

    def rows(self, snapshot: Snapshot) -> pa.Table:
        paths = frozenset(snapshot.paths())
        if paths != self._known[0]:
            self._known = (paths, self._read(snapshot, paths))
        if self._asked.count(paths) == WORTH_A_FILE and self._files.read(*_kept_as(snapshot)) is None:
            self._files.write(*_kept_as(snapshot), self._known[1])
        return self._known[1]

    def _read(self, snapshot: Snapshot, paths: frozenset[str]) -> pa.Table:
        known, merged = self._known
        if not known:
            kept = self._files.read(*_kept_as(snapshot))
            if kept is not None and kept.schema == SUMMARIES.schema:
                return kept
        if not known <= paths:
            known, merged = frozenset(), SUMMARIES.schema.empty_table()
        fresh = [read_file(Path(path), SUMMARIES) for path in sorted(paths - known)]
        rows = pa.concat_tables([part for part in (merged, *fresh) if part.num_rows] or [merged])
        return rows if is_merged(rows) else merge_summaries(rows)


def _kept_as(snapshot: Snapshot) -> tuple[str, Origin]:
    return "merged_summaries", (snapshot.digest,)
