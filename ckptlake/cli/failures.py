"""How a command ends that cannot do its work: one line on stderr and an exit code, never a traceback.

Exit codes: 1 an error, 2 a command line that makes no sense, 130 stopped by Ctrl-C, 141 nobody reads the output.
A traceback means a bug in ckptlake.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from ckptlake.cli.console import console
from ckptlake.errors import CkptlakeError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
NOT_READ = 141
_PATIENCE_S = 2.0
_SHOW_CURSOR = b"\x1b[?25h"

# typer ships the class behind all its usage errors without a public name.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """The root of the commands; whatever fails below it is told here."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command line and exit."""
        with _warnings_told():
            try:
                code = super().main(*args, **{**extra, "standalone_mode": False})
            except _UsageError as error:
                code = _explain_misuse(error)
            except (typer.Abort, KeyboardInterrupt):
                code = INTERRUPTED
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> None:
        """Run a command; raises `typer.Exit` with its code where it fails."""
        try:
            with _interruptible():
                super().invoke(ctx)
                console.flush()
        except BrokenPipeError:
            _let_output_go()
            raise typer.Exit(NOT_READ) from None
        except (CkptlakeError, OSError) as error:
            console.error(str(error))
            raise typer.Exit(FAILED) from None


def _explain_misuse(error: Any) -> int:
    message = error.format_message()
    command = error.ctx.command_path if error.ctx is not None else "ckptlake"
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        console.note(error.ctx.get_help())
    else:
        console.error(f"{message.rstrip('.')} (see `{command} --help`)")
    return MISUSED


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """End the block at Ctrl-C with its exit code, whatever the interrupt turns into on its way up.

    DuckDB answers it with an error of its own, or not at all while it works on something large; then the process is
    ended after two seconds. That is safe: whatever writes to a lake withstands a kill at any point.
    """
    deadline = threading.Timer(_PATIENCE_S, _end_now)
    deadline.daemon = True
    caught: list[int] = []

    def interrupt(number: int, _: object) -> NoReturn:
        if not caught:
            deadline.start()
        caught.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException:
        if caught:
            raise typer.Exit(INTERRUPTED) from None
        raise
    finally:
        deadline.cancel()
        signal.signal(signal.SIGINT, before)


def _end_now() -> NoReturn:
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    os._exit(INTERRUPTED)


def _let_output_go() -> None:
    """Point stdout nowhere, so that flushing it at exit does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _ConsoleLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.warning(record.getMessage())


@contextlib.contextmanager
def _warnings_told() -> Iterator[None]:
    """Say on stderr for the block what the library logs as a warning."""
    logger, receiver = logging.getLogger("ckptlake"), _ConsoleLog(logging.WARNING)
    logger.addHandler(receiver)
    try:
        yield
    finally:
        logger.removeHandler(receiver)
