"""How functions of values are written in the SQL of each engine, so that all engines give the same results."""

from __future__ import annotations

from ckptlake.query.dialects.duckdb_sql import DuckDB
from ckptlake.query.dialects.spark_sql import Databricks, Spark
from ckptlake.query.dialects.standard import Dialect, Text, ema_rows
from ckptlake.query.dialects.trino_sql import Trino

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (DuckDB(), Spark(), Trino(), Databricks())}
"""Every dialect by its name."""

__all__ = ["DIALECTS", "Databricks", "Dialect", "DuckDB", "Spark", "Text", "Trino", "ema_rows"]
