"""Tables in files that may go at any time: whole, or as if they were not there."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from ckptlake._internal.sealed import read_sealed, sealed, write_sealed

MAGIC = b"CKPTTEST"
WORDS = pa.array(["a", None, "bc"]).dictionary_encode()
ROWS = pa.table({"run_id": ["x", "y", "zz"], "number": [1.0, None, 3.0], "word": WORDS}).replace_schema_metadata(
    {"k": "v"}
)
KINDS = {
    "text": (st.text(st.characters(exclude_categories=["Cs"]), max_size=5), pa.string()),
    "number": (st.floats(), pa.float64()),
    "integer": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "flag": (st.booleans(), pa.bool_()),
    "moment": (st.datetimes(), pa.timestamp("us")),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sealed") / "file"


def whole(rows: pa.Table = ROWS, about: dict[str, Any] | None = None) -> bytes:
    return b"".join(sealed(MAGIC, rows, about or {}))


@given(data=st.data())
def test_what_was_sealed_comes_back(path: Path, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 5))
    columns = {
        name: pa.array(data.draw(st.lists(st.none() | values, min_size=size, max_size=size)), kind)
        for name, (values, kind) in KINDS.items()
    }
    rows = pa.table(columns)
    write_sealed(path, sealed(MAGIC, rows, {"n": size, "é": [1]}))
    found = read_sealed(path, MAGIC, {})
    assert found is not None
    assert (found[0].schema, repr(found[0].to_pylist())) == (rows.schema, repr(rows.to_pylist()))
    assert found[1] == {"n": size, "é": [1]}
    assert read_sealed(path, b"CKPTELSE", {}) is None


def test_metadata_of_the_rows_is_theirs(path: Path) -> None:
    write_sealed(path, sealed(MAGIC, ROWS, {"n": 1}))
    found = read_sealed(path, MAGIC, {})
    assert found is not None
    assert found[0].schema.equals(ROWS.schema, check_metadata=True)
    assert found[0].equals(ROWS)


@given(data=st.data())
def test_no_byte_can_be_cut_changed_or_added(path: Path, data: st.DataObject) -> None:
    content = whole()
    at = data.draw(st.integers(0, len(content) - 1))
    changed = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    for damaged in (content[:at], changed, content + bytes(data.draw(st.integers(1, 9)))):
        path.write_bytes(damaged)
        assert read_sealed(path, MAGIC, {}) is None


@given(body=st.binary(max_size=60))
def test_garbage_is_nothing(path: Path, body: bytes) -> None:
    for content in (body, MAGIC + xxh3_128_digest(body) + body):
        path.write_bytes(content)
        assert read_sealed(path, MAGIC, {}) is None


@given(data=st.data())
def test_bytes_changed_under_a_right_checksum_do_no_harm(path: Path, data: st.DataObject) -> None:
    """The checksum tells damage from what was written, not who wrote it."""
    body = bytearray(whole()[24:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(MAGIC + xxh3_128_digest(body) + body)
    found = read_sealed(path, MAGIC, {})
    assert found is None or len(repr(found[0].to_pylist())) > 0


def test_what_is_told_must_be_there(path: Path) -> None:
    for metadata in (None, {"ckptlake": "x"}, {"ckptlake": "[1]"}, {"ckptlake": "[" * 100_000}, {"other": "{}"}):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, ROWS.schema.with_metadata(metadata)) as stream:
            stream.write_table(ROWS)
        body = sink.getvalue().to_pybytes()
        path.write_bytes(MAGIC + xxh3_128_digest(body) + body)
        assert read_sealed(path, MAGIC, {}) is None


def test_rows_of_which_something_else_is_told_are_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sealed(path, sealed(MAGIC, ROWS, {"made_of": "this", "n": 1}))
    assert read_sealed(path, MAGIC, {"made_of": "this"}) == (ROWS, {"made_of": "this", "n": 1})
    monkeypatch.setattr("ckptlake._internal.sealed.xxh3_128_digest", lambda _: pytest.fail("the rows were read"))
    for expected in ({"made_of": "that"}, {"other": None, "n": 2}):
        assert read_sealed(path, MAGIC, expected) is None


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    versions = [pa.table({"a": [number] * 50}) for number in range(2)]
    write_sealed(path, sealed(MAGIC, versions[0], {}))
    seen: list[bool] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            found = read_sealed(path, MAGIC, {})
            seen.append(found is not None and found[0] in versions)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_sealed(path, sealed(MAGIC, versions[number % 2], {}))
    over.set()
    reader.join()
    assert seen
    assert all(seen)
    assert os.listdir(path.parent) == ["file"]


def test_what_others_began_and_left_goes_after_an_hour(tmp_path: Path) -> None:
    for name, age_s in ((".old.partial", 4000), (".new.partial", 10)):
        (tmp_path / name).write_bytes(b"begun")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    write_sealed(tmp_path / "file", sealed(MAGIC, ROWS, {}))
    assert sorted(os.listdir(tmp_path)) == [".new.partial", "file"]


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_sealed(path, sealed(MAGIC, ROWS, {}))

    def refuse(descriptor: int, payload: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space"):
        write_sealed(path, sealed(MAGIC, ROWS, {"newer": True}))
    monkeypatch.undo()
    assert read_sealed(path, MAGIC, {}) == (ROWS, {})
    assert os.listdir(tmp_path) == ["file"]
