"""The turn of one checkpoint in a steady reading of all: what has been read, how fast it may go on, and where it is."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.checksums import CHECKED_BYTES
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import DamagedCheckpointError
from ckptlake.integrity.coverage import Coverage
from ckptlake.integrity.pieces import STRETCH_BYTES, FileFaultError, Level, Pass, Piece, PieceReader

logger = logging.getLogger(__name__)
_LEAST_WAIT_S = 0.001  # more than any clock's step


class Pace:
    """A token bucket of bytes that may be read; it is empty at first and holds what a second allows, or 16 MiB.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    >>> pace = Pace(1000.0, noon)
    >>> pace.wait_s(500, noon), pace.wait_s(500, noon + timedelta(seconds=0.5))
    (0.5, 0.0)
    """

    def __init__(self, bytes_per_s: float, now: datetime) -> None:
        self._bytes_per_s = bytes_per_s
        self._most = max(bytes_per_s, float(STRETCH_BYTES))
        self._balance = 0.0
        self._at = now

    def wait_s(self, nbytes: int, now: datetime) -> float:
        """Return how many seconds it takes until so many bytes may be read."""
        passed = max(0.0, (now - self._at).total_seconds())
        self._balance = min(self._most, self._balance + passed * self._bytes_per_s)
        self._at = max(self._at, now)
        missing = nbytes - self._balance
        return 0.0 if missing <= 0 else max(missing / self._bytes_per_s, _LEAST_WAIT_S)

    def spend(self, nbytes: int) -> None:
        """Take bytes as read, be they allowed or not."""
        self._balance -= nbytes


class Turn:
    """A checkpoint that is being read.

    Args:
        store: the lake's checkpoints.
        checkpoint_id: which of them.
        pieces: all it is made of.
        due: those to read now, in this order.
        level: ``fast`` or ``digest``.

    Attributes:
        bytes_read: bytes that were compared.
        due_bytes: about how many there are still to compare.
        good: pieces that are as they were written, and when each was begun.
        faulty: pieces that are not.
        faulty_files: files of which nothing can be read.
        numbers: the places of all pieces.
    """

    def __init__(
        self, store: CheckpointStore, checkpoint_id: str, pieces: Sequence[Piece], due: Sequence[Piece], level: Level
    ) -> None:
        self.checkpoint_id = checkpoint_id
        self.bytes_read = 0
        self.good: dict[Piece, datetime] = {}
        self.faulty: list[Piece] = []
        self.faulty_files: set[str] = set()
        self.numbers = {piece: number for number, piece in enumerate(pieces)}
        self.due_bytes = sum(piece.nbytes for piece in due)
        self._due = due
        self._next = 0
        self._reader = PieceReader(store)
        self._level = level
        self._pass: Pass | None = None
        self._begun: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Whether all that was due has been read."""
        return self._next >= len(self._due)

    @property
    def partial(self) -> tuple[Piece, int, datetime] | None:
        """The piece that is read in part, if any, how many bytes of it, and when it was begun."""
        if self._pass is None or self._begun is None:
            return None
        return self._due[self._next], self._pass.position, self._begun

    def resume(self, piece: Piece, position: int, begun: datetime) -> None:
        """Go on in the middle of a piece, if that is the first that is due."""
        if not self.is_done and self._next == 0 and self._due[0] == piece:
            self._begun, self._pass = begun, Pass(self._reader, piece, self._level, position)

    def next_bytes(self) -> int:
        """Return how many bytes `advance` reads."""
        position = self._pass.position if self._pass is not None else 0
        return min(STRETCH_BYTES, self._due[self._next].nbytes - position)

    def advance(self, now: datetime) -> None:
        """Compare as many bytes as that; of a piece that is damaged the rest is passed over."""
        piece = self._due[self._next]
        self.due_bytes -= self.next_bytes()
        if self._pass is None or self._begun is None:
            self._begun, self._pass = now, Pass(self._reader, piece, self._level)
        try:
            self.bytes_read += self._pass.advance()
            if not self._pass.is_done:
                return
            self.good[piece] = self._begun
        except DamagedCheckpointError as error:
            logger.warning("checkpoint %s: %s", self.checkpoint_id, error)
            self.faulty.append(piece)
            if isinstance(error, FileFaultError):
                self.faulty_files.add(piece.file)
        self._next, self._pass, self._begun = self._next + 1, None, None

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()


class Cursor:
    """The file that tells how far into a checkpoint a reading has come; one that cannot be read is as none."""

    def __init__(self, path: Path, level: Level) -> None:
        self._path = path
        self._level = level
        self._checkpoint_id: str | None = None
        self._good: dict[int, datetime] = {}
        self._partial: tuple[int, int, datetime] | None = None

    def restore(self, coverage: Coverage) -> list[str]:
        """Take what a reading before has read as read; return the checkpoint it was at, if that is still there."""
        try:
            fields = json.loads(self._path.read_text())
            checkpoint_id, count = str(fields["checkpoint_id"]), int(fields["pieces"])
            good = {int(number): _moment(text) for number, text in fields["good"]}
            partial = None
            if fields["partial"] is not None:
                number, position, text = fields["partial"]
                partial = (int(number), int(position), _moment(text))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
            return []
        pieces = coverage.pieces(checkpoint_id) if checkpoint_id in coverage else []
        if len(pieces) != count or not all(0 <= number < count for number in good):
            return []
        for number, at in good.items():
            coverage.note(pieces[number], at)
        self._checkpoint_id, self._good, self._partial = checkpoint_id, good, partial
        return [checkpoint_id]

    def resume(self, turn: Turn) -> None:
        """Let a turn go on in the middle of a piece where a reading before has stopped."""
        if turn.checkpoint_id != self._checkpoint_id or self._partial is None or self._level != "fast":
            return
        number, position, begun = self._partial
        pieces = {number: piece for piece, number in turn.numbers.items()}
        piece = pieces.get(number)
        if piece is not None and 0 < position < piece.nbytes and position % CHECKED_BYTES == 0:
            turn.resume(piece, position, begun)

    def write(self, turn: Turn) -> None:
        """Keep how far a turn has come.

        Raises:
            StorageError: the disk refused.
        """
        if turn.checkpoint_id != self._checkpoint_id:
            self._checkpoint_id, self._good = turn.checkpoint_id, {}
        self._good |= {turn.numbers[piece]: at for piece, at in turn.good.items()}
        self._partial = None
        if turn.partial is not None:
            piece, position, begun = turn.partial
            self._partial = (turn.numbers[piece], position, begun)
        fields: dict[str, Any] = {
            "checkpoint_id": turn.checkpoint_id,
            "pieces": len(turn.numbers),
            "good": [[number, at.isoformat()] for number, at in self._good.items()],
            "partial": None if self._partial is None else [*self._partial[:2], self._partial[2].isoformat()],
        }
        partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.partial")
        with storage_errors("keep how far the verification has come", self._path):
            self._path.parent.mkdir(exist_ok=True)
            partial.write_text(json.dumps(fields))
            partial.rename(self._path)

    def clear(self) -> None:
        """Forget what was kept: the turn is over."""
        self._checkpoint_id, self._good, self._partial = None, {}, None
        self._path.unlink(missing_ok=True)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r:.60} tells no time zone")
    return moment
