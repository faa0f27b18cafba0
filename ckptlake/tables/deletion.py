"""Deleting the rows of runs: the files that hold them are rewritten without them."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.errors import CommitConflictError
from ckptlake.tables.delta import DataFile
from ckptlake.tables.reading import read_files
from ckptlake.tables.snapshot import OneOf
from ckptlake.tables.store import TableStore

_ATTEMPTS = 10


def delete_runs(table: TableStore, run_ids: Collection[str]) -> int:
    """Delete every row of the given runs in one commit and return how many there were.

    Older snapshots keep the rows until a vacuum.

    Raises:
        CommitConflictError: other rewrites of the table came first ten times in a row.
        StorageError: the disk refused; the table is unchanged.
    """
    for _ in range(_ATTEMPTS):
        if table.version() < 0:
            return 0
        with table.log.held():
            guard = table.replacements()
            snapshot = table.snapshot()
        touched = set(snapshot.prune([{"run_id": OneOf(frozenset(run_ids))}]))
        removes, adds, deleted = _without(
            table, [file for file in snapshot.files() if f"{table.path}/{file.path}" in touched], run_ids
        )
        if not removes:
            return 0
        try:
            table.replace(removes, adds, guard=guard, operation="delete", data_change=True)
        except CommitConflictError:
            continue
        return deleted
    raise CommitConflictError(
        f"rows of {len(run_ids)} runs could not be deleted from {table.name!r}: the table kept being rewritten; "
        "try again when its compaction is done"
    )


def _without(
    table: TableStore, files: list[DataFile], run_ids: Collection[str]
) -> tuple[list[DataFile], list[DataFile], int]:
    removes: list[DataFile] = []
    adds: list[DataFile] = []
    deleted = 0
    wanted = pa.array(sorted(run_ids))
    for file in files:
        rows = read_files(table.path, table.spec, [file])
        matches = pc.is_in(rows.column("run_id").cast(pa.string()), value_set=wanted)
        count = pc.sum(matches).as_py() or 0
        if count:
            removes.append(file)
            adds += table.stage(rows.filter(pc.invert(matches)))
            deleted += count
    return removes, adds, deleted
