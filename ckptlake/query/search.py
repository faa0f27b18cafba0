"""Runs by their texts: the index is brought up to what the tables hold now, then asked."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from pathlib import Path

from ckptlake.query.search_documents import SEARCHED, RunDocument, documents
from ckptlake.query.search_file import IndexFile, OpenIndex
from ckptlake.query.search_index import SearchIndex
from ckptlake.query.search_rows import RunRows, Stamp, marks
from ckptlake.query.search_text import Search, parse_search
from ckptlake.query.sources import SourceReader

logger = logging.getLogger(__name__)
Ranks = list[tuple[str, float]]
_RUNS_AT_ONCE = 2_000
_NEVER: tuple[Hashable, RunRows, str] = (None, RunRows(), "")


class Searcher:
    """Searches the runs of one lake.

    Args:
        reader: reads the lake's small tables, live rows included.
        path: where the index is kept; the file may be deleted at any time.
    """

    def __init__(self, reader: SourceReader, path: Path) -> None:
        self._reader = reader
        self._file = IndexFile(path)
        self._seen = _NEVER

    def ranks(self, text: str) -> tuple[Search, Ranks | None]:
        """Return what a text searches for, and the runs that have its words with their scores, best first.

        The ranks are None where the text has filters alone: every run fulfils its words then. The score is BM25,
        higher is better, and zero where words are only excluded.

        Raises:
            InvalidInputError: the text cannot be read; the message names the part and what to write.
            DamagedTableError: a data file of the lake is missing or damaged.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> lake.run("pose", name="vit-b16", capture=ckptlake.Capture.nothing()).finish()
        >>> searcher = Searcher(lake._reader, lake.path / "cache" / "search.sqlite")
        >>> search, ranks = searcher.ranks("vit experiment:pose")
        >>> len(ranks), search.filters[0].condition.values
        (1, ('pose',))
        """
        search = parse_search(text)
        return search, (self._file.use(lambda opened: self._find(opened, search)) if search.terms else None)

    def _find(self, opened: OpenIndex, search: Search) -> Ranks:
        before = self._seen[1]
        if opened.index.stamp() != self._look()[1]:
            with opened.changing():
                self._update(opened.index, before)
        return opened.index.find(search)

    def _look(self) -> tuple[RunRows, str]:
        """Return the rows of all runs now, and the stamp of an index made from them."""
        moment = self._reader.newest(SEARCHED)
        position = moment.position(*SEARCHED)
        seen = self._seen
        if seen[0] != position:
            rows = seen[1].next(self._reader.rows_by_file(moment, SEARCHED), moment)
            seen = self._seen = (position, rows, str(rows.stamp()))
        return seen[1], seen[2]

    def _update(self, index: SearchIndex, before: RunRows) -> None:
        """Bring the index up to now; it is looked again, so that a later holder of the file has later rows."""
        rows, stamp = self._look()
        noted = index.stamp()
        if noted == stamp:
            return
        touched = rows.touched_since(Stamp.parse(noted), before)
        if touched is not None and len(touched) > _RUNS_AT_ONCE:
            touched = None
        found = rows.of(touched)
        known, now = index.marks(touched), marks(found)
        changed = {run_id: mark for run_id, mark in now.items() if known.get(run_id) != mark}
        logger.debug("the search index takes in %d of %d runs that may have changed", len(changed), len(now))
        made = documents(found, changed) if touched is not None else _documents(rows, changed)
        index.update(made, known.keys() - now.keys(), stamp)


def _documents(rows: RunRows, changed: dict[str, str]) -> Iterator[RunDocument]:
    ordered = sorted(changed)
    for start in range(0, len(ordered), _RUNS_AT_ONCE):
        some = {run_id: changed[run_id] for run_id in ordered[start : start + _RUNS_AT_ONCE]}
        yield from documents(rows.of(some), some)
