"""A DuckDB on which a script for other ones is tried while it is written."""

from __future__ import annotations

from ckptlake.query import views
from ckptlake.query.desks import wide_columns
from ckptlake.query.duck import new_connection, readable
from ckptlake.query.names import quote


class Trial:
    """A DuckDB on which a script is tried while it is written, so that its later parts can suit what is there.

    Raises:
        DamagedTableError: from every method: a data file is missing or damaged.
    """

    def __init__(self) -> None:
        self._connection = new_connection()

    def run(self, statement: str) -> None:
        """Run one statement."""
        with readable():
            self._connection.execute(statement)

    def has_rows(self, view: str) -> bool:
        """Tell whether a view has any row."""
        with readable():
            return self._connection.execute(f"SELECT EXISTS (FROM {quote(view)})").fetchall() == [(True,)]

    def wide_columns(self) -> views.WideColumns:
        """Return which columns runs_wide has."""
        with readable():
            return wide_columns(self._connection)
