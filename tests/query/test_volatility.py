"""Which questions may be answered again by the same answer, compared with what DuckDB tells of its functions."""

from __future__ import annotations

from collections import defaultdict

import duckdb
import pytest

from ckptlake.lake import Lake
from ckptlake.query.duck import Engine
from ckptlake.query.pure_functions import IN_UTC, PURE, PURE_TABLES
from ckptlake.query.volatility import CALLED_WITHOUT_PARENTHESES

REPEATABLE = [
    "SELECT 1",
    "FROM runs",
    "TABLE runs",
    "SELECT a.* FROM RUNS a JOIN summaries USING (run_id) ORDER BY ALL LIMIT 3",
    "SELECT r.name, s.min FROM summaries s JOIN runs r USING (run_id) WHERE s.metric = 'm' ORDER BY min LIMIT 5",
    "SELECT step // 10 * 10 AS step, avg(value), quantile_cont(value, 0.9) FROM metrics GROUP BY ALL",
    "SELECT run_id, row_number() OVER (PARTITION BY run_id ORDER BY step) FROM metrics QUALIFY rank() OVER () = 1",
    "SELECT epoch_us(ts) - 1, date_trunc('day', ts), ts + INTERVAL 1 HOUR, ts::DATE FROM metrics",
    "SELECT name LIKE 'a%', lower(name) || 'x', name[1:2], coalesce(name, 'x'), nullif(name, 'a') FROM runs",
    "SELECT list_transform([1, 2], lambda x: x + 1), {'a': 1}.a, map {'a': 1}['a'], [x FOR x IN [1]]",
    "SELECT CASE WHEN name IS NULL THEN 1 ELSE 2 END, name IN ('a', $b), EXISTS (FROM tags) FROM runs",
    "WITH a AS (FROM runs), b AS (FROM a) SELECT count(*) FROM b JOIN a USING (run_id)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) FROM t",
    "WITH runs AS (FROM runs WHERE name = 'a') FROM runs",
    "FROM runs UNION ALL BY NAME FROM tags",
    "FROM (VALUES (1), (2)) AS t(x)",
    "FROM (FROM runs) SELECT count(*)",
    "FROM checkpoints, unnest(aliases) AS t(alias)",
    "SELECT unnest(aliases) FROM checkpoints",
    "FROM range(3)",
    "PIVOT metrics ON metric IN ('a', 'b') USING any_value(value) GROUP BY step",
    "FROM tensors SEMI JOIN checkpoints USING (checkpoint_id)",
    "FROM runs WHERE in_subtree(experiment, 'a')",
    "SELECT r.user FROM (SELECT 1 AS user) r",
    "FROM metrics POSITIONAL JOIN runs",
    "FROM runs ASOF JOIN tags ON runs.run_id = tags.run_id AND runs.started_at >= tags.ts",
    "SELECT 1; SELECT 2",
]
NOT_REPEATABLE = [
    "SELECT random()",
    "SELECT RANDOM()",
    "FROM runs ORDER BY random()",
    "FROM runs WHERE started_at > now() - INTERVAL 1 DAY",
    "SELECT count(*) FILTER (random() > 0.5) FROM runs",
    "SELECT sum(step) OVER (ORDER BY random()) FROM metrics",
    "SELECT list_transform([1], lambda x: random())",
    "SELECT current_date",
    "SELECT Current_Timestamp",
    "SELECT current_timestamp()",
    "SELECT get_current_timestamp()",
    "SELECT localtimestamp",
    "SELECT today()",
    "SELECT age(started_at) FROM runs",
    "SELECT ago(INTERVAL 1 DAY)",
    "SELECT uuid()",
    "SELECT gen_random_uuid()",
    "SELECT user",
    "SELECT current_setting('threads')",
    "SELECT getvariable('ckptlake_metrics_files')",
    "SELECT nextval('s')",
    "SELECT setseed(0.5)",
    "SELECT reservoir_quantile(step, 0.5) FROM metrics",
    "SELECT json_serialize_plan('FROM mine')",
    "SELECT version()",
    "SELECT main.abs(1)",
    "SELECT no_such_function(1)",
    "FROM runs USING SAMPLE 1",
    "FROM runs TABLESAMPLE 10%",
    "FROM runs JOIN (FROM metrics USING SAMPLE 1) USING (run_id)",
    "FROM read_csv('x.csv')",
    "FROM 'x.parquet'",
    "FROM runs, read_text('x')",
    "SELECT (SELECT max(x) FROM read_parquet('x'))",
    "FROM glob('*')",
    "FROM unnest([random()])",
    "FROM query('SELECT 1')",
    "FROM query_table('runs')",
    "FROM duckdb_views()",
    "FROM information_schema.tables",
    "FROM main.runs",
    "FROM runs_rows",
    "FROM ckptlake.settled_1",
    "FROM checkpoints_recent",
    "FROM some_data_frame",
    "WITH some AS (FROM some) FROM some",
    "WITH b AS (FROM a), a AS (SELECT 1) FROM b",
    "FROM (WITH a AS (SELECT 1) FROM a), a",
    "WITH a AS (SELECT random()) SELECT 1 FROM runs",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + random() FROM t WHERE n < 5) FROM t",
    "DESCRIBE runs",
    "SUMMARIZE runs",
    "SHOW TABLES",
    "SET threads = 1",
    "PRAGMA version",
    "CALL pragma_version()",
    "CREATE TABLE x AS SELECT 1",
    "COPY (SELECT 1) TO 'x'",
    "EXPLAIN SELECT 1",
    "PIVOT metrics ON metric USING any_value(value)",
    "SELECT 1; SET threads = 1",
    "SELECT 1; SELECT random()",
    "",
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Return an engine that nothing has been asked of, so that nothing has altered what questions mean."""
    return Engine()


@pytest.mark.parametrize("query", REPEATABLE)
def test_what_depends_on_the_rows_alone_is_repeatable(engine: Engine, query: str) -> None:
    assert engine.is_repeatable(query)


@pytest.mark.parametrize("query", NOT_REPEATABLE)
def test_everything_else_is_not(engine: Engine, query: str) -> None:
    assert not engine.is_repeatable(query)


@pytest.mark.parametrize("query", [text for text in REPEATABLE if "$" not in text])
def test_the_repeatable_ones_are_answered_by_duckdb(busy_lake: Lake, query: str) -> None:
    busy_lake.sql(query)


def test_a_question_deeper_than_can_be_read_is_not_repeatable(engine: Engine) -> None:
    assert not engine.is_repeatable("SELECT " + "+".join(["1"] * 900))


def stabilities() -> dict[str, set[tuple[str, str | None]]]:
    found: dict[str, set[tuple[str, str | None]]] = defaultdict(set)
    rows = duckdb.execute("SELECT lower(function_name), function_type, stability FROM duckdb_functions()").fetchall()
    for name, kind, stability in rows:
        found[name].add((kind, stability))
    return found


def test_duckdb_calls_the_pure_functions_consistent() -> None:
    engine = Engine()
    known = stabilities()
    consistent = {
        name
        for name, variants in known.items()
        if all(
            stability == "CONSISTENT" or kind in ("window", "macro", "table", "table_macro")
            for kind, stability in variants
        )
    }
    tables = {name for name, variants in known.items() if {kind for kind, _ in variants} == {"table"}} - {"unnest"}
    macros = {name for name, variants in known.items() if "macro" in {kind for kind, _ in variants}}
    unknown = PURE - known.keys() - {"->", "in_subtree"}
    assert unknown == set()
    assert PURE - IN_UTC - consistent - {"->", "in_subtree"} == set()
    assert PURE & tables == set()
    assert {kind for name in PURE_TABLES for kind, _ in known[name]} <= {"table", "scalar"}
    assert {name for name in PURE & macros if not is_made_of_pure_functions(name, engine)} == set()


def is_made_of_pure_functions(macro: str, engine: Engine) -> bool:
    rows = duckdb.execute(
        "SELECT macro_definition FROM duckdb_functions() WHERE lower(function_name) = $1 AND function_type = 'macro'",
        [macro],
    ).fetchall()
    return all(engine.is_repeatable(f"SELECT {text}") for (text,) in rows)


def test_those_of_the_time_zone_do_not_change_from_question_to_question() -> None:
    variants = stabilities()
    assert {stability for name in IN_UTC for kind, stability in variants[name] if kind == "scalar"} == {
        "CONSISTENT", "CONSISTENT_WITHIN_QUERY",
    }  # fmt: skip
    asking_the_clock = {"now", "today", "age", "get_current_time", "get_current_timestamp", "transaction_timestamp"}
    assert IN_UTC.isdisjoint(asking_the_clock)


def test_no_other_function_can_be_called_without_parentheses() -> None:
    connection = duckdb.connect()

    def is_called(name: str) -> bool:
        try:
            connection.execute(f"SELECT {name}")
        except duckdb.Error:
            return False
        return True

    words = set(stabilities()) | CALLED_WITHOUT_PARENTHESES
    assert {name for name in words if name.isidentifier() and is_called(name)} <= CALLED_WITHOUT_PARENTHESES


@pytest.mark.parametrize("word", ["now", "today", "tomorrow", "yesterday"])
@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME"])
def test_no_text_stands_for_the_time_it_is(word: str, kind: str) -> None:
    with pytest.raises(duckdb.ConversionException):
        duckdb.execute(f"SELECT '{word}'::{kind}")
