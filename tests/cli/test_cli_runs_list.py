"""`ckptlake runs list`: which runs, in which order, with which values."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from command_line import HOSTILE, Outcome, invoke, on_screen

from ckptlake import Lake, Run

Cli = Callable[..., Outcome]


@pytest.fixture
def five(lake: Lake, start: Callable[..., Run]) -> dict[str, Run]:
    """Runs of three experiments: three finished with losses, one failed, one still running."""
    runs = {}
    for name, experiment, loss in (("a", "pose", 0.3), ("b", "pose/vit", 0.1), ("c", "posen", 0.2)):
        run = start(experiment, name=name, tags={"team": name, "size": 3}, run_id=f"id-{name}")
        run.define("loss", direction="min")
        run.log({"loss": loss, "accuracy": 1 - loss}, step=0)
        run.log({"loss": loss + 1, "accuracy": 1 - loss}, step=1)
        run.finish()
        runs[name] = run
    runs["d"] = start("pose", name="d", tags=["team"], run_id="id-d")
    runs["d"].fail(RuntimeError("no"))
    runs["e"] = start("pose", name="e", run_id="id-e")
    runs["e"].flush()
    return runs


def ids(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return [run["run_id"] for run in outcome.json]


@pytest.mark.usefixtures("five")
class TestWhich:
    def test_all_the_newest_first(self, cli: Cli) -> None:
        assert ids(cli("runs", "list", "--json")) == ["id-e", "id-d", "id-c", "id-b", "id-a"]

    def test_an_experiment_means_its_subtree(self, cli: Cli) -> None:
        assert ids(cli("runs", "list", "--json", "--experiment", "pose")) == ["id-e", "id-d", "id-b", "id-a"]
        assert ids(cli("runs", "list", "--json", "--experiment", "pose/vit")) == ["id-b"]
        assert ids(cli("runs", "list", "--json", "--experiment", "pos")) == []

    def test_status_may_be_repeated(self, cli: Cli) -> None:
        assert ids(cli("runs", "list", "--json", "--status", "failed")) == ["id-d"]
        assert ids(cli("runs", "list", "--json", "--status", "failed", "--status", "running")) == ["id-e", "id-d"]
        assert cli("runs", "list", "--status", "dead").code == 2

    def test_tags_by_name_and_by_value_all_of_them(self, cli: Cli) -> None:
        assert ids(cli("runs", "list", "--json", "--tag", "team")) == ["id-d", "id-c", "id-b", "id-a"]
        assert ids(cli("runs", "list", "--json", "--tag", "team=b")) == ["id-b"]
        assert ids(cli("runs", "list", "--json", "--tag", "team=true")) == ["id-d"]
        assert ids(cli("runs", "list", "--json", "--tag", "size=3", "--tag", "team=c")) == ["id-c"]
        assert ids(cli("runs", "list", "--json", "--tag", "team=b", "--tag", "team=c")) == []
        assert ids(cli("runs", "list", "--json", "--tag", "size=3", "--tag", "size=3")) == ["id-c", "id-b", "id-a"]

    def test_a_limit_is_told(self, cli: Cli) -> None:
        assert ids(cli("runs", "list", "--json", "--limit", "2")) == ["id-e", "id-d"]
        shown = cli("runs", "list", "--limit", "2")
        assert len(shown.lines) == 4
        assert "2 of 5 runs; leave out --limit for all" in shown.err
        assert "of" not in cli("runs", "list", "--limit", "5").err
        assert cli("runs", "list", "--limit", "0").code == 2

    def test_none_is_said_beside_the_result(self, cli: Cli) -> None:
        shown = cli("runs", "list", "--experiment", "nothing")
        assert (shown.code, shown.out, shown.err) == (0, "", "no run matches\n")


@pytest.mark.usefixtures("five")
class TestOrder:
    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ("name", "abcde"),
            ("name:desc", "edcba"),
            ("id:desc", "edcba"),
            ("started:asc", "abcde"),
            ("experiment", "edabc"),
            ("loss", "bcaed"),
            ("loss:desc", "acbed"),
            ("accuracy", "acbed"),
        ],
    )
    def test_by_any_key(self, cli: Cli, sort: str, expected: str) -> None:
        assert ids(cli("runs", "list", "--json", "--sort", sort)) == [f"id-{name}" for name in expected]

    def test_a_metric_to_be_large_comes_largest_first(self, cli: Cli, start: Callable[..., Run]) -> None:
        with start("pose", run_id="id-f") as run:
            run.define("accuracy", direction="max")
            run.log({"accuracy": math.nan}, step=0)
        assert ids(cli("runs", "list", "--json", "--sort", "accuracy")) == [f"id-{name}" for name in "bcafed"]

    def test_by_what_is_nothing_is_a_usage_error(self, cli: Cli) -> None:
        done = cli("runs", "list", "--json", "--sort", "los")
        assert (done.code, done.out) == (2, "")
        assert "did you mean 'loss'?" in done.err
        assert "did you mean 'started'?" in cli("runs", "list", "--sort", "startd").err


@pytest.mark.usefixtures("five")
class TestValues:
    def test_the_last_and_the_best(self, cli: Cli) -> None:
        (run,) = cli(
            "runs", "list", "--json", "--metric", "loss", "--best", "--tag", "team=b", "--metric", "accuracy"
        ).json
        assert run["metrics"] == {
            "loss": {"last": 1.1, "last_step": 1, "direction": "min", "best": 0.1, "best_step": 0},
            "accuracy": {"last": 0.9, "last_step": 1, "direction": None, "best": None, "best_step": None},
        }
        shown = cli("runs", "list", "--metric", "loss", "--best", "--tag", "team=b")
        assert shown.lines[0].split()[-3:] == ["duration", "loss", "best"]
        assert shown.lines[2].split()[-2:] == ["1.1", "0.1"]

    def test_best_without_a_direction_says_what_to_do(self, cli: Cli) -> None:
        assert "run.define('accuracy', direction='min')" in cli("runs", "list", "--metric", "accuracy", "--best").err

    def test_a_run_without_the_metric_has_none(self, cli: Cli) -> None:
        runs = {run["run_id"]: run["metrics"] for run in cli("runs", "list", "--json", "--metric", "loss").json}
        assert runs["id-e"] == {"loss": None}
        missing = cli("runs", "list", "--json", "--metric", "losss")
        assert missing.code == 0
        assert all(run["metrics"] == {"losss": None} for run in missing.json)
        assert "none of these runs has the metric 'losss'; did you mean 'loss'?" in missing.err


def test_values_that_json_lacks_are_strings(cli: Cli, start: Callable[..., Run]) -> None:
    with start() as run:
        run.log({"a": math.nan, "b": math.inf, "c": -math.inf}, step=0)
    (found,) = cli("runs", "list", "--json", "--metric", "a", "--metric", "b", "--metric", "c").json
    assert [found["metrics"][name]["last"] for name in "abc"] == ["NaN", "Infinity", "-Infinity"]


def test_times_are_iso_in_utc(cli: Cli, start: Callable[..., Run]) -> None:
    before = datetime.now(UTC)
    with start():
        pass
    (run,) = cli("runs", "list", "--json").json
    started = datetime.fromisoformat(run["started_at"])
    assert run["started_at"].endswith("Z")
    assert before - timedelta(seconds=1) < started < datetime.now(UTC)
    assert run["duration_s"] == pytest.approx((datetime.fromisoformat(run["ended_at"]) - started).total_seconds())


def test_a_running_run_shows_how_long_it_has_been_going(cli: Cli, start: Callable[..., Run]) -> None:
    start().flush()
    (run,) = cli("runs", "list", "--json").json
    assert (run["status"], run["ended_at"], run["duration_s"]) == ("running", None, None)
    assert cli("runs", "list").lines[2].rstrip().endswith("s")


def test_an_empty_lake(cli: Cli, lake: Lake) -> None:
    assert cli("runs", "list", "--json").json == []
    assert (cli("runs", "list").out, cli("runs", "list").err) == ("", "no runs yet\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_literally(cli: Cli, start: Callable[..., Run], name: str) -> None:
    with start(name=name, tags={name: name}) as run:
        run.log({name: 1.0}, step=0)
    (found,) = cli("runs", "list", "--json", "--tag", f"{name}={name}", "--metric", name, "--sort", name).json
    assert (found["name"], list(found["metrics"])) == (name, [name])
    shown = cli("runs", "list", "--metric", name)
    assert len(shown.lines) == 3
    assert "\x1b" not in shown.out
    assert "\x9b" not in shown.out
    assert "\u202e" not in shown.out
    if name.isprintable() and name.isascii():
        assert name in shown.lines[2]
        assert name in shown.lines[0]


def test_a_narrow_screen_keeps_ids_and_asked_for_metrics_whole(cli: Cli, start: Callable[..., Run]) -> None:
    with start("aircraft/pose/ablation/rotation", name="quaternion-mlp-with-a-long-name-seed0") as run:
        run.log({"val/rotation_deg_median": 12.34567}, step=0)
    narrow = cli("runs", "list", "--metric", "val/rotation_deg_median", COLUMNS="80")
    assert all(len(line) <= 80 for line in narrow.lines)
    assert run.id in narrow.lines[2]
    assert "12.3457" in narrow.lines[2]
    assert "long values are shortened; not shown at this width: " in narrow.err
    wide = cli("runs", "list", "--metric", "val/rotation_deg_median", COLUMNS="200")
    assert "quaternion-mlp-with-a-long-name-seed0" in wide.lines[2]
    assert wide.err == ""
    piped = cli("runs", "list", "--metric", "val/rotation_deg_median")
    assert piped.out == wide.out


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_in_a_terminal_no_line_is_wider_than_the_screen(start: Callable[..., Run], lake: Lake, columns: int) -> None:
    with start(name="漢字" * 30) as run:
        run.log({"loss": 1.0}, step=0)
    shown = on_screen("runs", "list", "--lake", str(lake.path), columns=columns)
    table = [line for line in shown.lines if run.id in line or "─" in line]
    assert len(table) == 2
    from rich.text import Text

    assert all(Text.from_ansi(line).cell_len <= columns for line in table)
    assert shown.code == 0


def test_statuses_have_colours_on_a_screen_only(start: Callable[..., Run], lake: Lake, cli: Cli) -> None:
    with start():
        pass
    assert "\x1b[32mfinished" in on_screen("runs", "list", "--lake", str(lake.path), columns=140).out
    assert "\x1b" not in cli("runs", "list").out


def test_a_lake_in_the_working_directory_needs_no_option(cli: Cli, start: Callable[..., Run]) -> None:
    with start(run_id="here"):
        pass
    assert [run["run_id"] for run in invoke("runs", "list", "--json").json] == ["here"]
