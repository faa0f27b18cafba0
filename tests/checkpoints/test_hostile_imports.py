"""Files made to harm whoever imports them: none runs code, hangs, or takes memory that its size does not explain."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake import Lake, Run
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, InvalidInputError, UnsafeFileError

ALLOWED_BYTES = 32 << 20


@pytest.fixture
def refused(lake: Lake, run: Run) -> Callable[[Path], CkptlakeError]:
    """Return a function that imports a file, which must be refused and leave nothing, within little memory."""

    def check(path: Path) -> CkptlakeError:
        tracemalloc.start()
        try:
            with pytest.raises((DamagedCheckpointError, UnsafeFileError, InvalidInputError)) as caught:
                lake.checkpoints.import_(path, run)
            assert tracemalloc.get_traced_memory()[1] < ALLOWED_BYTES
        finally:
            tracemalloc.stop()
        assert lake.checkpoints.list() == []
        return caught.value

    return check


def header(fields: object, data: bytes = bytes(16)) -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: Any = 0, end: Any = 16, shape: Any = (4,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS = {
    "nothing": b"",
    "a cut length": b"\x01\x00",
    "an endless header": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header longer than the file": struct.pack("<Q", 100) + b"{}",
    "no header": struct.pack("<Q", 0) + b"{}",
    "overlaps": header({"a": tensor(0, 16), "b": tensor(8, 16, (2,))}),
    "twice the same": header({"a": tensor(), "b": tensor()}),
    "a gap": header({"a": tensor(0, 8, (2,)), "b": tensor(12, 16, (1,))}),
    "bytes left over": header({"a": tensor(0, 8, (2,))}),
    "beyond the end": header({"a": tensor(0, 32, (8,))}),
    "backwards": header({"a": tensor(16, 0)}),
    "negative": header({"a": tensor(-16, 0)}),
    "a shape that overflows": header({"a": tensor(shape=[2**62, 2**62, 2**62])}),
    "an empty shape that overflows": header({"a": tensor(0, 0, [0, 2**62, 2**62]), "b": tensor()}),
    "many dimensions": header({"a": tensor(shape=[1] * 1000)}),
    "a negative dimension": header({"a": tensor(shape=[-4])}),
    "a fraction": header({"a": tensor(shape=[4.0])}),
    "a boolean": header({"a": tensor(shape=[True])}),
    "true as offset": header({"a": tensor(False, 16)}),
    "an unknown type": header({"a": tensor(dtype="F4")}),
    "a type that is a list": header({"a": tensor(dtype=["F32"])}),
    "deep nesting": header(b"[" * 200_000),
    "deep objects": header(b'{"a":' * 100_000),
    "a huge integer": header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 100_000 + b'],"data_offsets":[0,16]}}'),
    "an infinite float": header(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,16]}}'),
    "a name twice": header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{}}'),
    "no object": header([1]),
    "no metadata": header({"__metadata__": {"a": {"b": 1}}, "a": tensor()}),
    "not text": header(b"\xff\xfe"),
    "more fields": header({"a": {**tensor(), "more": 1}}),
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_safetensors(refused: Callable[[Path], CkptlakeError], tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(SAFETENSORS[kind])
    refused(tmp_path / "x.safetensors")


def test_a_header_larger_than_its_data(refused: Callable[[Path], CkptlakeError], tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(header(b'{"":[' + b"[]," * 1_000_000 + b"[]]}"))
    assert isinstance(refused(tmp_path / "x.safetensors"), UnsafeFileError)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_safetensors_are_refused_or_whole(lake: Lake, tmp_path: Path, data: st.DataObject) -> None:
    payload = bytearray(safetensors.torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"k": "v"}))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.safetensors"
    path.write_bytes(payload[: data.draw(st.integers(0, len(payload)))])
    with contextlib.suppress(DamagedCheckpointError, InvalidInputError, UnsafeFileError):
        assert lake.checkpoints.probe(path).num_tensors <= 2


class TestIndexes:
    @pytest.mark.parametrize(
        "name", ["../secret.safetensors", "/etc/passwd", "..", ".", "", "a/../../b", "x\\y", "a\0b"]
    )
    def test_paths_that_lead_out(self, refused: Any, tmp_path: Path, name: str) -> None:
        folder = tmp_path / "hf"
        folder.mkdir()
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "secret.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
        assert isinstance(refused(folder), UnsafeFileError)

    @pytest.mark.parametrize("target", ["../secret.safetensors", "/dev/zero", "missing", "link.safetensors"])
    def test_links_that_lead_out(self, refused: Any, tmp_path: Path, target: str) -> None:
        folder = tmp_path / "hf"
        folder.mkdir()
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "secret.safetensors")
        (folder / "link.safetensors").symlink_to(target)
        index = {"weight_map": {"w": "link.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(folder)

    @pytest.mark.parametrize(
        "text", ["[]", "{", "[" * 99_999, '{"weight_map": 3}', '{"weight_map": {"a": ["b"]}}', "{}"]
    )
    def test_indexes_that_are_none(self, refused: Any, tmp_path: Path, text: str) -> None:
        (tmp_path / "model.safetensors.index.json").write_text(text)
        refused(tmp_path / "model.safetensors.index.json")

    def test_a_pipe_is_not_waited_for(self, refused: Any, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "pipe"}}))
        refused(tmp_path)

    def test_a_tensor_that_its_shard_lacks(self, refused: Any, tmp_path: Path) -> None:
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
        index = {"weight_map": {"w": "a.safetensors", "v": "a.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "'v'" in str(refused(tmp_path / "model.safetensors.index.json"))


def npy(descr: object, shape: object, data: bytes = b"") -> bytes:
    head = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    head = head.ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


class TestNpz:
    def archive(self, path: Path, method: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, payload in entries.items():
                archive.writestr(f"{name}.npy", payload)
        return path

    def test_pickled_arrays(self, refused: Any, tmp_path: Path) -> None:
        mark = tmp_path / "ran"

        class Attack:
            def __reduce__(self) -> Any:
                return (Path.touch, (mark,))

        np.savez(tmp_path / "x.npz", a=np.array([Attack()], object))
        assert isinstance(refused(tmp_path / "x.npz"), UnsafeFileError)
        assert not mark.exists()

    @pytest.mark.parametrize(
        "payload",
        [
            npy("<f8", (10**18,)), npy("<f8", (2**62, 2**62)), npy("<f8", (-2,), bytes(16)),
            npy("<f8", (2,), bytes(15)),
            npy("<f8", (2,), bytes(17)), npy("no type", (2,)), npy("<f8", "x"), npy("V9999999999", (1,)), b"\x93NUMPY",
            b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", b"hello", b"",
            npy("<f8", (0, 10**30)),
            b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000,
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_arrays_that_are_none(self, refused: Any, tmp_path: Path, payload: bytes, method: int) -> None:
        refused(self.archive(tmp_path / "x.npz", method, a=payload))

    def test_a_bomb(self, refused: Any, tmp_path: Path) -> None:
        with (
            zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("a.npy", "w") as file,
        ):
            file.write(npy("|u1", (1 << 28,)))
            for _ in range(1 << 8):
                file.write(bytes(1 << 20))
        assert (tmp_path / "x.npz").stat().st_size < 1 << 20
        assert "bomb" in str(refused(tmp_path / "x.npz"))

    def test_entries_over_each_other(self, refused: Any, tmp_path: Path) -> None:
        path = self.archive(tmp_path / "x.npz", a=npy("|u1", (4096,), bytes(4096)))
        payload = path.read_bytes()
        start = payload.index(b"PK\x01\x02")
        entry = payload[start : payload.index(b"PK\x05\x06")]
        entries = b"".join(
            entry.replace(b"a.npy", f"{number:05}".encode()[:1] + b".npy") for number in (0, 11111, 22222)
        )
        end = struct.pack("<4s4xHHIIH", b"PK\x05\x06", 3, 3, len(entries), start, 0)
        path.write_bytes(payload[:start] + entries + end)
        refused(path)

    def test_damage(self, refused: Any, tmp_path: Path) -> None:
        path = self.archive(tmp_path / "x.npz", a=npy("|u1", (4096,), bytes(4096)))
        payload = bytearray(path.read_bytes())
        payload[2000] ^= 1
        path.write_bytes(payload)
        assert isinstance(refused(path), DamagedCheckpointError)


class TestDistributed:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        with pytest.warns(UserWarning, match="single process"):
            dcp.save({"w": torch.ones(4, 2), "n": 3}, storage_writer=dcp.FileSystemWriter(tmp_path / "d"), no_dist=True)
        return tmp_path / "d"

    def change(self, folder: Path, change: Callable[[Any], None]) -> None:
        metadata = dcp.FileSystemReader(folder).read_metadata()
        change(metadata)
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))

    def test_an_index_that_runs_code(self, refused: Any, folder: Path, tmp_path: Path) -> None:
        mark = tmp_path / "ran"

        class Attack:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(mark),))

        self.change(folder, lambda metadata: setattr(metadata, "planner_data", Attack()))
        assert isinstance(refused(folder), UnsafeFileError)
        assert not mark.exists()

    def test_a_value_that_runs_code(self, refused: Any, folder: Path, tmp_path: Path) -> None:
        mark = tmp_path / "ran"

        class Attack:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(mark),))

        memory = io.BytesIO()
        torch.save(Attack(), memory)
        (folder / "evil").write_bytes(memory.getvalue())

        def point_there(metadata: Any) -> None:
            for index, info in metadata.storage_data.items():
                if index.fqn == "n":
                    info.relative_path, info.offset, info.length = "evil", 0, len(memory.getvalue())

        self.change(folder, point_there)
        assert isinstance(refused(folder), UnsafeFileError)
        assert not mark.exists()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("relative_path", "../x"), ("relative_path", "/etc/passwd"), ("relative_path", 3), ("offset", -1),
            ("offset", 1 << 60), ("length", 1 << 60), ("length", "x"), ("offset", 10**30), ("relative_path", "missing"),
        ],
    )  # fmt: skip
    def test_places_that_are_none(self, refused: Any, folder: Path, field: str, value: object) -> None:
        self.change(folder, lambda metadata: [setattr(i, field, value) for i in metadata.storage_data.values()])
        refused(folder)

    @pytest.mark.parametrize("size", [(1 << 40, 1 << 40), (8, 2), (4,), (2, 2), (1 << 61, 8)])
    def test_tensors_that_their_chunks_do_not_make_up(self, refused: Any, folder: Path, size: tuple[int, ...]) -> None:
        self.change(folder, lambda m: setattr(m.state_dict_metadata["w"], "size", torch.Size(size)))
        refused(folder)

    def test_chunks_that_overlap_or_come_twice(self, refused: Any, folder: Path) -> None:
        self.change(folder, lambda m: m.state_dict_metadata["w"].chunks.append(m.state_dict_metadata["w"].chunks[0]))
        refused(folder)

    @pytest.mark.parametrize("payload", [b"", b"\x80\x04.", pickle.dumps({}), pickle.dumps(3), b"x" * 99])
    def test_an_index_that_is_none(self, refused: Any, folder: Path, payload: bytes) -> None:
        (folder / ".metadata").write_bytes(payload)
        refused(folder)

    def test_a_cut_file(self, refused: Any, folder: Path) -> None:
        (path,) = folder.glob("*.distcp")
        path.write_bytes(path.read_bytes()[:-700])
        refused(folder)
