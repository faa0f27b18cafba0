"""What a set of points adds to each curve: counts, ends, extremes and sums that merge later.

A curve is one metric of one run. Ends are by step, not by time: `last` is the value at the largest
step. NaN counts but takes no part in extremes and sums; infinities take part in all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.tables.schemas import SUMMARIES
from ckptlake.tables.sorting import column_array, group_codes

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def summarise(points: pa.Table) -> pa.Table:
    """Return one row a curve from points sorted as `sort_points` sorts them.

    `steps_unique` tells whether every step occurs once; where it does not, the curve's own points say
    which value of a repeated step is the newest.
    """
    if points.num_rows == 0:
        return SUMMARIES.schema.empty_table()
    starts = _starts(group_codes(points))
    sizes = np.diff(starts, append=points.num_rows)
    ends = starts + sizes - 1
    value = points.column("value").to_numpy()
    step, ts = column_array(points, "step"), column_array(points, "ts")
    nan, infinite = np.isnan(value), np.isinf(value)
    has_value = np.add.reduceat(~nan, starts) > 0
    low, low_step = _extreme(np.where(nan, np.inf, value), ~nan, step, starts, np.minimum)
    high, high_step = _extreme(np.where(nan, -np.inf, value), ~nan, step, starts, np.maximum)
    known = np.where(nan, 0.0, value)
    repeats = np.concatenate(([False], step[1:] == step[:-1]))
    repeats[starts] = False
    with np.errstate(over="ignore", invalid="ignore"):
        total, total_sq = np.add.reduceat(known, starts), np.add.reduceat(known * known, starts)
    head = points.select(["experiment", "run_id", "metric"]).take(pa.array(starts))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        **{name: _plain(head.column(name)) for name in head.column_names},
        "n": pa.array(sizes),
        "n_nan": pa.array(np.add.reduceat(nan, starts, dtype=np.int64)),
        "n_inf": pa.array(np.add.reduceat(infinite, starts, dtype=np.int64)),
        "first_step": pa.array(step[starts]),
        "first": pa.array(value[starts]),
        "last_step": pa.array(step[ends]),
        "last": pa.array(value[ends]),
        "min": pa.array(low, mask=~has_value),
        "min_step": pa.array(low_step, mask=~has_value),
        "max": pa.array(high, mask=~has_value),
        "max_step": pa.array(high_step, mask=~has_value),
        "sum": pa.array(total),
        "sum_sq": pa.array(total_sq),
        "first_ts": _times(np.minimum.reduceat(ts, starts)),
        "last_ts": _times(np.maximum.reduceat(ts, starts)),
        "steps_unique": pa.array(~np.logical_or.reduceat(repeats, starts)),
    }
    return pa.table([columns[name] for name in SUMMARIES.schema.names], schema=SUMMARIES.schema)


def is_merged(rows: pa.Table) -> bool:
    """Tell whether rows are those of different curves in their order, as `merge_summaries` returns them."""
    runs, metrics = (rows.column(name).cast(pa.string()).combine_chunks() for name in ("run_id", "metric"))
    later = pc.greater(runs[1:], runs[:-1])
    same = pc.and_(pc.equal(runs[1:], runs[:-1]), pc.greater(metrics[1:], metrics[:-1]))
    return bool(pc.all(pc.or_(later, same), min_count=0).as_py())


def merge_summaries(rows: pa.Table) -> pa.Table:
    """Return one row a curve from any number of summary rows of each curve.

    Merging is exact for counts, ends and extremes; sums are added in the order of steps. The steps of a
    merged row are known to be unique only where those of its parts are and the parts' ranges of steps
    do not touch.
    """
    if rows.num_rows == 0:
        return SUMMARIES.schema.empty_table()
    keyed = rows.append_column("_curve", pa.array(group_codes(rows)))
    keyed = keyed.take(pc.sort_indices(keyed, sort_keys=[("_curve", "ascending"), ("first_step", "ascending")]))
    starts = _starts(keyed.column("_curve").to_numpy())
    if len(starts) == keyed.num_rows:
        plain = [_plain(keyed.column(name)) for name in SUMMARIES.schema.names]
        return pa.table(plain, schema=SUMMARIES.schema)
    sizes = np.diff(starts, append=keyed.num_rows)
    first_step, last_step = column_array(keyed, "first_step"), column_array(keyed, "last_step")
    ends = _first_where(last_step == np.repeat(np.maximum.reduceat(last_step, starts), sizes), starts)
    apart = np.concatenate(([True], first_step[1:] > _running_maximum(last_step, starts)[:-1]))
    apart[starts] = True
    unique = keyed.column("steps_unique").to_numpy(zero_copy_only=False).astype(bool) & apart
    low, low_step, no_low = _merged_extreme(keyed, "min", starts, sizes, np.minimum, np.inf)
    high, high_step, no_high = _merged_extreme(keyed, "max", starts, sizes, np.maximum, -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = {name: np.add.reduceat(keyed.column(name).to_numpy(), starts) for name in ("sum", "sum_sq")}
    heads, tails = keyed.take(pa.array(starts)), keyed.take(pa.array(ends))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        **{name: _plain(heads.column(name)) for name in ("experiment", "run_id", "metric", "first_step", "first")},
        **{name: pa.array(np.add.reduceat(column_array(keyed, name), starts)) for name in ("n", "n_nan", "n_inf")},
        **{name: tails.column(name) for name in ("last_step", "last")},
        "min": pa.array(low, mask=no_low),
        "min_step": pa.array(low_step, mask=no_low),
        "max": pa.array(high, mask=no_high),
        "max_step": pa.array(high_step, mask=no_high),
        **{name: pa.array(values) for name, values in sums.items()},
        "first_ts": _times(np.minimum.reduceat(column_array(keyed, "first_ts"), starts)),
        "last_ts": _times(np.maximum.reduceat(column_array(keyed, "last_ts"), starts)),
        "steps_unique": pa.array(np.logical_and.reduceat(unique, starts)),
    }
    return pa.table([columns[name] for name in SUMMARIES.schema.names], schema=SUMMARIES.schema)


def _starts(group: Integers) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))


def _extreme(
    value: Floats, present: npt.NDArray[np.bool_], step: Integers, starts: npt.NDArray[np.intp], pick: np.ufunc
) -> tuple[Floats, Integers]:
    """Return each group's extreme among the values present and its step; any row where none is present."""
    sizes = np.diff(starts, append=len(value))
    best = np.repeat(pick.reduceat(value, starts), sizes)
    at = _first_where((value == best) & present, starts)
    return value[at], step[at]


