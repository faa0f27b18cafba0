"""Rules that look over an experiment: what they find, what they leave unsaid, and how often they err."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import vl_convert
from scipy import stats
from statsmodels.formula.api import ols

from ckptlake.analytics.insight import Experiment, Insight, Silence, insights
from ckptlake.analytics.insight.finding import Finding
from ckptlake.analytics.insight.rules.budget import stopped_early
from ckptlake.analytics.insight.rules.checkpoints import better_checkpoint, chance_of_gap, noise_of
from ckptlake.analytics.insight.rules.divergence import diverged_runs
from ckptlake.analytics.insight.rules.effects import explained_by, no_visible_effect, visible_effects
from ckptlake.analytics.insight.rules.noise import within_seed_noise
from ckptlake.analytics.insight.rules.speed import slow_runs, studentized
from ckptlake.errors import InvalidInputError

NAN = float("nan")


def sweep(n: int, seed: int, seeds: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({
        "lr": 10 ** rng.uniform(-4, -1, n), "batch_size": rng.choice([32, 64, 128, 256], n),
        "opt": rng.choice(["sgd", "adam"], n).tolist(), "ema": rng.random(n) < 0.5,
    })  # fmt: skip
    frame = pl.concat([frame.with_columns(seed=pl.lit(one)) for one in range(seeds)])
    return frame.with_columns(
        run_id=pl.Series([f"r{i}" for i in range(frame.height)]), loss=pl.Series(rng.normal(size=frame.height))
    )


def experiment(runs: pl.DataFrame, **told: object) -> Experiment:
    params = tuple(name for name in runs.columns if name in {"lr", "batch_size", "opt", "ema", "seed"})
    return Experiment(**{"runs": runs, "metric": "loss", "direction": "min", "params": params, **told})  # type: ignore[arg-type]


def curves(values: dict[str, np.ndarray]) -> pl.DataFrame:
    return pl.concat([
        pl.DataFrame({"run_id": [run] * len(series), "step": np.arange(len(series)), "value": series})
        for run, series in values.items()
    ])  # fmt: skip


def runs_of(ids: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"run_id": ids, "loss": [1.0 + place for place in range(len(ids))]})


def insight(finding: Finding) -> Insight:
    assert isinstance(finding, Insight), finding
    assert vl_convert.vegalite_to_png(json.dumps(finding.chart().spec)).startswith(b"\x89PNG")
    assert finding.n > 0
    assert not finding.evidence.is_empty()
    return finding


def silence(finding: Finding) -> str:
    assert isinstance(finding, Silence), finding
    return finding.reason


class TestExperiment:
    def test_what_is_wrong_is_named(self) -> None:
        runs = sweep(4, 0)
        with pytest.raises(InvalidInputError, match="did you mean 'loss'"):
            experiment(runs, metric="los")
        with pytest.raises(InvalidInputError, match="two runs have the same run_id"):
            experiment(pl.concat([runs, runs]))
        with pytest.raises(InvalidInputError, match="direction='down'"):
            experiment(runs, direction="down")
        with pytest.raises(InvalidInputError, match="no column 'value'"):
            experiment(runs, curves=pl.DataFrame({"run_id": ["r0"], "step": [1]}))

    def test_curves_of_other_experiments_are_none_of_it(self) -> None:
        given = curves({"r0": np.ones(3), "other": np.ones(3)})
        assert [curve.label for curve in experiment(runs_of(["r0"]), curves=given).curve_of_each_run()] == ["r0"]


class TestDivergence:
    def test_the_threshold_is_named(self) -> None:
        runs = sweep(40, 0).with_columns(loss=pl.when(pl.col("lr") > 0.02).then(NAN).otherwise("loss"))
        found = insight(diverged_runs(experiment(runs)))
        n_high = runs.filter(pl.col("lr") > 0.02).height
        assert found.text.startswith(f"{n_high} of {n_high} runs with lr above 0.0")
        assert f"0 of {40 - n_high} others (p = 0.001)" in found.text
        assert found.evidence["diverged"].to_list() == [n_high, 0]
        assert found.weight == pytest.approx(5 + n_high / 40)

    @pytest.mark.parametrize("column", ["opt", "ema"])
    def test_a_choice_is_named(self, column: str) -> None:
        bad = pl.col("opt") == "adam" if column == "opt" else ~pl.col("ema")
        runs = sweep(40, 1).with_columns(loss=pl.when(bad).then(float("inf")).otherwise("loss"))
        assert f"with {column}" in insight(diverged_runs(experiment(runs))).text

    def test_a_curve_that_left_its_best_counts(self) -> None:
        fall = 3 + 5 * np.exp(-np.arange(100.0) / 10)
        series = {f"r{i}": np.where((np.arange(100) > 60) & (i == 0), 10.8, fall) for i in range(3)}
        found = insight(diverged_runs(experiment(runs_of(list(series)), curves=curves(series))))
        assert found.text.startswith("1 of 3 runs diverged")

    def test_no_param_is_blamed_for_chance(self) -> None:
        rng = np.random.default_rng(7)
        runs = sweep(40, 2).with_columns(loss=pl.Series(np.where(rng.random(40) < 0.2, NAN, 1.0)))
        assert "no param tells which" in insight(diverged_runs(experiment(runs))).text

    def test_many_values_are_split_at_quantiles(self) -> None:
        runs = sweep(400, 0).with_columns(loss=pl.when(pl.col("lr") > 0.01).then(NAN).otherwise("loss"))
        found = insight(diverged_runs(experiment(runs)))
        assert found.checks[0].holds is None
        assert found.evidence["share"].max() > 0.9  # type: ignore[operator]
        assert "with lr above 0.0" in found.text

    def test_seeds_that_diverge_together_are_told(self) -> None:
        runs = sweep(10, 0, seeds=4).with_columns(loss=pl.when(pl.col("lr") > 0.01).then(NAN).otherwise("loss"))
        found = insight(diverged_runs(experiment(runs)))
        assert found.checks[0].holds is False
        assert found.checks[0].evidence == "40 runs of 10 configurations"

    def test_few_runs_and_none(self) -> None:
        runs = sweep(5, 0).with_columns(loss=pl.Series([NAN, NAN, NAN, 1.0, 1.0]))
        assert "cannot be told from 5 runs" in insight(diverged_runs(experiment(runs))).text
        assert silence(diverged_runs(experiment(sweep(5, 0)))) == "none of 5 runs diverged"


class TestNoise:
    def test_a_lead_within_noise(self) -> None:
        loss = [1.0, 1.4, 0.8, 1.1, 0.9, 1.3, 3.0, 3.1, 3.2]
        runs = pl.DataFrame({"run_id": list("abcdefghi"), "lr": [0.1] * 3 + [0.2] * 3 + [0.3] * 3, "loss": loss})
        found = insight(within_seed_noise(experiment(runs.with_columns(seed=pl.Series([0, 1, 2] * 3)))))
        assert found.n == 6
        assert "lr=0.1 is best" in found.text or "lr=0.2 is best" in found.text
        p = stats.ttest_ind(loss[:3], loss[3:6], equal_var=False).pvalue
        assert f"p = {p:.2g}" in found.text
        assert "seeds each to tell" in found.action

    def test_a_clear_lead_and_too_few_seeds(self) -> None:
        loss = [1.0, 1.1, 0.9, 3.0, 3.1, 2.9]
        runs = pl.DataFrame({"run_id": list("abcdef"), "lr": [0.1] * 3 + [0.2] * 3, "loss": loss})
        assert "leads beyond its seeds' noise" in silence(within_seed_noise(experiment(runs)))
        assert "cannot be told: 1 configuration" in silence(within_seed_noise(experiment(runs.head(4))))
        assert "no params" in silence(within_seed_noise(experiment(runs.drop("lr"))))
        equal = runs.with_columns(loss=pl.Series([1.0] * 3 + [2.0] * 3))
        assert isinstance(within_seed_noise(experiment(equal)), Silence)


class TestCheckpoints:
    def test_an_overfitted_run(self) -> None:
        steps = np.arange(200.0)
        rng = np.random.default_rng(0)
        series = {"over": (steps - 100) ** 2 / 1e4 + rng.normal(0, 0.02, 200), "level": rng.normal(1, 0.02, 200)}
        saved = pl.DataFrame({"run_id": ["over"] * 4 + ["level"] * 4, "step": [49, 99, 149, 199] * 2})
        found = insight(
            better_checkpoint(experiment(runs_of(["over", "level"]), curves=curves(series), checkpoints=saved))
        )
        row = found.evidence.row(0, named=True)
        assert found.evidence["run"].to_list() == ["over"]
        assert (row["best_step"], row["last_step"], row["checkpoints"]) == (99, 199, 4)
        assert row["gap"] == pytest.approx(series["over"][199] - series["over"][99])
        turned = {run: -values for run, values in series.items()}
        told = {"curves": curves(turned), "checkpoints": saved, "direction": "max"}
        assert insight(better_checkpoint(experiment(runs_of(["over", "level"]), **told))).evidence["best_step"][0] == 99

    def test_a_last_checkpoint_that_is_not_finite(self) -> None:
        series = {"a": np.append(np.random.default_rng(0).normal(1, 0.1, 99), NAN)}
        saved = pl.DataFrame({"run_id": ["a", "a"], "step": [50, 99]})
        found = better_checkpoint(experiment(runs_of(["a"]), curves=curves(series), checkpoints=saved))
        assert insight(found).evidence["best_step"][0] == 50

    def test_too_little(self) -> None:
        saved = pl.DataFrame({"run_id": ["a", "a"], "step": [1, 9]})
        short = curves({"a": np.arange(10.0)})
        assert "cannot be told" in silence(
            better_checkpoint(experiment(runs_of(["a"]), curves=short, checkpoints=saved))
        )
        assert "without curves" in silence(better_checkpoint(experiment(runs_of(["a"]))))

    @pytest.mark.parametrize(("count", "gap"), [(2, 1.0), (5, 2.0), (20, 3.5)])
    def test_chance_as_by_simulation(self, count: int, gap: float) -> None:
        values = np.random.default_rng(0).normal(size=(200_000, count))
        share = np.mean(values[:, -1] - values.min(1) >= gap)
        assert chance_of_gap(gap, 1.0, count, 1e9) == pytest.approx(share, abs=0.004)

    def test_chance_of_two_as_by_student(self) -> None:
        """With two values the gap over the root of two is Student's t if its noise is estimated."""
        assert chance_of_gap(3.0, 1.0, 2, 7.0) == pytest.approx(stats.t.sf(3.0 / np.sqrt(2), 7), abs=1e-4)

    def test_noise_ignores_a_straight_trend(self) -> None:
        noise = np.random.default_rng(0).normal(0, 2, 5000)
        assert noise_of(noise + 3 * np.arange(5000.0))[0] == pytest.approx(2, rel=0.05)


