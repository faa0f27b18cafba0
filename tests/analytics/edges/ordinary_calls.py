"""One ordinary call of every public function of the analysis, cheap enough to be repeated with odd arguments."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from ckptlake.analytics import forecasts, insight, statistics, trends
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts import calibrate
from ckptlake.analytics.frames import Sample
from ckptlake.analytics.insight import Experiment
from ckptlake.analytics.trends import verdicts

PACKAGES = ("comparison", "curves", "forecasts", "insight", "statistics", "trends")

_RNG = np.random.default_rng(0)
_N = 24
A, B = _RNG.normal(3.0, 0.1, 6), _RNG.normal(3.2, 0.1, 6)
STEPS = np.arange(1.0, _N + 1)
RUNS = pl.DataFrame(
    {
        "run_id": [f"r{place}" for place in range(_N)],
        "lr": [0.1, 0.2] * (_N // 2),
        "width": [64, 64, 128, 256] * (_N // 4),
        "task": ["x", "x", "y", "y"] * (_N // 4),
        "seed": [place // 2 for place in range(_N)],
        "loss": _RNG.normal(3.0, 0.1, _N),
        "time": _RNG.uniform(1, 9, _N),
    }
)


def a_curve(label: str, shift: float = 0.0, n: int = _N) -> Curve:
    rng = np.random.default_rng(round(1000 * shift))
    steps = np.arange(1.0, n + 1)
    return Curve.of(label, steps, 3 + shift + 1 / np.sqrt(steps) + rng.normal(0, 0.01, n))


def several(name: str, shift: float = 0.0) -> list[Curve]:
    return [a_curve(f"{name}{place}", shift + place / 50) for place in range(4)]


POINTS = pl.DataFrame(
    {
        "run_id": np.repeat(["r0", "r1", "r2"], _N),
        "lr": np.repeat([0.1, 0.1, 0.2], _N),
        "step": np.tile(STEPS, 3),
        "value": np.concatenate([a_curve("", place / 10).values for place in range(3)]),
    }
)
TIMES = POINTS.with_columns(timestamp=pl.lit(datetime(2026, 1, 1)) + pl.col("step") * timedelta(seconds=1))
LIVE = a_curve("live", n=12)
DONE = [a_curve(f"done{place}", place / 20) for place in range(6)]


def mean(drawn: np.ndarray) -> Any:
    return drawn.mean(axis=-1)


def calls() -> dict[str, dict[str, Any]]:
    """Return arguments of each public function, by its package and name."""
    pair, three = {"first": A, "second": B}, [A, B, A + 0.3]
    blocks = {"blocks": np.column_stack([A, B, A + 0.3])}
    scored = {"frame": RUNS, "value": "loss", "by": "lr", "task": "task"}
    of_params = {"runs": RUNS.drop("time"), "result": "loss", "params": ["lr", "width"]}
    known = calibrate(DONE)
    experiment = Experiment(
        runs=RUNS, metric="loss", direction="min", params=("lr", "width", "seed"), curves=POINTS,
        checkpoints=POINTS.select("run_id", "step").filter(pl.col("step") % 6 == 0),
    )  # fmt: skip
    return {
        "comparison.against": {"runs": RUNS, "target": 3.1, "value": "loss"},
        "comparison.anova": {"samples": three},
        "comparison.block_anova": blocks,
        "comparison.block_permutation": blocks,
        "comparison.bootstrap_t": {"values": A},
        "comparison.choose": {"sizes": [6, 6]},
        "comparison.cliffs_delta": pair,
        "comparison.compare": {"frame": RUNS, "value": "loss", "by": "lr"},
        "comparison.differences": {"frame": RUNS, "value": "loss"},
        "comparison.dunn": {"samples": three},
        "comparison.equivalent": {"frame": RUNS, "value": "loss", "by": "lr", "margin": 0.2},
        "comparison.friedman": blocks,
        "comparison.front_of": {"costs": np.column_stack([A, B])},
        "comparison.games_howell": {"samples": three},
        "comparison.hedges_g": pair,
        "comparison.kolmogorov_smirnov": pair,
        "comparison.kruskal": {"samples": three},
        "comparison.mann_whitney": pair,
        "comparison.nemenyi": blocks,
        "comparison.one_sample_t": {"values": A},
        "comparison.paired_hedges_g": pair,
        "comparison.paired_t": pair,
        "comparison.pareto": {"frame": RUNS, "objectives": {"loss": "min", "time": "max"}},
        "comparison.permutation_anova": {"samples": three},
        "comparison.permutation_test": pair,
        "comparison.posterior": pair,
        "comparison.rank_variance_shares": {"ranks": np.arange(1.0, 7.0), "codes": np.array([0, 0, 1, 1, 2, 2])},
        "comparison.ratio_of_means": pair,
        "comparison.sign_flip": {"differences": A - B},
        "comparison.tukey_hsd": {"samples": three},
        "comparison.vargha_delaney": pair,
        "comparison.welch_anova": {"samples": three},
        "comparison.welch_t": pair,
        "comparison.wilcoxon": pair,
        "curves.align": {"curves": several("a"), "grid": STEPS[:6]},
        "curves.areas_under": {"curves": several("a")},
        "curves.band": {"curves": several("a"), "n_resamples": 100},
        "curves.compare_times": {
            "groups": {"a": several("a"), "b": several("b", 0.3)}, "threshold": 3.5, "direction": "min",
        },
        "curves.curve_groups": {"frame": POINTS, "by": "lr"},
        "curves.elapsed": {"frame": TIMES},
        "curves.first_better": {
            "first": several("a"), "second": several("b", 0.3), "direction": "min", "n_resamples": 100,
        },
        "curves.first_reached": {"curve": a_curve("a"), "threshold": 3.5, "direction": "min"},
        "curves.rescale": {
            "curves": several("a"), "by": [Curve.of(f"a{place}", STEPS, 100 * STEPS) for place in range(4)],
        },
        "curves.time_to_threshold": {"curves": several("a"), "threshold": 3.5, "direction": "min"},
        "forecasts.calibrate": {"finished": DONE},
        "forecasts.forecast": {"curve": LIVE, "horizon": 24.0, "calibration": known},
        "forecasts.forecast_beside": {"curve": LIVE, "others": DONE, "horizon": 24.0},
        "forecasts.forecast_many": {"curves": [LIVE, a_curve("other", n=10)], "horizon": 24.0, "calibration": known},
        "forecasts.forecast_series": {"curve": LIVE, "horizon": 24.0},
        "forecasts.forecast_step": {"curve": LIVE, "target": 3.1, "horizon": 24.0, "calibration": known},
        "forecasts.should_stop": {"curve": LIVE, "others": DONE, "horizon": 24.0},
        "insight.fanova_importance": of_params | {"draws": 2},
        "insight.insights": {"experiment": experiment},
        "insight.interactions": of_params | {"draws": 19},
        "insight.ped_anova_importance": of_params | {"direction": "min", "draws": 2},
        "insight.permutation_importance": of_params | {"draws": 20, "repeats": 1},
        "insight.response": of_params | {"param": "lr", "draws": 2, "points": 3},
        "insight.space_of": {"runs": RUNS, "params": ["lr", "width"]},
        "insight.suggestions": of_params | {"direction": "min", "k": 1},
        "insight.unexplored_regions": {"runs": RUNS, "params": ["lr", "width"], "k": 1, "draws": 19},
        "statistics.adjusted": {"p_values": [0.01, 0.2, 0.04]},
        "statistics.bca_interval": {"values": A, "statistic": mean, "resamples": 50},
        "statistics.correlation_interval": {"correlation": 0.5, "n": 20, "coefficient": "pearson"},
        "statistics.correlations": {"frame": RUNS.select("lr", "loss", "time")},
        "statistics.equal_variances": {"samples": [Sample("a", A), Sample("b", B)]},
        "statistics.group_by_all_except": {
            "frame": RUNS.select("lr", "width", "seed"), "except_": "seed", "params": ["lr", "width", "seed"],
        },
        "statistics.normality": {"sample": Sample("a", A)},
        "statistics.outliers": {"frame": RUNS, "value": "loss", "by": "lr"},
        "statistics.over_tasks": scored | {"resamples": 50},
        "statistics.percentile_interval": {"values": A, "statistic": mean, "resamples": 50},
        "statistics.performance_profiles": scored | {"direction": "min", "thresholds": [2.9, 3.0, 3.1]},
        "statistics.probability_above": pair,
        "statistics.probability_of_improvement": scored | {"direction": "min", "first": 0.1, "second": 0.2},
        "statistics.profile_of": {"pooled": A, "thresholds": B},
        "statistics.readings": {"frame": POINTS},
        "statistics.resampled": {"values": A, "statistic": mean, "resamples": 50},
        "statistics.seeds_for_power": {"difference": 0.1, "std_first": 0.1},
        "statistics.seeds_needed": {"frame": RUNS, "value": "loss", "by": "lr", "difference": 0.1},
        "statistics.stratified": {"strata": [A, B], "statistic": mean, "resamples": 50},
        "statistics.summarise": {"frame": RUNS, "value": "loss", "by": "lr"},
        "statistics.summary": {"values": Sample("a", A)},
        "statistics.welch_power": {"n": 10, "difference": 0.1, "std_first": 0.1},
        "trends.alarm_rate": {"found": verdicts(POINTS, "min")},
        "trends.change_points": {"curve": a_curve("a")},
        "trends.ema": {"curve": a_curve("a"), "half_life": 3.0},
        "trends.lowess": {"curve": a_curve("a"), "share": 0.5},
        "trends.overfitting": {"train": a_curve("a"), "val": a_curve("a", 0.1), "direction": "min"},
        "trends.rolling_median": {"curve": a_curve("a"), "window": 3},
        "trends.savitzky_golay": {"curve": a_curve("a"), "window": 5},
        "trends.slope": {"curve": a_curve("a")},
        "trends.stalls": {"curve": Curve.of("a", STEPS, STEPS * 2)},
        "trends.verdict": {"curve": a_curve("a"), "direction": "min"},
        "trends.verdicts": {"frame": POINTS, "direction": "min"},
    }  # fmt: skip


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every function that a package of the analysis exports, with its package."""
    for package in PACKAGES:
        module = importlib.import_module(f"ckptlake.analytics.{package}")
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isfunction(found):
                yield f"{package}.{name}", found


