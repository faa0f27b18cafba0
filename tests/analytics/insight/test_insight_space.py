"""Search spaces read off runs, and the numbers made of them."""

from __future__ import annotations

import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.analytics.insight.design import columns_of, design_of, encoded
from ckptlake.analytics.insight.space import Condition, is_seed, space_of
from ckptlake.analytics.libraries import need
from ckptlake.errors import InvalidInputError, MissingDependencyError, NotEnoughDataError


def runs(n: int = 40, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({
        "run_id": [f"r{i}" for i in range(n)],
        "lr": 10 ** rng.uniform(-5, -1, n),
        "dropout": rng.uniform(0, 0.5, n),
        "batch_size": rng.choice([32, 64, 128, 256], n),
        "layers": rng.integers(1, 100, n),
        "opt": rng.choice(["sgd", "adam"], n).tolist(),
        "ema": rng.random(n) < 0.5,
        "seed": np.arange(n),
        "host": ["a"] * n,
        "commit": [f"{i:040x}" for i in range(n)],
    }).with_columns(
        momentum=pl.when(pl.col("opt") == "sgd").then(pl.col("dropout") * 2 + pl.col("layers") / 100),
        lr_again=pl.col("lr") * 2,
        tags=pl.lit(None),
    )  # fmt: skip


class TestSpace:
    def test_kinds_scales_and_reasons(self) -> None:
        space = space_of(runs())
        kinds = {param.name: (param.kind, param.log) for param in space.params}
        assert kinds == {
            "lr": ("float", True), "dropout": ("float", False), "batch_size": ("int", True), "layers": ("int", False),
            "opt": ("categorical", False), "ema": ("bool", False), "momentum": ("float", False),
        }  # fmt: skip
        assert space.get("batch_size").grid == (32, 64, 128, 256)
        assert space.get("layers").grid == ()
        assert space.get("momentum").condition == Condition("opt", ("sgd",))
        reasons = {left.name: left.reason for left in space.left_out}
        assert reasons.keys() == {"seed", "host", "commit", "lr_again", "tags"}
        assert "random generator" in reasons["seed"]
        assert "same value" in reasons["host"]
        assert "40 values in 40 runs" in reasons["commit"]
        assert "together with lr" in reasons["lr_again"]
        assert "no run has a value" in reasons["tags"]

    def test_a_conditional_param_without_a_condition(self) -> None:
        frame = pl.DataFrame({"a": [1.5, None, 2.5, 3.5], "opt": ["x", "x", "y", "y"]})
        param = space_of(frame).get("a")
        assert param.is_conditional
        assert param.condition is None
        assert "missing in 1 run" in str(param)

    def test_nonfinite_params_are_missing_and_told(self) -> None:
        space = space_of(pl.DataFrame({"a": [0.5, float("nan"), float("inf"), 1.5], "b": [1, 2, 3, 9]}), ["a"])
        assert space.params[0].n_missing == space.params[0].n_nonfinite == 2
        assert space.notes == ("a: 2 values NaN or infinite, taken as missing",)

    def test_a_param_out_of_the_space_is_explained(self) -> None:
        with pytest.raises(InvalidInputError, match="'seed' cannot be looked at: it is left out: it seeds"):
            space_of(runs()).get("seed")
        with pytest.raises(InvalidInputError, match="the space has lr"):
            space_of(runs()).get("nothing")
        with pytest.raises(InvalidInputError, match="did you mean 'dropout'"):
            space_of(runs(), ["dropuot"])

    @pytest.mark.parametrize("values", [[[1], [2]], [b"a", b"b"]])
    def test_what_is_no_param(self, values: list[object]) -> None:
        space = space_of(pl.DataFrame({"a": values}))
        assert space.params == ()
        assert "not numbers, text or booleans" in space.left_out[0].reason

    def test_no_runs(self) -> None:
        assert space_of(pl.DataFrame({"lr": []}, schema={"lr": pl.Float64})).params == ()

    def test_names_of_seeds(self) -> None:
        assert [is_seed(name) for name in ("Seed", "data/seed", "np_seed", "random_state", "seeded", "seedling")] == [
            True, True, True, True, False, False,
        ]  # fmt: skip

    @given(st.lists(st.floats(1e-6, 1e6), min_size=2, unique=True), st.floats(0, 1))
    def test_positions_and_values_are_inverse(self, values: list[float], unit: float) -> None:
        space = space_of(pl.DataFrame({"a": values}))
        param = space.params[0]
        there = param.value_at(np.array([0.0, unit, 1.0]))
        assert np.allclose(param.unit_of(there), [0.0, unit, 1.0], atol=1e-6)
        assert there[[0, 2]] == pytest.approx([min(values), max(values)])


class TestDesign:
    def test_columns(self) -> None:
        frame = runs().with_columns(loss=pl.col("lr"))
        design = design_of(frame, "loss")
        assert design.x.shape == (40, 1 + 1 + 1 + 1 + 2 + 2 + 2)
        assert design.x.min() == 0.0
        assert design.x.max() == 1.0
        assert (design.x[:, design.columns[4]].sum(1) == 1).all()
        exists = design.x[:, design.columns[-1]][:, 1]
        assert (exists == (frame["opt"] == "sgd").to_numpy()).all()
        assert columns_of(design.space) == design.columns

    def test_runs_without_a_result_are_told(self) -> None:
        frame = runs().with_columns(loss=pl.when(pl.col("seed") < 30).then(pl.col("lr")))
        design = design_of(frame.with_columns(loss=pl.when(pl.col("seed") == 3).then(np.inf).otherwise("loss")), "loss")
        assert design.n == 29
        assert design.notes[0] == "left out 11 of 40 runs: their loss is missing, NaN or infinite"

    def test_configurations_ignore_seeds(self) -> None:
        frame = pl.DataFrame({"lr": [0.1, 0.2] * 5, "seed": range(10), "loss": range(10)})
        assert design_of(frame, "loss").configurations.tolist() == [0, 1] * 5

    @pytest.mark.parametrize(
        ("columns", "error", "words"),
        [
            ({"lr": [1.0, 2.0], "loss": [1.0, 2.0]}, NotEnoughDataError, "2 runs of 2 .* it takes 10"),
            ({"lr": [*range(20)], "loss": [1.0] * 20}, InvalidInputError, "all 20 runs have the 'loss' 1"),
            ({"lr": [1] * 20, "loss": [*range(20)]}, InvalidInputError, "no param varies .* lr is left out"),
            ({"lr": [*range(20)], "loss": ["a"] * 20}, InvalidInputError, "holds String"),
            ({"lr": [*range(20)], "los": [1.0] * 20}, InvalidInputError, "did you mean 'los'"),
            ({"lr": [*range(20)], "loss": [float("nan")] * 20}, NotEnoughDataError, "0 runs of 20"),
        ],
    )
    def test_what_cannot_be_learned_from(self, columns: dict[str, object], error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            design_of(pl.DataFrame(columns), "loss")

    def test_other_runs_are_encoded_over_the_same_space(self) -> None:
        design = design_of(runs().with_columns(loss=pl.col("lr")), "loss")
        assert (encoded(design.space, design.runs) == design.x).all()


def test_a_missing_library_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match=r"a forest needs scikit-learn: .* 'ckptlake\[analysis\]'"):
        need("sklearn", "a forest")
    with pytest.raises(ModuleNotFoundError, match="nothing_there"):
        need("optuna.nothing_there", "a forest")
