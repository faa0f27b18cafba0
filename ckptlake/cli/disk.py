"""`ckptlake du`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, number_column
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake

if TYPE_CHECKING:
    from ckptlake.lake import Lake
    from ckptlake.tables.table import Table

_FOLDERS = ("wal", "blobs", "checkpoints", "quarantine", "cache")
_LOG = "_delta_log"
_COLUMNS = (
    Column("where"),
    number_column("files"),
    number_column("size"),
    number_column("live files"),
    number_column("live size"),
    number_column("not live"),
    number_column("log", rank=1),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """How many files there are and how many bytes they hold."""

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.files + other.files, self.size_bytes + other.size_bytes)

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Usage:
        """Return the usage of files with these sizes."""
        found = list(sizes)
        return cls(len(found), sum(found))

    def document(self) -> dict[str, object]:
        """Return the usage as a mapping."""
        return {"files": self.files, "size_bytes": self.size_bytes}


@dataclass(frozen=True, slots=True)
class TableUsage:
    """One table: files of its newest snapshot, files that only older snapshots need or nobody, its log and locks."""

    name: str
    live: Usage
    not_live: Usage
    log: Usage

    @property
    def all(self) -> Usage:
        return self.live + self.not_live + self.log

    def document(self) -> dict[str, object]:
        """Return the usage as a mapping."""
        parts = {"live": self.live, "not_live": self.not_live, "log": self.log}
        return {"table": self.name, **self.all.document(), **{name: part.document() for name, part in parts.items()}}


def du(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Show what takes up the disk.

    Counted are the files and bytes of every table and of everything else in the lake. Not live is what a vacuum
    will delete once its retention is over.
    """
    with open_lake(lake) as opened:
        tables = [_measure(table) for table in opened.tables()]
        rest = _rest(opened, {table.name for table in tables})
    total = sum((usage for usage in rest.values()), sum((table.all for table in tables), Usage()))
    if as_json:
        console.json(
            {
                "tables": [table.document() for table in tables],
                **{name: usage.document() for name, usage in rest.items()},
                "total": total.document(),
            }
        )
        return
    rows = [_table_cells(table) for table in tables if table.all.files]
    rows += [_cells(name, usage) for name, usage in rest.items() if usage.files]
    rows.append(_total_cells(tables, total))
    console.note(console.table(_COLUMNS, rows))


def _measure(table: Table) -> TableUsage:
    """Look at one table; its snapshot comes first, because files are only ever added to what it names."""
    live_paths = {file.path for file in table.files()}
    live: list[int] = []
    not_live: list[int] = []
    log: list[int] = []
    for path, size_bytes in _files(table.path):
        place = path.relative_to(table.path)
        if place.parts[0] == _LOG or place.suffix != ".parquet":
            log.append(size_bytes)
        else:
            (live if str(place) in live_paths else not_live).append(size_bytes)
    if len(live) < len(live_paths):
        console.warning(f"{len(live_paths) - len(live)} live files of the table {table.name!r} are missing")
    return TableUsage(table.name, Usage.of(live), Usage.of(not_live), Usage.of(log))


def _rest(lake: Lake, tables: Collection[str]) -> dict[str, Usage]:
    """Return the usage of everything in a lake but its tables."""
    sizes: dict[str, list[int]] = {name: [] for name in (*_FOLDERS, "other")}
    for path, size_bytes in _files(lake.path):
        folder, *below = path.relative_to(lake.path).parts
        if folder == "tables" and below and below[0] in tables:
            continue
        sizes[folder if below and folder in _FOLDERS else "other"].append(size_bytes)
    return {name: Usage.of(found) for name, found in sizes.items()}


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield every file below `root` with its size; those that vanish meanwhile are left out."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                yield path, path.lstat().st_size
            except FileNotFoundError:
                continue


def _table_cells(table: TableUsage) -> list[str]:
    return [
        table.name,
        f"{table.all.files:,}",
        wording.size(table.all.size_bytes),
        f"{table.live.files:,}",
        wording.size(table.live.size_bytes),
        wording.size(table.not_live.size_bytes),
        wording.size(table.log.size_bytes),
    ]


def _total_cells(tables: Sequence[TableUsage], total: Usage) -> list[str]:
    live = sum((table.live for table in tables), Usage())
    parts = (live, sum((table.not_live for table in tables), Usage()), sum((table.log for table in tables), Usage()))
    sizes = [wording.size(part.size_bytes) for part in parts]
    return ["total", f"{total.files:,}", wording.size(total.size_bytes), f"{live.files:,}", *sizes]


def _cells(name: str, usage: Usage) -> list[str]:
    return [name, f"{usage.files:,}", wording.size(usage.size_bytes), "", "", "", ""]
