"""The runs of a frame by configuration: finite, diverged and missing ones told apart, paired where asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_magnitude
from ckptlake.analytics.comparison.two_samples import pair_differences
from ckptlake.analytics.frames import Columns, Floats, Sample, check_columns, floats, grouping, label_of, parts_of
from ckptlake.analytics.wording import listing, plural
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

MOST_CONFIGURATIONS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The values of each configuration.

    Attributes:
        samples: the finite values; where paired, of the pairs that are finite in every configuration, in one order.
        reached: all values but the missing ones, NaN and infinities among them; where paired, of the pairs that every
            configuration has, in one order.
        is_paired: whether values belong together across configurations.
        findings: sentences about diverged runs first, then about what is missing.
    """

    samples: tuple[Sample, ...]
    reached: tuple[Floats, ...]
    is_paired: bool
    findings: tuple[str, ...]

    @property
    def n_diverged(self) -> int:
        return sum(int((~np.isfinite(values)).sum()) for values in self.reached)

    @property
    def checked(self) -> tuple[Sample, ...]:
        """What a test of means takes for normal: each sample, or the differences of two that are paired."""
        if not (self.is_paired and len(self.samples) == 2):
            return self.samples
        one, other = self.samples
        if one.n == 0:
            return ()
        return (
            Sample(f"the differences of {one.label} and {other.label}", pair_differences(one.values, other.values)),
        )

    def ranked_last(self, direction: Direction) -> tuple[Floats, ...]:
        """Return all values with each diverged run put behind the worst finite one."""
        finite = np.concatenate([values[np.isfinite(values)] for values in self.reached])
        if not len(finite):
            return tuple(np.zeros(len(values)) for values in self.reached)
        away = 2 * float(np.ptp(finite)) + max(float(np.abs(finite).max()), 1.0)
        worst = float(finite.max()) + away if direction == "min" else float(finite.min()) - away
        return tuple(np.where(np.isfinite(values), values, worst) for values in self.reached)


def runs_of(frame: pl.DataFrame, value: str, by: Columns, pair_by: str | None) -> Runs:
    """Return the runs of a frame by configuration.

    Args:
        frame: one row a run.
        value: the column with the values.
        by: the columns that tell configurations apart.
        pair_by: the column that pairs runs of different configurations, or None.

    Raises:
        InvalidInputError: a column is missing or holds no numbers, there are fewer than two configurations or more than
            100, two configurations have one name, values are too large or small for their variance to be told, or a
            configuration has two runs of one pair.

    Example:
        >>> frame = pl.DataFrame({"lr": [1, 1, 2, 2], "seed": [0, 1, 1, 0], "loss": [0.1, 0.2, 0.4, float("nan")]})
        >>> runs = runs_of(frame, "loss", "lr", "seed")
        >>> [sample.values.tolist() for sample in runs.samples], runs.findings
        ([[0.2], [0.4]], ('1 of 2 runs of lr=2 diverged (NaN or infinite loss).',))
    """
    keys = grouping(by)
    check_columns(frame, [*keys, value, *(() if pair_by is None else (pair_by,))])
    floats(frame, value)
    parts = parts_of(frame, keys)
    if not 2 <= len(parts) <= MOST_CONFIGURATIONS:
        raise InvalidInputError(
            f"{plural(len(parts), 'configuration')} by {listing(keys)}: 2 to {MOST_CONFIGURATIONS} can be compared"
        )
    labelled = {label_of(keys, key): part for key, part in parts.items()}
    if len(labelled) < len(parts):
        twice = Counter(label_of(keys, key) for key in parts).most_common(1)[0][0]
        raise InvalidInputError(
            f"two configurations are both called {twice!r:.100}, such as null and 'None': rename one"
        )
    findings = _findings(labelled, value)
    if pair_by is None:
        reached = tuple(floats(part.drop_nulls(value), value) for part in labelled.values())
        return Runs(_finite(labelled, reached), reached, False, findings)
    table, left_out = _paired(labelled, value, pair_by)
    told = (f"{left_out} of the values of {pair_by} are not in every configuration and are left out.",) * bool(left_out)
    reached, whole = tuple(table.T), table[np.isfinite(table).all(axis=1)]
    return Runs(_finite(labelled, tuple(whole.T)), reached, True, findings + told)


def _findings(labelled: dict[str, pl.DataFrame], value: str) -> tuple[str, ...]:
    diverged, missing = [], []
    for label, part in labelled.items():
        found = floats(part, value)
        check_magnitude(found[np.isfinite(found)], label)
        n_missing = part[value].null_count()
        n_diverged = int((~np.isfinite(found)).sum()) - n_missing
        if n_diverged:
            diverged.append(
                f"{n_diverged} of {plural(part.height, 'run')} of {label} diverged (NaN or infinite {value})."
            )
        if n_missing:
            missing.append(f"{n_missing} of {plural(part.height, 'run')} of {label} have no {value}.")
    return (*diverged, *missing)


def _finite(labelled: dict[str, pl.DataFrame], columns: Sequence[Floats]) -> tuple[Sample, ...]:
    return tuple(
        Sample(label, np.ascontiguousarray(values[np.isfinite(values)]))
        for label, values in zip(labelled, columns, strict=True)
    )


def _paired(labelled: dict[str, pl.DataFrame], value: str, pair_by: str) -> tuple[Floats, int]:
    """Return one row a pair and one column a configuration, and how many pairs are not whole."""
    columns = []
    for label, part in labelled.items():
        told = part.drop_nulls([pair_by, value])
        repeated = told.filter(pl.col(pair_by).is_duplicated())
        if repeated.height:
            raise InvalidInputError(
                f"{label} has more than one run with {pair_by}={repeated[pair_by][0]!r:.100}: pair_by must "
                "tell the runs of a configuration apart"
            )
        columns.append(dict(zip(told[pair_by].to_list(), floats(told, value).tolist(), strict=True)))
    every = list(dict.fromkeys(key for column in columns for key in column))
    whole = [key for key in every if all(key in column for column in columns)]
    table = np.array([[column[key] for column in columns] for key in whole], np.float64).reshape(-1, len(columns))
    return table, len(every) - len(whole)
