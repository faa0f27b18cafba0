"""The rows behind the views: small tables held in memory, large ones left in their files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.errors import DamagedTableError
from ckptlake.query.curves import Curves, RunPoints
from ckptlake.query.held import HeldTable
from ckptlake.query.history import CheckpointHistory, Folding, HistoryRows
from ckptlake.query.moments import LiveRows, Moment
from ckptlake.query.row_files import RowFiles
from ckptlake.query.scans import SCANNED, Scan
from ckptlake.query.tensors import Tensors
from ckptlake.tables.schemas import CHECKPOINTS, METRICS, RUNS, SUMMARIES, TABLES, TENSORS, VERIFICATIONS
from ckptlake.tables.snapshot import Predicates, Snapshot
from ckptlake.tables.store import TableStore

logger = logging.getLogger(__name__)
_FEW_BYTES = 2**22
_HISTORY = (CHECKPOINTS.name, VERIFICATIONS.name)
Alternatives = Mapping[str, Sequence[Predicates]]
"""For scanned tables, conditions on rows of which each row needed fulfils one."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What one question reads.

    Attributes:
        rows: small tables by name, live rows included; `summaries` has one exact row a curve.
        scans: what is read of the tables that stay in their files.
        folding: what the view of checkpoints folds, where both its tables are read.
        moment: when they are read, if that can be told.
    """

    rows: Mapping[str, pa.Table]
    scans: Mapping[str, Scan]
    folding: Folding | None = None
    moment: Moment | None = None

    def position(self, tables: Sequence[str]) -> Hashable:
        """Return what tells the rows of tables from those of other moments, or None where that is not known."""
        return None if self.moment is None else self.moment.position(*tables)

    def has(self, tables: Iterable[str]) -> bool:
        """Tell whether the rows of all these tables are here."""
        return all(name in self.rows or name in self.scans for name in tables)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is committed at one moment.

    Attributes:
        snapshots: every table.
        events: `checkpoints` a little later. A commit writes tensors before the event that tells of them, so this
            one tells of all.
    """

    snapshots: Mapping[str, Snapshot]
    events: Snapshot


