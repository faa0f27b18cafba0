"""Steps in any order, counted where none is given, and names made of nested dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, Run
from ckptlake._internal.clock import Clock

Points = Callable[..., list[tuple[str, int, float]]]
Start = Callable[..., Run]
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Metric(StrEnum):
    LOSS = "loss"


class TestCounting:
    def test_starts_at_zero(self, start: Start, points: Points) -> None:
        with start() as run:
            for value in (1.0, 2, True):
                run.log({"x": value})
        assert [step for _, step, _ in points(run)] == [0, 1, 2]

    def test_goes_on_past_the_largest_step(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log({"x": 1.0}, step=10)
            run.log({"x": 2.0}, step=3)
            run.log({"x": 3.0})
            run.log({"y": 4.0})
            run.log({"x": 5.0}, step=-4)
            run.log({"x": 6.0})
        assert points(run) == [
            ("x", -4, 5.0),
            ("x", 3, 2.0),
            ("x", 10, 1.0),
            ("x", 11, 3.0),
            ("x", 13, 6.0),
            ("y", 12, 4.0),
        ]

    def test_does_not_count_a_refused_call(self, start: Start, points: Points) -> None:
        with start() as run:
            with pytest.raises(InvalidInputError):
                run.log({"x": None}, step=50)
            with pytest.raises(InvalidInputError):
                run.log({"x": 1.0}, step="50")  # type: ignore[arg-type]
            run.log({"x": 2.0})
        assert points(run) == [("x", 0, 2.0)]

    def test_goes_on_after_a_resume_though_the_machine_was_sampled(self, lake: Lake, points: Points) -> None:
        run = lake.run("tests", capture=Capture(git=False, packages=False))
        run.log({"x": 1.0}, step=7)
        run.finish()
        assert lake.sql("SELECT count(*) > 0 FROM metrics WHERE starts_with(metric, 'system/')").fetchall() == [(True,)]
        with lake.run(resume=run.id, capture=Capture.nothing()) as again:
            again.log({"x": 2.0})
        assert [point for point in points(again) if point[0] == "x"] == [("x", 7, 1.0), ("x", 8, 2.0)]

    def test_is_the_same_before_and_after_a_resume_where_all_steps_are_negative(
        self, lake: Lake, start: Start, points: Points
    ) -> None:
        with start() as straight:
            straight.log({"x": 1.0}, step=-5)
            straight.log({"x": 2.0})
        with start() as resumed:
            resumed.log({"x": 1.0}, step=-5)
        with lake.run(resume=resumed.id, capture=Capture.nothing()) as again:
            again.log({"x": 2.0})
        assert points(again) == points(straight)

    @pytest.mark.parametrize("how", ["log", "log_frame", "resume"])
    def test_past_the_largest_integer_is_refused_at_the_call(
        self, lake: Lake, start: Start, points: Points, how: str
    ) -> None:
        run = start()
        run.log({"x": 1.0}, step=INT64_MAX)
        if how == "resume":
            run.finish()
            run = start(resume=run.id)
        with pytest.raises(InvalidInputError, match="step"):
            run.log_frame({"x": [2.0]}) if how == "log_frame" else run.log({"x": 2.0})
        run.log({"x": 3.0}, step=0)
        run.finish()
        assert points(run) == [("x", 0, 3.0), ("x", INT64_MAX, 1.0)]


class TestSteps:
    @pytest.mark.parametrize(
        "step",
        [np.int8(5), np.int64(5), np.uint64(5), np.array(5), torch.tensor(5), type("Step", (int,), {})(5)],
        ids=lambda step: type(step).__name__,
    )
    def test_of_any_integer_type(self, start: Start, points: Points, step: Any) -> None:
        with start() as run:
            run.log({"x": 1.0}, step=step)
            run.log({"x": 2.0})
        assert points(run) == [("x", 5, 1.0), ("x", 6, 2.0)]

    @pytest.mark.parametrize(
        "step",
        [1.0, 0.5, "1", True, False, np.float64(1), np.bool_(True), [1], np.array([1, 2]), torch.tensor(1.0), 1j],
        ids=repr,
    )
    def test_of_other_types_are_refused(self, start: Start, points: Points, step: Any) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="step must be an integer"):
            run.log({"x": 1.0}, step=step)
        assert points(run) == []

    @pytest.mark.parametrize(
        "step",
        [2**63, INT64_MIN - 1, 10**30, np.uint64(2**64 - 1), 10**5000],
        ids=lambda s: f"{s:.3e}" if s < 10**300 else "huge",
    )
    def test_outside_int64_are_refused(self, start: Start, points: Points, step: Any) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="step"):
            run.log({"x": 1.0}, step=step)
        assert points(run) == []

    @pytest.mark.parametrize("finish", [False, True], ids=["live", "committed"])
    def test_are_kept_in_any_order(self, start: Start, points: Points, finish: bool) -> None:
        steps = [5, INT64_MAX, -1, INT64_MIN, 0, 4]
        run = start()
        for step in steps:
            run.log({"x": float(steps.index(step))}, step=step)
        if finish:
            run.finish()
        assert points(run) == [("x", step, float(steps.index(step))) for step in sorted(steps)]
        run.finish()


class TestRepeatedSteps:
    @pytest.mark.parametrize("finish", [False, True], ids=["live", "committed"])
    def test_show_the_newest_and_keep_all(self, start: Start, points: Points, finish: bool) -> None:
        run = start()
        for value in (3.0, 1.0, 2.0):
            run.log({"x": value}, step=4)
        run.log({"x": 9.0}, step=3)
        if finish:
            run.finish()
        assert points(run) == [("x", 3, 9.0), ("x", 4, 2.0)]
        assert points(run, "metrics_raw") == [("x", 3, 9.0), ("x", 4, 3.0), ("x", 4, 1.0), ("x", 4, 2.0)]
        run.finish()

    def test_within_one_microsecond(self, start: Start, points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
        run = start()
        now_us = Clock().now_us() + 1_000_000
        monkeypatch.setattr(Clock, "now_us", lambda clock: now_us)
        for value in range(100):
            run.log({"x": value}, step=0)
        assert points(run) == [("x", 0, 99.0)]
        assert points(run, "metrics_raw") == [("x", 0, float(value)) for value in range(100)]

    def test_partly_committed(self, lake: Lake, start: Start, points: Points) -> None:
        run = start()
        run.log({"x": 1.0}, step=0)
        lake.commit()
        run.log({"x": 2.0}, step=0)
        assert points(run) == [("x", 0, 2.0)]
        run.log_frame({"step": [0], "x": [3.0]})
        assert points(run) == [("x", 0, 3.0)]
        run.finish()
        assert points(run) == [("x", 0, 3.0)]

    def test_across_a_resume_though_the_clock_was_set_back(
        self, start: Start, points: Points, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start()
        run.log({"x": 1.0, "y": 1.0}, step=0)
        run.finish()
        earlier_us = Clock().now_us() - 3_600_000_000
        with monkeypatch.context() as patch:
            patch.setattr(Clock, "now_us", lambda clock: earlier_us)
            again = start(resume=run.id)
            again.log({"x": 2.0}, step=0)
            again.finish()
        assert points(run) == [("x", 0, 2.0), ("y", 0, 1.0)]
        assert points(run, "metrics_raw") == [("x", 0, 1.0), ("x", 0, 2.0), ("y", 0, 1.0)]

    def test_do_not_touch_other_metrics_and_runs(self, start: Start, points: Points) -> None:
        with start() as run, start() as other:
            run.log({"x": 1.0}, step=0)
            other.log({"x": 2.0}, step=0)
            run.log({"y": 3.0}, step=0)
        assert points(run) == [("x", 0, 1.0), ("y", 0, 3.0)]
        assert points(other) == [("x", 0, 2.0)]


class TestNames:
    def test_of_nested_dicts_are_joined_by_slashes(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log({"train": {"loss": 1, "top": {"1": 2, 5: 3.0}}, "lr": 4})
            run.log(MappingProxyType({"val": MappingProxyType({"loss": 5.0})}))
        assert points(run) == [
            ("lr", 0, 4.0),
            ("train/loss", 0, 1.0),
            ("train/top/1", 0, 2.0),
            ("train/top/5", 0, 3.0),
            ("val/loss", 1, 5.0),
        ]

    @pytest.mark.parametrize(
        "metrics",
        [{"a": {"b": 1.0}, "a/b": 2.0}, {"a/b": {"c": 1.0}, "a": {"b/c": 2.0}}, {1: 1.0, "1": 2.0}],
        ids=repr,
    )
    def test_that_collide_are_refused(self, start: Start, points: Points, metrics: dict[Any, Any]) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="given twice"):
            run.log(metrics)
        assert points(run) == []

    @pytest.mark.parametrize("name", [None, ("a",), b"a", object(), "", "a\0b", "\ud800"], ids=repr)
    def test_that_cannot_be_kept_are_refused(self, start: Start, points: Points, name: Any) -> None:
        with start() as run:
            for metrics in ({name: 1.0}, {"ok": 1.0, name: 1.0}, {"nested": {name: 1.0}}):
                with pytest.raises(InvalidInputError, match="metric's name"):
                    run.log(metrics)
        assert points(run) == []

    @pytest.mark.parametrize(
        "name", ["损失/训练", "a b", "a.b", "'quoted\"", "x" * 1000, "%", "\N{ROCKET}", "tab\tnewline\n", "/", "é"]
    )
    def test_of_any_unicode(self, start: Start, points: Points, name: str) -> None:
        with start() as run:
            run.log({name: 1.0})
            run.log({name: 2})
        assert points(run) == [(name, 0, 1.0), (name, 1, 2.0)]

    def test_of_an_enum(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log({Metric.LOSS: 1})
            run.log({Metric.LOSS: 2.0})
            run.log({"loss": 3.0})
        assert points(run) == [("loss", 0, 1.0), ("loss", 1, 2.0), ("loss", 2, 3.0)]

    def test_an_empty_dict_logs_nothing(self, lake: Lake, start: Start, points: Points) -> None:
        with start() as run:
            run.log({})
            run.log({}, step=3)
        assert points(run) == []
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_many_keysets_in_one_run(self, start: Start, points: Points) -> None:
        with start() as run:
            for step in range(300):
                run.log({f"m{step}": float(step), "x": 1.0}, step=step)
        found = points(run)
        assert sorted(found) == sorted(
            [(f"m{step}", step, float(step)) for step in range(300)] + [("x", step, 1.0) for step in range(300)]
        )


@pytest.fixture(scope="module")
def one_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("any") / "lake") as lake:
        yield lake


@settings(max_examples=20, deadline=None)
@given(
    calls=st.lists(
        st.tuples(
            st.none() | st.integers(-3, 6),
            st.dictionaries(st.sampled_from(["a", "b", "c/d"]), st.floats() | st.integers(-9, 9), min_size=1),
        ),
        max_size=30,
    )
)
def test_any_calls_are_read_back_as_a_plain_loop_would_keep_them(
    one_lake: Lake, calls: list[tuple[int | None, dict[str, float]]]
) -> None:
    run = one_lake.run(capture=Capture.nothing())
    newest: dict[tuple[str, int], float] = {}
    next_step = total = 0
    for step, metrics in calls:
        run.log(metrics, step=step)
        at = next_step if step is None else step
        next_step = max(next_step, at + 1)
        newest |= {(name, at): float(value) for name, value in metrics.items()}
        total += len(metrics)
    one_lake.flush()
    query = "SELECT metric, step, value FROM metrics WHERE run_id = $run ORDER BY metric, step"
    found = one_lake.sql(query, run=run.id).fetchall()
    assert repr({(name, step): value for name, step, value in found}) == repr(dict(sorted(newest.items())))
    assert one_lake.sql("SELECT count(*) FROM metrics_raw WHERE run_id = $run", run=run.id).fetchall() == [(total,)]
    run.finish()
