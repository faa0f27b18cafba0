"""`ckptlake runs delete`: what goes is shown and asked about, and then it is really gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from command_line import Outcome, invoke, on_screen, python

from ckptlake import Lake, Run

Cli = Callable[..., Outcome]


@pytest.fixture
def three(lake: Lake, start: Callable[..., Run]) -> list[str]:
    for name in "abc":
        with start(run_id=f"run-{name}", params={"lr": 1}, tags=["t"]) as run:
            run.log({"loss": 1.0, "accuracy": 2.0}, step=0)
    return ["run-a", "run-b", "run-c"]


def rows(lake: Lake, view: str) -> list[str]:
    return sorted({run for (run,) in lake.sql(f"select run_id from {view}").fetchall()})


@pytest.mark.usefixtures("three")
class TestWithYes:
    def test_deletes_every_row_of_these_runs_and_no_other(self, cli: Cli, lake: Lake) -> None:
        done = cli("runs", "delete", "run-a", "run-c", "run-a", "--yes", "--json")
        assert done.json["deleted"] == ["run-a", "run-c"]
        assert done.json["rows"] > 8
        for view in ("runs", "params", "tags", "metrics", "summaries"):
            assert rows(lake, view) == ["run-b"], view
        assert [run["run_id"] for run in cli("runs", "list", "--json").json] == ["run-b"]
        assert cli("runs", "show", "run-a").code == 1

    def test_says_what_it_did(self, cli: Cli) -> None:
        done = cli("runs", "delete", "run-a", "--yes")
        assert done.code == 0
        assert done.out.startswith("deleted 1 run with ")

    def test_takes_whole_ids_only(self, cli: Cli, lake: Lake, start: Callable[..., Run]) -> None:
        start(run_id="other").finish()
        done = cli("runs", "delete", "run-a", "oth", "--yes")
        assert (done.code, done.out) == (1, "")
        assert done.err == "error: 'oth' is only the beginning of 'other': with --yes give the whole id\n"
        assert len(rows(lake, "runs")) == 4

    @pytest.mark.parametrize("wrong", ["", "nothing"])
    def test_one_wrong_id_deletes_nothing(self, cli: Cli, lake: Lake, wrong: str) -> None:
        done = cli("runs", "delete", "run-a", wrong, "--yes", "--json")
        assert (done.code, done.out) == (1, "")
        assert len(rows(lake, "runs")) == 3

    def test_a_running_run_is_refused(self, cli: Cli, lake: Lake, start: Callable[..., Run]) -> None:
        start(run_id="live").flush()
        done = cli("runs", "delete", "run-a", "live", "--yes")
        assert (done.code, done.err) == (1, "error: run 'live' is still running: finish or kill it first\n")
        assert len(rows(lake, "runs")) == 4


@pytest.mark.usefixtures("three")
class TestUnasked:
    @pytest.mark.parametrize("words", [(), ("--json",)], ids=["no terminal", "json"])
    def test_nothing_is_deleted(self, cli: Cli, lake: Lake, words: tuple[str, ...]) -> None:
        done = cli("runs", "delete", "run-a", *words, input="y\n")
        assert (done.code, done.out) == (1, "")
        assert "--yes" in done.err
        assert len(rows(lake, "runs")) == 3


class TestAsked:
    @pytest.mark.parametrize(("answer", "left"), [("y", 1), ("n", 3), ("", 3), ("nay", 3)])
    def test_the_answer_decides(self, lake: Lake, three: list[str], answer: str, left: int) -> None:
        lake.close()
        done = on_screen("runs", "delete", "run-a", "run-b", "--lake", str(lake.path), answer=answer, columns=100)
        assert "Delete 2 runs? [y/N]" in done.out
        assert "run-a" in done.out.partition("[y/N]")[0]
        assert ("deleted 2 runs" in done.out, done.code) == ((True, 0) if left == 1 else (False, 1))
        runs = invoke("runs", "list", "--json", "--lake", str(lake.path)).json
        assert len(runs) == left

    def test_runs_that_stay_behind_are_named(self, lake: Lake, start: Callable[..., Run]) -> None:
        with start(run_id="parent") as parent:
            parent.flush()
            start(run_id="kept", parent=parent).finish()
            start(run_id="named", parent=parent).finish()
        lake.close()
        done = on_screen("runs", "delete", "parent", "named", "--lake", str(lake.path), answer="n", columns=100)
        assert "nested under these, and not deleted with them: kept" in done.out
        assert "nothing is deleted" in done.out


def test_a_run_whose_process_was_killed_can_be_deleted(cli: Cli, lake: Lake) -> None:
    program = """
        import os, sys, ckptlake
        lake = ckptlake.open(sys.argv[1], settings=ckptlake.Settings(commit_interval_s=3600))
        run = lake.run(run_id="victim", capture=ckptlake.Capture.nothing())
        run.log({"loss": 1.0}, step=0)
        run.flush()
        os.kill(os.getpid(), 9)
    """
    process = python(program, str(lake.path))
    process.communicate(timeout=120)
    assert process.returncode == -9
    assert [run["status"] for run in cli("runs", "list", "--json").json] == ["running"]
    assert cli("runs", "delete", "victim", "--yes", "--json").json["deleted"] == ["victim"]
    assert cli("runs", "list", "--json").json == []
