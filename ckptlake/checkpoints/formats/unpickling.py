"""Reading pickles from elsewhere without running anything in them.

A pickle is a program: whatever it names it may call. Here a name is looked up in a list of plain data alone, and
what the list answers with are functions of this package that check what they are given. Any other name is refused,
or becomes an inert stub that keeps what the file has for it, so that weights can be recovered from a pickled
module or trainer. What reading costs is bounded by the size of the file.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, BinaryIO

from ckptlake.checkpoints.formats.guards import Allowance, check_value
from ckptlake.checkpoints.formats.numpy_names import NUMPY
from ckptlake.checkpoints.formats.numpy_names import SETTERS as NUMPY_SETTERS
from ckptlake.checkpoints.formats.opcodes import PickleMachine
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.checkpoints.formats.plain_names import BUILDS, PLAIN, SETTERS
from ckptlake.checkpoints.formats.stubs import Known, Stub, shown, state_dict_of
from ckptlake.errors import DamagedCheckpointError, UnsafeFileError

__all__ = ["REFUSE", "STUB", "Policy", "SafeUnpickler", "Stub", "Unpickled", "load_pickle", "state_dict_of"]

_MOST_NESTED, _MOST_ARGS, _LONGEST_NAME, _POINTER_BYTES = 8, 256, 1000, 8
_SETTERS = {**SETTERS, **NUMPY_SETTERS}
_DICTS = (dict, OrderedDict, defaultdict, Counter)


class Policy(Enum):
    """What becomes of a name that is not plain data."""

    REFUSE = "refuse"
    """An UnsafeFileError says which name it is."""
    STUB = "stub"
    """An inert `Stub` takes its place, and its name is reported."""


REFUSE, STUB = Policy.REFUSE, Policy.STUB


@dataclass(frozen=True, slots=True)
class Unpickled:
    """What a pickle held.

    Attributes:
        value: plain data, numpy and torch values, and `Stub` objects (`Known` ones where a name of the allow-list
            that stands for no plain class was itself left as a value).
        stubs: names that became stubs, sorted, each once.
    """

    value: Any
    stubs: tuple[str, ...] = ()


@dataclass(slots=True)
class Reading:
    """The reading of one file, with the files kept as bytes inside it."""

    policy: Policy
    allowance: Allowance
    stubs: dict[str, Stub] = field(default_factory=dict)
    views: set[tuple[Any, ...]] = field(default_factory=set)
    depth: int = 0

    def refuse(self, name: str) -> Stub:
        """Refuse a name, or return what stands for it where stubs are wanted."""
        if self.policy is not Policy.STUB or len(name) > _LONGEST_NAME:
            raise UnsafeFileError(
                f"{self.allowance.source} names {name[:200]!r}, which is not plain data: loading it otherwise would "
                "import and run it. Pass allow_unsafe=True only if you trust whoever wrote it, or have them save the "
                "weights alone"
            )
        return self.stubs.setdefault(name, Stub(name))

    def finish(self, value: object) -> Unpickled:
        """Return a value once it is known that it can be walked."""
        for known in check_value(value, self.allowance):
            self.refuse(known.name)
        return Unpickled(value, tuple(sorted(self.stubs)))


class SafeUnpickler(PickleMachine):
    """Runs a pickle whose every name is answered by the allow-list, a refusal or a stub."""

    def __init__(self, data: memoryview, reading: Reading, position: int = 0) -> None:
        super().__init__(data, reading.allowance, position)
        self.reading = reading

    @property
    def views(self) -> set[tuple[Any, ...]]:
        """Tensors that are paid for: many tensors of one view of a storage are one."""
        return self.reading.views

    def find(self, module: str, name: str) -> Any:
        full_name = f"{module[:_LONGEST_NAME]}.{name[:_LONGEST_NAME]}"
        if full_name in _NAMES:
            return _NAMES[full_name]
        if module.partition(".")[0] == "torch":
            found = _torch_names(full_name).get(full_name)
            if found is not None:
                return found
        return self.reading.refuse(full_name)

    def call(self, target: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        name = _name_of(target)
        build = target.build if isinstance(target, Known) else BUILDS.get(target) if isinstance(target, type) else None
        if build is not None and not named and len(args) <= _MOST_ARGS:
            try:
                return build(self, args)
            except TypeError:
                if not any(isinstance(arg, Stub) for arg in args):
                    raise
        self.allowance.spend(_POINTER_BYTES * len(args) if named else 0)
        return Stub(self.reading.refuse(name).name, (*args, named) if named else args)

    def set_state(self, target: Any, state: Any) -> None:
        if isinstance(target, Stub):
            target.receive(state)
            return
        setter = next((_SETTERS[kind] for kind in type(target).__mro__ if kind in _SETTERS), None)
        if setter is None:
            raise UnsafeFileError(
                f"{self.allowance.source} changes the attributes of a {type(target).__name__}, which no pickle of "
                "plain data does"
            )
        setter(self, target, state)

    def append(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Stub):
            target.elements.extend(items)
        elif type(target) in (list, deque):
            target.extend(items)
        else:
            raise TypeError(f"items for a {type(target).__name__}")

    def add(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Stub):
            target.elements.extend(items)
            return
        if type(target) is not set:
            raise TypeError(f"members for a {type(target).__name__}")
        for item in items:
            self.allowance.take_key(item)
            target.add(item)

    def assign(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        entries = target.entries if isinstance(target, Stub) else target
        if type(entries) not in _DICTS:
            raise TypeError(f"entries for a {type(target).__name__}")
        for key, value in zip(keys, values, strict=True):
            self.allowance.take_key(key)
            entries[key] = value

    def refer(self, identifier: Any) -> Any:
        raise DamagedCheckpointError(
            f"{self.allowance.source} refers to data kept outside of it ({shown(identifier)}); read the "
            "file it is part of"
        )

    def check_end(self, end: int) -> None:
        """Refuse bytes behind the end of what was read.

        Raises:
            DamagedCheckpointError: there are some.
        """
        if end != len(self._data):
            raise DamagedCheckpointError(
                f"{self.allowance.source} goes on for {len(self._data) - end} bytes behind its end; it is damaged, "
                "holds more than one object, or is another kind of file"
            )

    def read_nested(self, data: bytes) -> object:
        from ckptlake.checkpoints.formats.torch_files import read_container

        self.allowance.nest(len(data))
        if self.reading.depth == _MOST_NESTED:
            raise UnsafeFileError(f"{self.allowance.source} holds files in files more than {_MOST_NESTED} deep")
        self.reading.depth += 1
        try:
            return read_container(memoryview(data), self.reading)
        finally:
            self.reading.depth -= 1


def load_pickle(data: BinaryIO | memoryview, policy: Policy) -> Unpickled:
    """Return what a pickle of protocol 0 to 5 holds, running none of it.

    Accepted are Python's plain types, collections, dates, decimals, fractions, UUIDs, namespaces, numpy arrays,
    scalars and element types, and torch tensors with all that a state dict may hold. Some come back as what is
    plain about them: paths as pure paths, numpy generators as the dictionary of their state, torch's version as
    text, tensors on the CPU and without hooks.

    Args:
        data: a file opened for reading, which is read into memory, or its bytes, such as a mapped file.
        policy: what becomes of every other name.

    Returns:
        The value, and the names of it that became stubs.

    Raises:
        UnsafeFileError: loading it would run code, or cost more than its size can explain.
        DamagedCheckpointError: it is no whole pickle, or more follows behind it.
        MissingDependencyError: it holds tensors and torch is not installed.

    >>> import io, pickle
    >>> load_pickle(io.BytesIO(pickle.dumps({"epoch": 3})), Policy.REFUSE)
    Unpickled(value={'epoch': 3}, stubs=())
    """
    view = data if isinstance(data, memoryview) else memoryview(data.read())
    name = getattr(data, "name", None)
    reading = Reading(policy, Allowance(repr(name) if isinstance(name, str) else "the pickle", view.nbytes))
    reader = SafeUnpickler(view, reading)
    value = reader.run()
    reader.check_end(reader.position)
    return reading.finish(value)


def _name_of(target: Any) -> str:
    if isinstance(target, Known | Stub):
        return target.name
    if isinstance(target, type):
        return f"{target.__module__}.{target.__qualname__}"
    raise TypeError(f"a call to a {type(target).__name__}")


def _torch_names(wanted: str) -> dict[str, object]:
    with needing_torch(f"the file, which names {wanted[:80]},"):
        from ckptlake.checkpoints.formats.torch_names import torch_names

        return torch_names()


_NAMES: dict[str, object] = {**PLAIN, **NUMPY}
