"""Sessions of Spark for tests, which skip where pyspark or Java is missing, and its rows beside DuckDB's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from query_corpus import CORPUS, ORDERED, rows_of

from ckptlake import Lake, Spark

NOISE = [pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")]


@contextmanager
def session(master: str) -> Iterator[Any]:
    """Yield a session of Spark on a master, stopped afterwards."""
    pyspark_sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("there is no Java")
    builder = pyspark_sql.SparkSession.builder.master(master).config("spark.ui.enabled", "false")
    settings = {
        "spark.sql.shuffle.partitions": "2", "spark.default.parallelism": "1", "spark.log.level": "OFF",
        "spark.ui.showConsoleProgress": "false", "spark.sql.session.timeZone": "Asia/Tokyo",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
    }  # fmt: skip
    for key, value in settings.items():
        builder = builder.config(key, value)
    os.environ.setdefault("LC_ALL", "C.UTF-8")  # Java reads the names of files by it
    made = builder.getOrCreate()
    try:
        yield made
    finally:
        made.stop()


def assert_same_rows(lake: Lake, spark: Any, name: str) -> None:
    """Compare all rows of a query of the corpus, and their order where it has one."""
    query = CORPUS[name](lake)
    here, there = query.to_arrow(), query.run_on(Spark(spark)).to_arrow()
    assert there.column_names == here.column_names
    ordered = name in ORDERED
    assert rows_of(there, ordered=ordered) == rows_of(here, ordered=ordered)
