"""`ckptlake tail`: the latest points, then every new one exactly once, until the run ends."""

from __future__ import annotations

import math
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import HOSTILE, Outcome, json_lines, python, spawn, wait_until

import ckptlake
from ckptlake import Lake, Run
from ckptlake.cli.points import PointReader

Cli = Callable[..., Outcome]

WRITER = """
    import sys, time, random, math, polars as pl, ckptlake
    from datetime import datetime, timedelta, UTC
    settings = ckptlake.Settings(flush_interval_s=0.03, commit_interval_s=0.4)
    lake = ckptlake.open(sys.argv[1], settings=settings)
    run = lake.run(run_id="live", capture=ckptlake.Capture.nothing())
    run.flush()
    print("started", flush=True)
    sys.stdin.readline()
    random.seed(1)
    for number in range(300):
        run.log({"loss": random.random(), "other": math.nan}, step=random.randrange(100))
        if number % 60 == 30:
            late = datetime.now(UTC) - timedelta(hours=number)
            run.log_frame(pl.DataFrame({"step": [7, 7], "ts": [late, late], "late": [1.0, 1.0]}))
        time.sleep(0.01)
    print(sys.stdin.readline() and "ending", flush=True)
    if sys.argv[2] == "finish":
        run.log({"loss": 0.5}, step=1000)
        lake.close()
    else:
        run.flush()
        import os
        os.kill(os.getpid(), 9)
"""

Key = tuple[str, int, str, str, int]


def keys(points: list[dict[str, Any]]) -> Counter[Key]:
    return Counter((p["metric"], p["step"], p["ts"], str(p["value"]), p["attempt"]) for p in points)


class Following:
    """A `tail` in another process, read line by line as it prints."""

    def __init__(self, *words: str) -> None:
        self.process = spawn("tail", *words)
        self.out: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.out.extend(self.process.stdout)

    def end(self, timeout_s: float = 60) -> Outcome:
        code = self.process.wait(timeout_s)
        self._reading.join(timeout_s)
        assert self.process.stderr is not None
        return Outcome(code, "".join(self.out), self.process.stderr.read())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


Follow = Callable[..., Following]


