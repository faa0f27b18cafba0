"""Rows that are acknowledged and not committed, as readers of any process see them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ckptlake
from ckptlake import Capture, Lake
from ckptlake.runs import live
from ckptlake.runs.frames import Stream, pack_calls, pack_rows
from ckptlake.runs.journal import Journal
from ckptlake.runs.live import LiveReader

STREAM = Stream("r", "e", 1)


class Log:
    """A writer's journal to which numbered points are appended."""

    def __init__(self, directory: Path, writer: str = "w") -> None:
        self.journal = Journal(directory, "lake", writer)
        self.next = 0

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.journal.add(pack_calls([(STREAM, ("x",), self.next, self.next, (float(self.next),))]))
            self.next += 1
        self.journal.sync((("r", 1, "w/1"),))


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return tmp_path / "wal"


@pytest.fixture
def log(wal: Path) -> Iterator[Log]:
    log = Log(wal)
    yield log
    log.journal.abandon()


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of `unpack` gave."""
    calls: list[int] = []
    real: Callable[..., object] = live.unpack

    def counting(batch: object) -> object:
        rows = real(batch)
        calls.append(rows.num_rows)  # type: ignore[attr-defined]
        return rows

    monkeypatch.setattr(live, "unpack", counting)
    return calls


def steps(reader: LiveReader, committed: dict[str, int] | None = None) -> list[int]:
    rows = reader.read().rows("metrics", committed or {})
    return [] if rows is None else rows.column("step").to_pylist()


class TestReader:
    def test_without_a_directory_there_is_nothing(self, wal: Path) -> None:
        reader = LiveReader(wal)
        found = reader.read()
        assert (found.writers, found.position("metrics"), found.rows("metrics", {})) == (frozenset(), (), None)

    def test_follows_a_growing_segment_and_decodes_each_frame_once(
        self, wal: Path, log: Log, unpacked: list[int]
    ) -> None:
        reader = LiveReader(wal)
        for count in range(1, 6):
            log.write(2)
            for _ in range(3):
                assert steps(reader) == list(range(2 * count))
        assert unpacked == [1] * 10

    def test_passes_over_what_a_snapshot_holds(self, wal: Path, log: Log) -> None:
        log.write(5)
        reader = LiveReader(wal)
        assert steps(reader, {"w": 0}) == [0, 1, 2, 3, 4]
        assert steps(reader, {"w": 3}) == [3, 4]
        assert steps(reader, {"w": 5, "other": 1}) == []
        log.write(1)
        assert steps(reader, {"w": 5}) == [5]
        assert steps(reader, {"w": 3}) == [3, 4, 5]

    def test_reads_sealed_and_live_segments_of_one_writer(self, wal: Path, log: Log, unpacked: list[int]) -> None:
        reader = LiveReader(wal)
        log.write(2)
        assert steps(reader) == [0, 1]
        log.journal.seal((("r", 1, "w/1"),))
        log.write(2)
        log.journal.seal((("r", 1, "w/1"),))
        log.write(1)
        assert len(os.listdir(wal)) == 3
        assert steps(reader) == [0, 1, 2, 3, 4]
        assert steps(reader, {"w": 1}) == [1, 2, 3, 4]
        assert steps(reader, {"w": 3}) == [3, 4]
        log.journal.drop(log.journal.sealed[0])
        assert steps(reader, {"w": 2}) == [2, 3, 4]
        assert unpacked == [1] * 5

    def test_reads_several_writers(self, wal: Path, log: Log) -> None:
        other = Log(wal, "v")
        log.write(2)
        other.write(1)
        reader = LiveReader(wal)
        assert reader.read().writers == {"v", "w"}
        assert sorted(steps(reader)) == [0, 0, 1]
        assert steps(reader, {"w": 2}) == [0]
        other.journal.abandon()

    def test_counts_a_frame_in_two_segments_once(self, wal: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
        log.write(1)

        def refuse(*_: object) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", refuse)
            patch.setattr(os, "ftruncate", refuse)
            with pytest.raises(ckptlake.StorageError):
                log.write(2)
        log.write(0)
        assert len(os.listdir(wal)) == 2
        assert steps(LiveReader(wal)) == [0, 1, 2]

    def test_keeps_tables_apart(self, wal: Path, log: Log) -> None:
        log.write(1)
        log.journal.add(pack_rows("tags", [{"run_id": "r", "key": "k"}]))
        log.write(1)
        found = LiveReader(wal).read()
        tags = found.rows("tags", {})
        assert tags is not None
        assert tags.column("key").to_pylist() == ["k"]
        assert found.rows("params", {}) is None
        summaries = found.rows("summaries", {})
        assert summaries is not None
        assert summaries.select(["n", "first", "last"]).to_pylist() == [{"n": 2, "first": 0.0, "last": 1.0}]

    def test_what_was_read_does_not_grow(self, wal: Path, log: Log) -> None:
        reader = LiveReader(wal)
        log.write(1)
        before = reader.read()
        position = before.position("metrics")
        log.write(1)
        assert steps(reader) == [0, 1]
        rows = before.rows("metrics", {})
        assert rows is not None
        assert rows.num_rows == 1
        assert before.position("metrics") == position != reader.read().position("metrics")

    def test_a_torn_tail_is_left_until_it_is_whole(self, wal: Path, log: Log, unpacked: list[int]) -> None:
        log.write(1)
        (path,) = wal.iterdir()
        short = path.stat().st_size
        log.write(1)
        whole = path.read_bytes()
        reader = LiveReader(wal)
        for size in (short, short + 1, short + 20, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert steps(reader) == [0]
        path.write_bytes(whole)
        assert steps(reader) == [0, 1]
        assert unpacked == [1, 1]

    @pytest.mark.parametrize("at", ["stat", "open"])
    def test_survives_a_segment_that_vanishes_after_the_listing(
        self, wal: Path, log: Log, monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        other = Log(wal, "v")
        other.write(1)
        log.write(2)
        reader = LiveReader(wal)
        doomed = next(path for path in wal.iterdir() if path.name.startswith("v."))
        real_list, real_header = os.listdir, live.read_header

        def listing(path: Path) -> list[str]:
            found = real_list(path)
            if at == "stat":
                doomed.unlink(missing_ok=True)
            return found

        def header(path: Path, *more: object) -> object:
            if path == doomed:
                doomed.unlink()
            return real_header(path)

        monkeypatch.setattr(os, "listdir", listing)
        monkeypatch.setattr(live, "read_header", header)
        assert steps(reader) == [0, 1]
        assert steps(reader) == [0, 1]
        monkeypatch.undo()
        assert reader.read().writers == {"w"}
        other.journal.sealed.clear()

    def test_a_damaged_header_hides_only_its_own_segment(self, wal: Path, log: Log) -> None:
        log.write(1)
        (wal / "v.00000000.wal").write_bytes(b"rubbish")
        (wal / "notes.txt").write_text("x")
        assert steps(LiveReader(wal)) == [0]


class TestOtherProcesses:
    def test_rows_are_seen_within_a_flush(self, tmp_path: Path) -> None:
        script = """
        import sys, ckptlake
        from ckptlake import Capture
        lake = ckptlake.open(sys.argv[1])
        run = lake.run("e", run_id="r", params={"lr": 0.1}, capture=Capture.nothing())
        run.log({"x": 1.0})
        for line in sys.stdin:
            run.log({"x": float(line)})
            if line.startswith("9"):
                run.finish()
            print("logged", flush=True)
        """
        lake = ckptlake.open(tmp_path / "lake")
        environment = {**os.environ, "PYTHONPATH": str(Path(ckptlake.__file__).parents[1])}
        command = [sys.executable, "-c", textwrap.dedent(script), str(lake.path)]
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                self._wait_for(lake, [1.0], timeout_s=30)
                assert lake.sql("SELECT status FROM runs").fetchall() == [("running",)]
                assert lake.sql("SELECT key, number FROM params").fetchall() == [("lr", 0.1)]
                child.stdin.write("2\n")
                child.stdin.flush()
                assert child.stdout.readline() == "logged\n"
                self._wait_for(lake, [1.0, 2.0], timeout_s=4)
                assert lake.table("metrics").version() == -1
                child.stdin.write("9\n")
                child.stdin.flush()
                assert child.stdout.readline() == "logged\n"
                assert self._values(lake) == [1.0, 2.0, 9.0]
                assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]
            finally:
                child.stdin.close()
                child.wait(30)

    def _values(self, lake: Lake) -> list[float]:
        return [value for (value,) in lake.sql("SELECT value FROM metrics ORDER BY step").fetchall()]

    def _wait_for(self, lake: Lake, expected: list[float], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._values(lake) != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self._values(lake) == expected


def test_a_query_never_shows_a_row_twice_while_it_is_committed(lake: Lake) -> None:
    import threading

    reader = ckptlake.open(lake.path)
    run = lake.run(capture=Capture.nothing())
    stop, wrong = threading.Event(), []

    def look() -> None:
        last = 0
        while not stop.is_set():
            ((rows, distinct),) = reader.sql("SELECT count(*), count(DISTINCT step) FROM metrics_raw").fetchall()
            ((summed,),) = reader.sql("SELECT coalesce(sum(n), 0) FROM summaries").fetchall()
            if rows != distinct or rows < last or summed < rows:
                wrong.append((rows, distinct, last, summed))
            last = rows

    thread = threading.Thread(target=look)
    thread.start()
    for step in range(12):
        run.log({"x": 1.0}, step=step)
        lake.flush()
        if step % 2:
            lake.commit()
    stop.set()
    thread.join()
    run.finish()
    assert wrong == []
