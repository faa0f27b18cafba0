"""Leaving out files never changes an answer: every query as it is, and on a connection that reads all files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake.lake import Lake
from ckptlake.query import duck
from ckptlake.query.sources import Sources

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

ALL = "run_id, metric, step, value, attempt, experiment"
# Each with the values it binds; between them every kind of FROM and of condition that DuckDB has.
# ruff: noqa: E501
CORPUS: list[tuple[str, dict[str, Any]]] = [
    (f"SELECT {ALL} FROM metrics WHERE run_id = 'r-a1'", {}),
    (f"SELECT {ALL} FROM metrics WHERE 'r-a1' = run_id AND metric = 'val/loss'", {}),
    (f"SELECT {ALL} FROM metrics_raw WHERE run_id = $run AND step > $low", {"run": "r-a2", "low": 5}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IN ('r-a1', 'r-b1', 'absent')", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IN ($a, $b) AND step < 7", {"a": "r-a1", "b": "r-c1"}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IN ('r-a1', NULL)", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id NOT IN ('r-a1', 'r-b1')", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id = ANY(['r-a1', 'r-b1'])", {}),
    (f"SELECT {ALL} FROM metrics WHERE list_contains($runs, run_id)", {"runs": ["r-a1", "r-e1"]}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IN $runs AND step IN $steps", {"runs": ["r-a1", "r-c1"], "steps": [1, 9]}),
    (f"SELECT {ALL} FROM metrics WHERE run_id NOT IN $runs", {"runs": ["r-a1"]}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IN $runs", {"runs": []}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IN $runs OR step = 3", {"runs": ["r-a1", None]}),
    (f"SELECT {ALL} FROM metrics WHERE contains($text, run_id)", {"text": "r-a1, r-b1"}),
    (f"SELECT {ALL} FROM metrics WHERE contains(run_id, $text)", {"text": "a1"}),
    (f"SELECT {ALL} FROM metrics WHERE step BETWEEN 3 AND 8", {}),
    (f"SELECT {ALL} FROM metrics WHERE step NOT BETWEEN 3 AND 30", {}),
    (f"SELECT {ALL} FROM metrics WHERE step BETWEEN NULL AND 8", {}),
    (f"SELECT {ALL} FROM metrics WHERE 10 <= step AND 12 > step", {}),
    (f"SELECT {ALL} FROM metrics WHERE step > 10 AND step > 5 AND step < 30 AND step < 12", {}),
    (f"SELECT {ALL} FROM metrics WHERE step >= 38", {}),
    (f"SELECT {ALL} FROM metrics WHERE step = -1 OR step = 39", {}),
    (f"SELECT {ALL} FROM metrics WHERE NOT (step > 3)", {}),
    (f"SELECT {ALL} FROM metrics WHERE NOT run_id = 'r-a1' AND step < 2", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id <> 'r-a1' AND step < 2", {}),
    (f"SELECT {ALL} FROM metrics WHERE (run_id = 'r-a1' AND step < 3) OR (run_id = 'r-b1' AND step > 37)", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id = 'r-a1' AND (metric = 'val/loss' OR step = 0)", {}),
    (f"SELECT {ALL} FROM metrics WHERE step > 7.5 AND step < 1e1", {}),
    (f"SELECT {ALL} FROM metrics WHERE step = '7'", {}),
    (f"SELECT {ALL} FROM metrics WHERE step::VARCHAR = '7'", {}),
    (f"SELECT {ALL} FROM metrics WHERE step = CAST('7' AS INTEGER)", {}),
    (f"SELECT {ALL} FROM metrics WHERE step + 1 = 8", {}),
    (f"SELECT {ALL} FROM metrics WHERE step = -(-7)", {}),
    (f"SELECT {ALL} FROM metrics WHERE step < 9223372036854775808 AND run_id > 'r-e'", {}),
    (f"SELECT {ALL} FROM metrics WHERE upper(run_id) = 'R-A1'", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id COLLATE NOCASE = 'R-A1'", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id = 'R-A1' COLLATE NOCASE", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id LIKE 'r-a%'", {}),
    (f"SELECT {ALL} FROM metrics WHERE metric = 'n''a\"me ü'", {}),
    (f"SELECT {ALL} FROM metrics WHERE experiment = $e", {"e": "it's \"q\"/ü"}),
    (f"SELECT {ALL} FROM metrics WHERE (run_id, step) = ('r-a1', 3)", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IS NOT DISTINCT FROM 'r-a1'", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id IS DISTINCT FROM 'r-a1'", {}),
    (f"SELECT {ALL} FROM metrics WHERE in_subtree(experiment, 'pose')", {}),
    (f"SELECT {ALL} FROM metrics WHERE IN_SUBTREE(experiment, $root)", {"root": "pose/vit"}),
    (f"SELECT {ALL} FROM metrics WHERE in_subtree('pose/vit', experiment)", {}),
    (f"SELECT {ALL} FROM metrics WHERE in_subtree(experiment, 'it''s \"q\"')", {}),
    (f"SELECT {ALL} FROM metrics WHERE NOT in_subtree(experiment, 'pose')", {}),
    (f"SELECT {ALL} FROM metrics m WHERE m.run_id = 'r-b1' AND M.METRIC = 'val/loss'", {}),
    (f'SELECT {ALL} FROM "METRICS" WHERE "Run_Id" = \'r-b1\'', {}),
    ("SELECT a, d FROM metrics AS m(a, b, c, d) WHERE b = 'r-a1' AND d < 3", {}),
    ("SELECT count(*) FROM metrics AS m(run_id, experiment) WHERE run_id = 'pose'", {}),
    ("SELECT value AS step, step AS s FROM metrics WHERE step < 3 AND run_id = 'r-a1'", {}),
    ("SELECT 7 AS step, metric AS run_id FROM metrics WHERE step = 39", {}),
    ("FROM metrics SELECT step, value WHERE run_id = 'r-d1'", {}),
    ("FROM metrics SELECT count(*) WHERE step = 4", {}),
    ("SELECT run_id, min(value) FROM metrics WHERE metric = 'val/loss' GROUP BY run_id HAVING min(step) < 5", {}),
    ("SELECT DISTINCT ON (run_id) run_id, step FROM metrics WHERE step > 20 ORDER BY run_id, step, metric", {}),
    ("SELECT run_id, step, row_number() OVER (PARTITION BY run_id ORDER BY step) FROM metrics "
     "WHERE metric = 'val/loss' AND run_id >= 'r-c1' QUALIFY lag(step) OVER (PARTITION BY run_id ORDER BY step) > 9", {}),
    ("SELECT count(*) FROM metrics m JOIN runs r USING (run_id) WHERE run_id = 'r-a1'", {}),
    ("SELECT count(*), sum(m.step) FROM metrics m JOIN runs r ON m.run_id = r.run_id AND m.metric = 'val/loss'", {}),
    ("SELECT count(*) FROM runs, metrics WHERE runs.run_id = metrics.run_id AND metrics.run_id = 'r-e1'", {}),
    ("SELECT r.run_id, count(m.step) FROM runs r LEFT JOIN metrics m ON r.run_id = m.run_id AND m.step > 37 "
     "GROUP BY ALL", {}),
    ("SELECT r.run_id, m.step FROM runs r LEFT JOIN metrics m ON r.run_id = m.run_id AND m.metric = 'only/live'", {}),
    ("SELECT r.run_id, m.step FROM runs r LEFT JOIN metrics m USING (run_id) WHERE m.metric = 'only/live'", {}),
    ("SELECT m.step, m.run_id, r.name FROM metrics m LEFT JOIN runs r ON r.run_id = m.run_id AND m.step = 3", {}),
    ("SELECT m.step, r.run_id FROM metrics m RIGHT JOIN runs r ON r.run_id = m.run_id AND m.metric = 'val/loss'", {}),
    ("SELECT m.step, r.run_id FROM runs r RIGHT JOIN metrics m ON r.run_id = m.run_id AND m.step = 3 "
     "WHERE m.run_id < 'r-b'", {}),
    ("SELECT m.step, r.run_id FROM runs r FULL JOIN metrics m ON r.run_id = m.run_id AND m.step = 3", {}),
    ("SELECT m.step, run_id FROM runs r FULL JOIN metrics m USING (run_id) WHERE run_id = 'r-d1'", {}),
    ("SELECT r.run_id, m.step FROM runs r FULL JOIN metrics m ON r.run_id = m.run_id WHERE m.run_id = 'r-d1'", {}),
    ("SELECT r.run_id FROM runs r SEMI JOIN metrics m ON r.run_id = m.run_id AND m.step = 20", {}),
    ("SELECT r.run_id FROM runs r ANTI JOIN metrics m ON r.run_id = m.run_id AND m.step = 39", {}),
    ("SELECT m.run_id, m.step FROM metrics m ANTI JOIN (SELECT 'r-a1' AS run_id) x USING (run_id) WHERE step = 4", {}),
    ("SELECT a.step, b.step FROM metrics a ASOF JOIN metrics b ON a.run_id = b.run_id AND a.step >= b.step "
     "WHERE a.metric = 'val/loss' AND b.metric = 'train/loss' AND a.run_id = 'r-a1'", {}),
    ("SELECT a.step, b.s FROM (FROM metrics WHERE metric = 'val/loss' AND run_id = 'r-a1' ORDER BY step) a "
     "POSITIONAL JOIN (SELECT step AS s FROM metrics WHERE metric = 'val/loss' AND run_id = 'r-b1' ORDER BY step) b", {}),
    ("SELECT a.step FROM metrics a NATURAL JOIN metrics b WHERE step < 4", {}),
    ("SELECT a.run_id, b.run_id FROM metrics a JOIN metrics b USING (step, metric) "
     "WHERE a.run_id = 'r-a1' AND b.run_id = 'r-c1'", {}),
    ("SELECT a.step, b.step FROM metrics a LEFT JOIN metrics b ON b.run_id = 'r-b1' AND a.step = b.step "
     "WHERE a.run_id = 'r-a1'", {}),
    ("SELECT * FROM (runs r LEFT JOIN metrics m ON m.run_id = r.run_id) FULL JOIN (SELECT 1 AS x) y ON m.step = 3", {}),
    ("WITH curve AS (SELECT * FROM metrics WHERE run_id = 'r-a1') SELECT max(step) FROM curve WHERE step < 30", {}),
    ("WITH metrics AS (SELECT 5 AS step, 'r-a1' AS run_id) SELECT * FROM metrics WHERE step = 5", {}),
    ("WITH runs AS (SELECT * FROM metrics) SELECT count(*) FROM runs WHERE run_id = 'r-a1'", {}),
    ("WITH a AS (SELECT * FROM metrics WHERE step < 3), b AS (SELECT * FROM metrics WHERE step > 37) "
     "SELECT count(*) FROM (FROM a UNION ALL FROM b)", {}),
    ("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3) "
     "SELECT i, count(*) FROM n JOIN metrics ON metrics.step = n.i GROUP BY i", {}),
    ("SELECT run_id FROM runs WHERE EXISTS (SELECT 1 FROM metrics WHERE metrics.run_id = runs.run_id AND step = 39)", {}),
    ("SELECT run_id FROM runs r WHERE 'r-a1' = (SELECT min(run_id) FROM metrics WHERE step = 4 AND run_id >= r.run_id)", {}),
    ("SELECT run_id, (SELECT count(*) FROM metrics WHERE run_id = r.run_id AND step > 36) FROM runs r", {}),
    ("SELECT metric, step FROM metrics WHERE run_id IN (SELECT run_id FROM runs WHERE experiment = 'pose')", {}),
    ("SELECT count(*) FROM metrics m, LATERAL (SELECT m.step + 1 AS next) WHERE m.step = 3 AND next = 4", {}),
    ("SELECT r.run_id, x.step FROM runs r, LATERAL (SELECT step FROM metrics WHERE run_id = r.run_id "
     "AND metric = 'val/loss' ORDER BY step DESC LIMIT 1) x", {}),
    ("SELECT m.step, n FROM metrics m, LATERAL (SELECT count(*) AS n FROM metrics k WHERE m.step = 3 "
     "AND k.run_id = 'r-a1') WHERE m.run_id = 'r-b1'", {}),
    (f"SELECT {ALL} FROM metrics WHERE run_id = 'r-a1' UNION SELECT {ALL} FROM metrics_raw WHERE step = 3", {}),
    ("SELECT step FROM metrics WHERE run_id = 'r-a1' EXCEPT SELECT step FROM metrics WHERE run_id = 'r-d1'", {}),
    ("SELECT step FROM metrics WHERE run_id = 'r-a1' INTERSECT ALL SELECT step FROM metrics WHERE run_id = 'r-d1'", {}),
    ("SELECT sum(step) FILTER (run_id = 'r-a1'), count(*) FROM metrics WHERE step < 20", {}),
    ("SELECT CASE WHEN run_id = 'r-a1' THEN 1 END, count(*) FROM metrics GROUP BY 1", {}),
    ("SELECT count(*) FROM (SELECT * FROM metrics TABLESAMPLE reservoir(20 ROWS) REPEATABLE (3)) WHERE step >= 0", {}),
    ("SELECT count(*) FROM metrics TABLESAMPLE reservoir(5 ROWS) WHERE run_id >= ''", {}),
    ("SELECT count(*) FROM (SELECT * FROM metrics WHERE run_id >= '' USING SAMPLE 3 ROWS)", {}),
    ("PIVOT (SELECT run_id, metric, value FROM metrics WHERE step = 4) ON metric USING max(value) GROUP BY run_id", {}),
    ("PIVOT metrics ON run_id USING count(*) GROUP BY metric", {}),
    ("UNPIVOT (SELECT run_id, step, attempt FROM metrics WHERE step = 4) ON step, attempt", {}),
    ("DESCRIBE metrics", {}),
    ("SELECT column_name, min, max, count FROM (SUMMARIZE SELECT step, run_id FROM metrics WHERE run_id = 'r-b1')", {}),
    ("SELECT COLUMNS('st.*') FROM metrics WHERE step = 4", {}),
    ("SELECT * EXCLUDE (ts) REPLACE (0 AS step) FROM metrics WHERE step = 4", {}),
    ("SELECT metrics.* EXCLUDE (ts) FROM metrics WHERE metrics.step = 4 AND metrics.experiment = 'pose'", {}),
    ("SELECT m FROM metrics m WHERE m.step = 4 AND m.run_id = 'r-a1'", {}),
    ("SELECT count(*) FROM temp.metrics WHERE run_id = 'r-a1'", {}),
    ("SELECT count(*) FROM metrics WHERE run_id = $1 AND step < $2", {"1": "r-a1", "2": 9}),
    ("SELECT 1; SELECT count(*) FROM metrics WHERE run_id = 'r-a1'", {}),
    ("SELECT count(*) FROM query_table('metrics')", {}),
    ("SELECT count(*) FROM query('FROM metrics WHERE step = 3')", {}),
    ("VALUES ((SELECT count(*) FROM metrics WHERE run_id = 'r-a1'), (SELECT count(*) FROM metrics))", {}),
    ("SELECT run_id, metric, n, min, last FROM summaries WHERE run_id = 'r-a2'", {}),
    ("SELECT w.run_id, w.\"best.val/loss\", m.step FROM runs_wide w JOIN metrics m USING (run_id) WHERE m.step = 39", {}),
    ("SELECT experiment, runs_in_subtree FROM experiments", {}),
]  # fmt: skip


@pytest.fixture(scope="module")
def unpruned(busy_lake: Lake) -> Iterator[DuckDBPyConnection]:
    with busy_lake.connect() as connection:
        yield connection


def shown(relation: DuckDBPyRelation) -> list[str]:
    """Return rows as sorted texts; two results are equal exactly if these are."""
    return sorted(map(repr, zip(*(column.to_pylist() for column in relation.to_arrow_table().columns), strict=True)))


def test_the_lake_has_many_files(busy_lake: Lake) -> None:
    assert len(busy_lake.table("metrics").files()) >= 50
    assert len(CORPUS) >= 60


@pytest.mark.parametrize(("query", "values"), CORPUS, ids=[str(number) for number in range(len(CORPUS))])
def test_the_answer_is_that_of_all_files(
    busy_lake: Lake, unpruned: DuckDBPyConnection, query: str, values: dict[str, Any]
) -> None:
    expected = shown(unpruned.sql(query, params=values or None))
    assert shown(busy_lake.sql(query, **values)) == expected


FRESH = itertools.count()
OPERATORS = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
TEXTS = {
    "run_id": ["r-a1", "r-a2", "r-b1", "r-f1", "r-", "zz"],
    "metric": ["train/loss", "val/loss", "only/live", "n'a\"me ü", ""],
    "experiment": ["pose", "pose/vit", "pose/vit/ablation", "posey", "absent"],
}


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a condition on one column, its values bound under fresh names."""
    column = draw(st.sampled_from(["run_id", "metric", "experiment", "step"]))
    value = st.integers(-2, 42) if column == "step" else st.sampled_from(TEXTS[column])
    name = f"v{next(FRESH)}_"
    shape = draw(st.sampled_from(["compare", "flipped", "between", "in", "not in", "literal", "subtree"]))
    if shape == "between":
        return f"{column} BETWEEN ${name}a AND ${name}b", {f"{name}a": draw(value), f"{name}b": draw(value)}
    if shape in ("in", "not in"):
        items = {f"{name}_{i}": item for i, item in enumerate(draw(st.lists(value, min_size=1, max_size=3)))}
        return f"{column} {shape.upper()} ({', '.join('$' + item for item in items)})", items
    if shape == "literal":
        constant = str(draw(value)) if column == "step" else "'" + draw(value).replace("'", "''") + "'"
        return f"{column} {draw(OPERATORS)} {constant}", {}
    if shape == "subtree":
        return f"in_subtree(experiment, ${name})", {name: draw(st.sampled_from(TEXTS["experiment"]))}
    sides = (column, f"${name}") if shape == "compare" else (f"${name}", column)
    return f"{sides[0]} {draw(OPERATORS)} {sides[1]}", {name: draw(value)}


