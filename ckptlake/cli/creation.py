"""`ckptlake init`."""

from __future__ import annotations

import json
import shlex

from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption
from ckptlake.errors import NotALakeError

_NEXT = """
Log to it from Python:

    import ckptlake

    lake = ckptlake.open({python})
    with lake.run(experiment="first") as run:
        run.log({{"loss": 0.5}}, step=0)

and look at it:

    ckptlake runs list --lake {quoted}"""


def init(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Create a lake.

    The directory is new or empty; a lake that is there already stays as it is.
    """
    from ckptlake.lake import open
    from ckptlake.tables.layout import read_identity

    try:
        read_identity(lake.expanduser().absolute())
        is_new = False
    except NotALakeError:
        is_new = True
    opened = open(lake)
    path = str(opened.path)
    if as_json:
        console.json({"path": path, "lake_id": opened.id, "created_at": opened.created_at, "created": is_new})
        return
    console.line(f"{'Created a lake in' if is_new else 'There is a lake already in'} {path}")
    if is_new:
        console.block(_NEXT.format(python=json.dumps(path, ensure_ascii=False), quoted=shlex.quote(path)))
