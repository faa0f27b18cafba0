"""Python's own pickle: keeps any object, and may run any code when it is loaded, so both must be asked for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

from ckptlake._internal.optional import if_imported
from ckptlake.checkpoints.formats.unpickling import REFUSE, load_pickle
from ckptlake.errors import DamagedCheckpointError, InvalidInputError


class PickleFormat:
    """One ``.pkl`` file; see `ckptlake.checkpoints.state_format.StateFormat`."""

    name = "pickle"
    suffix = ".pkl"
    keeps_anything = True

    def write(self, state: object, file: BinaryIO) -> None:
        """Write the state; parts with a `state_dict` stand for what that returns.

        Raises:
            InvalidInputError: something in it cannot be pickled.
        """
        try:
            _Pickler(file, protocol=5).dump(_asked(state, {}))
        except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"the state cannot be pickled: {error}") from error

    def read(self, path: Path, *, allow_unsafe: bool) -> object:
        """Return the state.

        Raises:
            UnsafeFileError: it holds more than plain values, arrays and tensors, and `allow_unsafe` is false.
        """
        with path.open("rb") as file:
            if not allow_unsafe:
                return load_pickle(file, REFUSE).value
            try:
                return pickle.load(file)  # noqa: S301 - asked for in so many words
            except (pickle.UnpicklingError, EOFError, ValueError, LookupError, ImportError, AttributeError) as error:
                raise DamagedCheckpointError(f"{path} cannot be unpickled: {error}") from error


class _Pickler(pickle.Pickler):
    """Keeps the memory that tensors share, which a tensor's own way of being pickled forgets."""

    def __init__(self, file: BinaryIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self._storages: dict[tuple[int, Any], Any] = {}

    def reducer_override(self, value: Any) -> Any:
        torch = if_imported("torch")
        if torch is None or not isinstance(value, torch.Tensor):
            return NotImplemented
        reduced = value.__reduce_ex__(5)
        function, (first, *rest) = reduced[0], reduced[1]
        if not isinstance(first, torch.storage.TypedStorage):
            return reduced
        storage = self._storages.setdefault((first._cdata, first.dtype), first)
        return (function, (storage, *rest), *reduced[2:])


def _asked(state: Any, known: dict[int, Any]) -> Any:
    """Return a state with what `state_dict` returns in the place of each part that has it."""
    if not isinstance(state, type) and callable(getattr(state, "state_dict", None)):
        return state.state_dict()
    if type(state) not in (dict, list, tuple):
        return state
    if id(state) in known:
        return known[id(state)]
    known[id(state)] = state  # for what contains itself
    parts = list(state.values() if isinstance(state, dict) else state)
    asked = [_asked(part, known) for part in parts]
    if any(new is not old for new, old in zip(asked, parts, strict=True)):
        known[id(state)] = dict(zip(state, asked, strict=True)) if isinstance(state, dict) else type(state)(asked)
    return known[id(state)]
