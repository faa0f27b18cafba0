"""`ckptlake query` and `ckptlake views`: questions with a name, also without ckptlake."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from command_line import HOSTILE, Outcome, environment, invoke, run

from ckptlake import Lake, Run
from ckptlake.query.library import NamedQuery, list_queries

Cli = Callable[..., Outcome]
pytestmark = pytest.mark.usefixtures("lake")


@pytest.fixture
def logged(lake: Lake, start: Callable[..., Run]) -> Lake:
    for name, low in (("a", 0.5), ("b", 0.25)):
        with start("pose/vit", run_id=name, params={"lr": low}) as run:
            run.define("val/loss", direction="min")
            run.log({"val/loss": low}, step=0)
            run.log({"val/loss": float("nan")}, step=1)
    return lake


class TestAQuery:
    def test_as_a_table(self, cli: Cli, logged: Lake) -> None:
        done = cli("query", "leaderboard", "--metric", "val/loss")
        assert done.code == 0
        assert done.lines[0].split()[:3] == ["run_id", "name", "experiment"]
        assert [line.split()[0] for line in done.lines[2:]] == ["b", "a"]

    def test_as_json_and_csv(self, cli: Cli, logged: Lake) -> None:
        words = ("query", "leaderboard", "--metric", "val/loss", "--experiment", "pose")
        rows = cli(*words, "--json").json
        assert [(row["run_id"], row["best"], row["last"]) for row in rows] == [("b", 0.25, "NaN"), ("a", 0.5, "NaN")]
        table = list(csv.DictReader(io.StringIO(cli(*words, "--csv").out, newline="")))
        assert [row["run_id"] for row in table] == ["b", "a"]
        assert cli(*words, "--csv", "--json").code == 2

    def test_without_rows(self, cli: Cli) -> None:
        done = cli("query", "leaderboard", "--metric", "loss")
        assert (done.code, done.err) == (0, "no rows\n")
        assert cli("query", "stale_runs", "--minutes", "-1", "--json").json == []

    @pytest.mark.parametrize("text", HOSTILE)
    def test_hostile_values(self, cli: Cli, text: str) -> None:
        assert cli("query", "leaderboard", f"--metric={text}", "--json").json == []

    def test_values_have_the_types_of_the_parameters(self, cli: Cli, logged: Lake) -> None:
        words = ("query", "nan_and_divergence", "--metric", "val/loss", "--json")
        assert [row["first_bad_step"] for row in cli(*words, "--ratio", "3").json] == [1, 1]
        refused = cli("query", "stale_runs", "--minutes", "ten")
        assert refused.code == 2
        assert "--minutes" in refused.err
        assert cli("query", "stale_runs", "--minutes", "nan").err.startswith("error: minutes must be a finite number")

    def test_what_is_required_must_be_given(self, cli: Cli) -> None:
        refused = cli("query", "leaderboard")
        assert refused.code == 2
        assert "--metric" in refused.err
        assert "ckptlake query leaderboard --help" in refused.err

    def test_the_lake_may_come_from_the_environment(self, logged: Lake) -> None:
        done = invoke("query", "leaderboard", "--metric", "val/loss", "--json", CKPTLAKE_DIR=str(logged.path))
        assert len(done.json) == 2


class TestNames:
    def test_are_listed(self, cli: Cli) -> None:
        done = cli("query", "--list")
        assert done.lines[0].split() == ["name", "title", "parameters"]
        assert [line.split()[0] for line in done.lines[2:]] == [query.name for query in list_queries()]
        (line,) = (line for line in done.lines if line.startswith("leaderboard "))
        assert line.split() == ["leaderboard", "Leaderboard", "metric", "[experiment]"]

    def test_are_listed_as_json(self, cli: Cli) -> None:
        rows = {row["name"]: row for row in cli("query", "--list", "--json").json}
        assert rows.keys() == {query.name for query in list_queries()}
        metric, experiment = rows["leaderboard"]["parameters"]
        assert (metric["name"], metric["type"], metric["required"]) == ("metric", "text", True)
        assert (experiment["required"], experiment["default"]) == (False, None)
        assert rows["leaderboard"]["columns"][0] == {"name": "run_id", "meaning": "the run"}

    def test_an_unknown_one_is_one_line_with_a_hint(self, cli: Cli) -> None:
        done = cli("query", "leaderbord", "--metric", "loss")
        assert (done.code, done.out) == (1, "")
        assert done.err == "error: no query is called 'leaderbord'; did you mean 'leaderboard'?\n"

    @pytest.mark.parametrize("words", [("--lake", "x", "leaderboard"), ("--json", "leaderboard"), ("--lake", "x")])
    def test_options_without_a_name_before_them_are_refused(self, words: tuple[str, ...]) -> None:
        done = invoke("query", *words)
        assert done.code == 2
        assert "name of" in done.err


@pytest.mark.parametrize("query", list_queries(), ids=lambda query: query.name)
def test_help_tells_title_parameters_and_columns(query: NamedQuery) -> None:
    text = invoke("query", query.name, "--help", COLUMNS="200", TERMINAL_WIDTH="200").out
    assert query.title in text
    assert all(f"    {column.name}: {column.meaning}" in text for column in query.columns)
    for parameter in query.parameters:
        assert f"--{parameter.name.replace('_', '-')} {parameter.type.upper()}" in text


class TestViews:
    def test_a_plain_duckdb_answers_the_same(self, cli: Cli, logged: Lake) -> None:
        script = cli("views").out
        assert cli("views", "--json").json["script"].split("\n\n", 1)[1] == script.split("\n\n", 1)[1]
        plain = duckdb.connect()
        plain.execute(script)
        for name, values in {"leaderboard": {"metric": "val/loss"}, "storage_by_run": {}}.items():
            (query,) = (query for query in list_queries() if query.name == name)
            found = plain.execute(query.text, query.bind(**values)).fetchall()
            assert repr(found) == repr(logged.query(name, **values).fetchall())

    def test_a_process_of_its_own_prints_it_to_a_file(self, logged: Lake, tmp_path: Path) -> None:
        done = run("views", env=environment(CKPTLAKE_DIR=str(logged.path)))
        assert (done.code, done.err) == (0, "")
        path = tmp_path / "it's ü.sql"
        path.write_text(done.out)
        plain = duckdb.connect()
        plain.execute(path.read_text())
        assert plain.execute("select run_id from runs order by run_id").fetchall() == [("a",), ("b",)]

    def test_without_a_lake(self, tmp_path: Path) -> None:
        done = invoke("views", "--lake", str(tmp_path / "none"))
        assert (done.code, done.out) == (1, "")
        assert not (tmp_path / "none").exists()
