"""What a query needs of its lake: names, answers, and where those come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from ckptlake.errors import InvalidInputError
from ckptlake.query.binding import Bound
from ckptlake.query.compiler import Compiled, compile_query
from ckptlake.query.dialects import DIALECTS, DuckDB
from ckptlake.query.known_names import KnownNames, NameBook, Position
from ckptlake.query.nodes import Table
from ckptlake.query.plans import Plan, Plans, plan
from ckptlake.query.saved import SavedQueries
from ckptlake.query.scoping import scope
from ckptlake.types import Direction

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyRelation

    from ckptlake.query.answers import Answer
    from ckptlake.query.sources import Sources

AsOf = int | str | datetime | None
EngineName = Literal["duckdb", "spark", "trino", "databricks"]
Values = Literal["literals", "parameters"]


@dataclass(frozen=True, slots=True)
class Session:
    """Runs queries on one lake, now or as it was.

    Attributes:
        ask: answers SQL on the lake's views.
        relation: returns an answer as a relation of DuckDB.
        rows: returns the rows of a small table.
        look: returns the files and rows that SQL would read.
        position: returns what tells the rows of tables from what they are at other moments.
        book: keeps the names that were looked up before.
        plans: keeps what questions about the present were compiled to.
        store: keeps saved queries.
        rows_of_view: returns the rows of a view on what a question reads.
        as_of: the past to read, or None for now.
    """

    ask: Callable[[str, Mapping[str, object], AsOf], Answer]
    relation: Callable[[Answer], DuckDBPyRelation]
    rows: Callable[[str, AsOf], pa.Table]
    look: Callable[[str, Mapping[str, object], Any], Sources]
    position: Position
    book: NameBook
    plans: Plans
    store: SavedQueries
    rows_of_view: Callable[[str, Sources], pa.Table]
    as_of: AsOf = None

    def at(self, moment: AsOf) -> Session:
        """Return a session that reads the past."""
        return replace(self, as_of=moment)

    def run(self, text: str, values: Mapping[str, object] = MappingProxyType({})) -> Answer:
        """Answer SQL, as of the moment that is asked about."""
        return self.ask(text, values, self.as_of)

    def names(self) -> KnownNames:
        """Return what may be named, as the lake is when it is asked."""
        return KnownNames(self.run, self._rows, self.book, self.position if self.as_of is None else None)

    def _rows(self, table: str) -> pa.Table:
        return self.rows(table, self.as_of)

    def varying_params(self) -> list[str]:
        """Return the params in which runs differ, or that some have and others do not."""
        query = """
            SELECT key FROM params GROUP BY key
            HAVING count(DISTINCT value) > 1 OR count(value) < (SELECT count(*) FROM runs) ORDER BY key"""
        return [key for (key,) in self.run(query).tuples()]

    def direction(self, metric: str, given: Direction | None) -> Direction:
        """Return the direction in which a metric is better.

        Raises:
            InvalidInputError: none is declared, or several are, and none is given.
        """
        if given is not None:
            if given not in ("min", "max"):
                raise InvalidInputError(f"direction must be 'min' or 'max', got {given!r:.40}")
            return given
        query = "SELECT DISTINCT direction FROM definitions WHERE metric = $metric AND direction IS NOT NULL"
        found: list[Direction] = [direction for (direction,) in self.run(query, {"metric": metric}).tuples()]
        if len(found) == 1:
            return found[0]
        problem = "different directions are" if found else "no direction is"
        raise InvalidInputError(
            f"{problem} declared for {metric!r}: declare one with run.define({metric!r}, direction='min'), or give "
            "direction='min' or 'max'"
        )

    def plan(self, table: Table) -> Plan:
        """Return a query as SQL; nothing but names is asked."""
        names = self.names()
        return plan(table, names) if self.as_of is not None else self.plans.find(table, names)

    def ready(self, table: Table) -> tuple[Compiled, tuple[str, ...]]:
        """Return a query as SQL that names the runs it is about where they are few, and what was made cheaper."""
        planned = self.plan(table)
        scoped, told = self._scoped(planned)
        return planned.compiled if scoped is planned.bound else compile_query(scoped, DuckDB()), told

    def scoped(self, table: Table) -> tuple[Bound, tuple[str, ...]]:
        """Return a query that names the runs it is about where they are few, and what was made cheaper."""
        return self._scoped(self.plan(table))

    def _scoped(self, planned: Plan) -> tuple[Bound, tuple[str, ...]]:
        scoped = scope(planned.bound, self._rows_of)
        if scoped is planned.bound:
            return scoped, planned.rewrites
        return scoped, (*planned.rewrites, "the runs it is about were asked for first, and their files alone are read")

    def written(self, table: Table, engine: EngineName, values: Values) -> str:
        """Return a query as the SQL of an engine."""
        if engine not in DIALECTS:
            raise InvalidInputError(f"dialect must be one of {', '.join(DIALECTS)}, got {engine!r:.40}")
        if values not in get_args(Values):
            raise InvalidInputError(f"values must be literals or parameters, got {values!r:.40}")
        dialect = DIALECTS[engine]
        return compile_query(self.plan(table).bound, dialect, dialect.literal if values == "literals" else None).text

    def answer(self, table: Table) -> Answer:
        """Return the rows of a query."""
        compiled, _ = self.ready(table)
        return self.run(compiled.text, compiled.values)

    def stream(self, table: Table, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query in batches, computed as they are asked for."""
        from ckptlake.query.duck import stream

        compiled, _ = self.ready(table)
        sources = self.look(compiled.text, compiled.values, self.as_of)
        return stream(compiled.text, compiled.values, sources, rows)

    def _rows_of(self, compiled: Compiled) -> Sequence[tuple[Any, ...]]:
        return self.run(compiled.text, compiled.values).tuples()
