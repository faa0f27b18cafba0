"""Inert stand-ins for what a pickle names and nobody may run, and the weights found inside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    from ckptlake.checkpoints.formats.guards import Allowance


_PRINTED, _PRINTED_BITS = 40, 64


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Stub:
    """An object whose class was not loaded: what it was called, and what the file would have given it.

    Two stubs are equal only if they are the same object. A class or function that the file names without
    calling it is a stub too, with no arguments and no state.

    Attributes:
        name: its class or function, as ``module.qualified_name``.
        args: what it was called with; a dict of named arguments, if there were any, comes last.
        state: what would have become its attributes: mostly a dict, or None.
        entries: what was set in it as in a dict.
        elements: what was added to it as to a list or set.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Stub({self.name!r:.200})"

    def receive(self, state: object) -> None:
        """Remember the state that a file gives it; the one change a stub ever sees, made while it is read."""
        object.__setattr__(self, "state", state)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Known:
    """A name of the allow-list, and how a call to it is answered; a file's own code is never involved.

    Attributes:
        name: as ``module.qualified_name``.
        build: makes the value of a call, or None if it must not be called.
        detail: what else readers must know of it, such as a storage's element type.
    """

    name: str
    build: Build | None = None
    detail: str | None = None

    def __repr__(self) -> str:
        return f"Known({self.name!r})"


class Reader(Protocol):
    """What answers to calls may use of the machine that reads a file."""

    @property
    def allowance(self) -> Allowance:
        """What reading may still cost."""

    @property
    def views(self) -> set[tuple[Any, ...]]:
        """Views of storages that are paid for."""

    def call(self, target: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Answer a call to something the file named."""

    def read_nested(self, data: bytes) -> object:
        """Read a torch file kept in a pickle as bytes."""


Build = Callable[[Reader, tuple[Any, ...]], object]
"""Answers a call with these arguments; a TypeError says that they are not what it takes."""
SetState = Callable[[Reader, Any, Any], None]
"""Gives an object the state that a file has for it."""


def shown(value: object) -> str:
    """Return a value from a file for a message; no container is printed, for one can print for ever.

    >>> shown(7), shown("x" * 99), shown([1]), shown(1 << 99)
    ('7', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'", 'a list', 'an integer of 100 bits')
    """
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        return repr(value[:_PRINTED])
    if value is None or isinstance(value, int | float | Known | Stub):
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


def state_dict_of(module: Stub) -> dict[str, Any]:
    """Return the weights of a pickled ``torch.nn.Module`` whose class was not loaded.

    They are named as the module's own ``state_dict()`` would name them: parameters and persistent buffers, with
    the names of submodules and dots before theirs. What a class adds by overriding ``state_dict`` is not there.

    Raises:
        InvalidInputError: the stub is no module, contains itself, or a parameter is not a tensor but a stub.

    >>> relu = Stub("torch.nn.modules.activation.ReLU", state={"_parameters": {}, "_buffers": {}, "_modules": {}})
    >>> state_dict_of(relu)
    {}
    """
    found: dict[str, Any] = {}
    _collect(module, "", (), found)
    return found


def _collect(module: object, prefix: str, above: tuple[object, ...], found: dict[str, Any]) -> None:
    state = module.state if isinstance(module, Stub) else None
    if not isinstance(state, dict) or not all(isinstance(state.get(part), dict) for part in _PARTS):
        raise InvalidInputError(
            f"{shown(module)} at {_place(prefix)} is no pickled torch.nn.Module: it has no {', '.join(_PARTS)}"
        )
    if any(module is outer for outer in above):
        raise InvalidInputError(f"{module!r} contains itself as {_place(prefix)}")
    passing = state.get("_non_persistent_buffers_set")
    passing = passing if isinstance(passing, set) else set()
    for part in ("_parameters", "_buffers"):
        for name, tensor in state[part].items():
            if not isinstance(name, str):
                raise InvalidInputError(f"{module!r} at {_place(prefix)} has a tensor called {shown(name)}")
            if tensor is None or (part == "_buffers" and name in passing):
                continue
            if isinstance(tensor, Stub | Known):
                raise InvalidInputError(f"{prefix}{name} of {module!r} is no tensor but {shown(tensor)}")
            found[f"{prefix}{name}"] = tensor
    for name, inner in state["_modules"].items():
        if inner is not None:
            _collect(inner, f"{prefix}{shown(name) if not isinstance(name, str) else name}.", (*above, module), found)


def _place(prefix: str) -> str:
    return shown(prefix.rstrip(".") or "the top")


_PARTS = ("_parameters", "_buffers", "_modules")
