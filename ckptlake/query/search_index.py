"""The texts of runs in SQLite's full-text index, ranked by BM25."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import fields

from ckptlake.query.search_documents import RunDocument
from ckptlake.query.search_text import Search, Term
from ckptlake.query.search_words import spread, words

FORMAT = 1
WEIGHTS = {
    "name": 16.0,
    "run_id": 16.0,
    "tags": 8.0,
    "experiment": 4.0,
    "params": 2.0,
    "notes": 1.0,
    "git": 0.5,
    "command": 0.5,
    "host": 0.5,
}
"""How much a word counts by where it is found."""

_TEXTS = tuple(WEIGHTS)
_SCHEMA = (
    "CREATE TABLE runs (number INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, mark TEXT NOT NULL)",
    f"CREATE VIRTUAL TABLE texts USING fts5({', '.join(_TEXTS)}, tokenize = 'ascii')",
    "CREATE TABLE stamps (stamp TEXT NOT NULL)",
    f"PRAGMA user_version = {FORMAT}",
)
_ASKED_AT_ONCE = 500

assert set(_TEXTS) == {field.name for field in fields(RunDocument)} - {"mark"}


class SearchIndex:
    """The index on an open SQLite connection; what it changes holds once the caller commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def create(cls, connection: sqlite3.Connection) -> None:
        """Make an empty index in an empty database."""
        for statement in _SCHEMA:
            connection.execute(statement)

    def stamp(self) -> str:
        """Return what the last update said it was made from; empty before the first."""
        row = self._connection.execute("SELECT stamp FROM stamps").fetchone()
        return "" if row is None else str(row[0])

    def marks(self, run_ids: Collection[str] | None = None) -> dict[str, str]:
        """Return the marks of the documents of some runs, or of all."""
        if run_ids is None:
            return dict(self._connection.execute("SELECT run_id, mark FROM runs"))
        found: dict[str, str] = {}
        asked = list(run_ids)
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            some = asked[start : start + _ASKED_AT_ONCE]
            slots = ",".join("?" * len(some))
            found.update(self._connection.execute(f"SELECT run_id, mark FROM runs WHERE run_id IN ({slots})", some))
        return found

    def update(self, changed: Iterable[RunDocument], removed: Iterable[str], stamp: str) -> None:
        """Put documents in the place of those of the same runs, forget runs, and note what that was made from."""
        execute = self._connection.execute
        for run_id in removed:
            self._forget(run_id)
        for document in changed:
            self._forget(document.run_id)
            cursor = execute("INSERT INTO runs (run_id, mark) VALUES (?, ?)", (document.run_id, document.mark))
            self._connection.execute(
                f"INSERT INTO texts (rowid, {', '.join(_TEXTS)}) VALUES (?{', ?' * len(_TEXTS)})",
                (cursor.lastrowid, *(spread(getattr(document, name)) for name in _TEXTS)),
            )
        execute("DELETE FROM stamps")
        execute("INSERT INTO stamps VALUES (?)", (stamp,))

    def _forget(self, run_id: str) -> None:
        execute = self._connection.execute
        row = execute("SELECT number FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is not None:
            execute("DELETE FROM texts WHERE rowid = ?", row)
            execute("DELETE FROM runs WHERE number = ?", row)

    def find(self, search: Search) -> list[tuple[str, float]]:
        """Return the runs whose texts have what the terms of a search ask for, with scores, best first.

        The score is BM25 with `WEIGHTS`, higher is better; a search that only excludes gives every run zero.
        """
        wanted = [term for term in search.terms if not term.is_excluded]
        excluded = " OR ".join(_quoted(term) for term in search.terms if term.is_excluded)
        if not wanted:
            query = "SELECT run_id, 0.0 FROM runs"
            if excluded:
                query += " WHERE number NOT IN (SELECT rowid FROM texts WHERE texts MATCH ?)"
            found = self._connection.execute(query, (excluded,) if excluded else ())
        else:
            match = " AND ".join(map(_quoted, wanted))
            match = f"({match}) NOT ({excluded})" if excluded else match
            weights = ", ".join(map(str, WEIGHTS.values()))
            found = self._connection.execute(
                f"SELECT runs.run_id, -bm25(texts, {weights}) FROM texts JOIN runs ON number = texts.rowid "
                "WHERE texts MATCH ?",
                (match,),
            )
        return sorted(found.fetchall(), key=lambda row: (-row[1], row[0]))


def _quoted(term: Term) -> str:
    """Return a term as a phrase of FTS5; its words hold letters and digits alone, so nothing in it is an operator."""
    return f'"{" ".join(words(term.text))}"' + ("*" if term.is_prefix else "")
