"""The queries about runs and metrics on a lake whose answers are known."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from query_scenes import INF, NAN, START, Scene

from ckptlake import Capture
from ckptlake.query.front_matter import TAKEN_NAMES
from ckptlake.query.library import NamedQuery, list_queries

ROOT = Path(__file__).parents[2]
QUERIES = ROOT / "queries"
REQUIRED = {"metric": "loss", "run": "a", "before": "a", "after": "b", "rows": "lr", "columns": "seed"}


@pytest.fixture(scope="module")
def runs(make_scene: Callable[[str], Scene]) -> Scene:
    """Three experiments: loss is declared in one, acc in another, nothing in the third."""
    scene = make_scene("it's a [lake]=1")
    scene.define("pose/vit", "loss", "min")
    scene.define("pose", "acc", "max")
    scene.run("a", "pose/vit", params={"lr": 0.1, "seed": 0}, loss={0: 4.0, 1: 1.0, 2: 2.0, 9: 30.0})
    scene.run("b", "pose/vit", params={"lr": 0.1, "seed": 1}, loss={0: 3.0, 1: 0.5, 2: NAN, 3: INF})
    scene.run("c", "pose/vit", params={"lr": 0.2, "seed": 0}, loss={0: 8.0, 9: 2.0})
    scene.run("nan", "pose/vit", params={"lr": 0.3, "data.seed": 7}, loss={0: NAN})
    scene.run("one", "pose", params={"lr": 1}, acc={5: 0.5})
    scene.run("up", "pose", params={"lr": 1}, acc={0: 0.25, 1: 0.75, 3: 0.5})
    scene.run("free", "po'se", status="failed", loss={0: 1.0, 1: INF, 2: 2.0})
    return scene


class TestLeaderboard:
    def test_by_the_declared_direction(self, runs: Scene) -> None:
        rows = runs.ask("leaderboard", metric="loss")
        assert [(row["run_id"], row["best"], row["at_step"]) for row in rows] == [
            ("b", 0.5, 1),
            ("a", 1.0, 1),
            ("c", 2.0, 9),
            ("nan", None, None),
            ("free", None, None),
        ]
        assert [row["direction"] for row in rows] == ["min"] * 4 + [None]
        assert (rows[1]["name"], rows[1]["last"], rows[1]["last_step"]) == ("A", 30.0, 9)

    def test_where_more_is_better(self, runs: Scene) -> None:
        rows = runs.ask("leaderboard", metric="acc", experiment="pose")
        assert [(row["run_id"], row["best"]) for row in rows] == [("up", 0.75), ("one", 0.5)]

    def test_of_an_experiment(self, runs: Scene) -> None:
        assert [row["run_id"] for row in runs.ask("leaderboard", metric="loss", experiment="po'se")] == ["free"]
        assert len(runs.ask("leaderboard", metric="loss", experiment="pose")) == 4


def test_seed_summary(runs: Scene) -> None:
    rows = runs.ask("seed_summary", metric="loss")
    shown = [(row["configuration"], row["n"], row["mean"], row["std"], row["not_finite"]) for row in rows]
    assert shown == [
        ("lr=0.2", 1, 2.0, None, 0),
        ("lr=0.1", 1, 30.0, None, 1),
        ("", 1, 2.0, None, 0),
        ("lr=0.3", 0, None, None, 1),
    ]
    assert [row["best_mean"] for row in rows] == [2.0, 0.75, None, None]
    assert rows[1]["best_std"] == pytest.approx(statistics.stdev([1.0, 0.5]))


def test_seed_summary_with_another_param_left_out(runs: Scene) -> None:
    rows = runs.ask("seed_summary", metric="loss", seed="lr", experiment="pose/vit")
    assert sorted((row["configuration"], row["n"] + row["not_finite"]) for row in rows) == [
        ("data.seed=7.0", 1),
        ("seed=0.0", 2),
        ("seed=1.0", 1),
    ]


def test_texts_do_not_make_two_configurations_one(scene: Scene) -> None:
    scene.run("a", "e", loss={0: 1.0})
    scene.run("b", "e", loss={0: 1.0})
    text = {"attempt": 1, "ts": START, "kind": "str"}
    scene.put("params", {**text, "run_id": "a", "key": "x", "text": "1, y=2"})
    scene.put(
        "params", *({**text, "run_id": "b", "key": key, "text": value} for key, value in (("x", "1"), ("y", "2")))
    )
    assert [(row["configuration"], row["n"]) for row in scene.ask("seed_summary", metric="loss")] == [
        ("x=1, y=2", 1)
    ] * 2


class TestNanAndDivergence:
    def test_where_it_began_and_how_far_it_went(self, runs: Scene) -> None:
        rows = {row["run_id"]: row for row in runs.ask("nan_and_divergence", metric="loss")}
        assert rows.keys() == {"a", "b", "free", "nan"}
        assert (rows["a"]["bad_points"], rows["a"]["first_bad_step"], rows["a"]["ratio_to_best"]) == (0, None, 30.0)
        b = rows["b"]
        assert (b["bad_points"], b["first_bad_step"], b["last_finite"], b["last_finite_step"]) == (2, 2, 0.5, 1)
        assert (b["best"], b["best_step"], b["ratio_to_best"]) == (0.5, 1, 1.0)
        assert (rows["nan"]["first_bad_step"], rows["nan"]["last_finite"], rows["nan"]["best"]) == (0, None, None)
        free = rows["free"]
        assert (free["first_bad_step"], free["last_finite"], free["best"], free["status"]) == (1, 2.0, None, "failed")

    def test_the_ratio_is_a_choice(self, runs: Scene) -> None:
        assert [row["run_id"] for row in runs.ask("nan_and_divergence", metric="acc", ratio=1.5)] == ["up"]
        assert runs.ask("nan_and_divergence", metric="acc") == []


def test_plateaued_runs(runs: Scene) -> None:
    rows = runs.ask("plateaued_runs", metric="loss")
    assert [(row["run_id"], row["steps_since"]) for row in rows] == [("a", 8), ("b", 2)]
    assert [row["fraction_since"] for row in rows] == [8 / 9, 2 / 3]
    assert [row["run_id"] for row in runs.ask("plateaued_runs", metric="loss", fraction=0.8)] == ["a"]
    assert [row["run_id"] for row in runs.ask("plateaued_runs", metric="acc")] == ["up"]


def test_sweep_pivot(runs: Scene) -> None:
    low, high = runs.ask("sweep_pivot", metric="loss", rows="lr", columns="seed")
    assert low["cells"] == {"0.0": 1.0, "1.0": 0.5}
    assert (low["row_value"], low["direction"], low["runs"], low["best"], low["best_column"]) == (
        "0.1",
        "min",
        2,
        0.5,
        "1.0",
    )
    assert (high["row_value"], high["cells"]) == ("0.2", {"0.0": 2.0})
    assert runs.ask("sweep_pivot", metric="acc", rows="lr", columns="seed") == []


def test_a_sweep_of_nan_has_no_best(runs: Scene) -> None:
    (row,) = runs.ask("sweep_pivot", metric="loss", rows="lr", columns="data.seed")
    assert (row["best"], row["best_column"], row["cells"]) == (None, None, {"7.0": None})


def test_slowest_runs(scene: Scene) -> None:
    scene.run("fast", "e", loss={0: 1.0, 10: 1.0})
    scene.run("still", "e", loss={3: 1.0})
    named = {"run_id": "slow", "experiment": "e", "attempt": 1}
    scene.run("slow", "e")
    late = START + timedelta(seconds=100)
    scene.put(
        "metrics",
        {**named, "metric": "loss", "step": 0, "value": 1.0, "ts": START},
        {**named, "metric": "loss", "step": 10, "value": 1.0, "ts": late},
        {**named, "metric": "system/gpu.0.utilization_percent", "step": 0, "value": 50.0, "ts": START},
        {**named, "metric": "system/gpu.0.utilization_percent", "step": 900, "value": 100.0, "ts": late},
        {**named, "metric": "system/gpu.10.utilization_percent", "step": 0, "value": 0.0, "ts": START},
        {**named, "metric": "system/gpu.0.power_watts", "step": 0, "value": 300.0, "ts": START},
    )
    rows = scene.ask("slowest_runs", experiment="e")
    assert [(row["run_id"], row["steps"], row["steps_per_s"]) for row in rows] == [
        ("slow", 10, 0.1),
        ("fast", 10, 1.0),
        ("still", 0, None),
    ]
    assert [(row["gpus"], row["gpu_utilization_percent"]) for row in rows] == [(2, 50.0), (0, None), (0, None)]


def test_stale_and_killed_runs(scene: Scene) -> None:
    lake = scene.lake
    alive = lake.run("e", run_id="alive", capture=Capture.nothing())
    alive.log({"loss": 1.0}, step=0)
    lake.commit()
    scene.run("dead", "e", status="running", loss={0: 1.0, 60: 1.0})
    scene.run("killed", "e/x", status="killed", loss={0: 1.0, 7: 1.0})
    scene.put(
        "checkpoints",
        {"run_id": "killed", "experiment": "e/x", "checkpoint_id": "k", "attempt": 1, "ts": START}
        | {"event": "saved", "step": 5, "metrics": []},
    )
    (stale,) = scene.ask("stale_runs", minutes=30)
    assert (stale["run_id"], stale["last_sign_of_life"]) == ("dead", START + timedelta(hours=1))
    assert stale["silent_s"] > 1800
    assert {row["run_id"] for row in scene.ask("stale_runs", minutes=-1)} == {"alive", "dead"}
    (killed,) = scene.ask("killed_runs")
    assert (killed["run_id"], killed["checkpoint_id"], killed["checkpoint_step"]) == ("killed", "k", 5)
    assert (killed["last_step"], killed["steps_lost"]) == (7, 2)
    assert scene.ask("killed_runs", experiment="other") == []


def test_what_changed(scene: Scene) -> None:
    scene.run("a", "e", params={"lr": 0.1, "seed": 0})
    scene.run("b", "e/x", params={"lr": 0.2, "seed": 0, "new": 1})
    for run_id, version in (("a", "2.0"), ("b", "2.1")):
        packages = json.dumps({"numpy": "1.0", 'to"rch': version})
        scene.put("runs", {"run_id": run_id, "attempt": 1, "ts": START, "event": "started", "packages": packages})
    scene.put("tags", {"run_id": "a", "attempt": 1, "ts": START, "key": "t", "kind": "str", "text": "x"})
    assert [tuple(row.values()) for row in scene.ask("what_changed", before="a", after="b")] == [
        ("environment", "experiment", "e", "e/x"),
        ("package", 'to"rch', "2.0", "2.1"),
        ("param", "lr", "0.1", "0.2"),
        ("param", "new", None, "1.0"),
        ("tag", "t", "x", None),
    ]
    assert scene.ask("what_changed", before="a", after="a") == []
    assert scene.ask("what_changed", before="a", after="no such run") == []


@pytest.mark.parametrize("query", list_queries(), ids=lambda query: query.name)
class TestEveryQuery:
    def test_answers_an_empty_lake(self, query: NamedQuery, nothing: Scene) -> None:
        values = {parameter.name: REQUIRED[parameter.name] for parameter in query.parameters if parameter.required}
        assert nothing.ask(query.name, **values) == []

    def test_takes_the_values_that_its_comment_tells(self, query: NamedQuery) -> None:
        (statement,) = duckdb.extract_statements(query.text)
        assert statement.named_parameters == {parameter.name for parameter in query.parameters}
        assert TAKEN_NAMES.isdisjoint(parameter.name for parameter in query.parameters)

    def test_is_listed_with_its_title_and_parameters(self, query: NamedQuery) -> None:
        given = [str(parameter) for parameter in query.parameters]
        line = f"| [{query.name}.sql]({query.name}.sql) | {query.title} | {' '.join(given)} |"
        assert line in (QUERIES / "README.md").read_text().splitlines()
        line = f"| `{query.name}` | {' '.join(f'`{one}`' for one in given)} | {query.title} |"
        assert line in (ROOT / "docs" / "sql.md").read_text().splitlines()


@pytest.fixture(scope="module")
def nothing(make_scene: Callable[[str], Scene]) -> Scene:
    return make_scene("nothing")


def test_nothing_is_listed_that_is_not_there() -> None:
    listed = [line for line in (QUERIES / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert len(listed) == len(list_queries()) == len(list(QUERIES.glob("*.sql")))
