"""Every question of `lake.analysis` with odd arguments: an honest outcome, or an error that says what to do."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import polars as pl
import pytest
from honest_outcomes import faults
from odd_values import ARGUMENTS
from quiet_lakes import quiet

import ckptlake
from ckptlake import Capture, Lake
from ckptlake.query.analysis import Analysis

STEPS = np.arange(24)
START = datetime(2026, 3, 1, tzinfo=UTC)
TAKEN = {"value": "x", "ts": 1, "step": 2}
"""Params that are called as columns of points."""
QUESTIONS: dict[str, dict[str, Any]] = {
    "against": {"metric": "loss", "target": 3.0},
    "areas": {"metric": "loss"},
    "band": {"metric": "loss", "by": "lr"},
    "compare": {"metric": "loss"},
    "compare_times": {"metric": "loss", "threshold": 3.5},
    "configurations": {},
    "correlations": {},
    "curve_groups": {"metric": "loss"},
    "curves": {"metric_name": "loss"},
    "described": {},
    "differences": {"metric": "loss"},
    "direction": {"metric_name": "loss", "given": None},
    "equivalent": {"metric": "loss", "margin": 0.1, "by": "lr"},
    "first_better": {"metric": "loss", "first": "lr=0.1", "second": "lr=0.2", "by": "lr"},
    "forecast": {"metric": "loss", "run": "live", "horizon": 23.0},
    "importance": {"metric": "loss"},
    "insights": {"metric": "loss"},
    "interactions": {"metric": "loss"},
    "outliers": {"metric": "loss"},
    "overfitting": {"train": "loss", "validation": "loss", "run": "run 0"},
    "params": {},
    "pareto": {"objectives": ["loss"]},
    "response": {"metric": "loss", "param": "lr"},
    "seeds_needed": {"metric": "loss", "difference": 0.1, "by": "lr"},
    "should_stop": {"metric": "loss", "run": "live", "horizon": 23.0},
    "slope": {"metric": "loss", "run": "run 0"},
    "stalls": {"metric": "loss", "run": "run 0"},
    "suggest": {"metric": "loss", "k": 1},
    "summarise": {"metric": "loss"},
    "time_to": {"metric": "loss", "threshold": 3.5},
    "unexplored": {"k": 1},
    "values": {"metric_name": "loss"},
    "verdicts": {"metric": "loss"},
}
DEAR = {"against": 2, "compare_times": 3, "forecast": 4, "importance": 8, "should_stop": 4}
"""Questions that take a tenth of a second: of so many odd arguments one is tried."""
_CHECKED_WHEN_MADE = {"unit", "interval", "rule", "at"}
"""Words of sentences, and values that refuse what they cannot be."""
_VARIADIC = {"configurations": "excepted", "correlations": "metrics", "curves": "columns"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Two learning rates with six runs each, of which one diverged, and a live run."""
    rng = np.random.default_rng(0)
    with ckptlake.open(tmp_path_factory.mktemp("edges") / "lake", settings=quiet()) as lake:
        for number in range(12):
            params = {**TAKEN, "lr": (0.1, 0.2)[number % 2], "width": (8, 16)[number // 2 % 2], "seed": number}
            with lake.run("e", f"run {number}", params, capture=Capture.nothing()) as run:
                run.define("loss", direction="min")
                run.log_frame(points(3 + params["lr"] + 1 / np.sqrt(STEPS + 1) + rng.normal(0, 0.01, 24), number == 11))
        live = lake.run("e", "live", {**TAKEN, "lr": 0.1, "width": 8, "seed": 99}, capture=Capture.nothing())
        live.log_frame(points(3.1 + 1 / np.sqrt(STEPS[:12] + 1), False))
        live.flush()
        yield lake


def points(loss: np.ndarray, diverges: bool) -> pl.DataFrame:
    steps = STEPS[: len(loss)]
    if diverges:
        loss = np.where(steps > 15, np.nan, loss)
    times = [START + timedelta(seconds=float(step)) for step in steps]
    return pl.DataFrame({"step": steps, "ts": times, "loss": loss, "tokens": steps * 512.0}).unpivot(
        index=["step", "ts"], variable_name="metric"
    )


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("forest", "importance", "interactions", "response", "suggestions"):
        module = importlib.import_module(f"ckptlake.analytics.insight.{name}")
        for trees in ("TREES", "TREES_OF_A_DRAW", "TREES_OF_A_FOLD"):
            monkeypatch.setattr(module, trees, 2, raising=False)


def asked(analysis: Analysis, name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield a question, each time with one odd argument."""
    question, ordinary = getattr(analysis, name), QUESTIONS[name]
    if name in _VARIADIC:
        wanted = tuple(ordinary.values())
        yield from ((f"{_VARIADIC[name]}: {odd!r}", lambda made=odd: question(*wanted, made)) for odd in ARGUMENTS)
    for parameter in inspect.signature(question).parameters.values():
        if parameter.name in _CHECKED_WHEN_MADE or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        for odd in ARGUMENTS:
            arguments = {**ordinary, parameter.name: odd}
            yield f"{parameter.name}: {odd!r}", lambda made=arguments: question(**made)


def test_every_question_is_asked() -> None:
    questions = {name for name, _ in inspect.getmembers(Analysis, inspect.isfunction) if not name.startswith("_")}
    assert questions == set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_odd_arguments_get_an_honest_answer(lake: Lake, name: str) -> None:
    tried = islice(asked(lake.analysis, name), 0, None, DEAR.get(name, 1))
    assert {what: told for what, call in tried if (told := faults(call))} == {}


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_ordinary_question_is_answered(lake: Lake, name: str) -> None:
    found = getattr(lake.analysis, name)(**QUESTIONS[name])
    assert faults(lambda: found) == []
