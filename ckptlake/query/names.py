"""How names and texts stand in SQL; values never do, they are bound."""

from __future__ import annotations

from collections.abc import Iterable


def quote(identifier: str) -> str:
    """Return `identifier` quoted for SQL, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL string literal, for view definitions, where nothing can be bound."""
    return "'" + text.replace("'", "''") + "'"


def escape_glob(path: str) -> str:
    """Return a path that DuckDB takes for itself and not for a pattern."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


def apart(names: Iterable[str]) -> dict[str, str]:
    """Return a name for each name that no other has in any case: DuckDB does not tell names apart by case.

    >>> apart(["lr", "LR", "seed"])
    {'lr': 'lr', 'LR': 'LR~2', 'seed': 'seed'}
    """
    wanted = list(names)
    taken: set[str] = set()
    found = {}
    for name in wanted:
        candidate, count = name, 1
        while candidate.lower() in taken or (count > 1 and candidate in wanted):
            count += 1
            candidate = f"{name}~{count}"
        taken.add(candidate.lower())
        found[name] = candidate
    return found
