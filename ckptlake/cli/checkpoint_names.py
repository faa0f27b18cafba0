"""`ckptlake checkpoints pin`, `unpin`, `alias` and `unalias`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli.checkpoint_choice import RunOption, WhichArgument, find_checkpoint, find_run_id
from ckptlake.cli.checkpoint_listing import document, names
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake

if TYPE_CHECKING:
    from ckptlake.checkpoints.records import CheckpointRecord

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The alias.")]


def pin(
    which: WhichArgument, run: RunOption = None, lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False
) -> None:
    """Keep a checkpoint whatever a retention policy says."""
    with open_lake(lake) as opened:
        record = find_checkpoint(opened, which, find_run_id(opened, run))
        _tell(opened.checkpoints.pin(record.id), as_json=as_json)


def unpin(
    which: WhichArgument, run: RunOption = None, lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False
) -> None:
    """Take a pin away."""
    with open_lake(lake) as opened:
        record = find_checkpoint(opened, which, find_run_id(opened, run))
        _tell(opened.checkpoints.unpin(record.id), as_json=as_json)


def alias(
    which: WhichArgument,
    name: NameArgument,
    run: RunOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Give a checkpoint a name of your own.

    In its run the name moves there from any other. What has such a name no retention policy deletes.
    """
    with open_lake(lake) as opened:
        record = find_checkpoint(opened, which, find_run_id(opened, run))
        _tell(opened.checkpoints.alias(record.id, name), as_json=as_json)


def unalias(
    name: NameArgument, run: RunOption = None, lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False
) -> None:
    """Take a name away from the checkpoint that has it."""
    with open_lake(lake) as opened:
        _tell(opened.checkpoints.unalias(name, find_run_id(opened, run)), as_json=as_json)


def _tell(record: CheckpointRecord, *, as_json: bool) -> None:
    if as_json:
        console.json(document(record))
        return
    at = "" if record.step is None else f" at step {record.step}"
    told = names(record)
    console.line(f"{record.id}{at}: {'no names, not pinned' if told == '-' else told}")
