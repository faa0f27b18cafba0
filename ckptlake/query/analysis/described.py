"""Runs described for an analysis: one row each, and which of the columns are params."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    from polars import DataFrame

    from ckptlake.analytics.frames import Columns
    from ckptlake.analytics.statistics import Configurations


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """Runs, told apart by their params.

    Attributes:
        rows: one row a run.
        params: the columns that are params.
    """

    rows: DataFrame
    params: tuple[str, ...]

    def named(self) -> Described:
        """Return the same with what each run is called in a column `curve`: its name, or its id where names clash."""
        import polars as pl

        name, run_id = pl.col("name"), pl.col("run_id")
        is_its_own = name.is_unique() & ~name.is_in(self.rows["run_id"].implode())
        rows = self.rows.with_columns(pl.when(is_its_own).then(name).otherwise(run_id).alias("curve"))
        return replace(self, rows=rows)

    def configurations(self, *excepted: str) -> Configurations:
        """Return which runs agree in all params but some, by default but those that are called seed."""
        from ckptlake.analytics.insight.space import is_seed
        from ckptlake.analytics.statistics import group_by_all_except

        aside = excepted or tuple(filter(is_seed, self.params))
        return group_by_all_except(self.rows, aside, params=self.params)

    def grouped(self, by: Columns | None) -> tuple[DataFrame, Columns]:
        """Return the runs and the columns that tell their configurations apart, by default all params but seeds.

        Raises:
            InvalidInputError: there are no params, and no columns were given.
        """
        if by is not None:
            return self.rows, by
        if not self.params:
            raise InvalidInputError(
                "these runs have no params to tell configurations by: give by=, such as 'experiment'"
            )
        return self.configurations().table, "configuration"
