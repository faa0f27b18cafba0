"""`ckptlake runs show`: everything about one run, found by as little of its id as tells it from others."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from command_line import HOSTILE, Outcome, files

from ckptlake import Capture, Lake, Run

Cli = Callable[..., Outcome]


@pytest.fixture
def told(lake: Lake, start: Callable[..., Run]) -> Run:
    run = start(
        "pose/vit",
        name="first",
        run_id="told-1",
        params={
            "lr": 1e-3,
            "optim": {"name": "adamw", "betas": [0.9, 0.99]},
            "big": 2**70,
            "nan": math.nan,
            "no": None,
        },
        tags={"flag": True, "note": "x=y"},
        capture=Capture(system=False),
    )
    run.define("loss", direction="min", step_metric="epoch")
    run.log({"loss": 1.0, "bad": math.nan}, step=0)
    run.log({"loss": 0.5, "bad": math.inf}, step=3)
    run.log({"loss": 2.0}, step=5)
    run.note("line one\nline two [bold]x[/]")
    start("pose/vit", run_id="child-1", parent=run).finish()
    run.finish()
    start("pose/vit", run_id="fork-1", fork_from=("told-1", 3)).finish()
    return run


@pytest.mark.usefixtures("told")
class TestEverything:
    def test_as_json(self, cli: Cli) -> None:
        found = cli("runs", "show", "told-1", "--json").json
        assert found["params"] == {
            "lr": 1e-3,
            "optim.name": "adamw",
            "optim.betas": [0.9, 0.99],
            "big": 2**70,
            "nan": "NaN",
            "no": None,
        }
        assert found["tags"] == {"flag": True, "note": "x=y"}
        loss = found["metrics"]["loss"]
        assert (loss["n"], loss["last"], loss["last_step"], loss["first"], loss["first_step"]) == (3, 2.0, 5, 1.0, 0)
        assert (loss["min"], loss["min_step"], loss["max"], loss["max_step"]) == (0.5, 3, 2.0, 5)
        assert (loss["direction"], loss["best"], loss["best_step"], loss["step_metric"]) == ("min", 0.5, 3, "epoch")
        assert (found["metrics"]["bad"]["first"], found["metrics"]["bad"]["last"]) == ("NaN", "Infinity")
        assert (found["children"], found["forks"]) == (["child-1"], ["fork-1"])
        assert found["notes"] == "line one\nline two [bold]x[/]"
        assert found["packages"]["duckdb"]
        assert (found["name"], found["experiment"], found["status"]) == ("first", "pose/vit", "finished")

    def test_of_the_related(self, cli: Cli) -> None:
        assert cli("runs", "show", "child-1", "--json").json["parent_run_id"] == "told-1"
        fork = cli("runs", "show", "fork-1", "--json").json
        assert (fork["forked_from_run_id"], fork["forked_from_step"]) == ("told-1", 3)
        assert "forked from  told-1 at step 3" in cli("runs", "show", "fork-1").out

    def test_as_text(self, cli: Cli) -> None:
        shown = cli("runs", "show", "told-1")
        assert shown.lines[0] == "told-1"
        lines = {" ".join(line.split()) for line in shown.lines}
        assert {"name first", "status finished", "lr 0.001", "optim.betas [0.9, 0.99]", "nan NaN", "no null"} <= lines
        assert "loss 3 2 5 0.5 3 2 5 min -" in lines
        assert "bad 2 inf 3 inf 3 inf 3 - 1" in lines
        assert shown.lines[-2:] == ["line one", "line two [bold]x[/]"]
        assert any(line.startswith("child-1 ") for line in lines)
        assert any(line.startswith("fork-1 ") for line in lines)
        assert shown.err == ""


@pytest.mark.usefixtures("told")
class TestWhichRun:
    def test_a_beginning_that_is_unique(self, cli: Cli) -> None:
        assert cli("runs", "show", "to", "--json").json["run_id"] == "told-1"

    def test_a_whole_id_that_also_begins_another(self, cli: Cli, start: Callable[..., Run]) -> None:
        start(run_id="told-12").finish()
        assert cli("runs", "show", "told-1", "--json").json["run_id"] == "told-1"

    def test_a_beginning_of_several_names_them(self, cli: Cli, start: Callable[..., Run]) -> None:
        start(run_id="told-2").finish()
        done = cli("runs", "show", "told", "--json")
        assert (done.code, done.out) == (1, "")
        assert done.err == "error: 'told' begins the ids of 2 runs: told-2, told-1; give more of it\n"

    def test_nothing_so_called(self, cli: Cli) -> None:
        done = cli("runs", "show", "other")
        assert (done.code, done.err) == (
            1,
            "error: the lake has no run 'other'; `ckptlake runs list` shows those it has\n",
        )

    def test_a_name_leads_to_the_id(self, cli: Cli) -> None:
        done = cli("runs", "show", "first")
        assert done.code == 1
        assert "no run id begins with 'first', but 1 run is named so: told-1" in done.err

    @pytest.mark.parametrize("wild", ["", "%", "_", "*", "t%", "told_1", "' or 1=1 --"])
    def test_no_character_is_a_wildcard(self, cli: Cli, wild: str) -> None:
        assert cli("runs", "show", wild).code == 1


def test_hostile_texts_are_shown_literally(cli: Cli, start: Callable[..., Run]) -> None:
    params = {f"p{number}": text for number, text in enumerate(HOSTILE)}
    with start(params=params, tags={text: text for text in HOSTILE}) as run:
        run.log(dict.fromkeys(HOSTILE, 1.0), step=0)
        for text in HOSTILE:
            run.note(text)
    found = cli("runs", "show", run.id, "--json").json
    assert found["params"] == params
    assert found["tags"] == {text: text for text in HOSTILE}
    assert set(found["metrics"]) == set(HOSTILE)
    assert found["notes"] == "\n".join(HOSTILE)
    shown = cli("runs", "show", run.id)
    assert not {"\x1b", "\x9b", "\u202e", "\t"} & set(shown.out)
    assert shown.out.count("[red]x[/]") == 5
    assert "\\x1b[31mred\\x1b[0m" in shown.out


def test_a_traceback_keeps_its_lines(cli: Cli, start: Callable[..., Run]) -> None:
    run = start()
    run.fail(ValueError("bad \x1b[31m colour"))
    shown = cli("runs", "show", run.id)
    assert shown.lines[-1] == "ValueError: bad \\x1b[31m colour"


def test_reading_leaves_no_trace(cli: Cli, told: Run, lake: Lake) -> None:
    lake.close()
    before = files(lake.path)
    for words in (("runs", "list"), ("runs", "show", "told-1"), ("sql", "select * from runs_wide"), ("du",)):
        assert cli(*words).code == 0
    assert cli("tail", "told-1").code == 0
    assert cli("vacuum").code == 0
    assert files(lake.path) == before
