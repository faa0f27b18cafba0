"""Whether the bytes of checkpoints are still what was written, at levels that cost more and tell more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.opened import OpenedCheckpoint
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, MissingDependencyError, UnsafeFileError
from ckptlake.integrity.pieces import (
    LEVELS,
    Fault,
    FileFaultError,
    Level,
    Piece,
    examine_all,
    pieces_of,
    read_whole_manifest,
)

__all__ = [
    "LEVELS",
    "Level",
    "Verdict",
    "Verification",
    "Verifier",
    "check_level",
    "describe",
    "levels_from",
    "lost_tensors",
    "row_of",
    "verify",
]

Verdict = Literal["good", "damaged", "missing"]
_BATCH_BYTES = 256 << 20
_BATCH_CHECKPOINTS = 16  # whose compressed packs are open together
_FAULTS_NAMED = 8


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of one checkpoint found.

    Attributes:
        level: how closely it looked; lower than asked for where no more can be told, and `finding` says why.
        verdict: ``good``, ``damaged``, or ``missing`` where the manifest or a whole file is gone.
        finding: what is wrong or could not be told, in words; else None.
        tensors_lost: paths of the tensors that cannot be read as they were written.
        bytes_read: bytes that were compared for it; what an earlier check had read in the same call counts there.
        duration_s: from the first look at any of its bytes, for whichever checkpoint that was, to the verdict.
    """

    checkpoint_id: str
    run_id: str | None
    experiment: str | None
    level: Level
    verdict: Verdict
    finding: str | None
    tensors_lost: tuple[str, ...]
    bytes_read: int
    duration_s: float
    verified_at: datetime

    @property
    def is_good(self) -> bool:
        return self.verdict == "good"


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a verification of many checkpoints has come.

    Attributes:
        done: checkpoints that have been checked.
        total: checkpoints that are to be checked, unless the time ends before.
        bytes_read: bytes that were compared.
        found: what the last check found.
    """

    done: int
    total: int
    bytes_read: int
    found: Verification


def check_level(level: object) -> Level:
    """Return a level of verification.

    Raises:
        InvalidInputError: it is none.
    """
    for known in LEVELS:
        if known == level:
            return known
    raise InvalidInputError(f"level must be one of {', '.join(LEVELS)}, got {level!r:.40}")


def levels_from(level: Level) -> tuple[Level, ...]:
    """Return the levels that look at least as closely as one.

    >>> levels_from("digest")
    ('digest', 'loads')
    """
    return LEVELS[LEVELS.index(level) :]


def verify(store: CheckpointStore, checkpoint_id: str, level: Level = "digest") -> Verification:
    """Check one checkpoint.

    Args:
        store: the lake's checkpoints.
        checkpoint_id: which of them.
        level: ``exists`` (its files are there), ``size`` (and long enough), ``fast`` (every 4 MiB matches its
            checksum), ``digest`` (every tensor its SHA-256), ``loads`` (and the whole state can be made).

    Raises:
        InvalidInputError: there is no such level.
        LakeFormatError: a newer ckptlake wrote it.
    """
    return next(Verifier(store, level).check([checkpoint_id]))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found of a piece, and when it was begun."""

    begun: datetime
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    """A checkpoint that is being checked."""

    checkpoint_id: str
    begun: datetime
    manifest: Manifest | None
    fault: Fault | None = None
    pieces: tuple[Piece, ...] = ()
    fresh: tuple[Piece, ...] = ()


def _now() -> datetime:
    return datetime.now(UTC)


