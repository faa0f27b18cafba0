"""The script of `lake.setup_script`, run by a DuckDB of its own, gives every view its rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake import Capture, DamagedTableError, Lake, Settings
from ckptlake.query.file_rows import no_rows, recorded_again
from ckptlake.query.tensors import recorded_again as recorded_again_in_memory
from ckptlake.query.trial import Trial
from ckptlake.query.views import ALL_VIEWS
from ckptlake.tables.schemas import CHECKPOINTS, TABLES

Put = Callable[..., None]
_SUMS = {"sum", "sum_sq"}


def rows(connection: duckdb.DuckDBPyConnection | Lake, view: str) -> Counter[str]:
    """Return the rows of a view; what is added up differs in its last digits."""
    relation = connection.sql(f"SELECT * FROM {view}")
    columns = list(zip(relation.columns, map(str, relation.types), strict=True))
    found = [
        tuple(
            round(value, 9) if name in _SUMS and math.isfinite(value) else value
            for name, value in zip(relation.columns, row, strict=True)
        )
        for row in relation.fetchall()
    ]
    return Counter([repr(columns), *map(repr, found)])


def after(script: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(script)
    return connection


def check_views(lake: Lake) -> None:
    lake.commit()
    plain = after(lake.setup_script())
    for view in sorted(ALL_VIEWS):
        assert rows(plain, view) == rows(lake, view), view
    assert plain.execute("SELECT in_subtree('a/b', 'a'), in_subtree('ab', 'a')").fetchall() == [(True, False)]


@pytest.fixture(params=["plain", "it's 'a' [lake] *? ü", "a=1"])
def odd_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    root = tmp_path / request.param / "lake"
    root.parent.mkdir()
    with ckptlake.open(root, settings=Settings(auto_compact=False, commit_interval_s=3600)) as lake:
        yield lake


def test_a_lake_with_everything_in_it(odd_lake: Lake) -> None:
    lake = odd_lake
    lake.experiment("it's/ü=1 %41").describe("odd")
    with lake.run("it's/ü=1 %41", run_id="r", params={"lr": 0.1, "LR": True, "x": [1]}, tags=["t"]) as run:
        run.define("val/loss", direction="min")
        run.log({"val/loss": 2.0, 'o"dd': math.nan}, step=0)
        run.log({"val/loss": math.inf, "large": 1e300}, step=1)
        run.save_checkpoint({"w": np.ones(5000), "v": np.arange(3)}, step=1, metrics={"val/loss": 2.0}, alias="a")
        run.save_checkpoint({"w": np.ones(5000), "v": np.arange(3)}, step=2, metrics={"val/loss": math.nan}, pin=True)
    with lake.run(resume="r", capture=Capture.nothing()) as again:
        again.log({"val/loss": 5.0}, step=0)
        again.log({"val/loss": -1.0}, step=7)
    lake.checkpoints.verify(lake.checkpoints.list()[0].id)
    lake.checkpoints.compact(keep_raw=0)
    check_views(lake)


def test_a_lake_with_nothing_in_it(lake: Lake) -> None:
    check_views(lake)


def test_many_files_and_repeated_steps(busy_lake: Lake) -> None:
    """One run of the lake is still logging; what it has not committed is not in the picture."""
    plain = after(busy_lake.setup_script())
    committed = sum(file.num_records for file in busy_lake.table("metrics").files())
    assert plain.execute("SELECT count(*) FROM metrics_raw").fetchall() == [(committed,)]
    for view, order in (("metrics", "step"), ("summaries", "metric")):
        query = f"SELECT * FROM {view} WHERE run_id <> 'r-c1' ORDER BY run_id, metric, {order}"
        if view == "summaries":
            query = query.replace("*", "* REPLACE (round(sum, 9) AS sum, round(sum_sq, 9) AS sum_sq)")
        assert repr(plain.sql(query).fetchall()) == repr(busy_lake.sql(query).fetchall())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["m", "n"]),
                st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63)]),
                st.sampled_from([0.0, -0.0, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf]),
            ),
            min_size=1,
            max_size=6,
        ),
        max_size=4,
    )
)
def test_summaries_are_merged_and_counted_as_in_memory(
    tmp_path_factory: pytest.TempPathFactory, put: Put, commits: list[list[tuple[str, int, float]]]
) -> None:
    with ckptlake.open(tmp_path_factory.mktemp("l") / "l", settings=Settings(auto_compact=False)) as lake:
        ts = 0
        for commit in commits:
            points = []
            for metric, step, value in commit:
                ts += 1
                points.append({"experiment": "e", "run_id": "r", "metric": metric, "ts": ts, "attempt": 1})
                points[-1] |= {"step": step, "value": value}
            put(lake, "metrics", *points)
        plain = after(lake.setup_script())
        query = "SELECT * REPLACE (min + 0 AS min, max + 0 AS max, sum + 0 AS sum) FROM summaries ORDER BY metric"
        assert repr(plain.sql(query).fetchall()) == repr(lake.sql(query).fetchall())
        assert rows(plain, "metrics") == rows(lake, "metrics")


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "checkpoint_id": st.sampled_from("abc"),
                "event": st.sampled_from(["saved", "sealed", "compacted", "trimmed", "pinned", "deleted"]),
                "digest": st.sampled_from([None, "d"]),
            }
        )
    )
)
def test_what_is_recorded_again_is_told_as_in_memory(events: list[dict[str, str | None]]) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(events, schema=CHECKPOINTS.schema)
    expected = set(recorded_again_in_memory(table).column("checkpoint_id").to_pylist())
    found = duckdb.connect().register("events", table).execute(recorded_again("events")).fetchall()
    assert {name for (name,) in found} == expected


@pytest.mark.parametrize("table", TABLES)
def test_no_rows_have_the_types_of_the_table(table: str) -> None:
    relation = duckdb.sql(no_rows(TABLES[table]))
    held = duckdb.from_arrow(TABLES[table].schema.empty_table())
    assert list(zip(relation.columns, relation.types, strict=True)) == list(zip(held.columns, held.types, strict=True))


def test_it_says_what_it_is(lake: Lake) -> None:
    head = lake.setup_script().partition("\n\n")[0]
    assert all(line.startswith("--") for line in head.splitlines())
    assert str(lake.path) in head
    assert "picture of that moment" in head
    assert "ckptlake views --lake" in head


def test_its_views_can_be_made_again_and_are_seen_by_cursors(
    lake: Lake, put: Put, point: Callable[..., object]
) -> None:
    put(lake, "metrics", point(0, 1.0))
    plain = after(lake.setup_script())
    put(lake, "metrics", point(1, 2.0))
    assert plain.cursor().execute("SELECT count(*) FROM metrics").fetchall() == [(1,)]
    plain.execute(lake.setup_script())
    assert plain.cursor().execute("SELECT count(*) FROM metrics").fetchall() == [(2,)]


@pytest.mark.parametrize("table", ["metrics", "params", "summaries"])
def test_a_missing_file_is_told(lake: Lake, put: Put, point: Callable[..., object], table: str) -> None:
    put(lake, "metrics", point(0, 1.0))
    put(lake, "params", {"run_id": "r", "key": "k", "attempt": 1, "ts": 0, "kind": "int", "number": 1.0})
    (file,) = lake.table(table).files()
    (lake.table(table).path / file.path).unlink()
    with pytest.raises(DamagedTableError, match=file.path.rpartition("/")[2]):
        lake.setup_script()


def test_a_trial_answers_what_is_there() -> None:
    trial = Trial()
    trial.run("CREATE VIEW one AS SELECT 1 AS n")
    trial.run("CREATE VIEW none AS SELECT 1 AS n WHERE false")
    assert (trial.has_rows("one"), trial.has_rows("none")) == (True, False)
