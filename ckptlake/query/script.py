"""The views of a lake as a script, after which any DuckDB answers what `lake.sql` answers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ckptlake.query import file_rows, views
from ckptlake.query.checkpoint_views import fold
from ckptlake.query.names import quote
from ckptlake.query.scans import POINTS, SCANNED, TENSOR_ROWS, ScannedTable
from ckptlake.query.sources import Picture
from ckptlake.query.trial import Trial
from ckptlake.query.views import ScanShape
from ckptlake.tables.schemas import CHECKPOINTS, SUMMARIES, TABLES


def setup_script(root: Path, picture: Picture) -> str:
    """Return the script that makes every view over the files of a picture.

    Args:
        root: the lake's directory.
        picture: what its tables hold.

    Raises:
        DamagedTableError: a data file is missing or damaged.
    """
    statements = _Script(picture).write()
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    head = (
        f"-- The views of the lake {root} as it stood at {now} UTC, for DuckDB 2.0 and newer.\n"
        "-- It is a picture of that moment: committed rows only, in files that a later vacuum may delete. Make it anew "
        f"with\n--   ckptlake views --lake {shlex.quote(str(root))} > views.sql\n\n"
    )
    return head + "".join(f"{statement.strip()};\n\n" for statement in statements)


class _Script:
    """Writes the statements of one script, each tried before the next."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._trial = Trial()
        self._statements: list[str] = []

    def write(self) -> Sequence[str]:
        for statement in (*views.SETTINGS, *views.MACROS):
            self._add(statement)
        for name, spec in TABLES.items():
            if name not in SCANNED:
                rows = file_rows.FILE_SUMMARIES if spec is SUMMARIES else f"{name}_rows"
                self._view(rows, file_rows.rows_in_files(spec, self._paths(name)))
        self._write_points()
        self._write_tensors()
        for name, table in views.OF_EVENTS.items():
            self._view(name, views.raw_rows(table))
        self._view("checkpoints", fold("checkpoints_rows", "verifications_rows"))
        for name, text in views.OF_HELD_ROWS.items():
            self._view(name, text())
        self._view("runs_wide", views.runs_wide(self._trial.wide_columns()))
        return self._statements

    def _write_points(self) -> None:
        self._view(file_rows.MERGED_SUMMARIES, file_rows.merged_summaries())
        self._view(POINTS.repeated, file_rows.repeated_curves())
        shape, files = self._scan(POINTS)
        self._view("metrics_raw", views.scanned_rows(POINTS, shape, files))
        self._view("metrics", views.newest_rows(POINTS, shape, files))
        self._view("summaries_rows", file_rows.exact_summaries(POINTS.repeated))

    def _write_tensors(self) -> None:
        events = file_rows.rows_in_files(CHECKPOINTS, self._picture.events.paths())
        self._view(TENSOR_ROWS.repeated, file_rows.recorded_again(f"({events})"))
        shape, files = self._scan(TENSOR_ROWS)
        self._view("tensors", views.newest_rows(TENSOR_ROWS, shape, files))

    def _scan(self, table: ScannedTable) -> tuple[ScanShape, str]:
        """Return the shape of a scan of all files of a table, and these files."""
        paths = self._paths(table.name)
        if not paths:
            self._view(table.live, file_rows.no_rows(table.spec))
        shape = ScanShape(
            has_files=bool(paths),
            has_live=False,
            has_repeats=bool(paths) and self._trial.has_rows(table.repeated),
            root_looks_partitioned="=" in str(self._picture.snapshots[table.name].root),
        )
        return shape, file_rows.file_list(paths)

    def _paths(self, table: str) -> list[str]:
        return self._picture.snapshots[table].paths()

    def _view(self, name: str, text: str) -> None:
        self._add(f"CREATE OR REPLACE VIEW {quote(name)} AS {text.strip()}")

    def _add(self, statement: str) -> None:
        self._trial.run(statement)
        self._statements.append(statement)
