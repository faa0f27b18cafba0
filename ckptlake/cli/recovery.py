"""`ckptlake recover`."""

from __future__ import annotations

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake


def recover(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Commit what dead processes left behind.

    Their open runs are marked killed. Any process that logs does this by itself; live processes are not disturbed.
    """
    with open_lake(lake) as opened, console.busy("recovering", quiet=as_json):
        done = opened.recover()
    if as_json:
        console.json(
            {
                "segments": done.segments,
                "frames": done.frames,
                "killed_runs": list(done.killed_runs),
                "quarantined": [str(path) for path in done.quarantined],
            }
        )
        return
    if not done.segments and not done.quarantined:
        console.line("nothing to recover")
        return
    console.line(f"committed {wording.count(done.segments, 'segment')} of processes that died")
    for run_id in done.killed_runs:
        console.line(f"marked killed: {run_id}")
    for path in done.quarantined:
        console.line(f"could not be read, set aside: {path}")
