"""The frames that results of runs are analysed in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet_lakes import quiet

import ckptlake
from ckptlake import Capture, InvalidInputError, Lake, col, param
from ckptlake.analytics.statistics import AtStep, Best, Last, MeanOfLast, readings
from ckptlake.query.analysis.frames import Frames


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = ckptlake.open(tmp_path / "lake", settings=quiet())
    for number, params in enumerate([{"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 1, "name": "mine"}, {"warmup": 5}]):
        with lake.run("e", f"run {number}", params, run_id=f"r{number}", capture=Capture.nothing()) as run:
            run.log({"loss": 1.0 + number}, step=3)
            run.log({"loss": float("nan") if number == 2 else 0.5 + number}, step=7)
    with lake.run("other", run_id="silent", params={"far": True}, capture=Capture.nothing()):
        pass
    return lake


def test_each_run_is_a_row_with_its_params_and_results(lake: Lake) -> None:
    frame = lake.runs.subtree("e").analyze().values("loss")
    assert frame.select("run_id", "name", "lr", "params.name", "seed", "warmup", "loss").rows()[:2] == [
        ("r0", "run 0", 0.1, None, 0, None, 0.5),
        ("r1", "run 1", 0.2, "mine", 1, None, 1.5),
    ]
    assert frame["loss"].is_nan().to_list() == [False, False, True]
    assert frame["warmup"].to_list() == [None, None, 5]


def test_only_params_of_these_runs_are_columns(lake: Lake) -> None:
    assert lake.analysis.params() == {name: name for name in ("far", "lr", "seed", "warmup")} | {"name": "params.name"}
    assert set(lake.runs.where(param("lr") < 0.15).analyze().params()) == {"lr", "seed"}
    assert lake.runs.where(param("lr") > 5).analyze().params() == {}


def test_a_run_that_never_logged_it_has_no_result(lake: Lake) -> None:
    assert lake.analysis.values("loss").filter(run_id="silent")["loss"].to_list() == [None]


def test_any_query_that_names_runs_will_do(lake: Lake) -> None:
    assert lake.runs.best("loss", n=1, direction="min").analyze().values("loss")["run_id"].to_list() == ["r0"]
    assert lake.search("experiment:other").analyze().described()["run_id"].to_list() == ["silent"]
    assert lake.metrics.where(col("value") > 1.6).analyze().described()["run_id"].to_list() == ["r1", "r2"]
    with pytest.raises(InvalidInputError, match="run_id"):
        lake.experiments.analyze().values("loss")


READINGS = [None, Last(), Best("min"), Best("max"), AtStep(7), AtStep(3), AtStep(5, within=2), MeanOfLast(2)]


@given(curves=st.lists(st.lists(st.floats(), min_size=1, max_size=4), min_size=1, max_size=12))
@settings(max_examples=6, deadline=None)
def test_summaries_tell_the_same_as_the_points(
    tmp_path_factory: pytest.TempPathFactory, curves: list[list[float]]
) -> None:
    with ckptlake.open(tmp_path_factory.mktemp("lake"), settings=quiet()) as lake:
        for number, values in enumerate(curves):
            run = lake.run("e", run_id=f"r{number:02}", capture=Capture.nothing())
            for step, value in zip((3, 5, 7, 8), values, strict=False):
                run.log({"loss": value}, step=step)
        lake.commit()
        points = lake.analysis.curves("loss")
        for at in READINGS:
            expected = readings(points, at).sort("run_id")["value"].rename("loss")
            found = lake.analysis.values("loss", at).sort("run_id")["loss"]
            assert found.equals(expected, null_equal=True), at


def test_points_come_with_columns_of_their_runs(lake: Lake) -> None:
    frame = lake.analysis.curves("loss", "lr", "experiment")
    assert frame.columns == ["run_id", "step", "ts", "value", "lr", "experiment"]
    assert frame.filter(run_id="r1").select("step", "value", "lr").rows() == [(3, 2.0, 0.2), (7, 1.5, 0.2)]


def test_an_unknown_metric_is_refused_with_the_nearest(lake: Lake) -> None:
    for at in (None, MeanOfLast(2)):
        with pytest.raises(InvalidInputError, match="'los'; did you mean loss"):
            lake.analysis.values("los", at)


def test_the_names_of_params_are_asked_for_once_a_question(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    names = Frames.params
    monkeypatch.setattr(Frames, "params", lambda self, taken=(): asked.append(1) or names(self, taken))
    analysis = lake.runs.subtree("e").analyze()
    for question in (
        lambda: analysis.summarise("loss"),
        lambda: analysis.correlations("loss"),
        lambda: analysis.differences("loss", direction="min"),
        lambda: analysis.curve_groups("loss"),
        lambda: analysis.insights("loss", direction="min"),
        analysis.configurations,
    ):
        asked.clear()
        question()
        assert asked == [1]


@pytest.mark.parametrize("name", ["value", "step", "ts", "run_id"])
def test_a_param_may_be_called_as_a_column_of_points(tmp_path: Path, name: str) -> None:
    with ckptlake.open(tmp_path / "lake", settings=quiet()) as lake:
        with lake.run("e", "r", {name: 5}, capture=Capture.nothing()) as run:
            run.log({"loss": 2.0}, step=3)
        points = lake.analysis.curves("loss", f"params.{name}", name)
        assert points.select("step", "value", f"params.{name}").rows() == [(3, 2.0, 5)]
        assert lake.analysis.values("loss").select("loss").rows() == [(2.0,)]
        assert lake.analysis.verdicts("loss", direction="min").n == 1
        with pytest.raises(InvalidInputError, match=f"did you mean 'params.{name}'"):
            lake.analysis.curves("loss", f"param.{name}")
