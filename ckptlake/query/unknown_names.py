"""What is said of a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ckptlake.errors import InvalidInputError

_LISTED = 12


def check_known(what: str, name: str, known: Iterable[str], instead: str | None = None) -> None:
    there = list(known)
    if name in there:
        return
    near = [instead] if instead else difflib.get_close_matches(name, there, 3, 0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {listed(there)}"
    raise InvalidInputError(f"no run has the {what} {name!r}{hint}")


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(sorted(names)[:_LISTED]) or "none") + more
