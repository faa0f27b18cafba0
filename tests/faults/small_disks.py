"""A disk so small that it can be filled to the last byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted file system with one big file on it that takes away as much room as is wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free_bytes(self) -> int:
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def fill(self, leaving: int = 0) -> None:
        """Leave so many bytes free, give or take a page; with none not even one more byte can be written."""
        with self._ballast.open("ab", buffering=0) as file:
            if self.free_bytes > leaving:
                size = file.tell()
                os.posix_fallocate(file.fileno(), size, self.free_bytes - leaving)
            if leaving == 0:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x")

    def make_room(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def mounted(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of this size at a directory for the block; where that cannot be, the test is skipped."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip(f"a small disk needs {'root to be mounted' if mount else 'mount(8)'}")
    command = [mount, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk needs a system that lets root mount one: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