class TestBudget:
    def test_a_run_that_still_falls(self) -> None:
        rng = np.random.default_rng(0)
        noise = {run: rng.normal(0, 0.02, 200) for run in ("falls", "level")}
        series = {"falls": 3 - np.arange(200.0) / 100 + noise["falls"], "level": 1 + noise["level"]}
        found = insight(stopped_early(experiment(runs_of(list(series)), curves=curves(series))))
        assert found.evidence["run"].to_list() == ["falls"]
        assert found.text.startswith("1 of 2 runs still improved")
        up = experiment(runs_of(list(series)), curves=curves(series), direction="max")
        assert isinstance(stopped_early(up), Silence)

    def test_without_curves(self) -> None:
        assert "cannot be told" in silence(stopped_early(experiment(runs_of(["a"]))))


class TestNames:
    """Runs are called in insights as they are in verdicts."""

    def told(self, **more: object) -> Experiment:
        steps, rng = np.arange(200.0), np.random.default_rng(0)
        overfit = 1 + np.abs(steps - 100) / 100 + rng.normal(0, 0.01, 200)
        falls = 3 - steps / 100 + rng.normal(0, 0.02, 200)
        runs = runs_of(["id-1", "id-2", "id-3"]).with_columns(name=pl.Series(["over", "falls", "lost"]))
        runs = runs.with_columns(loss=pl.Series([2.0, 1.0, NAN]))
        saved = pl.DataFrame({"run_id": ["id-1"] * 4, "step": [49, 99, 149, 199]})
        seen = curves({"id-1": overfit, "id-2": falls, "id-3": np.append(falls[:99], NAN)})
        return experiment(runs, curves=seen, checkpoints=saved, name="name", **more)

    @pytest.mark.parametrize(
        ("rule", "called"), [(diverged_runs, "lost"), (better_checkpoint, "over"), (stopped_early, "falls")]
    )
    def test_names_stand_for_ids(self, rule: Callable[[Experiment], Finding], called: str) -> None:
        text = insight(rule(self.told())).text
        assert called in text
        assert "id-" not in text

    def test_a_column_called_run_does_no_harm(self) -> None:
        found = self.told()
        assert found.named(found.runs.with_columns(run=pl.lit(7)))["run"].to_list() == ["over", "falls", "lost"]

    def test_names_must_tell_runs_apart(self) -> None:
        with pytest.raises(InvalidInputError, match="two runs have the same name"):
            experiment(runs_of(["a", "b"]).with_columns(name=pl.lit("one")), name="name")

    def test_ids_of_another_kind_are_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="run_id is Int64 in checkpoints, String in the runs"):
            experiment(runs_of(["a"]), checkpoints=pl.DataFrame({"run_id": [1], "step": [1]}))


