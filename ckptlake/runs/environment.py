"""What a run was started from: machine, command line without secrets, packages and Git state."""

from __future__ import annotations

import logging
import os
import platform
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from ckptlake.runs.redaction import redacted_words

logger = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 16
# Set by git for its hooks: a run started from one would otherwise describe the hook's repository.
_REPOSITORY_VARIABLES = frozenset(
    f"GIT_{name}"
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "COMMON_DIR", "PREFIX", "OBJECT_DIRECTORY", "NAMESPACE")
)
# `git diff` rewrites the index even with optional locks off; killed in the middle of that it would
# leave an index.lock behind, so it is told not to.
_WITHOUT_WRITING = ("-c", "diff.autoRefreshIndex=false")
_STATUS = ("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--no-ahead-behind")


@dataclass(frozen=True, slots=True)
class GitState:
    """The checked-out code of a Git work tree.

    Attributes:
        commit: full hash of HEAD, empty before the first commit.
        branch: the branch checked out; None when HEAD is detached.
        dirty: something differs from `commit`, untracked files included.
        diff_bytes: size in bytes of ``git diff HEAD --binary``, which leaves untracked files out.
    """

    commit: str
    branch: str | None
    dirty: bool
    diff_bytes: int


@dataclass(frozen=True, slots=True)
class Environment:
    """The process a run was started in.

    Attributes:
        host: network name of the machine.
        pid: process id.
        command: the command line, quoted for a POSIX shell, with secrets as ``[redacted]``.
        python: version of the interpreter, such as ``3.12.4``.
        packages: version of every installed distribution, by normalised name.
        git: state of the code; None outside a work tree or where git gave no answer.
    """

    host: str
    pid: int
    command: str
    python: str
    packages: dict[str, str]
    git: GitState | None


def capture(directory: Path, *, git: bool = True, packages: bool = True) -> Environment:
    """Return what this process was started from, with the Git state of `directory`.

    With `git` or `packages` off, that part is None or empty and costs no time.
    """
    return Environment(
        host=platform.node(),
        pid=os.getpid(),
        command=shlex.join(redacted_words(_command_words())),
        python=platform.python_version(),
        packages=_installed_packages() if packages else {},
        git=git_state(directory) if git else None,
    )


def git_state(directory: Path, *, timeout_s: float = 10.0) -> GitState | None:
    """Return the state of the work tree around `directory`, or None where there is none to read.

    Takes no lock and writes nothing in the repository. A git that fails, refuses the directory or
    has not finished after `timeout_s` seconds is logged as a warning, never raised.
    """
    try:
        return _read_git_state(directory, time.monotonic() + timeout_s)
    except FileNotFoundError:
        logger.info("the Git state of %s is not recorded: there is no git on PATH", directory)
    except subprocess.TimeoutExpired:
        logger.warning("the Git state of %s is not recorded: git gave no answer within %g s", directory, timeout_s)
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.decode(errors="replace").split())
        # A broken link to a repository says "not a git repository" too, but not "(or any ...".
        if "not a git repository (or any" in reason or "must be run in a work tree" in reason:
            logger.debug("%s is in no Git work tree", directory)
        else:
            logger.warning("the Git state of %s is not recorded: %s", directory, reason[:500] or error)
    except (OSError, ValueError) as error:
        logger.warning("the Git state of %s is not recorded: %s", directory, error)
    return None


def _read_git_state(directory: Path, deadline: float) -> GitState:
    status = bytearray()
    for piece in _git_output(directory, _STATUS, deadline):
        # The headers and one changed file tell all; a million untracked names are not kept.
        if len(status) < _PIECE_BYTES:
            status += piece
    records = status.decode(errors="replace").rstrip("\0").split("\0")
    headers = dict(record[2:].partition(" ")[::2] for record in records if record.startswith("# "))
    if not headers.keys() >= {"branch.oid", "branch.head"}:
        raise ValueError(f"git status answered {records[0]!r:.200} where its branch was expected")
    commit = headers["branch.oid"].replace("(initial)", "")
    branch = headers["branch.head"]
    dirty = any(not record.startswith("# ") for record in records)
    return GitState(
        commit=commit,
        branch=None if branch == "(detached)" else branch,
        dirty=dirty,
        diff_bytes=_diff_bytes(directory, commit, deadline) if dirty else 0,
    )


def _diff_bytes(directory: Path, commit: str, deadline: float) -> int:
    base = commit
    if not base:
        empty_tree = _git_output(directory, ("hash-object", "-t", "tree", "--stdin"), deadline)
        base = b"".join(empty_tree).decode().strip()
    arguments = ("diff", base, "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--")
    return sum(len(piece) for piece in _git_output(directory, arguments, deadline))


def _git_output(directory: Path, arguments: Sequence[str], deadline: float) -> Iterator[bytes]:
    """Yield what git prints as it comes; its standard input is empty.

    Raises:
        OSError: git cannot be started.
        subprocess.TimeoutExpired: it has not finished at `deadline`, of the monotonic clock.
        subprocess.CalledProcessError: it ended with an error; `stderr` says which.
    """
    command = ["git", *_WITHOUT_WRITING, "-C", os.fspath(directory), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    process = subprocess.Popen(
        command,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    complaint = b""
    try:
        with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                remaining_s = deadline - time.monotonic()
                ready = selector.select(remaining_s) if remaining_s > 0 else []
                if not ready:
                    raise subprocess.TimeoutExpired(command, remaining_s)
                for key, _ in ready:
                    piece = os.read(key.fd, _PIECE_BYTES)
                    if not piece:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        yield piece
                    elif len(complaint) < _PIECE_BYTES:
                        complaint += piece
        process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        _end(process)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=complaint)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has not been waited for, with all it has started."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # Stuck in the kernel on a dead network disk, even a killed process stays: it is left to itself.
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


def _command_words() -> list[str]:
    words = list(sys.orig_argv)
    # A worker of multiprocessing is started with code; what the user typed is in its sys.argv.
    if not words or any(word.startswith("from multiprocessing.") for word in words):
        words = [sys.executable or "python", *sys.argv]
    # Arguments that were no UTF-8 hold surrogates, which cannot be stored.
    return [word.encode(errors="replace").decode() for word in words]


def _installed_packages() -> dict[str, str]:
    versions: dict[str, str] = {}
    for distribution in distributions():
        try:
            metadata = distribution.metadata
        except (OSError, ValueError) as error:
            logger.debug("the installed distribution %r has no readable metadata: %s", distribution, error)
            continue
        # None, or without the two names, where a half-removed package left its directory behind.
        if metadata and "Name" in metadata and "Version" in metadata:
            name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()
            # The first on sys.path is the one that imports find.
            versions.setdefault(name, metadata["Version"])
    return dict(sorted(versions.items()))
