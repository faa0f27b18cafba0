"""The result of a query as a table, CSV or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from csv import writer
from datetime import datetime
from typing import TYPE_CHECKING

from ckptlake.cli import strict_json, wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, number_column, text_column

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

_CHUNK_ROWS = 50_000
_ID_LENGTH = 26
_NUMBERS = ("INT", "DOUBLE", "FLOAT", "DECIMAL", "BIGNUM")
_LONG_TEXTS = ("VARCHAR", "BLOB", "STRUCT", "MAP", "UNION", "[")
_PLAN_COLUMNS = ["explain_key", "explain_value"]


def print_in_form(relation: DuckDBPyRelation, *, as_csv: bool, as_json: bool) -> None:
    """Print the result in the form asked for, a table without any."""
    if as_json:
        print_json(relation)
    elif as_csv:
        print_csv(relation)
    else:
        print_table(relation)


def print_json(relation: DuckDBPyRelation) -> None:
    """Print a list with one object a row."""
    names = relation.columns
    console.json_list(dict(zip(names, row, strict=True)) for rows in _chunks(relation) for row in rows)


def print_csv(relation: DuckDBPyRelation) -> None:
    """Print a header and one line a row; NULL is an empty field, lists and structs are JSON."""
    csv = writer(console.stream(), lineterminator="\n")
    csv.writerow(relation.columns)
    for rows in _chunks(relation):
        csv.writerows([_field(value) for value in row] for row in rows)


def _chunks(relation: DuckDBPyRelation) -> Iterator[list[tuple[object, ...]]]:
    """Yield the rows in parts, so that they do not all become Python objects at once."""
    for offset in range(0, len(relation), _CHUNK_ROWS):
        yield relation.limit(_CHUNK_ROWS, offset).fetchall()


def _field(value: object) -> object:
    plain = strict_json.plain(value)
    if isinstance(plain, bool):
        return str(plain).lower()
    return strict_json.dumps_line(plain) if isinstance(plain, list | dict) else plain


def print_table(relation: DuckDBPyRelation) -> None:
    """Print a table; a single row too wide for the screen is turned on its side, so that nothing is cut."""
    if relation.columns == _PLAN_COLUMNS:
        for _, plan in relation.fetchall():
            console.block(plan)
        return
    columns = [_column(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]
    omissions: dict[str, None] = {}
    first = True
    for rows in _chunks(relation):
        cells = [[_cell(value) for value in row] for row in rows]
        if first and len(cells) == 1 and not console.fits(columns, cells):
            console.pairs(zip(relation.columns, cells[0], strict=True))
            return
        omissions[console.table(columns, cells, with_head=first)] = None
        first = False
    if first:
        console.table(columns, [])
        console.note("no rows")
    for omission in filter(None, omissions):
        console.note(f"{omission}; --csv and --json print everything")


def _column(name: str, kind: str) -> Column:
    if any(long in kind for long in _LONG_TEXTS):
        return text_column(name, shortest=_ID_LENGTH)
    return number_column(name) if any(number in kind for number in _NUMBERS) and kind != "INTERVAL" else Column(name)


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return wording.exact_moment(value)
    plain = strict_json.plain(value)
    return plain if isinstance(plain, str) else strict_json.dumps_line(plain)
