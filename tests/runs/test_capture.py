"""What a run records of its surroundings by itself, and that each part can be switched off."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ckptlake
from ckptlake import Capture, Lake, Settings

PARTS = {
    "git": ["git_commit", "git_branch", "git_dirty", "git_diff_bytes"],
    "host": ["host", "pid"],
    "command": ["command"],
    "packages": ["python", "packages"],
}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake whose runs start inside a small repository."""
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for arguments in ("init -q -b main", "-c user.name=a -c user.email=a@example.org commit -q --allow-empty -m first"):
        assert os.system(f"git -C {code} {arguments}") == 0
    monkeypatch.chdir(code)
    with ckptlake.open(tmp_path / "lake", settings=Settings(system_interval_s=0.2)) as lake:
        yield lake


def environment(lake: Lake) -> dict[str, Any]:
    columns = [column for part in PARTS.values() for column in part]
    (found,) = lake.sql(f"SELECT {', '.join(columns)} FROM runs").fetchall()
    return dict(zip(columns, found, strict=True))


def system_metrics(lake: Lake) -> set[str]:
    return {name for (name,) in lake.sql("SELECT DISTINCT metric FROM metrics").fetchall()}


class TestEnvironment:
    def test_all_of_it(self, lake: Lake) -> None:
        with lake.run(capture=Capture(system=False)):
            pass
        found = environment(lake)
        assert len(found["git_commit"]) == 40
        assert (found["git_branch"], found["git_dirty"], found["git_diff_bytes"]) == ("main", False, 0)
        assert (found["host"], found["pid"], found["python"]) == (
            platform.node(),
            os.getpid(),
            platform.python_version(),
        )
        assert "pytest" in found["command"]
        assert "numpy" in json.loads(found["packages"])
        assert system_metrics(lake) == set()

    @pytest.mark.parametrize("off", PARTS)
    def test_each_part_can_be_switched_off(self, lake: Lake, off: str) -> None:
        capture = {"packages": False, "system": False, off: False}
        with lake.run(capture=Capture(**capture)):
            pass
        found = environment(lake)
        for part, columns in PARTS.items():
            for column in columns:
                assert (found[column] is None) == (part in {off, "packages"}), column

    def test_nothing(self, lake: Lake) -> None:
        with lake.run(capture=Capture.nothing()) as run:
            run.log({"x": 1.0})
        assert set(environment(lake).values()) == {None}
        assert system_metrics(lake) == {"x"}

    def test_secrets_stay_out_of_the_command(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        words = ["python", "train.py", "--api-key", "s3cret-one", "--wandb_token=s3cret-two", "--lr", "0.1"]
        monkeypatch.setattr(sys, "orig_argv", words)
        with lake.run(capture=Capture(system=False, packages=False, git=False)):
            pass
        command = environment(lake)["command"]
        assert "s3cret" not in command
        assert command.startswith("python train.py --api-key")
        assert command.endswith("--lr 0.1")
        everything = b"".join(path.read_bytes() for path in lake.path.rglob("*") if path.is_file())
        assert b"s3cret" not in everything

    def test_does_not_slow_the_start(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        from ckptlake.runs import environment as module

        monkeypatch.setattr(module, "git_state", lambda directory: time.sleep(1.0))
        with lake.run(capture=Capture(system=False, packages=False)):
            pass
        started = time.perf_counter()
        run = lake.run(capture=Capture(system=False, packages=False))
        assert time.perf_counter() - started < 0.8
        run.finish()
        assert environment_of(lake, run.id) == (os.getpid(),)

    def test_of_a_directory_that_was_removed(self, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with lake.run(capture=Capture(packages=False)):
            pass
        found = environment(lake)
        assert (found["pid"], found["git_commit"]) == (os.getpid(), None)
        assert system_metrics(lake) >= {"system/memory_percent"}

    def test_of_a_resumed_run_is_the_newest(self, lake: Lake) -> None:
        lake.run(run_id="r", capture=Capture(system=False, packages=False)).finish()
        Path("new.txt").write_text("untracked")
        lake.run(resume="r", capture=Capture(system=False, packages=False)).finish()
        assert environment(lake)["git_dirty"] is True


def environment_of(lake: Lake, run_id: str) -> tuple[Any, ...]:
    (found,) = lake.sql("SELECT pid FROM runs WHERE run_id = $run", run=run_id).fetchall()
    return found


class TestSystem:
    def test_is_sampled_until_the_end(self, lake: Lake) -> None:
        with lake.run(capture=Capture(git=False, packages=False)) as run:
            time.sleep(0.9)
        assert {"system/cpu_percent", "system/memory_percent", "system/process_memory_bytes"} <= system_metrics(lake)
        ((samples, first, last),) = lake.sql(
            "SELECT count(*), min(step), max(step) FROM metrics_raw WHERE metric = 'system/memory_percent'"
        ).fetchall()
        assert 3 <= samples <= 7
        assert 0 <= first <= last <= 5
        before = lake.sql("SELECT count(*) FROM metrics_raw").fetchall()
        time.sleep(0.5)
        lake.flush()
        assert lake.sql("SELECT count(*) FROM metrics_raw").fetchall() == before
        assert run.status == "finished"

    def test_even_of_a_short_run(self, lake: Lake) -> None:
        lake.run(capture=Capture(git=False, packages=False)).finish()
        assert "system/memory_percent" in system_metrics(lake)

    def test_does_not_move_the_count_of_steps(self, lake: Lake) -> None:
        with lake.run(capture=Capture(git=False, packages=False)) as run:
            time.sleep(0.5)
            run.log({"x": 1.0})
        assert lake.sql("SELECT step FROM metrics WHERE metric = 'x'").fetchall() == [(0,)]

    def test_is_sampled_once_by_those_who_share_a_run(self, lake: Lake) -> None:
        first = lake.run(run_id="shared", capture=Capture.nothing())
        lake.flush()
        with ckptlake.open(lake.path, settings=Settings(system_interval_s=0.2)) as other:
            other.run(run_id="shared", capture=Capture(git=False, packages=False)).finish()
        first.finish()
        assert system_metrics(lake) == set()

    def test_switched_off(self, lake: Lake) -> None:
        with lake.run(capture=Capture(git=False, packages=False, system=False)):
            time.sleep(0.4)
        assert system_metrics(lake) == set()
