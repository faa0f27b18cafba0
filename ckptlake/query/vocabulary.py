"""The words that queries are written with: `col`, `param`, `tag`, `metric`, `when`, `count` and others."""

from __future__ import annotations

from typing import NoReturn

from ckptlake._internal.names import check_text
from ckptlake.errors import InvalidInputError
from ckptlake.query.constants import constant
from ckptlake.query.expressions import Expr, as_expr, column
from ckptlake.query.nodes import Aggregate, Call, Case, Metric, Param, Placeholder, Tag, Value, Window


class MetricNoun:
    """A metric of a run; say which of its numbers: `min()`, `last()`, `at(step)` and others."""

    def __init__(self, name: str) -> None:
        self._name = check_text("the name of a metric", name)

    def finished(self) -> NoReturn:
        self._refuse()

    def __repr__(self) -> str:
        return f"metric({self._name!r})"

    def __getattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(
            f"metric({self._name!r}) has no {attribute!r}; there are min, max, first, last, mean, count, arg_min, "
            "arg_max, last_step, nan_count and at"
        )

    def _refuse(self, *_: object) -> NoReturn:
        raise InvalidInputError(
            f"metric({self._name!r}) is a whole curve: compare one of its numbers, as in metric({self._name!r}).min()"
        )

    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __eq__ = __ne__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def _read(self, reading: str, step: int | None = None) -> Expr:
        label = f"{reading}.{self._name}" if step is None else f"{self._name}@{step}"
        return Expr(Metric(self._name, reading, step), label)

    def min(self) -> Expr:
        """Return the smallest value that is a number."""
        return self._read("min")

    def max(self) -> Expr:
        """Return the largest value that is a number."""
        return self._read("max")

    def first(self) -> Expr:
        """Return the value at the smallest step."""
        return self._read("first")

    def last(self) -> Expr:
        """Return the value at the largest step."""
        return self._read("last")

    def mean(self) -> Expr:
        """Return the mean of the values that are not NaN."""
        return self._read("mean")

    def count(self) -> Expr:
        """Return how many points there are."""
        return self._read("count")

    def nan_count(self) -> Expr:
        """Return how many points are NaN."""
        return self._read("nan_count")

    def arg_min(self) -> Expr:
        """Return the step of the smallest value."""
        return self._read("arg_min")

    def arg_max(self) -> Expr:
        """Return the step of the largest value."""
        return self._read("arg_max")

    def last_step(self) -> Expr:
        """Return the largest step."""
        return self._read("last_step")

    def at(self, step: int) -> Expr:
        """Return the value at a step, null where there is none."""
        if type(step) is not int:
            raise InvalidInputError(f"a step is an integer, got {step!r:.40}")
        return self._read("at", step)


class When:
    """A chain of conditions: ``when(c).then(a).when(d).then(b).otherwise(e)``."""

    def __init__(self, branches: tuple[tuple[Value, Value], ...], condition: object) -> None:
        self._branches = branches
        self._condition = as_expr(condition).node

    def finished(self) -> NoReturn:
        raise InvalidInputError("a when needs its then: when(condition).then(value)")

    def then(self, value: object) -> Then:
        """Say what it is where the condition is true."""
        return Then((*self._branches, (self._condition, as_expr(value).node)))


class Then:
    """A chain of conditions that may go on or end; without `otherwise` it is null where none is true."""

    def __init__(self, branches: tuple[tuple[Value, Value], ...]) -> None:
        self._branches = branches

    def finished(self) -> Expr:
        return self.otherwise(None)

    def when(self, condition: object) -> When:
        """Add a condition that counts where none before is true."""
        return When(self._branches, condition)

    def otherwise(self, value: object) -> Expr:
        """Say what it is where no condition is true."""
        return Expr(Case(self._branches, as_expr(value).node))


def col(name: str) -> Expr:
    """Return a column.

    >>> col("step") < 10
    Expr(step < 10)
    """
    return column(name)


def lit(value: object) -> Expr:
    """Return a value as it is, such as a text that is no column."""
    return Expr(constant(value))


def placeholder(name: str) -> Expr:
    """Return a value that is given when a saved query is run: ``lake.query("name", limit=3)``."""
    return Expr(Placeholder(check_text("the name of a placeholder", name)))


def param(key: str) -> Expr:
    """Return a param of the row's run.

    >>> param("lr") < 1e-3
    Expr(param('lr') < 0.001)
    """
    return Expr(Param(check_text("the key of a param", key)), f"params.{key}")


def tag(key: str) -> Expr:
    """Return a tag of the row's run; true for a tag that is a name alone, null where the run does not have it."""
    return Expr(Tag(check_text("the key of a tag", key)), f"tags.{key}")


def metric(name: str) -> MetricNoun:
    """Return a metric of the row's run, of which a number is asked: ``metric("val/loss").min()``."""
    return MetricNoun(name)


def when(condition: object) -> When:
    """Begin a chain of conditions."""
    return When((), condition)


def count() -> Expr:
    """Return how many rows there are."""
    return Expr(Aggregate("count_rows", ()), "count")


def row_number() -> Expr:
    """Return the place of a row from 1 on; needs `over(..., order_by=...)`."""
    return Expr(Window(Call("row_number", ())), "row_number")


def rank() -> Expr:
    """Return the place of a row, the same for equals; needs `over(..., order_by=...)`."""
    return Expr(Window(Call("rank", ())), "rank")
