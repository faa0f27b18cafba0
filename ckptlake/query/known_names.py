"""The names that queries may use: columns of views, and what the runs of a lake have logged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.errors import InvalidInputError
from ckptlake.query.kinds import kind_of_duckdb
from ckptlake.query.views import ALL_VIEWS, PARAM_KINDS, tables_of

if TYPE_CHECKING:
    from ckptlake.query.answers import Answer

Ask = Callable[[str], "Answer"]
Rows = Callable[[str], "pa.Table"]
"""Returns the rows of a small table, in every version that they were written in."""
Position = Callable[[frozenset[str]], Hashable]
"""Returns what tells the rows of tables from what they are at other moments."""
_TABLES = tables_of(["params", "tags", "summaries"])


class LoggedNames:
    """What runs have logged, as it was at one moment; each list is asked for once."""

    def __init__(self, ask: Ask, rows: Rows) -> None:
        self._ask, self._rows = ask, rows

    @cached_property
    def params(self) -> Mapping[str, str]:
        kinds = param_kinds(self._rows("params"))
        if kinds is None:
            kinds = self._ask(PARAM_KINDS).tuples()
        return {key: "mixed" if kind == "text" and has_numbers else kind for key, kind, has_numbers in kinds}

    @cached_property
    def tags(self) -> tuple[str, ...]:
        rows = self._rows("tags")
        if pc.any(rows.column("removed")).as_py():
            return tuple(key for (key,) in self._ask("SELECT DISTINCT key FROM tags").tuples())
        return _distinct(rows.column("key"))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        return _distinct(self._rows("summaries").column("metric"))


def param_kinds(rows: pa.Table) -> list[tuple[str, str, bool]] | None:
    """Return what `PARAM_KINDS` tells of the rows of params, or None where runs have several values of one."""
    if rows.group_by(["run_id", "key"], use_threads=False).aggregate([]).num_rows < rows.num_rows:
        return None
    kind, number = rows.column("kind"), rows.column("number")
    is_exact = pc.and_(pc.equal(kind, "int"), pc.fill_null(pc.less(pc.abs(number), 2.0**53), fill_value=False))
    told = {
        "key": rows.column("key"),
        "bool": pc.equal(kind, "bool"),
        "int": is_exact,
        "number": pc.or_(is_exact, pc.is_in(kind, value_set=pa.array(["float", "null"]))),
        "any": pc.is_valid(number),
    }
    found = pa.table(told).group_by("key", use_threads=False)
    found = found.aggregate([("bool", "all"), ("int", "all"), ("number", "all"), ("any", "any")]).sort_by("key")
    return [
        (row["key"], next((kind for kind in ("bool", "int", "number") if row[f"{kind}_all"]), "text"), row["any_any"])
        for row in found.to_pylist()
    ]


def _distinct(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, column.unique().to_pylist())))


_COLUMNS: dict[str, Mapping[str, str]] = {}


def _columns_of(answer: Answer) -> Mapping[str, str]:
    return dict(zip(answer.rows.column_names, map(kind_of_duckdb, answer.kinds), strict=True))


class NameBook:
    """The names of one lake; what was looked up serves until somebody logs something."""

    def __init__(self) -> None:
        self._logged: tuple[Hashable, LoggedNames] | None = None

    def columns(self, view: str, ask: Ask) -> Mapping[str, str]:
        """Return the columns of a view with their kinds, which are the same in every lake but for `runs_wide`."""
        if view not in ALL_VIEWS:
            raise InvalidInputError(f"there is no view {view!r:.40}; there are {', '.join(sorted(ALL_VIEWS))}")
        if view == "runs_wide":
            return _columns_of(ask(f"SELECT * FROM {view} LIMIT 0"))
        if view not in _COLUMNS:
            _COLUMNS[view] = _columns_of(ask(f"SELECT * FROM {view} LIMIT 0"))
        return _COLUMNS[view]

    def logged(self, ask: Ask, rows: Rows, position: Position) -> LoggedNames:
        """Return what runs have logged up to now."""
        key = position(_TABLES)
        known = self._logged
        if known is None or known[0] != key:
            known = self._logged = (key, LoggedNames(ask, rows))
        return known[1]


class KnownNames:
    """The names that one query may use, all of one moment.

    Args:
        ask: runs SQL on the lake's views.
        rows: returns the rows of a table.
        book: keeps what was looked up before.
        position: tells whether that still holds; None where the past is asked.
    """

    def __init__(self, ask: Ask, rows: Rows, book: NameBook, position: Position | None) -> None:
        self._ask, self._rows, self._book, self._position = ask, rows, book, position

    def columns(self, view: str) -> Mapping[str, str]:
        return self._book.columns(view, self._ask)

    @cached_property
    def logged(self) -> LoggedNames:
        """What runs have logged; the same object for as long as nobody logs anything."""
        if self._position is None:
            return LoggedNames(self._ask, self._rows)
        return self._book.logged(self._ask, self._rows, self._position)

    def params(self) -> Mapping[str, str]:
        return self.logged.params

    def tags(self) -> tuple[str, ...]:
        return self.logged.tags

    def metrics(self) -> tuple[str, ...]:
        return self.logged.metrics
