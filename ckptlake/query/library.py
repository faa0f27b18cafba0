"""The named queries that ckptlake comes with: one SQL file each.

In a checkout they are the files in ``queries/``; a wheel holds copies of them beside this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ckptlake.errors import QueryNotFoundError
from ckptlake.query.front_matter import parse_query
from ckptlake.query.named import Column, NamedQuery, Parameter, nearest

__all__ = ["Column", "NamedQuery", "Parameter", "get_query", "list_queries"]

_SHIPPED = Path(__file__).parent / "library_sql"
_CHECKED_OUT = Path(__file__).parents[2] / "queries"


def list_queries() -> list[NamedQuery]:
    """Return all queries by name.

    Raises:
        InvalidInputError: a file does not begin as it must.

    >>> "leaderboard" in [query.name for query in list_queries()]
    True
    """
    return list(_queries().values())


def get_query(name: str, others: Iterable[str] = ()) -> NamedQuery:
    """Return the query called `name`.

    Args:
        name: the query.
        others: names of other queries, to be told where they are near.

    Raises:
        QueryNotFoundError: there is none; the message has the nearest names.

    >>> get_query("leaderboard").title
    'Leaderboard'
    """
    queries = _queries()
    if name not in queries:
        raise QueryNotFoundError(f"no query is called {name!r}{nearest(name, [*queries, *others], 'there are')}")
    return queries[name]


@lru_cache(maxsize=1)
def _queries() -> dict[str, NamedQuery]:
    files = sorted((_SHIPPED if _SHIPPED.is_dir() else _CHECKED_OUT).glob("*.sql"))
    return {path.stem: parse_query(path.read_text("utf-8"), path.stem, path.name) for path in files}
