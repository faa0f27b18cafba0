"""A pickle machine that runs opcodes and leaves every decision about names, calls and objects to its subclass.

Python's own unpickler cannot be made safe from outside: its memo grows to whatever index a file names, payloads
are allocated before their length is checked, keys are hashed whatever that takes, and BUILD sets attributes on
anything a file can reach. Here lengths are checked first, the memo is a dictionary, and the opcodes that touch
objects are methods that a subclass has to give. Protocols 0 to 5 are those of :mod:`pickletools`.
"""

from __future__ import annotations

import pickle
import re
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from ckptlake.checkpoints.formats.guards import Allowance
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, UnsafeFileError

_BROKEN = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, RuntimeError, struct.error,
    SystemError, TypeError, ValueError, Warning,
)  # fmt: skip
_MOST_DIGITS = 4000
_FIRST_LINE_BYTES = 256
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\", b"'": b"'", b'"': b'"'}
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.|$)", re.DOTALL)
_UINT8, _UINT16, _UINT32, _UINT64, _INT32, _FLOAT64 = map(struct.Struct, ("<B", "<H", "<I", "<Q", "<i", ">d"))

_Operation = Callable[["PickleMachine"], Any]
_Register = TypeVar("_Register", bound=_Operation)
_OPERATIONS: dict[int, _Operation] = {}


def _opcode(*codes: bytes) -> Callable[[_Register], _Register]:
    def register(operation: _Register) -> _Register:
        _OPERATIONS.update(dict.fromkeys((code[0] for code in codes), operation))
        return operation

    return register


