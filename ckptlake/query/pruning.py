"""What a user's SQL asks of the scanned tables, read from DuckDB's own parse of it.

Only conditions that hold for every row a table can contribute are used, and only on columns that make up
a row's identity, so leaving out files never changes a result. Whatever is not understood narrows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptlake.query.scans import SCANNED, ScannedTable
from ckptlake.tables.snapshot import Bound, OneOf, Predicates

_SCANNED_VIEWS = {view: table for table in SCANNED.values() for view in table.views}
_FLIPPED = {
    "COMPARE_EQUAL": "COMPARE_EQUAL",
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
}
_NARROWING_JOINS = frozenset({"INNER", "LEFT", "RIGHT", "OUTER"})
_AFTER_SLASH = chr(ord("/") + 1)
_CATALOGS = frozenset({"information_schema", "pg_catalog"})
_LOOKING = ("duckdb_", "sqlite_", "pg_", "query", "pragma_")
Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Needs:
    """The tables a query names, and what it asks of each scanned one; one alternative a mention of its rows."""

    tables: frozenset[str]
    alternatives: Mapping[str, tuple[Predicates, ...]]


@dataclass(frozen=True, slots=True)
class _Mention:
    """A scanned table in a FROM."""

    ref: Node
    table: ScannedTable

    def column(self, expression: Node) -> str | None:
        """Return the column of the table's identity that an expression is, or None."""
        if expression.get("type") != "COLUMN_REF":
            return None
        *qualifier, name = [str(part).lower() for part in expression["column_names"]]
        owner = str(self.ref.get("alias") or self.ref["table_name"]).lower()
        return name if name in self.table.identity and qualifier in ([], [owner]) else None

    def suits(self, column: str, value: object) -> bool:
        """Return whether DuckDB compares a value with a column as the files' statistics do."""
        if self.table.is_whole_number(column):
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def read_needs(tree: Node, values: Mapping[str, object]) -> Needs | None:
    """Return what a parsed query needs, with its parameters bound to `values`.

    None where it looks up views by itself, in the catalog or by a text, so that all must be there.
    """
    if _looks_up_views(tree):
        return None
    mentions = list(_nodes(tree, "BASE_TABLE"))
    found: dict[str, list[Predicates]] = {name: [] for name in SCANNED}
    narrowed: set[int] = set()
    for select in _nodes(tree, "SELECT_NODE"):
        for mention, conditions in _mentions(select):
            narrowed.add(id(mention.ref))
            found[mention.table.name].append(_predicates(conditions, mention, values))
    for ref in mentions:
        if (scanned := _scanned(ref)) is not None and id(ref) not in narrowed:
            found[scanned.name].append({})
    for name in _names_of_ctes(tree) & _SCANNED_VIEWS.keys():
        found[_SCANNED_VIEWS[name].name].append({})
    alternatives = {name: tuple(several) for name, several in found.items()}
    return Needs(frozenset(map(_table_name, mentions)), alternatives)


def _looks_up_views(tree: Node) -> bool:
    functions = {str(_function(ref)).lower() for ref in _nodes(tree, "TABLE_FUNCTION")}
    if any(True for _ in _nodes(tree, "SHOW_REF")) or any(name.startswith(_LOOKING) for name in functions):
        return True
    return any(
        str(ref.get("schema_name")).lower() in _CATALOGS or str(ref["table_name"]).lower().startswith(_LOOKING)
        for ref in _nodes(tree, "BASE_TABLE")
    )


def _function(ref: Node) -> object:
    return (ref.get("function") or {}).get("function_name")


def _nodes(tree: object, kind: str) -> Iterator[Node]:
    if isinstance(tree, dict):
        if tree.get("type") == kind:
            yield tree
        for child in tree.values():
            yield from _nodes(child, kind)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child, kind)


def _names_of_ctes(tree: object) -> set[str]:
    names: set[str] = set()
    if isinstance(tree, dict):
        entries = (tree.get("cte_map") or {}).get("map") or []
        names |= {str(entry["key"]).lower() for entry in entries}
        for child in tree.values():
            names |= _names_of_ctes(child)
    elif isinstance(tree, list):
        for child in tree:
            names |= _names_of_ctes(child)
    return names


def _table_name(ref: Node) -> str:
    return str(ref["table_name"]).lower()


def _scanned(ref: Node) -> ScannedTable | None:
    return _SCANNED_VIEWS.get(_table_name(ref)) if ref.get("type") == "BASE_TABLE" else None


def _mentions(select: Node) -> Iterator[tuple[_Mention, list[Node]]]:
    """Yield each mention of a scanned table directly in a FROM, with the conditions its rows must fulfil."""
    source = select.get("from_table") or {}
    where = list(_conjuncts(select.get("where_clause")))
    if select.get("sample") is None:
        yield from _in_source(source, where)