def policies() -> dict[str, tuple[Callable[..., Any], dict[str, Any], Callable[[Any], Any]]]:
    """Return what is made before a call: how, with which arguments, and a call that uses it."""
    sample = Sample("a", np.append(_RNG.normal(size=19), 9.0))
    tasks = {"frame": RUNS, "value": "loss", "by": "lr", "task": "task", "resamples": 50}

    def summed(interval: Any) -> Any:
        return statistics.summary(sample, interval=interval)

    def judged(rule: Any) -> Any:
        return rule.distances(sample)

    def read(at: Any) -> Any:
        return statistics.readings(POINTS, at)

    return {
        "forecasts.Decay": (
            forecasts.Decay, {"kind": "cosine"}, lambda made: forecasts.forecast(LIVE, 24.0, schedule=made)
        ),
        "insight.Experiment": (
            insight.Experiment,
            {
                "runs": RUNS.drop("time"), "metric": "loss", "direction": "min", "params": ("lr", "width", "seed"),
                "curves": POINTS.drop("lr"), "checkpoints": POINTS.select("run_id", "step"), "speed": "lr",
                "device": "task",
            },
            insight.insights,
        ),
        "statistics.AtStep": (statistics.AtStep, {"step": 3.0}, read),
        "statistics.BCa": (statistics.BCa, {"resamples": 50}, summed),
        "statistics.Best": (statistics.Best, {"direction": "min"}, read),
        "statistics.GeneralisedESD": (statistics.GeneralisedESD, {}, judged),
        "statistics.Grubbs": (statistics.Grubbs, {}, judged),
        "statistics.MeanOfLast": (statistics.MeanOfLast, {"k": 3}, read),
        "statistics.MedianDeviation": (statistics.MedianDeviation, {}, judged),
        "statistics.OptimalityGap": (
            statistics.OptimalityGap, {}, lambda made: statistics.over_tasks(**tasks, figure=made)
        ),
        "statistics.Percentile": (statistics.Percentile, {"resamples": 50}, summed),
        "statistics.StudentT": (statistics.StudentT, {}, summed),
        "trends.Limits": (trends.Limits, {}, lambda made: trends.verdict(a_curve("a"), "min", limits=made)),
    }  # fmt: skip
