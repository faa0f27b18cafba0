"""The manifest of a checkpoint: its tree, its tensors, and where the bytes of each lie.

A checkpoint exists once its manifest does. The file is small JSON with a checksum over itself; tensors are
named by digest and by the pack that holds them, so a pack may change its encoding and no manifest need follow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, overload

import xxhash

from ckptlake.checkpoints.checksums import CHECKED_BYTES, root_digest
from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.errors import DamagedCheckpointError, LakeFormatError

FORMAT_VERSION = 1
UNKNOWN_DIGEST = " " * 64
_PACK = re.compile(r"(?:blobs|checkpoints)/[0-9A-Za-z][0-9A-Za-z._-]{0,150}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        path: its place in the state, levels joined by ``/``.
        dtype: its element type, by name.
        shape: its dimensions.
        digest: SHA-256 of its bytes in hex, or None while that is deferred.
        checks: XXH3-64 of each 4 MiB of its bytes.
        pack: the file that holds it, relative to the lake and without suffix.
        offset: where it begins in an uncompressed pack's data, in bytes.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    digest: str | None
    checks: tuple[int, ...]
    pack: str
    offset: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.num_elements * DTYPES[self.dtype].itemsize

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> StoredTensor:
        digest, text, shape = fields["digest"], fields["checks"], tuple(_whole(size) for size in fields["shape"])
        checks = tuple(int(text[start : start + 16], 16) for start in range(0, len(text), 16))
        tensor = cls(
            _text(fields["path"]),
            _text(fields["dtype"]),
            shape,
            None if digest == UNKNOWN_DIGEST else digest,
            checks,
            fields["pack"],
            _whole(fields["offset"]),
        )
        if tensor.dtype not in DTYPES or not _PACK.fullmatch(tensor.pack):
            raise ValueError(f"tensor {tensor.path!r:.80} has the dtype {tensor.dtype!r:.40}, pack {tensor.pack!r:.80}")
        if tensor.digest is not None and not _DIGEST.fullmatch(tensor.digest):
            raise ValueError(f"tensor {tensor.path!r:.80} has the digest {tensor.digest!r:.80}")
        if len(checks) != -(-tensor.nbytes // CHECKED_BYTES) or len(text) % 16:
            raise ValueError(f"tensor {tensor.path!r:.80} has {len(checks)} checksums for {tensor.nbytes} bytes")
        return tensor


_COLUMNS = ("path", "dtype", "shape", "digest", "checks", "pack", "offset")


def _columns(tensors: Sequence[StoredTensor]) -> dict[str, list[object]]:
    """Return tensors as they stand in a manifest: a list for each column, which is read faster than a dict each."""
    packs = {pack: number for number, pack in enumerate(dict.fromkeys(tensor.pack for tensor in tensors))}
    return {
        "packs": list(packs),
        "path": [tensor.path for tensor in tensors],
        "dtype": [tensor.dtype for tensor in tensors],
        "shape": [list(tensor.shape) for tensor in tensors],
        "digest": [tensor.digest or UNKNOWN_DIGEST for tensor in tensors],
        "checks": ["".join(f"{value:016x}" for value in tensor.checks) for tensor in tensors],
        "pack": [packs[tensor.pack] for tensor in tensors],
        "offset": [tensor.offset for tensor in tensors],
    }


class ReadTensors(Sequence[StoredTensor]):
    """The tensors of a manifest that was read; each is taken apart when it is asked for.

    Raises:
        DamagedCheckpointError: when asked for one that is not described as it should be.
    """

    def __init__(self, columns: Mapping[str, list[Any]], source: str) -> None:
        self._columns = {name: columns[name] for name in _COLUMNS}
        self._packs = columns["packs"]
        self._source = source
        self._known: dict[int, StoredTensor] = {}
        self.paths = tuple(columns["path"])
        if not set(map(type, self.paths)) <= {str}:
            raise TypeError("a path that is no text")
        if any(type(column) is not list or len(column) != len(self.paths) for column in self._columns.values()):
            raise ValueError("columns of tensors that are not equally long")

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, number: int) -> StoredTensor: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[StoredTensor]: ...

    def __getitem__(self, number: int | slice) -> StoredTensor | Sequence[StoredTensor]:
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        if number not in self._known:
            try:
                fields = {name: column[number] for name, column in self._columns.items()}
                self._known[number] = StoredTensor.parse({**fields, "pack": self._packs[_whole(fields["pack"])]})
            except _UNREADABLE as error:
                if isinstance(error, IndexError) and not -len(self) <= number < len(self):
                    raise
                raise DamagedCheckpointError(f"the manifest {self._source} is damaged: {error!s:.200}") from error
        return self._known[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A checkpoint's bytes in one file of another program's format."""

    name: str
    size_bytes: int
    digest: str
    checks: tuple[int, ...]

    @classmethod
    def parse(cls, fields: Sequence[Any]) -> PlainFile:
        name, size_bytes, digest, checks = fields
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"file {name!r:.80} has the digest {digest!r:.80}")
        return cls(_file_name(name), _whole(size_bytes), digest, tuple(_whole_64(value) for value in checks))


