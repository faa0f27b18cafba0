"""Pack files of compressed tensors: written, read whole and in parts, by several threads."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensor_contents import DTYPE_NAMES, KINDS, changed, contents, normal

from ckptlake.checkpoints.codec import archive as archive_module
from ckptlake.checkpoints.codec import chunks, footer
from ckptlake.checkpoints.codec.archive import Archive, ArchiveWriter, Base, StoredTensor
from ckptlake.checkpoints.codec.chunks import CHUNK_ELEMENTS, CutChunk
from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

FLOAT32 = DTYPES["float32"]
SMALL = 500
"""Elements of a chunk in most of these tests."""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", SMALL)
    monkeypatch.setattr(footer, "CHUNK_ELEMENTS", SMALL)


def reader(raw: bytes) -> Callable[[int, int], memoryview]:
    return lambda start, stop: memoryview(raw)[start:stop]


def write(path: Path, tensors: dict[str, tuple[str, bytes]]) -> dict[str, StoredTensor]:
    writer = ArchiveWriter(path, {})
    stored = {digest: writer.add(digest, dtype, len(raw), reader(raw)) for digest, (dtype, raw) in tensors.items()}
    writer.finish()
    return stored


def write_against(path: Path, dtype: str, raw: bytes, base: bytes) -> StoredTensor:
    writer = ArchiveWriter(path, {})
    stored = writer.add("new", dtype, len(raw), reader(raw), Base("old", "pack-1"), reader(base))
    writer.finish()
    return stored


def read(pack: Archive, digest: str, start: int = 0, stop: int | None = None, base: bytes | None = None) -> bytes:
    stop = pack.entries[digest].nbytes if stop is None else stop
    out = bytearray(b"\xa5" * (stop - start))
    given_base = base
    read_base = None if given_base is None else lambda _, first, last: memoryview(given_base)[first:last]
    pack.read_into(digest, start, stop, memoryview(out), read_base)
    return bytes(out)


class TestRoundTrip:
    def test_of_every_type_and_content_in_one_pack(self, tmp_path: Path, small_chunks: None) -> None:
        tensors = {
            f"{name} {kind} {size}": (name, contents(DTYPES[name], size, kind, size))
            for name in DTYPE_NAMES
            for kind in KINDS
            for size in (0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 7)
        }
        stored = write(tmp_path / "a.ckpk", tensors)
        with Archive(tmp_path / "a.ckpk") as pack:
            assert dict(pack.entries) == stored
            for digest, (_, raw) in tensors.items():
                assert read(pack, digest) == raw, digest
                assert pack.check(digest) == []

    @pytest.mark.parametrize("name", ["float32", "bfloat16", "bool", "complex128"])
    @pytest.mark.parametrize("around", [-1, 0, 1])
    def test_around_the_end_of_a_real_chunk(self, tmp_path: Path, name: str, around: int) -> None:
        raw = contents(DTYPES[name], CHUNK_ELEMENTS + around, "normal", 1)
        stored = write(tmp_path / "a.ckpk", {"a": (name, raw)})["a"]
        assert len(stored.chunks) == 1 + (around > 0)
        assert stored.stored_bytes < len(raw)
        with Archive(tmp_path / "a.ckpk") as pack:
            assert read(pack, "a") == raw

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        name=st.sampled_from(DTYPE_NAMES),
        kind=st.sampled_from(KINDS),
        size=st.integers(0, 5 * SMALL),
        share=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
        data=st.data(),
    )
    def test_of_any_part_against_a_base(
        self, tmp_path: Path, small_chunks: None, name: str, kind: str, size: int, share: float, data: st.DataObject
    ) -> None:
        base = contents(DTYPES[name], size, kind, 1)
        raw = changed(DTYPES[name], base, share, 2)
        path = tmp_path / "a.ckpk"
        path.unlink(missing_ok=True)
        stored = write_against(path, name, raw, base)
        assert (stored.codec, stored.base) in (("planes", None), ("delta", Base("old", "pack-1")))
        start = data.draw(st.integers(0, len(raw)), "start")
        stop = data.draw(st.integers(start, len(raw)), "stop")
        with Archive(path) as pack:
            assert pack.entries["new"] == stored
            assert read(pack, "new", start, stop, base) == raw[start:stop]

    def test_keeps_metadata_and_names_of_any_text(self, tmp_path: Path) -> None:
        metadata = {"made by": "ckptlake", "": "\x00é漢\ud800\n", 'quote"': "\\"}
        writer = ArchiveWriter(tmp_path / "a.ckpk", metadata)
        writer.add("\ud800 漢", "uint8", 3, reader(b"abc"))
        writer.finish()
        with Archive(tmp_path / "a.ckpk") as pack:
            assert dict(pack.metadata) == metadata
            assert read(pack, "\ud800 漢") == b"abc"
            with pytest.raises(TypeError):
                pack.entries["b"] = pack.entries["\ud800 漢"]  # type: ignore[index]

    def test_of_a_pack_without_tensors(self, tmp_path: Path) -> None:
        write(tmp_path / "a.ckpk", {})
        with Archive(tmp_path / "a.ckpk") as pack:
            assert dict(pack.entries) == dict(pack.metadata) == {}

    def test_of_a_chain_that_the_caller_resolves(self, tmp_path: Path, small_chunks: None) -> None:
        versions = [normal(FLOAT32, 1300, 1)]
        for seed in range(3):
            versions.append(changed(FLOAT32, versions[-1], 0.3, seed))
        for number, raw in enumerate(versions):
            writer = ArchiveWriter(tmp_path / str(number), {})
            given_base = (Base(f"t{number - 1}", str(number - 1)), reader(versions[number - 1])) if number else ()
            writer.add(f"t{number}", "float32", len(raw), reader(raw), *given_base)
            writer.finish()
        packs = {str(number): Archive(tmp_path / str(number)) for number in range(4)}

        def resolve(base: Base, start: int, stop: int) -> memoryview:
            out = memoryview(bytearray(stop - start))
            packs[base.pack].read_into(base.digest, start, stop, out, resolve)
            return out

        assert [packs[str(number)].entries[f"t{number}"].codec for number in range(4)] == ["planes"] + ["delta"] * 3
        assert resolve(Base("t3", "3"), 0, 5200) == versions[3]
        for pack in packs.values():
            pack.close()


class TestBase:
    def test_that_serves_is_named_and_saves(self, tmp_path: Path) -> None:
        base = normal(FLOAT32, 100_000, 1)
        raw = changed(FLOAT32, base, 0.2, 2)
        stored = write_against(tmp_path / "a.ckpk", "float32", raw, base)
        assert (stored.codec, stored.base) == ("delta", Base("old", "pack-1"))
        assert stored.stored_bytes < 0.2 * len(raw)

    def test_that_serves_no_chunk_is_not_named(self, tmp_path: Path) -> None:
        """Nobody should have to keep or read a base for nothing."""
        raw, base = normal(FLOAT32, 100_000, 1), contents(FLOAT32, 100_000, "noise", 1)
        stored = write_against(tmp_path / "a.ckpk", "float32", raw, base)
        assert (stored.codec, stored.base) == ("planes", None)
        with Archive(tmp_path / "a.ckpk") as pack:
            assert read(pack, "new") == raw

    def test_is_read_only_for_chunks_that_need_it(self, tmp_path: Path, small_chunks: None) -> None:
        base = normal(FLOAT32, 3 * SMALL, 1)
        size = 4 * SMALL
        raw = base[:size] + normal(FLOAT32, SMALL, 99) + base[2 * size :]
        write_against(tmp_path / "a.ckpk", "float32", raw, base)
        asked: list[tuple[Base, int, int]] = []

        def read_base(of: Base, start: int, stop: int) -> memoryview:
            asked.append((of, start, stop))
            return memoryview(base)[start:stop]

        out = bytearray(len(raw))
        with Archive(tmp_path / "a.ckpk") as pack:
            pack.read_into("new", 0, len(raw), memoryview(out), read_base)
        assert out == raw
        old = Base("old", "pack-1")
        assert asked == [(old, 0, size), (old, 2 * size, 3 * size)]

    def test_that_is_needed_and_not_given_is_asked_for(self, tmp_path: Path) -> None:
        base = normal(FLOAT32, 1000, 1)
        write_against(tmp_path / "a.ckpk", "float32", base, base)
        with Archive(tmp_path / "a.ckpk") as pack:
            with pytest.raises(InvalidInputError, match="give the base's bytes"):
                read(pack, "new")
            with pytest.raises(InvalidInputError, match="its base 3996"):
                read(pack, "new", base=base[:-4])

    def test_whose_damage_is_met_is_named_with_what_needed_it(self, tmp_path: Path) -> None:
        base = normal(FLOAT32, 1000, 1)
        write_against(tmp_path / "a.ckpk", "float32", base, base)

        def read_base(of: Base, start: int, stop: int) -> memoryview:
            raise DamagedCheckpointError("the base is gone")

        with Archive(tmp_path / "a.ckpk") as pack, pytest.raises(DamagedCheckpointError) as caught:
            pack.read_into("new", 0, 4000, memoryview(bytearray(4000)), read_base)
        assert "a.ckpk" in str(caught.value)
        assert "new" in str(caught.value)
        assert "the base is gone" in str(caught.value)


class TestParts:
    @pytest.fixture
    def pack(self, tmp_path: Path, small_chunks: None) -> Archive:
        self.raw = normal(FLOAT32, 10 * SMALL + 3, 1)
        write(tmp_path / "a.ckpk", {"a": ("float32", self.raw), "other": ("float32", self.raw[::-1])})
        return Archive(tmp_path / "a.ckpk")

    @pytest.mark.parametrize(
        ("start", "stop", "touched"),
        [
            (0, 0, []),
            (2002, 2002, []),
            (0, 1, [0]),
            (0, 2000, [0]),
            (0, 2001, [0, 1]),
            (1999, 2001, [0, 1]),
            (2000, 4000, [1]),
            (4003, 9001, [2, 3, 4]),
            (20_000, 20_012, [10]),
            (20_012, 20_012, []),
        ],
    )
    def test_read_and_decode_only_the_chunks_they_touch(
        self, pack: Archive, monkeypatch: pytest.MonkeyPatch, start: int, stop: int, touched: list[int]
    ) -> None:
        read_ranges: list[tuple[int, int]] = []
        decoded: list[int] = []
        real_pread, real_decode = os.pread, archive_module.decode_chunk

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            read_ranges.append((offset, length))
            return real_pread(descriptor, length, offset)

        def decode(payload: memoryview, *rest: object) -> None:
            decoded.append(len(payload))
            real_decode(payload, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "pread", pread)
        monkeypatch.setattr(archive_module, "decode_chunk", decode)
        assert read(pack, "a", start, stop) == self.raw[start:stop]
        expected = [pack.entries["a"].chunks[number] for number in touched]
        assert read_ranges == [(chunk.offset, chunk.length) for chunk in expected]
        assert decoded == [chunk.length for chunk in expected]
        pack.close()

    @pytest.mark.parametrize(
        ("start", "stop", "room"),
        [(-1, 3, 4), (4, 3, 0), (0, 20_013, 20_013), (20_013, 20_013, 0), (0, 4, 3), (0, 4, 5)],
    )
    def test_outside_the_tensor_or_of_another_size_are_refused(
        self, pack: Archive, start: int, stop: int, room: int
    ) -> None:
        with pack, pytest.raises(InvalidInputError, match="do not fit"):
            pack.read_into("a", start, stop, memoryview(bytearray(room)), None)

    def test_of_a_tensor_that_is_not_there_are_missing(self, pack: Archive) -> None:
        with pack:
            with pytest.raises(DamagedCheckpointError, match="holds no tensor b"):
                pack.read_into("b", 0, 0, memoryview(b""), None)
            with pytest.raises(DamagedCheckpointError, match="holds no tensor b"):
                pack.check("b")

    def test_are_written_straight_into_an_array(self, pack: Archive) -> None:
        out = np.zeros((10, SMALL), np.float32)
        with pack:
            pack.read_into("a", 0, out.nbytes, out.data, None)
        assert out.tobytes() == self.raw[: out.nbytes]

    def test_may_be_read_by_several_threads(self, pack: Archive) -> None:
        ranges = [(start, min(start + 3001, 20_012)) for start in range(0, 20_000, 977)] * 5
        with pack, ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda part: read(pack, "a", *part), ranges))
        assert found == [self.raw[start:stop] for start, stop in ranges]

    def test_of_a_closed_pack_are_refused(self, pack: Archive) -> None:
        pack.close()
        with pytest.raises(ValueError, match="closed"):
            read(pack, "a")


class TestWriter:
    def test_never_writes_over_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ckpk"
        path.write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            ArchiveWriter(path, {})
        assert path.read_bytes() == b"mine"

    def test_abandoned_leaves_nothing(self, tmp_path: Path) -> None:
        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        writer.add("a", "uint8", 3, reader(b"abc"))
        writer.abandon()
        assert list(tmp_path.iterdir()) == []
        writer.abandon()

    def test_forces_the_whole_file_to_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.ckpk"
        synced: list[tuple[int, int]] = []

        def fsync(descriptor: int) -> None:
            found = os.fstat(descriptor)
            synced.append((found.st_ino, found.st_size))

        monkeypatch.setattr(os, "fsync", fsync)
        write(path, {"a": ("uint8", b"abc")})
        assert synced == [(path.stat().st_ino, path.stat().st_size)]

    def test_writes_the_same_bytes_every_time(self, tmp_path: Path, small_chunks: None) -> None:
        raw = contents(FLOAT32, 50 * SMALL, "mixed", 1)
        for name in ("a.ckpk", "b.ckpk"):
            write(tmp_path / name, {"a": ("float32", raw), "b": ("int8", raw)})
        assert (tmp_path / "a.ckpk").read_bytes() == (tmp_path / "b.ckpk").read_bytes()

    def test_tells_where_each_chunk_is_and_its_checksum(self, tmp_path: Path, small_chunks: None) -> None:
        raw = normal(FLOAT32, 3 * SMALL, 1)
        stored = write(tmp_path / "a.ckpk", {"a": ("float32", raw)})["a"]
        file = (tmp_path / "a.ckpk").read_bytes()
        for offset, length, checksum in stored.chunks:
            assert xxhash.xxh3_64_intdigest(file[offset : offset + length]) == checksum
        assert stored.stored_bytes == sum(length for _, length, _ in stored.chunks)
        lengths = [length for _, length, _ in stored.chunks]
        assert [offset for offset, _, _ in stored.chunks] == [0, *np.cumsum(lengths)[:-1]]

    def test_goes_on_after_short_writes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
    ) -> None:
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda descriptor, view, offset: real(descriptor, view[:301], offset))
        raw = normal(FLOAT32, 3 * SMALL + 1, 1)
        write(tmp_path / "a.ckpk", {"a": ("float32", raw)})
        with Archive(tmp_path / "a.ckpk") as pack:
            assert read(pack, "a") == raw

    def test_passes_on_a_refusal_of_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
    ) -> None:
        writer = ArchiveWriter(tmp_path / "a.ckpk", {})

        def pwrite(*_: object) -> int:
            raise OSError(errno.ENOSPC, "no space left")

        monkeypatch.setattr(os, "pwrite", pwrite)
        raw = normal(FLOAT32, 20 * SMALL, 1)
        with pytest.raises(OSError, match="no space left"):
            writer.add("a", "float32", len(raw), reader(raw))
        with pytest.raises(OSError, match="no space left"):
            writer.finish()
        writer.abandon()
        assert list(tmp_path.iterdir()) == []

    def test_forgets_a_tensor_whose_reading_failed(self, tmp_path: Path, small_chunks: None) -> None:
        raw = normal(FLOAT32, 10 * SMALL, 1)

        def failing(start: int, stop: int) -> memoryview:
            if start > len(raw) // 2:
                raise InterruptedError("pulled out")
            return memoryview(raw)[start:stop]

        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        with pytest.raises(InterruptedError, match="pulled out"):
            writer.add("a", "float32", len(raw), failing)
        writer.add("b", "float32", len(raw), reader(raw))
        writer.add("a", "float32", 4000, reader(raw))
        writer.finish()
        with Archive(tmp_path / "a.ckpk") as pack:
            assert set(pack.entries) == {"a", "b"}
            assert read(pack, "b") == raw
            assert read(pack, "a") == raw[:4000]

    def test_is_done_with_what_it_was_given_when_reading_fails(
        self, tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No encoder may still look at memory that its owner believes to have back."""
        raw = normal(FLOAT32, 10 * SMALL, 1)
        at_work: list[int] = []
        started, go_on = threading.Event(), threading.Event()

        def packed(chunk: CutChunk) -> list[bytes | memoryview]:
            at_work.append(chunk.raw.size)
            started.set()
            go_on.wait()
            at_work.pop()
            return [bytes(chunk.raw.data)]

        def failing(start: int, stop: int) -> memoryview:
            if start:
                started.wait()
                threading.Timer(0.05, go_on.set).start()
                raise InterruptedError("pulled out")
            return memoryview(raw)[start:stop]

        monkeypatch.setattr(CutChunk, "packed", packed)
        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        with pytest.raises(InterruptedError):
            writer.add("a", "float32", len(raw), failing)
        assert at_work == []
        writer.abandon()

    def test_holds_a_few_chunks_at_a_time(self, tmp_path: Path, small_chunks: None) -> None:
        given_chunks: list[weakref.ref[object]] = []
        most = 0

        def read_one(start: int, stop: int) -> memoryview:
            nonlocal most
            chunk = np.full(stop - start, start % 251, np.uint8)
            given_chunks.append(weakref.ref(chunk))
            most = max(most, sum(one() is not None for one in given_chunks))
            return chunk.data

        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        writer.add("a", "uint8", 200 * SMALL, read_one)
        writer.abandon()
        assert len(given_chunks) == 200
        assert most <= 8

    def test_reads_each_byte_once_and_in_order(self, tmp_path: Path, small_chunks: None) -> None:
        raw = normal(FLOAT32, 4 * SMALL + 9, 1)
        asked: list[tuple[int, int]] = []

        def read_one(start: int, stop: int) -> memoryview:
            asked.append((start, stop))
            return memoryview(raw)[start:stop]

        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        writer.add("a", "float32", len(raw), read_one)
        writer.abandon()
        assert asked == [(start, min(start + 4 * SMALL, len(raw))) for start in range(0, len(raw), 4 * SMALL)]

    def test_may_be_given_tensors_by_several_threads(self, tmp_path: Path, small_chunks: None) -> None:
        tensors = {str(seed): normal(FLOAT32, 137 * seed, seed) for seed in range(40)}
        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        start = threading.Barrier(4)

        def add(part: int) -> None:
            start.wait()
            for digest, raw in list(tensors.items())[part::4]:
                writer.add(digest, "float32", len(raw), reader(raw))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add, range(4)))
        writer.finish()
        with Archive(tmp_path / "a.ckpk") as pack:
            assert {digest: read(pack, digest) for digest in pack.entries} == tensors

    def test_takes_a_tensor_once_even_from_two_threads(self, tmp_path: Path) -> None:
        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        both = threading.Barrier(2)

        def read_one(start: int, stop: int) -> memoryview:
            both.wait()
            return memoryview(b"abc")

        with ThreadPoolExecutor(2) as threads:
            adding = [threads.submit(writer.add, "a", "uint8", 3, read_one) for _ in range(2)]
        errors = [future.exception() for future in adding]
        assert sorted(map(type, errors), key=str) == sorted([type(None), InvalidInputError], key=str)
        writer.abandon()

    def test_refuses_what_no_pack_can_hold(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInputError, match="metadata are texts"):
            ArchiveWriter(tmp_path / "a.ckpk", {"step": 3})  # type: ignore[dict-item]
        assert not (tmp_path / "a.ckpk").exists()
        writer = ArchiveWriter(tmp_path / "a.ckpk", {})
        writer.add("a", "uint8", 3, reader(b"abc"))
        add = writer.add
        with pytest.raises(InvalidInputError, match="'a' is in the pack already"):
            add("a", "uint8", 3, reader(b"abc"))
        with pytest.raises(InvalidInputError, match="has no digest"):
            add("", "uint8", 3, reader(b"abc"))
        with pytest.raises(InvalidInputError, match="no element type is called 'float31'"):
            add("b", "float31", 4, reader(b"abcd"))
        for size in (-4, 3, 6):
            with pytest.raises(InvalidInputError, match="no whole number of float32"):
                add("b", "float32", size, reader(b"abcdef"))
        with pytest.raises(InvalidInputError, match="bytes 0 to 4 were asked for, and 3 bytes given"):
            add("b", "float32", 4, reader(b"abc"))
        with pytest.raises(InvalidInputError, match="bytes 0 to 4 were asked for, and 3 bytes given"):
            add("b", "float32", 4, reader(b"abcd"), Base("a", "p"), reader(b"abc"))
        with pytest.raises(InvalidInputError, match="together or not at all"):
            add("b", "float32", 4, reader(b"abcd"), Base("a", "p"))
        with pytest.raises(InvalidInputError, match="together or not at all"):
            add("b", "float32", 4, reader(b"abcd"), read_base=reader(b"abcd"))
        writer.finish()
        with Archive(tmp_path / "a.ckpk") as pack:
            assert list(pack.entries) == ["a"]
