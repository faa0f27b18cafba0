"""The comment that a query's file begins with, read strictly.

::

    -- title: Leaderboard
    -- description: The runs of an experiment, best first
    --   by a metric.
    -- parameter metric text required: the metric, such as val/loss
    -- parameter experiment text = null: only this one and those below it; null for all
    -- column run_id: the run
    -- column best: its best value

Entries come in this order; a line that begins with two more spaces goes on with the entry before. A parameter has a
type (``text``, ``integer``, ``number``, ``boolean``) and is ``required`` or has a default, written as in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, cast

from ckptlake.errors import InvalidInputError
from ckptlake.query.named import PARAMETER_TYPES, Column, NamedQuery, Parameter, ParameterType, Value, nearest

TAKEN_NAMES = frozenset({"as_of", "csv", "help", "json", "lake", "list"})
"""Names that parameters cannot have: `lake.sql` and ``ckptlake query`` have a meaning for them."""

_ORDER = ("title", "description", "parameter", "column")
_NAME = r"[a-z][a-z0-9_]*"
_ENTRY = re.compile(
    r"-- (?P<kind>title|description|parameter|column)\b *"
    r'(?P<head>(?:"(?:[^"\\]|\\.)*"|[^":]|:(?! ))*): (?P<meaning>.*\S)\s*'
)
_CONTINUATION = re.compile(r"--   \s*(.*\S)\s*")
_PARAMETER = re.compile(rf"(?P<name>{_NAME}) (?P<type>\S+) (?:required|= (?P<default>.+))")
_COLUMN = re.compile(_NAME)
_SINGLE = ("title", "description")


@dataclass(slots=True)
class _Entry:
    line: int
    kind: str
    head: str
    meaning: str


def parse_query(text: str, name: str, file: str) -> NamedQuery:
    """Return the query that the text of a file is.

    Args:
        text: the whole file.
        name: what the query is called.
        file: how messages name the file.

    Raises:
        InvalidInputError: the comment is not as it must be; the message names file and line.

    >>> parse_query("-- title: One\\n-- description: It.\\n-- column n: one\\nSELECT 1 AS n", "one", "one.sql").title
    'One'
    """
    return _Reader(text, file).read(name)


class _Reader:
    """Reads one file."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file

    def read(self, name: str) -> NamedQuery:
        entries = list(self._entries())
        single = {kind: [entry for entry in entries if entry.kind == kind] for kind in _SINGLE}
        for kind, found in single.items():
            if len(found) != 1:
                line = found[1].line if found else 1
                self._refuse(line, f"{'a second' if found else 'no'} {kind}; one line is `-- {kind}: …`")
            if found[0].head:
                self._refuse(found[0].line, f"a {kind} has no name: write `-- {kind}: …`")
        parameters = [self._parameter(entry) for entry in entries if entry.kind == "parameter"]
        columns = [self._column(entry) for entry in entries if entry.kind == "column"]
        if not columns:
            self._refuse(1, "no column is told; each is a line `-- column NAME: …`")
        title, description = (single[kind][0].meaning for kind in _SINGLE)
        return NamedQuery(name, title, description, tuple(parameters), tuple(columns), self._text)

    def _entries(self) -> Iterator[_Entry]:
        """Yield the entries with what continues them."""
        entry: _Entry | None = None
        seen: set[tuple[str, str]] = set()
        for number, line in enumerate(self._text.splitlines(), 1):
            if not line.startswith("--"):
                break
            continuation, begun = _CONTINUATION.fullmatch(line), _ENTRY.fullmatch(line)
            if continuation is not None and entry is not None:
                entry.meaning += f" {continuation[1]}"
                continue
            if begun is None:
                self._refuse(number, f"{line!r:.60} is no entry; they begin with {', '.join(_ORDER)}")
            if entry is not None:
                if _ORDER.index(begun["kind"]) < _ORDER.index(entry.kind):
                    self._refuse(number, f"a {begun['kind']} after a {entry.kind}; the order is {', '.join(_ORDER)}")
                yield entry
            entry = _Entry(number, begun["kind"], begun["head"], begun["meaning"])
            key = (entry.kind, entry.head.partition(" ")[0])
            if entry.kind not in _SINGLE and key in seen:
                self._refuse(number, f"the {entry.kind} {key[1]!r} is there twice; leave one out")
            seen.add(key)
        if entry is not None:
            yield entry

    def _parameter(self, entry: _Entry) -> Parameter:
        found = _PARAMETER.fullmatch(entry.head)
        if found is None:
            self._refuse(
                entry.line,
                f"{entry.head!r:.60} is no parameter; write `NAME TYPE required` or `NAME TYPE = DEFAULT`, the name in "
                "lower case",
            )
        name, kind = found["name"], found["type"]
        if name in TAKEN_NAMES:
            self._refuse(entry.line, f"a parameter cannot be called {name!r}; call it something else")
        if kind not in PARAMETER_TYPES:
            self._refuse(entry.line, f"{kind!r} is no type{nearest(kind, PARAMETER_TYPES, 'there are')}")
        known = cast(ParameterType, kind)
        if found["default"] is None:
            return Parameter(name, known, entry.meaning)
        default = self._default(entry, found["default"])
        try:
            checked = Parameter(name, known, entry.meaning, required=False).check(default)
        except InvalidInputError as error:
            self._refuse(entry.line, f"the default does not suit: {error}")
        return Parameter(name, known, entry.meaning, required=False, default=checked)

    def _default(self, entry: _Entry, text: str) -> Value:
        try:
            return cast(Value, json.loads(text))
        except ValueError:
            self._refuse(entry.line, f'the default {text!r:.60} is no JSON; a text is written "so", none is null')

    def _column(self, entry: _Entry) -> Column:
        if not _COLUMN.fullmatch(entry.head):
            self._refuse(entry.line, f"{entry.head!r:.60} is no name of a column; write `-- column NAME: …`")
        return Column(entry.head, entry.meaning)

    def _refuse(self, line: int, what: str) -> NoReturn:
        raise InvalidInputError(f"{self._file}, line {line}: {what}")
