"""A slow, steady reading of all checkpoints, so that damage is found while other copies are still there.

What was verified when is told by the rows of `verifications`; a small file under ``cache/`` tells how far into a
large checkpoint the monitor has come, so it goes on there after a restart.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ckptlake._internal.clock import Clock
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import InvalidInputError
from ckptlake.integrity.coverage import Coverage, Target
from ckptlake.integrity.pieces import STRETCH_BYTES, Level, Piece
from ckptlake.integrity.turns import Cursor, Pace, Turn
from ckptlake.integrity.verification import Verification, Verifier

BYTES_PER_S = 32e6
EVERY_S = 604_800.0
_REFRESH_S = 60.0  # how often new checkpoints are looked for
_ENOUGH_S = 0.25  # how long a step waits at least, where there is that much to read


@dataclass(frozen=True, slots=True)
class Scrub:
    """How checkpoints are watched over.

    Attributes:
        bytes_per_s: how much may be read.
        level: ``fast`` compares checksums, which costs a processor little; ``digest`` compares SHA-256.
        every_s: how often, in seconds, each byte is to be read; a week by default.
    """

    bytes_per_s: float = BYTES_PER_S
    level: Level = "fast"
    every_s: float = EVERY_S

    def __post_init__(self) -> None:
        if self.level not in ("fast", "digest"):
            raise InvalidInputError(f"a monitor's level must be 'fast' or 'digest', got {self.level!r:.40}")
        for name, value in (("bytes_per_s", self.bytes_per_s), ("every_s", self.every_s)):
            if not 0 < value < 1e15:
                raise InvalidInputError(f"{name} must lie between 0 and 1e15, got {value!r:.40}")


class Logbook(Protocol):
    """What the tables know of checkpoints, and where new checks are recorded."""

    def targets(self) -> Sequence[Target]:
        """Return the checkpoints that are there."""
        ...

    def record(self, found: Verification) -> Verification | None:
        """Record a check, or return None where its checkpoint has been deleted meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did.

    Attributes:
        bytes_read: bytes that were compared.
        wait_s: how long nothing is to be done now; 0 where the next step can follow at once.
        found: the check that it completed, if any.
    """

    bytes_read: int = 0
    wait_s: float = 0.0
    found: Verification | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How well checkpoints are watched over.

    Attributes:
        oldest_unverified_age_s: for how long some stored byte has not been looked at; one that never was counts from
            when it was saved. None where there are no checkpoints.
        checkpoints: how many are watched.
        total_bytes: bytes they are made of, those they share once.
        verified_bytes: of those the bytes that were compared within the monitor's period.
        bytes_read: bytes that this monitor has read.
        damaged: checkpoints it found damaged, each with the finding.
    """

    at: datetime
    oldest_unverified_age_s: float | None
    checkpoints: int
    total_bytes: int
    verified_bytes: int
    bytes_read: int
    damaged: tuple[tuple[str, str], ...]

    @property
    def coverage(self) -> float:
        """The share of bytes that were compared within the monitor's period."""
        return self.verified_bytes / self.total_bytes if self.total_bytes else 1.0

    def sentence(self) -> str:
        """Return it in words.

        >>> Status(datetime(2026, 11, 23, tzinfo=UTC), 90.0, 2, 4_000, 1_000, 500, ()).sentence()
        '25.0 % of 4,000 bytes of 2 checkpoints are verified, the oldest unverified byte is 90 s old; none is damaged'
        """
        if self.oldest_unverified_age_s is None:
            return "there are no checkpoints to watch over"
        damaged = f"{len(self.damaged):,} found damaged" if self.damaged else "none is damaged"
        return (
            f"{self.coverage:.1%}".replace("%", " %")
            + f" of {self.total_bytes:,} bytes of {self.checkpoints:,} checkpoints are verified, the oldest "
            f"unverified byte is {self.oldest_unverified_age_s:,.0f} s old; {damaged}"
        )