class Verifier:
    """Checks many checkpoints of one lake and reads each piece they share once.

    Whatever is found damaged is looked at again with the gate held, so that a checkpoint which is deleted or
    compressed meanwhile is not taken for a damaged one.

    Args:
        store: the lake's checkpoints.
        level: how closely to look.
        now: tells the time.
    """

    def __init__(self, store: CheckpointStore, level: Level, now: Callable[[], datetime] = _now) -> None:
        self._store = store
        self._level = check_level(level)
        self._now = now
        self._seen: dict[Piece, _Seen] = {}

    def remember(self, piece: Piece, begun: datetime) -> None:
        """Take a piece as compared and found good from `begun` on."""
        self._seen[piece] = _Seen(begun)

    def check(self, checkpoint_ids: Iterable[str]) -> Iterator[Verification]:
        """Yield what is found of each checkpoint, in order; stop iterating to stop checking.

        Raises:
            LakeFormatError: a newer ckptlake wrote one.
        """
        batch: list[_Subject] = []
        held = 0
        for checkpoint_id in checkpoint_ids:
            subject = self._subject(checkpoint_id, batch)
            batch.append(subject)
            held += sum(piece.nbytes for piece in subject.fresh)
            if held >= _BATCH_BYTES or len(batch) == _BATCH_CHECKPOINTS:
                yield from self._check_batch(batch)
                batch, held = [], 0
        yield from self._check_batch(batch)

    def _subject(self, checkpoint_id: str, others: Sequence[_Subject]) -> _Subject:
        begun = self._now()
        try:
            manifest = read_whole_manifest(self._store, checkpoint_id)
        except FileFaultError as error:
            return _Subject(checkpoint_id, begun, None, Fault(str(error), True, error.is_missing))
        except DamagedCheckpointError as error:
            return _Subject(checkpoint_id, begun, None, Fault(str(error), True))
        taken = {piece for other in others for piece in other.fresh}
        pieces = pieces_of(manifest)
        fresh = tuple(piece for piece in pieces if piece not in self._seen and piece not in taken)
        return _Subject(checkpoint_id, begun, manifest, None, pieces, fresh)

    def _check_batch(self, batch: Sequence[_Subject]) -> Iterator[Verification]:
        self._look([piece for subject in batch for piece in subject.fresh])
        for subject in batch:
            found = self._conclude(subject)
            yield found if found.is_good else self._confirmed(found)

    def _look(self, pieces: Sequence[Piece]) -> None:
        begun = self._now()
        for piece, fault in zip(pieces, examine_all(self._store, pieces, self._level), strict=True):
            self._seen[piece] = _Seen(begun, fault)

    def _confirmed(self, found: Verification) -> Verification:
        """Look again at what seems wrong while nobody can delete or compress it."""
        try:
            with self._store.gate.together():
                subject = self._subject(found.checkpoint_id, ())
                self._look([p for p in subject.pieces if (seen := self._seen.get(p)) is None or seen.fault])
                again = self._conclude(subject)
        except OSError:  # where this process cannot write, or the folder is gone, there is no gate to hold
            return found
        return replace(again, bytes_read=found.bytes_read)

    def _conclude(self, subject: _Subject) -> Verification:
        manifest, pieces = subject.manifest, subject.pieces
        faults = {piece: fault for piece in pieces if (fault := self._seen[piece].fault) is not None}
        level, finding = self._level, subject.fault.text if subject.fault is not None else None
        if manifest is not None and faults:
            finding = describe(manifest, faults)
        is_missing = any(fault.is_missing for fault in (*faults.values(), subject.fault) if fault is not None)
        verdict: Verdict = "good" if finding is None else "missing" if is_missing else "damaged"
        if manifest is not None and verdict == "good":
            level, verdict, finding = self._more(manifest, pieces)
        reads = self._level in levels_from("fast")
        now = self._now()
        begun = min([subject.begun, *(self._seen[piece].begun for piece in pieces)])
        return Verification(
            checkpoint_id=subject.checkpoint_id,
            run_id=manifest.run_id if manifest is not None else None,
            experiment=manifest.experiment if manifest is not None else None,
            level=level,
            verdict=verdict,
            finding=finding,
            tensors_lost=lost_tensors(manifest, faults) if manifest is not None and faults else (),
            bytes_read=sum(piece.nbytes for piece in subject.fresh) if reads else 0,
            duration_s=(now - begun).total_seconds(),
            verified_at=now,
        )

    def _more(self, manifest: Manifest, pieces: Sequence[Piece]) -> tuple[Level, Verdict, str | None]:
        """Return what is to be said of a checkpoint whose bytes are right."""
        level: Level = self._level
        finding = None
        if level == "loads":
            try:
                with OpenedCheckpoint(self._store, manifest) as opened:
                    opened.state(map_location="cpu", verify=False)
            except DamagedCheckpointError as error:
                return level, "damaged", str(error)
            except (InvalidInputError, MissingDependencyError, UnsafeFileError) as error:
                level, finding = "digest", f"its bytes are right, but it was not loaded: {error}"
        unknown = sum(piece.digest is None for piece in pieces)
        if unknown and level in levels_from("digest"):
            level = "fast"
            finding = f"the SHA-256 of {unknown} tensors is not known yet: they were compared with their checksums"
        return level, "good", finding


def describe(manifest: Manifest, faults: Mapping[Piece, Fault]) -> str | None:
    """Return the faults of a checkpoint's pieces in words, or None where there are none.

    What is wrong with a whole file is said once, other faults each with the tensor, the first few of many.
    """
    is_plain = manifest.file is not None
    texts = list(dict.fromkeys(fault.text for fault in faults.values() if fault.is_of_file or is_plain))
    for tensor in () if is_plain else manifest.tensors:
        fault = faults.get(Piece.of(tensor))
        if fault is not None and not fault.is_of_file:
            texts.append(f"tensor {tensor.path!r:.200}: {fault.text}")
    if len(texts) > _FAULTS_NAMED:
        texts = [*texts[:_FAULTS_NAMED], f"and {len(texts) - _FAULTS_NAMED:,} more findings of this kind"]
    return "; ".join(texts) or None


def lost_tensors(manifest: Manifest, faults: Mapping[Piece, Fault]) -> tuple[str, ...]:
    """Return the paths of the tensors that lie in damaged pieces."""
    if manifest.file is not None:
        return tuple(tensor.path for tensor in manifest.tensors) if faults else ()
    return tuple(tensor.path for tensor in manifest.tensors if tensor.nbytes and Piece.of(tensor) in faults)


def row_of(found: Verification, run_id: str | None, experiment: str | None) -> dict[str, object]:
    """Return the row of `verifications` that records a check."""
    return {
        "checkpoint_id": found.checkpoint_id,
        "run_id": found.run_id or run_id,
        "experiment": found.experiment or experiment,
        "ts": found.verified_at,
        "level": found.level,
        "verdict": found.verdict,
        "finding": found.finding,
        "tensors_lost": list(found.tensors_lost),
        "bytes_read": found.bytes_read,
        "duration_s": found.duration_s,
    }
