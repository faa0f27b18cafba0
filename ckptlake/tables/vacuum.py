"""Deleting files that no recent snapshot needs: replaced ones, and leftovers of crashes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ckptlake._internal.files import storage_errors
from ckptlake.errors import InvalidInputError
from ckptlake.tables.parquet import STAGING
from ckptlake.tables.store import TableStore

_ABANDONED_AFTER_S = 3600.0
_MOST_HOURS = 1_000_000


@dataclass(frozen=True, slots=True)
class Vacuum:
    """What a vacuum found: paths below the table, their bytes, and whether they are gone."""

    paths: tuple[str, ...]
    size_bytes: int
    deleted: bool


def vacuum(table: TableStore, *, dry_run: bool, retention_hours: float) -> Vacuum:
    """Find and unless `dry_run` delete what no snapshot younger than the retention needs.

    Writers move their files into place and commit them under the lock held here, so a file without a
    commit belongs to nobody. Files still being written lie in the staging folder and count as abandoned
    after an hour without a change.
    """
    if not 0 <= retention_hours <= _MOST_HOURS:
        raise InvalidInputError(f"retention_hours must lie between 0 and {_MOST_HOURS}, got {retention_hours!r}")
    if table.version() < 0:
        return Vacuum((), 0, not dry_run)
    if dry_run:
        return _find(table, retention_hours)
    with storage_errors(f"vacuum the table {table.name!r}", table.path), table.exclusive():
        table.log.refresh()
        found = _find(table, retention_hours)
        table.log.expired_files(retention_hours, dry_run=False)
        for path in _abandoned(table.path):
            path.unlink(missing_ok=True)
    return Vacuum(found.paths, found.size_bytes, deleted=True)


def _find(table: TableStore, retention_hours: float) -> Vacuum:
    expired = [table.path / path for path in table.log.expired_files(retention_hours, dry_run=True)]
    sizes = {path: facts.st_size for path, facts in _present([*expired, *_abandoned(table.path)])}
    paths = tuple(str(path.relative_to(table.path)) for path in sizes)
    return Vacuum(paths, sum(sizes.values()), deleted=False)


def _abandoned(root: Path) -> list[Path]:
    horizon = time.time() - _ABANDONED_AFTER_S
    return [path for path, facts in _present((root / STAGING).glob("*")) if facts.st_mtime < horizon]


def _present(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield those files that are still there, whoever else moves or deletes them meanwhile."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.stat()