class PickleMachine(ABC):
    """Reads one pickle from `data`, beginning at `position`, which is behind its end afterwards.

    Args:
        data: bytes, of which nothing beyond the pickle's end is looked at.
        allowance: what reading it may cost.
        position: where the pickle begins.
    """

    def __init__(self, data: memoryview, allowance: Allowance, position: int = 0) -> None:
        self.allowance = allowance
        self.position = position
        self._data = data.cast("B") if data.format != "B" or data.ndim != 1 else data
        self._protocol = 0
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value that the pickle builds.

        Raises:
            UnsafeFileError: it needs what only running code, or more than a bounded cost, could give.
            DamagedCheckpointError: it is cut short or malformed.
        """
        start, data, stop = self.position, self._data, pickle.STOP[0]
        try:
            while (code := data[self.position]) != stop:
                self.position += 1
                _OPERATIONS[code](self)
            self.position += 1
            return self._stack.pop()
        except CkptlakeError:
            raise
        except _BROKEN as error:
            raise DamagedCheckpointError(
                f"{self.allowance.source} holds no whole pickle at byte {start}: reading stopped at byte "
                f"{min(self.position, len(data))} of {len(data)} ({type(error).__name__}: {error!s:.200}); take an "
                "intact copy of it"
            ) from error

    @abstractmethod
    def find(self, module: str, name: str) -> Any:
        """Return what stands for a global name."""

    @abstractmethod
    def call(self, target: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return the value of a call to something found."""

    @abstractmethod
    def set_state(self, target: Any, state: Any) -> None:
        """Give an object its state."""

    @abstractmethod
    def append(self, target: Any, items: list[Any]) -> None:
        """Add items to an object as to a list."""

    @abstractmethod
    def add(self, target: Any, items: list[Any]) -> None:
        """Add items to an object as to a set."""

    @abstractmethod
    def assign(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        """Set items of an object as of a dictionary."""

    @abstractmethod
    def refer(self, identifier: Any) -> Any:
        """Return what a persistent identifier stands for."""

    def _take(self, size: int) -> memoryview:
        start, end = self.position, self.position + size
        if end > len(self._data):
            raise EOFError(f"{size} bytes announced, {len(self._data) - start} left")
        self.position = end
        return self._data[start:end]

    def _number(self, layout: struct.Struct) -> Any:
        (number,) = layout.unpack_from(self._data, self.position)
        self.position += layout.size
        return number

    def _line(self) -> bytes:
        size = _FIRST_LINE_BYTES
        while True:
            piece = bytes(self._data[self.position : self.position + size])
            end = piece.find(b"\n")
            if end >= 0:
                self.position += end + 1
                return piece[:end]
            if len(piece) < size:
                raise EOFError("a line without an end")
            size *= 4

    @_opcode(pickle.POP_MARK)
    def _above_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer_stacks.pop()
        return items

    def _make(self, target: Any, args: Any, named: Any) -> None:
        if not isinstance(args, tuple) or type(named) is not dict:
            raise TypeError("a call whose arguments are no tuple")
        self.allowance.make()
        self._stack.append(self.call(target, args, named))

    @_opcode(pickle.PROTO)
    def _proto(self) -> None:
        self._protocol = self._number(_UINT8)
        if self._protocol > pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"pickle protocol {self._protocol} is unknown")

    @_opcode(pickle.FRAME)
    def _frame(self) -> None:
        size = self._number(_UINT64)
        left = len(self._data) - self.position
        if size > left:
            raise EOFError(f"a frame of {size} bytes announced, {left} left")

    @_opcode(pickle.MARK)
    def _mark(self) -> None:
        self._outer_stacks.append(self._stack)
        self._stack = []

    @_opcode(pickle.POP)
    def _pop(self) -> None:
        _ = self._stack.pop() if self._stack else self._above_mark()

    @_opcode(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
    def _buffer(self) -> None:
        raise ValueError("it was pickled with buffers kept outside of it, which are not here")

    @_opcode(pickle.EMPTY_SET)
    def _empty_set(self) -> None:
        self.allowance.make()
        self._stack.append(set())

    @_opcode(pickle.DICT)
    def _dict(self) -> None:
        items, made = self._above_mark(), {}  # type: ignore[var-annotated]
        self.assign(made, items[::2], items[1::2])
        self._stack.append(made)

    @_opcode(pickle.FROZENSET)
    def _frozenset(self) -> None:
        self.allowance.make()
        items = self._above_mark()
        for item in items:
            self.allowance.take_key(item)
        self._stack.append(frozenset(items))

    @_opcode(pickle.APPEND)
    def _append(self) -> None:
        item = self._stack.pop()
        self.append(self._stack[-1], [item])

    @_opcode(pickle.APPENDS)
    def _appends(self) -> None:
        items = self._above_mark()
        self.append(self._stack[-1], items)

    @_opcode(pickle.ADDITEMS)
    def _additems(self) -> None:
        items = self._above_mark()
        self.add(self._stack[-1], items)

    @_opcode(pickle.SETITEM)
    def _setitem(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.assign(self._stack[-1], [key], [value])

    @_opcode(pickle.SETITEMS)
    def _setitems(self) -> None:
        items = self._above_mark()
        self.assign(self._stack[-1], items[::2], items[1::2])

    @_opcode(pickle.BININT1)
    def _binint1(self) -> None:
        self._stack.append(self._data[self.position])
        self.position += 1

    @_opcode(pickle.BINGET)
    def _binget(self) -> None:
        self._stack.append(self._memo[self._data[self.position]])
        self.position += 1

    @_opcode(pickle.BINPUT)
    def _binput(self) -> None:
        self._memo[self._data[self.position]] = self._stack[-1]
        self.position += 1

    @_opcode(pickle.LONG_BINPUT)
    def _long_binput(self) -> None:
        self._memo[self._number(_UINT32)] = self._stack[-1]

    @_opcode(pickle.PUT)
    def _put(self) -> None:
        self._memo[_integer(self._line())] = self._stack[-1]

    @_opcode(pickle.MEMOIZE)
    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    @_opcode(pickle.GLOBAL)
    def _global(self) -> None:
        self._stack.append(self._find(self._line().decode(), self._line().decode()))

    @_opcode(pickle.STACK_GLOBAL)
    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is no text")
        self._stack.append(self._find(module, name))

    def _find(self, module: str, name: str) -> Any:
        if self._protocol < 3:
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        return self.find(module, name)

    @_opcode(pickle.EXT1, pickle.EXT2, pickle.EXT4)
    def _extension(self) -> None:
        raise UnsafeFileError(
            f"{self.allowance.source} names objects by numbers of copyreg's extension registry, which only the program "
            "that wrote it knows; have that program write it again without"
        )

    @_opcode(pickle.REDUCE, pickle.NEWOBJ)
    def _call(self) -> None:
        args, target = self._stack.pop(), self._stack.pop()
        self._make(target, args, {})

    @_opcode(pickle.NEWOBJ_EX)
    def _newobj_ex(self) -> None:
        named, args, target = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._make(target, args, named)

    @_opcode(pickle.INST)
    def _inst(self) -> None:
        target = self._find(self._line().decode(), self._line().decode())
        self._make(target, tuple(self._above_mark()), {})

    @_opcode(pickle.OBJ)
    def _obj(self) -> None:
        target, *args = self._above_mark()
        self._make(target, tuple(args), {})

    @_opcode(pickle.BUILD)
    def _build(self) -> None:
        state = self._stack.pop()
        self.set_state(self._stack[-1], state)

    @_opcode(pickle.PERSID)
    def _persid(self) -> None:
        self._stack.append(self.refer(self._line().decode("ascii")))

    @_opcode(pickle.BINPERSID)
    def _binpersid(self) -> None:
        self._stack.append(self.refer(self._stack.pop()))


_Read = Callable[[PickleMachine], Any]


def _pushes(read: _Read) -> _Operation:
    def push(machine: PickleMachine) -> None:
        value = read(machine)
        machine._stack.append(value)

    return push


def _payload(length: struct.Struct, read: Callable[[memoryview], Any]) -> _Read:
    return lambda machine: read(machine._take(machine._number(length)))


def _long(data: memoryview) -> int:
    return int.from_bytes(data, "little", signed=True)


def _text(data: memoryview) -> str:
    return str(data, "utf-8", "surrogatepass")


def _old_string(data: memoryview | bytes) -> str | bytes:
    """Return a Python 2 string as text if it is ASCII, else as the bytes it then mostly was."""
    content = bytes(data)
    return content.decode() if content.isascii() else content


def _quoted(machine: PickleMachine) -> str | bytes:
    line = machine._line()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise ValueError("a string without quotes")
    return _old_string(_ESCAPE.sub(_unescaped, line[1:-1]))


def _packed(size: int) -> _Operation:
    def pack(machine: PickleMachine) -> None:
        stack = machine._stack
        if len(stack) < size:
            raise IndexError(f"a tuple of {size} from {len(stack)} values")
        stack[-size:] = [tuple(stack[-size:])]

    return pack


def _integer(line: bytes) -> int:
    """Return a number written as text; ``00`` and ``01`` are how protocols 0 and 1 write false and true."""
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > _MOST_DIGITS:
        raise UnsafeFileError(f"the pickle holds a number of {len(line)} digits; converting it could take for ever")
    return int(line)


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes.fromhex(code[1:].decode()) if len(code) > 1 else _ESCAPES[code]


_VALUES: dict[bytes, _Read] = {
    pickle.DUP: lambda machine: machine._stack[-1],
    pickle.LIST: lambda machine: machine._above_mark(),
    pickle.TUPLE: lambda machine: tuple(machine._above_mark()),
    pickle.NONE: lambda _: None,
    pickle.NEWTRUE: lambda _: True,
    pickle.NEWFALSE: lambda _: False,
    pickle.EMPTY_TUPLE: lambda _: (),
    pickle.EMPTY_LIST: lambda _: [],
    pickle.EMPTY_DICT: lambda _: {},
    pickle.INT: lambda machine: _integer(machine._line()),
    pickle.LONG: lambda machine: _integer(machine._line().removesuffix(b"L")),
    pickle.LONG1: _payload(_UINT8, _long),
    pickle.LONG4: _payload(_UINT32, _long),
    pickle.BININT: lambda machine: machine._number(_INT32),
    pickle.BININT2: lambda machine: machine._number(_UINT16),
    pickle.BINFLOAT: lambda machine: machine._number(_FLOAT64),
    pickle.FLOAT: lambda machine: float(machine._line()),
    pickle.STRING: _quoted,
    pickle.SHORT_BINSTRING: _payload(_UINT8, _old_string),
    pickle.BINSTRING: _payload(_UINT32, _old_string),
    pickle.UNICODE: lambda machine: str(machine._line(), "raw-unicode-escape"),
    pickle.SHORT_BINUNICODE: _payload(_UINT8, _text),
    pickle.BINUNICODE: _payload(_UINT32, _text),
    pickle.BINUNICODE8: _payload(_UINT64, _text),
    pickle.SHORT_BINBYTES: _payload(_UINT8, bytes),
    pickle.BINBYTES: _payload(_UINT32, bytes),
    pickle.BINBYTES8: _payload(_UINT64, bytes),
    pickle.BYTEARRAY8: _payload(_UINT64, bytearray),
    pickle.GET: lambda machine: machine._memo[_integer(machine._line())],
    pickle.LONG_BINGET: lambda machine: machine._memo[machine._number(_UINT32)],
}
for _code, _read in _VALUES.items():
    _opcode(_code)(_pushes(_read))
for _size, _code in enumerate((pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), start=1):
    _opcode(_code)(_packed(_size))
