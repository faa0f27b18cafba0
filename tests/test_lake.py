"""Lakes opened, closed, opened again, side by side, and left to themselves."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from own_threads import own_threads

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, NotALakeError, ReadOnlyLakeError, RunClosedError, Settings

NOTHING = Capture.nothing()


def values(lake: Lake) -> list[float]:
    return [value for (value,) in lake.sql("SELECT value FROM metrics ORDER BY run_id, step").fetchall()]


def wait_for(lake: Lake, expected: list[float], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while values(lake) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert values(lake) == expected


def run_script(
    script: str, *arguments: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(ckptlake.__file__).parents[1]), **environment},
    )


class TestOpening:
    def test_creates_a_lake_once(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "new" / "lake") as lake, ckptlake.open(lake.path) as again:
            assert lake.id == again.id
            assert lake.created_at == again.created_at

    def test_by_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CKPTLAKE_DIR", str(tmp_path / "from environment"))
        with ckptlake.open() as lake:
            assert lake.path == tmp_path / "from environment"
        monkeypatch.setenv("CKPTLAKE_DIR", "")
        monkeypatch.chdir(tmp_path)
        with ckptlake.open() as lake:
            assert lake.path == tmp_path / "lake"

    def test_a_missing_one_without_creating(self, tmp_path: Path) -> None:
        with pytest.raises(NotALakeError, match="not a lake"):
            ckptlake.open(tmp_path / "none", create=False)
        assert not (tmp_path / "none").exists()

    def test_a_directory_of_other_things(self, tmp_path: Path) -> None:
        (tmp_path / "data.csv").write_text("a")
        with pytest.raises(NotALakeError, match=r"data\.csv"):
            ckptlake.open(tmp_path)
        with pytest.raises(NotALakeError, match="is a file"):
            ckptlake.open(tmp_path / "data.csv")

    def test_by_many_threads_at_once_gives_one_lake(self, tmp_path: Path) -> None:
        for attempt in range(20):
            with ThreadPoolExecutor(8) as pool:
                lakes = list(pool.map(ckptlake.open, [tmp_path / f"lake{attempt}"] * 8))
            assert len({lake.id for lake in lakes}) == 1

    def test_starts_no_thread_and_writes_nothing_more(self, tmp_path: Path) -> None:
        ckptlake.open(tmp_path / "lake").close()
        before = sorted(tmp_path.rglob("*")), own_threads()
        with ckptlake.open(tmp_path / "lake") as lake:
            assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]
            assert own_threads() == before[1]
        assert sorted(tmp_path.rglob("*")) == before[0]

    @pytest.mark.parametrize(
        "settings", [{"flush_interval_s": 0}, {"commit_points": -1}, {"parquet_profile": "small"}], ids=repr
    )
    def test_with_settings_that_make_no_sense(self, settings: dict[str, object]) -> None:
        with pytest.raises(InvalidInputError, match=next(iter(settings))):
            Settings(**settings)  # type: ignore[arg-type]

    def test_one_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with ckptlake.open(tmp_path / "lake") as lake:
            monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
            with pytest.raises(ReadOnlyLakeError, match="reading works"):
                lake.run(capture=NOTHING)
            assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]


class TestSideBySide:
    def test_two_lakes_keep_their_rows_apart(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "a") as first, ckptlake.open(tmp_path / "b") as second:
            with (
                first.run("x", run_id="r", capture=NOTHING) as one,
                second.run("y", run_id="r", capture=NOTHING) as two,
            ):
                for step in range(50):
                    one.log({"m": 1.0}, step=step)
                    two.log({"m": 2.0}, step=step)
            assert (values(first), values(second)) == ([1.0] * 50, [2.0] * 50)
            assert first.sql("SELECT experiment FROM runs").fetchall() == [("x",)]
            first.close()
            with second.run("z", capture=NOTHING) as run:
                run.log({"m": 3.0})
            assert second.sql("SELECT count(*) FROM runs").fetchall() == [(2,)]

    def test_two_objects_on_one_path_see_each_other(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake") as first, ckptlake.open(tmp_path / "lake") as second:
            one, two = first.run(run_id="1", capture=NOTHING), second.run(run_id="2", capture=NOTHING)
            one.log({"m": 1.0})
            two.log({"m": 2.0})
            first.flush()
            second.flush()
            assert values(first) == values(second) == [1.0, 2.0]
            one.finish()
            assert values(second) == [1.0, 2.0]
            first.recover()
            two.log({"m": 3.0})
            two.finish()
            assert values(first) == values(second) == [1.0, 2.0, 3.0]
            assert first.sql("SELECT DISTINCT status FROM runs").fetchall() == [("finished",)]


class TestClosing:
    def test_all_open_runs_end_in_one_commit(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake") as lake:
            lake.run("e", capture=NOTHING).finish()
            before = lake.table("runs").version()
            for number in range(20):
                lake.run("e", run_id=f"r{number}", capture=NOTHING).log({"m": number}, step=0)
        with ckptlake.open(lake.path) as again:
            assert again.table("runs").version() == before + 1
            assert again.table("metrics").version() <= 1
            assert sorted(values(again)) == list(range(20))
            assert again.sql("SELECT DISTINCT status FROM runs").fetchall() == [("finished",)]

    def test_finishes_open_runs_and_commits(self, tmp_path: Path) -> None:
        lake = ckptlake.open(tmp_path / "lake")
        runs = [lake.run(capture=NOTHING) for _ in range(3)]
        for run in runs:
            run.log({"m": 1.0})
        lake.close()
        assert [run.status for run in runs] == ["finished"] * 3
        with pytest.raises(RunClosedError):
            runs[0].log({"m": 2.0})
        with ckptlake.open(lake.path) as again:
            assert values(again) == [1.0] * 3
            assert again.sql("SELECT DISTINCT status FROM runs").fetchall() == [("finished",)]
        assert list((lake.path / "wal").glob("*.wal")) == []

    def test_finishes_a_run_nobody_holds(self, tmp_path: Path) -> None:
        lake = ckptlake.open(tmp_path / "lake")
        lake.run(capture=NOTHING).log({"m": 1.0})
        gc.collect()
        lake.close()
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_stops_its_threads(self, tmp_path: Path) -> None:
        before = own_threads()
        lake = ckptlake.open(tmp_path / "lake")
        lake.run().log({"m": 1.0})
        assert own_threads() > before
        lake.close()
        assert own_threads() == before
        lake.close()

    def test_can_still_be_read(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake") as lake:
            lake.run(run_id="1", capture=NOTHING).log({"m": 1.0})
        with ckptlake.open(tmp_path / "lake") as again, again.run(run_id="2", capture=NOTHING) as run:
            run.log({"m": 2.0})
        assert values(lake) == [1.0, 2.0]

    def test_and_logging_again(self, tmp_path: Path) -> None:
        """A closed lake that is logged to works as a fresh one: rows reach the disk by themselves."""
        lake = ckptlake.open(tmp_path / "lake", settings=Settings(flush_interval_s=0.1, commit_interval_s=0.5))
        with lake.run(run_id="1", capture=NOTHING) as run:
            run.log({"m": 1.0})
        lake.close()
        again = lake.run(run_id="2", capture=NOTHING)
        again.log({"m": 2.0})
        wait_for(ckptlake.open(tmp_path / "lake"), [1.0, 2.0])
        again.finish()
        lake.close()
        assert values(lake) == [1.0, 2.0]

    def test_by_an_error_fails_open_runs(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), ckptlake.open(tmp_path / "lake") as lake:  # noqa: PT012
            lake.run(run_id="r", capture=NOTHING).log({"m": 1.0})
            1 / 0  # noqa: B018
        ((status, notes),) = lake.sql("SELECT status, notes FROM runs").fetchall()
        assert status == "failed"
        assert "ZeroDivisionError" in notes

    def test_long_after_an_error_finishes_open_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What some shell, test runner or debugger remembers of an error is not the end of this run."""
        monkeypatch.setattr(sys, "last_exc", ValueError("long ago"), raising=False)
        monkeypatch.setattr(sys, "last_value", ValueError("long ago"), raising=False)
        lake = ckptlake.open(tmp_path / "lake")
        run = lake.run(capture=NOTHING)
        lake.close()
        assert run.status == "finished"