def _in_source(source: Node, conditions: list[Node]) -> Iterator[tuple[_Mention, list[Node]]]:
    if (table := _scanned(source)) is not None:
        plain = not source.get("sample") and not source.get("column_name_alias")
        yield _Mention(source, table), conditions if plain else []
    elif source.get("type") == "JOIN":
        kind = source.get("join_type")
        if source.get("ref_type") not in ("REGULAR", "CROSS") or kind not in _NARROWING_JOINS:
            return
        on = [part for part in _conjuncts(source.get("condition")) if _is_qualified(part)]
        yield from _in_source(source["left"], conditions + (on if kind in ("INNER", "RIGHT") else []))
        yield from _in_source(source["right"], conditions + (on if kind in ("INNER", "LEFT") else []))


def _conjuncts(condition: Node | None) -> Iterator[Node]:
    if condition is None:
        return
    if condition.get("type") == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from _conjuncts(child)
    else:
        yield condition


def _is_qualified(condition: Node) -> bool:
    return all(len(ref["column_names"]) > 1 for ref in _nodes(condition, "COLUMN_REF"))


def _predicates(conditions: list[Node], mention: _Mention, values: Mapping[str, object]) -> Predicates:
    found: dict[str, Bound | OneOf] = {}
    for condition in conditions:
        narrowed = _read(condition, mention, values)
        if narrowed is not None:
            column, bound = narrowed
            found[column] = _both(found.get(column), bound)
    return found


def _both(known: Bound | OneOf | None, more: Bound | OneOf) -> Bound | OneOf:
    """Return a condition at most as strict as both together."""
    if known is None or isinstance(more, OneOf):
        return more
    if isinstance(known, OneOf):
        return known
    return Bound(more.low if more.low is not None else known.low, more.high if more.high is not None else known.high)


def _read(condition: Node, mention: _Mention, values: Mapping[str, object]) -> tuple[str, Bound | OneOf] | None:
    kind = str(condition.get("type"))
    if kind in _FLIPPED:
        column, value = mention.column(condition["left"]), _value(condition["right"], values)
        if column is None:
            kind, column = _FLIPPED[kind], mention.column(condition["right"])
            value = _value(condition["left"], values)
        if column is None or not mention.suits(column, value):
            return None
        if kind == "COMPARE_EQUAL":
            return column, OneOf(frozenset((value,)))
        return column, Bound(low=value) if "GREATER" in kind else Bound(high=value)
    if kind == "COMPARE_BETWEEN":
        column = mention.column(condition["input"])
        low, high = _value(condition["lower"], values), _value(condition["upper"], values)
        if column is not None and mention.suits(column, low) and mention.suits(column, high):
            return column, Bound(low, high)
    if kind == "COMPARE_IN":
        column, *items = condition["children"]
        name, members = mention.column(column), _members(items, values)
        if name is not None and members and all(mention.suits(name, member) for member in members):
            return name, OneOf(frozenset(members))
    if kind == "FUNCTION":
        return _read_function(condition, mention, values)
    return None


def _read_function(
    condition: Node, mention: _Mention, values: Mapping[str, object]
) -> tuple[str, Bound | OneOf] | None:
    given = [argument["expression"] for argument in condition.get("arguments", ()) if not argument.get("name")]
    if len(given) != 2:
        return None
    if condition.get("function_name") == "in_subtree":
        root = _value(given[1], values)
        if isinstance(root, str) and mention.column(given[0]) == "experiment":
            return "experiment", Bound(root, f"{root}{_AFTER_SLASH}")
    if condition.get("function_name") == "contains":  # what DuckDB makes of `run_id in $runs`
        name, members = mention.column(given[1]), _value(given[0], values)
        is_list = isinstance(members, list | tuple) and len(members) > 0
        if name is not None and is_list and all(mention.suits(name, member) for member in members):
            return name, OneOf(frozenset(members))
    return None


def _value(expression: Node, values: Mapping[str, object]) -> Any:
    if expression.get("type") == "VALUE_PARAMETER":
        return values.get(str(expression.get("identifier")))
    if expression.get("type") != "VALUE_CONSTANT":
        return None
    constant = expression.get("literal") or {}
    text = constant.get("text")
    if constant.get("kind") == "STRING":
        return text
    if constant.get("kind") == "INTEGER" and isinstance(text, str) and text.lstrip("-").isdigit():
        return int(text)
    return None


def _members(items: list[Node], values: Mapping[str, object]) -> list[Any]:
    members: list[Any] = []
    for item in items:
        value = _value(item, values)
        members += value if isinstance(value, list | tuple) else [value]
    return members
