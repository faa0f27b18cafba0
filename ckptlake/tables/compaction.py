"""Few large sorted files in the place of many small ones, and a short log.

delta-rs' own optimize doubles rows when two run at once; here a rewrite is committed as adds and removes
under a guarding transaction read with the files, so that a second one is refused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptlake._internal.files import storage_errors, sync_file
from ckptlake._internal.locks import exclusive_if_free
from ckptlake.errors import CommitConflictError
from ckptlake.tables.delta import CHECKPOINT_INTERVAL, DataFile
from ckptlake.tables.reading import read_files
from ckptlake.tables.schemas import FILE_ROWS
from ckptlake.tables.sorting import sort_rows
from ckptlake.tables.store import TableStore
from ckptlake.tables.summaries import merge_summaries

CROWDED_FILES = 500
_FAN_IN = ((CROWDED_FILES, 16), (800, 4), (math.inf, 2))
MAX_LOG_ENTRIES = 1000
KEPT_LOG_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did to one table."""

    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def __add__(self, other: Compaction) -> Compaction:
        return Compaction(
            self.files_before + other.files_before,
            self.files_after + other.files_after,
            self.rows + other.rows,
            self.bytes_before + other.bytes_before,
            self.bytes_after + other.bytes_after,
        )


def plan_routine(files: Sequence[DataFile], file_rows: int = FILE_ROWS) -> list[list[DataFile]]:
    """Return groups of files worth merging now, so that each row is rewritten only a few times.

    Inside a partition, files of like size are merged once sixteen have gathered; in a table with many files,
    once four have, or two.
    """
    fan_in = next(least for most_files, least in _FAN_IN if len(files) <= most_files)
    groups = []
    for small in _small_files(files, file_rows).values():
        tiers: dict[int, list[DataFile]] = defaultdict(list)
        for file in small:
            tiers[len(str(file.num_records))].append(file)
        groups += [group for tier in tiers.values() if len(tier) >= fan_in for group in _fill(tier, file_rows)]
    return groups


def plan_all(files: Sequence[DataFile], file_rows: int = FILE_ROWS) -> list[list[DataFile]]:
    """Return groups that leave each partition with as few files as the target size allows."""
    return [group for small in _small_files(files, file_rows).values() for group in _fill(small, file_rows)]


def _small_files(files: Sequence[DataFile], file_rows: int) -> dict[str | None, list[DataFile]]:
    small: dict[str | None, list[DataFile]] = defaultdict(list)
    for file in files:
        if file.num_records < file_rows // 2:
            small[file.partition].append(file)
    return small


def _fill(files: list[DataFile], file_rows: int) -> Iterator[list[DataFile]]:
    """Yield groups of at least two files with at most the target number of rows."""
    group: list[DataFile] = []
    rows = 0
    for file in sorted(files, key=lambda file: file.path.rpartition("/")[2]):
        if group and rows + file.num_records > file_rows:
            if len(group) > 1:
                yield group
            group, rows = [], 0
        group.append(file)
        rows += file.num_records
    if len(group) > 1:
        yield group


def compact(table: TableStore, *, everything: bool) -> Compaction:
    """Merge small files of a table; a process that is already doing so is left to it.

    Args:
        everything: merge all small files, as a person asks for; otherwise only what routine upkeep would.

    Raises:
        StorageError: the disk refused; the table has the same rows, in as many files as were merged until then.
    """
    if table.version() < 0:
        return Compaction()
    plan, file_rows = plan_all if everything else plan_routine, table.spec.layout.file_rows
    if not plan(table.snapshot().files(), file_rows):
        return Compaction()
    with (
        storage_errors(f"compact the table {table.name!r}", table.path),
        exclusive_if_free(table.path / ".compact.lock") as free,
    ):
        if not free:
            return Compaction()
        with table.log.held():
            guard = table.replacements()
            files = table.snapshot().files()
        done = Compaction()
        for group in plan(files, file_rows):
            try:
                done += _merge(table, group, guard)
            except CommitConflictError:
                break
            guard += 1
        if done.files_before:
            table.log.checkpoint()
        return done


def _merge(table: TableStore, group: list[DataFile], guard: int) -> Compaction:
    rows = read_files(table.path, table.spec, group)
    if table.name == "summaries":
        rows = merge_summaries(rows)
    staged = table.stage(sort_rows(rows, table.spec))
    table.replace(group, staged, guard=guard, operation="compact", data_change=False)
    return Compaction(
        len(group),
        len(staged),
        sum(file.num_records for file in group),
        sum(file.size_bytes for file in group),
        sum(file.size_bytes for file in staged),
    )


def trim_log(table: TableStore) -> int:
    """Delete the oldest log entries behind a checkpoint once a thousand have gathered; returns how many.

    Commits slow down with the number of entries. What is deleted ends time travel to those versions; at
    one commit a minute the retention of a day is reached first and nothing is deleted here.
    """
    versions = table.log.entry_versions()
    if len(versions) <= MAX_LOG_ENTRIES:
        return 0
    checkpoints = sorted(table.log.directory.glob("*.checkpoint.parquet"))
    horizon = versions[-KEPT_LOG_ENTRIES]
    anchor = max((int(path.name[:20]) for path in checkpoints if int(path.name[:20]) <= horizon), default=0)
    expired = [version for version in versions if version < anchor]
    for path in checkpoints:
        if int(path.name[:20]) >= anchor:
            sync_file(path)
    sync_file(table.log.directory)
    for version in expired:
        (table.log.directory / f"{version:020}.json").unlink(missing_ok=True)
    for path in checkpoints:
        if int(path.name[:20]) < anchor:
            path.unlink(missing_ok=True)
    return len(expired)


def upkeep(table: TableStore, previous_version: int) -> Compaction:
    """Do what a table needs after commits: routine merges, and every hundred versions a look at the log."""
    done = compact(table, everything=False)
    if table.version() // CHECKPOINT_INTERVAL != previous_version // CHECKPOINT_INTERVAL:
        trim_log(table)
    return done
