"""Importance and interactions of params, against optuna, sums over grids and functions whose shares are known."""

from __future__ import annotations

import json
import time
from itertools import combinations, product

import numpy as np
import optuna
import polars as pl
import pytest
import vl_convert
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance as permuted_by_sklearn

from ckptlake.analytics.insight.decomposition import shares_of, tree_shares
from ckptlake.analytics.insight.design import Design, design_of
from ckptlake.analytics.insight.forest import fit, folds, moments
from ckptlake.analytics.insight.importance import (
    Importance,
    fanova_importance,
    ped_anova_importance,
    permutation_importance,
)  # fmt: skip
from ckptlake.analytics.insight.interactions import interactions
from ckptlake.errors import InvalidInputError


def uniform(n: int, count: int, seed: int = 0) -> tuple[np.random.Generator, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    return rng, pl.DataFrame({f"p{i}": rng.random(n) for i in range(count)})


def mixed(n: int = 60, seed: int = 1) -> Design:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({
        "lr": 10 ** rng.uniform(-4, -1, n), "opt": rng.choice(["adam", "lion", "sgd"], n).tolist(),
        "layers": rng.integers(1, 9, n), "ema": rng.random(n) < 0.5,
    }).with_columns(momentum=pl.when(pl.col("opt") == "sgd").then(pl.Series(rng.random(n))))  # fmt: skip
    loss = frame["lr"].log10() + (frame["opt"] == "sgd") * 2.0 + frame["layers"] * frame["ema"] * 0.3
    return design_of(frame.with_columns(loss=loss + frame["momentum"].fill_null(0.0)), "loss")


class TestDecomposition:
    def test_as_optuna_works_it_out(self) -> None:
        rng, frame = uniform(80, 4)
        loss = 3 * frame["p0"] + frame["p1"] * frame["p2"] + pl.Series(rng.normal(0, 0.1, 80))
        design = design_of(frame.with_columns(loss=loss), "loss")
        forest = RandomForestRegressor(16, max_depth=64, random_state=3).fit(design.x, design.y)
        mine = shares_of(forest, design.space.params, design.columns).single

        kinds = {name: optuna.distributions.FloatDistribution(0, 1) for name in design.space.names}
        study = optuna.create_study()
        study.add_trials([
            optuna.trial.create_trial(params=dict(zip(kinds, x, strict=True)), distributions=kinds, value=y)
            for x, y in zip(design.x.tolist(), design.y.tolist(), strict=True)
        ])  # fmt: skip
        theirs = optuna.importance.FanovaImportanceEvaluator(n_trees=16, seed=3).evaluate(study)
        assert mine == pytest.approx([theirs[name] for name in design.space.names], abs=1e-12)

    def test_as_a_sum_over_a_grid_of_every_kind_of_param(self) -> None:
        """Means over the others are worked out point by point, on a grid that hits no edge; trees are in float32."""
        rng = np.random.default_rng(0)
        n, steps = 40, 8
        frame = pl.DataFrame({
            "a": rng.integers(0, steps, n) / (steps - 1), "opt": rng.choice(["x", "y", "z"], n).tolist(),
            "c": [None if rng.random() < 0.4 else rng.integers(0, steps) / (steps - 1) for _ in range(n)],
        }, schema={"a": pl.Float64, "opt": pl.String, "c": pl.Float64})  # fmt: skip
        loss = frame["a"] * (frame["opt"] == "x") + frame["c"].fill_null(2.0) + pl.Series(rng.normal(size=n))
        design = design_of(frame.with_columns(loss=loss), "loss")
        tree = RandomForestRegressor(1, random_state=0).fit(design.x, design.y).estimators_[0]
        found = tree_shares(tree.tree_, design.space.params, design.columns)
        assert found is not None

        cells = 2 * 7 * 8  # edges lie half way between steps: at odd multiples of 1/14
        middle = (np.arange(cells) + 0.5) / cells
        missing = design.space.get("c").share_missing
        a = [((u,), 1 / cells) for u in middle]
        opt = [(tuple(row), 1 / 3) for row in np.eye(3)]
        c = [((u, 1.0), (1 - missing) / cells) for u in middle] + [((0.5, 0.0), missing)]
        sizes = (len(a), len(opt), len(c))
        grid = np.array([one[0] + two[0] + three[0] for one, two, three in product(a, opt, c)])
        surface = tree.predict(grid.astype(np.float32)).reshape(sizes)
        weights = [np.array([weight for _, weight in part]) for part in (a, opt, c)]
        joint = np.einsum("i,j,k->ijk", *weights)
        mean = (joint * surface).sum()
        total = (joint * (surface - mean) ** 2).sum()

        def part_of(kept: tuple[int, ...]) -> float:
            others = tuple(axis for axis in range(3) if axis not in kept)
            marginal = (joint * surface).sum(others) / joint.sum(others) - mean
            return float((joint.sum(others) * marginal**2).sum() / total)

        single = [part_of((axis,)) for axis in range(3)]
        assert found.single == pytest.approx(single, abs=1e-6)
        for one, two in combinations(range(3), 2):
            assert found.pairs[one, two] == pytest.approx(part_of((one, two)) - single[one] - single[two], abs=1e-6)

    def test_all_shares_of_two_params_sum_to_one(self) -> None:
        rng, frame = uniform(50, 2)
        design = design_of(frame.with_columns(loss=pl.Series(rng.normal(size=50))), "loss")
        found = shares_of(fit(design.x, design.y, seed=0), design.space.params, design.columns)
        assert found.single.sum() + found.pairs[0, 1] == pytest.approx(1.0)

    def test_known_shares_of_a_product(self) -> None:
        """Of ab with a and b uniform the variance is 7/144: 3/144 for each alone, 1/144 for the pair."""
        _, frame = uniform(500, 2)
        design = design_of(frame.with_columns(loss=pl.col("p0") * pl.col("p1")), "loss")
        found = shares_of(fit(design.x, design.y, seed=0), design.space.params, design.columns)
        assert found.single == pytest.approx([3 / 7, 3 / 7], abs=0.05)
        assert found.pairs[0, 1] == pytest.approx(1 / 7, abs=0.03)

    def test_a_constant_forest_has_no_shares(self) -> None:
        design = mixed()
        found = shares_of(fit(design.x, np.ones(design.n), seed=0), design.space.params, design.columns)
        assert not found.single.any()
        assert not found.pairs.any()


class TestForest:
    def test_moments_are_those_of_predictions_and_leaves(self) -> None:
        design = mixed()
        model = fit(design.x, design.y, seed=0)
        mean, sd = moments(model, design.x)
        assert mean == pytest.approx(model.predict(design.x))
        means = np.array([tree.predict(design.x) for tree in model.estimators_])
        assert (sd**2 >= means.var(0) - 1e-12).all()

    def test_runs_of_one_configuration_share_a_fold(self) -> None:
        configurations = np.repeat(np.arange(12), 3)
        held = folds(configurations, seed=0)
        assert all(len(set(held[configurations == one])) == 1 for one in range(12))
        assert len(set(held)) == 5


class TestImportance:
    def test_known_shares(self) -> None:
        """Of 3a + b with a and b uniform the variance is 9/12 and 1/12."""
        _, frame = uniform(400, 3)
        found = fanova_importance(frame.with_columns(loss=3 * pl.col("p0") + pl.col("p1")), "loss", draws=10)
        shares = dict(found.table.select("param", "importance").iter_rows())
        assert shares["p0"] == pytest.approx(0.9, abs=0.03)
        assert shares["p1"] == pytest.approx(0.1, abs=0.03)
        assert shares["p2"] < 0.01
        assert "What mattered most for loss over 400 runs: p0 0.9" in found.sentence()

    def test_a_logarithmic_scale_counts_decades(self) -> None:
        """On a linear scale nearly all of the space lies in the last decade, where the result is flat."""
        rng = np.random.default_rng(0)
        frame = pl.DataFrame({"lr": 10 ** rng.uniform(-4, 0, 200), "other": rng.random(200)})
        result = pl.when(pl.col("lr") < 1e-2).then(1.0).otherwise(0.0) + 0.2 * pl.col("other")
        found = fanova_importance(frame.with_columns(loss=result), "loss", draws=2)
        assert found.table["param"][0] == "lr"
        assert found.table["importance"][0] > 0.9

    def test_conditional_and_categorical_params(self) -> None:
        design = mixed(200)
        runs = design.runs
        found = fanova_importance(runs, "loss", draws=4)
        assert set(found.table["param"]) == {"lr", "opt", "layers", "ema", "momentum"}
        assert dict(found.table.select("param", "n").iter_rows())["momentum"] == runs["momentum"].count()
        assert set(ped_anova_importance(runs, "loss", direction="min", draws=2).table["param"]) == set(
            design.space.names
        )

    def test_permutation_as_by_sklearn(self) -> None:
        """Twice the variance that a param explains is gained by permuting it (Gregorutti et al. 2017)."""
        rng, frame = uniform(600, 3)
        loss = 3 * frame["p0"] + frame["p1"] + pl.Series(rng.normal(0, 0.1, 600))
        found = permutation_importance(frame.with_columns(loss=loss), "loss")
        gained = dict(found.table.select("param", "importance").iter_rows())
        assert gained["p0"] == pytest.approx(2 * 9 / 12 / loss.var(), rel=0.05)  # type: ignore[operator]
        x = frame.to_numpy()
        model = fit(x[:480], loss.to_numpy()[:480], seed=0)
        theirs = permuted_by_sklearn(
            model, x[480:], loss.to_numpy()[480:], n_repeats=20, random_state=0
        ).importances_mean
        assert [gained[f"p{i}"] for i in range(3)] == pytest.approx(theirs, abs=0.15)

    def test_ped_anova_as_by_optuna(self) -> None:
        _, frame = uniform(120, 3)
        runs = frame.with_columns(acc=-((pl.col("p0") - 0.3) ** 2) - 0.1 * pl.col("p1"))
        found = ped_anova_importance(runs, "acc", direction="max", best=0.2, draws=2)
        kinds = {
            name: optuna.distributions.FloatDistribution(frame[name].min(), frame[name].max()) for name in frame.columns
        }
        study = optuna.create_study(direction="maximize")
        study.add_trials([
            optuna.trial.create_trial(params=dict(zip(kinds, row, strict=True)), distributions=kinds, value=value)
            for row, value in zip(frame.iter_rows(), runs["acc"], strict=True)
        ])  # fmt: skip
        theirs = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.2)
        )
        assert dict(found.table.select("param", "importance").iter_rows()) == pytest.approx(theirs)

    def test_ped_anova_knows_the_direction(self) -> None:
        """The least is reached by p0 alone, the greatest by p1 alone."""
        _, frame = uniform(300, 2)
        runs = frame.with_columns(
            loss=pl.when(pl.col("p0") < 0.1).then(-1.0).when(pl.col("p1") > 0.9).then(1.0).otherwise(0.0)
        )
        found = {
            way: ped_anova_importance(runs, "loss", direction=way, best=0.05, draws=2).table["param"][0]
            for way in ("min", "max")
        }
        assert found == {"min": "p0", "max": "p1"}

    @pytest.mark.parametrize("method", [fanova_importance, permutation_importance])
    def test_noise_has_no_order(self, method: object) -> None:
        rng, frame = uniform(80, 3)
        found = method(frame.with_columns(loss=pl.Series(rng.normal(size=80))), "loss", draws=4)  # type: ignore[operator]
        assert found.explained <= 0
        assert found.checks[0].holds is False
        assert found.sentence().startswith("No order of the params can be told for loss")

    def test_too_few_best_runs(self) -> None:
        _, frame = uniform(20, 2)
        found = ped_anova_importance(frame.with_columns(loss=pl.col("p0")), "loss", direction="min", draws=2)
        assert found.checks[0].holds is False
        assert "2 of 20 runs" in found.sentence()

    def test_ties_among_the_best(self) -> None:
        _, frame = uniform(40, 2)
        runs = frame.with_columns(acc=pl.when(pl.col("p0") < 0.05).then(0.0).otherwise(1.0))
        found = ped_anova_importance(runs, "acc", direction="max", draws=2)
        assert found.checks[1].holds is False

    def test_a_param_alone(self) -> None:
        _, frame = uniform(40, 1)
        table = fanova_importance(frame.with_columns(loss=pl.col("p0")), "loss", draws=2).table
        assert table.select("importance", "low", "high").row(0) == pytest.approx((1.0, 1.0, 1.0))

    def test_the_same_seed_gives_the_same(self) -> None:
        runs = mixed().runs
        for method in (fanova_importance, permutation_importance):
            assert method(runs, "loss", draws=3, seed=5).table.equals(method(runs, "loss", draws=3, seed=5).table)

    def test_ranges_hold_the_estimate(self) -> None:
        for found in (
            fanova_importance(mixed().runs, "loss", draws=20),
            ped_anova_importance(mixed().runs, "loss", direction="min", draws=20),
        ):
            outside = (pl.col("importance") < pl.col("low") - 1e-12) | (pl.col("importance") > pl.col("high") + 1e-12)
            assert found.table.filter(outside & (pl.col("importance") > 0)).is_empty()

    def test_bad_arguments(self) -> None:
        runs = mixed().runs
        with pytest.raises(InvalidInputError, match="draws=1:"):
            fanova_importance(runs, "loss", draws=1)
        with pytest.raises(InvalidInputError, match=r"best=1\.5"):
            ped_anova_importance(runs, "loss", direction="min", best=1.5)
        with pytest.raises(InvalidInputError, match="'least'"):
            ped_anova_importance(runs, "loss", direction="least")  # type: ignore[arg-type]

    def test_optuna_keeps_its_verbosity(self) -> None:
        before = optuna.logging.get_verbosity()
        ped_anova_importance(mixed().runs, "loss", direction="min", draws=2)
        assert optuna.logging.get_verbosity() == before

    def test_as_row_and_chart(self) -> None:
        found: Importance = permutation_importance(mixed().runs, "loss")
        assert found.row()["explained"] == found.explained
        assert vl_convert.vegalite_to_png(json.dumps(found.chart().spec)).startswith(b"\x89PNG")


