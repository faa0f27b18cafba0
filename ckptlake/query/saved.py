"""Queries kept in a lake under names: one small JSON file each, under ``queries/``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from ckptlake._internal.files import storage_errors, write_anew
from ckptlake._internal.names import check_text
from ckptlake.errors import InvalidInputError, QueryNotFoundError
from ckptlake.query import nodes as n
from ckptlake.query.constants import constant
from ckptlake.query.named import nearest
from ckptlake.query.trees import read_tree, write_tree

_SUFFIX = ".json"
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A question that was kept.

    Attributes:
        table: what is asked.
        placeholders: the names of the values that are given when it is asked.
    """

    name: str
    description: str | None
    table: n.Table

    @property
    def placeholders(self) -> tuple[str, ...]:
        found = (node.name for node in n.walk(self.table) if isinstance(node, n.Placeholder))
        return tuple(dict.fromkeys(found))

    def filled(self, values: Mapping[str, object]) -> n.Table:
        """Return what is asked with values in the places left open.

        Raises:
            InvalidInputError: a value is missing, is none of the places, or cannot stand in a query.
        """
        odd = [name for name in values if name not in self.placeholders]
        missing = [name for name in self.placeholders if name not in values]
        if odd or missing:
            takes = ", ".join(self.placeholders) or "no values"
            problem = f"{missing[0]!r} is not given" if missing else f"there is no {odd[0]!r}"
            raise InvalidInputError(f"the query {self.name!r} takes {takes}; {problem}")
        return _filled(self.table, {name: constant(value) for name, value in values.items()})


def _filled(node: n.Table, values: Mapping[str, n.Const]) -> n.Table:
    def change(child: n.Node) -> n.Node:
        if isinstance(child, n.Placeholder):
            return values[child.name]
        changed: n.Node = n.rebuilt(child, change)
        return changed

    filled: n.Table = n.rebuilt(node, change)
    return filled


class SavedQueries:
    """The queries kept in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, name: str, table: n.Table, description: str | None = None) -> None:
        """Keep a query under a name, in the place of one that had it.

        Raises:
            InvalidInputError: the name is empty or too long.
            StorageError: the disk refused.
        """
        told = None if description is None else check_text("the text of a description", description)
        fields = {"name": name, "description": told, "query": json.loads(write_tree(table))}
        payload = json.dumps(fields, ensure_ascii=False, indent=1).encode()
        path = self._path(name)
        with storage_errors("save a query", self._directory):
            self._directory.mkdir(exist_ok=True)
            write_anew(path, payload)

    def find(self, name: str) -> SavedQuery | None:
        """Return a query by its name, or None.

        Raises:
            InvalidInputError: its file is damaged.
        """
        if not isinstance(name, str) or not name.strip():
            return None
        path = self._path(name)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            fields = json.loads(text)
            description = fields["description"]
            if fields["name"] != name or not isinstance(description, str | None):
                raise ValueError("it is another query's")
            return SavedQuery(name, description, read_tree(json.dumps(fields["query"])))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"the saved query {path} cannot be read: {error!s:.200}; save it again") from error

    def get(self, name: str) -> SavedQuery:
        """Return a query by its name.

        Raises:
            QueryNotFoundError: there is none; the message has the nearest names.
            InvalidInputError: its file is damaged.
        """
        found = self.find(name)
        if found is None:
            raise QueryNotFoundError(f"no query {name!r} is saved{nearest(name, self.names(), 'there are')}")
        return found

    def delete(self, name: str) -> bool:
        """Forget a query; False if there is none of the name."""
        with storage_errors("delete a query", self._directory):
            try:
                self._path(name).unlink()
            except FileNotFoundError:
                return False
            return True

    def names(self) -> list[str]:
        """Return the names of all queries, sorted."""
        try:
            files = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(
            unquote(file.removesuffix(_SUFFIX)) for file in files if file.endswith(_SUFFIX) and file[0] != "."
        )

    def _path(self, name: str) -> Path:
        file = quote(check_text("the name of a query", name), safe=" ").replace(".", "%2E")
        if not name.strip() or len(file) > _LONGEST_NAME:
            raise InvalidInputError(f"the name of a query has 1 to {_LONGEST_NAME} characters, got {name!r:.60}")
        return self._directory / f"{file}{_SUFFIX}"
