"""Answers on disk: damage is a miss, room is bounded, processes share it, and no disk need take them."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiet_lakes import Put, quiet

import ckptlake
from ckptlake._internal.sealed import sealed, write_sealed
from ckptlake.config import Capture
from ckptlake.errors import CkptlakeError
from ckptlake.lake import Lake
from ckptlake.query import cache_files
from ckptlake.query.answers import Answer
from ckptlake.query.cache_files import CacheFiles

Point = Callable[..., dict[str, Any]]
DIGESTS = [f"{number:064x}" for number in range(40)]
QUERY = "SELECT step, value FROM metrics ORDER BY ALL"


def answer(size: int = 800, value: float = 0.0) -> Answer:
    return Answer(pa.table({"a": pa.array(np.full(size // 8, value))}), ("DOUBLE",))


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) if directory.exists() else set()


@pytest.fixture
def files(tmp_path: Path) -> CacheFiles:
    return CacheFiles(tmp_path / "cache" / "results", 1 << 20)


def file_of(files: CacheFiles, digest: str = DIGESTS[0]) -> Path:
    return files._path(digest)


class TestDamage:
    def test_what_is_whole_is_read(self, files: CacheFiles) -> None:
        assert files.read(DIGESTS[0]) is None
        files.write(DIGESTS[0], answer(value=3.0))
        found = files.read(DIGESTS[0])
        assert found is not None
        assert found.rows.equals(answer(value=3.0).rows)
        assert found.kinds == ("DOUBLE",)
        assert names(file_of(files).parent) == {file_of(files).name}

    @given(data=st.data())
    def test_no_byte_can_be_cut_or_changed(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        files = CacheFiles(tmp_path_factory.mktemp("cache"), 1 << 20)
        files.write(DIGESTS[0], answer())
        path = file_of(files)
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["cut", "flip", "more", "zeros"]))
        damaged = {
            "cut": whole[:at],
            "flip": whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :],
            "more": whole + bytes(data.draw(st.integers(1, 9))),
            "zeros": bytes(len(whole)),
        }[how]
        path.write_bytes(damaged)
        assert files.read(DIGESTS[0]) is None
        assert not path.exists()
        files.write(DIGESTS[0], answer())
        assert files.read(DIGESTS[0]) is not None

    @given(garbage=st.binary(max_size=300))
    def test_garbage_is_no_answer(self, tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
        files = CacheFiles(tmp_path_factory.mktemp("cache"), 1 << 20)
        file_of(files).write_bytes(garbage)
        assert files.read(DIGESTS[0]) is None
        assert not file_of(files).exists()

    def test_an_answer_under_another_name_is_not_taken_for_it(self, files: CacheFiles) -> None:
        files.write(DIGESTS[0], answer())
        shutil.copy(file_of(files), file_of(files, DIGESTS[1]))
        assert files.read(DIGESTS[1]) is None
        assert files.read(DIGESTS[0]) is not None

    @pytest.mark.parametrize("about", [{}, {"digest": DIGESTS[0]}, {"digest": DIGESTS[0], "kinds": 1}])
    def test_rows_that_are_no_answer_are_a_miss(self, files: CacheFiles, about: dict[str, Any]) -> None:
        files.write(DIGESTS[0], answer())
        write_sealed(file_of(files), sealed(file_of(files).read_bytes()[:8], answer().rows, about))
        assert files.read(DIGESTS[0]) is None
        assert not file_of(files).exists()

    def test_a_directory_in_the_place_of_a_file_is_a_miss(self, files: CacheFiles) -> None:
        file_of(files).mkdir(parents=True)
        assert files.read(DIGESTS[0]) is None
        files.write(DIGESTS[0], answer())
        assert files.read(DIGESTS[0]) is None

    def test_a_lake_computes_again_what_is_damaged(self, tmp_path: Path, put: Put, point: Point) -> None:
        with ckptlake.open(tmp_path / "lake", settings=quiet(result_cache_on_disk=True)) as lake:
            put(lake, "metrics", point(1, 2.0))
            expected = lake.sql(QUERY).fetchall()
        (path,) = (tmp_path / "lake" / "cache" / "results").iterdir()
        path.write_bytes(path.read_bytes()[:-3])
        with ckptlake.open(tmp_path / "lake", settings=quiet(result_cache_on_disk=True)) as lake:
            assert lake.sql(QUERY).fetchall() == expected
            assert (lake.cache.info().hits, lake.cache.info().misses, lake.cache.info().disk_entries) == (0, 1, 1)


class TestRoom:
    def test_what_was_not_read_longest_goes_first(self, tmp_path: Path) -> None:
        size = 1200
        files = CacheFiles(tmp_path, 20_000)
        for at, digest in enumerate(DIGESTS[:12]):
            files.write(digest, answer(size))
            os.utime(files._path(digest), ns=(at, at))
        (file_bytes,) = {path.stat().st_size for path in tmp_path.iterdir()}
        fit = 20_000 // file_bytes
        assert fit == 12, "the figures of this test fit the size of a file"
        assert files.read(DIGESTS[0]) is not None
        files.write(DIGESTS[12], answer(size))
        kept = {digest for digest in DIGESTS[:13] if files._path(digest).exists()}
        assert kept == set(DIGESTS[:13]) - {DIGESTS[1]}
        assert files.usage() == (12, 12 * file_bytes)

    def test_an_answer_larger_than_a_quarter_is_not_kept(self, tmp_path: Path) -> None:
        files = CacheFiles(tmp_path, 20_000)
        files.write(DIGESTS[0], answer(5200))
        files.write(DIGESTS[1], answer(4900))
        assert files.usage() == (0, 0)

    def test_there_are_never_too_many_to_list(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache_files, "MOST_FILES", 5)
        files = CacheFiles(tmp_path, 1 << 20)
        for digest in DIGESTS:
            files.write(digest, answer(8))
        assert files.usage()[0] == 5

    def test_what_a_dead_process_left_half_written_goes(self, files: CacheFiles) -> None:
        files.write(DIGESTS[0], answer())
        old, new = (file_of(files).with_name(f".{name}.partial") for name in ("old", "new"))
        old.write_bytes(b"x")
        new.write_bytes(b"x")
        os.utime(old, (0, time.time() - 4000))
        files.write(DIGESTS[1], answer())
        assert not old.exists()
        assert new.exists()

    def test_clear_deletes_answers_and_nothing_else(self, files: CacheFiles) -> None:
        files.write(DIGESTS[0], answer())
        other = file_of(files).with_name("notes.txt")
        other.write_text("mine")
        files.clear()
        assert names(other.parent) == {"notes.txt"}
        files.clear()

    def test_clear_of_nothing_is_fine(self, files: CacheFiles) -> None:
        files.clear()
        assert files.usage() == (0, 0)

    def test_many_write_one_answer_at_once(self, tmp_path: Path) -> None:
        failures: list[object] = []

        def work() -> None:
            files = CacheFiles(tmp_path, 20_000)
            try:
                for number in range(60):
                    digest = DIGESTS[number % 20]
                    files.write(digest, answer(1200, value=float(number % 20)))
                    found = files.read(digest)
                    if found is not None and found.rows.column("a")[0].as_py() != number % 20:
                        failures.append(number)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert {path.suffix for path in tmp_path.iterdir()} == {".answer"}


class TestWithoutPermission:
    def refuse(self, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
        def refusing(*args: Any, **kwargs: Any) -> Any:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(cache_files, "write_sealed", refusing)

    @pytest.mark.parametrize("error", [13, 28, 30, 5])
    def test_a_disk_that_refuses_leaves_memory(
        self, tmp_path: Path, put: Put, point: Point, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        with ckptlake.open(tmp_path / "lake", settings=quiet(result_cache_on_disk=True)) as lake:
            put(lake, "metrics", point(1, 2.0))
            self.refuse(monkeypatch, error)
            assert lake.sql(QUERY).fetchall() == lake.sql(QUERY).fetchall() == [(1, 2.0)]
            info = lake.cache.info()
            assert (info.hits, info.entries, info.disk_entries) == (1, 1, 0)

    def test_a_file_in_the_place_of_the_directory_leaves_memory(self, lake: Lake) -> None:
        with ckptlake.open(lake.path, settings=quiet(result_cache_on_disk=True)) as other:
            (lake.path / "cache").write_text("not a directory")
            other.sql("FROM runs")
            other.sql("FROM runs")
            assert other.cache.info().hits == 1
            other.cache.clear()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_lake_that_cannot_be_written_is_answered_from_memory(self, lake: Lake) -> None:
        lake.path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            with ckptlake.open(lake.path, create=False, settings=quiet(result_cache_on_disk=True)) as reader:
                reader.sql("FROM runs")
                reader.sql("FROM runs")
                assert (reader.cache.info().hits, reader.cache.info().disk_entries) == (1, 0)
        finally:
            lake.path.chmod(0o755)

    def test_clearing_what_may_not_be_deleted_is_an_error(
        self, files: CacheFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.write(DIGESTS[0], answer())

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "no")

        monkeypatch.setattr(Path, "unlink", refuse)
        with pytest.raises(CkptlakeError, match="clear the cache"):
            files.clear()


class TestWhatIsWritten:
    def test_rows_on_their_way_are_not(self, tmp_path: Path) -> None:
        with ckptlake.open(tmp_path / "lake", settings=quiet(result_cache_on_disk=True)) as lake:
            run = lake.run("e", capture=Capture.nothing())
            run.log({"m": 1.0}, step=0)
            lake.flush()
            assert len(lake.sql(QUERY).fetchall()) == 1
            assert lake.cache.info().disk_entries == 0
            lake.commit()
            assert len(lake.sql(QUERY).fetchall()) == 1
            assert lake.cache.info().disk_entries == 1

    def test_tables_put_back_from_a_copy_are_told_apart(self, tmp_path: Path, put: Put, point: Point) -> None:
        """The same version of the same table has other files then."""
        path, copy = tmp_path / "lake", tmp_path / "copy"
        settings = quiet(result_cache_on_disk=True)
        with ckptlake.open(path, settings=settings) as lake:
            put(lake, "metrics", point(1, 1.0))
            shutil.copytree(path / "tables", copy)
            put(lake, "metrics", point(2, 2.0))
            version = lake.table("metrics").version()
            assert lake.sql(QUERY).fetchall() == [(1, 1.0), (2, 2.0)]
        shutil.rmtree(path / "tables")
        shutil.copytree(copy, path / "tables")
        with ckptlake.open(path, settings=settings) as lake:
            put(lake, "metrics", point(2, 5.0))
            assert lake.table("metrics").version() == version
            assert lake.sql(QUERY).fetchall() == [(1, 1.0), (2, 5.0)]

    def test_another_version_does_not_find_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = quiet(result_cache_on_disk=True)
        for version in ("1", "2", "2"):
            monkeypatch.setattr(ckptlake, "__version__", version)
            with ckptlake.open(tmp_path / "lake", settings=settings) as lake:
                lake.sql("FROM runs")
                hits = lake.cache.info().hits
        assert hits == 1
        assert len(names(tmp_path / "lake" / "cache" / "results")) == 2
