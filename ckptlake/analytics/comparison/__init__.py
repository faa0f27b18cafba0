"""Comparing configurations of runs: which is best, by how much, how sure that is, and what differs between them."""

from ckptlake.analytics.comparison.associations import Differences, differences, rank_variance_shares
from ckptlake.analytics.comparison.chooser import Choice, Test, choose
from ckptlake.analytics.comparison.comparison import Comparison, Contrast
from ckptlake.analytics.comparison.configurations import compare
from ckptlake.analytics.comparison.effects import (
    Effect,
    cliffs_delta,
    hedges_g,
    paired_hedges_g,
    ratio_of_means,
    vargha_delaney,
)
from ckptlake.analytics.comparison.equivalence import Equivalence, equivalent
from ckptlake.analytics.comparison.fronts import ParetoFront, front_of, pareto
from ckptlake.analytics.comparison.omnibus import anova, block_anova, friedman, kruskal, welch_anova
from ckptlake.analytics.comparison.outcome import Alternative, Outcome
from ckptlake.analytics.comparison.permutation import block_permutation, permutation_anova, permutation_test, sign_flip
from ckptlake.analytics.comparison.posterior import Posterior, posterior
from ckptlake.analytics.comparison.posthoc import CriticalDifference, dunn, games_howell, nemenyi, tukey_hsd
from ckptlake.analytics.comparison.target import Against, TargetTest, against, bootstrap_t
from ckptlake.analytics.comparison.two_samples import (
    kolmogorov_smirnov,
    mann_whitney,
    one_sample_t,
    paired_t,
    welch_t,
    wilcoxon,
)

__all__ = [
    "Against",
    "Alternative",
    "Choice",
    "Comparison",
    "Contrast",
    "CriticalDifference",
    "Differences",
    "Effect",
    "Equivalence",
    "Outcome",
    "ParetoFront",
    "Posterior",
    "TargetTest",
    "Test",
    "against",
    "anova",
    "block_anova",
    "block_permutation",
    "bootstrap_t",
    "choose",
    "cliffs_delta",
    "compare",
    "differences",
    "dunn",
    "equivalent",
    "friedman",
    "front_of",
    "games_howell",
    "hedges_g",
    "kolmogorov_smirnov",
    "kruskal",
    "mann_whitney",
    "nemenyi",
    "one_sample_t",
    "paired_hedges_g",
    "paired_t",
    "pareto",
    "permutation_anova",
    "permutation_test",
    "posterior",
    "rank_variance_shares",
    "ratio_of_means",
    "sign_flip",
    "tukey_hsd",
    "vargha_delaney",
    "welch_anova",
    "welch_t",
    "wilcoxon",
]
