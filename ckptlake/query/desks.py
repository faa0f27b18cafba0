"""A connection with the views of one shape of question, on which many questions of that shape are asked in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ckptlake.query import checkpoint_views, views
from ckptlake.query.names import escape_glob, quote
from ckptlake.query.questions import Folds, Question, Shape
from ckptlake.query.scans import POINTS, SCANNED, Scan
from ckptlake.query.views import ScanShape

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_HELD_VIEWS = {**{name: name for name in views.OF_HELD_ROWS}, **views.OF_EVENTS}
"""The table whose rows in memory a view names as `<table>_rows`."""
_KEPT_DESKS = 4


class Desk:
    """A cursor with the views of one shape, and the rows and files of one question on it."""

    def __init__(self, cursor: DuckDBPyConnection, shape: Shape, question: Question) -> None:
        self.cursor = cursor
        self.shape = shape
        self._laid: set[str] = set()
        self._files: dict[str, Sequence[str]] = {}
        self._folds = Folds()
        self._kept: dict[str, str] = {}
        self.lay(question)
        self._create_views()

    def lay(self, question: Question) -> None:
        """Put the rows and files of a question in the place of those before."""
        sources = question.sources
        for view in (self.shape.views & _HELD_VIEWS.keys()) - self.shape.kept:
            table = _HELD_VIEWS[view]
            self._put(f"{table}_rows", sources.rows[table])
        for name, shape in self.shape.scans:
            self._lay_scan(name, shape, sources.scans[name])
        for view, rows in question.kept.items():
            self._lay_kept(view, rows)
        if question.folds != self._folds:
            self._lay_folds(question.folds)
        if sources.folding is not None and self.shape.has_settled:
            self._put(checkpoint_views.RECENT_RUNS, sources.folding.recent_runs)

    def clear(self) -> None:
        """Take the rows of the last question off, so that they can go; the views stay."""
        for name in self._laid:
            self.cursor.unregister(name)
        self._laid.clear()

    def _put(self, name: str, rows: pa.Table | None) -> None:
        self.cursor.register(name, rows)
        self._laid.add(name)

    def _lay_kept(self, view: str, rows: str | pa.Table) -> None:
        table = rows if isinstance(rows, str) else f"{view}_kept"
        if not isinstance(rows, str):
            self._put(table, rows)
        if self._kept.get(view) != table:
            self._create(view, f"SELECT * FROM {table}")
            self._kept[view] = table

    def _lay_folds(self, folds: Folds) -> None:
        for name, table in ((checkpoint_views.SETTLED, folds.settled), (checkpoint_views.RECENT, folds.recent)):
            if table is not None:
                self._create(name, f"SELECT * FROM {table}")
        self._folds = folds

    def _lay_scan(self, name: str, shape: ScanShape, scan: Scan) -> None:
        table = SCANNED[name]
        if scan.files and scan.files != self._files.get(name):
            files = [escape_glob(path) for path in scan.files]
            self.cursor.execute(f"SET VARIABLE {table.files_variable} = $1", [files])
            self._files[name] = scan.files
        if shape.has_live or not shape.has_files:
            live = scan.live
            self._put(table.live, table.spec.schema.empty_table() if live is None else live)
        if shape.has_repeats:
            self._put(table.repeated, scan.repeated)

    def _create_views(self) -> None:
        wanted, scans = self.shape.views, dict(self.shape.scans)
        if "metrics_raw" in wanted:
            self._create("metrics_raw", views.scanned_rows(POINTS, scans[POINTS.name]))
        for name in wanted & scans.keys():
            self._create(name, views.newest_rows(SCANNED[name], scans[name]))
        if "checkpoints" in wanted:
            self._create("checkpoints", checkpoint_views.checkpoints(has_settled=self.shape.has_settled))
        for name in wanted & views.OF_EVENTS.keys():
            self._create(name, views.raw_rows(views.OF_EVENTS[name]))
        for name, text in views.OF_HELD_ROWS.items():
            if name in wanted and name not in self.shape.kept:
                self._create(name, text())
        if "runs_wide" in wanted:
            self._create("runs_wide", views.runs_wide(wide_columns(self.cursor)))

    def _create(self, name: str, text: str) -> None:
        self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {text}")


class Desks:
    """Desks of one DuckDB that nobody sits at, each with the name of whose rows still lie on it."""

    def __init__(self) -> None:
        self._free: dict[Shape, list[tuple[Desk, str]]] = {}

    def take(self, shape: Shape) -> Desk | None:
        """Return a desk that nobody sits at, or None."""
        try:
            return self._free[shape].pop()[0]
        except (KeyError, IndexError):
            return None

    def give_back(self, desk: Desk, owner: str) -> None:
        """Keep a desk for the next question, or clear it away if there are enough."""
        if len(self._free.setdefault(desk.shape, [])) < _KEPT_DESKS:
            self._free[desk.shape].append((desk, owner))
        else:
            desk.cursor.close()

    def clear(self, owner: str) -> None:
        """Take the rows of one owner off all desks; may be called in the middle of any other call."""
        for free in list(self._free.values()):
            for desk, last in list(free):
                if last == owner:
                    with suppress(ValueError):  # somebody else took it and has laid rows of their own
                        free.remove((desk, last))
                        desk.clear()
                        free.append((desk, ""))


def wide_columns(cursor: DuckDBPyConnection) -> views.WideColumns:
    """Return which columns runs_wide has, by what its views show on a cursor."""
    kinds = [(key, kind) for key, kind, _ in cursor.execute(views.PARAM_KINDS).fetchall()]
    metrics = cursor.execute("SELECT DISTINCT metric FROM summaries ORDER BY metric").fetchall()
    directed = cursor.execute(
        "SELECT DISTINCT metric FROM summaries JOIN definitions USING (experiment, metric) "
        "WHERE direction IS NOT NULL ORDER BY metric"
    ).fetchall()
    return views.WideColumns(kinds, [name for (name,) in metrics], [name for (name,) in directed])
