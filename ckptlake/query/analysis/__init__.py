"""What can be asked about the results of runs, one call each, from any query that names runs."""

from ckptlake.query.analysis.analysis import Analysis

__all__ = ["Analysis"]
