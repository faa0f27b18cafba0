"""Checkpoints as retention sees them: what each needs of the disk, and what of that its optimizer alone needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from ckptlake.checkpoints.budgets import Directions, plan_retention
from ckptlake.checkpoints.codec.archive import Archive, Base
from ckptlake.checkpoints.manifest import StoredTensor
from ckptlake.checkpoints.records import CheckpointRecord
from ckptlake.checkpoints.retention import Candidate
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.checkpoints.trimming import trimmed
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError

logger = logging.getLogger(__name__)
Blobs = dict[str, int]
"""Stored bytes by name; a blob's name is its pack and its digest."""


@dataclass(frozen=True, slots=True)
class _Footprint:
    """What one checkpoint needs: blobs of its own tensors, those of the bases of their deltas, and the optimizer's."""

    own: Blobs
    bases: Blobs
    optimizer: frozenset[str]
    is_readable: bool = True


def candidate(record: CheckpointRecord) -> Candidate:
    """Return a checkpoint as retention sees it, without what it needs of the disk."""
    status: Literal["good", "quarantined"] = "good" if record.status == "good" else "quarantined"
    return Candidate(
        checkpoint_id=record.id,
        run_id=record.run_id,
        experiment=record.experiment,
        step=record.step,
        epoch=record.epoch,
        saved_at=record.saved_at,
        metrics=record.metrics,
        pinned=record.pinned,
        aliases=frozenset(record.aliases),
        status=status,
        blobs={},
        optimizer_blobs=frozenset(),
        verified=None if record.verdict is None else record.verdict == "good",
    )


def candidates(
    store: CheckpointStore, records: Sequence[CheckpointRecord], others: Sequence[CheckpointRecord]
) -> list[Candidate]:
    """Return checkpoints with what they need of the disk, read from their manifests.

    One whose manifest cannot be read counts as quarantined.

    Args:
        store: the lake's checkpoints.
        records: those to decide about.
        others: checkpoints that may need something of those, such as a shared tensor. They are returned too, as
            pinned ones that need nothing else.
    """
    sizes = _Sizes(store)
    within = {record.id: sizes.footprint(record) for record in records}
    stored = {name for found in within.values() for name in (*found.own, *found.bases)}
    outside = {}
    for record in others:
        found = sizes.footprint(record)
        own, bases = ({name: blobs[name] for name in blobs if name in stored} for blobs in (found.own, found.bases))
        if own or bases:
            outside[record.id] = _Footprint(own, bases, frozenset())
    footprints = {**within, **outside}
    holders: dict[str, list[str]] = {}
    for checkpoint_id, found in footprints.items():
        for name in found.own:
            holders.setdefault(name, []).append(checkpoint_id)
    based: dict[str, set[str]] = {}
    for checkpoint_id, found in footprints.items():
        for name in found.bases:
            for holder in holders.get(name, ()):
                based.setdefault(holder, set()).add(checkpoint_id)
    made = []
    for record in (*records, *(one for one in others if one.id in outside)):
        found = footprints[record.id]
        full = replace(
            candidate(record),
            blobs={**found.bases, **found.own},
            optimizer_blobs=found.optimizer,
            bases_of=frozenset(based.get(record.id, set()) - {record.id}),
        )
        if not found.is_readable:
            full = replace(full, status="quarantined")
        made.append(full if record.id in within else replace(full, pinned=True))
    return made


class _Sizes:
    """How many bytes each blob takes; the end of each compressed pack is read once."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._entries: dict[str, Mapping[str, tuple[int, Base | None]]] = {}

    def footprint(self, record: CheckpointRecord) -> _Footprint:
        try:
            manifest = self._store.read_manifest(record.id)
        except (CheckpointNotFoundError, DamagedCheckpointError) as error:
            logger.warning("what checkpoint %s needs is not known: %s", record.id, error)
            return _Footprint({}, {}, frozenset(), is_readable=False)
        if manifest.file is not None:
            return _Footprint({f"checkpoints/{manifest.file.name}": manifest.file.size_bytes}, {}, frozenset())
        own, bases = self._blobs(manifest.tensors)
        lean = trimmed(manifest)
        if lean is None:
            return _Footprint(own, bases, frozenset())
        kept = {name for blobs in self._blobs(lean.tensors) for name in blobs}
        return _Footprint(own, bases, frozenset({*own, *bases} - kept))

    def _blobs(self, tensors: Iterable[StoredTensor]) -> tuple[Blobs, Blobs]:
        own: Blobs = {}
        bases: Blobs = {}
        for tensor in tensors:
            if tensor.nbytes:
                chain = self._chain(tensor)
                own |= [next(chain)]
                bases |= chain
        return own, {name: size for name, size in bases.items() if name not in own}

    def _chain(self, tensor: StoredTensor) -> Iterator[tuple[str, int]]:
        """Yield name and size of a tensor's blob and of all that its deltas are based on."""
        digest, pack, size = tensor.digest, tensor.pack, tensor.nbytes
        seen: set[str] = set()
        while True:
            name = f"{pack}/{digest or tensor.offset}"
            stored, base = self._told(pack).get(digest or "", (size, None))
            yield name, stored
            seen.add(name)
            if base is None or f"{base.pack}/{base.digest}" in seen:
                return
            digest, pack = base.digest, base.pack

    def _told(self, pack: str) -> Mapping[str, tuple[int, Base | None]]:
        """Return stored bytes and base of each tensor of a compressed pack; an uncompressed one has none."""
        if pack not in self._entries:
            self._entries[pack] = {}
            path = self._store.pack_path(pack, ARCHIVE_SUFFIX)
            if not self._store.pack_path(pack, RAW_SUFFIX).exists() and path.exists():
                try:
                    with Archive(path) as archive:
                        entries = archive.entries.values()
                        self._entries[pack] = {entry.digest: (entry.stored_bytes, entry.base) for entry in entries}
                except DamagedCheckpointError as error:
                    logger.warning("what is in a pack is not known: %s", error)
        return self._entries[pack]


@dataclass(frozen=True, slots=True)
class _KeepNothing:
    """A policy under which only what is protected stays."""

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:  # noqa: ARG002
        return {}


def protected(records: Iterable[CheckpointRecord], directions: Directions, now: datetime) -> dict[str, str]:
    """Return the ids of the checkpoints that no plan may delete, each with the reason."""
    plan = plan_retention([candidate(record) for record in records], _KeepNothing(), directions=directions, now=now)
    return {decision.checkpoint_id: decision.reason for decision in plan.keep}
