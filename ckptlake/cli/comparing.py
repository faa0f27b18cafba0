"""How two checkpoints differ, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ckptlake.cli import wording
from ckptlake.cli.checkpoint_details import shape
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]

_TENSOR_COLUMNS = (
    name_column("path", shortest=24),
    Column("what", styles={"only in A": "yellow", "only in B": "yellow", "not comparable": "yellow"}),
    number_column("change"),
    number_column("distance", rank=2),
    number_column("cosine", rank=3),
    number_column("norm of A", rank=4),
    number_column("norm of B", rank=4),
    name_column("dtype", rank=1),
    name_column("shape", rank=1),
)
_LAYER_COLUMNS = (
    name_column("layer", shortest=24),
    number_column("tensors"),
    number_column("changed"),
    number_column("change"),
    number_column("distance", rank=2),
    number_column("norm of A", rank=3),
    number_column("norm of B", rank=3),
)


def show_tensors(frame: pl.DataFrame) -> None:
    """Print those tensors that differ, and how many there are."""
    rows = [row for row in frame.iter_rows(named=True) if not row["is_same"]]
    if rows:
        console.note(console.table(_TENSOR_COLUMNS, [_tensor_cells(row) for row in rows]))
    total = wording.count(len(frame), "tensor")
    console.line(f"{len(rows):,} of {total} differ" if rows else f"no difference in {total}")


def show_layers(frame: pl.DataFrame) -> None:
    """Print tensors summed up by layer."""
    rows = [
        [
            row["layer"],
            f"{row['num_tensors']:,}",
            f"{row['num_changed']:,}",
            _percent(row["relative_change"]),
            *(wording.number(row[name]) for name in ("l2_distance", "norm_a", "norm_b")),
        ]
        for row in frame.iter_rows(named=True)
    ]
    console.note(console.table(_LAYER_COLUMNS, rows))


def _tensor_cells(row: Row) -> list[str]:
    return [
        row["path"],
        _what(row),
        _percent(row["relative_change"]),
        *(wording.number(row[name]) for name in ("l2_distance", "cosine_similarity", "norm_a", "norm_b")),
        _both(row["dtype_a"], row["dtype_b"]),
        _both(_shape(row["shape_a"]), _shape(row["shape_b"])),
    ]


def _what(row: Row) -> str:
    if not row["in_b"]:
        return "only in A"
    if not row["in_a"]:
        return "only in B"
    is_comparable = (row["dtype_a"], row["shape_a"]) == (row["dtype_b"], row["shape_b"])
    return "changed" if is_comparable else "not comparable"


def _shape(sizes: list[int] | None) -> str | None:
    return None if sizes is None else shape(sizes)


def _both(a: str | None, b: str | None) -> str:
    """Return what both have, or what has become of it."""
    if a is None or b is None or a == b:
        return (b if a is None else a) or "-"
    return f"{a} → {b}"


def _percent(share: float | None) -> str:
    """Return a relative change.

    >>> _percent(0.0123456), _percent(None), _percent(0.0), _percent(float("inf"))
    ('1.23%', '-', '0%', 'from 0')
    """
    if share is None:
        return "-"
    return "from 0" if share == float("inf") else f"{share * 100:.3g}%"