class Monitor:
    """Reads checkpoints again and again within a budget: those never verified first, then the longest ago.

    Bytes that several checkpoints share are read once a period. Nothing runs by itself: call `step`, or `run` in a
    thread of your own.

    Args:
        store: the lake's checkpoints.
        logbook: which there are, and where checks are recorded.
        scrub: how much is read, how closely and how often.
        now: tells the time.
        wait: waits for so many seconds or until `stop` is called.
    """

    def __init__(
        self,
        store: CheckpointStore,
        logbook: Logbook,
        scrub: Scrub | None = None,
        *,
        now: Callable[[], datetime] | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.scrub = scrub or Scrub()
        self._store = store
        self._logbook = logbook
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._now = now or _steady_time()
        self._wait = wait or self._stop.wait
        self._coverage = Coverage(store)
        self._cursor = Cursor(store.layout.cache / f"scrub-{self.scrub.level}.json", self.scrub.level)
        self._pace = Pace(self.scrub.bytes_per_s, self._now())
        self._queue: deque[str] = deque()
        self._refreshed_at: datetime | None = None
        self._turn: Turn | None = None
        self._bytes_read = 0
        self._damaged: dict[str, str] = {}
        self._urgent: deque[str] = deque()
        self._faulty: set[Piece] = set()

    def stop(self) -> None:
        """End `run`, from any thread, for good; a step that is under way is finished."""
        self._stop.set()

    def run(self, until: datetime | None = None) -> None:
        """Take steps until a moment, or until `stop` is called.

        Raises:
            StorageError: what was found cannot be recorded.
            LakeFormatError: a newer ckptlake wrote a checkpoint.
        """
        while not self._stop.is_set() and (until is None or self._now() < until):
            step = self.step()
            if step.wait_s > 0:
                left = step.wait_s if until is None else (until - self._now()).total_seconds()
                self._wait(max(0.0, min(step.wait_s, left)))

    def step(self) -> Step:
        """Compare up to 16 MiB that are due, or tell how long to wait for the budget or for something to do.

        Raises:
            StorageError: what was found cannot be recorded.
            LakeFormatError: a newer ckptlake wrote a checkpoint.
        """
        with self._lock:
            turn = self._turn = self._turn or self._begin()
            if turn is None:
                return Step(wait_s=self._until_refresh())
            before = turn.bytes_read
            if not turn.is_done:
                wait_s = self._pace.wait_s(self._amount(turn), self._now())
                if wait_s > 0:
                    return Step(wait_s=wait_s)
                self._read(turn)
            read = turn.bytes_read - before
            self._bytes_read += read
            return Step(read, found=self._finish(turn) if turn.is_done else None)

    def status(self) -> Status:
        """Return how well checkpoints are watched over now."""
        with self._lock:
            self._refresh()
            now, coverage = self._now(), self._coverage
            oldest = coverage.oldest()
            return Status(
                at=now,
                oldest_unverified_age_s=None if oldest is None else max(0.0, (now - oldest).total_seconds()),
                checkpoints=len(coverage),
                total_bytes=coverage.total_bytes(),
                verified_bytes=coverage.read_bytes(self._horizon()),
                bytes_read=self._bytes_read,
                damaged=tuple(self._damaged.items()),
            )

    def _amount(self, turn: Turn) -> int:
        """Return for how many bytes to wait, so that small pieces are not waited for one by one."""
        enough = min(STRETCH_BYTES, turn.due_bytes, int(self.scrub.bytes_per_s * _ENOUGH_S))
        return max(turn.next_bytes(), enough)

    def _read(self, turn: Turn) -> None:
        """Read pieces for as long as the budget that was waited for lasts."""
        room = STRETCH_BYTES
        while not turn.is_done and (wanted := turn.next_bytes()) <= room:
            if self._pace.wait_s(wanted, self._now()) > 0:
                break
            self._pace.spend(wanted)
            room -= wanted
            turn.advance(self._now())
        self._cursor.write(turn)

    def _horizon(self) -> datetime:
        return self._now() - timedelta(seconds=self.scrub.every_s)

    def _refresh(self) -> None:
        self._coverage.refresh(self._logbook.targets())
        self._damaged = {name: text for name, text in self._damaged.items() if name in self._coverage}
        if self._refreshed_at is None:
            self._urgent.extend(self._cursor.restore(self._coverage))
        self._refreshed_at = self._now()
        self._queue = deque(self._coverage.due(self._horizon()))

    def _until_refresh(self) -> float:
        if self._refreshed_at is None:
            return 0.0
        return max(0.0, _REFRESH_S - (self._now() - self._refreshed_at).total_seconds())

    def _begin(self) -> Turn | None:
        """Return the checkpoint whose turn it is, or None where nothing is due."""
        if self._until_refresh() == 0:
            self._refresh()
        while self._urgent:
            checkpoint_id = self._urgent.popleft()
            if checkpoint_id in self._coverage:
                return self._turn_of(checkpoint_id)
        while self._queue:
            checkpoint_id = self._queue.popleft()
            if checkpoint_id in self._coverage and self._coverage.is_due(checkpoint_id, self._horizon()):
                return self._turn_of(checkpoint_id)
        return None

    def _turn_of(self, checkpoint_id: str) -> Turn:
        horizon, pieces = self._horizon(), self._coverage.pieces(checkpoint_id)
        due = [
            piece
            for piece in pieces
            if piece not in self._faulty and ((at := self._coverage.read_at(piece)) is None or at <= horizon)
        ]
        turn = Turn(self._store, checkpoint_id, pieces, due, self.scrub.level)
        self._cursor.resume(turn)
        return turn

    def _finish(self, turn: Turn) -> Verification | None:
        """Give the verdict on a checkpoint all of which has been read; what seemed damaged is read once more."""
        turn.close()
        self._turn = None
        self._cursor.clear()
        coverage, verifier = self._coverage, Verifier(self._store, self.scrub.level, self._now)
        self._faulty.update(turn.faulty, coverage.pieces_in(turn.faulty_files))
        pieces = coverage.pieces(turn.checkpoint_id) if turn.checkpoint_id in coverage else []
        for piece in pieces:
            if piece in turn.good:
                coverage.note(piece, turn.good[piece])
            at = coverage.read_at(piece)
            if at is not None and piece not in self._faulty:
                verifier.remember(piece, at)
        found = next(verifier.check([turn.checkpoint_id]))
        self._pace.spend(found.bytes_read)
        self._bytes_read += found.bytes_read
        recorded = self._logbook.record(replace(found, bytes_read=found.bytes_read + turn.bytes_read))
        if recorded is not None and recorded.checkpoint_id in coverage:
            self._take_in(recorded, pieces)
        return recorded

    def _take_in(self, found: Verification, pieces: Sequence[Piece]) -> None:
        """Remember a verdict, and look soon at checkpoints that share what is damaged."""
        for piece in self._faulty.intersection(pieces):
            self._coverage.note(piece, found.verified_at)
        self._coverage.note_verified(found.checkpoint_id, found.verified_at - timedelta(seconds=found.duration_s))
        if found.is_good:
            self._faulty.difference_update(pieces)
            self._damaged.pop(found.checkpoint_id, None)
            return
        self._damaged[found.checkpoint_id] = str(found.finding)
        faulty = [piece for piece in pieces if piece in self._faulty]
        waiting = {*self._damaged, *self._urgent}
        self._urgent.extend(name for name in self._coverage.holders(faulty) if name not in waiting)


def _steady_time() -> Callable[[], datetime]:
    """Return what tells a time that never runs backwards."""
    clock = Clock()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return lambda: epoch + timedelta(microseconds=clock.now_us())
