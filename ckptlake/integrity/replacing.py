"""Files that take the place of damaged ones: whole and durable first, then by one rename; nothing is deleted."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ckptlake._internal.files import storage_errors, sync_directory, sync_file
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import CkptlakeError, DamagedCheckpointError
from ckptlake.integrity.parity import examine, parity_path

logger = logging.getLogger(__name__)


def replace_file(
    store: CheckpointStore, path: Path, write: Callable[[Path], None], *, reason: str, instead_of: Path | None = None
) -> None:
    """Write a file beside its place, then put it there; what it replaces goes to quarantine.

    Args:
        store: the lake's checkpoints.
        path: its place.
        write: writes and checks it, given where.
        reason: why, for the note in quarantine.
        instead_of: a file of another name that it replaces.

    Raises:
        DamagedCheckpointError: what `write` raises, or somebody changed the replaced file meanwhile.
        StorageError: the disk refused; everything is as it was.
    """
    old = instead_of or path
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    with storage_errors("repair a checkpoint", path):
        before = identity(old)
        try:
            write(partial)
            sync_file(partial)
            with store.gate.together():
                if identity(old) != before:
                    raise DamagedCheckpointError(f"{old} was changed while it was repaired: plan the repair anew")
                if old == path:
                    _keep(store, path, reason)
                partial.rename(path)
                sync_directory(path.parent)
                if old != path:
                    _keep(store, old, reason)
                    old.unlink(missing_ok=True)
                    sync_directory(old.parent)
        finally:
            partial.unlink(missing_ok=True)
        _drop_stale_parity(store, old, path)


def move_aside(store: CheckpointStore, path: Path, reason: str) -> None:
    """Move a file to quarantine.

    Raises:
        StorageError: the disk refused.
    """
    with storage_errors("move a file to quarantine", path):
        place = _keep(store, path, reason)
        if place is not None and os.path.lexists(path):
            path.unlink()
        sync_directory(path.parent)


def identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from one that takes its place, or None where there is none."""
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _keep(store: CheckpointStore, path: Path, reason: str) -> Path | None:
    """Give what is at `path` a second name in quarantine, or move it there where that cannot be."""
    if not os.path.lexists(path):
        return None
    folder = store.layout.quarantine
    folder.mkdir(exist_ok=True)
    place = folder / f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
    try:
        os.link(path, place, follow_symlinks=False)
    except OSError:  # a directory, another disk, or a file of somebody else
        shutil.move(path, place)
    note = {"file": str(path.relative_to(store.layout.root)), "at": datetime.now(UTC).isoformat(), "reason": reason}
    place.with_name(f"{place.name}.json").write_text(json.dumps(note, indent=2))
    sync_directory(folder)
    logger.warning("%s is kept in %s: %s", path, place, reason)
    return place


def _drop_stale_parity(store: CheckpointStore, old: Path, path: Path) -> None:
    """Move parity to quarantine that is not that of the file beside it."""
    parity = parity_path(old)
    if not parity.is_file():
        return
    try:
        is_stale = old != path or not examine(path, parity).is_clean
    except CkptlakeError as error:
        logger.info("parity is of no use any more: %s", error)
        is_stale = True
    if is_stale:
        move_aside(store, parity, "its file was repaired and is not the same any more: protect it again")
