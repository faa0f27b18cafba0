"""Which test is taken, and why: from how runs were made and how many there are, never from what a test says of them.

A check of normality or of equal variances does not decide. To choose a test by another one on the same data changes the
false-positive rate of both (Zimmerman 2004; Rochon, Gondan & Kieser 2012), so those taken by default bear both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ckptlake.analytics.arguments import check_count, check_level, numbers
from ckptlake.analytics.comparison.permutation import DRAWN, MOST_VALUES
from ckptlake.analytics.wording import listing, plural
from ckptlake.errors import InvalidInputError

Test: TypeAlias = Literal[
    "permutation", "welch", "anova", "mann-whitney", "kolmogorov-smirnov", "kruskal",
    "sign-flip", "paired-t", "wilcoxon", "friedman",
]  # fmt: skip

FITTING: Mapping[tuple[bool, bool], tuple[Test, ...]] = {
    (False, False): ("permutation", "welch", "mann-whitney", "kolmogorov-smirnov"),
    (False, True): ("permutation", "welch", "anova", "kruskal"),
    (True, False): ("sign-flip", "paired-t", "wilcoxon"),
    (True, True): ("sign-flip", "paired-t", "friedman"),
}
"""Which tests fit runs that are paired or not, of two configurations or of more."""
_BY_RANKS: Mapping[tuple[bool, bool], Test] = {
    (False, False): "mann-whitney", (False, True): "kruskal", (True, False): "wilcoxon", (True, True): "friedman",
}  # fmt: skip
_MANY = 100
_STEPS = 6
"""How many steps of the p-value must lie below alpha, so that its coarseness costs little of the error rate."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which test is taken.

    Attributes:
        test: of all configurations.
        for_pairs: of each pair of them; the same for two configurations.
        why: in words.
    """

    test: Test
    for_pairs: Test
    why: str


def choose(
    sizes: Sequence[int], *, paired: bool = False, diverged: bool = False, level: float = 0.95, test: Test | None = None
) -> Choice:
    """Return which test is taken for configurations of these sizes, and why.

    Args:
        sizes: how many finite values each configuration has; where paired, how many pairs.
        paired: whether runs belong together across configurations.
        diverged: whether a run diverged, so that it has a rank but no value.
        level: the confidence that is asked for.
        test: what the user wants instead.

    Raises:
        InvalidInputError: the wanted test does not fit the number of configurations or the pairing, there are fewer
            than two of them, or a size or the level is none.

    Example:
        >>> choose([8, 8]).test, choose([3, 3]).test, choose([8, 8], paired=True).test
        ('permutation', 'welch', 'sign-flip')
        >>> print(choose([3, 3]).why)
        3 and 3 runs have too few arrangements for a permutation test
    """
    check_level(level)
    if len(numbers(sizes, "the list of sizes")) < 2:
        raise InvalidInputError(f"sizes={sizes!r:.100}: a test is of two configurations or more")
    for size in sizes:
        check_count(size, "each of sizes", least=0)
    shape = (paired, len(sizes) > 2)
    n_pairs = math.comb(len(sizes), 2)
    by_t: Test = "paired-t" if paired else "welch"
    rearranged: Test = "sign-flip" if paired else "permutation"
    pairs_fit = _fit(sizes, paired, (1 - level) / n_pairs)
    if test is not None:
        if test not in FITTING[shape]:
            what = f"{'paired' if paired else 'independent'} runs of {len(sizes)} configurations"
            raise InvalidInputError(
                f"test={test!r:.100} does not fit {what}: take {listing(map(repr, FITTING[shape]))}"
            )
        return Choice(test, by_t if test == rearranged and shape[1] and not pairs_fit else test, "as asked for")
    if diverged:
        why = "a diverged run has no value but a rank, behind all that finished"
        return Choice(_BY_RANKS[shape], _BY_RANKS[shape], why)
    if _all_fit(sizes, paired, 1 - level):
        needs = "it needs no normal values and bears unequal variances"
        why = f"{needs}, and {_counted(sizes, paired)} have arrangements enough"
        if pairs_fit:
            return Choice(rearranged, rearranged, why)
        t_test = "the t test of pairs" if paired else "Welch's t"
        return Choice(rearranged, by_t, f"{why}; single pairs of them have too few, so those are by {t_test}")
    told = (
        "are so many that their means are normal"
        if _are_many(sizes)
        else "have too few arrangements for a permutation test"
    )
    return Choice(by_t, by_t, f"{_counted(sizes, paired)} {told}")


def _are_many(sizes: Sequence[int]) -> bool:
    return min(sizes) > _MANY or sum(sizes) > MOST_VALUES


def _fit(sizes: Sequence[int], paired: bool, alpha: float) -> bool:
    """Return whether the two smallest configurations have arrangements enough, and all few enough values."""
    n, m = sorted(sizes)[:2]
    if _are_many(sizes):
        return False
    return min(2**n if paired else math.comb(n + m, n), DRAWN + 1) * alpha >= _STEPS


def _all_fit(sizes: Sequence[int], paired: bool, alpha: float) -> bool:
    if len(sizes) == 2:
        return _fit(sizes, paired, alpha)
    if _are_many(sizes) or min(sizes) < 2:
        return False
    if paired:
        return min(sizes) * math.lgamma(len(sizes) + 1) >= math.log(_STEPS / alpha)
    n_arrangements = math.lgamma(sum(sizes) + 1) - sum(math.lgamma(size + 1) for size in sizes)
    return n_arrangements >= math.log(_STEPS / alpha)


def _counted(sizes: Sequence[int], paired: bool) -> str:
    return plural(sizes[0], "pair") if paired else f"{listing(map(str, sizes))} runs"
