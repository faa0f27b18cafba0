"""Questions: views over snapshots and live rows, and the one door to DuckDB."""