class TestEffects:
    def test_what_moves_the_result_and_what_does_not(self) -> None:
        runs = sweep(300, 0).with_columns(loss=pl.col("lr").log10() + 0.2 * pl.col("loss"))
        moves = insight(visible_effects(experiment(runs)))
        assert moves.evidence["param"].to_list() == ["lr"]
        assert "and try lr beyond" in moves.action
        still = insight(no_visible_effect(experiment(runs)))
        assert "lr" not in still.evidence["param"]
        assert "batch_size" in still.evidence["param"]
        assert still.evidence["at_most"].max() < 0.14  # type: ignore[operator]

    def test_seeds_of_a_configuration_count_once(self) -> None:
        runs = sweep(20, 0, seeds=5).with_columns(loss=pl.col("lr").log10())
        assert insight(visible_effects(experiment(runs))).n == 20

    def test_too_few_configurations(self) -> None:
        for rule in (visible_effects, no_visible_effect):
            assert "11 configurations" in silence(rule(experiment(sweep(11, 0))))
        few = silence(no_visible_effect(experiment(sweep(20, 0))))
        assert few == "of no param a large effect can be ruled out with 20 configurations"

    def test_share_and_p_as_by_scipy_and_the_bound_as_by_definition(self) -> None:
        rng = np.random.default_rng(0)
        groups = np.repeat([0, 1, 2], [10, 15, 12])
        values = rng.normal(size=37) + groups * 0.8
        share, p, most = explained_by(values, groups, level=0.95)
        found = stats.f_oneway(*(values[groups == one] for one in range(3)))
        assert p == pytest.approx(found.pvalue)
        assert share == pytest.approx(found.statistic * 2 / (found.statistic * 2 + 34))
        noncentrality = 37 * most / (1 - most)
        assert stats.ncf.cdf(found.statistic, 2, 34, noncentrality) == pytest.approx(0.05, abs=1e-6)

    def test_degenerate_values(self) -> None:
        groups = np.array([0, 0, 1, 1])
        assert explained_by(np.ones(4), groups, level=0.95) == (0.0, 1.0, 1.0)
        assert explained_by(np.array([1.0, 1, 2, 2]), groups, level=0.95) == (1.0, 0.0, 1.0)