class TestInteractions:
    def test_a_product_is_found(self) -> None:
        """Neither of the two has an effect of its own, which is the hardest case for trees."""
        rng, frame = uniform(300, 3)
        loss = (frame["p0"] - 0.5) * (frame["p1"] - 0.5) + frame["p2"] / 6 + pl.Series(rng.normal(0, 0.01, 300))
        found = interactions(frame.with_columns(loss=loss), "loss", draws=19)
        first = found.table.row(0, named=True)
        assert (first["one"], first["two"], first["p"]) == ("p0", "p1", 0.05)
        assert first["h_squared"] > 2 * found.table["h_squared"][1:].max()  # type: ignore[operator]
        assert found.table["p"][1:].min() > 0.05  # type: ignore[operator]
        assert "p0 with p1" in found.sentence()
        assert vl_convert.vegalite_to_png(json.dumps(found.chart().spec)).startswith(b"\x89PNG")

    def test_a_sum_has_none(self) -> None:
        rng, frame = uniform(100, 3)
        loss = 3 * frame["p0"] + frame["p1"] + pl.Series(rng.normal(0, 0.3, 100))
        found = interactions(frame.with_columns(loss=loss), "loss", draws=19)
        assert found.table["p"].min() > 0.05  # type: ignore[operator]
        assert found.sentence().startswith("No two params visibly depend on each other for loss: 3 pairs over 100 runs")

    def test_it_takes_two(self) -> None:
        _, frame = uniform(30, 1)
        with pytest.raises(InvalidInputError, match="'p0' alone varies"):
            interactions(frame.with_columns(loss=pl.col("p0")), "loss")
        with pytest.raises(InvalidInputError, match="19 to 100,000"):
            interactions(frame, "p0", draws=5)


@pytest.mark.slow
def test_five_hundred_runs_take_seconds() -> None:
    """Far below what optuna's own evaluator takes for the estimate alone."""
    rng, frame = uniform(500, 10)
    runs = frame.with_columns(loss=3 * pl.col("p0") + pl.col("p1") * pl.col("p2") + pl.Series(rng.normal(0, 0.1, 500)))
    began = time.monotonic()
    fanova_importance(runs, "loss")
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_interactions_of_sums_are_rarely_claimed() -> None:
    """With 19 draws a claim is made in 5 % of experiments without interactions; three standard errors are allowed."""
    n_experiments, claims = 200, 0
    for seed in range(n_experiments):
        rng, frame = uniform(60, 3, seed)
        loss = frame["p0"] + 0.5 * frame["p1"] + pl.Series(rng.normal(0, 0.3, 60))
        claims += interactions(frame.with_columns(loss=loss), "loss", draws=19).table["p"].min() <= 0.05  # type: ignore[operator]
    assert claims / n_experiments <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_experiments)
