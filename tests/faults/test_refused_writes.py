"""A disk that refuses, and Ctrl-C in the middle of a write: each row arrives once all the same."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scenes import NOTHING, open_lake, segments, statuses, steps_of

from ckptlake import CkptlakeError, Lake, Run, StorageError
from ckptlake.runs import wal
from ckptlake.runs.frames import table_of
from ckptlake.runs.wal import read_segment

WRITES = 12


class Disk:
    """Stands before `os.write`, `os.fdatasync` and `os.ftruncate`; does `harm` at one numbered call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.harmful: range | tuple[int, ...] = ()
        self.harm: Callable[[], None] = lambda: None
        self.only: str | None = None
        self.real = {name: getattr(os, name) for name in ("write", "fdatasync", "ftruncate")}
        monkeypatch.setattr(os, "write", self._write)
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)
        monkeypatch.setattr(os, "ftruncate", self._ftruncate)

    def _harmed(self, name: str) -> bool:
        if self.only not in (None, name):
            return False
        self.calls += 1
        return self.calls in self.harmful

    def _write(self, descriptor: int, payload: memoryview) -> int:
        if not self._harmed("write"):
            return int(self.real["write"](descriptor, payload))
        self.real["write"](descriptor, bytes(payload)[: len(payload) // 2])
        self.harm()
        return len(payload) // 2

    def _fdatasync(self, descriptor: int) -> None:
        if self._harmed("fdatasync"):
            self.harm()
        self.real["fdatasync"](descriptor)

    def _ftruncate(self, descriptor: int, size: int) -> None:
        if self.only == "ftruncate" and self._harmed("ftruncate"):
            self.harm()
        self.real["ftruncate"](descriptor, size)


def refuse(number: int) -> Callable[[], None]:
    def harm() -> None:
        raise OSError(number, os.strerror(number))

    return harm


def write_through(run: Run, lake: Lake, failure: type[BaseException]) -> set[int]:
    """Log and flush one by one whatever is refused; returns the steps whose flush returned."""
    acknowledged = set()
    for step in range(WRITES // 2):
        with contextlib.suppress(failure):
            run.log({"loss": step / 7, "acc": 1.0}, step=step)
        with contextlib.suppress(failure):
            run.flush()
            acknowledged.add(step)
    return acknowledged


def check_once_each(root: Path, lake: Lake) -> None:
    expected = [step for step in range(WRITES // 2) for _ in range(2)]
    assert steps_of(lake) == expected
    assert steps_of(open_lake(root)) == expected
    assert lake.sql("SELECT metric, n FROM summaries ORDER BY metric").fetchall() == [
        ("acc", WRITES // 2),
        ("loss", WRITES // 2),
    ]
    assert not segments(root)
    assert not (root / "quarantine").exists()


@pytest.mark.parametrize("number", range(1, 24))
def test_disk_full_at_every_call_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    lake = open_lake(tmp_path)
    disk = Disk(monkeypatch)
    disk.harmful, disk.harm = (number, number + 1), refuse(errno.ENOSPC)
    run = lake.run(capture=NOTHING)
    write_through(run, lake, StorageError)
    with contextlib.suppress(StorageError):
        run.finish()
    disk.harmful = ()
    lake.commit()
    check_once_each(tmp_path, lake)
    assert statuses(lake) == {run.id: "finished"}


@pytest.mark.parametrize("truncation_fails", [False, True])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_sync_that_fails_is_never_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, truncation_fails: bool
) -> None:
    lake = open_lake(tmp_path)
    disk = Disk(monkeypatch)
    disk.only, disk.harmful, disk.harm = "fdatasync", (number,), refuse(errno.EIO)
    if truncation_fails:
        monkeypatch.setattr(os, "ftruncate", lambda *_: refuse(errno.EIO)())
    run = lake.run(capture=NOTHING)
    write_through(run, lake, StorageError)
    with contextlib.suppress(StorageError):
        run.finish()
    lake.commit()
    check_once_each(tmp_path, lake)


def test_frames_before_a_segment_broke_are_synced_before_they_are_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write fails behind frames not synced yet, and cutting back fails too: both files need a sync."""
    lake = open_lake(tmp_path)
    run = lake.run(capture=NOTHING)
    run.flush()
    inodes: dict[int, int] = {}
    real_write, real_sync = os.write, os.fdatasync
    fail_at, writes = 4, 0

    def write(descriptor: int, payload: memoryview) -> int:
        nonlocal writes
        writes += 1
        if writes == fail_at:
            raise OSError(errno.ENOSPC, "no space")
        inodes[os.fstat(descriptor).st_ino] = 1
        return int(real_write(descriptor, payload))

    def sync(descriptor: int) -> None:
        inodes.pop(os.fstat(descriptor).st_ino, None)
        real_sync(descriptor)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(os, "ftruncate", lambda *_: refuse(errno.EIO)())
    run.log({"loss": 1.0}, step=0)
    run.note("a frame of its own")
    with contextlib.suppress(StorageError):
        run.flush()
    run.flush()
    synced = [path for path in (lake.path / "wal").glob("*.wal") if path.stat().st_ino not in inodes]
    held = {table_of(packed) for path in synced for _, packed in read_segment(path).frames}
    assert held >= {"metrics", "runs"}, "acknowledged, and only in a file that was never synced"
    run.finish()
    assert steps_of(lake) == [0]


@pytest.mark.parametrize("number", range(1, 22))
def test_ctrl_c_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The interrupt reaches the main thread between a frame's head and its payload, or behind it."""
    lake = open_lake(tmp_path)
    run = lake.run(capture=NOTHING)
    disk = Disk(monkeypatch)
    disk.harmful, disk.harm = (number,), lambda: signal.raise_signal(signal.SIGINT)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # an interrupt inside a callback of the collector would be reported, not raised
    try:
        write_through(run, lake, KeyboardInterrupt)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.001)
    finally:
        signal.signal(signal.SIGINT, previous)
        gc.enable()
    run.finish()
    lake.commit()
    check_once_each(tmp_path, lake)


def test_a_frame_too_big_for_a_segment_does_not_take_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "MAX_PAYLOAD_BYTES", 100_000)
    lake = open_lake(tmp_path)
    run = lake.run(capture=NOTHING)
    run.log({"loss": 1.0}, step=0)
    run.flush()
    long = "x" * 200_000
    with contextlib.suppress(CkptlakeError):
        run.note(long)
        run.flush()
    for step in range(1, 3):
        run.log({"loss": 1.0}, step=step)
    run.log_frame({"step": range(3, 30_003), "loss": [1.0] * 30_000})
    run.finish()
    assert steps_of(lake) == list(range(30_003))
    assert statuses(lake) == {run.id: "finished"}


def test_refused_commits_leave_no_growing_heap_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = open_lake(tmp_path)
    run = lake.run(capture=NOTHING)
    run.log({"loss": 1.0}, step=0)
    lake.commit()
    run.log({"loss": 1.0}, step=1)
    log = lake._store("metrics").log

    def refused(*_: object, **__: object) -> int:
        raise StorageError("no space")

    monkeypatch.setattr(log, "commit", refused)
    for _ in range(5):
        with pytest.raises(StorageError):
            lake.commit()
    monkeypatch.undo()
    run.finish()
    files = list((tmp_path / "tables" / "metrics").rglob("*.parquet"))
    assert len(files) <= 3, f"five refused commits left {len(files) - 2} files nobody needs"
    assert steps_of(lake) == [0, 1]
