"""Comparisons as users ask for them: of frames of runs, with diverged, missing and single runs among them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.charts import Chart
from ckptlake.analytics.comparison import (
    against,
    choose,
    compare,
    differences,
    equivalent,
    front_of,
    pareto,
    posterior,
    rank_variance_shares,
)
from ckptlake.analytics.comparison.chooser import FITTING
from ckptlake.analytics.frames import Sample
from ckptlake.analytics.results import Result
from ckptlake.errors import InvalidInputError, NotEnoughDataError

SPEEDRUN = Path(__file__).resolve().parents[3] / "../shared/data/speedrun.parquet"


def runs(means: dict[float, float], n: int = 8, sd: float = 0.01, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        {"lr": lr, "seed": at, "loss": mean + sd * float(rng.normal())} for lr, mean in means.items() for at in range(n)
    ]
    return pl.DataFrame(rows)


def diverged(frame: pl.DataFrame, lr: float, seeds: int) -> pl.DataFrame:
    hit = (pl.col("lr") == lr) & (pl.col("seed") < seeds)
    return frame.with_columns(pl.when(hit).then(float("nan")).otherwise("loss").alias("loss"))


def drawn(chart: Chart) -> str:
    return vl_convert.vegalite_to_svg(json.dumps(chart.spec, allow_nan=False), vl_version="5.20")


TWO, FOUR = runs({0.1: 3.27, 0.2: 3.30}), runs({0.1: 3.27, 0.2: 3.30, 0.3: 3.275, 0.5: 3.40})


class TestTwo:
    def test_the_sentence_tells_it_all(self) -> None:
        found = compare(TWO, "loss", by="lr", unit="nats")
        text = found.sentence()
        assert text.startswith("lr=0.1 has the lower loss: 3.2")
        for part in (
            " against 3.29",
            "nats, a difference of 0.0",
            "95 % interval",
            "permutation of Welch's t, p < 0.001",
        ):
            assert part in text
        assert "Hedges g -" in text
        assert "probability of the better mean" in text
        assert found.interval is not None
        assert found.difference is not None
        assert found.interval.high < 0 < -found.difference

    def test_direction_turns_it(self) -> None:
        low, high = compare(TWO, "loss", by="lr"), compare(TWO, "loss", by="lr", direction="max")
        assert (low.best, high.best) == ("lr=0.1", "lr=0.2")
        assert low.difference == pytest.approx(-(high.difference or 0.0))
        assert low.p_value == high.p_value
        assert low.p_better == pytest.approx(high.p_better)
        assert low.effect is not None
        assert high.effect is not None
        assert low.effect.value == pytest.approx(-high.effect.value)
        assert "higher loss" in high.sentence()

    def test_order_of_rows_does_not_matter(self) -> None:
        found, turned = compare(TWO, "loss", by="lr"), compare(TWO.reverse(), "loss", by="lr")
        assert (found.best, turned.best) == ("lr=0.1", "lr=0.1")
        assert found.p_value == pytest.approx(turned.p_value, abs=0.002)
        assert found.interval is not None
        assert turned.interval is not None
        assert found.interval.low == pytest.approx(turned.interval.low, abs=1e-3)

    def test_no_difference_is_said_so(self) -> None:
        found = compare(runs({0.1: 3.27, 0.2: 3.27}, seed=1), "loss", by="lr")
        assert found.sentence().startswith("No difference in loss can be told between lr=0.")
        assert found.told_apart == ()

    @pytest.mark.parametrize("test", ["permutation", "welch", "mann-whitney", "kolmogorov-smirnov"])
    def test_forced_tests_are_taken(self, test: Any) -> None:
        found = compare(TWO, "loss", by="lr", test=test)
        one, other = (TWO.filter(pl.col("lr") == lr)["loss"].to_numpy() for lr in (0.1, 0.2))
        expected = {
            "welch": stats.ttest_ind(one, other, equal_var=False).pvalue,
            "mann-whitney": stats.mannwhitneyu(one, other).pvalue,
            "kolmogorov-smirnov": stats.ks_2samp(one, other).pvalue,
        }
        assert found.why == "as asked for"
        if test in expected:
            assert found.p_value == pytest.approx(expected[test])

    @pytest.mark.parametrize("test", ["sign-flip", "paired-t", "wilcoxon"])
    def test_pairs_by_seed_take_what_seeds_do_away(self, test: Any) -> None:
        hard = TWO.with_columns(pl.col("loss") + 5.0 * pl.col("seed")).sample(fraction=1.0, shuffle=True, seed=3)
        alone, paired = compare(hard, "loss", by="lr"), compare(hard, "loss", by="lr", pair_by="seed", test=test)
        assert alone.p_value is not None
        assert paired.p_value is not None
        assert paired.p_value < 0.05 < alone.p_value
        assert paired.n == 8

    def test_incomplete_pairs_are_told(self) -> None:
        found = compare(TWO.filter(~((pl.col("lr") == 0.2) & (pl.col("seed") < 1))), "loss", by="lr", pair_by="seed")
        assert "1 of the values of seed are not in every configuration" in found.sentence()
        assert found.n == 7

    def test_a_repeated_pair_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match=r"lr=0.1 has more than one run with seed=0"):
            compare(pl.concat([TWO, TWO]), "loss", by="lr", pair_by="seed")


class TestMany:
    @pytest.mark.parametrize("test", [None, "permutation", "welch", "anova", "kruskal"])
    def test_the_best_is_told_from_the_worse(self, test: Any) -> None:
        found = compare(FOUR, "loss", by="lr", test=test)
        assert (found.best, found.second) == ("lr=0.1", "lr=0.3")
        assert "lr=0.5" in found.told_apart
        assert "lr=0.3" not in found.told_apart
        assert found.pairs.height == 6
        assert found.p_value is not None
        assert found.p_value < 0.001
        assert "of 4 configurations" in found.sentence()

    @pytest.mark.parametrize("test", [None, "paired-t", "friedman"])
    def test_paired_too(self, test: Any) -> None:
        hard = FOUR.with_columns(pl.col("loss") + 5.0 * pl.col("seed"))
        found = compare(hard, "loss", by="lr", pair_by="seed", test=test)
        assert "lr=0.5" in found.told_apart
        assert (found.critical is not None) == (test == "friedman")

    def test_corrections(self) -> None:
        raw = compare(FOUR, "loss", by="lr").pairs
        bonferroni = compare(FOUR, "loss", by="lr", correction="bonferroni").pairs
        assert bonferroni["p_adjusted"].to_list() == pytest.approx([min(6 * p, 1.0) for p in raw["p_value"]])
        assert (raw["p_adjusted"] <= bonferroni["p_adjusted"] + 1e-12).all()

    def test_joint_intervals_agree_with_bonferroni(self) -> None:
        pairs = compare(FOUR, "loss", by="lr", correction="bonferroni").pairs
        for row in pairs.iter_rows(named=True):
            assert (row["low"] <= 0.0 <= row["high"]) == (row["p_adjusted"] >= 0.05)

    def test_names_must_tell_configurations_apart(self) -> None:
        frame = pl.DataFrame({"lr": ["None", None], "loss": [1.0, 2.0]})
        with pytest.raises(InvalidInputError, match="both called 'lr=None'"):
            compare(frame, "loss", by="lr")

    def test_too_many_configurations_are_refused(self) -> None:
        frame = pl.DataFrame({"lr": range(101), "loss": [1.0] * 101})
        with pytest.raises(InvalidInputError, match="101 configurations by lr"):
            compare(frame, "loss", by="lr")


class TestDivergedRuns:
    def test_they_are_told_first_and_count_as_the_worst(self) -> None:
        frame = diverged(runs({0.1: 3.27, 0.2: 3.27}, seed=1), 0.2, 6)
        found = compare(frame, "loss", by="lr")
        assert found.sentence().startswith("6 of 8 runs of lr=0.2 diverged (NaN or infinite loss).")
        assert found.best == "lr=0.1"
        assert found.method.startswith("Mann-Whitney")
        assert found.p_value is not None
        assert found.p_value < 0.05
        assert "means of runs that finished" in found.sentence()
        assert found.table["n_diverged"].to_list() == [0, 6]
        assert compare(frame, "loss", by="lr", direction="max").best == "lr=0.1"

    def test_all_of_a_configuration(self) -> None:
        found = compare(diverged(TWO, 0.1, 8), "loss", by="lr")
        assert (found.best, found.difference) == ("lr=0.2", None)
        assert "lr=0.1 has none" in found.sentence()
        assert found.p_value is not None
        assert found.p_value < 0.01
        drawn(found.chart())

    @pytest.mark.parametrize("pair_by", [None, "seed"])
    def test_among_many(self, pair_by: str | None) -> None:
        found = compare(diverged(FOUR, 0.1, 4), "loss", by="lr", pair_by=pair_by)
        assert found.is_ranked
        assert found.best != "lr=0.1"
        assert found.sentence().startswith("4 of 8 runs of lr=0.1 diverged")

    def test_in_pairs(self) -> None:
        found = compare(diverged(TWO, 0.2, 4), "loss", by="lr", pair_by="seed")
        assert found.best == "lr=0.1"
        assert found.method.startswith("Wilcoxon")

    def test_infinities_of_either_sign(self) -> None:
        frame = TWO.with_columns(
            pl.when((pl.col("lr") == 0.1) & (pl.col("seed") < 7)).then(-math.inf).otherwise("loss").alias("loss")
        )
        assert compare(frame, "loss", by="lr").best == "lr=0.2"

    def test_a_forced_test_of_means_says_what_it_leaves_out(self) -> None:
        found = compare(diverged(TWO, 0.1, 3), "loss", by="lr", test="welch")
        assert found.sentence().startswith("3 of 8 runs of lr=0.1 diverged")
        assert found.n == 13

    def test_missing_values_are_no_divergence(self) -> None:
        frame = TWO.with_columns(pl.when(pl.col("seed") > 0).then("loss").alias("loss"))
        found = compare(frame, "loss", by="lr")
        assert found.findings == ("1 of 8 runs of lr=0.1 have no loss.", "1 of 8 runs of lr=0.2 have no loss.")
        assert not found.is_ranked


class TestLittleData:
    def test_one_run_each(self) -> None:
        found = compare(runs({0.1: 3.2, 0.2: 3.4}, n=1), "loss", by="lr")
        assert (found.best, found.p_value, found.interval, found.p_better) == ("lr=0.1", None, None, None)
        assert "cannot be told" in found.sentence()
        assert "too few to tell a difference from chance" in found.sentence()
        with pytest.raises(NotEnoughDataError, match=r"lr=0.1 has 1 finite value, too few for test='welch'"):
            compare(runs({0.1: 3.2, 0.2: 3.4}, n=1), "loss", by="lr", test="welch")

    def test_one_run_of_three(self) -> None:
        frame = pl.concat([TWO, runs({0.3: 3.26}, n=1)])
        found = compare(frame, "loss", by="lr")
        alone = found.pairs.filter(pl.col("second") == "lr=0.3")
        assert alone["p_adjusted"].to_list() == [None, None]
        assert found.pairs["p_adjusted"].drop_nulls().len() == 1

    def test_three_each_are_compared_by_t(self) -> None:
        found = compare(runs({0.1: 3.2, 0.2: 3.4}, n=3), "loss", by="lr")
        assert found.method == "Welch t"
        assert "too few arrangements" in found.why

    def test_values_that_are_all_the_same(self) -> None:
        same = pl.DataFrame({"lr": [1] * 5 + [2] * 5, "loss": [1.0] * 10})
        assert compare(same, "loss", by="lr").p_value == 1.0
        apart = compare(same.with_columns(pl.col("loss") + pl.col("lr")), "loss", by="lr")
        assert apart.p_value == pytest.approx(2 / 252)
        assert apart.interval is None
        few = compare(pl.DataFrame({"lr": [1, 1, 2, 2], "loss": [1.0, 1.0, 2.0, 2.0]}), "loss", by="lr")
        assert few.p_value is None
        assert "do not vary" in few.sentence()

    def test_nothing_to_compare(self) -> None:
        with pytest.raises(NotEnoughDataError, match="no run has a finite 'loss'"):
            compare(diverged(diverged(TWO, 0.1, 8), 0.2, 8), "loss", by="lr")
        with pytest.raises(InvalidInputError, match="1 configuration by lr"):
            compare(TWO.filter(pl.col("lr") == 0.1), "loss", by="lr")
        with pytest.raises(InvalidInputError, match="0 configurations by lr"):
            compare(TWO.clear(), "loss", by="lr")
        with pytest.raises(NotEnoughDataError, match="not in every configuration"):
            compare(TWO.with_columns(pl.col("seed") + 100 * pl.col("lr")), "loss", by="lr", pair_by="seed")

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"direction": "down"}, "direction='down'"),
            ({"level": 95}, "level=95"),
            (
                {"test": "wilcoxon"},
                r"test='wilcoxon' does not fit independent runs of 2 configurations: take 'permutation'",
            ),
            ({"by": "lrr"}, "did you mean 'lr'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            compare(TWO, "loss", **{"by": "lr", **wrong})

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.integers(0, 3),
                st.one_of(st.none(), st.just(math.nan), st.just(math.inf), st.floats(-1e9, 1e9), st.just(1.0)),
            ),
            max_size=24,
        ),
        st.sampled_from([None, "seed"]),
    )
    def test_whatever_comes_the_answer_is_honest(
        self, rows: list[tuple[int, int, float | None]], pair_by: str | None
    ) -> None:
        frame = pl.DataFrame(rows, schema={"lr": pl.Int64, "seed": pl.Int64, "loss": pl.Float64}, orient="row")
        try:
            found = compare(frame, "loss", by="lr", pair_by=pair_by)
        except InvalidInputError as refused:
            assert len(str(refused)) > 20  # noqa: PT017
            return
        assert found.p_value is None or 0.0 < found.p_value <= 1.0
        for contrast in found.contrasts:
            assert contrast.p_adjusted is None or 0.0 <= contrast.p_adjusted <= 1.0
            interval = contrast.outcome.interval
            assert interval is None or -math.inf < interval.low <= interval.high < math.inf
            assert contrast.p_first_better is None or -1e-9 <= contrast.p_first_better <= 1 + 1e-9
        assert found.best in found.sentence()
        json.dumps(found.chart().spec, allow_nan=False)


class TestTheChoice:
    def test_it_follows_the_shape_alone(self) -> None:
        assert [choose([n, n]).test for n in (2, 4, 5, 20, 101)] == [
            "welch", "welch", "permutation", "permutation", "welch",
        ]  # fmt: skip
        assert [choose([n, n], paired=True).test for n in (5, 6, 7, 101)] == [
            "paired-t", "paired-t", "sign-flip", "paired-t",
        ]  # fmt: skip
        assert choose([5, 5], level=0.999).test == "welch"
        assert (choose([5] * 3).test, choose([5] * 3).for_pairs) == ("permutation", "welch")
        assert "by Welch's t" in choose([5] * 3).why
        assert choose([8] * 3).for_pairs == "permutation"

    def test_by_ranks_where_runs_diverged(self) -> None:
        for paired in (False, True):
            for sizes in ([5, 5], [5, 5, 5]):
                chosen = choose(sizes, paired=paired, diverged=True)
                assert chosen.test in FITTING[paired, len(sizes) > 2]
                assert chosen.test in {"mann-whitney", "kruskal", "wilcoxon", "friedman"}

    def test_every_forced_test_can_be_made(self) -> None:
        for (paired, many), tests in FITTING.items():
            for test in tests:
                found = compare(FOUR if many else TWO, "loss", by="lr", pair_by="seed" if paired else None, test=test)
                assert found.p_value is not None
                assert found.p_value < 0.05


class TestAgainst:
    def test_the_rule_of_the_speedrun(self) -> None:
        if not SPEEDRUN.exists():
            pytest.skip("the speedrun logs are not beside the repository")
        last = (
            pl.read_parquet(SPEEDRUN)
            .filter(pl.col("metric") == "val_loss")
            .sort("step")
            .group_by("record", "run", maintain_order=True)
            .last()
        )
        sizes = last.group_by("record").len().filter(pl.col("len") >= 10)["record"].sort()
        reached = 0
        for record in sizes:
            part = last.filter(pl.col("record") == record)
            found = against(part, 3.28, value="value", level=0.99)
            expected = stats.ttest_1samp(part["value"].to_numpy(), 3.28, alternative="less").pvalue
            assert found.p_value == pytest.approx(expected)
            assert found.is_reached == (expected < 0.01)
            reached += found.is_reached
        assert 0 < reached <= len(sizes)

    @pytest.mark.parametrize("test", ["t", "sign-flip", "bootstrap"])
    def test_both_directions(self, test: Any) -> None:
        values = np.random.default_rng(0).normal(3.27, 0.004, 12)
        sample = Sample("a", values)
        below, above = (against(sample, 3.28, direction=way, test=test) for way in ("min", "max"))  # type: ignore[arg-type]
        assert (below.is_reached, above.is_reached) == (True, False)
        mirrored = against(Sample("a", -values), -3.28, direction="max", test=test)
        assert mirrored.p_value == pytest.approx(below.p_value, abs=0.002)
        assert below.interval is not None
        assert below.interval.low == -math.inf
        assert below.mean < below.interval.high < 3.28
        assert "is not shown to be above" in above.sentence()

    def test_a_diverged_run_does_not_reach_a_target(self) -> None:
        frame = pl.DataFrame({"loss": [3.27, 3.271, 3.272, 3.27, math.nan, None]})
        found = against(frame, 3.28, value="loss")
        assert found.p_value is not None
        assert found.p_value < 0.01
        assert not found.is_reached
        assert found.sentence().startswith("1 of 6 runs diverged")
        assert "of the runs that finished is below 3.28" in found.sentence()
        assert found.sentence().endswith("With a diverged run the target is not reached.")
        assert "1 of 6 runs have no loss." in found.notes

    def test_little_data(self) -> None:
        one = against(pl.DataFrame({"loss": [3.2]}), 3.28, value="loss")
        assert (one.p_value, one.is_reached) == (None, False)
        assert "too few to tell a mean from chance" in one.sentence()
        flat = against(pl.DataFrame({"loss": [3.2] * 6}), 3.28, value="loss")
        assert flat.p_value is None
        assert against(pl.DataFrame({"loss": [3.2] * 6}), 3.28, value="loss", test="sign-flip").p_value == 1 / 64
        with pytest.raises(NotEnoughDataError, match="no run has a finite 'loss'"):
            against(pl.DataFrame({"loss": [math.nan]}), 3.28, value="loss")
        with pytest.raises(InvalidInputError, match="target=nan"):
            against(pl.DataFrame({"loss": [3.2]}), math.nan, value="loss")
        with pytest.raises(InvalidInputError, match="test='z'"):
            against(pl.DataFrame({"loss": [3.2]}), 3.0, value="loss", test="z")  # type: ignore[arg-type]


class TestEquivalence:
    def test_two_one_sided_tests(self) -> None:
        from statsmodels.stats.weightstats import ttost_ind, ttost_paired

        one, other = (TWO.filter(pl.col("lr") == lr)["loss"].to_numpy() for lr in (0.1, 0.2))
        found = equivalent(TWO, "loss", by="lr", margin=0.05)
        assert found.p_value == pytest.approx(ttost_ind(one, other, -0.05, 0.05, usevar="unequal")[0])
        paired = equivalent(TWO, "loss", by="lr", margin=0.05, pair_by="seed")
        assert paired.p_value == pytest.approx(ttost_paired(one, other, -0.05, 0.05)[0])
        assert paired.n == 8

    @pytest.mark.parametrize("margin", [0.01, 0.02, 0.03, 0.04, 0.05])
    def test_it_agrees_with_its_interval(self, margin: float) -> None:
        found = equivalent(TWO, "loss", by="lr", margin=margin)
        assert found.interval is not None
        assert found.interval.level == pytest.approx(0.9)
        inside = -margin < found.interval.low and found.interval.high < margin
        assert found.is_equivalent == inside
        assert ("are equivalent" in found.sentence()) == inside

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(InvalidInputError, match="there are 4"):
            equivalent(FOUR, "loss", by="lr", margin=0.1)
        with pytest.raises(InvalidInputError, match="margin=0"):
            equivalent(TWO, "loss", by="lr", margin=0)
        with pytest.raises(NotEnoughDataError, match="two each"):
            equivalent(runs({0.1: 1.0, 0.2: 1.0}, n=1), "loss", by="lr", margin=0.1)
        flat = equivalent(pl.DataFrame({"lr": [1, 1, 2, 2], "loss": [1.0] * 4}), "loss", by="lr", margin=0.1)
        assert (flat.p_value, flat.is_equivalent) == (None, False)
        assert "cannot be told" in flat.sentence() or "nothing can be told" in flat.sentence()


class TestDifferences:
    def sweep(self, n: int = 60) -> pl.DataFrame:
        rng = np.random.default_rng(1)
        lr = rng.uniform(0, 1, n)
        width = rng.choice([64, 128, 256], n)
        return pl.DataFrame(
            {
                "run_id": [f"r{at}" for at in range(n)],
                "params.lr": lr,
                "params.width": width,
                "git_commit": [f"c{w}" for w in width],
                "gpu": rng.choice(["a", "b"], n),
                "python": ["3.11"] * n,
                "tags": [["x"]] * n,
                "last.acc": rng.normal(size=n),
                "loss": 8 * (lr - 0.5) ** 2 + 0.002 * (256 - width) + 0.05 * rng.normal(size=n),
            }
        )

    def test_what_matters_comes_first(self) -> None:
        found = differences(self.sweep(), "loss")
        assert found.table["column"].to_list()[0] == "params.lr"
        assert found.table["column"].to_list()[-1] == "gpu"
        assert (found.constant, found.own) == (("python",), ("run_id",))
        assert "tags hold lists" in found.notes[0]
        rows = {row["column"]: row for row in found.table.iter_rows(named=True)}
        assert rows["params.lr"]["kind"] == "ranges"
        assert abs(rows["params.lr"]["trend"]) < 0.4  # a middle optimum has no trend
        assert rows["params.lr"]["p_adjusted"] < 0.01
        assert rows["gpu"]["p_adjusted"] > 0.05
        assert rows["git_commit"]["together"] == "params.width"
        assert rows["params.width"]["trend"] < 0
        assert "params.lr goes along most" in found.sentence()

    def test_the_share_is_that_of_kruskal(self) -> None:
        frame = self.sweep()
        ranks, codes = stats.rankdata(frame["loss"].to_numpy()), frame["params.width"].rank("dense").to_numpy() - 1
        groups = [frame.filter(pl.col("params.width") == width)["loss"].to_numpy() for width in (64, 128, 256)]
        statistic, p = stats.kruskal(*groups)
        assert 59 * rank_variance_shares(ranks, codes.astype(np.int64)) == pytest.approx(statistic)
        table = differences(frame, "loss", columns=["params.width"]).table
        assert table["share"][0] == pytest.approx((statistic - 2) / 57)
        assert table["p_value"][0] == pytest.approx(p, abs=0.01)

    def test_noise_is_found_as_seldom_as_promised(self) -> None:
        rng = np.random.default_rng(3)
        frame = pl.DataFrame(
            {f"p{at}": rng.choice(list("abc"), 24) for at in range(200)} | {"loss": rng.lognormal(size=24)}
        )
        table = differences(frame, "loss").table
        assert 0.01 <= (table["p_value"] < 0.05).mean() <= 0.09  # type: ignore[operator]
        assert (table["p_adjusted"] < 0.05).sum() == 0
        assert abs(table["share"].mean()) < 0.02  # type: ignore[arg-type]

    def test_diverged_runs_rank_worst(self) -> None:
        frame = pl.DataFrame(
            {"lr": [1.0] * 6 + [9.0] * 6, "loss": [0.5, 0.6, 0.7, 0.4, 0.5, 0.6] + [0.3, 0.2] + [math.nan] * 4}
        )
        found = differences(frame, "loss")
        assert found.sentence().startswith("4 of 12 runs diverged")
        assert found.table["trend"][0] > 0
        assert differences(frame, "loss", direction="max").table["trend"][0] < 0

    def test_odd_columns(self) -> None:
        frame = pl.DataFrame(
            {
                "some": [1.0, None, 1.0, None, 1.0, None],
                "nan": [math.nan, 1.0, math.nan, 1.0, math.nan, 1.0],
                "flag": [True, False] * 3,
                "half": [1.5, 2.5, 3.5, 4.5, None, None],
                "empty": pl.Series([None] * 6, dtype=pl.Float64),
                "loss": [1.0, 2.0, 1.1, 2.1, 0.9, None],
            }
        )
        found = differences(frame, "loss")
        assert set(found.table["column"]) == {"some", "nan", "flag", "half"}
        assert found.constant == ("empty",)
        assert "1 run without loss are left out." in found.notes
        rows = {row["column"]: row["together"] for row in found.table.iter_rows(named=True)}
        assert rows["some"] == "nan, flag"

    def test_nothing_differs(self) -> None:
        found = differences(pl.DataFrame({"a": [1, 1, 1], "loss": [1.0, 2.0, 3.0]}), "loss")
        assert "no other column differs" in found.sentence()
        same = differences(pl.DataFrame({"a": [1, 1, 2, 2], "loss": [1.0] * 4}), "loss")
        assert same.table["p_value"].to_list() == [1.0]
        with pytest.raises(NotEnoughDataError, match="2 runs with loss"):
            differences(pl.DataFrame({"a": [1, 2], "loss": [1.0, 2.0]}), "loss")

    def test_many_runs(self) -> None:
        found = differences(self.sweep(5000), "loss")
        assert found.method == "Kruskal-Wallis"
        assert found.table["column"].to_list()[0] == "params.lr"


class TestPareto:
    @settings(max_examples=80, deadline=None)
    @given(
        st.integers(1, 4).flatmap(
            lambda k: st.lists(st.lists(st.integers(0, 4).map(float), min_size=k, max_size=k), min_size=1, max_size=25)
        )
    )
    def test_it_is_what_the_definition_says(self, rows: list[list[float]]) -> None:
        costs = np.array(rows)
        beaten = [bool(((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any()) for row in costs]
        assert front_of(costs).tolist() == [not lost for lost in beaten]

    @pytest.mark.parametrize("k", [1, 2, 3])
    def test_extremes(self, k: int) -> None:
        assert front_of(np.zeros((0, k))).tolist() == []
        assert front_of(np.full((3, k), 1.7e308)).tolist() == [True] * 3
        assert front_of(np.array([[-1.7e308] * k, [1.7e308] * k])).tolist() == [True, False]

    def test_directions_ties_and_what_is_not_finite(self) -> None:
        frame = pl.DataFrame(
            {
                "run": list("abcdef"),
                "acc": [0.9, 0.8, 0.9, 0.95, math.nan, 0.5],
                "time": [5.0, 3.0, 5.0, 9.0, 1.0, None],
            }
        )
        found = pareto(frame, {"acc": "max", "time": "min"})
        assert found.table["run"].to_list() == ["d", "a", "c", "b"]
        assert found.rest.is_empty()
        assert found.notes == ("2 of 6 runs cannot be on the front: 1 NaN or infinite in acc and 1 without time.",)
        assert "4 of 4 runs are on the Pareto front of higher acc and lower time" in found.sentence()

    def test_what_does_not_fit(self) -> None:
        frame = pl.DataFrame({"loss": [math.nan], "name": ["a"]})
        with pytest.raises(NotEnoughDataError, match="there is no front"):
            pareto(frame, {"loss": "min"})
        with pytest.raises(InvalidInputError, match="name each metric with its direction"):
            pareto(frame, {})
        with pytest.raises(InvalidInputError, match="direction='low'"):
            pareto(frame, {"loss": "low"})  # type: ignore[dict-item]
        with pytest.raises(InvalidInputError, match="'name' holds String"):
            pareto(frame, {"name": "min"})

    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_a_hundred_thousand_rows(self, k: int) -> None:
        costs = np.random.default_rng(0).normal(size=(10**5, k))
        kept = front_of(costs)
        front = costs[kept]
        assert 1 < len(front) < 20_000
        for row in costs[~kept][:200]:
            assert (front <= row).all(axis=1).any()
        by_first = front[np.argsort(front[:, 0])]
        if k == 2:
            assert all(late < early for early, late in pairwise(by_first[:, 1]))


def each_result() -> dict[str, Result]:
    frame = TestDifferences().sweep()
    one, other = (TWO.filter(pl.col("lr") == lr)["loss"].to_numpy() for lr in (0.1, 0.2))
    two = compare(TWO, "loss", by="lr")
    assert two.effect is not None
    return {
        "two": two,
        "four": compare(FOUR, "loss", by="lr"),
        "against": against(TWO.filter(pl.col("lr") == 0.1), 3.28, value="loss"),
        "equivalent": equivalent(TWO, "loss", by="lr", margin=0.05),
        "posterior": posterior(one, other, rope=0.005),
        "effect": two.effect,
        "differences": differences(frame, "loss"),
        "pareto": pareto(frame, {"loss": "min", "last.acc": "max"}),
    }


@pytest.mark.parametrize(
    "name", ["two", "four", "against", "equivalent", "posterior", "effect", "differences", "pareto"]
)
def test_every_result_is_a_row_a_sentence_and_a_chart(name: str) -> None:
    found = each_result()[name]
    assert found.sentence().endswith(".")
    json.dumps(found.row())
    assert found.row()["n"] == found.n > 0
    assert "<svg" in drawn(found.chart())


def test_differences_are_charted_with_joint_intervals_or_mean_ranks() -> None:
    svg = drawn(compare(FOUR, "loss", by="lr").chart_of_differences())
    assert "joint intervals" in svg
    assert "lr=0.1 − lr=0.2" in svg
    ranked = compare(FOUR, "loss", by="lr", pair_by="seed", test="friedman")
    assert "mean ranks" in drawn(ranked.chart_of_differences())


@pytest.mark.parametrize("ask", [compare, partial(equivalent, margin=0.1)])
def test_no_column_to_tell_configurations_by(ask: Callable[..., object]) -> None:
    with pytest.raises(InvalidInputError, match="names no column"):
        ask(pl.DataFrame({"lr": [1, 2], "loss": [1.0, 2.0]}), "loss", by=())


def test_huge_values_are_refused_before_they_are_ranked() -> None:
    frame = pl.DataFrame({"lr": [1, 1, 2, 2], "loss": [1.7e308, -1.7e308, 1.0, float("nan")]})
    with pytest.raises(InvalidInputError, match=r"lr=1 has values up to 1\.7e\+308"):
        compare(frame, "loss", by="lr")
