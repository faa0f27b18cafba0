"""A checkpoint as the tables describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ckptlake._internal.names import check_name
from ckptlake.errors import InvalidInputError

RESERVED = frozenset({"latest", "best", "latest_good"})
"""Names that are worked out when they are asked for."""


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """What a lake knows of one checkpoint.

    Attributes:
        status: ``good``, or ``quarantined`` where a check found it damaged.
        digest: the root over everything in it, or None while that is deferred.
        logical_bytes: bytes of all its tensors.
        stored_bytes: bytes that it alone added to the lake.
        metrics: values by name that it was saved with.
        aliases: its own names; `latest` and `best` are worked out when asked for.
        verdict: of its newest verification, or None.
        location: its file, relative to the lake.
    """

    id: str
    run_id: str
    experiment: str
    attempt: int
    step: int | None
    epoch: int | None
    saved_at: datetime
    format: str
    status: str
    digest: str | None
    logical_bytes: int
    stored_bytes: int
    num_tensors: int
    metrics: Mapping[str, float]
    aliases: tuple[str, ...]
    pinned: bool
    note: str | None
    location: str
    verdict: str | None = None
    verified_level: str | None = None
    verified_at: datetime | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CheckpointRecord:
        """Return the record that a row of the view `checkpoints` describes."""
        names = {name: row[name] for name in cls.__slots__ if name in row}
        return cls(
            **{
                **names,
                "id": row["checkpoint_id"],
                "metrics": dict(row["metrics"] or ()),
                "aliases": tuple(row["aliases"] or ()),
            }
        )


def check_alias(name: object) -> str:
    """Return a name that a checkpoint may be given.

    Raises:
        InvalidInputError: it is empty, worked out by itself, or looks like a step or an id.
    """
    alias = check_name("an alias", name)
    if alias in RESERVED or alias.startswith("best:"):
        raise InvalidInputError(f"the alias {alias!r} is worked out by itself: choose another name")
    if alias.lstrip("-").isdigit():
        raise InvalidInputError(f"the alias {alias!r} looks like a step: choose another name")
    return alias
