"""Queries at the edges of what SQL does as it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, Query, QueryError, col, lit, metric, param, row_number, tag


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("edges") / "lake") as lake:
        for i in range(4):
            parent = f"r{i - 1}" if i else None
            params = {"lr": 0.1 * i, "LR": 10.0 * i}
            with lake.run("e", f"n{i}", params, parent=parent, run_id=f"r{i}", capture=Capture.nothing()) as run:
                for step in range(5):
                    run.log({"m": float(step * i), "M": 100.0 + step}, step=step)
        lake.commit()
        yield lake


def rows(query: Query) -> list[dict[str, object]]:
    return query.to_dicts()


def test_names_that_differ_by_case_alone_are_two_names(lake: Lake) -> None:
    one = lake.runs.where(col("run_id") == "r1")
    assert rows(one.select(a=param("lr"), b=param("LR"))) == [{"a": 0.1, "b": 10.0}]
    assert rows(one.select(a=metric("m").max(), b=metric("M").max())) == [{"a": 4.0, "b": 104.0}]
    twice = one.select(x=lit(1), X=lit(2)).union(one.select(X=lit(4), x=lit(3)))
    assert rows(twice.limit(9).select(low=col("x"), high=col("X"))) == [{"low": 1, "high": 2}, {"low": 3, "high": 4}]


def test_a_window_over_all_runs_sees_those_that_a_later_join_leaves_out(lake: Lake) -> None:
    points = lake.metrics.where(col("metric") == "m").with_columns(most=col("value").max().over("metric"))
    one = lake.runs.where(col("run_id") == "r1")
    for how in ("semi", "inner"):
        found = points.join(one.select("run_id"), on="run_id", how=how).select("most").distinct()  # type: ignore[arg-type]
        assert rows(found) == [{"most": 12.0}]


def test_what_is_computed_on_one_side_of_a_full_join_is_null_beside_rows_of_the_other_alone(lake: Lake) -> None:
    some = lake.runs.where(param("lr") > 0.15).select("run_id").with_columns(x=lit(0), y=col("run_id").length())
    ranked = some.order_by(col("y").coalesce(0))
    found = ranked.join(lake.runs.select("run_id", "name"), on="run_id", how="full").order_by("run_id")
    assert rows(found) == [
        {"run_id": f"r{i}", "x": 0 if i > 1 else None, "y": 2 if i > 1 else None, "name": f"n{i}"} for i in range(4)
    ]


def test_an_order_by_what_is_the_same_in_every_row_is_none(lake: Lake) -> None:
    for value in (lit(False), lit(True) & lit(True), lit(None), lit(3), lit("x")):
        found = lake.runs.with_columns(x=value).order_by("x", "run_id").offset(1).select("run_id", "x")
        assert [row["run_id"] for row in rows(found)] == ["r1", "r2", "r3"]
        joined = found.join(lake.runs.select("run_id", "name"), on="run_id").order_by("run_id")
        assert [row["name"] for row in rows(joined)] == ["n1", "n2", "n3"]


def test_a_text_param_of_the_row_before_is_a_text(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake:
        for name, arch in (("a", "vit"), ("b", "cnn")):
            lake.run("texts", params={"arch": arch}, run_id=name, capture=Capture.nothing())
        before = param("arch").lag().over(order_by="run_id")
        found = lake.runs.select("run_id", before=before, after=param("arch").lead(1).over(order_by="run_id"))
        assert rows(found.order_by("run_id")) == [
            {"run_id": "a", "before": None, "after": "cnn"},
            {"run_id": "b", "before": "vit", "after": None},
        ]


def test_a_tag_that_every_run_has_lost_is_not_known_any_more(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake:
        one = lake.run("e", tags={"stage": "a", "kept": "b"}, run_id="one", capture=Capture.nothing())
        two = lake.run("e", tags={"stage": "c"}, run_id="two", capture=Capture.nothing())
        lake.flush()
        assert lake.runs.where(~tag("stage").is_null()).count() == 2
        one.remove_tags("stage")
        lake.flush()
        assert lake.runs.where(tag("stage") == "c").count() == 1
        two.remove_tags("stage")
        lake.flush()
        with pytest.raises(InvalidInputError, match="stage"):
            lake.runs.where(tag("stage") == "c").count()
        assert lake.runs.where(tag("kept") == "b").count() == 1


def test_columns_are_replaced_after_rows_are_made_distinct(lake: Lake) -> None:
    found = lake.runs.select("experiment", "name").distinct().with_columns(name=col("experiment"))
    assert rows(found) == [{"experiment": "e", "name": "e"}] * 4


def test_rows_stay_in_their_order_through_windows_and_conditions(lake: Lake) -> None:
    points = lake.metrics.where(col("metric") == "M").order_by(col("value").desc(), col("run_id").desc())
    placed = points.with_columns(a=row_number().over("run_id", order_by="step"))
    found = placed.with_columns(b=col("a").lag().over("run_id", order_by="step")).where(col("a") > 2).limit(3)
    assert rows(found.select("run_id", "a", "b")) == [{"run_id": f"r{i}", "a": 5, "b": 4} for i in (3, 2, 1)]
    assert rows(placed.distinct("metric").select("run_id")) == [{"run_id": "r3"}]


def test_distinct_rows_are_told_by_their_columns_not_by_their_order(lake: Lake) -> None:
    names = lake.runs.order_by("started_at").select("experiment").distinct()
    assert rows(names) == [{"experiment": "e"}]
    assert rows(names.order_by(row_number().over(order_by="experiment")).limit(5)) == [{"experiment": "e"}]
    last = lake.runs.order_by(col("name").desc()).select("name").distinct().limit(1)
    assert rows(last) == [{"name": "n3"}]


def test_nouns_are_of_the_run_that_a_row_is_about_now(lake: Lake) -> None:
    asked = lake.runs.where(param("lr") > 0.05)
    above = [{"run_id": f"r{i}", "params.lr": 0.1 * i} for i in range(3)]
    parents = asked.with_columns(run_id=col("parent_run_id")).select("run_id", param("lr"))
    assert rows(parents.order_by("run_id")) == above
    parents = asked.select(run_id=col("parent_run_id")).with_columns(param("lr")).order_by("run_id")
    assert rows(parents) == above
    swapped = asked.rename(run_id="child", parent_run_id="run_id").select("run_id", param("lr"))
    assert rows(swapped.order_by("run_id")) == above
    assert asked.select("name").where(param("lr") > 0.15).count() == 2


def test_hidden_columns_are_no_names(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match="begins with ~"):
        lake.runs.rename(name="~name").sql()
    with pytest.raises(InvalidInputError, match=r"there is no column '~param\.lr\.number'"):
        lake.runs.where(param("lr") > 0).where(col("~param.lr.number") > 0).sql()


def test_windows_stand_anywhere(lake: Lake) -> None:
    place = row_number().over(order_by="name")
    assert rows(lake.runs.where(place > 3).select("name")) == [{"name": "n3"}]
    assert rows(lake.runs.order_by((place % 2).desc(), -place).select("name").limit(1)) == [{"name": "n2"}]
    assert rows(lake.runs.distinct("experiment", order_by=-place).select("name")) == [{"name": "n3"}]
    groups = lake.runs.group_by(odd=place % 2).agg(first=place.min()).order_by("odd")
    assert rows(groups) == [{"odd": 0, "first": 2}, {"odd": 1, "first": 1}]
    points = lake.metrics.where(col("metric") == "m", col("run_id") == "r2")
    before = col("value").lag().over("run_id", order_by="step")
    assert rows(points.agg(x=(col("value") - before).sum())) == [{"x": 8.0}]
    twice = points.select("step", x=before.lag().over("run_id", order_by="step")).order_by(col("step").desc())
    assert rows(twice.limit(1)) == [{"step": 4, "x": 4.0}]
    both = lake.runs.union(lake.runs).where(row_number().over(order_by="name") == 3)
    assert rows(both.select("name")) == [{"name": "n1"}]
    with pytest.raises(InvalidInputError, match=r"row_number\(\)\.over\(\.\.\.\) has many values in a group"):
        lake.runs.group_by("experiment").agg(x=place).sql()


NUMBERS: tuple[int | float, ...] = (-(2**63), -7, -1, 0, 3, 2**63 - 1, -7.5, -0.1, 0.1, 1.0, 1e300, math.inf, -math.inf)


@pytest.mark.parametrize("divisor", [number for number in NUMBERS if number])
def test_whole_quotients_and_rests_are_those_of_python(lake: Lake, divisor: float) -> None:
    numbers = [number for number in NUMBERS if (number, divisor) != (-(2**63), -1)]
    asked = {
        f"{which}{i}": (lit(x) // divisor, lit(x) % divisor)[which] for i, x in enumerate(numbers) for which in (0, 1)
    }
    found = rows(lake.runs.select(**asked).limit(1))[0]
    for i, number in enumerate(numbers):
        told = (number, divisor)
        assert (found[f"0{i}"], found[f"1{i}"]) == pytest.approx((number // divisor, number % divisor), nan_ok=True), (
            told
        )


def test_a_division_by_zero_leaves_no_whole_number_and_an_infinite_float(lake: Lake) -> None:
    asked = {"a": lit(5) // 0, "b": lit(5) % 0, "c": lit(5.0) // 0, "d": lit(5.0) % 0, "e": lit(-5) / 0}
    found = rows(lake.runs.select(**asked).limit(1))[0]
    assert list(found.values()) == pytest.approx([None, None, math.inf, math.nan, -math.inf], nan_ok=True)


def test_integers_have_64_bits(lake: Lake) -> None:
    big = 2_000_000_000
    found = lake.runs.select(
        a=lit(big) + big, b=col("attempt") * big * 4, c=lit(-big) - big, d=lit(big) * col("attempt") * 3
    )
    assert rows(found.limit(1)) == [{"a": 2 * big, "b": 4 * big, "c": -2 * big, "d": 3 * big}]
    with pytest.raises(QueryError, match="Overflow in addition of INT64"):
        rows(lake.runs.select(x=lit(2**63 - 1) + 1))
    with pytest.raises(QueryError, match="value nan can't be cast"):
        rows(lake.runs.select(x=lit(math.nan).cast(int)))


def test_one_value_has_no_spread_even_if_it_is_none(lake: Lake) -> None:
    one = lake.runs.where(col("run_id") == "r1").select(x=lit(math.nan))
    assert rows(one.agg(col("x").std())) == [{"x_std": None}]
    assert rows(one.union(one).agg(col("x").std().cast(str))) == [{"x_std": "nan"}]


def test_a_negative_zero_keeps_its_sign(lake: Lake) -> None:
    found = lake.runs.select(a=lit(1.0) / lit(0.0), b=lit(1.0) / lit(-0.0)).limit(1)
    assert rows(found) == [{"a": math.inf, "b": -math.inf}]


@pytest.mark.parametrize("asked", [lambda: lit(1.5).round("x"), lambda: lit(1).round(1.5), lambda: col("x").lag(None)])  # type: ignore[arg-type]
def test_settings_are_whole_numbers(asked: Callable[[], object]) -> None:
    with pytest.raises(InvalidInputError, match="takes a whole number"):
        asked()


def test_a_column_has_a_name(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match="the name of a column is empty"):
        lake.runs.select(**{"": lit(1)})


def test_constants_order_and_group_nothing(lake: Lake) -> None:
    for value in (1, "x", None, 1.5):
        assert rows(lake.runs.group_by(x=lit(value)).count()) == [{"x": value, "count": 4}]
        assert rows(lake.runs.where(lit(False)).group_by(x=lit(value)).count()) == []
        ordered = lake.runs.order_by(lit(value), col("name").desc(), lit(value))
        assert [row["name"] for row in rows(ordered)] == ["n3", "n2", "n1", "n0"]
        assert lake.runs.distinct("experiment", order_by=lit(value)).count() == 1
        named = lake.runs.select("name", x=lit(value))
        assert rows(named.group_by("x").count()) == [{"x": value, "count": 4}]
        assert [row["name"] for row in rows(named.order_by("x", "name"))] == ["n0", "n1", "n2", "n3"]


def test_a_condition_on_a_union_sees_floats_where_one_side_has_them(lake: Lake) -> None:
    one = lake.runs.where(col("run_id") == "r1")
    both = one.select(x=lit(1), y=lit(1.5)).union(one.select(y=lit(2), x=lit(0.5)))
    assert rows(both.where(col("x").cast(str) == "1.0").select("x", "y")) == [{"x": 1.0, "y": 1.5}]
    assert rows(both.where(col("y").cast(str) == "2.0").select("x", "y")) == [{"x": 0.5, "y": 2.0}]


def test_the_first_row_counts_even_if_it_has_no_value(lake: Lake) -> None:
    parent = col("parent_run_id")
    found = lake.runs.agg(
        first=parent.first("name"), last=parent.last(col("name").length()), low=parent.arg_min(-lit(1.0))
    )
    assert rows(found) == [{"first": None, "last": "r0", "low": "r0"}]
    assert rows(lake.runs.agg(x=lit(1).arg_max(lit(-(2**63)) + col("attempt") - 1))) == [{"x": 1}]


def test_texts_are_put_together(lake: Lake) -> None:
    found = lake.runs.order_by("name").select(a=col("experiment") + "/" + col("name"), b=col("parent_run_id") + "x")
    assert rows(found.limit(2)) == [{"a": "e/n0", "b": None}, {"a": "e/n1", "b": "r0x"}]


def test_points_that_are_nan_are_found_in_files(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake:
        with lake.run("e", capture=Capture.nothing()) as run:
            for step, value in enumerate((1.0, math.nan, 2.5)):
                run.log({"m": value, "all": math.nan}, step=step)
        lake.commit()
        assert lake.metrics.where(col("value").is_nan()).count() == 4
        assert lake.metrics.where(col("value") > 5).count() == 4
        assert lake.sql("SELECT count(*) FROM metrics WHERE isnan(value)").fetchall() == [(4,)]


def test_a_union_keeps_the_fractions_that_stand_beside_whole_numbers(lake: Lake) -> None:
    one = lake.runs.where(col("run_id") == "r1")
    whole, fraction = one.select(x=lit(2)), one.select(x=lit(0.5))
    for both in (whole.union(fraction), fraction.union(whole), whole.distinct().union(fraction)):
        assert sorted(row["x"] for row in rows(both)) == [0.5, 2.0]  # type: ignore[type-var]


def test_the_floor_of_a_whole_number_is_a_whole_number_to_go_on_with(lake: Lake) -> None:
    one = lake.runs.where(col("run_id") == "r1")
    found = one.select(a=lit(1).floor() // -3, b=lit(1).ceil() // 2, c=lit(2**60 + 1).floor(), d=lit(-1.5).floor())
    assert rows(found) == [{"a": -1, "b": 0, "c": 2**60 + 1, "d": -2.0}]


def test_a_param_that_is_whole_in_all_runs_stays_whole_beside_whole_numbers(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake:
        for run_id, mixed in (("r0", 3), ("r1", 2.5)):
            params = {"k": 3, "mixed": mixed, "huge": 10**30}
            lake.run("e", "n", params, run_id=run_id, capture=Capture.nothing()).finish()
        lake.commit()
        asked = lake.runs.order_by("run_id").select(
            rest=param("k") % 2,
            none=param("k") // 0,
            mixed=param("mixed") // 1,
            half=param("k") == 2.5,
            huge=param("huge") * 1,
        )
        told = {"rest": 1, "none": None, "half": False, "huge": 1e30}
        assert [repr(row["rest"]) for row in rows(asked)] == ["1", "1"]
        assert rows(asked) == [{**told, "mixed": 3.0}, {**told, "mixed": 2.0}]
