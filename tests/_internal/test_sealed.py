"""Files that may go at any time: whole, or as if they were not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlake._internal.sealed import sealed, unsealed, write_whole

MAGIC = b"CKPTTEST"


@given(parts=st.lists(st.binary(max_size=40), max_size=4))
def test_what_was_sealed_comes_back(parts: list[bytes]) -> None:
    content = b"".join(sealed(MAGIC, parts))
    assert unsealed(MAGIC, memoryview(content)) == b"".join(parts)
    assert unsealed(MAGIC, memoryview(pa.py_buffer(content))) == b"".join(parts)
    assert unsealed(b"CKPTELSE", memoryview(content)) is None


@given(body=st.binary(max_size=40), data=st.data())
def test_no_byte_can_be_cut_changed_or_added(body: bytes, data: st.DataObject) -> None:
    content = b"".join(sealed(MAGIC, [body]))
    at = data.draw(st.integers(0, len(content) - 1))
    changed = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    for damaged in (content[:at], changed, content + bytes(data.draw(st.integers(1, 9)))):
        assert unsealed(MAGIC, memoryview(damaged)) is None


@given(garbage=st.binary(max_size=60))
def test_garbage_is_nothing(garbage: bytes) -> None:
    assert unsealed(MAGIC, memoryview(garbage)) is None


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, [b"first"])
    seen: set[bytes] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_whole(path, [b"first" if number % 2 else b"second", memoryview(b"")])
    over.set()
    reader.join()
    assert seen <= {b"first", b"second"}
    assert os.listdir(path.parent) == ["file"]


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, [b"old"])

    def refuse(descriptor: int, payload: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, [b"new"])
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
