"""What can be found of a run: its texts, folded from its rows as the views fold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ckptlake.tables.schemas import PARAMS, RUNS, TAGS

SEARCHED = (RUNS.name, PARAMS.name, TAGS.name)
"""The tables of which rows can be found."""

_RUN_COLUMNS = ("name", "experiment", "command", "git_branch", "git_commit", "host")
READ = {
    RUNS.name: ("run_id", "attempt", "ts", "note", *_RUN_COLUMNS),
    PARAMS.name: ("run_id", "attempt", "ts", "key", "number", "text", "json"),
    TAGS.name: ("run_id", "attempt", "ts", "key", "number", "text", "json", "removed"),
}
"""The columns of these tables that tell what can be found."""


@dataclass(frozen=True, slots=True)
class RunDocument:
    """The texts of one run.

    Attributes:
        run_id: the run.
        mark: changes whenever its rows do.
        name: what people call it.
        experiment: the experiment's whole name.
        notes: all its notes, a line each.
        tags: ``key`` or ``key=value``, a line each.
        params: ``key=value``, a line each.
        command: the command line that began it.
        git: branch and commit.
        host: the machine.
    """

    run_id: str
    mark: str
    name: str = ""
    experiment: str = ""
    notes: str = ""
    tags: str = ""
    params: str = ""
    command: str = ""
    git: str = ""
    host: str = ""


@dataclass(slots=True)
class _Folded:
    """What is known of one run so far; rows come oldest first."""

    latest: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def document(self, run_id: str, mark: str) -> RunDocument:
        latest = self.latest
        git = (latest.get("git_branch"), latest.get("git_commit"))
        return RunDocument(
            run_id,
            mark,
            latest.get("name", ""),
            latest.get("experiment", ""),
            "\n".join(self.notes),
            "\n".join(key if value == "true" else f"{key}={value}" for key, value in self.tags.items()),
            "\n".join(f"{key}={value}" for key, value in self.params.items()),
            latest.get("command", ""),
            " ".join(filter(None, git)),
            latest.get("host", ""),
        )


def documents(rows: Mapping[str, pa.Table], marks: Mapping[str, str]) -> list[RunDocument]:
    """Return the documents of runs from all their rows.

    Args:
        rows: the columns `READ` of the `SEARCHED` tables.
        marks: the runs to make documents of, each with its mark; rows of others are passed over.
    """
    found = {run_id: _Folded() for run_id in marks}
    for row in _oldest_first(rows, RUNS.name):
        if (folded := found.get(row["run_id"])) is not None:
            folded.latest.update((name, row[name]) for name in _RUN_COLUMNS if row[name] is not None)
            if row["note"] is not None:
                folded.notes.append(row["note"])
    for row in _oldest_first(rows, PARAMS.name):
        if (folded := found.get(row["run_id"])) is not None:
            folded.params[row["key"]] = _text(row)
    for row in _oldest_first(rows, TAGS.name):
        if (folded := found.get(row["run_id"])) is not None:
            if row["removed"]:
                folded.tags.pop(row["key"], None)
            else:
                folded.tags[row["key"]] = _text(row)
    return [folded.document(run_id, marks[run_id]) for run_id, folded in found.items()]


def _oldest_first(rows: Mapping[str, pa.Table], name: str) -> Iterable[Mapping[str, Any]]:
    table = rows[name]
    times = table.column("ts").cast(pa.int64())
    plain: list[dict[str, Any]] = table.set_column(table.column_names.index("ts"), "ts", times).to_pylist()
    return sorted(plain, key=lambda row: (row["attempt"] or 0, row["ts"] or 0))


def _text(row: Mapping[str, Any]) -> str:
    """Return a typed value as the views' `value` has it."""
    if row["text"] is not None:
        return str(row["text"])
    return str(row["json"] if row["json"] is not None else row["number"])
