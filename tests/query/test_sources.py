"""Live rows and committed ones together, and the past."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest
from own_threads import own_threads

import ckptlake
from ckptlake import metric, param
from ckptlake.config import Capture
from ckptlake.errors import DamagedTableError, InvalidInputError, VersionNotFoundError
from ckptlake.lake import Lake
from ckptlake.tables.compaction import compact

TABLES_OF_A_RUN = {"metrics": 4, "summaries": 2, "params": 1, "tags": 1, "definitions": 1, "runs": 1}


def counts(lake: Lake) -> dict[str, int]:
    return {name: lake.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in TABLES_OF_A_RUN}


def busy_run(lake: Lake) -> Any:
    run = lake.run("e", run_id="r", params={"lr": 1}, tags=["t"], capture=Capture.nothing())
    run.define("m", direction="min")
    for step in range(2):
        run.log({"m": float(step), "n": 1.0}, step=step)
    lake.flush()
    return run


class TestLive:
    def test_acknowledged_rows_are_seen_by_others_before_any_commit(self, lake: Lake) -> None:
        run = busy_run(lake)
        with ckptlake.open(lake.path, create=False) as other:
            assert other.table("metrics").version() == -1
            assert counts(other) == counts(lake) == TABLES_OF_A_RUN
            lake.commit()
            assert other.table("metrics").version() == 1
            assert counts(other) == counts(lake) == TABLES_OF_A_RUN
        run.finish()

    @pytest.mark.parametrize("committed", [1, 2, 3])
    def test_a_commit_between_live_rows_and_snapshots_counts_nothing_twice(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch, committed: int
    ) -> None:
        run = busy_run(lake)
        with ckptlake.open(lake.path, create=False) as other:
            read_live, commits = other._reader._read_live, []

            def read_then_commit() -> Any:
                live = read_live()
                if len(commits) < committed:
                    commits.append(lake.commit())
                    run.log({"m": 100.0 + len(commits)}, step=100 + len(commits))
                    lake.commit()
                return live

            monkeypatch.setattr(other._reader, "_read_live", read_then_commit)
            for expected in ([0, 1, 101], [0, 1, 101, 102], [0, 1, 101, 102, 103]):
                rows = other.sql("SELECT step FROM metrics WHERE metric = 'm' ORDER BY step").fetchall()
                steps = [step for (step,) in rows]
                assert steps == sorted(set(steps)), "a row counts twice"
                assert set(steps) >= {0, 1}, "an acknowledged row is missing"
                assert len(commits) < committed or set(steps) <= set(expected) | {102, 103}
            assert other.sql("SELECT n FROM summaries WHERE metric = 'n'").fetchall() == [(2,)]
            assert counts(other)["runs"] == 1
        run.finish()

    def test_a_compaction_in_between_counts_nothing_twice(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        run = busy_run(lake)
        lake.commit()
        run.log({"m": 2.0}, step=2)
        lake.commit()
        read_live = lake._reader._read_live

        def read_then_compact() -> Any:
            live = read_live()
            for name in ("metrics", "summaries"):
                compact(lake._store(name), everything=True)
            return live

        monkeypatch.setattr(lake._reader, "_read_live", read_then_compact)
        assert lake.sql("SELECT step FROM metrics WHERE metric = 'm' ORDER BY 1").fetchall() == [(0,), (1,), (2,)]
        assert lake.sql("SELECT n FROM summaries WHERE metric = 'm'").fetchall() == [(3,)]
        run.finish()

    def test_repeated_steps_are_told_apart_across_live_and_committed(self, lake: Lake) -> None:
        run = busy_run(lake)
        lake.commit()
        run.log({"m": -5.0}, step=1)
        lake.flush()
        assert lake.sql("SELECT step, value FROM metrics WHERE metric = 'm' ORDER BY 1").fetchall() == [
            (0, 0.0),
            (1, -5.0),
        ]
        summary = "SELECT n, min, last FROM summaries WHERE metric = 'm'"
        assert lake.sql(summary).fetchall() == [(2, -5.0, -5.0)]
        run.log({"m": -7.0}, step=1)
        lake.flush()
        assert lake.sql(summary).fetchall() == [(2, -7.0, -7.0)], "what is cached follows new live rows"
        lake.commit()
        assert lake.sql(summary).fetchall() == [(2, -7.0, -7.0)]
        run.finish()

    def test_readers_beside_a_writer_see_curves_grow_without_gaps(self, lake: Lake) -> None:
        run = lake.run("e", run_id="r", capture=Capture.nothing())
        done, failures = threading.Event(), []

        def read() -> None:
            with ckptlake.open(lake.path, create=False) as other:
                seen = 0
                while not done.is_set():
                    found = other.sql("SELECT count(*), count(DISTINCT step), max(step) FROM metrics").fetchall()[0]
                    if (
                        found[0] != found[1]
                        or found[0] != (-1 if found[2] is None else found[2]) + 1
                        or found[0] < seen
                    ):
                        failures.append((seen, found))
                    seen = found[0]

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for step in range(30):
            run.log({"m": float(step)}, step=step)
            run.flush()
            if step % 3 == 0:
                lake.commit()
        done.set()
        for reader in readers:
            reader.join()
        run.finish()
        assert failures == []


class TestPast:
    @pytest.fixture
    def moments(self, lake: Lake) -> list[datetime]:
        """Three runs of one point, and a moment before, between and after their commits."""
        moments = [datetime.now(UTC)]
        for number in range(3):
            time.sleep(0.01)
            with lake.run(f"e{number}", run_id=f"r{number}", capture=Capture.nothing()) as run:
                run.log({"m": float(number)}, step=number)
            time.sleep(0.01)
            moments.append(datetime.now(UTC))
        return moments

    def test_each_moment_shows_what_was_committed(self, lake: Lake, moments: list[datetime]) -> None:
        open_run = lake.run("live", capture=Capture.nothing())
        open_run.log({"m": 9.0}, step=9)
        lake.flush()
        for number, moment in enumerate(moments):
            forms = (moment, moment.isoformat(), moment.astimezone().replace(tzinfo=None))
            forms += (moment.astimezone(tz=None),)
            for form in forms:
                for view in ("runs", "metrics", "summaries", "runs_wide", "experiments"):
                    assert lake.sql(f"SELECT count(*) FROM {view}", as_of=form).fetchall() == [(number,)], (view, form)
            with lake.connect(as_of=moment) as connection:
                assert connection.execute("SELECT count(*) FROM metrics").fetchall() == [(number,)]
        future = datetime.now(UTC) + timedelta(days=1)
        assert lake.sql("SELECT count(*) FROM metrics", as_of=future).fetchall() == [(3,)]
        assert lake.sql("SELECT count(*) FROM metrics").fetchall() == [(4,)]
        open_run.finish()

    def test_a_version_is_one_of_metrics_and_its_moment_holds_for_the_rest(
        self, lake: Lake, moments: list[datetime]
    ) -> None:
        for version in range(4):
            assert lake.sql("SELECT count(*) FROM metrics", as_of=version).fetchall() == [(version,)]
            assert lake.sql("SELECT count(*) FROM summaries", as_of=version).fetchall() == [(max(version, 1),)]
        for version in (4, 2**70):
            with pytest.raises(VersionNotFoundError, match="newest is 3"):
                lake.sql("FROM metrics", as_of=version)

    def test_a_version_kept_only_by_a_checkpoint_can_be_read(self, lake: Lake, moments: list[datetime]) -> None:
        log = lake.path / "tables" / "metrics" / "_delta_log"
        deltalake.DeltaTable(log.parent, version=2).create_checkpoint()
        for version in (0, 1, 2):
            (log / f"{version:020}.json").unlink()
        with ckptlake.open(lake.path, create=False) as fresh:
            oldest = fresh.table("metrics")._store.log.oldest_version()
            try:
                assert fresh.sql("SELECT count(*) FROM metrics", as_of=2).fetchall() == [(2,)]
            except VersionNotFoundError:
                assert oldest > 2, "a version said to be kept is refused"

    @pytest.mark.parametrize("as_of", [True, -1, 1.5, "yesterday", "2026-13-01", object()])
    def test_what_is_no_moment_is_refused(self, lake: Lake, as_of: Any) -> None:
        with pytest.raises(InvalidInputError, match="as_of"):
            lake.sql("FROM metrics", as_of=as_of)

    @pytest.mark.parametrize("as_of", [datetime.min, datetime.max, datetime.max.replace(tzinfo=UTC)])
    def test_the_ends_of_time_are_moments(self, lake: Lake, moments: list[datetime], as_of: datetime) -> None:
        expected = 0 if as_of.year == 1 else 3
        assert lake.sql("SELECT count(*) FROM metrics", as_of=as_of).fetchall() == [(expected,)]

    def test_a_naive_moment_is_the_clock_on_the_wall(
        self, lake: Lake, moments: list[datetime], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            naive = datetime.fromtimestamp(moments[2].timestamp())
            assert naive.hour != moments[2].hour
            utc = moments[2].astimezone(UTC).replace(tzinfo=None)
            for form in (naive, utc.isoformat()):
                assert lake.sql("SELECT count(*) FROM metrics", as_of=form).fetchall() == [(2,)]
        finally:
            monkeypatch.undo()
            time.tzset()


def test_reading_needs_no_permission_to_write_and_starts_no_thread(
    lake: Lake, put: Callable[..., None], point: Callable[..., dict[str, Any]]
) -> None:
    put(lake, "metrics", point(0, 1.0))
    before = sorted(str(path) for path in Path(lake.path).rglob("*"))
    threads = own_threads()
    with ckptlake.open(lake.path, create=False) as other:
        assert other.sql("SELECT value FROM metrics").fetchall() == [(1.0,)]
        assert own_threads() == threads
    assert sorted(str(path) for path in Path(lake.path).rglob("*")) == before


def test_damaged_rows_concern_only_the_questions_that_need_them(lake: Lake) -> None:
    busy_run(lake).finish()
    (damaged,) = (lake.path / "tables" / "params").glob("**/part-*.parquet")
    damaged.write_bytes(b"PAR1 no longer PAR1")
    with ckptlake.open(lake.path, create=False) as other:
        assert other.runs.count() == 1
        with pytest.raises(DamagedTableError, match="params"):
            other.runs.where(param("lr") < 2).count()
        assert other.runs.where(metric("m").min() == 0.0).count() == 1