SCRIPT = """
import sys, ckptlake
from ckptlake import Capture
lake = ckptlake.open(sys.argv[1])
run = lake.run(run_id="r", capture=Capture.nothing())
run.log({"m": 1.0})
"""


class TestEndOfTheProgram:
    def test_finishes_open_runs(self, tmp_path: Path) -> None:
        run_script(SCRIPT, str(tmp_path / "lake"))
        with ckptlake.open(tmp_path / "lake") as lake:
            assert values(lake) == [1.0]
            assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_by_an_error_fails_open_runs(self, tmp_path: Path) -> None:
        run_script(SCRIPT + "raise ValueError('the cause')\n", str(tmp_path / "lake"), check=False)
        with ckptlake.open(tmp_path / "lake") as lake:
            ((status, notes),) = lake.sql("SELECT status, notes FROM runs").fetchall()
            assert (status, values(lake)) == ("failed", [1.0])
            assert "ValueError: the cause" in notes

    def test_finishes_runs_whose_lake_nobody_holds(self, tmp_path: Path) -> None:
        script = """
        import sys, ckptlake
        from ckptlake import Capture
        run = ckptlake.open(sys.argv[1]).run(run_id="r", capture=Capture.nothing())
        run.log({"m": 1.0})
        """
        run_script(script, str(tmp_path / "lake"))
        with ckptlake.open(tmp_path / "lake") as lake:
            lake.recover()
            assert values(lake) == [1.0]
            assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]


class TestReading:
    def test_find_run(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake") as lake:
            assert lake.find_run("r") is None
            with lake.run("e", name="n", run_id="r", params={"lr": 0.1}, capture=NOTHING) as run:
                run.log({"m": 1.0}, step=7)
            known = lake.find_run("r")
            assert known is not None
            assert (known.name, known.experiment, known.status, known.attempt, known.last_step) == (
                "n",
                "e",
                "finished",
                1,
                7,
            )
            assert known.params["lr"].number == 0.1
            assert known.metrics == {"m"}

    def test_delete_runs(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake") as lake:
            for run_id in ("a", "b"):
                with lake.run(run_id=run_id, params={"p": 1}, tags="t", capture=NOTHING) as run:
                    run.log({"m": 1.0})
            open_run = lake.run(run_id="c", capture=NOTHING)
            with pytest.raises(ckptlake.RunNotFoundError, match="'nope'"):
                lake.delete_runs("a", "nope")
            with pytest.raises(InvalidInputError, match="'c' is still running"):
                lake.delete_runs("a", "c")
            assert lake.delete_runs("a") > 0
            open_run.finish()
            for view in ("runs", "params", "tags", "metrics", "summaries"):
                found = {run_id for (run_id,) in lake.sql(f"SELECT run_id FROM {view}").fetchall()}
                assert found - {"c"} == {"b"}, view

    def test_a_bad_query_says_so(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake") as lake:
            for query in ("SELEC 1", "SELECT nope FROM runs", "SELECT * FROM nope"):
                with pytest.raises(ckptlake.QueryError):
                    lake.sql(query)
