"""Random queries give the rows that an interpreter on Polars frames gives, made cheaper or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake import Capture, Lake
from ckptlake.query.binding import bind
from ckptlake.query.compiler import compile_query
from ckptlake.query.dialects import DuckDB
from ckptlake.query.rewrites import rewrite
from ckptlake.query.scoping import scope
from tests.query.conftest import quiet
from tests.query.polars_oracle import Oracle
from tests.query.query_strategies import METRICS, VIEWS, Asked, queries

NAN, INF = math.nan, math.inf
CURVES: dict[str, dict[str, list[tuple[int, float]]]] = {
    "r1": {"loss": [(0, 0.5), (1, NAN), (2, -0.0), (3, INF)], "Loss": [(-2, 1.0), (-1, 0.25), (0, 1.0)]},
    "r2": {"loss": [(0, -INF), (1, INF), (1, 2.5), (0, 0.5)], METRICS[2]: [(5, NAN), (6, 3.0), (4, -1.25)]},
    "r3": {"only/nan": [(0, NAN), (1, NAN)], "loss": [(-3, -1.25), (-3, NAN), (2, 2.5)]},
    "r5": {"Loss": [(0, 0.0), (1, -0.0), (2, 0.0)], "loss": [(2, 2.5)]},
}
RUNS: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "r1": ("pose", {"lr": 0.5, "LR": 2.5, "seed": 1, "on": True, "mixed": 3, "arch": "a"}, {"stage": "a", "Stage": ""}),
    "r2": ("pose/vit", {"lr": NAN, "seed": 2, "on": False, "mixed": "auto", "arch": "it's"}, {"bare tag": True}),
    "r3": ("pose/vit/x", {"lr": INF, "LR": -1.25, "seed": 3, "mixed": 0.5, "deep": {"x": 2.5}}, {"Stage": "pose"}),
    "r4": ("posey", {}, {}),
    "r5": ("it's/ü", {"lr": None, "LR": 0, "mixed": "3", "arch": "", "deep": {"x": 1}}, {"stage": "r1"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("oracle") / "lake", settings=quiet()) as lake:
        for run_id, (experiment, params, tags) in RUNS.items():
            parent = {"r2": "r1", "r3": "r1"}.get(run_id)
            name = None if run_id == "r4" else f"ü '{run_id}'"
            how: dict[str, Any] = {"parent": parent} if parent else {}
            with lake.run(experiment, name, params, tags, run_id=run_id, capture=Capture.nothing(), **how) as run:
                for metric, points in CURVES.get(run_id, {}).items():
                    for step, value in points:
                        run.log({metric: value}, step=step)
            lake.commit()
        yield lake


@pytest.fixture(scope="module")
def oracle(lake: Lake) -> Oracle:
    frames = {}
    for view, columns in VIEWS.items():
        names = ", ".join([*columns, *(["ts"] if view == "metrics" else [])])
        frame = lake.sql(f"SELECT {names} FROM {view}").pl()
        frames[view] = frame.with_columns(frame.select(pl.selectors.integer().cast(pl.Int64)))
    return Oracle(frames)


def _key(row: Sequence[Any], exact: Sequence[bool]) -> list[Any]:
    sure = [value for value, is_sure in zip(row, exact, strict=True) if is_sure]
    rest = [value for value, is_sure in zip(row, exact, strict=True) if not is_sure]
    return [
        (value is None, isinstance(value, float) and math.isnan(value), 0 if value is None or value != value else value)
        for value in (*sure, *rest)
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        if not (math.isfinite(one) and math.isfinite(other)):
            return one == other or (math.isnan(one) and math.isnan(other))
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other) and (one is None) == (other is None)


def compare(found: pl.DataFrame, told: pl.DataFrame, asked: Asked) -> None:
    names = list(asked.columns)
    is_exact = [asked.columns[name] != "rough" for name in names]
    rows, wanted = found.rows(), told.select(names).rows()
    if not asked.is_ordered:
        rows.sort(key=lambda row: _key(row, is_exact))
        wanted.sort(key=lambda row: _key(row, is_exact))
    assert len(rows) == len(wanted), (len(rows), len(wanted), rows[:9], wanted[:9])
    for row, other in zip(rows, wanted, strict=True):
        assert all(map(_same, row, other)), (row, other)


def check(lake: Lake, oracle: Oracle, data: st.DataObject) -> None:
    asked = queries(data.draw, lake)
    table, session = asked.query._table, asked.query._session
    asked = Asked(
        asked.query.select(**{f"c{i}": name for i, name in enumerate(asked.columns)}),
        {f"c{i}": kind for i, kind in enumerate(asked.columns.values())},
        is_ordered=asked.is_ordered,
    )
    table = asked.query._table
    note(str(table))
    told = oracle.answer(table)
    bound = bind(table, session.names())

    def rows_of(compiled: Any) -> Any:
        return session.run(compiled.text, compiled.values).tuples()

    cheaper, _ = rewrite(bound)
    planned, compiled = session.plan(table).compiled, compile_query(cheaper, DuckDB())
    assert (planned.text, str(planned.values)) == (compiled.text, str(compiled.values)), "the plan of another question"
    ways: dict[str, Callable[[], Any]] = {
        "as it is": lambda: bound, "made cheaper": lambda: cheaper, "for some runs": lambda: scope(cheaper, rows_of),
    }  # fmt: skip
    seen: set[str] = set()
    for way, made in ways.items():
        compiled = compile_query(made(), DuckDB())
        if compiled.text + str(compiled.values) in seen:
            continue
        seen.add(compiled.text + str(compiled.values))
        note(f"{way}: {compiled.text}\n{compiled.values}")
        compare(session.relation(session.run(compiled.text, compiled.values)).pl(), told, asked)


_NOISY = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@settings(max_examples=250, deadline=None, suppress_health_check=_NOISY)
@given(data=st.data())
def test_queries_answer_as_the_oracle_does(lake: Lake, oracle: Oracle, data: st.DataObject) -> None:
    check(lake, oracle, data)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=_NOISY)
@given(data=st.data())
def test_many_more_queries_answer_as_the_oracle_does(lake: Lake, oracle: Oracle, data: st.DataObject) -> None:
    check(lake, oracle, data)
