"""Insight into hyperparameters: what mattered, what to try next, and what stands out in an experiment."""

from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import Insight, Silence
from ckptlake.analytics.insight.importance import (
    Importance,
    fanova_importance,
    ped_anova_importance,
    permutation_importance,
)
from ckptlake.analytics.insight.insights import RULES, Insights, insights
from ckptlake.analytics.insight.interactions import Interactions, interactions
from ckptlake.analytics.insight.regions import Regions, unexplored_regions
from ckptlake.analytics.insight.response import Response, response
from ckptlake.analytics.insight.space import Condition, LeftOut, Param, Space, space_of
from ckptlake.analytics.insight.suggestions import Suggestions, suggestions

__all__ = [
    "RULES",
    "Condition",
    "Experiment",
    "Importance",
    "Insight",
    "Insights",
    "Interactions",
    "LeftOut",
    "Param",
    "Regions",
    "Response",
    "Silence",
    "Space",
    "Suggestions",
    "fanova_importance",
    "insights",
    "interactions",
    "ped_anova_importance",
    "permutation_importance",
    "response",
    "space_of",
    "suggestions",
    "unexplored_regions",
]
