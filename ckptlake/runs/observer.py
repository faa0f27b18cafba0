"""What a run records by itself: where it was started from, and how the machine is doing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from ckptlake.config import Capture

logger = logging.getLogger(__name__)


class Observer:
    """Captures the environment once and samples the system in a thread of its own, off the training loop."""

    def __init__(
        self,
        lake_path: Path,
        capture: Capture,
        record_environment: Callable[[dict[str, object]], None],
        record_system: Callable[[dict[str, float]], None],
        interval_s: float,
    ) -> None:
        self._lake_path = lake_path
        self._capture = capture
        self._record_environment = record_environment
        self._record_system = record_system
        self._interval_s = interval_s
        self._directory = _working_directory()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, *, samples: bool) -> None:
        """Begin; `samples` says whether this process is the one that samples the system."""
        wants_environment = any((self._capture.git, self._capture.host, self._capture.command, self._capture.packages))
        if not samples and not wants_environment:
            return
        self._thread = threading.Thread(
            target=self._observe, args=(samples, wants_environment), name="ckptlake-observe", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End after a last sample; what has been recorded is with the writer when this returns."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def _observe(self, samples: bool, wants_environment: bool) -> None:
        if wants_environment:
            self._record_environment(environment_columns(self._capture, self._directory))
        if not samples:
            return
        from ckptlake.runs.system import SystemSampler

        sampler = SystemSampler(self._lake_path)
        sampler.prime()
        try:
            while not self._stop.wait(self._interval_s):
                self._record_system(sampler.sample())
            self._record_system(sampler.sample())
        finally:
            sampler.close()


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def environment_columns(capture: Capture, directory: Path) -> dict[str, object]:
    """Return the columns of an `environment` event; what is switched off stays null."""
    from ckptlake.runs.environment import capture as capture_environment

    found = capture_environment(directory, git=capture.git, packages=capture.packages)
    columns: dict[str, object] = {}
    if capture.host:
        columns |= {"host": found.host, "pid": found.pid}
    if capture.command:
        columns["command"] = found.command
    if capture.packages:
        columns |= {"python": found.python, "packages": json.dumps(found.packages, sort_keys=True)}
    if found.git is not None:
        columns |= {
            "git_commit": found.git.commit or None,
            "git_branch": found.git.branch,
            "git_dirty": found.git.dirty,
            "git_diff_bytes": found.git.diff_bytes,
        }
    return columns
