"""Questions written as queries, on a lake whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ckptlake
from ckptlake import (
    Capture,
    InvalidInputError,
    Lake,
    Query,
    QueryError,
    col,
    count,
    lit,
    metric,
    param,
    rank,
    row_number,
    tag,
    when,
)

LRS = (0.1, 0.01, 0.001)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("builder") / "lake") as lake:
        for lr in LRS:
            for seed in range(2):
                params = {"lr": lr, "seed": seed, "arch": "vit", "mixed": "auto" if seed else 3, "deep": {"on": True}}
                tags: dict[str, object] | list[str] = {"stage": "pretrain"} if seed else ["base line"]
                with lake.run("pose/vit", f"{lr}-{seed}", params, tags, capture=Capture.nothing()) as run:
                    run.define("val/loss", direction="min")
                    for step in range(50):
                        acc = math.nan if step == 20 else step / 50
                        run.log({"val/loss": lr * math.exp(-step / 10) + seed / 100, "acc": acc}, step=step)
        with lake.run("other", "odd", capture=Capture.nothing()) as run:
            run.log({'naïve "metric".x/y': math.inf, "val/loss": math.nan}, step=7)
        lake.commit()
        yield lake


def rows(query: Query) -> list[dict[str, object]]:
    return query.to_dicts()


def test_what_fails_on_other_values_is_not_tried_on_them(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake:
        for number in range(40):
            params, tags = {"size": 1e300, "rank": number + 0.5}, {"arch": "vit", "code": str(number)}
            lake.run("pose", f"n{number}", params, tags, capture=Capture.nothing()).finish()
        for _ in range(5):
            found = lake.runs.where(tag("code").cast(int) == 12, param("rank").cast(int) < 30)
            assert [row["name"] for row in found.select("name").to_dicts()] == ["n12"]


def test_conditions_on_params_tags_and_metrics_meet(lake: Lake) -> None:
    found = lake.runs.where(param("lr") < 0.05, tag("stage") == "pretrain").select(
        "name", param("lr"), metric("val/loss").min(), acc=metric("acc").last()
    )
    assert sorted(row["name"] for row in rows(found)) == ["0.001-1", "0.01-1"]  # type: ignore[type-var]
    assert found.columns == ("name", "params.lr", "min.val/loss", "acc")
    assert {row["acc"] for row in rows(found)} == {0.98}


def test_alternatives_are_written_with_signs(lake: Lake) -> None:
    either = (param("lr") == 0.1) | ~(tag("stage").is_null()) & (param("seed") >= 1)
    assert lake.runs.where(either).count() == 4


def test_a_param_is_read_as_what_it_is_put_beside(lake: Lake) -> None:
    assert lake.runs.where(param("mixed") == 3).count() == 3
    assert lake.runs.where(param("mixed") == "auto").count() == 3
    assert lake.runs.where(param("deep.on") == True).count() == 6  # noqa: E712
    with pytest.raises(InvalidInputError, match="'arch' is a text in every run"):
        lake.runs.where(param("arch") < 3).sql()


@pytest.mark.parametrize(
    ("reading", "value"),
    [
        ("min", 0.0), ("max", 0.98), ("first", 0.0), ("last", 0.98), ("count", 50), ("nan_count", 1), ("arg_min", 0),
        ("arg_max", 49), ("last_step", 49), ("mean", sum(s / 50 for s in range(50) if s != 20) / 49),
    ],
)  # fmt: skip
def test_the_numbers_of_a_curve(lake: Lake, reading: str, value: float) -> None:
    found = lake.runs.where(col("name") == "0.1-0").select(x=getattr(metric("acc"), reading)())
    assert rows(found) == [{"x": pytest.approx(value)}]


def test_a_value_at_a_step_is_null_where_there_is_none(lake: Lake) -> None:
    found = lake.runs.order_by("name").select("name", a=metric("acc").at(10), b=metric("acc").at(99))
    assert [row["a"] for row in rows(found)] == [0.2] * 6 + [None]
    assert {row["b"] for row in rows(found)} == {None}


def test_the_best_are_ranked_by_the_declared_direction_and_nan_is_none_of_them(lake: Lake) -> None:
    found = lake.runs.best("val/loss", n=3)
    assert [row["name"] for row in rows(found)] == ["0.001-0", "0.01-0", "0.1-0"]
    assert {row["best_step.val/loss"] for row in rows(found)} == {49}
    assert lake.runs.best("val/loss", n=100).count() == 6


def test_a_direction_is_not_guessed(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match=r"no direction is declared for 'acc': declare one with run\.define"):
        lake.runs.best("acc")
    assert lake.runs.best("acc", n=1, direction="max").count() == 1


def test_configurations_are_runs_that_differ_in_the_seed_alone(lake: Lake) -> None:
    found = lake.runs.subtree("pose/").group_by_all_except("seed", "mixed")
    assert [(row["params.lr"], row["count"]) for row in rows(found.count().order_by("params.lr"))] == [
        (0.001, 2), (0.01, 2), (0.1, 2)
    ]  # fmt: skip
    loss = metric("val/loss").min()
    table = rows(found.agg(loss.mean(), spread=loss.std()).order_by("params.lr"))
    assert table[0].keys() == {"params.arch", "params.deep.on", "params.lr", "min.val/loss_mean", "spread"}
    assert table[0]["spread"] == pytest.approx(0.01 / math.sqrt(2))


def test_curves_are_tidy_and_pruned_to_the_runs_asked_for(lake: Lake) -> None:
    query = lake.runs.where(param("lr") == 0.1).curves("val/loss")
    assert query.columns == ("experiment", "run_id", "metric", "step", "ts", "value")
    assert query.count() == 100
    told = query.explain()
    assert any("asked for first" in text for text in told.rewrites)
    assert told.scans[0].table == "metrics"
    assert "reads" in str(told)


def test_the_files_of_other_runs_are_not_opened(lake: Lake) -> None:
    (told,) = lake.runs.where(col("name") == "odd").curves("val/loss").explain().scans
    assert (told.files, told.num_files > 1) == (1, True)


def test_thinned_curves_keep_every_spike(lake: Lake) -> None:
    whole = [row["value"] for row in rows(lake.runs.where(col("name") == "0.1-0").curves("acc"))]
    for choices in ({"every": 10}, {"points": 10}):
        thin = lake.runs.where(col("name") == "0.1-0").curves("acc", **choices)  # type: ignore[arg-type]
        values = [row["value"] for row in rows(thin)]
        assert 10 <= len(values) <= 11
        assert sum(math.isnan(value) for value in values) == 1  # type: ignore[arg-type]
        known = [v for v in whole if not math.isnan(v)]  # type: ignore[arg-type]
        assert {min(known), max(known)} <= set(values)  # type: ignore[type-var]


def test_at_best_tells_all_metrics_at_the_best_step(lake: Lake) -> None:
    found = rows(lake.runs.where(col("name") == "0.01-0").at_best("val/loss"))
    assert [(row["metric"], row["step"]) for row in found] == [("acc", 49), ("val/loss", 49)]


def test_related_runs(lake: Lake, tmp_path: pytest.TempPathFactory) -> None:
    with ckptlake.open(tmp_path / "family") as family:  # type: ignore[operator]
        parent = family.run("e", "parent", capture=Capture.nothing())
        child = family.run("e", "child", parent=parent, capture=Capture.nothing())
        parent.log({"x": 1.0}, step=3)
        family.run("e", "fork", fork_from=(parent, 3), capture=Capture.nothing())
        family.run("e", "stranger", capture=Capture.nothing())
        names = [row["name"] for row in rows(family.runs.where(col("run_id") == parent.id).related())]
        assert sorted(names) == ["child", "fork"]  # type: ignore[type-var]
        assert [row["name"] for row in rows(family.runs.where(col("run_id") == child.id).related())] == ["parent"]


def test_windows_see_rows_that_a_later_condition_leaves_out(lake: Lake) -> None:
    curve = lake.metrics.where(col("metric") == "acc", col("step") < 10)
    windowed = curve.with_columns(
        mean=col("value").rolling_mean(3).over("run_id", order_by="step"),
        ema=col("value").ema(0.5).over("run_id", order_by="step"),
        before=col("value").lag().over("run_id", order_by="step"),
        place=row_number().over("run_id", order_by=col("step").desc()),
        level=rank().over("run_id", order_by=col("step") // 5),
        total=col("value").sum().over("run_id"),
    )
    found = rows(windowed.where(col("step") == 9).limit(1))[0]
    assert found["mean"] == pytest.approx(8 / 50)
    assert found["before"] == 8 / 50
    assert (found["place"], found["level"]) == (1, 6)
    assert found["total"] == pytest.approx(sum(range(10)) / 50)
    weights = [0.5**back for back in range(10)]
    by_hand = sum(w * (9 - b) / 50 for b, w in enumerate(weights)) / sum(weights)
    assert found["ema"] == pytest.approx(by_hand, rel=1e-12)


def test_a_place_is_a_column_of_its_own_name(lake: Lake) -> None:
    placed = lake.runs.select("name", rank().over(order_by="name"), row_number().over(order_by="name"))
    assert placed.columns == ("name", "rank", "row_number")


def test_a_pivot_has_a_column_for_each_value(lake: Lake) -> None:
    wide = lake.runs.subtree("pose").select(lr=param("lr"), seed=param("seed"), loss=metric("val/loss").min())
    found = rows(wide.pivot("seed", index="lr", value=col("loss").min()).order_by("lr"))
    assert [list(row) for row in found] == [["lr", "0", "1"]] * 3
    assert found[0]["1"] == pytest.approx(found[0]["0"] + 0.01)  # type: ignore[operator]


def test_joins_unions_and_distinct(lake: Lake) -> None:
    pose, other = lake.runs.subtree("pose"), lake.runs.subtree("other")
    assert pose.union(other).count() == 7
    assert (
        pose.join(lake.runs.select("run_id", again=col("name")), on="run_id").where(col("again") == col("name")).count()
        == 6
    )
    assert lake.runs.join(other, on="run_id", how="anti").count() == 6
    assert rows(lake.runs.select("experiment").distinct().order_by("experiment")) == [
        {"experiment": "other"}, {"experiment": "pose/vit"}
    ]  # fmt: skip
    first = lake.runs.distinct("experiment", order_by=col("name").desc()).order_by("name")
    assert [row["name"] for row in rows(first)] == ["0.1-1", "odd"]


def test_rows_chosen_by_their_order_stay_in_it(lake: Lake) -> None:
    best = lake.runs.order_by(metric("val/loss").min()).limit(2).where(param("lr") < 1)
    assert [row["name"] for row in rows(best.select("name"))] == ["0.001-0", "0.01-0"]
    assert [row["name"] for row in rows(lake.runs.order_by("name").offset(5).select("name"))] == ["0.1-1", "odd"]


def test_a_sample_is_the_same_for_the_same_seed(lake: Lake) -> None:
    first, again, other = (rows(lake.metrics.sample(5, seed=seed)) for seed in (1, 1, 2))
    assert first == again or str(first) == str(again)
    assert str(first) != str(other)


def test_names_of_any_kind(lake: Lake) -> None:
    name = 'naïve "metric".x/y'
    found = lake.runs.where(metric(name).max() > 1e300).select("name", **{'a "b" c': metric(name).max()})
    assert rows(found) == [{"name": "odd", 'a "b" c': math.inf}]


def test_values_in_one_row(lake: Lake) -> None:
    one = lake.runs.where(col("name") == "odd").select(
        a=lit(-7) // 2, b=lit(-7) % 3, c=lit(7) / 2, d=lit(-1).log().is_nan(), e=lit(0).log(), f=lit(-2.5).round(),
        g=when(col("experiment") == "pose").then(1).when(col("experiment") == "other").then(2),
        h=col("parent_run_id").coalesce("none"), i=lit(2.9).cast(int), j=lit("Ab").lower(), k=col("name").length(),
        l=col("name").matches("^o.d$") & col("name").like("o%") & col("name").ilike("O_D"), m=-lit(3).abs(),
        n=col("name").is_in(["odd", "even"]) & col("name").between("a", "z"), o=lit(None).is_null(),
    )  # fmt: skip
    assert rows(one) == [
        {
            "a": -4, "b": 2, "c": 3.5, "d": True, "e": -math.inf, "f": -3.0, "g": 2, "h": "none", "i": 2, "j": "ab",
            "k": 3, "l": True, "m": -3, "n": True, "o": True,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2.9", 2), ("-2.9", -2), (" 7 ", 7), ("1.5e3", 1500), (str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63))],
)
def test_texts_of_numbers_lose_their_fraction_on_the_way_to_integers(lake: Lake, text: str, expected: int) -> None:
    (row,) = rows(lake.runs.limit(1).select(found=lit(text).cast(int)))
    assert row["found"] == expected


@pytest.mark.parametrize("text", ["abc", "", "nan", str(2**63)])
def test_texts_of_no_integer_are_told(lake: Lake, text: str) -> None:
    with pytest.raises(QueryError, match=r"(?i)conver|cast"):
        lake.runs.select(found=lit(text).cast(int)).to_arrow()


def test_times_and_durations_are_counted_in_seconds(lake: Lake) -> None:
    start, end = col("started_at"), col("ended_at")
    query = lake.runs.select(a=(end - start).seconds(), b=start.seconds(), c="started_at", d="duration_s")
    for row in rows(query):
        assert row["a"] == pytest.approx(row["d"])
        assert row["b"] == pytest.approx(row["c"].timestamp(), rel=1e-15)  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match="only times and durations have that, got a text"):
        lake.runs.select(col("name").seconds()).sql()


def test_aggregates_of_everything(lake: Lake) -> None:
    points = lake.metrics.where(col("metric") == "acc")
    found = rows(
        points.agg(
            count(), n=col("value").count(), unique=col("run_id").n_unique(), low=col("value").min(),
            high=col("value").max(), middle=col("value").median(), at=col("step").arg_max("value"),
            first=col("value").first(by="step"), some=(col("step") > 48).any(), every=(col("step") >= 0).all(),
            steps=col("step").sum(), mean=col("step").mean(),
        )
    )[0]  # fmt: skip
    assert found == {
        "count": 300, "n": 300, "unique": 6, "low": 0.0, "high": 0.98, "middle": pytest.approx(0.5), "at": 49,
        "first": 0.0, "some": True, "every": True, "steps": 6 * sum(range(50)), "mean": 24.5,
    }  # fmt: skip


def test_whole_curves_are_answered_from_summaries(lake: Lake) -> None:
    query = lake.metrics.where(col("metric") == "acc").group_by("run_id", "metric")
    quick = query.agg(n=count(), low=col("value").min(), high=col("value").max(), last=col("step").max())
    assert "summaries" in quick.sql()
    assert any("summaries" in text for text in quick.explain().rewrites)
    slow = query.agg(n=count(), low=col("value").min(), high=col("value").max(), last=col("step").max(), x=lit(1).sum())
    assert "summaries" not in slow.sql()
    assert rows(quick.order_by("run_id")) == rows(slow.drop("x").order_by("run_id"))


REFUSED: dict[str, tuple[Callable[[Lake], object], str]] = {
    "a param": (lambda lake: lake.runs.where(param("lrr") < 1).sql(), "no run has the param 'lrr'; did you mean lr"),
    "a metric": (lambda lake: lake.runs.select(metric("val/los").min()).sql(), "did you mean val/loss"),
    "a tag": (lambda lake: lake.runs.where(tag("stagee") == "x").sql(), "did you mean stage"),
    "a column": (lambda lake: lake.runs.select("nam").sql(), "no column 'nam'; did you mean name"),
    "a param as a column": (lambda lake: lake.runs.where(col("lr") < 1).sql(), r"did you mean param\('lr'\)"),
    "a param of curves": (lambda lake: lake.runs.curves("val/los"), "did you mean val/loss"),
    "a config": (lambda lake: lake.runs.group_by_all_except("sed").count().sql(), "did you mean seed"),
    "truth of a query": (lambda lake: bool(lake.runs), "ask query.exists"),
    "length": (lambda lake: len(lake.runs), "query.count"),
    "rows": (lambda lake: list(lake.runs), "to_dicts"),
    "and": (lambda lake: param("lr") < 1 and param("seed") < 1, "combine conditions with & | ~"),
    "in": (lambda lake: 3 in param("lr"), "is_in"),
    "kinds": (lambda lake: lake.runs.where(col("name") < 3).sql(), "a number and a text cannot be compared"),
    "no condition": (lambda lake: lake.runs.where(col("name")).sql(), "where takes conditions"),
    "a curve": (lambda lake: metric("x") < 3, r"as in metric\('x'\).min\(\)"),
    "no group": (lambda lake: lake.runs.select(col("pid").mean()).sql(), "needs groups"),
    "no aggregate": (lambda lake: lake.metrics.group_by("run_id").agg(col("value")).sql(), "many values in a group"),
    "two of a name": (lambda lake: lake.runs.select("name", name=lit(1)).sql(), "two columns would be called 'name'"),
    "a run of no run": (lambda lake: lake.experiments.where(param("lr") < 1).sql(), "no column run_id"),
    "no order": (
        lambda lake: lake.metrics.with_columns(x=col("value").lag()).sql(),
        r"value\.lag\(1\) depends on the order of rows: give ",
    ),
    "a rolling mean without order": (
        lambda lake: lake.metrics.select(x=col("value").rolling_mean(3).over("run_id")).sql(),
        "depends on the order",
    ),
    "a place without order": (lambda lake: lake.metrics.select(rank().over("run_id")).sql(), r"rank\(\) depends"),
    "an object": (lambda lake: lake.runs.where(col("name") == object()), "cannot stand in a query"),
    "half a case": (lambda lake: lake.runs.select(x=when(col("pid") > 1)), "needs its then"),
    "a limit": (lambda lake: lake.runs.limit(-1), "from 0 on"),
}


@pytest.mark.parametrize(("ask", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(lake: Lake, ask: Callable[[Lake], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ask(lake)


def test_words_of_other_libraries_are_told_apart(lake: Lake) -> None:
    with pytest.raises(AttributeError, match="a query has no 'filter': it is called where here"):
        lake.runs.filter(col("pid") > 1)
    with pytest.raises(AttributeError, match=r"a query has no 'fly'$"):
        lake.runs.fly()
    assert not hasattr(lake.runs, "_repr_mimebundle_")


def test_a_query_shows_itself(lake: Lake) -> None:
    query = lake.runs.where(col("name") == "<b>").select("name")
    assert repr(query).startswith("<Query\nSELECT")
    assert "<b>" not in lake.runs.select(x=lit("<b>")).limit(1)._repr_html_()
    assert "$p0" in query.sql()


def test_a_long_text_is_folded_where_a_query_shows_itself(lake: Lake) -> None:
    long = "&" * 61
    page = lake.runs.select(long=lit(long), short=lit("&" * 60)).limit(1)._repr_html_()
    assert f"<summary>{'&amp;' * 60}…</summary>" in page
    assert f">{'&amp;' * 61}</div></details></td>" in page
    assert f"<td>{'&amp;' * 60}</td>" in page


def test_a_verb_makes_a_new_query(lake: Lake) -> None:
    runs = lake.runs
    runs.where(col("name") == "odd")
    assert runs.count() == 7
    assert lake.runs.as_of(0).count() == 0 or lake.runs.as_of(0).exists()


def test_results_in_every_form(lake: Lake) -> None:
    query = lake.runs.select("name").order_by("name")
    names = [*(f"{lr}-{seed}" for lr in sorted(LRS) for seed in range(2)), "odd"]
    assert query.to_polars()["name"].to_list() == names
    assert query.lazy().collect()["name"].to_list() == names
    assert query.to_pandas()["name"].tolist() == names
    assert query.to_arrow().column("name").to_pylist() == names
    assert [row[0] for row in query.to_duckdb().fetchall()] == names
    assert [batch.num_rows for batch in query.batches(3)] == [3, 3, 1]
    assert query.exists()
    assert not query.where(col("name") == "none").exists()


def test_checkpoints_are_asked_as_well_as_cared_for(lake: Lake) -> None:
    import numpy as np

    with lake.run("saves", capture=Capture.nothing()) as run:
        for step in range(3):
            run.save_checkpoint({"w": np.full(4, step, np.float32)}, step=step, metrics={"loss": 1.0 / (step + 1)})
    found = lake.checkpoints.where(col("step") >= 1).order_by(col("step").desc())
    assert [row["step"] for row in rows(found)] == [2, 1]
    assert lake.checkpoints.best("loss", direction="min").step == 2
    norms = lake.tensors.where(col("path") == "w").order_by("step").select("step", "l2_norm")
    assert [row["l2_norm"] for row in rows(norms)] == [0.0, 2.0, 4.0]
    assert "where" in dir(lake.checkpoints)
    with pytest.raises(AttributeError, match="no attribute 'wher'"):
        _ = lake.checkpoints.wher


def test_batches_are_computed_as_they_are_asked_for(lake: Lake) -> None:
    points = lake.metrics.where(col("metric") == "acc").select("step")
    batches = points.batches(100)
    first = next(batches)
    assert 0 < first.num_rows <= 100
    others = [batch.num_rows for batch in batches]
    assert (max(others) <= 100, first.num_rows + sum(others)) == (True, 300)
    assert sum(batch.num_rows for batch in lake.runs.where(col("name") == "none").batches()) == 0
