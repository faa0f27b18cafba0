"""Rows at rest: schemas, Parquet files, Delta tables and their maintenance."""
