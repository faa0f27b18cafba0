"""What a query would do, told before it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptlake.query.nodes import Table
    from ckptlake.query.session import Session


@dataclass(frozen=True, slots=True)
class ScanTold:
    """What is read of one table.

    Attributes:
        files: how many files are opened.
        num_files: of how many.
        live_rows: rows of running processes that are read beside them.
        rows: how many rows the files have, of which the conditions leave fewer.
    """

    table: str
    files: int
    num_files: int
    live_rows: int
    rows: int


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """What would be run.

    Attributes:
        sql: the text.
        values: what is bound to its parameters.
        rewrites: what was made cheaper.
        scans: what is read of tables that stay in their files; all others are in memory.
    """

    sql: str
    values: Mapping[str, object]
    rewrites: tuple[str, ...]
    scans: tuple[ScanTold, ...]

    def __str__(self) -> str:
        lines = [self.sql]
        if self.values:
            lines.append("values: " + ", ".join(f"{name} = {value!r:.60}" for name, value in self.values.items()))
        lines += [f"rewrite: {text}" for text in self.rewrites]
        for scan in self.scans:
            live = f" and {scan.live_rows:,} live rows" if scan.live_rows else ""
            lines.append(f"reads {scan.files:,} of {scan.num_files:,} files of {scan.table}, {scan.rows:,} rows{live}")
        return "\n".join(lines)

    __repr__ = __str__


def explain(session: Session, table: Table) -> Explanation:
    """Return what a query would do; the runs it is about are asked for, their points are not."""
    import pyarrow.parquet as pq

    compiled, rewrites = session.ready(table)
    sources = session.look(compiled.text, compiled.values, session.as_of)
    scans = tuple(
        ScanTold(
            name,
            len(scan.files),
            scan.num_files,
            0 if scan.live is None else scan.live.num_rows,
            sum(pq.read_metadata(path).num_rows for path in scan.files),
        )
        for name, scan in sorted(sources.scans.items())
    )
    return Explanation(compiled.text, dict(compiled.values), rewrites, scans)
