"""Checkpoints without their optimizer state: the model stays, and two thirds of the bytes of AdamW go.

The manifest is replaced first and recorded then, so a crash between leaves a note that the next sweep follows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckptlake._internal.files import storage_errors, write_once
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.marks import Holding, Ledger, moment_after, pack_of
from ckptlake.checkpoints.recoding import one_recoding
from ckptlake.checkpoints.rows import event_row, trimmed_rows
from ckptlake.checkpoints.sealing import Rows
from ckptlake.checkpoints.store import PACKED, CheckpointStore
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError

logger = logging.getLogger(__name__)
OPTIMIZER_NAMES = frozenset(
    {"optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim", "opt"}
)
"""The names at the top of a state that hold optimizer state."""

_HEADS = {"dict": 0, "ordered": 0, "ordered_with_metadata": 1, "defaultdict": 1, "namespace": 0, "argparse": 0}
"""Containers of a tree that have names, and how many items stand in front of their pairs."""
_LEAVES, _VIEWS = ("array", "tensor"), ("array_view", "view")


def trimmed(manifest: Manifest) -> Manifest | None:
    """Return a checkpoint's manifest without optimizer state, or None where there is nothing to leave out.

    What lies at the top of the state under one of `OPTIMIZER_NAMES` goes, and with it the tensors that nothing else
    in the state refers to. Files in other formats and digests that are still deferred are left alone.
    """
    if manifest.format != PACKED or manifest.digest is None:
        return None
    tree = _without_optimizer(manifest.tree)
    if tree is None:
        return None
    kept = sorted({number for _, _, number in _leaves(tree)})
    if len(kept) == len(manifest.tensors):
        return None
    places = {number: place for place, number in enumerate(kept)}
    for node, tag, number in _leaves(tree):
        if tag in _LEAVES:
            node[tag] = places[number]
        else:
            node[tag][0] = places[number]
    return replace(manifest, tree=tree, tensors=tuple(manifest.tensors[number] for number in kept))


def _without_optimizer(tree: object) -> Any:
    """Return a copy of a tree without what the optimizer has in it, or None where it has nothing."""
    if not isinstance(tree, dict) or len(tree) != 1:
        return None
    ((tag, payload),) = tree.items()
    if tag not in _HEADS or not isinstance(payload, list):
        return None
    head, pairs = payload[: _HEADS[tag]], payload[_HEADS[tag] :]
    kept = [pair for pair in pairs if not (isinstance(pair[0], str) and pair[0] in OPTIMIZER_NAMES)]
    return None if len(kept) == len(pairs) else json.loads(json.dumps({tag: [*head, *kept]}))


def _leaves(tree: object) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield every node that refers to a leaf, under which tag, and the leaf's number."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            for tag, payload in node.items():
                if tag in _LEAVES and isinstance(payload, int):
                    yield node, tag, payload
                elif tag in _VIEWS and isinstance(payload, list):
                    yield node, tag, payload[0]
                else:
                    waiting.append(payload)


def trim(store: CheckpointStore, ledger: Ledger, rows: Rows, checkpoint_id: str) -> frozenset[str]:
    """Take the optimizer state out of a checkpoint and return the packs that it lay in.

    Its bytes are still there: `compact_packs` frees those that no other checkpoint needs.

    Raises:
        CheckpointNotFoundError: it has no manifest.
        DamagedCheckpointError: its manifest cannot be read.
        StorageError: the disk refused; the checkpoint is whole, or trimmed already.
    """
    with storage_errors("drop optimizer state", store.layout.checkpoints), one_recoding(store), store.gate.alone():
        finish_trims(store, ledger, rows)
        holding = ledger.marks(pack_of(checkpoint_id)).holdings.get(checkpoint_id)
        if holding is None or holding.is_deleted:
            return frozenset()
        whole = store.read_manifest(checkpoint_id)
        lean = trimmed(whole)
        if lean is None:
            return frozenset()
        note = _note(store, checkpoint_id)
        write_once(note, b"")
        store.replace_manifest(lean)
        _record(store, ledger, rows, holding, lean)
        note.unlink()
    kept = {tensor.path for tensor in lean.tensors}
    return frozenset(tensor.pack for tensor in whole.tensors if tensor.path not in kept and tensor.nbytes)


def finish_trims(store: CheckpointStore, ledger: Ledger, rows: Rows) -> None:
    """Record checkpoints that a crash left trimmed and not recorded so; the gate must be held alone."""
    for note in store.layout.checkpoints.glob(".*.trim"):
        checkpoint_id = note.name[1:].removesuffix(".trim")
        holding = ledger.marks(pack_of(checkpoint_id)).holdings.get(checkpoint_id)
        try:
            manifest = store.read_manifest(checkpoint_id)
        except (CheckpointNotFoundError, DamagedCheckpointError) as error:
            logger.warning("whether checkpoint %s was trimmed is not known: %s", checkpoint_id, error)
        else:
            if holding is not None and not holding.is_deleted and manifest.digest != holding.digest:
                _record(store, ledger, rows, holding, manifest)
        note.unlink()


def _note(store: CheckpointStore, checkpoint_id: str) -> Path:
    return store.layout.checkpoints / f".{checkpoint_id}.trim"


def _record(store: CheckpointStore, ledger: Ledger, rows: Rows, holding: Holding, lean: Manifest) -> None:
    ts = moment_after(holding.changed_us)
    own = store.find_pack(pack_of(lean.checkpoint_id))
    gone = trimmed_rows(ledger.tensors(holding), {tensor.path for tensor in lean.tensors}, ts)
    row = event_row(
        holding,
        "trimmed",
        ts,
        num_tensors=len(lean.tensors),
        logical_bytes=lean.logical_bytes,
        stored_bytes=0 if own is None else own.stat().st_size,
        digest=lean.digest,
        packs=sorted(lean.packs),
    )
    rows.add_rows("tensors", gone)
    rows.add_rows("checkpoints", [row])
    rows.flush()
