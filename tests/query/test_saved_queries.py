"""Queries kept in a lake as the tree of what they ask."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, col, count, lit, metric, param, placeholder, tag, when
from ckptlake.errors import QueryNotFoundError
from ckptlake.query import nodes as n
from ckptlake.query.saved import SavedQueries
from ckptlake.query.trees import read_tree, write_tree


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = ckptlake.open(tmp_path / "lake")
    for lr in (0.1, 0.01):
        with lake.run("e", params={"lr": lr}, tags=["x"], capture=Capture.nothing()) as run:
            run.log({"loss": lr}, step=1)
    return lake


def test_what_is_saved_is_what_is_asked(lake: Lake) -> None:
    query = lake.runs.where((param("lr") < placeholder("most")) & tag("x").is_not_null()).select(
        "experiment",
        lr=param("lr"),
        loss=metric("loss").at(1),
        kind=when(col("pid") > 0).then(lit(1.5)).otherwise(None),
    )
    query.order_by(col("lr").desc()).limit(5).save("low rates / lr", "runs that learn slowly")
    saved = SavedQueries(lake.path / "queries")
    found = saved.find("low rates / lr")
    assert found is not None
    assert (found.description, found.placeholders) == ("runs that learn slowly", ("most",))
    assert saved.names() == ["low rates / lr"]
    filled = ckptlake.Query(found.filled({"most": 0.05}), lake.runs._session)
    assert [row["lr"] for row in filled.to_dicts()] == [0.01]
    text = (lake.path / "queries").iterdir().__next__().read_text()
    assert "SELECT" not in text.upper().replace('"NODE": "PROJECT"', "")


@pytest.mark.parametrize("values", [{}, {"most": 1, "other": 2}, {"other": 1}, {"most": object()}])
def test_values_that_do_not_fit_are_refused(lake: Lake, values: dict[str, object]) -> None:
    lake.runs.where(param("lr") < placeholder("most")).save("q")
    found = SavedQueries(lake.path / "queries").find("q")
    assert found is not None
    with pytest.raises(InvalidInputError, match=r"takes most|cannot stand in a query"):
        found.filled(values)


def test_a_place_left_open_is_told_where_it_is_asked(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match="leaves 'most' open"):
        lake.runs.where(param("lr") < placeholder("most")).sql()


def test_saving_again_takes_the_place_and_deleting_forgets(lake: Lake) -> None:
    saved = SavedQueries(lake.path / "queries")
    lake.runs.save("q")
    lake.metrics.save("q")
    found = saved.find("q")
    assert found is not None
    assert found.table == n.View("metrics")
    assert saved.delete("q")
    assert not saved.delete("q")
    assert saved.find("q") is None


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "x" * 300, 3])
def test_names_that_no_file_can_have_are_refused(lake: Lake, name: Any) -> None:
    with pytest.raises(InvalidInputError):
        lake.runs.save(name)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".hidden", "a/b", "naïve 漢", "CON", "%2E"])
def test_names_stay_within_the_directory(lake: Lake, name: str) -> None:
    lake.runs.save(name)
    assert [path.parent for path in (lake.path / "queries").iterdir()] == [lake.path / "queries"]
    assert SavedQueries(lake.path / "queries").names() == [name]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(), st.binary(),
    st.datetimes(timezones=st.just(UTC)), st.dates(), st.times(), st.timedeltas(),
)  # fmt: skip


@given(scalars)
def test_every_value_comes_back(value: Any) -> None:
    table = n.Filter(n.View("runs"), n.Call("eq", (n.Column("a"), n.Const.of(value))))
    found = read_tree(write_tree(table))
    assert isinstance(found, n.Filter)
    assert isinstance(found.condition, n.Call)
    again = found.condition.args[1]
    assert isinstance(again, n.Const)
    if isinstance(value, float) and math.isnan(value):
        assert math.isnan(again.value)  # type: ignore[arg-type]
    else:
        assert (again.value, again.kind) == (value, type(value).__name__)
        assert found == table


def tree() -> dict[str, Any]:
    table = n.Sample(
        n.Join(
            n.Slice(n.View("runs"), 3),
            n.Group(n.View("metrics"), (), (("q", n.Aggregate("quantile", (n.Column("value"),), (0.5,))),)),
            ("run_id",),
        ),
        4,
        1,
    )
    told: dict[str, Any] = json.loads(write_tree(table))
    return told


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "SQL for a number": lambda told: told.update(length="1; DROP TABLE runs"),
    "SQL for a fraction": lambda told: told["source"]["right"]["columns"][0][1].update(settings=["0.5) OR (1"]),
    "a flag for a number": lambda told: told.update(seed=True),
    "an unknown node": lambda told: told.update(node="Exec"),
    "a hidden node": lambda told: told.update(node="WithNouns"),
    "a value for a table": lambda told: told.update(source={"node": "Column", "name": "a"}),
    "another join": lambda told: told["source"].update(how="cross"),
    "a field too many": lambda told: told.update(more=1),
    "a field too few": lambda told: told.pop("seed"),
    "no list": lambda told: told["source"].update(on="run_id"),
    "an unknown constant": lambda told: told["source"].update(left={"const": "module", "value": "os"}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_trees_that_no_query_writes_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    assert isinstance(read_tree(json.dumps(tree())), n.Sample)
    told = tree()
    change(told)
    with pytest.raises(InvalidInputError, match="no saved query"):
        read_tree(json.dumps(told))


@pytest.mark.parametrize(
    "text", ["", "3", "[]", "{", '{"node":"View"}', "[" * 100_000, '{"node":"View","name":3,"columns":[]}']
)
def test_texts_that_are_no_trees_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no saved query"):
        read_tree(text)


@pytest.mark.parametrize(
    "table",
    [
        n.View("runs; DROP TABLE x"),
        n.Project(n.View("runs"), (("x", n.Call("getenv", (n.Const.of("HOME"),))),)),
        n.Project(n.View("runs"), (("x", n.Window(n.Call("read_text", (n.Const.of("a"),)))),)),
        n.Group(n.View("runs"), (), (("x", n.Aggregate("list", (n.Column("name"),))),)),
    ],
)
def test_functions_that_the_vocabulary_does_not_have_are_never_run(lake: Lake, table: n.Table) -> None:
    query = ckptlake.Query(read_tree(write_tree(table)), lake.runs._session)
    with pytest.raises(InvalidInputError, match="there is no"):
        query.sql()


def test_a_damaged_file_is_told(lake: Lake) -> None:
    lake.runs.save("q")
    (path,) = (lake.path / "queries").iterdir()
    path.write_text(path.read_text()[:-10])
    with pytest.raises(InvalidInputError, match=r"cannot be read.*save it again"):
        SavedQueries(lake.path / "queries").find("q")


def test_values_of_every_kind_run(lake: Lake) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    query = lake.runs.where(col("started_at") > moment, col("started_at") > date(2020, 1, 1)).agg(count())
    assert query.to_dicts() == [{"count": 2}]
    assert lake.runs.where(col("started_at") - moment > timedelta(days=1)).count() == 2
    assert isinstance(time(1, 2).isoformat(), str)


def test_a_saved_query_is_asked_by_its_name(lake: Lake) -> None:
    lake.runs.where(param("lr") < placeholder("most")).select(lr=param("lr")).save("slow learners")
    assert lake.query("slow learners", most=0.05).fetchall() == [(0.01,)]
    going_on = lake.saved_query("slow learners", most=1).where(col("lr") > 0.05)
    assert going_on.to_dicts() == [{"lr": 0.1}]
    assert lake.saved_queries().names() == ["slow learners"]
    with pytest.raises(QueryNotFoundError, match="slow learners"):
        lake.query("slow lerners")
    with pytest.raises(QueryNotFoundError, match="did you mean 'leaderboard'"):
        lake.query("leaderbord")
    with pytest.raises(QueryNotFoundError, match="no query 'x' is saved"):
        lake.saved_query("x")
