"""The names that queries may use, read off rows in memory, against what the views say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.query import views
from ckptlake.query.duck import new_connection
from ckptlake.query.known_names import param_kinds
from ckptlake.tables.schemas import PARAMS

NUMBERS = [0.0, -3.0, 2.5, 2.0**53, -(2.0**53), 2.0**53 - 1, float("inf"), float("nan")]
VALUES = st.one_of(
    st.tuples(st.just("bool"), st.sampled_from([0.0, 1.0]), st.none()),
    st.tuples(st.just("int"), st.none() | st.sampled_from(NUMBERS[:6]), st.none() | st.just("9007199254740993")),
    st.tuples(st.just("float"), st.sampled_from(NUMBERS), st.none()),
    st.tuples(st.just("text"), st.none(), st.sampled_from(["", "auto"])),
    st.tuples(st.just("null"), st.none(), st.none()),
)


def table_of(found: dict[tuple[str, str], tuple[Any, ...]], extra: list[tuple[str, str]]) -> pa.Table:
    rows = [
        {"run_id": run, "attempt": 1, "ts": datetime(2026, 1, 1, tzinfo=UTC), "key": key}
        | dict(zip(("kind", "number", "text"), found[run, key], strict=True))
        for run, key in [*found, *extra]
    ]
    return pa.Table.from_pylist(rows, PARAMS.schema)


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from(["lr", "LR", "ü.x", "n"])), VALUES))
def test_kinds_of_params_are_those_the_view_tells(found: dict[tuple[str, str], tuple[Any, ...]]) -> None:
    rows = table_of(found, [])
    with new_connection() as connection:
        connection.register("params_rows", rows)
        connection.execute(f"CREATE TEMP VIEW params AS {views.params()}")
        assert param_kinds(rows) == connection.execute(views.PARAM_KINDS).fetchall()


def test_a_param_with_several_values_in_a_run_is_left_to_the_view() -> None:
    found = {("a", "lr"): ("float", 0.5, None), ("b", "lr"): ("text", None, "auto")}
    assert param_kinds(table_of(found, [])) == [("lr", "text", True)]
    assert param_kinds(table_of(found, [("a", "lr")])) is None
