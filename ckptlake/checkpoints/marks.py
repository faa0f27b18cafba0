"""What the tables say is still needed: checkpoints that are not deleted, their packs, and the bases of those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ckptlake.checkpoints.rows import Row

PACK_FOLDER = "blobs/"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Holding:
    """What the tables know of one checkpoint, be it there or deleted.

    Attributes:
        packs: the files its tensors lie in, relative to the lake and without suffix; None where no row tells.
        digest: the newest root over everything in it that was recorded.
        saved_us: when it was saved, in microseconds since 1970.
        changed_us: the time of its newest event.
    """

    checkpoint_id: str
    run_id: str
    experiment: str
    attempt: int
    is_deleted: bool
    is_trimmed: bool
    packs: tuple[str, ...] | None
    digest: str | None
    saved_us: int
    changed_us: int


@dataclass(frozen=True, slots=True)
class Marks:
    """What refers to what, as of one moment.

    Attributes:
        holdings: checkpoints by id.
        recodings: of each pack that was compressed the packs that hold the bases of its deltas, as last recorded.
    """

    holdings: Mapping[str, Holding] = field(default_factory=dict)
    recodings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def live(self) -> Iterator[Holding]:
        """Yield the checkpoints that are not deleted."""
        return (one for one in self.holdings.values() if not one.is_deleted)

    def is_deleted(self, checkpoint_id: str) -> bool:
        """Tell whether a row says that this checkpoint was deleted; of one without any row none does."""
        return checkpoint_id in self.holdings and self.holdings[checkpoint_id].is_deleted

    def bases_of(self, pack: str) -> tuple[str, ...]:
        """Return the packs that a compressed one needs; one that is not recorded as compressed needs none."""
        return self.recodings.get(pack, ())


class Referrers:
    """Tells of each pack who refers to it."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._unknown = [holding for holding in marks.live() if holding.packs is None]
        self._holders: dict[str, list[Holding]] = {}
        self._dependents: dict[str, list[str]] = {}
        for holding in marks.live():
            for pack in holding.packs or ():
                self._holders.setdefault(pack, []).append(holding)
        for dependent, bases in marks.recodings.items():
            for pack in bases:
                self._dependents.setdefault(pack, []).append(dependent)

    def of(self, pack: str) -> Marks:
        """Return the marks that concern a pack alone."""
        holders = [*self._unknown, *self._holders.get(pack, ())]
        dependents = self._dependents.get(pack, ())
        return Marks(
            {holding.checkpoint_id: holding for holding in holders},
            {name: self._marks.bases_of(name) for name in dependents},
        )


class Ledger(Protocol):
    """Answers from the tables about checkpoints, always as they are now."""

    def marks(self, pack: str | None = None) -> Marks:
        """Return all marks, or those that concern one pack: who refers to it, who wrote it, its own recoding."""
        ...

    def tensors(self, owner: Holding) -> Sequence[Row]:
        """Return the newest row of `tensors` of each tensor of a checkpoint."""
        ...


def closed_over_bases(packs: Iterable[str], bases_of: Callable[[str], Iterable[str]]) -> set[str]:
    """Return packs with all that their deltas are based on.

    >>> sorted(closed_over_bases(["c"], {"c": ["b"], "b": ["a"], "a": []}.__getitem__))
    ['a', 'b', 'c']
    """
    found: set[str] = set()
    waiting = list(packs)
    while waiting:
        pack = waiting.pop()
        if pack not in found:
            found.add(pack)
            waiting.extend(bases_of(pack))
    return found


def pack_of(checkpoint_id: str) -> str:
    """Return the name of the pack that a checkpoint wrote, or would have written."""
    return f"{PACK_FOLDER}{checkpoint_id}"


def owner_of(pack: str) -> str:
    """Return the id of the checkpoint that wrote a pack.

    >>> owner_of(pack_of("20261123-154105-k3f9qz2mtb"))
    '20261123-154105-k3f9qz2mtb'
    """
    return pack.rpartition("/")[2]


def microseconds(moment: datetime) -> int:
    """Return a time as microseconds since 1970.

    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    return (moment - _BEGINNING) // _TICK


def moment_after(*earlier_us: int) -> datetime:
    """Return the time now, or where the clock was set back the first moment after all of `earlier_us`."""
    return max(datetime.now(UTC), *(_BEGINNING + (earlier + 1) * _TICK for earlier in earlier_us))
