"""Questions as they are asked: ``lake.runs.where(param("lr") < 1e-3).best("val/loss", n=10)``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from ckptlake._internal.names import check_experiment, check_name
from ckptlake.errors import InvalidInputError
from ckptlake.query import nodes as n
from ckptlake.query.arguments import named_values, positive, whole
from ckptlake.query.elsewhere import Elsewhere
from ckptlake.query.expressions import Expr, as_expr, as_order
from ckptlake.query.picture import SHOWN_ROWS, as_html
from ckptlake.query.session import AsOf, Session
from ckptlake.query.showing import shown
from ckptlake.query.vocabulary import col, count, metric, param
from ckptlake.types import Direction

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyRelation
    from polars import DataFrame, LazyFrame

    from ckptlake.query.analysis import Analysis
    from ckptlake.query.explanation import Explanation

_MOST_PIVOTED = 200
_ELSEWHERE = {
    "filter": "where", "query": "where", "sort": "order_by", "sort_values": "order_by", "orderBy": "order_by",
    "head": "limit", "take": "limit", "groupby": "group_by", "groupBy": "group_by", "mutate": "with_columns",
    "assign": "with_columns", "collect": "to_polars", "execute": "to_polars", "fetchall": "to_dicts", "pl": "to_polars",
    "df": "to_pandas", "unique": "distinct", "merge": "join", "concat": "union",
    "height": "count()",
}  # fmt: skip
"""What other libraries call what a query can do."""
Join = Literal["inner", "left", "full", "semi", "anti"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Query(Elsewhere):
    """A question that can be asked: a table, of which every verb makes a new one. Nothing is read until it is asked.

    >>> import ckptlake, tempfile
    >>> from ckptlake import metric, param
    >>> lake = ckptlake.open(tempfile.mkdtemp())
    >>> for lr in (0.1, 0.01):
    ...     with lake.run("doc", params={"lr": lr}) as run:
    ...         run.define("loss", direction="min")
    ...         run.log({"loss": lr}, step=0)
    >>> lake.runs.where(param("lr") < 0.05).select(param("lr"), metric("loss").min()).to_arrow().to_pylist()
    [{'params.lr': 0.01, 'min.loss': 0.01}]
    """

    _table: n.Table
    _session: Session

    def _with(self, table: n.Table) -> Query:
        return Query(table, self._session)

    # -- rows

    def where(self, *conditions: Expr | bool) -> Query:
        """Keep the rows for which all conditions are true; where one is null a row is left out, as in SQL."""
        table = self._table
        for condition in conditions:
            table = n.Filter(table, as_expr(condition).node)
        return self._with(table)

    def order_by(self, *keys: object) -> Query:
        """Order by columns or values; `.desc()` for the largest first. Rows without a value come last either way."""
        if not keys:
            raise InvalidInputError("order_by needs something to order by, such as a column")
        return self._with(n.Sort(self._table, tuple(map(as_order, keys))))

    def limit(self, length: int) -> Query:
        """Keep the first rows."""
        return self._with(n.Slice(self._table, whole("limit", length)))

    def offset(self, rows: int) -> Query:
        """Leave out the first rows."""
        return self._with(n.Slice(self._table, None, whole("offset", rows)))

    def sample(self, length: int, *, seed: int = 0) -> Query:
        """Keep rows chosen by chance; the same ones for the same seed."""
        return self._with(n.Sample(self._table, whole("sample", length), whole("seed", seed)))

    def distinct(self, *names: str, order_by: object = ()) -> Query:
        """Keep each row once; with names, the first row for each of their values, in the order of `order_by`."""
        orders = order_by if isinstance(order_by, list | tuple) else [order_by]
        return self._with(n.Distinct(self._table, names, tuple(map(as_order, orders))))

    def union(self, other: Query) -> Query:
        """Put the rows of another query with the same columns behind; what is there twice stays."""
        return self._with(n.Union(self._table, _query(other)._table))

    # -- columns

    def select(self, *columns: object, **named: object) -> Query:
        """Keep these columns, or values under a name: ``select("run_id", lr=param("lr"))``."""
        made = named_values(columns, named)
        if not made:
            raise InvalidInputError("select needs at least one column")
        return self._with(n.Project(self._table, made))

    def with_columns(self, *columns: object, **named: object) -> Query:
        """Add columns, or replace those of the same names."""
        return self._with(n.Extend(self._table, named_values(columns, named)))

    def rename(self, **names: str) -> Query:
        """Give columns other names: ``rename(old="new")``."""
        checked = tuple((old, check_name("the name of a column", new)) for old, new in names.items())
        return self._with(n.Rename(self._table, checked))

    def drop(self, *names: str) -> Query:
        """Leave columns out."""
        return self._with(n.Drop(self._table, names))

    # -- groups

    def group_by(self, *keys: object, **named: object) -> Grouped:
        """Group rows with the same values; say what of each group by `agg`."""
        return Grouped(self, named_values(keys, named))

    def group_by_all_except(self, *excluded: str) -> Grouped:
        """Group runs that have the same params but for some, such as ``seed``.

        Groups are told by the params in which the runs of the lake differ.
        """
        known = self._session.names().params()
        unknown = [key for key in excluded if key not in known]
        if unknown:
            return Grouped(self, named_values([param(unknown[0])], {}))  # binding refuses it and names the nearest
        varying = self._session.varying_params()
        return Grouped(self, named_values([param(key) for key in varying if key not in excluded], {}))

    def agg(self, *columns: object, **named: object) -> Query:
        """Aggregate all rows to one."""
        return Grouped(self, ()).agg(*columns, **named)

    def pivot(self, on: str, *, index: str | Sequence[str], value: Expr, values: Sequence[Any] | None = None) -> Query:
        """Return a row for each value of `index` and a column for each value of `on`, filled by an aggregate.

        Args:
            on: the column whose values become columns.
            index: what tells the rows.
            value: an aggregate, such as ``col("value").mean()``.
            values: the values of `on`; without them they are asked for now.

        Raises:
            InvalidInputError: `value` is no aggregate of one column, or there are more than 200 values.
        """
        if not isinstance(value.node, n.Aggregate) or len(value.node.args) != 1:
            raise InvalidInputError(f"pivot takes an aggregate of one column, such as mean(), got {shown(value.node)}")
        names = (index,) if isinstance(index, str) else tuple(index)
        if values is None:
            rows = self.select(on).distinct().order_by(on).limit(_MOST_PIVOTED + 1).to_arrow()
            values = rows.column(0).to_pylist()
        if not values or len(values) > _MOST_PIVOTED:
            raise InvalidInputError(f"pivot makes between 1 and {_MOST_PIVOTED} columns of {on!r}; give values=[...]")
        made = {}
        for each in values:
            condition = as_expr(col(on) == each).node
            inner = n.Case(((condition, value.node.args[0]),), n.Const.of(None))
            name = "null" if each is None else each if isinstance(each, str) else repr(each)
            made[name] = Expr(n.Aggregate(value.node.function, (inner,), value.node.settings))
        return self.group_by(*names).agg(**made)

    # -- several tables

    def join(self, other: Query, on: str | Sequence[str], how: Join = "inner", suffix: str = "_right") -> Query:
        """Join with another query where columns of the same name are equal.

        Args:
            other: the right side.
            on: the columns.
            how: ``inner``, ``left``, ``full``; ``semi`` keeps the rows that have a match, ``anti`` those without.
            suffix: what names of the right side that are taken get.
        """
        if how not in ("inner", "left", "full", "semi", "anti"):
            raise InvalidInputError(f"how must be inner, left, full, semi or anti, got {how!r:.40}")
        names = (on,) if isinstance(on, str) else tuple(on)
        if not names:
            raise InvalidInputError("join needs at least one column that both sides have")
        return self._with(n.Join(self._table, _query(other)._table, names, how, suffix))

    # -- the field's own questions

    def subtree(self, experiment: str) -> Query:
        """Keep the rows of an experiment and of those below it; a ``/`` at the end makes no difference."""
        root = check_experiment(experiment.rstrip("/"))
        return self.where(Expr(n.Call("in_subtree", (n.Column("experiment"), n.Const.of(root)))))

    def best(self, metric_name: str, n: int = 10, *, direction: Direction | None = None) -> Query:
        """Return the best runs by a metric, the best first, with ``best.<metric>`` and ``best_step.<metric>``.

        Args:
            metric_name: the metric.
            n: how many.
            direction: ``min`` or ``max``; default what `run.define` has declared.

        Raises:
            InvalidInputError: no direction is declared, or different ones are; it is not guessed.
        """
        low = self._session.direction(metric_name, direction) == "min"
        number = metric(metric_name)
        value, step = (number.min(), number.arg_min()) if low else (number.max(), number.arg_max())
        name = f"best.{metric_name}"
        ranked = self.with_columns(value.alias(name), step.alias(f"best_step.{metric_name}"))
        order = col(name).asc() if low else col(name).desc()
        return ranked.where(col(name).is_not_null()).order_by(order, "run_id").limit(n)

    def curves(self, *metrics: str, every: int | None = None, points: int | None = None) -> Query:
        """Return the points of these runs: one row a point, with `run_id`, `metric`, `step`, `ts` and `value`.

        Args:
            metrics: which; without any, all.
            every: one bucket of so many steps keeps its lowest and its highest point, so that no spike is hidden.
            points: about how many points each curve keeps, in buckets of equal width.
        """
        if every is not None and points is not None:
            raise InvalidInputError("give one of every and points")
        rows = self._points(metrics)
        if every is None and points is None:
            return rows.order_by("run_id", "metric", "step")
        from ckptlake.query.thinning import bucket_of, thinned

        return thinned(rows.with_columns(_bucket=bucket_of(every, points)))

    def at_best(self, metric_name: str, *, direction: Direction | None = None) -> Query:
        """Return the values of all metrics of these runs at the step where one metric is best."""
        low = self._session.direction(metric_name, direction) == "min"
        number = metric(metric_name)
        step = number.arg_min() if low else number.arg_max()
        best = self.select(run_id=col("run_id"), step=step).where(col("step").is_not_null())
        rows = self._with(n.View("metrics")).join(best, on=["run_id", "step"], how="semi")
        return rows.select("run_id", "metric", "step", "ts", "value").order_by("run_id", "metric")

    def related(self) -> Query:
        """Return the runs that these began from or are nested in, and those that began from or are nested in these."""
        runs, mine = self._with(n.View("runs")), self.select("run_id")
        found = None
        for link in ("parent_run_id", "forked_from_run_id"):
            above = runs.join(self.select(run_id=col(link)), on="run_id", how="semi")
            below = runs.with_columns(_link=col(link)).join(mine.rename(run_id="_link"), on="_link", how="semi")
            for part in (above, below.drop("_link")):
                found = part if found is None else found.union(part)
        assert found is not None
        return found.distinct().order_by("started_at", "run_id")

    def _points(self, metrics: Sequence[str]) -> Query:
        known = set(self._session.names().metrics())
        for name in metrics:
            if name not in known:
                self.select(metric(name).last()).sql()  # binding refuses it and names the nearest
        rows = self._with(n.View("metrics"))
        if metrics:
            rows = rows.where(col("metric").is_in(list(metrics)))
        if self._table != n.View("runs"):
            rows = rows.join(self.select("run_id"), on="run_id", how="semi")
        return rows.select("experiment", "run_id", "metric", "step", "ts", "value")

    def analyze(self) -> Analysis:
        """Return what can be asked about the results of these runs: statistics, comparison, trends and forecasts.

        Raises:
            InvalidInputError: the query has no column `run_id`.
        """
        from ckptlake.query.analysis import Analysis

        return Analysis(self)

    # -- answers

    def sql(self) -> str:
        """Return the SQL that would be run, with a named parameter for each value."""
        return self._session.plan(self._table).compiled.text

    def explain(self) -> Explanation:
        """Return what would be run: the SQL, its values, what was made cheaper, and which files would be read."""
        from ckptlake.query.explanation import explain

        return explain(self._session, self._table)

    def to_duckdb(self) -> DuckDBPyRelation:
        """Return the rows as a DuckDB relation."""
        return self._session.relation(self._session.answer(self._table))

    def to_arrow(self) -> pa.Table:
        """Return the rows as an Arrow table."""
        return self._session.answer(self._table).rows

    def to_polars(self) -> DataFrame:
        """Return the rows as a Polars frame."""
        frame: DataFrame = self.to_duckdb().pl()
        return frame

    def lazy(self) -> LazyFrame:
        """Return the rows as a lazy Polars frame; they are read now."""
        return self.to_polars().lazy()

    def to_pandas(self) -> Any:
        """Return the rows as a pandas frame."""
        return self.to_duckdb().df()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dicts."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows

    def batches(self, rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches of at most so many, computed as they are asked for, in little memory."""
        return self._session.stream(self._table, positive("batches", rows))

    def count(self) -> int:
        """Return how many rows there are."""
        found = self._with(n.Group(self._table, (), (("count", count().node),)))
        return int(found.to_arrow().column(0)[0].as_py())

    def exists(self) -> bool:
        """Tell whether there is a row."""
        return bool(self.limit(1).to_arrow().num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(self._session.plan(self._table).compiled.schema)

    def as_of(self, moment: AsOf) -> Query:
        """Return the same question to the past: a moment, ISO text, or a version of `metrics`."""
        return Query(self._table, self._session.at(moment))

    def save(self, name: str, description: str | None = None) -> None:
        """Keep the question in the lake under a name; `lake.query(name)` asks it again.

        What is kept is what is asked, not the SQL; a `placeholder` in it is given when it is asked.
        """
        self._session.store.save(name, self._table, description)

    # -- misuse, and how it looks

    def __bool__(self) -> NoReturn:
        raise InvalidInputError("a query is neither true nor false: ask query.exists(), or query.count()")

    def __len__(self) -> NoReturn:
        raise InvalidInputError("a query has no length until it is asked: query.count() asks")

    def __iter__(self) -> NoReturn:
        raise InvalidInputError("a query is not a list of rows: ask query.to_dicts(), .to_polars() or .batches()")

    def __getattr__(self, attribute: str) -> NoReturn:
        meant = _ELSEWHERE.get(attribute)
        raise AttributeError(f"a query has no {attribute!r}" + (f": it is called {meant} here" if meant else ""))

    def __repr__(self) -> str:
        return f"<Query\n{self.sql()}\n>"

    def _repr_html_(self) -> str:
        return as_html(self.sql(), self.limit(SHOWN_ROWS).to_arrow())


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """Rows in groups, of which `agg` says what is wanted."""

    query: Query
    keys: tuple[n.Named, ...]

    def agg(self, *columns: object, **named: object) -> Query:
        """Return one row a group: its keys, and aggregates such as ``col("value").mean()``.

        Raises:
            InvalidInputError: nothing is asked of groups that have no keys either.
        """
        made = named_values(columns, named)
        if not made and not self.keys:
            raise InvalidInputError("agg needs an aggregate, such as count() or col('value').mean()")
        return self.query._with(n.Group(self.query._table, self.keys, made))

    def count(self) -> Query:
        """Return one row a group with how many rows it has."""
        return self.agg(count())


def _query(value: object) -> Query:
    if not isinstance(value, Query):
        raise InvalidInputError(f"a query is needed here, got {type(value).__name__}")
    return value
