"""The options every command has, and the lake they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ckptlake.lake import Lake
    from ckptlake.tables.table import Table

DEFAULT_LAKE = Path("lake")

LakeOption = Annotated[
    Path, typer.Option("--lake", metavar="DIR", envvar="CKPTLAKE_DIR", help="The lake's directory.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def open_lake(path: Path) -> Lake:
    """Open a lake that exists; a command that only looks never creates one."""
    from ckptlake.lake import open

    return open(path, create=False)


def chosen_tables(lake: Lake, names: Sequence[str] | None) -> dict[str, Table]:
    """Return the tables named, or all; raises before any work where a name is wrong."""
    return {name: lake.table(name) for name in names} if names else {table.name: table for table in lake.tables()}
