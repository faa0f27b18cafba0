"""How runs end when a block, a lake or a program does."""

from __future__ import annotations

import traceback
from typing import Protocol, runtime_checkable

from ckptlake.errors import CkptlakeError
from ckptlake.runs.writer import Writer


@runtime_checkable
class EndsWithBlock(Protocol):
    """What holds a run open and ends it as a `with` block does."""

    def end(self, error: BaseException | None) -> None: ...


def is_success(error: BaseException) -> bool:
    """Return whether an exception is a program's way to end well: ``sys.exit()`` or ``sys.exit(0)``."""
    return isinstance(error, SystemExit) and error.code in (None, 0)


def storable_traceback(error: BaseException) -> str:
    """Return the traceback of an exception as text that UTF-8 can hold."""
    text = "".join(traceback.format_exception(error)).rstrip()
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def end_open_runs(writer: Writer, error: BaseException | None) -> None:
    """End all runs a writer has open: failed where an exception ends them, else finished; the caller commits them.

    Raises:
        CkptlakeError: the first that could not be ended whole, after all have been tried.
    """
    refusals: list[CkptlakeError] = []
    writer.commits_later = True
    try:
        for holder in writer.open_holders:
            if isinstance(holder, EndsWithBlock):
                try:
                    holder.end(error)
                except CkptlakeError as refusal:
                    refusals.append(refusal)
    finally:
        writer.commits_later = False
    if refusals:
        raise refusals[0]
