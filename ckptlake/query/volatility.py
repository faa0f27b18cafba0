"""Which questions have the same answer whenever they are asked of the same rows, read from DuckDB's own parse.

What is not known to be so is not: a question reads the lake's views and nothing else, and calls functions that depend
on their arguments alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptlake.query.pure_functions import PURE, PURE_TABLES
from ckptlake.query.views import ALL_VIEWS

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT"})
_AS_COLUMNS = """
    current_catalog current_date current_role current_schema current_time current_timestamp current_user localtime
    localtimestamp session_user user
"""
CALLED_WITHOUT_PARENTHESES = frozenset(_AS_COLUMNS.split())
"""Functions that look like columns, and are where no column has their name."""

Node = Mapping[str, Any]
Names = frozenset[str]


def is_repeatable(tree: Node) -> bool:
    """Return whether a parsed text has one answer for the rows it reads, whenever it is asked."""
    statements = [] if tree.get("error") else tree["statements"]
    return bool(statements) and all(_is_repeatable(statement["node"], ALL_VIEWS) for statement in statements)


def _is_repeatable(part: object, names: Names) -> bool:
    """Tell it of a part of a question in which `names` stand for views and for queries of a WITH."""
    if isinstance(part, list):
        return all(_is_repeatable(item, names) for item in part)
    if not isinstance(part, dict):
        return True
    if not _is_harmless(part, names):
        return False
    inner = dict(part)
    ctes = inner.pop("cte_map", None)
    for entry in (ctes or {}).get("map") or ():
        name, body = {str(entry["key"]).lower()}, entry["value"]
        calls_itself = body["query_node"].get("type") == "RECURSIVE_CTE_NODE"
        if not _is_repeatable(body, names | name if calls_itself else names):
            return False
        names |= name
    if inner.get("type") == "TABLE_FUNCTION":
        inner = {**inner, "function": inner["function"]["arguments"]}
    return all(_is_repeatable(child, names) for child in inner.values())


def _is_harmless(node: Node, names: Names) -> bool:
    """Tell whether a node by itself, without those below, lets a question be repeatable."""
    kind = node.get("type")
    if "cte_map" in node or "query_node" in node:
        queries = node if "cte_map" in node else node["query_node"]
        return queries.get("type") in _QUERIES and not node.get("sample")
    if "sample" in node and (node["sample"] or kind not in _SOURCES):
        return False
    if kind == "BASE_TABLE":
        return _is_bare(node) and not node.get("at_clause") and str(node["table_name"]).lower() in names
    if kind == "TABLE_FUNCTION":
        return _is_called(node["function"], PURE_TABLES)
    if kind == "COLUMN_REF":
        columns = node["column_names"]
        return len(columns) > 1 or str(columns[0]).lower() not in CALLED_WITHOUT_PARENTHESES
    return "function_name" not in node or _is_called(node, PURE)


def _is_called(function: Node, known: Names) -> bool:
    return _is_bare(function) and str(function["function_name"]).lower() in known


def _is_bare(node: Node) -> bool:
    return len((node.get("qualified_name") or {}).get("path", ())) == 1
