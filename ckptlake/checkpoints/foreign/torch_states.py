"""Files of ``torch.save``: states, Lightning's checkpoints, shards of weights, and modules saved whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ckptlake.checkpoints.foreign.origin import Foreign, count_of, member
from ckptlake.checkpoints.foreign.safetensors_files import lacking
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.checkpoints.formats.stubs import Known, Stub, state_dict_of
from ckptlake.errors import UnsafeFileError

_WEIGHTS = ("state_dict", "optimizer_states", "lr_schedulers")
_STEPS = ("global_step", "step")
_EPOCHS = ("epoch", "current_epoch")


def read_torch(path: Path) -> Foreign:
    """Return what ``torch.save`` or Lightning wrote to a file, running none of it.

    Objects that would be code are text in what is returned, if they are beside a Lightning checkpoint's weights, such
    as in its hyperparameters; a module that was saved whole is the weights in it.

    Raises:
        UnsafeFileError: code stands anywhere else.
        DamagedCheckpointError: it is cut or malformed.
        MissingDependencyError: torch is not installed.
    """
    value, stubs = _read(path)
    if isinstance(value, Stub):
        return Foreign("torch-module", *_counted(state_dict_of(value)), left_out=stubs)
    is_lightning = isinstance(value, dict) and "state_dict" in value and "pytorch-lightning_version" in value
    if stubs:
        if not is_lightning:
            raise _unsafe(path, stubs)
        value = _without_code(path, value, stubs)
    step, epoch = _told(value)
    kind = "lightning" if is_lightning else "torch"
    return Foreign(kind, *_counted(value), step=step, epoch=epoch, left_out=stubs)


def read_trusted(path: Path) -> Foreign:
    """Return what a file of ``torch.save`` holds, running whatever code it names."""
    with needing_torch(f"{str(path)!r}"):
        from ckptlake.checkpoints.formats.torch_exchange import load_trusted
    value = load_trusted(path)
    if callable(getattr(value, "state_dict", None)):
        value = value.state_dict()
    step, epoch = _told(value)
    return Foreign("torch", *_counted(value), step=step, epoch=epoch)


def read_shards(folder: Path, weight_map: Mapping[str, Any]) -> Foreign:
    """Return the tensors of a folder of shards, by the file that each is in.

    Raises:
        UnsafeFileError: a shard lies outside of the folder, or would run code.
        DamagedCheckpointError: a shard is missing, damaged, or lacks a tensor of the index.
    """
    shards: dict[Any, Any] = {}
    for name in dict.fromkeys(weight_map.values()):
        path = member(folder, name)
        value, stubs = _read(path)
        if stubs:
            raise _unsafe(path, stubs)
        shards[name] = value
    for tensor, name in weight_map.items():
        if not isinstance(shards[name], dict) or tensor not in shards[name]:
            raise lacking(folder / name, tensor)
    state = {tensor: shards[name][tensor] for tensor, name in weight_map.items()}
    return Foreign("huggingface-torch", len(state), lambda: state)


def _read(path: Path) -> tuple[Any, tuple[str, ...]]:
    with needing_torch(f"{str(path)!r}"):
        from ckptlake.checkpoints.formats.torch_files import read_torch_file
        from ckptlake.checkpoints.formats.unpickling import STUB
    found = read_torch_file(path, STUB)
    return found.value, found.stubs


def _told(value: Any) -> tuple[int | None, int | None]:
    """Return step and epoch where the top of a state has numbers called so."""
    if not isinstance(value, Mapping):
        return None, None
    step, epoch = (
        next((count_of(value[name]) for name in names if type(value.get(name)) in (int, float)), None)
        for names in (_STEPS, _EPOCHS)
    )
    return step, epoch


def _counted(value: Any) -> tuple[int, Callable[[], Any]]:
    """Return how many tensors a value holds, and what returns it."""
    count, pending, seen = 0, [value], set()
    while pending:
        item = pending.pop()
        if hasattr(item, "untyped_storage") or isinstance(item, np.ndarray):
            count += 1
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item.values() if isinstance(item, Mapping) else item)
    return count, lambda: value


def _without_code(path: Path, value: dict[Any, Any], stubs: tuple[str, ...]) -> dict[Any, Any]:
    found = {}
    for key, part in value.items():
        found[key] = plain = _as_text(part)
        if key in _WEIGHTS and plain is not part:
            raise _unsafe(path, stubs)
    return found


def _as_text(value: Any) -> Any:
    """Return a value with text in the place of code; it is the value itself where there is none in it."""
    if isinstance(value, Known):
        return f"<{value.name}>"
    if isinstance(value, Stub):
        if value.entries:
            return {_as_text(key): _as_text(item) for key, item in value.entries.items()}
        return f"<{value.name}>"
    if isinstance(value, dict):
        pairs = [(_as_text(key), _as_text(item)) for key, item in value.items()]
        same = all(a is key and b is item for (a, b), (key, item) in zip(pairs, value.items(), strict=True))
        return value if same else dict(pairs)
    if isinstance(value, list | tuple | set | frozenset):
        items = [_as_text(item) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _unsafe(path: Path, stubs: tuple[str, ...]) -> UnsafeFileError:
    return UnsafeFileError(
        f"{str(path)!r} names {', '.join(stubs[:5])!s:.300}, which is not plain data and would be run. Have the "
        "weights alone saved, or pass allow_unsafe=True only if you trust whoever wrote the file"
    )
