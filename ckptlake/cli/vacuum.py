"""`ckptlake vacuum`."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, number_column
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, chosen_tables, open_lake


def vacuum(
    tables: Annotated[list[str] | None, typer.Argument(metavar="TABLE", help="Default: all.")] = None,
    retention_hours: Annotated[
        float,
        typer.Option("--retention-hours", min=0, metavar="H", help="Keep what was live within the last H hours."),
    ] = 24,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without this nothing is.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Delete files no recent snapshot needs.

    Without --apply they are only counted, and with --json listed. Afterwards the past before the retention cannot
    be read any more, and a reader still at work on it fails. Rows being written are never touched.
    """
    with open_lake(lake) as opened:
        chosen = chosen_tables(opened, tables)
        found = [
            (name, table.vacuum(dry_run=not apply, retention_hours=retention_hours))
            for name, table in console.progress(chosen, "vacuuming", quiet=as_json)
        ]
    if as_json:
        console.json_list(
            [
                {"table": name, "deleted": one.deleted, "size_bytes": one.size_bytes, "paths": list(one.paths)}
                for name, one in found
            ]
        )
        return
    rows = [[name, f"{len(one.paths):,}", wording.size(one.size_bytes)] for name, one in found if one.paths]
    if not rows:
        console.line("nothing to delete")
        return
    total = sum(one.size_bytes for _, one in found)
    rows.append(["total", f"{sum(len(one.paths) for _, one in found):,}", wording.size(total)])
    console.table((Column("table"), number_column("files"), number_column("size")), rows)
    console.note("deleted" if apply else "nothing is deleted yet: --apply deletes these files")
