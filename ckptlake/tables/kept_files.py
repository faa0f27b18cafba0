"""What the log of a table said of its files when it was last read, kept so that the next need not read it all.

delta-rs takes some 7 ms of processor time to open a log, however short. What is kept holds for as long as the log
entry it was read at is there, byte by byte, and none follows it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from xxhash import xxh3_128_hexdigest

from ckptlake._internal.sealed import read_sealed, sealed, write_sealed
from ckptlake.tables.delta import LIBRARY_VERSION, log_entry
from ckptlake.tables.schemas import TableSpec

logger = logging.getLogger(__name__)
_MAGIC = b"CKPTLOG1"
_FACTS = {
    "path": pa.string(),
    "size_bytes": pa.int64(),
    "modification_time": pa.int64(),
    "num_records": pa.int64(),
}


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """The files of a table at one version of its log.

    Attributes:
        version: the version.
        actions: the live files with statistics, one row each, columns as delta-rs names them.
        directory: the log.
        mark: when and as which file the log entry of that version was written.
    """

    version: int
    actions: pa.Table
    directory: Path
    mark: tuple[int, int]

    def is_newest(self) -> bool:
        """Tell whether the log is still what it was when this was read; costs two look-ups of file names."""
        entry = log_entry(self.directory, self.version)
        return _mark(entry) == self.mark and not log_entry(self.directory, self.version + 1).exists()


def read_kept(path: Path, directory: Path, spec: TableSpec) -> KeptFiles | None:
    """Return what was kept in the file `path` of the log in `directory`, or None where it holds no longer.

    The file may be anybody's: what is none of a table's log counts as not there.
    """
    found = read_sealed(path, _MAGIC, {"deltalake": LIBRARY_VERSION})
    if found is None or not _is_of(found[0].schema, spec):
        return None
    actions, about = found
    version = about.get("version")
    if type(version) is not int:
        return None
    entry = log_entry(directory, version)
    try:
        mark = _mark(entry)
        if mark is None or about != _about(version, entry):
            return None
    except OSError:
        return None
    kept = KeptFiles(version, actions, directory, mark)
    return kept if kept.is_newest() else None


def write_kept(path: Path, directory: Path, version: int, actions: pa.Table) -> None:
    """Keep what the log in `directory` says of its files at `version`, if the disk takes it."""
    try:
        write_sealed(path, sealed(_MAGIC, actions, _about(version, log_entry(directory, version))))
    except OSError as refusal:
        logger.debug("the files of %s are not kept: %s", directory.parent.name, refusal)


def _about(version: int, entry: Path) -> dict[str, Any]:
    return {"version": version, "entry": xxh3_128_hexdigest(entry.read_bytes()), "deltalake": LIBRARY_VERSION}


def _is_of(schema: pa.Schema, spec: TableSpec) -> bool:
    """Tell whether columns are those of the live files of a table; of others nothing is asked."""
    expected: dict[str, pa.DataType] = dict(_FACTS)
    for field in spec.schema:
        expected |= {f"{what}.{field.name}": field.type for what in ("min", "max", "partition")}
    found = dict(zip(schema.names, schema.types, strict=True))
    return found.keys() >= _FACTS.keys() and all(found[name] == expected[name] for name in found.keys() & expected)


def _mark(entry: Path) -> tuple[int, int] | None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
