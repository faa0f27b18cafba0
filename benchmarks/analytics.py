"""Statistics, trends and forecasts of many runs, against the same by libraries called in a loop."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, stats

from benchmarks.harness import Context, Row, Target, Timing, interleave
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts import forecast
from ckptlake.analytics.statistics import Percentile, summarise
from ckptlake.analytics.trends import verdicts

_RESAMPLES = 10_000


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    return [_bootstrap(context), _trends(context), _forecast(context)]


def _bootstrap(context: Context) -> Row:
    configurations, seeds = context.scaled(200, 10), 10
    values = np.random.default_rng(0).normal(size=(configurations, seeds))
    frame = pl.DataFrame({"lr": np.repeat(np.arange(configurations), seeds), "loss": values.ravel()})

    def by_scipy() -> None:
        for row in values:
            stats.bootstrap((row,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=0)

    method = Percentile(resamples=_RESAMPLES)
    timings = interleave(
        context.scaled(3, 1), ours=lambda: summarise(frame, "loss", "lr", interval=method), scipy=by_scipy
    )
    what = f"summaries of {configurations} configurations of {seeds} seeds, {_RESAMPLES:,} resamples each"
    return _seconds(what, timings["ours"], timings["scipy"], "scipy.stats.bootstrap of each mean alone", 2)


def _trends(context: Context) -> Row:
    runs, points = context.scaled(1000, 20), context.scaled(1000, 200)
    curves = _losses(runs, points)
    frame = pl.DataFrame(
        {
            "run_id": np.repeat([f"run {number}" for number in range(runs)], points),
            "step": np.tile(np.arange(points), runs),
            "value": curves.ravel(),
        }
    )

    def by_scipy() -> None:
        for values in curves[: runs // 20]:
            stats.theilslopes(values)

    timings = interleave(context.scaled(3, 1), ours=lambda: verdicts(frame, "min"), scipy=by_scipy)
    what = f"what {runs:,} curves of {points:,} points did, and since when"
    return _seconds(what, timings["ours"], timings["scipy"], f"scipy.stats.theilslopes of {runs // 20:,} of them", 5)


def _forecast(context: Context) -> Row:
    curve = Curve.of("run", np.arange(500.0), _losses(1, 500)[0])

    def by_scipy() -> None:
        with warnings.catch_warnings(action="ignore"):
            optimize.curve_fit(_power_law, curve.steps + 1, curve.values, p0=(3.0, 1.0, 0.5), maxfev=20_000)

    timings = interleave(context.scaled(20, 2), ours=lambda: forecast(curve, 1000.0), scipy=by_scipy)
    return Row(
        what="a forecast from 500 points, without a calibration",
        figure=timings["ours"].wall_ms,
        unit="ms",
        reference=timings["scipy"].wall_ms,
        against="ms: scipy.optimize.curve_fit of one power law",
        target=Target("at most", 50),
        details=timings["ours"].details(),
    )


def _losses(runs: int, points: int) -> NDArray[np.float64]:
    """Return curves as those of a language model in training: a power law, noise, some with spikes or a rising end."""
    random = np.random.default_rng(1)
    steps = np.arange(points) + 1
    ends, powers = random.uniform(2.5, 3.5, (runs, 1)), random.uniform(0.2, 0.6, (runs, 1))
    losses = ends + 6 * steps**-powers + random.normal(scale=0.02, size=(runs, points))
    losses[::10, points // 2 : points // 2 + 5] += 3
    losses[5::10] += np.maximum(steps - points * 0.8, 0) / points * 4
    return losses


def _power_law(steps: NDArray[np.float64], end: float, scale: float, power: float) -> NDArray[np.float64]:
    return end + scale * steps**-power


def _seconds(what: str, ours: Timing, reference: Timing, against: str, most_s: float) -> Row:
    return Row(
        what=what,
        figure=ours.wall_ms / 1e3,
        unit="s",
        reference=reference.wall_ms / 1e3,
        against=f"s: {against}",
        target=Target("at most", most_s),
        details=ours.details(),
    )
