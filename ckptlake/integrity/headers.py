"""What a pack's own header tells, read from damaged packs too, and made anew from a manifest."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.dtypes import get_dtype
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, Slot, header, tensor_name
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX
from ckptlake.errors import DamagedCheckpointError

logger = logging.getLogger(__name__)
_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
_MOST_HEADER_BYTES = 1 << 30
_MOST_PADDED = 16
"""How many times as long as need be a header may be for its length to be believed."""
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class RawHeader:
    """The header of an uncompressed pack.

    Attributes:
        payload: its bytes, the length in front of it included; the data begin where it ends.
        slots: its entry of each tensor by name.
        data_bytes: how many bytes of data it tells of.
        manifest: the copy of the manifest of the checkpoint that wrote the pack, or None where it has none.
    """

    payload: bytes
    slots: Mapping[str, Any]
    data_bytes: int
    manifest: Manifest | None


def read_header(path: Path) -> RawHeader | None:
    """Return the header of an uncompressed pack, however much of the data is left; None where it is damaged itself.

    Raises:
        OSError: the system will not read the file.
        LakeFormatError: a newer ckptlake wrote it.
    """
    with path.open("rb") as file:
        head = file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if not 0 < length <= _MOST_HEADER_BYTES:
            return None
        text = file.read(length)
    try:
        fields = json.loads(text)
        metadata = fields.pop(_METADATA, {})
        spans = sorted((entry["data_offsets"][0], entry["data_offsets"][1]) for entry in fields.values())
        if len(text) != length or not _follow_each_other(spans):
            return None
        manifest = Manifest.decode(metadata[MANIFEST_KEY], str(path)) if MANIFEST_KEY in metadata else None
    except (*_UNREADABLE, DamagedCheckpointError) as error:
        logger.debug("the header of %s is damaged: %s", path, error)
        return None
    return RawHeader(head + text, fields, spans[-1][1] if spans else 0, manifest)


def told_start(path: Path) -> int | None:
    """Return where the data of an uncompressed pack begin as its first bytes tell, be that right or not.

    Raises:
        OSError: the system will not read the file.
    """
    with path.open("rb") as file:
        head = file.read(_LENGTH.size)
    return _LENGTH.size + int(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else None


def make_header(manifest: Manifest, pack: str) -> RawHeader | None:
    """Return the header of the pack that a checkpoint wrote, or None where its manifest does not tell all of it."""
    own = {t.offset: t for t in reversed(manifest.tensors) if t.pack == pack and t.nbytes}
    slots = [
        Slot(tensor_name(t.path), get_dtype(t.dtype), t.shape, t.offset, t.nbytes)
        for t in (*(t for t in manifest.tensors if t.pack == pack and not t.nbytes), *own.values())
    ]
    slots.sort(key=lambda slot: (slot.offset, slot.nbytes))
    spans = [(slot.offset, slot.offset + slot.nbytes) for slot in slots]
    if not own or not _follow_each_other(spans):
        return None
    text = manifest.encode().decode().rstrip("\n")
    payload = header(slots, {MANIFEST_KEY: text})
    if manifest.header_bytes is not None and manifest.header_bytes <= _MOST_PADDED * len(payload):
        payload = header(slots, {MANIFEST_KEY: text}, manifest.header_bytes)
    fields = json.loads(payload[_LENGTH.size :])
    del fields[_METADATA]
    return RawHeader(payload, fields, spans[-1][1], manifest)


def _follow_each_other(spans: list[tuple[int, int]]) -> bool:
    """Tell whether rising ranges cover everything from 0 on, each byte once."""
    end = 0
    for start, stop in spans:
        if type(start) is not int or type(stop) is not int or start != end or stop < start:
            return False
        end = stop
    return True


def manifest_in(path: Path) -> Manifest | None:
    """Return the copy of a manifest that a pack holds, or None where it holds none that can be read.

    Raises:
        OSError: the system will not read the file.
        LakeFormatError: a newer ckptlake wrote it.
    """
    if path.suffix != ARCHIVE_SUFFIX:
        found = read_header(path)
        return None if found is None else found.manifest
    try:
        with Archive(path) as archive:
            text = archive.metadata.get(MANIFEST_KEY)
        return None if text is None else Manifest.decode(text, str(path))
    except DamagedCheckpointError as error:
        logger.debug("no manifest is taken from it: %s", error)
        return None
