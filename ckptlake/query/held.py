"""Rows of small tables held in memory; files never change, so each is decoded once while it is live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import pyarrow as pa

from ckptlake.tables.reading import read_file
from ckptlake.tables.schemas import TableSpec
from ckptlake.tables.snapshot import OneOf, Predicates, Snapshot


class HeldTable:
    """The rows of a small table."""

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._files: dict[str, pa.Table] = {}
        self._all: tuple[frozenset[str], pa.Table] | None = None

    def files(self, snapshot: Snapshot) -> Mapping[str, pa.Table]:
        """Return the rows of each file of a snapshot, by path."""
        known = self._files
        found = {path: known[path] if path in known else read_file(Path(path), self._spec) for path in snapshot.paths()}
        self._files = found
        return found

    def rows(self, snapshot: Snapshot) -> pa.Table:
        """Return all rows of a snapshot."""
        files = self.files(snapshot)
        if self._all is None or self._all[0] != files.keys():
            self._all = frozenset(files), pa.concat_tables([self._spec.schema.empty_table(), *files.values()])
        return self._all[1]


class RunExperiments:
    """The experiment of each run that has rows in a table, found once."""

    def __init__(self) -> None:
        self._known: tuple[Hashable, dict[str, str]] = (None, {})

    def of(self, key: Hashable, read: Callable[[], pa.Table]) -> Mapping[str, str]:
        """Return the experiment of each run in the rows that `key` stands for; a run with several has none."""
        known_key, known = self._known
        if known_key != key:
            pairs = read().group_by(["run_id", "experiment"]).aggregate([]).drop_null()
            runs, experiments = (pairs.column(name).to_pylist() for name in ("run_id", "experiment"))
            times = Counter(runs)
            known = {run: name for run, name in zip(runs, experiments, strict=True) if times[run] == 1}
            self._known = (key, known)
        return known


def with_experiment(predicates: Predicates, experiments: Mapping[str, str]) -> Predicates:
    """Return conditions on runs together with the experiments they belong to, which partition the rows."""
    runs = predicates.get("run_id")
    if not isinstance(runs, OneOf) or "experiment" in predicates or not runs.values <= experiments.keys():
        return predicates
    return {**predicates, "experiment": OneOf(frozenset(experiments[str(run)] for run in runs.values))}
