"""Sessions of Spark for tests, which skip where pyspark or Java is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


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