class TestSpeed:
    def speeds(self, factor: float) -> pl.DataFrame:
        rng = np.random.default_rng(0)
        speed = 100 * np.exp(rng.normal(0, 0.03, 20))
        speed[7] /= factor
        return pl.DataFrame({
            "run_id": [f"r{i}" for i in range(20)], "lr": np.repeat([0.1, 0.2, 0.3, 0.4], 5), "seed": [*range(5)] * 4,
            "gpu": ["A100"] * 20, "steps_per_s": speed, "loss": rng.normal(size=20),
        })  # fmt: skip

    def test_a_slow_twin(self) -> None:
        found = insight(slow_runs(experiment(self.speeds(2.3))))
        assert found.evidence["run"].to_list() == ["r7"]
        assert found.evidence["times_slower"][0] == pytest.approx(2.3, rel=0.1)
        assert "its 4 twins on A100" in found.text
        assert "slower than its twins" in silence(slow_runs(experiment(self.speeds(1.0))))

    def test_another_gpu_is_no_twin(self) -> None:
        runs = self.speeds(2.3).with_columns(gpu=pl.when(pl.col("run_id") == "r7").then(pl.lit("T4")).otherwise("gpu"))
        assert isinstance(slow_runs(experiment(runs)), Silence)

    def test_too_little(self) -> None:
        assert "no column 'steps_per_s' and 'gpu'" in silence(slow_runs(experiment(sweep(20, 0))))
        assert "cannot be told: 0 runs" in silence(slow_runs(experiment(self.speeds(2.0).unique("lr"))))

    def test_residuals_as_by_statsmodels(self) -> None:
        rng = np.random.default_rng(0)
        groups = np.repeat([0, 1, 2], [3, 4, 6])
        values = rng.normal(size=13) + groups
        table = (
            ols("values ~ C(groups)", pl.DataFrame({"values": values, "groups": groups}).to_pandas())
            .fit()
            .get_influence()
        )
        t, gap = studentized(values, groups)
        assert t == pytest.approx(table.resid_studentized_external)
        others = [
            np.delete(values[groups == groups[i]], np.flatnonzero(groups == groups[i]).tolist().index(i))
            for i in range(13)
        ]
        assert gap == pytest.approx(values - [other.mean() for other in others])

    def test_values_that_do_not_vary(self) -> None:
        t, _ = studentized(np.array([2.0, 2.0, 2.0, 2.0, 1.0]), np.zeros(5, int))
        assert t.tolist()[-1] == -np.inf
        assert studentized(np.ones(5), np.zeros(5, int))[0].tolist() == [0.0] * 5


