"""The SQL of each engine, without the engines."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import pytest
from query_corpus import CORPUS

from ckptlake import InvalidInputError, Lake, col, count, metric, param
from ckptlake.query.dialects import DIALECTS, Dialect, DuckDB, Spark, Text, Trino
from ckptlake.query.nodes import Const

DUCKDB_ALONE = (
    "FILTER (NOT",
    "arg_min",
    "arg_max",
    "quantile_cont",
    "list_",
    "epoch_us",
    "VARCHAR",
    "in_subtree",
    "$p",
)


@pytest.mark.parametrize("name", CORPUS)
def test_no_dialect_speaks_another(corpus_lake: Lake, name: str) -> None:
    query = CORPUS[name](corpus_lake)
    for engine in ("spark", "databricks"):
        text = re.sub(r"'(?:\\.|[^'\\])*'|`(?:[^`]|``)*`", "", query.to_sql(engine))  # type: ignore[arg-type]
        assert not [word for word in (*DUCKDB_ALONE, "ROW(", '"') if word in text]
    trino = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "", query.to_sql("trino"))
    assert not [word for word in DUCKDB_ALONE if word in trino and word != "VARCHAR"]
    assert trino.count("(") == trino.count(")")


@pytest.mark.parametrize("name", CORPUS)
def test_sqlglot_can_read_every_dialect(corpus_lake: Lake, name: str) -> None:
    sqlglot = pytest.importorskip("sqlglot", reason="sqlglot is not installed")
    for engine in DIALECTS:
        assert sqlglot.parse_one(CORPUS[name](corpus_lake).to_sql(engine), dialect=engine) is not None  # type: ignore[arg-type]


def test_values_are_bound_by_name_or_written(corpus_lake: Lake) -> None:
    query = corpus_lake.runs.where(param("lr") < 0.5, col("name") == "it's \\").select("run_id")
    assert "$p1" in query.to_sql("duckdb", values="parameters")
    assert ":p1" in query.to_sql("spark", values="parameters")
    assert "'it\\'s \\\\'" in query.to_sql("spark")
    assert "'it''s \\'" in query.to_sql("trino")
    assert "0.5D" in query.to_sql("databricks")
    assert "0.5e0" in query.to_sql("trino")
    with pytest.raises(InvalidInputError, match="take values='literals'"):
        query.to_sql("trino", values="parameters")
    with pytest.raises(InvalidInputError, match="dialect must be one of duckdb, spark, trino, databricks"):
        query.to_sql("oracle")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="values must be literals or parameters"):
        query.to_sql(values="both")  # type: ignore[arg-type]


def test_each_engine_has_its_own_words(corpus_lake: Lake) -> None:
    query = corpus_lake.metrics.group_by("run_id").agg(count(), col("value").median(), at=col("step").arg_min("value"))
    assert "percentile(t0.`value`, 0.5D) FILTER (WHERE NOT" in query.to_sql("spark")
    assert "min_by(t0.`step`, struct(t0.`value`, t0.`step`)) FILTER (WHERE" in query.to_sql("spark")
    assert "array_sort" in query.to_sql("trino")
    assert query.limit(3).offset(1).to_sql("trino").endswith(" OFFSET 1")
    assert corpus_lake.runs.offset(2).limit(3).to_sql("trino").endswith(" LIMIT 3")
    assert "any_value(value, true)" in corpus_lake.runs.select(param("arch")).to_sql("spark")
    assert "min_by(min_step, min)" in corpus_lake.runs.select(metric("acc").arg_min()).to_sql("trino")
    smooth = corpus_lake.metrics.with_columns(x=col("value").ema(0.5).over("run_id", order_by="step"))
    assert "aggregate(collect_list(" in smooth.to_sql("databricks")
    assert "reduce(array_agg(" in smooth.to_sql("trino")
    low = corpus_lake.metrics.with_columns(x=col("value").min().over("run_id"))
    assert "FILTER" not in low.to_sql("trino")  # it has none over windows
    assert "ORDER BY NULL" in corpus_lake.runs.distinct("experiment").to_sql("spark")


@pytest.mark.parametrize(
    ("value", "duckdb", "spark", "trino"),
    [
        (None, "NULL", "NULL", "NULL"),
        (True, "TRUE", "TRUE", "TRUE"),
        (-3, "BIGINT '-3'", "-3L", "BIGINT '-3'"),
        (1e300, "1e+300", "1e+300D", "1e+300"),
        (-math.inf, "CAST('-Infinity' AS DOUBLE)", "CAST('-Infinity' AS DOUBLE)", "-infinity()"),
        (math.nan, "CAST('NaN' AS DOUBLE)", "CAST('NaN' AS DOUBLE)", "nan()"),
        (b"\x00a", "from_hex('0061')", "X'0061'", "X'0061'"),
        (("a", 1), "('a', BIGINT '1')", "('a', 1L)", "('a', BIGINT '1')"),
        (
            datetime(2020, 2, 29, tzinfo=UTC), "TIMESTAMPTZ '2020-02-29 00:00:00.000000+00'",
            "TIMESTAMP '2020-02-29 00:00:00.000000Z'", "TIMESTAMP '2020-02-29 00:00:00.000000 UTC'",
        ),
        (
            timedelta(seconds=-1.5), "to_microseconds(-1500000)", "INTERVAL '-1.500000' SECOND",
            "INTERVAL '-1.500000' SECOND",
        ),
    ],
)  # fmt: skip
def test_literals(value: object, duckdb: str, spark: str, trino: str) -> None:
    const = Const.of(value)  # type: ignore[arg-type]
    assert [dialect.literal("p0", const) for dialect in (DuckDB(), Spark(), Trino())] == [duckdb, spark, trino]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_writes_every_function(dialect: Dialect) -> None:
    x, by, text = Text("x", "float"), Text("b", "time"), Text("s", "text")
    for over in ("", " OVER (PARTITION BY k)"):
        for function in ("count", "n_unique", "sum", "mean", "std", "min", "max", "any", "all"):
            assert over in dialect.aggregate(function, [x], [], over)
        assert over in dialect.aggregate("count_rows", [], [], over)
        assert over in dialect.aggregate("quantile", [x], [0.25], over)
        assert over in dialect.aggregate("ema", [x], [0.25], over)
        assert over in dialect.aggregate("arg_max", [x, by], [], over)
    for function in ("like", "ilike", "matches", "starts_with", "ends_with", "contains"):
        assert "s" in dialect.call(function, [text, text])
    for kind in dialect.types:
        assert dialect.types[kind] in dialect.cast(Text("i", "int"), kind)
