"""Checkpoints as a table, in the order asked for, with the values of the metrics asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from ckptlake.cli import wording
from ckptlake.cli.grid import Column, name_column, number_column
from ckptlake.cli.listing import Order

if TYPE_CHECKING:
    from ckptlake.checkpoints.records import CheckpointRecord

STATUS_STYLES = {"good": "green", "quarantined": "red"}
_METRICS_SHOWN = 2
_KEYS: Mapping[str, Callable[[CheckpointRecord], Any]] = {
    "saved": lambda record: record.saved_at,
    "step": lambda record: record.step,
    "epoch": lambda record: record.epoch,
    "size": lambda record: record.logical_bytes,
    "stored": lambda record: record.stored_bytes,
    "id": lambda record: record.id,
    "run": lambda record: record.run_id,
    "experiment": lambda record: record.experiment,
    "status": lambda record: record.status,
}
_DESCENDING = frozenset({"saved", "step", "epoch", "size", "stored"})
KEYS = ", ".join(_KEYS)


def document(record: CheckpointRecord) -> dict[str, object]:
    """Return all that is known of a checkpoint as a mapping."""
    fields = asdict(record)
    return {"checkpoint_id": fields.pop("id"), **fields}


def is_descending(order: Order, directions: Mapping[tuple[str, str], str]) -> bool:
    """Return whether the largest come first: as asked for, else so that the newest, largest or best do."""
    if order.descending is not None:
        return order.descending
    if order.key in _KEYS:
        return order.key in _DESCENDING
    return "max" in {direction for (_, metric), direction in directions.items() if metric == order.key}


def in_order(records: Sequence[CheckpointRecord], order: Order, *, descending: bool) -> list[CheckpointRecord]:
    """Return checkpoints in order; those without a value, or with NaN, come last either way.

    Raises:
        typer.BadParameter: they are to be sorted by something that is no metric of theirs either.
    """
    known = {name for record in records for name in record.metrics}
    if records and order.key not in _KEYS and order.key not in known:
        near = get_close_matches(order.key, [*known, *_KEYS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise typer.BadParameter(f"{order.key!r} is no metric of these and none of {KEYS}{hint}", param_hint="'--sort'")
    key_of = _key(order)
    keyed = [(key_of(record), record) for record in reversed(records)]
    ranked = [(key, record) for key, record in keyed if key is not None and key == key]
    ranked.sort(key=lambda pair: pair[0], reverse=descending)
    return [record for _, record in ranked] + [record for key, record in keyed if key is None or key != key]


def _key(order: Order) -> Callable[[CheckpointRecord], Any]:
    return _KEYS.get(order.key) or (lambda record: record.metrics.get(order.key))


def shown_metrics(records: Sequence[CheckpointRecord], asked: Sequence[str], order: Order) -> tuple[str, ...]:
    """Return the metrics asked for and the one sorted by, or where none is asked for the two that most were saved with.

    Equally frequent ones come in alphabetical order.
    """
    by = () if order.key in _KEYS else (order.key,)
    if asked:
        return tuple(dict.fromkeys((*asked, *by)))
    counts = Counter(sorted(name for record in records for name in record.metrics))
    return tuple(dict.fromkeys((*by, *(name for name, _ in counts.most_common(_METRICS_SHOWN)))))


@dataclass(frozen=True, slots=True)
class _Part:
    """A column and how it is filled; one that may be left out is, where no checkpoint has anything in it."""

    column: Column
    text: Callable[[CheckpointRecord], str]
    is_optional: bool = False


_BEFORE = (
    _Part(Column("id"), lambda record: record.id),
    _Part(number_column("step"), lambda record: whole(record.step)),
    _Part(number_column("epoch", rank=8), lambda record: whole(record.epoch), is_optional=True),
)
_AFTER = (
    _Part(name_column("names", shortest=10, rank=1), lambda record: names(record), is_optional=True),
    _Part(Column("status", rank=2, styles=STATUS_STYLES), lambda record: record.status),
    _Part(number_column("size", rank=3), lambda record: wording.size(record.logical_bytes)),
    _Part(number_column("stored", rank=6), lambda record: wording.size(record.stored_bytes)),
    _Part(Column("saved (UTC)", rank=4), lambda record: wording.moment(record.saved_at)),
    _Part(Column("verified", rank=7), lambda record: verdict(record), is_optional=True),
    _Part(name_column("run", rank=5, shortest=26), lambda record: record.run_id),
    _Part(name_column("experiment", rank=9), lambda record: record.experiment),
)


def table(
    records: Sequence[CheckpointRecord], metrics: Sequence[str]
) -> tuple[Sequence[Column], Sequence[Sequence[str]]]:
    """Return columns and cells."""
    values = [_Part(number_column(name), partial(_value, name)) for name in metrics]
    parts = [*_BEFORE, *values, *_AFTER]
    columns: list[tuple[Column, list[str]]] = [
        (part.column, [part.text(record) for record in records]) for part in parts
    ]
    kept = [pair for part, pair in zip(parts, columns, strict=True) if not part.is_optional or set(pair[1]) - {"-"}]
    return [column for column, _ in kept], list(zip(*(cells for _, cells in kept), strict=True))


def _value(metric: str, record: CheckpointRecord) -> str:
    return wording.number(record.metrics.get(metric))


def whole(number: int | None) -> str:
    """Return a step or an epoch."""
    return "-" if number is None else str(number)


def names(record: CheckpointRecord) -> str:
    """Return the aliases of a checkpoint, and whether it is pinned."""
    return ", ".join((*record.aliases, *(["pinned"] if record.pinned else []))) or "-"


def verdict(record: CheckpointRecord) -> str:
    """Return what the newest verification found, and how closely it looked."""
    return "-" if record.verdict is None else f"{record.verdict} ({record.verified_level})"
