"""Locks that one holds, that a crash releases, and that a fork does not keep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import ckptlake
from ckptlake._internal.locks import exclusive, exclusive_if_free, release, try_lock
from ckptlake.errors import StorageError


def open_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def start_holder(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock at `path` until it is killed."""
    script = """
    import sys, time
    from pathlib import Path
    from ckptlake._internal.locks import exclusive
    with exclusive(Path(sys.argv[1]), 10):
        print("held", flush=True)
        time.sleep(60)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(ckptlake.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


class TestTryLock:
    def test_is_for_one_open_file_at_a_time(self, tmp_path: Path) -> None:
        first, second = open_file(tmp_path / "lock"), open_file(tmp_path / "lock")
        assert try_lock(first)
        assert not try_lock(second)
        release(first)
        assert try_lock(second)
        release(second)

    def test_is_not_lost_when_the_file_is_opened_and_closed_elsewhere(self, tmp_path: Path) -> None:
        first, second = open_file(tmp_path / "lock"), open_file(tmp_path / "lock")
        assert try_lock(first)
        os.close(open_file(tmp_path / "lock"))
        (tmp_path / "lock").read_bytes()
        assert not try_lock(second)
        release(first)
        release(second)

    def test_stays_with_a_file_that_is_renamed(self, tmp_path: Path) -> None:
        first = open_file(tmp_path / "lock")
        assert try_lock(first)
        (tmp_path / "lock").rename(tmp_path / "renamed")
        second = open_file(tmp_path / "renamed")
        assert not try_lock(second)
        release(first)
        release(second)

    def test_other_refusals_are_raised(self, tmp_path: Path) -> None:
        descriptor = open_file(tmp_path / "lock")
        os.close(descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            try_lock(descriptor)

    def test_is_not_kept_by_a_forked_child(self, tmp_path: Path) -> None:
        first = open_file(tmp_path / "lock")
        assert try_lock(first)
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
        try:
            os.close(first)
            second = open_file(tmp_path / "lock")
            deadline = time.monotonic() + 3
            while not (taken := try_lock(second)) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert taken
            release(second)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            from ckptlake._internal import locks

            locks._held.discard(first)


class TestExclusive:
    def test_waits_until_it_is_free(self, tmp_path: Path) -> None:
        order: list[str] = []
        held = threading.Event()

        def hold() -> None:
            with exclusive(tmp_path / "lock", 5):
                held.set()
                time.sleep(0.2)
                order.append("first")

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(5)
        with exclusive(tmp_path / "lock", 10):
            order.append("second")
        thread.join()
        assert order == ["first", "second"]

    def test_lets_one_in_at_a_time(self, tmp_path: Path) -> None:
        inside, most = [0], [0]

        def work() -> None:
            for _ in range(20):
                with exclusive(tmp_path / "lock", 30):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0.0002)
                    inside[0] -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]

    def test_gives_up_after_a_time_and_says_what_to_do(self, tmp_path: Path) -> None:
        with exclusive(tmp_path / "lock", 1):
            started = time.monotonic()
            with (
                pytest.raises(StorageError, match=r"lock .*lock has been held for .* delete that file"),
                exclusive(tmp_path / "lock", 0.2),
            ):
                pass
            assert 0.1 < time.monotonic() - started < 5

    def test_is_given_up_when_the_block_raises(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), exclusive(tmp_path / "lock", 1):
            raise KeyError
        with exclusive(tmp_path / "lock", 0.1):
            pass

    def test_is_given_up_by_a_process_that_is_killed(self, tmp_path: Path) -> None:
        holder = start_holder(tmp_path / "lock")
        try:
            with exclusive_if_free(tmp_path / "lock") as free:
                assert not free
        finally:
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
        with exclusive(tmp_path / "lock", 5):
            pass

    def test_leaves_no_open_files(self, tmp_path: Path) -> None:
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(50):
            with exclusive(tmp_path / "lock", 1):
                with exclusive_if_free(tmp_path / "lock") as free:
                    assert not free
                with pytest.raises(StorageError), exclusive(tmp_path / "lock", 0.001):
                    pass
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        assert after <= before


class TestExclusiveIfFree:
    def test_tells_whether_it_is_held(self, tmp_path: Path) -> None:
        with exclusive_if_free(tmp_path / "lock") as first, exclusive_if_free(tmp_path / "lock") as second:
            assert (first, second) == (True, False)
        with exclusive_if_free(tmp_path / "lock") as third:
            assert third
