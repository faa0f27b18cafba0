"""Two checkpoints compared tensor by tensor, from their bytes, a few megabytes at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ckptlake.checkpoints.contents import Contents, open_contents
from ckptlake.checkpoints.foreign.mapped import windowed
from ckptlake.checkpoints.foreign.places import places
from ckptlake.checkpoints.leaves import JSON, LeafInfo
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.opened import info_of
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.statistics import Accumulator, TensorStatistics
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.windows import Window
from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    import polars as pl

_PIECE = 4 << 20
Read = Callable[[int, int], memoryview]


@dataclass(frozen=True, slots=True)
class _Side:
    """One tensor of one of both checkpoints, under one of the paths it has."""

    info: LeafInfo
    digest: str | None
    read: Read

    def piece(self, start: int) -> memoryview:
        return self.read(start, min(start + _PIECE, self.info.nbytes))

    def accumulator(self) -> Accumulator:
        return Accumulator(self.info.dtype, self.info.num_elements)


def _sides(store: CheckpointStore, manifest: Manifest) -> tuple[dict[str, _Side], Contents]:
    """Return the tensors of a checkpoint by path, tied ones under each of theirs, and what they are read from."""
    contents = open_contents(store, manifest)
    infos = [info_of(tensor) for tensor in manifest.tensors]
    sides = {
        info.path: _Side(info, tensor.digest, partial(contents.slice, number))
        for number, (info, tensor) in enumerate(zip(infos, manifest.tensors, strict=True))
    }
    for place in places(cast(JSON, manifest.tree)):
        if place.path in sides or place.leaf < 0:
            continue
        found = sides[infos[place.leaf].path]
        if place.window is not None:
            read = _reads_window(infos[place.leaf], place.window, found.read)
            found = _Side(replace(found.info, shape=place.window.shape), None, read)
        sides[place.path] = found
    return sides, contents


def compare(store: CheckpointStore, a: Manifest, b: Manifest) -> pl.DataFrame:
    """Return a row for each tensor path of two checkpoints; `lake.checkpoints.diff` tells the columns and errors."""
    import polars as pl

    before, after = _sides(store, a), _sides(store, b)
    try:
        paths = dict.fromkeys([*before[0], *after[0]])
        rows = in_parallel(_row, [(path, before[0].get(path), after[0].get(path)) for path in paths], _size)
    finally:
        for _, contents in (before, after):
            contents.close()
    frame = pl.DataFrame(rows, schema=_schema(), orient="row")
    return frame.sort("relative_change", "path", descending=[True, False], nulls_last=True)


def by_layer(frame: pl.DataFrame, depth: int = 2) -> pl.DataFrame:
    """Add up what `compare` has found by the first levels of the paths, split at ``/`` and ``.``.

    Args:
        frame: rows of `compare`.
        depth: how many levels make a layer.

    Returns:
        ``layer``, ``num_tensors``, ``num_changed`` (those that are not the same, or in one of both alone), ``norm_a``,
        ``norm_b``, ``l2_distance`` and ``relative_change``, largest relative change first. Norms and distances are
        roots of sums of squares, over tensors that have a distance.

    Raises:
        InvalidInputError: the depth is not positive.
    """
    import polars as pl

    if depth < 1:
        raise InvalidInputError(f"a layer has at least one level, got depth={depth}")
    layer = pl.col("path").str.extract(rf"^([^./]*(?:[./][^./]*){{0,{depth - 1}}})", 1).alias("layer")
    is_compared = pl.col("l2_distance").is_not_null()

    def norm(name: str) -> pl.Expr:
        return pl.col(name).filter(is_compared).pow(2).sum().sqrt().alias(name)

    found = frame.group_by(layer, maintain_order=True).agg(
        pl.len().alias("num_tensors"),
        pl.col("is_same").eq_missing(True).not_().sum().alias("num_changed"),
        norm("norm_a"),
        norm("norm_b"),
        norm("l2_distance"),
        is_compared.any().alias("compared"),
    )
    change = pl.when(pl.col("l2_distance") == 0).then(0.0).otherwise(pl.col("l2_distance") / pl.col("norm_a"))
    figures = [pl.col("norm_a"), pl.col("norm_b"), pl.col("l2_distance"), change.alias("relative_change")]
    return (
        found.with_columns(pl.when("compared").then(figure) for figure in figures)
        .drop("compared")
        .sort("relative_change", "layer", descending=[True, False], nulls_last=True)
    )


def _reads_window(info: LeafInfo, window: Window, read: Read) -> Read:
    return lambda start, stop: windowed(info, window, read)[start:stop]


def _size(pair: tuple[str, _Side | None, _Side | None]) -> int:
    return sum(side.info.nbytes for side in pair[1:] if side is not None)


def _row(pair: tuple[str, _Side | None, _Side | None]) -> tuple[Any, ...]:
    path, a, b = pair
    told: list[Any] = [path, a is not None, b is not None]
    told += [None if side is None else side.info.dtype.name for side in (a, b)]
    told += [None if side is None else list(side.info.shape) for side in (a, b)]
    if a is None or b is None or (a.info.dtype, a.info.shape) != (b.info.dtype, b.info.shape):
        is_same = None if a is None or b is None else False
        return (*told, is_same, _norm(a), _norm(b), None, None, None)
    if a.digest is not None and a.digest == b.digest:
        norm = _norm(a)
        return (*told, True, norm, norm, *_unmoved(norm))
    is_same, before, after = _walk(a, b)
    norm_a, norm_b = before.l2_norm, after.l2_norm
    if is_same:
        return (*told, True, norm_a, norm_a, *_unmoved(norm_a))
    distance = after.l2_distance
    return (*told, False, norm_a, norm_b, distance, after.cosine_similarity, _relative(distance, norm_a))


def _walk(a: _Side, b: _Side) -> tuple[bool, TensorStatistics, TensorStatistics]:
    """Return whether two tensors have the same bytes, and the statistics of both, the second against the first."""
    before, after, is_same = a.accumulator(), b.accumulator(), True
    for start in range(0, a.info.nbytes, _PIECE):
        old, new = a.piece(start), b.piece(start)
        is_same = is_same and old == new
        before.update(old)
        after.update(new, old)
    return is_same, before.result(), after.result()


def _norm(side: _Side | None) -> float | None:
    if side is None:
        return None
    accumulator = side.accumulator()
    for start in range(0, side.info.nbytes, _PIECE):
        accumulator.update(side.piece(start))
    return accumulator.result().l2_norm


def _unmoved(norm: float | None) -> tuple[float | None, float | None, float | None]:
    """Return distance, cosine and relative change of a tensor that stayed what it was."""
    return (0.0, None if norm is None else 1.0, 0.0)


def _relative(distance: float | None, norm: float | None) -> float | None:
    if distance is None:
        return None
    if not norm:
        return float("inf") if distance else 0.0
    return distance / norm


def _schema() -> dict[str, Any]:
    import polars as pl

    text, number, flag, sizes = pl.String(), pl.Float64(), pl.Boolean(), pl.List(pl.Int64())
    columns = {"path": text, "in_a": flag, "in_b": flag, "dtype_a": text, "dtype_b": text}
    columns |= {"shape_a": sizes, "shape_b": sizes, "is_same": flag, "norm_a": number, "norm_b": number}
    return columns | {"l2_distance": number, "cosine_similarity": number, "relative_change": number}
