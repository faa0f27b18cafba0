"""All queries of the corpus on a Spark cluster of two processes and on DuckDB: all rows are equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from query_corpus import CORPUS, made_lake
from spark_sessions import session
from test_spark import assert_same_rows

from ckptlake import Lake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with session("local-cluster[2,1,1024]") as spark:
        yield spark


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with made_lake(tmp_path_factory.mktemp("corpus")) as lake:
        yield lake


@pytest.mark.parametrize("name", CORPUS)
def test_spark_answers_as_duckdb_does(lake: Lake, spark: Any, name: str) -> None:
    assert_same_rows(lake, spark, name)
