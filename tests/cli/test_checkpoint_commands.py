"""`ckptlake checkpoints list`, `show`, `best`, `pin`, `unpin`, `alias` and `unalias`, on real checkpoints."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import HOSTILE, Outcome, files, invoke, run

from ckptlake import Lake, Run

Cli = Callable[..., Outcome]
Start = Callable[..., Run]


@pytest.fixture
def saved(start: Start) -> list[str]:
    """Three checkpoints of one run and one of another; returns their ids, oldest first."""
    ids = []
    with start("pose/vit", run_id="run-a") as run:
        run.define("val/loss", direction="min")
        for step, loss in ((100, 0.5), (200, math.nan), (300, 0.25)):
            state = {"w": np.full((4, 3), step, "f4"), "n": np.arange(step, dtype="i8")}
            ids.append(run.save_checkpoint(state, step=step, epoch=step // 100, metrics={"val/loss": loss}).id)
    with start("posen", run_id="run-b") as run:
        ids.append(run.save_checkpoint({"w": np.zeros(5, "f4")}, step=50, metrics={"acc": 0.75}, note="a\nb").id)
    return ids


def ids_of(done: Outcome) -> list[str]:
    return [record["checkpoint_id"] for record in done.json]


class TestList:
    def test_the_newest_come_first_in_json_and_in_the_table(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "list", "--json")
        assert ids_of(done) == saved[::-1]
        newest, third, second, _ = done.json
        assert (third["step"], third["epoch"], third["run_id"], third["status"]) == (300, 3, "run-a", "good")
        assert third["metrics"] == {"val/loss": 0.25}
        assert second["metrics"] == {"val/loss": "NaN"}
        assert (third["logical_bytes"], third["num_tensors"]) == (4 * 3 * 4 + 300 * 8, 2)
        assert newest["saved_at"].endswith("Z")
        assert [line.split()[0] for line in cli("checkpoints", "list").lines[2:]] == saved[::-1]

    def test_shows_the_metrics_that_most_have(self, cli: Cli, saved: list[str]) -> None:
        shown = cli("checkpoints", "list")
        rows = dict(zip(saved[::-1], shown.lines[2:], strict=True))
        assert shown.lines[0].split()[:5] == ["id", "step", "epoch", "val/loss", "acc"]
        assert rows[saved[1]].split()[1:5] == ["200", "2", "NaN", "-"]
        assert rows[saved[3]].split()[1:5] == ["50", "-", "-", "0.75"]
        assert "acc" not in cli("checkpoints", "list", "--metric", "val/loss").lines[0]

    def test_of_one_run_or_experiment(self, cli: Cli, saved: list[str]) -> None:
        assert ids_of(cli("checkpoints", "list", "--run", "run-b", "--json")) == saved[3:]
        assert ids_of(cli("checkpoints", "list", "--experiment", "pose", "--json")) == saved[2::-1]
        none = cli("checkpoints", "list", "--experiment", "pos")
        assert (none.code, none.out, none.err) == (0, "", "no checkpoint matches\n")
        assert cli("checkpoints", "list", "--run", "run-").code == 1

    @pytest.mark.parametrize(
        ("sort", "order"),
        [
            ("saved:asc", [0, 1, 2, 3]),
            ("step", [2, 1, 0, 3]),
            ("size:asc", [3, 0, 1, 2]),
            ("val/loss", [2, 0, 3, 1]),
            ("val/loss:desc", [0, 2, 3, 1]),
        ],
    )
    def test_in_the_order_asked_for(self, cli: Cli, saved: list[str], sort: str, order: list[int]) -> None:
        assert ids_of(cli("checkpoints", "list", "--sort", sort, "--json")) == [saved[index] for index in order]

    def test_sorting_by_nothing_known_names_what_is_near(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "list", "--sort", "val/los", "--json")
        assert (done.code, done.out, len(saved)) == (2, "", 4)
        assert "did you mean 'val/loss'?" in done.err

    def test_a_limit_says_what_it_leaves_out(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "list", "--limit", "1")
        assert done.lines[2].split()[0] == saved[3]
        assert done.err == "1 of 4 checkpoints; leave out --limit for all\n"

    def test_a_metric_that_none_has_is_remarked_on(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "list", "--metric", "nothing")
        assert len(done.lines) == 2 + len(saved)
        assert done.err == "none of these checkpoints has the metric 'nothing'\n"

    def test_an_empty_lake(self, cli: Cli, lake: Lake) -> None:
        assert cli("checkpoints", "list").err == "no checkpoints yet\n"
        assert cli("checkpoints", "list", "--json", "--sort", "loss").json == [], lake

    @pytest.mark.parametrize("columns", [80, 120])
    def test_fits_the_screen_and_cuts_no_id(self, cli: Cli, saved: list[str], columns: int) -> None:
        done = cli("checkpoints", "list", COLUMNS=str(columns))
        assert max(map(len, done.lines)) <= columns
        assert all(name in done.out for name in saved)


class TestShow:
    @pytest.mark.parametrize("which", ["300", "latest", "best", "best:val/loss"])
    def test_by_step_and_by_what_is_worked_out(self, cli: Cli, saved: list[str], which: str) -> None:
        assert cli("checkpoints", "show", which, "--run", "run-a", "--json").json["checkpoint_id"] == saved[2]

    def test_by_id_and_by_the_beginning_of_one(self, cli: Cli, saved: list[str]) -> None:
        for which in (saved[0], saved[0][:-1]):
            assert cli("checkpoints", "show", which, "--json").json["checkpoint_id"] == saved[0]
        done = cli("checkpoints", "show", saved[0][:9])
        assert (done.code, done.out) == (1, "")
        assert "begins the ids of 4 checkpoints" in done.err

    def test_with_every_tensor(self, cli: Cli, saved: list[str]) -> None:
        tensors = cli("checkpoints", "show", saved[0], "--tensors", "--json").json["tensors"]
        assert [(row["path"], row["dtype"], row["shape"]) for row in tensors] == [
            ("n", "int64", [100]),
            ("w", "float32", [4, 3]),
        ]
        assert tensors[1]["digest"] == hashlib.sha256(np.full((4, 3), 100, "f4").tobytes()).hexdigest()
        assert (tensors[1]["mean"], tensors[0]["max"]) == (100.0, 99.0)
        shown = cli("checkpoints", "show", saved[0], "--tensors")
        assert "4×3" in shown.out
        assert tensors[1]["digest"][:12] in shown.out
        assert tensors[1]["digest"] not in shown.out

    def test_says_what_there_is(self, cli: Cli, saved: list[str]) -> None:
        shown = cli("checkpoints", "show", saved[3]).out
        assert shown.startswith(f"{saved[3]}\n")
        for line in ("run         run-b", "step        50", "verified    never", "acc  0.75"):
            assert line in shown
        assert shown.endswith("\nNote\na\nb\n")

    @pytest.mark.parametrize("which", ["nothing", "", "-", "7", "9" * 19, "9" * 40, "2026", "20261", *HOSTILE])
    def test_what_is_not_there(self, cli: Cli, saved: list[str], which: str) -> None:
        done = cli("checkpoints", "show", which, "--json")
        assert (done.code, done.out, len(saved)) == (1, "", 4)
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert "\x1b" not in done.err


class TestBest:
    def test_as_declared_or_as_told(self, cli: Cli, saved: list[str]) -> None:
        best = ("checkpoints", "best", "val/loss", "--json")
        assert cli(*best).json["checkpoint_id"] == saved[2]
        assert cli(*best, "--direction", "max").json["checkpoint_id"] == saved[0]
        assert cli("checkpoints", "best", "val/loss").lines[0] == saved[2]

    def test_a_direction_is_not_guessed(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "best", "acc")
        assert (done.code, done.out, len(saved)) == (1, "", 4)
        assert "direction" in done.err
        assert cli("checkpoints", "best", "acc", "--direction", "up").code == 2


class TestNames:
    def test_a_pin_comes_and_goes(self, cli: Cli, lake: Lake, saved: list[str]) -> None:
        assert cli("checkpoints", "pin", "100", "--json").json["pinned"] is True
        assert lake.checkpoints.get(saved[0]).pinned
        assert "pinned" in cli("checkpoints", "list").out
        assert cli("checkpoints", "unpin", saved[0]).out == f"{saved[0]} at step 100: no names, not pinned\n"
        assert not lake.checkpoints.get(saved[0]).pinned

    def test_an_alias_moves_and_goes(self, cli: Cli, lake: Lake, saved: list[str]) -> None:
        cli("checkpoints", "alias", "100", "paper")
        assert cli("checkpoints", "alias", "200", "paper").out == f"{saved[1]} at step 200: paper\n"
        assert cli("checkpoints", "show", "paper", "--json").json["checkpoint_id"] == saved[1]
        assert cli("checkpoints", "unalias", "paper", "--json").json["aliases"] == []
        assert lake.checkpoints.find("paper") is None

    @pytest.mark.parametrize("name", ["latest", "best:x", "7", ""])
    def test_a_name_that_cannot_be_given(self, cli: Cli, saved: list[str], name: str) -> None:
        done = cli("checkpoints", "alias", saved[0], name)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")

    def test_a_name_that_is_odd_is_shown_literally(self, cli: Cli, saved: list[str]) -> None:
        done = cli("checkpoints", "alias", saved[0], "[red]x[/]; --")
        assert done.out.endswith("at step 100: [red]x[/]; --\n")
        assert "[red]x[/]; --" in cli("checkpoints", "list").out


COMMANDS = (
    ("list",), ("show", "latest"), ("best", "loss"), ("pin", "latest"), ("unalias", "x"), ("verify", "--all"),
    ("diff", "1", "2"), ("export", "latest", "x.safetensors"), ("prune", "--policy", "latest(1)"), ("delete", "latest"),
    ("gc",), ("compact",), ("protect", "--all"), ("repair",), ("du",),
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_no_command_makes_a_lake_where_there_is_none(cli: Cli, root: Path, words: tuple[str, ...]) -> None:
    for form in ((), ("--json",)):
        done = cli("checkpoints", *words, *form)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert not root.exists()


def test_looking_changes_nothing(cli: Cli, lake: Lake, saved: list[str]) -> None:
    lake.close()
    before = files(lake.path)
    for words in (
        ("list",),
        ("show", "latest", "--tensors"),
        ("best", "val/loss"),
        ("du",),
        ("gc",),
        ("diff", "100", "300"),
    ):
        assert cli("checkpoints", *words).code == 0, words
    assert {name: seen for name, seen in files(lake.path).items() if name in before} == before
    assert len(saved) == 4


def test_the_real_command_answers_too(lake: Lake, saved: list[str]) -> None:
    lake.close()
    done = run("checkpoints", "list", "--json", "--lake", str(lake.path))
    assert (done.code, done.err, ids_of(done)) == (0, "", saved[::-1])
    assert invoke("checkpoints").code == 2
