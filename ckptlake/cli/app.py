"""The `ckptlake` command: which commands there are."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import ckptlake
from ckptlake.cli import (
    checkpoints,
    compaction,
    creation,
    disk,
    integrity,
    named_queries,
    recovery,
    runs,
    script,
    sql,
    tail,
    vacuum,
    version,
)
from ckptlake.cli.console import console
from ckptlake.cli.failures import Commands

_ORDER = (
    "init", "runs", "checkpoints", "integrity", "sql", "query", "views", "tail", "recover", "compact", "vacuum", "du",
    "version",
)  # fmt: skip


class _Root(Commands):
    """The commands in the order in which a newcomer meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="ckptlake",
    cls=_Root,
    help="The lakehouse for model training: look at runs, ask questions in SQL, look after the tables.",
    epilog="Every command takes --lake DIR (or CKPTLAKE_DIR, else ./lake) and --json.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.line(f"ckptlake {ckptlake.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None: ...


app.command("init")(creation.init)
app.add_typer(runs.app, name="runs")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(integrity.app, name="integrity")
app.command("sql")(sql.sql)
app.add_typer(named_queries.app, name="query")
app.command("views")(script.views)
app.command("tail")(tail.tail)
app.command("recover")(recovery.recover)
app.command("compact")(compaction.compact)
app.command("vacuum")(vacuum.vacuum)
app.command("du")(disk.du)
app.command("version")(version.version)


def run() -> None:
    """Run a command with the program's arguments and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="ckptlake")
