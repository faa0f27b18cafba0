"""Queries by name, and a lake with whatever tells engines apart: NaN, infinity, nulls, ties, odd names, repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import ckptlake
from ckptlake import Lake, Query, Settings, col, count, lit, metric, param, rank, row_number, tag, when
from ckptlake.config import Capture

ODD = 'naïve "metric".x/`y`'
Ask = Callable[[Lake], Query]


@contextmanager
def made_lake(path: Path) -> Iterator[Lake]:
    """Yield a lake of seven runs: one resumed over its own steps, one with rows that are not committed."""
    settings = Settings(auto_compact=False, commit_interval_s=3600)
    with ckptlake.open(path / "run=1 [x] {a,b}", settings=settings) as lake:
        for i, lr in enumerate((0.1, 0.1, 0.01, 1e-3)):
            params = {"lr": lr, "seed": i % 2, "arch": "vit", "mixed": "auto" if i else 3, "deep": {"on": i == 1}}
            tags: Any = {"stage": "pretrain"} if i else ["base line"]
            name, experiment = f"{lr}-{i}_%", "pose/vit" if i < 3 else "pose"
            with lake.run(experiment, name, params, tags, run_id=f"r{i}", capture=Capture.nothing()) as run:
                run.define("loss", direction="min")
                for step in range(20):
                    acc = {7: math.nan, 9: math.inf, 11: -math.inf}.get(step, (step % 5) / 10 + i)
                    run.log({"loss": lr * math.exp(-step / 10) + i / 100, "acc": acc}, step=step)
                    if step == 10:
                        lake.commit()
                if i == 2:
                    state = {"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(3, np.float32)}
                    run.save_checkpoint(state, step=3)
                    run.save_checkpoint({**state, "w": state["w"] + 1}, step=9)
        with lake.run(resume="r1", capture=Capture.nothing()) as again:
            for step in range(5, 9):
                again.log({"loss": 5.0 + step}, step=step)
        with lake.run('it\'s "q"/ü%2F', "ODD\\name", run_id="r4", capture=Capture.nothing()) as odd:
            odd.log({ODD: math.inf, "loss": math.nan}, step=-7)
            odd.log({ODD: -2.5, "loss": 0.0}, step=2**40)
        lake.run("posey", "é漢😀", run_id="r5", capture=Capture.nothing()).log({"loss": -0.0}, step=1)
        lake.commit()
        live = lake.run("pose/live", "live", {"lr": 0.5}, run_id="r6", parent="r0", capture=Capture.nothing())
        live.log({"loss": 0.25, "only/live": 1.5}, step=3)
        lake.flush()
        yield lake


def view(name: str) -> Ask:
    return lambda lake: lake._query(name)


def points(lake: Lake) -> Query:
    return lake.metrics.where(col("metric") == "acc")


def one(**values: Any) -> Ask:
    return lambda lake: lake.runs.where(col("run_id") == "r0").select(**values)


def _windows(lake: Lake) -> Query:
    value = col("value")
    return lake.metrics.where(col("metric").is_in(["acc", "loss"]), col("step") < 8).with_columns(
        mean=value.rolling_mean(3).over("run_id", "metric", order_by="step"),
        low=value.rolling_min(3).over("run_id", "metric", order_by="step"),
        ema=value.ema(0.3).over("run_id", "metric", order_by="step"),
        before=value.lag().over("run_id", "metric", order_by="step"),
        after=value.lead(2).over("run_id", "metric", order_by="step"),
        place=row_number().over("run_id", "metric", order_by=[value.desc(), "step"]),
        level=rank().over("run_id", "metric", order_by=value),
        middle=value.median().over("run_id", "metric"),
        kinds=value.n_unique().over("run_id", "metric"),
        best=col("step").arg_min("value").over("run_id", "metric"),
        spread=value.std().over("run_id", "metric"),
    )


def _pivot(lake: Lake) -> Query:
    wide = lake.runs.subtree("pose").select(lr=param("lr"), seed=param("seed"), loss=metric("loss").min())
    return wide.pivot("seed", index="lr", value=col("loss").min(), values=[0, 1])


X, STEP = col("value"), col("step")
MOMENT = datetime(2020, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)
CORPUS: Mapping[str, Ask] = {
    **{f"all of {name}": view(name) for name in (
        "runs", "params", "tags", "definitions", "experiments", "summaries", "metrics", "metrics_raw", "tensors",
        "checkpoints", "checkpoint_events", "verifications", "runs_wide",
    )},
    "params and tags": lambda lake: lake.runs.where(param("lr") < 0.05, tag("stage") == "pretrain").select(
        "name", param("lr"), param("mixed"), param("deep.on"), tag("stage"), acc=metric("acc").last()
    ),
    "either": lambda lake: lake.runs.where((param("lr") == 0.1) | ~tag("stage").is_null() & (param("seed") >= 1)),
    "mixed param": lambda lake: lake.runs.where(param("mixed") == 3).select("name"),
    "numbers of curves": lambda lake: lake.runs.select(
        "name", *(getattr(metric("acc"), reading)() for reading in (
            "min", "max", "first", "last", "mean", "count", "nan_count", "arg_min", "arg_max", "last_step",
        )), at=metric("loss").at(6), none=metric("acc").at(99), odd=metric(ODD).max(),
    ),
    "best": lambda lake: lake.runs.best("loss", n=3),
    "best by the largest": lambda lake: lake.runs.best("acc", n=3, direction="max"),
    "configurations": lambda lake: lake.runs.group_by_all_except("seed", "mixed").agg(
        count(), metric("loss").min().mean(), spread=metric("loss").min().std()
    ),
    "curves": lambda lake: lake.runs.where(param("lr") == 0.1).curves("loss", "acc"),
    "thinned curves": lambda lake: lake.runs.curves("acc", every=5),
    "thinned by points": lambda lake: lake.runs.curves("acc", points=6),
    "at best": lambda lake: lake.runs.at_best("loss"),
    "related": lambda lake: lake.runs.related(),
    "subtree": lambda lake: lake.runs.subtree("pose/").select("run_id", "experiment"),
    "windows": _windows,
    "pivot": _pivot,
    "nulls last": lambda lake: lake.runs.order_by(metric("acc").min().desc(), "run_id").select("run_id"),
    "NaN above all": lambda lake: points(lake).order_by(X.desc(), "run_id", "step").limit(9).select("run_id", "step"),
    "aggregates": lambda lake: points(lake).group_by("run_id").agg(
        count(), n=X.count(), unique=X.n_unique(), low=X.min(), high=X.max(), middle=X.median(), q=X.quantile(0.9),
        at=STEP.arg_max("value"), lowest=STEP.arg_min("value"), first=X.first(by="step"), last=X.last(by="ts"),
        some=(STEP > 18).any(), every=(STEP >= 0).all(), steps=STEP.sum(), mean=STEP.mean(), total=X.sum(),
        spread=X.std(), even=STEP.std(), name=col("metric").last(by="metric"),
    ),
    "aggregates of finite": lambda lake: points(lake).where(X.is_finite()).group_by("metric").agg(
        X.mean(), X.std(), X.sum(), X.quantile(0.25), X.n_unique(),
        tie=STEP.arg_min("value"), tied=STEP.arg_max("value")
    ),
    "aggregates of nothing": lambda lake: points(lake).where(STEP > 999).agg(
        count(), X.sum(), X.mean(), X.std(), X.min(), X.median(), STEP.sum(), STEP.arg_min("value"), (STEP > 1).any()
    ),
    "groups by values": lambda lake: points(lake).group_by(bucket=STEP // 5, odd=STEP % 2).agg(count(), X.max()),
    "groups by NaN": lambda lake: points(lake).group_by("value").agg(count(), steps=STEP.n_unique()),
    "whole curves": lambda lake: lake.metrics.group_by("run_id", "metric").agg(count(), X.min(), STEP.max()),
    "union": lambda lake: lake.runs.subtree("pose").union(lake.runs.subtree("posey")).select("run_id"),
    "semi join": lambda lake: lake.metrics.join(lake.runs.subtree("pose").select("run_id"), on="run_id", how="semi"),
    "anti join": lambda lake: lake.runs.join(lake.runs.subtree("pose"), on="run_id", how="anti").select("run_id"),
    "left join": lambda lake: lake.runs.select("run_id").join(
        lake.metrics.where(STEP == 1).select("run_id", "metric", "value"), on="run_id", how="left"
    ),
    "full join": lambda lake: points(lake).where(STEP < 2).select("step", "value").join(
        lake.metrics.where(STEP > 0, STEP < 3, col("run_id") == "r0").select("step", "value"), on="step", how="full"
    ),
    "distinct": lambda lake: lake.runs.select("experiment").distinct().order_by("experiment"),
    "first of each": lambda lake: lake.runs.distinct("experiment", order_by=col("name").desc()).select("run_id"),
    "limits": lambda lake: lake.runs.order_by("run_id").limit(5).where(param("lr") < 1).offset(1).select("run_id"),
    "sample": lambda lake: lake.metrics.sample(7, seed=3).select("run_id", "metric", "step"),
    "sample of nothing known": lambda lake: points(lake).where(col("run_id") == "r0").select("value").sample(6),
    "division": lambda lake: points(lake).select(
        "run_id", "step", a=X / 0, b=X / X, c=STEP / 0, d=STEP // 3, e=STEP % 3, f=(STEP - 9) // 4, g=(STEP - 9) % 4,
        h=(X - 1) // 0.25, i=(X - 1) % 0.25, j=(STEP - 9) % -4, k=(STEP - 9) // -4, l=lit(1) / (STEP - 5), m=-X / 0,
    ),
    "integers by 0": one(a=lit(3) // 0, b=lit(3) % 0, c=lit(-0.0), d=lit(1) / lit(-0.0)),
    "functions": lambda lake: points(lake).select(
        "run_id", "step", a=X.log(), b=X.log10(), c=X.sqrt(), d=X.exp(), e=X.round(1), f=X.floor(), g=X.ceil(),
        h=X.abs(), i=X ** 2, j=X.is_nan(), k=X.is_finite(), l=lit(math.nan) == X, m=X > 1e300, n=X.between(0, 1),
    ),
    "rounding": one(
        a=lit(2.5).round(), b=lit(-2.5).round(), c=lit(1.005).round(2), d=lit(7).round(-1), e=lit(1234.5).round(-2),
        f=lit(-0.5).ceil(), g=lit(1e300).floor(), h=lit(math.nan).round(2), i=lit(-15).round(-1), j=lit(0.1).round(12),
    ),
    "null in functions": one(
        a=col("parent_run_id").is_null(), b=col("pid").is_not_null(), c=(col("pid") / 2).is_nan(),
        d=col("git_commit").coalesce("none"), e=lit(None).is_null(), f=metric("only/live").min().is_finite(),
        g=col("git_commit").is_in(["a"]), h=when(col("pid") > 3).then(1).otherwise(2.5),
    ),
    "texts": lambda lake: lake.runs.select(
        "run_id", a=col("name").length(), b=col("name").lower(), c=col("name").upper(), d=col("name").like("%\\_%"),
        e=col("name").ilike("odd\\n%"), f=col("name").like("0.1-__%"), g=col("name").starts_with("0.1"),
        h=col("name").ends_with("%"), i=col("name").contains("漢"), j=col("name") + lit("'\\"),
        k=lit("é") > col("name"),
    ),
    "patterns": lambda lake: lake.runs.select(
        "run_id", a=col("name").matches(r"^\d\.\d+-[01]_%$"), b=col("name").matches("(?i)odd"),
        c=col("name").matches(r"\pL{2}"), d=col("experiment").matches("^(pose|other)(/|$)"),
        e=col("name").matches(r"^\S+$"), f=(col("name") + lit("\r")).matches("%.$"),
        g=col("name").matches("[^a-z]{6,}?"),
    ),
    "casts": one(
        a=lit(2.9).cast(int), b=lit(-2.9).cast(int), c=lit("12").cast(int), d=lit("1e3").cast(float),
        e=lit(5).cast(str), m=lit("2.9").cast(int), n=lit("-2.9").cast(int), o=lit(str(2**63 - 1)).cast(int),
        p=lit(" 7 ").cast(int), q=lit(None).cast(str).cast(int), r=lit("1.5e3").cast(int),
        f=lit(True).cast(str), g=lit(True).cast(int), h=lit("nan").cast(float), i=lit("true").cast(bool),
        j=lit("2020-02-29 12:30:15.25+00").cast(datetime), k=lit(0).cast(bool), l=lit(MOMENT).cast(str),
    ),
    "floats as text": lambda lake: lake.runs.where(col("run_id") == "r0").select(**{
        f"x{i}": lit(value).cast(str) for i, value in enumerate((
            0.0, 1.0, -1.5, 0.1, 1e-4, 1.5e-4, 1e-5, -2.5e-7, 1e-10, 123456.75, 1e7, 12345678.9, 1e15, 1.5e16, 1e16,
            1e20, 1.25e-300, 1e300, math.nan, math.inf, -math.inf, 0.001, 1 / 3, 2 / 3 * 1e-4, 1e15 / 3,
        ))
    }),
    "times": lambda lake: lake.runs.select(
        "run_id", a=col("started_at") > MOMENT, b=col("started_at") > datetime(2100, 1, 1),
        c=lit(MOMENT), d=col("started_at") > date(2020, 1, 1), e=lit(MOMENT) + timedelta(days=1, seconds=1.5),
        f=lit(MOMENT) < col("updated_at"), g=col("started_at").max().over(), h=lit(date(2020, 2, 29)),
    ),
    "kinds of values": one(a=lit(1), b=lit(1.0), c=lit(True), d=lit("a'b\\c\n"), e=lit(2**62), f=lit(None),
        g=lit(b"\0a")),
    "a single value": lambda lake: lake.metrics.agg(count(), X.mean(), n=col("run_id").n_unique()),
    "tensors of a run": lambda lake: lake.tensors.where(col("run_id") == "r2", col("path") == "w"),
    "norms": lambda lake: lake.tensors.group_by("path").agg(col("l2_norm").max(), col("num_elements").sum()),
    "repeated steps": lambda lake: lake.metrics.where(col("run_id") == "r1", col("metric") == "loss", STEP < 10),
    "raw repeated steps": lambda lake: lake._query("metrics_raw").where(col("run_id") == "r1", STEP == 6),
    "live": lambda lake: lake.metrics.where(col("experiment") == "pose/live"),
    "past": lambda lake: lake.runs.as_of(1).curves("loss"),
}  # fmt: skip
ORDERED = frozenset(
    {"best", "best by the largest", "curves", "thinned curves", "nulls last", "NaN above all", "distinct"}
)
QUICK = (
    "all of runs", "all of metrics", "all of tensors", "numbers of curves", "windows", "aggregates", "division",
    "texts",
    "floats as text", "semi join", "times", "past",
)  # fmt: skip


def rows_of(table: pa.Table, *, ordered: bool) -> list[tuple[Any, ...]]:
    """Return rows that can be compared: in an order of their own unless theirs counts."""
    rows = [tuple(_plain(value) for value in row.values()) for row in table.to_pylist()]
    return rows if ordered else sorted(rows, key=repr)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(f"{value:.10g}") + 0.0
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else value
