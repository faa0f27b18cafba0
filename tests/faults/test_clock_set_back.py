"""A wall clock that is set back: the newest still wins, and no timestamp of a process runs backwards."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from scenes import BY_HAND, NOTHING, open_lake, statuses

from ckptlake import Settings
from ckptlake._internal.clock import Clock

HOUR_NS = 3_600 * 10**9


@pytest.fixture
def falling_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the wall clock finds it a minute earlier than the one before."""
    real, looks = time.time_ns, 0

    def now() -> int:
        nonlocal looks
        looks += 1
        return real() - looks * HOUR_NS // 60

    monkeypatch.setattr(time, "time_ns", now)


@pytest.mark.usefixtures("falling_clock")
def test_timestamps_of_one_process_never_run_backwards(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, Settings(flush_interval_s=0.002, commit_interval_s=0.02))
    with lake.run(run_id="r", capture=NOTHING) as run:
        for step in range(300):
            run.log({"loss": 1.0}, step=step)
            if step % 50 == 0:
                time.sleep(0.01)
                run.log_frame({"step": [step, step], "acc": [0.5, 1.0]})
                run.note(f"at {step}")
    times = [ts for (ts,) in lake.sql("SELECT ts FROM metrics_raw WHERE metric = 'loss' ORDER BY step").fetchall()]
    assert all(earlier < later for earlier, later in pairwise(times))
    ((notes,),) = lake.sql("SELECT notes FROM runs").fetchall()
    assert notes.splitlines() == [f"at {step}" for step in range(0, 300, 50)]
    assert lake.sql("SELECT ended_at >= started_at, duration_s >= 0 FROM runs").fetchall() == [(True, True)]


@pytest.mark.usefixtures("falling_clock")
def test_the_newest_wins_whatever_the_clock_says(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, BY_HAND)
    with lake.run("pose", run_id="r", params={"lr": 1}, capture=NOTHING) as run:
        for value in range(20):
            run.log({"loss": float(value)}, step=0)
            run.log_frame({"step": [0, 0], "acc": [float(value), value + 0.5]})
            run.log_params({"lr": value}, allow_change=True)
            run.set_tags({"stage": value})
            run.rename(f"name {value}")
            run.define("loss", direction="min" if value % 2 else "max")
            if value % 7 == 0:
                lake.commit()
    assert dict(lake.sql("SELECT metric, last FROM summaries").fetchall()) == {"loss": 19.0, "acc": 19.5}
    assert dict(lake.sql("SELECT metric, value FROM metrics").fetchall()) == {"loss": 19.0, "acc": 19.5}
    assert lake.sql("SELECT value FROM params").fetchall() == [("19",)]
    assert lake.sql("SELECT number FROM tags WHERE key = 'stage'").fetchall() == [(19.0,)]
    assert lake.sql("SELECT name FROM runs").fetchall() == [("name 19",)]
    assert lake.sql("SELECT direction FROM definitions").fetchall() == [("min",)]


def test_a_later_attempt_wins_though_its_machine_is_a_year_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lake(tmp_path) as lake, lake.run(run_id="r", params={"lr": 1}, capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=0)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 365 * 24 * HOUR_NS)
    with open_lake(tmp_path) as lake:
        run = lake.run(resume="r", params={"lr": 2}, allow_change=True, capture=NOTHING)
        run.log({"loss": 2.0}, step=0)
        run.flush()
        assert statuses(lake) == {"r": "running"}
        run.finish("failed")
        assert statuses(lake) == {"r": "failed"}
        assert lake.sql("SELECT value, attempt FROM metrics").fetchall() == [(2.0, 2)]
        assert lake.sql("SELECT last FROM summaries").fetchall() == [(2.0,)]
        assert lake.sql("SELECT value FROM params").fetchall() == [("2",)]


def test_what_an_experiment_says_last_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions written one after the other, by a process whose wall clock is set back in between."""
    from ckptlake import experiment as experiments

    real_time = time.time_ns

    class SetBack(datetime):
        hours = 0

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(hours=cls.hours)

    if hasattr(experiments, "datetime"):
        monkeypatch.setattr(experiments, "datetime", SetBack)
    monkeypatch.setattr(time, "time_ns", lambda: real_time() - SetBack.hours * HOUR_NS)
    lake = open_lake(tmp_path)
    for hours, text in enumerate(("first", "second", "third")):
        SetBack.hours = hours
        lake.experiment("pose").describe(text)
    assert lake.sql("SELECT description FROM experiments").fetchall() == [("third",)]


def test_a_clock_set_forward_is_followed_and_never_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = Clock(), time.time_ns
    first = clock.now_us()
    monkeypatch.setattr(time, "time_ns", lambda: real() + HOUR_NS)
    clock.resync()
    second = clock.now_us()
    assert 3_600_000_000 <= second - first < 3_660_000_000
    monkeypatch.setattr(time, "time_ns", lambda: real() - HOUR_NS)
    clock.resync()
    assert clock.now_us() >= second
