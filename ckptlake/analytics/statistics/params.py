"""Param columns as they come: flat, nested in structs, or as JSON objects in one column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl


def flattened(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with one flat column for each param that is nested in a struct or in a JSON object.

    A nested param is named by its path, as ``optim.lr``. Lists become their JSON text. A param that a run does not have
    is null. Columns that are flat already stay as they are.

    Example:
        >>> frame = pl.DataFrame({"params": ['{"lr": 0.1, "optim": {"name": "adam"}}', '{"lr": 0.2}']})
        >>> flattened(frame).to_dict(as_series=False)
        {'params.lr': [0.1, 0.2], 'params.optim.name': ['adam', None]}
    """
    columns: list[pl.Series] = []
    for column in frame.get_columns():
        objects = _objects(column)
        if objects is not None:
            columns += _columns(column.name, objects)
        elif isinstance(column.dtype, pl.List | pl.Array):
            columns.append(_series(column.name, column.to_list()))
        else:
            columns.append(column)
    return pl.DataFrame(columns)


def _objects(column: pl.Series) -> list[Mapping[str, Any]] | None:
    """Return the objects of a column, empty where null; None if it holds anything else."""
    if isinstance(column.dtype, pl.Struct):
        return [row or {} for row in column]
    if column.dtype != pl.String or not column.str.starts_with("{").any():
        return None
    try:
        rows = [{} if text is None else json.loads(text) for text in column]
    except json.JSONDecodeError:
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _columns(name: str, objects: list[Mapping[str, Any]]) -> list[pl.Series]:
    rows = [dict(_leaves(name, each)) for each in objects]
    keys = dict.fromkeys(key for row in rows for key in row)
    parents = {key.rpartition(".")[0] for key in keys}
    columns = [_series(key, [row.get(key) for row in rows]) for key in keys]
    return [column for column in columns if column.name not in parents or column.null_count() < len(rows)]


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]
    return [(path, value)]


def _series(name: str, values: list[Any]) -> pl.Series:
    """Return a column of one type: numbers, bools or texts as they are, anything mixed as JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds in ({bool}, {str}):
        return pl.Series(name, values, strict=False)
    return pl.Series(name, [None if value is None else json.dumps(value, default=str) for value in values])
