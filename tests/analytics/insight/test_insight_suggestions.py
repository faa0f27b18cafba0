"""Responses to a param, what to try next, and where no run has been."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import vl_convert
from scipy import stats
from sklearn.inspection import partial_dependence as dependence_by_sklearn

from ckptlake.analytics.insight import response, suggestions, unexplored_regions
from ckptlake.analytics.insight.design import design_of
from ckptlake.analytics.insight.forest import fit
from ckptlake.analytics.insight.response import partial_dependence
from ckptlake.analytics.insight.suggestions import Suggestions, expected_improvement
from ckptlake.errors import InvalidInputError, NotEnoughDataError


def sweep(n: int = 80, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({
        "run_id": [f"r{i}" for i in range(n)],
        "lr": 10 ** rng.uniform(-5, -1, n),
        "width": rng.choice([64, 128, 256], n),
        "layers": rng.integers(1, 60, n),
        "opt": rng.choice(["sgd", "adam"], n).tolist(),
        "ema": rng.random(n) < 0.5,
    }).with_columns(
        momentum=pl.when(pl.col("opt") == "sgd").then(pl.Series(rng.uniform(0.5, 0.99, n)))
    )  # fmt: skip
    valley = (pl.col("lr").log10() + 3) ** 2
    return frame.with_columns(loss=valley + (pl.col("opt") == "sgd") * 2 + pl.col("momentum").fill_null(0))


class TestResponse:
    def test_partial_dependence_as_by_sklearn(self) -> None:
        design = design_of(sweep(), "loss", ["lr", "layers"])
        model = fit(design.x, design.y, seed=0)
        places = np.linspace(0.1, 0.9, 7)
        theirs = dependence_by_sklearn(model, design.x, [0], custom_values={0: places}, method="brute")["average"][0]
        assert partial_dependence(model, design.x, slice(0, 1), places[:, None]) == pytest.approx(theirs)

    def test_the_valley_is_found_on_a_log_scale(self) -> None:
        found = response(sweep(), "loss", "lr", draws=10)
        least = found.table.sort("mean").row(0, named=True)
        assert 10**-3.5 < least["value"] < 10**-2.5
        assert found.table["value"][[0, -1]].to_list() == pytest.approx(sweep()["lr"].sort()[[0, -1]].to_list())
        assert (found.table["low"] <= found.table["mean"]).all()
        assert (found.table["mean"] <= found.table["high"]).all()
        assert found.chart().spec["layer"][1]["encoding"]["x"]["scale"] == {"type": "log"}
        assert "the mean loss is least at lr = 0.00" in found.sentence()

    def test_text_is_looked_at_choice_by_choice(self) -> None:
        found = response(sweep(), "loss", "opt", draws=4)
        means = dict(found.table.select("value", "mean").iter_rows())
        assert means["sgd"] - means["adam"] > 1.5
        assert vl_convert.vegalite_to_png(json.dumps(found.chart().spec)).startswith(b"\x89PNG")

    def test_integers_of_few_values_are_looked_at_in_full(self) -> None:
        assert response(sweep(), "loss", "width", draws=2).table["value"].to_list() == [64, 128, 256]

    def test_a_conditional_param_counts_where_it_exists(self) -> None:
        runs = sweep(200)
        found = response(runs, "loss", "momentum", draws=2)
        assert found.n == runs["momentum"].count()
        assert any("only the" in note for note in found.notes)
        assert found.table["mean"].min() > runs.filter(opt="adam")["loss"].mean()  # type: ignore[operator]

    def test_what_cannot_be_looked_at(self) -> None:
        with pytest.raises(InvalidInputError, match="'depth' cannot be looked at"):
            response(sweep().drop("run_id"), "loss", "depth")
        with pytest.raises(InvalidInputError, match="points=1"):
            response(sweep(), "loss", "lr", points=1)


class TestExpectedImprovement:
    @pytest.mark.parametrize(("mean", "sd", "best"), [(0.0, 1.0, 0.5), (2.0, 0.3, 1.0), (-1.0, 2.0, 3.0)])
    def test_as_the_mean_of_draws(self, mean: float, sd: float, best: float) -> None:
        integral = stats.norm(mean, sd).expect(lambda value: max(best - value, 0.0), lb=mean - 9 * sd, ub=best)
        assert expected_improvement(np.array([mean]), np.array([sd]), best)[0] == pytest.approx(integral, abs=1e-6)

    def test_a_certain_result(self) -> None:
        assert expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0).tolist() == [1.0, 0.0]


class TestSuggestions:
    @pytest.fixture(scope="class")
    @staticmethod
    def runs() -> pl.DataFrame:
        return sweep(120)

    @pytest.fixture(scope="class")
    @staticmethod
    def found(runs: pl.DataFrame) -> Suggestions:
        return suggestions(runs, "loss", direction="min", k=8)

    def test_they_lie_in_the_space_and_near_the_optimum(self, runs: pl.DataFrame, found: Suggestions) -> None:
        table = found.table
        assert table.height == 8
        assert set(table["width"]) <= {64, 128, 256}
        assert table["layers"].dtype == pl.Int64
        assert (table["momentum"].is_not_null() == (table["opt"] == "sgd")).all()
        assert table["lr"].is_between(runs["lr"].min(), runs["lr"].max()).all()  # type: ignore[arg-type]
        assert abs(table["lr"].log10() + 3).median() < 0.7  # type: ignore[operator]
        assert table.select("lr").n_unique() == 8
        assert table["expected_improvement"].is_sorted(descending=True)
        assert (table["expected_improvement"] >= 0).all()

    def test_the_direction_counts(self, runs: pl.DataFrame, found: Suggestions) -> None:
        turned = runs.with_columns(acc=-pl.col("loss")).drop("loss")
        high = suggestions(turned, "acc", direction="max", k=8)
        assert high.best == -found.best
        assert high.table["expected"].to_list() == pytest.approx([-value for value in found.table["expected"]])
        assert high.table.select("lr", "opt").equals(found.table.select("lr", "opt"))

    def test_only_the_same_seed_gives_the_same(self, runs: pl.DataFrame, found: Suggestions) -> None:
        assert suggestions(runs, "loss", direction="min", k=8).table.equals(found.table)
        assert not suggestions(runs, "loss", direction="min", k=8, seed=2).table.equals(found.table)

    def test_diverged_runs_are_bad_news_and_told(self, runs: pl.DataFrame) -> None:
        """All high learning rates diverge; otherwise higher is better."""
        lr = pl.col("lr").log10()
        result = pl.when(lr > -2).then(float("inf")).when(pl.col("ema") & (lr < -4.5)).then(None).otherwise(-lr)
        found = suggestions(runs.with_columns(loss=result), "loss", direction="min", k=6)
        assert (found.table["lr"].log10() < -2).sum() >= 5
        n_diverged = runs.select((lr > -2).sum()).item()
        assert f"{n_diverged} runs diverged and count as the worst" in found.notes
        assert any("no loss and" in note for note in found.notes)

    def test_the_edge_of_what_was_tried_is_told(self) -> None:
        runs = sweep().with_columns(loss=pl.col("lr"))
        assert any("best run has lr = " in note and "the least value" in note for note in suggestions(
            runs, "loss", direction="min", k=1).notes)  # fmt: skip

    def test_params_that_exist_for_unknown_reasons_are_not_suggested(self, runs: pl.DataFrame) -> None:
        found = suggestions(runs.drop("opt", "ema"), "loss", direction="min", k=1)
        assert "momentum" not in found.table.columns
        assert any(note.startswith("momentum is not suggested") for note in found.notes)
        with pytest.raises(InvalidInputError, match="not known when 'momentum' exists"):
            suggestions(runs, "loss", ["momentum"], direction="min")

    def test_sentence_and_chart(self, found: Suggestions) -> None:
        assert found.sentence().startswith(f"After 120 runs with a best loss of {found.best:.4g}, try lr = ")
        assert vl_convert.vegalite_to_png(json.dumps(found.chart().spec)).startswith(b"\x89PNG")

    def test_bad_arguments(self, runs: pl.DataFrame) -> None:
        with pytest.raises(InvalidInputError, match="k=0"):
            suggestions(runs, "loss", direction="min", k=0)
        with pytest.raises(NotEnoughDataError, match="3 runs"):
            suggestions(runs.head(3), "loss", direction="min")


class TestRegions:
    def test_a_hole_is_found(self) -> None:
        rng = np.random.default_rng(0)
        frame = pl.DataFrame({"a": rng.random(400), "b": rng.random(400)})
        holed = frame.filter((pl.col("a") - 0.6) ** 2 + (pl.col("b") - 0.4) ** 2 > 0.25**2)
        found = unexplored_regions(holed, k=2)
        first = found.table.row(0, named=True)
        assert (first["a"], first["b"]) == pytest.approx((0.6, 0.4), abs=0.1)
        assert first["radius"] == pytest.approx(0.25, abs=0.05)
        assert first["p"] == 0.01
        assert "wider than chance leaves it (p = 0.01)" in found.sentence()
        assert vl_convert.vegalite_to_png(json.dumps(found.chart().spec)).startswith(b"\x89PNG")

    def test_runs_at_random_leave_gaps_too(self) -> None:
        rng = np.random.default_rng(3)
        found = unexplored_regions(pl.DataFrame({"a": rng.random(60), "b": rng.random(60)}))
        assert found.table["p"][0] > 0.05
        assert "no wider than chance" in found.sentence()

    def test_a_choice_never_combined(self) -> None:
        rng = np.random.default_rng(0)
        frame = pl.DataFrame({
            "run_id": [f"r{i}" for i in range(100)], "lr": rng.random(100),
            "opt": rng.choice(["a", "b"], 100).tolist(), "ema": rng.random(100) < 0.5,
        })  # fmt: skip
        found = unexplored_regions(frame.filter(~((pl.col("opt") == "a") & pl.col("ema"))), k=1)
        assert found.table.select("opt", "ema").row(0) == ("a", True)
        assert found.table["nearest"][0] in frame["run_id"]

    def test_a_full_grid_has_no_gap(self) -> None:
        frame = pl.DataFrame({"a": [1, 2] * 4, "opt": ["x", "x", "y", "y"] * 2})
        found = unexplored_regions(frame)
        assert found.table.is_empty()
        assert found.sentence().startswith("There is no gap")

    def test_conditional_params(self) -> None:
        found = unexplored_regions(sweep(), ["opt", "momentum", "lr"], k=3)
        assert ((found.table["opt"] == "sgd") == found.table["momentum"].is_not_null()).all()

    def test_bad_arguments(self) -> None:
        with pytest.raises(NotEnoughDataError, match="1 run"):
            unexplored_regions(sweep(1))
        with pytest.raises(InvalidInputError, match="no param varies"):
            unexplored_regions(pl.DataFrame({"a": [1, 1]}))
        with pytest.raises(InvalidInputError, match="k=0"):
            unexplored_regions(sweep(), k=0)
