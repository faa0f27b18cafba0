"""Rows acknowledged but not yet committed, as readers of any process see them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ckptlake.errors import DamagedSegmentError, LakeFormatError
from ckptlake.runs.frames import table_of, unpack
from ckptlake.runs.wal import SegmentName, read_frames, read_header
from ckptlake.tables.schemas import METRICS, SUMMARIES
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.summaries import summarise


@dataclass(slots=True)
class _Segment:
    """What has been decoded of one segment so far."""

    name: SegmentName
    offset: int
    inode: int
    frames: list[tuple[int, str, pa.Table]] = field(default_factory=list)
    merged: dict[tuple[str, int], pa.Table] = field(default_factory=dict)

    def rows(self, table: str, committed: int) -> pa.Table | None:
        """Return the rows of `table` in frames after `committed`, or None if there are none."""
        key = (table, max(committed, self.frames[0][0] - 1) if self.frames else committed)
        if key not in self.merged:
            source = _source(table)
            found = [rows for number, name, rows in self.frames if name == source and number > committed]
            if not found:
                return None
            merged = pa.concat_tables(found).combine_chunks()
            self.merged[key] = summarise(sort_points(merged)) if table == SUMMARIES.name else merged
        return self.merged[key]

    def last_frame(self, table: str) -> int | None:
        """Return the number of the last frame with rows of `table`, or None if there is none."""
        source = _source(table)
        return next((number for number, name, _ in reversed(self.frames) if name == source), None)

    def add(self, frames: list[tuple[int, str, pa.Table]]) -> None:
        """Take further frames; what was merged of tables that they do not touch stays."""
        touched = {name for _, name, _ in frames}
        self.frames = self.frames + frames
        self.merged = {key: rows for key, rows in self.merged.items() if _source(key[0]) not in touched}


@dataclass(frozen=True, slots=True)
class LiveRows:
    """The segments as they stood at one moment; asked for rows past what a snapshot has."""

    _segments: tuple[_Segment, ...]

    @property
    def writers(self) -> frozenset[str]:
        return frozenset(segment.name.writer for segment in self._segments)

    def position(self, table: str) -> tuple[tuple[str, int], ...]:
        """Return each segment with rows of `table` and its last frame of them: equal positions hold equal rows."""
        found = ((str(segment.name), segment.last_frame(table)) for segment in self._segments)
        return tuple((name, frame) for name, frame in found if frame is not None)

    def rows(self, table: str, committed: Mapping[str, int]) -> pa.Table | None:
        """Return the rows of `table` that a snapshot with these `committed` frames does not hold.

        A frame that a failed sync has put into two segments counts once.
        """
        reached = dict(committed)
        found = []
        for segment in self._segments:
            writer = segment.name.writer
            rows = segment.rows(table, reached.get(writer, -1))
            if rows is not None:
                found.append(rows)
            if segment.frames:
                reached[writer] = max(reached.get(writer, -1), segment.frames[-1][0])
        return pa.concat_tables(found) if found else None


class LiveReader:
    """Follows all segments of a lake, decoding each frame once however often it is asked."""

    def __init__(self, wal: Path, lake_id: str | None = None) -> None:
        self._wal = wal
        self._lake_id = lake_id
        self._known: dict[str, _Segment] = {}
        self._lock = threading.Lock()

    def read(self) -> LiveRows:
        """Return the acknowledged rows of all segments.

        Call this before opening the tables' snapshots: a segment that is committed and dropped in between
        is then in the snapshots, and rows in both are told apart by their frames.
        """
        with self._lock:
            names = sorted(filter(None, map(SegmentName.parse, self._list())), key=_order)
            self._known = {str(name): known for name in names if (known := self._follow(name)) is not None}
            return LiveRows(tuple(_frozen(segment) for segment in self._known.values()))

    def _list(self) -> list[str]:
        try:
            return os.listdir(self._wal)
        except FileNotFoundError:
            return []

    def _follow(self, name: SegmentName) -> _Segment | None:
        path = self._wal / str(name)
        try:
            status = path.stat()
            known = self._known.get(str(name))
            if known is None or known.inode != status.st_ino or status.st_size < known.offset:
                _, _, offset = read_header(path, self._lake_id)
                known = _Segment(name, offset, status.st_ino)
            if status.st_size > known.offset:
                frames, known.offset, _, _ = read_frames(path, known.offset)
                if frames:
                    known.add([(number, table_of(packed), unpack(packed)) for number, packed in frames])
        except (FileNotFoundError, DamagedSegmentError, LakeFormatError):
            return None
        return known


def _source(table: str) -> str:
    return METRICS.name if table == SUMMARIES.name else table


def _order(name: SegmentName) -> tuple[str, int]:
    return name.writer, name.sequence


def _frozen(segment: _Segment) -> _Segment:
    """Return the segment as it is now; what is decoded later does not show in it."""
    return _Segment(segment.name, segment.offset, segment.inode, segment.frames, segment.merged)
