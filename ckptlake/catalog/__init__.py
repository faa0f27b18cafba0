"""The checkpoints of a lake, as `lake.checkpoints` offers them. It puts the packages together."""

from __future__ import annotations

from ckptlake.catalog.care import Care
from ckptlake.catalog.exchange import Exchange
from ckptlake.catalog.space import Space


class Checkpoints(Space, Care, Exchange):
    """All checkpoints of a lake: find, load, name, compare, verify, repair, export, prune and compress them."""

    def __repr__(self) -> str:
        return f"Checkpoints({str(self._store.layout.root)!r})"
