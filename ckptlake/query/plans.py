"""Questions as SQL, kept for when they are asked again: finding the names in one costs as much as a small answer."""

from __future__ import annotations

from dataclasses import dataclass

from ckptlake.query.binding import Bound, bind
from ckptlake.query.compiler import Compiled, compile_query
from ckptlake.query.dialects import DuckDB
from ckptlake.query.known_names import KnownNames
from ckptlake.query.nodes import Table
from ckptlake.query.rewrites import rewrite

_KEPT_PLANS = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """A query with all its names found.

    Attributes:
        bound: the query, made cheaper.
        rewrites: what was done for that, in words.
        compiled: its SQL for DuckDB.
    """

    bound: Bound
    rewrites: tuple[str, ...]
    compiled: Compiled


def plan(table: Table, names: KnownNames) -> Plan:
    """Return the plan of a query.

    Raises:
        InvalidInputError: it names what is not there, or does what values of a kind cannot.
    """
    bound, told = rewrite(bind(table, names))
    return Plan(bound, tuple(told), compile_query(bound, DuckDB()))


class Plans:
    """The plans of one lake's present, which hold until somebody logs something new."""

    def __init__(self) -> None:
        self._kept: tuple[object, dict[Table, Plan]] = (None, {})

    def find(self, table: Table, names: KnownNames) -> Plan:
        """Return the plan of a query, made now or before."""
        told, plans = self._kept
        if told is not names.logged:
            plans = {}
            self._kept = (names.logged, plans)
        found = plans.get(table)
        if found is None:
            found = plan(table, names)
            if len(plans) >= _KEPT_PLANS:
                plans.clear()
            plans[table] = found
        return found
