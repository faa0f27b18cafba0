"""The history of checkpoints: which of its rows are folded once for many questions, and which anew.

A checkpoint is told by its events. Folding those of a hundred thousand checkpoints takes longer than a question
may, so a fold of all committed rows is kept, and only runs that have had rows since are folded again. That is
exact because a checkpoint and its aliases belong to one run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.tables.schemas import CHECKPOINTS, VERIFICATIONS, get_spec

FEWEST_SETTLED_ROWS = 2_000
_RECENT_SHARE = 20
_NO_RUNS = pa.table({"run_id": pa.array([], pa.string())})


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Rows of `checkpoints` and of `verifications`."""

    checkpoints: pa.Table
    verifications: pa.Table

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table]) -> Events:
        return cls(tables[CHECKPOINTS.name], tables[VERIFICATIONS.name])

    @property
    def num_rows(self) -> int:
        return int(self.checkpoints.num_rows + self.verifications.num_rows)


@dataclass(frozen=True, slots=True)
class Folding:
    """What the view of checkpoints folds.

    Attributes:
        settled: rows of which the fold can be kept, the same object from question to question; None for none.
        recent: the rows to fold anew: all of the runs that have had rows since.
        recent_runs: these runs, as `run_id`.
    """

    settled: Events | None
    recent: Events
    recent_runs: pa.Table

    @classmethod
    def of_all(cls, rows: Mapping[str, pa.Table]) -> Folding:
        """Return a folding that keeps nothing."""
        return cls(None, Events.of(rows), _NO_RUNS)


@dataclass(frozen=True, slots=True)
class HistoryRows:
    """The rows of tables at one moment, by table: those of each committed file, and those not committed."""

    files: Mapping[str, Mapping[str, pa.Table]]
    live: Mapping[str, pa.Table]

    def all(self) -> dict[str, pa.Table]:
        """Return all rows of each table."""
        live = {name: [rows] for name, rows in self.live.items()}
        return {name: _concat(name, [*found.values(), *live.get(name, [])]) for name, found in self.files.items()}

    def committed(self) -> dict[str, pa.Table]:
        """Return the committed rows of each table."""
        return {name: _concat(name, found.values()) for name, found in self.files.items()}


@dataclass(frozen=True, slots=True)
class _Settled:
    paths: frozenset[str] = frozenset()
    events: Events | None = None


class CheckpointHistory:
    """Settles the rows of a lake's checkpoints as they come to be committed."""

    def __init__(self) -> None:
        self._settled = _Settled()
        self._known: tuple[Hashable, Folding] | None = None

    def folding(self, key: Hashable, rows: HistoryRows) -> Folding:
        """Return what to fold of `rows`, which `key` tells from others."""
        known = self._known
        if known is None or known[0] != key:
            known = self._known = (key, self._fold(rows))
        return known[1]

    def _fold(self, rows: HistoryRows) -> Folding:
        committed = {path: table for found in rows.files.values() for path, table in found.items()}
        settled = self._settled if self._settled.paths <= committed.keys() else _Settled()
        fresh = [table for path, table in committed.items() if path not in settled.paths]
        folding = _since(settled, rows, [*fresh, *rows.live.values()])
        fewest = max(FEWEST_SETTLED_ROWS, settled.events.num_rows // _RECENT_SHARE if settled.events else 0)
        if fresh and folding.recent.num_rows > fewest:
            settled = _Settled(frozenset(committed), Events.of(rows.committed()))
            folding = _since(settled, rows, rows.live.values())
        self._settled = settled
        return folding


def _since(settled: _Settled, rows: HistoryRows, newer: Iterable[pa.Table]) -> Folding:
    if settled.events is None:
        return Folding.of_all(rows.all())
    runs = pa.concat_tables([_NO_RUNS, *(table.select(["run_id"]) for table in newer)]).group_by("run_id").aggregate([])
    recent = {
        name: table.filter(pc.is_in(table.column("run_id"), value_set=runs.column("run_id").combine_chunks()))
        for name, table in rows.all().items()
    }
    return Folding(settled.events, Events.of(recent), runs)


def _concat(name: str, tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([get_spec(name).schema.empty_table(), *tables])
