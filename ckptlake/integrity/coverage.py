"""When each stored piece was last compared with what was written, worked out from when its checkpoints were."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import DamagedCheckpointError
from ckptlake.integrity.pieces import Piece, pieces_of, read_whole_manifest


@dataclass(frozen=True, slots=True)
class Target:
    """A checkpoint to watch over.

    Attributes:
        saved_at: since when its bytes are there.
        verified_from: before its newest check read the first of its bytes, or None where there was none.
    """

    checkpoint_id: str
    saved_at: datetime
    verified_from: datetime | None = None


@dataclass(slots=True)
class _Stored:
    """A piece: since when it is there, and since when it is known to be as it was written."""

    piece: Piece
    there_since: datetime
    read_at: datetime | None = None


class Coverage:
    """Keeps for every piece of some checkpoints when it was last read, however many of them hold it."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._targets: dict[str, Target] = {}
        self._holds: dict[str, tuple[_Stored, ...]] = {}
        self._identities: dict[str, tuple[int, int, int] | None] = {}
        self._stored: dict[Piece, _Stored] = {}

    def refresh(self, targets: Iterable[Target]) -> None:
        """Take these checkpoints for those there are; manifests that are new, or have changed, are read."""
        self._targets = {target.checkpoint_id: target for target in targets}
        holds, identities = self._holds, self._identities
        self._holds, self._identities = {}, {}
        for name, target in self._targets.items():
            identity = self._identities[name] = self._identity(name)
            is_known = identity is not None and identity == identities.get(name)
            known = self._holds[name] = holds[name] if is_known else tuple(self._adopted(target))
            for stored in known:
                stored.there_since = min(stored.there_since, target.saved_at)
                stored.read_at = _later(stored.read_at, target.verified_from)
        live = {stored.piece for known in self._holds.values() for stored in known}
        self._stored = {piece: stored for piece, stored in self._stored.items() if piece in live}

    def _identity(self, checkpoint_id: str) -> tuple[int, int, int] | None:
        """Return what tells a manifest from one that takes its place, or None where there is none."""
        try:
            facts = self._store.manifest_path(checkpoint_id).stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def _adopted(self, target: Target) -> Iterator[_Stored]:
        try:
            manifest = read_whole_manifest(self._store, target.checkpoint_id)
        except DamagedCheckpointError:  # what is wrong with it is found when its turn comes
            return
        for piece in pieces_of(manifest):
            yield self._stored.setdefault(piece, _Stored(piece, target.saved_at))

    def __contains__(self, checkpoint_id: str) -> bool:
        return checkpoint_id in self._targets

    def __len__(self) -> int:
        return len(self._targets)

    def pieces(self, checkpoint_id: str) -> list[Piece]:
        """Return the pieces of a checkpoint; none where its manifest cannot be read."""
        return [stored.piece for stored in self._holds[checkpoint_id]]

    def pieces_in(self, files: Collection[str]) -> list[Piece]:
        """Return all pieces in some files."""
        return [piece for piece in self._stored if piece.file in files]

    def read_at(self, piece: Piece) -> datetime | None:
        """Return when a piece was last read, or None."""
        return self._stored[piece].read_at

    def note(self, piece: Piece, at: datetime) -> None:
        """Take a piece as read."""
        self._stored[piece].read_at = _later(self._stored[piece].read_at, at)

    def note_verified(self, checkpoint_id: str, verified_from: datetime) -> None:
        """Take a checkpoint as verified, each of its bytes after `verified_from`."""
        self._targets[checkpoint_id] = replace(self._targets[checkpoint_id], verified_from=verified_from)

    def holders(self, pieces: Sequence[Piece]) -> list[str]:
        """Return the checkpoints that hold one of some pieces."""
        wanted = set(pieces)
        return [name for name, known in self._holds.items() if any(stored.piece in wanted for stored in known)]

    def is_due(self, checkpoint_id: str, horizon: datetime) -> bool:
        """Tell whether something of a checkpoint was not looked at since a moment."""
        since = self._targets[checkpoint_id].verified_from
        if since is None:
            return True
        known = self._holds[checkpoint_id]
        return any(_is_before(stored.read_at, horizon) for stored in known) if known else since <= horizon

    def due(self, horizon: datetime) -> list[str]:
        """Return the checkpoints that are due: never verified, the newest first, then the longest ago."""
        found = [target for target in self._targets.values() if self.is_due(target.checkpoint_id, horizon)]
        fresh = sorted((t for t in found if t.verified_from is None), key=lambda t: t.saved_at, reverse=True)
        known = sorted((t for t in found if t.verified_from is not None), key=lambda t: (t.verified_from, t.saved_at))
        return [target.checkpoint_id for target in (*fresh, *known)]

    def oldest(self) -> datetime | None:
        """Return since when some byte has not been looked at, or None where there are no checkpoints."""
        moments = [stored.read_at or stored.there_since for stored in self._stored.values()]
        moments += [t.verified_from or t.saved_at for t in self._targets.values() if not self._holds[t.checkpoint_id]]
        return min(moments, default=None)

    def total_bytes(self) -> int:
        """Return the bytes of all pieces."""
        return sum(piece.nbytes for piece in self._stored)

    def read_bytes(self, horizon: datetime) -> int:
        """Return the bytes of those pieces that were read after a moment."""
        return sum(s.piece.nbytes for s in self._stored.values() if not _is_before(s.read_at, horizon))


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)


def _is_before(moment: datetime | None, horizon: datetime) -> bool:
    return moment is None or moment <= horizon
