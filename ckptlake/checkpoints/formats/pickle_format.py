"""Python's own pickle: keeps any object, and may run any code when it is loaded, so both must be asked for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

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
            pickle.dump(_asked(state), file, protocol=5)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
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
            except (pickle.UnpicklingError, EOFError, ValueError, ImportError, AttributeError) as error:
                raise DamagedCheckpointError(f"{path} cannot be unpickled: {error}") from error


def _asked(state: Any) -> Any:
    if callable(getattr(state, "state_dict", None)):
        return state.state_dict()
    if isinstance(state, Mapping) and type(state) is dict:
        return {name: _asked(part) if not isinstance(part, Mapping) else part for name, part in state.items()}
    return state
