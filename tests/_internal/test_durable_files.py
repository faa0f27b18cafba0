"""Files that are there whole or not at all, and refusals that say what to do."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptlake._internal import files
from ckptlake._internal.files import storage_error, storage_errors, sync_data, write_all, write_once
from ckptlake.errors import ReadOnlyLakeError, StorageError


class TestWriteAll:
    def test_however_little_one_call_writes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real, calls = os.write, []

        def three_bytes(descriptor: int, data: memoryview) -> int:
            calls.append(len(data))
            return real(descriptor, data[:3])

        monkeypatch.setattr(os, "write", three_bytes)
        payload = bytes(range(100))
        descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        write_all(descriptor, payload)
        os.close(descriptor)
        assert (tmp_path / "file").read_bytes() == payload
        assert len(calls) == 34

    def test_of_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "write", lambda *_: pytest.fail("nothing to write"))
        write_all(0, b"")


class TestWriteOnce:
    def test_writes_the_whole_file(self, tmp_path: Path) -> None:
        assert write_once(tmp_path / "file", b"payload")
        assert (tmp_path / "file").read_bytes() == b"payload"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_second_time_changes_nothing(self, tmp_path: Path) -> None:
        assert write_once(tmp_path / "file", b"first")
        assert not write_once(tmp_path / "file", b"second")
        assert (tmp_path / "file").read_bytes() == b"first"
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.parametrize("refused", ["write", "fsync", "link"])
    def test_a_refusal_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, refused, refuse)
            with pytest.raises(OSError, match="No space"):
                write_once(tmp_path / "file", b"payload")
        assert os.listdir(tmp_path) == []
        assert write_once(tmp_path / "file", b"payload")

    def test_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []

        def noting(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*arguments: object) -> object:
                order.append(name)
                return real(*arguments)

            return call

        for name in ("write", "fsync", "link"):
            monkeypatch.setattr(os, name, noting(name))
        write_once(tmp_path / "file", b"payload")
        assert order == ["write", "fsync", "link", "fsync"]

    @pytest.mark.parametrize("at", ["write", "fsync", "link"])
    def test_another_writer_with_the_same_process_id_at_any_moment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        """Another thread, or a process in another container on the same network disk."""
        real, others = getattr(os, at), []

        def meanwhile(*arguments: object) -> object:
            if not others:
                others.append(None)
                others[0] = write_once(tmp_path / "file", b"the other")  # type: ignore[call-overload]
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, at, meanwhile)
            mine = write_once(tmp_path / "file", b"mine, longer")
        assert sorted([mine, others[0]]) == [False, True]  # type: ignore[type-var]
        assert (tmp_path / "file").read_bytes() == (b"mine, longer" if mine else b"the other")
        assert os.listdir(tmp_path) == ["file"]

    def test_one_of_many_threads_wins_and_nobody_reads_half(self, tmp_path: Path) -> None:
        for attempt in range(30):
            path, won, seen, failures = tmp_path / str(attempt), [], [], []
            payloads = [bytes([number]) * 5000 for number in range(6)]
            together = threading.Barrier(len(payloads))

            def work(
                payload: bytes,
                path: Path = path,
                won: list[bytes] = won,
                seen: list[bytes] = seen,
                together: threading.Barrier = together,
                failures: list[BaseException] = failures,
            ) -> None:
                together.wait()
                try:
                    if write_once(path, payload):
                        won.append(payload)
                    seen.append(path.read_bytes())
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(payload,)) for payload in payloads]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert len(won) == 1
            assert set(seen) == set(won)


class TestSync:
    def test_where_there_is_no_fdatasync(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[int] = []
        monkeypatch.delattr(os, "fdatasync", raising=False)
        monkeypatch.setattr(os, "fsync", synced.append)
        sync_data(7)
        assert synced == [7]

    def test_of_files_and_directories(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_bytes(b"x")
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        files.sync_file(tmp_path / "file")
        files.sync_directory(tmp_path)
        assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "kind", "remedy"),
        [
            (errno.ENOSPC, StorageError, "free space on that disk"),
            (errno.EDQUOT, StorageError, "free space on that disk"),
            (errno.EIO, StorageError, "check that disk"),
            (errno.EACCES, ReadOnlyLakeError, "mend its permissions"),
            (errno.EPERM, ReadOnlyLakeError, "mend its permissions"),
            (errno.EROFS, ReadOnlyLakeError, "mend its permissions"),
        ],
    )
    def test_say_what_where_and_what_to_do(self, code: int, kind: type[StorageError], remedy: str) -> None:
        error = storage_error("write a thing", Path("/some/place"), OSError(code, os.strerror(code)))
        assert type(error) is kind
        assert str(error).startswith(f"cannot write a thing at /some/place: {os.strerror(code)}; ")
        assert remedy in str(error)

    def test_without_a_number(self) -> None:
        assert "it broke" in str(storage_error("write", Path("x"), OSError("it broke")))

    def test_are_translated_and_keep_their_cause(self) -> None:
        cause = OSError(errno.EIO, "Input/output error")
        with pytest.raises(StorageError) as caught, storage_errors("read", Path("x")):
            raise cause
        assert caught.value.__cause__ is cause

    def test_other_errors_pass(self) -> None:
        with pytest.raises(KeyError), storage_errors("read", Path("x")):
            raise KeyError("x")
