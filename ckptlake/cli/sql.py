"""`ckptlake sql`."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake
from ckptlake.errors import InvalidInputError, QueryError

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from ckptlake.lake import Lake

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_HINT_OF_PYTHON = re.compile(r"\s*Bind values by name:.*", re.DOTALL)


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Any DuckDB SQL on the lake's views; - reads stdin.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=VALUE",
            help="A value for $NAME: an integer, a float, else text ('in quotes' always); may be repeated.",
        ),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="WHEN", help="Read the past: ISO time (UTC), or a version of metrics."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N rows.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Ask a question in SQL.

    The views are runs, params, tags, metrics, metrics_raw, summaries, experiments, definitions and runs_wide; rows
    that running processes log show up within a second or two. `describe metrics` lists a view's columns.
    """
    from ckptlake.cli import answers

    if as_csv and as_json:
        raise typer.BadParameter("give one of --csv and --json", param_hint="'--csv'")
    text = _text_of(query)
    values = dict(map(_value, param or ()))
    with open_lake(lake) as opened:
        relation = _ask(opened, text, as_of, values)
        total = len(relation)
        shown = relation if limit is None else relation.limit(limit)
        answers.print_in_form(shown, as_csv=as_csv, as_json=as_json)
        if limit is not None and limit < total:
            console.note(f"{limit:,} of {wording.count(total, 'row')}; leave out --limit for all")


def _text_of(query: str) -> str:
    try:
        query = sys.stdin.read() if query == "-" else query
        query.encode()
    except UnicodeError as error:
        raise InvalidInputError(f"the query is not UTF-8: {error}") from None
    if not re.sub(r"--[^\n]*", "", query).strip(" \t\r\n;"):
        raise typer.BadParameter("it is empty", param_hint="'QUERY'")
    return query


def _value(given: str) -> tuple[str, int | float | str]:
    """Return the name and typed value of one --param."""
    name, equals, text = given.partition("=")
    if not equals or not _NAME.fullmatch(name) or name == "as_of":
        raise typer.BadParameter(f"{given!r} is not NAME=VALUE with a plain name", param_hint="'--param'")
    if len(text) > 1 and text[0] == text[-1] == "'":
        return name, text[1:-1]
    if _INTEGER.fullmatch(text):
        return name, int(text)
    return name, float(text) if _FLOAT.fullmatch(text) else text


def _moment(as_of: str | None) -> int | str | datetime | None:
    """Return what --as-of means; what is no version and no time is left to the lake to refuse."""
    if as_of is None or as_of.isdecimal():
        return as_of and int(as_of)
    try:
        moment = datetime.fromisoformat(as_of)
    except ValueError:
        return as_of
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _ask(lake: Lake, query: str, as_of: str | None, values: dict[str, int | float | str]) -> DuckDBPyRelation:
    try:
        return lake.sql(query, as_of=_moment(as_of), **values)
    except QueryError as error:
        message, hints = _HINT_OF_PYTHON.subn("", str(error))
        raise QueryError(message + ("; give values with --param NAME=VALUE" if hints else "")) from error
