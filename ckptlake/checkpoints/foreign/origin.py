"""What every reader of another program's files returns, and the rules they share for files that may be hostile."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ckptlake.errors import DamagedCheckpointError, InvalidInputError, UnsafeFileError

_MOST_JSON_BYTES = 64 << 20
_LARGEST_STEP = 2**63
_DEEPEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a file or folder of another program holds; the tensors are read when they are used.

    Attributes:
        kind: what it is, as `probe` names it.
        num_tensors: how many tensors it names.
        read: returns the state, any tree of tensors, arrays, plain values and containers.
        step: the step it tells, or None.
        epoch: the epoch it tells, or None.
        metrics: values that it was saved with.
        note: the text that it was saved with, or None.
        left_out: what of it is kept as text alone, because it would be code.
    """

    kind: str
    num_tensors: int
    read: Callable[[], Any]
    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None
    left_out: tuple[str, ...] = ()


def mapped(path: Path) -> memoryview:
    """Return a file as memory; writing to it changes private pages alone.

    Raises:
        InvalidInputError: it cannot be opened.
        DamagedCheckpointError: it is empty.
    """
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise DamagedCheckpointError(f"{str(path)!r} is empty; take an intact copy of it")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except OSError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be opened: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        InvalidInputError: it cannot be opened.
        UnsafeFileError: it is larger than any index or list of settings.
        DamagedCheckpointError: it is no JSON object.
    """
    data = mapped(path)
    if len(data) > _MOST_JSON_BYTES:
        raise UnsafeFileError(f"{str(path)!r} is JSON of {len(data)} bytes; more than {_MOST_JSON_BYTES} are not read")
    return parse_json(bytes(data), str(path))


def parse_json(text: bytes, source: str) -> dict[str, Any]:
    """Return the object that JSON holds; no name may occur twice in one object.

    Raises:
        DamagedCheckpointError: it is none.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{source!r} holds no JSON that can be read: {error!s:.200}") from error
    if not isinstance(found, dict):
        raise DamagedCheckpointError(f"{source!r} holds no JSON object")
    return found


def member(folder: Path, name: object) -> Path:
    """Return the path of a file that is to lie directly in a folder.

    A link that leads out of it is refused, but for the blobs of a cache of Hugging Face, whose snapshots are links.

    Raises:
        UnsafeFileError: it lies elsewhere.
        DamagedCheckpointError: it is missing.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UnsafeFileError(
            f"{str(folder)!r} refers to {name!r:.120}, which is no file in it; only files of the folder are read"
        )
    path = folder / name
    try:
        real, home = path.resolve(strict=True), folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise DamagedCheckpointError(
            f"{str(folder)!r} refers to {name!r:.120}, which is not there; take a whole copy of the folder"
        ) from error
    is_cache = home.parent.name == "snapshots" and real.parent == home.parent.parent / "blobs"
    if real.parent != home and not is_cache:
        raise UnsafeFileError(f"{str(path)!r} is a link that leads out of its folder; copy the file there")
    if not real.is_file():
        raise UnsafeFileError(f"{str(path)!r} is no ordinary file; opening it could wait for ever")
    return path


def count_of(value: object) -> int | None:
    """Return a step or an epoch that a file tells, or None where it tells none that can be kept.

    >>> count_of("12"), count_of(2.0), count_of(True), count_of("x")
    (12, 2, None, None)
    """
    if isinstance(value, str) and len(value) < 20 and value.lstrip("-").isascii() and value.lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int and -_LARGEST_STEP <= value < _LARGEST_STEP:
        return value
    return None


def nested(tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return named tensors as nested dicts where the file tells that its names are paths, else by their names.

    >>> nested({"model/a%2Fb": 1}, {"ckptlake.names": "paths"}), nested({"a/b": 1}, {})
    ({'model': {'a/b': 1}}, {'a/b': 1})
    """
    if metadata.get("ckptlake.names") != "paths":
        return dict(tensors)
    state: dict[str, Any] = {}
    for path, tensor in tensors.items():
        *levels, name = [unquote(level) for level in path.split("/", _DEEPEST_NAME)]
        place = state
        for level in levels:
            place = place.setdefault(level, {})
            if not isinstance(place, dict):
                return dict(tensors)
        place[name] = tensor
    return state


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found
