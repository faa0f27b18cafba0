"""What may name an experiment, a metric, a param or a tag, and how nested dicts become names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptlake.errors import InvalidInputError

MAX_NAME_BYTES = 64 * 1024
MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_DIRECTORY_BYTES = 240
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"  # what readers of directories take for null
_UNSAFE_IN_PATHS = frozenset('/\\%=:"*?[]{}<>|^#&;`$!~' + "'")


def check_text(kind: str, value: object) -> str:
    """Return `value` if it is text that UTF-8 can store.

    Raises:
        InvalidInputError: it is not a string, has a lone surrogate or a NUL, or is longer than 64 KiB (16 MiB for
            the text of a note, param or tag).
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{kind} must be a string, got {type(value).__name__} {value!r:.100}")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{kind} {value!r:.100} holds a lone surrogate at position {error.start}, which UTF-8 cannot store"
        ) from None
    if "\0" in value:
        raise InvalidInputError(f"{kind} {value!r:.100} holds a NUL character")
    most_bytes = MAX_TEXT_BYTES if kind.startswith("the text of") else MAX_NAME_BYTES
    if size_bytes > most_bytes:
        raise InvalidInputError(f"{kind} {value!r:.60}… has {size_bytes} bytes; at most {most_bytes} are kept")
    return value


def check_name(kind: str, value: object) -> str:
    """Return `value` if it is a non-empty name; raises as `check_text` does."""
    if value == "":
        raise InvalidInputError(f"{kind} is empty: give it at least one character")
    return check_text(kind, value)


def check_experiment(value: object) -> str:
    """Return `value` if it can name an experiment: parts joined by ``/``.

    Raises:
        InvalidInputError: a part is empty, ``.`` or ``..``, holds control characters, or the whole does
            not fit a directory name of 240 bytes.
    """
    name = check_name("the experiment's name", value)
    for part in name.split("/"):
        if part in {"", ".", ".."}:
            raise InvalidInputError(
                f"the experiment's name {name!r:.100} has the part {part!r}: separate the levels of the "
                "hierarchy by single slashes, like 'pose/vit/ablation'"
            )
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise InvalidInputError(f"the experiment's name {name!r:.100} holds a control character")
    size_bytes = len(as_directory(name).encode())
    if size_bytes > MAX_DIRECTORY_BYTES:
        raise InvalidInputError(
            f"the experiment's name {name!r:.60}… takes {size_bytes} bytes as a directory; "
            f"at most {MAX_DIRECTORY_BYTES} fit: shorten it, or move details into params or tags"
        )
    return name


def as_directory(name: str) -> str:
    """Return `name` with what is special in paths or globs percent-encoded."""
    encoded = "".join(f"%{ord(c):02X}" if c in _UNSAFE_IN_PATHS or ord(c) < 33 else c for c in name)
    return encoded.replace(_HIVE_NULL, f"%5F{_HIVE_NULL[1:]}")


def flatten(nested: Mapping[Any, object], separator: str, kind: str) -> dict[str, object]:
    """Return a flat dict whose keys join the keys of nested mappings by `separator`.

    An empty nested mapping stays as a value, so nothing disappears.

    Raises:
        InvalidInputError: a key is no usable name, or two paths give the same flat name.

    >>> flatten({"model": {"depth": 3, "width": 64}, "lr": 0.1}, ".", "param")
    {'model.depth': 3, 'model.width': 64, 'lr': 0.1}
    """
    flat: dict[str, object] = {}
    for name, value in _walk(nested, separator, kind, ""):
        if name in flat:
            raise InvalidInputError(f"the {kind} {name!r} is given twice, nested and flat: keep one of the two")
        flat[name] = value
    return flat


def _walk(nested: Mapping[object, object], separator: str, kind: str, prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in nested.items():
        name = prefix + check_name(f"a {kind}'s name", _as_key(key))
        if isinstance(value, Mapping) and value:
            yield from _walk(value, separator, kind, name + separator)
        else:
            yield name, value


def _as_key(key: object) -> object:
    return str(key) if isinstance(key, int | float) else key
