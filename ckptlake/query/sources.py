"""The rows behind the views: small tables held in memory, points left in their files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.tables.reading import read_file
from ckptlake.tables.schemas import METRICS, SUMMARIES, TABLES, TableSpec
from ckptlake.tables.snapshot import OneOf, Predicates, Snapshot
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.store import TableStore
from ckptlake.tables.summaries import merge_summaries, summarise


class LiveRows(Protocol):
    """Rows that are acknowledged and not committed yet."""

    @property
    def writers(self) -> frozenset[str]: ...

    @property
    def position(self) -> tuple[tuple[str, int], ...]: ...

    def rows(self, table: str, committed: Mapping[str, int]) -> pa.Table | None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What one question reads.

    Attributes:
        rows: small tables by name, live rows included; `summaries` has one exact row a curve.
        files: the files of points a question needs, and how many there are in all.
        live_points: points not committed yet.
        repeated_curves: run_id and metric of curves in which a step may occur twice.
    """

    rows: Mapping[str, pa.Table]
    files: Sequence[str] = ()
    num_files: int = 0
    live_points: pa.Table | None = None
    repeated_curves: pa.Table | None = None


logger = logging.getLogger(__name__)

RunPoints = Callable[[Sources], pa.Table]
"""Returns all points of sources with the newest of each repeated step."""


class SourceReader:
    """Brings together snapshots and live rows, decoding each immutable file once."""

    def __init__(
        self, stores: Mapping[str, TableStore], read_live: Callable[[], LiveRows], run_points: RunPoints
    ) -> None:
        self._stores = stores
        self._read_live = read_live
        self._run_points = run_points
        self._small = {name: _FileCache(spec) for name, spec in TABLES.items() if spec not in (METRICS, SUMMARIES)}
        self._summaries = _SummaryCache()
        self._exact: tuple[object, pa.Table] | None = None
        self._repeated: tuple[pa.Table, pa.Table] | None = None

    def read(
        self,
        tables: frozenset[str],
        alternatives: Sequence[Predicates] = ({},),
        as_of: int | datetime | None = None,
    ) -> Sources:
        """Return what is needed of `tables`, all as of one moment.

        The live rows are read before the snapshots, so a segment committed meanwhile is in the latter.

        Args:
            tables: the names of the tables.
            alternatives: conditions on points of which each point needed fulfils one.
            as_of: a version of `metrics`, or a moment; without it, now and with live rows.

        Raises:
            VersionNotFoundError: a table cannot be read as of then.
        """
        live = self._read_live() if as_of is None else None
        moments = self._moments(tables, as_of)
        writers = live.writers if live is not None else ()
        snapshots = {name: self._stores[name].snapshot(moments[name], writers) for name in sorted(tables)}
        rows = {
            name: _with_live(self._small[name].rows(snapshot), name, snapshot, live)
            for name, snapshot in snapshots.items()
            if name in self._small
        }
        points = snapshots.get(METRICS.name)
        live_points = live.rows(METRICS.name, points.transactions) if live is not None and points is not None else None
        repeated = None
        if SUMMARIES.name in snapshots:
            merged = self._merged(snapshots[SUMMARIES.name], live)
            repeated = self._repeated_in(merged)
            if repeated.num_rows and points is not None:
                position = live.position if live is not None else None
                key = (points.version, snapshots[SUMMARIES.name].version, as_of, position)
                merged = self._with_exact(key, merged, repeated, points, live_points)
            rows[SUMMARIES.name] = merged
            experiments = self._summaries.experiments(snapshots[SUMMARIES.name])
            alternatives = [_with_experiment(predicates, experiments) for predicates in alternatives]
        files = points.prune(alternatives) if points is not None else []
        num_files = points.num_files if points is not None else 0
        logger.debug("the question needs %d of %d files of points", len(files), num_files)
        return Sources(rows, files, num_files, live_points, repeated)

    def _moments(self, tables: Iterable[str], as_of: int | datetime | None) -> dict[str, int | datetime | None]:
        if not isinstance(as_of, int):
            return dict.fromkeys(tables, as_of)
        log = self._stores[METRICS.name].log
        log.at_version(as_of)
        times = {entry["version"]: entry["timestamp"] for entry in log.history()}
        committed = times.get(as_of, min(times.values()))
        moment = datetime.fromtimestamp(committed / 1000, UTC)
        return {name: as_of if name == METRICS.name else moment for name in tables}

    def _merged(self, snapshot: Snapshot, live: LiveRows | None) -> pa.Table:
        merged = self._summaries.rows(snapshot)
        fresh = live.rows(SUMMARIES.name, snapshot.transactions) if live is not None else None
        if fresh is None:
            return merged
        touched = pc.is_in(merged.column("run_id"), value_set=pc.unique(fresh.column("run_id")))
        again = merge_summaries(pa.concat_tables([merged.filter(touched), fresh]))
        return pa.concat_tables([merged.filter(pc.invert(touched)), again])

    def _repeated_in(self, merged: pa.Table) -> pa.Table:
        """Return run_id and metric of the curves in which a step may occur twice."""
        known = self._repeated
        if known is None or known[0] is not merged:
            repeated = merged.filter(pc.invert(merged.column("steps_unique"))).select(["run_id", "metric"])
            known = self._repeated = (merged, repeated)
        return known[1]

    def _with_exact(
        self, key: object, merged: pa.Table, repeated: pa.Table, points: Snapshot, live_points: pa.Table | None
    ) -> pa.Table:
        """Replace the rows of repeated curves by what their own points say."""
        known = self._exact
        if known is None or known[0] != key:
            runs = frozenset(repeated.column("run_id").to_pylist())
            files = points.prune([{"run_id": OneOf(runs)}])
            newest = self._run_points(Sources({}, files, points.num_files, live_points, repeated))
            known = self._exact = (key, summarise(sort_points(newest)))
        return pa.concat_tables([merged.filter(merged.column("steps_unique")), known[1]])

    def uncommitted_runs(self) -> frozenset[str]:
        """Return the runs of which some process still has rows that are not in the tables."""
        live = self._read_live()
        found: set[str] = set()
        for name, spec in TABLES.items():
            if "run_id" in spec.schema.names:
                snapshot = self._stores[name].snapshot(writers=live.writers)
                rows = live.rows(name, snapshot.transactions)
                found |= set(pc.unique(rows.column("run_id")).to_pylist()) if rows is not None else set()
        return frozenset(found)


