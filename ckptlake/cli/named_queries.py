"""`ckptlake query`: each named query is a command whose options are its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, text_column
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake

if TYPE_CHECKING:
    from ckptlake.query.named import NamedQuery, Parameter

_TYPES = {"text": str, "integer": int, "number": float, "boolean": bool}
_CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]


class _Queries(TyperGroup):
    """The named queries as commands, each made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from ckptlake.query.library import list_queries

        return [*super().list_commands(ctx), *(query.name for query in list_queries())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a query.

        Raises:
            QueryNotFoundError: there is none of this name.
        """
        from ckptlake.query.library import get_query

        return super().get_command(ctx, cmd_name) or _command_of(get_query(cmd_name))


app = typer.Typer(
    cls=_Queries, invoke_without_command=True, no_args_is_help=True, subcommand_metavar="[NAME] [ARGS]..."
)


@app.callback()
def query(
    ctx: typer.Context,
    list_all: Annotated[bool, typer.Option("--list", help="List the queries and what they take.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Ask a question that has a name.

    `ckptlake query NAME --help` tells what a query answers, its options and its columns. Options of a query stand
    after its name.
    """
    if ctx.invoked_subcommand is not None:
        before = [name for name in ("list_all", "lake", "as_json") if _is_given(ctx, name)]
        if before:
            raise typer.BadParameter("options stand after the name of the query", ctx=ctx)
        return
    if not list_all:
        raise typer.BadParameter("give the name of a query, or --list", ctx=ctx)
    with open_lake(lake) as opened:
        queries = opened.queries()
    if as_json:
        console.json_list(query.described() for query in queries)
        return
    rows = [[one.name, one.title, " ".join(map(str, one.parameters))] for one in queries]
    omissions = console.table([Column("name"), text_column("title"), text_column("parameters")], rows)
    console.note(omissions)


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _command_of(query: NamedQuery) -> Any:
    """Return the command that runs a query."""
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(
        query.name,
        help=_help_of(query),
        short_help=query.title,
        context_settings={"help_option_names": ["-h", "--help"]},
    )(_function_of(query))
    return typer.main.get_command(single)


def _help_of(query: NamedQuery) -> str:
    columns = "\n".join(f"  {column.name}: {column.meaning}" for column in query.columns)
    return f"{query.title}.\n\n{query.description}\n\n\b\nColumns:\n{columns}"


def _function_of(query: NamedQuery) -> Callable[..., None]:
    """Return a function whose signature has the query's parameters, from which its options are made."""

    def run(lake: Any, as_csv: bool, as_json: bool, **values: object) -> None:
        from ckptlake.cli import answers

        if as_csv and as_json:
            raise typer.BadParameter("give one of --csv and --json", param_hint="'--csv'")
        with open_lake(lake) as opened:
            answers.print_in_form(opened.query(query.name, **values), as_csv=as_csv, as_json=as_json)

    standing = [
        _keyword("as_csv", _CsvOption, False),
        _keyword("lake", LakeOption, DEFAULT_LAKE),
        _keyword("as_json", JsonOption, False),
    ]
    signature = inspect.Signature([*map(_option_of, query.parameters), *standing])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def _option_of(parameter: Parameter) -> inspect.Parameter:
    kind: Any = _TYPES[parameter.type]
    words: Sequence[str] = [f"--{parameter.name.replace('_', '-')}"]
    if parameter.type == "boolean":
        words = [f"{words[0]}/--no-{words[0].removeprefix('--')}"]
    meaning = f"{parameter.meaning[:1].upper()}{parameter.meaning[1:]}."
    option = typer.Option(*words, metavar=parameter.type.upper(), help=meaning)
    default = inspect.Parameter.empty if parameter.required else parameter.default
    optional = kind | None if default is None else kind
    return _keyword(parameter.name, Annotated[optional, option], default)


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
