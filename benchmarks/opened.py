"""Which files under a directory are opened, as the kernel tells it (Linux)."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_IN_OPEN, _IN_ISDIR, _IN_NONBLOCK = 0x20, 0x40000000, 0o4000
_EVENT = struct.Struct("iIII")


class Opened:
    """Counts the Parquet files opened between entering the block and leaving it; they are in `files` then."""

    def __init__(self, root: Path) -> None:
        self.files: set[str] = set()
        self._root = root

    def __enter__(self) -> Opened:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(_IN_NONBLOCK)
        self._names: dict[int, Path] = {}
        for directory in (
            self._root,
            *(path for path in self._root.rglob("*") if path.is_dir()),
        ):
            watch = libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _IN_OPEN)
            if watch < 0:
                raise OSError(ctypes.get_errno(), f"cannot watch {directory}")
            self._names[watch] = directory
        return self

    def __exit__(self, *_: object) -> None:
        while True:
            try:
                events = os.read(self._descriptor, 1 << 20)
            except BlockingIOError:
                break
            self._note(events)
        os.close(self._descriptor)

    def _note(self, events: bytes) -> None:
        offset = 0
        while offset < len(events):
            watch, mask, _, size = _EVENT.unpack_from(events, offset)
            offset += _EVENT.size
            name = events[offset : offset + size].rstrip(b"\0").decode()
            offset += size
            if not mask & _IN_ISDIR and name.endswith(".parquet"):
                self.files.add(str(self._names[watch] / name))
