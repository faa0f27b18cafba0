"""How a query looks in Jupyter: its SQL, and its first rows."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_ROWS = 10
_LONG = 60
_ROW = 'style="vertical-align: top; white-space: nowrap"'
_OPENED = 'style="white-space: pre-wrap; max-width: 60em"'


def as_html(sql: str, rows: pa.Table) -> str:
    """Return the SQL, folded away, and at most `SHOWN_ROWS` rows as a table."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows.column_names)
    columns = [column.to_pylist() for column in rows.columns]
    body = "".join(
        f"<tr {_ROW}>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in zip(*columns, strict=True)
    )
    more = f"<p>the first {SHOWN_ROWS} rows</p>" if rows.num_rows == SHOWN_ROWS else ""
    return (
        f"<details><summary>SQL</summary><pre>{html.escape(sql)}</pre></details>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
    )


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    whole = html.escape(text)
    if len(text) <= _LONG:
        return whole
    return f"<details><summary>{html.escape(text[:_LONG])}…</summary><div {_OPENED}>{whole}</div></details>"
