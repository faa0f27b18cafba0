"""The reference pages name every table, view, column and type that the code has, and no other."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from markdown_pages import ROOT, blocks, section, table_cells

import ckptlake
from ckptlake import Capture
from ckptlake.query.views import ALL_VIEWS
from ckptlake.runs.frames import table_of, unpack
from ckptlake.runs.wal import read_segment
from ckptlake.tables.delta import _CONFIGURATION
from ckptlake.tables.schemas import TABLES

STORAGE, SQL = ROOT / "docs" / "storage-format.md", ROOT / "docs" / "sql.md"
_DELTA_TYPES = {
    "string": "string",
    "int32": "integer",
    "int64": "long",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
    "map<string, double>": "map<string, double>",
    "list<item: int64>": "array<long>",
    "list<item: string>": "array<string>",
}


def _headings(page: Path, after: str, before: str) -> list[str]:
    text = page.read_text().split(f"\n## {after}\n")[1].split(f"\n## {before}\n")[0]
    return re.findall(r"^### (\w+)$", text, flags=re.MULTILINE)


def test_the_storage_page_has_every_table_in_order() -> None:
    assert _headings(STORAGE, "Tables", "Partitions") == list(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_the_storage_page_has_every_column_and_type_of_a_table(table: str) -> None:
    expected = [(field.name, _DELTA_TYPES[str(field.type)]) for field in TABLES[table].schema]
    text = section(STORAGE, table)
    assert [(name, kind) for name, kind, _ in table_cells(text)] == expected
    order = ", ".join(f"`{column}`" for column in TABLES[table].sort_by)
    assert re.search(rf"[Ss]orted by {re.escape(order)}\.", " ".join(text.split()))


def test_the_storage_page_has_the_delta_settings() -> None:
    assert dict(table_cells(section(STORAGE, "Delta settings"))) == _CONFIGURATION


def test_the_segment_on_the_storage_page_is_one(tmp_path: Path) -> None:
    """The hexdump, turned back into bytes, holds the point that the page says."""
    (dump,) = (block.text for block in blocks(STORAGE) if block.language == "hexdump")
    content, repeated = b"", b""
    for line in dump.splitlines():
        if line == "*":
            repeated = content[-16:]
            continue
        offset, *pieces = line.split("|")[0].split()
        if repeated:
            content += repeated * ((int(offset, 16) - len(content)) // 16)
            repeated = b""
        assert len(content) == int(offset, 16)
        content += bytes.fromhex("".join(pieces))
    header = json.loads(content[20 : content.index(b"CKL1")])
    path = tmp_path / f"{header['writer']}.00000001.wal"
    path.write_bytes(content)

    segment = read_segment(path)

    assert segment.damage is None
    assert [run[:2] for run in segment.header.open_runs] == [("tiny", 1)]
    ((number, packed),) = segment.frames
    assert (number, table_of(packed)) == (2, "metrics")
    point = unpack(packed).select(["experiment", "run_id", "metric", "step", "value", "attempt"]).to_pylist()
    assert point == [{"experiment": "demo", "run_id": "tiny", "metric": "loss", "step": 7, "value": 0.5, "attempt": 1}]
    assert struct.pack("<d", 0.5) == content[0x4D5:0x4DD]


def test_the_sql_page_has_every_view() -> None:
    assert set(_headings(SQL, "Views", "Recipes")) == ALL_VIEWS


@pytest.mark.parametrize("view", sorted(ALL_VIEWS))
def test_the_sql_page_has_every_column_and_type_of_a_view(view: str, tmp_path: Path) -> None:
    lake = ckptlake.open(tmp_path)
    with lake.run(params={"lr": 0.1}, capture=Capture.nothing()) as run:
        run.define("loss", direction="min")
        run.log({"loss": 1.0}, step=0)
    described = [(name, kind) for name, kind, *_ in lake.sql(f"describe {view}").fetchall()]
    documented = [(name, kind) for name, kind, _ in table_cells(section(SQL, view))]
    if view == "runs_wide":
        fixed = lake.sql("describe runs").fetchall()
        assert [name for name, *_ in described[: len(fixed)]] == [name for name, *_ in fixed]
        assert [name for name, _ in described[len(fixed) :]] == ["params.lr", "last.loss", "best.loss"]
        assert [name for name, _ in documented] == ["params.<key>", "last.<metric>", "best.<metric>"]
    else:
        assert documented == described
    lake.close()
