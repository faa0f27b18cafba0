"""What the views say, from rows put into the tables by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import ckptlake
from ckptlake.config import Capture
from ckptlake.lake import Lake
from ckptlake.tables.compaction import compact

NAN, INF = math.nan, math.inf
Put = Callable[..., None]
MakePoint = Callable[..., dict[str, Any]]


def at(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def event(us: int, kind: str, status: str | None = None, attempt: int = 1, writer: str = "w1", **more: Any) -> Any:
    return {"run_id": "r", "attempt": attempt, "writer": writer, "ts": us, "event": kind, "status": status} | more


def created(us: int = 0, **more: Any) -> Any:
    return event(us, "created", "running", **({"name": "first", "experiment": "e"} | more))


def the_run(lake: Lake) -> dict[str, Any]:
    (row,) = lake.sql("FROM runs").to_arrow_table().to_pylist()
    return dict(row)


class TestRuns:
    @pytest.mark.parametrize(
        ("events", "expected"),
        [
            ([created()], "running"),
            ([created(), event(5, "finished", "finished")], "finished"),
            ([created(), event(5, "failed", "failed")], "failed"),
            ([created(), event(5, "killed", "killed"), event(9, "note")], "killed"),
            ([event(5, "finished", "finished"), created()], "finished"),
            ([created(), event(1, "joined", "running", writer="w2"), event(5, "finished", "finished")], "running"),
            (
                [
                    created(),
                    event(1, "joined", "running", writer="w2"),
                    event(5, "finished", "finished"),
                    event(3, "failed", "failed", writer="w2"),
                ],
                "failed",
            ),
            (
                [
                    created(),
                    event(1, "joined", "running", writer="w2"),
                    event(5, "finished", "finished"),
                    event(3, "killed", "killed", writer="w2"),
                ],
                "killed",
            ),
            (
                [
                    created(),
                    event(1, "joined", "running", writer="w2"),
                    event(5, "killed", "killed"),
                    event(3, "failed", "failed", writer="w2"),
                ],
                "failed",
            ),
            ([created(), event(5, "failed", "failed"), event(9, "resumed", "running", 2)], "running"),
            (
                [
                    created(),
                    event(5, "failed", "failed"),
                    event(9, "resumed", "running", 2),
                    event(12, "finished", "finished", 2),
                ],
                "finished",
            ),
            (
                [
                    created(50),
                    event(60, "failed", "failed"),
                    event(9, "resumed", "running", 2),
                    event(12, "finished", "finished", 2),
                ],
                "finished",
            ),
            ([event(5, "environment", host="h")], "running"),
        ],
    )
    @pytest.mark.parametrize("order", [1, -1])
    def test_status_is_that_of_the_last_attempt_and_the_worst_off_of_its_writers(
        self, lake: Lake, put: Put, events: list[Any], expected: str, order: int
    ) -> None:
        put(lake, "runs", *events[::order])
        row = the_run(lake)
        assert row["status"] == expected
        assert (row["ended_at"] is None) == (expected == "running")
        assert (row["duration_s"] is None) == (expected == "running")

    def test_times_span_all_attempts(self, lake: Lake, put: Put) -> None:
        put(lake, "runs", created(1_000_000), event(2_000_000, "failed", "failed"))
        put(lake, "runs", event(5_000_000, "resumed", "running", 2), event(8_500_000, "finished", "finished", 2))
        put(lake, "runs", event(9_000_000, "note", attempt=2, note="later"))
        row = the_run(lake)
        assert (row["started_at"], row["ended_at"], row["updated_at"]) == (at(1_000_000), at(8_500_000), at(9_000_000))
        assert (row["attempt"], row["duration_s"]) == (2, 7.5)

    def test_the_newest_of_each_column_counts_and_notes_are_kept_in_order(self, lake: Lake, put: Put) -> None:
        put(
            lake,
            "runs",
            event(8, "note", note="second"),
            created(host="a", git_dirty=True),
            event(9, "x", note="third"),
        )
        put(lake, "runs", event(4, "renamed", name="newer"), event(3, "renamed", name="older", note="first"))
        put(lake, "runs", event(1, "resumed", "running", 2, host="b"))
        row = the_run(lake)
        assert (row["name"], row["host"], row["git_dirty"], row["experiment"]) == ("newer", "b", True, "e")
        assert row["notes"] == "first\nsecond\nthird"

    def test_one_row_a_run(self, lake: Lake, put: Put) -> None:
        put(lake, "runs", *[created(run_id=f"r{i}", experiment="e/ü'\"") for i in range(5)])
        assert lake.sql("SELECT run_id, experiment FROM runs ORDER BY 1").fetchall() == [
            (f"r{i}", "e/ü'\"") for i in range(5)
        ]


class TestMetrics:
    def test_the_newest_of_a_repeated_step_shows_and_raw_keeps_all(
        self, lake: Lake, put: Put, point: MakePoint
    ) -> None:
        put(lake, "metrics", *[point(step, float(step)) for step in range(5)])
        put(lake, "metrics", point(3, 33.0, ts=5000), point(4, 44.0, attempt=2, ts=1), point(9, 9.0))
        put(lake, "metrics", point(4, 444.0, attempt=1, ts=9000))
        assert lake.sql("SELECT step, value FROM metrics ORDER BY step").fetchall() == [
            (0, 0.0), (1, 1.0), (2, 2.0), (3, 33.0), (4, 44.0), (9, 9.0),
        ]  # fmt: skip
        assert lake.sql("SELECT count(*) FROM metrics_raw").fetchall() == [(9,)]

    def test_a_tie_shows_one_of_the_values_once(self, lake: Lake, put: Put, point: MakePoint) -> None:
        put(lake, "metrics", point(3, 1.0, ts=7), point(3, 2.0, ts=7))
        ((value,),) = lake.sql("SELECT value FROM metrics").fetchall()
        assert value in (1.0, 2.0)
        assert lake.sql("SELECT n, last FROM summaries").fetchall() == [(1, value)]

    def test_other_curves_are_untouched(self, lake: Lake, put: Put, point: MakePoint) -> None:
        put(lake, "metrics", point(3, 1.0), point(3, 2.0, metric="n"), point(3, 3.0, run_id="s"))
        put(lake, "metrics", point(3, 9.0, ts=9000))
        assert sorted(lake.sql("SELECT run_id, metric, value FROM metrics").fetchall()) == [
            ("r", "m", 9.0), ("r", "n", 2.0), ("s", "m", 3.0),
        ]  # fmt: skip

    def test_summaries_of_repeated_curves_are_those_of_the_points_shown(
        self, lake: Lake, put: Put, point: MakePoint
    ) -> None:
        put(lake, "metrics", *[point(step, -100.0 if step == 2 else float(step)) for step in range(6)])
        put(lake, "metrics", point(2, 2.5, ts=8000), point(5, NAN, ts=8000), point(7, INF))
        query = "SELECT n, n_nan, n_inf, first, last_step, last, min, min_step, max, max_step, sum FROM summaries"
        expected = (7, 1, 1, 0.0, 7, INF, 0.0, 0, INF, 7, INF)
        assert lake.sql(query).fetchall() == [expected]
        for name in ("metrics", "summaries"):
            compact(lake._store(name), everything=True)
        assert lake.sql(query).fetchall() == [expected], "and compaction changes none"
        put(lake, "metrics", point(7, 1.0, ts=9000))
        assert lake.sql("SELECT n, last, max FROM summaries").fetchall() == [(7, 1.0, 4.0)]

    @pytest.mark.parametrize("name", ["it's", 'a"b', "a.b/c", "ü/日本 😀", "a\nb", "percent %s $1 {x}", "select"])
    def test_any_name_works_everywhere(self, lake: Lake, name: str) -> None:
        with lake.run(name if "\n" not in name else "e", params={name: 1}, capture=Capture.nothing()) as run:
            run.define(name, direction="max")
            run.log({name: 2.0}, step=1)
            run.set_tags({name: "x"})
        assert lake.sql("SELECT value FROM metrics WHERE metric = $name", name=name).fetchall() == [(2.0,)]
        wide = lake.sql("FROM runs_wide").to_arrow_table().to_pylist()[0]
        assert (wide[f"params.{name}"], wide[f"last.{name}"], wide[f"best.{name}"]) == (1, 2.0, 2.0)


class TestWide:
    def test_params_have_the_narrowest_type_that_loses_nothing(self, lake: Lake) -> None:
        params = [
            {"i": 1, "f": 1, "b": True, "mix": True, "t": "x", "n": None, "seed": 2**63 + 1, "j": [1], "huge": 10**400},
            {"i": -5, "f": 0.5, "b": False, "mix": 1, "t": 1, "n": 2, "seed": 3, "j": 1, "huge": 5},
        ]
        for given in params:
            lake.run("e", params=given, capture=Capture.nothing()).finish()
        rows = lake.sql("SELECT COLUMNS('^params') FROM runs_wide ORDER BY started_at").to_arrow_table()
        first, second = rows.to_pylist()
        assert (first["params.i"], second["params.i"], str(rows.schema.field("params.i").type)) == (1, -5, "int64")
        assert (first["params.f"], second["params.f"]) == (1.0, 0.5)
        assert (first["params.b"], second["params.b"]) == (True, False)
        assert (first["params.mix"], first["params.t"], second["params.t"]) == ("true", "x", "1")
        assert (first["params.n"], second["params.n"]) == (None, 2.0)
        assert json.loads(first["params.j"]) == [1]
        assert int(first["params.seed"]) == 2**63 + 1, "a large seed is not rounded"
        assert int(first["params.huge"]) == 10**400, "nor does a larger one disappear"

    @pytest.mark.parametrize("other", [2**63 + 1, INF, NAN, 1e300, -(10**400), True, None, "text", [1]], ids=repr)
    def test_a_param_of_one_kind_never_spoils_the_column_of_another(self, lake: Lake, other: Any) -> None:
        lake.run("e", params={"depth": 3, "flag": True, "other": other}, capture=Capture.nothing()).finish()
        query = 'SELECT "params.depth", "params.flag" FROM runs_wide'
        assert lake.sql(query).fetchall() == [(3, True)]
        assert len(lake.sql("FROM runs_wide").fetchall()) == 1

    def test_names_that_differ_in_case_only_both_show(self, lake: Lake) -> None:
        with lake.run("e", params={"LR": 1, "lr": 2, "lr~2": 3}, capture=Capture.nothing()) as run:
            run.log({"Loss": 4.0, "loss": 5.0}, step=0)
        (row,) = lake.sql("FROM runs_wide").to_arrow_table().to_pylist()
        assert sorted(value for name, value in row.items() if name.startswith("params.")) == [1, 2, 3]
        assert sorted(value for name, value in row.items() if name.startswith("last.")) == [4.0, 5.0]
        assert row["params.LR"] == 1

    def test_best_is_only_where_a_direction_is_declared(self, lake: Lake, put: Put, point: MakePoint) -> None:
        for run_id, experiment in (("a", "down"), ("b", "up"), ("c", "silent")):
            put(lake, "runs", created(run_id=run_id, experiment=experiment))
            values = enumerate([2.0, 1.0, NAN, 3.0])
            put(lake, "metrics", *[point(s, v, run_id=run_id, experiment=experiment) for s, v in values])
            put(lake, "metrics", point(0, 7.0, run_id=run_id, experiment=experiment, metric="never"))
        put(lake, "definitions", {"experiment": "down", "run_id": "a", "metric": "m", "ts": 1, "direction": "min"})
        put(lake, "definitions", {"experiment": "up", "run_id": "b", "metric": "m", "ts": 1, "direction": "max"})
        found = lake.sql('SELECT experiment, "best.m", "last.m" FROM runs_wide ORDER BY 1').fetchall()
        assert found == [("down", 1.0, 3.0), ("silent", None, 3.0), ("up", 3.0, 3.0)]
        assert "best.never" not in lake.sql("FROM runs_wide").columns

    def test_runs_without_params_or_metrics_are_there(self, lake: Lake, put: Put) -> None:
        put(lake, "runs", created(run_id="a"), created(run_id="b"))
        assert lake.sql("SELECT run_id FROM runs_wide ORDER BY 1").fetchall() == [("a",), ("b",)]


class TestParamsTagsDefinitions:
    def test_kinds_and_texts(self, lake: Lake) -> None:
        given = {"i": 7, "f": 0.1, "nan": NAN, "inf": -INF, "b": True, "s": "x'y", "none": None, "l": [1, "a"], "e": {}}
        lake.run("e", params=given | {"deep": {"er": 1}}, capture=Capture.nothing()).finish()
        rows = lake.sql("SELECT key, kind, number, value FROM params ORDER BY key").fetchall()
        found = {key: (kind, number, value) for key, kind, number, value in rows}
        assert found["i"] == ("int", 7.0, "7")
        assert found["f"] == ("float", 0.1, "0.1")
        assert found["nan"][0] == "float"
        assert math.isnan(found["nan"][1])
        assert found["inf"] == ("float", -INF, "-inf")
        assert found["b"] == ("bool", 1.0, "true")
        assert found["s"] == ("str", None, "x'y")
        assert found["none"][0] == "null"
        assert (found["l"][0], json.loads(found["l"][2])) == ("json", [1, "a"])
        assert found["deep.er"] == ("int", 1.0, "1")
        assert found["e"][0] == "json"

    def test_the_newest_param_counts(self, lake: Lake, put: Put) -> None:
        rows = [(1, 9, "old"), (2, 1, "resumed"), (1, 20, "late")]
        put(lake, "params", *[
            {"run_id": "r", "attempt": a, "ts": t, "key": "k", "kind": "str", "text": x} for a, t, x in rows
        ])  # fmt: skip
        assert lake.sql("SELECT key, value FROM params").fetchall() == [("k", "resumed")]

    def test_a_removed_tag_is_gone_until_set_again(self, lake: Lake) -> None:
        run = lake.run("e", tags={"a": 1, "b": "x", "c": None}, capture=Capture.nothing())
        query = "SELECT key, kind, value FROM tags ORDER BY key"

        def tags() -> list[Any]:
            lake.flush()
            return [row[:2] for row in lake.sql(query).fetchall()]

        assert tags() == [("a", "int"), ("b", "str"), ("c", "null")]
        run.remove_tags("a", "never there")
        assert tags() == [("b", "str"), ("c", "null")]
        run.set_tags(["a"])
        assert tags() == [("a", "bool"), ("b", "str"), ("c", "null")]
        run.finish()

    def test_the_newest_definition_counts_each_for_itself(self, lake: Lake, put: Put) -> None:
        rows = [(5, "min", None), (9, "max", None), (7, None, "epoch"), (6, "min", "old")]
        put(lake, "definitions", *[
            {"experiment": "e", "run_id": f"r{t}", "metric": "m", "ts": t, "direction": d, "step_metric": s}
            for t, d, s in rows
        ])  # fmt: skip
        found = lake.sql("SELECT experiment, metric, direction, step_metric FROM definitions").fetchall()
        assert found == [("e", "m", "max", "epoch")]


class TestExperiments:
    def test_every_level_is_there_with_the_runs_below_it(self, lake: Lake, put: Put) -> None:
        for i, name in enumerate(["a/b/c", "a/b/c", "a/b", "ab", "x"]):
            put(lake, "runs", created(run_id=f"r{i}", experiment=name, ts=i))
        put(lake, "runs", event(9, "finished", "finished", run_id="r4"))
        put(lake, "experiments", {"experiment": "only/described", "ts": 1, "description": "old"})
        put(lake, "experiments", {"experiment": "only/described", "ts": 2, "description": "new"})
        put(lake, "experiments", {"experiment": "only/described", "ts": 3, "requirement": "{}"})
        query = "SELECT experiment, parent, depth, runs, runs_in_subtree, running FROM experiments ORDER BY 1"
        assert lake.sql(query).fetchall() == [
            ("a", None, 1, 0, 3, 0),
            ("a/b", "a", 2, 1, 3, 1),
            ("a/b/c", "a/b", 3, 2, 2, 2),
            ("ab", None, 1, 1, 1, 1),
            ("only", None, 1, 0, 0, 0),
            ("only/described", "only", 2, 0, 0, 0),
            ("x", None, 1, 1, 1, 0),
        ]
        described = "SELECT description, requirement FROM experiments WHERE experiment = 'only/described'"
        assert lake.sql(described).fetchall() == [("new", "{}")]

    @pytest.mark.parametrize(
        ("root", "expected"),
        [
            ("a", ["a", "a/b"]),
            ("a/b", ["a/b"]),
            ("a/", []),
            ("", []),
            ("ab", ["ab"]),
            ("%", ["%/x"]),
            ("'", ["'/\"/ü"]),
        ],
    )
    def test_in_subtree_means_the_level_and_all_below(
        self, lake: Lake, put: Put, point: MakePoint, root: str, expected: list[str]
    ) -> None:
        for i, name in enumerate(["a", "a/b", "ab", "%/x", "'/\"/ü", "_/x"]):
            put(lake, "runs", created(run_id=f"r{i}", experiment=name))
            put(lake, "metrics", point(0, 1.0, run_id=f"r{i}", experiment=name))
        for table in ("runs", "metrics", "summaries"):
            query = f"SELECT experiment FROM {table} WHERE in_subtree(experiment, $root) ORDER BY 1"
            assert [name for (name,) in lake.sql(query, root=root).fetchall()] == expected, table


def test_an_empty_lake_has_every_view(lake: Lake) -> None:
    from ckptlake.query.views import ALL_VIEWS

    with lake.connect() as connection:
        for view in sorted(ALL_VIEWS):
            assert lake.sql(f"FROM {view}").fetchall() == []
            assert lake.sql(f"FROM {view}").columns == connection.sql(f"FROM {view}").columns
            with pytest.raises(ckptlake.VersionNotFoundError):
                lake.sql(f"FROM {view}", as_of=0)