class TestInsights:
    def test_the_weightiest_comes_first(self) -> None:
        runs = sweep(300, 0).with_columns(
            loss=pl.when(pl.col("lr") > 0.05).then(NAN).otherwise(pl.col("lr").log10() + 0.2 * pl.col("loss"))
        )
        found = insights(experiment(runs))
        assert [one.rule for one in found.found] == ["diverged runs", "effects of params", "no visible effect"]
        assert found.table["weight"].is_sorted(descending=True)
        assert len(found.found) + len(found.silences) == 7
        assert found.sentence().startswith("1. ")
        assert vl_convert.vegalite_to_png(json.dumps(found.chart().spec)).startswith(b"\x89PNG")

    def test_nothing_to_say(self) -> None:
        found = insights(experiment(sweep(3, 0)))
        assert found.found == ()
        assert found.table.columns == ["rule", "weight", "n", "text", "action"]
        assert found.sentence() == "Nothing stands out in 3 runs; 7 rules looked."

    def test_no_runs(self) -> None:
        runs = sweep(3, 0).clear()
        assert insights(experiment(runs)).found == ()

    def test_of_constant_results(self) -> None:
        assert insights(experiment(sweep(40, 0).with_columns(loss=pl.lit(1.0)))).found == ()


def share_of(rule: Callable[[Experiment], Finding], made: Callable[[int], Experiment], n: int, told: str = "") -> float:
    findings = [rule(made(seed)) for seed in range(n)]
    return sum(isinstance(one, Insight) and told in one.text for one in findings) / n


def with_noise(seed: int) -> Experiment:
    return experiment(sweep(30, seed))


def with_chance_divergence(seed: int) -> Experiment:
    gone = np.random.default_rng(seed + 10**6).random(40) < 0.3
    return experiment(sweep(40, seed).with_columns(loss=pl.Series(np.where(gone, NAN, 1.0))))


