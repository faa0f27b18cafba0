"""Pack files with damage, and pack files made to do harm."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_contents import changed, normal

from ckptlake.checkpoints.codec import chunks, footer
from ckptlake.checkpoints.codec.archive import Archive, ArchiveWriter, Base
from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, LakeFormatError

FLOAT32 = DTYPES["float32"]
RAW = normal(FLOAT32, 150, 1)
OLD = changed(FLOAT32, RAW, 0.1, 2)
WANTED = {"a": RAW, "b": RAW, "step": b"\x07" + bytes(7)}
Fields = dict[str, Any]


@pytest.fixture
def pack_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small pack of raw chunks, coded chunks and chunks of differences."""
    for module in (chunks, footer):
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 100)
    path = tmp_path / "sound.ckpk"
    writer = ArchiveWriter(path, {"made by": "a test"})
    writer.add("a", "float32", len(RAW), lambda start, stop: memoryview(RAW)[start:stop])
    writer.add(
        "b",
        "float32",
        len(RAW),
        lambda start, stop: memoryview(RAW)[start:stop],
        Base("old", "elsewhere"),
        lambda start, stop: memoryview(OLD)[start:stop],
    )
    writer.add("step", "int64", 8, lambda start, stop: memoryview(WANTED["step"])[start:stop])
    writer.finish()
    return path.read_bytes()


def read_all(path: Path) -> dict[str, bytes | DamagedCheckpointError]:
    """Return what can be had of every tensor; anything but the one error is passed on."""
    found: dict[str, bytes | DamagedCheckpointError] = {}
    with Archive(path) as pack:
        for digest, entry in pack.entries.items():
            out = bytearray(min(entry.nbytes, 1 << 20))
            try:
                pack.read_into(digest, 0, len(out), memoryview(out), lambda _, start, stop: memoryview(OLD)[start:stop])
                found[digest] = bytes(out)
            except DamagedCheckpointError as error:
                found[digest] = error
    for digest, what in found.items():
        if isinstance(what, DamagedCheckpointError):
            assert path.name in str(what)
            assert digest in str(what)
    return found


def test_the_sound_pack_is_read(tmp_path: Path, pack_bytes: bytes) -> None:
    assert read_all(tmp_path / "sound.ckpk") == WANTED
    with Archive(tmp_path / "sound.ckpk") as pack:
        assert [pack.entries[digest].codec for digest in WANTED] == ["planes", "delta", "planes"]


def test_a_changed_bit_gives_right_bytes_or_an_error(tmp_path: Path, pack_bytes: bytes) -> None:
    """One bit of every byte in turn."""
    path = tmp_path / "flipped.ckpk"
    ends = len(pack_bytes) - footer.TRAILER_BYTES - struct.unpack_from("<Q", pack_bytes, len(pack_bytes) - 28)[0]
    assert 500 < ends < len(pack_bytes) < 5000
    for place in range(len(pack_bytes)):
        damaged = bytearray(pack_bytes)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        if place >= ends:
            with pytest.raises(DamagedCheckpointError, match=r"flipped\.ckpk is no whole pack"):
                read_all(path)
            continue
        found = read_all(path)
        wrong = [digest for digest, raw in WANTED.items() if found[digest] != raw]
        assert len(wrong) == 1, "every byte in front of the footer belongs to one chunk"
        assert isinstance(found[wrong[0]], DamagedCheckpointError)
        with Archive(path) as pack:
            spans = {
                digest: [
                    number
                    for number, chunk in enumerate(entry.chunks)
                    if chunk.offset <= place < chunk.offset + chunk.length
                ]
                for digest, entry in pack.entries.items()
            }
            assert {digest: pack.check(digest) for digest in WANTED} == spans


def test_a_pack_cut_short_or_lengthened_is_refused(tmp_path: Path, pack_bytes: bytes) -> None:
    path = tmp_path / "cut.ckpk"
    for length in range(len(pack_bytes)):
        path.write_bytes(pack_bytes[:length])
        with pytest.raises(DamagedCheckpointError, match=r"cut\.ckpk is no whole pack.*restore it"):
            Archive(path)
    for more in (b"\0", pack_bytes[-28:], bytes(4096)):
        path.write_bytes(pack_bytes + more)
        with pytest.raises(DamagedCheckpointError):
            Archive(path)


def test_a_pack_that_shrank_after_it_was_opened_is_damage(tmp_path: Path, pack_bytes: bytes) -> None:
    path = tmp_path / "sound.ckpk"
    with Archive(path) as pack:
        with path.open("r+b") as file:
            file.truncate(pack.entries["a"].chunks[0].offset + 10)
        with pytest.raises(DamagedCheckpointError, match="checksum"):
            pack.read_into("a", 0, len(RAW), memoryview(bytearray(len(RAW))), None)
        assert pack.check("a") == [0, 1]


