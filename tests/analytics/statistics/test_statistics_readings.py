"""One value a run, and the configurations that runs belong to."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.analytics.statistics import AtStep, Best, Last, MeanOfLast, group_by_all_except, readings
from ckptlake.analytics.statistics.params import flattened
from ckptlake.errors import InvalidInputError

NAN = float("nan")
POINTS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(0, 6), st.none() | st.floats(-9, 9) | st.sampled_from([NAN, float("inf")])
    ),
    min_size=1,
    max_size=40,
)


def frame_of(points: list[tuple[str, int, float | None]]) -> pl.DataFrame:
    schema = {"run_id": pl.String, "step": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(points, schema=schema, orient="row")


def plainly(points: list[tuple[str, int, float | None]], run: str) -> list[tuple[int, float]]:
    """The points of a run in order, the last of each step."""
    return sorted({step: value for who, step, value in points if who == run and value is not None}.items())


def same(found: object, expected: float | None) -> bool:
    return found == expected or (found != found and expected != expected)


class TestReadings:
    @settings(max_examples=50)
    @given(POINTS)
    def test_they_are_those_of_a_plain_loop(self, points: list[tuple[str, int, float | None]]) -> None:
        frame = frame_of(points)
        runs = list(dict.fromkeys(run for run, _, _ in points))
        policies = {
            "last": Last(), "best": Best("max"), "at": AtStep(3), "near": AtStep(3, within=2), "mean": MeanOfLast(2),
        }  # fmt: skip
        tables = {name: {row["run_id"]: row for row in readings(frame, at).to_dicts()} for name, at in policies.items()}
        assert [list(table) for table in tables.values()] == [runs] * 5
        for run in runs:
            curve = plainly(points, run)
            row = {name: table[run] for name, table in tables.items()}
            assert same(row["last"]["value"], curve[-1][1] if curve else None)
            assert row["last"]["step"] == (curve[-1][0] if curve else None)
            finite = [(value, -step) for step, value in curve if np.isfinite(value)]
            assert same(row["best"]["value"], max(finite)[0] if finite else NAN if curve else None)
            assert row["best"]["step"] == (-max(finite)[1] if finite else None)
            assert same(row["at"]["value"], dict(curve).get(3))
            near = [value for step, value in curve if 1 <= step <= 3]
            assert same(row["near"]["value"], near[-1] if near else None)
            with np.errstate(invalid="ignore"):
                mean = float(np.mean([value for _, value in curve[-2:]])) if len(curve) >= 2 else None
            assert same(row["mean"]["value"], mean) or row["mean"]["value"] == pytest.approx(mean)
            assert row["best"]["diverged"] == bool(curve and not np.isfinite(curve[-1][1]))

    def test_a_run_that_diverged_stays_visible(self) -> None:
        frame = frame_of([("a", 1, 3.0), ("a", 2, NAN), ("b", 1, 2.0), ("b", 2, 1.0)])
        assert readings(frame)["diverged"].to_list() == [True, False]
        assert readings(frame, Best("min")).rows() == [("a", 1, 3.0, True), ("b", 2, 1.0, False)]

    def test_other_columns_come_along(self) -> None:
        frame = frame_of([("a", 1, 3.0), ("b", 1, 2.0)]).with_columns(lr=pl.Series([None, 0.1])).rename({"step": "s"})
        found = readings(frame, x="s", run=["run_id", "lr"])
        assert found.columns == ["run_id", "lr", "s", "value", "diverged"]
        assert found["value"].to_list() == [3.0, 2.0]

    def test_a_million_points_are_read(self) -> None:
        steps = np.tile(np.arange(10_000), 100)
        frame = pl.DataFrame({"run_id": np.repeat(np.arange(100), 10_000), "step": steps, "value": 1.0 / (1 + steps)})
        assert readings(frame, Best("min"))["step"].to_list() == [9_999] * 100

    def test_nothing_gives_nothing(self) -> None:
        assert readings(frame_of([])).height == 0

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Best("low"), "'min' where lower"),  # type: ignore[arg-type]
            (lambda: MeanOfLast(0), "k=0"),
            (lambda: AtStep(1, within=-1), "within=-1"),
            (lambda: readings(pl.DataFrame({"run_id": ["a"], "step": [None], "value": [1.0]})), "null or not finite"),
            (lambda: readings(frame_of([]), value="valeu"), "did you mean 'value'"),
            (lambda: readings(pl.DataFrame({"run_id": ["a"], "step": [1], "value": ["x"]})), "holds String"),
        ],
    )
    def test_what_cannot_be_read_is_told(self, make, message: str) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(InvalidInputError, match=message):
            make()


PARAMS = st.tuples(st.sampled_from([0.1, 0.2, None]), st.sampled_from(["a", None]), st.integers(0, 3))


class TestConfigurations:
    @given(
        st.lists(
            st.tuples(st.sampled_from([0.1, 0.2, None]), st.sampled_from(["a", None]), st.integers(0, 3)), min_size=1
        )
    )
    def test_runs_are_together_if_and_only_if_they_agree_in_all_but_the_seed(self, runs) -> None:  # type: ignore[no-untyped-def]
        schema = {"params.lr": pl.Float64, "params.opt": pl.String, "params.seed": pl.Int64}
        found = group_by_all_except(pl.DataFrame(runs, schema=schema, orient="row"), "seed")
        labels = found.table["configuration"].to_list()
        for one, first in enumerate(runs):
            for two, second in enumerate(runs):
                assert (labels[one] == labels[two]) == (first[:2] == second[:2])
        assert found.counts["n"].sum() == len(runs)
        assert set(found.columns) == {
            name for name, side in (("params.lr", 0), ("params.opt", 1)) if len({run[side] for run in runs}) > 1
        }

    def test_nested_params_in_json_and_structs_agree(self) -> None:
        texts = [
            '{"lr": 0.1, "seed": 0, "optim": {"name": "adam", "betas": [0.9, 0.99]}}',
            '{"lr": 0.1, "seed": 1, "optim": {"name": "muon"}}',
            '{"lr": 0.1, "seed": 2, "optim": {"name": "muon", "betas": null}, "warm": true}',
        ]
        frame = pl.DataFrame({"run_id": list("abc"), "params": texts})
        found = group_by_all_except(frame)
        assert found.table["configuration"].to_list() == [
            "optim.name=adam, optim.betas=[0.9, 0.99], no warm",
            "optim.name=muon, no optim.betas, no warm",
            "optim.name=muon, no optim.betas, warm=True",
        ]
        assert found.table["params.lr"].to_list() == [0.1] * 3
        structs = frame.select("run_id", params=pl.Series([{"lr": 1, "optim": {"name": "adam"}}] * 3))
        assert flattened(structs).columns == ["run_id", "params.lr", "params.optim.name"]

    def test_a_text_that_only_begins_like_json_stays_a_text(self) -> None:
        frame = pl.DataFrame({"params.note": ["{not json", "[1]"], "params.list": [[1, 2], [3]]})
        assert flattened(frame).to_dict(as_series=False) == {
            "params.note": ["{not json", "[1]"], "params.list": ["[1, 2]", "[3]"],
        }  # fmt: skip

    def test_values_of_several_kinds_are_told_apart(self) -> None:
        frame = pl.DataFrame({"params": ['{"a": 1}', '{"a": "1"}', '{"a": true}', '{"a": 1}']})
        assert group_by_all_except(frame, ()).counts["n"].to_list() == [2, 1, 1]

    def test_a_param_with_a_value_of_its_own_in_every_run_is_named(self) -> None:
        frame = pl.DataFrame({"params.lr": [1, 1, 2], "params.out": ["x", "y", "z"], "params.seed": [0, 1, 0]})
        (note,) = group_by_all_except(frame).notes
        assert "out differs in every run" in note
        assert group_by_all_except(frame, ["seed", "out"]).notes == ()

    def test_short_names_only_where_they_are_unambiguous(self) -> None:
        frame = pl.DataFrame({"lr": [1, 2], "params.lr": [3, 4]})
        found = group_by_all_except(frame, (), params=["lr", "params.lr"])
        assert found.table["configuration"].to_list() == ["lr=1, params.lr=3", "lr=2, params.lr=4"]

    def test_runs_that_differ_in_nothing_are_one_configuration(self) -> None:
        found = group_by_all_except(pl.DataFrame({"params.seed": [0, 1]}))
        assert found.counts.rows() == [("all runs", 2)]
        assert found.sentence() == "2 runs of 1 configuration with 2 each."
        assert found.chart().spec["data"]["values"] == [{"configuration": "all runs", "n": 2}]

    def test_what_is_no_param_is_told(self) -> None:
        frame = pl.DataFrame({"params.seed": [0], "loss": [1.0]})
        with pytest.raises(InvalidInputError, match="no param 'sed' to leave aside; did you mean seed"):
            group_by_all_except(frame, "sed")
        with pytest.raises(InvalidInputError, match="no column of the frame begins with 'params"):
            group_by_all_except(frame.select("loss"))
        with pytest.raises(InvalidInputError, match="no column 'lr'"):
            group_by_all_except(frame, params=["lr"])


@pytest.mark.parametrize("params", [["lr"], ["lr", "configuration"]])
def test_a_column_of_the_name_of_labels_is_not_overwritten(params: list[str]) -> None:
    frame = pl.DataFrame({"lr": [0.1, 0.2], "configuration": ["a", "b"]})
    with pytest.raises(InvalidInputError, match=r"a column 'configuration'.*rename"):
        group_by_all_except(frame, (), params=params)
