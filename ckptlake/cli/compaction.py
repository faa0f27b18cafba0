"""`ckptlake compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, number_column
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, chosen_tables, open_lake

_COLUMNS = (
    Column("table"),
    number_column("files merged"),
    number_column("into"),
    number_column("rows"),
    number_column("bytes before"),
    number_column("after"),
)


def compact(
    tables: Annotated[list[str] | None, typer.Argument(metavar="TABLE", help="Default: all.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Merge small files into few large ones.

    This is safe beside running processes. The replaced files stay for older snapshots until a vacuum deletes them.
    """
    with open_lake(lake) as opened:
        chosen = chosen_tables(opened, tables)
        done = [(name, table.compact()) for name, table in console.progress(chosen, "compacting", quiet=as_json)]
    if as_json:
        console.json_list(
            [
                {
                    "table": name,
                    "files_before": merged.files_before,
                    "files_after": merged.files_after,
                    "rows": merged.rows,
                    "bytes_before": merged.bytes_before,
                    "bytes_after": merged.bytes_after,
                }
                for name, merged in done
            ]
        )
        return
    rows = [
        [
            name,
            f"{merged.files_before:,}",
            f"{merged.files_after:,}",
            f"{merged.rows:,}",
            wording.size(merged.bytes_before),
            wording.size(merged.bytes_after),
        ]
        for name, merged in done
        if merged.files_before
    ]
    if rows:
        console.note(console.table(_COLUMNS, rows))
    else:
        console.line("nothing to merge")