def combined(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def join(word: str, found: list[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
        values = {name: value for _, bound in found for name, value in bound.items()}
        return "(" + f" {word} ".join(text for text, _ in found) + ")", values

    joined = st.builds(join, st.sampled_from(["AND", "AND", "OR"]), st.lists(parts, min_size=2, max_size=3))
    return joined | parts.map(lambda part: (f"NOT ({part[0]})", part[1]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=st.recursive(comparisons(), combined, max_leaves=5))
def test_any_condition(busy_lake: Lake, unpruned: DuckDBPyConnection, condition: tuple[str, dict[str, Any]]) -> None:
    text, values = condition
    used = {name: value for name, value in values.items() if f"${name}" in text}
    query = f"SELECT {ALL} FROM metrics WHERE {text}"
    assert shown(busy_lake.sql(query, **used)) == shown(unpruned.sql(query, params=used or None))


class TestHowManyFiles:
    def of(self, busy_lake: Lake, opened: Callable[[Lake], list[Sources]], query: str, **values: Any) -> int:
        seen = opened(busy_lake)
        busy_lake.sql(query, **values)
        scan = seen[-1].scans.get("metrics")
        return 0 if scan is None else len(scan.files)

    def holding(self, lake: Lake, condition: str) -> int:
        with lake.connect() as connection:
            files = list(lake._store("metrics").snapshot().paths())
            query = (
                "SELECT count(DISTINCT filename) FROM read_parquet($f, filename=true, hive_partitioning=true) WHERE "
            )
            found = connection.execute(query + condition, {"f": files}).fetchone()
        assert found is not None
        return int(found[0])

    @pytest.mark.parametrize(
        "condition",
        [
            "run_id = 'r-a1' AND metric = 'val/loss'",
            "run_id = 'r-c1'",
            "step BETWEEN 11 AND 13",
            "run_id IN ('r-a1', 'r-e1') AND step >= 35",
            "experiment = 'pose/vit'",
            "in_subtree(experiment, 'pose/vit')",
            "run_id = 'absent'",
            "'r-b1' = run_id AND 7 > step",
        ],
    )
    def test_a_curve_opens_exactly_the_files_that_hold_it(
        self, busy_lake: Lake, opened: Callable[[Lake], list[Sources]], condition: str
    ) -> None:
        oracle = condition.replace("in_subtree(experiment, 'pose/vit')", "starts_with(experiment, 'pose/vit')")
        expected = self.holding(busy_lake, oracle)
        assert self.of(busy_lake, opened, f"SELECT step, value FROM metrics WHERE {condition}") == expected
        assert expected < 30

    def test_bound_values_and_joins_narrow_too(self, busy_lake: Lake, opened: Callable[[Lake], list[Sources]]) -> None:
        expected = self.holding(busy_lake, "run_id = 'r-a1'")
        assert self.of(busy_lake, opened, "FROM metrics WHERE run_id = $r", r="r-a1") == expected
        assert self.of(busy_lake, opened, "FROM metrics WHERE run_id IN $r", r=["r-a1"]) == expected
        joined = "SELECT * FROM runs r LEFT JOIN metrics m ON m.run_id = r.run_id AND m.run_id = 'r-a1'"
        assert self.of(busy_lake, opened, joined) == expected
        both = "FROM metrics WHERE run_id = 'r-a1' UNION ALL FROM metrics WHERE run_id = 'r-b1'"
        assert self.of(busy_lake, opened, both) == expected + self.holding(busy_lake, "run_id = 'r-b1'")

    @pytest.mark.parametrize("query", ["FROM runs", "FROM summaries", "FROM runs_wide", "SELECT 1", "FROM experiments"])
    def test_what_needs_no_points_opens_none(
        self, busy_lake: Lake, opened: Callable[[Lake], list[Sources]], query: str
    ) -> None:
        busy_lake.sql(query)  # repeated curves are looked into once a version
        assert self.of(busy_lake, opened, query) == 0

    def test_what_is_not_understood_opens_all(self, busy_lake: Lake, opened: Callable[[Lake], list[Sources]]) -> None:
        count = len(busy_lake.table("metrics").files())
        assert self.of(busy_lake, opened, "FROM metrics WHERE step = 3 OR value = 0") == count


def test_a_level_named_by_the_last_character_belongs_to_its_subtree(busy_lake: Lake) -> None:
    query = "SELECT DISTINCT experiment FROM metrics WHERE in_subtree(experiment, 'pose/vit') ORDER BY 1"
    assert [name for (name,) in busy_lake.sql(query).fetchall()] == [
        "pose/vit",
        "pose/vit/ablation",
        "pose/vit/\U0010ffff",
    ]


@pytest.mark.parametrize(
    ("query", "times"),
    [("FROM runs WHERE name = $v", 1), ("FROM metrics WHERE step = $v", 3), ("FROM runs JOIN metrics ON step = $v", 3)],
)
def test_only_what_reads_points_is_looked_into_for_every_value(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, query: str, times: int
) -> None:
    seen: list[object] = []
    real = duck.read_needs
    monkeypatch.setattr(duck, "read_needs", lambda tree, values: seen.append(values) or real(tree, values))
    for value in ("1", 1, 1.0, "1", 1, 1.0):
        lake._engine.needs(query, {"v": value})
    assert len(seen) == times
