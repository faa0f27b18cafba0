"""Checkpoints against the libraries people save with: speed, memory, stalls, bytes, and questions at scale."""

from __future__ import annotations

from benchmarks import checkpoint_bytes, checkpoint_catalog, checkpoint_speed
from benchmarks.harness import Context, Row


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    rows = []
    for name, part in (("speed", checkpoint_speed), ("bytes", checkpoint_bytes), ("catalog", checkpoint_catalog)):
        scratch = context.scratch / name
        scratch.mkdir()
        rows += part.run(Context(data=context.data, scratch=scratch, quick=context.quick, large=context.large))
    return rows
