"""All there is to know of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckptlake.cli import wording
from ckptlake.cli.checkpoint_listing import document, whole
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column

if TYPE_CHECKING:
    from ckptlake.checkpoints.records import CheckpointRecord
    from ckptlake.lake import Lake

Row = Mapping[str, Any]

_DIGEST_SHOWN = 12
_KEPT = ("path", "dtype", "shape", "num_elements", "nbytes", "digest", "pack", "codec", "stored_bytes", "min", "max",
         "mean", "std", "l2_norm", "n_nan", "n_inf", "zero_fraction", "l2_distance", "cosine_similarity",
         "previous_checkpoint_id")  # fmt: skip
_TENSOR_COLUMNS = (
    name_column("path", shortest=24),
    Column("dtype"),
    Column("shape"),
    number_column("size", rank=3),
    number_column("mean", rank=2),
    number_column("std", rank=2),
    number_column("min", rank=4),
    number_column("max", rank=4),
    number_column("NaN", rank=1),
    number_column("moved", rank=5),
    Column("sha256", rank=6),
)


def read_tensors(lake: Lake, record: CheckpointRecord) -> list[Row]:
    """Return what the tables tell of a checkpoint's tensors, in order of path."""
    from ckptlake.query.checkpoint_facts import tensors

    rows = tensors(lake.sql, record.id, record.run_id, record.experiment)
    return [{name: row[name] for name in _KEPT} for row in rows]


def details(record: CheckpointRecord, tensors: Sequence[Row] | None) -> dict[str, object]:
    """Return everything as one mapping."""
    return document(record) if tensors is None else {**document(record), "tensors": tensors}


def show(record: CheckpointRecord, tensors: Sequence[Row] | None) -> None:
    """Print it."""
    console.line(record.id, style="bold")
    console.pairs(_head(record))
    if record.metrics:
        console.heading("Metrics")
        console.pairs([(name, wording.number(value)) for name, value in sorted(record.metrics.items())])
    if tensors is not None:
        console.heading("Tensors")
        console.note(console.table(_TENSOR_COLUMNS, [_tensor_cells(row) for row in tensors]))
    if record.note is not None:
        console.heading("Note")
        console.block(record.note)


def _head(record: CheckpointRecord) -> list[tuple[str, str]]:
    pairs = [
        ("run", record.run_id if record.attempt == 1 else f"{record.run_id}, attempt {record.attempt}"),
        ("experiment", record.experiment),
        ("step", whole(record.step)),
    ]
    if record.epoch is not None:
        pairs.append(("epoch", whole(record.epoch)))
    pairs += [
        ("saved", f"{wording.moment(record.saved_at, seconds=True)} UTC"),
        ("status", record.status),
        ("verified", _verified(record)),
    ]
    if record.aliases:
        pairs.append(("names", ", ".join(record.aliases)))
    pairs += [
        ("pinned", "yes" if record.pinned else "no"),
        ("format", f"{record.format}, {record.location}"),
        ("size", f"{wording.size(record.logical_bytes)} in {wording.count(record.num_tensors, 'tensor')}"),
        ("stored", f"{wording.size(record.stored_bytes)}, which it alone added to the lake"),
        ("digest", record.digest or "not known yet: it is worked out in the background"),
    ]
    return pairs


def _verified(record: CheckpointRecord) -> str:
    if record.verdict is None:
        return "never"
    return f"{record.verdict} at the level {record.verified_level}, {wording.moment(record.verified_at)} UTC"


def _tensor_cells(row: Row) -> list[str]:
    wrong = (row["n_nan"] or 0) + (row["n_inf"] or 0)
    return [
        row["path"],
        row["dtype"],
        shape(row["shape"]),
        wording.size(row["nbytes"]),
        *(wording.number(row[name]) for name in ("mean", "std", "min", "max")),
        f"{wrong:,}" if wrong else "-",
        wording.number(row["l2_distance"]),
        short_digest(row["digest"]),
    ]


def shape(sizes: Sequence[int] | None) -> str:
    """Return the shape of a tensor.

    >>> shape([64, 3, 7, 7]), shape([]), shape(None)
    ('64×3×7×7', 'scalar', '-')
    """
    if sizes is None:
        return "-"
    return "×".join(map(str, sizes)) or "scalar"


def short_digest(digest: str | None) -> str:
    """Return enough of a digest to tell it from others."""
    return "-" if digest is None else digest[:_DIGEST_SHOWN]
