"""What logging costs the caller, and what a full disk does to it: nothing is lost and it is told."""

from __future__ import annotations

import builtins
import errno
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptlake
from ckptlake import Capture, Lake, Run, Settings, StorageError
from ckptlake.runs.wal import SegmentName, read_header

Start = Callable[..., Run]
Points = Callable[..., list[tuple[str, int, float]]]


class Disk:
    """Full for as long as `full` is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data)

        patch.setattr(os, "write", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake", settings=Settings(flush_interval_s=0.05)) as lake:
        yield lake


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


class TestCostForTheCaller:
    def test_log_does_no_input_or_output(self, start: Start, points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
        run = start()
        run.log({"loss": 0.0})
        callers: dict[str, set[int]] = {}

        def watched(name: str, real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                callers.setdefault(name, set()).add(threading.get_ident())
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("write", "fdatasync", "fsync", "open", "stat", "listdir", "rename", "ftruncate"):
                patch.setattr(os, name, watched(name, getattr(os, name)))
            patch.setattr(builtins, "open", watched("builtins.open", builtins.open))
            patch.setattr(io, "open", watched("io.open", io.open))
            patch.setattr(threading.Event, "wait", watched("wait", threading.Event.wait))
            for step in range(1, 2000):
                run.log(
                    {"loss": 0.5, "nested": {"acc": 1}, "numpy": np.float32(1), "torch": torch.tensor(1)}, step=step
                )
                if step % 100 == 0:
                    time.sleep(0.005)
            wait_until(lambda: "write" in callers)
        assert callers.keys() >= {"write", "fdatasync"}
        assert not any(threading.get_ident() in threads for name, threads in callers.items())
        assert len(points(run)) == 1 + 1999 * 4

    def test_log_does_not_wait_for_a_disk_that_hangs(
        self, start: Start, points: Points, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start()
        run.log({"x": 0.0}, step=0)
        run.flush()
        hanging, go_on, real = threading.Event(), threading.Event(), os.fdatasync

        def hang(descriptor: int) -> None:
            hanging.set()
            go_on.wait(20)
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", hang)
            run.log({"x": 0.0}, step=0)
            assert hanging.wait(10)
            started = time.perf_counter()
            for step in range(1, 1000):
                run.log({"x": 1.0}, step=step)
            run.note("still running")
            run.set_tags("a")
            elapsed_s = time.perf_counter() - started
            go_on.set()
        assert elapsed_s < 1.0
        assert len(points(run)) == 1000

    def test_an_idle_run_writes_nothing(self, lake: Lake, start: Start) -> None:
        start()
        lake.flush()
        time.sleep(0.2)
        before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in lake.path.rglob("*")}
        time.sleep(0.4)
        assert {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in lake.path.rglob("*")} == before


class TestAFullDisk:
    def test_is_told_once_and_loses_nothing(self, lake: Lake, start: Start, points: Points, disk: Disk) -> None:
        run = start()
        run.log({"x": 0.0}, step=0)
        run.flush()
        disk.full = True
        run.log({"x": 1.0}, step=1)
        assert lake._writer is not None
        wait_until(lambda: lake._writer is not None and lake._writer.alarm)
        with pytest.raises(StorageError, match=r"write-ahead segment.*free space on that disk"):
            run.log({"x": 2.0}, step=2)
        for step in (3, 4):
            run.log({"x": float(step)}, step=step)
            time.sleep(0.1)
        with pytest.raises(StorageError):
            run.flush()
        disk.full = False
        wait_until(lambda: len(points(run)) == 5)
        run.log({"x": 5.0}, step=5)
        run.finish()
        assert points(run, "metrics_raw") == [("x", step, float(step)) for step in range(6)]
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_is_told_though_the_log_message_takes_its_time(self, start: Start, disk: Disk) -> None:
        """The loop asks at any moment, also while the flush thread is still writing its own message."""

        class Slow(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                time.sleep(0.3)

        run = start()
        run.flush()
        handler = Slow()
        logging.getLogger("ckptlake").addHandler(handler)
        told = False
        try:
            disk.full = True
            for _ in range(100):
                try:
                    run.log({"x": 1.0})
                except StorageError:
                    told = True
                    break
                time.sleep(0.02)
        finally:
            disk.full = False
            logging.getLogger("ckptlake").removeHandler(handler)
        assert told

    def test_is_told_again_when_it_comes_back(self, lake: Lake, start: Start, disk: Disk) -> None:
        run = start()
        for step in range(2):
            disk.full = True
            run.log({"x": 1.0}, step=10 * step)
            wait_until(lambda: lake._writer is not None and lake._writer.alarm)
            with pytest.raises(StorageError):
                run.log({"x": 2.0}, step=10 * step + 1)
            disk.full = False
            run.flush()

    def test_at_the_end_is_raised_and_the_rows_stay_for_later(
        self, lake: Lake, start: Start, points: Points, disk: Disk
    ) -> None:
        run = start()
        run.log({"x": 1.0})
        disk.full = True
        with pytest.raises(StorageError):
            run.finish()
        disk.full = False
        lake.commit()
        assert points(run) == [("x", 0, 1.0)]
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_does_not_hide_the_error_that_ends_the_block(self, start: Start, disk: Disk) -> None:
        with pytest.raises(KeyError, match="cause") as caught, start() as run:  # noqa: PT012
            run.log({"x": 1.0})
            run.flush()
            disk.full = True
            raise KeyError("cause")
        disk.full = False
        assert any("could not be ended whole" in note for note in caught.value.__notes__)

    def test_bounds_what_is_kept_in_memory(self, tmp_path: Path, disk: Disk) -> None:
        with ckptlake.open(tmp_path / "small", settings=Settings(flush_interval_s=60, max_pending_calls=100)) as lake:
            run = lake.run(capture=Capture.nothing())
            lake.flush()
            disk.full = True
            kept = 0
            for step in range(300):
                try:
                    run.log({"x": 1.0}, step=step)
                except StorageError:
                    break
                kept += 1
            assert 100 <= kept <= 110
            disk.full = False
            lake.flush()
            ((count,),) = lake.sql("SELECT count(*) FROM metrics").fetchall()
            assert kept <= count <= kept + 1


class TestSegments:
    def test_are_sealed_at_a_number_of_points(self, tmp_path: Path) -> None:
        settings = Settings(flush_interval_s=0.05, commit_points=1000)
        with ckptlake.open(tmp_path / "lake2", settings=settings) as lake:
            run = lake.run(capture=Capture.nothing())
            run.log_frame({"x": np.arange(1500.0)})
            lake.flush()
            wait_until(lambda: lake.table("metrics").version() >= 0)
            assert lake.sql("SELECT count(*) FROM metrics_raw").fetchall() == [(1500,)]

    def test_are_committed_at_an_interval(self, tmp_path: Path) -> None:
        settings = Settings(flush_interval_s=0.05, commit_interval_s=0.2)
        with ckptlake.open(tmp_path / "lake3", settings=settings) as lake:
            run = lake.run(capture=Capture.nothing())
            for step in range(3):
                run.log({"x": 1.0}, step=step)
                version = lake.table("metrics").version()
                wait_until(lambda version=version: lake.table("metrics").version() > version)  # type: ignore[misc]
            assert lake.sql("SELECT count(*) FROM metrics_raw").fetchall() == [(3,)]

    def test_name_the_runs_that_are_open(self, lake: Lake, start: Start) -> None:
        first, second = start(), start()
        lake.commit()
        first.finish()
        second.log({"x": 1.0})
        lake.commit()
        headers = [read_header(path)[1] for path in (lake.path / "wal").iterdir() if SegmentName.parse(path.name)]
        assert [[run[:2] for run in header.open_runs] for header in headers] == [[(second.id, 1)]]

    def test_damaged_before_their_commit_are_set_aside_and_not_deleted(self, lake: Lake, start: Start) -> None:
        """Bits that rot between write and commit are found by the checksum; the bytes must not vanish unseen."""
        run = start()
        run.log({"x": 1.0}, step=0)
        run.flush()
        run.log({"x": 2.0}, step=1)
        run.flush()
        (path,) = (path for path in (lake.path / "wal").iterdir() if SegmentName.parse(path.name))
        damaged = bytearray(path.read_bytes())
        damaged[-40] ^= 0xFF
        with path.open("r+b") as file:
            file.write(damaged)
        lake.commit()
        assert [place.name for place in (lake.path / "quarantine").glob("*.json")], "the bytes are set aside"
        with pytest.raises(ckptlake.DamagedSegmentError, match="set aside"):
            run.log({"x": 3.0}, step=2)
