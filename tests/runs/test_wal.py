"""Write-ahead segments: what is written is read, and damage ends a segment without making a wrong row."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake._internal.locks import try_lock
from ckptlake.errors import DamagedSegmentError, LakeFormatError
from ckptlake.runs import wal
from ckptlake.runs.frames import pack_rows
from ckptlake.runs.wal import (
    OpenRuns,
    SegmentHeader,
    SegmentName,
    SegmentWriter,
    read_frames,
    read_header,
    read_segment,
)


def header(first_frame: int = 1, open_runs: OpenRuns = (("r", 1, "w/1"),)) -> SegmentHeader:
    return SegmentHeader("lake", "writer-1", "host", 42, first_frame, open_runs)


def batch(*values: int) -> pa.RecordBatch:
    return pack_rows("tags", [{"run_id": "r", "key": str(value)} for value in values])


def segment(directory: Path, *batches: pa.RecordBatch, first_frame: int = 1) -> Path:
    writer = SegmentWriter(directory, SegmentName("writer-1", 3), header(first_frame))
    for one in batches:
        writer.append(one)
    writer.sync()
    writer.release()
    return writer.path


def values(path: Path) -> list[tuple[int, list[int]]]:
    return [
        (number, [int(key) for key in found.column("key").to_pylist()]) for number, found in read_segment(path).frames
    ]


class TestSegmentName:
    @given(writer=st.from_regex(r"[0-9A-Za-z-]{1,40}", fullmatch=True), sequence=st.integers(0, 10**8 - 1))
    def test_comes_back_from_its_text(self, writer: str, sequence: int) -> None:
        name = SegmentName(writer, sequence)
        assert SegmentName.parse(str(name)) == name

    @given(st.from_regex(r"[a-z0-9-]{0,3}\.?\w{7,9}\.?w?a?l?", fullmatch=True) | st.text(max_size=20))
    def test_of_any_text_is_none_or_that_text(self, text: str) -> None:
        name = SegmentName.parse(text)
        assert name is None or str(name) == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ".wal",
            "w.00000001",
            "w.1.wal",
            "w.000000001.wal",
            ".w.00000001.wal.partial",
            ".00000001.wal",
            "a.b.00000001.wal",
            "w.00000001.wal\n",
            "w.-0000001.wal",
            ".recover.lock",
        ],
    )
    def test_of_other_files_is_none(self, text: str) -> None:
        assert SegmentName.parse(text) is None

    def test_sorts_as_files_do(self) -> None:
        names = [str(SegmentName("w", sequence)) for sequence in (0, 9, 10, 99_999_999)]
        assert sorted(names) == names


class TestHeader:
    @given(
        open_runs=st.lists(
            st.tuples(
                st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), st.integers(1, 2**31 - 1), st.text()
            ),
            max_size=5,
        ).map(tuple),
        first_frame=st.integers(0, 2**62 - 1),
        host=st.text(),
    )
    def test_comes_back_as_it_was(self, open_runs: OpenRuns, first_frame: int, host: str) -> None:
        written = SegmentHeader("lake", "w", host, 1, first_frame, open_runs)
        assert SegmentHeader.parse(written.payload()) == written

    def test_is_read_from_the_file(self, tmp_path: Path) -> None:
        path = segment(tmp_path / "wal", first_frame=7)
        name, found, offset = read_header(path)
        assert (name, found) == (SegmentName("writer-1", 3), header(7))
        assert offset == path.stat().st_size

    def test_of_very_many_open_runs(self, tmp_path: Path) -> None:
        open_runs = tuple((f"run-{index:060}", 1, "w/1") for index in range(5000))
        writer = SegmentWriter(tmp_path / "wal", SegmentName("writer-1", 0), header(open_runs=open_runs))
        writer.append(batch(1))
        writer.sync()
        writer.release()
        assert read_segment(writer.path).header.open_runs == open_runs
        assert values(writer.path) == [(1, [1])]

    def test_of_a_newer_format_is_not_guessed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(wal, "FORMAT_VERSION", 2)
            path = segment(tmp_path / "wal")
        with pytest.raises(LakeFormatError, match="newer than this ckptlake reads"):
            read_segment(path)

    @pytest.mark.parametrize("keep", [0, 1, 19, 20, 30])
    def test_that_is_cut_off(self, tmp_path: Path, keep: int) -> None:
        path = segment(tmp_path / "wal", batch(1))
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DamagedSegmentError, match="header"):
            read_segment(path)

    def test_of_a_file_with_another_name(self, tmp_path: Path) -> None:
        path = segment(tmp_path / "wal").rename(tmp_path / "other")
        with pytest.raises(DamagedSegmentError, match="not named"):
            read_segment(path)

    def test_that_lacks_a_field(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SegmentHeader, "payload", lambda self: json.dumps({"format_version": 1}).encode())
            path = segment(tmp_path / "wal")
        with pytest.raises(DamagedSegmentError, match="cannot be read"):
            read_segment(path)


class TestFrames:
    def test_come_back_in_order_with_their_numbers(self, tmp_path: Path) -> None:
        path = segment(tmp_path / "wal", batch(1, 2), batch(), batch(3), first_frame=5)
        contents = read_segment(path)
        assert values(path) == [(5, [1, 2]), (6, []), (7, [3])]
        assert contents.frames[0][1].schema.metadata == {b"table": b"tags"}
        assert (contents.damage, contents.last_frame) == (None, 7)
        assert contents.sound_bytes == contents.size_bytes == path.stat().st_size

    def test_none_at_all(self, tmp_path: Path) -> None:
        contents = read_segment(segment(tmp_path / "wal", first_frame=5))
        assert (contents.frames, contents.last_frame, contents.damage) == ((), 4, None)

    def test_are_read_on_from_an_offset(self, tmp_path: Path) -> None:
        writer = SegmentWriter(tmp_path / "wal", SegmentName("writer-1", 0), header())
        writer.append(batch(1))
        _, _, offset = read_header(writer.path)
        frames, offset, _, _ = read_frames(writer.path, offset)
        assert [number for number, _ in frames] == [1]
        writer.append(batch(2))
        writer.append(batch(3))
        frames, offset, size, damage = read_frames(writer.path, offset)
        assert [(number, [int(key) for key in found.column("key").to_pylist()]) for number, found in frames] == [
            (2, [2]),
            (3, [3]),
        ]
        assert (offset, damage) == (size, None)
        assert read_frames(writer.path, offset)[0] == []
        writer.release()

    @given(cut=st.integers(0, 2000))
    @settings(max_examples=60, deadline=None)
    def test_of_a_file_cut_anywhere_are_those_before(self, tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
        path = segment(tmp_path_factory.mktemp("cut") / "wal", batch(1), batch(2), batch(3))
        whole = path.read_bytes()
        ends = [read_header(path)[2]]
        for _ in range(3):
            length = int.from_bytes(whole[ends[-1] + 4 : ends[-1] + 8], "little")
            ends.append(ends[-1] + 20 + length)
        size = min(cut + ends[0], len(whole))
        path.write_bytes(whole[:size])
        contents = read_segment(path)
        expected = [number for number, end in enumerate(ends[1:], 1) if end <= size]
        assert [number for number, _ in contents.frames] == expected
        assert (contents.damage is None) == (size in ends)
        assert contents.sound_bytes == ends[len(expected)]

    @given(data=st.data())
    @settings(max_examples=80, deadline=None)
    def test_of_a_file_with_flipped_bits_are_never_wrong(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        path = segment(tmp_path_factory.mktemp("flip") / "wal", batch(1), batch(2), batch(3))
        whole = bytearray(path.read_bytes())
        start = read_header(path)[2]
        for place in data.draw(st.lists(st.integers(start, len(whole) - 1), min_size=1, max_size=3, unique=True)):
            whole[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(whole)
        contents = read_segment(path)
        good = [(1, [1]), (2, [2]), (3, [3])]
        assert contents.damage is not None
        assert len(contents.frames) < 3
        assert values(path) == good[: len(contents.frames)]

    def test_of_a_zeroed_tail(self, tmp_path: Path) -> None:
        path = segment(tmp_path / "wal", batch(1), batch(2))
        whole = path.read_bytes()
        path.write_bytes(whole[:-10] + bytes(10))
        assert values(path) == [(1, [1])]
        path.write_bytes(whole + bytes(4096))
        assert values(path) == [(1, [1]), (2, [2])]
        assert "no frame where one should begin" in str(read_segment(path).damage)

    def test_that_are_repeated_end_the_segment(self, tmp_path: Path) -> None:
        path = segment(tmp_path / "wal", batch(1), batch(2))
        whole = path.read_bytes()
        path.write_bytes(whole + whole[read_header(path)[2] :])
        contents = read_segment(path)
        assert [number for number, _ in contents.frames] == [1, 2]
        assert "does not rise" in str(contents.damage)


class TestWriting:
    def test_holds_the_lock_until_release(self, tmp_path: Path) -> None:
        writer = SegmentWriter(tmp_path / "wal", SegmentName("writer-1", 0), header())
        descriptor = os.open(writer.path, os.O_RDWR)
        assert not try_lock(descriptor)
        writer.release()
        assert try_lock(descriptor)
        os.close(descriptor)

    def test_a_refused_write_cuts_back_to_the_frame_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writer = SegmentWriter(tmp_path / "wal", SegmentName("writer-1", 0), header())
        writer.append(batch(1))
        real_write, calls = os.write, []

        def partial_write(descriptor: int, data: memoryview) -> int:
            calls.append(len(data))
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real_write(descriptor, data[:7])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", partial_write)
            with pytest.raises(OSError, match="No space"):
                writer.append(batch(2))
        assert values(writer.path) == [(1, [1])]
        assert read_segment(writer.path).damage is None
        writer.append(batch(3))
        assert values(writer.path) == [(1, [1]), (2, [3])]
        assert not writer.broken
        writer.release()

    def test_a_refused_sync_breaks_the_segment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = SegmentWriter(tmp_path / "wal", SegmentName("writer-1", 0), header())
        writer.append(batch(1))
        writer.sync()
        writer.append(batch(2))

        def refuse(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            writer.sync()
        assert writer.broken
        assert values(writer.path) == [(1, [1])]
        writer.release()

    @pytest.mark.parametrize("refused", ["write", "fdatasync", "fsync"])
    def test_a_segment_that_cannot_begin_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        directory = tmp_path / "wal"
        with monkeypatch.context() as patch:
            patch.setattr(os, refused, refuse)
            with pytest.raises(OSError, match="No space"):
                SegmentWriter(directory, SegmentName("writer-1", 0), header())
        assert list(directory.iterdir()) == []
        SegmentWriter(directory, SegmentName("writer-1", 0), header()).release()
