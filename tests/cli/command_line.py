"""What the tests of the command line share: ways to run it and to read what it says."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from typer.testing import CliRunner

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-W", "error", "-c", "from ckptlake.cli import main; main()")


@dataclass(frozen=True)
class Outcome:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout, read by a strict parser."""
        return strict(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def strict(text: str) -> Any:
    """Parse JSON and refuse what only Python accepts."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def invoke(*words: str, input: str | None = None, **environment: str) -> Outcome:
    """Run a command in this process."""
    from ckptlake.cli.app import app

    result = CliRunner().invoke(app, list(words), input=input, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}


def spawn(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    options.setdefault("env", environment())
    return subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **options
    )


def run(*words: str, timeout_s: float = 120, **options: Any) -> Outcome:
    """Run a command in a process of its own to its end."""
    process = spawn(*words, **options)
    out, err = process.communicate(timeout=timeout_s)
    return Outcome(process.returncode, out, err)


def on_screen(*words: str, columns: int = 80, answer: str | None = None, timeout_s: float = 120) -> Outcome:
    """Run a command in a terminal of so many columns; `answer` is typed once a question has come."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm-256color")
    )
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.1)[0]:
            continue
        try:
            seen += os.read(ours, 65536)
        except OSError:
            break
        if answer is not None and b"[y/N]" in seen:
            os.write(ours, f"{answer}\n".encode())
            answer = None
    os.close(ours)
    return Outcome(process.wait(timeout=timeout_s), seen.decode().replace("\r\n", "\n"), "")


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program that has ckptlake at hand."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file below `root`."""
    found = (path for path in root.rglob("*"))
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come true in {timeout_s} s"
        time.sleep(0.02)


def json_lines(text: str) -> list[dict[str, Any]]:
    return [strict(line) for line in text.splitlines()]


HOSTILE: Sequence[str] = (
    "[red]x[/]",
    "[/]",
    'it\'s "quoted" `so`; drop table runs --',
    "two\nlines\tand a tab",
    "\x1b[31mred\x1b[0m\x9b2J",
    "ünï 漢字 🛩️ \u202eevil",
    "%s {0} $HOME \\n",
)
