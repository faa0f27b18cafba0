"""The trio init, log, finish on the one active run of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_threads import own_threads

import ckptlake
from ckptlake import InvalidInputError, Lake, RunClosedError, RunExistsError, RunNotFoundError, active


@pytest.fixture(autouse=True)
def lake_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CKPTLAKE_DIR", str(tmp_path / "lake"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ckptlake.runs.environment._installed_packages", dict)
    yield tmp_path / "lake"
    if active._active is not None:
        ckptlake.finish()


def lake(path: Path) -> Lake:
    return ckptlake.open(path, create=False)


def test_a_run_from_start_to_end(lake_path: Path) -> None:
    run = ckptlake.init(project="pose", name="first", config={"lr": 0.1}, tags=["a"], group="sweep")
    assert ckptlake.active_run() is run
    ckptlake.log({"loss": 2.0})
    ckptlake.log({"loss": 1.0})
    ckptlake.log({"loss": 0.5}, step=10)
    ckptlake.finish()
    found = lake(lake_path)
    assert found.sql("SELECT experiment, name, status FROM runs").fetchall() == [("pose", "first", "finished")]
    points = found.sql("SELECT step, value FROM metrics WHERE metric = 'loss' ORDER BY step").fetchall()
    assert points == [(0, 2.0), (1, 1.0), (10, 0.5)]
    assert found.sql("SELECT number FROM params WHERE key = 'lr'").fetchall() == [(0.1,)]
    assert found.sql("SELECT key, value FROM tags ORDER BY key").fetchall() == [("a", "true"), ("group", "sweep")]


def test_a_directory_given_wins_over_the_environment(lake_path: Path, tmp_path: Path) -> None:
    ckptlake.init(dir=tmp_path / "elsewhere")
    ckptlake.finish()
    assert lake(tmp_path / "elsewhere").sql("SELECT experiment FROM runs").fetchall() == [("default",)]
    assert not lake_path.exists()


@pytest.mark.parametrize("call", [ckptlake.active_run, ckptlake.finish, lambda: ckptlake.log({"x": 1.0})])
def test_without_init(call: object) -> None:
    with pytest.raises(RunClosedError, match=r"no run is active: call ckptlake.init"):
        call()  # type: ignore[operator]


def test_after_finish() -> None:
    ckptlake.init()
    ckptlake.finish()
    with pytest.raises(RunClosedError, match="no run is active"):
        ckptlake.log({"x": 1.0})
    with pytest.raises(RunClosedError, match="no run is active"):
        ckptlake.finish()


def test_a_second_init_finishes_the_first(lake_path: Path) -> None:
    first = ckptlake.init(id="first")
    ckptlake.log({"x": 1.0})
    second = ckptlake.init(id="second")
    assert first.status == "finished"
    ckptlake.log({"x": 2.0})
    assert ckptlake.active_run() is second
    ckptlake.finish()
    points = (
        lake(lake_path).sql("SELECT run_id, step, value FROM metrics WHERE metric = 'x' ORDER BY run_id").fetchall()
    )
    assert points == [("first", 0, 1.0), ("second", 0, 2.0)]


@pytest.mark.parametrize("by", ["true", "id"])
def test_resume(lake_path: Path, by: str) -> None:
    ckptlake.init(project="pose", id="r", config={"lr": 0.1})
    ckptlake.log({"x": 1.0}, step=4)
    ckptlake.finish()
    run = ckptlake.init(id="r", resume=True) if by == "true" else ckptlake.init(resume="r")
    assert (run.id, run.attempt, run.experiment) == ("r", 2, "pose")
    ckptlake.log({"x": 2.0})
    ckptlake.finish()
    points = lake(lake_path).sql("SELECT step, value FROM metrics WHERE metric = 'x' ORDER BY step").fetchall()
    assert points == [(4, 1.0), (5, 2.0)]


def test_what_cannot_start_raises_and_leaves_no_active_run(lake_path: Path) -> None:
    ckptlake.init(id="r")
    with pytest.raises(InvalidInputError, match="resume=True needs id="):
        ckptlake.init(resume=True)
    assert ckptlake.active_run().id == "r"
    ckptlake.finish()
    with pytest.raises(RunExistsError):
        ckptlake.init(id="r")
    with pytest.raises(RunExistsError):
        ckptlake.init(id="r", resume=False)
    with pytest.raises(RunNotFoundError):
        ckptlake.init(id="other", resume=True)
    with pytest.raises(InvalidInputError, match="'lr'"):
        ckptlake.init(config={"lr": object()})
    with pytest.raises(InvalidInputError, match="group"):
        ckptlake.init(group=object())  # type: ignore[arg-type]
    with pytest.raises(RunClosedError):
        ckptlake.active_run()
    assert lake(lake_path).sql("SELECT run_id, status FROM runs").fetchall() == [("r", "finished")]


def test_a_run_finished_by_itself_is_no_obstacle(lake_path: Path) -> None:
    run = ckptlake.init(id="r")
    run.finish("failed")
    with pytest.raises(RunClosedError, match="resume='r'"):
        ckptlake.log({"x": 1.0})
    ckptlake.finish()
    assert lake(lake_path).sql("SELECT status FROM runs").fetchall() == [("failed",)]


def test_many_runs_one_after_the_other_leave_no_threads() -> None:
    before = own_threads()
    for _ in range(4):
        ckptlake.init()
        ckptlake.log({"x": 1.0})
        ckptlake.finish()
    ours = own_threads() - before
    assert len(ours) <= 2, ours


@pytest.mark.parametrize(
    "ending", ["", "raise ValueError('the cause')", "import gc; gc.collect()"], ids=["end", "error", "gc"]
)
def test_a_program_that_ends_without_finish_loses_nothing(lake_path: Path, ending: str) -> None:
    script = f"import ckptlake\nckptlake.init(id='r')\nckptlake.log({{'x': 1.0}})\n{ending}"
    environment = {**os.environ, "PYTHONPATH": str(Path(ckptlake.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=False, capture_output=True, timeout=60)
    with lake(lake_path) as found:
        found.recover()
        assert found.sql("SELECT value FROM metrics WHERE metric = 'x'").fetchall() == [(1.0,)]
        status = "failed" if "raise" in ending else "finished"
        assert found.sql("SELECT status FROM runs").fetchall() == [(status,)]
