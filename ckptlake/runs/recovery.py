"""Segments whose writer has died: adopted, committed, and their runs marked killed."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc

from ckptlake._internal.files import GOES_ON, delete_abandoned, storage_errors
from ckptlake._internal.locks import exclusive_if_free, release, try_lock
from ckptlake.errors import DamagedSegmentError, LakeFormatError
from ckptlake.runs.commit import Stores, commit_segments
from ckptlake.runs.frames import table_of, unpack
from ckptlake.runs.quarantine import set_aside
from ckptlake.runs.wal import SegmentContents, SegmentName, read_segment
from ckptlake.tables.layout import Layout
from ckptlake.tables.reading import read_file
from ckptlake.tables.schemas import RUNS
from ckptlake.tables.snapshot import OneOf
from ckptlake.tables.store import TableStore
from ckptlake.types import RunStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a recovery found and did.

    Attributes:
        segments: segments of dead writers committed and dropped.
        frames: frames in them.
        killed_runs: runs that were open when their writer died.
        quarantined: files under quarantine/ with what could not be read.
    """

    segments: int = 0
    frames: int = 0
    killed_runs: tuple[str, ...] = ()
    quarantined: tuple[Path, ...] = ()


def recover(layout: Layout, stores: Stores, own_writers: Collection[str] = (), lake_id: str | None = None) -> Recovery:
    """Commit what dead writers left behind; does nothing while another process does so.

    Raises:
        StorageError: the disk refused; the segments stay for the next try.
    """
    if not any(name.writer not in own_writers for name in _segment_names(layout.wal)):
        return Recovery()
    with (
        storage_errors("recover segments", layout.wal, GOES_ON),
        exclusive_if_free(layout.wal / ".recover.lock") as free,
        ExitStack() as held,
    ):
        if not free:
            return Recovery()
        delete_abandoned(layout.wal)  # of writers that died before their segment had a name; they hold no rows
        paths = _lock_dead_segments(layout.wal, own_writers, held)
        return _commit(layout, stores, paths, lake_id) if paths else Recovery()


def _segment_names(wal: Path) -> list[SegmentName]:
    try:
        names = (SegmentName.parse(entry) for entry in os.listdir(wal))
    except FileNotFoundError:
        return []
    return [name for name in names if name is not None]


def _lock_dead_segments(wal: Path, own_writers: Collection[str], held: ExitStack) -> list[Path]:
    """Lock all segments of each dead writer, in order, and return their paths.

    A writer counts as dead only if every one of its segments can be locked: were a later segment
    committed without an earlier one, the earlier one's frames would be taken for committed.
    """
    by_writer: dict[str, list[SegmentName]] = defaultdict(list)
    for name in _segment_names(wal):
        if name.writer not in own_writers:
            by_writer[name.writer].append(name)
    paths: list[Path] = []
    for names in by_writer.values():
        with ExitStack() as attempt:
            names.sort(key=lambda name: name.sequence)
            if all(_lock(wal / str(name), attempt) for name in names):
                held.push(attempt.pop_all())
                paths += [wal / str(name) for name in names]
    return paths


def _lock(path: Path, held: ExitStack) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    held.callback(release, descriptor)
    if not try_lock(descriptor):
        return False
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _commit(layout: Layout, stores: Stores, paths: list[Path], lake_id: str | None) -> Recovery:
    segments: list[SegmentContents] = []
    quarantined: list[Path] = []
    kept: set[Path] = set()
    for path in paths:
        try:
            segment = read_segment(path, lake_id)
        except LakeFormatError as error:
            logger.warning("%s", error)
            kept.add(path)
            continue
        except DamagedSegmentError as error:
            quarantined.append(set_aside(layout, path, 0, str(error)))
            continue
        segments.append(segment)
        if segment.damage is not None:
            quarantined.append(set_aside(layout, path, segment.sound_bytes, segment.damage))
    closing = [row for writer in _by_writer(segments).items() for row in _killed_rows(*writer)]
    ended = _ended(stores["runs"], {str(row["run_id"]) for _, row in closing})
    closing = [(writer, row) for writer, row in closing if _participation(row) not in ended]
    commit_segments(stores, segments, closing)
    for path in paths:
        if path not in kept:
            path.unlink(missing_ok=True)
    return Recovery(
        len(segments),
        sum(len(segment.frames) for segment in segments),
        tuple(sorted({str(row["run_id"]) for _, row in closing})),
        tuple(quarantined),
    )


def _ended(runs: TableStore, run_ids: set[str]) -> set[tuple[object, ...]]:
    """Return who has ended which run according to the table; a segment begun meanwhile may still name them."""
    if not run_ids:
        return set()
    files = runs.snapshot().prune([{"run_id": OneOf(frozenset(run_ids))}])
    events = [row for path in files for row in read_file(Path(path), RUNS).to_pylist()]
    return {_participation(row) for row in events if row["status"] not in (None, RunStatus.RUNNING)}


def _participation(row: Mapping[str, object]) -> tuple[object, ...]:
    return row["run_id"], row["attempt"], row["writer"]


def _by_writer(segments: list[SegmentContents]) -> dict[str, list[SegmentContents]]:
    grouped: dict[str, list[SegmentContents]] = defaultdict(list)
    for segment in segments:
        grouped[segment.name.writer].append(segment)
    return grouped


def _killed_rows(writer: str, segments: list[SegmentContents]) -> list[tuple[str, dict[str, object]]]:
    """Return a `killed` event for each run that was open when `writer` died, at its last sign of life."""
    open_runs = dict.fromkeys(segments[0].header.open_runs, 0)
    last_us = 0
    for segment in segments:
        for _, packed in segment.frames:
            rows = unpack(packed)
            if rows.num_rows and "ts" in rows.column_names:
                last_us = max(last_us, pc.max(rows.column("ts")).value)
            if table_of(packed) == "runs":
                for row in rows.select(["run_id", "attempt", "writer", "status"]).to_pylist():
                    run = (row["run_id"], row["attempt"], row["writer"])
                    if row["status"] == RunStatus.RUNNING:
                        open_runs[run] = 0
                    elif row["status"] is not None:
                        open_runs.pop(run, None)
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=last_us + 1) if last_us else datetime.now(UTC)
    return [
        (
            writer,
            {
                "run_id": run_id,
                "attempt": attempt,
                "writer": participant,
                "ts": moment,
                "event": "killed",
                "status": str(RunStatus.KILLED),
            },
        )
        for run_id, attempt, participant in open_runs
    ]
