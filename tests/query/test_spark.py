"""Queries on a Spark of this machine: rows as DuckDB's, and what else an answer promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from query_corpus import QUICK
from spark_sessions import NOISE, assert_same_rows, session

import ckptlake
from ckptlake import Lake, QueryError, Spark, col, lit

pytestmark = [pytest.mark.timeout(600), *NOISE]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with session("local[2]") as spark:
        yield spark


@pytest.mark.parametrize("name", QUICK)
def test_spark_answers_as_duckdb_does(corpus_lake: Lake, spark: Any, name: str) -> None:
    assert_same_rows(corpus_lake, spark, name)


def test_the_session_given_stays_as_it_was(corpus_lake: Lake, spark: Any) -> None:
    spark.conf.set("spark.sql.ansi.enabled", "false")
    spark.range(3).createOrReplaceTempView("runs")
    corpus_lake.runs.limit(1).run_on(Spark(spark)).to_arrow()
    assert spark.conf.get("spark.sql.ansi.enabled") == "false"
    assert spark.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
    assert spark.table("runs").count() == 3
    assert type(spark).getActiveSession().table("runs").count() == 3


def test_an_answer_in_every_form(corpus_lake: Lake, spark: Any) -> None:
    query = corpus_lake.runs.order_by("run_id").limit(3).select("run_id", "started_at", n=lit(1))
    answer = query.run_on(Spark(spark))
    assert answer.dataframe().columns == ["run_id", "started_at", "n"]
    assert [row["run_id"] for row in answer.to_dicts()] == ["r0", "r1", "r2"]
    assert answer.to_polars().equals(query.to_polars().cast({"n": answer.to_polars()["n"].dtype}))
    assert answer.to_pandas()["started_at"].equals(query.to_pandas()["started_at"])
    assert "CAST(:p0 AS BIGINT)" in answer.compiled.text


def test_what_spark_refuses_is_told(corpus_lake: Lake, spark: Any) -> None:
    answer = corpus_lake.runs.select(x=col("run_id").cast(int)).run_on(Spark(spark))
    with pytest.raises(QueryError, match="CAST_INVALID_INPUT"):
        answer.to_arrow()


@pytest.mark.parametrize(
    ("before", "environment", "remedy"),
    [
        ("import sys; sys.modules['pyspark'] = None", {}, r"pip install 'ckptlake\[spark\]'"),
        ("import pyspark", {"JAVA_HOME": "/nowhere"}, "set JAVA_HOME"),
    ],
    ids=["pyspark", "java"],
)
def test_what_is_missing_is_told_with_the_remedy(before: str, environment: dict[str, str], remedy: str) -> None:
    pytest.importorskip("pyspark")
    code = f"{before}\nfrom ckptlake import Spark, MissingDependencyError\ntry:\n    Spark()\n"
    code += "except MissingDependencyError as error:\n    print('told:', error)"
    paths = os.pathsep.join([str(Path(ckptlake.__file__).parent.parent), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert "told: Spark needs" in run.stdout, run.stderr
    assert re.search(remedy, run.stdout), run.stdout
