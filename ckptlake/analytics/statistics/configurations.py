"""Configurations found from params: runs that differ in nothing but the seed belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from ckptlake.analytics.charts import Axis, Chart, bar_chart
from ckptlake.analytics.frames import CONFIGURATION, Columns, check_columns, names
from ckptlake.analytics.results import Result
from ckptlake.analytics.statistics.params import flattened
from ckptlake.analytics.wording import listing, plural
from ckptlake.errors import InvalidInputError

_PREFIX = "params."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Configurations(Result):
    """Runs with the configuration that each belongs to.

    Attributes:
        table: the frame given, with nested params made flat and a column `configuration` that names only the params in
            which configurations differ.
        columns: those params, as columns of `table`.
    """

    table: pl.DataFrame
    columns: tuple[str, ...]

    @property
    def counts(self) -> pl.DataFrame:
        """How many runs each configuration has: `configuration` and `n`, in order of first appearance."""
        return self.table.group_by(CONFIGURATION, maintain_order=True).agg(pl.len().alias("n"))

    def sentence(self) -> str:
        sizes = self.counts["n"].to_list()
        if self.table.is_empty():
            return "No runs, so no configurations."
        each = " to ".join(map(str, sorted({min(sizes), max(sizes)})))
        differ = f"; they differ in {listing(map(_short, self.columns))}" if self.columns else ""
        return f"{plural(self.n, 'run')} of {plural(len(sizes), 'configuration')} with {each} each{differ}."

    def chart(self) -> Chart:
        return bar_chart(
            "Runs of each configuration", self.counts.to_dicts(), label=CONFIGURATION, value=Axis("n", "runs")
        )


def group_by_all_except(
    frame: pl.DataFrame, except_: Columns = "seed", *, params: Sequence[str] | None = None
) -> Configurations:
    """Return which runs are of one configuration: those that agree in all params but the seed.

    Args:
        frame: one row a run. Structs and JSON objects are read as nested params; a param that a run does not have is
            null, and two runs without it agree in it.
        except_: the params that runs of one configuration may differ in, such as ``["seed", "output_dir"]``; with or
            without ``params.`` before them. A nested param is named by its path.
        params: the columns that are params, those of nested ones included; all that begin with ``params.`` where None.

    Raises:
        InvalidInputError: a column is missing, an excepted param is none of the params, the frame has no params, or it
            has a column ``configuration`` already.

    Example:
        >>> frame = pl.DataFrame(
        ...     {"params.lr": [0.1, 0.1, 0.2, 0.2], "params.width": [8, 8, 8, 8], "params.seed": [0, 1, 0, 1]}
        ... )
        >>> found = group_by_all_except(frame, "seed")
        >>> found.columns, found.counts.rows()
        (('params.lr',), [('lr=0.1', 2), ('lr=0.2', 2)])
    """
    check_columns(frame, () if params is None else names(params))
    given = (
        [name for name in frame.columns if name == "params" or name.startswith(_PREFIX)]
        if params is None
        else names(params)
    )
    if not given:
        raise InvalidInputError(
            f"no column of the frame begins with {_PREFIX!r}: name those that are params with params="
        )
    flat = flattened(frame.select(given))
    aside = {_found(name, flat.columns) for name in names(except_)}
    columns = tuple(name for name in flat.columns if name not in aside and flat[name].n_unique() > 1)
    whole = frame.drop(given).with_columns(flat.get_columns())
    if CONFIGURATION in whole.columns:
        raise InvalidInputError(f"the frame has a column {CONFIGURATION!r}, in which labels are put: rename it first")
    whole = whole.with_columns(pl.Series(CONFIGURATION, _labels(flat, columns), pl.String))
    return Configurations(
        n=frame.height,
        method=f"runs that agree in all params but {listing(sorted(map(_short, aside)))}",
        notes=_notes(flat, columns),
        table=whole,
        columns=columns,
    )


def _found(name: str, columns: Sequence[str]) -> str:
    """Return the column of a param, named with or without the prefix."""
    for candidate in (name, _PREFIX + name):
        if candidate in columns:
            return candidate
    near = get_close_matches(name, [*map(_short, columns)], n=3)
    hint = f"did you mean {' or '.join(near)}" if near else f"there are {listing(map(_short, columns))}"
    raise InvalidInputError(f"there is no param {name!r:.100} to leave aside; {hint}; except_=() leaves none aside")


def _labels(flat: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    shown = [_short(name) for name in columns]
    titles = [full if shown.count(short) > 1 else short for full, short in zip(columns, shown, strict=True)]
    return [
        ", ".join(
            f"no {title}" if value is None else f"{title}={value}" for title, value in zip(titles, row, strict=True)
        )
        or "all runs"
        for row in (flat.select(columns).rows() if columns else [()] * flat.height)
    ]


def _notes(flat: pl.DataFrame, columns: Sequence[str]) -> tuple[str, ...]:
    if not columns or flat.height < 2 or flat.select(columns).n_unique() < flat.height:
        return ()
    own = [_short(name) for name in columns if flat[name].n_unique() == flat.height]
    blame = (
        f": {listing(own)} differ{'s' * (len(own) == 1)} in every run, leave that aside too if it is no choice"
        if own
        else ""
    )
    return (f"every run is a configuration of its own{blame}",)


def _short(name: str) -> str:
    return name.removeprefix(_PREFIX)
