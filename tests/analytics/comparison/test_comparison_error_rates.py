"""How often a comparison is wrong where the truth is known: false positives and coverage, by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy import stats

from ckptlake.analytics.comparison import (
    bootstrap_t,
    cliffs_delta,
    compare,
    equivalent,
    games_howell,
    hedges_g,
    one_sample_t,
    paired_hedges_g,
    permutation_test,
    ratio_of_means,
    sign_flip,
    tukey_hsd,
    vargha_delaney,
    welch_t,
)

SIMULATIONS = 2000
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
LAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.lognormal(sigma=1.0, size=shape),
}


def frame_of(table: np.ndarray) -> pl.DataFrame:
    """Return runs of configurations in rows and seeds in columns."""
    k, n = table.shape
    return pl.DataFrame({"lr": np.repeat(np.arange(k), n), "seed": np.tile(np.arange(n), k), "loss": table.ravel()})


def share(found: list[bool]) -> float:
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("law", LAWS)
def test_two_alike_are_told_apart_as_often_as_promised(law: str, n: int) -> None:
    rng = np.random.default_rng(n)
    told, covered = [], []
    for _ in range(SIMULATIONS):
        found = compare(frame_of(LAWS[law](rng, (2, n))), "loss", by="lr")
        assert found.p_value is not None
        assert found.interval is not None
        told.append(found.p_value < 0.05)
        covered.append(0.0 in found.interval)
    assert 0.04 <= share(told) <= 0.06
    assert 0.94 <= share(covered) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("law", LAWS)
def test_paired_ones_too(law: str, n: int) -> None:
    """With five or six pairs the choice is the t test, right for normal differences and cautious for long tails."""
    rng = np.random.default_rng(n)
    told = []
    for _ in range(SIMULATIONS):
        seeds = rng.normal(size=n)  # what a seed does to every configuration
        found = compare(frame_of(LAWS[law](rng, (2, n)) + seeds), "loss", by="lr", pair_by="seed")
        assert found.p_value is not None
        told.append(found.p_value < 0.05)
    assert (0.02 if law == "skewed" and n < 7 else 0.04) <= share(told) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(5, 3), (10, 4)])
@pytest.mark.parametrize("law", LAWS)
def test_many_alike_are_told_apart_as_often_as_promised(law: str, n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    told, any_pair = [], []
    for _ in range(SIMULATIONS):
        found = compare(frame_of(LAWS[law](rng, (k, n))), "loss", by="lr")
        assert found.p_value is not None
        told.append(found.p_value < 0.05)
        any_pair.append(min(found.pairs["p_adjusted"]) < 0.05)
    assert 0.04 <= share(told) <= 0.06
    assert share(any_pair) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 8)])
def test_unequal_variances_matter_little_to_a_test_of_means(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    told = [
        permutation_test(rng.normal(size=n), 3 * rng.normal(size=m), seed=1).p_value < 0.05  # type: ignore[operator]
        for _ in range(SIMULATIONS)
    ]
    assert 0.04 <= share(told) <= 0.06


@pytest.mark.slow
def test_but_few_runs_of_unequal_variances_are_told_apart_slightly_too_often() -> None:
    """As documented: exact only where distributions are alike; here Welch's t is right and rearranging is not quite."""
    rng = np.random.default_rng(10)
    by_permutation, by_t = [], []
    for _ in range(2 * SIMULATIONS):
        one, other = rng.normal(size=10), 3 * rng.normal(size=10)
        by_permutation.append(permutation_test(one, other).p_value < 0.05)  # type: ignore[operator]
        by_t.append(welch_t(one, other).p_value < 0.05)  # type: ignore[operator]
    assert 0.05 < share(by_permutation) < 0.075
    assert 0.04 <= share(by_t) <= 0.06


