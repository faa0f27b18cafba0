"""Which checkpoints a person means by the words of a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ckptlake.cli.lookup import find_run
from ckptlake.errors import CheckpointNotFoundError, InvalidInputError

if TYPE_CHECKING:
    from ckptlake.checkpoints.records import CheckpointRecord
    from ckptlake.lake import Lake

_T = TypeVar("_T", bound=str)

WHICH = "A step, an id or enough of its beginning, an alias, latest, best or best:METRIC."
_CANDIDATES_SHOWN = 5
_STEP = re.compile(r"-?[0-9]{1,19}")
_ID_BEGUN = re.compile(r"[0-9]{8}-[0-9a-z-]*")

RunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN_ID", help="Only of this run: its id, or enough of its beginning.")
]
ExperimentOption = Annotated[
    str | None, typer.Option("--experiment", metavar="NAME", help="Only of this experiment and those below it.")
]
WhichArgument = Annotated[str, typer.Argument(metavar="WHICH", help=WHICH)]


def as_which(text: str) -> str | int:
    """Return what `text` names a checkpoint by: digits are a step.

    >>> as_which("1200"), as_which("best:val/loss")
    (1200, 'best:val/loss')
    """
    return int(text) if _STEP.fullmatch(text) else text


def one_of(choices: Sequence[_T], text: str, option: str) -> _T:
    """Return the choice that `text` is; raises `typer.BadParameter`, which names the option, where it is none."""
    for choice in choices:
        if choice == text:
            return choice
    raise typer.BadParameter(f"{text!r} is none of {', '.join(choices)}", param_hint=f"'{option}'")


def find_run_id(lake: Lake, text: str | None) -> str | None:
    """Return the whole id of the run that `text` is or begins; raises as `find_run` does."""
    return None if text is None else find_run(lake, text).run_id


def find_checkpoint(lake: Lake, text: str, run_id: str | None = None) -> CheckpointRecord:
    """Return the checkpoint that `text` names, or the only one whose id begins with it.

    Raises:
        CheckpointNotFoundError: none answers to it; the message tells what there is.
        InvalidInputError: several ids begin so, or `text` is empty.
    """
    if not text:
        raise InvalidInputError("the checkpoint's name is empty: give a step, an id, an alias, or 'latest'")
    try:
        return lake.checkpoints.get(as_which(text), run_id)
    except CheckpointNotFoundError:
        if not _ID_BEGUN.fullmatch(text):
            raise
        begun = [record for record in lake.checkpoints.list(run_id) if record.id.startswith(text)]
        if not begun:
            raise
    if len(begun) > 1:
        shown = ", ".join(record.id for record in begun[:_CANDIDATES_SHOWN])
        more = ", …" if len(begun) > _CANDIDATES_SHOWN else ""
        raise InvalidInputError(f"{text!r} begins the ids of {len(begun)} checkpoints: {shown}{more}; give more of it")
    return begun[0]