@pytest.fixture
def writer(root: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start the program above; it waits for a line before it logs, and for another before it ends."""
    started: list[subprocess.Popen[str]] = []

    def writer(ending: str) -> subprocess.Popen[str]:
        process = python(WRITER, str(root), ending)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        return process

    yield writer
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def follow(root: Path) -> Iterator[Follow]:
    started: list[Following] = []

    def follow(*words: str) -> Following:
        started.append(Following(*words, "--lake", str(root)))
        return started[-1]

    yield follow
    for following in started:
        following.close()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


class TestOfALiveWriter:
    def test_every_point_comes_once_and_the_end_ends_it(
        self, cli: Cli, follow: Follow, writer: Callable[[str], subprocess.Popen[str]]
    ) -> None:
        logging = writer("finish")
        tail = follow("live", "--json", "-n", "1000000", "--interval", "0.05")
        go_on(logging)
        wait_until(lambda: len(tail.out) > 50, "following")
        assert logging.poll() is None, "points came before the run had ended"
        go_on(logging)
        ended = tail.end()
        assert (ended.code, ended.err) == (0, "")
        query = "select metric, step, ts, value, attempt from metrics_raw where not starts_with(metric, 'system/')"
        expected = keys(cli("sql", query, "--json").json)
        assert keys(json_lines(ended.out)) == expected
        assert sum(expected.values()) == 300 * 2 + 5 * 2 + 1
        assert max(expected.values()) == 2, "a point was logged twice with all the same"

    def test_a_killed_run_ends_it_once_recovered(
        self, cli: Cli, follow: Follow, writer: Callable[[str], subprocess.Popen[str]]
    ) -> None:
        logging = writer("kill")
        tail = follow("live", "-n", "1000000", "--interval", "0.1")
        go_on(logging)
        go_on(logging)
        assert logging.wait(60) == -signal.SIGKILL
        time.sleep(1)
        assert tail.process.poll() is None
        assert cli("recover", "--json").json["killed_runs"] == ["live"]
        ended = tail.end()
        assert ended.code == 0
        assert ended.err.splitlines()[-1].startswith("live killed after ")
        assert sum(" loss " in line for line in ended.out.splitlines()) == 300

    def test_ctrl_c_is_quiet(self, follow: Follow, writer: Callable[[str], subprocess.Popen[str]]) -> None:
        go_on(writer("finish"))
        tail = follow("live", "--interval", "0.05")
        wait_until(lambda: len(tail.out) > 20, "following")
        tail.process.send_signal(signal.SIGINT)
        ended = tail.end()
        assert ended.code == 130
        assert "Traceback" not in ended.err
        assert "error" not in ended.err

    def test_no_follow_stops_at_once(self, cli: Cli, writer: Callable[[str], subprocess.Popen[str]]) -> None:
        logging = writer("finish")
        go_on(logging)
        wait_until(lambda: len(cli("sql", "select 1 from metrics", "--json").json) > 20, "logging")
        done = cli("tail", "live", "--no-follow", "-n", "5", "--json")
        assert len(json_lines(done.out)) == 5
        assert logging.poll() is None


class TestOfAnEndedRun:
    @pytest.fixture
    def ended(self, start: Callable[..., Run]) -> Run:
        with start(run_id="done") as run:
            for step in range(30):
                run.log({"loss": 1 / (step + 1), "system/cpu": 1.0}, step=step)
            run.log({"odd": math.nan}, step=30)
            run.log({"odd": -math.inf}, step=31)
        return run

    def test_the_latest_in_order_and_no_waiting(self, cli: Cli, ended: Run) -> None:
        done = cli("tail", "don")
        assert [line.split()[3] for line in done.lines] == [*map(str, range(22, 30)), "30", "31"]
        assert done.lines[-1].split()[-2:] == ["odd", "-inf"]
        assert done.err == ""

    def test_n_points(self, cli: Cli, ended: Run) -> None:
        assert len(cli("tail", "done", "-n", "3").lines) == 3
        assert cli("tail", "done", "-n", "0").out == ""
        assert len(cli("tail", "done", "-n", "999").lines) == 32

    def test_of_some_metrics(self, cli: Cli, ended: Run) -> None:
        points = json_lines(cli("tail", "done", "--metric", "odd", "--json").out)
        assert [(p["metric"], p["step"], p["value"]) for p in points] == [("odd", 30, "NaN"), ("odd", 31, "-Infinity")]
        assert all(p["ts"].endswith("Z") and p["attempt"] == 1 for p in points)
        both = json_lines(cli("tail", "done", "--metric", "odd", "--metric", "loss", "-n", "3", "--json").out)
        assert [p["metric"] for p in both] == ["loss", "odd", "odd"]

    def test_a_metric_it_has_not_is_told(self, cli: Cli, ended: Run) -> None:
        done = cli("tail", "done", "--metric", "los", "--json")
        assert (done.code, done.out) == (0, "")
        assert done.err == "no point of 'los' yet; did you mean 'loss'?\n"

    def test_the_machines_own_metrics_only_when_asked(self, cli: Cli, ended: Run) -> None:
        assert not any("system/" in line for line in cli("tail", "done", "-n", "99").lines)
        assert sum("system/" in line for line in cli("tail", "done", "-n", "99", "--system").lines) == 30
        assert len(cli("tail", "done", "-n", "99", "--metric", "system/cpu").lines) == 30

    def test_no_such_run(self, cli: Cli, ended: Run) -> None:
        done = cli("tail", "other", "--json")
        assert (done.code, done.out) == (1, "")

    def test_a_run_without_points(self, cli: Cli, start: Callable[..., Run]) -> None:
        start(run_id="empty").finish()
        done = cli("tail", "empty")
        assert (done.code, done.out, done.err) == (0, "", "no points yet\n")


def test_hostile_metric_names_take_one_line_each(cli: Cli, start: Callable[..., Run]) -> None:
    with start() as run:
        run.log(dict.fromkeys(HOSTILE, 1.0), step=0)
    shown = cli("tail", run.id)
    assert len(shown.lines) == len(HOSTILE)
    assert not {"\x1b", "\x9b", "\u202e", "\t"} & set(shown.out)
    assert {point["metric"] for point in json_lines(cli("tail", run.id, "--json").out)} == set(HOSTILE)


class TestPointReader:
    """What comes late or twice, without clocks: every call follows a flush."""

    @pytest.fixture
    def reader(self, root: Path, lake: Lake, start: Callable[..., Run]) -> Iterator[tuple[Run, PointReader]]:
        run = start(run_id="r")
        lake.flush()
        with ckptlake.open(root, create=False) as reading:
            yield run, PointReader(reading, "r", (), with_system=False)

    def frame(self, run: Run, *points: tuple[int, float], at: datetime) -> None:
        run.log_frame(
            pl.DataFrame(
                {"step": [p[0] for p in points], "loss": [p[1] for p in points], "ts": [at] * len(points)},
                schema_overrides={"ts": pl.Datetime("us", "UTC")},
            )
        )
        run.flush()

    def test_points_of_the_past_and_future_in_any_order(self, reader: tuple[Run, PointReader]) -> None:
        run, points = reader
        now = datetime.now(UTC)
        self.frame(run, (0, 0.0), at=now)
        assert [p.step for p in points.latest(10)] == [0]
        assert points.fresh() == []
        self.frame(run, (1, 1.0), at=now - timedelta(days=1))
        self.frame(run, (2, 2.0), at=now + timedelta(days=1))
        assert [p.step for p in points.fresh()] == [1, 2]
        self.frame(run, (3, 3.0), at=now)
        assert [p.step for p in points.fresh()] == [3]
        assert points.fresh() == []

    def test_repeats_of_a_step_and_whole_doubles(self, reader: tuple[Run, PointReader]) -> None:
        run, points = reader
        now = datetime.now(UTC)
        self.frame(run, (0, 0.0), (0, 0.0), (0, math.nan), at=now)
        assert len(points.latest(10)) == 3
        self.frame(run, (0, 0.0), at=now)
        self.frame(run, (0, math.nan), (0, 0.0), at=now)
        assert sorted(str(p.value) for p in points.fresh()) == ["0.0", "0.0", "nan"]
        assert points.fresh() == []

    def test_what_was_not_shown_at_first_does_not_come_later(self, reader: tuple[Run, PointReader]) -> None:
        run, points = reader
        for step in range(5):
            run.log({"loss": 1.0}, step=step)
        run.flush()
        assert [p.step for p in points.latest(2)] == [3, 4]
        run.log({"loss": 1.0}, step=5)
        run.flush()
        assert [p.step for p in points.fresh()] == [5]

    def test_commits_and_compactions_bring_nothing_new(self, lake: Lake, reader: tuple[Run, PointReader]) -> None:
        run, points = reader
        points.latest(0)
        seen: list[int] = []
        for step in range(6):
            run.log({"loss": 1.0}, step=step)
            if step % 2:
                lake.commit()
            else:
                run.flush()
            seen += [p.step for p in points.fresh()]
        lake.table("metrics").compact()
        assert seen == list(range(6))
        assert points.fresh() == []

    def test_random_arrivals(self, reader: tuple[Run, PointReader]) -> None:
        run, points = reader
        random = np.random.default_rng(0)
        start = datetime.now(UTC)
        expected: Counter[tuple[int, float, datetime]] = Counter()
        got: Counter[tuple[int, float, datetime]] = Counter((p.step, p.value, p.ts) for p in points.latest(100))
        for _ in range(40):
            at = start + timedelta(microseconds=int(random.integers(-5, 6)))
            logged = [(int(random.integers(3)), float(random.integers(2))) for _ in range(random.integers(1, 4))]
            self.frame(run, *logged, at=at)
            expected.update((step, value, at) for step, value in logged)
            if random.random() < 0.6:
                got.update((p.step, p.value, p.ts) for p in points.fresh())
        got.update((p.step, p.value, p.ts) for p in points.fresh())
        assert got == expected