def test_the_interval_of_a_permutation_test_covers_a_skewed_difference() -> None:
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(SIMULATIONS // 4):
        interval = permutation_test(rng.lognormal(size=6) + 2.0, rng.lognormal(size=6)).interval
        assert interval is not None
        covered.append(2.0 in interval)
    assert 0.93 <= share(covered) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_sign_flips_cover_the_difference_of_pairs(law: str) -> None:
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(SIMULATIONS):
        interval = sign_flip(LAWS[law](rng, (10,)) - LAWS[law](rng, (10,)) + 0.5).interval
        assert interval is not None
        covered.append(0.5 in interval)
    assert 0.93 <= share(covered) <= 0.97


def coverage(interval_of: Callable[[np.random.Generator], tuple[float, float]], truth: float) -> float:
    rng = np.random.default_rng(11)
    intervals = [interval_of(rng) for _ in range(SIMULATIONS)]
    return share([low <= truth <= high for low, high in intervals])


def ends(found: object) -> tuple[float, float]:
    interval = found.interval  # type: ignore[attr-defined]
    return interval.low, interval.high


class TestEffectSizes:
    @pytest.mark.slow
    @pytest.mark.parametrize("delta", [0.0, 1.5])
    def test_hedges_g(self, delta: float) -> None:
        sampled = lambda rng: ends(hedges_g(rng.normal(size=6) + delta, rng.normal(size=9)))  # noqa: E731
        assert 0.93 <= coverage(sampled, delta) <= 0.97

    @pytest.mark.slow
    def test_hedges_g_of_pairs(self) -> None:
        sampled = lambda rng: ends(paired_hedges_g(rng.normal(size=8) + 1.0, np.zeros(8)))  # noqa: E731
        assert 0.93 <= coverage(sampled, 1.0) <= 0.97

    def test_hedges_g_has_no_bias(self) -> None:
        rng = np.random.default_rng(1)
        values = rng.normal(size=(20_000, 2, 4)) + np.array([[[1.0], [0.0]]])
        pooled = np.sqrt(values.var(axis=2, ddof=1).mean(axis=1))
        crude = (values[:, 0].mean(axis=1) - values[:, 1].mean(axis=1)) / pooled
        one = hedges_g(values[0, 0], values[0, 1]).value
        assert crude.mean() > 1.1
        assert crude.mean() * one / crude[0] == pytest.approx(1.0, abs=0.02)

    @pytest.mark.slow
    @pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
    def test_a12_and_cliffs_delta(self, shift: float) -> None:
        truth = float(stats.norm.cdf(shift / np.sqrt(2)))
        sampled = lambda rng: ends(vargha_delaney(rng.normal(size=10) + shift, rng.normal(size=12)))  # noqa: E731
        assert 0.93 <= coverage(sampled, truth) <= 0.97
        doubled = lambda rng: ends(cliffs_delta(rng.normal(size=10) + shift, rng.normal(size=12)))  # noqa: E731
        assert 0.93 <= coverage(doubled, 2 * truth - 1) <= 0.97

    def test_the_ratio_of_means(self) -> None:
        sampled = lambda rng: ends(ratio_of_means(rng.normal(6, 1, 8), rng.normal(4, 0.5, 6)))  # noqa: E731
        assert 0.93 <= coverage(sampled, 1.5) <= 0.97


class TestAgainstATarget:
    @pytest.mark.slow
    @pytest.mark.parametrize("alpha", [0.05, 0.01])
    def test_t_of_normal_values(self, alpha: float) -> None:
        rng = np.random.default_rng(2)
        p = [one_sample_t(rng.normal(size=6), alternative="less").p_value for _ in range(5 * SIMULATIONS)]
        assert 0.8 * alpha <= share([found < alpha for found in p if found is not None]) <= 1.2 * alpha

    @pytest.mark.slow
    def test_sign_flips_of_symmetric_values(self) -> None:
        rng = np.random.default_rng(2)
        p = [sign_flip(rng.standard_t(3, size=9), alternative="less").p_value for _ in range(SIMULATIONS)]
        assert 0.04 <= share([found < 0.05 for found in p if found is not None]) <= 0.06

    @pytest.mark.slow
    def test_the_bootstrap_bears_skewed_values_better_than_t(self) -> None:
        """A long tail above the mean: a t test finds the mean below it far too often, the bootstrap less so.

        Neither keeps 5 %: no test of one mean does for few skewed values, and the documentation says so.
        """
        rng = np.random.default_rng(2)
        rates = []
        for test in (one_sample_t, bootstrap_t):
            found = [
                test(rng.exponential(size=20), against=1.0, alternative="less").p_value for _ in range(SIMULATIONS)
            ]
            rates.append(share([p < 0.05 for p in found if p is not None]))
        by_t, by_bootstrap = rates
        assert by_t > 0.1
        assert 0.06 < by_bootstrap < 0.09


@pytest.mark.slow
def test_what_differs_by_the_margin_is_called_equivalent_as_often_as_promised() -> None:
    rng = np.random.default_rng(4)
    found = [
        equivalent(
            frame_of(rng.normal(size=(2, 30)) + np.array([[1.0], [0.0]])), "loss", by="lr", margin=1.0
        ).is_equivalent
        for _ in range(5 * SIMULATIONS)
    ]
    assert 0.04 <= share(found) <= 0.06


@pytest.mark.slow
def test_joint_intervals_hold_jointly() -> None:
    rng = np.random.default_rng(6)
    truth = np.array([0.0, 0.5, 2.0])
    held: dict[str, list[bool]] = {"tukey": [], "games-howell": []}
    for _ in range(SIMULATIONS):
        samples = [rng.normal(mean, 1.0, 6) for mean in truth]
        inside = [pair.interval is not None and truth[i] - truth[j] in pair.interval
                  for (i, j), pair in tukey_hsd(samples).items()]  # fmt: skip
        held["tukey"].append(all(inside))
        # An interval holds what its p-value does not refuse; to ask for the p-value alone is quicker.
        uneven = [rng.normal(0.0, scale, 10) for scale in (0.5, 1.0, 2.0)]
        held["games-howell"].append(all((pair.p_value or 0.0) >= 0.05 for pair in games_howell(uneven).values()))
    assert 0.93 <= share(held["tukey"]) <= 0.97
    assert 0.93 <= share(held["games-howell"]) <= 0.97


def test_welch_covers_normal_differences_of_unequal_variances() -> None:
    sampled = lambda rng: ends(welch_t(rng.normal(1, 1, 8), rng.normal(0, 3, 12)))  # noqa: E731
    assert 0.93 <= coverage(sampled, 1.0) <= 0.97