def _with_experiment(predicates: Predicates, experiments: Mapping[str, str]) -> Predicates:
    """Return conditions on runs together with the experiments they belong to, which partition the points."""
    runs = predicates.get("run_id")
    if not isinstance(runs, OneOf) or "experiment" in predicates or not runs.values <= experiments.keys():
        return predicates
    return {**predicates, "experiment": OneOf(frozenset(experiments[str(run)] for run in runs.values))}


def _with_live(rows: pa.Table, name: str, snapshot: Snapshot, live: LiveRows | None) -> pa.Table:
    fresh = live.rows(name, snapshot.transactions) if live is not None else None
    return rows if fresh is None else pa.concat_tables([rows, fresh])


class _FileCache:
    """The rows of a small table; files never change, so each is decoded once while it is live."""

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._files: dict[str, pa.Table] = {}

    def rows(self, snapshot: Snapshot) -> pa.Table:
        known = self._files
        found = {path: known[path] if path in known else read_file(Path(path), self._spec) for path in snapshot.paths()}
        self._files = found
        return pa.concat_tables([self._spec.schema.empty_table(), *found.values()])


class _SummaryCache:
    """The summaries of a table merged to one row a curve, kept current by merging in what is new."""

    def __init__(self) -> None:
        self._known: tuple[frozenset[str], pa.Table] = (frozenset(), SUMMARIES.schema.empty_table())
        self._experiments: tuple[int, dict[str, str]] = (-2, {})

    def rows(self, snapshot: Snapshot) -> pa.Table:
        paths, (known, merged) = frozenset(snapshot.paths()), self._known
        if not known <= paths:
            known, merged = frozenset(), SUMMARIES.schema.empty_table()
        fresh = [read_file(Path(path), SUMMARIES) for path in sorted(paths - known)]
        if fresh:
            merged = merge_summaries(pa.concat_tables([merged, *fresh]))
        self._known = (paths, merged)
        return merged

    def experiments(self, snapshot: Snapshot) -> dict[str, str]:
        """Return the experiment of each run that has points in the snapshot."""
        version, known = self._experiments
        if version != snapshot.version:
            runs = self.rows(snapshot).group_by(["run_id", "experiment"]).aggregate([])
            known = dict(zip(runs.column("run_id").to_pylist(), runs.column("experiment").to_pylist(), strict=True))
            self._experiments = (snapshot.version, known)
        return known
