"""Paths of what lies in a state: the keys of the containers around it, joined by ``/``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

_SPECIAL = re.compile("[/%\0\ud800-\udfff]")


def child_path(parent: str | None, name: str) -> str:
    """Return the path of what `parent` holds under a name; the parent of the first level is None."""
    return name if parent is None else f"{parent}/{name}"


def child_names(keys: Iterable[object]) -> list[str]:
    """Return a name for each key of a dict, no two alike.

    Strings keep theirs, with ``/``, ``%``, NUL and lone surrogates escaped by percents. Another key is shown as
    Python does, followed by its type where that reads as one of the others.

    >>> child_names(["a/b", 0, "0", (1, 2)])
    ['a%2Fb', '0%(int)', '0', '(1, 2)']
    """
    keys = list(keys)
    plain = [key for key in keys if type(key) is str]
    if len(plain) == len(keys) and not _SPECIAL.search("".join(plain)):
        return plain
    texts = [_escaped(key) if type(key) is str else None for key in keys]
    taken = {text for text in texts if text is not None}
    names = []
    for key, text in zip(keys, texts, strict=True):
        name = _free(key, taken) if text is None else text
        taken.add(name)
        names.append(name)
    return names


def _free(key: object, taken: set[str]) -> str:
    kind = type(key).__name__
    shown = _escaped(_shown(key))
    if shown not in taken:
        return shown
    name, count = f"{shown}%({kind})", 1
    while name in taken:
        count += 1
        name = f"{shown}%({kind} {count})"
    return name


def _shown(key: object) -> str:
    kind = type(key)
    try:
        return repr(key) if kind.__module__ == "builtins" else str(key)
    except ValueError:  # an integer of more than 4300 digits
        return kind.__name__


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), text)
