"""Which runs have changed between two moments, found without reading the rows of the others."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.query.history import HistoryRows
from ckptlake.query.moments import Moment
from ckptlake.query.search_documents import READ, SEARCHED
from ckptlake.tables.schemas import RUNS, get_spec

_FEW = 64
_FEW_ROWS = 2_000
Files = Mapping[str, "RunsOfFile"]
_EMPTY = {name: get_spec(name).schema.empty_table().select(READ[name]) for name in SEARCHED}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an index was made from.

    Attributes:
        files: the names of the committed files of each table.
        live: how far each segment of live rows had been read for each table.
        live_runs: the runs that had live rows.
    """

    files: Mapping[str, frozenset[str]]
    live: Sequence[object]
    live_runs: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Stamp:
        """Return the stamp that `text` holds; a text that holds none stands for an empty index."""
        try:
            fields = json.loads(text)
            files = {name: frozenset(fields["files"][name]) for name in SEARCHED}
            return cls(files, fields["live"], frozenset(fields["live_runs"]))
        except (ValueError, KeyError, TypeError):
            return cls({name: frozenset() for name in SEARCHED}, (), frozenset())

    def __str__(self) -> str:
        files = {name: sorted(found) for name, found in self.files.items()}
        fields = {"files": files, "live": self.live, "live_runs": sorted(self.live_runs)}
        return json.dumps(fields, separators=(",", ":"))


class RunsOfFile:
    """The rows of one file, or live ones, with a register of where each run's are."""

    def __init__(self, rows: pa.Table) -> None:
        runs = rows.column("run_id").combine_chunks()
        if pc.any(pc.less(runs[1:], runs[:-1])).as_py():
            order = pc.sort_indices(runs)
            rows, runs = rows.take(order), runs.take(order)
        encoded = pc.run_end_encode(runs)
        self.rows = rows
        self.run_ids: pa.Array = encoded.values
        self._ends = np.concatenate([[0], encoded.run_ends.to_numpy()]).astype(np.int64)

    def of(self, run_ids: Collection[str]) -> pa.Table:
        """Return the rows of some runs."""
        if len(run_ids) <= _FEW:
            ends = self._ends
            found = [at for run_id in run_ids if (at := self._find(run_id)) is not None]
            slices = [self.rows.slice(ends[at], ends[at + 1] - ends[at]) for at in found]
            return pa.concat_tables(slices) if slices else self.rows.slice(0, 0)
        among = pc.is_in(self.run_ids, value_set=pa.array(run_ids, pa.string()))
        wanted = np.repeat(among.to_numpy(zero_copy_only=False), np.diff(self._ends))
        return self.rows.filter(pa.array(wanted))

    def _find(self, run_id: str) -> int | None:
        known = self.run_ids
        if not len(known) or not known[0].as_py() <= run_id <= known[-1].as_py():
            return None
        at = bisect_left(known, run_id, key=lambda scalar: scalar.as_py())
        return at if known[at].as_py() == run_id else None


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of all runs at one moment, by table: each committed file by its name, and those not committed."""

    files: Mapping[str, Files] = field(default_factory=dict)
    live: Files = field(default_factory=dict)
    live_position: Sequence[object] = ()

    def next(self, rows: HistoryRows, moment: Moment) -> RunRows:
        """Return the rows of a later moment; what is known of files that are still there is kept."""
        files: dict[str, Files] = {}
        for name, found in rows.files.items():
            known = self.files.get(name, {})
            named = ((path.rpartition("/")[2], table) for path, table in found.items())
            files[name] = {
                file: known[file] if file in known else RunsOfFile(table.select(READ[name])) for file, table in named
            }
        live = {name: RunsOfFile(table.select(READ[name])) for name, table in rows.live.items()}
        return RunRows(files, live, [moment.live and moment.live.position(name) for name in SEARCHED])

    def stamp(self) -> Stamp:
        """Return what an index of these rows was made from."""
        live_runs = frozenset(run_id for runs in self.live.values() for run_id in runs.run_ids.to_pylist())
        return Stamp({name: frozenset(found) for name, found in self.files.items()}, self.live_position, live_runs)

    def touched_since(self, stamp: Stamp, before: RunRows) -> set[str] | None:
        """Return the runs that may have other rows than at a stamp, or None where that may be any of them.

        Runs of files that are gone are known only if the files were there `before`.
        """
        touched = set(stamp.live_runs)
        for name, files in self.files.items():
            then, known = stamp.files[name], before.files.get(name, {})
            gone = then - files.keys()
            if not gone <= known.keys():
                return None
            changed = [known[file] for file in gone] + [files[file] for file in files.keys() - then]
            touched.update(run_id for runs in changed for run_id in runs.run_ids.to_pylist())
        return touched.union(*(runs.run_ids.to_pylist() for runs in self.live.values()))

    def of(self, run_ids: Collection[str] | None) -> dict[str, pa.Table]:
        """Return all rows of some runs, or of all, by table."""
        return {name: self._of(name, run_ids) for name in SEARCHED}

    def _of(self, name: str, run_ids: Collection[str] | None) -> pa.Table:
        parts = [*self.files[name].values(), *([self.live[name]] if name in self.live else [])]
        found = [part.rows if run_ids is None else part.of(run_ids) for part in parts]
        return pa.concat_tables([_EMPTY[name], *found])


def marks(rows: Mapping[str, pa.Table]) -> dict[str, str]:
    """Return for each run in rows of the `SEARCHED` tables a text that changes when rows of it come or go."""
    parts: dict[str, list[str]] = {}
    for name in SEARCHED:
        counted = _counted if rows[name].num_rows > _FEW_ROWS else _counted_one_by_one
        for run_id, count, at in counted(rows[name]):
            if name == RUNS.name or run_id in parts:
                parts.setdefault(run_id, []).append(f"{name[0]}{count}@{at}")
    return {run_id: " ".join(found) for run_id, found in parts.items()}


def _counted(rows: pa.Table) -> Iterable[tuple[str, int, int]]:
    """Return each run with how many rows it has and its last time in microseconds."""
    # On few rows the threads of Arrow cost more than they spare.
    grouped = rows.group_by("run_id", use_threads=rows.num_rows > _FEW_ROWS)
    found = grouped.aggregate([("run_id", "count"), ("ts", "max")])
    times = found.column("ts_max").cast(pa.int64()).fill_null(0)
    return zip(
        found.column("run_id").to_pylist(), found.column("run_id_count").to_pylist(), times.to_pylist(), strict=True
    )


def _counted_one_by_one(rows: pa.Table) -> Iterable[tuple[str, int, int]]:
    """Return the same; on few rows the threads of Arrow cost more than they spare."""
    counts: Counter[str] = Counter()
    last: dict[str, int] = {}
    times = rows.column("ts").cast(pa.int64()).fill_null(0)
    for run_id, at in zip(rows.column("run_id").to_pylist(), times.to_pylist(), strict=True):
        counts[run_id] += 1
        last[run_id] = max(at, last.get(run_id, at))
    return ((run_id, count, last[run_id]) for run_id, count in counts.items())
