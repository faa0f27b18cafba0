"""All queries of the corpus on a Spark cluster of two processes and on DuckDB: all rows are equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from query_corpus import CORPUS
from spark_sessions import NOISE, assert_same_rows, session

from ckptlake import Lake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), *NOISE]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with session("local-cluster[2,1,1024]") as spark:
        yield spark


@pytest.mark.parametrize("name", CORPUS)
def test_spark_answers_as_duckdb_does(corpus_lake: Lake, spark: Any, name: str) -> None:
    assert_same_rows(corpus_lake, spark, name)