def test_a_hole_of_zeros_is_found(tmp_path: Path, pack_bytes: bytes) -> None:
    (tmp_path / "hole.ckpk").write_bytes(bytes(300) + pack_bytes[300:])
    found = read_all(tmp_path / "hole.ckpk")
    assert isinstance(found["a"], DamagedCheckpointError)
    assert found["step"] == WANTED["step"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), end=st.integers(0, 300))
def test_any_file_is_refused(tmp_path: Path, pack_bytes: bytes, data: bytes, end: int) -> None:
    path = tmp_path / "any.ckpk"
    path.write_bytes(data + pack_bytes[len(pack_bytes) - end :] if end else data)
    with pytest.raises(DamagedCheckpointError):
        Archive(path)


def with_footer(pack: bytes, told: bytes, version: int = 1) -> bytes:
    """Return the pack with another footer, and with the trailer that belongs to it."""
    length = struct.unpack_from("<Q", pack, len(pack) - 28)[0]
    checksum = xxhash.xxh3_64_intdigest(told + struct.pack("<QI", len(told), version))
    return pack[: len(pack) - 28 - length] + told + struct.pack("<QQI8s", len(told), checksum, version, b"CKPKends")


def fields_of(pack: bytes) -> Fields:
    length = struct.unpack_from("<Q", pack, len(pack) - 28)[0]
    fields: Fields = json.loads(pack[len(pack) - 28 - length : -28])
    return fields


def test_the_layout_is_the_one_described(pack_bytes: bytes) -> None:
    fields = fields_of(pack_bytes)
    assert with_footer(pack_bytes, json.dumps(fields, separators=(",", ":")).encode()) == pack_bytes
    assert fields["metadata"] == {"made by": "a test"}
    assert [tensor["digest"] for tensor in fields["tensors"]] == ["a", "b", "step"]
    assert fields["tensors"][1]["base"] == {"digest": "old", "pack": "elsewhere"}
    (step,) = (tensor for tensor in fields["tensors"] if tensor["digest"] == "step")
    ((offset, length, checksum),) = step.pop("chunks")
    assert step == {"digest": "step", "dtype": "int64", "nbytes": 8, "codec": "planes", "base": None}
    assert pack_bytes[offset : offset + length] == b"\0" + WANTED["step"]
    assert checksum == xxhash.xxh3_64_intdigest(b"\0" + WANTED["step"])


def test_a_pack_of_a_newer_format_is_not_guessed(tmp_path: Path, pack_bytes: bytes) -> None:
    path = tmp_path / "newer.ckpk"
    path.write_bytes(with_footer(pack_bytes, b"\x93 not even JSON", version=2))
    with pytest.raises(LakeFormatError, match="pack format 2 is newer"):
        Archive(path)


def tensor(change: Callable[[Fields], object]) -> Callable[[Fields], object]:
    return lambda fields: change(fields["tensors"][0])


def assign(name: str, value: object) -> Callable[[Fields], object]:
    return tensor(lambda told: told.__setitem__(name, value))


def drop(name: str) -> Callable[[Fields], object]:
    return tensor(lambda told: told.pop(name))


def in_chunk(place: int, value: object) -> Callable[[Fields], object]:
    return tensor(lambda told: told["chunks"][0].__setitem__(place, value))


