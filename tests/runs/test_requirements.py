"""What an experiment requires of its runs: params at the start, metrics at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ckptlake
from ckptlake import InvalidInputError, Lake, RequirementError, Run
from ckptlake.runs.requirements import Requirement

Start = Callable[..., Run]


def statuses(lake: Lake) -> list[tuple[str, ...]]:
    return lake.sql("SELECT status FROM runs ORDER BY started_at").fetchall()


class TestParams:
    @pytest.mark.parametrize(
        ("wanted", "good", "bad"),
        [
            (float, [0.5, 1, float("nan")], ["0.5", True, None, [0.5]]),
            (int, [1, 2**70], [1.0, True, "1", None]),
            (str, ["a", ""], [1, None, ["a"]]),
            (bool, [True, False], [1, 0.0, "true", None]),
            (list, [[1], [], ("a",)], [1, "a", None]),
            (None, [1, "a", None, [1], True], []),
            (["adamw", "sgd"], ["adamw", "sgd"], ["adam", 1, None, ["adamw"]]),
            (("adamw",), ["adamw"], ["sgd"]),
        ],
        ids=repr,
    )
    def test_of_a_kind(self, lake: Lake, start: Start, wanted: Any, good: list[Any], bad: list[Any]) -> None:
        lake.experiment("strict").require(params={"p": wanted})
        for value in good:
            start("strict", params={"p": value}).finish()
        for value in bad:
            with pytest.raises(RequirementError, match="experiment 'strict' requires the param 'p' to be"):
                start("strict", params={"p": value})
        assert statuses(lake) == [("finished",)] * len(good)

    def test_missing_ones_are_named_and_nothing_is_recorded(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(params={"optim": {"lr": float}, "seed": int})
        with pytest.raises(
            RequirementError, match=r"requires the param 'optim.lr' \(float\).*its params are other, seed"
        ):
            start("strict", params={"seed": 1, "other": 2})
        with pytest.raises(RequirementError, match="its params are none"):
            start("strict")
        assert statuses(lake) == []
        start("strict", params={"optim": {"lr": 0.1}, "seed": 1, "other": 2}).finish()
        start("free").finish()
        assert statuses(lake) == [("finished",)] * 2

    def test_a_dict_is_met_by_a_dict(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(params={"augment": dict})
        start("strict", params={"augment": {"flip": True}}).finish()
        with pytest.raises(RequirementError, match="'augment'"):
            start("strict", params={"augment": [1]})

    def test_the_newest_requirement_replaces_those_before(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(params={"a": int}, metrics=["x"])
        lake.experiment("strict").require(params={"b": int})
        lake.experiment("strict").describe("about")
        start("strict", params={"b": 1}).finish()
        with pytest.raises(RequirementError, match="'b'"):
            start("strict", params={"a": 1})
        lake.experiment("strict").require()
        start("strict").finish()

    def test_hold_for_other_lake_objects(self, lake: Lake) -> None:
        lake.experiment("strict").require(params={"a": int})
        with ckptlake.open(lake.path) as other, pytest.raises(RequirementError, match="'a'"):
            other.run("strict")

    def test_hold_for_levels_below_only_where_said(self, lake: Lake, start: Start) -> None:
        lake.experiment("pose").require(params={"a": int})
        start("pose/vit").finish()
        assert lake.experiment("pose/vit").requirement() is None

    def test_of_a_resumed_run_count_what_it_had(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(params={"a": int})
        start("strict", run_id="r", params={"a": 1}).finish()
        start("strict", resume="r").finish()
        start("strict", resume="r", params={"a": 1, "b": 2}).finish()
        assert statuses(lake) == [("finished",)]

    @pytest.mark.parametrize("wanted", [complex, 1, "text", [], [1], object(), {"a": complex}, tuple], ids=repr)
    def test_that_make_no_sense_are_refused(self, lake: Lake, wanted: Any) -> None:
        with pytest.raises(InvalidInputError, match="requirement for param 'p"):
            lake.experiment("strict").require(params={"p": wanted})
        assert lake.experiment("strict").requirement() is None


class TestMetrics:
    def test_missing_at_the_end_mark_the_run_failed(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(metrics=["val/loss", "val/acc", "epoch"])
        run = start("strict")
        run.log({"epoch": 1})
        with pytest.raises(RequirementError, match=f"requires the metrics val/acc, val/loss, which run {run.id} never"):
            run.finish()
        assert run.status == "failed"
        found = lake.sql("SELECT status, notes FROM runs").fetchall()
        assert found == [("failed", "required metrics were never logged: val/acc, val/loss")]
        run.finish()

    @pytest.mark.parametrize("how", ["nested", "frame", "long frame", "fast"])
    def test_logged_in_any_way_count(self, lake: Lake, start: Start, how: str) -> None:
        lake.experiment("strict").require(metrics=["val/loss"])
        with start("strict") as run:
            if how == "nested":
                run.log({"val": {"loss": 1}})
            elif how == "frame":
                run.log_frame({"val/loss": [1.0]})
            elif how == "long frame":
                run.log_frame({"metric": ["val/loss"], "value": [1.0]})
            else:
                run.log({"val/loss": 1.0})
                run.log({"val/loss": 2.0})
        assert statuses(lake) == [("finished",)]

    @pytest.mark.parametrize(
        "bad", [{"metrics": {"val/loss": 1.0}, "step": "x"}, {"metrics": {"val/loss": "x"}}], ids=repr
    )
    def test_a_refused_call_does_not_count(self, lake: Lake, start: Start, bad: dict[str, Any]) -> None:
        lake.experiment("strict").require(metrics=["val/loss"])
        run = start("strict")
        with pytest.raises(InvalidInputError):
            run.log(**bad)
        with pytest.raises(RequirementError, match="val/loss"):
            run.finish()
        assert statuses(lake) == [("failed",)]

    def test_are_not_asked_of_a_run_that_fails_anyway(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(metrics=["val/loss"])
        start("strict").finish("killed")
        with pytest.raises(ValueError, match="mine"), start("strict"):
            raise ValueError("mine")
        assert statuses(lake) == [("killed",), ("failed",)]

    def test_hold_for_a_resumed_run(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(metrics=["val/loss", "train/loss"])
        run = start("strict")
        run.log({"train/loss": 1.0})
        run.fail(ValueError("stopped"))
        again = start("strict", resume=run.id)
        with pytest.raises(RequirementError, match="requires the metrics val/loss, which"):
            again.finish()
        third = start("strict", resume=run.id)
        third.log({"val/loss": 1.0})
        third.finish()
        assert statuses(lake) == [("finished",)]

    def test_closing_the_lake_ends_every_run(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(metrics=["val/loss"])
        runs = [start(name, run_id=run_id) for name, run_id in (("free", "a"), ("strict", "b"), ("free", "c"))]
        with pytest.raises(RequirementError, match="run b never logged"):
            lake.close()
        assert [run.status for run in runs] == ["finished", "failed", "finished"]
        found = lake.sql("SELECT run_id, status FROM runs ORDER BY run_id").fetchall()
        assert found == [("a", "finished"), ("b", "failed"), ("c", "finished")]

    @pytest.mark.parametrize("metrics", ["val/loss", [""], [5]], ids=repr)
    def test_that_make_no_sense_are_refused(self, lake: Lake, metrics: Any) -> None:
        with pytest.raises(InvalidInputError, match="metric"):
            lake.experiment("strict").require(metrics=metrics)


def test_a_requirement_goes_through_json_unchanged() -> None:
    requirement = Requirement.of({"a": float, "b": {"c": ["x", "ü"]}, "d": None}, ("m", "n"))
    assert Requirement.from_json(requirement.to_json()) == requirement