class SourceReader:
    """Brings together snapshots and live rows, decoding each immutable file once.

    Args:
        stores: the tables.
        read_live: reads what is not committed yet.
        run_points: returns the newest points of curves with repeated steps.
        meanwhile: what takes as long as the logs to read, and may be done beside that.
        files: where rows that take long to make are kept for lakes opened later.
    """

    def __init__(
        self,
        stores: Mapping[str, TableStore],
        read_live: Callable[[], LiveRows],
        run_points: RunPoints,
        meanwhile: Callable[[], object],
        files: RowFiles,
    ) -> None:
        self._stores = stores
        self._meanwhile = meanwhile
        self._read_live = read_live
        held = [spec for spec in TABLES.values() if spec.name not in SCANNED and spec is not SUMMARIES]
        self._held = {spec.name: HeldTable(spec) for spec in held}
        self._looked_at: set[str] = set()
        self._curves = Curves(run_points, files)
        self._tensors = Tensors(self._newest_events)
        self._history = CheckpointHistory()

    def read(
        self, tables: frozenset[str], alternatives: Alternatives | None = None, as_of: int | datetime | None = None
    ) -> Sources:
        """Return what is needed of `tables`, all as of one moment.

        Args:
            tables: the names of the tables.
            alternatives: what is needed of scanned tables; everything of those that it leaves out.
            as_of: a version of `metrics`, or a moment; without it, now and with live rows.

        Raises:
            VersionNotFoundError: a table cannot be read as of then.
        """
        return self.read_at(self.moment(tables, as_of), alternatives)

    def read_at(self, moment: Moment, alternatives: Alternatives | None = None) -> Sources:
        """Return what is needed of the tables of a moment."""
        tables = moment.snapshots.keys()
        wanted = {name: (alternatives or {}).get(name, ({},)) for name in SCANNED}
        rows = {name: self._rows(name, moment) for name in tables if name in self._held}
        scans: dict[str, Scan] = {}
        if METRICS.name in tables:
            repeated = None
            if SUMMARIES.name in tables:
                rows[SUMMARIES.name], repeated = self._curves.summaries(moment)
            scans[METRICS.name] = self._curves.points(moment, wanted[METRICS.name], repeated)
        if TENSORS.name in tables:
            scans[TENSORS.name] = self._tensors.scan(moment, rows[CHECKPOINTS.name], wanted[TENSORS.name])
        for name, scan in scans.items():
            logger.debug("the question needs %d of %d files of %s", len(scan.files), scan.num_files, name)
        folding = self._folding(moment, rows) if tables >= set(_HISTORY) else None
        return Sources(rows, scans, folding, moment)

    def picture(self) -> Picture:
        """Return the snapshots of all tables as they are now."""
        return Picture(self.moment(TABLES).snapshots, self._stores[CHECKPOINTS.name].snapshot())

    def moment(self, tables: Iterable[str], as_of: int | datetime | None = None) -> Moment:
        """Return tables as they stand together now, or stood `as_of` a version of `metrics` or a moment.

        Live rows are read first, so that a segment committed meanwhile is in the snapshots. These are taken in the
        reverse of the order in which commits write: where a checkpoint is seen, its tensors are, and where a point is,
        its summary is.

        Raises:
            VersionNotFoundError: a table cannot be read as of then.
        """
        live = self._read_live() if as_of is None else None
        moments = self._moments(tables, as_of)
        writers = live.writers if live is not None else ()
        ordered = [name for name in reversed(TABLES) if name in moments]
        self._open(ordered, writers)
        return Moment({name: self._stores[name].snapshot(moments[name], writers) for name in ordered}, live)

    def _open(self, names: Sequence[str], writers: Collection[str]) -> None:
        """Read tables that have not been read yet, side by side; each takes as long as a small question.

        Where there are several, that of runs is among them: whoever asks for the names that runs have logged will ask
        about runs next.
        """
        if len(self._unread(names, writers)) > 1:
            unread = self._unread(dict.fromkeys([*names, RUNS.name]), writers)
            with ThreadPoolExecutor(len(unread) + 1, thread_name_prefix="ckptlake-open") as threads:
                meanwhile = threads.submit(self._meanwhile)
                list(threads.map(lambda name: self._read_one(name, writers), unread))
                meanwhile.result()
            self._looked_at |= set(unread)

    def _unread(self, names: Iterable[str], writers: Collection[str]) -> list[str]:
        logs = {name: self._stores[name].log for name in names}
        news = [name for name, log in logs.items() if name not in self._looked_at or (writers and not log.is_open)]
        return [name for name in news if logs[name].exists()]

    def _read_one(self, name: str, writers: Collection[str]) -> None:
        """Read the log of a table, and its rows where they are few; who needs damaged ones will hear of it then."""
        snapshot = self._stores[name].snapshot(writers=writers)
        if name not in SCANNED and snapshot.size_bytes <= _FEW_BYTES:
            with suppress(DamagedTableError):
                if name in self._held:
                    self._held[name].files(snapshot)
                else:
                    self._curves.read(snapshot)

    def _moments(self, tables: Iterable[str], as_of: int | datetime | None) -> dict[str, int | datetime | None]:
        if not isinstance(as_of, int):
            return dict.fromkeys(tables, as_of)
        log = self._stores[METRICS.name].log
        log.at_version(as_of)
        times = {entry["version"]: entry["timestamp"] for entry in log.history()}
        committed = times.get(as_of, min(times.values()))
        moment = datetime.fromtimestamp(committed / 1000, UTC)
        return {name: as_of if name == METRICS.name else moment for name in tables}

    def _rows(self, name: str, moment: Moment) -> pa.Table:
        rows, fresh = self._held[name].rows(moment.snapshots[name]), moment.fresh(name)
        return rows if fresh is None else pa.concat_tables([rows, fresh])

    def _newest_events(self) -> tuple[Hashable, pa.Table]:
        moment = self.moment([CHECKPOINTS.name])
        return moment.position(CHECKPOINTS.name), self._rows(CHECKPOINTS.name, moment)

    def _folding(self, moment: Moment, rows: Mapping[str, pa.Table]) -> Folding:
        """Return the folding of a moment; that of the past is asked for seldom, so nothing of it is kept."""
        if moment.live is None:
            return Folding.of_all(rows)
        return self._history.folding(moment.position(*_HISTORY), self.rows_by_file(moment, _HISTORY))

    def newest(self, tables: Sequence[str]) -> Moment:
        """Return the present moment of small tables, live rows included; nothing of their rows is read yet."""
        return self.moment(tables, None)

    def rows_by_file(self, moment: Moment, tables: Sequence[str]) -> HistoryRows:
        """Return the rows of small tables at a moment, those of each file apart."""
        files = {name: self._held[name].files(moment.snapshots[name]) for name in tables}
        return HistoryRows(files, {name: found for name in tables if (found := moment.fresh(name)) is not None})

    def position(self, tables: frozenset[str]) -> Hashable:
        """Return what tells the rows of tables, live ones included, from what they are at other moments."""
        return self.moment(tables, None).position(*sorted(tables))

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