def with_equal_speeds(seed: int) -> Experiment:
    rng = np.random.default_rng(seed)
    return experiment(pl.DataFrame({
        "run_id": [f"r{i}" for i in range(20)], "lr": np.repeat([0.1, 0.2, 0.3, 0.4], 5), "gpu": ["A100"] * 20,
        "steps_per_s": np.exp(rng.normal(3, 0.4, 20)), "loss": rng.normal(size=20),
    }))  # fmt: skip


def with_level_curves(seed: int) -> Experiment:
    rng = np.random.default_rng(seed)
    series = {f"r{i}": rng.normal(1, 0.1, 100) for i in range(4)}
    saved = pl.DataFrame({"run_id": np.repeat(list(series), 10), "step": [*range(9, 100, 10)] * 4})
    return experiment(runs_of(list(series)), curves=curves(series), checkpoints=saved)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("rule", "made", "told", "low", "high"),
    [
        (visible_effects, with_noise, "", 0.04, 0.06),
        (diverged_runs, with_chance_divergence, " others (p", 0.0, 0.06),
        (slow_runs, with_equal_speeds, "", 0.0, 0.06),
        (better_checkpoint, with_level_curves, "", 0.04, 0.06),
        (stopped_early, with_level_curves, "", 0.0, 0.06),
    ],
    ids=["effects", "divergence", "speed", "checkpoints", "budget"],
)
def test_chance_is_rarely_an_insight(
    rule: Callable[[Experiment], Finding], made: Callable[[int], Experiment], told: str, low: float, high: float
) -> None:
    assert low <= share_of(rule, made, 2000, told) <= high


def sweep_where_batch_size_explains(share: float, n: int, seed: int) -> pl.DataFrame:
    """Return a sweep over lr, which does nothing, and the batch size, which explains that share of the variance."""
    runs = sweep(n, seed).select("run_id", "lr", "batch_size", "loss")
    rise = (pl.col("batch_size").log(2) - 6.5) / np.sqrt(1.25)  # four sizes as often, so that its variance is one
    return runs.with_columns(loss=pl.col("loss") + rise * np.sqrt(share / (1 - share)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_large_effect_is_rarely_called_none() -> None:
    """The rule speaks of ranks, of which an effect explains a little less than of values."""
    many = sweep_where_batch_size_explains(0.15, 200_000, 0)
    sizes = np.unique(many["batch_size"].to_numpy(), return_inverse=True)[1]
    assert explained_by(stats.rankdata(many["loss"].to_numpy()), sizes, level=0.95)[0] >= 0.14
    n_said, n_sweeps = {0.0: 0, 0.15: 0}, 2000
    for share in n_said:
        for seed in range(n_sweeps):
            found = no_visible_effect(experiment(sweep_where_batch_size_explains(share, 100, seed)))
            n_said[share] += isinstance(found, Insight) and "batch_size" in found.evidence["param"]
    assert n_said[0.15] <= 0.05 * n_sweeps
    assert n_said[0.0] >= 0.8 * n_sweeps


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_bound_of_an_effect_holds_as_often_as_it_says() -> None:
    """Values around group means that explain 14 % of the variance, with as many runs in each group."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 25)
    means = np.array([-1.0, -0.5, 0.5, 1.0])
    means *= np.sqrt(0.14 / 0.86 / np.mean(means**2))
    found = [explained_by(rng.normal(means[groups]), groups, level=0.95)[2] >= 0.14 for _ in range(2000)]
    assert 0.93 <= np.mean(found) <= 0.97


def test_params_with_the_names_of_figures_keep_theirs() -> None:
    rng = np.random.default_rng(0)
    runs = pl.DataFrame({"n": [8, 8, 8, 16, 16, 16], "mean": [1] * 3 + [2] * 3, "loss": rng.normal(size=6)})
    runs = runs.with_columns(run_id=pl.Series([f"r{i}" for i in range(6)]))
    asked = Experiment(runs=runs, metric="loss", direction="min", params=("n", "mean"))
    assert "params.n=8, params.mean=1" in insight(within_seed_noise(asked)).text