@dataclass(frozen=True)
class Manifest:
    """Everything about one checkpoint that loading it needs.

    Attributes:
        tree: the state with its tensors replaced by their numbers, as tagged JSON.
        tensors: its tensors, in the order of those numbers.
        file: the file of a plain format, else None.
        mentions_arrays: false where none of its tensors can have been a numpy array.
        metrics: values by name that the checkpoint was saved with.
        header_bytes: the length of its pack's header, where that is longer than it had to be.
    """

    checkpoint_id: str
    lake_id: str
    run_id: str
    experiment: str
    attempt: int
    step: int | None
    epoch: int | None
    format: str
    created_at: datetime
    tree: object
    tensors: Sequence[StoredTensor]
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None
    file: PlainFile | None = None
    mentions_arrays: bool = field(default=True, compare=False)
    header_bytes: int | None = None

    @property
    def paths(self) -> Sequence[str]:
        """The paths of its tensors."""
        return self.tensors.paths if isinstance(self.tensors, ReadTensors) else [t.path for t in self.tensors]

    @cached_property
    def digest(self) -> str | None:
        """The root over tree and tensors, or None while a tensor's digest is deferred."""
        return root_digest(self.tree, self.tensors)

    @property
    def logical_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def packs(self) -> frozenset[str]:
        """The files that hold its tensors."""
        return frozenset(tensor.pack for tensor in self.tensors if tensor.nbytes)

    def sealed(self, digests: Mapping[str, str]) -> Manifest:
        """Return the manifest with the digests of its tensors by path filled in."""
        return replace(self, tensors=tuple(replace(t, digest=digests.get(t.path, t.digest)) for t in self.tensors))

    def encode(self) -> bytes:
        """Return it as the bytes of its file."""
        body = json.dumps(self.fields(), separators=(",", ":"), allow_nan=False)
        return f'{{"check":"{_checksum(body)}","manifest":{body}}}\n'.encode()

    def fields(self) -> dict[str, object]:
        plain = self.file
        return {
            "format_version": FORMAT_VERSION,
            "checkpoint_id": self.checkpoint_id,
            "lake_id": self.lake_id,
            "run_id": self.run_id,
            "experiment": self.experiment,
            "attempt": self.attempt,
            "step": self.step,
            "epoch": self.epoch,
            "format": self.format,
            "created_at": self.created_at.isoformat(timespec="microseconds"),
            "metrics": {name: value.hex() for name, value in self.metrics.items()},
            "note": self.note,
            "file": None if plain is None else [plain.name, plain.size_bytes, plain.digest, list(plain.checks)],
            **({} if self.header_bytes is None else {"header_bytes": self.header_bytes}),
            "tensors": _columns(self.tensors),
            "tree": self.tree,
        }

    @classmethod
    def decode(cls, payload: bytes | str, source: str) -> Manifest:
        """Return the manifest that the bytes of `source` hold.

        Raises:
            DamagedCheckpointError: they hold none, or not all of one.
            LakeFormatError: a newer ckptlake wrote it.
        """
        try:
            text = payload.decode() if isinstance(payload, bytes) else payload
            outer = json.loads(text, parse_float=_finite, parse_constant=_finite)
            body = text[text.index('"manifest":') + len('"manifest":') :].rstrip("\n")[:-1]
            if outer["check"] != _checksum(body):
                raise ValueError("its checksum does not match")
            fields = outer["manifest"]
            version = _whole(fields["format_version"])
            if version <= FORMAT_VERSION:
                return cls._parse(fields, source, mentions_arrays='{"array":' in body)
        except _UNREADABLE as error:
            raise DamagedCheckpointError(
                f"the manifest {source} is damaged: {error!s:.200}; `ckptlake checkpoints repair` can make it anew"
            ) from error
        raise LakeFormatError(
            f"{source} has manifest format {version}, newer than this ckptlake reads: update it with "
            "`pip install --upgrade ckptlake`"
        )

    @classmethod
    def _parse(cls, fields: Mapping[str, Any], source: str, *, mentions_arrays: bool) -> Manifest:
        plain = fields["file"]
        return cls(
            checkpoint_id=_text(fields["checkpoint_id"]),
            lake_id=_text(fields["lake_id"]),
            run_id=_text(fields["run_id"]),
            experiment=_text(fields["experiment"]),
            attempt=_whole(fields["attempt"]),
            step=_optional_int(fields["step"]),
            epoch=_optional_int(fields["epoch"]),
            format=_text(fields["format"]),
            created_at=datetime.fromisoformat(fields["created_at"]),
            metrics={_text(name): float.fromhex(value) for name, value in fields["metrics"].items()},
            note=None if fields["note"] is None else _text(fields["note"]),
            file=None if plain is None else PlainFile.parse(plain),
            tensors=ReadTensors(fields["tensors"], source),
            tree=fields["tree"],
            mentions_arrays=mentions_arrays,
            header_bytes=_whole(fields["header_bytes"]) if "header_bytes" in fields else None,
        )


def _checksum(body: str) -> str:
    return xxhash.xxh3_64_hexdigest(body.encode())


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} where a finite number should be")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} where a text should be")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise TypeError(f"{value!r:.60} where a whole number should be")
    return value


def _whole_64(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**64:
        raise TypeError(f"{value!r:.60} where a checksum should be")
    return value


def _optional_int(value: object) -> int | None:
    if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
        raise TypeError(f"{value!r:.60} where a 64-bit number should be")
    return value


def _file_name(value: object) -> str:
    name = _text(value)
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,150}", name):
        raise ValueError(f"{name!r:.80} is no file name")
    return name
