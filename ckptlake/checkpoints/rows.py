"""What the tables record of checkpoints, made in one place."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Protocol

from ckptlake.checkpoints.codec.footer import StoredTensor as Entry
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.packed import Written
from ckptlake.checkpoints.statistics import TensorStatistics

Row = dict[str, object]


class Named(Protocol):
    """A checkpoint, by what every row about it says."""

    @property
    def checkpoint_id(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def experiment(self) -> str: ...

    @property
    def attempt(self) -> int: ...


def event_row(checkpoint: Named, event: str, ts: datetime, **columns: object) -> Row:
    """Return a row of `checkpoints` that tells something new of a checkpoint."""
    return {
        "checkpoint_id": checkpoint.checkpoint_id,
        "run_id": checkpoint.run_id,
        "experiment": checkpoint.experiment,
        "attempt": checkpoint.attempt,
        "ts": ts,
        "event": event,
        **columns,
    }


def saved_row(manifest: Manifest, ts: datetime, stored_bytes: int, duration_s: float) -> Row:
    """Return the row of `checkpoints` that makes a checkpoint known."""
    plain = manifest.file
    return event_row(
        manifest,
        "saved",
        ts,
        step=manifest.step,
        epoch=manifest.epoch,
        format=manifest.format,
        location=f"checkpoints/{manifest.checkpoint_id}.json" if plain is None else f"checkpoints/{plain.name}",
        digest=manifest.digest,
        logical_bytes=manifest.logical_bytes,
        stored_bytes=stored_bytes,
        num_tensors=len(manifest.tensors),
        metrics=list(manifest.metrics.items()),
        duration_s=duration_s,
        packs=sorted(manifest.packs),
        note=manifest.note,
    )


def tensor_rows(
    manifest: Manifest,
    ts: datetime,
    statistics: Mapping[str, TensorStatistics],
    previous_checkpoint_id: str | None = None,
    reused: frozenset[str] = frozenset(),
) -> list[Row]:
    """Return the rows of `tensors` of a checkpoint whose digests and statistics are known."""
    own = f"/{manifest.checkpoint_id}"
    rows: list[Row] = []
    for tensor in manifest.tensors:
        found = statistics[tensor.path]
        is_own = tensor.path not in reused and tensor.pack.endswith(own)
        rows.append(
            {
                "experiment": manifest.experiment,
                "run_id": manifest.run_id,
                "checkpoint_id": manifest.checkpoint_id,
                "step": manifest.step,
                "ts": ts,
                "path": tensor.path,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "num_elements": tensor.num_elements,
                "nbytes": tensor.nbytes,
                "digest": tensor.digest,
                "pack": tensor.pack,
                "codec": "raw" if is_own else "shared",
                "stored_bytes": tensor.nbytes if is_own else 0,
                **_columns(found),
                "previous_checkpoint_id": previous_checkpoint_id if found.l2_distance is not None else None,
            }
        )
    return rows


def recoded_rows(rows: Iterable[Row], entries: Mapping[str, Entry], pack: str, ts: datetime) -> list[Row]:
    """Return the rows of `tensors` of a checkpoint, of which a pack was compressed, as they are from now on.

    Tensors with the same content are stored once, so the bytes stand at the first of them.
    """
    found: list[Row] = []
    told: set[str] = set()
    for row in rows:
        digest = str(row["digest"])
        if row["pack"] != pack or digest not in entries:
            continue
        entry = entries[digest]
        columns: Row = {"codec": entry.codec, "stored_bytes": entry.stored_bytes}
        if digest in told:
            columns = {"codec": "shared", "stored_bytes": 0}
        told.add(digest)
        found.append({**row, **columns, "ts": ts})
    return found


def trimmed_rows(rows: Iterable[Row], kept: Container[object], ts: datetime) -> list[Row]:
    """Return the rows of `tensors` of those that a checkpoint has lost; their statistics stay to be read."""
    gone: Row = {"codec": "trimmed", "pack": None, "stored_bytes": 0, "ts": ts}
    return [{**row, **gone} for row in rows if row["path"] not in kept]


_STATISTICS = tuple(field.name for field in fields(TensorStatistics))


def _columns(statistics: TensorStatistics) -> Row:
    return {name: getattr(statistics, name) for name in _STATISTICS}


def rows_of_save(
    written: Written, ts: datetime, duration_s: float, *, alias: str | None, pin: bool, previous_id: str | None
) -> list[tuple[str, Sequence[Row]]]:
    """Return the rows that make a save known, in the order in which they are to be written."""
    manifest = written.manifest
    events = [saved_row(manifest, ts, written.stored_bytes, duration_s)]
    if pin:
        events.append(event_row(manifest, "pinned", ts))
    if alias is not None:
        events.append(event_row(manifest, "aliased", ts, alias=alias))
    tensors: list[Row] = []
    if manifest.digest is not None:
        tensors = tensor_rows(manifest, ts, written.statistics, previous_id, written.reused)
    return [("tensors", tensors), ("checkpoints", events)]