LIES: dict[str, Callable[[Fields], object]] = {
    "no tensors": lambda fields: fields.pop("tensors"),
    "tensors by name": lambda fields: fields.__setitem__("tensors", {"a": {}}),
    "a text for tensors": lambda fields: fields.__setitem__("tensors", "ab"),
    "a number for a tensor": lambda fields: fields["tensors"].append(3),
    "a tensor twice": lambda fields: fields["tensors"].append(fields["tensors"][0]),
    "no metadata": lambda fields: fields.pop("metadata"),
    "metadata in a list": lambda fields: fields.__setitem__("metadata", ["a"]),
    "metadata that are numbers": lambda fields: fields["metadata"].__setitem__("a", 1),
    "no digest": drop("digest"),
    "a number for a digest": assign("digest", 5),
    "no dtype": drop("dtype"),
    "an unknown dtype": assign("dtype", "float31"),
    "a list for a dtype": assign("dtype", ["float32"]),
    "a wider dtype": assign("dtype", "float64"),
    "no size": drop("nbytes"),
    "a negative size": assign("nbytes", -4),
    "a fraction for a size": assign("nbytes", 600.0),
    "a text for a size": assign("nbytes", "600"),
    "true for a size": assign("nbytes", True),
    "a size of no whole elements": assign("nbytes", 602),
    "a size of more chunks": assign("nbytes", 804),
    "a size of fewer chunks": assign("nbytes", 400),
    "a size beyond all memory": assign("nbytes", 2**62),
    "a size beyond all numbers": assign("nbytes", 10**4000),
    "no chunks": assign("chunks", []),
    "nothing for chunks": assign("chunks", None),
    "a chunk too many": tensor(lambda told: told["chunks"].append(told["chunks"][0])),
    "a chunk without a checksum": tensor(lambda told: told["chunks"][0].pop()),
    "a negative offset": in_chunk(0, -1),
    "an offset in the footer": in_chunk(0, 10_000),
    "an offset beyond all files": in_chunk(0, 2**63),
    "an empty chunk": in_chunk(1, 0),
    "a chunk larger than raw": in_chunk(1, 402),
    "a negative length": in_chunk(1, -5),
    "a fraction for a length": in_chunk(1, 1e300),
    "a length that is not a number": in_chunk(1, float("nan")),
    "a negative checksum": in_chunk(2, -1),
    "a checksum of 65 bits": in_chunk(2, 2**64),
    "an unknown codec": assign("codec", "zip"),
    "differences without a base": assign("codec", "delta"),
    "a base without differences": assign("base", {"digest": "x", "pack": "y"}),
    "a base in a list": assign("base", ["x", "y"]),
    "half a base": tensor(lambda told: told.update(codec="delta", base={"digest": "x"})),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_footer_that_cannot_be_true_is_refused(
    tmp_path: Path, pack_bytes: bytes, lie: Callable[[Fields], object]
) -> None:
    fields = fields_of(pack_bytes)
    lie(fields)
    path = tmp_path / "lies.ckpk"
    path.write_bytes(with_footer(pack_bytes, json.dumps(fields).encode()))
    with pytest.raises(DamagedCheckpointError, match=r"lies\.ckpk is no whole pack: its footer"):
        Archive(path)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe\x00",
        b'{"metadata":{},"tensors":[' + b"9" * 5000 + b"]}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"metadata":{},"tensors":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["nothing", "null", "list", "brace", "no text", "digits", "brackets", "braces", "nested"],
)
def test_a_footer_that_is_not_one_is_refused(tmp_path: Path, pack_bytes: bytes, told: bytes) -> None:
    path = tmp_path / "lies.ckpk"
    path.write_bytes(with_footer(pack_bytes, told))
    with pytest.raises(DamagedCheckpointError, match="its footer cannot be read"):
        Archive(path)


JSON_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    JSON_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_footer_is_right_or_refused(tmp_path: Path, pack_bytes: bytes, data: st.DataObject) -> None:
    """Somebody who can write the checksum may swap chunks, but never gets out of the file or of memory."""
    fields = fields_of(pack_bytes)
    target = fields["tensors"][data.draw(st.integers(0, 2), "tensor")]
    name = data.draw(st.sampled_from([*target, "chunk"]), "field")
    if name == "chunk":
        place = data.draw(st.integers(0, 2), "place")
        target["chunks"][0][place] = data.draw(st.integers(-1, 800) | JSON, "value")
    else:
        others = [copy.deepcopy(tensor[name]) for tensor in fields["tensors"]]
        target[name] = data.draw(st.sampled_from(others) | JSON, "value")
    path = tmp_path / "changed.ckpk"
    path.write_bytes(with_footer(pack_bytes, json.dumps(fields).encode()))
    with suppress(DamagedCheckpointError):
        read_all(path)


def test_a_chunk_of_differences_in_a_tensor_without_a_base_is_damage(tmp_path: Path, pack_bytes: bytes) -> None:
    fields = fields_of(pack_bytes)
    fields["tensors"][1].update(codec="planes", base=None)
    path = tmp_path / "lies.ckpk"
    path.write_bytes(with_footer(pack_bytes, json.dumps(fields).encode()))
    found = read_all(path)
    assert found["a"] == RAW
    assert "the pack names none" in str(found["b"])


def test_a_chunk_that_fits_its_checksum_but_does_not_decode_is_damage(tmp_path: Path, pack_bytes: bytes) -> None:
    fields = fields_of(pack_bytes)
    rng = np.random.default_rng(0)
    for _ in range(50):
        offset, length, _ = fields["tensors"][0]["chunks"][0]
        payload = bytes([rng.integers(0, 4)]) + rng.bytes(length - 1)
        fields["tensors"][0]["chunks"][0][2] = xxhash.xxh3_64_intdigest(payload)
        damaged = pack_bytes[:offset] + payload + pack_bytes[offset + length :]
        path = tmp_path / "lies.ckpk"
        path.write_bytes(with_footer(damaged, json.dumps(fields).encode()))
        assert isinstance(read_all(path)["a"], DamagedCheckpointError)


def test_a_file_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "none.ckpk")


def test_damage_is_an_error_of_this_project() -> None:
    assert issubclass(DamagedCheckpointError, CkptlakeError)
