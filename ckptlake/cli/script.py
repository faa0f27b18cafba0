"""`ckptlake views`."""

from __future__ import annotations

from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake


def views(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Print a script that gives any DuckDB the lake's views.

    It is a picture of this moment: the views read the files that hold what is committed now. After it every named
    query runs as it stands, without ckptlake.
    """
    with open_lake(lake) as opened:
        script = opened.setup_script()
    if as_json:
        console.json({"script": script})
    else:
        console.stream().write(script)
