"""What tensors that are stored as differences need: their bases come first, and come back for them too."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from graphlib import CycleError, TopologicalSorter

from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.errors import DamagedCheckpointError
from ckptlake.integrity.pieces import is_readable

logger = logging.getLogger(__name__)
_DEEPEST_CHAIN = 64


def bases_first(store: CheckpointStore, packs: Iterable[str]) -> list[str]:
    """Return packs in an order in which each comes behind those that hold the bases of its deltas."""
    needs: dict[str, set[str]] = {}
    waiting = sorted(packs)
    wanted = set(waiting)
    while waiting:
        pack = waiting.pop()
        if pack not in needs:
            needs[pack] = _bases_of(store, pack)
            waiting.extend(needs[pack])
    try:
        return [pack for pack in TopologicalSorter(needs).static_order() if pack in wanted]
    except CycleError as error:
        logger.warning("packs with deltas need each other: %s", error)
        return sorted(wanted)


def _bases_of(store: CheckpointStore, pack: str) -> set[str]:
    archive = _opened(store, pack)
    if archive is None:
        return set()
    with archive:
        return {entry.base.pack for entry in archive.entries.values() if entry.base is not None}


def comes_back(store: CheckpointStore, pack: str, digest: str, mended: Collection[str | None]) -> bool:
    """Tell whether a tensor is differences that are as they were written, to a base that is mended or comes back so.

    Args:
        store: the lake's checkpoints.
        pack: the pack that holds it.
        digest: the tensor.
        mended: digests of what will have been mended.
    """
    for _ in range(_DEEPEST_CHAIN):
        archive = _opened(store, pack)
        if archive is None:
            return False
        with archive:
            entry = archive.entries.get(digest)
            try:
                if entry is None or entry.base is None or archive.check(digest):
                    return False
            except (DamagedCheckpointError, OSError):
                return False
            if entry.base.digest in mended:
                return True
            pack, digest = entry.base.pack, entry.base.digest
    return False


def _opened(store: CheckpointStore, pack: str) -> Archive | None:
    """Return a pack if it is a compressed one, and read as such."""
    path = store.pack_path(pack, ARCHIVE_SUFFIX)
    if store.pack_path(pack, RAW_SUFFIX).exists() or not is_readable(store, path):
        return None
    try:
        return Archive(path)
    except (DamagedCheckpointError, OSError):
        return None