def _merged_extreme(
    rows: pa.Table,
    name: str,
    starts: npt.NDArray[np.intp],
    sizes: Integers,
    pick: np.ufunc,
    neutral: float,
) -> tuple[Floats, Integers, npt.NDArray[np.bool_]]:
    missing = rows.column(name).is_null().to_numpy()
    value = rows.column(name).fill_null(neutral).to_numpy()
    step = rows.column(f"{name}_step").fill_null(np.iinfo(np.int64).max).to_numpy()
    best = np.repeat(pick.reduceat(value, starts), sizes)
    candidates = (value == best) & ~missing
    at_step = np.where(candidates, step, np.iinfo(np.int64).max)
    earliest = np.repeat(np.minimum.reduceat(at_step, starts), sizes)
    first = _first_where(candidates & (at_step == earliest), starts)
    return value[first], step[first], np.logical_and.reduceat(missing, starts)


def _first_where(flags: npt.NDArray[np.bool_], starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return for each group the position of its first true flag, or of any row where no flag is true."""
    positions = np.where(flags, np.arange(len(flags)), len(flags) - 1)
    return np.minimum.reduceat(positions, starts)


def _running_maximum(values: Integers, starts: npt.NDArray[np.intp]) -> Integers:
    """Return the maximum so far inside each group."""
    group = np.zeros(len(values), dtype=np.int64)
    group[starts[1:]] = 1
    group = np.cumsum(group)
    by_value, inverse = np.unique(values, return_inverse=True)
    keyed = np.maximum.accumulate(group * len(by_value) + inverse)
    running: Integers = by_value[keyed % len(by_value)]
    return running


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _times(values: Integers) -> pa.Array:
    return pa.array(values).cast(SUMMARIES.schema.field("first_ts").type)
