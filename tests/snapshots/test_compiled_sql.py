"""The SQL of representative queries, kept beside this file; each is also run, and how many rows it gives is known.

With CKPTLAKE_WRITE_SNAPSHOTS=1 in the environment, what is kept is written anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ckptlake
from ckptlake import Capture, Lake, Query, col, count, lit, metric, param, row_number, tag, when

KEPT = Path(__file__).parent / "sql"
Ask = Callable[[Lake], Query]

LOSS = metric("val/loss")
STEPS = col("step")
VALUE = col("value")

QUERIES: dict[str, tuple[int, Ask]] = {
    "all_runs": (4, lambda lake: lake.runs),
    "conditions": (
        2,
        lambda lake: lake.runs.where(param("lr") < 0.05, tag("stage") == "a").select("name", param("lr")),
    ),
    "alternatives": (3, lambda lake: lake.runs.where((param("seed") == 1) | ~(LOSS.min() > 0.5)).select("name")),
    "names_by_case": (4, lambda lake: lake.runs.select(low=param("lr"), high=param("LR"))),
    "readings": (4, lambda lake: lake.runs.select(LOSS.min(), LOSS.arg_min(), LOSS.last(), LOSS.mean(), LOSS.at(3))),
    "best": (3, lambda lake: lake.runs.subtree("pose").best("val/loss", n=3)),
    "curves": (10, lambda lake: lake.runs.where(param("seed") == 0).curves("val/loss")),
    "curves_thinned": (8, lambda lake: lake.runs.curves("val/loss", every=4).where(STEPS < 4)),
    "at_best": (8, lambda lake: lake.runs.at_best("val/loss")),
    "related": (2, lambda lake: lake.runs.where(col("name") == "n1").related().select("name")),
    "groups": (
        2,
        lambda lake: lake.runs.group_by(param("lr")).agg(count(), mean=LOSS.min().mean(), spread=LOSS.min().std()),
    ),
    "groups_by_config": (2, lambda lake: lake.runs.group_by_all_except("seed", "LR").count()),
    "summaries": (8, lambda lake: lake.metrics.group_by("run_id", "metric").agg(n=count(), low=VALUE.min())),
    "order_aggregates": (
        2,
        lambda lake: lake.metrics.group_by("metric").agg(at=STEPS.arg_min("value"), q=VALUE.median()),
    ),
    "windows": (
        20,
        lambda lake: lake.metrics.where(col("metric") == "acc").with_columns(
            mean=VALUE.rolling_mean(3).over("run_id", order_by="step"),
            ema=VALUE.ema(0.5).over("run_id", order_by="step"),
        ),
    ),
    "window_in_condition": (
        4,
        lambda lake: lake.metrics.where(row_number().over("run_id", order_by=[VALUE.desc(), "metric", "step"]) == 1),
    ),
    "window_in_window": (
        2,
        lambda lake: (
            lake.metrics.where(col("metric") == "acc")
            .with_columns(a=VALUE.lag().over("run_id", order_by="step"))
            .with_columns(b=col("a").lag().over("run_id", order_by="step"))
            .order_by("run_id", "step")
            .limit(2)
        ),
    ),
    "pivot": (
        5,
        lambda lake: lake.metrics.pivot("metric", index="step", value=VALUE.mean(), values=["acc", "val/loss"]),
    ),
    "join_inner": (
        20,
        lambda lake: (
            lake.metrics.join(lake.runs.select("run_id", lr=param("lr")), on="run_id")
            .where(col("metric") == "acc")
            .select("lr", "step", "value")
        ),
    ),
    "join_full": (
        4,
        lambda lake: (
            lake.runs.where(param("seed") == 0)
            .select("run_id", "name")
            .join(lake.runs.select("run_id", LOSS.min()), on="run_id", how="full")
        ),
    ),
    "join_anti": (2, lambda lake: lake.runs.join(lake.runs.where(param("seed") == 0), on="run_id", how="anti")),
    "union": (
        3,
        lambda lake: (
            lake.runs.select(x=lit(1)).limit(2).union(lake.runs.select(x=lit(1.5))).where(col("x") > 0).limit(3)
        ),
    ),
    "distinct": (1, lambda lake: lake.runs.select("experiment").distinct().order_by(col("experiment").upper())),
    "distinct_by": (1, lambda lake: lake.runs.distinct("experiment", order_by=LOSS.min()).select("name")),
    "ordered_and_cut": (
        1,
        lambda lake: lake.runs.order_by(LOSS.min(), "name").limit(3).where(param("seed") == 1).select("name"),
    ),
    "cases_and_casts": (
        4,
        lambda lake: lake.runs.select(
            kind=when(param("lr") < 0.05).then("low").otherwise("high"),
            text=param("seed").cast(str),
            rest=param("seed") % 2,
        ),
    ),
    "sample": (3, lambda lake: lake.metrics.sample(3, seed=7)),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("compiled") / "lake") as lake:
        for i in range(4):
            params = {"lr": 0.1 if i < 2 else 0.01, "LR": float(i), "seed": i % 2}
            how = {"parent": f"r{i - 1}"} if i else {}
            with lake.run(
                "pose/vit", f"n{i}", params, {"stage": "a"}, run_id=f"r{i}", capture=Capture.nothing(), **how
            ) as run:
                run.define("val/loss", direction="min")
                for step in range(5):
                    run.log({"val/loss": (i + 1) / (step + 1), "acc": step / 5}, step=step)
        lake.commit()
        yield lake


@pytest.mark.parametrize("name", QUERIES)
def test_the_sql_of_a_query_is_what_is_kept_and_runs(lake: Lake, name: str) -> None:
    expected, ask = QUERIES[name]
    query, kept = ask(lake), KEPT / f"{name}.sql"
    text = query.sql() + "\n"
    if os.environ.get("CKPTLAKE_WRITE_SNAPSHOTS"):
        kept.write_text(text, encoding="utf-8")
    assert kept.exists(), f"no SQL is kept of {name}: write it by CKPTLAKE_WRITE_SNAPSHOTS=1"
    assert text == kept.read_text(encoding="utf-8")
    assert query.to_arrow().num_rows == expected


def test_no_sql_is_kept_of_queries_that_are_gone() -> None:
    assert {path.stem for path in KEPT.glob("*.sql")} == set(QUERIES)
