"""How names and texts stand in SQL; values never do, they are bound."""

from __future__ import annotations


def quote(identifier: str) -> str:
    """Return `identifier` quoted for SQL, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string literal, for view definitions, where nothing can be bound."""
    return "'" + text.replace("'", "''") + "'"


def escape_glob(path: str) -> str:
    """Return a path that DuckDB takes for itself and not for a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)
