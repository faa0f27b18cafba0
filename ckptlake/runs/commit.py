"""Sealed segments become Delta commits, one a table, each row once however often this is tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from ckptlake.runs.frames import pack_rows, table_of, unpack
from ckptlake.runs.wal import SegmentContents
from ckptlake.tables.schemas import METRICS, SUMMARIES, TABLES
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.store import Batch, TableStore
from ckptlake.tables.summaries import summarise

Stores = Mapping[str, TableStore]


def commit_segments(
    stores: Stores, segments: Iterable[SegmentContents], closing: Sequence[tuple[str, dict[str, object]]] = ()
) -> set[str]:
    """Commit the frames of segments to their tables and return the names of the tables touched.

    Args:
        stores: every table by name.
        segments: segments of any writers; those of one writer in order, none left out before a later one.
        closing: rows for `runs`, each with its dead writer, committed once behind that writer's frames.

    Raises:
        StorageError: the disk refused; what was committed stays and is passed over at the next try.
    """
    batches: dict[str, list[Batch]] = defaultdict(list)
    last_frame: dict[str, int] = {}
    for segment in segments:
        writer = segment.name.writer
        last_frame[writer] = max(last_frame.get(writer, 0), segment.last_frame)
        for number, packed in segment.frames:
            batches[table_of(packed)].append(Batch(writer, number, unpack(packed)))
    by_writer: dict[str, list[dict[str, object]]] = defaultdict(list)
    for writer, row in closing:
        by_writer[writer].append(row)
    for writer, rows in by_writer.items():
        batches["runs"].append(Batch(writer, last_frame[writer] + 1, unpack(pack_rows("runs", rows))))
    batches[SUMMARIES.name] = batches[METRICS.name]
    points = _SortedPoints()
    prepare = {SUMMARIES.name: points.summarised, METRICS.name: points.sorted}
    for name in TABLES:
        if batches[name]:
            stores[name].append(batches[name], prepare.get(name))
    return {name for name, found in batches.items() if found}


class _SortedPoints:
    """Sorts the points of a commit once for the two tables that need them in order."""

    def __init__(self) -> None:
        self._frames: list[tuple[str, int]] = []
        self._points: pa.Table | None = None

    def sorted(self, batches: Sequence[Batch]) -> pa.Table:
        frames = [(batch.writer, batch.number) for batch in batches]
        if self._points is None or frames != self._frames:
            self._points = sort_points(pa.concat_tables(batch.rows for batch in batches))
            self._frames = frames
        return self._points

    def summarised(self, batches: Sequence[Batch]) -> pa.Table:
        return summarise(self.sorted(batches))
